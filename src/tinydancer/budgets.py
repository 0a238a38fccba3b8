"""Budgets of a deployment: made, changed, looked at.

In: a `TinyDancer` and what a door was given. Out: budgets with what is spent of them, and alerts. What budgets do to
decisions is no business of this module: `tinydancer.spending` asks them at every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinydancer.policy.allowance import Holding
from tinydancer.policy.budgets import Budget, Period, StoredBudget, is_open, iso_time
from tinydancer.policy.time_ranges import begin_of, interval_of
from tinydancer.service import TinyDancer
from tinydancer.store.base import BudgetAlert, BudgetUse

__all__ = ["BudgetStatus", "Budgets", "alert_dict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """A budget with what is used of its period.

    Attributes
    ----------
    period
        From its beginning on, before its end, in seconds since 1970; infinite where it has none.
    spent_usd, reserved_usd
        What outcomes cost, and what is expected of the requests whose outcome is not known yet.
    ceiling_usd
        What may have been spent by now: the amount, or less with an even pace.
    is_open
        Whether the budget is active and holds now.
    """

    budget: Budget
    period: Period
    spent_usd: float
    reserved_usd: float
    ceiling_usd: float
    is_open: bool

    @property
    def remaining_usd(self) -> float:
        """What is left now, at least 0."""
        return max(0.0, self.ceiling_usd - self.spent_usd - self.reserved_usd)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the fields of the budget, and those above."""
        zone = self.budget.time_zone
        return {
            **self.budget.to_dict(), "spent_usd": self.spent_usd, "reserved_usd": self.reserved_usd,
            "remaining_usd": self.remaining_usd, "ceiling_usd": self.ceiling_usd, "is_open": self.is_open,
            "period_start": iso_time(self.period.start, zone), "period_end": iso_time(self.period.end, zone),
        }  # fmt: skip


class Budgets:
    """The budgets of a `TinyDancer`'s store. Any number of threads may share one.

    Examples
    --------
    >>> dancer = TinyDancer()
    >>> _ = dancer.register_agent("large", "llm", ["reasoning"], 0.03, 500.0, 0.95)
    >>> budgets = Budgets(dancer)
    >>> _ = budgets.create("search", 0.05, "day", scope="key", scope_value="search-team")
    >>> dancer.route("Rank these results.", key="search-team").agent_name
    'large'
    >>> round(budgets.get("search").remaining_usd, 2)
    0.02
    >>> dancer.route("Rank these results.", key="search-team", on_no_match="null") is None
    True
    >>> dancer.route("Rank these results.", key="another-team").agent_name
    'large'
    >>> dancer.close()
    """

    def __init__(self, dancer: TinyDancer) -> None:
        self._dancer = dancer

    def create(self, name: str, amount_usd: float, period: str | int = "month", **more: Any) -> BudgetStatus:
        """Create a budget; `more` takes every other field of `Budget`.

        Raises
        ------
        AlreadyExistsError
            The name is taken, capitals aside.
        NotFoundError
            The budget is for an agent that is not registered.
        InvalidInputError
            A value cannot be used.
        """
        return self.create_from({"name": name, "amount_usd": amount_usd, "period": period, **more})

    def create_from(self, config: Mapping[str, Any]) -> BudgetStatus:
        """Create a budget from one JSON object; see `Budget.from_mapping`."""
        budget = Budget.from_mapping(config)
        self._dancer.store.insert_budget(budget)
        return self.get(budget.name)

    def update(self, name: str, changes: Mapping[str, Any]) -> BudgetStatus:
        """Change some fields of a budget; what was spent stays.

        A change of the period, of its time zone, or of the start of a period of so many days begins a new account.

        Raises
        ------
        NotFoundError
            No budget of that name.
        """
        dancer = self._dancer
        dancer.store.update_budget(dancer.store.get_budget(name).budget.updated(changes))
        # A smaller amount may be used up already, and then no request that spends more of it would come to tell.
        dancer._tell(dancer._spending.alerts_due(dancer._clock()))
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove a budget with its accounts; its alerts stay."""
        self._dancer.store.delete_budget(name)

    def get(self, name: str) -> BudgetStatus:
        """One budget, as of now."""
        return _statuses(self._dancer, [self._dancer.store.get_budget(name)])[0]

    def list(self) -> Sequence[BudgetStatus]:
        """All budgets, active or not, as of now; in order of name."""
        return _statuses(self._dancer, self._dancer.store.list_budgets())

    def alerts(self, time_range: str = "7 days") -> Sequence[BudgetAlert]:
        """Alerts of the latest time, the latest first; the range as PostgreSQL writes intervals."""
        begin = begin_of(interval_of(time_range), self._dancer._clock(), "UTC")
        return self._dancer.store.budget_alerts(begin)


def _statuses(dancer: TinyDancer, budgets: Sequence[StoredBudget]) -> list[BudgetStatus]:
    now = dancer._clock()
    holdings = [Holding.at(stored, now) for stored in budgets]
    keys = [(h.stored.budget_id, h.period.key) for h in holdings]
    release = [stored.budget_id for stored in budgets if stored.budget.release_after_s is not None]
    uses = {use.budget_id: use for use in dancer.store.budget_uses(keys, release=release, now=now)} if keys else {}
    made = []
    for holding, key in zip(holdings, keys, strict=True):
        use, budget = uses.get(key[0], BudgetUse(*key, 0.0, 0.0, 0.0)), holding.stored.budget
        made.append(
            BudgetStatus(
                budget=budget, period=holding.period, spent_usd=use.spent_usd, reserved_usd=use.reserved_usd,
                ceiling_usd=holding.ceiling_usd, is_open=is_open(budget, now),
            )
        )  # fmt: skip
    return made


def alert_dict(alert: BudgetAlert) -> dict[str, Any]:
    """An alert, JSON-ready; instants in UTC."""
    return {
        "budget": alert.budget, "share": alert.share, "used_usd": alert.used_usd, "amount_usd": alert.amount_usd,
        "period_start": None if alert.period == 0 else iso_time(float(alert.period), "UTC"),
        "raised_at": iso_time(alert.raised_at, "UTC"),
    }  # fmt: skip
