"""Who is told of events over HTTP: answers as a test says, and keeps what it heard."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import standardwebhooks
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.config import Webhook

HANG = object()
"""No answer, until the caller leaves or the receiver is told to go on; then 200."""
NAME = "hooks.example.com"
KEY = b"k" * 32


@dataclass(frozen=True)
class Heard:
    """A call."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, key: bytes = KEY) -> Any:
        """What it says, once the standard's own library is sure whom it is from."""
        return standardwebhooks.Webhook(key).verify(self.body, self.headers)


class Receiver:
    """A server on this machine."""

    def __init__(self, *answers: Any) -> None:
        """``answers``: statuses, pairs of a status and headers, or ``HANG``; the last of them holds for all others."""
        self.answers = list(answers) or [204]
        self.heard: list[Heard] = []
        self.names: list[str | None] = []
        """That the callers' handshakes asked for."""
        self.connections: set[int] = set()
        self.under_way = 0
        self.most = 0
        """Calls at once."""
        self.goes_on = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        if tls:
            tls.sni_callback = lambda _, name, __: self.names.append(name)
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._hear)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    @property
    def ids(self) -> list[str]:
        return [heard.id for heard in self.heard]

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(id(request.transport))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            body = await request.read()
            self.heard.append(Heard({name.lower(): value for name, value in request.headers.items()}, body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is HANG:
                await self.goes_on.wait()
                answer = 200
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            return web.Response(status=status, headers=headers)
        finally:
            self.under_way -= 1


class Names(AbstractResolver):
    """Answers what a test says when a name is looked up."""

    def __init__(self, *answers: Any) -> None:
        """``answers``: lists of addresses, errors, or ``HANG``; the last of them holds for all others."""
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is HANG:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0) for address in answer
        ]

    async def close(self) -> None: ...


def webhook(port: int, name: str = "ledger", url: str = f"https://{NAME}:%d/in?token=t0ken", **changes: Any) -> Webhook:
    """One that may be anywhere, and asks for everything."""
    given = {"keys": (KEY,), "events": ("#",), "timeout": timedelta(seconds=5), "concurrency": 20, "private": True}
    return Webhook(name=name, url=url % port if "%d" in url else url, **(given | changes))


class Trust:
    """An authority, whom to trust, and a certificate for a name."""

    def __init__(self, *names: str) -> None:
        self._ca = trustme.CA()
        self.client = ssl.create_default_context()
        self._ca.configure_trust(self.client)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or (NAME,))).configure_cert(self.server)
