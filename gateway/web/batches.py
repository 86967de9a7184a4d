"""One item or many in a body: read within limits, handed over a slice at a time, each answered for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from gateway.intake import Fault, Incoming, Malformed, Overloaded
from gateway.web.answers import JSON, answer_json, errors
from gateway.web.bodies import BATCH, ITEM, decoded, too_large
from gateway.web.problems import Problem, turned_away

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from aiohttp import web

    from gateway.web.bodies import Body
    from gateway.web.keys import Caller

NDJSON = "application/x-ndjson"
ITEMS = 10_000
"""In one batch."""
_SLICE = 200
"""Items that are validated and committed at once: other clients wait that long for their turn."""

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Line:
    """An item of NDJSON, and where it stands."""

    number: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Door(Generic[A]):
    """Where the items of a body go; ``Malformed`` is one of the answers that there are."""

    accept: Callable[[Sequence[Incoming]], Awaitable[Sequence[A]]]
    """Commits items, and answers each; nothing is committed where it raises."""
    alone: Callable[[A], web.Response]
    """What an item by itself is answered."""
    among: Callable[[A], dict[str, Any]]
    """What stands in the answer to many, with its ``status``."""
    noun: str
    """What an item is called, such as ``request``."""

    async def answer(
        self, request: web.Request, caller: Caller, room: Callable[[web.Request], AbstractContextManager[Body]]
    ) -> web.Response:
        """Read a body, hand over what is in it, and answer; ``room`` is made for it meanwhile.

        Raises:
            Problem: it cannot be read, or nothing in it was accepted.
        """
        if request.content_type not in (JSON, NDJSON):
            detail = f"Send {JSON} (one object, or a list of them) or {NDJSON} (one object a line)"
            raise Problem("wrong_content", detail, headers={"Accept-Post": f"{JSON}, {NDJSON}"})
        with room(request) as body:
            if request.content_type == NDJSON:
                return await self._many(self._lines(await body.read(BATCH)), caller)
            found = self._read(await self._one_or_list(body))
            if isinstance(found, list):
                return await self._many(self._listed(found, len(body.bytes)), caller)
            (answer,) = await self._accepted([found], caller)
            return self.alone(answer)

    async def _many(self, items: Iterator[_Line | object | None], caller: Caller) -> web.Response:
        """``None`` stands for an item that is too large."""
        results: list[dict[str, Any]] = []
        while some := list(islice(items, _SLICE)):
            try:
                answers = iter(await self._accepted([item for item in some if item is not None], caller))
            except Overloaded as error:
                if not results:
                    raise
                return _cut_short(results, len(some) + sum(1 for _ in items), turned_away(error))
            for item in some:
                result = _TOO_LARGE if item is None else self.among(next(answers))
                results.append({"index": len(results), **result})
        if not results:
            fault = Fault("", f"is empty: send at least one {self.noun}")
            raise Problem("malformed", "The batch is empty", errors=errors([fault]))
        if all(result["status"] not in (200, 202) for result in results):
            raise Problem("malformed", "Nothing was accepted: mend what each result lists", results=results)
        return answer_json({"results": results}, 202)

    async def _accepted(self, items: Iterable[Any], caller: Caller) -> list[A]:
        """Commit; a source that is not the caller's is one fault more."""
        incoming, foreign, broken = [], [], []
        for item in items:
            body, where = item, None
            if isinstance(item, _Line):
                body = item.text
                try:
                    body = orjson.loads(item.text)
                except orjson.JSONDecodeError as error:  # whoever reads it says so, but not in which line it stands
                    where = f"is not JSON: {error.msg}: line {item.number}, column {error.colno}"
            claims_another = isinstance(body, dict) and body.get("source", caller.name) != caller.name
            source = None if claims_another else caller.name
            if claims_another:  # None is no source, so it is refused, with whatever else is wrong
                body = {**body, "source": None}
            incoming.append(Incoming(body, "http", source, "priority" in caller.scopes))
            foreign.append(claims_another)
            broken.append(where)
        answers = await self.accept(incoming) if incoming else []
        return [
            _of_another(answer, caller) if claims_another else _broken(answer, where) if where else answer
            for answer, claims_another, where in zip(answers, foreign, broken, strict=True)
        ]

    async def _one_or_list(self, body: Body) -> bytearray:
        """A body that may be as long as a batch only if it is a list."""
        if not await body.fits(ITEM):
            if not body.bytes.lstrip().startswith(b"["):
                raise too_large(ITEM, self._as_lines(body.bytes))
            if not await body.fits(BATCH):
                raise too_large(BATCH)
        return body.bytes

    def _read(self, body: bytearray) -> Any:
        try:
            return decoded(body)
        except Problem as problem:
            problem.detail += self._as_lines(body)
            raise

    def _as_lines(self, body: bytearray) -> str:
        """What to say of a body whose first line is an item by itself."""
        first, more, _ = body.partition(b"\n")
        if not more:
            return ""
        try:
            orjson.loads(first)
        except orjson.JSONDecodeError:
            return ""
        return f". It looks like one {self.noun} a line: send that as Content-Type {NDJSON}"

    def _lines(self, body: bytes) -> Iterator[_Line | None]:
        """One item a line; None for one that is too long. Empty lines are none."""
        if body.count(b"\n") > 2 * ITEMS:  # before any is looked at: a body of nothing but line breaks has millions
            raise self._too_many()
        lines = (line for line in BytesIO(body) if not line.isspace())
        if sum(1 for _ in lines) > ITEMS:
            raise self._too_many()
        return (
            _Line(number, line.rstrip()) if len(line) <= ITEM else None
            for number, line in enumerate(BytesIO(body), 1)
            if not line.isspace()
        )

    def _listed(self, items: list[Any], size: int) -> Iterator[object | None]:
        """The items of a list; None for one that is too long, which none of a short list can be."""
        if len(items) > ITEMS:
            raise self._too_many()
        return (None if size > ITEM and _length(item) > ITEM else _not_none(item) for item in items)

    def _too_many(self) -> Problem:
        return Problem("too_large", f"At most {ITEMS} {self.noun}s are taken at once. Nothing was accepted")


