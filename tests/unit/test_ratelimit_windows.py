"""Is a contact made within the send window alone, by the clock of the likeliest zone, around every change of clocks?"""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import HORIZON, QuietHours, Ruling, SendWindow, Subject, earliest, zone
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, MINUTE, changes, first, utc

SMS = SendWindow("sms", ((time(11), time(12)), (time(19), time(21))))


def subject(*zones: str, person: str = "hana", priority: int = 0, expires_at: datetime | None = None) -> Subject:
    there = tuple(map(zone, zones))
    return Subject("sms", "news", None, there, there[0], person, priority, expires_at)


def window(*hours: str, days: str = "", release_over: timedelta = timedelta(0)) -> SendWindow:
    parts = (one.split("-") for one in hours)
    pairs = tuple((time.fromisoformat(start), time.fromisoformat(end)) for start, end in parts)
    return SendWindow("window", pairs, frozenset(map(int, days)), release_over)


@pytest.mark.parametrize(
    ("where", "hours", "days", "at", "span", "free"),
    [
        # 11:00 in Tokyo is 02:00 UTC
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T01:59:59", 0, "2026-11-21T02:00"),
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T02:30", 60, "2026-11-21T02:30"),
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T03:00", 0, "2026-11-21T10:00"),
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T12:00", 0, "2026-11-22T02:00"),
        # the span must be over before the window closes; it is closed at the very instant of its end
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T02:59:29", 30, "2026-11-21T02:59:29"),
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T02:59:30", 30, "2026-11-21T10:00"),
        # an hour is too short for an hour's span, two are not
        ("Asia/Tokyo", "11:00-12:00 19:00-21:00", "", "2026-11-21T02:00", 3600, "2026-11-21T10:00"),
        # across midnight, and the night belongs to the evening's weekday: 21 November 2026 is a Saturday
        ("UTC", "22:00-02:00", "", "2026-11-21T12:00", 0, "2026-11-21T22:00"),
        ("UTC", "22:00-02:00", "", "2026-11-22T01:59", 0, "2026-11-22T01:59"),
        ("UTC", "22:00-02:00", "5", "2026-11-22T01:59", 0, "2026-11-22T01:59"),
        ("UTC", "22:00-02:00", "6", "2026-11-22T01:59", 0, "2026-11-22T22:00"),
        ("UTC", "22:00-02:00", "5", "2026-11-22T02:00", 0, "2026-11-28T22:00"),
        ("UTC", "09:00-18:00", "01234", "2026-11-20T18:00", 0, "2026-11-23T09:00"),
        # whole days
        ("UTC", "00:00-00:00", "6", "2026-11-21T23:59", 0, "2026-11-22T00:00"),
        ("UTC", "00:00-00:00", "6", "2026-11-22T23:59:30", 30, "2026-11-29T00:00"),
        ("UTC", "00:00-00:00", "56", "2026-11-21T23:59:30", 60, "2026-11-21T23:59:30"),
        # windows that touch or overlap are one
        ("UTC", "11:00-12:00 12:00-13:00", "", "2026-11-21T11:59:30", 60, "2026-11-21T11:59:30"),
        ("UTC", "12:00-13:00 11:00-12:30", "", "2026-11-21T11:00", 7000, "2026-11-21T11:00"),
        # skipped on the night that clocks go forward; two hours long on the one they go back
        ("Europe/Berlin", "02:00-03:00", "", "2026-03-28T12:00", 0, "2026-03-30T00:00"),
        ("Europe/Berlin", "02:00-03:00", "", "2026-10-24T12:00", 7199, "2026-10-25T00:00"),
        ("Europe/Berlin", "02:30-02:45", "", "2026-10-25T00:45", 0, "2026-10-25T01:30"),
        ("Europe/Berlin", "01:30-03:30", "", "2026-03-28T12:00", 3599, "2026-03-29T00:30"),
        ("Europe/Berlin", "01:30-03:30", "", "2026-03-28T12:00", 3600, "2026-03-29T23:30"),
        # the Friday that Samoa skipped had no window
        ("Pacific/Apia", "09:00-17:00", "4", "2011-12-27T12:00", 0, "2012-01-05T19:00"),
    ],
)
def test_an_attempt_lies_within_a_window_as_a_whole(
    where: str, hours: str, days: str, at: str, span: float, free: str
) -> None:
    rule = window(*hours.split(), days=days)
    assert rule.first(utc(at), timedelta(seconds=span), subject(where), ()) == utc(free)


def test_only_the_likeliest_zone_decides() -> None:
    at = utc("2026-11-21T02:30")
    assert SMS.first(at, MINUTE, subject("Asia/Tokyo", "America/New_York"), ()) == at
    assert SMS.first(at, MINUTE, subject("America/New_York", "Asia/Tokyo"), ()) == utc("2026-11-21T16:00")


def test_a_window_that_is_always_too_short_is_never() -> None:
    at = utc("2026-11-21T02:30")
    assert window("11:00-11:10").first(at, 10 * MINUTE, subject("UTC"), ()) is None
    assert window("11:00-11:10").first(at, 9 * MINUTE, subject("UTC"), ()) == utc("2026-11-21T11:00")
    assert window("00:00-00:00").first(at, 500 * timedelta(days=1), subject("UTC"), ()) == at
    quiet = QuietHours("quiet", time(9), time(13))
    assert earliest(at, MINUTE, [window("11:00-12:00"), quiet], subject("UTC"), ()).at is None


def test_what_only_a_change_of_clocks_permits_is_found_months_ahead() -> None:
    found = window("02:00-03:00").first(utc("2026-01-01"), 90 * MINUTE, subject("Europe/Berlin"), ())
    assert found == utc("2026-10-25T00:00")


