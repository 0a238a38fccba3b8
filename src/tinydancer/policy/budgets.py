"""What may be spent: budgets, their periods, and what is left of them for one request.

In: plain values from any door, and instants as seconds since 1970. Out: immutable objects that were checked once, here;
the period that an instant falls into; what has been released by then; which budgets hold for whose request. No clock.
The rules of time zones are the system's own table, read by ``zoneinfo``.

Periods are the calendar's by the clock of the budget's zone: where clocks are changed, a day has 23 or 25 hours and the
same amount. They follow each other without a gap, so every instant lies in exactly one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.policy.route_rules import zone_of
from tinydancer.types import RequestContext

__all__ = [
    "ON_LIMIT",
    "PERIODS",
    "SCOPES",
    "Budget",
    "Period",
    "StoredBudget",
    "ceiling_usd",
    "due_alerts",
    "is_open",
    "matches",
    "period_of",
    "tolerance_usd",
    "until",
]

SCOPES = ("tenant", "agent", "key", "tag")
PERIODS = ("hour", "day", "week", "month", "year", "total")
ON_LIMIT = ("refuse", "cheapest", "free")
PACINGS = ("none", "even")
MOST_DAYS = 3_660
MOST_USD = 1e12
HOUR_S = 3_600
ROUNDING = 1e-9
"""Share of the amount by which sums of floating point numbers may miss it."""
EPOCH_MONDAY = date(1970, 1, 5)
"""Periods of so many days are counted from here where the budget has no start of its own, weeks always."""
EARLIEST_S, LATEST_S = -62_000_000_000.0, 253_000_000_000.0
"""What a calendar can show: from the year 6 to the year 9987."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent per period, by whom, and what happens at the limit.

    Parameters
    ----------
    name
        Not taken, capitals aside.
    amount_usd
        USD per period, at least 0; 0 allows nothing that costs.
    period
        ``hour``, ``day``, ``week`` (from Monday), ``month``, ``year``, ``total``, or a number of days, which are
        counted from the day of `starts_at`, without it from Monday 1970-01-05.
    scope, scope_value
        Whose requests count: those of the ``tenant`` (no value), to an ``agent``, of a ``key``, with a ``tag``.
    time_zone
        A name of the IANA table; its clock begins the periods.
    starts_at, ends_at
        When the budget holds, in seconds since 1970; from the start on, before the end. Also ISO 8601 texts, by the
        clock of `time_zone` where they name no offset.
    on_limit
        When no agent with a price fits in what is left: ``refuse`` every request; ``free``: only agents that cost
        nothing; ``cheapest``: the cheapest agent, over the budget.
    pacing
        ``even`` releases the amount evenly over the period; ``none`` at its beginning.
    burst
        Share of the amount by which spending may be ahead of an even pace, in [0, 1].
    alert_at
        Shares of the amount, in (0, 1], whose passing is an alert, once per period.
    release_after_s
        Seconds after which a request whose outcome was not reported no longer counts; None: it counts with its
        estimate for good.
    is_active
        A budget that is not active holds nobody; what is spent meanwhile is not counted.
    """

    name: str
    amount_usd: float
    period: str | int = "month"
    scope: str = "tenant"
    scope_value: str | None = None
    time_zone: str = "UTC"
    starts_at: float | None = None
    ends_at: float | None = None
    on_limit: str = "refuse"
    pacing: str = "none"
    burst: float = 0.1
    alert_at: tuple[float, ...] = (0.5, 0.8, 1.0)
    release_after_s: float | None = None
    is_active: bool = True

    def __post_init__(self) -> None:
        put = object.__setattr__
        check.name_of(self.name, "name of the budget")
        put(self, "amount_usd", check.number(self.amount_usd, "amount_usd", low=0.0, high=MOST_USD, unit="USD"))
        put(self, "period", _period(self.period))
        for key, known in (("scope", SCOPES), ("on_limit", ON_LIMIT), ("pacing", PACINGS)):
            put(self, key, _one_of(getattr(self, key), key, known))
        self._check_scope()
        zone = zone_of(self.time_zone)
        put(self, "starts_at", _instant(self.starts_at, "starts_at", zone))
        put(self, "ends_at", _instant(self.ends_at, "ends_at", zone))
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise InvalidInputError(
                f"The budget ends at {_shown(self.ends_at, zone)}, which is not after its start, "
                f"{_shown(self.starts_at, zone)}."
            )
        put(self, "burst", check.number(self.burst, "burst", low=0.0, high=1.0))
        if self.pacing == "even" and self.period == "total" and (self.starts_at is None or self.ends_at is None):
            missing = "end" if self.ends_at is None else "start"
            raise InvalidInputError(
                f"A total budget without {'an' if missing == 'end' else 'a'} {missing} cannot be paced evenly.",
                hint=f"Give {missing}s_at, or set pacing to none.",
            )
        put(self, "alert_at", _shares(self.alert_at))
        released = check.optional_number(self.release_after_s, "release_after_s", low=1.0, high=1e9, unit="s")
        put(self, "release_after_s", released)
        put(self, "is_active", check.boolean(self.is_active, "is_active"))

    def _check_scope(self) -> None:
        if self.scope == "tenant":
            if self.scope_value is not None:
                raise InvalidInputError(
                    f"scope_value is {check.shown(self.scope_value)} for the scope tenant, which has none.",
                    hint="Leave it out, or set scope to agent, key or tag.",
                )
        elif self.scope_value is None:
            raise InvalidInputError(
                f"The scope is {self.scope}, and scope_value is missing.", hint=f"Name the {self.scope}."
            )
        else:
            check.name_of(self.scope_value, f"{self.scope} in scope_value")

    @classmethod
    def from_mapping(cls, given: Any) -> Budget:
        """From JSON or keyword arguments; unknown keys are an error that lists the known ones, None is absent."""
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"The budget is {check.shown(given)}; expected a JSON object.")
        check.known_keys(given, _FIELDS, "field of a budget")
        for key in ("name", "amount_usd"):
            if given.get(key) is None:
                raise InvalidInputError(f"The budget has no {key}; expected {'USD' if key != 'name' else 'a text'}.")
        return cls(**{key: value for key, value in given.items() if value is not None})

    def updated(self, changes: Any) -> Budget:
        """A copy with some fields changed, None taking what may be absent away. The name stays."""
        if not isinstance(changes, Mapping) or not changes:
            raise InvalidInputError(f"The changes are {check.shown(changes)}; expected a JSON object with fields.")
        check.known_keys(changes, CHANGEABLE, "field of a budget that can be changed")
        values = {key: getattr(self, key) for key in _FIELDS} | dict(changes)
        if changes.get("scope") is not None and "scope_value" not in changes:
            same = str(changes["scope"]).strip().lower() == self.scope
            values["scope_value"] = self.scope_value if same else None
        return Budget.from_mapping(values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as `from_mapping` takes it; instants by the clock of the zone."""
        made: dict[str, Any] = {key: getattr(self, key) for key in _FIELDS}
        for key in ("starts_at", "ends_at"):
            made[key] = iso_time(made[key], self.time_zone)
        made["alert_at"] = list(self.alert_at)
        return made

    @property
    def whose(self) -> str:
        """``key team-a``; empty for the tenant's."""
        return "" if self.scope == "tenant" else f"{self.scope} {self.scope_value}"


