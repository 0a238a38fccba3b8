"""FastGRNN against the paper's equation, computed here in float64 with plain loops, and against its limits."""

from __future__ import annotations

import math
import threading
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import (
    ArtifactError,
    InvalidInputError,
    InvalidVectorError,
    ModelError,
    NotFoundError,
    SpaceMismatchError,
)
from tinydancer.model.artifact import save_artifact
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig

FORMS = [
    {"tied": tied, "rank_w": rank_w, "rank_u": rank_u}
    for tied, rank_w, rank_u in product((True, False), (None, 3), (None, 2))
]


def randomised(config, seed=7):
    """A network whose biases, zeta and nu are not at their start either."""
    rng = np.random.default_rng(seed)
    model = FastGRNN(config)
    model.parameters["b"][:] = rng.normal(0, 0.5, model.parameters["b"].shape)
    model.parameters["zeta"][...] = 0.7
    model.parameters["nu"][...] = 0.2
    if config.output_dim:
        model.parameters["b_out"][:] = rng.normal(0, 0.5, config.output_dim)
    return model


def matrix_of(model, name, block):
    """One of the four matrices, as nested lists of Python floats, straight from the parameters' definition."""
    p, hidden = model.parameters, model.config.hidden_dim
    block = 0 if model.config.tied else block
    if name in p:
        return p[name][block * hidden : (block + 1) * hidden].tolist()
    left = p[f"{name}_left"][block * hidden : (block + 1) * hidden].tolist()
    rank = len(left[0])
    right = p[f"{name}_right"][block * rank : (block + 1) * rank].tolist()
    return [[sum(a * right[k][j] for k, a in enumerate(row)) for j in range(len(right[0]))] for row in left]


def equation_2(model, x, h):
    """One step in Python floats, element by element."""
    zeta, nu = float(model.parameters["zeta"]), float(model.parameters["nu"])
    w = [matrix_of(model, "w", 0), matrix_of(model, "w", 1)]
    u = [matrix_of(model, "u", 0), matrix_of(model, "u", 1)]
    b = model.parameters["b"].tolist()
    result = []
    for i in range(model.config.hidden_dim):
        a = [
            sum(w[k][i][j] * x[j] for j in range(len(x))) + sum(u[k][i][j] * h[j] for j in range(len(h))) + b[k][i]
            for k in (0, 1)
        ]
        z = 1.0 / (1.0 + math.exp(-a[0]))
        result.append((zeta * (1.0 - z) + nu) * math.tanh(a[1]) + z * h[i])
    return result


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_step_is_equation_2(form):
    model = randomised(FastGRNNConfig(input_dim=11, hidden_dim=6, seed=3, **form))
    rng = np.random.default_rng(4)
    for _ in range(20):
        x, h = rng.normal(0, 2, 11).astype(np.float32), rng.uniform(-1, 1, 6).astype(np.float32)
        np.testing.assert_allclose(model.step(x, h), equation_2(model, x.tolist(), h.tolist()), atol=2e-6)


def test_one_dimension_by_hand():
    # a_z = 0.5 x 2 - 1 x 0.25 + 0.25 = 1, so z = 1 / (1 + 1/e); a_h = 0.75 - 0.5 = 0.25 where W and U are shared.
    model = FastGRNN(
        FastGRNNConfig(input_dim=1, hidden_dim=1),
        {
            "w": np.array([[0.5]], np.float32),
            "u": np.array([[-1.0]], np.float32),
            "b": np.array([[0.25], [-0.5]], np.float32),
            "zeta": np.array(0.5, np.float32),
            "nu": np.array(0.125, np.float32),
        },
    )
    z = 0.7310585786300049
    expected = (0.5 * (1 - z) + 0.125) * 0.24491866240370913 + z * 0.25
    assert float(model.step([2.0], [0.25])[0]) == pytest.approx(expected, abs=1e-7)


