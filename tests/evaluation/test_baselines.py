"""The baselines: fitted to convergence, cross-validated without leaks, right where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from tinydancer.evaluation import baselines as b
from tinydancer.evaluation.baselines import BASELINES, Sample, cross_validated, folds_of, groups_of
from tinydancer.evaluation.regression import fit_logistic, log_loss

NAN = np.nan


def unit(rng, n, dim=12):
    x = rng.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def sample_of(seed=0, n=300, agents=3, holes=0.1, tasks=None):
    """Outcomes that depend on the vector: agent j succeeds where its own direction agrees."""
    rng = np.random.default_rng(seed)
    x = unit(rng, n)
    directions = np.random.default_rng(99).normal(size=(12, agents))
    p = 1.0 / (1.0 + np.exp(-(3.0 * x @ directions / 2.0)))
    quality = (rng.random((n, agents)) < p).astype(float)
    quality[rng.random((n, agents)) < holes] = NAN
    return Sample(x, quality, np.arange(n), tasks)


# -- logistic regression -------------------------------------------------------------------------------------------


def scikit(x, y, l2):
    """The same minimum by scikit-learn: a graded target is both classes, weighted."""
    model = LogisticRegression(C=1.0 / l2, tol=1e-10, max_iter=10_000)
    twice, classes = np.r_[x, x], np.r_[np.ones(len(x)), np.zeros(len(x))]
    model.fit(twice, classes, sample_weight=np.r_[y, 1.0 - y])
    return model.coef_[0], model.intercept_[0]


@pytest.mark.parametrize("n", [8, 40, 400], ids=["fewer rows than columns", "a few", "many"])
@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_logistic_regression_is_scikit_learns(n, l2):
    rng = np.random.default_rng(n)
    x = unit(rng, n) + 0.3
    y = rng.random((n, 3))
    y[:, 1] = np.round(y[:, 1])
    y[: n // 3, 2] = NAN
    fits = fit_logistic(x, y, (30.0, l2, 0.1))
    for agent in range(3):
        known = ~np.isnan(y[:, agent])
        weights, bias = scikit(x[known].astype(float), y[known, agent], l2)
        np.testing.assert_allclose(fits[1].weights[:, agent], weights, atol=2e-3)
        assert fits[1].bias[agent] == pytest.approx(bias, abs=2e-3)


def test_the_minimum_is_one():
    rng = np.random.default_rng(1)
    x, y = unit(rng, 60).astype(float), rng.random((60, 1))
    (fit,) = fit_logistic(x, y, (0.5,))

    def loss(weights, bias):
        p = 1.0 / (1.0 + np.exp(-(x @ weights + bias)))
        return len(x) * log_loss(p, y) + 0.25 * (weights**2).sum()

    best = loss(fit.weights, fit.bias)
    for _ in range(50):
        assert loss(fit.weights + 0.02 * rng.normal(size=(12, 1)), fit.bias + 0.02 * rng.normal()) > best


def test_logistic_regression_of_the_same_outcome_everywhere_and_of_none():
    x = unit(np.random.default_rng(2), 50)
    y = np.c_[np.ones(50), np.full(50, NAN), np.zeros(50)]
    (fit,) = fit_logistic(x, y, (1.0,))
    p = fit.predict(x)
    assert (p[:, 0] > 0.99).all()
    assert (p[:, 1] == 0.5).all()
    assert (p[:, 2] < 0.01).all()


def test_log_loss_by_hand():
    assert log_loss(np.array([[0.5, 0.9]]), np.array([[1.0, NAN]])) == pytest.approx(np.log(2.0))
    assert log_loss(np.array([[0.8]]), np.array([[0.25]])) == pytest.approx(-0.25 * np.log(0.8) - 0.75 * np.log(0.2))
    assert np.isnan(log_loss(np.array([[0.5]]), np.array([[NAN]])))


# -- the others ----------------------------------------------------------------------------------------------------


def test_neighbours_are_scikit_learns(monkeypatch):
    monkeypatch.setattr(b, "NEIGHBOURS", (7,))
    train, test = sample_of(1, holes=0.0), sample_of(2, n=700)
    nearest = NearestNeighbors(n_neighbors=7, metric="cosine").fit(train.embeddings)
    expected = train.quality[nearest.kneighbors(test.embeddings, return_distance=False)].mean(axis=1)
    np.testing.assert_allclose(b.nearest_neighbours(train, test, 0), expected, atol=1e-12)


def test_neighbours_without_an_answer_do_not_count(monkeypatch):
    monkeypatch.setattr(b, "NEIGHBOURS", (2,))
    x = np.eye(4, dtype=np.float32)
    train = Sample(x[:3], np.array([[1.0, NAN], [NAN, NAN], [0.0, 0.25]]), np.arange(3))
    near_first_two = np.array([[0.8, 0.6, 0.0, 0.0]], np.float32)
    got = b.nearest_neighbours(train, Sample(near_first_two, np.full((1, 2), NAN), np.arange(1)), 0)
    # Of the first agent one of both neighbours answered; of the second none, so its mean stands in.
    np.testing.assert_allclose(got, [[1.0, 0.25]])


def test_task_means_by_hand():
    x = np.zeros((4, 2), np.float32)
    train = Sample(x, np.array([[1.0], [1.0], [0.0], [NAN]]), np.arange(4), ("a", "a", "b", "b"))
    test = Sample(x[:3], np.full((3, 1), NAN), np.arange(3), ("a", "b", "never seen"))
    mean = 2 / 3
    expected = [(2 + 5 * mean) / 7, (0 + 5 * mean) / 6, mean]
    np.testing.assert_allclose(b.task_means(train, test, 0)[:, 0], expected)


def test_means_of_agents_without_outcomes():
    np.testing.assert_allclose(b.agent_means(np.array([[1.0, NAN], [0.5, NAN]])), [0.75, 0.75])
    np.testing.assert_allclose(b.agent_means(np.full((2, 2), NAN)), [0.5, 0.5])


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_predicts_without_looking(name):
    train, test = sample_of(3, tasks=("x",) * 300), sample_of(4, n=50, tasks=("x",) * 50)
    got = BASELINES[name](train, test, 0)
    assert got.shape == (50, 3)
    assert np.isfinite(got).all()
    assert ((got >= 0.0) & (got <= 1.0)).all()
    hidden = Sample(test.embeddings, np.full_like(test.quality, NAN), test.groups, test.tasks)
    np.testing.assert_array_equal(BASELINES[name](train, hidden, 0), got)
    np.testing.assert_array_equal(BASELINES[name](train, test, 0), got)


@pytest.mark.parametrize("name", ["nearest neighbours", "logistic regression"])
def test_what_can_be_learned_is_learned(name):
    train, test = sample_of(5, n=1500), sample_of(6, n=1500, holes=0.0)
    constant = np.repeat(b.agent_means(train.quality)[None], 1500, axis=0)
    assert log_loss(BASELINES[name](train, test, 0), test.quality) < log_loss(constant, test.quality) - 0.05


def test_an_agent_without_training_outcomes_gets_the_mean():
    train, test = sample_of(7), sample_of(8, n=5)
    train.quality[:, 1] = NAN
    mean = np.nanmean(train.quality)
    for name in ("logistic regression", "nearest neighbours", "best single"):
        np.testing.assert_allclose(BASELINES[name](train, test, 0)[:, 1], mean)


def test_a_baseline_survives_two_rows():
    train, test = sample_of(9).rows(np.array([0, 1])), sample_of(9).rows(np.array([2]))
    for baseline in BASELINES.values():
        assert np.isfinite(baseline(train, test, 0)).all()


# -- folds ---------------------------------------------------------------------------------------------------------


def test_folds_are_even_seeded_and_keep_groups_together():
    groups = groups_of([f"text {i % 70}" for i in range(100)])
    folds = folds_of(groups, 5, seed=1)
    assert all(len(set(folds[groups == g])) == 1 for g in set(groups))
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 1
    np.testing.assert_array_equal(folds, folds_of(groups, 5, seed=1))
    assert (folds != folds_of(groups, 5, seed=2)).any()


def test_cross_validation_never_trains_on_a_text_it_predicts():
    sample = sample_of(10, n=40)
    repeated = sample.rows(np.r_[np.arange(40), np.arange(40)])
    seen = []

    def spy(train, test, seed):
        assert not set(train.groups) & set(test.groups)
        seen.extend(test.groups)
        return np.tile(test.groups[:, None], (1, 3)).astype(float)

    predicted = cross_validated(spy, repeated, folds_of(repeated.groups, 5, 0), 0)
    assert sorted(seen) == sorted(repeated.groups)
    np.testing.assert_array_equal(predicted[:, 0], repeated.groups)
