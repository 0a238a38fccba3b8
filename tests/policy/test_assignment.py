"""Assignments against the exact optimum on small batches and against the linear programme's bound on large ones."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from tinydancer.errors import InvalidInputError, RoutingError
from tinydancer.policy import lagrangian
from tinydancer.policy.assignment import Assignment, best_quality, cheapest

EXACT = 1e-9


def brute_force(quality, cost, mask, *, floor=None, budget=None, room=None):
    """The optimum over all assignments: the least cost, or the highest mean quality; None where nothing fits."""
    count, agents = quality.shape
    rows, best = np.arange(count), None
    for choice in itertools.product(range(agents), repeat=count):
        at = np.array(choice)
        if not mask[rows, at].all() or (room is not None and (np.bincount(at, minlength=agents) > room).any()):
            continue
        spent, mean = cost[rows, at].sum(), quality[rows, at].mean()
        if (floor is not None and mean < floor - EXACT) or (budget is not None and spent > budget + EXACT):
            continue
        value = -mean if floor is None else spent
        best = value if best is None else min(best, value)
    return best


def programme(quality, cost, mask, *, floor=None, budget=None, room=None) -> dict[str, Any]:
    """The integer programme for scipy, with objective, constraint rows and bounds."""
    count, agents = quality.shape
    rows, low, high = [sparse.kron(sparse.eye(count), np.ones((1, agents)))], [1.0] * count, [1.0] * count
    if floor is not None:
        rows, low, high = [*rows, sparse.csr_matrix(quality.ravel())], [*low, count * floor], [*high, np.inf]
    if budget is not None:
        rows, low, high = [*rows, sparse.csr_matrix(cost.ravel())], [*low, -np.inf], [*high, budget]
    if room is not None:
        each = sparse.kron(np.ones((1, count)), sparse.eye(agents))
        rows, low, high = [*rows, each], [*low, *[-np.inf] * agents], [*high, *room]
    objective = (cost if budget is None else -quality).ravel()
    return {
        "c": objective,
        "A": sparse.vstack(rows).tocsc(),
        "low": low,
        "high": high,
        "upper": mask.ravel().astype(float),
    }


def exact_optimum(**given: Any) -> float | None:
    p = programme(**given)
    found = milp(
        p["c"], integrality=np.ones(p["c"].size), bounds=Bounds(0, p["upper"]),
        constraints=LinearConstraint(p["A"], p["low"], p["high"]), options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    return float(found.fun) if found.success else None


def relaxed_optimum(**given: Any) -> float:
    p = programme(**given)
    low, high = np.array(p["low"]), np.array(p["high"])
    equal = low == high
    upper = [p["A"][~equal][np.isfinite(high[~equal])], -p["A"][~equal][np.isfinite(low[~equal])]]
    limits = np.concatenate([high[~equal][np.isfinite(high[~equal])], -low[~equal][np.isfinite(low[~equal])]])
    found = linprog(
        p["c"], A_ub=sparse.vstack(upper).tocsc() if limits.size else None, b_ub=limits if limits.size else None,
        A_eq=p["A"][equal], b_eq=low[equal], bounds=np.stack([np.zeros(p["c"].size), p["upper"]], axis=1),
    )  # fmt: skip
    assert found.success
    return float(found.fun)


def market(seed: int, count: int, agents: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests of different size and difficulty; dearer agents are better, but not on everything."""
    rng = np.random.default_rng(seed)
    price = np.exp(rng.uniform(np.log(1e-4), np.log(0.05), agents))
    cost = rng.lognormal(0.0, 0.7, count)[:, None] * price
    able = 0.8 * np.log(price / 1e-4) / 6.0 + rng.normal(0.0, 0.3, agents)
    logit = able - rng.normal(0.0, 1.0, count)[:, None] + rng.normal(0.0, 0.5, (count, agents))
    return 1.0 / (1.0 + np.exp(-logit)), cost


