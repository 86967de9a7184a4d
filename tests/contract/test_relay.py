"""Does every event go to the broker and to whoever asks for it, and is none forgotten before?"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
from structlog.testing import capture_logs

from gateway.broker import BrokerUnavailable
from gateway.metrics import Metrics
from gateway.relay import Relay
from tests.contract.receiver import webhook
from tests.contract.world import ACCEPTED
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.broker import Outgoing
    from tests.contract.world import World

LEDGER = webhook(443, "ledger", events=("message.*",))
CRM = webhook(443, "crm", url="https://crm.example.com/", events=("message.refused", "profile.#"))
URLS = {one.name: one.fingerprint for one in (LEDGER, CRM)}


class Broker:
    """Confirms what it gets, or does not."""

    def __init__(self, *, ready: bool = True, confirms: bool = True) -> None:
        self.ready = ready
        self.confirms = confirms
        self.got: list[str] = []

    async def publish(self, events: Sequence[Outgoing]) -> None:
        self.got += [event.message_id for event in events]
        if not self.confirms:
            raise BrokerUnavailable("no")


@asynccontextmanager
async def relaying(world: World, broker: Broker | None, *webhooks: Any) -> AsyncIterator[tuple[Relay, Metrics]]:
    metrics = Metrics("test")
    told = asyncio.Event()
    relay = Relay(world.store, broker, webhooks, "one", metrics, told.set)  # type: ignore[arg-type]
    task = asyncio.create_task(relay.run())
    try:
        yield relay, metrics
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def happen(world: World) -> None:
    """Ann is sent a message, and refused another."""
    await world.settle(await world.claimed(world.new()), ACCEPTED)
    nudge = world.new(category="nudge")
    await world.accept(world.new("bob"), world.new("bob"), nudge)
    await world.store.cancel(nudge.message.id, world.judge)


async def emptied(world: World) -> bool:
    return not await world.store.unpublished(1)


async def queued(world: World, *, of: dict[str, str] = URLS) -> dict[str, list[str]]:
    """The types of the events that wait for each webhook."""
    found: dict[str, list[str]] = {name: [] for name in of}
    for one in await world.store.due_events(of, dict.fromkeys(of, 100)):
        found[one.webhook].append(orjson.loads(one.body)["type"])
    return found


async def test_without_a_broker_each_event_is_queued_for_those_that_ask_for_it(world: World) -> None:
    await happen(world)
    async with relaying(world, None, LEDGER, CRM):
        await wait_until(lambda: emptied(world))
    assert await queued(world) == {"ledger": ["message.sent", "message.cancelled"], "crm": []}


async def test_with_a_broker_it_is_queued_once_the_broker_has_it(world: World) -> None:
    await happen(world)
    broker = Broker(confirms=False)
    events = [event for _, event, *_ in await world.store.unpublished(10)]
    async with relaying(world, broker, LEDGER) as (_, metrics):
        await wait_until(lambda: broker.got)
        assert not await emptied(world)
        assert await queued(world) == {"ledger": [], "crm": []}
        broker.confirms = True
        await wait_until(lambda: emptied(world))
    assert broker.got[-2:] == events
    assert len((await queued(world))["ledger"]) == 2
    assert metrics.registry.get_sample_value("gateway_events_published_total") == 2


async def test_a_disabled_webhook_is_queued_nothing(world: World) -> None:
    await happen(world)
    await world.store.disable_webhook("ledger", LEDGER.fingerprint, "http_410")
    async with relaying(world, None, LEDGER, CRM):
        await wait_until(lambda: emptied(world))
    await world.store.enable_webhook("ledger")
    assert await queued(world) == {"ledger": [], "crm": []}


async def test_of_what_comes_when_its_queue_is_full_a_webhook_does_not_hear_and_ops_do(world: World) -> None:
    await happen(world)
    every = webhook(443, "crm", url=CRM.url)
    with capture_logs() as logs:
        async with relaying(world, None, LEDGER, every) as (relay, metrics):
            relay.full = {"ledger"}
            relay.notice()
            await wait_until(lambda: emptied(world))
            labels = {"webhook": "ledger", "reason": "full"}
            await wait_until(
                lambda: metrics.registry.get_sample_value("gateway_webhook_events_lost_total", labels) == 2
            )
    assert await queued(world) == {"ledger": [], "crm": ["message.sent", "message.cancelled"]}
    assert [(log["webhook"], log["events"]) for log in logs if log["event"] == "webhook.full"] == [("ledger", 2)]
