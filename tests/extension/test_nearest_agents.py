"""``tiny_dancer.nearest_agents``: with and without the index, for one tenant among others, and what it refuses."""

from __future__ import annotations

import pytest

MANY = 2_000
NEAREST = "SELECT name, similarity FROM tiny_dancer.nearest_agents({}, {})"
FUNCTION = "Write a function in Python"


def test_without_pgvector(new_database):
    db = new_database()
    db.rows("CREATE EXTENSION tiny_dancer CASCADE")
    for call in ("build_agent_index()", "nearest_agents(ARRAY[1, 0]::real[])"):
        error = db.fails(f"SELECT tiny_dancer.{call}")
        assert (error.sqlstate, error.diag.message_hint) == ("0A000", "As a superuser: CREATE EXTENSION vector;")


@pytest.fixture
def many(db):
    """`MANY` agents of one tenant, and three of another, as the extension stores them."""
    for tenant, count in (("few", 3), ("default", MANY)):
        db.rows("SELECT set_config('tiny_dancer.tenant', %s, false)", tenant)
        db.rows("SELECT ruvector_register_agent('first', 'llm', ARRAY['coding'], 0.01, 100.0, 0.5)")
        db.rows(
            """INSERT INTO tiny_dancer.agents (name, agent_type, capabilities, embedding)
               SELECT 'agent-' || i, 'llm', ARRAY['x'],
                      ruvector_embed((ARRAY['writes', 'reviews', 'explains', 'tests', 'edits'])[mod(i, 5) + 1] || ' '
                                     || (ARRAY['code', 'contracts', 'novels', 'menus'])[mod(i / 5, 4) + 1]
                                     || ' for customer ' || i)
               FROM generate_series(1, %s) AS i""",
            count - 1,
        )
    db.rows("ANALYZE tiny_dancer.agents")
    return db


def uses_index(db, sql: str, *parameters: object) -> bool:
    count = """SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes
               WHERE indexrelname = 'agents_by_embedding'"""
    db.rows("SELECT pg_stat_force_next_flush()")
    before = db.one(count)
    db.rows(sql, *parameters)
    db.rows("SELECT pg_stat_force_next_flush()")
    return bool(db.one(count) > before)


@pytest.mark.pgvector
@pytest.mark.slow
def test_the_index_finds_what_a_search_through_all_finds(many):
    by_hand = """SELECT name, (SELECT sum(x * y) FROM unnest(embedding, ruvector_embed(%s)) AS pair (x, y))
                 FROM tiny_dancer.agents WHERE tenant = 'default' ORDER BY 2 DESC LIMIT 10"""
    nearest = NEAREST.format("ruvector_embed(%s)", 10)
    truth = many.rows(by_hand, FUNCTION)
    assert not uses_index(many, nearest, FUNCTION)
    exact = many.rows(nearest, FUNCTION)
    assert [name for name, _ in exact] == [name for name, _ in truth]
    assert [s for _, s in exact] == pytest.approx([s for _, s in truth], abs=1e-5)

    assert many.one("SELECT tiny_dancer.build_agent_index()") is True
    assert many.one("SELECT tiny_dancer.build_agent_index()") is False
    assert uses_index(many, nearest, FUNCTION)
    found = many.rows(nearest, FUNCTION)
    assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    assert len({name for name, _ in found} & {name for name, _ in truth}) >= 8  # an index approximates
    assert len(many.rows(NEAREST.format("ruvector_embed(%s)", 500), FUNCTION)) == 500

    # Registered, switched off and removed agents count at once.
    many.rows("SELECT ruvector_register_agent('new', 'llm', ARRAY['x'], 0.1, 1, 0.9, embedding := ruvector_embed(%s))",
              FUNCTION)  # fmt: skip
    assert many.rows(nearest, FUNCTION)[0] == ("new", pytest.approx(1.0, abs=1e-5))
    many.rows("SELECT ruvector_set_agent_active('new', false)")
    assert "new" not in {name for name, _ in many.rows(nearest, FUNCTION)}
    many.rows("SELECT ruvector_remove_agent(%s)", found[0][0])
    left = {name for name, _ in many.rows(nearest, FUNCTION)}
    assert found[0][0] not in left
    assert len(left) == 10


@pytest.mark.pgvector
@pytest.mark.slow
def test_a_small_tenant_beside_a_large_one_finds_all_its_own(many, role):
    many.rows("SELECT tiny_dancer.build_agent_index()")
    session = many.connect()
    session.execute(f"SET ROLE {role('tiny_dancer_reader')}")
    names = f"SELECT name FROM tiny_dancer.nearest_agents(ruvector_embed('{FUNCTION}'), 10)"
    assert len(session.execute(names).fetchall()) == 10
    session.execute("SET tiny_dancer.tenant = 'few'")
    assert {row[0] for row in session.execute(names).fetchall()} == {"first", "agent-1", "agent-2"}
    session.execute("SET tiny_dancer.tenant = 'nobody'")
    assert session.execute(names).fetchall() == []


@pytest.mark.pgvector
def test_settings_of_the_session_stay(agents):
    settings = "SELECT current_setting('random_page_cost'), current_setting('hnsw.ef_search', true)"
    agents.rows("SELECT '[1]'::vector; SET random_page_cost = 3; SET hnsw.ef_search = 17")
    before = agents.rows(settings)
    agents.rows(NEAREST.format("ruvector_embed('x')", 1))
    assert agents.rows(settings) == before == [("3", "17")]


@pytest.mark.pgvector
def test_only_the_owner_builds_the_index(agents, role):
    session = agents.connect()
    session.execute(f"SET ROLE {role('tiny_dancer_admin')}")
    with pytest.raises(Exception, match="must be owner") as caught:
        session.execute("SELECT tiny_dancer.build_agent_index()")
    assert getattr(caught.value, "sqlstate", None) == "42501"


@pytest.mark.pgvector
def test_what_is_refused(agents, db, new_database):
    for query, limit, sqlstate in (
        ("NULL::real[]", "10", "22000"),
        ("array_fill(0.0::real, ARRAY[384])", "10", "22000"),
        ("ARRAY[1, 2, 3]::real[]", "10", "22000"),
        ("ruvector_embed('x')", "-1", "22023"),
    ):
        assert agents.fails(NEAREST.format(query, limit)).sqlstate == sqlstate, query
    assert agents.rows(NEAREST.format("ruvector_embed('x')", 0)) == []
    assert len(agents.rows(NEAREST.format("ruvector_embed('x')", "NULL"))) == 2


@pytest.mark.pgvector
def test_before_the_first_agent(db):
    assert db.rows(NEAREST.format("ruvector_embed('x')", 10)) == []
    assert db.fails("SELECT tiny_dancer.build_agent_index()").sqlstate == "55000"


@pytest.mark.pgvector
def test_vectors_that_are_too_long_for_an_index(db):
    db.rows("SELECT tiny_dancer.set_vector_space('wide', 3000)")
    db.rows("SELECT ruvector_register_agent('a', 'llm', ARRAY['x'], 0.1, 1, 0.9, "
            "embedding := array_fill(1.0::real, ARRAY[3000]))")  # fmt: skip
    assert db.fails("SELECT tiny_dancer.build_agent_index()").sqlstate == "0A000"
    assert db.one("SELECT similarity FROM tiny_dancer.nearest_agents(array_fill(1.0::real, ARRAY[3000]))") == 1.0
