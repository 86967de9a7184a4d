"""Do what people said, what an address may get and another policy hold in the very transaction that decides?"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.decide import Behind, Deferred, Ended
from gateway.ids import new_id, oldest_id
from gateway.message import AttemptState, MessageState, OptOut, Priority, Profile, microseconds
from gateway.outcome import Outcome
from gateway.store import Addressee, Claimed, Store
from providers import Channel, ReceiptStatus
from tests.contract.world import ACCEPTED, MORNING, NIGHT, NOON, PHONE, World, outcome, receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.store import NewMessage, Next
    from tests.servers import PostgreSQL

SMS, EMAIL, BOTH = (Channel.SMS,), (Channel.EMAIL,), (Channel.SMS, Channel.EMAIL)
SOON = NOON + timedelta(minutes=1)
OTHER_PHONE = "+447400654321"
LIMIT = 5
"""Of ``code`` to one address in an hour, where the configuration does not say."""


def claimed_of(steps: Sequence[Next]) -> list[Claimed]:
    return [step for step in steps if isinstance(step, Claimed)]


def reasons(steps: Sequence[Next]) -> Counter[str]:
    return Counter(step.reason for step in steps if isinstance(step, Ended))


async def others(world: World, number: int) -> list[World]:
    """More workers on the same PostgreSQL. SQLite has one process: there they are its concurrent calls."""
    if world.url.startswith("sqlite"):
        return [world] * number
    workers = [World(world.url) for _ in range(number)]
    for worker in workers:
        worker.judge = world.judge
        await worker.store.open()
    return workers


# ------------------------------------------------------------------------------------------------- what an address gets


async def test_one_phone_gets_no_more_than_its_limit_whoever_asks_and_however_many_decide_at_once(world: World) -> None:
    codes = [world.new(person, "code", channels=SMS) for person in ("ann", "bob", "cleo") for _ in range(8)]
    await world.accept(*codes)
    leases = await world.lease()
    workers = await others(world, 4)
    answers = await asyncio.gather(*(worker.claim(lease) for worker, lease in zip(workers * 6, leases, strict=True)))
    steps = [step for batch in answers for step in batch]
    assert len(claimed_of(steps)) == LIMIT
    assert reasons(steps) == {"abuse": len(codes) - LIMIT}
    for worker in workers:
        if worker is not world:
            await worker.store.close()


async def test_one_batch_keeps_the_limit_of_an_address_too(world: World) -> None:
    await world.accept(*[world.new(f"p{n}", "code", channels=SMS) for n in range(9)])
    steps = await world.due()
    assert (len(claimed_of(steps)), reasons(steps)) == (LIMIT, {"abuse": 4})


async def test_what_a_phone_may_not_get_any_more_goes_by_mail(world: World) -> None:
    await world.accept(*[world.new(f"p{n}", "code", to={"phone": PHONE, "email": f"p{n}@x.com"}) for n in range(7)])
    went = Counter(step.step.address.channel for step in claimed_of(await world.due()))
    assert went == {Channel.SMS: LIMIT, Channel.EMAIL: 2}


async def test_an_hour_later_and_for_another_phone_the_limit_is_fresh(world: World) -> None:
    await world.accept(*[world.new(category="code", channels=SMS) for _ in range(LIMIT)])
    for step in await world.due():
        await world.settle(step, ACCEPTED)
    await world.sent(world.new(category="code", channels=SMS, to={"phone": OTHER_PHONE}))
    world.pass_time(seconds=3599)
    await world.accept(world.new(category="code", channels=SMS))
    assert reasons(await world.due()) == {"abuse": 1}
    world.pass_time(seconds=1)
    await world.accept(world.new(category="code", channels=SMS))
    assert len(claimed_of(await world.due())) == 1


async def test_another_spelling_of_an_address_is_the_same_address(world: World) -> None:
    spelt = (
        "ann@example.com",
        "Ann@example.com",
        "aNn@example.com",
        "anN@example.com",
        "ANn@example.com",
        "ANN@example.com",
    )
    await world.accept(*(world.new(f"p{n}", "code", channels=EMAIL, to={"email": to}) for n, to in enumerate(spelt)))
    steps = await world.due()
    assert (len(claimed_of(steps)), reasons(steps)) == (LIMIT, {"abuse": 1})


async def test_a_no_by_an_address_holds_however_it_is_spelt(world: World) -> None:
    await world.store.opt_out_address("Ann@example.com", OptOut(), "api", world.judge)
    await world.accept(world.new("ann", channels=EMAIL, to={"email": "ann@Example.com"}))
    assert reasons(await world.due()) == {"opted_out": 1}


async def test_a_code_that_did_not_arrive_gives_its_place_at_the_address_back(world: World) -> None:
    await world.accept(*[world.new(category="code", channels=SMS) for _ in range(LIMIT)])
    first, *_ = await world.due()
    await world.settle(first, outcome(AttemptState.REJECTED))
    await world.accept(world.new("bob", category="code", channels=SMS))
    assert len(claimed_of(await world.due())) == 1


async def test_codes_are_held_against_the_address_and_not_against_the_persons_caps(world: World) -> None:
    await world.accept(*[world.new(category="code", channels=SMS) for _ in range(LIMIT)])
    for step in await world.due():
        await world.settle(step, ACCEPTED)
    assert await world.contacts() == []
    await world.accept(world.new(channels=SMS))
    assert len(claimed_of(await world.due())) == 1


async def test_other_categories_of_an_address_do_not_count_against_its_limit(world: World) -> None:
    world.changed("receipt", caps_exempt=True, abuse=world.judge.policy.categories["code"].abuse)
    await world.accept(*[world.new(category="receipt", channels=SMS) for _ in range(LIMIT)])
    assert len(claimed_of([step for _ in range(LIMIT) for step in await settled_due(world)])) == LIMIT
    await world.accept(world.new(category="code", channels=SMS))
    assert len(claimed_of(await world.due())) == 1


async def settled_due(world: World) -> list[Next]:
    steps = await world.due()
    for step in claimed_of(steps):
        await world.settle(step, ACCEPTED)
    return steps


async def test_a_limit_that_is_lifted_while_messages_are_under_way_harms_none(world: World) -> None:
    await world.accept(*[world.new(f"p{n}", "code") for n in range(LIMIT)])
    steps = await world.due()
    world.changed("code", abuse=None)
    assert isinstance(await world.settle(steps[0], outcome(AttemptState.NOT_SENT)), Claimed)
    assert isinstance(await world.settle(steps[1], outcome(AttemptState.REJECTED)), Claimed)
    await world.accept(world.new("bob", "code", channels=SMS))
    assert len(claimed_of(await world.due())) == 1


async def test_two_phones_and_two_persons_crosswise_never_lock_each_other_up(world: World) -> None:
    phones = [PHONE, OTHER_PHONE]
    codes = [
        world.new(person, "code", channels=SMS, to={"phone": phone})
        for _ in range(10)
        for person in ("ann", "bob")
        for phone in phones
    ]
    await world.accept(*codes)
    leases = await world.lease()
    workers = await others(world, 4)
    batches = [leases[n::4][:: 1 if n % 2 else -1] for n in range(4)]
    answers = await asyncio.gather(*(worker.claim(*batch) for worker, batch in zip(workers, batches, strict=True)))
    steps = [step for batch in answers for step in batch]
    went = Counter(step.step.address.value for step in claimed_of(steps))
    assert went == dict.fromkeys(phones, LIMIT)
    for worker in workers:
        if worker is not world:
            await worker.store.close()


async def test_addresses_are_forgotten_with_their_contacts(world: World) -> None:
    """How many rows there are shows in how long it takes: a row more is deleted once, and then no more."""
    await world.accept(world.new(category="code", channels=SMS))
    for step in await world.due():
        await world.settle(step, ACCEPTED)
    late = oldest_id(NOON + timedelta(days=40000))
    assert await addresses(world) == 1
    await world.store.prune("", "", microseconds(NOON + timedelta(days=1)), 100)
    assert await addresses(world) == 1  # its contact is remembered still
    await world.store.prune("", late, microseconds(NOON), 100)
    await world.store.prune("", late, microseconds(NOON), 100)
    assert await addresses(world) == 1  # it was used too lately
    await world.store.prune("", late, microseconds(NOON + timedelta(days=1)), 100)
    assert await addresses(world) == 0


async def addresses(world: World) -> int:
    return (await rows(world, "select count(*) from addresses"))[0][0]


async def rows(world: World, sql: str) -> list[tuple[Any, ...]]:
    """What a table holds that the store's face does not show."""
    from gateway.store.engine import Fetch, Operation

    def operation() -> Operation[list[tuple[Any, ...]]]:
        return [tuple(row) for row in (yield Fetch(sql))]

    return await world.store._engine.read(operation)


