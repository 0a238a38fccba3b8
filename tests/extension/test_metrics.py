"""Reports of outcomes: those with nothing wrong in them never leave SQL, and nobody can tell, except by the clock."""

from __future__ import annotations

import math
import random
import threading
from pathlib import Path

import psycopg
import pytest

from tinydancer.learn import FASTEST_BUCKET_MS, LATENCY_GROWTH, latency_bucket, quality_bin, stats_of
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_rows import outcome_row
from tinydancer.store.postgres import PostgresStore
from tinydancer.types import ABSURD_MS, Outcome

REPORT = "SELECT ruvector_update_agent_metrics('gpt-4', %s, %s, %s)"
SESSIONS = 16
EACH = 100


def around(value: float) -> list[float]:
    """A number and the nearest below and above."""
    return [math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)]


def computed(db, function: str, values: list[float]) -> list[int]:
    sql = f"SELECT array_agg({function}(v) ORDER BY n) FROM unnest(%s::float8[]) WITH ORDINALITY AS given (v, n)"
    return list(db.one(sql, values))


def test_latency_buckets_are_those_of_learn(db):
    chance = random.Random(40_001)
    values = [0.0, ABSURD_MS, *around(FASTEST_BUCKET_MS), 1e-300, *map(float, range(1, 1001))]
    values += [10 ** chance.uniform(-4, 9) for _ in range(10_000)]
    # The upper end of each bucket, and the two places beside it where rounding to nine digits changes its mind.
    for bucket in range(1, 1397):
        for exponent in (bucket - 5e-10, bucket, bucket + 5e-10):
            values += around(FASTEST_BUCKET_MS * LATENCY_GROWTH**exponent)
    values = [value for value in values if value <= ABSURD_MS]
    expected = [latency_bucket(value) for value in values]
    assert set(expected) == set(range(1397))
    assert computed(db, "tiny_dancer._latency_bucket", values) == expected
    assert db.one("SELECT tiny_dancer._latency_bucket(NULL)") is None


def test_quality_bins_are_those_of_learn(db):
    chance = random.Random(40_002)
    values = [chance.random() for _ in range(10_000)]
    values += [value for k in range(21) for edge in (k / 20, k / 20 - 5e-11) for value in around(edge)]
    values = [value for value in values if 0.0 <= value <= 1.0]
    expected = [quality_bin(value) for value in values]
    assert set(expected) == set(range(21))
    assert computed(db, "tiny_dancer._quality_bin", values) == expected
    assert db.one("SELECT tiny_dancer._quality_bin(NULL)") is None


def test_rows_are_those_of_the_store(agents):
    chance = random.Random(40_003)
    given = [(None, True, None), (0.0, False, 0.0), (ABSURD_MS, True, 1.0), (None, False, None), (450.0, True, None)]
    given += [(chance.uniform(0, 9000), chance.random() < 0.8, chance.random()) for _ in range(50)]
    outcomes = [
        Outcome(agent_name="gpt-4", occurred_at=0.0, latency_ms=ms, success=success, quality=quality)
        for ms, success, quality in given
    ]
    for report in given:
        assert agents.one(REPORT, *report) is True
    columns = "success, quality, quality_bin, latency_ms, latency_bucket"
    expected = [outcome_row(outcome)[3:8] for outcome in outcomes]
    assert agents.rows(f"SELECT {columns} FROM tiny_dancer.outcomes ORDER BY id") == expected
    assert agents.rows(f"SELECT {columns} FROM tiny_dancer.outcome_tail ORDER BY outcome_id") == expected
    assert agents.one(
        "SELECT count(*) FROM tiny_dancer.outcomes AS o JOIN tiny_dancer.outcome_tail AS t"
        " ON (t.tenant, t.outcome_id, t.agent_id) = (o.tenant, o.id, o.agent_id)"
        " WHERE now() - o.occurred_at BETWEEN '0' AND '1 minute' AND o.decision_id IS NULL AND o.cost_usd IS NULL"
    ) == len(given)
    with PostgresStore.connect(agents.dsn) as store:
        assert store.agent_stats() == stats_of(outcomes)


