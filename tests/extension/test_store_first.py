"""A store from outside made the tables before anybody created the extension: it takes them over, rows and all."""

from __future__ import annotations

import psycopg
import pytest

from tinydancer.service import TinyDancer
from tinydancer.store.postgres import PostgresStore

MEMBERS = """
    SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'tiny_dancer' ORDER BY 1
"""
CONFIGURATION = """
    SELECT array_agg(c::regclass::text ORDER BY c::regclass::text) FROM pg_extension, unnest(extconfig) AS c
    WHERE extname = 'tiny_dancer'
"""


@pytest.fixture
def used(new_database):
    """A database with what the Python API left there."""
    db = new_database()
    with PostgresStore.connect(db.dsn) as store:
        service = TinyDancer(store)
        service.register_agent("coder", "llm", ["coding"], 0.01, 100.0, 0.9)
        service.update_agent_metrics("coder", 250.0, True, 0.5)
    return db


def test_the_extension_takes_the_tables_over(used, db, new_database):
    used.rows("CREATE EXTENSION tiny_dancer CASCADE")
    assert used.rows("SELECT name, total_requests FROM ruvector_list_agents()") == [("coder", 1)]
    decision = used.one("SELECT decision_id FROM ruvector_route('Write a function')")
    with PostgresStore.connect(used.dsn) as store:  # from outside as well, still
        assert store.get_decision(decision).agent_name == "coder"
    # Nothing tells the database from one where the extension made the tables.
    other = new_database()
    other.rows("CREATE EXTENSION tiny_dancer CASCADE")
    assert used.rows(MEMBERS) == other.rows(MEMBERS)
    assert used.one(CONFIGURATION) == other.one(CONFIGURATION)
    used.rows("DROP EXTENSION tiny_dancer")
    assert used.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'tiny_dancer'") == []


def test_dump_and_restore_of_what_was_taken_over(used, new_database):
    used.rows("CREATE EXTENSION tiny_dancer CASCADE")
    used.connection.close()
    target, cluster = new_database(), used.cluster
    archive = cluster.directory / "taken_over.dump"
    cluster.program("pg_dump", "-Fc", "-f", archive, used.name)
    cluster.program("pg_restore", "--exit-on-error", "-d", target.name, archive)
    archive.unlink()
    assert target.rows("SELECT name, total_requests FROM ruvector_list_agents()") == [("coder", 1)]


def test_tables_of_somebody_else_are_left_alone(new_database, role):
    db, stranger = new_database(), role()
    db.rows(f"GRANT CREATE ON DATABASE {db.name} TO {stranger}")
    try:
        PostgresStore.connect(db.cluster.dsn(db.name, user=stranger)).close()
        error = db.fails("CREATE EXTENSION tiny_dancer CASCADE")
        assert (error.sqlstate, stranger in str(error)) == ("42501", True)
        assert db.one("SELECT count(*) FROM pg_extension WHERE extname = 'tiny_dancer'") == 0
        db.rows(f"REASSIGN OWNED BY {stranger} TO postgres")
        db.rows("CREATE EXTENSION tiny_dancer CASCADE")
    finally:
        db.rows(f"DROP OWNED BY {stranger}")


def test_a_schema_of_that_name_that_is_not_ours(new_database):
    db = new_database()
    db.rows("CREATE SCHEMA tiny_dancer CREATE TABLE diary (line text)")
    error = db.fails("CREATE EXTENSION tiny_dancer CASCADE")
    assert isinstance(error, psycopg.errors.DuplicateSchema)
    assert db.rows("SELECT * FROM tiny_dancer.diary") == []
