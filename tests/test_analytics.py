"""The traffic through the service: every grouping against a loop over all outcomes; days of a zone; savings."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.suite import agent, decision, outcome
from tests.store.traffic_suite import HOUR, NOON, assorted_traffic
from tinydancer.analytics import Analytics, routing_analytics, row_dict, trend
from tinydancer.errors import InvalidInputError, NotFoundError
from tinydancer.policy.analytics import GROUPINGS
from tinydancer.service import TinyDancer
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import NO_CONTEXT, CostModel, Outcome, RequestContext

NAMES = ("a", "b", "c")


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def dancer() -> Iterator[TinyDancer]:
    with TinyDancer(SqliteStore(":memory:"), clock=Clock()) as made:
        yield made


@pytest.fixture
def busy(dancer: TinyDancer) -> tuple[TinyDancer, list, list]:
    dancer.store.insert_agents([agent(name) for name in NAMES], replace=False)
    decisions, outcomes = assorted_traffic(900, NAMES, seed=3)
    dancer.store.insert_decisions(decisions)
    dancer.store.insert_outcomes(outcomes)
    return dancer, decisions, outcomes


def by_group(found: Analytics) -> dict[str | None, dict[str, Any]]:
    return {row.group: row_dict(row) for row in found.rows}


@pytest.mark.parametrize("group_by", GROUPINGS)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_rows_are_those_of_all_outcomes(busy, group_by, zone):
    dancer, decisions, outcomes = busy
    known = {row.decision_id: row for row in decisions}

    def group_of(o: Outcome) -> str | None:
        made = known.get(o.decision_id or "")
        context = NO_CONTEXT if made is None else made.context
        local = datetime.fromtimestamp(o.occurred_at, ZoneInfo(zone))
        return {
            "agent": o.agent_name, "route": context.route_name, "tenant": "default", "task": context.task,
            "day": local.date().isoformat(), "hour": local.replace(minute=0).isoformat(" ", "minutes"),
            "objective": None if made is None else made.objective,
        }[group_by]  # fmt: skip

    begin = NOON - 7 * 24 * HOUR
    groups: dict[str | None, list[Outcome]] = {}
    for o in outcomes:
        if o.occurred_at >= begin:
            groups.setdefault(group_of(o), []).append(o)
    found = routing_analytics(dancer, "7 days", group_by, time_zone=zone)
    assert (found.begin, found.end, found.group_by, found.note) == (begin, NOON, group_by, "")
    rows = by_group(found)
    assert rows.keys() == groups.keys()
    for group, members in groups.items():
        row = rows[group]
        latencies = [o.latency_ms for o in members if o.latency_ms is not None]
        qualities = [o.quality for o in members if o.quality is not None]
        cost = 0.0
        for o in members:
            made = known.get(o.decision_id or "")
            if o.cost_usd is not None:
                cost += o.cost_usd
            elif made is not None and made.agent_name == o.agent_name:
                cost += made.estimated_cost_usd or 0.0
        assert row["total_requests"] == len(members)
        assert row["total_cost"] == pytest.approx(cost) or (row["total_cost"] is None and cost == 0.0)
        assert row["success_rate"] == pytest.approx(sum(o.success for o in members) / len(members))
        assert row["judged"] == len(qualities)
        assert row["quality"] == (pytest.approx(np.mean(qualities)) if qualities else None)
        if latencies:
            assert row["avg_latency_ms"] == pytest.approx(np.mean(latencies))
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                truth = np.quantile(latencies, share, method="inverted_cdf")
                assert row[f"{name}_latency_ms"] == pytest.approx(truth, rel=0.03)
    assert found.totals.total_requests == sum(len(members) for members in groups.values())
    assert found.totals.total_cost == pytest.approx(sum(row["total_cost"] or 0.0 for row in rows.values()))


def test_rows_come_in_order(busy):
    dancer, _, _ = busy
    for group_by in ("day", "hour"):
        groups = [row.group or "" for row in routing_analytics(dancer, "7 days", group_by).rows]
        assert groups == sorted(groups)
    counts = [row.total_requests for row in routing_analytics(dancer, "7 days", "agent").rows]
    assert counts == sorted(counts, reverse=True)


def test_days_across_a_change_of_the_clocks(dancer):
    zone = ZoneInfo("Europe/Berlin")
    dancer.store.insert_agent(agent("a"))
    moments = [datetime(2026, 3, day, hour, 30, tzinfo=zone) for day in (28, 29, 30) for hour in (0, 1, 3, 23)]
    dancer.store.insert_outcomes([outcome("a", occurred_at=moment.timestamp()) for moment in moments])
    dancer._clock.now = datetime(2026, 3, 30, 23, 45, tzinfo=zone).timestamp()
    found = routing_analytics(dancer, "3 days", "day", time_zone="Europe/Berlin")
    assert [(row.group, row.total_requests) for row in found.rows] == [
        ("2026-03-28", 4), ("2026-03-29", 4), ("2026-03-30", 4),
    ]  # fmt: skip
    in_utc = routing_analytics(dancer, "3 days", "day")
    assert [(row.group, row.total_requests) for row in in_utc.rows] == [
        ("2026-03-27", 1), ("2026-03-28", 4), ("2026-03-29", 5), ("2026-03-30", 2),
    ]  # fmt: skip
    hours = routing_analytics(dancer, "3 days", "hour", time_zone="Europe/Berlin")
    assert "2026-03-29 03:00+02:00" in by_group(hours)


def test_nothing_was_reported(dancer):
    for group_by in GROUPINGS:
        found = routing_analytics(dancer, group_by=group_by)
        assert found.rows == []
        assert found.totals.total_requests == 0
        assert found.totals.total_cost is found.totals.p95_latency_ms is found.totals.success_rate is None
    course = trend(dancer)
    assert (len(course.labels), dict(course.cost_usd), dict(course.requests)) == (8, {}, {})


def test_what_cannot_be_used_is_an_error(busy):
    dancer, _, _ = busy
    with pytest.raises(InvalidInputError, match="Unknown group_by 'week'; expected one of agent, route"):
        routing_analytics(dancer, group_by="week")
    with pytest.raises(InvalidInputError, match="expected an interval"):
        routing_analytics(dancer, "lately")
    with pytest.raises(InvalidInputError, match="ends before it begins"):
        routing_analytics(dancer, "-2 days")
    with pytest.raises(InvalidInputError, match="expected at most 50,000"):
        routing_analytics(dancer, "20 years", "hour")
    with pytest.raises(NotFoundError, match="'d'"):
        routing_analytics(dancer, baseline="d")
    with pytest.raises(NotFoundError) as caught:
        routing_analytics(dancer, baseline="aa")
    assert caught.value.hint == "Did you mean 'a'?"


def test_a_clock_that_was_ahead_does_not_lose_an_outcome(dancer):
    dancer.store.insert_agent(agent("a"))
    dancer.store.insert_outcomes([outcome("a", occurred_at=NOON + 9 * 24 * HOUR, cost_usd=1.0)])
    for group_by in ("agent", "day", "hour"):
        (row,) = routing_analytics(dancer, "1 day", group_by).rows
        assert row.total_cost == 1.0


def test_an_answer_of_another_agent_takes_no_estimate(dancer):
    dancer.store.insert_agents([agent("a"), agent("b")], replace=False)
    dancer.store.insert_decisions([decision("1", "a", estimated_cost_usd=0.5, expected_quality=0.25, decided_at=NOON)])
    dancer.store.insert_outcomes(
        [outcome("a", decision_id="1", occurred_at=NOON), outcome("b", decision_id="1", occurred_at=NOON)]
    )
    rows = by_group(routing_analytics(dancer, "1 hour"))
    assert (rows["a"]["total_cost"], rows["a"]["costs_estimated"], rows["a"]["expected_quality"]) == (0.5, 1, 0.25)
    assert (rows["b"]["total_cost"], rows["b"]["costs_estimated"], rows["b"]["expected_quality"]) == (None, 0, None)
    by_objective = by_group(routing_analytics(dancer, "1 hour", "objective"))
    assert by_objective["balanced"]["total_requests"] == 2


# -- savings -------------------------------------------------------------------------------------------------------


def priced(name: str, input_usd: float, output_usd: float) -> Any:
    return agent(name, cost=CostModel(input_cost_per_token=input_usd, output_cost_per_token=output_usd))


def test_savings_add_up_over_groups(dancer):
    rng = random.Random(4)
    dancer.store.insert_agents([priced("small", 1e-6, 4e-6), priced("large", 1e-5, 5e-5)], replace=False)
    contexts = (RequestContext(task="one"), RequestContext(task="two", route_name="r"))
    dancer.store.insert_decisions(
        [decision(f"{i}", "small", context=contexts[i % 2], decided_at=NOON) for i in range(100)]
    )
    outcomes = [
        outcome(
            rng.choice(("small", "large")), decision_id=f"{i}", occurred_at=NOON - i * HOUR, quality=rng.random(),
            cost_usd=rng.random() / 100, input_tokens=rng.randrange(2000), output_tokens=rng.randrange(900),
        )
        for i in range(100)
    ]  # fmt: skip
    dancer.store.insert_outcomes(outcomes)
    truth = sum(
        o.cost_usd or 0.0 if o.agent_name == "large" else 1e-5 * (o.input_tokens or 0) + 5e-5 * (o.output_tokens or 0)
        for o in outcomes
    )
    paid = sum(o.cost_usd or 0.0 for o in outcomes)
    for group_by in GROUPINGS:
        found = routing_analytics(dancer, "10 days", group_by, "large")
        assert found.totals.savings is not None
        assert found.totals.savings.baseline_cost == pytest.approx(truth)
        assert found.totals.savings.saved == pytest.approx(truth - paid)
        parts = [row.savings.saved for row in found.rows if row.savings is not None]
        assert sum(part for part in parts if part is not None) == pytest.approx(truth - paid)
    rows = by_group(routing_analytics(dancer, "10 days", baseline="large"))
    assert rows["large"]["saved"] == 0.0
    own = [o.quality for o in outcomes if o.agent_name == "large"]
    assert rows["small"]["baseline_quality"] == pytest.approx(np.mean([q for q in own if q is not None]))
    assert rows["small"]["baseline_quality_low"] < rows["small"]["baseline_quality"]


def test_a_baseline_that_never_answered_is_known_by_what_it_states(dancer):
    dancer.store.insert_agents(
        [priced("small", 1e-6, 4e-6), agent("new", quality_score=0.8, expected_output_tokens=50.0)], replace=False
    )
    dancer.store.insert_outcomes(
        [outcome("small", occurred_at=NOON, cost_usd=0.001, input_tokens=100, quality=0.5)] * 4
    )
    savings = routing_analytics(dancer, "1 hour", baseline="new").totals.savings
    assert savings is not None
    assert savings.baseline_cost == pytest.approx(4 * (100 * 3e-6 + 50 * 1.5e-5))
    assert savings.saved_low is None
    assert savings.baseline_quality == pytest.approx(0.8)
    assert (savings.baseline_quality_low, savings.baseline_quality_high) == (0.0, 1.0)


def test_a_removed_baseline_is_known_by_its_record(dancer):
    dancer.store.insert_agents([priced("small", 1e-6, 4e-6), agent("old")], replace=False)
    dancer.store.insert_outcomes([outcome("old", occurred_at=NOON - i, cost_usd=0.25, quality=0.5) for i in range(6)])
    dancer.store.insert_outcomes([outcome("small", occurred_at=NOON, cost_usd=0.01, quality=1.0)] * 2)
    dancer.store.delete_agent("old")
    savings = routing_analytics(dancer, "1 hour", baseline="old").totals.savings
    assert savings is not None
    assert savings.baseline_cost == pytest.approx(8 * 0.25)
    assert savings.baseline_quality == pytest.approx(0.5)
    assert savings.quality_change == pytest.approx(0.625 - 0.5)


# -- anything --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.floats(0.0, 20 * 86_400.0), st.none() | st.floats(0.0, 1e6),
            st.none() | st.floats(0.0, 1e8), st.none() | st.floats(0.0, 1.0), st.booleans(),
        ),
        max_size=30,
    ),
    st.sampled_from(GROUPINGS), st.floats(1.0, 1e6),
)  # fmt: skip
def test_groups_share_out_the_totals(given_outcomes, group_by, seconds):
    with TinyDancer(SqliteStore(":memory:"), clock=Clock()) as dancer:
        dancer.store.insert_agents([agent(name) for name in NAMES], replace=False)
        outcomes = [
            outcome(name, occurred_at=NOON - ago, cost_usd=cost, latency_ms=ms, quality=quality, success=success)
            for name, ago, cost, ms, quality, success in given_outcomes
        ]
        dancer.store.insert_outcomes(outcomes)
        found = routing_analytics(dancer, f"{seconds:.6f} seconds", group_by, "a", time_zone="Asia/Kathmandu")
        within = [o for o in outcomes if o.occurred_at >= found.begin]
        assert found.totals.total_requests == len(within)
        assert sum(row.total_requests for row in found.rows) == len(within)
        assert math.fsum(row.total_cost or 0.0 for row in found.rows) == pytest.approx(
            math.fsum(o.cost_usd or 0.0 for o in within)
        )
        assert found.totals.judged == sum(o.quality is not None for o in within)
        for row in (*found.rows, found.totals):
            if row.savings is not None and row.savings.baseline_quality_low is not None:
                assert row.savings.baseline_quality_high is not None
                assert 0.0 <= row.savings.baseline_quality_low <= row.savings.baseline_quality_high <= 1.0 + 1e-12
        course = trend(dancer, f"{seconds:.6f} seconds")
        assert sum(map(sum, course.requests.values())) == len(within)


def test_the_trend_has_every_period(busy):
    dancer, _, outcomes = busy
    days = trend(dancer, "7 days")
    assert not days.is_hourly
    assert len(days.labels) == 8
    within = [o for o in outcomes if o.occurred_at >= NOON - 7 * 24 * HOUR]
    assert {name: sum(counts) for name, counts in days.requests.items()} == {
        name: sum(o.agent_name == name for o in within) for name in NAMES
    }
    costs = [sum(values) for values in days.cost_usd.values()]
    assert costs == sorted(costs, reverse=True)
    hours = trend(dancer, "10 hours")
    assert hours.is_hourly
    assert len(hours.labels) == 11


def test_json(busy):
    dancer, _, _ = busy
    told = routing_analytics(dancer, "7 days", "day", "a").to_dict()
    assert list(told) == ["group_by", "baseline", "time_zone", "begin", "end", "note", "rows", "totals"]
    assert list(told["rows"][0])[:5] == ["agent", "total_requests", "total_cost", "avg_latency_ms", "success_rate"]
    assert told["rows"][0].keys() == told["totals"].keys()
    assert told["totals"]["agent"] is None