# ---------------------------------------------------------------------------------------------------------- who said no

NOES = [
    OptOut(),
    OptOut(channel=Channel.SMS),
    OptOut(category="campaign"),
    OptOut(category="*"),
    OptOut(topic="rates"),
    OptOut(channel=Channel.SMS, category="campaign", topic="rates"),
]
OTHERS = [
    OptOut(channel=Channel.EMAIL),
    OptOut(category="receipt"),
    OptOut(topic="news"),
    OptOut(channel=Channel.SMS, category="campaign", topic="news"),
]


async def by_person(world: World, no: OptOut) -> None:
    assert await world.store.opt_out("ann", no, "stop", world.judge)


async def by_address(world: World, no: OptOut) -> None:
    await world.store.opt_out_address(PHONE, no, "stop", world.judge)


async def in_the_profile(world: World, no: OptOut) -> None:
    await world.store.put_profiles([("ann", Profile(opted_out=(no,)))])


@pytest.mark.parametrize("say", [by_person, by_address, in_the_profile])
@pytest.mark.parametrize("no", [*NOES, *OTHERS])
async def test_a_no_between_lease_and_claim_holds_for_what_it_covers(
    world: World, say: Callable[[World, OptOut], Awaitable[None]], no: OptOut
) -> None:
    await world.accept(world.new(channels=SMS, labels={"topic": "rates"}))
    leases = await world.lease()
    await say(world, no)
    (step,) = await world.claim(*leases)
    assert (step == Ended(MessageState.REFUSED, "opted_out")) is (no in NOES)
    assert isinstance(step, Claimed) is (no in OTHERS)


