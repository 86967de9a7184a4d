"""Do workers learn from each other how providers fare, so that one pays for what all of them then know?"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from gateway.config import Route
from gateway.health import PROBES, State
from gateway.metrics import Metrics
from gateway.outcome import Outcome, accepted, failed
from gateway.routing import choose
from gateway.watch import HEEDED, ProviderHealth, Sharing
from providers import Channel, Throttled, Unavailable

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.message import Message
    from tests.contract.world import World

SECOND = timedelta(seconds=1)
ONE, TWO = (Channel.SMS, "one"), (Channel.SMS, "two")
ROUTE = Route(("one", "two"))
DOWN, FINE = failed(Unavailable("refused")), accepted("ref")

# ------------------------------------------------------------------------------------------------------ the transaction


async def test_a_worker_hears_the_others_and_not_itself(world: World) -> None:
    assert await world.store.share_health("a", {"one": "1", "two": "2"}, HEEDED) == []
    world.pass_time(seconds=2)
    (one, two) = await world.store.share_health("b", {"one": "3"}, HEEDED)
    assert (one.provider, one.worker, one.seen, one.age) == ("one", "a", "1", pytest.approx(2))
    assert (two.provider, two.seen) == ("two", "2")
    (other,) = await world.store.share_health("a", {}, HEEDED)
    assert (other.worker, other.seen, other.age) == ("b", "3", 0)


async def test_what_a_worker_says_replaces_what_it_said_of_that_provider(world: World) -> None:
    await world.store.share_health("a", {"one": "1", "two": "2"}, HEEDED)
    world.pass_time(seconds=1)
    await world.store.share_health("a", {"one": "new"}, HEEDED)
    told = await world.store.share_health("b", {}, HEEDED)
    assert [(one.provider, one.seen, one.age) for one in told] == [("one", "new", 0), ("two", "2", pytest.approx(1))]


async def test_who_has_been_silent_for_long_is_not_heeded_and_then_forgotten(world: World) -> None:
    await world.store.share_health("gone", {"one": "1"}, HEEDED)
    world.now += HEEDED
    assert len(await world.store.share_health("b", {}, HEEDED)) == 1
    world.pass_time(seconds=1)
    assert await world.store.share_health("b", {}, HEEDED) == []
    assert len(await world.store.share_health("b", {"one": "2"}, 4 * HEEDED)) == 1
    world.now += 4 * HEEDED
    await world.store.share_health("b", {"one": "2"}, HEEDED)
    assert await world.store.share_health("c", {}, 100 * HEEDED) != []
    assert {one.worker for one in await world.store.share_health("c", {}, 100 * HEEDED)} == {"b"}


async def test_who_was_forgotten_while_it_slept_is_heard_again(world: World) -> None:
    await world.store.share_health("a", {"one": "1"}, HEEDED)
    world.now += 10 * HEEDED
    await world.store.share_health("b", {"one": "2"}, HEEDED)
    assert len(await world.store.share_health("a", {"one": "3"}, HEEDED)) == 1
    assert len(await world.store.share_health("b", {}, HEEDED)) == 1


# -------------------------------------------------------------------------------------------------------------- a fleet


class Fleet:
    """Workers of one store, each with its own messages; time is that of the events, and passes no slower than they do.

    A message whose provider fails it goes on to the next, as it does in the pipeline.
    """

    def __init__(self, world: World, workers: int, rate: float, answers_after: float, *, share: bool = True) -> None:
        """Of ``rate`` messages a second, over all, each worker has its part."""
        self.world = world
        self.healths = [ProviderHealth({"one": 1000, "two": 1000}, f"worker-{number}") for number in range(workers)]
        routes = {Channel.SMS: ROUTE}
        self.metrics = [Metrics("test") for _ in self.healths]
        self.sharings = [
            Sharing(world.store, health, f"worker-{number}", lambda: replace(world.judge, routes=routes), metrics)
            for number, (health, metrics) in enumerate(zip(self.healths, self.metrics, strict=True))
        ]
        self.down = False
        self.calls = 1
        """Of an attempt that fails: what is refused is tried again at once."""
        self.paid: list[datetime] = []
        """When each message was given to the failing provider."""
        self.delivered = Counter[str]()
        self._answers_after = timedelta(seconds=answers_after)
        self._events: list[tuple[datetime, int, str, int, tuple[Message, str, datetime, Outcome] | None]] = []
        self._order = itertools.count()
        apart = timedelta(seconds=workers / rate)
        self._apart = apart
        for number in range(workers):
            self._at(world.now + apart * (number / workers), "message", number)
            if share:
                self._at(world.now + SECOND * (number / workers), "share", number)
                self.healths[number].news = functools.partial(self._told, number)

    def _at(
        self, when: datetime, what: str, worker: int, call: tuple[Message, str, datetime, Outcome] | None = None
    ) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, worker, call))

    async def run(self, length: float) -> None:
        until = self.world.now + timedelta(seconds=length)
        while self._events and self._events[0][0] <= until:
            self.world.now, _, what, worker, call = heapq.heappop(self._events)
            if what in ("share", "news"):
                await self.sharings[worker].once(self.world.now)
                if what == "share":
                    self._at(self.world.now + SECOND, "share", worker)
            elif call:
                self._answered(worker, *call)
            else:
                message = self.world.new().message
                self._decide(worker, message)
                self._at(self.world.now + self._apart, "message", worker)
        self.world.now = until

    def _told(self, worker: int) -> None:
        if not any(event[2:4] == ("news", worker) for event in self._events):
            self._at(self.world.now + SECOND / 5, "news", worker)

    def _decide(self, worker: int, message: Message, usable: tuple[str, ...] = ROUTE.names) -> None:
        health, now = self.healths[worker], self.world.now
        first = len(usable) == len(ROUTE)
        known = health.snapshot(now, [message] if first else ())
        name = choose(Channel.SMS, ROUTE, usable, known, message.id, critical=False, now=now)
        assert isinstance(name, str)
        way = Channel.SMS, name
        health.spare(known.probes, {(way, message.id)})
        health.began(way, message.id, now)
        outcome = DOWN if self.down and name == "one" else FINE
        if outcome is DOWN:
            self.paid.append(now)
        self._at(now + self._answers_after, "answer", worker, (message, name, now, outcome))

    def _answered(self, worker: int, message: Message, name: str, began: datetime, outcome: Outcome) -> None:
        for _ in range(self.calls - 1) if outcome is DOWN else ():
            self.healths[worker].refused((Channel.SMS, name), began, self.world.now)
        self.healths[worker].ended((Channel.SMS, name), outcome, began, self.world.now, message.id)
        if outcome is DOWN:
            self._decide(worker, message, ("two",))
        else:
            self.delivered[name] += 1

    def states(self) -> set[State]:
        return {health.state(ONE, self.world.now) for health in self.healths}


@pytest.mark.parametrize(
    ("workers", "rate", "answers_after", "bound"),
    [
        (1, 200, 0.02, 10),
        (4, 200, 0.02, 25),
        (10, 200, 0.02, 50),
        (10, 200, 0.2, 90),
        (4, 4, 0.02, 10),
        (10, 10, 0.02, 15),
    ],
)
async def test_a_fleet_learns_together_that_a_provider_is_down(
    world: World, workers: int, rate: float, answers_after: float, bound: int
) -> None:
    fleet = Fleet(world, workers, rate, answers_after)
    await fleet.run(20)
    assert not fleet.paid
    fleet.down = True
    await fleet.run(9)
    assert fleet.states() == {State.OPEN}
    assert len(fleet.paid) <= bound
    assert fleet.delivered["two"] >= 0.9 * 9 * rate - len(fleet.paid)


@pytest.mark.parametrize(("workers", "bound"), [(1, 6), (4, 10), (10, 24)])
async def test_where_calls_are_refused_and_tried_again_at_once_two_or_three_messages_tell_a_worker(
    world: World, workers: int, bound: int
) -> None:
    fleet = Fleet(world, workers, 200, 0.02)
    await fleet.run(20)
    fleet.down, fleet.calls = True, 3
    await fleet.run(9)
    assert fleet.states() == {State.OPEN}
    assert len(fleet.paid) <= bound


@pytest.mark.parametrize("workers", [4, 10])
async def test_a_minute_of_failure_costs_the_discovery_and_a_few_probes_and_then_it_is_used_again(
    world: World, workers: int
) -> None:
    fleet = Fleet(world, workers, 200, 0.02)
    await fleet.run(5)
    fleet.down, began = True, world.now
    await fleet.run(60)
    probes = [at for at in fleet.paid if at - began > 5 * SECOND]
    assert len(fleet.paid) - len(probes) <= 5 * workers
    assert 0 < len(probes) <= 2 * PROBES  # it is half open after 10 and 30 seconds, and then after 70
    fleet.down = False
    recovered = world.now
    while fleet.states() != {State.CLOSED}:
        await fleet.run(0.5)
        assert world.now - recovered < 75 * SECOND
    fleet.delivered.clear()
    await fleet.run(10)
    assert fleet.delivered.keys() == {"one"}


async def test_alone_each_worker_pays_for_itself_and_no_more(world: World) -> None:
    """Without the store the others' news is missing: five failures each, and those under way."""
    fleet = Fleet(world, 10, 10, 0.02, share=False)
    await fleet.run(5)
    fleet.down = True
    await fleet.run(9)
    assert len(fleet.paid) == 50


