"""What a prediction of quality is worth: the measures of the evaluation, over weighted requests.

In: predicted and observed quality and cost, requests times agents. Out: objects prepared once, whose ``at(weights)``
gives the measures of many weightings of the requests at once: ones for the figure itself, counts of a resample for its
bootstrap band. A request with weight two counts exactly as if it stood in the table twice.

Where predictions tie, the order of the rows must not matter: tied requests are taken in a random order and the
expected value over all orders is what counts; tied agents share.

Papers: APGR and CPT are section 3 of Ong et al., "RouteLLM", arXiv 2406.18665; the curve over a price of money is that
of Hu et al., "RouterBench", arXiv 2403.12031; the calibration error with bins of equal mass is Nixon et al.,
arXiv 1904.01685.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "COST_SHARES",
    "CPT_SHARES",
    "Calibration",
    "CostCurve",
    "PairCurve",
    "Routed",
    "coverage",
    "interval",
    "mean_quality",
    "ones",
    "ranks_within",
    "resamples",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

CPT_SHARES = (50, 80, 95)
"""Percentages of the gap between weak and strong that CPT asks for."""
COST_SHARES = (90, 95, 98, 100)
"""Percentages of the best single agent's quality for which the least cost is sought."""
CALIBRATION_BINS = 15
_ROUNDING = 1e-9
_CELLS_AT_ONCE = 8_000_000


def ones(n: int) -> Floats:
    """The weights that count every request once, ``float64[1, n]``."""
    return np.ones((1, n))


def resamples(n: int, count: int, seed: int) -> Floats:
    """How often each of n requests is drawn in each of `count` bootstrap resamples, ``float64[count, n]``."""
    rng = np.random.default_rng([seed, n])
    drawn = np.empty((count, n))
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    return drawn


def interval(values: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """The percentile interval of a measure over resamples.

    Resamples in which the measure is not defined are left out; None where that is more than one in twenty of them.
    """
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < 0.95 * len(values):
        return None
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high)


# -- one number per way of choosing --------------------------------------------------------------------------------


class Routed:
    """Mean quality and cost when each request goes to the agent with the highest predicted quality.

    Parameters
    ----------
    predicted
        ``float64[n, N]``; NaN is never chosen.
    quality, cost_usd
        ``float64[n, N]``, NaN where an agent did not answer or the cost is unknown. Only agents that answered a
        request can be chosen for it: what the others would have answered, nobody knows.
    """

    def __init__(self, predicted: Floats, quality: Floats, cost_usd: Floats | None = None) -> None:
        open_to = ~np.isnan(quality)
        score = np.where(open_to & ~np.isnan(predicted), predicted, -np.inf)
        chosen = open_to & (score == score.max(axis=1, keepdims=True))
        parts = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
        self.shares = parts
        self._answered = open_to.any(axis=1)
        self._quality = (parts * np.where(open_to, quality, 0.0)).sum(axis=1)
        known = cost_usd is not None and bool(np.isfinite(cost_usd[chosen]).all())
        self._cost = None
        if cost_usd is not None and known:
            self._cost = (parts * np.where(chosen, cost_usd, 0.0)).sum(axis=1)

    def at(self, weights: Floats) -> dict[str, Floats]:
        """``routed_quality`` in [0, 1] and ``routed_cost_usd``, the mean per request; NaN where costs are unknown."""
        counted = weights @ self._answered
        with np.errstate(invalid="ignore", divide="ignore"):
            quality = weights @ self._quality / counted
            cost = np.full(len(weights), np.nan) if self._cost is None else weights @ self._cost / counted
        return {"routed_quality": quality, "routed_cost_usd": cost}