async def test_a_no_of_an_address_holds_for_whoever_has_it_and_on_the_next_channel_of_none(world: World) -> None:
    await world.store.opt_out_address(PHONE, OptOut(), "stop", world.judge)
    await world.accept(world.new(channels=SMS), world.new("bob"), world.new("cleo", to={"phone": OTHER_PHONE}))
    steps = {step.lease.message.person: step.step.address.channel for step in claimed_of(await world.due())}
    assert steps == {"bob": Channel.EMAIL, "cleo": Channel.SMS}
    person = (await world.person("ann")).person
    assert person.refused == {}  # the number is not in the profile
    await world.store.put_profiles([("ann", Profile(phone=PHONE))])
    assert (await world.person("ann")).person.refused == {PHONE: (OptOut(),)}


async def test_a_no_is_taken_back_in_the_words_in_which_it_was_said(world: World) -> None:
    await world.store.put_profiles([("ann", Profile(phone=PHONE))])
    no = OptOut(channel=Channel.SMS, topic="rates")
    await world.store.opt_out("ann", no, "api", world.judge)
    await world.store.opt_out_address(PHONE, no, "api", world.judge)
    assert not await world.store.opt_in("ann", None, OptOut(channel=Channel.SMS))
    assert not await world.store.opt_in("", OTHER_PHONE, no)
    assert await world.store.opt_in("ann", None, no)
    assert (await world.person()).person.optouts == ()
    assert (await world.person()).person.refused == {PHONE: (no,)}
    assert await world.store.opt_in("", PHONE, no)
    assert (await world.person()).person.refused == {}
    assert not await world.store.opt_in("", PHONE, no)


async def test_a_no_is_taken_back_only_where_it_was_said_in_the_ways_that_are_asked_for(world: World) -> None:
    no = OptOut(category="campaign")
    await world.store.put_profiles([("ann", Profile())])
    for via, taken in (("api", False), ("page", True), ("one_click", True)):
        await world.store.opt_out("ann", no, via, world.judge)
        assert await world.store.opt_in("ann", None, no, ("page", "one_click")) is taken
        assert (await world.person()).person.optouts == (() if taken else (no,))


