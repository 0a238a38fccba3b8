"""Semantic routes and classification in SQL: as the documents write them, and as every session sees them."""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg
import pytest

from tests.extension.test_errors import shows_nothing_of_python

ROUTE = "SELECT * FROM ruvector_semantic_route(%s)"
BEST = "SELECT route_name FROM ruvector_semantic_route(%s, 1)"
AS_WRITTEN = """
SELECT ruvector_create_route(
    name := 'customer_support',
    description := 'Handle customer support inquiries, complaints, and feedback',
    embedding := ruvector_embed('Customer support and help requests'),
    target_agent := 'support-agent',
    priority := 1
);

SELECT ruvector_create_route(
    name := 'technical_docs',
    description := 'Answer questions about technical documentation and APIs',
    embedding := ruvector_embed('Technical documentation and API reference'),
    target_agent := 'docs-agent',
    priority := 2
);
"""


@pytest.fixture
def desk(db):
    """Two agents and no route."""
    db.rows("SELECT ruvector_register_agent('support-agent', 'human', ARRAY['customer support'])")
    db.rows("SELECT ruvector_register_agent('docs-agent', 'llm', ARRAY['documentation'])")
    return db


@pytest.fixture
def routes(desk):
    desk.rows(
        """SELECT ruvector_create_route('passwords', 'Forgotten passwords', 'support-agent', threshold => 0.4,
           utterances => ARRAY['I forgot my password', 'reset my password'])"""
    )
    desk.rows(
        """SELECT ruvector_create_route('invoices', '', 'docs-agent', threshold => 0.4,
           utterances => ARRAY['send me the invoice', 'I need a copy of my bill'])"""
    )
    return desk


def test_the_document_as_it_is_written(desk):
    for statement in AS_WRITTEN.strip().rstrip(";").split(";"):
        assert desk.one(statement) is True
    rows = desk.dicts(
        """SELECT * FROM ruvector_semantic_route(
               query := 'How do I reset my password?',
               top_k := 3
           )"""
    )
    assert list(rows[0]) == ["route_name", "similarity", "target_agent", "confidence"]
    assert [(row["route_name"], row["target_agent"]) for row in rows] == [("customer_support", "support-agent")]
    assert 0.0 <= rows[0]["confidence"] <= 1.0
    cosine = desk.one(
        """SELECT sum(a * b) FROM unnest(ruvector_embed('How do I reset my password?'),
                                         ruvector_embed('Customer support and help requests')) AS v (a, b)"""
    )
    assert rows[0]["similarity"] == pytest.approx(cosine, abs=1e-5)


def test_both_orders_of_the_arguments(desk):
    assert desk.one("SELECT ruvector_create_route('a', 'Refunds', 'support-agent')") is True
    assert desk.one("SELECT ruvector_create_route('b', 'Refunds', 'docs-agent', 5)") is True
    assert desk.one("SELECT ruvector_create_route('c', 'Third', ruvector_embed('Refunds'), 'docs-agent', 9)") is True
    assert desk.one("SELECT ruvector_create_route('d', 'Fourth', ruvector_embed('Refunds'), 'docs-agent')") is True
    rows = desk.rows("SELECT route_name FROM ruvector_semantic_route('Refunds', 10)")
    assert [row[0] for row in rows] == ["c", "b", "a", "d"]  # by priority, then by name
    assert desk.rows("SELECT name, priority FROM ruvector_list_routes()") == [("a", 0), ("b", 5), ("c", 9), ("d", 0)]
    text = desk.rows("SELECT * FROM ruvector_semantic_route('a refund please', 2)")
    vector = desk.rows("SELECT * FROM ruvector_semantic_route(ruvector_embed('a refund please'), 2)")
    assert len(text) == len(vector) == 2
    for by_text, by_vector in zip(text, vector, strict=True):
        assert (by_text[0], by_text[2]) == (by_vector[0], by_vector[2])
        assert (by_text[1], by_text[3]) == pytest.approx((by_vector[1], by_vector[3]), abs=1e-5)


def test_none_of_these_is_a_row_of_its_own(routes):
    (row,) = routes.dicts(ROUTE, "What is the capital of Peru?")
    assert (row["route_name"], row["target_agent"]) == (None, None)
    assert row["similarity"] < 0.4
    assert 0.5 < row["confidence"] <= 1.0
    agent = "SELECT coalesce((SELECT target_agent FROM ruvector_semantic_route(%s, 1)), 'fallback')"
    assert routes.one(agent, "What is the capital of Peru?") == "fallback"
    assert routes.one(agent, "please reset my password") == "support-agent"


def test_without_a_route_everything_is_none_of_these(db):
    assert db.rows(ROUTE, "Hello") == [(None, None, None, 1.0)]


