"""Statistics that add up in any grouping, and what is concluded from them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.learn import (
    NO_STATS,
    AgentStats,
    bucket_latency_ms,
    estimate,
    latency_bucket,
    latency_percentile_ms,
    performance,
    quality_bin,
    stats_of,
)
from tinydancer.types import Agent, Outcome

outcomes = st.builds(
    Outcome,
    agent_name=st.sampled_from(["a", "b"]),
    occurred_at=st.just(0.0),
    success=st.booleans(),
    quality=st.one_of(st.none(), st.integers(0, 20).map(lambda k: k / 20)),
    latency_ms=st.one_of(st.none(), st.integers(0, 10**6).map(float)),
    cost_usd=st.one_of(st.none(), st.integers(0, 100).map(lambda c: c / 64)),
    output_tokens=st.one_of(st.none(), st.integers(0, 5000)),
)


@given(st.lists(outcomes, max_size=30), st.integers(0, 30))
def test_statistics_add_up_however_outcomes_are_grouped(given_outcomes: list[Outcome], cut: int) -> None:
    whole = stats_of(given_outcomes)
    parts = stats_of(given_outcomes[:cut]), stats_of(given_outcomes[cut:])
    for name in {o.agent_name for o in given_outcomes}:
        # Halves and twentieths sum to the last bit but one in another order.
        merged = parts[0].get(name, NO_STATS) + parts[1].get(name, NO_STATS)
        assert merged.quality_sum == pytest.approx(whole[name].quality_sum)
        assert AgentStats(**{**{f: getattr(merged, f) for f in merged.__slots__}, "quality_sum": 0.0}) == AgentStats(
            **{**{f: getattr(whole[name], f) for f in merged.__slots__}, "quality_sum": 0.0}
        )


@given(st.floats(0.002, 1e9))
def test_a_bucket_names_every_latency_in_it_to_one_percent(latency_ms: float) -> None:
    assert bucket_latency_ms(latency_bucket(latency_ms)) == pytest.approx(latency_ms, rel=0.0100001)


def test_the_smallest_bucket_is_zero() -> None:
    assert (latency_bucket(0.0), bucket_latency_ms(0)) == (0, 0.0)


def test_percentiles_agree_with_the_sorted_sample_to_one_percent() -> None:
    sample = np.exp(np.random.default_rng(3).normal(6.0, 1.0, 5000))
    stats = stats_of(Outcome(agent_name="a", occurred_at=0.0, latency_ms=float(ms)) for ms in sample)["a"]
    seen = performance(Agent(name="a"), stats)
    for share, value in ((0.95, seen.p95_latency_ms), (0.99, seen.p99_latency_ms)):
        assert value == pytest.approx(np.sort(sample)[math.ceil(share * 5000) - 1], rel=0.0101)
    assert latency_percentile_ms({}, 0.5) is None


@pytest.mark.parametrize(("quality", "expected"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.3, 6), (0.999, 19), (1.0, 20)])
def test_quality_bins(quality: float, expected: int) -> None:
    assert quality_bin(quality) == expected


def test_the_posterior_mean_weighs_stated_and_observed() -> None:
    agent = Agent(name="a", quality_score=0.9)
    stats = stats_of([Outcome(agent_name="a", occurred_at=0.0, quality=q) for q in (1.0, 0.5, 0.0)])["a"]
    assert estimate(agent, stats, default_output_tokens=300).quality == pytest.approx((10 * 0.9 + 1.5) / 13)


def test_a_failure_nobody_judged_counts_as_a_bad_answer_but_not_in_the_listing() -> None:
    agent = Agent(name="a", quality_score=0.8)
    stats = stats_of([Outcome(agent_name="a", occurred_at=0.0, success=False)])["a"]
    expected = estimate(agent, stats, default_output_tokens=300)
    assert expected.quality == pytest.approx(8 / 11)
    assert expected.meets_bar[0] == 1.0
    assert expected.meets_bar[1:] == pytest.approx(8 / 11)
    listed = performance(agent, stats)
    assert (listed.quality_score, listed.success_rate, listed.total_requests) == (0.8, 0.0, 1)


def test_confidence_is_calibrated_on_answers_it_has_not_seen() -> None:
    """With n answers observed, the predicted share above a bar is the true one to within binomial error."""
    rng = random.Random(11)
    agent = Agent(name="a", quality_score=0.9)  # stated too well
    answers = [min(1.0, max(0.0, rng.betavariate(5, 3))) for _ in range(4000)]
    stats = stats_of(Outcome(agent_name="a", occurred_at=0.0, quality=q) for q in answers[:2000])["a"]
    predicted = estimate(agent, stats, default_output_tokens=300).meets_bar
    for step in (6, 10, 14):
        share = sum(q >= step / 20 for q in answers[2000:]) / 2000
        # Two samples of 2,000 differ by less than 4 standard errors; ten stated answers move it by 0.005 at most.
        assert predicted[step] == pytest.approx(share, abs=4 * math.sqrt(0.5 / 2000) + 0.005)


def test_output_tokens_are_learned() -> None:
    agent = Agent(name="a")
    assert estimate(agent, NO_STATS, default_output_tokens=300).output_tokens == 300
    stats = stats_of([Outcome(agent_name="a", occurred_at=0.0, output_tokens=100) for _ in range(95)])["a"]
    assert estimate(agent, stats, default_output_tokens=300).output_tokens == pytest.approx((5 * 300 + 9500) / 100)
    told = Agent(name="a", expected_output_tokens=40)
    assert estimate(told, NO_STATS, default_output_tokens=300).output_tokens == 40
    assert estimate(Agent(name="e", agent_type="embedding"), NO_STATS, default_output_tokens=300).output_tokens == 0


def test_unknown_stays_unknown() -> None:
    expected = estimate(Agent(name="a"), NO_STATS, default_output_tokens=300)
    assert math.isnan(expected.latency_ms)
    assert expected.quality == 0.5
    listed = performance(Agent(name="a"), NO_STATS)
    assert (listed.avg_latency_ms, listed.p95_latency_ms, listed.quality_score) == (None, None, None)
    assert listed.success_rate == 1.0
