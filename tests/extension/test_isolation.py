"""Who sees what: hostile search paths, shadowed functions, roles and tenants that change between calls, rollbacks."""

from __future__ import annotations

import random

import psycopg

ROUTE = "SELECT agent_name FROM public.ruvector_route('Write a function', 'quality')"
SHADOWS = """
    CREATE SCHEMA hostile;
    CREATE FUNCTION hostile.stolen() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE FUNCTION hostile.current_setting(text, boolean) RETURNS text LANGUAGE sql
        AS 'SELECT hostile.stolen()::text';
    CREATE FUNCTION hostile.jsonb_build_object(VARIADIC "any") RETURNS jsonb LANGUAGE internal
        AS 'jsonb_build_object_noargs';
    CREATE FUNCTION hostile.coalesced(text, text) RETURNS boolean LANGUAGE sql
        AS 'SELECT hostile.stolen()::text IS NULL';
    CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.coalesced);
    CREATE FUNCTION hostile.has(jsonb, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR hostile.? (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = hostile.has);
    CREATE FUNCTION hostile.array_send(real[]) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
    CREATE FUNCTION hostile.count() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
    CREATE FUNCTION hostile.ruvector_route(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1';
    CREATE TABLE hostile.agents (name text);
"""


def test_a_hostile_search_path(agents):
    expected = agents.one(ROUTE)
    agents.rows(SHADOWS)
    agents.connection.close()
    agents.opened.clear()
    agents.rows("SET search_path = hostile, pg_catalog, public, pg_temp")
    agents.rows("CREATE TEMP TABLE agents (name text)")
    assert agents.one(ROUTE) == expected
    assert agents.one("SELECT public.ruvector_register_agent('third', 'llm', ARRAY['x'], 1, 1, 0.5)") is True
    assert agents.one("SELECT public.ruvector_update_agent('third', '{\"quality_score\": 0.25}')") is True
    assert agents.one("SELECT public.ruvector_update_agent_metrics('third', 5, true, 0.5)") is True
    assert agents.one("SELECT pg_catalog.count(*) FROM public.ruvector_list_agents()") == 3
    assert agents.one("SELECT public.ruvector_routing_stats()")["total_outcomes"] == 1
    assert agents.fails("SELECT public.ruvector_get_agent('none')").sqlstate == "42704"


def test_no_search_path_at_all(agents):
    agents.rows("SET search_path = ''")
    assert agents.one(ROUTE) == "gpt-4"
    assert len(agents.one("SELECT public.ruvector_embed('x')")) == 384


def test_rollback_between_register_and_route(agents):
    connection = agents.connect(autocommit=False)

    def chosen() -> str:
        row = connection.execute(ROUTE).fetchone()
        assert row is not None
        return str(row[0])

    assert chosen() == "gpt-4"
    connection.commit()
    connection.execute("SELECT ruvector_register_agent('best', 'llm', ARRAY['functions'], 0.001, 1, 1.0)")
    assert chosen() == "best"
    connection.rollback()
    assert chosen() == "gpt-4"
    connection.execute("SAVEPOINT before")
    connection.execute("SELECT ruvector_register_agent('better', 'llm', ARRAY['functions'], 0.001, 1, 1.0)")
    assert chosen() == "better"
    connection.execute("ROLLBACK TO before")
    assert chosen() == "gpt-4"
    connection.commit()
    assert agents.one("SELECT ruvector_routing_stats()")["decisions_by_agent"] == {"gpt-4": 3}


def test_other_sessions_see_changes_at_their_next_statement(agents):
    other = agents.connect()
    assert other.execute(ROUTE).fetchone() == ("gpt-4",)
    agents.rows("SELECT ruvector_remove_agent('gpt-4')")
    assert other.execute(ROUTE).fetchone() == ("gpt-3.5-turbo",)


