"""What every store must do with budgets. As `suite`: one subclass, one fixture per store."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.suite import OpenStore, agent, decision, outcome
from tinydancer.errors import AlreadyExistsError, NotFoundError
from tinydancer.policy.allowance import Claim
from tinydancer.policy.budgets import Budget, period_of
from tinydancer.store.base import BudgetUse, Reservation, Store
from tinydancer.types import RequestContext

NOW = 1_700_000_000.0
DAY = 1_699_920_000
"""The day of NOW in UTC."""


def budget(name: str = "b", **changes) -> Budget:
    values: dict[str, Any] = {"amount_usd": 1.0, "period": "day"}
    return Budget(name=name, **(values | changes))


def claim(store: Store, name: str, amount: float, at_most: float = math.inf, now: float = NOW) -> Claim:
    stored = store.get_budget(name)
    return Claim(stored, period_of(stored.budget, now), amount, at_most)


def take(store: Store, decision_id: str, amounts: dict[str, float], at_most: float = math.inf, **changes) -> bool:
    """Reserves amounts of budgets for one decision."""
    claims = sorted((claim(store, name, amount, at_most) for name, amount in amounts.items()), key=lambda c: c.stored)
    rows = [
        Reservation(decision_id, changes.get("agent", "a"), c.stored.budget_id, c.period.key, c.amount_usd,
                    changes.get("release_at"))
        for c in claims
    ]  # fmt: skip
    return store.reserve(claims, rows, NOW).granted


def use(store: Store, name: str = "b", now: float = NOW) -> tuple[float, float]:
    """(spent, reserved) of the period around an instant."""
    stored = store.get_budget(name)
    found = store.budget_uses([(stored.budget_id, period_of(stored.budget, now).key)])
    return (round(found[0].spent_usd, 12), round(found[0].reserved_usd, 12)) if found else (0.0, 0.0)


class BudgetSuite:
    """Checks of the part of the `Store` protocol that holds budgets."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    @pytest.fixture
    def till(self, open_store: OpenStore) -> Store:
        made = open_store("default")
        made.insert_agents([agent("a"), agent("b")], replace=False)
        return made

    def test_a_budget_comes_back_as_it_was_created(self, till):
        given = [
            Budget(
                name="Größe 'x'; DROP TABLE budgets", amount_usd=12.5, period=14, scope="agent", scope_value="b",
                time_zone="Europe/Berlin", starts_at=1_700_000_000.123456, ends_at=1_925_000_000.0, on_limit="cheapest",
                pacing="even", burst=0.25, alert_at=(0.3, 1), release_after_s=90.5, is_active=False,
            ),
            budget("plain"),
            budget("tagged", scope="tag", scope_value="ä tag", alert_at=[], period="total"),
        ]  # fmt: skip
        for one in given:
            till.insert_budget(one)
        found = till.list_budgets()
        assert [stored.budget for stored in found] == given
        assert [stored.revision for stored in found] == [1, 1, 1]
        assert till.get_budget("plain") == found[1]

    def test_names_and_agents_are_checked_and_every_change_moves_the_version(self, till):
        versions = [till.registry_version()]
        till.insert_budget(budget("Search"))
        versions.append(till.registry_version())
        with pytest.raises(AlreadyExistsError, match="'Search' already, which differs from 'search' in capitals"):
            till.insert_budget(budget("search"))
        with pytest.raises(NotFoundError, match="agent 'aa', which is not registered") as caught:
            till.insert_budget(budget("of-agent", scope="agent", scope_value="aa"))
        assert caught.value.hint == "Did you mean 'a'?"
        assert till.registry_version() == versions[-1]
        till.update_budget(budget("Search", amount_usd=2.0))
        versions.append(till.registry_version())
        assert (till.get_budget("Search").revision, till.get_budget("Search").budget.amount_usd) == (2, 2.0)
        with pytest.raises(NotFoundError, match="agent 'zz'"):
            till.update_budget(budget("Search", scope="agent", scope_value="zz"))
        for attempt in (lambda: till.update_budget(budget("Serch")), lambda: till.delete_budget("Serch"),
                        lambda: till.get_budget("Serch")):  # fmt: skip
            with pytest.raises(NotFoundError, match="no budget named 'Serch'") as caught:
                attempt()
            assert caught.value.hint == "Did you mean 'Search'?"
        till.delete_budget("Search")
        versions.append(till.registry_version())
        assert versions == sorted(set(versions))
        assert till.list_budgets() == []

    def test_reserving_is_all_or_nothing_and_says_what_was_used_before(self, till):
        till.insert_budget(budget("one"))
        till.insert_budget(budget("two"))
        claims = [claim(till, "one", 0.5, 0.0), claim(till, "two", 0.25, 0.0)]
        ids = [c.stored.budget_id for c in claims]
        rows = [Reservation("d1", "a", one, DAY, 0.5, None) for one in ids]
        first = till.reserve(claims, rows, NOW)
        assert (first.granted, first.kept) == (True, True)
        assert first.uses == tuple(BudgetUse(one, DAY, 0.0, 0.0, 0.0) for one in ids)
        again = till.reserve([claims[0]._replace(used_at_most=1.0), claims[1]], rows, NOW)
        assert (again.granted, again.kept) == (False, False)
        assert [(u.budget_id, u.used_usd) for u in again.uses] == [(ids[0], 0.5), (ids[1], 0.25)]
        assert (use(till, "one"), use(till, "two")) == ((0.0, 0.5), (0.0, 0.25))
        assert till.reserved_agent("d1") == "a"
        assert till.reserved_agent("d2") is None

    def test_nothing_is_reserved_of_a_budget_as_it_was_before_a_change(self, till):
        till.insert_budget(budget())
        old = claim(till, "b", 0.5)
        till.update_budget(budget(amount_usd=0.1))
        answer = till.reserve([old], [Reservation("d", "a", *old.stored[:1], DAY, 0.5, None)], NOW)
        assert (answer.granted, answer.uses) == (False, ())
        new = claim(till, "b", 0.05)
        till.update_budget(budget(amount_usd=0.1, is_active=False))
        assert not till.reserve([new], [], NOW).granted
        gone = claim(till, "b", 0.05)
        till.delete_budget("b")
        assert not till.reserve([gone], [], NOW).granted

    def test_an_outcome_settles_what_its_decision_reserved(self, till):
        till.insert_budget(budget())
        for number in range(5):
            assert take(till, f"d{number}", {"b": 0.1})
        assert use(till) == (0.0, 0.5)
        assert till.insert_outcomes([outcome("a", decision_id="d0", cost_usd=0.03)])
        assert use(till) == (0.03, 0.4)
        till.insert_outcomes([outcome("a", decision_id="d1")])  # its cost is unknown: the estimate counts
        assert use(till) == (0.13, 0.3)
        till.insert_outcomes([outcome("a", decision_id="d2", success=False)])  # a failure of unknown cost is free
        assert use(till) == (0.13, 0.2)
        till.insert_outcomes(
            [outcome("a", decision_id="d3", cost_usd=0.5), outcome("a", decision_id="d3", cost_usd=0.25)]
        )
        assert use(till) == (0.88, 0.1)  # the second has nothing reserved and is charged as it is
        assert not till.insert_outcomes([outcome("a", decision_id="d3"), outcome("a")])
        assert use(till) == (0.88, 0.1)

    def test_an_outcome_without_a_reservation_is_charged_where_it_belongs(self, till):
        for name, more in (
            ("all", {}), ("a", {"scope": "agent", "scope_value": "a"}), ("b", {"scope": "agent", "scope_value": "b"}),
            ("key", {"scope": "key", "scope_value": "team"}), ("other", {"scope": "key", "scope_value": "else"}),
            ("tag", {"scope": "tag", "scope_value": "one"}), ("off", {"is_active": False}),
            ("over", {"ends_at": NOW - 1}), ("early", {"starts_at": NOW + 1}),
        ):  # fmt: skip
            till.insert_budget(budget(name, **more))
        till.insert_decisions([decision("d", context=RequestContext(key="team", tags=("one", "two")))])
        till.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.25, occurred_at=NOW)])
        till.insert_outcomes([outcome("a", cost_usd=0.5, occurred_at=NOW)])
        spent = {stored.budget.name: use(till, stored.budget.name)[0] for stored in till.list_budgets()}
        assert spent == {
            "all": 0.75, "a": 0.75, "b": 0.0, "key": 0.25, "other": 0.0, "tag": 0.25, "off": 0.0, "over": 0.0,
            "early": 0.0,
        }  # fmt: skip

    def test_late_outcomes_count_where_they_belong(self, till):
        till.insert_budget(budget())
        assert take(till, "d", {"b": 0.1})
        tomorrow = NOW + 86_400
        till.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.2, occurred_at=tomorrow)])
        assert use(till) == (0.2, 0.0)  # in the period it was reserved in
        till.insert_outcomes([outcome("a", cost_usd=0.4, occurred_at=tomorrow)])
        assert (use(till), use(till, now=tomorrow)) == ((0.2, 0.0), (0.4, 0.0))

    def test_another_agent_may_answer_than_was_decided_for(self, till):
        for name in "ab":
            till.insert_budget(budget(name, scope="agent", scope_value=name))
        assert take(till, "d", {"a": 0.1})
        till.insert_outcomes([outcome("b", decision_id="d", cost_usd=0.3, occurred_at=NOW)])
        assert (use(till, "a"), use(till, "b")) == ((0.0, 0.0), (0.3, 0.0))

    def test_a_budget_may_go_while_reservations_are_open(self, till):
        till.insert_budget(budget("stays"))
        till.insert_budget(budget("goes"))
        assert take(till, "d", {"stays": 0.1, "goes": 0.1})
        till.delete_budget("goes")
        till.insert_budget(budget("goes"))
        till.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.2, occurred_at=NOW)])
        assert (use(till, "stays"), use(till, "goes")) == ((0.2, 0.0), (0.2, 0.0))

    def test_a_change_leaves_what_was_spent(self, till):
        till.insert_budget(budget())
        assert take(till, "d", {"b": 0.5})
        till.insert_outcomes([outcome("a", cost_usd=0.25, occurred_at=NOW)])
        till.update_budget(budget(amount_usd=0.5, on_limit="free"))
        assert use(till) == (0.25, 0.5)
        till.update_budget(budget(is_active=False))
        till.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.125)])
        assert use(till) == (0.375, 0.0)

    def test_what_is_never_reported_is_given_back_where_that_was_said(self, till):
        till.insert_budget(budget())
        assert take(till, "kept", {"b": 0.125})
        assert take(till, "lent", {"b": 0.25}, release_at=NOW + 60)
        assert take(till, "longer", {"b": 0.5}, release_at=NOW + 90)
        (stored,) = till.list_budgets()
        wanted, release = [(stored.budget_id, DAY)], [stored.budget_id]
        for after, left in ((-1e6, 0.875), (59.0, 0.875), (60.0, 0.625), (60.0, 0.625), (1e6, 0.125)):
            (found,) = till.budget_uses(wanted, release=release, now=NOW + after)
            assert found.reserved_usd == pytest.approx(left, abs=1e-12)
        till.insert_outcomes([outcome("a", decision_id="lent", cost_usd=0.0625, occurred_at=NOW)])
        assert use(till) == (0.0625, 0.125)

    def test_what_was_reserved_can_be_taken_back(self, till):
        till.insert_budget(budget())
        for name in ("one", "two"):
            assert take(till, name, {"b": 0.25})
        till.cancel_reservations(["one", "absent"])
        till.cancel_reservations(["one"])
        assert use(till) == (0.0, 0.25)

    def test_an_outcome_that_is_refused_changes_no_account(self, till):
        till.insert_budget(budget())
        assert take(till, "d", {"b": 0.25})
        with pytest.raises(NotFoundError, match="'nobody'"):
            till.insert_outcomes([outcome("a", decision_id="d", cost_usd=1.0), outcome("nobody")])
        assert use(till) == (0.0, 0.25)
        assert till.routing_totals().total_outcomes == 0

    def test_an_alert_is_raised_once(self, till):
        till.insert_budget(budget())
        assert take(till, "d", {"b": 0.75})
        stored = till.get_budget("b")
        assert till.raise_alerts(stored, DAY, (0.5,), 0.75, NOW) == [0.5]
        assert till.raise_alerts(stored, DAY, (0.5, 0.8), 0.9, NOW + 1) == [0.8]
        assert till.raise_alerts(stored, DAY, (0.5,), 0.75, NOW + 2) == []
        assert till.raise_alerts(stored, DAY + 86_400, (0.5,), 0.75, NOW + 3) == [0.5]
        assert till.budget_uses([(stored.budget_id, DAY)])[0].alerted == 0.8
        till.delete_budget("b")
        alerts = till.budget_alerts(NOW)
        assert [(a.period - DAY, a.share, a.used_usd, a.raised_at - NOW) for a in alerts] == [
            (86_400, 0.5, 0.75, 3.0), (0, 0.8, 0.9, 1.0), (0, 0.5, 0.75, 0.0),
        ]  # fmt: skip
        assert {(a.budget, a.amount_usd) for a in alerts} == {("b", 1.0)}
        assert len(till.budget_alerts(NOW + 1)) == 2

    def test_threads_that_spend_at_once_never_pass_a_limit_and_leave_nothing(self, open_store, till):
        till.insert_budget(budget("one", amount_usd=1.0, scope="key", scope_value="k"))
        till.insert_budget(budget("two", amount_usd=2.0))
        amount, granted = 1.0 / 64, []

        def spend(number):
            own = open_store("default")
            both = number % 2 == 0
            for i in range(30):
                names = {"one": amount, "two": amount} if both else {"two": amount}
                # In either order: the store has to take them in one.
                claims = [claim(own, name, amount, limit - amount) for name, limit in (("two", 2.0), ("one", 1.0))
                          if name in names]  # fmt: skip
                claims.sort(key=lambda c: c.stored.budget_id, reverse=number % 4 == 0)
                rows = [Reservation(f"{number}-{i}", "a", c.stored.budget_id, DAY, amount, None) for c in claims]
                if own.reserve(claims, rows, NOW).granted:
                    granted.append((number, i))
                    if i % 3 == 0:
                        own.insert_outcomes([outcome("a", decision_id=f"{number}-{i}", cost_usd=amount)])

        threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        of_one = sum(number % 2 == 0 for number, _ in granted)
        assert (sum(use(till, "one")), sum(use(till, "two"))) == (of_one / 64, len(granted) / 64)
        assert len(granted) == 128
        assert of_one <= 64


