"""A month's budget against the linear programme, which scipy solves."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from tinydancer.errors import RoutingError
from tinydancer.policy.budget_plan import allocate, allocate_uniformly


def traffic(seed: int, count: int = 120, agents: int = 5):
    rng = np.random.default_rng(seed)
    price = np.exp(rng.uniform(-8.0, -3.0, agents))
    quality = np.clip(0.6 + 0.05 * np.log(price / price.min()) + rng.normal(0.0, 0.1, (count, agents)), 0.0, 1.0)
    allowed = rng.random((count, agents)) < 0.9
    allowed[:, 0] = True
    return quality, rng.lognormal(0.0, 0.5, count)[:, None] * price, allowed


def best_of_programme(quality, cost, allowed, budget_usd, requests):
    count, agents = quality.shape
    scale = requests / count
    found = linprog(
        -quality.ravel() / count, A_ub=cost.ravel()[None] * scale, b_ub=[budget_usd],
        A_eq=sparse.kron(sparse.eye(count), np.ones((1, agents))), b_eq=np.ones(count),
        bounds=np.stack([np.zeros(quality.size), allowed.ravel().astype(float)], axis=1),
    )  # fmt: skip
    return -float(found.fun)


@pytest.mark.parametrize("seed", range(6))
def test_the_allocation_is_that_of_the_linear_programme(seed):
    quality, cost, allowed = traffic(seed)
    requests = 30_000.0
    least = float(np.where(allowed, cost, np.inf).min(axis=1).mean()) * requests
    for budget in (1.1 * least, 3.0 * least, 100.0 * least):
        found = allocate(quality, cost, allowed, budget_usd=budget, requests=requests, min_quality=0.7)
        best = best_of_programme(quality, cost, allowed, budget, requests)
        assert found.quality == pytest.approx(best, abs=1e-4)
        assert found.quality <= best + 1e-9 <= found.quality + found.quality_gap + 2e-9
        assert found.spend_usd.sum() <= budget * (1 + 1e-9)
        assert found.share.sum() == pytest.approx(1.0)
        assert ((found.spend_usd > 0.0) == (found.share > 0.0)).all()


def test_the_least_budget_for_a_quality_is_the_least():
    quality, cost, allowed = traffic(1)
    wanted = 0.8
    found = allocate(quality, cost, allowed, budget_usd=1e6, requests=1000.0, min_quality=wanted)
    assert found.cheapest_usd is not None
    enough = allocate(
        quality, cost, allowed, budget_usd=found.cheapest_usd * 1.001, requests=1000.0, min_quality=wanted
    )
    short = allocate(quality, cost, allowed, budget_usd=found.cheapest_usd * 0.98, requests=1000.0, min_quality=wanted)
    assert enough.quality >= wanted > short.quality
    assert found.most_quality == pytest.approx(np.where(allowed, quality, 0.0).max(axis=1).mean())
    out_of_reach = allocate(quality, cost, allowed, budget_usd=1e6, requests=1000.0, min_quality=0.999)
    assert out_of_reach.cheapest_usd is None


def test_one_kind_of_request_is_divided():
    """A sample of one row: the mixture of two agents, not all of it or nothing."""
    quality, cost = np.array([[0.6, 0.9]]), np.array([[0.01, 0.1]])
    found = allocate(quality, cost, np.ones((1, 2), bool), budget_usd=37.0, requests=1000.0, min_quality=0.5)
    assert found.share == pytest.approx([0.7, 0.3], abs=2e-3)
    assert found.spend_usd == pytest.approx([7.0, 30.0], abs=0.2)
    assert found.quality == pytest.approx(0.69, abs=1e-3)


def test_a_budget_that_does_not_pay_names_one_that_does():
    quality, cost, allowed = traffic(2)
    with pytest.raises(RoutingError, match="does not pay for 1,000 requests") as caught:
        allocate(quality, cost, allowed, budget_usd=1e-6, requests=1000.0, min_quality=0.5)
    found = re.search(r"\$([0-9.e-]+),", caught.value.hint)
    assert found
    allocate(quality, cost, allowed, budget_usd=float(found[1]), requests=1000.0, min_quality=0.5)


def test_without_traffic_all_serve_alike():
    quality, cost = np.array([0.9, 0.8, 0.7]), np.array([0.03, 0.01, 0.02])
    found = allocate_uniformly(quality, cost, np.array([True, True, False]), budget_usd=100.0)
    assert found.share.tolist() == [0.5, 0.5, 0.0]
    assert found.spend_usd == pytest.approx([75.0, 25.0, 0.0])
    assert found.requests == pytest.approx(5000.0)
    assert found.quality == pytest.approx(0.85)


def test_agents_that_are_free_spend_nothing():
    found = allocate_uniformly(np.array([0.9]), np.array([0.0]), np.array([True]), budget_usd=100.0)
    assert (found.spend_usd.tolist(), found.share.tolist(), found.requests) == ([0.0], [1.0], 0.0)
