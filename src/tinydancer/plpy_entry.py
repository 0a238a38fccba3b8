"""The SQL door: what the extension's PL/Python functions call.

In: arguments as PL/Python hands them over. Out: the answer as JSON text, or the error as JSON text under the key ``!``,
which the SQL function ``tiny_dancer._ok`` raises with its SQLSTATE, DETAIL and HINT. Errors travel as values because an
exception that leaves PL/Python shows the client a traceback. No routing logic, no state that matters: a `Session` lives
as long as its backend and keeps one `TinyDancer` per role, tenant and settings, which it asks for anew at every call.
"""

from __future__ import annotations

import json
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinydancer import validation as check
from tinydancer._version import __version__
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.decide import Decision
from tinydancer.errors import (
    InvalidInputError,
    InvalidTextError,
    InvalidVectorError,
    NoAgentsError,
    TinyDancerError,
)
from tinydancer.service import TinyDancer
from tinydancer.snapshot import DecisionSettings
from tinydancer.store.pg_connection import PlpyConnection, Row
from tinydancer.store.pg_failures import CHECK_VIOLATION, NOT_NULL_VIOLATION, UNIQUE_VIOLATION, DatabaseFailure
from tinydancer.store.pg_queries import Query, load_typed_queries
from tinydancer.store.postgres import PostgresStore
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

KEPT_SERVICES = 8
"""Roles, tenants and settings of one backend that keep their snapshots; a pooled connection sees few at a time."""
MAX_BATCH = 100_000
"""Requests in one call: their answers travel as one JSON value."""
ERROR_KEY = "!"

_Q = load_typed_queries(Path(__file__).with_suffix(".sql"))
_ANSWERED_BY_STORE = frozenset({UNIQUE_VIOLATION, NOT_NULL_VIOLATION, CHECK_VIOLATION})
_TRUE, _FALSE = frozenset({"on", "true", "yes", "1"}), frozenset({"off", "false", "no", "0"})


