"""What both stores say of budgets in the same words: rows, checks that take a transaction, what outcomes are charged.

In: budgets, rows of the queries in ``queries/budgets.sql``, outcomes. Out: the other, or the error to raise.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tinydancer import validation as check
from tinydancer.errors import AlreadyExistsError, NotFoundError
from tinydancer.policy.allowance import Claim
from tinydancer.policy.budgets import Budget, StoredBudget, iso_time, period_of
from tinydancer.policy.budgets import is_open as is_open_at
from tinydancer.policy.budgets import matches as holds_for
from tinydancer.policy.route_rules import same_name
from tinydancer.store.base import BudgetUse
from tinydancer.types import NO_CONTEXT, Outcome, RequestContext

Row = tuple[Any, ...]

ALERT_CHANNEL = "tiny_dancer_budget"
"""Where PostgreSQL tells of alerts (LISTEN)."""


class Taken(NamedTuple):
    """A reservation that was taken away to be settled."""

    decision_id: str
    budget_id: int
    period: int
    amount_usd: float


class Charge(NamedTuple):
    """What comes off the reservations of a budget's period, and what is spent."""

    budget_id: int
    period: int
    reserved_usd: float
    spent_usd: float


def budget_row(budget: Budget) -> Row:
    """The fields of a budget after its name, in the order of ``insert_budget``; `alert_at` as a list."""
    return (
        budget.name, budget.amount_usd, str(budget.period), budget.scope, budget.scope_value, budget.time_zone,
        budget.starts_at, budget.ends_at, budget.on_limit, budget.pacing, budget.burst, list(budget.alert_at),
        budget.release_after_s, budget.is_active,
    )  # fmt: skip


def stored_of(row: Row) -> StoredBudget:
    """From a row of ``list_budgets``."""
    (budget_id, revision, name, amount, period, scope, value, zone, starts, ends, on_limit, pacing, burst, alerts,
     release, active) = row  # fmt: skip
    shares = json.loads(alerts) if isinstance(alerts, str) else alerts
    budget = Budget(
        name=name, amount_usd=amount, period=period, scope=scope, scope_value=value, time_zone=zone, starts_at=starts,
        ends_at=ends, on_limit=on_limit, pacing=pacing, burst=burst, alert_at=tuple(shares), release_after_s=release,
        is_active=bool(active),
    )  # fmt: skip
    return StoredBudget(budget_id, revision, budget)


def require_new(name: str, existing: Sequence[str]) -> None:
    """`AlreadyExistsError` for a name that exists, capitals aside."""
    if (other := same_name(name, existing)) is not None:
        how = "" if other == name else f", which differs from {name!r} in capitals only"
        raise AlreadyExistsError(
            f"There is a budget named {other!r} already{how}.",
            hint="Update it, remove it first, or choose another name.",
        )


def require_agent(budget: Budget, agents: Collection[str]) -> None:
    """`NotFoundError` for the budget of an agent that is not registered."""
    if budget.scope == "agent" and budget.scope_value not in agents:
        near = difflib.get_close_matches(str(budget.scope_value), sorted(agents), n=1)
        raise NotFoundError(
            f"The budget {budget.name!r} is for the agent {budget.scope_value!r}, which is not registered.",
            hint=f"Did you mean {near[0]!r}?" if near else "Register the agent first.",
        )


def unknown_budget(name: str, names: Sequence[str]) -> NotFoundError:
    """The error for a name that no budget has."""
    near = difflib.get_close_matches(str(name), sorted(names), n=1)
    return NotFoundError(
        f"There is no budget named {check.shown(name)}.",
        hint=f"Did you mean {near[0]!r}?" if near else "Create it first.",
    )


def named(name: str, budgets: Sequence[StoredBudget]) -> StoredBudget:
    """The one of that name, or `NotFoundError`."""
    for stored in budgets:
        if stored.budget.name == name:
            return stored
    raise unknown_budget(name, [stored.budget.name for stored in budgets])


def fits(claims: Sequence[Claim], uses: Iterable[BudgetUse]) -> bool:
    """Whether each claim finds at most so much used as it says; without a use nothing is."""
    used = {(use.budget_id, use.period): use.used_usd for use in uses}
    return all(used.get((c.stored.budget_id, c.period.key), 0.0) <= c.used_at_most for c in claims)


def charges_of(
    outcomes: Sequence[Outcome],
    budgets: Sequence[StoredBudget],
    taken: Sequence[Taken],
    contexts: Mapping[str, RequestContext],
) -> list[Charge]:
    """What outcomes change in the accounts of the budgets, in order of budget and period.

    Parameters
    ----------
    budgets
        Those that exist; reservations of others are dropped.
    taken
        The reservations of the outcomes' decisions: the first outcome of each settles them.
    contexts
        Of the decisions that were recorded.
    """
    reserved: dict[str, dict[int, Taken]] = {}
    known = {stored.budget_id: stored.budget for stored in budgets}
    for one in taken:
        if one.budget_id in known:
            reserved.setdefault(one.decision_id, {})[one.budget_id] = one
    sums: dict[tuple[int, int], list[float]] = {}

    def add(budget_id: int, period: int, off: float, spent: float) -> None:
        found = sums.setdefault((budget_id, period), [0.0, 0.0])
        found[0] += off
        found[1] += spent

    for outcome in outcomes:
        own = reserved.pop(outcome.decision_id, {}) if outcome.decision_id is not None else {}
        for one in own.values():
            budget = known[one.budget_id]
            if budget.scope == "agent" and budget.scope_value != outcome.agent_name:
                spent = 0.0  # another agent answered than was decided for
            elif outcome.cost_usd is not None:
                spent = outcome.cost_usd
            else:
                spent = one.amount_usd if outcome.success else 0.0
            add(one.budget_id, one.period, one.amount_usd, spent)
        if not outcome.cost_usd:
            continue
        context = contexts.get(outcome.decision_id, NO_CONTEXT) if outcome.decision_id is not None else NO_CONTEXT
        for budget_id, budget in known.items():
            if budget_id in own or not is_open_at(budget, outcome.occurred_at) or not holds_for(budget, context):
                continue
            if budget.scope != "agent" or budget.scope_value == outcome.agent_name:
                add(budget_id, period_of(budget, outcome.occurred_at).key, 0.0, outcome.cost_usd)
    return [Charge(*key, *amounts) for key, amounts in sorted(sums.items())]


def given_back(taken: Iterable[Taken]) -> list[Charge]:
    """What comes off the reservations when they are given back, in order of budget and period."""
    sums: dict[tuple[int, int], float] = {}
    for one in taken:
        sums[one.budget_id, one.period] = sums.get((one.budget_id, one.period), 0.0) + one.amount_usd
    return [Charge(*key, amount, 0.0) for key, amount in sorted(sums.items())]


def context_of(stored: str) -> RequestContext:
    """From the context of a decision as JSON."""
    return RequestContext(**json.loads(stored))


def notice(tenant: str, stored: StoredBudget, period: int, used_usd: float, now: float) -> dict[str, Any]:
    """What listeners are told of an alert, JSON-ready, apart from its share."""
    budget = stored.budget
    found = period_of(budget, now)
    end = iso_time(found.end, budget.time_zone) if found.key == period else None
    return {
        "tenant": tenant, "budget": budget.name, "scope": budget.scope, "scope_value": budget.scope_value,
        "used_usd": used_usd, "amount_usd": budget.amount_usd,
        "period_start": iso_time(float(period), budget.time_zone), "period_end": end,
    }  # fmt: skip
