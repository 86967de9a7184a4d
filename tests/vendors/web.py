"""What the vendors that speak HTTP share: a server, a place to wait, and ways to fall silent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from tests.vendors.ledger import Ledger


class WebVendor:
    """A local server with a ledger. Counts its connections and keeps the last requests."""

    name = ""

    def __init__(self, ledger: Ledger, *, delay: float = 0.0) -> None:
        self.ledger = ledger
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        """Path, headers and decoded body of what was accepted; only the last hundred."""
        self.connections: set[int] = set()
        self._delay = delay
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def start(self, port: int = 0) -> int:
        app = web.Application(client_max_size=1_000_000)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def accepted(self, request: web.Request, body: Any) -> None:
        self.requests.append((request.path, dict(request.headers), body))
        del self.requests[:-100]

    async def answer(self, request: web.Request, action: str, reply: web.Response) -> web.StreamResponse:
        """After the time that this vendor takes, and as the address asks for."""
        if self._delay:
            await asyncio.sleep(self._delay)
        match action:
            case "silence" | "lost-silence":
                await asyncio.Event().wait()  # until the client leaves
            case "reset" | "lost-reset":
                assert request.transport is not None
                request.transport.abort()
            case "html":
                return web.Response(text="<!doctype html><title>Oops</title>", content_type="text/html")
        return reply
