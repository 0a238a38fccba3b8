"""Time ranges as PostgreSQL writes intervals, and the days and hours in them.

In: a text such as ``7 days`` and an instant. Out: the instant that lies so long before, and the beginnings of the local
days, or of the hours, in between. No clock: instants are seconds since 1970. The rules of time zones are the system's
own table, read by ``zoneinfo``.

All four styles of PostgreSQL are read: ``1 mon 2 days 03:00:00``, ``@ 1 mon 2 days 3 hours``, ``0-1 2 3:00:00`` and
``P1M2DT3H``. Months and days are steps of the calendar: over a change of the clocks, a day has 23 or 25 hours.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.policy.route_rules import zone_of

__all__ = ["HOUR_S", "Interval", "Periods", "begin_of", "interval_of", "periods_of"]

HOUR_S = 3600
MOST_PERIODS = 50_000
LONGEST_MONTHS = 12 * 1000
LONGEST_DAYS = 366 * 1000
EXAMPLES = "expected an interval such as '7 days', '24 hours', '1 mon', '1 day 02:00:00' or 'P7D'."

_UNITS = {
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), "year"),
    **dict.fromkeys(("mon", "mons", "month", "months"), "month"),
    **dict.fromkeys(("w", "week", "weeks"), "week"),
    **dict.fromkeys(("d", "day", "days"), "day"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "hour"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "minute"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "second"),
}
_SECONDS = {"hour": 3600.0, "minute": 60.0, "second": 1.0}
_NUMBER = r"[+-]?\d{1,9}(?:\.\d{1,9})?"
_PART = re.compile(rf"({_NUMBER})\s*([a-z]+)\s*", re.ASCII)
_CLOCK = re.compile(r"([+-]?)(\d{1,9}):([0-5]\d)(?::([0-5]\d(?:\.\d{1,9})?))?", re.ASCII)
_STANDARD = re.compile(r"(?:([+-]?)(\d{1,4})-(\d{1,2})(?:\s+|$))?(?:([+-]?\d{1,9})(?:\s+(?=[+-]?\d+:)|$))?", re.ASCII)
_ISO = re.compile(
    rf"P(?:({_NUMBER})Y)?(?:({_NUMBER})M)?(?:({_NUMBER})W)?(?:({_NUMBER})D)?"
    rf"(?:T(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A length of time, as PostgreSQL keeps it: months, days and seconds, which are no multiples of each other."""

    months: int = 0
    days: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Periods:
    """Consecutive periods, each up to the next one's beginning, the last one open.

    Attributes
    ----------
    starts
        Seconds since 1970, ascending.
    labels
        Local dates, or local times with their offset from UTC.
    """

    starts: tuple[float, ...]
    labels: tuple[str, ...]


def interval_of(given: Any) -> Interval:
    """An interval from its text.

    Raises
    ------
    InvalidInputError
        It cannot be read.
    """
    if not isinstance(given, str) or len(given) > 200:
        raise InvalidInputError(f"The time_range is {check.shown(given)}; {EXAMPLES}")
    text = given.strip()
    found = _iso(text) if text[:1] in {"P", "p"} else _worded(text.lower())
    if found is None:
        found = _standard(text)
    if found is None:
        raise InvalidInputError(f"The time_range is {check.shown(given)}; {EXAMPLES}")
    return found


def begin_of(interval: Interval, now: float, time_zone: str = "UTC") -> float:
    """The instant that lies an interval before `now`, by the calendar and the clocks of the zone; at least 0.

    Raises
    ------
    InvalidInputError
        It does not lie before `now`.
    """
    if abs(interval.months) > LONGEST_MONTHS or abs(interval.days) > LONGEST_DAYS:
        raise InvalidInputError(f"The time_range is too long; {EXAMPLES}")
    zone = zone_of(time_zone)
    local = here = datetime.fromtimestamp(now, zone)
    place = local.year * 12 + local.month - 1 - interval.months
    year, month = place // 12, place % 12 + 1
    if year < 1900 or year > 9000:
        local = datetime(1900 if year < 1900 else 9000, 1, 1, tzinfo=zone)
    elif interval.months:
        local = local.replace(year=year, month=month, day=min(local.day, calendar.monthrange(year, month)[1]))
    # Arithmetic within a zone moves the hands of the clock: the same time of day, so many days earlier.
    if interval.days:
        local = local.replace(fold=0) - timedelta(days=min(max(interval.days, -LONGEST_DAYS), (local.year - 1) * 365))
    begin = now - (here.timestamp() - local.timestamp()) - interval.seconds
    if begin >= now:
        raise InvalidInputError(f"The time_range ends before it begins; {EXAMPLES}")
    return max(0.0, begin)


