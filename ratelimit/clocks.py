"""What do a zone's wall clocks read, and for how long do they run without being changed?"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAY = timedelta(days=1)

RESOLUTION = timedelta.resolution
"""The distance of two neighbouring instants."""

STRIDE = timedelta(days=4)
"""No stretch is longer. No zone changes its clocks twice so soon: the two nearest changes of the tz database are 6.9
days apart (a test looks), so clocks that have one offset at both ends of a stretch had it throughout."""


@functools.cache
def zone_names() -> frozenset[str]:
    """Every zone of the tz database, old names included."""
    return frozenset((files("tzdata") / "zones").read_text().split())


@functools.cache
def zone(name: str) -> ZoneInfo:
    """A zone as the ``tzdata`` package knows it, not the machine: one version of the rules on every machine.

    Raises:
        ValueError: there is no such zone.
    """
    if name not in zone_names():
        raise ValueError(f"{name!r} is not a time zone of the IANA database")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


def offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    """How far the wall clock is ahead of UTC.

    Measured off the reading: asking a local time for its offset answers by the fold, this answers by the instant.
    """
    return instant.astimezone(zone).replace(tzinfo=UTC) - instant


def stretches(
    zones: Sequence[ZoneInfo], since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, frozenset[timedelta]]]:
    """Cut ``[since, until)`` so that within each piece no zone changes its clocks.

    Yields:
        ``(begins, ends, offsets)`` in order and without a hole, ``ends`` excluded; each distinct offset once.
    """
    while since < until:
        ends = min(since + STRIDE, until)
        offsets = {zone: offset(zone, since) for zone in zones}
        for zone, before in offsets.items():
            ends = _steady(zone, before, since, ends)
        yield since, ends, frozenset(offsets.values())
        since = ends


def _steady(zone: ZoneInfo, before: timedelta, since: datetime, until: datetime) -> datetime:
    """The first instant after ``since`` at which the offset is not what it was before, or ``until``."""
    if offset(zone, until) == before:
        return until
    while until - since > RESOLUTION:
        middle = since + (until - since) / 2
        if offset(zone, middle) == before:
            since = middle
        else:
            until = middle
    return until
