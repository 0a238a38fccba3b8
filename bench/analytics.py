"""Measures analytics over ten million outcomes in PostgreSQL, and over up to a million in SQLite.

    python bench/analytics.py [--outcomes N] [--sqlite N,N] [--json FILE]

In: how many outcomes. Out: a table, and JSON. The outcomes are of 30 days, 20 agents and 3 objectives, each with a
decision; they are written in bulk into a server of the script's own, in a scratch folder, and added up there by
``tiny_dancer.rebuild_traffic()``, which is timed, too. Each statement is timed from outside, five times in new sessions
that have called the extension once; the median counts, and beside it that of the processor time, which other processes
on the machine hardly change. Loading ten million takes some five minutes and 6 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

# ruff: noqa: E402
from bench.postgres import connect, server
from rich.console import Console
from rich.table import Table

from tinydancer.analytics import routing_analytics
from tinydancer.learn import latency_bucket
from tinydancer.service import TinyDancer
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Agent, CostModel

AGENTS, OBJECTIVES, DAYS = 20, ("cost", "balanced", "quality"), 30
AT_ONCE = 500_000
RUNS = 5
DECISIONS = """
    INSERT INTO tiny_dancer.decisions (tenant, decision_id, decided_at, agent_id, objective, expected_quality,
        confidence, uncertainty, estimated_cost_usd, estimated_latency_ms, similarity_score, input_tokens)
    SELECT 'default', 'd' || i, now() - interval '30 days' * (1 - i / %(all)s::float8),
           (SELECT min(id) FROM tiny_dancer.agents) + (hashint4(i) & 1048575) %% 20,
           (ARRAY['cost', 'balanced', 'quality'])[1 + (hashint4(i + 7) & 1048575) %% 3], 0.8, 0.5, 0.1, 0.001, 500, 0.3,
           100 + i %% 50
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS i"""
OUTCOMES = """
    INSERT INTO tiny_dancer.outcomes (tenant, agent_id, decision_id, occurred_at, success, quality, quality_bin,
        latency_ms, latency_bucket, cost_usd, input_tokens, output_tokens)
    SELECT 'default', agent_id, 'd' || i, occurred_at, success, quality, tiny_dancer._quality_bin(quality), latency_ms,
           tiny_dancer._latency_bucket(latency_ms), cost_usd, 100 + i %% 50, 200 + i %% 77
    FROM (SELECT i, (SELECT min(id) FROM tiny_dancer.agents) + (hashint4(i) & 1048575) %% 20 AS agent_id,
                 now() - interval '30 days' * (1 - i / %(all)s::float8) AS occurred_at, random() < 0.98 AS success,
                 CASE WHEN random() < 0.5 THEN random() END AS quality,
                 exp(6 + (hashint4(i) & 1048575) %% 20 * 0.05
                     + 0.6 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())) AS latency_ms,
                 CASE WHEN random() < 0.9 THEN 0.001 * random() END AS cost_usd
          FROM generate_series(%(first)s::integer, %(last)s::integer) AS i) AS drawn"""


def load(dsn: str, count: int) -> None:
    """Agents, decisions and outcomes; nothing rolled up, as in a database that is older than the traffic."""
    with connect(dsn) as connection:
        connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
        for number in range(AGENTS):
            connection.execute(
                "SELECT ruvector_register_agent(%s, 'llm', '{chat}', input_cost_per_token := 0.000001,"
                " output_cost_per_token := 0.000005)",
                (f"agent-{number:02}",),
            )
        connection.execute("SET synchronous_commit = off")
        connection.execute("SELECT setseed(0.5)")
        for first in range(1, count + 1, AT_ONCE):
            piece = {"all": count, "first": first, "last": min(first + AT_ONCE - 1, count)}
            connection.execute(DECISIONS, piece)
            connection.execute(OUTCOMES, piece)
        # As if roll_up had moved them: from here on the traffic has to be rebuilt.
        connection.execute(
            "INSERT INTO tiny_dancer.rolled_up (tenant, outcomes, fingerprint)"
            " SELECT 'default', count(*), sum(hashint8(id)::bigint) FROM tiny_dancer.outcomes"
        )
        connection.execute("VACUUM ANALYZE")


def in_postgresql(count: int) -> list[dict[str, Any]]:
    """Rows for the extension's function."""
    cluster = server()
    with connect(cluster.dsn()) as connection:
        connection.execute("CREATE DATABASE analytics")
    dsn = cluster.dsn("analytics")
    load(dsn, count)
    with connect(dsn) as connection:
        start = time.perf_counter()
        connection.execute("SELECT tiny_dancer.rebuild_traffic()")
        rebuilt_s = time.perf_counter() - start
        connection.execute("VACUUM ANALYZE tiny_dancer.traffic")
        cells, size = connection.execute(
            "SELECT count(*), pg_total_relation_size('tiny_dancer.traffic') FROM tiny_dancer.traffic"
        ).fetchone()
    rows = [{"what": f"rebuild_traffic, {count:,} outcomes", "ms": rebuilt_s * 1e3, "rows": cells, "mb": size / 1e6}]
    for time_range, group_by, baseline in (
        ("7 days", "agent", None), ("30 days", "agent", None), ("30 days", "agent", "agent-07"),
        ("30 days", "objective", None), ("30 days", "route", None), ("30 days", "tenant", None),
        ("30 days", "day", None), ("30 days", "hour", None),
    ):  # fmt: skip
        query = "SELECT count(*), sum(total_requests) FROM ruvector_routing_analytics(%s, %s, %s)"
        found: list[float] = []
        busy: list[float] = []
        for _ in range(RUNS):
            with connect(dsn) as connection:
                connection.execute("SELECT count(*) FROM ruvector_list_agents()")
                start, before = time.perf_counter(), processor_ms(connection.info.backend_pid)
                groups, requests = connection.execute(query, (time_range, group_by, baseline)).fetchone()
                found.append((time.perf_counter() - start) * 1e3)
                busy.append(processor_ms(connection.info.backend_pid) - before)
        what = f"{time_range} by {group_by}" + (f", against {baseline}" if baseline else "")
        rows.append({"what": what, "ms": statistics.median(found), "rows": groups, "requests": int(requests),
                     "slowest_ms": max(found), "processor_ms": statistics.median(busy)})  # fmt: skip
    return rows


