"""Calls webhooks with the events that are queued for them: one worker for all, each webhook at its own speed."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from gateway.batcher import Batcher
from gateway.intake import utc_now
from gateway.store import Called, StoreUnavailable
from gateway.webhooks.standard import Answer, Outcome, abreast, mended, next_call, spared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from gateway.metrics import Metrics
    from gateway.store import Queued, Store
    from gateway.webhooks.client import Client

log = structlog.get_logger()

JOB = "webhooks"
_TERM = timedelta(seconds=15)
_RENEW = 5.0
"""Seconds after which the job is taken anew …"""
_ELSEWHERE = 5.0
"""… and between two looks whether another worker has let go of it."""
_LOOK = 1.0
"""Seconds between two looks for what has become due by the clock alone."""
_AGAIN = 1.0
"""Seconds until a store that did not answer is told again."""


class Sender:
    """Sends each event until it is taken or given up, at least once; what it holds meanwhile is bounded."""

    def __init__(
        self,
        store: Store,
        clients: Sequence[Client],
        worker: str,
        metrics: Metrics,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take what it needs.

        Args:
            store: has the queue.
            clients: one for each webhook, open.
            worker: the name by which this process takes jobs.
            metrics: counts calls and what is given up.
            now: the wall clock.
        """
        self._store = store
        self._lanes = {client.webhook.name: _Lane(client) for client in clients}
        self._urls = {client.webhook.name: client.webhook.fingerprint for client in clients}
        self._worker = worker
        self._metrics = metrics
        self._now = now
        self._record: Batcher[Called, None] = Batcher(self._record_all)
        self._renew_at = 0.0
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()

    def notice(self) -> None:
        """There may be something due."""
        for lane in self._lanes.values():
            lane.has_more = True
        self._wake.set()

    async def run(self) -> None:
        """Call what is due, until told to stop."""
        try:
            async with asyncio.TaskGroup() as calls:
                while not self._ending.is_set():
                    self._wake.clear()
                    try:
                        mine = await self._is_mine()
                        if mine:
                            await self._begin(calls)
                    except StoreUnavailable as error:
                        mine = False
                        log.warning("webhooks.waiting", reason=str(error))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK if mine else _ELSEWHERE):
                            await (self._wake if mine else self._ending).wait()
        finally:
            self._ended.set()

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """Begin no more calls, and let those under way end for at most ``grace`` seconds, or until there is a hurry.

        What has no answer by then is called again, by whoever does this next.
        """
        self._ending.set()
        self._wake.set()
        waits = [asyncio.create_task(event.wait()) for event in (self._ended, hurry)]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _is_mine(self) -> bool:
        """Whether this worker is the one that calls."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._renew_at:
            if not await self._store.take_job(JOB, self._worker, _TERM):
                return False
            self._renew_at = loop.time() + _RENEW
        return True

    async def _begin(self, calls: asyncio.TaskGroup) -> None:
        """Call what is due, as much of it as there are places for."""
        now = self._now()
        lanes = {name: lane for name, lane in self._lanes.items() if lane.free(now)}
        busy = {name: frozenset(lane.under_way) for name, lane in lanes.items()}  # it may end before the answer comes
        wanted = {name: lane.free(now) + len(lane.under_way) for name, lane in lanes.items()}
        found = await self._store.due_events(self._urls, wanted) if wanted else []
        for name, lane in lanes.items():
            due = [queued for queued in found if queued.webhook == name]
            lane.has_more = len(due) == wanted[name]
            new = [queued for queued in due if queued.sequence not in busy[name]]
            for queued in new[: wanted[name] - len(busy[name])]:
                lane.under_way.add(queued.sequence)
                calls.create_task(self._call(lane, queued))

    async def _call(self, lane: _Lane, queued: Queued) -> None:
        try:
            answer = await lane.client.post(queued.event, queued.body)
        except Exception as error:  # noqa: BLE001 - one event that we cannot send holds up no other
            # Neither the error's sentence nor its frames' variables: they may hold the URL or the body.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("webhook.bug", webhook=queued.webhook, error=type(error).__name__, traceback=trace)  # noqa: TRY400
            answer = Answer(Outcome.BUG, "bug")
        self._metrics.webhook_calls.labels(queued.webhook, answer.outcome).inc()
        lane.heard(answer, self._now())
        if answer.outcome is Outcome.GONE:
            await self._until_told(lambda: self._disable(queued.webhook, answer.detail))
        else:
            called = self._called(queued, answer)
            await self._until_told(lambda: self._record(called))
        lane.under_way.discard(queued.sequence)
        if lane.has_more:
            self._wake.set()

    def _called(self, queued: Queued, answer: Answer) -> Called:
        """What is to be recorded of a call."""
        if answer.outcome is Outcome.TAKEN:
            return Called(queued)
        wait = next_call(queued.event, queued.tries + 1, answer)
        told = {"webhook": queued.webhook, "id": queued.event, "sequence": queued.sequence, "calls": queued.tries + 1}
        told |= {"hint": hint} if (hint := mended(answer.detail)) else {}
        if wait is None:
            self._metrics.webhook_lost.labels(queued.webhook, "given_up").inc()
            log.error("webhook.given_up", **told, error=answer.detail)
        else:
            log.warning("webhook.failed", **told, error=answer.detail, again_in_seconds=round(wait.total_seconds()))
        return Called(queued, answer.detail, wait)

    async def _disable(self, webhook: str, reason: str) -> None:
        if await self._store.disable_webhook(webhook, self._urls[webhook], reason):
            log.error("webhook.disabled", webhook=webhook, reason=reason)

    async def _until_told(self, tell: Callable[[], Awaitable[object]]) -> None:
        """Have the store know, however long it is away: the place is not free before, or the event would go again."""
        while True:
            try:
                await tell()
            except StoreUnavailable as error:
                log.warning("webhooks.unrecorded", reason=str(error), again_in_seconds=_AGAIN)
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def _record_all(self, calls: Sequence[Called]) -> Sequence[None]:
        await self._store.record_calls(calls)
        return [None] * len(calls)


class _Lane:
    """How it stands with one webhook."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.under_way: set[int] = set()
        """The sequence numbers of the events that it is being called with."""
        self.has_more = True
        """More may be due than was found by the last look."""
        self._failed = 0
        """Calls in a row …"""
        self._failing_since: datetime | None = None
        """… and when the first of them did."""
        self._spared_until: datetime | None = None

    def free(self, now: datetime) -> int:
        """How many calls may be begun."""
        if self._spared_until and now < self._spared_until:
            return 0
        return max(0, abreast(self._failed, self.client.webhook.concurrency) - len(self.under_way))

    def heard(self, answer: Answer, now: datetime) -> None:
        """A call has ended."""
        if answer.outcome is Outcome.TAKEN:
            self._failed, self._failing_since, self._spared_until = 0, None, None
            return
        self._failed += 1
        self._failing_since = self._failing_since or now
        self._spared_until = now + spared(self._failed, now - self._failing_since, answer)
