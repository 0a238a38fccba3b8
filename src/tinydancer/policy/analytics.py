"""What the traffic came to, and what it would have come to elsewhere: arithmetic on sums.

In: sums of outcomes per period, agent and value, with histograms of their latencies, as a store reads them. Out: rows
with cost, latency, success and quality; and what always using one agent, the *baseline*, would have cost and been
worth. No I/O, no clock.

What the baseline did not answer is predicted. With n of its own observations of mean m and variance s², the sum of M
unobserved ones is M m; the error of that prediction has the variance ``s² (M + M²/n)``: the spread of the M themselves,
and that of the mean they are predicted by (Hahn and Meeker, Statistical Intervals, 1991, on the mean of future
observations). The 95% interval is the prediction plus or minus Student's t at n - 1 degrees of freedom times the root
of it. It knows chance only: that the baseline does on others' requests as it does on its own is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, NamedTuple

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.policy.wording import plural

__all__ = [
    "GROUPINGS", "Baseline", "Cell", "Savings", "Traffic", "TrafficRow", "TrafficSums", "added_up", "grouping_of",
    "histogram_key", "kind_of", "percentile_ms", "row_of", "saved", "student_t975",
]  # fmt: skip

GROUPINGS = ("agent", "route", "tenant", "task", "day", "hour", "objective")
BUCKET_GROWTH = 1.02**3
"""Each latency bucket ends 6.1% above where it begins, so that its middle is within 3% of all in it."""
FASTEST_BUCKET_MS = 0.001
PSEUDO_ANSWERS = 4.0
"""Half of them of quality 0, half of 1, added for an interval: else three perfect answers would promise a fourth."""
_T975 = (12.706205, 4.302653, 3.182446)
_Z975 = 1.959964


class TrafficSums(NamedTuple):
    """Sums over outcomes; ``squares`` are sums of squares.

    Tokens are summed where the cost is known, by report or by estimate; costs are estimated where none was reported.
    """

    requests: int = 0
    successes: int = 0
    quality_count: int = 0
    quality_sum: float = 0.0
    quality_squares: float = 0.0
    expected_count: int = 0
    expected_sum: float = 0.0
    latency_count: int = 0
    latency_sum_ms: float = 0.0
    cost_count: int = 0
    cost_sum_usd: float = 0.0
    cost_squares: float = 0.0
    estimated_count: int = 0
    estimated_sum_usd: float = 0.0
    input_count: int = 0
    input_sum: float = 0.0
    input_squares: float = 0.0
    output_count: int = 0
    output_sum: float = 0.0
    output_squares: float = 0.0

    def plus(self, other: TrafficSums) -> TrafficSums:
        """Both together."""
        return TrafficSums._make(map(add, self, other))

    @property
    def costed(self) -> int:
        """Outcomes whose cost is known, by report or by estimate."""
        return self.cost_count + self.estimated_count

    @property
    def total_usd(self) -> float:
        """What those cost."""
        return self.cost_sum_usd + self.estimated_sum_usd


class Cell(NamedTuple):
    """The outcomes of one agent in one period that share a value; the period is a number from 0."""

    period: int
    value: str
    agent: str
    sums: TrafficSums


def added_up(cells: Iterable[Cell]) -> list[Cell]:
    """The same with one cell for each period, value and agent: ids that share a name, hours of one day."""
    sums: dict[tuple[int, str, str], TrafficSums] = {}
    for cell in cells:
        known = sums.get(cell[:3])
        sums[cell[:3]] = cell.sums if known is None else known.plus(cell.sums)
    return [Cell(*key, found) for key, found in sums.items()]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a store reads for one grouping.

    Attributes
    ----------
    cells
        Sums; the value is empty unless the grouping needs it.
    histograms
        How many latencies lie in each bucket, per agent, value or period, whichever was asked for.
    outside
        Outcomes of any time that the store's rollups leave out, because they are older than those; 0 if exact.
    """

    cells: Sequence[Cell]
    histograms: Mapping[str | int, Mapping[int, int]] = field(default_factory=dict)
    outside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The agent that might have answered everything.

    Attributes
    ----------
    name
        Its name.
    seen
        Its own outcomes, of all groups.
    request_usd, input_usd, output_usd
        Its price per request besides tokens, and per token; NaN if unknown.
    input_tokens, output_tokens
        Of a usual request and of its usual answer, for requests whose own are not known.
    quality
        What is expected of it where none of its answers was judged; None if it is not registered any more.
    """

    name: str
    seen: TrafficSums
    request_usd: float = math.nan
    input_usd: float = math.nan
    output_usd: float = math.nan
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    quality: float | None = None

    @property
    def has_price(self) -> bool:
        """Whether all of its price is known."""
        return math.isfinite(self.request_usd + self.input_usd + self.output_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What the same requests would have come to at the baseline. Every figure is None where nothing tells it.

    Attributes
    ----------
    requests
        Those whose cost is known, which the money is about.
    baseline_cost, saved, saved_share
        USD that the baseline would have taken; that minus what was paid; and as a share of the former.
    saved_low, saved_high
        The 95% interval; None where nothing was predicted from a sample.
    cost_basis
        How the baseline's cost was found, in words.
    baseline_quality, quality_change
        Mean quality of the judged requests at the baseline; and by how much the observed one is higher.
    baseline_quality_low, baseline_quality_high, quality_change_low, quality_change_high
        The 95% intervals; None where everything was observed.
    """

    requests: int
    baseline_cost: float | None = None
    saved: float | None = None
    saved_low: float | None = None
    saved_high: float | None = None
    saved_share: float | None = None
    cost_basis: str = ""
    baseline_quality: float | None = None
    baseline_quality_low: float | None = None
    baseline_quality_high: float | None = None
    quality_change: float | None = None
    quality_change_low: float | None = None
    quality_change_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRow:
    """One group of outcomes. Every figure but the counts is None where nothing was measured.

    Attributes
    ----------
    group
        The agent, route, task, day and so on; None for outcomes without one.
    total_requests
        Outcomes.
    total_cost, avg_cost
        USD, reported or else as estimated when it was decided; per request whose cost is known.
    avg_latency_ms, p50_latency_ms, p95_latency_ms, p99_latency_ms
        The mean is exact, percentiles are within 3%.
    success_rate
        Share of the requests.
    quality, judged
        Mean of the judged answers, and how many those are.
    expected_quality
        Mean of what was expected when it was decided.
    costs_reported, costs_estimated
        How many of the requests have a cost, and where from.
    savings
        Against the baseline, if there is one.
    """

    group: str | None
    total_requests: int
    total_cost: float | None
    avg_latency_ms: float | None
    success_rate: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    quality: float | None
    judged: int
    expected_quality: float | None
    avg_cost: float | None
    costs_reported: int
    costs_estimated: int
    savings: Savings | None = None


