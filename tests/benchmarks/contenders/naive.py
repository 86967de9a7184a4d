"""What a user would write by hand: for each message four limits on Redis, one POST, one INSERT, one acknowledgement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aio_pika
import aiohttp
import asyncpg
from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import BaseModel
from redis.asyncio import BlockingConnectionPool

from tests.benchmarks.contenders._report import Report, Tally, Task, main

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


class Addresses(BaseModel):
    phone: str | None = None
    email: str | None = None


class Text(BaseModel):
    text: str


class Content(BaseModel):
    sms: Text


class Request(BaseModel):
    id: str
    source: str
    user: str
    category: str
    channels: list[str]
    to: Addresses
    content: Content
    timezone: str | None = None
    locale: str | None = None
    campaign: str | None = None
    stage: str | None = None
    variant: str | None = None
    labels: dict[str, str] = {}


class Gateway:
    def __init__(
        self, limiter: MovingWindowRateLimiter, http: aiohttp.ClientSession, pool: asyncpg.Pool[Any], vendor: str
    ) -> None:
        self._limits: list[RateLimitItem] = parse_many("5/minute;20/hour;50/day;100/7 day")
        self._limiter = limiter
        self._http = http
        self._pool = pool
        self._vendor = vendor

    async def handle(self, message: AbstractIncomingMessage) -> None:
        request = Request.model_validate_json(message.body)
        for limit in self._limits:
            if not await self._limiter.hit(limit, request.user):
                raise RuntimeError("a cap that should permit has refused")
        body = {"to": request.to.phone, "text": request.content.sms.text, "client_reference": request.id}
        async with self._http.post(self._vendor, json=body) as response:
            response.raise_for_status()
            reference = (await response.json())["id"]
        await self._pool.execute(
            "insert into records (id, person, channel, state, reference, body) values ($1, $2, $3, $4, $5, $6)",
            request.id,
            request.user,
            "sms",
            "sent",
            reference,
            json.dumps(request.model_dump()),
        )
        await message.ack()


async def naive(task: Task) -> Report:
    tally = Tally(task.messages)
    # The default pool raises when more than a hundred tasks ask at once.
    connections = BlockingConnectionPool.from_url(task.redis, max_connections=64, timeout=None)
    storage = RedisStorage(f"async+{task.redis}", implementation="redispy", connection_pool=connections)  # type: ignore[arg-type]
    async with (
        aiohttp.ClientSession() as http,
        asyncpg.create_pool(task.postgres) as pool,
        await aio_pika.connect_robust(task.broker) as connection,
    ):
        gateway = Gateway(MovingWindowRateLimiter(storage), http, pool, task.vendor)

        async def handle(message: AbstractIncomingMessage) -> None:
            tally.begin()
            try:
                await gateway.handle(message)
            except Exception as error:
                tally.fail(error)
                raise
            tally.end()

        channel = await connection.channel()
        await channel.set_qos(prefetch_count=task.prefetch)
        queue = await channel.get_queue(task.queue)
        await queue.consume(handle)
        report = await tally.report()
        await channel.close()
    return report


if __name__ == "__main__":
    main(naive)
