"""The private API: requests in, what became of them out, and what is known of persons."""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, assert_never

import orjson
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from gateway.explain import described, explanation
from gateway.ids import ID
from gateway.intake import Accepted, Conflict, Fault, Incoming, Malformed, Overloaded
from gateway.message import MessageState, Name, Source
from gateway.web.answers import JSON, answer_json, errors
from gateway.web.bodies import BATCH, ITEM, Body, Limits, Room, decoded, too_large
from gateway.web.bounces import Bounces
from gateway.web.people import People
from gateway.web.problems import Problem, turned_away, unavailable
from gateway.web.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from gateway.config import Webhook
    from gateway.decide import Judge
    from gateway.intake import Answer, Intake
    from gateway.metrics import Metrics
    from gateway.store import MessageView, Store
    from gateway.web.keys import Caller, Keys
    from gateway.web.reports import Reports

DRAINING = "draining"
"""What a part's readiness says when nothing new may be begun."""

NDJSON = "application/x-ndjson"
ITEMS = 10_000
"""In one batch."""
_SLICE = 200
"""Requests that are validated and committed at once: other clients wait that long for their turn."""
_PARKED = 1000

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_SOURCE: TypeAdapter[str] = TypeAdapter(Source)


class Api:
    """What other services and ops ask of the gateway."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        judge: Callable[[], Judge],
        keys: Keys,
        metrics: Metrics,
        readiness: Callable[[], Mapping[str, str]],
        notice: Callable[[], None],
        limits: Limits,
        webhooks: Sequence[Webhook],
        reports: Reports,
    ) -> None:
        """``notice`` is called whenever something may have become due."""
        self._store = store
        self._intake = intake
        self._judge = judge
        self._keys = keys
        self._metrics = metrics
        self._readiness = readiness
        self._notice = notice
        self._reports = reports
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
            web.put("/v1/users/{user}", self._for("admin", people.put)),
            web.get("/v1/users/{user}", self._for("read", people.get)),
            web.get("/v1/users/{user}/eligibility", self._for("read", people.eligibility)),
            web.post("/v1/optouts", self._for("admin", people.opt_out)),
            web.delete("/v1/optouts", self._for("admin", people.opt_in)),
            web.post("/v1/bounces", self._for("bounces", bounces.take)),
            web.get("/v1/parked", self._for("read", self._parked)),
            web.get("/v1/report", self._for("read", self._reports.told)),
            web.get("/report", self._for("read", self._reports.shown)),
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
        if request.content_type not in (JSON, NDJSON):
            detail = f"Send {JSON} (one object, or a list of them) or {NDJSON} (one object a line)"
            raise Problem("wrong_content", detail, headers={"Accept-Post": f"{JSON}, {NDJSON}"})
        with self._body(request) as body:
            if request.content_type == NDJSON:
                return await self._many(_lines(await body.read(BATCH)), caller)
            found = _read(await _one_or_list(body))
            if isinstance(found, list):
                return await self._many(_listed(found, len(body.bytes)), caller)
            return await self._one(found, caller)

    async def _one(self, fields: Any, caller: Caller) -> web.Response:
        (answer,) = await self._accept([fields], caller)
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
                detail = "Nothing was accepted: mend what errors lists"
                raise Problem("malformed", detail, errors=errors(answer.faults))
            case _:
                assert_never(answer)

    async def _many(self, items: Iterator[bytes | object | None], caller: Caller) -> web.Response:
        """``None`` stands for an item that is too large."""
        results: list[dict[str, Any]] = []
        while some := list(islice(items, _SLICE)):
            try:
                answers = iter(await self._accept([item for item in some if item is not None], caller))
            except Overloaded as error:
                if not results:
                    raise
                return _cut_short(results, len(some) + sum(1 for _ in items), turned_away(error))
            for item in some:
                result = _TOO_LARGE if item is None else _result(next(answers))
                results.append({"index": len(results), **result})
        if not results:
            fault = Fault("", "is empty: send at least one request")
            raise Problem("malformed", "The batch is empty", errors=errors([fault]))
        if all(result["status"] not in (200, 202) for result in results):
            raise Problem("malformed", "Nothing was accepted: mend what each result lists", results=results)
        return answer_json({"results": results}, 202)

    async def _accept(self, items: Iterable[Any], caller: Caller) -> list[Answer]:
        """Commit; a source that is not the caller's is one fault more."""
        may_raise = "priority" in caller.scopes
        incoming, foreign = [], []
        for item in items:
            body = item
            if isinstance(body, bytes):
                try:
                    body = orjson.loads(body)
                except orjson.JSONDecodeError:
                    body = item  # intake says what is wrong with it
            claims_another = isinstance(body, dict) and body.get("source", caller.name) != caller.name
            if claims_another:
                # None is no source, so it is refused, with whatever else is wrong.
                incoming.append(Incoming({**body, "source": None}, "http", None, may_raise))
            else:
                incoming.append(Incoming(body, "http", caller.name, may_raise))
            foreign.append(claims_another)
        answers = await self._intake.accept(incoming) if incoming else []
        return [
            _of_another(answer, caller) if isinstance(answer, Malformed) and claims_another else answer
            for answer, claims_another in zip(answers, foreign, strict=True)
        ]

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


