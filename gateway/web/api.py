"""The private API: requests in, what became of them out, and what is known of persons."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, assert_never

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from gateway.explain import described, explanation
from gateway.fields import Name, Source
from gateway.ids import ID
from gateway.intake import Accepted, Conflict, Fault, Malformed
from gateway.message import MessageState
from gateway.web.answers import answer_json, errors
from gateway.web.batches import Door, malformed, nothing_accepted
from gateway.web.bodies import Body, Limits, Room
from gateway.web.bounces import Bounces
from gateway.web.events import Events
from gateway.web.people import People
from gateway.web.problems import Problem, unavailable
from gateway.web.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from gateway.config import Webhook
    from gateway.decide import Judge
    from gateway.intake import Answer, Intake
    from gateway.metrics import Metrics
    from gateway.reports import Reports
    from gateway.store import MessageView, Store
    from gateway.web.funnels import Funnels
    from gateway.web.keys import Caller, Keys

DRAINING = "draining"
"""What a part's readiness says when nothing new may be begun."""

_PARKED = 1000

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_SOURCE: TypeAdapter[str] = TypeAdapter(Source)


class Api:
    """What other services and ops ask of the gateway."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        reports: Reports,
        judge: Callable[[], Judge],
        keys: Keys,
        metrics: Metrics,
        readiness: Callable[[], Mapping[str, str]],
        notice: Callable[[], None],
        limits: Limits,
        webhooks: Sequence[Webhook],
        funnels: Funnels,
    ) -> None:
        """``notice`` is called whenever something may have become due."""
        self._store = store
        self._intake = intake
        self._reports = reports
        self._judge = judge
        self._keys = keys
        self._metrics = metrics
        self._readiness = readiness
        self._notice = notice
        self._funnels = funnels
        self._places = Room(limits.requests)
        self._memory = Room(limits.memory)
        self._body_seconds = limits.body_seconds
        self._webhooks = Webhooks(store, webhooks)

    def routes(self) -> list[web.RouteDef]:
        """For the private listener."""
        people = People(self._store, self._judge, self._metrics, self._notice, self._body)
        bounces = Bounces(self._store, self._judge, self._metrics, self._notice, self._body)
        return [
            web.post("/v1/messages", self._for("send", self._send)),
            web.get("/v1/messages", self._for("read", self._find)),
            web.get("/v1/messages/{message}", self._for("read", self._message)),
            web.get("/v1/messages/{message}/explain", self._for("read", self._explain)),
            web.delete("/v1/messages/{message}", self._for("send", self._cancel)),
            web.post("/v1/events", self._for("events", Events(self._reports, self._body).post)),
            web.put("/v1/users/{user}", self._for("admin", people.put)),
            web.get("/v1/users/{user}", self._for("read", people.get)),
            web.get("/v1/users/{user}/eligibility", self._for("read", people.eligibility)),
            web.post("/v1/optouts", self._for("admin", people.opt_out)),
            web.delete("/v1/optouts", self._for("admin", people.opt_in)),
            web.post("/v1/bounces", self._for("bounces", bounces.take)),
            web.get("/v1/parked", self._for("read", self._parked)),
            web.get("/v1/report", self._for("read", self._funnels.told)),
            web.get("/report", self._for("read", self._funnels.shown)),
            web.get("/v1/webhooks", self._for("read", self._webhooks.all)),
            web.post("/v1/webhooks/{webhook}/enable", self._for("admin", self._webhooks.enable)),
        ]

    def _for(
        self, scope: str, handler: Callable[[web.Request, Caller], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            return await handler(request, self._keys.caller(request, scope))

        return guarded

    # -------------------------------------------------------------------------------------------------------- messages

    async def _send(self, request: web.Request, caller: Caller) -> web.Response:
        return await Door(self._intake.accept, _alone, _among, "request").answer(request, caller, self._body)

    async def _find(self, request: web.Request, caller: Caller) -> web.Response:
        given = request.query.get("id")
        if given is None:
            raise Problem("bad_query", "Name the request: ?source=…&id=…")
        source = request.query.get("source", caller.name)
        found = None
        if _is(_NAME, given) and _is(_SOURCE, source):
            found = await self._store.by_request(source, given)
        return answer_json(described(await self._view(found or "")))

    async def _message(self, request: web.Request, _: Caller) -> web.Response:
        return answer_json(described(await self._view(request.match_info["message"])))

    async def _explain(self, request: web.Request, _: Caller) -> web.Response:
        view = await self._view(request.match_info["message"])
        judge = self._judge()
        standing = await self._store.standing(view.message.id, judge)
        if standing is None:
            raise Problem("not_found", "There is no such message any more")
        return answer_json(explanation(view, standing, judge))

    async def _view(self, message: str) -> MessageView:
        view = await self._store.view(message) if ID.fullmatch(message) else None
        if view is None:
            raise Problem("not_found", "There is no such message")
        return view

    async def _cancel(self, request: web.Request, _: Caller) -> web.Response:
        message = request.match_info["message"]
        state = await self._store.cancel(message, self._judge()) if ID.fullmatch(message) else None
        if state is None:
            raise Problem("not_found", "There is no such message")
        if state is not MessageState.CANCELLED:
            raise Problem("too_late", f"It cannot be cancelled any more: it is {state}", state=state)
        self._notice()  # whoever stood in line behind it
        return answer_json({"state": state})

    # ------------------------------------------------------------------------------------------------------------ rest

    async def _parked(self, request: web.Request, _: Caller) -> web.Response:
        given = request.query.get("limit", "100")
        if not (given.isascii() and given.isdecimal() and len(given) <= len(str(_PARKED))):
            raise Problem("bad_query", f"limit must be a number from 1 to {_PARKED}")
        limit = int(given)
        if not 1 <= limit <= _PARKED:
            raise Problem("bad_query", f"limit must be a number from 1 to {_PARKED}")
        return answer_json({"parked": await self._store.parked(limit)})

    @contextmanager
    def _body(self, request: web.Request) -> Iterator[Body]:
        """Room for what a request sends, until it is answered."""
        if DRAINING in self._readiness().values():
            raise unavailable("This gateway is stopping: send it to another, or again in a moment")
        with self._places.place(), Body(request, self._memory, self._body_seconds) as body:
            yield body


def _alone(answer: Answer) -> web.Response:
    match answer:
        case Accepted():
            at = {"Location": f"/v1/messages/{answer.message}"}
            return answer_json(
                {"message": answer.message, "id": answer.id, "state": _state(answer)}, _status(answer), at
            )
        case Conflict():
            detail = "This id was used before, with another body: choose another id, or send the same body"
            raise Problem("conflict", detail, id=answer.id, message=answer.message)
        case Malformed():
            raise nothing_accepted(answer)
        case _:
            assert_never(answer)


def _among(answer: Answer) -> dict[str, Any]:
    match answer:
        case Accepted():
            return {
                "status": _status(answer),
                "message": answer.message,
                "id": answer.id,
                "state": _state(answer),
            }
        case Conflict():
            fault = Fault("id", "was used before, with another body")
            return {"status": 409, "message": answer.message, "id": answer.id, "errors": errors([fault])}
        case Malformed():
            return malformed(answer)
        case _:
            assert_never(answer)


def _status(answer: Accepted) -> int:
    return 200 if answer.repeated else 202


def _state(answer: Accepted) -> str:
    return answer.state if answer.repeated else "accepted"


def _is(adapter: TypeAdapter[str], value: str) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
