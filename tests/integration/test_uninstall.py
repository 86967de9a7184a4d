"""A push token that FCM calls unregistered, from the request to the profile: the last one gone is an uninstall."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import free_port, spawn, wait_until
from tests.vendors.fcm import Fcm, service_account
from tests.vendors.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
GONE, THERE = "steer-unregistered--phone", "token-of-a-tablet"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway process that notifies by FCM's test vendor."""
    vendor = Fcm(Ledger())
    fcm, private = await vendor.start(), free_port()
    config = {
        "store": f"sqlite:///{tmp_path}/store.db",
        "http": {"private": f"127.0.0.1:{private}"},
        "providers": {
            "push": {
                "kind": "fcm",
                "base_url": f"http://127.0.0.1:{fcm}",
                "service_account": service_account(f"http://127.0.0.1:{fcm}/token"),
            }
        },
        "routes": {"push": ["push"]},
        "policy": {"timezone": "UTC", "categories": {"news": {}}},
    }
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(config))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(file)]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{private}") as session:

        async def ready() -> bool:
            try:
                async with session.get("/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        with spawn(command, tmp_path / "log", env=environment, cwd=ROOT):
            await wait_until(ready, 30)
            yield session
    await vendor.stop()


async def profile(api: aiohttp.ClientSession) -> dict[str, Any]:
    async with api.get("/v1/users/hana") as answer:
        found: dict[str, Any] = (await answer.json())["profile"]
    return found


async def notified(api: aiohttp.ClientSession, name: str) -> str:
    """The state in which a notification ends."""
    body = {"id": name, "user": "hana", "category": "news", "content": {"push": {"title": "t", "body": "b"}}}
    async with api.post("/v1/messages", json=body) as answer:
        assert answer.status == 202, await answer.text()
        message = (await answer.json())["message"]
    state = ""

    async def ended() -> bool:
        nonlocal state
        async with api.get(f"/v1/messages/{message}") as answer:
            state = (await answer.json())["state"]
        return state not in {"waiting", "sending"}

    await wait_until(ended, 20)
    return state


async def departed(api: aiohttp.ClientSession) -> float:
    async with api.get("/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    samples = [sample for family in families for sample in family.samples]
    wanted = [s for s in samples if s.name == "gateway_departures_total" and s.labels["act"] == "uninstalled"]
    return sum(sample.value for sample in wanted)


async def test_the_last_token_gone_is_an_uninstall(api: aiohttp.ClientSession) -> None:
    devices = [{"token": token, "platform": "android"} for token in (GONE, THERE)]
    async with api.put("/v1/users/hana", json={"push": devices}) as answer:
        assert answer.status == 204
    assert await notified(api, "r1") == "sent"  # to the other device
    assert await profile(api) == {"push": devices[1:]}
    assert await departed(api) == 0
    async with api.put("/v1/users/hana", json={"push": [{"token": f"{GONE}-2", "platform": "android"}]}) as answer:
        assert answer.status == 204
    assert await notified(api, "r2") in {"failed", "refused"}
    assert await profile(api) == {"app_installed": False}
    assert await departed(api) == 1
