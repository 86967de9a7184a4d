"""What becomes, in both stores, of attempts whose outcome nobody knows: repeats, places, late news, and their end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from gateway.decide import Deferred, Ended
from gateway.message import AttemptState, MessageState, OptOut
from gateway.outcome import Outcome
from gateway.store import Claimed, Lost, Settlement
from gateway.unknown import Recourse
from providers import Channel, ReceiptStatus
from tests.contract.world import ACCEPTED, receipt
from tests.contract.world import outcome as failing

if TYPE_CHECKING:
    from gateway.store import NewMessage, Next
    from tests.contract.world import World

LOST = Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout")
NOT_SENT = failing(AttemptState.NOT_SENT)
BY_SMS = (Channel.SMS,)
DAYS_3 = timedelta(hours=72)


@pytest.fixture
def keyed(world: World) -> World:
    """One whose provider ``one`` takes repeats for the same message for a quarter of an hour."""
    world.judge = replace(world.judge, recourses={"one": Recourse(keyed=timedelta(minutes=15))})
    return world


async def lost(world: World, **fields: Any) -> tuple[NewMessage, Claimed, Next]:
    """A message whose first attempt was never answered, and what comes next for it."""
    new = world.new(**({"channels": BY_SMS} | fields))
    claimed = await world.claimed(new)
    return new, claimed, await world.settle(claimed, LOST)


async def repeated(world: World, **fields: Any) -> tuple[NewMessage, Claimed, Claimed]:
    """The same, and its repeat, which is under way."""
    new, first, waits = await lost(world, **fields)
    assert isinstance(waits, Deferred)
    world.now = waits.until
    (second,) = await world.due()
    assert isinstance(second, Claimed)
    return new, first, second


async def tried(world: World, new: NewMessage) -> list[str]:
    return [attempt.state for attempt in (await world.view(new)).attempts]


def without_lease(claimed: Claimed) -> Claimed:
    """As a worker has it whose lease is another's."""
    return replace(claimed, lease=replace(claimed.lease, fence=0))


async def swept(world: World) -> list[tuple[str, str]]:
    """What the sweeper would ask for now; all that it is to close is closed."""
    return list((await world.store.look(world.judge, 100)).ask)


# ------------------------------------------------------------------------------------------------- repeats by the key


async def test_a_repeat_by_the_key_takes_no_second_place_and_settles_both(keyed: World) -> None:
    new, first, second = await repeated(keyed)
    assert (second.attempt.repeats, second.attempt.generation) == (first.attempt.id, 1)
    (held,) = await keyed.contacts()
    assert (held.begun, held.ended) == (first.attempt.begun_at, second.attempt.deadline)
    assert (await keyed.store.ages()).unknown > 0
    assert await keyed.settle(second, ACCEPTED) == Ended(MessageState.SENT, "accepted")
    assert await tried(keyed, new) == ["accepted", "accepted"]
    assert [contact.ended for contact in await keyed.contacts()] == [keyed.now]
    assert (await keyed.store.ages()).unknown == 0


async def test_a_clock_that_is_set_back_ends_no_contact_before_it_has_ended(keyed: World) -> None:
    new = keyed.new(channels=BY_SMS)
    await keyed.accept(new)
    before, keyed.now = keyed.now, keyed.now + timedelta(minutes=3)
    (first,) = await keyed.due()
    await keyed.settle(first, LOST)
    (held,) = await keyed.contacts()
    keyed.now = before
    await keyed.store.opt_out("ann", OptOut(category="nudge"), "api", keyed.judge)  # which has all decided anew
    (second,) = await keyed.due()
    assert isinstance(second, Claimed)
    assert second.attempt.deadline < held.ended
    assert await keyed.contacts() == [held]


@pytest.mark.parametrize("status", [ReceiptStatus.DELIVERED, ReceiptStatus.ACCEPTED, ReceiptStatus.UNDELIVERED])
async def test_news_of_what_a_late_worker_called_not_sent_settles_its_repeats(
    keyed: World, status: ReceiptStatus
) -> None:
    new, first, second = await repeated(keyed)
    assert isinstance(await keyed.settle(second, LOST), Deferred)
    await keyed.settle(without_lease(first), NOT_SENT)  # it came too late to write; its repeat was written
    assert await tried(keyed, new) == ["not_sent", "unknown"]
    await keyed.store.receipt([receipt(first, status)], keyed.judge)
    assert await tried(keyed, new) == [status] * 2
    keyed.pass_time(hours=1)
    assert await keyed.due() == [], "it is not sent again"
    assert await keyed.state(new) is MessageState({"accepted": "sent"}.get(status, status))


