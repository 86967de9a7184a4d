"""One run of each contender, with the checks on: everything was done, nothing is left."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson
import yaml

from tests.benchmarks.contenders._report import Report, Task
from tests.benchmarks.ground import EVENTS, QUEUE, ROOT, cpu_seconds, rss_megabytes
from tests.benchmarks.measure import Run
from tests.benchmarks.workload import PREFETCH, configuration, requests
from tests.servers import Child, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tests.benchmarks.ground import Ground

_POLL = 0.02
_STALLED = 30.0
"""Seconds without progress after which a run has failed."""
_SLOWEST = 100
"""Messages a second."""
_BATCH = 100
_POSTERS = 4
"""Clients of HTTP intake at once."""
_STEADY = (0.2, 0.8)
"""The part of a run that is neither its beginning nor its end."""

MODULES = {"a": "bare", "d": "naive", "e": "framework"}


class Failed(AssertionError):
    """A run did not do all that it should have; says what is missing."""


@dataclass(slots=True)
class Watch:
    """Servers' CPU seconds from one instant to another."""

    ground: Ground
    begun: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        self.begun = {name: cpu_seconds(pid) for name, pid in self.ground.processes.items()}

    def spent(self, messages: int) -> dict[str, float]:
        """µs a message."""
        return {
            name: (cpu_seconds(pid) - self.begun[name]) / messages * 1e6 for name, pid in self.ground.processes.items()
        }


async def contend(name: str, ground: Ground, messages: int, number: int) -> Run:
    """Run one contender once."""
    await ground.reset()
    if name == "b":
        return await through_broker(ground, messages, f"b{number}")
    if name == "c":
        return await through_http(ground, messages, f"c{number}")
    return await consumer(name, ground, messages, f"{name}{number}")


async def consumer(name: str, ground: Ground, messages: int, run: str) -> Run:
    """A program that consumes, and reports by itself."""
    database = ground.database(naive=True) if name == "d" else ""
    await ground.preload(requests(messages, run))
    task = Task(ground.broker.url, QUEUE, messages, PREFETCH, ground.vendor_url, database, ground.redis_url)
    log = ground.folder / f"{run}.log"
    command = [
        sys.executable,
        "-m",
        f"tests.benchmarks.contenders.{MODULES[name]}",
        orjson.dumps(asdict(task)).decode(),
    ]
    watch = Watch(ground)
    watch.begin()
    with spawn(command, log, cwd=ROOT) as child:
        try:
            status = await asyncio.to_thread(child.wait, _STALLED + messages / _SLOWEST)
        except subprocess.TimeoutExpired:
            raise Failed(f"{MODULES[name]} has not ended:\n{child.text[-4000:]}") from None
        if status:
            raise Failed(f"{MODULES[name]} has ended with {status}:\n{child.text[-4000:]}")
        report = Report(**orjson.loads(child.text.splitlines()[-1]))
    servers = watch.spent(messages)
    found = {"left in the queue": (await _left(ground), 0)}
    if name == "d":
        rows = await ground.sql(database, "select count(*), count(distinct person) from records")
        found |= {"records": (rows[0][0], messages), "calls": (await ground.vendor_count(), messages)}
        ground.drop(database)
    _check(found)
    return Run(name, messages, report.seconds, report.cpu / messages * 1e6, report.rss, servers)


