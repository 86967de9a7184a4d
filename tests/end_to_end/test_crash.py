"""``kill -9`` of the gateway three times in the middle of a campaign: nothing lost, doubled or pretended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.campaign import plan
from tests.end_to_end.checks import SIZES, at_rest, patience
from tests.end_to_end.harness import world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

KILLS = (0.02, 0.2, 0.4)
"""After these parts of the requests have reached a vendor; nearly two thirds do, in the end."""
PROVIDERS, CONCURRENCY = 5, 12
"""Attempts under way at most: per provider, so many."""


@pytest.mark.parametrize("size", SIZES)
async def test_three_kills(size: int, tmp_path: Path, amqp_url: str, postgres_url: str) -> None:
    campaign = plan(size, seed=size + 2, steered=False)
    long = size > 10_000
    settings = {"concurrency": CONCURRENCY}
    zone = campaign.zone
    async with world(tmp_path, store=postgres_url, broker=amqp_url, zone=zone, delay=0.05, providers=settings) as here:
        await here.introduce(campaign)
        await here.publish(campaign.queues(seed=size))
        gateway = here.gateways[0]
        in_flight: list[set[str]] = []
        for part in KILLS:
            await wait_until(lambda part=part: here.vendors.taken() >= part * size, patience(size))
            await wait_until(lambda: here.count("select count(*) from attempts where state = 'intent'"))
            gateway.kill()
            in_flight.append(await here.intents() - set().union(*in_flight))
            await gateway.start().ready()
        await here.settled(campaign, patience(size) + 60, repeats=long)

        left = set().union(*in_flight)
        exam = await at_rest(here, campaign, killed=True, in_flight=left, repeats_wait=not long)
    budget = PROVIDERS * CONCURRENCY
    numbers = [len(these) for these in in_flight]
    print("in flight at the kills:", numbers, "at most", budget, "each")
    assert sum(numbers) > 0, "no kill came in the middle of anything"
    assert max(numbers) <= budget
    unknown = [attempt for attempt in exam.store.attempts if attempt.state == "unknown"]
    assert len(unknown) <= len(left)
    assert {attempt.id for attempt in unknown} <= left
    assert gateway.started == 1 + len(KILLS)