def mean_quality(values: Floats) -> Callable[[Floats], Floats]:
    """The weighted mean of a column with NaN, over the requests where it is known."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def at(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Floats = weights @ filled / (weights @ known)
        return result

    return at


# -- two agents ----------------------------------------------------------------------------------------------------


class PairCurve:
    """How fast quality rises from the weak agent's to the strong one's as more requests go to the strong one.

    Requests are ranked by predicted gain (strong minus weak). With k of n calls going to the strong agent,
    PGR_k = (quality_k - weak) / (strong - weak). APGR is the mean of PGR_k over k = 0, ..., n; CPTx is the smallest
    k / n with PGR_k >= x %. Where gains tie, PGR rises in a straight line over the tied requests.

    Parameters
    ----------
    gain
        ``float64[n]``: predicted quality of the strong agent minus that of the weak one.
    weak, strong
        ``float64[n]``: observed quality; requests that either did not answer do not count.
    """

    def __init__(self, gain: Floats, weak: Floats, strong: Floats) -> None:
        both = np.flatnonzero(~(np.isnan(weak) | np.isnan(strong) | np.isnan(gain)))
        order = both[np.argsort(-gain[both], kind="stable")]
        self._order = order
        self._weak, self._strong = weak[order], strong[order]
        ranked = gain[order]
        self._starts: Ints = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else np.zeros(0, int)

    def _blocks(self, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Per block of ties: calls, rise of PGR; both also as running sums."""
        counts = weights[:, self._order]
        calls = np.add.reduceat(counts, self._starts, axis=1)
        rise = np.add.reduceat(counts * (self._strong - self._weak), self._starts, axis=1)
        total = rise.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            rise = np.where(total > _ROUNDING, rise / total, np.nan)
        return calls, rise, np.cumsum(calls, axis=1), np.cumsum(rise, axis=1)

    def at(self, weights: Floats) -> dict[str, Floats]:
        """``apgr`` and ``cpt50``, ``cpt80``, ``cpt95``, as shares; NaN unless the strong agent is better."""
        nothing = np.full(len(weights), np.nan)
        if not len(self._order):
            return {"apgr": nothing, **{f"cpt{x}": nothing for x in CPT_SHARES}}
        calls, rise, calls_after, after = self._blocks(weights)
        before = after - rise
        n = calls_after[:, -1]
        # Over the k of one block PGR is an arithmetic sequence: m values from just above `before` up to `after`.
        apgr = (calls * before + rise * (calls + 1.0) / 2.0).sum(axis=1) / (n + 1.0)
        values = {"apgr": apgr}
        rows = np.arange(len(weights))
        for x in CPT_SHARES:
            wanted = x / 100.0
            first = np.argmax(after >= wanted - _ROUNDING, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                within = (wanted - before[rows, first]) / rise[rows, first] * calls[rows, first]
                needed = calls_after[rows, first] - calls[rows, first] + np.ceil(within - _ROUNDING)
                values[f"cpt{x}"] = np.where(np.isnan(apgr), np.nan, needed / n)
        return values

    def points(self, weights: Floats, shares: Floats) -> Floats:
        """Mean quality with each share of calls going to the strong agent, ``float64[len(weights), len(shares)]``."""
        counts = weights[:, self._order]
        n = counts.sum(axis=1)
        weak = counts @ self._weak
        calls = np.add.reduceat(counts, self._starts, axis=1)
        gained = np.add.reduceat(counts * (self._strong - self._weak), self._starts, axis=1)
        result = np.empty((len(weights), len(shares)))
        for row in range(len(weights)):
            known_at = np.r_[0.0, np.cumsum(calls[row])] / n[row]
            known = (weak[row] + np.r_[0.0, np.cumsum(gained[row])]) / n[row]
            result[row] = np.interp(shares, known_at, known)
        return result


def ranks_within(gain: Floats, folds: Ints) -> Floats:
    """Gains from different fits made comparable: each becomes its mean rank in its fold, as a share of the fold.

    The fit of a fold with many good answers has seen fewer of them, and predicts less for it than for the others:
    ranking across folds would punish a prediction for how the folds fell. NaN stays NaN.
    """
    ranks = np.full(len(gain), np.nan)
    for fold in np.unique(folds):
        rows = np.flatnonzero((folds == fold) & ~np.isnan(gain))
        _, tie, size = np.unique(gain[rows], return_inverse=True, return_counts=True)
        ranks[rows] = (np.cumsum(size) - size / 2.0)[tie] / max(len(rows), 1)
    return ranks


# -- many agents with prices ---------------------------------------------------------------------------------------


class CostCurve:
    """Quality against cost as money gets dearer: each request goes to argmax(predicted quality - price x cost).

    The price of money runs from 0 (the best prediction, whatever it costs) to infinity (the cheapest agent). All
    points at which a choice changes are found exactly. What is compared when choosing is the estimated cost, which
    must not be the request's own; what is summed up is the observed one.

    Parameters
    ----------
    predicted
        ``float64[n, N]``, finite.
    estimated_cost_usd
        ``float64[n, N]``: what a call is expected to cost, known without making it.
    quality, cost_usd
        ``float64[n, N]``: what was observed, NaN where an agent did not answer; costs known wherever quality is.
    best
        Column of the best single agent, to which everything is compared.
    cheapest
        Column of the single agent with the lowest mean cost, where the area begins.
    """

    def __init__(
        self, predicted: Floats, estimated_cost_usd: Floats, quality: Floats, cost_usd: Floats, best: int, cheapest: int
    ) -> None:
        open_to = ~np.isnan(quality)
        rows = np.flatnonzero(open_to.any(axis=1))
        self._rows = rows
        value = np.where(open_to[rows], predicted[rows], -np.inf)
        price = np.where(open_to[rows], estimated_cost_usd[rows], np.inf)
        events = _choices(value, price)
        self._start_quality = quality[rows, events.first]
        self._start_cost = cost_usd[rows, events.first]
        order = np.argsort(events.prices, kind="stable")
        self.prices = events.prices[order]
        event_rows = rows[events.rows[order]]
        self._event_rows = event_rows
        old, new = events.old[order], events.new[order]
        self._quality_step = quality[event_rows, new] - quality[event_rows, old]
        self._cost_step = cost_usd[event_rows, new] - cost_usd[event_rows, old]
        # Requests whose choice changes at one price change together: in between there is no price to set.
        self._ends: Ints = np.flatnonzero(np.r_[self.prices[1:] != self.prices[:-1], True]) if len(order) else order
        self._best_quality, self._best_cost = mean_quality(quality[:, best]), mean_quality(cost_usd[:, best])
        self._cheapest_cost = mean_quality(cost_usd[:, cheapest])

    def points(self, weights: Floats) -> tuple[Floats, Floats]:
        """Mean cost in USD and mean quality at every operating point, from price 0 on, each ``[len(weights), m]``."""
        counts = weights[:, self._rows]
        n = counts.sum(axis=1, keepdims=True)
        steps = weights[:, self._event_rows]
        both = []
        for start, step in ((self._start_cost, self._cost_step), (self._start_quality, self._quality_step)):
            first = (counts @ start)[:, None]
            later = first + np.cumsum(steps * step, axis=1)[:, self._ends]
            both.append(np.concatenate([first, later], axis=1) / n)
        return both[0], both[1]

    def at(self, weights: Floats) -> dict[str, Floats]:
        """``relative_cost_at_90`` and so on, and ``area``; NaN where the best single agent costs nothing.

        ``relative_cost_at_x`` is the least mean cost of an operating point with at least x % of the best single
        agent's quality, as a share of that agent's mean cost. Always using that agent is an operating point, too, so
        no share is above 1. ``area`` is the best quality within a budget, as a share of the best single agent's,
        averaged over budgets from the cheapest agent's cost to the best one's; NaN if the best one is the cheapest.
        """
        step = max(1, _CELLS_AT_ONCE // max(1, 8 * len(self._event_rows)))
        parts = [self._at(weights[start : start + step]) for start in range(0, len(weights), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _at(self, weights: Floats) -> dict[str, Floats]:
        relative, share = self._relative(weights)
        values: dict[str, Floats] = {}
        for x in COST_SHARES:
            reached = np.where(share >= x / 100.0 - _ROUNDING, relative, 1.0).min(axis=1)
            values[f"relative_cost_at_{x}"] = np.minimum(reached, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            cheapest = self._cheapest_cost(weights) / self._best_cost(weights)
        values["area"] = np.array([_area(*row) for row in zip(relative, share, cheapest, strict=True)])
        return values

    def _relative(self, weights: Floats) -> tuple[Floats, Floats]:
        """Cost and quality of the operating points as shares of the best single agent's; NaN where that is 0."""
        cost, quality = self.points(weights)
        best_cost, best_quality = self._best_cost(weights)[:, None], self._best_quality(weights)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (
                np.where(best_cost > 0.0, cost / best_cost, np.nan),
                np.where(best_quality > 0.0, quality / best_quality, np.nan),
            )

    def within_budget(self, weights: Floats, budgets: Floats) -> Floats:
        """The best mean quality of an operating point within each budget, ``float64[len(weights), len(budgets)]``.

        Budgets are shares of the best single agent's mean cost; NaN for one that no operating point keeps.
        """
        result = np.full((len(weights), len(budgets)), np.nan)
        best_quality = self._best_quality(weights)
        for row in range(len(weights)):
            (cost,), (share,) = self._relative(weights[row : row + 1])
            order = np.lexsort((-share, cost))
            best = np.maximum.accumulate(share[order])
            last = np.searchsorted(cost[order], budgets + _ROUNDING, side="right") - 1
            result[row, last >= 0] = best[last[last >= 0]] * best_quality[row]
        return result


class _Events(NamedTuple):
    """The first choice of each row, and every later change: its row, its price of money, from whom to whom."""

    first: Ints
    rows: Ints
    prices: Floats
    old: Ints
    new: Ints


def _choices(value: Floats, cost: Floats) -> _Events:
    """All changes of argmax(value - price x cost) as the price rises from 0; ties go to the cheaper agent."""
    n, agents = value.shape
    everyone = np.arange(n)
    top = value == value.max(axis=1, keepdims=True)
    current: Ints = np.argmin(np.where(top, cost, np.inf), axis=1)
    first = current
    reached = np.zeros(n)
    rows, prices, old, new = [], [], [], []
    for _ in range(agents - 1):
        with np.errstate(invalid="ignore", divide="ignore"):
            saved = cost[everyone, current][:, None] - cost
            at = np.where(saved > 0.0, (value[everyone, current][:, None] - value) / saved, np.inf)
        at[np.isnan(at)] = np.inf
        # Along one row the prices rise; rounding must not say otherwise.
        reached = np.maximum(reached, at.min(axis=1))
        changing = np.flatnonzero(np.isfinite(reached))
        if not len(changing):
            break
        tied = at[changing] <= reached[changing, None]
        following = np.argmin(np.where(tied, cost[changing], np.inf), axis=1)
        rows.append(changing)
        prices.append(reached[changing])
        old.append(current[changing])
        new.append(following)
        current = current.copy()
        current[changing] = following
    if not rows:
        nothing = np.zeros(0, np.int64)
        return _Events(first, nothing, np.zeros(0), nothing, nothing)
    return _Events(first, *(np.concatenate(part) for part in (rows, prices, old, new)))


def _area(cost: Floats, quality: Floats, low: float) -> float:
    """Mean over budgets in [low, 1] of the best quality that a point within the budget has; NaN for no such range."""
    if not low < 1.0 - _ROUNDING:
        return float("nan")
    order = np.lexsort((-quality, cost))
    cost, best = cost[order], np.maximum.accumulate(quality[order])
    # A budget below the first point buys nothing, but the dearest price of money is the cheapest agent: rounding only.
    budgets = np.r_[low, np.clip(cost[1:], low, 1.0), 1.0]
    return float(np.diff(budgets) @ best / (1.0 - low))


# -- calibration ---------------------------------------------------------------------------------------------------


class Calibration:
    """Whether predicted quality means what it says, over all pairs of request and agent that were observed.

    Pairs are sorted by prediction into 15 bins of equal mass; equal predictions share a bin, whatever that does to its
    mass. The bins are those of the whole table in every resample.
    """

    def __init__(self, predicted: Floats, quality: Floats, bins: int = CALIBRATION_BINS) -> None:
        known = ~np.isnan(quality) & ~np.isnan(predicted)
        row, _ = np.nonzero(known)
        said, seen = predicted[known], quality[known]
        n = len(quality)
        _, tie, size = np.unique(said, return_inverse=True, return_counts=True)
        middle = (np.cumsum(size) - size / 2.0)[tie] / max(len(said), 1)
        in_bin = np.minimum((middle * bins).astype(np.int64), bins - 1)
        place = row * bins + in_bin
        self._count, self._said, self._seen = (
            np.bincount(place, weights=amount, minlength=n * bins).reshape(n, bins)
            for amount in (np.ones(len(said)), said, seen)
        )
        self._squares = np.bincount(row, weights=(said - seen) ** 2, minlength=n)

    def at(self, weights: Floats) -> dict[str, Floats]:
        """``ece``, the mean over pairs of |mean predicted - mean observed| of their bin, and ``brier``."""
        total = (weights @ self._count).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ece = np.abs(weights @ (self._said - self._seen)).sum(axis=1) / total
            return {"ece": ece, "brier": weights @ self._squares / total}

    def diagram(self) -> list[tuple[float, float, int]]:
        """Mean predicted, mean observed and number of pairs of each bin that has any."""
        counts = self._count.sum(axis=0)
        with np.errstate(invalid="ignore"):
            said, seen = self._said.sum(axis=0) / counts, self._seen.sum(axis=0) / counts
        return [(float(s), float(o), int(c)) for s, o, c in zip(said, seen, counts, strict=True) if c]


def coverage(low: Floats, high: Floats, quality: Floats) -> Callable[[Floats], Floats]:
    """The share of observed pairs whose quality lies in [low, high]; all ``float64[n, N]``."""
    known = ~np.isnan(quality)
    inside = ((low <= quality) & (quality <= high) & known).sum(axis=1).astype(np.float64)
    pairs = known.sum(axis=1).astype(np.float64)

    def at(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Floats = weights @ inside / (weights @ pairs)
        return result

    return at
