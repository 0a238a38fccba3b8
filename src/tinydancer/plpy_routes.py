"""The part of the SQL door that manages and matches semantic routes, and classifies requests.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text, or the error as JSON text, as
`tinydancer.plpy_entry` gives them. What a role may change is decided by the privileges on the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from tinydancer.classification import RequestClassification
from tinydancer.errors import InvalidInputError, InvalidTextError
from tinydancer.plpy_entry import Session, array_of
from tinydancer.routes import SemanticRoutes
from tinydancer.service import TinyDancer

__all__ = ["call", "classify", "match"]

T = TypeVar("T")

# One of each per service, whose role, tenant and settings they share; gone with it.
_routes: WeakKeyDictionary[TinyDancer, SemanticRoutes] = WeakKeyDictionary()
_classifications: WeakKeyDictionary[TinyDancer, RequestClassification] = WeakKeyDictionary()


def match(
    session: Session, request: str | None, embedding: bytes | None, top_k: int | None, user_tier: str | None,
    by_vector: bool,
) -> str | None:  # fmt: skip
    """``ruvector_semantic_route``: the matches as JSON; where there is none, one without a name."""

    def work(_: Any) -> list[dict[str, Any]]:
        if top_k is None:
            raise InvalidInputError("top_k is NULL; expected a number.")
        if (embedding if by_vector else request) is None:
            what = "request's embedding is NULL; expected a float4[]" if by_vector else "query is NULL; expected a text"
            raise InvalidTextError(f"The {what}.")
        vector = None if embedding is None else array_of(embedding, "The request's embedding")
        routes = _routes_of(session)
        answer = routes.match(request, embedding=vector, top_k=top_k, user_tier=user_tier)
        if answer.matches:
            return [found.to_dict() for found in answer.matches]
        similarity = None if answer.nearest is None else answer.nearest.similarity
        return [
            {
                "route_name": None, "similarity": similarity, "target_agent": None,
                "confidence": answer.none_confidence,
            }
        ]  # fmt: skip

    return session._answer(work, None)


def classify(session: Session, content: str | None) -> str | None:
    """``ruvector_classify_request``."""

    def work(_: Any) -> dict[str, Any]:
        if content is None:
            raise InvalidTextError("The content is NULL; expected a text.")
        return _of(session, _classifications, RequestClassification).classify(content)

    return session._answer(work, None)


def call(session: Session, operation: str, args: str) -> str | None:
    """One of the operations below with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _of(session: Session, kept: WeakKeyDictionary[TinyDancer, T], made: Callable[[TinyDancer], T]) -> T:
    service = session._service()
    found = kept.get(service)
    if found is None:
        found = kept[service] = made(service)
    return found


def _routes_of(session: Session) -> SemanticRoutes:
    # Every backend would build an index of its own, which takes longer than most sessions live.
    return _of(session, _routes, lambda service: SemanticRoutes(service, exact_routes=None))


def _create(args: dict[str, Any], session: Session) -> bool:
    _no_null_texts(args, "utterances", "negative_utterances")
    _routes_of(session).create_many([args])
    return True


def _update(args: dict[str, Any], session: Session) -> bool:
    name, changes = _required(args, "name", "route name"), _required(args, "changes", "change")
    _routes_of(session).update(name, changes)
    return True


def _delete(args: dict[str, Any], session: Session) -> bool:
    _routes_of(session).remove(_required(args, "name", "route name"))
    return True


def _list(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    return [route.to_dict() for route in _routes_of(session).list_routes()]


def _add(args: dict[str, Any], session: Session) -> int:
    _no_null_texts(args, "utterances")
    name, texts = _required(args, "name", "route name"), _required(args, "utterances", "list of utterances")
    negative = _required(args, "negative", "value of negative")
    return _routes_of(session).add_utterances(name, texts, negative=negative)


def _remove(args: dict[str, Any], session: Session) -> int:
    _no_null_texts(args, "utterances")
    name, texts = _required(args, "name", "route name"), _required(args, "utterances", "list of utterances")
    return _routes_of(session).remove_utterances(name, texts)


def _fit(args: dict[str, Any], session: Session) -> dict[str, Any]:
    names, texts = _required(args, "route_names", "list of routes"), _required(args, "requests", "list of requests")
    _no_null_texts(args, "requests")
    if len(names) != len(texts):
        raise InvalidInputError(f"{len(names):,} routes and {len(texts):,} requests are given; expected as many.")
    given = {key: args[key] for key in ("min_confidence", "test_share", "seed", "keep") if args[key] is not None}
    routes = _routes_of(session)
    return routes.fit(list(zip(names, texts, strict=True)), **given).to_dict()


_OPERATIONS = {
    "create_route": _create, "update_route": _update, "delete_route": _delete, "list_routes": _list,
    "add_utterances": _add, "remove_utterances": _remove, "fit_routes": _fit,
}  # fmt: skip


def _required(args: dict[str, Any], key: str, what: str) -> Any:
    if args.get(key) is None:
        raise InvalidInputError(f"The {what} is NULL; expected a value.")
    return args[key]


def _no_null_texts(args: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if isinstance(args.get(key), list) and None in args[key]:
            raise InvalidTextError(f"{key} holds a NULL at position {args[key].index(None) + 1}; expected texts.")
