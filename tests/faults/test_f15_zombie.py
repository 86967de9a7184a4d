"""F15: a worker is frozen in the middle of an attempt, past its lease; another takes over; then it wakes up.

It is frozen at each of two points: with its intent committed and nothing written yet (it must not write any more, for
the deadline is over), and with the vendor's answer in its hand (which is evidence, however late it comes).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from gateway.store.migrate import migrate
from tests.faults import records
from tests.faults.launch import FREEZE
from tests.faults.world import PAUSE, Forks, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import World
    from tests.servers import PostgreSQL

BEFORE, AFTER = "provider.before_write", "provider.answered"
CASES = (
    *(("leave", BEFORE), ("leave", AFTER), ("keyed", BEFORE), ("repeat", AFTER)),
    *(("keyed", AFTER), ("repeat", BEFORE)),  # the last waits a minute longer
)


@pytest.mark.row("F15")
async def test_a_worker_that_slept_through_its_lease_does_no_harm(
    tmp_path: Path, tally: Tally, count: int, postgres: PostgreSQL
) -> None:
    empty = postgres.create_database()
    await asyncio.to_thread(migrate, empty)
    at_once = asyncio.Semaphore(4)
    with Forks() as forks:

        async def one(number: int) -> None:
            async with at_once:
                folder = tmp_path / str(number)
                folder.mkdir()
                database = postgres.create_database(empty.rpartition("/")[2])
                async with world(folder, store=database, gateways=2, start=False, forks=forks) as here:
                    await _one(here, *CASES[number % len(CASES)], tally)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))


async def _one(here: World, category: str, point: str, tally: Tally) -> None:
    sleeper, other = here.gateways
    (request,) = here.requests(1, category)
    await sleeper.start(f"{FREEZE}{point}").ready(60)
    assert await here.post([request]) == [202]
    await wait_until(lambda: sleeper.frozen, 20, "it is frozen")
    assert here.taken() == (point == AFTER)
    await other.start().ready(60)
    await wait_until(lambda: _given_up(here), 60, "the other one has taken over")
    began = time.monotonic()
    sleeper.resume()
    await here.settled(100)
    tally.fault(recovery=0 if (category, point) == ("repeat", BEFORE) else time.monotonic() - began)
    sleeper.drain()  # it has done all that it would ever do
    assert "gateway.stopped" in sleeper.log.read_text()
    verdict = await here.verdict()
    tally.judge(verdict)
    (states,) = await records.fetch(here.store, "select state from attempts order by number")
    assert here.taken() == (0 if (category, point) == ("leave", BEFORE) else 1)
    assert states[0][0] in (("unknown", "not_sent") if point == BEFORE else ("accepted",))


async def _given_up(here: World) -> bool:
    await asyncio.sleep(PAUSE)
    (states,) = await records.fetch(here.store, "select state from attempts where number = 1")
    return bool(states) and states[0][0] != "intent"
