"""Is what a vendor reports read as YAML describes it, and nobody else believed?"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import providers
from providers import Act, Acted, Agent, Callback, CallsBack, Forged, Receipt, ReceiptStatus, Unread, Unreadable
from tests.contract.cases import ATTEMPT, CALLBACK_URL, NOW, cases, dispatch, http_callbacks, http_settings
from tests.vendors import http

BODY = json.dumps({"events": [{"type": "arrived", "data": {"ref": ATTEMPT}}]}).encode()
DELIVERED = Receipt(ATTEMPT, ReceiptStatus.DELIVERED, ATTEMPT, "arrived")
ANSWERED = Acted(ATTEMPT, Act.ANSWERED, Agent.HUMAN)
TOKEN = "0123456789abcdef-TOKEN"
SECRET = "Jefe"
SHA1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
SHA512 = (
    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
)


def described(now: datetime = NOW, **callbacks: Any) -> CallsBack:
    settings = http_settings(1, callbacks=http_callbacks(**callbacks))
    provider: CallsBack = importlib.import_module("providers.http").Provider("given", settings, lambda: now)
    return provider


def reported(body: bytes = BODY, path: str = "", query: str = "", **headers: str) -> Callback:
    pairs = dict([query.split("=")]) if query else {}
    url = f"https://m.example.com/callbacks/text{path}" + (f"?{query}" if query else "")
    return Callback(url, pairs, {"content-type": "application/json", **headers}, body)


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    ("algorithm", "encoding", "digest"),
    [
        # RFC 4231, 4.3, and RFC 2202, 3: key "Jefe".
        ("sha256", "hex", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("sha512", "hex", SHA512),
        ("sha512", "base64", base64.b64encode(bytes.fromhex(SHA512)).decode()),
        ("sha1", "hex", SHA1),
        ("sha1", "base64", base64.b64encode(bytes.fromhex(SHA1)).decode()),
    ],
)
@pytest.mark.parametrize("prefix", ["", "sha=", "v0="])
def test_a_signature_is_the_one_of_the_standards(algorithm: str, encoding: str, digest: str, prefix: str) -> None:
    signature = {"header": "X-Sig", "secret": SECRET, "algorithm": algorithm, "encoding": encoding, "prefix": prefix}
    provider = described(signature=signature)
    for given in {prefix + digest, prefix + (digest.upper() if encoding == "hex" else digest)}:
        with pytest.raises(Unreadable, match="not_json"):  # the signature holds; it is only no news
            provider.receipts(reported(b"what do ya want for nothing?", **{"x-sig": given}))
    other = "x" * len(prefix) if prefix else "v1="
    with pytest.raises(Forged, match="missing_header"):
        provider.receipts(reported(b"what do ya want for nothing?", **{"x-sig": ""}))
    for given in (other + digest, prefix or "x", prefix + digest[:-2], f"v0={prefix}{digest}", f"{prefix}{digest}x"):
        with pytest.raises(Forged, match="signature"):
            provider.receipts(reported(b"what do ya want for nothing?", **{"x-sig": given}))


SLACK = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
"""https://docs.slack.dev/authentication/verifying-requests-from-slack: a form, signed with its time."""
SLACK_AT = datetime.fromtimestamp(1531420618, UTC)


@pytest.mark.parametrize(
    ("late", "doubt"),
    [(0, None), (299, None), (-299, None), (301, "too_old"), (-301, "ahead"), (10**7, "too_old")],
)
def test_a_form_that_is_signed_with_its_time_is_as_slack_publishes_it(late: int, doubt: str | None) -> None:
    signature = {
        "header": "X-Slack-Signature",
        "secret": "8f742231b10e8888abcd99yyyzzz85a5",
        "prefix": "v0=",
        "payload": "v0:{timestamp}:{body}",
        "timestamp_header": "X-Slack-Request-Timestamp",
    }
    provider = described(
        SLACK_AT + timedelta(seconds=late),
        signature=signature,
        each=None,
        fields={"status": "command", "reference": "trigger_id"},
        statuses={"/webhook-collect": "delivered"},
    )
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "x-slack-request-timestamp": "1531420618",
    }
    callback = reported(SLACK, query=f"attempt={ATTEMPT}", **headers)
    if doubt:
        with pytest.raises(Forged, match=doubt):
            provider.receipts(callback)
        return
    (receipt,) = provider.receipts(callback)
    trigger = "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    assert receipt == Receipt(ATTEMPT, ReceiptStatus.DELIVERED, trigger, "/webhook-collect")


@pytest.mark.parametrize("at", ["soon", "-1", "1e9", "١٢٣", "99999999999999", "1772366400.5", " 1772366400"])
def test_a_time_that_is_none_is_not_believed(at: str) -> None:
    headers = {"x-vendor-time": at, "x-vendor-signature": http.signature(at, BODY)}
    with pytest.raises(Forged, match="not_a_time"):
        described().receipts(reported(**headers))


