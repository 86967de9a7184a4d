"""A database in memory, and the way to it: slow, away, standing still, or losing its answers, as it is told."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.store import StoreUnavailable
from gateway.store.migrate import migrate
from gateway.store.precedence import Precedence
from gateway.store.sqlite import SQLite

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from gateway.store.engine import Operation, T


def template(folder: Path) -> bytes:
    """A database with its tables, as bytes."""
    file = folder / "template.db"
    migrate(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma journal_mode = delete").fetchall()  # what is in memory has no second file
    return file.read_bytes()


def in_memory(tables: bytes) -> sqlite3.Connection:
    """A new database with the tables of a template."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(tables)
    for pragma in ("journal_mode = memory", "synchronous = off", "foreign_keys = off"):
        connection.execute(f"pragma {pragma}").fetchall()
    return connection


def create(tables: bytes) -> str:
    """A new database with these tables, for whoever has the URL that it answers."""
    url = f"{MEMORY}{len(_DATABASES)}"
    _DATABASES[url] = in_memory(tables)
    return url


def simulated(url: str, clock: Callable[[], int]) -> Line:
    """The way to such a database, in good weather."""
    engine = InMemory(_DATABASES[url], clock)
    return Line(engine, Weather(slowest=0), random.random, copy_context(), lambda: False, lambda: None)


MEMORY = "memory:"
_DATABASES: dict[str, sqlite3.Connection] = {}


class InMemory(SQLite):
    """An ``Engine`` whose transactions run where they are asked for, one after another."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], int]) -> None:
        super().__init__(Path(":memory:"), clock)
        self._connection = connection

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, operation: Callable[[], Operation[T]], *, urgent: bool = False) -> T:
        return self.run(operation)

    async def read(self, operation: Callable[[], Operation[T]]) -> T:
        return self.run(operation, "rollback")

    def run(self, operation: Callable[[], Operation[T]], end: str = "commit") -> T:
        """One transaction; it is rolled back where it breaks."""
        connection = self._connection
        connection.execute("begin immediate")
        try:
            answer = self._drive(connection, operation())
            connection.execute(end)
        except BaseException as error:
            connection.execute("rollback")
            if isinstance(error, sqlite3.OperationalError):
                raise StoreUnavailable(f"SQLite: {error}") from error
            raise
        return answer


@dataclass
class Weather:
    """How it stands with the way to the database."""

    away: bool = False
    """Nobody answers there."""
    frozen: bool = False
    """Whoever asks waits; it goes on with all of them, in their order, when it thaws."""
    asks_lost: float = 0.0
    """Of the transactions: the connection breaks before the commit."""
    answers_lost: float = 0.0
    """The same, behind the commit."""
    slowest: float = 0.02
    """Seconds on the way, each way."""
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def thaw(self) -> None:
        self.frozen = False
        waiting, self.waiting = self.waiting, []
        for execute in waiting:
            execute()


class Line:
    """An ``Engine``: one process's way to the database."""

    BUDGET = 2.0
    """Seconds that a caller waits for an answer."""

    def __init__(
        self,
        engine: InMemory,
        weather: Weather,
        chance: Callable[[], float],
        outside: Context,
        dead: Callable[[], bool],
        saw: Callable[[], None],
    ) -> None:
        """Take what it needs.

        Args:
            engine: the database.
            weather: all processes' ways are alike.
            chance: between 0 and 1.
            outside: where the database lives: it does not sleep and die with who asks.
            dead: whether the process is.
            saw: is called behind each transaction.
        """
        self._engine = engine
        self.precedence = Precedence()  # each process has a loop of its own
        self._weather = weather
        self._chance = chance
        self._outside = outside
        self._dead = dead
        self._saw = saw

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def write(self, operation: Callable[[], Operation[T]], *, urgent: bool = False) -> Coroutine[Any, Any, T]:
        return self._ask(lambda: self._engine.run(operation))

    def read(self, operation: Callable[[], Operation[T]]) -> Coroutine[Any, Any, T]:
        return self._ask(lambda: self._engine.run(operation, "rollback"))

    async def _ask(self, transaction: Callable[[], T]) -> T:
        if self._dead():
            raise asyncio.CancelledError
        loop, weather = asyncio.get_running_loop(), self._weather
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            if weather.away or self._chance() < weather.asks_lost or (self._dead() and self._chance() < 0.5):
                back(StoreUnavailable("the connection broke"))
            elif weather.frozen:
                weather.waiting.append(execute)
            else:
                execute()

        def execute() -> None:
            try:
                result = transaction()
            except Exception as error:  # noqa: BLE001 - it is whose it was
                back(error)
                return
            self._saw()
            back(StoreUnavailable("the answer was lost") if self._chance() < weather.answers_lost else None, result)

        def back(error: Exception | None, result: Any = None) -> None:
            loop.call_later(self._chance() * weather.slowest, settle, error, result, context=self._outside)

        def settle(error: Exception | None, result: T) -> None:
            if answer.done():
                return
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        loop.call_later(self._chance() * weather.slowest, arrive, context=self._outside)
        try:
            async with asyncio.timeout(self.BUDGET):
                return await answer
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {self.BUDGET} s") from None
