"""PostgreSQL: a pool of connections; nothing waits for it longer than its budget."""

from __future__ import annotations

import asyncio
import functools
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.store.engine import (
    Breath,
    Fetch,
    Now,
    Operation,
    Run,
    StoreFull,
    StoreNotOpen,
    StoreUnavailable,
    T,
    place_of,
)
from gateway.store.precedence import Precedence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CLOCK = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"
_BUDGET = 5.0
"""Seconds for one transaction, its connection and all its repetitions. asyncpg's own time-outs add up, so this one is
outside."""
_STATEMENT = 4.5
"""Seconds after which the server itself ends a statement, so that the connection can go on."""
_URGENT = 3
"""Connections kept for what is urgent: one each for what is being accepted, claimed and settled at a time."""
_DEADLOCKS = 5
_WORTH_COPYING = 16
"""Rows from which on a copy, which takes a round trip more, is cheaper than an insert."""


class Postgres:
    """An ``Engine`` on a server that many workers may share."""

    def __init__(self, url: str, connections: int = 6, clock: Callable[[], int] | None = None) -> None:
        """``clock`` replaces the server's, for tests that travel in time."""
        self._url = url
        self._connections = connections
        self._clock = clock
        self.precedence = Precedence()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._urgent: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect once, so that a wrong address or password is said now."""
        self._pool = await self._opened(1, self._connections)
        self._urgent = await self._opened(0, _URGENT)

    async def _opened(self, least: int, most: int) -> asyncpg.Pool[asyncpg.Record]:
        try:
            async with asyncio.timeout(_BUDGET):
                return await asyncpg.create_pool(
                    self._url,
                    min_size=least,
                    max_size=most,
                    timeout=_BUDGET,
                    max_inactive_connection_lifetime=0,
                    reset=_keep,
                    server_settings={
                        "application_name": "decorum",
                        "statement_timeout": str(int(_STATEMENT * 1000)),
                        "idle_in_transaction_session_timeout": str(int(_BUDGET * 2000)),
                        # Plans are kept, and those made while a table is empty would read all of it for ever after.
                        "enable_seqscan": "off",
                        "jit": "off",  # compiling costs more than any statement here takes
                    },
                )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise StoreUnavailable(f"{place_of(self._url)}: {_reason(error)}") from error

    async def close(self) -> None:
        """Give back the connections; those that do not answer are cut."""
        pools = [pool for pool in (self._pool, self._urgent) if pool]
        try:
            async with asyncio.timeout(_BUDGET):
                for pool in pools:
                    await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            for pool in pools:
                pool.terminate()

    async def write(self, operation: Callable[[], Operation[T]], *, urgent: bool = False) -> T:
        """Run in a transaction; again from the start where PostgreSQL asks for that."""
        return await self._run(operation, "begin", self._urgent if urgent else self._pool)

    async def read(self, operation: Callable[[], Operation[T]]) -> T:
        """Run in a transaction that may not write."""
        return await self._run(operation, "begin read only", self._pool)

    async def _run(
        self, operation: Callable[[], Operation[T]], begin: str, pool: asyncpg.Pool[asyncpg.Record] | None
    ) -> T:
        if pool is None:
            raise StoreNotOpen("the store is not open yet")
        try:
            async with asyncio.timeout(_BUDGET):
                for _ in range(_DEADLOCKS):
                    with suppress(asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                        return await self._once(pool, operation(), begin)
        except asyncpg.DiskFullError as error:
            raise StoreFull(f"{place_of(self._url)}: its disk is full") from error
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresConnectionError,
            asyncpg.InterfaceError,
            asyncpg.OperatorInterventionError,
            asyncpg.InsufficientResourcesError,
            asyncpg.InvalidTransactionStateError,  # as from a standby, which is read-only
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidCatalogNameError,
            asyncpg.PostgresSystemError,
            asyncpg.InternalClientError,  # what it says of a connection that was lost in the middle of a copy
        ) as error:
            raise StoreUnavailable(f"{place_of(self._url)}: {_reason(error)}") from error
        raise StoreUnavailable(f"{place_of(self._url)}: rolled back {_DEADLOCKS} times, since others were in the way")

    async def _once(self, pool: asyncpg.Pool[asyncpg.Record], operation: Operation[T], begin: str) -> T:
        """One transaction. asyncpg's own would wait, when it is cut off, for a server that may not answer any more."""
        connection = await pool.acquire()
        clean = False
        try:
            await connection.execute(begin)
            try:
                answer = await self._drive(connection, operation, urgent=pool is self._urgent)
            except Exception:
                if not connection.is_closed():
                    await connection.execute("rollback")
                    clean = True
                raise
            await connection.execute("commit")
            clean = True
        finally:
            if clean:
                await pool.release(connection, timeout=1)
            else:
                with suppress(asyncpg.InterfaceError):  # of one that has ended, and is back in the pool
                    connection.terminate()
        return answer

    async def _drive(self, connection: Any, operation: Operation[T], *, urgent: bool) -> T:
        answer: Any = None
        try:
            while True:
                match operation.send(answer):
                    case Fetch(sql, values):
                        answer = await connection.fetch(sql, *values)
                    case Run(sql, rows):
                        if len(rows) >= _WORTH_COPYING and (copied := _plain_insert(sql)):
                            table, columns = copied
                            await connection.copy_records_to_table(table, records=rows, columns=columns)
                        elif rows:
                            await connection.execute(*_at_once(sql, rows))
                        answer = None
                    case Breath():
                        await self.precedence.breathe(critical=urgent)
                        answer = None
                    case Now():
                        answer = self._clock() if self._clock else await connection.fetchval(_CLOCK)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()


