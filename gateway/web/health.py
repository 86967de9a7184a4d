"""Is the process alive, may it be given work, and what has it counted? Needs no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.metrics import Metrics


def routes(metrics: Metrics, readiness: Callable[[], Mapping[str, str]]) -> list[web.RouteDef]:
    """``readiness`` says of each part ``ok``, or what it lacks."""

    async def alive(_: web.Request) -> web.Response:
        """As long as the event loop turns; whatever else is missing, a restart would not bring it back."""
        return _json(200, {"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        parts = readiness()
        well = all(state == "ok" for state in parts.values())
        return _json(200 if well else 503, {"status": "ok" if well else "unavailable", "parts": dict(parts)})

    return [
        web.get("/livez", alive),
        web.get("/readyz", ready),
        web.get("/healthz", ready),
        web.get("/metrics", make_aiohttp_handler(metrics.registry)),
    ]


def _json(status: int, document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
