"""Is what people answer heard once, and does a start take back what a stop said and nothing else?"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import orjson
import pytest

from gateway.ids import oldest_id
from gateway.message import AttemptState, MessageState, OptOut
from gateway.store import Claimed
from providers import Act, Channel
from tests.contract.world import ACCEPTED, PHONE, World, outcome
from tests.servers import wait_until

if TYPE_CHECKING:
    from gateway.acts import Noted

HARDLY = "  caps: [{name: hardly, limit: 9, per: 24h}]\n"


@pytest.fixture
def world(world: World) -> World:
    """One that tells others of every act, and lets nearly everything go."""
    world.ruled(HARDLY)
    world.judge = replace(world.judge, acts=frozenset(Act))
    return world


async def stop(world: World, key: str, via: str = "reply", attempt: str | None = None) -> bool:
    return await world.store.hear_stop(key, PHONE, via, world.judge, attempt)


async def start(world: World, key: str) -> bool:
    return await world.store.hear_start(key, PHONE)


async def goes(world: World, person: str = "ann", channel: Channel = Channel.SMS) -> bool:
    """Whether a message for a person may go to the number."""
    content = {"sms": {"text": "t"}, "robocall": {"say": "s"}}
    new = world.new(person, channels=(channel,))
    new = replace(new, message=replace(new.message, body={"to": {"phone": PHONE}, "content": content, "labels": {}}))
    await world.accept(new)
    for step in await world.due():
        if isinstance(step, Claimed):
            await world.settle(step, ACCEPTED)
    ended = await world.state(new)
    assert ended in {MessageState.SENT, MessageState.REFUSED}
    return ended is MessageState.SENT


async def test_a_stop_is_of_every_channel_of_the_number_whoever_has_it(world: World) -> None:
    assert await goes(world)
    assert await stop(world, "SM1")
    for person in ("ann", "bob"):
        for channel in (Channel.SMS, Channel.ROBOCALL):
            assert not await goes(world, person, channel)


async def test_a_start_takes_the_stop_back(world: World) -> None:
    await stop(world, "SM1")
    assert await start(world, "SM2")
    assert await goes(world)


async def test_a_start_without_a_stop_harms_nothing(world: World) -> None:
    assert await start(world, "SM1")
    assert await goes(world)


@pytest.mark.parametrize("first", ["api", "keypress"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_start_takes_back_no_no_that_was_said_in_another_way(world: World, first: str, before: bool) -> None:
    async def otherwise() -> None:
        await world.store.opt_out_address(PHONE, OptOut(), first, world.judge)

    if before:
        await otherwise()
    await stop(world, "SM1")
    if not before:
        await otherwise()
    await start(world, "SM2")
    assert not await goes(world)


async def test_a_start_leaves_what_is_not_of_everything_alone(world: World) -> None:
    await world.store.opt_out_address(PHONE, OptOut(category="campaign"), "reply", world.judge)
    await start(world, "SM1")
    assert not await goes(world)


async def test_an_old_answer_that_is_told_again_undoes_no_newer_one(world: World) -> None:
    assert await stop(world, "SM1")
    assert await start(world, "SM2")
    assert not await stop(world, "SM1")
    assert await goes(world)
    assert await stop(world, "SM3")
    assert not await start(world, "SM2")
    assert not await goes(world)


async def test_a_start_lifts_what_vendors_said_of_texts_to_the_number_and_of_nothing_else(world: World) -> None:
    for channel in (Channel.SMS, Channel.ROBOCALL):
        new = world.new(channels=(channel,))
        body = {"to": {"phone": PHONE}, "content": {"sms": {"text": "t"}, "robocall": {"say": "s"}}, "labels": {}}
        await world.settle(
            await world.claimed(replace(new, message=replace(new.message, body=body))),
            outcome(AttemptState.UNREACHABLE),
        )
        assert not await goes(world, channel=channel)
    await start(world, "SM1")
    assert await goes(world)
    assert not await goes(world, channel=Channel.ROBOCALL)


async def test_a_stop_is_remembered_of_everybody_who_was_contacted_there(world: World) -> None:
    noted: list[Noted] = []
    world.store._hear = noted.extend
    first = world.new("ann")
    claimed = await world.claimed(first)
    await world.settle(claimed, ACCEPTED)
    await world.sent(world.new("ann"))
    await world.sent(world.new("bob"))
    await world.sent(world.new("cleo", to={"phone": "+447400999999"}))
    await stop(world, "CA1", "keypress", claimed.attempt.id)
    await stop(world, "CA1", "keypress", claimed.attempt.id)
    await stop(world, "CA2", "keypress", claimed.attempt.id)
    said = [(one.owed.person, one.deed.via, one.band, one.deed.act) for one in noted]
    assert said == [("ann", "keypress", "1-2", Act.OPTED_OUT), ("bob", "keypress", "1-2", Act.OPTED_OUT)]
    assert noted[0].owed.message == first.message.id  # to which it was said, and not the last
    bodies = [orjson.loads(body) for *_, body in await world.store.unpublished(1000)]
    assert len([event for event in bodies if event.get("act") == "opted_out"]) == 2


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
async def test_a_stop_waits_for_what_is_being_decided_of_those_who_were_contacted_there(world: World) -> None:
    """Of the others there is one writer. A decision holds its person's row: it is over, or it will see the stop."""
    await world.sent(world.new("ann"))
    deciding, looking = await asyncpg.connect(world.url), await asyncpg.connect(world.url)
    try:
        async with deciding.transaction():
            await deciding.execute("select 1 from profiles where person = 'ann' for update")
            stopping = asyncio.create_task(stop(world, "CA1", "keypress"))

            async def waits() -> bool:
                asked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                return bool(await looking.fetchval(f"{asked} and datname = current_database()"))

            await wait_until(waits, 4)
            assert not stopping.done()
        assert await stopping
    finally:
        await deciding.close()
        await looking.close()


async def test_what_is_under_way_to_a_number_is_known(world: World) -> None:
    assert await world.store.open_intents_at(PHONE) == 0
    claimed = await world.claimed(world.new("ann"))
    assert isinstance(claimed, Claimed)
    assert await world.store.open_intents_at(PHONE) == 10  # the world's span
    assert await world.store.open_intents_at("+447400999999") == 0
    world.pass_time(seconds=4)
    assert await world.store.open_intents_at(PHONE) == 6
    await world.settle(claimed, ACCEPTED)
    assert await world.store.open_intents_at(PHONE) == 0


async def test_what_was_heard_is_kept_as_long_as_contacts(world: World) -> None:
    await stop(world, "SM1")
    await world.store.prune(oldest_id(world.now), oldest_id(world.now.replace(year=2020)), 0, 10)
    assert not await stop(world, "SM1")
    assert await world.store.prune(oldest_id(world.now), oldest_id(world.now.replace(year=2500)), 0, 10) == 1
    assert await stop(world, "SM1")
