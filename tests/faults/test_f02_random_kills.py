"""F2: kill -9 again and again at random moments, while messages come in, on both stores."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.world import Forks, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import Request, World
    from tests.servers import PostgreSQL

A_KILL = 60
"""Messages for each kill."""
SPREAD = (0.2, 3.0)
"""Seconds from a start to the next kill."""


@pytest.mark.row("F2")
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_kills_at_random(
    store: str, tmp_path: Path, tally: Tally, count: int, request: pytest.FixtureRequest
) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)  # of the moments; what runs at them is up to the machine
    chance = random.Random(seed)
    server: PostgreSQL | None = request.getfixturevalue("postgres") if store == "postgresql" else None
    with Forks() as forks:
        async with world(tmp_path, store=server.create_database() if server else None, forks=forks) as here:
            await here.mode("delay", seconds=0.02)
            waiting = [r for category in ("leave", "keyed") for r in here.requests(count * A_KILL // 2, category)]
            chance.shuffle(waiting)
            client = asyncio.create_task(_client(here, waiting))
            gateway = here.gateways[0]
            for _ in range(count):
                await asyncio.sleep(chance.uniform(*SPREAD))
                gateway.kill()
                began = time.monotonic()
                await gateway.start().ready(60)
                tally.fault(recovery=time.monotonic() - began)
            await client
            await here.settled(60)
            tally.judge(await here.verdict())


async def _client(here: World, requests: list[Request]) -> None:
    """Sends each request until it is acknowledged, thirty times a second at most."""
    for first in range(0, len(requests), 10):
        part = requests[first : first + 10]

        async def kept(part: list[Request] = part) -> bool:
            await here.post([request for request in part if request.id not in here.acknowledged])
            return all(request.id in here.acknowledged for request in part)

        await wait_until(kept, 120, "the gateway takes requests")
        await asyncio.sleep(0.3)
