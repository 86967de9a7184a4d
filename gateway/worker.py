"""Which messages are worked on now: leases what is due, critical first, and bounds what is in flight."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from gateway.config import Route
from gateway.intake import utc_now
from gateway.message import Priority
from gateway.store import StoreUnavailable
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.pacing import Pacing
    from gateway.pipeline import Pipeline
    from gateway.store import Lease, Store
    from gateway.watch import ProviderHealth

log = structlog.get_logger()

_LEASE = timedelta(seconds=30)
"""How long a leased message may wait for its decision; the intent sets a lease of its own."""
_POLL = 0.5
"""Seconds after which all is looked at, whether or not anything was heard: for what wakes by itself."""
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
        """
        self._store = store
        self._pipeline = pipeline
        self._health = health
        self._judge = judge
        self._budget = in_flight
        self._metrics = metrics
        self._pacing = pacing
        self._now = clock
        # Channels that have no route any more too: what waits there falls through, or ends.
        self._pairs = [(priority, channel) for priority in Priority for channel in Channel]
        self._busy: Counter[Pair] = Counter()
        self._on_channel: Counter[Channel] = Counter()
        self._maybe: set[Pair] = set(self._pairs)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.ready = False

    def notice(self, pairs: Collection[Pair] | None = None) -> None:
        """Something may be due now; of any priority and channel, where none is named."""
        self._maybe.update(self._pairs if pairs is None else pairs)
        self._wake.set()

    async def run(self) -> None:
        """Work until told to stop."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self._pipeline.disown()
                leased = await self._lease()
                self.ready = True
            except StoreUnavailable as error:
                if self.ready:
                    log.warning("worker.store_lost", reason=str(error))
                self.ready = False
                leased = 0
            if not leased:
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_POLL):
                await self._wake.wait()
        except TimeoutError:
            self._maybe.update(self._pairs)

    async def _lease(self) -> int:
        wanted = self._wanted()
        if not wanted:
            return 0
        self._maybe.difference_update(pair[:2] for pair in wanted)
        free = {channel: self._places(channel) - self._on_channel[channel] for channel in Channel}
        leases, more = await self._store.lease(wanted, _LEASE, free)
        self._maybe.update(more)
        self._tell_backlog(wanted, more)
        if self._stopping:
            return 0  # not begun, so somebody else may: as soon as the leases run out
        for lease in leases:
            self._start(lease)
        return len(leases)

    def _wanted(self) -> list[tuple[Priority, Channel, int]]:
        """Of what there may be some due, how many more are to be leased; critical first.

        Where a pace bounds a channel only its most urgent are asked for: what they leave is the others' in a moment.
        """
        wanted = []
        bounded: set[Channel] = set()
        for pair in self._pairs:
            priority, channel = pair
            if pair not in self._maybe:
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

    def _start(self, lease: Lease) -> None:
        pair = (lease.message.priority, lease.message.channels[0])
        if self._pacing:
            self._pacing.coming(lease.message)
        self._busy[pair] += 1
        self._on_channel[pair[1]] += 1
        task = asyncio.get_running_loop().create_task(self._deliver(lease, pair))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, lease: Lease, pair: Pair) -> None:
        try:
            await self._pipeline.deliver(lease)
        except StoreUnavailable:
            pass  # the lease runs out, and whoever takes it finds what was committed
        except Exception:
            log.exception("worker.bug", message=lease.message.id)
        finally:
            if self._pacing:
                self._pacing.gone(lease.message)
            self._busy[pair] -= 1
            self._on_channel[pair[1]] -= 1
            self._maybe.add(pair)  # the next of the person's line is due at this moment
            rivals = ((priority, pair[1]) for priority in Priority)
            if any(rival in self._maybe and self._room(rival) for rival in rivals):
                self._wake.set()

    def observe(self) -> None:
        """Tell the metrics what is in flight."""
        for priority in Priority:
            self._metrics.in_flight(
                priority.word, sum(count for pair, count in self._busy.items() if pair[0] is priority)
            )

    async def stop(self, grace: float) -> None:
        """Start nothing more; let what is under way finish for at most ``grace`` seconds.

        An attempt that has not answered by then stays an open intent: nobody knows its outcome, and whoever takes its
        lease records it as unknown.
        """
        self._stopping = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        left = list(self._tasks)
        if left:
            log.warning("worker.left_unknown", attempts=len(left))
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
