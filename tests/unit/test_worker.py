"""Is each message worked on in its turn, by as many as are allowed, and does nothing slow hold up anything else?"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from gateway.config import Route, parse
from gateway.decide import Judge
from gateway.health import IN_A_ROW
from gateway.ids import new_id
from gateway.message import AttemptState, Message, MessageState, Priority, canonical_hash
from gateway.metrics import Metrics
from gateway.outcome import failed
from gateway.pipeline import Pipeline
from gateway.store import NewMessage, Store, StoreUnavailable, engine_of
from gateway.watch import ProviderHealth
from gateway.worker import Worker
from providers import Channel, Unavailable
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from gateway.store import Lease
    from gateway.store.engine import Engine, Operation
    from providers import Callback, Dispatch, Receipt

CONFIG = """
providers: {one: {kind: inbox}, two: {kind: inbox}}
routes: {sms: [one], email: [two]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt}
    receipt: {priority: high}
    note: {priority: normal}
    news: {priority: bulk}
"""
CATEGORY = dict(zip(Priority, ("code", "receipt", "note", "news"), strict=True))
SOON = 10.0
"""Seconds within which everything must have come to an end."""

Pair = tuple[Priority, Channel]


class Gauge:
    """How many are under way at once, and how often it came to how many."""

    def __init__(self) -> None:
        self.under_way: Counter[Pair] = Counter()
        self.most: Counter[Pair] = Counter()
        self.finished: Counter[Pair] = Counter()
        self._changed = asyncio.Event()

    def begin(self, pair: Pair) -> None:
        self.under_way[pair] += 1
        self.most[pair] = max(self.most[pair], self.under_way[pair])
        self._changed.set()

    def end(self, pair: Pair) -> None:
        self.under_way[pair] -= 1
        self.finished[pair] += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool], within: float = SOON) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Deliveries(Gauge):
    """Stands where the pipeline does: takes some turns of the event loop, or as long as it is told."""

    def __init__(self, gate: Callable[[Lease], Awaitable[object] | None] = lambda lease: None) -> None:
        super().__init__()
        self.gate = gate
        self.cut_off: list[str] = []
        self.delivered: list[str] = []
        self.calls: set[asyncio.Task[None] | None] = set()

    async def disown(self) -> None: ...

    def cut(self) -> int:
        for task in self.calls:
            assert task
            task.cancel()
        return len(self.calls)

    async def deliver(self, lease: Lease) -> None:
        pair = lease.message.priority, lease.message.channels[0]
        self.begin(pair)
        self.calls.add(asyncio.current_task())
        try:
            if gate := self.gate(lease):
                await gate
            for _ in range(20):
                await asyncio.sleep(0)
            self.delivered.append(lease.message.id)
        except asyncio.CancelledError:
            self.cut_off.append(lease.message.id)
            raise
        finally:
            self.calls.discard(asyncio.current_task())
            self.end(pair)


class Away:
    """A database that is away while it is told to be."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.precedence = engine.precedence
        self.away = False
        self.held: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.committed = asyncio.Event()
        self.unheard = 0
        """Commits whose answer is lost on its way, beginning with the next."""

    async def open(self) -> None:
        await self._engine.open()

    async def close(self) -> None:
        await self._engine.close()

    async def write(self, operation: Callable[[], Operation[Any]], *, urgent: bool = False) -> Any:
        self.asked.set()
        if self.away:
            raise StoreUnavailable("away")
        answer = await self._engine.write(operation)
        self.committed.set()
        if self.unheard:
            self.unheard -= 1
            raise StoreUnavailable("lost")
        if self.held:
            await self.held.wait()
        return answer

    async def read(self, operation: Callable[[], Operation[Any]]) -> Any:
        return await self._engine.read(operation)