@pytest.mark.parametrize("missing", ["x-vendor-time", "x-vendor-signature"])
def test_a_header_that_is_missing_is_told_from_one_that_is_wrong(missing: str) -> None:
    at = str(int(NOW.timestamp()))
    headers = {"x-vendor-time": at, "x-vendor-signature": http.signature(at, BODY)}
    del headers[missing]
    with pytest.raises(Forged, match="missing_header"):
        described().receipts(reported(**headers))


def test_a_time_may_be_in_milliseconds() -> None:
    at = str(int(NOW.timestamp() * 1000))
    headers = {"x-vendor-time": at, "x-vendor-signature": http.signature(at, BODY)}
    assert list(described().receipts(reported(**headers))) == [ANSWERED, DELIVERED]


def test_where_the_address_is_signed_it_counts() -> None:
    provider = described(
        signature={"header": "X-Sig", "secret": SECRET, "payload": "{url}|{body}"}, fields={"status": "type"}
    )
    body = b'{"events": [{"type": "arrived"}]}'
    callback = reported(body, query=f"attempt={ATTEMPT}")
    signed = hmac.new(SECRET.encode(), callback.url.encode() + b"|" + body, hashlib.sha256).hexdigest()
    assert list(provider.receipts(reported(body, query=f"attempt={ATTEMPT}", **{"x-sig": signed}))) == [
        ANSWERED,
        DELIVERED,
    ]
    with pytest.raises(Forged, match="signature"):
        provider.receipts(reported(body, query=f"attempt={'0' * 26}", **{"x-sig": signed}))


# --------------------------------------------------------------------------------------------------- what is not signed


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        (f"/{TOKEN}", True),
        ("", False),
        ("/", False),
        ("/x", False),
        (f"/{TOKEN.lower()}", False),
        (f"/{TOKEN}/", False),
    ],
)
def test_what_is_not_signed_is_believed_at_an_address_that_nobody_guesses(path: str, holds: bool) -> None:
    provider = described(signature=None, unsigned=True, token=TOKEN)
    if holds:
        assert list(provider.receipts(reported(path=path, query="a=b"))) == [ANSWERED, DELIVERED]
        return
    with pytest.raises(Forged, match="wrong_url"):
        provider.receipts(reported(path=path, query="a=b"))


async def test_the_vendor_is_given_that_address(opened: Any, wired: Any) -> None:
    case = cases()["http"]
    wire = await wired(case)
    unsigned = http_callbacks(signature=None, unsigned=True, token=TOKEN)
    provider = await opened(http_settings(wire.port, callbacks=unsigned))
    await provider.send(case.dispatch)
    assert wire.requests[0].body["callback"] == f"https://m.example.com/callbacks/text/{TOKEN}?attempt={ATTEMPT}"
    assert TOKEN not in str(vars(provider)) + repr(provider)
    await provider.send(dispatch("+447700900123", case.dispatch.content))
    assert wire.requests[1].body["callback"] == ""


# ---------------------------------------------------------------------------------------------------- what stands where


@pytest.mark.parametrize(
    ("each", "body", "count"),
    [
        (None, {"type": "arrived", "data": {"ref": ATTEMPT}}, 1),
        (None, [{"type": "queued", "data": {"ref": ATTEMPT}}] * 3, 3),
        (None, [None, 7, "x", [], {}, {"type": "queued", "data": {"ref": ATTEMPT}}], 1),
        ("a.0.b", {"a": [{"b": [{"type": "queued", "data": {"ref": ATTEMPT}}] * 2}]}, 2),
        ("a", {"a": {"type": "queued", "data": {"ref": ATTEMPT}}}, 1),
        ("a", {"a": []}, 0),
        (None, [], 0),
    ],
)
def test_events_come_one_or_many(each: str | None, body: Any, count: int) -> None:
    provider = described(signature=None, unsigned=True, token=TOKEN, each=each)
    news = provider.receipts(reported(json.dumps(body).encode(), path=f"/{TOKEN}"))
    assert len([one for one in news if isinstance(one, Receipt)]) == count


@pytest.mark.parametrize(
    ("each", "body", "doubt"),
    [
        ("a", {"b": 1}, "no_events"),
        ("a", {"items": [{"type": "queued", "data": {"ref": ATTEMPT}}]}, "no_events"),
        ("a", [], "no_events"),
        ("a", "text", "no_events"),
        (None, None, "no_events"),
        (None, "text", "no_status"),
        (None, [None, 7, "x", [], {}], "no_status"),
        (None, {"kind": "queued", "data": {"ref": ATTEMPT}}, "no_status"),
        (None, {"type": "queued", "ref": ATTEMPT}, "no_attempt"),
        (None, [{"type": "queued", "data": {"ref": "order 7 of another system"}}, {}], "no_attempt"),
    ],
)
def test_where_nothing_is_found_it_is_said_what_was_looked_for(each: str | None, body: Any, doubt: str) -> None:
    provider = described(signature=None, unsigned=True, token=TOKEN, each=each)
    with pytest.raises(Unread, match=doubt):
        provider.receipts(reported(json.dumps(body).encode(), path=f"/{TOKEN}"))