_FIELDS = tuple(field.name for field in fields(Budget))
CHANGEABLE = tuple(name for name in _FIELDS if name != "name")


class StoredBudget(NamedTuple):
    """A budget as a store knows it: ``revision`` grows with every change."""

    budget_id: int
    revision: int
    budget: Budget


class Period(NamedTuple):
    """From ``start`` on, before ``end``, in seconds since 1970; infinite where it has none. ``key`` names it.

    The key depends on the budget's period, zone and, for a number of days, its start: a change of the amount, the end
    or the behaviour at the limit leaves what was spent where it is.
    """

    key: int
    start: float
    end: float


def is_open(budget: Budget, now: float) -> bool:
    """Whether the budget is active and holds at an instant."""
    return (
        budget.is_active
        and (budget.starts_at is None or budget.starts_at <= now)
        and (budget.ends_at is None or now < budget.ends_at)
    )


def matches(budget: Budget, context: RequestContext) -> bool:
    """Whether requests of a context count; those of an agent's budget do where they go to that agent."""
    if budget.scope == "key":
        return context.key == budget.scope_value
    if budget.scope == "tag":
        return budget.scope_value in context.tags
    return True


def period_of(budget: Budget, now: float) -> Period:
    """The period an instant falls into, cut to the time the budget holds."""
    key, end = _calendar(budget, min(max(now, EARLIEST_S), LATEST_S))
    start = -math.inf if budget.period == "total" else float(key)
    if budget.starts_at is not None:
        start = max(start, budget.starts_at)
    if budget.ends_at is not None:
        end = min(end, budget.ends_at)
    return Period(key, start, end)


def ceiling_usd(budget: Budget, now: float) -> float:
    """How much of the period's amount may have been spent by an instant."""
    if budget.pacing == "none":
        return budget.amount_usd
    _, start, end = period_of(budget, now)
    elapsed = min(1.0, max(0.0, (now - start) / (end - start)))
    return budget.amount_usd * min(1.0, elapsed + budget.burst)


def tolerance_usd(budget: Budget) -> float:
    """By how much a sum of costs may exceed what is left, for want of digits."""
    return budget.amount_usd * ROUNDING


def due_alerts(budget: Budget, used_usd: float, alerted: float) -> tuple[float, ...]:
    """The shares of the amount that were passed and not told yet; `alerted` is the highest one that was."""
    reached = used_usd + tolerance_usd(budget)
    return tuple(
        share
        for share in budget.alert_at
        if share > alerted and used_usd > 0.0 and share * budget.amount_usd <= reached
    )