async def _one_or_list(body: Body) -> bytearray:
    """A body that may be as long as a batch only if it is a list."""
    if not await body.fits(ITEM):
        if not body.bytes.lstrip().startswith(b"["):
            raise too_large(ITEM, _as_lines(body.bytes))
        if not await body.fits(BATCH):
            raise too_large(BATCH)
    return body.bytes


def _read(body: bytearray) -> Any:
    try:
        return decoded(body)
    except Problem as problem:
        problem.detail += _as_lines(body)
        raise


def _as_lines(body: bytearray) -> str:
    """What to say of a body whose first line is a request by itself."""
    first, more, _ = body.partition(b"\n")
    if not more:
        return ""
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return ""
    return f". It looks like one request a line: send that as Content-Type {NDJSON}"


def _lines(body: bytes) -> Iterator[bytes | None]:
    """One item a line; None for one that is too long. Empty lines are none."""
    if body.count(b"\n") > 2 * ITEMS:  # before any is looked at: a body of nothing but line breaks has millions
        raise _too_many()
    lines = (line for line in BytesIO(body) if not line.isspace())
    if sum(1 for _ in lines) > ITEMS:
        raise _too_many()
    return (line.strip() if len(line) <= ITEM else None for line in BytesIO(body) if not line.isspace())


def _listed(items: list[Any], size: int) -> Iterator[object | None]:
    """The items of a list; None for one that is too long, which none of a short list can be."""
    if len(items) > ITEMS:
        raise _too_many()
    return (None if size > ITEM and _length(item) > ITEM else _not_none(item) for item in items)


def _length(item: object) -> int:
    try:
        return len(orjson.dumps(item))
    except orjson.JSONEncodeError:
        return 0  # nested too deeply, which intake says


def _not_none(item: object) -> object:
    """An item that is ``null`` is as malformed as any other that is no object."""
    return False if item is None else item


def _too_many() -> Problem:
    return Problem("too_large", f"At most {ITEMS} requests are taken at once. Nothing was accepted")


def _cut_short(results: list[dict[str, Any]], rest: int, problem: Problem) -> web.Response:
    """Those that were answered, and of the rest that they were not accepted."""
    fault = {"status": 503, "errors": errors([Fault("", problem.detail)])}
    results += [{"index": len(results) + number, **fault} for number in range(rest)]
    return answer_json({"results": results}, 202, problem.headers)


_TOO_LARGE = {"status": 413, "errors": [{"path": "", "problem": f"is too large: at most {ITEM} bytes are taken"}]}


def _result(answer: Answer) -> dict[str, Any]:
    """As it stands in the answer to many."""
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
            named = {"id": answer.id} if answer.id is not None else {}
            return {"status": 422, **named, "errors": errors(answer.faults)}
        case _:
            assert_never(answer)


def _status(answer: Accepted) -> int:
    return 200 if answer.repeated else 202


def _state(answer: Accepted) -> str:
    return answer.state if answer.repeated else "accepted"


def _of_another(answer: Malformed, caller: Caller) -> Malformed:
    problem = f"must be left out, or be the name of the key, {caller.name}"
    return Malformed(tuple(Fault(f.path, problem) if f.path == "source" else f for f in answer.faults), answer.id)


def _is(adapter: TypeAdapter[str], value: str) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