def test_changing_a_route(routes):
    assert routes.one(BEST, "reset the password") == "passwords"
    assert routes.one("SELECT ruvector_add_utterances('passwords', ARRAY['open the gate', 'reset my password'])") == 1
    assert routes.one(BEST, "open the gate now") == "passwords"
    assert routes.one("SELECT ruvector_add_utterances('passwords', ARRAY['open the garden gate'], true)") == 1
    assert routes.one(BEST, "open the garden gate") is None
    assert routes.one("SELECT ruvector_remove_utterances('passwords', ARRAY['open the gate', 'absent'])") == 1
    assert routes.one("""SELECT ruvector_update_route('passwords', '{"target_agent": "docs-agent", "priority": 4}')""")
    (row,) = routes.dicts("SELECT * FROM ruvector_list_routes() WHERE name = 'passwords'")
    assert (row["target_agent"], row["priority"], row["threshold"]) == ("docs-agent", 4, 0.4)
    assert row["utterances"] == ["I forgot my password", "reset my password"]
    assert row["negative_utterances"] == ["open the garden gate"]
    assert routes.one("""SELECT ruvector_update_route('passwords', '{"is_active": false}')""")
    assert routes.one(BEST, "reset the password") is None
    assert routes.one("SELECT ruvector_delete_route('passwords')") is True
    assert routes.rows("SELECT name FROM ruvector_list_routes()") == [("invoices",)]


def test_every_session_sees_a_change_at_its_next_statement(routes):
    other = routes.connect()

    def seen(text):
        row = other.execute(BEST, (text,)).fetchone()
        assert row is not None
        return row[0]

    assert seen("open the gate") is None
    routes.one("SELECT ruvector_add_utterances('invoices', ARRAY['open the gate'])")
    assert seen("open the gate") == "invoices"
    routes.one("""SELECT ruvector_update_route('invoices', '{"threshold": 1.0}')""")
    assert seen("open the gate wide") is None
    routes.one("SELECT ruvector_delete_route('invoices')")
    assert seen("open the gate") is None


def test_what_is_rolled_back_was_never_there(routes):
    with suppress(psycopg.Rollback), routes.connection.transaction():
        routes.one("SELECT ruvector_add_utterances('invoices', ARRAY['open the gate'])")
        assert routes.one(BEST, "open the gate") == "invoices"
        raise psycopg.Rollback
    assert routes.one(BEST, "open the gate") is None


def test_a_route_never_leads_to_an_agent_that_cannot_be_chosen(routes):
    routes.one("SELECT ruvector_set_agent_active('support-agent', false)")
    assert routes.one(BEST, "reset my password") is None
    routes.one("SELECT ruvector_set_agent_active('support-agent', true)")
    assert routes.one(BEST, "reset my password") == "passwords"
    routes.one("SELECT ruvector_remove_agent('support-agent')")
    assert routes.one(BEST, "reset my password") is None


def test_conditions(routes):
    routes.one("""SELECT ruvector_update_route('passwords', '{"conditions": {"user_tier": ["gold"]}}')""")
    assert routes.one(BEST, "reset my password") is None
    tiered = "SELECT route_name FROM ruvector_semantic_route('reset my password', 1, user_tier => %s)"
    assert routes.one(tiered, "gold") == "passwords"
    assert routes.one(tiered, "silver") is None


