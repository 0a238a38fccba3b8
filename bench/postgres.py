"""Measures the extension: decisions, outcomes and memory of sessions inside a PostgreSQL server.

    python bench/postgres.py [--only PATTERN] [--json FILE] [--seconds S] [--quick]

In: options as of ``bench/run.py``. Out: the same table and JSON. It starts a server of its own in a scratch folder,
with fsync on, and stops it at the end. Decisions are timed in the server: one statement routes many rows of a table,
and its time is divided by their number, so that the way to the server and back counts for nothing. Concurrent sessions
are pgbench's.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

# ruff: noqa: E402
from bench import material, report, run
from bench.measure import Effort, Operation, Sampler
from bench.registry import Place, Row
from rich.console import Console

from pg_cluster import Cluster, ClusterError, cluster_at, ensure_packages, scratch_folder
from pg_tree import make_tree
from tinydancer.cli import postgres_install

GROUP = "inside PostgreSQL"
VECTORS = 500
BATCH = 10_000
SESSIONS = 16
SECONDS = 2
"""Of one run of pgbench."""
MANY_BACKENDS = 8
SHARED_MEMORY = "/dev/zero"
"""What Linux calls the server's shared memory in the list of mappings."""
TABLE = "static.safetensors"
"""The mapped file that backends share: the embedder's token table."""
REPORT = "SELECT ruvector_update_agent_metrics('agent-0007', 300.0, true, 0.8);"
PLAIN_UPDATE = """
    UPDATE plain SET total = total + 1, successes = successes + 1, latency_sum_ms = latency_sum_ms + 300.0,
                     quality_sum = quality_sum + 0.8 WHERE name = 'agent-0007';"""
# The same rows come again and again, so no decision is reused.
ANEW = "SET tiny_dancer.decision_cache_entries = 0; SET tiny_dancer.record_decisions = "
OFF, ON = ANEW + "off", ANEW + "on"
BY_VECTOR = "SELECT count(ruvector_route(embedding, 'balanced', NULL)) FROM requests WHERE id <= %(rows)s"
BY_TEXT = """SELECT count(d.agent_name) FROM (SELECT content FROM requests WHERE id <= %(rows)s) AS r,
    LATERAL ruvector_route(r.content, 'balanced') AS d"""
N_ROUTES = 1000
ROUTE_BY_VECTOR = """SELECT count(DISTINCT r.id) FROM (SELECT id, embedding FROM requests WHERE id <= %(rows)s) AS r,
    LATERAL ruvector_semantic_route(r.embedding, 3) AS d"""
ROUTE_BY_TEXT = """SELECT count(DISTINCT r.id) FROM (SELECT id, content FROM requests WHERE id <= %(rows)s) AS r,
    LATERAL ruvector_semantic_route(r.content, 3) AS d"""
CLASSIFY = "SELECT count(ruvector_classify_request(content)) FROM requests WHERE id <= %(rows)s"
AT_ONCE = """SELECT count(d.agent_name) FROM (SELECT array_agg(content) AS given FROM requests) AS r,
    LATERAL ruvector_batch_route(r.given, 'balanced') AS d"""


_CLOSING = ExitStack()
atexit.register(_CLOSING.close)


@cache
def server() -> Cluster:
    """The server of this run, started when it is first asked for."""
    given = os.environ.get("PG_CONFIG")
    if given is None:
        ensure_packages()
    folder = _CLOSING.enter_context(scratch_folder("tiny_dancer_bench_"))
    private = make_tree(folder / "installation", pg_config=given)
    postgres_install.install(postgres_install.find_server(str(private)))
    cluster = cluster_at(folder / "cluster", pg_config=str(private))
    cluster.initialise()
    cluster.start()
    return cluster


