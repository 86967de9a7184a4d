"""The traps of RabbitMQ and its client that are known to us, each with what guards against it."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

import aio_pika
import pytest

from gateway.broker import BrokerUnavailable, Outgoing, Publisher
from tests.integration.test_broker import NORMAL, QUICK, Door, left, left_is, parked, ready, running, send_many, vhost
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.servers import RabbitMQ

pytestmark = pytest.mark.timeout(180)
EVENT = Outgoing("state.sent", b"{}", "1", {})


async def test_channels_and_consumers_are_held_by_us_and_outlive_a_collection(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door, watch=60) as (consumer, publisher):
        await ready(consumer, publisher)
        gc.collect()
        await send_many(amqp_url, "one")
        await wait_until(lambda: door.taken == ["one"])
        await publisher.publish([EVENT])


async def test_a_channel_that_is_stuck_is_noticed_though_it_counts_as_a_consumer(
    rabbitmq: RabbitMQ, amqp_url: str
) -> None:
    door = Door()
    async with running(amqp_url, door, watch=0.5, prefetch=1) as (consumer, publisher):
        await ready(consumer, publisher)
        stuck = (
            "[sys:suspend(proplists:get_value(pid, C)) || C <- rabbit_channel:info_all([pid, vhost, consumer_count]), "
            f'proplists:get_value(vhost, C) =:= <<"{vhost(amqp_url)}">>, proplists:get_value(consumer_count, C) > 0].'
        )
        await asyncio.to_thread(rabbitmq.ctl, "eval", stuck)
        await send_many(amqp_url, "one", "two", "three")
        await wait_until(lambda: sorted(set(door.taken)) == ["one", "three", "two"], 30)


async def test_no_more_is_held_than_the_prefetch_says(amqp_url: str) -> None:
    door = Door()
    door.shut(*(str(number) for number in range(20)))
    async with running(amqp_url, door, prefetch=7) as (consumer, _):
        await ready(consumer)
        await send_many(amqp_url, *(str(number) for number in range(20)))

        async def held() -> bool:
            return await left(amqp_url, NORMAL) == 13

        await wait_until(held)
        assert len(door.asked) <= 7
        door.open.set()
        await wait_until(lambda: len(door.taken) == 20)


async def test_of_one_that_is_too_long_only_the_beginning_is_held(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        await send_many(amqp_url, "x" * 3_000_000, "good")
        await wait_until(lambda: len(door.taken) == 2)
    assert [len(body) for body in door.taken] == [262_145, 4]


async def test_a_message_that_is_always_given_back_is_parked_at_the_limit(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
    await send_many(amqp_url, "hot potato")
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(NORMAL)
        for _ in range(21):
            message = await queue.get(timeout=10)
            assert message
            await message.reject(requeue=True)
    (found,) = await parked(amqp_url, 1)
    assert found.body == b"hot potato"


async def test_while_nothing_can_be_accepted_nothing_is_held_and_then_all_comes_in(amqp_url: str) -> None:
    door, reason = Door(), [""]
    door.shut("0")
    async with running(amqp_url, door, watch=0.3, prefetch=5, shut=lambda: reason[0]) as (consumer, _):
        await ready(consumer)
        await send_many(amqp_url, *(str(number) for number in range(10)))
        await wait_until(lambda: "0" in door.asked)
        reason[0] = "9.0% of the disk is free"
        door.errors = [OSError("store away")] * 2
        door.open.set()
        await wait_until(lambda: "not consuming: 9.0% of the disk is free" in consumer.status)
        assert not consumer.ready
        await wait_until(lambda: left_is(amqp_url, NORMAL, 10 - len(set(door.taken))))
        reason[0] = ""
        await ready(consumer)
        await wait_until(lambda: len(set(door.taken)) == 10)
    assert await left(amqp_url, NORMAL) == 0
    assert await left(amqp_url, "decorum.parked") == 0


async def refused(publisher: Publisher) -> bool:
    try:
        await publisher.publish([EVENT])
    except BrokerUnavailable:
        return True
    return False


async def test_a_broker_without_memory_blocks_what_is_published_and_not_what_is_consumed(
    own_rabbitmq: RabbitMQ,
) -> None:
    door, url = Door(), own_rabbitmq.url
    async with running(url, door) as (consumer, publisher):
        await ready(consumer, publisher)
        await send_many(url, *(str(number) for number in range(5)))
        await wait_until(lambda: len(door.taken) == 5)
        door.shut("waits")
        await send_many(url, "waits")
        await wait_until(lambda: "waits" in door.asked)
        await asyncio.to_thread(own_rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        await wait_until(lambda: refused(publisher), 30, "the alarm takes a moment to be raised")
        door.open.set()
        await wait_until(lambda: door.taken[-1] == "waits")
        await wait_until(lambda: left_is(url, NORMAL, 0), 10, "acknowledged on a connection of its own")
        await asyncio.to_thread(own_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
        await ready(publisher)
        await publisher.publish([EVENT])


async def test_calls_of_a_frozen_broker_end_within_their_limit(own_rabbitmq: RabbitMQ) -> None:
    """Ending the connection included, which says goodbye on a wire that nobody reads."""
    door, url = Door(), own_rabbitmq.url
    publisher = Publisher(url, **QUICK)
    await publisher.start()
    async with running(url, door, watch=60) as (consumer, other):
        await ready(consumer, other, publisher)
        own_rabbitmq.pause()
        large = [Outgoing("state.sent", bytes(100_000), str(number), {}) for number in range(200)]
        for events in (large, large):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(events)
            assert time.monotonic() - began < 3 * QUICK["seconds"]
        began = time.monotonic()
        await publisher.close()
        assert time.monotonic() - began < 2 * QUICK["seconds"]
        began = time.monotonic()
        await consumer.close()
        assert time.monotonic() - began < 4 * QUICK["seconds"]
        own_rabbitmq.kill()  # or what was given up would go on waiting for its goodbye