def test_more_events_than_can_be_are_refused() -> None:
    provider = described(signature=None, unsigned=True, token=TOKEN)
    event = {"type": "queued", "data": {"ref": ATTEMPT}}
    for many, holds in ((1000, True), (1001, False)):
        callback = reported(json.dumps({"events": [event] * many}).encode(), path=f"/{TOKEN}")
        if holds:
            assert len(provider.receipts(callback)) == many
        else:
            with pytest.raises(Unreadable, match="too_many"):
                provider.receipts(callback)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"signature": None}, "anybody could report"),
        ({"signature": None, "unsigned": True}, "anybody could report"),
        ({"signature": None, "token": TOKEN}, "anybody could report"),
        ({"unsigned": True, "token": TOKEN}, "either signed or unsigned"),
        ({"token": "short"}, "openssl rand"),
        ({"token": "with a space in it, and long"}, "openssl rand"),
        ({"statuses": {}, "acts": {}}, "says nothing"),
        ({"statuses": {"a": "sent"}}, "accepted"),
        ({"acts": {"a": "opted_out"}}, "opened"),
        ({"fields": {"reference": "id"}}, "where the status is"),
        ({"fields": {"status": "a", "state": "b"}}, "state"),
        ({"signature": {"header": "X-Sig"}}, "secret"),
        ({"signature": {"header": "X-Sig", "secret": ""}}, "secret"),
        ({"signature": {"header": "X Sig", "secret": "s"}}, "not a header"),
        ({"signature": {"header": "X-Sig", "secret": "s", "algorithm": "md5"}}, "sha256"),
        ({"signature": {"header": "X-Sig", "secret": "s", "payload": "{url}"}}, "must have {body}"),
        ({"signature": {"header": "X-Sig", "secret": "s", "payload": "{body}{body}"}}, "must have {body}"),
        ({"signature": {"header": "X-Sig", "secret": "s", "payload": "{body}{nonce}"}}, "no other brace"),
        ({"signature": {"header": "X-Sig", "secret": "s", "payload": "{timestamp}{body}"}}, "go together"),
        ({"signature": {"header": "X-Sig", "secret": "s", "timestamp_header": "X-At"}}, "go together"),
        ({"signature": {"header": "X-Sig", "secret": "s", "tolerance": "0s"}}, "longer than nothing"),
        ({"signature": {"header": "X-Sig", "secret": "s", "tolerance": "5"}}, "duration with its unit"),
        ({"signature": {"header": "X-Sig", "secret": "s", "tolerance": 300}}, "duration with its unit"),
        ({"each": "events..x"}, "empty step"),
        ({"each": ""}, "empty step"),
        ({"fields": {"status": "t.."}}, "fields.status"),
        ({"fields": {"status": "t", "code": ""}}, "fields.code"),
        ({"fields": {"status": ".t"}}, "empty step"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_faulty_description_is_refused_with_its_reason(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        http_settings(1, callbacks=http_callbacks(**wrong))
    assert said in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_the_readmes_example_is_one() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "callbacks:" in block]
    written = yaml.safe_load(example)["text"]
    written["callbacks"]["signature"]["secret"] = SECRET
    settings = providers.settings_of("http").model_validate(
        {"channels": ["sms"], "url": "https://x.example", **written}
    )
    provider = importlib.import_module("providers.http").Provider("text", settings, lambda: NOW)
    at, body = str(int(NOW.timestamp())), BODY.replace(b"arrived", b"no_such_number")
    signed = hmac.new(SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    (receipt,) = provider.receipts(reported(body, **{"x-signature": f"sha256={signed}", "x-timestamp": at}))
    assert receipt == Receipt(ATTEMPT, ReceiptStatus.UNREACHABLE, ATTEMPT, "no_such_number")


def test_callbacks_that_could_name_no_attempt_are_refused() -> None:
    body = {"to": "{address}", "text": "{text}", "ref": "{attempt}"}
    with pytest.raises(ValidationError, match="callbacks name no attempt"):
        http_settings(1, body=body, callbacks=http_callbacks(fields={"status": "type"}))
    assert http_settings(1, body=body)
    assert http_settings(1, body={"to": "{address}", "callback": "{callback_url}"}, callbacks=http_callbacks())


def test_the_address_that_the_vendor_has_names_the_attempt_where_no_field_does() -> None:
    provider = described(signature=None, unsigned=True, token=TOKEN, fields={"status": "type"})
    body = b'{"events": [{"type": "queued"}]}'
    query = CALLBACK_URL.partition("?")[2]
    (receipt,) = provider.receipts(reported(body, path=f"/{TOKEN}", query=query))
    assert receipt == Receipt(ATTEMPT, ReceiptStatus.ACCEPTED, ATTEMPT, "queued")
    for other in ("", "attempt=", "attempt=..%2F", f"attempt={ATTEMPT.upper()}", f"attempt={ATTEMPT}0"):
        with pytest.raises(Unread, match="no_attempt"):
            provider.receipts(reported(body, path=f"/{TOKEN}", query=other))
