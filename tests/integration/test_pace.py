"""Do two workers together keep a provider's pace, and does a one-time code pass a campaign that waits for it?"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from gateway.config import parse
from gateway.decide import Judge
from gateway.ids import new_id
from gateway.message import Message, Priority, canonical_hash
from gateway.metrics import Metrics
from gateway.pace import AHEAD, RESERVE
from gateway.pacing import Pacing
from gateway.pipeline import Pipeline
from gateway.store import NewMessage, Store, engine_of
from gateway.store.migrate import migrate
from gateway.watch import ProviderHealth
from gateway.worker import Worker
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.store import Lease, Next
    from providers import Dispatch

RATE = 40
CONFIG = f"""
providers:
  text: {{kind: inbox, pace: {RATE}/s}}
  spare: {{kind: inbox}}
  slow: {{kind: inbox, pace: 600/m}}
routes: {{sms: [text], email: [spare], robocall: [slow, spare]}}
policy:
  timezone: UTC
  categories:
    code: {{priority: critical, caps: exempt, quiet_hours: exempt}}
    news: {{priority: bulk}}
"""
MOST = RATE * (AHEAD + RESERVE) / 1_000_000 + 2
"""Units that may go in a window on top of what the pace gives for it."""
SOON = 40.0


class Vendor:
    """Remembers when it was handed what."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)
    dedupe_window: timedelta | None = None

    def __init__(self, more: asyncio.Event) -> None:
        """``more`` is set whenever something comes."""
        self.at: dict[str, float] = {}
        self._more = more

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, dispatch: Dispatch) -> str:
        self.at[dispatch.message] = monotonic()
        self._more.set()
        return "ref"

    def busiest(self, seconds: float) -> int:
        """The most that were handed over in any window of that length."""
        instants = sorted(self.at.values())
        return max(sum(first <= at < first + seconds for at in instants) for first in instants)


class Counting(Store):
    """Counts the decisions of each message."""

    decisions: Counter[str]

    async def claim(self, leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> list[Next]:
        self.decisions.update(lease.message.id for lease in leases)
        return await super().claim(leases, judge, ids)


class Workers:
    """Some of them at one database, each as a process of its own would be."""

    def __init__(self, url: str, number: int) -> None:
        self.config = parse(CONFIG, {}, base=Path())
        patience = dict.fromkeys(self.config.providers, timedelta(seconds=1))
        self.judge = Judge(self.config.policy, 1, self.config.routes, patience, timedelta(seconds=10))
        self._more = asyncio.Event()
        self.vendors = {name: Vendor(self._more) for name in self.config.providers}
        self.metrics = Metrics("test")
        self.decisions: Counter[str] = Counter()
        sharing = number if url.startswith("postgresql") else 1  # SQLite has one process
        self.stores = [Counting(engine_of(url, lambda: time_ns() // 1000)) for _ in range(sharing)]
        self._running: list[tuple[Worker, asyncio.Task[None]]] = []
        self._pacing: list[asyncio.Task[Any]] = []
        self.number = number
        self._phones = 0

    async def start(self) -> None:
        for store in self.stores:
            store.decisions = self.decisions
            await store.open()
        for index in range(self.number):
            store = self.stores[index % len(self.stores)]
            health = ProviderHealth(dict.fromkeys(self.vendors, 200))
            pacing = Pacing(store, self.config.providers, f"w{index}", self.metrics)
            pipeline = Pipeline(
                store, lambda: self.judge, self.vendors, health, self.metrics, None, None, lambda: None, pacing
            )
            budget = dict.fromkeys(Priority, 256)
            worker = Worker(store, pipeline, health, lambda: self.judge, budget, self.metrics, pacing)
            self._running.append((worker, asyncio.create_task(worker.run())))
            self._pacing.append(asyncio.create_task(pacing.run(lambda worker=worker: worker.notice(()))))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def notice(self) -> None:
        for worker, _ in self._running:
            worker.notice()

    async def accept(self, number: int, category: str, channel: Channel = Channel.SMS) -> list[str]:
        known, now, new = self.config.policy.categories[category], datetime.now(UTC), []
        for _ in range(number):
            self._phones += 1
            message = Message(
                id=new_id(),
                source="tests",
                request=new_id(),
                person=new_id(),
                category=category,
                channels=(channel,),
                priority=known.priority,
                accepted_at=now,
                starts_at=now,
                expires_at=now + timedelta(days=1),
                campaign=None,
                body={
                    "to": {"phone": f"+447400{self._phones:06}"},
                    "content": {"sms": {"text": "hello"}, "robocall": {"say": "hello"}},
                },
            )
            new.append(NewMessage(message, canonical_hash(message.body), 0, 1))
        await self.stores[0].accept(new)
        return [one.message.id for one in new]

    async def close(self) -> None:
        for worker, task in self._running:
            await worker.stop(1)
            await task
        for task in self._pacing:
            task.cancel()
        await asyncio.gather(*self._pacing, return_exceptions=True)
        for store in self.stores:
            await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def workers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'store.db'}"
    await asyncio.to_thread(migrate, url)
    workers = Workers(url, 2)
    await workers.start()
    yield workers
    await workers.close()


async def test_a_campaign_goes_at_its_pace_and_codes_pass_it(workers: Workers) -> None:
    vendor = workers.vendors["text"]
    campaign = await workers.accept(5 * RATE // 2, "news")
    workers.notice()
    codes: dict[str, float] = {}
    for part in (1, 2, 3, 4):
        await workers.until(lambda part=part: len(vendor.at) >= part * RATE // 2)
        (code,) = await workers.accept(1, "code")
        codes[code] = monotonic()
        workers.notice()
    await workers.until(lambda: len(vendor.at) == len(campaign) + len(codes))

    assert vendor.busiest(1) <= RATE + MOST
    assert max(vendor.at.values()) - min(vendor.at.values()) >= 0.8 * len(campaign) / RATE
    assert max(vendor.at[code] - at for code, at in codes.items()) <= 1
    assert workers.decisions.total() <= 1.25 * len(vendor.at)
    assert workers.metrics.registry.get_sample_value("gateway_pace_used_total", {"provider": "text"}) == len(vendor.at)


async def test_those_that_wait_for_a_pace_are_left_alone_until_their_turn(workers: Workers) -> None:
    vendor = workers.vendors["text"]
    await workers.accept(2000, "news")
    workers.notice()
    await workers.until(lambda: len(vendor.at) >= RATE)
    assert workers.decisions.total() <= 2 * RATE + MOST


async def test_what_has_no_turn_goes_to_the_next_of_its_route(workers: Workers) -> None:
    slow, spare = workers.vendors["slow"], workers.vendors["spare"]
    await workers.accept(100, "news", Channel.ROBOCALL)
    workers.notice()
    await workers.until(lambda: len(slow.at) + len(spare.at) == 100)
    assert slow.at
    assert slow.busiest(1) <= 10 * (1 + (AHEAD + RESERVE) / 1_000_000) + 2
    assert not slow.at.keys() & spare.at.keys()
