"""Do caps and gaps hold, on rolling windows and on every zone's calendar, and refuse nothing that has a place?"""

from __future__ import annotations

import functools
import zoneinfo
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import HORIZON, Calendar, Contact, FrequencyCap, MinimumGap, Scope, Subject

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def subject(
    zone: str = "Europe/Berlin", channel: str = "sms", category: str = "news", campaign: str | None = None
) -> Subject:
    return Subject(channel, category, campaign, (ZoneInfo(zone),), ZoneInfo(zone))


def contact(
    begun: str | datetime,
    ended: str | datetime | None = None,
    zone: str = "Europe/Berlin",
    channel: str = "sms",
    category: str = "news",
    campaign: str | None = None,
    message: str = "m",
) -> Contact:
    first = utc(begun) if isinstance(begun, str) else begun
    last = first if ended is None else utc(ended) if isinstance(ended, str) else ended
    return Contact(first, last, channel, category, campaign, ZoneInfo(zone), message)


# --- rolling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "history", "at", "free"),
    [
        (1, [], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        # the place frees exactly a window after the end
        (1, [("2026-11-20T08:59:00", "2026-11-20T09:00:00")], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        (1, [("2026-11-20T08:59:00", "2026-11-20T09:00:00")], "2026-11-21T08:59:59", "2026-11-21T09:00:00"),
        # under way: its end lies ahead
        (1, [("2026-11-21T08:59:50", "2026-11-21T09:00:20")], "2026-11-21T09:00:00", "2026-11-22T09:00:20"),
        # the earliest of two frees first, and it is the end that counts
        (
            2,
            [("2026-11-21T01:00:00", "2026-11-21T03:00:00"), ("2026-11-21T02:00:00", "2026-11-21T02:00:01")],
            "2026-11-21T09:00:00",
            "2026-11-22T02:00:01",
        ),
        # over the limit, as after a limit was lowered: two must free
        (
            2,
            [("2026-11-21T01:00:00", None), ("2026-11-21T02:00:00", None), ("2026-11-21T03:00:00", None)],
            "2026-11-21T09:00:00",
            "2026-11-22T02:00:00",
        ),
        # a contact counts from its beginning: an earlier attempt that is over by then fits in before
        (1, [("2026-11-21T09:02:00", "2026-11-21T09:03:00")], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        (1, [("2026-11-21T09:01:00", "2026-11-21T09:03:00")], "2026-11-21T09:00:00", "2026-11-22T09:03:00"),
    ],
)
def test_a_rolling_cap(limit: int, history: list[tuple[str, str | None]], at: str, free: str) -> None:
    cap = FrequencyCap("daily", limit, DAY)
    contacts = [contact(begun, ended) for begun, ended in history]
    assert cap.first(utc(at), MINUTE, subject(), contacts) == utc(free)
    assert cap.first(utc(at), MINUTE, subject(), contacts[::-1]) == utc(free)


def test_a_window_longer_than_the_horizon_may_be_never() -> None:
    cap = FrequencyCap("once", 1, HORIZON + DAY)
    assert cap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-21")]) is None
    assert cap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-20")]) == utc("2026-11-21") + HORIZON
    gap = MinimumGap("once", HORIZON + DAY)
    assert gap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-21")]) is None
    assert gap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-20")]) == utc("2026-11-21") + HORIZON


OTHERS = [
    contact("2026-11-21T08:00:00", channel="push", campaign="a"),
    contact("2026-11-21T08:01:00", category="codes", campaign="a"),
    contact("2026-11-21T08:02:00", campaign="b"),
    contact("2026-11-21T08:03:00", campaign=None),
]


@pytest.mark.parametrize(
    ("scope", "narrowed", "campaign", "counted"),
    [
        (set(), {}, "a", {0, 1, 2, 3}),
        ({Scope.CHANNEL}, {}, "a", {1, 2, 3}),
        ({Scope.CATEGORY}, {}, "a", {0, 2, 3}),
        ({Scope.CAMPAIGN}, {}, "a", {0, 1}),
        ({Scope.CAMPAIGN}, {}, "c", set()),
        ({Scope.CAMPAIGN}, {}, None, {3}),
        ({Scope.CAMPAIGN, Scope.CHANNEL}, {}, "a", {1}),
        (set(), {"channels": frozenset({"sms"})}, "a", {1, 2, 3}),
        (set(), {"channels": frozenset({"sms", "push"})}, "a", {0, 1, 2, 3}),
        (set(), {"channels": frozenset({"sms"}), "categories": frozenset({"news"})}, "a", {2, 3}),
        ({Scope.CHANNEL}, {"channels": frozenset({"sms", "push"})}, "a", {1, 2, 3}),
        ({Scope.CATEGORY}, {"categories": frozenset({"news", "codes"})}, "a", {0, 2, 3}),
    ],
)
def test_what_counts(
    scope: set[Scope], narrowed: dict[str, frozenset[str]], campaign: str | None, counted: set[int]
) -> None:
    asked, at = subject(campaign=campaign), utc("2026-11-21T09:00:00")
    for n, other in enumerate(OTHERS):
        for rule in (
            FrequencyCap("x", 1, DAY, frozenset(scope), **narrowed),
            FrequencyCap("x", 1, Calendar.DAY, frozenset(scope), **narrowed),
            MinimumGap("x", DAY, frozenset(scope), **narrowed),
        ):
            assert rule.applies(asked)
            assert (rule.first(at, MINUTE, asked, [other]) != at) == (n in counted)


def test_caps_and_gaps_apply_to_the_channels_and_categories_named() -> None:
    named = {"channels": frozenset({"sms"}), "categories": frozenset({"news"})}
    for rule in (FrequencyCap("x", 1, DAY, **named), MinimumGap("x", DAY, **named)):
        assert rule.applies(subject())
        assert not rule.applies(subject(channel="push"))
        assert not rule.applies(subject(category="codes"))


def test_faulty_rules_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="limit"):
        FrequencyCap("x", 0, DAY)
    with pytest.raises(ValueError, match="length"):
        FrequencyCap("x", 1, timedelta(0))
    with pytest.raises(ValueError, match="week"):
        FrequencyCap("x", 1, Calendar.WEEK, week_start=7)
    with pytest.raises(ValueError, match="length"):
        MinimumGap("x", timedelta(0))


# --- gap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "free"),
    [
        ("2026-11-21T10:59:59", "2026-11-21T11:00:00"),
        ("2026-11-21T11:00:00", "2026-11-21T11:00:00"),
        ("2026-11-21T08:59:30", "2026-11-21T11:00:00"),  # the last one is still under way
    ],
)
def test_a_gap_runs_from_the_end_of_the_last_contact(at: str, free: str) -> None:
    history = [contact("2026-11-21T08:59:00", "2026-11-21T09:00:00"), contact("2026-11-21T08:00:00")]
    assert MinimumGap("gap", 2 * HOUR).first(utc(at), MINUTE, subject(), history) == utc(free)


