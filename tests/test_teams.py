"""Several agents for one request, through the service: real embedder, real store, recorded decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinydancer import planning
from tinydancer.embedding.base import Embedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import InvalidInputError, NoMatchError, RoutingError, UnknownKeyError, UnknownObjectiveError
from tinydancer.policy.copula import Correlations, all_good, any_good
from tinydancer.policy.ensembles import evaluate_cascade
from tinydancer.service import TinyDancer
from tinydancer.teams import STRATEGIES, family_of

route_multi: Any = planning.route_multi
REQUEST = "Build and deploy a web application"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return StaticEmbedder()


@pytest.fixture
def dancer(embedder: Embedder) -> Iterator[TinyDancer]:
    with TinyDancer(embedder=embedder, clock=lambda: 1000.0, seed=1) as service:
        for name, skills, usd, ms, quality, maker in (
            ("a-large", ["reasoning", "analysis", "planning"], 0.03, 2500.0, 0.95, "A"),
            ("a-small", ["reasoning", "analysis", "planning"], 0.002, 700.0, 0.85, "A"),
            ("b-coder", ["code", "web development", "deployment"], 0.004, 900.0, 0.88, "B"),
            ("c-mini", ["chat", "translation"], 0.0004, 300.0, 0.7, "C"),
        ):
            service.register_agent(name, "llm", skills, usd, ms, quality, metadata={"provider": maker})
        yield service


def names(team: Any) -> list[str]:
    return [member.decision.agent_name for member in team.members]


def test_every_strategy_is_recorded_and_readable(dancer):
    for strategy in STRATEGIES:
        team = route_multi(dancer, REQUEST, 3, strategy)
        rows = team.rows()
        assert 1 <= len(rows) <= 3
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
        json.dumps(rows, allow_nan=False)
        recorded = {row.decision_id: row.agent_name for row in dancer.list_decisions(len(rows))}
        assert recorded == {row["decision_id"]: row["agent_name"] for row in rows}
        assert all(row["agent_name"] in row["reasoning"] for row in rows)
        dancer.feedback(rows[0]["decision_id"], quality=0.5)
    objectives = {row.objective for row in dancer.list_decisions()}
    assert objectives == {"balanced", "parallel", "ensemble", "cascade"}


def test_a_pipeline_has_the_best_agent_for_each_stage(dancer):
    stages = ["Plan the work by reasoning.", "Write the code of a web application.", "Translate the manual."]
    team = route_multi(dancer, REQUEST, stages=stages, optimize_for="quality")
    assert names(team) == [dancer.route(text, "quality").agent_name for text in stages]
    assert [member.role for member in team.members] == stages
    assert team.estimated_cost == pytest.approx(sum(m.decision.estimated_cost for m in team.members))
    assert team.estimated_latency_ms == pytest.approx(sum(m.decision.estimated_latency_ms for m in team.members))
    families = [family_of(dancer.snapshot(), dancer.snapshot().names.index(name)) for name in names(team)]
    quality = [m.decision.expected_quality for m in team.members]
    assert team.expected_quality == pytest.approx(all_good(np.array(quality), families, Correlations()))
    assert team.expected_quality < min(quality)


def test_stages_may_require_capabilities(dancer):
    team = route_multi(
        dancer, REQUEST,
        stages=[{"required_capabilities": ["Planning"]}, {"role": "build", "required_capabilities": ["code"]}, "Hi."],
        optimize_for="cost",
    )  # fmt: skip
    assert names(team)[:2] == ["a-small", "b-coder"]
    assert [m.role for m in team.members] == ["Planning", "build", "Hi."]
    with pytest.raises(NoMatchError, match=r"Stage number 2 \(law\)"):
        route_multi(dancer, REQUEST, stages=["Think.", {"required_capabilities": ["law"]}])


def test_without_stages_the_requests_own_steps_count(dancer):
    team = route_multi(dancer, "Collect the figures, then draw a chart; write a summary", 3)
    assert [m.role for m in team.members] == ["Collect the figures", "draw a chart", "write a summary"]
    usual = route_multi(dancer, REQUEST, 3)
    assert [m.role for m in usual.members] == ["plan", "carry out", "review"]
    with pytest.raises(InvalidInputError, match="at most 5"):
        route_multi(dancer, REQUEST, 6)


def test_a_pipeline_keeps_to_its_budget_as_a_whole(dancer):
    dear = route_multi(dancer, REQUEST, optimize_for="quality", required_capabilities=["planning"])
    assert dear.estimated_cost > 0.05
    team = route_multi(
        dancer, REQUEST, optimize_for="quality", required_capabilities=["planning"], budget_remaining=0.05
    )
    assert team.estimated_cost <= 0.05
    assert team.is_optimal
    assert len(team.members) == 3
    assert "more than budget_remaining ($0.05)" in team.members[0].decision.reasoning
    with pytest.raises(RoutingError, match="does not pay for 3 requests"):
        route_multi(dancer, REQUEST, budget_remaining=0.001)


def test_agents_side_by_side_come_from_different_houses(dancer):
    team = route_multi(dancer, "Think about this.", 2, "parallel")
    assert len({name[0] for name in names(team)}) == 2
    assert team.expected_quality == pytest.approx(sum(m.decision.expected_quality for m in team.members) / 2)
    assert team.estimated_latency_ms == max(m.decision.estimated_latency_ms for m in team.members)


def test_an_ensemble_prefers_who_errs_differently(dancer):
    team = route_multi(dancer, "Think about this.", 2, "ensemble", correlation=0.1, family_correlation=0.95)
    assert "a-large" in names(team)
    assert "a-small" not in names(team)
    quality = np.array([m.decision.expected_quality for m in team.members])
    expected = any_good(quality, names(team), Correlations(0.1, 0.95))
    assert team.expected_quality == pytest.approx(expected)
    assert team.estimated_cost == pytest.approx(sum(m.decision.estimated_cost for m in team.members))
    votes = route_multi(dancer, "Think about this.", 3, "ensemble", combination="majority")
    assert votes.expected_quality >= max(m.decision.expected_quality for m in votes.members) - 1e-6
    cheap = route_multi(dancer, "Think about this.", 3, "ensemble", budget_remaining=0.005)
    assert cheap.estimated_cost <= 0.005
    with pytest.raises(NoMatchError):
        route_multi(dancer, "Think about this.", 3, "ensemble", budget_remaining=1e-5)


def test_a_cascade_asks_the_cheap_first(dancer):
    team = route_multi(dancer, "Think about this.", 3, "cascade")
    costs = [m.decision.estimated_cost for m in team.members]
    assert costs == sorted(costs)
    assert len(costs) > 1
    assert [m.escalate_below is None for m in team.members] == [False] * (len(costs) - 1) + [True]
    assert team.members[0].reached == pytest.approx(1.0)
    best = dancer.route("Think about this.", "quality")
    assert team.expected_quality >= best.expected_quality - 1e-5
    assert team.estimated_cost < best.estimated_cost
    again = evaluate_cascade(
        np.array([m.decision.expected_quality for m in team.members]), np.array(costs), range(len(costs)),
        [m.escalate_below or 0.0 for m in team.members][:-1],
    )  # fmt: skip
    assert (team.expected_quality, team.estimated_cost) == pytest.approx((again.quality, again.cost_usd))
    assert team.estimated_latency_ms == pytest.approx(
        sum(m.reached * m.decision.estimated_latency_ms for m in team.members)
    )


def test_a_cascades_budget_is_for_what_it_is_expected_to_cost(dancer):
    team = route_multi(dancer, "Think about this.", 2, "cascade", budget_remaining=0.01)
    assert team.estimated_cost <= 0.01 * (1 + 1e-9)
    assert "a-large" in names(team)  # which alone costs three times as much
    with pytest.raises(RoutingError, match="pays for no chain"):
        route_multi(dancer, "Think about this.", 3, "cascade", budget_remaining=1e-6)
    with pytest.raises(RoutingError, match="the best reaches"):
        route_multi(dancer, "Think about this.", 3, "cascade", quality_target=0.999)


def test_an_unknown_cost(dancer):
    dancer.register_agent("mystery", "llm", ["poetry"], None, 100.0, 0.99)
    assert route_multi(dancer, REQUEST, 2, "ensemble").estimated_cost is None
    assert "mystery" not in names(route_multi(dancer, REQUEST, 3, "cascade"))
    assert "mystery" not in names(route_multi(dancer, REQUEST, 3, "ensemble", budget_remaining=1.0))
    with pytest.raises(RoutingError, match="unknown cost"):
        route_multi(dancer, REQUEST, 2, "cascade", required_capabilities=["poetry"])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"strategy": "swarm"}, InvalidInputError, "Unknown strategy 'swarm'; expected one of: pipeline, parallel"),
        ({"strategy": None}, InvalidInputError, "Unknown strategy None"),
        ({"num_agents": 0}, InvalidInputError, r"num_agents is 0; expected a number in \[1, 20\]"),
        ({"num_agents": 2.5}, InvalidInputError, "whole number"),
        ({"request": " "}, InvalidInputError, "empty"),
        ({"request": None, "strategy": "ensemble"}, InvalidInputError, "Neither a request"),
        ({"combination": "loudest"}, InvalidInputError, "best_of_n, majority"),
        ({"correlation": 1.0, "strategy": "ensemble"}, InvalidInputError, "correlation is 1.0"),
        ({"correlation": 0.5, "family_correlation": 0.1}, InvalidInputError, "no less"),
        ({"self_knowledge": 0.0}, InvalidInputError, "self_knowledge"),
        ({"quality_target": 2}, InvalidInputError, "quality_target"),
        ({"optimize_for": "speed"}, UnknownObjectiveError, "speed"),
        ({"stages": []}, InvalidInputError, "expected a list"),
        ({"stages": "one"}, InvalidInputError, "expected a list"),
        ({"stages": [7]}, InvalidInputError, "Stage number 1"),
        ({"stages": [{"texts": "x"}]}, UnknownKeyError, "stage number 1"),
        ({"stages": ["a"], "strategy": "cascade"}, InvalidInputError, "only a pipeline has stages"),
        ({"minimum_quality": 0.5}, UnknownKeyError, "minimum_quality"),
        ({"required_capabilities": ["law"], "strategy": "parallel"}, NoMatchError, "None of the 4 agents"),
    ],
)
def test_what_no_team_can_be(dancer, given, error, message):
    with pytest.raises(error, match=message):
        route_multi(dancer, **{"request": REQUEST, **given})
    assert dancer.list_decisions() == []


def test_the_same_request_has_the_same_team(dancer):
    for strategy in STRATEGIES:
        first, second = (route_multi(dancer, REQUEST, 3, strategy) for _ in range(2))
        assert names(first) == names(second)
        assert first.expected_quality == second.expected_quality
