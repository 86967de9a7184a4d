"""The broker's side of the promises, against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
import structlog

from gateway.broker import BrokerUnavailable, Consumer, Outgoing, Publisher, Topology
from gateway.intake import Accepted, Answer, Conflict, Fault, Incoming, Malformed, Overloaded
from gateway.message import MessageState, Priority
from gateway.reports import Reused, Unmatched
from gateway.webhooks.topics import matches
from tests.servers import RabbitMQ, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway import reports

QUICK: dict[str, Any] = {"pause": (0.05, 0.1), "seconds": 2.0}
NORMAL = "decorum.requests.normal"


class Door:
    """Stands for ``accept``: remembers what it took, and can be shut, or made to fail."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        """Committed, in order."""
        self.asked: list[str] = []
        """Handed over, committed or not."""
        self.open = asyncio.Event()
        self.open.set()
        self.errors: list[Exception] = []
        """Raised by the next calls, one each."""
        self.shut_for: set[str] = set()

    async def accept(self, batch: Sequence[Incoming]) -> Sequence[Answer]:
        assert all(incoming.via == "amqp" and incoming.source is None for incoming in batch)
        bodies = [bytes(incoming.body).decode() for incoming in batch]
        self.asked += bodies
        if self.errors:
            raise self.errors.pop(0)
        if "poison" in bodies:
            raise TypeError("a bug")
        if self.shut_for.isdisjoint(bodies):
            await asyncio.sleep(0)
        else:
            await self.open.wait()
        self.taken += bodies
        return [self._answer(body) for body in bodies]

    async def accept_profiles(self, bodies: Sequence[bytes]) -> Sequence[tuple[Fault, ...]]:
        self.taken += [body.decode() for body in bodies]
        return [(Fault("user", "is missing"),) if b"user" not in body else () for body in bodies]

    async def accept_reports(self, batch: Sequence[Incoming]) -> Sequence[reports.Answer]:
        assert all(incoming.via == "amqp" and incoming.source is None for incoming in batch)
        bodies = [bytes(incoming.body).decode() for incoming in batch]
        self.taken += bodies
        answers = {"malformed": Malformed((Fault("event", "is required"),)), "conflict": Reused("17")}
        return [answers.get(body, Unmatched(body)) for body in bodies]

    def shut(self, *bodies: str) -> None:
        self.shut_for = set(bodies)
        self.open.clear()

    @staticmethod
    def _answer(body: str) -> Answer:
        if body == "malformed":
            return Malformed((Fault("to.phone", "is no number"), Fault("content", "is missing")))
        if body == "conflict":
            return Conflict("17", "message-1")
        return Accepted(body, f"message of {body}", MessageState.WAITING, repeated=False)


@asynccontextmanager
async def running(
    url: str, door: Door, topology: Topology | None = None, **options: Any
) -> AsyncIterator[tuple[Consumer, Publisher]]:
    publisher = Publisher(url, topology, **QUICK)
    doors = (door.accept, door.accept_profiles, door.accept_reports)
    consumer = Consumer(url, *doors, publisher, topology, **{"watch": 0.3, **QUICK, **options})
    await publisher.start()
    await consumer.start()
    try:
        yield consumer, publisher
    finally:
        await consumer.close()
        await publisher.close()


async def ready(*parts: Consumer | Publisher) -> None:
    await wait_until(lambda: all(part.ready for part in parts), 20, "ready")


async def send(url: str, *bodies: str, key: str = "normal", exchange: str = "decorum.requests") -> None:
    """As a service written in C would."""
    for body in bodies:
        await asyncio.to_thread(
            subprocess.run,
            ["amqp-publish", "--url", url, "-e", exchange, "-r", key, "-p", "-b", body],
            check=True,
            timeout=10,
        )


async def send_many(url: str, *bodies: str, queue: str = NORMAL) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(aio_pika.Message(body.encode()), queue)


async def left(url: str, queue: str) -> int:
    """Messages that are ready; once nobody consumes, those never acknowledged too."""
    async with await aio_pika.connect(url) as connection:
        declared = await (await connection.channel()).declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def parked(url: str, count: int) -> list[aio_pika.abc.AbstractIncomingMessage]:
    found: list[aio_pika.abc.AbstractIncomingMessage] = []
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("decorum.parked")

        async def fetch() -> bool:
            if message := await queue.get(no_ack=True, fail=False):
                found.append(message)
            return len(found) == count

        await wait_until(fetch, 10, f"{count} parked")
    return found


def vhost(url: str) -> str:
    return url.rsplit("/", 1)[1]


async def test_what_another_client_publishes_is_accepted_and_acknowledged(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        assert consumer.status == "connected"
        await send(amqp_url, "one", "two", "three")
        await wait_until(lambda: door.taken == ["one", "two", "three"])
    assert await left(amqp_url, NORMAL) == 0
    assert (consumer.ready, consumer.status) == (False, "stopped")


async def test_each_priority_has_a_queue_and_so_have_profiles_and_events(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        for priority in Priority:
            await send(amqp_url, priority.word, key=priority.word)
        await send(amqp_url, '{"user": "u"}', key="profiles")
        await send(amqp_url, "an event", key="events")
        expected = sorted([*(p.word for p in Priority), '{"user": "u"}', "an event"])
        await wait_until(lambda: sorted(door.taken) == expected)
    assert await left(amqp_url, "decorum.reports") == 0


async def test_a_stuck_bulk_batch_does_not_hold_up_a_critical_request(amqp_url: str) -> None:
    door = Door()
    door.shut("campaign")
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        await send(amqp_url, "campaign", key="bulk")
        await wait_until(lambda: door.asked == ["campaign"])
        await send(amqp_url, "code", key="critical")
        await wait_until(lambda: door.taken == ["code"])
        door.open.set()
        await wait_until(lambda: door.taken == ["code", "campaign"])


async def test_what_is_refused_is_parked_with_every_fault(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, publisher):
        await ready(consumer, publisher)
        await send(amqp_url, "malformed", "good", "conflict")
        await send(amqp_url, "{}", key="profiles")
        await send(amqp_url, "malformed", "conflict", "nobody's", key="events")
        both = await parked(amqp_url, 5)
        events = [message for message in both if message.headers["x-decorum-queue"] == "decorum.reports"]
        messages = {message.body: message for message in both if message not in events}
    assert [(message.body, message.headers["x-decorum-reason"]) for message in events] == [
        (b"malformed", "malformed"),
        (b"conflict", "conflict"),
    ]
    headers = messages[b"malformed"].headers
    assert headers["x-decorum-reason"] == "malformed"
    assert headers["x-decorum-queue"] == NORMAL
    assert json.loads(str(headers["x-decorum-faults"])) == [
        {"path": "to.phone", "problem": "is no number"},
        {"path": "content", "problem": "is missing"},
    ]
    assert messages[b"conflict"].headers["x-decorum-reason"] == "conflict"
    assert "message-1" in str(messages[b"conflict"].headers["x-decorum-faults"])
    assert messages[b"{}"].headers["x-decorum-queue"] == "decorum.profiles"
    assert await left(amqp_url, NORMAL) == 0


async def test_what_cannot_be_parked_is_not_acknowledged(amqp_url: str) -> None:
    door = Door()
    nowhere = Publisher(f"amqp://127.0.0.1:{free_port()}/", **QUICK)
    consumer = Consumer(amqp_url, door.accept, door.accept_profiles, door.accept_reports, nowhere, **QUICK)
    await consumer.start()
    await ready(consumer)
    await send(amqp_url, "malformed")
    await wait_until(lambda: door.taken)
    await consumer.close()
    await wait_until(lambda: left_is(amqp_url, NORMAL, 1))


async def left_is(url: str, queue: str, count: int) -> bool:
    return await left(url, queue) == count


async def test_nothing_is_acknowledged_before_it_is_committed(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    door = Door()
    door.shut("one")
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        await send(amqp_url, "one")
        await wait_until(lambda: door.asked == ["one"])
        rabbitmq.ctl("close_all_connections", "-p", vhost(amqp_url), "test")
        await wait_until(lambda: not consumer.ready)
        await ready(consumer)
        door.open.set()
        await wait_until(lambda: door.taken == ["one", "one"], message="committed, and delivered anew")
    assert await left(amqp_url, NORMAL) == 0


async def test_consumes_again_after_its_connection_was_closed(rabbitmq: RabbitMQ, amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, publisher):
        await ready(consumer, publisher)
        with structlog.testing.capture_logs() as log:
            rabbitmq.ctl("close_all_connections", "-p", vhost(amqp_url), "maintenance")
            await wait_until(lambda: len([line for line in log if line["event"] == "broker.connected"]) == 2)
        assert any("maintenance" in line.get("reason", "") for line in log)
        await ready(consumer, publisher)
        await send(amqp_url, "one")
        await wait_until(lambda: door.taken == ["one"])
        await publisher.publish([Outgoing("state.sent", b"{}", "1", {})])


async def test_consumes_again_after_its_queue_was_deleted(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door, watch=60) as (consumer, _):
        await ready(consumer)
        async with await aio_pika.connect(amqp_url) as connection:
            await (await connection.channel()).queue_delete(NORMAL)
        await wait_until(lambda: not consumer.ready)
        assert "cancelled" in consumer.status
        await ready(consumer)
        await send(amqp_url, "one")
        await wait_until(lambda: door.taken == ["one"])


async def test_consumes_again_after_the_broker_was_killed(own_rabbitmq: RabbitMQ) -> None:
    door, url = Door(), own_rabbitmq.url
    async with running(url, door) as (consumer, publisher):
        await ready(consumer, publisher)
        await send(url, "before")
        await wait_until(lambda: door.taken == ["before"])
        own_rabbitmq.settle()
        own_rabbitmq.kill()
        await wait_until(lambda: not consumer.ready and not publisher.ready)
        begun = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await publisher.publish([Outgoing("state.sent", b"{}", "1", {})])
        assert time.monotonic() - begun < 0.5
        await asyncio.to_thread(own_rabbitmq.start_again)
        await ready(consumer, publisher)
        await send(url, "after")
        await wait_until(lambda: door.taken[-1] == "after")
        await publisher.publish([Outgoing("state.sent", b"{}", "1", {})])


async def test_notices_a_broker_that_no_longer_answers(own_rabbitmq: RabbitMQ) -> None:
    door, url = Door(), own_rabbitmq.url
    async with running(url, door, seconds=1.0) as (consumer, publisher):
        await ready(consumer, publisher)
        own_rabbitmq.pause()
        with pytest.raises(BrokerUnavailable):
            await publisher.publish([Outgoing("state.sent", b"{}", "1", {})])
        await wait_until(lambda: not consumer.ready and not publisher.ready, 20)
        own_rabbitmq.resume()
        await ready(consumer, publisher)
        await send(url, "after")
        await wait_until(lambda: door.taken == ["after"])


@pytest.mark.parametrize("error", [Overloaded("disk nearly full", 0.05), OSError("store away")])
async def test_what_was_not_committed_is_tried_again_in_order(amqp_url: str, error: Exception) -> None:
    door, bodies = Door(), [str(number) for number in range(100)]
    door.errors = [error] * 3
    async with running(amqp_url, door, prefetch=20) as (consumer, _):
        await ready(consumer)
        await send_many(amqp_url, *bodies)
        await wait_until(lambda: door.taken == bodies)
    assert len(door.asked) > len(bodies)
    assert await left(amqp_url, NORMAL) == 0


async def test_what_fails_while_others_are_accepted_is_parked(amqp_url: str) -> None:
    door = Door()
    async with running(amqp_url, door) as (consumer, publisher):
        await ready(consumer, publisher)
        await send_many(amqp_url, "one", "two", "poison", "three", "four")
        (message,) = await parked(amqp_url, 1)
        await wait_until(lambda: set(door.taken) == {"one", "two", "three", "four"})
    assert message.body == b"poison"
    assert message.headers["x-decorum-reason"] == "poison"
    assert await left(amqp_url, NORMAL) == 0


async def test_an_outage_of_the_store_parks_nothing(amqp_url: str) -> None:
    door = Door()
    door.errors = [OSError("store away") for _ in range(30)]
    async with running(amqp_url, door, pause=(0.001, 0.002)) as (consumer, _):
        await ready(consumer)
        await send_many(amqp_url, "one", "two", "three")
        await wait_until(lambda: set(door.taken) == {"one", "two", "three"})
    assert await left(amqp_url, "decorum.parked") == 0


async def test_stopping_finishes_the_batch_under_way_and_gives_back_the_rest(amqp_url: str) -> None:
    door = Door()
    door.shut("one")
    async with running(amqp_url, door) as (consumer, _):
        await ready(consumer)
        await send(amqp_url, "one")
        await wait_until(lambda: door.asked == ["one"])
        await send(amqp_url, "two", "three")
        stopping = asyncio.create_task(consumer.stop_consuming())
        await wait_until(lambda: not consumer.ready)
        assert not stopping.done()
        door.open.set()
        await stopping
        assert door.taken == ["one"]
        await wait_until(lambda: left_is(amqp_url, NORMAL, 2), message="given back while still connected")


async def test_what_was_confirmed_leaves_nothing_behind(amqp_url: str) -> None:
    """A gateway publishes for months on one channel."""

    def futures() -> int:
        gc.collect()
        return sum(isinstance(one, asyncio.Future) for one in gc.get_objects())

    publisher = Publisher(amqp_url, **QUICK)
    await publisher.start()
    await ready(publisher)

    async def publish() -> None:
        for _ in range(100):
            await publisher.publish([Outgoing("state.sent", b"", "-", {})])

    await publish()
    before = futures()
    await publish()
    assert futures() - before < 20
    await publisher.close()


async def test_events_are_published_and_confirmed(amqp_url: str) -> None:
    publisher = Publisher(amqp_url, **QUICK)
    await publisher.start()
    await ready(publisher)
    await publisher.publish([Outgoing("state.sent", b'"nobody listens"', "0", {})])
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("listener", durable=True)
        await queue.bind("decorum.events", "state.*")
        large = b"x" * 300_000
        events = [Outgoing("state.sent", b"%d" % number, f"id-{number}", {"sequence": number}) for number in range(500)]
        await publisher.publish([*events, Outgoing("state.sent", large, "large", {}), Outgoing("other", b"", "-", {})])
        for number in range(500):
            message = await queue.get(no_ack=True)
            assert (message.body, message.message_id) == (b"%d" % number, f"id-{number}")
        assert message.headers == {"sequence": 499}
        assert message.content_type == "application/json"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert (await queue.get(no_ack=True)).body == large
        assert await queue.get(fail=False) is None
    await publisher.close()


async def test_webhooks_ask_for_events_by_the_same_patterns_as_queues_are_bound_by(amqp_url: str) -> None:
    patterns = (
        "#",
        "*",
        "message.*",
        "message.#",
        "*.sent",
        "#.sent",
        "*.*.sent",
        "message.#.sent",
        "message.sent",
        "#.*",
    )
    keys = ("message.sent", "message.delivered", "message", "sent", "profile.sent", "message.a.sent", "message.a.b")
    publisher = Publisher(amqp_url, **QUICK)
    await publisher.start()
    await ready(publisher)
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queues = {pattern: await channel.declare_queue(exclusive=True) for pattern in patterns}
        for pattern, queue in queues.items():
            await queue.bind("decorum.events", pattern)
        await publisher.publish([Outgoing(key, key.encode(), key, {}) for key in keys])
        for pattern, queue in queues.items():
            heard = set()
            while (message := await queue.get(no_ack=True, fail=False)) is not None:
                heard.add(message.body.decode())
            assert heard == {key for key in keys if matches(pattern, key)}, pattern
    await publisher.close()


async def test_publishing_at_once_from_many_tasks_confirms_each(amqp_url: str) -> None:
    publisher = Publisher(amqp_url, **QUICK)
    await publisher.start()
    await ready(publisher)
    await asyncio.gather(*(publisher.publish([Outgoing("k", b"{}", f"{n}", {})] * 20) for n in range(50)))
    await publisher.close()


async def test_a_cancelled_publish_does_not_confuse_the_next(amqp_url: str) -> None:
    publisher = Publisher(amqp_url, **QUICK)
    await publisher.start()
    await ready(publisher)
    for turns in range(4):
        task = asyncio.create_task(publisher.publish([Outgoing("k", b"x" * 10_000, "1", {})] * 200))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await ready(publisher)
        await publisher.publish([Outgoing("k", b"{}", "2", {})] * 10)
    await publisher.close()


async def test_parking_where_there_is_no_queue_is_an_error(amqp_url: str) -> None:
    publisher = Publisher(amqp_url, Topology(prefix="nowhere"), **QUICK)
    await publisher.start()
    await ready(publisher)
    with pytest.raises(BrokerUnavailable):
        await publisher.park([(b"{}", {})])
    await publisher.park([])
    await publisher.close()


async def test_publishing_before_there_is_a_broker_fails_at_once() -> None:
    publisher = Publisher(f"amqp://127.0.0.1:{free_port()}/", **QUICK)
    await publisher.start()
    with pytest.raises(BrokerUnavailable):
        await publisher.publish([Outgoing("k", b"{}", "1", {})])
    await wait_until(lambda: "Connect call failed" in publisher.status)
    await publisher.close()


async def test_a_topology_of_the_operators_is_only_looked_at(amqp_url: str) -> None:
    theirs = Topology("acme", "acme.events", "passive")
    door = Door()
    async with running(amqp_url, door, theirs) as (consumer, publisher):
        await wait_until(lambda: "acme" in consumer.status and "acme" in publisher.status)
        for name in ("exchange acme.requests", "queue acme.requests.bulk", "queue acme.profiles", "queue acme.parked"):
            assert f"{name} is missing" in consumer.status
        assert publisher.status == "exchange acme.events is missing"
        async with running(amqp_url, Door(), Topology("acme", "acme.events")) as others:
            await ready(*others)
        await ready(consumer, publisher)
        await send(amqp_url, "one", exchange="acme.requests")
        await wait_until(lambda: door.taken == ["one"])


async def test_a_queue_that_is_not_as_it_must_be_is_named(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).declare_queue(NORMAL, durable=True)
    async with running(amqp_url, Door()) as (consumer, _):
        await wait_until(lambda: "not as it must be" in consumer.status)
        assert f"queue {NORMAL} exists" in consumer.status
        assert "inequivalent arg" in consumer.status
        assert not consumer.ready


async def test_a_refused_login_says_so_without_the_password(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    url = rabbitmq.url.replace("guest:guest", "guest:hunter2")
    with structlog.testing.capture_logs() as log:
        async with running(url, Door()) as (consumer, publisher):
            await wait_until(lambda: {consumer.status, publisher.status} == {"login refused"})
            assert not consumer.ready
            assert not publisher.ready
    assert {"event": "broker.lost", "reason": "login refused"}.items() <= log[0].items()
    assert "hunter2" not in f"{log}{caplog.text}"


async def test_a_missing_virtual_host_says_so(rabbitmq: RabbitMQ) -> None:
    async with running(rabbitmq.url.replace("%2F", "nowhere"), Door()) as (consumer, _):
        await wait_until(lambda: "virtual host nowhere is missing" in consumer.status)
