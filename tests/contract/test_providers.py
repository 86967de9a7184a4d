"""What every provider must do, whoever its vendor is."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
from pydantic import ValidationError

import providers
from providers import (
    Callback,
    CallsBack,
    Channel,
    Forged,
    Misconfigured,
    ProviderError,
    Unavailable,
    Unconfirmed,
    Unreadable,
)
from tests.contract.cases import ATTEMPT, NOW, Case, cases
from tests.contract.wire import RESET, SILENCE, HttpWire, reply
from tests.vendors.ledger import Ledger

CASES = cases()
WIRED = [kind for kind, case in CASES.items() if case.wire]
WEB = [kind for kind, case in CASES.items() if case.wire and issubclass(case.wire, HttpWire)]
CHANNELS = {"smtp": Channel.EMAIL, "twilio_sms": Channel.SMS, "twilio_voice": Channel.ROBOCALL, "fcm": Channel.PUSH}

every = pytest.mark.parametrize("kind", CASES)
wired_kinds = pytest.mark.parametrize("kind", WIRED)


def short(case: Case, port: int, seconds: float) -> providers.Settings:
    """The case's settings with another patience."""
    settings = case.settings(port)
    return settings.model_copy(update={"timeout": seconds, "data_timeout": seconds})


def test_every_provider_has_a_case_and_every_case_a_provider() -> None:
    assert set(providers.kinds()) == set(CASES)


@every
def test_it_is_what_the_configuration_asks_for(kind: str) -> None:
    settings = CASES[kind].settings(1)
    provider = providers.build("given", settings)
    assert type(settings) is providers.settings_of(kind)
    assert settings.kind == kind
    assert providers.channels(settings) <= provider.CHANNELS <= set(Channel)
    assert provider.dedupe_window == (timedelta(hours=24) if kind == "http" else None)
    with pytest.raises(ValidationError):
        type(settings).model_validate({**settings.model_dump(), "surprise": 1})


@wired_kinds
async def test_it_asks_what_the_vendor_documents(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case)
    provider = await opened(case.settings(wire.port))
    assert await provider.send(case.dispatch) == case.reference
    (request,) = wire.requests
    assert request.target == case.target
    assert {name: request.headers.get(name) for name in case.headers} == case.headers
    assert request.body == case.body


@wired_kinds
async def test_the_strict_vendor_accepts_it(kind: str, opened: Any, serving: Any) -> None:
    case = CASES[kind]
    assert case.vendor is not None
    _, port = await serving(case.vendor, ledger := Ledger())
    provider = await opened(case.settings(port), lambda: datetime.now(UTC))
    now = datetime.now(UTC)
    dispatch = replace(case.dispatch, deadline=now + timedelta(seconds=30), valid_until=now + timedelta(days=60))
    reference = await provider.send(dispatch)
    (entry,) = ledger.entries
    assert entry["address"] == case.dispatch.address
    assert entry["reference"] == reference
    assert entry["channel"] in providers.channels(case.settings(1))
    if kind != "fcm":  # reports to nobody, so it is not told our attempt
        assert entry["attempt"] == ATTEMPT


