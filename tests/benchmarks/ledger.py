"""Does a decision cost the same however long the ledger is? ``python -m tests.benchmarks ledger``."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import yaml
from rich.table import Table

from gateway.app import App
from gateway.config import parse
from gateway.decide import accepted
from gateway.ids import new_id
from gateway.intake import Incoming
from gateway.message import Priority
from gateway.store import Claimed, Settlement
from gateway.store.migrate import migrate
from providers import Channel
from tests.benchmarks.workload import configuration, request, zone
from tests.servers import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

SIZES = (10_000, 1_000_000)
EACH = 10
"""Contacts of a person in the last month, whatever the size: what grows is the number of persons."""
_BATCH = 128
_ROOMY = 1000
"""Limit of each cap: all of them are asked, none refuses."""

_DAY = 86_400_000_000
_CONTACTS = """
    insert into contacts (attempt, person, message, channel, category, campaign, zone, begun_at, ended_at)
    select {attempt}, {person}, {attempt}, 'sms', 'reactivation', 'summer-2026', 'Europe/Berlin',
        {now} - (n / {persons}) * 3 * {day} - {day}, {now} - (n / {persons}) * 3 * {day} - {day} + 100000
    from {series}"""
_PROFILES = "insert into profiles (person, profile, updated_at) select {person}, '{{}}', {now} from {series}"


@dataclass(slots=True)
class Ledger:
    """A store whose ledger has so many rows, and what claims took on it."""

    engine: str
    rows: int
    app: App
    seconds: list[float] = field(default_factory=list)
    """A claim, each round."""


async def main(sizes: Sequence[int], rounds: int, claims: int, console: Console) -> list[dict[str, Any]]:
    """Print claims a second on each engine and size, in turn so that what drifts meets all."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decorum-bench-")))
        settings = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
        server = stack.enter_context(await asyncio.to_thread(PostgreSQL.start, None, settings))
        ledgers = []
        for rows in sizes:
            stores = {"PostgreSQL": server.create_database(), "SQLite": f"sqlite:///{folder}/{rows}.db"}
            for engine, url in stores.items():
                if engine == "SQLite" and rows > max(SIZES):
                    continue
                await asyncio.to_thread(migrate, url)
                began = time.monotonic()
                await _fill(url, rows)
                console.print(f"{engine}: {rows:,} rows in {time.monotonic() - began:.1f} s", soft_wrap=True)
                app = App(_config(url))
                await app.store.open()
                stack.push_async_callback(app.store.close)
                ledgers.append(Ledger(engine, rows, app))
        for number in range(rounds + 1):
            for ledger in ledgers:
                spent = await _claims(ledger, claims, f"{ledger.engine}-{number}")
                if number:  # the first fills caches
                    ledger.seconds.append(spent)
    return _told(ledgers, console)


def _config(url: str) -> Any:
    said = configuration(store=url, broker="amqp://127.0.0.1/", vendor="http://127.0.0.1:1/", port=0)
    for cap in said["policy"]["caps"]:
        cap["limit"] = _ROOMY
    return parse(yaml.safe_dump(said), {}, base=Path())


async def _fill(url: str, rows: int) -> None:
    persons = rows // EACH
    words = {"persons": str(persons), "day": str(_DAY), "now": str(time.time_ns() // 1000)}
    if url.startswith("sqlite"):
        words |= {"attempt": "printf('old-%012d', n)", "person": f"printf('user-%08d', n % {persons})"}
        series = "(with recursive s(n) as (select 0 union all select n + 1 from s where n + 1 < {}) select n from s)"
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            file.execute(_CONTACTS.format(series=series.format(rows), **words))
            file.execute(_PROFILES.format(series=series.format(persons), **words))
            file.execute("analyze")
        return
    words |= {
        "attempt": "'old-' || lpad(n::text, 12, '0')",
        "person": f"'user-' || lpad((n % {persons})::text, 8, '0')",
    }
    series = "generate_series(0, {}::bigint - 1) n"
    server = await asyncpg.connect(url)
    for statement in (
        _CONTACTS.format(series=series.format(rows), **words),
        _PROFILES.format(series=series.format(persons), **words),
        "vacuum analyze",
        "checkpoint",
    ):
        await server.execute(statement, timeout=3600)
    await server.close()


async def _claims(ledger: Ledger, count: int, run: str) -> float:
    """Seconds of one claim. The persons are the same in each round, and spread over all that there are."""
    app, persons = ledger.app, ledger.rows // EACH
    here = zone()
    step = persons // min(count, persons)
    bodies = [request(f"{run}-{n:06d}", n * step % persons, here, "campaigns") for n in range(min(count, persons))]
    for at in range(0, len(bodies), _BATCH):
        await app.intake.accept([Incoming(body, "amqp") for body in bodies[at : at + _BATCH]])
    leases, _ = await app.store.lease([(Priority.NORMAL, Channel.SMS, len(bodies))], timedelta(minutes=10))
    if len(leases) != len(bodies):
        raise AssertionError(f"{len(leases)} of {len(bodies)} messages are due")
    settlements = []
    spent = 0.0
    for at in range(0, len(leases), _BATCH):
        batch = leases[at : at + _BATCH]
        ids = [new_id() for _ in batch]
        began = time.perf_counter()
        answers = await app.store.claim(batch, app.judge, ids)
        spent += time.perf_counter() - began
        claimed = [answer for answer in answers if isinstance(answer, Claimed)]
        if len(claimed) != len(batch):
            raise AssertionError(f"{len(claimed)} of {len(batch)} were claimed; the first answer is {answers[0]}")
        settlements += [Settlement(claim, accepted("v-1")) for claim in claimed]
    for at in range(0, len(settlements), _BATCH):
        await app.store.settle(settlements[at : at + _BATCH], app.judge)
    return spent / len(leases)


def _told(ledgers: Sequence[Ledger], console: Console) -> list[dict[str, Any]]:
    shown = Table("store", "ledger rows", "claims/s", "µs", "cost ÷ smallest", title=f"Claims in batches of {_BATCH}")
    found = []
    for ledger in ledgers:
        smallest = next(other for other in ledgers if other.engine == ledger.engine)
        rates = [1 / seconds for seconds in ledger.seconds]
        ratio = statistics.median([a / b for a, b in zip(ledger.seconds, smallest.seconds, strict=True)])
        rate = statistics.median(rates)
        spread = f"{rate:,.0f} ({min(rates):,.0f}..{max(rates):,.0f})"
        shown.add_row(ledger.engine, f"{ledger.rows:,}", spread, f"{1e6 / rate:.0f}", f"{ratio:.2f}")
        found.append({"store": ledger.engine, "rows": ledger.rows, "claims_per_second": rate, "cost_ratio": ratio})
    console.print(shown)
    return found
