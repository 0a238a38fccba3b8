"""What must hold of every decision, whatever the registry, the request, the objective and the constraints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import registry as make
from tinydancer.decide import Decision, Decisions, decide
from tinydancer.types import OBJECTIVES, Agent, Constraints, RequestBatch


def made(
    agents: list[Agent], objective: str, limits: Constraints, requests: RequestBatch = make.ONE
) -> tuple[Decisions, Decision | None]:
    decisions = decide(requests, make.snapshot_of(agents), now=0.0, objective=objective, constraints=limits)
    return decisions, decisions[0]


def seen(decisions: Decisions, name: str) -> tuple[float, float, float, float]:
    """(quality, cost, latency, match) of an agent for the first request; what is unknown is infinite."""
    position = decisions.snapshot.names.index(name)
    quality, cost, match = decisions.values(0, position)
    latency = float(decisions.snapshot.latency_ms[position])
    return quality, math.inf if math.isnan(cost) else cost, math.inf if math.isnan(latency) else latency, match


def oracle(decisions: Decisions, limits: Constraints) -> set[str]:
    """Who may serve, by the words of the documents, one agent at a time."""
    allowed = set()
    for agent in decisions.snapshot.agents:
        quality, cost, latency, _ = seen(decisions, agent.name)
        unknown_cost, unknown_latency = math.isinf(cost), math.isinf(latency)
        if not agent.is_active or agent.name in limits.excluded_agents:
            continue
        if not set(limits.required_capabilities) <= set(agent.capabilities):
            continue
        if any(
            bound is not None and (unknown_cost or cost > bound) for bound in (limits.max_cost, limits.budget_remaining)
        ):
            continue
        if limits.max_latency_ms is not None and (unknown_latency or latency > limits.max_latency_ms):
            continue
        if limits.min_quality is not None and quality < limits.min_quality:
            continue
        allowed.add(agent.name)
    return allowed


@given(make.agents(), make.objectives, make.constraints)
def test_filters_equal_a_brute_force_oracle(agents: list[Agent], objective: str, limits: Constraints) -> None:
    decisions, decision = made(agents, objective, limits)
    allowed = oracle(decisions, limits)
    assert (decision is None) == (not allowed)
    assert set(decisions.exclusions(0)) == {a.name for a in agents} - allowed
    if decision is not None:
        named = {decision.agent_name, *(a.agent_name for a in decision.alternatives)}
        assert named <= allowed
        assert len(named) == min(len(allowed), 4)


@given(make.agents(), make.objectives, make.constraints)
def test_excluded_and_inactive_agents_never_appear(agents: list[Agent], objective: str, limits: Constraints) -> None:
    _, decision = made(agents, objective, limits)
    assume(decision is not None)
    assert decision is not None
    barred = set(limits.excluded_agents) | {a.name for a in agents if not a.is_active}
    assert not barred & {decision.agent_name, *(a.agent_name for a in decision.alternatives)}


def good_enough_names(decisions: Decisions, limits: Constraints) -> list[str]:
    allowed = oracle(decisions, limits)
    best = max(seen(decisions, name)[0] for name in allowed)
    share = 0.7 if limits.good_enough is None else limits.good_enough
    return [name for name in allowed if seen(decisions, name)[0] >= share * best]


@given(make.agents(), make.constraints)
def test_cost_never_picks_an_agent_when_a_cheaper_one_satisfies_everything(
    agents: list[Agent], limits: Constraints
) -> None:
    decisions, decision = made(agents, "cost", limits)
    assume(decision is not None)
    assert decision is not None
    paid = seen(decisions, decision.agent_name)[1]
    assert paid == min(seen(decisions, name)[1] for name in good_enough_names(decisions, limits))


@given(make.agents(), make.constraints)
def test_latency_never_picks_an_agent_when_a_faster_one_satisfies_everything(
    agents: list[Agent], limits: Constraints
) -> None:
    decisions, decision = made(agents, "latency", limits)
    assume(decision is not None)
    assert decision is not None
    waited = seen(decisions, decision.agent_name)[2]
    assert waited == min(seen(decisions, name)[2] for name in good_enough_names(decisions, limits))


@given(make.agents(), make.constraints)
def test_quality_never_picks_an_agent_when_a_better_one_satisfies_everything(
    agents: list[Agent], limits: Constraints
) -> None:
    decisions, decision = made(agents, "quality", limits)
    assume(decision is not None)
    assert decision is not None
    quality, cost, _, _ = seen(decisions, decision.agent_name)
    allowed = [seen(decisions, name) for name in oracle(decisions, limits)]
    assert quality == max(q for q, *_ in allowed)
    assert cost == min(c for q, c, *_ in allowed if q == quality)


@given(make.agents(), make.constraints)
def test_quality_per_dollar_has_the_best_ratio(agents: list[Agent], limits: Constraints) -> None:
    decisions, decision = made(agents, "quality_per_dollar", limits)
    assume(decision is not None)
    assert decision is not None

    def ratio(name: str) -> float:
        quality, cost, *_ = seen(decisions, name)
        return 0.0 if math.isinf(cost) else quality / max(cost, 1e-12)

    best = max(map(ratio, good_enough_names(decisions, limits)))
    assert ratio(decision.agent_name) == pytest.approx(best)


@given(make.agents(), make.objectives, make.constraints, st.data())
def test_the_same_input_gives_the_same_decision_in_any_order_of_registration(
    agents: list[Agent], objective: str, limits: Constraints, data: st.DataObject
) -> None:
    first = made(agents, objective, limits)[1]
    second = made(data.draw(st.permutations(agents)), objective, limits)[1]
    assert (first and first.to_dict()) == (second and second.to_dict())


@given(make.agents(min_size=2), make.objectives, make.constraints, st.floats(0.001, 10.0), st.data())
def test_raising_only_an_agents_price_never_makes_it_preferred(
    agents: list[Agent], objective: str, limits: Constraints, more: float, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(agents) - 1))
    agent = agents[position]
    assume(not math.isnan(agent.cost.columns()[0]))
    raised = replace(agent, cost=replace(agent.cost, cost_per_call=(agent.cost.cost_per_call or 0.0) + more))
    before = made(agents, objective, limits)[1]
    after = made([*agents[:position], raised, *agents[position + 1 :]], objective, limits)[1]
    if after is not None and after.agent_name == agent.name:
        assert before is not None
        assert before.agent_name == agent.name


@given(make.agents(), make.objectives, make.constraints, st.lists(make.directions, min_size=1, max_size=6))
def test_a_batch_decides_as_its_requests_one_by_one(
    agents: list[Agent], objective: str, limits: Constraints, vectors: list[np.ndarray]
) -> None:
    # Exact in float32: the vectors' components are small integers over a common length.
    batch = make.batch_of(*vectors)
    together = made(agents, objective, limits, batch)[0]
    for row in range(len(batch)):
        alone = made(agents, objective, limits, batch.rows(row, row + 1))[0]
        mine, theirs = together[row], alone[0]
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None and mine.agent_name != theirs.agent_name:
            # Products of many rows and of one row may round differently; then the two agents must be equals.
            a, b = (together.values(row, together.snapshot.names.index(d.agent_name)) for d in (mine, theirs))
            assert a == pytest.approx(b, abs=1e-6)


@given(make.agents(), make.objectives)
def test_probabilities_and_qualities_stay_in_range(agents: list[Agent], objective: str) -> None:
    _, decision = made(agents, objective, Constraints(on_no_match="null"))
    assume(decision is not None)
    assert decision is not None
    assert 0.0 <= decision.confidence <= 1.0
    assert 0.0 <= decision.expected_quality <= 1.0
    assert -1.0001 <= decision.similarity_score <= 1.0001
    assert decision.uncertainty == 1.0, "without calibration data nothing is known of the spread"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_equals_fall_to_the_better_match_then_to_the_name(objective: str) -> None:
    def twin(name: str, direction: list[float]) -> Agent:
        return Agent(
            name=name, avg_latency_ms=100.0, quality_score=0.8, embedding=np.array(direction), capabilities=("x",)
        )

    limits = Constraints()
    same = [twin(name, [1.0, 0.0, 0.0, 0.0]) for name in ("c", "b", "a")]
    chosen = made(same, objective, limits)[1]
    assert chosen is not None
    assert chosen.agent_name == "a"
    nearer = [twin("a", [0.0, 1.0, 0.0, 0.0]), twin("b", [1.0, 0.0, 0.0, 0.0])]
    chosen = made(nearer, objective, limits)[1]
    assert chosen is not None
    assert chosen.agent_name == "b"
