"""Does one channel wait for another's trouble, and does a one-time code wait for a campaign?

Hanging: the provider of one channel takes 30 s for every call, while another channel's messages go on.
Codes: 20 one-time codes a second, alone, and while a campaign is published and handed over by the same provider.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gateway.broker import Topology
from gateway.message import Priority
from tests.benchmarks.ground import ROOT
from tests.benchmarks.scene import Scene, request, times
from tests.benchmarks.spread import histogram, percentile
from tests.benchmarks.steered import HANG
from tests.servers import Child, ServerMissing, spawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tests.benchmarks.scene import Servers

HANGS = 30.0
"""Seconds that a call takes."""
_PUSHES, _TEXTS = 50, 100
"""A second, of the channel that is looked at and of the one in trouble."""
_CODES = 20
_VENDOR = 0.03
"""Seconds that a well vendor takes."""
TWICE = 2.0
CODES_WITHIN = 250.0
"""Milliseconds from publishing to hand-off, p99."""
TENFOLD = 10.0
_PATIENT = {"timeout": 60}
_PEOPLE = 1_000_000
"""Where the numbers of a campaign's persons begin."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How long, in seconds, and how often."""

    rounds: int = 3
    before: float = 15.0
    during: float = 30.0
    campaign: int = 200_000
    alone: float = 30.0
    under: float = 90.0


@dataclass(frozen=True, slots=True)
class Spread:
    """What times come to, in milliseconds."""

    messages: int
    p50: float
    p99: float
    worst: float


def spread(milliseconds: Sequence[float]) -> Spread:
    """Of at least one."""
    return Spread(len(milliseconds), percentile(milliseconds, 0.5), percentile(milliseconds, 0.99), max(milliseconds))


# ------------------------------------------------------------------------------------------------------------- hanging


async def hanging(servers: Servers, before: float, during: float) -> tuple[list[float], list[float]]:
    """Milliseconds of one channel, while the other is well and while its provider hangs."""
    database, broker = await servers.database(), await servers.vhost()
    routes = {"sms": ["slow"], "push": ["quick"]}
    folder = Path(tempfile.mkdtemp(dir=servers.folder))
    async with Scene(folder, database, broker, routes, settings={"slow": _PATIENT}) as scene:
        for vendor in ("slow", "quick"):
            await scene.vendors.set(vendor, HANG, _VENDOR)
        seconds = before + during
        loads = [
            asyncio.create_task(scene.load("p", "notice", "push", rate=_PUSHES, seconds=seconds)),
            asyncio.create_task(scene.load("t", "notice", "sms", rate=_TEXTS, seconds=seconds, first=_PEOPLE)),
        ]
        begun = time.monotonic()
        try:
            await asyncio.sleep(before)
            await scene.vendors.set("slow", HANG, HANGS)
            turned = time.monotonic()
            pushes, _ = await asyncio.gather(*loads)
        finally:
            for load in loads:
                load.cancel()
        notes = await scene.handed_over("p-", pushes)
    found = [(at, took) for _, at, took in times(notes).values()]
    warm = begun + min(2.0, before / 2)
    return [took for at, took in found if warm <= at < turned], [took for at, took in found if at >= turned]


# --------------------------------------------------------------------------------------------------------------- codes


async def codes(servers: Servers, campaign: int, alone: float, under: float) -> tuple[list[float], list[float], int]:
    """Milliseconds of codes, alone and under a campaign; and how much of it was handed over meanwhile."""
    database, broker = await servers.database(), await servers.vhost()
    folder = Path(tempfile.mkdtemp(dir=servers.folder))
    async with Scene(folder, database, broker, {"sms": ["vendor"]}) as scene:
        await scene.vendors.set("vendor", HANG, _VENDOR)
        lines = folder / "campaign"
        await asyncio.to_thread(_write, lines, campaign)
        load = asyncio.create_task(scene.load("c", "code", "sms", rate=_CODES, seconds=alone + under))
        begun = time.monotonic()
        with ExitStack() as stack:
            stack.callback(load.cancel)
            await asyncio.sleep(alone)
            turned = time.monotonic()
            stack.enter_context(_published(broker, lines, folder))
            published = await load
            handed_over = await scene.vendors.count() - published
        notes = await scene.handed_over("c-", published)
    found = [(at, took) for _, at, took in times(notes).values()]
    warm = begun + min(2.0, alone / 2)
    return (
        [took for at, took in found if warm <= at < turned],
        [took for at, took in found if at >= turned],
        handed_over,
    )


