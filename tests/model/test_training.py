"""Gradients against finite differences, the optimiser against hand-worked numbers, and networks that really learn."""

from __future__ import annotations

import json
import math
import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.training import (
    Adam,
    EpochReport,
    TrainingConfig,
    TrainingReport,
    Weights,
    backward,
    balanced_class_weights,
    binary_cross_entropy,
    distillation,
    dropout_mask,
    forward_cached,
    head_backward,
    head_logits,
    in_float64,
    learning_rate_at,
    loss_and_gradient,
    sigmoid,
    softmax,
    softmax_cross_entropy,
    split_rows,
    train_network,
)

FORMS = [
    {"tied": tied, "rank_w": rank_w, "rank_u": rank_u}
    for tied, rank_w, rank_u in product((True, False), (None, 2), (None, 3))
]
INPUTS = ("single", "sequence", "padded")


def network_of(seed=0, **form):
    """A float64 network away from every special value, and one of the three kinds of input."""
    config = FastGRNNConfig(input_dim=5, hidden_dim=4, output_dim=3, seed=seed, **form)
    p = in_float64(FastGRNN(config)).parameters
    rng = np.random.default_rng(seed)
    for name in p:
        p[name][...] += rng.normal(0, 0.3, p[name].shape)
    p["zeta"][...], p["nu"][...] = 0.7, 0.2
    return Weights(config, p)


def inputs_of(kind, seed=1):
    rng = np.random.default_rng(seed)
    if kind == "single":
        return rng.normal(size=(6, 5)), None
    lengths = np.array([3, 1, 4, 2, 4, 3]) if kind == "padded" else None
    return rng.normal(size=(6, 4, 5)), lengths