@cache
def database(dim: int) -> str:
    """The connection string of a database with 20 agents and as many requests as the batch has, in `dim` dimensions."""
    cluster = server()
    name = f"bench_{dim}"
    with connect(cluster.dsn()) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with connect(cluster.dsn(name)) as connection:
        connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
        if dim != material.DIM:
            connection.execute("SELECT tiny_dancer.set_vector_space('bench', %s)", (dim,))
        draw = "(SELECT array_agg((random() - 0.5)::real) FROM generate_series(1, %s) WHERE {0} IS NOT NULL)"
        connection.execute("SELECT setseed(0.5)")
        for config in material.agent_configs(20):
            connection.execute(
                f"""SELECT ruvector_register_agent(%s, 'llm', %s, NULL, %s, %s, input_cost_per_token := %s,
                        output_cost_per_token := %s, embedding := {draw.format("%s::text")})""",
                (config["name"], config["capabilities"], config["avg_latency_ms"], config["quality_score"],
                 config["input_cost_per_token"], config["output_cost_per_token"], dim, config["name"]),
            )  # fmt: skip
        connection.execute("CREATE TABLE requests (id integer PRIMARY KEY, content text, embedding real[])")
        connection.cursor().executemany(
            "INSERT INTO requests (id, content) VALUES (%s, %s)", list(enumerate(material.many_requests(BATCH), 1))
        )
        connection.execute(f"UPDATE requests SET embedding = {draw.format('id')} WHERE id <= %s", (dim, VECTORS))
        connection.execute("CREATE TABLE plain (name text PRIMARY KEY, total bigint, successes bigint, "
                           "latency_sum_ms float8, quality_sum float8)")  # fmt: skip
        connection.execute("INSERT INTO plain VALUES ('agent-0007', 0, 0, 0, 0)")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")  # else the first rows would share the disk with what this wrote
    return cluster.dsn(name)


@cache
def with_routes(dim: int) -> str:
    """The same database with 1,000 semantic routes, each given by its vector; about half of them pass a request."""
    dsn = database(dim)
    with connect(dsn) as connection:
        connection.execute("SELECT setseed(0.25)")
        connection.execute(
            """SELECT count(ruvector_create_route(
                   'route-' || i, '', (SELECT array_agg((random() - 0.5)::real) FROM generate_series(1, %s)
                                       WHERE i IS NOT NULL), 'agent-0007'))
               FROM generate_series(1, %s) AS i""",
            (dim, N_ROUTES),
        )
    return dsn


def connect(dsn: str) -> Any:
    import psycopg

    return psycopg.connect(dsn, autocommit=True)


def _statement(
    dim: int, sql: str, rows: int, *settings: str, of: Callable[[int], str] = database
) -> Callable[[Place], Operation]:
    def prepare(place: Place) -> Operation:
        connection = place.closing.enter_context(connect(of(dim)))
        for setting in settings:
            connection.execute(setting)

        def run() -> None:
            (answered,) = connection.execute(sql, {"rows": rows}, prepare=True).fetchone()
            if answered != rows:
                raise RuntimeError(f"{answered} of {rows} requests were answered")

        return run

    return prepare


def _bench(sql: str, folder: Path, dsn: str) -> tuple[float, int]:
    """Transactions per second and their number, of 16 sessions that repeat one statement."""
    script = folder / "script.sql"
    folder.chmod(0o755)
    script.write_text(sql)
    script.chmod(0o644)
    name = re.findall(r"dbname=(\S+)", dsn)[0]
    done = server().program(
        "pgbench", "-n", "-M", "prepared", "-c", str(SESSIONS), "-j", "2", "-T", str(SECONDS), "-f", script, name
    )
    failed = re.findall(r"number of failed transactions: (\d+)", done.stdout)
    if failed and failed[0] != "0":
        raise RuntimeError(f"{failed[0]} transactions failed")
    rate = float(re.findall(r"tps = ([\d.]+) \(without", done.stdout)[0])
    return rate, int(re.findall(r"transactions actually processed: (\d+)", done.stdout)[0])


def reports_per_s(place: Place) -> Sampler:
    """`update_agent_metrics` by 16 sessions on one agent; fails if one report is lost."""
    dsn = database(material.DIM)
    connection = place.closing.enter_context(connect(dsn))

    def sample() -> float:
        count = "SELECT total_requests FROM ruvector_list_agents() WHERE name = 'agent-0007'"
        (before,) = connection.execute(count).fetchone()
        rate, transactions = _bench(REPORT, place.folder, dsn)
        (after,) = connection.execute(count).fetchone()
        if after - before != transactions:
            raise RuntimeError(f"{transactions} outcomes were reported, {after - before} counted")
        return rate

    return sample


def updates_per_s(place: Place) -> Sampler:
    """The design we do not have: statistics in one row per agent, which every session updates."""
    dsn = database(material.DIM)
    return lambda: _bench(PLAIN_UPDATE, place.folder, dsn)[0]