async def test_an_attempt_tells_whom_it_was_for_what_they_read_and_what_they_have_left(world: World) -> None:
    new = world.new()
    new = replace(new, message=replace(new.message, body={**new.message.body, "locale": "ja-JP"}))
    claimed = await world.claimed(new)
    assert await world.store.addressee(claimed.attempt.id) == Addressee("ann", "campaign", ("ja-JP",), {})
    await world.store.put_profiles([("ann", Profile(locale="de", opted_out=(OptOut(category="nudge"),)))])
    for no in (OptOut(category="*"), OptOut(), OptOut(category="code", channel=Channel.SMS), OptOut(topic="rates")):
        await world.store.opt_out("ann", no, "page", world.judge)
    await world.store.opt_out_address(PHONE, OptOut(category="campaign"), "stop", world.judge)
    found = Addressee("ann", "campaign", ("ja-JP", "de"), {"nudge": "profile", "*": "page"})
    assert await world.store.addressee(claimed.attempt.id) == found
    assert await world.store.addressee(new.message.id) == found
    assert await world.store.addressee(new_id()) is None


async def test_a_no_said_twice_is_one(world: World) -> None:
    await world.store.put_profiles([("ann", Profile(opted_out=(OptOut(topic="rates"),)))])
    await world.store.opt_out("ann", OptOut(topic="rates"), "stop", world.judge)
    await world.store.put_profiles([("ann", Profile(opted_out=()))])
    assert (await world.person()).person.optouts == (OptOut(topic="rates"),)  # said by the person too


async def test_a_no_between_two_tries_ends_the_message_as_refused(world: World) -> None:
    new = world.new(channels=SMS)
    second = await world.settle(await world.claimed(new), outcome(AttemptState.NOT_SENT))
    await world.settle(second, outcome(AttemptState.NOT_SENT))
    await world.store.opt_out("ann", OptOut(), "stop", world.judge)
    assert await world.due() == [Ended(MessageState.REFUSED, "opted_out")]
    assert await world.state(new) is MessageState.REFUSED


# ---------------------------------------------------------------------------------------------------------- what counts

ONE = "  caps: [{name: one, limit: 1, per: 24h}]"
LOST = Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout")


async def stays_open(world: World, claimed: Next) -> None:
    """Under way."""


async def crashes(world: World, claimed: Next) -> None:
    world.pass_time(minutes=2)
    assert await world.due() == [Ended(MessageState.UNKNOWN, "crash")]


def settles(*with_: Outcome) -> Callable[[World, Next], Awaitable[None]]:
    async def settle(world: World, claimed: Next) -> None:
        step = claimed
        for what in with_:
            step = await world.settle(step, what)

    return settle


def hears(first: Outcome, *news: ReceiptStatus) -> Callable[[World, Next], Awaitable[None]]:
    async def hear(world: World, claimed: Next) -> None:
        await world.settle(claimed, first)
        for status in news:
            await world.store.receipt([receipt(claimed, status)], world.judge)

    return hear


async def cancelled_waiting(world: World, claimed: Next) -> None:
    second = await world.settle(claimed, outcome(AttemptState.NOT_SENT))
    await world.settle(second, outcome(AttemptState.NOT_SENT))
    assert isinstance(claimed, Claimed)
    assert await world.store.cancel(claimed.lease.message.id, world.judge) is MessageState.CANCELLED


async def disowned(world: World, claimed: Next) -> None:
    assert isinstance(claimed, Claimed)
    await world.store.disown({claimed.attempt.id: "ann"})
    await world.store.cancel(claimed.lease.message.id, world.judge)


COUNTS: dict[str, tuple[Callable[[World, Next], Awaitable[None]], bool]] = {
    "under way": (stays_open, True),
    "accepted": (settles(ACCEPTED), True),
    "unknown": (settles(LOST), True),
    "crashed": (crashes, True),
    "unknown, then accepted": (hears(LOST, ReceiptStatus.ACCEPTED), True),
    "delivered": (hears(ACCEPTED, ReceiptStatus.DELIVERED), True),
    "of an unheard-of status": (hears(ACCEPTED, ReceiptStatus.OTHER), True),
    "undelivered, then delivered after all": (
        hears(ACCEPTED, ReceiptStatus.UNDELIVERED, ReceiptStatus.DELIVERED, ReceiptStatus.UNDELIVERED),
        True,
    ),
    "rejected, then delivered after all": (
        hears(outcome(AttemptState.REJECTED), ReceiptStatus.DELIVERED, ReceiptStatus.DELIVERED),
        True,
    ),
    "undelivered": (hears(ACCEPTED, ReceiptStatus.UNDELIVERED), False),
    "unknown, then undelivered": (hears(LOST, ReceiptStatus.UNDELIVERED), False),
    "unreachable by a receipt": (hears(ACCEPTED, ReceiptStatus.UNREACHABLE), False),
    "rejected": (settles(outcome(AttemptState.REJECTED)), False),
    "unreachable": (settles(outcome(AttemptState.UNREACHABLE)), False),
    "not sent": (settles(outcome(AttemptState.NOT_SENT), outcome(AttemptState.NOT_SENT)), False),
    "not sent, then sent": (settles(outcome(AttemptState.NOT_SENT), ACCEPTED), True),
    "cancelled": (cancelled_waiting, False),
    "never called": (disowned, False),
}


