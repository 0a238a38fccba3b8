"""The part of the PostgreSQL store that holds budgets and what is spent of them.

In: checked budgets, claims, outcomes. Out: what any session committed, and in the server also what this transaction
did. The statements lie in ``sql/postgres/queries/budgets.sql``. To reserve takes one statement, which locks the rows of
the budgets' periods until the end of the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tinydancer.errors import TinyDancerError
from tinydancer.policy.allowance import Claim
from tinydancer.policy.budgets import Budget, StoredBudget
from tinydancer.store import budgets as shared
from tinydancer.store.base import BudgetAlert, BudgetUse, Reservation, Reserved
from tinydancer.store.budgets import Charge, Taken
from tinydancer.store.pg_connection import Connection, Run
from tinydancer.store.pg_failures import PRIVILEGE_MISSING, READ_ONLY, DatabaseFailure, store_error
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_rows import Row
from tinydancer.types import Outcome

T = TypeVar("T")
_ONLY_LOOKS = (READ_ONLY, PRIVILEGE_MISSING)


class PostgresBudgets:
    """Mixed into `tinydancer.store.postgres.PostgresStore`, which opens the database."""

    _connection: Connection
    _tenant: str
    _clock: Callable[[], float]
    _has_budgets = False
    """Whether there were budgets when outcomes were last settled: with which statement to begin, no more."""

    def insert_budget(self, budget: Budget) -> None:
        """Keeps a new budget; `AlreadyExistsError`, `NotFoundError` for an agent that is not registered."""

        def work(run: Run) -> None:
            shared.require_new(budget.name, [s.budget.name for s in self._budgets(run)])
            self._require_agent(run, budget)
            run(QUERIES["insert_budget"], self._budget_row(budget))

        self._change_budgets(work)

    def update_budget(self, budget: Budget) -> None:
        """Overwrites the budget of that name; `NotFoundError`. What was spent and reserved stays."""

        def work(run: Run) -> None:
            shared.named(budget.name, self._budgets(run))
            self._require_agent(run, budget)
            run(QUERIES["update_budget"], self._budget_row(budget))

        self._change_budgets(work)

    def delete_budget(self, name: str) -> None:
        """Removes a budget with its accounts and reservations; `NotFoundError`. Its alerts stay."""

        def work(run: Run) -> None:
            shared.named(name, self._budgets(run))
            run(QUERIES["delete_budget"], (self._tenant, name))

        self._change_budgets(work)

    def get_budget(self, name: str) -> StoredBudget:
        """One budget; `NotFoundError` with the nearest name as a hint."""
        return shared.named(name, self.list_budgets())

    def list_budgets(self) -> list[StoredBudget]:
        """All, active or not, in order of name."""
        return [shared.stored_of(row) for row in self._read_budgets("list_budgets", self._tenant)]

    def budget_uses(
        self, periods: Sequence[tuple[int, int]], *, release: Sequence[int] = (), now: float = 0.0
    ) -> list[BudgetUse]:
        """What is used of budgets, after what is due of those in `release` was given back."""
        if release:
            query, wanted = QUERIES["release_due"], (self._tenant, list(release), float(now))
            _unless_refused(lambda: self._connection.write(query, wanted))
        rows = self._read_budgets("budget_uses", self._tenant, *_columns(periods, 2))
        return [BudgetUse(*row) for row in rows]

    def reserve(self, claims: Sequence[Claim], reservations: Sequence[Reservation], now: float) -> Reserved:
        """Reserves of several budgets, of all or of none, in one statement, but for the first request of a period.

        In a transaction that is read-only, and for a role that may only read, it is only looked at.
        """
        if len(claims) == 1 and (len(reservations) == 1 or (not reservations and not claims[0].amount_usd)):
            granted = self._reserve_one(claims[0], reservations[0] if reservations else None, now)
            if granted is not None:
                return Reserved(granted=True, uses=(granted,), kept=True)
        asked = [(c.stored.budget_id, c.stored.revision, c.period.key, c.amount_usd, c.used_at_most) for c in claims]
        noted = [(r.decision_id, r.agent_name, r.budget_id, r.period, r.amount_usd, r.release_at) for r in reservations]
        wanted = (self._tenant, *_columns(asked, 5), float(now), *_columns(noted, 6))
        reserve = QUERIES["reserve"]
        rows = _unless_refused(lambda: self._connection.write(reserve, wanted))
        if rows is not None and sum(row[1] is not None for row in rows) < len(claims):
            periods = (self._tenant, *_columns([(c.stored.budget_id, c.period.key) for c in claims], 2))
            begin = QUERIES["begin_budget_periods"]
            _unless_refused(lambda: self._connection.write(begin, periods))
            rows = _unless_refused(lambda: self._connection.write(reserve, wanted))
        if rows is None:
            return self._look(claims)
        uses = tuple(BudgetUse(*row[1:]) for row in rows if row[1] is not None)
        return Reserved(granted=rows[0][0], uses=uses, kept=rows[0][0])

    def _reserve_one(self, claim: Claim, reservation: Reservation | None, now: float) -> BudgetUse | None:
        """What was used before; None if it is not granted, for whatever reason."""
        noted: tuple[str | None, str | None, float | None] = (None, None, None)
        if reservation is not None:
            noted = (reservation.decision_id, reservation.agent_name, reservation.release_at)
        stored = claim.stored
        wanted = (self._tenant, stored.budget_id, stored.revision, claim.period.key, claim.amount_usd,
                  claim.used_at_most, float(now), *noted)  # fmt: skip
        rows = _unless_refused(lambda: self._connection.write(QUERIES["reserve_one"], wanted))
        return BudgetUse(*rows[0]) if rows else None

    def cancel_reservations(self, decision_ids: Sequence[str]) -> None:
        """Gives back what decisions reserved."""

        def work(run: Run) -> None:
            taken = [Taken(*row) for row in run(QUERIES["take_reservations"], (self._tenant, list(decision_ids)))]
            self._charge(run, shared.given_back(taken))

        try:
            self._connection.together(work)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    def reserved_agent(self, decision_id: str) -> str | None:
        """The agent that a decision under a budget was made for, until its outcome is reported."""
        rows = self._read_budgets("reserved_agent", self._tenant, str(decision_id))
        return str(rows[0][0]) if rows else None

    def raise_alerts(
        self, stored: StoredBudget, period: int, shares: Sequence[float], used_usd: float, now: float
    ) -> list[float]:
        """Keeps alerts and notifies whoever listens to ``tiny_dancer_budget``; those that were new."""
        told = json.dumps(shared.notice(self._tenant, stored, period, used_usd, now))
        wanted = (self._tenant, stored.budget_id, period, list(shares), float(used_usd), float(now), told)
        rows = _unless_refused(lambda: self._connection.write(QUERIES["raise_alerts"], wanted))
        return [row[0] for row in rows or ()]

    def budget_alerts(self, since: float) -> list[BudgetAlert]:
        """Alerts since an instant, the latest first."""
        return [
            BudgetAlert(budget=name, period=period, share=share, used_usd=used, amount_usd=amount, raised_at=at)
            for name, period, share, used, amount, at in self._read_budgets("budget_alerts", self._tenant, float(since))
        ]

    def _settle(self, run: Run, outcomes: Sequence[Outcome]) -> bool:
        """Part of the transaction that appends the outcomes; whether a budget was charged."""
        budgets, ids = self._budgets(run), [o.decision_id for o in outcomes if o.decision_id is not None]
        self._has_budgets = bool(budgets)
        taken, contexts = [], {}
        if ids:
            taken = [Taken(*row) for row in run(QUERIES["take_reservations"], (self._tenant, ids))]
            rows = run(QUERIES["decision_contexts"], (self._tenant, ids))
            contexts = {decision_id: shared.context_of(stored) for decision_id, stored in rows}
        charges = shared.charges_of(outcomes, budgets, taken, contexts)
        self._charge(run, charges)
        return bool(charges)

    def _charge(self, run: Run, charges: Sequence[Charge]) -> None:
        if charges:
            run(QUERIES["begin_budget_periods"], (self._tenant, *_columns([c[:2] for c in charges], 2)))
            run(QUERIES["charge"], (self._tenant, *_columns(charges, 4)))

    def _look(self, claims: Sequence[Claim]) -> Reserved:
        """What `reserve` would say, for those that may not write."""
        revisions = {stored.budget_id: stored.revision for stored in self.list_budgets() if stored.budget.is_active}
        current = [c for c in claims if revisions.get(c.stored.budget_id) == c.stored.revision]
        wanted = [(c.stored.budget_id, c.period.key) for c in current]
        found = {(use.budget_id, use.period): use for use in self.budget_uses(wanted)}
        uses = tuple(found.get(key, BudgetUse(*key, 0.0, 0.0, 0.0)) for key in wanted)
        return Reserved(granted=len(current) == len(claims) and shared.fits(claims, uses), uses=uses, kept=False)

    def _change_budgets(self, work: Callable[[Run], None]) -> None:
        """One transaction under the lock of the registry, whose version it moves."""

        def locked(run: Run) -> None:
            run(QUERIES["change_registry"], (self._tenant,))
            work(run)

        try:
            self._connection.together(locked)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    def _budgets(self, run: Run) -> list[StoredBudget]:
        return [shared.stored_of(row) for row in run(QUERIES["list_budgets"], (self._tenant,))]

    def _budget_row(self, budget: Budget) -> Row:
        return (self._tenant, *shared.budget_row(budget), float(self._clock()))

    def _require_agent(self, run: Run, budget: Budget) -> None:
        shared.require_agent(budget, {row[0] for row in run(QUERIES["agent_names"], (self._tenant,))})

    def _read_budgets(self, name: str, *parameters: Any) -> list[Row]:
        try:
            return self._connection.fetch(QUERIES[name], parameters)
        except DatabaseFailure as failure:
            raise store_error(failure) from None


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _unless_refused(write: Callable[[], list[Row]]) -> list[Row] | None:
    """What a statement answers; None where this session, or this role, may not write."""
    try:
        return write()
    except DatabaseFailure as failure:
        if failure.sqlstate not in _ONLY_LOOKS:
            raise store_error(failure) from None
    except TinyDancerError as error:  # a connection inside the server may have translated it already
        if error.sqlstate not in _ONLY_LOOKS:
            raise
    return None
