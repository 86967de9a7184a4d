"""Does every link that was sent lead somewhere, and are opens and clicks remembered once, whoever made them?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.acts import Deed, Sighting
from gateway.decide import Deferred
from gateway.ids import new_id, oldest_id
from gateway.message import AttemptState, microseconds
from gateway.outcome import Outcome
from gateway.render import code, target
from gateway.store import Claimed
from gateway.store.engine import Fetch, Operation, Run
from gateway.unknown import Recourse
from providers import Act, Agent, Channel
from tests.contract.world import ACCEPTED, NOON, World, outcome

if TYPE_CHECKING:
    from gateway.acts import Noted
    from gateway.store import NewMessage

PUBLIC = "https://m.example.com"
LONG = "https://a.test/" + "x" * 40
HTML = '<p><a href="https://a.test/1">one</a> <a href="https://a.test/2">two</a></p>'
SECOND = timedelta(seconds=1)
LOST = Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout")


@pytest.fixture
def world(world: World) -> World:
    """One with a public listener, where everybody wants to hear of every act, and no cap holds anything back."""
    world.ruled("  caps: [{name: hardly, limit: 99, per: 24h}]\n")
    world.judge = replace(world.judge, public_url=PUBLIC, acts=frozenset(Act), events=frozenset())
    return world


@pytest.fixture
def heard(world: World) -> list[Noted]:
    noted: list[Noted] = []
    world.store._hear = noted.extend
    return noted


def new(world: World, text: str = f"a {LONG} b {LONG}2", category: str = "campaign", **fields: Any) -> NewMessage:
    content = {"sms": {"text": text}, "email": {"subject": "s", "text": "t", "html": HTML}}
    found = world.new(category=category, **fields)
    return replace(found, message=replace(found.message, body=found.message.body | {"content": content}))


async def mailed(world: World) -> Claimed:
    """A mail that was sent, an hour ago at least."""
    claimed = await world.claimed(new(world, channels=(Channel.EMAIL,)))
    await world.settle(claimed, ACCEPTED)
    world.pass_time(hours=1)
    return claimed


async def links(world: World) -> dict[str, tuple[str, int]]:
    def all_links() -> Operation[list[Any]]:
        return (yield Fetch("select code, attempt, link from links"))

    return {code: (attempt, link) for code, attempt, link in await world.engine.read(all_links)}


async def engage(world: World, *seen: Sighting) -> int:
    return await world.store.engage(seen, world.judge)


def click(claimed: Claimed, link: int = 1, at: float = 0, sign: str | None = None) -> Sighting:
    return Sighting(Act.CLICKED, claimed.attempt.id, NOON + at * SECOND, sign, link)


def opened(claimed: Claimed, at: float = 0, sign: str | None = None) -> Sighting:
    return Sighting(Act.OPENED, claimed.attempt.id, NOON + at * SECOND, sign)


async def acts(world: World, claimed: Claimed) -> list[tuple[Act, int | None, Agent, str | None]]:
    view = await world.store.view(claimed.attempt.message)
    assert view
    return sorted((one.act, one.link, one.agent, one.why) for one in view.acts)


# ----------------------------------------------------------------------------------------------- where links lead


async def test_the_links_of_a_text_lead_somewhere_from_the_intent_on(world: World) -> None:
    claimed = await world.claimed(new(world))
    attempt = claimed.attempt
    assert attempt.tracked
    assert await links(world) == {code(attempt.id, link): (attempt.id, link) for link in (1, 2)}
    for link, leads in ((1, LONG), (2, LONG + "2")):
        trail = await world.store.short_trail(code(attempt.id, link))
        assert trail
        assert (trail.attempt, trail.link, target(trail.content, trail.link)) == (attempt.id, link, leads)
    assert await world.store.short_trail("0123456789") is None


async def test_nothing_is_stored_of_a_mails_links(world: World) -> None:
    claimed = await mailed(world)
    assert (await world.store.view(claimed.attempt.message)).attempts[0].tracked  # type: ignore[union-attr]
    assert await links(world) == {}
    trail = await world.store.trail(claimed.attempt.id, 2)
    assert trail
    assert (trail.attempt, target(trail.content, 2), target(trail.content, 3)) == (
        claimed.attempt.id,
        "https://a.test/2",
        None,
    )
    assert await world.store.trail(new_id(), 1) is None


@pytest.mark.parametrize("why", ["category", "listener", "no link", "no room"])
async def test_what_is_not_tracked_has_no_links_of_ours(world: World, why: str) -> None:
    text = {"no link": "hello", "no room": "x" * 140 + " https://a.test/1"}.get(why, LONG)
    if why == "listener":
        world.judge = replace(world.judge, public_url=None)
    claimed = await world.claimed(new(world, text, "code" if why == "category" else "campaign"))
    assert not claimed.attempt.tracked
    assert await links(world) == {}
    assert await world.store.trail(claimed.attempt.id, 1) is None
    assert await world.store.since_hand_off([claimed.attempt.id]) == {}


async def test_a_repeat_by_its_key_is_sent_as_the_first_was(world: World) -> None:
    world.judge = replace(world.judge, recourses={"one": Recourse(keyed=timedelta(minutes=15))})
    first = await world.claimed(new(world, channels=(Channel.SMS,)))
    waits = await world.settle(first, LOST)
    assert isinstance(waits, Deferred)
    world.changed("campaign", tracked=False)
    world.now = waits.until
    (again,) = await world.due()
    assert isinstance(again, Claimed)
    assert (again.attempt.repeats, again.attempt.tracked) == (first.attempt.id, True)
    assert len(await links(world)) == 2
    assert await world.store.short_trail(code(first.attempt.id, 1))


async def test_another_attempt_has_other_links(world: World) -> None:
    first = await world.claimed(new(world))
    await world.settle(first, outcome(AttemptState.NOT_SENT))
    attempts = {attempt for attempt, _ in (await links(world)).values()}
    assert len(attempts) == 2
    assert first.attempt.id in attempts


async def test_a_code_that_is_taken_leads_where_it_did_and_the_attempt_is_not_made(world: World) -> None:
    """As good as never; then the batch fails, and is tried again with other ids."""
    wanted = new_id()

    def taken() -> Operation[None]:
        yield Run("insert into links (code, attempt, link) values ($1, $2, $3)", [(code(wanted, 2), "other", 7)])

    await world.engine.write(taken)
    await world.accept(new(world))
    leases = await world.lease()
    with pytest.raises(Exception, match=r"(?i)unique"):
        await world.store.claim(leases, world.judge, [wanted])
    assert await links(world) == {code(wanted, 2): ("other", 7)}
    assert await world.contacts() == []
    (claimed,) = await world.claim(*leases)
    assert isinstance(claimed, Claimed)
    assert len(await links(world)) == 3


async def test_links_are_forgotten_with_their_message(world: World) -> None:
    text = await world.claimed(new(world))
    await world.settle(text, ACCEPTED)
    mail = await mailed(world)
    world.pass_time(days=100)
    forgotten, expired = oldest_id(world.now), microseconds(world.now)
    while await world.store.prune(forgotten, forgotten, expired, 100):
        pass
    assert await links(world) == {}
    assert await world.store.short_trail(code(text.attempt.id, 1)) is None
    assert await world.store.trail(mail.attempt.id, 1) is None


async def test_how_long_ago_it_was_handed_over(world: World) -> None:
    claimed = await world.claimed(new(world))
    world.pass_time(seconds=3)
    assert await world.store.since_hand_off([claimed.attempt.id]) == {claimed.attempt.id: pytest.approx(3)}
    await world.settle(claimed, ACCEPTED)
    world.pass_time(seconds=5)
    assert await world.store.since_hand_off([claimed.attempt.id, new_id()]) == {claimed.attempt.id: pytest.approx(5)}
    trail = await world.store.trail(claimed.attempt.id, 1)
    assert trail
    assert trail.age == pytest.approx(5)


async def test_of_what_may_have_been_sent_the_call_is_what_counts(world: World) -> None:
    claimed = await world.claimed(new(world))
    world.pass_time(seconds=30)
    await world.settle(claimed, LOST)
    world.pass_time(seconds=1)
    assert await world.store.since_hand_off([claimed.attempt.id]) == {claimed.attempt.id: pytest.approx(31)}


# --------------------------------------------------------------------------------------------- who opened and clicked


async def test_each_is_remembered_once_a_person_and_a_machine_apart(world: World, heard: list[Noted]) -> None:
    claimed = await mailed(world)
    assert await engage(world, opened(claimed), opened(claimed, 5), opened(claimed, 6, "prefetch")) == 0
    clicks = [click(claimed, link, at) for link, at in ((1, 10), (1, 20), (2, 30))]
    assert await engage(world, opened(claimed, 7), *clicks) == 0
    expected = [
        (Act.CLICKED, 1, Agent.HUMAN, None),
        (Act.CLICKED, 2, Agent.HUMAN, None),
        (Act.OPENED, None, Agent.HUMAN, None),
        (Act.OPENED, None, Agent.MACHINE, "prefetch"),
    ]
    found = [(one.deed.act, one.deed.link, one.deed.agent, one.deed.why) for one in heard]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    view = await world.store.view(claimed.attempt.message)
    assert view
    assert {(one.via, one.channel) for one in view.acts} == {("pixel", Channel.EMAIL), ("link", Channel.EMAIL)}
    assert await engage(world, Sighting(Act.OPENED, new_id(), NOON, None)) == 0


async def test_a_click_on_what_nobody_sees_makes_machines_of_those_around_it(world: World, heard: list[Noted]) -> None:
    claimed, other = await mailed(world), await mailed(world)
    await engage(world, click(claimed, 1, 0), click(other, 1, 0), click(claimed, 2, 100))
    assert {one.deed.agent for one in heard} == {Agent.HUMAN}
    heard.clear()
    assert await engage(world, click(claimed, 0, 30)) == 1
    assert await acts(world, claimed) == [
        (Act.CLICKED, 0, Agent.MACHINE, "honeypot"),
        (Act.CLICKED, 1, Agent.MACHINE, "honeypot"),
        (Act.CLICKED, 2, Agent.HUMAN, None),
    ]
    assert [(one.deed.link, one.deed.why, one.deed.done_at) for one in heard] == [
        (1, "honeypot", NOON),
        (0, "honeypot", NOON + 30 * SECOND),
    ]
    assert await acts(world, other) == [(Act.CLICKED, 1, Agent.HUMAN, None)]
    assert await engage(world, click(claimed, 1, 35), click(claimed, 0, 36)) == 0
    assert len(await acts(world, claimed)) == 3
    assert await engage(world, click(claimed, 1, 500)) == 0  # and then the person comes
    assert (Act.CLICKED, 1, Agent.HUMAN, None) in await acts(world, claimed)


@pytest.mark.parametrize("together", [True, False])
async def test_two_links_within_a_second_are_a_machines_however_they_are_told(world: World, together: bool) -> None:
    claimed = await mailed(world)
    first, second = click(claimed, 1, 10), click(claimed, 2, 10.5)
    if together:
        assert await engage(world, first, second) == 0
    else:
        assert await engage(world, first) == 0
        assert await engage(world, second) == 1
    assert [why for _, _, _, why in await acts(world, claimed)] == ["burst", "burst"]


async def test_others_are_told_of_a_click_that_becomes_a_machines(world: World) -> None:
    claimed = await mailed(world)
    await engage(world, click(claimed, 1, 0))
    await engage(world, click(claimed, 0, 1))
    told = [(key, orjson.loads(body)) for _, _, key, body in await world.store.unpublished(100)]
    assert [(key, event["link"], event["agent"]) for key, event in told] == [
        ("message.clicked", 1, "human"),
        ("message.clicked", 1, "machine"),
        ("message.clicked", 0, "machine"),
    ]


async def test_what_an_app_tells_of_clicks_is_not_judged(world: World) -> None:
    claimed = await mailed(world)
    deed = Deed(Act.CLICKED, Agent.HUMAN, "api", "k", attempt=claimed.attempt.id, done_at=NOON, link=1)
    await world.store.record([deed], world.judge)
    assert await engage(world, click(claimed, 0, 1)) == 0
    assert (Act.CLICKED, 1, Agent.HUMAN, None) in await acts(world, claimed)


async def test_nothing_is_remembered_of_a_message_that_is_forgotten(world: World, heard: list[Noted]) -> None:
    claimed = await mailed(world)
    world.pass_time(days=100)
    await world.store.prune(oldest_id(world.now), oldest_id(world.now), microseconds(world.now), 100)
    assert await engage(world, click(claimed), opened(claimed)) == 0
    assert heard == []
