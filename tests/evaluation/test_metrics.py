"""The measures against closed forms, brute force and invariances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.evaluation import metrics
from tinydancer.evaluation.metrics import Calibration, CostCurve, PairCurve, Routed, interval, ones, resamples

NAN = math.nan


def rng(seed=0):
    return np.random.default_rng(seed)


def at_once(measure, n):
    return {name: float(values[0]) for name, values in measure.at(ones(n)).items()}


def brute_force_pgr(gain, weak, strong):
    """PGR_0, ..., PGR_n as the expected value over all orders of tied requests."""
    n = len(gain)
    curves = []
    for order in itertools.permutations(range(n)):
        if all(gain[a] >= gain[b] for a, b in itertools.pairwise(order)):
            chosen = [set(order[:k]) for k in range(n + 1)]
            quality = [sum(strong[i] if i in s else weak[i] for i in range(n)) / n for s in chosen]
            curves.append([(q - np.mean(weak)) / (np.mean(strong) - np.mean(weak)) for q in quality])
    return np.mean(curves, axis=0)


# -- pairs ---------------------------------------------------------------------------------------------------------


def test_apgr_and_cpt_by_hand():
    # Gains rank the requests 0, 1, 2, 3; strong adds 1, 0, 1, 0: PGR = 0, 1/2, 1/2, 1, 1.
    curve = PairCurve(np.array([0.9, 0.5, 0.4, 0.1]), np.zeros(4), np.array([1.0, 0.0, 1.0, 0.0]))
    got = at_once(curve, 4)
    assert got["apgr"] == pytest.approx(3.0 / 5.0)
    assert got["cpt50"] == 0.25
    assert got["cpt80"] == got["cpt95"] == 0.75


def test_equal_predictions_are_chance_exactly():
    strong = rng().random(37)
    got = at_once(PairCurve(np.full(37, 0.3), strong - 0.2, strong), 37)
    assert got["apgr"] == pytest.approx(0.5, abs=1e-12)
    assert got["cpt50"] == math.ceil(0.5 * 37) / 37
    assert got["cpt80"] == math.ceil(0.8 * 37) / 37


def test_the_oracle_and_its_opposite_bound_every_ranking():
    weak, strong = rng(1).random(50), rng(2).random(50) + 0.3
    oracle = at_once(PairCurve(strong - weak, weak, strong), 50)["apgr"]
    worst = at_once(PairCurve(weak - strong, weak, strong), 50)["apgr"]
    # Reversing the order mirrors PGR at its middle.
    assert oracle + worst == pytest.approx(1.0)
    for seed in range(20):
        any_order = at_once(PairCurve(rng(seed).random(50), weak, strong), 50)["apgr"]
        assert worst <= any_order <= oracle


grades = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), grades, grades), min_size=1, max_size=6))
def test_ties_are_the_mean_over_all_their_orders(rows):
    gain, weak, strong = (np.array(column, float) for column in zip(*rows, strict=True))
    got = at_once(PairCurve(gain, weak, strong), len(rows))
    if strong.sum() <= weak.sum():
        assert all(math.isnan(value) for value in got.values())
        return
    expected = brute_force_pgr(gain, weak, strong)
    assert got["apgr"] == pytest.approx(expected.mean(), abs=1e-9)
    for x in (50, 80, 95):
        assert got[f"cpt{x}"] == np.argmax(expected >= x / 100 - 1e-9) / len(rows)


def test_pair_measures_need_a_stronger_agent():
    assert math.isnan(at_once(PairCurve(np.arange(3.0), np.ones(3), np.ones(3)), 3)["apgr"])
    assert math.isnan(at_once(PairCurve(np.zeros(2), np.full(2, NAN), np.ones(2)), 2)["apgr"])


def test_requests_that_one_of_both_did_not_answer_do_not_count():
    gain, weak, strong = np.array([0.3, 0.9, 0.1]), np.array([0.0, NAN, 1.0]), np.array([1.0, 1.0, 1.0])
    got = at_once(PairCurve(gain, weak, strong), 3)
    assert got == at_once(PairCurve(gain[[0, 2]], weak[[0, 2]], strong[[0, 2]]), 2)


def test_points_of_the_pair_curve():
    curve = PairCurve(np.array([0.9, 0.1]), np.array([0.0, 0.5]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(
        curve.points(ones(2), np.array([0.0, 0.25, 0.5, 1.0])), [[0.25, 0.5, 0.75, 0.75]], atol=1e-12
    )


def test_folds_are_ranked_by_themselves():
    gain = np.array([0.1, 0.2, 0.3, 10.1, 10.2, 10.2, NAN])
    folds = np.array([0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(
        metrics.ranks_within(gain, folds), [0.5 / 3, 1.5 / 3, 2.5 / 3, 0.5 / 3, 2 / 3, 2 / 3, NAN]
    )


# -- choosing by predicted quality ---------------------------------------------------------------------------------


def test_routed_quality_by_hand():
    predicted = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    quality = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, NAN]])
    cost = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, NAN]])
    got = at_once(Routed(predicted, quality, cost), 3)
    # The tie counts half for each; the second agent did not answer the third request.
    assert got["routed_quality"] == pytest.approx((1.0 + 0.5 + 0.5) / 3)
    assert got["routed_cost_usd"] == pytest.approx((2.0 + 1.5 + 2.0) / 3)
    assert math.isnan(at_once(Routed(predicted, quality), 3)["routed_cost_usd"])


def test_choosing_by_the_answer_is_the_oracle():
    quality = rng(3).random((40, 5))
    assert at_once(Routed(quality, quality), 40)["routed_quality"] == pytest.approx(quality.max(axis=1).mean())
    assert at_once(Routed(np.zeros((40, 5)), quality), 40)["routed_quality"] == pytest.approx(quality.mean())


# -- the curve over prices of money --------------------------------------------------------------------------------


def brute_force_points(predicted, estimated, quality, cost):
    """(cost, quality) of argmax(predicted - price x cost) at prices between all prices at which two agents tie."""
    n, agents = predicted.shape
    ties = {0.0}
    for i, a, b in itertools.product(range(n), range(agents), range(agents)):
        if estimated[i, a] > estimated[i, b]:
            ties.add((predicted[i, a] - predicted[i, b]) / (estimated[i, a] - estimated[i, b]))
    prices = sorted(tie for tie in ties if tie >= 0.0)
    between = [(low + high) / 2 for low, high in itertools.pairwise(prices)] + [prices[-1] + 1.0]
    points = []
    for price in between:
        chosen = np.argmax(predicted - price * estimated, axis=1)
        points.append((cost[np.arange(n), chosen].mean(), quality[np.arange(n), chosen].mean()))
    return points


@pytest.mark.parametrize("seed", range(12))
def test_the_exact_curve_is_what_a_search_over_prices_finds(seed):
    r = rng(seed)
    n, agents = 7, 4
    predicted, estimated, quality, cost = (r.random((n, agents)) for _ in range(4))
    curve = CostCurve(predicted, estimated, quality, cost, 0, 1)
    got_cost, got_quality = curve.points(ones(n))
    expected = brute_force_points(predicted, estimated, quality, cost)
    # The search also sees prices at which no choice changes: repetitions.
    distinct = [point for i, point in enumerate(expected) if i == 0 or point != expected[i - 1]]
    np.testing.assert_allclose(np.c_[got_cost[0], got_quality[0]], np.array(distinct), atol=1e-9)
    assert (np.diff(curve.prices) >= 0).all()
    # At price 0 the prediction decides alone, at the end the estimated cost.
    rows = np.arange(n)
    assert got_quality[0, 0] == pytest.approx(quality[rows, predicted.argmax(axis=1)].mean())
    assert got_cost[0, -1] == pytest.approx(cost[rows, estimated.argmin(axis=1)].mean())


def test_relative_costs_by_hand():
    # A costs 1, B costs 4. A answers two of four, B all. The prediction knows where A fails, but for one request.
    predicted = np.array([[0.9, 1.0], [0.8, 1.0], [0.1, 1.0], [0.85, 1.0]])
    quality = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    cost = np.tile([1.0, 4.0], (4, 1))
    curve = CostCurve(predicted, cost, quality, cost, best=1, cheapest=0)
    points = np.c_[curve.points(ones(4))[0][0], curve.points(ones(4))[1][0]]
    np.testing.assert_allclose(points, np.array([[4, 1], [3.25, 1], [2.5, 0.75], [1.75, 0.75], [1, 0.5]]))
    got = at_once(curve, 4)
    assert got["relative_cost_at_90"] == got["relative_cost_at_100"] == pytest.approx(3.25 / 4)
    # Budgets from 1/4 to 1: quality 1/2 up to 1.75/4, 3/4 up to 3.25/4, then 1.
    assert got["area"] == pytest.approx((0.75 * 0.5 + 1.5 * 0.75 + 0.75 * 1.0) / 3.0)


def test_always_the_best_agent_is_a_point_of_every_curve():
    quality = np.array([[1.0, 0.0], [1.0, 0.0]])
    cost = np.array([[3.0, 1.0], [3.0, 1.0]])
    got = at_once(CostCurve(1.0 - quality, cost, quality, cost, best=0, cheapest=1), 2)
    assert [got[f"relative_cost_at_{x}"] for x in (90, 95, 98, 100)] == [1.0] * 4


def test_a_request_is_not_judged_by_its_own_cost():
    # Realised costs are absurd; choices follow the estimates.
    quality = np.array([[1.0, 0.0]] * 3)
    estimated = np.tile([1.0, 0.5], (3, 1))
    realised = np.array([[0.001, 90.0]] * 3)
    cost, _ = CostCurve(quality * 0.5, estimated, quality, realised, 0, 1).points(ones(3))
    np.testing.assert_allclose(cost, [[0.001, 90.0]])


def test_agents_that_did_not_answer_cannot_be_chosen():
    quality = np.array([[NAN, 0.5, 0.7], [1.0, NAN, 0.2]])
    predicted = np.array([[1.0, 0.5, 0.6], [0.9, 0.8, 0.1]])
    cost = np.array([[NAN, 2.0, 3.0], [5.0, NAN, 1.0]])
    estimated = np.tile([4.0, 2.0, 3.0], (2, 1))
    got_cost, got_quality = CostCurve(predicted, estimated, quality, cost, 0, 1).points(ones(2))
    assert got_quality[0, 0] == pytest.approx((0.7 + 1.0) / 2)
    assert got_cost[0, 0] == pytest.approx((3.0 + 5.0) / 2)
    assert got_quality[0, -1] == pytest.approx((0.5 + 0.2) / 2)
    assert np.isfinite(got_cost).all()


def test_within_budget_is_a_staircase_of_the_best_points():
    quality = np.array([[1.0, 0.0], [1.0, 0.0]])
    cost = np.array([[4.0, 1.0], [4.0, 1.0]])
    curve = CostCurve(np.array([[0.9, 0.0], [0.3, 0.0]]), cost, quality, cost, 0, 1)
    budgets = np.array([0.2, 0.25, 0.5, 0.625, 1.0])
    np.testing.assert_allclose(curve.within_budget(ones(2), budgets), [[NAN, 0.0, 0.0, 0.5, 1.0]])


def test_an_area_needs_a_cheaper_agent():
    quality, cost = np.array([[1.0, 0.0]]), np.array([[1.0, 2.0]])
    assert math.isnan(at_once(CostCurve(quality, cost, quality, cost, 0, 0), 1)["area"])


# -- calibration ---------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand():
    # Two bins of two: said .1 .3 against 0 1, said .6 .8 against 1 1.
    said, seen = np.array([[0.1], [0.3], [0.6], [0.8]]), np.array([[0.0], [1.0], [1.0], [1.0]])
    calibration = Calibration(said, seen, bins=2)
    got = at_once(calibration, 4)
    assert got["ece"] == pytest.approx(0.5 * abs(0.2 - 0.5) + 0.5 * abs(0.7 - 1.0))
    assert got["brier"] == pytest.approx((0.01 + 0.49 + 0.16 + 0.04) / 4)
    np.testing.assert_allclose(calibration.diagram(), [(0.2, 0.5, 2), (0.7, 1.0, 2)])


def test_a_perfect_forecaster_has_little_calibration_error_and_the_variance_as_brier():
    p = rng(5).uniform(0.05, 0.95, (20_000, 2))
    seen = (rng(6).random(p.shape) < p).astype(float)
    got = at_once(Calibration(p, seen), len(p))
    # Per bin of 2,667 pairs the mean is off by about sqrt(.2 / 2667) = .0087, in absolute value by .8 of that.
    assert got["ece"] < 0.012
    assert got["brier"] == pytest.approx((p * (1 - p)).mean(), abs=0.004)
    assert at_once(Calibration(np.clip(p + 0.1, 0, 1.05), seen), len(p))["ece"] == pytest.approx(0.1, abs=0.01)


def test_equal_predictions_share_a_bin():
    seen = rng(7).random((100, 3))
    (one_bin,) = Calibration(np.full((100, 3), 0.4), seen).diagram()
    np.testing.assert_allclose(one_bin, [0.4, seen.mean(), 300])


def test_coverage_counts_observed_pairs_only():
    quality = np.array([[0.5, NAN], [0.9, 0.1]])
    low, high = np.full((2, 2), 0.4), np.array([[0.5, 1.0], [0.8, 1.0]])
    assert metrics.coverage(low, high, quality)(ones(2))[0] == pytest.approx(1 / 3)


# -- what holds for all of them ------------------------------------------------------------------------------------


def everything(seed, n=30, agents=3):
    """Data with ties, holes and graded outcomes, and all measures on it as one function of weights."""
    r = rng(seed)
    quality = r.choice([0.0, 0.5, 1.0], (n, agents))
    quality[:, 2] = np.maximum(quality[:, 2], quality[:, 0])
    predicted = np.round(r.random((n, agents)), 1)
    cost = r.random((n, agents)) + np.arange(agents)
    holes = r.random((n, agents)) < 0.15
    holes[:, 0] &= ~holes[:, 1:].all(axis=1)
    quality, cost = np.where(holes, NAN, quality), np.where(holes, NAN, cost)
    estimated = np.tile([0.5, 1.5, 2.5], (n, 1))
    return predicted, quality, cost, estimated


def measured(data, weights):
    predicted, quality, cost, estimated = data
    parts = [
        Routed(predicted, quality, cost).at(weights),
        PairCurve(predicted[:, 2] - predicted[:, 0], quality[:, 0], quality[:, 2]).at(weights),
        CostCurve(predicted, estimated, quality, cost, 2, 0).at(weights),
        Calibration(predicted, quality).at(weights),
        {"mean": metrics.mean_quality(quality[:, 1])(weights)},
    ]
    return {name: values for part in parts for name, values in part.items()}


@pytest.mark.parametrize("seed", range(10))
def test_a_weight_of_two_is_a_row_that_stands_there_twice(seed):
    data = everything(seed)
    counts = rng(seed + 100).integers(0, 4, (3, 30)).astype(float)
    weighted = measured(data, counts)
    for resample in range(3):
        rows = np.repeat(np.arange(30), counts[resample].astype(int))
        repeated = measured(tuple(part[rows] for part in data), ones(len(rows)))
        for name in weighted:
            if name != "ece":  # its bins are those of the whole table, on purpose
                np.testing.assert_allclose(weighted[name][resample], repeated[name][0], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_rows_does_not_matter(seed):
    data = everything(seed)
    order = rng(seed + 200).permutation(30)
    straight, shuffled = measured(data, ones(30)), measured(tuple(part[order] for part in data), ones(30))
    for name, values in straight.items():
        np.testing.assert_allclose(values, shuffled[name], atol=1e-9, err_msg=name)


def test_resamples_draw_n_of_n_and_repeat_by_seed():
    drawn = resamples(50, 400, seed=3)
    assert (drawn.sum(axis=1) == 50).all()
    assert drawn.mean() == 1.0
    # Counts are binomial(n, 1/n): variance 1 - 1/n.
    assert drawn.var() == pytest.approx(1 - 1 / 50, rel=0.05)
    np.testing.assert_array_equal(drawn, resamples(50, 400, seed=3))
    assert not np.array_equal(drawn, resamples(50, 400, seed=4))


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = rng(8).random(2000)
    low, high = interval(metrics.mean_quality(values)(resamples(2000, 2000, seed=0))) or (NAN, NAN)
    error = values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_an_interval_over_mostly_undefined_resamples_is_none():
    assert interval(np.array([1.0, NAN] * 10)) is None
    assert interval(np.zeros(0)) is None
    assert interval(np.r_[np.full(99, 2.0), NAN]) == (2.0, 2.0)
