"""The service's part in budgets: what is left for a request, and reserving it before the decision counts.

In: a store, a snapshot with its budgets, whose request it is, and how to decide within an allowance. Out: decisions for
which the money is reserved. What is left was last seen some requests ago and is taken on trust: reserving checks it, in
one statement, and says what is used now; where others were faster, it is decided again with that. Nobody is refused, or
sent to another agent, on anything but what was just read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinydancer.decide import Decisions
from tinydancer.errors import NoMatchError, StoreLockedError, TinyDancerError
from tinydancer.policy.allowance import Allowance, Claim, Holding
from tinydancer.policy.budgets import StoredBudget, due_alerts, is_open, matches
from tinydancer.snapshot import Snapshot
from tinydancer.store.base import BudgetAlert, BudgetUse, Reservation, Store
from tinydancer.types import RequestContext

__all__ = ["Held", "Make", "Spending"]

MOST_ATTEMPTS = 200
"""How often it is decided again because others were faster. Each time somebody else got what they asked for."""

Make = Callable[[Allowance | None], Sequence[Decisions]]


@dataclass(frozen=True, slots=True)
class Held:
    """Decisions whose money is reserved.

    Attributes
    ----------
    parts
        As they were made.
    ids
        For each part and row the id under which it is reserved; None where nothing is.
    alerts
        To be told once the decisions are recorded.
    """

    parts: Sequence[Decisions]
    ids: Sequence[Sequence[str | None]] = ()
    alerts: list[BudgetAlert] = field(default_factory=list)

    def of(self, part: int) -> Sequence[str | None] | None:
        """The ids of a part; None where no budget holds."""
        return self.ids[part] if self.ids else None


class Spending:
    """What one `TinyDancer` knows of its budgets. Any number of threads may share it.

    Parameters
    ----------
    store
        Whose accounts count.
    new_id
        Makes an id for a decision at an instant.
    """

    def __init__(self, store: Store, new_id: Callable[[float], str]) -> None:
        self._store = store
        self._new_id = new_id
        self._used: dict[int, tuple[int, float]] = {}

    def within(
        self, make: Make, snapshot: Snapshot, context: RequestContext, now: float, *, exactly: bool = False
    ) -> Held:
        """Decide within the budgets that hold for a context, and reserve what it takes.

        Parameters
        ----------
        make
            Decides within an allowance, or without one where no budget holds; called until the money is there.
        exactly
            Whether to begin with what is left now: for decisions over many requests, which are dear to make again.

        Raises
        ------
        NoMatchError
            As `make` raises it.
        StoreLockedError
            Others were faster too often.
        """
        budgets: Sequence[StoredBudget] = snapshot.budgets
        is_fresh, must_read = False, exactly
        told: dict[int, float] = {}
        for _ in range(MOST_ATTEMPTS):
            holding = [s for s in budgets if is_open(s.budget, now) and matches(s.budget, context)]
            if not holding:
                return Held(make(None))
            holdings = [Holding.at(stored, now) for stored in holding]
            used = None if must_read else self._known(holdings)
            if told.keys() >= {h.stored.budget_id for h in holdings}:
                used, told = told, {}
            elif used is None:
                used, is_fresh, must_read = self._read(holdings, now), True, False
            allowance = Allowance.over(
                [h._replace(used_usd=used[h.stored.budget_id]) for h in holdings], snapshot.names
            )
            try:
                parts = make(allowance)
            except NoMatchError:
                if is_fresh:
                    raise
                must_read = True
                continue
            if not is_fresh and any(part.is_bound for part in parts):
                must_read = True
                continue
            claims = _merged([claim for part in parts for claim in part.claims()])
            if not claims:
                return Held(parts)
            ids, reservations = self._reservations(parts, now)
            taken = {claim.stored.budget_id: claim.amount_usd for claim in claims}
            answer = self._store.reserve(claims, reservations, now)
            self._note(answer.uses)
            if answer.granted:
                if not answer.kept:
                    return Held(parts)
                self._note([use._replace(reserved_usd=use.reserved_usd + taken[use.budget_id]) for use in answer.uses])
                return Held(parts, ids, self._alerts_of(claims, answer.uses, now))
            if len(answer.uses) < len(claims):
                budgets = [s for s in self._store.list_budgets() if s.budget.is_active]
            # What is used was told with the refusal; what is due to be given back was not.
            told = {use.budget_id: use.used_usd for use in answer.uses}
            is_fresh = is_fresh or not any(s.budget.release_after_s is not None for s in holding)
        raise StoreLockedError(
            f"Other requests were faster {MOST_ATTEMPTS} times in spending what the budgets had left.",
            hint="Try again.",
        )

    def cancel(self, held: Held) -> None:
        """Give back what was reserved for decisions that could not be recorded."""
        ids = [one for part in held.ids for one in part if one is not None]
        if ids:
            with contextlib.suppress(TinyDancerError):  # the error that led here is the one to tell
                self._store.cancel_reservations(ids)
                self._used.clear()

    def alerts_due(self, now: float) -> list[BudgetAlert]:
        """Alerts that outcomes gave rise to; each is returned once, to whoever sees it first."""
        holdings = [Holding.at(s, now) for s in self._store.list_budgets() if is_open(s.budget, now)]
        uses = {use.budget_id: use for use in self._store.budget_uses([_key(h) for h in holdings])}
        found: list[BudgetAlert] = []
        for holding in holdings:
            if (use := uses.get(holding.stored.budget_id)) is not None:
                found += self._raise(holding.stored, use, use.used_usd, now)
        return found

    def _known(self, holdings: Sequence[Holding]) -> dict[int, float] | None:
        """What was used of budgets when it was last seen; None if that was never, or in another period."""
        found: dict[int, float] = {}
        for holding in holdings:
            period, used = self._used.get(holding.stored.budget_id, (None, 0.0))
            if period != holding.period.key:
                return None
            found[holding.stored.budget_id] = used
        return found

    def _read(self, holdings: Sequence[Holding], now: float) -> dict[int, float]:
        """What is used of budgets now, after what is due was given back."""
        release = [h.stored.budget_id for h in holdings if h.stored.budget.release_after_s is not None]
        uses = self._store.budget_uses([_key(h) for h in holdings], release=release, now=now)
        found = {holding.stored.budget_id: 0.0 for holding in holdings}
        self._used.update({holding.stored.budget_id: (holding.period.key, 0.0) for holding in holdings})
        self._note(uses)
        return found | {use.budget_id: use.used_usd for use in uses}

    def _note(self, uses: Sequence[BudgetUse]) -> None:
        for use in uses:
            self._used[use.budget_id] = use.period, use.used_usd

    def _reservations(self, parts: Sequence[Decisions], now: float) -> tuple[list[list[str | None]], list[Reservation]]:
        ids: list[list[str | None]] = []
        made: list[Reservation] = []
        for part in parts:
            own: list[str | None] = [None] * len(part)
            ids.append(own)
            if (allowance := part.allowance) is None:
                continue
            amounts = allowance.taken(part.chosen, part.expectations().cost_usd)
            for row in np.flatnonzero((amounts > 0.0).any(axis=1)).tolist():
                own[row] = decision_id = self._new_id(now)
                name = part.snapshot.names[int(part.chosen[row])]
                for holding, amount in zip(allowance.holdings, amounts[row].tolist(), strict=True):
                    if amount > 0.0:
                        after_s = holding.stored.budget.release_after_s
                        release_at = None if after_s is None else now + after_s
                        made.append(Reservation(decision_id, name, *_key(holding), amount, release_at))
        return ids, made

    def _alerts_of(self, claims: Sequence[Claim], uses: Sequence[BudgetUse], now: float) -> list[BudgetAlert]:
        by_id = {use.budget_id: use for use in uses}
        found: list[BudgetAlert] = []
        for claim in claims:
            if claim.amount_usd > 0.0:
                use = by_id[claim.stored.budget_id]
                found += self._raise(claim.stored, use, use.used_usd + claim.amount_usd, now)
        return found

    def _raise(self, stored: StoredBudget, use: BudgetUse, used_usd: float, now: float) -> list[BudgetAlert]:
        due = due_alerts(stored.budget, used_usd, use.alerted)
        if not due:
            return []
        new = self._store.raise_alerts(stored, use.period, due, used_usd, now)
        return [
            BudgetAlert(
                budget=stored.budget.name, period=use.period, share=share, used_usd=used_usd,
                amount_usd=stored.budget.amount_usd, raised_at=now,
            )
            for share in new
        ]  # fmt: skip


def _key(holding: Holding) -> tuple[int, int]:
    return holding.stored.budget_id, holding.period.key


def _merged(claims: Sequence[Claim]) -> list[Claim]:
    """One claim per budget, in order of its id, for all that is decided together."""
    found: dict[int, Claim] = {}
    for claim in claims:
        before = found.setdefault(claim.stored.budget_id, claim)
        if before is not claim:
            amount = before.amount_usd + claim.amount_usd
            # What the later part takes must fit after what the earlier one took.
            most = min(before.used_at_most - claim.amount_usd, claim.used_at_most - before.amount_usd)
            found[claim.stored.budget_id] = Claim(claim.stored, claim.period, amount, most)
    return [found[budget_id] for budget_id in sorted(found)]
