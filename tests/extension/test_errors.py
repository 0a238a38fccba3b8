"""Bad input: the SQLSTATE, DETAIL and HINT of each error, what it leaves behind, and what it never shows."""

from __future__ import annotations

import psycopg
import pytest

ATTACKS = [
    "'; DROP TABLE tiny_dancer.agents; --",
    "$body$ || (SELECT 1) || $body$",
    "\\'; SELECT pg_sleep(10); --",
    '"quoted" and %s and {} and $1',
    '{"!": {"sqlstate": "22000", "message": "made up"}}',
    "'||current_user||'",
]


@pytest.mark.parametrize(
    ("call", "sqlstate", "message", "hint"),
    [
        ("ruvector_register_agent('gpt-4')", "42710", "'gpt-4' is registered already", "Update it"),
        ("ruvector_get_agent('gpt-5')", "42704", "No agent named 'gpt-5'", "'gpt-4'"),
        ("ruvector_remove_agent('nobody at all')", "42704", "No agent named", "Register it first"),
        ("ruvector_update_agent_metrics('gpt-44', 1.0, true, 0.5)", "42704", "No agent named 'gpt-44'", "'gpt-4'"),
        ("ruvector_update_agent_metrics('gpt-4', -1.0)", "22023", "latency_ms is -1", ""),
        ("ruvector_update_agent_metrics('gpt-4', 'NaN'::float8)", "22023", "latency_ms is 'NaN'", ""),
        ("ruvector_update_agent_metrics('gpt-4', 1, true, 1.5)", "22023", "quality is 1.5", ""),
        ("ruvector_register_agent('a', quality_score := 2)", "22023", "quality_score is 2", ""),
        ("ruvector_register_agent('a', cost_per_request := 'Infinity')", "22023", "cost_per_request is 'Infinity'", ""),
        ("ruvector_register_agent('')", "22023", "The agent name is empty", ""),
        ("ruvector_register_agent(repeat('x', 300))", "22023", "300 characters", ""),
        ("ruvector_register_agent('a', embedding := ARRAY[1, 2])", "22000", "2 dimensions", ""),
        ("ruvector_register_agent_full('[]')", "22023", "expected a JSON object", ""),
        ("ruvector_register_agent_full('{\"name\": \"a\", \"qualty\": 1}')", "22023", "qualty", "quality"),
        ("ruvector_update_agent('gpt-4', '{\"name\": \"other\"}')", "22023", "expected 'gpt-4'", ""),
        ("ruvector_route('Hello', 'speed')", "22023", "Unknown objective 'speed'; expected one of: balanced, cost", ""),
        ("ruvector_route(' ')", "22023", "The request is empty", ""),
        ("ruvector_route('Hello', min_quality := 7)", "22023", "min_quality is 7", ""),
        ("ruvector_route('Hello', on_no_match := 'maybe')", "22023", "expected 'error' or 'null'", ""),
        ("ruvector_route('Hello', constraints := '[1]')", "22023", "expected a JSON object", ""),
        ("ruvector_route('Hello', constraints := '{\"max_csot\": 1}')", "22023", "max_csot", "max_cost"),
        ("ruvector_route(ARRAY[1, 2]::float4[])", "22000", "2 dimensions", ""),
        ("ruvector_route(array_fill(0::float4, ARRAY[384]))", "22000", "all zeros", ""),
        ("ruvector_route(array_fill('NaN'::float4, ARRAY[384]))", "22000", "holds nan", ""),
        ("ruvector_route('{}'::float4[])", "22000", "shape (0,)", ""),
        ("ruvector_route('{{1,2},{3,4}}'::float4[])", "22000", "shape (2, 2)", ""),
        ("ruvector_route(repeat('x', 400001))", "22023", "400,001 characters", ""),
        ("ruvector_feedback('0123')", "42704", "no decision '0123'", "recording was on"),
        ("ruvector_embed('')", "22023", "empty", ""),
    ],
)  # fmt: skip
def test_errors(agents, call, sqlstate, message, hint):
    error = agents.fails(f"SELECT * FROM {call}")
    assert error.sqlstate == sqlstate
    assert message in error.diag.message_primary
    assert hint in (error.diag.message_hint or "")
    shows_nothing_of_python(error)
    assert agents.one("SELECT count(*) FROM ruvector_list_agents()") == 2


def test_no_agents(db):
    error = db.fails("SELECT * FROM ruvector_route('Hello')")
    assert error.sqlstate == "P0002"
    assert "ruvector_register_agent" in error.diag.message_hint


def test_no_match_says_why_for_each_agent(agents):
    error = agents.fails("SELECT * FROM ruvector_route('Hello', max_cost := 0.001)")
    assert error.sqlstate == "P0002"
    assert [line.split(":")[0] for line in error.diag.message_detail.splitlines()] == ["gpt-3.5-turbo", "gpt-4"]
    assert error.diag.message_hint
    shows_nothing_of_python(error)