class ServerRefusalError(TinyDancerError):
    """The server's own refusal of a statement: keeps its SQLSTATE, so that callers may retry or cancel as usual."""

    def __init__(self, sqlstate: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate  # type: ignore[misc]


class SessionConnection(PlpyConnection):
    """As `PlpyConnection`; what the store has no special answer to keeps the server's SQLSTATE.

    Attributes
    ----------
    registry
        The registry's version as `Session` read it together with the role, for the first question of this call: a
        statement less on the way of every decision.
    """

    registry: int | None = None

    def fetch(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """See `PlpyConnection.fetch`."""
        registry, self.registry = self.registry, None  # whatever comes now may change it
        if query.name == "registry_version" and registry is not None:
            return [(registry,)]
        if query.name == "put_space":
            return []  # the first agent binds the database to a space, not the first session that looks
        try:
            return super().fetch(query, parameters)
        except DatabaseFailure as failure:
            if failure.sqlstate in _ANSWERED_BY_STORE:
                raise
            raise _refusal(failure) from None


class Session:
    """One backend's way into the service.

    Parameters
    ----------
    plpy
        The module of that name.
    """

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._connection = SessionConnection(plpy, {})
        self._services: OrderedDict[tuple[Any, ...], TinyDancer] = OrderedDict()
        self._embedders: dict[str, Any] = {}
        self._calls: dict[str, Callable[[dict[str, Any]], Any]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    # -- called from SQL -------------------------------------------------------------------------------------------

    def call(self, name: str, args: str) -> str | None:
        """The operation `name` with arguments as a JSON object, its answer as JSON; None is NULL."""
        return self._answer(self._operate, args, name)

    def route_vector(self, embedding: Any, optimize_for: str | None, constraints: str | None) -> str | None:
        """``ruvector_route(float4[], text, jsonb)``."""
        return self._answer(self._route_vector, constraints, embedding, optimize_for)

    def route_vectors(self, embeddings: Any, args: str) -> str | None:
        """``ruvector_batch_route(float4[], ...)``: a two-dimensional array, a vector in each row."""
        return self._answer(self._route_vectors, args, embeddings)

    def embed(self, text: str | None) -> str:
        """``ruvector_embed(text)``: the vector as the text of a ``float4[]``, or the error as JSON."""
        try:
            return self._embed(text)
        except Exception as error:
            return self._failure_of(error)

    def _operate(self, args: dict[str, Any], name: str) -> Any:
        return self._calls[name](args)

    # -- agents ----------------------------------------------------------------------------------------------------

    def _do_register_agent(self, args: dict[str, Any]) -> bool:
        config = {key: value for key, value in args.items() if value is not None}
        return self._register({**config, "name": _required(args, "name", "agent name")})

    def _do_register_agent_full(self, args: dict[str, Any]) -> bool:
        return self._register(_required(args, "config", "agent"))

    def _register(self, config: Any) -> bool:
        if isinstance(config, Mapping):
            _no_nulls(config.get("capabilities"), "capabilities")
        service = self._service()
        service.register_agent_full(config)
        self._connection.fetch(_Q["put_space_once"], (service.space.name, service.space.dim))
        return True

    def _do_update_agent(self, args: dict[str, Any]) -> bool:
        self._service().update_agent(_required(args, "name", "agent name"), _required(args, "changes", "change"))
        return True

    def _do_remove_agent(self, args: dict[str, Any]) -> bool:
        self._service().remove_agent(_required(args, "name", "agent name"))
        return True

    def _do_set_agent_active(self, args: dict[str, Any]) -> bool:
        name = _required(args, "name", "agent name")
        self._service().set_agent_active(name, _required(args, "is_active", "new state is_active"))
        return True

    def _do_get_agent(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._service().get_agent(_required(args, "name", "agent name")).to_dict()

    def _do_list_agents(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        return [record.to_dict() for record in self._service().list_agents()]

    def _do_find_agents(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        capability = _required(args, "capability", "capability")
        service = self._service()
        limit = 10 if args["limit"] is None else args["limit"]
        semantic = service.settings.embedder.kind != "none"
        found = service.find_agents_by_capability(capability, limit, semantic=semantic)
        return [{**m.record.to_dict(), "similarity": m.similarity, "exact": m.exact} for m in found]

    def _do_clear_agents(self, args: dict[str, Any]) -> bool:
        self._require_owner("ruvector_clear_agents")
        self._service().clear_agents()
        return True

    def _do_set_vector_space(self, args: dict[str, Any]) -> bool:
        space = EmbeddingSpace(_required(args, "name", "name of the space"), _required(args, "dim", "dimension"))
        self._require_owner("tiny_dancer.set_vector_space")
        stored = self._service().space
        if stored != space and self._connection.fetch(_Q["agents_ever"])[0][0]:
            raise InvalidInputError(
                f"The database is bound to the space {stored}; agents were registered in it.",
                hint="Use a database of its own for another space.",
            )
        self._connection.fetch(_Q["set_space"], (space.name, space.dim))
        self._services.clear()
        return True

    # -- routing ---------------------------------------------------------------------------------------------------

    def _route_vector(self, constraints: Any, embedding: Any, optimize_for: str | None) -> dict[str, Any] | None:
        if embedding is None:
            raise InvalidVectorError("The request's embedding is NULL; expected a float4[].")
        service = self._service()
        try:
            # Any: with on_no_match in the constraints the answer may be None, which the signature cannot know.
            decision: Any = service.route(
                None, _objective(optimize_for), _constraints(constraints), embedding=embedding
            )
        except InvalidVectorError:
            _no_null_in_vector(embedding)
            raise
        return None if decision is None else decision.to_dict()

    def _route_vectors(self, args: dict[str, Any], embeddings: Any) -> list[dict[str, Any]]:
        if embeddings is None:
            raise InvalidVectorError("The embeddings are NULL; expected a float4[] with a vector in each row.")
        _same_length(args.get("ids"), embeddings, "embeddings")
        try:
            return self._batch(args, embeddings=embeddings) if embeddings else []
        except InvalidVectorError:
            for number, row in enumerate(embeddings, start=1):
                _no_null_in_vector(row, f"Embedding number {number}")
            raise

    def _do_route_text(self, args: dict[str, Any]) -> dict[str, Any] | None:
        request = args.pop("request")
        if request is None:
            raise InvalidTextError("The request is NULL; expected a text.")
        optimize_for = _objective(args.pop("optimize_for"))
        decision = self._service().route(request, optimize_for, args.pop("constraints", None), **_limits(args))
        return None if decision is None else _row(decision)

    def _do_batch_route(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        requests = args.pop("requests")
        if requests is None:
            raise InvalidTextError("The requests are NULL; expected a text[].")
        _same_length(args.get("ids"), requests, "requests")
        if None in requests:
            raise InvalidTextError(f"Request number {requests.index(None) + 1} is NULL; expected a text.")
        return self._batch(args, requests=requests)

    def _batch(self, args: dict[str, Any], **requests: Any) -> list[dict[str, Any]]:
        ids, explain = args.pop("ids", None), args.pop("explain", None) is True
        count = len(next(iter(requests.values())))
        if count > MAX_BATCH:
            raise InvalidInputError(
                f"{count:,} requests are given; expected at most {MAX_BATCH:,} in one call.", hint="Call it in parts."
            )
        optimize_for = _objective(args.pop("optimize_for"))
        constraints = args.pop("constraints", None)
        decisions = self._service().route_batch(
            requests.get("requests"), optimize_for, constraints, embeddings=requests.get("embeddings"), **_limits(args)
        )
        numbers = range(1, count + 1) if ids is None else ids
        return [
            {"number": number, **({} if decision is None else _row(decision, explain=explain))}
            for number, decision in zip(numbers, decisions, strict=True)
        ]

    def _embed(self, text: str | None) -> str:
        if text is None:
            raise InvalidTextError("The text is NULL; expected a text.")
        vector = self._service().embed(text).tolist()
        return "{" + ("%.9g," * len(vector) % tuple(vector))[:-1] + "}"

    # -- outcomes and statistics -----------------------------------------------------------------------------------

    def _do_update_agent_metrics(self, args: dict[str, Any]) -> bool:
        name, success = _required(args, "name", "agent name"), _required(args, "success", "value of success")
        self._service().update_agent_metrics(name, args["latency_ms"], success, args["quality"])
        return True

    def _do_feedback(self, args: dict[str, Any]) -> bool:
        decision_id = _required(args, "decision_id", "decision_id")
        success = _required(args, "success", "value of success")
        measured = {k: v for k, v in args.items() if k not in ("decision_id", "success")}
        self._service().feedback(decision_id, success=success, **measured)
        return True

    def _do_routing_stats(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._service().routing_stats()

    # -- whose call it is ------------------------------------------------------------------------------------------

    def _service(self) -> TinyDancer:
        """The service for this call's role, tenant and settings."""
        *found, registry = self._connection.fetch(_Q["session"])[0]
        key = tuple(found)
        service = self._services.get(key)
        if service is None:
            _, tenant, read_only, may_read, _ = key
            service = self._open(tenant, read_only=read_only == "on")
            if not may_read:
                return service  # the server refuses what comes next, and says why
            self._services[key] = service
            if len(self._services) > KEPT_SERVICES:
                self._services.popitem(last=False)
        else:
            self._services.move_to_end(key)
        self._connection.registry = registry
        return service

    def _open(self, tenant: str, *, read_only: bool) -> TinyDancer:
        store = PostgresStore(self._connection, space=None, tenant=tenant)
        given: dict[str, str] = {n: v for n, v in self._connection.fetch(_Q["settings"]) if v not in (None, "")}
        settings = settings_of(given, tenant=tenant, space=store.space, read_only=read_only)
        embedder = None
        if settings.embedder.kind == "static":
            embedder = self._embedders.get("static")
            if embedder is None:
                embedder = self._embedders["static"] = _LazyStaticEmbedder()
        return TinyDancer(store, settings=settings, embedder=embedder)

    def _require_owner(self, what: str) -> None:
        if not self._connection.fetch(_Q["owns_tables"])[0][0]:
            raise ServerRefusalError("42501", f"Only the owner of the extension's tables may call {what}.")

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer(self, work: Callable[..., Any], given: str | None, *rest: Any) -> str | None:
        """What `work` makes of JSON (NULL stays None) and the rest of the arguments, as JSON; or its error."""
        try:
            value = work(None if given is None else json.loads(given), *rest)
            return None if value is None else _encode(value)
        except Exception as error:
            return self._failure_of(error)

    def _failure_of(self, error: Exception) -> str:
        if isinstance(error, NoAgentsError):
            return _failure(error.sqlstate, error.message, "", "Register one with ruvector_register_agent.")
        if isinstance(error, TinyDancerError):
            return _failure(error.sqlstate, error.message, error.detail, error.hint)
        if isinstance(error, self._plpy.SPIError):
            return _failure(getattr(error, "sqlstate", None) or "XX000", str(error), "", "")
        debug = self._connection.fetch(_Q["debug"])[0][0].lower() in _TRUE
        detail = "".join(traceback.format_exception(error)) if debug else ""
        hint = "" if debug else "SET tiny_dancer.debug = on shows where it happened."
        return _failure("XX000", f"Tiny Dancer failed unexpectedly ({type(error).__name__}).", detail, hint)


class _LazyStaticEmbedder:
    """The static embedder, loaded with the first text: routing by vectors needs neither its table nor its tokenizer."""

    name = "static"
    space = MINILM_SPACE

    def __init__(self) -> None:
        self._loaded: Any = None

    def embed(self, texts: Sequence[str]) -> Any:
        if self._loaded is None:
            from tinydancer.embedding.static import StaticEmbedder

            self._loaded = StaticEmbedder()
        return self._loaded.embed(texts)


def boot_check(version: str) -> None:
    """Refuse to serve an extension of another version than these modules.

    Raises
    ------
    ServerRefusalError
        The session loaded the modules of another version, before ALTER EXTENSION ... UPDATE.
    """
    if version != __version__:
        raise ServerRefusalError(
            "55000", f"This session has loaded Tiny Dancer {__version__}; the extension is {version}.",
            hint="Connect again.",
        )  # fmt: skip


def settings_of(given: Mapping[str, str], *, tenant: str, space: EmbeddingSpace, read_only: bool) -> Settings:
    """Settings from the values of ``tiny_dancer.*``; what is not set has its default.

    Raises
    ------
    InvalidInputError
        A value cannot be read; names the setting.
    """
    decisions: dict[str, Any] = {
        key: _number(given[key], key) for key in ("good_enough", "quality_bar", "default_output_tokens") if key in given
    }
    if "max_alternatives" in given:
        decisions["max_alternatives"] = _count(given["max_alternatives"], "max_alternatives", high=1000)
    values: dict[str, Any] = {}
    if "stats_refresh_s" in given:
        values["stats_refresh_s"] = _number(given["stats_refresh_s"], "stats_refresh_s")
    if "max_request_chars" in given:
        values["max_request_chars"] = _count(given["max_request_chars"], "max_request_chars", low=1)
    if "record_requests" in given:
        values["record_requests"] = _switch(given["record_requests"], "record_requests")
    record = given.get("record_decisions", "on").strip().lower()
    if read_only:
        values["record_decisions"] = False
    elif record in _TRUE | _FALSE:
        values["record_decisions"] = record in _TRUE
    else:
        values["record_decisions"] = _number(record, "record_decisions", expected="on, off, or a share in [0, 1]")
    embedder = EmbedderSettings(kind="static" if space == MINILM_SPACE else "none", space=space.name, dim=space.dim)
    return Settings(tenant=tenant, embedder=embedder, decisions=DecisionSettings(**decisions), **values)


def _switch(text: str, key: str) -> bool:
    if text.strip().lower() in _TRUE | _FALSE:
        return text.strip().lower() in _TRUE
    raise InvalidInputError(f"tiny_dancer.{key} is {check.shown(text)}; expected on or off.")


def _number(text: str, key: str, expected: str = "a number") -> float:
    try:
        return check.number(float(text), f"tiny_dancer.{key}")
    except (ValueError, InvalidInputError):
        raise InvalidInputError(f"tiny_dancer.{key} is {check.shown(text)}; expected {expected}.") from None


def _count(text: str, key: str, *, low: int = 0, high: int = 10**9) -> int:
    return check.count(_number(text, key), f"tiny_dancer.{key}", low=low, high=high)


def _refusal(failure: DatabaseFailure) -> ServerRefusalError:
    hint = ""
    if failure.sqlstate == "42501":
        hint = "Grant the role tiny_dancer_reader, tiny_dancer_router or tiny_dancer_admin."
    elif failure.sqlstate == "25006":
        hint = "Routing works in a read-only transaction; changes need one that may write."
    return ServerRefusalError(failure.sqlstate, failure.message, hint=hint)


def _required(args: Mapping[str, Any], key: str, what: str) -> Any:
    if args.get(key) is None:
        raise InvalidInputError(f"The {what} is NULL; expected a value.")
    return args[key]


def _constraints(given: Any) -> Any:
    if isinstance(given, Mapping):
        for key in ("required_capabilities", "excluded_agents"):
            _no_nulls(given.get(key), key)
    return given


def _limits(args: Mapping[str, Any]) -> dict[str, Any]:
    limits = {key: value for key, value in args.items() if value is not None}
    for key in ("required_capabilities", "excluded_agents"):
        _no_nulls(limits.get(key), key)
    return limits


def _no_nulls(values: Any, what: str) -> None:
    if isinstance(values, list) and None in values:
        raise InvalidInputError(f"{what} holds a NULL at position {values.index(None) + 1}; expected names.")


def _no_null_in_vector(vector: Any, what: str = "The request's embedding") -> None:
    if isinstance(vector, list) and None in vector:
        raise InvalidVectorError(f"{what} holds a NULL at position {vector.index(None) + 1}; expected finite numbers.")


def _objective(given: str | None) -> str:
    """NULL takes the default; an empty text is as wrong as any other that names no objective."""
    return "balanced" if given is None else given


def _same_length(ids: Sequence[Any] | None, requests: Sequence[Any], what: str) -> None:
    if ids is not None and len(ids) != len(requests):
        raise InvalidInputError(f"{len(ids):,} ids and {len(requests):,} {what} are given; expected as many.")


def _row(decision: Decision, *, explain: bool = True) -> dict[str, Any]:
    """The decision as a row, with the latency as the documents print it besides."""
    milliseconds = decision.estimated_latency_ms
    text = None if milliseconds is None else f"{milliseconds:.0f}ms" if milliseconds >= 10 else f"{milliseconds:.3g}ms"
    if explain:
        return {**decision.to_dict(), "estimated_latency": text}
    # Sentences cost more than the decision itself, and of thousands nobody reads them.
    return {
        "decision_id": decision.decision_id, "agent_name": decision.agent_name, "confidence": decision.confidence,
        "uncertainty": decision.uncertainty, "estimated_cost": decision.estimated_cost,
        "estimated_latency_ms": milliseconds, "expected_quality": decision.expected_quality,
        "similarity_score": decision.similarity_score, "objective": decision.objective, "model": decision.model,
        "estimated_latency": text,
    }  # fmt: skip


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _failure(sqlstate: str, message: str, detail: str, hint: str) -> str:
    fields = {"sqlstate": sqlstate, "message": message, "detail": detail or None, "hint": hint or None}
    return json.dumps({ERROR_KEY: fields})
