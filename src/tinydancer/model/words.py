"""What the words of a text say about it, beside its vector: one linear layer over words and pairs of neighbours.

In: texts. Out: one logit for each answer. A vector that adds up words forgets their order and which of them stood
alone; the pairs "write a", "what is", "my order" are what it lacks. Only words and pairs that were learnt count; each
is kept as a CRC-32, so that a file of weights holds no words.

With f the learnt words and pairs of a text, each once, and idf their weights (the logarithm of how rare they are)::

    logits = W x + b + a * (logits by vector)    with x_f = idf_f / sqrt(sum of squares of idf)

`learnt_words` fits W and b, one logistic regression for each answer; a comes from whoever joins the two.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tinydancer.errors import ModelError

__all__ = ["Words", "features_of", "learnt_words"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

MOST_CHARS = 2_000
"""Of a longer text, the first and the last half of this: what to do with a text stands before or after it."""
MOST_FEATURES = 20_000
LEAST_TEXTS = 2
"""A word or pair that fewer texts have is not learnt."""
PENALTY = 0.05
"""Half of this times the squared weights is added to the sum of the losses."""
STEPS = 300
_SMALL_STEP = 1e-3

_PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_TENSORS = ("word_keys", "word_weights", "word_bias", "word_vector_factors")


def features_of(text: str) -> set[int]:
    """Hashes of the words, signs and pairs of neighbours in a text; its start and end count as neighbours.

    Capitals make no difference, and a number is a number whatever its digits.
    """
    if len(text) > MOST_CHARS:
        text = f"{text[: MOST_CHARS // 2]}\n{text[-MOST_CHARS // 2 :]}"
    found = set()
    before = _START
    for part in _PARTS.findall(text.lower()):
        word = b"0" if part.isdigit() else part.encode("utf-8", "surrogatepass")
        found.add(crc32(word, before))
        before = crc32(word)
        found.add(before)
        before = crc32(b" ", before)
    found.add(crc32(b">", before))
    return found


_START = crc32(b"< ")


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A learnt layer. Its methods change nothing, so any number of threads may share one.

    Attributes
    ----------
    rows
        Hash of a word or pair to its row in `weights`.
    weights
        ``float32[n, outputs + 1]``: what each row adds to the logits before division by length, then the square of its
        idf.
    bias
        ``float32[outputs]``.
    vector_factors
        ``float32[outputs]``: what the logits by vector are multiplied by before these are added.
    """

    rows: Mapping[int, int]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    vector_factors: npt.NDArray[np.float32]

    def joined(self, by_vector: npt.NDArray[np.float32], text: str) -> npt.NDArray[np.float32]:
        """``float32[outputs]``: the logits of vector and text together; of the vector alone where no word is known."""
        known = self._known(text)
        if not known:
            return by_vector
        answer: npt.NDArray[np.float32] = self.vector_factors * by_vector
        answer += self._sum(known)
        return answer

    def logits(self, text: str) -> npt.NDArray[np.float32]:
        """``float32[outputs]`` for one text; where no word is known, `bias`."""
        known = self._known(text)
        return self._sum(known) if known else self.bias

    def _known(self, text: str) -> list[int]:
        get = self.rows.get
        return [row for key in features_of(text) if (row := get(key)) is not None]

    def _sum(self, known: list[int]) -> npt.NDArray[np.float32]:
        total = np.add.reduce(self.weights.take(known, axis=0), axis=0)
        answer: npt.NDArray[np.float32] = total[:-1] / math.sqrt(total[-1])
        answer += self.bias
        return answer

    def calibrated(self, factors: FloatArray, shifts: FloatArray, vector_factors: FloatArray) -> Words:
        """The layer whose logits are these times `factors` plus `shifts`; all arguments ``[outputs]``."""
        weights = self.weights.copy()
        weights[:, :-1] *= factors
        bias, narrow = self.bias * factors + shifts, np.float32
        return Words(self.rows, weights, bias.astype(narrow), vector_factors.astype(narrow))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The layer as `from_tensors` takes it, in half of the weights' precision."""
        keys = np.fromiter(self.rows, dtype=np.uint32, count=len(self.rows))
        return dict(zip(_TENSORS, (keys, self.weights.astype(np.float16), self.bias, self.vector_factors), strict=True))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]], outputs: int) -> Words | None:
        """The layer in a model file's tensors; None where there is none.

        Raises
        ------
        ModelError
            Tensors that do not fit each other, or are not finite.
        """
        if not any(name in tensors for name in _TENSORS):
            return None
        keys, weights, bias, factors = (tensors.get(name) for name in _TENSORS)
        if (
            keys is None or weights is None or bias is None or factors is None
            or keys.ndim != 1 or keys.dtype != np.uint32 or weights.shape != (len(keys), outputs + 1)
            or bias.shape != (outputs,) or factors.shape != (outputs,)
            or not all(np.isfinite(array).all() for array in (weights, bias, factors))
            or not (weights[:, -1] > 0.0).all()
        ):  # fmt: skip
            raise ModelError("its words do not fit its answers.")
        rows = {key: row for row, key in enumerate(keys.tolist())}
        return cls(rows, *(np.asarray(array, dtype=np.float32) for array in (weights, bias, factors)))


