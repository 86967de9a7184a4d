"""Webhooks as ops have them: configured, called by a process that may be killed, listed and enabled again."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.client import GatewayError, enable_webhook, webhooks
from gateway.ids import new_id
from gateway.message import MessageState
from gateway.store import Called
from gateway.store.migrate import migrate
from tests.contract.receiver import HANG, KEY, NAME, Receiver, webhook
from tests.integration.test_processes import CONTENT, REQUEST, decorum, get, served, written
from tests.integration.test_web import Gateway, bearer, key_of, problem, request
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)
START = 100
"""Seconds that a process may take to start on a busy machine, and that all else is waited for."""
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
HOOK = webhook(8443, "ledger")
OTHER = webhook(8443, "crm", url="https://crm.example.com:8443/in")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


async def post(port: int, number: int) -> None:
    body = {"id": str(number), **REQUEST, **CONTENT, "user": f"user {number}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/v1/messages", json=body) as it,
    ):
        assert it.status == 202, await it.text()


async def test_a_gateway_without_a_broker_tells_what_happens_though_it_is_killed_in_the_middle_of_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.port}/in?token=t0ken"
    hook = f"[{{name: ledger, url: '{url}', secrets: [{SECRET}], events: [message.*], private: true}}]"
    file, port = written(tmp_path, webhooks=hook)

    def ready() -> bool:
        return get(port, "/readyz")[0] == 200

    def disabled() -> bool:
        return get(port, "/v1/webhooks")[1]["webhooks"][0]["disabled_at"] is not None

    with served(tmp_path, file) as gateway:
        await wait_until(ready, START)
        await post(port, 1)
        await wait_until(lambda: receiver.heard, START)
        event = receiver.heard[0].verified()
        assert (event["type"], event["state"], event["user"]) == ("message.sent", "sent", "user 1")
        assert event["event"] == receiver.ids[0]
        receiver.answers = [HANG]
        await post(port, 2)
        await wait_until(lambda: len(receiver.heard) == 2, START)
        gateway.kill()  # after the call, and before what becomes of it is recorded
    receiver.answers = [410, 200]
    with served(tmp_path, file) as gateway:
        await wait_until(ready, START)
        await wait_until(lambda: len(receiver.heard) == 3, START)
        assert receiver.ids[1] == receiver.ids[2]
        assert receiver.heard[1].body == receiver.heard[2].body
        assert receiver.heard[2].verified()["user"] == "user 2"
        await wait_until(disabled, START)
        at = f"http://127.0.0.1:{port}"
        enabled = await asyncio.to_thread(decorum, "webhooks", "enable", "ledger", "--url", at)
        assert enabled.stdout.startswith(f"ledger at http://127.0.0.1:{receiver.port} is enabled: ")
        await wait_until(lambda: len(receiver.heard) == 4, START)
        assert receiver.ids[3] == receiver.ids[2], "what was waiting goes on"
        async with aiohttp.ClientSession(at) as session, session.get("/metrics") as metrics:
            text = await metrics.text()
        assert 'gateway_webhook_calls_total{outcome="gone",webhook="ledger"} 1.0' in text
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(START) == 0
    for secret in (SECRET, "t0ken", "message.sent", "user 2"):
        assert secret not in gateway.text


# -------------------------------------------------------------------------------------------------------------- the API


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("webhooks") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def gateway(empty: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    """One with two webhooks, and a key for each scope."""
    shutil.copy(empty, tmp_path / "web.db")
    keys = tuple(key_of(scope, scope) for scope in ("read", "admin", "send"))
    gateway = Gateway(tmp_path / "web.db", keys=keys)
    gateway.config = replace(gateway.config, webhooks=(HOOK, OTHER))
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(gateway)


async def give_up(gateway: Gateway, count: int, error: str = "http_500", again: timedelta | None = None) -> list[str]:
    """So many events were queued for the first webhook, and it never took them, or not yet; their ids."""
    events = []
    gateway.judge = replace(gateway.judge, events=frozenset(MessageState))
    for _ in range(count):
        sent = request(id=new_id(), user=new_id())
        async with gateway.private.post("/v1/messages", json=sent, headers=bearer("send")) as response:
            message = (await response.json())["message"]
        await gateway.settle(await gateway.claim(message))
    for number, event, _, body in await gateway.store.unpublished(1000):
        await gateway.store.published([number], [("ledger", number, event, body.decode())])
        events.append(event)
    due = await gateway.store.due_events({"ledger": HOOK.fingerprint}, {"ledger": 1000})
    await gateway.store.record_calls([Called(queued, error, again) for queued in due])
    return events


async def listed(gateway: Gateway) -> list[dict[str, Any]]:
    async with gateway.private.get("/v1/webhooks", headers=bearer("read")) as response:
        assert response.status == 200
        found: list[dict[str, Any]] = orjson.loads(await response.read())["webhooks"]
        return found


async def test_how_it_stands_with_each_is_listed_and_nothing_that_is_secret(gateway: Gateway) -> None:
    (event,) = await give_up(gateway, 1)
    await gateway.store.disable_webhook("crm", OTHER.fingerprint, "http_410")
    ledger, crm = await listed(gateway)
    assert (ledger["name"], ledger["origin"], ledger["events"]) == ("ledger", f"https://{NAME}:8443", ["#"])
    assert (ledger["waiting"], ledger["oldest"], ledger["given_up"], ledger["disabled_at"]) == (0, None, 1, None)
    assert [(one["event"], one["calls"], one["error"]) for one in ledger["newest"]] == [(event, 1, "http_500")]
    assert (crm["reason"], crm["given_up"]) == ("http_410", 0)
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]+Z", crm["disabled_at"])
    assert "t0ken" not in str(ledger)
    assert "kkkk" not in str(ledger)


async def test_one_is_enabled_by_who_may_and_others_stay_as_they_are(gateway: Gateway) -> None:
    for hook in (HOOK, OTHER):
        await gateway.store.disable_webhook(hook.name, hook.fingerprint, "http_410")
    for key in ("read", "send"):
        async with gateway.private.post("/v1/webhooks/ledger/enable", headers=bearer(key)) as response:
            await problem(response, 403)
    async with gateway.private.post("/v1/webhooks/ledger/enable", headers=bearer("admin")) as response:
        assert response.status == 200
        assert (await response.json())["disabled_at"] is None
    assert [one["disabled_at"] is None for one in await listed(gateway)] == [True, False]
    async with gateway.private.post("/v1/webhooks/ledger/enable", headers=bearer("admin")) as response:
        assert response.status == 200, "the same again does no harm"
    async with gateway.private.post("/v1/webhooks/nobody/enable", headers=bearer("admin")) as response:
        await problem(response, 404)
    async with gateway.private.get("/v1/webhooks", headers=bearer("send")) as response:
        await problem(response, 403)


async def test_why_it_takes_nothing_is_listed_with_how_that_is_mended(gateway: Gateway) -> None:
    await give_up(gateway, 1, "forbidden_address", timedelta(minutes=5))
    ledger, crm = await listed(gateway)
    assert (ledger["error"], crm["failed_at"], crm["hint"]) == ("forbidden_address", None, None)
    assert "private: true" in ledger["hint"]
    failed_at, next_call = (datetime.fromisoformat(ledger[word]) for word in ("failed_at", "next_call"))
    assert next_call - failed_at == timedelta(minutes=5)
    told = (await webhooks(str(gateway.private._base_url), "key of read"))["text"]
    assert told[0].endswith(
        f"0 given up. The last call that failed was at {ledger['failed_at']}: forbidden_address ({ledger['hint']}),"
        f" the next call is due at {ledger['next_call']}."
    )


async def test_what_was_given_up_is_sent_once_more_where_that_is_asked_for(gateway: Gateway) -> None:
    await give_up(gateway, 3)
    for query, waiting in (("", 0), ("?given_up=false", 0), ("?given_up=true", 3)):
        async with gateway.private.post(f"/v1/webhooks/ledger/enable{query}", headers=bearer("admin")) as response:
            assert (await response.json())["waiting"] == waiting
    async with gateway.private.post("/v1/webhooks/ledger/enable?given_up=yes", headers=bearer("admin")) as response:
        await problem(response, 400)


async def test_the_command_line_says_the_same_in_sentences(gateway: Gateway) -> None:
    url, key = str(gateway.private._base_url), "key of admin"
    (event,) = await give_up(gateway, 1)
    await gateway.store.disable_webhook("crm", OTHER.fingerprint, "http_410")
    ledger, crm = (await webhooks(url, "key of read"))["text"]
    assert ledger == (
        f"ledger at https://{NAME}:8443 is enabled: 0 waiting, 1 given up, the last of them {event} (http_500)."
    )
    assert re.fullmatch(
        r"crm at https://crm\.example\.com:8443 is disabled since [0-9T:.-]+Z \(http_410\): 0 waiting, 0 given up\.",
        crm,
    )
    told = await enable_webhook("ledger", url, key, given_up=True)
    assert re.fullmatch(r"ledger at .* is enabled: 1 waiting since [0-9T:.-]+Z, 0 given up\.", told["text"][0])
    with pytest.raises(GatewayError, match="no webhook legder is configured"):
        await enable_webhook("legder", url, key, given_up=False)
    with pytest.raises(GatewayError, match="needs the scope admin"):
        await enable_webhook("ledger", url, "key of read", given_up=False)
