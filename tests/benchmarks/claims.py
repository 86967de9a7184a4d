"""What does it take to decide and commit an intent, beside asking Redis? ``python -m tests.benchmarks claims``.

The claim is the gateway's own: ``Store.claim`` of leased messages, as many as a batch holds and two batches at once, as
in its pipeline. Beside it runs a bare one, which says what the same ledger can do at most: lock the persons, read their
contacts, decide four windows, insert the places, and nothing else. Both meet each number of persons, each with the same
history, and what they write is taken away after each round, so that the history stays the same.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import yaml
from rich.table import Table

from gateway.config import parse
from gateway.decide import Judge
from gateway.ids import new_id
from gateway.intake import Accepted, Incoming, Intake
from gateway.message import Priority
from gateway.metrics import Metrics
from gateway.outcome import accepted
from gateway.store import Claimed, Settlement, Store, engine_of
from gateway.store.migrate import migrate
from providers import Channel
from tests.benchmarks.decision import WINDOWS
from tests.benchmarks.ground import cpu_seconds, pid_of
from tests.benchmarks.workload import configuration, request, zone
from tests.servers import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from rich.console import Console

    from gateway.store import Lease

PERSONS = (10_000, 1_000_000)
EACH = 10
"""Contacts of a person in the last month, whatever the number of persons."""
BATCH = 256
LANES = 2
"""Batches under way at once, as in the gateway."""
TASKS = 64
"""That ask Redis at once."""
_SQLITE = 100_000
"""Persons at most: a file of its own is what few have."""
_SETTINGS = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "1GB",
}
"""No checkpoint in the middle of a round; fsync stays on."""

CAPS = [
    {"name": "daily", "limit": 5, "per": "24h"},
    {"name": "sms-week", "limit": 3, "per": "week", "channel": "sms"},
    {"name": "campaign-month", "limit": 6, "per": "30d", "scope": ["user", "campaign"]},
]
"""With quiet hours four rules. None refuses, and none can tell without a look at the contacts themselves."""

_DAY = 86_400_000_000
_CONTACTS = """
    insert into contacts (attempt, person, message, channel, category, campaign, zone, begun_at, ended_at)
    select {attempt}, {person}, {attempt}, 'sms', 'reactivation',
        case when n / {persons} % 2 = 0 then 'summer-2026' else 'spring-2026' end, 'Europe/Berlin',
        {now} - (n / {persons}) * {apart} - {day}, {now} - (n / {persons}) * {apart} - {day} + 100000
    from {series}"""
"""Each person's contacts lie far apart on disk, as in a month in which everybody got some. There are three days between
them, so that two at most fall in any calendar week."""
_PROFILES = "insert into profiles (person, profile, updated_at) select {person}, '{{}}', {now} from {series}"
_APART = 31 * _DAY // EACH


@dataclass(slots=True)
class Contender:
    """One way to decide, and what a decision took it."""

    title: str
    persons: int
    run: Callable[[Sequence[int], Meter], Awaitable[None]]
    """Decides for persons, given by number."""
    server: int | None
    """Its process, where the decisions are asked of one."""
    seconds: list[float] = field(default_factory=list)
    """A decision, each round; what follows as well."""
    client: list[float] = field(default_factory=list)
    """Of our processor."""
    served: list[float] = field(default_factory=list)
    """Of the server's processor."""


class Meter:
    """What is spent between entering and leaving it."""

    def __init__(self, server: int | None) -> None:
        self._server = server
        self.spent = (0.0, 0.0, 0.0)
        """Seconds, and those of our processor and the server's."""

    def _read(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), cpu_seconds(self._server) if self._server else 0.0

    def __enter__(self) -> Self:
        self._begun = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        ended = self._read()
        self.spent = (ended[0] - self._begun[0], ended[1] - self._begun[1], ended[2] - self._begun[2])


@dataclass(frozen=True, slots=True)
class Asked:
    """How much of what."""

    persons: Sequence[int]
    rounds: int
    decisions: int
    """A round."""


