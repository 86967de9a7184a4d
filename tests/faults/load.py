"""Requests at a steady rate while something breaks. What fails is sent again with the same id, as a service should."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import aio_pika
import aiohttp

from tests.faults import records
from tests.faults.world import EXCHANGE
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.faults.world import Request, World

_AGAIN = 0.2
"""Seconds until what failed is sent again."""
_LIMIT = 8.0
"""Seconds that one publish may take."""
_MOST = 500
"""Requests under way. While nobody acknowledges any, repeating more would take the machine from what is tested."""


@dataclass
class Load:
    """What one client has sent, and how it went."""

    here: World
    send: Callable[[Request], Awaitable[str]]
    """Returns what became of it: ``new``, ``known`` where it had been taken before, empty where nobody can say."""
    errors: int = 0
    committed: int = 0
    """Errors of which the repeat has shown that they were none."""
    slowest: float = 0.0
    """Seconds of the slowest call that failed."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _going: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, rate: float) -> None:
        """Until cancelled."""
        at = time.monotonic()
        while True:
            at = max(at + 1 / rate, time.monotonic() - 1)
            await self._going.wait()
            if len(self._tasks) < _MOST:
                self.begin()
            await asyncio.sleep(max(0.0, at - time.monotonic()))

    def pause(self) -> None:
        """Begin no more for now."""
        self._going.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._going.set()

    def begin(self) -> Request:
        """One more request, sent until it is acknowledged."""
        (request,) = self.here.requests(1)
        self.here.attempted[request.id] = request
        task = asyncio.create_task(self._insist(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return request

    async def passed(self, number: int, seconds: float = 60) -> None:
        """Until so many more have been acknowledged."""
        wanted = len(self.here.acknowledged) + number
        await wait_until(lambda: len(self.here.acknowledged) >= wanted, seconds, f"{number} more are acknowledged")

    async def through(self, seconds: float) -> float:
        """How long it takes until a request that is made now is recorded."""
        began, request = time.monotonic(), self.begin()

        async def recorded() -> bool:
            ((found,),) = await records.fetch(
                self.here.store, f"select count(*) from requests where id = '{request.id}'"
            )
            return bool(found[0])

        await wait_until(recorded, seconds, f"a request that is made now is recorded within {seconds} s")
        return time.monotonic() - began

    async def moving(self, seconds: float) -> float:
        """How long it takes until anything more is recorded, which may have waited since before."""
        began, before = time.monotonic(), await self._recorded()

        async def more() -> bool:
            return await self._recorded() > before

        await wait_until(more, seconds, f"anything more is recorded within {seconds} s")
        return time.monotonic() - began

    async def _recorded(self) -> int:
        ((found,),) = await records.fetch(self.here.store, "select count(*) from requests")
        return int(found[0])

    async def finish(self, seconds: float = 60) -> None:
        """Until all that was sent is acknowledged."""
        await wait_until(lambda: not self._tasks, seconds, "all that was sent is acknowledged in the end")

    async def _insist(self, request: Request) -> None:
        failed = False
        while True:
            began = time.monotonic()
            became = await self.send(request)
            if became:
                self.committed += failed and became == "known"
                self.here.acknowledged.add(request.id)
                return
            self.errors, failed = self.errors + 1, True
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(_AGAIN)


@asynccontextmanager
async def running(here: World, rate: float, send: Callable[[Request], Awaitable[str]]) -> AsyncIterator[Load]:
    """Under way until the block ends; then all is acknowledged."""
    load = Load(here, send)
    load.go_on()
    task = asyncio.create_task(load.run(rate))
    try:
        yield load
        task.cancel()
        await load.finish()
    finally:
        task.cancel()
        for one in load._tasks:
            one.cancel()


@asynccontextmanager
async def by_http(here: World, rate: float) -> AsyncIterator[Load]:
    """Each request a call of its own."""
    free = aiohttp.TCPConnector(limit=0)  # a call's time must not be one that it waited for others here
    async with aiohttp.ClientSession(connector=free, timeout=aiohttp.ClientTimeout(30)) as session:

        async def send(request: Request) -> str:
            body = {name: value for name, value in request.body.items() if name != "source"}
            try:
                async with session.post(f"{here.gateways[0].url}/v1/messages", json=body) as response:
                    await response.read()
                    return {200: "known", 202: "new"}.get(response.status, "")
            except (aiohttp.ClientError, TimeoutError):
                return ""

        async with running(here, rate, send) as load:
            yield load


@asynccontextmanager
async def by_amqp(here: World, rate: float) -> AsyncIterator[Load]:
    """Each request persistent and confirmed, over one connection that is made anew when it is lost."""
    async with _Exchange(here.broker or "") as exchange, running(here, rate, exchange.publish) as load:
        yield load


class _Exchange:
    """Publishes, and connects again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._exchange: aio_pika.abc.AbstractExchange | None = None
        self._not_before = 0.0
        """When it may connect again, by the monotonic clock."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def publish(self, request: Request) -> str:
        body = json.dumps(request.body).encode()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        exchange = None
        try:
            async with asyncio.timeout(_LIMIT):
                exchange = await self._connected()
                await exchange.publish(message, routing_key="normal")
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise  # else aiormq's, of who waits on a connection that is lost
        except Exception:  # noqa: BLE001 - whatever it is, nobody has confirmed it
            pass
        else:
            return "new"
        if exchange is self._exchange:
            self._exchange = None
        return ""

    async def _connected(self) -> aio_pika.abc.AbstractExchange:
        async with self._lock:
            if self._exchange is None:
                if time.monotonic() < self._not_before:
                    raise ConnectionError("it has just been tried")
                self._not_before = time.monotonic() + _AGAIN
                await self._close()
                self._connection = await aio_pika.connect(self._url, timeout=_LIMIT)
                channel = await self._connection.channel(on_return_raises=True)
                self._exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            return self._exchange

    async def _close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection:
            try:
                async with asyncio.timeout(1):
                    await connection.close()
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - it is given up
                return
