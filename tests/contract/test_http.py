"""The vendor described in YAML: its template, its statuses, its idempotency key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import providers
from providers import (
    Channel,
    Email,
    LooksUp,
    Misconfigured,
    Push,
    Receipt,
    ReceiptStatus,
    Rejected,
    Robocall,
    Sms,
    Throttled,
    Unavailable,
    Unconfirmed,
)
from tests.contract.cases import ATTEMPT, MESSAGE, NOW, cases, http_settings
from tests.contract.wire import RESET, json_reply, reply
from tests.vendors import http

CASE = cases()["http"]


def looking(port: int = 1, **more: Any) -> dict[str, Any]:
    """How a vendor is asked that answers with a list."""
    return {
        "url": f"http://127.0.0.1:{port}/v1/messages?ref={{attempt}}",
        "reply": {"status": "items.0.state", "reference": "items.0.id", "code": "items.0.fault"},
        "statuses": {"queued": "accepted", "done": "delivered", "lost": "undelivered", 7: "unreachable"},
        **more,
    }


async def filled(body: Any, opened: Any, wired: Any, content: Any = CASE.dispatch.content, **more: Any) -> Any:
    wire = await wired(CASE)
    provider = await opened(http_settings(wire.port, body=body, **more))
    await provider.send(replace(CASE.dispatch, content=content))
    return wire.requests[0].body


async def test_every_placeholder_is_replaced(opened: Any, wired: Any) -> None:
    from providers.http import PLACEHOLDERS

    sent = await filled({name: f"<{{{name}}}>" for name in PLACEHOLDERS}, opened, wired)
    content = {"text": CASE.dispatch.content.text}  # type: ignore[union-attr]
    of = {
        "address": "+447700900123",
        "attempt": ATTEMPT,
        "message": MESSAGE,
        "callback_url": CASE.dispatch.callback_url,
    }
    assert sent == {name: f"<{({'valid_seconds': '3600'} | of | content).get(name, '')}>" for name in PLACEHOLDERS}


@pytest.mark.parametrize(
    ("content", "text", "title"),
    [
        (Sms("a"), "a", ""),
        (Email("s", "a", "<p>"), "a", "s"),
        (Email("s", None, "<p>"), "", "s"),
        (Push("t", "a"), "a", "t"),
        (Robocall(say="a"), "a", ""),
    ],
)
async def test_a_placeholder_means_the_like_in_each_content(
    content: Any, text: str, title: str, opened: Any, wired: Any
) -> None:
    sent = await filled({"text": "{text}", "title": "{title}"}, opened, wired, content, channels=list(Channel))
    assert sent == {"text": text, "title": title}


async def test_the_template_may_be_deep(opened: Any, wired: Any) -> None:
    body = {"a": [{"b": ["{text}{text}", 1, None, True, 2.5]}, "{valid_seconds}", "{valid_seconds}s"], "c": "{{x}}"}
    assert await filled(body, opened, wired, Sms('"\\')) == {
        "a": [{"b": ['"\\"\\', 1, None, True, 2.5]}, 3600, "3600s"],
        "c": "{x}",
    }


async def test_a_form_is_a_form(opened: Any, wired: Any) -> None:
    body = {"to": "{address}", "a&b": "c=d {text}", "n": 7, "yes": True, "ttl": "{valid_seconds}"}
    sent = await filled(body, opened, wired, Sms("1 & 2 + ü"), encoding="form")
    assert sent == {"to": "+447700900123", "a&b": "c=d 1 & 2 + ü", "n": "7", "yes": "true", "ttl": "3600"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_breaks_out_of_its_place(text: str) -> None:
    import json

    for encoding in ("json", "form"):
        settings = http_settings(1, body={"a": "{text}", "b": "x"}, encoding=encoding)
        raw = providers.build("given", settings)._fill(replace(CASE.dispatch, content=Sms(text)))  # type: ignore[attr-defined]
        if encoding == "json":
            assert json.loads(raw) == {"a": text, "b": "x"}
        else:
            assert raw.decode() == urlencode({"a": text, "b": "x"})
            assert parse_qs(raw.decode(), keep_blank_values=True) == {"a": [text], "b": ["x"]}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"body": {"a": "{nonsense}"}}, "nonsense"),
        ({"body": {"a": ["{Text}"]}}, "brace"),
        ({"body": {"a": "{"}}, "brace"),
        ({"body": {"a": "}"}}, "brace"),
        ({"body": {"a": "{text!r}"}}, "brace"),
        ({"body": {"a": "{text.__class__}"}}, "brace"),
        ({"body": {"{text}": "a"}}, "values"),
        ({"body": {"a": "\0"}}, "NUL"),
        ({"body": {"a": "\\u0000text"}}, "NUL"),
        ({"body": {"a": ["x"]}, "encoding": "form"}, "flat"),
        ({"body": {"a": None}, "encoding": "form"}, "flat"),
        ({"url": "ftp://x/"}, "http"),
        ({"url": "/v1"}, "http"),
        ({"headers": {"a b": "c"}}, "header"),
        ({"headers": {"a": "b\r\nc: d"}}, "control"),
        ({"statuses": {"4": "rejected"}}, "status"),
        ({"statuses": {"404": "gone"}}, "404"),
        ({"method": "GET"}, "PUT"),
        ({"channels": []}, "channels"),
        ({"idempotency_header": None}, "together"),
        ({"idempotency_window": None}, "together"),
        ({"reply": {"id": "a"}}, "reference"),
        (
            {"look_up": {"url": "https://x/", "reply": {"status": "a"}, "statuses": {"b": "accepted"}}},
            "reference belongs",
        ),
        ({"look_up": looking(url="/a/{attempt}")}, "http"),
        ({"look_up": looking(url="https://x/{attempt}/{message}")}, "no other brace"),
        ({"look_up": looking(reply={"reference": "a"})}, "where the status is"),
        ({"look_up": looking(reply={"status": "a", "state": "b"})}, "state"),
        ({"look_up": looking(statuses={})}, "statuses"),
        ({"look_up": looking(statuses={"b": "sent"})}, "accepted"),
        ({"look_up": looking(), "body": {"to": "{address}"}}, "look_up finds nothing"),
    ],
)
def test_a_faulty_description_is_refused_with_its_reason(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        http_settings(1, **wrong)


@pytest.mark.parametrize(
    ("statuses", "status", "becomes"),
    [
        ({}, 404, Rejected),
        ({"4xx": "misconfigured"}, 404, Misconfigured),
        ({"4xx": "misconfigured", "404": "unavailable"}, 404, Unavailable),
        ({"5xx": "throttled"}, 503, Throttled),
        ({"2xx": "unconfirmed"}, 202, Unconfirmed),
        ({200: "rejected"}, 200, Rejected),
    ],
)
async def test_a_status_means_what_is_said(
    statuses: dict[str, str], status: int, becomes: Any, opened: Any, wired: Any
) -> None:
    wire = await wired(CASE, answer=reply(status, b""))
    provider = await opened(http_settings(wire.port, statuses=statuses))
    with pytest.raises(becomes):
        await provider.send(CASE.dispatch)


async def test_without_a_reference_the_status_decides(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, answer=reply(202, b"thanks"))
    provider = await opened(http_settings(wire.port, reply={}))
    assert await provider.send(CASE.dispatch) == ATTEMPT


async def test_a_reference_may_be_a_number(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, answer=json_reply(200, {"id": 42}))
    provider = await opened(http_settings(wire.port, reply={"reference": "id"}))
    assert await provider.send(CASE.dispatch) == "42"


async def test_put_is_not_repeated_on_a_dead_connection(opened: Any, wired: Any) -> None:
    """aiohttp would, for it holds PUT to be idempotent."""
    wire = await wired(CASE, after=RESET)
    provider = await opened(http_settings(wire.port, method="PUT"))
    await provider.send(CASE.dispatch)
    with pytest.raises(Unconfirmed):
        await provider.send(CASE.dispatch)
    assert [request.target for request in wire.requests] == ["PUT /v1/messages"] * 2


@pytest.mark.parametrize(
    ("answer", "becomes"),
    [
        ({"items": [{"state": "queued", "id": 42}]}, Receipt(ATTEMPT, ReceiptStatus.ACCEPTED, "42", "queued")),
        (
            {"items": [{"state": "lost", "id": "v", "fault": "E1"}]},
            Receipt(ATTEMPT, ReceiptStatus.UNDELIVERED, "v", "lost", "E1"),
        ),
        ({"items": [{"state": 7}]}, Receipt(ATTEMPT, ReceiptStatus.UNREACHABLE, ATTEMPT, "7")),
        ({"items": [{"state": "strange"}]}, Receipt(ATTEMPT, ReceiptStatus.OTHER, ATTEMPT, "strange")),
        ({"items": []}, None),
        ({"items": [{"state": None}]}, None),
        ({"items": [{"state": {"x": 1}}]}, None),
        ({"items": [{"state": "x" * 256}]}, None),
        ({}, None),
    ],
)
async def test_a_vendor_is_asked_by_our_reference(
    answer: Any, becomes: Receipt | None, opened: Any, wired: Any
) -> None:
    wire = await wired(CASE, answer=json_reply(200, answer))
    provider = await opened(http_settings(wire.port, look_up=looking(wire.port)))
    assert isinstance(provider, LooksUp)
    assert provider.can_look_up
    assert await provider.look_up(ATTEMPT) == becomes
    (asked,) = wire.requests
    assert asked.target == f"GET /v1/messages?ref={ATTEMPT}"
    assert asked.headers["authorization"] == f"Bearer {http.KEY}"


@pytest.mark.parametrize(
    ("answer", "becomes"),
    [
        (reply(404, b"nothing"), None),
        (reply(401, b""), Misconfigured),
        (reply(429, b""), Throttled),
        (reply(302, b"", "Location: http://elsewhere.example/"), Misconfigured),
        (reply(500, b""), Unconfirmed),
        (reply(200, b"<html>"), Unconfirmed),
        (b"", Unconfirmed),
    ],
    ids=["404", "401", "429", "302", "500", "html", "reset"],
)
async def test_a_vendor_that_does_not_tell_changes_nothing(
    answer: bytes, becomes: Any, opened: Any, wired: Any
) -> None:
    wire = await wired(CASE, answer=answer or RESET)
    provider = await opened(http_settings(wire.port, look_up=looking(wire.port), timeout=2))
    if becomes is None:
        assert await provider.look_up(ATTEMPT) is None
    else:
        with pytest.raises(becomes):
            await provider.look_up(ATTEMPT)


async def test_what_is_asked_once_is_not_kept(opened: Any, wired: Any) -> None:
    wire = await wired(CASE, answer=json_reply(200, {}))
    provider = await opened(http_settings(wire.port, look_up=looking(wire.port)))
    for number in range(5):
        await provider.look_up(f"{number:026d}")
    assert len(provider._client._routes) == 0
    assert wire.connections == 1


def test_who_says_nothing_of_it_cannot_be_asked() -> None:
    assert not providers.build("given", http_settings(1)).can_look_up  # type: ignore[attr-defined]


async def test_a_deliberate_repeat_is_another_message_to_a_vendor_that_dedupes(opened: Any, serving: Any) -> None:
    vendor, port = await serving(http.Http)
    provider = await opened(CASE.settings(port), lambda: datetime.now(UTC))
    message = replace(CASE.dispatch, deadline=datetime.now(UTC) + timedelta(minutes=1))
    keys = [replace(message, generation=generation).key for generation in (1, 2)]
    assert keys == [MESSAGE, f"{MESSAGE}-2"]
    await provider.send(message)
    await provider.send(replace(message, generation=2))
    assert len(vendor.ledger.entries) == 2


async def test_a_repeat_is_the_same_message_to_a_vendor_that_dedupes(opened: Any, serving: Any) -> None:
    vendor, port = await serving(http.Http)
    provider = await opened(CASE.settings(port), lambda: datetime.now(UTC))
    message = replace(CASE.dispatch, deadline=datetime.now(UTC) + timedelta(minutes=1))
    references = {await provider.send(replace(message, attempt=f"{n:026d}")) for n in range(3)}
    assert len(references) == len(vendor.ledger.entries) == 1


def test_windows_are_written_as_people_write_them() -> None:
    for text, window in (("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800), ("1h30m", 5400)):
        assert providers.build("given", http_settings(1, idempotency_window=text)).dedupe_window == timedelta(
            seconds=window
        )
    assert (
        providers.build("x", http_settings(1, idempotency_header=None, idempotency_window=None)).dedupe_window is None
    )
    assert providers.channels(http_settings(1)) == {Channel.SMS, Channel.PUSH}
    assert NOW.tzinfo is UTC
