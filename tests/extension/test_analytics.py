"""The traffic in SQL: the documents' statement, every grouping, savings, what was there before, and who may do what."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.store.suite import outcome
from tinydancer.analytics import routing_analytics, row_dict
from tinydancer.service import TinyDancer
from tinydancer.store.postgres import PostgresStore

DOCUMENTS = "SELECT * FROM ruvector_routing_analytics(time_range := '7 days', group_by := 'agent')"


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


@pytest.fixture
def traffic(agents):
    """Two agents of the documents and a third with prices per token; outcomes in the record and in the tail."""
    agents.rows(
        "SELECT ruvector_register_agent('haiku', 'llm', '{general}', NULL, 400.0, 0.8,"
        " input_cost_per_token := 0.00000025, output_cost_per_token := 0.00000125)"
    )
    agents.rows("SELECT ruvector_register_agent('big', 'llm', '{general}', NULL, 900.0, 0.9,"
                " input_cost_per_token := 0.000003, output_cost_per_token := 0.000015)")  # fmt: skip
    for i in range(12):
        row = agents.dicts(
            "SELECT * FROM ruvector_route(%s, %s, context := %s)", f"Question {i}", ("cost", "quality")[i % 2],
            '{"task": "summary", "route_name": "support"}' if i % 3 else None,
        )[0]  # fmt: skip
        agents.rows(
            "SELECT ruvector_feedback(%s, quality := %s, latency_ms := %s, cost := %s, output_tokens := 50)",
            row["decision_id"], i / 12, 100.0 + i, 0.01 * i,
        )  # fmt: skip
        if i == 7:
            agents.rows("SELECT tiny_dancer._roll_up('default')")
    for i in range(5):
        agents.rows("SELECT ruvector_update_agent_metrics('haiku', %s, true, 0.75)", 20.0 + i)
    return agents


def test_the_documents_statement(agents):
    assert agents.dicts(DOCUMENTS) == []
    agents.rows("SELECT ruvector_update_agent_metrics('gpt-4', 250.0, true)")
    agents.rows("SELECT ruvector_update_agent_metrics('gpt-4', 750.0, false)")
    (row,) = agents.dicts(DOCUMENTS)
    assert list(row)[:5] == ["agent", "total_requests", "total_cost", "avg_latency_ms", "success_rate"]
    assert list(row.values())[:5] == ["gpt-4", 2, None, 500.0, 0.5]
    assert agents.dicts("SELECT * FROM ruvector_routing_analytics()") == [row]


@pytest.mark.parametrize("group_by", ["agent", "route", "tenant", "task", "day", "hour", "objective"])
def test_it_says_what_python_says(traffic, group_by):
    answer = traffic.dicts("SELECT * FROM ruvector_routing_analytics('30 days', %s, 'big', 'Asia/Kolkata')", group_by)
    with PostgresStore.connect(traffic.dsn) as store, TinyDancer(store) as dancer:
        found = routing_analytics(dancer, "30 days", group_by, "big", time_zone="Asia/Kolkata")
    assert [row["agent"] for row in answer] == [row.group for row in found.rows]
    for row, expected in zip(answer, found.rows, strict=True):
        assert_same(row, row_dict(expected))
    assert sum(row["total_requests"] for row in answer) == 17


def test_groups(traffic):
    def groups(group_by: str) -> dict[Any, int]:
        return dict(traffic.rows("SELECT agent, total_requests FROM ruvector_routing_analytics('1 day', %s)", group_by))

    assert groups("objective") == {"cost": 6, "quality": 6, None: 5}
    assert groups("task") == {"summary": 8, None: 9}
    assert groups("route") == {"support": 8, None: 9}
    assert groups("tenant") == {"default": 17}
    assert sum(groups("hour").values()) == 17


def test_savings(traffic):
    (total,) = traffic.dicts("SELECT * FROM ruvector_routing_analytics('1 day', 'tenant', 'big')")
    assert total["compared_requests"] == 12  # what haiku's five cost, nobody knows
    assert total["baseline_cost"] - total["total_cost"] == pytest.approx(total["saved"])
    assert total["cost_basis"].startswith("its price for their tokens")
    assert total["baseline_quality_low"] < total["baseline_quality"] < total["baseline_quality_high"]


def test_intervals_of_every_style(traffic):
    query = "SELECT sum(total_requests) FROM ruvector_routing_analytics(time_range := {})"
    for style in ("postgres", "postgres_verbose", "sql_standard", "iso_8601"):
        traffic.rows(f"SET intervalstyle = {style}")
        for given in ("'7 days'::interval", "interval '1 year 2 mons 3 days 04:05:06.5'", "make_interval(hours => 36)"):
            assert traffic.one(query.format(given)) == 17
        assert traffic.one(query.format("'90 minutes'")) == 17


def test_errors_say_what_is_expected(traffic):
    for query, code, words in (
        ("SELECT * FROM ruvector_routing_analytics('a while')", "22023", "expected an interval"),
        ("SELECT * FROM ruvector_routing_analytics('-1 days')", "22023", "ends before it begins"),
        ("SELECT * FROM ruvector_routing_analytics(interval '0')", "22023", "ends before it begins"),
        (
            "SELECT * FROM ruvector_routing_analytics('7 days', 'agents')",
            "22023",
            "agent, route, tenant, task, day, hour",
        ),
        ("SELECT * FROM ruvector_routing_analytics('7 days', 'agent', 'nobody')", "42704", "nobody"),
        ("SELECT * FROM ruvector_routing_analytics('7 days', 'day', NULL, 'Mars')", "22023", "time_zone"),
    ):
        error = traffic.fails(query)
        assert error.sqlstate == code
        assert words in error.diag.message_primary


def test_outcomes_of_before_are_told_of_and_added(traffic):
    query = "SELECT * FROM ruvector_routing_analytics('1 day', 'agent', 'big')"
    notices: list[str] = []
    traffic.connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    before = traffic.dicts(query)
    assert notices == []
    # As it is after an upgrade: rolled up, and not in the traffic.
    traffic.rows("SELECT tiny_dancer._roll_up('default')")
    traffic.rows("DELETE FROM tiny_dancer.traffic")
    traffic.rows("UPDATE tiny_dancer.rolled_up SET in_traffic = 0")
    assert traffic.rows(DOCUMENTS) == []
    assert len(notices) == 1
    assert "17 outcomes" in notices[0]
    assert "tiny_dancer.rebuild_traffic()" in notices[0]
    for _ in range(2):  # as often as one likes
        assert traffic.one("SELECT tiny_dancer.rebuild_traffic()") == 17
    after = traffic.dicts(query)
    assert len(after) == len(before)
    for one, other in zip(after, before, strict=True):
        assert_same(one, other)
    assert len(notices) == 1


def test_who_may_do_what(traffic, role):
    reader, router, admin = (role(f"tiny_dancer_{name}") for name in ("reader", "router", "admin"))
    for name in (reader, router, admin):
        traffic.rows(f"SET ROLE {name}")
        assert len(traffic.rows(DOCUMENTS)) >= 2
        traffic.rows("RESET ROLE")
    traffic.rows(f"SET ROLE {router}")
    traffic.rows("SELECT ruvector_update_agent_metrics('gpt-4', 5.0)")
    assert traffic.one("SELECT tiny_dancer._roll_up('default')") > 0
    assert traffic.fails("SELECT tiny_dancer.rebuild_traffic()").sqlstate == "42501"
    traffic.rows("RESET ROLE")
    traffic.rows(f"SET ROLE {admin}")
    assert traffic.one("SELECT tiny_dancer.rebuild_traffic()") == 18
    traffic.rows("RESET ROLE")


def test_a_read_only_transaction_reads_it(traffic):
    connection = traffic.connect()
    connection.execute("SET default_transaction_read_only = on")
    assert len(connection.execute(DOCUMENTS).fetchall()) >= 2
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("SELECT tiny_dancer.rebuild_traffic()")


def test_a_transaction_sees_its_own_outcomes(traffic):
    connection = traffic.connect()
    count = "SELECT sum(total_requests) FROM ruvector_routing_analytics()"
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT ruvector_update_agent_metrics('gpt-4', 5.0)")
        assert connection.execute(count).fetchone() == (18,)
    assert connection.execute(count).fetchone() == (17,)


def test_what_the_store_reports_from_outside_is_there(traffic):
    with PostgresStore.connect(traffic.dsn) as store:
        now = traffic.one("SELECT extract(epoch FROM now())::float8")
        store.insert_outcomes([outcome("gpt-4", occurred_at=now, cost_usd=0.5)] * 3)
    (row,) = (r for r in traffic.dicts(DOCUMENTS) if r["agent"] == "gpt-4")
    assert row["total_cost"] >= 1.5
