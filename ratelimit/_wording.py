"""How do explanations write an instant and a length of time?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_UNITS = (
    (timedelta(days=1), "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
)


def stamp(instant: datetime) -> str:
    """As in logs and answers: ``2026-11-21T09:00:00Z``."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def length(of: timedelta) -> str:
    """In the largest unit that leaves no rest: ``24 h``, ``7 d``, ``90 min``."""
    for unit, word in _UNITS:
        if not of % unit and of > unit:
            return f"{of // unit} {word}"
    return "1 h" if of == timedelta(hours=1) else f"{of.total_seconds():g} s"