def test_it_closes_at_its_end() -> None:
    who = subject("Asia/Tokyo")
    assert SMS.shuts(utc("2026-11-21T02:30"), who) == utc("2026-11-21T03:00")
    assert SMS.shuts(utc("2026-11-21T10:00"), who) == utc("2026-11-21T12:00")
    assert window("11:00-12:00", "12:00-13:00").shuts(utc("2026-11-21T11:30"), subject("UTC")) == utc(
        "2026-11-21T13:00"
    )
    assert window("00:00-00:00", days="0").shuts(utc("2026-11-23T00:00"), subject("UTC")) == utc("2026-11-24T00:00")
    assert window("00:00-00:00").shuts(utc("2026-11-23T00:00"), subject("UTC")) is None
    assert window("00:00-00:00", days="012345").shuts(utc("2026-11-23T00:00"), subject("UTC")) == utc("2026-11-29")
    # 02:00 to 03:00 is read twice
    assert window("02:00-03:00").shuts(utc("2026-10-25T00:10"), subject("Europe/Berlin")) == utc("2026-10-25T02:00")


def test_faulty_windows_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="hours"):
        SendWindow("x", ())
    with pytest.raises(ValueError, match="zone"):
        SendWindow("x", ((time(9), time(10, tzinfo=zone("UTC"))),))
    with pytest.raises(ValueError, match="weekdays"):
        window("09:00-10:00", days="7")
    with pytest.raises(ValueError, match="shorter than each"):
        window("09:00-10:00", "11:00-11:30", release_over=30 * MINUTE)
    with pytest.raises(ValueError, match="less than nothing"):
        window("09:00-10:00", release_over=-MINUTE)


def test_explanations_say_when_it_opens() -> None:
    who = subject("Asia/Tokyo")
    told = SMS.explain(utc("2026-11-21T02:15"), MINUTE, who, ())
    assert told == Ruling(
        "sms",
        permits=True,
        next=utc("2026-11-21T02:15"),
        why="11:15 in Asia/Tokyo is within the send window 11:00 to 12:00 and 19:00 to 21:00",
    )
    told = SMS.explain(utc("2026-11-21T04:15"), MINUTE, who, ())
    assert (told.permits, told.next) == (False, utc("2026-11-21T10:00"))
    assert told.why == (
        "13:15 in Asia/Tokyo is outside the send window 11:00 to 12:00 and 19:00 to 21:00; "
        "it opens at 19:00 on 2026-11-21 (Asia/Tokyo)"
    )
    told = SMS.explain(utc("2026-11-21T02:59:30"), MINUTE, who, ())
    assert told.why == (
        "an attempt of 60 s could outlast the send window 11:00 to 12:00 and 19:00 to 21:00; "
        "it opens at 19:00 on 2026-11-21 (Asia/Tokyo)"
    )
    told = window("09:00-10:00", days="05").explain(utc("2026-11-21T02:59:30"), 60 * MINUTE, who, ())
    assert told.next is None
    assert told.why == (
        "11:59 in Asia/Tokyo is outside the send window 09:00 to 10:00 on Mon and Sat; "
        "it never opens for as long within 400 days"
    )
    # Only the likeliest zone opens it: 11:00 in New York is sooner.
    told = SMS.explain(utc("2026-11-21T12:00"), MINUTE, subject("Asia/Tokyo", "America/New_York"), ())
    assert told.why.endswith("it opens at 11:00 on 2026-11-22 (Asia/Tokyo)")
    assert told.next == utc("2026-11-22T02:00")


def test_a_turn_that_comes_beyond_the_horizon_is_never_and_explained() -> None:
    """North Korea's clocks went back by half an hour at midnight, on 15 August 2015: 23:30 to 24:00 was read twice."""
    once, over = utc("2015-08-14T14:30"), 20 * MINUTE
    who = subject("Asia/Pyongyang", person="someone", priority=3)
    for rule in (
        window("23:30-00:00", release_over=over),
        QuietHours("quiet", time(0), time(23, 30), release_over=over),
    ):
        turn = rule.first(once - DAY, 31 * MINUTE, who, ())
        assert turn is not None
        assert once < turn < once + over
        assert rule.explain(turn - HORIZON, 31 * MINUTE, who, ()).next == turn
        told = rule.explain(once - HORIZON, 31 * MINUTE, who, ())  # opens in time
        assert (told.permits, told.next) == (False, None)
        assert told.why.endswith("for as long within 400 days")


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([0, 1, 20, 60]))
def test_the_answer_is_what_reading_the_clock_every_minute_finds(data: st.DataObject, span: int) -> None:
    name, change = data.draw(st.sampled_from(changes()))
    there, at = zone(name), change + data.draw(st.integers(-1800, 360)) * MINUTE
    readings = [(change + n * MINUTE).astimezone(there).time() for n in (-90, -60, -30, -1, 0, 1, 30, 60, 90)]
    wall = st.one_of(
        st.sampled_from(readings), st.integers(0, 1439).map(lambda minute: time(minute // 60, minute % 60))
    )
    rule = SendWindow(
        "x",
        tuple(data.draw(st.lists(st.tuples(wall, wall), min_size=1, max_size=3))),
        data.draw(st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 6)))),
        data.draw(st.sampled_from([timedelta(0), timedelta(seconds=55)])),
    )
    who = subject(name, "UTC", person=data.draw(st.text(max_size=5)), priority=data.draw(st.integers(0, 3)))
    found = rule.first(at, span * MINUTE, who, ())
    expected = first(at, span, [rule], who, (), 3 * 1440)
    if expected is None:
        assert found is None or found > at + (3 * 1440 - span - 1) * MINUTE
    else:
        assert found == expected
    if found is not None:
        assert at <= found <= at + HORIZON
        assert rule.first(found, span * MINUTE, who, ()) == found
