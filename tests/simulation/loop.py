"""An event loop whose time jumps to the next timer, and in which whole processes can be put to sleep or die.

A library that only makes time jump would not do: a process is killed at a certain callback, or stands still while the
others go on, as under SIGSTOP. So every callback knows whose it is.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

RUNNING: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process that this code belongs to; None: the world outside, which neither sleeps nor dies."""
_ENDLESS = 5_000_000
"""Callbacks after which a run is given up as one that never ends."""


class Crashed(Exception):
    """The process died before it answered."""


class Process:
    """What sleeps and dies as one: everything that was set going in its context."""

    def __init__(self, loop: Loop, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.steps = 0
        """Callbacks that were run so far."""
        self.dies_at: int | None = None
        """Of those, the one after which it dies."""
        self.held: list[Handle] = []
        self.died: Callable[[], None] = lambda: None
        """Is told."""
        self._loop = loop
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._context = copy_context()
        self._context.run(RUNNING.set, self)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something as this process."""
        return self._loop.create_task(work, context=self._context.copy())

    def own(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda _: self._tasks.pop(task, None))
        if not self.alive:
            task.cancel()

    def pause(self) -> None:
        """Stop it as SIGSTOP does: what is due meanwhile comes all at once when it goes on."""
        self.paused = self.alive

    def resume(self) -> None:
        self.paused = False
        held, self.held = self.held, []
        self._loop.ready.extend(held)

    def kill(self) -> None:
        """End it. What it has under way ends at its ``await``; whatever it still does there has no effect outside."""
        if not self.alive:
            return
        self.alive = False
        self.resume()
        for task in list(self._tasks):
            task.cancel()
        self.died()


class Handle:
    """A callback that waits for its turn or its time."""

    __slots__ = ("args", "callback", "context", "dropped", "process", "when")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when = when
        self.dropped = False
        self.process: Process | None = context.get(RUNNING)

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class Loop(asyncio.AbstractEventLoop):
    """One thread, no sockets, no real time."""

    def __init__(self) -> None:
        self.ready: deque[Handle] = deque()
        self.broken: list[dict[str, Any]] = []
        """What nobody caught."""
        self._timers: list[tuple[float, int, Handle]] = []
        self._now = 0.0
        self._count = 0
        self._stopping = False
        self._closed = False

    # ------------------------------------------------------------------------------------------ what asyncio asks of it

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, context or copy_context(), self._now)
        self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context or copy_context(), when)
        self._count += 1  # of equals the first goes first
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:  # type: ignore[override]
        context = context or copy_context()
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        if process := context.get(RUNNING):
            process.own(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._closed = True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.broken.append(context)

    async def shutdown_asyncgens(self) -> None: ...

    async def shutdown_default_executor(self) -> None: ...

    # ------------------------------------------------------------------------------------------------------ running it

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end, with all that it sets going."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            main = self.create_task(work)
            for _ in range(_ENDLESS):
                if main.done():
                    return main.result()
                self._step()
            raise RuntimeError(f"{_ENDLESS} callbacks and no end, at {self._now}")
        finally:
            asyncio._set_running_loop(before)

    def _step(self) -> None:
        if not self.ready:
            self._jump()
        handle = self.ready.popleft()
        process = handle.process
        if handle.dropped:
            return
        if process and process.paused:
            process.held.append(handle)
            return
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does: it is told, and the others go on
            self.call_exception_handler({"message": f"{handle.callback}", "exception": error})
        if process:
            process.steps += 1
            if process.steps == process.dies_at:
                process.kill()

    def _jump(self) -> None:
        """Let it be the time of the next timer."""
        while self._timers and self._timers[0][2].dropped:
            heapq.heappop(self._timers)
        if not self._timers:
            raise RuntimeError("nothing will ever happen again")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            self.ready.append(heapq.heappop(self._timers)[2])
