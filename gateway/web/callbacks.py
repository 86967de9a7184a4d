"""What vendors report of attempts, and of people's answers: verified, then committed, and only then acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, assert_never

import structlog
from aiohttp import web

from gateway.acts import reported
from gateway.batcher import Batcher
from gateway.web.bodies import Body, Room
from gateway.web.problems import Problem, unavailable
from gateway.web.replies import Replies
from providers import Acted, Answers, Callback, CallsBack, Doubt, Forged, NoNews, Receipt, Reply, Unread, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.acts import Deed
    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store
    from providers import News, Provider

log = structlog.get_logger()

_WAITING = 10_000
"""Receipts that wait to be committed: some seconds' worth. A vendor whose receipt finds no room reports it again."""
_QUIET = 60.0
"""Seconds for which the same is not logged again: whoever knows the address could fill the log."""
_COUNTED: Mapping[type[NoNews], str] = {Forged: "forged", Unreadable: "unreadable", Unread: "unread"}
_UNMATCHED = "unmatched"
"""Of no attempt that we know: another system's, or one long forgotten."""
_UNREADABLE_AS: Mapping[Doubt, str] = {
    Doubt.NOT_JSON: "its body is not JSON",
    Doubt.NOT_A_FORM: "its body is no form",
    Doubt.TOO_MANY: "it holds more events than are taken at once",
}


class Callbacks:
    """The addresses that vendors are given with each attempt."""

    def __init__(
        self,
        store: Store,
        providers: Mapping[str, Provider],
        judge: Callable[[], Judge],
        public_url: str,
        metrics: Metrics,
        room: Room,
        seconds: float,
    ) -> None:
        """``seconds``: how long a vendor is kept waiting."""
        self._received: Batcher[Receipt, bool | None] = Batcher(self._receive, lanes=1, room=_WAITING)
        self._acted: Batcher[Deed, None] = Batcher(self._remember, lanes=1, room=_WAITING)
        self._replies = Replies(store, judge, metrics)
        self._store = store
        self._providers = providers
        self._judge = judge
        self._public_url = public_url
        self._metrics = metrics
        self._room = room
        self._seconds = seconds
        self._logged: dict[tuple[str, Doubt], float] = {}

    def routes(self) -> list[web.RouteDef]:
        """For the public listener."""
        return [
            web.post("/callbacks/{provider}", self._report),
            web.post("/callbacks/{provider}/{token}", self._report),  # which the provider looks at
        ]

    async def _receive(self, receipts: Sequence[Receipt]) -> list[bool | None]:
        return await self._store.receipt(receipts, self._judge())

    async def _remember(self, deeds: Sequence[Deed]) -> list[None]:
        await self._store.record(deeds, self._judge())
        return [None] * len(deeds)

    async def _commit(self, news: News, provider: str) -> str | None:
        """As what it is counted, if it is."""
        match news:
            case Receipt():
                return _UNMATCHED if await self._received(news) is None else news.status
            case Acted():
                await self._acted(reported(news, provider))
            case Reply():
                await self._replies.hear(news, provider)
            case _:
                assert_never(news)
        return None

    def _read(self, provider: CallsBack, callback: Callback, name: str, now: float) -> Sequence[News]:
        """The news in a callback; none where it is the vendor's and says nothing that is looked for.

        Raises:
            Problem: it is not the vendor's, or not in its form.
        """
        try:
            return provider.receipts(callback)
        except NoNews as none:
            kind, doubt = type(none), none.doubt
        word = _COUNTED[kind]
        self._metrics.reported(name, word)
        if now - self._logged.get((name, doubt), -_QUIET) >= _QUIET:
            self._logged[name, doubt] = now
            log.warning("callback.no_news", provider=name, status=word, reason=doubt.value)
        if kind is Forged:  # whoever forges is not told what to mend
            raise Problem("forged", "It was not signed by the vendor, or not for this address")
        if kind is Unreadable:
            what = _UNREADABLE_AS.get(doubt, "it lacks what every report has")
            raise Problem("unreadable", f"It is the vendor's, but {what}")
        return ()

    async def _report(self, request: web.Request) -> web.Response:
        """Answered with success only when the news is committed, and holds: until then the vendor must ask again."""
        name = request.match_info["provider"]
        provider = self._providers.get(name)
        if not isinstance(provider, CallsBack) or not provider.calls_back:
            raise Problem("not_found", "No provider of this name that takes callbacks is configured here")
        since = asyncio.get_running_loop().time()
        with Body(request, self._room, self._seconds) as body:
            callback = Callback(
                url=self._public_url + request.raw_path,
                query=dict(request.query),
                headers={header.lower(): value for header, value in request.headers.items()},
                body=await body.read(),
            )
            news = self._read(provider, callback, name, since)
            try:
                async with asyncio.timeout_at(since + self._seconds):
                    counted = await asyncio.gather(*(self._commit(one, name) for one in news))
            except TimeoutError:
                raise unavailable("The database did not answer in time: report it again") from None
        for one, status in zip(news, counted, strict=True):
            if status:
                self._metrics.reported(name, status)
            if isinstance(one, Reply):
                await self._replies.settle(one, name, since)
        answer = provider.answer(callback, news) if isinstance(provider, Answers) else None
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer.body, content_type=answer.content_type)