def test_a_good_report_needs_no_python_and_a_bad_one_is_explained(agents, role):
    router = role("tiny_dancer_router")
    agents.rows("REVOKE EXECUTE ON FUNCTION tiny_dancer._call(text, jsonb), tiny_dancer._boot() FROM PUBLIC")
    agents.rows(f"SET ROLE {router}")
    assert agents.one(REPORT, 5, True, 0.5) is True
    assert "_call" in agents.fails(REPORT, -5, True, 0.5).diag.message_primary
    agents.rows("RESET ROLE")
    for report, message in (
        ((math.nextafter(ABSURD_MS, math.inf), True, 0.5), "latency_ms is 1000000000.0000001"),
        ((-5e-324, True, 0.5), "latency_ms is -"),
        ((math.inf, True, 0.5), "latency_ms is 'Infinity'"),
        ((5, True, math.nextafter(1.0, 2.0)), "quality is 1.0000000000000002"),
        ((5, True, math.nan), "quality is 'NaN'"),
        ((5, None, 0.5), "The value of success is NULL"),
    ):
        error = agents.fails(REPORT, *report)
        assert error.sqlstate == "22023"
        assert message in error.diag.message_primary
    error = agents.fails("SELECT ruvector_update_agent_metrics(NULL, 5)")
    assert (error.sqlstate, error.diag.message_primary) == ("22023", "The agent name is NULL; expected a value.")
    assert agents.one("SELECT count(*) FROM tiny_dancer.outcomes") == 1


def test_a_session_that_only_reports_never_loads_python(agents):
    connection = agents.connect()
    libraries = Path(f"/proc/{connection.info.backend_pid}/maps")
    connection.execute(REPORT, (5, True, 0.5))
    assert "libpython" not in libraries.read_text()
    connection.execute("SELECT ruvector_routing_stats()")
    assert "libpython" in libraries.read_text()


def test_a_session_counts_its_own_reports_at_once_and_not_once_they_are_rolled_back(agents):
    """However long it may keep statistics otherwise."""
    agents.rows("SET tiny_dancer.stats_refresh_s = 3600")
    agents.rows("SET tiny_dancer.record_decisions = off")

    def quality() -> float:
        query = "SELECT expected_quality FROM ruvector_route('Hello', excluded_agents := '{gpt-3.5-turbo}')"
        return float(agents.one(query))

    before = quality()
    connection = agents.connection
    with connection.transaction(force_rollback=True):
        agents.one(REPORT, 5, True, 0.0)
        within = quality()
        assert within < before
        with connection.transaction(force_rollback=True):
            agents.one(REPORT, 5, True, 0.0)
            assert quality() < within
        assert quality() == within
    assert quality() == before
    agents.one(REPORT, 5, True, 0.0)
    assert quality() == within
    agents.rows("DISCARD ALL")
    agents.rows("SET tiny_dancer.stats_refresh_s = 3600")
    assert quality() == within


def test_refusals_say_what_to_do(agents, role):
    reader, half = role("tiny_dancer_reader"), role("tiny_dancer_reader")
    agents.rows(f"GRANT INSERT ON tiny_dancer.outcomes TO {half}")
    for name in (reader, half):
        agents.rows(f"SET ROLE {name}")
        error = agents.fails(REPORT, 5, True, 0.5)
        assert error.sqlstate == "42501"
        assert "tiny_dancer_router" in error.diag.message_hint
        agents.rows("RESET ROLE")
    agents.rows(f"DROP OWNED BY {half}")
    agents.rows("SET default_transaction_read_only = on")
    error = agents.fails(REPORT, 5, True, 0.5)
    assert error.sqlstate == "25006"
    assert error.diag.message_hint
    agents.rows("RESET default_transaction_read_only")
    agents.rows("SELECT ruvector_remove_agent('gpt-4')")
    assert agents.fails(REPORT, 5, True, 0.5).sqlstate == "42704"
    assert agents.one("SELECT count(*) FROM tiny_dancer.outcomes") == 0


def test_tenants(agents, role):
    """An agent of the same name is another one, and one of another tenant is none, whoever asks."""
    name = role("tiny_dancer_router")
    agents.rows("SET tiny_dancer.tenant = 'north'")
    agents.rows("SELECT ruvector_register_agent('gpt-4', 'llm', '{x}', 1, 1, 0.5)")
    agents.rows("SET tiny_dancer.tenant = 'south'")
    agents.rows("SELECT ruvector_register_agent('only-south', 'llm', '{x}', 1, 1, 0.5)")
    for who in (name, "none"):
        agents.rows(f"SET ROLE {who}")
        for tenant in ("", "north"):
            agents.rows("SELECT set_config('tiny_dancer.tenant', %s, false)", tenant)
            assert agents.one(REPORT, 5, True, 0.5) is True
            assert agents.fails("SELECT ruvector_update_agent_metrics('only-south', 5)").sqlstate == "42704"
    agents.rows("RESET ROLE")
    for table in ("outcomes", "outcome_tail"):
        found = agents.rows(
            f"SELECT o.tenant, a.tenant, a.name, count(*) FROM tiny_dancer.{table} AS o"
            " JOIN tiny_dancer.agents AS a ON a.id = o.agent_id GROUP BY 1, 2, 3 ORDER BY 1"
        )
        assert found == [("default", "default", "gpt-4", 2), ("north", "north", "gpt-4", 2)]


