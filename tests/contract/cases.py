"""One entry per provider: settings, what it must ask, what answers must become, what its vendor calls back with.

Expected values are the vendors' own: each table names its document.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import providers
from providers import (
    Act,
    Acted,
    Agent,
    Callback,
    Dispatch,
    Email,
    Misconfigured,
    News,
    ProviderError,
    Push,
    Receipt,
    ReceiptStatus,
    Rejected,
    Reply,
    Robocall,
    Settings,
    Sms,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
    Wish,
)
from tests.contract.wire import (
    FcmWire,
    HostedHttpWire,
    SmtpWire,
    TwilioWire,
    Wire,
    json_reply,
    reply,
)
from tests.vendors import fcm, http, smtp, twilio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.vendors.ledger import Ledger

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ATTEMPT = "01attempt00000000000000000"
MESSAGE = "01message00000000000000000"
CALLBACK_URL = f"https://m.example.com/callbacks/text?attempt={ATTEMPT}"


def dispatch(address: str, content: providers.Content, **more: Any) -> Dispatch:
    given = {"deadline": NOW + timedelta(seconds=30), "valid_until": NOW + timedelta(hours=1), **more}
    return Dispatch(ATTEMPT, MESSAGE, address, content, **given)


@dataclass(frozen=True)
class Answer:
    """A vendor's whole answer, and what it must become."""

    raw: bytes
    becomes: type[ProviderError]
    code: str
    retry_after: timedelta | None = None


@dataclass(frozen=True)
class Reported:
    """A genuine callback, the news in it, and what it is answered once they are committed."""

    callback: Callback
    news: tuple[News, ...]
    answer: str | None = None
    """XML, as an independent reader writes it; None: success, and no more."""


def elsewhere(callback: Callback) -> Callback:
    """The same for another attempt, which stands in the address."""
    return replace(callback, url=f"{callback.url}x", query={"attempt": f"{ATTEMPT[:-1]}x"})


@dataclass(frozen=True)
class Case:
    """All that the shared suite needs to know of a provider."""

    settings: Callable[[int], Settings]
    """For a server on this port of 127.0.0.1."""
    dispatch: Dispatch
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """A part of the request's."""
    body: Any = None
    reference: str = ""
    """What ``wire`` accepts with."""
    wire: type[Wire] | None = None
    """None: it has no vendor."""
    vendor: Callable[[Ledger], Any] | None = None
    """The strict one."""
    answers: tuple[Answer, ...] = ()
    garbage: tuple[bytes, ...] = ()
    """Answers at the end of a hand-over that are none: whatever they were, the message may be out."""
    callbacks: tuple[Reported, ...] = ()
    signature: str = "x-twilio-signature"
    """The header that has it."""
    another: Callable[[Callback], Callback] = elsewhere
    """A callback, replayed for another attempt."""
    secrets: tuple[str, ...] = ()
    wrong: Mapping[str, Any] = field(default_factory=dict)
    """Settings with a secret in a place where it must be refused, and not be quoted."""


HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b" " * 50_000_000
GARBAGE = (
    reply(200, b'{"sid": "SM', "Content-Type: application/json"),
    reply(200, b"<!doctype html><title>Welcome</title>", "Content-Type: text/html"),
    reply(200, b""),
    reply(204, b""),
    reply(200, b"[]"),
    reply(200, b"null"),
    reply(200, b'{"sid": {}, "name": [], "data": {"id": null}}'),
    reply(200, b'{"sid": "", "name": "", "data": {"id": ""}}'),
    reply(200, b'{"sid": "a\\nb", "name": "a\\nb", "data": {"id": "a\\nb"}}'),
    b'HTTP/1.1 200 OK\r\nContent-Length: 40\r\nConnection: close\r\n\r\n{"sid": "SM42", "na',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is no HTTP\r\n\r\n",
    HUGE,
)
COMMON = (
    # RFC 9110, 15.5 and 15.6; RFC 6585, 4. Nothing says that these were not acted on, or they are ours to mend.
    Answer(reply(401, b""), Misconfigured, "http_401"),
    Answer(reply(402, b""), Misconfigured, "http_402"),
    Answer(reply(403, b"<html>"), Misconfigured, "http_403"),
    Answer(reply(408, b""), Unconfirmed, "http_408"),
    Answer(reply(409, b""), Unconfirmed, "http_409"),
    Answer(reply(425, b""), Unconfirmed, "http_425"),
    Answer(reply(422, b"[]"), Rejected, "http_422"),
    Answer(reply(429, b"", "Retry-After: 7"), Throttled, "http_429", timedelta(seconds=7)),
    Answer(
        reply(429, b"", "Retry-After: Sun, 01 Mar 2026 12:02:00 GMT"), Throttled, "http_429", timedelta(seconds=120)
    ),
    # RFC 9110, 5.6.7: the two older forms of a date must be understood too.
    Answer(
        reply(429, b"", "Retry-After: Sunday, 01-Mar-26 12:02:00 GMT"), Throttled, "http_429", timedelta(seconds=120)
    ),
    Answer(reply(429, b"", "Retry-After: Sun Mar  1 12:02:00 2026"), Throttled, "http_429", timedelta(seconds=120)),
    Answer(reply(429, b"", "Retry-After: Sun, 01 Mar 2026 11:58:00 GMT"), Throttled, "http_429", timedelta(0)),
    Answer(reply(429, b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"), Throttled, "http_429", timedelta(days=1)),
    Answer(reply(429, b"", f"Retry-After: {10**40}"), Throttled, "http_429", timedelta(days=1)),
    *(
        Answer(reply(429, b"", f"Retry-After: {garbage}"), Throttled, "http_429")
        for garbage in ("soon", "-5", "1.5", "1e3", "", f"Sun, 01 Mar {10**40} 12:02:00 GMT", "9" * 9 + "x")
    ),
    Answer(reply(500, b""), Unconfirmed, "http_500"),
    Answer(reply(502, b"<html>"), Unconfirmed, "http_502"),
    Answer(reply(503, b"", "Retry-After: 7"), Unconfirmed, "http_503"),
    Answer(reply(504, b""), Unconfirmed, "http_504"),
    Answer(HUGE.replace(b"200 OK", b"400 Bad", 1), Rejected, "http_400"),
    Answer(b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{", Rejected, "http_400"),
)


def twilio_fault(status: int, code: int, kind: type[ProviderError], *headers: str, wait: int | None = None) -> Answer:
    """https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions"""
    body = {
        "code": code,
        "message": "The number +447700900123 is at fault.",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Answer(json_reply(status, body, *headers), kind, str(code), timedelta(seconds=wait) if wait else None)


def twilio_signed(fields: Mapping[str, str], query: Mapping[str, str]) -> Callback:
    """As the vendor signs, to the address with that query."""
    url = "https://m.example.com/callbacks/text" + (f"?{urlencode(query)}" if query else "")
    headers = {"x-twilio-signature": twilio.signature(url, list(fields.items()))}
    return Callback(url, query, headers, urlencode(fields).encode())


def twilio_callback(status: ReceiptStatus, raw: str, code: str | None = None, **more: str) -> Reported:
    """https://www.twilio.com/docs/messaging/guides/track-outbound-message-status"""
    fields = {"MessageSid": "SM42", "MessageStatus": raw, "AccountSid": twilio.ACCOUNT_SID, "To": "+447700900123"}
    fields |= ({"ErrorCode": code} if code else {}) | more
    return Reported(twilio_signed(fields, {"attempt": ATTEMPT}), (Receipt(ATTEMPT, status, "SM42", raw, code),))


def twilio_inbound(text: str, wish: Wish | None, answer: str = "<Response />", **more: str) -> Reported:
    """https://www.twilio.com/docs/messaging/guides/webhook-request"""
    fields = {
        "MessageSid": "SM42",
        "SmsStatus": "received",
        "AccountSid": twilio.ACCOUNT_SID,
        "From": "+447700900123",
        "To": "+15005550006",
        "Body": text,
        **more,
    }
    return Reported(twilio_signed(fields, {}), (Reply("+447700900123", wish, "SM42"),), answer)


def twilio_call(
    *news: News, status: str | None = None, say: str | None = None, answer: str | None = None, **more: str
) -> Reported:
    """https://www.twilio.com/docs/voice/api/call-resource#statuscallback

    Args:
        news: besides the receipt of the status, ``Agent`` and why for who picked up.
        status: of the call.
        say: the language in the address that a key is told to.
        answer: what the call does next.
        more: other fields.
    """
    fields = {"CallSid": "SM42", "AccountSid": twilio.ACCOUNT_SID, **({"CallStatus": status} if status else {}), **more}
    query = {"attempt": ATTEMPT} | ({} if say is None else {"say": say})
    return Reported(twilio_signed(fields, query), news, answer)


def called(raw: str, status: ReceiptStatus, code: str | None = None) -> Receipt:
    return Receipt(ATTEMPT, status, "SM42", raw, code)


def picked_up(agent: Agent, why: str | None = None) -> Acted:
    return Acted(ATTEMPT, Act.ANSWERED, agent, why)


def http_events(*events: Mapping[str, Any], news: tuple[News, ...], **headers: str) -> Reported:
    """As the vendor of ``tests.vendors.http`` reports."""
    body = json.dumps({"events": events}).encode()
    at = str(int(NOW.timestamp()))
    given = {"x-vendor-time": at, "x-vendor-signature": http.signature(at, body), "content-type": "application/json"}
    return Reported(Callback("https://m.example.com/callbacks/text", {}, given | headers, body), news)


def http_event(word: str, **data: Any) -> Mapping[str, Any]:
    return {"type": word, "data": {"ref": ATTEMPT, "id": "SM42", **data}}


def other_event(callback: Callback) -> Callback:
    """The same for another attempt, which stands in the body."""
    return replace(callback, body=callback.body.replace(ATTEMPT.encode(), f"{ATTEMPT[:-1]}x".encode()))


def smtp_settings(port: int, **more: Any) -> Settings:
    given = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "Decorum Täst <hello@example.com>",
        "timeout": 5,
        "data_timeout": 5,
        **more,
    }
    return providers.settings_of("smtp").model_validate(given)


def twilio_settings(kind: str, port: int, **more: Any) -> Settings:
    given = {
        "account_sid": twilio.ACCOUNT_SID,
        "auth_token": twilio.AUTH_TOKEN,
        "sender": "+15005550006",
        "base_url": f"http://127.0.0.1:{port}",
        "timeout": 5,
        **more,
    }
    return providers.settings_of(kind).model_validate(given)


def fcm_settings(port: int, **more: Any) -> Settings:
    given = {
        "service_account": fcm.service_account(f"http://127.0.0.1:{port}/token"),
        "base_url": f"http://127.0.0.1:{port}",
        "timeout": 5,
        **more,
    }
    return providers.settings_of("fcm").model_validate(given)


def http_callbacks(**more: Any) -> dict[str, Any]:
    """How the vendor of ``tests.vendors.http`` reports."""
    return {
        "signature": {
            "header": "X-Vendor-Signature",
            "secret": http.SIGNING_KEY,
            "prefix": "v1=",
            "payload": "{timestamp}.{body}",
            "timestamp_header": "X-Vendor-Time",
        },
        "each": "events",
        "fields": {"status": "type", "attempt": "data.ref", "reference": "data.id", "code": "data.fault"},
        "statuses": {"queued": "accepted", "arrived": "delivered", "lost": "undelivered", 404: "unreachable"},
        "acts": {"open": "opened", "prefetch": "opened_by_machine", "link": "clicked", "arrived": "answered"},
        **more,
    }


def http_settings(port: int, **more: Any) -> Settings:
    given = {
        "channels": ["sms", "push"],
        "url": f"http://127.0.0.1:{port}/v1/messages",
        "headers": {"Authorization": f"Bearer {http.KEY}"},
        "body": {
            "to": "{address}",
            "text": "{text}",
            "title": "{{{title}}}",
            "ref": "{attempt}",
            "ttl": "{valid_seconds}",
            "callback": "{callback_url}",
        },
        "reply": {"reference": "data.id"},
        "statuses": {404: "unreachable", 410: "unreachable", "418": "accepted", "507": "unavailable"},
        "idempotency_header": "Idempotency-Key",
        "idempotency_window": "24h",
        "callbacks": http_callbacks(),
        "timeout": 5,
        **more,
    }
    return providers.settings_of("http").model_validate(given)


def fcm_fault(status: int, word: str, code: str | None, kind: type[ProviderError], became: str, **more: Any) -> Answer:
    """https://firebase.google.com/docs/cloud-messaging/error-codes"""
    error: dict[str, Any] = {"code": status, "message": more.get("sentence", "for people"), "status": word}
    error["details"] = [*more.get("details", ())]
    if code:
        error["details"].append({"@type": fcm.FCM_ERROR, "errorCode": code})
    wait = more.get("wait")
    return Answer(
        json_reply(status, {"error": error}, *more.get("headers", ())), kind, became, wait and timedelta(seconds=wait)
    )


SMS_FAULTS = (
    # https://www.twilio.com/docs/api/errors
    twilio_fault(400, 21211, Unreachable),
    twilio_fault(400, 21214, Unreachable),
    twilio_fault(400, 21610, Unreachable),
    twilio_fault(400, 21614, Unreachable),
    twilio_fault(400, 21612, Rejected),
    twilio_fault(400, 21617, Rejected),
    twilio_fault(400, 29999, Rejected),
    twilio_fault(400, 30610, Throttled),
    twilio_fault(403, 21408, Misconfigured),
    twilio_fault(401, 20003, Misconfigured),
    twilio_fault(404, 20404, Misconfigured),
    twilio_fault(400, 21606, Misconfigured),
    twilio_fault(429, 21611, Throttled),
    twilio_fault(429, 20429, Throttled, "Retry-After: 3", wait=3),
    # No 5xx is documented as not processed, whatever the code in it.
    twilio_fault(500, 20500, Unconfirmed),
    twilio_fault(503, 20503, Unconfirmed, "Retry-After: 3"),
    twilio_fault(503, 20429, Unconfirmed),
    Answer(reply(404, b""), Misconfigured, "http_404"),
    Answer(json_reply(400, {"code": "21211"}), Rejected, "http_400"),
    Answer(json_reply(400, {"code": 7}), Rejected, "http_400"),
)

LOGIN = base64.b64encode(f"{twilio.ACCOUNT_SID}:{twilio.AUTH_TOKEN}".encode()).decode()


def cases() -> Mapping[str, Case]:
    """Kind → case."""
    account = fcm.service_account("http://127.0.0.1/token")
    return {
        "smtp": Case(
            smtp_settings,
            dispatch(
                "ann@example.net",
                Email("Grüße, 你好", "Hello\n.\n..dots\n", "<p>Hello</p>"),
                unsubscribe_url="https://m.example.com/u/42",
            ),
            target="FROM:<hello@example.com> TO:<ann@example.net>",
            headers={
                # RFC 5322, 3.6; RFC 2047; RFC 3834, 5; RFC 8058, 3.1.
                "From": "Decorum Täst <hello@example.com>",
                "To": "ann@example.net",
                "Subject": "Grüße, 你好",
                "Date": "Sun, 01 Mar 2026 12:00:00 +0000",
                "Message-ID": f"<{MESSAGE}@example.com>",
                "X-Decorum-Attempt": ATTEMPT,
                "Auto-Submitted": "auto-generated",
                "MIME-Version": "1.0",
                "List-Unsubscribe": "<https://m.example.com/u/42>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
            body={"plain": "Hello\r\n.\r\n..dots\r\n", "html": "<p>Hello</p>"},
            reference=f"<{MESSAGE}@example.com>",
            wire=SmtpWire,
            vendor=smtp.Relay,
            answers=(
                # RFC 5321, 4.2.3, as replies to the final dot.
                Answer(b"421 4.3.2 bye\r\n", Throttled, "smtp_421"),
                Answer(b"450 4.2.0 busy\r\n", Throttled, "smtp_450"),
                Answer(b"451 4.3.0 ann@example.net later\r\n", Throttled, "smtp_451"),
                Answer(b"452 4.3.1 full\r\n", Throttled, "smtp_452"),
                Answer(b"455 4.0.0 odd\r\n", Unavailable, "smtp_455"),
                Answer(b"550 5.7.1 spam\r\n", Rejected, "smtp_550"),
                Answer(b"552 5.3.4 too big\r\n", Rejected, "smtp_552"),
                Answer(b"554-5.6.0 no\r\n554 5.6.0 ann@example.net\r\n", Rejected, "smtp_554"),
            ),
            garbage=(
                b"<html>\r\n",
                b"\r\n",
                b"\xff\xfe\r\n",
                b"25",
                b"354 again\r\n",
                b"000 nothing\r\n",
                b"250-" + b"x" * 5_000_000,
                b"250-x\r\n" * 500_000,
            ),
        ),
        "twilio_sms": Case(
            lambda port: twilio_settings("twilio_sms", port, stop_reply="Bye & thanks", help_reply="もしもし"),
            dispatch("+447700900123", Sms("Hello & Grüße 🎉"), callback_url=CALLBACK_URL),
            target=f"POST /2010-04-01/Accounts/{twilio.ACCOUNT_SID}/Messages.json",
            headers={"authorization": f"Basic {LOGIN}", "content-type": "application/x-www-form-urlencoded"},
            body={
                "To": "+447700900123",
                "From": "+15005550006",
                "Body": "Hello & Grüße 🎉",
                "ValidityPeriod": "3600",
                "StatusCallback": CALLBACK_URL,
            },
            reference="SM42",
            wire=TwilioWire,
            vendor=twilio.Twilio,
            answers=(*SMS_FAULTS, *COMMON),
            garbage=GARBAGE,
            callbacks=(
                # https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
                *(twilio_callback(ReceiptStatus.ACCEPTED, raw) for raw in ("queued", "accepted", "sending", "sent")),
                twilio_callback(ReceiptStatus.DELIVERED, "delivered"),
                twilio_callback(ReceiptStatus.DELIVERED, "read"),
                # https://www.twilio.com/docs/api/errors/30003: try again; 30005, 30006, 21610: never.
                twilio_callback(ReceiptStatus.UNDELIVERED, "undelivered", "30003"),
                twilio_callback(ReceiptStatus.UNREACHABLE, "undelivered", "30005"),
                twilio_callback(ReceiptStatus.UNREACHABLE, "undelivered", "30006"),
                twilio_callback(ReceiptStatus.UNREACHABLE, "failed", "21610"),
                twilio_callback(ReceiptStatus.UNDELIVERED, "failed"),
                twilio_callback(ReceiptStatus.OTHER, "canceled"),
                twilio_callback(ReceiptStatus.OTHER, "teleported", ApiVersion="2040-04-01"),
                # What people write, and what they are answered where it is configured.
                twilio_inbound("STOP", Wish.STOP, "<Response><Message>Bye &amp; thanks</Message></Response>"),
                twilio_inbound("stop please", Wish.STOP, "<Response><Message>Bye &amp; thanks</Message></Response>"),
                twilio_inbound("Help", Wish.HELP, "<Response><Message>もしもし</Message></Response>"),
                twilio_inbound("start", Wish.START),
                twilio_inbound("配信停止\n", Wish.STOP, "<Response><Message>Bye &amp; thanks</Message></Response>"),
                twilio_inbound("see you & good bye", None),
                twilio_inbound("", None, NumMedia="1"),
                # https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out: Twilio knows, and has answered.
                twilio_inbound("Adieu", Wish.STOP, OptOutType="STOP"),
                twilio_inbound("JOIN", Wish.START, OptOutType="START"),
                twilio_inbound("stop", Wish.HELP, OptOutType="HELP"),
                twilio_inbound("stop", Wish.STOP, From="whatsapp:+447700900123", OptOutType="NEW"),
                # From a short code or a name: it is nobody's, and is answered all the same.
                replace(twilio_inbound("STOP", Wish.STOP, From="62226"), news=()),
                replace(twilio_inbound("STOP", Wish.STOP, From="Example"), news=()),
            ),
            secrets=(twilio.AUTH_TOKEN, LOGIN),
            wrong={"kind": "twilio_sms", "account_sid": twilio.AUTH_TOKEN, "sender": twilio.AUTH_TOKEN},
        ),
        "twilio_voice": Case(
            lambda port: twilio_settings("twilio_voice", port, ring=25, stop_reply={"de": "Adieu!"}),
            dispatch("+447700900123", Robocall(say="Fish & <chips>"), callback_url=CALLBACK_URL, locale="en-GB"),
            target=f"POST /2010-04-01/Accounts/{twilio.ACCOUNT_SID}/Calls.json",
            headers={"authorization": f"Basic {LOGIN}"},
            body={
                "To": "+447700900123",
                "From": "+15005550006",
                "Twiml": (
                    '<Response><Gather numDigits="1" timeout="5" '
                    f'action="{CALLBACK_URL}&amp;say=en-GB" method="POST">'
                    '<Say language="en-GB">Fish &amp; &lt;chips&gt;</Say></Gather></Response>'
                ),
                "Timeout": "25",
                "StatusCallback": CALLBACK_URL,
                "StatusCallbackEvent": "completed",
                # https://www.twilio.com/docs/voice/answering-machine-detection
                "MachineDetection": "Enable",
                "AsyncAmd": "true",
                "AsyncAmdStatusCallback": CALLBACK_URL,
            },
            reference="SM42",
            wire=TwilioWire,
            vendor=twilio.Twilio,
            answers=(
                twilio_fault(400, 21211, Unreachable),
                twilio_fault(400, 21214, Unreachable),
                twilio_fault(400, 21217, Unreachable),
                twilio_fault(400, 21216, Rejected),
                twilio_fault(400, 21215, Misconfigured),
                twilio_fault(400, 21210, Misconfigured),
                twilio_fault(429, 20429, Throttled, "Retry-After: 3", wait=3),
                *COMMON,
            ),
            garbage=GARBAGE,
            callbacks=(
                # https://www.twilio.com/docs/voice/api/call-resource#call-status-values; it rang, so it counts.
                twilio_call(called("completed", ReceiptStatus.DELIVERED), status="completed", CallDuration="7"),
                twilio_call(called("busy", ReceiptStatus.ACCEPTED), status="busy"),
                twilio_call(called("no-answer", ReceiptStatus.ACCEPTED), status="no-answer"),
                twilio_call(called("failed", ReceiptStatus.UNDELIVERED, "13224"), status="failed", ErrorCode="13224"),
                twilio_call(called("failed", ReceiptStatus.UNDELIVERED, "486"), status="failed", SipResponseCode="486"),
                twilio_call(called("canceled", ReceiptStatus.UNDELIVERED), status="canceled"),
                twilio_call(called("teleported", ReceiptStatus.OTHER), status="teleported"),
                # https://www.twilio.com/docs/voice/answering-machine-detection: what is not known to be human is not.
                twilio_call(picked_up(Agent.HUMAN), AnsweredBy="human", MachineDetectionDuration="2400"),
                *(
                    twilio_call(picked_up(Agent.MACHINE, "voicemail"), AnsweredBy=f"machine_{how}")
                    for how in ("start", "end_beep", "end_silence", "end_other")
                ),
                twilio_call(picked_up(Agent.MACHINE, "fax"), AnsweredBy="fax"),
                twilio_call(picked_up(Agent.MACHINE, "untold"), AnsweredBy="unknown"),
                twilio_call(picked_up(Agent.MACHINE, "untold"), AnsweredBy="a parrot"),
                # https://www.twilio.com/docs/voice/twiml/gather#action: Twilio does what the answer says.
                *(
                    twilio_call(
                        called("in-progress", ReceiptStatus.ACCEPTED),
                        Reply("+447700900123", Wish.STOP, "SM42", ATTEMPT, on_the_line=True),
                        status="in-progress",
                        say=language,
                        answer=f'<Response><Say language="{spoken}">{words}</Say></Response>',
                        Digits="9",
                        To="+447700900123",
                    )
                    for language, spoken, words in (
                        ("en-GB", "en-GB", "You will not be called again."),
                        ("ja-JP", "ja-JP", "今後、お電話はいたしません。"),
                        ("zh-Hant-TW", "zh-Hant-TW", "我们不会再给您打电话。"),
                        ("DE", "DE", "Adieu!"),
                        ("fi-FI", "en-US", "You will not be called again."),
                        ("", "en-US", "You will not be called again."),
                    )
                ),
                twilio_call(
                    called("in-progress", ReceiptStatus.ACCEPTED),
                    picked_up(Agent.HUMAN),
                    status="in-progress",
                    say="en",
                    answer="<Response />",
                    Digits="1",
                    To="+447700900123",
                ),
                twilio_call(
                    called("in-progress", ReceiptStatus.ACCEPTED),
                    status="in-progress",
                    say="en",
                    answer="<Response />",
                    Digits="5",
                ),
            ),
            secrets=(twilio.AUTH_TOKEN, LOGIN),
            wrong={"kind": "twilio_voice", "account_sid": twilio.AUTH_TOKEN, "sender": twilio.AUTH_TOKEN},
        ),
        "fcm": Case(
            fcm_settings,
            dispatch("token-of-a-phone", Push("Title", "Grüße", {"screen": "home"}, "https://example.com/i.png")),
            target=f"POST /v1/projects/{fcm.PROJECT}/messages:send",
            headers={"authorization": "Bearer ya29.token", "content-type": "application/json"},
            body={
                "message": {
                    "token": "token-of-a-phone",
                    "notification": {"title": "Title", "body": "Grüße", "image": "https://example.com/i.png"},
                    "data": {"screen": "home", "decorum_message": MESSAGE},
                    "android": {"collapse_key": MESSAGE, "ttl": "3600s", "notification": {"tag": MESSAGE}},
                    "apns": {"headers": {"apns-collapse-id": MESSAGE, "apns-expiration": "1772370000"}},
                    "webpush": {"headers": {"TTL": "3600", "Topic": MESSAGE}},
                }
            },
            reference="projects/p/messages/1",
            wire=FcmWire,
            vendor=fcm.Fcm,
            answers=(
                # https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
                fcm_fault(404, "NOT_FOUND", "UNREGISTERED", Unreachable, "UNREGISTERED"),
                fcm_fault(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", Rejected, "SENDER_ID_MISMATCH"),
                fcm_fault(
                    400,
                    "INVALID_ARGUMENT",
                    "INVALID_ARGUMENT",
                    Unreachable,
                    "INVALID_TOKEN",
                    sentence="The registration token is not a valid FCM registration token",
                ),
                fcm_fault(
                    400,
                    "INVALID_ARGUMENT",
                    "INVALID_ARGUMENT",
                    Unreachable,
                    "INVALID_TOKEN",
                    details=[{"@type": fcm.BAD_REQUEST, "fieldViolations": [{"field": "message.token"}]}],
                ),
                fcm_fault(
                    400,
                    "INVALID_ARGUMENT",
                    None,
                    Rejected,
                    "INVALID_ARGUMENT",
                    sentence="Invalid value at 'message.data[0].value' (TYPE_STRING), 12",
                    details=[{"@type": fcm.BAD_REQUEST, "fieldViolations": [{"field": "message.data[0].value"}]}],
                ),
                fcm_fault(
                    400, "INVALID_ARGUMENT", None, Rejected, "INVALID_ARGUMENT", details=[{"fieldViolations": 7}]
                ),
                fcm_fault(
                    429,
                    "RESOURCE_EXHAUSTED",
                    "QUOTA_EXCEEDED",
                    Throttled,
                    "QUOTA_EXCEEDED",
                    wait=30,
                    headers=["Retry-After: 30"],
                ),
                # https://firebase.google.com/docs/cloud-messaging/scale-fcm: without a header, 60 seconds.
                fcm_fault(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", Throttled, "QUOTA_EXCEEDED", wait=60),
                # "The server is overloaded."
                fcm_fault(
                    503, "UNAVAILABLE", "UNAVAILABLE", Throttled, "UNAVAILABLE", wait=11, headers=["Retry-After: 11"]
                ),
                fcm_fault(503, "UNAVAILABLE", None, Unconfirmed, "http_503"),
                fcm_fault(500, "INTERNAL", "INTERNAL", Unconfirmed, "INTERNAL"),
                fcm_fault(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", Misconfigured, "THIRD_PARTY_AUTH_ERROR"),
                fcm_fault(401, "UNAUTHENTICATED", None, Misconfigured, "http_401"),
                fcm_fault(400, "FAILED_PRECONDITION", "BRAND_NEW_CODE", Rejected, "http_400"),
                Answer(json_reply(400, {"error": []}), Rejected, "http_400"),
                Answer(json_reply(400, {"error": {"details": {"a": 1}, "status": []}}), Rejected, "http_400"),
                *COMMON,
            ),
            garbage=GARBAGE,
            secrets=(account.split("\\n")[3], "ya29.token"),
            wrong={"kind": "fcm", "service_account": account.replace("BEGIN", "BROKEN")},
        ),
        "http": Case(
            http_settings,
            dispatch("+447700900123", Sms('Say "hi"\n\\ Grüße'), callback_url=CALLBACK_URL),
            target="POST /v1/messages",
            headers={
                "authorization": f"Bearer {http.KEY}",
                "content-type": "application/json",
                "idempotency-key": MESSAGE,
            },
            body={
                "to": "+447700900123",
                "text": 'Say "hi"\n\\ Grüße',
                "title": "{}",
                "ref": ATTEMPT,
                "ttl": 3600,
                "callback": CALLBACK_URL,
            },
            reference="hv-42",
            wire=HostedHttpWire,
            vendor=http.Http,
            answers=(
                Answer(reply(404, b""), Unreachable, "http_404"),
                Answer(reply(410, b""), Unreachable, "http_410"),
                Answer(reply(507, b""), Unavailable, "http_507"),
                Answer(reply(418, b"no json, though said to be accepted"), Unconfirmed, "bad_reply"),
                *COMMON,
            ),
            garbage=GARBAGE,
            callbacks=(
                http_events(
                    http_event("arrived"),
                    http_event("lost", fault="E1"),
                    news=(
                        Acted(ATTEMPT, Act.ANSWERED, Agent.HUMAN),
                        Receipt(ATTEMPT, ReceiptStatus.DELIVERED, "SM42", "arrived"),
                        Receipt(ATTEMPT, ReceiptStatus.UNDELIVERED, "SM42", "lost", "E1"),
                    ),
                ),
                http_events(http_event("queued"), news=(Receipt(ATTEMPT, ReceiptStatus.ACCEPTED, "SM42", "queued"),)),
                http_events(
                    {"type": 404, "data": {"ref": ATTEMPT}},
                    news=(Receipt(ATTEMPT, ReceiptStatus.UNREACHABLE, ATTEMPT, "404"),),
                ),
                http_events(
                    http_event("teleported"), news=(Receipt(ATTEMPT, ReceiptStatus.OTHER, "SM42", "teleported"),)
                ),
                http_events(http_event("open"), news=(Acted(ATTEMPT, Act.OPENED, Agent.HUMAN),)),
                http_events(http_event("prefetch"), news=(Acted(ATTEMPT, Act.OPENED, Agent.MACHINE, "vendor"),)),
                # One of ours among such as are not, or are without a word on what became of them.
                http_events(
                    http_event("arrived", ref="no attempt"),
                    http_event("arrived", ref=None),
                    {"data": {"ref": ATTEMPT}},
                    {"type": {"a": 1}, "data": {"ref": ATTEMPT}},
                    http_event("teleported"),
                    news=(Receipt(ATTEMPT, ReceiptStatus.OTHER, "SM42", "teleported"),),
                ),
                http_events(news=()),
            ),
            signature="x-vendor-signature",
            another=other_event,
            secrets=(http.KEY, http.SIGNING_KEY),
            wrong={
                "kind": "http",
                "channels": ["sms"],
                "url": "http://x/",
                "headers": {"Authorization": f"{http.KEY}\r\nX: y"},
                "body": {},
            },
        ),
        "inbox": Case(
            lambda _: providers.settings_of("inbox").model_validate({}),
            dispatch("+447700900123", Sms("Hello")),
            reference=f"inbox-{ATTEMPT}",
        ),
    }
