"""Budgets in SQL: made, changed and looked at; spent by 64 sessions at once; rolled back with what spent them."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest

from tests.extension.test_errors import shows_nothing_of_python

ROUTE = "SELECT agent_name FROM ruvector_route('Prove the theorem.', 'quality', context => %s, on_no_match => 'null')"
TEAM = json.dumps({"key": "team"})
USED = "SELECT spent_usd, reserved_usd FROM ruvector_list_budgets() WHERE name = %s"


def test_a_budget_is_made_changed_and_removed(agents):
    assert agents.one(
        """SELECT ruvector_create_budget('search', 10, 'day', 'agent', 'gpt-4', 'cheapest', 'even', ARRAY[0.9, 0.25],
           'Europe/Berlin', '2026-01-01 00:00+01', ends_at => '2999-01-01 00:00+01', burst => 0.5,
           release_after => '15 minutes')"""
    )
    (row,) = agents.dicts("SELECT * FROM ruvector_list_budgets()")
    assert (row["name"], row["amount_usd"], row["period"], row["scope"], row["scope_value"]) == (
        "search", 10.0, "day", "agent", "gpt-4",
    )  # fmt: skip
    assert (row["on_limit"], row["pacing"], row["burst"], row["alert_at"]) == ("cheapest", "even", 0.5, [0.25, 0.9])
    assert (row["time_zone"], row["release_after_s"]) == ("Europe/Berlin", 900.0)
    assert row["starts_at"] == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert (row["is_active"], row["is_open"], row["spent_usd"], row["reserved_usd"]) == (True, True, 0.0, 0.0)
    assert 5.0 <= row["ceiling_usd"] <= 10.0
    assert 22 <= (row["period_end"] - row["period_start"]).total_seconds() / 3600 <= 26
    assert agents.one("""SELECT ruvector_update_budget('search', '{"amount_usd": 3, "pacing": "none", "period": 7}')""")
    (row,) = agents.dicts("SELECT * FROM ruvector_list_budgets()")
    assert (row["amount_usd"], row["ceiling_usd"], row["period"]) == (3.0, 3.0, "7")
    assert agents.one("SELECT ruvector_remove_budget('search')") is True
    assert agents.rows("SELECT * FROM ruvector_list_budgets()") == []


def test_routing_keeps_to_it_and_says_why_not(agents):
    agents.one("SELECT ruvector_create_budget('team', 0.07, 'total', 'key', 'team')")
    assert [agents.one(ROUTE, TEAM) for _ in range(8)] == ["gpt-4"] * 2 + ["gpt-3.5-turbo"] * 5 + [None]
    assert agents.rows(USED, "team")[0] == pytest.approx((0.0, 0.07))
    assert agents.one(ROUTE, json.dumps({"key": "else"})) == "gpt-4"
    assert (
        agents.one("SELECT ruvector_route(ruvector_embed('Prove the theorem.'), 'quality') ->> 'agent_name'") == "gpt-4"
    )
    failed = agents.fails("SELECT ruvector_route(ruvector_embed('x'), context => %s)", TEAM)
    assert failed.sqlstate == "P0002"
    assert "the budget 'team' (key team) has nothing left" in str(failed)
    shows_nothing_of_python(failed)
    rows = agents.rows(
        "SELECT agent_name FROM ruvector_batch_route(ARRAY['a', 'b'], context => %s, on_no_match => 'null')", TEAM
    )
    assert rows == [(None,), (None,)]
    agents.one("""SELECT ruvector_update_budget('team', '{"amount_usd": 0.1}')""")
    rows = agents.rows(
        "SELECT agent_name FROM ruvector_batch_route(ARRAY['a', 'b'], 'quality', context => %s, on_no_match => 'null')",
        TEAM,
    )
    assert rows == [("gpt-4",), (None,)]


def test_feedback_settles_and_alerts_are_told(agents):
    listener = agents.connect()
    listener.execute("LISTEN tiny_dancer_budget")
    agents.one("SELECT ruvector_create_budget('b', 0.1, alert_at => ARRAY[0.5, 0.9])")
    first = agents.one("SELECT ruvector_route(ruvector_embed('x'), 'quality') ->> 'decision_id'")
    agents.rows("SET tiny_dancer.record_decisions = off")
    second = agents.one("SELECT ruvector_route(ruvector_embed('x'), 'quality') ->> 'decision_id'")
    assert agents.rows(USED, "b")[0] == pytest.approx((0.0, 0.06))
    for decision, cost in ((first, 0.01), (second, 0.085)):  # the second was reserved, though not recorded
        assert agents.one("SELECT ruvector_feedback(%s, cost => %s)", decision, cost) is True
    assert agents.rows(USED, "b")[0] == pytest.approx((0.095, 0.0))
    told = [json.loads(n.payload) for n in listener.notifies(timeout=5, stop_after=2)]
    assert [(t["budget"], t["share"]) for t in told] == [("b", 0.5), ("b", 0.9)]
    alerts = agents.dicts("SELECT * FROM ruvector_budget_alerts('1 hour')")
    assert [(a["budget"], a["share"], a["amount_usd"]) for a in alerts] == [("b", 0.9, 0.1), ("b", 0.5, 0.1)]
    agents.one("SELECT ruvector_update_agent_metrics('gpt-4', 100, true, 0.9)")  # has no cost
    assert agents.rows(USED, "b")[0] == pytest.approx((0.095, 0.0))


def test_what_is_rolled_back_was_never_spent(agents):
    agents.one("SELECT ruvector_create_budget('b', 0.04)")
    with suppress(psycopg.Rollback), agents.connection.transaction():
        assert agents.one(ROUTE, None) == "gpt-4"
        assert agents.one(ROUTE, None) == "gpt-3.5-turbo"
        raise psycopg.Rollback
    assert agents.rows(USED, "b") == [(0.0, 0.0)]
    assert agents.one(ROUTE, None) == "gpt-4"


def test_a_read_only_transaction_keeps_to_it_and_reserves_nothing(agents):
    agents.one("SELECT ruvector_create_budget('b', 0.031)")
    agents.rows("SET default_transaction_read_only = on")
    assert [agents.one(ROUTE, None) for _ in range(3)] == ["gpt-4"] * 3
    assert agents.rows(USED, "b") == [(0.0, 0.0)]
    agents.rows("SET default_transaction_read_only = off")
    assert agents.one(ROUTE, None) == "gpt-4"
    agents.rows("SET default_transaction_read_only = on")
    assert agents.one(ROUTE, None) is None
    assert agents.fails("SELECT ruvector_create_budget('c', 1)").sqlstate == "25006"


def test_other_forms_of_routing_reserve_too(agents):
    agents.one("SELECT ruvector_create_budget('b', 1.0, 'total')")
    rows = agents.rows("SELECT estimated_cost FROM ruvector_batch_route(ARRAY['a', 'b', 'c'], 'total_cost')")
    rows += agents.rows("SELECT estimated_cost FROM ruvector_route_multi('Do it', 2, 'parallel')")
    rows += agents.rows("SELECT estimated_cost FROM ruvector_route_multi('Do it', 3, 'pipeline')")
    assert agents.rows(USED, "b")[0] == pytest.approx((0.0, sum(row[0] for row in rows)))


def test_roles(agents, role):
    agents.one("SELECT ruvector_create_budget('b', 0.06, 'total')")
    for group, may_spend in (("tiny_dancer_router", True), ("tiny_dancer_reader", False)):
        with psycopg.connect(agents.dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role(group)}")
            if not may_spend:
                connection.execute("SET tiny_dancer.record_decisions = off")
            before = agents.rows(USED, "b")[0]
            row = connection.execute(ROUTE, (None,)).fetchone()
            assert row == ("gpt-4",)
            assert (agents.rows(USED, "b")[0] != before) == may_spend
            for attempt in ("SELECT ruvector_create_budget('c', 1)", "SELECT ruvector_remove_budget('b')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                    connection.execute(attempt)
                shows_nothing_of_python(caught.value)


@pytest.mark.parametrize(
    ("call", "sqlstate", "says"),
    [
        ("ruvector_create_budget('b', -1)", "22023", "amount_usd is -1"),
        ("ruvector_create_budget('b', 1, 'fortnight')", "22023", "Unknown period 'fortnight'"),
        ("ruvector_create_budget('b', 1, scope => 'team')", "22023", "Unknown scope 'team'"),
        ("ruvector_create_budget('b', 1, on_limit => 'stop')", "22023", "Unknown on_limit 'stop'"),
        ("ruvector_create_budget('b', 1, time_zone => 'Mars/Base')", "22023", "Unknown time_zone 'Mars/Base'"),
        ("ruvector_create_budget('b', 1, starts_at => '2027-01-01', ends_at => '2026-01-01')", "22023", "not after"),
        ("ruvector_create_budget('b', 1, scope => 'agent', scope_value => 'gpt-5')", "42704", "'gpt-5', which is not"),
        ("ruvector_create_budget('b', 1, 'total', pacing => 'even')", "22023", "cannot be paced evenly"),
        ("ruvector_create_budget('b', 1, alert_at => ARRAY[0, 0.5])", "22023", "expected numbers in (0, 1]"),
        ("ruvector_create_budget('b', 1, alert_at => ARRAY[NULL, 0.5])", "22023", "alert_at holds a NULL"),
        ("ruvector_create_budget('TAKEN', 1)", "42710", "in capitals only"),
        ("ruvector_create_budget(NULL, 1)", "22023", "has no name"),
        ("ruvector_update_budget('taken', '{\"amount\": 1}')", "22023", "Unknown field"),
        ("ruvector_update_budget('taken', NULL)", "22023", "is NULL"),
        ("ruvector_remove_budget('tkaen')", "42704", "no budget named 'tkaen'"),
    ],
)  # fmt: skip
def test_bad_input(agents, call, sqlstate, says):
    agents.one("SELECT ruvector_create_budget('taken', 1)")
    failed = agents.fails(f"SELECT {call}")
    assert (failed.sqlstate, says in str(failed)) == (sqlstate, True), str(failed)
    shows_nothing_of_python(failed)


def test_tenants_spend_their_own(agents):
    agents.one("SELECT ruvector_create_budget('b', 0.03, 'total')")
    agents.rows("SET tiny_dancer.tenant = 'other'")
    agents.one("SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['coding'], 0.03, 500.0, 0.95)")
    assert agents.rows("SELECT * FROM ruvector_list_budgets()") == []
    agents.one("SELECT ruvector_create_budget('b', 0.06, 'total')")
    assert [agents.one(ROUTE, None) for _ in range(3)] == ["gpt-4", "gpt-4", None]
    agents.rows("RESET tiny_dancer.tenant")
    assert [agents.one(ROUTE, None) for _ in range(2)] == ["gpt-4", None]


def test_64_sessions_spend_a_budget_to_its_end(agents):
    agents.one("SELECT ruvector_create_budget('all', 9.0, 'total')")
    agents.one("SELECT ruvector_create_budget('team', 3.0, 'total', 'key', 'team', 'free')")
    chosen: list[str] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(64)

    def spend(connection, number):
        try:
            ready.wait(120)
            while True:
                (name,) = connection.execute(ROUTE, (TEAM,)).fetchone()
                if name is None:
                    return
                chosen.append(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=spend, args=(agents.connect(), number)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    cost = chosen.count("gpt-4") * 0.03 + chosen.count("gpt-3.5-turbo") * 0.002
    assert 3.0 - 0.002 < cost <= 3.0 + 1e-6
    for name in ("all", "team"):
        assert agents.rows(USED, name)[0] == pytest.approx((0.0, cost), abs=1e-9)
