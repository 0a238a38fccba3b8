"""What the model that decides has learned from this store's own outcomes, on top of its weights.

In: a store, its agents, and what their records say. Out: the active model with the state of its learning, and the
columns that a snapshot needs of both. Nothing is kept here: what was learned is in the store, and what is newer in its
outcomes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinydancer import learn
from tinydancer.abilities import AbilityState, GradedAnswer
from tinydancer.errors import ArtifactError, NotFoundError
from tinydancer.model.quality import KIND, AgentProfile, QualityModel
from tinydancer.models import open_model
from tinydancer.snapshot import AgentEstimate, Predictor
from tinydancer.store.base import Store
from tinydancer.types import Agent, EmbeddingSpace

__all__ = ["KEEP_AFTER", "USUAL_INPUT_TOKENS", "Learning", "begin", "go_on", "predictor_of"]

LEARN_AT_ONCE = 2_000
"""Outcomes read at a time to learn from."""
KEEP_AFTER = 100
"""How many outcomes may be learned from before what was learned is written down."""
TRUSTED_ANSWERS = 10.0
"""Judged answers after which a model knows an agent half by its answers and half by its capabilities."""
USUAL_INPUT_TOKENS = 250.0
"""Of a request of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Learning:
    """The model that decides, and what it learned here: up to which outcome, and up to which that was written down."""

    model: QualityModel
    state: AbilityState
    up_to: int
    kept_up_to: int


def begin(store: Store, space: EmbeddingSpace) -> Learning | None:
    """The active model with what was written down of its learning; None if none is active.

    Raises
    ------
    SpaceMismatchError
        It is of another space.
    """
    model = _active_model(store)
    if model is None:
        return None
    space.require(model.space, f"The model {model.name}")
    stored = store.ability_state(str(model.sha256))
    if stored is not None:
        # What cannot be read is learned again: the outcomes are all there.
        with contextlib.suppress(ArtifactError):
            return Learning(model, AbilityState.from_bytes(stored[1]), stored[0], stored[0])
    return Learning(model, AbilityState(), 0, 0)


def go_on(
    store: Store, learning: Learning, agents: Sequence[Agent], estimates: Mapping[str, AgentEstimate]
) -> Learning:
    """The same model with all that the recorded outcomes taught it since; now and then that is written down."""
    by_name = {agent.name: agent for agent in agents}
    state, up_to = learning.state.without(by_name), learning.up_to
    answered = {name: estimates[name].graded_answers for name in state.names}
    if any(learned > answered[name] for name, learned in state.learned(learning.model).items()):
        # An agent was removed and another registered under its name: nothing of the old one's is to count.
        state, up_to = AbilityState(), 0
    while True:
        rows = store.graded_features(up_to, LEARN_AT_ONCE)
        if not rows:
            break
        answers = [GradedAnswer(r.agent_name, r.quality, r.features) for r in rows if r.agent_name in by_name]
        before = _without_answers(estimates, by_name, answers)
        profiles = {name: _profile(by_name[name], estimate) for name, estimate in before.items()}
        state = state.extended(learning.model, answers, profiles.__getitem__)
        up_to = rows[-1].outcome_id
        if len(rows) < LEARN_AT_ONCE:
            break
    kept = learning.kept_up_to
    if up_to - kept >= KEEP_AFTER and store.save_ability_state(str(learning.model.sha256), up_to, state.to_bytes()):
        kept = up_to
    return Learning(learning.model, state, up_to, kept)


def predictor_of(learning: Learning, agents: Sequence[Agent], estimates: Mapping[str, AgentEstimate]) -> Predictor:
    """What a snapshot needs to predict: a row per agent, in order of name, as it has them."""
    ordered = sorted(agents, key=lambda a: a.name)
    beliefs = learning.state.over(learning.model, [_profile(a, estimates[a.name]) for a in ordered])
    # The weights learned from answers of language models; what a calculator or a person is good at, they cannot know.
    covered = [a.agent_type == "llm" or learning.model.row(a.name) is not None for a in ordered]
    columns = (
        beliefs.mean.astype(np.float32),
        np.array(covered, dtype=np.bool_),
        np.where(covered, TRUSTED_ANSWERS / (TRUSTED_ANSWERS + beliefs.outcomes), 1.0),
    )
    for column in columns:
        column.setflags(write=False)
    abilities, mask, discount = columns
    return Predictor(model=learning.model, abilities=abilities, covered=mask, discount=discount)


def _active_model(store: Store) -> QualityModel | None:
    row = store.active_model(KIND)
    while row is not None:
        try:
            return open_model(store, row)
        except NotFoundError:
            # Somebody removed it after we asked which one decides: ask again.
            now = store.active_model(KIND)
            if now == row:
                raise
            row = now
    return None


def _profile(agent: Agent, estimate: AgentEstimate) -> AgentProfile:
    """What a model is told of an agent that it does not know."""
    usual = agent.cost.estimate_usd(USUAL_INPUT_TOKENS, estimate.output_tokens)
    stated = None if agent.quality_score is None and not estimate.graded_answers else estimate.quality
    return AgentProfile(name=agent.name, stated_quality=stated, usual_cost_usd=usual)


def _without_answers(
    estimates: Mapping[str, AgentEstimate], agents: Mapping[str, Agent], answers: Sequence[GradedAnswer]
) -> dict[str, AgentEstimate]:
    """The estimates as they were before these answers, which a model is about to learn from: none is to count twice.

    So a process that sees outcomes one by one and one that reads them all at once come to believe the same.
    """
    before = {}
    for name in {answer.agent_name for answer in answers}:
        now, own = estimates[name], [answer.quality for answer in answers if answer.agent_name == name]
        stated = agents[name].quality_score is not None
        strength = learn.STATED_STRENGTH if stated else learn.UNSTATED_STRENGTH
        rest = max(0, now.graded_answers - len(own))
        quality = (now.quality * (strength + now.graded_answers) - sum(own)) / (strength + rest)
        before[name] = dataclasses.replace(now, quality=min(1.0, max(0.0, quality)), graded_answers=rest)
    return before
