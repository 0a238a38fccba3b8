"""Placement within the room against scipy's assignment, and prices that clear the market."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tinydancer.policy.transport import place, prices_of


def least_cost(cost: np.ndarray, room: np.ndarray) -> float:
    """Every place a column of its own."""
    columns = np.repeat(np.arange(cost.shape[1]), np.minimum(room, len(cost)))
    wide = np.where(np.isfinite(cost), cost, 1e6)[:, columns]
    rows, chosen = linear_sum_assignment(wide)
    return float(wide[rows, chosen].sum())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("start", ["nothing", "prices", "nonsense"])
def test_the_placement_is_the_cheapest_whatever_it_starts_from(seed, start):
    rng = np.random.default_rng(seed)
    cost = rng.normal(0.0, 1.0, (60, 5)).round(int(rng.integers(0, 6)))
    cost[rng.random(cost.shape) < 0.1] = np.inf
    cost[:, 0] = rng.normal(3.0, 1.0, 60)
    room = np.array([60, 15, 10, 5, 0])
    guess = {
        "nothing": np.zeros(5), "prices": prices_of(cost, None, np.inf, room)[1], "nonsense": rng.uniform(0.0, 5.0, 5),
    }[start]  # fmt: skip
    placed = place(cost, guess, room)
    assert placed.unplaced == 0
    assert (np.bincount(placed.chosen, minlength=5) <= room).all()
    value = float(cost[np.arange(60), placed.chosen].sum())
    assert value == pytest.approx(least_cost(cost, room), abs=1e-9)
    # Under the prices nobody would rather be elsewhere: the dual has the same value, which proves the optimum.
    dual = float((cost + placed.prices).min(axis=1).sum() - placed.prices @ room)
    assert dual == pytest.approx(value, abs=1e-9)
    assert (placed.prices >= 0.0).all()


def test_requests_that_are_alike_move_together():
    cost = np.tile([1.0, 2.0, 5.0], (3000, 1))
    placed = place(cost, np.zeros(3), np.array([1000, 1500, 3000]))
    assert np.bincount(placed.chosen).tolist() == [1000, 1500, 500]
    assert placed.prices.tolist() == [4.0, 3.0, 0.0]


def test_requests_that_find_no_place_are_counted():
    cost = np.zeros((10, 2))
    cost[:6, 1] = np.inf
    assert place(cost, np.zeros(2), np.array([4, 9])).unplaced == 2
    assert place(cost, np.zeros(2), np.array([6, 4])).unplaced == 0
    assert place(cost, np.zeros(2), np.array([6, 3])).unplaced == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_prices_clear_the_market(seed):
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(0.0, 1.0, (2000, 6))
    room = np.array([100, 200, 300, 400, 500, 2000])
    _, prices = prices_of(cost, None, np.inf, room)
    load = np.bincount((cost + prices).argmin(axis=1), minlength=6)
    assert np.abs(load[:5] - room[:5]).max() <= 25  # of thousands; `place` does the rest
    assert prices[5] == 0.0


def test_it_ends_whatever_the_numbers():
    """Costs over twenty orders of magnitude and prices far off: rounding may feign circles that pay."""
    rng = np.random.default_rng(3)
    for _ in range(150):
        count, agents = int(rng.integers(20, 200)), int(rng.integers(2, 10))
        cost = rng.lognormal(0.0, 3.0, (count, agents)) * 10.0 ** rng.integers(-8, 9, agents)
        cost[rng.random(cost.shape) < 0.2] = np.inf
        cost[:, 0] = 1.0
        room = rng.integers(0, count, agents)
        room[0] = count
        placed = place(cost, rng.lognormal(0.0, 12.0, agents), room)
        assert placed.unplaced == 0
        assert (np.bincount(placed.chosen, minlength=agents) <= room).all()
        assert np.isfinite(cost[np.arange(count), placed.chosen]).all()
