"""The quality model: files that come back whole or not at all, predictions by hand, learning against closed forms."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from tests.quality import SMALL_SPACE, hand_made_model, planted, sigma, trained_model, unit
from tinydancer.errors import ArtifactError, InvalidInputError, ModelError, NotFoundError, SpaceMismatchError
from tinydancer.model.artifact import FORMAT_VERSION, load_artifact, save_artifact
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.quality import (
    KIND,
    SKETCH_SIZE,
    Abilities,
    AgentProfile,
    QualityModel,
    expected,
    shipped_model_path,
    sketch_of,
    text_hash,
)
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.snapshot import QUALITY_BINS, Predictor
from tinydancer.types import EmbeddingSpace

PROFILES = [AgentProfile(name=name) for name in ("a", "b", "stranger")]


def requests(n=5, dim=6, seed=1):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(n, dim))), np.abs(rng.normal(1, 0.5, (n, SURFACE_DIM))).astype(np.float32)


def said(model, profiles):
    """What a model predicts for those."""
    vectors, surface = requests()
    return model.predict(vectors, surface, profiles)


# --- Files ----------------------------------------------------------------------------------------------------------


def test_a_saved_model_comes_back_the_same(tmp_path):
    model = hand_made_model(
        interval=ConformalInterval(0.3, 0.9, 100), facts={"data": "made up", "n": 3}, sketch=sketch_of(["x", "y"])
    )
    digest = model.save(tmp_path / "one.safetensors")
    loaded = QualityModel.load(tmp_path / "one.safetensors")
    assert loaded.sha256 == digest
    assert loaded.save(tmp_path / "two.safetensors") == digest
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert (loaded.agents, loaded.space, loaded.interval) == (model.agents, model.space, model.interval)
    assert dict(loaded.facts) == {"data": "made up", "n": 3}
    assert loaded.name == f"one:{digest[:12]}"
    assert QualityModel.load(tmp_path / "one.safetensors", label="shipped").name == f"shipped:{digest[:12]}"
    assert model.name == "model:unsaved"
    np.testing.assert_array_equal(said(loaded, PROFILES), said(model, PROFILES))
    np.testing.assert_array_equal(
        loaded.believed(PROFILES).covariance, model.believed(PROFILES).covariance, strict=True
    )


def test_its_arrays_lie_in_the_file_and_cannot_be_changed(tmp_path):
    hand_made_model().save(tmp_path / "m.safetensors")
    model = QualityModel.load(tmp_path / "m.safetensors")
    for name, array in model.tensors().items():
        assert not array.flags.writeable, name
        assert not array.flags.owndata, name
    with pytest.raises(ValueError, match="read-only"):
        model.abilities[0, 0] = 1.0


def test_another_calibration_is_another_model(tmp_path):
    hand_made_model().save(tmp_path / "m.safetensors")
    model = QualityModel.load(tmp_path / "m.safetensors")
    other = model.with_interval(ConformalInterval(0.2, 0.8, 50))
    assert other.sha256 is None
    assert other.interval == ConformalInterval(0.2, 0.8, 50)
    assert other.save(tmp_path / "o.safetensors") != model.sha256


@pytest.mark.parametrize("how", ["truncated", "header", "tampered", "newer", "empty", "pickle"])
def test_a_damaged_file_is_refused(tmp_path, how):
    path = tmp_path / "m.safetensors"
    hand_made_model().save(path)
    raw = path.read_bytes()
    old, new = (f'"format_version": "{number}"'.encode() for number in (FORMAT_VERSION, FORMAT_VERSION + 1))
    assert old in raw
    damaged = {
        "truncated": raw[: len(raw) - 100], "header": raw[:20], "tampered": raw[:-9] + bytes([raw[-9] ^ 4]) + raw[-8:],
        "newer": raw.replace(old, new), "empty": b"", "pickle": b"\x80\x04\x95" + raw,
    }[how]  # fmt: skip
    assert damaged != raw
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=r"m\.safetensors"):
        QualityModel.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        QualityModel.load(tmp_path / "absent.safetensors")


def test_another_kind_is_refused(tmp_path):
    FastGRNN(FastGRNNConfig(input_dim=4, hidden_dim=2)).save(tmp_path / "cell.safetensors")
    with pytest.raises(ArtifactError, match="fastgrnn"):
        QualityModel.load(tmp_path / "cell.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agents": ["a"]}, "abilities has shape"),
        ({"agents": ["a", "a"]}, "abilities has shape|twice"),
        ({"agents": ["a", 7]}, "name in agents is 7"),
        ({"agents": None}, "abilities has shape"),
        ({"dim": 7}, "reads 20 numbers"),
        ({"dim": -1}, "dim"),
        ({"space": ""}, "space is empty"),
        ({"network": None}, "config"),
        ({"network": {"input_dim": 20, "hidden_dim": 4}}, r"Parameter|parameters"),
        ({"surface_features": ["log_characters"]}, "other surface features"),
        ({"interval": {"quantile": -1, "coverage": 0.9, "n": 3}}, "quantile"),
        ({"interval": 3}, "calibration"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, change, words):
    hand_made_model().save(tmp_path / "m.safetensors")
    whole = load_artifact(tmp_path / "m.safetensors", kind=KIND)
    save_artifact(tmp_path / "odd.safetensors", whole.tensors, kind=KIND, metadata={**whole.metadata, **change})
    with pytest.raises(ArtifactError, match=words) as caught:
        QualityModel.load(tmp_path / "odd.safetensors")
    assert "odd.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("abilities", np.full((2, 4), np.nan, np.float32), "not finite"),
        ("abilities", np.zeros((3, 4), np.float32), "has shape"),
        ("bars", np.zeros((20, 2)), "has shape"),
        ("prior_covariance", np.full((4, 4), np.inf), "not finite"),
        ("surface_scale", np.zeros(SURFACE_DIM, np.float32), "not above 0"),
        ("cost_usd", np.array([0.0, 1.0]), "cost_usd"),
        ("cost_usd", np.array([np.inf, 1.0]), "cost_usd"),
        ("network.w", None, "parameters"),
        ("sketch", None, "It holds"),
        ("more", np.zeros(1), "It holds"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, name, value, words):
    hand_made_model().save(tmp_path / "m.safetensors")
    whole = load_artifact(tmp_path / "m.safetensors", kind=KIND)
    tensors = {key: array for key, array in {**whole.tensors, name: value}.items() if array is not None}
    save_artifact(tmp_path / "odd.safetensors", tensors, kind=KIND, metadata=whole.metadata)
    with pytest.raises(ArtifactError, match=words):
        QualityModel.load(tmp_path / "odd.safetensors")


def test_an_agent_that_is_named_twice_is_refused():
    with pytest.raises(ModelError, match="twice"):
        hand_made_model(("a", "a"))


def test_a_network_with_a_head_is_refused():
    config = FastGRNNConfig(input_dim=SMALL_SPACE.dim + SURFACE_DIM, hidden_dim=3, output_dim=1)
    with pytest.raises(ModelError, match="no head"):
        hand_made_model(network=FastGRNN(config))


def test_the_shipped_model_is_small_and_loads():
    path = shipped_model_path()
    assert path.stat().st_size <= 1_000_000
    model = QualityModel.load(path)
    assert model.facts["cross_validated"]
    assert model.interval is not None


# --- Predictions ----------------------------------------------------------------------------------------------------


def test_a_prediction_by_hand():
    model = hand_made_model()
    (vectors, surface), p = requests(), model.network.parameters
    x = np.concatenate([vectors, (surface - 1.0) / 0.5], axis=1)
    terms = x @ p["w"].T
    h = (1.0 - sigma(terms + p["b"][0])) * np.tanh(terms + p["b"][1])  # zeta = 1, nu = 0, from the zero state
    phi = model.represent(vectors, surface)
    np.testing.assert_allclose(phi, np.concatenate([h, np.ones((5, 1))], axis=1), atol=1e-6)
    truth = sigma(h @ model.abilities[:, :-1].T + model.abilities[:, -1])
    predicted = model.predict(vectors, surface, PROFILES[:2])
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(predicted, truth, atol=1e-6)
    backwards = model.predict(vectors, surface, PROFILES[1::-1])
    np.testing.assert_allclose(backwards, truth[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(expected(phi, model.abilities), truth, atol=1e-6)


def test_shapes_and_range():
    model, _ = trained_model()
    vectors, surface = requests(7, 384)
    profiles = [AgentProfile(name="a"), *(AgentProfile(name=f"new {i}", stated_quality=i / 8) for i in range(9))]
    predicted = model.predict(vectors, surface, profiles)
    assert predicted.shape == (7, 10)
    assert ((predicted >= 0.0) & (predicted <= 1.0)).all()
    assert model.predict(vectors[:0], surface[:0], profiles).shape == (0, 10)
    assert model.predict(vectors, surface, []).shape == (7, 0)


def test_requests_of_another_dimension_are_refused():
    with pytest.raises(SpaceMismatchError, match=r"5 dimensions.*'small' with 6"):
        hand_made_model().predict(requests(2, 5)[0], None, PROFILES)


def test_without_a_text_a_request_counts_as_usual():
    model = hand_made_model()
    vectors, surface = requests()
    missing, usual = np.full_like(surface, np.nan), np.full_like(surface, 1.0)  # 1 is the mean
    without = model.predict(vectors, None, PROFILES)
    np.testing.assert_array_equal(without, model.predict(vectors, missing, PROFILES))
    np.testing.assert_array_equal(without, model.predict(vectors, usual, PROFILES))
    assert np.abs(without - model.predict(vectors, surface, PROFILES)).max() > 1e-3, "texts do matter"
    mixed = surface.copy()
    mixed[0] = np.nan
    both = model.predict(vectors, mixed, PROFILES)
    np.testing.assert_allclose(both[0], without[0], rtol=1e-6)
    np.testing.assert_allclose(both[1:], model.predict(vectors, surface, PROFILES)[1:], rtol=1e-6)


def test_absurd_facts_are_cut():
    model = hand_made_model()
    surface = np.array([[1e9] * SURFACE_DIM, [-1e9] * SURFACE_DIM], np.float32)
    np.testing.assert_array_equal(model.standardised(surface), [[4.0] * SURFACE_DIM, [-4.0] * SURFACE_DIM])
    before = surface.copy()
    model.standardised(surface)
    np.testing.assert_array_equal(surface, before)


@pytest.mark.parametrize("stated", [0.05, 0.3, 0.5, 0.8, 0.95])
def test_an_unknown_agent_is_as_good_on_average_as_stated(stated):
    model, _ = trained_model()
    fresh = planted(2000, seed=99)
    predicted = model.predict(fresh.embeddings[0], fresh.surface, [AgentProfile(name="new", stated_quality=stated)])
    assert predicted.mean() == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize("stated", [0.1, 0.5, 0.9])
def test_that_holds_where_requests_differ_much(stated):
    """Logits spread by 2 around their mean, so that the mean of the sigmoid is far from the sigmoid of the mean."""
    plain = hand_made_model()
    vectors, surface = requests(4000, seed=3)
    h = plain.represent(vectors, surface)[:, :-1].astype(np.float64)
    wide = plain.prior_mean * 2.0 / (h @ plain.prior_mean).std()
    model = dataclasses.replace(
        plain, prior_mean=wide, usual_mean=h.mean(axis=0), usual_covariance=np.cov(h.T, bias=True)
    )
    fresh = requests(4000, seed=13)
    predicted = model.predict(fresh[0], fresh[1], [AgentProfile(name="new", stated_quality=stated)])
    assert predicted.mean() == pytest.approx(stated, abs=0.02)  # MacKay's approximation is good to about 0.01
    assert predicted.std() > 0.1


def test_an_unknown_agent_finds_the_same_requests_hard_as_others_do():
    model = hand_made_model()
    vectors, surface = requests(50)
    predicted = model.predict(vectors, surface, [AgentProfile(name="new", stated_quality=0.6)])[:, 0]
    hard = model.represent(vectors, surface)[:, :-1] @ model.prior_mean
    np.testing.assert_array_equal(np.argsort(predicted), np.argsort(hard))
    assert np.ptp(predicted) > 0.05


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_better_stated_agent_is_never_expected_to_be_worse(one, other):
    model = hand_made_model()
    low, high = sorted((one, other))
    profiles = [AgentProfile(name=f"at {q}", stated_quality=q) for q in (low, high)]
    predicted = said(model, profiles)
    assert (predicted[:, 0] <= predicted[:, 1]).all()
    if min(high, 0.99) - max(low, 0.01) > 0.01:
        assert (predicted[:, 0] < predicted[:, 1]).all()


def test_where_no_quality_is_stated_the_price_tells():
    model = hand_made_model()
    costs = [1e-5, 1e-3, 0.1, 10.0]
    profiles = [AgentProfile(name=f"for {c}", usual_cost_usd=c) for c in costs]
    predicted = said(model, profiles)
    assert (np.diff(predicted, axis=1) > 0.0).all(), "its line rises"
    by_line = [AgentProfile(name="line", stated_quality=float(sigma(4.0 + 0.5 * math.log(1e-3))))]
    np.testing.assert_allclose(predicted[:, 1:2], said(model, by_line), atol=1e-9)
    stated = [AgentProfile(name="both", stated_quality=0.3, usual_cost_usd=c) for c in costs]
    assert np.ptp(said(model, stated), axis=1).max() == 0.0, "what is stated counts, not the price"


def test_without_quality_and_price_it_is_an_agent_of_the_usual_price():
    model = hand_made_model()
    usual = AgentProfile(name="usual", usual_cost_usd=float(np.median(model.cost_usd)))
    nothing, free = AgentProfile(name="nothing"), AgentProfile(name="free", usual_cost_usd=0.0)
    predicted = said(model, [usual, nothing, free])
    np.testing.assert_allclose(predicted[:, 1], predicted[:, 0], atol=1e-12)
    np.testing.assert_allclose(predicted[:, 2], predicted[:, 0], atol=1e-12)
    unpriced = hand_made_model(cost_usd=np.full(2, np.nan), quality_from_cost=np.array([0.7, 0.0]))
    assert np.isfinite(said(unpriced, [nothing])).all()


def test_what_it_was_trained_with_beats_what_is_stated():
    model = hand_made_model()
    plain = said(model, [AgentProfile(name="a")])
    boast = said(model, [AgentProfile(name="a", stated_quality=0.99)])
    np.testing.assert_array_equal(plain, boast)


def test_a_name_of_the_training_without_an_answer_starts_from_its_profile():
    model = hand_made_model(observed=np.array([30.0, 0.0]))
    named, stranger = AgentProfile(name="b", stated_quality=0.9), AgentProfile(name="new", stated_quality=0.9)
    predicted = said(model, [named, stranger])
    np.testing.assert_array_equal(predicted[:, 0], predicted[:, 1])
    assert model.believed([named]).outcomes[0] == 0.0


def test_costs_relative_to_what_an_agent_usually_costs():
    weights = np.zeros((3, 3 + SURFACE_DIM + 1))
    weights[0, 0], weights[1, 3], weights[2, -1] = 1.0, 0.5, -0.2  # of a, of b, of any other
    model = hand_made_model(cost_weights=weights)
    vectors, surface = requests()
    phi = model.represent(vectors, surface)
    truth = np.exp([[h, 0.5 * (s - 1.0) / 0.5, -0.2] for h, s in zip(phi[:, 0], surface[:, 0], strict=True)])
    np.testing.assert_allclose(model.cost_factors(phi, surface, ["a", "b", "new"]), truth, rtol=1e-5)
    np.testing.assert_allclose(model.cost_factors(phi, surface, ["new", "a"]), truth[:, [2, 0]], rtol=1e-5)
    truth[:, 1] = 1.0  # the usual facts
    np.testing.assert_allclose(model.cost_factors(phi, None, ["a", "b", "new"]), truth, rtol=1e-5)
    missing = np.full_like(surface, np.nan)
    np.testing.assert_allclose(model.cost_factors(phi, missing, ["a", "b", "new"]), truth, rtol=1e-5)
    wild = hand_made_model(cost_weights=weights * 1e6)
    assert wild.cost_factors(phi, surface, ["a", "new"]).max() <= np.exp(5.0)


# --- Learning from outcomes -----------------------------------------------------------------------------------------


def test_one_answer_by_hand():
    mean, covariance = np.array([[0.5, -0.25]]), np.array([[[2.0, 0.5], [0.5, 1.0]]])
    phi, y = np.array([0.6, 1.0]), 0.9
    p = sigma(0.5 * 0.6 - 0.25)
    precision = np.linalg.inv(covariance[0]) + p * (1.0 - p) * np.outer(phi, phi)
    posterior = np.linalg.inv(precision)
    after = Abilities(mean, covariance, np.array([4.0])).updated(np.array([0]), phi[None], [y])
    np.testing.assert_allclose(after.covariance[0], posterior, rtol=1e-12)
    np.testing.assert_allclose(after.mean[0], mean[0] + posterior @ phi * (y - p), rtol=1e-12)
    assert after.outcomes.tolist() == [5.0]
    np.testing.assert_array_equal(mean, [[0.5, -0.25]], err_msg="what was given is left alone")
    assert covariance[0, 0, 0] == 2.0


def test_nobody_elses_answers_count():
    model = hand_made_model()
    before = model.believed(PROFILES)
    phi = model.represent(*requests())
    after = before.updated(np.array([2] * 5), phi, np.ones(5))
    np.testing.assert_array_equal(after.mean[:2], before.mean[:2])
    np.testing.assert_array_equal(after.covariance[:2], before.covariance[:2])
    assert (after.outcomes - before.outcomes).tolist() == [0.0, 0.0, 5.0]


def test_good_answers_raise_the_prediction_most_for_requests_like_theirs():
    model, _ = trained_model()
    data = planted(400, seed=8)
    phi = model.represent(data.embeddings[0], data.surface)
    along = data.embeddings[0] @ (np.random.default_rng(77).normal(size=384).astype(np.float32))
    one_side, other_side = np.flatnonzero(along > 0)[:60], np.flatnonzero(along < 0)
    beliefs = model.believed([AgentProfile(name="new", stated_quality=0.5)])
    after = beliefs.updated(np.zeros(60, np.intp), phi[one_side], np.ones(60))
    gain = (phi @ (after.mean - beliefs.mean).T)[:, 0]
    assert gain[one_side].min() > 0.5
    assert gain[one_side].mean() > gain[other_side].mean() + 0.2


def test_many_answers_approach_the_batch_solution():
    """The maximum a posteriori by an independent solver, over the same prior and answers."""
    model = hand_made_model()
    vectors, surface = requests(1500, seed=4)
    phi = model.represent(vectors, surface).astype(np.float64)
    rng = np.random.default_rng(5)
    truth = np.array([2.0, -1.5, 1.0, 0.4])
    y = (rng.random(len(phi)) < sigma(phi @ truth)).astype(np.float64)
    start = model.believed([AgentProfile(name="new", stated_quality=0.5)])
    precision = np.linalg.inv(start.covariance[0])

    def loss(theta):
        z, off = phi @ theta, theta - start.mean[0]
        return np.sum(np.logaddexp(0.0, z) - y * z) + 0.5 * off @ precision @ off

    best = minimize(loss, start.mean[0], method="BFGS", options={"gtol": 1e-8}).x
    after = start.updated(np.zeros(len(phi), np.intp), phi, y)
    np.testing.assert_allclose(sigma(phi @ after.mean[0]), sigma(phi @ best), atol=0.02)
    np.testing.assert_allclose(after.mean[0], best, atol=0.1)
    p = sigma(phi @ best)
    exact = np.linalg.inv(precision + (phi * (p * (1 - p))[:, None]).T @ phi)
    np.testing.assert_allclose(np.diag(after.covariance[0]), np.diag(exact), rtol=0.1)
    backwards = start.updated(np.zeros(len(phi), np.intp), phi[::-1], y[::-1])
    np.testing.assert_allclose(sigma(phi @ backwards.mean[0]), sigma(phi @ after.mean[0]), atol=0.02)


@pytest.mark.parametrize("answers", ["good", "bad", "graded", "absurd"])
def test_the_covariance_stays_one(answers):
    model = hand_made_model(agents=("a",), prior_covariance=np.diag([5.0, 5.0, 5.0, 50.0]))
    rng = np.random.default_rng(6)
    phi = model.represent(*requests(4000, seed=6)).astype(np.float64)
    if answers == "absurd":
        phi *= 100.0
    y = {"good": np.ones(4000), "bad": np.zeros(4000)}.get(answers, rng.random(4000))
    beliefs = model.believed([AgentProfile(name="new", stated_quality=0.5)])
    after = beliefs.updated(np.zeros(4000, np.intp), phi, y)
    covariance = after.covariance[0]
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0.0
    assert (np.diag(covariance) <= np.diag(beliefs.covariance[0])).all(), "answers never make anyone less certain"
    assert np.isfinite(after.mean).all()


def test_trained_agents_are_more_certain_the_more_was_observed_up_to_a_limit():
    model = hand_made_model(agents=("a", "b", "c", "d"), observed=np.array([3.0, 50.0, 200.0, 9000.0]))
    beliefs = model.believed([AgentProfile(name=name) for name in ("new", "a", "b", "c", "d")])
    size = np.linalg.det(beliefs.covariance)
    assert (np.diff(size[:4]) < 0.0).all()
    assert size[4] == pytest.approx(size[3])
    by_hand = np.linalg.inv(np.linalg.inv(model.prior_covariance) + 50.0 * model.information)
    np.testing.assert_allclose(beliefs.covariance[2], by_hand, rtol=1e-9)
    assert beliefs.outcomes.tolist() == [0.0, 3.0, 50.0, 200.0, 9000.0]


# --- What was seen, and bars ----------------------------------------------------------------------------------------


def test_the_share_of_seen_requests_is_exact_for_few():
    model = hand_made_model(sketch=sketch_of([f"seen {i}" for i in range(100)]))
    assert model.seen_share([f"seen {i}" for i in range(30)] + [f"new {i}" for i in range(70)]) == pytest.approx(0.3)
    assert model.seen_share(["something else"]) == 0.0
    assert model.seen_share([]) is None
    assert hand_made_model().seen_share(["anything"]) is None


def test_the_share_of_seen_requests_is_estimated_for_many():
    seen = [f"seen {i}" for i in range(20_000)]
    sketch = sketch_of(seen)
    assert sketch.size == SKETCH_SIZE
    np.testing.assert_array_equal(sketch, sketch_of([*seen[::-1], *seen[:50]]))
    model = hand_made_model(sketch=sketch)
    asked = seen[:6_000] + [f"new {i}" for i in range(14_000)]
    # About 2,000 of the asked lie in the sketch's range: a standard deviation of 0.01.
    assert model.seen_share(asked) == pytest.approx(0.3, abs=0.04)
    above = next(t for t in seen if text_hash(t) > int(sketch.max()))
    assert model.seen_share([above]) is None, "it cannot be looked up"


def test_a_text_of_any_kind_has_a_hash():
    assert 0 <= text_hash("\ud800 lone") < 2**64
    assert text_hash("a") != text_hash("b")


def test_calibration_bars_are_probabilities_that_fall_with_the_bar_and_rise_with_quality():
    model, _ = trained_model()
    predictor = Predictor(model=model, abilities=model.abilities, covered=np.ones(6, np.bool_), discount=np.ones(6))
    qualities = np.linspace(0.0, 1.0, 41)
    reach = np.array([predictor.reach(qualities, bar) for bar in range(QUALITY_BINS)])
    assert ((reach >= 0.0) & (reach <= 1.0)).all()
    assert (reach[0] > 0.999).all(), "every answer reaches 0"
    assert (np.diff(reach, axis=0) <= 1e-9).all()
    assert (np.diff(reach, axis=1) >= 0.0).all()
    # Answers were right or wrong, so that reaching any bar is being right, of which the quality is the probability.
    np.testing.assert_allclose(reach[10][4:-4], qualities[4:-4], atol=0.05)
    assert predictor.reach(0.5, 10).shape == ()


def test_a_model_says_of_itself_only_what_is_json(tmp_path):
    model, _ = trained_model()
    model.save(tmp_path / "m.safetensors")
    metadata = load_artifact(tmp_path / "m.safetensors", kind=KIND).metadata
    assert json.loads(json.dumps(dict(metadata), allow_nan=False))["agents"] == list("abcdef")
    with pytest.raises(InvalidInputError, match="no JSON"):
        hand_made_model(facts={"a": math.nan}).save(tmp_path / "n.safetensors")


def test_the_facts_of_real_texts_fit():
    model, _ = trained_model()
    predicted = model.predict(unit(np.ones((2, 384))), surface_features(["", "x" * 100_000]), PROFILES)
    assert np.isfinite(predicted).all()


def test_a_space_is_more_than_a_dimension():
    assert hand_made_model().space != EmbeddingSpace("other", SMALL_SPACE.dim)
