"""The doors, each opened for the session when a test first asks for it; the server is the one of tests/extension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conformance.cases import Case, Group
from tests.conformance.doors import Answer, CommandDoor, Door, PythonDoor, SqlDoor

# Fixtures are found by their names in this module.
from tests.extension.conftest import admin, cluster, folder, server, template  # noqa: F401
from tinydancer.embedding.static import StaticEmbedder


class Replay:
    """A door with what it has answered so far: a group is prepared with its first case, a case is asked once."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._prepared: set[str] = set()
        self._answers: dict[str, Answer] = {}

    def answer(self, group: Group, case: Case) -> Answer:
        if group.name not in self._prepared:
            self.door.prepare(group)
            self._prepared.add(group.name)
        if case.name not in self._answers:
            self._answers[case.name] = self.door.answer(group, case)
        return self._answers[case.name]


@pytest.fixture(scope="session")
def static_embedder() -> StaticEmbedder:
    return StaticEmbedder()


@pytest.fixture(scope="session")
def new_dsn(cluster) -> Callable[[str, str], str]:  # noqa: F811
    """Makes a database from a template; its address."""

    def make(name: str, template: str) -> str:  # noqa: F811
        admin(cluster, f"CREATE DATABASE {name} TEMPLATE {template}")
        dsn: str = cluster.dsn(name)
        return dsn

    return make


def address(dsn: str) -> str:
    """The database as a user names it in ``--store``."""
    return f"postgresql:///?{urlencode(conninfo_to_dict(dsn))}"


@pytest.fixture(scope="session")
def open_door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, static_embedder: StaticEmbedder
) -> Iterator[Callable[[str], Replay]]:
    """The door of that name."""
    opened: dict[str, Replay] = {}

    def make(name: str) -> Door:
        path: Path = tmp_path_factory.mktemp(name)
        if name == "python-sqlite":
            return PythonDoor(path / "store.db", static_embedder)
        if name == "cli":
            return CommandDoor(path, static_embedder)
        new_dsn = request.getfixturevalue("new_dsn")
        if name == "python-postgres":  # a database that never heard of the extension
            return PythonDoor(address(new_dsn("conformance_plain", "template1")), static_embedder)
        dsn = new_dsn(f"conformance_{name.replace('-', '_')}", request.getfixturevalue("template"))
        connection = psycopg.connect(dsn, autocommit=True)
        if name == "sql":
            return SqlDoor(connection)
        return SqlDoor(connection, as_json=True, outside=PythonDoor(address(dsn), static_embedder))

    def open_by_name(name: str) -> Replay:
        if name not in opened:
            opened[name] = Replay(make(name))
        return opened[name]

    yield open_by_name
    for replay in opened.values():
        replay.door.close()
