"""With pgvector beside the extension: its types go in where vectors go, as the documents write it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.pgvector

SMART_ROUTE = """
    CREATE FUNCTION smart_route(embedding vector, task_type text, priority text) RETURNS jsonb AS $$
        SELECT ruvector_route(
            embedding::float4[],
            CASE priority WHEN 'critical' THEN 'quality' WHEN 'low' THEN 'cost' ELSE 'balanced' END,
            jsonb_build_object(
                'required_capabilities',
                CASE task_type WHEN 'coding' THEN ARRAY['coding'] WHEN 'writing' THEN ARRAY['writing']
                               ELSE ARRAY[]::text[] END));
    $$ LANGUAGE sql"""
IN_PLPGSQL = """
    CREATE FUNCTION smart_route(embedding vector, task_type text, priority text) RETURNS jsonb AS $$
    DECLARE
        objective text := CASE priority WHEN 'critical' THEN 'quality' WHEN 'low' THEN 'cost' ELSE 'balanced' END;
        needed text[] := CASE task_type WHEN 'coding' THEN ARRAY['coding'] WHEN 'writing' THEN ARRAY['writing']
                                        ELSE ARRAY[]::text[] END;
    BEGIN
        RETURN ruvector_route(embedding, objective, jsonb_build_object('required_capabilities', needed));
    END $$ LANGUAGE plpgsql"""
REQUESTS = ("Write a sorting function in Python", "Translate this letter", "Why is the sky blue?")


@pytest.fixture
def requests(agents):
    """The documents' agents beside a table of requests with embeddings of both kinds; rows of every request."""
    agents.rows("CREATE TABLE requests (id int, content text, embedding vector(384), small halfvec(384))")
    for number, text in enumerate(REQUESTS, start=1):
        agents.rows(
            "INSERT INTO requests SELECT %s, %s, e::vector, e::vector::halfvec FROM ruvector_embed(%s) AS e",
            number, text, text,
        )  # fmt: skip
    return agents


def test_a_column_passes_without_a_cast(requests):
    expected = requests.rows("SELECT (ruvector_route(embedding::float4[], 'cost', NULL)) - 'decision_id' FROM requests")
    assert requests.rows("SELECT ruvector_route(embedding, 'cost', NULL) - 'decision_id' FROM requests") == expected
    assert requests.rows("SELECT ruvector_route(request_embedding := embedding, optimize_for := 'cost') "
                         "- 'decision_id' FROM requests") == expected  # fmt: skip
    halves = requests.rows("SELECT ruvector_route(small, 'cost', NULL) FROM requests")
    for (half,), (full,) in zip(halves, expected, strict=True):
        # Half a float has eleven bits: a thousandth, near enough.
        assert half["similarity_score"] == pytest.approx(full["similarity_score"], abs=2e-3)
        assert half["agent_name"] == full["agent_name"]


@pytest.mark.parametrize("definition", [SMART_ROUTE, IN_PLPGSQL], ids=["sql", "plpgsql"])
def test_smart_route(requests, definition):
    requests.rows(definition)
    query = "SELECT smart_route(embedding, %s, %s)->>'agent_name' FROM requests ORDER BY id"
    assert requests.rows(query, "coding", "critical") == [("gpt-4",)] * 3
    assert requests.rows(query, "coding", "low") == [("gpt-4",)] * 3  # the only one that codes
    assert requests.fails(query, "writing", "low").sqlstate == "P0002"  # nobody writes
    for priority, objective in (("low", "cost"), ("normal", "balanced")):
        direct = "SELECT ruvector_route(embedding, %s, NULL)->>'agent_name' FROM requests ORDER BY id"
        assert requests.rows(query, "other", priority) == requests.rows(direct, objective)


def test_rows_in_one_call(requests):
    """``array_agg`` of a column cast to an array is the batch form's argument."""
    one_by_one = requests.rows("SELECT id, ruvector_route(embedding, 'quality', NULL)->>'agent_name' FROM requests")
    together = """SELECT d.id, d.agent_name
                  FROM (SELECT array_agg(id::bigint) AS ids, array_agg(embedding::float4[]) AS given FROM requests) AS q
                  CROSS JOIN LATERAL ruvector_route_rows(q.ids, q.given, 'quality') AS d ORDER BY d.id"""
    assert requests.rows(together) == sorted(one_by_one)


def test_an_agents_own_vector(requests):
    """Registered with a column's vector, an agent is nearest to that request."""
    requests.rows("""SELECT ruvector_register_agent('linguist', 'llm', ARRAY['languages'], 0.002, 150.0, 0.75,
                                                    embedding := (SELECT embedding FROM requests WHERE id = 2))""")
    score = "SELECT ruvector_route(embedding, 'quality', %s)->>'similarity_score' FROM requests WHERE id = 2"
    only = '{"required_capabilities": ["languages"]}'
    assert float(requests.one(score, only)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_what_cannot_be_routed(agents, kind):
    for text, sqlstate in (("[1, 2, 3]", "22000"), (str([0] * 384), "22000")):
        error = agents.fails(f"SELECT ruvector_route(%s::{kind}, 'cost', NULL)", text)
        assert error.sqlstate == sqlstate
    assert agents.fails(f"SELECT ruvector_route(NULL::{kind}, 'cost', NULL)").sqlstate == "22000"


def test_pgvector_that_comes_later(new_database):
    """Created after the extension, halfvec passes once ``use_pgvector`` was called; twice does no harm."""
    late = new_database()
    late.rows("CREATE EXTENSION tiny_dancer CASCADE")
    late.rows("SELECT ruvector_register_agent('a', 'llm', ARRAY['x'], 0.1, 10, 0.9)")
    late.rows("CREATE EXTENSION vector")
    route = "SELECT ruvector_route(ruvector_embed('Hello')::vector{}, 'cost', NULL)->>'agent_name'"
    assert late.one(route.format("")) == "a"
    assert late.one("SELECT tiny_dancer.use_pgvector()") is True
    assert late.one("SELECT tiny_dancer.use_pgvector()") is False
    assert late.one(route.format("::halfvec")) == "a"
    assert late.one(route.format("")) == "a"
