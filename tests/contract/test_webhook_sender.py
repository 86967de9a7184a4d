"""Is each webhook called with all that is queued for it, until it takes it, and none of them at the cost of another?"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.ids import new_id
from gateway.metrics import Metrics
from gateway.store import Store, StoreUnavailable
from gateway.webhooks.client import Client
from gateway.webhooks.sender import Sender
from gateway.webhooks.standard import WAITS, Answer
from providers import Channel
from tests.contract.receiver import HANG, NAME, Names, Receiver, webhook
from tests.contract.world import ACCEPTED
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from gateway.store import Called, Queued, WebhookView
    from tests.contract.world import World

PLAIN = f"http://{NAME}:%d/in?token=t0ken"
SECOND = timedelta(seconds=1)


class House:
    """Receivers, and the senders of processes that share a store."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self.world = world
        self.metrics = Metrics("test")
        self.clients: list[Client] = []
        self.stack = stack

    async def receiver(self, *answers: Any, name: str = "ledger", **changes: Any) -> Receiver:
        receiver = Receiver(*answers)
        await receiver.start()
        self.stack.push_async_callback(receiver.stop)
        to = webhook(receiver.port, name, PLAIN, **{"timeout": timedelta(minutes=1), **changes})
        await self.client(Client(to, lambda: self.world.now, resolver=Names(["127.0.0.1"])))
        return receiver

    async def client(self, client: Client) -> None:
        await client.open()
        self.stack.push_async_callback(client.close)
        self.clients.append(client)

    def sender(self, worker: str = "one", store: Store | None = None) -> Sender:
        """One that calls, until the test ends or it is killed."""
        sender = Sender(store or self.world.store, self.clients, worker, self.metrics, lambda: self.world.now)
        self.task = asyncio.create_task(sender.run())
        self.stack.push_async_callback(self.kill, self.task)
        return sender

    async def kill(self, task: asyncio.Task[None] | None = None) -> None:
        """The process with the last sender, as ``kill -9`` does."""
        (task or self.task).cancel()
        with suppress(asyncio.CancelledError):
            await (task or self.task)

    @property
    def urls(self) -> dict[str, str]:
        return {client.webhook.name: client.webhook.fingerprint for client in self.clients}

    async def happen(self, count: int = 1) -> list[str]:
        """So many messages are sent, and their events queued for all; the events' ids."""
        world = self.world
        await world.accept(*(world.new(new_id(), "receipt", channels=(Channel.SMS,)) for _ in range(count)))
        for step in await world.due():
            await world.settle(step, ACCEPTED)
        events = await world.store.unpublished(1000)
        queue = [(name, number, event, body.decode()) for name in self.urls for number, event, _, body in events]
        await world.store.published([number for number, *_ in events], queue)
        return [event for _, event, *_ in events]

    async def due(self) -> list[Queued]:
        return await self.world.store.due_events(self.urls, dict.fromkeys(self.urls, 1000))

    async def all_told(self) -> bool:
        """Whether nothing is due."""
        return not await self.due()

    async def view(self, name: str = "ledger") -> WebhookView:
        return (await self.world.store.webhooks(self.urls))[name]

    def calls(self, outcome: str, name: str = "ledger") -> float | None:
        labels = {"webhook": name, "outcome": outcome}
        return self.metrics.registry.get_sample_value("gateway_webhook_calls_total", labels)


@pytest.fixture
async def house(world: World) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield House(world, stack)


async def test_an_event_is_sent_once_it_is_queued_and_then_forgotten(house: House) -> None:
    receiver = await house.receiver()
    sender = house.sender()
    await wait_until(lambda: house.world.store.take_job("other", "one", SECOND))  # it has looked, and found nothing
    events = await house.happen(3)
    sender.notice()
    await wait_until(lambda: len(receiver.heard) == 3)
    assert sorted(receiver.ids) == events
    assert receiver.heard[0].body.startswith(b'{"sequence":')
    await wait_until(house.all_told)
    assert (await house.view()).waiting == 0
    assert house.calls("taken") == 3


