"""Does the store tell of each message what became of it, whole, once, and however small the pages are?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from gateway.acts import Deed
from gateway.ids import SOURCE
from gateway.message import AttemptState, MessageState, OptOut, microseconds
from gateway.store import Claimed, Wanted
from providers import Act, Agent, Channel, ReceiptStatus
from tests.contract.world import ACCEPTED, NOON, World, outcome, receipt

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.store import NewMessage, Story

HOUR = timedelta(hours=1)


def clocked(world: World) -> None:
    """Ids are found by the time in them, so the world's clock makes them."""
    chance = count()
    SOURCE.set(lambda: (microseconds(world.now), next(chance)))


def said(new: NewMessage, **fields: Any) -> NewMessage:
    """The same request, with more in its body."""
    return replace(new, message=replace(new.message, body={**new.message.body, **fields}))


async def told(world: World, limit: int = 100, **wanted: Any) -> list[Story]:
    """All stories, in pages of so many messages."""
    asked = Wanted(**{"since": NOON, "until": NOON + 24 * HOUR} | wanted)
    found: list[Story] = []
    start: str | None = ""
    while start is not None:
        stories, start = await world.store.stories(asked, start, limit)
        assert len(stories) <= limit
        found += stories
    return found


async def test_a_story_is_all_that_a_report_asks_of_a_message(world: World) -> None:
    clocked(world)
    new = said(world.new(campaign="spring"), stage="applied", variant="b")
    again = await world.settle(await world.claimed(new), outcome(AttemptState.UNREACHABLE))
    await world.settle(again, ACCEPTED)
    await world.store.receipt([receipt(again, ReceiptStatus.DELIVERED)], world.judge)
    world.pass_time(minutes=5)
    deed = Deed(Act.CONVERTED, Agent.HUMAN, "app", "k", message=new.message.id, stage="logged_in")
    await world.store.record([deed, Deed(Act.OPENED, Agent.MACHINE, "pixel", "l", message=new.message.id)], world.judge)
    (story,) = await told(world, fields=frozenset({"stage", "variant"}))
    assert (story.person, story.category, story.campaign, story.source) == ("ann", "campaign", "spring", "tests")
    assert (story.accepted_at, story.stage, story.variant) == (NOON, "applied", "b")
    assert (story.state, story.held, story.text) == (MessageState.DELIVERED, (), None)
    assert [(one.channel, one.state, one.begun_at) for one in story.tries] == [
        (Channel.SMS, AttemptState.UNREACHABLE, NOON),
        (Channel.EMAIL, AttemptState.DELIVERED, NOON),
    ]
    assert {(one.act, one.agent, one.stage, one.at) for one in story.acts} == {
        (Act.CONVERTED, Agent.HUMAN, "logged_in", NOON + timedelta(minutes=5)),
        (Act.OPENED, Agent.MACHINE, None, NOON + timedelta(minutes=5)),
    }


async def test_what_costs_more_is_told_only_where_it_is_wanted(world: World) -> None:
    clocked(world)
    await world.sent(said(world.new(), stage="applied", variant="b"))
    (story,) = await told(world)
    assert (story.stage, story.variant, story.text) == (None, None, None)
    (story,) = await told(world, fields=frozenset({"variant"}), priced=frozenset({"one"}))
    assert (story.stage, story.variant, story.text) == (None, "b", "hello")
    (story,) = await told(world, priced=frozenset({"two"}))
    assert story.text is None


async def test_a_story_says_what_held_a_message_and_how_it_ended(world: World) -> None:
    clocked(world)
    world.ruled("  quiet_hours: [{name: night, from: '08:00', to: '21:00'}]\n")
    waits, ends = world.new("ann"), world.new("bob")
    await world.accept(waits, ends)
    await world.due()
    await world.store.cancel(ends.message.id, world.judge)
    stories = {story.person: story for story in await told(world)}
    assert (stories["ann"].state, stories["ann"].reason, stories["ann"].held) == (
        MessageState.WAITING,
        None,
        ("night",),
    )
    assert (stories["bob"].state, stories["bob"].reason, stories["bob"].held) == (
        MessageState.CANCELLED,
        "cancelled",
        ("night",),
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 100])
async def test_each_message_of_the_time_is_told_once_however_small_the_pages(world: World, limit: int) -> None:
    clocked(world)
    accepted: dict[str, datetime] = {}
    world.now = NOON - HOUR
    for number in range(8):
        news = world.new(f"p{number}", "newsletter" if number % 3 else "campaign")
        accepted[news.message.person] = world.now
        await world.accept(news)
        world.pass_time(minutes=30)
    span = {"since": NOON, "until": NOON + 2 * HOUR}
    found = [story.person for story in await told(world, limit, **span)]
    assert found == [person for person, at in accepted.items() if NOON <= at < NOON + 2 * HOUR]
    assert len(found) == 4
    of_campaign = await told(world, limit, category="campaign", **span)
    assert [story.person for story in of_campaign] == ["p3"]


async def test_what_was_accepted_when_its_id_was_not_quite_made_is_found(world: World) -> None:
    clocked(world)
    news = world.new()
    early = replace(news, message=replace(news.message, accepted_at=NOON + timedelta(seconds=2)))
    await world.accept(early)
    assert len(await told(world, since=NOON + timedelta(seconds=1))) == 1


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_what_belongs_to_no_message_is_counted_by_when_it_was_done(world: World, limit: int) -> None:
    clocked(world)
    await world.store.introduce("ann")
    deeds = [Deed(Act.CONVERTED, Agent.HUMAN, "app", f"k{n}", person="ann", stage="applied") for n in range(3)]
    world.now = NOON - HOUR
    await world.store.record(deeds[:1], world.judge)
    world.now = NOON
    await world.store.record([*deeds[1:], Deed(Act.APP_OPENED, Agent.HUMAN, "app", "l", person="ann")], world.judge)
    await world.store.opt_out("ann", OptOut(), "api", world.judge)
    world.now = NOON + HOUR
    await world.store.opt_out("ann", OptOut(category="campaign"), "api", world.judge)
    counts: dict[tuple[Act, str | None, str | None], int] = {}
    start: int | None = 0
    while start is not None:
        acts, start = await world.store.unattributed(NOON, NOON + HOUR, start, limit)
        for act in acts:
            key = act.act, act.stage, act.band
            counts[key] = counts.get(key, 0) + act.count
    assert counts == {(Act.CONVERTED, "applied", None): 2, (Act.OPTED_OUT, None, "0"): 1}


async def test_what_a_message_led_to_is_not_counted_as_belonging_to_none(world: World) -> None:
    clocked(world)
    claimed = await world.claimed(world.new())
    assert isinstance(claimed, Claimed)
    await world.settle(claimed, ACCEPTED)
    await world.store.opt_out("ann", OptOut(), "one_click", world.judge, claimed.attempt.id)
    assert await world.store.unattributed(NOON, NOON + HOUR, 0, 10) == ([], None)
