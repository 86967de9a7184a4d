"""Is quiet exactly what the wall clocks read, around every change of clocks there is?"""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import struct
import zoneinfo
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import HORIZON, QuietHours, Subject, earliest
from ratelimit.clocks import STRIDE

MINUTE = timedelta(minutes=1)
TOKYO = ZoneInfo("Asia/Tokyo")


def subject(*zones: str, channel: str = "sms", category: str = "news") -> Subject:
    return Subject(channel, category, None, tuple(ZoneInfo(zone) for zone in zones), TOKYO)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def clock(text: str) -> time:
    return time.fromisoformat(text)


def reads_quiet(instant: datetime, zone: ZoneInfo, start: time, end: time) -> bool:
    wall = instant.astimezone(zone).replace(tzinfo=None).time()
    return start <= wall < end if start < end else not end <= wall < start


def first_free_minute(
    at: datetime, span: int, zones: list[ZoneInfo], start: time, end: time, minutes: int
) -> datetime | None:
    """Read every clock at every minute. Exact for whole minutes, since all changes of clocks lie on such."""
    run = 0
    for n in range(minutes):
        instant = at + n * MINUTE
        run = 0 if any(reads_quiet(instant, zone, start, end) for zone in zones) else run + 1
        if run > span:
            return instant - span * MINUTE
    return None


