"""SQLite: killed in the middle of commits, on a full disk, locked by another: nothing is lost, and it goes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sqlite3
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.store.migrate import migrate
from tests.faults import committer, records
from tests.faults.load import by_http
from tests.faults.rows import FULL
from tests.faults.small_disk import SmallDisk
from tests.faults.world import ENVIRONMENT, ROOT, Gateway, World, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

KILLS = 5
"""For each fault that the row counts: they cost little."""
LONGEST = 9.0
"""Seconds that a call may take: the 6 s of the store, and what a busy machine adds."""
LOCKED = 10.0 if FULL else 6.5
"""Seconds that another program holds the file: longer than the gateway waits for it."""


@pytest.mark.row("F11")
async def test_a_commit_that_is_cut_off_was_made_or_was_not(tmp_path: Path, count: int, tally: Tally) -> None:
    file, kept = tmp_path / "store.db", tmp_path / "kept"
    url, drawn = f"{records.SQLITE}{file}", random.Random(11)
    kept.touch()
    await asyncio.to_thread(migrate, url)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([committer.__name__])
    for _ in range(count * KILLS):
        before = kept.stat().st_size
        process = forks.Process(target=committer.work, args=(url, str(kept)), daemon=True)
        process.start()
        try:
            await wait_until(lambda before=before: kept.stat().st_size > before, 30, "it commits")
            await asyncio.sleep(drawn.uniform(0, 0.1))
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
        began = time.monotonic()
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
            there = {id_ for (id_,) in database.execute("select id from requests")}
            torn = database.execute("select count(*) from requests where message not in (select id from messages)")
            assert torn.fetchone() == (0,)
        told = set(kept.read_bytes().decode().split("\n")[:-1])
        tally.fault(recovery=time.monotonic() - began)
        tally.messages, tally.lost = len(told), len(told - there)
        assert told <= there


@pytest.mark.row("F11")
async def test_a_full_disk_is_told_before_anything_is_accepted(tmp_path: Path, count: int, tally: Tally) -> None:
    disk = SmallDisk(tmp_path / "disk")
    async with world(tmp_path, store=f"{records.SQLITE}{tmp_path}/disk/store.db", start=False) as here:
        gateway = here.gateways[0]
        gateway.child = disk.spawn(_serve(gateway), gateway.log, ENVIRONMENT, ROOT)
        await gateway.ready()
        assert await here.post(here.requests(50)) == [202] * 50
        for _ in range(max(1, count // 20)):
            disk.fill()
            refused: list[int] = []

            async def full(refused: list[int] = refused) -> bool:
                """Until there is not even room where something was before."""
                answers = await here.post(here.requests(20))
                refused += [answer for answer in answers if answer != 202]
                return 202 not in answers

            await wait_until(full, 30, "nothing more is accepted")
            assert {*refused} <= {429, 503}, refused
            began = time.monotonic()
            disk.free()
            await wait_until(lambda: _accepted(here), 30, "it accepts again, by itself")
            tally.fault(recovery=time.monotonic() - began)
        assert gateway.running
        here.store = f"{records.SQLITE}{tmp_path}/store.db"

        async def settled() -> bool:
            disk.copy("store.db", tmp_path)
            due, intents = await records.fetch(
                here.store, "select 1 from due", "select 1 from attempts where state = 'intent'"
            )
            return not (due or intents)

        await wait_until(settled, 60, "all is settled")
        tally.judge(await here.verdict())
        with closing(sqlite3.connect(tmp_path / "store.db")) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.mark.row("F11")
async def test_a_file_that_another_holds_is_waited_for(tmp_path: Path, count: int, tally: Tally) -> None:
    async with world(tmp_path) as here:
        gateway = here.gateways[0]
        for _ in range(max(1, count // 20)):
            async with by_http(here, 20) as load:
                await load.passed(20)
                document = {**gateway.document, "http": {**gateway.document["http"]}}
                second = Gateway(tmp_path / "second.yaml", tmp_path / "second.log", document).start()
                with closing(
                    sqlite3.connect(here.store.removeprefix(records.SQLITE), isolation_level=None)
                ) as database:
                    database.execute("begin immediate")
                    began = time.monotonic()
                    assert "database is locked" not in await _said(here)
                    assert second.child
                    assert await asyncio.to_thread(second.child.wait, 30) == 1
                    assert "in use by another process" in second.log.read_text()
                    await asyncio.sleep(max(0.0, began + LOCKED - time.monotonic()))
                    database.execute("rollback")
                began = time.monotonic()
                await load.through(30)
                tally.fault(recovery=time.monotonic() - began)
            assert load.slowest <= LONGEST, f"a call took {load.slowest:.1f} s"
        await here.settled(60)
        tally.judge(await here.verdict())


def _serve(gateway: Gateway) -> list[str]:
    return [sys.executable, "-m", "gateway", "serve", "--config", str(gateway.config)]


async def _accepted(here: World) -> bool:
    return await here.post(here.requests(1)) == [202]


async def _said(here: World) -> str:
    """The answer to a request that cannot be committed."""
    (request,) = here.requests(1)
    here.attempted[request.id] = request  # it may be committed after all, for the file is free again soon
    body = {name: value for name, value in request.body.items() if name != "source"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{here.gateways[0].url}/v1/messages", json=body) as response,
    ):
        assert response.status == 503
        return await response.text()
