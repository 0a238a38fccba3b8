"""What the tables of decisions and outcomes refuse, how the error names it, and that refusing costs little."""

from __future__ import annotations

import math

import psycopg
import pytest

from tests.postgres.conftest import execute
from tests.store.suite import agent, decision, outcome
from tinydancer.errors import InvalidInputError
from tinydancer.store.migrations import load_migrations
from tinydancer.store.pg_connection import PsycopgConnection
from tinydancer.store.pg_migrations import migrate
from tinydancer.store.pg_queries import MIGRATIONS_FOLDER
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres

REFUSED_DECISIONS = [
    ("objective", ""),
    *((field, bad) for field in ("expected_quality", "confidence", "uncertainty") for bad in (-0.01, 1.01, math.nan)),
    ("similarity_score", -1.01),
    ("similarity_score", 1.01),
    *((field, bad) for field in ("estimated_cost_usd", "estimated_latency_ms", "input_tokens")
      for bad in (-1.0, math.inf, math.nan)),
]  # fmt: skip
REFUSED_OUTCOMES = [
    ("quality", -0.01), ("quality", 1.01), ("latency_ms", -1.0), ("latency_ms", "'NaN'"), ("cost_usd", -1.0),
    ("cost_usd", "'Infinity'"), ("input_tokens", -1), ("output_tokens", -1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "bad"), REFUSED_DECISIONS)
def test_an_impossible_decision_is_refused_by_the_name_of_its_column(open_from_outside, field, bad):
    store = open_from_outside()
    store.insert_agent(agent("a"))
    for rows in ([decision("1", **{field: bad})], [decision("1"), decision("2", **{field: bad})]):
        with pytest.raises(InvalidInputError, match=f"decisions_{field}_check"):
            store.insert_decisions(rows)
    with pytest.raises(InvalidInputError, match="decisions_decision_id_check"):
        store.insert_decisions([decision("x" * 201)])
    assert store.list_decisions() == []


@pytest.mark.parametrize(("column", "bad"), REFUSED_OUTCOMES)
def test_an_impossible_outcome_is_refused_by_the_name_of_its_column(dsn, open_from_outside, column, bad):
    open_from_outside().insert_agent(agent("a"))
    columns = {"agent_id": "1", "occurred_at": "now()", "success": "true", column: str(bad)}
    if column == "quality":
        columns["quality_bin"] = "1"
    elif column == "latency_ms":
        columns["latency_bucket"] = "1"
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        execute(dsn, f"INSERT INTO tiny_dancer.outcomes ({', '.join(columns)}) VALUES ({', '.join(columns.values())})")
    assert caught.value.diag.constraint_name == f"outcomes_{column}_check"


@pytest.mark.parametrize(("column", "value"), [("quality", 0.5), ("latency_ms", 1.0), ("quality_bin", 1)])
def test_a_figure_and_its_bucket_come_together(dsn, open_from_outside, column, value):
    open_from_outside().insert_agent(agent("a"))
    with pytest.raises(psycopg.errors.CheckViolation, match="outcomes_bins_check"):
        execute(
            dsn,
            f"INSERT INTO tiny_dancer.outcomes (agent_id, occurred_at, success, {column}) "
            f"VALUES (1, now(), true, {value})",
        )


def test_the_tables_that_every_request_writes_to_have_next_to_no_constraints(dsn):
    """The server parses a table's constraints anew at each INSERT: new ranges belong into domains."""
    found = execute(
        dsn,
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid IN "
        "('tiny_dancer.decisions'::regclass, 'tiny_dancer.outcomes'::regclass, 'tiny_dancer.outcome_tail'::regclass)",
    )
    assert found == [("outcomes_bins_check",)]


def test_rows_from_before_the_domains_stay(empty_dsn):
    """And what the view of the traffic says of them."""
    connection = PsycopgConnection(empty_dsn)
    steps = load_migrations(MIGRATIONS_FOLDER)
    first = next(i for i, step in enumerate(steps) if step.name == "checks")
    migrate(connection, steps[:first])
    execute(
        empty_dsn,
        """
        INSERT INTO tiny_dancer.meta (space_name, space_dim) VALUES ('all-MiniLM-L6-v2', 384);
        INSERT INTO tiny_dancer.agents (name, agent_type) VALUES ('a', 'llm');
        INSERT INTO tiny_dancer.decisions (decision_id, decided_at, agent_id, objective, expected_quality, confidence,
            uncertainty, estimated_cost_usd, similarity_score, input_tokens)
        VALUES ('d', to_timestamp(1700000000), 1, 'cost', 0.5, 0.25, 1, 0.125, -1, 42);
        INSERT INTO tiny_dancer.outcomes (agent_id, decision_id, occurred_at, success, quality, quality_bin, cost_usd)
        VALUES (1, 'd', to_timestamp(1700000001), true, 0.75, 15, 0.5);
        """,
    )
    facts = "SELECT * FROM tiny_dancer.traffic_facts"
    before = execute(empty_dsn, facts)
    assert len(before) == 1
    assert migrate(connection) == len(steps) - first
    connection.close()
    assert execute(empty_dsn, facts) == before
    with PostgresStore.connect(empty_dsn) as store:
        row = store.get_decision("d")
        assert (row.expected_quality, row.confidence, row.similarity_score, row.input_tokens) == (0.5, 0.25, -1.0, 42.0)
        assert store.list_decisions() == [row]
        store.insert_outcomes([outcome("a", decision_id="d", quality=0.5)])
    security = "SELECT reloptions FROM pg_class WHERE oid = 'tiny_dancer.traffic_facts'::regclass"
    assert execute(empty_dsn, security) == [(["security_invoker=true"],)]
