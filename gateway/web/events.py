"""What services report of messages that were sent: opened, clicked, the app opened, converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from gateway.intake import Malformed
from gateway.reports import REUSED, Recorded, Reused, Unmatched
from gateway.web.answers import answer_json, errors
from gateway.web.batches import Door, malformed, nothing_accepted
from gateway.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aiohttp import web

    from gateway.reports import Answer, Reports
    from gateway.web.bodies import Body
    from gateway.web.keys import Caller


class Events:
    """The part of the API that takes events in."""

    def __init__(self, reports: Reports, body: Callable[[web.Request], AbstractContextManager[Body]]) -> None:
        """``body`` makes room for a request's."""
        self._door = Door(reports.take, _alone, _among, "event")
        self._body = body

    async def post(self, request: web.Request, caller: Caller) -> web.Response:
        """One, or many."""
        return await self._door.answer(request, caller, self._body)


def _alone(answer: Answer) -> web.Response:
    match answer:
        case Recorded() | Unmatched():
            return answer_json(_told(answer), _status(answer))
        case Reused():
            raise Problem("conflict", f"The id {REUSED.problem}", id=answer.id)
        case Malformed():
            raise nothing_accepted(answer)
        case _:
            assert_never(answer)


def _among(answer: Answer) -> dict[str, Any]:
    match answer:
        case Recorded() | Unmatched():
            return {"status": _status(answer), **_told(answer)}
        case Reused():
            return {"status": 409, "id": answer.id, "errors": errors([REUSED])}
        case Malformed():
            return malformed(answer)
        case _:
            assert_never(answer)


def _told(answer: Recorded | Unmatched) -> dict[str, Any]:
    if isinstance(answer, Recorded):
        return {"id": answer.id, "state": "recorded", "message": answer.message}
    return {"id": answer.id, "state": "unmatched"}


def _status(answer: Recorded | Unmatched) -> int:
    return 200 if isinstance(answer, Recorded) and answer.repeated else 202
