"""Push notifications through Firebase Cloud Messaging, HTTP v1."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlencode

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, SecretStr, ValidationError, field_validator
from yarl import URL

from providers import _contract
from providers._contract import (
    Channel,
    Dispatch,
    Misconfigured,
    ProviderError,
    Push,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from providers._http import Client, document, error, kind_of, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from providers._wire import Reply

CODES: Mapping[str, type[ProviderError]] = {
    "UNREGISTERED": Unreachable,
    # The token belongs to another project. It would be wrong to drop it: with another service account in the
    # configuration every token answers so, and all would be gone. Nor may one stray token make the provider unhealthy.
    "SENDER_ID_MISMATCH": Rejected,
    "INVALID_ARGUMENT": Rejected,  # unless it is the token that is invalid, see _fault
    "QUOTA_EXCEEDED": Throttled,
    # "The server is overloaded", and the same request is to be sent again: refused before acting. A repeat that slips
    # through replaces the first on the device by its collapse key. A 503 without this code is a proxy's: Unconfirmed.
    "UNAVAILABLE": Throttled,
    "INTERNAL": Unconfirmed,
    "THIRD_PARTY_AUTH_ERROR": Misconfigured,  # our APNs certificate or web push key
}
"""https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode"""

QUOTA_WAIT = timedelta(seconds=60)
"""After a 429 that names no wait (https://firebase.google.com/docs/cloud-messaging/scale-fcm)."""

LONGEST = 2_419_200
"""Seconds that FCM keeps a message at most, four weeks (same page as the codes)."""

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
"""https://firebase.google.com/docs/cloud-messaging/send/v1-api#authorize-http-v1-send-requests"""

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""RFC 7523; https://developers.google.com/identity/protocols/oauth2/service-account#httprest"""

EARLY = timedelta(seconds=60)
"""A token is renewed this long before it expires."""


class _Account(BaseModel):
    """What is needed of a service account's JSON file."""

    client_email: str
    private_key: SecretStr
    private_key_id: str | None = None
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105  (an address)
    project_id: str

    def key(self) -> RSAPrivateKey:
        """The key, parsed.

        Raises:
            ValueError: it is no RSA key.
        """
        found = load_pem_private_key(self.private_key.get_secret_value().encode(), None)
        if not isinstance(found, RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004  (of the file, not of the program)
        return found


_PROJECT = re.compile(r"[a-z0-9:.-]{4,64}")


class Settings(_contract.Settings):
    """A service account of a Firebase project."""

    kind: Literal["fcm"] = "fcm"
    service_account: SecretStr
    """The text of its JSON file."""
    project_id: str | None = None
    """Default: the service account's own."""
    base_url: str = "https://fcm.googleapis.com"
    token_url: str | None = None
    """Where tokens are asked for. Default: the service account's ``token_uri``, which stays the token's audience."""

    @field_validator("project_id")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        if value is not None and not _PROJECT.fullmatch(value):
            raise ValueError("must be the project's id as the Firebase console shows it, such as shop-1a2b3")
        return value

    @field_validator("service_account")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        try:
            _Account.model_validate_json(value.get_secret_value()).key()
        except (ValidationError, ValueError, TypeError):
            # What is wrong in detail would quote the file.
            raise ValueError("is not a service account's JSON file") from None
        return value

    @field_validator("base_url", "token_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = URL(value)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("must be an http or https address")
        return value.rstrip("/")


@dataclass(slots=True)
class _Token:
    """An access token."""

    header: str
    renew_at: datetime
    proven: bool = False
    """Has FCM taken it at least once?"""


class Provider:
    """A Firebase project."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset({Channel.PUSH})
    dedupe_window: timedelta | None = None

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._clock = clock
        self._account = _Account.model_validate_json(settings.service_account.get_secret_value())
        self._key = self._account.key()
        project = settings.project_id or self._account.project_id
        self._url = URL(f"{settings.base_url}/v1/projects/{project}/messages:send")
        self._token_url = URL(settings.token_url or self._account.token_uri)
        self._client = Client(settings.timeout, settings.concurrency, {}, clock)
        self._token: _Token | None = None
        self._renewal: asyncio.Task[_Token] | None = None

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        await self._client.open()

    async def close(self) -> None:
        """Give back connections."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._client.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Send one message and return its name."""
        now = self._clock()
        if now >= dispatch.deadline:
            raise Unavailable("deadline")  # before a token is asked for
        body = _message(dispatch, now)
        token = await self._authorize()
        reply = await self._client.call(
            self._url,
            body,
            deadline=dispatch.deadline,
            headers={"Authorization": token.header, "Content-Type": "application/json"},
        )
        if reply.ok:
            token.proven = True
            return text(document(reply).get("name"))
        raise self._error(reply, token)

    def _error(self, reply: Reply, token: _Token) -> ProviderError:
        """By FCM's own code where the reply has one, else by the status."""
        now = self._clock()
        code, condemned = _fault(reply)
        if condemned:
            return Unreachable("INVALID_TOKEN")
        if code is not None and code in CODES:
            found = error(CODES[code], code, reply, now)
            if isinstance(found, Throttled) and reply.status == 429:  # noqa: PLR2004  (too many requests)
                found.retry_after = found.retry_after or QUOTA_WAIT
            return found
        if reply.status == 401:  # noqa: PLR2004  (unauthenticated)
            if self._token is token:
                self._token = None
            # A token that was good has been revoked, and the next one will do. One that never was good is our fault.
            return Unavailable("token_revoked") if token.proven else Misconfigured("http_401")
        return error(kind_of(reply.status), f"http_{reply.status}", reply, now)

    async def _authorize(self) -> _Token:
        """A token that is good for a while. Only one is asked for at a time, for all who wait."""
        if self._token is not None and self._clock() < self._token.renew_at:
            return self._token
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
            # All who wait may be cancelled, and then nobody looks at the error.
            self._renewal.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._renewal)

    async def _renew(self) -> _Token:
        self._token = await self._fetch()
        return self._token

    async def _fetch(self) -> _Token:
        """A new token. Whatever goes wrong here, the message was certainly not sent."""
        now = self._clock()
        claims = {
            "iss": self._account.client_email,
            "scope": SCOPE,
            "aud": self._account.token_uri,
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + 3600,
        }
        key_id = self._account.private_key_id
        assertion = jwt.encode(claims, self._key, "RS256", {"kid": key_id} if key_id else None)
        try:
            reply = await self._client.call(
                self._token_url,
                urlencode({"grant_type": GRANT, "assertion": assertion}).encode(),
                deadline=now + timedelta(seconds=self._client.timeout),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
            if reply.ok:
                found = document(reply)
                value, lifetime = found.get("access_token"), found.get("expires_in")
                if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value) or not isinstance(lifetime, int):
                    raise Unavailable("token_bad_reply")
                return _Token(f"Bearer {value}", now + timedelta(seconds=min(max(lifetime, 0), 86_400)) - EARLY)
        except Unconfirmed as failure:
            raise Unavailable(f"token_{failure.code}") from None
        kind = kind_of(reply.status, {400: Misconfigured, 404: Misconfigured})  # invalid_grant, RFC 6749, 5.2
        raise error(Unavailable if kind is Unconfirmed else kind, f"token_http_{reply.status}", reply, now)


def _message(dispatch: Dispatch, now: datetime) -> bytes:
    """The request's body (https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages).

    A repeat carries the same keys, so that the device shows one notification and not two.
    """
    content = dispatch.content
    if not isinstance(content, Push):
        raise Rejected("wrong_channel")
    seconds = min(dispatch.seconds_valid(now), LONGEST)
    notification = {"title": content.title, "body": content.body}
    if content.image:
        notification["image"] = content.image
    message = {
        "token": dispatch.address,
        "notification": notification,
        "data": {**content.data, "decorum_message": dispatch.message},
        "android": {
            "collapse_key": dispatch.message,
            "ttl": f"{seconds}s",
            "notification": {"tag": dispatch.message},
        },
        "apns": {
            "headers": {
                "apns-collapse-id": dispatch.message,
                "apns-expiration": str(int(dispatch.valid_until.timestamp())),
            }
        },
        "webpush": {"headers": {"TTL": str(seconds), "Topic": dispatch.message}},
    }
    try:
        return orjson.dumps({"message": message})
    except orjson.JSONEncodeError:
        raise Rejected("bad_text", "holds half a surrogate pair") from None


def _fault(reply: Reply) -> tuple[str | None, bool]:
    """FCM's error code, and whether it is the token that is invalid.

    https://firebase.google.com/docs/cloud-messaging/error-codes: INVALID_ARGUMENT is about the token where the field
    violation says so, or where FCM's own error comes without one and the sentence does.
    """
    try:
        fault: Any = orjson.loads(reply.body)["error"]
        details = [detail for detail in fault.get("details", ()) if isinstance(detail, dict)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None, False
    code = next((str(detail["errorCode"]) for detail in details if "errorCode" in detail), None)
    code = code or {"INVALID_ARGUMENT": "INVALID_ARGUMENT"}.get(str(fault.get("status")))
    if code != "INVALID_ARGUMENT":
        return code, False
    violations = [detail["fieldViolations"] for detail in details if isinstance(detail.get("fieldViolations"), list)]
    fields = [violation.get("field") for several in violations for violation in several if isinstance(violation, dict)]
    sentence = str(fault.get("message", "")).lower()
    return code, fields == ["message.token"] or (not fields and "registration token is not a valid" in sentence)
