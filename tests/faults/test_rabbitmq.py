"""The broker dies, freezes, fills up and forgets us: what it confirmed is kept, and we consume again by ourselves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import aio_pika
import pytest

from tests.faults import records
from tests.faults.load import by_amqp
from tests.faults.rows import FULL
from tests.faults.world import world
from tests.servers import RabbitMQ, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import World

RATE = 200 if FULL else 50
"""Requests a second."""
CONSUMING_AGAIN = 20.0
"""Seconds after the broker's port has opened, at most."""
NOTICED = 15.0
"""Seconds until readiness says that a broker no longer answers."""
BACK = 30.0
"""Seconds until there are consumers again, whatever was done to them."""
QUEUE = "decorum.requests.normal"


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    """One that may be killed and frozen; each test gets a virtual host of its own."""
    with RabbitMQ.start() as broker:
        yield broker


@asynccontextmanager
async def consuming(folder: Path, broker: RabbitMQ) -> AsyncIterator[World]:
    """A gateway on a virtual host, whose queues the broker has written down."""
    async with world(folder, broker=broker.create_vhost()) as here:
        broker.settle()
        yield here


async def judged(here: World, tally: Tally) -> None:
    await here.settled(120)
    assert all(gateway.running for gateway in here.gateways)
    tally.judge(await here.verdict())


@pytest.mark.row("F3")
async def test_what_was_confirmed_outlives_the_broker(
    tmp_path: Path, broker: RabbitMQ, count: int, tally: Tally
) -> None:
    async with consuming(tmp_path, broker) as here:
        async with by_amqp(here, RATE) as load:
            for _ in range(count):
                await load.passed(RATE)
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start_again)
                tally.fault(recovery=await load.moving(CONSUMING_AGAIN))
        await judged(here, tally)


@pytest.mark.row("F4")
async def test_a_frozen_broker_is_noticed_and_does_not_hold_up_http(
    tmp_path: Path, broker: RabbitMQ, count: int, tally: Tally
) -> None:
    async with consuming(tmp_path, broker) as here:
        gateway = here.gateways[0]

        async def told() -> bool:
            return (await gateway.readyz())[1].get("parts", {}).get("broker", "ok") != "ok"

        for seconds in (5, 20, 60) * count if FULL else (0,) * count:
            broker.pause()
            began = time.monotonic()
            try:
                assert await here.post(here.requests(10), at_once=1, seconds=5) == [202] * 10
                if seconds != 5:
                    await wait_until(told, NOTICED, "readiness says that the broker is away")
                    print(f"noticed after {time.monotonic() - began:.1f} s")
                    assert await here.post(here.requests(10), at_once=1, seconds=5) == [202] * 10
                await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            finally:
                broker.resume()
            async with by_amqp(here, 10) as load:
                tally.fault(recovery=await load.through(BACK))
            await gateway.ready()
        await judged(here, tally)


ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0.0000001"), ("set_vm_memory_high_watermark", "0.4")),
    "disk": (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "50MB")),
}
"""How to raise and how to clear each."""
GIVEN_UP = 8.0
"""Seconds until a publish that the broker does not take is given up; its own limit is 4.5 s."""


@pytest.mark.row("F5")
@pytest.mark.parametrize("alarm", ALARMS if FULL else ["memory"])
async def test_a_full_broker_is_still_consumed_and_gets_every_event_afterwards(
    alarm: str, tmp_path: Path, broker: RabbitMQ, count: int, tally: Tally
) -> None:
    raise_it, clear_it = ALARMS[alarm]
    async with consuming(tmp_path, broker) as here, _subscribed(here.broker or "") as heard:
        gateway = here.gateways[0]
        assert gateway.child
        for _ in range(count):
            before = gateway.log.read_text().count("relay.waiting")
            gateway.child.pause()
            await here.publish(here.requests(200))
            await asyncio.to_thread(broker.ctl, *raise_it)
            try:
                gateway.child.resume()
                began = time.monotonic()
                await wait_until(lambda: here.taken() == len(here.attempted), 30, "all that lay there is sent")
                await wait_until(lambda: _held(broker, here) == 0, 30, "all that lay there is acknowledged")
                if FULL:
                    await wait_until(
                        lambda before=before: gateway.log.read_text().count("relay.waiting") > before,
                        GIVEN_UP,
                        "a publish is given up",
                    )
                    print(f"given up after {time.monotonic() - began:.1f} s")
                    await asyncio.sleep(max(0.0, began + 30 - time.monotonic()))
            finally:
                await asyncio.to_thread(broker.ctl, *clear_it)
            began = time.monotonic()
            await wait_until(lambda: heard >= here.attempted.keys(), BACK, "every event arrives")
            tally.fault(recovery=time.monotonic() - began)
        await judged(here, tally)