async def _keep(_: object) -> None:
    """Nothing of a session is ever set, so a connection goes back as it is: one round trip less a transaction."""


def _at_once(sql: str, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A statement for one row of parameters, as one for all of them: planned, sent and run once.

    ``insert … values ($1, …)`` becomes ``insert … select v.c1, … from unnest(…)``; an update or delete joins the same.
    """
    columns = list(zip(*rows, strict=True))
    types = tuple(map(_type, columns))
    given = [list(column) for column, kind in zip(columns, types, strict=True) if kind]
    return (_joined(sql, types), *given)


@functools.cache
def _plain_insert(sql: str) -> tuple[str, list[str]] | None:
    """Table and columns of an insert of nothing but parameters, in their order: PostgreSQL copies those faster."""
    found = re.fullmatch(r"insert into (\w+) \(([^()]*)\) values \(([^()]*)\)", sql)
    if found is None:
        return None
    columns = found[2].replace(",", " ").split()
    given = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return (found[1], columns) if found[3] == given else None


def _type(column: Sequence[Any]) -> str | None:
    """Of an array that holds the column; None where there is nothing in it."""
    value = next((value for value in column if value is not None), None)
    return None if value is None else "bigint[]" if isinstance(value, int) else "text[]"


@functools.cache
def _joined(sql: str, types: tuple[str | None, ...]) -> str:
    given = [(number, kind) for number, kind in enumerate(types, 1) if kind]
    source = f"unnest({', '.join(f'${place}::{kind}' for place, (_, kind) in enumerate(given, 1))})"
    source += f" as v({', '.join(f'c{number}' for number, _ in given)})"
    for number, kind in enumerate(types, 1):
        if kind is None:
            sql = re.sub(rf"\${number}\b", "null", sql)
    sql = re.sub(r"\$(\d+)", r"v.c\1", sql)
    if sql.startswith("insert"):
        return re.sub(r" values \((.*?)\)(?= on conflict|$)", rf" select \1 from {source}", sql)
    keyword = "from" if sql.startswith("update") else "using"
    return sql.replace(" where ", f" {keyword} {source} where ", 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