class BudgetTenantSuite:
    """The same for stores that several tenants share."""

    def test_tenants_have_their_own_budgets(self, open_store):
        one, other = open_store("one"), open_store("other")
        for store in (one, other):
            store.insert_agent(agent("a"))
            store.insert_budget(budget("b", amount_usd=1.0 if store is one else 2.0))
        assert take(one, "d", {"b": 0.5})
        assert (use(one), use(other)) == ((0.0, 0.5), (0.0, 0.0))
        other.insert_outcomes([outcome("a", decision_id="d", cost_usd=0.25, occurred_at=NOW)])
        other.cancel_reservations(["d"])
        assert (use(one), use(other)) == ((0.0, 0.5), (0.25, 0.0))
        assert (one.reserved_agent("d"), other.reserved_agent("d")) == ("a", None)
        stolen = claim(one, "b", 0.125)
        assert not other.reserve(
            [stolen], [Reservation("x", "a", stolen.stored.budget_id, DAY, 0.125, None)], NOW
        ).granted
        assert other.budget_uses([(stolen.stored.budget_id, DAY)]) == []
        one.raise_alerts(one.get_budget("b"), DAY, (0.5,), 0.5, NOW)
        assert (len(one.budget_alerts(0.0)), other.budget_alerts(0.0)) == (1, [])
        before = other.registry_version()
        one.delete_budget("b")
        assert other.registry_version() == before
        assert other.get_budget("b").budget.amount_usd == 2.0
        assert use(other) == (0.25, 0.0)