def grouping_of(group_by: Any) -> str:
    """A grouping's name, in any case of letters.

    Raises
    ------
    InvalidInputError
        There is no such grouping; lists those there are.
    """
    name = group_by.strip().lower() if isinstance(group_by, str) else ""
    if name not in GROUPINGS:
        raise InvalidInputError(f"Unknown group_by {check.shown(group_by)}; expected one of {', '.join(GROUPINGS)}.")
    return name


def kind_of(group_by: str) -> str:
    """What a store has to tell apart for a grouping: ``objective``, ``route`` or ``task``."""
    return group_by if group_by in ("route", "task") else "objective"


def histogram_key(group_by: str) -> str:
    """What it is to make histograms of: ``agent``, ``value`` or ``period``."""
    return {"agent": "agent", "route": "value", "task": "value", "objective": "value"}.get(group_by, "period")


def row_of(group: str | None, sums: TrafficSums, histogram: Mapping[int, int], savings: Savings | None) -> TrafficRow:
    """The figures of one group."""
    return TrafficRow(
        group=group, total_requests=sums.requests, total_cost=sums.total_usd if sums.costed else None,
        avg_latency_ms=_mean(sums.latency_sum_ms, sums.latency_count),
        success_rate=_mean(sums.successes, sums.requests), p50_latency_ms=percentile_ms(histogram, 0.5),
        p95_latency_ms=percentile_ms(histogram, 0.95),
        p99_latency_ms=percentile_ms(histogram, 0.99), quality=_mean(sums.quality_sum, sums.quality_count),
        judged=sums.quality_count, expected_quality=_mean(sums.expected_sum, sums.expected_count),
        avg_cost=_mean(sums.total_usd, sums.costed), costs_reported=sums.cost_count,
        costs_estimated=sums.estimated_count, savings=savings,
    )  # fmt: skip


def percentile_ms(histogram: Mapping[int, int], share: float) -> float | None:
    """The latency that `share` of the observations do not exceed, to 3%; None without observations."""
    rank = math.ceil(share * sum(histogram.values()))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            middle = 2.0 * BUCKET_GROWTH**bucket / (1.0 + BUCKET_GROWTH)
            return 0.0 if bucket == 0 else FASTEST_BUCKET_MS * middle
    return None


def saved(cells: Iterable[Cell], baseline: Baseline) -> Savings:
    """What the outcomes of one group would have come to at the baseline.

    The baseline's own outcomes are taken as they were. Each of the others costs the baseline's price for its tokens;
    tokens that are not known are taken as the group's mean (input) and as the baseline's own mean (output). Without a
    price, each costs what the baseline's outcomes did on average.
    """
    own, others = TrafficSums(), TrafficSums()
    for cell in cells:
        if cell.agent == baseline.name:
            own = own.plus(cell.sums)
        else:
            others = others.plus(cell.sums)
    money, quality = _cost(own, others, baseline), _quality(own, others, baseline)
    return Savings(requests=own.costed + others.costed, **money, **quality)


