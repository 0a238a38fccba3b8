"""What a semantic route is, and when it holds: nouns, conditions, limits of rate.

In: plain values from any door. Out: immutable objects that were checked once, here; whether a condition holds at an
instant; the next state of a rate limit. No clock: instants come in as seconds since 1970. The rules of time zones are
the system's own table, read by ``zoneinfo``.

A route holds at an instant if the local clock of its zone shows a time in ``[start, end)`` on one of its days. Clocks
that are set forward skip a time of day, which then never comes; set back, it comes twice, and the route holds twice. A
range over midnight belongs to the day on which it begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.validation import FloatVector

__all__ = [
    "ALWAYS",
    "DAYS",
    "RateLimit",
    "Route",
    "RouteCalibration",
    "RouteConditions",
    "TimeRange",
    "Utterance",
    "local_time",
    "take_token",
]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400
MOST_PER_SECOND = 100.0
"""Of a rate limit; finer than that, instants in floating point could not tell two requests apart."""
PRIORITY_LIMIT = 2**31 - 1

_WEIGHTS = ("intercept", "slope", "margin", "none_intercept", "none_slope", "none_margin")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
Kind = Literal["description", "example", "negative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """Times of day on some days of the week, by the clock of a time zone.

    Parameters
    ----------
    start_s, end_s
        Seconds since local midnight, the start in [0, 86,400), the end in (0, 86,400]; a start after the end reaches
        over midnight.
    time_zone
        A name of the IANA table, such as ``Europe/Berlin``.
    days
        Some of `DAYS`, in that order.
    """

    start_s: int
    end_s: int
    time_zone: str = "UTC"
    days: tuple[str, ...] = DAYS

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "start_s", check.count(self.start_s, "start of time_range", high=DAY_S - 1))
        put(self, "end_s", check.count(self.end_s, "end of time_range", high=DAY_S))
        if self.start_s == self.end_s % DAY_S and (self.start_s, self.end_s) != (0, DAY_S):
            raise InvalidInputError(
                f"The time_range begins and ends at {_clock(self.start_s)}: no time lies in it.",
                hint="Leave time_range out for a route that always holds, or give 00:00 to 24:00.",
            )
        zone_of(self.time_zone)
        given = check.names_of(self.days, "days")
        unknown = [day for day in given if day.lower()[:3] not in DAYS]
        if unknown or not given:
            what = f"{check.shown(unknown[0])} is no day" if unknown else "no day is given"
            raise InvalidInputError(f"In days of time_range {what}; expected some of: {', '.join(DAYS)}.")
        named = {day.lower()[:3] for day in given}
        put(self, "days", tuple(day for day in DAYS if day in named))

    @classmethod
    def from_value(cls, given: Any) -> TimeRange:
        """From ``{"start": "09:00", "end": "17:30", "time_zone": ..., "days": [...]}``, or ``["09:00", "17:30"]``."""
        if isinstance(given, TimeRange):
            return given
        if isinstance(given, (list, tuple)) and len(given) == 2:
            given = {"start": given[0], "end": given[1]}
        if not isinstance(given, Mapping):
            raise InvalidInputError(
                f"time_range is {check.shown(given)}; expected an object with start and end, or two times of day."
            )
        check.known_keys(given, ("start", "end", "time_zone", "days"), "key of time_range")
        missing = [key for key in ("start", "end") if given.get(key) is None]
        if missing:
            raise InvalidInputError(f"The time_range has no {missing[0]}; expected a time of day such as 09:00.")
        more = {key: given[key] for key in ("time_zone", "days") if given.get(key) is not None}
        return cls(start_s=_seconds(given["start"], "start"), end_s=_seconds(given["end"], "end"), **more)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as `from_value` takes it."""
        made: dict[str, Any] = {"start": _clock(self.start_s), "end": _clock(self.end_s), "time_zone": self.time_zone}
        return made if self.days == DAYS else made | {"days": list(self.days)}

    def holds(self, now: float) -> bool:
        """Whether the clock of the zone shows such a time at an instant."""
        weekday, second = local_time(self.time_zone, now)
        if self.start_s < self.end_s:
            return DAYS[weekday] in self.days and self.start_s <= second < self.end_s
        if second >= self.start_s:
            return DAYS[weekday] in self.days
        return second < self.end_s and DAYS[weekday - 1] in self.days


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """So many requests at once, given back evenly over a time: never more than twice as many in any such time.

    Parameters
    ----------
    requests
        At least 1.
    per_s
        Seconds, at least 1; at most 100 requests per second.
    """

    requests: int
    per_s: float = 60.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.requests, bool) and self.requests == 0:
            raise InvalidInputError(
                "The rate_limit is 0 requests: the route could never be taken.", hint="Switch the route off instead."
            )
        put(self, "requests", check.count(self.requests, "requests of rate_limit", low=1, high=10**9))
        put(self, "per_s", check.number(self.per_s, "per_s of rate_limit", low=1.0, high=1e8, unit="s"))
        if self.requests / self.per_s > MOST_PER_SECOND:
            raise InvalidInputError(
                f"The rate_limit is {self.requests:,} requests in {self.per_s:g} s; expected at most "
                f"{MOST_PER_SECOND:,.0f} per second.",
                hint="Leave rate_limit out where so many are welcome.",
            )

    @classmethod
    def from_value(cls, given: Any) -> RateLimit:
        """From ``{"requests": 100, "per_s": 3600}``, or a number of requests per minute."""
        if isinstance(given, RateLimit):
            return given
        if not isinstance(given, Mapping):
            return cls(requests=given)
        check.known_keys(given, ("requests", "per_s"), "key of rate_limit")
        if given.get("requests") is None:
            raise InvalidInputError("The rate_limit has no requests; expected how many.")
        return cls(**{key: value for key, value in given.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as `from_value` takes it."""
        return {"requests": self.requests, "per_s": self.per_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteConditions:
    """When a route may be taken; what is None does not restrict it.

    Parameters
    ----------
    time_range
        When, by the clock.
    user_tier
        Whose requests: one of these tiers. A request of no known tier is none of them.
    rate_limit
        How often.
    """

    time_range: TimeRange | None = None
    user_tier: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None

    @classmethod
    def from_mapping(cls, given: Any) -> RouteConditions:
        """From JSON; unknown keys are an error that lists the known ones, None is absent."""
        if isinstance(given, RouteConditions):
            return given
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"The conditions are {check.shown(given)}; expected a JSON object.")
        check.known_keys(given, ("time_range", "user_tier", "rate_limit"), "condition")
        tiers = given.get("user_tier")
        if tiers is not None:
            tiers = check.names_of([tiers] if isinstance(tiers, str) else tiers, "user_tier")
            if not tiers:
                raise InvalidInputError(
                    "The user_tier is an empty list: the route could never be taken.",
                    hint="Leave user_tier out for a route that is for everybody.",
                )
        when, often = given.get("time_range"), given.get("rate_limit")
        return cls(
            time_range=None if when is None else TimeRange.from_value(when),
            user_tier=tiers,
            rate_limit=None if often is None else RateLimit.from_value(often),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; only what restricts."""
        made: dict[str, Any] = {}
        if self.time_range is not None:
            made["time_range"] = self.time_range.to_dict()
        if self.user_tier is not None:
            made["user_tier"] = list(self.user_tier)
        if self.rate_limit is not None:
            made["rate_limit"] = self.rate_limit.to_dict()
        return made


ALWAYS = RouteConditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCalibration:
    """Similarity to probability: ``P(the request is the route's) = sigma(intercept + slope s + margin m)``.

    Parameters
    ----------
    intercept, slope, margin
        s is the route's similarity, m by how much it exceeds that of every other route (negative where one exceeds it).
    none_intercept, none_slope, none_margin
        Likewise the probability that a request that resembles this route most belongs to none of the routes.
    examples
        How many labelled requests of this route it was fitted on.
    """

    intercept: float
    slope: float
    margin: float
    none_intercept: float
    none_slope: float
    none_margin: float
    examples: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        for key in _WEIGHTS:
            put(self, key, check.number(getattr(self, key), f"{key} of calibration", low=-1e6, high=1e6))
        put(self, "examples", check.count(self.examples, "examples of calibration"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: getattr(self, key) for key in (*_WEIGHTS, "examples")}

    @classmethod
    def from_mapping(cls, given: Any) -> RouteCalibration:
        """From what `to_dict` gives."""
        if isinstance(given, RouteCalibration):
            return given
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"The calibration is {check.shown(given)}; expected a JSON object.")
        check.known_keys(given, (*_WEIGHTS, "examples"), "key of calibration")
        if missing := [key for key in _WEIGHTS if given.get(key) is None]:
            raise InvalidInputError(f"The calibration has no {missing[0]}.", hint="Fit it with: tinydancer routes fit")
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One text, or one bare vector, of a route.

    Attributes
    ----------
    text
        None where only a vector was given.
    embedding
        ``float32[dim]``; compared by its text, because the same text has the same vector.
    kind
        ``description`` (what the route says of itself; at most one), ``example``, or ``negative`` (what it is not for).
    """

    text: str | None
    embedding: FloatVector = field(compare=False, repr=False)
    kind: Kind = "example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A semantic route: requests that resemble its utterances go to its agent.

    Parameters
    ----------
    name
        Unique; 1 to 200 characters.
    target_agent
        A registered agent.
    description
        What the route is for, in a sentence.
    priority
        Among routes that pass, the highest is first.
    threshold
        Similarity from which a request is the route's, in [-1, 1]; None takes the default.
    conditions
        When it may be taken.
    calibration
        Fitted from labelled requests; None takes the default.
    is_active
        One that is not is never taken.
    utterances
        In the order in which they came; at least one that is no negative example.
    """

    name: str
    target_agent: str
    description: str = ""
    priority: int = 0
    threshold: float | None = None
    conditions: RouteConditions = ALWAYS
    calibration: RouteCalibration | None = None
    is_active: bool = True
    utterances: tuple[Utterance, ...] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        check.name_of(self.name, "route name")
        check.name_of(self.target_agent, "target agent")
        described: object = self.description
        if not isinstance(described, str) or "\x00" in described:
            raise InvalidInputError(f"The description of {self.name!r} is {check.shown(described)}; expected text.")
        put(self, "priority", check.count(self.priority, "priority", low=-PRIORITY_LIMIT, high=PRIORITY_LIMIT))
        put(self, "threshold", check.optional_number(self.threshold, "threshold", low=-1.0, high=1.0))
        put(self, "conditions", RouteConditions.from_mapping(self.conditions))
        put(self, "is_active", check.boolean(self.is_active, "is_active"))
        if self.calibration is not None:
            put(self, "calibration", RouteCalibration.from_mapping(self.calibration))

    def updated(self, changes: Mapping[str, Any]) -> Route:
        """With some fields changed; the name stays, and utterances are changed one by one elsewhere."""
        if not isinstance(changes, Mapping):
            raise InvalidInputError(f"The change is {check.shown(changes)}; expected a JSON object.")
        check.known_keys(changes, CHANGEABLE, "field of a route")
        given = dict(changes)
        for key, nothing in (("description", ""), ("priority", 0), ("conditions", ALWAYS), ("is_active", True)):
            if key in given and given[key] is None:
                given[key] = nothing
        # A threshold that was set by hand and a similarity that was calibrated before are two different things, and
        # both stay: one decides whether the route passes, the other how sure that is.
        return replace(self, **given)

    def texts(self, kind: Kind) -> list[str]:
        """The texts of its utterances of one kind."""
        return [u.text for u in self.utterances if u.kind == kind and u.text is not None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without vectors."""
        return {
            "name": self.name, "description": self.description, "target_agent": self.target_agent,
            "priority": self.priority, "threshold": self.threshold, "conditions": self.conditions.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "is_active": self.is_active, "utterances": self.texts("example"),
            "negative_utterances": self.texts("negative"),
        }  # fmt: skip


CHANGEABLE = ("target_agent", "description", "priority", "threshold", "conditions", "calibration", "is_active")


def take_token(full_at: float | None, limit: RateLimit, now: float) -> tuple[float, bool]:
    """Ask a rate limit for one request: the generic cell rate algorithm, whose whole state is one instant.

    Parameters
    ----------
    full_at
        When all requests will have been given back; None before the first.
    now
        Seconds, on the clock that all requests use. It may jump: set back, nobody waits longer than ``per_s`` from
        then; set forward, requests are given back early, which is harmless.

    Returns
    -------
    float, bool
        The next state, and whether the request may pass.
    """
    step = limit.per_s / limit.requests
    at = now if full_at is None else min(max(full_at, now), now + limit.per_s)
    # A little more than there is, because the sums of many steps are rounded.
    if at + step - now > limit.per_s + step / 100:
        return at, False
    return at + step, True


def zone_of(name: Any) -> ZoneInfo:
    """The rules of a time zone, or an error that says what a name looks like."""
    try:
        return ZoneInfo(check.name_of(name, "time_zone"))
    except (KeyError, ValueError, OSError):  # no such name, or one that is no relative path
        raise InvalidInputError(
            f"Unknown time_zone {check.shown(name)}; expected a name such as Europe/Berlin or UTC."
        ) from None


def local_time(time_zone: str, now: float) -> tuple[int, int]:
    """(day of the week from Monday 0, whole seconds since midnight) that clocks of the zone show at an instant."""
    shown = datetime.fromtimestamp(now, zone_of(time_zone))
    return shown.weekday(), shown.hour * 3600 + shown.minute * 60 + shown.second


def same_name(name: str, others: Sequence[str]) -> str | None:
    """The name among others that differs at most in capitals, if there is one."""
    return next((other for other in others if other.casefold() == name.casefold()), None)


def _seconds(given: Any, what: str) -> int:
    found = _TIME.fullmatch(given) if isinstance(given, str) else None
    if given == "24:00" and what == "end":
        return DAY_S
    if found is None:
        raise InvalidInputError(f"The {what} of time_range is {check.shown(given)}; expected a time such as 09:00.")
    hour, minute, second = (int(part or 0) for part in found.groups())
    seconds = hour * 3600 + minute * 60 + second
    return DAY_S if what == "end" and not seconds else seconds


def _clock(seconds: int) -> str:
    hour, rest = divmod(seconds, 3600)
    minute, second = divmod(rest, 60)
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
