"""The decision: which agent serves a request. Every door calls `decide`; nothing else routes.

In: requests (one or many, embedded), a snapshot, an objective, constraints, and the time. Out: `Decisions`, columns
with one entry per request, whose rows read as `Decision`. No I/O, no clock, no global, no Python loop over requests.

For request r and agent a:

* the match ``m(r, a)`` is the cosine similarity of the request with the agent's capabilities;
* the expected quality is ``q(r, a) = p(r, a) (1 - d(a) (max m - m(r, a)) / max(max m - min m, s))``: p from the
  trained model where one covers the agent, else the mean of the agent's Beta posterior; the range of m taken over the
  candidates (active, capable, not excluded); s = ``match_spread``; d = ``match_discount``, less for agents that the
  model saw answer;
* the cost is an estimate for this request's tokens;
* constraints leave the allowed agents, the objective orders them (``tinydancer.policy.objectives``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.errors import NoAgentsError, NoMatchError
from tinydancer.policy import constraints as limits
from tinydancer.policy import explain, objectives
from tinydancer.policy.allowance import Allowance, Claim
from tinydancer.policy.explain import Alternative, known
from tinydancer.policy.wording import plural
from tinydancer.snapshot import Array, Mask, Snapshot, bar_index
from tinydancer.types import NO_CONSTRAINTS, Constraints, RequestBatch

BLOCK_ROWS = 256
"""Requests decided at once: few enough that the block's arrays stay in the processor's cache."""


class _Trace(NamedTuple):
    """What was computed for n requests and N agents: masks and values of shape (n, N), and the choices (n).

    ``keys``, the order of preference, is kept where all requests fit one block, for whoever asks for the reasons next;
    for many more it would only fill the memory, and is computed again on demand. Under budgets, ``otherwise`` is who
    may serve apart from them, and ``room``, (n, B), what each budget has left for each request.
    """

    allowed: Mask
    eligible: Mask
    quality: Array
    cost_usd: Array
    match: Array
    chosen: npt.NDArray[np.intp]
    keys: tuple[Array, ...] = ()
    otherwise: Mask | None = None
    room: Array | None = None


class Figures(NamedTuple):
    """What is expected of the chosen agents: ``float64[n]`` each, NaN where it is unknown or no agent fits."""

    quality: Array
    cost_usd: Array
    latency_ms: Array
    match: Array
    confidence: Array
    uncertainty: Array


class Expectations(NamedTuple):
    """What is expected of every agent for every request: arrays of shape (n, N), NaN for a cost that is unknown.

    ``otherwise`` is who may serve, budgets aside.
    """

    allowed: Mask
    quality: Array
    cost_usd: Array
    match: Array
    otherwise: Mask


def decide(
    requests: RequestBatch,
    snapshot: Snapshot,
    *,
    now: float,
    objective: str = "balanced",
    constraints: Constraints = NO_CONSTRAINTS,
    allowance: Allowance | None = None,
) -> Decisions:
    """Choose an agent for each request.

    Parameters
    ----------
    requests
        n requests in the snapshot's space.
    snapshot
        The registry as columns.
    now
        Seconds since 1970; stands in the decisions.
    objective
        One of ``tinydancer.types.OBJECTIVES``.
    constraints
        Hold for every request of the batch.
    allowance
        What budgets leave for the requests, which take from it in their order; None where no budget holds.

    Raises
    ------
    NoAgentsError
        The snapshot is empty.
    NoMatchError
        No agent satisfies the constraints for some request, and ``on_no_match`` is ``error``.
    """
    if not len(snapshot):
        raise NoAgentsError(
            "No agents are registered, so there is nothing to route to.",
            hint="Register one, for example with: tinydancer agents add NAME",
        )
    candidates = limits.capable(snapshot, constraints)
    if len(requests) <= BLOCK_ROWS:
        trace, _ = _decide_block(requests, snapshot, objective, constraints, candidates, allowance, None)
    else:
        blocks, taken = [], None
        for start in range(0, len(requests), BLOCK_ROWS):
            rows = requests.rows(start, start + BLOCK_ROWS)
            block, taken = _decide_block(rows, snapshot, objective, constraints, candidates, allowance, taken)
            blocks.append(block._replace(keys=()))
        trace = _joined(blocks)
    decisions = Decisions(snapshot, objective, constraints, now, trace, allowance)
    if constraints.on_no_match == "error":
        decisions.require_match()
    return decisions


def expected_quality(snapshot: Snapshot, requests: RequestBatch, match: Array, candidates: Mask) -> Array:
    """What the model or the agents' own records promise, discounted by match; ``float64[n, N]``, see the formula."""
    settings, predictor = snapshot.settings, snapshot.predictor
    base = snapshot.quality if predictor is None else predictor.quality(requests, snapshot.quality)
    over = match if np.logical_and.reduce(candidates) else match[:, candidates]
    if over.shape[1] == 0:
        return np.broadcast_to(base, match.shape)
    best = np.maximum.reduce(over, axis=1, keepdims=True)
    spread = np.maximum(best - np.minimum.reduce(over, axis=1, keepdims=True), settings.match_spread)
    shortfall = best - match
    shortfall *= settings.match_discount / spread
    if over is not match:
        # Agents that are no candidates may lie outside the range; their figure is only ever shown, never chosen.
        np.maximum(shortfall, 0.0, out=shortfall)
        np.minimum(shortfall, settings.match_discount, out=shortfall)
    if predictor is not None:
        shortfall *= predictor.discount
    quality: Array = base * (1.0 - shortfall)
    return quality


