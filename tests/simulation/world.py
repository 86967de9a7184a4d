"""A whole installation in one thread and no time: processes of the gateway, one store, vendors, services and people."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import heapq
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from random import seed as seed_all
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from gateway.config import parse
from gateway.ids import SOURCE
from gateway.intake import Accepted
from gateway.message import MessageState, OptOut, microseconds
from gateway.metrics import Metrics
from gateway.store import StoreUnavailable
from providers import Channel
from tests.simulation.gateway import Gateway
from tests.simulation.loop import Crashed, Loop, Process, T
from tests.simulation.store import InMemory, Weather, in_memory
from tests.simulation.story import ASKED, CONFIG, DAILY, KEYED, RULES
from tests.simulation.vendors import Mood, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from gateway.config import Config
    from gateway.intake import Answer
    from providers import Receipt
    from tests.simulation.story import Person, Request, Story
    from tests.simulation.vendors import Fate

LONGEST = timedelta(days=12)
"""After which whatever has not ended never will."""
_TICK = 0.1
_MOMENT = 0.001
_AGAIN = 1.5
"""Seconds after which who got no answer asks again, about."""
_TRIES = 200
_QUIET = 0.3
"""Seconds without any change of leases after which nothing happens before something is due."""
_PATIENCE = 15.0
"""The same, where something is overdue: it is soon found, by who looks for what others may have left."""
_OPEN = (
    "select message, fence, lease_until, due_at from due",
    "select message, attempt, since, look_at from unknowns",
)
_BUGS = frozenset({"worker.bug", "attempt.bug", "gateway.bug"})


@functools.cache
def config(daily: int, *, paced: bool) -> Config:
    return parse(CONFIG.format(pace=", pace: 2/s" if paced else "") + RULES.format(daily=daily), {}, base=Path())


@functools.cache
def metrics() -> Metrics:
    """One for all: nothing is decided by them, and making them takes as long as a small story."""
    return _Metrics("simulated")


class _Metrics(Metrics):
    def fared(self, *_: Any) -> None:
        """Said once a second for people to look at, which would take a tenth of the time."""


@dataclass(frozen=True)
class Answered:
    """A service's request, and what it was told."""

    request: Request
    answer: Answer
    at: float


@dataclass(frozen=True)
class No:
    """A person's no, and when it was answered."""

    person: Person
    by: str | None
    """The channel by whose address it was said; None: by the person, for all of them."""
    channel: str | None
    category: str | None
    at: float


@dataclass
class Told:
    """What went in and out of the installation, as those outside saw it."""

    asked: list[Request] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    noes: list[No] = field(default_factory=list)
    cancelled: list[tuple[str, float]] = field(default_factory=list)
    """Messages of which we were told that they are."""
    bugs: list[str] = field(default_factory=list)