def test_sessions_share_a_rate_limit_to_the_last_request(routes):
    routes.one("""SELECT ruvector_update_route('passwords',
                  '{"conditions": {"rate_limit": {"requests": 20, "per_s": 100000}}}')""")
    passed: list[str | None] = []

    def ask(connection):
        for _ in range(10):
            passed.append(connection.execute(BEST, ("reset my password",)).fetchone()[0])

    threads = [threading.Thread(target=ask, args=(routes.connect(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 40
    assert passed.count("passwords") == 20


def test_a_read_only_transaction_matches_and_counts_nothing(routes):
    routes.one("""SELECT ruvector_update_route('passwords', '{"conditions": {"rate_limit": 1}}')""")
    routes.rows("SET default_transaction_read_only = on")
    assert [routes.one(BEST, "reset my password") for _ in range(3)] == ["passwords"] * 3
    routes.rows("SET default_transaction_read_only = off")
    assert [routes.one(BEST, "reset my password") for _ in range(2)] == ["passwords", None]


def test_tenants_and_roles(routes, role):
    other = routes.connect()
    other.execute("SET tiny_dancer.tenant = 'other'")
    assert other.execute(BEST, ("reset my password",)).fetchone() == (None,)
    assert other.execute("SELECT count(*) FROM ruvector_list_routes()").fetchone() == (0,)
    router = role("tiny_dancer_router")
    routes.rows(f"SET ROLE {router}")
    assert routes.one(BEST, "reset my password") == "passwords"
    assert routes.fails("SELECT ruvector_delete_route('passwords')").sqlstate == "42501"
    routes.rows("RESET ROLE")
    routes.one("""SELECT ruvector_update_route('passwords', '{"conditions": {"rate_limit": 1}}')""")
    routes.rows(f"SET ROLE {router}")
    assert [routes.one(BEST, "reset my password") for _ in range(2)] == ["passwords", None]
    routes.rows("RESET ROLE")


def test_errors(routes):
    for sql, sqlstate, message in (
        ("ruvector_create_route('passwords', 'x', 'docs-agent')", "42710", "'passwords' already"),
        ("ruvector_create_route('PassWords', 'x', 'docs-agent')", "42710", "capitals only"),
        ("ruvector_create_route('x', 'x', 'doc-agent')", "42704", "'doc-agent', which is not registered"),
        ("ruvector_create_route('x', 'x', 'docs-agent', threshold => 1.5)", "22023", "threshold is 1.5"),
        ("ruvector_create_route('x', '', 'docs-agent')", "22023", "nothing could resemble it"),
        ("ruvector_create_route(NULL, 'x', 'docs-agent')", "22023", "no name"),
        ("ruvector_create_route('x', 'x', NULL)", "22023", "no target_agent"),
        ("ruvector_create_route('x', 'x', '{1,2}'::real[], 'docs-agent')", "22000", "2 dimensions"),
        ("ruvector_create_route('x', 'x', 'docs-agent', utterances => ARRAY['a', NULL])", "22023", "position 2"),
        ("ruvector_create_route('x', 'x', 'docs-agent', conditions => '{\"user_tier\": []}')", "22023", "never"),
        ("ruvector_create_route('x', 'x', 'docs-agent', conditions => '{\"time\": 1}')", "22023", "Unknown condition"),
        ("ruvector_update_route('password', '{}')", "42704", "'password'"),
        ("ruvector_update_route('passwords', '{\"name\": \"y\"}')", "22023", "cannot be changed"),
        ("ruvector_update_route('passwords', '{\"target_agent\": \"nobody\"}')", "42704", "not registered"),
        ("ruvector_update_route('passwords', NULL)", "22023", "NULL"),
        ("ruvector_delete_route('absent')", "42704", "'absent'"),
        ("ruvector_add_utterances('passwords', ARRAY['reset my password'], true)", "22023", "negative example"),
        ("ruvector_add_utterances('passwords', ARRAY[''])", "22023", "empty"),
        ("ruvector_add_utterances('passwords', NULL)", "22023", "NULL"),
        ("ruvector_remove_utterances('invoices', ARRAY['send me the invoice', 'I need a copy of my bill'])", "22023",
         "no utterance left"),
        ("ruvector_semantic_route(NULL::text)", "22023", "NULL"),
        ("ruvector_semantic_route(NULL::real[])", "22023", "NULL"),
        ("ruvector_semantic_route('')", "22023", "empty"),
        ("ruvector_semantic_route('x', 0)", "22023", "top_k is 0"),
        ("ruvector_semantic_route('x', NULL)", "22023", "top_k is NULL"),
        ("ruvector_semantic_route(ARRAY[1,2]::real[])", "22000", "2 dimensions"),
        ("ruvector_fit_routes(ARRAY['a'], ARRAY['x', 'y'])", "22023", "1 routes and 2 requests"),
        ("ruvector_fit_routes(ARRAY['absent'], ARRAY['x'])", "22023", "'absent'"),
        ("ruvector_classify_request(NULL)", "22023", "NULL"),
        ("ruvector_classify_request(' ')", "22023", "empty"),
    ):  # fmt: skip
        error = routes.fails(f"SELECT {sql}")
        assert error.sqlstate == sqlstate, (sql, error)
        assert message in error.diag.message_primary, (sql, error)
        shows_nothing_of_python(error)
    assert routes.fails("SELECT ruvector_delete_route('pasword')").diag.message_hint == "Did you mean 'passwords'?"
    assert routes.rows("SELECT name FROM ruvector_list_routes()") == [("invoices",), ("passwords",)]


def test_fitting(routes):
    passwords = [f"please reset the password of account {number}" for number in range(10)]
    invoices = [f"send me invoice number {number}" for number in range(10)]
    none = [f"how tall is mountain number {number}" for number in range(10)]
    names = ["passwords"] * 10 + ["invoices"] * 10 + [None] * 10
    report = routes.one("SELECT ruvector_fit_routes(%s, %s, seed => 3)", names, passwords + invoices + none)
    assert (report["fitted_on"], report["after"]["requests"], report["kept"]) == (15, 15, True)
    assert report["after"]["accuracy"] >= report["before"]["accuracy"]
    assert [row["route_name"] for row in report["after"]["routes"]] == ["invoices", "passwords", None]
    stored = dict(routes.rows("SELECT name, threshold FROM ruvector_list_routes()"))
    assert stored == report["thresholds"]
    assert routes.one("SELECT count(*) FROM ruvector_list_routes() WHERE calibration IS NOT NULL") == 2


def test_classifying_as_the_document_writes_it(db):
    db.rows("CREATE TABLE pending_requests (request_id int, content text)")
    db.rows("INSERT INTO pending_requests VALUES (1, 'Translate this letter into French.')")
    ((request_id, found),) = db.rows(
        "SELECT request_id, ruvector_classify_request(content) AS classification FROM pending_requests"
    )
    assert request_id == 1
    assert found["top_category"] == found["classifications"][0][0] == "translation"
    assert found["confidence"] == found["classifications"][0][1] > 0.5
    assert sum(probability for _, probability in found["classifications"]) == pytest.approx(1.0, abs=1e-6)
    assert "translation" in [name for name, _ in found["capabilities"]]
    assert found["model"].startswith("classifier:")
