"""What a contender is told, and what it reports."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


_SETTLING = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """Consume ``messages`` from ``queue``, doing with each what the contender is there for."""

    broker: str
    queue: str
    messages: int
    prefetch: int
    vendor: str
    postgres: str
    redis: str


@dataclass(frozen=True, slots=True)
class Report:
    """From the first delivery to the last acknowledgement."""

    seconds: float
    cpu: float
    """Seconds of this process."""
    rss: float
    """MB, at the end."""


class Tally:
    """Counts messages, from the first to the last."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._begun = 0
        self._done = 0
        self._from = (0.0, 0.0)
        self._to = (0.0, 0.0)
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """A message was delivered."""
        if not self._begun:
            self._from = (time.perf_counter(), time.process_time())
        self._begun += 1

    def end(self) -> None:
        """It is done with."""
        self._done += 1
        if self._done == self._messages:
            self._to = (time.perf_counter(), time.process_time())
            self._all.set_result(None)

    def fail(self, error: Exception) -> None:
        """It could not be done: neither can the task."""
        if not self._all.done():
            self._all.set_exception(error)

    async def report(self) -> Report:
        """Once all are done."""
        await self._all
        # A quorum queue that is behind holds acknowledgements back, and forgets them if their channel closes then.
        await asyncio.sleep(_SETTLING)
        rss = psutil.Process().memory_info().rss / (1 << 20)
        return Report(self._to[0] - self._from[0], self._to[1] - self._from[1], rss)


def main(contender: Callable[[Task], Coroutine[Any, Any, Report]]) -> None:
    """Do the task in the first argument, and print the report."""
    task = Task(**orjson.loads(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(contender(task))
    print(orjson.dumps(asdict(report)).decode())
