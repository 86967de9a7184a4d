"""A campaign over four channels, published by a client that is not ours: every promise, from the ledgers' side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.campaign import plan
from tests.end_to_end.checks import SIZES, at_rest, known_by_http, patience
from tests.end_to_end.harness import world

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", SIZES)
async def test_every_promise_is_kept(size: int, tmp_path: Path, amqp_url: str, postgres_url: str) -> None:
    campaign = plan(size, seed=size, steered=True)
    async with world(tmp_path, store=postgres_url, broker=amqp_url, zone=campaign.zone) as here:
        await here.introduce(campaign)
        await here.publish(campaign.queues(seed=size))
        await here.settled(campaign, patience(size), repeats=True)
        await known_by_http(here, campaign)
        exam = await at_rest(here, campaign)
    assert {"sent", "delivered", "waiting", "refused", "failed", "unknown"} == set(exam.states.values())
