"""Events in: what services saw that was done with messages, remembered once and owed to the right one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.acts import Deed, too_far_ahead
from gateway.fields import Instant, Name, Source
from gateway.intake import Fault, Malformed, Overloaded, Unreadable, decoded, faults_of, id_of, utc_now
from gateway.store import ParkedInput
from providers import Act, Agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from gateway.acts import Remembered
    from gateway.decide import Judge
    from gateway.headroom import Headroom
    from gateway.intake import Incoming
    from gateway.metrics import Metrics
    from gateway.store import Store

VIA: Final = "service"
"""How we heard of it."""
UNREAD: Final = "unread"
"""In place of the event of what could not be read."""


def _ours(text: str) -> str:
    if not re.fullmatch(r"[0-9a-z]{26}", text):
        raise ValueError("is not a message of ours: take what POST /v1/messages answered, or name your request instead")
    return text


class Report(BaseModel):
    """What a service says was done. Field names are part of the contract."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Name
    """Idempotency key within ``source``."""
    source: Source
    event: Literal["opened", "clicked", "app_opened", "converted"]
    user: Name | None = None
    message: Annotated[str, StringConstraints(strict=True), AfterValidator(_ours)] | None = None
    """Our id."""
    request: Name | None = None
    """Theirs: the id of a request of the same ``source``."""
    stage: Name | None = None
    """How far the person came."""
    at: Instant | None = None
    """None: now."""

    @field_validator("stage")
    @classmethod
    def _of_a_conversion(cls, stage: str | None, told: ValidationInfo) -> str | None:
        if stage is not None and told.data.get("event", Act.CONVERTED) != Act.CONVERTED:
            raise ValueError("is only of converted: leave it out")
        return stage

    @field_validator("at")
    @classmethod
    def _within_memory(cls, at: datetime | None, told: ValidationInfo[_Limits]) -> datetime | None:
        limits = told.context
        if at and too_far_ahead(at, limits.now):
            raise ValueError(
                "lies more than five minutes ahead: set that clock right, or leave it out, which means now"
            )
        if at and at < limits.now - limits.kept:
            raise ValueError(f"is longer ago than contacts are kept here, {limits.kept.days} days: do not report it")
        return at

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if not (self.user or self.message or self.request):
            raise ValueError("must name a person: by user, message (our id) or request (yours)")
        if self.message and self.request:
            raise ValueError("must name its message once: by message (our id) or by request (yours)")
        return self

    @property
    def deed(self) -> Deed:
        """As it is remembered."""
        return Deed(
            Act(self.event),
            Agent.HUMAN,
            VIA,
            f"report\x1f{self.source}\x1f{self.id}",  # a character that neither of them can hold
            message=self.message,
            request=(self.source, self.request) if self.request else None,
            person=self.user,
            done_at=self.at,
            stage=self.stage,
        )

    def says(self, known: Remembered) -> bool:
        """Whether it says the same as what is remembered under its id, as far as that is known."""
        return (
            (self.event, self.stage) == (known.record.act, known.record.stage)
            and self.user in (None, known.owed.person)
            and self.message in (None, known.owed.message)
            and (not self.request or known.request in (None, (self.source, self.request)))
        )


@dataclass(frozen=True, slots=True)
class _Limits:
    """By which instants are judged."""

    now: datetime
    kept: timedelta


@dataclass(frozen=True, slots=True)
class Recorded:
    """Committed: it is remembered, and others are told."""

    id: str
    """The report's."""
    message: str | None
    """Ours, to which it is owed; None: to none."""
    repeated: bool
    """The same was reported before."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """It names nobody, or no message, that is known here, or somebody else's message. Nothing is remembered of it.

    No fault of who reports it: services report in bulk, and of messages that are long forgotten.
    """

    id: str


@dataclass(frozen=True, slots=True)
class Reused:
    """The id was used before, for something else."""

    id: str


Answer = Recorded | Unmatched | Reused | Malformed

REUSED = Fault("id", "was used before, for something else: give each event an id of its own")


class Reports:
    """Takes events in: validates, commits, answers."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        metrics: Metrics,
        kept: Callable[[], timedelta],
        headroom: Headroom,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take what it needs.

        Args:
            store: what is reported is committed to it.
            judge: the one in force at the moment.
            metrics: hears of every answer.
            kept: how long contacts are remembered; nothing that was done before is taken.
            headroom: says whether there is room for more.
            clock: what is told of times is measured by it.
        """
        self._store = store
        self._judge = judge
        self._metrics = metrics
        self._kept = kept
        self._headroom = headroom
        self._now = clock

    async def take(self, items: Sequence[Incoming]) -> list[Answer]:
        """Answer each; when this returns, what was recorded or parked is committed.

        Raises:
            StoreUnavailable: nothing can be said of any of them; the same may be reported again.
            Overloaded: there is no room for more. None was recorded that was not before.
        """
        with self._room(items):
            return await self._take(items)

    @contextmanager
    def _room(self, items: Sequence[Incoming]) -> Iterator[None]:
        try:
            with self._headroom.room():
                yield
        except Overloaded:
            self._metrics.turned_away(items[0].via if items else "http", len(items))
            raise

    async def _take(self, items: Sequence[Incoming]) -> list[Answer]:
        limits = _Limits(self._now(), self._kept())
        read = [_read(item, limits) for item in items]
        reports = [one for one in read if isinstance(one, Report)]
        answered = iter(await self._record(reports) if reports else ())
        answers = [next(answered) if isinstance(one, Report) else one for one in read]
        await self._park(items, answers)
        for one, answer in zip(read, answers, strict=True):
            self._metrics.informed(one.event if isinstance(one, Report) else UNREAD, answer)
        return answers

    async def _record(self, reports: Sequence[Report]) -> list[Answer]:
        deeds = [report.deed for report in reports]
        noted = await self._store.record(deeds, self._judge())
        left = [deed.key for deed, new in zip(deeds, noted, strict=True) if new is None]
        known = await self._store.known_acts(left) if left else {}
        answers: list[Answer] = []
        for report, deed, new in zip(reports, deeds, noted, strict=True):
            if new:
                answers.append(Recorded(report.id, new.owed.message, repeated=False))
            elif deed.key not in known:
                answers.append(Unmatched(report.id))
            elif report.says(known[deed.key]):
                answers.append(Recorded(report.id, known[deed.key].owed.message, repeated=True))
            else:
                answers.append(Reused(report.id))
        return answers

    async def _park(self, items: Sequence[Incoming], answers: Sequence[Answer]) -> None:
        """Keep for people what nobody else is told of."""
        bad = [
            ParkedInput(item.via, item.source, answer.id, *refused, _bytes(item.body))
            for item, answer in zip(items, answers, strict=True)
            if item.via != "http" and (refused := refusal(answer))
        ]
        if bad:
            await self._store.park(bad)


def refusal(answer: Answer) -> tuple[Literal["malformed", "conflict"], tuple[Fault, ...]] | None:
    """Why something was not taken, and what is wrong with it; None if it was, matched or not."""
    match answer:
        case Malformed(faults):
            return "malformed", faults
        case Reused():
            return "conflict", (REUSED,)
        case _:
            return None


def _read(item: Incoming, limits: _Limits) -> Report | Malformed:
    try:
        fields = dict(decoded(item.body))
    except Unreadable as error:
        return Malformed((Fault("", str(error)),))
    if item.source is not None:
        fields["source"] = item.source
    try:
        return Report.model_validate(fields, context=limits)
    except ValidationError as error:
        return Malformed(faults_of(error, Report), id_of(fields))


def _bytes(body: bytes | Mapping[str, Any]) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)
