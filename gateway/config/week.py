"""Which minutes of a week are meant by hours and weekdays? A set of them is an integer, a bit for each minute."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.config.words import WEEKDAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import time

    from gateway.config.words import Span

DAY: Final = 1440
"""Minutes."""
WEEK: Final = 7 * DAY
ALL: Final = (1 << WEEK) - 1
"""Every minute; the first bit is Monday's 00:00."""


def span(start: time, end: time, days: Iterable[int] = ()) -> int:
    """From ``start`` up to ``end``, on the next day where that is not later, on the weekdays named; none: on all."""
    length = length_of(start, end)
    return union(_stretch(day * DAY + minute(start), length) for day in set(days) or range(7))


def length_of(start: time, end: time) -> int:
    """How many minutes later ``end`` is, on the next day where that is not later."""
    return (minute(end) - minute(start)) % DAY or DAY


def allowed(hours: Mapping[int, Iterable[Span]]) -> int:
    """The hours of each weekday."""
    return union(span(start, end, (day,)) for day, spans in hours.items() for start, end in spans)


def union(sets: Iterable[int]) -> int:
    """What is in any of them."""
    found = 0
    for each in sets:
        found |= each
    return found


def runs(of: int) -> list[tuple[int, int]]:
    """Its stretches, each with the minute on which it begins and its length; the week's end runs on into its start."""
    if of == ALL:
        return [(0, WEEK)]
    bits = f"{of:0{WEEK}b}"[::-1]
    turn = bits.find("0") + 1  # no stretch runs over this minute
    found = re.finditer("1+", bits[turn:] + bits[:turn])
    return sorted(((run.start() + turn) % WEEK, len(run[0])) for run in found)


def minute(wall: time) -> int:
    """Of the day."""
    return wall.hour * 60 + wall.minute


def sentence(of: int) -> str:
    """For people: ``monday 07:00-09:00, tuesday 07:00-09:00 and 5 more``."""
    shown = 2
    found = runs(of)
    written = [f"{WEEKDAYS[start // DAY]} {clock(start)}-{clock(start + length)}" for start, length in found]
    more = len(written) - shown
    return ", ".join(written) if more <= 1 else f"{', '.join(written[:shown])} and {more} more"


def length(minutes: int) -> str:
    """For people: ``90m``, ``6h30m``, ``24h`` or ``30d``."""
    if minutes % DAY == 0 and minutes > DAY:
        return f"{minutes // DAY}d"
    hours, rest = divmod(minutes, 60)
    if not rest:
        return f"{hours}h"
    return f"{hours}h{rest}m" if hours > 1 else f"{minutes}m"


def _stretch(first: int, length: int) -> int:
    """So many minutes from one on, over the week's end into its start."""
    bits = ((1 << length) - 1) << first
    return (bits | bits >> WEEK) & ALL


def clock(minutes: int) -> str:
    """On the wall: ``08:00``; the end of a day is ``24:00``."""
    return "24:00" if minutes == DAY else f"{minutes % DAY // 60:02}:{minutes % 60:02}"