def until(budget: Budget, period: Period) -> str:
    """``until 2026-12-01 00:00 UTC``; empty for a period without an end."""
    return "" if math.isinf(period.end) else f"until {_shown(period.end, zone_of(budget.time_zone))}"


def iso_time(instant: float | None, time_zone: str) -> str | None:
    """ISO 8601 by the clock of a zone; None for none, or for an infinite one."""
    if instant is None or math.isinf(instant):
        return None
    return datetime.fromtimestamp(instant, zone_of(time_zone)).isoformat()


# -- calendars -----------------------------------------------------------------------------------------------------


def _calendar(budget: Budget, now: float) -> tuple[int, float]:
    """Beginning and end of the calendar's period around an instant."""
    if budget.period == "total":
        return 0, math.inf
    zone = zone_of(budget.time_zone)
    local = datetime.fromtimestamp(now, zone)
    if budget.period == "hour":
        # An hour has 3,600 seconds: the one that the clock shows twice is two of them.
        offset = local.utcoffset() or timedelta(0)
        begun = math.floor((now + offset.total_seconds()) / HOUR_S) * HOUR_S - round(offset.total_seconds())
        return begun, float(begun + HOUR_S)
    today = local.date()
    if budget.period in ("month", "year"):
        index = today.year * 12 + today.month - 1 if budget.period == "month" else today.year
    else:
        days, anchor = _days(budget, zone)
        index = (today - anchor).days // days
    start, end = _begin(budget, zone, index), _begin(budget, zone, index + 1)
    # Where a change of the clock moves the date itself, the instant may lie beside the period of its date.
    while now < start:
        index, start, end = index - 1, _begin(budget, zone, index - 1), start
    while now >= end:
        index, start, end = index + 1, end, _begin(budget, zone, index + 2)
    return round(start), end


def _begin(budget: Budget, zone: ZoneInfo, index: int) -> float:
    if budget.period == "month":
        first = date(index // 12, index % 12 + 1, 1)
    elif budget.period == "year":
        first = date(index, 1, 1)
    else:
        days, anchor = _days(budget, zone)
        first = anchor + timedelta(days=index * days)
    return datetime(first.year, first.month, first.day, tzinfo=zone).timestamp()


def _days(budget: Budget, zone: ZoneInfo) -> tuple[int, date]:
    """How many days a period has, and the first day of one of them."""
    if budget.period in ("day", "week"):
        return (1 if budget.period == "day" else 7), EPOCH_MONDAY
    assert isinstance(budget.period, int)
    starts = budget.starts_at
    return budget.period, EPOCH_MONDAY if starts is None else datetime.fromtimestamp(starts, zone).date()


# -- values from outside -------------------------------------------------------------------------------------------


def _period(given: Any) -> str | int:
    if isinstance(given, str):
        text = given.strip().lower()
        if text in PERIODS:
            return text
        if not text.isascii() or not text.isdigit():
            raise InvalidInputError(
                f"Unknown period {check.shown(given)}; expected one of: {', '.join(PERIODS)}, or a number of days."
            )
        given = int(text[:9])
    return check.count(given, "the number of days in period", low=1, high=MOST_DAYS)


def _one_of(given: Any, what: str, known: tuple[str, ...]) -> str:
    text = given.strip().lower() if isinstance(given, str) else given
    if text not in known:
        raise InvalidInputError(f"Unknown {what} {check.shown(given)}; expected one of: {', '.join(known)}.")
    return str(text)


def _instant(given: Any, what: str, zone: ZoneInfo) -> float | None:
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given.strip())
        except ValueError:
            raise InvalidInputError(
                f"{what} is {check.shown(given)}; expected a time such as 2026-12-31 or 2026-12-31T18:00:00+01:00."
            ) from None
    if isinstance(given, datetime):
        given = (given if given.tzinfo is not None else given.replace(tzinfo=zone)).timestamp()
    # As stores keep it, to the microsecond.
    return round(check.number(given, what, low=EARLIEST_S, high=LATEST_S, unit="s since 1970"), 6)


def _shares(given: Any) -> tuple[float, ...]:
    values = [given] if isinstance(given, (int, float)) and not isinstance(given, bool) else given
    if not isinstance(values, (list, tuple)):
        raise InvalidInputError(f"alert_at is {check.shown(given)}; expected shares of the amount, such as [0.5, 1].")
    shares = {check.number(share, "a share in alert_at", low=0.0, high=1.0) for share in values}
    if 0.0 in shares:
        raise InvalidInputError("A share in alert_at is 0; expected numbers in (0, 1].")
    return tuple(sorted(shares))


def _shown(instant: float, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(instant, zone):%Y-%m-%d %H:%M} {zone.key}"