def learnt_words(
    texts: Sequence[str],
    targets: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    on_answer: Callable[[], None] | None = None,
) -> Words:
    """Learn from examples: for each answer one logistic regression, its squared weights held small.

    Parameters
    ----------
    texts
        n texts.
    targets
        ``[n, outputs]`` of zeros and ones.
    weights
        ``[n]``, not negative: how much each example counts. None: one each.
    on_answer
        Called after each answer is learnt.
    """
    ys = np.asarray(targets, dtype=np.float64)
    sample = np.ones(len(texts)) if weights is None else np.asarray(weights, dtype=np.float64)
    features = [features_of(text) for text in texts]
    counts = Counter(key for found in features for key in found)
    # Sorted, because a set has no order that a second run would repeat.
    kept = sorted((-count, key) for key, count in counts.items() if count >= LEAST_TEXTS)[:MOST_FEATURES]
    rows = {key: row for row, (_, key) in enumerate(kept)}
    idf = np.array([np.log((1.0 + len(texts)) / (1.0 - minus)) + 1.0 for minus, _ in kept])
    design = _Design.of(([rows[key] for key in sorted(found) if key in rows] for found in features), idf)
    fitted = np.zeros((len(kept), ys.shape[1]))
    bias = np.zeros(ys.shape[1])
    curvature = 0.25 * float(sample.max(initial=1.0)) * design.largest_square()
    for k in range(ys.shape[1]):
        fitted[:, k], bias[k] = _regression(design, ys[:, k], sample, curvature)
        if on_answer is not None:
            on_answer()
    stored = np.concatenate([fitted * idf[:, None], idf[:, None] ** 2], axis=1)
    return Words(rows, stored.astype(np.float32), bias.astype(np.float32), np.ones(len(bias), dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Design:
    """A sparse matrix ``[n, features + 1]`` as its entries, with row and column of each; the last column is ones."""

    row_of: Rows
    column_of: Rows
    values: FloatArray
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], idf: FloatArray) -> _Design:
        columns: list[Rows] = []
        values: list[FloatArray] = []
        lengths: list[int] = []
        for row in rows:
            own = idf[list(row)]
            columns.append(np.array([*row, len(idf)], dtype=np.intp))
            values.append(np.append(own / max(float(np.sqrt((own**2).sum())), 1e-12), 1.0))
            lengths.append(len(row) + 1)
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        return cls(row_of, np.concatenate(columns), np.concatenate(values), (len(lengths), len(idf) + 1))

    def times(self, weights: FloatArray) -> FloatArray:
        products = self.values * weights[self.column_of]
        return np.asarray(np.bincount(self.row_of, products, self.shape[0]), dtype=np.float64)

    def transposed_times(self, residuals: FloatArray) -> FloatArray:
        products = self.values * residuals[self.row_of]
        return np.asarray(np.bincount(self.column_of, products, self.shape[1]), dtype=np.float64)

    def largest_square(self) -> float:
        """The largest eigenvalue of this, transposed, times this, found by multiplying; a little more than found."""
        direction = np.ones(self.shape[1])
        length = 1.0
        for _ in range(20):
            direction = self.transposed_times(self.times(direction / length))
            length = float(np.linalg.norm(direction))
        return 1.05 * length


def _regression(design: _Design, ys: FloatArray, sample: FloatArray, curvature: float) -> tuple[FloatArray, float]:
    """Weights and bias of a logistic regression, by Nesterov's accelerated descent with restarts.

    O'Donoghue and Candes, "Adaptive Restart for Accelerated Gradient Schemes", 2015. `curvature` bounds that of the
    loss, so that steps of its inverse never overshoot.
    """
    here = np.zeros(design.shape[1])
    rate = (float((sample * ys).sum()) + 0.5) / (float(sample.sum()) + 1.0)
    here[-1] = np.log(rate / (1.0 - rate))
    ahead, momentum, step = here, 1.0, 1.0 / (curvature + PENALTY)
    for _ in range(STEPS):
        residuals = sample * (0.5 * np.tanh(0.5 * design.times(ahead)) + 0.5 - ys)
        slope = design.transposed_times(residuals)
        slope[:-1] += PENALTY * ahead[:-1]  # the bias is free
        there = ahead - step * slope
        if slope @ (there - here) > 0.0:  # it went too far: start again from here, without momentum
            ahead, momentum = here, 1.0
            continue
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        ahead = there + (momentum - 1.0) / following * (there - here)
        moved = float(np.abs(there - here).max())
        here, momentum = there, following
        if moved < _SMALL_STEP:
            break
    return here[:-1], float(here[-1])
