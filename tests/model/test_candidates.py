"""Scores of candidates: the fallback's promises, trained weights, calibration, and the one decision rule."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import ArtifactError, ModelError, NotFoundError
from tinydancer.model.candidates import CandidateScorer, decide_candidates, wilson_width
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.features import FEATURE_NAMES, FeatureConfig, FeatureEngineer

SHAPE = FastGRNNConfig(input_dim=5, hidden_dim=8, output_dim=1, seed=3)
WEIGHTS = FeatureEngineer().weights


def test_the_fallback_is_the_documented_logistic():
    rows = np.random.default_rng(0).random((50, 5)).astype(np.float32)
    scores = CandidateScorer().score(rows, np.arange(50), WEIGHTS)
    for row, confidence in zip(rows, scores.confidence, strict=True):
        combined = sum(w * float(v) for w, v in zip(FeatureConfig().weights, row, strict=True))
        assert confidence == pytest.approx(1 / (1 + math.exp(-10 * (combined - 0.65))), abs=2e-6)
    assert CandidateScorer().name == "fallback"


@given(
    st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5),
    st.integers(0, 4),
    st.floats(0, 1, width=32),
)
def test_the_fallback_rises_with_every_feature(row, which, value):
    low = np.array([row, row], np.float32)
    low[1, which] = max(low[1, which], value)
    confidence = CandidateScorer().score(low, [3, 3], WEIGHTS).confidence
    assert confidence[1] >= confidence[0]
    assert ((confidence > 0.0) & (confidence < 1.0)).all()


@pytest.mark.parametrize("which", range(5))
def test_every_feature_moves_the_fallback(which):
    rows = np.full((2, 5), 0.5, np.float32)
    rows[1, which] = 0.9
    confidence = CandidateScorer().score(rows, [3, 3], WEIGHTS).confidence
    assert confidence[1] > confidence[0], FEATURE_NAMES[which]


def test_the_fallback_uncertainty_is_no_function_of_the_score():
    rows = np.tile(np.array([0.9, 1.0, 0.5, 0.9, 0.0], np.float32), (2, 1))
    scores = CandidateScorer().score(rows, [4, 400], WEIGHTS)
    assert scores.confidence[0] == scores.confidence[1]
    assert scores.uncertainty[0] > 3 * scores.uncertainty[1]


def wilson_by_definition(p, n):
    """The interval's ends as Wilson wrote them, with p observed n times and z of 90%."""
    z = 1.6448536269514722
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (center + half) - (center - half)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.98, 1.0])
@pytest.mark.parametrize("n", [1, 10, 100, 10**6])
def test_wilson_width_against_its_definition(p, n):
    assert float(wilson_width(p, n)) == pytest.approx(wilson_by_definition(p, n), abs=1e-12)


def test_wilson_width_without_observations_is_everything_and_shrinks_with_them():
    assert float(wilson_width(0.7, 0)) == pytest.approx(1.0, abs=1e-12)
    widths = wilson_width(0.7, np.arange(0, 1000, 10))
    assert (np.diff(widths) < 0).all()


def test_wilson_covers_nine_times_in_ten():
    # Coverage of the 90% interval over binomial draws; its mean over p lies within 0.03 of nominal at n = 50.
    rng = np.random.default_rng(12)
    z, n = 1.6448536269514722, 50
    p = rng.uniform(0.1, 0.9, 20_000)
    seen = rng.binomial(n, p) / n
    center = (seen + z * z / (2 * n)) / (1 + z * z / n)
    covered = np.abs(p - center) <= wilson_width(seen, np.full(p.shape, n)) / 2
    assert covered.mean() == pytest.approx(0.9, abs=0.03)


def test_trained_weights_score_and_say_so(tmp_path):
    digest = FastGRNN(SHAPE).save(tmp_path / "m", {"epochs": 1})
    scorer = CandidateScorer.load(tmp_path / "m")
    rows = np.random.default_rng(1).random((7, 5)).astype(np.float32)
    scores = scorer.score(rows, np.full(7, 10), WEIGHTS)
    np.testing.assert_allclose(scores.confidence, FastGRNN(SHAPE).forward_batch(rows)[:, 0], atol=1e-6)
    np.testing.assert_allclose(scores.uncertainty, wilson_width(rows[:, 3], 10))
    assert scorer.name == f"fastgrnn:{digest[:12]}"
    assert CandidateScorer(FastGRNN(SHAPE)).name == "fastgrnn:unsaved"


def test_a_calibration_in_the_file_is_used(tmp_path):
    interval = ConformalInterval(0.1, 0.9, 50)
    FastGRNN(SHAPE).save(tmp_path / "m", {"calibration": interval.to_dict()})
    scorer = CandidateScorer.load(tmp_path / "m")
    assert scorer.calibration == interval
    scores = scorer.score(np.full((2, 5), 0.5, np.float32), [0, 10**6], WEIGHTS)
    np.testing.assert_allclose(scores.uncertainty, interval.width(scores.confidence))
    np.testing.assert_allclose(scores.uncertainty, 0.2, atol=1e-12)


def test_the_fallback_may_be_calibrated_too():
    scorer = CandidateScorer(calibration=ConformalInterval(0.05, 0.9, 50))
    uncertainty = scorer.score(np.full((1, 5), 0.5, np.float32), [3], WEIGHTS).uncertainty
    np.testing.assert_allclose(uncertainty, 0.1)


@pytest.mark.parametrize(
    "config",
    [FastGRNNConfig(input_dim=4, output_dim=1), FastGRNNConfig(input_dim=5), FastGRNNConfig(input_dim=5, output_dim=2)],
)
def test_networks_of_another_shape_are_refused(config, tmp_path):
    with pytest.raises(ModelError, match="a candidate scorer has 5"):
        CandidateScorer(FastGRNN(config))
    FastGRNN(config).save(tmp_path / "m")
    with pytest.raises(ArtifactError, match="no usable candidate scorer"):
        CandidateScorer.load(tmp_path / "m")


@pytest.mark.parametrize("calibration", [3, {}, {"quantile": -1, "coverage": 0.9, "n": 2}])
def test_a_calibration_that_makes_no_sense_is_refused(calibration, tmp_path):
    FastGRNN(SHAPE).save(tmp_path / "m", {"calibration": calibration})
    with pytest.raises(ArtifactError, match="no usable candidate scorer"):
        CandidateScorer.load(tmp_path / "m")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        CandidateScorer.load(tmp_path / "none")


def test_a_broken_network_is_an_error_without_a_warning():
    model = FastGRNN(SHAPE)
    model.parameters["w_out"][:] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError, match="not finite"):
            CandidateScorer(model).score(np.full((2, 5), 0.5, np.float32), [1, 2], WEIGHTS)


def test_the_decision_takes_both_and_includes_the_limits():
    light = decide_candidates(
        [0.85, 0.849999, 0.99, 0.99, 0.2],
        [0.15, 0.10, 0.150001, 0.0, 0.9],
        confidence_threshold=0.85,
        max_uncertainty=0.15,
    )
    assert light.tolist() == [True, False, False, True, False]
    assert light.dtype == np.bool_


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_the_decision_is_monotone(pairs, threshold, limit):
    confidence, uncertainty = map(np.array, zip(*pairs, strict=True))
    light = decide_candidates(confidence, uncertainty, confidence_threshold=threshold, max_uncertainty=limit)
    stricter = decide_candidates(
        confidence, uncertainty, confidence_threshold=min(1, threshold + 0.1), max_uncertainty=limit / 2
    )
    assert not (stricter & ~light).any()