def test_float64_agrees_at_full_size():
    model = randomised(FastGRNNConfig(input_dim=384, hidden_dim=64, tied=False))
    rng = np.random.default_rng(8)
    x, h = rng.normal(size=384), rng.uniform(-1, 1, 64)
    np.testing.assert_allclose(model.step(x, h), equation_2(model, x.tolist(), h.tolist()), atol=5e-6)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_gate_forced_open_keeps_the_state(form):
    model = FastGRNN(FastGRNNConfig(input_dim=5, hidden_dim=4, **form))
    model.parameters["b"][0] = 60.0
    h = np.array([0.3, -0.9, 0.0, 1.0], np.float32)
    x = np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(model.step(x, h), h)
    model.parameters["nu"][...] = 0.25
    np.testing.assert_allclose(model.step(x, h) - h, 0.25 * update_of(model, x, h), atol=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_gate_forced_shut_gives_the_update(form):
    model = FastGRNN(FastGRNNConfig(input_dim=5, hidden_dim=4, **form))
    model.parameters["b"][0] = -60.0
    model.parameters["zeta"][...] = 0.5
    model.parameters["nu"][...] = 0.25
    x, h = np.linspace(-1, 1, 5), np.array([0.3, -0.9, 0.0, 1.0], np.float32)
    np.testing.assert_allclose(model.step(x, h), 0.75 * update_of(model, x, h), atol=1e-6)


def update_of(model, x, h):
    return np.tanh(
        model.w_update.astype(float) @ x + model.u_update.astype(float) @ h + model.parameters["b"][1].astype(float)
    )


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(FORMS),
    st.floats(0.1, 1e4),
    st.integers(1, 60),
)
def test_the_state_stays_bounded_from_the_start_values(seed, form, scale, steps):
    # zeta = 1, nu = 0: every new state lies between the update and the old state.
    model = FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=4, seed=seed, **form))
    xs = np.random.default_rng(seed).normal(0, scale, (steps, 3))
    states = model.forward_sequence(xs)
    assert np.isfinite(states).all()
    assert np.abs(states).max() <= 1.0 + 1e-5


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.0, 0.95))
def test_the_bound_for_any_zeta_and_nu(seed, zeta, nu, ceiling):
    # |h'| <= zeta (1 - z) + nu + z |h|; with z <= c < 1 throughout, |h| never passes (zeta + nu) / (1 - c).
    model = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=3, seed=seed))
    model.parameters["w"][:] = 0.0
    model.parameters["u"][:] = 0.0
    bias = -30.0 if ceiling < 1e-13 else math.log(ceiling / (1 - ceiling))
    model.parameters["b"][0] = bias
    model.parameters["b"][1] = 9.0
    model.parameters["zeta"][...] = zeta
    model.parameters["nu"][...] = nu
    states = model.forward_sequence(np.zeros((200, 2)))
    z = 1 / (1 + math.exp(-bias))
    bound = (zeta * (1 - z) + nu) / (1 - z)
    assert np.abs(states).max() <= bound * (1 + 1e-4) + 1e-5
    np.testing.assert_allclose(states[-1], bound * math.tanh(9.0) * (1 - z**200), rtol=1e-3, atol=1e-5)


