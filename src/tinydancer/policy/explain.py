"""Why one agent and not another, in sentences a person would write.

In: one request's row of what ``decide`` computed. Out: text. Made only when somebody reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.policy.objectives import preference_keys, ranked
from tinydancer.policy.wording import milliseconds, plural, price, usd
from tinydancer.snapshot import Array, Mask, Snapshot

_THRIFTY = ("cost", "latency", "quality_per_dollar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request: who was chosen, and per agent (arrays of length N) what was computed.

    Attributes
    ----------
    share
        The share of the best expected quality that counts as good enough.
    allowed, eligible
        Who satisfies the constraints, and who of them is good enough where the objective asks for it.
    keys
        The order of preference as keys to minimise; empty if they were not kept.
    """

    snapshot: Snapshot
    objective: str
    share: float
    chosen: int
    allowed: Mask
    eligible: Mask
    keys: tuple[Array, ...]
    quality: Array
    cost_usd: Array
    match: Array

    def preferences(self) -> tuple[Array, ...]:
        """The keys, computed again if they were not kept."""
        if self.keys:
            return self.keys
        keys = preference_keys(
            self.objective, self.allowed[None], quality=self.quality[None], cost_usd=self.cost_usd[None],
            latency_ms=self.snapshot.latency_ms, match=self.match[None], settings=self.snapshot.settings,
        )  # fmt: skip
        return tuple(key[0] for key in keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """An agent that would have served too, and why it was not chosen."""

    agent_name: str
    estimated_cost: float | None
    estimated_latency_ms: float | None
    expected_quality: float
    similarity_score: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def reasoning(row: Row) -> str:
    """One sentence on the choice, and one on where its quality figure comes from."""
    i, names = row.chosen, row.snapshot.names
    others = int(np.count_nonzero(row.eligible)) - 1
    group = f"{plural(others + 1, 'agent')} that {'fit' if others else 'fits'}"
    if row.objective in _THRIFTY and row.share > 0.0:
        group = f"{plural(others + 1, 'agent')} that fit and are good enough for this request"
    facts = _facts(row, i)
    if np.count_nonzero(row.allowed) == 1:
        lead = f"{names[i]} is the only agent that fits this request: {facts}."
    elif others == 0:
        lead = f"{names[i]} is the only agent that is good enough for this request: {facts}{_aside(row)}."
    elif row.objective == "cost":
        lead = f"{names[i]} is the cheapest of the {group}: {facts}{_aside(row)}."
    elif row.objective == "latency":
        lead = f"{names[i]} is the fastest of the {group}: {facts}{_aside(row)}."
    elif row.objective == "quality":
        lead = f"{names[i]} has the highest expected quality of the {group}: {facts}."
    elif row.objective == "quality_per_dollar":
        lead = f"{names[i]} gives the most quality for the money of the {group}: {facts}{_aside(row)}."
    else:
        lead = f"{names[i]} is the best balance of cost, speed, quality and match among the {group}: {facts}."
    seen = int(row.snapshot.graded_answers[i])
    source = f"its record of {plural(seen, 'judged answer')} beside its stated score" if seen else "its stated score"
    return f"{lead} No trained model: the quality is {source}, weighed by how well its skills match."


def alternatives(row: Row, limit: int) -> list[Alternative]:
    """The next best agents that were allowed, at most `limit`, each with the reason it came after."""
    # The good enough first, then the rest of the allowed, which is how they were passed over.
    order = ranked(row.allowed, (np.where(row.eligible, 0.0, 1.0), *row.preferences()))
    rest = [int(i) for i in order if i != row.chosen][:limit]
    return [
        Alternative(
            agent_name=row.snapshot.names[i],
            estimated_cost=known(row.cost_usd[i]),
            estimated_latency_ms=known(row.snapshot.latency_ms[i]),
            expected_quality=float(row.quality[i]),
            similarity_score=float(row.match[i]),
            reason=_comparison(row, i, bool(row.eligible[i])),
        )
        for i in rest
    ]


def known(value: np.floating[Any] | float) -> float | None:
    """NaN as None, everything else as a float."""
    number = float(value)
    return None if math.isnan(number) else number


def _facts(row: Row, i: int) -> str:
    cost, latency = float(row.cost_usd[i]), float(row.snapshot.latency_ms[i])
    asked = price(cost) if cost == 0.0 or math.isnan(cost) else f"about {usd(cost)}"
    return f"{asked}, {milliseconds(latency)}, expected quality {row.quality[i]:.2f}"


def _aside(row: Row) -> str:
    """Names the best allowed agent where the chosen one is not it: what the saving is measured against."""
    top = int(np.where(row.allowed, row.quality, -1.0).argmax())
    if row.quality[top] <= row.quality[row.chosen]:
        return ""
    return f" (the best, {row.snapshot.names[top]}, has {row.quality[top]:.2f} for {price(float(row.cost_usd[top]))})"


def _comparison(row: Row, i: int, is_good: bool) -> str:
    quality = f"expected quality {row.quality[i]:.2f} against {row.quality[row.chosen]:.2f}"
    if not is_good:
        top = float(np.where(row.allowed, row.quality, -1.0).max())
        below = f"is below {row.share:.0%} of the best ({top:.2f})"
        return f"not good enough: expected quality {row.quality[i]:.2f} {below}"
    cost = _versus(row.cost_usd, i, row.chosen, price, "costs more", "costs less", "costs the same")
    speed = _versus(row.snapshot.latency_ms, i, row.chosen, milliseconds, "slower", "faster", "as fast")
    if row.objective == "latency":
        return f"{speed}; {quality}"
    if row.objective == "quality":
        return f"{quality}; {cost}"
    if row.objective == "balanced":
        match = f"match {row.match[i]:.2f} against {row.match[row.chosen]:.2f}"
        return f"a lesser balance: {cost}; {speed}; {quality}; {match}"
    return f"{cost}; {quality}"


def _versus(values: npt.NDArray[np.float64], i: int, chosen: int, unit: Any, more: str, less: str, same: str) -> str:
    mine, theirs = float(values[i]), float(values[chosen])
    if mine == theirs:
        return f"{same} ({unit(mine)})"
    if math.isnan(mine) or math.isnan(theirs):
        return f"{unit(mine)} against {unit(theirs)}"
    return f"{more if mine > theirs else less} ({unit(mine)} against {unit(theirs)})"