class House:
    """A worker at a real store."""

    def __init__(self, database: Path) -> None:
        self.engine = Away(engine_of(f"sqlite:///{database}", lambda: time_ns() // 1000))
        self.store = Store(self.engine)
        self.config = parse(CONFIG, {}, base=Path())
        self.judge = Judge(
            self.config.policy,
            1,
            self.config.routes,
            {"one": timedelta(seconds=1), "two": timedelta(seconds=1)},
            timedelta(seconds=10),
        )
        self._running: list[tuple[Worker, asyncio.Task[None]]] = []

    def worker(
        self,
        pipeline: Any,
        in_flight: Mapping[Priority, int] | int = 256,
        concurrency: int | Mapping[str, int] = 1000,
        health: ProviderHealth | None = None,
        *,
        only: bool = False,
    ) -> Worker:
        """Set to work."""
        budget = dict.fromkeys(Priority, in_flight) if isinstance(in_flight, int) else in_flight
        places = dict.fromkeys(("one", "two"), concurrency) if isinstance(concurrency, int) else concurrency
        metrics = Metrics("test")
        known = health or ProviderHealth(places)
        worker = Worker(self.store, pipeline, known, lambda: self.judge, budget, metrics, only=only)
        self._running.append((worker, asyncio.create_task(_both(worker))))
        return worker

    async def accept(self, number: int, priority: Priority, channel: Channel = Channel.SMS) -> list[str]:
        category, now = self.config.policy.categories[CATEGORY[priority]], datetime.now(UTC)
        new = []
        for index in range(number):
            message = Message(
                id=new_id(),
                source="tests",
                request=new_id(),
                person=new_id(),
                category=category.name,
                channels=(channel,),
                priority=priority,
                accepted_at=now,
                starts_at=now,
                expires_at=now + timedelta(days=1),
                campaign=None,
                body={
                    "to": {"phone": f"+447400{index:06}", "email": f"{index}@example.com"},
                    "content": {"sms": {"text": "hello"}, "email": {"subject": "s", "text": "t"}},
                },
            )
            new.append(NewMessage(message, canonical_hash(message.body), 0, 1))
        await self.store.accept(new)
        return [item.message.id for item in new]

    async def attempts(self, message: str) -> list[AttemptState]:
        view = await self.store.view(message)
        assert view is not None
        return [attempt.state for attempt in view.attempts]

    async def close(self) -> None:
        self.engine.away, self.engine.held = False, None
        for worker, task in self._running:
            await worker.stop(0)
            async with asyncio.timeout(SOON):
                await task
        await self.store.close()


async def _both(worker: Worker) -> None:
    await asyncio.gather(worker.run(), worker.isolate())


@pytest.fixture
async def house(empty: Path, tmp_path: Path) -> AsyncIterator[House]:
    house = House(shutil.copy(empty, tmp_path / "store.db"))
    await house.store.open()
    yield house
    await house.close()


# -------------------------------------------------------------------------------------------------------------- budgets

SMS = {priority: (priority, Channel.SMS) for priority in Priority}
MAIL = {priority: (priority, Channel.EMAIL) for priority in Priority}


async def test_everything_due_is_worked_on_and_no_budget_is_ever_exceeded(house: House) -> None:
    budget = {Priority.CRITICAL: 7, Priority.HIGH: 5, Priority.NORMAL: 3, Priority.BULK: 1}
    for priority in Priority:
        await house.accept(40, priority)
        await house.accept(40, priority, Channel.EMAIL)
    hold = asyncio.Event()
    pipeline = Deliveries(lambda lease: hold.wait())
    worker = house.worker(pipeline, budget)
    await pipeline.until(lambda: pipeline.under_way.total() == 2 * sum(budget.values()))
    for _ in range(3):
        worker.notice()
        await asyncio.sleep(0)
        await house.store.drop_job("nobody's", "nobody")  # the store takes one after another: what was asked is done
    hold.set()
    await pipeline.until(lambda: pipeline.finished.total() == 320)
    assert len(set(pipeline.delivered)) == 320
    for pair, most in pipeline.most.items():
        assert most <= budget[pair[0]]
    assert pipeline.most[SMS[Priority.CRITICAL]] == 7


async def test_what_is_accepted_later_is_heard_of(house: House) -> None:
    pipeline = Deliveries()
    worker = house.worker(pipeline)
    await pipeline.until(lambda: pipeline.finished.total() == 0)
    await house.accept(3, Priority.NORMAL)
    worker.notice()
    await pipeline.until(lambda: pipeline.finished.total() == 3)


async def test_what_wakes_by_itself_is_found_without_being_heard_of(house: House) -> None:
    pipeline = Deliveries()
    worker = house.worker(pipeline)
    async with asyncio.timeout(SOON):
        await house.engine.asked.wait()
    await house.accept(1, Priority.NORMAL)
    await pipeline.until(lambda: pipeline.finished.total() == 1)
    assert worker.ready


async def test_what_one_message_lets_go_is_taken_up_as_soon_as_that_is_done(house: House) -> None:
    """Else a person's messages would go one in each half second."""

    async def moves_up(lease: Lease) -> None:
        if pipeline.finished.total() < 29:
            await house.accept(1, lease.message.priority)

    pipeline = Deliveries(moves_up)
    await house.accept(1, Priority.NORMAL)
    house.worker(pipeline)
    await pipeline.until(lambda: pipeline.finished.total() == 30)


@pytest.mark.parametrize("concurrency", [2, 3, 4, 10, 100])
async def test_critical_goes_on_while_all_that_bulk_may_use_hangs(house: House, concurrency: int) -> None:
    """A place of the provider is kept for it, however few there are."""
    hanging = asyncio.Event()
    pipeline = Deliveries(lambda lease: hanging.wait() if lease.message.priority is Priority.BULK else None)
    await house.accept(200, Priority.BULK)
    worker = house.worker(pipeline, concurrency=concurrency)
    await pipeline.until(lambda: pipeline.under_way[SMS[Priority.BULK]] >= max(1, concurrency * 3 // 4))
    await house.accept(20, Priority.CRITICAL)
    worker.notice()
    await pipeline.until(lambda: pipeline.finished[SMS[Priority.CRITICAL]] == 20)
    assert pipeline.finished[SMS[Priority.BULK]] == 0
    assert pipeline.most[SMS[Priority.BULK]] < concurrency
    hanging.set()


async def test_critical_goes_on_while_bulk_has_used_up_its_budget(house: House) -> None:
    hanging = asyncio.Event()
    pipeline = Deliveries(lambda lease: hanging.wait() if lease.message.priority is Priority.BULK else None)
    await house.accept(20, Priority.BULK)
    worker = house.worker(pipeline, 4)
    await pipeline.until(lambda: pipeline.under_way[SMS[Priority.BULK]] == 4)
    await house.accept(10, Priority.CRITICAL)
    worker.notice()
    await pipeline.until(lambda: pipeline.finished[SMS[Priority.CRITICAL]] == 10)
    hanging.set()


async def test_a_slow_channel_holds_up_no_other(house: House) -> None:
    hanging = asyncio.Event()
    pipeline = Deliveries(lambda lease: hanging.wait() if lease.message.channels[0] is Channel.SMS else None)
    await house.accept(50, Priority.BULK)
    await house.accept(50, Priority.BULK, Channel.EMAIL)
    house.worker(pipeline, 8, concurrency=8)
    await pipeline.until(lambda: pipeline.finished[MAIL[Priority.BULK]] == 50)
    assert pipeline.finished[SMS[Priority.BULK]] == 0
    hanging.set()


@pytest.mark.parametrize(("budget", "concurrency"), [(8, 1000), (256, 10), (16, 16)])
async def test_one_that_hangs_holds_up_only_its_own_place(house: House, budget: int, concurrency: int) -> None:
    hanging = asyncio.Event()
    first = (await house.accept(1, Priority.BULK))[0]
    await house.accept(49, Priority.BULK)
    pipeline = Deliveries(lambda lease: hanging.wait() if lease.message.id == first else None)
    house.worker(pipeline, budget, concurrency=concurrency)
    await pipeline.until(lambda: pipeline.finished[SMS[Priority.BULK]] == 49)
    hanging.set()


async def test_a_changed_route_gives_as_many_places_as_its_provider_has(house: House) -> None:
    hanging = asyncio.Event()
    pipeline = Deliveries(lambda lease: hanging.wait())
    await house.accept(50, Priority.CRITICAL)
    worker = house.worker(pipeline, concurrency={"one": 2, "two": 9})
    await pipeline.until(lambda: pipeline.under_way.total() == 2)
    house.judge = replace(house.judge, routes={Channel.SMS: Route(("two",))})
    worker.notice()
    await pipeline.until(lambda: pipeline.under_way.total() == 9)
    hanging.set()


async def test_a_place_that_one_priority_frees_is_anothers_at_once(house: House) -> None:
    hanging = asyncio.Event()
    pipeline = Deliveries(lambda lease: hanging.wait() if lease.message.priority is Priority.BULK else None)
    await house.accept(3, Priority.BULK)
    worker = house.worker(pipeline, concurrency=4)
    await pipeline.until(lambda: pipeline.under_way[SMS[Priority.BULK]] == 3)
    await house.accept(1, Priority.HIGH)
    worker.notice()
    hanging.set()
    await pipeline.until(lambda: pipeline.finished[SMS[Priority.HIGH]] == 1)


async def test_a_delivery_that_breaks_gives_its_place_back(house: House) -> None:
    class Breaking(Deliveries):
        async def deliver(self, lease: Lease) -> None:
            await super().deliver(lease)
            raise ZeroDivisionError if len(self.delivered) % 2 else StoreUnavailable("away")

    pipeline = Breaking()
    await house.accept(20, Priority.BULK)
    worker = house.worker(pipeline, 2)
    await pipeline.until(lambda: pipeline.finished.total() == 20)
    assert worker.ready


# ------------------------------------------------------------------------------------------------------------- stopping


async def test_stopping_lets_what_is_under_way_finish_and_starts_nothing_more(house: House) -> None:
    slow = asyncio.Event()
    pipeline = Deliveries(lambda lease: slow.wait())
    await house.accept(10, Priority.BULK)
    worker = house.worker(pipeline, 4)
    await pipeline.until(lambda: pipeline.under_way.total() == 4)
    stopping = asyncio.create_task(worker.stop(SOON))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stopping.done()
    slow.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert (len(pipeline.delivered), pipeline.cut_off) == (4, [])


async def test_stopping_cuts_off_what_does_not_finish_in_time(house: House) -> None:
    pipeline = Deliveries(lambda lease: asyncio.Event().wait() if lease.message.priority is Priority.BULK else None)
    await house.accept(3, Priority.BULK)
    worker = house.worker(pipeline)
    await pipeline.until(lambda: pipeline.under_way.total() == 3)
    async with asyncio.timeout(SOON):
        await worker.stop(0.05)
    assert len(pipeline.cut_off) == 3
    assert pipeline.under_way.total() == 0


async def test_what_is_leased_while_it_stops_is_not_begun(house: House) -> None:
    slow = asyncio.Event()
    pipeline = Deliveries(lambda lease: slow.wait())
    await house.accept(1, Priority.BULK)
    worker = house.worker(pipeline)
    await pipeline.until(lambda: pipeline.under_way.total() == 1)
    await house.accept(5, Priority.CRITICAL)
    house.engine.held = asyncio.Event()
    house.engine.committed.clear()
    worker.notice()
    async with asyncio.timeout(SOON):
        await house.engine.committed.wait()
    stopping = asyncio.create_task(worker.stop(SOON))
    await asyncio.sleep(0)
    house.engine.held.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert pipeline.under_way.total() == 1
    slow.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert (len(pipeline.delivered), pipeline.cut_off) == (1, [])


async def test_what_a_stopped_worker_leaves_is_the_next_ones_at_once_and_nobody_is_suspected(house: House) -> None:
    pipeline = Deliveries(lambda lease: asyncio.Event().wait())
    ids = await house.accept(3, Priority.BULK)
    worker = house.worker(pipeline)
    await pipeline.until(lambda: pipeline.under_way.total() == 3)
    async with asyncio.timeout(SOON):
        await worker.stop(0.01)
    assert await next_ones(house) == set(ids)


async def test_what_is_leased_while_it_stops_is_given_back(house: House) -> None:
    pipeline = Deliveries()
    worker = house.worker(pipeline)
    async with asyncio.timeout(SOON):
        await house.engine.asked.wait()
    ids = await house.accept(5, Priority.CRITICAL)
    house.engine.held = asyncio.Event()
    house.engine.committed.clear()
    worker.notice()
    async with asyncio.timeout(SOON):
        await house.engine.committed.wait()
    stopping = asyncio.create_task(worker.stop(0))
    await asyncio.sleep(0)
    house.engine.held.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert pipeline.delivered == []
    assert await next_ones(house) == set(ids)


async def next_ones(house: House) -> set[str]:
    """What another worker may lease at this moment."""
    other = Store(house.engine)
    leases, _ = await other.lease([(priority, Channel.SMS, 100) for priority in Priority], timedelta(seconds=30))
    assert await other.suspects() == 0
    return {lease.message.id for lease in leases}


# ------------------------------------------------------------------------------------------------------------- suspects


async def died_of(house: House, number: int) -> list[str]:
    """Accept messages that another worker took, whose lease has run out."""
    ids = await house.accept(number, Priority.BULK)
    leases, _ = await Store(house.engine).lease([(Priority.BULK, Channel.SMS, number)], timedelta(0))
    assert len(leases) == number
    return ids


async def test_suspects_are_run_one_at_a_time_and_others_beside_them(house: House) -> None:
    async def clean() -> bool:
        return not await house.store.suspects()

    slow = asyncio.Event()
    ids = await died_of(house, 4)
    pipeline = Deliveries(lambda lease: slow.wait() if lease.message.id == ids[0] else None)
    house.worker(pipeline, only=True)
    await pipeline.until(lambda: pipeline.under_way.total() == 1)
    others = await house.accept(20, Priority.HIGH)
    await pipeline.until(lambda: len(pipeline.delivered) == 20)
    assert set(pipeline.delivered) == set(others)
    assert pipeline.under_way[SMS[Priority.BULK]] == 1
    slow.set()
    await pipeline.until(lambda: len(pipeline.delivered) == 24)
    assert pipeline.most[SMS[Priority.BULK]] == 1
    await wait_until(clean)


async def test_what_is_run_alone_when_the_worker_stops_stays_suspect_and_counts_no_crash(house: House) -> None:
    (suspect,) = await died_of(house, 1)
    pipeline = Deliveries(lambda lease: asyncio.Event().wait())
    worker = house.worker(pipeline, only=True)
    await pipeline.until(lambda: pipeline.under_way.total() == 1)
    async with asyncio.timeout(SOON):
        await worker.stop(0.01)
    found = await Store(house.engine, worker="next").take_suspect(timedelta(seconds=30), house.judge)
    assert found.lease is None, "who did this for all has not said that it is gone"
    await house.store.drop_job("suspects", house.store._worker)
    found = await Store(house.engine, worker="next").take_suspect(timedelta(seconds=30), house.judge)
    assert found.lease
    assert (found.lease.message.id, found.crashes) == (suspect, 0)


# ---------------------------------------------------------------------------------------------------- the store is away


async def test_leases_whose_answer_is_lost_are_taken_again_and_nobody_is_suspected(house: House) -> None:
    pipeline = Deliveries()
    await house.accept(5, Priority.BULK)
    house.engine.unheard = 1
    house.worker(pipeline)
    await pipeline.until(lambda: pipeline.finished.total() == 5)
    assert await house.store.suspects() == 0


async def test_what_could_not_be_decided_while_the_store_was_away_is_given_back(house: House) -> None:
    class Cut(Deliveries):
        async def deliver(self, lease: Lease) -> None:
            if not self.finished.total():
                self.end((lease.message.priority, Channel.SMS))
                raise StoreUnavailable("away")
            await super().deliver(lease)

    pipeline = Cut()
    (cut,) = await house.accept(1, Priority.BULK)
    house.worker(pipeline)
    await pipeline.until(lambda: pipeline.delivered == [cut])
    assert await house.store.suspects() == 0


async def test_at_first_what_others_let_run_out_is_left_to_them(house: House) -> None:
    """The store may have been away for them too, and be back since a moment ago."""
    ids = await died_of(house, 1)
    pipeline = Deliveries()
    worker = house.worker(pipeline)
    others = await house.accept(1, Priority.BULK)
    worker.notice()
    await pipeline.until(lambda: pipeline.delivered == others)
    assert await house.store.suspects() == 0
    view = await house.store.view(ids[0])
    assert view
    assert not view.suspect


async def test_without_a_store_it_is_not_ready_and_with_it_it_goes_on(house: House) -> None:
    pipeline = Deliveries()
    await house.accept(2, Priority.NORMAL)
    house.engine.away = True
    worker = house.worker(pipeline)
    async with asyncio.timeout(SOON):
        await house.engine.asked.wait()
    await asyncio.sleep(0)
    assert not worker.ready
    assert pipeline.most.total() == 0
    house.engine.away = False
    worker.notice()
    await pipeline.until(lambda: pipeline.finished.total() == 2)
    assert worker.ready

    house.engine.away = True
    house.engine.asked.clear()
    worker.notice()
    async with asyncio.timeout(SOON):
        await house.engine.asked.wait()
    await asyncio.sleep(0)
    assert not worker.ready


# --------------------------------------------------------------------------------------------- with the pipeline itself


class Vendor(Gauge):
    """A provider that keeps hold of whatever says so, until it is let go."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)
    dedupe_window: timedelta | None = None

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()
        self.hangs: set[str] = set()
        self.sent: Counter[str] = Counter()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, dispatch: Dispatch) -> str:
        pair = Priority.NORMAL, Channel.SMS
        self.sent[dispatch.message] += 1
        self.begin(pair)
        try:
            if dispatch.message in self.hangs:
                await self.let_go.wait()
        finally:
            self.end(pair)
        return "ref"

    def receipts(self, callback: Callback) -> Sequence[Receipt]:
        return []


def pipeline_of(house: House, vendor: Vendor, health: ProviderHealth) -> Pipeline:
    providers = {"one": vendor, "two": vendor}
    return Pipeline(house.store, lambda: house.judge, providers, health, Metrics("test"), None, None, lambda: None)


async def test_one_time_codes_overtake_a_campaign_whose_provider_hangs(house: House) -> None:
    vendor, health = Vendor(), ProviderHealth({"one": 8, "two": 8})
    vendor.hangs.update(await house.accept(50, Priority.BULK))
    worker = house.worker(pipeline_of(house, vendor, health), health=health)
    await vendor.until(lambda: vendor.under_way.total() == 6)
    codes = await house.accept(20, Priority.CRITICAL)
    worker.notice()
    await vendor.until(lambda: all(vendor.sent[code] for code in codes))
    assert vendor.most.total() <= 8
    vendor.let_go.set()
    await vendor.until(lambda: len(vendor.sent) == 70 and vendor.under_way.total() == 0)
    assert set(vendor.sent.values()) == {1}


async def test_what_is_cut_off_at_the_end_stays_an_open_intent(house: House) -> None:
    vendor, health = Vendor(), ProviderHealth({"one": 8, "two": 8})
    (hung,) = await house.accept(1, Priority.BULK)
    vendor.hangs.add(hung)
    worker = house.worker(pipeline_of(house, vendor, health), health=health)
    await vendor.until(lambda: vendor.under_way.total() == 1)
    async with asyncio.timeout(SOON):
        await worker.stop(0.01)
    view = await house.store.view(hung)
    assert view is not None
    assert (view.state, [attempt.state for attempt in view.attempts]) == (MessageState.SENDING, [AttemptState.INTENT])


async def test_in_a_hurry_nobody_is_waited_for_and_nobody_is_called_any_more(house: House) -> None:
    vendor, health, hurry = Vendor(), ProviderHealth({"one": 8, "two": 8}), asyncio.Event()
    (hung,) = await house.accept(1, Priority.BULK)
    vendor.hangs.add(hung)
    worker = house.worker(pipeline_of(house, vendor, health), health=health)
    await vendor.until(lambda: vendor.under_way.total() == 1)
    (claimed,) = await house.accept(1, Priority.CRITICAL)
    house.engine.committed.clear()
    worker.notice()
    async with asyncio.timeout(SOON):
        await house.engine.committed.wait()  # the lease
    house.engine.held = asyncio.Event()  # the claim commits, and does not say so yet
    await wait_until(lambda: house.attempts(claimed))
    stopping = asyncio.create_task(worker.stop(SOON, hurry))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stopping.done()
    hurry.set()
    for _ in range(20):
        await asyncio.sleep(0)
    house.engine.held.set()
    async with asyncio.timeout(SOON / 2):
        await stopping
    assert await house.attempts(hung) == [AttemptState.INTENT]
    assert await house.attempts(claimed) == [AttemptState.NOT_SENT]
    assert vendor.sent[claimed] == 0


async def test_in_a_hurry_what_has_an_answer_is_still_committed(house: House) -> None:
    vendor, health, hurry = Vendor(), ProviderHealth({"one": 8, "two": 8}), asyncio.Event()
    (message,) = await house.accept(1, Priority.BULK)
    vendor.hangs.add(message)
    worker = house.worker(pipeline_of(house, vendor, health), health=health)
    await vendor.until(lambda: vendor.under_way.total() == 1)
    house.engine.away = True
    vendor.let_go.set()
    await vendor.until(lambda: vendor.under_way.total() == 0)
    hurry.set()
    stopping = asyncio.create_task(worker.stop(SOON, hurry))
    house.engine.asked.clear()
    await house.engine.asked.wait()
    house.engine.away = False
    async with asyncio.timeout(SOON):
        await stopping
    assert await house.attempts(message) == [AttemptState.ACCEPTED]


@pytest.mark.parametrize(("priority", "places"), [(Priority.CRITICAL, 4), (Priority.HIGH, 8)])
async def test_what_hangs_at_a_provider_that_is_left_alone_takes_no_places_of_the_others(
    house: House, priority: Priority, places: int
) -> None:
    house.judge = replace(house.judge, routes={Channel.SMS: Route(("one", "two"))})
    known, way, hung = ProviderHealth({"one": 8, "two": places}), (Channel.SMS, "one"), asyncio.Event()
    pipeline = Deliveries(lambda lease: hung.wait() if lease.message.priority is Priority.BULK else None)
    await house.accept(6, Priority.BULK)
    worker = house.worker(pipeline, health=known)
    await pipeline.until(lambda: pipeline.under_way.total() == 6)
    now = datetime.now(UTC)
    for number in range(6):
        known.began(way, f"hung {number}", now)
    for _ in range(IN_A_ROW):
        known.began(way, "", now)
        known.ended(way, failed(Unavailable("refused")), now, now)
    (urgent,) = await house.accept(1, priority)
    worker.notice()
    await pipeline.until(lambda: urgent in pipeline.delivered)
    hung.set()