async def main(redis: tuple[str, int], asked: Asked, console: Console) -> dict[str, Any]:
    """Print decisions a second, in turn so that what drifts meets all.

    Args:
        redis: its URL and process.
        asked: how much is measured.
        console: where the table goes.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decorum-bench-")))
        server = stack.enter_context(await asyncio.to_thread(PostgreSQL.start, None, _SETTINGS))
        url, process = redis
        title = f"limits, 4 moving windows, Redis, {TASKS} tasks"
        contenders = {"limits": Contender(title, 0, _limits(url), process)}
        empty = {"postgres": server.create_database(), "sqlite": f"sqlite:///{folder}/empty.db"}
        for url in empty.values():
            await asyncio.to_thread(migrate, url)
        for persons in asked.persons:
            copy = shutil.copy(folder / "empty.db", folder / f"{persons}.db")
            stores = {
                "postgres": server.create_database(empty["postgres"].rsplit("/", 1)[1]),
                "sqlite": f"sqlite:///{copy}",
            }
            for engine, url in stores.items():
                count = min(persons, _SQLITE) if engine == "sqlite" else persons
                began = time.monotonic()
                await fill(url, count)
                console.print(f"{engine}: {count:,} persons in {time.monotonic() - began:.0f} s", soft_wrap=True)
                claims = await stack.enter_async_context(Claims(url))
                name = "PostgreSQL" if engine == "postgres" else "SQLite"
                contenders[f"{engine}-{persons}"] = Contender(
                    f"the gateway's claim, {name}", count, claims.run, pid_of(server) if engine == "postgres" else None
                )
                if engine == "postgres":
                    bare = await stack.enter_async_context(Bare(url))
                    contenders[f"bare-{persons}"] = Contender(
                        "a bare claim, PostgreSQL", count, bare.run, pid_of(server)
                    )
        draw = random.Random(4)
        for number in range(asked.rounds + 1):
            for one in contenders.values():
                meter = Meter(one.server)
                await one.run(draw.sample(range(one.persons or max(asked.persons)), asked.decisions), meter)
                if number:  # the first fills caches
                    for figures, spent in zip((one.seconds, one.client, one.served), meter.spent, strict=True):
                        figures.append(spent / asked.decisions)
    return _told(contenders, console)


# ------------------------------------------------------------------------------------------------------- the gateway's


class Claims:
    """A store of the gateway's, and its claims."""

    def __init__(self, url: str) -> None:
        said = configuration(store=url, broker="amqp://127.0.0.1/", vendor="http://127.0.0.1:1/", port=0)
        said["policy"]["caps"] = CAPS
        config = parse(yaml.safe_dump(said), {}, base=Path())
        self.judge = Judge(
            policy=config.policy,
            number=1,
            routes=config.routes,
            patience={"vendor": timedelta(seconds=10)},
            span=config.worker.attempt,
            events=config.events.states,
        )
        self.store = Store(engine_of(url, lambda: time.time_ns() // 1000))
        self._intake = Intake(self.store, lambda: self.judge, Metrics("bench"))
        self._url = url
        self._here = zone()
        self._runs = itertools.count()

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def run(self, persons: Sequence[int], meter: Meter) -> None:
        """Claim one message of each, and settle it."""
        leases = await self.leased(persons)
        batches = [leases[at : at + BATCH] for at in range(0, len(leases), BATCH)]
        claimed: list[Claimed] = []

        async def lane() -> None:
            while batches:
                claimed.extend(await self.claim(batches.pop()))

        with meter:
            await asyncio.gather(*(lane() for _ in range(LANES)))
        for at in range(0, len(claimed), BATCH):
            settled = [Settlement(claim, accepted("v-1")) for claim in claimed[at : at + BATCH]]
            await self.store.settle(settled, self.judge)
        await forget(self._url)

    async def leased(self, persons: Sequence[int]) -> list[Lease]:
        """A message of each, leased."""
        run = next(self._runs)
        bodies = [request(f"{run}-{n:06d}", person, self._here, "campaigns") for n, person in enumerate(persons)]
        for at in range(0, len(bodies), BATCH):
            answers = await self._intake.accept([Incoming(body, "amqp") for body in bodies[at : at + BATCH]])
            assert all(isinstance(answer, Accepted) for answer in answers), answers[0]
        wanted = [(Priority.NORMAL, Channel.SMS, len(bodies))]
        leases, _ = await self.store.lease(wanted, timedelta(minutes=10))
        assert len(leases) == len(bodies), f"{len(leases)} of {len(bodies)} messages are due"
        return leases

    async def claim(self, leases: Sequence[Lease]) -> list[Claimed]:
        """All of them, none refused."""
        answers = await self.store.claim(leases, self.judge, [new_id() for _ in leases])
        claimed = [answer for answer in answers if isinstance(answer, Claimed)]
        assert len(claimed) == len(leases), f"{len(claimed)} of {len(leases)} were claimed; the first: {answers[0]}"
        return claimed


# ------------------------------------------------------------------------------------------------------------- the bare


class Bare:
    """The least that caps on the same ledger can be had for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record]

    async def __aenter__(self) -> Self:
        self._pool = await asyncpg.create_pool(self._url, min_size=LANES, max_size=LANES)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def run(self, persons: Sequence[int], meter: Meter) -> None:
        """Give a place to each."""
        batches = [persons[at : at + BATCH] for at in range(0, len(persons), BATCH)]

        async def lane() -> None:
            while batches:
                await self._claim([f"user-{person:08d}" for person in batches.pop()])

        with meter:
            await asyncio.gather(*(lane() for _ in range(LANES)))
        await forget(self._url)

    async def _claim(self, persons: Sequence[str]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetch(_LOCK, sorted(persons))
            now = time.time_ns() // 1000
            history: dict[str, list[int]] = defaultdict(list)
            for person, ended in await connection.fetch(_HISTORY, persons, now - 31 * _DAY):
                history[person].append(ended)
            allowed = [person for person in persons if _permitted(sorted(history[person]), now)]
            assert len(allowed) == len(persons)
            await connection.execute(_PLACES, [new_id() for _ in allowed], allowed, now)


_LOCK = "select person from profiles where person = any($1) order by person for update"
_HISTORY = "select person, ended_at from contacts where person = any($1) and begun_at > $2 and counts = 1"
_PLACES = (
    "insert into contacts (attempt, person, message, channel, category, campaign, zone, begun_at, ended_at)"
    " select id, person, id, 'sms', 'reactivation', 'summer-2026', 'Europe/Berlin', $3, $3"
    " from unnest($1::text[], $2::text[]) as v(id, person)"
)
_FOUR = ((5, _DAY // 1440), (20, _DAY // 24), (50, _DAY), (100, 7 * _DAY))
"""The windows that ``limits`` is asked for: how many, and in how many microseconds."""


def _permitted(ended: Sequence[int], now: int) -> bool:
    return all(len(ended) < limit or ended[-limit] <= now - window for limit, window in _FOUR)


# ---------------------------------------------------------------------------------------------------------------- Redis


def _limits(redis: str) -> Callable[[Sequence[int], Meter], Awaitable[None]]:
    from limits import parse_many
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter
    from redis.asyncio import BlockingConnectionPool

    connections = BlockingConnectionPool.from_url(redis, max_connections=TASKS, timeout=None)
    storage = RedisStorage(f"async+{redis}", implementation="redispy", connection_pool=connections)  # type: ignore[arg-type]
    limiter = MovingWindowRateLimiter(storage)
    limits = parse_many(WINDOWS)

    async def run(persons: Sequence[int], meter: Meter) -> None:
        left = list(persons)

        async def task() -> None:
            while left:
                person = f"user-{left.pop():08d}"
                for limit in limits:
                    await limiter.hit(limit, person)

        with meter:
            await asyncio.gather(*(task() for _ in range(TASKS)))

    return run


# ----------------------------------------------------------------------------------------------------------- the ledger


async def fill(url: str, persons: int) -> None:
    """Persons with their contacts of the last month, into tables that are empty."""
    words = {"persons": str(persons), "day": str(_DAY), "apart": str(_APART), "now": str(time.time_ns() // 1000)}
    if url.startswith("sqlite"):
        words |= {"attempt": "printf('old-%012d', n)", "person": f"printf('user-%08d', n % {persons})"}
        series = "(with recursive s(n) as (select 0 union all select n + 1 from s where n + 1 < {}) select n from s)"
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            file.execute(_CONTACTS.format(series=series.format(persons * EACH), **words))
            file.execute(_PROFILES.format(series=series.format(persons), **words))
            file.execute("analyze")
        return
    words |= {
        "attempt": "'old-' || lpad(n::text, 12, '0')",
        "person": f"'user-' || lpad((n % {persons})::text, 8, '0')",
    }
    series = "generate_series(0, {}::bigint - 1) n"
    server = await asyncpg.connect(url)
    # Indexes are built faster over all rows than with each.
    indexes = await server.fetch(
        "select indexname, indexdef from pg_indexes where tablename = 'contacts' and indexname <> 'contacts_pkey'"
    )
    for statement in (
        "alter table contacts drop constraint contacts_pkey",
        *(f"drop index {name}" for name, _ in indexes),
        _CONTACTS.format(series=series.format(persons * EACH), **words),
        _PROFILES.format(series=series.format(persons), **words),
        "alter table contacts add primary key (attempt)",
        *(definition for _, definition in indexes),
        "vacuum analyze",
        "checkpoint",
    ):
        await server.execute(statement, timeout=3600)
    await server.close()


async def forget(url: str) -> None:
    """Take away the places of the last round, and all that came with them."""
    statements = ["delete from contacts where attempt not like 'old-%'", *map("delete from {}".format, _WRITTEN)]
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
            for statement in statements:
                file.execute(statement)
        return
    server = await asyncpg.connect(url)
    # By the key's order: ours are never below ``old-``, and begin with a digit.
    await server.execute("delete from contacts where attempt < 'old-'", timeout=600)
    for table in _WRITTEN:
        await server.execute(f"truncate {table}")
    await server.close()


_WRITTEN = ("attempts", "messages", "requests", "due", "decisions", "outbox")


def _told(contenders: Mapping[str, Contender], console: Console) -> dict[str, Any]:
    title = (
        f"Decisions committed, batches of {BATCH}, {LANES} at once: medians (min..max), medians of the rounds' ratios"
    )
    shown = Table(title=title, title_justify="left")
    headings = ("", "persons", "decisions/s", "÷ limits", "cost ÷ fewest persons", "our CPU µs", "server's CPU µs")
    for heading in headings:
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    found = {}
    fewest: dict[str, Contender] = {}
    for name, one in contenders.items():
        first = fewest.setdefault(one.title, one)
        rates = [1 / seconds for seconds in one.seconds]
        times = _ratio(contenders["limits"], one)
        cost = _ratio(one, first)
        shown.add_row(
            one.title,
            f"{one.persons:,}" if one.persons else "",
            f"{statistics.median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f})",
            f"{times:.2f}",
            f"{cost:.2f}" if first is not one else "",
            f"{statistics.median(one.client) * 1e6:.0f}",
            f"{statistics.median(one.served) * 1e6:.0f}" if one.server else "",
        )
        found[name] = {
            "persons": one.persons,
            "rate": statistics.median(rates),
            "ratio_to_limits": times,
            "cost_ratio": cost,
            "client_us": statistics.median(one.client) * 1e6,
            "server_us": statistics.median(one.served) * 1e6,
        }
    console.print(shown)
    return found


def _ratio(one: Contender, other: Contender) -> float:
    return statistics.median([a / b for a, b in zip(one.seconds, other.seconds, strict=True)])
