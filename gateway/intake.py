"""The one door: what becomes of a request at the moment it is made, whichever way it came."""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from gateway.config.faults import keys_at, nearest
from gateway.fields import Name
from gateway.ids import new_id
from gateway.lines import line_of
from gateway.message import Message, MessageState, Priority, Profile, SendRequest, canonical_hash
from gateway.store import NewMessage, ParkedInput
from gateway.store.engine import TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from gateway.config import Category
    from gateway.decide import Judge
    from gateway.headroom import Headroom
    from gateway.metrics import Metrics
    from gateway.store import Known, Store
    from providers import Channel


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request."""

    path: str
    """Where, such as ``to.phone``; empty for the whole."""
    problem: str
    """What, and how to mend it. Never holds what was sent."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came."""

    body: bytes | Mapping[str, Any]
    """JSON, or what it was decoded to."""
    via: Literal["amqp", "http", "file"]
    source: str | None = None
    """The API key's name. None on AMQP, where the body names it."""
    may_raise_priority: bool = False
    """Whether the key may ask for a higher priority than the category's."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Committed: from now on it reaches a final state."""

    id: str
    """The request's."""
    message: str
    """Ours."""
    state: MessageState
    repeated: bool
    """The same request was accepted before; ``state`` is the present one."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id was used before, with another body."""

    id: str
    message: str
    """The message that the id stands for."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a request that can be accepted. Via AMQP and files it has been parked."""

    faults: tuple[Fault, ...]
    id: str | None = None
    """Where it could be read."""


Answer = Accepted | Conflict | Malformed


class Overloaded(Exception):
    """Nothing was accepted: try again later."""

    def __init__(self, reason: str, retry_after: float) -> None:
        """``retry_after`` is in seconds."""
        super().__init__(reason)
        self.retry_after = retry_after


