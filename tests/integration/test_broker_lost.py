"""Does a gateway that publishes events go on while its broker is away?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import orjson
import pytest

from gateway.store.migrate import migrate
from tests.benchmarks.scene import Scene, request
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RabbitMQ


@pytest.mark.timeout(120)
async def test_a_gateway_that_has_news_for_a_lost_broker_still_answers(own_rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'decorum.db'}"
    await asyncio.to_thread(migrate, store)
    async with (
        Scene(tmp_path / "scene", store, own_rabbitmq.url, {"sms": ["a"]}, events=True) as scene,
        aiohttp.ClientSession(scene.gateways[0].url, timeout=aiohttp.ClientTimeout(10)) as session,
    ):
        await asyncio.to_thread(own_rabbitmq.kill)

        async def lost() -> bool:
            async with session.get("/readyz") as response:
                return response.status == 503

        await wait_until(lost, 30, "the gateway has noticed")
        for number in range(2):
            fields = orjson.loads(request(f"m-{number}", "notice", "sms", number))
            del fields["source"]
            async with session.post("/v1/messages", json=fields) as response:
                assert response.status == 202
            await wait_until(lambda count=number + 1: taken(scene, count), 30)
        async with session.get("/livez") as response:
            assert response.status == 200


async def taken(scene: Scene, count: int) -> bool:
    return await scene.vendors.count() >= count
