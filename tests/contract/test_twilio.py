"""Twilio beyond the shared suite: its published signature, and how messages and calls are put."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

import providers
from providers import (
    Callback,
    Forged,
    Misconfigured,
    ProviderError,
    Rejected,
    Robocall,
    Unconfirmed,
    Unreachable,
    Unreadable,
)
from tests.contract.cases import CALLBACK_URL, NOW, cases, twilio_settings, twilio_signed
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
    with pytest.raises(Unreadable, match="incomplete"):  # the signature holds; it is only no news
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


async def called(opened: Any, wired: Any, dispatch: providers.Dispatch, **settings: Any) -> dict[str, str]:
    """What Twilio is asked to do."""
    wire = await wired(VOICE)
    provider = await opened(twilio_settings("twilio_voice", wire.port, **settings))
    await provider.send(dispatch)
    asked: dict[str, str] = wire.requests[0].body
    return asked


async def test_who_picks_up_is_asked_only_where_it_is_wanted_and_can_be_told(opened: Any, wired: Any) -> None:
    """https://www.twilio.com/docs/api/errors/21262: with nowhere to tell it, it is billed for nothing."""
    detecting = {"MachineDetection", "AsyncAmd", "AsyncAmdStatusCallback"}
    assert detecting <= set(await called(opened, wired, VOICE.dispatch))
    assert not detecting & set(await called(opened, wired, VOICE.dispatch, machine_detection=False))
    assert not detecting & set(await called(opened, wired, replace(VOICE.dispatch, callback_url=None)))


@pytest.mark.parametrize(
    ("call", "locale", "said"),
    [
        (Robocall(say="a"), "en-GB", '<Say language="en-GB">To get no more calls, press 7.</Say>'),
        (
            Robocall(say="a", language="ja-JP"),
            None,
            '<Say language="ja-JP">今後お電話が不要な方は、7を押してください。</Say>',
        ),
        (Robocall(say="a"), "fi-FI", '<Say language="en-US">To get no more calls, press 7.</Say>'),
        (Robocall(audio_url="https://x.example/a.mp3"), "fr", "appuyez sur le 7.</Say>"),
    ],
)
async def test_the_key_is_named_where_it_is_wanted_and_means_something(
    call: Robocall, locale: str | None, said: str, opened: Any, wired: Any
) -> None:
    named = {"names_key": True, "keys": {1: "confirm", 7: "opt_out"}}
    dispatch = replace(VOICE.dispatch, content=call, locale=locale, unsubscribe_url="https://m.example.com/u/1")
    twiml = (await called(opened, wired, dispatch, **named))["Twiml"]
    # Within the Gather, so that the key counts from the first word on (47 CFR 64.1200(b)(3): within two seconds).
    assert twiml.endswith(f"{said}</Gather></Response>")
    without = (
        (dispatch, {}),
        (replace(dispatch, unsubscribe_url=None), named),
        (replace(dispatch, callback_url=None), named),
        (dispatch, {"names_key": True, "keys": {"1": "confirm"}}),
    )
    for other, settings in without:
        assert said not in (await called(opened, wired, other, **settings))["Twiml"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": {"10": "opt_out"}},
        {"keys": {"#": "opt_out"}},
        {"keys": {"9": "stop"}},
        {"stop_reply": {"en-GB": "Bye"}},
        {"stop_reply": {"en": ""}},
        {"stop_reply": {"en": "a\0b"}},
        {"stop_reply": "Bye"},
    ],
)
def test_what_no_call_could_do_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        twilio_settings("twilio_voice", 1, **wrong)


@pytest.mark.parametrize("wrong", ["", "a\x1bb", "x" * 1601])
def test_what_no_text_could_say_is_refused(wrong: str) -> None:
    for name in ("stop_reply", "start_reply", "help_reply"):
        assert twilio_settings("twilio_sms", 1, **{name: "Reply STOP to opt out"})
        with pytest.raises(ValidationError):
            twilio_settings("twilio_sms", 1, **{name: wrong})


def test_a_key_that_says_no_needs_to_know_whose_it_is() -> None:
    callback = twilio_signed(
        {"CallSid": "CA1", "CallStatus": "in-progress", "Digits": "9"}, {"attempt": "a", "say": ""}
    )
    with pytest.raises(Unreadable, match="incomplete"):
        providers.build("call", VOICE.settings(1)).receipts(callback)


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
