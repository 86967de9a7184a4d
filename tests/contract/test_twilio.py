"""Twilio beyond the shared suite: its published signature, and how messages and calls are put."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

import providers
from providers import Callback, Forged, Misconfigured, ProviderError, Rejected, Robocall, Unconfirmed, Unreachable
from tests.contract.cases import CALLBACK_URL, NOW, cases, twilio_settings
from tests.vendors import twilio

SMS, VOICE = cases()["twilio_sms"], cases()["twilio_voice"]


@pytest.mark.parametrize("port", ["", ":443"])
def test_the_signature_is_the_one_that_twilio_publishes(port: str) -> None:
    """https://www.twilio.com/docs/usage/security and the vendor's own libraries' tests: token, URL, form, signature."""
    settings = twilio_settings("twilio_sms", 1, auth_token="12345")
    url = f"https://mycompany.com{port}/myapp.php?foo=1&bar=2"
    body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
    callback = Callback(
        url, {"attempt": "a", "foo": "1", "bar": "2"}, {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}, body
    )
    provider = providers.build("text", settings)
    with pytest.raises(Forged, match="incomplete"):  # the signature holds; it is only no news
        provider.receipts(callback)
    with pytest.raises(Forged, match="signature"):
        provider.receipts(replace(callback, body=body.replace(b"1234&", b"1235&")))


@pytest.mark.parametrize(("valid", "seconds"), [(-5, "1"), (0.5, "1"), (61, "61"), (10**6, "36000")])
async def test_the_vendor_is_told_when_to_give_up(valid: float, seconds: str, opened: Any, wired: Any) -> None:
    """https://www.twilio.com/docs/api/errors/90007: 1 to 36,000."""
    wire = await wired(SMS)
    provider = await opened(SMS.settings(wire.port))
    await provider.send(replace(SMS.dispatch, valid_until=NOW + timedelta(seconds=valid)))
    assert wire.requests[0].body["ValidityPeriod"] == seconds


async def test_a_messaging_service_sends_too(opened: Any, wired: Any) -> None:
    wire = await wired(SMS)
    service = "MG00000000000000000000000000000001"
    provider = await opened(twilio_settings("twilio_sms", wire.port, sender=service))
    await provider.send(replace(SMS.dispatch, callback_url=None))
    assert wire.requests[0].body["MessagingServiceSid"] == service
    assert not {"From", "StatusCallback"} & set(wire.requests[0].body)


@pytest.mark.parametrize("sender", ["", "5550006x!", "A name of 12 c", "+0123", "+1500555000600000"])
def test_a_sender_that_cannot_be_is_refused(sender: str) -> None:
    for kind in ("twilio_sms", "twilio_voice"):
        with pytest.raises(ValidationError):
            twilio_settings(kind, 1, sender=sender)


@pytest.mark.parametrize("sender", ["+15005550006", "12345", "Example Co", "MG0a"])
def test_senders_of_all_sorts(sender: str) -> None:
    assert twilio_settings("twilio_sms", 1, sender=sender)


async def test_a_recording_is_played(opened: Any, wired: Any) -> None:
    wire = await wired(VOICE)
    provider = await opened(VOICE.settings(wire.port))
    call = Robocall(audio_url="https://example.com/a.mp3?x=1&y=2")
    await provider.send(replace(VOICE.dispatch, content=call, callback_url=None))
    twiml = "<Response><Play>https://example.com/a.mp3?x=1&amp;y=2</Play></Response>"
    assert wire.requests[0].body["Twiml"] == twiml
    assert "StatusCallback" not in wire.requests[0].body


async def test_the_contents_language_comes_first(opened: Any, wired: Any) -> None:
    wire = await wired(VOICE)
    provider = await opened(VOICE.settings(wire.port))
    await provider.send(replace(VOICE.dispatch, content=Robocall(say="やあ", language="ja-JP")))
    assert '<Say language="ja-JP">やあ</Say>' in wire.requests[0].body["Twiml"]


@pytest.mark.parametrize(
    "call",
    [
        Robocall(audio_url="file:///etc/passwd"),
        Robocall(audio_url="javascript:x"),
        Robocall(say="a\0b"),
        Robocall(say="a\x1bb"),
        Robocall(say="a\ufffeb"),
        Robocall(say="a", language="\x02"),
        Robocall(say="a" * 4000),
    ],
)
async def test_what_no_call_can_say_is_rejected(call: Robocall, opened: Any, wired: Any) -> None:
    wire = await wired(VOICE)
    provider = await opened(VOICE.settings(wire.port))
    with pytest.raises(Rejected):
        await provider.send(replace(VOICE.dispatch, content=call))
    assert wire.requests == []


@pytest.mark.parametrize(
    ("kind", "number", "becomes", "code"),
    [
        ("twilio_sms", "0001", Unreachable, "21211"),
        ("twilio_sms", "0004", Unreachable, "21610"),
        ("twilio_sms", "0009", Unreachable, "21614"),
        ("twilio_sms", "0003", Misconfigured, "21408"),
        ("twilio_voice", "0002", Unreachable, "21214"),
        ("twilio_sms", "9503", Unconfirmed, "20503"),
        ("twilio_sms", "9989", Unconfirmed, "reset"),
        ("twilio_sms", "9997", Unconfirmed, "bad_reply"),
        ("twilio_voice", "9999", Unconfirmed, "reset"),
    ],
)
async def test_the_strict_vendor_is_steered_by_the_number(
    kind: str, number: str, becomes: type[ProviderError], code: str, opened: Any, serving: Any
) -> None:
    case = cases()[kind]
    vendor, port = await serving(twilio.Twilio)
    provider = await opened(case.settings(port))
    with pytest.raises(becomes) as caught:
        await provider.send(replace(case.dispatch, address=f"+1500555{number}"))
    assert caught.value.code == code
    assert len(vendor.ledger.entries) == (number in {"9997", "9999"})


async def test_a_wrong_key_is_our_fault(opened: Any, serving: Any) -> None:
    _, port = await serving(twilio.Twilio)
    provider = await opened(twilio_settings("twilio_sms", port, auth_token="wrong"))
    with pytest.raises(Misconfigured) as caught:
        await provider.send(SMS.dispatch)
    assert caught.value.code == "20003"


def test_an_attempt_of_another_account_is_forged() -> None:
    fields = [("AccountSid", "AC0002"), ("MessageSid", "SM42"), ("MessageStatus", "sent")]
    headers = {"x-twilio-signature": twilio.signature(CALLBACK_URL, fields)}
    body = b"AccountSid=AC0002&MessageSid=SM42&MessageStatus=sent"
    with pytest.raises(Forged, match="account"):
        providers.build("text", SMS.settings(1)).receipts(Callback(CALLBACK_URL, {"attempt": "a"}, headers, body))