def holds(found: Assignment, quality, cost, mask, room=None) -> None:
    """The figures are those of the choices, and the choices are allowed."""
    rows = np.arange(len(quality))
    assert mask[rows, found.chosen].all()
    assert found.cost_usd == pytest.approx(cost[rows, found.chosen].sum(), rel=1e-12)
    assert found.mean_quality == pytest.approx(quality[rows, found.chosen].mean(), rel=1e-12)
    if room is not None:
        assert (np.bincount(found.chosen, minlength=quality.shape[1]) <= room).all()


@st.composite
def small(draw: st.DrawFn) -> dict[str, Any]:
    """Up to five requests and four agents, with ties, free agents, pairs that are out, and scarce agents."""
    count, agents = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    digits = draw(st.sampled_from([1, 2, 12]))
    quality = rng.uniform(0, 1, (count, agents)).round(digits)
    cost = rng.exponential(1.0, (count, agents)).round(digits) * rng.choice([0.0, 1.0, 1.0], agents)
    mask = rng.random((count, agents)) < 0.8
    mask[np.arange(count), rng.integers(0, agents, count)] = True
    room = draw(
        st.sampled_from([None, rng.integers(0, count + 1, agents), rng.integers(count // 2, count + 1, agents)])
    )
    floor, budget = draw(st.sampled_from([(rng.uniform(0.2, 0.9), None), (None, rng.uniform(0.0, 0.8) * count)]))
    return {"quality": quality, "cost": cost, "mask": mask, "floor": floor, "budget": budget, "room": room}


@given(small())
def test_small_batches_are_optimal(case):
    expected = brute_force(**case)
    quality, cost, mask, room = case["quality"], case["cost"], case["mask"], case["room"]
    try:
        if case["floor"] is not None:
            found = cheapest(quality, cost, mask, min_mean_quality=case["floor"], capacities=room)
            value, bound = found.cost_usd, found.bound
        else:
            found = best_quality(quality, cost, mask, budget_usd=case["budget"], capacities=room)
            value, bound = -found.mean_quality, -found.bound
    except RoutingError:
        assert expected is None
        return
    holds(found, quality, cost, mask, room)
    assert expected is not None
    assert value == pytest.approx(expected, abs=1e-8)
    assert bound <= expected + 1e-8
    assert found.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scarce", [False, True])
def test_batches_of_a_hundred_are_optimal(seed, scarce):
    quality, cost = market(seed, 100, 6)
    mask = np.random.default_rng(seed).random(quality.shape) < 0.9
    mask[:, 0] = True
    room = np.array([100, 20, 20, 20, 20, 20]) if scarce else None
    low, high = cheapest(quality, cost, mask, capacities=room), None
    most = float(np.where(mask, quality, 0.0).max(axis=1).mean()) if room is None else 0.9 * quality.mean()
    floor = 0.5 * low.mean_quality + 0.5 * max(most, low.mean_quality)
    found = cheapest(quality, cost, mask, min_mean_quality=floor, capacities=room)
    holds(found, quality, cost, mask, room)
    best = exact_optimum(quality=quality, cost=cost, mask=mask, floor=floor, room=room)
    assert best is not None
    assert best - 1e-9 <= found.cost_usd <= best * (1.0 + 1e-4)
    assert found.cost_usd - found.gap <= best + 1e-9
    budget = 2.0 * low.cost_usd
    high = best_quality(quality, cost, mask, budget_usd=budget, capacities=room)
    holds(high, quality, cost, mask, room)
    best = exact_optimum(quality=quality, cost=cost, mask=mask, budget=budget, room=room)
    assert best is not None
    assert -best / 100 - 1e-4 <= high.mean_quality <= -best / 100 + 1e-9
    assert high.cost_usd <= budget * (1.0 + 1e-9)
    assert high.mean_quality + high.gap >= -best / 100 - 1e-9


@pytest.mark.parametrize("room", [None, [150] * 20, [30] * 6 + [None] * 14], ids=["free", "scarce", "partly"])
def test_large_batches_reach_the_bound_of_the_linear_programme(room):
    quality, cost = market(7, 1000, 20)
    mask = np.ones(quality.shape, bool)
    limits = None if room is None else [1000 if r is None else r for r in room]
    floor = 0.97 * best_quality(quality, cost, budget_usd=1e9, capacities=room).mean_quality
    found = cheapest(quality, cost, min_mean_quality=floor, capacities=room)
    holds(found, quality, cost, mask, None if limits is None else np.array(limits))
    assert found.mean_quality >= floor - 1e-9
    bound = relaxed_optimum(quality=quality, cost=cost, mask=mask, floor=floor, room=limits)
    assert bound * (1 - 1e-7) <= found.cost_usd <= bound * (1 + 1e-3)
    # What is said of the distance holds, and says little less than the truth.
    assert found.bound <= found.cost_usd
    assert found.bound == pytest.approx(bound, rel=1e-3)
    assert found.gap <= 1e-3 * found.cost_usd
    # The multiplier is the price of quality at the margin: a little more quality costs so much more.
    more = cheapest(quality, cost, min_mean_quality=floor + 1e-3, capacities=room)
    assert (more.cost_usd - found.cost_usd) / (1e-3 * 1000) == pytest.approx(found.limit_price, rel=0.1)


@pytest.mark.parametrize("room", [None, [400, 400, 400, 400]])
def test_requests_that_are_all_alike_are_split(room):
    """All of them change their minds at one multiplier; the answer is a mixture all the same."""
    quality = np.tile([0.5, 0.6, 0.8, 0.9], (1000, 1))
    cost = np.tile([0.001, 0.002, 0.01, 0.1], (1000, 1))
    mask = np.ones(quality.shape, bool)
    found = cheapest(quality, cost, mask, min_mean_quality=0.7, capacities=room)
    bound = relaxed_optimum(quality=quality, cost=cost, mask=mask, floor=0.7, room=room)
    assert found.mean_quality >= 0.7 - 1e-9
    assert found.cost_usd == pytest.approx(bound, abs=0.1)  # of one request the difference is 0.099
    assert found.bound == pytest.approx(bound, rel=1e-6)


def test_the_cheapest_and_the_best_without_a_limit():
    quality, cost = market(3, 50, 5)
    assert (cheapest(quality, cost).chosen == cost.argmin(axis=1)).all()
    assert (best_quality(quality, cost, budget_usd=1e6).chosen == quality.argmax(axis=1)).all()
    assert cheapest(quality, cost).limit_price == 0.0


def test_one_more_place_is_worth_its_price():
    quality, cost = market(5, 300, 4)
    room = np.array([60, 300, 300, 300])
    cost[:, 0] *= 0.01  # everybody wants the first
    found = cheapest(quality, cost, capacities=room)
    more = cheapest(quality, cost, capacities=room + np.array([1, 0, 0, 0]))
    assert found.capacity_prices[0] == pytest.approx(found.cost_usd - more.cost_usd, rel=1e-6)
    assert (found.capacity_prices[1:] == 0.0).all()


def test_without_enough_states_the_gap_remains_and_is_true(monkeypatch):
    monkeypatch.setattr(lagrangian, "MOST_WORK", 10)
    monkeypatch.setattr(lagrangian, "ROUNDS", 0)
    seen = 0.0
    for seed in range(20):
        quality, cost = market(seed, 12, 4)
        mask = np.ones(quality.shape, bool)
        floor = 0.9 * float(quality.max(axis=1).mean())
        found = cheapest(quality, cost, min_mean_quality=floor)
        best = exact_optimum(quality=quality, cost=cost, mask=mask, floor=floor)
        assert best is not None
        assert found.cost_usd - found.gap <= best + 1e-9 <= found.cost_usd + 2e-9
        seen = max(seen, found.gap)
    assert seen > 0.0


# -- what cannot be ------------------------------------------------------------------------------------------------


def named(error: str) -> float:
    found = re.search(r"(?:to|of) \$?([0-9.e-]+)[ ,]", error)
    assert found, error
    return float(found[1])


@pytest.mark.parametrize("room", [None, [10, 10, 10]])
def test_a_floor_that_nobody_reaches_names_one_that_will_do(room):
    quality, cost = market(1, 25, 3)
    with pytest.raises(RoutingError, match=r"reaches a mean expected quality of 0\.99") as caught:
        cheapest(quality, cost, min_mean_quality=0.99, capacities=room)
    floor = named(caught.value.hint)
    cheapest(quality, cost, min_mean_quality=floor, capacities=room)
    with pytest.raises(RoutingError):
        cheapest(quality, cost, min_mean_quality=floor + 1e-3, capacities=room)


@pytest.mark.parametrize("room", [None, [10, 10, 10]])
def test_a_budget_that_is_too_small_names_one_that_will_do(room):
    quality, cost = market(1, 25, 3)
    with pytest.raises(RoutingError, match="does not pay for 25 requests") as caught:
        best_quality(quality, cost, budget_usd=1e-6, capacities=room)
    budget = named(caught.value.hint)
    best_quality(quality, cost, budget_usd=budget, capacities=room)
    with pytest.raises(RoutingError):
        best_quality(quality, cost, budget_usd=0.99 * budget, capacities=room)


def test_capacities_that_leave_requests_over_say_how_many():
    quality, cost = market(1, 25, 3)
    with pytest.raises(RoutingError, match="leave 4 requests of 25") as caught:
        cheapest(quality, cost, capacities=[7, 7, 7])
    assert "Raise them by 4" in caught.value.hint
    mask = np.ones(quality.shape, bool)
    mask[:10, 1:] = False  # ten requests that only the first may serve, which takes seven
    with pytest.raises(RoutingError, match="leave 3 requests of 25"):
        cheapest(quality, cost, mask, capacities=[7, 99, 99])


def test_a_request_without_an_agent_of_known_cost_is_named():
    quality, cost = market(1, 5, 2)
    cost[2] = np.nan
    with pytest.raises(RoutingError, match="Request number 3 of 5 has no agent"):
        cheapest(quality, cost)
    cost[2, 1] = 1.0
    assert cheapest(quality, cost).chosen[2] == 1


def test_a_floor_for_each_request():
    quality = np.array([[0.5, 0.9], [0.8, 0.7]])
    cost = np.array([[1.0, 5.0], [1.0, 5.0]])
    assert cheapest(quality, cost, min_quality=0.6).chosen.tolist() == [1, 0]
    with pytest.raises(RoutingError, match=r"number 2 of 2 has no agent of an expected quality of 0\.85") as caught:
        cheapest(quality, cost, min_quality=0.85)
    assert cheapest(quality, cost, min_quality=named(caught.value.hint)).chosen.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("quality", "cost", "more", "message"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, "nothing to assign"),
        (np.zeros((2, 2)), np.zeros((2, 3)), {}, "expected one row per request"),
        (np.ones((2, 2)), np.ones((2, 2)), {"capacities": [1]}, "expected 2, one per agent"),
        (np.ones((2, 2)), np.ones((2, 2)), {"capacities": [-1, 2]}, "expected at least 0"),
    ],
)
def test_what_is_no_table_is_refused(quality, cost, more, message):
    with pytest.raises(InvalidInputError, match=message):
        cheapest(quality, cost, **more)


def test_no_limit_is_none_nan_or_infinity():
    quality, cost = market(2, 30, 3)
    plain = cheapest(quality, cost, min_mean_quality=0.5)
    assert (
        cheapest(quality, cost, min_mean_quality=0.5, capacities=[None, math.nan, math.inf]).cost_usd == plain.cost_usd
    )
