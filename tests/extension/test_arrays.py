"""Vectors as the server has them in memory, and decisions that come back as columns: nothing is lost on either way."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from psycopg.types.json import Jsonb

FIGURES = (
    "agent_name", "confidence", "estimated_cost", "estimated_latency", "estimated_latency_ms", "expected_quality",
    "similarity_score", "uncertainty", "reasoning", "alternatives", "model", "objective",
)  # fmt: skip
ALL = ", ".join(FIGURES)
SCORE = "SELECT (ruvector_route({}, 'quality', NULL)->>'similarity_score')::float8"


def near(value: Any) -> Any:
    """Equal for what differs by rounding only: a product of matrices rounds otherwise than one of vectors."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-6)
    if isinstance(value, str):
        return re.sub(r"-?\d\.\d\d\b", "0.00", value)
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    return [near(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def small(db):
    """A database in three dimensions, with an agent along each axis but the last, and one whose prices are unknown."""
    db.rows("SELECT tiny_dancer.set_vector_space('small', 3)")
    db.rows("SET tiny_dancer.record_decisions = off")
    db.rows("SELECT ruvector_register_agent('x', 'llm', '{a}', 0.1, 100, 0.9, embedding := ARRAY[1, 0, 0])")
    db.rows("SELECT ruvector_register_agent('y', 'llm', '{b}', 0.002, 20, 0.8, embedding := ARRAY[0, 1, 0])")
    db.rows("SELECT ruvector_register_agent('z', 'llm', '{b}', NULL, NULL, 0.7, embedding := ARRAY[1, 1, 1])")
    return db


@pytest.mark.parametrize(
    "array",
    [
        "ARRAY[0.1, 0.9, 0]::float4[]",
        "'[-5:-3]={0.1,0.9,0}'::float4[]",
        "array_replace(ARRAY[0.1, NULL, 0]::float4[], NULL, 0.9)",  # keeps its bitmap of NULLs, though none is left
        "(ARRAY[7, 0.1, 0.9, 0]::float4[])[2:4]",
        "ARRAY[0.1, 0.9, 0]::float8[]",
        "ARRAY[0.1, 0.9, 0]::numeric[]",
    ],
)
def test_however_an_array_came_about(small, array):
    assert small.one(SCORE.format(array)) == pytest.approx(0.9 / 0.82**0.5, abs=1e-6)


def test_an_array_that_plpgsql_builds(small):
    """PL/pgSQL keeps its arrays in a form of its own."""
    small.rows(
        """CREATE FUNCTION built() RETURNS jsonb LANGUAGE plpgsql AS $$
           DECLARE v float4[] := '{}';
           BEGIN
               FOR i IN 1..3 LOOP v[i] := (ARRAY[0.1, 0.9, 0])[i]; END LOOP;
               RETURN ruvector_route(v, 'quality', NULL);
           END $$"""
    )
    assert small.one("SELECT (built()->>'similarity_score')::float8") == pytest.approx(0.9 / 0.82**0.5, abs=1e-6)


@pytest.mark.parametrize("storage", ["EXTERNAL", "EXTENDED"])
def test_a_column_whose_values_lie_elsewhere_or_are_compressed(db, storage):
    db.rows("SET tiny_dancer.record_decisions = off")
    db.rows("SELECT tiny_dancer.set_vector_space('large', 4096)")
    axis = "SELECT array_agg((i = {})::int::float4) FROM generate_series(1, 4096) AS i"
    for number in (1, 2):
        db.rows(f"SELECT ruvector_register_agent('a{number}', embedding := ({axis.format(number)}))")
    db.rows(f"CREATE TABLE given AS {axis.format(2)} LIMIT 0")
    db.rows(f"ALTER TABLE given ALTER array_agg SET STORAGE {storage}")
    db.rows(f"INSERT INTO given {axis.format(2)}")
    size = db.one("SELECT pg_column_size(array_agg) FROM given")
    assert size > 16_384 if storage == "EXTERNAL" else size < 2000
    assert db.one("SELECT ruvector_route(array_agg, 'quality', NULL)->>'agent_name' FROM given") == "a2"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ruvector_route('{}'::float4[])", "has shape (0,)"),
        ("ruvector_route('{{1,2,3}}'::float4[])", "has shape (1, 3)"),
        ("ruvector_route(ARRAY[1, 2, 3, 4]::float4[])", "has 4 dimensions"),
        ("ruvector_route(ARRAY[0, 0, 0]::float4[])", "all zeros"),
        ("ruvector_route(ARRAY[1, 'NaN', 3]::float4[])", "holds nan at position 1"),
        ("ruvector_route(ARRAY[1, 2, NULL]::float4[])", "The request's embedding holds a NULL at position 3"),
        ("ruvector_batch_route('{{1,2,3},{4,NULL,6}}'::float4[])", "Embedding number 2 holds a NULL at position 2"),
        ("ruvector_batch_route('{{1,2,3},{0,0,0}}'::float4[])", "Embedding number 2 is all zeros"),
        ("ruvector_batch_route('{{1,2},{3,4}}'::float4[])", "Embedding number 1 has 2 dimensions"),
        ("ruvector_batch_route(ARRAY[1, 2, 3]::float4[])", "have 1 dimension; expected two"),
        ("ruvector_batch_route('{{{1,2,3}}}'::float4[])", "have 3 dimensions; expected two"),
        ("ruvector_batch_route(NULL::float4[])", "The embeddings are NULL"),
        ("ruvector_route_rows(ARRAY[1], '{{1,2,3},{4,5,6}}'::float4[])", "1 ids and 2 embeddings are given"),
    ],
)
def test_arrays_that_are_no_vectors(small, call, message):
    error = small.fails(f"SELECT * FROM {call}")
    assert message in error.diag.message_primary
    assert error.sqlstate[:2] == "22"


