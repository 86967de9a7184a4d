"""Twilio: Messages and Calls, with signed callbacks: what became of them, who picked up, keys, and what people write.

https://www.twilio.com/docs/messaging/api/message-resource, https://www.twilio.com/docs/voice/api/call-resource,
https://www.twilio.com/docs/voice/answering-machine-detection, https://www.twilio.com/docs/voice/twiml/gather,
https://www.twilio.com/docs/messaging/guides/webhook-request, https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
from aiohttp import web
from yarl import URL

from tests.vendors.steering import action
from tests.vendors.web import WebVendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.vendors.ledger import Ledger

ACCOUNT_SID = "AC00000000000000000000000000000001"
AUTH_TOKEN = "twilio-auth-token-for-tests"

MESSAGE_FAULTS = {"0001": 21211, "0002": 21612, "0003": 21408, "0004": 21610, "0009": 21614}
CALL_FAULTS = {"0001": 21211, "0002": 21214, "0003": 21215, "0004": 21216}
HTTP_STATUS = {21408: 403, 21215: 403, 20003: 401, 20404: 404, 20429: 429}
STATUS_CODES = {401: 20003, 404: 20404, 429: 20429}

CALLBACKS = {
    "8001": (("sent", None), ("undelivered", "30005")),
    "8002": (("failed", "30003"),),
    "8003": (),
    "8004": (("sent", None), ("delivered", None), ("delivered", None)),
}
CALLS: dict[str, tuple[str | None, str | None, str]] = {
    "8005": ("human", "9", "completed"),
    "8006": ("machine_start", None, "completed"),
    "8007": ("human", "1", "completed"),
    "8008": (None, None, "busy"),
    "8009": (None, None, "no-answer"),
}
"""Who picks up, which key they press, and how the call ends; others are picked up by people who press none."""
VERBS = {"Response", "Gather", "Say", "Play", "Pause", "Hangup", "Redirect"}
INSIDE_GATHER = {"Say", "Play", "Pause"}
GATHER = {"action", "method", "numDigits", "timeout", "finishOnKey", "actionOnEmptyResult", "input"}
FLAGS = {"true", "false"}


class Refused(Exception):
    """A request that Twilio would not take."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
        self.status = HTTP_STATUS.get(code, 400)


def signature(url: str, fields: list[tuple[str, str]], token: str = AUTH_TOKEN) -> str:
    """``X-Twilio-Signature`` of a form."""
    signed = url
    for key in sorted({key for key, _ in fields}):
        for value in sorted({value for name, value in fields if name == key}):
            signed += key + value
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


