"""Does the store tell all that explanations and questions about persons need, the same on both databases?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from gateway.abuse import fingerprint
from gateway.explain import explanation
from gateway.message import MessageState, OptOut, Profile
from gateway.store import Claimed
from providers import Channel, Receipt, ReceiptStatus
from tests.contract.world import ACCEPTED, NIGHT, PHONE, World

if TYPE_CHECKING:
    from gateway.store import NewMessage

SMS, BOTH = (Channel.SMS,), (Channel.SMS, Channel.EMAIL)


async def text(world: World, new: NewMessage) -> str:
    view, standing = await world.view(new), await world.store.standing(new.message.id, world.judge)
    assert standing
    return " ".join(explanation(view, standing, world.judge)["text"])


async def test_a_person_whom_nobody_knows_can_be_asked_about_and_stays_unknown(world: World) -> None:
    asked = world.new("nobody").message
    facts = await world.store.prospect(asked, world.judge)
    assert (facts.message, facts.person.id, facts.person.profile) == (asked, "nobody", Profile())
    assert (facts.contacts, facts.attempts, facts.now) == ([], (), world.now)
    assert await world.store.person("nobody") is None


async def test_what_is_asked_about_a_person_is_answered_by_all_that_a_decision_would_see(world: World) -> None:
    profile = Profile(phone=PHONE, opted_out=(OptOut(topic="rates"),))
    await world.store.put_profiles([("ann", profile)])
    await world.store.opt_out_address(PHONE, OptOut(category="nudge"), "api", world.judge)
    await world.sent(world.new(channels=SMS))
    await world.sent(world.new("bob", "code", channels=SMS))
    facts = await world.store.prospect(world.new(category="code", to={}).message, world.judge)
    assert facts.person.optouts == (OptOut(topic="rates"),)
    assert facts.person.refused == {PHONE: (OptOut(category="nudge"),)}
    assert [contact.category for contact in facts.contacts] == ["campaign"]
    assert [contact.category for contact in facts.on_addresses[fingerprint(PHONE)]] == ["code"]


async def test_why_an_address_must_not_be_used_is_known_with_its_time(world: World) -> None:
    await world.accept(world.new(channels=SMS))
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    at = world.now
    news = Receipt(claimed.attempt.id, ReceiptStatus.UNREACHABLE, "SM1", "undelivered", "30005")
    await world.store.receipt([news], world.judge)
    world.pass_time(days=1)
    new = world.new("bob", channels=(Channel.EMAIL, Channel.SMS))
    await world.accept(new)
    standing = await world.store.standing(new.message.id, world.judge)
    assert standing
    assert [(one.channel, one.reason, one.at) for one in standing.suppressions] == [(Channel.SMS, "receipt:30005", at)]
    assert "On record: the address by sms is not used any more since 12:00 yesterday" in await text(world, new)


async def test_a_person_is_introduced_once_and_keeps_what_is_known(world: World) -> None:
    await world.store.introduce("ann")
    assert (await world.person()).person.profile == Profile()
    await world.store.put_profiles([("ann", Profile(phone=PHONE))])
    await world.store.introduce("ann")
    assert (await world.person()).person.profile == Profile(phone=PHONE)


async def test_the_channels_that_were_passed_over_are_recorded_with_their_reasons(world: World) -> None:
    world.ruled("  caps: [{name: sms-day, limit: 1, per: day, channel: sms}]")
    await world.sent(first := world.new(category="either", channels=BOTH))
    second = world.new(category="either", channels=BOTH)
    await world.sent(second)
    (decision,) = (await world.view(second)).decisions
    assert (decision.state, decision.reason, [rule["rule"] for rule in decision.why]) == (
        MessageState.SENDING,
        "next_channel",
        ["sms-day"],
    )
    assert decision.why[0]["held_by"][0]["message"] == first.message.id
    assert await world.state(second) is MessageState.SENT
    assert "Rule sms-day held it back: 1 of 1 contact" in await text(world, second)


async def test_the_limit_of_an_address_is_recorded_with_its_numbers(world: World) -> None:
    codes = [world.new(f"p{n}", "code", channels=SMS) for n in range(6)]
    await world.accept(*codes)
    for step in await world.due():
        if isinstance(step, Claimed):
            await world.settle(step, ACCEPTED)
    (late,) = [code for code in codes if await world.state(code) is MessageState.REFUSED]
    (rule,) = (await world.view(late)).decisions[0].why
    assert (rule["rule"], len(rule["held_by"])) == ("abuse", 5)
    assert "Rule abuse held it back: 5 of 5 contacts in 1 h" in await text(world, late)


async def test_the_newer_one_that_took_the_place_is_recorded(world: World) -> None:
    world.now = NIGHT
    old, new = world.new(category="digest"), world.new(category="digest")
    await world.accept(old)
    await world.due()
    world.pass_time(minutes=5)
    await world.accept(new)
    await world.due()
    assert f"took its place: message {new.message.id} is newer." in await text(world, old)


async def test_who_goes_first_is_told(world: World) -> None:
    first = world.new()
    second = world.new(expires_at=first.message.expires_at + timedelta(hours=1))
    world.now = NIGHT
    await world.accept(first, second)
    await world.due()
    assert f"behind message {first.message.id} of the same person" in await text(world, second)