@pytest.mark.parametrize("fate", COUNTS)
async def test_what_may_have_reached_the_person_counts_and_nothing_else(world: World, fate: str) -> None:
    becomes, counts = COUNTS[fate]
    world.ruled(ONE)
    claimed = await world.claimed(world.new(category="newsletter", channels=SMS))
    await becomes(world, claimed)
    assert len(await world.contacts()) == counts
    other = world.new("ann", channels=EMAIL, to={"email": "other@example.com"})
    await world.accept(other)
    sent = await world.day(world.now + timedelta(seconds=2))  # before what was not sent is tried again
    assert sent == ([] if counts else [other.message.id])


async def test_contacts_carry_the_labels_that_caps_are_scoped_to(world: World) -> None:
    await world.sent(world.new(labels={"topic": "rates", "tone": "warm"}))
    await world.sent(world.new("bob"))
    assert [contact.labels for contact in await world.contacts()] == [{"topic": "rates", "tone": "warm"}]
    assert [contact.labels for contact in await world.contacts("bob")] == [{}]


@pytest.mark.parametrize("late", [outcome(AttemptState.NOT_SENT), ACCEPTED, LOST])
async def test_a_category_that_is_gone_harms_nothing_that_is_under_way(world: World, late: Outcome) -> None:
    head, behind = world.new(channels=SMS), world.new(channels=SMS)
    claimed = await world.claimed(head, behind)
    world.without("campaign")
    assert isinstance(await world.settle(claimed, late), Ended)
    assert await world.due() == [Ended(MessageState.PARKED, "unknown_category")]


async def test_a_category_that_is_gone_does_not_keep_a_crash_from_being_found(world: World) -> None:
    await world.claimed(world.new(channels=SMS))
    world.without("campaign")
    world.pass_time(minutes=2)
    assert await world.due() == [Ended(MessageState.UNKNOWN, "crash")]


async def test_news_of_a_message_whose_category_is_gone_is_taken(world: World) -> None:
    new = world.new(channels=SMS)
    claimed = await world.claimed(new)
    await world.settle(claimed, ACCEPTED)
    world.without("campaign")
    for status in (ReceiptStatus.UNDELIVERED, ReceiptStatus.DELIVERED):
        assert await world.store.receipt([receipt(claimed, status)], world.judge) == [True]
    assert await world.state(new) is MessageState.DELIVERED
    assert await world.contacts() == []  # nothing says any more that it counts


async def test_a_policy_that_looks_back_no_more_reads_no_contacts_and_lets_all_go(world: World) -> None:
    await world.sent(world.new())
    world.ruled("  caps: []")
    await world.accept(*[world.new(campaign=f"c{n}") for n in range(5)])
    assert len(await world.day(SOON)) == 5


async def test_what_went_against_a_rule_in_shadow_is_recorded_with_the_rule(world: World) -> None:
    world.ruled("  caps: [{name: tight, limit: 1, per: 24h, enforce: 0%}, {name: daily, limit: 2, per: 24h}]")
    await world.sent(world.new())
    over, held = world.new(), world.new()
    await world.sent(over)
    decisions = (await world.view(over)).decisions
    assert [(d.state, d.reason, [why["rule"] for why in d.why]) for d in decisions] == [
        ("sending", "shadow", ["tight"])
    ]
    await world.accept(held)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.rule == "daily"
    (recorded,) = (await world.view(held)).decisions
    assert {why["rule"]: why.get("enforced", True) for why in recorded.why} == {"tight": False, "daily": True}


async def test_a_capped_message_that_is_to_be_dropped_is_refused_and_one_held_by_the_night_is_not(world: World) -> None:
    await world.sent(world.new())
    await world.sent(world.new())
    dropped = world.new(category="nudge")
    await world.accept(dropped)
    assert reasons(await world.due()) == {"capped": 1}
    assert await world.state(dropped) is MessageState.REFUSED
    world.now = NIGHT
    kept = world.new("bob", category="nudge")
    await world.accept(kept)
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert waits.until == MORNING