@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind in WIRED for n in range(len(CASES[kind].answers))])
async def test_an_answer_becomes_what_it_says(kind: str, number: int, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    answer = case.answers[number]
    wire = await wired(case, answer=answer.raw)
    provider = await opened(case.settings(wire.port))
    with pytest.raises(ProviderError) as caught:
        await provider.send(case.dispatch)
    assert type(caught.value) is answer.becomes
    assert caught.value.code == answer.code
    assert getattr(caught.value, "retry_after", None) == answer.retry_after
    assert case.dispatch.address not in str(caught.value)


@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind in WIRED for n in range(len(CASES[kind].garbage))])
async def test_an_answer_that_is_none_leaves_it_unconfirmed(kind: str, number: int, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    garbage = case.garbage[number]
    wire = await wired(case, answer=garbage)
    provider = await opened(short(case, wire.port, 0.3))
    with pytest.raises(Unconfirmed):
        await provider.send(case.dispatch)
    # A huge answer was left lying: what was taken is the cap and what fits into sockets' buffers.
    assert wire.written <= min(len(garbage) + 65536, 12_000_000)


@wired_kinds
async def test_a_refused_connection_is_certainly_not_sent(kind: str, opened: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        provider = await opened(CASES[kind].settings(taken.getsockname()[1]))
        with pytest.raises(Unavailable) as caught:
            await provider.send(CASES[kind].dispatch)
    assert caught.value.code.removeprefix("token_") == "refused"


@wired_kinds
async def test_an_unknown_host_is_certainly_not_sent(kind: str, opened: Any) -> None:
    settings = CASES[kind].settings(1)
    # RFC 6761, 6.4: never resolves.
    there = {
        name: getattr(settings, name).replace("127.0.0.1", "vendor.invalid")
        for name in ("base_url", "url", "host")
        if hasattr(settings, name)
    }
    if kind == "fcm":
        there["token_url"] = "http://vendor.invalid/token"
    provider = await opened(settings.model_copy(update=there))
    with pytest.raises(Unavailable) as caught:
        await provider.send(CASES[kind].dispatch)
    assert caught.value.code.removeprefix("token_") == "dns"


@wired_kinds
async def test_silence_after_the_message_is_unconfirmed(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case, answer=SILENCE)
    provider = await opened(short(case, wire.port, 0.2))
    with pytest.raises(Unconfirmed) as caught:
        await provider.send(case.dispatch)
    assert caught.value.code == "timeout"
    assert len(wire.requests) == 1


@wired_kinds
async def test_a_reset_after_the_message_is_unconfirmed_and_not_repeated(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case, answer=RESET)
    provider = await opened(case.settings(wire.port))
    with pytest.raises(Unconfirmed) as caught:
        await provider.send(case.dispatch)
    assert caught.value.code == "reset"
    assert len(wire.requests) == 1


@wired_kinds
async def test_a_reset_on_a_kept_connection_is_not_repeated_either(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case, after=RESET)
    provider = await opened(case.settings(wire.port))
    await provider.send(case.dispatch)
    with pytest.raises(Unconfirmed):
        await provider.send(case.dispatch)
    assert (len(wire.requests), wire.connections) == (2, 1)


@pytest.mark.parametrize("kind", WEB)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(kind: str, status: int, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    elsewhere = await wired(case)
    there = f"http://127.0.0.1:{elsewhere.port}{urlsplit(case.target.split()[1]).path}"
    wire = await wired(case, answer=reply(status, b"", f"Location: {there}"))
    provider = await opened(case.settings(wire.port))
    with pytest.raises(Misconfigured) as caught:
        await provider.send(case.dispatch)
    assert caught.value.code == f"http_{status}"
    assert (len(wire.requests), elsewhere.connections) == (1, 0)


@wired_kinds
async def test_sends_share_a_connection(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case)
    provider = await opened(case.settings(wire.port))
    assert [await provider.send(case.dispatch) for _ in range(3)] == [case.reference] * 3
    assert wire.connections == 1


@wired_kinds
async def test_concurrent_sends_do_not_mix_up(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case)
    provider = await opened(case.settings(wire.port))
    assert await asyncio.gather(*[provider.send(case.dispatch) for _ in range(50)]) == [case.reference] * 50
    assert len(wire.requests) == 50


@wired_kinds
async def test_a_cancelled_send_harms_no_other(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case, answer=SILENCE, after=case.wire and case.wire.ACCEPTED)
    provider = await opened(case.settings(wire.port))
    cancelled = asyncio.create_task(provider.send(case.dispatch))
    await wire.received()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await provider.send(case.dispatch) == case.reference
    assert len(wire.requests) == 2


@every
async def test_nothing_is_written_after_the_deadline(kind: str, opened: Any, wired: Any) -> None:
    case = CASES[kind]
    wire = await wired(case) if case.wire else None
    provider = await opened(case.settings(wire.port if wire else 1))
    with pytest.raises(Unavailable) as caught:
        await provider.send(replace(case.dispatch, deadline=NOW))
    assert caught.value.code == "deadline"
    assert wire is None or wire.requests == []


@wired_kinds
async def test_the_deadline_is_read_last_of_all_before_the_first_byte(kind: str, opened: Any, wired: Any) -> None:
    """The clock is read so and so often before a message goes out. If the last reading is late, it does not."""
    case = CASES[kind]
    readings = 0
    late_from = 1_000

    def clock() -> datetime:
        nonlocal readings
        readings += 1
        return NOW if readings < late_from else NOW + timedelta(minutes=1)

    async def send() -> Any:
        nonlocal readings
        readings = 0
        counted: list[int] = []
        wire = await wired(case, observe=lambda: counted.append(readings))
        provider = await opened(case.settings(wire.port), clock)
        try:
            await provider.send(case.dispatch)
        finally:
            sent.append((wire, *counted))

    sent: list[Any] = []
    await send()
    late_from = sent[0][1]
    with pytest.raises(Unavailable) as caught:
        await send()
    assert caught.value.code == "deadline"
    wire = sent[1][0]
    assert wire.requests == []
    assert wire.connections == 1  # the connection stood, and nothing went over it


@every
async def test_a_secret_appears_nowhere(kind: str, opened: Any, wired: Any, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[kind]
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    chained: list[BaseException | None] = []
    seen = [repr(case.settings(1)), str(case.settings(1)), case.settings(1).model_dump_json()]
    if case.wrong:
        with pytest.raises(ValidationError) as refused:
            providers.settings_of(kind).model_validate(case.wrong)
        seen += [str(refused.value), repr(refused.value)]
    if case.wire:
        for answer in (None, RESET, reply(401, b"go away"), reply(500, b""), reply(302, b"", "Location: /")):
            wire = await wired(case, answer=answer)
            provider = await opened(case.settings(wire.port))
            seen += [repr(provider), str(vars(provider))]
            try:
                await provider.send(case.dispatch)
            except ProviderError as error:
                seen += [str(error), repr(error), *traceback.format_exception(error)]
                chained.append(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    assert not any(chained)  # a library's exception knows the URL and the headers
    everything = "\n".join(seen) + caplog.text
    for secret in (*case.secrets, case.dispatch.address if case.wire else "\0"):
        assert secret not in everything


CALLBACKS = [(kind, n) for kind, case in CASES.items() for n in range(len(case.callbacks))]
SIGNED = [kind for kind, case in CASES.items() if case.callbacks]


def standing(kind: str) -> Any:
    """The provider of a case, whose clock stands still."""
    return importlib.import_module(f"providers.{kind}").Provider("given", CASES[kind].settings(1), lambda: NOW)


@pytest.mark.parametrize(("kind", "number"), CALLBACKS)
def test_a_callback_brings_its_news(kind: str, number: int) -> None:
    reported = CASES[kind].callbacks[number]
    provider = standing(kind)
    # The vendor repeats itself, and says the same: receipts() is pure.
    for _ in range(2):
        news = provider.receipts(reported.callback)
        assert tuple(news) == reported.news
        answer = provider.answer(reported.callback, news) if isinstance(provider, providers.Answers) else None
        assert (answer and ET.canonicalize(answer.body)) == (reported.answer and ET.canonicalize(reported.answer))
        assert answer is None or answer.content_type == "text/xml"


@pytest.mark.parametrize(("kind", "number"), CALLBACKS)
def test_a_forged_callback_is_refused(kind: str, number: int) -> None:
    case = CASES[kind]
    callback = case.callbacks[number].callback
    provider = standing(kind)
    good = callback.headers[case.signature]

    def signed(signature: str) -> Callback:
        return replace(callback, headers={**callback.headers, case.signature: signature})

    without = {name: value for name, value in callback.headers.items() if name != case.signature}
    tampered = [callback.body.replace(b"SM42", b"SM43"), callback.body.replace(ATTEMPT.encode(), b"0" * 26)]
    forged = [
        replace(callback, headers={}),
        replace(callback, headers=without),
        signed(""),
        signed(good[:-2]),
        signed(good[1:]),
        signed(good.swapcase()),
        signed("ü" * 28),
        signed("\udcff" * 28),  # a byte that is no UTF-8, as the listener hands it on
        *(other for other in [case.another(callback)] if other != callback),
        *(replace(callback, body=body) for body in tampered if body != callback.body),
        replace(callback, body=callback.body + b"&Extra=1"),
        replace(callback, body=b""),
        replace(callback, body=b"\xff\xfe"),
        replace(callback, body=b"%ff=%ff"),
        replace(callback, body=b'{"MessageSid": "SM42"}'),
        replace(callback, body=b"a=b&" * 1000 + callback.body),
        *[replace(callback, body=callback.body[:cut]) for cut in range(len(callback.body))],
    ]
    for fake in forged:
        with pytest.raises(Forged):
            provider.receipts(fake)


@pytest.mark.parametrize("kind", ["twilio_sms", "twilio_voice"])
def test_a_genuine_callback_without_news_is_refused(kind: str) -> None:
    """The vendor signs other requests with the same key."""
    from tests.vendors.twilio import ACCOUNT_SID, signature

    provider = standing(kind)
    callback = CASES[kind].callbacks[0].callback
    for body in (f"AccountSid={ACCOUNT_SID}", "MessageSid=SM42&CallSid=SM42", "AccountSid=AC9&MessageSid=SM42"):
        fields = [tuple(pair.split("=")) for pair in body.split("&")]
        headers = {"x-twilio-signature": signature(callback.url, fields)}  # type: ignore[arg-type]
        with pytest.raises(Forged if "AC9" in body else Unreadable):
            provider.receipts(replace(callback, body=body.encode(), headers=headers))
    headers = {"x-twilio-signature": signature("https://m.example.com/callbacks/text", [("a", "b")])}
    with pytest.raises(Unreadable):
        provider.receipts(
            replace(callback, url="https://m.example.com/callbacks/text", query={}, body=b"a=b", headers=headers)
        )


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind not in SIGNED])
def test_who_has_no_callbacks_reports_nothing(kind: str) -> None:
    assert not isinstance(standing(kind), CallsBack)


@wired_kinds
async def test_content_of_another_channel_is_rejected(kind: str, opened: Any, wired: Any) -> None:
    if kind == "http":
        return  # takes what its template takes
    wire = await wired(CASES[kind])
    provider = await opened(CASES[kind].settings(wire.port))
    for other in ("smtp", "twilio_sms", "twilio_voice", "fcm"):
        if other != kind:
            with pytest.raises(providers.Rejected):
                await provider.send(replace(CASES[kind].dispatch, content=CASES[other].dispatch.content))
    assert wire.requests == []


@wired_kinds
async def test_half_a_surrogate_pair_is_rejected(kind: str, opened: Any, wired: Any) -> None:
    """JSON can bring it in, and no encoding can take it out."""
    wire = await wired(CASES[kind])
    provider = await opened(CASES[kind].settings(wire.port))
    content = CASES[kind].dispatch.content
    name = {"smtp": "subject", "fcm": "title", "twilio_voice": "say"}.get(kind, "text")
    with pytest.raises(providers.Rejected):
        await provider.send(replace(CASES[kind].dispatch, content=replace(content, **{name: "\ud800"})))  # type: ignore[type-var,arg-type]
    assert wire.requests == []
