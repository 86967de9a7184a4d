"""What services and support agents tell and ask of persons: profiles, opt-outs, and whether they may be contacted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gateway.explain import answered
from gateway.fields import EmailAddress, Name, Phone, Zone
from gateway.forecast import eligibility
from gateway.intake import Fault, faults_of, utc_now
from gateway.message import UNSUBSCRIBABLE, Message, OptOut, Priority, Profile
from gateway.web.answers import JSON, answer_json, errors
from gateway.web.bodies import decoded
from gateway.web.problems import Problem
from gateway.web.queries import Moment, meant, repeated, unknown
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from contextlib import AbstractContextManager
    from datetime import datetime
    from typing import Self

    from gateway.config import Category
    from gateway.decide import Judge
    from gateway.message import Person
    from gateway.metrics import Metrics
    from gateway.store import Store
    from gateway.web.bodies import Body
    from gateway.web.keys import Caller

_LOOK = 0.05
"""Seconds between two looks at what is open."""

_NAME: TypeAdapter[str] = TypeAdapter(Name)


async def settled(store: Store, person: str) -> None:
    """Wait until nothing that was begun before an opt-out of the person can be handed over any more.

    Bounded by what is open now: what is begun meanwhile has seen the opt-out.
    """
    await run_out(lambda: store.open_intents(person))


async def run_out(ask: Callable[[], Awaitable[float]], most: float = math.inf) -> bool:
    """Wait until nothing is left of what is open now; False: some was after ``most`` seconds.

    Args:
        ask: says in how many seconds that will be at the latest; 0: it is so.
        most: how long to wait.
    """
    loop = asyncio.get_running_loop()
    first = left = await ask()
    until = loop.time() + min(left, most)
    while left and (rest := until - loop.time()) > 0:
        await asyncio.sleep(min(rest, _LOOK))
        left = await ask()
    return not left or first <= most


class _Question(BaseModel):
    """The query of ``eligibility``: a message such as might be asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    user: Name
    category: Name
    channel: str | None = None
    campaign: Name | None = None
    priority: Literal["critical", "high", "normal", "bulk"] | None = None
    labels: Mapping[Name, Name] = Field(default_factory=dict, max_length=16)
    at: Moment | None = None
    timezone: Zone | None = None

    def message(self, channel: Channel, category: Category, at: datetime) -> Message:
        """The message, if it is asked for at that instant."""
        return Message(
            id="",
            source="",
            request="",
            person=self.user,
            category=self.category,
            channels=(channel,),
            priority=Priority[self.priority.upper()] if self.priority else category.priority,
            accepted_at=at,
            starts_at=at,
            expires_at=at + category.expires_after,
            campaign=self.campaign,
            body={"timezone": self.timezone, "labels": dict(self.labels)},
        )


_LABEL = "label."
_ASKED = ("category", "channel", "at", "timezone", "campaign", "priority", "label.NAME")
"""What a query may hold; of labels one for each."""


def _question(request: web.Request, judge: Judge) -> tuple[_Question, Category, Channel]:
    """What a query asks, of which category and by which channel.

    Raises:
        Problem: it cannot be understood; says all that is wrong.
    """
    query = request.query
    faults = [*repeated(query)]
    fields = {key: value for key, value in query.items() if key in _ASKED and not key.startswith(_LABEL)}
    faults += [unknown(key, _ASKED) for key in query if key not in _ASKED and not key.startswith(_LABEL)]
    labels = {key.removeprefix(_LABEL): value for key, value in query.items() if key.startswith(_LABEL)}
    try:
        question = _Question.model_validate({**fields, "labels": labels, "user": request.match_info["user"]})
    except ValidationError as error:
        faults += [Fault(_in_query(fault.path), fault.problem) for fault in faults_of(error, _Question)]
    category = judge.policy.categories.get(fields.get("category", ""))
    if category is None and fields.get("category"):
        faults.append(_unconfigured(fields["category"], judge.policy.categories))
    channel = fields.get("channel")
    if channel is not None and channel not in judge.routes:
        faults.append(Fault("channel", f"has no route here{meant(channel, judge.routes)}"))
    if faults or category is None:
        raise Problem("bad_query", f"Ask with {', '.join(_ASKED)}; only category is needed", errors=errors(faults))
    usual = [usual for usual in category.channels or judge.routes if usual in judge.routes]
    return question, category, Channel(channel or next(iter(usual or judge.routes)))


def _in_query(path: str) -> str:
    return path.replace("labels.", _LABEL, 1)


def _unconfigured(category: str, configured: Collection[str]) -> Fault:
    return Fault("category", f"is not configured here{meant(category, configured)}")


class _No(OptOut):
    """The body of an opt-out: who says no, and to what."""

    user: Name | None = None
    phone: Phone | None = None
    email: EmailAddress | None = None
    token: Annotated[str, StringConstraints(min_length=1, max_length=4096, strict=True)] | None = None

    @model_validator(mode="after")
    def _by_one(self) -> Self:
        if sum(who is not None for who in (self.user, self.phone, self.email, self.token)) != 1:
            raise ValueError("must name exactly one of user, phone, email and token")
        return self

    @property
    def address(self) -> str | None:
        """Where not the person but an address says it."""
        return self.phone or self.email or self.token

    @property
    def said(self) -> OptOut:
        """To what."""
        return OptOut(channel=self.channel, category=self.category, topic=self.topic)


