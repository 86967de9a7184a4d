"""The database dies and freezes: what was acknowledged is kept, nobody hangs, and it goes on by itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.faults.load import by_http
from tests.faults.rows import FULL
from tests.faults.world import world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.servers import PostgreSQL

RATE = 300 if FULL else 150
"""Requests a second, each of which is several writes."""
LONGEST = 6.0
"""Seconds that a call may take, whatever the database does."""
BUSY = 2.0
"""Seconds that a busy machine adds."""
RECOVERED = 5.0
"""Seconds after which a database that is there again is used again."""
TOLD = 20.0
"""Seconds until readiness says that it is away."""


@pytest.mark.row("F7")
async def test_what_was_acknowledged_outlives_the_database(
    tmp_path: Path, own_postgres: PostgreSQL, count: int, tally: Tally
) -> None:
    async with world(tmp_path, store=own_postgres.create_database()) as here:
        async with by_http(here, RATE) as load:
            for _ in range(count):
                await load.passed(RATE)
                await asyncio.to_thread(own_postgres.kill)
                await asyncio.to_thread(own_postgres.start_again)
                tally.fault(recovery=await load.through(30))
        print(f"{load.errors} errors, of which {load.committed} had been committed; slowest call {load.slowest:.1f} s")
        await here.settled(120)
        assert here.gateways[0].running
        tally.judge(await here.verdict())


@pytest.mark.row("F8")
@pytest.mark.parametrize("seconds", (2, 10, 30) if FULL else (7,))
async def test_nobody_hangs_while_the_database_is_frozen(
    seconds: int, tmp_path: Path, own_postgres: PostgreSQL, count: int, tally: Tally
) -> None:
    async with world(tmp_path, store=own_postgres.create_database()) as here:
        gateway = here.gateways[0]
        for _ in range(count):
            async with by_http(here, 50) as load:
                await load.passed(50)
                own_postgres.pause()
                began = time.monotonic()
                try:
                    if seconds > LONGEST:
                        assert await _answers(f"{gateway.url}/v1/messages?source=local&id=r0") == 503
                        assert await _answers(f"{gateway.url}/livez") == 200
                    await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
                    away = (await gateway.readyz())[0]
                finally:
                    own_postgres.resume()
                began = time.monotonic()
                await load.through(30)
                recovery = time.monotonic() - began
                tally.fault(recovery=recovery)
            assert load.slowest <= LONGEST + BUSY, f"a call took {load.slowest:.1f} s"
            assert recovery <= RECOVERED + BUSY
            assert away == 503 or seconds < TOLD
            await wait_until(lambda: _is_ready(gateway.url), TOLD, "readiness says that it is back")
        await here.settled(120)
        tally.judge(await here.verdict())


async def _answers(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def _is_ready(url: str) -> bool:
    return await _answers(f"{url}/readyz") == 200