# ---------------------------------------------------------------------------------------------------- another policy

NONE = "  caps: []"


async def waiting_world(world: World) -> dict[str, NewMessage]:
    """One of each that waits, each for something else."""
    waiting = {
        "capped": world.new("cap", channels=EMAIL),
        "behind": world.new("cap", channels=EMAIL),
        "retrying": world.new("try", channels=SMS),
        "throttled": world.new("slow", channels=EMAIL),
        "later": world.new("late", starts_at=NOON + timedelta(hours=3)),
        "leased": world.new("lease"),
    }
    for _ in range(2):
        await world.sent(world.new("cap", "newsletter"))
    claimed = await world.claimed(waiting["retrying"])
    await world.settle(await world.settle(claimed, outcome(AttemptState.NOT_SENT)), outcome(AttemptState.NOT_SENT))
    slow = await world.claimed(waiting["throttled"])
    await world.settle(slow, Outcome(AttemptState.NOT_SENT, error="throttled:429", burns=False, throttled=True))
    await world.accept(waiting["capped"], waiting["behind"])
    assert Counter(map(type, await world.due())) == {Deferred: 1, Behind: 1}
    await world.accept(waiting["later"], waiting["leased"])
    assert len(await world.lease()) == 1
    return waiting


async def test_a_sweep_wakes_who_is_held_by_rules_alone(world: World) -> None:
    waiting = await waiting_world(world)
    world.ruled(NONE)
    assert await world.swept(2) == 1
    leases = await world.lease()
    assert [lease.message.id for lease in leases] == [waiting["capped"].message.id]
    assert [type(step) for step in await world.claim(*leases)] == [Claimed]


async def test_a_sweep_by_the_policy_in_force_or_a_second_one_wakes_nobody(world: World) -> None:
    await waiting_world(world)
    assert await world.store.sweep(world.judge, "", 100) == (None, 0)
    assert await world.swept(2) == 1
    assert await world.swept(2) == 0
    assert await world.store.sweep(world.judge, "", 100) == (None, 0)


async def test_a_sweep_goes_page_by_page_and_says_where_it_is(world: World) -> None:
    world.now = NIGHT
    waiting = [world.new(f"p{n}") for n in range(7)]
    await world.accept(*waiting)
    await world.due()
    ids = sorted(new.message.id for new in waiting)
    judge = replace(world.judge, number=2)
    assert await world.store.sweep(judge, "", 3) == (ids[2], 3)
    assert await world.store.sweep(judge, ids[2], 3) == (ids[5], 3)
    assert await world.store.sweep(judge, ids[5], 3) == (ids[6], 1)
    assert await world.store.sweep(judge, ids[6], 3) == (None, 0)
    assert len(await world.lease()) == 7


async def test_a_swept_message_that_the_policy_holds_too_waits_again_by_it(world: World) -> None:
    world.now = NIGHT
    new = world.new()
    await world.accept(new)
    await world.due()
    world.ruled('  quiet_hours: [{name: longer, from: "21:00", to: "10:00"}]')
    assert await world.swept(2) == 1
    (waits,) = await world.due()
    assert isinstance(waits, Deferred)
    assert (waits.until, waits.rule) == (MORNING + timedelta(hours=2), "longer")
    assert [d.policy for d in (await world.view(new)).decisions] == [1, 2]


async def test_a_sweep_lines_up_anew_where_rules_look_at_other_labels(world: World) -> None:
    world.ruled("  caps: [{name: one, limit: 1, per: 24h}]")
    await world.sent(world.new(labels={"topic": "rates", "a": "x"}))
    held, free = world.new(labels={"topic": "rates", "a": "x"}), world.new(labels={"topic": "rates", "a": "y"})
    await world.accept(held, free)
    assert Counter(map(type, await world.due())) == {Deferred: 1, Behind: 1}
    world.ruled("  caps: [{name: by-a, limit: 1, per: 24h, scope: [user, labels.a]}]")
    assert await world.swept(2) == 2
    assert await world.day(SOON) == [free.message.id]
    assert await world.state(held) is MessageState.WAITING


async def test_a_sweep_unbinds_what_no_rule_binds_any_more(world: World) -> None:
    world.now = NIGHT
    waiting = [world.new() for _ in range(4)]
    await world.accept(*waiting)
    await world.due()
    world.changed("campaign", caps_exempt=True, quiet_hours_exempt=True)
    await world.swept(2)
    assert len(claimed_of(await world.due())) == 4


