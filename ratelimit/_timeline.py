"""When do wall clocks shut a rule, and at what moment of their own is each person let go afterwards?"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from ratelimit._rules import CRITICAL, HORIZON, first_clear, share
from ratelimit.clocks import DAY, RESOLUTION, STRIDE, stretches

if TYPE_CHECKING:
    from ratelimit._rules import Subject

Interval = tuple[datetime, datetime]
"""``[begins, ends)``, UTC."""

Shut = Callable[[Any, tuple[ZoneInfo, ...], datetime, datetime], Iterator[Interval]]
"""When a rule is shut, cut to ``[since, until)``: in order, and no two touch.

Asked with what the rule is made of, which is hashable, and with the zones whose clocks it reads."""

_NOTHING = timedelta(0)
_BACK = DAY
"""How far before a day its edges are known; longer than any release."""


def spells(
    on: Callable[[date], Iterable[tuple[timedelta, timedelta]]],
    zones: Sequence[ZoneInfo],
    since: datetime,
    until: datetime,
) -> Iterator[Interval]:
    """When the clock of any of the zones reads a time within a spell, cut to ``[since, until)``: in order, none touch.

    Args:
        on: The spells that begin on a date: how long after midnight, and how long, each at most a day. What they
            reach into the next date is read there: it belongs to the date before by the calendar, even to one that
            the zone skipped.
        zones: At least one.
        since: UTC.
        until: UTC.
    """
    return merged(_pieces(on, zones, since, until))


def _pieces(
    on: Callable[[date], Iterable[tuple[timedelta, timedelta]]],
    zones: Sequence[ZoneInfo],
    since: datetime,
    until: datetime,
) -> Iterator[Interval]:
    for begins, ends, offsets in stretches(zones, since, until):
        found = []
        for ahead in offsets:
            day, last = (begins + ahead).date() - DAY, (ends + ahead).date()
            while day <= last:
                midnight = datetime.combine(day, time(), UTC) - ahead
                for after, length in on(day):
                    start = midnight + after
                    if start < ends and start + length > begins:
                        found.append((max(start, begins), min(start + length, ends)))
                day += DAY
        yield from sorted(found)


def merged(pieces: Iterator[Interval]) -> Iterator[Interval]:
    """Those that touch or overlap as one; given and answered in order."""
    whole = next(pieces, None)
    if whole is None:
        return
    begins, ends = whole
    for following, end in pieces:
        if following <= ends:
            ends = max(ends, end)
        else:
            yield begins, ends
            begins, ends = following, end
    yield begins, ends


def between(intervals: Iterable[Interval], since: datetime, until: datetime) -> Iterator[Interval]:
    """What of ``[since, until)`` lies outside of the intervals, which are in order and do not overlap."""
    for begins, ends in intervals:
        if since < begins:
            yield since, begins
        since = ends
    if since < until:
        yield since, until


@functools.lru_cache(maxsize=16_384)
def _edges(shut: Shut, of: Hashable, zones: tuple[ZoneInfo, ...], day: int) -> tuple[datetime, ...]:
    """The instants around a day, given by its number, at which a rule shuts and opens in turn.

    It is open before the first of them. The last one is where knowledge ends, whether it is open or shut there.
    """
    since = datetime.fromordinal(day).replace(tzinfo=UTC) - _BACK
    until = since + STRIDE
    edges = [edge for interval in shut(of, zones, since, until) for edge in interval]
    if not edges or edges[-1] != until:
        edges.append(until)
    return tuple(edges)


@functools.lru_cache(maxsize=16_384)
def _beyond(shut: Shut, of: Hashable, zones: tuple[ZoneInfo, ...], since: datetime) -> datetime | None:
    """When a rule that is open before ``since`` shuts next."""
    return next((begins for begins, _ in shut(of, zones, since, since + HORIZON)), None)


def is_shut(shut: Shut, of: Hashable, zones: tuple[ZoneInfo, ...], at: datetime) -> bool:
    """Whether a rule is shut at an instant by its clocks, releases aside."""
    return bisect_right(_edges(shut, of, zones, at.toordinal()), at) % 2 == 1


def first_open(
    shut: Shut,
    of: Hashable,
    zones: tuple[ZoneInfo, ...],
    at: datetime,
    span: timedelta,
    subject: Subject,
    over: timedelta = _NOTHING,
) -> datetime | None:
    """The first instant from ``at`` on whose whole span is open for the subject.

    Args:
        over: How much later than a rule opens the last of the persons is let go, see ``_released``; less than a day.

    Returns:
        None if that is beyond the horizon.
    """
    if subject.priority == CRITICAL:
        over = _NOTHING
    edges = _edges(shut, of, zones, at.toordinal())
    n = bisect_right(edges, at)
    if not n % 2 and at + span < edges[n] and not (over and n and at - edges[n - 1] < over):
        return at  # the case that must be fast: open, and has been for as long as any release takes
    near = zip(edges[::2], edges[1::2], strict=False)
    found = first_clear(at, span, _released(near, span, subject, over))
    if found is not None and found + span + over < edges[-1]:
        return found
    far = shut(of, zones, at - over, at + span + over + HORIZON + RESOLUTION)
    return first_clear(at, span, _released(far, span, subject, over))


def shuts(shut: Shut, of: Hashable, zones: tuple[ZoneInfo, ...], at: datetime) -> datetime | None:
    """When a rule that is open at ``at`` shuts next; None: not before the horizon."""
    edges = _edges(shut, of, zones, at.toordinal())
    n = bisect_right(edges, at)
    return edges[n] if n + 1 < len(edges) else _beyond(shut, of, zones, edges[-1])


def _released(shut: Iterable[Interval], span: timedelta, subject: Subject, over: timedelta) -> Iterable[Interval]:
    """Intervals as they are for one person: each ends later by the person's share of ``over``.

    The share is taken of less where an attempt could else not be over by the expiry, or not before it is shut again:
    then the persons are spread over what there is.
    """
    if not over:
        return shut
    return _spread(iter(shut), span, subject, over)


def _spread(shut: Iterator[Interval], span: timedelta, subject: Subject, over: timedelta) -> Iterator[Interval]:
    part = share(subject.person)
    one, following = itertools.tee(shut)
    next(following, None)
    for (begins, ends), then in itertools.zip_longest(one, following):
        room = over
        if subject.expires_at is not None:
            room = min(room, subject.expires_at - span - ends)
        if then is not None:
            room = min(room, then[0] - RESOLUTION - span - ends)
        yield begins, ends + max(room, _NOTHING) * part
