"""Tells monitoring how the caps fare: how full they are, whom they press how hard, and who waits longest for them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import structlog

from gateway.acts import PRESSURE
from gateway.pressure import Measured, chosen, measured, pressed, used
from gateway.store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store

log = structlog.get_logger()

JOB = "sample"
_EVERY = 60.0
_TERM = timedelta(seconds=90)
"""Until another worker may go on with it."""
_CONTACTS = 5000
"""The newest, among which persons are looked for."""
_PERSONS = 500
"""Most of a sample: a share of theirs is right to five in a hundred, nineteen times of twenty."""
_SLICE = 50
"""Persons that are read and looked at in one turn: what is due waits that long."""
_ROWS = 10_000
"""Waiting messages that are looked through in one transaction."""
_PAGES = 20
"""Times that, in one round; the next goes on from there."""


class Sampler:
    """One worker does it for all."""

    def __init__(self, store: Store, judge: Callable[[], Judge], worker: str, metrics: Metrics) -> None:
        """``worker``: the name by which this process takes jobs."""
        self._store = store
        self._judge = judge
        self._worker = worker
        self._metrics = metrics
        self._after = ""

    async def run(self) -> NoReturn:
        """Look once a minute."""
        while True:
            try:
                if await self._store.take_job(JOB, self._worker, _TERM):
                    await self.look()
                    await self.search()
                else:  # what another tells now
                    self._metrics.sampled(Measured(0, {}, {}))
                    self._metrics.oldest_deferred.set(0)
            except StoreUnavailable as error:
                log.warning("sample.waiting", reason=str(error))
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Take a sample of those who were contacted lately."""
        judge = self._judge()
        now, last = await self._store.contacted(_CONTACTS, PRESSURE)
        sample = chosen(last, _CONTACTS, _PERSONS, now)
        since = now - max(PRESSURE, judge.policy.longest_window)
        caps, contacts = [], []
        for start in range(0, len(sample.people), _SLICE):
            for one in await self._store.ledgers(sample.people[start : start + _SLICE], since):
                if number := pressed(one, now):  # what did not arrive may have been taken off meanwhile
                    caps.append(used(one, judge.policy, now, judge.span))
                    contacts.append(number)
        self._metrics.sampled(measured(caps, contacts, sample.covered))

    async def search(self) -> None:
        """Find the oldest message that is deferred, or go on to look for it in the next round."""
        for _ in range(_PAGES):
            age, self._after = await self._store.deferred(self._after, _ROWS)
            if age is not None or not self._after:
                self._metrics.oldest_deferred.set(age or 0)
                self._after = ""
                return
