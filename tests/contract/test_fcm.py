"""FCM's tokens: one for all, renewed in time, and never a reason to be in doubt about a message."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers import Dispatch, Misconfigured, Throttled, Unavailable, Unreachable
from tests.contract.cases import cases, fcm_settings
from tests.contract.wire import RESET, SILENCE, json_reply, reply
from tests.vendors.fcm import Fcm

CASE = cases()["fcm"]


def fresh(**more: Any) -> Dispatch:
    now = datetime.now(UTC)
    from dataclasses import replace

    return replace(CASE.dispatch, deadline=now + timedelta(days=1), valid_until=now + timedelta(days=60), **more)


class Clock:
    """The real time, and what a test adds to it."""

    ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


async def test_one_token_serves_all(opened: Any, serving: Any) -> None:
    vendor, port = await serving(Fcm)
    provider = await opened(fcm_settings(port), Clock())
    await asyncio.gather(*[provider.send(fresh()) for _ in range(20)])
    await provider.send(fresh())
    assert vendor.grants == 1
    assert vendor.requests[-1][2]["message"]["android"]["ttl"] == "2419200s"  # four weeks at most


async def test_a_token_is_renewed_a_minute_early(opened: Any, serving: Any) -> None:
    vendor, port = await serving(Fcm)
    vendor.lifetime = 200
    provider = await opened(fcm_settings(port), clock := Clock())
    await provider.send(fresh())
    clock.ahead = timedelta(seconds=130)
    await provider.send(fresh())
    assert vendor.grants == 1
    clock.ahead = timedelta(seconds=141)
    await provider.send(fresh())
    assert vendor.grants == 2


async def test_a_revoked_token_is_replaced_by_the_next_send(opened: Any, serving: Any) -> None:
    vendor, port = await serving(Fcm)
    provider = await opened(fcm_settings(port), Clock())
    await provider.send(fresh())
    vendor.tokens.clear()
    with pytest.raises(Unavailable) as caught:
        await provider.send(fresh())
    assert caught.value.code == "token_revoked"
    await provider.send(fresh())
    assert vendor.grants == 2


async def test_a_token_that_never_was_good_is_our_fault(opened: Any, serving: Any) -> None:
    vendor, port = await serving(Fcm)
    vendor.lifetime = 0
    provider = await opened(fcm_settings(port), Clock())
    with pytest.raises(Misconfigured):
        await provider.send(fresh())


async def test_a_service_account_that_google_refuses_is_our_fault(opened: Any, serving: Any) -> None:
    vendor, port = await serving(Fcm)
    vendor.audience = "https://elsewhere.example"
    provider = await opened(fcm_settings(port), Clock())
    with pytest.raises(Misconfigured) as caught:
        await provider.send(fresh())
    assert caught.value.code == "token_http_400"
    assert vendor.ledger.entries == []


@pytest.mark.parametrize(
    ("answer", "becomes"),
    [
        (SILENCE, Unavailable),
        (RESET, Unavailable),
        (reply(200, b"<html>"), Unavailable),
        (json_reply(200, {"access_token": "a\nb", "expires_in": 3599}), Unavailable),
        (json_reply(200, {"access_token": "a", "expires_in": "soon"}), Unavailable),
        (reply(500, b""), Unavailable),
        (reply(503, b""), Unavailable),
        (reply(429, b"", "Retry-After: 5"), Throttled),
        (reply(401, b""), Misconfigured),
        (reply(302, b"", "Location: /"), Misconfigured),
    ],
)
async def test_without_a_token_nothing_was_sent(
    answer: Any, becomes: Any, opened: Any, wired: Any, serving: Any
) -> None:
    vendor, port = await serving(Fcm)
    wire = await wired(CASE, answer=answer)
    settings = fcm_settings(port, token_url=f"http://127.0.0.1:{wire.port}/elsewhere", timeout=0.2)
    provider = await opened(settings, Clock())
    with pytest.raises(becomes):
        await provider.send(fresh())
    assert vendor.ledger.entries == []


async def test_who_asks_for_a_token_may_leave(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, answer=SILENCE)
    provider = await opened(
        fcm_settings(wire.port, token_url=f"http://127.0.0.1:{wire.port}/slow", timeout=0.3), Clock()
    )
    first = asyncio.create_task(provider.send(fresh()))
    await wire.received()
    second = asyncio.create_task(provider.send(fresh()))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(Unavailable):
        await second
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("word", "becomes"), [("unregistered", Unreachable), ("invalid-token", Unreachable), ("quota_exceeded", Throttled)]
)
async def test_the_strict_vendor_is_steered_by_the_token(word: str, becomes: Any, opened: Any, serving: Any) -> None:
    _, port = await serving(Fcm)
    provider = await opened(fcm_settings(port), Clock())
    with pytest.raises(becomes):
        await provider.send(fresh(address=f"steer-{word}--1"))