async def test_what_fails_is_sent_again_with_the_same_id_for_three_days_and_then_given_up(house: House) -> None:
    receiver = await house.receiver(500)
    (event,) = await house.happen()
    sender = house.sender()
    world, began = house.world, house.world.now
    with capture_logs() as logs:
        for number, wait in enumerate([*WAITS, None], 1):
            await wait_until(lambda: len(receiver.heard) == number)  # noqa: B023 - not kept
            await wait_until(house.all_told)
            if wait is None:
                break
            world.pass_time(seconds=wait.total_seconds() - 1)
            assert await house.all_told(), "not before its time"
            world.pass_time(seconds=1 + wait.total_seconds() / 10)
            assert not await house.all_told()
            sender.notice()
    assert receiver.ids == [event] * 10
    assert len({heard.body for heard in receiver.heard}) == 1
    times = [int(heard.headers["webhook-timestamp"]) for heard in receiver.heard]
    assert times == sorted(set(times)), "of each call its own"
    assert timedelta(hours=75) < world.now - began < timedelta(hours=84)
    seen = await house.view()
    assert (seen.waiting, seen.given_up) == (0, 1)
    assert (seen.newest[0].event, seen.newest[0].calls, seen.newest[0].error) == (event, 10, "http_500")
    labels = {"webhook": "ledger", "reason": "given_up"}
    assert house.metrics.registry.get_sample_value("gateway_webhook_events_lost_total", labels) == 1
    assert [log["event"] for log in logs] == ["webhook.failed"] * 9 + ["webhook.given_up"]


async def test_a_webhook_that_is_gone_gets_nothing_more_until_it_is_enabled(house: House) -> None:
    receiver = await house.receiver(410, 200, concurrency=1)
    other = await house.receiver(name="crm")
    (first,) = await house.happen()
    sender = house.sender()
    with capture_logs() as logs:
        await wait_until(lambda: house.world.store.disabled_webhooks(house.urls))
    assert [log["webhook"] for log in logs if log["event"] == "webhook.disabled"] == ["ledger"]
    more = await house.happen(5)
    house.world.pass_time(days=9)
    sender.notice()
    await wait_until(lambda: len(other.heard) == 6)
    assert receiver.ids == [first]
    seen = await house.view()
    assert (seen.reason, seen.waiting, seen.given_up) == ("http_410", 6, 0)
    assert await house.world.store.enable_webhook("ledger")
    sender.notice()
    await wait_until(lambda: len(receiver.heard) == 7)
    assert sorted(receiver.ids) == sorted([first, first, *more])
    assert (house.calls("gone"), house.calls("taken")) == (1, 6)


async def test_a_receiver_that_hangs_holds_up_no_other_and_no_more_than_its_places(house: House) -> None:
    hangs = await house.receiver(HANG, concurrency=3)
    other = await house.receiver(name="crm", concurrency=3)
    await house.happen(20)
    sender = house.sender()
    await wait_until(lambda: len(other.heard) == 20)
    assert len(hangs.heard) == 3
    await wait_until(lambda: house.calls("taken", "crm") == 20)
    hangs.goes_on.set()
    await wait_until(lambda: len(hangs.heard) == 20)
    assert (hangs.most, other.most <= 3) == (3, True)
    assert len(set(hangs.ids)) == 20
    await wait_until(house.all_told)
    assert (await house.view()).waiting == 0
    await sender.stop(5, asyncio.Event())


class Forgetful(Store):
    """Its process dies before what became of a call is recorded."""

    async def record_calls(self, calls: Sequence[Called]) -> None:
        await asyncio.Event().wait()


async def test_a_call_that_was_never_recorded_is_made_again_with_the_same_id(house: House) -> None:
    receiver = await house.receiver(200)
    (event,) = await house.happen()
    house.sender("one", Forgetful(house.world.engine))
    await wait_until(lambda: house.calls("taken"))
    await house.kill()
    house.world.pass_time(seconds=16)  # its job is free
    house.sender("two")
    await wait_until(house.all_told)
    assert receiver.ids == [event, event]
    first, again = receiver.heard
    assert first.body == again.body
    assert (await house.view()).waiting == 0


class Away(Store):
    """Does not answer at first when it is told."""

    away = 1

    async def record_calls(self, calls: Sequence[Called]) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        await super().record_calls(calls)


async def test_a_store_that_is_away_is_told_later_and_nothing_is_sent_twice_for_it(house: House) -> None:
    receiver = await house.receiver(200)
    events = await house.happen(3)
    house.sender("one", Away(house.world.engine))
    await wait_until(house.all_told)
    assert sorted(receiver.ids) == events


class Late(Store):
    """Answers a look when it is told to, with what was there when it was asked."""

    looking = False
    answers: asyncio.Event | None = None

    async def due_events(self, urls: Mapping[str, str], wanted: Mapping[str, int]) -> list[Queued]:
        found = await super().due_events(urls, wanted)
        if self.answers:
            self.looking = True
            await self.answers.wait()
        return found


