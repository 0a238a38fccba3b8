"""Agents that are right together: closed forms, limits, and a simulation with a seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from tinydancer.errors import InvalidInputError
from tinydancer.policy.copula import (
    Correlations,
    all_good,
    any_good,
    grid,
    majority_good,
    normal_cdf,
    normal_quantile,
)

ALONE = Correlations(0.0, 0.0)
QUALITY = np.array([0.9, 0.8, 0.6, 0.75, 0.3])
FAMILIES = ["a", "a", "b", "c", "b"]
DRAWS = 400_000
SCATTER = 4.0 * math.sqrt(0.25 / DRAWS)
"""Four standard errors of a share, which is at most this."""


def simulated(correlations: Correlations) -> np.ndarray:
    """``bool[agents, draws]``: good answers, drawn as the model says."""
    rng = np.random.default_rng(11)
    request = rng.normal(size=DRAWS)
    family = {name: rng.normal(size=DRAWS) for name in sorted(set(FAMILIES))}
    latent = np.stack(
        [
            math.sqrt(correlations.across) * request
            + math.sqrt(correlations.family - correlations.across) * family[name]
            + math.sqrt(1.0 - correlations.family) * rng.normal(size=DRAWS)
            for name in FAMILIES
        ]
    )
    return np.asarray(latent <= norm.ppf(QUALITY)[:, None])


@pytest.mark.parametrize("pair", [(0.0, 0.0), (0.4, 0.7), (0.4, 0.4), (0.0, 0.6), (0.9, 0.95)])
def test_as_simulated(pair):
    correlations = Correlations(*pair)
    good = simulated(correlations)
    count = good.sum(axis=0)
    assert any_good(QUALITY, FAMILIES, correlations) == pytest.approx((count > 0).mean(), abs=SCATTER)
    assert all_good(QUALITY, FAMILIES, correlations) == pytest.approx((count == 5).mean(), abs=SCATTER)
    assert majority_good(QUALITY, FAMILIES, correlations) == pytest.approx((count >= 3).mean(), abs=SCATTER)
    even = ((count := good[:4].sum(axis=0)) > 2).mean() + 0.5 * (count == 2).mean()
    assert majority_good(QUALITY[:4], FAMILIES[:4], correlations) == pytest.approx(even, abs=SCATTER)


def test_independent_agents_in_closed_form():
    q = QUALITY[:3]
    names = FAMILIES[:3]
    assert any_good(q, names, ALONE) == pytest.approx(1.0 - np.prod(1.0 - q), abs=1e-6)
    assert all_good(q, names, ALONE) == pytest.approx(np.prod(q), abs=1e-6)
    two = q[0] * q[1] * (1 - q[2]) + q[0] * (1 - q[1]) * q[2] + (1 - q[0]) * q[1] * q[2]
    assert majority_good(q, names, ALONE) == pytest.approx(two + np.prod(q), abs=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("families", [["a", "b"], ["a", "a"]])
def test_the_orthant_of_two_even_chances(rho, families):
    """Both below zero: 1/4 + asin(rho) / (2 pi), whichever way the correlation comes about (Sheppard)."""
    correlations = Correlations(rho, rho) if families == ["a", "b"] else Correlations(0.0, rho)
    expected = 0.25 + math.asin(rho) / (2.0 * math.pi)
    assert all_good(np.array([0.5, 0.5]), families, correlations) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("quality", [0.001, 0.5, 0.999])
def test_one_agent_is_as_good_as_it_is(quality):
    q = np.array([quality])
    for good in (any_good, all_good, majority_good):
        assert good(q, ["a"], Correlations()) == pytest.approx(quality, abs=1e-6)


def test_relatives_add_less():
    q = np.array([0.8, 0.8, 0.8])
    strangers = any_good(q, ["a", "b", "c"], Correlations(0.3, 0.8))
    relatives = any_good(q, ["a", "a", "a"], Correlations(0.3, 0.8))
    assert 0.8 < relatives < strangers < 1.0


def test_the_normal_distribution():
    x = np.linspace(-9.0, 9.0, 2001)
    assert np.abs(normal_cdf(x) - norm.cdf(x)).max() < 2e-7
    p = np.array([1e-6, 0.1, 0.5, 0.9])
    assert normal_quantile(p) == pytest.approx(norm.ppf(p))
    assert np.isfinite(normal_quantile(np.array([0.0, 1.0]))).all()
    nodes, weights = grid()
    assert [float(weights @ nodes**power) for power in (0, 2, 4)] == pytest.approx([1.0, 1.0, 3.0], abs=1e-6)


@pytest.mark.parametrize("pair", [(-0.1, 0.5), (0.5, 0.4), (0.99, 0.99), (0.2, 1.5)])
def test_correlations_that_cannot_be(pair):
    with pytest.raises(InvalidInputError):
        Correlations(*pair)