def periods_of(begin: float, now: float, unit: str | None, time_zone: str = "UTC") -> Periods:
    """The local days (``day``) or the hours (``hour``) from `begin` to `now`, or with None the whole as one.

    The first begins at the hour (of UTC) that `begin` lies in, or before: outcomes are counted by that hour. In a zone
    whose offset is no whole hour, an hour belongs to the day in which it begins.

    Raises
    ------
    InvalidInputError
        They are too many.
    """
    first = begin // HOUR_S * HOUR_S
    if unit is None:
        return Periods((first,), ("",))
    length = HOUR_S if unit == "hour" else 24 * HOUR_S
    if (now - first) / length > MOST_PERIODS:
        raise InvalidInputError(
            f"The time_range has {(now - first) / length:,.0f} {unit}s; expected at most {MOST_PERIODS:,}.",
            hint="Choose a shorter one, or another group_by.",
        )
    zone = zone_of(time_zone)
    if unit == "hour":
        hours = [first + i * HOUR_S for i in range(int((max(now, first) - first) // HOUR_S) + 1)]
        labels = [datetime.fromtimestamp(start, zone).isoformat(" ", "minutes") for start in hours]
        return Periods(tuple(hours), tuple(labels))
    day = datetime.fromtimestamp(first, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    starts: list[float] = []
    labels = []
    while not starts or day.timestamp() <= now:
        starts.append(day.timestamp())
        labels.append(day.date().isoformat())
        day += timedelta(days=1)
    return Periods(tuple(starts), tuple(labels))


def _worded(text: str) -> Interval | None:
    """``1 mon 2 days 03:00:00``, ``@ 1 mon 2 days 3 hours ago``."""
    rest = text.removeprefix("@").strip()
    backwards = rest.endswith(" ago")
    rest = rest.removesuffix(" ago").strip()
    totals: dict[str, float] = {}
    seconds, at, empty = 0.0, 0, True
    while (part := _PART.match(rest, at)) is not None:
        unit = _UNITS.get(part[2])
        if unit is None:
            return None
        totals[unit] = totals.get(unit, 0.0) + float(part[1])
        at, empty = part.end(), False
    if at < len(rest):
        clock = _CLOCK.fullmatch(rest, at)
        if clock is None:
            return None
        seconds, empty = _clock_s(clock), False
    if empty:
        return None
    found = _interval(totals, seconds)
    return Interval(-found.months, -found.days, -found.seconds) if backwards else found


def _iso(text: str) -> Interval | None:
    match = _ISO.fullmatch(text.upper())
    if match is None or not any(match.groups()):
        return None
    units = ("year", "month", "week", "day", "hour", "minute", "second")
    return _interval({unit: float(given) for unit, given in zip(units, match.groups(), strict=True) if given}, 0.0)


def _standard(text: str) -> Interval | None:
    """``1-2 3 4:05:06``: years-months, days, time; a part that is zero may be missing."""
    match = _STANDARD.match(text)
    assert match is not None  # every part may be missing
    rest = text[match.end() :]
    clock = _CLOCK.fullmatch(rest)
    if (rest and clock is None) or not (match[2] or clock):
        return None  # a number alone has no unit
    months = (int(match[2]) * 12 + int(match[3])) * (-1 if match[1] == "-" else 1) if match[2] else 0
    return Interval(months, int(match[4] or 0), _clock_s(clock) if clock else 0.0)


def _clock_s(clock: re.Match[str]) -> float:
    seconds = int(clock[2]) * 3600.0 + int(clock[3]) * 60.0 + float(clock[4] or 0.0)
    return -seconds if clock[1] == "-" else seconds


def _interval(totals: dict[str, float], seconds: float) -> Interval:
    """Fractions go down as in PostgreSQL: of a year to months, of a month to days (30), of days to seconds."""
    months = round(totals.get("year", 0.0) * 12.0) + totals.get("month", 0.0)
    whole_months = int(months)
    days = totals.get("week", 0.0) * 7.0 + totals.get("day", 0.0) + round((months - whole_months) * 30.0, 6)
    whole_days = int(days)
    seconds += round((days - whole_days) * 86_400.0, 6)
    return Interval(whole_months, whole_days, seconds + sum(totals.get(u, 0.0) * s for u, s in _SECONDS.items()))
