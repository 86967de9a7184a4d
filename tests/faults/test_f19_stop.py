"""An opt-out comes while a message waits, is decided or is handed over: nothing is handed over once it is answered."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import records
from tests.faults.launch import FREEZE
from tests.faults.rows import FULL
from tests.faults.world import Request, vendor, world
from tests.servers import wait_until
from tests.vendors.twilio import ACCOUNT_SID, AUTH_TOKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import Vendor, World

AT_ONCE = 10
"""Persons who race at a time."""
TAKES = 0.02
"""Seconds that the vendor takes, so that some are caught while it does."""
EARLY, LATE = 0.0, 0.3
"""Seconds after which a person says no: before, while and after the first message goes."""
ROUNDS = 3
"""On a machine that has much else to do they all may come too late."""
PATH = "/callbacks/twilio"
FEWER = 5
"""Part of the row's count that say no by a text."""
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
        await _races(
            here, count, drawn, gateways, tally, lambda person: here.opt_out(person, to=drawn.randrange(gateways))
        )


@pytest.mark.row("F19")
async def test_nothing_is_handed_over_once_a_stop_by_text_is_answered(
    postgres_url: str, tmp_path: Path, count: int, tally: Tally
) -> None:
    """Fewer, for each is answered an attempt's time after it was said."""
    drawn = random.Random(1919)
    async with vendor(tmp_path) as taker:
        change = _twilio(taker)
        async with world(tmp_path, store=postgres_url, gateways=2, change=change, shared=taker) as here:

            async def says_no(person: str) -> None:
                await here.say_stop(person, PATH, to=drawn.randrange(2))

            await _races(here, count // FEWER, drawn, 2, tally, says_no)


@pytest.mark.row("F19")
async def test_what_a_worker_that_sleeps_is_about_to_send_is_not_sent_after_a_stop_by_text_is_answered(
    postgres_url: str, tmp_path: Path, tally: Tally
) -> None:
    """It sleeps right before the first byte, and whoever says stop never had anything from us before."""
    async with vendor(tmp_path) as taker:
        change = [*_twilio(taker), ("worker.attempt", "4s")]
        common: dict[str, Any] = {"gateways": 2, "start": False, "shared": taker}
        async with world(tmp_path, store=postgres_url, change=change, **common) as here:
            other, sleeper = here.gateways
            await other.start().ready(60)
            other.pause()
            await sleeper.start(f"{FREEZE}provider.before_write").ready(60)
            assert await here.post([Request("next", "stopper", "leave")], to=1) == [202]
            await wait_until(lambda: sleeper.frozen, 20, "it is frozen")
            other.resume()
            await here.say_stop("stopper", PATH)
            sleeper.resume()
            await here.settled(60)
            tally.fault()
            tally.judge(await here.verdict())
            assert here.taken() == 0


def _twilio(vendor: Vendor) -> list[tuple[str, Any]]:
    """Text messages go through it."""
    account = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "sender": "+15005550006"}
    return [("providers.twilio", {"kind": "twilio_sms", "base_url": vendor.url, **account}), ("routes.sms", ["twilio"])]


async def _races(
    here: World,
    count: int,
    drawn: random.Random,
    gateways: int,
    tally: Tally,
    says_no: Callable[[str], Awaitable[None]],
) -> None:
    """So many persons, each of whom says no while messages for them are on their way; more, until some are caught."""
    await here.mode("delay", seconds=TAKES)

    async def race(waiting: list[str]) -> None:
        while waiting:
            await _one(here, waiting.pop(), drawn, gateways, says_no)
            tally.fault()

    told = refused = False
    for turn in range(ROUNDS):
        people = [f"stopper-{turn}-{number}" for number in range(count)]
        await asyncio.gather(*(race(people) for _ in range(AT_ONCE)))
        await here.settled(60)
        told = told or bool(records.taken(here.vendor.ledger))
        refused = refused or "refused" in (await records.recorded(here.store)).ended.values()
        if told and refused:
            break
    tally.judge(await here.verdict())
    assert told, "nobody was told anything: there was no race"
    assert refused, "everybody was told everything: there was no race"


async def _one(
    here: World, person: str, drawn: random.Random, gateways: int, says_no: Callable[[str], Awaitable[None]]
) -> None:
    """Two messages for a person, one for now and one for a moment later, and their no somewhere between."""
    later = {"not_before": (datetime.now(UTC) + WAITS).isoformat()}
    requests = [Request(f"{person}-now", person, "leave"), Request(f"{person}-later", person, "leave", more=later)]
    assert await here.post(requests, to=drawn.randrange(gateways)) == [202, 202]
    await asyncio.sleep(drawn.uniform(EARLY, LATE))
    await says_no(person)
