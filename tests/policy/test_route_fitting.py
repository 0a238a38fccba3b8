"""Fitting of thresholds and confidence against data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.policy import route_fitting as module
from tinydancer.policy.route_fitting import fit_routes, judge_routes, split_requests
from tinydancer.policy.route_rules import Route, Utterance
from tinydancer.policy.route_snapshot import build_routes_snapshot
from tinydancer.policy.routes import route_semantically
from tinydancer.types import EmbeddingSpace

SPACE = EmbeddingSpace("test", 4)


def axis(number):
    return np.eye(4, dtype=np.float32)[number]


def routes_at(*numbers, fitted=None):
    made = []
    for place, number in enumerate(numbers):
        threshold, calibration = (None, None) if fitted is None else (fitted[0][place], fitted[1][place])
        own = (Utterance(text=None, embedding=axis(number)),)
        made.append(Route(name=f"r{number}", target_agent="a", utterances=own, threshold=threshold,
                          calibration=calibration))  # fmt: skip
    return build_routes_snapshot(made, version="1", space=SPACE)


def requests(similarities):
    """Unit vectors of given similarity to the first axis, and none to the second."""
    s = np.asarray(similarities, dtype=np.float64)
    rest = np.sqrt(1.0 - s**2)
    return np.stack([s, np.zeros_like(s), rest, np.zeros_like(s)], axis=1).astype(np.float32)


def test_the_logistic_regression_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60_000, 2))
    group = rng.integers(3, size=len(x))
    offsets = np.array([-1.0, 0.0, 1.0])
    p = 1.0 / (1.0 + np.exp(-(0.5 + x @ [2.0, -1.0] + offsets[group])))
    found = module._logistic(x, group, rng.random(len(x)) < p, 3)
    # 60,000 draws: standard errors of about 0.02.
    np.testing.assert_allclose(found.weights, [2.0, -1.0], atol=0.08)
    np.testing.assert_allclose(found.intercepts, 0.5 + offsets, atol=0.1)


def test_its_gradient_is_zero():
    rng = np.random.default_rng(4)
    x, group, right = rng.normal(size=(80, 1)), rng.integers(5, size=80), rng.random(80) < 0.4
    found = module._logistic(x, group, right, 5)
    shared = found.intercepts.mean()
    offset = found.intercepts - shared  # the penalty makes the offsets sum to what the shared one leaves
    p = 1.0 / (1.0 + np.exp(-(x[:, 0] * found.weights[0] + found.intercepts[group])))
    np.testing.assert_allclose((x[:, 0] * (right - p)).sum(), found.weights[0] / module.WEIGHT_VARIANCE, atol=1e-6)
    residual = np.bincount(group, right - p, 5)
    np.testing.assert_allclose(residual - residual.mean(), (offset - offset.mean()) / module.OFFSET_VARIANCE, atol=1e-6)


def test_the_threshold_is_where_the_wanted_probability_is_reached():
    rng = np.random.default_rng(5)
    s = rng.uniform(0.05, 0.95, 20_000)
    own = np.where(rng.random(len(s)) < 1.0 / (1.0 + np.exp(-12.0 * (s - 0.6))), 0, -1)
    plain = routes_at(0, 1)
    for wanted, expected in ((None, 0.6), (0.5, 0.6), (0.9, 0.6 + np.log(9.0) / 12.0), (0.1, 0.6 - np.log(9.0) / 12.0)):
        fitted = fit_routes(requests(s), own.tolist(), plain, min_confidence=wanted)
        assert fitted.thresholds[0] == pytest.approx(expected, abs=0.02)
    fitted = fit_routes(requests(s), own.tolist(), plain)
    fresh = rng.uniform(0.05, 0.95, 20_000)
    truth = 1.0 / (1.0 + np.exp(-12.0 * (fresh - 0.6)))
    answers = route_semantically(requests(fresh), routes_at(0, 1, fitted=fitted), now=0.0, top_k=1)
    np.testing.assert_allclose(answers.confidence, np.maximum(truth, 1.0 - truth), atol=0.04)
    drawn = np.where(rng.random(len(fresh)) < truth, 0, -1)
    report = judge_routes(drawn.tolist(), answers)
    assert report.calibration_error < 0.02
    assert report.accuracy == pytest.approx(np.maximum(truth, 1.0 - truth).mean(), abs=0.015)


def test_a_route_without_a_request_leans_on_the_others():
    rng = np.random.default_rng(6)
    s = rng.uniform(0.05, 0.95, 2_000)
    own = np.where(s > 0.5, 0, -1)
    fitted = fit_routes(requests(s), own.tolist(), routes_at(0, 1, 3))
    assert fitted.thresholds[1] == fitted.thresholds[2]
    assert fitted.thresholds[1] == pytest.approx(fitted.thresholds[0], abs=0.1)
    assert [c.examples for c in fitted.calibrations] == [int((own == 0).sum()), 0, 0]


def test_the_split_takes_the_same_share_of_every_label():
    labels = [0] * 40 + [1] * 10 + [-1] * 20 + [2]
    fit_on, measure_on = split_requests(labels, seed=7, test_share=0.3)
    assert sorted([*fit_on, *measure_on]) == list(range(71))
    held_out = np.array(labels)[measure_on]
    assert [(held_out == label).sum() for label in (0, 1, -1, 2)] == [12, 3, 6, 0]
    again = split_requests(labels, seed=7, test_share=0.3)
    assert np.array_equal(measure_on, again[1])
    assert not np.array_equal(measure_on, split_requests(labels, seed=8, test_share=0.3)[1])


def test_figures_of_a_case_counted_by_hand():
    answers = route_semantically(
        np.stack([axis(0), axis(0), axis(1), axis(2), axis(1)]), routes_at(0, 1), now=0.0, top_k=1
    )
    assert answers.best.tolist() == [0, 0, 1, -1, 1]
    report = judge_routes([0, 1, 1, -1, -1], answers)
    assert report.accuracy == 3 / 5
    assert report.missed == (1, 4)
    figures = {f.name: (f.requests, f.answered, f.right, f.misses, f.precision, f.recall) for f in report.routes}
    assert figures == {"r0": (1, 2, 1, 0, 0.5, 1.0), "r1": (2, 2, 1, 1, 0.5, 0.5), None: (2, 1, 1, 1, 1.0, 0.5)}
    right = np.array([1, 0, 1, 1, 0])
    assert report.brier == pytest.approx(((answers.confidence - right) ** 2).mean())
    empty = judge_routes([], route_semantically(np.zeros((0, 4), np.float32), routes_at(0), now=0.0))
    assert (empty.requests, empty.accuracy, empty.routes[0].precision) == (0, 0.0, None)
