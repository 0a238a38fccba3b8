"""Conformal calibration: the rank is exact, and the coverage is what the theorem says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError
from tinydancer.model.conformal import ConformalInterval, conformal_quantile


@pytest.mark.parametrize(
    ("n", "coverage", "rank"),
    [
        (9, 0.9, 9),
        (19, 0.9, 18),
        (99, 0.9, 90),
        (29, 0.9, 27),
        (10, 0.9, 10),
        (1, 0.5, 1),
        (100, 0.95, 96),
        (3, 0.5, 2),
    ],
)
def test_the_rank_is_that_of_the_finite_sample(n, coverage, rank):
    shuffled = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_quantile(shuffled, coverage) == rank


@pytest.mark.parametrize(("n", "coverage"), [(0, 0.5), (8, 0.9), (18, 0.95), (1, 0.51)])
def test_too_few_residuals_promise_nothing(n, coverage):
    assert conformal_quantile(np.zeros(n), coverage) == math.inf


def test_no_rounding_of_the_product_adds_a_rank():
    for n, percent in itertools.product(range(20, 400), (55, 58, 90)):
        # In whole numbers: the smallest k with 100 k >= percent (n + 1).
        expected = -(-percent * (n + 1) // 100)
        assert conformal_quantile(np.arange(1.0, n + 1), percent / 100) == expected


@pytest.mark.parametrize(("n", "coverage"), [(20, 0.9), (50, 0.8), (12, 0.5)])
def test_marginal_coverage_is_k_over_n_plus_1(n, coverage):
    # Each trial draws n residuals and one more, exchangeable and skewed; the share of trials in which the one is
    # covered has mean k / (n + 1) and standard error sqrt(p (1 - p) / trials), at most 0.0036 here.
    rng = np.random.default_rng(20)
    trials = 20_000
    drawn = rng.lognormal(0.0, 1.5, (trials, n + 1))
    covered = sum(row[n] <= conformal_quantile(row[:n], coverage) for row in drawn) / trials
    exact = math.ceil((n + 1) * coverage) / (n + 1)
    assert covered == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / trials))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_more_coverage_never_narrows(residuals, one, other):
    low, high = sorted((one, other))
    assert conformal_quantile(residuals, low) <= conformal_quantile(residuals, high)


@pytest.mark.parametrize("residuals", [[0.1, -0.1], [math.nan], [math.inf], [[0.1]], 0.3, "abc", [object()]])
def test_bad_residuals_are_refused(residuals):
    with pytest.raises(InvalidInputError, match="residuals"):
        conformal_quantile(residuals, 0.9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1, 2, math.nan, "0.9", True])
def test_bad_coverage_is_refused(coverage):
    with pytest.raises(InvalidInputError, match="coverage"):
        conformal_quantile([0.1], coverage)


def test_intervals_are_cut_to_the_unit_interval():
    interval = ConformalInterval(0.2, 0.9, 100)
    low, high = interval.interval([0.1, 0.5, 0.95])
    np.testing.assert_allclose(low, [0.0, 0.3, 0.75])
    np.testing.assert_allclose(high, [0.3, 0.7, 1.0])
    np.testing.assert_allclose(interval.width([0.1, 0.5, 0.95]), [0.3, 0.4, 0.25])
    assert interval.width(0.5).shape == ()


def test_nothing_promised_is_the_whole_interval():
    np.testing.assert_array_equal(ConformalInterval(math.inf, 0.9, 3).width([0.0, 0.7]), [1.0, 1.0])


def test_from_residuals_and_through_json():
    residuals = np.arange(1, 20) / 100
    interval = ConformalInterval.from_residuals(residuals, 0.9)
    assert interval == ConformalInterval(0.18, 0.9, 19)
    assert ConformalInterval.from_dict(interval.to_dict()) == interval
    nothing = ConformalInterval.from_residuals([], 0.9)
    assert nothing.to_dict() == {"quantile": None, "coverage": 0.9, "n": 0}
    assert ConformalInterval.from_dict(nothing.to_dict()) == nothing


@pytest.mark.parametrize(
    "given", [None, 3, [], {}, {"quantile": 0.1, "coverage": 0.9}, {"quantile": -1, "coverage": 0.9, "n": 3}]
)
def test_bad_descriptions_are_refused(given):
    with pytest.raises(InvalidInputError):
        ConformalInterval.from_dict(given)


@pytest.mark.parametrize("values", [(-0.1, 0.9, 3), (math.nan, 0.9, 3), (0.1, 1.0, 3), (0.1, 0.9, -1), (0.1, 0.9, 1.5)])
def test_bad_values_are_refused(values):
    with pytest.raises(InvalidInputError):
        ConformalInterval(*values)
