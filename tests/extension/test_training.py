"""`ruvector_train_router`: learns from what sessions recorded, for all of them, and ends when it is told to."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from tests.extension.test_errors import shows_nothing_of_python
from tinydancer.model.quality import shipped_model_path
from tinydancer.model.surface import SURFACE_DIM

TRAIN = "SELECT ruvector_train_router()"
ACTIVE = "SELECT name FROM ruvector_list_models() WHERE is_active"
SUMS = [
    f"What is {a} times {b}, and what remains of it when divided by {c}?"
    for a in range(2, 7) for b in range(11, 17) for c in (3, 7)
]  # fmt: skip
LETTERS = [
    f"Write a {tone} letter to my {who} about the {what} we talked of."
    for tone in ("warm", "short", "formal", "cheerful", "regretful")
    for who in ("landlord", "aunt", "neighbour", "teacher", "publisher", "doctor")
    for what in ("garden", "journey")
]


def answer(db: Any, texts: list[str], agent: str, quality: float) -> None:
    """Have an agent answer requests, and judge the answers."""
    db.rows(
        """
        SELECT ruvector_feedback(d.decision_id, quality := %s, cost := 0.001)
        FROM ruvector_batch_route(%s::text[], excluded_agents := ARRAY(
            SELECT name FROM ruvector_list_agents() WHERE name <> %s)) AS d
        """,
        quality, texts, agent,
    )  # fmt: skip


@pytest.fixture
def taught(db: Any) -> Any:
    """Two agents, one good at sums and one at letters, and 240 judged answers that show it."""
    db.rows("SELECT ruvector_register_agent(name, 'llm', ARRAY[]::text[], 0.001, 100, 0.5) FROM unnest("
            "ARRAY['calculating', 'writing']) AS name")  # fmt: skip
    db.rows("SET tiny_dancer.record_features = on")
    for agent, good, bad in (("calculating", SUMS, LETTERS), ("writing", LETTERS, SUMS)):
        answer(db, good, agent, 1.0)
        answer(db, bad, agent, 0.0)
    return db


def test_a_model_is_trained_on_what_was_recorded_and_decides_everywhere(taught):
    other = taught.connect()
    chosen = "SELECT agent_name, model FROM ruvector_route(%s, 'quality')"
    assert other.execute(chosen, ["Write a sad letter to my tailor about the coat."]).fetchone() == (
        "calculating",
        None,
    )
    made = taught.one(TRAIN)
    assert (made["name"], made["is_active"]) == ("trained", True)
    assert made["facts"]["requests"] == 120
    assert made["facts"]["outcomes_by_agent"] == {"calculating": 120, "writing": 120}
    assert made["facts"]["started_from"] is None
    assert "cross_validated" not in made["facts"]
    figures = made["evaluation"]
    assert figures["requests"] == 120
    assert figures["routed_quality"] > 0.9 > 0.6 > figures["best_single_quality"]
    assert figures["oracle_quality"] == 1.0
    assert figures["brier"] < 0.1 < figures["brier_of_means"]
    assert any("120 requests are few" in warning for warning in made["warnings"])
    weights = f"trained:{made['sha256'][:12]}"
    for text, agent in (
        ("Write a sad letter to my tailor about the coat.", "writing"),
        ("What is 9 times 13, and what remains of it when divided by 5?", "calculating"),
    ):
        assert other.execute(chosen, [text]).fetchone() == (agent, weights)
    (row,) = taught.dicts("SELECT * FROM ruvector_list_models() WHERE is_active")
    assert (row["name"], row["sha256"], row["size_bytes"]) == ("trained", made["sha256"], made["size_bytes"])
    assert row["metadata"]["facts"]["outcomes_by_agent"] == made["facts"]["outcomes_by_agent"]

    again = taught.one(TRAIN)  # equal data and seed, and the name is free to be taken again
    assert again == made
    refined = taught.one(
        "SELECT ruvector_train_router('second', start := 'trained', activate := false, seed := 3, max_outcomes := 150)"
    )
    assert (refined["is_active"], refined["facts"]["started_from"]) == (False, weights)
    assert (refined["facts"]["outcomes"], refined["facts"]["config"]["seed"]) == (150, 3)
    assert taught.rows(ACTIVE) == [("trained",)]
    assert taught.rows("SELECT name FROM ruvector_list_models()") == [("shipped",), ("second",), ("trained",)]
    taught.one("SELECT ruvector_use_model('second')")
    row = other.execute(chosen, ["Write a sad letter to my tailor about the coat."]).fetchone()
    assert row == ("writing", f"second:{refined['sha256'][:12]}")


def test_figures_of_choosing_need_answers_to_compare(db):
    db.rows("SELECT ruvector_register_agent('only', 'llm', ARRAY[]::text[], 0.001, 100, 0.5)")
    db.rows("SET tiny_dancer.record_features = on")
    answer(db, SUMS, "only", 1.0)
    answer(db, LETTERS[:10], "only", 0.0)
    made = db.one("SELECT ruvector_train_router('lonely', activate := false)")
    figures = made["evaluation"]
    assert (figures["routed_quality"], figures["oracle_quality"], figures["apgr"]) == (None, None, None)
    assert figures["ece"] is not None
    assert any("answered by more than one agent" in warning for warning in made["warnings"])
    assert any("one agent only" in warning for warning in made["warnings"])
    assert db.rows(ACTIVE) == []


def test_what_does_not_suffice(db):
    error = db.fails(TRAIN)
    assert error.sqlstate == "55000"
    assert "no judged answers" in error.diag.message_primary
    assert "record_features" in error.diag.message_hint
    db.rows("SELECT ruvector_register_agent('a', 'llm', ARRAY[]::text[], 0.001, 100, 0.5)")
    answer(db, SUMS, "a", 1.0)  # judged, but without features
    assert "no judged answers" in db.fails(TRAIN).diag.message_primary
    db.rows("SET tiny_dancer.record_features = on")
    answer(db, SUMS[:5], "a", 1.0)
    error = db.fails(TRAIN)
    assert error.sqlstate == "55000"
    assert "5 judged requests; expected at least 20" in error.diag.message_primary
    assert "Collect more" in error.diag.message_hint
    answer(db, SUMS, "a", 1.0)
    error = db.fails(TRAIN)
    assert error.sqlstate == "55000"
    assert "the same quality" in error.diag.message_primary
    assert "failed" in error.diag.message_hint
    shows_nothing_of_python(error)
    assert db.rows("SELECT name FROM ruvector_list_models()") == [("shipped",)]


def test_arguments_are_looked_at_before_anything_is_read(db):
    """There is nothing to learn from here, which would be the next error."""
    for arguments, sqlstate, message in (
        ("NULL", "22023", "value of name is NULL"),
        ("''", "22023", "empty"),
        ("'shipped'", "22023", "reserved"),
        ("'none'", "22023", "reserved"),
        ("start := 'shiped'", "42704", "'shiped'"),
        ("activate := NULL", "22023", "activate is NULL"),
        ("replace := NULL", "22023", "replace is NULL"),
        ("seed := -1", "22023", "seed"),
        ("seed := NULL", "22023", "seed is NULL"),
        ("max_outcomes := 0", "22023", "max_outcomes"),
        ("max_outcomes := 2000000", "22023", "max_outcomes"),
    ):
        error = db.fails(f"SELECT ruvector_train_router({arguments})")
        assert error.sqlstate == sqlstate, error
        assert message in error.diag.message_primary
    assert db.fails("SELECT ruvector_train_router(start := 'shiped')").diag.message_hint == "Did you mean 'shipped'?"
    db.one("SELECT ruvector_load_model('mine', %s)", shipped_model_path().read_bytes())
    error = db.fails("SELECT ruvector_train_router('mine', replace := false)")
    assert (error.sqlstate, "'mine' is stored already" in error.diag.message_primary) == ("42710", True)
    db.rows("SET default_transaction_read_only = on")
    assert db.fails(TRAIN).sqlstate == "25006"


def test_a_start_of_another_space_is_refused(db):
    db.one("SELECT tiny_dancer.set_vector_space('other', 384)")
    error = db.fails("SELECT ruvector_train_router(start := 'shipped')")
    assert error.sqlstate == "22000"
    assert "all-MiniLM-L6-v2" in error.diag.message_primary


def test_only_administrators_train(taught, role):
    for group in ("reader", "router"):
        with psycopg.connect(taught.dsn, user=role(f"tiny_dancer_{group}"), autocommit=True) as session:
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                session.execute(TRAIN)
            assert "tiny_dancer_admin" in (caught.value.diag.message_hint or "")
    with psycopg.connect(taught.dsn, user=role("tiny_dancer_admin"), autocommit=True) as session:
        session.execute("SELECT ruvector_train_router(max_outcomes := 200)")
        session.execute("SET tiny_dancer.tenant = 'north'")  # which has recorded nothing
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no judged answers"):
            session.execute(TRAIN)
        assert session.execute(ACTIVE).fetchall() == []
    assert taught.rows(ACTIVE) == [("trained",)]


@pytest.mark.parametrize("way", ["cancel", "timeout"])
def test_a_training_ends_when_it_is_cancelled(taught, way):
    session = taught.connect()
    timer = threading.Timer(1.0, session.cancel)
    if way == "timeout":
        session.execute("SET statement_timeout = '1s'")
    else:
        timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled) as caught:
        session.execute(TRAIN)
    timer.cancel()
    shows_nothing_of_python(caught.value)
    session.execute("SET statement_timeout = 0")
    # The session lives, and nothing is left half done.
    assert session.execute("SELECT name FROM ruvector_list_models()").fetchall() == [("shipped",)]
    assert session.execute("SELECT agent_name FROM ruvector_route('Hello')").fetchone() is not None


def test_what_is_rolled_back_was_never_trained(taught):
    taught.rows("BEGIN")
    taught.one("SELECT ruvector_train_router(max_outcomes := 100)")
    assert taught.rows(ACTIVE) == [("trained",)]
    taught.rows("ROLLBACK")
    assert taught.rows(ACTIVE) == []
    assert taught.one("SELECT model FROM ruvector_route('Hello')") is None


def test_features_are_recorded_where_the_setting_or_a_model_says_so(agents):
    size = "SELECT octet_length(features) FROM tiny_dancer.decisions WHERE decision_id = %s"
    route = "SELECT decision_id FROM ruvector_route('Hello')"
    assert agents.one(size, agents.one(route)) is None
    agents.rows("SET tiny_dancer.record_features = on")
    kept = agents.one(size, agents.one(route))
    assert kept == agents.one(size, agents.one("SELECT decision_id FROM ruvector_batch_route(ARRAY['Hello'])"))
    vector = "SELECT ruvector_route(ruvector_embed('Hello'), 'cost', '{}'::jsonb) ->> 'decision_id'"
    assert agents.one(size, agents.one(vector)) == kept == 2 * (384 + SURFACE_DIM)
    agents.rows("SET tiny_dancer.record_features = 'no'")
    assert agents.one(size, agents.one(route)) is None
    agents.one("SELECT ruvector_use_model('shipped')")
    assert agents.one(size, agents.one(route)) == kept
    agents.rows("SET tiny_dancer.record_features = 'perhaps'")
    error = agents.fails(route)
    assert error.sqlstate == "22023"
    assert "tiny_dancer.record_features is 'perhaps'" in error.diag.message_primary
