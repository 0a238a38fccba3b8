"""Outcomes are never lost, never counted twice, and never wait for one another."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from tests.postgres.conftest import StoreInServer, execute
from tests.store.suite import agent, assorted_outcomes, outcome
from tinydancer.errors import StoreError
from tinydancer.learn import stats_of
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres
SESSIONS = 16
EACH = 60


def exact_outcomes(number: int) -> list:
    """Outcomes whose sums have no rounding, in whatever order they are added."""
    return [
        outcome(
            "a",
            decision_id=f"{number}-{i}",
            success=i % 5 != 0,
            quality=(i % 9) / 8 if i % 3 else None,
            latency_ms=float(i + number),
            cost_usd=i / 64,
            output_tokens=i,
        )
        for i in range(EACH)
    ]


def run_all(jobs) -> None:
    """Runs functions at once; the first error any of them raised is raised again."""
    errors: list[BaseException] = []

    def guarded(job) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("where", ["outside", "server"])
def test_sixteen_sessions_report_on_one_agent_while_others_roll_up(request, dsn, where):
    stores: list[Any]
    if where == "server":
        request.getfixturevalue("plpy_dsn")
        stores = [StoreInServer(dsn, "default") for _ in range(SESSIONS + 2)]
    else:
        stores = [PostgresStore.connect(dsn, max_connections=1) for _ in range(SESSIONS + 2)]
    try:
        stores[0].insert_agent(agent("a"))
        finished = threading.Event()
        moved: list[int] = []
        missed: list[tuple[int, int]] = []  # statistics that held less than what had been moved into them

        def report(store, number) -> None:
            for row in exact_outcomes(number):
                store.insert_outcomes([row])

        def roll_up(store) -> None:
            while not finished.is_set():
                moved.append(store.roll_up())
                known = sum(moved)
                seen = store.agent_stats().get("a")
                if seen is not None and seen.total_requests < known:
                    missed.append((seen.total_requests, known))

        rollers = [threading.Thread(target=roll_up, args=(store,)) for store in stores[SESSIONS:]]
        for thread in rollers:
            thread.start()
        try:
            run_all([lambda s=store, n=n: report(s, n) for n, store in enumerate(stores[:SESSIONS])])
        finally:
            finished.set()
            for thread in rollers:
                thread.join()
        expected = stats_of([row for number in range(SESSIONS) for row in exact_outcomes(number)])
        assert stores[0].agent_stats() == expected
        assert missed == []
        assert sum(moved) > 0
        stores[0].roll_up()
        assert execute(dsn, "SELECT count(*) FROM tiny_dancer.outcome_tail") == [(0,)]
        assert stores[1].agent_stats() == expected
        assert stores[1].version().outcomes >> 32 == SESSIONS * EACH
    finally:
        for store in stores:
            store.close()


def test_an_open_transaction_holds_up_nobody_and_is_not_lost(plpy_dsn, open_from_outside):
    outside = open_from_outside()
    outside.insert_agent(agent("a"))
    report = """
from tinydancer.types import Outcome
store.insert_outcomes([Outcome(agent_name="a", occurred_at=1.0, quality=0.25)])
"""
    with psycopg.connect(plpy_dsn) as one, psycopg.connect(plpy_dsn) as two:
        one.execute("SELECT td_run(%s)", (report,))
        two.execute("SET lock_timeout = '2s'")
        two.execute("SELECT td_run(%s)", (report,))
        outside.insert_outcomes([outcome("a", quality=0.5)])
        assert outside.agent_stats()["a"].quality_sum == 0.5
        assert outside.roll_up() == 1
        assert outside.agent_stats()["a"].quality_sum == 0.5
        two.commit()
        assert outside.agent_stats()["a"].quality_sum == 0.75
        assert outside.roll_up() == 1
        one.commit()
    assert outside.agent_stats()["a"].quality_sum == 1.0
    assert outside.agent_stats()["a"].total_requests == 3


def test_one_session_rolls_up_at_a_time(plpy_dsn, open_from_outside):
    outside = open_from_outside()
    outside.insert_agent(agent("a"))
    outside.insert_outcomes([outcome("a")] * 3)
    with psycopg.connect(plpy_dsn) as one:
        assert one.execute("SELECT td_run('result = store.roll_up()')").fetchone() == ("3",)
        outside.insert_outcomes([outcome("a")])
        assert outside.roll_up() == 0
        assert outside.agent_stats()["a"].total_requests == 4
        one.rollback()
    assert outside.agent_stats()["a"].total_requests == 4
    assert outside.roll_up() == 4
    assert outside.agent_stats()["a"].total_requests == 4


def test_a_transaction_that_sees_an_old_state_does_not_roll_up(plpy_dsn, open_from_outside):
    outside = open_from_outside()
    outside.insert_agent(agent("a"))
    outside.insert_outcomes([outcome("a")] * 3)
    with psycopg.connect(plpy_dsn) as one:
        one.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        one.execute("SELECT 1")
        outside.roll_up()
        outside.insert_outcomes([outcome("a")])
        assert one.execute("SELECT td_run('result = store.roll_up()')").fetchone() == ("0",)
    assert outside.agent_stats()["a"].total_requests == 4


def test_the_tail_rolls_itself_up(dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agents([agent("a"), agent("b")], replace=False)
    outcomes = assorted_outcomes(6000, ("a", "b"), seed=5)
    for start in range(0, 6000, 50):
        store.insert_outcomes(outcomes[start : start + 50])
    assert execute(dsn, "SELECT count(*) < 6000 FROM tiny_dancer.outcome_tail") == [(True,)]
    assert store.agent_stats() == stats_of(outcomes)


def test_what_was_acknowledged_survives_killed_backends(dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agent(agent("a"))
    acknowledged: list[str] = []
    unsure: list[str] = []
    messages: set[str] = set()
    finished = threading.Event()

    def kill() -> None:
        while not finished.wait(0.02):
            execute(
                dsn,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )

    def report(number: int) -> None:
        deadline = time.monotonic() + 60
        i = 0
        # Until enough were killed in the middle of their work, however fast the machine is.
        while i < 150 or (len(unsure) < 5 and time.monotonic() < deadline):
            decision_id = f"{number}-{i}"
            i += 1
            try:
                store.insert_outcomes([outcome("a", decision_id=decision_id)])
            except StoreError as error:
                unsure.append(decision_id)
                messages.add(error.message.split(" to PostgreSQL")[0].split(" to database")[0])
            else:
                acknowledged.append(decision_id)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_all([lambda n=n: report(n) for n in range(4)])
    finally:
        finished.set()
        killer.join()
    assert messages <= {"The connection", "No connection"}
    stored = [row[0] for row in execute(dsn, "SELECT decision_id FROM tiny_dancer.outcomes")]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored) <= {*acknowledged, *unsure}
    assert len(unsure) >= 5, "hardly a backend was killed while it worked, so this test showed nothing"
    assert len(acknowledged) > len(unsure)
    assert store.agent_stats()["a"].total_requests == len(stored)


def test_a_store_recovers_from_a_crash_of_the_server(cluster, dsn):
    with PostgresStore.connect(dsn, timeout_s=3.0) as store:
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a")] * 5)
        cluster.stop("immediate")
        try:
            with pytest.raises(StoreError):
                store.insert_outcomes([outcome("a")])
        finally:
            cluster.start(tcp=True, fsync=False)
        deadline = time.monotonic() + 30
        while True:
            try:
                store.insert_outcomes([outcome("a")])
                break
            except StoreError:
                assert time.monotonic() < deadline
        assert store.agent_stats()["a"].total_requests == 6
