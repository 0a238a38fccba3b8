"""Checks on values that come from outside: numbers, names, text, vectors.

In: a value and the name it has in the caller's eyes. Out: the value in the type the rest of the system uses, or an
error of the tree that says what was given and what was expected. Every door and every noun checks through these.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.errors import (
    InvalidInputError,
    InvalidNameError,
    InvalidTextError,
    InvalidVectorError,
    SpaceMismatchError,
    UnknownKeyError,
)

FloatVector = npt.NDArray[np.float32]

MAX_NAME_CHARS = 200
MAX_REQUEST_CHARS = 400_000
"""Longest request text in characters, about 100,000 tokens; a setting (``max_request_chars``) raises it."""


def shown(value: object, limit: int = 60) -> str:
    """``repr`` of a value, cut so that an error message stays one line."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def number(
    value: Any,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    unit: str = "",
) -> float:
    """A finite float in [low, high]; booleans and text are refused."""
    if isinstance(value, (bool, np.bool_)) or not _is_real(value):
        raise InvalidInputError(f"{name} is {shown(value)}; expected a number{_range(low, high, unit)}.")
    result = float(value)
    if not math.isfinite(result) or not low <= result <= high:
        raise InvalidInputError(f"{name} is {shown(value)}; expected a number{_range(low, high, unit)}.")
    return result


def optional_number(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, unit: str = ""
) -> float | None:
    """As `number`, with None passed through."""
    return None if value is None else number(value, name, low=low, high=high, unit=unit)


def count(value: Any, name: str, *, low: int = 0, high: int = 2**53) -> int:
    """A whole number in [low, high]."""
    result = number(value, name, low=low, high=high)
    if result != int(result):
        raise InvalidInputError(f"{name} is {shown(value)}; expected a whole number.")
    return int(result)


def boolean(value: Any, name: str) -> bool:
    """True or False, and nothing that merely looks like it."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InvalidInputError(f"{name} is {shown(value)}; expected true or false.")


def name_of(value: Any, what: str) -> str:
    """A usable name: text, not blank, at most 200 characters, no control characters, no outer blanks."""
    if not isinstance(value, str):
        raise InvalidNameError(f"The {what} is {shown(value)}; expected text.")
    if not value.strip():
        raise InvalidNameError(f"The {what} is empty; expected 1 to {MAX_NAME_CHARS} characters.")
    if len(value) > MAX_NAME_CHARS:
        raise InvalidNameError(
            f"The {what} has {len(value):,} characters; expected at most {MAX_NAME_CHARS}.",
            hint="Put longer descriptions into metadata.",
        )
    if value != value.strip():
        raise InvalidNameError(f"The {what} is {shown(value)}; expected no blanks around it.")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InvalidNameError(f"The {what} is {shown(value)}; expected no control characters.")
    return value


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """Several names, in the order given, duplicates removed; a single text is refused rather than split."""
    if values is None:
        return ()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{what} is {shown(values)}; expected a list of names.")
    return tuple(dict.fromkeys(name_of(v, f"name in {what}") for v in values))


def request_text(value: Any, *, max_chars: int = MAX_REQUEST_CHARS) -> str:
    """The text of a request: not blank, at most `max_chars` characters, encodable as UTF-8, without NUL."""
    if isinstance(value, (bytes, bytearray)):
        raise InvalidTextError(f"The request is {len(value):,} bytes; expected text.", hint="Decode it as UTF-8 first.")
    if not isinstance(value, str):
        raise InvalidTextError(f"The request is {shown(value)}; expected text.")
    if not value or value.isspace():
        raise InvalidTextError(
            "The request is empty; expected at least one visible character.",
            hint="Pass the text that the agent would receive.",
        )
    if len(value) > max_chars:
        raise InvalidTextError(
            f"The request has {len(value):,} characters; expected at most {max_chars:,}.",
            hint="Route on the question and leave long attachments out, or raise max_request_chars.",
        )
    if "\x00" in value:
        raise InvalidTextError("The request holds a NUL character, which is no text.", hint="Remove it.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidTextError(
                f"The request is not valid Unicode: a lone surrogate at character {error.start}.",
                hint="It was probably decoded from bytes that are not UTF-8; decode them with their own encoding.",
            ) from None
    return value


def decode_utf8(data: bytes, what: str = "The request") -> str:
    """Bytes from a file or standard input as text, or an error that names the first bad byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidTextError(
            f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start:,}.",
            hint="Convert it first, for example with: iconv -f LATIN1 -t UTF-8",
        ) from None


