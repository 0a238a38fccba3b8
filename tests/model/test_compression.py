"""Compression: bounds that follow from rounding, sizes that follow from the formats, and networks that still work."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import ArtifactError, InvalidInputError, ModelError, NotFoundError
from tinydancer.model import compression
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.compression import (
    CompressedFastGRNN,
    dequantized,
    factorized,
    magnitude_masks,
    pack_parameters,
    prune_gradually,
    quantized,
    unpack_parameters,
)
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.training import TrainingConfig, train_network

ROOT = Path(__file__).resolve().parent.parent.parent
FORMS = [
    {"tied": tied, "rank_w": rank_w, "rank_u": rank_u}
    for tied, rank_w, rank_u in product((True, False), (None, 5), (None, 3))
]


def network_of(seed=0, input_dim=20, hidden_dim=8, **form):
    network = FastGRNN(FastGRNNConfig(input_dim=input_dim, hidden_dim=hidden_dim, output_dim=3, seed=seed, **form))
    rng = np.random.default_rng(seed)
    network.parameters["b"][:] = rng.normal(0, 0.3, network.parameters["b"].shape)
    network.parameters["zeta"][...], network.parameters["nu"][...] = 0.8, 0.1
    return network


def pruned(network, sparsity):
    for name, mask in magnitude_masks(network.parameters, sparsity).items():
        network.parameters[name] *= mask
    return network


# --- Rounding to int8 -----------------------------------------------------------------------------------------------


def test_quantisation_by_hand():
    values, scales = quantized(np.array([[1.27, -0.64, 0.0], [0.0, 0.0, 0.0], [-254.0, 3.0, 100.0]], np.float32))
    np.testing.assert_array_equal(values, [[127, -64, 0], [0, 0, 0], [-127, 2, 50]])
    np.testing.assert_allclose(scales, [0.01, 0.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(dequantized(values, scales)[2], [-254.0, 4.0, 100.0])


@given(st.integers(0, 2**32 - 1), st.floats(-38, 38), st.integers(1, 6), st.integers(1, 40))
def test_rounding_is_off_by_half_a_scale_at_most_and_symmetric(seed, exponent, rows, columns):
    matrix = (np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0**exponent).astype(np.float32)
    if not np.isfinite(matrix).all():
        return
    values, scales = quantized(matrix)
    half = np.abs(matrix).max(axis=1, keepdims=True) / 254.0
    # Where a scale is a denormal number, it has few digits of its own.
    slack = 1e-5 * half + 127 * 1.5e-45
    assert (np.abs(dequantized(values, scales).astype(float) - matrix) <= half + slack).all()
    mirrored, same = quantized(-matrix)
    np.testing.assert_array_equal(mirrored, -values)
    np.testing.assert_array_equal(same, scales)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_rounded(bad):
    with pytest.raises(ModelError, match="NaN or infinities"):
        quantized(np.array([[1.0, bad]], np.float32))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.01, 20))
def test_a_rounded_step_is_as_near_as_promised(seed, tied, scale):
    network = network_of(seed, tied=tied)
    compressed = CompressedFastGRNN(network)
    x = np.random.default_rng(seed).normal(0, scale, 20).astype(np.float32)
    blocks = [np.abs(m).max(axis=1) for m in (network.w_gate, network.w_update)]
    by_gate, by_update = (np.abs(x).sum() * m / 254.0 for m in blocks)
    # The state's slope is at most 1 in the update's argument and 1/4 in the gate's.
    bound = (0.8 + 0.1) * (by_update + by_gate / 4) + 1e-5
    assert (np.abs(compressed.forward_single(x) - network.forward_single(x)) <= bound).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_compressed_network_answers_like_the_full_one(form):
    network = network_of(1, **form)
    compressed = CompressedFastGRNN(network)
    rng = np.random.default_rng(2)
    x, h = rng.normal(0, 0.5, 20).astype(np.float32), rng.uniform(-1, 1, 8).astype(np.float32)
    for ask in (
        lambda n: n.forward_single(x),
        lambda n: n.step(x, h),
        lambda n: n.score(x),
        lambda n: n.encode_batch(np.stack([x] * 3)),
        lambda n: n.forward_batch(np.stack([[x, -x]] * 3)),
        lambda n: n.forward_sequence(np.stack([x, -x, x])),
    ):
        full, rounded = ask(network), ask(compressed)
        assert rounded.dtype == np.float32
        assert 0 < np.abs(full - rounded).max() < 0.03
    exact = CompressedFastGRNN(network, int8=False)
    np.testing.assert_array_equal(exact.forward_batch(x[None]), network.forward_batch(x[None]))


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_file_gives_back_the_same_network(tmp_path, form, sparsity, int8):
    network = pruned(network_of(3, **form), sparsity)
    network.metadata = {"rows": 7000}
    compressed = CompressedFastGRNN(network, int8=int8)
    digest = compressed.save(tmp_path / "n.safetensors")
    loaded = CompressedFastGRNN.load(tmp_path / "n.safetensors")
    assert loaded.sha256 == digest
    assert loaded.metadata == {"rows": 7000}
    assert loaded.forms == compressed.forms
    assert loaded.size_bytes() == compressed.size_bytes()
    for name in network.parameters:
        np.testing.assert_array_equal(loaded.parameters[name], compressed.parameters[name])
        assert not loaded.parameters[name].flags.writeable
    x = np.random.default_rng(1).normal(size=(4, 20))
    np.testing.assert_array_equal(loaded.forward_batch(x), compressed.forward_batch(x))
    assert loaded.save(tmp_path / "again.safetensors") == digest


def test_files_are_as_small_as_their_forms(tmp_path):
    network = FastGRNN(FastGRNNConfig(output_dim=5))
    w, u, head, rest = 64 * 384, 64 * 64, 5 * 64, (2 * 64 + 2 + 5) * 4
    assert network.size_bytes() == 4 * (w + u + head) + rest
    sizes = {"int8": CompressedFastGRNN(network).size_bytes()}
    assert sizes["int8"] == w + u + head + rest + 4 * (64 + 64 + 5)
    pruned(network, 0.9)
    left = round(0.1 * w) + round(0.1 * u)
    bits = (w + u) // 8
    assert CompressedFastGRNN(network, int8=False).size_bytes() == bits + 4 * (left + head) + rest
    both = CompressedFastGRNN(network)
    assert both.forms["w"] == both.forms["u"] == "sparse-int8"
    assert (both.forms["w_out"], both.forms["b"], both.forms["zeta"]) == ("int8", "float32", "float32")
    # Of the numbers that are left, none is so near to zero beside its row's greatest that it rounds to zero.
    assert both.size_bytes() == bits + left + head + rest + 4 * (64 + 64 + 5)
    both.save(tmp_path / "n.safetensors")
    assert 0 < (tmp_path / "n.safetensors").stat().st_size - both.size_bytes() < 3_000


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 70), st.floats(0, 1), st.booleans())
def test_packing_loses_nothing_but_what_rounding_loses(seed, rows, columns, density, int8):
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)).astype(np.float32)
    parameters = {"m": matrix, "b": np.zeros((2, 3), np.float32), "s": np.array(0.5, np.float32)}
    shapes = {name: array.shape for name, array in parameters.items()}
    tensors, forms = pack_parameters(parameters, int8=int8)
    back = unpack_parameters(tensors, forms, shapes)
    expected = dequantized(*quantized(matrix)) if int8 else matrix
    np.testing.assert_array_equal(back["m"], expected)
    np.testing.assert_array_equal(back["b"], parameters["b"])
    assert back["s"].shape == ()
    own = sum(array.nbytes for name, array in tensors.items() if name.startswith("m") and name != "m.scales")
    width = 1 if int8 else 4
    kept = np.count_nonzero(expected)
    assert own == min(width * matrix.size, (matrix.size + 7) // 8 + width * kept)


def test_a_compressed_network_is_its_own_and_cannot_be_changed_by_accident():
    network = network_of(1)
    compressed = CompressedFastGRNN(network, int8=False)
    before = compressed.forward_single(np.ones(20))
    network.parameters["w"][:] = 0.0
    network.parameters["b"][:] = 9.0
    np.testing.assert_array_equal(compressed.forward_single(np.ones(20)), before)
    for array in compressed.parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_what_a_file_should_hold_and_does_not_is_named(tmp_path):
    good = CompressedFastGRNN(pruned(network_of(1), 0.9))
    path = tmp_path / "n.safetensors"
    good.save(path)
    artifact = load_artifact(path, kind=compression.KIND)
    tensors, facts = dict(artifact.tensors), dict(artifact.metadata)
    assert good.forms["w"] == "sparse-int8"

    def refused(message, tensors=tensors, kind=compression.KIND, **changes):
        save_artifact(path, tensors, kind=kind, metadata={**facts, **changes})
        with pytest.raises(ArtifactError, match=message):
            CompressedFastGRNN.load(path)

    refused("'w' is int8.*; expected int8", tensors | {"w": tensors["w"][:-1]})
    refused("'w.bits' is missing", {k: v for k, v in tensors.items() if k != "w.bits"})
    refused("'w.bits' is uint8.*; expected uint8", tensors | {"w.bits": tensors["w.bits"][:-1]})
    refused("'w' is int8", tensors | {"w.bits": tensors["w.bits"] | np.uint8(255)})
    refused("'w.scales' is float64", tensors | {"w.scales": tensors["w.scales"].astype(float)})
    refused("scale that is negative", tensors | {"w.scales": -tensors["w.scales"] - 1})
    refused("scale that is negative or not finite", tensors | {"w.scales": np.full(8, np.nan, np.float32)})
    refused("'extra' that belongs to no", tensors | {"extra": np.zeros(1)})
    refused("of form 'int4'", forms={**facts["forms"], "w": "int4"})
    refused("of form \\['int8'\\]", forms={**facts["forms"], "w": ["int8"]})
    refused("'w' is int8.*; expected float32", forms={**facts["forms"], "w": "float32"})
    refused("The forms are those of", forms={"w": "int8"})
    refused("its forms are None", forms=None)
    refused("its config is None", config=None)
    refused("input_dim", config={**facts["config"], "input_dim": 0})
    refused("Parameter 'nu' is 3", tensors | {"nu": np.array(3.0, np.float32)})
    refused("of kind 'fastgrnn'", kind="fastgrnn")
    with pytest.raises(NotFoundError):
        CompressedFastGRNN.load(tmp_path / "none")
    good.save(path)
    with pytest.raises(ArtifactError, match="fastgrnn-compressed"):
        FastGRNN.load(path)


# --- Pruning --------------------------------------------------------------------------------------------------------


def test_masks_keep_the_largest_of_each_matrix():
    parameters = {"w": np.array([[1.0, -4.0], [0.5, 3.0]]), "u": np.full((2, 5), 0.1), "b": np.zeros((2, 2))}
    masks = magnitude_masks(parameters, 0.5)
    assert masks.keys() == {"w", "u"}
    np.testing.assert_array_equal(masks["w"], [[False, True], [False, True]])
    assert masks["u"].sum() == 5
    np.testing.assert_array_equal(magnitude_masks(parameters, 0.0)["w"], True)
    assert magnitude_masks({"mine": np.arange(4.0)}, 0.25, ["mine", "absent"])["mine"].tolist() == [False] + [True] * 3
    for share in (-0.1, 1.1, np.nan):
        with pytest.raises(InvalidInputError, match="sparsity"):
            magnitude_masks(parameters, share)


def test_pruning_follows_the_cubic_course_and_never_brings_anything_back():
    parameters = {"w": np.random.default_rng(0).normal(size=(40, 50)), "b": np.ones(3)}
    seen = []

    def train(masks):
        seen.append(masks["w"])
        parameters["w"] += 0.1 * np.random.default_rng(len(seen)).normal(size=(40, 50)) * masks["w"]

    masks = prune_gradually(parameters, 0.8, train, rounds=4)
    np.testing.assert_allclose(
        [1 - m.mean() for m in seen], [0.8 * (1 - (k / 4) ** 3) for k in (3, 2, 1, 0)], atol=5e-4
    )
    assert all((after <= before).all() for before, after in pairwise(seen))
    assert masks["w"] is seen[-1]
    assert not parameters["w"][~masks["w"]].any()
    assert np.count_nonzero(parameters["w"]) == 400
    with pytest.raises(InvalidInputError, match="Hand the masks on"):
        prune_gradually(parameters, 0.9, lambda masks: parameters["w"].__iadd__(1.0), rounds=1)
    with pytest.raises(InvalidInputError, match="rounds"):
        prune_gradually(parameters, 0.9, train, rounds=0)


@pytest.fixture(scope="module")
def learnt():
    """A network that has learnt which of eight directions a vector is nearest to, and how well it does on new ones."""
    directions = np.random.default_rng(1).normal(size=(8, 32))

    def rows(n, seed):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 8, n)
        return (0.7 * directions[label] + rng.normal(size=(n, 32))).astype(np.float32), label

    network = FastGRNN(FastGRNNConfig(input_dim=32, hidden_dim=16, output_dim=8, tied=False, seed=1))
    xs, label = rows(1200, 2)
    config = TrainingConfig(epochs=15, learning_rate=0.01, seed=0)
    train_network(network, xs, label, config=config, loss="softmax")
    new, new_label = rows(1000, 3)

    def accuracy(candidate):
        return float((candidate.forward_batch(new).argmax(axis=1) == new_label).mean())

    def copy():
        return FastGRNN(network.config, {name: array.copy() for name, array in network.parameters.items()})

    def tune(candidate, masks=None):
        return train_network(candidate, xs, label, config=config, loss="softmax", masks=masks)

    assert accuracy(network) > 0.9
    return network, copy, tune, accuracy


def test_int8_costs_next_to_nothing(learnt):
    network, _, _, accuracy = learnt
    assert abs(accuracy(CompressedFastGRNN(network)) - accuracy(network)) <= 0.01


def test_fine_tuning_regains_what_pruning_loses(learnt, tmp_path):
    network, copy, tune, accuracy = learnt
    thinned, tuned = pruned(copy(), 0.9), copy()
    prune_gradually(tuned.parameters, 0.9, lambda masks: tune(tuned, masks), rounds=3)
    assert np.count_nonzero(tuned.parameters["w"]) == round(0.1 * tuned.parameters["w"].size)
    assert accuracy(thinned) < accuracy(network) - 0.1
    assert accuracy(tuned) > accuracy(network) - 0.07
    small = CompressedFastGRNN(tuned)
    small.save(tmp_path / "small.safetensors")
    loaded = CompressedFastGRNN.load(tmp_path / "small.safetensors")
    assert accuracy(loaded) == pytest.approx(accuracy(tuned), abs=0.01)
    assert small.size_bytes() < network.size_bytes() / 7


def test_fine_tuning_regains_what_factoring_loses(learnt):
    network, _, tune, accuracy = learnt
    thin = factorized(network, rank_w=3, rank_u=3)
    before = accuracy(thin)
    tune(thin)
    assert before < accuracy(network) - 0.15
    assert accuracy(thin) > accuracy(network) - 0.1


# --- Low rank -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_factors_are_the_nearest_matrix_of_their_rank(tied):
    network = network_of(1, tied=tied)
    thin = factorized(network, rank_w=3, rank_u=2)
    assert (thin.config.rank_w, thin.config.rank_u, thin.config.tied) == (3, 2, tied)
    for full, low, rank in (
        (network.w_gate, thin.w_gate, 3),
        (network.w_update, thin.w_update, 3),
        (network.u_gate, thin.u_gate, 2),
        (network.u_update, thin.u_update, 2),
    ):
        singular = np.linalg.svd(full.astype(float), compute_uv=False)
        assert np.linalg.matrix_rank(low, tol=1e-5) == rank
        # Eckart and Young: the error's norm is that of the singular values left out.
        assert np.linalg.norm(full - low) == pytest.approx(np.sqrt((singular[rank:] ** 2).sum()), rel=1e-4)
    left, right = thin.parameters["w_left"][:8], thin.parameters["w_right"][:3]
    np.testing.assert_allclose(np.diag(left.T @ left), np.diag(right @ right.T), rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_full_rank_factors_change_nothing_and_can_be_factored_again(tied):
    network = network_of(1, tied=tied)
    thin = factorized(network, rank_w=8, rank_u=8)
    x = np.random.default_rng(0).normal(size=(5, 3, 20))
    np.testing.assert_allclose(thin.forward_batch(x), network.forward_batch(x), atol=1e-5)
    only_w = factorized(network, rank_w=4)
    assert (only_w.config.rank_w, only_w.config.rank_u) == (4, None)
    again = factorized(only_w, rank_w=2)
    np.testing.assert_allclose(again.w_gate, factorized(network, rank_w=2).w_gate, atol=1e-5)
    np.testing.assert_array_equal(again.parameters["u"], network.parameters["u"])
    again.parameters["u"][:] = 0.0
    assert network.parameters["u"].any()
    with pytest.raises(InvalidInputError, match="rank_w"):
        factorized(network, rank_w=9)


# --- Sparse products ------------------------------------------------------------------------------------------------


def test_large_and_nearly_empty_matrices_are_multiplied_in_sparse_form_only_there():
    network = FastGRNN(FastGRNNConfig(input_dim=1100, hidden_dim=64, seed=1))
    pruned(network, 0.98)
    network.parameters["w"][5] = 0.0  # a row with nothing in it
    sparse = CompressedFastGRNN(network, int8=False)
    assert sparse._sparse.keys() == {"w"}  # u is too small
    x = np.random.default_rng(0).normal(size=1100).astype(np.float32)
    np.testing.assert_allclose(sparse.forward_single(x), network.forward_single(x), atol=1e-5)
    np.testing.assert_allclose(sparse.step(x, np.full(64, 0.5)), network.step(x, np.full(64, 0.5)), atol=1e-5)
    np.testing.assert_array_equal(sparse.encode_batch(x[None]), network.encode_batch(x[None]))
    network.parameters["w"][:] = 0.0
    nothing = CompressedFastGRNN(network)
    np.testing.assert_allclose(nothing.forward_single(x), network.forward_single(x), atol=1e-7)
    assert CompressedFastGRNN(FastGRNN(network.config))._sparse == {}


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_a_sparse_product_is_the_full_one(seed, rows, columns, density):
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < density)).astype(np.float32)
    x = rng.normal(size=columns).astype(np.float32)
    np.testing.assert_allclose(compression.SparseRows.of(matrix).times(x), matrix @ x, atol=1e-5)


def test_the_benchmark_runs_and_measures_every_form(tmp_path):
    command = [sys.executable, str(ROOT / "bench" / "compression.py"), "--quick", "--json", "figures.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    forms = {row["form"]: row for row in figures["forms"]}
    assert len(forms) == 11
    assert len(figures["products"]) == 16
    assert all(row["file_bytes"] > 0 and row["single_us"] > 0 and row["batch_us"] > 0 for row in forms.values())
    assert forms["pruned 90%, tuned, int8"]["file_bytes"] < forms["full"]["file_bytes"] / 10
    assert all(name in done.stdout for name in forms)
