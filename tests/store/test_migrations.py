"""Migrations: numbered, frozen once released, applied once each; a new file equals an upgraded one."""

from __future__ import annotations

import hashlib
import shutil
import threading

import pytest

from tinydancer.errors import StoreError, StoreVersionError
from tinydancer.store.connection import Database
from tinydancer.store.migrations import MIGRATIONS_FOLDER, load_migrations, migrate
from tinydancer.store.sqlite import SqliteStore

TABLES = {
    "abilities", "agent_histograms", "agent_stats", "agents", "breakers", "budget_alerts", "budget_periods",
    "budget_reservations", "budgets", "candidate_routings", "candidates", "decisions", "experiments", "meta", "models",
    "outcomes", "route_limits", "route_utterances", "routes", "schema_migrations", "tenants",
}  # fmt: skip
ADD_AGENT = "INSERT INTO agents VALUES (1, 't', 'a', 'llm', '[]', '{}', 1, 1, 1, 1, '{}', NULL, 1, 1, NULL)"
SECOND = """
-- A step as a later version might have it.
ALTER TABLE agents ADD COLUMN region TEXT;
CREATE INDEX agents_by_region ON agents (tenant, region);
CREATE TRIGGER agents_marked AFTER INSERT ON agents BEGIN
    UPDATE agents SET region = 'eu; really' WHERE id = new.id;
END;
UPDATE agents SET region = 'unknown';
"""


def schema_of(database):
    """Everything that makes up the schema, and the identity of the file."""
    objects = database.fetch("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
    applied = database.fetch("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    return objects, applied, database.fetch("PRAGMA application_id"), database.fetch("PRAGMA user_version")


@pytest.fixture
def folder(tmp_path):
    """The released migrations and one more."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in MIGRATIONS_FOLDER.glob("*.sql"):
        shutil.copy(path, folder)
    (folder / f"{len(load_migrations()) + 1:04}_add_regions.sql").write_text(SECOND)
    return folder


def test_released_migrations_are_frozen():
    frozen = {}
    for line in (MIGRATIONS_FOLDER / "frozen.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            digest, name = line.split()
            frozen[name] = digest
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in MIGRATIONS_FOLDER.glob("*.sql")}
    for name, digest in frozen.items():
        assert found.get(name) == digest, f"{name} was released and must stay as it is; add a new migration instead"
    assert set(found) == set(frozen), "a migration is frozen with the release that it goes out with: see frozen.txt"


def test_every_table_is_there_strict_and_with_a_tenant(tmp_path):
    with SqliteStore(tmp_path / "x.db") as store:
        fetch = store._database.fetch
        tables = {row[1]: row for row in fetch("PRAGMA table_list") if not row[1].startswith("sqlite_")}
        assert set(tables) == TABLES
        for name, row in tables.items():
            assert row[5] == 1, f"{name} is not STRICT"
            columns = {column[1] for column in fetch(f"PRAGMA table_info({name})")}
            assert ("tenant" in columns) == (name not in {"meta", "schema_migrations"}), name


def test_a_new_file_equals_an_upgraded_one(tmp_path, folder):
    steps = load_migrations(folder)
    for released in range(1, len(steps)):
        upgraded, fresh = Database(tmp_path / f"old-{released}.db"), Database(tmp_path / f"new-{released}.db")
        migrate(upgraded, steps[:released], clock=lambda: 1.0)
        upgraded.write(lambda c: c.execute("INSERT INTO tenants VALUES ('t', 1, 0)"), durable=True)
        upgraded.write(lambda c: c.execute(ADD_AGENT), durable=True)
        migrate(upgraded, steps, clock=lambda: 2.0)
        migrate(fresh, steps, clock=lambda: 3.0)
        assert schema_of(upgraded) == schema_of(fresh)
        assert upgraded.fetch("SELECT name, region FROM agents") == [("a", "unknown")]
        assert upgraded.fetch("SELECT applied_at FROM schema_migrations") == [(1.0,)] * released + [(2.0,)] * (
            len(steps) - released
        )
        upgraded.close()
        fresh.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, folder):
    steps = load_migrations()
    database = Database(tmp_path / "x.db")
    migrate(database, steps, clock=lambda: 1.0)
    before = schema_of(database)
    (file,) = folder.glob("*_add_regions.sql")
    file.write_text("CREATE TABLE half (x INTEGER);\nINSERT INTO absent VALUES (1);\n")
    with pytest.raises(StoreError, match="no such table: absent"):
        migrate(database, load_migrations(folder), clock=lambda: 1.0)
    file.write_text("CREATE TABLE half (x INTEGER);\nCREATE TABLE unfinished (\n")
    with pytest.raises(StoreError, match="unfinished statement"):
        migrate(database, load_migrations(folder), clock=lambda: 1.0)
    assert schema_of(database) == before
    database.close()
    SqliteStore(tmp_path / "x.db").close()


def test_a_file_upgraded_by_a_newer_version_is_left_alone(tmp_path, folder):
    database = Database(tmp_path / "x.db")
    migrate(database, load_migrations(folder), clock=lambda: 1.0)
    database.close()
    with pytest.raises(StoreVersionError, match=f"schema {len(load_migrations(folder))}"):
        SqliteStore(tmp_path / "x.db")


def test_threads_that_upgrade_at_once_apply_each_step_once(tmp_path, folder):
    steps = load_migrations(folder)
    first = Database(tmp_path / "x.db")
    migrate(first, steps[:1], clock=lambda: 1.0)
    barrier = threading.Barrier(4)
    errors = []

    def upgrade():
        database = Database(tmp_path / "x.db")
        try:
            barrier.wait()
            migrate(database, steps, clock=lambda: 2.0)
        except BaseException as error:
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert first.fetch("SELECT count(*) FROM schema_migrations") == [(len(steps),)]
    first.close()


@pytest.mark.parametrize(("name", "message"), [("0009_gap.sql", "without a gap"), ("more.sql", "misnamed")])
def test_migrations_are_numbered(folder, name, message):
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(StoreError, match=message):
        load_migrations(folder)