async def test_what_a_vendor_has_is_not_sent_again_though_it_was_taken_for_not_sent(world: World) -> None:
    new = world.new(channels=BY_SMS)
    first = await world.claimed(new)
    second = await world.settle(first, NOT_SENT)
    assert isinstance(second, Claimed)
    assert isinstance(await world.settle(second, NOT_SENT), Deferred)
    await world.store.receipt([receipt(first, ReceiptStatus.DELIVERED)], world.judge)
    world.pass_time(hours=1)
    assert await world.due() == []
    assert await world.state(new) is MessageState.DELIVERED


async def test_a_repeat_by_the_key_goes_where_the_cap_is_reached_by_its_own_place(keyed: World) -> None:
    keyed.ruled("  caps: [{name: one, limit: 1, per: 24h}]")
    new, _, second = await repeated(keyed)
    await keyed.settle(second, ACCEPTED)
    assert await keyed.state(new) is MessageState.SENT
    other = keyed.new()
    await keyed.accept(other)
    (held,) = await keyed.due()
    assert isinstance(held, Deferred)
    assert held.rule == "one"


async def test_a_crash_within_the_window_is_repeated_by_the_key(keyed: World) -> None:
    new = keyed.new(channels=BY_SMS)
    first = await keyed.claimed(new)
    keyed.pass_time(seconds=31)
    (waits,) = await keyed.due()
    assert isinstance(waits, Deferred)
    assert waits.rule == "repeat"
    keyed.now = waits.until
    (second,) = await keyed.due()
    assert isinstance(second, Claimed)
    assert second.attempt.repeats == first.attempt.id
    keyed.pass_time(seconds=31)  # and again
    (waits,) = await keyed.due()
    assert isinstance(waits, Deferred)
    assert await tried(keyed, new) == ["unknown", "unknown"]
    assert len(await keyed.contacts()) == 1


async def test_where_the_window_is_missed_the_category_decides(keyed: World) -> None:
    new = keyed.new(channels=BY_SMS)
    await keyed.claimed(new)
    keyed.pass_time(minutes=16)
    assert await keyed.due() == [Ended(MessageState.UNKNOWN, "crash")]
    _, first, second = await repeated(keyed, person="bob", category="receipt")
    keyed.pass_time(minutes=20)
    (waits,) = await keyed.due()  # the repeat's worker has died
    assert isinstance(waits, Deferred)
    keyed.now = waits.until
    (third,) = await keyed.due()
    assert isinstance(third, Claimed)
    assert (third.attempt.repeats, third.attempt.generation) == (None, 2)
    assert second.attempt.repeats == first.attempt.id
    assert len(await keyed.contacts("bob")) == 2


@pytest.mark.parametrize("end", [NOT_SENT, failing(AttemptState.REJECTED), LOST], ids=["not sent", "rejected", "lost"])
async def test_the_place_stays_taken_whatever_comes_of_the_repeat(keyed: World, end: Outcome) -> None:
    new, _, second = await repeated(keyed)
    await keyed.settle(second, end)
    assert [contact.ended for contact in await keyed.contacts()] == [keyed.now]
    keyed.pass_time(hours=1)
    await keyed.due()
    assert await keyed.state(new) is MessageState.UNKNOWN
    assert len(await keyed.contacts()) == 1


async def test_the_place_is_given_back_when_neither_was_sent(keyed: World) -> None:
    new, first, second = await repeated(keyed)
    await keyed.settle(second, LOST)
    assert isinstance(await keyed.settle(first, NOT_SENT), Lost)
    assert len(await keyed.contacts()) == 1
    assert isinstance(await keyed.settle(without_lease(second), NOT_SENT), Lost)
    assert await keyed.contacts() == []
    assert await tried(keyed, new) == ["not_sent", "not_sent"]
    assert (await keyed.store.ages()).unknown == 0


@pytest.mark.parametrize("status", [ReceiptStatus.DELIVERED, ReceiptStatus.UNDELIVERED])
async def test_a_receipt_is_about_all_that_the_vendor_takes_for_one(keyed: World, status: ReceiptStatus) -> None:
    new, first, second = await repeated(keyed)
    await keyed.settle(second, ACCEPTED)
    assert await keyed.store.receipt([receipt(first, status)], keyed.judge) == [True]
    assert await tried(keyed, new) == [status, status]
    assert await keyed.state(new) == status
    assert len(await keyed.contacts()) == (status is ReceiptStatus.DELIVERED)