@pytest.mark.parametrize("wakes", ["policy", "profile", "settled"])
async def test_who_is_woken_while_the_clock_is_behind_goes_when_they_may(world: World, wakes: str) -> None:
    """The clock is set back to before they may be sent at all."""
    world.ruled("  caps: [{name: one, limit: 1, per: 24h}]")
    head, next_ = world.new("bob", priority=Priority.HIGH), world.new("bob")
    capped = world.new(channels=SMS)
    await world.sent(world.new(category="newsletter"))
    await world.accept(capped, head, next_)
    held = {type(step): step for step in await world.due()}
    assert set(held) == {Claimed, Behind, Deferred}
    world.pass_time(minutes=-5)
    world.ruled(NONE)
    if wakes == "policy":
        await world.swept(2)
    elif wakes == "profile":
        await world.store.put_profiles([("ann", Profile(locale="fr"))])
    await world.settle(held[Claimed], ACCEPTED)
    assert await world.lease() == []
    sent = await world.day(NOON + timedelta(minutes=6))
    assert set(sent) == ({next_.message.id} if wakes == "settled" else {next_.message.id, capped.message.id})


async def test_sweeps_beside_claims_lose_nobody(world: World) -> None:
    waiting = [world.new(f"p{n % 10}", campaign=f"c{n % 3}") for n in range(60)]
    await world.accept(*waiting)
    leases = await world.lease()
    world.judge = replace(world.judge, number=2)
    batches = [leases[n::6] for n in range(6)]
    await asyncio.gather(*(world.claim(*batch) for batch in batches), *(world.swept(2) for _ in range(3)))
    world.ruled(NONE)
    await world.swept(3)
    world.pass_time(minutes=5)  # whose leases run out after the crash that this is
    await world.day(world.now + timedelta(minutes=2))
    assert MessageState.WAITING not in await world.states(*waiting)


async def test_a_policy_is_numbered_by_its_content_and_each_activation_is_logged(world: World) -> None:
    policy = world.judge.policy
    first = await world.store.activate(policy, "a")
    second = await world.store.activate(replace(policy, hash="other"), "a")
    assert await world.store.activate(policy, "b") == first != second
    logged = await rows(world, "select policy, worker from activations order by id")
    assert logged == [(first, "a"), (second, "a"), (first, "b")]
    assert await rows(world, "select number, hash from policies order by number") == [
        (first, policy.hash),
        (second, "other"),
    ]


async def test_profiles_and_claims_lock_persons_in_one_order_whatever_the_collation(
    postgres: PostgreSQL,
) -> None:
    """A database in English sorts anna before Bob, and Python Bob before anna."""
    from gateway.store import engine_of
    from gateway.store.known import lock
    from gateway.store.migrate import migrate

    url = postgres.create_database()
    admin = await asyncpg.connect(url)
    await admin.execute("drop database if exists english")
    await admin.execute(
        "create database english template template0 locale_provider icu icu_locale 'en-US' lc_collate 'C' lc_ctype 'C'"
    )
    url = f"{url.rpartition('/')[0]}/english"
    await asyncio.to_thread(migrate, url)
    store = Store(engine_of(url, lambda: 0))
    await store.open()
    people = [(f"{'aA'[number % 2]}{number}", Profile()) for number in range(400)]
    await store.put_profiles(people)

    async def locking() -> None:
        for _ in range(15):
            await store._engine.write(lambda: lock(person for person, _ in people))

    async def putting() -> None:
        for _ in range(15):
            await store.put_profiles(people)

    await asyncio.gather(locking(), locking(), putting(), putting())
    await store.close()
    for _ in range(20):  # what is counted is told a moment later
        await asyncio.sleep(0.1)
        deadlocks = await admin.fetchval("select deadlocks from pg_stat_database where datname = 'english'")
        assert deadlocks == 0
    await admin.close()


async def test_a_sweep_leaves_apart_what_was_set_apart(world: World) -> None:
    """What waits for a receipt before it is sent again holds up none of its line."""
    ahead, behind = [world.new(category="receipt", channels=SMS) for _ in range(2)]
    waits = await world.settle(await world.claimed(ahead), Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    assert isinstance(waits, Deferred)
    assert waits.rule == "repeat"
    await world.swept(2)
    await world.accept(behind)
    assert [type(step) for step in await world.due()] == [Claimed]