def _joined(blocks: list[_Trace]) -> _Trace:
    """One trace of several; what the blocks do not have, the whole does not."""
    columns = zip(*blocks, strict=True)
    return _Trace._make(np.concatenate(c) if isinstance(c[0], np.ndarray) else c[0] for c in columns)


def _decide_block(
    requests: RequestBatch,
    snapshot: Snapshot,
    objective: str,
    constraints: Constraints,
    candidates: Mask,
    allowance: Allowance | None,
    taken: Array | None,
) -> tuple[_Trace, Array | None]:
    """The requests of one block; ``taken``, ``float64[B]``, is what those before it take from the budgets."""
    match = snapshot.match(requests.embeddings)
    quality = expected_quality(snapshot, requests, match, candidates)
    cost_usd = snapshot.estimated_cost_usd(requests)
    allowed = limits.feasible(
        candidates, constraints, cost_usd=cost_usd, latency_ms=snapshot.latency_ms, quality=quality
    )

    def among(allowed: Mask, quality: Array, cost_usd: Array, match: Array) -> _Trace:
        eligible = allowed
        if objective in ("cost", "latency", "quality_per_dollar"):
            eligible = objectives.good_enough(allowed, quality, good_enough_share(snapshot, constraints))
        keys = objectives.preference_keys(
            objective, allowed, quality=quality, cost_usd=cost_usd, latency_ms=snapshot.latency_ms, match=match,
            settings=snapshot.settings,
        )  # fmt: skip
        return _Trace(allowed, eligible, quality, cost_usd, match, objectives.best(eligible, keys), keys)

    if allowance is None:
        return among(allowed, quality, cost_usd, match), None

    def choose(allowed: Mask, rows: slice) -> _Trace:
        return among(allowed, quality[rows], cost_usd[rows], match[rows])

    return _fill(choose, allowance, allowed, cost_usd, taken)


_ALL = slice(None)