async def test_what_may_be_repeated_holds_up_nobody_of_its_line(world: World) -> None:
    head, behind = world.new(category="receipt", channels=BY_SMS), world.new(category="receipt", channels=BY_SMS)
    await world.accept(head, behind)
    (claimed,) = [step for step in await world.due() if isinstance(step, Claimed)]
    assert isinstance(await world.settle(claimed, LOST), Deferred)
    (following,) = await world.due()
    assert isinstance(following, Claimed)
    assert following.attempt.message != claimed.attempt.message


async def test_what_may_have_been_sent_cannot_be_cancelled_but_is_not_sent_again(world: World) -> None:
    new, _, waits = await lost(world, category="receipt")
    assert isinstance(waits, Deferred)
    assert await world.store.cancel(new.message.id, world.judge) is MessageState.UNKNOWN
    assert await world.store.cancel(new.message.id, world.judge) is MessageState.UNKNOWN
    assert await world.state(new) is MessageState.UNKNOWN
    assert [(state, why) for _, state, why in await world.events()][-1] == ("unknown", "cancelled")
    world.now = waits.until
    assert await world.due() == []


# -------------------------------------------------------------------------------------------------------- late news


async def test_a_late_unreachable_suppresses_the_address(world: World) -> None:
    await world.accept(world.new(channels=BY_SMS))
    (claimed,) = await world.due()
    world.pass_time(minutes=2)
    await world.due()
    assert isinstance(await world.settle(claimed, Outcome(AttemptState.UNREACHABLE, error="unreachable:21211")), Lost)
    await world.accept(world.new("bob", channels=BY_SMS))
    assert [step.reason for step in await world.due() if isinstance(step, Ended)] == ["suppressed"]


async def test_who_was_told_unknown_is_told_when_it_certainly_was_not_sent(world: World) -> None:
    new, claimed, end = await lost(world)
    assert isinstance(end, Ended)
    await world.settle(claimed, NOT_SENT)
    assert await world.state(new) is MessageState.FAILED
    assert [(state, why) for _, state, why in await world.events()] == [
        ("unknown", "unconfirmed:timeout"),
        ("failed", "unavailable:refused"),
    ]
    assert await world.contacts() == []
    assert (await world.store.ages()).unknown == 0


async def test_a_message_that_waits_to_be_repeated_goes_at_once_when_it_certainly_was_not_sent(world: World) -> None:
    _, claimed, waits = await lost(world, category="receipt")
    assert isinstance(waits, Deferred)
    assert await world.due() == []
    world.pass_time(seconds=31)
    await world.settle(without_lease(claimed), NOT_SENT)
    (again,) = await world.due()
    assert isinstance(again, Claimed)


async def test_a_late_acceptance_leaves_no_repeat_open_though_its_worker_dies(world: World) -> None:
    new = world.new(category="receipt", channels=BY_SMS)
    first = await world.claimed(new)
    world.pass_time(seconds=31)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    world.now = waits.until
    await world.due()  # the repeat is under way, and its worker dies
    await world.settle(first, ACCEPTED)
    assert await world.state(new) is MessageState.SENT
    await swept(world)
    assert await tried(world, new) == ["accepted", "intent"]
    world.pass_time(seconds=31)
    await swept(world)
    assert await tried(world, new) == ["accepted", "unknown"]
    assert await world.state(new) is MessageState.SENT
    assert (await world.store.ages()).unknown == 0


async def test_a_receipt_leaves_no_repeat_open_though_its_worker_dies(world: World) -> None:
    new, first, _ = await repeated(world, category="receipt")
    await world.store.receipt([receipt(first, ReceiptStatus.DELIVERED)], world.judge)
    world.pass_time(seconds=31)
    await swept(world)
    assert await tried(world, new) == ["delivered", "unknown"]
    assert (await world.store.ages()).unknown == 0


# ------------------------------------------------------------------------------------------------------- the sweeper


