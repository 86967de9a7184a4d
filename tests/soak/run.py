"""One run: gateways under load, what happens to them, and what they are judged by at the end."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
from rich.table import Table

from gateway.store.migrate import migrate
from tests.benchmarks.scene import Scene
from tests.servers import wait_until
from tests.soak import account, faults
from tests.soak.watch import Watched, ends, slope_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from tests.servers import PostgreSQL, RabbitMQ


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen; times are in seconds."""

    seconds: float
    seed: int
    rate: float = 50.0
    """Messages a second, of all gateways together."""
    every: float = 180.0
    """From the end of one fault to the next, on average."""
    look: float = 5.0
    """From one look at the gateways to the next."""
    lasts: float = 20.0
    """A vendor's fault."""
    settled: float = 240.0
    """Given to what is left at the end, at most."""
    faults: Sequence[faults.Fault] = faults.ALL


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen."""

    watched: Sequence[Watched]
    accounts: dict[str, account.Account]
    happened: Counter[str]

    @property
    def faults(self) -> list[str]:
        """Which limits do not hold."""
        found = [f"{name}: {fault}" for name, one in self.accounts.items() for fault in one.faults]
        return found + [fault for one in self.watched for fault in one.faults()]


class Soak:
    """A run."""

    def __init__(self, folder: Path, plan: Plan, broker: RabbitMQ, database: PostgreSQL, talk: Console) -> None:
        """Take what it needs.

        Args:
            folder: for logs, ledgers and SQLite.
            plan: what is to happen.
            broker: gets two virtual hosts, and is hurt where the plan says so.
            database: gets one database; the same.
            talk: hears of every fault.
        """
        self._folder = folder
        self._plan = plan
        self._broker = broker
        self._database = database
        self._talk = talk
        self._random = Random(plan.seed)
        self._happened: Counter[str] = Counter()
        self._broken = 0
        self._scenes: dict[str, Scene] = {}
        self._stores: dict[str, str] = {}

    async def run(self) -> Report:
        """Until the time is up and nothing moves any more."""
        async with AsyncExitStack() as stack:
            sqlite = self._folder / "decorum.db"
            self._stores = {"postgres": self._database.create_database(), "sqlite": f"sqlite:///{sqlite}"}
            for name, store in self._stores.items():
                self._scenes[name] = await stack.enter_async_context(await self._scene(name, store))
            mortal = self._scenes["postgres"]
            victims = faults.Victims([*self._scenes.values()], mortal, self._broker, self._database, self._plan.lasts)
            watched = [
                Watched("PostgreSQL", mortal.gateways[0]),
                Watched("SQLite", self._scenes["sqlite"].gateways[0], sqlite),
            ]
            await self._under_load(victims, watched)
            for one in watched:
                one.until = time.monotonic()
            accounts = {name: await self._account(name) for name in self._scenes}
        return Report(watched, accounts, self._happened)

    async def _scene(self, name: str, store: str) -> Scene:
        await asyncio.to_thread(migrate, store)
        return Scene(
            self._folder / name,
            store,
            await asyncio.to_thread(self._broker.create_vhost),
            {"sms": ["a", "b"]},
            gateways=2 if name == "postgres" else 1,
            settings={vendor: {"timeout": 5} for vendor in "ab"},
            ledger=self._ledger(name),
            events=True,
        )

    def _ledger(self, name: str) -> Path:
        return self._folder / f"{name}.ledger"

    async def _under_load(self, victims: faults.Victims, watched: Sequence[Watched]) -> None:
        ending = asyncio.Event()
        rate = self._plan.rate / len(self._scenes)
        async with asyncio.TaskGroup() as group:
            for name, scene in self._scenes.items():
                group.create_task(scene.load(name, "notice", "sms", rate=rate, seconds=self._plan.seconds))
            watching = group.create_task(self._look(watched))
            failing = group.create_task(self._fail(victims, ending))
            await asyncio.sleep(self._plan.seconds)
            ending.set()
            await failing
            watching.cancel()

    async def _look(self, watched: Sequence[Watched]) -> None:
        with suppress(asyncio.CancelledError):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
                while True:
                    for one in watched:
                        await one.look(session, self._broken)
                    await asyncio.sleep(self._plan.look)

    async def _fail(self, victims: faults.Victims, ending: asyncio.Event) -> None:
        """One fault after another, each undone before the next."""
        left: list[int] = []
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.every * self._random.uniform(0.5, 1.5)):
                    await ending.wait()
                    return
            left = left or self._random.sample(range(len(self._plan.faults)), len(self._plan.faults))
            self._broken += 1
            told = await self._plan.faults[left.pop()](victims, self._random)
            self._talk.print(f"{time.strftime('%H:%M:%S')} {told}")
            self._happened[told] += 1

    async def _account(self, name: str) -> account.Account:
        """Wait until nothing moves any more, and see what became of everything."""
        scene = self._scenes[name]

        async def at_rest() -> bool:
            await asyncio.sleep(0.5)
            rows = await self._rows(name)
            return len(rows) >= len(scene.confirmed) and not any(due for _, _, due in rows)

        with suppress(AssertionError):  # what still waits then is told of as waiting
            await wait_until(at_rest, self._plan.settled)
        return account.settle(scene.confirmed, account.ledger(self._ledger(name)), await self._rows(name))

    async def _rows(self, name: str) -> list[tuple[str, int, bool]]:
        if name == "sqlite":
            return await asyncio.to_thread(self._rows_of_sqlite)
        connection = await asyncpg.connect(self._stores[name])
        try:
            return [tuple(row) for row in await connection.fetch(account.ASK)]
        finally:
            await connection.close()

    def _rows_of_sqlite(self) -> list[tuple[str, int, bool]]:
        with closing(sqlite3.connect(self._folder / "decorum.db")) as connection:
            return connection.execute(account.ASK).fetchall()


def tell(report: Report, console: Console) -> None:
    """As tables; the last line says whether all has held."""
    grown = Table(title="Gateways that are never killed, after the first third", title_justify="left")
    for heading in ("store", "minutes", "RSS MB", "MB/h between faults", "fds", "tasks", "log MB, most"):
        grown.add_column(heading, justify="left" if heading == "store" else "right")
    for one in report.watched:
        if some := one.settled():
            told = {what: "{:.4g} → {:.4g}".format(*ends(some, what)) for what in ("rss", "fds", "tasks")}
            minutes = (some[-1].at - some[0].at) / 60
            wal = f"{max(sample.wal for sample in one.samples):.1f}" if one.database else ""
            slope = f"{slope_of(some):+.2f}"
            grown.add_row(one.name, f"{minutes:.1f}", told["rss"], slope, told["fds"], told["tasks"], wal)
    console.print(grown)
    settled = Table(title="Requests, by the vendors' ledgers", title_justify="left")
    for heading in ("store", "confirmed", "handed over", "unknown", "waiting", "lost", "doubled", "false"):
        settled.add_column(heading, justify="left" if heading == "store" else "right")
    for name, one in report.accounts.items():
        numbers = (one.confirmed, one.handed_over, one.unknown, one.waiting)
        settled.add_row(name, *map(str, numbers), *(str(len(x)) for x in (one.lost, one.doubled, one.false)))
    console.print(settled)
    for told, times in sorted(report.happened.items()):
        console.print(f"{times:4d}  {told}")
    for fault in report.faults:
        console.print(fault, style="red", markup=False)
    lost, doubled = (sum(len(getattr(one, what)) for one in report.accounts.values()) for what in ("lost", "doubled"))
    console.print(
        f"soak: {sum(report.happened.values())} faults, lost {lost}, doubled {doubled}, "
        f"{'limits hold' if not report.faults else f'{len(report.faults)} limits do not hold'}"
    )