def _fill(
    choose: Callable[[Mask, slice], _Trace],
    allowance: Allowance,
    otherwise: Mask,
    cost_usd: Array,
    before: Array | None,
) -> tuple[_Trace, Array]:
    """Choices within budgets, each request taking from what the ones before it leave.

    All are chosen at once as if what is taken were known, which settles the requests up to the first one whose agents
    turn out to be others with what was really taken; then the rest again. A request's choice depends on the money only
    through who is allowed, so nearly always few rounds suffice.
    """
    n, budgets = otherwise.shape[0], len(allowance.holdings)
    start = np.zeros(budgets) if before is None else before
    taken = np.zeros((n, budgets))
    settled = 0
    if n == 1:
        room = allowance.room(start[None])
        trace = choose(allowance.within(otherwise, cost_usd, room), _ALL)._replace(otherwise=otherwise, room=room)
        return trace, start + allowance.taken(trace.chosen, cost_usd)[0]
    while True:
        room = allowance.room(_sums_before(taken, start))
        rest = slice(settled, None)
        allowed = allowance.within(otherwise[rest], cost_usd[rest], room[rest])
        taken[rest] = allowance.taken(choose(allowed, rest).chosen, cost_usd[rest])
        room = allowance.room(_sums_before(taken, start))
        same = (allowance.within(otherwise[rest], cost_usd[rest], room[rest]) == allowed).all(axis=1)
        if same.all():
            break
        settled += int(np.argmin(same))
    allowed = allowance.within(otherwise, cost_usd, room)
    return choose(allowed, _ALL)._replace(otherwise=otherwise, room=room), start + taken.sum(axis=0)


def _sums_before(taken: Array, start: Array) -> Array:
    sums = np.empty_like(taken)
    sums[:1] = start
    np.cumsum(taken[:-1], axis=0, out=sums[1:])
    sums[1:] += start
    return sums


def good_enough_share(snapshot: Snapshot, constraints: Constraints) -> float:
    """The request's own share where it names one, else the deployment's."""
    return snapshot.settings.good_enough if constraints.good_enough is None else constraints.good_enough


