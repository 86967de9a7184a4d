"""Moves events on: out of the outbox, to the broker, and into the queues of webhooks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import structlog

from gateway import killpoints
from gateway.broker import BrokerUnavailable, Outgoing
from gateway.store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.broker import Publisher
    from gateway.config import Webhook
    from gateway.metrics import Metrics
    from gateway.store import Store

log = structlog.get_logger()

JOB = "relay"
_TERM = timedelta(seconds=15)
_HELD = 5.0
"""Seconds after which the job is taken anew."""
_BATCH = 1000
_IDLE = 0.5
FULL = 1_000_000
"""Events kept for one webhook, at most: of those that come then it does not hear, or they would fill the disk."""

Event = tuple[int, str, str, bytes]
"""Its sequence number, id, routing key and JSON."""


class Relay:
    """Publishes the outbox, oldest first, at least once; one worker does it for all, so that order is kept."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher | None,
        webhooks: Sequence[Webhook],
        worker: str,
        metrics: Metrics,
        queued: Callable[[], None],
    ) -> None:
        """Take what it needs.

        Args:
            store: has the outbox.
            publisher: None: there is no broker.
            webhooks: whom events are queued for, once the broker has them.
            worker: the name by which this process takes jobs.
            metrics: counts what was published, and what was not queued.
            queued: is called when there may be something for webhooks.
        """
        self._store = store
        self._publisher = publisher
        self._webhooks = webhooks
        self._urls = {webhook.name: webhook.fingerprint for webhook in webhooks}
        self._worker = worker
        self._metrics = metrics
        self._queued = queued
        self._wake = asyncio.Event()
        self.full: Collection[str] = ()
        """Webhooks for which so much is kept that nothing more is."""

    def notice(self) -> None:
        """There may be events."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Go on for as long as the process does."""
        while True:
            self._wake.clear()
            mine = busy = False
            try:
                ready = self._publisher is None or self._publisher.ready
                mine = ready and await self._store.take_job(JOB, self._worker, _TERM)
                if mine:
                    busy = await self._empty(asyncio.get_running_loop().time() + _HELD)
            except (BrokerUnavailable, StoreUnavailable) as error:
                log.warning("relay.waiting", reason=str(error))
                await asyncio.sleep(_IDLE)
            if not mine:
                await asyncio.sleep(_IDLE)  # not for news: what others publish, or nobody can, it does not change
            elif not busy:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE):
                        await self._wake.wait()

    async def _empty(self, until: float) -> bool:
        """Move on until the outbox is empty or the time is up; whether there may be more."""
        while asyncio.get_running_loop().time() < until:
            events = await self._store.unpublished(_BATCH)
            if not events:
                return False
            killpoints.reached("relay.before_publish")
            if self._publisher:
                await self._publisher.publish([Outgoing(key, body, event, {}) for _, event, key, body in events])
            killpoints.reached("relay.confirmed")
            queue, lost = await self._for_webhooks(events)
            await self._store.published([number for number, *_ in events], queue)
            killpoints.reached("relay.forgotten")
            if self._publisher:
                self._metrics.published.inc(len(events))
            for webhook, count in lost.items():
                self._metrics.webhook_lost.labels(webhook, "full").inc(count)
                log.error("webhook.full", webhook=webhook, events=count, most=FULL)
            if queue:
                self._queued()
        return True

    async def _for_webhooks(self, events: Sequence[Event]) -> tuple[list[tuple[str, int, str, str]], dict[str, int]]:
        """What is to be queued, and of how many events each of those that are full will not hear."""
        queue: list[tuple[str, int, str, str]] = []
        lost = {}
        off = await self._store.disabled_webhooks(self._urls) if self._webhooks else ()
        for webhook in self._webhooks:
            if webhook.name in off:
                continue
            name = webhook.name
            wanted = [(name, number, event, body.decode()) for number, event, key, body in events if webhook.wants(key)]
            if name not in self.full:
                queue += wanted
            elif wanted:
                lost[name] = len(wanted)
        return queue, lost
