"""What messages lead to: the pixel of a mail and the links of mails and texts, and who opened and followed them."""

from __future__ import annotations

import asyncio
import base64
import re
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from aiohttp import hdrs, web

from gateway.acts import Sighting
from gateway.batcher import Batcher
from gateway.ids import ID
from gateway.intake import Overloaded, utc_now
from gateway.render import CODE_LENGTH, target
from gateway.store import StoreUnavailable
from gateway.visits import Networks, Seen, look
from providers import Act

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store, Trail

log = structlog.get_logger()
T = TypeVar("T")

PIXEL: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
"""A transparent GIF of one pixel, 43 bytes."""

_LINK: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_CODE: Final = re.compile(rf"[0-9A-Za-z]{{{CODE_LENGTH}}}")
_LETTERS: Final = re.compile("[0-9A-Za-z]+")
"""Such as codes are made of."""
_PATIENCE: Final = 2.0
"""Seconds that a person who follows a link may be kept waiting."""
_FAREWELL: Final = 3.0
"""Seconds that what was seen is given to be remembered when the process ends."""
_WAITING: Final = 10_000
"""Opens, and clicks, that wait to be remembered: some seconds' worth. Those that find no room are lost."""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1rem; }}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{text}</p>
</main>
</body>
</html>
"""
_NOWHERE: Final = _PAGE.format(
    title="This link leads nowhere", text="It is incomplete, or the message that it was in is too old."
)
_LATER: Final = _PAGE.format(title="One moment", text="This link cannot be followed right now. Try it again soon.")


@dataclass(frozen=True, slots=True)
class _Open:
    """A pixel that was asked for."""

    attempt: str
    seen: Seen
    at: datetime
    heard: float
    """By the event loop's clock."""


class Engagement:
    """The addresses in what was sent. Whoever asks for others learns nothing: unknown ones are all answered alike."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        networks: Networks,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``judge``: the one in force now; ``networks``: by which machines are known."""
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._networks = networks
        self._now = now
        self._opened: Batcher[_Open, None] = Batcher(self._remember_opens, lanes=1, room=_WAITING)
        self._clicked: Batcher[Sighting, None] = Batcher(self._remember, lanes=1, room=_WAITING)
        self._remembering: set[asyncio.Future[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """For the public listener, after all others: the last takes whatever has one part."""
        return [
            web.get("/o/{attempt}", self._open),
            web.get("/c/{attempt}/{link}", self._follow),
            web.get("/{code}", self._follow_short),
        ]

    async def close(self, _: object = None) -> None:
        """Let what was seen be remembered."""
        if self._remembering:
            await asyncio.wait(self._remembering, timeout=_FAREWELL)

    async def _open(self, request: web.Request) -> web.Response:
        """Answered at once: who reads waits for no database, and what is unknown takes as long."""
        attempt = request.match_info["attempt"]
        if ID.fullmatch(attempt):
            seen = self._look(request, Act.OPENED)
            self._note(Act.OPENED, self._opened, _Open(attempt, seen, self._now(), asyncio.get_running_loop().time()))
        return web.Response(body=PIXEL, content_type="image/gif")

    async def _follow(self, request: web.Request) -> web.Response:
        attempt, link = request.match_info["attempt"], request.match_info["link"]
        if not (ID.fullmatch(attempt) and _LINK.fullmatch(link)):
            return self._nowhere()
        return await self._lead(request, self._store.trail(attempt, int(link)))

    async def _follow_short(self, request: web.Request) -> web.Response:
        code = request.match_info["code"]
        if _CODE.fullmatch(code):
            return await self._lead(request, self._store.short_trail(code))
        # What browsers and crawlers ask of every site, such as /favicon.ico, is no link that leads nowhere.
        return self._nowhere() if _LETTERS.fullmatch(code) else _page(_NOWHERE, 404)

    async def _lead(self, request: web.Request, finding: Coroutine[object, object, Trail | None]) -> web.Response:
        """On to where a link leads. That it was followed is remembered before, unless that takes too long."""
        at, until = self._now(), asyncio.get_running_loop().time() + _PATIENCE
        try:
            async with asyncio.timeout_at(until):
                trail = await finding
        except (TimeoutError, StoreUnavailable):
            self._metrics.followed("unavailable")
            return _page(_LATER, 503, {hdrs.RETRY_AFTER: "5"})
        if trail is None or (location := target(trail.content, trail.link)) is None:
            return self._nowhere()
        sign = self._look(request, Act.CLICKED).after(trail.age)
        remembered = self._note(Act.CLICKED, self._clicked, Sighting(Act.CLICKED, trail.attempt, at, sign, trail.link))
        if remembered:
            await asyncio.wait({remembered}, timeout=until - asyncio.get_running_loop().time())
        self._metrics.followed("redirected")
        return web.Response(status=302, headers={hdrs.LOCATION: location})

    def _nowhere(self) -> web.Response:
        self._metrics.followed("unknown")
        return _page(_NOWHERE, 404)

    def _look(self, request: web.Request, act: Act) -> Seen:
        forwarded = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).split(",")
        return look(act, request.method, request.headers, request.remote, forwarded, self._networks)

    # ----------------------------------------------------------------------------------------------- what is remembered

    def _note(self, act: Act, batcher: Batcher[T, None], item: T) -> asyncio.Future[None] | None:
        try:
            remembered = batcher(item)
        except Overloaded:
            self._metrics.lost(act)
            return None
        self._remembering.add(remembered)
        remembered.add_done_callback(partial(self._noted, act))
        return remembered

    def _noted(self, act: Act, remembered: asyncio.Future[None]) -> None:
        self._remembering.discard(remembered)
        if remembered.cancelled() or (error := remembered.exception()) is None:
            return
        self._metrics.lost(act)
        if not isinstance(error, StoreUnavailable):
            # Neither the error's sentence nor its frames' variables: they may hold what was sent.
            log.error("engagement.bug", error=type(error).__name__, traceback=traceback.format_tb(error.__traceback__))

    async def _remember_opens(self, opens: Sequence[_Open]) -> list[None]:
        ages = await self._store.since_hand_off(sorted({one.attempt for one in opens}))
        now = asyncio.get_running_loop().time()
        seen = [
            Sighting(Act.OPENED, one.attempt, one.at, one.seen.after(ages[one.attempt] - (now - one.heard)))
            for one in opens
            if one.attempt in ages
        ]
        if seen:
            await self._remember(seen)
        return [None] * len(opens)

    async def _remember(self, seen: Sequence[Sighting]) -> list[None]:
        self._metrics.withdrawn.inc(await self._store.engage(seen, self._judge()))
        return [None] * len(seen)


def _page(html: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
    policy = {"Content-Security-Policy": _POLICY}
    return web.Response(text=html, status=status, content_type="text/html", headers=policy | (headers or {}))
