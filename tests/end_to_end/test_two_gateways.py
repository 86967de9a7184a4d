"""Two gateways on one database and one broker: the same promises, and the same caps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.campaign import plan
from tests.end_to_end.checks import SIZES, at_rest, known_by_http, patience
from tests.end_to_end.harness import world

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", SIZES)
async def test_together_they_keep_every_promise(size: int, tmp_path: Path, amqp_url: str, postgres_url: str) -> None:
    campaign = plan(size, seed=size + 1, steered=True)
    async with world(tmp_path, store=postgres_url, broker=amqp_url, zone=campaign.zone, gateways=2) as here:
        await here.introduce(campaign)
        await here.publish(campaign.queues(seed=size))
        await here.settled(campaign, patience(size), repeats=True)
        await known_by_http(here, campaign)
        await at_rest(here, campaign)
        both = [gateway.log.read_text().count('"message.ended"') for gateway in here.gateways]
    assert min(both) > size // 20, f"one of them did nearly all: {both}"
