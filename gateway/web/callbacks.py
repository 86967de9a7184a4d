"""What vendors report of attempts, and of people's answers: verified, then committed, and only then acknowledged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, assert_never

from aiohttp import web

from gateway.acts import reported
from gateway.batcher import Batcher
from gateway.web.bodies import Body, Room
from gateway.web.problems import Problem, unavailable
from gateway.web.replies import Replies
from providers import Acted, Answers, Callback, Forged, Receipt, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.acts import Deed
    from gateway.decide import Judge
    from gateway.metrics import Metrics
    from gateway.store import Store
    from providers import News, Provider


_WAITING = 10_000
"""Receipts that wait to be committed: some seconds' worth. A vendor whose receipt finds no room reports it again."""


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
        self._received: Batcher[Receipt, None] = Batcher(self._receive, lanes=1, room=_WAITING)
        self._acted: Batcher[Deed, None] = Batcher(self._remember, lanes=1, room=_WAITING)
        self._replies = Replies(store, judge, metrics)
        self._store = store
        self._providers = providers
        self._judge = judge
        self._public_url = public_url
        self._metrics = metrics
        self._room = room
        self._seconds = seconds

    def routes(self) -> list[web.RouteDef]:
        """For the public listener."""
        return [
            web.post("/callbacks/{provider}", self._report),
            web.post("/callbacks/{provider}/{token}", self._report),  # which the provider looks at
        ]

    async def _receive(self, receipts: Sequence[Receipt]) -> list[None]:
        await self._store.receipt(receipts, self._judge())
        return [None] * len(receipts)

    async def _remember(self, deeds: Sequence[Deed]) -> list[None]:
        await self._store.record(deeds, self._judge())
        return [None] * len(deeds)

    async def _commit(self, news: News, provider: str) -> None:
        match news:
            case Receipt():
                await self._received(news)
            case Acted():
                await self._acted(reported(news, provider))
            case Reply():
                await self._replies.hear(news, provider)
            case _:
                assert_never(news)

    async def _report(self, request: web.Request) -> web.Response:
        """Answered with success only when the news is committed, and holds: until then the vendor must ask again."""
        name = request.match_info["provider"]
        provider = self._providers.get(name)
        if provider is None:
            raise Problem("not_found", "No provider of this name is configured here")
        since = asyncio.get_running_loop().time()
        with Body(request, self._room, self._seconds) as body:
            callback = Callback(
                url=self._public_url + request.raw_path,
                query=dict(request.query),
                headers={header.lower(): value for header, value in request.headers.items()},
                body=await body.read(),
            )
            try:
                news = provider.receipts(callback)
            except Forged:
                self._metrics.reported(name, "forged")
                raise Problem("forged", "It was not signed by the vendor, or not for this address") from None
            try:
                async with asyncio.timeout_at(since + self._seconds):
                    await asyncio.gather(*(self._commit(one, name) for one in news))
            except TimeoutError:
                raise unavailable("The database did not answer in time: report it again") from None
        for one in news:
            if isinstance(one, Receipt):
                self._metrics.reported(name, one.status)
            if isinstance(one, Reply):
                await self._replies.settle(one, name, since)
        answer = provider.answer(callback, news) if isinstance(provider, Answers) else None
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer.body, content_type=answer.content_type)
