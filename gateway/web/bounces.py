"""Mail that came back, as mail servers hand it over: bounces and complaints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.store import COMPLAINT
from gateway.web.answers import answer_json
from gateway.web.bodies import ITEM
from gateway.web.people import settled
from gateway.web.problems import Problem
from providers import read_bounce

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aiohttp import web

    from gateway.decide import Judge
    from gateway.message import Attempt
    from gateway.metrics import Metrics
    from gateway.store import Store
    from gateway.web.bodies import Body
    from gateway.web.keys import Caller
    from providers import Receipt

MAIL = ("message/rfc822", "message/global")
_TAKEN = 1024 * 1024
"""Bytes that are let in. A bounce may hold all of the mail that it is about; what it says stands before that, within
the first ``ITEM``."""


class Bounces:
    """The part of the API that mail servers pipe to."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        notice: Callable[[], None],
        body: Callable[[web.Request], AbstractContextManager[Body]],
    ) -> None:
        """``notice`` is called whenever something may have become due; ``body`` makes room for a request's."""
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._notice = notice
        self._body = body

    async def take(self, request: web.Request, _: Caller) -> web.Response:
        """Whatever it is. Answered when what it says is committed, so that the mail server may forget it."""
        if request.content_type not in MAIL:
            raise Problem("wrong_content", f"Send the mail as {MAIL[0]}", headers={"Accept-Post": ", ".join(MAIL)})
        with self._body(request) as body:
            await body.fits(_TAKEN)
            bounce = read_bounce(bytes(body.bytes[:ITEM]), request.query.get("recipient", ""))
        said = bounce.receipt is not None or bounce.complaint
        attempt = await self._store.mailed(bounce.references) if said else None
        if attempt is None:
            self._metrics.came_back("unmatched" if said else "nothing")
            return _taken(receipts=0, complaints=0)
        if bounce.receipt:
            await self._record(bounce.receipt, attempt)
        if bounce.complaint:
            await self._heed(attempt)
        self._notice()
        return _taken(receipts=bounce.receipt is not None, complaints=bounce.complaint)

    async def _record(self, receipt: Receipt, attempt: Attempt) -> None:
        """What it says of an attempt, which it need not name by the id, and hardly by what the relay was told."""
        reference = attempt.reference or receipt.reference or attempt.id
        news = replace(receipt, attempt=attempt.id, reference=reference)
        await self._store.receipt([news], self._judge())
        self._metrics.reported(attempt.provider, news.status)
        self._metrics.came_back("receipt")

    async def _heed(self, attempt: Attempt) -> None:
        """A complaint: its effect comes before the answer, as that of every no."""
        person = await self._store.complain(attempt.id, self._judge())
        self._metrics.optouts.labels(COMPLAINT).inc()
        self._metrics.came_back("complaint")
        if person:
            await settled(self._store, person)


def _taken(*, receipts: int, complaints: int) -> web.Response:
    return answer_json({"receipts": int(receipts), "complaints": int(complaints)})
