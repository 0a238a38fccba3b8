"""A tenant's session never sees what is another's: at random, on pooled connections, against a plain model.

Two tenants have agents of the same names with other prices and other records, so that an answer from the wrong tenant,
or from what a session kept of it, is a wrong number and not only a wrong name.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

TENANTS = ("north", "south", "")
"""The last is the default tenant: what a session has that sets none."""
NAMES = tuple(f"agent-{number}" for number in range(5))
STEPS = 300
ROUTE = "SELECT * FROM ruvector_route(%s, 'cost', good_enough := 0)"
ROUTE_VECTOR = "SELECT ruvector_route(ruvector_embed(%s), 'cost', '{\"good_enough\": 0}')"
BATCH = "SELECT * FROM ruvector_batch_route(ARRAY[%s, 'Another request'], 'cost', good_enough := 0)"
WRAPPED = "SELECT * FROM routed_for(%s, %s)"


@dataclass
class Agent:
    """What the model knows of one."""

    price: float
    active: bool = True
    outcomes: int = 0
    qualities: list[float] = field(default_factory=list)


@dataclass
class Tenant:
    """What the model knows of everything of one."""

    agents: dict[str, Agent] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    outcomes: int = 0

    def cheapest(self) -> str | None:
        active = [(agent.price, name) for name, agent in self.agents.items() if agent.active]
        return min(active)[1] if active else None


class Walk:
    """Random steps, each on one of the pool's connections under a role and a tenant of its own."""

    def __init__(self, db: Any, roles: list[str], seed: int) -> None:
        self.chance = random.Random(seed)
        self.tenants = {name: Tenant() for name in TENANTS}
        self.pool = [db.connect() for _ in range(3)]
        self.pool[0].prepare_threshold = None  # DISCARD ALL would forget statements that the driver remembers
        self.roles = roles
        self.prices = self.chance.sample(range(1, 100_000), 10_000)  # none twice: a price names its agent

    def step(self) -> str:
        connection = self.chance.choice(self.pool)
        name = self.chance.choice(TENANTS)
        action = self.chance.choices(
            (self.route, self.register, self.change, self.remove, self.report, self.judge, self.look, self.undo),
            (8, 2, 3, 1, 4, 3, 5, 1),
        )[0]
        connection.execute(f"SET ROLE {self.chance.choice(self.roles)}")
        # The setting may hold for the session or for one transaction only; before and after it another one holds.
        if self.chance.random() < 0.3:
            other = self.chance.choice(TENANTS)
            connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (other,))
            with connection.transaction():
                connection.execute("SELECT set_config('tiny_dancer.tenant', %s, true)", (name,))
                action(connection, self.tenants[name], name)
            self.look(connection, self.tenants[other], other)
        else:
            connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (name,))
            action(connection, self.tenants[name], name)
        if self.chance.random() < 0.1:  # as a pooler does between two clients
            connection.execute("DISCARD ALL" if connection.prepare_threshold is None else "RESET ALL")
            self.look(connection, self.tenants[""], "")
        return f"{action.__name__} as {name or 'default'}"

    # -- each compares what it sees with the model ---------------------------------------------------------------------

    def route(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        expected = tenant.cheapest()
        request = f"Write function number {self.chance.randrange(1000)}"
        way = self.chance.choice((ROUTE, ROUTE_VECTOR, BATCH, WRAPPED))
        parameters = (name, request) if way is WRAPPED else (request,)
        if expected is None:
            assert refused(connection, way, *parameters) == "P0002"
            return
        rows = dicts(connection, way, *parameters)
        for row in [row["ruvector_route"] for row in rows] if way is ROUTE_VECTOR else rows:
            assert row["agent_name"] == expected
            assert row["estimated_cost"] == pytest.approx(tenant.agents[expected].price, rel=1e-6)
            for other in row["alternatives"] or ():
                assert other["estimated_cost"] == pytest.approx(tenant.agents[other["agent_name"]].price, rel=1e-6)
                assert tenant.agents[other["agent_name"]].active
            tenant.decisions.append(row["decision_id"])

    def register(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        agent, price = self.chance.choice(NAMES), self.prices.pop() / 1e6
        sql = "SELECT ruvector_register_agent(%s, 'llm', ARRAY['functions'], %s, 100.0, 0.8)"
        if agent in tenant.agents:
            assert refused(connection, sql, agent, price) == "42710"
        else:
            connection.execute(sql, (agent, price))
            tenant.agents[agent] = Agent(price)

    def change(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        agent = self.chance.choice(NAMES)
        if self.chance.random() < 0.5:
            price = self.prices.pop() / 1e6
            sql, value = "SELECT ruvector_update_agent(%s, jsonb_build_object('cost_per_request', %s::float8))", price
        else:
            sql, value = "SELECT ruvector_set_agent_active(%s, %s)", self.chance.random() < 0.6
        if agent not in tenant.agents:
            assert refused(connection, sql, agent, value) == "42704"
            return
        connection.execute(sql, (agent, value))
        if isinstance(value, bool):
            tenant.agents[agent].active = value
        else:
            tenant.agents[agent].price = value

    def remove(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        agent = self.chance.choice(NAMES)
        if tenant.agents.pop(agent, None) is None:
            assert refused(connection, "SELECT ruvector_remove_agent(%s)", agent) == "42704"
        else:
            connection.execute("SELECT ruvector_remove_agent(%s)", (agent,))

    def report(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        agent, quality = self.chance.choice(NAMES), self.chance.randrange(65) / 64
        sql = "SELECT ruvector_update_agent_metrics(%s, 10, true, %s)"
        if agent not in tenant.agents:
            assert refused(connection, sql, agent, quality) == "42704"
            return
        connection.execute(sql, (agent, quality))
        tenant.agents[agent].outcomes += 1
        tenant.agents[agent].qualities.append(quality)
        tenant.outcomes += 1

    def judge(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        """Feedback on one's own decision counts; the same id under another tenant does not exist."""
        owner = self.chance.choice([n for n in TENANTS if self.tenants[n].decisions] or [name])
        decisions = self.tenants[owner].decisions
        if not decisions:
            return
        decision, quality = self.chance.choice(decisions), self.chance.randrange(65) / 64
        sql = "SELECT ruvector_feedback(%s, quality := %s)"
        if owner != name:
            assert refused(connection, sql, decision, quality) == "42704"
            return
        chosen = connection.execute(
            "SELECT a.name FROM tiny_dancer.decisions AS d JOIN tiny_dancer.agents AS a ON a.id = d.agent_id "
            "WHERE decision_id = %s AND d.tenant = tiny_dancer.current_tenant()", (decision,)
        ).fetchone()  # fmt: skip
        assert chosen is not None
        if chosen[0] not in tenant.agents:
            assert refused(connection, sql, decision, quality) == "42704"
            return
        connection.execute(sql, (decision, quality))
        tenant.agents[chosen[0]].outcomes += 1
        tenant.agents[chosen[0]].qualities.append(quality)
        tenant.outcomes += 1

    def look(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        """Everything a session can see of agents, decisions and statistics."""
        listed = {row["name"]: row for row in dicts(connection, "SELECT * FROM ruvector_list_agents()")}
        assert set(listed) == set(tenant.agents)
        for agent, known in tenant.agents.items():
            row = listed[agent]
            assert row["cost_per_request"] == known.price
            assert (row["is_active"], row["total_requests"]) == (known.active, known.outcomes)
            mean = sum(known.qualities) / len(known.qualities) if known.qualities else 0.8
            assert row["quality_score"] == pytest.approx(mean)
        (stats,) = dicts(connection, "SELECT ruvector_routing_stats() AS it")
        assert stats["it"]["total_decisions"] == len(tenant.decisions)
        assert stats["it"]["total_outcomes"] == tenant.outcomes
        found = dicts(connection, "SELECT * FROM ruvector_find_agents_by_capability('functions', 100)")
        assert {row["name"] for row in found} == {n for n, agent in tenant.agents.items() if agent.active}
        ((role, is_super),) = connection.execute(
            "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchall()
        if not is_super:  # whom policies do not hold; the functions name the tenant for those
            for table in ("agents", "decisions", "outcomes", "outcome_tail", "agent_stats", "registry_versions"):
                owners = connection.execute(f"SELECT DISTINCT tenant FROM tiny_dancer.{table}").fetchall()
                assert set(owners) <= {(name or "default",)}, (role, table)

    def undo(self, connection: psycopg.Connection[Any], tenant: Tenant, name: str) -> None:
        """What is rolled back was never there, for a session that had routed by it, too."""
        with suppress(psycopg.Rollback), connection.transaction():
            connection.execute("SELECT ruvector_register_agent('fleeting', 'llm', ARRAY['functions'], 0)")
            (row,) = dicts(connection, ROUTE, "Hello there")
            assert (row["agent_name"], row["estimated_cost"]) == ("fleeting", 0)
            raise psycopg.Rollback
        self.look(connection, tenant, name)


def dicts(connection: psycopg.Connection[Any], sql: str, *parameters: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, parameters)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def refused(connection: psycopg.Connection[Any], sql: str, *parameters: Any) -> str | None:
    """The SQLSTATE; an open transaction goes on as if nothing had been tried."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(sql, parameters)
    return caught.value.sqlstate


@pytest.mark.parametrize("seed", [20261121, 7])
def test_no_tenant_sees_anything_of_another(db, role, seed):
    # A function that names a tenant for the length of its call, whatever its caller's is.
    db.rows("""CREATE FUNCTION routed_for(tenant text, request text)
               RETURNS TABLE (agent_name text, estimated_cost float8, alternatives jsonb, decision_id text)
               LANGUAGE plpgsql AS $$
               BEGIN
                   PERFORM set_config('tiny_dancer.tenant', tenant, true);
                   RETURN QUERY SELECT d.agent_name, d.estimated_cost, d.alternatives, d.decision_id
                                FROM ruvector_route(request, 'cost', good_enough := 0) AS d;
               END $$""")
    walk = Walk(db, [role("tiny_dancer_admin"), role("tiny_dancer_admin"), "none"], seed)
    for name in TENANTS:
        connection = walk.pool[0]
        connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (name,))
        for _ in range(6):
            walk.register(connection, walk.tenants[name], name)
    steps = [walk.step() for _ in range(STEPS)]
    assert len(set(steps)) == 8 * len(TENANTS)  # everything was done as everybody
    for connection in walk.pool:
        connection.execute("RESET ROLE")
        for name, tenant in walk.tenants.items():
            connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (name,))
            walk.look(connection, tenant, name)
            walk.route(connection, tenant, name)
