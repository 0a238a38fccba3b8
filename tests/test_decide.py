"""Decisions with known answers: the documents' examples, the words of the reasons, the errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests import registry as make
from tinydancer.decide import Decision, decide
from tinydancer.errors import InvalidInputError, NoAgentsError, NoMatchError
from tinydancer.learn import AgentStats
from tinydancer.model.conformal import ConformalInterval
from tinydancer.snapshot import DecisionSettings, bar_index
from tinydancer.types import NO_CONSTRAINTS, Agent, Constraints, CostModel, RequestBatch


def agent(name: str, cost: float | None, latency: float | None, quality: float | None, *skills: str) -> Agent:
    return Agent(
        name=name, cost=CostModel(cost_per_request=cost), avg_latency_ms=latency, quality_score=quality,
        capabilities=skills,
    )  # fmt: skip


GPT4 = agent("gpt-4", 0.03, 500.0, 0.95, "coding", "reasoning")
GPT35 = agent("gpt-3.5-turbo", 0.002, 150.0, 0.75, "general", "fast")


def route(agents: list[Agent], objective: str = "balanced", limits: Constraints = NO_CONSTRAINTS) -> Decision:
    decision = decide(make.ONE, make.snapshot_of(agents), now=7.0, objective=objective, constraints=limits)[0]
    assert decision is not None
    return decision


def test_the_documents_two_agents_go_where_each_objective_says() -> None:
    chosen = {o: route([GPT4, GPT35], o).agent_name for o in ("cost", "latency", "quality", "quality_per_dollar")}
    assert chosen == {
        "cost": "gpt-3.5-turbo",
        "latency": "gpt-3.5-turbo",
        "quality": "gpt-4",
        "quality_per_dollar": "gpt-3.5-turbo",
    }


def test_cost_still_picks_the_cheap_agent_at_080_beside_one_at_095() -> None:
    assert route([GPT4, agent("haiku", 0.001, 400.0, 0.80)], "cost").agent_name == "haiku"


def test_cost_does_not_pick_a_cheap_agent_that_is_not_good_enough() -> None:
    poor = agent("poor", 0.0, 10.0, 0.5)
    decision = route([GPT4, poor], "cost")
    assert decision.agent_name == "gpt-4"
    assert "only agent that is good enough" in decision.reasoning
    assert decision.alternatives[0].reason == ("not good enough: expected quality 0.50 is below 70% of the best (0.95)")
    assert route([GPT4, poor], "cost", Constraints(good_enough=0.0)).agent_name == "poor"


def test_an_unknown_cost_fails_max_cost_and_sorts_last() -> None:
    mystery = agent("mystery", None, 100.0, 0.9)
    assert route([mystery, GPT4], "cost").agent_name == "gpt-4"
    assert route([mystery], "cost").estimated_cost is None
    with pytest.raises(NoMatchError) as caught:
        route([mystery], "cost", Constraints(max_cost=100.0))
    assert caught.value.exclusions == {"mystery": "its cost is unknown; max_cost is $100.00"}


def test_a_free_agent_is_free_not_unknown() -> None:
    decision = route([agent("local", 0.0, 100.0, 0.9)], "cost", Constraints(max_cost=0.0))
    assert decision.estimated_cost == 0.0
    assert "free" in decision.reasoning


def test_no_match_gives_a_reason_per_agent() -> None:
    limits = Constraints(
        max_cost=0.01, min_quality=0.8, max_latency_ms=200, required_capabilities=("coding",), excluded_agents=("x",)
    )
    off = Agent(name="off", is_active=False)
    slow = agent("slow", 0.001, None, 0.9, "Coding")
    with pytest.raises(NoMatchError) as caught:
        route([GPT4, GPT35, agent("x", 0, 1, 1, "coding"), off, slow], limits=limits)
    assert caught.value.exclusions == {
        "gpt-3.5-turbo": "lacks required_capabilities: coding",
        "gpt-4": "takes about 500 ms; max_latency_ms is 200; costs about $0.03; max_cost is $0.01",
        "off": "is not active",
        "slow": "its latency is unknown; max_latency_ms is 200",
        "x": "is in excluded_agents",
    }
    assert caught.value.detail.count("\n") == 4
    assert caught.value.to_dict()["exclusions"] == caught.value.exclusions


def test_min_quality_and_budget_say_so_too() -> None:
    with pytest.raises(NoMatchError) as caught:
        route([GPT35], limits=Constraints(min_quality=0.8, budget_remaining=0.001))
    assert caught.value.exclusions["gpt-3.5-turbo"] == (
        "costs about $0.0020; budget_remaining is $0.0010; its expected quality is 0.75; min_quality is 0.8"
    )


def test_a_capability_nobody_has_excludes_everyone() -> None:
    with pytest.raises(NoMatchError) as caught:
        route([GPT4], limits=Constraints(required_capabilities=("juggling",)))
    assert caught.value.exclusions == {"gpt-4": "lacks required_capabilities: juggling"}


def test_on_no_match_null_answers_with_none() -> None:
    limits = Constraints(min_quality=1.0, on_no_match="null")
    assert decide(make.ONE, make.snapshot_of([GPT4]), now=0.0, constraints=limits)[0] is None


def test_a_batch_names_the_first_request_that_fails() -> None:
    batch = RequestBatch(np.repeat(make.ONE.embeddings, 3, axis=0), np.array([1.0, 1e6, 1e6]))
    priced = Agent(name="a", cost=CostModel(cost_per_token=1e-6))
    with pytest.raises(NoMatchError, match=r"None of the 1 agent fits request number 2 of 3 \(nor 1 other request\)"):
        decide(batch, make.snapshot_of([priced]), now=0.0, constraints=Constraints(max_cost=0.01))


def test_no_agents_is_an_error_with_a_way_out() -> None:
    with pytest.raises(NoAgentsError, match="tinydancer agents add"):
        decide(make.ONE, make.snapshot_of([]), now=0.0)


def test_cost_is_estimated_for_this_request() -> None:
    priced = Agent(
        name="a", cost=CostModel(
            cost_per_request=0.001, input_cost_per_token=2e-6, cached_input_cost_per_token=1e-6,
            output_cost_per_token=1e-5, cost_per_second=0.002,
        ),
        avg_latency_ms=1500.0, expected_output_tokens=200,
    )  # fmt: skip
    snapshot = make.snapshot_of([priced])
    batch = RequestBatch(make.ONE.embeddings, np.array([1000.0]), cached_input_tokens=400.0)
    decision = decide(batch, snapshot, now=0.0)[0]
    assert decision is not None
    by_hand = 0.001 + 600 * 2e-6 + 400 * 1e-6 + 200 * 1e-5 + 1.5 * 0.002
    assert decision.estimated_cost == pytest.approx(by_hand)
    assert priced.cost.estimate_usd(1000, 200, cached_input_tokens=400, seconds=1.5) == pytest.approx(by_hand)
    told = decide(RequestBatch(make.ONE.embeddings, np.array([1000.0]), 0.0, 50.0), snapshot, now=0.0)[0]
    assert told is not None
    assert told.estimated_cost == pytest.approx(0.001 + 1000 * 2e-6 + 50 * 1e-5 + 0.003)


def test_the_worst_match_lowers_quality_by_the_stated_share() -> None:
    def skilled(name: str, cosine: float) -> Agent:
        return Agent(name=name, quality_score=0.8, embedding=np.array([cosine, math.sqrt(1 - cosine**2), 0.0, 0.0]))

    decisions = decide(make.ONE, make.snapshot_of([skilled("a", 0.9), skilled("b", 0.5), skilled("c", 0.7)]), now=0.0)
    qualities = [decisions.values(0, i)[0] for i in range(3)]
    assert qualities == pytest.approx([0.8, 0.8 * 0.85, 0.8 * 0.925], abs=1e-6)
    near = decide(make.ONE, make.snapshot_of([skilled("a", 0.9), skilled("b", 0.8)]), now=0.0)
    # Half the spread that counts in full, so half the discount.
    assert near.values(0, 1)[0] == pytest.approx(0.8 * (1 - 0.15 / 2), abs=1e-6)


def test_an_agent_without_a_vector_matches_as_the_others_on_average() -> None:
    known = [Agent(name=n, embedding=np.array(v)) for n, v in (("a", [1.0, 0, 0, 0]), ("b", [0, 1.0, 0, 0]))]
    decisions = decide(make.ONE, make.snapshot_of([*known, Agent(name="c")]), now=0.0)
    assert [decisions.values(0, i)[2] for i in range(3)] == pytest.approx([1.0, 0.0, 0.5])


def test_confidence_is_the_share_of_answers_that_reached_the_bar() -> None:
    stats = {"a": AgentStats(total_requests=990, successes=990, quality_count=990, quality_sum=594.0,
                             quality_bins={18: 330, 12: 330, 6: 330})}  # fmt: skip
    snapshot = make.snapshot_of([Agent(name="a", quality_score=0.6)], stats=stats)

    def confidence(bar: float) -> float:
        decision = decide(make.ONE, snapshot, now=0.0, constraints=Constraints(min_quality=bar))[0]
        assert decision is not None
        assert decision.quality_bar == bar
        return decision.confidence

    # 990 answers at 0.9, 0.6 and 0.3 in equal parts, and ten stated ones at 0.6.
    assert confidence(0.55) == pytest.approx((10 * 0.6 + 660) / 1000)
    assert confidence(0.3) == pytest.approx((10 * 0.6 + 990) / 1000)
    assert confidence(0.0) == 1.0


def test_an_agent_that_always_failed_still_decides_without_dividing_by_zero() -> None:
    decision = route([agent("hopeless", 0.0, 1.0, 0.0)])
    assert (decision.confidence, decision.expected_quality) == (0.0, 0.0)


def test_uncertainty_is_the_width_of_the_conformal_interval() -> None:
    snapshot = make.snapshot_of([GPT4])
    object.__setattr__(snapshot, "interval", ConformalInterval(quantile=0.1, coverage=0.9, n=100))
    decision = decide(make.ONE, snapshot, now=0.0)[0]
    assert decision is not None
    assert decision.uncertainty == pytest.approx(0.1 + 0.05), "the interval around 0.95 ends at 1"


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("cost", "gpt-3.5-turbo is the cheapest of the 2 agents that fit and are good enough for this request: "
                 "about $0.0020, 150 ms, expected quality 0.75 (the best, gpt-4, has 0.95 for $0.03)."),
        ("latency", "gpt-3.5-turbo is the fastest of the 2 agents that fit and are good enough"),
        ("quality", "gpt-4 has the highest expected quality of the 2 agents that fit: about $0.03, 500 ms, "),
        ("quality_per_dollar", "gpt-3.5-turbo gives the most quality for the money of the 2 agents"),
        ("balanced", "is the best balance of cost, speed, quality and match among the 2 agents that fit"),
    ],
)  # fmt: skip
def test_reasoning_is_a_sentence_a_person_would_write(objective: str, words: str) -> None:
    reasoning = route([GPT4, GPT35], objective).reasoning
    assert words in reasoning
    assert reasoning.endswith(
        "No trained model: the quality is its stated score, weighed by how well its skills match."
    )


def test_a_single_agent_is_called_the_only_one() -> None:
    assert route([GPT4]).reasoning.startswith("gpt-4 is the only agent that fits this request: about $0.03")


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ("cost", "costs more ($0.03 against $0.0020); expected quality 0.95 against 0.75"),
        ("latency", "slower (500 ms against 150 ms); expected quality 0.95 against 0.75"),
        ("quality", "expected quality 0.75 against 0.95; costs less ($0.0020 against $0.03)"),
    ],
)
def test_alternatives_say_why_not(objective: str, reason: str) -> None:
    (alternative,) = route([GPT4, GPT35], objective).alternatives
    assert alternative.reason == reason


def test_the_balanced_alternative_compares_everything() -> None:
    (other,) = route([GPT4, agent("twin", 0.03, None, 0.9)]).alternatives
    assert other.reason == (
        "a lesser balance: costs the same ($0.03); an unknown time against 500 ms; "
        "expected quality 0.90 against 0.95; match 0.00 against 0.00"
    )


def test_alternatives_are_in_order_and_not_more_than_asked_for() -> None:
    many = [agent(f"a{i}", 0.001 * (i + 1), 100.0, 0.8) for i in range(6)]
    decision = route(many, "cost")
    assert [a.agent_name for a in decision.alternatives] == ["a1", "a2", "a3"]
    few = make.snapshot_of(many, settings=DecisionSettings(max_alternatives=0))
    chosen = decide(make.ONE, few, now=0.0)[0]
    assert chosen is not None
    assert chosen.alternatives == []


def test_a_decision_reads_as_json() -> None:
    decision = route([GPT4, GPT35])
    assert json.loads(json.dumps(decision.to_dict()))["agent_name"] == decision.agent_name
    assert (decision.objective, decision.decided_at, decision.model) == ("balanced", 7.0, None)
    assert "Decision" in repr(decision)
    assert decision.exclusions == {}


def test_weights_steer_the_balance() -> None:
    agents = [GPT4, GPT35]
    for weight, name in (("weight_quality", "gpt-4"), ("weight_cost", "gpt-3.5-turbo")):
        weights = dict.fromkeys(("weight_cost", "weight_latency", "weight_quality", "weight_match"), 0.0)
        snapshot = make.snapshot_of(agents, settings=DecisionSettings(**{**weights, weight: 1.0}))  # type: ignore[arg-type]
        decision = decide(make.ONE, snapshot, now=0.0)[0]
        assert decision is not None
        assert decision.agent_name == name


@pytest.mark.parametrize("dear", [(), (("zz", 0.5),)])
def test_an_unknown_cost_counts_as_the_worst_even_where_all_known_ones_are_equal(
    dear: tuple[tuple[str, float], ...],
) -> None:
    agents = [agent("a", None, 100.0, 0.9), agent("b", 0.01, 100.0, 0.9), agent("c", 0.01, 100.0, 0.9)]
    assert route([*agents, *(agent(name, cost, 100.0, 0.9) for name, cost in dear)]).agent_name == "b"


def test_balance_scales_cost_by_its_logarithm() -> None:
    # 0.001, 0.01 and 0.1 are evenly spaced on a logarithmic scale: the middle one is worth one half.
    middle = agent("middle", 0.01, 100.0, 0.9)
    agents = [agent("cheap", 0.001, 100.0, 0.5), middle, agent("dear", 0.1, 100.0, 1.0)]
    settings = DecisionSettings(weight_cost=0.5, weight_quality=0.5, weight_latency=0.0, weight_match=0.0)
    decision = decide(make.ONE, make.snapshot_of(agents, settings=settings), now=0.0)[0]
    assert decision is not None
    # cheap: 0.5 x 1 + 0; middle: 0.5 x 0.5 + 0.5 x 0.8 = 0.65; dear: 0.5
    assert decision.agent_name == "middle"


def test_many_requests_cross_the_block_boundary() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(600, 4)).astype(np.float32)
    batch = make.batch_of(*vectors)
    directions = np.eye(4, dtype=np.float32)
    agents = [Agent(name=n, quality_score=0.9, embedding=v) for n, v in zip("abcd", directions, strict=True)]
    decisions = decide(batch, make.snapshot_of(agents), now=0.0, objective="quality")
    assert len(decisions) == 600
    chosen = [d.agent_name for d in decisions if d is not None]
    assert chosen == ["abcd"[int(v.argmax())] for v in vectors]


@pytest.mark.parametrize("bar", [0.0, 0.05, 0.5, 0.51, 0.95, 1.0])
def test_bar_index_is_the_first_step_at_or_above(bar: float) -> None:
    assert bar_index(bar) / 20 >= bar - 1e-9
    assert bar == 0.0 or (bar_index(bar) - 1) / 20 < bar


@pytest.mark.parametrize(
    "bad", [{"good_enough": 1.5}, {"match_spread": 0.0}, {"weight_cost": -1.0}, {"max_alternatives": 1.5},
            {"weight_cost": 0, "weight_latency": 0, "weight_quality": 0, "weight_match": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        DecisionSettings(**bad)  # type: ignore[arg-type]
