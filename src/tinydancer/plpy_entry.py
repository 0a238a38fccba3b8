"""The SQL door: what the extension's PL/Python functions call.

In: arguments as PL/Python hands them over, vectors as the bytes of the server's arrays. Out: the answer as JSON text,
or as columns where there are many, or the error as JSON text under the key ``!``, which the SQL function
``tiny_dancer._ok`` raises with its SQLSTATE, DETAIL and HINT. Errors travel as values because an exception that leaves
PL/Python shows the client a traceback. No routing logic, no state that matters: a `Session` lives as long as its
backend and keeps one `TinyDancer` per role, tenant and settings, which it asks for anew at every call.
"""

from __future__ import annotations

import ctypes
import json
import math
import struct
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
from tinydancer.policy.wording import plural
from tinydancer.service import TinyDancer
from tinydancer.snapshot import DecisionSettings
from tinydancer.store.pg_connection import PlpyConnection, Row
from tinydancer.store.pg_failures import CHECK_VIOLATION, NOT_NULL_VIOLATION, UNIQUE_VIOLATION, DatabaseFailure
from tinydancer.store.pg_queries import Query, load_typed_queries
from tinydancer.store.postgres import PostgresStore
from tinydancer.types import MINILM_SPACE, EmbeddingSpace, RequestContext
from tinydancer.validation import FloatVector

KEPT_SERVICES = 8
"""Roles, tenants and settings of one backend that keep their snapshots; a pooled connection sees few at a time."""
MAX_BATCH = 100_000
"""Requests in one call, whose vectors and decisions are all in memory at once."""
MAPPED_BYTES = 1 << 20
"""Blocks of memory from this size on go back to the system as soon as they are free."""
COLUMNS = 13
"""Of many decisions, in the order of the OUT parameters of ``tiny_dancer._route_many``."""
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


@dataclass(slots=True)
class _Kept:
    """A service, and the setting ``tiny_dancer.own_outcomes`` when it last read outcomes."""

    service: TinyDancer
    own_outcomes: str | None


