"""The arithmetic of the demonstration, by hand-computed examples."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer import demo as sums
from tinydancer.demo import Choice


def choice(agent: str, cost_usd: float, latency_ms: float = 100.0, quality: float = 0.5) -> Choice:
    return Choice(agent=agent, cost_usd=cost_usd, latency_ms=latency_ms, quality=quality)


def test_totals_are_sums_and_means() -> None:
    way = sums.totals(
        "cost",
        [choice("b", 0.1, 100.0, 0.5), choice("a", 0.2, 300.0, 0.7), choice("b", 0.3, 800.0, 0.9)],
        [None, 200.0, 800.0],
    )
    assert way.cost_usd == pytest.approx(0.6)
    assert way.mean_quality == pytest.approx(0.7)
    assert way.mean_latency_ms == pytest.approx(400.0)
    assert way.requests == 3
    assert list(way.agents.items()) == [("b", 2), ("a", 1)]
    assert way.late == 1  # 300 ms over a limit of 200; 800 ms at a limit of 800 is in time


def test_agents_with_as_many_requests_come_in_order_of_name() -> None:
    way = sums.totals("cost", [choice("z", 1.0), choice("a", 1.0)], [None, None])
    assert list(way.agents) == ["a", "z"]


def test_saving_is_per_thousand_requests_and_a_share_of_the_baseline() -> None:
    baseline = sums.totals("best", [choice("best", 0.04)] * 4, [None] * 4)
    way = sums.compared(sums.totals("cost", [choice("small", 0.01)] * 4, [None] * 4), baseline)
    assert way.saved_usd_per_1000 == pytest.approx(30.0)  # 0.12 USD over 4 requests
    assert way.saved_share == pytest.approx(0.75)


def test_what_costs_more_saves_a_negative_amount() -> None:
    baseline = sums.totals("best", [choice("best", 0.02)], [None])
    way = sums.compared(sums.totals("quality", [choice("person", 0.05)], [None]), baseline)
    assert way.saved_usd_per_1000 == pytest.approx(-30.0)
    assert way.saved_share == pytest.approx(-1.5)


def test_a_free_baseline_leaves_no_share_to_save() -> None:
    free = sums.totals("best", [choice("best", 0.0)], [None])
    assert sums.compared(free, free).saved_share == 0.0


def test_different_requests_are_not_compared() -> None:
    one = sums.totals("a", [choice("a", 1.0)], [None])
    two = sums.totals("b", [choice("b", 1.0)] * 2, [None] * 2)
    with pytest.raises(ValueError, match="2 requests against 1"):
        sums.compared(two, one)


def test_nothing_adds_up_to_nothing() -> None:
    with pytest.raises(ValueError, match="No choices"):
        sums.totals("cost", [], [])
    with pytest.raises(ValueError, match="shorter"):
        sums.totals("cost", [choice("a", 1.0)], [])


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=30), st.floats(0.01, 100.0))
def test_saving_plus_cost_is_the_baseline(costs: list[float], price: float) -> None:
    baseline = sums.totals("best", [choice("best", price)] * len(costs), [None] * len(costs))
    way = sums.compared(sums.totals("x", [choice("x", c) for c in costs], [None] * len(costs)), baseline)
    restored = way.cost_usd + way.saved_usd_per_1000 * len(costs) / 1000.0
    assert math.isclose(restored, baseline.cost_usd, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(way.cost_usd, (1.0 - way.saved_share) * baseline.cost_usd, rel_tol=1e-9, abs_tol=1e-9)


def test_the_best_agent_is_the_language_model_with_the_highest_stated_quality() -> None:
    configs: list[dict[str, Any]] = [
        {"name": "person", "agent_type": "human", "quality_score": 0.99},
        {"name": "b", "agent_type": "llm", "quality_score": 0.9},
        {"name": "a", "agent_type": "multimodal", "quality_score": 0.9},
        {"name": "c", "agent_type": "llm"},
    ]
    assert sums.best_agent(configs) == "a"


def test_thirds_are_by_the_quality_expected_of_all_language_models() -> None:
    configs = [{"name": n, "agent_type": kind} for n, kind in (("a", "llm"), ("b", "llm"), ("tool", "tool"))]
    # The mean over a and b is 0.1 (i + 1); the tool's own quality says nothing of how hard a request is.
    options = [
        {
            "a": choice("a", 1.0, quality=0.1 * i),
            "b": choice("b", 2.0, quality=0.1 * (i + 2)),
            "tool": choice("tool", 0.0, quality=1.0 - 0.1 * i),
        }
        for i in range(6)
    ]
    options.append({"a": choice("a", 1.0, quality=0.0)})  # b lacks the skills
    requests = [
        sums.DemoRequest(number=i, category="x", text="x", constraints={"max_latency_ms": 50.0}) for i in range(7)
    ]
    order = [5, 0, 4, 1, 3, 2]
    decided = [
        {"agent_name": "a", "estimated_cost": 0.25 * (i + 1), "estimated_latency_ms": 100.0, "expected_quality": 0.5}
        for i in range(7)
    ]
    parts = sums.by_difficulty(configs, requests, [*order, 6], decided, options, "b")
    assert [part.way.label for part in parts] == list(sums.PARTS)
    assert [part.expected_quality for part in parts] == pytest.approx([0.15, 0.35, 0.55])
    assert [part.way.requests for part in parts] == [2, 2, 2]
    assert [part.way.cost_usd for part in parts] == pytest.approx([0.75, 1.75, 2.75])
    assert [part.way.saved_share for part in parts] == pytest.approx([1 - 0.75 / 4, 1 - 1.75 / 4, 1 - 2.75 / 4])
    assert parts[0].way.late == 2


def test_requests_count_where_the_agent_has_the_skills() -> None:
    options = [{"a": choice("a", 1.0)}, {"b": choice("b", 1.0)}, {"a": choice("a", 1.0), "b": choice("b", 1.0)}]
    assert sums.covered(options, "a") == (0, 2)


def test_an_unknown_cost_is_not_a_free_one() -> None:
    fields = {"agent_name": "a", "estimated_cost": None, "estimated_latency_ms": 5.0, "expected_quality": 0.5}
    assert math.isnan(sums.choice_of(fields).cost_usd)


def test_a_request_is_shortened_to_one_line() -> None:
    request = sums.DemoRequest(number=1, category="x", text="one\n two  three four", constraints={})
    assert request.shortened(40) == "one two three four"
    assert request.shortened(9) == "one two…"
    assert all(len(request.shortened(width)) <= width for width in range(2, 30))