async def test_a_call_that_ends_while_the_store_is_asked_what_is_due_is_not_made_again(house: House) -> None:
    receiver = await house.receiver(HANG)
    await house.happen()
    store = Late(house.world.engine)
    sender = house.sender("one", store)
    await wait_until(lambda: receiver.under_way)
    store.answers = asyncio.Event()
    sender.notice()
    await wait_until(lambda: store.looking)
    receiver.goes_on.set()
    await wait_until(house.all_told)
    store.answers.set()
    await sender.stop(5, asyncio.Event())
    assert len(receiver.heard) == 1


async def test_only_one_worker_calls(house: House) -> None:
    receiver = await house.receiver(HANG)
    await house.happen()
    house.sender("one")
    await wait_until(lambda: receiver.under_way)
    await house.happen(5)
    second = house.sender("two")
    second.notice()
    await wait_until(lambda: len(receiver.heard) == 6)
    receiver.goes_on.set()
    await wait_until(house.all_told)
    assert len(receiver.heard) == len(set(receiver.ids)) == 6, "none of them by both"


async def test_who_asks_to_be_left_alone_is_with_everything(house: House) -> None:
    receiver = await house.receiver((503, {"Retry-After": "600"}), 200)
    other = await house.receiver(name="crm")
    (first,) = await house.happen()
    sender = house.sender()
    await wait_until(house.all_told)
    assert house.calls("status") == 1
    house.world.pass_time(seconds=599)
    (second,) = await house.happen()
    sender.notice()
    await wait_until(lambda: len(other.heard) == 2)
    assert receiver.ids == [first], "the same look found something for both"
    house.world.pass_time(seconds=1)
    sender.notice()
    await wait_until(lambda: len(receiver.heard) == 3)
    assert sorted(receiver.ids) == [first, first, second]


async def test_one_that_keeps_failing_is_called_one_at_a_time_until_it_takes_something(house: House) -> None:
    receiver = await house.receiver(*[500] * 8, HANG, concurrency=8)
    await house.happen(8)
    sender = house.sender()
    await wait_until(house.all_told)
    assert len(receiver.heard) == 8
    await house.happen(8)
    receiver.most = 0
    house.world.pass_time(seconds=2)
    sender.notice()
    await wait_until(lambda: receiver.under_way)
    assert (receiver.most, len(receiver.heard)) == (1, 9)
    receiver.goes_on.set()
    await wait_until(lambda: house.calls("taken") == 8)
    assert len(receiver.heard) == 16


async def test_a_stop_lets_calls_end_that_are_under_way_and_begins_no_more(house: House) -> None:
    receiver = await house.receiver(HANG, concurrency=2)
    await house.happen(5)
    sender = house.sender()
    await wait_until(lambda: receiver.under_way == 2)
    stopping = asyncio.create_task(sender.stop(30, asyncio.Event()))
    receiver.goes_on.set()
    await stopping
    assert house.task.done()
    assert len(receiver.heard) == 2
    assert (await house.view()).waiting == 3


async def test_a_hurried_stop_waits_for_no_answer(house: House) -> None:
    receiver = await house.receiver(HANG)
    await house.happen()
    sender = house.sender()
    await wait_until(lambda: receiver.under_way)
    hurry = asyncio.Event()
    stopping = asyncio.create_task(sender.stop(30, hurry))
    hurry.set()
    await stopping
    assert not house.task.done()
    assert (await house.view()).waiting == 1


async def test_nothing_that_is_logged_says_what_was_sent_where_or_with_which_secret(house: House) -> None:
    await house.receiver((302, {"X": "answered", "Location": "https://example.com/answered"}))
    await house.happen()
    with capture_logs() as logs:
        house.sender()
        await wait_until(house.all_told)
    assert [log["event"] for log in logs] == ["webhook.failed"]
    assert (logs[0]["again_in_seconds"], logs[0]["error"]) == (5, "http_302")
    assert logs[0]["hint"].startswith("it redirects"), "how it is mended"
    for secret in ("t0ken", NAME, "kkkk", "message.sent", "answered"):
        assert secret not in str(logs)


class Broken(Client):
    """Has a bug."""

    async def post(self, event: str, body: bytes) -> Answer:
        raise ZeroDivisionError(body)


async def test_a_bug_of_ours_costs_one_call_and_shows_nothing(house: House) -> None:
    other = await house.receiver()
    await house.client(Broken(webhook(1, "crm", PLAIN), lambda: house.world.now))
    await house.happen()
    with capture_logs() as logs:
        house.sender()
        await wait_until(house.all_told)
    assert len(other.heard) == 1
    assert house.calls("bug", "crm") == 1
    assert [log["event"] for log in logs] == ["webhook.bug", "webhook.failed"]
    assert "message.sent" not in str(logs)
