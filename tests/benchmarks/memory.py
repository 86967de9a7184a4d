"""How much does a gateway hold while a million messages wait in its store?

One message is accepted by the gateway itself, and its rows are copied with other ids: nine of ten wait for tomorrow,
the others wait now, for a provider whose pace hands over ten a second. The same is done with a fiftieth of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import asyncpg
import orjson
import psutil
from rich.table import Table

from gateway.store.migrate import migrate
from tests.benchmarks.scene import Scene, request
from tests.servers import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

Kind = Literal["sqlite", "postgres"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgres")
MESSAGES = 1_000_000
FEW = 20_000
_DUE = 10
"""One in so many waits now."""
_SETTLING = 20.0
"""Seconds until the start is over."""
_COPIES = {
    "messages": {"id": "{id}", "request": "{request}", "person": "{person}", "starts_at": "{starts_at}"},
    "due": {"message": "{id}", "person": "{person}", "starts_at": "{starts_at}", "due_at": "{starts_at}"},
    "requests": {"id": "{request}", "message": "{id}"},
    "profiles": {"person": "{person}"},
}
"""What differs from copy to copy, by table and column; all else is as the gateway wrote it."""
_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """One gateway's memory, in MB."""

    store: Kind
    waiting: int
    settled: float
    later: float
    minutes: float
    """Between the two."""
    handed_over: int
    """Messages, in all."""

    @property
    def slope(self) -> float:
        """MB an hour."""
        return (self.later - self.settled) / self.minutes * 60


async def measure(folder: Path, store: str, kind: Kind, count: int, seconds: float) -> Held:
    """One gateway with so many waiting messages, looked at twice."""
    settings = {"vendor": {"pace": "10/s"}}
    async with Scene(folder, store, None, {"sms": ["vendor"]}, settings=settings) as scene:
        await _one(scene)
        assert not await scene.gateways[0].drain()
        await asyncio.to_thread(_multiplied, store, kind, count)
        gateway = scene.gateways[0].start()
        await gateway.ready()
        await asyncio.sleep(min(_SETTLING, seconds))
        first, begun = _rss(gateway.child), time.monotonic()
        await asyncio.sleep(seconds)
        minutes, last = (time.monotonic() - begun) / 60, _rss(gateway.child)
        handed_over = await scene.vendors.count()
        waiting = await _waiting(gateway.url)
        if not handed_over or waiting < count / _DUE / 2:
            raise AssertionError(f"{handed_over} handed over, {waiting} due: this is not what was to be measured")
    return Held(kind, count, first, last, minutes, handed_over)


async def _one(scene: Scene) -> None:
    """Have the gateway accept one message, which the others are copies of; it may not go before tomorrow."""
    fields = orjson.loads(request("seed", "offer", "sms", 0))
    tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json"}
        url = f"{scene.gateways[0].url}/v1/messages"
        del fields["source"]
        body = orjson.dumps({**fields, "not_before": tomorrow})
        async with session.post(url, data=body, headers=headers) as response:
            if response.status != 202:
                raise AssertionError(await response.text())


def _multiplied(store: str, kind: Kind, count: int) -> None:
    """Copy the rows of the one message."""
    if kind == "sqlite":
        # Autocommit, for each statement is large enough to be a transaction.
        with closing(sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            for table in _COPIES:
                columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
                connection.execute(_copying(table, columns, count, kind))
        return
    asyncio.run(_multiplied_on_postgres(store, count))


async def _multiplied_on_postgres(store: str, count: int) -> None:
    connection = await asyncpg.connect(store)
    try:
        for table in _COPIES:
            rows = await connection.fetch(
                "select column_name from information_schema.columns where table_name = $1 order by ordinal_position",
                table,
            )
            await connection.execute(_copying(table, [row[0] for row in rows], count, "postgres"), timeout=600)
            await connection.execute(f"vacuum analyze {table}", timeout=600)
    finally:
        await connection.close()


def _copying(table: str, columns: Sequence[str], count: int, kind: Kind) -> str:
    """The statement: copies are numbered from 1, every tenth is due now."""
    number = "printf('%07d', n)" if kind == "sqlite" else "lpad(n::text, 7, '0')"
    key = {"messages": "id", "requests": "message"}.get(table, "message")
    values = {
        "id": f"substr({key}, 1, 19) || {number}",
        "request": f"'copy-' || {number}",
        "person": f"'user-' || {number}",
        "starts_at": f"case when n % {_DUE} = 0 then starts_at - 86400000000 else starts_at end",
    }
    told = {column: value.format_map(values) for column, value in _COPIES[table].items()}
    chosen = ", ".join(told.get(column, column) for column in columns)
    return (
        f"with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {count})"
        f" insert into {table} ({', '.join(columns)}) select {chosen} from {table}, numbers"
    )


async def _waiting(url: str) -> int:
    """How many are due, as the gateway says itself."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("gateway_due_messages "))))


def _rss(child: Any) -> float:
    return float(psutil.Process(child.pid).memory_info().rss / _MEGABYTE)


async def main(folder: Path, counts: Sequence[int], seconds: float, console: Console, talk: Console) -> dict[str, Any]:
    """Both stores, with few and with many."""
    found: list[Held] = []
    try:
        with PostgreSQL.start() as server:
            for count in counts:
                for kind in KINDS:
                    part = folder / f"{kind}-{count}"
                    part.mkdir(parents=True)
                    store = f"sqlite:///{part / 'decorum.db'}" if kind == "sqlite" else server.create_database()
                    await asyncio.to_thread(migrate, store)
                    found.append(await measure(part, store, kind, count, seconds))
                    talk.print(str(found[-1]), soft_wrap=True)
    finally:
        console.print(_table(found))
    return {"runs": [asdict(held) for held in found]}


def _table(found: Sequence[Held]) -> Table:
    shown = Table(title="Resident memory of a gateway, in MB, while messages wait", title_justify="left")
    for heading in ("store", "waiting", "settled", "later", "minutes", "MB/h", "handed over"):
        shown.add_column(heading, justify="left" if heading == "store" else "right")
    for held in found:
        shown.add_row(
            held.store,
            f"{held.waiting:,}",
            f"{held.settled:.1f}",
            f"{held.later:.1f}",
            f"{held.minutes:.1f}",
            f"{held.slope:+.1f}",
            str(held.handed_over),
        )
    return shown