class Decisions:
    """Decisions for n requests, as columns; ``decisions[i]`` reads one of them.

    Attributes
    ----------
    snapshot, objective, constraints, decided_at
        What was decided on, and when.
    allowance
        What budgets left for the requests; None where none held.
    chosen
        ``intp[n]``: position of the chosen agent in ``snapshot.names``; -1 where none fits.
    """

    __slots__ = ("_trace", "allowance", "chosen", "constraints", "decided_at", "objective", "snapshot")

    def __init__(
        self,
        snapshot: Snapshot,
        objective: str,
        constraints: Constraints,
        decided_at: float,
        trace: _Trace,
        allowance: Allowance | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.objective = objective
        self.constraints = constraints
        self.decided_at = decided_at
        self.allowance = allowance
        self.chosen = trace.chosen
        self._trace = trace

    def __len__(self) -> int:
        return int(self.chosen.shape[0])

    def __getitem__(self, row: int) -> Decision | None:
        """The decision for request `row`, None where no agent fits."""
        agent = int(self.chosen[row])
        return None if agent < 0 else Decision(self, row, agent)

    def __iter__(self) -> Iterator[Decision | None]:
        return (self[row] for row in range(len(self)))

    def row(self, row: int) -> explain.Row:
        """What was computed for request `row`."""
        trace = self._trace
        allowed = trace.allowed[row]
        return explain.Row(
            snapshot=self.snapshot, objective=self.objective, share=good_enough_share(self.snapshot, self.constraints),
            chosen=int(self.chosen[row]), allowed=allowed,
            eligible=allowed if trace.eligible is trace.allowed else trace.eligible[row],
            keys=tuple([key[row] for key in trace.keys]), quality=trace.quality[row],
            cost_usd=trace.cost_usd[row], match=trace.match[row],
        )  # fmt: skip

    def values(self, row: int, agent: int) -> tuple[float, float, float]:
        """(expected quality, estimated cost in USD or NaN, match) of one agent for request `row`."""
        trace = self._trace
        return float(trace.quality[row, agent]), float(trace.cost_usd[row, agent]), float(trace.match[row, agent])

    def expectations(self) -> Expectations:
        """Of all agents, for plans over many requests or with several agents; not to be written to."""
        trace = self._trace
        otherwise = trace.allowed if trace.otherwise is None else trace.otherwise
        return Expectations(trace.allowed, trace.quality, trace.cost_usd, trace.match, otherwise)

    def chosen_figures(self) -> Figures:
        """Of every request at once what `Decision` tells of one, for whoever reads thousands."""
        snapshot, trace = self.snapshot, self._trace
        rows, agents = np.arange(len(self)), np.maximum(self.chosen, 0)
        quality, prior = trace.quality[rows, agents], snapshot.quality[agents]
        bar = bar_index(self.quality_bar)
        reach = snapshot.meets_bar[agents, bar]
        with np.errstate(divide="ignore", invalid="ignore"):
            confidence = np.where(prior > 0.0, reach * quality / prior, reach)
        uncertainty = np.ones(len(self)) if snapshot.interval is None else snapshot.interval.width(quality)
        if snapshot.predictor is not None:
            covered = snapshot.predictor.covered[agents]
            confidence = np.where(covered, snapshot.predictor.reach(quality, bar), confidence)
            if (interval := snapshot.predictor.model.interval) is not None:
                uncertainty = np.where(covered, interval.width(quality), uncertainty)
        columns = (quality, trace.cost_usd[rows, agents], snapshot.latency_ms[agents], trace.match[rows, agents],
                   confidence, uncertainty)  # fmt: skip
        return Figures._make(np.where(self.chosen < 0, np.nan, column) for column in columns)

    @property
    def quality_bar(self) -> float:
        """What confidence refers to: ``min_quality`` where given, else the deployment's bar."""
        asked = self.constraints.min_quality
        return self.snapshot.settings.quality_bar if asked is None else asked

    def exclusions(self, row: int) -> dict[str, str]:
        """Why each agent that may not serve request `row` may not."""
        trace, budgets = self._trace, None
        if self.allowance is not None and trace.otherwise is not None and trace.room is not None:
            budgets = self.allowance.reasons(trace.otherwise[row], trace.cost_usd[row], trace.room[row])
        return limits.exclusion_reasons(
            self.snapshot, self.constraints, cost_usd=trace.cost_usd[row], quality=trace.quality[row], budgets=budgets
        )

    @property
    def is_bound(self) -> bool:
        """Whether a budget keeps an agent from serving some request."""
        trace = self._trace
        return trace.otherwise is not None and not np.array_equal(trace.otherwise, trace.allowed)

    def claims(self) -> list[Claim]:
        """What is to be reserved of the budgets for these decisions."""
        if self.allowance is None:
            return []
        return self.allowance.claims(self.expectations().otherwise, self._trace.cost_usd, self.chosen)

    def require_match(self) -> None:
        """Raise `NoMatchError` for the first request that no agent fits."""
        if not self.chosen.size or np.minimum.reduce(self.chosen) >= 0:
            return
        unmatched = np.flatnonzero(self.chosen < 0)
        first = int(unmatched[0])
        which = "this request" if len(self) == 1 else f"request number {first + 1} of {len(self)}"
        more = f" (nor {plural(int(unmatched.size) - 1, 'other request')})" if unmatched.size > 1 else ""
        raising = "" if self.allowance is None else " raise a budget,"
        raise NoMatchError(
            f"None of the {plural(len(self.snapshot), 'agent')} fits {which}{more}.",
            exclusions=self.exclusions(first),
            hint=f"Loosen a constraint,{raising} register a suitable agent, or set on_no_match to 'null'.",
        )


class Decision:
    """Which agent serves one request, and what to expect of it.

    Attributes
    ----------
    decision_id
        Set once the decision is recorded; feedback refers to it.
    """

    __slots__ = ("_agent", "_batch", "_row", "decision_id")

    def __init__(self, batch: Decisions, row: int, agent: int) -> None:
        self._batch = batch
        self._row = row
        self._agent = agent
        self.decision_id: str | None = None

    @property
    def batch(self) -> Decisions:
        """All the decisions it was made with."""
        return self._batch

    @property
    def agent_name(self) -> str:
        """The chosen agent."""
        return self._batch.snapshot.names[self._agent]

    @property
    def objective(self) -> str:
        """What was optimised."""
        return self._batch.objective

    @property
    def decided_at(self) -> float:
        """Seconds since 1970."""
        return self._batch.decided_at

    @property
    def expected_quality(self) -> float:
        """Mean quality expected of this agent for this request, in [0, 1]."""
        return self._batch.values(self._row, self._agent)[0]

    @property
    def estimated_cost(self) -> float | None:
        """USD for this request; None if a price is unknown."""
        return known(self._batch.values(self._row, self._agent)[1])

    @property
    def estimated_latency_ms(self) -> float | None:
        """Milliseconds; None if unknown."""
        return known(self._batch.snapshot.latency_ms[self._agent])

    @property
    def similarity_score(self) -> float:
        """Cosine similarity of request and capabilities, in [-1, 1]."""
        return self._batch.values(self._row, self._agent)[2]

    @property
    def quality_bar(self) -> float:
        """What confidence refers to; see `Decisions.quality_bar`."""
        return self._batch.quality_bar

    @property
    def confidence(self) -> float:
        """Probability that the answer's quality reaches `quality_bar`.

        From the model that predicted the quality, calibrated; without one from the agent's own record (a Beta-binomial
        posterior per bar), lowered as its expected quality is by match.
        """
        snapshot, agent = self._batch.snapshot, self._agent
        bar = bar_index(self.quality_bar)
        if snapshot.predictor is not None and snapshot.predictor.covered[agent]:
            return float(snapshot.predictor.reach(self.expected_quality, bar))
        prior = float(snapshot.quality[agent])
        if prior <= 0.0:
            return float(snapshot.meets_bar[agent, bar])
        return float(snapshot.meets_bar[agent, bar]) * self.expected_quality / prior

    @property
    def uncertainty(self) -> float:
        """Width of the conformal interval for the answer's quality, in [0, 1]; 1 without calibration data."""
        interval = self._batch.snapshot.interval_of(self._agent)
        return 1.0 if interval is None else float(interval.width(self.expected_quality))

    @property
    def model(self) -> str | None:
        """Which trained weights predicted the quality; None: the agent's own record did."""
        predictor = self._batch.snapshot.predictor
        return predictor.model.name if predictor is not None and predictor.covered[self._agent] else None

    @property
    def reasoning(self) -> str:
        """Why this agent, in a sentence or two."""
        return explain.reasoning(self._batch.row(self._row))

    @property
    def alternatives(self) -> list[Alternative]:
        """The next best agents, each with the reason it was not chosen."""
        return explain.alternatives(self._batch.row(self._row), self._batch.snapshot.settings.max_alternatives)

    @property
    def exclusions(self) -> dict[str, str]:
        """Why each agent that may not serve this request may not."""
        return self._batch.exclusions(self._row)

    def to_dict(self) -> dict[str, Any]:
        """Everything about the decision as JSON-ready fields, named as the documents name them."""
        row, limit = self._batch.row(self._row), self._batch.snapshot.settings.max_alternatives
        mine = row.figures(self._agent)
        return {
            "decision_id": self.decision_id,
            "agent_name": self.agent_name,
            "confidence": self.confidence,
            "uncertainty": self.uncertainty,
            "estimated_cost": known(mine.cost_usd),
            "estimated_latency_ms": known(mine.latency_ms),
            "expected_quality": mine.quality,
            "similarity_score": mine.match,
            "objective": self.objective,
            "model": self.model,
            "reasoning": explain.reasoning(row),
            "alternatives": [a.to_dict() for a in explain.alternatives(row, limit)],
        }

    def __repr__(self) -> str:
        return f"<Decision {self.agent_name!r} for {self.objective}, confidence {self.confidence:.2f}>"
