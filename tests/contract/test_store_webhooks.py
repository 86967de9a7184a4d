"""Does each webhook have a queue of its own, from which nothing goes but what it took, gave up or lost?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.message import microseconds
from gateway.store import Called

if TYPE_CHECKING:
    from gateway.store import Queued, WebhookView
    from tests.contract.world import World

URLS = {"ledger": "hash-1", "crm": "hash-2"}
ALL = dict.fromkeys(URLS, 100)
MINUTE = timedelta(minutes=1)


async def happen(world: World, count: int = 1) -> None:
    """So many messages are sent, and what happened to them stands in the outbox."""
    for _ in range(count):
        world.pass_time(days=2)
        await world.sent(world.new())


async def move_on(world: World, *webhooks: str) -> list[int]:
    """As the relay does; the numbers of the events."""
    events = await world.store.unpublished(1000)
    queue = [(name, number, event, body.decode()) for name in webhooks for number, event, _, body in events]
    numbers = [number for number, *_ in events]
    await world.store.published(numbers, queue)
    return numbers


async def due(world: World, *names: str) -> list[Queued]:
    return await world.store.due_events(URLS, dict.fromkeys(names or URLS, 100))


async def view(world: World, name: str = "ledger") -> WebhookView:
    return (await world.store.webhooks(URLS))[name]


async def test_an_event_is_forgotten_by_the_outbox_and_queued_for_each_webhook_in_one_step(world: World) -> None:
    await happen(world, 2)
    events = await world.store.unpublished(10)
    numbers = await move_on(world, "ledger", "crm")
    assert await world.store.unpublished(10) == []
    queued = await due(world)
    assert [(one.webhook, one.sequence) for one in queued] == [(name, number) for name in URLS for number in numbers], (
        "those of each in order"
    )
    assert [(one.event, one.body, one.tries) for one in queued[:2]] == [
        (event, body, 0) for _, event, _, body in events
    ]
    assert orjson.loads(queued[0].body)["type"] == "message.sent"


async def test_what_another_worker_has_moved_on_is_not_queued_again(world: World) -> None:
    await happen(world)
    ((number, event, _, body),) = await world.store.unpublished(10)
    row = [("ledger", number, event, body.decode())]
    await world.store.published([number], row)
    (queued,) = await due(world)
    await world.store.record_calls([Called(queued)])
    await world.store.published([number], row)  # by one that was paused in the middle of it
    assert await due(world) == []


async def test_many_are_queued_at_once(world: World) -> None:
    await happen(world, 20)
    await move_on(world, "ledger", "crm")
    assert len(await due(world)) == 40
    assert len(await world.store.due_events(URLS, {"crm": 3})) == 3


async def test_what_is_taken_goes_and_what_is_not_comes_back_when_it_is_due(world: World) -> None:
    await happen(world, 2)
    await move_on(world, "ledger")
    first, second = await due(world)
    await world.store.record_calls([Called(first), Called(second, "http_500", 5 * MINUTE)])
    assert await due(world) == []
    world.pass_time(minutes=4, seconds=59)
    assert await due(world) == []
    world.pass_time(seconds=1)
    (again,) = await due(world)
    assert (again.event, again.body, again.tries) == (second.event, second.body, 1)


async def test_why_what_waits_was_not_taken_is_told_until_it_is(world: World) -> None:
    await happen(world, 3)
    await move_on(world, "ledger")
    first, second, third = await due(world)
    seen = await view(world)
    assert (seen.failed_at, seen.error, seen.next_call) == (None, None, world.now)
    await world.store.record_calls([Called(first, "dns", 9 * MINUTE), Called(second)])
    world.pass_time(minutes=1)
    at = world.now
    await world.store.record_calls([Called(third, "http_302", MINUTE)])
    seen = await view(world)
    assert (seen.failed_at, seen.error, seen.next_call) == (at, "http_302", at + MINUTE)
    await world.store.disable_webhook("ledger", URLS["ledger"], "http_410")
    assert (await view(world)).next_call is None
    await world.store.record_calls([Called(replace(first, tries=1), "http_500", None), Called(third)])
    seen = await view(world)
    assert (seen.failed_at, seen.error, seen.given_up) == (None, None, 1), "none of those that wait"


async def test_what_is_due_longest_goes_first(world: World) -> None:
    await happen(world, 3)
    await move_on(world, "ledger")
    first, second, third = await due(world)
    await world.store.record_calls([Called(first, "dns", 2 * MINUTE), Called(second, "dns", MINUTE)])
    world.pass_time(minutes=3)
    assert [one.sequence for one in await due(world)] == [third.sequence, second.sequence, first.sequence]


async def test_a_call_that_two_workers_made_counts_once(world: World) -> None:
    await happen(world)
    await move_on(world, "ledger")
    (queued,) = await due(world)
    await world.store.record_calls([Called(queued, "timeout", MINUTE)])
    await world.store.record_calls([Called(queued, "timeout", 9 * MINUTE)])
    world.pass_time(minutes=1)
    assert [one.tries for one in await due(world)] == [1]
    await world.store.record_calls([Called(queued)])  # the other's was taken after all
    assert (await view(world)).waiting == 0


async def test_what_is_given_up_is_kept_to_be_seen_and_is_not_due(world: World) -> None:
    await happen(world, 12)
    await move_on(world, "ledger", "crm")
    before = await due(world, "ledger")
    await world.store.record_calls([Called(one, "http_500", None) for one in before])
    world.pass_time(days=9)
    assert await due(world, "ledger") == []
    assert len(await due(world, "crm")) == 12
    seen = await view(world)
    assert (seen.waiting, seen.oldest, seen.given_up) == (0, None, 12)
    assert [(one.event, one.sequence, one.calls, one.error) for one in seen.newest] == [
        (one.event, one.sequence, 1, "http_500") for one in before[:1:-1]
    ]


async def test_what_is_given_up_can_be_revived_a_piece_at_a_time(world: World) -> None:
    await happen(world, 3)
    await move_on(world, "ledger", "crm")
    await world.store.record_calls([Called(one, "http_500", None) for one in await due(world)])
    assert [await world.store.revive_events("ledger", 2) for _ in range(3)] == [2, 1, 0]
    assert [(one.webhook, one.tries) for one in await due(world)] == [("ledger", 0)] * 3


async def test_a_disabled_webhook_gets_nothing_and_others_do(world: World) -> None:
    await happen(world)
    await move_on(world, "ledger", "crm")
    at = world.now
    assert await world.store.disable_webhook("ledger", URLS["ledger"], "http_410")
    world.pass_time(hours=1)
    assert not await world.store.disable_webhook("ledger", URLS["ledger"], "http_410"), "it was already"
    assert await world.store.disabled_webhooks(URLS) == {"ledger"}
    assert [one.webhook for one in await due(world)] == ["crm"]
    seen = await view(world)
    assert (seen.disabled_at, seen.reason, seen.waiting) == (at, "http_410", 1), "since the first time"
    assert (await view(world, "crm")).disabled_at is None


async def test_it_is_enabled_by_hand_and_goes_on_with_what_was_queued(world: World) -> None:
    await happen(world)
    await move_on(world, "ledger")
    await world.store.disable_webhook("ledger", URLS["ledger"], "http_410")
    assert await world.store.enable_webhook("ledger")
    assert not await world.store.enable_webhook("ledger")
    assert not await world.store.enable_webhook("nobody")
    assert await world.store.disabled_webhooks(URLS) == frozenset()
    assert [one.webhook for one in await due(world)] == ["ledger"]


async def test_it_is_enabled_by_another_url_which_can_be_disabled_too(world: World) -> None:
    await happen(world)
    await move_on(world, "ledger")
    await world.store.disable_webhook("ledger", URLS["ledger"], "http_410")
    moved = URLS | {"ledger": "hash-3"}
    assert await world.store.disabled_webhooks(moved) == frozenset()
    assert len(await world.store.due_events(moved, ALL)) == 1
    assert (await world.store.webhooks(moved))["ledger"].disabled_at is None
    assert await world.store.disable_webhook("ledger", moved["ledger"], "http_410")
    assert await world.store.disabled_webhooks(moved) == {"ledger"}
    assert await world.store.due_events(moved, ALL) == []


async def test_how_it_stands_with_each_is_told_of_all_that_are_configured(world: World) -> None:
    await happen(world, 2)
    await move_on(world, "ledger", "removed")
    seen = await world.store.webhooks(URLS)
    assert list(seen) == ["ledger", "crm"]
    assert (seen["ledger"].waiting, seen["ledger"].oldest) == (2, world.now)
    assert (seen["crm"].waiting, seen["crm"].oldest, seen["crm"].newest) == (0, None, ())


@pytest.mark.parametrize("limit", [1, 100])
async def test_what_is_old_is_forgotten_and_what_still_waited_is_told(world: World, limit: int) -> None:
    await happen(world, 2)
    await move_on(world, "ledger", "removed")
    first, _ = await due(world)
    await world.store.record_calls([Called(first, "http_500", None)])
    old = microseconds(world.now)
    world.pass_time(days=1)
    await happen(world)
    await move_on(world, "ledger")
    assert await world.store.forget_events(old, 100) == (0, [])
    gone, waited = 0, []
    while (piece := await world.store.forget_events(old + 1, limit))[0]:
        assert piece[0] <= limit
        gone += piece[0]
        waited += piece[1]
    assert (gone, sorted(waited)) == (4, ["ledger", "removed", "removed"])
    assert [one.tries for one in await due(world)] == [0]