def _held(broker: RabbitMQ, here: World) -> int:
    """Messages that are in the queue or not acknowledged."""
    vhost = (here.broker or "").rsplit("/", 1)[1]
    rows = broker.ctl("list_queues", "--vhost", vhost, "--no-table-headers", "name", "messages").split("\n")
    return next(int(row.split("\t")[1]) for row in rows if row.startswith(f"{QUEUE}\t"))


@asynccontextmanager
async def _subscribed(url: str) -> AsyncIterator[set[str]]:
    """The requests of which an event has said that they were sent."""
    heard: set[str] = set()
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("decorum.events", "message.#")

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            event = json.loads(message.body)
            if event["state"] == "sent":
                heard.add(event["id"])

        await queue.consume(take, no_ack=True)
        yield heard


@asynccontextmanager
async def _deadline(broker: RabbitMQ, seconds: float, look: float) -> AsyncIterator[None]:
    """The broker waits no longer for an acknowledgement, and looks so often. Holds for channels opened meanwhile."""

    async def put(patience: float, tick: float) -> None:
        settings = {"consumer_timeout": patience, "channel_tick_interval": tick}
        calls = [f"application:set_env(rabbit, {name}, {value * 1000:.0f})" for name, value in settings.items()]
        await asyncio.to_thread(broker.ctl, "eval", ", ".join(calls) + ".")

    await put(seconds, look)
    try:
        yield
    finally:
        await put(1800, 60)


async def _delete_queue(_: RabbitMQ, here: World) -> None:
    async with await aio_pika.connect(here.broker) as connection:
        await (await connection.channel()).queue_delete(QUEUE)


async def _end_channels(broker: RabbitMQ, _: World) -> None:
    """Without a word to the client, for whom they stay open."""
    await asyncio.to_thread(broker.ctl, "eval", "[rabbit_channel:shutdown(C) || C <- rabbit_channel:list()].")


async def _close_connections(broker: RabbitMQ, _: World) -> None:
    await asyncio.to_thread(broker.ctl, "close_all_connections", "test")


async def _keep_unacknowledged(_: RabbitMQ, here: World) -> None:
    """The store cannot be written until the broker has lost patience."""
    log = here.gateways[0].log
    lost = log.read_text().count("broker.lost")
    with closing(sqlite3.connect(here.store.removeprefix(records.SQLITE), isolation_level=None)) as database:
        database.execute("begin immediate")
        await wait_until(lambda: log.read_text().count("broker.lost") > lost, 30, "the broker has lost patience")
        database.execute("rollback")


HARM = {
    "a queue is deleted": _delete_queue,
    "channels end": _end_channels,
    "connections are closed": _close_connections,
    "acknowledgements are late": _keep_unacknowledged,
}

UNHEARD = ("channels end", "acknowledgements are late")
"""Of which a client hears nothing, or the worst; the others have tests of their own that are quicker."""


@pytest.mark.row("F6")
@pytest.mark.parametrize("harm", HARM if FULL else UNHEARD)
async def test_consumers_come_back(harm: str, tmp_path: Path, broker: RabbitMQ, count: int, tally: Tally) -> None:
    async with _deadline(broker, 3, 0.5), consuming(tmp_path, broker) as here:
        for _ in range(count):
            async with by_amqp(here, 50) as load:
                await load.passed(50)
                if harm == "a queue is deleted":  # and with it what is in it, so let that be nothing
                    load.pause()
                    await here.settled(30)
                await HARM[harm](broker, here)
                began = time.monotonic()
                load.go_on()
                await load.through(BACK)
                tally.fault(recovery=time.monotonic() - began)
            await here.gateways[0].ready()
        await judged(here, tally)
