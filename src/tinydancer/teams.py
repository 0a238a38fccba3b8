"""The service's part in teams: several agents for one request.

In: a `TinyDancer`, a request, a strategy. Out: a `Team`, whose members are decisions and recorded as such. Which agents
are best together is decided by ``policy/ensembles`` on what `decide` computes; the stages of a pipeline are decided by
`decide` itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import intake
from tinydancer import validation as check
from tinydancer.decide import Decision, Decisions, decide
from tinydancer.errors import InvalidInputError, RoutingError
from tinydancer.planned import PlannedDecision, PlannedDecisions, facts
from tinydancer.policy import ensembles
from tinydancer.policy.allowance import Allowance
from tinydancer.policy.assignment import best_quality
from tinydancer.policy.copula import CORRELATION, FAMILY_CORRELATION, HIGHEST, Correlations, all_good
from tinydancer.policy.wording import plural, usd
from tinydancer.service import TinyDancer
from tinydancer.snapshot import Snapshot
from tinydancer.types import Constraints, RequestBatch, RequestContext, objective_of

__all__ = ["STRATEGIES", "Member", "Team", "route_multi"]

STRATEGIES = ("pipeline", "parallel", "ensemble", "cascade")
MOST_AGENTS = 20
MOST_STAGE_CHARS = 4_000

_STEPS = {
    1: ("carry out",),
    2: ("carry out", "review"),
    3: ("plan", "carry out", "review"),
    4: ("plan", "carry out", "review", "summarise"),
    5: ("research", "plan", "carry out", "review", "summarise"),
}
_STEP_TEXTS = {
    "research": "Find out what is needed for this task",
    "plan": "Plan the steps of this task",
    "carry out": "Carry out this task",
    "review": "Review the result of this task and correct its mistakes",
    "summarise": "Summarise the result of this task",
}
_NAMED_STEPS = re.compile(r"\s*(?:;|\n+|,?\s+(?:and\s+)?then\b,?)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One agent of a team.

    Attributes
    ----------
    role
        The stage of a pipeline; else what the strategy calls its members.
    decision
        Recorded as any other; feedback refers to its ``decision_id``.
    escalate_below
        Confidence in the answer below which the next of a cascade is asked; None where no other is.
    reached
        Probability that it is called.
    """

    role: str
    decision: Decision
    escalate_below: float | None = None
    reached: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Several agents for one request.

    Attributes
    ----------
    expected_quality
        Of the whole: all stages good (pipeline), the mean answer (parallel), the combined answer (ensemble), the answer
        that stands (cascade).
    estimated_cost, estimated_latency_ms
        Of the whole, as expected: a cascade's later stages count as often as they are reached; what runs side by side
        takes as long as its slowest. None if unknown.
    is_optimal
        Whether every set, or every assignment, was taken into account.
    """

    strategy: str
    members: tuple[Member, ...]
    expected_quality: float
    estimated_cost: float | None
    estimated_latency_ms: float | None
    is_optimal: bool

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-ready row per agent, in order, with the figures of the whole beside each."""
        return [
            {
                "position": position, "role": member.role, **member.decision.to_dict(),
                "escalate_below": member.escalate_below, "reached": member.reached, "strategy": self.strategy,
                "combined_quality": self.expected_quality, "combined_cost": self.estimated_cost,
                "combined_latency_ms": self.estimated_latency_ms, "is_optimal": self.is_optimal,
            }
            for position, member in enumerate(self.members, start=1)
        ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What may be said of a team besides its size and the constraints; see `route_multi`."""

    optimize_for: str = "balanced"
    stages: Sequence[str | Mapping[str, Any]] | None = None
    quality_target: float | None = None
    combination: str = "best_of_n"
    correlation: float = CORRELATION
    family_correlation: float | None = None
    self_knowledge: float = ensembles.SELF_KNOWLEDGE

    def __post_init__(self) -> None:
        objective_of(self.optimize_for)
        check.optional_number(self.quality_target, "quality_target", low=0.0, high=1.0)
        if self.combination not in ensembles.COMBINATIONS:
            raise InvalidInputError(
                f"Unknown combination {check.shown(self.combination)}; expected one of: "
                f"{', '.join(ensembles.COMBINATIONS)}."
            )
        _ = self.correlations  # checks them
        check.number(self.self_knowledge, "self_knowledge", low=0.01, high=0.99)

    @property
    def correlations(self) -> Correlations:
        family = self.family_correlation
        check.number(self.correlation, "correlation", low=0.0, high=HIGHEST)
        return Correlations(self.correlation, max(self.correlation, FAMILY_CORRELATION) if family is None else family)


OPTIONS = tuple(field.name for field in fields(_Options))


def route_multi(
    dancer: TinyDancer,
    request: str,
    num_agents: int = 3,
    strategy: str = "pipeline",
    constraints: Constraints | Mapping[str, Any] | None = None,
    **limits: Any,
) -> Team:
    """Choose several agents for one request.

    Parameters
    ----------
    dancer
        Whose agents, embedder and store.
    request
        Its text.
    num_agents
        Agents that answer side by side; the most of an ensemble or a cascade; stages of a pipeline, unless they are
        given. 1 to 20.
    strategy
        ``pipeline``, ``parallel``, ``ensemble`` or ``cascade``.
    constraints
        As `TinyDancer.route` takes them; ``budget_remaining`` is for the whole team, a cascade's as expected.
    limits
        Constraints by name, sizes of the request, whose it is (as `TinyDancer.route` takes them), and:

        ``stages`` (pipeline)
            Texts, or objects with ``text``, ``role`` and ``required_capabilities``. Without them the request's own
            steps count where it names as many ("...; then ..."), else usual ones: plan, carry out, review.
        ``optimize_for`` (pipeline)
            The objective of each stage.
        ``quality_target`` (cascade)
            Expected quality of the chain; without it that of the best agent alone, or the best that
            ``budget_remaining`` pays for.
        ``combination`` (ensemble)
            ``best_of_n`` or ``majority``.
        ``correlation``, ``family_correlation`` (pipeline, ensemble, cascade)
            Of the latent quality of two agents, of two of a family (``family`` or ``provider`` in the metadata).
        ``self_knowledge`` (cascade)
            How much an answer shows of whether it is good, in (0, 1).

    Raises
    ------
    InvalidInputError
        An unknown strategy or option, a number of agents out of range, contradictory stages.
    NoMatchError
        No agent fits the request, or a stage.
    RoutingError
        No team keeps to the budget or reaches the target; says what would.
    """
    name: Any = strategy
    if isinstance(strategy, str):
        name = strategy.strip().lower()
    if name not in STRATEGIES:
        raise InvalidInputError(f"Unknown strategy {check.shown(strategy)}; expected one of: {', '.join(STRATEGIES)}.")
    count = check.count(num_agents, "num_agents", low=1, high=MOST_AGENTS)
    sizes, context = intake.pop_sizes(limits), intake.pop_context(limits)
    options = _Options(**{key: limits.pop(key) for key in OPTIONS if limits.get(key) is not None})
    given = intake.constraints_of(constraints, {k: v for k, v in limits.items() if k not in OPTIONS})
    given = replace(given, on_no_match="error")
    snapshot = dancer.snapshot()
    if name == "pipeline":
        return _pipeline(dancer, snapshot, request, count, given, sizes, options, context)
    if options.stages is not None:
        raise InvalidInputError(f"stages are given for the strategy {name}; only a pipeline has stages.")
    batch = intake.one_request(
        request, None, sizes, embedder=dancer._get_embedder, space=dancer.space,
        max_chars=dancer.settings.max_request_chars, surface=dancer._keeps_features(snapshot),
    )  # fmt: skip
    # A cascade rarely reaches its dear agents: what its budget holds for is what all of it is expected to cost.
    each = replace(given, budget_remaining=None) if name == "cascade" else given
    now, made = dancer._clock(), None

    def make(allowance: Allowance | None) -> list[Decisions]:
        nonlocal made
        base = decide(batch, snapshot, now=now, objective="quality", constraints=each, allowance=allowance)
        made = _chosen(base, name, count, options, given.budget_remaining)
        return [made.decisions]

    held = dancer._spending.within(make, snapshot, context, now, exactly=True)
    assert made is not None
    rows = np.zeros(len(made.decisions), np.intp)
    surface = None if batch.surface is None else batch.surface[rows]
    copies = RequestBatch(
        batch.embeddings[rows], batch.input_tokens[rows], batch.cached_input_tokens, batch.output_tokens, surface
    )
    return made.team(dancer._remember(made.decisions, copies, [request] * len(rows), context, held))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The agents of a team that work on the same request, and what is expected of them."""

    strategy: str
    role: str
    decisions: PlannedDecisions
    reached: tuple[float, ...] | None
    thresholds: tuple[float | None, ...] | None
    quality: float
    cost_usd: float
    latency_ms: float
    is_optimal: bool

    def team(self, decisions: Sequence[Decision | None]) -> Team:
        """With the decisions as they were recorded."""
        return Team(
            strategy=self.strategy,
            members=tuple(
                Member(
                    role=self.role, decision=decision, reached=1.0 if self.reached is None else self.reached[i],
                    escalate_below=None if self.thresholds is None else self.thresholds[i],
                )
                for i, decision in enumerate(decisions)
                if decision is not None
            ),
            expected_quality=self.quality, estimated_cost=None if math.isnan(self.cost_usd) else self.cost_usd,
            estimated_latency_ms=None if math.isnan(self.latency_ms) else self.latency_ms, is_optimal=self.is_optimal,
        )  # fmt: skip


def _chosen(base: Decisions, strategy: str, count: int, options: _Options, budget: float | None) -> _Chosen:
    snapshot = base.snapshot
    expected = base.expectations()
    usable = expected.allowed[0]
    cap = math.inf if base.allowance is None else base.allowance.cap_usd(expected.allowed, expected.cost_usd)
    if strategy != "cascade" and cap < math.inf:
        budget = cap if budget is None else min(budget, cap)
    if budget is not None or strategy == "cascade":
        usable = usable & np.isfinite(expected.cost_usd[0])  # what is not known cannot be accounted for
    agents = np.flatnonzero(usable)
    if not agents.size:
        raise RoutingError(
            "Every agent that fits has an unknown cost, which no plan can account for.",
            hint="State the prices of the agents; 0 is free.",
        )
    quality, cost_usd = expected.quality[0, agents], expected.cost_usd[0, agents]
    known_cost = np.nan_to_num(cost_usd, nan=0.0)
    families = [family_of(snapshot, j) for j in agents.tolist()]
    limit = math.inf if budget is None else budget
    reached: tuple[float, ...] | None = None
    thresholds: tuple[float | None, ...] | None = None
    if strategy == "cascade":
        # All that it may come to ask is reserved, so all of it has to fit, however rarely it is asked.
        for most in range(count, 0, -1):
            chain = ensembles.cascade(
                quality, cost_usd, most, target=options.quality_target, budget_usd=budget,
                correlation=options.correlation, self_knowledge=options.self_knowledge,
            )  # fmt: skip
            if float(cost_usd[list(chain.members)].sum()) <= cap:
                break
        members, total, cost = chain.members, chain.quality, chain.cost_usd
        reached, optimal = chain.reached, False
        thresholds = (*chain.thresholds[:-1], None)
    else:
        if strategy == "parallel":
            alike = ensembles.similarities(_vectors(snapshot)[agents], families)
            found = ensembles.diverse(quality, known_cost, alike, count, limit)
        else:
            found = ensembles.ensemble(
                quality, known_cost, families, count, budget_usd=limit, combination=options.combination,
                correlations=options.correlations,
            )  # fmt: skip
        members, total, optimal = found.members, found.quality, found.is_exact
        cost = float(cost_usd[list(members)].sum())
    size = len(members)
    columns = agents[list(members)]
    scores = np.where(usable, -expected.quality[0], np.inf)[None].repeat(size, axis=0)
    roles = {"parallel": "independent", "ensemble": "voter", "cascade": "stage"}
    if strategy == "ensemble" and options.combination == "best_of_n":
        roles["ensemble"] = "candidate"
    whole = {
        "parallel": f"One of {plural(size, 'agent')} chosen to be good and to differ in family and skills.",
        "ensemble": f"One of {plural(size, 'agent')} whose combined answer ({options.combination}) is expected to be "
        f"good with probability {total:.3f}.",
        "cascade": f"One of {plural(size, 'stage')} that are expected to reach a quality of {total:.3f} for "
        f"{usd(cost)} a request.",
    }[strategy]

    def reason(decision: PlannedDecision) -> str:
        asked = "" if reached is None else f" Asked with probability {reached[decision.number]:.2f}."
        bar = None if thresholds is None else thresholds[decision.number]
        stands = "" if bar is None else f" Its answer stands from a confidence of {bar:.2f} on."
        return f"{facts(decision)}. {whole}{asked}{stands}"

    rows = np.zeros(size, np.intp)
    decisions = PlannedDecisions(base, rows, columns, plan=strategy, scores=scores, reason=reason)
    latency = snapshot.latency_ms[columns]
    time = float(latency.max()) if reached is None else float(latency @ np.array(reached))
    return _Chosen(
        strategy=strategy, role=roles[strategy], decisions=decisions, reached=reached, thresholds=thresholds,
        quality=total, cost_usd=cost, latency_ms=time, is_optimal=optimal,
    )  # fmt: skip


def family_of(snapshot: Snapshot, agent: int) -> str:
    """``family`` or ``provider`` of an agent's metadata, in lower case; else its name: it is its own family."""
    known = snapshot.agents[agent]
    for key in ("family", "provider"):
        value = known.metadata.get(key)
        if isinstance(value, str) and value.strip():
            return f"{key} {value.strip().lower()}"
    return f"agent {known.name}"


def _vectors(snapshot: Snapshot) -> npt.NDArray[np.float32]:
    """``float32[N, dim]`` of the capabilities; zeros where there are none."""
    empty = np.zeros((1, snapshot.capability_rows.shape[1]), np.float32)
    return np.asarray(np.concatenate((snapshot.capability_rows, empty))[snapshot.capability_index])


# -- pipelines -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    role: str
    text: str
    required: tuple[str, ...] = ()


def _steps(request: str, count: int, given: Sequence[str | Mapping[str, Any]] | None) -> list[_Step]:
    """The stages as they were given, as the request names them, or the usual ones."""
    if given is not None:
        if not isinstance(given, (list, tuple)) or not given:
            raise InvalidInputError(f"stages are {check.shown(given)}; expected a list of texts or objects.")
        return [_given_step(number, stage, request) for number, stage in enumerate(given, start=1)]
    named = [part for part in _NAMED_STEPS.split(request.strip()) if part.strip()]
    if count > 1 and len(named) == count:
        return [_Step(part[:60], part) for part in named]
    if count > max(_STEPS):
        raise InvalidInputError(
            f"num_agents is {count}; a pipeline without stages has at most {max(_STEPS)}.",
            hint="Give the stages, as texts or with required_capabilities.",
        )
    about = request.strip()[:MOST_STAGE_CHARS]
    return [_Step(role, f"{_STEP_TEXTS[role]}: {about}") for role in _STEPS[count]]


def _given_step(number: int, stage: str | Mapping[str, Any], request: str) -> _Step:
    if isinstance(stage, str):
        check.request_text(stage)
        return _Step(stage[:60], stage)
    if not isinstance(stage, Mapping):
        raise InvalidInputError(f"Stage number {number} is {check.shown(stage)}; expected a text or an object.")
    check.known_keys(stage, ("text", "role", "required_capabilities"), f"key in stage number {number}")
    required = check.names_of(stage.get("required_capabilities"), "required_capabilities")
    role = stage.get("role") or (", ".join(required) if required else f"stage {number}")
    text = stage.get("text") or f"{role}: {request.strip()[:MOST_STAGE_CHARS]}"
    return _Step(check.name_of(str(role)[:60].strip(), "role"), check.request_text(text), required)


def _pipeline(
    dancer: TinyDancer, snapshot: Snapshot, request: str, count: int, given: Constraints,
    sizes: Mapping[str, float], options: _Options, context: RequestContext,
) -> Team:  # fmt: skip
    check.request_text(request, max_chars=dancer.settings.max_request_chars)
    steps = _steps(request, count, options.stages)
    batches = [
        intake.one_request(
            step.text, None, sizes, embedder=dancer._get_embedder, space=dancer.space,
            max_chars=dancer.settings.max_request_chars, surface=dancer._keeps_features(snapshot),
        )
        for step in steps
    ]  # fmt: skip
    now, parts, optimal = dancer._clock(), list[Decisions](), True

    def make(allowance: Allowance | None) -> list[Decisions]:
        nonlocal parts, optimal
        parts, optimal = _staged(snapshot, steps, batches, given, objective_of(options.optimize_for), now, allowance)
        return parts

    held = dancer._spending.within(make, snapshot, context, now, exactly=True)
    chosen = np.array([int(part.chosen[0]) for part in parts])
    tables = [part.expectations() for part in parts]
    costs = [float(table.cost_usd[0, j]) for table, j in zip(tables, chosen, strict=True)]
    members = []
    for number, (part, batch, step) in enumerate(zip(parts, batches, steps, strict=True)):
        (decision,) = dancer._remember(part, batch, [step.text], context, held, number)
        assert decision is not None
        members.append(Member(role=step.role, decision=decision))
    latency = float(snapshot.latency_ms[chosen].sum())
    cost = sum(costs)
    quality = np.array([float(table.quality[0, j]) for table, j in zip(tables, chosen, strict=True)])
    families = [family_of(snapshot, j) for j in chosen.tolist()]
    return Team(
        strategy="pipeline", members=tuple(members),
        expected_quality=all_good(quality, families, options.correlations),
        estimated_cost=None if math.isnan(cost) else cost,
        estimated_latency_ms=None if math.isnan(latency) else latency, is_optimal=optimal,
    )  # fmt: skip


def _staged(
    snapshot: Snapshot, steps: Sequence[_Step], batches: Sequence[RequestBatch], given: Constraints, objective: str,
    now: float, allowance: Allowance | None,
) -> tuple[list[Decisions], bool]:  # fmt: skip
    """The stages' decisions, which together keep to `budget_remaining` and the budgets; whether none are better."""
    parts: list[Decisions] = []
    for number, (step, batch) in enumerate(zip(steps, batches, strict=True), start=1):
        needs = tuple(dict.fromkeys((*given.required_capabilities, *step.required)))
        try:
            made = decide(
                batch, snapshot, now=now, objective=objective, allowance=allowance,
                constraints=replace(given, required_capabilities=needs),
            )  # fmt: skip
        except RoutingError as error:
            error.args = (f"Stage number {number} ({step.role}): {error.message}",)
            error.message = str(error.args[0])
            raise
        parts.append(made)
    tables = [made.expectations() for made in parts]
    quality, cost_usd, allowed = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("quality", "cost_usd", "allowed")
    )
    chosen = np.array([int(made.chosen[0]) for made in parts])
    total = float(cost_usd[np.arange(len(parts)), chosen].sum())
    budget, what = given.budget_remaining, "budget_remaining"
    if allowance is not None and (cap := allowance.cap_usd(allowed, cost_usd)) < (
        math.inf if budget is None else budget
    ):
        budget, what = cap, "what the budgets have left"
    if budget is None or total <= budget * (1.0 + 1e-9):
        found = None
    else:
        found = best_quality(quality, cost_usd, allowed, budget_usd=budget)
        chosen = found.chosen
    if allowance is not None and (passed := allowance.passed(chosen, cost_usd)):
        name, left = passed[0].stored.budget.name, passed[0].left_usd
        raise RoutingError(
            f"The stages take more together than the budget {name!r} has left ({usd(left)}).",
            hint="Raise it, or ask for fewer stages.",
        )
    if found is None or budget is None:
        return parts, True
    whole = (
        f"The stages' own best cost {usd(total)} together, more than {what} ({usd(budget)}); these have the highest "
        "sum of expected qualities that it pays for."
    )
    planned: list[Decisions] = [
        PlannedDecisions(
            made, np.zeros(1, np.intp), np.array([j]), plan="pipeline", scores=-table.quality,
            reason=lambda decision: f"{facts(decision)}. {whole}",
        )
        for made, table, j in zip(parts, tables, found.chosen.tolist(), strict=True)
    ]  # fmt: skip
    return planned, found.gap == 0.0