class Twilio(WebVendor):
    """One account."""

    name = "twilio"

    def __init__(
        self, ledger: Ledger, *, delay: float = 0.0, callbacks: bool = False, callback_base: str | None = None
    ) -> None:
        super().__init__(ledger, delay=delay)
        self._callbacks = callbacks
        self._callback_base = callback_base
        """Where callbacks really go; they are signed for the URL that we were given."""
        self.spoken: list[tuple[str | None, str]] = []
        """What calls said after a key, each with its language."""
        self.errors: list[str] = []
        """Answers to our callbacks that cannot be used: what the debugger in the console would show."""
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/2010-04-01/Accounts/{account}/{resource}.json", self._create)]

    async def start(self, port: int = 0) -> int:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        return await super().start(port)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            await self._session.close()
        await super().stop()

    async def _create(self, request: web.Request) -> web.StreamResponse:
        try:
            form = await self._form(request)
            sms = request.match_info["resource"] == "Messages"
            (check_message if sms else check_call)(form)
        except Refused as fault:
            return await self.answer(request, "", _fault(fault.status, fault.code))
        steer = action(form["To"])
        if code := (MESSAGE_FAULTS if sms else CALL_FAULTS).get(steer):
            return await self.answer(request, "", _fault(HTTP_STATUS.get(code, 400), code))
        if re.fullmatch("[45][0-9]{2}", steer):
            status = int(steer)
            return await self.answer(request, "", _fault(status, STATUS_CODES.get(status, 20000 + status)))
        sid = ("SM" if sms else "CA") + uuid.uuid4().hex
        callback = form.get("StatusCallback", "")
        attempt = parse_qs(urlsplit(callback).query).get("attempt", [None])[0]
        if not steer.startswith("lost-"):
            self.ledger.add(
                "twilio",
                "sms" if sms else "robocall",
                form["To"],
                attempt=attempt,
                message=None,
                reference=sid,
                text=form.get("Body") or form.get("Twiml"),
            )
            self.accepted(request, form)
            if callback and self._callbacks:
                report = self._report(callback, sid, form["To"], steer) if sms else self._call(form, sid, steer)
                task = asyncio.create_task(report)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        body = {"sid": sid, "status": "queued", "account_sid": ACCOUNT_SID, "to": form["To"], "error_code": None}
        return await self.answer(request, steer, web.json_response(body, status=201))

    async def _form(self, request: web.Request) -> dict[str, str]:
        login = base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            raise Refused(20003)
        if request.match_info["account"] != ACCOUNT_SID or request.match_info["resource"] not in {"Messages", "Calls"}:
            raise Refused(20404)
        if request.content_type != "application/x-www-form-urlencoded":
            raise Refused(20001)
        pairs = parse_qsl((await request.read()).decode(), keep_blank_values=True, strict_parsing=True)
        if len({name for name, _ in pairs}) != len(pairs):
            raise Refused(20001)
        return dict(pairs)

    async def _report(self, callback: str, sid: str, to: str, steer: str) -> None:
        default: tuple[tuple[str, str | None], ...] = (("sent", None), ("delivered", None))
        for status, code in CALLBACKS.get(steer, default):
            fields = [("MessageSid", sid), ("MessageStatus", status), ("AccountSid", ACCOUNT_SID), ("To", to)]
            if await self._post(callback, fields + ([("ErrorCode", code)] if code else [])) is None:
                return

    async def _call(self, form: dict[str, str], sid: str, steer: str) -> None:
        """A call, from the moment at which somebody picks up or does not."""
        if steer in CALLBACKS:
            return
        by, key, end = CALLS.get(steer, ("human", None, "completed"))
        who = [("CallSid", sid), ("AccountSid", ACCOUNT_SID)]
        known = [
            *who,
            ("From", form["From"]),
            ("To", form["To"]),
            ("Direction", "outbound-api"),
            ("ApiVersion", "2010"),
        ]
        if by and form.get("AsyncAmd") == "true":
            await self._post(
                form["AsyncAmdStatusCallback"], [*who, ("AnsweredBy", by), ("MachineDetectionDuration", "2400")]
            )
        gather = ET.fromstring(form["Twiml"]).find("Gather")
        if key and gather is not None:
            pressed = [
                *known,
                ("CallStatus", "in-progress"),
                ("Digits", key),
                ("FinishedOnKey", ""),
                ("msg", "Gather End"),
            ]
            if (answer := await self._post(gather.attrib["action"], pressed)) is not None:
                self.spoken += self._understood(answer, check_voice, "Say")
        await self._post(form["StatusCallback"], [*known, ("CallStatus", end), ("CallDuration", "7")])

    async def receive(
        self, url: str, sender: str, text: str, sid: str | None = None, opt_out_type: str | None = None
    ) -> list[tuple[str | None, str]] | None:
        """Let somebody write to our number; what they are answered. None: the callback was not taken.

        Args:
            url: as the operator has entered it.
            sender: theirs.
            text: what they write.
            sid: of a message that is told of once more.
            opt_out_type: what Advanced Opt-Out made of it.
        """
        sid = sid or "SM" + uuid.uuid4().hex
        fields = [
            ("ToCountry", "US"),
            ("SmsMessageSid", sid),
            ("NumMedia", "0"),
            ("SmsSid", sid),
            ("SmsStatus", "received"),
        ]
        fields += [("Body", text), ("To", "+15005550006"), ("NumSegments", "1"), ("MessageSid", sid)]
        fields += [("AccountSid", ACCOUNT_SID), ("From", sender), ("ApiVersion", "2010-04-01")]
        fields += [("OptOutType", opt_out_type)] if opt_out_type else []
        answer = await self._post(url, fields)
        return None if answer is None else self._understood(answer, check_messaging, "Message")

    async def _post(self, callback: str, fields: list[tuple[str, str]]) -> tuple[str, bytes] | None:
        """Content type and body of the answer; None: there was none that counts, and Twilio does not ask again."""
        assert self._session is not None
        parts = urlsplit(callback)
        target = callback
        if self._callback_base:
            target = f"{self._callback_base}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        headers = {"X-Twilio-Signature": signature(callback, fields)}
        try:
            async with self._session.post(URL(target, encoded=True), data=fields, headers=headers) as response:
                body = await response.read()
                if response.status // 100 == 2:
                    return response.content_type, body
                self.errors.append(f"11200: {response.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.errors.append(f"11205: {type(error).__name__}")  # who tests that restarts the gateway and steers anew
        return None

    def _understood(
        self, answer: tuple[str, bytes], check: Callable[[ET.Element], None], verb: str
    ) -> list[tuple[str | None, str]]:
        """The words in an answer's verbs, each with its language."""
        kind, body = answer
        if kind not in {"text/xml", "application/xml"}:
            self.errors.append(f"12300: {kind}")
            return []
        try:
            root = ET.fromstring(body)
            check(root)
        except (ET.ParseError, Refused) as error:
            self.errors.append(f"12100: {error}")
            return []
        return [(element.get("language"), element.text or "") for element in root.iter(verb)]


def check_message(form: dict[str, str]) -> None:
    _known(form, {"To", "From", "MessagingServiceSid", "Body", "StatusCallback", "ValidityPeriod"})
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", form.get("To", "")):
        raise Refused(21211)
    if ("From" in form) == ("MessagingServiceSid" in form):
        raise Refused(21603)
    if not form.get("Body"):
        raise Refused(21602)
    if len(form["Body"]) > 1600:
        raise Refused(21617)
    if "ValidityPeriod" in form and not (
        re.fullmatch("[0-9]{1,5}", form["ValidityPeriod"]) and 1 <= int(form["ValidityPeriod"]) <= 36000
    ):
        raise Refused(21624)
    _callback(form)


def check_call(form: dict[str, str]) -> None:
    detecting = {"MachineDetection", "AsyncAmd", "AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod"}
    _known(form, {"To", "From", "Twiml", "StatusCallback", "StatusCallbackEvent", "Timeout", *detecting})
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", form.get("To", "")):
        raise Refused(21211)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", form.get("From", "")):
        raise Refused(21212)
    try:
        root = ET.fromstring(form.get("Twiml", ""))
    except ET.ParseError:
        raise Refused(21205) from None
    if len(form["Twiml"]) > 4000:
        raise Refused(21205)
    check_voice(root)
    if form.get("MachineDetection", "Enable") not in {"Enable", "DetectMessageEnd"}:
        raise Refused(20001)
    if form.get("AsyncAmd", "false") not in FLAGS or form.get("AsyncAmdStatusCallbackMethod", "POST") != "POST":
        raise Refused(20001)
    if form.get("AsyncAmd") == "true" and not {"MachineDetection", "AsyncAmdStatusCallback"} <= form.keys():
        raise Refused(21262)  # a warning of Twilio's: nobody would hear of the result
    _callback(form, "AsyncAmdStatusCallback")
    if form.get("StatusCallbackEvent", "completed") not in {"initiated", "ringing", "answered", "completed"}:
        raise Refused(21626)
    if not 1 <= int(form.get("Timeout", "60")) <= 600:
        raise Refused(20001)
    _callback(form)


def check_voice(root: ET.Element) -> None:
    """https://www.twilio.com/docs/voice/twiml"""
    if root.tag != "Response" or any(element.tag not in VERBS for element in root.iter()):
        raise Refused(21205)
    for gather in root.iter("Gather"):
        digits, seconds = gather.get("numDigits", "1"), gather.get("timeout", "5")
        if gather.attrib.keys() - GATHER or any(inner.tag not in INSIDE_GATHER for inner in gather):
            raise Refused(21205)
        if not (digits.isdigit() and seconds.isdigit()) or gather.get("method", "POST") not in {"GET", "POST"}:
            raise Refused(21205)
        if not urlsplit(gather.get("action", "")).hostname:
            raise Refused(21205)  # a relative one has nothing to be relative to
    for say in root.iter("Say"):
        if say.attrib.keys() - {"language", "voice", "loop"} or not say.text:
            raise Refused(21205)


def check_messaging(root: ET.Element) -> None:
    """https://www.twilio.com/docs/messaging/twiml"""
    if root.tag != "Response" or any(verb.tag != "Message" or not verb.text or len(verb) for verb in root):
        raise Refused(12200)


def _known(form: dict[str, str], names: set[str]) -> None:
    if form.keys() - names:
        raise Refused(20001)


def _callback(form: dict[str, str], name: str = "StatusCallback") -> None:
    if name in form:
        url = urlsplit(form[name])
        if url.scheme not in {"http", "https"} or not url.hostname or "_" in url.hostname:
            raise Refused(21609)


def _fault(status: int, code: int) -> web.Response:
    body: dict[str, Any] = {
        "code": code,
        "message": "for people",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(body, status=status, headers={"Retry-After": "2"} if status == 429 else {})
