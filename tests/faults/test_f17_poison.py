"""Poison among good messages: all of it is parked with its faults, all that is good is sent, and nobody restarts."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from tests.faults import records
from tests.faults.load import by_http
from tests.faults.world import EXCHANGE, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import Request

GOOD = 10
"""Good messages to each that is not."""
LARGE = 20
"""Of two megabytes each, at most: they are kept."""
WAIT = 60.0


def _with(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda body: json.dumps({**body, **fields}).encode()


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []


POISON: tuple[Callable[[dict[str, Any]], bytes], ...] = (
    lambda body: json.dumps(body).encode()[:-2],
    _with(labels="x" * 2_000_000),
    _with(user=7, content=[]),
    _with(labels={"deep": _nested(100)}),
    lambda body: b'{"id": "%s", "labels": ' % body["id"].encode() + b"[" * 100_000 + b"]" * 100_000 + b"}",
    _with(version=99),
    _with(content={"sms": {"text": "a\0b"}}),
    lambda body: json.dumps(body).replace('"user": "', '"user": "\\ud800').encode(),
    lambda body: json.dumps(body).encode("utf-16"),
    lambda _: b"",
    lambda _: b"\xff\xfe\x00",
    _with(expires_at="9999-12-31T23:59:59Z", not_before="0001-01-01T00:00:00+23:59"),
    _with(user="u" * 100_000),
    lambda body: json.dumps({**body, "labels": {"n": 1}}).replace('{"n": 1}', '{"n": 1e999}').encode(),
)
"""A good body → one that must be parked. Each is different from all others by its id."""


@pytest.mark.row("F17")
async def test_poison_is_parked_and_harms_nobody(tmp_path: Path, amqp_url: str, count: int, tally: Tally) -> None:
    drawn = random.Random(17)
    async with world(tmp_path, broker=amqp_url) as here:
        gateway = here.gateways[0]
        good = here.requests(GOOD * count)
        bad = [_poison(number, request) for number, request in enumerate(here.requests(count))]
        here.attempted |= {request.id: request for request in good}
        bodies = [(request.id, json.dumps(request.body).encode()) for request in good]
        bodies += [("", body) for body in bad]
        drawn.shuffle(bodies)
        async with by_http(here, 10):
            await _publish(amqp_url, bodies, here.acknowledged)

            async def parked() -> bool:
                ((found,),) = await records.fetch(here.store, "select count(*) from parked")
                return bool(found[0] >= count)

            await wait_until(parked, WAIT + count / 10, "all poison is parked")
        await here.settled(WAIT + count / 10)
        (rows,) = await records.fetch(here.store, "select reason, faults from parked")
        assert len(rows) == count
        assert {reason for reason, _ in rows} == {"malformed"}
        assert all(json.loads(faults) for _, faults in rows)
        assert await _left(amqp_url, "decorum.parked") == count, "once each: none was tried again"
        assert gateway.log.read_text().count("gateway.started") == 1
        assert gateway.running
        tally.fault(count)
        tally.judge(await here.verdict())


def _poison(number: int, request: Request) -> bytes:
    large = 1
    kind = number % len(POISON)
    return POISON[0 if kind == large and number >= LARGE * len(POISON) else kind](request.body)


async def _publish(url: str, bodies: list[tuple[str, bytes]], acknowledged: set[str]) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel(on_return_raises=True) as channel:
        exchange = await channel.get_exchange(EXCHANGE, ensure=False)
        room = asyncio.Semaphore(200)

        async def one(id_: str, body: bytes) -> None:
            async with room:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, routing_key="normal")
            if id_:
                acknowledged.add(id_)

        await asyncio.gather(*(one(*each) for each in bodies))


async def _left(url: str, queue: str) -> int:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0