def test_extreme_inputs_give_no_warning_and_no_nan():
    model = FastGRNN(FastGRNNConfig(input_dim=4, hidden_dim=3, output_dim=2, tied=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (0.0, 1e-30, 1e17, -1e17):
            assert np.isfinite(model.step(np.full(4, size), np.full(3, -1.0))).all()
            assert np.isfinite(model.score(np.full(4, size))).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_shapes_and_sizes(form):
    config = FastGRNNConfig(input_dim=10, hidden_dim=8, output_dim=3, **form)
    model = FastGRNN(config)
    assert {name: array.shape for name, array in model.parameters.items()} == config.shapes()
    assert all(array.dtype == np.float32 for array in model.parameters.values())
    blocks = 1 if form["tied"] else 2
    w = blocks * (8 * 10 if form["rank_w"] is None else 3 * (8 + 10))
    u = blocks * (8 * 8 if form["rank_u"] is None else 2 * (8 + 8))
    assert model.size_bytes() == 4 * (w + u + 2 * 8 + 2 + 3 * 8 + 3)
    assert model.w_gate.shape == model.w_update.shape == (8, 10)
    assert model.u_gate.shape == model.u_update.shape == (8, 8)
    assert np.array_equal(model.w_gate, model.w_update) == form["tied"]
    assert np.array_equal(model.u_gate, model.u_update) == form["tied"]
    np.testing.assert_allclose(model.w_gate, matrix_of(model, "w", 0), rtol=1e-5)
    np.testing.assert_allclose(model.w_update, matrix_of(model, "w", 1), rtol=1e-5)
    np.testing.assert_allclose(model.u_update, matrix_of(model, "u", 1), rtol=1e-5)


def test_the_start_is_xavier_and_depends_on_the_seed_alone():
    config = FastGRNNConfig(input_dim=300, hidden_dim=100, output_dim=50, tied=False, seed=5)
    one, same = FastGRNN(config), FastGRNN(config)
    other = FastGRNN(FastGRNNConfig(input_dim=300, hidden_dim=100, output_dim=50, tied=False, seed=6))
    for name, array in one.parameters.items():
        np.testing.assert_array_equal(array, same.parameters[name])
    assert not np.array_equal(one.parameters["w"], other.parameters["w"])
    for matrix, rows, columns in (
        (one.w_gate, 100, 300),
        (one.w_update, 100, 300),
        (one.u_gate, 100, 100),
        (one.u_update, 100, 100),
        (one.parameters["w_out"], 50, 100),
    ):
        limit = math.sqrt(6 / (rows + columns))
        assert np.abs(matrix).max() <= limit
        # A uniform distribution on [-a, a] has mean 0 and standard deviation a / sqrt(3); n >= 5,000 draws.
        assert matrix.std() == pytest.approx(limit / math.sqrt(3), rel=0.03)
        assert abs(matrix.mean()) < 0.05 * limit
    assert (float(one.parameters["zeta"]), float(one.parameters["nu"])) == (1.0, 0.0)
    assert not one.parameters["b"].any()
    assert not one.parameters["b_out"].any()


def test_low_rank_factors_are_drawn_for_their_own_size():
    factors = FastGRNN(FastGRNNConfig(input_dim=300, hidden_dim=100, rank_w=20, tied=False)).parameters
    assert math.sqrt(6 / 120) * 0.99 < np.abs(factors["w_left"]).max() <= math.sqrt(6 / 120)
    assert math.sqrt(6 / 320) * 0.99 < np.abs(factors["w_right"]).max() <= math.sqrt(6 / 320)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sequence_batch_and_single_agree_with_repeated_steps(form):
    model = randomised(FastGRNNConfig(input_dim=9, hidden_dim=5, **form))
    xs = np.random.default_rng(3).normal(size=(4, 7, 9)).astype(np.float32)
    last = []
    for sequence in xs:
        h = np.zeros(5, np.float32)
        states = []
        for x in sequence:
            h = model.step(x, h)
            states.append(h)
        np.testing.assert_allclose(model.forward_sequence(sequence), states, atol=1e-6)
        last.append(h)
    np.testing.assert_allclose(model.encode_batch(xs), last, atol=1e-6)
    np.testing.assert_allclose(model.forward_batch(xs), last, atol=1e-6)
    firsts = [model.forward_single(x) for x in xs[:, 0]]
    np.testing.assert_allclose(firsts, [model.step(x, np.zeros(5)) for x in xs[:, 0]], atol=1e-7)
    np.testing.assert_allclose(model.encode_batch(xs[:, 0]), firsts, atol=1e-6)


def test_the_head_scores():
    model = randomised(FastGRNNConfig(input_dim=5, hidden_dim=8, output_dim=2))
    xs = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    scores = model.forward_batch(xs)
    assert scores.shape == (6, 2)
    p = model.parameters
    for x, row in zip(xs, scores, strict=True):
        logits = p["w_out"].astype(float) @ model.forward_single(x) + p["b_out"]
        np.testing.assert_allclose(row, 1 / (1 + np.exp(-logits)), atol=1e-6)
        np.testing.assert_allclose(model.score(x), row, atol=1e-6)
    assert model.encode_batch(xs).shape == (6, 8)
    assert model.forward_sequence(xs).shape == (6, 8)


def test_no_head_no_score():
    with pytest.raises(ModelError, match="no head"):
        FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=2)).score([1, 2])