LARGEST = 256 * 1024
"""Bytes of one request. Of a longer one no more than its beginning is kept anywhere."""
_DEEPEST = 32


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Intake:
    """Accepts requests: validates, resolves what they leave open, commits."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        accepted: Callable[[Collection[tuple[Priority, Channel]]], None] = lambda _: None,
        clock: Callable[[], datetime] = utc_now,
        headroom: Headroom | None = None,
    ) -> None:
        """Take what it needs.

        Args:
            store: what is accepted is committed to it.
            judge: the one in force at the moment.
            metrics: hears of every answer.
            accepted: is told of which priorities and first channels new messages were committed.
            clock: what a request's times are measured by.
            headroom: says whether there is room for more. None: there always is.
        """
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._accepted = accepted
        self._now = clock
        self._headroom = headroom

    async def accept(self, items: Sequence[Incoming]) -> list[Answer]:
        """Answer each request; when this returns, what was accepted or parked is committed.

        Raises:
            StoreUnavailable: nothing can be said of any of them; the same may be asked again.
            Overloaded: there is no room for more. None was accepted that was not before.
        """
        with self._room(items[0].via if items else "http", len(items)):
            return await self._accept(items)

    @contextmanager
    def _room(self, via: str, count: int) -> Iterator[None]:
        """Nothing is begun without room for it; and what the store finds no room for was not accepted."""
        try:
            with self._headroom.room() if self._headroom else nullcontext():
                yield
        except Overloaded:
            self._metrics.turned_away(via, count)
            raise

    async def _accept(self, items: Sequence[Incoming]) -> list[Answer]:
        now, judge = self._now(), self._judge()
        answers: list[Answer | None] = []
        fresh: list[tuple[int, NewMessage]] = []
        for index, item in enumerate(items):
            if index % TURN == TURN - 1:  # a code need not wait until a whole batch has been read
                critical = all(new.message.priority is Priority.CRITICAL for _, new in fresh)
                await self._store.precedence.breathe(critical=critical)
            read = _read(item, judge, now)
            answers.append(read if isinstance(read, Malformed) else None)
            if isinstance(read, NewMessage):
                fresh.append((index, read))
        if fresh:
            known = await self._store.accept([new for _, new in fresh])
            taken = [holder.message for holder in known if holder]
            states = await self._store.states(taken) if taken else {}
            for (index, new), holder in zip(fresh, known, strict=True):
                answers[index] = _answer(new, holder, states)
            if pairs := {
                (new.message.priority, new.message.channels[0])
                for (_, new), holder in zip(fresh, known, strict=True)
                if holder is None
            }:
                self._accepted(pairs)
        settled = [answer for answer in answers if answer is not None]
        await self._park(items, settled)
        for item, answer in zip(items, settled, strict=True):
            self._metrics.received(item.via, answer)
        return settled

    async def begin(self, body: bytes) -> int:
        """Note that one is handled alone that was delivered before; how often it was so begun and not finished.

        Raises:
            StoreUnavailable: nothing was noted.
        """
        return await self._store.begin_doubtful(hashlib.sha256(body).hexdigest())

    async def end(self, body: bytes) -> None:
        """Forget that."""
        await self._store.end_doubtful(hashlib.sha256(body).hexdigest())

    async def accept_profiles(self, bodies: Sequence[bytes]) -> list[tuple[Fault, ...]]:
        """Replace what is known of persons; for each body its faults, none if it was taken.

        Raises:
            StoreUnavailable, Overloaded: as above.
        """
        with self._room("amqp", len(bodies)):
            return await self._accept_profiles(bodies)

    async def _accept_profiles(self, bodies: Sequence[bytes]) -> list[tuple[Fault, ...]]:
        answers: list[tuple[Fault, ...]] = []
        good: list[tuple[str, Profile]] = []
        for body in bodies:
            try:
                told = _Told.model_validate(decoded(body))
                good.append((told.user, Profile.model_validate(told.model_dump(exclude={"user"}, exclude_unset=True))))
                answers.append(())
            except Unreadable as error:
                answers.append((Fault("", str(error)),))
            except ValidationError as error:
                answers.append(faults_of(error, _Told))
        if good:
            await self._store.put_profiles(good)
        bad = [
            ParkedInput("amqp", None, None, "malformed", faults, body)
            for body, faults in zip(bodies, answers, strict=True)
            if faults
        ]
        if bad:
            await self._store.park(bad)
        return answers

    async def _park(self, items: Sequence[Incoming], answers: Sequence[Answer]) -> None:
        bad = []
        for item, answer in zip(items, answers, strict=True):
            if item.via == "http":
                continue
            body = item.body if isinstance(item.body, bytes) else orjson.dumps(item.body)
            match answer:
                case Malformed(faults, request):
                    bad.append(ParkedInput(item.via, item.source, request, "malformed", faults, body))
                case Conflict(request, message):
                    fault = Fault("id", f"was used before with another body, for message {message}")
                    bad.append(ParkedInput(item.via, item.source, request, "conflict", (fault,), body))
                case _:
                    pass
        if bad:
            await self._store.park(bad)


def _read(item: Incoming, judge: Judge, now: datetime) -> NewMessage | Malformed:
    try:
        fields = dict(decoded(item.body))
    except Unreadable as error:
        return Malformed((Fault("", str(error)),))
    if item.source is not None:
        fields["source"] = item.source
    try:
        request = SendRequest.model_validate(fields)
    except ValidationError as error:
        return Malformed(
            (*faults_of(error, SendRequest), *_uncategorised(fields.get("category"), judge)), id_of(fields)
        )
    if unknown := _uncategorised(request.category, judge):
        return Malformed(unknown, request.id)
    faults: list[Fault] = []
    category = judge.policy.categories[request.category]
    priority = category.priority if request.priority is None else request.priority
    if priority < category.priority and not item.may_raise_priority:
        faults.append(
            Fault("priority", f"may not be above the category's {category.priority.word}: the key lacks that scope")
        )
    starts_at = max(request.not_before or now, now)
    expires_at = request.expires_at or starts_at + category.expires_after
    if expires_at <= now:
        faults.append(Fault("expires_at", "has passed already"))
    channels = _channels(request, category, judge.routes, faults)
    if faults:
        return Malformed(tuple(faults), request.id)
    message = Message(
        id=new_id(),
        source=request.source,
        request=request.id,
        person=request.user,
        category=request.category,
        channels=channels,
        priority=priority,
        accepted_at=now,
        starts_at=starts_at,
        expires_at=expires_at,
        campaign=request.campaign,
        body=_normal(fields, request),
    )
    line = line_of(message, category, judge.policy.labels)
    return NewMessage(message, canonical_hash(fields), line, judge.number)


def _uncategorised(category: object, judge: Judge) -> tuple[Fault, ...]:
    if not isinstance(category, str) or category in judge.policy.categories:
        return ()
    return (Fault("category", f"is not configured here; there are: {', '.join(sorted(judge.policy.categories))}"),)


def _channels(
    request: SendRequest, category: Category, routes: Mapping[Channel, Sequence[str]], faults: list[Fault]
) -> tuple[Channel, ...]:
    """The request's, else the category's, else those there is something to say on, in the routes' order."""
    content = request.content.channels()
    if request.channels:
        for index, channel in enumerate(request.channels):
            if channel not in content:
                faults.append(Fault(f"content.{channel}", f"is missing, though channels names {channel}"))
            if channel not in routes:
                faults.append(Fault(f"channels[{index}]", f"{channel} has no route here"))
        return request.channels
    usual = category.channels or tuple(routes)
    channels = tuple(channel for channel in usual if channel in content and channel in routes)
    if not channels:
        faults.append(Fault("content", f"needs something for one of: {', '.join(usual)}"))
    return channels


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def id_of(fields: Mapping[str, Any]) -> str | None:
    """The id of what was sent, where it is one that a store can keep."""
    try:
        return _NAME.validate_python(fields.get("id"))
    except ValidationError:
        return None