def vector(value: Any, name: str, *, dim: int | None = None, space: str | None = None) -> FloatVector:
    """One vector as contiguous ``float32[dim]``: finite, not all zeros, of the expected dimension."""
    return _vector_and_square(value, name, dim, space)[0]


def unit_vector(value: Any, name: str, *, dim: int | None = None, space: str | None = None) -> FloatVector:
    """As `vector`, scaled to Euclidean length 1."""
    array, square = _vector_and_square(value, name, dim, space)
    if 1e-30 < square < 1e30:
        return array / np.float32(math.sqrt(square))
    wide = array.astype(np.float64)  # squares in float32 lost digits; do it again with room to spare
    return np.ascontiguousarray((wide / np.linalg.norm(wide)).astype(np.float32))


def _vector_and_square(value: Any, name: str, dim: int | None, space: str | None) -> tuple[FloatVector, float]:
    if type(value) is np.ndarray and value.dtype == np.float32 and value.flags.c_contiguous:
        array = value
    else:
        try:
            with np.errstate(over="ignore"):  # what overflows becomes infinite, and is told below
                array = np.asarray(value, dtype=np.float32, order="C")
        except (TypeError, ValueError):
            raise InvalidVectorError(
                f"{name} is {shown(value)}; expected a one-dimensional sequence of numbers."
            ) from None
    if array.ndim != 1 or array.size == 0:
        raise InvalidVectorError(f"{name} has shape {array.shape}; expected one dimension and at least one number.")
    if dim is not None and array.size != dim:
        where = f" (space {space!r})" if space else ""
        raise SpaceMismatchError(
            f"{name} has {array.size} dimensions; this deployment's vectors{where} have {dim}.",
            hint="Embed it with the deployment's embedder, or open a store for the other space.",
        )
    # One pass finds NaN, infinities and the zero vector: the sum of squares is NaN, infinite or zero for them.
    with np.errstate(over="ignore", under="ignore"):
        square = float(np.dot(array, array))
    if not 0.0 < square < math.inf:
        _explain_vector(array, name)
    return array, square


def known_keys(given: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Refuse a mapping with keys that do not exist; name the known ones and the nearest."""
    unknown = [key for key in given if key not in known]
    if not unknown:
        return
    near = difflib.get_close_matches(str(unknown[0]), list(known), n=1)
    raise UnknownKeyError(
        f"Unknown {what} {shown(unknown[0])}; known are: {', '.join(sorted(known))}.",
        hint=f"Did you mean {near[0]!r}?" if near else "",
    )


def _explain_vector(array: FloatVector, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InvalidVectorError(
            f"{name} holds {array[bad[0]]} at position {int(bad[0])}; expected finite numbers.",
            hint="The embedding failed upstream; embed the text again.",
        )
    if not np.any(array):
        raise InvalidVectorError(
            f"{name} is all zeros; expected a direction.",
            hint="A zero vector usually stands for empty text or a failed embedding.",
        )


def _is_real(value: Any) -> bool:
    if isinstance(value, (int, float, np.integer, np.floating)):
        return True
    # Decimal and Fraction (PostgreSQL's numeric arrives as Decimal) convert; text does not.
    return not isinstance(value, (str, bytes)) and hasattr(value, "__float__") and np.ndim(value) == 0


def _range(low: float, high: float, unit: str) -> str:
    suffix = f" {unit}" if unit else ""
    if low == -math.inf and high == math.inf:
        return suffix and f" of{suffix}"
    if high == math.inf:
        return f" of at least {low:g}{suffix}"
    if low == -math.inf:
        return f" of at most {high:g}{suffix}"
    return f" in [{low:g}, {high:g}]{suffix}"