def _length(item: object) -> int:
    try:
        return len(orjson.dumps(item))
    except orjson.JSONEncodeError:
        return 0  # nested too deeply, which whoever reads it says


def _not_none(item: object) -> object:
    """An item that is ``null`` is as malformed as any other that is no object."""
    return False if item is None else item


def _cut_short(results: list[dict[str, Any]], rest: int, problem: Problem) -> web.Response:
    """Those that were answered, and of the rest that they were not accepted."""
    fault = {"status": 503, "errors": errors([Fault("", problem.detail)])}
    results += [{"index": len(results) + number, **fault} for number in range(rest)]
    return answer_json({"results": results}, 202, problem.headers)


_TOO_LARGE = {"status": 413, "errors": [{"path": "", "problem": f"is too large: at most {ITEM} bytes are taken"}]}


def malformed(answer: Malformed) -> dict[str, Any]:
    """What stands in the answer to many."""
    named = {"id": answer.id} if answer.id is not None else {}
    return {"status": 422, **named, "errors": errors(answer.faults)}


def nothing_accepted(answer: Malformed) -> Problem:
    """What one by itself is answered."""
    return Problem("malformed", "Nothing was accepted: mend what errors lists", errors=errors(answer.faults))


def _broken(answer: A, problem: str) -> A:
    """Of one that is no JSON, where that is in the body."""
    return replace(answer, faults=(Fault("", problem),)) if isinstance(answer, Malformed) else answer


def _of_another(answer: A, caller: Caller) -> A:
    """Of one that was refused for its source, among all else: what is wrong with that."""
    if not isinstance(answer, Malformed):
        return answer
    problem = f"must be left out, or be the name of the key, {caller.name}"
    faults = (Fault(fault.path, problem) if fault.path == "source" else fault for fault in answer.faults)
    return replace(answer, faults=tuple(faults))
