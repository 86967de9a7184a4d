"""How code that is written for one message pays for a transaction only once in a hundred."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.intake import Overloaded
from gateway.store import StoreUnavailable
from gateway.store.engine import TURN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

_GATHER = 0.005
"""Seconds that calls gather under load."""
_SOON = 1.0
"""Seconds after which a call that was not taken may be made again."""


class Batcher(Generic[T, R]):
    """Gathers concurrent calls of one store step into one transaction.

    A call that comes alone goes at the end of this turn of the event loop. When calls come thick, which the last batch
    tells, they gather for a moment: a transaction costs much the same for ten as for a hundred.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        most: int = 96,
        lanes: int = 2,
        room: int | None = None,
        urgent: Callable[[T], bool] | None = None,
        breathe: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """At most ``lanes`` batches of at most ``most`` calls are under way at once.

        ``room``: how many calls may wait for one; None: those who call are bounded in number themselves.
        ``urgent``: whether a call goes in a lane of its kind alone, so that it never waits for large batches.
        ``breathe``: lets others go first, where a large batch has been answered in part. None: for a turn of the loop.
        """
        self._run = run
        self._is_urgent = urgent
        self._urgent: Batcher[T, R] | None = Batcher(run, most=most, lanes=1, room=room) if urgent else None
        self._breathe = breathe or partial(asyncio.sleep, 0)
        self._most = most
        self._free = lanes
        self._room = room
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._last = 0

    def __call__(self, item: T) -> asyncio.Future[R]:
        """The answer to this one.

        Raises:
            Overloaded: too many wait, for the store is slower than they come.
        """
        if self._urgent and self._is_urgent and self._is_urgent(item):
            return self._urgent(item)
        if self._room is not None and len(self._waiting) >= self._room:
            raise Overloaded("the store is slow", _SOON)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._free:
            if len(self._waiting) >= self._most:
                self._start()
            elif self._timer is None:
                self._timer = loop.call_later(_GATHER, self._start) if self._last > 1 else loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._free and self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            self._last = len(batch)
            self._free -= 1
            flight = asyncio.get_running_loop().create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    async def _fly(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            await self._answer(batch, await self._run([item for item, _ in batch]))
        except StoreUnavailable as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - it belongs to its caller, and to no other of the batch
            if len(batch) == 1:
                if not batch[0][1].done():
                    batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._free -= 1
                    await self._fly([one])
        finally:
            self._free += 1
            if self._waiting and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_GATHER, self._start)

    async def _answer(self, batch: Sequence[tuple[T, asyncio.Future[R]]], answers: Sequence[R]) -> None:
        """Let all go on, but not all in one turn of the loop."""
        for number, ((_, future), answer) in enumerate(zip(batch, answers, strict=True), 1):
            if not future.done():
                future.set_result(answer)
            if number % TURN == 0:
                await self._breathe()
