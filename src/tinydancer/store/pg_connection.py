"""Two ways to the same database: from outside over psycopg 3, and inside the server over ``plpy``.

In: a `Query` and its parameters. Out: rows as tuples, or a `DatabaseFailure`. Both run the same SQL text, each
statement prepared once per session. The store above knows neither driver.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from tinydancer.errors import InvalidInputError, StoreError
from tinydancer.store.pg_failures import CONNECTION_LOST, DatabaseFailure, connect_error
from tinydancer.store.pg_queries import Query

T = TypeVar("T")
Row = tuple[Any, ...]
Run = Callable[[Query, Sequence[Any]], list[Row]]


class Connection(Protocol):
    """What the store needs of a database."""

    commits: bool
    """Whether what a call returned is committed; inside the server the caller's transaction decides."""

    def fetch(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of one statement that only reads."""
        ...

    def write(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """The rows of one statement that changes something, which happens whole or not at all."""
        ...

    def together(self, work: Callable[[Run], T]) -> T:
        """Several statements, all of which happen or none."""
        ...

    def use_tenant(self, tenant: str) -> None:
        """Tells the server's policies whose rows are meant."""
        ...

    def close(self) -> None:
        """Gives back what was opened. May be repeated."""
        ...


class PlpyConnection:
    """The session that a PL/Python function runs in.

    Parameters
    ----------
    plpy
        The module of that name, which exists only inside the server.
    cache
        Keeps prepared plans for the session: ``GD``, or a dict in it. A plan holds no rows and no permission: the
        server checks the role and the policies each time it runs.
    """

    commits = False

    def __init__(self, plpy: Any, cache: dict[str, Any]) -> None:
        self._plpy = plpy
        self._plans = cache

    def fetch(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """Runs in the caller's transaction; a failure undoes this statement only."""
        plpy = self._plpy
        try:
            plan = self._plans.get(query.name)
            if plan is None:
                plan = self._plans[query.name] = plpy.prepare(query.sql, list(query.types))
            result = plpy.execute(plan, list(parameters))
        except plpy.SPIError as error:
            raise _spi_failure(error) from None
        return [tuple(row.values()) for row in result]

    def write(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """As `fetch`: each statement runs in a subtransaction of its own."""
        return self.fetch(query, parameters)

    def together(self, work: Callable[[Run], T]) -> T:
        """In one subtransaction."""
        with self._plpy.subtransaction():
            return work(self.fetch)

    def use_tenant(self, tenant: str) -> None:
        """Does nothing: the session says itself whose rows it means."""

    def close(self) -> None:
        """Does nothing: the session is its client's."""


class PsycopgConnection:
    """Connections from outside, as many as threads use at once; usable after a fork, and after the server restarted.

    It does not use ``psycopg_pool``: that connects in the background, with pauses that grow after each failure and with
    the reason in the log only, where here the thread that needs a connection makes it and says what is wrong.

    Parameters
    ----------
    dsn
        A connection string or URI of libpq.
    max_connections
        How many to open at most; further threads wait.
    timeout_s
        How long to wait for a connection, and for a lock, in seconds.

    Raises
    ------
    InvalidInputError
        If psycopg is not installed, or the string cannot be read; it is never repeated.
    """

    commits = True

    def __init__(self, dsn: str, *, max_connections: int = 16, timeout_s: float = 30.0) -> None:
        self._psycopg = _driver()
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._where = _described(self._psycopg, dsn)
        self._tenant: str | None = None
        self._closed = False
        self._inherited: list[Any] = []
        self._idle: list[Any] = []
        self._begin()

    def __repr__(self) -> str:
        return f"PsycopgConnection({self._where})"

    def fetch(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """Runs once more on another connection if the first one is lost meanwhile."""
        try:
            return self.write(query, parameters)
        except DatabaseFailure as failure:
            if failure.sqlstate != CONNECTION_LOST:
                raise
        return self.write(query, parameters)

    def write(self, query: Query, parameters: Sequence[Any] = ()) -> list[Row]:
        """Has committed when it returns."""
        return self._with_connection(lambda raw: self._execute(raw, query, parameters))

    def together(self, work: Callable[[Run], T]) -> T:
        """In one transaction."""

        def run(raw: Any) -> T:
            with raw.transaction():
                return work(lambda query, parameters: self._execute(raw, query, parameters))

        return self._with_connection(run)

    def alone(self, work: Callable[[Any, Run], T]) -> T:
        """One transaction on a connection of its own; ``work`` gets the raw connection, too, to run scripts on."""
        psycopg = self._psycopg
        raw = self._connect()
        try:
            with raw.transaction():
                return work(raw, lambda query, parameters: self._execute(raw, query, parameters))
        except psycopg.Error as error:
            raise _psycopg_failure(error) from None
        finally:
            raw.close()

    def use_tenant(self, tenant: str) -> None:
        """Sets ``tiny_dancer.tenant`` on every connection."""
        with self._guard:
            if self._tenant not in {None, tenant}:
                raise StoreError("A connection serves one tenant; open another one for another tenant.")
            self._tenant = tenant

    def close(self) -> None:
        """Closes the connections, those in use when they are given back. May be repeated."""
        self._after_fork()
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for raw in idle:
            raw.close()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._free = threading.BoundedSemaphore(self._max_connections)
        self._idle = []

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            # The sockets are the parent's, and closing them here would say goodbye in its name.
            self._inherited.extend(self._idle)
            self._begin()

    def _with_connection(self, work: Callable[[Any], T]) -> T:
        self._after_fork()
        if self._closed:
            raise StoreError("The store is closed.", hint="Open it again.")
        if not self._free.acquire(timeout=self._timeout_s):
            raise StoreError(
                f"All {self._max_connections} connections stayed in use for {self._timeout_s:g} s.",
                hint="Raise max_connections, or use fewer threads.",
            )
        try:
            raw = self._take()
            try:
                return work(raw)
            except self._psycopg.Error as error:
                raise _psycopg_failure(error) from None
            finally:
                self._give_back(raw)
        finally:
            self._free.release()

    def _take(self) -> Any:
        """The connection used last, if it still lives, or else a new one."""
        while True:
            with self._guard:
                raw = self._idle.pop() if self._idle else None
            if raw is None:
                return self._connect()
            # A healthy idle connection has nothing to say; one that the server ended has. Asking the server each time
            # would double the time of every statement.
            if not select.select([raw.fileno()], [], [], 0)[0]:
                return raw
            try:
                raw.execute("")
            except self._psycopg.Error:
                raw.close()
            else:
                return raw

    def _give_back(self, raw: Any) -> None:
        idle = self._psycopg.pq.TransactionStatus.IDLE
        with self._guard:
            if not self._closed and not raw.closed and raw.info.transaction_status == idle:
                self._idle.append(raw)
                return
        raw.close()

    def _connect(self) -> Any:
        psycopg = self._psycopg
        settings = {"search_path": "pg_catalog, pg_temp", "lock_timeout": f"{int(self._timeout_s * 1000)}ms"}
        if self._tenant is not None:
            settings["tiny_dancer.tenant"] = self._tenant
        calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
        raw = None
        try:
            # libpq waits at least two seconds.
            raw = psycopg.connect(self._dsn, connect_timeout=max(2, int(self._timeout_s)), autocommit=True)
            raw.execute(f"SELECT {calls}", [text for setting in settings.items() for text in setting])
        except psycopg.Error as error:
            if raw is not None:
                raw.close()
            raise connect_error(str(error), f" to {self._where}") from None
        return raw

    def _execute(self, raw: Any, query: Query, parameters: Sequence[Any]) -> list[Row]:
        cursor = self._psycopg.RawCursor(raw)
        cursor.execute(query.sql, parameters, prepare=True, binary=True)
        rows: list[Row] = cursor.fetchall() if cursor.description is not None else []
        cursor.close()
        return rows


def _driver() -> Any:
    try:
        import psycopg
    except ImportError:
        raise InvalidInputError(
            "A PostgreSQL store needs psycopg 3, which is not installed.",
            hint="Install it with: pip install 'tiny-dancer[postgres]'",
        ) from None
    return psycopg


def _described(psycopg: Any, dsn: str) -> str:
    """Host and database of a connection string, without its user and password; checks that it can be read.

    A password with an ``@`` or ``/`` that is not percent-encoded ends up in the host or in the port. Such a string is
    refused here, because drivers and their logs repeat the host and the port when they cannot connect.
    """
    unreadable = InvalidInputError(
        "The PostgreSQL connection string cannot be read; it is not repeated here, because it may hold a password.",
        hint="Expected postgresql://user:password@host:5432/database with special characters percent-encoded, "
        "or host=... dbname=... .",
    )
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except (psycopg.Error, TypeError, ValueError):
        raise unreadable from None
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "")
    if "@" in host or not all(one.isdigit() for one in port.split(",") if one):
        raise unreadable
    return f"database {parts.get('dbname') or 'of the default name'!s} on {host or 'the default host'}"


def _psycopg_failure(error: Any) -> DatabaseFailure:
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
        return DatabaseFailure(CONNECTION_LOST, "the connection was lost")
    diag = error.diag
    return DatabaseFailure(
        error.sqlstate,
        diag.message_primary or "no message",
        constraint=diag.constraint_name or "",
        column=diag.column_name or "",
    )


def _spi_failure(error: Any) -> DatabaseFailure:
    # spidata is (code, detail, hint, query, position, schema, table, column, data type, constraint).
    data = getattr(error, "spidata", None) or (None,) * 10
    return DatabaseFailure(
        getattr(error, "sqlstate", None) or "XX000", str(error), constraint=data[9] or "", column=data[7] or ""
    )
