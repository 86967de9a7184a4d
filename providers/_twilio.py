"""What Twilio's products share: how to log in, what its error codes mean, how it signs, how it is answered."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from xml.etree import ElementTree as ET

import orjson
from pydantic import Field, SecretStr, field_validator
from yarl import URL

from providers import _contract
from providers._contract import (
    Answer,
    Callback,
    Dispatch,
    Doubt,
    Forged,
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Unconfirmed,
    Unreachable,
    Unreadable,
)
from providers._http import Client, document, error, kind_of, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from providers._wire import Reply

CODES: Mapping[int, type[ProviderError]] = {
    # The account.
    10001: Misconfigured,  # account is not active
    20003: Misconfigured,  # authentication
    20005: Misconfigured,  # account is not active
    20006: Misconfigured,  # access denied
    20008: Misconfigured,  # a test credential on a live resource
    20404: Misconfigured,  # no such account, or not Twilio's address
    21215: Misconfigured,  # voice: no permission for this country
    21219: Misconfigured,  # trial account, number not verified
    21408: Misconfigured,  # messaging: no permission for this region
    21608: Misconfigured,  # trial account, number not verified
    # The sender or the callback, which are ours.
    21205: Misconfigured,  # callback URL is invalid
    21210: Misconfigured,  # From is not verified
    21212: Misconfigured,  # From is invalid
    21213: Misconfigured,  # From is missing
    21603: Misconfigured,  # From is missing
    21606: Misconfigured,  # From cannot send messages
    21609: Misconfigured,  # StatusCallback is invalid
    21659: Misconfigured,  # From is not of this account
    21660: Misconfigured,  # From and account do not match
    21701: Misconfigured,  # no such messaging service
    21703: Misconfigured,  # the messaging service has no number
    21704: Misconfigured,  # the messaging service has no number
    # The pace.
    10004: Throttled,  # too many concurrent calls
    20429: Throttled,  # too many requests
    21611: Throttled,  # the sender's queue is full
    21730: Throttled,  # maintenance, "try again later"
    30610: Throttled,  # quiet hours at the recipient, by Twilio's clock: it may go later
    63038: Throttled,  # daily limit of the account
    # The number.
    21211: Unreachable,  # To is invalid
    21214: Unreachable,  # To cannot be reached
    21217: Unreachable,  # To does not appear to be valid
    21401: Unreachable,  # To is invalid
    21610: Unreachable,  # the person has opted out at Twilio
    21614: Unreachable,  # To is not a mobile number
    21635: Unreachable,  # To is a landline
    # The message, or this sender with this number. Another sender may reach it, so the address is kept.
    21216: Rejected,  # the account may not call this number
    21602: Rejected,  # the body is empty
    21612: Rejected,  # this From cannot reach this To
    21617: Rejected,  # the body is too long
}
"""https://www.twilio.com/docs/api/errors"""

STATUSES: Mapping[int, type[ProviderError]] = {404: Misconfigured}
"""Where a reply has no code that is known: the path holds only the account, so it is the account that is not found."""


NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
"""E.164."""

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, escaped or not."""

_SID = re.compile(r"AC[0-9a-zA-Z]{1,64}")


class Settings(_contract.Settings):
    """An account and who it sends as."""

    base_url: str = "https://api.twilio.com"
    account_sid: str
    auth_token: SecretStr = Field(min_length=1)
    """Also the key that Twilio signs its callbacks with."""
    sender: str

    @field_validator("account_sid")
    @classmethod
    def _account(cls, value: str) -> str:
        if not _SID.fullmatch(value):
            raise ValueError("must be AC and the digits and letters after it, as the Twilio console shows it")
        return value

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        url = URL(value)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("must be an http or https address")
        return value.rstrip("/")


class Account:
    """A resource of an account, such as ``Messages``, to which things are posted."""

    def __init__(self, settings: Settings, resource: str, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.sid = settings.account_sid
        self._token = settings.auth_token.get_secret_value().encode()
        self._url = URL(f"{settings.base_url}/2010-04-01/Accounts/{self.sid}/{resource}.json")
        login = b64encode(self.sid.encode() + b":" + self._token).decode()
        self.client = Client(
            settings.timeout,
            settings.concurrency,
            {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"},
            clock,
        )

    async def create(self, form: Mapping[str, str], dispatch: Dispatch) -> str:
        """Post one form and return the ``sid`` of what came of it."""
        try:
            body = urlencode(form).encode()
        except UnicodeEncodeError:
            raise Rejected("bad_text", "holds half a surrogate pair") from None
        reply = await self.client.call(self._url, body, deadline=dispatch.deadline)
        if reply.ok:
            return text(document(reply).get("sid"))
        raise self._error(reply)

    def _error(self, reply: Reply) -> ProviderError:
        """By Twilio's code where it gives one that is known, else by the status.

        Twilio documents no 5xx as not processed, so those stay ``Unconfirmed`` whatever their body says.
        """
        code = _code(reply)
        kind = kind_of(reply.status, STATUSES)
        if kind is not Unconfirmed:
            kind = CODES.get(code, kind)
        return error(kind, str(code) if code else f"http_{reply.status}", reply, self.clock())

    def verified(self, callback: Callback) -> dict[str, str]:
        """The fields of a callback that Twilio has signed.

        https://www.twilio.com/docs/usage/webhooks/webhooks-security

        Raises:
            Forged: the signature does not hold, or the account is another.
        """
        try:
            fields = parse_qsl(callback.body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=200)
        except ValueError:
            raise Forged(Doubt.NOT_A_FORM) from None
        if not (signature := callback.headers.get("x-twilio-signature")):
            raise Forged(Doubt.MISSING_HEADER)
        given = signature.encode(errors="surrogateescape")
        expected = [self._signature(url, fields) for url in _spellings(callback.url)]
        # Every spelling is compared: how long it takes tells nothing.
        if not any([hmac.compare_digest(given, one) for one in expected]):  # noqa: C419
            raise Forged(Doubt.SIGNATURE)
        found = dict(fields)
        if found.get("AccountSid", self.sid) != self.sid:
            raise Forged(Doubt.ACCOUNT)
        return found

    def _signature(self, url: str, fields: list[tuple[str, str]]) -> bytes:
        """URL, then each field's name and value, sorted; a repeated field once for each value it has."""
        signed = url + "".join(name + value for name, value in sorted(set(fields)))
        return b64encode(hmac.digest(self._token, signed.encode(), hashlib.sha1))


def reported(callback: Callback, fields: Mapping[str, str], *names: str) -> tuple[str, ...]:
    """The attempt that a verified callback is about, then the named fields.

    Raises:
        Unreadable: one is missing. Twilio signs other requests with the same key, and they are no news.
    """
    found = (callback.query.get("attempt", ""), *(fields.get(name, "") for name in names))
    if not all(found):
        raise Unreadable(Doubt.INCOMPLETE)
    return found


def twiml(*verbs: ET.Element) -> Answer:
    """What Twilio is to do next; without a verb nothing, which it must be told as well.

    https://www.twilio.com/docs/usage/webhooks/messaging-webhooks, https://www.twilio.com/docs/voice/twiml
    """
    response = ET.Element("Response")
    response.extend(verbs)
    return Answer(ET.tostring(response, encoding="utf-8", xml_declaration=True), "text/xml")


def said(verb: str, text: str, **attributes: str) -> ET.Element:
    """A verb with words in it."""
    element = ET.Element(verb, attributes)
    element.text = text
    return element


def sayable(text: str) -> str:
    """A text of the configuration, if XML can hold it."""
    if NOT_XML.search(text):
        raise ValueError("holds a character that no XML may hold")
    return text


def _code(reply: Reply) -> int:
    """Twilio's error code, 0 where there is none."""
    try:
        found = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return 0
    code = found.get("code") if isinstance(found, dict) else None
    # Only five digits: what a code may be is what a metric's label may be.
    return code if isinstance(code, int) and 10_000 <= code <= 99_999 else 0  # noqa: PLR2004


def _spellings(url: str) -> tuple[str, str]:
    """The URL with and without its port: Twilio's products differ in which of them they sign."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    bare = host if parts.port is None else host.removesuffix(f":{parts.port}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return urlunsplit(parts._replace(netloc=bare)), urlunsplit(parts._replace(netloc=f"{bare}:{port}"))
