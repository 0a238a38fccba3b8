"""What commands read: texts, files, JSON.

In: arguments, a path, ``-`` for standard input. Out: text or parsed JSON; what cannot be read is an error that names
the file and the place in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tinydancer.errors import InvalidInputError

STDIN = "-"


def read_bytes(path: str) -> tuple[bytes, str]:
    """A file's bytes, and what to call them in an error."""
    if path == STDIN:
        return sys.stdin.buffer.read(), "Standard input"
    try:
        return Path(path).read_bytes(), f"The file {path}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"The file {path} cannot be read: {reason}.") from None


def read_text(path: str) -> str:
    """A file as text; `InvalidTextError` names the first byte that is no UTF-8."""
    from tinydancer.validation import decode_utf8

    return decode_utf8(*read_bytes(path))


def read_json(path: str) -> Any:
    """A file as parsed JSON; `InvalidInputError` names line and column of a mistake."""
    return parse_json(read_text(path), "Standard input" if path == STDIN else f"The file {path}")


def parse_json(text: str, what: str) -> Any:
    """Parsed JSON, without the NaN and Infinity that Python would let through."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidInputError(f"{what} is no JSON: {error.msg} ({where}).") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is no JSON: {error}.") from None


def request_source(words: list[str] | None, file: str | None) -> str:
    """The text to route: the words joined, a file, or standard input (``-``, or a pipe and nothing else)."""
    if words and words != [STDIN]:
        if file is not None:
            raise InvalidInputError("Both a text and --file are given; expected one of them.")
        return " ".join(words)
    if words and file is not None:
        raise InvalidInputError("Both - and --file are given; expected one of them.")
    if not words and file is None and sys.stdin.isatty():
        raise InvalidInputError(
            "No request is given; expected a text, --file, or - for standard input.",
            hint='For example: tinydancer route "Translate this letter into French."',
        )
    return read_text(file or STDIN)


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")
