"""Is what may have killed its worker run alone, parked if it kills again, and does nobody else notice?"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.decide import Deferred, Ended
from gateway.message import AttemptState, MessageState, Priority
from gateway.outcome import failed
from gateway.store import Claimed, Lost
from providers import Channel, Unavailable
from tests.contract.world import ACCEPTED, TERM

if TYPE_CHECKING:
    from gateway.store import Lease, NewMessage, Round
    from tests.contract.world import World

AT_ONCE = timedelta(0)
CHANNELS = tuple(Channel)
EVERYTHING = [(priority, channel, 10) for priority in Priority for channel in Channel]
NEVER_TWICE, ONCE_MORE = "campaign", "receipt"
"""Categories that leave what may have been sent, and that repeat it."""


async def dies(worker: World) -> list[Lease]:
    """A worker leases all that is due, and is never heard of again; its leases run out."""
    held = await worker.lease()
    worker.pass_time(seconds=31)
    return held


async def find(world: World, **how: bool) -> Round:
    return await world.store.take_suspect(TERM, world.judge, **how)


async def suspect(world: World) -> Lease:
    found = await find(world)
    assert found.lease
    return found.lease


async def suspected(world: World, *new: NewMessage) -> None:
    """Accept these and have another worker die of them."""
    await world.accept(*new)
    taken = await world.another().lease()
    assert {lease.message.id for lease in taken} == {one.message.id for one in new}
    world.pass_time(seconds=31)
    assert await world.lease() == []
    assert await world.store.suspects() == len(new)


async def comes_through(world: World, lease: Lease) -> None:
    (claimed,) = await world.claim(lease)
    assert await world.settle(claimed, ACCEPTED) == Ended(MessageState.SENT, "accepted")
    await world.store.clear(lease)


async def test_what_a_dead_worker_held_is_run_one_at_a_time_whoever_does_it(world: World) -> None:
    new = [world.new(person) for person in ("ann", "bob", "cleo")]
    await suspected(world, *new)
    first = await suspect(world)
    assert await find(world) == await find(world.another()) == type(await find(world))()
    await comes_through(world, first)
    second = await suspect(world)
    (claimed,) = await world.claim(second)
    assert isinstance(claimed, Claimed)
    world.pass_time(seconds=20)  # longer than who does this for all is trusted to live
    other = world.another()
    assert (await find(other)).lease is None
    await world.settle(claimed, ACCEPTED)
    third = await find(other)
    assert third.lease
    await comes_through(world, third.lease)
    assert await world.states(*new) == [MessageState.SENT] * 3
    assert {first.message.id, second.message.id, third.lease.message.id} == {one.message.id for one in new}
    assert await world.store.suspects() == 0


async def test_the_most_urgent_suspect_is_run_first(world: World) -> None:
    news, code = world.new("ann"), world.new("bob", "code")
    await suspected(world, news, code)
    assert (await suspect(world)).message.id == code.message.id


async def test_others_are_leased_as_ever_beside_suspects(world: World) -> None:
    await suspected(world, world.new("ann"))
    other = world.new("bob")
    await world.accept(other)
    assert [lease.message.id for lease in await world.lease()] == [other.message.id]


async def test_what_kills_each_worker_that_runs_it_alone_is_parked_and_nobody_else(world: World) -> None:
    poison, good = world.new("ann"), world.new("bob")
    await suspected(world, poison, good)
    assert not (await world.view(poison)).crashes, "the others were held at the time"
    killed = 0
    ended: list[tuple[str, Ended]] = []
    for _ in range(8):
        worker = world.another()
        found = await find(worker)
        killed += found.crashes
        ended += [(message.id, end) for message, end in found.parked]
        if found.lease is None:
            world.pass_time(seconds=16)  # until another may look after suspects
        elif found.lease.message.id == good.message.id:
            await comes_through(worker, found.lease)
        else:
            view = await world.view(poison)
            assert view.suspect
            assert view.crashes == killed < 3
            world.pass_time(seconds=31)
    assert killed == 3
    ((message, end),) = ended
    assert (message, end.state, end.reason) == (poison.message.id, MessageState.PARKED, "poison")
    assert await world.states(poison, good) == [MessageState.PARKED, MessageState.SENT]
    assert (poison.message.id, "parked", "poison") in await world.events()
    decided = (await world.view(poison)).decisions[-1]
    assert decided.state is MessageState.PARKED
    assert "died 3 times" in decided.why[0]["why"]
    (parked,) = await world.store.parked(10)
    assert (parked["reason"], parked["source"], parked["request"]) == ("poison", "tests", poison.message.request)
    assert poison.message.id in orjson.dumps(parked["faults"]).decode()
    assert await world.store.suspects() == 0


async def test_a_parked_message_is_kept_whole_for_people(world: World) -> None:
    poison = world.new("ann")
    await suspected(world, poison)
    for _ in range(3):
        await suspect(world.another())
        world.pass_time(seconds=31)
    assert len((await find(world.another())).parked) == 1
    ((body,),) = await rows(world, "select body from parked")
    assert orjson.loads(base64.b64decode(body)) == poison.message.body


async def rows(world: World, sql: str) -> list[tuple[object, ...]]:
    from gateway.store.engine import Fetch, Operation

    def look() -> Operation[list[tuple[object, ...]]]:
        return [tuple(row) for row in (yield Fetch(sql))]

    return await world.engine.read(look)


async def test_an_attempt_that_poison_left_open_is_unknown_once_it_is_parked(world: World) -> None:
    poison = world.new("ann")
    await world.accept(poison)
    (claimed,) = await world.another().due()
    assert isinstance(claimed, Claimed)
    world.pass_time(minutes=1)
    assert await world.lease() == []
    for _ in range(3):
        await suspect(world.another())
        world.pass_time(seconds=31)
    await find(world.another())
    assert [attempt.state for attempt in (await world.view(poison)).attempts] == [AttemptState.UNKNOWN]
    assert len(await world.contacts()) == 1, "it may have reached the person"
    assert await world.state(poison) is MessageState.PARKED


@pytest.mark.parametrize("category", [NEVER_TWICE, ONCE_MORE])
async def test_an_intent_that_a_dead_worker_left_open_is_unknown_once_run_alone(world: World, category: str) -> None:
    new = world.new("ann", category)
    await world.accept(new)
    (claimed,) = await world.another().due()
    assert isinstance(claimed, Claimed)
    world.pass_time(minutes=1)
    assert await world.lease() == []
    (step,) = await world.claim(await suspect(world))
    if category == NEVER_TWICE:
        assert step == Ended(MessageState.UNKNOWN, "crash")
        assert await world.store.suspects() == 0
    else:
        assert isinstance(step, Deferred)
        assert step.rule == "repeat"
        assert await world.store.suspects() == 1, "its repeat is run alone too, unless somebody clears it"
        assert (await find(world)).lease is None, "not before evidence has had its time"
        world.now = step.until
        await comes_through(world, await suspect(world))
    assert [a.error for a in (await world.view(new)).attempts][:1] == ["crash"]


async def test_who_died_in_company_of_a_suspect_that_came_through_is_not_its_fault(world: World) -> None:
    new = world.new("ann")
    await suspected(world, new)
    await suspect(world.another())
    world.pass_time(seconds=31)
    found = await find(world.another())
    assert found.crashes == 1
    assert found.lease
    await world.store.clear(found.lease)
    view = await world.view(new)
    assert (view.suspect, view.crashes) == (False, 0)


# ------------------------------------------------------------------------------------------------- those who still live


async def test_what_a_living_worker_gives_back_is_nobodys_fault(world: World) -> None:
    await world.accept(world.new("ann"), world.new("bob"))
    stopping = world.another()
    held = await stopping.lease()
    (one, _) = await stopping.claim(*held)
    assert isinstance(one, Claimed)
    await stopping.store.give_back(held, AT_ONCE)
    again = await world.lease()
    assert {lease.message.id for lease in again} == {lease.message.id for lease in held}
    steps = await world.claim(*again)
    assert Ended(MessageState.UNKNOWN, "crash") in steps, "cut off while the provider was being called"
    assert [type(step) for step in await stopping.claim(*held)] == [Lost, Lost]
    assert await world.store.suspects() == 0


async def test_what_is_given_back_after_a_pause_is_not_looked_at_before(world: World) -> None:
    await world.accept(world.new("ann"))
    await world.store.give_back(await world.lease(), timedelta(seconds=1))
    assert await world.lease() == []
    world.pass_time(seconds=1)
    assert len(await world.lease()) == 1


async def test_a_lease_that_its_worker_never_heard_of_is_given_back(world: World) -> None:
    await world.accept(world.new("ann"), world.new("bob", "code"), world.new("cleo"))
    worker, other = world.another(), world.another()
    ((known, _), (code, _)) = (
        (lease, lease.message.id)
        for lease in (await worker.store.lease([(Priority.BULK, channel, 1) for channel in CHANNELS], TERM))[0]
        + (await other.store.lease([(Priority.CRITICAL, channel, 1) for channel in CHANNELS], TERM))[0]
    )
    assert len(await worker.lease()) == 1, "and this one it does not hear of"
    assert await world.lease() == []
    await worker.store.give_back_all_but([known.message.id])
    (free,) = await world.lease()
    assert free.message.id not in (known.message.id, code.message.id)


async def test_a_worker_that_was_only_held_up_clears_what_it_was_taken_to_have_died_of(world: World) -> None:
    new = world.new("ann")
    await world.accept(new)
    paused = world.another()
    held = await dies(paused)
    world.now = paused.now
    assert await world.lease() == []
    assert await world.store.suspects() == 1
    assert [type(step) for step in await paused.claim(*held)] == [Lost]
    await paused.store.give_back(held, AT_ONCE)
    assert await world.store.suspects() == 0
    assert [lease.message.id for lease in await world.lease()] == [new.message.id]


async def test_what_a_workers_own_lease_ran_out_on_is_no_suspect(world: World) -> None:
    await world.accept(world.new("ann"))
    assert len(await dies(world)) == 1
    assert len(await world.lease()) == 1
    assert await world.store.suspects() == 0


async def test_after_the_store_was_away_what_others_held_is_left_to_them_for_a_while(world: World) -> None:
    await world.accept(world.new("ann"))
    other = world.another()
    held = await other.lease()
    world.pass_time(minutes=10)
    assert await world.store.lease(EVERYTHING, TERM, others=False) == ([], [])
    assert await world.store.suspects() == 0
    await other.store.give_back(held, AT_ONCE)
    assert len((await world.store.lease(EVERYTHING, TERM, others=False))[0]) == 1


async def test_the_same_holds_for_one_that_was_being_run_alone(world: World) -> None:
    new = world.new("ann")
    await suspected(world, new)
    other = world.another()
    lease = await suspect(other)
    world.pass_time(minutes=10)
    found = await find(world, others=False)
    assert (found.lease, found.crashes) == (None, 0)
    await comes_through_late(other, lease)
    assert (await find(world)).lease
    assert not (await world.view(new)).crashes


async def comes_through_late(world: World, lease: Lease) -> None:
    assert [type(step) for step in await world.claim(lease)] == [Lost]
    await world.store.give_back([lease], AT_ONCE)


# ------------------------------------------------------------------------------------------------------------- fencing


async def test_a_paused_worker_starts_nothing_more_once_its_lease_was_taken(world: World) -> None:
    begun, leased = world.new("ann"), world.new("bob")
    await world.accept(begun, leased)
    paused = world.another()
    leases = {lease.message.id: lease for lease in await paused.lease()}
    (claimed,) = await paused.claim(leases[begun.message.id])
    world.pass_time(minutes=1)
    assert await world.lease() == []
    for _ in leases:
        lease = await suspect(world)
        (step,) = await world.claim(lease)
        if isinstance(step, Claimed):
            await world.settle(step, ACCEPTED)
    assert await world.states(begun, leased) == [MessageState.UNKNOWN, MessageState.SENT]
    assert [type(step) for step in await paused.claim(*leases.values())] == [Lost, Lost]
    refused = failed(Unavailable("deadline"))
    assert await paused.settle(claimed, refused) == Lost(), "no next provider, no retry"
    assert [len((await world.view(new)).attempts) for new in (begun, leased)] == [1, 1]


@pytest.mark.parametrize("category", [NEVER_TWICE, ONCE_MORE])
async def test_what_a_paused_worker_learnt_of_its_own_attempt_is_the_truth(world: World, category: str) -> None:
    new = world.new("ann", category)
    await world.accept(new)
    paused = world.another()
    (claimed,) = await paused.due()
    world.pass_time(minutes=1)
    assert await world.lease() == []
    await world.claim(await suspect(world))
    await paused.settle(claimed, ACCEPTED)
    assert await world.state(new) is MessageState.SENT
    world.pass_time(minutes=5)
    assert await world.lease() == []
    assert (await find(world)).lease is None, "nothing is repeated that arrived"
    assert [attempt.state for attempt in (await world.view(new)).attempts] == [AttemptState.ACCEPTED]


# ------------------------------------------------------------------------------------------------------------ in a line


def in_line(leases: list[Lease]) -> list[Lease]:
    """Of one person, the first first."""
    return sorted(leases, key=lambda lease: lease.message.id)


async def test_those_in_line_behind_a_suspect_go_before_it(world: World) -> None:
    await world.accept(world.new("ann"), world.new("ann"))
    other = world.another()
    head, behind = in_line(await other.lease())
    await other.claim(behind)  # which sleeps until the other one settles
    world.pass_time(seconds=31)
    assert await world.lease() == []
    assert await world.store.suspects() == 1
    lease = await suspect(world.another())
    assert lease.message.id == head.message.id
    (next_,) = await world.lease()
    assert next_.message.id == behind.message.id
    (claimed,) = await world.claim(next_)
    assert isinstance(claimed, Claimed)


async def test_a_suspect_that_waits_in_line_is_woken_like_any_other(world: World) -> None:
    await world.accept(world.new("ann"), world.new("ann"))
    head, behind = in_line(await world.lease())
    (claimed,) = await world.claim(head)
    await world.store.give_back([behind], AT_ONCE)
    await world.another().store.lease(EVERYTHING, timedelta(seconds=5))
    world.pass_time(seconds=6)
    assert await world.lease() == []
    lease = await suspect(world)
    assert lease.message.id == behind.message.id
    await world.claim(lease)
    await world.settle(claimed, ACCEPTED)
    assert (await suspect(world)).message.id == behind.message.id


# ------------------------------------------------------------------------------------------------- a process of its own


async def test_where_one_process_works_alone_what_an_earlier_one_held_is_suspect_at_once(world: World) -> None:
    new = world.new("ann")
    await world.accept(new)
    dead = world.another()
    await dead.lease()
    assert await dead.store.take_job("suspects", "dead", timedelta(minutes=1))
    await world.store.inherit()
    assert await world.lease() == []
    assert (await suspect(world)).message.id == new.message.id


async def test_what_it_holds_itself_stays_its_own(world: World) -> None:
    await world.accept(world.new("ann"))
    (lease,) = await world.lease()
    await world.store.inherit()
    assert [type(step) for step in await world.claim(lease)] == [Claimed]


async def test_what_breaks_whoever_works_on_it_waits_and_is_set_aside_the_third_time(world: World) -> None:
    broken, good = world.new("ann"), world.new("bob")
    await world.accept(broken, good)
    for times in range(1, 4):
        leases = {lease.message.id: lease for lease in await world.lease()}
        parked = await world.store.broke(leases[broken.message.id], world.judge)
        assert [end.reason for _, end in parked] == (["bug"] if times == 3 else [])
        assert await world.lease() == [], "it waits"
        world.pass_time(seconds=61)
    assert await world.state(broken) is MessageState.PARKED
    assert (await world.state(good), await world.store.suspects()) == (MessageState.WAITING, 0)
    (kept,) = await world.store.parked(10)
    assert (kept["request"], kept["reason"]) == (broken.message.request, "bug")


async def test_a_bug_that_is_told_of_a_lost_lease_is_the_next_workers_to_meet(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (old,) = await world.lease()
    await world.store.give_back([old], AT_ONCE)
    (taken,) = await world.lease()
    assert await world.store.broke(old, world.judge) == ()
    assert isinstance((await world.claim(taken))[0], Claimed)
