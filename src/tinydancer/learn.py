"""What outcomes teach: counts that add up in any order, and from them what to expect of each agent.

In: outcomes, in any order and any grouping. Out: `AgentStats`, which merge exactly; and from stated values and stats
together an `AgentEstimate` for decisions and an `AgentPerformance` for listings. No I/O, no clock.

The quality of an answer that nobody judged is taken as 0 when the call failed, and is not counted when it succeeded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinydancer.snapshot import QUALITY_BINS, AgentEstimate, Array
from tinydancer.types import Agent, AgentPerformance, Outcome

STATED_STRENGTH = 10.0
"""How many observations a stated quality weighs as much as."""
UNSTATED_STRENGTH = 2.0
UNSTATED_QUALITY = 0.5
TOKENS_STRENGTH = 5.0
LATENCY_GROWTH = 1.02
"""Each latency bucket ends 2% above where it begins, so that its middle is within 1% of all in it."""
FASTEST_BUCKET_MS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStats:
    """What was observed of one agent, as counts, sums and histograms. Adding two of them loses nothing.

    Attributes
    ----------
    total_requests, successes
        All outcomes, and those in which an answer came.
    latency_count, latency_sum_ms, latency_buckets
        Measured latencies; bucket b holds those in ``(0.001 x 1.02^(b-1), 0.001 x 1.02^b]`` milliseconds.
    quality_count, quality_sum, quality_bins
        Judged answers; bin b of 21 holds those in ``[b / 20, (b + 1) / 20)``.
    unjudged_failures
        Failed calls that nobody judged; they count as quality 0 in what is expected, not in the listing's mean.
    cost_count, cost_sum_usd, output_tokens_count, output_tokens_sum
        As reported.
    """

    total_requests: int = 0
    successes: int = 0
    latency_count: int = 0
    latency_sum_ms: float = 0.0
    quality_count: int = 0
    quality_sum: float = 0.0
    unjudged_failures: int = 0
    cost_count: int = 0
    cost_sum_usd: float = 0.0
    output_tokens_count: int = 0
    output_tokens_sum: int = 0
    latency_buckets: Mapping[int, int] = field(default_factory=dict)
    quality_bins: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: AgentStats) -> AgentStats:
        merged = {name: getattr(self, name) + getattr(other, name) for name in SUMMED_FIELDS}
        return AgentStats(
            **merged,
            latency_buckets=dict(Counter(self.latency_buckets) + Counter(other.latency_buckets)),
            quality_bins=dict(Counter(self.quality_bins) + Counter(other.quality_bins)),
        )


SUMMED_FIELDS = (
    "total_requests", "successes", "latency_count", "latency_sum_ms", "quality_count", "quality_sum",
    "unjudged_failures", "cost_count", "cost_sum_usd", "output_tokens_count", "output_tokens_sum",
)  # fmt: skip
NO_STATS = AgentStats()


class Tally:
    """The running sums and histograms of one agent.

    Sums of floating point numbers depend on the order of the additions; here they always go on from the sum so far,
    outcome by outcome, so that however outcomes were grouped before, the same order gives the same last bit.
    """

    __slots__ = ("latency_buckets", "quality_bins", "sums")

    def __init__(self, sums: Iterable[float] = (0,) * len(SUMMED_FIELDS)) -> None:
        self.sums = dict(zip(SUMMED_FIELDS, sums, strict=True))
        self.latency_buckets: Counter[int] = Counter()
        self.quality_bins: Counter[int] = Counter()

    def add(
        self,
        success: bool | int,
        quality: float | None,
        latency_ms: float | None,
        cost_usd: float | None,
        output_tokens: int | None,
    ) -> None:
        """Add one outcome."""
        sums = self.sums
        sums["total_requests"] += 1
        sums["successes"] += int(success)
        if latency_ms is not None:
            sums["latency_count"] += 1
            sums["latency_sum_ms"] += latency_ms
            self.latency_buckets[latency_bucket(latency_ms)] += 1
        if quality is not None:
            sums["quality_count"] += 1
            sums["quality_sum"] += quality
            self.quality_bins[quality_bin(quality)] += 1
        elif not success:
            sums["unjudged_failures"] += 1
        if cost_usd is not None:
            sums["cost_count"] += 1
            sums["cost_sum_usd"] += cost_usd
        if output_tokens is not None:
            sums["output_tokens_count"] += 1
            sums["output_tokens_sum"] += output_tokens

    def stats(self) -> AgentStats:
        """The sums so far, as a value that no longer changes."""
        return AgentStats(
            **self.sums,  # type: ignore[arg-type]
            latency_buckets=dict(self.latency_buckets),
            quality_bins=dict(self.quality_bins),
        )


def stats_of(outcomes: Iterable[Outcome]) -> dict[str, AgentStats]:
    """Stats per agent name."""
    tallies: dict[str, Tally] = {}
    for o in outcomes:
        tally = tallies.setdefault(o.agent_name, Tally())
        tally.add(o.success, o.quality, o.latency_ms, o.cost_usd, o.output_tokens)
    return {name: tally.stats() for name, tally in tallies.items()}


def latency_bucket(latency_ms: float) -> int:
    """The bucket a latency falls into: ``ceil(log_1.02(latency / 0.001 ms))``, at least 0."""
    if latency_ms <= FASTEST_BUCKET_MS:
        return 0
    # Rounding keeps the exact upper end of a bucket in that bucket despite the logarithm's last digit.
    return max(0, math.ceil(round(math.log(latency_ms / FASTEST_BUCKET_MS) / math.log(LATENCY_GROWTH), 9)))


def bucket_latency_ms(bucket: int) -> float:
    """The middle of a bucket in milliseconds: within 1% of every latency in it (DDSketch, arXiv 1908.10693, eq. 2)."""
    return 0.0 if bucket == 0 else FASTEST_BUCKET_MS * 2.0 * LATENCY_GROWTH**bucket / (1.0 + LATENCY_GROWTH)


def latency_percentile_ms(buckets: Mapping[int, int], share: float) -> float | None:
    """The latency that `share` of the observations do not exceed, to 1%; None without observations."""
    total = sum(buckets.values())
    rank = math.ceil(share * total)
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            return bucket_latency_ms(bucket)
    return None


def quality_bin(quality: float) -> int:
    """Bin of a quality in [0, 1], 0 to 20; the last one holds exactly 1."""
    return int(quality * (QUALITY_BINS - 1) + 1e-9)


def estimate(agent: Agent, stats: AgentStats, *, default_output_tokens: float) -> AgentEstimate:
    """What to expect of an agent: its stated values and its record, weighed by how much is known.

    With k the strength of the stated quality m (10 observations, or 2 at 0.5 where none is stated), n graded answers
    and their sum s, the posterior mean is ``(k m + s) / (k + n)``; the probability of reaching each bar likewise,
    starting from m for every bar above 0 (an answer is right or wrong until graded ones show more).
    """
    stated = UNSTATED_QUALITY if agent.quality_score is None else agent.quality_score
    strength = UNSTATED_STRENGTH if agent.quality_score is None else STATED_STRENGTH
    graded = stats.quality_count + stats.unjudged_failures
    counts = np.zeros(QUALITY_BINS)
    for position, number in stats.quality_bins.items():
        counts[position] += number
    counts[0] += stats.unjudged_failures
    reaching = counts[::-1].cumsum()[::-1]
    prior: Array = np.full(QUALITY_BINS, stated)
    prior[0] = 1.0
    tokens_prior = default_output_tokens if agent.expected_output_tokens is None else agent.expected_output_tokens
    if agent.expected_output_tokens is None and agent.agent_type == "embedding":
        tokens_prior = 0.0  # embeddings are not billed by output tokens
    tokens_seen = stats.output_tokens_count
    tokens = (TOKENS_STRENGTH * tokens_prior + stats.output_tokens_sum) / (TOKENS_STRENGTH + tokens_seen)
    latency = _mean(stats.latency_sum_ms, stats.latency_count, agent.avg_latency_ms)
    return AgentEstimate(
        quality=(strength * stated + stats.quality_sum) / (strength + graded),
        meets_bar=(strength * prior + reaching) / (strength + graded),
        latency_ms=math.nan if latency is None else latency,
        output_tokens=tokens,
        graded_answers=graded,
    )


def performance(agent: Agent, stats: AgentStats) -> AgentPerformance:
    """The listing's figures: plain observed means, the stated value until the first observation."""
    return AgentPerformance(
        avg_latency_ms=_mean(stats.latency_sum_ms, stats.latency_count, agent.avg_latency_ms),
        p95_latency_ms=latency_percentile_ms(stats.latency_buckets, 0.95),
        p99_latency_ms=latency_percentile_ms(stats.latency_buckets, 0.99),
        quality_score=_mean(stats.quality_sum, stats.quality_count, agent.quality_score),
        success_rate=stats.successes / stats.total_requests if stats.total_requests else 1.0,
        total_requests=stats.total_requests,
        total_cost_usd=stats.cost_sum_usd,
    )


def _mean(total: float, count: int, stated: float | None) -> float | None:
    return total / count if count else stated
