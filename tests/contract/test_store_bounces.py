"""Does a mail that came back find its attempt and no other, and does a complaint about it hold?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.decide import Ended
from gateway.ids import new_id
from gateway.message import AttemptState, MessageState, OptOut, Profile
from gateway.outcome import Outcome
from gateway.store import Claimed
from providers import Act, Channel, ReceiptStatus
from tests.contract.world import ACCEPTED, World, receipt

if TYPE_CHECKING:
    from gateway.message import Attempt

MAIL = (Channel.EMAIL,)
SMS = (Channel.SMS,)


async def mailed(world: World, *references: str) -> Attempt | None:
    return await world.store.mailed(references)


async def sent(world: World, category: str = "receipt", person: str = "ann", **fields: Any) -> Claimed:
    claimed = await world.claimed(world.new(person, category, channels=fields.pop("channels", MAIL), **fields))
    await world.settle(claimed, ACCEPTED)
    return claimed


async def test_a_mail_is_found_by_its_attempt_and_by_its_message(world: World) -> None:
    one, other = (await sent(world)).attempt, (await sent(world)).attempt
    for attempt in (one, other):
        for reference in (attempt.id, attempt.message):
            found = await mailed(world, reference)
            assert found is not None
            assert (found.id, found.provider, found.reference) == (attempt.id, "one", "ref")
    first = await mailed(world, new_id(), other.message, one.id)
    assert first is not None
    assert first.id == other.id


async def test_by_its_message_the_last_mail_is_found(world: World) -> None:
    new = world.new(category="receipt", channels=MAIL)
    first = await world.claimed(new)
    await world.settle(first, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    world.pass_time(hours=2)
    (second,) = [step for step in await world.due() if isinstance(step, Claimed)]
    found = await mailed(world, new.message.id)
    assert found is not None
    assert found.id == second.attempt.id != first.attempt.id
    by_id = await mailed(world, first.attempt.id, new.message.id)
    assert by_id is not None
    assert by_id.id == first.attempt.id


async def test_what_went_by_another_channel_is_never_found(world: World) -> None:
    text = (await sent(world, channels=SMS)).attempt
    mixed = world.new(category="receipt", channels=(Channel.EMAIL, Channel.SMS))
    mail = await world.claimed(mixed)
    text_after = await world.settle(mail, Outcome(AttemptState.UNREACHABLE, error="unreachable:smtp_550"))
    assert isinstance(text_after, Claimed)
    assert await mailed(world, text.id, text.message, text_after.attempt.id) is None
    found = await mailed(world, text_after.attempt.id, mixed.message.id)
    assert found is not None
    assert found.id == mail.attempt.id
    assert await world.store.complain(text.id, world.judge) is None
    assert await world.store.complain(text_after.attempt.id, world.judge) is None


async def test_what_is_nobodys_is_not_found(world: World) -> None:
    await sent(world)
    assert await mailed(world) is None
    assert await mailed(world, new_id(), "") is None
    assert await world.store.complain(new_id(), world.judge) is None


@pytest.mark.parametrize("times", [1, 2])
async def test_a_complaint_is_a_no_of_the_address_to_mail_and_of_the_person_to_the_category(
    world: World, times: int
) -> None:
    claimed = await sent(world, "campaign")
    for _ in range(times):
        assert await world.store.complain(claimed.attempt.id, world.judge) == "ann"
    person = (await world.person()).person
    assert person.optouts == (OptOut(category="campaign"),)
    view = await world.store.view(claimed.lease.message.id)
    assert view is not None
    assert [(act.act, act.channel) for act in view.acts] == [(Act.OPTED_OUT, Channel.EMAIL)]
    by_mail, by_text = world.new(channels=MAIL), world.new(channels=SMS)
    other_by_mail, other_by_text = (world.new(category="newsletter", channels=channels) for channels in (MAIL, SMS))
    await world.accept(by_mail, by_text, other_by_mail, other_by_text)
    await world.due()
    assert await world.states(by_mail, by_text, other_by_mail, other_by_text) == [
        MessageState.REFUSED,
        MessageState.REFUSED,
        MessageState.REFUSED,
        MessageState.SENDING,
    ]


async def test_a_complaint_holds_for_whoever_has_the_address(world: World) -> None:
    await world.store.complain((await sent(world)).attempt.id, world.judge)
    await world.accept(world.new("bob", channels=MAIL))
    assert await world.due() == [Ended(MessageState.REFUSED, "suppressed")]


async def test_a_complaint_about_a_code_locks_nobody_out(world: World) -> None:
    """What cannot be unsubscribed from by one click cannot be by a complaint, on other channels."""
    claimed = await sent(world, "code")
    assert await world.store.complain(claimed.attempt.id, world.judge) == "ann"
    assert (await world.person()).person.optouts == ()
    await world.accept(world.new(category="code", channels=MAIL))
    assert await world.due() == [Ended(MessageState.REFUSED, "suppressed")]
    assert await world.claimed(world.new(category="code", channels=SMS))


async def test_a_complaint_about_a_category_that_is_no_more_is_a_no_to_it(world: World) -> None:
    claimed = await sent(world, "campaign")
    world.without("campaign")
    assert await world.store.complain(claimed.attempt.id, world.judge) == "ann"
    assert (await world.person()).person.optouts == (OptOut(category="campaign"),)


async def test_a_complaint_ends_what_waits(world: World) -> None:
    for _ in range(2):
        claimed = await sent(world, "campaign")
    waiting = world.new(channels=MAIL)
    await world.accept(waiting)
    await world.due()
    assert await world.state(waiting) is MessageState.WAITING
    await world.store.complain(claimed.attempt.id, world.judge)
    await world.due()
    assert await world.state(waiting) is MessageState.REFUSED


async def test_a_profile_does_not_take_a_complaint_back(world: World) -> None:
    await world.store.complain((await sent(world, "campaign")).attempt.id, world.judge)
    await world.store.put_profiles([("ann", Profile(opted_out=()))])
    assert (await world.person()).person.optouts == (OptOut(category="campaign"),)


async def test_a_bounce_and_a_complaint_come_to_the_same_in_any_order(world: World) -> None:
    for turn in range(2):
        person = f"person {turn}"
        claimed = await sent(world, "campaign", person, to={"email": f"{turn}@example.com"})
        news = receipt(claimed, ReceiptStatus.UNREACHABLE)
        if turn:
            await world.store.receipt([news], world.judge)
        await world.store.complain(claimed.attempt.id, world.judge)
        await world.store.receipt([news], world.judge)
        found = await mailed(world, claimed.attempt.id)
        assert found is not None
        assert found.state is AttemptState.UNDELIVERED
        assert (await world.person(person)).person.optouts == (OptOut(category="campaign"),)
        assert not await world.contacts(person)
