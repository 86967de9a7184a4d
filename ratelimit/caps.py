"""Has the person heard enough from us lately, and when will there be a place again?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from ratelimit._rules import HORIZON, Ruling, first_clear, named
from ratelimit._wording import length, stamp
from ratelimit.clocks import DAY, RESOLUTION, stretches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from zoneinfo import ZoneInfo

    from ratelimit._rules import Contact, Subject


class Scope(StrEnum):
    """What, besides the person, a contact must share with the subject to count."""

    CHANNEL = "channel"
    CATEGORY = "category"
    CAMPAIGN = "campaign"
    """Messages without a campaign share that, and count together."""


class Calendar(StrEnum):
    """A window that starts and ends on the person's calendar."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most ``limit`` contacts with a person in any window.

    Rolling (``per`` is a length): a contact holds its place from its ``begun`` until its ``ended`` + ``per``; at that
    very instant the place is free.

    Calendar: a contact holds a place in each day, week or month that any instant of ``[begun, ended]`` falls in, by the
    clocks of the zone stored with it. An attempt needs a place in each window that its own span touches, by the clocks
    of ``subject.calendar``.
    """

    name: str
    limit: int
    per: timedelta | Calendar
    scope: frozenset[Scope] = frozenset()
    """The person is always part of it."""
    channels: frozenset[str] = frozenset()
    """Only these are held back, and only these count; empty: all."""
    categories: frozenset[str] = frozenset()
    """Only these are held back, and only these count; empty: all."""
    week_start: int = 0
    """The day a calendar week starts on: 0 Monday … 6 Sunday."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("a cap needs a limit of at least 1")
        if isinstance(self.per, timedelta) and self.per <= timedelta(0):
            raise ValueError("a rolling window needs a length")
        if self.week_start not in range(7):
            raise ValueError("a week starts on a day from 0, Monday, to 6, Sunday")

    def applies(self, subject: Subject) -> bool:
        """Whether channel and category are among those named."""
        return named(subject, self.channels, self.categories)

    def first(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> datetime | None:
        """The first instant from ``at`` on with a place throughout the span."""
        if len(history) < self.limit:
            return at
        counted = _counted(history, subject, self.scope, self.channels, self.categories)
        if len(counted) < self.limit:
            return at
        if isinstance(self.per, timedelta):
            return self._first_rolling(at, span, counted, self.per)
        return self._first_on_calendar(at, span, subject.calendar, counted, self.per)

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """How many places are held, by whom, and which one frees when."""
        free = self.first(at, span, subject, history)
        counted = sorted(
            _counted(history, subject, self.scope, self.channels, self.categories), key=lambda contact: contact.begun
        )
        if isinstance(self.per, timedelta):
            holders = [c for c in counted if c.ended > at - self.per and c.begun <= at + span]
            window, then = f"in {length(self.per)}", f"there is a place at {stamp(free)}" if free else ""
            for contact in holders:
                if contact.ended + self.per == free:
                    then = f"the place of {stamp(contact.ended)} frees at {stamp(free)}"
        else:
            # The fullest of the windows that the span touches; the earliest of equals.
            asked = _touched(subject.calendar, at, at + span, self.per, self.week_start)
            held = self._holders(counted, asked, self.per)
            first_day, holders = max(sorted(held.items()), key=lambda window: len(window[1]))
            window = f"in the {self.per} of {first_day} ({subject.calendar.key})"
            then = f"the next {self.per} with a place starts at {stamp(free)}" if free else ""
        why = f"{len(holders)} of {self.limit} contacts {window}"
        if free != at:
            why += f"; {then or f'no place within {HORIZON.days} days'}"
        return Ruling(self.name, free == at, free, why, tuple(contact.message for contact in holders))

    def _first_rolling(
        self, at: datetime, span: timedelta, counted: Sequence[Contact], per: timedelta
    ) -> datetime | None:
        since, until = at - per, at + span
        if len([contact for contact in counted if contact.ended > since and contact.begun <= until]) < self.limit:
            return at
        return first_clear(at, span, self._used_up(counted, per))

    def _first_on_calendar(
        self, at: datetime, span: timedelta, calendar: ZoneInfo, counted: Sequence[Contact], unit: Calendar
    ) -> datetime | None:
        asked = _touched(calendar, at, at + span, unit, self.week_start)
        near = _near(counted, asked)
        if len(near) < self.limit:
            return at
        if all(len(holders) < self.limit for holders in self._holders(near, asked, unit).values()):
            return at
        return first_clear(at, span, self._full(at, span, calendar, counted, unit))

    def _used_up(self, counted: Sequence[Contact], per: timedelta) -> Iterator[tuple[datetime, datetime]]:
        """When all places of a rolling window are held."""
        # A place that frees comes before one that is taken at the same instant.
        steps = sorted([(c.begun, 1) for c in counted] + [(c.ended + per, -1) for c in counted])
        held, full_since = 0, None
        for instant, step in steps:
            held += step
            if held >= self.limit and full_since is None:
                full_since = instant
            elif held < self.limit and full_since is not None:
                yield full_since, instant
                full_since = None

    def _full(
        self, at: datetime, span: timedelta, calendar: ZoneInfo, counted: Sequence[Contact], unit: Calendar
    ) -> Iterator[tuple[datetime, datetime]]:
        """Which calendar windows from ``at`` on have no place left."""
        held = Counter(day for c in counted for day in _touched(c.zone, c.begun, c.ended, unit, self.week_start))
        full = {day for day, places in held.items() if places >= self.limit}
        # Nothing is full past the last of them; a day more for zones in which it ends later than in UTC.
        last = _midnight(_following(max(full), unit)) + 2 * DAY
        until = min(last, at + span + HORIZON + RESOLUTION)
        for begins, ends, first_day in _windows(calendar, at, until, unit, self.week_start):
            if first_day in full:
                yield begins, ends

    def _holders(self, near: Sequence[Contact], asked: Sequence[date], unit: Calendar) -> dict[date, list[Contact]]:
        """Who holds the places of each window asked for."""
        holders: dict[date, list[Contact]] = {first_day: [] for first_day in asked}
        for contact in near:
            for first_day in _touched(contact.zone, contact.begun, contact.ended, unit, self.week_start):
                if first_day in holders:
                    holders[first_day].append(contact)
        return holders


@dataclass(frozen=True, slots=True)
class MinimumGap:
    """So long after the end of the last contact nothing is sent; while one is under way, its end lies ahead."""

    name: str
    gap: timedelta
    scope: frozenset[Scope] = frozenset()
    """The person is always part of it."""
    channels: frozenset[str] = frozenset()
    """Only these are held back, and only these count; empty: all."""
    categories: frozenset[str] = frozenset()
    """Only these are held back, and only these count; empty: all."""

    def __post_init__(self) -> None:
        if self.gap <= timedelta(0):
            raise ValueError("a gap needs a length")

    def applies(self, subject: Subject) -> bool:
        """Whether channel and category are among those named."""
        return named(subject, self.channels, self.categories)

    def first(
        self,
        at: datetime,
        span: timedelta,  # noqa: ARG002 - what is permitted now stays permitted
        subject: Subject,
        history: Sequence[Contact],
    ) -> datetime | None:
        """The first instant from ``at`` on that is far enough from every counted contact's end."""
        since, free = at - self.gap, at
        for contact in _counted(history, subject, self.scope, self.channels, self.categories):
            if contact.ended > since:
                since = contact.ended
                free = since + self.gap
        return free if free - at <= HORIZON else None

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """When the last contact ended, and how long that holds the next one back."""
        free = self.first(at, span, subject, history)
        last = max(
            _counted(history, subject, self.scope, self.channels, self.categories),
            key=lambda contact: contact.ended,
            default=None,
        )
        if last is None:
            return Ruling(self.name, free == at, free, "no contact so far")
        why = f"{length(self.gap)} must pass after the end of the last contact, {stamp(last.ended)}"
        if free is None:
            why += f"; not over within {HORIZON.days} days"
        elif free > at:
            why += f"; over at {stamp(free)}"
        return Ruling(self.name, free == at, free, why, () if free == at else (last.message,))


def _counted(
    history: Sequence[Contact],
    subject: Subject,
    scope: frozenset[Scope],
    channels: Collection[str],
    categories: Collection[str],
) -> Sequence[Contact]:
    """The contacts that count against a subject to which the rule applies."""
    if not (scope or channels or categories):
        return history
    if Scope.CHANNEL in scope:
        channels = (subject.channel,)
    if Scope.CATEGORY in scope:
        categories = (subject.category,)
    any_campaign = Scope.CAMPAIGN not in scope
    return [
        contact
        for contact in history
        if (not channels or contact.channel in channels)
        and (not categories or contact.category in categories)
        and (any_campaign or contact.campaign == subject.campaign)
    ]


def _near(counted: Sequence[Contact], asked: Sequence[date]) -> Sequence[Contact]:
    """Those that may have touched the windows, so that few clocks have to be read.

    Offsets are less than a day: what ended a day before the first of them in UTC touches none in any zone.
    """
    since = _midnight(min(asked)) - DAY
    return [contact for contact in counted if contact.ended >= since]


def _window(day: date, unit: Calendar, week_start: int) -> date:
    """The first day of the window that the day is in."""
    match unit:
        case Calendar.DAY:
            return day
        case Calendar.WEEK:
            return day - timedelta(days=(day.weekday() - week_start) % 7)
        case Calendar.MONTH:
            return day.replace(day=1)
        case _:
            assert_never(unit)


def _following(first_day: date, unit: Calendar) -> date:
    """The first day of the window after the one that starts on ``first_day``."""
    match unit:
        case Calendar.DAY:
            return first_day + DAY
        case Calendar.WEEK:
            return first_day + 7 * DAY
        case Calendar.MONTH:
            return (first_day + 31 * DAY).replace(day=1)
        case _:
            assert_never(unit)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _windows(
    zone: ZoneInfo, since: datetime, until: datetime, unit: Calendar, week_start: int
) -> Iterator[tuple[datetime, datetime, date]]:
    """Cut ``[since, until)`` by the windows that the zone's clocks read, each named by its first day.

    A window may come in several pieces, and twice: clocks that go back over midnight bring yesterday back.
    """
    for begins, ends, offsets in stretches((zone,), since, until):
        (ahead,) = offsets
        piece = begins
        while piece < ends:
            first_day = _window((piece + ahead).date(), unit, week_start)
            left = min(_midnight(_following(first_day, unit)) - ahead, ends)
            yield piece, left, first_day
            piece = left


def _touched(zone: ZoneInfo, begun: datetime, ended: datetime, unit: Calendar, week_start: int) -> tuple[date, ...]:
    """The windows in which ``[begun, ended]`` has an instant, by the zone's clocks."""
    first, last = begun.astimezone(zone), ended.astimezone(zone)
    day = first.date()
    # Within one zone Python subtracts what the clocks read: equal lengths mean unchanged clocks.
    if day == last.date() and last - first == ended - begun:
        return (_window(day, unit, week_start),)
    pieces = _windows(zone, begun, ended + RESOLUTION, unit, week_start)
    return tuple(dict.fromkeys(first_day for _, _, first_day in pieces))
