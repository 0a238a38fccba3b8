"""Several processes on one file at once, processes that are killed, and processes that open it at the same moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.store.suite import agent
from tinydancer.store.migrations import load_migrations
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import EmbeddingSpace

ROOT = Path(__file__).parents[2]
PYTHON_PATH = f"{ROOT}{os.pathsep}{ROOT / 'src'}"

REPORTER = """
import sys, threading
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Outcome

store = SqliteStore(sys.argv[1])
process, threads, each = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
errors = []

def report(thread):
    try:
        for i in range(each):
            store.insert_outcomes([
                Outcome(agent_name="ab"[i % 2], occurred_at=float(i), decision_id=f"{process}-{thread}-{i}",
                        success=i % 5 > 0, quality=0.5 if i % 4 == 0 else None, latency_ms=float(1 + i % 3),
                        cost_usd=0.25, output_tokens=i)
            ])
    except BaseException as error:
        errors.append(error)

workers = [threading.Thread(target=report, args=(n,)) for n in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
store.close()
sys.exit(repr(errors) if errors else 0)
"""

WRITER = """
import itertools, sys
from tinydancer.store.base import DecisionRow
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Outcome

store = SqliteStore(sys.argv[1])
for i in itertools.count():
    name = f"{sys.argv[2]}-{i}"
    store.insert_decisions([
        DecisionRow(decision_id=name, decided_at=float(i), agent_name="a", objective="cost", expected_quality=0.5,
                    confidence=0.5, uncertainty=1.0, estimated_cost_usd=None, estimated_latency_ms=None,
                    similarity_score=0.0, input_tokens=1.0, constraints={})
    ])
    store.insert_outcomes([Outcome(agent_name="a", occurred_at=float(i), decision_id=name, quality=0.5)])
    sys.stdout.write(name + "\\n")
    sys.stdout.flush()
"""

OPENER = """
import sys
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Agent

sys.stdin.readline()  # until all are ready
with SqliteStore(sys.argv[1]) as store:
    store.insert_agent(Agent(name=sys.argv[2]))
"""


def start(program: str, *arguments: object, **pipes) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, text=True, env={**os.environ, "PYTHONPATH": PYTHON_PATH}, **pipes)


def test_two_processes_with_eight_threads_each_report_20_000_outcomes(tmp_path):
    path = tmp_path / "store.db"
    processes, threads, each = 2, 8, 1250
    with SqliteStore(path) as store:
        store.insert_agents([agent("a"), agent("b")], replace=False)
        reporters = [start(REPORTER, path, n, threads, each) for n in range(processes)]
        for reporter in reporters:
            assert reporter.wait(timeout=300) == 0
        rows = store._database.fetch("SELECT decision_id FROM outcomes")
        expected = {f"{p}-{t}-{i}" for p in range(processes) for t in range(threads) for i in range(each)}
        assert len(rows) == 20_000
        assert {row[0] for row in rows} == expected
        writers = processes * threads
        for name, offset in (("a", 0), ("b", 1)):
            own = range(offset, each, 2)
            stats = store.agent_stats()[name]
            assert stats.total_requests == stats.latency_count == stats.cost_count == writers * len(own)
            assert stats.successes == writers * sum(i % 5 > 0 for i in own)
            assert stats.quality_count == sum(stats.quality_bins.values()) == writers * sum(i % 4 == 0 for i in own)
            assert stats.quality_sum == stats.quality_count * 0.5
            assert stats.latency_sum_ms == writers * sum(1 + i % 3 for i in own)
            assert stats.output_tokens_sum == writers * sum(own)
            assert stats.cost_sum_usd == stats.total_requests * 0.25
        totals = store.routing_totals()
        assert (totals.total_outcomes, totals.total_cost_usd) == (20_000, 5_000.0)
        with SqliteStore(path) as fresh:
            assert fresh.agent_stats() == store.agent_stats()


def test_a_writer_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "store.db"
    with SqliteStore(path) as store:
        store.insert_agent(agent("a"))
    acknowledged: list[str] = []
    for round_number in range(20):
        writer = start(WRITER, path, round_number, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(20 + 7 * round_number)]  # never at the same point
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        with SqliteStore(path) as store:
            store.check()
            outcomes = [row[0] for row in store._database.fetch("SELECT decision_id FROM outcomes")]
            assert len(outcomes) == len(set(outcomes)) == store.agent_stats()["a"].total_requests
            assert set(acknowledged) <= set(outcomes)
            decisions = {row.decision_id for row in store.list_decisions(100_000)}
            assert set(acknowledged) <= decisions
            # At most the write under way when it was killed is there without its acknowledgement.
            assert len(outcomes) - len(acknowledged) <= round_number + 1
    assert len(acknowledged) >= 20 * 20


def test_four_processes_may_make_one_store_at_once(tmp_path):
    for attempt in range(5):
        path = tmp_path / f"store-{attempt}.db"
        openers = [start(OPENER, path, f"agent-{n}", stdin=subprocess.PIPE) for n in range(4)]
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("go\n")
            opener.stdin.close()
        assert [opener.wait(timeout=60) for opener in openers] == [0, 0, 0, 0]
        with SqliteStore(path) as store:
            assert [a.name for a in store.list_agents()] == [f"agent-{n}" for n in range(4)]
            assert store._database.fetch("SELECT count(*) FROM schema_migrations") == [(len(load_migrations()),)]
        assert SqliteStore.open_space(path) == EmbeddingSpace("all-MiniLM-L6-v2", 384)
