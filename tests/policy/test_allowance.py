"""What budgets leave: who fits, what happens at the limit, batches in their order, the sentences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import registry as make
from tinydancer.decide import decide
from tinydancer.errors import NoMatchError
from tinydancer.policy.allowance import Allowance, Holding
from tinydancer.policy.budgets import Budget, StoredBudget
from tinydancer.types import NO_CONSTRAINTS, Agent, Constraints, CostModel, RequestBatch

NOW = 1_700_000_000.0
NULL = Constraints(on_no_match="null")


def agent(name: str, cost: float | None, quality: float) -> Agent:
    return Agent(name=name, cost=CostModel(cost_per_request=cost), avg_latency_ms=100.0, quality_score=quality)


FLEET = [agent("dear", 0.03, 0.95), agent("cheap", 0.002, 0.75), agent("free", 0.0, 0.5), agent("mystery", None, 0.99)]


def holding(left: float, number: int = 1, **changes) -> Holding:
    values: dict[str, Any] = {"name": f"b{number}", "amount_usd": 1.0, "period": "total"}
    budget = Budget(**(values | changes))
    return Holding.at(StoredBudget(number, 1, budget), NOW, used_usd=budget.amount_usd - left)


def allowance(*holdings: Holding, names=("cheap", "dear", "free", "mystery")) -> Allowance:
    made = Allowance.over(holdings, names)
    assert made is not None
    return made


def chosen(*holdings: Holding, objective: str = "quality", fleet=FLEET, limits: Constraints = NULL) -> str | None:
    snapshot = make.snapshot_of(fleet)
    decision = decide(
        make.ONE, snapshot, now=NOW, objective=objective, constraints=limits,
        allowance=allowance(*holdings, names=snapshot.names),
    )[0]  # fmt: skip
    return None if decision is None else decision.agent_name


@pytest.mark.parametrize(
    ("left", "on_limit", "expected"),
    [
        (1.0, "refuse", "dear"), (0.03, "refuse", "dear"), (0.029, "refuse", "cheap"), (0.0019, "refuse", None),
        (0.0, "refuse", None), (-5.0, "refuse", None),
        (0.029, "free", "cheap"), (0.0019, "free", "free"), (0.0, "free", "free"), (-5.0, "free", "free"),
        (0.029, "cheapest", "cheap"), (0.0019, "cheapest", "free"), (-5.0, "cheapest", "free"),
    ],
)  # fmt: skip
def test_what_is_left_decides_who_may(left, on_limit, expected):
    assert chosen(holding(left, on_limit=on_limit)) == expected


def test_the_cheapest_is_over_the_budget_where_nobody_is_free():
    priced = FLEET[:2]
    assert chosen(holding(0.0019, on_limit="cheapest"), fleet=priced) == "cheap"
    assert chosen(holding(0.0019, on_limit="cheapest"), fleet=FLEET[:1]) == "dear"
    assert chosen(holding(0.0019, on_limit="free"), fleet=priced) is None
    # What is otherwise asked for holds, over the budget or not.
    strict = Constraints(min_quality=0.9, on_no_match="null")
    assert chosen(holding(0.0019, on_limit="cheapest"), limits=strict) == "dear"
    assert chosen(holding(0.0, on_limit="cheapest"), fleet=[agent("mystery", None, 0.9)]) is None


def test_a_limit_is_reached_by_those_that_may_serve_otherwise():
    # 0.01 pays for the cheap agent, which this request excludes: the rest is refused, the free agent included.
    limits = Constraints(excluded_agents=("cheap",), on_no_match="null")
    assert chosen(holding(0.01), limits=limits) is None
    assert chosen(holding(0.01, on_limit="free"), limits=limits) == "free"
    # Where no agent has a price, money is no matter as long as some is left.
    assert chosen(holding(0.01), fleet=[FLEET[2]]) == "free"
    assert chosen(holding(0.0), fleet=[FLEET[2]]) is None


def test_the_tightest_budget_counts():
    assert chosen(holding(1.0, 1), holding(0.01, 2)) == "cheap"
    assert chosen(holding(1.0, 1), holding(0.0, 2, on_limit="free")) == "free"
    assert chosen(holding(1.0, 1), holding(0.0, 2, on_limit="cheapest"), fleet=FLEET[:2]) == "cheap"
    assert chosen(holding(0.0, 1), holding(0.0, 2, on_limit="cheapest")) is None  # a hard one beside a soft one


def test_an_agents_own_budget_limits_that_agent():
    own: dict[str, Any] = {"scope": "agent", "scope_value": "dear"}
    assert chosen(holding(0.03, **own)) == "mystery"  # whose unknown cost no budget counts here
    fleet = FLEET[:3]
    assert chosen(holding(0.03, **own), fleet=fleet) == "dear"
    assert chosen(holding(0.029, **own), fleet=fleet) == "cheap"
    assert chosen(holding(0.0, on_limit="cheapest", **own), fleet=fleet) == "cheap"
    assert chosen(holding(0.0, on_limit="cheapest", **own), fleet=FLEET[:1]) == "dear"
    assert chosen(holding(0.0, scope="agent", scope_value="free"), fleet=[FLEET[2]]) is None
    assert chosen(holding(0.0, on_limit="free", scope="agent", scope_value="free"), fleet=[FLEET[2]]) == "free"
    assert Allowance.over([holding(0.0, scope="agent", scope_value="gone")], ["dear"]) is None
    # An agent that its own budget rules out is none that the tenant's could be spent on.
    both = holding(0.01, 1), holding(0.0, 2, scope="agent", scope_value="cheap")
    assert chosen(*both, fleet=fleet) is None


def test_the_most_each_agent_may_cost():
    made = allowance(holding(0.5, 1), holding(0.25, 2, scope="agent", scope_value="dear"))
    assert made.usd(("cheap", "dear", "free", "mystery")) == pytest.approx([0.5, 0.25, 0.5, 0.5])
    only = allowance(holding(0.25, 2, scope="agent", scope_value="dear"))
    assert only.usd(("cheap", "dear", "free", "mystery"))[0] == math.inf


def test_a_sum_of_many_costs_may_lack_a_digit():
    used = sum([0.1] * 9)  # 0.8999999999999999
    assert used != 0.9
    for total in (used, 0.9 + 1e-12):
        assert chosen(holding(1.0 - total), fleet=[agent("dime", 0.1, 0.5)]) == "dime"
    assert chosen(holding(1e-13)) is None  # and what is left of rounding is nothing


def reasons(*holdings: Holding, limits: Constraints = NO_CONSTRAINTS) -> dict[str, str]:
    snapshot = make.snapshot_of(FLEET)
    with pytest.raises(NoMatchError) as caught:
        decide(make.ONE, snapshot, now=NOW, constraints=limits, allowance=allowance(*holdings, names=snapshot.names))
    assert "raise a budget" in caught.value.hint
    return dict(caught.value.exclusions)


def test_the_reasons_name_the_budget_what_is_left_and_when_the_period_ends():
    spent = holding(0.001, scope="key", scope_value="team", period="day")
    has = "the budget 'b1' (key team) has $0.0010 left until 2023-11-15 00:00 UTC"
    assert reasons(spent) == {
        "cheap": f"costs about $0.0020; {has}",
        "dear": f"costs about $0.03; {has}",
        "free": f"{has}, and then refuses every request",
        "mystery": f"its cost is unknown; {has}",
    }
    found = reasons(holding(0.0), limits=Constraints(min_quality=0.9))
    assert found["dear"] == "costs about $0.03; the budget 'b1' has nothing left"
    assert found["free"] == "its expected quality is 0.5; min_quality is 0.9"
    paced = holding(-0.5, period="day", pacing="even", burst=0.0)
    assert "has nothing left so far until" in reasons(paced)["dear"]


def test_the_reason_is_the_budget_that_rules_the_agent_out():
    found = reasons(holding(0.01, 1), holding(0.0, 2, on_limit="free"), limits=Constraints(excluded_agents=("free",)))
    assert "'b2'" in found["cheap"]
    assert "'b2'" in found["dear"]


def test_reasons_where_an_agent_was_chosen():
    snapshot = make.snapshot_of(FLEET)
    made = decide(make.ONE, snapshot, now=NOW, allowance=allowance(holding(0.01), names=snapshot.names))
    assert made.is_bound
    decision = made[0]
    assert decision is not None
    assert set(decision.exclusions) == {"dear", "mystery"}
    plenty = decide(
        make.ONE, make.snapshot_of(FLEET[:3]), now=NOW,
        allowance=allowance(holding(1.0), names=("cheap", "dear", "free")),
    )  # fmt: skip
    assert not plenty.is_bound


# -- batches -------------------------------------------------------------------------------------------------------


def batch(count: int, tokens) -> RequestBatch:
    vectors = np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (count, 1))
    return RequestBatch(vectors, np.broadcast_to(np.asarray(tokens, np.float64), (count,)).copy())


def one_by_one(requests: RequestBatch, snapshot, objective: str, holdings, limits) -> list[int]:
    """The plain way: each request alone, with what the ones before it took added to what is used."""
    used = [h.used_usd for h in holdings]
    found = []
    for row in range(len(requests)):
        now = [h._replace(used_usd=u) for h, u in zip(holdings, used, strict=True)]
        left = Allowance.over(now, snapshot.names)
        assert left is not None
        made = decide(
            requests.rows(row, row + 1), snapshot, now=NOW, objective=objective, constraints=limits, allowance=left
        )
        found.append(int(made.chosen[0]))
        taken = left.taken(made.chosen, made.expectations().cost_usd)[0]
        used = [u + t for u, t in zip(used, taken.tolist(), strict=True)]
    return found


def test_a_batch_is_filled_in_order():
    snapshot = make.snapshot_of(FLEET[:3])
    left = allowance(holding(0.0705), names=snapshot.names)
    made = decide(batch(9, 10.0), snapshot, now=NOW, objective="quality", constraints=NULL, allowance=left)
    names = [decision and decision.agent_name for decision in made]
    assert names == ["dear", "dear", "cheap", "cheap", "cheap", "cheap", "cheap", None, None]
    with pytest.raises(NoMatchError, match=r"request number 8 of 9 \(nor 1 other request\)") as caught:
        decide(batch(9, 10.0), snapshot, now=NOW, objective="quality", allowance=left)
    assert "has $0.00050 left" in caught.value.exclusions["cheap"]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), objective=make.objectives, count=st.integers(1, 40),
    left=st.lists(st.floats(-0.01, 0.2), min_size=1, max_size=3),
    on_limit=st.sampled_from(["refuse", "free", "cheapest"]), of_agent=st.booleans(),
)  # fmt: skip
def test_a_batch_gives_what_one_request_after_the_other_gives(data, objective, count, left, on_limit, of_agent):
    fleet = [
        Agent(name=name, cost=CostModel(input_cost_per_token=price, output_cost_per_token=0.0), quality_score=quality)
        for name, price, quality in (("a", 3e-5, 0.9), ("b", 2e-5, 0.8), ("c", 1e-6, 0.6), ("d", 0.0, 0.3))
    ]
    snapshot = make.snapshot_of(fleet)
    tokens = data.draw(st.lists(st.floats(1.0, 2000.0), min_size=count, max_size=count))
    holdings = [holding(money, number, on_limit=on_limit) for number, money in enumerate(left, start=1)]
    if of_agent:
        holdings[-1] = holding(left[-1], len(left), on_limit=on_limit, scope="agent", scope_value="a")
    together = decide(
        batch(count, tokens), snapshot, now=NOW, objective=objective, constraints=NULL,
        allowance=allowance(*holdings, names=snapshot.names),
    )  # fmt: skip
    assert together.chosen.tolist() == one_by_one(batch(count, tokens), snapshot, objective, holdings, NULL)


def test_a_batch_over_several_blocks_gives_the_same():
    rng = np.random.default_rng(5)
    tokens = rng.uniform(10.0, 2000.0, 600)
    fleet = [
        Agent(name=name, cost=CostModel(input_cost_per_token=price, output_cost_per_token=0.0), quality_score=quality)
        for name, price, quality in (("a", 3e-5, 0.9), ("b", 2e-5, 0.8), ("c", 1e-6, 0.6))
    ]
    snapshot = make.snapshot_of(fleet)
    holdings = [holding(9.0, amount_usd=10.0)]
    made = decide(
        batch(600, tokens), snapshot, now=NOW, objective="quality", constraints=NULL,
        allowance=allowance(*holdings, names=snapshot.names),
    )  # fmt: skip
    assert made.chosen.tolist() == one_by_one(batch(600, tokens), snapshot, "quality", holdings, NULL)
    assert len(set(made.chosen.tolist())) == 4
    assert made.allowance is not None
    taken = made.allowance.taken(made.chosen, made.expectations().cost_usd).sum()
    assert 8.99 < taken <= 9.0 + 1e-8
    assert "has" in made.exclusions(599)["a"]


def test_an_empty_batch():
    snapshot = make.snapshot_of(FLEET)
    made = decide(batch(0, 1.0), snapshot, now=NOW, allowance=allowance(holding(0.0), names=snapshot.names))
    assert (len(made), made.claims()) == (0, [])


# -- claims --------------------------------------------------------------------------------------------------------


def claims(*holdings: Holding, objective: str = "quality", fleet=FLEET[:3], count: int = 1):
    snapshot = make.snapshot_of(fleet)
    made = decide(
        batch(count, 10.0), snapshot, now=NOW, objective=objective, constraints=NULL,
        allowance=allowance(*holdings, names=snapshot.names),
    )  # fmt: skip
    return [(c.stored.budget_id, round(c.amount_usd, 9), c.used_at_most) for c in made.claims()]


def test_what_is_claimed():
    assert claims(holding(0.5)) == [(1, 0.03, pytest.approx(0.97, abs=1e-8))]
    assert claims(holding(0.1), count=2) == [(1, 0.06, pytest.approx(0.94, abs=1e-8))]
    # A free choice stands only while the cheapest agent with a price fits, since at the limit all is refused.
    fleet = [FLEET[1], agent("free", 0.0, 0.99)]
    assert claims(holding(0.5), fleet=fleet) == [(1, 0.0, pytest.approx(0.998, abs=1e-8))]
    assert claims(holding(0.5, on_limit="free"), fleet=fleet) == []
    assert claims(holding(-1.0, on_limit="free"), fleet=fleet) == []
    assert claims(holding(0.0)) == []
    assert claims(holding(0.0, on_limit="cheapest"), fleet=FLEET[:2]) == [(1, 0.002, math.inf)]
    other = holding(0.5, 2, scope="agent", scope_value="cheap")
    assert [c[0] for c in claims(holding(0.5), other)] == [1]


def test_what_a_plan_may_cost_together():
    made = allowance(holding(0.1, 1), holding(0.05, 2, on_limit="cheapest"), names=("cheap", "dear"))
    costs = np.array([[0.002, 0.03]] * 3)
    everybody = np.ones((3, 2), np.bool_)
    assert made.cap_usd(everybody, costs) == pytest.approx(0.05)
    dear_only = np.array([[False, True]] * 3)
    assert made.cap_usd(dear_only, costs) == pytest.approx(0.09)  # over the soft one, within the hard one
    assert allowance(holding(0.1, scope="agent", scope_value="dear")).cap_usd(everybody, costs) == math.inf
    assert made.passed(np.array([1, 1, 1]), costs) == []  # only the soft one
    assert [h.stored.budget_id for h in made.passed(np.array([1, 1, 1]), costs * 2)] == [1]
