"""The service's part in plans: a batch under one account, a month's budget, several agents for one request.

In: a `TinyDancer` and what a door was given. Out: plans, whose decisions are recorded as any other. What is best is
decided by ``policy/assignment`` and ``policy/budget_plan`` on what `decide` computes; here is only what they need to be
asked. Teams have a room of their own, `tinydancer.teams`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import intake
from tinydancer import validation as check
from tinydancer.abilities import features_of
from tinydancer.decide import Decision, Decisions, decide, good_enough_share
from tinydancer.errors import ArtifactError, InvalidInputError, NoAgentsError, NoMatchError, NotFoundError, RoutingError
from tinydancer.model_learning import USUAL_INPUT_TOKENS
from tinydancer.planned import PlannedDecisions, facts
from tinydancer.policy.allowance import Allowance
from tinydancer.policy.assignment import Assignment, best_quality, cheapest, rounded
from tinydancer.policy.budget_plan import PERIOD_DAYS, allocate, allocate_uniformly
from tinydancer.policy.constraints import capable
from tinydancer.policy.wording import milliseconds, plural, usd
from tinydancer.service import TinyDancer
from tinydancer.snapshot import Array, Mask, Snapshot
from tinydancer.teams import Team, route_multi
from tinydancer.types import Constraints, RequestBatch

__all__ = ["TOTAL_COST", "BatchPlan", "BudgetPlan", "Team", "assign_batch", "optimize_budget", "route_multi"]

TOTAL_COST = "total_cost"
SAMPLE = 2_000
"""Recorded decisions that stand for the traffic."""
DAY_S = 86_400.0

# -- batches -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Agents for the requests of a batch, chosen together.

    Attributes
    ----------
    decisions
        One per request, in their order; None where no agent fits and ``on_no_match`` is ``null``.
    cost_usd, mean_quality
        Expected of the requests that are served; None where none is.
    floor, budget_usd
        The mean quality that was to be reached; the money that was to be kept to. None: it was not asked for.
    bound, gap
        What no assignment beats, and how far from it this one is at most: USD under a floor, mean quality under a
        budget. A gap of 0 says that the optimum is proven.
    requests_per_agent
        How many each agent serves, those without any left out.
    """

    decisions: list[Decision | None]
    cost_usd: float
    mean_quality: float | None
    floor: float | None
    budget_usd: float | None
    bound: float
    gap: float
    requests_per_agent: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the decisions."""
        return {
            "requests": len(self.decisions), "total_cost": self.cost_usd, "mean_quality": self.mean_quality,
            "quality_floor": self.floor, "budget": self.budget_usd, "bound": self.bound, "gap": self.gap,
            "requests_per_agent": dict(self.requests_per_agent),
        }  # fmt: skip


def assign_batch(
    dancer: TinyDancer,
    requests: Sequence[str] | None = None,
    constraints: Constraints | Mapping[str, Any] | None = None,
    *,
    embeddings: npt.ArrayLike | None = None,
    min_mean_quality: float | None = None,
    capacities: Mapping[str, int] | None = None,
    **limits: Any,
) -> BatchPlan:
    """Choose the agents of many requests together (``total_cost``).

    With ``min_mean_quality`` the cheapest assignment that reaches it. With ``budget_remaining`` and no floor, the
    assignment of the highest expected quality that this much money pays for. With neither, the cheapest whose mean
    expected quality is at least ``good_enough`` times what the best agent of each request would reach on average.

    Parameters
    ----------
    dancer
        Whose agents, embedder and store.
    requests, constraints, embeddings, limits
        As `TinyDancer.route_batch` takes them; ``budget_remaining`` is for all requests together, everything else for
        each of them.
    min_mean_quality
        Floor on the mean expected quality, in [0, 1].
    capacities
        Most requests of this batch per agent's name; agents that are not named have no limit.

    Raises
    ------
    InvalidInputError
        The batch is empty, or a value cannot be used.
    NoMatchError
        A request fits no agent.
    RoutingError
        No assignment reaches the floor, keeps to the budget, or fits the capacities; says what would.
    """
    sizes, context = intake.pop_sizes(limits), intake.pop_context(limits)
    given = intake.constraints_of(constraints, limits)
    floor = check.optional_number(min_mean_quality, "min_mean_quality", low=0.0, high=1.0)
    snapshot = dancer.snapshot()
    room = None if capacities is None else _room(snapshot, capacities)
    budget = given.budget_remaining
    batch = intake.many_requests(
        requests, embeddings, sizes, embedder=dancer._get_embedder, space=dancer.space,
        max_chars=dancer.settings.max_request_chars, surface=dancer._keeps_features(snapshot),
    )  # fmt: skip
    if not len(batch):
        raise InvalidInputError("The batch is empty; expected at least one request.")
    now, made = dancer._clock(), _Assigned()

    def make(allowance: Allowance | None) -> list[Decisions]:
        nonlocal made
        made = _assigned(batch, snapshot, given, floor, room, now, allowance)
        return [made.decisions] if made.decisions is not None else []

    held = dancer._spending.within(make, snapshot, context, now, exactly=True)
    found = made.found
    if found is None:
        return BatchPlan(
            decisions=[None] * len(batch), cost_usd=0.0, mean_quality=None, floor=floor, budget_usd=budget,
            bound=0.0, gap=0.0, requests_per_agent={},
        )  # fmt: skip
    counts = np.bincount(found.chosen, minlength=len(snapshot))
    return BatchPlan(
        decisions=dancer._remember(held.parts[0], batch, requests, context, held), cost_usd=found.cost_usd,
        mean_quality=found.mean_quality, floor=made.floor, budget_usd=budget, bound=found.bound, gap=found.gap,
        requests_per_agent={snapshot.names[j]: int(counts[j]) for j in np.flatnonzero(counts)},
    )  # fmt: skip


class _Assigned(NamedTuple):
    """An assignment with its decisions and the floor it was made for; without any where no request fits an agent."""

    decisions: PlannedDecisions | None = None
    found: Assignment | None = None
    floor: float | None = None


def _assigned(
    batch: RequestBatch, snapshot: Snapshot, given: Constraints, floor: float | None,
    room: npt.NDArray[np.float64] | None, now: float, allowance: Allowance | None,
) -> _Assigned:  # fmt: skip
    """The plan of `assign_batch`, with what budgets leave for all requests together."""
    base = decide(
        batch, snapshot, now=now, objective="cost", constraints=replace(given, budget_remaining=None),
        allowance=allowance,
    )  # fmt: skip
    expected = base.expectations()
    served = np.flatnonzero(base.chosen >= 0)
    if not served.size:
        return _Assigned()
    quality, cost_usd, allowed = expected.quality[served], expected.cost_usd[served], expected.allowed[served]
    budget, is_floor_given = given.budget_remaining, floor is not None
    if allowance is not None:
        # What is left now is left for any of them, whatever their order.
        allowed = allowance.within(expected.otherwise[served], cost_usd, allowance.room())
        cap = allowance.cap_usd(allowed, cost_usd)
        budget = budget if math.isinf(cap) else cap if budget is None else min(budget, cap)
    if floor is None and given.budget_remaining is None:
        best = np.where(allowed & np.isfinite(cost_usd), quality, -np.inf).max(axis=1)
        floor = good_enough_share(snapshot, given) * float(best.mean()) if np.isfinite(best).all() else 0.0

    def solve(allowed: Mask) -> Assignment:
        if floor is None:
            assert budget is not None
            return best_quality(quality, cost_usd, allowed, budget_usd=budget, capacities=room)
        found = cheapest(quality, cost_usd, allowed, min_mean_quality=floor, capacities=room)
        if budget is not None and found.cost_usd > budget * (1.0 + 1e-9):
            within = best_quality(quality, cost_usd, allowed, budget_usd=budget, capacities=room)
            if within.mean_quality < floor and is_floor_given:
                _refuse(found, within, floor, budget, of_request=budget == given.budget_remaining)
            found = within
        return found

    found = solve(allowed)
    if allowance is not None and allowance.passed(found.chosen, cost_usd):
        # An agent's own budget is passed: it serves no request that it would not serve in their order.
        for agent in {one for one in allowance.agents if one >= 0}:
            allowed[:, agent] &= base.chosen[served] == agent
        found = solve(allowed)
    chosen = np.full(len(batch), -1, np.intp)
    chosen[served] = found.chosen
    if floor is None:
        scores = expected.cost_usd * found.limit_price - expected.quality + found.capacity_prices
    else:
        scores = expected.cost_usd - expected.quality * found.limit_price + found.capacity_prices
    aim = f"budget {usd(budget)}" if floor is None and budget is not None else f"floor {floor:.4g}"
    whole = (
        f"Chosen together with the other requests: {plural(int(served.size), 'request')} for {usd(found.cost_usd)} "
        f"at a mean expected quality of {found.mean_quality:.4g} ({aim})."
    )
    decisions = PlannedDecisions(
        base, np.arange(len(batch)), chosen, plan=TOTAL_COST, scores=scores,
        reason=lambda decision: f"{facts(decision)}. {whole}",
    )  # fmt: skip
    return _Assigned(decisions, found, floor)


def _refuse(found: Assignment, within: Assignment, floor: float, budget: float, *, of_request: bool) -> None:
    what = "budget_remaining is" if of_request else "the budgets have left"
    most = rounded(within.mean_quality, up=False)
    raise RoutingError(
        f"A mean expected quality of {floor:g} costs {usd(found.cost_usd)}; {what} {usd(budget)}.",
        hint=f"Raise the budget to ${rounded(found.cost_usd, up=True):g}, or lower the floor to {most:g}.",
    )


def _room(snapshot: Snapshot, capacities: Mapping[str, int]) -> npt.NDArray[np.float64]:
    if not isinstance(capacities, Mapping):
        raise InvalidInputError(
            f"capacities are {check.shown(capacities)}; expected a number of requests per agent's name."
        )
    room = np.full(len(snapshot), np.inf)
    at = {name: j for j, name in enumerate(snapshot.names)}
    for name, most in capacities.items():
        if name not in at:
            raise NotFoundError(f"The capacities name the agent {check.shown(name)}, which is not registered.")
        room[at[name]] = check.count(most, f"The capacity of {name}")
    return room


# -- budgets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """What a month's budget is best spent on.

    Attributes
    ----------
    allocations
        USD per agent and period, for the agents that get any requests.
    shares
        Of the requests, likewise.
    expected_quality, quality_gap
        Mean over the requests, and how much more another allocation could achieve at most.
    meets_threshold
        Whether that is at least the threshold.
    cheapest_budget
        The least budget whose best allocation meets the threshold; None if none does, or without traffic.
    requests_per_month
        That the plan is for.
    observed_decisions, observed_days, by_agent, by_objective
        The traffic it rests on.
    excluded
        Why each of the other agents gets nothing at all.
    assumption
        What was assumed for want of traffic, and what falls short of the threshold; empty if nothing.
    """

    allocations: Mapping[str, float]
    shares: Mapping[str, float]
    total_budget: float
    expected_quality: float
    quality_gap: float
    meets_threshold: bool
    cheapest_budget: float | None
    requests_per_month: float
    observed_decisions: int
    observed_days: float
    by_agent: Mapping[str, int]
    by_objective: Mapping[str, int]
    excluded: Mapping[str, str]
    assumption: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``allocations``, ``total_budget`` and ``period_days`` are the documents' names."""
        return {
            "allocations": dict(self.allocations), "total_budget": self.total_budget, "period_days": PERIOD_DAYS,
            "expected_spend": sum(self.allocations.values()), "expected_quality": self.expected_quality,
            "quality_gap": self.quality_gap, "meets_threshold": self.meets_threshold,
            "cheapest_budget": self.cheapest_budget, "shares": dict(self.shares),
            "requests_per_month": self.requests_per_month, "observed_decisions": self.observed_decisions,
            "observed_days": self.observed_days, "by_agent": dict(self.by_agent),
            "by_objective": dict(self.by_objective), "excluded": dict(self.excluded), "assumption": self.assumption,
        }  # fmt: skip


