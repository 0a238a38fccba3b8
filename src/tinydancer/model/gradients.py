"""Derivatives: back-propagation through FastGRNN and its head.

In: a network's shape and parameters, inputs, and the gradient of a loss with respect to states or logits. Out: states,
logits, and the gradient of the loss with respect to every parameter and input. Nothing here keeps state or changes what
it is given; the losses are in `losses`, the steps that follow the gradients in `training`.

All functions take anything with a ``config`` and ``parameters``: a `FastGRNN`, or a `Weights` where the numbers are
float64, which `FastGRNN` refuses. They compute in the parameters' own precision, so a gradient can be held against
finite differences to 1e-6, and a float32 network trains in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.fastgrnn import FastGRNNConfig

__all__ = [
    "Cache",
    "Network",
    "Weights",
    "backward",
    "forward_cached",
    "head_backward",
    "head_logits",
    "in_float64",
    "sigmoid",
]

FloatArray: TypeAlias = npt.NDArray[Any]
Gradients: TypeAlias = dict[str, FloatArray]


class Network(Protocol):
    """What the functions here need of a network."""

    @property
    def config(self) -> FastGRNNConfig:
        """Its shape."""

    @property
    def parameters(self) -> Mapping[str, FloatArray]:
        """Name to array, in the shapes of `FastGRNNConfig.shapes`, all of one floating-point type."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A network's shape and numbers without its methods and checks, in whatever precision."""

    config: FastGRNNConfig
    parameters: Mapping[str, FloatArray]


def in_float64(network: Network) -> Weights:
    """A copy of a network's numbers in float64, in which finite differences mean something."""
    return Weights(network.config, {name: array.astype(np.float64) for name, array in network.parameters.items()})


@dataclass(frozen=True, slots=True)
class Cache:
    """What `backward` needs of a forward pass.

    Sequences lie packed: the first vectors of all sequences, longest sequence first, then the second vectors of those
    that have one, and so on. So no padding is multiplied, and each step works on a leading part of the states.

    Attributes
    ----------
    xs
        ``[N, input]``, N vectors in all.
    gates, updates
        z and h~ of equation 2, ``[N, hidden]``.
    previous
        The state before each vector but the first ones, ``[N - B, hidden]``.
    counts
        How many sequences are still going at each step; their sum is N.
    order
        Position in the caller's batch of each packed sequence, longest first; None where there is one step.
    rows
        Row of each packed vector in the caller's ``[B * T, input]``; None where there is one step.
    shape
        Of the caller's inputs.
    """

    xs: FloatArray
    gates: FloatArray
    updates: FloatArray
    previous: FloatArray
    counts: tuple[int, ...]
    order: npt.NDArray[np.intp] | None
    rows: npt.NDArray[np.intp] | None
    shape: tuple[int, ...]


def forward_cached(
    network: Network, xs: npt.ArrayLike, lengths: npt.ArrayLike | None = None
) -> tuple[FloatArray, Cache]:
    """Last states from the zero state, and what the way back needs.

    Parameters
    ----------
    network
        Shape and parameters.
    xs
        ``[B, input]``: one step each; or ``[B, T, input]``: sequences. Finite; that is not checked here.
    lengths
        ``intp[B]`` in [1, T]: how many vectors of each sequence count. What lies behind them is never read. None: all.

    Returns
    -------
    states, cache
        The state after each sequence's last vector, ``[B, hidden]``; and the cache.

    Raises
    ------
    InvalidInputError
        Shapes that do not fit each other or the network.
    """
    config, p = network.config, network.parameters
    inputs = np.asarray(xs, dtype=p["b"].dtype)
    if inputs.ndim not in {2, 3} or inputs.shape[-1] != config.input_dim or (inputs.ndim == 3 and not inputs.shape[1]):
        raise InvalidInputError(
            f"xs has shape {inputs.shape}; expected (B, {config.input_dim}) or (B, T, {config.input_dim}) with T >= 1."
        )
    counts, order, rows = _packing(inputs.shape, lengths)
    packed = inputs if rows is None else inputs.reshape(-1, config.input_dim)[rows]
    batch, hidden = inputs.shape[0], config.hidden_dim
    total = packed.shape[0]
    terms = _linear(network, "w", packed)
    gates = np.empty((total, hidden), dtype=terms.dtype)
    updates = np.empty_like(gates)
    previous = np.empty((total - batch, hidden), dtype=terms.dtype)
    h = np.zeros((batch, hidden), dtype=terms.dtype)
    begin = 0
    for t, count in enumerate(counts):
        here = slice(begin, begin + count)
        now, old = terms[here], h[:count]
        if t:
            previous[begin - batch : begin - batch + count] = old
            now = now + _linear(network, "u", old)
        z = gates[here] = sigmoid(now[:, :hidden] + p["b"][0])
        update = updates[here] = np.tanh(now[:, -hidden:] + p["b"][1])
        h[:count] = (p["zeta"] * (1 - z) + p["nu"]) * update + z * old
        begin += count
    states = h
    if order is not None:
        states = np.empty_like(h)
        states[order] = h
    return states, Cache(packed, gates, updates, previous, counts, order, rows, inputs.shape)