def test_empty_batches_and_sequences():
    model = FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=2, output_dim=1))
    assert model.forward_sequence(np.zeros((0, 3))).shape == (0, 2)
    assert model.encode_batch(np.zeros((0, 3))).shape == (0, 2)
    assert model.forward_batch(np.zeros((0, 3))).shape == (0, 1)
    assert model.forward_batch(np.zeros((0, 4, 3))).shape == (0, 1)
    with pytest.raises(InvalidVectorError, match="at least one step"):
        model.encode_batch(np.zeros((4, 0, 3)))


def test_inputs_are_not_changed():
    model = randomised(FastGRNNConfig(input_dim=3, hidden_dim=2, output_dim=1))
    x, h, xs = np.ones(3, np.float32), np.ones(2, np.float32), np.ones((4, 5, 3), np.float32)
    before = {name: array.copy() for name, array in model.parameters.items()}
    model.step(x, h), model.score(x), model.forward_batch(xs), model.forward_sequence(xs[0])
    assert (x == 1).all()
    assert (h == 1).all()
    assert (xs == 1).all()
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.step(np.zeros(4), np.zeros(2)), SpaceMismatchError, "x has 4 numbers; this network's x has 3"),
        (lambda m: m.step(np.zeros(3), np.zeros(5)), SpaceMismatchError, "h has 5 numbers; this network's h has 2"),
        (lambda m: m.forward_single(np.zeros(2)), SpaceMismatchError, "x has 2 numbers; this network's x has 3"),
        (lambda m: m.forward_batch(np.zeros((2, 4))), SpaceMismatchError, "xs has 4 numbers; this network's xs has 3"),
        (lambda m: m.forward_batch(np.zeros((2, 2, 4))), SpaceMismatchError, "xs has 4 .* has 3"),
        (lambda m: m.forward_single(np.zeros((1, 3))), InvalidVectorError, r"shape \(1, 3\); expected 1"),
        (lambda m: m.forward_sequence(np.zeros(3)), InvalidVectorError, r"shape \(3,\); expected 2"),
        (lambda m: m.forward_batch(np.zeros(3)), InvalidVectorError, r"shape \(3,\); expected 2"),
        (lambda m: m.forward_single("abc"), InvalidVectorError, "expected an array"),
        (lambda m: m.forward_single([1, None, object()]), InvalidVectorError, "expected an array"),
        (lambda m: m.step([0, math.nan, 0], [0, 0]), InvalidVectorError, "x holds NaN"),
        (lambda m: m.step([0, 0, 0], [0, math.inf]), InvalidVectorError, "h holds NaN"),
        (lambda m: m.forward_batch([[0, 0, 0], [0, -math.inf, 0]]), InvalidVectorError, "xs holds"),
        (lambda m: m.forward_single([1e25, 0, 0]), InvalidVectorError, "beyond 1e"),
        (lambda m: m.forward_single([1e300, 0, 0]), InvalidVectorError, "beyond 1e"),
    ],
)
def test_bad_input_says_what_was_given_and_expected(call, error, words):
    model = FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=2))
    with pytest.raises(error, match=words):
        call(model)


@pytest.mark.parametrize(
    "values",
    [
        {"input_dim": 0},
        {"hidden_dim": -1},
        {"hidden_dim": 2.5},
        {"output_dim": 0},
        {"input_dim": 4, "hidden_dim": 3, "rank_w": 4},
        {"input_dim": 2, "hidden_dim": 3, "rank_w": 3},
        {"input_dim": 4, "hidden_dim": 3, "rank_u": 4},
        {"rank_w": 0},
        {"seed": -1},
        {"tied": 1},
        {"input_dim": "384"},
    ],
)
def test_bad_configurations_are_refused(values):
    with pytest.raises(InvalidInputError):
        FastGRNNConfig(**values)


