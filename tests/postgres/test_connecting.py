"""Connection strings, passwords, migrations: what happens before the first agent."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import traceback

import pytest

from tests.postgres.conftest import execute
from tests.store.suite import agent
from tinydancer.errors import InvalidInputError, SpaceMismatchError, StoreError, StoreVersionError
from tinydancer.store.migrations import Migration, load_migrations
from tinydancer.store.pg_connection import PlpyConnection, PsycopgConnection
from tinydancer.store.pg_migrations import installation_sql, migrate
from tinydancer.store.pg_queries import MIGRATIONS_FOLDER, ROLES_FILE, load_typed_queries
from tinydancer.store.postgres import PostgresStore, open_postgres
from tinydancer.types import EmbeddingSpace

pytestmark = pytest.mark.postgres
SECRET = "hunter2secret"


def everything_said(error: BaseException) -> str:
    said = "".join(traceback.format_exception(error))
    return said + repr(error) + str(vars(error)) + repr(error.__cause__)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:{{port}}/postgres",  # wrong password
        f"postgresql://user:x@{SECRET}@127.0.0.1:{{port}}/postgres",  # an @ that is not encoded
        f"postgresql://user:{SECRET}/x@127.0.0.1:{{port}}/postgres",  # a slash that is not encoded
        f"postgresql://user:{SECRET}?x@127.0.0.1/postgres",
        f"postgresql://user:{SECRET}@127.0.0.1:{{port}}x/postgres",
        f"postgresql://user:{SECRET}@127.0.0.1:1/postgres",  # nobody listens
        f"postgresql://user:{SECRET}@127.0.0.1:{{port}}/postgres?nonsense=1",
        f"host=127.0.0.1 port={{port}} password={SECRET} nonsense",
        f"host=/nowhere password={SECRET}",
        f"nonsense {SECRET}",
    ],
)
def test_no_error_and_no_log_holds_the_password(cluster, dsn, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises((StoreError, InvalidInputError)) as caught:
        open_postgres(dsn.format(port=cluster.port))
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text
    assert caught.value.hint


def test_a_store_that_loses_its_server_says_no_password(cluster, dsn, caplog):
    caplog.set_level(logging.DEBUG)
    execute(dsn, f"CREATE ROLE test_password LOGIN SUPERUSER PASSWORD '{SECRET}'")
    try:
        tcp = cluster.tcp_dsn(dsn.split("dbname=")[1].split()[0], user="test_password")
        with PostgresStore.connect(f"{tcp} password={SECRET}", timeout_s=1.0) as store:
            store.insert_agent(agent("a"))
            assert SECRET not in repr(store) + repr(store._connection) + str(vars(store))
            execute(dsn, "ALTER ROLE test_password NOLOGIN")
            execute(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'test_password'")
            with pytest.raises(StoreError) as caught:
                store.list_agents()
        assert SECRET not in everything_said(caught.value)
        assert SECRET not in caplog.text
    finally:
        execute(dsn, "DROP ROLE test_password")


def test_what_is_wrong_with_the_address_is_said(cluster):
    with pytest.raises(StoreError, match="database does not exist") as caught:
        PostgresStore.connect(cluster.dsn("not_there"))
    assert "createdb" in caught.value.hint
    with pytest.raises(StoreError, match="refuses the user or the password"):
        PostgresStore.connect(f"host=127.0.0.1 port={cluster.port} user=postgres password=wrong dbname=postgres")
    with pytest.raises(StoreError, match="does not answer"):
        PostgresStore.connect("host=127.0.0.1 port=1 dbname=x")


def test_an_empty_database_is_made_ready_once(empty_dsn):
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            PostgresStore.connect(empty_dsn).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    steps = load_migrations(MIGRATIONS_FOLDER)
    assert execute(empty_dsn, "SELECT number, sha256 FROM tiny_dancer.schema_migrations") == [
        (step.number, step.sha256) for step in steps
    ]
    assert execute(empty_dsn, "SELECT space_name, space_dim FROM tiny_dancer.meta") == [("all-MiniLM-L6-v2", 384)]


def test_the_extensions_script_makes_the_same_tables(empty_dsn):
    execute(empty_dsn, "CREATE SCHEMA tiny_dancer; " + installation_sql())
    execute(empty_dsn, ROLES_FILE.read_text())
    execute(empty_dsn, ROLES_FILE.read_text())
    connection = PsycopgConnection(empty_dsn)
    assert migrate(connection) == 0
    with PostgresStore(connection) as store:
        store.insert_agent(agent("a"))


def test_every_table_is_held_by_policies(dsn):
    tables = execute(
        dsn,
        """
        SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity, count(p.oid)
        FROM pg_class AS c
        LEFT JOIN pg_policy AS p ON p.polrelid = c.oid
        WHERE c.relnamespace = 'tiny_dancer'::regnamespace AND c.relkind = 'r'
        GROUP BY 1, 2 ORDER BY 1
        """,
    )
    of_all_tenants = {"meta", "schema_migrations"}
    assert {name for name, held, policies in tables if not (held and policies == 1)} == of_all_tenants
    assert len(tables) == 22


def test_a_migration_that_fails_leaves_nothing(empty_dsn):
    steps = load_migrations(MIGRATIONS_FOLDER)
    later = len(steps) + 1
    broken = (*steps, Migration(later, "broken", "CREATE TABLE tiny_dancer.half (); SELECT 1 / 0;", "0" * 64))
    connection = PsycopgConnection(empty_dsn)
    with pytest.raises(Exception, match="division by zero"):
        migrate(connection, broken)
    assert execute(empty_dsn, "SELECT to_regnamespace('tiny_dancer')") == [(None,)]
    assert migrate(connection, steps) == len(steps)
    assert migrate(connection, (*steps, Migration(later, "more", "CREATE TABLE tiny_dancer.more ();", "1" * 64))) == 1
    assert migrate(connection, (*steps, Migration(later, "more", "", "1" * 64))) == 0
    with pytest.raises(StoreVersionError, match=rf"schema {later}; this Tiny Dancer knows up to {len(steps)}"):
        PostgresStore.connect(empty_dsn)


def test_other_databases_are_left_alone(empty_dsn, dsn):
    execute(empty_dsn, "CREATE SCHEMA tiny_dancer")
    with pytest.raises(StoreError, match="not ours"):
        PostgresStore.connect(empty_dsn)
    execute(dsn, "UPDATE tiny_dancer.schema_migrations SET sha256 = 'x'")
    with pytest.raises(StoreVersionError, match="another version of migration 0001_initial"):
        PostgresStore.connect(dsn)


def test_with_the_extension_the_extension_migrates(dsn):
    execute(
        dsn,
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
        " VALUES (99999, 'tiny_dancer', 10, 'tiny_dancer'::regnamespace, false, '0')",
    )
    PostgresStore.connect(dsn).close()
    steps = load_migrations(MIGRATIONS_FOLDER)
    newer = (*steps, Migration(len(steps) + 1, "more", "SELECT 1", "1" * 64))
    with pytest.raises(StoreVersionError, match="extension") as caught:
        migrate(PsycopgConnection(dsn), newer)
    assert "ALTER EXTENSION" in caught.value.hint


def test_without_the_tables_the_hint_says_how_to_get_them(empty_dsn):
    connection = PsycopgConnection(empty_dsn)
    with pytest.raises(StoreVersionError) as caught:
        PostgresStore(connection)
    assert "PostgresStore.connect" in caught.value.hint
    connection.close()


def test_another_space_is_refused(dsn):
    with pytest.raises(SpaceMismatchError, match=r"all-MiniLM-L6-v2.*384.*other.*8"):
        PostgresStore.connect(dsn, space=EmbeddingSpace("other", 8))
    with PostgresStore.connect(dsn, space=None) as store:
        assert store.space.dim == 384


def test_a_closed_store_says_so(open_from_outside):
    store = open_from_outside()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.list_agents()


def _register_in_child(store: PostgresStore, name: str) -> None:
    store.insert_agent(agent(name))
    os._exit(0 if len(store.list_agents()) >= 2 else 1)


def test_a_store_works_on_both_sides_of_a_fork(open_from_outside):
    store = open_from_outside()
    store.insert_agent(agent("parent"))
    children = [
        multiprocessing.get_context("fork").Process(target=_register_in_child, args=(store, f"c{i}")) for i in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert [a.name for a in store.list_agents()] == ["c0", "c1", "parent"]


def test_one_tenant_per_connection(open_from_outside):
    store = open_from_outside("one")
    with pytest.raises(StoreError, match="one tenant"):
        PostgresStore(store._connection, tenant="two")


def test_a_query_that_is_wrongly_typed_is_refused(tmp_path):
    file = tmp_path / "queries.sql"
    for text in (
        "-- name: a(text)\n-- Described.\nSELECT 1;",
        "-- name: a()\nSELECT 1;",
        "-- name: a()\n-- Described.\n",
        "-- name: a()\n-- Described.\nSELECT 1;\n-- name: a()\n-- Described.\nSELECT 2;",
    ):
        file.write_text(text)
        with pytest.raises(StoreError, match="query 'a'"):
            load_typed_queries(file)


def test_both_connections_offer_the_same():
    public = {name for name in vars(PlpyConnection) if not name.startswith("_")}
    assert public <= set(vars(PsycopgConnection))
