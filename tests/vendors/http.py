"""A vendor that no adapter was written for: JSON requests, an idempotency key, an id in the reply, signed events."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from tests.vendors.steering import action
from tests.vendors.web import WebVendor

if TYPE_CHECKING:
    from tests.vendors.ledger import Ledger

KEY = "http-vendor-key-for-tests"
SIGNING_KEY = "http-vendor-signing-key-for-tests"
FIELDS = {"to", "text", "title", "ref", "message", "channel", "callback", "ttl"}


def signature(timestamp: str, body: bytes, key: str = SIGNING_KEY) -> str:
    """``X-Vendor-Signature`` of what it reports."""
    return "v1=" + hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Http(WebVendor):
    """``POST /v1/messages`` with ``{to, text, ref}`` and, at will, the other ``FIELDS``."""

    name = "http"

    def __init__(self, ledger: Ledger, *, delay: float = 0.0) -> None:
        super().__init__(ledger, delay=delay)
        self._seen: dict[str, str] = {}
        """Idempotency key → id."""

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/messages", self._create), web.put("/v1/messages", self._create)]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _fault(401)
        if request.content_type != "application/json":
            return _fault(415)
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return _fault(400)
        if not isinstance(body, dict) or body.keys() - FIELDS or not {"to", "text", "ref"} <= body.keys():
            return _fault(422)
        if not all(isinstance(value, str) for name, value in body.items() if name != "ttl"):
            return _fault(422)
        if not isinstance(body.get("ttl", 1), int) or not body["to"] or not body["text"]:
            return _fault(422)
        steer = action(body["to"])
        if re.fullmatch("[45][0-9]{2}", steer):
            return await self.answer(request, "", _fault(int(steer)))
        key = request.headers.get("Idempotency-Key")
        found = self._seen.get(key) if key else None
        reference = found or f"hv-{uuid.uuid4().hex}"
        if found is None and not steer.startswith("lost-"):
            if key:
                self._seen[key] = reference
            self.ledger.add(
                "http",
                body.get("channel", "sms"),
                body["to"],
                attempt=body["ref"],
                message=body.get("message") or key,
                reference=reference,
                text=body["text"],
            )
            self.accepted(request, body)
        reply = web.Response(body=b'{"data":{"id":"%b"}}' % reference.encode(), content_type="application/json")
        return await self.answer(request, steer, reply)


def _fault(status: int) -> web.Response:
    return web.json_response(
        {"error": "for people"}, status=status, headers={"Retry-After": "2"} if status == 429 else {}
    )