def test_privileges_follow_the_role(agents, role):
    reader, router, manager, nobody = (role(*groups) for groups in (
        ("tiny_dancer_reader",), ("tiny_dancer_router",), ("tiny_dancer_admin",), ()))  # fmt: skip
    route = "SELECT decision_id IS NOT NULL FROM ruvector_route('Hello', 'cost')"
    assert agents.one(route) is True  # the superuser's snapshot is kept by now
    attempts = {
        "SELECT count(*) FROM ruvector_list_agents()": (True, True, True, False),
        route: (False, True, True, False),
        "SELECT ruvector_update_agent_metrics('gpt-4', 1, true, 0.5)": (False, True, True, False),
        "SELECT ruvector_register_agent('new')": (False, False, True, False),
        "SELECT ruvector_remove_agent('new')": (False, False, True, False),
        "SELECT ruvector_clear_agents()": (False, False, False, False),
        "SELECT tiny_dancer.set_vector_space('x', 3)": (False, False, False, False),
    }
    for sql, allowed in attempts.items():
        for name, may in zip((reader, router, manager, nobody), allowed, strict=True):
            agents.rows(f"SET ROLE {name}")
            if may:
                agents.one(sql)
            else:
                error = agents.fails(sql)
                assert error.sqlstate == "42501", (sql, name)
                assert "Traceback" not in str(error.diag.context)
            agents.rows("RESET ROLE")
    agents.rows(f"SET ROLE {reader}")
    agents.rows("SET tiny_dancer.record_decisions = off")
    assert agents.one(route) is False  # a reader decides without recording
    agents.rows("RESET ROLE")
    agents.rows("REVOKE SELECT ON tiny_dancer.agents FROM tiny_dancer_reader")
    agents.rows(f"SET ROLE {reader}")
    assert agents.fails(route).sqlstate == "42501"  # no snapshot outlives the permission to read it
    agents.rows("RESET ROLE")


def test_nobody_needs_to_be_superuser(db, role):
    name = role("tiny_dancer_admin")
    with psycopg.connect(db.cluster.dsn(db.name, user=name), autocommit=True) as connection:
        for sql in ("SELECT ruvector_register_agent('a', 'llm', ARRAY['x'], 0.1, 10, 0.9)",
                    "SELECT agent_name FROM ruvector_route('Hello')",
                    "SELECT ruvector_update_agent_metrics('a', 12, true, 0.8)",
                    "SELECT ruvector_routing_stats()", "SELECT * FROM ruvector_list_agents()"):  # fmt: skip
            assert connection.execute(sql).fetchone()


def test_tenants_and_roles_at_random(db, role):
    """On one pooled connection, whatever role and tenant it has, each tenant sees what is its own and nothing else."""
    chance = random.Random(20261121)
    routers = [role("tiny_dancer_router"), role("tiny_dancer_admin")]
    tenants = ["", "north", "south", "it's"]
    owned: dict[str, set[str]] = {tenant: set() for tenant in tenants}
    decided: dict[str, int] = dict.fromkeys(tenants, 0)
    reported: dict[str, int] = dict.fromkeys(tenants, 0)
    for tenant in tenants:
        db.rows("SELECT set_config('tiny_dancer.tenant', %s, false)", tenant)
        for number in range(2):
            name = f"{tenant or 'default'}-{number}"
            db.rows("SELECT ruvector_register_agent(%s, 'llm', ARRAY['x'], 0.1, 10, 0.9)", name)
            owned[tenant].add(name)
    for step in range(250):
        tenant = chance.choice(tenants)
        db.rows("SELECT set_config('tiny_dancer.tenant', %s, false)", tenant)
        db.rows(f"SET ROLE {chance.choice([*routers, 'none'])}")
        action = chance.randrange(5)
        if action == 0:
            assert {row[0] for row in db.rows("SELECT name FROM ruvector_list_agents()")} == owned[tenant]
        elif action == 1:
            assert db.one("SELECT agent_name FROM ruvector_route('Hello', 'cost')") in owned[tenant]
            decided[tenant] += 1
        elif action == 2:
            db.rows("SELECT ruvector_update_agent_metrics(%s, 5, true, 0.5)", chance.choice(sorted(owned[tenant])))
            reported[tenant] += 1
        elif action == 3:
            stats = db.one("SELECT ruvector_routing_stats()")
            assert (stats["total_decisions"], stats["total_outcomes"]) == (decided[tenant], reported[tenant])
            assert set(stats["decisions_by_agent"]) <= owned[tenant]
        else:
            db.rows("RESET ROLE")
            name = f"{tenant or 'default'}-new-{step}"
            db.rows("SELECT ruvector_register_agent(%s, 'llm', ARRAY['x'], 0.1, 10, 0.9)", name)
            owned[tenant].add(name)
        stranger = chance.choice(sorted(set().union(*(owned[t] for t in tenants if t != tenant))))
        assert db.fails("SELECT ruvector_get_agent(%s)", stranger).sqlstate == "42704"
    db.rows("RESET ROLE")


