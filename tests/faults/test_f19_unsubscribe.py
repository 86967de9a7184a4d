"""F19 by the links in mails: nothing is handed over once the one click, or a button of the page, is answered.

First at moments by chance. Then at chosen ones, on two gateways: one is frozen while it holds a message leased, or
about to be sent, and the other one is told; it wakes up after the answer, or shortly before.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from gateway.store.migrate import migrate
from tests.faults import records
from tests.faults.launch import FREEZE
from tests.faults.rows import FULL
from tests.faults.world import Forks, Request, World, vendor, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.servers import PostgreSQL

FORMS = ({"List-Unsubscribe": "One-Click"}, {"no": "kind"}, {"no": "all"})
UNSUBSCRIBABLE = ("policy.categories.leave.unsubscribe", True)
LONG = ("worker.attempt", "4s")
"""From the intent to its deadline: within it the other one is told, and the sleeper wakes up."""
AT_ONCE = 10
"""Persons who race at a time."""
TAKES = 0.02
"""Seconds that the vendor takes, so that some are caught while it does."""
LATEST = 0.3
"""Seconds within which a person says no: before, while and after the next message goes."""
WAITS = timedelta(seconds=0.4)
"""How long the last message waits: some say no just then."""
CASES = (
    *(("worker.leased", False), ("claim.after_commit", False), ("provider.before_write", False)),
    *(("claim.after_commit", True), ("provider.before_write", True)),
)
"""Where a worker is frozen, and whether it wakes up while the no is being said: it may send then, before the answer."""


@pytest.mark.row("F19")
@pytest.mark.parametrize("store", ["sqlite", "postgresql"] if FULL else ["postgresql"])
async def test_nothing_is_handed_over_once_the_link_has_answered(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, count: int, tally: Tally
) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgresql" else None
    gateways = 1 if url is None else 2
    drawn = random.Random(8058)
    async with world(tmp_path, store=url, gateways=gateways, change=[UNSUBSCRIBABLE]) as here:
        await here.mode("delay", seconds=TAKES)
        persons = [f"leaver-{number}" for number in range(count)]
        links = await _told(here, persons)

        async def race() -> None:
            while persons:
                person = persons.pop()
                await _one(here, person, links[person], drawn, gateways)
                tally.fault()

        await asyncio.gather(*(race() for _ in range(AT_ONCE)))
        await here.settled(60)
        tally.judge(await here.verdict())
        assert here.taken() > len(links), "nobody was told anything: there was no race"
        recorded = await records.recorded(here.store)
        assert "refused" in recorded.ended.values(), "everybody was told everything: there was no race"


async def _told(here: World, persons: list[str]) -> dict[str, str]:
    """Everybody has a message; the links in them, by person."""
    assert set(await here.post([Request(f"{person}-first", person, "leave") for person in persons])) == {202}
    await here.settled(60)
    return {entry.person: entry.attempt for entry in records.taken(here.vendor.ledger) if entry.person in persons}


async def _one(here: World, person: str, link: str, drawn: random.Random, gateways: int) -> None:
    """Two messages for a person, one for now and one for a moment later, and their no somewhere between."""
    later = {"not_before": (datetime.now(UTC) + WAITS).isoformat()}
    requests = [Request(f"{person}-now", person, "leave"), Request(f"{person}-later", person, "leave", more=later)]
    assert await here.post(requests, to=drawn.randrange(gateways)) == [202, 202]
    await asyncio.sleep(drawn.uniform(0, LATEST))
    await here.unsubscribe(person, link, drawn.choice(FORMS), to=drawn.randrange(gateways))


@pytest.mark.row("F19")
async def test_what_is_leased_or_about_to_be_sent_by_a_worker_that_sleeps_is_not_sent_after_the_answer(
    tmp_path: Path, tally: Tally, count: int, postgres: PostgreSQL
) -> None:
    empty = postgres.create_database()
    await asyncio.to_thread(migrate, empty)
    at_once = asyncio.Semaphore(5)
    with Forks() as forks:
        async with vendor(tmp_path) as shared, asyncio.TaskGroup() as group:

            async def one(number: int) -> None:
                async with at_once:
                    folder = tmp_path / str(number)
                    folder.mkdir()
                    database = postgres.create_database(empty.rpartition("/")[2])
                    form, case = FORMS[number % len(FORMS)], CASES[number % len(CASES)]
                    common: dict[str, Any] = {"gateways": 2, "start": False, "shared": shared, "forks": forks}
                    async with world(
                        folder, store=database, name=f"w{number}-", change=[UNSUBSCRIBABLE, LONG], **common
                    ) as here:
                        await _frozen(here, form, *case, tally)

            for number in range(max(len(CASES), count // 20)):
                group.create_task(one(number))


async def _frozen(here: World, form: dict[str, str], point: str, wakes: bool, tally: Tally) -> None:
    other, sleeper = here.gateways
    await other.start().ready(60)
    leaver = f"{here.name}leaver"
    link = (await _told(here, [leaver]))[leaver]
    other.pause()
    await sleeper.start(f"{FREEZE}{point}").ready(60)
    assert await here.post([Request(f"{leaver}-next", leaver, "leave")], to=1) == [202]
    await wait_until(lambda: sleeper.frozen, 20, "it is frozen")
    other.resume()
    leaving = asyncio.create_task(here.unsubscribe(leaver, link, form))
    if wakes:
        await wait_until(lambda: _said(here), 10, "it has been said")
        assert not leaving.done()
        sleeper.resume()
    await leaving
    sleeper.resume()
    await here.settled(60)
    tally.fault()
    tally.judge(await here.verdict())
    told = [entry.request for entry in records.taken(here.vendor.ledger) if entry.person == leaver]
    assert told == [f"{leaver}-first", f"{leaver}-next"][: 2 if wakes else 1]


async def _said(here: World) -> bool:
    await asyncio.sleep(0.02)
    (rows,) = await records.fetch(here.store, "select 1 from optouts")
    return bool(rows)