async def test_a_vendor_that_can_be_asked_is_asked_ever_more_rarely_until_it_tells(world: World) -> None:
    world.judge = replace(world.judge, recourses={"one": Recourse(looked_up=True)})
    new, claimed, waits = await lost(world)
    assert isinstance(waits, Deferred)
    asked = [(claimed.attempt.id, "one")]
    begun, looks = world.now, []
    while world.now < begun + timedelta(minutes=3):
        if found := await swept(world):
            assert found == asked
            looks.append((world.now - begun).total_seconds())
        world.pass_time(seconds=5)
    assert looks == [10, 40, 160]
    await world.due()
    assert await world.state(new) is MessageState.UNKNOWN
    await world.store.receipt([receipt(claimed, ReceiptStatus.ACCEPTED)], world.judge)
    assert await world.state(new) is MessageState.SENT
    world.pass_time(hours=1)
    assert await swept(world) == []


async def test_nobody_is_asked_who_cannot_tell(world: World) -> None:
    await lost(world)
    world.pass_time(minutes=1)
    assert await swept(world) == []


async def test_what_stays_unknown_is_closed_72_hours_after_its_expiry_and_others_are_told_once(world: World) -> None:
    new, claimed, _ = await lost(world)
    world.now = new.message.expires_at + DAYS_3 - timedelta(seconds=1)
    await swept(world)
    assert (await world.store.ages()).unknown > 0
    assert [why for *_, why in await world.events()] == ["unconfirmed:timeout"]
    world.pass_time(seconds=1)
    assert (await world.store.look(world.judge, 100)).closed == 1
    await swept(world)
    assert [(state, why) for _, state, why in await world.events()][1:] == [("unknown", "closed")]
    assert (await world.store.ages()).unknown == 0
    assert await world.store.receipt([receipt(claimed, ReceiptStatus.DELIVERED)], world.judge) == [False]
    assert await world.state(new) is MessageState.UNKNOWN
    assert len(await world.contacts()) == 1


async def test_a_receipt_is_heard_until_the_message_is_closed(world: World) -> None:
    new = world.new(channels=BY_SMS)
    claimed = await world.claimed(new)
    await world.settle(claimed, ACCEPTED)
    world.now = new.message.expires_at + DAYS_3 - timedelta(seconds=1)
    assert await world.store.receipt([receipt(claimed, ReceiptStatus.DELIVERED)], world.judge) == [True]
    world.pass_time(seconds=1)
    assert await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge) == [False]
    assert await world.state(new) is MessageState.DELIVERED


async def test_what_nobody_worked_on_is_ended_by_then_an_open_intent_as_unknown(world: World) -> None:
    begun, waiting = world.new(channels=BY_SMS), world.new("bob", channels=BY_SMS)
    first = await world.claimed(begun)
    await world.accept(waiting)
    world.now = begun.message.expires_at + timedelta(hours=1)
    assert (await world.store.ages()).unclosed == 3600
    world.now = begun.message.expires_at + DAYS_3 - timedelta(seconds=1)
    assert await world.store.overdue(world.judge, 100) == 0
    world.pass_time(seconds=1)
    assert await world.store.overdue(world.judge, 100) == 2
    assert await world.states(begun, waiting) == [MessageState.UNKNOWN, MessageState.EXPIRED]
    assert await tried(world, begun) == ["unknown"]
    assert {why for *_, why in await world.events()} == {"closed"}
    assert await world.lease() == []
    assert (await world.store.ages()).unclosed == 0
    await swept(world)
    assert isinstance(await world.settle(first, ACCEPTED), Lost)


async def test_what_somebody_works_on_is_not_ended_under_their_hands(world: World) -> None:
    new = world.new(channels=BY_SMS)
    await world.accept(new)
    world.now = new.message.expires_at + DAYS_3
    await world.lease()
    assert await world.store.overdue(world.judge, 100) == 0


async def test_the_sweeper_takes_a_piece_at_a_time(world: World) -> None:
    for number in range(3):
        await lost(world, person=f"p{number}")
    world.pass_time(seconds=10)
    assert [(await world.store.look(world.judge, 2)).seen for _ in range(3)] == [2, 1, 0]


# ---------------------------------------------------------------------------- what becomes known while it is sent again


@pytest.mark.parametrize("by", ["receipt", "late worker"])
async def test_a_no_waits_for_a_repeat_whose_message_is_settled(world: World, by: str) -> None:
    _, first, second = await repeated(world, category="receipt")
    if by == "receipt":
        await world.store.receipt([receipt(first, ReceiptStatus.DELIVERED)], world.judge)
    else:
        await world.settle(without_lease(first), ACCEPTED)
    await world.store.opt_out("ann", OptOut(), "api", world.judge)
    left = (second.attempt.deadline - world.now).total_seconds()
    assert await world.store.open_intents("ann") == left > 0
    await world.settle(second, NOT_SENT)
    assert await world.store.open_intents("ann") == 0


