"""What a gateway holds as time goes by, and whether that is within limits."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import aiohttp
import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.scene import Gateway

_MEGABYTE = 1 << 20
FIRST_PART = 1 / 3
"""Of the time: what is held grows until every kind of work has been done once."""
SLOPE = 1.0
"""MB an hour while nothing is broken, at most."""
BURST = 4.0
"""MB that what piles up while something is broken may leave: an allocator keeps what its largest burst took."""
PER_FAULT = 0.25
"""MB that each fault may leave besides."""
TELLING = 1200.0
"""Seconds of watching without which a slope says nothing."""
CACHES = 128.0
"""MB, that SQLite's two connections fill with pages as the file grows, 64 each. Until then no slope tells anything."""
BESIDE = 32.0
"""MB, that a gateway on SQLite may grow by beside them."""
SILENT = 120.0
"""Seconds without an answer, at most."""
FLAT = 20
"""Descriptors or tasks that there may be more at the end; 14 tasks come and go with the connections to the broker."""
WAL = 64.0
"""MB, at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    at: float
    rss: float
    """MB."""
    fds: int
    tasks: int
    wal: float
    """MB, of SQLite's log."""
    broken: int = 0
    """Faults that had begun."""


@dataclass
class Watched:
    """One gateway that is never killed."""

    name: str
    gateway: Gateway
    database: Path | None = None
    """Of SQLite."""
    samples: list[Sample] = field(default_factory=list)
    until: float = 0.0
    """When nobody looked any more."""

    async def look(self, session: aiohttp.ClientSession, broken: int) -> None:
        """Note what it holds now, after so many faults; nothing where it does not say."""
        assert self.gateway.child
        process = psutil.Process(self.gateway.child.pid)
        try:
            async with session.get(f"{self.gateway.url}/metrics") as response:
                lines = (await response.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError):
            return
        tasks = next(float(line.split()[1]) for line in lines if line.startswith("gateway_tasks "))
        wal = 0.0
        if self.database and (log := self.database.with_name(f"{self.database.name}-wal")).exists():
            wal = log.stat().st_size / _MEGABYTE
        rss = process.memory_info().rss / _MEGABYTE
        self.samples.append(Sample(time.monotonic(), rss, process.num_fds(), int(tasks), wal, broken))

    def settled(self) -> Sequence[Sample]:
        """Those after the first part."""
        if not self.samples:
            return ()
        first, last = self.samples[0].at, self.samples[-1].at
        return [sample for sample in self.samples if sample.at >= first + (last - first) * FIRST_PART]

    def faults(self) -> list[str]:
        """Which limits do not hold."""
        some = self.settled()
        if len(some) < 4:
            return [f"{self.name}: was hardly ever seen"]
        found = []
        looks = [sample.at for sample in self.samples]
        if (silent := max(after - before for before, after in pairwise([*looks, self.until or looks[-1]]))) > SILENT:
            found.append(f"{self.name}: has not answered for {silent:.0f} s")
        if self.database:
            first, most = self.samples[0].rss, max(sample.rss for sample in self.samples)
            if most > first + CACHES + BESIDE:
                found.append(f"{self.name}: resident memory has grown from {first:.0f} to {most:.0f} MB")
        elif some[-1].at - some[0].at >= TELLING:
            if (slope := slope_of(some)) >= SLOPE:
                found.append(f"{self.name}: resident memory grows by {slope:.2f} MB an hour, at most {SLOPE:g} may")
            (before, after), broken = ends(some, "rss"), some[-1].broken - some[0].broken
            if after - before > BURST + PER_FAULT * broken:
                found.append(f"{self.name}: {broken} faults left {after - before:.1f} MB of resident memory")
        for what in ("fds", "tasks"):
            before, after = ends(some, what)
            if after > before + FLAT:
                found.append(f"{self.name}: {what} have grown from {before:g} to {after:g}")
        if (wal := max(sample.wal for sample in self.samples)) >= WAL:
            found.append(f"{self.name}: the log was {wal:.1f} MB long, at most {WAL:g} may")
        return found


def slope_of(samples: Sequence[Sample]) -> float:
    """MB an hour: the median of the slopes between all pairs (Theil and Sen), which a leap does not move.

    Of pairs between the same two faults: what a fault leaves is no slope.
    """
    some = samples[:: max(len(samples) // 200, 1)]
    pairs = ((one, two) for one, two in combinations(some, 2) if two.at > one.at and two.broken == one.broken)
    slopes = [(two.rss - one.rss) / (two.at - one.at) * 3600 for one, two in pairs]
    return statistics.median(slopes) if slopes else 0.0


def ends(samples: Sequence[Sample], what: str) -> tuple[float, float]:
    """Of the first and of the last quarter: of memory the median, of all else the least, as after a burst is over."""
    values = [getattr(sample, what) for sample in samples]
    quarter = max(len(values) // 4, 1)
    of = statistics.median if what == "rss" else min
    return of(values[:quarter]), of(values[-quarter:])
