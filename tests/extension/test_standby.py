"""A streaming standby: reads and routes what the primary has, records nothing, and says so where it is asked to."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import psycopg
import pytest

from pg_cluster import Cluster, cluster_at, scratch_folder
from tests.extension.conftest import Database
from tinydancer.config import Settings
from tinydancer.errors import StoreReadOnlyError
from tinydancer.service import TinyDancer
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.slow

NAME = "standby_test"
CATCH_UP_S = 60.0


@pytest.fixture(scope="module")
def primary(cluster, template) -> Iterator[Database]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {NAME} TEMPLATE {template}")
    made = Database(cluster, NAME)
    made.rows("SELECT ruvector_register_agent('coder', 'llm', ARRAY['coding'], 0.03, 500.0, 0.95)")
    made.rows("SELECT ruvector_register_agent('talker', 'llm', ARRAY['general'], 0.002, 150.0, 0.75)")
    yield made
    for connection in made.opened:
        connection.close()
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture(scope="module")
def standby_cluster(primary, server) -> Iterator[Cluster]:
    with scratch_folder("tiny_dancer_standby_") as folder:
        made = cluster_at(folder / "cluster", pg_config=server.pg_config)
        if made.user is not None:
            shutil.chown(folder, made.user)
        primary.cluster.program("pg_basebackup", "-D", made.data, "-c", "fast", "--write-recovery-conf")
        made.start(fsync=False, settings={"primary_conninfo": primary.cluster.dsn(), "hot_standby": "on"})
        yield made


@pytest.fixture
def standby(primary, standby_cluster) -> Iterator[Database]:
    """The same database on the standby, which has all that was committed on the primary until now."""
    made = Database(standby_cluster, NAME)
    assert made.one("SELECT pg_is_in_recovery()") is True
    catch_up(primary, made)
    yield made
    for connection in made.opened:
        connection.close()


def catch_up(primary: Database, standby: Database) -> None:
    wanted = primary.one("SELECT pg_current_wal_lsn()::text")
    deadline = time.monotonic() + CATCH_UP_S
    while not standby.one("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", wanted):
        assert time.monotonic() < deadline, "the standby does not follow"
        time.sleep(0.02)


def test_routes_as_the_primary_does(primary, standby):
    for sql in (
        "SELECT agent_name, expected_quality, decision_id IS NULL FROM ruvector_route('Write a function', %s)",
        "SELECT agent_name, expected_quality, decision_id IS NULL FROM ruvector_batch_route(ARRAY['Write', 'Hi'], %s)",
        "SELECT d->>'agent_name', d->>'expected_quality', d->>'decision_id' IS NULL "
        "FROM ruvector_route(ruvector_embed('Write a function'), %s) AS d",
    ):
        for objective in ("cost", "quality", "balanced"):
            there, here = primary.rows(sql, objective), standby.rows(sql, objective)
            assert [row[:-1] for row in here] == [row[:-1] for row in there]
            assert not any(row[-1] for row in there)  # the primary records
            assert all(row[-1] for row in here)  # a standby cannot, and says so by the missing id
    for sql in ("SELECT * FROM ruvector_list_agents()", "SELECT * FROM ruvector_find_agents_by_capability('coding')",
                "SELECT ruvector_get_agent('coder')"):  # fmt: skip
        assert standby.rows(sql) == primary.rows(sql)


def test_changes_on_the_primary_reach_an_open_session(primary, standby):
    names = "SELECT name FROM ruvector_list_agents()"
    best = "SELECT agent_name FROM ruvector_route('Write a function', 'quality', on_no_match := 'null')"
    assert (standby.one(best), standby.rows(names)) == ("coder", [("coder",), ("talker",)])
    primary.rows("SELECT ruvector_register_agent('better', 'llm', ARRAY['coding'], 0.03, 500.0, 0.99)")
    catch_up(primary, standby)
    assert standby.one(best) == "better"
    primary.rows("SELECT ruvector_update_agent_metrics('better', 400.0, true, 0.5)")
    primary.rows("SELECT ruvector_remove_agent('better')")
    catch_up(primary, standby)
    assert (standby.one(best), standby.rows(names)) == ("coder", [("coder",), ("talker",)])
    primary.rows("SELECT ruvector_update_agent_metrics('coder', 250.0, true, 0.9)")
    catch_up(primary, standby)
    assert standby.one("SELECT total_requests FROM ruvector_list_agents() WHERE name = 'coder'") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ruvector_register_agent('new', 'llm', ARRAY['x'], 1, 1, 0.5)",
        "SELECT ruvector_update_agent('coder', '{\"quality_score\": 0.5}')",
        "SELECT ruvector_update_agent_metrics('coder', 450.0, true, 0.92)",
        "SELECT ruvector_set_agent_active('coder', false)",
        "SELECT ruvector_remove_agent('coder')",
        "SELECT ruvector_clear_agents()",
    ],
)
def test_changes_are_refused_and_the_session_goes_on(standby, sql):
    assert standby.fails(sql).sqlstate == "25006"
    assert standby.one("SELECT agent_name FROM ruvector_route('Write a function', 'quality')") == "coder"


def test_feedback_is_refused(primary, standby):
    decision = primary.one("SELECT decision_id FROM ruvector_route('Write a function')")
    catch_up(primary, standby)
    assert standby.fails("SELECT ruvector_feedback(%s, quality := 0.5)", decision).sqlstate == "25006"


def test_the_store_from_outside(standby):
    with PostgresStore.connect(standby.dsn) as store:
        assert [agent.name for agent in store.list_agents()] == ["coder", "talker"]
        with pytest.raises(StoreReadOnlyError):
            store.delete_agent("coder")
        with pytest.raises(StoreReadOnlyError):
            TinyDancer(store).route("Write a function", "quality")
        reading = TinyDancer(store, settings=Settings(record_decisions=False))
        assert reading.route("Write a function", "quality").agent_name == "coder"


def test_an_open_session_records_after_the_promotion(standby):
    """The last test of this file: the standby is one no longer."""
    sql = "SELECT agent_name, decision_id FROM ruvector_route('Write a function', 'quality')"
    assert standby.rows(sql) == [("coder", None)]
    assert standby.one("SELECT pg_promote()") is True
    ((agent, decision),) = standby.rows(sql)
    assert agent == "coder"
    assert standby.one("SELECT ruvector_feedback(%s, quality := 0.5)", decision) is True
