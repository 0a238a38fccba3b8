"""Brings a SQLite file to the current schema, and binds it to one vector space.

In: a `Database` and the numbered files of ``sql/sqlite/migrations``. Out: a file whose schema is the current one. Each
migration is applied once, in one transaction, while the file is locked: of two processes that open an old file at the
same time one migrates and the other finds it done. A file that was written by a newer version is left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinydancer.errors import StoreCorruptError, StoreError, StoreVersionError
from tinydancer.store.connection import Connection, Database
from tinydancer.store.queries import SQL_FOLDER, load_queries
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

MIGRATIONS_FOLDER = SQL_FOLDER / "sqlite" / "migrations"
APPLICATION_ID = 0x54444E43
"""``TDNC`` in the header of the file, set by the first migration."""

_QUERIES = load_queries("sqlite/queries/schema.sql")
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; ``sha256`` is of the file, so that an edit of a released step is noticed."""

    number: int
    name: str
    sql: str
    sha256: str


def load_migrations(folder: Path = MIGRATIONS_FOLDER) -> tuple[Migration, ...]:
    """The migrations of a folder in order; their numbers are 1, 2, 3 and so on.

    Raises
    ------
    StoreError
        If a number is missing or repeated.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise StoreError(f"The migration {path.name} is misnamed; expected a name such as 0002_add_routes.sql.")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found.append(Migration(int(match[1]), match[2], content.decode("utf-8"), digest))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"The migrations in {folder} are not numbered 0001, 0002 and so on without a gap.")
    return tuple(found)


def open_database(
    path: str | os.PathLike[str],
    *,
    space: EmbeddingSpace | None,
    clock: Callable[[], float],
    timeout_s: float,
) -> tuple[Database, EmbeddingSpace]:
    """A store's file, made or migrated where necessary, and the space it is bound to.

    With `space` None an existing file's own is taken, and `MINILM_SPACE` for a new one.

    Raises
    ------
    SpaceMismatchError
        If the file is bound to another space than `space`.
    StoreVersionError
        If a newer version wrote it.
    StoreError
        If it cannot be opened, or is a SQLite file of something else; see also the errors below `StoreError`.
    """
    database = Database(path, timeout_s=timeout_s)
    try:
        migrate(database, load_migrations(), clock=clock)
        found = _stored_space(database)
        if found is None:
            made = space or MINILM_SPACE
            row = (made.name, made.dim, clock())
            database.write(lambda connection: connection.execute(_QUERIES["put_space"], row), durable=True)
            found = _stored_space(database)  # another process may have been first
            assert found is not None
        if space is not None:
            space.require(found, f"The store {database.path}")
    except BaseException:
        database.close()
        raise
    return database, found


def read_space(path: str | os.PathLike[str]) -> EmbeddingSpace | None:
    """The space an existing file is bound to; None if there is no file yet. Changes nothing."""
    if not Path(path).is_file() or Path(path).stat().st_size == 0:
        return None
    database = Database(path)
    try:
        return _stored_space(database) if _is_store(database) else None
    finally:
        database.close()


def migrate(database: Database, migrations: Sequence[Migration], *, clock: Callable[[], float]) -> None:
    """Applies what is missing, one transaction each."""
    ours = _is_store(database)
    if not database.in_memory:
        _use_write_ahead_log(database)
    applied: dict[int, str] = dict(database.fetch(_QUERIES["applied_migrations"])) if ours else {}
    while _check(applied, migrations, database.path) < len(migrations):
        applied = database.write(lambda connection: _apply_next(connection, migrations, clock()), durable=True)


def _apply_next(connection: Connection, migrations: Sequence[Migration], now: float) -> dict[int, str]:
    connection.execute(_QUERIES["create_schema_migrations"])
    applied: dict[int, str] = dict(connection.execute(_QUERIES["applied_migrations"]).fetchall())
    if len(applied) < len(migrations):  # else another process was first
        step = migrations[len(applied)]
        for statement in _statements(step.sql):
            connection.execute(statement)
        connection.execute(_QUERIES["record_migration"], (step.number, step.name, step.sha256, now))
        applied[step.number] = step.sha256
    return applied


def _statements(script: str) -> list[str]:
    """The statements of a script; the module's own ``executescript`` would commit between them."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise StoreError(f"A migration ends with an unfinished statement: {pending.strip()[:80]!r}.")
    return statements


def _check(applied: dict[int, str], migrations: Sequence[Migration], path: str) -> int:
    """How many are applied; `StoreVersionError` if they are not a beginning of ours."""
    if len(applied) > len(migrations):
        raise StoreVersionError(
            f"The store {path} has schema {max(applied)}; this Tiny Dancer knows up to {len(migrations)}.",
            hint="It was written by a newer version: upgrade this one.",
        )
    for migration in migrations[: len(applied)]:
        if applied.get(migration.number) != migration.sha256:
            raise StoreVersionError(
                f"The store {path} was made by another version of migration {migration.number:04}_{migration.name}.",
                hint="It comes from an unreleased build: open it with that one, or start a new store.",
            )
    return len(applied)


def _is_store(database: Database) -> bool:
    """Whether the file holds our tables; False for an empty one, `StoreError` for somebody else's."""
    tables, records = database.fetch(_QUERIES["has_tables"])[0]
    identity = database.fetch("PRAGMA application_id")[0][0]
    if tables and (identity != APPLICATION_ID or not records):
        raise StoreError(
            f"{database.path} is a SQLite database, but not a store of Tiny Dancer.", hint="Name another file."
        )
    return bool(tables)


def _use_write_ahead_log(database: Database) -> None:
    # Asked by several processes at once, SQLite answers "busy" without waiting.
    if database.fetch("PRAGMA journal_mode")[0][0] != "wal":
        database.fetch("PRAGMA journal_mode=WAL")


def _stored_space(database: Database) -> EmbeddingSpace | None:
    rows = database.fetch(_QUERIES["get_space"])
    if not rows:
        return None
    try:
        return EmbeddingSpace(*rows[0])
    except TypeError as error:
        raise StoreCorruptError(f"The store {database.path} does not say which vector space it is in.") from error
