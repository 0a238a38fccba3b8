"""The part of the SQLite store that holds semantic routes.

In: checked routes. Out: what any process committed. The statements lie in ``sql/sqlite/queries/routes.sql``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tinydancer import validation as check
from tinydancer.errors import NotFoundError, StoreReadOnlyError
from tinydancer.policy.route_rules import RateLimit, Route, Utterance, take_token
from tinydancer.store import routes as shared
from tinydancer.store.connection import Connection, Database
from tinydancer.store.queries import load_queries
from tinydancer.store.rows import Row, vector_bytes, vector_of
from tinydancer.types import EmbeddingSpace

_Q = load_queries("sqlite/queries/routes.sql")
_AGENTS = load_queries("sqlite/queries/agents.sql")


class SqliteRoutes:
    """Mixed into `tinydancer.store.sqlite.SqliteStore`, which opens the file."""

    _database: Database
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
        utterances = [self._utterance_rows(route.name, route.utterances) for route in routes]
        rows = [self._route_row(route) for route in routes]
        if not rows:
            return

        def work(connection: Connection) -> None:
            self._require_agents(connection, routes)
            ids = self._route_ids(connection)
            names = [route.name for route in routes]
            existing = shared.overwritten(names, list(ids)) if replace else set()
            shared.require_new([name for name in names if name not in existing], list(ids))
            for name, row, own in zip(names, rows, utterances, strict=True):
                if name in existing:
                    connection.execute(_Q["update_route"], row)
                    connection.execute(_Q["delete_utterances"], (self._tenant, ids[name], 1))
                    route_id = ids[name]
                else:
                    route_id = connection.execute(_Q["insert_route"], row).lastrowid or 0
                self._insert_utterances(connection, route_id, own)
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def update_routes(self, routes: Sequence[Route]) -> None:
        """Overwrites the fields and descriptions of routes, all or none; their examples stay. `NotFoundError`."""
        rows = [self._route_row(route) for route in routes]
        described = [
            self._utterance_rows(route.name, [u for u in route.utterances if u.kind == "description"])
            for route in routes
        ]

        def work(connection: Connection) -> None:
            ids = self._route_ids(connection)
            self._require_agents(connection, routes)
            for route, row, own in zip(routes, rows, described, strict=True):
                if route.name not in ids:
                    raise shared.unknown_route(route.name, list(ids))
                connection.execute(_Q["update_route"], row)
                connection.execute(_Q["delete_utterances"], (self._tenant, ids[route.name], 0))
                self._insert_utterances(connection, ids[route.name], own)
                texts = connection.execute(_Q["utterance_texts"], (self._tenant, ids[route.name]))
                shared.require_positive(route.name, [kind for kind, _ in texts])
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def delete_route(self, name: str) -> None:
        """Removes a route with its utterances; `NotFoundError`."""

        def work(connection: Connection) -> None:
            if connection.execute(_Q["delete_route"], (self._tenant, name)).rowcount == 0:
                raise self._unknown_route(connection, name)
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def add_utterances(self, name: str, utterances: Sequence[Utterance]) -> int:
        """Adds examples that the route does not have yet; how many. `NotFoundError`."""
        self._utterance_rows(name, utterances)  # what cannot be stored is refused before anything is locked

        def work(connection: Connection) -> int:
            route_id = self._route_id(connection, name)
            existing = connection.execute(_Q["utterance_texts"], (self._tenant, route_id)).fetchall()
            added = shared.new_utterances(name, existing, utterances)
            if added:
                self._insert_utterances(connection, route_id, self._utterance_rows(name, added))
                connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))
            return len(added)

        return self._database.write(work, durable=True)

    def remove_utterances(self, name: str, texts: Sequence[str]) -> int:
        """Removes examples by their texts, wanted or negative ones; how many there were. `NotFoundError`."""

        def work(connection: Connection) -> int:
            route_id = self._route_id(connection, name)
            removed = 0
            for text in dict.fromkeys(texts):
                removed += connection.execute(_Q["delete_utterance"], (self._tenant, route_id, text)).rowcount
            if removed:
                left = connection.execute(_Q["utterance_texts"], (self._tenant, route_id))
                shared.require_positive(name, [kind for kind, _ in left])
                connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))
            return removed

        return self._database.write(work, durable=True)

    def get_route(self, name: str) -> Route:
        """One route with its utterances; `NotFoundError` with the nearest name as a hint."""
        rows = self._database.fetch(_Q["get_route"], (self._tenant, name))
        if not rows:
            raise self._database.read(lambda connection: self._unknown_route(connection, name))
        return self._routes_of(rows)[0]

    def list_routes(self) -> list[Route]:
        """All, active or not, in order of name, with their utterances."""
        return self._routes_of(self._database.fetch(_Q["list_routes"], (self._tenant,)))

    def take_route_token(self, name: str, limit: RateLimit, now: float, *, keep: bool = True) -> bool:
        """Asks a route's rate limit for one request; see `take_token`.

        Without `keep`, or in a file that cannot be written, it is only looked at.
        """
        now = check.number(now, "now")

        def work(connection: Connection) -> bool:
            found = connection.execute(_Q["route_limit"], (self._tenant, name)).fetchone()
            full_at, passes = take_token(found[0] if found else None, limit, now)
            connection.execute(_Q["put_route_limit"], (self._tenant, name, full_at))
            return passes

        if keep:
            try:
                return self._database.write(work, durable=False)
            except StoreReadOnlyError:
                pass
        rows = self._database.fetch(_Q["route_limit"], (self._tenant, name))
        return take_token(rows[0][0] if rows else None, limit, now)[1]

    def _route_row(self, route: Route) -> Row:
        record = shared.route_record(route)
        calibration = record["calibration"]
        return (
            self._tenant, route.name, route.description, route.target_agent, route.priority, route.threshold,
            json.dumps(record["conditions"]), None if calibration is None else json.dumps(calibration),
            route.is_active, self._clock(),
        )  # fmt: skip

    def _utterance_rows(self, name: str, utterances: Sequence[Utterance]) -> list[Row]:
        what = f"An utterance of route {name!r}"
        return [(u.kind, u.text, vector_bytes(u.embedding, self._space, what), self._clock()) for u in utterances]

    def _insert_utterances(self, connection: Connection, route_id: int, rows: Sequence[Row]) -> None:
        connection.executemany(_Q["insert_utterance"], [(self._tenant, route_id, *row) for row in rows])

    def _routes_of(self, rows: Sequence[Row]) -> list[Route]:
        return shared.routes_of(rows, lambda stored, what: vector_of(stored, self._space, what))

    def _route_ids(self, connection: Connection) -> dict[str, int]:
        return {name: route_id for route_id, name in connection.execute(_Q["route_names"], (self._tenant,))}

    def _route_id(self, connection: Connection, name: str) -> int:
        ids = self._route_ids(connection)
        if name not in ids:
            raise shared.unknown_route(name, list(ids))
        return ids[name]

    def _require_agents(self, connection: Connection, routes: Sequence[Route]) -> None:
        shared.require_agents(routes, {row[1] for row in connection.execute(_AGENTS["agent_names"], (self._tenant,))})

    def _unknown_route(self, connection: Connection, name: str) -> NotFoundError:
        return shared.unknown_route(name, list(self._route_ids(connection)))
