"""One person has thousands of messages waiting: is the work done in proportion, in little memory, and in order?"""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import TYPE_CHECKING, ClassVar

import pytest

from gateway.ids import new_id
from gateway.message import Message, Priority, microseconds
from gateway.metrics import Metrics
from gateway.outcome import accepted
from gateway.pipeline import Pipeline
from gateway.store import Claimed, NewMessage, Settlement, Store, engine_of
from gateway.store.engine import Fetch, Operation
from gateway.store.migrate import migrate
from gateway.watch import ProviderHealth
from gateway.worker import Worker
from providers import Channel
from tests.proofs.offers import EVERYTHING, PAGE, TERM, accept, judge, offer
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.decide import Judge
    from gateway.store import Lease, Next
    from providers import Dispatch

NIGHT = datetime(2026, 11, 22, 23, tzinfo=UTC)
LIMIT = 20
POLICY = f"""
policy:
  timezone: UTC
  categories:
    news: {{priority: bulk, expires_after: 14d}}
    offer: {{priority: normal, expires_after: 14d}}
  caps: [{{name: daily, limit: {LIMIT}, per: 24h}}]
  quiet_hours: [{{name: night, from: "21:00", to: "08:00"}}]
"""
FREE = """
policy:
  timezone: UTC
  categories:
    alert: {priority: high}
    offer: {priority: normal}
    news: {priority: bulk}
"""

# --------------------------------------------------------------------------------------------------- in proportion


class Night:
    """A store with a clock that goes from one instant to the next, and a count of what is decided."""

    def __init__(self, url: str) -> None:
        self.now = NIGHT
        self.engine = engine_of(url, lambda: microseconds(self.now), server_clock=False)
        self.judge = judge(POLICY)
        self.decided = self.handed = 0
        self.peak = 0
        """Bytes that the worker's side held at most."""

    async def ask(self, number: int) -> None:
        """Of as many lines as campaigns and categories make."""
        drawn = random.Random(number)
        new = [
            offer(
                self.judge,
                "ann",
                drawn.choice(["news", "offer"]),
                self.now,
                campaign=drawn.choice(["spring", "summer", None]),
                expires_at=NIGHT + timedelta(hours=drawn.randint(20, 60)),
            )
            for _ in range(number)
        ]
        await accept(Store(self.engine, leases=False), new)

    async def pass_by(self) -> None:
        """Until everything is settled."""
        store = Store(self.engine)
        while True:
            leases, _ = await store.lease([(*pair, PAGE) for pair in EVERYTHING], TERM)
            for first in range(0, len(leases), PAGE):
                await self.decide(store, leases[first : first + PAGE])
            if not leases:
                following = await self.engine.read(self.next_instant)
                if following is None:
                    return
                self.now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=following)

    async def decide(self, store: Store, leases: Sequence[Lease]) -> None:
        answers = await store.claim(leases, self.judge, [new_id() for _ in leases])
        self.decided += len(answers)
        claims = [Settlement(answer, accepted("ref")) for answer in answers if isinstance(answer, Claimed)]
        if claims:
            self.handed += len(claims)
            await store.settle(claims, self.judge)

    def next_instant(self) -> Operation[int | None]:
        found = yield Fetch("select min(due_at) from due where due_at > $1", (microseconds(self.now),))
        return found[0][0]


async def night_of(url: str, number: int) -> Night:
    """Ask for so much in the evening, and see what it takes until it is settled."""
    await asyncio.to_thread(migrate, url)
    night = Night(url)
    await night.engine.open()
    await night.ask(number)
    gc.collect()
    tracemalloc.start()
    try:
        await night.pass_by()
        night.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    await night.engine.close()
    return night


