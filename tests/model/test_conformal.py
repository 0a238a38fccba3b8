"""Conformal calibration: the rank is exact, and the coverage is what the theorem says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.conformity_scores import ResidualNormalisedScore
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, RegressorMixin

from tinydancer.errors import InvalidInputError
from tinydancer.model.conformal import SCALE_FLOOR, ConformalInterval, conformal_quantile


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


# -- widths by prediction ------------------------------------------------------------------------------------------


def test_the_width_follows_the_prediction():
    interval = ConformalInterval(0.5, 0.9, 100, scale_floor=0.1)
    # s(0.5) = 0.5 + 0.1, s(0.9) = 0.3 + 0.1, s(1) = 0.1
    low, high = interval.interval([0.5, 0.9, 1.0])
    np.testing.assert_allclose(low, [0.2, 0.7, 0.95])
    np.testing.assert_allclose(high, [0.8, 1.0, 1.0])
    assert (np.diff(interval.width(np.linspace(0.5, 1.0, 30))) < 0.0).all()


def test_from_outcomes_takes_the_rank_of_the_scaled_errors():
    predicted = np.full(19, 0.5)  # all of scale 0.6
    observed = 0.5 + np.arange(1, 20) / 100
    interval = ConformalInterval.from_outcomes(predicted, observed, 0.9, scale_floor=0.1)
    assert interval.quantile == pytest.approx(0.18 / 0.6)
    assert (interval.coverage, interval.n, interval.scale_floor) == (0.9, 19, 0.1)
    assert ConformalInterval.from_outcomes(predicted, observed, 0.9).scale_floor == SCALE_FLOOR


def test_a_request_without_an_outcome_does_not_count():
    predicted = [0.2, 0.9, 0.5, 0.4]
    one = ConformalInterval.from_outcomes(predicted, [0.0, math.nan, 1.0, 0.0], 0.5)
    other = ConformalInterval.from_outcomes([0.2, 0.5, 0.4], [0.0, 1.0, 0.0], 0.5)
    assert one == other
    assert one.n == 3


def test_several_answers_of_a_request_raise_the_rank():
    # 30 requests with 3 answers each: the rank is ceil((90 + 3) 0.9) = 84, not ceil(91 x 0.9) = 82.
    errors = np.arange(1, 91) / 200
    interval = ConformalInterval.from_outcomes(np.full((30, 3), 0.5), (0.5 + errors).reshape(30, 3), 0.9)
    assert interval.quantile == pytest.approx(84 / 200 / (0.5 + SCALE_FLOOR))
    assert conformal_quantile(errors, 0.9, per_request=3) == pytest.approx(84 / 200)


@pytest.mark.parametrize("seed", [1, 2])
def test_coverage_of_yes_and_no_is_exact_and_the_width_useful(seed):
    # Scores without ties: of n = 99 the 90th covers the next with probability 90 / 100 exactly.
    rng = np.random.default_rng(seed)
    covered, widths, plain_widths = [], [], []
    for _ in range(2_000):
        truth = rng.beta(2.0, 1.0, 109)
        observed = (rng.random(109) < truth).astype(float)
        interval = ConformalInterval.from_outcomes(truth[:99], observed[:99], 0.9)
        low, high = interval.interval(truth[99:])
        covered.append(((low <= observed[99:]) & (observed[99:] <= high)).mean())
        widths.append((high - low).mean())
        plain = ConformalInterval.from_residuals(np.abs(observed - truth)[:99], 0.9)
        plain_widths.append(plain.width(truth[99:]).mean())
    # A split's coverage over 10 requests has a standard deviation below 0.1 + 0.03; of 2,000 splits, 0.003.
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    assert np.mean(widths) < np.mean(plain_widths) - 0.05


def test_coverage_holds_where_answers_of_one_request_depend_on_each_other():
    # The 5 answers of a request share nearly all of its luck, so 15 requests are worth 15, not 75. The rank of
    # independent residuals, ceil(76 x 0.9) = 69, is among those of the 14th request: 14 / 16 are covered, too few. The
    # rank of requests, ceil(80 x 0.9) = 72, is among those of the 15th.
    rng = np.random.default_rng(3)
    errors = np.abs(rng.normal(0.0, 1.0, (20_000, 16, 1)) + 0.001 * rng.normal(0.0, 1.0, (20_000, 16, 5)))

    def covered(per_request: int) -> float:
        quantiles = [conformal_quantile(row[:15].ravel(), 0.9, per_request=per_request) for row in errors]
        return float((errors[:, 15] <= np.array(quantiles)[:, None]).mean())

    assert covered(1) == pytest.approx(14 / 16, abs=0.008)
    assert covered(5) == pytest.approx(15 / 16, abs=0.008)


def test_the_outcome_that_set_the_quantile_is_inside():
    # Ends are computed from the quantile times the scale, the quantile from the error over the scale.
    rng = np.random.default_rng(4)
    for _ in range(300):
        predicted, observed = rng.random(9), rng.integers(0, 2, 9).astype(float)
        low, high = ConformalInterval.from_outcomes(predicted, observed, 0.9).interval(predicted)
        assert ((low <= observed) & (observed <= high)).all()


@given(st.floats(0, 5), st.floats(0, 1), st.floats(0.01, 1))
def test_intervals_hold_the_prediction_and_stay_inside(quantile, prediction, floor):
    low, high = ConformalInterval(quantile, 0.9, 10, floor).interval(prediction)
    assert 0.0 <= low <= prediction <= high <= 1.0


def test_scaled_intervals_through_json_and_old_files():
    interval = ConformalInterval(0.5, 0.9, 100, 0.1)
    assert interval.to_dict() == {"quantile": 0.5, "coverage": 0.9, "n": 100, "scale_floor": 0.1}
    assert ConformalInterval.from_dict(interval.to_dict()) == interval
    assert ConformalInterval.from_dict({"quantile": 0.5, "coverage": 0.9, "n": 100}).scale_floor is None
    nothing = ConformalInterval.from_outcomes([], [], 0.9)
    assert ConformalInterval.from_dict(nothing.to_dict()) == nothing
    np.testing.assert_array_equal(nothing.width([0.0, 0.5]), [1.0, 1.0])


@pytest.mark.parametrize(
    ("predicted", "observed"),
    [
        ([0.5], [0.5, 0.5]),
        ([[[0.5]]], [[[0.5]]]),
        (0.5, 0.5),
        ([1.5], [0.5]),
        ([math.nan], [0.5]),
        ([0.5], [-0.1]),
        ([0.5], [1.1]),
    ],
)
def test_bad_outcomes_are_refused(predicted, observed):
    with pytest.raises(InvalidInputError, match=r"predicted|observed"):
        ConformalInterval.from_outcomes(predicted, observed, 0.9)


@pytest.mark.parametrize("floor", [0.0, -1.0, math.nan, "a"])
def test_bad_floors_are_refused(floor):
    with pytest.raises(InvalidInputError, match="scale_floor"):
        ConformalInterval(0.5, 0.9, 10, floor)


# -- MAPIE as the oracle -------------------------------------------------------------------------------------------


class _Given(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted model whose prediction is the first feature, or the scale of that."""

    def __init__(self, scale: bool = False) -> None:
        self.scale = scale
        self.fitted_ = True

    def fit(self, X, y):
        return self

    def predict(self, X):
        first = np.asarray(X)[:, 0]
        return np.sqrt(first * (1.0 - first)) + 0.1 if self.scale else first


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("scaled", [False, True])
def test_intervals_are_those_of_mapie(coverage, scaled):
    rng = np.random.default_rng(5)
    predicted = rng.uniform(0.05, 0.95, 157)
    observed = np.clip(predicted + rng.normal(0.0, 0.1, 157), 0.0, 1.0)
    score = ResidualNormalisedScore(residual_estimator=_Given(scale=True), prefit=True) if scaled else "absolute"
    oracle = SplitConformalRegressor(_Given(), confidence_level=coverage, conformity_score=score, prefit=True)
    oracle.conformalize(predicted[:, None], observed)
    new = np.linspace(0.01, 0.99, 30)
    _, ends = oracle.predict_interval(new[:, None])
    if scaled:
        interval = ConformalInterval.from_outcomes(predicted, observed, coverage, scale_floor=0.1)
    else:
        interval = ConformalInterval.from_residuals(np.abs(predicted - observed), coverage)
    np.testing.assert_allclose(interval.interval(new), np.clip(ends[:, :, 0].T, 0.0, 1.0), atol=1e-7)
