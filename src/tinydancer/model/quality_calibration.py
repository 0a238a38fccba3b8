"""What makes a fitted quality model say probabilities, and costs.

In: logits of answers that no fit had seen, and how good the answers were; costs. Out: few parameters each: scales and
shifts, lines, weights of a ridge regression.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.model.gradients import sigmoid
from tinydancer.model.quality import QUALITY_BARS
from tinydancer.validation import FloatVector

__all__ = ["bar_lines", "cost_head", "excess_in_errors", "platt", "quality_from_cost", "routing_loss", "routing_losses"]

Array = npt.NDArray[np.float64]

_SHARED_COST_PENALTY, _OWN_COST_PENALTY = 1.0, 10.0
_LEAST_SCALE = 0.05


def routing_losses(logits: Array, quality: FloatVector) -> Array:
    """How badly logits tell the agents of each request apart; their mean is the loss in `CrossFit`.

    One number per request that two agents or more answered; where none was, per answer its cross-entropy, which alone
    would choose penalties that are too strong to tell agents apart.
    """
    known = ~(np.isnan(quality) | np.isnan(logits))
    rows = known.sum(axis=1) > 1
    if not rows.any():
        z, y = logits[known], quality[known]
        entropy: Array = np.logaddexp(0.0, z) - y * z
        return entropy
    scale, shift = platt(logits[known], quality[known])
    error = np.where(known, 1.0 / (1.0 + np.exp(-(scale * np.where(known, logits, 0.0) + shift))) - quality, 0.0)[rows]
    answers = known[rows]
    # Less the request's mean error, which raises or lowers all agents alike.
    error -= answers * (error.sum(axis=1) / answers.sum(axis=1))[:, None]
    losses: Array = (error * error).sum(axis=1) * (len(error) / answers.sum())
    return losses


def routing_loss(logits: Array, quality: FloatVector) -> float:
    """The mean of `routing_losses`; NaN where nothing was both observed and predicted."""
    losses = routing_losses(logits, quality)
    return float(losses.mean()) if losses.size else math.nan


def excess_in_errors(losses: Array, least: Array) -> float:
    """By how many standard errors one mean of losses exceeds another of the same requests; 0 where they are equal."""
    difference = losses - least
    mean = float(difference.mean())
    error = float(difference.std()) / math.sqrt(difference.size)
    return 0.0 if mean == 0.0 else mean / error if error > 0.0 else math.copysign(math.inf, mean)


def platt(logits: Array, quality: npt.ArrayLike, *, shrinkage: float = 10.0) -> tuple[float, float]:
    """Scale a > 0 and shift b that make ``sigma(a logit + b)`` a calibrated probability (Platt, 1999).

    Parameters
    ----------
    logits, quality
        Shape (m,); qualities in [0, 1].
    shrinkage
        Answers' worth of belief in (1, 0), which keeps few data from doing harm.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(quality, np.float64)
    ones = np.ones((z.size, 1))
    features, penalty = np.append(z[:, None], ones, axis=1), 0.25 * shrinkage
    scale, shift = _logistic_fit(features, y, np.array([1.0, 0.0]), penalty).tolist()
    if scale < _LEAST_SCALE:
        # A negative scale would turn predictions around: they are worth nothing then, and the mean is what is left.
        scale = _LEAST_SCALE
        (shift,) = _logistic_fit(ones, y, np.zeros(1), penalty, offset=scale * z).tolist()
    return scale, shift