def numeric_gradient(function, array, step=1e-6):
    """Central differences of a scalar function of an array that is changed in place."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        below = function()
        array[index] = kept
        result[index] = (above - below) / (2 * step)
    return result


# --- Back-propagation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_gradient_is_that_of_finite_differences(form, kind):
    network, (xs, lengths) = network_of(**form), inputs_of(kind)
    targets = np.random.default_rng(2).random((6, 3))

    def loss():
        states, _ = forward_cached(network, xs, lengths)
        return binary_cross_entropy(head_logits(network, states), targets)[0]

    states, cache = forward_cached(network, xs, lengths)
    _, by_logits = binary_cross_entropy(head_logits(network, states), targets)
    grads, by_states = head_backward(network, states, by_logits)
    by_cell, by_xs = backward(network, cache, by_states)
    grads |= by_cell
    assert grads.keys() == network.parameters.keys()
    for name, array in network.parameters.items():
        assert grads[name].shape == array.shape
        assert grads[name].dtype == np.float64
        np.testing.assert_allclose(grads[name], numeric_gradient(loss, array), atol=1e-8, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(by_xs, numeric_gradient(loss, xs), atol=1e-8, rtol=1e-6)
    without, none = backward(network, cache, by_states, inputs=False)
    assert none is None
    for name in without:
        np.testing.assert_array_equal(without[name], grads[name])


@pytest.mark.parametrize("kind", ["single", "sequence"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_forward_pass_is_the_networks_own(form, kind):
    network = FastGRNN(FastGRNNConfig(input_dim=5, hidden_dim=4, output_dim=3, seed=3, **form))
    network.parameters["b"][:] = np.random.default_rng(0).normal(size=(2, 4))
    network.parameters["zeta"][...], network.parameters["nu"][...] = 0.6, 0.3
    xs = inputs_of(kind)[0].astype(np.float32)
    states, _ = forward_cached(network, xs)
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, network.encode_batch(xs), atol=1e-6)
    np.testing.assert_allclose(sigmoid(head_logits(network, states)), network.forward_batch(xs), atol=1e-6)


def test_a_padded_batch_is_each_sequence_on_its_own_and_padding_is_never_read():
    network, (xs, lengths) = network_of(tied=False), inputs_of("padded")
    padded = xs.copy()
    for i, length in enumerate(lengths):
        padded[i, length:] = np.nan
    states, cache = forward_cached(network, padded, lengths)
    grad = np.random.default_rng(5).normal(size=states.shape)
    grads, by_xs = backward(network, cache, grad)
    total = {name: np.zeros_like(array) for name, array in grads.items()}
    for i, length in enumerate(lengths):
        alone, alone_cache = forward_cached(network, xs[i : i + 1, :length])
        np.testing.assert_allclose(states[i], alone[0], atol=1e-14)
        own, own_xs = backward(network, alone_cache, grad[i : i + 1])
        np.testing.assert_allclose(by_xs[i, :length], own_xs[0], atol=1e-14)
        assert not by_xs[i, length:].any()
        for name in total:
            total[name] += own[name]
    for name in total:
        np.testing.assert_allclose(grads[name], total[name], atol=1e-12)


def test_float32_gradients_are_those_of_float64():
    network = FastGRNN(FastGRNNConfig(input_dim=64, hidden_dim=16, output_dim=2, tied=False, seed=1))
    xs = np.random.default_rng(0).normal(size=(32, 3, 64))
    grad = np.random.default_rng(1).normal(size=(32, 16))
    _, cache = forward_cached(network, xs)
    _, wide_cache = forward_cached(in_float64(network), xs)
    grads, by_xs = backward(network, cache, grad.astype(np.float32))
    wide, wide_xs = backward(in_float64(network), wide_cache, grad)
    assert by_xs.dtype == np.float32
    np.testing.assert_allclose(by_xs, wide_xs, atol=2e-5)
    for name in grads:
        assert grads[name].dtype == np.float32
        np.testing.assert_allclose(grads[name], wide[name], atol=2e-4, rtol=1e-4)


def test_backward_changes_nothing_it_is_given():
    network, (xs, _) = network_of(), inputs_of("sequence")
    states, cache = forward_cached(network, xs)
    grad, before = np.ones_like(states), {k: v.copy() for k, v in network.parameters.items()}
    first = backward(network, cache, grad)
    second = backward(network, cache, grad)
    assert (grad == 1).all()
    assert all(np.array_equal(before[k], network.parameters[k]) for k in before)
    assert all(np.array_equal(first[0][k], second[0][k]) for k in first[0])


@pytest.mark.parametrize(
    ("xs", "lengths"),
    [
        (np.zeros((2, 4)), None),
        (np.zeros(5), None),
        (np.zeros((2, 0, 5)), None),
        (np.zeros((2, 3, 5)), [1, 4]),
        (np.zeros((2, 3, 5)), [0, 1]),
        (np.zeros((2, 3, 5)), [1.0, 2.0]),
        (np.zeros((2, 3, 5)), [1]),
        (np.zeros((2, 5)), [1, 1]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(xs, lengths):
    with pytest.raises(InvalidInputError, match=r"shape|lengths"):
        forward_cached(network_of(), xs, lengths)


def test_a_gradient_of_another_batch_is_refused():
    network = network_of()
    _, cache = forward_cached(network, np.zeros((2, 5)))
    with pytest.raises(InvalidInputError, match=r"expected \(2, 4\)"):
        backward(network, cache, np.zeros((3, 4)))


def test_a_network_without_head_has_no_logits():
    with pytest.raises(ModelError, match="no head"):
        head_logits(FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=2)), np.zeros((1, 2), np.float32))


# --- Losses ---------------------------------------------------------------------------------------------------------


def test_binary_loss_by_hand():
    # sigma(ln 3) = 3/4: -0.5 log(3/4) - 0.5 log(1/4); and at 0, log 2 whatever the target.
    logits, targets = np.array([[math.log(3), 0.0]]), np.array([[0.5, 1.0]])
    loss, grad = binary_cross_entropy(logits, targets)
    assert loss == pytest.approx((-0.5 * math.log(0.75) - 0.5 * math.log(0.25) + math.log(2)) / 2, abs=1e-12)
    np.testing.assert_allclose(grad, [[0.125, -0.25]], atol=1e-12)


def test_softmax_loss_by_hand():
    loss, grad = softmax_cross_entropy(np.log([[1.0, 2.0, 5.0]]), np.array([[0.0, 1.0, 0.0]]))
    assert loss == pytest.approx(math.log(4), abs=1e-12)
    np.testing.assert_allclose(grad, [[1 / 8, 2 / 8 - 1, 5 / 8]], atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "classes"), [("binary", None), ("binary", 1), ("binary", 2), ("softmax", None), ("softmax", 1)]
)
def test_loss_gradients_are_those_of_finite_differences(loss, weighted, classes):
    rng = np.random.default_rng(3)
    logits, targets = rng.normal(0, 2, (5, 3)), rng.random((5, 3))
    if loss == "softmax":
        targets /= targets.sum(axis=1, keepdims=True)
    given: dict[str, Any] = {
        "weights": (rng.random((5, 3)) if loss == "binary" else rng.random(5)) if weighted else None,
        "class_weights": {None: None, 1: rng.random(3), 2: rng.random((2, 3))}[classes],
    }
    _, grad = loss_and_gradient(loss, logits, targets, **given)
    expected = numeric_gradient(lambda: loss_and_gradient(loss, logits, targets, **given)[0], logits)
    np.testing.assert_allclose(grad, expected, atol=1e-9)
    teacher = rng.normal(0, 2, (5, 3))
    taught: dict[str, Any] = {**given, "temperature": 3.0, "alpha": 0.3}
    _, grad = distillation(loss, logits, targets, teacher, **taught)
    expected = numeric_gradient(lambda: distillation(loss, logits, targets, teacher, **taught)[0], logits)
    np.testing.assert_allclose(grad, expected, atol=1e-9)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_weights_are_repetitions(loss):
    rng = np.random.default_rng(4)
    logits, targets = rng.normal(size=(3, 2)), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    repeated = [0, 0, 0, 2]
    weighted, _ = loss_and_gradient(loss, logits, targets, weights=np.array([3.0, 0.0, 1.0]))
    assert weighted == pytest.approx(loss_and_gradient(loss, logits[repeated], targets[repeated])[0], abs=1e-12)


def test_class_weights_count_the_parts_of_a_soft_target():
    logits, targets = np.array([[0.0]]), np.array([[0.25]])
    loss, grad = binary_cross_entropy(logits, targets, class_weights=np.array([[2.0], [8.0]]))
    # 2 x 0.75 parts no and 8 x 0.25 parts yes, each log 2; the slopes are +1/2 and -1/2.
    assert loss == pytest.approx(3.5 * math.log(2), abs=1e-12)
    np.testing.assert_allclose(grad, [[0.75 - 1.0]], atol=1e-12)


@given(st.floats(-3e4, 3e4), st.sampled_from([0.0, 1.0]))
def test_extreme_logits_overflow_nowhere(logit, target):
    for dtype in (np.float32, np.float64):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, grad = binary_cross_entropy(np.array([[logit]], dtype), np.array([[target]], dtype))
            both, _ = softmax_cross_entropy(np.array([[logit, 0.0]], dtype), np.array([[target, 1 - target]], dtype))
        assert grad.dtype == dtype
        wrong = -logit if target else logit
        assert loss == pytest.approx(max(wrong, 0.0) + math.log1p(math.exp(-abs(logit))), rel=1e-5, abs=1e-6)
        assert both == pytest.approx(loss, rel=1e-5, abs=1e-5)


def test_softmax_of_two_classes_is_the_logistic_function():
    a = np.linspace(-50, 50, 41)
    np.testing.assert_allclose(softmax(np.stack((a, np.zeros(41)), axis=1))[:, 0], sigmoid(a), atol=1e-15)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_distillation_at_its_limits(loss):
    rng = np.random.default_rng(5)
    logits, teacher = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    targets = np.eye(3)[[0, 2, 1, 1]]

    def distilled(temperature, alpha):
        return distillation(loss, logits, targets, teacher, temperature=temperature, alpha=alpha)

    # alpha = 0: the labels alone. T = 1, alpha = 1: the teacher's probabilities are the targets.
    value, grad = loss_and_gradient(loss, logits, targets)
    assert distilled(7.0, 0.0)[0] == pytest.approx(value, abs=1e-15)
    np.testing.assert_allclose(distilled(7.0, 0.0)[1], grad, atol=1e-15)
    value, grad = loss_and_gradient(loss, logits, (sigmoid if loss == "binary" else softmax)(teacher))
    assert distilled(1.0, 1.0)[0] == pytest.approx(value, abs=1e-15)
    np.testing.assert_allclose(distilled(1.0, 1.0)[1], grad, atol=1e-15)
    # T to infinity: matching logits by least squares (section 2.1 of the paper). The slope of sigma at 0 is 1/4, so
    # T^2 (sigma(a / T) - sigma(v / T)) / T goes to (a - v) / 4; for softmax, rows centred, to (a - v) / C.
    if loss == "binary":
        expected = (logits - teacher) / 4 / logits.size
    else:
        centred = [m - m.mean(axis=1, keepdims=True) for m in (logits, teacher)]
        expected = (centred[0] - centred[1]) / 3 / len(logits)
    np.testing.assert_allclose(distilled(1e4, 1.0)[1], expected, atol=1e-4 * np.abs(expected).max())
    # A student that says what the teacher says is not pulled anywhere.
    assert np.abs(distillation(loss, teacher, targets, teacher, temperature=3.0, alpha=1.0)[1]).max() < 1e-15


def test_weights_of_the_wrong_shape_and_all_zero_are_refused():
    logits, targets = np.zeros((3, 2)), np.zeros((3, 2))
    with pytest.raises(InvalidInputError, match="weights has shape"):
        binary_cross_entropy(logits, targets, weights=np.ones(2))
    with pytest.raises(InvalidInputError, match="one weight a row"):
        softmax_cross_entropy(logits, targets, weights=np.ones((3, 2)))
    with pytest.raises(InvalidInputError, match="All weights are zero"):
        binary_cross_entropy(logits, targets, weights=np.zeros(3))


# --- Adam and the learning rate -------------------------------------------------------------------------------------


def test_adam_by_hand():
    # Gradients 1 and -2 with beta_1 = 0.5, beta_2 = 0.75. m: 0.5, -0.75; v: 0.25, 1.1875; unbiased m: 1, -1;
    # unbiased v: 1, 1.1875 / 0.4375 = 19/7. With epsilon 0.5 and a rate of 0.3: the changes of p are
    # -0.3 / 1.5 = -0.2 and +0.3 / (sqrt(19/7) + 0.5).
    p = {"x": np.array([2.0])}
    adam = Adam(p, learning_rate=0.3, weight_decay=0.0, betas=(0.5, 0.75), epsilon=0.5)
    assert adam.step({"x": np.array([1.0])}) == pytest.approx(1.0)
    assert p["x"][0] == pytest.approx(1.8, abs=1e-12)
    assert adam.step({"x": np.array([-2.0])}) == pytest.approx(2.0)
    assert p["x"][0] == pytest.approx(1.8 + 0.3 / (math.sqrt(19 / 7) + 0.5), abs=1e-12)


def test_decay_is_decoupled_and_spares_what_it_should():
    # With a zero gradient only the decay acts: p <- p (1 - rate x decay), untouched by Adam's own scaling.
    p = {"w": np.array([4.0]), "b": np.array([4.0])}
    adam = Adam(p, learning_rate=0.5, weight_decay=0.2)
    for k in (1, 2, 3):
        adam.step({name: np.zeros(1) for name in p})
        assert p["w"][0] == pytest.approx(4.0 * 0.9**k, abs=1e-12)
    assert p["b"][0] == 4.0
    adam.step({"w": np.zeros(1)}, learning_rate=0.0)
    assert p["w"][0] == pytest.approx(4.0 * 0.9**3, abs=1e-12)


def test_clipping_scales_all_gradients_together():
    # Norm 5 clipped to 1: the moments after one step are those of (0.6, 0.8), whose unbiased m is the gradient itself.
    p = {"x": np.zeros(1), "y": np.zeros(1)}
    adam = Adam(p, learning_rate=1.0, weight_decay=0.0, clip_norm=1.0, epsilon=1.0)
    assert adam.step({"x": np.array([3.0]), "y": np.array([4.0])}) == pytest.approx(5.0)
    np.testing.assert_allclose([p["x"][0], p["y"][0]], [-0.6 / 1.6, -0.8 / 1.8], atol=1e-12)
    # A norm below the limit is left alone.
    q = {"x": np.zeros(1)}
    Adam(q, learning_rate=1.0, weight_decay=0.0, clip_norm=1.0, epsilon=1.0).step({"x": np.array([0.5])})
    assert q["x"][0] == pytest.approx(-0.5 / 1.5, abs=1e-12)


def test_bounds_hold_after_every_step_and_scalars_stay_in_place():
    p = {"zeta": np.array(0.99, np.float32), "nu": np.array(0.01, np.float32), "other": np.array(0.0, np.float32)}
    kept = dict(p)
    adam = Adam(p, learning_rate=0.1)
    for _ in range(3):
        adam.step({"zeta": np.array(-1.0), "nu": np.array(1.0), "other": np.array(1.0)})
    assert (float(p["zeta"]), float(p["nu"])) == (1.0, 0.0)
    assert float(p["other"]) < -0.2
    assert all(p[name] is kept[name] for name in p)
    bounded = {"x": np.zeros(2)}
    Adam(bounded, learning_rate=9.0, bounds={"x": (-1.0, 2.0)}).step({"x": np.array([1.0, -1.0])})
    np.testing.assert_array_equal(bounded["x"], [-1.0, 2.0])


def test_adam_finds_the_minimum_of_a_skewed_bowl():
    p = {"x": np.array([5.0, -3.0])}
    adam = Adam(p, learning_rate=0.5, weight_decay=0.0)
    for step in range(400):
        adam.step({"x": np.array([1.0, 100.0]) * (p["x"] - [1.0, 2.0])}, learning_rate_at(step, 400, peak=0.5))
    np.testing.assert_allclose(p["x"], [1.0, 2.0], atol=1e-3)


def test_adam_refuses_what_it_cannot_use_and_changes_nothing():
    p = {"x": np.ones(2), "y": np.ones(1)}
    adam = Adam(p, learning_rate=0.1)
    for bad in (np.nan, np.inf):
        with pytest.raises(ModelError, match="not finite"):
            adam.step({"x": np.ones(2), "y": np.array([bad])})
    for grads in ({"z": np.ones(2)}, {"x": np.ones(3)}):
        with pytest.raises(InvalidInputError, match="no parameter"):
            adam.step(grads)
    assert (p["x"] == 1).all()
    assert adam.steps == 0
    locked = np.ones(2)
    locked.flags.writeable = False
    for array in (locked, np.ones(2, np.int64)):
        with pytest.raises(InvalidInputError, match="cannot be trained"):
            Adam({"x": array}, learning_rate=0.1)
    for setting in ({"learning_rate": 0}, {"clip_norm": -1.0}, {"weight_decay": -1}, {"betas": (1.0, 0.9)}):
        with pytest.raises(InvalidInputError):
            Adam(p, **dict[str, Any](learning_rate=0.1) | setting)


def test_schedules_by_hand():
    def course(schedule, warmup=0.2):
        return [learning_rate_at(t, 10, peak=2.0, schedule=schedule, warmup_share=warmup) for t in range(10)]

    assert course("constant") == [1.0, *[2.0] * 9]
    np.testing.assert_allclose(course("step"), [1.0, *[2.0] * 5, 0.2, 0.2, 0.02, 0.02])
    np.testing.assert_allclose(course("cosine")[1:3], [2.0, 2.0])
    np.testing.assert_allclose(course("cosine")[6], 1.0)  # half way through the eight steps after the warm-up
    np.testing.assert_allclose(course("cosine", 0.0)[5], 1.0)
    assert learning_rate_at(10, 10, peak=2.0) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_at(99, 10, peak=2.0) == pytest.approx(0.0, abs=1e-12)


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from(["cosine", "constant", "step"]))
def test_a_schedule_rises_to_its_peak_and_never_rises_again(total, warmup, schedule):
    rates = [learning_rate_at(t, total, peak=0.5, schedule=schedule, warmup_share=warmup) for t in range(total)]
    assert max(rates) == pytest.approx(0.5)
    assert min(rates) > 0.0
    top = int(np.argmax(rates))
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 0).all()


def test_dropout_keeps_the_mean():
    mask = dropout_mask(np.random.default_rng(0), (400, 500), 0.3)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(np.unique(mask), [0.0, 1 / 0.7], rtol=1e-6)
    # 200,000 draws: four standard errors of the share dropped are 0.0041.
    assert abs((mask == 0).mean() - 0.3) < 0.0041


# --- Rows -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(2, 60), st.floats(0.01, 0.9), st.integers(0, 100), st.integers(1, 60))
def test_a_split_covers_all_rows_once_and_never_parts_equal_ones(n, share, seed, distinct):
    rng = np.random.default_rng(seed)
    xs = rng.integers(0, distinct, n).astype(np.float32)[:, None]
    training, validation = split_rows(xs, rng.random((n, 1)), share, seed)
    assert sorted([*training, *validation]) == list(range(n))
    assert len(training) > 0
    if len(np.unique(xs)) > 1:
        assert len(validation) > 0
    assert not set(xs[training, 0]) & set(xs[validation, 0])


def test_a_split_is_drawn_evenly_along_the_targets():
    xs = np.arange(1000, dtype=np.float32)[:, None]
    classes = np.eye(4)[np.repeat([0, 1, 2, 3], [900, 60, 30, 10])]
    _, validation = split_rows(xs, classes, 0.1, seed=3)
    np.testing.assert_array_equal(classes[validation].sum(axis=0), [90, 6, 3, 1])
    other = split_rows(xs, classes, 0.1, seed=4)[1]
    assert not np.array_equal(validation, other)
    quality = np.random.default_rng(0).permutation(1000)[:, None] / 1000
    held_out = np.sort(quality[split_rows(xs, quality, 0.1, seed=0)[1], 0])
    assert np.diff(held_out).max() < 0.025


def test_sequences_that_differ_in_padding_only_are_equal_rows():
    xs = np.zeros((4, 3, 1), np.float32)
    xs[:, 0, 0] = [1, 1, 2, 3]
    xs[1, 2, 0] = 9.0
    lengths = np.array([1, 1, 1, 1])
    targets = np.arange(4)[:, None] / 4
    for seed in range(10):
        training, validation = split_rows(xs, targets, 0.3, seed, lengths)
        assert ({0, 1} <= set(training)) or ({0, 1} <= set(validation))


def test_balanced_classes_weigh_the_same():
    targets = np.eye(3)[[0] * 6 + [1] * 3 + [2] * 1]
    factors = balanced_class_weights(targets, "softmax")
    np.testing.assert_allclose((targets * factors).sum(axis=0), 10 / 3)
    yes = np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    factors = balanced_class_weights(yes, "binary")
    np.testing.assert_allclose(((1 - yes) * factors[0]).sum(axis=0), [2, 4, 2])
    np.testing.assert_allclose((yes * factors[1]).sum(axis=0), [2, 0, 2])
    np.testing.assert_allclose(factors[:, 1], 1.0)
    weighted = balanced_class_weights(np.array([[1.0], [0.0]]), "binary", np.array([[3.0], [1.0]]))
    np.testing.assert_allclose(weighted[:, 0], [4 / 2 / 1, 4 / 2 / 3])


# --- Learning -------------------------------------------------------------------------------------------------------

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
QUICK = TrainingConfig(epochs=150, batch_size=32, learning_rate=0.02, validation_share=0.2, patience=None, seed=1)


def xor_rows(n=200, seed=0):
    """Points around the corners of a square, with the exclusive or of the corner."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 4, n)
    xs = XOR[corner] + rng.normal(0, 0.1, (n, 2)).astype(np.float32)
    return xs, (corner % 3 != 0).astype(np.float32)