@overload
def backward(
    network: Network, cache: Cache, grad_last_state: FloatArray, *, inputs: Literal[True] = True
) -> tuple[Gradients, FloatArray]: ...
@overload
def backward(
    network: Network, cache: Cache, grad_last_state: FloatArray, *, inputs: Literal[False]
) -> tuple[Gradients, None]: ...
def backward(
    network: Network, cache: Cache, grad_last_state: FloatArray, *, inputs: bool = True
) -> tuple[Gradients, FloatArray | None]:
    """Gradients of a loss with respect to the cell's parameters and inputs, from those with respect to last states.

    Parameters
    ----------
    network, cache
        As in the `forward_cached` whose cache it is, the parameters unchanged since.
    grad_last_state
        ``[B, hidden]``: the loss's derivative with respect to the states that `forward_cached` returned.
    inputs
        False saves the gradient of the inputs, a third of the work of a single step.

    Returns
    -------
    grads, grad_xs
        By parameter name, without the head's; and in the shape of ``xs``, zero behind each sequence's length (None
        where not asked for).

    Notes
    -----
    With g = dL/dh', equation 2 gives::

        dL/da_h = g (zeta (1 - z) + nu) (1 - h~^2)      dL/dzeta = sum g (1 - z) h~
        dL/da_z = g (h - zeta h~) z (1 - z)             dL/dnu   = sum g h~
        dL/dh   = g z + U_z^T dL/da_z + U_h^T dL/da_h

    where a_z and a_h are what the logistic function and tanh are applied to.
    """
    config, p = network.config, network.parameters
    hidden, batch = config.hidden_dim, cache.shape[0]
    zeta, nu = p["zeta"], p["nu"]
    if grad_last_state.shape != (batch, hidden):
        raise InvalidInputError(f"grad_last_state has shape {grad_last_state.shape}; expected {(batch, hidden)}.")
    z, update = cache.gates, cache.updates
    grad_h = np.array(grad_last_state if cache.order is None else grad_last_state[cache.order], dtype=z.dtype)
    # What does not depend on the gradient from above is computed for all steps at once.
    slope_update = (zeta * (1 - z) + nu) * (1 - update * update)
    slope_gate = -zeta * update
    slope_gate[batch:] += cache.previous
    slope_gate *= z * (1 - z)

    grad_bias = np.zeros_like(p["b"])
    grad_terms = np.empty((z.shape[0], config.blocks * hidden), dtype=z.dtype)
    above = np.empty_like(z)
    end = z.shape[0]
    for t in range(len(cache.counts) - 1, -1, -1):
        count = cache.counts[t]
        here = slice(end - count, end)
        g = above[here] = grad_h[:count]
        by_gate, by_update = g * slope_gate[here], g * slope_update[here]
        grad_bias[0] += by_gate.sum(axis=0)
        grad_bias[1] += by_update.sum(axis=0)
        if config.tied:
            np.add(by_gate, by_update, out=grad_terms[here])
        else:
            grad_terms[here, :hidden] = by_gate
            grad_terms[here, hidden:] = by_update
        if t:
            grad_h[:count] = g * z[here] + _linear_input_gradient(network, "u", grad_terms[here])
        end -= count
    grads = _linear_gradients(network, "w", cache.xs, grad_terms)
    grads |= _linear_gradients(network, "u", cache.previous, grad_terms[batch:])
    pushed = above * update
    grads |= {
        "b": grad_bias,
        "zeta": np.array(pushed.sum() - np.vdot(pushed, z), dtype=z.dtype),
        "nu": np.array(pushed.sum(), dtype=z.dtype),
    }
    if not inputs:
        return grads, None
    grad_xs = _linear_input_gradient(network, "w", grad_terms)
    if cache.rows is not None:
        flat = np.zeros((cache.shape[0] * cache.shape[1], config.input_dim), dtype=z.dtype)
        flat[cache.rows] = grad_xs
        grad_xs = flat.reshape(cache.shape)
    return grads, grad_xs


