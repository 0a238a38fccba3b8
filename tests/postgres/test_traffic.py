"""The traffic is rolled up exactly once, whoever reports and rolls up at the same time, and is exact at any moment."""

from __future__ import annotations

import math
import random
import threading
from typing import Any

import psycopg
import pytest

from tests.postgres.conftest import StoreInServer, execute
from tests.postgres.test_outcomes import exact_outcomes, run_all
from tests.store.suite import agent, decision, outcome
from tests.store.traffic_suite import HOUR, KINDS, NOON, assert_same, assorted_traffic, recomputed
from tinydancer.errors import StoreError
from tinydancer.policy.analytics import Traffic
from tinydancer.policy.time_ranges import begin_of, interval_of
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres
SESSIONS = 8


def requests(found: Traffic) -> int:
    return sum(cell.sums.requests for cell in found.cells)


@pytest.mark.parametrize("where", ["outside", "server"])
def test_sessions_report_and_roll_up_while_others_read(request, dsn, where):
    stores: list[Any]
    if where == "server":
        request.getfixturevalue("plpy_dsn")
        stores = [StoreInServer(dsn, "default") for _ in range(SESSIONS + 2)]
    else:
        stores = [PostgresStore.connect(dsn, max_connections=1) for _ in range(SESSIONS + 2)]
    outcomes = [row for number in range(SESSIONS) for row in exact_outcomes(number)]
    begin = outcomes[0].occurred_at
    starts = [begin // HOUR * HOUR]
    try:
        stores[0].insert_agent(agent("a"))
        finished = threading.Event()
        seen: list[int] = []

        def report(store, number) -> None:
            for row in exact_outcomes(number):
                store.insert_outcomes([row])

        def roll_up(store) -> None:
            while not finished.is_set():
                store.roll_up()

        def read(store) -> None:
            while not finished.is_set():
                found = store.traffic("objective", "agent", begin, starts)
                seen.append(requests(found))
                assert found.outside == 0

        others = [
            threading.Thread(target=roll_up, args=(stores[-1],)),
            threading.Thread(target=read, args=(stores[-2],)),
        ]
        for thread in others:
            thread.start()
        try:
            run_all([lambda s=store, n=n: report(s, n) for n, store in enumerate(stores[:SESSIONS])])
        finally:
            finished.set()
            for thread in others:
                thread.join()
        assert seen == sorted(seen)  # nothing that was there is ever missing, and nothing is there twice
        for _ in range(2):
            found = stores[0].traffic("objective", "agent", begin, starts)
            assert_same(found, recomputed([], outcomes, "objective", "agent", begin, starts))
            stores[0].roll_up()
    finally:
        for store in stores:
            store.close()


def test_rebuilding_gives_what_rolling_up_gave(dsn, open_from_outside):
    store = open_from_outside()
    names = ("a", "b")
    store.insert_agents([agent(name) for name in names], replace=False)
    decisions, outcomes = assorted_traffic(700, names, seed=5)
    store.insert_decisions(decisions)
    for start in range(0, 600, 200):
        store.insert_outcomes(outcomes[start : start + 200])
        store.roll_up()
    store.insert_outcomes(outcomes[600:])  # some of which stay in the tail
    begin = NOON - 8 * 24 * HOUR - 99.0
    starts = [begin // HOUR * HOUR]
    everything = "SELECT * FROM tiny_dancer.traffic ORDER BY tenant, kind, hour, agent_id, value"
    rolled_up = execute(dsn, everything)
    for _ in range(2):
        assert store.rebuild_traffic() == execute(dsn, "SELECT outcomes FROM tiny_dancer.rolled_up")[0][0] >= 600
        for row, other in zip(execute(dsn, everything), rolled_up, strict=True):
            assert row[:5] == other[:5]
            for value, known in zip(row[5:], other[5:], strict=True):
                assert value == (pytest.approx(known, rel=1e-9) if isinstance(known, float) else known)
    for kind, histograms in KINDS:
        found = store.traffic(kind, histograms, begin, starts)
        assert_same(found, recomputed(decisions, outcomes, kind, histograms, begin, starts))


def test_what_was_rolled_up_before_is_told_of_until_it_is_added(dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agent(agent("a"))
    store.insert_outcomes([outcome("a", occurred_at=NOON)] * 5)
    store.roll_up()
    execute(dsn, "DELETE FROM tiny_dancer.traffic; UPDATE tiny_dancer.rolled_up SET in_traffic = 0")
    store.insert_outcomes([outcome("a", occurred_at=NOON)] * 3)
    found = store.traffic("objective", "agent", NOON, [NOON])
    assert (requests(found), found.outside) == (3, 5)
    store.roll_up()
    found = store.traffic("objective", "agent", NOON, [NOON])
    assert (requests(found), found.outside) == (3, 5)
    assert store.rebuild_traffic() == 8
    found = store.traffic("objective", "agent", NOON, [NOON])
    assert (requests(found), found.outside) == (8, 0)


def test_rebuilding_waits_for_a_session_that_rolls_up_and_holds_nobody_up(plpy_dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agent(agent("a"))
    store.insert_outcomes([outcome("a", occurred_at=NOON)] * 5)
    with psycopg.connect(plpy_dsn) as session:
        assert session.execute("SELECT td_run('result = store.roll_up()')").fetchone() == ("5",)
        rebuilt: list[int] = []
        thread = threading.Thread(target=lambda: rebuilt.append(store.rebuild_traffic()))
        thread.start()
        store.insert_outcomes([outcome("a", occurred_at=NOON)])
        thread.join(0.3)
        assert rebuilt == []
        session.rollback()
        thread.join()
    assert rebuilt == [0]  # nothing was rolled up after all
    found = store.traffic("objective", "agent", NOON, [NOON])
    assert (requests(found), found.outside) == (6, 0)


def test_an_old_state_of_the_tables_is_not_rebuilt_from(plpy_dsn, open_from_outside):
    open_from_outside().insert_agent(agent("a"))
    attempt = (
        "from tinydancer.errors import StoreError\n"
        "try:\n    store.rebuild_traffic()\nexcept StoreError as error:\n    result = error.message"
    )
    with psycopg.connect(plpy_dsn) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        row = session.execute("SELECT td_run(%s)", (attempt,)).fetchone()
    assert row is not None
    assert "old state of the tables" in row[0]


def test_numbers_of_any_size_are_rolled_up(dsn, open_from_outside):
    """What the tables take must not stop the roll-up for everybody."""
    store = open_from_outside()
    store.insert_agent(agent("a"))
    store.insert_decisions([decision("1", input_tokens=1e300, estimated_cost_usd=1e300, decided_at=NOON)])
    store.insert_outcomes(
        [outcome("a", occurred_at=NOON, decision_id="1")]
        + [outcome("a", occurred_at=NOON, quality=x, cost_usd=x, latency_ms=x) for x in (5e-324, 1e-200, 1e-80, 1.0)]
    )
    execute(dsn, "UPDATE tiny_dancer.outcomes SET cost_usd = 1e300 WHERE cost_usd = 1")
    for _ in range(2):
        (cell,) = store.traffic("objective", "agent", NOON, [NOON]).cells
        assert (cell.sums.requests, cell.sums.costed) == (5, 5)
        assert cell.sums.quality_squares == 1.0
        assert math.isfinite(cell.sums.cost_squares + cell.sums.input_squares)
        store.roll_up()
    assert store.rebuild_traffic() == 5


def test_a_reader_reads_it(cluster, dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agent(agent("a"))
    store.insert_outcomes([outcome("a", occurred_at=NOON)])
    execute(dsn, "CREATE ROLE traffic_reader LOGIN IN ROLE tiny_dancer_reader")
    try:
        with PostgresStore.connect(dsn.replace("user=postgres", "user=traffic_reader")) as reader:
            assert requests(reader.traffic("objective", "agent", NOON, [NOON])) == 1
            with pytest.raises(StoreError):
                reader.rebuild_traffic()
    finally:
        execute(dsn, "DROP ROLE traffic_reader")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "sql_standard", "iso_8601"])
def test_a_range_begins_where_the_server_says(dsn, zone, style):
    """Whatever the server writes of an interval, and across both changes of the clocks."""
    chance = random.Random(f"{zone} {style}")
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"SET TimeZone = '{zone}'; SET IntervalStyle = {style}")
        for _ in range(150):
            now = 1_774_000_000.0 + chance.randrange(0, 365 * 24) * HOUR + 123.25
            parts = {
                "years": chance.choice((0, 0, 2)), "months": chance.choice((0, 0, 1, 11)),
                "days": chance.randrange(40), "hours": chance.choice((0, 5, 49)), "mins": chance.randrange(60),
                "secs": chance.choice((0.0, 1.0, 9.5)),
            }  # fmt: skip
            if not any(parts.values()):
                continue
            given = ", ".join(f"{key} => {value}" for key, value in parts.items())
            row = session.execute(
                f"SELECT i::text, extract(epoch FROM to_timestamp({now}) - i)::float8 FROM make_interval({given}) AS i"
            ).fetchone()
            assert row is not None
            assert begin_of(interval_of(row[0]), now, zone) == pytest.approx(row[1], abs=1e-3), (row[0], now)
