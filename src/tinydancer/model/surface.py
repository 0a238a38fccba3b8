"""Cheap facts of a request's text that its embedding forgets: how long it is, how much of it is digits or code.

In: texts. Out: ``float32[n, SURFACE_DIM]``, a few microseconds each. A sum of token vectors of unit length knows what
a text is about, not how much of it there is; the length of a question and the numbers in it say much about how hard
it is. Which model they feed, and how much they help: ``docs/explanation/quality-model.md``.

Everything is counted in the text's UTF-8 bytes, class by class, from one table of 256 entries. Of a text of more than
`COUNTED_BYTES` both ends are looked at, half each, as the static embedder does; its length is still all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinydancer.validation import FloatVector

__all__ = ["SURFACE_DIM", "SURFACE_NAMES", "surface_features"]

SURFACE_NAMES = (
    "log_characters",
    "log_words",
    "digits",
    "operators",
    "brackets",
    "capitals",
    "line_breaks",
    "not_ascii",
    "log_question_marks",
    "characters_per_word",
    "has_formula",
    "has_underscore",
    "has_negation",
    "log_numbers",
)
"""Logarithms are of 1 + the count; what has no prefix is a share of the characters."""
SURFACE_DIM = len(SURFACE_NAMES)
COUNTED_BYTES = 8192

(_OTHER, _DIGIT, _OPERATOR, _BRACKET, _CAPITAL, _NEWLINE, _SPACE, _QUESTION, _FORMULA, _UNDERSCORE, _LEAD,
 _CONTINUATION) = range(12)  # fmt: skip
_CLASSES = 12


def _class_table() -> npt.NDArray[np.uint8]:
    table = np.full(256, _OTHER, np.uint8)
    members = {
        _DIGIT: b"0123456789", _OPERATOR: b"+-*/=^<>", _BRACKET: b"()[]{}", _CAPITAL: bytes(range(65, 91)),
        _NEWLINE: b"\n", _SPACE: b" \t\r\v\f", _QUESTION: b"?", _FORMULA: b"$\\", _UNDERSCORE: b"_",
        _LEAD: bytes(range(0xC0, 0x100)), _CONTINUATION: bytes(range(0x80, 0xC0)),
    }  # fmt: skip
    for kind, values in members.items():
        table[list(values)] = kind
    return table


_CLASS_OF = _class_table()
_WORD, _NUMBER = 1, 2
# Bits of each byte: stands in a word (anything but white space), stands in a number.
_FLAGS = np.full(256, _WORD, np.uint8)
_FLAGS[list(b" \t\r\v\f\n")] = 0
_FLAGS[list(b"0123456789")] |= _NUMBER
_NEGATIONS = (" not ", " NOT ", " except ", " EXCEPT ", "n't ")


def surface_features(texts: Sequence[str]) -> FloatVector:
    """Facts of n texts.

    Parameters
    ----------
    texts
        Any text, the empty one included.

    Returns
    -------
    float32[n, SURFACE_DIM]
        Columns as in `SURFACE_NAMES`; finite, at least 0.
    """
    features = np.empty((len(texts), SURFACE_DIM), np.float32)
    for row, text in zip(features, texts, strict=True):
        row[:] = _features(text)
    return features


def _features(text: str) -> tuple[float, ...]:
    raw = text.encode("utf-8", "replace")
    if len(raw) > COUNTED_BYTES:
        raw = raw[: COUNTED_BYTES // 2] + raw[-COUNTED_BYTES // 2 :]
    read = np.frombuffer(raw, np.uint8)
    counts = np.bincount(_CLASS_OF.take(read), minlength=_CLASSES).tolist()
    counted = max(1, len(raw) - counts[_CONTINUATION])
    characters = len(text)
    flags = _FLAGS.take(read)
    # A word or number begins where its bit is set and the byte before has it not.
    begins = flags.copy()
    begins[1:] &= ~flags[:-1]
    words = int(np.count_nonzero(begins & _WORD))
    numbers = int(np.count_nonzero(begins & _NUMBER))
    whole = characters / counted if characters > counted else 1.0
    return (
        math.log1p(characters),
        math.log1p(words * whole),
        counts[_DIGIT] / counted,
        counts[_OPERATOR] / counted,
        counts[_BRACKET] / counted,
        counts[_CAPITAL] / counted,
        counts[_NEWLINE] / counted,
        counts[_LEAD] / counted,
        math.log1p(counts[_QUESTION]),
        counted / max(1, words),
        float(counts[_FORMULA] > 0),
        float(counts[_UNDERSCORE] > 0),
        float(any(word in text for word in _NEGATIONS)),
        math.log1p(numbers),
    )