# --- calendar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "per", "contacts", "at", "free"),
    [
        ("Asia/Tokyo", "day", ["2026-11-20T16:00"], "2026-11-21T14:00", "2026-11-21T15:00"),
        ("Asia/Tokyo", "day", ["2026-11-20T14:59"], "2026-11-20T15:00", "2026-11-20T15:00"),
        # the span would reach into a day that is taken: after that one
        ("Asia/Tokyo", "day", ["2026-11-20T16:00"], "2026-11-20T14:59:30", "2026-11-21T15:00"),
        # weeks and months, over a year's end and in a leap year
        ("UTC", "week", ["2026-12-28T10:00"], "2027-01-03T10:00", "2027-01-04T00:00"),
        ("UTC", "week", ["2026-12-27T10:00"], "2027-01-03T10:00", "2027-01-03T10:00"),
        ("UTC", "month", ["2026-12-31T23:59"], "2026-12-31T23:59", "2027-01-01T00:00"),
        ("UTC", "month", ["2024-02-01T00:00"], "2024-02-29T12:00", "2024-03-01T00:00"),
        ("UTC", "day", ["2024-02-29T12:00"], "2024-02-29T12:00", "2024-03-01T00:00"),
        # midnight does not exist: the day begins at 01:00
        ("Asia/Beirut", "day", ["2026-03-28T12:00"], "2026-03-28T13:00", "2026-03-28T22:00"),
        ("America/Sao_Paulo", "day", ["2017-10-14T12:00"], "2017-10-14T13:00", "2017-10-15T03:00"),
        # 30 December 2011 did not exist
        ("Pacific/Apia", "day", ["2011-12-29T12:00"], "2011-12-29T13:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "day", ["2011-12-29T12:00", "2011-12-30T11:00"], "2011-12-29T13:00", "2011-12-31T10:00"),
        # clocks went back over midnight at 00:01: a minute of the 7th, an hour of the 6th again
        ("America/St_Johns", "day", ["2010-11-06T12:00"], "2010-11-06T20:00", "2010-11-07T03:30"),
        ("America/St_Johns", "day", ["2010-11-07T12:00"], "2010-11-07T02:30:30", "2010-11-07T02:31"),
    ],
)
def test_a_calendar_cap(zone: str, per: str, contacts: list[str], at: str, free: str) -> None:
    cap = FrequencyCap("x", 1, Calendar(per))
    history = [contact(begun, zone=zone) for begun in contacts]
    assert cap.first(utc(at), MINUTE, subject(zone), history) == utc(free)


