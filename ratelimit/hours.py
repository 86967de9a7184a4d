"""May a person be contacted at this hour by the clocks on the wall, and if not, when?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from ratelimit import _timeline, _wording
from ratelimit._rules import ALL, HORIZON, Only, Ruling
from ratelimit._wording import clock, length
from ratelimit.clocks import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from zoneinfo import ZoneInfo

    from ratelimit._rules import Contact, Subject

_Hours = tuple[tuple[tuple[time, time], ...], frozenset[int]]
"""``[from, to)`` and the weekdays on which they begin."""

_EVERY_DAY = (0, 7)
"""How many weekdays may be named to mean all of them."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Wall-clock hours without messages.

    An instant is quiet if the wall clock of any candidate zone reads from ``start`` (included) to ``end`` (excluded) at
    it. Nothing else defines it: where clocks repeat or skip a reading, quiet repeats or is skipped with it.

    With ``days``, the weekday of the date that the same clock reads decides; a reading after midnight, before ``end``,
    belongs to the evening before, that is to the weekday of the date before by the calendar. So a reading that is
    repeated is as quiet the second time, and the night after a date that the zone skipped has that date's weekday.
    """

    name: str
    start: time
    end: time
    """Before ``start``: on the next morning. Equal to it: 24 hours later."""
    days: frozenset[int] = frozenset()
    """The weekdays on which it begins, 0 Monday … 6 Sunday; empty: all."""
    release_over: timedelta = timedelta(0)
    """How much later than its end the last of the persons is let go; each at a moment of their own, critical ones at
    the end, nobody past the expiry or so late that it would be quiet again. Where less than that is left until then,
    persons are spread over what is left. Less than a day."""
    only: Only = ALL
    enforce: float = 100

    def __post_init__(self) -> None:
        _check("quiet hours", ((self.start, self.end),), self.days, self.release_over)

    @property
    def looks_back(self) -> timedelta:
        """Only at clocks."""
        return timedelta(0)

    def first(
        self,
        at: datetime,
        span: timedelta,
        subject: Subject,
        history: Sequence[Contact],  # noqa: ARG002 - the rule's face
    ) -> datetime | None:
        """The first instant from ``at`` on whose whole span is free of quiet in every candidate zone."""
        if self.start == self.end and len(self.days) in _EVERY_DAY:
            return None
        return _timeline.first_open(_within, self._hours, subject.zones, at, span, subject, self.release_over)

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:
        """When it is quiet next."""
        return _timeline.shuts(_within, self._hours, subject.zones, at)

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """Which zone it is quiet in, until when, and when this person's turn is."""
        free = self.first(at, span, subject, history)
        hours = f"quiet hours {_spelt(((self.start, self.end),))}"
        if self.days:
            hours += f" that begin on {_wording.weekdays(self.days)}"
        if free == at:
            why = f"outside {hours} in {_wording.zones(subject.zones)}"
            return Ruling(self.name, permits=True, next=at, why=why)
        ends = _timeline.first_open(_within, self._hours, subject.zones, at, span, subject)
        quiet = [zone for zone in subject.zones if _timeline.is_shut(_within, self._hours, (zone,), at)]
        if quiet:
            why = f"{at.astimezone(quiet[0]):%H:%M} in {_wording.zones(quiet)} is within {hours}"
        elif ends == at:
            why = f"{hours} are over"
        else:
            why = f"an attempt of {span.total_seconds():g} s could run into {hours}"
        if ends is None or free is None:
            why += f"; never free for as long within {HORIZON.days} days"
        else:
            why += "" if ends == at else f"; free from {clock(ends, subject.zones[0])}"
            why += _turn(free, ends, self.release_over, subject)
        return Ruling(self.name, permits=False, next=free, why=why)

    @property
    def _hours(self) -> _Hours:
        return ((self.start, self.end),), self.days