def test_a_name_of_any_collation(agents):
    assert agents.one("""SELECT ruvector_update_agent_metrics('gpt-4' COLLATE "POSIX", 5)""") is True
    agents.rows("""CREATE TABLE mine (name text COLLATE "ucs_basic")""")
    agents.rows("INSERT INTO mine VALUES ('gpt-4')")
    assert agents.one("SELECT ruvector_update_agent_metrics(name, 5) FROM mine") is True


def test_the_own_next_decision_counts_it(agents):
    """However old the statistics of other sessions may be."""
    route = "SELECT expected_quality FROM ruvector_route('Hello', 'quality', excluded_agents := '{gpt-3.5-turbo}')"
    agents.rows("SET tiny_dancer.stats_refresh_s = 3600")
    before = agents.one(route)
    assert agents.one(route) == before
    agents.connect().execute("SELECT ruvector_update_agent_metrics('gpt-4', 5, true, 0.0)")
    assert agents.one(route) == before
    agents.rows(REPORT, 5, True, 0.0)
    assert agents.one(route) < before


def test_a_rolled_back_report_never_was(agents):
    connection = agents.connect(autocommit=False)
    connection.execute(REPORT, (5, True, 0.5))
    connection.execute("SAVEPOINT here")
    connection.execute(REPORT, (7, True, 0.5))
    connection.execute("ROLLBACK TO here")
    connection.commit()
    connection.execute(REPORT, (9, True, 0.5))
    connection.rollback()
    for table in ("outcomes", "outcome_tail"):
        assert agents.rows(f"SELECT latency_ms FROM tiny_dancer.{table}") == [(5.0,)]


def test_rolls_up_where_the_store_does(agents):
    """By the hash of the new id, once in 500; the session that is due moves all there is."""
    source = agents.one("SELECT prosrc FROM pg_proc WHERE proname = '_roll_up'")
    assert QUERIES["roll_up"].sql in source
    assert QUERIES["may_roll_up"].sql in source
    due = agents.one("SELECT min(i) FROM generate_series(1, 5000) AS i WHERE hashint8(i) % 500 = 0")
    many = "SELECT count(ruvector_update_agent_metrics('gpt-4', i, true, 0.5)) FROM generate_series(1, %s) AS i"
    tail = "SELECT count(*) FROM tiny_dancer.outcome_tail"
    agents.rows(many, due - 1)
    assert agents.one(tail) == due - 1
    with PostgresStore.connect(agents.dsn) as store:
        before = store.outcomes_version()
        agents.rows(many, 1)
        assert agents.one(tail) == 0
        assert agents.rows("SELECT outcomes, fingerprint FROM tiny_dancer.rolled_up") == agents.rows(
            "SELECT count(*), sum(hashint8(id)::bigint)::bigint FROM tiny_dancer.outcomes"
        )
        assert store.outcomes_version() >> 32 == (before >> 32) + 1 == due
        agents.rows(many, 3)
        assert agents.one(tail) == 3
        assert store.agent_stats()["gpt-4"].total_requests == due + 3


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_due_in_any_isolation(agents, isolation):
    """Only in read committed may the roll-up see what was committed last; elsewhere it is left to others."""
    connection = agents.connect(autocommit=False)
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
    connection.execute("SELECT count(ruvector_update_agent_metrics('gpt-4', i)) FROM generate_series(1, 3000) AS i")
    connection.commit()
    moved = agents.rows("SELECT outcomes FROM tiny_dancer.rolled_up")
    assert bool(moved) is (isolation == "read committed")
    assert agents.one("SELECT ruvector_routing_stats()")["total_outcomes"] == 3000


def test_sixteen_sessions_report_on_one_agent(agents):
    """Sums of whole numbers are exact in any order: not one is lost, not one counts twice."""
    given = [[(float(i + number), i % 5 != 0, (i % 9) / 8) for i in range(EACH)] for number in range(SESSIONS)]
    errors: list[BaseException] = []

    def report(connection: psycopg.Connection, reports: list[tuple[float, bool, float]]) -> None:
        try:
            for one in reports:
                connection.execute(REPORT, one)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=report, args=(agents.connect(), reports)) for reports in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    expected = stats_of(
        Outcome(agent_name="gpt-4", occurred_at=0.0, latency_ms=ms, success=success, quality=quality)
        for reports in given
        for ms, success, quality in reports
    )
    with PostgresStore.connect(agents.dsn) as store:
        assert store.agent_stats() == expected
        assert store.outcomes_version() >> 32 == SESSIONS * EACH
    assert agents.one("SELECT sum(outcomes) FROM tiny_dancer.rolled_up") > 0
