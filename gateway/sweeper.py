"""Sees to it that nothing stays open: asks vendors what became of attempts, and closes what nobody will ever know."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import structlog

from gateway.store import StoreUnavailable
from providers import LooksUp, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store
    from providers import Provider, Receipt

log = structlog.get_logger()

JOB = "closing"
_TERM = timedelta(seconds=60)
"""Until another worker may go on with it: longer than a page takes, its look-ups included."""
_PAGE = 200
"""Attempts looked at in one transaction, and in one second at most."""
_EVERY = 5.0
_OVERDUE_EVERY = 120
"""Rounds between two looks for messages that nobody works on: ten minutes."""
_ABREAST = 10
"""Look-ups under way at once: messages that are due go first."""
_ENOUGH = 5
"""Look-ups of a provider that fail before it is left alone until the next page."""
_PATIENCE = 15.0
"""Seconds that one look-up may take, whatever the provider makes of it."""


class Sweeper:
    """One worker does it for all."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        providers: Mapping[str, Provider],
        worker: str,
        metrics: Metrics,
        recorded: Callable[[], None],
    ) -> None:
        """Take what it needs.

        Args:
            store: knows what is open.
            judge: the one in force at the moment.
            providers: by name; some can be asked.
            worker: the name by which this process takes jobs.
            metrics: counts what is asked and closed.
            recorded: is called when there may be events.
        """
        self._store = store
        self._judge = judge
        self._providers = providers
        self._worker = worker
        self._metrics = metrics
        self._recorded = recorded

    async def run(self) -> NoReturn:
        """Make a round every few seconds."""
        number = 0
        while True:
            try:
                while await self._store.take_job(JOB, self._worker, _TERM):
                    full = await self.page()
                    if not full:
                        if number % _OVERDUE_EVERY == 0:
                            await self.overdue()
                        break
                    await asyncio.sleep(1)
            except StoreUnavailable as error:
                log.warning("closing.waiting", reason=str(error))
            number += 1
            await asyncio.sleep(_EVERY)

    async def page(self) -> bool:
        """Look at those whose time has come; whether there may be more."""
        judge = self._judge()
        swept = await self._store.look(judge, _PAGE)
        if swept.closed:
            self._metrics.closed.labels("unknown").inc(swept.closed)
            log.warning("messages.closed", state="unknown", messages=swept.closed)
        if receipts := await self._asked(swept.ask):
            await self._store.receipt(receipts, judge)
        if swept.seen:
            self._recorded()
        return swept.seen == _PAGE

    async def overdue(self) -> None:
        """Close what has long expired and what nobody works on."""
        if ended := await self._store.overdue(self._judge(), _PAGE):
            self._metrics.closed.labels("expired").inc(ended)
            log.error("messages.overdue", messages=ended)
            self._recorded()

    async def _asked(self, wanted: Sequence[tuple[str, str]]) -> list[Receipt]:
        """What vendors say became of attempts; nothing of those that they do not tell of."""
        abreast = asyncio.Semaphore(_ABREAST)
        failed: Counter[str] = Counter()

        async def one(attempt: str, name: str) -> Receipt | None:
            provider = self._providers.get(name)
            if not isinstance(provider, LooksUp):
                return None
            async with abreast:
                if failed[name] >= _ENOUGH:
                    return None
                try:
                    async with asyncio.timeout(_PATIENCE):
                        found = await provider.look_up(attempt)
                except (ProviderError, TimeoutError) as error:
                    failed[name] += 1
                    self._metrics.looked_up(name, "failed")
                    code = error.code if isinstance(error, ProviderError) else "timeout"
                    log.warning("look_up.failed", provider=name, attempt=attempt, error=code)
                    return None
            self._metrics.looked_up(name, found.status if found else "nothing")
            return found

        answers = await asyncio.gather(*(one(attempt, name) for attempt, name in wanted))
        return [answer for answer in answers if answer]
