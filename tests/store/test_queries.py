"""The SQL files: every statement is named, described, used, valid, and answered by an index where tables grow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinydancer.errors import StoreError
from tinydancer.store import (
    candidates,
    migrations,
    sqlite,
    sqlite_budgets,
    sqlite_models,
    sqlite_routes,
    sqlite_traffic,
)
from tinydancer.store.queries import SQL_FOLDER, load_queries
from tinydancer.store.sqlite import SqliteStore

QUERIES = SQL_FOLDER / "sqlite" / "queries"
FILES = sorted(QUERIES.glob("*.sql"))
ON_THE_WAY_OF_A_REQUEST = [
    "version", "insert_agent", "replace_agent", "get_agent", "list_agents", "get_decision", "list_decisions",
    "insert_decision", "insert_outcome", "tail", "rolled_up_stats", "rolled_up_histograms", "recent_residuals",
    "decision_totals", "query_candidates", "get_candidate", "routing_statistics",
    "active_model", "graded_features", "ability_state", "save_ability_state",
    "has_budgets", "budget_revision", "budget_use", "charge", "insert_reservation", "take_reservations", "has_due",
    "take_due", "decision_context", "reserved_agent", "traffic", "traffic_latencies",
]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    with SqliteStore(tmp_path / "x.db") as store:
        yield store


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_statement_is_valid_and_used(store, file):
    modules = "".join(
        Path(str(module.__file__)).read_text(encoding="utf-8")
        for module in (sqlite, sqlite_budgets, sqlite_models, sqlite_routes, sqlite_traffic, candidates, migrations)
    )
    queries = load_queries(file)
    assert queries
    for name, statement in queries.items():
        assert f'"{name}"' in modules, f"nobody uses {name}"
        parameters = {int(number) for number in re.findall(r"\?(\d+)", statement)}
        assert parameters == set(range(1, len(parameters) + 1)), name
        store._database.fetch(f"EXPLAIN {statement}", (None,) * len(parameters))


@pytest.mark.parametrize("name", ON_THE_WAY_OF_A_REQUEST)
def test_no_statement_reads_a_whole_table_that_grows(store, name):
    statement = {**sqlite._Q, **sqlite_models._Q, **sqlite_budgets._Q, **sqlite_traffic._Q, **candidates._Q}[name]
    parameters = len(set(re.findall(r"\?(\d+)", statement)))
    plan = [row[3] for row in store._database.fetch(f"EXPLAIN QUERY PLAN {statement}", (None,) * parameters)]
    assert [step for step in plan if re.match(r"SCAN (?!t\b|CONSTANT)", step)] == []
    if name in ("list_decisions", "list_agents", "tail", "recent_residuals", "graded_features"):
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan


@pytest.mark.parametrize(
    "text",
    [
        "-- name: one\nSELECT 1;\n",
        "-- name: one\n-- Described, but empty.\n",
        "-- name: one\n-- First.\nSELECT 1;\n-- name: one\n-- Again.\nSELECT 2;\n",
    ],
)
def test_a_statement_without_description_or_text_is_refused(tmp_path, text):
    (tmp_path / "x.sql").write_text(text)
    with pytest.raises(StoreError, match=r"x\.sql: the query 'one'"):
        load_queries(tmp_path / "x.sql")


def test_statements_come_without_their_comments(tmp_path):
    (tmp_path / "x.sql").write_text("-- A file.\n\n-- name: one\n-- Says one.\nSELECT 1,\n  -- and\n  2;\n")
    assert load_queries(tmp_path / "x.sql") == {"one": "SELECT 1,\n  2"}