def updates_over_reports(place: Place) -> Sampler:
    """The rate of that design over ours, one right after the other."""
    ours, theirs = reports_per_s(place), updates_per_s(place)
    return lambda: theirs() / ours()


def _first_call_ms(sql: str) -> Callable[[Place], Sampler]:
    def prepare(place: Place) -> Sampler:
        dsn = database(material.DIM)

        def sample() -> float:
            with connect(dsn) as connection:
                connection.execute("SELECT 1")
                start = time.perf_counter_ns()
                connection.execute(sql)
                return (time.perf_counter_ns() - start) / 1e6

        return sample

    return prepare


def mapped_mb(pid: int, name: str | None = None) -> dict[str, float]:
    """Rss, Pss and private memory of a process, or of its mappings of one file, from /proc/PID/smaps.

    Without the server's shared memory, which is the same for all of its processes: Rss and Pss would grow with each
    page of a table that somebody reads.
    """
    sums = {"Rss": 0.0, "Pss": 0.0, "Private_Clean": 0.0, "Private_Dirty": 0.0}
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else ""
        elif words[0][:-1] in sums and (path != SHARED_MEMORY if name is None else path.endswith(name)):
            sums[words[0][:-1]] += int(words[1]) * 1024 / 1e6
    return {"Rss": sums["Rss"], "Pss": sums["Pss"], "private": sums["Private_Clean"] + sums["Private_Dirty"]}


def _growth_mb(measure: str, found: dict[str, float]) -> Callable[[Place], Sampler]:
    """What one of `MANY_BACKENDS` backends has more than before its first call; every measure of it goes to `found`."""

    def prepare(place: Place) -> Sampler:
        dsn = database(material.DIM)

        def sample() -> float:
            connections = [connect(dsn) for _ in range(MANY_BACKENDS)]
            try:
                one = connections[0]
                one.execute("SELECT count(content) FROM requests")
                before = mapped_mb(one.info.backend_pid)
                for connection in connections:
                    for sql in (BY_VECTOR, BY_TEXT):
                        connection.execute(sql, {"rows": 100})
                one.execute(AT_ONCE)
                after = mapped_mb(one.info.backend_pid)
            finally:
                for connection in connections:
                    connection.close()
            found.update({key: after[key] - before[key] for key in after})
            return found[measure]

        return sample

    return prepare


def _last_pss(found: dict[str, float]) -> Callable[[Place], Sampler]:
    return lambda place: lambda: found["Pss"]


def _table_mb(measure: str) -> Callable[[Place], Sampler]:
    """The token table in one of `MANY_BACKENDS` backends that have all embedded texts."""

    def prepare(place: Place) -> Sampler:
        dsn = database(material.DIM)

        def sample() -> float:
            connections = [connect(dsn) for _ in range(MANY_BACKENDS)]
            try:
                for connection in connections:
                    connection.execute(BY_TEXT, {"rows": VECTORS})
                return mapped_mb(connections[0].info.backend_pid, TABLE)[measure]
            finally:
                for connection in connections:
                    connection.close()

        return sample

    return prepare


