"""How the functions may be called: positions and names, defaults, NULLs, numeric types, kinds of vectors, many rows."""

from __future__ import annotations

import pytest

VECTOR = "(SELECT array_agg((i / 384.0)::{}) FROM generate_series(1, 384) AS i)"


@pytest.mark.parametrize(
    "arguments",
    [
        "'a', 'llm', ARRAY['x'], 0.03, 500.0, 0.95",
        "'a', 'llm', ARRAY['x'], 0.03::float4, 500, 0.95::numeric",
        "'a', 'llm', ARRAY['x'], 0.03::float8, 500::float4, 0.95::float8",
        "'a', 'llm', ARRAY['x'], NULL, NULL, NULL",
        "'a', NULL, NULL, NULL, NULL, NULL",
        "'a'",
        "'a', 'llm', '{}'",
        "'a', 'llm', ARRAY['x']::varchar[], 0.03, 500.0, quality_score := 0.95",
        "name := 'a', cost_per_call := 0.001",
        "name => 'a', cost_per_second => 0.001, avg_latency_ms => 20::smallint",
        "quality_score := 0.5, name := 'a', cost_per_1k_tokens := 1",
        "'a', 'llm', ARRAY['x'], metadata := '{\"k\": 1}', monthly_fixed_cost := 20, expected_output_tokens := 50",
        "'a', input_cost_per_token := 1e-6, output_cost_per_token := 2e-6, cached_input_cost_per_token := 0",
        f"'a', embedding := {VECTOR.format('float4')}",
    ],
)
def test_registration(db, arguments):
    assert db.one(f"SELECT ruvector_register_agent({arguments})") is True
    assert db.one("SELECT name FROM ruvector_list_agents()") == "a"


def test_prices_arrive_where_they_belong(db):
    db.rows("SELECT ruvector_register_agent('free', cost_per_request := 0)")
    db.rows("SELECT ruvector_register_agent('unknown')")
    db.rows("SELECT ruvector_register_agent('priced', cost_per_token := 0.5, cost_per_call := 0.25)")
    costs = dict(db.rows("SELECT name, cost_model FROM ruvector_list_agents()"))
    assert costs == {
        "free": {"cost_per_request": 0}, "unknown": {}, "priced": {"cost_per_token": 0.5, "cost_per_call": 0.25},
    }  # fmt: skip


def test_full_registration_and_changes(db):
    assert db.one(
        """SELECT ruvector_register_agent_full('{"name": "a", "type": "vision", "capabilities": ["ocr"],
               "cost_model": {"per_request": 0.01}, "performance": {"avg_latency_ms": 90}}')"""
    )
    assert db.one("SELECT ruvector_update_agent('a', '{\"quality_score\": 0.75, \"cost_per_call\": 0.5}')") is True
    agent = db.one("SELECT ruvector_get_agent('a')")
    assert (agent["agent_type"], agent["quality_score"], agent["avg_latency_ms"]) == ("vision", 0.75, 90)
    assert agent["cost_model"] == {"cost_per_request": 0.01, "cost_per_call": 0.5}
    assert db.one("SELECT ruvector_set_agent_active('a', false)") is True
    assert db.one("SELECT is_active FROM ruvector_list_agents()") is False
    assert db.one("SELECT ruvector_remove_agent('a')") is True
    assert db.rows("SELECT * FROM ruvector_list_agents()") == []


def test_clear_agents(agents):
    assert agents.one("SELECT ruvector_clear_agents()") is True
    assert agents.rows("SELECT * FROM ruvector_list_agents()") == []


def test_find_by_capability(agents):
    rows = agents.dicts("SELECT * FROM ruvector_find_agents_by_capability('CODING', 5)")
    assert [(row["name"], row["exact"], row["similarity"]) for row in rows[:1]] == [("gpt-4", True, 1.0)]
    assert len(agents.rows("SELECT * FROM ruvector_find_agents_by_capability('coding', 1)")) == 1
    assert len(agents.rows("SELECT * FROM ruvector_find_agents_by_capability('coding')")) == 2
    assert agents.rows("SELECT * FROM ruvector_find_agents_by_capability(capability := 'coding', \"limit\" := 0)") == []


