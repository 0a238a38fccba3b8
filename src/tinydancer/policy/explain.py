"""Why one agent and not another, in sentences a person would write.

In: one request's row of what ``decide`` computed. Out: text. Made only when somebody reads it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinydancer.policy.objectives import preference_keys, ranked
from tinydancer.policy.wording import milliseconds, plural, price
from tinydancer.snapshot import Array, Mask, Snapshot

_THRIFTY = ("cost", "latency", "quality_per_dollar")
# An agent's latency and, for a request of so many tokens, its price come again and again; writing them out takes longer
# than everything else here.
_time = lru_cache(maxsize=2048)(milliseconds)
_price = lru_cache(maxsize=2048)(price)


class Row(NamedTuple):
    """One request: who was chosen, and per agent (arrays of length N) what was computed.

    Attributes
    ----------
    share
        The share of the best expected quality that counts as good enough.
    allowed, eligible
        Who satisfies the constraints, and who of them is good enough where the objective asks for it; one array where
        it does not ask.
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

    def figures(self, i: int) -> _Figures:
        """What is known of one agent, as plain numbers."""
        return _Figures(
            self.cost_usd.item(i), self.snapshot.latency_ms.item(i), self.quality.item(i), self.match.item(i)
        )

    def top(self) -> int:
        """The allowed agent of the highest expected quality."""
        return int(np.where(self.allowed, self.quality, -1.0).argmax())


class _Figures(NamedTuple):
    """One agent for one request; NaN is unknown."""

    cost_usd: float
    latency_ms: float
    quality: float
    match: float


class Alternative(NamedTuple):
    """An agent that would have served too, and why it was not chosen."""

    agent_name: str
    estimated_cost: float | None
    estimated_latency_ms: float | None
    expected_quality: float
    similarity_score: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return self._asdict()


def reasoning(row: Row) -> str:
    """One sentence on the choice, and one on where its quality figure comes from."""
    name, facts = row.snapshot.names[row.chosen], _facts(row.figures(row.chosen))
    fitting = int(np.count_nonzero(row.allowed))
    good = fitting if row.eligible is row.allowed else int(np.count_nonzero(row.eligible))
    group = f"{plural(good, 'agent')} that {'fit' if good > 1 else 'fits'}"
    if row.objective in _THRIFTY and row.share > 0.0:
        group = f"{plural(good, 'agent')} that fit and are good enough for this request"
    if fitting == 1:
        lead = f"{name} is the only agent that fits this request: {facts}."
    elif good == 1:
        lead = f"{name} is the only agent that is good enough for this request: {facts}{_aside(row)}."
    elif row.objective == "cost":
        lead = f"{name} is the cheapest of the {group}: {facts}{_aside(row)}."
    elif row.objective == "latency":
        lead = f"{name} is the fastest of the {group}: {facts}{_aside(row)}."
    elif row.objective == "quality":
        lead = f"{name} has the highest expected quality of the {group}: {facts}."
    elif row.objective == "quality_per_dollar":
        lead = f"{name} gives the most quality for the money of the {group}: {facts}{_aside(row)}."
    else:
        lead = f"{name} is the best balance of cost, speed, quality and match among the {group}: {facts}."
    predictor = row.snapshot.predictor
    if predictor is not None and predictor.covered[row.chosen]:
        return f"{lead} The model {predictor.model.name} predicts the quality for this request."
    seen = row.snapshot.graded_answers.item(row.chosen)
    source = f"its record of {plural(seen, 'judged answer')} beside its stated score" if seen else "its stated score"
    return f"{lead} No trained model: the quality is {source}, weighed by how well its skills match."


def alternatives(row: Row, limit: int) -> list[Alternative]:
    """The next best agents that were allowed, at most `limit`, each with the reason it came after."""
    keys = row.preferences()
    if row.eligible is not row.allowed:
        # The good enough first, then the rest of the allowed, which is how they were passed over.
        keys = (np.where(row.eligible, 0.0, 1.0), *keys)
    first = ranked(row.allowed, keys)[: limit + 1].tolist()
    theirs = row.figures(row.chosen)
    found = []
    for i in [i for i in first if i != row.chosen][:limit]:
        mine = row.figures(i)
        found.append(
            Alternative(
                row.snapshot.names[i], known(mine.cost_usd), known(mine.latency_ms), mine.quality, mine.match,
                _comparison(row.objective, mine, theirs) if row.eligible[i] else _shortfall(row, mine),
            )
        )  # fmt: skip
    return found


def known(value: np.floating[Any] | float) -> float | None:
    """NaN as None, everything else as a float."""
    number = float(value)
    return None if math.isnan(number) else number


def _facts(of: _Figures) -> str:
    asked = _price(of.cost_usd)
    about = "" if of.cost_usd == 0.0 or math.isnan(of.cost_usd) else "about "
    return f"{about}{asked}, {_time(of.latency_ms)}, expected quality {of.quality:.2f}"


def _aside(row: Row) -> str:
    """Names the best allowed agent where the chosen one is not it: what the saving is measured against."""
    top = row.top()
    if row.quality[top] <= row.quality[row.chosen]:
        return ""
    best = row.figures(top)
    return f" (the best, {row.snapshot.names[top]}, has {best.quality:.2f} for {_price(best.cost_usd)})"


def _shortfall(row: Row, mine: _Figures) -> str:
    best = row.quality.item(row.top())
    return f"not good enough: expected quality {mine.quality:.2f} is below {row.share:.0%} of the best ({best:.2f})"


def _comparison(objective: str, mine: _Figures, theirs: _Figures) -> str:
    quality = f"expected quality {mine.quality:.2f} against {theirs.quality:.2f}"
    if objective != "latency":
        cost = _versus(
            mine.cost_usd, theirs.cost_usd, _price(mine.cost_usd), _price(theirs.cost_usd), "costs more", "costs less",
            "costs the same",
        )  # fmt: skip
        if objective == "quality":
            return f"{quality}; {cost}"
        if objective != "balanced":
            return f"{cost}; {quality}"
    speed = _versus(
        mine.latency_ms, theirs.latency_ms, _time(mine.latency_ms), _time(theirs.latency_ms), "slower", "faster",
        "as fast",
    )  # fmt: skip
    if objective == "latency":
        return f"{speed}; {quality}"
    return f"a lesser balance: {cost}; {speed}; {quality}; match {mine.match:.2f} against {theirs.match:.2f}"


def _versus(mine: float, theirs: float, my_text: str, their_text: str, more: str, less: str, same: str) -> str:
    if mine == theirs:
        return f"{same} ({my_text})"
    if math.isnan(mine) or math.isnan(theirs):
        return f"{my_text} against {their_text}"
    return f"{more if mine > theirs else less} ({my_text} against {their_text})"