@functools.cache
def changes(since: int = 2005, until: int = 2030) -> list[tuple[str, datetime]]:
    """Every change of an offset in every zone."""
    found = []
    instants = [datetime(since, 1, 1, tzinfo=UTC) + n * timedelta(days=3) for n in range((until - since) * 122)]
    for name in sorted(zoneinfo.available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        offsets = [instant.astimezone(zone).utcoffset() for instant in instants]
        for n in range(len(instants) - 1):
            if offsets[n] != offsets[n + 1]:
                low, high = 0, 3 * 24 * 3600
                while high - low > 1:
                    middle = (low + high) // 2
                    same = (instants[n] + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offsets[n]
                    low, high = (middle, high) if same else (low, middle)
                found.append((name, instants[n] + timedelta(seconds=high)))
    return found


@pytest.mark.parametrize(
    ("zone", "hours", "at", "span", "free"),
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
def test_the_end_of_quiet_hours(zone: str, hours: str, at: str, span: float, free: str) -> None:
    rule = QuietHours("night", *map(clock, hours.split()))
    assert rule.first(utc(at), timedelta(seconds=span), subject(zone), ()) == utc(free)


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
    rule = QuietHours("x", clock("21:00"), clock("08:00"), frozenset({"sms"}), frozenset({"news"}))
    assert rule.applies(subject("UTC"))
    assert not rule.applies(subject("UTC", channel="push"))
    assert not rule.applies(subject("UTC", category="codes"))


def test_explanations_name_the_zone_and_the_end() -> None:
    rule = QuietHours("night", clock("21:00"), clock("08:00"))
    told = rule.explain(utc("2026-11-21T12:30:00"), MINUTE, subject("UTC", "Asia/Tokyo"), ())
    assert (told.permits, told.next) == (False, utc("2026-11-22T08:00:00"))
    assert told.why == "21:30 in Asia/Tokyo is within quiet hours 21:00 to 08:00; free from 2026-11-22T08:00:00Z"
    told = rule.explain(utc("2026-11-21T11:59:30"), MINUTE, subject("Asia/Tokyo"), ())
    assert told.why == "an attempt of 60 s could run into quiet hours 21:00 to 08:00; free from 2026-11-21T23:00:00Z"
    told = rule.explain(
        utc("2026-11-21T10:00:00"), MINUTE, subject("Asia/Tokyo", "UTC", "Asia/Seoul", "Asia/Manila"), ()
    )
    assert told.permits
    assert told.why == "outside quiet hours 21:00 to 08:00 in Asia/Tokyo, UTC, Asia/Seoul and 1 more"


def changes_on_file(name: str) -> list[int]:
    """The instants, in Unix seconds, at which an offset changes according to a file of RFC 9636."""
    raw = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    isut, isstd, leaps, times, types, chars = struct.unpack(">6l", raw[20:44])
    second = 44 + times * 5 + types * 6 + chars + leaps * 8 + isstd + isut  # the part with 64 bits
    _, _, _, times, types, _ = struct.unpack(">6l", raw[second + 20 : second + 44])
    at = second + 44
    instants = struct.unpack(f">{times}q", raw[at : at + 8 * times])
    indices = raw[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", raw[at + 6 * n : at + 6 * n + 4])[0] for n in range(types)]
    readings = [offsets[0], *(offsets[n] for n in indices)]
    return [instant for n, instant in enumerate(instants) if readings[n] != readings[n + 1]]


def test_no_zone_changes_its_clocks_twice_within_a_stride() -> None:
    names = importlib.resources.files("tzdata").joinpath("zones").read_text().split()
    assert len(names) > 400
    for name in names:
        for earlier, later in itertools.pairwise(changes_on_file(name)):
            assert later - earlier > STRIDE.total_seconds(), name


@pytest.mark.parametrize("hours", ["21:00 08:00", "22:00 02:30", "23:30 00:00", "01:00 01:45"])
def test_around_the_latest_changes_of_every_zone(hours: str) -> None:
    start, end = map(clock, hours.split())
    rule = QuietHours("x", start, end)
    latest = {(name, n): instant for name, instant in changes() if instant.year < 2028 for n in (instant.month % 2,)}
    for (name, _), change in latest.items():
        who = subject(name)
        for before, span in ((130, 0), (40, 20), (5, 45)):
            at = change - before * MINUTE
            expected = first_free_minute(at, span, [ZoneInfo(name)], start, end, 900)
            assert rule.first(at, span * MINUTE, who, ()) == expected, (name, at)


@st.composite
def around_a_change(draw: st.DrawFn) -> tuple[list[ZoneInfo], datetime, time, time]:
    """Zones, an instant near a change of the first one's clocks, and hours that start or end near it too."""
    name, change = draw(st.sampled_from(changes()))
    zone = ZoneInfo(name)
    others = [ZoneInfo(other) for other, _ in draw(st.lists(st.sampled_from(changes()), max_size=2))]
    at = change + draw(st.integers(-30 * 60, 6 * 60)) * MINUTE
    readings = [(change + timedelta(minutes=d)).astimezone(zone).time() for d in (-90, -60, -30, -1, 0, 1, 30, 60, 90)]
    anything = st.integers(0, 1439).map(lambda minute: time(minute // 60, minute % 60))
    start, end = (draw(st.one_of(st.sampled_from(readings), anything)) for _ in range(2))
    return [zone, *others], at, start, end


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(around_a_change(), st.sampled_from([0, 1, 5, 30, 90]), st.integers(0, 59_999_999))
def test_the_answer_is_what_reading_the_clock_every_minute_finds(
    drawn: tuple[list[ZoneInfo], datetime, time, time], span: int, within: int
) -> None:
    zones, at, start, end = drawn
    rule = QuietHours("x", start, end)
    who = Subject("sms", "news", None, tuple(zones), zones[0])
    found = rule.first(at, span * MINUTE, who, ())
    if start == end:
        assert found is None
        return
    expected = first_free_minute(at, span, zones, start, end, 3 * 1440)
    if expected is None:
        assert found is None or found > at + 3 * 1440 * MINUTE - (span + 1) * MINUTE
    else:
        assert found == expected
    if found is not None:
        assert at <= found <= at + HORIZON
        assert rule.first(found, span * MINUTE, who, ()) == found
        assert earliest(at, span * MINUTE, [rule], who, ()).at == found
        # A minute that is free is free in all its instants, and one that is not is free in none but its last edge.
        later = at + timedelta(microseconds=within)
        answer = rule.first(later, span * MINUTE, who, ())
        assert answer is not None
        assert answer == later if answer < at + MINUTE else answer >= found
        assert not any(
            reads_quiet(instant, zone, start, end) for zone in zones for instant in (answer, answer + span * MINUTE)
        )
