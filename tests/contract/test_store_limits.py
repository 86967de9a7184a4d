"""A store that does not answer, is locked or is full: nobody waits beyond the budget, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from gateway.store.engine import Fetch, Operation, Run, StoreFull, StoreUnavailable
from gateway.store.postgres import Postgres
from gateway.store.sqlite import SQLite
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.servers import PostgreSQL

BUDGET = 6.0
"""Seconds; from the fault matrix, F8."""


def make() -> Operation[None]:
    yield Run("create table if not exists rows (id text primary key, filling text)", [()])


def put(name: str, filling: str = "") -> Operation[None]:
    yield Run("insert into rows values ($1, $2)", [(name, filling)])


def names() -> Operation[list[str]]:
    return [row[0] for row in (yield Fetch("select id from rows order by id"))]


async def timed(call: Awaitable[Any]) -> tuple[float, object]:
    began = monotonic()
    try:
        answer = await call
    except Exception as error:  # noqa: BLE001 - the caller looks at it
        answer = error
    return monotonic() - began, answer


# ---------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture
async def server(own_postgres: PostgreSQL) -> AsyncIterator[tuple[PostgreSQL, Postgres]]:
    engine = Postgres(own_postgres.url, 2)
    await engine.open()
    await engine.write(make)
    yield own_postgres, engine
    own_postgres.resume()
    await engine.close()


async def test_no_call_waits_for_a_frozen_postgresql_longer_than_its_budget(
    server: tuple[PostgreSQL, Postgres],
) -> None:
    frozen, engine = server
    await asyncio.gather(*(engine.read(names) for _ in range(4)))  # so that all connections exist
    under_way = asyncio.create_task(timed(engine.write(_slow)))
    await wait_until(lambda: "pg_sleep" in frozen.sql("select query from pg_stat_activity where state = 'active'"))
    frozen.pause()
    calls = [timed(engine.write(lambda n=n: put(f"frozen {n}"))) for n in range(4)]
    calls += [timed(engine.read(names)) for _ in range(4)]
    for seconds, answer in [await under_way, *await asyncio.gather(*calls)]:
        assert isinstance(answer, StoreUnavailable)
        assert seconds < BUDGET
    seconds, answer = await timed(Postgres(frozen.url).open())
    assert isinstance(answer, StoreUnavailable)
    assert seconds < BUDGET
    frozen.resume()
    began = monotonic()
    while True:
        seconds, answer = await timed(engine.write(lambda: put(f"thawed {monotonic()}")))
        if answer is None:
            break
    assert monotonic() - began < 5
    seconds, _ = await timed(asyncio.gather(*(engine.read(names) for _ in range(8))))
    assert seconds < 5, "the whole pool is usable again"


async def test_a_call_that_is_given_up_while_postgresql_is_frozen_ends_at_once(
    server: tuple[PostgreSQL, Postgres],
) -> None:
    frozen, engine = server
    under_way = asyncio.create_task(engine.write(_slow))
    await wait_until(lambda: "pg_sleep" in frozen.sql("select query from pg_stat_activity where state = 'active'"))
    frozen.pause()
    began = monotonic()
    under_way.cancel()
    await asyncio.wait([under_way])
    assert monotonic() - began < 0.5
    seconds, _ = await timed(engine.close())
    assert seconds < BUDGET


async def test_a_full_disk_of_postgresql_is_told_apart(server: tuple[PostgreSQL, Postgres]) -> None:
    def full() -> Operation[None]:
        yield Run("do $$ begin raise exception 'as the server says' using errcode = 'disk_full'; end $$", [()])

    _, engine = server
    with pytest.raises(StoreFull) as told:
        await engine.write(full)
    assert "as the server says" not in str(told.value)
    await engine.write(lambda: put("room again"))
    assert await engine.read(names) == ["room again"]


async def test_what_is_urgent_waits_for_no_connection_that_others_have(server: tuple[PostgreSQL, Postgres]) -> None:
    database, engine = server
    others = [asyncio.create_task(engine.write(_slow)) for _ in range(4)]  # more than there are connections for
    busy = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"
    await wait_until(lambda: database.sql(busy).strip() == "2")
    await engine.write(lambda: put("code"), urgent=True)
    assert not any(other.done() for other in others)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert await engine.read(names) == ["code"]


async def test_an_operation_that_breaks_leaves_nothing_and_its_connection_goes_on(
    server: tuple[PostgreSQL, Postgres],
) -> None:
    def breaks() -> Operation[None]:
        yield from put("half")
        raise LookupError

    frozen, engine = server
    await engine.read(names)
    connections = "select pid from pg_stat_activity where application_name = 'decorum' order by pid"
    before = frozen.sql(connections)
    with pytest.raises(LookupError):
        await engine.write(breaks)
    assert await engine.read(names) == []
    assert frozen.sql(connections) == before


def _slow() -> Operation[None]:
    yield Fetch("select pg_sleep(60)")


# -------------------------------------------------------------------------------------------------------------- SQLite


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[tuple[Path, SQLite]]:
    engine = SQLite(tmp_path / "store.db", lambda: time.time_ns() // 1000)
    await engine.open()
    await engine.write(make)
    yield tmp_path / "store.db", engine
    await engine.close()


async def test_what_sqlite_has_no_room_for_fails_alone_and_nothing_of_it_is_kept(file: tuple[Path, SQLite]) -> None:
    def limit(pages: int) -> Callable[[], Operation[None]]:
        def change() -> Operation[None]:
            yield Fetch(f"pragma max_page_count = {pages}")

        return change

    _, engine = file
    await engine.write(limit(40))  # pages of 4 KiB
    large = "x" * 400_000
    answers = await asyncio.gather(
        engine.write(lambda: put("a")),
        engine.write(lambda: put("large", large)),
        engine.write(lambda: put("b")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [type(None), StoreFull, type(None)]
    assert await engine.read(names) == ["a", "b"]
    await engine.write(limit(4000))
    await engine.write(lambda: put("large", large))
    assert await engine.read(names) == ["a", "b", "large"]


async def test_a_file_that_another_program_has_locked_is_waited_for_no_longer_than_the_budget(
    file: tuple[Path, SQLite],
) -> None:
    path, engine = file
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        for seconds, answer in await asyncio.gather(*(timed(engine.write(lambda n=n: put(str(n)))) for n in range(3))):
            assert isinstance(answer, StoreUnavailable)
            assert "another program" in str(answer)
            assert seconds < BUDGET + 0.5
        assert await engine.read(names) == [], "reading goes on"
        other.execute("rollback")
    await engine.write(lambda: put("free"))
    assert await engine.read(names) == ["free"]


async def test_what_nobody_waits_for_any_more_is_not_done(file: tuple[Path, SQLite]) -> None:
    entered, held = threading.Event(), threading.Event()

    def hold() -> Operation[None]:
        entered.set()
        held.wait(10)
        yield from put("held")

    _, engine = file
    first = asyncio.create_task(engine.write(hold))
    await wait_until(entered.is_set)
    second = asyncio.create_task(engine.write(lambda: put("given up")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    held.set()
    await first
    assert await engine.read(names) == ["held"]


async def test_an_endless_question_is_cut_off_and_the_next_is_answered(file: tuple[Path, SQLite]) -> None:
    def endless() -> Operation[None]:
        yield Fetch("with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n")

    _, engine = file
    seconds, answer = await timed(engine.read(endless))
    assert isinstance(answer, StoreUnavailable)
    assert seconds < BUDGET + 0.5
    assert await engine.read(names) == []


async def test_a_commit_of_sqlite_is_on_the_disk_when_it_is_answered(file: tuple[Path, SQLite]) -> None:
    def pragmas() -> Operation[list[object]]:
        journal = yield Fetch("pragma journal_mode")
        synchronous = yield Fetch("pragma synchronous")
        return [journal[0][0], synchronous[0][0]]

    _, engine = file
    assert await engine.write(pragmas) == ["wal", 2], "2 is FULL: with NORMAL a power cut loses the last commits"