def _answer(new: NewMessage, holder: Known | None, states: Mapping[str, MessageState]) -> Answer:
    if holder is None:
        return Accepted(new.message.request, new.message.id, MessageState.WAITING, repeated=False)
    if holder.hash != new.hash:
        return Conflict(new.message.request, holder.message)
    return Accepted(new.message.request, holder.message, states[holder.message], repeated=True)


class _Told(Profile):
    """A profile as it comes by itself: it says whose it is."""

    user: Name


class Unreadable(Exception):
    """Not JSON that could be a request; the sentence says why."""


def decoded(body: bytes | Mapping[str, Any]) -> dict[str, Any]:
    """The object that came as JSON.

    Raises:
        Unreadable: it is none, or is too long or too deep.
    """
    may_be_deep = True
    if isinstance(body, bytes):
        may_be_deep = body.count(b"{") + body.count(b"[") > _DEEPEST
        if len(body) > LARGEST:
            raise Unreadable(f"is too long: at most {LARGEST} bytes are taken")
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Unreadable("must be a JSON object")
    if may_be_deep and _depth(body) > _DEEPEST:
        raise Unreadable(f"is nested more than {_DEEPEST} deep")
    return body


def _normal(fields: dict[str, Any], request: SendRequest) -> dict[str, Any]:
    """The request as it came, its addresses in the form in which they are compared."""
    known = {kind: found for kind in ("phone", "email") if request.to and (found := getattr(request.to, kind))}
    return fields | {"to": fields["to"] | known} if known else fields


def _depth(value: object) -> int:
    """How deep objects and lists are nested, counted no further than is allowed."""
    level, deep = [value], 0
    while level and deep <= _DEEPEST:
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        deep += 1
    return deep


def faults_of(error: ValidationError, model: type[BaseModel] | None = None) -> tuple[Fault, ...]:
    """All that pydantic found in what should have been a model, in our words, without what was sent."""
    details = error.errors(include_url=False)
    return tuple(
        Fault(path_of(found["loc"]), _problem(found, model))
        for found in details
        # What could not be read was not counted.
        if found["type"] != "too_short" or not any(_within(other["loc"], found["loc"]) for other in details)
    )


def _within(inner: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return inner[: len(outer)] == outer != inner


def _problem(found: ErrorDetails, model: type[BaseModel] | None) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        *way, field = found["loc"]
        near = nearest(field, keys_at(model, way)) if model else ""
        return f"is not a known field{near or ': remove it, or mend its spelling'}"
    if kind in ("enum", "literal_error"):
        words = re.findall("'([^']*)'", context["expected"])
        return f"must be one of {', '.join(words)}{nearest(found['input'], words)}"
    if kind == "string_pattern_mismatch":
        return _FORMS.get(found["loc"][-1], "has another form than is asked for")
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "must not be empty"
    said = _PROBLEMS.get(kind)
    return said.format(**context) if said else found["msg"].removeprefix("Value error, ")


_FORMS: Mapping[str | int, str] = {
    **dict.fromkeys(("locale", "language"), "must be a BCP 47 tag, such as ja-JP"),
    **dict.fromkeys(("audio_url", "image"), "must be an address on the web, such as https://example.com/hello"),
}
"""By the field that must match a pattern."""
_NO_INSTANT = "is no date and time that there is: write it in RFC 3339 form, such as 2026-11-22T08:00:00Z"
_PROBLEMS = {
    "missing": "is required",
    "string_type": "must be text",
    "string_unicode": "must be text: it holds half a character",
    "string_too_long": "must have at most {max_length} characters",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "tuple_type": "must be a list",
    "too_long": "must have at most {max_length} entries",
    "timezone_aware": "must have an offset, such as 2026-11-22T08:00:00Z or 2026-11-22T08:00:00+09:00",
    "datetime_parsing": _NO_INSTANT,
    "datetime_from_date_parsing": _NO_INSTANT,
}
"""By pydantic's types of error. https://docs.pydantic.dev/latest/errors/validation_errors/"""


def path_of(location: Sequence[int | str]) -> str:
    """Such as ``to.push[0].token``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