def test_the_first_minute_of_a_day_that_is_then_taken_back_has_a_place_for_what_fits() -> None:
    cap, history = FrequencyCap("x", 1, Calendar.DAY), [contact("2010-11-06T12:00", zone="America/St_Johns")]
    found = cap.first(utc("2010-11-06T20:00"), timedelta(seconds=59), subject("America/St_Johns"), history)
    assert found == utc("2010-11-07T02:30")


def test_a_contact_counts_on_every_day_that_it_touches_in_its_own_zone() -> None:
    over_midnight = contact("2026-11-20T14:59:30", "2026-11-20T15:00:00", zone="Asia/Tokyo")
    cap = FrequencyCap("x", 1, Calendar.DAY)
    assert cap.first(utc("2026-11-20T01:00"), MINUTE, subject("Asia/Tokyo"), [over_midnight]) == utc("2026-11-21T15:00")
    # made on the 21st in Tokyo, it holds the place of the 21st in New York
    assert cap.first(
        utc("2026-11-20T20:00"), MINUTE, subject("America/New_York"), [contact("2026-11-20T16:00", zone="Asia/Tokyo")]
    ) == utc("2026-11-20T20:00")
    assert cap.first(
        utc("2026-11-21T20:00"), MINUTE, subject("America/New_York"), [contact("2026-11-20T16:00", zone="Asia/Tokyo")]
    ) == utc("2026-11-22T05:00")


def test_a_day_that_begins_and_is_taken_back_in_between_is_touched() -> None:
    zone = "America/St_Johns"  # from 23:59 on the 6th over a minute of the 7th back to the 6th, 23:15
    both = contact("2010-11-07T02:29", "2010-11-07T02:45", zone=zone)
    cap = FrequencyCap("x", 1, Calendar.DAY)
    assert cap.first(utc("2010-11-07T12:00"), MINUTE, subject(zone), [both]) == utc("2010-11-08T03:30")
    seventh = contact("2010-11-07T12:00", zone=zone)
    assert cap.first(utc("2010-11-07T02:29"), 16 * MINUTE, subject(zone), [seventh]) == utc("2010-11-07T02:31")


def test_a_week_starts_when_it_is_set_to() -> None:
    history = [contact("2026-11-21T12:00", zone="UTC")]  # a Saturday
    for start, free in ((0, "2026-11-23"), (6, "2026-11-22"), (5, "2026-11-28")):
        cap = FrequencyCap("x", 1, Calendar.WEEK, week_start=start)
        assert cap.first(utc("2026-11-21T13:00"), MINUTE, subject("UTC"), history) == utc(free)


# --- explanations --------------------------------------------------------------------------------


