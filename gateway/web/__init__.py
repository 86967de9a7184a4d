"""HTTP: a private listener for services, ops and monitoring, a public one for people and vendors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from gateway.visits import Networks
from gateway.web import health
from gateway.web.api import DRAINING, Api
from gateway.web.bodies import ITEM, Limits, Room
from gateway.web.callbacks import Callbacks
from gateway.web.engagement import Engagement
from gateway.web.funnels import Funnels
from gateway.web.keys import Keys
from gateway.web.problems import told
from gateway.web.unsubscribe import NO_NAME, Unsubscribe, unsubscribe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp.typedefs import Handler

    from gateway.config import Config, Target
    from gateway.decide import Judge
    from gateway.intake import Intake
    from gateway.languages import Language
    from gateway.metrics import Metrics
    from gateway.reports import Reports
    from gateway.store import Store
    from providers import Provider

__all__ = ["DRAINING", "Limits", "private_app", "public_app", "runner", "unsubscribe_url"]

_IDLE = 75.0
"""Seconds; longer than load balancers keep an idle connection, which must be the ones to close it."""
_LINGER = 2.0
"""Seconds that the rest of a refused body is read and dropped, so that its sender gets to read the answer."""
_PUBLIC = 4
"""Times as many requests at once are taken from the public as on the private listener: theirs are short."""
_CALLBACK = 5.0
"""Seconds."""
_HEADERS: Mapping[str, str] = {
    hdrs.SERVER: "decorum",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


def private_app(
    store: Store,
    intake: Intake,
    reports: Reports,
    judge: Callable[[], Judge],
    config: Config,
    metrics: Metrics,
    readiness: Callable[[], Mapping[str, str]],
    notice: Callable[[], None],
    limits: Limits | None = None,
    targets: Callable[[], Sequence[Target]] | None = None,
) -> web.Application:
    """The API, metrics and health.

    Args:
        judge: the one in force now.
        readiness: of each part ``ok`` or what it lacks; while one says ``draining``, nothing new is accepted.
        notice: called whenever something may have become due.
        limits: how much is taken at once.
        targets: those in force now. Default: those of ``config``.
    """
    funnels = Funnels(store, judge, targets or (lambda: config.report.targets), config.providers)
    api = Api(
        store,
        intake,
        reports,
        judge,
        Keys(config.keys),
        metrics,
        readiness,
        notice,
        limits or Limits(),
        config.webhooks,
        funnels,
    )
    return _app([*api.routes(), *health.routes(metrics, readiness)])


def public_app(
    store: Store,
    providers: Mapping[str, Provider],
    judge: Callable[[], Judge],
    public_url: str,
    metrics: Metrics,
    limits: Limits | None = None,
    callback_seconds: float = _CALLBACK,
    name: Mapping[Language, str] = NO_NAME,
    networks: Networks | None = None,
) -> web.Application:
    """Vendors' callbacks, what people say no by, and what messages lead to.

    Args:
        providers: by name.
        judge: the one in force now.
        public_url: how the world reaches this listener, without a slash at the end.
        limits: how much is taken at once.
        callback_seconds: how long a vendor is kept waiting.
        name: whom messages are from, as people know it.
        networks: by which machines are known.
    """
    limits = limits or Limits()
    places, memory = Room(limits.requests * _PUBLIC), Room(limits.memory)
    callbacks = Callbacks(store, providers, judge, public_url, metrics, memory, callback_seconds)
    engagement = Engagement(store, judge, metrics, networks or Networks())
    unsubscribe = Unsubscribe(store, judge, metrics, memory, name)
    app = _app([*callbacks.routes(), *unsubscribe.routes(), *engagement.routes()], places)
    app.on_cleanup.append(engagement.close)
    return app


def runner(app: web.Application, *, shutdown_timeout: float = 10.0) -> web.AppRunner:
    """What serves an app: no access log, which would name addresses' owners, and nothing decompressed."""
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_IDLE,
        lingering_time=_LINGER,
        shutdown_timeout=shutdown_timeout,
    )


def _app(routes: list[web.RouteDef], places: Room | None = None) -> web.Application:
    @web.middleware
    async def placed(request: web.Request, handler: Handler) -> web.StreamResponse:
        """What waits for the store is held in memory; mail programs and vendors come again."""
        if places is None:
            return await handler(request)
        with places.place():
            return await handler(request)

    app = web.Application(middlewares=[told, placed], client_max_size=ITEM)
    app.add_routes(routes)
    app.on_response_prepare.append(_head)
    return app


async def _head(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
