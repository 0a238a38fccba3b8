"""Decisions that a plan made: not each for itself, but as parts of a batch or a team.

In: what `decide` computed, the agents a plan chose, and why. Out: `PlannedDecisions`, which read as decisions do, so
that they are recorded, explained and reported on like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.decide import Decision, Decisions
from tinydancer.policy.explain import Alternative, known
from tinydancer.policy.wording import milliseconds, price
from tinydancer.snapshot import Array

__all__ = ["PlannedDecision", "PlannedDecisions", "facts"]


class PlannedDecisions(Decisions):
    """Decisions as columns, chosen by a plan.

    Parameters
    ----------
    base
        What was computed for the requests.
    rows
        ``intp[k]``: the request of each decision, as a row of `base`.
    chosen
        ``intp[k]``: the agent of each, -1 for none.
    plan
        What the plan is called; stands in the decisions as their objective.
    scores
        ``float64[k, N]``: what the plan would have lost with each agent, the least being best.
    reason
        Says of decision number k why its agent was chosen.
    """

    __slots__ = ("_reason", "_scores")

    def __init__(
        self, base: Decisions, rows: npt.NDArray[np.intp], chosen: npt.NDArray[np.intp], *, plan: str, scores: Array,
        reason: Callable[[PlannedDecision], str],
    ) -> None:  # fmt: skip
        trace = base._trace
        names = [name for name in trace._fields if name not in ("chosen", "keys") and getattr(trace, name) is not None]
        columns = {name: getattr(trace, name)[rows] for name in names}
        super().__init__(
            base.snapshot, plan, base.constraints, base.decided_at, trace._replace(**columns, chosen=chosen, keys=()),
            base.allowance,
        )  # fmt: skip
        self._scores = scores
        self._reason = reason

    def __getitem__(self, row: int) -> PlannedDecision | None:
        """Decision number `row`, None where the plan has no agent."""
        agent = int(self.chosen[row])
        return None if agent < 0 else PlannedDecision(self, row, agent)

    def __iter__(self) -> Iterator[PlannedDecision | None]:
        return (self[row] for row in range(len(self)))


class PlannedDecision(Decision):
    """One decision of a plan; reads as `Decision`."""

    __slots__ = ()

    _batch: PlannedDecisions

    @property
    def number(self) -> int:
        """Its place in the plan, from 0."""
        return self._row

    @property
    def reasoning(self) -> str:
        """Why this agent, in a sentence or two."""
        return self._batch._reason(self)

    @property
    def alternatives(self) -> list[Alternative]:
        """The agents that would have cost the plan least after this one, and how they differ."""
        expected = self._batch.expectations()
        scores = np.where(expected.allowed[self._row], self._batch._scores[self._row], np.inf)
        latencies = self._batch.snapshot.latency_ms
        found: list[Alternative] = []
        for agent in np.argsort(scores, kind="stable").tolist():
            if len(found) == self._batch.snapshot.settings.max_alternatives or not np.isfinite(scores[agent]):
                break
            if agent == self._agent:
                continue
            quality, cost, match = self._batch.values(self._row, agent)
            reason = (
                f"{price(cost)} against {price(self._batch.values(self._row, self._agent)[1])}; expected quality "
                f"{quality:.2f} against {self.expected_quality:.2f}"
            )
            name = self._batch.snapshot.names[agent]
            found.append(Alternative(name, known(cost), known(latencies[agent]), quality, match, reason))
        return found

    def to_dict(self) -> dict[str, Any]:
        """As `Decision.to_dict`, with the plan's reasons."""
        return {
            "decision_id": self.decision_id,
            "agent_name": self.agent_name,
            "confidence": self.confidence,
            "uncertainty": self.uncertainty,
            "estimated_cost": self.estimated_cost,
            "estimated_latency_ms": self.estimated_latency_ms,
            "expected_quality": self.expected_quality,
            "similarity_score": self.similarity_score,
            "objective": self.objective,
            "model": self.model,
            "reasoning": self.reasoning,
            "alternatives": [a.to_dict() for a in self.alternatives],
        }


def facts(decision: Decision) -> str:
    """``gpt-4: about $0.012, 900 ms, expected quality 0.91``."""
    cost, latency_ms = decision.estimated_cost, decision.estimated_latency_ms
    amount = price(float("nan") if cost is None else cost)
    time = milliseconds(float("nan") if latency_ms is None else latency_ms)
    about = "about " if cost else ""
    return f"{decision.agent_name}: {about}{amount}, {time}, expected quality {decision.expected_quality:.2f}"