def optimize_budget(
    dancer: TinyDancer,
    monthly_budget: float,
    quality_threshold: float = 0.8,
    latency_threshold_ms: float = 5000.0,
    *,
    requests_per_month: float | None = None,
) -> BudgetPlan:
    """Allocate a month's budget over the agents, for the traffic that was observed.

    The latest 2,000 decisions of the last 30 days stand for the traffic: each may be served by the agents that have its
    required capabilities, with the quality that the model, or the agent's record, promises for it. The allocation has
    the highest expected quality that the budget pays for. Where nothing was recorded, every agent is taken to serve
    equally many usual requests, and the plan says so.

    Parameters
    ----------
    monthly_budget
        USD for 30 days, more than 0.
    quality_threshold
        Mean expected quality that is wanted, in [0, 1]; the plan says whether it is met, and what would meet it.
        Without traffic, agents below it get nothing.
    latency_threshold_ms
        Agents whose mean latency is above it, or unknown, get nothing.
    requests_per_month
        Instead of the rate that was observed.

    Raises
    ------
    NoMatchError, RoutingError
        No agent is left; the budget does not pay for the traffic.
    """
    budget = check.number(monthly_budget, "monthly_budget", low=0.0, high=1e12, unit="USD")
    if budget == 0.0:
        raise InvalidInputError("monthly_budget is 0; expected more than 0 USD.")
    threshold = check.number(quality_threshold, "quality_threshold", low=0.0, high=1.0)
    latency = check.number(latency_threshold_ms, "latency_threshold_ms", low=0.0, unit="ms")
    asked = check.optional_number(requests_per_month, "requests_per_month", low=1.0, high=1e12)
    snapshot = dancer.snapshot()
    if not len(snapshot):
        raise NoAgentsError(
            "No agents are registered, so there is nothing to allocate.",
            hint="Register one, for example with: tinydancer agents add NAME",
        )
    usual = RequestBatch(np.zeros((1, dancer.space.dim), np.float32), np.array([USUAL_INPUT_TOKENS]))
    usual_usd = snapshot.estimated_cost_usd(usual)[0]
    excluded = _excluded(snapshot, usual_usd, latency)
    fit = np.array([name not in excluded for name in snapshot.names])
    if not fit.any():
        raise NoMatchError(
            f"None of the {plural(len(snapshot), 'agent')} can be planned with.", exclusions=excluded,
            hint="Raise latency_threshold_ms, or state the agents' prices and latencies.",
        )  # fmt: skip
    seen = _traffic(dancer, snapshot, fit)
    assumption = seen.note
    if seen.quality.shape[0]:
        requests = seen.per_month if asked is None else asked
        found = allocate(
            seen.quality, seen.cost_usd, seen.allowed, budget_usd=budget, requests=requests, min_quality=threshold
        )
    elif asked is not None:
        assumption = "No traffic is recorded: the requests are taken to be usual ones."
        found = allocate(
            snapshot.quality[None], usual_usd[None], fit[None], budget_usd=budget, requests=asked,
            min_quality=threshold,
        )  # fmt: skip
    else:
        good = fit & (snapshot.quality >= threshold)
        assumption = "No traffic is recorded: every agent is taken to serve equally many usual requests."
        found = allocate_uniformly(snapshot.quality, usual_usd, good if good.any() else fit, budget_usd=budget)
    met = found.quality >= threshold - 1e-9
    if not met:
        reach = "" if found.most_quality is None else f"; the most these agents reach is {found.most_quality:.4g}"
        price = "" if found.cheapest_usd is None else f"; {usd(found.cheapest_usd)} a month would reach it"
        assumption = f"{assumption} The threshold {threshold:g} is not met{price or reach}.".strip()
    spend, share = found.spend_usd.tolist(), found.share.tolist()
    used = [j for j, part in enumerate(share) if part > 0.0]
    return BudgetPlan(
        allocations={snapshot.names[j]: spend[j] for j in used}, shares={snapshot.names[j]: share[j] for j in used},
        total_budget=budget, expected_quality=found.quality, quality_gap=found.quality_gap, meets_threshold=met,
        cheapest_budget=found.cheapest_usd, requests_per_month=found.requests, observed_decisions=seen.decisions,
        observed_days=seen.days, by_agent=seen.by_agent, by_objective=seen.by_objective, excluded=excluded,
        assumption=assumption,
    )  # fmt: skip