@dataclass(frozen=True, slots=True)
class SendWindow:
    """Wall-clock hours outside of which nothing is sent, by the likeliest zone of the person alone.

    An instant is within if that clock reads a time of the ``hours``; weekdays, repeated and skipped readings as in
    ``QuietHours``. An attempt must lie within as a whole. Hours that touch or overlap are one window: an attempt may
    reach from one into the next, and whoever may go in the first is not held again where the second begins.
    """

    name: str
    hours: tuple[tuple[time, time], ...]
    """``[from, to)``; ``to`` before ``from``: on the next day. Equal to it: 24 hours later."""
    days: frozenset[int] = frozenset()
    """The weekdays on which they begin, 0 Monday … 6 Sunday; empty: all."""
    release_over: timedelta = timedelta(0)
    """As in ``QuietHours``, from the beginning of a window on; shorter than each of the hours."""
    only: Only = ALL
    enforce: float = 100

    def __post_init__(self) -> None:
        if not self.hours:
            raise ValueError("a send window needs hours: without any, nothing could ever be sent")
        _check("a send window", self.hours, self.days, self.release_over)
        if self.release_over >= min(_length(hours) for hours in self.hours):
            raise ValueError("a release must be shorter than each of the hours that it is spread over")

    @property
    def looks_back(self) -> timedelta:
        """Only at clocks."""
        return timedelta(0)

    def first(
        self,
        at: datetime,
        span: timedelta,
        subject: Subject,
        history: Sequence[Contact],  # noqa: ARG002 - the rule's face
    ) -> datetime | None:
        """The first instant from ``at`` on whose whole span is within a window."""
        return _timeline.first_open(
            _outside, (self.hours, self.days), subject.zones[:1], at, span, subject, self.release_over
        )

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:
        """When the window that is open closes."""
        return _timeline.shuts(_outside, (self.hours, self.days), subject.zones[:1], at)

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """Whether a window is open, when the next one opens, and when this person's turn in it is."""
        free = self.first(at, span, subject, history)
        of, likeliest = (self.hours, self.days), subject.zones[:1]
        window = f"the send window {_spelt(self.hours)}"
        if self.days:
            window += f" on {_wording.weekdays(self.days)}"
        reading = f"{at.astimezone(likeliest[0]):%H:%M} in {likeliest[0].key}"
        if free == at:
            return Ruling(self.name, permits=True, next=at, why=f"{reading} is within {window}")
        opens = _timeline.first_open(_outside, of, likeliest, at, span, subject)
        if _timeline.is_shut(_outside, of, likeliest, at):
            why = f"{reading} is outside {window}"
        elif opens == at:
            why = f"{window} is open"
        else:
            why = f"an attempt of {span.total_seconds():g} s could outlast {window}"
        if opens is None or free is None:
            why += f"; it never opens for as long within {HORIZON.days} days"
        else:
            why += "" if opens == at else f"; it opens at {clock(opens, likeliest[0])}"
            why += _turn(free, opens, self.release_over, subject)
        return Ruling(self.name, permits=False, next=free, why=why)


def _turn(free: datetime, opens: datetime, over: timedelta, subject: Subject) -> str:
    if free == opens:
        return ""
    return f"; this person's turn within {length(over)} after it: {clock(free, subject.zones[0])}"


def _within(
    of: _Hours, zones: Sequence[ZoneInfo], since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """When the clock of any of the zones reads a time within the hours."""
    hours, days = of
    each_day = [(_since_midnight(one[0]), _length(one)) for one in hours]
    return _timeline.spells(lambda day: each_day if not days or day.weekday() in days else (), zones, since, until)


def _outside(
    of: _Hours, zones: Sequence[ZoneInfo], since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    return _timeline.between(_within(of, zones, since, until), since, until)


def _length(hours: tuple[time, time]) -> timedelta:
    return (_since_midnight(hours[1]) - _since_midnight(hours[0])) % DAY or DAY


def _since_midnight(wall: time) -> timedelta:
    return timedelta(hours=wall.hour, minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)


def _spelt(hours: Sequence[tuple[time, time]]) -> str:
    """``21:00 to 08:00 and 12:00 to 13:00``; midnight as an end is 24:00."""
    ends = [f"{end:%H:%M}" if end != time() else "24:00" for _, end in hours]
    return _wording.listed([f"{start:%H:%M} to {end}" for (start, _), end in zip(hours, ends, strict=True)])


def _check(what: str, hours: Sequence[tuple[time, time]], days: frozenset[int], over: timedelta) -> None:
    if any(wall.tzinfo for one in hours for wall in one):
        raise ValueError(f"{what} are read off the person's wall clock and have no zone of their own")
    if not days <= frozenset(range(7)):
        raise ValueError("weekdays go from 0, Monday, to 6, Sunday")
    if not timedelta(0) <= over < DAY:
        raise ValueError("a release takes less than a day, and not less than nothing")