def test_explanations_give_the_numbers() -> None:
    history = [contact("2026-11-21T10:00", message="b"), contact("2026-11-21T09:00", message="a")]
    told = FrequencyCap("daily", 2, DAY).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history)
    assert (told.rule, told.permits, told.next, told.held_by) == ("daily", False, utc("2026-11-22T09:00"), ("a", "b"))
    assert told.why == ("2 of 2 contacts in 24 h; the place of 2026-11-21T09:00:00Z frees at 2026-11-22T09:00:00Z")
    told = FrequencyCap("daily", 3, 7 * DAY).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history)
    assert (told.permits, told.next, told.why) == (True, utc("2026-11-21T11:00"), "2 of 3 contacts in 7 d")
    told = FrequencyCap("week", 2, Calendar.WEEK).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history)
    assert told.why == (
        "2 of 2 contacts in the week of 2026-11-16 (Europe/Berlin); "
        "the next week with a place starts at 2026-11-22T23:00:00Z"
    )
    told = MinimumGap("gap", 90 * MINUTE).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history)
    assert told.held_by == ("b",)
    assert told.why == (
        "90 min must pass after the end of the last contact, 2026-11-21T10:00:00Z; over at 2026-11-21T11:30:00Z"
    )
    assert MinimumGap("gap", HOUR).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history).permits
    assert MinimumGap("gap", HOUR).explain(utc("2026-11-21T11:00"), MINUTE, subject(), []).why == "no contact so far"
    never = FrequencyCap("once", 1, HORIZON + DAY).explain(utc("2026-11-21T11:00"), MINUTE, subject(), history)
    assert never.why.endswith("no place within 400 days")


# --- against brute force -------------------------------------------------------------------------


def rolling_places_held(contacts: list[Contact], instant: datetime, per: timedelta) -> int:
    return sum(1 for c in contacts if not (instant < c.begun or instant - c.ended >= per))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from([10, 45, 180]),
    st.lists(st.tuples(st.integers(-200, 60), st.integers(0, 40)), max_size=12),
    st.sampled_from([0, 3, 10]),
)
def test_a_rolling_cap_against_counting_every_minute(
    limit: int, per: int, intervals: list[tuple[int, int]], span: int
) -> None:
    now = utc("2026-11-21T09:00")
    contacts = [contact(now + b * MINUTE, now + (b + n) * MINUTE) for b, n in intervals]
    free = [rolling_places_held(contacts, now + n * MINUTE, per * MINUTE) < limit for n in range(500)]
    expected = next(n for n in range(400) if all(free[n : n + span + 1]))
    found = FrequencyCap("x", limit, per * MINUTE).first(now, span * MINUTE, subject(), contacts)
    assert found == now + expected * MINUTE


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([30, 60, 24 * 60]),
    st.lists(st.integers(1, 90), min_size=60, max_size=60),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=60, max_size=60),
)
def test_greedy_sending_never_fills_a_window_beyond_the_limit_and_wastes_no_place(
    limit: int, per: int, pauses: list[int], settled_after: list[tuple[int, bool]]
) -> None:
    window, span = per * MINUTE, 3 * MINUTE
    cap = FrequencyCap("x", limit, window)
    now, sent = utc("2026-03-28T09:00"), list[tuple[datetime, datetime]]()
    promised = None
    for pause, (minutes, known) in zip(pauses, settled_after, strict=True):
        now += pause * MINUTE
        ledger = [contact(b, e) for b, e in sent]
        answer = cap.first(now, span, subject(), ledger)
        assert answer is not None
        if promised is not None and now >= promised:
            assert answer == now  # what was promised is kept while nothing else is sent
        if answer == now:
            sent.append((now, now + (minutes * MINUTE if known else span)))
            promised = None
        else:
            # refused: the last `limit` contacts all ended less than a window ago
            assert all(now - ended < window for _, ended in sorted(sent, key=lambda s: s[1])[-limit:])
            assert len(sent) >= limit
            promised = answer
    # A window that holds too many holds limit + 1 neighbours: compare each with the one so many places on.
    for n in range(len(sent) - limit):
        first_end = sorted(ended for _, ended in sent[: n + limit])[n]
        assert sent[n + limit][0] - first_end >= window
    for minute in range(0, 60 * 90, 7):
        inside = utc("2026-03-28T09:00") + minute * MINUTE
        assert sum(1 for b, e in sent if e > inside and b < inside + window) <= limit