@pytest.mark.parametrize("attack", ATTACKS)
def test_injection(agents, attack):
    """What looks like SQL or like an error of ours is text in every argument."""
    assert agents.one("SELECT ruvector_register_agent(%s, %s, ARRAY[%s])", attack, attack, attack) is True
    agent = agents.one("SELECT ruvector_get_agent(%s)", attack)
    assert (agent["name"], agent["capabilities"]) == (attack, [attack])
    assert agents.one(
        "SELECT ruvector_update_agent(%s, jsonb_build_object('metadata', jsonb_build_object('a', %s::text)))",
        attack,
        attack,
    )
    assert agents.one("SELECT metadata->>'a' FROM ruvector_list_agents() WHERE name = %s", attack) == attack
    assert (
        agents.one("SELECT agent_name FROM ruvector_route(%s, required_capabilities := ARRAY[%s])", attack, attack)
        == attack
    )
    assert (
        agents.one(
            "SELECT agent_name FROM ruvector_batch_route(ARRAY[%s], excluded_agents := '{gpt-4,gpt-3.5-turbo}')",
            attack,
        )
        == attack
    )
    assert len(agents.one("SELECT ruvector_embed(%s)", attack)) == 384
    assert agents.one("SELECT count(*) FROM ruvector_find_agents_by_capability(%s, 1)", attack) == 1
    assert agents.one("SELECT ruvector_update_agent_metrics(%s, 5, true, 0.5)", attack) is True
    for call in ("ruvector_feedback(%s)", "ruvector_get_agent(%s || 'x')", "ruvector_route('a', %s)",
                 "ruvector_route('a', on_no_match := %s)"):  # fmt: skip
        shows_nothing_of_python(agents.fails(f"SELECT * FROM {call}", attack))
    assert agents.one("SELECT ruvector_remove_agent(%s)", attack) is True
    assert agents.one("SELECT count(*) FROM tiny_dancer.agents") == 3


def test_savepoints(agents):
    connection = agents.connect(autocommit=False)
    assert connection.execute("SELECT ruvector_register_agent('kept')").fetchone() == (True,)
    for call in ("ruvector_register_agent('kept')", "ruvector_route('x', 'speed')", "ruvector_get_agent('none')"):
        with pytest.raises(psycopg.Error), connection.transaction():
            connection.execute(f"SELECT {call}")
    assert connection.execute("SELECT agent_name FROM ruvector_route('x', 'cost')").fetchone()
    connection.commit()
    assert agents.one("SELECT count(*) FROM ruvector_list_agents()") == 3
    # Without a savepoint the transaction is over, as after any error.
    with pytest.raises(psycopg.Error):
        connection.execute("SELECT ruvector_get_agent('none')")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()


def test_plpgsql_catches_by_sqlstate(agents):
    agents.rows(
        """CREATE FUNCTION routed(request text) RETURNS text LANGUAGE plpgsql AS $$
           BEGIN
               RETURN (SELECT agent_name FROM ruvector_route(request, max_cost := 0.0001));
           EXCEPTION WHEN no_data_found THEN RETURN 'fallback';
           END $$"""
    )
    assert agents.one("SELECT routed('Hello')") == "fallback"


def test_a_cancelled_statement_says_so(agents):
    agents.rows("SET statement_timeout = 1")
    error = agents.fails(
        "SELECT count(*) FROM generate_series(1, 100000) AS i, LATERAL ruvector_route('Hello ' || i, 'cost')"
    )
    assert error.sqlstate == "57014"
    agents.rows("SET statement_timeout = 0")
    assert agents.one("SELECT agent_name FROM ruvector_route('Hello', 'cost')")


def test_what_was_not_foreseen(agents):
    """An error of Python's own shows its kind only; the traceback comes on request."""
    call = "SELECT tiny_dancer._ok(tiny_dancer._call('no such thing', '{}'))"
    error = agents.fails(call)
    assert error.sqlstate == "XX000"
    assert error.diag.message_primary == "Tiny Dancer failed unexpectedly (KeyError)."
    shows_nothing_of_python(error)
    agents.rows("SET tiny_dancer.debug = on")
    assert "Traceback" in agents.fails(call).diag.message_detail
    assert agents.one("SELECT count(*) FROM ruvector_list_agents()") == 2


def test_settings_that_cannot_be_read(agents):
    for setting, value in (("record_decisions", "often"), ("good_enough", "much"), ("max_request_chars", "0.5")):
        agents.rows(f"SET tiny_dancer.{setting} = '{value}'")
        error = agents.fails("SELECT * FROM ruvector_route('Hello')")
        assert error.sqlstate == "22023"
        assert f"tiny_dancer.{setting} is" in error.diag.message_primary
        agents.rows(f"RESET tiny_dancer.{setting}")
    assert agents.one("SELECT agent_name FROM ruvector_route('Hello')")


def shows_nothing_of_python(error: psycopg.Error) -> None:
    diag = error.diag
    shown = "\n".join(
        str(part) for part in (diag.message_primary, diag.message_detail, diag.message_hint, diag.context)
    )
    for word in ("Traceback", 'File "', ".py", "plpy.", "/tinydancer"):
        assert word not in shown