@pytest.mark.parametrize("kind", ["float4", "float8", "numeric"])
def test_kinds_of_vectors(agents, kind):
    vector = VECTOR.format(kind)
    expected = agents.one(f"SELECT ruvector_route({VECTOR.format('float4')}, 'cost', NULL)->>'similarity_score'")
    assert agents.one(f"SELECT ruvector_route({vector}, 'cost', NULL)->>'similarity_score'") == expected
    assert agents.one(f"SELECT ruvector_route({vector})->>'agent_name'")
    assert agents.one(f"SELECT ruvector_route(request_embedding := {vector}, optimize_for := 'cost')->>'agent_name'")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ruvector_register_agent(NULL)", "The agent name is NULL"),
        ("ruvector_register_agent('a', capabilities := ARRAY['x', NULL])", "capabilities holds a NULL at position 2"),
        ("ruvector_register_agent_full(NULL)", "The agent is NULL"),
        ("ruvector_update_agent('gpt-4', NULL)", "The change is NULL"),
        ("ruvector_remove_agent(NULL)", "The agent name is NULL"),
        ("ruvector_set_agent_active('gpt-4', NULL)", "The new state is_active is NULL"),
        ("ruvector_get_agent(NULL)", "The agent name is NULL"),
        ("ruvector_find_agents_by_capability(NULL)", "The capability is NULL"),
        ("ruvector_route(NULL::float4[], 'cost', NULL)", "The request's embedding is NULL"),
        ("ruvector_route(NULL::text)", "The request is NULL"),
        ("ruvector_route('a', excluded_agents := ARRAY[NULL])", "excluded_agents holds a NULL at position 1"),
        ("ruvector_batch_route(NULL::text[])", "The requests are NULL"),
        ("ruvector_batch_route(ARRAY['a', NULL])", "Request number 2 is NULL"),
        ("ruvector_route_rows(ARRAY[1, 2], ARRAY['a'])", "2 ids and 1 requests are given"),
        ("ruvector_embed(NULL)", "The text is NULL"),
        ("ruvector_update_agent_metrics('gpt-4', 1, NULL)", "The value of success is NULL"),
        ("ruvector_feedback(NULL)", "The decision_id is NULL"),
        ("ruvector_route(array_fill(NULL::float4, ARRAY[384]))", "holds a NULL at position 1"),
    ],
)
def test_null_where_a_value_has_to_be(agents, call, message):
    error = agents.fails(f"SELECT * FROM {call}")
    assert message in error.diag.message_primary
    assert error.sqlstate[:2] == "22"


def test_null_is_the_default_elsewhere(agents):
    plain = agents.one("SELECT agent_name FROM ruvector_route('Hello there')")
    nulls = ", ".join(["NULL"] * 11)
    assert agents.one(f"SELECT agent_name FROM ruvector_route('Hello there', NULL, {nulls})") == plain
    assert agents.one("SELECT ruvector_update_agent_metrics('gpt-4', NULL, true, NULL)") is True


def test_limits_by_name_and_as_json_agree(agents):
    by_name = "SELECT agent_name FROM ruvector_route('Hello', 'quality', max_cost := 0.01)"
    assert agents.one(by_name) == "gpt-3.5-turbo"
    assert (
        agents.one("SELECT agent_name FROM ruvector_route('Hello', 'quality', constraints := '{\"max_cost\": 0.01}')")
        == "gpt-3.5-turbo"
    )
    assert (
        agents.one("SELECT agent_name FROM ruvector_route('Hello', 'cost', excluded_agents := ARRAY['gpt-3.5-turbo'])")
        == "gpt-4"
    )
    assert (
        agents.one("SELECT agent_name FROM ruvector_route('Hello', 'quality', budget_remaining := 0.005)")
        == "gpt-3.5-turbo"
    )


