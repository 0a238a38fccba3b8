"""Budgets in PostgreSQL from outside: 64 sessions at once, roles, sessions that may not write, whoever listens."""

from __future__ import annotations

import json
import threading

import numpy as np
import psycopg
import pytest

from tests.postgres.conftest import execute
from tests.store.budget_suite import DAY, budget, take, use
from tests.store.suite import agent, outcome
from tinydancer.budgets import Budgets
from tinydancer.errors import NoMatchError, StoreError
from tinydancer.service import TinyDancer
from tinydancer.store.postgres import PostgresStore

pytestmark = pytest.mark.postgres
VECTOR = np.ones(384, np.float32)


def prepare(dancer: TinyDancer) -> Budgets:
    dancer.register_agent("dear", "llm", [], 0.03, 500.0, 0.95)
    dancer.register_agent("cheap", "llm", [], 0.002, 150.0, 0.75)
    return Budgets(dancer)


def test_64_sessions_spend_a_budget_to_its_end(dsn):
    with TinyDancer(PostgresStore.connect(dsn)) as dancer:
        prepare(dancer).create("all", 10.0, "total")
        Budgets(dancer).create("team", 6.0, "total", scope="key", scope_value="team")
    store = PostgresStore.connect(dsn, max_connections=64, timeout_s=60.0)
    shared = TinyDancer(store)
    costs: list[float] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(64)

    def spend(number):
        # Half of the clients share a service, half have one each, as processes would.
        dancer = shared if number % 2 else TinyDancer(store)
        try:
            ready.wait(60)
            for i in range(1000):
                decision = dancer.route(embedding=VECTOR, optimize_for="quality", key="team", on_no_match="null")
                if decision is None:
                    return
                assert decision.estimated_cost is not None
                costs.append(decision.estimated_cost)
                if (i + number) % 3 == 0:
                    dancer.feedback(decision, cost_usd=decision.estimated_cost, quality=0.9)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert 6.0 - 0.002 < sum(costs) <= 6.0 + 1e-6
    for status in Budgets(shared).list():
        assert status.spent_usd + status.reserved_usd == pytest.approx(sum(costs), abs=1e-9)
    assert [a.share for a in Budgets(shared).alerts() if a.budget == "team"] == [1.0, 0.8, 0.5]
    shared.close()


def test_who_listens_is_told_of_an_alert_once(dsn):
    with TinyDancer(PostgresStore.connect(dsn)) as dancer, psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN tiny_dancer_budget")
        prepare(dancer).create("b", 0.1, "day", alert_at=[0.5], scope="tag", scope_value="x")
        for _ in range(3):
            dancer.route(embedding=VECTOR, optimize_for="quality", tags=["x"])
        (told,) = listener.notifies(timeout=5, stop_after=1)
        payload = json.loads(told.payload)
        assert (payload["budget"], payload["scope"], payload["scope_value"]) == ("b", "tag", "x")
        assert (payload["share"], payload["amount_usd"], payload["tenant"]) == (0.5, 0.1, "default")
        assert payload["used_usd"] == pytest.approx(0.06)
        assert payload["period_start"].endswith("T00:00:00+00:00")
        assert list(listener.notifies(timeout=0.2)) == []


def test_a_session_that_may_not_write_keeps_to_the_limits_and_reserves_nothing(dsn, open_from_outside):
    writer = TinyDancer(open_from_outside())
    budgets = prepare(writer)
    budgets.create("b", 0.05, "total")
    from tinydancer.config import Settings

    read_only = PostgresStore.connect(f"{dsn} options='-c default_transaction_read_only=on'")
    with TinyDancer(read_only, settings=Settings(record_decisions=False)) as reader:
        for _ in range(3):
            decision = reader.route(embedding=VECTOR, optimize_for="quality")
            assert (decision.agent_name, decision.decision_id) == ("dear", None)
        writer.route(embedding=VECTOR, optimize_for="quality")
        assert reader.route(embedding=VECTOR, optimize_for="quality").agent_name == "cheap"
        writer.record_outcomes([outcome("dear", cost_usd=1.0)])
        with pytest.raises(NoMatchError) as caught:
            reader.route(embedding=VECTOR)
        assert "the budget 'b' has nothing left" in caught.value.exclusions["cheap"]
        (status,) = Budgets(reader).list()
        assert status.spent_usd + status.reserved_usd == pytest.approx(1.03)


@pytest.fixture(scope="module")
def logins(cluster, template) -> None:
    for role in ("reader", "router", "admin"):
        execute(cluster.dsn(template), f"CREATE ROLE budget_{role} LOGIN IN ROLE tiny_dancer_{role}")


def test_a_role_that_routes_spends_and_administers_nothing(dsn, logins, open_from_outside):
    open_from_outside().insert_agents([agent("a"), agent("b")], replace=False)

    def store_as(role: str) -> PostgresStore:
        return PostgresStore.connect(dsn.replace("user=postgres", f"user=budget_{role}"))

    with store_as("admin") as admin, store_as("router") as router, store_as("reader") as reader:
        admin.insert_budget(budget())
        admin.update_budget(budget(amount_usd=2.0))
        for store in (router, reader):
            with pytest.raises(StoreError, match="may not"):
                store.insert_budget(budget("mine"))
            with pytest.raises(StoreError, match="may not"):
                store.delete_budget("b")
        assert take(router, "d", {"b": 0.5})
        assert take(router, "e", {"b": 0.25}, release_at=1.0)
        assert take(reader, "x", {"b": 0.5})  # it fits, and is not kept
        assert not take(reader, "x", {"b": 0.5}, at_most=0.5)
        router.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.125)])
        stored = router.get_budget("b")
        router.budget_uses([(stored.budget_id, DAY)], release=[stored.budget_id], now=2.0)
        assert use(reader) == (0.125, 0.0)
        assert router.raise_alerts(stored, DAY, (0.5,), 1.0, 1.0) == [0.5]
        assert reader.raise_alerts(stored, DAY, (0.8,), 1.0, 1.0) == []
        router.cancel_reservations(["d"])
        admin.delete_budget("b")
    with TinyDancer(store_as("router")) as routing:
        routing.route(embedding=VECTOR)


def test_sessions_that_reserve_in_long_transactions_wait_for_each_other_and_go_on(dsn, open_from_outside):
    store = open_from_outside()
    store.insert_agents([agent("a"), agent("b")], replace=False)
    store.insert_budget(budget())
    assert take(store, "first", {"b": 0.25})
    done: list[bool] = []
    with psycopg.connect(dsn) as holder:
        holder.execute("UPDATE tiny_dancer.budget_periods SET reserved_usd = reserved_usd + 0.5")
        waiting = threading.Thread(target=lambda: done.append(take(store, "second", {"b": 0.5}, at_most=0.5)))
        waiting.start()
        waiting.join(0.3)
        assert done == []
        holder.commit()
    waiting.join(30)
    assert done == [False]  # it saw what the other had taken
    assert use(store) == (0.0, 0.75)
    with psycopg.connect(dsn) as holder:
        holder.execute("UPDATE tiny_dancer.budget_periods SET reserved_usd = reserved_usd + 0.5")
        waiting = threading.Thread(target=lambda: done.append(take(store, "third", {"b": 0.125}, at_most=0.75)))
        waiting.start()
        waiting.join(0.3)
        holder.rollback()
    waiting.join(30)
    assert done == [False, True]
