"""Is it a quiet hour for the person, and when will it not be?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

from ratelimit._rules import HORIZON, Ruling, first_clear, named
from ratelimit._wording import stamp
from ratelimit.clocks import DAY, RESOLUTION, stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from zoneinfo import ZoneInfo

    from ratelimit._rules import Contact, Subject

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Wall-clock hours without messages.

    An instant is quiet if the wall clock of any candidate zone reads from ``start`` (included) to ``end`` (excluded) at
    it. Nothing else defines it: where clocks repeat or skip a reading, quiet repeats or is skipped with it.
    """

    name: str
    start: time
    end: time
    """Before ``start``: on the next morning. Equal to it: the whole day is quiet."""
    channels: frozenset[str] = frozenset()
    """Only for these; empty: for all."""
    categories: frozenset[str] = frozenset()
    """Only for these; empty: for all."""

    def __post_init__(self) -> None:
        if self.start.tzinfo or self.end.tzinfo:
            raise ValueError("quiet hours are read off the person's wall clock and have no zone of their own")

    def applies(self, subject: Subject) -> bool:
        """Whether channel and category are among those named."""
        return named(subject, self.channels, self.categories)

    def first(
        self,
        at: datetime,
        span: timedelta,
        subject: Subject,
        history: Sequence[Contact],  # noqa: ARG002 - the rule's face
    ) -> datetime | None:
        """The first instant from ``at`` on whose whole span is free of quiet in every candidate zone."""
        if self.start == self.end:
            return None
        until = at + span
        if all(self._plainly_free(zone, at, until, span) for zone in subject.zones):
            return at
        return first_clear(at, span, self._quiet(subject.zones, at, until + HORIZON + RESOLUTION))

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """Which zone it is quiet in, and until when."""
        free = self.first(at, span, subject, history)
        hours = f"quiet hours {self.start:%H:%M} to {self.end:%H:%M}"
        if free == at:
            return Ruling(self.name, permits=True, next=at, why=f"outside {hours} in {_listed(subject.zones)}")
        quiet = [zone for zone in subject.zones if self._reads_quiet(at.astimezone(zone).time())]
        if quiet:
            why = f"{at.astimezone(quiet[0]):%H:%M} in {_listed(quiet)} is within {hours}"
        else:
            why = f"an attempt of {span.total_seconds():g} s could run into {hours}"
        then = f"free from {stamp(free)}" if free else f"never free for as long within {HORIZON.days} days"
        return Ruling(self.name, permits=False, next=free, why=f"{why}; {then}")

    def _reads_quiet(self, wall: time) -> bool:
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def _length(self) -> timedelta:
        return (_since_midnight(self.end) - _since_midnight(self.start)) % DAY

    def _plainly_free(self, zone: ZoneInfo, at: datetime, until: datetime, span: timedelta) -> bool:
        """Two readings prove it free: most attempts are short, far from quiet hours and from a change of clocks."""
        first, last = at.astimezone(zone), until.astimezone(zone)
        return (
            not self._reads_quiet(first.time())
            and not self._reads_quiet(last.time())
            and last - first == span  # within one zone Python subtracts what the clocks read
            and span < self._length()  # else a whole night fits between the two
        )

    def _quiet(
        self, zones: Sequence[ZoneInfo], since: datetime, until: datetime
    ) -> Iterator[tuple[datetime, datetime]]:
        """When it is quiet anywhere, in order; intervals of different zones may overlap."""
        start, length = _since_midnight(self.start), self._length()
        for begins, ends, offsets in stretches(zones, since, until):
            nights = []
            for ahead in offsets:
                midnight = datetime.combine((begins + ahead).date(), time(), begins.tzinfo) - ahead
                dusk = midnight + start - DAY  # yesterday's quiet may reach into the stretch
                while dusk < ends:
                    if dusk + length > begins:
                        nights.append((max(dusk, begins), min(dusk + length, ends)))
                    dusk += DAY
            yield from sorted(nights)


def _since_midnight(wall: time) -> timedelta:
    return timedelta(hours=wall.hour, minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)


def _listed(zones: Sequence[ZoneInfo]) -> str:
    """The likeliest zones; a toll-free number has forty."""
    shown = ", ".join(zone.key for zone in zones[:_SHOWN])
    return shown if len(zones) <= _SHOWN else f"{shown} and {len(zones) - _SHOWN} more"
