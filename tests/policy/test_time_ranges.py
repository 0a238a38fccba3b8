"""Intervals in PostgreSQL's four styles, and days and hours across changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError
from tinydancer.policy.time_ranges import HOUR_S, Interval, begin_of, interval_of, periods_of

BERLIN = "Europe/Berlin"


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, zone: str = "UTC") -> float:
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7 days", Interval(0, 7, 0.0)),
        ("24 hours", Interval(0, 0, 86_400.0)),
        ("1 mon", Interval(1, 0, 0.0)),
        ("1 day 02:00:00", Interval(0, 1, 7200.0)),
        ("90 minutes", Interval(0, 0, 5400.0)),
        ("P7D", Interval(0, 7, 0.0)),
        ("p1w", Interval(0, 7, 0.0)),
        ("PT90M", Interval(0, 0, 5400.0)),
        ("P1M", Interval(1, 0, 0.0)),
        (" 2 Weeks ", Interval(0, 14, 0.0)),
        ("7d 12h", Interval(0, 7, 43_200.0)),
        ("1 year 2 mons 3 days 04:05:06.5", Interval(14, 3, 14_706.5)),
        ("@ 1 year 2 mons 3 days 4 hours 5 mins 6.5 secs", Interval(14, 3, 14_706.5)),
        ("1-2 3 4:05:06.5", Interval(14, 3, 14_706.5)),
        ("+1-2 +3 +4:05:06", Interval(14, 3, 14_706.0)),
        ("1-2", Interval(14, 0, 0.0)),
        ("3 4:05:06", Interval(0, 3, 14_706.0)),
        ("36:00:00", Interval(0, 0, 129_600.0)),
        ("P1Y2M3DT4H5M6.5S", Interval(14, 3, 14_706.5)),
        ("1 day -02:00:00", Interval(0, 1, -7200.0)),
        ("-1 mons +40 days", Interval(-1, 40, 0.0)),
        ("1.5 days", Interval(0, 1, 43_200.0)),
        ("1.5 months", Interval(1, 15, 0.0)),
        ("0.25 years", Interval(3, 0, 0.0)),
        ("@ 1 day ago", Interval(0, -1, 0.0)),
    ],
)
def test_intervals(text, expected):
    assert interval_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "@", "7", "-7", "days", "7 dayz", "7 days later", "a week", "P", "PT", "P7", "P7H", "1:2:3",
        "7 days, 2 hours", "1 day 25", "12:60:00", "1-", "now() - 7", "7 days; DROP TABLE agents", "7" * 300,
        "9" * 40 + " days", None, 7, 1.5, ["7 days"], "1 day 02:00:00 3 days", "１ day",
    ],
)  # fmt: skip
def test_what_is_no_interval_is_an_error_with_examples(text):
    with pytest.raises(InvalidInputError, match="expected an interval such as '7 days'"):
        interval_of(text)


@given(
    st.integers(0, 5000), st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59_999_999)
)  # fmt: skip
def test_each_style_of_postgresql_is_read(months, days, hours, minutes, microseconds):
    years, month = divmod(months, 12)
    seconds = microseconds / 1e6
    expected = Interval(months, days, hours * 3600.0 + minutes * 60.0 + seconds)
    clock = f"{hours:02}:{minutes:02}:{seconds:09.6f}"
    for text in (
        f"{years} years {month} mons {days} days {clock}",
        f"@ {years} years {month} mons {days} days {hours} hours {minutes} mins {seconds:.6f} secs",
        f"{years}-{month} {days} {hours}:{minutes:02}:{seconds:09.6f}",
        f"P{years}Y{month}M{days}DT{hours}H{minutes}M{seconds:.6f}S",
    ):
        found = interval_of(text)
        assert (found.months, found.days) == (expected.months, expected.days)
        assert found.seconds == pytest.approx(expected.seconds, abs=1e-6)


def test_months_go_by_the_calendar():
    now = at(2026, 3, 31, 12)
    assert begin_of(Interval(months=1), now) == at(2026, 2, 28, 12)
    assert begin_of(Interval(months=13), now) == at(2025, 2, 28, 12)
    assert begin_of(Interval(months=3, days=1, seconds=60.0), now) == at(2025, 12, 30, 11, 59)


def test_days_go_by_the_local_clock():
    spring = at(2026, 3, 29, 12, zone=BERLIN)  # at two o'clock of that day it became three
    assert spring - begin_of(Interval(days=1), spring, BERLIN) == 23 * HOUR_S
    assert spring - begin_of(Interval(days=1), spring) == 24 * HOUR_S
    assert spring - begin_of(Interval(seconds=86_400.0), spring, BERLIN) == 24 * HOUR_S
    autumn = at(2026, 10, 25, 12, zone=BERLIN)
    assert autumn - begin_of(Interval(days=1), autumn, BERLIN) == 25 * HOUR_S


def test_a_range_that_ends_before_it_begins_is_an_error():
    for text in ("0 days", "00:00:00", "-1 days", "1 day ago", "1 hour -60 minutes", "-P1D", "P-1D", "1 mon -40 days"):
        with pytest.raises(InvalidInputError):
            begin_of(interval_of(text), at(2026, 3, 15), BERLIN)


def test_a_range_of_all_time_begins_with_1970():
    for text in ("100 years", "999 years 11 mons", "900000000 hours", "365000 days"):
        assert begin_of(interval_of(text), at(2026, 1, 1)) == 0.0
    for text in ("999999 years", "999999999 days"):
        with pytest.raises(InvalidInputError, match="too long"):
            begin_of(interval_of(text), at(2026, 1, 1))


def test_days_of_a_zone_have_23_24_and_25_hours():
    for first, long in (((2026, 3, 28), 23), ((2026, 10, 24), 25), ((2026, 6, 1), 24)):
        begin = at(*first, 15, zone=BERLIN)
        found = periods_of(begin, begin + 3 * 86_400.0, "day", BERLIN)
        assert found.starts[0] == at(*first, zone=BERLIN)
        assert found.labels[0] == f"{first[0]}-{first[1]:02}-{first[2]:02}"
        assert len(found.starts) == len(found.labels) == 4
        assert found.starts[2] - found.starts[1] == long * HOUR_S


def test_a_day_that_begins_at_one_o_clock():
    """In Beirut, clocks are set forward at midnight."""
    begin = at(2026, 3, 28, 12, zone="Asia/Beirut")
    found = periods_of(begin, begin + 86_400.0, "day", "Asia/Beirut")
    assert [datetime.fromtimestamp(s, ZoneInfo("Asia/Beirut")).hour for s in found.starts] == [0, 1]
    assert found.starts[1] - found.starts[0] == 24 * HOUR_S


def test_an_hour_that_comes_twice_is_two_hours():
    begin = at(2026, 10, 25, 1, 30, zone=BERLIN)
    found = periods_of(begin, begin + 3 * HOUR_S, "hour", BERLIN)
    assert found.labels == (
        "2026-10-25 01:00+02:00", "2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00", "2026-10-25 03:00+01:00",
    )  # fmt: skip
    assert [b - a for a, b in zip(found.starts, found.starts[1:], strict=False)] == [HOUR_S] * 3


def test_zones_that_are_no_whole_hour_away():
    begin = at(2026, 6, 1, 20)
    hours = periods_of(begin, begin + HOUR_S, "hour", "Asia/Kolkata")
    assert hours.labels == ("2026-06-02 01:30+05:30", "2026-06-02 02:30+05:30")
    days = periods_of(begin, begin + 86_400.0, "day", "Asia/Kolkata")
    assert days.starts[1] == at(2026, 6, 2, 18, 30)  # the hour from 18:00 on belongs to the day before


@given(
    st.floats(1e9, 2e9), st.floats(1.0, 40 * 86_400.0), st.sampled_from(["day", "hour", None]),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]),
)  # fmt: skip
def test_periods_cover_the_range(begin, length, unit, zone):
    found = periods_of(begin, begin + length, unit, zone)
    assert found.starts[0] <= begin // HOUR_S * HOUR_S
    assert list(found.starts) == sorted(set(found.starts))
    assert found.starts[-1] <= begin + length
    assert len(found.labels) == len(set(found.labels)) == len(found.starts)
    longest = {"day": 49, "hour": 1, None: 1e9}[unit] * HOUR_S  # Apia left a day out
    assert begin + length - found.starts[-1] <= longest


def test_too_many_periods_are_refused():
    with pytest.raises(InvalidInputError, match="hours; expected at most 50,000"):
        periods_of(0.0, at(2026, 1, 1), "hour")
    assert len(periods_of(0.0, at(2026, 1, 1), "day").starts) == (datetime(2026, 1, 1, tzinfo=UTC) - datetime(
        1970, 1, 1, tzinfo=UTC)).days + 1  # fmt: skip


def test_an_unknown_zone_is_an_error():
    for call in (lambda: begin_of(Interval(days=1), 1e9, "Mars"), lambda: periods_of(1e9, 1e9 + 1, "day", "Mars")):
        with pytest.raises(InvalidInputError, match="time_zone 'Mars'"):
            call()
