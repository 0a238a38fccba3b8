"""What outcomes teach about agents' abilities: from a model's beliefs to sharper ones, outcome by outcome.

In: a trained model, what is known of each agent, judged outcomes with the features of their requests. Out: an
`AbilityState`, which is immutable, can be written down, and goes on from where it was. Pure: whoever calls reads the
outcomes and keeps the state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tinydancer.errors import ArtifactError
from tinydancer.model.quality import Abilities, AgentProfile, QualityModel
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = ["AbilityState", "GradedAnswer", "features_of", "pack_features"]

_HALF = np.dtype("<f2")


class GradedAnswer(NamedTuple):
    """A judged answer: who gave it, how good it was in [0, 1], and `pack_features` of the request."""

    agent_name: str
    quality: float
    features: bytes


def pack_features(embedding: FloatVector, surface: FloatVector | None) -> bytes:
    """What a model needs to learn from a request later: little-endian float16, the vector, then the text's facts.

    Without a text the facts are NaN.
    """
    facts = np.full(SURFACE_DIM, np.nan, _HALF) if surface is None else surface.astype(_HALF)
    return embedding.astype(_HALF).tobytes() + facts.tobytes()


def features_of(packed: Sequence[bytes], space: EmbeddingSpace) -> tuple[FloatVector, FloatVector]:
    """Vectors ``float32[m, dim]`` and facts ``float32[m, F]`` of what `pack_features` made; others are refused."""
    size = (space.dim + SURFACE_DIM) * _HALF.itemsize
    wrong = next((raw for raw in packed if len(raw) != size), None)
    if wrong is not None:
        raise ArtifactError(
            f"The features of a decision have {len(wrong)} bytes; expected {size} for {space.dim} dimensions.",
            hint="They are of another vector space or version; train without them.",
        )
    rows = np.frombuffer(b"".join(packed), _HALF).reshape(len(packed), space.dim + SURFACE_DIM).astype(np.float32)
    return rows[:, : space.dim], rows[:, space.dim :]


@dataclass(frozen=True, slots=True)
class AbilityState:
    """Beliefs about the agents that answered, by name.

    Attributes
    ----------
    names
        Agents in the order of the rows of `beliefs`.
    beliefs
        Of them.
    """

    names: tuple[str, ...] = ()
    beliefs: Abilities = field(default_factory=lambda: Abilities(np.empty((0, 0)), np.empty((0, 0, 0)), np.empty(0)))

    def extended(
        self,
        model: QualityModel,
        answers: Sequence[GradedAnswer],
        profile_of: Callable[[str], AgentProfile],
    ) -> AbilityState:
        """After more answers, in order. An agent that answers for the first time starts from its profile.

        Answers whose features are of another space than the model's are passed over.
        """
        size = (model.space.dim + SURFACE_DIM) * _HALF.itemsize
        usable = [answer for answer in answers if len(answer.features) == size]
        if not usable:
            return self
        names, beliefs = self.names, self.beliefs
        new = tuple(dict.fromkeys(a.agent_name for a in usable if a.agent_name not in names))
        if new:
            names, beliefs = names + new, _joined(beliefs, model.believed([profile_of(name) for name in new]))
        row = {name: i for i, name in enumerate(names)}
        vectors, facts = features_of([answer.features for answer in usable], model.space)
        updated = beliefs.updated(
            np.array([row[answer.agent_name] for answer in usable], np.intp),
            model.represent(vectors, facts),
            [answer.quality for answer in usable],
        )
        return AbilityState(names, updated)

    def learned(self, model: QualityModel) -> dict[str, float]:
        """How many answers each agent's beliefs hold beyond those of the training."""
        started = model.believed([AgentProfile(name=name) for name in self.names]).outcomes if self.names else ()
        return {
            name: float(now - before)
            for name, now, before in zip(self.names, self.beliefs.outcomes, started, strict=True)
        }

    def over(self, model: QualityModel, profiles: Sequence[AgentProfile]) -> Abilities:
        """Beliefs about any agents: as learned where they answered, else from their profile."""
        base = model.believed(profiles)
        row = {name: i for i, name in enumerate(self.names)}
        mean, covariance, outcomes = base.mean.copy(), base.covariance.copy(), base.outcomes.copy()
        for i, profile in enumerate(profiles):
            known = row.get(profile.name)
            if known is not None:
                mean[i], covariance[i] = self.beliefs.mean[known], self.beliefs.covariance[known]
                outcomes[i] = self.beliefs.outcomes[known]
        return Abilities(mean, covariance, outcomes)

    def without(self, names: Mapping[str, object]) -> AbilityState:
        """Only the agents in `names`."""
        kept = [i for i, name in enumerate(self.names) if name in names]
        b = self.beliefs
        return AbilityState(
            tuple(self.names[i] for i in kept), Abilities(b.mean[kept], b.covariance[kept], b.outcomes[kept])
        )

    def to_bytes(self) -> bytes:
        """Written down: a line of JSON, then the arrays in float64; of a covariance, which is symmetric, its half."""
        b, width = self.beliefs, self._width
        rows, columns = np.triu_indices(width)
        halves = b.covariance.reshape(len(self.names), width, width)[:, rows, columns]
        head = json.dumps({"names": self.names, "width": width}).encode() + b"\n"
        return head + b"".join(array.astype("<f8").tobytes() for array in (b.mean, halves, b.outcomes))

    @property
    def _width(self) -> int:
        return int(self.beliefs.mean.shape[1]) if self.names else 0

    @classmethod
    def from_bytes(cls, raw: bytes) -> AbilityState:
        """What `to_bytes` wrote, to the last bit; `ArtifactError` for anything else."""
        try:
            head, body = raw.split(b"\n", 1)
            facts = json.loads(head)
            names, width = tuple(map(str, facts["names"])), int(facts["width"])
            values = np.frombuffer(body, "<f8").astype(np.float64)
            n, half = len(names), width * (width + 1) // 2
            if width < 0 or values.size != n * (width + half + 1) or not np.isfinite(values).all():
                raise ValueError(f"{values.size} numbers for {n} agents and a width of {width}, or not finite")
            mean, halves, outcomes = np.split(values, [n * width, n * (width + half)])
            covariance = np.empty((n, width, width))
            rows, columns = np.triu_indices(width)
            covariance[:, rows, columns] = covariance[:, columns, rows] = halves.reshape(n, half)
            return cls(names, Abilities(mean.reshape(n, width), covariance, outcomes))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise ArtifactError(f"What was learned of the agents' abilities cannot be read: {error}.") from None


def _joined(one: Abilities, other: Abilities) -> Abilities:
    if not one.outcomes.size:
        return other
    return Abilities(
        np.concatenate([one.mean, other.mean]),
        np.concatenate([one.covariance, other.covariance]),
        np.concatenate([one.outcomes, other.outcomes]),
    )
