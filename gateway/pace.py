"""When the next units of a provider's pace may go: a calendar that all workers book their turns in.

Pure. Instants are microseconds since 1970. The units that are handed over in any window of length W are never more than
the pace gives for W: exactly so while a campaign runs, with as much as ``AHEAD`` and ``RESERVE`` are worth on top when
critical messages cut in, and with the last message's own units over the edge of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from providers import Pace

AHEAD = 500_000
"""How far ahead turns are booked. What is lent to others of the critical messages' share is no more than this."""
RESERVE = 200_000
"""So much of the pace critical messages may use at once, however little has been left of it."""
PATIENCE = 1_000_000
"""How far ahead a critical message gets a turn: so long it may hold its lease. One that finds none comes back."""
_OVER = 64
"""Units by which bookings may run over that at most: those of the last ordinary and of the last critical message."""
LAPSE = 3_000_000
"""A worker that has not asked for so long has no part in the pace any more."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """How far a pace is booked."""

    next_at: int
    """Until when all is spoken for."""
    critical_at: int
    """The same, were there only critical messages. Never later than ``next_at`` once anything is booked."""

    def credible(self, pace: Pace, now: int) -> Calendar:
        """The same, without what cannot be booked so far ahead: the clock was set back since, or the pace was slower.

        Else nothing could go for as long as the clock was ahead.
        """
        latest = now + AHEAD + PATIENCE + RESERVE + pace.span(_OVER)
        return Calendar(*(at if at <= latest else 0 for at in (self.next_at, self.critical_at)))

    def ordinary(self, pace: Pace, units: int, now: int) -> tuple[int | None, Calendar]:
        """The next turn, in line behind all that is booked; None: none is free so soon."""
        at = max(self.next_at, now)
        if at > now + AHEAD:
            return None, self
        return at, Calendar(at + pace.span(units), self.critical_at)

    def critical(self, pace: Pace, units: int, now: int) -> tuple[int | None, Calendar]:
        """The next turn ahead of all that is not critical, which moves back by as much."""
        at = max(self.critical_at - RESERVE, now)
        if at > now + PATIENCE:
            return None, self
        span = pace.span(units)
        return at, Calendar(max(self.next_at, now) + span, max(self.critical_at, now) + span)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker asks of one provider's pace; numbers are units, one for each turn."""

    provider: str
    pace: Pace
    critical: tuple[int, ...] = ()
    """For critical messages in hand."""
    ordinary: tuple[int, ...] = ()
    """For other messages in hand."""
    ahead: tuple[int, ...] = ()
    """For those that wait to be leased: of these it gets no more than its part among the workers."""
    demand: int = 0
    """Its weight among the workers. 0: it asks for no part."""


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part in a pace."""

    demand: int
    next_at: int
    """Until when the part is spoken for."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The turns that a worker gets, in the order in which it asked."""

    now: int
    """By the store's clock, which the instants are of."""
    critical: tuple[int | None, ...] = ()
    ordinary: tuple[int | None, ...] = ()
    ahead: tuple[int, ...] = ()
    workers: int = 1
    """How many share the pace."""


def grant(calendar: Calendar, ask: Ask, now: int, own_at: int, others: Sequence[int]) -> tuple[Grant, Calendar, Share]:
    """Book what is asked as far as it is free.

    Args:
        calendar: of the provider.
        ask: what is wanted.
        now: by the clock that all calendars are kept by.
        own_at: until when the worker's part is spoken for.
        others: the demands of the other workers that share the pace.
    """
    calendar = calendar.credible(ask.pace, now)
    critical, ordinary, ahead = [], [], []
    for units in ask.critical:
        at, calendar = calendar.critical(ask.pace, units, now)
        critical.append(at)
    for units in ask.ordinary:
        at, calendar = calendar.ordinary(ask.pace, units, now)
        ordinary.append(at)
    total = ask.demand + sum(others)
    for units in ask.ahead if ask.demand else ():
        if own_at > now + AHEAD:
            break
        at, calendar = calendar.ordinary(ask.pace, units, now)
        if at is None:
            break
        ahead.append(at)
        own_at = max(own_at, now) + ask.pace.span(units) * total // ask.demand
    granted = Grant(now, tuple(critical), tuple(ordinary), tuple(ahead), len(others) + 1)
    return granted, calendar, Share(ask.demand, own_at)
