"""What came of it, over HTTP: as JSON for programs, and as a page for people."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, TypeAdapter, ValidationError

from gateway.config.faults import nearest
from gateway.config.words import Length
from gateway.fields import Name
from gateway.intake import Fault, faults_of, utc_now
from gateway.report import By, Column, Counting, Question, TooMany, described, page, security
from gateway.store import Wanted
from gateway.web.answers import answer_json, errors
from gateway.web.problems import Problem
from gateway.web.queries import Moment, repeated, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.config import Target
    from gateway.decide import Judge
    from gateway.report import Report
    from gateway.store import Store
    from gateway.web.keys import Caller
    from providers import Settings

PAGE: Final = 500
"""Messages, or acts, that are read in one transaction: a few milliseconds, in which nobody waits long."""
_REST: Final = 0.5
"""Of the time that a page took, so much is left to others before the next."""
PATIENCE: Final = 100.0
"""Seconds that a report may take. Whoever asked waits for all of it."""
_ASKED: Final = ("by", "since", "until", "category")

_LENGTH: TypeAdapter[timedelta] = TypeAdapter(Length)
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


def _when(value: object) -> timedelta | datetime:
    try:
        if isinstance(value, str) and re.fullmatch("[0-9a-z]*", value):
            return _LENGTH.validate_python(value)
        return _MOMENT.validate_python(value)
    except ValidationError as error:
        (fault, *_) = faults_of(error)
        raise ValueError(f"{fault.problem}; or write how long ago, such as 7d") from None


def _listed(value: object) -> object:
    words = [word for word in value.split(",") if word] if isinstance(value, str) else value
    if isinstance(words, list) and len(set(words)) < len(words):
        raise ValueError("names one twice: name it once")
    return words


_When = Annotated[timedelta | datetime, PlainValidator(_when)]


class _Asked(BaseModel):
    """The query."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    by: Annotated[tuple[By, ...], BeforeValidator(_listed)] = (By.CAMPAIGN, By.CHANNEL)
    since: _When = timedelta(days=7)
    until: _When = timedelta(0)
    category: Name | None = None

    def question(self, now: datetime) -> Question:
        """Its meaning at an instant."""
        since, until = (now - at if isinstance(at, timedelta) else at for at in (self.since, self.until))
        return Question(since.astimezone(UTC), until.astimezone(UTC), self.by, self.category)


class Funnels:
    """The part of the API that tells what came of many messages."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        targets: Callable[[], Sequence[Target]],
        providers: Mapping[str, Settings],
        *,
        clock: Callable[[], datetime] = utc_now,
        patience: float = PATIENCE,
    ) -> None:
        """``judge`` and ``targets``: those in force now; ``patience``: seconds."""
        self._store = store
        self._judge = judge
        self._targets = targets
        self._priced = {name: settings for name, settings in providers.items() if settings.cost}
        self._clock = clock
        self.patience = patience
        self._busy = False

    async def told(self, request: web.Request, _: Caller) -> web.Response:
        """As JSON."""
        return answer_json(described(await self._report(request)))

    async def shown(self, request: web.Request, _: Caller) -> web.Response:
        """As a page."""
        return web.Response(
            text=page(described(await self._report(request))),
            content_type="text/html",
            headers={"Content-Security-Policy": f"{security()}; frame-ancestors 'none'"},
        )

    async def _report(self, request: web.Request) -> Report:
        now = self._clock()
        question = _question(request, now)
        if self._busy:
            detail = "Another report is being counted: ask again in a moment"
            raise Problem("overloaded", detail, headers={"Retry-After": "5"})
        self._busy = True
        try:
            async with asyncio.timeout(self.patience):
                report = await self._counted(question, now)
        except TimeoutError:
            detail = f"Nothing was counted to its end in {self.patience:g} s: ask about a shorter time"
            raise Problem("too_long", detail) from None
        except TooMany as error:
            raise Problem("bad_query", str(error)) from None
        finally:
            self._busy = False
        self._check(report)
        return report

    async def _counted(self, question: Question, now: datetime) -> Report:
        """Page by page, so that whoever sends waits for none of it."""
        judge = self._judge()
        counting = Counting(question, judge.policy.zone, self._priced, self._targets(), judge.public_url)
        fields = frozenset({By.STAGE, By.VARIANT}.intersection(question.by))
        wanted = Wanted(
            question.since,
            question.until,
            question.category,
            frozenset(map(str, fields)),
            frozenset(self._priced),
        )
        time = asyncio.get_running_loop().time
        message: str | None = ""
        while message is not None:
            begun = time()
            stories, message = await self._store.stories(wanted, message, PAGE)
            counting.add(stories)
            await asyncio.sleep((time() - begun) * _REST)
        act: int | None = None if question.category else 0
        while act is not None:
            begun = time()
            acts, act = await self._store.unattributed(question.since, question.until, act, PAGE)
            counting.add_unattributed(acts)
            await asyncio.sleep((time() - begun) * _REST)
        return counting.report(now)

    def _check(self, report: Report) -> None:
        """A category of which there is nothing, and that is not configured, was misspelt."""
        category, configured = report.question.category, self._judge().policy.categories
        if category is not None and category not in configured and not report.total.counts[Column.REQUESTED]:
            problem = f"is not configured here, and no message of that time has it{nearest(category, configured)}"
            raise _bad([Fault("category", problem)])


def _question(request: web.Request, now: datetime) -> Question:
    """What a query asks.

    Raises:
        Problem: it cannot be understood; says all that is wrong.
    """
    query = request.query
    faults = [*repeated(query), *(unknown(key, _ASKED) for key in query if key not in _ASKED)]
    try:
        question = _Asked.model_validate(dict(query)).question(now)
    except ValidationError as error:
        raise _bad([*faults, *faults_of(error, _Asked)]) from None
    except OverflowError:
        raise _bad([*faults, Fault("since", "lies before all time: write a shorter one")]) from None
    if question.since >= question.until:
        faults.append(Fault("since", "must be before until"))
    if faults:
        raise _bad(faults)
    return question


def _bad(faults: Sequence[Fault]) -> Problem:
    return Problem("bad_query", f"Ask with {', '.join(_ASKED)}; none of them is needed", errors=errors(faults))
