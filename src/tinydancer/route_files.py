"""Semantic routes and labelled requests as files have them: our own shape, or the ``semantic-router`` package's.

In: parsed JSON or YAML, or the text of a table. Out: what `SemanticRoutes.create_many` and `SemanticRoutes.fit` take,
or the other way. A file holds texts only: vectors are made again from them, and vectors without a text are left out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.policy.route_rules import Route

__all__ = ["configs_of", "labelled_of", "semantic_router_file"]

_FOREIGN = ("function_schemas", "llm", "metadata", "score_threshold")
_OURS = ("target_agent", "priority", "conditions", "is_active", "negative_utterances", "calibration")
"""What the other shape has no place for, and keeps in a route's metadata."""


def configs_of(given: Any, *, target: str | None = None) -> list[dict[str, Any]]:
    """Routes from a list, one object, or an object with the key ``routes``; in either shape.

    Parameters
    ----------
    target
        The agent of routes that name none. In the shape of ``semantic-router`` a route names one in its metadata, as
        ``target_agent``, or not at all.

    Raises
    ------
    InvalidInputError
        There are no routes in it, or one that names no agent while `target` is None.
    """
    if isinstance(given, Mapping) and "routes" in given:
        given = given["routes"]
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, (list, tuple)) or not given:
        raise InvalidInputError(f"The routes are {check.shown(given)}; expected a list of routes.")
    return [_config(number, route, target) for number, route in enumerate(given, start=1)]


def semantic_router_file(routes: Sequence[Route]) -> dict[str, Any]:
    """Routes in the shape of the ``semantic-router`` package; what it has no place for stands in ``metadata``."""
    made = []
    for route in routes:
        full = route.to_dict()
        kept = {key: full[key] for key in _OURS if full[key] not in (None, [], {})}
        made.append({
            "name": route.name, "utterances": full["utterances"], "description": route.description or None,
            "function_schemas": None, "llm": None, "score_threshold": route.threshold, "metadata": kept,
        })  # fmt: skip
    return {"encoder_type": "huggingface", "encoder_name": "sentence-transformers/all-MiniLM-L6-v2", "routes": made}


def labelled_of(text: str, *, what: str) -> list[tuple[str | None, str]]:
    """(route or None, text) of labelled requests.

    Parameters
    ----------
    text
        JSON (a list), JSON lines, or a table with a header, separated by tabs or commas; each with ``route`` and
        ``text``.
    what
        Names the source in errors.
    """
    start = text.lstrip()[:1]
    if start in ("[", "{"):
        rows = _json_rows(text, what)
    else:
        by_tabs = "\t" in text.partition("\n")[0]
        lines = io.StringIO(text, newline="")
        try:
            if by_tabs:
                rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))
            else:
                rows = list(csv.DictReader(lines, strict=True))
        except csv.Error as error:
            raise InvalidInputError(f"{what} is no table: {error}.") from None
    if not rows:
        raise InvalidInputError(f"{what} holds no labelled request.", hint="Each needs a route (or none) and a text.")
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or "route" not in row or not isinstance(row.get("text"), str):
            raise InvalidInputError(
                f"{what}: request number {number} has no route and text; it is {check.shown(row)}.",
                hint="A table begins with a line that names the columns route and text.",
            )
        found.append((row["route"], row["text"]))
    return found


def _config(number: int, given: Any, target: str | None) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"Route number {number} is {check.shown(given)}; expected an object.")
    config = {key: value for key, value in given.items() if key not in _FOREIGN and value is not None}
    metadata = given.get("metadata")
    if isinstance(metadata, Mapping):
        config |= {key: metadata[key] for key in _OURS if metadata.get(key) is not None and key not in config}
    threshold = given.get("score_threshold")
    if threshold is not None:
        if config.get("threshold", threshold) != threshold:
            raise InvalidInputError(
                f"Route number {number} has the threshold {config['threshold']} and the score_threshold {threshold}; "
                "expected one of them."
            )
        config["threshold"] = threshold
    if config.get("target_agent") is None:
        if target is None:
            raise InvalidInputError(
                f"Route number {number}, {check.shown(given.get('name'))}, names no target_agent.",
                hint="Say which agent such routes lead to with --target.",
            )
        config["target_agent"] = target
    return config


def _json_rows(text: str, what: str) -> list[Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise InvalidInputError(f"{what} is neither JSON nor JSON lines: {error}.") from None
    return parsed if isinstance(parsed, list) else [parsed]