def _write(lines: Path, count: int) -> None:
    with lines.open("wb") as file:
        for number in range(count):
            file.write(request(f"o-{number}", "offer", "sms", _PEOPLE + number) + b"\n")


def _published(broker: str, lines: Path, folder: Path) -> Child:
    """A client in C that publishes each line, as fast as the broker takes it, and stays."""
    program = shutil.which("amqp-publish")
    if program is None:
        raise ServerMissing("amqp-publish is not installed: apt-get install amqp-tools")
    queue = Topology().queue(Priority.BULK)
    words = f"--url={broker} --exchange= --routing-key={queue} --persistent --content-type=application/json"
    script = f"( cat {lines}; exec sleep 3600 ) | exec {program} {words} --line-buffered"
    return spawn(["sh", "-c", script], folder / "publisher.log", cwd=ROOT)


# --------------------------------------------------------------------------------------------------------------- both


async def main(servers: Servers, asked: Asked, console: Console, talk: Console) -> dict[str, Any]:
    """Both, as often as asked."""
    hung: list[tuple[Spread, Spread]] = []
    coded: list[tuple[Spread, Spread]] = []
    alone: list[float] = []
    under: list[float] = []
    handed_over: list[int] = []
    try:
        for _ in range(asked.rounds):
            well, ill = await hanging(servers, asked.before, asked.during)
            hung.append((spread(well), spread(ill)))
            talk.print(f"hanging: {hung[-1]}", soft_wrap=True)
        for _ in range(asked.rounds):
            without, with_, count = await codes(servers, asked.campaign, asked.alone, asked.under)
            coded.append((spread(without), spread(with_)))
            alone += without
            under += with_
            handed_over.append(count)
            talk.print(f"codes: {coded[-1]}, {count} of the campaign handed over meanwhile", soft_wrap=True)
    finally:
        if hung:
            title = f"A channel while another's provider hangs {HANGS:g} s a call; ms from publishing to hand-off"
            console.print(_table(title, ("both well", "the other hangs"), hung))
            console.print(_verdict("p99", hung, TWICE, None))
        if coded:
            title = (
                f"One-time codes under a campaign of {asked.campaign:,}, of which {min(handed_over):,} went meanwhile"
            )
            console.print(_table(title, ("alone", "under the campaign"), coded))
            console.print(_verdict("p99", coded, TENFOLD, CODES_WITHIN))
            console.print(histogram("Milliseconds from publishing to hand-off", {"alone": alone, "campaign": under}))
    return {
        "hanging": [[asdict(one) for one in pair] for pair in hung],
        "codes": [[asdict(one) for one in pair] for pair in coded],
        "campaign_handed_over": handed_over,
    }


def _table(title: str, names: tuple[str, str], rounds: Sequence[tuple[Spread, Spread]]) -> Table:
    shown = Table("", title=title, title_justify="left")
    for heading in ("messages", "p50", "p99", "p99 of each round", "worst"):
        shown.add_column(heading, justify="right")
    for place, name in enumerate(names):
        some = [pair[place] for pair in rounds]
        shown.add_row(
            name,
            str(sum(one.messages for one in some)),
            f"{statistics.median([one.p50 for one in some]):.0f}",
            f"{statistics.median([one.p99 for one in some]):.0f}",
            " ".join(f"{one.p99:.0f}" for one in some),
            f"{max(one.worst for one in some):.0f}",
        )
    return shown


def _verdict(what: str, rounds: Sequence[tuple[Spread, Spread]], most: float, within: float | None) -> str:
    ratio = statistics.median([after.p99 / before.p99 for before, after in rounds])
    said = f"{what}: {ratio:.1f} x (at most {most:g} x: {'held' if ratio <= most else 'NOT HELD'})"
    if within is not None:
        p99 = statistics.median([after.p99 for _, after in rounds])
        said += f"; {p99:.0f} ms (at most {within:g} ms: {'held' if p99 <= within else 'NOT HELD'})"
    return said