def _cost(own: TrafficSums, others: TrafficSums, baseline: Baseline) -> dict[str, Any]:
    number, seen = others.costed, baseline.seen
    if own.costed + number == 0:
        return {"cost_basis": "no cost is known"}
    if number == 0:
        elsewhere, variance, freedom, basis = 0.0, 0.0, math.inf, "observed"
    elif baseline.has_price:
        elsewhere, variance, freedom, basis = _priced(others, baseline)
    elif seen.cost_count:
        elsewhere = number * seen.cost_sum_usd / seen.cost_count
        variance = _unseen(number, seen.cost_count, seen.cost_sum_usd, seen.cost_squares) or 0.0
        freedom, basis = seen.cost_count - 1.0, f"the mean of its {plural(seen.cost_count, 'reported cost')}"
    else:
        return {"cost_basis": f"neither a price nor a cost of {baseline.name} is known"}
    at_baseline, paid = own.total_usd + elsewhere, own.total_usd + others.total_usd
    found: dict[str, Any] = {
        "baseline_cost": at_baseline, "saved": at_baseline - paid, "cost_basis": basis,
        "saved_share": (at_baseline - paid) / at_baseline if at_baseline > 0.0 else None,
    }  # fmt: skip
    if variance:
        half = student_t975(freedom) * math.sqrt(variance)
        low = max(at_baseline - half, own.total_usd)  # nothing costs less than nothing
        found |= {"saved_low": low - paid, "saved_high": at_baseline + half - paid}
    return found


def _priced(others: TrafficSums, baseline: Baseline) -> tuple[float, float, float, str]:
    """USD of `others` at the baseline's price; variance and degrees of freedom of what is predicted in it; the basis.

    The variance is 0, which is no interval, if nothing is predicted, or if nothing tells how far off it may be.
    """
    number, seen = others.costed, baseline.seen
    usd, variance, freedom, guessed = baseline.request_usd * number, 0.0, math.inf, []
    sides = (
        ("input", baseline.input_usd, others.input_count, others.input_sum, baseline.input_tokens,
         (others.input_count, others.input_sum, others.input_squares)),
        ("output", baseline.output_usd, others.output_count, others.output_sum, baseline.output_tokens,
         (seen.output_count, seen.output_sum, seen.output_squares)),
    )  # fmt: skip
    measured = True
    for side, price, known, total, usual, (count, summed, squares) in sides:
        missing = number - known
        usd += price * total
        if missing and price:
            usd += price * missing * (summed / count if count else usual)
            spread = _unseen(missing, count, summed, squares)
            measured = measured and spread is not None
            variance += price**2 * (spread or 0.0)
            freedom = min(freedom, count - 1.0)
            guessed.append(f"{side} tokens of {missing:,}")
    basis = "its price for their tokens"
    if guessed:
        basis += f"; not known: {', '.join(guessed)}"
    return usd, variance if measured else 0.0, freedom, basis


def _quality(own: TrafficSums, others: TrafficSums, baseline: Baseline) -> dict[str, Any]:
    judged, missing, seen = own.quality_count + others.quality_count, others.quality_count, baseline.seen
    if not judged:
        return {}
    observed = (own.quality_sum + others.quality_sum) / judged
    if not missing:
        return {"baseline_quality": observed, "quality_change": 0.0}
    answers = seen.quality_count
    mean = baseline.quality if answers < 2 else seen.quality_sum / answers
    if mean is None:
        return {}
    there = (own.quality_sum + missing * mean) / judged
    if answers < 2:
        low, high = 0.0, float(missing)
    else:
        low, high = _quality_bounds(missing, seen)
    low, high = (own.quality_sum + low) / judged, (own.quality_sum + high) / judged
    return {
        "baseline_quality": there, "baseline_quality_low": low, "baseline_quality_high": high,
        "quality_change": observed - there, "quality_change_low": observed - high,
        "quality_change_high": observed - low,
    }  # fmt: skip


def _quality_bounds(missing: int, seen: TrafficSums) -> tuple[float, float]:
    """Bounds of the sum of so many unseen qualities, as above, with the pseudo-answers among those seen.

    They are what Agresti and Coull (The American Statistician 52, 1998, page 122) add to a share of successes.
    """
    count = seen.quality_count + PSEUDO_ANSWERS
    summed, squares = seen.quality_sum + PSEUDO_ANSWERS / 2.0, seen.quality_squares + PSEUDO_ANSWERS / 2.0
    middle = missing * summed / count
    half = student_t975(count - 1.0) * math.sqrt(_unseen(missing, count, summed, squares) or 0.0)
    return max(0.0, middle - half), min(float(missing), middle + half)


def _unseen(number: float, count: float, summed: float, squares: float) -> float | None:
    """Variance of the error of `number` times the mean of `count` observations as the sum of `number` others."""
    if count < 2:
        return None
    variance = max(0.0, squares - summed**2 / count) / (count - 1.0)
    return variance * (number + number**2 / count)


def student_t975(freedom: float) -> float:
    """The 97.5% quantile of Student's t, to 0.1% (Abramowitz and Stegun 26.7.5; a table below 4 degrees)."""
    if freedom < 4.0:
        return _T975[max(1, int(freedom)) - 1]
    z, v = _Z975, freedom
    return (
        z
        + (z**3 + z) / (4.0 * v)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * v**2)
        + (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * v**3)
        + (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / (92160.0 * v**4)
    )


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
