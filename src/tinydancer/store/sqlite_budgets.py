"""The part of the SQLite store that holds budgets and what is spent of them.

In: checked budgets, claims, outcomes. Out: what any process committed. The statements lie in
``sql/sqlite/queries/budgets.sql``. A file has one writer at a time, so what is read before it is written stays true.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence

from tinydancer.errors import StoreReadOnlyError
from tinydancer.policy.allowance import Claim
from tinydancer.policy.budgets import Budget, StoredBudget
from tinydancer.store import budgets as shared
from tinydancer.store.base import BudgetAlert, BudgetUse, Reservation, Reserved
from tinydancer.store.budgets import Charge, Taken
from tinydancer.store.connection import Connection, Database
from tinydancer.store.queries import load_queries
from tinydancer.store.rows import Row
from tinydancer.types import Outcome

_Q = load_queries("sqlite/queries/budgets.sql")
_AGENTS = load_queries("sqlite/queries/agents.sql")


class SqliteBudgets:
    """Mixed into `tinydancer.store.sqlite.SqliteStore`, which opens the file."""

    _database: Database
    _tenant: str
    _clock: Callable[[], float]

    def insert_budget(self, budget: Budget) -> None:
        """Keeps a new budget; `AlreadyExistsError`, `NotFoundError` for an agent that is not registered."""

        def work(connection: Connection) -> None:
            shared.require_new(budget.name, [s.budget.name for s in self._budgets(connection)])
            self._require_agent(connection, budget)
            connection.execute(_Q["insert_budget"], self._budget_row(budget))
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def update_budget(self, budget: Budget) -> None:
        """Overwrites the budget of that name; `NotFoundError`. What was spent and reserved stays."""

        def work(connection: Connection) -> None:
            shared.named(budget.name, self._budgets(connection))
            self._require_agent(connection, budget)
            connection.execute(_Q["update_budget"], self._budget_row(budget))
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def delete_budget(self, name: str) -> None:
        """Removes a budget with its accounts and reservations; `NotFoundError`. Its alerts stay."""

        def work(connection: Connection) -> None:
            shared.named(name, self._budgets(connection))
            connection.execute(_Q["delete_budget"], (self._tenant, name))
            connection.execute(_AGENTS["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def get_budget(self, name: str) -> StoredBudget:
        """One budget; `NotFoundError` with the nearest name as a hint."""
        return shared.named(name, self.list_budgets())

    def list_budgets(self) -> list[StoredBudget]:
        """All, active or not, in order of name."""
        return [shared.stored_of(row) for row in self._database.fetch(_Q["list_budgets"], (self._tenant,))]

    def budget_uses(
        self, periods: Sequence[tuple[int, int]], *, release: Sequence[int] = (), now: float = 0.0
    ) -> list[BudgetUse]:
        """What is used of budgets, after what is due of those in `release` was given back."""

        def due(connection: Connection) -> list[int]:
            ask = _Q["has_due"]
            return [one for one in release if connection.execute(ask, (self._tenant, one, now)).fetchone()[0]]

        def give_back(connection: Connection) -> None:
            for budget_id in release:
                rows = connection.execute(_Q["take_due"], (self._tenant, budget_id, now)).fetchall()
                self._charge(connection, shared.given_back(Taken("", *row) for row in rows))

        if release and self._database.read(due):
            with contextlib.suppress(StoreReadOnlyError):
                self._database.write(give_back, durable=False)
        return self._database.read(lambda connection: self._uses(connection, periods))

    def reserve(self, claims: Sequence[Claim], reservations: Sequence[Reservation], now: float) -> Reserved:
        """Reserves of several budgets, of all or of none; in a file that cannot be written it is only looked at."""

        def work(connection: Connection) -> Reserved:
            looked = self._look(connection, claims)
            if looked.granted:
                self._charge(connection, [Charge(c.stored.budget_id, c.period.key, -c.amount_usd, 0.0) for c in claims])
                for r in reservations:
                    row = (r.decision_id, r.agent_name, r.budget_id, r.period, r.amount_usd, now, r.release_at)
                    connection.execute(_Q["insert_reservation"], (self._tenant, *row))
            return Reserved(granted=looked.granted, uses=looked.uses, kept=looked.granted)

        try:
            return self._database.write(work, durable=False)
        except StoreReadOnlyError:
            return self._database.read(lambda connection: self._look(connection, claims))

    def cancel_reservations(self, decision_ids: Sequence[str]) -> None:
        """Gives back what decisions reserved."""

        def work(connection: Connection) -> None:
            self._charge(connection, shared.given_back(self._take(connection, decision_ids)))

        self._database.write(work, durable=False)

    def reserved_agent(self, decision_id: str) -> str | None:
        """The agent that a decision under a budget was made for, until its outcome is reported."""
        rows = self._database.fetch(_Q["reserved_agent"], (self._tenant, decision_id))
        return str(rows[0][0]) if rows else None

    def raise_alerts(
        self, stored: StoredBudget, period: int, shares: Sequence[float], used_usd: float, now: float
    ) -> list[float]:
        """Keeps alerts; those that were new."""
        budget = stored.budget

        def work(connection: Connection) -> list[float]:
            new = []
            for share in shares:
                row = (self._tenant, stored.budget_id, budget.name, period, share, used_usd, budget.amount_usd, now)
                if connection.execute(_Q["raise_alert"], row).rowcount:
                    new.append(share)
            connection.execute(_Q["mark_alerted"], (self._tenant, stored.budget_id, period, max(shares)))
            return new

        return self._database.write(work, durable=False)

    def budget_alerts(self, since: float) -> list[BudgetAlert]:
        """Alerts since an instant, the latest first."""
        rows = self._database.fetch(_Q["budget_alerts"], (self._tenant, since))
        return [
            BudgetAlert(budget=name, period=period, share=share, used_usd=used, amount_usd=amount, raised_at=at)
            for name, period, share, used, amount, at in rows
        ]

    def _settle(self, connection: Connection, outcomes: Sequence[Outcome]) -> bool:
        """Part of the transaction that appends the outcomes; whether a budget was charged."""
        if not connection.execute(_Q["has_budgets"], (self._tenant,)).fetchone()[0]:
            return False
        ids = list(dict.fromkeys(o.decision_id for o in outcomes if o.decision_id is not None))
        contexts = {}
        for decision_id in ids:
            found = connection.execute(_Q["decision_context"], (self._tenant, decision_id)).fetchone()
            if found is not None:
                contexts[decision_id] = shared.context_of(found[0])
        taken = self._take(connection, ids)
        charges = shared.charges_of(outcomes, self._budgets(connection), taken, contexts)
        self._charge(connection, charges)
        return bool(charges)

    def _look(self, connection: Connection, claims: Sequence[Claim]) -> Reserved:
        current = [
            claim
            for claim in claims
            if connection.execute(_Q["budget_revision"], (self._tenant, claim.stored.budget_id)).fetchone()
            == (claim.stored.revision,)
        ]
        wanted = [(claim.stored.budget_id, claim.period.key) for claim in current]
        found = {(use.budget_id, use.period): use for use in self._uses(connection, wanted)}
        uses = tuple(found.get(key, BudgetUse(*key, 0.0, 0.0, 0.0)) for key in wanted)
        granted = len(current) == len(claims) and shared.fits(claims, uses)
        return Reserved(granted=granted, uses=uses, kept=False)

    def _uses(self, connection: Connection, periods: Sequence[tuple[int, int]]) -> list[BudgetUse]:
        found = []
        for budget_id, period in periods:
            row = connection.execute(_Q["budget_use"], (self._tenant, budget_id, period)).fetchone()
            if row is not None:
                found.append(BudgetUse(budget_id, period, *row))
        return found

    def _take(self, connection: Connection, decision_ids: Sequence[str]) -> list[Taken]:
        taken = []
        for decision_id in decision_ids:
            rows = connection.execute(_Q["take_reservations"], (self._tenant, decision_id)).fetchall()
            taken += [Taken(*row) for row in rows]
        return taken

    def _charge(self, connection: Connection, charges: Sequence[Charge]) -> None:
        for charge in charges:
            row = (charge.budget_id, charge.period, -charge.reserved_usd, charge.spent_usd)
            connection.execute(_Q["charge"], (self._tenant, *row))

    def _budgets(self, connection: Connection) -> list[StoredBudget]:
        return [shared.stored_of(row) for row in connection.execute(_Q["list_budgets"], (self._tenant,))]

    def _budget_row(self, budget: Budget) -> Row:
        row = list(shared.budget_row(budget))
        row[11] = json.dumps(row[11])
        return (self._tenant, *row, self._clock())

    def _require_agent(self, connection: Connection, budget: Budget) -> None:
        names = {row[1] for row in connection.execute(_AGENTS["agent_names"], (self._tenant,))}
        shared.require_agent(budget, names)
