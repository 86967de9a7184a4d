"""Is quiet exactly what the wall clocks read, around every change of clocks there is?"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import HORIZON, Only, QuietHours, Subject, earliest, zone
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, MINUTE, changes, first, utc

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

TOKYO = zone("Asia/Tokyo")


def subject(*zones: str, channel: str = "sms", category: str = "news") -> Subject:
    return Subject(channel, category, None, tuple(map(zone, zones)), TOKYO)


def clock(text: str) -> time:
    return time.fromisoformat(text)


@pytest.mark.parametrize(
    ("where", "hours", "at", "span", "free"),
    [
        # plain nights; the span is closed, so it may not end at the instant when quiet begins
        ("Asia/Tokyo", "21:00 08:00", "2026-11-21T12:00:00", 30, "2026-11-21T23:00:00"),
        ("Asia/Tokyo", "21:00 08:00", "2026-11-21T11:59:29", 30, "2026-11-21T11:59:29"),
        ("Asia/Tokyo", "21:00 08:00", "2026-11-21T11:59:30", 30, "2026-11-21T23:00:00"),
        ("Asia/Tokyo", "21:00 08:00", "2026-11-21T23:00:00", 0, "2026-11-21T23:00:00"),
        ("Asia/Tokyo", "21:00 08:00", "2026-11-21T22:59:59.999999", 0, "2026-11-21T23:00:00"),
        ("Asia/Tokyo", "12:00 13:00", "2026-11-21T02:30:00", 7200, "2026-11-21T04:00:00"),  # would span the whole of it
        ("Asia/Tokyo", "21:00 00:00", "2026-11-21T14:59:00", 0, "2026-11-21T15:00:00"),
        ("Asia/Tokyo", "00:00 08:00", "2026-11-21T14:59:00", 60, "2026-11-21T23:00:00"),
        ("Asia/Tokyo", "21:00 08:00", "2023-12-31T13:00:00", 0, "2023-12-31T23:00:00"),
        ("Asia/Tokyo", "21:00 08:00", "2024-02-28T13:00:00", 0, "2024-02-28T23:00:00"),
        # the end is skipped: 02:30 is never read, 03:00 is
        ("Europe/Berlin", "21:00 02:30", "2026-03-28T22:00:00", 0, "2026-03-29T01:00:00"),
        ("Europe/Berlin", "21:00 03:00", "2026-03-28T22:00:00", 0, "2026-03-29T01:00:00"),
        ("Europe/Berlin", "21:00 08:00", "2026-03-28T22:00:00", 0, "2026-03-29T06:00:00"),
        # the whole of quiet is skipped
        ("Europe/Berlin", "02:00 03:00", "2026-03-29T00:30:00", 3600, "2026-03-29T00:30:00"),
        # the end is read twice, and quiet comes back
        ("Europe/Berlin", "21:00 02:30", "2026-10-24T22:00:00", 0, "2026-10-25T00:30:00"),
        ("Europe/Berlin", "21:00 02:30", "2026-10-24T22:00:00", 2400, "2026-10-25T01:30:00"),
        ("Europe/Berlin", "21:00 08:00", "2026-10-24T22:00:00", 0, "2026-10-25T07:00:00"),
        # half an hour
        ("Australia/Lord_Howe", "22:00 01:45", "2026-04-04T12:00:00", 0, "2026-04-04T14:45:00"),
        ("Australia/Lord_Howe", "22:00 01:45", "2026-04-04T12:00:00", 1200, "2026-04-04T15:15:00"),
        # midnight is skipped, exactly at the end and within
        ("Asia/Beirut", "21:00 00:00", "2026-03-28T20:00:00", 0, "2026-03-28T22:00:00"),
        ("Asia/Beirut", "21:00 00:30", "2026-03-28T20:00:00", 0, "2026-03-28T22:00:00"),
        # a day is skipped, and the night with it is one night
        ("Pacific/Apia", "21:00 08:00", "2011-12-30T08:00:00", 0, "2011-12-30T18:00:00"),
    ],
)
def test_the_end_of_quiet_hours(where: str, hours: str, at: str, span: float, free: str) -> None:
    rule = QuietHours("night", *map(clock, hours.split()))
    assert rule.first(utc(at), timedelta(seconds=span), subject(where), ()) == utc(free)


def test_quiet_in_any_candidate_zone_is_quiet() -> None:
    rule = QuietHours("night", clock("21:00"), clock("08:00"))
    who = subject("America/New_York", "America/Los_Angeles")
    assert rule.first(utc("2026-11-21T13:00:00"), MINUTE, who, ()) == utc("2026-11-21T16:00:00")
    assert rule.first(utc("2026-11-22T01:59:00"), MINUTE, who, ()) == utc("2026-11-22T16:00:00")


def test_quiet_all_day_is_never() -> None:
    assert QuietHours("x", clock("08:00"), clock("08:00")).first(utc("2026-01-01"), MINUTE, subject("UTC"), ()) is None
    around_the_world = subject("Asia/Tokyo", "Europe/London", "America/Los_Angeles")
    rule = QuietHours("x", clock("20:00"), clock("10:00"))
    assert rule.first(utc("2026-01-01"), MINUTE, around_the_world, ()) is None
    assert "never" in rule.explain(utc("2026-01-01"), MINUTE, around_the_world, ()).why
    one_hour_a_day = QuietHours("x", clock("09:00"), clock("08:00"))
    assert one_hour_a_day.first(utc("2026-01-01"), 60 * MINUTE, subject("UTC"), ()) is None
    assert one_hour_a_day.first(utc("2026-01-01"), 59 * MINUTE, subject("UTC"), ()) == utc("2026-01-01T08:00:00")


def test_what_only_a_change_of_clocks_permits_is_found_months_ahead() -> None:
    # 02:00 to 03:00 lasts two hours once a year
    rule = QuietHours("x", clock("03:00"), clock("02:00"))
    found = rule.first(utc("2026-01-01"), 90 * MINUTE, subject("Europe/Berlin"), ())
    assert found == utc("2026-10-25T00:00:00")


def test_it_applies_to_the_channels_and_categories_named() -> None:
    only = Only(channels=frozenset({"sms"}), categories=frozenset({"news"}))
    rule, at = QuietHours("x", clock("21:00"), clock("08:00"), only=only), utc("2026-11-21T22:00")
    assert not earliest(at, MINUTE, [rule], subject("UTC"), ()).allowed
    assert earliest(at, MINUTE, [rule], subject("UTC", channel="push"), ()).allowed
    assert earliest(at, MINUTE, [rule], subject("UTC", category="codes"), ()).allowed


@pytest.mark.parametrize(
    ("where", "hours", "days", "at", "free"),
    [
        # 21 November 2026 is a Saturday
        ("UTC", "21:00 08:00", "5", "2026-11-21T20:59", "2026-11-21T20:59"),
        ("UTC", "21:00 08:00", "5", "2026-11-21T21:00", "2026-11-22T08:00"),
        ("UTC", "21:00 08:00", "5", "2026-11-22T07:59", "2026-11-22T08:00"),  # the evening's weekday
        ("UTC", "21:00 08:00", "6", "2026-11-22T07:59", "2026-11-22T07:59"),
        ("UTC", "21:00 08:00", "5", "2026-11-22T21:00", "2026-11-22T21:00"),
        ("UTC", "21:00 08:00", "456", "2026-11-20T22:00", "2026-11-21T08:00"),
        ("UTC", "09:00 17:00", "01234", "2026-11-20T10:00", "2026-11-20T17:00"),
        ("UTC", "09:00 17:00", "01234", "2026-11-21T10:00", "2026-11-21T10:00"),
        # a whole day, two of them, and one from noon to noon
        ("UTC", "00:00 00:00", "6", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("UTC", "00:00 00:00", "56", "2026-11-21T00:00", "2026-11-23T00:00"),
        ("UTC", "12:00 12:00", "5", "2026-11-22T11:59", "2026-11-22T12:00"),
        # by the clock of the zone: it is Saturday in Tokyo from Friday, 15:00 UTC
        ("Asia/Tokyo", "00:00 00:00", "5", "2026-11-20T14:59", "2026-11-20T14:59"),
        ("Asia/Tokyo", "00:00 00:00", "5", "2026-11-20T15:00", "2026-11-21T15:00"),
        ("Pacific/Kiritimati", "00:00 00:00", "5", "2026-11-20T10:00", "2026-11-21T10:00"),
        ("Etc/GMT+12", "00:00 00:00", "5", "2026-11-21T12:00", "2026-11-22T12:00"),
        # Saturday evening reaches into the Sunday on which clocks go forward, or back: 23 and 25 hours
        ("Europe/Berlin", "21:00 21:00", "5", "2026-03-28T20:00", "2026-03-29T19:00"),
        ("Europe/Berlin", "21:00 21:00", "5", "2026-10-24T19:00", "2026-10-25T20:00"),
        # 02:30 is read twice on Sunday, 25 October, and belongs to Saturday both times
        ("Europe/Berlin", "23:00 02:30", "5", "2026-10-25T01:10", "2026-10-25T01:30"),
        ("Europe/Berlin", "23:00 02:30", "6", "2026-10-25T01:10", "2026-10-25T01:10"),
        # clocks go back over midnight at 00:01 on Sunday: it is late on Saturday again
        ("America/St_Johns", "23:30 00:30", "5", "2010-11-07T02:31", "2010-11-07T02:31"),  # 23:01 on Saturday
        ("America/St_Johns", "23:30 00:30", "5", "2010-11-07T03:00", "2010-11-07T04:00"),
        # Samoa skipped Friday, 30 December 2011: it was never Friday, and early Saturday follows it by the calendar
        ("Pacific/Apia", "21:00 08:00", "4", "2011-12-30T10:00", "2011-12-30T18:00"),
        ("Pacific/Apia", "21:00 08:00", "3", "2011-12-30T07:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "09:00 17:00", "4", "2011-12-29T20:00", "2011-12-29T20:00"),
    ],
)
def test_quiet_on_some_weekdays(where: str, hours: str, days: str, at: str, free: str) -> None:
    rule = QuietHours("x", *map(clock, hours.split()), days=frozenset(map(int, days)))
    assert rule.first(utc(at), timedelta(0), subject(where), ()) == utc(free)


def test_us_calling_hours() -> None:
    """47 CFR 64.1200(c)(1): no solicitation before 8 a.m. or after 9 p.m., local time where the called party is."""
    rule = QuietHours("tcpa", clock("21:00"), clock("08:00"))
    who = subject("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
    for n in range(24 * 60):
        at = utc("2026-07-01") + n * MINUTE
        everywhere = all(8 <= (at - hours * timedelta(hours=1)).hour < 21 for hours in (4, 5, 6, 7))
        assert (rule.first(at, timedelta(0), who, ()) == at) == everywhere


def test_faulty_quiet_hours_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="zone"):
        QuietHours("x", time(21, tzinfo=TOKYO), time(8))
    with pytest.raises(ValueError, match="weekdays"):
        QuietHours("x", time(21), time(8), days=frozenset({7}))
    for over in (DAY, -MINUTE):
        with pytest.raises(ValueError, match="less than a day"):
            QuietHours("x", time(21), time(8), release_over=over)


def test_explanations_name_the_zone_and_the_end() -> None:
    rule = QuietHours("night", clock("21:00"), clock("08:00"))
    told = rule.explain(utc("2026-11-21T12:30:00"), MINUTE, subject("UTC", "Asia/Tokyo"), ())
    assert (told.permits, told.next) == (False, utc("2026-11-22T08:00:00"))
    assert told.why == "21:30 in Asia/Tokyo is within quiet hours 21:00 to 08:00; free from 08:00 on 2026-11-22 (UTC)"
    told = rule.explain(utc("2026-11-21T11:59:30"), MINUTE, subject("Asia/Tokyo"), ())
    assert told.why == (
        "an attempt of 60 s could run into quiet hours 21:00 to 08:00; free from 08:00 on 2026-11-22 (Asia/Tokyo)"
    )
    told = rule.explain(
        utc("2026-11-21T10:00:00"), MINUTE, subject("Asia/Tokyo", "UTC", "Asia/Seoul", "Asia/Manila"), ()
    )
    assert told.permits
    assert told.why == "outside quiet hours 21:00 to 08:00 in Asia/Tokyo, UTC, Asia/Seoul and 1 more"
    weekend = QuietHours("weekend", clock("00:00"), clock("00:00"), days=frozenset({6, 5}))
    told = weekend.explain(utc("2026-11-21T10:00"), MINUTE, subject("Europe/Paris"), ())
    assert told.why == (
        "11:00 in Europe/Paris is within quiet hours 00:00 to 24:00 that begin on Sat and Sun; "
        "free from 00:00 on 2026-11-23 (Europe/Paris)"
    )


@st.composite
def around_a_change(draw: st.DrawFn) -> tuple[list[ZoneInfo], datetime, time, time]:
    """Zones, an instant near a change of the first one's clocks, and hours that start or end near it too."""
    name, change = draw(st.sampled_from(changes()))
    there = zone(name)
    others = [zone(other) for other, _ in draw(st.lists(st.sampled_from(changes()), max_size=2))]
    at = change + draw(st.integers(-30 * 60, 6 * 60)) * MINUTE
    readings = [(change + d * MINUTE).astimezone(there).time() for d in (-90, -60, -30, -1, 0, 1, 30, 60, 90)]
    anything = st.integers(0, 1439).map(lambda minute: time(minute // 60, minute % 60))
    start, end = (draw(st.one_of(st.sampled_from(readings), anything)) for _ in range(2))
    return [there, *others], at, start, end


@settings(max_examples=examples(250), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    around_a_change(),
    st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 6))),
    st.sampled_from([0, 1, 5, 30, 90]),
    st.integers(0, 59_999_999),
)
def test_the_answer_is_what_reading_the_clock_every_minute_finds(
    drawn: tuple[list[ZoneInfo], datetime, time, time], days: frozenset[int], span: int, within: int
) -> None:
    zones, at, start, end = drawn
    rule = QuietHours("x", start, end, days=days)
    who = Subject("sms", "news", None, tuple(zones), zones[0])
    found = rule.first(at, span * MINUTE, who, ())
    if start == end and not days:
        assert found is None
        return
    expected = first(at, span, [rule], who, (), 3 * 1440)
    if expected is None:
        assert found is None or found > at + 3 * 1440 * MINUTE - (span + 1) * MINUTE
    else:
        assert found == expected
    if found is not None:
        assert at <= found <= at + HORIZON
        assert rule.first(found, span * MINUTE, who, ()) == found
        # A minute that is free is free in all its instants, and one that is not is free in none but its last edge.
        later = at + timedelta(microseconds=within)
        answer = rule.first(later, span * MINUTE, who, ())
        assert answer is not None
        assert answer == later if answer < at + MINUTE else answer >= found
