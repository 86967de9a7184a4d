"""What comes of an answer that a person gives, and when the vendor is told that it has: a stop holds from then on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from gateway.fields import Phone
from gateway.store import StoreUnavailable
from gateway.web.people import run_out
from providers import Wish

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store
    from providers import Reply

log = structlog.get_logger()

_VENDORS_PATIENCE: Final = 14.0
"""Seconds from the callback on; Twilio gives up after 15 (https://www.twilio.com/docs/api/errors/11205)."""
_ON_THE_LINE: Final = 3.0
"""The same of who has pressed a key and listens: 47 CFR 64.1200(b)(3) has the call end at once."""

_PHONE: TypeAdapter[str] = TypeAdapter(Phone)


class Replies:
    """The answers of people."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        vendors_patience: float = _VENDORS_PATIENCE,
        on_the_line: float = _ON_THE_LINE,
    ) -> None:
        """Hear them.

        Args:
            judge: the one in force now.
            vendors_patience: seconds after which a vendor is answered, whatever is still under way.
            on_the_line: the same where a person listens.
        """
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._vendors_patience = vendors_patience
        self._on_the_line = on_the_line

    async def hear(self, reply: Reply, provider: str) -> None:
        """Commit what it changes: nothing, where it was heard before."""
        key, address = f"{provider}:{reply.reference}", _spelt(reply.address)
        new = True
        match reply.wish:
            case Wish.STOP:
                via = "keypress" if reply.on_the_line else "reply"
                if new := await self._store.hear_stop(key, address, via, self._judge(), reply.attempt):
                    self._metrics.optouts.labels(via).inc()
            case Wish.START:
                new = await self._store.hear_start(key, address)
            case Wish.HELP | None:
                pass  # the vendor's answer is all there is to it; what cannot be told is for people
        if new:
            self._metrics.replied(provider, reply.wish)

    async def settle(self, reply: Reply, provider: str, since: float) -> None:
        """Wait until nothing that was begun before a stop can be handed over any more, or its vendor waits no longer.

        Args:
            reply: that has been heard.
            provider: by which.
            since: when the callback came, by the loop's clock.
        """
        if reply.wish is not Wish.STOP:
            return
        span = self._judge().span.total_seconds()
        patience = self._on_the_line if reply.on_the_line else self._vendors_patience
        left = max(0.0, since + patience - asyncio.get_running_loop().time())
        if reply.on_the_line:
            settled = await self._idle(_spelt(reply.address), left)
        else:
            # Whoever decided before this was committed hands over until the deadline, and whose the number is, is not
            # known.
            await asyncio.sleep(min(span, left))
            settled = span <= left
        if not settled:
            log.warning("reply.answered_early", provider=provider, attempt_seconds=span, patience_seconds=patience)

    async def _idle(self, address: str, most: float) -> bool:
        """Whether what was under way to those who were contacted there is over, or it is soon enough."""
        try:
            return await run_out(lambda: self._store.open_intents_at(address), most)
        except StoreUnavailable:
            return False


def _spelt(address: str) -> str:
    """As profiles and requests have it."""
    try:
        return _PHONE.validate_python(address)
    except ValidationError:
        return address
