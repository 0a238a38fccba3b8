"""Losses: how wrong logits are, and which way is better.

In: logits, targets, weights. Out: a mean loss and its gradient with respect to the logits, from which `gradients` goes
on. Targets may be soft: graded quality, or what a teacher model says.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from tinydancer.errors import InvalidInputError
from tinydancer.model.gradients import FloatArray, sigmoid

__all__ = [
    "Loss",
    "binary_cross_entropy",
    "distillation",
    "loss_and_gradient",
    "softmax",
    "softmax_cross_entropy",
]

Loss: TypeAlias = Literal["binary", "softmax"]


def softmax(logits: FloatArray) -> FloatArray:
    """Rows of probabilities, ``[B, C]``, without overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return result


def binary_cross_entropy(
    logits: FloatArray,
    targets: FloatArray,
    *,
    weights: FloatArray | None = None,
    class_weights: FloatArray | None = None,
    divisor: float | None = None,
) -> tuple[float, FloatArray]:
    """Mean cross-entropy of independent yes-or-no outputs, and its gradient.

    Each element costs ``-t log sigma(a) - (1 - t) log(1 - sigma(a))`` for its logit a and target t.

    Parameters
    ----------
    logits, targets
        ``[B, C]``; targets in [0, 1], any number between counts as a probability.
    weights
        ``[B]``, ``[B, 1]`` or ``[B, C]``, not negative: 0 leaves an element out, whatever its target.
    class_weights
        ``[C]``: a factor for each output; or ``[2, C]``: factors of the parts ``1 - t`` (row 0) and ``t`` (row 1).
    divisor
        What the weighted sum is divided by; None: the sum of `weights` over all elements.

    Returns
    -------
    loss, grad_logits
    """
    shape, weight = logits.shape, _element_weights(logits, weights)
    if divisor is None:
        divisor = float(logits.size if weight is None else np.broadcast_to(weight, shape).sum())
    for_no, for_yes = 1 - targets, targets
    if class_weights is not None:
        rows = class_weights if class_weights.ndim == 2 else np.stack((class_weights, class_weights))
        for_no, for_yes = for_no * rows[0].astype(logits.dtype), for_yes * rows[1].astype(logits.dtype)
    if weight is not None:
        for_no, for_yes = for_no * weight, for_yes * weight
    # log(1 + e^a) = max(a, 0) + log(1 + e^-|a|), and -log sigma(a) is the same at -a.
    tail = np.log1p(np.exp(-np.abs(logits)))
    cost = for_no * (np.maximum(logits, 0) + tail) + for_yes * (np.maximum(-logits, 0) + tail)
    probability = sigmoid(logits)
    gradient = for_no * probability - for_yes * (1 - probability)
    return _divided(cost, gradient, divisor)


def softmax_cross_entropy(
    logits: FloatArray,
    targets: FloatArray,
    *,
    weights: FloatArray | None = None,
    class_weights: FloatArray | None = None,
    divisor: float | None = None,
) -> tuple[float, FloatArray]:
    """Mean cross-entropy of one choice among C classes, and its gradient.

    Each row costs ``-sum_c t_c log softmax(a)_c``.

    Parameters
    ----------
    logits, targets
        ``[B, C]``; each row of targets not negative, with sum 1.
    weights
        ``[B]`` or ``[B, 1]``, not negative.
    class_weights
        ``[C]``: a factor for each class's part.
    divisor
        What the weighted sum is divided by; None: the sum of `weights`.

    Returns
    -------
    loss, grad_logits
    """
    weight = _element_weights(logits, weights)
    if weight is not None and weight.shape[1] != 1:
        raise InvalidInputError(f"weights has shape {weight.shape}; a choice among classes has one weight a row.")
    if divisor is None:
        divisor = float(logits.shape[0] if weight is None else weight.sum())
    parts = targets if class_weights is None else targets * class_weights.astype(logits.dtype)
    if weight is not None:
        parts = parts * weight
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_probability) * parts.sum(axis=1, keepdims=True) - parts
    return _divided(-parts * log_probability, gradient, divisor)


def loss_and_gradient(
    loss: Loss,
    logits: FloatArray,
    targets: FloatArray,
    *,
    weights: FloatArray | None = None,
    class_weights: FloatArray | None = None,
    divisor: float | None = None,
) -> tuple[float, FloatArray]:
    """`binary_cross_entropy` or `softmax_cross_entropy`, by name."""
    function = binary_cross_entropy if loss == "binary" else softmax_cross_entropy
    return function(logits, targets, weights=weights, class_weights=class_weights, divisor=divisor)


def distillation(
    loss: Loss,
    logits: FloatArray,
    targets: FloatArray,
    teacher_logits: FloatArray,
    *,
    temperature: float,
    alpha: float,
    weights: FloatArray | None = None,
    class_weights: FloatArray | None = None,
    divisor: float | None = None,
) -> tuple[float, FloatArray]:
    """Learn from labels and from a teacher's logits at once (Hinton, Vinyals and Dean, arXiv 1503.02531, section 2).

    ``alpha T^2 CE(teacher at T, student at T) + (1 - alpha) CE(labels, student)``; "at T" divides logits by T. The
    factor T^2 makes up for soft gradients shrinking as 1 / T^2. At alpha = 0 this is the loss of the labels; at T = 1
    the teacher's probabilities are targets like any other.

    Parameters
    ----------
    loss
        ``"binary"`` or ``"softmax"``, for labels and teacher alike.
    teacher_logits
        ``[B, C]``.
    temperature
        T, above 0.
    alpha
        The teacher's share, in [0, 1].
    logits, targets, weights, class_weights, divisor
        As in `binary_cross_entropy`; `class_weights` act on the labels only.

    Returns
    -------
    loss, grad_logits
    """
    labels, by_labels = loss_and_gradient(
        loss, logits, targets, weights=weights, class_weights=class_weights, divisor=divisor
    )
    softened = teacher_logits / temperature
    soft_targets = sigmoid(softened) if loss == "binary" else softmax(softened)
    soft, by_teacher = loss_and_gradient(loss, logits / temperature, soft_targets, weights=weights, divisor=divisor)
    value = alpha * temperature**2 * soft + (1 - alpha) * labels
    return value, alpha * temperature * by_teacher + (1 - alpha) * by_labels


def _element_weights(logits: FloatArray, weights: FloatArray | None) -> FloatArray | None:
    if weights is None:
        return None
    weight = np.asarray(weights, dtype=logits.dtype)
    weight = weight[:, None] if weight.ndim == 1 else weight
    if weight.shape not in {(logits.shape[0], 1), logits.shape}:
        raise InvalidInputError(f"weights has shape {np.shape(weights)}; the logits have {logits.shape}.")
    return weight


def _divided(cost: FloatArray, gradient: FloatArray, divisor: float) -> tuple[float, FloatArray]:
    if not divisor > 0.0:
        raise InvalidInputError("All weights are zero; expected at least one element that counts.")
    return float(cost.sum(dtype=np.float64)) / divisor, gradient / gradient.dtype.type(divisor)
