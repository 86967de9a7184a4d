"""Does everybody who waits get their turn: in order, once, and as soon as there is a place?"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.decide import Behind, Deferred, Ended
from gateway.health import SLOW
from gateway.message import AttemptState, MessageState, OptOut, Priority, Profile
from gateway.outcome import Outcome
from gateway.store import Claimed, Lost
from providers import Channel, ReceiptStatus
from ratelimit._rules import share
from tests.contract.world import ACCEPTED, MORNING, NIGHT, NOON, PHONE, World, outcome, receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from gateway.store import NewMessage, Next

SMS, EMAIL, BOTH = (Channel.SMS,), (Channel.EMAIL,), (Channel.SMS, Channel.EMAIL)
ONE_MAIL = "  caps: [{name: mail, channel: email, limit: 1, per: 7d}]"
ONE_A_TOPIC = "  caps: [{name: topical, limit: 1, per: 24h, scope: [user, labels.topic]}]"
SOON = NOON + timedelta(minutes=1)


def claimed_of(steps: Sequence[Next]) -> list[str]:
    return [step.lease.message.id for step in steps if isinstance(step, Claimed)]


# ----------------------------------------------------------------------------------------------------- collapse: newest


async def test_of_nine_that_waited_through_the_night_the_morning_brings_the_newest_alone(world: World) -> None:
    world.now = NIGHT
    nine = [world.new(category="digest", campaign="c") for _ in range(9)]
    for new in nine:
        await world.accept(new)
        await world.due()
    assert await world.day(MORNING + timedelta(hours=3)) == [nine[-1].message.id]
    assert await world.states(*nine) == [MessageState.REFUSED] * 8 + [MessageState.SENT]
    told = [event for event in await world.events() if event[1] == "refused"]
    assert sorted(told) == sorted((new.message.id, "refused", "collapsed") for new in nine[:-1])
    decisions = (await world.view(nine[0])).decisions
    assert [decision.reason for decision in decisions] == ["night", "collapsed"]


async def test_a_batch_that_holds_all_of_a_line_collapses_it(world: World) -> None:
    nine = [world.new(category="digest", campaign="c", priority=Priority(n % 3 + 1)) for n in range(9)]
    await world.accept(*nine)
    steps = await world.due()
    assert claimed_of(steps) == [max(new.message.id for new in nine)]
    assert Counter(step.reason for step in steps if isinstance(step, Ended)) == {"collapsed": 8}
    assert len(await world.contacts()) == 1


async def test_what_is_collapsed_is_so_though_another_worker_has_leased_it(world: World) -> None:
    old, new = world.new(category="digest", channels=EMAIL), world.new(category="digest", channels=SMS)
    await world.accept(old, new)
    leases = {lease.message.id: lease for lease in await world.lease()}
    assert claimed_of(await world.claim(leases[new.message.id])) == [new.message.id]
    assert await world.claim(leases[old.message.id]) == [Lost()]
    assert await world.states(old, new) == [MessageState.REFUSED, MessageState.SENDING]


async def test_what_the_person_has_said_no_to_takes_nobodys_place(world: World) -> None:
    old, wanted = world.new(category="digest"), world.new(category="digest", labels={"topic": "rates"})
    unwanted = world.new(category="digest", labels={"topic": "games"})
    await world.accept(old, wanted, unwanted)
    await world.store.opt_out("ann", OptOut(topic="games"), "api", world.judge)
    await world.day(NOON + timedelta(hours=1))
    assert await world.states(old, wanted, unwanted) == [
        MessageState.REFUSED,
        MessageState.SENT,
        MessageState.REFUSED,
    ]
    assert (await world.view(unwanted)).decisions[-1].reason == "opted_out"


async def test_what_certainly_was_not_sent_is_collapsed_however_often_it_was_tried(world: World) -> None:
    """An older one whose provider is down holds up no newer one, and does not come behind it."""
    old = world.new(category="digest", channels=EMAIL)
    step = await world.settle(await world.claimed(old), outcome(AttemptState.NOT_SENT))
    while isinstance(step, Claimed):
        step = await world.settle(step, outcome(AttemptState.NOT_SENT))
    assert isinstance(step, Deferred)
    newest = world.new(category="digest", channels=SMS)
    await world.accept(newest)
    assert claimed_of(await world.due()) == [newest.message.id]
    assert await world.states(old, newest) == [MessageState.REFUSED, MessageState.SENDING]
    assert (await world.view(old)).decisions[-1].reason == "collapsed"


async def test_what_may_have_been_sent_is_not_collapsed(world: World) -> None:
    begun = world.new(category="digest")
    first = await world.claimed(begun)
    newer, newest = world.new(category="digest"), world.new(category="digest")
    await world.accept(newer, newest)
    assert Counter(map(type, await world.due())) == {Ended: 1, Behind: 1}
    assert await world.states(begun, newer, newest) == [
        MessageState.SENDING,
        MessageState.REFUSED,
        MessageState.WAITING,
    ]
    await world.settle(first, ACCEPTED)
    assert await world.day(NOON + timedelta(hours=1)) == [newest.message.id]
    assert await world.state(begun) is MessageState.SENT


@pytest.mark.parametrize(
    "unlike",
    [
        {"channels": SMS},
        {"priority": Priority.HIGH},
        {"to": {"phone": "+819012345678"}},
        {"timezone": "Asia/Tokyo"},
        {"labels": {"topic": "other"}},
    ],
)
async def test_a_campaign_collapses_whatever_else_its_messages_differ_in(
    world: World, unlike: dict[str, object]
) -> None:
    world.ruled(ONE_A_TOPIC)
    old, new = world.new(category="digest"), world.new(category="digest", **unlike)
    await world.accept(old, new)
    assert claimed_of(await world.due()) == [new.message.id]
    assert await world.state(old) is MessageState.REFUSED


async def test_other_campaigns_persons_and_categories_are_not_collapsed(world: World) -> None:
    world.now = NIGHT
    kept = [
        world.new(category="digest", campaign="a"),
        world.new(category="digest", campaign="b"),
        world.new(category="digest"),
        world.new("bob", category="digest", campaign="a"),
        world.new(category="campaign", campaign="a"),
        world.new(category="campaign", campaign="a"),
    ]
    await world.accept(*kept)
    await world.due()
    assert await world.states(*kept) == [MessageState.WAITING] * 6


async def test_what_must_not_go_yet_supersedes_nothing_yet(world: World) -> None:
    world.now = NIGHT
    old = world.new(category="digest")
    later = world.new(category="digest", starts_at=MORNING + timedelta(hours=2))
    await world.accept(old, later)
    assert await world.day(MORNING + timedelta(hours=1)) == [old.message.id]
    assert await world.day(MORNING + timedelta(hours=3)) == [later.message.id]


async def test_what_has_expired_supersedes_nothing(world: World) -> None:
    old, brief = world.new(category="digest"), world.new(category="digest", expires_at=NOON + timedelta(minutes=1))
    await world.accept(old, brief)
    world.pass_time(minutes=2)
    assert await world.day(world.now + timedelta(minutes=1)) == [old.message.id]
    assert await world.states(old, brief) == [MessageState.SENT, MessageState.EXPIRED]


async def test_a_line_that_is_leased_when_its_category_comes_to_collapse_collapses(world: World) -> None:
    old, new = world.new(channels=EMAIL), world.new(channels=SMS)
    await world.accept(old, new)
    leases = await world.lease()
    world.changed("campaign", collapse=True)
    await world.swept(2)
    assert claimed_of(await world.claim(*leases)) == [new.message.id]
    assert await world.state(old) is MessageState.REFUSED


# -------------------------------------------------------------------------------------------------- whose turn it is


async def test_a_line_goes_by_priority_then_expiry_then_age(world: World) -> None:
    world.ruled("  caps: [{name: hourly, limit: 1, per: 1h}]")
    far, near = NOON + timedelta(days=9), NOON + timedelta(days=8)
    asked = [
        (Priority.BULK, far),
        (Priority.BULK, near),
        (Priority.NORMAL, far),
        (Priority.BULK, near),
        (Priority.HIGH, far),
        (Priority.NORMAL, near),
    ]
    waiting = [world.new(category="newsletter", priority=priority, expires_at=expires) for priority, expires in asked]
    await world.accept(*waiting)
    order = [waiting[place].message.id for place in (4, 5, 2, 1, 3, 0)]
    assert await world.day(NOON + timedelta(hours=8)) == order


async def test_a_label_whose_place_is_free_does_not_wait_behind_one_whose_place_is_taken(world: World) -> None:
    world.ruled(ONE_A_TOPIC)
    await world.sent(world.new(labels={"topic": "rates"}))
    held, free = world.new(labels={"topic": "rates"}, priority=Priority.HIGH), world.new(labels={"topic": "news"})
    await world.accept(held, free)
    assert await world.day(SOON) == [free.message.id]
    assert await world.state(held) is MessageState.WAITING


async def test_one_that_lost_a_channel_holds_up_none_that_has_it(world: World) -> None:
    world.ruled(ONE_MAIL)
    await world.sent(world.new(category="newsletter", channels=EMAIL))
    lame, behind, later = world.new(), world.new(), world.new()
    first = await world.claimed(lame, behind)
    waits = await world.settle(first, outcome(AttemptState.REJECTED))
    assert isinstance(waits, Deferred)
    assert waits.rule == "mail"
    await world.accept(later)
    assert await world.day(SOON) == [behind.message.id, later.message.id]
    world.now = NOON + timedelta(days=7)
    assert await world.day(world.now + timedelta(minutes=1)) == [lame.message.id]


async def test_one_that_lost_a_channel_and_is_tried_again_later_holds_up_none_either(world: World) -> None:
    world.judge = replace(world.judge, routes={Channel.SMS: ("one",), Channel.EMAIL: ("two",)})
    lame, sound = world.new(), world.new()
    by_mail = await world.settle(await world.claimed(lame, sound), outcome(AttemptState.REJECTED))
    again = await world.settle(by_mail, outcome(AttemptState.NOT_SENT))
    assert isinstance(again, Deferred)
    assert again.rule == "retry"
    assert await world.day(NOON + timedelta(seconds=2)) == [sound.message.id]


async def no_by_address(world: World) -> None:
    await world.store.opt_out_address("x@example.com", OptOut(), "stop", world.judge)


async def no_to_topic(world: World) -> None:
    await world.store.put_profiles([("ann", Profile())])
    await world.store.opt_out("ann", OptOut(channel=Channel.EMAIL, topic="t"), "api", world.judge)


@pytest.mark.parametrize(
    ("said", "fields"),
    [(no_by_address, {"to": {"email": "x@example.com", "phone": PHONE}}), (no_to_topic, {"labels": {"topic": "t"}})],
)
async def test_what_must_not_go_by_a_channel_holds_up_none_that_may(
    world: World, said: Callable[[World], Awaitable[None]], fields: dict[str, object]
) -> None:
    channels = (Channel.EMAIL, Channel.SMS)
    world.ruled("  caps: [{name: text, channel: sms, limit: 1, per: 7d}]")
    await world.sent(world.new(category="newsletter", channels=SMS))
    await said(world)
    barred, free = world.new(channels=channels, **fields), world.new(channels=channels)
    await world.accept(barred, free)
    assert await world.day(SOON) == [free.message.id]


@pytest.mark.parametrize(
    "end",
    [
        ACCEPTED,
        outcome(AttemptState.REJECTED),
        outcome(AttemptState.UNREACHABLE),
        Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"),
        Outcome(AttemptState.UNKNOWN, error="bug"),
    ],
)
async def test_the_line_moves_up_whatever_becomes_of_the_attempt_of_its_head(world: World, end: Outcome) -> None:
    head, behind = world.new(category="campaign", channels=SMS), world.new(category="campaign", channels=SMS)
    claimed = await world.claimed(head, behind)
    assert isinstance(await world.settle(claimed, end), Ended)
    assert [type(step) for step in await world.due()] == [Ended if end.state is AttemptState.UNREACHABLE else Claimed]


async def cancels(world: World, head: NewMessage) -> None:
    await world.store.cancel(head.message.id, world.judge)


async def expires(world: World, head: NewMessage) -> None:
    world.now = head.message.expires_at


@pytest.mark.parametrize("ends", [cancels, expires])
async def test_the_line_moves_up_when_its_head_that_waits_ends(
    world: World, ends: Callable[[World, NewMessage], Awaitable[None]]
) -> None:
    world.now = NIGHT
    head, behind = world.new(expires_at=NIGHT + timedelta(hours=2)), world.new()
    await world.accept(head, behind)
    await world.due()
    await ends(world, head)
    await world.due()
    await world.due()
    view = await world.view(behind)
    assert view.due_at == MORNING  # it waits for the night's end by itself, and is the head


async def test_a_line_that_is_lined_up_anew_while_its_head_is_under_way_still_moves_up(world: World) -> None:
    head, behind = world.new(labels={"a": "1"}), world.new(labels={"a": "1"})
    claimed = await world.claimed(head, behind)
    world.ruled("  caps: [{name: of-a, limit: 5, per: 24h, scope: [user, labels.a]}]")
    await world.swept(2)
    assert [type(step) for step in await world.due()] == [Behind]
    await world.settle(claimed, ACCEPTED)
    assert await world.day(SOON) == [behind.message.id]


# ------------------------------------------------------------------------------------------- places that are given back


async def gives_back_at_once(world: World, claimed: Next) -> None:
    await world.settle(claimed, outcome(AttemptState.REJECTED))


async def gives_back_by_a_receipt(world: World, claimed: Next) -> None:
    await world.settle(claimed, ACCEPTED)
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)


async def gives_back_late(world: World, claimed: Next) -> None:
    await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    await world.settle(claimed, outcome(AttemptState.NOT_SENT))


async def gives_back_before_the_answer(world: World, claimed: Next) -> None:
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)


async def was_never_called(world: World, claimed: Next) -> None:
    assert isinstance(claimed, Claimed)
    await world.store.disown({claimed.attempt.id: "ann"})
    await world.store.cancel(claimed.lease.message.id, world.judge)


@pytest.mark.parametrize(
    "gives_back",
    [gives_back_at_once, gives_back_by_a_receipt, gives_back_late, gives_back_before_the_answer, was_never_called],
)
async def test_a_place_that_is_given_back_is_taken_at_once_by_who_waits_for_it(
    world: World, gives_back: Callable[[World, Next], Awaitable[None]]
) -> None:
    world.ruled("  caps: [{name: one, limit: 1, per: 7d}]")
    holder = await world.claimed(world.new(category="newsletter", channels=SMS))
    waiting = world.new(channels=SMS, priority=Priority.HIGH)
    await world.accept(waiting)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.until >= NOON + timedelta(days=7)
    await gives_back(world, holder)
    assert claimed_of(await world.due()) == [waiting.message.id]


async def test_a_place_on_a_channel_before_the_one_that_is_waited_for_is_taken_too(world: World) -> None:
    world.ruled(
        "  caps: [{name: text, channel: sms, limit: 1, per: 7d}]\n"
        '  send_windows: [{name: mails, channel: email, hours: ["18:00-19:00"]}]'
    )
    claimed = await world.claimed(world.new(category="newsletter", channels=SMS))
    await world.settle(claimed, ACCEPTED)
    either = world.new(category="either", channels=BOTH)
    await world.accept(either)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.until == NOON.replace(hour=18)
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)
    assert claimed_of(await world.due()) == [either.message.id]


async def test_who_takes_a_no_back_may_be_told_at_once(world: World) -> None:
    world.ruled(ONE_MAIL)
    await world.sent(world.new(category="newsletter", channels=EMAIL))
    await world.store.opt_out("ann", OptOut(channel=Channel.SMS), "stop", world.judge)
    new = world.new()
    await world.accept(new)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert not await world.store.opt_in("ann", None, OptOut(channel=Channel.PUSH))
    assert await world.lease() == []
    assert await world.store.opt_in("ann", None, OptOut(channel=Channel.SMS))
    assert claimed_of(await world.due()) == [new.message.id]


async def test_who_says_no_by_an_address_may_be_told_by_another_at_once(world: World) -> None:
    world.ruled("  caps: [{name: text, channel: sms, limit: 1, per: 7d}]")
    await world.sent(world.new(category="newsletter", channels=SMS))
    new = world.new(channels=BOTH)
    await world.accept(new)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.rule == "text"
    await world.store.opt_out_address(PHONE, OptOut(), "stop", world.judge)
    assert claimed_of(await world.due()) == [new.message.id]


async def test_who_takes_a_no_back_by_an_address_may_be_told_there_at_once(world: World) -> None:
    """Whoever was contacted there lately: of others nobody knows that it is theirs."""
    world.ruled(ONE_MAIL)
    await world.sent(world.new(category="newsletter", channels=SMS))
    await world.sent(world.new(category="newsletter", channels=EMAIL))
    await world.store.opt_out_address(PHONE, OptOut(), "stop", world.judge)
    new = world.new(channels=BOTH)
    await world.accept(new)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.rule == "mail"
    assert not await world.store.opt_in("", PHONE, OptOut(channel=Channel.PUSH))
    assert await world.lease() == []
    assert await world.store.opt_in("", PHONE, OptOut())
    assert claimed_of(await world.due()) == [new.message.id]


async def unreached(world: World, claimed: Claimed) -> None:
    await world.settle(claimed, outcome(AttemptState.UNREACHABLE))


async def reported(world: World, claimed: Claimed) -> None:
    await world.settle(claimed, ACCEPTED)
    assert await world.store.receipt([receipt(claimed, ReceiptStatus.UNREACHABLE)], world.judge) == [True]


async def complained(world: World, claimed: Claimed) -> None:
    await world.settle(claimed, ACCEPTED)
    assert await world.store.complain(claimed.attempt.id, world.judge) == "ann"


@pytest.mark.parametrize(
    ("found_out", "channels"), [(unreached, BOTH), (reported, BOTH), (complained, (Channel.EMAIL, Channel.SMS))]
)
async def test_whose_address_must_not_be_used_any_more_may_be_told_by_another_at_once(
    world: World, found_out: Callable[[World, Claimed], Awaitable[None]], channels: tuple[Channel, ...]
) -> None:
    world.ruled(f"  quiet_hours: [{{name: night, channel: {channels[0]}, from: '00:00', to: '18:00'}}]")
    new = world.new(channels=channels)
    await world.accept(new)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    code = await world.claimed(world.new(category="code", channels=channels[:1]))
    await found_out(world, code)
    assert claimed_of(await world.due()) == [new.message.id]


async def test_what_ends_without_having_had_a_place_wakes_nobody_who_waits_for_one(world: World) -> None:
    """A person with as many lines as messages would else cost the square of them."""
    world.ruled("  caps: [{name: one, limit: 1, per: 30d}]")
    await world.sent(world.new(category="newsletter"))
    number = 30
    waiting = [world.new(campaign=f"c{n}", expires_at=NOON + timedelta(minutes=10 + n)) for n in range(number)]
    await world.accept(*waiting)
    decisions = 0
    while world.now < NOON + timedelta(hours=1):
        decisions += len(await world.due())
        world.pass_time(seconds=15)
    assert set(await world.states(*waiting)) == {MessageState.EXPIRED}
    assert decisions <= 4 * number


async def test_two_workers_who_claim_at_once_do_not_invert_a_line(world: World) -> None:
    waiting = [world.new(priority=Priority(1 + n % 3)) for n in range(30)]
    await world.accept(*waiting)
    leases = await world.lease()
    answers = await asyncio.gather(*(world.claim(*leases[n::4]) for n in range(4)))
    best = min(waiting, key=lambda new: (new.message.priority, new.message.expires_at, new.message.id))
    assert [claimed_of(batch) for batch in answers if claimed_of(batch)] == [[best.message.id]]


# -------------------------------------------------------------------------------------------- what soon expires in line

SPREAD = '  quiet_hours: [{name: night, from: "21:00", to: "08:00", release_over: 30m}]'


async def test_what_expires_before_the_turn_of_the_one_ahead_has_its_own(world: World) -> None:
    world.ruled(SPREAD)
    world.now = NIGHT
    late = next(name for name in map(str, range(1000)) if share(name) > 0.9)
    ahead = world.new(late, priority=Priority.HIGH)
    short = world.new(late, expires_at=MORNING + timedelta(minutes=10))
    await world.accept(ahead, short)
    sent = await every_second(world, MORNING + timedelta(minutes=40))
    assert sent == [short.message.id, ahead.message.id]


async def test_what_expires_while_the_one_ahead_waits_to_be_tried_again_is_sent(world: World) -> None:
    step: Next = await world.claimed(world.new(priority=Priority.HIGH))
    while isinstance(step, Claimed) or world.now + timedelta(minutes=5) > step.until:
        if isinstance(step, Claimed):
            step = await world.settle(step, outcome(AttemptState.NOT_SENT))
            assert isinstance(step, Claimed | Deferred)
        else:
            world.now = step.until
            (step,) = await world.due()
            assert isinstance(step, Claimed | Deferred)
    short = world.new(expires_at=world.now + timedelta(minutes=3))
    await world.accept(short)
    assert await every_second(world, world.now + timedelta(minutes=4)) == [short.message.id]


async def test_in_its_last_minute_it_still_lets_go_first_who_may_go_at_once(world: World) -> None:
    world.ruled("  caps: [{name: once, limit: 1, per: 24h}]")
    first, second = world.new(priority=Priority.HIGH), world.new(expires_at=NOON + timedelta(seconds=30))
    await world.accept(first, second)
    assert await every_second(world, NOON + timedelta(minutes=1)) == [first.message.id]
    assert await world.state(second) is MessageState.EXPIRED


async def every_second(world: World, until: datetime) -> list[str]:
    """As ``World.day``, but nothing is missed that is due for seconds only."""
    sent = []
    while world.now < until:
        for step in await world.due():
            if isinstance(step, Claimed):
                await world.settle(step, ACCEPTED)
                sent.append(step.lease.message.id)
        world.pass_time(seconds=1 if world.now >= MORNING or world.now < NIGHT else 600)
    return sent


async def test_an_attempt_that_hangs_holds_up_no_other_line(world: World) -> None:
    """Its place is taken, whatever becomes of it; the mail is the more urgent, and its vendor may take minutes."""
    world.judge = replace(world.judge, patience={"one": timedelta(minutes=5), "two": timedelta(minutes=5)})
    mail = world.new(category="receipt", channels=EMAIL, expires_at=world.now + timedelta(minutes=3))
    text = world.new(category="receipt", channels=SMS, expires_at=world.now + timedelta(minutes=4))
    await world.claimed(mail)
    await world.accept(text)
    assert await world.due() == [Behind(mail.message.id, same_line=False)], "it may be over in a moment"
    world.now += SLOW + timedelta(seconds=1)
    assert claimed_of(await world.due()) == [text.message.id]
