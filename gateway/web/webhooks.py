"""What ops see of webhooks, and how they enable one again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from gateway.web.answers import answer_json
from gateway.web.problems import Problem
from gateway.webhooks.standard import mended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from gateway.config import Webhook
    from gateway.store import Store, WebhookView
    from gateway.web.keys import Caller

log = structlog.get_logger()

_PIECE = 1000
"""Events that are revived in one transaction."""


class Webhooks:
    """Those that are configured."""

    def __init__(self, store: Store, webhooks: Sequence[Webhook]) -> None:
        self._store = store
        self._webhooks = {webhook.name: webhook for webhook in webhooks}
        self._urls = {webhook.name: webhook.fingerprint for webhook in webhooks}

    async def all(self, _: web.Request, __: Caller) -> web.Response:
        """How it stands with each."""
        views = await self._store.webhooks(self._urls)
        return answer_json({"webhooks": [_described(self._webhooks[name], view) for name, view in views.items()]})

    async def enable(self, request: web.Request, caller: Caller) -> web.Response:
        """Send to one again; with ``given_up=true`` the events too that it never took."""
        webhook = self._webhooks.get(request.match_info["webhook"])
        if webhook is None:
            raise Problem("not_found", "No such webhook is configured here")
        given_up = request.query.get("given_up", "false")
        if given_up not in ("true", "false"):
            raise Problem("bad_query", "given_up must be true or false")
        if await self._store.enable_webhook(webhook.name):
            log.info("webhook.enabled", webhook=webhook.name, by=caller.name)
        if given_up == "true":
            while await self._store.revive_events(webhook.name, _PIECE) == _PIECE:
                pass
        views = await self._store.webhooks({webhook.name: webhook.fingerprint})
        return answer_json(_described(webhook, views[webhook.name]))


def _described(webhook: Webhook, view: WebhookView) -> dict[str, Any]:
    """Its URL's beginning alone: whoever knows the rest may be known by it."""
    hint = mended(view.error)
    return {"name": webhook.name, "origin": webhook.origin, "events": webhook.events, **asdict(view), "hint": hint}
