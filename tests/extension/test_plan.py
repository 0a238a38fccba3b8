"""Plans in SQL: teams, batches under one account, budgets; what the documents print runs as they print it."""

from __future__ import annotations

import pytest

from tests.extension.test_documents import REGISTRATION
from tests.extension.test_errors import shows_nothing_of_python


@pytest.fixture
def plan(db):
    """The agents of the second document."""
    for statement in REGISTRATION.split(";"):
        assert db.one(statement) is True
    return db


def test_the_documents_team(plan):
    rows = plan.dicts(
        """
        SELECT * FROM ruvector_route_multi(
            request := 'Build and deploy a web application',
            num_agents := 3,
            strategy := 'pipeline'  -- or 'parallel', 'ensemble'
        );
        """
    )
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert [row["role"] for row in rows] == ["plan", "carry out", "review"]
    assert {row["agent_name"] for row in rows} <= {"gpt-4", "claude-3-haiku", "code-specialist"}
    assert rows[0]["combined_cost"] == pytest.approx(sum(row["estimated_cost"] for row in rows))
    for row in rows:
        assert plan.one("SELECT ruvector_feedback(%s, quality := 0.8)", row["decision_id"]) is True


@pytest.mark.parametrize("strategy", ["parallel", "ensemble", "cascade"])
def test_the_other_strategies(plan, strategy):
    rows = plan.dicts("SELECT * FROM ruvector_route_multi('Build and deploy a web application', 3, %s)", strategy)
    assert 1 <= len(rows) <= 3
    assert {row["strategy_used"] for row in rows} == {strategy}
    assert len({row["agent_name"] for row in rows}) == len(rows)
    assert 0.0 < rows[0]["combined_quality"] <= 1.0
    assert plan.one("SELECT ruvector_routing_stats()")["decisions_by_objective"] == {strategy: len(rows)}
    if strategy == "cascade":
        assert rows[-1]["escalate_below"] is None
        assert rows[0]["reached"] == pytest.approx(1.0)


def test_options_and_constraints(plan):
    rows = plan.dicts(
        """SELECT * FROM ruvector_route_multi('A small program', strategy := 'pipeline', options := %s)""",
        '{"stages": ["Analyse the wish.", {"role": "test", "required_capabilities": ["testing"]}]}',
    )
    assert [(row["role"], row["position"]) for row in rows] == [("Analyse the wish.", 1), ("test", 2)]
    assert rows[1]["agent_name"] == "code-specialist"
    ensemble = "SELECT agent_name FROM ruvector_route_multi('A small program', 3, 'ensemble', %s)"
    assert ("gpt-4",) not in plan.rows(ensemble, '{"budget_remaining": 0.005}')


BATCH = """
    SELECT * FROM ruvector_batch_route(
        requests := ARRAY[
            'Simple question 1',
            'Complex analysis task',
            'Code generation request'
        ],
        optimize_for := 'total_cost'
    );
"""


def test_the_documents_batch(plan):
    rows = plan.dicts(BATCH)
    assert [row["request_number"] for row in rows] == [1, 2, 3]
    assert {row["objective"] for row in rows} == {"total_cost"}
    one_by_one = plan.dicts(BATCH.replace("total_cost", "cost"))
    assert sum(row["estimated_cost"] for row in rows) <= sum(row["estimated_cost"] for row in one_by_one) + 1e-12
    assert plan.one("SELECT ruvector_feedback(%s, quality := 0.8)", rows[0]["decision_id"]) is True


def test_a_batch_under_a_floor_a_budget_and_capacities(plan):
    batch = """
        SELECT agent_name, estimated_cost, expected_quality, reasoning
        FROM ruvector_batch_route(ARRAY['Simple question 1', 'Complex analysis task', 'Code generation request'],
                                  'total_cost', constraints := %s, explain := true)
    """
    good = plan.rows(batch, '{"min_mean_quality": 0.85}')
    assert sum(row[2] for row in good) / 3 >= 0.85
    assert all("floor 0.85" in row[3] for row in good)
    cheap = plan.rows(batch, '{"budget_remaining": 0.003}')
    assert sum(row[1] for row in cheap) <= 0.003
    few = plan.rows(batch, '{"capacities": {"claude-3-haiku": 1, "code-specialist": 1}}')
    assert sorted(row[0] for row in few) == ["claude-3-haiku", "code-specialist", "gpt-4"]
    for limits, message in (
        ('{"min_mean_quality": 0.999}', "the most is"),
        ('{"budget_remaining": 0.000001}', "the cheapest assignment costs"),
        ('{"capacities": {"gpt-4": 0, "claude-3-haiku": 1, "code-specialist": 1}}', "without an agent"),
    ):
        error = plan.fails(batch, limits)
        assert error.sqlstate == "P0002"
        assert message in error.diag.message_primary
        assert error.diag.message_hint
        shows_nothing_of_python(error)


