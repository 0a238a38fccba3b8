"""What is learned, where many sessions write at once: nothing is skipped, nobody waits, no table is read as a whole."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.postgres.conftest import execute
from tests.postgres.test_transactions import run
from tests.store.model_suite import KIND, active, digest, features, put
from tests.store.suite import agent, decision, outcome
from tinydancer.errors import StoreError
from tinydancer.store.base import SHIPPED_MODEL
from tinydancer.store.migrations import load_migrations
from tinydancer.store.pg_connection import PsycopgConnection
from tinydancer.store.pg_migrations import migrate
from tinydancer.store.pg_queries import MIGRATIONS_FOLDER, QUERIES
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres

MODEL = digest(b"weights")
SAVE = f"result = store.save_ability_state({MODEL!r}, %d, %r)"
GRADED = "result = [row.quality for row in store.graded_features(%d, 100)]"
REPORT = """
from tinydancer.types import Outcome
store.insert_outcomes([Outcome(agent_name="a", decision_id="1", quality=%r, occurred_at=1.0)])
"""


@pytest.fixture
def graded(open_from_outside):
    """A store with a decision that has features."""
    store = open_from_outside()
    store.insert_agent(agent("a"))
    store.insert_decisions([decision("1", features=features(1))])
    return store


def qualities(store, after=0):
    return [row.quality for row in store.graded_features(after, 100)]


def test_no_outcome_is_passed_over_because_it_is_committed_late(plpy_dsn, graded):
    with psycopg.connect(plpy_dsn) as early, psycopg.connect(plpy_dsn) as late:
        run(early, REPORT % 0.25)  # draws its id and is not committed yet
        run(late, REPORT % 0.5)
        late.commit()
        graded.insert_outcomes([outcome("a", decision_id="1", quality=0.75)])
        assert qualities(graded) == []  # a reader that took the later ones would go on from them
        assert run(late, GRADED % 0) == []
        late.commit()
        early.commit()
        assert qualities(graded) == run(late, GRADED % 0) == [0.25, 0.5, 0.75]
        run(early, REPORT % 1.0)
        assert qualities(graded) == [0.25, 0.5, 0.75]
        assert run(early, GRADED % 0) == [0.25, 0.5, 0.75]  # its own comes when it is certain
        early.rollback()
    assert qualities(graded) == [0.25, 0.5, 0.75]


def test_a_reader_s_open_transaction_does_not_stop_it(plpy_dsn, graded):
    with psycopg.connect(plpy_dsn) as session:
        assert run(session, GRADED % 0) == []
        for _ in range(3):  # transactions of others that begin and end within this one
            graded.insert_outcomes([outcome("a", decision_id="1", quality=0.5)])
        assert run(session, GRADED % 0) == [0.5, 0.5, 0.5]
        assert qualities(graded) == [0.5, 0.5, 0.5]


def test_nobody_waits_to_keep_a_state(plpy_dsn, graded):
    with psycopg.connect(plpy_dsn) as first, psycopg.connect(plpy_dsn, autocommit=True) as second:
        second.execute("SET lock_timeout = '1s'")
        assert run(first, SAVE % (5, b"five")) is True
        assert run(first, SAVE % (6, b"six")) is True
        assert run(second, SAVE % (9, b"nine")) is False
        assert graded.save_ability_state(MODEL, 9, b"nine") is False
        first.commit()
        assert run(second, SAVE % (9, b"nine")) is True
        assert graded.ability_state(MODEL) == (9, b"nine")


def test_where_nothing_may_be_written_keeping_a_state_is_no_error(plpy_dsn, graded):
    assert graded.save_ability_state(MODEL, 1, b"one") is True
    with psycopg.connect(plpy_dsn) as session:
        for mode in ("READ ONLY", "ISOLATION LEVEL REPEATABLE READ", "ISOLATION LEVEL SERIALIZABLE"):
            session.execute(f"SET TRANSACTION {mode}")
            assert run(session, SAVE % (9, b"nine")) is False
            assert run(session, f"result = store.ability_state({MODEL!r})") == (1, b"one")
            session.commit()


def test_a_role_that_reads_sees_models_and_keeps_no_state(cluster, dsn, template, graded):
    put(graded, "mine")
    graded.activate_model(KIND, SHIPPED_MODEL)
    graded.insert_outcomes([outcome("a", decision_id="1", quality=0.5)])
    roles = ("reader", "router", "admin")
    for role in roles:
        execute(dsn, f"CREATE ROLE learning_{role} LOGIN IN ROLE tiny_dancer_{role}")
    try:
        for number, role in enumerate(roles, start=1):
            with PostgresStore.connect(dsn.replace("user=postgres", f"user=learning_{role}")) as store:
                assert (active(store), qualities(store)) == (SHIPPED_MODEL, [0.5])
                assert store.save_ability_state(MODEL, number, b"state") is (role != "reader")
                if role == "admin":
                    store.activate_model(KIND, "mine")
                    store.delete_model(KIND, "mine")
                    continue
                for change in (
                    lambda store=store: put(store, "other"),
                    lambda store=store: store.activate_model(KIND, "mine"),
                    lambda store=store: store.activate_model(KIND, SHIPPED_MODEL),
                    lambda store=store: store.activate_model(KIND, None),
                    lambda store=store: store.delete_model(KIND, "mine"),
                ):
                    with pytest.raises(StoreError, match="may not"):
                        change()
    finally:
        for role in roles:
            execute(dsn, f"DROP ROLE learning_{role}")


def test_the_tail_is_read_by_indexes_whatever_the_planner_believes(dsn, graded):
    execute(
        dsn,
        """
        INSERT INTO tiny_dancer.decisions (
            decision_id, decided_at, agent_id, objective, expected_quality, confidence, uncertainty, similarity_score,
            input_tokens, features)
        SELECT 'd' || i, now(), 1, 'cost', 0.5, 0.5, 0.5, 0.5, 10, '\\x0011' FROM generate_series(1, 20000) AS i;
        INSERT INTO tiny_dancer.outcomes (agent_id, decision_id, occurred_at, success, quality, quality_bin)
        SELECT 1, 'd' || i, now(), true, 0.5, 10 FROM generate_series(1, 20000) AS i;
        ANALYZE tiny_dancer.decisions, tiny_dancer.outcomes;
        """,
    )
    query = QUERIES["graded_features"]
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"PREPARE graded ({', '.join(query.types)}) AS {query.sql}")
        for mode in ("force_generic_plan", "force_custom_plan"):
            session.execute(f"SET plan_cache_mode = {mode}")
            for after, limit in ((19_990, 1000), (0, 100)):
                rows = session.execute(f"EXPLAIN ANALYZE EXECUTE graded ('default', {after}, {limit})").fetchall()
                plan = "\n".join(row[0] for row in rows)
                assert "Index Scan using outcomes_graded" in plan, plan
                assert not re.search(r"Seq Scan on (outcomes|decisions)|Sort|Hash", plan), plan
                looked_up = re.search(r"decisions_pkey.*loops=(\d+)", plan)
                assert looked_up is not None, plan
                assert int(looked_up[1]) <= limit


def test_a_new_database_equals_an_upgraded_one(cluster, empty_dsn):
    steps = load_migrations(MIGRATIONS_FOLDER)
    name = empty_dsn.split("dbname=")[1].split()[0]
    dumps = []
    for parts in (steps[:1], steps):
        execute(empty_dsn, "DROP SCHEMA IF EXISTS tiny_dancer CASCADE")
        connection = PsycopgConnection(empty_dsn)
        assert migrate(connection, parts) == len(parts)
        assert migrate(connection, steps) == len(steps) - len(parts)
        connection.close()
        schema = cluster.program("pg_dump", "--schema-only", "--schema=tiny_dancer", name).stdout
        # Recent versions guard a dump by a key drawn anew each time.
        dumps.append([line for line in schema.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))])
    assert dumps[0] == dumps[1]
    assert any("outcomes_graded" in line for line in dumps[0])