class _Traffic(NamedTuple):
    """A sample of the requests, ``[n, N]``, and what it stands for."""

    quality: Array
    cost_usd: Array
    allowed: Mask
    per_month: float
    decisions: int
    days: float
    by_agent: dict[str, int]
    by_objective: dict[str, int]
    note: str


def _traffic(dancer: TinyDancer, snapshot: Snapshot, fit: Mask) -> _Traffic:
    now = dancer._clock()
    recorded = dancer.list_decisions(SAMPLE)
    rows = [row for row in recorded if now - row.decided_at <= PERIOD_DAYS * DAY_S]
    span = max((now - min((row.decided_at for row in rows), default=now)) / DAY_S, 1e-6)
    per_day = len(rows) / max(span, 1.0)
    if len(rows) == SAMPLE and span < 1.0:
        # The latest may all be from one busy minute: no day brings more than all that was ever recorded.
        per_day = min(len(rows) / span, float(dancer.store.routing_totals().total_decisions))
    days = len(rows) / per_day if rows else 0.0
    allowed = np.array([_may_serve(snapshot, row.constraints) for row in rows], dtype=np.bool_)
    allowed = allowed.reshape(len(rows), len(snapshot)) & fit
    tokens = np.array([row.input_tokens for row in rows], dtype=np.float64)
    bare = RequestBatch(np.zeros((len(rows), dancer.space.dim), np.float32), tokens)
    quality = np.broadcast_to(snapshot.quality, allowed.shape).copy()
    kept = [i for i, row in enumerate(rows) if row.features is not None]
    if kept:
        try:
            vectors, surface = features_of([rows[i].features or b"" for i in kept], dancer.space)
        except ArtifactError:  # written by another version: then the agents' records must do
            kept = []
    if kept:
        batch = RequestBatch(vectors, tokens[kept], surface=surface)
        decided = decide(batch, snapshot, now=now, objective="quality", constraints=Constraints(on_no_match="null"))
        quality[kept] = decided.expectations().quality
    served = np.logical_or.reduce(allowed, axis=1) if rows else np.zeros(0, np.bool_)
    unserved = len(rows) - int(np.count_nonzero(served))
    note = (
        f"{plural(unserved, 'recorded request')} that none of these agents may serve are left out." if unserved else ""
    )
    return _Traffic(
        quality[served], snapshot.estimated_cost_usd(bare)[served], allowed[served],
        float(np.count_nonzero(served)) / days * PERIOD_DAYS if rows else 0.0, len(rows), days,
        dict(Counter(row.agent_name for row in rows)), dict(Counter(row.objective for row in rows)), note,
    )  # fmt: skip


def _may_serve(snapshot: Snapshot, constraints: Mapping[str, Any]) -> Mask:
    """Who has what a recorded request required; what it was to cost and how long it was to take is the plan's now."""
    kept = {key: constraints[key] for key in ("required_capabilities", "excluded_agents") if key in constraints}
    return capable(snapshot, Constraints.from_mapping(kept))


def _excluded(snapshot: Snapshot, usual_usd: Array, latency_ms: float) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for j, agent in enumerate(snapshot.agents):
        taken = float(snapshot.latency_ms[j])
        if not agent.is_active:
            reasons[agent.name] = "is not active"
        elif not taken <= latency_ms:
            is_what = "its latency is unknown" if math.isnan(taken) else f"takes about {milliseconds(taken)}"
            reasons[agent.name] = f"{is_what}; latency_threshold_ms is {latency_ms:g}"
        elif math.isnan(usual_usd[j]):
            reasons[agent.name] = "its cost is unknown"
    return reasons
