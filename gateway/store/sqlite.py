"""SQLite: one writer thread that commits whatever is waiting together, and one reader."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import re
import sqlite3
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

import orjson

from gateway.store.engine import Breath, Fetch, Now, Operation, Run, StoreFull, StoreNotOpen, StoreUnavailable, T
from gateway.store.precedence import Precedence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_BUSY = 5.0
"""Seconds that a program which has the file locked, such as one that copies it, is waited for."""
_BUDGET = 6.0
"""Seconds that a caller waits for its commit, or for what it reads."""


_Call = tuple["Callable[[], Operation[Any]]", "asyncio.Future[Any]"]
_Answered = tuple["asyncio.Future[Any]", Any, Exception | None]


class SQLite:
    """An ``Engine`` on one file, held by one process."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        """``clock`` answers in microseconds since 1970."""
        self._path = path
        self._clock = clock
        self.precedence = Precedence()
        self._waiting: deque[_Call] = deque()
        self._wake = threading.Semaphore(0)
        self._writer: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")
        self._read_connection: sqlite3.Connection | None = None
        self._lock: IO[str] | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Take the lock file and start the threads."""
        self._loop = asyncio.get_running_loop()
        self._lock = lock(self._path)
        try:
            connection = _connect(self._path)
            self._read_connection = _connect(self._path)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite cannot open {self._path}: {error}") from error
        self._writer = threading.Thread(target=self._write_all, args=(connection,), name="sqlite-writer", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """Commit what is waiting, then close the file."""
        self._closing = True
        self._wake.release()
        if self._writer:
            await asyncio.to_thread(self._writer.join, 2 * _BUDGET)  # a disk that hangs is not waited for
        connection, self._read_connection = self._read_connection, None
        if connection:
            connection.interrupt()
        self._reader.shutdown(cancel_futures=True)
        if connection:
            connection.close()
        if self._lock:
            self._lock.close()

    async def write(self, operation: Callable[[], Operation[T]], *, urgent: bool = False) -> T:
        """Queue for the next commit; what is urgent comes first in it."""
        if self._loop is None:
            raise StoreNotOpen("the store is not open yet")
        if self._closing:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        (self._waiting.appendleft if urgent else self._waiting.append)((operation, future))
        self._wake.release()
        try:
            async with asyncio.timeout(_BUDGET):
                return await future
        except TimeoutError:
            raise StoreUnavailable(f"SQLite has not committed within {_BUDGET:.0f} s") from None

    async def read(self, operation: Callable[[], Operation[T]]) -> T:
        """Read the last committed state."""
        if self._loop is None:
            raise StoreNotOpen("the store is not open yet")
        if self._closing:
            raise StoreUnavailable("the store is closed")
        reading = self._loop.run_in_executor(self._reader, self._read, operation)
        try:
            async with asyncio.timeout(_BUDGET):
                return await reading
        except TimeoutError:
            if self._read_connection:
                self._read_connection.interrupt()  # whatever takes so long, the others wait behind it
            raise StoreUnavailable(f"SQLite has not answered within {_BUDGET:.0f} s") from None

    def _read(self, operation: Callable[[], Operation[T]]) -> T:
        connection = self._read_connection
        if connection is None:
            raise StoreUnavailable("the store is closed")
        connection.execute("begin")
        try:
            return self._drive(connection, operation())
        except sqlite3.Error as error:
            raise _told(error) from error
        finally:
            connection.execute("rollback")

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Until closed: take all that is waiting, run each in a savepoint, commit once, answer all."""
        with contextlib.closing(connection):
            while True:
                self._wake.acquire()
                batch: list[_Call] = []
                while self._waiting and len(batch) < 64:  # noqa: PLR2004 - bounds how long the first of them waits
                    operation, future = self._waiting.popleft()
                    if not future.done():  # otherwise nobody waits for it any more
                        batch.append((operation, future))
                if batch:
                    self._commit(connection, batch)
                elif self._closing:
                    return

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Call]) -> None:
        """All that is waiting, in one transaction. Where there is no room for all, each has one of its own."""
        answers: list[_Answered] = []
        try:
            connection.execute("begin immediate")
            for operation, future in batch:
                connection.execute("savepoint operation")
                try:
                    answers.append((future, self._drive(connection, operation()), None))
                except Exception as error:
                    if isinstance(error, sqlite3.Error) and not connection.in_transaction:
                        raise  # some end the whole transaction
                    connection.execute("rollback to operation")
                    told = _told(error) if isinstance(error, sqlite3.OperationalError) else error
                    answers.append((future, None, told))
                connection.execute("release operation")
            connection.execute("commit")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("rollback")
            reason = _told(error)
            if isinstance(reason, StoreFull) and len(batch) > 1:
                for call in batch:
                    self._commit(connection, [call])
                return
            answers = [(future, None, reason) for _, future in batch]
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        self._loop.call_soon_threadsafe(_answer, answers)

    def _drive(self, connection: sqlite3.Connection, operation: Operation[T]) -> T:
        answer: Any = None
        try:
            while True:
                match operation.send(answer):
                    case Fetch(sql, values):
                        answer = connection.execute(_translated(sql), [_bound(value) for value in values]).fetchall()
                    case Run(sql, rows):
                        connection.executemany(_translated(sql), rows)
                        answer = None
                    case Breath():
                        answer = None
                    case Now():
                        answer = self._clock()
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()


def lock(path: Path) -> IO[str]:
    """Hold the database for this process, until the file that is returned is closed.

    Raises:
        StoreUnavailable: another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreUnavailable(
            f"{path} is in use by another process: stop that one, or use PostgreSQL for several"
        ) from None
    return file


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = off", "cache_size = -65536"):
        connection.execute(f"pragma {pragma}").fetchall()
    return connection


def _told(error: sqlite3.Error) -> StoreUnavailable:
    """What an error of SQLite's is for the caller."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest tells variants apart
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("SQLite: its disk is full")
    if code == sqlite3.SQLITE_BUSY:
        return StoreUnavailable(f"SQLite: another program has had the file locked for {_BUSY:.0f} s: end it")
    return StoreUnavailable(f"SQLite: {error}")


def _answer(answers: list[_Answered]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)


@functools.cache
def _translated(sql: str) -> str:
    """SQLite's form of a statement; its writer is alone, so rows need no locks.

    Fields of JSON are asked for by a function, since ``->>`` needs a SQLite of 2022 or later.
    """
    sql = re.sub(r"([\w.]+)::json((?: -> '\w+')*) ->> '(\w+)'", _field, sql)
    sql = re.sub(r"= any\(\$(\d+)\)", r"in (select value from json_each(?\1))", sql)
    sql = re.sub(r"\$(\d+)", r"?\1", sql)
    return re.sub(r"\bfor update( of \w+)?( skip locked)?", "", sql)


def _field(written: re.Match[str]) -> str:
    column, way, last = written.groups()
    path = ".".join([*re.findall(r"'(\w+)'", way), last])
    return f"json_extract({column}, '$.{path}')"


def _bound(value: object) -> object:
    return orjson.dumps(value).decode() if isinstance(value, list) else value
