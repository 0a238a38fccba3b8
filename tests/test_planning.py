"""Batches under one account and a month's budget, through the service: real embedder and store, recorded decisions."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinydancer import planning
from tinydancer.config import Settings
from tinydancer.embedding.base import Embedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import (
    InvalidInputError,
    NoAgentsError,
    NoMatchError,
    NotFoundError,
    RoutingError,
    UnknownKeyError,
)
from tinydancer.planning import TOTAL_COST, optimize_budget
from tinydancer.service import TinyDancer

assign_batch: Any = planning.assign_batch
REQUESTS = [
    "Say hello to the new colleague.", "Analyze this contract for hidden obligations.", "What is the time in Oslo?",
    "Write a function that merges two sorted lists.", "Prove that the sum of two odd numbers is even.",
    "Translate this menu into Spanish.",
]  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return StaticEmbedder()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dancer(embedder: Embedder, clock: Clock) -> Iterator[TinyDancer]:
    with TinyDancer(embedder=embedder, clock=clock, seed=1) as service:
        service.register_agent("large", "llm", ["reasoning", "analysis", "code"], 0.03, 2500.0, 0.95)
        service.register_agent("middle", "llm", ["code", "translation"], 0.004, 900.0, 0.88)
        service.register_agent("small", "llm", ["chat", "simple tasks"], 0.0005, 400.0, 0.75)
        yield service


def spent(plan: Any) -> float:
    return float(sum(d.estimated_cost for d in plan.decisions))


def mean(plan: Any) -> float:
    return float(np.mean([d.expected_quality for d in plan.decisions]))


# -- batches -------------------------------------------------------------------------------------------------------


def test_a_batch_costs_no_more_than_its_requests_one_by_one(dancer):
    plan = assign_batch(dancer, REQUESTS)
    alone = dancer.route_batch(REQUESTS, "cost")
    best = dancer.route_batch(REQUESTS, "quality")
    assert plan.cost_usd == pytest.approx(spent(plan))
    assert plan.mean_quality == pytest.approx(mean(plan))
    assert plan.floor == pytest.approx(0.7 * np.mean([d.expected_quality for d in best]))
    assert plan.mean_quality >= plan.floor
    assert plan.cost_usd <= sum(d.estimated_cost for d in alone) + 1e-12
    assert plan.gap == 0.0
    assert sum(plan.requests_per_agent.values()) == len(REQUESTS)
    json.dumps(plan.to_dict(), allow_nan=False)


def test_a_floor_on_the_mean_lets_requests_help_each_other(dancer):
    plan = assign_batch(dancer, REQUESTS, min_mean_quality=0.85)
    each = dancer.route_batch(REQUESTS, "cost", min_quality=0.85, good_enough=0.0)
    assert mean(plan) >= 0.85
    assert spent(plan) < sum(d.estimated_cost for d in each)
    assert len(plan.requests_per_agent) > 1


def test_a_budget_for_all_of_them_together(dancer):
    plan = assign_batch(dancer, REQUESTS, budget_remaining=0.05)
    assert plan.budget_usd == 0.05
    assert plan.floor is None
    assert spent(plan) <= 0.05 * (1 + 1e-9)
    assert plan.requests_per_agent["large"] == 1  # two would cost more than all
    more = assign_batch(dancer, REQUESTS, budget_remaining=0.2)
    assert mean(more) > mean(plan)
    assert more.requests_per_agent.get("large", 0) == 6 or spent(more) <= 0.2


def test_a_floor_and_a_budget(dancer):
    plan = assign_batch(dancer, REQUESTS, min_mean_quality=0.85, budget_remaining=0.1)
    assert mean(plan) >= 0.85
    assert spent(plan) <= 0.1
    with pytest.raises(RoutingError, match="budget_remaining is") as caught:
        assign_batch(dancer, REQUESTS, min_mean_quality=0.9, budget_remaining=0.01)
    floor = re.search(r"floor to ([0-9.]+)\.", caught.value.hint)
    money = re.search(r"budget to \$([0-9.]+),", caught.value.hint)
    assert floor
    assert money
    assign_batch(dancer, REQUESTS, min_mean_quality=float(floor[1]), budget_remaining=0.01)
    assign_batch(dancer, REQUESTS, min_mean_quality=0.9, budget_remaining=float(money[1]))


def test_agents_take_no_more_than_they_may(dancer):
    plan = assign_batch(dancer, REQUESTS, capacities={"small": 2, "middle": 3})
    assert plan.requests_per_agent == {"large": 1, "middle": 3, "small": 2}
    with pytest.raises(RoutingError, match="leave 1 request of 6"):
        assign_batch(dancer, REQUESTS, capacities={"small": 2, "middle": 3, "large": 0})
    with pytest.raises(NotFoundError, match="smal"):
        assign_batch(dancer, REQUESTS, capacities={"smal": 2})
    with pytest.raises(InvalidInputError, match="capacity of small"):
        assign_batch(dancer, REQUESTS, capacities={"small": -1})
    wrong: Any = [2, 3]
    with pytest.raises(InvalidInputError, match="capacities are"):
        assign_batch(dancer, REQUESTS, capacities=wrong)


def test_constraints_hold_for_each_request(dancer):
    plan = assign_batch(dancer, REQUESTS, required_capabilities=["code"], max_cost=0.01)
    assert plan.requests_per_agent == {"middle": 6}
    with pytest.raises(NoMatchError) as caught:
        assign_batch(dancer, REQUESTS, required_capabilities=["poetry"])
    assert set(caught.value.exclusions) == {"large", "middle", "small"}
    nobody = assign_batch(dancer, REQUESTS, required_capabilities=["poetry"], on_no_match="null")
    assert nobody.decisions == [None] * 6
    assert nobody.mean_quality is None
    json.dumps(nobody.to_dict(), allow_nan=False)


def test_its_decisions_are_recorded_and_take_feedback(dancer):
    plan = assign_batch(dancer, REQUESTS[:2])
    rows = {row.decision_id: row for row in dancer.list_decisions()}
    assert {d.decision_id for d in plan.decisions if d is not None} == set(rows)
    for decision in plan.decisions:
        assert decision is not None
        row = rows[decision.decision_id or ""]
        assert (row.agent_name, row.objective) == (decision.agent_name, TOTAL_COST)
        assert row.expected_quality == pytest.approx(decision.expected_quality)
        assert row.estimated_cost_usd == pytest.approx(decision.estimated_cost)
    outcome = dancer.feedback(plan.decisions[0], quality=0.9)
    assert outcome.agent_name == plan.decisions[0].agent_name
    assert assign_batch(dancer, REQUESTS).decisions[0].decision_id is not None


def test_a_decision_says_why(dancer):
    plan = assign_batch(dancer, REQUESTS, min_mean_quality=0.85)
    for decision in plan.decisions:
        fields = decision.to_dict()
        assert fields["objective"] == TOTAL_COST
        assert f"6 requests for ${plan.cost_usd:.3f}"[:18] in fields["reasoning"]
        assert "floor 0.85" in fields["reasoning"]
        assert {a["agent_name"] for a in fields["alternatives"]} == {"large", "middle", "small"} - {decision.agent_name}
        assert " against " in fields["alternatives"][0]["reason"]
        json.dumps(fields, allow_nan=False)


def test_the_same_batch_gives_the_same_plan_by_texts_and_by_vectors(dancer, embedder):
    one, again = (
        assign_batch(dancer, REQUESTS, min_mean_quality=0.8),
        assign_batch(dancer, REQUESTS, min_mean_quality=0.8),
    )
    vectors = embedder.embed(REQUESTS).vectors
    by_vectors = assign_batch(dancer, REQUESTS, embeddings=vectors, min_mean_quality=0.8)
    names = [d.agent_name for d in one.decisions]
    assert names == [d.agent_name for d in again.decisions] == [d.agent_name for d in by_vectors.decisions]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"requests": []}, InvalidInputError, "The batch is empty"),
        ({"min_mean_quality": 1.5}, InvalidInputError, "min_mean_quality"),
        ({"budget_remaining": -1.0}, InvalidInputError, "budget_remaining"),
        ({"budget": 1.0}, UnknownKeyError, "'budget'"),
        ({"budget_remaining": 1e-5}, RoutingError, "does not pay for 6 requests"),
        ({"min_mean_quality": 0.99}, RoutingError, "the most is"),
        ({"requests": ["fine", " "]}, InvalidInputError, "Request number 2"),
    ],
)
def test_what_no_batch_can_be(dancer, given, error, message):
    with pytest.raises(error, match=message):
        assign_batch(dancer, **{"requests": REQUESTS, **given})
    assert dancer.list_decisions() == []


def test_an_agent_of_unknown_price_is_never_in_the_account(dancer):
    dancer.register_agent("mystery", "llm", ["reasoning"], None, 10.0, 1.0)
    assert "mystery" not in assign_batch(dancer, REQUESTS, min_mean_quality=0.9).requests_per_agent
    with pytest.raises(RoutingError, match="6 of 6 requests"):
        assign_batch(dancer, REQUESTS, max_latency_ms=50.0)


# -- budgets -------------------------------------------------------------------------------------------------------


def test_a_budget_without_traffic_says_so(dancer):
    plan = optimize_budget(dancer, 100.0, 0.8, 2000.0)
    assert plan.allocations == pytest.approx({"middle": 100.0})
    assert plan.shares == {"middle": 1.0}
    assert plan.requests_per_month == pytest.approx(25_000.0)
    assert plan.excluded == {"large": "takes about 2.5 s; latency_threshold_ms is 2000"}
    assert "No traffic is recorded" in plan.assumption
    assert plan.meets_threshold
    fields = plan.to_dict()
    assert (fields["total_budget"], fields["period_days"], fields["observed_decisions"]) == (100.0, 30, 0)
    json.dumps(fields, allow_nan=False)


def test_a_budget_without_traffic_and_without_anybody_good_enough(dancer):
    plan = optimize_budget(dancer, 100.0, 0.99)
    assert set(plan.shares) == {"large", "middle", "small"}
    assert not plan.meets_threshold
    assert "The threshold 0.99 is not met" in plan.assumption


def test_a_budget_follows_the_traffic(dancer, clock):
    for _ in range(10):
        dancer.route_batch(REQUESTS, "cost")
        clock.now += 86_400.0
    clock.now -= 86_400.0
    plan = optimize_budget(dancer, 0.5, 0.8)
    assert plan.observed_decisions == 60
    assert plan.observed_days == pytest.approx(9.0)
    assert plan.requests_per_month == pytest.approx(200.0)
    assert plan.by_objective == {"cost": 60}
    assert sum(plan.by_agent.values()) == 60
    assert sum(plan.shares.values()) == pytest.approx(1.0)
    assert sum(plan.allocations.values()) == pytest.approx(0.5, rel=0.01)  # there is more to buy than it pays for
    shares = plan.shares
    expected = 0.95 * shares.get("large", 0) + 0.88 * shares.get("middle", 0) + 0.75 * shares.get("small", 0)
    assert plan.expected_quality == pytest.approx(expected)
    rich = optimize_budget(dancer, 50.0, 0.8)
    assert rich.shares == {"large": 1.0}
    assert sum(rich.allocations.values()) == pytest.approx(6.0)  # 200 requests of 0.03
    assert rich.cheapest_budget is not None
    enough = optimize_budget(dancer, rich.cheapest_budget * 1.01, 0.8)
    short = optimize_budget(dancer, rich.cheapest_budget * 0.95, 0.8)
    assert enough.meets_threshold
    assert not short.meets_threshold
    assert "a month would reach it" in short.assumption


def test_a_budget_that_does_not_pay_for_the_traffic_names_one_that_does(dancer):
    dancer.route_batch(REQUESTS, "cost")
    with pytest.raises(RoutingError, match="does not pay for") as caught:
        optimize_budget(dancer, 0.01)
    money = re.search(r"\$([0-9.]+),", caught.value.hint)
    assert money
    optimize_budget(dancer, float(money[1]))


def test_recorded_requests_are_served_by_who_may_serve_them(dancer):
    dancer.route_batch(REQUESTS, "cost", required_capabilities=["reasoning"])
    plan = optimize_budget(dancer, 100.0)
    assert plan.shares == {"large": 1.0}
    with pytest.raises(RoutingError, match="does not pay"):
        optimize_budget(dancer, 1.0)
    dancer.route_batch(REQUESTS, "cost", required_capabilities=["chat"])
    fast = optimize_budget(dancer, 100.0, 0.7, 1000.0)
    assert fast.shares == {"small": 1.0}
    assert "6 recorded requests that none of these agents may serve are left out" in fast.assumption


def test_recorded_features_tell_which_requests_an_agent_is_good_at(embedder, clock):
    settings = dataclasses.replace(Settings(), record_features=True)
    with TinyDancer(embedder=embedder, clock=clock, seed=1, settings=settings) as dancer:
        dancer.register_agent("coder", "llm", ["write code", "programming in Python"], 0.001, 100.0, 0.8)
        dancer.register_agent("translator", "llm", ["translation into Spanish and French"], 0.001, 100.0, 0.8)
        code, letters = ["Write a Python function that sorts."] * 20, ["Translate this letter into Spanish."] * 10
        dancer.route_batch(code + letters, "quality")
        plan = optimize_budget(dancer, 100.0, 0.75)
    assert plan.shares == pytest.approx({"coder": 2 / 3, "translator": 1 / 3}, abs=0.01)
    assert plan.expected_quality == pytest.approx(0.8, abs=0.01)


def test_a_rate_may_be_given_instead(dancer):
    plan = optimize_budget(dancer, 100.0, 0.9, requests_per_month=10_000)
    assert plan.requests_per_month == 10_000
    assert plan.expected_quality > 0.8
    assert "usual ones" in plan.assumption
    assert sum(plan.allocations.values()) <= 100.0 * (1 + 1e-9)
    dancer.route_batch(REQUESTS)
    assert optimize_budget(dancer, 1000.0, requests_per_month=500).requests_per_month == 500


def test_one_busy_minute_is_no_month(dancer, clock, monkeypatch):
    """Where only the latest are looked at, and they came at once, a day is taken to bring what was ever recorded."""
    monkeypatch.setattr(planning, "SAMPLE", 4)
    dancer.route_batch(REQUESTS)
    plan = optimize_budget(dancer, 100.0)
    assert plan.observed_decisions == 4
    assert plan.requests_per_month == pytest.approx(6 * 30)
    for _ in range(3):  # two hours between each two: the latest four tell the rate
        clock.now += 7200.0
        dancer.route_batch(REQUESTS[:2])
    assert optimize_budget(dancer, 100.0).requests_per_month == pytest.approx(12 * 30)


def test_a_clock_that_was_set_back_is_no_trouble(dancer, clock):
    dancer.route_batch(REQUESTS)
    clock.now -= 1e6
    plan = optimize_budget(dancer, 100.0)
    assert plan.observed_days == 1.0
    clock.now += 1e8  # and what was recorded years ago is no traffic any more
    assert optimize_budget(dancer, 100.0).observed_decisions == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "monthly_budget is 0"), ((-5.0,), "monthly_budget"), ((float("nan"),), "monthly_budget"),
        ((100.0, 1.2), "quality_threshold"), ((100.0, 0.8, -1.0), "latency_threshold_ms"),
    ],
)  # fmt: skip
def test_budgets_that_cannot_be(dancer, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        optimize_budget(dancer, *arguments)


def test_a_budget_for_nobody(dancer, embedder):
    with pytest.raises(NoMatchError) as caught:
        optimize_budget(dancer, 100.0, 0.8, 10.0)
    assert caught.value.exclusions["small"] == "takes about 400 ms; latency_threshold_ms is 10"
    with TinyDancer(embedder=embedder) as empty, pytest.raises(NoAgentsError):
        optimize_budget(empty, 100.0)
