"""What the definitions of the rules say of each minute, read off the clocks. Shares no code with the rules.

Exact where all that is drawn lies on whole minutes, since all changes of clocks from 1973 on do.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import holidays

import ratelimit
from ratelimit import Calendar, Contact, FrequencyCap, Holidays, MinimumGap, QuietHours, Scope, SendWindow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, time
    from zoneinfo import ZoneInfo

    from ratelimit import Only, Rule, Subject

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
_WEEK = 7 * 1440
_BEFORE = 200
"""Minutes before the first one asked about that are read too: whoever was held then may yet be. Longer than any release
that is drawn."""


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@functools.cache
def names() -> tuple[str, ...]:
    """Every zone of the tz database."""
    return tuple(sorted(importlib.resources.files("tzdata").joinpath("zones").read_text().split()))


@functools.cache
def changes(since: int = 2005, until: int = 2030) -> tuple[tuple[str, datetime], ...]:
    """Every change of an offset in every zone."""
    found = []
    instants = [datetime(since, 1, 1, tzinfo=UTC) + n * 4 * DAY for n in range((until - since) * 92)]
    for name in names():
        zone = ratelimit.zone(name)
        offsets = [instant.astimezone(zone).utcoffset() for instant in instants]
        for n in range(len(instants) - 1):
            if offsets[n] != offsets[n + 1]:
                low, high = 0, 4 * 24 * 3600
                while high - low > 1:
                    middle = (low + high) // 2
                    same = (instants[n] + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offsets[n]
                    low, high = (middle, high) if same else (low, middle)
                found.append((name, instants[n] + timedelta(seconds=high)))
    return tuple(found)


def share(of: str) -> float:
    """Where in ``[0, 1)`` a text falls."""
    return int(hashlib.blake2b(of.encode(), digest_size=6).hexdigest(), 16) / 16**12


def first(
    at: datetime, span: int, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact], minutes: int
) -> datetime | None:
    """The first instant that the definitions of all rules permit for ``span`` minutes; None: not within so many."""
    held = [
        interval
        for rule in rules
        if covers(rule.only, subject) and share(f"{rule.name}\x1f{subject.person}") * 100 < rule.enforce
        for interval in held_back(rule, at, span, subject, history, minutes)
    ]
    for candidate in sorted({at, *(ends for _, ends in held if at < ends <= at + minutes * MINUTE)}):
        if not any(begins <= candidate + span * MINUTE and candidate < ends for begins, ends in held):
            return candidate
    return None


def covers(only: Only, subject: Subject) -> bool:
    if only.countries and subject.country is not None and subject.country not in only.countries:
        return False
    return counts(only, subject)


def counts(only: Only, of: Subject | Contact) -> bool:
    if only.channels and of.channel not in only.channels:
        return False
    if only.categories and of.category not in only.categories:
        return False
    return not any(of.labels.get(label) not in values for label, values in only.labels)


def held_back(
    rule: Rule, at: datetime, span: int, subject: Subject, history: Sequence[Contact], minutes: int
) -> list[tuple[datetime, datetime]]:
    """When one rule holds the subject back, from ``at`` on."""
    since, number = at - _BEFORE * MINUTE, _BEFORE + minutes + 200
    match rule:
        case QuietHours() | SendWindow() | Holidays():
            intervals = _intervals(shut(rule, subject.zones, since, number), since)
            return _released(intervals, rule, span * MINUTE, subject)
        case MinimumGap():
            ours = _ours(rule, subject, history)
            return [(since, contact.ended + rule.gap) for contact in ours]
        case FrequencyCap():
            kept = sum(places for priority, places in rule.reserve if priority < subject.priority)
            held = _places_held(rule, subject, history, since, number)
            return _intervals([places >= rule.limit - kept for places in held], since)
    raise AssertionError(rule)


def shut(
    rule: QuietHours | SendWindow | Holidays, zones: Sequence[ZoneInfo], since: datetime, number: int
) -> list[bool]:
    """For each minute whether the rule is shut, releases aside."""
    match rule:
        case QuietHours():
            quiet = [_within(((rule.start, rule.end),), rule.days, zone, since, number) for zone in zones]
            return [any(minute) for minute in zip(*quiet, strict=True)]
        case SendWindow():
            return [not within for within in _within(rule.hours, rule.days, zones[0], since, number)]
        case Holidays():
            days = _holidays(rule.country, rule.subdivision, since.year)
            dates = [[reading.date() for reading in _readings(zone, since, number)] for zone in zones]
            return [any(day in days for day in minute) for minute in zip(*dates, strict=True)]


@functools.cache
def _holidays(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=range(year - 1, year + 3)))


@functools.lru_cache(maxsize=16)
def _readings(zone: ZoneInfo, since: datetime, number: int) -> list[datetime]:
    return [(since + n * MINUTE).astimezone(zone).replace(tzinfo=None) for n in range(number)]


def _within(
    hours: tuple[tuple[time, time], ...], days: frozenset[int], zone: ZoneInfo, since: datetime, number: int
) -> list[bool]:
    """The week as a circle of 10 080 minutes, on which hours are arcs."""
    on_circle = [False] * _WEEK
    for start, end in hours:
        begins, ends = start.hour * 60 + start.minute, end.hour * 60 + end.minute
        for day in days or range(7):
            for n in range(begins, ends if begins < ends else ends + 1440):
                on_circle[(day * 1440 + n) % _WEEK] = True
    return [
        on_circle[reading.weekday() * 1440 + reading.hour * 60 + reading.minute]
        for reading in _readings(zone, since, number)
    ]


def _intervals(held: Sequence[bool], since: datetime) -> list[tuple[datetime, datetime]]:
    found, begins = list[tuple[datetime, datetime]](), None
    for n, minute in enumerate([*held, False]):
        if minute and begins is None:
            begins = since + n * MINUTE
        if not minute and begins is not None:
            found.append((begins, since + n * MINUTE))
            begins = None
    return found


def _released(
    intervals: list[tuple[datetime, datetime]],
    rule: QuietHours | SendWindow | Holidays,
    span: timedelta,
    subject: Subject,
) -> list[tuple[datetime, datetime]]:
    """Each ends later by the person's share of what there is of ``release_over``."""
    if isinstance(rule, Holidays) or subject.priority == 0:
        return intervals
    late = []
    for n, (begins, ends) in enumerate(intervals):
        there_is = [rule.release_over]
        if subject.expires_at is not None:
            there_is.append(subject.expires_at - span - ends)
        if n + 1 < len(intervals):
            there_is.append(intervals[n + 1][0] - timedelta(microseconds=1) - span - ends)
        late.append((begins, ends + max(min(there_is), timedelta(0)) * share(subject.person)))
    return late