def rows() -> list[Row]:
    """Everything that is measured."""
    made: list[Row] = []

    def timed(name: str, prepare: Callable[[Place], Operation], *, how: str, items: int, target: float | None,
              unit: Any = "µs") -> None:  # fmt: skip
        made.append(Row(name=name, group=GROUP, unit=unit, how=how, prepare=prepare, items=items, target=target))

    def sampled(name: str, prepare: Callable[[Place], Sampler], unit: Any, target: float | None, reference: str,
                beside: Callable[[Place], Sampler], how: str) -> None:  # fmt: skip
        """A row that measures itself beside another one that does; both are prepared in the row's place."""
        prepared: dict[str, Sampler] = {}

        def both(place: Place) -> Sampler:
            prepared["reference"] = beside(place)
            return prepare(place)

        made.append(Row(
            name=name, group=GROUP, unit=unit, how=how, prepare=both, target=target, reference=reference,
            reference_sampler=lambda: prepared["reference"](),  # noqa: PLW0108 (it exists once the row is prepared)
        ))  # fmt: skip

    each = f"a statement over {VECTORS} rows of a table, timed from outside, divided by {VECTORS}"
    for name, dim, sql, recording, target in (
        ("by float4[768], not recorded", 768, BY_VECTOR, OFF, 150.0),
        ("by float4[768], recorded", 768, BY_VECTOR, ON, 250.0),
        ("by float4[384], not recorded", 384, BY_VECTOR, OFF, None),
        ("by text, not recorded", 384, BY_TEXT, OFF, 250.0),
        ("by text, recorded", 384, BY_TEXT, ON, None),
    ):
        timed(f"ruvector_route {name}", _statement(dim, sql, VECTORS, recording), how=f"{each}; 20 agents",
              items=VECTORS, target=target)  # fmt: skip
    for name, dim, sql, target in (
        ("by float4[384]", 384, ROUTE_BY_VECTOR, 150.0),
        ("by float4[768]", 768, ROUTE_BY_VECTOR, 250.0),
        ("by text", 384, ROUTE_BY_TEXT, None),
    ):
        timed(f"ruvector_semantic_route {name}, {N_ROUTES:,} routes", _statement(dim, sql, VECTORS, of=with_routes),
              how=f"{each}; the first three routes", items=VECTORS, target=target)  # fmt: skip
    timed("ruvector_classify_request by text", _statement(384, CLASSIFY, VECTORS), how=each, items=VECTORS,
          target=None)  # fmt: skip
    for name, recording, target in (("not recorded", OFF, 20_000.0), ("recorded", ON, None)):
        timed(f"ruvector_batch_route, {BATCH:,} texts, {name}", _statement(384, AT_ONCE, BATCH, recording),
              how="one statement; 20 agents", unit="per s", items=BATCH, target=target)  # fmt: skip
    bare = _first_call_ms("DO LANGUAGE plpython3u 'pass'")
    for name, sql in (
        ("by text", "SELECT ruvector_route('Good morning!')"),
        ("by vector", "SELECT ruvector_route(embedding) FROM requests WHERE id = 1"),
    ):
        sampled(f"first call in a session, {name}", _first_call_ms(sql), "ms", 400.0, "empty PL/Python block", bare,
                 "the first statement of a new session but one; the decision recorded")  # fmt: skip

    pgbench = f"pgbench -M prepared, {SESSIONS} sessions for {SECONDS} s, fsync and synchronous_commit on"
    sampled(f"update_agent_metrics, {SESSIONS} sessions, one agent", reports_per_s, "per s", None,
             "plain UPDATE", updates_per_s, f"{pgbench}; fails if one is not counted")  # fmt: skip
    sampled(f"plain one-row UPDATE over that, {SESSIONS} sessions", updates_over_reports, "times", 0.2, "1",
            lambda place: lambda: 1.0, f"{pgbench}, in turn; the project asks for five times the rate")  # fmt: skip

    for name, measure, target in (("resident", "Rss", 60.0), ("private", "private", None)):
        found: dict[str, float] = {}
        sampled(f"growth of a backend, {name}", _growth_mb(measure, found), "MB", target, "Pss", _last_pss(found),
                f"one of {MANY_BACKENDS}, after 100 decisions by vector, 100 by text, {BATCH:,} at once, less before "
                "the first; /proc/PID/smaps without the server's shared memory")  # fmt: skip
    sampled(f"the token table in one of {MANY_BACKENDS} backends, resident", _table_mb("Rss"), "MB", None, "its Pss",
             _table_mb("Pss"), f"{TABLE}, mapped; Pss is its size divided by the backends that share it")  # fmt: skip

    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status says whether everything ran, not whether it was fast."""
    options = run._options(arguments)
    effort = Effort(seconds=options.seconds, quick=options.quick)
    chosen = [row for row in rows() if run._wanted(row, options.only)]
    if not chosen:
        print(f"No measurement is named like {options.only!r}.", file=sys.stderr)
        return 2
    try:
        results = run._run(chosen, effort)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with connect(server().dsn()) as connection:
        print(f"PostgreSQL {connection.execute('SHOW server_version').fetchone()[0]}")
    report.print_results(results, Console(width=None if sys.stdout.isatty() else 140, highlight=False))
    if options.markdown:
        Path(options.markdown).write_text(report.markdown(results, ()), encoding="utf-8")
    if options.json:
        facts = report.to_dict(results, (), quick=options.quick)
        Path(options.json).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
