"""The part of the PostgreSQL store that holds semantic routes.

In: checked routes. Out: what any session committed, and in the server also what this transaction did. The statements
lie in ``sql/postgres/queries/routes.sql``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tinydancer import validation as check
from tinydancer.errors import NotFoundError, TinyDancerError
from tinydancer.policy.route_rules import RateLimit, Route, Utterance, take_token
from tinydancer.store import routes as shared
from tinydancer.store.pg_connection import Connection, Run
from tinydancer.store.pg_failures import PRIVILEGE_MISSING, READ_ONLY, DatabaseFailure, store_error
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_rows import Row, vector_of
from tinydancer.types import EmbeddingSpace

T = TypeVar("T")

SENT_AT_ONCE = 500
"""Utterances of one statement, as JSON some four megabytes."""


class PostgresRoutes:
    """Mixed into `tinydancer.store.postgres.PostgresStore`, which opens the database."""

    _connection: Connection
    _tenant: str
    _space: EmbeddingSpace
    _clock: Callable[[], float]

    def insert_routes(self, routes: Sequence[Route], *, replace: bool = False) -> None:
        """Keeps all of them or none; with `replace`, those that exist are overwritten with their utterances.

        Raises
        ------
        AlreadyExistsError
            A name is taken, or differs from another in capitals only.
        NotFoundError
            A target agent is not registered.
        """
        shared.require_distinct(routes)
        utterances = [record for r in routes for record in self._utterance_records(r.name, r.utterances)]
        names = [route.name for route in routes]
        if not names:
            return

        def work(run: Run) -> None:
            self._require_agents(run, routes)
            known = self._route_names(run)
            existing = shared.overwritten(names, known) if replace else set()
            shared.require_new([name for name in names if name not in existing], known)
            self._put(run, routes)
            if existing:
                run(QUERIES["delete_utterances"], (self._tenant, sorted(existing), True))
            self._insert(run, utterances)

        self._change(work)

    def update_routes(self, routes: Sequence[Route]) -> None:
        """Overwrites the fields and descriptions of routes, all or none; their examples stay. `NotFoundError`."""
        names = [route.name for route in routes]
        described = [
            record
            for route in routes
            for record in self._utterance_records(route.name, [u for u in route.utterances if u.kind == "description"])
        ]

        def work(run: Run) -> None:
            known = self._route_names(run)
            for name in names:
                if name not in known:
                    raise shared.unknown_route(name, known)
            self._require_agents(run, routes)
            self._put(run, routes)
            run(QUERIES["delete_utterances"], (self._tenant, names, False))
            self._insert(run, described)
            for name in names:
                texts = run(QUERIES["utterance_texts"], (self._tenant, name))
                shared.require_positive(name, [kind for kind, _ in texts])

        if names:
            self._change(work)

    def delete_route(self, name: str) -> None:
        """Removes a route with its utterances; `NotFoundError`."""

        def work(run: Run) -> None:
            if not run(QUERIES["delete_route"], (self._tenant, str(name))):
                raise shared.unknown_route(name, self._route_names(run))

        self._change(work)

    def add_utterances(self, name: str, utterances: Sequence[Utterance]) -> int:
        """Adds examples that the route does not have yet; how many. `NotFoundError`."""
        self._utterance_records(name, utterances)  # what cannot be stored is refused before anything is locked

        def work(run: Run) -> int:
            self._require_route(run, name)
            existing = [(kind, text) for kind, text in run(QUERIES["utterance_texts"], (self._tenant, name))]
            added = shared.new_utterances(name, existing, utterances)
            self._insert(run, self._utterance_records(name, added))
            return len(added)

        return self._change(work)

    def remove_utterances(self, name: str, texts: Sequence[str]) -> int:
        """Removes examples by their texts, wanted or negative ones; how many there were. `NotFoundError`."""

        def work(run: Run) -> int:
            self._require_route(run, name)
            removed = int(run(QUERIES["delete_examples"], (self._tenant, name, [str(text) for text in texts]))[0][0])
            left = run(QUERIES["utterance_texts"], (self._tenant, name))
            shared.require_positive(name, [kind for kind, _ in left])
            return removed

        return self._change(work)

    def get_route(self, name: str) -> Route:
        """One route with its utterances; `NotFoundError` with the nearest name as a hint."""
        rows = self._fetch_routes("get_route", self._tenant, str(name))
        if not rows:
            raise self._unknown_route(name)
        return self._routes_of(rows)[0]

    def list_routes(self) -> list[Route]:
        """All, active or not, in order of name, with their utterances."""
        return self._routes_of(self._fetch_routes("list_routes", self._tenant))

    def take_route_token(self, name: str, limit: RateLimit, now: float, *, keep: bool = True) -> bool:
        """Asks a route's rate limit for one request; see `take_token`. Sessions that ask at once take turns.

        Without `keep`, in a transaction that is read-only, and for a role that may only read, it is only looked at.
        """
        now = check.number(now, "now")

        def work(run: Run) -> bool:
            found = run(QUERIES["lock_route_limit"], (self._tenant, name))
            if not found:
                run(QUERIES["begin_route_limit"], (self._tenant, name))
                found = run(QUERIES["lock_route_limit"], (self._tenant, name))
            full_at, passes = take_token(found[0][0] if found else None, limit, now)
            run(QUERIES["put_route_limit"], (self._tenant, name, full_at))
            return passes

        if keep:
            try:
                return self._connection.together(work)
            except DatabaseFailure as failure:
                if failure.sqlstate not in (READ_ONLY, PRIVILEGE_MISSING):
                    raise store_error(failure) from None
            except TinyDancerError as error:  # a connection inside the server may have translated it already
                if error.sqlstate not in (READ_ONLY, PRIVILEGE_MISSING):
                    raise
        rows = self._fetch_routes("route_limit", self._tenant, name)
        return take_token(rows[0][0] if rows else None, limit, now)[1]

    def _change(self, work: Callable[[Run], T]) -> T:
        """One transaction under the lock of the registry, whose version it moves."""

        def locked(run: Run) -> T:
            run(QUERIES["change_registry"], (self._tenant,))
            return work(run)

        try:
            return self._connection.together(locked)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    def _put(self, run: Run, routes: Sequence[Route]) -> None:
        records = json.dumps([shared.route_record(route) for route in routes])
        run(QUERIES["put_routes"], (self._tenant, records, float(self._clock())))

    def _insert(self, run: Run, records: Sequence[dict[str, Any]]) -> None:
        for part in shared.chunks(records, SENT_AT_ONCE):
            run(QUERIES["insert_utterances"], (self._tenant, json.dumps(part), float(self._clock())))

    def _utterance_records(self, name: str, utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
        what, space = f"An utterance of route {name!r}", self._space
        vectors = [check.vector(u.embedding, what, dim=space.dim, space=space.name).tolist() for u in utterances]
        return [
            {"route": name, "kind": u.kind, "text": u.text, "embedding": vector}
            for u, vector in zip(utterances, vectors, strict=True)
        ]

    def _routes_of(self, rows: Sequence[Row]) -> list[Route]:
        return shared.routes_of(rows, lambda sent, what: vector_of(sent, self._space, what))

    def _route_names(self, run: Run) -> list[str]:
        return [row[0] for row in run(QUERIES["route_names"], (self._tenant,))]

    def _require_route(self, run: Run, name: str) -> None:
        names = self._route_names(run)
        if name not in names:
            raise shared.unknown_route(name, names)

    def _require_agents(self, run: Run, routes: Sequence[Route]) -> None:
        shared.require_agents(routes, {row[0] for row in run(QUERIES["agent_names"], (self._tenant,))})

    def _unknown_route(self, name: str) -> NotFoundError:
        return shared.unknown_route(name, [row[0] for row in self._fetch_routes("route_names", self._tenant)])

    def _fetch_routes(self, name: str, *parameters: Any) -> list[Row]:
        try:
            return self._connection.fetch(QUERIES[name], parameters)
        except DatabaseFailure as failure:
            raise store_error(failure) from None