async def test_a_worker_that_comes_later_need_not_find_out_for_itself(world: World) -> None:
    fleet = Fleet(world, 2, 20, 0.02)
    fleet.down = True
    await fleet.run(5)
    newcomer = ProviderHealth({"one": 1, "two": 1}, "newcomer")
    await sharing(world, newcomer, "newcomer").once(world.now)
    assert newcomer.state(ONE, world.now) is State.OPEN


async def test_a_vendor_that_says_to_slow_down_is_left_alone_by_all(world: World) -> None:
    fleet = Fleet(world, 3, 1, 0.02)
    throttled(fleet.healths[0], 40 * SECOND, world.now)
    until = world.now + 40 * SECOND
    await fleet.run(2)
    for health in fleet.healths:
        paused = health.snapshot(world.now).paused
        assert abs(paused["one"] - until) < timedelta(milliseconds=10)
        assert health.state(ONE, world.now) is State.CLOSED


async def test_nobody_is_heeded_for_ever_where_the_clock_was_set_back(world: World) -> None:
    gone, other = (ProviderHealth({"one": 1, "two": 1}, name) for name in ("gone", "other"))
    throttled(gone, 5 * SECOND, world.now)
    await sharing(world, gone, "gone").once(world.now)
    world.pass_time(minutes=-30)
    await sharing(world, other, "other").once(world.now)
    assert not other.snapshot(world.now).paused


async def test_a_vendor_is_left_alone_though_whoever_it_told_is_gone(world: World) -> None:
    """One restart after another, none of which takes as long as workers are heeded."""
    until = world.now + timedelta(hours=1)
    first = ProviderHealth({"one": 1, "two": 1}, "0")
    throttled(first, timedelta(hours=1), world.now)
    await sharing(world, first, "0").once(world.now)
    for number in range(1, 50):
        world.now += HEEDED / 2
        known = ProviderHealth({"one": 1, "two": 1}, str(number))
        await sharing(world, known, str(number)).once(world.now)
        await sharing(world, known, str(number)).once(world.now)
        assert abs(known.snapshot(world.now).paused["one"] - until) < SECOND


def throttled(health: ProviderHealth, length: timedelta, now: datetime) -> None:
    health.began(ONE, "", now)
    health.ended(ONE, failed(Throttled("429", retry_after=length)), now, now)


def sharing(world: World, health: ProviderHealth, worker: str) -> Sharing:
    return Sharing(world.store, health, worker, lambda: world.judge, Metrics("test"))