class Session:
    """One backend's way into the service.

    Parameters
    ----------
    plpy
        The module of that name.
    """

    def __init__(self, plpy: Any) -> None:
        _give_memory_back()
        self._plpy = plpy
        self._connection = SessionConnection(plpy, {})
        self._services: OrderedDict[tuple[Any, ...], _Kept] = OrderedDict()
        self._embedders: dict[str, Any] = {}
        self._calls: dict[str, Callable[[dict[str, Any]], Any]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    # -- called from SQL -------------------------------------------------------------------------------------------

    def call(self, name: str, args: str) -> str | None:
        """The operation `name` with arguments as a JSON object, its answer as JSON; None is NULL."""
        return self._answer(self._operate, args, name)

    def route_vector(
        self, embedding: bytes | None, optimize_for: str | None, constraints: str | None, context: str | None
    ) -> str | None:
        """``ruvector_route(float4[], text, jsonb, jsonb)``, the vector as `array_of` reads it."""
        return self._answer(self._route_vector, constraints, embedding, optimize_for, context)

    def route_text(self, request: str | None, optimize_for: str | None, limits: str | None) -> str | None:
        """``ruvector_route(text, ...)``; its limits as a JSON object, None without any."""
        return self._answer(self._route_text, limits, request, optimize_for)

    def route_many(
        self, requests: list[Any] | None, embeddings: bytes | None, ids: int | None, optimize_for: str | None,
        limits: str, explain: bool | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The forms for many requests: texts, or a two-dimensional array; an error, or the columns of the decisions."""
        try:
            columns = self._route_many(requests, embeddings, ids, optimize_for, json.loads(limits), explain)
        except Exception as error:
            return (self._failure_of(error), *[None] * COLUMNS)
        return (None, *columns)

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

    def _route_vector(
        self, constraints: Any, embedding: bytes | None, optimize_for: str | None, context: str | None
    ) -> dict[str, Any] | None:  # fmt: skip
        if embedding is None:
            raise InvalidVectorError("The request's embedding is NULL; expected a float4[].")
        # Any: with on_no_match in the constraints the answer may be None, which the signature cannot know.
        decision: Any = self._service().route(
            None, _objective(optimize_for), _constraints(constraints),
            embedding=array_of(embedding, "The request's embedding"),
            **({} if context is None else _context(json.loads(context))),
        )  # fmt: skip
        return None if decision is None else decision.to_dict()

    def _route_text(
        self, limits: dict[str, Any] | None, request: str | None, optimize_for: str | None
    ) -> dict[str, Any] | None:
        if request is None:
            raise InvalidTextError("The request is NULL; expected a text.")
        constraints, given = _limits(limits)
        decision: Any = self._service().route(request, _objective(optimize_for), constraints, **given)
        if decision is None:
            return None
        return {**decision.to_dict(), "estimated_latency": _latency_text(decision.estimated_latency_ms)}

    def _route_many(
        self, requests: list[Any] | None, embeddings: bytes | None, ids: int | None, optimize_for: str | None,
        limits: dict[str, Any], explain: bool | None,
    ) -> tuple[list[Any] | None, ...]:  # fmt: skip
        vectors, what = None, "requests"
        if embeddings is None:
            if requests is None:
                raise InvalidTextError("The requests are NULL; expected a text[].")
            if None in requests:
                raise InvalidTextError(f"Request number {requests.index(None) + 1} is NULL; expected a text.")
            count = len(requests)
        else:
            if not embeddings:  # which no array is
                raise InvalidVectorError("The embeddings are NULL; expected a float4[] with a vector in each row.")
            vectors, what = array_of(embeddings, "Embedding number {row}"), "embeddings"
            count = len(vectors)
        if ids is not None and ids != count:
            raise InvalidInputError(f"{ids:,} ids and {count:,} {what} are given; expected as many.")
        if count > MAX_BATCH:
            raise InvalidInputError(
                f"{count:,} requests are given; expected at most {MAX_BATCH:,} in one call.", hint="Call it in parts."
            )
        if vectors is not None and vectors.ndim != 2:
            if not count:
                return ([],) + (None,) * (COLUMNS - 1)
            raise InvalidVectorError(
                f"The embeddings have {plural(vectors.ndim, 'dimension')}; expected two, a vector in each row."
            )
        constraints, given = _limits(limits)
        decisions = self._service().route_batch(
            requests, _objective(optimize_for), constraints, embeddings=vectors, **given
        )
        return _columns(decisions, explain=explain is True)

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

    def _do_cache_stats(self, args: dict[str, Any]) -> dict[str, Any]:
        return self._service().cache_stats().to_dict()

    # -- whose call it is ------------------------------------------------------------------------------------------

    def _service(self) -> TinyDancer:
        """The service for this call's role, tenant and settings."""
        *found, own_outcomes, registry = self._connection.fetch(_Q["session"])[0]
        key = tuple(found)
        kept = self._services.get(key)
        if kept is None:
            _, tenant, read_only, may_read, _ = key
            kept = _Kept(self._open(tenant, read_only=read_only == "on"), own_outcomes)
            if not may_read:
                return kept.service  # the server refuses what comes next, and says why
            self._services[key] = kept
            if len(self._services) > KEPT_SERVICES:
                self._services.popitem(last=False)
        else:
            self._services.move_to_end(key)
            if kept.own_outcomes != own_outcomes:
                kept.own_outcomes = own_outcomes
                kept.service.record_outcomes(())  # whose snapshot is now older than what this session did
        self._connection.registry = registry
        return kept.service

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


def _give_memory_back() -> None:
    # Left to itself, glibc takes the largest block that was ever freed for the size up to which to keep blocks; after
    # one batch, a backend would hold tens of megabytes for good. Other C libraries have no such function.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


_M_MMAP_THRESHOLD = -3


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
    if "decision_cache_entries" in given:
        values["decision_cache_entries"] = _count(given["decision_cache_entries"], "decision_cache_entries", high=10**6)
    if "max_request_chars" in given:
        values["max_request_chars"] = _count(given["max_request_chars"], "max_request_chars", low=1)
    for key in ("record_requests", "record_features"):
        if key in given:
            values[key] = _switch(given[key], key)
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


def _limits(given: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """The constraints given as JSON, and those given by name."""
    if not given:
        return None, {}
    limits = {key: value for key, value in given.items() if value is not None}
    for key in ("required_capabilities", "excluded_agents"):
        _no_nulls(limits.get(key), key)
    context = _context(limits.pop("context", None))
    return limits.pop("constraints", None), {**limits, **context}


def _context(given: Any) -> dict[str, Any]:
    """Whose request it is, as keyword arguments."""
    if isinstance(given, Mapping):
        _no_nulls(given.get("tags"), "tags")
    return RequestContext.from_mapping(given).to_dict()


def _no_nulls(values: Any, what: str) -> None:
    if isinstance(values, list) and None in values:
        raise InvalidInputError(f"{what} holds a NULL at position {values.index(None) + 1}; expected names.")


def _objective(given: str | None) -> str:
    """NULL takes the default; an empty text is as wrong as any other that names no objective."""
    return "balanced" if given is None else given


def array_of(given: bytes, what: str) -> FloatVector:
    """A ``real[]`` from ``tiny_dancer._bytes``: as PostgreSQL has it in memory, without a copy.

    After the length of the whole, which is left out, come the number of dimensions, the place of the elements (0 where
    none is NULL), the elements' type, per dimension its length and its lowest index, a bit per element where some are
    NULL, and the elements (``src/include/utils/array.h``).

    Parameters
    ----------
    what
        Names the vector in errors; ``{row}`` stands for the number of the row, from 1.

    Raises
    ------
    InvalidVectorError
        An element is NULL.
    ServerRefusalError
        The bytes are no such array.
    """
    dims, place, kind = _ARRAY_HEADER.unpack_from(given)
    shape = struct.unpack_from(f"={dims}i", given, _ARRAY_HEADER.size)
    count = math.prod(shape) if dims else 0
    start = _ARRAY_HEADER.size + 8 * dims
    if kind != _FLOAT4_OID or (not place and len(given) != start + 4 * count):
        raise ServerRefusalError("XX000", "The server's arrays are not laid out as this version expects.")
    if place:
        known = np.unpackbits(np.frombuffer(given, np.uint8, (count + 7) // 8, start), bitorder="little")[:count]
        if not known.all():
            row, column = divmod(int(known.argmin()), shape[-1])
            raise InvalidVectorError(
                f"{what.format(row=row + 1)} holds a NULL at position {column + 1}; expected finite numbers."
            )
        start = place - 4
    return np.frombuffer(given, np.float32, count, start).reshape(shape or (0,))


_ARRAY_HEADER = struct.Struct("=iiI")
_FLOAT4_OID = 700


def _latency_text(milliseconds: float | None) -> str | None:
    """The latency as the documents print it."""
    return None if milliseconds is None else f"{milliseconds:.0f}ms" if milliseconds >= 10 else f"{milliseconds:.3g}ms"


def _columns(decisions: Sequence[Decision | None], *, explain: bool) -> tuple[list[Any] | None, ...]:
    """Decisions as the OUT parameters of ``tiny_dancer._route_many``; a request without one has NULL in all of them."""
    made = next((decision for decision in decisions if decision is not None), None)
    if made is None:
        return ([None] * len(decisions),) + (None,) * (COLUMNS - 1)
    figures, names = made.batch.chosen_figures(), made.batch.snapshot.names
    latency_ms = _nullable(figures.latency_ms)
    latency_texts = {value: _latency_text(value) for value in set(latency_ms)}
    reasons = alternatives = None
    if explain:  # sentences cost more than the decision itself
        reasons = [decision and decision.reasoning for decision in decisions]
        alternatives = [decision and _encode([a.to_dict() for a in decision.alternatives]) for decision in decisions]
    return (
        [None if agent < 0 else names[agent] for agent in made.batch.chosen.tolist()],
        _nullable(figures.confidence), _nullable(figures.cost_usd), [latency_texts[value] for value in latency_ms],
        latency_ms, _nullable(figures.quality), _nullable(figures.match), _nullable(figures.uncertainty), reasons,
        alternatives, [decision and decision.model for decision in decisions],
        [decision and decision.objective for decision in decisions],
        [decision and decision.decision_id for decision in decisions],
    )  # fmt: skip


def _nullable(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _failure(sqlstate: str, message: str, detail: str, hint: str) -> str:
    fields = {"sqlstate": sqlstate, "message": message, "detail": detail or None, "hint": hint or None}
    return json.dumps({ERROR_KEY: fields})
