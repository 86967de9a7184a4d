"""Who goes first in one process: what is large waits a moment while something critical is on its way."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = 0.1
"""Seconds that a transaction gives way at most, so that a stream of one-time codes holds up nobody for good."""
BREATH = 0.01
"""Seconds that what has begun gives way at most at a time: it may hold persons' locks."""


class Precedence:
    """What is critical goes at once; the rest gives way to it, each for a moment at most."""

    def __init__(self) -> None:
        self._critical = 0
        self._clear = asyncio.Event()
        self._clear.set()

    @contextmanager
    def critical(self) -> Iterator[None]:
        """While something critical is being decided or committed."""
        self._critical += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._critical -= 1
            if not self._critical:
                self._clear.set()

    async def give_way(self) -> None:
        """Before something large is begun: wait until nothing is, for a moment at most."""
        if self._critical:
            await self._until_clear(MOMENT)

    async def breathe(self, *, critical: bool = False) -> None:
        """In the middle of something large: let others have a turn of the event loop, and what is critical a few.

        ``critical``: whether it is so itself; then it gives way to none.
        """
        if self._critical and not critical:
            await self._until_clear(BREATH)
        else:
            await asyncio.sleep(0)

    async def _until_clear(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._clear.wait()