class People:
    """The part of the API that is about persons."""

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

    async def put(self, request: web.Request, _: Caller) -> web.Response:
        """Replace a profile; one that says no is answered as an opt-out is."""
        fields = await self._fields(request)
        faults: list[Fault] = []
        user = request.match_info["user"]
        try:
            _NAME.validate_python(user)
        except ValidationError as error:
            faults += [Fault("user", fault.problem) for fault in faults_of(error)]
        try:
            profile = Profile.model_validate(fields)
        except ValidationError as error:
            faults += faults_of(error, Profile)
        if faults:
            raise _malformed(faults)
        await self._store.put_profiles([(user, profile)])
        if profile.opted_out:
            await settled(self._store, user)
        self._notice()
        return web.Response(status=204)

    async def get(self, request: web.Request, _: Caller) -> web.Response:
        """What is known of a person."""
        user = request.match_info["user"]
        view = await self._store.person(user) if _is_name(user) else None
        if view is None:
            raise Problem("not_found", "There is no such person")
        return answer_json(
            {
                "user": user,
                "profile": view.person.profile.model_dump(mode="json", exclude={"opted_out"}, exclude_defaults=True),
                "opted_out": _said_no(view.person),
                "suppressed": sorted({channel for channel, _ in view.person.suppressed}),
                "contacts": len(view.contacts),
            }
        )

    async def eligibility(self, request: web.Request, _: Caller) -> web.Response:
        """Whether a person, known or not, may be contacted, now or at another instant; and if not, when."""
        judge = self._judge()
        question, category, channel = _question(request, judge)
        facts = await self._store.prospect(question.message(channel, category, question.at or utc_now()), judge)
        at = question.at.astimezone(UTC) if question.at else facts.now
        # What was not known yet at an instant of the past had no say then.
        contacts = [contact for contact in facts.contacts if question.at is None or contact.begun <= at]
        on_addresses = {
            address: [contact for contact in got if question.at is None or contact.begun <= at]
            for address, got in facts.on_addresses.items()
        }
        asked = question.message(channel, category, at)
        found = eligibility(asked, facts.person, contacts, at, judge.policy, judge.span, on_addresses)
        return answer_json(answered(asked, facts.person, found, at, facts.now, judge))

    async def opt_out(self, request: web.Request, _: Caller) -> web.Response:
        """Record a no; answered when nothing begun before it can be handed over any more.

        Its category must be one of ours: whoever misspells it must not believe that the person is left in peace.
        Profiles are not so strict, for they are told in bulk by services that know of more than is configured here.
        """
        no = await self._no(request)
        categories = self._judge().policy.categories
        if no.category is not None and no.category not in (UNSUBSCRIBABLE, *categories):
            raise _malformed([_unconfigured(no.category, categories)])
        if no.user is not None:
            await self._store.introduce(no.user)  # a no that comes before the first message counts as well
            await self._store.opt_out(no.user, no.said, "api", self._judge())
            self._metrics.optouts.labels("api").inc()
            await settled(self._store, no.user)
        elif no.address is not None:
            await self._store.opt_out_address(no.address, no.said, "api", self._judge())
            self._metrics.optouts.labels("api").inc()
            # Whoever decided before this was committed hands over until the deadline, and whom the address belongs to
            # is not known.
            await asyncio.sleep(self._judge().span.total_seconds())
        self._notice()
        return web.Response(status=204)

    async def opt_in(self, request: web.Request, _: Caller) -> web.Response:
        """Take back a no that was said in the same words, whichever way it was said."""
        no = await self._no(request)
        if not await self._store.opt_in(no.user or "", no.address, no.said):
            raise Problem(
                "not_found",
                "There is no such opt-out: name exactly what one of them names; GET /v1/users/{user} lists a person's",
            )
        self._notice()
        return web.Response(status=204)

    async def _no(self, request: web.Request) -> _No:
        fields = await self._fields(request)
        try:
            return _No.model_validate(fields)
        except ValidationError as error:
            raise _malformed(faults_of(error, _No)) from None

    async def _fields(self, request: web.Request) -> Any:
        if request.content_type != JSON:
            raise Problem("wrong_content", f"Send {JSON}")
        with self._body(request) as body:
            return decoded(await body.read())


def _malformed(faults: Iterable[Fault]) -> Problem:
    return Problem("malformed", "Nothing was changed: mend what errors lists", errors=errors(faults))


def _said_no(person: Person) -> list[dict[str, str]]:
    """Every no of a person, and those that were said by an address that is theirs: which one it was."""
    profile = person.profile
    kinds: dict[str | None, str] = {
        profile.phone: "phone",
        profile.email: "email",
        **{device.token: "push" for device in profile.push},
    }
    own = [no.model_dump(mode="json", exclude_none=True) for no in person.optouts]
    return own + [
        {"by": kinds[address]} | no.model_dump(mode="json", exclude_none=True)
        for address, said in sorted(person.refused.items())
        for no in said
    ]


def _is_name(value: str) -> bool:
    try:
        _NAME.validate_python(value)
    except ValidationError:
        return False
    return True
