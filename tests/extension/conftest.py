"""A server of the session's own with the extension installed into it, and a database of its own for each test."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_cluster import Cluster, ClusterError, cluster_at, ensure_packages, find_bindir, scratch_folder
from pg_tree import make_tree
from tinydancer.cli import postgres_install
from tinydancer.cli.postgres_install import Server

TEMPLATE = "extension_template"
_numbers = itertools.count()


@dataclass
class Database:
    """One database and a connection to it in autocommit mode."""

    cluster: Cluster
    name: str
    opened: list[psycopg.Connection[Any]] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        return self.cluster.dsn(self.name)

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        self.opened.append(psycopg.connect(self.dsn, autocommit=autocommit))
        return self.opened[-1]

    @property
    def connection(self) -> psycopg.Connection[Any]:
        return self.opened[0] if self.opened else self.connect()

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(sql, parameters or None)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def one(self, sql: str, *parameters: Any) -> Any:
        ((value,),) = self.rows(sql, *parameters)
        return value

    def fails(self, sql: str, *parameters: Any) -> psycopg.Error:
        with pytest.raises(psycopg.Error) as caught:
            self.rows(sql, *parameters)
        return caught.value


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pgvector: needs a server with pgvector; left out where there is none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs pgvector is no part of a run on a server without it; scripts/debian13.sh has one with it."""
    needing = [item for item in items if item.get_closest_marker("pgvector")]
    if needing and not has_pgvector():
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


def has_pgvector() -> bool:
    """Whether the server that the tests use can create the extension."""
    try:
        pg_config = find_bindir(os.environ.get("PG_CONFIG")) / "pg_config"
    except ClusterError:
        return False
    done = subprocess.run([str(pg_config), "--sharedir"], capture_output=True, text=True, check=True)
    return (Path(done.stdout.strip()) / "extension" / "vector.control").is_file()


def admin(cluster: Cluster, sql: str) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    # Not below pytest's own directory, which the user postgres may not enter.
    with scratch_folder("tiny_dancer_ext_") as made:
        yield made


@pytest.fixture(scope="session")
def server(folder) -> Server:
    """PostgreSQL's own programs with an extension folder of this session's."""
    given = os.environ.get("PG_CONFIG")
    if given is None:
        ensure_packages()
    private = make_tree(folder / "installation", pg_config=given)
    found = postgres_install.find_server(str(private))
    postgres_install.install(found)
    return found


@pytest.fixture(scope="session")
def cluster(folder, server) -> Iterator[Cluster]:
    made = cluster_at(folder / "cluster", pg_config=server.pg_config)
    made.initialise()
    made.start(fsync=False)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def template(cluster) -> str:
    admin(cluster, f"CREATE DATABASE {TEMPLATE}")
    with psycopg.connect(cluster.dsn(TEMPLATE), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
            connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
    return TEMPLATE


@pytest.fixture
def new_database(cluster) -> Iterator[Callable[..., Database]]:
    made: list[Database] = []

    def new(template: str = "template1") -> Database:
        database = Database(cluster, f"extension_{next(_numbers)}")
        admin(cluster, f"CREATE DATABASE {database.name} TEMPLATE {template}")
        made.append(database)
        return database

    yield new
    for database in made:
        for connection in database.opened:
            connection.close()
        admin(cluster, f"DROP DATABASE {database.name} WITH (FORCE)")


@pytest.fixture
def db(new_database: Callable[..., Database], template: str) -> Database:
    """A database with the extension and nothing in it."""
    return new_database(template)


@pytest.fixture
def agents(db: Database) -> Database:
    """The same with the agents of the documents."""
    db.rows("SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['coding', 'reasoning'], 0.03, 500.0, 0.95)")
    db.rows("SELECT ruvector_register_agent('gpt-3.5-turbo', 'llm', ARRAY['general', 'fast'], 0.002, 150.0, 0.75)")
    return db


@pytest.fixture
def role(cluster) -> Iterator[Callable[..., str]]:
    """Makes login roles that are members of others; they vanish with the test's databases."""
    made: list[str] = []

    def new(*groups: str) -> str:
        name = f"role_{next(_numbers)}"
        admin(cluster, f"CREATE ROLE {name} LOGIN")
        for group in groups:
            admin(cluster, f"GRANT {group} TO {name}")
        made.append(name)
        return name

    yield new
    for name in made:
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute(f"DROP ROLE IF EXISTS {name}")
