"""Fifty sessions at once while backends are killed and the server restarts: what was acknowledged is there, exactly.

How long is set by ``TINYDANCER_CHAOS_SECONDS``, 20 by default. Everybody draws from a seed of their own; how the
sessions interleave is the machine's business, so what is checked holds for every interleaving.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_cluster import Cluster, cluster_at, scratch_folder

SESSIONS = 50
SEED = 20261121
SECONDS = float(os.environ.get("TINYDANCER_CHAOS_SECONDS", "20"))
"""Read here, because no test sees the settings of whoever runs it."""
NAMES = tuple(f"agent-{number:02}" for number in range(12))
OBJECTIVES = ("cost", "latency", "quality", "quality_per_dollar", "balanced")
DATABASE = "chaos"
EXPECTED = {
    "42710": "the name is registered already",
    "42704": "the agent is not registered, or the decision's no longer is",
    "P0002": "no agent is left to choose",
    "57014": "the statement was cancelled",
}
DISCONNECTED = ("08", "57P", "53300")
"""SQLSTATEs after which nobody knows whether the statement took effect: the session, or the server, is gone."""


@dataclass
class Ledger:
    """What one session was told. An effect is acknowledged, refused, or unknown: the connection broke first.

    Outcomes are told apart by their latency, which is a number of their own; decisions by their id.
    """

    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)
    registered: collections.Counter[str] = field(default_factory=collections.Counter)
    removed: collections.Counter[str] = field(default_factory=collections.Counter)
    maybe_registered: collections.Counter[str] = field(default_factory=collections.Counter)
    maybe_removed: collections.Counter[str] = field(default_factory=collections.Counter)
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    failure: BaseException | None = None

    def add(self, other: Ledger) -> None:
        for name in ("acknowledged", "refused", "unknown", "decisions"):
            getattr(self, name).update(getattr(other, name))
        for name in ("registered", "removed", "maybe_registered", "maybe_removed", "states"):
            getattr(self, name).update(getattr(other, name))


class Worker(threading.Thread):
    """One session: connects again whenever it is thrown out, until it is told to stop."""

    def __init__(self, dsn: str, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"session {number}")
        self.ledger = Ledger()
        self._dsn = dsn
        self._chance = random.Random(f"{SEED}-{number}")
        self._stop_asked = stop
        self._next_outcome = number * 10_000_000
        self._reportable: list[str] = []

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                try:
                    with psycopg.connect(self._dsn, autocommit=True, application_name=DATABASE) as connection:
                        while not self._stop_asked.is_set():
                            self._step(connection)
                except psycopg.OperationalError as error:
                    # A cancellation may hit BEGIN or ROLLBACK, too; a new session is as good a way on as any.
                    if not _disconnected(error) and error.sqlstate != "57014":
                        raise
                    self.ledger.states[error.sqlstate or "connection lost"] += 1
                    self._stop_asked.wait(0.1)
        except BaseException as error:
            self.ledger.failure = error
            self._stop_asked.set()

    def _step(self, connection: psycopg.Connection[Any]) -> None:
        draw = self._chance.random()
        if draw < 0.25:
            self._route(connection)
        elif draw < 0.75:
            self._report(connection)
        elif draw < 0.85:
            self._register(connection)
        elif draw < 0.89:
            self._remove(connection)
        elif draw < 0.92:
            changes = f'{{"quality_score": {self._chance.randrange(65) / 64}}}'
            self._try(connection, "SELECT ruvector_update_agent(%s, %s)", self._any_name(), changes)
        elif draw < 0.95:
            self._try(connection, "SELECT ruvector_routing_stats()")
        else:
            self._several(connection)

    def _any_name(self) -> str:
        return self._chance.choice(NAMES)

    def _route(self, connection: psycopg.Connection[Any]) -> None:
        row = self._try(
            connection, "SELECT decision_id FROM ruvector_route(%s, %s)",
            f"Write function number {self._chance.randrange(1000)}", self._chance.choice(OBJECTIVES),
        )  # fmt: skip
        if row is not None:
            self.ledger.decisions.add(row[0])
            self._reportable = [*self._reportable[-20:], row[0]]

    def _report(self, connection: psycopg.Connection[Any]) -> None:
        self._next_outcome += 1
        self._settle({self._next_outcome}, lambda: self._try(connection, *self._outcome(self._next_outcome)))

    def _outcome(self, number: int) -> tuple[Any, ...]:
        success, quality = self._chance.random() < 0.8, self._chance.choice((None, self._chance.randrange(65) / 64))
        if self._reportable and self._chance.random() < 0.4:
            decision = self._chance.choice(self._reportable)
            return "SELECT ruvector_feedback(%s, %s, %s, %s)", decision, success, quality, number
        return "SELECT ruvector_update_agent_metrics(%s, %s, %s, %s)", self._any_name(), number, success, quality

    def _register(self, connection: psycopg.Connection[Any]) -> None:
        name = self._any_name()
        sql = "SELECT ruvector_register_agent(%s, 'llm', ARRAY['functions'], %s, 100.0, 0.8)"
        self._count(name, self.ledger.registered, self.ledger.maybe_registered,
                    lambda: self._try(connection, sql, name, self._chance.randrange(1, 100) / 1000))  # fmt: skip

    def _remove(self, connection: psycopg.Connection[Any]) -> None:
        name = self._any_name()
        self._count(name, self.ledger.removed, self.ledger.maybe_removed,
                    lambda: self._try(connection, "SELECT ruvector_remove_agent(%s)", name))  # fmt: skip

    def _several(self, connection: psycopg.Connection[Any]) -> None:
        """A transaction: reports around a change of the registry, kept or rolled back as a whole."""
        numbers = set(range(self._next_outcome + 1, self._next_outcome + 4))
        self._next_outcome += 3
        keep = self._chance.random() < 0.5
        name = self._any_name()

        def work() -> tuple[bool] | None:
            connection.execute("BEGIN")
            for number in sorted(numbers):
                if self._try(connection, *self._outcome(number)) is None:
                    connection.execute("ROLLBACK")
                    return None
                if self._chance.random() < 0.5:
                    connection.execute("SAVEPOINT here")
                    self._try(connection, "SELECT ruvector_update_agent(%s, '{\"avg_latency_ms\": 5}')", name)
                    connection.execute("ROLLBACK TO here")
            connection.execute("COMMIT" if keep else "ROLLBACK")
            return (True,) if keep else None

        self._settle(numbers, work)

    def _settle(self, numbers: set[int], work: Callable[[], Any]) -> None:
        try:
            done = work()
        except psycopg.Error:
            self.ledger.unknown |= numbers
            raise
        if done is None:
            self.ledger.refused |= numbers
        else:
            self.ledger.acknowledged |= numbers

    def _count(
        self, name: str, sure: collections.Counter[str], maybe: collections.Counter[str], work: Callable[[], Any]
    ) -> None:
        try:
            done = work()
        except psycopg.Error:
            maybe[name] += 1
            raise
        if done is not None:
            sure[name] += 1

    def _try(self, connection: psycopg.Connection[Any], sql: str, *parameters: Any) -> tuple[Any, ...] | None:
        """The answer; None if the server refused for a reason that is no fault. Anything else is raised."""
        try:
            row: tuple[Any, ...] | None = connection.execute(sql, parameters).fetchone()
        except psycopg.Error as error:
            if _disconnected(error) or error.sqlstate not in EXPECTED:
                raise
            self.ledger.states[error.sqlstate] += 1
            return None
        assert row is not None
        return row


def _disconnected(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(DISCONNECTED)


@pytest.fixture
def chaos_cluster(server) -> Iterator[Cluster]:
    # Not below pytest's own directory, which the user postgres may not enter.
    with scratch_folder("tiny_dancer_chaos_") as folder:
        made = cluster_at(folder / "cluster", pg_config=server.pg_config)
        made.initialise()
        made.start()
        with psycopg.connect(made.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        with psycopg.connect(made.dsn(DATABASE), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
            for name in NAMES[:6]:
                connection.execute("SELECT ruvector_register_agent(%s, 'llm', ARRAY['functions'], 0.01)", (name,))
        yield made


def one_backend(cluster: Cluster, chance: random.Random, signal_function: str | None) -> bool:
    """Cancels or terminates a random session by the server's own function, or kills its process; whether it did."""
    try:
        with psycopg.connect(cluster.dsn(DATABASE), autocommit=True) as connection:
            pids = [row[0] for row in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid() ORDER BY pid",
                (DATABASE,))]  # fmt: skip
            if not pids:
                return False
            pid = chance.choice(pids)
            if signal_function is not None:
                row = connection.execute(f"SELECT {signal_function}(%s)", (pid,)).fetchone()
                return bool(row and row[0])
    except psycopg.OperationalError:
        return False
    postmaster = int((cluster.data / "postmaster.pid").read_text().split("\n", 1)[0])
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        if parent != postmaster:  # it ended meanwhile, and its number is somebody else's now
            return False
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def make_trouble(cluster: Cluster, seconds: float, stop: threading.Event) -> collections.Counter[str]:
    """Everything that may happen to a server, for that long or until a session gives up; what happened."""
    chance = random.Random(SEED)
    happened: collections.Counter[str] = collections.Counter()
    # After a crash fifty sessions load their modules again; crashes that follow faster would test nothing but that.
    crashes = max(2, round(seconds / 12))
    due = [(seconds * (number + 1) / (crashes + 1), ("kill", "restart")[number % 2]) for number in range(crashes)]
    started = time.monotonic()
    while ((elapsed := time.monotonic() - started) < seconds or due) and not stop.is_set():
        if due and elapsed >= due[0][0]:
            kind = due[0][1]
            if kind == "restart":
                cluster.stop("immediate")
                cluster.start()
            elif not one_backend(cluster, chance, None):
                time.sleep(0.05)
                continue
            due.pop(0)
            happened[kind] += 1
        else:
            function = chance.choice(("pg_terminate_backend", "pg_cancel_backend", "pg_cancel_backend"))
            happened[function] += one_backend(cluster, chance, function)
            time.sleep(chance.uniform(0.05, 0.3))
    return happened


