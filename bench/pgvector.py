"""Measures nearest agents: our product over all vectors, pgvector's scan, and pgvector's HNSW index, at several sizes.

    sudo scripts/debian13.sh --run /venv/bin/python bench/pgvector.py [--sizes 1000,10000] [--json FILE]

In: a server with pgvector (PG_CONFIG names it). Out: a table, one row per size, for 384 dimensions and the ten nearest;
times are medians. Agents have the vectors of their descriptions, made of a few thousand phrases; queries are requests.
Recall is the share of the ten nearest that a search found, where one that is as near as the tenth counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# One core, as a backend has: before NumPy starts its threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

# ruff: noqa: E402
from bench import material
from bench.postgres import connect, mapped_mb, server

DIM = material.DIM
NEAREST = 10
QUERIES = 200
ROUNDS = 3
SIZES = (1_000, 10_000, 50_000, 100_000)
EF_SEARCH = (40, 100, 200)
_PLACES = (
    "in Lisbon", "in Ghent", "in Turku", "in Graz", "in Cork", "in Porto", "in Leeds", "in Malmö", "in Basel",
    "in Riga", "in Lyon", "in Cadiz", "in Split", "in Brno", "in Bergen", "in Delft", "in Kiel", "in Bari",
    "in Ulm", "in Nice",
)  # fmt: skip

Vectors = npt.NDArray[np.float32]


@dataclass
class Result:
    """What one size costs. Times in milliseconds, sizes in MB (10^6 bytes)."""

    agents: int
    product_ms: float
    scan_ms: float
    hnsw_ms: dict[int, float]
    recall: dict[int, float]
    function_ms: float
    by_index: bool
    find_ms: float
    build_s: float
    index_mb: float
    vectors_mb: float
    first_route_ms: float
    first_route_mb: float
    first_nearest_ms: float
    first_nearest_mb: float


def descriptions(n: int) -> list[str]:
    """`n` different descriptions of agents, in an order that mixes their parts."""
    parts = (material._CRAFTS, material._FIELDS, material._MANNERS, material._CRAFTS, _PLACES)
    every = [f"This agent {a} {b}, {c}, and {d} {e}." for a, b, c, d, e in itertools.product(*parts) if a != d]
    order = np.random.default_rng(6).permutation(len(every))[:n]
    return [every[i] for i in order]


def fill(dsn: str, n: int) -> None:
    """A database with `n` agents and the queries."""
    with connect(dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
        connection.execute("CREATE TABLE texts (id int, content text)")
        with connection.cursor().copy("COPY texts FROM STDIN") as copy:
            for row in enumerate(descriptions(n)):
                copy.write_row(row)
        # One by the front door, which binds the database to its space; the others as it would write them.
        connection.execute("SELECT ruvector_register_agent('first', 'llm', ARRAY['all'], 0.01, 100.0, 0.5)")
        connection.execute(
            """INSERT INTO tiny_dancer.agents (name, agent_type, capabilities, cost_model, avg_latency_ms,
                   quality_score, metadata, embedding)
               SELECT 'agent-' || id, 'llm', ARRAY[split_part(content, ' ', 3)],
                   '{"cost_per_request": 0.01}', 100.0, 0.5, jsonb_build_object('description', content),
                   ruvector_embed(content)
               FROM texts"""
        )
        connection.execute("DELETE FROM tiny_dancer.agents WHERE name = 'first'")
        connection.execute("CREATE TABLE queries (id int PRIMARY KEY, content text, embedding real[], v vector(384))")
        texts = material.many_requests(QUERIES * 40)[::40]
        connection.cursor().executemany("INSERT INTO queries (id, content) VALUES (%s, %s)", list(enumerate(texts)))
        connection.execute("UPDATE queries SET embedding = ruvector_embed(content)")
        connection.execute("UPDATE queries SET v = embedding::vector(384)")
        connection.execute("VACUUM ANALYZE")


def read(connection: Any, table: str, order: str) -> Vectors:
    """A column of vectors; PostgreSQL's binary array has a header of 20 bytes, and of 4 for each number."""
    rows = connection.execute(f"SELECT array_send(embedding) FROM {table} ORDER BY {order}").fetchall()
    both = np.frombuffer(b"".join(bytes(row[0])[20:] for row in rows), dtype=">f4").reshape(len(rows), DIM, 2)
    return both[:, :, 1].astype(np.float32)