def parameters_of(config):
    return dict(FastGRNN(config).parameters)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": None}, "The parameters are"),
        ({"extra": np.zeros(1, np.float32)}, "extra"),
        ({"w": np.zeros((2, 4), np.float32)}, r"float32\[2, 4\]; expected float32\[2, 3\]"),
        ({"w": np.zeros((2, 3))}, r"float64\[2, 3\]; expected float32\[2, 3\]"),
        ({"w": [[0.0] * 3] * 2}, "expected float32"),
        ({"w": np.full((2, 3), np.nan, np.float32)}, "NaN"),
        ({"b": np.full((2, 2), np.inf, np.float32)}, "infinities"),
        ({"zeta": np.array(1.5, np.float32)}, "'zeta' is 1.5"),
        ({"nu": np.array(-0.1, np.float32)}, "'nu' is -0.1"),
    ],
)
def test_bad_parameters_are_refused(change, words, tmp_path):
    config = FastGRNNConfig(input_dim=3, hidden_dim=2)
    given = {k: v for k, v in (parameters_of(config) | change).items() if v is not None}
    with pytest.raises(ModelError, match=words):
        FastGRNN(config, given)
    # The same in a file whose hash is right is an error of the file.
    save_artifact(tmp_path / "m", given, kind="fastgrnn", metadata={"config": {"input_dim": 3, "hidden_dim": 2}})
    if not isinstance(change.get("w"), list):
        with pytest.raises(ArtifactError, match="no usable FastGRNN"):
            FastGRNN.load(tmp_path / "m")


def test_given_parameters_are_used_not_copied():
    config = FastGRNNConfig(input_dim=3, hidden_dim=2)
    given = parameters_of(config)
    model = FastGRNN(config, given)
    before = model.forward_single([1, 2, 3])
    given["w"] *= 2
    assert not np.allclose(before, model.forward_single([1, 2, 3]))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_saved_and_loaded_is_the_same_network(form, tmp_path):
    config = FastGRNNConfig(input_dim=9, hidden_dim=5, output_dim=2, seed=11, **form)
    model = randomised(config)
    digest = model.save(tmp_path / "m", {"epochs": 4, "loss": 0.25})
    loaded = FastGRNN.load(tmp_path / "m")
    assert loaded.config == config
    assert loaded.metadata == {"epochs": 4, "loss": 0.25}
    assert loaded.sha256 == digest
    assert model.sha256 is None
    assert loaded.size_bytes() == model.size_bytes()
    xs = np.random.default_rng(0).normal(size=(3, 9))
    np.testing.assert_allclose(loaded.forward_batch(xs), model.forward_batch(xs), atol=1e-6)
    for array in loaded.parameters.values():
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    # Facts stay with a network that is saved again, and the same content has the same hash.
    assert loaded.save(tmp_path / "again") == digest


def test_damaged_wrong_and_missing_files(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(NotFoundError):
        FastGRNN.load(path)
    save_artifact(path, {}, kind="other")
    with pytest.raises(ArtifactError, match="'other'; expected kind 'fastgrnn'"):
        FastGRNN.load(path)
    FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=2)).save(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.unlink()
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="changed after"):
        FastGRNN.load(path)
    path.write_bytes(raw[:-4])
    with pytest.raises(ArtifactError, match="truncated"):
        FastGRNN.load(path)


@pytest.mark.parametrize(
    "config", [None, 3, {"input_dim": 3, "hidden": 2}, {"input_dim": 0}, {"input_dim": 3, "hidden_dim": 4}]
)
def test_a_config_that_does_not_fit_the_weights_is_refused(tmp_path, config):
    parameters = parameters_of(FastGRNNConfig(input_dim=3, hidden_dim=2))
    save_artifact(tmp_path / "m", parameters, kind="fastgrnn", metadata={"config": config})
    with pytest.raises(ArtifactError, match="no usable FastGRNN"):
        FastGRNN.load(tmp_path / "m")


def test_one_network_serves_many_threads():
    model = randomised(FastGRNNConfig(input_dim=30, hidden_dim=20, output_dim=1, tied=False))
    xs = np.random.default_rng(1).normal(size=(16, 6, 30)).astype(np.float32)
    expected = [(model.forward_sequence(x), model.forward_batch(x)) for x in xs]
    wrong: list[int] = []

    def work(i):
        for _ in range(100):
            sequence, batch = model.forward_sequence(xs[i]), model.forward_batch(xs[i])
            if not (np.array_equal(sequence, expected[i][0]) and np.array_equal(batch, expected[i][1])):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_repr_says_shape_and_size():
    assert "input_dim=3" in repr(FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=2)))
    assert "bytes" in repr(FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=2)))
