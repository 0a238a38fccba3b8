"""What both stores say of semantic routes in the same words: rows, checks that take a transaction, errors.

In: routes, or rows of the queries in ``queries/routes.sql``. Out: the other, or the error to raise.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from tinydancer.policy.route_rules import Route, RouteCalibration, RouteConditions, Utterance, same_name
from tinydancer.validation import FloatVector

Row = tuple[Any, ...]
ROUTE_COLUMNS = 8


def route_record(route: Route) -> dict[str, Any]:
    """The fields of a route without its utterances, JSON-ready."""
    record = route.to_dict()
    del record["utterances"], record["negative_utterances"]
    return record


def routes_of(rows: Iterable[Row], vector_of: Callable[[Any, str], FloatVector]) -> list[Route]:
    """From the rows of ``list_routes`` or ``get_route``; `vector_of` reads a vector and is told whose it is."""
    found: dict[str, tuple[Row, list[Utterance]]] = {}
    for row in rows:
        name, (kind, text, embedding) = row[0], row[ROUTE_COLUMNS:]
        utterances = found.setdefault(name, (row, []))[1]
        if kind is not None:
            vector = vector_of(embedding, f"An utterance of route {name!r}")
            utterances.append(Utterance(text=text, embedding=vector, kind=kind))
    return [_route(row, utterances) for row, utterances in found.values()]


def require_new(names: Collection[str], existing: Sequence[str]) -> None:
    """`AlreadyExistsError` for the first name that exists, capitals aside."""
    folded = {name.casefold(): name for name in existing}
    for name in names:
        if (other := folded.get(name.casefold())) is not None:
            how = "" if other == name else f", which differs from {name!r} in capitals only"
            raise AlreadyExistsError(
                f"There is a route named {other!r} already{how}.",
                hint="Update it, remove it first, or choose another name.",
            )


def require_distinct(routes: Sequence[Route]) -> None:
    """`AlreadyExistsError` if two of the routes have the same name, capitals aside."""
    names: list[str] = []
    for route in routes:
        require_new([route.name], names)
        names.append(route.name)


def overwritten(names: Collection[str], existing: Sequence[str]) -> set[str]:
    """Those that exist; `AlreadyExistsError` for one that differs from an existing one in capitals only."""
    known = set(existing)
    for name in names:
        if name not in known and same_name(name, existing) is not None:
            require_new([name], existing)
    return known.intersection(names)


def require_agents(routes: Sequence[Route], agents: Collection[str]) -> None:
    """`NotFoundError` for the first route whose agent is not registered."""
    for route in routes:
        if route.target_agent not in agents:
            near = difflib.get_close_matches(route.target_agent, sorted(agents), n=1)
            raise NotFoundError(
                f"The route {route.name!r} leads to the agent {route.target_agent!r}, which is not registered.",
                hint=f"Did you mean {near[0]!r}?" if near else "Register the agent first.",
            )


def unknown_route(name: str, names: Sequence[str]) -> NotFoundError:
    """The error for a name that no route has."""
    near = difflib.get_close_matches(str(name), sorted(names), n=1)
    return NotFoundError(
        f"There is no route named {check.shown(name)}.",
        hint=f"Did you mean {near[0]!r}?" if near else "Create it first.",
    )


def new_utterances(
    name: str, existing: Iterable[tuple[str, str | None]], given: Sequence[Utterance]
) -> list[Utterance]:
    """Those that the route does not have yet.

    Raises
    ------
    InvalidInputError
        A text would be an example and a negative example at once.
    """
    known = {(kind == "negative", text) for kind, text in existing if text is not None and kind != "description"}
    added = []
    for utterance in given:
        if utterance.text is not None:
            negative = utterance.kind == "negative"
            if (not negative, utterance.text) in known:
                raise contradiction(name, utterance.text)
            if (negative, utterance.text) in known:
                continue
            known.add((negative, utterance.text))
        added.append(utterance)
    return added


def contradiction(name: str, text: str) -> InvalidInputError:
    """The error for a text that is an example and a negative example at once."""
    return InvalidInputError(
        f"The route {name!r} would have {check.shown(text)} as an example and as a negative example.",
        hint="Remove it on one side first.",
    )


def require_positive(name: str, kinds: Iterable[str]) -> None:
    """`InvalidInputError` if nothing that a request could resemble would be left."""
    if all(kind == "negative" for kind in kinds):
        raise InvalidInputError(
            f"The route {name!r} would have no utterance left; nothing could resemble it.",
            hint="Add another one first, or remove the route.",
        )


def chunks(utterances: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of at most `size`."""
    return (utterances[start : start + size] for start in range(0, len(utterances), size))


def _route(row: Row, utterances: Sequence[Utterance]) -> Route:
    name, description, target_agent, priority, threshold, conditions, calibration, is_active = row[:ROUTE_COLUMNS]
    return Route(
        name=name, description=description, target_agent=target_agent, priority=priority, threshold=threshold,
        conditions=RouteConditions.from_mapping(json.loads(conditions)),
        calibration=None if calibration is None else RouteCalibration.from_mapping(json.loads(calibration)),
        is_active=bool(is_active), utterances=tuple(utterances),
    )  # fmt: skip