def processor_ms(pid: int) -> float:
    """Processor time that a process has taken, to 10 ms; others on the machine hardly matter to it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def in_sqlite(count: int) -> list[dict[str, Any]]:
    """Rows for the service over an SQLite file, which adds up the outcomes themselves."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tinydancer-bench-") as folder, ExitStack() as closing:
        path = Path(folder) / "store.db"
        dancer = closing.enter_context(TinyDancer(SqliteStore(path)))
        price = CostModel(input_cost_per_token=1e-6, output_cost_per_token=5e-6)
        dancer.store.insert_agents([Agent(name=f"agent-{n:02}", cost=price) for n in range(AGENTS)], replace=False)
        _fill_sqlite(path, count)
        for group_by in ("agent", "objective", "day"):
            found, busy = [], []
            for _ in range(3):
                start, before = time.perf_counter(), time.process_time()
                answer = routing_analytics(dancer, "31 days", group_by)
                found.append((time.perf_counter() - start) * 1e3)
                busy.append((time.process_time() - before) * 1e3)
                if answer.totals.total_requests != count:
                    raise RuntimeError(f"{answer.totals.total_requests} of {count} outcomes were added up")
            rows.append(
                {
                    "what": f"SQLite, {count:,} outcomes by {group_by}", "ms": statistics.median(found),
                    "rows": len(answer.rows), "slowest_ms": max(found), "processor_ms": statistics.median(busy),
                }
            )  # fmt: skip
    return rows


def _fill_sqlite(path: Path, count: int) -> None:
    import random
    import sqlite3

    rng, now = random.Random(1), time.time()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(0, count, AT_ONCE):
            decided, observed = [], []
            for i in range(first, min(first + AT_ONCE, count)):
                agent, at, ms = (
                    1 + rng.randrange(AGENTS),
                    now - DAYS * 86_400.0 * (1 - i / count),
                    rng.lognormvariate(6, 0.6),
                )
                decided.append((f"d{i}", at, agent, OBJECTIVES[i % 3]))
                observed.append((agent, f"d{i}", at, ms, latency_bucket(ms), rng.random() / 1000, 200 + i % 77))
            connection.executemany(
                "INSERT INTO decisions (tenant, decision_id, decided_at, agent_id, objective, expected_quality,"
                " confidence, uncertainty, similarity_score, input_tokens, constraints)"
                " VALUES ('default', ?, ?, ?, ?, 0.8, 0.5, 0.1, 0.3, 100, '{}')", decided,
            )  # fmt: skip
            connection.executemany(
                "INSERT INTO outcomes (tenant, agent_id, decision_id, occurred_at, success, latency_ms, latency_bucket,"
                " cost_usd, output_tokens) VALUES ('default', ?, ?, ?, 1, ?, ?, ?, ?)", observed,
            )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=int, default=10_000_000, help="in PostgreSQL; 0 leaves it out")
    parser.add_argument(
        "--sqlite", default="100000,1000000", help="in SQLite, several with commas; empty leaves it out"
    )
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    rows = in_postgresql(options.outcomes) if options.outcomes else []
    for count in filter(None, options.sqlite.split(",")):
        rows += in_sqlite(int(count))
    table = Table(
        "analytics",
        "ms",
        "slowest",
        "processor",
        "rows",
        title=f"{AGENTS} agents, {DAYS} days, {len(OBJECTIVES)} objectives",
    )
    for row in rows:
        more = [f"{row[key]:,.0f}" if key in row else "" for key in ("slowest_ms", "processor_ms")]
        table.add_row(row["what"], f"{row['ms']:,.0f}", *more, f"{row['rows']:,}")
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
