"""F1: kill -9 at every named point, for every category, on both stores.

Each kill is a world of its own: a message goes in, the gateway dies by its own hand where the point is, another one is
started on what it left, and the client, like any client, sends again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import aiohttp
import pytest

from gateway import killpoints
from gateway.store.migrate import migrate
from tests.faults import records
from tests.faults.launch import DIED
from tests.faults.world import PAUSE, Forks, vendor, world
from tests.servers import wait_until
from tests.vendors.twilio import ACCOUNT_SID, AUTH_TOKEN, signature

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import Request, World
    from tests.servers import PostgreSQL, RabbitMQ

WRITTEN, TAKEN = "provider.written", "provider.taken"
"""Points outside of the gateway: the vendor has the request and does not take it; has taken it and does not answer."""
Store = Literal["sqlite", "postgresql"]
POINTS = (*killpoints.POINTS, WRITTEN, TAKEN)
IN_DOUBT = (
    *("claim.after_commit", "provider.before_write", WRITTEN, TAKEN, "provider.answered", "settle.before_commit"),
)
CATEGORIES = ("repeat", "leave", "keyed")
"""What may be repeated comes first, since it waits longest."""
STORES: tuple[Store, ...] = ("sqlite", "postgresql")
AT_ONCE = 4
"""Gateways that are being killed …"""
ALIVE = 16
"""… and gateways that were started again, of which some wait a minute for a receipt that will not come."""
PATIENCE = 90
"""Seconds for whatever takes one or two where nothing else goes on."""
TWILIO = {"kind": "twilio_sms", "account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "sender": "+15005550006"}
PUBLIC = "https://m.test"


@dataclass(frozen=True)
class Kill:
    """One of them."""

    category: str
    point: str
    store: Store
    number: int

    @property
    def by_broker(self) -> bool:
        return self.point.startswith(("broker.", "relay."))

    @property
    def by_receipt(self) -> bool:
        return self.point.startswith("receipt.")

    @property
    def by_hand(self) -> bool:
        return self.point in (WRITTEN, TAKEN)

    @property
    def name(self) -> str:
        return f"{self.number}-{self.point}-{self.category}-{self.store}-"


def kills(count: int) -> list[Kill]:
    """So many, each point with each category on each store as often as any other.

    Where there are too few for that, the points between which the message is in the vendor's hands have all categories,
    and the others one each; the stores take turns. Receipts are for text messages alone.
    """
    every = [Kill(*found, 0) for found in product(CATEGORIES, POINTS, STORES)]
    every = [kill for kill in every if not kill.by_receipt or kill.category == "leave"]

    def spare(kill: Kill) -> tuple[bool, bool]:
        point, category = POINTS.index(kill.point), CATEGORIES.index(kill.category)
        usual = "leave" if kill.by_receipt else CATEGORIES[point % len(CATEGORIES)]
        store = STORES[(point + category) % len(STORES)]
        return kill.point not in IN_DOUBT and kill.category != usual, kill.store != store

    every.sort(key=spare)
    chosen = [replace(every[number % len(every)], number=number) for number in range(count)]
    return sorted(chosen, key=lambda kill: CATEGORIES.index(kill.category))


@pytest.mark.row("F1")
async def test_a_gateway_that_dies_at_any_point_loses_nothing_and_doubles_nothing(
    tmp_path: Path, tally: Tally, count: int, rabbitmq: RabbitMQ, postgres: PostgreSQL
) -> None:
    sqlite, database = tmp_path / "empty.db", postgres.create_database()
    await asyncio.to_thread(migrate, f"{records.SQLITE}{sqlite}")
    await asyncio.to_thread(migrate, database)
    dying, rising = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(ALIVE)

    def store(kill: Kill, folder: Path) -> str:
        if kill.store == "postgresql":
            return postgres.create_database(database.rpartition("/")[2])
        shutil.copy(sqlite, folder / "store.db")
        return f"{records.SQLITE}{folder}/store.db"

    async with AsyncExitStack() as stack:
        taker = await stack.enter_async_context(vendor(tmp_path))
        forks = stack.enter_context(Forks())

        async def one(kill: Kill) -> None:
            folder = tmp_path / kill.name
            folder.mkdir()
            change = [("providers.text", {**TWILIO, "base_url": taker.url})] if kill.by_receipt else []
            async with dying:
                broker = rabbitmq.create_vhost() if kill.by_broker else None
                url = store(kill, folder)
            async with world(
                folder, store=url, broker=broker, change=change, start=False, shared=taker, name=kill.name, forks=forks
            ) as here:
                await _one(here, kill, tally, dying, rising)

        ends = await asyncio.gather(*map(one, kills(count)), return_exceptions=True)
        if failed := [end for end in ends if isinstance(end, Exception)]:
            raise ExceptionGroup(f"{len(failed)} of {count}", failed)


async def _one(here: World, kill: Kill, tally: Tally, dying: asyncio.Semaphore, rising: asyncio.Semaphore) -> None:
    gateway = here.gateways[0]
    (request,) = here.requests(1, kill.category)
    async with dying:
        if kill.by_hand:
            await here.mode("deaf" if kill.point == WRITTEN else "silence", request=request.id)
        await gateway.start("" if kill.by_hand else kill.point).ready(PATIENCE)
        await _until_dead(here, kill, request)
        died = time.monotonic()
        await here.mode("take", request=request.id)
    await wait_until(lambda: _is_due(here.store), PATIENCE, f"{kill}: its leases have run out")
    took = time.monotonic() - died
    async with rising:
        took += await _recovered(here, kill, request)
    verdict = await here.verdict()
    tally.judge(verdict)
    tally.fault(recovery=0 if kill.category == "repeat" else took)  # which waits for a receipt first
    assert len(verdict.repeated) + len(verdict.unknown) <= 1, kill
    if kill.by_receipt:
        (states,) = await records.fetch(here.store, "select state from attempts where reference is not null")
        assert [state for (state,) in states] == ["delivered"], kill


async def _recovered(here: World, kill: Kill, request: Request) -> float:
    """Start again, and wait until nothing is left to be done; how many seconds that took."""
    gateway = here.gateways[0]
    began = time.monotonic()
    await gateway.start().ready(PATIENCE)
    if not here.acknowledged:
        assert await here.post([request]) in ([202], [200]), kill
    if kill.by_receipt:
        assert await _report(here) < 300, kill
    try:
        await here.settled(2 * PATIENCE)
    except AssertionError as error:
        print(kill, error)  # the judge says what it comes to
    took = time.monotonic() - began
    gateway.kill()
    return took


async def _until_dead(here: World, kill: Kill, request: Request) -> None:
    """Send the message, and do what else it takes to come to the point."""
    gateway = here.gateways[0]
    if kill.by_broker:
        await here.publish([request])
    else:
        await here.post([request])
    if kill.by_receipt:
        assert here.acknowledged, kill
        await here.settled(PATIENCE)
        assert await _report(here) == 0
    if kill.point == WRITTEN:
        await wait_until(lambda: here.heard(request.id), PATIENCE, f"{kill}: the vendor has it")
        gateway.kill()
    elif kill.point == TAKEN:
        await wait_until(lambda: request.id in here.vendor.ledger.read_text(), PATIENCE, f"{kill}: the vendor took it")
        gateway.kill()
    else:
        await wait_until(lambda: not gateway.running, PATIENCE, f"{kill}: the gateway is dead")
        assert gateway.child
        assert DIED + kill.point in gateway.child.text, gateway.child.text[-3000:]


async def _report(here: World) -> int:
    """The vendor's receipt for the one attempt there is: the status of the gateway's answer, 0 where there is none."""
    (((attempt,),),) = await records.fetch(here.store, "select id from attempts where reference is not null")
    path = f"/callbacks/text?attempt={attempt}"
    fields = [("MessageSid", "SM1"), ("MessageStatus", "delivered")]
    headers = {"X-Twilio-Signature": signature(PUBLIC + path, fields)}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{here.gateways[0].public}{path}", data=dict(fields), headers=headers
            ) as response,
        ):
            return response.status
    except aiohttp.ClientError:
        return 0


async def _is_due(store: str) -> bool:
    """Whether nothing is left that waits for a lease to run out."""
    await asyncio.sleep(PAUSE)
    now = int(time.time() * 1e6)
    (((held,),),) = await records.fetch(store, f"select count(*) from due where lease_until > {now}")
    return held == 0
