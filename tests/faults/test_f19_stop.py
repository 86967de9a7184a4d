"""An opt-out comes while a message waits, is decided or is handed over: nothing is handed over once it is answered."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.faults import records
from tests.faults.rows import FULL
from tests.faults.world import Request, world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
from tests.faults.world import World

AT_ONCE = 10
"""Persons who race at a time."""
TAKES = 0.02
"""Seconds that the vendor takes, so that some are caught while it does."""
EARLY, LATE = 0.0, 0.3
"""Seconds after which a person says no: before, while and after the first message goes."""
WAITS = timedelta(seconds=0.4)
"""How long the second message waits: some say no just then."""


@pytest.mark.row("F19")
@pytest.mark.parametrize("store", ["sqlite", "postgresql"] if FULL else ["postgresql"])
async def test_nothing_is_handed_over_once_the_no_is_answered(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, count: int, tally: Tally
) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgresql" else None
    gateways = 1 if url is None else 2
    drawn = random.Random(19)
    async with world(tmp_path, store=url, gateways=gateways) as here:
        await here.mode("delay", seconds=TAKES)
        waiting = [f"stopper-{number}" for number in range(count)]

        async def race() -> None:
            while waiting:
                await _one(here, waiting.pop(), drawn, gateways)
                tally.fault()

        await asyncio.gather(*(race() for _ in range(AT_ONCE)))
        await here.settled(60)
        verdict = await here.verdict()
        tally.judge(verdict)
        told = {entry.person for entry in records.taken(here.vendor.ledger)}
        assert told, "nobody was told anything: there was no race"
        recorded = await records.recorded(here.store)
        assert "refused" in recorded.ended.values(), "everybody was told everything: there was no race"


async def _one(here: World, person: str, drawn: random.Random, gateways: int) -> None:
    """Two messages for a person, one for now and one for a moment later, and their no somewhere between."""
    later = {"not_before": (datetime.now(UTC) + WAITS).isoformat()}
    requests = [Request(f"{person}-now", person, "leave"), Request(f"{person}-later", person, "leave", more=later)]
    assert await here.post(requests, to=drawn.randrange(gateways)) == [202, 202]
    await asyncio.sleep(drawn.uniform(EARLY, LATE))
    await here.opt_out(person, to=drawn.randrange(gateways))