async def test_what_was_undelivered_is_so_whatever_the_vendor_says_of_its_repeat_by_the_key(keyed: World) -> None:
    new, first, second = await repeated(keyed)
    await keyed.store.receipt([receipt(first, ReceiptStatus.UNDELIVERED)], keyed.judge)
    await keyed.settle(second, ACCEPTED)
    assert await keyed.state(new) is MessageState.UNDELIVERED
    assert await keyed.contacts() == []


async def test_others_hear_that_a_repeat_was_sent_though_the_first_was_not_delivered(world: World) -> None:
    new, first, second = await repeated(world, category="receipt")
    await world.store.receipt([receipt(first, ReceiptStatus.UNDELIVERED)], world.judge)
    assert await world.state(new) is MessageState.SENDING
    await world.settle(second, ACCEPTED)
    assert await world.state(new) is MessageState.SENT
    assert (await last_told(world, new)) == "sent"


async def test_news_of_an_earlier_attempt_takes_nothing_back(world: World) -> None:
    new, first, second = await repeated(world, category="receipt")
    await world.settle(second, ACCEPTED)
    await world.store.receipt([receipt(second, ReceiptStatus.DELIVERED)], world.judge)
    await world.store.receipt([receipt(first, ReceiptStatus.UNDELIVERED)], world.judge)
    assert await world.state(new) is MessageState.DELIVERED
    assert (await last_told(world, new)) == "delivered"


async def test_a_place_counts_from_the_end_of_its_repeat_however_late_that_was(world: World) -> None:
    world.judge = replace(world.judge, recourses={"one": Recourse(keyed=DAYS_3)})
    world.ruled("  caps: [{name: daily, limit: 1, per: 24h}]")
    _, first, _ = await lost(world)
    world.pass_time(hours=50)  # in which nobody works
    (second,) = await world.due()
    assert isinstance(second, Claimed)
    assert second.attempt.repeats == first.attempt.id
    await world.settle(second, ACCEPTED)
    world.pass_time(minutes=1)
    await world.accept(world.new(channels=BY_SMS))
    (step,) = await world.due()
    assert isinstance(step, Deferred)
    assert step.until == second.attempt.begun_at + timedelta(hours=24)


async def test_what_was_accepted_after_all_is_not_sent_by_the_next_provider(world: World) -> None:
    """Both come in one batch."""
    new, first, second = await repeated(world, category="receipt")
    answers = await world.store.settle(
        [Settlement(without_lease(first), ACCEPTED), Settlement(second, NOT_SENT)], world.judge
    )
    assert await world.state(new) is MessageState.SENT
    assert not any(isinstance(answer, Claimed) for answer in answers)


async def test_no_place_is_given_away_that_a_repeat_still_holds(keyed: World) -> None:
    """What was not sent, and who would take its place, come in one batch."""
    keyed.ruled("  caps: [{name: text, channel: sms, limit: 1, per: 24h}]")
    _, first, second = await repeated(keyed)
    await keyed.settle(second, LOST)
    other = await keyed.claimed(keyed.new(channels=(Channel.EMAIL, Channel.SMS), category="newsletter"))
    await keyed.store.settle(
        [Settlement(without_lease(first), NOT_SENT), Settlement(other, failing(AttemptState.UNREACHABLE))], keyed.judge
    )
    assert [contact.channel for contact in await keyed.contacts()].count(Channel.SMS) == 1


async def test_a_vendor_is_asked_for_the_reference_that_it_was_given(world: World) -> None:
    world.judge = replace(world.judge, recourses={"one": Recourse(keyed=timedelta(minutes=15), looked_up=True)})
    _, first, second = await repeated(world)
    await world.settle(second, LOST)
    await world.settle(without_lease(first), NOT_SENT)  # so only the repeat is in doubt
    world.pass_time(seconds=11)
    assert await swept(world) == [(first.attempt.id, "one")]


async def last_told(world: World, new: NewMessage) -> str:
    """The state of a message that others heard of last."""
    return [state for of, state, _ in await world.events() if of == new.message.id][-1]