def _ours(rule: FrequencyCap | MinimumGap, subject: Subject, history: Sequence[Contact]) -> list[Contact]:
    def key(of: Subject | Contact) -> tuple[str | None, ...]:
        return (
            of.channel if Scope.CHANNEL in rule.scope else "",
            of.category if Scope.CATEGORY in rule.scope else "",
            of.campaign if Scope.CAMPAIGN in rule.scope else "",
            *(of.labels.get(label) for label in sorted(rule.scope_labels)),
        )

    return [contact for contact in history if key(contact) == key(subject) and counts(rule.only, contact)]


def _places_held(
    cap: FrequencyCap, subject: Subject, history: Sequence[Contact], since: datetime, number: int
) -> list[int]:
    held = [0] * number
    if isinstance(cap.per, Calendar):
        form = {"day": "%Y-%j", "week": "week", "month": "%Y-%m"}[cap.per]

        def window(reading: datetime) -> str:
            if form == "week":
                return str((reading - timedelta(days=cap.week_start)).isocalendar()[:2])
            return f"{reading:{form}}"

        touched: dict[str, int] = {}
        for contact in _ours(cap, subject, history):
            lasting = (contact.ended - contact.begun) // MINUTE + 1
            for label in {window(reading) for reading in _readings(contact.zone, contact.begun, lasting)}:
                touched[label] = touched.get(label, 0) + 1
        known: dict[date, int] = {}
        for n, reading in enumerate(_readings(subject.calendar, since, number)):
            day = reading.date()
            if day not in known:
                known[day] = touched.get(window(reading), 0)
            held[n] = known[day]
        return held
    for contact in _ours(cap, subject, history):
        begins, ends = (contact.begun - since) // MINUTE, (contact.ended + cap.per - since) // MINUTE
        for n in range(max(begins, 0), min(ends, number)):
            held[n] += 1
    return held