@pytest.mark.parametrize("limits", [{}, {"max_cost": 0.05}, {"min_quality": 0.72}, {"good_enough": 0.99}])
@pytest.mark.parametrize("objective", ["balanced", "cost", "quality"])
def test_columns_hold_what_single_decisions_say(small, objective, limits):
    """More requests than are decided at once, some of which no agent fits, before and after answers were judged."""
    chance = random.Random(40_004)
    vectors = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(300)]
    small.rows("CREATE TABLE asked (id bigint, given float4[])")
    small.connection.cursor().executemany("INSERT INTO asked VALUES (%s, %s)", list(enumerate(vectors)))
    constraints = {"on_no_match": "null", **limits}
    one_by_one = f"""SELECT a.id, {ALL}
        FROM asked AS a
        LEFT JOIN LATERAL jsonb_to_record(ruvector_route(a.given, %s, %s)) AS d (
            agent_name text, confidence float8, estimated_cost float8, estimated_latency text,
            estimated_latency_ms float8, expected_quality float8, similarity_score float8, uncertainty float8,
            reasoning text, alternatives jsonb, model text, objective text) ON true
        ORDER BY a.id"""
    at_once = f"""SELECT d.id, {ALL}
        FROM (SELECT array_agg(id ORDER BY id) AS ids, array_agg(given ORDER BY id) AS given FROM asked) AS a
        CROSS JOIN LATERAL ruvector_route_rows(a.ids, a.given, %s, %s, explain := true) AS d ORDER BY d.id"""
    small.rows("SET tiny_dancer.stats_refresh_s = 0")
    for judged in (0, 20):
        for number in range(judged):
            decision = "SELECT ruvector_route(given)->>'decision_id' FROM asked WHERE id = %s"
            small.rows("SET tiny_dancer.record_decisions = on")
            small.one(f"SELECT ruvector_feedback(({decision}), quality := %s)", number, number % 5 / 4)
            small.rows("SET tiny_dancer.record_decisions = off")
        singles = small.dicts(one_by_one, objective, Jsonb(constraints))
        together = small.dicts(at_once, objective, Jsonb(constraints))
        assert len(singles) == len(together) == 300
        assert any(row["agent_name"] for row in singles)
        for single, other in zip(singles, together, strict=True):
            text = other["estimated_latency"]  # which the form for one vector leaves to the number
            assert text == (None if other["estimated_latency_ms"] is None else f"{other['estimated_latency_ms']:.0f}ms")
            assert near({**other, "estimated_latency": None}) == near(single)
