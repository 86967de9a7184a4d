"""What is told of the caps: of whom a sample is taken, what their ledgers say, and who waits longest."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.acts import PRESSURE
from gateway.decide import Ended
from gateway.message import MessageState, Profile
from gateway.metrics import Metrics
from gateway.outcome import accepted
from gateway.pressure import Measured
from gateway.sampler import Sampler
from gateway.store import Claimed
from providers import ReceiptStatus
from tests.contract.world import ACCEPTED, NIGHT, NOON, World, receipt
from tests.servers import wait_until

if TYPE_CHECKING:
    from gateway.store import NewMessage

HOUR = timedelta(hours=1)
OPEN = """
  caps:
    - {name: daily, limit: 2, per: 24h}
    - {name: weekly, limit: 9, per: 7d}
"""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


@pytest.fixture
def sampler(world: World, metrics: Metrics) -> Sampler:
    world.ruled(OPEN)
    return Sampler(world.store, lambda: world.judge, "worker", metrics)


async def sent(world: World, *people: str) -> list[NewMessage]:
    new = [world.new(person) for person in people]
    for one in new:
        await world.sent(one)
    return new


# --------------------------------------------------------------------------------------------------------------- sample


async def test_those_contacted_in_the_last_week_are_found_the_last_ones_first(world: World) -> None:
    world.ruled(OPEN)
    await sent(world, "old")
    world.pass_time(days=7, seconds=1)
    await sent(world, "ann", "bob", "ann")
    now, last = await world.store.contacted(10, PRESSURE)
    # Ids are made by the machine's clock, which stands nowhere near the world's: of whom and when is the ledger's.
    assert now == world.now
    assert [person for person, _ in last][:3] == ["ann", "bob", "ann"]
    assert last[0][1] == world.now
    assert len((await world.store.contacted(2, PRESSURE))[1]) == 2


async def test_a_ledger_is_the_profile_and_what_counts_and_has_ended_since(world: World) -> None:
    world.ruled(OPEN)
    await world.store.put_profiles([("ann", Profile(timezone="Asia/Tokyo"))])
    (first,) = await sent(world, "ann")
    world.pass_time(days=3)
    await sent(world, "ann", "bob")
    await world.sent(world.new("ann", "code"))  # exempt
    found = await world.store.ledgers(["ann", "bob", "nobody"], NOON)
    assert [(one.person, len(one.contacts), one.profile.timezone) for one in found] == [
        ("ann", 2, "Asia/Tokyo"),
        ("bob", 1, None),
    ]
    assert first.message.id in [contact.message for contact in found[0].contacts]
    (later,) = await world.store.ledgers(["ann"], NOON + timedelta(days=2))
    assert len(later.contacts) == 1


async def test_a_sample_says_how_full_the_caps_are_and_how_hard_people_are_pressed(
    world: World, sampler: Sampler, metrics: Metrics
) -> None:
    await sent(world, "ann", "ann", "bob", "cleo", "dan")
    world.pass_time(hours=24, seconds=11)
    await sent(world, "ann")
    await sampler.look()
    assert value(metrics, "gateway_sampled_persons") == 4
    shares = {
        (rule, word): value(metrics, "gateway_cap_persons_ratio", rule=rule, used=word)
        for rule in ("daily", "weekly")
        for word in ("none", "below_half", "below_full", "full")
    }
    assert [shares["daily", word] for word in ("none", "below_half", "below_full", "full")] == [0.75, 0, 0.25, 0]
    assert shares["weekly", "below_half"] == 1
    bands = [value(metrics, "gateway_pressure_ratio", band=band) for band in ("1-2", "3-5", "6+")]
    assert bands == [0.75, 0.25, 0]


async def test_what_did_not_arrive_presses_nobody(world: World, sampler: Sampler, metrics: Metrics) -> None:
    claimed = await world.claimed(world.new())
    await world.settle(claimed, ACCEPTED)
    await sampler.look()
    assert value(metrics, "gateway_sampled_persons") == 1
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)
    await sampler.look()
    assert value(metrics, "gateway_sampled_persons") == 0
    assert value(metrics, "gateway_cap_persons_ratio", rule="daily", used="full") is None
    assert value(metrics, "gateway_pressure_ratio", band="1-2") is None


async def test_one_worker_samples_and_the_others_tell_nothing_of_what_they_found_before(
    world: World, sampler: Sampler, metrics: Metrics
) -> None:
    await sent(world, "ann")
    idle = Metrics("idle")
    idle.sampled(Measured(7, {"gone": {"full": 1}}, {"6+": 1}))
    idle.oldest_deferred.set(9)
    async with asyncio.timeout(10):
        at_work = asyncio.create_task(sampler.run())
        await wait_until(lambda: value(metrics, "gateway_sampled_persons") == 1)
        beside = asyncio.create_task(Sampler(world.store, lambda: world.judge, "another", idle).run())
        await wait_until(lambda: value(idle, "gateway_sampled_persons") == 0)
    assert value(idle, "gateway_cap_persons_ratio", rule="gone", used="full") is None
    assert value(idle, "gateway_oldest_deferred_seconds") == 0
    for task in (at_work, beside):
        task.cancel()
    await asyncio.gather(at_work, beside, return_exceptions=True)


# ------------------------------------------------------------------------------------------------------------- deferred


async def test_the_oldest_that_is_held_back_tells_for_how_long(
    world: World, sampler: Sampler, metrics: Metrics
) -> None:
    world.ruled('  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]')
    world.now = NIGHT
    await world.accept(world.new("bob", starts_at=NIGHT + 3 * HOUR))  # asked for later: not held by us
    await world.accept(world.new("ann"))
    await sampler.search()
    assert value(metrics, "gateway_oldest_deferred_seconds") == 0
    await world.due()
    world.pass_time(hours=1)
    await world.accept(world.new("cleo"))
    await world.due()
    await sampler.search()
    assert value(metrics, "gateway_oldest_deferred_seconds") == 3600
    world.pass_time(hours=9)
    for step in await world.due():
        assert isinstance(step, Claimed)
        await world.settle(step, accepted("ref"))
    await sampler.search()
    assert value(metrics, "gateway_oldest_deferred_seconds") == 0


async def test_one_that_waits_in_line_is_held_back(world: World, sampler: Sampler, metrics: Metrics) -> None:
    world.ruled("  caps: [{name: daily, limit: 1, per: 24h}]")
    await sent(world, "ann")
    await world.accept(world.new("ann"))
    world.pass_time(minutes=1)
    await world.accept(world.new("ann"))
    await world.due()
    world.pass_time(minutes=1)
    await sampler.search()
    assert value(metrics, "gateway_oldest_deferred_seconds") == 120


async def test_a_search_goes_on_where_it_came_to(world: World) -> None:
    world.now = NIGHT
    early = [world.new(f"p{n}", starts_at=NIGHT + 3 * HOUR) for n in range(5)]
    late = world.new("ann")
    await world.accept(*early, late)
    await world.due()
    world.pass_time(seconds=30)
    ids = sorted(new.message.id for new in early)
    assert late.message.id > ids[-1]
    assert await world.store.deferred("", 2) == (None, ids[1])
    assert await world.store.deferred(ids[1], 2) == (None, ids[3])
    assert await world.store.deferred(ids[3], 2) == (30.0, "")
    assert await world.store.deferred(late.message.id, 2) == (None, "")
    assert await world.store.deferred("", 6) == (30.0, "")


# -------------------------------------------------------------------------------------------------------------- regrets


async def test_one_that_expired_at_night_says_which_rule_kept_it(world: World) -> None:
    world.now = NIGHT
    new = world.new(expires_at=NIGHT + HOUR)
    await world.accept(new)
    await world.due()
    world.pass_time(hours=1)
    (ended,) = await world.due()
    assert isinstance(ended, Ended)
    assert (ended.state, ended.reason) == (MessageState.EXPIRED, "expires_at")
    assert [(ruling.rule, ruling.permits, ruling.enforced) for ruling in ended.why] == [("night", False, True)]
    decision = (await world.view(new)).decisions[-1]
    assert decision.state is MessageState.EXPIRED
    assert [why["rule"] for why in decision.why] == ["night"]


async def test_one_that_nobody_could_hold_says_none(world: World) -> None:
    await world.accept(world.new(expires_at=NOON + HOUR))
    world.pass_time(hours=1)
    assert await world.due() == [Ended(MessageState.EXPIRED, "expires_at")]
