"""Examples: checked, weighed and split before a network learns from them.

In: inputs, targets, weights as a caller has them. Out: arrays in one type and shape, rows to train on and rows to
validate on, factors that balance classes; or an error that says what is wrong with the data. A model that learnt from
broken data looks like any other, so this is the place to refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.fastgrnn import FastGRNN
from tinydancer.model.gradients import FloatArray
from tinydancer.model.losses import Loss

__all__ = ["Examples", "Rows", "balanced_class_weights", "split_rows"]

Rows: TypeAlias = npt.NDArray[np.intp]

CHUNK_ROWS = 8_192
"""How many rows are looked at once, so that a large array needs no large copy."""
_FEW_VALIDATION_ROWS = 20


@dataclass(frozen=True, slots=True)
class Examples:
    """Checked examples of one training, as `train_network` takes them.

    Attributes
    ----------
    xs, targets, teacher_logits
        In float32, targets always ``[n, output]``.
    weight
        ``[n, 1]`` or ``[n, output]`` with a mean of 1, or None.
    lengths
        Of padded sequences, or None.
    loss
        ``binary`` or ``softmax``.
    """

    xs: FloatArray
    targets: FloatArray
    lengths: Rows | None
    teacher_logits: FloatArray | None
    weight: FloatArray | None
    loss: Loss


def split_rows(
    xs: FloatArray, targets: FloatArray, share: float, seed: int, lengths: Rows | None = None
) -> tuple[Rows, Rows]:
    """Rows to train on and rows to validate on, both in ascending order.

    Rows with equal inputs stay together. The rest is drawn evenly along the targets (classes in turn, or the mean of
    the outputs from low to high), so that both parts look alike even where there are few rows.

    Parameters
    ----------
    xs
        ``[n, ...]``: inputs.
    targets
        ``[n, C]``.
    share
        Of the rows that are held out, in [0, 1); above 0, at least one row is held out and at least one is left.
    seed
        Of the draw.
    lengths
        Belong to the inputs, where they are padded sequences.
    """
    n = len(xs)
    group_of, size = _groups_of_equal_rows(xs, lengths)
    if share <= 0.0 or len(size) < 2:
        return np.arange(n), np.empty(0, dtype=np.intp)
    firsts = np.unique(group_of, return_index=True)[1]
    hard = targets.shape[1] > 1 and np.allclose(targets.sum(axis=1), 1.0)
    key = (targets.argmax(axis=1) if hard else targets.mean(axis=1))[firsts]
    rng = np.random.default_rng([seed, 0])
    shuffled = rng.permutation(len(size))
    ranked = shuffled[np.argsort(key[shuffled], kind="stable")]
    wanted = min(len(size) - 1, max(1, round(share * len(size))))
    chosen = ranked[((np.arange(wanted) + rng.random()) * len(size) / wanted).astype(np.intp)]
    held_out = np.isin(group_of, chosen)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def balanced_class_weights(targets: FloatArray, loss: Loss, sample_weight: FloatArray | None = None) -> FloatArray:
    """Factors that make every class weigh the same in total, with a mean of 1 over the data.

    Parameters
    ----------
    targets
        ``[n, C]`` in [0, 1]; a target between 0 and 1 belongs to both sides in part.
    loss
        ``softmax``: classes against each other; ``binary``: no against yes, for each output on its own.
    sample_weight
        ``[n, 1]`` or ``[n, C]``.

    Returns
    -------
    float[C] for ``softmax``, ``float[2, C]`` (no, yes) for ``binary``; 1 for a class that is not there, and for its
    counterpart.
    """
    weight = np.ones((len(targets), 1)) if sample_weight is None else sample_weight.astype(np.float64)
    yes = (targets * weight).sum(axis=0, dtype=np.float64)
    if loss == "softmax":
        present = yes > 0.0
        return np.where(present, yes.sum() / (present.sum() * np.where(present, yes, 1.0)), 1.0)
    total = np.broadcast_to(weight, targets.shape).sum(axis=0, dtype=np.float64)
    counts = np.stack((total - yes, yes))
    both = (counts > 0.0).all(axis=0)
    return np.where(both, total / (2.0 * np.where(both, counts, 1.0)), 1.0)


def checked_examples(
    network: FastGRNN,
    xs: npt.ArrayLike,
    targets: npt.ArrayLike,
    loss: Loss,
    lengths: npt.ArrayLike | None,
    teacher_logits: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
) -> Examples:
    if network.config.output_dim is None:
        raise ModelError("This network has no head to train.", hint="Give its config an output_dim.")
    if loss not in get_args(Loss):
        raise InvalidInputError(f"loss is {check.shown(loss)}; expected one of: {', '.join(get_args(Loss))}.")
    inputs = _finite(xs, "xs")
    if inputs.ndim not in {2, 3} or inputs.shape[-1] != network.config.input_dim:
        dim = network.config.input_dim
        raise InvalidInputError(f"xs has shape {inputs.shape}; expected (n, {dim}) or (n, T, {dim}).")
    n, outputs = len(inputs), network.config.output_dim
    if n == 0 or (inputs.ndim == 3 and inputs.shape[1] == 0):
        raise InvalidInputError("There is nothing to train on: xs is empty.", hint="Give at least two examples.")
    wanted = _checked_targets(targets, loss, n, outputs)
    teacher = None if teacher_logits is None else _finite(teacher_logits, "teacher_logits")
    if teacher is not None and teacher.shape != (n, outputs):
        raise InvalidInputError(f"teacher_logits has shape {teacher.shape}; expected {(n, outputs)}.")
    weight = None if sample_weight is None else _checked_weight(sample_weight, loss, n, outputs)
    sizes = None
    if lengths is not None:
        given = np.asarray(lengths)
        steps = inputs.shape[1] if inputs.ndim == 3 else 0
        if given.shape != (n,) or given.dtype.kind not in "iu" or np.any((given < 1) | (given > steps)):
            raise InvalidInputError(
                f"lengths is {check.shown(lengths)}; expected {n} whole numbers, each in [1, {steps}]."
            )
        sizes = given.astype(np.intp)
    return Examples(inputs, wanted, sizes, teacher, weight, loss)


def _checked_targets(targets: npt.ArrayLike, loss: Loss, n: int, outputs: int) -> FloatArray:
    wanted = _finite(targets, "targets")
    if wanted.ndim == 1 and loss == "softmax":
        classes = wanted.astype(np.intp)
        if np.any(classes != wanted) or np.any((classes < 0) | (classes >= outputs)):
            raise InvalidInputError(f"targets are no class numbers in [0, {outputs - 1}].")
        wanted = np.zeros((len(classes), outputs), dtype=np.float32)
        wanted[np.arange(len(classes)), classes] = 1.0
    elif wanted.ndim == 1:
        wanted = wanted[:, None]
    if wanted.shape != (n, outputs):
        raise InvalidInputError(f"targets has shape {np.shape(targets)}; {n} rows and {outputs} outputs were expected.")
    if wanted.min() < 0.0 or wanted.max() > 1.0:
        low, high = float(wanted.min()), float(wanted.max())
        raise InvalidInputError(f"targets reach from {low:g} to {high:g}; expected numbers in [0, 1].")
    if loss == "softmax" and np.abs(wanted.sum(axis=1) - 1.0).max() > 1e-4:
        raise InvalidInputError("A row of targets does not sum to 1; expected a probability for each class.")
    if np.all(wanted == wanted[0]):
        raise InvalidInputError(
            f"All {n} targets are equal; a model could only learn to repeat them.",
            hint="Give examples of at least two classes or qualities.",
        )
    return wanted


def _checked_weight(sample_weight: npt.ArrayLike, loss: Loss, n: int, outputs: int) -> FloatArray:
    weight = _finite(sample_weight, "sample_weight")
    weight = weight[:, None] if weight.ndim == 1 else weight
    if weight.shape not in {(n, 1), (n, outputs if loss == "binary" else 1)}:
        raise InvalidInputError(
            f"sample_weight has shape {np.shape(sample_weight)}; expected one for each of {n} rows"
            f"{f' or for each of its {outputs} outputs' if loss == 'binary' else ''}."
        )
    mean = float(weight.mean(dtype=np.float64))
    if weight.min() < 0.0 or mean == 0.0:
        raise InvalidInputError(
            "sample_weight is negative somewhere, or zero everywhere; expected weights of 0 or more."
        )
    return cast(FloatArray, weight / np.float32(mean))


def checked_masks(network: FastGRNN, masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, npt.NDArray[np.bool_]]:
    for name, mask in masks.items():
        known = network.parameters.get(name)
        if known is None or np.shape(mask) != known.shape or np.asarray(mask).dtype != np.bool_:
            raise InvalidInputError(f"The mask {name!r} fits no parameter; expected booleans in a parameter's shape.")
    return dict(masks)


def data_warnings(data: Examples, training: Rows, validation: Rows) -> list[str]:
    warnings = []
    targets = data.targets[training]
    constant = np.flatnonzero((targets == targets[0]).all(axis=0))
    if constant.size:
        warnings.append(
            f"Output(s) {', '.join(map(str, constant[:20]))} have one target in all training rows; "
            "what they say means nothing."
        )
    groups = len(_groups_of_equal_rows(data.xs, data.lengths)[1])
    if groups < len(data.xs):
        warnings.append(f"{len(data.xs) - groups:,} of {len(data.xs):,} rows repeat the inputs of an earlier row.")
    if 0 < len(validation) < _FEW_VALIDATION_ROWS:
        warnings.append(f"The best epoch was chosen by {len(validation)} validation row(s), which is mostly chance.")
    return warnings


def _groups_of_equal_rows(xs: FloatArray, lengths: Rows | None) -> tuple[Rows, Rows]:
    """Number of each row's group, in order of first appearance, and the size of each group."""
    numbers: dict[bytes, int] = {}
    group_of = np.empty(len(xs), dtype=np.intp)
    for i in range(len(xs)):
        row = np.ascontiguousarray(xs[i] if lengths is None else xs[i, : lengths[i]])
        digest = hashlib.blake2b(row.data, digest_size=12).digest()
        group_of[i] = numbers.setdefault(digest, len(numbers))
    return group_of, np.bincount(group_of, minlength=len(numbers)).astype(np.intp)


def _finite(value: npt.ArrayLike, name: str) -> FloatArray:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} is {check.shown(value)}; expected numbers.") from None
    for start in range(0, len(array) if array.ndim else 0, CHUNK_ROWS):
        part = array[start : start + CHUNK_ROWS]
        bad = np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))
        if bad.size:
            raise InvalidInputError(
                f"{name} holds NaN or infinities, first in row {start + int(bad[0])}; expected finite numbers.",
                hint="Leave rows with missing values out, or give them sample_weight 0 and any number.",
            )
    return array