@functools.cache
def changes() -> list[tuple[str, datetime]]:
    """Every change of an offset from 2008 to 2028 in every zone, to the minute."""
    found = []
    days = [datetime(2008, 1, 1, tzinfo=UTC) + n * 4 * DAY for n in range(1826)]
    for name in sorted(zoneinfo.available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        offsets = [instant.astimezone(zone).utcoffset() for instant in days]
        for n in range(len(days) - 1):
            if offsets[n] != offsets[n + 1]:
                minutes = range(4 * 1440 + 1)
                low, high = 0, minutes[-1]
                while high - low > 1:
                    middle = (low + high) // 2
                    same = (days[n] + middle * MINUTE).astimezone(zone).utcoffset() == offsets[n]
                    low, high = (middle, high) if same else (low, middle)
                found.append((name, days[n] + high * MINUTE))
    return found


def labels(zone: ZoneInfo, begun: datetime, minutes: int, unit: str, week_start: int) -> set[tuple[int, ...]]:
    """The windows read off the clock at every minute."""
    found = set[tuple[int, ...]]()
    for n in range(minutes + 1):
        day: date = (begun + n * MINUTE).astimezone(zone).date()
        if unit == "day":
            found.add((day.year, day.month, day.day))
        elif unit == "month":
            found.add((day.year, day.month))
        else:
            found.add((day - timedelta(days=week_start)).isocalendar()[:2])
    return found


@st.composite
def around_a_date(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone, and an instant near a change of its clocks, a leap day or a year's end."""
    zone, change = draw(st.sampled_from(changes()))
    dates = [change, utc("2024-02-29T00:00"), utc("2024-03-01T00:00"), utc("2026-01-01T00:00"), utc("2011-12-30T00:00")]
    zone = draw(st.sampled_from([zone, zone, zone, "Pacific/Apia", "America/St_Johns", "Asia/Beirut"]))
    return zone, draw(st.sampled_from(dates)) + draw(st.integers(-2880, 2880)) * MINUTE


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    around_a_date(),
    st.sampled_from(["day", "day", "week", "month"]),
    st.integers(0, 6),
    st.integers(1, 3),
    st.lists(
        st.tuples(st.integers(-3000, 1600), st.sampled_from([0, 1, 20, 70]), st.integers(0, 9)), min_size=1, max_size=9
    ),
    st.sampled_from([0, 1, 30, 90]),
)
def test_a_calendar_cap_against_reading_the_clock_every_minute(
    drawn: tuple[str, datetime],
    unit: str,
    week_start: int,
    limit: int,
    intervals: list[tuple[int, int, int]],
    span: int,
) -> None:
    name, at = drawn
    zone, elsewhere = ZoneInfo(name), ZoneInfo("Pacific/Kiritimati")
    contacts, held = [], Counter[tuple[int, ...]]()
    for begun, minutes, moved in intervals:
        own, start = zone if moved else elsewhere, at + begun * MINUTE
        contacts.append(contact(start, start + minutes * MINUTE, zone=own.key))
        held.update(labels(own, start, minutes, unit, week_start))
    cap = FrequencyCap("x", limit, Calendar(unit), week_start=week_start)
    found = cap.first(at, span * MINUTE, subject(name), contacts)

    assert found is not None
    run, expected = 0, None
    for n in range(3 * 1440):
        (label,) = labels(zone, at + n * MINUTE, 0, unit, week_start)
        run = 0 if held[label] >= limit else run + 1
        if run > span:
            expected = at + (n - span) * MINUTE
            break
    if expected is None:
        assert found >= at + (3 * 1440 - span) * MINUTE
        assert all(held[label] < limit for label in labels(zone, found, span, unit, week_start))
        assert any(held[label] >= limit for label in labels(zone, found - MINUTE, span, unit, week_start))
    else:
        assert found == expected
    assert cap.first(found, span * MINUTE, subject(name), contacts) == found
