"""Where the gateway's time goes: one run under py-spy, and PostgreSQL's own count of statements."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tests.benchmarks.contests import through_broker
from tests.benchmarks.ground import ROOT
from tests.servers import Child, ServerMissing, spawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

    from tests.benchmarks.contests import Gateway
    from tests.benchmarks.ground import Ground
    from tests.benchmarks.measure import Run

RATE = 400
"""Samples a second."""
_TOP = 40

_STAGES = (
    ("relay: read and publish events", ("_relay (",)),
    ("intake: store.accept", ("accept (gateway/store/__init__",)),
    ("intake: the rest (decode, validate)", ("_work (gateway/broker",)),
    ("worker: lease", ("_lease (gateway/worker",)),
    ("worker: claim", ("_claim_all (",)),
    ("worker: settle", ("_settle_all (",)),
    ("worker: provider call", ("_attempt (gateway/pipeline",)),
    ("worker: task a message, batching", ("_deliver (gateway/worker", "_start (gateway/pipeline", "_fly (")),
    ("AMQP connection (aiormq)", ("aiormq/",)),
    ("HTTP connection (aiohttp)", ("aiohttp/",)),
    ("PostgreSQL connection (asyncpg)", ("asyncpg/",)),
)
"""What part of the job a stack belongs to: the first whose mark is in it."""

_STATEMENTS = """
    select calls, rows, round(total_exec_time::numeric, 1), left(regexp_replace(query, '\\s+', ' ', 'g'), 99)
    from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = '{database}'
    order by total_exec_time desc limit 30"""


async def profile(ground: Ground, messages: int, output: Path, console: Console) -> Run:
    """Run (b) once, and print what the profile says. ``output`` gets the stacks, for flamegraph.pl or speedscope."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise ServerMissing("py-spy is not installed: make bench installs it")

    def attached(gateway: Gateway) -> Child:
        command = [program, "record", "--pid", str(gateway.child.pid), "--rate", str(RATE), "--format", "raw"]
        command += ["--full-filenames", "--output", str(output)]
        return spawn(command, ground.folder / "py-spy.log", cwd=ROOT)

    ran: list[tuple[Any, ...]] = []

    async def look(database: str) -> None:
        name = database.rsplit("/", 1)[1]
        await ground.sql(ground.postgres.url, "create extension if not exists pg_stat_statements")
        ran.extend(await ground.sql(ground.postgres.url, _STATEMENTS.format(database=name)))

    run = await through_broker(ground, messages, "profile", attached, look)
    stacks = read(output)
    for title, counted in (
        ("Self time by library and module", by_module(stacks)),
        ("By part of the job", by_stage(stacks)),
        ("Self time by function", by_function(stacks)),
    ):
        console.print(_table(title, counted))
    statements = Table("calls", "rows", "ms", "statement", title="PostgreSQL, by time", title_justify="left")
    for calls, rows, spent, statement in ran:
        statements.add_row(str(calls), str(rows), str(spent), statement)
    console.print(statements)
    return run


_IDLE = re.compile(r"_worker \([^;]*concurrent/futures/thread\.py:\d+\)$")
"""A thread that waits for work, which py-spy takes for one that works."""

Stacks = list[tuple[list[str], int]]
"""Frames from the outermost on, and how often they were seen."""


def read(output: Path) -> Stacks:
    """What ``--format raw`` writes."""
    stacks = []
    for line in output.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        if not _IDLE.search(frames):
            stacks.append(([_short(frame) for frame in frames.split(";")], int(count)))
    return stacks


def _short(frame: str) -> str:
    """``function (package/file.py:line)``."""
    frame = re.sub(r"\(.*/site-packages/", "(", frame)
    frame = re.sub(r"\(.*/lib/python3\.\d+/", "(python/", frame)
    return frame.replace(f"{ROOT}/", "")


def module(frame: str) -> str:
    """What a frame belongs to: a module of ours, or a whole library."""
    found = re.search(r"\((.*?)(?::\d+)?\)$", frame)
    path = found[1] if found else frame
    for ours in ("gateway/", "providers/", "ratelimit/"):
        if path.startswith(ours):
            return path.removesuffix(".py")
    if path.startswith("python/asyncio/"):
        return "asyncio: loop, C code under it, system calls" if "runners" in path else "asyncio"
    return path.removeprefix("python/").split("/")[0].removesuffix(".py")


def by_module(stacks: Stacks) -> Mapping[str, int]:
    """Self time."""
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        counted[module(frames[-1])] += count
    return counted


def by_function(stacks: Stacks) -> Mapping[str, int]:
    """Self time, lines of a function together."""
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        counted[re.sub(r":\d+\)$", ")", frames[-1])] += count
    return counted


def by_stage(stacks: Stacks) -> Mapping[str, int]:
    """Time of a part and all that it calls."""
    counted: Counter[str] = Counter()
    for frames, count in stacks:
        whole = ";".join(frames)
        counted[next((stage for stage, marks in _STAGES if any(mark in whole for mark in marks)), "the rest")] += count
    return counted


def _table(title: str, counted: Mapping[str, int]) -> Table:
    shown = Table("share", "", title=title, title_justify="left")
    total = sum(counted.values()) or 1
    for name, count in _largest(counted.items()):
        shown.add_row(f"{100 * count / total:.1f} %", name)
    return shown


def _largest(items: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(items, key=lambda item: -item[1])[:_TOP]
