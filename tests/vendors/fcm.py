"""Firebase Cloud Messaging, HTTP v1, with Google's token endpoint.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages,
https://firebase.google.com/docs/cloud-messaging/error-codes,
https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from functools import cache
from typing import TYPE_CHECKING, Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.vendors.steering import action
from tests.vendors.web import WebVendor

if TYPE_CHECKING:
    from tests.vendors.ledger import Ledger

PROJECT = "decorum-tests"
EMAIL = f"sender@{PROJECT}.iam.gserviceaccount.com"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"

CODES = {
    "invalid_argument": (400, "INVALID_ARGUMENT"),
    "unregistered": (404, "NOT_FOUND"),
    "sender_id_mismatch": (403, "PERMISSION_DENIED"),
    "quota_exceeded": (429, "RESOURCE_EXHAUSTED"),
    "unavailable": (503, "UNAVAILABLE"),
    "internal": (500, "INTERNAL"),
    "third_party_auth_error": (401, "UNAUTHENTICATED"),
}
MESSAGE = {"token", "notification", "data", "android", "apns", "webpush", "fcm_options"}
ANDROID = {"collapse_key", "priority", "ttl", "restricted_package_name", "data", "notification", "fcm_options"}


@cache
def private_key() -> rsa.RSAPrivateKey:
    """One per process: making it is slow."""
    return rsa.generate_private_key(65537, 2048)


def service_account(token_uri: str) -> str:
    """The JSON file that Google hands out."""
    pem = private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "0123456789abcdef",
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "token_uri": token_uri,
    }
    return json.dumps(found)


class Fcm(WebVendor):
    """One project, and the token endpoint beside it."""

    name = "fcm"

    def __init__(self, ledger: Ledger, *, delay: float = 0.0) -> None:
        super().__init__(ledger, delay=delay)
        self.tokens: dict[str, float] = {}
        """Access token → until when it is good."""
        self.grants = 0
        self.lifetime = 3599
        self.audience = ""

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/token", self._grant), web.post("/v1/projects/{project}/messages:send", self._send)]

    async def start(self, port: int = 0) -> int:
        port = await super().start(port)
        self.audience = f"http://127.0.0.1:{port}/token"
        return port

    async def _grant(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        try:
            claims = jwt.decode(
                str(form["assertion"]),
                private_key().public_key(),
                algorithms=["RS256"],
                audience=self.audience,
                issuer=EMAIL,
                leeway=300,
                options={"require": ["iss", "aud", "iat", "exp", "scope"]},
            )
            good = form["grant_type"] == GRANT and claims["scope"] == SCOPE and claims["exp"] - claims["iat"] <= 3600
        except (jwt.InvalidTokenError, KeyError):
            good = False
        if not good:
            body = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return web.json_response(body, status=400)
        self.grants += 1
        token = f"ya29.{secrets.token_urlsafe(200)}"
        self.tokens[token] = time.monotonic() + self.lifetime
        return web.json_response({"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.get(token, 0) < time.monotonic():
            return _fault(401, "UNAUTHENTICATED", [])
        if request.match_info["project"] != PROJECT:
            return _fault(403, "PERMISSION_DENIED", [])
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = None
        if field := _bad_field(body):
            violation = {"field": field, "description": "Invalid value"}
            return _fault(400, "INVALID_ARGUMENT", [{"@type": BAD_REQUEST, "fieldViolations": [violation]}])
        message = body["message"]
        steer = action(message["token"])
        if steer == "invalid-token":
            sentence = "The registration token is not a valid FCM registration token"
            detail = {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}
            return _fault(400, "INVALID_ARGUMENT", [detail], sentence)
        if found := CODES.get(steer):
            return _fault(*found, [{"@type": FCM_ERROR, "errorCode": steer.upper()}])
        if re.fullmatch("[45][0-9]{2}", steer):
            return _fault(int(steer), "UNKNOWN", [])
        name = f"projects/{PROJECT}/messages/{uuid.uuid4().int % 10**16}"
        if not steer.startswith("lost-"):
            data = message.get("data", {})
            self.ledger.add(
                "fcm",
                "push",
                message["token"],
                attempt=None,
                message=data.get("decorum_message"),
                reference=name,
                text=message.get("notification", {}).get("body"),
            )
            self.accepted(request, body)
        return await self.answer(request, steer, web.json_response({"name": name}))


def _bad_field(body: Any) -> str | None:
    """The first field that FCM would not take."""
    if not isinstance(body, dict) or body.keys() - {"message", "validate_only"}:
        return "body"
    message = body.get("message")
    if not isinstance(message, dict) or message.keys() - MESSAGE:
        return "message"
    if not isinstance(message.get("token"), str) or not message["token"]:
        return "message.token"
    notification = message.get("notification", {})
    if notification.keys() - {"title", "body", "image"} or not all(isinstance(v, str) for v in notification.values()):
        return "message.notification"
    for number, (key, value) in enumerate(message.get("data", {}).items()):
        if not isinstance(value, str) or key in {"from", "gcm", "message_type"} or key.startswith("google"):
            return f"message.data[{number}].value"
    android = message.get("android", {})
    if android.keys() - ANDROID:
        return "message.android"
    ttl = re.fullmatch(r"([0-9]+)(?:\.[0-9]{1,9})?s", android.get("ttl", "0s"))
    if ttl is None or int(ttl[1]) > 2_419_200:
        return "message.android.ttl"
    for platform in ("apns", "webpush"):
        headers = message.get(platform, {}).get("headers", {})
        if not all(isinstance(value, str) for value in headers.values()):
            return f"message.{platform}.headers"
    if len(message.get("apns", {}).get("headers", {}).get("apns-collapse-id", "")) > 64:
        return "message.apns.headers"
    if len(json.dumps(message.get("data", {}))) + len(json.dumps(notification)) > 4096:
        return "message"
    return None


def _fault(status: int, word: str, details: list[Any], sentence: str = "for people") -> web.Response:
    body = {"error": {"code": status, "message": sentence, "status": word, "details": details}}
    return web.json_response(body, status=status, headers={"Retry-After": "2"} if status == 429 else {})