IN_PROPORTION = [
    pytest.param((1_000, 1_500), id="short", marks=pytest.mark.timeout(180)),
    pytest.param((1_000, 10_000), id="long", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize("sizes", IN_PROPORTION)
async def test_decisions_grow_in_proportion_and_memory_stays_flat(sizes: Sequence[int], tmp_path: Path) -> None:
    """Each is decided as it comes, a few times in its last minute and as it ends; a page is held."""
    nights = [(size, await night_of(f"sqlite:///{tmp_path}/{size}.db", size)) for size in sizes]
    print("messages, decisions, bytes:", [(size, night.decided, night.peak) for size, night in nights])
    for size, night in nights:
        assert night.handed == 3 * LIMIT, "the cap, on each of the days that they live"
        assert night.decided <= 9 * size + 1_000
        assert night.peak <= 1.25 * nights[0][1].peak


# --------------------------------------------------------------------------------------------------------- in order


class Vendor:
    """Takes everything, and keeps the order in which it came."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)
    dedupe_window: timedelta | None = None

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, dispatch: Dispatch) -> str:
        self.taken.append(dispatch.message)
        await asyncio.sleep(0)
        return "ref"


class Counting(Store):
    """Counts what is decided."""

    decided = 0

    async def claim(self, leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> list[Next]:
        answers = await super().claim(leases, judge, ids)
        self.decided += len(answers)
        return answers


class Team:
    """Workers on one database, each with what a process of its own would have."""

    def __init__(self, url: str, number: int) -> None:
        self.judge = judge(FREE)
        self.vendor = Vendor()
        self.stores = [Counting(engine_of(url, lambda: time_ns() // 1000)) for _ in range(number)]
        self.workers = [self._worker(store) for store in self.stores]

    def _worker(self, store: Store) -> Worker:
        def recorded() -> None:
            worker.notice()  # as of what comes in, so that the next of a line does not wait for the next poll

        health, metrics = ProviderHealth({"one": 100}), Metrics("proofs")
        pipeline = Pipeline(
            store,
            lambda: self.judge,
            {"one": self.vendor},
            health,
            metrics,
            public_url=None,
            unsubscribe_url=None,
            recorded=recorded,
        )
        worker = Worker(store, pipeline, health, lambda: self.judge, dict.fromkeys(Priority, 100), metrics)
        return worker


def ranked(new: Sequence[NewMessage], person: str) -> list[str]:
    """The messages of a person in the order that was promised."""

    def rank(message: Message) -> tuple[int, datetime, str]:
        return message.priority, message.expires_at, message.id

    return [message.id for message in sorted((one.message for one in new if one.message.person == person), key=rank)]


IN_ORDER = [
    pytest.param(100, 40, id="short", marks=pytest.mark.timeout(180)),
    pytest.param(10_000, 200, id="long", marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
]


@pytest.mark.parametrize(("number", "others"), IN_ORDER)
async def test_four_workers_hand_over_by_priority_then_expiry(number: int, others: int, postgres_url: str) -> None:
    """To the one person who has most, and to others, who have a few of each line: lines are changed all the time."""
    await asyncio.to_thread(migrate, postgres_url)
    team, drawn, now = Team(postgres_url, 4), random.Random(1), datetime.now(UTC)
    for store in team.stores:
        await store.open()
    people = ["ann"] * number + [f"p{person}" for person in range(others) for _ in range(6)]
    new = [
        offer(
            team.judge,
            person,
            drawn.choice(["alert", "offer", "news"]),
            now,
            expires_at=now + timedelta(hours=drawn.randint(20, 60)),
        )
        for person in people
    ]
    drawn.shuffle(new)
    await accept(team.stores[0], new)
    running = [asyncio.create_task(worker.run()) for worker in team.workers]
    try:
        await wait_until(lambda: len(team.vendor.taken) >= len(new), 90 + number / 10)
    finally:
        for worker in team.workers:
            await worker.stop(5)
        for task in running:
            await task
        for store in team.stores:
            await store.close()
    whose = {one.message.id: one.message.person for one in new}
    for person in sorted(set(people)):
        assert [id_ for id_ in team.vendor.taken if whose[id_] == person] == ranked(new, person)
    decided = sum(store.decided for store in team.stores)
    print("messages, decisions:", len(new), decided)
    assert decided <= 3 * len(new) + 1_000