def test_one_decision_whatever_the_form(agents):
    """By text, by vector, in a batch and by rows: the same agent with the same figures."""
    text = "Write a parser for dates in Python"
    single = agents.dicts("SELECT * FROM ruvector_route(%s, 'balanced')", text)[0]
    vector = agents.one("SELECT ruvector_route(ruvector_embed(%s), 'balanced', NULL)", text)
    (batch,) = agents.dicts("SELECT * FROM ruvector_batch_route(ARRAY[%s])", text)
    (row,) = agents.dicts("SELECT * FROM ruvector_route_rows(ARRAY[7], ARRAY[%s], explain := true)", text)
    assert row["id"] == 7
    for other in (batch, row):
        for key in ("agent_name", "estimated_cost", "estimated_latency", "expected_quality", "confidence"):
            assert other[key] == pytest.approx(single[key]), key
    assert vector["agent_name"] == single["agent_name"]
    assert vector["expected_quality"] == pytest.approx(single["expected_quality"], abs=1e-6)
    assert row["reasoning"] == single["reasoning"]
    assert row["alternatives"] == single["alternatives"]
    assert batch["reasoning"] is None


def test_rows_of_a_query(agents):
    agents.rows(
        "CREATE TABLE pending AS SELECT i * 10 AS id, 'Write function ' || i AS content FROM generate_series(1, 300) i"
    )
    query = """SELECT d.id, p.content, d.agent_name
               FROM (SELECT array_agg(id) AS ids, array_agg({}) AS given FROM pending) AS q
               CROSS JOIN LATERAL ruvector_route_rows(q.ids, q.given, 'cost') AS d JOIN pending AS p USING (id)"""
    by_text = agents.rows(query.format("content"))
    assert len(by_text) == 300
    assert by_text == agents.rows(query.format("ruvector_embed(content)"))
    assert agents.one("SELECT count(*) FROM ruvector_route_rows('{}', '{}'::text[])") == 0
    assert agents.one("SELECT count(*) FROM ruvector_route_rows('{}', '{}'::float4[])") == 0
    assert agents.one("SELECT count(*) FROM ruvector_batch_route('{}'::text[])") == 0


def test_whose_request_it_is_is_recorded(agents):
    context = '{"key": "team-a", "tags": ["search"], "task": "summary", "route_name": "support"}'
    calls = (
        f"SELECT decision_id FROM ruvector_route('a text', context := '{context}')",
        f"SELECT ruvector_route(ruvector_embed('a text'), 'cost', context := '{context}') ->> 'decision_id'",
        f"SELECT decision_id FROM ruvector_batch_route(ARRAY['a text'], context := '{context}')",
        f"SELECT decision_id FROM ruvector_route_rows(ARRAY[7], ARRAY['a text'], context := '{context}')",
    )
    for call in calls:
        kept = agents.one(f"SELECT context FROM tiny_dancer.decisions WHERE decision_id = '{agents.one(call)}'")
        assert kept == {"key": "team-a", "tags": ["search"], "task": "summary", "route_name": "support"}
    for wrong in ('{"keys": "a"}', '{"tags": ["a", null]}', '{"key": ""}', '["key"]'):
        assert agents.fails(f"SELECT * FROM ruvector_route('a text', context := '{wrong}')").sqlstate == "22023"
    (plain,) = agents.dicts("SELECT * FROM ruvector_route('a text')")
    row = f"SELECT context FROM tiny_dancer.decisions WHERE decision_id = '{plain['decision_id']}'"
    assert agents.one(row) is None


def test_the_size_of_a_request_is_said_in_sql(db):
    db.rows(
        """SELECT ruvector_register_agent('a', input_cost_per_token := 1e-5, output_cost_per_token := 0,
                                          cached_input_cost_per_token := 1e-6)"""
    )
    cost = db.one(
        """SELECT estimated_cost FROM ruvector_route('a text', input_tokens := 1000, cached_input_tokens := 400,
                                                     output_tokens := 1)"""
    )
    assert cost == pytest.approx(600e-5 + 400e-6)