def test_recording(agents):
    def recorded(setting: str) -> int:
        agents.rows(f"SET tiny_dancer.record_decisions = '{setting}'")
        before = agents.one("SELECT count(*) FROM tiny_dancer.decisions")
        ids = agents.rows("SELECT decision_id FROM ruvector_batch_route(array_fill('Hello'::text, ARRAY[200]))")
        made = agents.one("SELECT count(*) FROM tiny_dancer.decisions") - before
        assert made == sum(one is not None for (one,) in ids)
        return int(made)

    assert recorded("on") == 200
    assert recorded("off") == 0
    assert 50 < recorded("0.5") < 150  # a fair coin falls outside this once in 10^12 times
    agents.rows("RESET tiny_dancer.record_decisions")


def test_feedback_teaches(agents):
    decision = agents.one("SELECT decision_id FROM ruvector_route('Hello', 'cost')")
    assert agents.one(
        "SELECT ruvector_feedback(%s, quality := 0.25, latency_ms := 90, cost := 0.001, output_tokens := 12)", decision
    )
    agent = agents.one("SELECT ruvector_get_agent('gpt-3.5-turbo')")
    assert (agent["quality_score"], agent["avg_latency_ms"], agent["total_cost_usd"]) == (0.25, 90.0, 0.001)
    assert agents.fails("SELECT ruvector_feedback(%s, success := NULL)", decision).sqlstate == "22023"


def test_read_only_transactions(agents):
    agents.rows("SET default_transaction_read_only = on")
    row = agents.dicts("SELECT * FROM ruvector_route('Hello', 'quality')")[0]
    assert (row["agent_name"], row["decision_id"]) == ("gpt-4", None)
    assert agents.one("SELECT count(*) FROM ruvector_list_agents()") == 2
    error = agents.fails("SELECT ruvector_register_agent('new')")
    assert error.sqlstate == "25006"
    assert error.diag.message_hint
    agents.rows("SET default_transaction_read_only = off")
    assert agents.dicts("SELECT * FROM ruvector_route('Hello', 'quality')")[0]["decision_id"]


def test_a_fresh_session_that_may_only_read(db):
    """Nothing is written by looking: not the vector space, not a statistic."""
    connection = db.connect()
    connection.execute("SET default_transaction_read_only = on")
    assert connection.execute("SELECT count(*) FROM ruvector_list_agents()").fetchone() == (0,)
    assert db.rows("SELECT * FROM tiny_dancer.meta") == []


def test_settings_change_decisions_at_once(agents):
    assert agents.one("SELECT agent_name FROM ruvector_route('Hello', 'cost')") == "gpt-3.5-turbo"
    agents.rows("SET tiny_dancer.good_enough = 0.95")
    assert agents.one("SELECT agent_name FROM ruvector_route('Hello', 'cost')") == "gpt-4"
    agents.rows("RESET tiny_dancer.good_enough")
    assert agents.one("SELECT agent_name FROM ruvector_route('Hello', 'cost')") == "gpt-3.5-turbo"
    agents.rows("SET tiny_dancer.max_request_chars = 3")
    assert agents.fails("SELECT ruvector_route('Hello')").sqlstate == "22023"