def connect_again(cluster: Cluster) -> psycopg.Connection[Any]:
    """A connection, as soon as the server has recovered from what happened last."""
    for _ in range(600):
        try:
            return psycopg.connect(cluster.dsn(DATABASE), autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("The server did not come back within a minute.")


@pytest.mark.slow
def test_fifty_sessions_while_backends_are_killed(chaos_cluster):
    stop = threading.Event()
    workers = [Worker(chaos_cluster.dsn(DATABASE), number, stop) for number in range(1, SESSIONS + 1)]
    for worker in workers:
        worker.start()
    try:
        happened = make_trouble(chaos_cluster, SECONDS, stop)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    told = Ledger()
    for worker in workers:
        if worker.ledger.failure is not None:  # a deadlock (40P01), an internal error, anything not foreseen
            raise AssertionError(f"{worker.name} met what must not happen") from worker.ledger.failure
        told.add(worker.ledger)
    print(f"\n{SECONDS:.0f} s of trouble: {dict(happened)}; {len(told.acknowledged):,} outcomes acknowledged, "
          f"{len(told.refused):,} refused, {len(told.unknown)} unknown; {len(told.decisions):,} decisions; "
          f"SQLSTATEs {dict(told.states)}")  # fmt: skip
    assert all(happened[kind] for kind in ("kill", "restart", "pg_terminate_backend", "pg_cancel_backend"))
    assert told.acknowledged
    assert told.decisions

    with connect_again(chaos_cluster) as connection:
        check_outcomes(connection, told)
        check_registry(connection, told)
        check_totals(connection)
        # The same again when everything is rolled up, which chance has a session do once in 500 reports.
        connection.execute("SELECT ruvector_register_agent('afterwards')")
        before = ask(connection, "SELECT outcomes FROM tiny_dancer.rolled_up")
        while ask(connection, "SELECT outcomes FROM tiny_dancer.rolled_up") == before:
            connection.execute("SELECT ruvector_update_agent_metrics('afterwards', 7)")
        check_totals(connection)


def ask(connection: psycopg.Connection[Any], sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def check_outcomes(connection: psycopg.Connection[Any], told: Ledger) -> None:
    """No outcome that was acknowledged is lost, none that was refused is there, none is there twice."""
    found = [int(row[0]) for row in ask(connection, "SELECT latency_ms FROM tiny_dancer.outcomes")]
    assert len(found) == len(set(found))
    assert told.acknowledged - set(found) == set()
    assert told.refused & set(found) == set()
    assert set(found) - told.acknowledged - told.unknown == set()
    decided = {row[0] for row in ask(connection, "SELECT decision_id FROM tiny_dancer.decisions")}
    assert told.decisions - decided == set()
    for table in ("outcomes", "decisions", "outcome_tail", "agent_stats", "agent_histograms"):
        orphans = ask(
            connection,
            f"""SELECT count(*) FROM tiny_dancer.{table} AS x
                          WHERE NOT EXISTS (SELECT FROM tiny_dancer.agents AS a
                                            WHERE a.id = x.agent_id AND a.tenant = x.tenant)""",
        )
        assert orphans == [(0,)], table


def check_registry(connection: psycopg.Connection[Any], told: Ledger) -> None:
    """A name is registered once at most, and as often was it registered and removed as sessions were told."""
    assert ask(connection, """SELECT name FROM tiny_dancer.agents WHERE removed_at IS NULL
                  GROUP BY tenant, name HAVING count(*) > 1""") == []  # fmt: skip
    counted = ask(connection, "SELECT name, count(*), count(removed_at) FROM tiny_dancer.agents GROUP BY name")
    rows = {name: (made, removed) for name, made, removed in counted}
    assert set(rows) <= set(NAMES)
    for name in NAMES:
        made, removed = rows.get(name, (0, 0))
        at_first = int(name in NAMES[:6])
        registered = told.registered[name] + at_first
        assert registered <= made <= registered + told.maybe_registered[name], name
        assert told.removed[name] <= removed <= told.removed[name] + told.maybe_removed[name], name
        assert made - removed in (0, 1), name


def check_totals(connection: psycopg.Connection[Any]) -> None:
    """What is rolled up and the tail are the outcomes, neither more nor less, agent by agent and digit by digit.

    Latencies are whole numbers and qualities 64ths: sums of them have no rounding, in whatever order they are made.
    """
    recorded = ask(
        connection,
        """
        SELECT agent_id, count(*), count(*) FILTER (WHERE success), count(latency_ms), sum(latency_ms),
               count(quality), coalesce(sum(quality), 0)
        FROM tiny_dancer.outcomes GROUP BY agent_id ORDER BY agent_id""",
    )
    derived = ask(
        connection,
        """
        SELECT agent_id, sum(n), sum(successes), sum(latencies), sum(latency_ms), sum(qualities), sum(quality)
        FROM (SELECT agent_id, total_requests AS n, successes, latency_count AS latencies, latency_sum_ms AS latency_ms,
                     quality_count AS qualities, quality_sum AS quality
              FROM tiny_dancer.agent_stats
              UNION ALL
              SELECT agent_id, 1, success::integer, (latency_ms IS NOT NULL)::integer, latency_ms,
                     (quality IS NOT NULL)::integer, coalesce(quality, 0)
              FROM tiny_dancer.outcome_tail) AS parts
        GROUP BY agent_id ORDER BY agent_id""",
    )
    assert derived == recorded
    buckets = """
        SELECT agent_id, measure, bucket, sum(count)
        FROM (SELECT agent_id, measure, bucket, count FROM {0}
              UNION ALL SELECT agent_id, 'latency_ms', latency_bucket, 1 FROM {1} WHERE latency_bucket IS NOT NULL
              UNION ALL SELECT agent_id, 'quality', quality_bin, 1 FROM {1} WHERE quality_bin IS NOT NULL) AS parts
        GROUP BY agent_id, measure, bucket ORDER BY agent_id, measure, bucket"""
    none = "(SELECT * FROM tiny_dancer.agent_histograms WHERE false) AS none"
    assert ask(connection, buckets.format("tiny_dancer.agent_histograms", "tiny_dancer.outcome_tail")) == ask(
        connection, buckets.format(none, "tiny_dancer.outcomes")
    )
    ((stats,),) = ask(connection, "SELECT ruvector_routing_stats()")
    assert stats["total_outcomes"] == sum(row[1] for row in recorded)
    assert stats["total_decisions"] == ask(connection, "SELECT count(*) FROM tiny_dancer.decisions")[0][0]
    listed = dict(ask(connection, "SELECT name, total_requests FROM ruvector_list_agents()"))
    by_id = {row[0]: row[1] for row in recorded}
    live = ask(connection, "SELECT name, id FROM tiny_dancer.agents WHERE removed_at IS NULL")
    assert listed == {name: by_id.get(number, 0) for name, number in live}
