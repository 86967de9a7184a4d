"""Which messages are worked on now: leases what is due, critical first, and bounds what is in flight."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from gateway import killpoints
from gateway.config import Route
from gateway.decide import Deferred
from gateway.intake import utc_now
from gateway.message import Priority
from gateway.store import Lost, StoreUnavailable
from gateway.unknown import UNRESOLVED
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from gateway.decide import Ended, Judge
    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.pacing import Pacing
    from gateway.pipeline import Pipeline
    from gateway.store import Lease, Next, Store
    from gateway.watch import ProviderHealth

log = structlog.get_logger()

_LEASE = timedelta(seconds=30)
"""How long a leased message may wait for its decision; the intent sets a lease of its own."""
_COMMIT = 6.0
"""Seconds that a worker which is stopped waits for the store to take what it knows."""
_POLL = 0.5
"""Seconds after which all is looked at, whether or not anything was heard: for what wakes by itself."""
_OTHERS = 10.0
"""Seconds that the store must have answered before what others let run out is taken for a sign that they died: if it
was away for them too, they give that back within a few."""
_PAUSE = timedelta(seconds=1)
"""Before what could not be decided is looked at again, so that one that never can be costs next to nothing."""
_LAST_CALL = 5.0
"""Seconds that a call of the store that is under way at the end may take: it may bring leases, to be given back."""
_ROUND = 1.0
"""Seconds between two looks for suspects where there are none to be run."""
_WORTHWHILE = 4
"""While others are in flight, more are leased when one in so many of the places is free: few large transactions."""
_CRITICAL_SHARE = 4
"""One in so many places of a provider is kept for critical messages, and one of two or three."""

Pair = tuple[Priority, Channel]


class Worker:
    """Leases due messages and hands each to the pipeline."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        health: ProviderHealth,
        judge: Callable[[], Judge],
        in_flight: Mapping[Priority, int],
        metrics: Metrics,
        pacing: Pacing | None = None,
        clock: Callable[[], datetime] = utc_now,
        *,
        only: bool = False,
    ) -> None:
        """Take what it needs.

        Args:
            store: leases come from it.
            pipeline: takes them as far as they can go.
            health: how many attempts each provider has places for.
            judge: the one in force at the moment, for its routes.
            in_flight: how many of a priority may be worked on at once, per channel.
            metrics: hears what is in flight.
            pacing: how many have a turn at providers that have a pace. None: none has.
            clock: by which providers are judged.
            only: whether no other worker can be at this store.
        """
        self._store = store
        self._pipeline = pipeline
        self._health = health
        self._judge = judge
        self._budget = in_flight
        self._metrics = metrics
        self._pacing = pacing
        self._only = only
        self._now = clock
        # Channels that have no route any more too: what waits there falls through, or ends.
        self._pairs = [(priority, channel) for priority in Priority for channel in Channel]
        self._busy: Counter[Pair] = Counter()
        self._on_channel: Counter[Channel] = Counter()
        self._maybe: set[Pair] = set(self._pairs)
        self._wake = asyncio.Event()
        self._tasks: dict[asyncio.Task[Next | None], Lease] = {}
        self._left: list[Lease] = []
        """What is held but not worked on: others may have it, as soon as the store can be told."""
        self._broke: list[Lease] = []
        """What ended in a bug, of which the store is still to hear."""
        self._unheard = False
        """Whether the store may have leased something without our hearing of it."""
        self._answering: float | None = None
        """Since when the store has answered, in the loop's time. None: it does not."""
        self._ending = asyncio.Event()
        self._loops: set[asyncio.Task[object]] = set()
        self.ready = False

    def notice(self, pairs: Collection[Pair] | None = None) -> None:
        """Something may be due now; of any priority and channel, where none is named."""
        self._maybe.update(self._pairs if pairs is None else pairs)
        self._wake.set()

    async def run(self) -> None:
        """Work until told to stop. What is critical is leased beside the rest, so that it waits for no large batch."""
        self._looping()
        rest: asyncio.Task[int] | None = None
        while not self._ending.is_set() or rest:
            self._wake.clear()
            leased = 0
            try:
                if rest and (rest.done() or self._unheard or self._ending.is_set()):
                    done, rest = rest, None
                    leased = await done
                await self._pipeline.disown()
                await self._give_back()
                leased += await self._lease(self._wanted(critical=True))
                if rest is None and not self._ending.is_set() and (wanted := self._wanted(critical=False)):
                    rest = asyncio.create_task(self._lease(wanted))
                    rest.add_done_callback(self._leased)
                self._answered()
            except StoreUnavailable as error:
                if self.ready:
                    log.warning("worker.store_lost", reason=str(error))
                self._unanswered()
            if not leased:
                await self._rest()

    async def isolate(self) -> None:
        """Run suspects, of which one may be what kills workers: one at a time, until told to stop."""
        self._looping()
        while not self._ending.is_set():
            try:
                suspect = await self._suspect()
            except StoreUnavailable:
                suspect = None
            if suspect:
                await self._alone(suspect)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND):
                        await self._ending.wait()

    def _looping(self) -> None:
        if task := asyncio.current_task():
            self._loops.add(task)
            task.add_done_callback(self._loops.discard)

    def _answered(self) -> None:
        self.ready = True
        self._answering = self._answering or asyncio.get_running_loop().time()

    def _unanswered(self) -> None:
        self.ready, self._answering = False, None

    @property
    def _others(self) -> bool:
        """Whether a lease that another let run out means that it died."""
        if self._only:
            return True
        return self._answering is not None and asyncio.get_running_loop().time() - self._answering >= _OTHERS

    async def _give_back(self) -> None:
        """Let others have what is not worked on here."""
        if self._unheard:
            await self._store.give_back_all_but([lease.message.id for lease in self._tasks.values()])
            self._unheard = False
        while self._broke:
            self._tell_parked(await self._store.broke(self._broke[0], self._judge()))
            del self._broke[0]
        if self._left:
            given = list(self._left)
            await self._store.give_back(given, timedelta(0) if self._ending.is_set() else _PAUSE)
            del self._left[: len(given)]

    async def _suspect(self) -> Lease | None:
        """The next suspect, if none is under way anywhere."""
        count = await self._store.suspects()
        self._metrics.suspects.set(count)
        if not count:
            return None
        try:
            found = await self._store.take_suspect(_LEASE, self._judge(), others=self._others)
        except StoreUnavailable:
            self._unheard = True
            raise
        self._metrics.suspect_crashes.inc(found.crashes)
        self._tell_parked(found.parked)
        return found.lease

    def _tell_parked(self, parked: Sequence[tuple[Message, Ended]]) -> None:
        for message, end in parked:
            self._metrics.decided(message, end)
            log.error(
                "message.ended", message=message.id, category=message.category, state=end.state, reason=end.reason
            )

    async def _alone(self, lease: Lease) -> None:
        """Run a suspect; if we are still there then, it is none any more.

        Unless all that was done was to find that nobody knows whether it was sent: then its repeat is run alone too.
        """
        task = self._start(lease)
        await asyncio.wait([task])
        step = None if task.cancelled() else task.result()
        if (
            task.cancelled()
            or lease in (*self._left, *self._broke)
            or (isinstance(step, Deferred) and step.rule in UNRESOLVED)
        ):
            return
        with suppress(StoreUnavailable):  # then it is run alone once more
            await self._store.clear(lease)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_POLL):
                await self._wake.wait()
        except TimeoutError:
            self._maybe.update(self._pairs)

    def _leased(self, rest: asyncio.Task[int]) -> None:
        self._wake.set()
        if not rest.cancelled():
            rest.exception()  # which ``run`` tells, unless it ends first

    async def _lease(self, wanted: Sequence[tuple[Priority, Channel, int]]) -> int:
        if not wanted:
            return 0
        self._maybe.difference_update(pair[:2] for pair in wanted)
        free = {channel: self._places(channel) - self._on_channel[channel] for channel in Channel}
        try:
            leases, more = await self._store.lease(wanted, _LEASE, free, others=self._others)
        except StoreUnavailable:
            self._unheard = True
            raise
        if leases:
            killpoints.reached("worker.leased")
        self._maybe.update(more)
        self._tell_backlog(wanted, more)
        if self._ending.is_set():
            self._left += leases
            return 0
        for lease in leases:
            self._start(lease)
        return len(leases)

    def _wanted(self, *, critical: bool) -> list[tuple[Priority, Channel, int]]:
        """Of what there may be some due, critical or not, how many more are to be leased; the most urgent first.

        Where a pace bounds a channel only its most urgent are asked for: what they leave is the others' in a moment.
        """
        wanted = []
        bounded: set[Channel] = set()
        for pair in self._pairs:
            priority, channel = pair
            if pair not in self._maybe or (priority is Priority.CRITICAL) is not critical:
                continue
            if priority is not Priority.CRITICAL and channel in bounded:
                self._wake.set()
            elif (room := self._room(pair)) > 0:
                wanted.append((priority, channel, room))
                if priority is not Priority.CRITICAL and self._turns(channel) is not None:
                    bounded.add(channel)
        return wanted

    def _tell_backlog(self, wanted: Collection[tuple[Priority, Channel, int]], more: Collection[Pair]) -> None:
        """Where more are due than have turns, turns are booked ahead."""
        if not self._pacing:
            return
        waiting = dict.fromkeys((channel for priority, channel, _ in wanted if priority is not Priority.CRITICAL), 0)
        for priority, channel in more:
            if channel in waiting and priority is not Priority.CRITICAL:
                free = self._places(channel) - self._on_channel[channel]
                waiting[channel] += max(min(self._budget[priority] - self._busy[priority, channel], free), 1)
        for channel, number in waiting.items():
            self._pacing.backlog(channel, self._judge().routes.get(channel, ()), number)

    def _turns(self, channel: Channel) -> int | None:
        """How many that are not critical have a turn in the pace of the channel's providers; None: none has a pace."""
        if not self._pacing:
            return None
        return self._pacing.room(channel, self._judge().routes.get(channel, ()), self._health)

    def _places(self, channel: Channel) -> int:
        return self._health.places(channel, self._judge().routes.get(channel, Route()), self._now())

    def _room(self, pair: Pair) -> int:
        """How many more of a priority and channel may be started; none rather than few while others are in flight."""
        priority, channel = pair
        busy, budget = self._busy[pair], self._budget[priority]
        places = self._places(channel)
        if priority is not Priority.CRITICAL:
            places -= min(max(places // _CRITICAL_SHARE, 1), places - 1)
        room = min(budget - busy, places - self._on_channel[channel])
        if priority is not Priority.CRITICAL and (turns := self._turns(channel)) is not None:
            return max(min(room, turns), 0)
        worth = max(min(budget, places) // _WORTHWHILE, 1)
        return room if room >= worth or not busy else 0

    def _start(self, lease: Lease) -> asyncio.Task[Next | None]:
        pair = (lease.message.priority, lease.message.channels[0])
        if self._pacing:
            self._pacing.coming(lease.message)
        self._busy[pair] += 1
        self._on_channel[pair[1]] += 1
        task = asyncio.get_running_loop().create_task(self._deliver(lease, pair))
        self._tasks[task] = lease
        task.add_done_callback(self._tasks.pop)
        return task

    async def _deliver(self, lease: Lease, pair: Pair) -> Next | None:
        """What became of a message, as far as its path came."""
        try:
            step = await self._pipeline.deliver(lease)
            killpoints.reached("worker.delivered")
        except StoreUnavailable:
            self._answering = None
            self._left.append(lease)  # whoever takes it finds what was committed
        except asyncio.CancelledError:
            self._left.append(lease)
            raise
        except Exception:
            log.exception("worker.bug", message=lease.message.id)
            self._broke.append(lease)
        else:
            if isinstance(step, Lost):
                self._left.append(lease)  # who took it may hold it for what killed us
            return step
        finally:
            if self._pacing:
                self._pacing.gone(lease.message)
            self._busy[pair] -= 1
            self._on_channel[pair[1]] -= 1
            self._maybe.add(pair)  # the next of the person's line is due at this moment
            rivals = ((priority, pair[1]) for priority in Priority)
            if any(rival in self._maybe and self._room(rival) for rival in rivals):
                self._wake.set()
        return None

    def observe(self) -> None:
        """Tell the metrics what is in flight."""
        self._metrics.tasks.set(len(asyncio.all_tasks()))
        for priority in Priority:
            self._metrics.in_flight(
                priority.word, sum(count for pair, count in self._busy.items() if pair[0] is priority)
            )

    async def stop(self, grace: float, hurry: asyncio.Event | None = None) -> None:
        """Start nothing more; let what is under way finish for at most ``grace`` seconds, or until there is a hurry.

        An attempt that has not answered by then stays an open intent: nobody knows its outcome, and whoever takes its
        lease records it as unknown. What has an answer is committed before this returns, if the store takes it.
        """
        self._ending.set()
        self._wake.set()
        hurry = hurry or asyncio.Event()
        hurried = asyncio.create_task(hurry.wait())
        until = asyncio.get_running_loop().time() + grace
        while self._tasks and not hurry.is_set() and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({*self._tasks, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if unknown := self._pipeline.cut():
            log.warning("worker.left_unknown", attempts=unknown)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_COMMIT)
        if self._tasks:
            log.warning("worker.left_uncommitted", attempts=len(self._tasks))
        for task in (rest := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._loops:
            await asyncio.wait(self._loops, timeout=_LAST_CALL)
        with suppress(StoreUnavailable):  # then it is run alone, by whoever finds that the leases have run out
            await self._pipeline.disown()
            await self._give_back()
