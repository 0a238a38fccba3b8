"""Labelled requests to train classes on: from files, and checked before anything is learnt from them.

In: the text of a table or of JSON, or examples put together by a program. Out: `Example`s, of which each class has at
least two and no request is in two classes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError

__all__ = ["Example", "checked_examples", "examples_of"]

_LABELS = ("class", "label", "category")
_TEXTS = ("text", "request")
_CAPABILITIES = "capabilities"
_COLUMNS_HINT = "Each needs a class and a text, and may have capabilities; a table begins with a line that names them."


@dataclass(frozen=True, slots=True)
class Example:
    """One request with its class, and the capabilities that its answer takes."""

    text: str
    label: str
    capabilities: tuple[str, ...] = ()


def examples_of(text: str, *, what: str) -> list[Example]:
    """The examples in a file's text.

    Parameters
    ----------
    text
        JSON (a list), JSON lines, or a table with a header, separated by tabs or commas. Each example has ``class`` (or
        ``label``, ``category``), ``text`` (or ``request``) and, if wanted, ``capabilities``: a list, or names separated
        by commas or semicolons. In a table separated by tabs, backslash n, t and backslash stand for themselves.
    what
        Names the source in errors.

    Raises
    ------
    InvalidInputError
        There are none, or one lacks its class or text; the message has the line.
    """
    examples = [_example(row, f"{what}, {where}") for where, row in _rows(text, what)]
    if not examples:
        raise InvalidInputError(f"{what} holds no examples.", hint=_COLUMNS_HINT)
    return examples


def checked_examples(examples: Sequence[Example]) -> list[Example]:
    """The examples, each request once.

    Raises
    ------
    InvalidInputError
        No examples; one class only, or a class with a single request; a request that is in two classes; two classes, or
        two capabilities, whose names differ only in capitals.
    """
    if not examples:
        raise InvalidInputError("There are no examples to learn from.", hint="Give at least two for each class.")
    _spelled_once([example.label for example in examples], "classes")
    _spelled_once([name for example in examples for name in example.capabilities], "capabilities")
    kept: dict[str, Example] = {}
    for example in examples:
        known = kept.setdefault(" ".join(example.text.split()), example)
        if known.label != example.label:
            raise InvalidInputError(
                f"The request {check.shown(example.text)} is in two classes, {check.shown(known.label)} and "
                f"{check.shown(example.label)}; expected one.",
                hint="Decide which class it has, or leave it out.",
            )
    counts: dict[str, int] = {}
    for example in kept.values():
        counts[example.label] = counts.get(example.label, 0) + 1
    if len(counts) == 1:
        raise InvalidInputError(
            f"All examples are of class {check.shown(next(iter(counts)))}; a classifier could only repeat it.",
            hint="Give examples of at least two classes; 'other' may be one of them.",
        )
    single = [name for name, count in counts.items() if count == 1]
    if single:
        names = ", ".join(map(check.shown, single[:5]))
        raise InvalidInputError(
            f"There is one request only of: {names}; expected at least two that differ for each class.",
            hint="Add examples, or merge it with another class. Ten or more per class make a useful classifier.",
        )
    return list(kept.values())


def _spelled_once(names: Sequence[str], what: str) -> None:
    spellings: dict[str, str] = {}
    for name in names:
        known = spellings.setdefault(name.casefold(), name)
        if known != name:
            raise InvalidInputError(
                f"The {what} {check.shown(known)} and {check.shown(name)} differ in capitals only; expected one."
            )


def _rows(text: str, what: str) -> Iterator[tuple[str, Any]]:
    """Where each example stands, and its fields."""
    if text.lstrip()[:1] == "[":
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{what} is no JSON: {error}.") from None
        yield from ((f"example {number}", row) for number, row in enumerate(parsed, start=1))
    elif text.lstrip()[:1] == "{":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InvalidInputError(f"{what}, line {number}, is no JSON: {error}.") from None
    else:
        yield from _table(text, what)


def _table(text: str, what: str) -> Iterator[tuple[str, Any]]:
    by_tabs = "\t" in text.partition("\n")[0]
    lines = io.StringIO(text, newline="")
    reader = (
        csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        if by_tabs
        else csv.DictReader(lines, strict=True)
    )
    try:
        for row in reader:
            where = f"line {reader.line_num}"
            if None in row:
                raise InvalidInputError(
                    f"{what}, {where}, has more fields than the header.",
                    hint="Put a text that holds the separator into double quotes.",
                )
            yield where, {key: _unescaped(value) for key, value in row.items()} if by_tabs else row
    except csv.Error as error:
        raise InvalidInputError(f"{what}, line {reader.line_num}, is no table: {error}.") from None


def _unescaped(value: str | None) -> str | None:
    marks = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
    return None if value is None else re.sub(r"\\[nt\\]", lambda match: marks[match[0]], value)


def _example(row: Any, where: str) -> Example:
    if not isinstance(row, Mapping):
        raise InvalidInputError(f"{where}: it is {check.shown(row)}; expected an object.", hint=_COLUMNS_HINT)
    label = next((row[key] for key in _LABELS if row.get(key) not in (None, "")), None)
    text = next((row[key] for key in _TEXTS if row.get(key) is not None), None)
    if label is None:
        raise InvalidInputError(f"{where}: no class is given in {check.shown(dict(row))}.", hint=_COLUMNS_HINT)
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{where}: no text is given in {check.shown(dict(row))}.", hint=_COLUMNS_HINT)
    given = row.get(_CAPABILITIES) or ()
    names = [name.strip() for name in re.split("[,;]", given) if name.strip()] if isinstance(given, str) else given
    try:
        return Example(text, check.name_of(label, "class"), check.names_of(names, _CAPABILITIES))
    except InvalidInputError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
