"""One suite for both databases: what a transaction promises, it promises on each."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway import decide
from gateway.decide import Deferred, Ended, Judge
from gateway.ids import new_id, oldest_id
from gateway.intake import Fault
from gateway.message import AttemptState, MessageState, OptOut, Priority, Profile, microseconds
from gateway.outcome import Outcome
from gateway.retries import RETRY_BUDGET
from gateway.routing import Health
from gateway.store import Addressee, Claimed, Lost, ParkedInput, Settlement
from providers import Channel, Receipt, ReceiptStatus
from tests.contract.world import ACCEPTED, NOON, TERM, outcome, receipt

if TYPE_CHECKING:
    from gateway.store import Next
    from tests.contract.world import World

SECOND = timedelta(seconds=1)

# ------------------------------------------------------------------------------------------------ identity (promise 3)


async def test_the_same_id_stands_for_the_first_message(world: World) -> None:
    new = world.new()
    await world.accept(new)
    again = replace(new, message=replace(new.message, id=new_id()))
    (known,) = await world.store.accept([again])
    assert known is not None
    assert (known.message, known.hash) == (new.message.id, new.hash)
    assert len(await world.lease()) == 1


async def test_the_same_id_twice_in_one_batch_is_one_message(world: World) -> None:
    new = world.new()
    twin = replace(new, message=replace(new.message, id=new_id()))
    first, second = await world.store.accept([new, twin])
    assert first is None
    assert second is not None
    assert second.message == new.message.id


async def test_the_same_id_of_another_source_is_another_message(world: World) -> None:
    new = world.new()
    other = replace(new, message=replace(new.message, id=new_id(), source="others"))
    assert await world.store.accept([new, other]) == [None, None]


async def test_concurrent_accepts_of_the_same_ids_make_each_message_once(world: World) -> None:
    first = [world.new(f"p{i}") for i in range(50)]
    twins = [[replace(n, message=replace(n.message, id=new_id())) for n in batch] for batch in (first[::-1], first)]
    answers = await asyncio.gather(*(world.store.accept(batch) for batch in (first, *twins)))
    fresh = Counter(answer is None for batch in answers for answer in batch)
    assert fresh[True] == 50
    assert len(await world.lease(1000)) == 50


# -------------------------------------------------------------------------------------------------- leases and fencing


async def test_a_leased_message_is_nobody_elses_until_the_lease_runs_out(world: World) -> None:
    await world.accept(world.new())
    (first,) = await world.lease()
    assert await world.lease() == []
    world.pass_time(seconds=31)
    (second,) = await world.lease()
    assert second.fence > first.fence
    assert [type(step) for step in await world.claim(first)] == [Lost]
    assert [type(step) for step in await world.claim(second)] == [Claimed]


async def test_an_expired_lease_starts_nothing_even_if_nobody_took_it(world: World) -> None:
    await world.accept(world.new())
    (lease,) = await world.lease()
    world.pass_time(seconds=31)
    assert [type(step) for step in await world.claim(lease)] == [Lost]


async def test_two_workers_never_lease_the_same_message(world: World) -> None:
    await world.accept(*[world.new(f"p{i}") for i in range(200)])
    taken = [lease.message.id for batch in await asyncio.gather(*(world.lease(7) for _ in range(8))) for lease in batch]
    assert len(taken) == len(set(taken)) == 56


async def test_critical_is_leased_apart_from_bulk(world: World) -> None:
    await world.accept(*[world.new(f"p{i}") for i in range(20)], world.new(category="code"))
    leases, more = await world.store.lease([(Priority.CRITICAL, Channel.SMS, 5), (Priority.BULK, Channel.SMS, 5)], TERM)
    assert [lease.message.priority for lease in leases].count(Priority.CRITICAL) == 1
    assert len(leases) == 6
    assert more == [(Priority.BULK, Channel.SMS)]


async def test_a_message_is_not_leased_before_its_not_before(world: World) -> None:
    await world.accept(world.new(starts_at=NOON + timedelta(hours=1)))
    assert await world.lease() == []
    world.pass_time(hours=1)
    assert len(await world.lease()) == 1


# ------------------------------------------------------------------------------------------------- intents and outcomes


async def test_the_intent_and_its_place_are_there_before_the_provider_is_called(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    assert isinstance(claimed, Claimed)
    view = await world.store.view(new.message.id)
    assert view is not None
    assert [(a.id, a.state, a.provider) for a in view.attempts] == [(claimed.attempt.id, AttemptState.INTENT, "one")]
    assert view.state is MessageState.SENDING
    person = await world.store.person("ann")
    assert person is not None
    assert [(c.message, c.ended) for c in person.contacts] == [(new.message.id, NOON + world.judge.span)]


async def test_accepted_ends_the_message_and_the_contact_counts_from_its_end(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    world.pass_time(seconds=3)
    assert await world.settle(claimed, ACCEPTED) == Ended(MessageState.SENT, "accepted")
    assert await world.state(new) is MessageState.SENT
    person = await world.store.person("ann")
    assert person is not None
    assert [c.ended for c in person.contacts] == [NOON + timedelta(seconds=3)]
    assert await world.lease() == []


@pytest.mark.parametrize("failure", [AttemptState.REJECTED, AttemptState.UNREACHABLE, AttemptState.NOT_SENT])
async def test_what_certainly_did_not_reach_the_person_gives_its_place_back(
    world: World, failure: AttemptState
) -> None:
    only_sms = {"to": {"phone": "+447400123456"}, "content": {"sms": {"text": "hello"}}}
    await world.accept(world.new(body=only_sms, channels=(Channel.SMS,)))
    (step,) = await world.due()
    while isinstance(step, Claimed):
        step = await world.settle(step, outcome(failure))
    person = await world.store.person("ann")
    assert person is not None
    assert person.contacts == []


async def test_unknown_keeps_its_place_and_is_not_sent_again(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    ended = await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    assert ended == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")
    world.pass_time(hours=1)
    assert await world.lease() == []
    person = await world.store.person("ann")
    assert person is not None
    assert len(person.contacts) == 1


async def test_unknown_is_repeated_once_where_the_category_says_so_with_a_place_of_its_own(world: World) -> None:
    new = world.new(category="receipt")
    await world.accept(new)
    (claimed,) = await world.due()
    waits = await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    assert isinstance(waits, Deferred)
    world.now = waits.until
    (second,) = await world.due()
    assert isinstance(second, Claimed)
    assert second.attempt.id != claimed.attempt.id
    person = await world.store.person("ann")
    assert person is not None
    assert len(person.contacts) == 2
    last = await world.settle(second, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    assert isinstance(last, Ended)
    assert await world.state(new) is MessageState.UNKNOWN


async def test_a_crash_after_the_intent_is_unknown_once_the_lease_has_run_out(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    assert isinstance(claimed, Claimed)
    world.pass_time(seconds=20)
    assert await world.lease() == []
    world.pass_time(seconds=11)
    (step,) = await world.due()
    assert step == Ended(MessageState.UNKNOWN, "crash")
    assert await world.state(new) is MessageState.UNKNOWN


async def test_a_late_outcome_is_evidence_though_the_lease_is_lost(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    world.pass_time(seconds=31)
    await world.due()
    assert isinstance(await world.settle(claimed, ACCEPTED), Lost)
    assert await world.state(new) is MessageState.SENT


async def test_a_late_failure_of_a_lost_lease_starts_no_further_attempt(world: World) -> None:
    await world.accept(world.new(category="receipt"))
    (claimed,) = await world.due()
    world.pass_time(seconds=31)
    (recovered,) = await world.due()
    assert isinstance(recovered, Deferred)
    assert isinstance(await world.settle(claimed, outcome(AttemptState.NOT_SENT)), Lost)


async def test_the_place_that_a_lost_lease_gives_back_is_there_for_who_is_decided_beside_it(world: World) -> None:
    world.ruled("  caps: [{name: one, limit: 1, per: 24h, channel: sms}]")
    first = await world.claimed(world.new())
    world.pass_time(seconds=31)
    assert [type(step) for step in await world.due()] == [Ended]  # unknown, and keeps its place
    other = await world.claimed(world.new(channels=(Channel.EMAIL, Channel.SMS)))
    _, beside = await world.store.settle(
        [
            Settlement(first, outcome(AttemptState.NOT_SENT)),
            Settlement(other, outcome(AttemptState.REJECTED)),
        ],
        world.judge,
    )
    assert isinstance(beside, Claimed)
    assert beside.step.address.channel is Channel.SMS


async def test_a_late_failure_gives_no_place_back_of_what_was_delivered(world: World) -> None:
    world.ruled("  caps: [{name: one, limit: 1, per: 24h, channel: sms}]")
    first = await world.claimed(world.new())
    await world.store.receipt([receipt(first, ReceiptStatus.DELIVERED)], world.judge)
    other = await world.claimed(world.new(channels=(Channel.EMAIL, Channel.SMS)))
    _, beside = await world.store.settle(
        [
            Settlement(first, outcome(AttemptState.NOT_SENT)),
            Settlement(other, outcome(AttemptState.REJECTED)),
        ],
        world.judge,
    )
    assert isinstance(beside, Deferred)
    assert beside.rule == "one"


async def test_failover_is_one_transaction_and_names_the_next_provider(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (first,) = await world.due()
    second = await world.settle(first, outcome(AttemptState.NOT_SENT))
    assert isinstance(second, Claimed)
    assert second.step.provider == "two"
    view = await world.store.view(new.message.id)
    assert view is not None
    assert [(a.number, a.provider, a.state) for a in view.attempts] == [
        (1, "one", AttemptState.NOT_SENT),
        (2, "two", AttemptState.INTENT),
    ]
    person = await world.store.person("ann")
    assert person is not None
    assert len(person.contacts) == 1
    later = await world.settle(second, outcome(AttemptState.NOT_SENT))
    assert isinstance(later, Deferred)
    assert later.burns


async def test_a_throttled_wait_burns_no_try(world: World) -> None:
    new = world.new(channels=(Channel.EMAIL,))
    await world.accept(new)
    (first,) = await world.due()
    waits = await world.settle(
        first, Outcome(AttemptState.NOT_SENT, error="throttled:429", burns=False, throttled=True)
    )
    assert isinstance(waits, Deferred)
    view = await world.store.view(new.message.id)
    assert view is not None
    assert view.tries == 0


async def test_unreachable_suppresses_the_address_and_falls_through_to_the_next_channel(world: World) -> None:
    await world.accept(world.new())
    (first,) = await world.due()
    second = await world.settle(first, Outcome(AttemptState.UNREACHABLE, error="unreachable:21211"))
    assert isinstance(second, Claimed)
    assert second.step.address.channel is Channel.EMAIL
    await world.settle(second, ACCEPTED)
    other = world.new("bob", channels=(Channel.SMS,))
    await world.accept(other)
    assert [step.reason for step in await world.due() if isinstance(step, Ended)] == ["suppressed"]


async def test_an_intent_that_was_never_called_is_disowned_and_tried_again(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    assert isinstance(claimed, Claimed)
    await world.store.disown({claimed.attempt.id: "ann", new_id(): "bob"})
    person = await world.store.person("ann")
    assert person is not None
    assert person.contacts == []
    (again,) = await world.due()
    assert isinstance(again, Claimed)
    assert again.attempt.number == 2


async def test_two_leases_of_one_message_in_one_batch_make_one_attempt(world: World) -> None:
    await world.accept(world.new())
    (old,) = await world.lease()
    world.pass_time(seconds=31)
    (new,) = await world.lease()
    assert [type(step) for step in await world.claim(old, new)] == [Lost, Claimed]


async def test_a_stale_settlement_beside_a_good_one_starts_nothing(world: World) -> None:
    await world.accept(world.new(category="receipt"))
    (first,) = await world.due()
    world.pass_time(minutes=2)
    await world.due()
    world.pass_time(minutes=15)
    (second,) = await world.due()
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    failed = outcome(AttemptState.NOT_SENT)
    answers = await world.store.settle([Settlement(first, failed), Settlement(second, failed)], world.judge)
    assert [type(step) for step in answers] == [Lost, Claimed]


async def test_who_was_told_unknown_is_told_when_it_was_sent_after_all(world: World) -> None:
    await world.accept(world.new())
    (claimed,) = await world.due()
    world.pass_time(minutes=2)
    await world.due()
    await world.settle(claimed, ACCEPTED)
    await world.settle(claimed, ACCEPTED)
    assert [key for _, _, key, _ in await world.store.unpublished(10)] == ["message.unknown", "message.sent"]


async def test_a_stored_profile_that_this_version_would_not_take_harms_nobody(world: World) -> None:
    await world.accept(world.new("bad"), world.new("good"))
    await world.store.put_profiles([("bad", Profile.model_construct(timezone="Mars/Olympus"))])
    assert [type(step) for step in await world.due()] == [Claimed, Claimed]


async def test_a_long_push_token_can_be_suppressed(world: World) -> None:
    body = {
        "to": {"push": [{"token": secrets.token_hex(2000), "platform": "web"}]},
        "content": {"push": {"title": "a", "body": "b"}},
    }
    await world.accept(world.new(channels=(Channel.PUSH,), body=body))
    (claimed,) = await world.due()
    ended = await world.settle(claimed, outcome(AttemptState.UNREACHABLE))
    assert isinstance(ended, Ended)
    await world.accept(world.new("bob", channels=(Channel.PUSH,), body=body))
    assert await world.due() == [Ended(MessageState.REFUSED, "suppressed")]


# ------------------------------------------------------------------------------------------------------ caps and lines


async def test_a_cap_holds_within_one_batch_and_says_when_a_place_frees(world: World) -> None:
    await world.accept(*[world.new(campaign=f"c{i}") for i in range(5)])
    claimed: list[Next] = []
    for _ in range(8):
        steps = await world.due()
        for step in [s for s in steps if isinstance(s, Claimed)]:
            claimed.append(step)
            await world.settle(step, ACCEPTED)
        world.pass_time(seconds=1)
    assert len(claimed) == 2
    person = await world.store.person("ann")
    assert person is not None
    until = person.contacts[0].ended + timedelta(hours=24)
    world.now = until - timedelta(seconds=1)
    assert not any(isinstance(step, Claimed) for step in await world.due())
    world.now = until
    assert sum(isinstance(step, Claimed) for step in await world.due()) == 1


async def test_caps_hold_under_concurrent_claims(world: World) -> None:
    await world.accept(*[world.new(f"p{i % 10}", campaign=f"c{i}") for i in range(100)])
    leases = await world.lease(1000)
    batches = [leases[i::4] for i in range(4)]
    answers = await asyncio.gather(*(world.claim(*batch) for batch in batches))
    per_person = Counter(s.lease.message.person for batch in answers for s in batch if isinstance(s, Claimed))
    assert max(per_person.values()) <= 2


async def test_a_message_in_quiet_hours_wakes_by_itself_at_their_end(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    await world.accept(world.new())
    (step,) = await world.due()
    assert isinstance(step, Deferred)
    assert (step.rule, step.until) == ("night", datetime(2026, 11, 23, 8, tzinfo=UTC))
    assert await world.lease() == []
    world.now = step.until
    assert [type(s) for s in await world.due()] == [Claimed]


async def test_one_line_has_one_head_and_moves_up_when_it_settles(world: World) -> None:
    waiting = [world.new() for _ in range(3)]
    await world.accept(*waiting)
    first = [step for step in await world.due() if isinstance(step, Claimed)]
    assert [step.lease.message.id for step in first] == [min(w.message.id for w in waiting)]
    assert await world.lease() == []
    await world.settle(first[0], outcome(AttemptState.REJECTED))


async def test_the_more_urgent_of_two_lines_goes_first_even_if_the_other_is_leased_first(world: World) -> None:
    world.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    bulk, urgent = world.new(), world.new(category="receipt")
    await world.accept(bulk, urgent)
    leases = {lease.message.id: lease for lease in await world.lease()}
    (step,) = await world.claim(leases[bulk.message.id])
    assert step == decide.Behind(urgent.message.id, same_line=False)
    (step,) = await world.claim(leases[urgent.message.id])
    assert isinstance(step, Claimed)


async def test_what_stands_in_line_expires_all_the_same(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    head = world.new(priority=Priority.NORMAL)
    behind = world.new(expires_at=world.now + timedelta(hours=2))
    await world.accept(head, behind)
    await world.due()
    world.pass_time(hours=2)
    (end,) = [step for step in await world.due() if isinstance(step, Ended)]
    assert (end.state, end.reason) == (MessageState.EXPIRED, "expires_at")
    assert await world.state(behind) is MessageState.EXPIRED


async def test_a_channel_that_nobody_serves_holds_up_no_other(world: World) -> None:
    mail = world.new(category="receipt", channels=(Channel.EMAIL,))
    text = world.new(category="campaign", channels=(Channel.SMS,))
    await world.accept(mail, text)
    leases, _ = await world.store.lease([(Priority.BULK, Channel.SMS, 10)], TERM)
    assert [type(step) for step in await world.claim(*leases)] == [Claimed]


async def test_what_no_rule_binds_waits_behind_nothing(world: World) -> None:
    await world.accept(*[world.new(category="code") for _ in range(5)])
    assert [type(step) for step in await world.due()] == [Claimed] * 5


async def test_a_freed_place_wakes_who_waits_for_it(world: World) -> None:
    await world.accept(*[world.new(campaign=f"c{i}", channels=(Channel.EMAIL,)) for i in range(3)])
    first = [step for step in await world.due() if isinstance(step, Claimed)]
    await world.settle(first[0], ACCEPTED)
    world.pass_time(seconds=1.5)
    second = [step for step in await world.due() if isinstance(step, Claimed)]
    world.pass_time(seconds=1.5)
    assert await world.due() == [decide.Behind(second[0].lease.message.id, same_line=False)]
    await world.settle(second[0], outcome(AttemptState.REJECTED))
    world.pass_time(seconds=1.5)
    assert [type(step) for step in await world.due()] == [Claimed]


async def test_ten_thousand_waiting_for_one_person_cost_a_decision_each(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    await world.accept(*[world.new() for _ in range(500)])
    decisions = 0
    while leases := await world.lease(100):
        decisions += len(await world.claim(*leases))
    assert decisions == 500
    world.pass_time(hours=2)
    assert await world.lease() == []


# ------------------------------------------------------------------------------------ opting out, cancelling, receipts


async def test_an_opt_out_blocks_what_is_waiting(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    new = world.new()
    await world.accept(new)
    await world.due()
    assert await world.store.opt_out("ann", OptOut(category="campaign"), "one_click", world.judge)
    assert await world.due() == [Ended(MessageState.REFUSED, "opted_out")]
    assert await world.state(new) is MessageState.REFUSED


async def test_an_opt_out_of_nobody_is_said(world: World) -> None:
    assert not await world.store.opt_out("nobody", OptOut(), "one_click", world.judge)


async def test_a_profile_keeps_what_the_person_said_by_themselves(world: World) -> None:
    await world.store.put_profiles([("ann", Profile(opted_out=(OptOut(channel=Channel.SMS),)))])
    await world.store.opt_out("ann", OptOut(category="campaign"), "one_click", world.judge)
    await world.store.put_profiles([("ann", Profile(phone="+447400123456", opted_out=()))])
    person = await world.store.person("ann")
    assert person is not None
    assert person.person.optouts == (OptOut(category="campaign"),)
    assert person.person.profile.phone == "+447400123456"


async def test_open_intents_are_awaited_no_longer_than_their_deadline(world: World) -> None:
    await world.accept(world.new())
    (claimed,) = await world.due()
    assert await world.store.open_intents("ann") == pytest.approx(world.judge.span.total_seconds())
    await world.settle(claimed, ACCEPTED)
    assert await world.store.open_intents("ann") == 0


async def test_cancelling_ends_what_waits_and_not_what_is_under_way(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    waiting = world.new()
    under_way = world.new("bob", category="code")
    await world.accept(waiting, under_way)
    await world.due()
    assert await world.store.cancel(waiting.message.id, world.judge) is MessageState.CANCELLED
    assert await world.store.cancel(waiting.message.id, world.judge) is MessageState.CANCELLED
    assert await world.store.cancel(under_way.message.id, world.judge) is MessageState.SENDING
    assert await world.store.cancel(new_id(), world.judge) is None
    assert await world.state(waiting) is MessageState.CANCELLED


async def test_cancelling_a_head_lets_the_next_of_its_line_go(world: World) -> None:
    world.now = datetime(2026, 11, 22, 23, tzinfo=UTC)
    first, second = world.new(), world.new()
    await world.accept(first, second)
    await world.due()
    await world.store.cancel(min(first.message.id, second.message.id), world.judge)
    assert [lease.message.id for lease in await world.lease()] == [max(first.message.id, second.message.id)]


async def test_a_receipt_turns_unknown_into_the_truth(world: World) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    assert await world.store.receipt([receipt(claimed, ReceiptStatus.DELIVERED)], world.judge) == [True]
    assert await world.state(new) is MessageState.DELIVERED


async def test_a_receipt_moves_the_line_up_whatever_the_policy_has_become(world: World) -> None:
    head, behind = world.new(category="receipt"), world.new(category="receipt")
    await world.accept(head, behind)
    (claimed,) = [step for step in await world.due() if isinstance(step, Claimed)]
    await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    categories = {name: c for name, c in world.judge.policy.categories.items() if name != "receipt"}
    world.judge = replace(world.judge, policy=replace(world.judge.policy, categories=categories))
    await world.store.receipt([receipt(claimed, ReceiptStatus.DELIVERED)], world.judge)
    assert await world.due() == [Ended(MessageState.PARKED, "unknown_category")]


async def test_a_receipt_spares_a_repeat(world: World) -> None:
    await world.accept(world.new(category="receipt"))
    (claimed,) = await world.due()
    await world.settle(claimed, Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"))
    await world.store.receipt([receipt(claimed, ReceiptStatus.ACCEPTED)], world.judge)
    world.pass_time(hours=1)
    assert await world.lease() == []


@pytest.mark.parametrize(
    "order",
    [
        [ReceiptStatus.ACCEPTED, ReceiptStatus.DELIVERED],
        [ReceiptStatus.DELIVERED, ReceiptStatus.ACCEPTED],
        [ReceiptStatus.DELIVERED, ReceiptStatus.UNDELIVERED, ReceiptStatus.DELIVERED],
        [ReceiptStatus.UNDELIVERED, ReceiptStatus.DELIVERED, ReceiptStatus.OTHER],
    ],
)
async def test_receipts_move_forward_whatever_their_order(world: World, order: list[ReceiptStatus]) -> None:
    new = world.new()
    await world.accept(new)
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    for status in order:
        await world.store.receipt([receipt(claimed, status)], world.judge)
    assert await world.state(new) is MessageState.DELIVERED


async def test_an_undelivered_message_gives_its_place_back_days_later(world: World) -> None:
    await world.accept(world.new())
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)
    person = await world.store.person("ann")
    assert person is not None
    assert person.contacts == []


async def test_an_unreachable_receipt_suppresses_the_address(world: World) -> None:
    await world.accept(world.new(channels=(Channel.SMS,)))
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNREACHABLE)], world.judge)
    await world.accept(world.new("bob", channels=(Channel.SMS,)))
    assert await world.due() == [Ended(MessageState.REFUSED, "suppressed")]


async def test_priorities_of_one_channel_share_its_places(world: World) -> None:
    await world.accept(*[world.new(f"p{i}") for i in range(20)], *[world.new(f"q{i}", "receipt") for i in range(20)])
    wanted = [(Priority.HIGH, Channel.SMS, 6), (Priority.BULK, Channel.SMS, 6)]
    leases, more = await world.store.lease(wanted, TERM, {Channel.SMS: 8})
    assert Counter(lease.message.priority for lease in leases) == {Priority.HIGH: 6, Priority.BULK: 2}
    assert len(more) == 2


async def test_a_receipt_for_nobodys_attempt_changes_nothing(world: World) -> None:
    nobodys = Receipt(new_id(), ReceiptStatus.DELIVERED, "SM1", "delivered")
    assert await world.store.receipt([nobodys], world.judge) == [None]


# ------------------------------------------------------------------------------------------------- outbox, jobs, upkeep


async def test_events_are_kept_in_order_until_they_are_published(world: World) -> None:
    await world.accept(world.new())
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    events = await world.store.unpublished(10)
    parsed = [orjson.loads(body) for *_, body in events]
    assert [(e["state"], e["sequence"]) for e in parsed] == [("sent", events[0][0])]
    assert events[0][1:3] == (parsed[0]["event"], "message.sent")
    assert "phone" not in parsed[0]
    await world.store.published([number for number, *_ in events])
    assert await world.store.unpublished(10) == []


async def test_event_numbers_rise_for_ever(world: World) -> None:
    numbers = []
    for person in ("ann", "bob"):
        await world.accept(world.new(person))
        (claimed,) = await world.due()
        await world.settle(claimed, ACCEPTED)
        numbers += [number for number, *_ in await world.store.unpublished(10)]
        await world.store.published(numbers)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 2


async def test_a_job_is_one_workers_until_its_term_ends(world: World) -> None:
    assert await world.store.take_job("relay", "a", TERM)
    assert not await world.store.take_job("relay", "b", TERM)
    assert await world.store.take_job("relay", "a", TERM)
    world.pass_time(seconds=31)
    assert await world.store.take_job("relay", "b", TERM)
    await world.store.drop_job("relay", "b")
    assert await world.store.take_job("relay", "a", TERM)


async def test_retention_forgets_what_is_settled_and_keeps_what_waits(world: World) -> None:
    done, waiting = world.new(), world.new("bob", expires_at=NOON + timedelta(days=90))
    await world.accept(done)
    (claimed,) = await world.due()
    await world.settle(claimed, ACCEPTED)
    await world.accept(waiting)
    later = oldest_id(datetime.now(UTC) + timedelta(days=1))
    expired = microseconds(NOON + timedelta(days=15))
    assert await world.store.prune(later, oldest_id(NOON - timedelta(days=30)), expired - microseconds(NOON), 100) == 0
    assert await world.store.prune(later, oldest_id(NOON - timedelta(days=30)), expired, 100) == 1
    assert await world.store.view(done.message.id) is None
    assert await world.store.view(waiting.message.id) is not None
    person = await world.store.person("ann")
    assert person is not None
    assert len(person.contacts) == 1
    known = await world.store.addressee(claimed.attempt.id)  # by the contact, which stays longer
    assert known == Addressee("ann", "campaign", (), {})
    assert await world.store.prune(later, later, expired, 100) == 1


async def test_parked_input_is_kept_with_its_faults(world: World) -> None:
    await world.store.park([ParkedInput("amqp", None, "r1", "malformed", [Fault("user", "is required")], b"\xff\x00")])
    (kept,) = await world.store.parked(10)
    assert (kept["request"], kept["reason"], kept["faults"]) == (
        "r1",
        "malformed",
        [{"path": "user", "problem": "is required"}],
    )


async def test_a_policy_keeps_its_number(world: World) -> None:
    first = await world.store.activate(world.judge.policy, "worker")
    assert await world.store.activate(replace(world.judge.policy, hash="other"), "worker") != first
    assert await world.store.activate(world.judge.policy, "worker") == first


async def test_a_decision_that_breaks_harms_nobody_else_and_is_parked_in_the_end(world: World) -> None:
    broken, good = world.new(), world.new("bob")
    await world.accept(broken, good)
    await world.store.put_profiles([("ann", Profile(timezone="Asia/Tokyo"))])
    judge = world.judge

    class Broken(Judge):
        def next_step(self, facts: decide.Facts, tried: object = ()) -> decide.Step:
            if facts.person.id == "ann":
                raise ZeroDivisionError
            return judge.next_step(facts)

    world.judge = Broken(judge.policy, 1, judge.routes, judge.patience, judge.span, judge.events)
    steps = await world.due()
    assert Counter(type(step) for step in steps) == {Claimed: 1, Deferred: 1}
    last: list[Next] = []
    for _ in range(4):
        world.pass_time(minutes=2)
        last = [step for step in await world.due() if isinstance(step, Ended | Deferred)] or last
    assert await world.state(broken) is MessageState.PARKED


async def test_a_message_whose_category_is_gone_is_parked(world: World) -> None:
    await world.accept(world.new())
    leases = await world.lease()
    categories = {name: c for name, c in world.judge.policy.categories.items() if name != "campaign"}
    world.judge = replace(world.judge, policy=replace(world.judge.policy, categories=categories))
    assert await world.claim(*leases) == [Ended(MessageState.PARKED, "unknown_category")]


async def test_what_is_told_of_a_person_uses_up_no_tries(world: World) -> None:
    """An app that tells of its user every other second, while the providers are away."""
    new = world.new(channels=(Channel.SMS,))
    await world.accept(new)
    for _ in range(RETRY_BUDGET + 5):
        for step in await world.due():
            following: Next = step
            while isinstance(following, Claimed):
                following = await world.settle(following, outcome(AttemptState.NOT_SENT))
        world.pass_time(seconds=2)
        await world.store.put_profiles([("ann", Profile())])
    assert await world.state(new) is MessageState.WAITING


@pytest.mark.parametrize(
    "health", [Health(full={"one", "two"}), Health(paced={"one": {"m": SECOND}, "two": {"m": SECOND}})]
)
async def test_others_are_told_once_that_a_message_waits_for_its_turn(world: World, health: Health) -> None:
    new = world.new(channels=(Channel.SMS,))
    turns = {name: {new.message.id: SECOND} for name in health.paced}
    world.judge = replace(world.judge, health=replace(health, paced=turns))
    await world.accept(new)
    for _ in range(10):
        assert [type(step) for step in await world.due()] == [Deferred]
        world.pass_time(seconds=1)
    assert [state for _, state, _ in await world.events()] == [MessageState.WAITING]
