"""Logistic regression with graded targets, for all agents and several strengths of shrinkage at once, in NumPy.

In: vectors and graded outcomes with holes. Out: weights and bias per agent. It is the baseline that a router has to
beat, so it is fitted to convergence.

Newton's method with the curvature replaced by its bound (Boehning and Lindsay, "Monotonicity of quadratic-approximation
algorithms", 1988): the second derivative of the log-loss is at most 1/4, so X'X / 4 + l2 bounds the Hessian wherever
one stands. It is diagonalised once; every step after that costs two products with X, whatever the agent and l2, and
never raises the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Logistic", "fit_logistic", "log_loss"]

Floats = npt.NDArray[np.float64]

_MAX_STEPS = 400
_ENOUGH = 1e-9
"""Steps end when the next one would lower the mean log-loss by less than this."""


class Logistic(NamedTuple):
    """One regression per agent.

    Attributes
    ----------
    weights
        ``float64[p, N]``.
    bias
        ``float64[N]``.
    """

    weights: Floats
    bias: Floats

    def predict(self, x: npt.NDArray[np.floating]) -> Floats:
        """Expected quality in (0, 1), ``float64[n, N]``, for ``x`` of shape (n, p)."""
        return _sigmoid(x @ self.weights + self.bias)


def fit_logistic(x: npt.NDArray[np.floating], y: Floats, l2: Sequence[float]) -> list[Logistic]:
    """Minimise, per agent, sum_i log-loss(y_i, sigmoid(x_i w + b)) + l2 / 2 |w|^2; the bias is not shrunk.

    Parameters
    ----------
    x
        Shape (n, p), finite.
    y
        ``float64[n, N]`` in [0, 1]; NaN where an agent did not answer. An agent without any outcome gets weights and
        bias 0.
    l2
        Strengths of shrinkage, each above 0.

    Returns
    -------
    list of Logistic
        One per strength, in the order given.
    """
    p, agents = x.shape[1], y.shape[1]
    fits = [Logistic(np.zeros((p, agents)), np.zeros(agents)) for _ in l2]
    known = ~np.isnan(y)
    # Agents with the same holes share the expensive part.
    groups: dict[bytes, list[int]] = {}
    for agent in range(agents):
        groups.setdefault(np.packbits(known[:, agent]).tobytes(), []).append(agent)
    for columns in groups.values():
        rows = np.flatnonzero(known[:, columns[0]])
        if not len(rows):
            continue
        mean, axes, squares = _axes(np.asarray(x[rows], np.float64))
        z = (x[rows] - mean) @ axes
        targets = y[rows][:, columns]
        start = np.zeros((len(squares), len(columns))), np.zeros(len(columns))
        # From much shrinkage to little, each beginning where the last one ended.
        for number in sorted(range(len(l2)), key=lambda i: -l2[i]):
            start = w, b = _descend(z, targets, squares, l2[number], *start)
            fits[number].weights[:, columns] = axes @ w
            fits[number].bias[columns] = b - mean @ (axes @ w)
    return fits


def log_loss(predicted: Floats, y: Floats) -> float:
    """Mean log-loss over the pairs that were observed; NaN if there are none."""
    known = ~np.isnan(y)
    if not known.any():
        return float("nan")
    p = np.clip(predicted[known], 1e-12, 1.0 - 1e-12)
    target = y[known]
    return float(-(target * np.log(p) + (1.0 - target) * np.log1p(-p)).mean())


def _axes(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, principal axes ``[p, r]`` and the sums of squares along them; from the smaller of the two Gram matrices."""
    mean = x.mean(axis=0)
    centred = x - mean
    if len(x) >= x.shape[1]:
        squares, axes = np.linalg.eigh(centred.T @ centred)
        kept = squares > 1e-10 * max(squares[-1], 1e-300)
        return mean, axes[:, kept], squares[kept]
    squares, left = np.linalg.eigh(centred @ centred.T)
    kept = squares > 1e-10 * max(squares[-1], 1e-300)
    return mean, centred.T @ left[:, kept] / np.sqrt(squares[kept]), squares[kept]


def _descend(z: Floats, y: Floats, squares: Floats, l2: float, w: Floats, b: Floats) -> tuple[Floats, Floats]:
    n = len(z)
    curvature = (squares / 4.0 + l2)[:, None]
    for _ in range(_MAX_STEPS):
        residual = _sigmoid(z @ w + b) - y
        slope_w, slope_b = z.T @ residual + l2 * w, residual.sum(axis=0)
        step_w, step_b = slope_w / curvature, slope_b * (4.0 / n)
        w, b = w - step_w, b - step_b
        if ((slope_w * step_w).sum(axis=0) + slope_b * step_b).max() < 2.0 * _ENOUGH * n:
            break
    return w, b


def _sigmoid(x: Floats) -> Floats:
    # Never a positive argument of exp, so that nothing overflows.
    e = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0.0, 1.0, e) / (1.0 + e)
    return result
