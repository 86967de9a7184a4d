"""The servers that a benchmark runs against, started for it alone, and what is asked of them from outside."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import urllib.request
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aio_pika
import asyncpg
import orjson
import psutil

from gateway.broker import Topology
from gateway.message import Priority
from gateway.store.migrate import migrate
from tests.servers import Child, PostgreSQL, RabbitMQ, ServerMissing, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aio_pika.abc import AbstractChannel

ROOT = Path(__file__).parents[2]
QUEUE = Topology().queue(Priority.NORMAL)
EVENTS = "bench.events"
"""A subscriber's queue of the gateway's events."""
_AT_ONCE = 1000
_POSTGRESQL = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
"""No checkpoint in the middle of one contender's run; fsync stays on."""
_STATEMENTS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on"}

TABLE = """create table records (
    id text primary key, person text not null, channel text not null, state text not null, reference text,
    sent_at timestamptz not null default now(), body jsonb not null)"""
"""What the contender written by hand records."""


class Ground:
    """RabbitMQ, PostgreSQL, Redis where it is asked for, and the vendor."""

    broker: RabbitMQ
    postgres: PostgreSQL

    def __init__(self, *, redis: bool, statements: bool = False) -> None:
        """``statements``: whether PostgreSQL counts its statements, which costs it a little."""
        self._wants_redis = redis
        self._settings = _POSTGRESQL | (_STATEMENTS if statements else {})
        self._stack = AsyncExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="decorum-bench-"))
        self.processes: dict[str, int] = {}
        """Server → its process's id."""
        self.redis_url = ""
        self.vendor_url = ""
        self._template = ""
        self._naive_template = ""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.broker = self._stack.enter_context(await asyncio.to_thread(RabbitMQ.start))
        self.postgres = self._stack.enter_context(await asyncio.to_thread(PostgreSQL.start, None, self._settings))
        self.processes = {"broker": pid_of(self.broker), "database": pid_of(self.postgres)}
        port = free_port()
        self.vendor_url = f"http://127.0.0.1:{port}/v1/messages"
        self._run("vendor", [sys.executable, "-m", "tests.benchmarks.vendor", str(port)])
        await wait_until(self._vendor_answers, message="the vendor starts")
        if self._wants_redis:
            self.redis_url, child = await self._stack.enter_async_context(redis_server(self.folder))
            self.processes["redis"] = child.pid
        await self._declare()
        self._template = self.postgres.create_database()
        await asyncio.to_thread(migrate, self._template)
        self._naive_template = self.postgres.create_database()
        await self.sql(self._naive_template, TABLE)

    def _run(self, name: str, command: list[str]) -> Child:
        child = self._stack.enter_context(spawn(command, self.folder / f"{name}.log", cwd=ROOT))
        self.processes[name] = child.pid
        return child

    # ---------------------------------------------------------------------------------------------------------- broker

    async def _declare(self) -> None:
        connection = await self._stack.enter_async_context(await aio_pika.connect(self.broker.url))
        topology = Topology()
        await topology.ensure_intake(connection, 10)
        await topology.ensure_events(connection, 10)
        self._channel: AbstractChannel = await connection.channel()
        queue = await self._channel.declare_queue(EVENTS, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(topology.events, "message.*")

    async def preload(self, bodies: Iterable[bytes]) -> None:
        """Fill the queue of requests."""
        flying: set[asyncio.Future[object]] = set()
        count = 0
        for body in bodies:
            message = aio_pika.Message(
                body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            flying.add(asyncio.ensure_future(self._channel.default_exchange.publish(message, QUEUE)))
            count += 1
            if len(flying) == _AT_ONCE:
                await asyncio.gather(*flying)
                flying.clear()
        await asyncio.gather(*flying)
        if (found := await self.waiting(QUEUE)) != count:
            raise AssertionError(f"{found} of {count} requests are in the queue")

    async def waiting(self, queue: str) -> int:
        """Messages of a queue that are not delivered yet."""
        declared = await self._channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0

    async def purge(self, queue: str) -> None:
        """Leave nothing in it."""
        await (await self._channel.get_queue(queue, ensure=False)).purge()

    # -------------------------------------------------------------------------------------------------------- database

    def database(self, *, naive: bool = False) -> str:
        """The URL of a new database, with the gateway's tables or the hand-written one's."""
        template = self._naive_template if naive else self._template
        url = self.postgres.create_database(template.rsplit("/", 1)[1])
        self.postgres.sql("checkpoint")
        return url

    async def sql(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        connection = await asyncpg.connect(database)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    def drop(self, database: str) -> None:
        """Remove it."""
        self.postgres.sql(f"drop database {database.rsplit('/', 1)[1]} with (force)")

    # ---------------------------------------------------------------------------------------------------------- others

    async def vendor_count(self) -> int:
        """Calls that the vendor has answered since the last reset."""
        count: int = orjson.loads(await asyncio.to_thread(self._vendor, "GET"))["count"]
        return count

    async def reset(self) -> None:
        """Forget what the vendor and Redis remember, and the events."""
        await asyncio.to_thread(self._vendor, "DELETE")
        await self.purge(EVENTS)
        await self.purge(QUEUE)
        if self.redis_url:
            from redis.asyncio import Redis

            async with Redis.from_url(self.redis_url) as redis:
                await redis.flushall()

    def _vendor(self, method: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.vendor_url, method=method), timeout=5) as answer:
            body: bytes = answer.read()
            return body

    async def _vendor_answers(self) -> bool:
        try:
            await self.vendor_count()
        except OSError:
            return False
        return True


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[tuple[str, Child]]:
    """The URL and process of a Redis of our own that writes nothing down."""
    program = shutil.which("redis-server")
    if program is None:
        raise ServerMissing("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    options = {"--port": str(port), "--bind": "127.0.0.1", "--dir": str(folder), "--save": ""}
    command = [program, *(word for option in options.items() for word in option)]
    url = f"redis://127.0.0.1:{port}"
    with spawn(command, folder / "redis.log", cwd=ROOT) as child:
        await wait_until(lambda: _redis_answers(url), message="Redis starts")
        yield url, child


async def _redis_answers(url: str) -> bool:
    from redis.asyncio import Redis
    from redis.exceptions import ConnectionError as NoConnection

    try:
        async with Redis.from_url(url) as redis:
            return bool(await redis.ping())
    except NoConnection:
        return False


def pid_of(server: RabbitMQ | PostgreSQL) -> int:
    """Of its first process."""
    assert server._child is not None
    return server._child.pid


def cpu_seconds(pid: int) -> float:
    """Of a process, those that it has started, and those of them that have ended."""
    top = psutil.Process(pid)
    times = top.cpu_times()
    total = times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    for process in top.children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def rss_megabytes(pid: int) -> float:
    """Of a process and those that it has started."""
    top = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (top, *top.children(recursive=True))) / (1 << 20)
