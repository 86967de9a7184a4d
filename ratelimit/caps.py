"""Has the person heard enough from us lately, and when will there be a place again?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from ratelimit._rules import ALL, HORIZON, Only, Ruling, first_clear
from ratelimit._timeline import merged
from ratelimit._wording import clock, kept, length
from ratelimit.clocks import DAY, RESOLUTION, stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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


_ZONES = 2 * DAY
"""How much earlier a calendar window may have begun by the clocks of another zone: 26 hours lie between Baker Island
and Kiritimati, and either may change its clocks."""
_REACH = {Calendar.DAY: DAY + _ZONES, Calendar.WEEK: 7 * DAY + _ZONES, Calendar.MONTH: 31 * DAY + _ZONES}
"""How long after its end a contact may hold a place."""


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
    scope_labels: frozenset[str] = frozenset()
    """The labels in whose value a contact must agree with the subject to count; to have none is a value too."""
    only: Only = ALL
    """Only these are held back, and only these count."""
    reserve: tuple[tuple[int, int], ...] = ()
    """Priorities, each with how many places are kept free for it and for the more urgent ones."""
    week_start: int = 0
    """The day a calendar week starts on: 0 Monday … 6 Sunday."""
    enforce: float = 100

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("a cap needs a limit of at least 1")
        if isinstance(self.per, timedelta) and self.per <= timedelta(0):
            raise ValueError("a rolling window needs a length")
        if self.week_start not in range(7):
            raise ValueError("a week starts on a day from 0, Monday, to 6, Sunday")
        if any(places < 1 for _, places in self.reserve):
            raise ValueError("at least 1 place is kept for a priority")
        if len({priority for priority, _ in self.reserve}) < len(self.reserve):
            raise ValueError("places are kept for each priority once")
        if sum(places for _, places in self.reserve) >= self.limit:
            raise ValueError("fewer places must be kept than the limit: else the least urgent could never be sent")

    @property
    def looks_back(self) -> timedelta:
        """A window, at the longest that it can be by any person's calendar."""
        return self.per if isinstance(self.per, timedelta) else _REACH[self.per]

    def first(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> datetime | None:
        """The first instant from ``at`` on with a place throughout the span."""
        places = self._places(subject) if self.reserve else self.limit
        if len(history) < places:
            return at
        since = at - (self.per if isinstance(self.per, timedelta) else _REACH[self.per])
        late = [contact for contact in history if contact.ended > since]
        if len(late) < places:
            return at
        counted = _counted(late, subject, self.scope, self.scope_labels, self.only)
        if len(counted) < places:
            return at
        if isinstance(self.per, timedelta):
            until = at + span
            if sum([contact.begun <= until for contact in counted]) < places:
                return at
            return first_clear(at, span, _used_up(counted, self.per, places))
        return self._first_on_calendar(at, span, subject.calendar, counted, self.per, places)

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:  # noqa: ARG002 - the rule's face
        """Never by itself."""
        return None

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """How many places are held, by whom, and which one frees when."""
        free, zone = self.first(at, span, subject, history), subject.zones[0]
        first_day, holders = self._held(at, span, subject, history)
        if isinstance(self.per, timedelta):
            window, then = f"in {length(self.per)}", f"there is a place at {clock(free, zone)}" if free else ""
            for contact in holders:
                if free and contact.ended + self.per == free:
                    then = f"the place of {clock(contact.ended, zone)} frees at {clock(free, zone)}"
        else:
            window = f"in the {self.per} of {first_day} ({subject.calendar.key})"
            then = f"the next {self.per} with a place starts at {clock(free, zone)}" if free else ""
        why = f"{len(holders)} of {self.limit} contact{'' if self.limit == 1 else 's'} {window}"
        if withheld := self._withheld(subject):
            why += f"; {kept(withheld)}"
        if free != at:
            why += f"; {then or f'no place within {HORIZON.days} days'}"
        return Ruling(self.name, free == at, free, why, holders)

    def held(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> int:
        """How many of its places are taken, whatever is kept for whom."""
        return len(self._held(at, span, subject, history)[1])

    def _held(
        self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]
    ) -> tuple[date | None, tuple[Contact, ...]]:
        """Who holds places, earliest first; on a calendar, in the window of which first day."""
        counted = sorted(
            _counted(history, subject, self.scope, self.scope_labels, self.only), key=lambda contact: contact.begun
        )
        if isinstance(self.per, timedelta):
            return None, tuple(c for c in counted if c.ended > at - self.per and c.begun <= at + span)
        # The fullest of the windows that the span touches; the earliest of equals.
        pieces = _windows(subject.calendar, at, at + span + RESOLUTION, self.per, self.week_start)
        held = {first_day: self._holders(counted, first_day, self.per) for _, _, first_day in pieces}
        first_day, holders = max(sorted(held.items()), key=lambda window: len(window[1]))
        return first_day, tuple(holders)

    def _withheld(self, subject: Subject) -> tuple[tuple[int, int], ...]:
        """What is kept for those that are more urgent."""
        return tuple(entry for entry in self.reserve if entry[0] < subject.priority)

    def _places(self, subject: Subject) -> int:
        """How many of the places the subject may see taken."""
        return self.limit - sum(places for _, places in self._withheld(subject))

    def _first_on_calendar(
        self,
        at: datetime,
        span: timedelta,
        calendar: ZoneInfo,
        counted: Sequence[Contact],
        unit: Calendar,
        places: int,
    ) -> datetime | None:
        until = at + span
        for begins, ends, first_day in _around(calendar, at.toordinal(), unit, self.week_start):
            if begins <= at and until < ends and len(self._holders(counted, first_day, unit)) < places:
                return at
        return first_clear(at, span, self._full(at, span, calendar, counted, unit, places))

    def _full(
        self,
        at: datetime,
        span: timedelta,
        calendar: ZoneInfo,
        counted: Sequence[Contact],
        unit: Calendar,
        places: int,
    ) -> Iterator[tuple[datetime, datetime]]:
        """Which calendar windows from ``at`` on have no place left."""
        last = max(contact.ended for contact in counted) + _REACH[unit]
        until = min(last, at + span + HORIZON + RESOLUTION)
        for begins, ends, first_day in _windows(calendar, at, until, unit, self.week_start):
            if len(self._holders(counted, first_day, unit)) >= places:
                yield begins, ends

    def _holders(self, counted: Sequence[Contact], first_day: date, unit: Calendar) -> list[Contact]:
        """Who holds the places of a window: those that touch it by their own clocks."""
        holders: list[Contact] = []
        of_zone: dict[ZoneInfo, tuple[tuple[datetime, datetime], ...]] = {}
        for contact in counted:
            pieces = of_zone.get(contact.zone)
            if pieces is None:
                pieces = of_zone[contact.zone] = _pieces(contact.zone, first_day, unit, self.week_start)
            for begins, ends in pieces:
                if contact.begun < ends and contact.ended >= begins:
                    holders.append(contact)
                    break
        return holders


@dataclass(frozen=True, slots=True)
class MinimumGap:
    """No contact sooner than ``gap`` after the end of the last one."""

    name: str
    gap: timedelta
    scope: frozenset[Scope] = frozenset()
    """The person is always part of it."""
    scope_labels: frozenset[str] = frozenset()
    """As in ``FrequencyCap``."""
    only: Only = ALL
    """Only these are held back, and only these count."""
    enforce: float = 100

    def __post_init__(self) -> None:
        if self.gap <= timedelta(0):
            raise ValueError("a gap needs a length")

    @property
    def looks_back(self) -> timedelta:
        """The gap."""
        return self.gap

    def first(
        self,
        at: datetime,
        span: timedelta,  # noqa: ARG002 - what is permitted now stays permitted
        subject: Subject,
        history: Sequence[Contact],
    ) -> datetime | None:
        """The first instant from ``at`` on that is far enough from every counted contact's end."""
        since = at - self.gap
        late = [contact for contact in history if contact.ended > since]
        if not late:
            return at
        counted = _counted(late, subject, self.scope, self.scope_labels, self.only)
        free = max([at, *[contact.ended + self.gap for contact in counted]])
        return free if free - at <= HORIZON else None

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:  # noqa: ARG002 - the rule's face
        """Never by itself."""
        return None

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """When the last contact ended, and how long that holds the next one back."""
        free, zone = self.first(at, span, subject, history), subject.zones[0]
        counted = _counted(history, subject, self.scope, self.scope_labels, self.only)
        last = max(counted, key=lambda contact: contact.ended, default=None)
        if last is None:
            return Ruling(self.name, free == at, free, "no contact so far")
        why = f"{length(self.gap)} must pass after the end of the last contact, {clock(last.ended, zone)}"
        if free is None:
            why += f"; not over within {HORIZON.days} days"
        elif free > at:
            why += f"; over at {clock(free, zone)}"
        return Ruling(self.name, free == at, free, why, () if free == at else (last,))


def _counted(
    contacts: Sequence[Contact],
    subject: Subject,
    scope: frozenset[Scope],
    labels: frozenset[str],
    only: Only,
) -> Sequence[Contact]:
    """The contacts that count against a subject to which the rule applies."""
    counted = contacts if only is ALL else only.among(contacts)
    if not scope and not labels:
        return counted
    if Scope.CHANNEL in scope:
        channel = subject.channel
        counted = [contact for contact in counted if contact.channel == channel]
    if Scope.CATEGORY in scope:
        category = subject.category
        counted = [contact for contact in counted if contact.category == category]
    if Scope.CAMPAIGN in scope:
        campaign = subject.campaign
        counted = [contact for contact in counted if contact.campaign == campaign]
    for label in labels:
        value = subject.labels.get(label)
        counted = [contact for contact in counted if contact.labels.get(label) == value]
    return counted


def _used_up(counted: Sequence[Contact], per: timedelta, places: int) -> Iterator[tuple[datetime, datetime]]:
    """When all places of a rolling window are held."""
    # A place that frees comes before one that is taken at the same instant.
    steps = sorted([(c.begun, 1) for c in counted] + [(c.ended + per, -1) for c in counted])
    held, full_since = 0, None
    for instant, step in steps:
        held += step
        if held >= places and full_since is None:
            full_since = instant
        elif held < places and full_since is not None:
            yield full_since, instant
            full_since = None


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


@functools.lru_cache(maxsize=16_384)
def _pieces(zone: ZoneInfo, first_day: date, unit: Calendar, week_start: int) -> tuple[tuple[datetime, datetime], ...]:
    """When the zone's clocks read a window, given by its first day; pieces that touch are one."""
    since, until = _midnight(first_day) - _ZONES, _midnight(_following(first_day, unit)) + _ZONES
    windows = _windows(zone, since, until, unit, week_start)
    return tuple(merged((begins, ends) for begins, ends, of in windows if of == first_day))


@functools.lru_cache(maxsize=16_384)
def _around(zone: ZoneInfo, day: int, unit: Calendar, week_start: int) -> tuple[tuple[datetime, datetime, date], ...]:
    """The pieces of the windows that touch a day in UTC, given by its number, each with its window's first day."""
    since = datetime.fromordinal(day).replace(tzinfo=UTC)
    first_days = dict.fromkeys(of for _, _, of in _windows(zone, since, since + DAY, unit, week_start))
    return tuple(
        (*piece, first_day) for first_day in first_days for piece in _pieces(zone, first_day, unit, week_start)
    )
