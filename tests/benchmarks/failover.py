"""What does it cost that a provider fails while another could take its messages?

The first provider of the route refuses connections for half of the fault, and then answers what its vendor documents
as "not processed". Each run stands beside the same without a fault.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from rich.table import Table

from tests.benchmarks.scene import Scene, times
from tests.benchmarks.spread import percentile
from tests.benchmarks.steered import FAIL, OK, REFUSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tests.benchmarks.scene import Servers

RATE = 200
BEFORE = 4.0
"""Seconds without a fault, first."""
AFTER = 6.0
"""Seconds at the end in which it is over."""
_PAID = "select count(distinct message) from attempts where provider = 'a' and state not in ('accepted', 'intent')"


@dataclass(frozen=True, slots=True)
class Run:
    """One run."""

    workers: int
    fault: bool
    messages: int
    """That were published while the fault lasted, or would have."""
    p50: float
    """Milliseconds from publishing to being accepted, of those messages."""
    p99: float
    worst: float
    paid: int
    """Messages that were tried at the provider that failed, and had to be tried again."""
    lost: int
    doubled: int


async def run(
    servers: Servers, workers: int, *, fault: bool, seconds: float, before: float = BEFORE, after: float = AFTER
) -> Run:
    """One run of ``seconds`` of fault."""
    database, broker = await servers.database(), await servers.vhost()
    folder = Path(tempfile.mkdtemp(dir=servers.folder))
    async with Scene(folder, database, broker, {"sms": ["a", "b"]}, gateways=workers) as scene:
        load = asyncio.create_task(scene.load("m", "notice", "sms", rate=RATE, seconds=before + seconds + after))
        try:
            await asyncio.sleep(before)
            for mode in (REFUSE, FAIL) if fault else (OK, OK):
                await scene.vendors.set("a", mode)
                await asyncio.sleep(seconds / 2)
            await scene.vendors.set("a", OK)
            published = await load
        finally:
            load.cancel()
        notes = await scene.handed_over("m-", published)
        for gateway in scene.gateways:
            await gateway.drain()
        paid = await _paid(database)
    found = times(notes)
    first = min(at for _, at, _ in found.values()) + before
    within = [took for _, at, took in found.values() if first <= at < first + seconds]
    return Run(
        workers,
        fault,
        len(within),
        percentile(within, 0.5),
        percentile(within, 0.99),
        max(within),
        paid,
        published - len(found),
        len(notes) - len(found),
    )


async def _paid(database: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        return int(await connection.fetchval(_PAID))
    finally:
        await connection.close()


async def main(
    servers: Servers, rounds: int, seconds: float, workers: Sequence[int], console: Console, talk: Console
) -> dict[str, Any]:
    """All runs, without and with the fault by turns."""
    runs: list[Run] = []
    try:
        for _ in range(rounds):
            for count in workers:
                for fault in (False, True):
                    runs.append(await run(servers, count, fault=fault, seconds=seconds))
                    talk.print(str(runs[-1]), soft_wrap=True)
    finally:
        console.print(_table(runs, seconds))
    return {"runs": [asdict(run) for run in runs]}


def _table(runs: Sequence[Run], seconds: float) -> Table:
    title = f"A provider fails for {seconds:g} s at {RATE} messages a second; ms from publishing to acceptance, medians"
    shown = Table(title=title, title_justify="left")
    for heading in ("workers", "", "messages", "p50", "p99", "added p99", "worst", "paid", "paid %", "lost", "doubled"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for count in sorted({run.workers for run in runs}):
        fine = [run for run in runs if run.workers == count and not run.fault]
        bad = [run for run in runs if run.workers == count and run.fault]
        added = [with_.p99 - without.p99 for with_, without in zip(bad, fine, strict=False)]
        for name, some in (("no fault", fine), ("fault", bad)):
            if not some:
                continue
            shown.add_row(
                str(count),
                name,
                f"{sum(run.messages for run in some)}",
                *(f"{statistics.median([getattr(run, what) for run in some]):.0f}" for what in ("p50", "p99")),
                f"{statistics.median(added):+.0f}" if added and some is bad else "",
                f"{max(run.worst for run in some):.0f}",
                str(sum(run.paid for run in some)),
                f"{100 * sum(run.paid for run in some) / max(sum(run.messages for run in some), 1):.2f}",
                str(sum(run.lost for run in some)),
                str(sum(run.doubled for run in some)),
            )
    return shown