def order_rows(n=300, steps=5, seed=0):
    """Two marks in noise; the label says which came first, which a bag of vectors cannot."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(0, 0.1, (n, steps, 3)).astype(np.float32)
    label = rng.integers(0, 2, n)
    for i in range(n):
        early, late = np.sort(rng.choice(steps, 2, replace=False))
        xs[i, early, label[i]] += 1.0
        xs[i, late, 1 - label[i]] += 1.0
    return xs, label


def accuracy_of(network, xs, labels, lengths=None):
    states, _ = forward_cached(network, xs, lengths)
    logits = head_logits(network, states)
    said = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
    return float((said == labels).mean())


@pytest.mark.parametrize("form", [{}, {"tied": False}, {"tied": False, "rank_w": 2, "rank_u": 3}], ids=str)
def test_a_network_learns_exclusive_or(form):
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=8, output_dim=1, seed=4, **form))
    report = train_network(network, *xor_rows(), config=QUICK)
    assert accuracy_of(network, *xor_rows(500, seed=9)) > 0.99
    assert report.epochs[0].training_loss > 0.6 > 0.1 > report.epochs[-1].training_loss
    assert FastGRNN(network.config, network.parameters).forward_batch(XOR).shape == (4, 1)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_a_network_learns_which_came_first(loss):
    xs, label = order_rows()
    network = FastGRNN(
        FastGRNNConfig(input_dim=3, hidden_dim=8, output_dim=2 if loss == "softmax" else 1, tied=False, seed=2)
    )
    train_network(network, xs, label, config=QUICK, loss=loss)
    new, new_label = order_rows(400, seed=8)
    assert accuracy_of(network, new, new_label) > 0.95
    assert accuracy_of(network, new[:, ::-1], new_label) < 0.05


def test_padded_sequences_are_learnt_whatever_stands_in_the_padding():
    xs, label = order_rows(steps=4)
    lengths = np.full(len(xs), 4)
    padded = np.concatenate((xs, np.random.default_rng(1).normal(0, 5, (len(xs), 3, 3)).astype(np.float32)), axis=1)
    networks = [FastGRNN(FastGRNNConfig(input_dim=3, hidden_dim=6, output_dim=1, seed=2)) for _ in range(2)]
    short = TrainingConfig(epochs=10, seed=1)
    train_network(networks[0], xs, label, config=short)
    train_network(networks[1], padded, label, config=short, lengths=lengths)
    for name in networks[0].parameters:
        np.testing.assert_array_equal(networks[0].parameters[name], networks[1].parameters[name])


def trained(config=QUICK, seed=4, rows=None, **given):
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=8, output_dim=1, seed=seed))
    return network, train_network(network, *(rows or xor_rows()), config=config, **given)


def changed(config=QUICK, **settings_):
    return TrainingConfig(**{name: getattr(config, name) for name in TrainingConfig.__dataclass_fields__} | settings_)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    config = changed(epochs=8, dropout_input=0.1, dropout_state=0.2, class_balance=True)
    first, report = trained(config)
    again, same = trained(config)
    other, _ = trained(changed(config, seed=2))
    assert report == same
    assert all(first.parameters[k].tobytes() == again.parameters[k].tobytes() for k in first.parameters)
    assert not np.array_equal(first.parameters["w"], other.parameters["w"])


def test_one_epoch_of_one_batch_is_one_step_put_together_by_hand():
    xs, ys = xor_rows(50)
    weight = np.random.default_rng(0).random(50).astype(np.float32) * 8
    config = changed(
        epochs=1, batch_size=50, validation_share=0.0, schedule="constant", warmup_share=0.0, clip_norm=0.01,
        dropout_input=0.3, dropout_state=0.4, class_balance=True,
    )  # fmt: skip
    network, report = trained(config, rows=(xs, ys), sample_weight=weight)

    hand = FastGRNN(network.config)  # of seed 4, as the other was
    rng = np.random.default_rng([config.seed, 2])
    kept_inputs = dropout_mask(rng, xs.shape, 0.3)
    states, cache = forward_cached(hand, xs * kept_inputs)
    kept_states = dropout_mask(rng, states.shape, 0.4)
    share = (weight / weight.mean())[:, None]
    loss, by_logits = binary_cross_entropy(
        head_logits(hand, states * kept_states),
        ys[:, None],
        weights=share,
        class_weights=balanced_class_weights(ys[:, None], "binary", share),
    )
    grads, by_dropped = head_backward(hand, states * kept_states, by_logits)
    grads |= backward(hand, cache, by_dropped * kept_states)[0]
    adam = Adam(hand.parameters, learning_rate=0.02, weight_decay=config.weight_decay, clip_norm=0.01)
    norm = adam.step(grads)
    assert report.epochs[0].training_loss == pytest.approx(loss, rel=1e-5)
    assert report.epochs[0].gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, array in hand.parameters.items():
        np.testing.assert_allclose(network.parameters[name], array, atol=1e-5, err_msg=name)


def test_early_stopping_restores_the_best_epoch():
    # Labels without rhyme or reason: the validation loss can only get worse once the noise is learnt by heart.
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(80, 2)), rng.integers(0, 2, 80)
    config = changed(epochs=300, patience=5, learning_rate=0.05, schedule="constant", warmup_share=0.0)
    network, report = trained(config, rows=(xs, ys))
    losses = [epoch.validation_loss for epoch in report.epochs]
    assert report.stopped_early
    assert len(losses) == report.best_epoch + 5 < 300
    assert min(losses) == losses[report.best_epoch - 1] < losses[-1]
    _, validation = split_rows(xs.astype(np.float32), ys[:, None].astype(float), 0.2, config.seed)
    assert len(validation) == report.validation_rows
    states, _ = forward_cached(network, xs[validation])
    now, _ = binary_cross_entropy(head_logits(network, states), ys[validation][:, None].astype(np.float32))
    assert now == pytest.approx(min(losses), abs=1e-6)


def test_without_validation_rows_the_last_epoch_stays():
    _, report = trained(changed(epochs=3, validation_share=0.0, patience=1))
    assert (report.validation_rows, report.best_epoch, report.stopped_early) == (0, 3, False)
    assert [e.validation_loss for e in report.epochs] == [None] * 3


def test_class_balance_finds_the_rare_class():
    # One in twenty-five is positive, and the classes overlap: unbalanced, "no" is the best answer almost everywhere.
    rng = np.random.default_rng(0)
    ys = (np.arange(1000) % 25 == 0).astype(np.float32)
    xs = rng.normal(0, 1, (1000, 2)) + 1.2 * ys[:, None]
    share = {}
    for balance in (False, True):
        network, _ = trained(changed(epochs=30, class_balance=balance), rows=(xs, ys))
        said = network.forward_batch(xs)[:, 0] > 0.5
        share[balance] = said[ys == 1].mean()
    # Of two unit normals 1.2 sqrt(2) apart, the balanced line finds Phi(0.85) = 80%; the unbalanced one lies
    # log(24) / 1.7 = 1.9 further out and finds Phi(-1.0) = 15%.
    assert share[False] < 0.35
    assert share[True] > 0.65


def test_a_student_learns_from_its_teacher_alone():
    # The labels are noise, and alpha = 1 does not look at them.
    xs, ys = xor_rows(400)
    teacher = (8.0 * ys - 4.0)[:, None]
    noise = np.random.default_rng(3).integers(0, 2, 400)
    student, _ = trained(changed(alpha=1.0, temperature=2.0), rows=(xs, noise), teacher_logits=teacher)
    assert accuracy_of(student, *xor_rows(500, seed=9)) > 0.97
    deaf, _ = trained(changed(alpha=0.0), rows=(xs, noise), teacher_logits=teacher)
    plain, _ = trained(changed(alpha=0.0), rows=(xs, noise))
    np.testing.assert_allclose(deaf.forward_batch(xs), plain.forward_batch(xs), atol=1e-6)


def test_a_weight_of_zero_leaves_a_row_out():
    xs, ys = xor_rows(300)
    lies = np.arange(300) % 3 == 0
    network, _ = trained(rows=(xs, np.where(lies, 1 - ys, ys)), sample_weight=np.where(lies, 0.0, 5.0))
    assert accuracy_of(network, xs, ys) > 0.99


def test_masked_parameters_are_zero_and_stay_zero():
    mask = np.random.default_rng(0).random((8, 8)) < 0.3
    masks = {"u": mask, "w": np.array([[True, False]] * 8)}
    network, _ = trained(changed(epochs=5), masks=masks)
    assert not network.parameters["u"][~mask].any()
    assert not network.parameters["w"][:, 1].any()
    assert network.parameters["u"][mask].all()
    assert network.parameters["w"][:, 0].all()


def test_a_loaded_network_can_be_trained_on(tmp_path):
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=8, output_dim=1, seed=4))
    network.save(tmp_path / "n.safetensors")
    loaded = FastGRNN.load(tmp_path / "n.safetensors")
    train_network(loaded, *xor_rows(), config=changed(epochs=3))
    fresh, _ = trained(changed(epochs=3))
    assert loaded.sha256 is None
    assert all(np.array_equal(loaded.parameters[k], fresh.parameters[k]) for k in fresh.parameters)


def test_a_report_survives_json_and_the_callback_sees_every_epoch():
    seen: list[EpochReport] = []
    _, report = trained(changed(epochs=4, clip_norm=None), on_epoch=seen.append)
    assert tuple(seen) == report.epochs
    assert [e.epoch for e in seen] == [1, 2, 3, 4]
    assert all(e.gradient_norm > 0 for e in seen)
    assert seen[-1].learning_rate < seen[0].learning_rate
    assert TrainingReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    with pytest.raises(InvalidInputError, match="has no 'epochs'"):
        TrainingReport.from_dict({k: v for k, v in report.to_dict().items() if k != "epochs"})
    with pytest.raises(InvalidInputError, match="extra"):
        TrainingReport.from_dict({**report.to_dict(), "extra": 1})


def test_divergence_is_an_error_and_leaves_the_best_weights():
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=8, output_dim=1, seed=4))
    before = {k: v.copy() for k, v in network.parameters.items()}
    wild = changed(learning_rate=1e38, weight_decay=1e6, clip_norm=None, warmup_share=0.0, validation_share=0.0)
    with pytest.raises(ModelError, match="diverged in epoch 1"):
        train_network(network, *xor_rows(), config=wild)
    assert all(np.array_equal(before[k], network.parameters[k]) for k in before)


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": np.zeros((0, 2)), "targets": np.zeros(0)}, "xs is empty"),
        ({"xs": [[1.0, np.nan]] * 4}, "xs holds NaN or infinities, first in row 0"),
        ({"xs": [[0.0, 1e300]] * 4}, "xs holds NaN or infinities"),
        ({"xs": np.zeros((4, 3))}, "expected \\(n, 2\\)"),
        ({"xs": "text"}, "expected numbers"),
        ({"targets": [0, 1, 0]}, "4 rows and 1 outputs were expected"),
        ({"targets": [0, 1, np.nan, 1]}, "targets holds NaN or infinities, first in row 2"),
        ({"targets": [0, 1, 1.5, 1]}, "targets reach from 0 to 1.5"),
        ({"targets": [0, 1, -1, 1]}, "targets reach from -1 to 1"),
        ({"targets": [1, 1, 1, 1]}, "All 4 targets are equal"),
        ({"targets": [0.5, 0.5, 0.5, 0.5]}, "All 4 targets are equal"),
        ({"teacher_logits": np.zeros((4, 2))}, "teacher_logits has shape"),
        ({"teacher_logits": np.full((4, 1), np.inf)}, "teacher_logits holds NaN"),
        ({"sample_weight": [1, 1, 1]}, "sample_weight has shape"),
        ({"sample_weight": [1, 1, 1, -1]}, "negative somewhere"),
        ({"sample_weight": [0, 0, 0, 0]}, "zero everywhere"),
        ({"lengths": [1, 1, 1, 1]}, "lengths"),
        ({"masks": {"w": np.ones((2, 2), bool)}}, "fits no parameter"),
        ({"masks": {"v": np.ones((8, 2), bool)}}, "fits no parameter"),
        ({"masks": {"w": np.ones((8, 2))}}, "fits no parameter"),
        ({"loss": "hinge"}, "binary, softmax"),
        ({"loss": "softmax"}, "no class numbers in"),
    ],
)
def test_bad_data_is_refused_before_anything_changes(change, message):
    given = {"xs": XOR, "targets": [0, 1, 1, 0], "config": changed(epochs=1)} | change
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=8, output_dim=1, seed=4))
    before = {k: v.copy() for k, v in network.parameters.items()}
    with pytest.raises(InvalidInputError, match=message):
        train_network(network, given.pop("xs"), given.pop("targets"), **given)
    assert all(np.array_equal(before[k], network.parameters[k]) for k in before)


def test_rows_of_softmax_targets_have_to_sum_to_one():
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=4, output_dim=2))
    with pytest.raises(InvalidInputError, match="sum to 1"):
        train_network(network, XOR, [[0.5, 0.4]] * 3 + [[1, 0]], loss="softmax")
    with pytest.raises(ModelError, match="no head"):
        train_network(FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=4)), XOR, [0, 1, 1, 0])


def test_what_is_odd_about_the_data_stands_in_the_report():
    xs = np.concatenate((XOR, XOR[:2]))
    network = FastGRNN(FastGRNNConfig(input_dim=2, hidden_dim=4, output_dim=2))
    targets = np.stack(([0, 1, 1, 0, 0, 1], np.ones(6)), axis=1)
    report = train_network(network, xs, targets, config=changed(epochs=1))
    assert report.warnings[0].startswith("Output(s) 1 have one target")
    assert report.warnings[1].startswith("2 of 6 rows repeat")
    assert report.warnings[2].startswith("The best epoch was chosen by")
    assert trained(changed(epochs=1))[1].warnings == ()


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0}, {"batch_size": 0}, {"batch_size": 1.5}, {"learning_rate": 0.0}, {"learning_rate": math.nan},
        {"schedule": "linear"}, {"warmup_share": 1.1}, {"weight_decay": -0.1}, {"clip_norm": 0.0},
        {"dropout_input": 1.0}, {"dropout_state": -0.1}, {"class_balance": "yes"}, {"validation_share": 1.0},
        {"patience": 0}, {"temperature": 0.0}, {"alpha": 1.5}, {"seed": -1},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_range_is_named(setting):
    with pytest.raises(InvalidInputError, match=next(iter(setting))):
        TrainingConfig(**setting)
