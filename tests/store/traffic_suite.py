"""What every store must do with the traffic. As `suite`: one subclass, one fixture per store.

The truth is a loop over all outcomes in plain Python, which knows nothing of hours, tails and rollups.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tests.store.suite import OpenStore, agent, decision, outcome
from tinydancer.learn import latency_bucket
from tinydancer.policy.analytics import Traffic, TrafficSums
from tinydancer.store.base import DecisionRow, Store
from tinydancer.types import NO_CONTEXT, Outcome, RequestContext

HOUR = 3600.0
NOON = 1_790_000_000.0 // 86_400.0 * 86_400.0 + 12 * HOUR
CONTEXTS = (
    NO_CONTEXT,
    RequestContext(key="team", tags=("one",)),
    RequestContext(task="summary"),
    RequestContext(route_name="support"),
    RequestContext(route_name="sales", task="summary", key="team"),
)
KINDS = (("objective", "agent"), ("objective", "value"), ("objective", "period"), ("route", "value"), ("task", "value"))
Key = tuple[int, str, str]


def assorted_traffic(
    number: int, names: tuple[str, ...], seed: int, *, days: float = 9.0
) -> tuple[list[DecisionRow], list[Outcome]]:
    """Decisions and outcomes of every shape: late ones, other agents' answers, unknown decisions, second reports."""
    rng = random.Random(seed)

    def maybe(value):
        return value if rng.random() < 0.7 else None

    decisions = [
        decision(
            f"d{i}", rng.choice(names), decided_at=NOON - rng.random() * days * 24 * HOUR,
            objective=rng.choice(("cost", "quality", "balanced")), expected_quality=rng.random(),
            estimated_cost_usd=maybe(rng.random() / 7), input_tokens=rng.random() * 500, context=rng.choice(CONTEXTS),
        )
        for i in range(number // 2)
    ]  # fmt: skip
    outcomes = [
        outcome(
            rng.choice(names), occurred_at=NOON - rng.random() * days * 24 * HOUR,
            decision_id=maybe(f"d{rng.randrange(number * 2 // 3)}"), success=rng.random() < 0.9,
            quality=maybe(rng.random()), latency_ms=maybe(rng.lognormvariate(6, 1)), cost_usd=maybe(rng.random() / 9),
            input_tokens=maybe(rng.randrange(1000)), output_tokens=maybe(rng.randrange(1000)),
        )
        for _ in range(number)
    ]  # fmt: skip
    return decisions, outcomes


def recomputed(
    decisions: Sequence[DecisionRow], outcomes: Sequence[Outcome], kind: str, histograms: str, begin: float,
    starts: Sequence[float],
) -> tuple[dict[Key, TrafficSums], dict[str | int, dict[int, int]]]:  # fmt: skip
    """What `Store.traffic` has to say, one outcome after the other."""
    known = {row.decision_id: row for row in decisions}
    sums: dict[Key, dict[str, float]] = {}
    counts: dict[str | int, Counter[int]] = {}
    for o in outcomes:
        if o.occurred_at < begin:
            continue
        made = known.get(o.decision_id or "")
        same = made if made is not None and made.agent_name == o.agent_name else None
        period = bisect_right(list(starts), o.occurred_at // HOUR * HOUR) - 1
        value = ""
        if made is not None and histograms == "value":
            context = {"route": made.context.route_name, "task": made.context.task}
            value = made.objective if kind == "objective" else context[kind] or ""
        estimated = same.estimated_cost_usd if same is not None and o.cost_usd is None else None
        costed = o.cost_usd is not None or estimated is not None
        read = o.input_tokens if o.input_tokens is not None else made.input_tokens if made is not None else None
        row = sums.setdefault((period, value, o.agent_name), dict.fromkeys(TrafficSums._fields, 0.0))
        row["requests"] += 1
        row["successes"] += o.success
        for name, count, total, number in (
            ("quality", "quality_count", "quality_sum", o.quality),
            ("", "expected_count", "expected_sum", same.expected_quality if same is not None else None),
            ("", "latency_count", "latency_sum_ms", o.latency_ms),
            ("cost", "cost_count", "cost_sum_usd", o.cost_usd),
            ("", "estimated_count", "estimated_sum_usd", estimated),
            ("input", "input_count", "input_sum", read if costed else None),
            ("output", "output_count", "output_sum", o.output_tokens if costed else None),
        ):
            if number is not None:
                row[count] += 1
                row[total] += number
                if name:
                    row[f"{name}_squares"] += number**2
        if o.latency_ms is not None:
            headings: dict[str, str | int] = {"agent": o.agent_name, "value": value, "period": period}
            heading = headings[histograms]
            counts.setdefault(heading, Counter())[math.ceil(latency_bucket(o.latency_ms) / 3)] += 1
    return {key: TrafficSums._make(row.values()) for key, row in sums.items()}, {
        key: dict(found) for key, found in counts.items()
    }


def assert_same(found: Traffic, expected: tuple[dict[Key, TrafficSums], dict[str | int, dict[int, int]]]) -> None:
    sums, histograms = expected
    cells = {(cell.period, cell.value, cell.agent): cell.sums for cell in found.cells}
    assert len(cells) == len(found.cells), "a group comes twice"
    assert cells.keys() == sums.keys()
    for key, row in cells.items():
        assert row == pytest.approx(sums[key], rel=1e-9, abs=1e-9), key
    assert {key: dict(histogram) for key, histogram in found.histograms.items()} == histograms
    assert found.outside == 0


class TrafficSuite:
    """Checks of the part of the `Store` protocol that adds up the traffic."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store("default")

    def test_no_traffic(self, store):
        found = store.traffic("objective", "agent", 0.0, [0.0])
        assert (list(found.cells), dict(found.histograms), found.outside) == ([], {}, 0)

    def test_traffic_is_that_of_all_outcomes(self, store):
        names = ("a", "b", "c")
        store.insert_agents([agent(name) for name in names], replace=False)
        decisions, outcomes = assorted_traffic(1200, names, seed=1)
        store.insert_decisions(decisions)
        reported: list[Outcome] = []
        for start in range(0, 1200, 300):
            store.insert_outcomes(outcomes[start : start + 300])
            reported += outcomes[start : start + 300]
            if start == 300:
                store.roll_up()
            for begin in (0.0, NOON - 7 * 24 * HOUR, NOON - 3 * HOUR - 1234.5, NOON - 60.0):
                first = begin // HOUR * HOUR
                days = [first, *(first + (1 + day) * 86_400.0 for day in range(8))] if begin else [0.0]
                for kind, histograms in KINDS:
                    starts = days if histograms == "period" else [first]
                    found = store.traffic(kind, histograms, begin, starts)
                    assert_same(found, recomputed(decisions, reported, kind, histograms, begin, starts))

    def test_rolling_up_changes_nothing(self, store):
        store.insert_agents([agent("a"), agent("b")], replace=False)
        decisions, outcomes = assorted_traffic(400, ("a", "b"), seed=2)
        store.insert_decisions(decisions)
        store.insert_outcomes(outcomes)
        expected = {
            which: recomputed(decisions, outcomes, *which, NOON - 5.5 * HOUR, [NOON - 6 * HOUR]) for which in KINDS
        }
        for _ in range(2):
            for (kind, histograms), truth in expected.items():
                assert_same(store.traffic(kind, histograms, NOON - 5.5 * HOUR, [NOON - 6 * HOUR]), truth)
            store.roll_up()

    def test_late_outcomes_count_when_they_occurred(self, store):
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", occurred_at=NOON, cost_usd=1.0)])
        store.roll_up()
        store.insert_outcomes([outcome("a", occurred_at=NOON - 30 * HOUR, cost_usd=2.0)])
        store.roll_up()
        store.insert_outcomes([outcome("a", occurred_at=NOON - 30 * HOUR + 1, cost_usd=4.0)])
        starts = [NOON - 48 * HOUR, NOON - 24 * HOUR]
        cells = store.traffic("objective", "period", NOON - 48 * HOUR, starts).cells
        assert sorted((c.period, c.sums.requests, c.sums.cost_sum_usd) for c in cells) == [(0, 2, 6.0), (1, 1, 1.0)]

    def test_a_range_begins_to_the_second(self, store):
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", occurred_at=NOON + second) for second in (0.0, 10.0, 20.0)])
        for _ in range(2):
            for begin, expected in ((NOON, 3), (NOON + 0.5, 2), (NOON + 10.0, 2), (NOON + 10.5, 1)):
                (cell,) = store.traffic("objective", "agent", begin, [NOON]).cells
                assert cell.sums.requests == expected
            assert store.traffic("objective", "agent", NOON + 20.5, [NOON]).cells == []
            store.roll_up()

    def test_outcomes_of_removed_agents_stay_under_their_name(self, store):
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", occurred_at=NOON, latency_ms=5.0)])
        store.delete_agent("a")
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", occurred_at=NOON + 1, latency_ms=5.0)])
        found = store.traffic("objective", "agent", NOON, [NOON])
        assert [(cell.agent, cell.sums.requests) for cell in found.cells] == [("a", 2)]
        assert [sum(histogram.values()) for histogram in found.histograms.values()] == [2]


class TrafficTenantSuite:
    """Checks that tenants who share the data do not see each other's traffic."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    def test_tenants_do_not_see_each_others_traffic(self, open_store):
        one, two = open_store("one"), open_store("two")
        for store, cost in ((one, 1.0), (two, 2.0)):
            store.insert_agent(agent("a"))
            store.insert_decisions([decision("d", objective="cost" if cost == 1.0 else "quality")])
            store.insert_outcomes([outcome("a", occurred_at=NOON, decision_id="d", cost_usd=cost, latency_ms=9.0)])
        for _ in range(2):
            for store, objective, cost in ((one, "cost", 1.0), (two, "quality", 2.0)):
                found = store.traffic("objective", "value", NOON, [NOON])
                assert [(c.value, c.sums.cost_sum_usd) for c in found.cells] == [(objective, cost)]
                assert list(found.histograms) == [objective]
            one.roll_up()
