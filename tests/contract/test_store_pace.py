"""Do all workers of one database together keep a provider's pace, on each of the two?"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway import pacing
from gateway.config import Route, parse
from gateway.decide import Deferred
from gateway.ids import new_id
from gateway.metrics import Metrics
from gateway.pace import AHEAD, LAPSE, RESERVE, Ask
from gateway.store import Claimed
from providers import Channel, Pace
from tests.contract.world import ACCEPTED

if TYPE_CHECKING:
    from gateway.pace import Grant
    from tests.contract.world import World

SECOND = 1_000_000
TEN = Pace(10, SECOND)
FAST = Pace(100, SECOND)
PROVIDERS = """
providers: {free: {kind: inbox}, text: {kind: inbox, pace: 10/s}}
routes: {push: [free], sms: [text]}
policy: {timezone: UTC, categories: {news: {}}}
"""


def ask(pace: Pace = TEN, provider: str = "text", **more: object) -> Ask:
    return Ask(provider, pace, **more)  # type: ignore[arg-type]


async def take(world: World, *asks: Ask, worker: str = "w") -> dict[str, Grant]:
    return await world.store.take_turns(worker, asks or [ask(ordinary=(1,))])


async def share(world: World, worker: str, demand: int, pace: Pace = FAST) -> tuple[int, ...]:
    """What a worker gets that asks for as much as it can."""
    for _ in range(1000):  # another may be booking
        if got := await take(world, ask(pace, ahead=(1,) * demand, demand=demand), worker=worker):
            return got["text"].ahead
    raise AssertionError("always another is booking")


async def test_turns_follow_one_another_whoever_books_them(world: World) -> None:
    got = [(await take(world, worker=name))["text"] for name in "abab"]
    assert [given.ordinary[0] - got[0].now for given in got if given.ordinary[0]] == [0, 100_000, 200_000, 300_000]


async def test_providers_have_each_their_own_pace(world: World) -> None:
    got = await take(world, ask(provider="one", ordinary=(1, 1)), ask(FAST, provider="two", ordinary=(1, 1)))
    assert {name: given.ordinary[1] - given.now for name, given in got.items() if given.ordinary[1]} == {
        "one": 100_000,
        "two": 10_000,
    }


async def test_what_is_booked_is_remembered_and_passes(world: World) -> None:
    await take(world, ask(ordinary=(1,) * 50))
    assert (await take(world))["text"].ordinary == (None,)
    world.pass_time(seconds=1)
    assert (await take(world))["text"].ordinary != (None,)


async def test_a_code_is_booked_at_once_where_a_campaign_has_booked_all(world: World) -> None:
    await take(world, ask(ordinary=(1,) * 50))
    code = (await take(world, ask(critical=(1,))))["text"]
    assert code.critical == (code.now,)


async def test_eight_workers_at_once_book_no_turn_twice(world: World) -> None:
    granted: dict[str, list[int]] = defaultdict(list)

    async def work(name: str) -> None:
        for _ in range(10):
            granted[name] += await share(world, name, 5)

    for _ in range(5):
        await asyncio.gather(*(work(f"w{number}") for number in range(8)))
        world.pass_time(milliseconds=100)
    turns = sorted(at for ats in granted.values() for at in ats)
    assert all(following - one >= FAST.span(1) for one, following in pairwise(turns))
    # Half a second's turns ahead, and those of the time that has passed.
    assert 0.8 * 90 <= len(turns) <= 91


async def test_eight_workers_at_once_keep_the_pace_with_codes_among_them(world: World) -> None:
    begun = world.now
    units = 0

    async def work(name: str) -> int:
        got = await take(world, ask(FAST, critical=(1,), ahead=(1,) * 10, demand=10), worker=name)
        given = got.get("text")
        return sum(at is not None for at in (*given.critical, *given.ahead)) if given else 0

    for _ in range(20):
        units += sum(await asyncio.gather(*(work(f"w{number}") for number in range(8))))
        world.pass_time(milliseconds=50)
    seconds = (world.now - begun).total_seconds()
    assert 0.8 * 100 * seconds <= units <= 100 * (seconds + 2 * (AHEAD + RESERVE) / SECOND) + 2


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_each_gets_by_its_demand(world: World, order: str) -> None:
    got: dict[str, int] = defaultdict(int)
    for _ in range(100):
        for name in order:
            got[name] += len(await share(world, name, {"a": 20, "b": 60}[name]))
        world.pass_time(milliseconds=100)
    assert got["a"] / 10 == pytest.approx(25, rel=0.15)
    assert got["b"] / 10 == pytest.approx(75, rel=0.15)


async def test_the_part_of_a_worker_that_died_is_the_others_after_a_few_seconds(world: World) -> None:
    async def second() -> int:
        number = 0
        for _ in range(10):
            number += len(await share(world, "living", 50))
            world.pass_time(milliseconds=100)
        return number

    for _ in range(30):
        await share(world, "dying", 50)
        await share(world, "living", 50)
        world.pass_time(milliseconds=100)
    await second()  # what it had fallen behind, in asking second
    assert await second() == pytest.approx(50, rel=0.15)
    world.now += timedelta(microseconds=LAPSE)
    await second()
    assert await second() == pytest.approx(100, rel=0.1)
    (given,) = (await take(world, ask(FAST, ahead=(1,), demand=1), worker="living")).values()
    assert given.workers == 1


async def test_who_only_books_for_what_it_has_takes_no_part_from_the_others(world: World) -> None:
    await take(world, ask(FAST, critical=(1,), ordinary=(1,)), worker="other")
    (given,) = (await take(world, ask(FAST, ahead=(1,), demand=1), worker="w")).values()
    assert given.workers == 1


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
async def test_nobody_waits_for_a_worker_that_stopped_in_the_middle_of_booking(world: World) -> None:
    await take(world)
    connection = await asyncpg.connect(world.url)
    try:
        async with connection.transaction():
            await connection.execute("select 1 from paces for update")
            async with asyncio.timeout(2):
                got = await take(world, ask(critical=(1,)), ask(provider="other", ordinary=(1,)))
            assert set(got) == {"other"}
        assert set(await take(world, ask(critical=(1,)))) == {"text"}
    finally:
        await connection.close()


async def test_a_pace_goes_on_where_the_clock_is_set_back(world: World) -> None:
    """Calendar and shares are kept, so a restart would not help either."""
    wanted = ask(ordinary=(1,) * 5, critical=(1,), ahead=(1,) * 5, demand=5)
    await world.store.take_turns("a", [wanted])
    world.pass_time(hours=-1)
    got = (await world.store.take_turns("b", [wanted]))["text"]
    assert None not in (*got.critical, *got.ordinary)
    assert got.workers == 1, "the other lapsed long ago, or has not begun"


async def test_a_booking_at_a_slow_pace_does_not_hold_up_a_quick_one(world: World) -> None:
    """As after a restart with another pace."""
    hourly = Pace(1, 3600 * SECOND)
    await world.store.take_turns("a", [ask(hourly, ordinary=(1,))])
    got = (await world.store.take_turns("a", [ask(TEN, ordinary=(1,))]))["text"]
    assert got.ordinary == (got.now,)


async def test_all_who_wait_for_the_pace_of_a_later_channel_are_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though more wait than are kept in mind, and nobody has a device for the first channel."""
    monkeypatch.setattr(pacing, "_REMEMBERED", 20)
    world.judge = replace(
        world.judge,
        routes={Channel.PUSH: Route(("free",)), Channel.SMS: Route(("text",))},
        patience={"free": timedelta(seconds=10), "text": timedelta(seconds=10)},
    )
    world.ruled("  caps: []")

    def clock() -> float:
        return world.now.timestamp()

    book = pacing.Pacing(
        world.store,
        parse(PROVIDERS, {}, base=Path()).providers,
        "w",
        Metrics("test"),
        now=lambda: world.now,
        clock=clock,
    )
    end, sent = world.now + timedelta(minutes=2), 0
    await world.accept(*[world.new(f"p{n}", channels=(Channel.PUSH, Channel.SMS), expires_at=end) for n in range(60)])
    while world.now < end:
        leases = await world.lease(8)
        booked = await book.book([lease.message for lease in leases], world.judge.routes, world.judge.health, {})
        judge = replace(world.judge, health=replace(world.judge.health, paced=booked.waits))
        answers = await world.store.claim(leases, judge, [new_id() for _ in leases]) if leases else []
        chosen = {step.attempt.message: step.step.provider for step in answers if isinstance(step, Claimed)}
        waiting = {
            lease.message.id: step.provider
            for lease, step in zip(leases, answers, strict=True)
            if isinstance(step, Deferred) and step.provider
        }
        book.decided(booked, chosen, waiting)
        for step in answers:
            if isinstance(step, Claimed):
                await world.settle(step, ACCEPTED)
                sent += 1
        world.pass_time(seconds=0.1)
    assert sent == 60