def test_rows_and_vectors_are_assigned_too(plan):
    plan.rows("CREATE TABLE pending (id int, content text, embedding real[])")
    plan.rows(
        "INSERT INTO pending SELECT i, 'Question ' || i, ruvector_embed('Question ' || i) FROM generate_series(1, 5) i"
    )
    by_text = plan.rows(
        """SELECT r.id, r.agent_name
           FROM (SELECT array_agg(id::bigint) AS ids, array_agg(content) AS texts FROM pending) AS p,
           ruvector_route_rows(p.ids, p.texts, 'total_cost') AS r"""
    )
    by_vector = plan.rows(
        """SELECT r.request_number, r.agent_name FROM (SELECT array_agg(embedding) AS vectors FROM pending) AS p,
           ruvector_batch_route(p.vectors, 'TOTAL_COST') AS r"""
    )
    assert by_text == by_vector
    assert len(by_text) == 5


@pytest.mark.parametrize(
    ("sql", "sqlstate", "message"),
    [
        ("SELECT * FROM ruvector_batch_route('{}'::text[], 'total_cost')", "22023", "The batch is empty"),
        ("SELECT * FROM ruvector_batch_route(ARRAY['a', NULL], 'total_cost')", "22023", "Request number 2 is NULL"),
        ("SELECT * FROM ruvector_batch_route(NULL::text[], 'total_cost')", "22023", "The requests are NULL"),
        ("SELECT * FROM ruvector_batch_route(ARRAY[0.1, 0.2]::real[], 'total_cost')", "22000", "1 dimension"),
        ("SELECT * FROM ruvector_route_rows('{1}'::bigint[], ARRAY['a', 'b'], 'total_cost')", "22023", "1 ids and 2"),
        ("SELECT * FROM ruvector_route_multi('x', 3, 'swarm')", "22023", "Unknown strategy 'swarm'"),
        ("SELECT * FROM ruvector_route_multi('x', 0)", "22023", "num_agents is 0"),
        ("SELECT * FROM ruvector_route_multi(NULL)", "22023", "The request is NULL"),
        ("SELECT * FROM ruvector_route_multi('x', options := '[]')", "22023", "JSON object"),
        ("SELECT * FROM ruvector_route_multi('x', options := '{\"speed\": 1}')", "22023", "speed"),
        ("SELECT ruvector_optimize_budget(NULL)", "22023", "monthly_budget is NULL"),
        ("SELECT ruvector_optimize_budget(-1)", "22023", "monthly_budget"),
        ("SELECT ruvector_optimize_budget(1, 2)", "22023", "quality_threshold"),
        ("SELECT ruvector_optimize_budget(1, 0.5, 0.1)", "P0002", "can be planned with"),
    ],
)  # fmt: skip
def test_what_cannot_be(plan, sql, sqlstate, message):
    error = plan.fails(sql)
    assert (error.sqlstate, message in error.diag.message_primary) == (sqlstate, True), error.diag.message_primary
    shows_nothing_of_python(error)
    assert plan.one("SELECT ruvector_routing_stats()")["total_decisions"] == 0


BUDGET = """
    SELECT * FROM ruvector_optimize_budget(
        monthly_budget := 100.00,
        quality_threshold := 0.85,
        latency_threshold_ms := 2000
    );
"""


def test_the_documents_budget(plan):
    fresh = plan.one(BUDGET)
    assert fresh["allocations"] == pytest.approx({"code-specialist": 100.0})
    assert (fresh["total_budget"], fresh["period_days"]) == (100.0, 30)
    assert "No traffic" in fresh["assumption"]
    plan.rows("SELECT ruvector_route('Simple question ' || i, 'cost') FROM generate_series(1, 20) AS i")
    seen = plan.one(BUDGET)
    assert seen["observed_decisions"] == 20
    assert sum(seen["shares"].values()) == pytest.approx(1.0)
    assert set(seen["excluded"]) == {"gpt-4"}
    assert seen["assumption"] == ""
    assert seen["expected_spend"] <= 100.0


def test_a_budget_without_agents(db):
    error = db.fails("SELECT ruvector_optimize_budget(100)")
    assert (error.sqlstate, error.diag.message_hint) == ("P0002", "Register one with ruvector_register_agent.")


def test_a_budget_is_planned_in_a_transaction_that_only_reads(plan):
    with plan.connection.transaction():
        plan.rows("SET TRANSACTION READ ONLY")
        assert plan.one(BUDGET)["total_budget"] == 100.0


def test_another_tenants_traffic_is_not_seen(plan):
    plan.rows("SELECT ruvector_route('Simple question ' || i, 'cost') FROM generate_series(1, 20) AS i")
    plan.rows("SET tiny_dancer.tenant = 'other'")
    assert plan.one("SELECT ruvector_register_agent('alone', 'llm', ARRAY['x'], 0.01, 100, 0.9)") is True
    found = plan.one("SELECT ruvector_optimize_budget(100)")
    assert (found["observed_decisions"], list(found["allocations"])) == (0, ["alone"])