def median_ms(operation: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Median over all items, each timed on its own, in several rounds of which the first does not count."""
    taken = []
    for number in range(ROUNDS + 1):
        for item in items:
            start = time.perf_counter_ns()
            operation(item)
            if number:
                taken.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(taken)


def statement_ms(connection: Any, sql: str, queries: int) -> float:
    """One statement answers that many queries; its time divided by them: the way to the server hardly counts."""
    taken = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter_ns()
        connection.execute(sql)
        taken.append((time.perf_counter_ns() - start) / 1e6 / queries)
    return statistics.median(taken[1:])


SEARCH = """SELECT q.id, a.name, 1 - (a.embedding::vector(384) <=> q.v) AS similarity
    FROM (SELECT * FROM queries WHERE id < {queries}) AS q, LATERAL (
        SELECT name, embedding FROM tiny_dancer.agents
        WHERE tenant = 'default' AND removed_at IS NULL AND is_active AND embedding IS NOT NULL
        ORDER BY embedding::vector(384) <=> q.v LIMIT 10) AS a"""
COUNTED = "SELECT count(similarity) FROM ({search}) AS s"


def in_new_session(dsn: str, sql: str) -> tuple[float, float]:
    """Milliseconds of the first call of a session, and the private memory (MB) that its backend has more afterwards."""
    times, growth = [], []
    for _ in range(3):
        with connect(dsn) as connection:
            connection.execute("SELECT count(content) FROM queries")
            pid = connection.info.backend_pid
            before = mapped_mb(pid)["private"]
            start = time.perf_counter_ns()
            connection.execute(sql)
            times.append((time.perf_counter_ns() - start) / 1e6)
            growth.append(mapped_mb(pid)["private"] - before)
    return statistics.median(times), statistics.median(growth)


def scans_of_index(connection: Any) -> int:
    """How many times the index was used until now."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    sql = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'agents_by_embedding'"
    return int(connection.execute(sql).fetchone()[0])


def measure(n: int) -> Result:
    """Everything of one size, in a database of its own that is dropped at the end."""
    cluster, name = server(), f"nearest_{n}"
    dsn = cluster.dsn(name)
    with connect(cluster.dsn()) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        fill(dsn, n)
        with connect(dsn) as connection:
            return _measured(connection, dsn, n)
    finally:
        with connect(cluster.dsn()) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _measured(connection: Any, dsn: str, n: int) -> Result:
    agents, queries = read(connection, "tiny_dancer.agents", "name"), read(connection, "queries", "id")

    def product(query: Vectors) -> Vectors:
        similarity = agents @ query
        best = np.argpartition(similarity, -NEAREST)[-NEAREST:]
        found: Vectors = similarity[best[np.argsort(-similarity[best])]]
        return found

    tenth = np.array([product(query)[-1] for query in queries])
    few = max(5, min(QUERIES, 200_000 // n))  # a scan looks at every row for each of them
    connection.execute("SET enable_indexscan = off")
    scan_ms = statement_ms(connection, COUNTED.format(search=SEARCH.format(queries=few)), few)
    connection.execute("RESET enable_indexscan")
    first_route = in_new_session(dsn, "SELECT ruvector_route(embedding) FROM queries WHERE id = 0")
    start = time.perf_counter()
    for i in range(5):
        connection.execute("SELECT count(*) FROM ruvector_find_agents_by_capability(%s)", (f"contracts {i}",))
        if i == 0:
            start = time.perf_counter()
    find_ms = (time.perf_counter() - start) * 1e3 / 4

    start = time.perf_counter()
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("SELECT tiny_dancer.build_agent_index()")
    build_s = time.perf_counter() - start
    connection.execute("VACUUM ANALYZE tiny_dancer.agents")
    hnsw_ms, recall = {}, {}
    connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET hnsw.iterative_scan = strict_order")
    search = SEARCH.format(queries=QUERIES)
    for ef_search in EF_SEARCH:
        connection.execute(f"SET hnsw.ef_search = {ef_search}")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {search}").fetchall())
        assert "agents_by_embedding" in plan, plan
        found = np.zeros(QUERIES)
        for query, _, similarity in connection.execute(search).fetchall():
            found[query] += similarity >= tenth[query] - 1e-5
        recall[ef_search] = float(np.minimum(found, NEAREST).mean() / NEAREST)
        hnsw_ms[ef_search] = statement_ms(connection, COUNTED.format(search=search), QUERIES)
    connection.execute("RESET ALL")
    nearest = """SELECT count(n.name) FROM (SELECT * FROM queries WHERE id < {0}) AS q,
                 LATERAL tiny_dancer.nearest_agents(q.embedding) AS n"""
    before = scans_of_index(connection)
    connection.execute(nearest.format(1))
    by_index = scans_of_index(connection) > before
    asked = QUERIES if by_index else few
    function_ms = statement_ms(connection, nearest.format(asked), asked)
    first_nearest = in_new_session(dsn, nearest.format(1))
    (index_mb,) = connection.execute("SELECT pg_relation_size('tiny_dancer.agents_by_embedding') / 1e6").fetchone()
    return Result(
        agents=n, product_ms=median_ms(product, list(queries)), scan_ms=scan_ms, hnsw_ms=hnsw_ms, recall=recall,
        function_ms=function_ms, by_index=by_index, find_ms=find_ms, build_s=build_s, index_mb=float(index_mb),
        vectors_mb=agents.nbytes / 1e6, first_route_ms=first_route[0], first_route_mb=first_route[1],
        first_nearest_ms=first_nearest[0], first_nearest_mb=first_nearest[1],
    )  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown."""
    heads = ["agents", "product", "pgvector scan"]
    heads += [f"HNSW, ef {ef} (recall)" for ef in EF_SEARCH]
    heads += ["nearest_agents", "find_agents_by_capability", "build", "index", "first route in a session (memory)",
              "first nearest_agents (memory)"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "| ---: " * len(heads) + "|"]
    for r in results:
        cells = [f"{r.agents:,}", f"{r.product_ms:.3g} ms", f"{r.scan_ms:.3g} ms"]
        cells += [f"{r.hnsw_ms[ef]:.3g} ms ({r.recall[ef]:.3f})" for ef in EF_SEARCH]
        cells += [f"{r.function_ms:.3g} ms ({'index' if r.by_index else 'scan'})", f"{r.find_ms:.3g} ms",
                  f"{r.build_s:.3g} s", f"{r.index_mb:.3g} MB",
                  f"{r.first_route_ms:.3g} ms ({r.first_route_mb:.3g} MB)",
                  f"{r.first_nearest_ms:.3g} ms ({r.first_nearest_mb:.3g} MB)"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Nearest agents: a product, a scan, and an HNSW index.")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of agents, with commas")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    given = parser.parse_args(arguments)
    results = []
    for size in given.sizes.split(","):
        results.append(measure(int(size)))
        print(table(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    with connect(server().dsn()) as connection:
        (version,) = connection.execute("SHOW server_version").fetchone()
        (pgvector,) = connection.execute(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    print(f"PostgreSQL {version}, pgvector {pgvector}\n\n{table(results)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
