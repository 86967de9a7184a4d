"""Who goes first in one process: large transactions wait a moment while something critical is being committed."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = 0.1
"""Seconds that a transaction gives way at most, so that a stream of one-time codes holds up nobody for good."""


class Precedence:
    """What is critical goes at once; the rest gives way to it, each for a moment at most."""

    def __init__(self) -> None:
        self._critical = 0
        self._clear = asyncio.Event()
        self._clear.set()

    @contextmanager
    def critical(self) -> Iterator[None]:
        """While something critical is being committed."""
        self._critical += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._critical -= 1
            if not self._critical:
                self._clear.set()

    async def give_way(self) -> None:
        """Wait until nothing is, for a moment at most."""
        if self._critical:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOMENT):
                    await self._clear.wait()