class World:
    """One run of one story."""

    def __init__(self, seed: int, story: Story, tables: bytes) -> None:
        self.loop = Loop()
        self.story = story
        self.config = config(DAILY, paced=story.paced)
        self.metrics = metrics()
        self.network = Random(f"{seed} network")
        self._chance = Random(f"{seed} world")
        self._ids = Random(f"{seed} ids")
        seed_all(f"{seed} tenacity")
        self.outside = copy_context()
        self.outside.run(SOURCE.set, lambda: (microseconds(self.now()), self._ids.getrandbits(74)))
        self.connection = in_memory(tables)
        self.engine = InMemory(self.connection, lambda: microseconds(self.now()))
        self.sky = Weather()
        self.told = Told()
        self._trace = hashlib.blake2b(digest_size=16)
        self.vendors = {name: self._vendor(seed, name) for name in self.config.providers}
        self.gateways: list[Gateway] = []
        self._starts = 0
        self._upcoming: list[float] = []
        """When something will happen outside the gateway."""
        self._drowsy: dict[Process, float] = {}
        """Who falls asleep in its next call, for how long at most."""
        self._asleep: dict[str, Process] = {}
        """By the message that it called for."""
        self._active = 0
        """What is happening there now."""

    def _vendor(self, seed: int, name: str) -> Vendor:
        return Vendor(
            name,
            Random(f"{seed} {name}"),
            self.outside,
            timedelta(hours=24) if name == KEYED else None,
            report=self._report,
            reporting=self.story.reporting,
            tells=name == ASKED,
        )

    def now(self) -> datetime:
        """The true time."""
        return self.story.starts + timedelta(seconds=self.loop.time())

    def saw(self) -> None:
        """A transaction is over."""
        self._trace.update(f"{self.loop.time()} {self.connection.total_changes}\n".encode())

    @property
    def trace(self) -> str:
        """A digest of all that happened: every transaction and its size, what vendors took, what the store holds."""
        whole = self._trace.copy()
        for vendor in self.vendors.values():
            whole.update(repr(vendor.ledger).encode())
        for line in self.connection.iterdump():
            whole.update(line.encode())
        return whole.hexdigest()

    # ------------------------------------------------------------------------------------------------------ running it

    def run(self) -> None:
        """From the first act until everything has ended."""
        with capture_logs() as logs:
            self.outside.copy().run(self.loop.run, self._run())
        self.told.bugs += [str(line) for line in logs if line["event"] in _BUGS]
        self.told.bugs += [str(broken) for broken in self.loop.broken]

    async def _run(self) -> None:
        for number in range(self.story.processes):
            self.gateways.append(self._started(number))
        for person in self.story.people:
            await self._insist(functools.partial(Gateway.accept_profile, body=person.profile))
        for act in self.story.acts:
            self._later(act.at, getattr(self, act.what), *act.given)
        await self._until_ended()
        self.sky.thaw()
        for gateway in self.gateways:
            gateway.process.resume()
            gateway.process.died = lambda: None
            self.told.bugs += gateway.broken()
            gateway.process.kill()
        await asyncio.sleep(_TICK)

    def _started(self, which: int) -> Gateway:
        self._starts += 1
        return Gateway(self, f"g{which}.{self._starts}", self.story.skews[which])

    def _later(self, delay: float, what: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        """Have something happen outside the gateway after so many seconds."""
        heapq.heappush(self._upcoming, self.loop.time() + delay)
        self.loop.call_later(delay, self._begin, what, given, context=self.outside)

    def _begin(self, what: Callable[..., Coroutine[Any, Any, None]], given: tuple[Any, ...]) -> None:
        heapq.heappop(self._upcoming)
        self._active += 1
        task = self.loop.create_task(what(*given), context=self.outside.copy())
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._active -= 1
        if error := task.exception():
            self.told.bugs.append(repr(error))

    async def _until_ended(self) -> None:
        """Let it go on. Where nothing is to happen for long all processes sleep for as long, as a laptop does."""
        leases: object = None
        since = 0.0
        while self.loop.time() < LONGEST.total_seconds():
            await asyncio.sleep(_TICK)
            now = self.loop.time()
            rows = [row for of in _OPEN for row in self.connection.execute(of)]
            if not rows and not self._upcoming and not self._active:
                return
            if rows != leases:
                leases, since = rows, now
            overdue = any(self.seconds(max(row[2:])) <= now for row in rows)
            if now - since < (_PATIENCE if overdue else _QUIET) or self._active or self._calling:
                continue
            # What is overdue is so because nobody can take it: until something happens.
            wakes = [wake for row in rows if (wake := self.seconds(max(row[2:]))) > now]
            target = min([*wakes, *(at - _TICK for at in self._upcoming[:1])], default=now) + _MOMENT
            if target > now + 2 * _TICK:
                await self._sleep_until(target)

    @property
    def _calling(self) -> bool:
        return any(gateway.calling for gateway in self.gateways)

    async def _sleep_until(self, target: float) -> None:
        awake = [gateway.process for gateway in self.gateways if gateway.process.alive and not gateway.process.paused]
        for process in awake:
            process.pause()
        await asyncio.sleep(target - self.loop.time())
        for process in awake:
            process.resume()

    def seconds(self, us: int) -> float:
        """An instant of the store, by the world's clock."""
        return (us - microseconds(self.story.starts)) / 1e6

    # ----------------------------------------------------------------------------------------------------------- acts

    async def _insist(self, ask: Callable[[Gateway], Coroutine[Any, Any, T]]) -> T | None:
        """Ask one process or another until one answers."""
        for turn in range(_TRIES):
            gateway = self._chance.choice(self.gateways)
            if gateway.ready:
                try:
                    return await ask(gateway)
                except (Crashed, StoreUnavailable):
                    pass
            await self._rest(min(_AGAIN * 1.2**turn, 60) * (1 + self._chance.random()))
        self.told.bugs.append("nobody answers")
        return None

    async def _rest(self, seconds: float) -> None:
        """Let nothing happen for a while that others would have to stay awake for."""
        heapq.heappush(self._upcoming, self.loop.time() + seconds)
        self._active -= 1
        await asyncio.sleep(seconds)
        self._active += 1
        heapq.heappop(self._upcoming)

    async def request(self, request: Request) -> None:
        """A service asks, and again until it is answered, as a queue does."""
        self.told.asked.append(request)
        body = request.body(self.now())
        answer = await self._insist(lambda gateway: gateway.accept(body))
        if answer:
            self.told.answered.append(Answered(request, answer, self.loop.time()))

    async def no(self, person: Person, by: str | None, channel: str | None, category: str | None) -> None:
        optout = OptOut(channel=Channel(channel) if channel else None, category=category)

        async def say(gateway: Gateway) -> bool:
            if by is None:
                await gateway.opt_out(person.name, optout)
            else:
                await gateway.opt_out_address(person.addresses[by], optout)
            return True

        if await self._insist(say):
            self.told.noes.append(No(person, by, channel, category, self.loop.time()))

    async def cancel(self, request: Request) -> None:
        for answered in list(self.told.answered):
            if answered.request == request and isinstance(answered.answer, Accepted):
                message = answered.answer.message
                state = await self._insist(functools.partial(Gateway.cancel, message=message))
                if state is MessageState.CANCELLED:
                    self.told.cancelled.append((message, self.loop.time()))
                return

    async def policy(self, daily: int) -> None:
        """A changed file reaches one process after the other."""
        self.config = config(daily, paced=self.story.paced)
        for gateway in list(self.gateways):
            try:
                await gateway.apply(self.config)
            except Crashed:
                continue  # it starts with the new one

    async def crash(self, which: int, steps: int, down: float) -> None:
        """A process dies after so many more turns of its loop, and is started again."""
        process = self.gateways[which].process
        process.dies_at = process.steps + steps
        process.died = lambda: self._later(down, self._restart, which)

    async def _restart(self, which: int) -> None:
        self.told.bugs += self.gateways[which].broken()
        self.gateways[which] = self._started(which)

    async def stop(self, which: int, down: float) -> None:
        """A process is told to end, is killed where that takes too long, and is started again."""
        gateway = self.gateways[which]
        if not gateway.process.alive or not gateway.ready:
            return  # it is about to be started, or has been told
        gateway.process.died = lambda: self._later(down, self._restart, which)
        with suppress(Crashed):
            await gateway.stop()
        gateway.process.kill()

    async def pause(self, which: int, seconds: float) -> None:
        process = self.gateways[which].process
        process.pause()
        self._later(seconds, self._resume, process)

    async def zombie(self, which: int, fates: Mapping[Fate, float], seconds: float) -> None:
        """A process falls asleep in its next call of a vendor, and wakes up as another calls for the same message."""
        self._drowsy[self.gateways[which].process] = seconds
        for vendor in self.vendors:
            await self.mood(vendor, Mood(fates), seconds)

    def begins(self, process: Process, message: str) -> None:
        """A process begins to call a vendor."""
        if seconds := self._drowsy.pop(process, None):
            process.pause()
            self._asleep[message] = process
            self._later(seconds, self._resume, process)
        elif (zombie := self._asleep.get(message)) and zombie is not process:
            del self._asleep[message]
            self._later(self._chance.random() / 2, self._resume, zombie)

    async def _resume(self, process: Process) -> None:
        process.resume()

    async def weather(self, what: str, value: Any, seconds: float) -> None:
        setattr(self.sky, what, value)
        self._later(seconds, self._clear, what)

    async def _clear(self, what: str) -> None:
        setattr(self.sky, what, getattr(Weather(), what))
        if not self.sky.frozen:
            self.sky.thaw()

    async def mood(self, vendor: str, mood: Mood, seconds: float) -> None:
        self.vendors[vendor].mood = mood
        self._later(seconds, self._cheer, vendor)

    async def _cheer(self, vendor: str) -> None:
        self.vendors[vendor].mood = Mood()

    def _report(self, receipt: Receipt, delay: float) -> None:
        self._later(delay, self.receipt, receipt)

    async def receipt(self, receipt: Receipt) -> None:
        """A vendor calls back, and again until it is heard."""
        await self._insist(lambda gateway: gateway.receipt(receipt))