async def through_broker(
    ground: Ground,
    messages: int,
    run: str,
    attached: Callable[[Gateway], Child] | None = None,
    look: Callable[[str], Awaitable[object]] | None = None,
) -> Run:
    """The gateway on PostgreSQL, with a full queue before it.

    Args:
        attached: starts what watches the process.
        look: is shown the database before it goes.
    """
    database = ground.database()
    await ground.preload(requests(messages, run))
    with _gateway(ground, run, database) as gateway:
        course = Course(ground, gateway, messages)

        async def consuming() -> bool:
            return await ground.waiting(QUEUE) < messages

        while not await consuming():
            course.alive()
            await asyncio.sleep(_POLL / 4)
        course.begin()
        watcher = attached(gateway) if attached else None
        await course.run()
        if watcher:
            watcher.signal(signal.SIGINT)
            await asyncio.to_thread(watcher.wait)
        await wait_until(lambda: _empty(ground, database), 10, "the outbox is emptied")
        await _ended(gateway)
    rows = await ground.sql(
        database,
        "select (select count(*) from attempts where state = 'accepted'), (select count(*) from due),"
        " (select count(*) from contacts), (select count(*) from messages), (select count(*) from parked)",
    )
    sent, due, contacts, accepted, parked = rows[0]
    if look:
        await look(database)
    ground.drop(database)
    _check(
        {
            "accepted requests": (accepted, messages),
            "sent": (sent, messages),
            "contacts": (contacts, messages),
            "left to do": (due, 0),
            "parked": (parked, 0),
            "calls": (await ground.vendor_count(), messages),
            "events": (await ground.waiting(EVENTS), messages),
            "left in the queue": (await _left(ground), 0),
        }
    )
    return course.result("b")


async def through_http(ground: Ground, messages: int, run: str) -> Run:
    """The gateway on SQLite, with clients that post batches."""
    import sqlite3

    file = ground.folder / f"{run}.db"
    bodies = list(requests(messages, run, source=None))
    batches = [b"\n".join(bodies[at : at + _BATCH]) for at in range(0, messages, _BATCH)]
    with _gateway(ground, run, f"sqlite:///{file}") as gateway:
        course = Course(ground, gateway, messages)
        url = f"http://127.0.0.1:{gateway.port}"
        async with aiohttp.ClientSession(url) as session:
            await wait_until(lambda: _is_ready(session, course), 30, "the gateway is ready")
            course.begin()
            post = asyncio.gather(*(_post(session, batches) for _ in range(_POSTERS)))
            try:
                await course.run(post)
            finally:
                post.cancel()
        await _ended(gateway)
    with sqlite3.connect(file) as connection:
        (counts,) = connection.execute(
            "select (select count(*) from attempts where state = 'accepted'), (select count(*) from due),"
            " (select count(*) from contacts), (select count(*) from messages)"
        ).fetchall()
    connection.close()
    file.unlink()
    _check(
        {
            "accepted requests": (counts[3], messages),
            "sent": (counts[0], messages),
            "contacts": (counts[2], messages),
            "left to do": (counts[1], 0),
            "calls": (await ground.vendor_count(), messages),
            "events": (await ground.waiting(EVENTS), messages),
        }
    )
    return course.result("c")