def _logistic_fit(features: Array, y: Array, centre: Array, penalty: float, offset: Array | float = 0.0) -> Array:
    """Minimises the cross-entropy of ``sigma(features . theta + offset)`` + ``penalty / 2 |theta - centre|^2``."""

    def loss(theta: Array) -> float:
        u, off = features @ theta + offset, theta - centre
        return float(np.sum(np.logaddexp(0.0, u) - y * u) + 0.5 * penalty * (off @ off))

    theta, value = centre, loss(centre)
    for _ in range(100):
        p = sigmoid(features @ theta + offset)
        gradient = features.T @ (p - y) + penalty * (theta - centre)
        hessian = (features * (p * (1.0 - p))[:, None]).T @ features + penalty * np.eye(theta.size)
        step = np.linalg.solve(hessian, gradient)
        # Where predictions are far out the loss is all but straight, and a whole Newton step leads away.
        size = 1.0
        while (after := loss(theta - size * step)) > value - 1e-4 * size * float(gradient @ step) and size > 1e-9:
            size *= 0.5
        if after >= value:
            break
        theta, value = theta - size * step, after
        if np.abs(step).max() < 1e-8:
            break
    return theta


def bar_lines(logits: Array, quality: FloatVector) -> Array:
    """Per quality bar, the line over the logit that gives the probability of reaching it."""
    lines = np.zeros((QUALITY_BARS, 2))
    for j in range(QUALITY_BARS):
        reached = (quality >= j / (QUALITY_BARS - 1) - 1e-9).astype(np.float64)
        slope, shift = platt(logits, reached)
        lines[j] = shift, slope
    lines[0] = 30.0, 0.0  # every answer reaches 0
    return lines


def cost_head(features: Array, cost_usd: npt.NDArray[np.floating[Any]]) -> Array:
    """What makes requests dear: ``QualityModel.cost_weights`` from training rows.

    Parameters
    ----------
    features
        ``float64[n, k + F + 1]``: see ``QualityModel.cost_features``.
    cost_usd
        ``[n, M]``; NaN where unknown.

    Returns
    -------
    float64[M + 1, k + F + 1]
        Zero, so that every request costs the usual, where too few costs are known.
    """
    known = cost_usd > 0.0
    mean = np.where(known, cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    relative = np.log(np.where(known, cost_usd, 1.0) / np.where(mean > 0.0, mean, 1.0), dtype=np.float64)
    weights = np.zeros((cost_usd.shape[1] + 1, features.shape[1]))
    rows = np.flatnonzero(known.any(axis=1))
    if rows.size < 2 * weights.shape[1]:
        return weights
    features, known, relative = features[rows], known[rows], np.where(known, relative, 0.0)[rows]
    shared = _ridge(features, relative.sum(axis=1) / known.sum(axis=1), _SHARED_COST_PENALTY)
    for agent in range(len(mean)):
        here = known[:, agent]
        own = _ridge(features[here], relative[here, agent] - features[here] @ shared, _OWN_COST_PENALTY)
        weights[agent] = _unbiased(shared + own, features[here])
    weights[-1] = _unbiased(shared, features)
    return weights


def _ridge(features: Array, target: Array, penalty: float) -> Array:
    """Least squares with a penalty on all weights but the last, the constant's."""
    ridge = np.eye(features.shape[1]) * penalty
    ridge[-1, -1] = 1e-6
    return np.asarray(np.linalg.solve(features.T @ features + ridge, features.T @ target), dtype=np.float64)


def _unbiased(weights: Array, features: Array) -> Array:
    """The weights with a constant that makes costs, not their logarithms, right on average."""
    if len(features):
        weights = weights.copy()
        weights[-1] -= math.log(float(np.mean(np.exp(features @ weights))))
    return weights


def quality_from_cost(quality: FloatVector, cost: Array) -> Array:
    """Logit of an agent's mean quality as a line over the logarithm of its mean cost; flat where costs say nothing."""
    answers = (~np.isnan(quality)).sum(axis=0)
    mean = (np.nansum(quality, axis=0) + 1.0) / (answers + 2.0)
    levels = np.log(mean / (1.0 - mean))
    priced = np.isfinite(cost) & (cost > 0.0)
    if priced.sum() < 4:
        return np.array([float(levels.mean()), 0.0])
    slope, intercept = np.polyfit(np.log(cost[priced]), levels[priced], 1)
    return np.array([float(intercept), max(0.0, float(slope))])
