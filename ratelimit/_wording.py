"""How do explanations write an instant, a length of time, days and priorities?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ratelimit.clocks import DAY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from zoneinfo import ZoneInfo

_UNITS = (
    (DAY, "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
)
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PRIORITIES = {0: "critical", 1: "high and above", 2: "normal and above", 3: "bulk and above"}
_SHOWN = 3


def clock(instant: datetime, zone: ZoneInfo) -> str:
    """As the clock on a wall there shows it: ``08:00 on 2026-11-22 (Asia/Tokyo)``; to the second where it has any."""
    there = instant.astimezone(zone)
    written = "%H:%M:%S on %Y-%m-%d" if there.second else "%H:%M on %Y-%m-%d"
    return f"{there:{written}} ({zone.key})"


def length(of: timedelta) -> str:
    """In the largest unit that leaves no rest, a day in hours: ``24 h``, ``7 d``, ``90 min``."""
    for unit, word in _UNITS:
        if not of % unit and (of > unit or unit < DAY):
            return f"{of // unit} {word}"
    return f"{of.total_seconds():g} s"


def listed(things: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *all_but_last, last = things
    return f"{', '.join(all_but_last)} and {last}" if all_but_last else last


def zones(of: Sequence[ZoneInfo]) -> str:
    """The likeliest ones; a toll-free number has forty."""
    shown = ", ".join(zone.key for zone in of[:_SHOWN])
    return shown if len(of) <= _SHOWN else f"{shown} and {len(of) - _SHOWN} more"


def weekdays(days: Collection[int]) -> str:
    """``Mon, Tue and Sun``."""
    return listed([_WEEKDAYS[day] for day in sorted(days)])


def kept(places: Sequence[tuple[int, int]]) -> str:
    """``1 place is kept for priority critical, 2 places for priority high and above``."""
    parts: list[str] = []
    for priority, number in sorted(places):
        held = f"{number} place{'s' if number > 1 else ''}"
        verb = "" if parts else " are kept" if number > 1 else " is kept"
        parts.append(f"{held}{verb} for priority {_PRIORITIES.get(priority, f'{priority} and above')}")
    return ", ".join(parts)