def test_a_text_asked_again_is_not_decided_again(agents):
    ask = "SELECT * FROM ruvector_route('Good morning!', 'cost')"
    first, second = agents.dicts(ask)[0], agents.dicts(ask)[0]
    assert first.pop("decision_id") != second.pop("decision_id")
    assert first == second
    stats = agents.one("SELECT ruvector_cache_stats()")
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 1, 0.5)
    agents.rows(f"SELECT ruvector_set_agent_active('{first['agent_name']}', false)")
    assert agents.dicts(ask)[0]["agent_name"] != first["agent_name"]
    # Another tenant has a cache, and answers, of its own.
    agents.rows("SET tiny_dancer.tenant = 'other'")
    agents.rows("SELECT ruvector_register_agent('theirs', cost_per_request := 0.1)")
    assert agents.dicts(ask)[0]["agent_name"] == "theirs"
    assert agents.one("SELECT ruvector_cache_stats()")["hits"] == 0
    agents.rows("RESET tiny_dancer.tenant; SET tiny_dancer.decision_cache_entries = 0")
    agents.rows(ask)
    agents.rows(ask)
    assert agents.one("SELECT ruvector_cache_stats()")["misses"] == 0
    agents.rows("SET tiny_dancer.decision_cache_entries = 'many'")
    assert "decision_cache_entries" in agents.fails(ask).diag.message_primary


def test_a_request_is_routed_by_what_it_needs(db):
    db.rows("SELECT ruvector_register_agent('cheap', 'llm', ARRAY['chat'], 0.001, 100, 0.9)")
    db.rows("SELECT ruvector_register_agent('coder', 'llm', ARRAY['coding'], 0.01, 100, 0.9)")
    ask = """SELECT agent_name FROM ruvector_route(
        'Write a Python function that parses dates out of log files, with unit tests.', 'cost'{})"""
    assert db.one(ask.format("")) == "cheap"
    assert db.one(ask.format(", infer_capabilities := true")) == "coder"


def test_no_match_among_many(agents):
    rows = agents.dicts(
        """SELECT * FROM ruvector_batch_route(ARRAY['a b', 'c d'], required_capabilities := ARRAY['law'],
                                              on_no_match := 'null')"""
    )
    assert [(row["request_number"], row["agent_name"]) for row in rows] == [(1, None), (2, None)]
    assert (
        agents.fails("SELECT * FROM ruvector_batch_route(ARRAY['a b'], required_capabilities := ARRAY['law'])").sqlstate
        == "P0002"
    )
    (row,) = agents.dicts(
        "SELECT * FROM ruvector_route('a b', required_capabilities := ARRAY['law'], on_no_match := 'null')"
    )
    assert row["agent_name"] is None


def test_another_vector_space(db):
    assert db.one("SELECT tiny_dancer.set_vector_space('mine', 3)") is True
    db.rows("SELECT ruvector_register_agent('x', 'llm', ARRAY['a'], 0.1, 1, 0.9, embedding := ARRAY[1, 0, 0])")
    db.rows("SELECT ruvector_register_agent('y', 'llm', ARRAY['b'], 0.1, 1, 0.9, embedding := ARRAY[0, 1, 0])")
    assert db.one("SELECT ruvector_route(ARRAY[0.1, 0.9, 0.0]::float4[], 'quality')->>'agent_name'") == "y"
    assert "have 3" in db.fails("SELECT ruvector_route(ARRAY[1, 2]::float4[])").diag.message_primary
    assert "embedder" in db.fails("SELECT * FROM ruvector_route('a text')").diag.message_primary
    assert db.fails("SELECT tiny_dancer.set_vector_space('other', 4)").sqlstate == "22023"
    assert db.one("SELECT tiny_dancer.set_vector_space('mine', 3)") is True
