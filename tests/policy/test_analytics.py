"""Figures of groups, and what a baseline would have come to: closed forms, intervals that hold what they promise."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinydancer.errors import InvalidInputError
from tinydancer.learn import latency_bucket
from tinydancer.policy.analytics import (
    GROUPINGS,
    Baseline,
    Cell,
    TrafficSums,
    added_up,
    grouping_of,
    percentile_ms,
    row_of,
    saved,
    student_t975,
)


def sums_of(
    qualities: np.ndarray | None = None, costs: np.ndarray | None = None, inputs: np.ndarray | None = None,
    outputs: np.ndarray | None = None, **more: float,
) -> TrafficSums:  # fmt: skip
    """Sums over outcomes whose measured values are given; those of one name need not be as many as of another."""
    found: dict[str, float] = {}
    for name, unit, values in (
        ("quality", "", qualities), ("cost", "_usd", costs), ("input", "", inputs), ("output", "", outputs)
    ):  # fmt: skip
        if values is not None:
            found |= {f"{name}_count": len(values), f"{name}_sum{unit}": values.sum(),
                      f"{name}_squares": (values**2).sum()}  # fmt: skip
    return TrafficSums(**{k: int(v) if k.endswith("_count") else float(v) for k, v in (found | more).items()})  # type: ignore[arg-type]


def cell(agent: str, sums: TrafficSums) -> Cell:
    return Cell(0, "", agent, sums)


# -- figures -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-4, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentiles_are_within_three_percent(latencies, share):
    histogram = Counter(math.ceil(latency_bucket(ms) / 3) for ms in latencies)
    found = percentile_ms(histogram, share)
    truth = float(np.quantile(latencies, share, method="inverted_cdf"))
    assert found is not None
    if truth > 0.001:
        assert found == pytest.approx(truth, rel=0.03)
    else:
        assert 0.0 <= found <= 0.001


def test_a_row_has_the_means():
    sums = TrafficSums(
        requests=10, successes=9, quality_count=4, quality_sum=3.0, expected_count=5, expected_sum=4.0, latency_count=2,
        latency_sum_ms=30.0, cost_count=3, cost_sum_usd=0.6, estimated_count=2, estimated_sum_usd=0.4,
    )  # fmt: skip
    row = row_of("a", sums, {155: 2}, None)
    assert (row.group, row.total_requests, row.success_rate, row.avg_latency_ms) == ("a", 10, 0.9, 15.0)
    assert (row.total_cost, row.avg_cost, row.costs_reported, row.costs_estimated) == (1.0, 0.2, 3, 2)
    assert (row.quality, row.judged, row.expected_quality) == (0.75, 4, 0.8)
    assert row.p50_latency_ms == row.p99_latency_ms == percentile_ms({155: 2}, 0.5)


def test_nothing_measured_is_none():
    row = row_of(None, TrafficSums(requests=1), {}, None)
    assert (row.total_cost, row.avg_cost, row.quality, row.expected_quality) == (None, None, None, None)
    assert (row.avg_latency_ms, row.p50_latency_ms, row.success_rate) == (None, None, 0.0)
    assert row_of(None, TrafficSums(), {}, None).success_rate is None


def test_cells_of_one_group_are_one():
    one, two = TrafficSums(requests=1, cost_sum_usd=0.5), TrafficSums(requests=2, cost_sum_usd=0.25)
    found = added_up([Cell(0, "", "a", one), Cell(1, "", "a", one), Cell(0, "", "a", two)])
    assert found == [Cell(0, "", "a", one.plus(two)), Cell(1, "", "a", one)]
    assert one.plus(two) == TrafficSums(requests=3, cost_sum_usd=0.75)


def test_groupings():
    for name in GROUPINGS:
        assert grouping_of(f" {name.upper()} ") == name
    for wrong in ("agents", "", None, 7, ["agent"]):
        with pytest.raises(InvalidInputError, match="expected one of agent, route, tenant, task, day, hour, objective"):
            grouping_of(wrong)


def test_student_t():
    for freedom in (*range(1, 40), 60, 120, 1000, 1e6):
        assert student_t975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)
    assert student_t975(math.inf) == pytest.approx(stats.norm.ppf(0.975), rel=1e-6)


# -- money ---------------------------------------------------------------------------------------------------------


def test_money_is_the_baselines_price_for_their_tokens():
    small = sums_of(costs=np.array([0.1, 0.2, 0.3]), inputs=np.array([10.0, 20.0, 30.0]), outputs=np.array([1.0, 2, 3]))
    own = sums_of(costs=np.array([5.0]), inputs=np.array([7.0]), outputs=np.array([7.0]))
    baseline = Baseline(name="large", seen=own, request_usd=0.5, input_usd=0.01, output_usd=0.1)
    found = saved([cell("small", small), cell("large", own)], baseline)
    elsewhere = 3 * 0.5 + 60 * 0.01 + 6 * 0.1
    assert found.requests == 4
    assert found.baseline_cost == pytest.approx(5.0 + elsewhere)
    assert found.saved == pytest.approx(elsewhere - 0.6)
    assert found.saved_share == pytest.approx((elsewhere - 0.6) / (5.0 + elsewhere))
    assert found.cost_basis == "its price for their tokens"
    assert (found.saved_low, found.saved_high) == (None, None)  # nothing of it was drawn from a sample


def test_the_baselines_own_requests_save_nothing():
    own = sums_of(costs=np.array([1.0, 2.0]), qualities=np.array([0.5, 0.7]))
    found = saved([cell("large", own)], Baseline(name="large", seen=own))
    assert (found.baseline_cost, found.saved, found.saved_share, found.cost_basis) == (3.0, 0.0, 0.0, "observed")
    assert (found.baseline_quality, found.quality_change) == (0.6, 0.0)
    assert found.baseline_quality_low is found.quality_change_high is None


def test_unknown_tokens_are_those_of_the_known():
    inputs = np.array([100.0, 200.0, 300.0])
    small = sums_of(costs=np.full(5, 0.01), inputs=inputs)  # two of five unknown, no output known
    seen = sums_of(outputs=np.array([40.0, 60.0]))
    baseline = Baseline(name="large", seen=seen, request_usd=0.0, input_usd=1e-3, output_usd=1e-2)
    found = saved([cell("small", small)], baseline)
    assert found.baseline_cost == pytest.approx(1e-3 * 5 * 200.0 + 1e-2 * 5 * 50.0)
    assert found.cost_basis == "its price for their tokens; not known: input tokens of 2, output tokens of 5"
    spread = 1e-6 * inputs.var(ddof=1) * (2 + 4 / 3) + 1e-4 * 200.0 * (5 + 25 / 2)
    assert found.saved_low is not None
    assert found.saved_high is not None
    assert found.saved is not None
    half = stats.t.ppf(0.975, 1) * math.sqrt(spread)
    assert found.saved_high - found.saved == pytest.approx(half, rel=1e-6)
    assert found.saved_low == pytest.approx(max(found.saved - half, -0.05))  # nobody is paid for an answer
    unseen = Baseline(
        name="large", seen=TrafficSums(), request_usd=0.0, input_usd=0.0, output_usd=1e-2, output_tokens=30.0
    )
    guessed = saved([cell("small", small)], unseen)
    assert guessed.baseline_cost == pytest.approx(5 * 30.0 * 1e-2)
    assert guessed.saved_low is None


def test_without_a_price_it_is_the_mean_of_the_baselines_costs():
    costs = np.array([1.0, 2.0, 3.0, 6.0])
    own = sums_of(costs=costs)
    found = saved(
        [cell("small", sums_of(costs=np.full(10, 0.1))), cell("large", own)], Baseline(name="large", seen=own)
    )
    assert found.baseline_cost == pytest.approx(12.0 + 30.0)
    half = stats.t.ppf(0.975, 3) * math.sqrt(costs.var(ddof=1) * (10 + 100 / 4))
    assert found.saved_high == pytest.approx(42.0 + half - 13.0)
    assert found.cost_basis == "the mean of its 4 reported costs"


def test_what_nothing_tells_is_none():
    found = saved([cell("small", sums_of(costs=np.array([1.0])))], Baseline(name="large", seen=TrafficSums()))
    assert (found.baseline_cost, found.saved, found.saved_low) == (None, None, None)
    assert found.cost_basis == "neither a price nor a cost of large is known"
    assert saved([], Baseline(name="large", seen=TrafficSums())).cost_basis == "no cost is known"


def test_the_interval_of_money_covers_what_it_promises():
    rng = np.random.default_rng(7)
    for seen, unseen in ((8, 20), (40, 400)):
        covered = 0
        for _ in range(2000):
            costs = rng.gamma(4.0, 0.01, seen + unseen)
            own, others = sums_of(costs=costs[:seen]), sums_of(costs=np.full(unseen, 0.001))
            found = saved([cell("large", own), cell("small", others)], Baseline(name="large", seen=own))
            truth = costs.sum() - costs[:seen].sum() - others.total_usd
            assert found.saved_low is not None
            assert found.saved_high is not None
            covered += found.saved_low <= truth <= found.saved_high
        assert 0.925 <= covered / 2000 <= 0.97


# -- quality -------------------------------------------------------------------------------------------------------


def test_quality_at_the_baseline_is_its_record_for_the_others():
    own, others = sums_of(qualities=np.array([0.8, 1.0])), sums_of(qualities=np.array([0.5, 0.7, 0.6]))
    seen = sums_of(qualities=np.array([0.8, 1.0, 0.9, 0.7]))
    found = saved([cell("large", own), cell("small", others)], Baseline(name="large", seen=seen))
    assert found.baseline_quality == pytest.approx((1.8 + 3 * 0.85) / 5)
    assert found.quality_change == pytest.approx((1.8 + 1.8) / 5 - (1.8 + 3 * 0.85) / 5)
    values = np.array([0.8, 1.0, 0.9, 0.7, 0.0, 0.0, 1.0, 1.0])  # with two perfect and two worthless answers more
    half = stats.t.ppf(0.975, 7) * math.sqrt(values.var(ddof=1) * (3 + 9 / 8))
    low, high = max(0.0, 3 * values.mean() - half), min(3.0, 3 * values.mean() + half)
    assert found.baseline_quality_low == pytest.approx((1.8 + low) / 5, rel=1e-3)
    assert found.baseline_quality_high == pytest.approx((1.8 + high) / 5, rel=1e-3)
    assert found.quality_change_low == pytest.approx((1.8 - high) / 5, rel=1e-3)
    assert found.quality_change_high == pytest.approx((1.8 - low) / 5, rel=1e-3)


def test_without_a_record_quality_is_what_is_expected_and_the_interval_everything():
    others = sums_of(qualities=np.array([0.5, 0.7]))
    found = saved([cell("small", others)], Baseline(name="large", seen=TrafficSums(), quality=0.9))
    assert found.baseline_quality == pytest.approx(0.9)
    assert (found.baseline_quality_low, found.baseline_quality_high) == (0.0, 1.0)
    gone = saved([cell("small", others)], Baseline(name="large", seen=TrafficSums()))
    assert (gone.baseline_quality, gone.quality_change) == (None, None)
    unjudged = saved([cell("small", sums_of(costs=np.array([1.0])))], Baseline(name="large", seen=others, quality=0.5))
    assert unjudged.baseline_quality is None


DRAWS = {
    "right or wrong": lambda rng, n: (rng.random(n) < 0.9).astype(float),
    "nearly always right": lambda rng, n: (rng.random(n) < 0.97).astype(float),
    "graded": lambda rng, n: rng.beta(8.0, 2.0, n),
    "anything": lambda rng, n: rng.random(n),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("seen", "unseen"), [(5, 5), (5, 1000), (25, 10), (25, 1000), (400, 1000)])
def test_the_interval_of_quality_covers_what_it_promises(kind, seen, unseen):
    rng = np.random.default_rng(11)
    covered, runs = 0, 1000
    for _ in range(runs):
        values = DRAWS[kind](rng, seen + unseen)
        own, others = sums_of(qualities=values[:seen]), sums_of(qualities=np.full(unseen, 0.5))
        found = saved([cell("large", own), cell("small", others)], Baseline(name="large", seen=own))
        assert found.baseline_quality_low is not None
        assert found.baseline_quality_high is not None
        assert 0.0 <= found.baseline_quality_low <= found.baseline_quality_high <= 1.0
        covered += found.baseline_quality_low - 1e-12 <= values.mean() <= found.baseline_quality_high + 1e-12
    assert covered / runs >= 0.93  # three standard errors below 95%
