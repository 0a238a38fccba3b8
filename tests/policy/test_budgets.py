"""Budgets: what is refused, calendars with changing clocks, pacing, alerts."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError, InvalidNameError, UnknownKeyError
from tinydancer.policy.budgets import (
    Budget,
    ceiling_usd,
    due_alerts,
    is_open,
    iso_time,
    matches,
    period_of,
    until,
)
from tinydancer.types import RequestContext

HOUR = 3600.0
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
         "America/Sao_Paulo", "Pacific/Apia", "Africa/Cairo", "Asia/Kathmandu", "America/St_Johns")  # fmt: skip


def budget(**changes) -> Budget:
    values: dict[str, Any] = {"name": "b", "amount_usd": 100.0}
    return Budget(**(values | changes))


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"amount_usd": -1}, r"amount_usd is -1; expected a number in \[0, 1e\+12\] USD"),
        ({"amount_usd": math.nan}, "amount_usd is nan"),
        ({"amount_usd": True}, "amount_usd is True"),
        (
            {"period": "fortnight"},
            "Unknown period 'fortnight'; expected one of: hour, day, week, month, year, total, or",
        ),
        ({"period": 0}, "number of days in period is 0"),
        ({"period": 2.5}, "whole number"),
        ({"period": 4000}, "number of days"),
        ({"scope": "team"}, "Unknown scope 'team'; expected one of: tenant, agent, key, tag"),
        ({"scope": "key"}, "The scope is key, and scope_value is missing"),
        ({"scope_value": "x"}, "for the scope tenant, which has none"),
        ({"scope": "key", "scope_value": 3}, "key in scope_value is 3"),
        ({"on_limit": "stop"}, "Unknown on_limit 'stop'; expected one of: refuse, cheapest, free"),
        ({"pacing": "fast"}, "Unknown pacing"),
        ({"time_zone": "Mars/Base"}, "Unknown time_zone 'Mars/Base'"),
        ({"starts_at": 10.0, "ends_at": 10.0}, "which is not after its start, 1970-01-01 00:00 UTC"),
        ({"starts_at": "2026-05-01", "ends_at": "2026-04-01"}, "ends at 2026-04-01 00:00 UTC, which is not after"),
        ({"starts_at": "soon"}, "expected a time such as 2026-12-31"),
        ({"ends_at": 1e300}, "ends_at is 1e"),
        ({"pacing": "even", "period": "total"}, "A total budget without an end cannot be paced evenly"),
        ({"pacing": "even", "period": "total", "ends_at": 5.0}, "A total budget without a start"),
        ({"burst": 1.5}, "burst is 1.5"),
        ({"alert_at": (0.5, 0.0)}, r"A share in alert_at is 0; expected numbers in \(0, 1\]"),
        ({"alert_at": (1.5,)}, "a share in alert_at is 1.5"),
        ({"alert_at": "half"}, "expected shares of the amount"),
        ({"release_after_s": 0.5}, "release_after_s is 0.5"),
        ({"is_active": 1}, "is_active is 1; expected true or false"),
        ({"name": " "}, "name of the budget is empty"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, says):
    with pytest.raises((InvalidInputError, InvalidNameError), match=says):
        budget(**changes)


def test_a_budget_from_json_and_back():
    given_config = {
        "name": "b", "amount_usd": 5, "period": " 14 ", "scope": "Tag", "scope_value": "x",
        "time_zone": "Europe/Berlin",
        "starts_at": "2026-07-01", "ends_at": "2026-12-31T18:00:00+00:00", "alert_at": [1, 0.5, 0.5], "burst": None,
    }  # fmt: skip
    made = Budget.from_mapping(given_config)
    assert (made.period, made.scope, made.alert_at, made.burst) == (14, "tag", (0.5, 1.0), 0.1)
    assert made.starts_at == at("2026-07-01", "Europe/Berlin") == at("2026-06-30T22:00")
    assert made.to_dict()["starts_at"] == "2026-07-01T00:00:00+02:00"
    assert Budget.from_mapping(made.to_dict()) == made
    for wrong, says in (
        ([], "expected a JSON object"),
        ({"name": "b"}, "no amount_usd"),
        ({"amount_usd": 1}, "no name"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            Budget.from_mapping(wrong)
    with pytest.raises(UnknownKeyError) as caught:
        Budget.from_mapping({"name": "b", "amount_usd": 1, "periods": "day"})
    assert caught.value.hint == "Did you mean 'period'?"


def test_changes():
    made = budget(scope="key", scope_value="x", ends_at=100.0, pacing="none")
    assert made.updated({"amount_usd": 7}).amount_usd == 7.0
    assert made.updated({"ends_at": None}).ends_at is None
    assert made.updated({"scope": "tenant"}).scope_value is None
    assert made.updated({"scope": "key"}) == made
    assert made.updated({"scope": "tag", "scope_value": "y"}).whose == "tag y"
    for wrong, says in (
        ({}, "expected a JSON object with fields"), (None, "expected a JSON object"),
        ({"amount_usd": None}, "no amount_usd"),
        ({"scope": "tag"}, "scope_value is missing"), ({"starts_at": 100.0}, "not after its start"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=says):
            made.updated(wrong)
    with pytest.raises(UnknownKeyError, match="Unknown field of a budget that can be changed 'name'"):
        made.updated({"name": "c"})


# -- whose, and when -----------------------------------------------------------------------------------------------


def test_whose_requests_count():
    context = RequestContext(key="k", tags=("one", "two"))
    for scope, value, holds in (
        ("tenant", None, True), ("agent", "anybody", True), ("key", "k", True), ("key", "K", False),
        ("tag", "two", True), ("tag", "three", False),
    ):  # fmt: skip
        assert matches(budget(scope=scope, scope_value=value), context) == holds
    assert not matches(budget(scope="key", scope_value="k"), RequestContext())


def test_when_it_holds():
    made = budget(starts_at=100.0, ends_at=200.0)
    assert [is_open(made, now) for now in (99.9, 100.0, 199.9, 200.0)] == [False, True, True, False]
    assert not is_open(budget(is_active=False), 1.0)


@pytest.mark.parametrize(
    ("period", "now", "zone", "start", "hours"),
    [
        ("day", "2026-03-29T12:00", "Europe/Berlin", "2026-03-29", 23),
        ("day", "2026-10-25T12:00", "Europe/Berlin", "2026-10-25", 25),
        ("day", "2026-10-25T02:30", "Europe/Berlin", "2026-10-25", 25),
        ("day", "2026-11-01T00:30", "America/Havana", "2026-11-01", 25),  # midnight comes twice
        ("day", "2018-11-04T05:00", "America/Sao_Paulo", "2018-11-04T01:00", 23),  # midnight does not come
        ("week", "2026-03-26T12:00", "Europe/Berlin", "2026-03-23", 167),
        ("month", "2026-10-31T23:59", "Europe/Berlin", "2026-10-01", 31 * 24 + 1),
        ("month", "2028-02-29T00:00", "UTC", "2028-02-01", 29 * 24),
        ("year", "2028-12-31T23:59", "America/New_York", "2028-01-01", 366 * 24),
        ("hour", "2026-10-25T02:30", "Europe/Berlin", "2026-10-25T02:00", 1),
        ("hour", "2026-01-01T12:10", "Asia/Kolkata", "2026-01-01T12:00", 1),
        (14, "1970-01-20T12:00", "UTC", "1970-01-19", 336),
    ],
)
def test_periods_of_the_calendar(period, now, zone, start, hours):
    made = budget(period=period, time_zone=zone)
    found = period_of(made, at(now, zone))
    assert (found.start, found.key, found.end - found.start) == (at(start, zone), at(start, zone), hours * HOUR)


def test_the_hour_that_comes_twice_is_two_periods():
    made = budget(period="hour", time_zone="Europe/Berlin")
    first, second = (period_of(made, at("2026-10-25T02:30", "Europe/Berlin", fold)) for fold in (0, 1))
    assert (first.end, second.end - first.end) == (second.start, HOUR)
    shown = [until(made, period) for period in (first, second)]
    assert shown == ["until 2026-10-25 02:00 Europe/Berlin", "until 2026-10-25 03:00 Europe/Berlin"]


def test_a_day_that_the_clock_leaves_again_has_begun():
    made = budget(period="day", time_zone="America/St_Johns")
    # One minute after midnight the clocks were set back an hour, into the day before.
    begun, after = at("2010-11-07T00:00", "America/St_Johns"), at("2010-11-06T23:30", "America/St_Johns", fold=1)
    assert begun < after
    assert period_of(made, after) == period_of(made, begun)
    assert period_of(made, begun).end - begun == 25 * HOUR


def test_periods_of_days_begin_with_the_budget():
    made = budget(period=10, starts_at="2026-03-25T15:00", time_zone="Europe/Berlin")
    first = period_of(made, made.starts_at or 0.0)
    assert (first.start, first.key) == (made.starts_at, at("2026-03-25", "Europe/Berlin"))
    assert first.end == at("2026-04-04", "Europe/Berlin")  # over a change of the clocks
    assert period_of(made, first.end).end == at("2026-04-14", "Europe/Berlin")


def test_a_total_budget_has_one_period():
    assert period_of(budget(period="total"), 5.0) == (0, -math.inf, math.inf)
    made = budget(period="total", starts_at=10.0, ends_at=20.0)
    assert period_of(made, 15.0) == (0, 10.0, 20.0)
    assert (until(budget(period="total"), period_of(budget(period="total"), 5.0)), iso_time(math.inf, "UTC")) == (
        "",
        None,
    )


def test_changing_amount_or_end_keeps_the_account():
    made = budget(period="month")
    now = at("2026-05-20")
    keys = {
        period_of(made.updated(changes), now).key
        for changes in ({"amount_usd": 1}, {"ends_at": "2026-05-25"}, {"starts_at": "2026-05-10"}, {"on_limit": "free"})
    }
    assert keys == {period_of(made, now).key}


@given(
    now=st.floats(-1e9, 4e9), period=st.one_of(st.sampled_from(["day", "week", "month", "year"]), st.integers(1, 400)),
    zone=st.sampled_from(ZONES),
)  # fmt: skip
def test_every_instant_lies_in_one_period_and_they_follow_without_a_gap(now, period, zone):
    made = budget(period=period, time_zone=zone)
    found = period_of(made, now)
    assert found.start <= now < found.end
    after, before = period_of(made, found.end), period_of(made, found.start - 1e-3)
    assert (after.start, before.end) == (found.end, found.start)
    for instant in (found.start, found.end - 1e-3):
        assert period_of(made, instant) == found


@given(now=st.floats(1e9, 4e9), zone=st.sampled_from([z for z in ZONES if z != "Australia/Lord_Howe"]))
def test_an_hour_has_3600_seconds(now, zone):
    made = budget(period="hour", time_zone=zone)
    found = period_of(made, now)
    assert found.start <= now < found.end == found.start + HOUR
    assert period_of(made, found.end).start == found.end
    assert datetime.fromtimestamp(found.start, ZoneInfo(zone)).minute == 0


def test_instants_beyond_any_calendar():
    for now in (-1e30, 1e30):
        for period in ("day", "month", "year", 10):
            found = period_of(budget(period=period), now)
            assert found.start < found.end


# -- how much ------------------------------------------------------------------------------------------------------


def test_an_even_pace_releases_the_amount_over_the_period():
    made = budget(period="day", pacing="even", burst=0.1, time_zone="Europe/Berlin")
    midnight = at("2026-10-25", "Europe/Berlin")  # a day of 25 hours
    shares = {0.0: 0.1, 12.5: 0.6, 22.5: 1.0, 24.9: 1.0}
    for hours, share in shares.items():
        assert ceiling_usd(made, midnight + hours * HOUR) == pytest.approx(100.0 * share, abs=1e-9)
    assert ceiling_usd(budget(period="day", pacing="none"), midnight) == 100.0
    whole = budget(period="total", pacing="even", burst=0.0, starts_at=0.0, ends_at=10.0)
    assert [ceiling_usd(whole, now) for now in (0.0, 2.5, 10.0, 99.0, -5.0)] == [0.0, 25.0, 100.0, 100.0, 0.0]


@given(first=st.floats(0, 86_400), second=st.floats(0, 86_400), burst=st.floats(0, 1))
def test_what_is_released_never_shrinks_within_a_period(first, second, burst):
    made = budget(period="day", pacing="even", burst=burst)
    midnight = at("2026-05-05")
    early, late = sorted((min(first, 86_399.0), min(second, 86_399.0)))
    assert ceiling_usd(made, midnight + early) <= ceiling_usd(made, midnight + late) <= 100.0


def test_alerts_that_are_due():
    made = budget(alert_at=(0.5, 0.8, 1.0))
    for used, alerted, due in (
        (0.0, 0.0, ()), (49.9, 0.0, ()), (50.0, 0.0, (0.5,)), (99.99999999999, 0.5, (0.8, 1.0)), (120.0, 1.0, ()),
        (60.0, 0.8, ()),
    ):  # fmt: skip
        assert due_alerts(made, used, alerted) == due
    assert due_alerts(budget(amount_usd=0.0), 0.0, 0.0) == ()
    assert due_alerts(budget(amount_usd=0.0, alert_at=(1.0,)), 0.01, 0.0) == (1.0,)


def test_iso_times_are_by_the_clock_of_the_zone():
    assert iso_time(at("2026-07-01", "Europe/Berlin"), "Europe/Berlin") == "2026-07-01T00:00:00+02:00"
    assert iso_time(datetime(2026, 1, 1, tzinfo=UTC).timestamp(), "UTC") == "2026-01-01T00:00:00+00:00"
    assert iso_time(None, "UTC") is None