def head_logits(network: Network, states: FloatArray) -> FloatArray:
    """The head before its logistic function, W_out h + b_out: ``[B, output]``.

    Raises
    ------
    ModelError
        The network has no head.
    """
    if network.config.output_dim is None:
        raise ModelError("This network has no head.", hint="Give its config an output_dim.")
    logits: FloatArray = states @ network.parameters["w_out"].T + network.parameters["b_out"]
    return logits


def head_backward(network: Network, states: FloatArray, grad_logits: FloatArray) -> tuple[Gradients, FloatArray]:
    """Gradients of the head's parameters, and ``[B, hidden]`` with respect to the states it was given."""
    grads = {"w_out": grad_logits.T @ states, "b_out": grad_logits.sum(axis=0)}
    return grads, grad_logits @ network.parameters["w_out"]


def sigmoid(logits: FloatArray) -> FloatArray:
    """The logistic function, element by element, without overflow."""
    result: FloatArray = 0.5 * np.tanh(0.5 * logits) + 0.5
    return result


def _packing(
    shape: tuple[int, ...], lengths: npt.ArrayLike | None
) -> tuple[tuple[int, ...], npt.NDArray[np.intp] | None, npt.NDArray[np.intp] | None]:
    batch = shape[0]
    if len(shape) == 2:
        if lengths is not None:
            raise InvalidInputError("lengths belong to sequences; xs has one step each.")
        return (batch,), None, None
    steps = shape[1]
    sizes = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    if sizes.shape != (batch,) or sizes.dtype.kind not in "iu" or np.any((sizes < 1) | (sizes > steps)):
        raise InvalidInputError(f"lengths is {check.shown(lengths)}; expected {batch} whole numbers in [1, {steps}].")
    order = np.argsort(-sizes.astype(np.intp), kind="stable")
    counts = tuple(int(np.count_nonzero(sizes > t)) for t in range(int(sizes.max(initial=0))))
    parts = [order[:count] * steps + t for t, count in enumerate(counts)]
    return counts, order, np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)


def _linear(network: Network, name: str, x: FloatArray) -> FloatArray:
    """Rows of x times the stacked matrix, ``[N, blocks * hidden]``."""
    p = network.parameters
    if name in p:
        full: FloatArray = x @ p[name].T
        return full
    left, inner = p[f"{name}_left"], x @ p[f"{name}_right"].T
    return np.concatenate([inner[:, r] @ left[h].T for h, r in _block_slices(network, name)], axis=1)


def _linear_input_gradient(network: Network, name: str, grad_terms: FloatArray) -> FloatArray:
    p = network.parameters
    if name in p:
        full: FloatArray = grad_terms @ p[name]
        return full
    thin: FloatArray = _inner_gradient(network, name, grad_terms) @ p[f"{name}_right"]
    return thin


def _linear_gradients(network: Network, name: str, x: FloatArray, grad_terms: FloatArray) -> Gradients:
    p = network.parameters
    if name in p:
        return {name: grad_terms.T @ x}
    inner = x @ p[f"{name}_right"].T
    by_left = [grad_terms[:, h].T @ inner[:, r] for h, r in _block_slices(network, name)]
    by_right = _inner_gradient(network, name, grad_terms).T @ x
    return {f"{name}_left": np.concatenate(by_left), f"{name}_right": by_right}


def _inner_gradient(network: Network, name: str, grad_terms: FloatArray) -> FloatArray:
    left = network.parameters[f"{name}_left"]
    return np.concatenate([grad_terms[:, h] @ left[h] for h, _ in _block_slices(network, name)], axis=1)


def _block_slices(network: Network, name: str) -> list[tuple[slice, slice]]:
    """For gate and update (or both at once where tied): their part of the hidden side, and of the rank."""
    hidden, rank = network.config.hidden_dim, network.parameters[f"{name}_left"].shape[1]
    blocks = range(network.config.blocks)
    return [(slice(k * hidden, (k + 1) * hidden), slice(k * rank, (k + 1) * rank)) for k in blocks]