class Course:
    """How a run of the gateway goes on, seen from outside: by the vendor's calls and the subscriber's queue."""

    def __init__(self, ground: Ground, gateway: Gateway, messages: int) -> None:
        self._ground = ground
        self._gateway = gateway
        self._messages = messages
        self._watch = Watch(ground)
        self._begun = self._ended = 0.0
        self._cpu = 0.0
        self._rss = 0.0
        self._servers: dict[str, float] = {}
        self._taken_in = 0.0
        self._times: list[float] = []
        self._calls: list[int] = []

    def alive(self) -> None:
        """Raises if the gateway has ended."""
        if not self._gateway.child.running:
            raise Failed(f"the gateway has ended:\n{self._gateway.child.text[-4000:]}")

    def begin(self) -> None:
        self._watch.begin()
        self._cpu = cpu_seconds(self._gateway.child.pid)
        self._begun = time.monotonic()

    async def run(self, client: asyncio.Future[Any] | None = None) -> None:
        """Until the last event has been published. A client that fails ends it."""
        events, moved, turn = 0, time.monotonic(), 0
        while events < self._messages:
            await asyncio.sleep(_POLL)
            self.alive()
            if client and client.done():
                client.result()
            before, events, now = events, await self._ground.waiting(EVENTS), time.monotonic()
            if turn % 4 == 0:
                self._times.append(now)
                self._calls.append(await self._ground.vendor_count())
                self._rss = max(self._rss, rss_megabytes(self._gateway.child.pid))
                if not self._taken_in and not await self._ground.waiting(QUEUE):
                    self._taken_in = now
            turn += 1
            if events > before:
                moved = now
            elif now - moved > _STALLED:
                calls = await self._ground.vendor_count()
                raise Failed(
                    f"stalled at {calls} calls and {events} events of {self._messages}:\n"
                    f"{self._gateway.child.text[-4000:]}"
                )
        self._ended = time.monotonic()
        self._cpu = cpu_seconds(self._gateway.child.pid) - self._cpu
        self._servers = self._watch.spent(self._messages)

    def result(self, contender: str) -> Run:
        first, last = (self._reached(share) for share in _STEADY)
        steady = (_STEADY[1] - _STEADY[0]) * self._messages / (last - first) if last > first else 0.0
        return Run(
            contender,
            self._messages,
            self._ended - self._begun,
            self._cpu / self._messages * 1e6,
            self._rss,
            self._servers,
            {
                "steady_rate": steady,
                "taken_in_after": max(0.0, self._taken_in - self._begun),
                "fifth_after": first - self._begun,
                "four_fifths_after": last - self._begun,
                "all_after": self._ended - self._begun,
            },
        )

    def _reached(self, share: float) -> float:
        """When the vendor had been called for that share of the messages."""
        wanted = share * self._messages
        at = bisect_left(self._calls, wanted)
        if at in (0, len(self._calls)):
            return self._times[min(at, len(self._times) - 1)]
        (low, high), (since, until) = self._calls[at - 1 : at + 1], self._times[at - 1 : at + 1]
        return since + (until - since) * (wanted - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process of our own."""

    child: Child
    port: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()


def _gateway(ground: Ground, run: str, store: str) -> Gateway:
    port = free_port()
    config = ground.folder / f"{run}.yaml"
    said = configuration(store=store, broker=ground.broker.url, vendor=ground.vendor_url, port=port)
    config.write_text(yaml.safe_dump(said))
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    return Gateway(spawn(command, ground.folder / f"{run}.log", cwd=ROOT), port)


async def _ended(gateway: Gateway) -> None:
    gateway.child.signal(signal.SIGTERM)
    status = await asyncio.to_thread(gateway.child.wait)
    if status:
        raise Failed(f"the gateway ended with {status}:\n{gateway.child.text[-4000:]}")


async def _empty(ground: Ground, database: str) -> bool:
    rows = await ground.sql(database, "select count(*) from outbox")
    return rows == [(0,)]


async def _is_ready(session: aiohttp.ClientSession, course: Course) -> bool:
    course.alive()
    try:
        async with session.get("/readyz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _post(session: aiohttp.ClientSession, batches: list[bytes]) -> None:
    """Post one batch after another, for as long as there are any."""
    while batches:
        body = batches.pop()
        while True:
            headers = {"Content-Type": "application/x-ndjson"}
            async with session.post("/v1/messages", data=body, headers=headers) as response:
                answer = await response.json()
                if response.status not in (429, 503):
                    break
                wait = float(response.headers["Retry-After"])
            await asyncio.sleep(wait)
        if any(result["status"] != 202 for result in answer["results"]):
            raise Failed(f"not accepted: {answer['results'][:3]}")


async def _left(ground: Ground) -> int:
    """Requests that were not acknowledged. Quorum queues count those last acknowledged a moment later."""
    with suppress(AssertionError):
        await wait_until(lambda: _none_waits(ground), 3)
    return await ground.waiting(QUEUE)


async def _none_waits(ground: Ground) -> bool:
    return not await ground.waiting(QUEUE)


def _check(found: dict[str, tuple[int, int]]) -> None:
    wrong = [f"{is_} {what} instead of {wanted}" for what, (is_, wanted) in found.items() if is_ != wanted]
    if wrong:
        raise Failed("; ".join(wrong))


async def contest(ground: Ground, names: Sequence[str], rounds: int, messages: int) -> AsyncIterator[Run]:
    """All contenders in turn, and again, so that what drifts on the machine meets each of them."""
    for number in range(rounds):
        for name in names:
            yield await contend(name, ground, messages, number)
