"""A real server for the session, a database of its own for each test, and a store that lives inside the server."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_modules
from pg_cluster import Cluster, cluster_at, ensure_packages, scratch_folder
from tinydancer.store.base import Store
from tinydancer.store.pg_queries import ROLES_FILE
from tinydancer.store.postgres import PostgresStore
from tinydancer.types import EmbeddingSpace

TEMPLATE = "tiny_dancer_template"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Not below pytest's own directory, which the user postgres may not enter.
    with scratch_folder("tiny_dancer_pg_") as folder:
        made = cluster_at(folder / "cluster", pg_config=os.environ.get("PG_CONFIG"))
        made.initialise()
        made.start(tcp=True, fsync=False)
        yield made


@pytest.fixture(scope="session")
def template(cluster) -> str:
    """Name of a database that holds the schema and the roles."""
    execute(cluster.dsn(), f"CREATE DATABASE {TEMPLATE}")
    PostgresStore.connect(cluster.dsn(TEMPLATE)).close()
    execute(cluster.dsn(TEMPLATE), ROLES_FILE.read_text())
    return TEMPLATE


@pytest.fixture
def dsn(cluster, template) -> Iterator[str]:
    """A database that the test has to itself."""
    name = f"test_{next(_numbers)}"
    execute(cluster.dsn(), f"CREATE DATABASE {name} TEMPLATE {template}")
    yield cluster.dsn(name)
    execute(cluster.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_dsn(cluster) -> Iterator[str]:
    """A database that never heard of us."""
    name = f"test_{next(_numbers)}"
    execute(cluster.dsn(), f"CREATE DATABASE {name}")
    yield cluster.dsn(name)
    execute(cluster.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_from_outside(dsn) -> Iterator[Callable[..., PostgresStore]]:
    opened: list[PostgresStore] = []

    def open_store(tenant: str = "default") -> PostgresStore:
        opened.append(PostgresStore.connect(dsn, tenant=tenant, max_connections=4))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def execute(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """Runs SQL on a connection of its own; the rows, if there are any."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def server_modules(cluster, pytestconfig) -> Path:
    """Tiny Dancer and what it needs, for the server's Python, where the server can read it."""
    if (version := cluster.bindir.parent.name).isdigit():  # Debian's own layout
        ensure_packages(int(version))
    python = pg_modules.server_python(pg_config=str(cluster.bindir / "pg_config"))
    wanted = repr((python, pg_modules.CORE_PACKAGES)).encode() + pg_modules.LOCK_FILE.read_bytes()
    key = hashlib.sha256(wanted).hexdigest()[:12]
    downloaded = Path(pytestconfig.cache.mkdir("pg_modules"), key)
    if not downloaded.is_dir():  # wheels are kept between runs; our own source never is
        half = downloaded.with_name(f"{key}.{os.getpid()}")
        pg_modules.install_core_packages(half, python)
        half.rename(downloaded)
    modules: Path = cluster.directory / "modules"
    shutil.copytree(downloaded, modules)
    pg_modules.copy_package(modules)
    pg_modules.finish(modules, python)
    return modules


@pytest.fixture
def plpy_dsn(dsn: str, server_modules) -> str:
    """A database whose sessions can run the store inside the server: ``td_call`` and ``td_run``."""
    execute(
        dsn,
        f"""
        CREATE EXTENSION plpython3u;
        CREATE FUNCTION td_boot() RETURNS void LANGUAGE plpython3u AS $body$
            import sys
            if {str(server_modules)!r} not in sys.path:
                sys.path.insert(0, {str(server_modules)!r})
            from tinydancer.store.pg_connection import PlpyConnection
            from tinydancer.store.postgres import PostgresStore

            def store():
                tenant = plpy.execute("SELECT tiny_dancer.current_tenant() AS tenant")[0]["tenant"]
                return PostgresStore(PlpyConnection(plpy, GD.setdefault("plans", {{}})), space=None, tenant=tenant)
            GD["store"] = store
        $body$;
        -- One call of a method: what it returned or raised, pickled.
        CREATE FUNCTION td_call(call text) RETURNS text LANGUAGE plpython3u AS $body$
            if "store" not in GD:
                plpy.execute("SELECT td_boot()")
            import base64, pickle
            from tinydancer.errors import TinyDancerError
            name, arguments, named = pickle.loads(base64.b64decode(call))
            try:
                answer = (True, getattr(GD["store"](), name)(*arguments, **named))
            except TinyDancerError as error:
                answer = (False, error)
            return base64.b64encode(pickle.dumps(answer)).decode()
        $body$;
        -- Any code, with ``store`` and ``plpy``; it may set ``result``.
        CREATE FUNCTION td_run(code text) RETURNS text LANGUAGE plpython3u AS $body$
            if "store" not in GD:
                plpy.execute("SELECT td_boot()")
            scope = {{"store": GD["store"](), "plpy": plpy, "GD": GD, "result": None}}
            exec(code, scope)
            return str(scope["result"])
        $body$;
        """,
    )
    return dsn


class StoreInServer:
    """Has each method called by PL/Python in the server, one transaction per call, one session per thread."""

    def __init__(self, dsn: str, tenant: str) -> None:
        self.tenant = tenant
        self._dsn = dsn
        self._local = threading.local()
        self._connections: list[psycopg.Connection] = []

    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace(*execute(self._dsn, "SELECT space_name, space_dim FROM tiny_dancer.meta")[0])

    def call(self, name: str, arguments: tuple, named: dict) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = psycopg.connect(self._dsn, autocommit=True)
            connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (self.tenant,))
            self._connections.append(connection)
        call = base64.b64encode(pickle.dumps((name, arguments, named))).decode()
        row = connection.execute("SELECT td_call(%s)", (call,)).fetchone()
        assert row is not None
        fine, answer = pickle.loads(base64.b64decode(row[0]))
        if not fine:
            raise answer
        return answer

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **named: self.call(name, arguments, named)


for _name in (*vars(Store), "roll_up", "registry_version", "outcomes_version"):
    if not _name.startswith("_") and not hasattr(StoreInServer, _name):
        setattr(StoreInServer, _name, _method(_name))


@pytest.fixture
def open_in_server(plpy_dsn) -> Iterator[Callable[..., StoreInServer]]:
    opened: list[StoreInServer] = []

    def open_store(tenant: str = "default") -> StoreInServer:
        opened.append(StoreInServer(plpy_dsn, tenant))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()
