"""Conditions of semantic routes: clocks, time zones, days, tiers, limits of rate."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError, InvalidNameError, UnknownKeyError
from tinydancer.policy.route_rules import (
    DAYS,
    RateLimit,
    Route,
    RouteCalibration,
    RouteConditions,
    TimeRange,
    take_token,
)

BERLIN = ZoneInfo("Europe/Berlin")


def at(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def berlin(start, end, **more):
    return TimeRange.from_value({"start": start, "end": end, "time_zone": "Europe/Berlin", **more})


def test_a_range_holds_from_its_start_until_before_its_end():
    office = berlin("09:00", "17:30")
    assert [office.holds(at(f"2026-01-14T{t}")) for t in ("08:59:59", "09:00", "17:29:59.9", "17:30")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert office.holds(at("2026-07-14T09:00"))  # the clock of the place, not a fixed distance from UTC
    assert not office.holds(at("2026-07-14T09:00", ZoneInfo("UTC")) + 9 * 3600)


def test_a_range_over_midnight_belongs_to_the_day_on_which_it_begins():
    friday_night = berlin("22:00", "04:00", days=["Friday"])
    assert friday_night.days == ("fri",)
    held = [friday_night.holds(at(t)) for t in
            ("2026-01-16T21:59", "2026-01-16T22:00", "2026-01-17T03:59", "2026-01-17T04:00", "2026-01-17T23:00",
             "2026-01-16T01:00")]  # fmt: skip
    assert held == [False, True, True, False, False, False]
    sunday_night = berlin("22:00", "04:00", days=["sun"])
    assert sunday_night.holds(at("2026-01-19T03:00"))  # a Monday


def test_daylight_saving():
    small_hours = berlin("02:00", "03:00")
    # 29 March 2026: clocks go from 02:00 to 03:00, and the range never comes.
    start = at("2026-03-29T00:00")
    assert not any(small_hours.holds(start + minute * 60) for minute in range(5 * 60))
    # 25 October 2026: the hour from 02:00 comes twice.
    start = at("2026-10-25T00:00")
    assert sum(small_hours.holds(start + minute * 60) for minute in range(6 * 60)) == 120
    assert small_hours.holds(at("2026-10-25T02:30", fold=0))
    assert small_hours.holds(at("2026-10-25T02:30", fold=1))


def test_the_whole_day_and_its_last_second():
    whole = TimeRange.from_value(["00:00", "24:00"])
    assert (whole.start_s, whole.end_s) == (0, 86_400)
    assert whole.holds(at("2026-01-14T23:59:59.999", ZoneInfo("UTC")))
    assert TimeRange.from_value(["18:00", "00:00"]).end_s == 86_400


@given(
    st.integers(0, 86_399), st.integers(1, 86_400), st.sets(st.sampled_from(DAYS), min_size=1),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),
)  # fmt: skip
def test_it_agrees_with_counting_seconds(start, end, days, moment):
    if start == end % 86_400 and (start, end) != (0, 86_400):
        return
    made = TimeRange(start_s=start, end_s=end, days=tuple(days))
    moment = moment.replace(microsecond=0)
    expected = False
    for back in (0, 1):
        midnight = datetime(moment.year, moment.month, moment.day) - timedelta(days=back)
        first = midnight + timedelta(seconds=start)
        last = midnight + timedelta(seconds=end if start < end else end + 86_400)
        expected |= DAYS[midnight.weekday()] in days and first <= moment < last
    assert made.holds(moment.replace(tzinfo=ZoneInfo("UTC")).timestamp()) == expected
    assert TimeRange.from_value(made.to_dict()) == made


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"start": "9", "end": "17:00"}, "start of time_range is '9'"),
        ({"start": "09:00"}, "no end"),
        ({"start": "24:00", "end": "17:00"}, "start of time_range is '24:00'"),
        ({"start": "09:00", "end": "09:00"}, "no time lies in it"),
        (["09:00", "17:00", "18:00"], "expected an object"),
        ("09:00-17:00", "expected an object"),
        ({"start": "09:00", "end": "17:00", "time_zone": "Europe/Atlantis"}, "Unknown time_zone"),
        ({"start": "09:00", "end": "17:00", "time_zone": "../../etc/passwd"}, "Unknown time_zone"),
        ({"start": "09:00", "end": "17:00", "time_zone": 1}, "expected text"),
        ({"start": "09:00", "end": "17:00", "days": []}, "no day is given"),
        ({"start": "09:00", "end": "17:00", "days": ["someday"]}, "'someday' is no day"),
        ({"start": "09:00", "end": "17:00", "day": "mon"}, "Unknown key"),
    ],
)
def test_a_time_range_that_cannot_be_used(given_, message):
    with pytest.raises((InvalidInputError, InvalidNameError), match=message):
        TimeRange.from_value(given_)


def test_conditions_there_and_back():
    given_ = {
        "time_range": {"start": "22:00", "end": "04:00", "time_zone": "Europe/Berlin", "days": ["fri", "sat"]},
        "user_tier": ["gold", "silver"],
        "rate_limit": {"requests": 100, "per_s": 3600.0},
    }
    assert RouteConditions.from_mapping(given_).to_dict() == given_
    short = RouteConditions.from_mapping({"time_range": ["09:00", "17:00"], "user_tier": "gold", "rate_limit": 30})
    assert short.user_tier == ("gold",)
    assert short.rate_limit == RateLimit(requests=30, per_s=60.0)
    assert RouteConditions.from_mapping({"user_tier": None}).to_dict() == {}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"user_tier": []}, "could never be taken"),
        ({"rate_limit": 0}, "could never be taken"),
        ({"rate_limit": {"requests": 0}}, "could never be taken"),
        ({"rate_limit": -1}, "requests of rate_limit is -1"),
        ({"rate_limit": {"requests": 5, "per_s": 0}}, "per_s of rate_limit"),
        ({"rate_limit": {"requests": 5000, "per_s": 1}}, "at most 100 per second"),
        ({"rate_limit": {"per_s": 60}}, "no requests"),
        ({"rate_limit": True}, "is True"),
        ({"tier": ["gold"]}, "Unknown condition"),
        ("always", "expected a JSON object"),
    ],
)
def test_conditions_that_cannot_be_used(given_, message):
    with pytest.raises((InvalidInputError, UnknownKeyError), match=message):
        RouteConditions.from_mapping(given_)


def passed(limit, moments):
    state, passing = None, []
    for now in moments:
        state, fine = take_token(state, limit, now)
        passing.append(fine)
    return passing


@given(st.integers(1, 50), st.floats(1.0, 1e5), st.integers(0, 2**31))
def test_so_many_at_once_and_twice_as_many_in_any_period(requests, per_s, seed):
    limit = RateLimit(requests=requests, per_s=max(per_s, requests / 90))
    now = 1.7e9
    assert sum(passed(limit, [now] * (requests + 5))) == requests
    moments = now + np.sort(np.random.default_rng(seed).uniform(0.0, 4 * limit.per_s, 6 * requests))
    taken = moments[passed(limit, moments.tolist())]
    for first in taken:
        assert ((taken >= first) & (taken < first + limit.per_s)).sum() <= 2 * requests
    # As much as is given back is taken: none is lost.
    busy = now + np.linspace(0.0, 4 * limit.per_s, 40 * requests, endpoint=False)
    assert abs(sum(passed(limit, busy.tolist())) - 5 * requests) <= 1


def test_clocks_that_jump():
    limit = RateLimit(requests=10, per_s=60.0)
    state, now = None, 1.7e9
    for _ in range(10):
        state, fine = take_token(state, limit, now)
        assert fine
    assert not take_token(state, limit, now)[1]
    state, fine = take_token(state, limit, now - 1e6)  # set back eleven days
    assert not fine
    state, fine = take_token(state, limit, now - 1e6 + 6.1)  # a sixth of a minute's tenth later, as ever
    assert fine
    assert passed(limit, [now] * 10 + [now + 1e6] * 11) == [True] * 20 + [False]


def test_a_route_is_checked():
    with pytest.raises(InvalidInputError, match=r"threshold is 1\.01"):
        Route(name="a", target_agent="b", threshold=1.01)
    with pytest.raises(InvalidInputError, match="threshold is nan"):
        Route(name="a", target_agent="b", threshold=float("nan"))
    with pytest.raises(InvalidInputError, match=r"priority is 1\.5"):
        Route(name="a", target_agent="b", priority=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidNameError):
        Route(name=" a", target_agent="b")
    with pytest.raises(InvalidInputError, match="calibration has no slope"):
        Route(name="a", target_agent="b", calibration={"intercept": 1.0})  # type: ignore[arg-type]
    route = Route(name="a", target_agent="b", threshold=-1, priority=3)
    changed = route.updated({"threshold": None, "priority": None, "conditions": {"rate_limit": 5}})
    assert (changed.threshold, changed.priority) == (None, 0)
    assert changed.conditions.rate_limit == RateLimit(requests=5)
    with pytest.raises(UnknownKeyError, match="prioritiy"):
        route.updated({"prioritiy": 1})
    calibration = RouteCalibration(
        intercept=1, slope=2, margin=3, none_intercept=4, none_slope=5, none_margin=6, examples=7
    )
    assert RouteCalibration.from_mapping(calibration.to_dict()) == calibration
