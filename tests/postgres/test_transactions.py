"""What sessions see of uncommitted, rolled back and forbidden changes; and what each tenant sees of the others."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres.conftest import execute
from tests.store.suite import agent, decision, outcome
from tinydancer.errors import StoreError, StoreReadOnlyError
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres

VERSION = "result = (store.registry_version(), store.outcomes_version())"
REGISTER = "from tinydancer.types import Agent\nstore.insert_agent(Agent(name={!r}))"
REPORT = "from tinydancer.types import Outcome\nstore.insert_outcomes([Outcome(agent_name={!r}, occurred_at=1.0)])"


def run(connection: psycopg.Connection, code: str):
    row = connection.execute("SELECT td_run(%s)", (code,)).fetchone()
    assert row is not None
    return eval(row[0])


def test_no_version_comes_twice_after_a_rollback(plpy_dsn):
    with psycopg.connect(plpy_dsn) as session, psycopg.connect(plpy_dsn, autocommit=True) as other:
        seen = [run(session, VERSION)]
        session.commit()
        for name in "abc":
            run(session, REGISTER.format(name))
            seen.append(run(session, VERSION))
            session.rollback()
            assert run(session, VERSION) == seen[0]
        for name in "def":
            session.execute("SAVEPOINT here")
            run(session, REGISTER.format(name))
            seen.append(run(session, VERSION))
            session.execute("ROLLBACK TO SAVEPOINT here")
            assert run(session, VERSION) == seen[0]
        session.rollback()
        run(other, REGISTER.format("a"))
        seen.append(run(session, VERSION))
    registry = [version[0] for version in seen]
    assert registry == sorted(set(registry))


def test_no_set_of_outcomes_has_anothers_version(plpy_dsn):
    with psycopg.connect(plpy_dsn) as session, psycopg.connect(plpy_dsn, autocommit=True) as other:
        run(other, REGISTER.format("a"))
        seen = [run(session, VERSION)[1]]
        for _ in range(5):
            session.execute("SAVEPOINT here")
            run(session, REPORT.format("a"))
            seen.append(run(session, VERSION)[1])
            session.execute("ROLLBACK TO SAVEPOINT here")
            assert run(session, VERSION)[1] == seen[0]
        session.rollback()
        run(session, REPORT.format("a"))  # this one's id is smaller than the next one's, and is committed later
        run(other, REPORT.format("a"))
        seen.append(run(other, VERSION)[1])
        seen.append(run(session, VERSION)[1])
        session.commit()
        assert run(other, VERSION)[1] == seen[-1]
        run(other, "store.roll_up()")
        assert run(other, VERSION)[1] == seen[-1]  # rolling up changes nothing that is seen
    assert len(set(seen)) == len(seen)


def test_a_session_sees_its_own_changes_and_others_only_committed_ones(plpy_dsn, open_from_outside):
    outside = open_from_outside()
    before = outside.version()
    with psycopg.connect(plpy_dsn) as session:
        run(session, REGISTER.format("a"))
        assert run(session, "result = [a.name for a in store.list_agents()]") == ["a"]
        assert outside.list_agents() == []
        assert outside.version() == before
        session.commit()
        assert [a.name for a in outside.list_agents()] == ["a"]


def test_a_failed_call_leaves_the_transaction_usable(plpy_dsn):
    with psycopg.connect(plpy_dsn) as session:
        run(session, REGISTER.format("a"))
        refused = (
            "from tinydancer.errors import AlreadyExistsError\nfrom tinydancer.types import Agent\n"
            "try:\n    store.insert_agents([Agent(name='b'), Agent(name='a')], replace=False)\n"
            "except AlreadyExistsError as error:\n    result = [error.message, [a.name for a in store.list_agents()]]"
        )
        assert run(session, refused) == ["An agent named 'a' is registered already.", ["a"]]


def test_read_only_sessions_read_and_cannot_record(dsn, open_from_outside):
    writer = open_from_outside()
    writer.insert_agent(agent("a"))
    writer.insert_decisions([decision("1")])
    writer.insert_outcomes([outcome("a", decision_id="1", quality=0.5)])
    with PostgresStore.connect(f"{dsn} options='-c default_transaction_read_only=on'") as reader:
        assert [a.name for a in reader.list_agents()] == ["a"]
        assert reader.agent_stats()["a"].total_requests == 1
        assert reader.version() == writer.version()
        assert reader.recent_residuals(10) == [0.25]
        for attempt in (
            lambda: reader.insert_agent(agent("b")),
            lambda: reader.delete_agent("a"),
            lambda: reader.insert_decisions([decision("2")]),
            lambda: reader.insert_outcomes([outcome("a")]),
            reader.roll_up,
        ):
            with pytest.raises(StoreReadOnlyError):
                attempt()


def test_read_only_transactions_in_the_server(plpy_dsn, open_in_server):
    store = open_in_server()
    store.insert_agent(agent("a"))
    caught = (
        "from tinydancer.errors import StoreReadOnlyError\nfrom tinydancer.types import Outcome\n"
        "try:\n    store.insert_outcomes([Outcome(agent_name='a', occurred_at=1.0)])\n"
        "except StoreReadOnlyError as error:\n    result = [error.sqlstate, len(store.list_agents())]"
    )
    with psycopg.connect(plpy_dsn) as session:
        session.read_only = True
        assert run(session, caught) == ["25006", 1]


@pytest.fixture(scope="module")
def logins(cluster, template) -> None:
    """Roles of the cluster that are no superusers; by trust on the socket they need no password."""
    for role in ("reader", "router", "admin"):
        execute(cluster.dsn(template), f"CREATE ROLE test_{role} LOGIN IN ROLE tiny_dancer_{role}")
    execute(cluster.dsn(template), "CREATE ROLE test_nobody LOGIN")


def test_each_role_may_do_its_work_and_no_more(cluster, dsn, logins, open_from_outside):
    open_from_outside().insert_agent(agent("a"))

    def store_as(role: str) -> PostgresStore:
        return PostgresStore.connect(dsn.replace("user=postgres", f"user=test_{role}"))

    with store_as("admin") as admin:
        admin.insert_agent(agent("b"))
        admin.insert_agents([agent("b"), agent("c")], replace=True)
        admin.replace_agent(agent("b", quality_score=0.5))
        admin.delete_agent("c")
        admin.insert_outcomes([outcome("b")])
        assert admin.roll_up() == 1
    with store_as("router") as router:
        router.insert_decisions([decision("1"), decision("2")])
        router.insert_outcomes([outcome("a")])
        assert router.roll_up() == 1
        assert router.agent_stats()["b"].total_requests == 1
        with pytest.raises(StoreError, match=r"may not do that.*permission denied"):
            router.delete_agent("a")
    with store_as("reader") as reader:
        assert [a.name for a in reader.list_agents()] == ["a", "b"]
        assert reader.list_decisions() == open_from_outside().list_decisions()
        with pytest.raises(StoreError, match="may not do that"):
            reader.insert_decisions([decision("3")])
        with pytest.raises(StoreError, match="may not do that"):
            reader.insert_outcomes([outcome("a")])
    with pytest.raises(StoreError, match="may not do that"):
        store_as("nobody")


def test_policies_hold_every_role_that_is_no_superuser(dsn, logins, open_from_outside):
    for tenant in ("one", "two"):
        store = open_from_outside(tenant)
        store.insert_agent(agent(f"of-{tenant}"))
        store.insert_decisions([decision("1", f"of-{tenant}")])
        store.insert_outcomes([outcome(f"of-{tenant}")])
        store.roll_up()
        store.insert_outcomes([outcome(f"of-{tenant}", latency_ms=5.0)])
    tables = [
        row[0]
        for row in execute(
            dsn,
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'tiny_dancer' AND column_name = 'tenant'",
        )
    ]
    assert len(tables) == 21
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SET ROLE test_admin")
        for tenant in ("one", "two", "one"):
            session.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (tenant,))
            for table in tables:
                found = session.execute(f"SELECT DISTINCT tenant FROM tiny_dancer.{table}").fetchall()
                assert found in ([], [(tenant,)])
            assert session.execute("SELECT name FROM tiny_dancer.agents").fetchall() == [(f"of-{tenant}",)]
            assert session.execute("SELECT count(*) FROM tiny_dancer.outcomes").fetchone() == (2,)
        assert session.execute("UPDATE tiny_dancer.agents SET quality_score = 0").rowcount == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("INSERT INTO tiny_dancer.agents (tenant, name, agent_type) VALUES ('two', 'x', 'llm')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("UPDATE tiny_dancer.agents SET tenant = 'two'")
        session.execute("INSERT INTO tiny_dancer.agents (name, agent_type) VALUES ('x', 'llm')")
        assert execute(dsn, "SELECT tenant FROM tiny_dancer.agents WHERE name = 'x'") == [("one",)]


def test_plans_of_one_role_do_not_serve_another(plpy_dsn, logins, open_from_outside):
    for tenant in ("one", "two"):
        open_from_outside(tenant).insert_agent(agent(f"of-{tenant}"))
    execute(plpy_dsn, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC")
    names = "result = [a.name for a in store.list_agents()]"
    with psycopg.connect(plpy_dsn, autocommit=True) as session:
        for _ in range(8):  # past the fifth, plans may become generic
            for role, tenant in (
                ("postgres", "one"),
                ("test_reader", "two"),
                ("test_admin", "one"),
                ("postgres", "two"),
            ):
                session.execute(f"SET ROLE {role}")
                session.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (tenant,))
                assert run(session, names) == [f"of-{tenant}"]
        session.execute("SET ROLE test_nobody")
        with pytest.raises(psycopg.Error, match="permission denied"):
            run(session, names)


def test_a_hostile_search_path_changes_nothing(dsn, open_from_outside):
    open_from_outside().insert_agent(agent("a"))
    execute(
        dsn,
        """
        CREATE SCHEMA evil;
        CREATE TABLE evil.agents AS SELECT * FROM tiny_dancer.agents WITH NO DATA;
        CREATE FUNCTION evil.equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.equal);
        """,
    )
    with PostgresStore.connect(f"{dsn} options='-c search_path=evil,pg_catalog'") as store:
        assert [a.name for a in store.list_agents()] == ["a"]
        assert store.get_agent("a").name == "a"
    with psycopg.connect(f"{dsn} options='-c search_path=evil,pg_catalog'") as session:
        session.execute("SET tiny_dancer.tenant = 'x'")
        assert session.execute("SELECT tiny_dancer.current_tenant()").fetchone() == ("x",)
