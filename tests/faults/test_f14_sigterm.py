"""F14: SIGTERM under load. Nothing is lost, nothing is sent twice, and the process is gone within its grace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.world import world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

GRACE = 25
"""Seconds."""
LOAD = 300
"""Requests on their way when the signal comes."""


@pytest.mark.row("F14")
async def test_a_restart_under_load_loses_nothing(tmp_path: Path, tally: Tally, count: int) -> None:
    async with world(tmp_path) as here:
        gateway = here.gateways[0]
        await here.mode("delay", seconds=0.05)
        for _ in range(count):
            before = here.taken()
            sending = asyncio.create_task(here.post(here.requests(LOAD)))
            await wait_until(lambda before=before: here.taken() > before + LOAD // 4)
            began = time.monotonic()
            assert await asyncio.to_thread(gateway.drain, GRACE) == 0
            assert time.monotonic() - began <= GRACE
            await sending
            began = time.monotonic()
            await gateway.start().ready()
            tally.fault(recovery=time.monotonic() - began)
        await here.settled(60)
        verdict = await here.verdict()
        tally.judge(verdict)
        assert not verdict.unknown, "the drain gave up on attempts that the vendor answers"
