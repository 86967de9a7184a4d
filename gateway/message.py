"""The vocabulary: what a service asks, what we make of it, and what becomes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, assert_never

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from gateway.fields import (
    URL,
    Channels,
    EmailAddress,
    Instant,
    Locale,
    Name,
    Phone,
    PushToken,
    Source,
    Subject,
    Text,
    Value,
    Zone,
)
from providers import Channel, Email, Push, Robocall, Sms

if TYPE_CHECKING:
    from providers import Content

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_LABELS: Mapping[str, str] = MappingProxyType({})
LISTENED = timedelta(hours=72)
"""So long after its expiry a message is closed: evidence that comes later changes nothing."""
LONGEST_TEXT = 1600
"""Characters of a text message, as many as vendors take."""
TOPIC = "topic"
"""The label by which people say no to a topic."""
UNSUBSCRIBABLE = "*"
"""In an opt-out the name of all categories that can be unsubscribed from. No category can be named so."""


class Priority(IntEnum):
    """How urgent a message is. Lower goes first."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    BULK = 3

    @property
    def word(self) -> str:
        """As it is written in requests, configuration and metrics."""
        return self.name.lower()


class MessageState(StrEnum):
    """What has become of a message. Derived from its due row, its attempts and its last decision."""

    WAITING = "waiting"
    """Held until an instant, or about to be decided."""
    SENDING = "sending"
    """An attempt is under way."""
    SENT = "sent"
    """A provider accepted it."""
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    """A provider accepted it and later reported that it did not arrive."""
    FAILED = "failed"
    """Given up after trying."""
    EXPIRED = "expired"
    """Not sent by its ``expires_at``."""
    REFUSED = "refused"
    """Must not be sent; the reason says why."""
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Handed to a provider that never answered: it may have been sent, and is not sent again."""
    PARKED = "parked"
    """Set aside for people, with its reason."""


class AttemptState(StrEnum):
    """What has become of one call of one provider. Moves forward only."""

    INTENT = "intent"
    """Committed before the call; the provider may be being called now."""
    ACCEPTED = "accepted"
    NOT_SENT = "not_sent"
    """Certainly not sent: the provider did not take it, and another time or another provider may."""
    REJECTED = "rejected"
    """The vendor will never take this message."""
    UNREACHABLE = "unreachable"
    """This address is bad, unregistered or has opted out at the vendor."""
    UNKNOWN = "unknown"
    """It may have been sent. Amended by evidence: a late answer or a receipt."""
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"


class OnUnknown(StrEnum):
    """What is done about an attempt that may have been sent, when nothing settles it."""

    LEAVE = "leave"
    """Nothing: better missed than twice."""
    REPEAT = "repeat"
    """Decide anew, with the same message id: better twice than missed."""


class WhenCapped(StrEnum):
    """What becomes of a message that a cap or a gap holds back for longer than the clocks alone would."""

    DEFER = "defer"
    """It waits until a place frees."""
    DROP = "drop"
    """It is refused."""
    NEXT_CHANNEL = "next_channel"
    """The next of its channels that permits it is taken; where none does, it waits."""


class Refusal(StrEnum):
    """Why a message must not be sent."""

    OPTED_OUT = "opted_out"
    SUPPRESSED = "suppressed"
    NO_ADDRESS = "no_address"
    NEVER = "never"
    """The policy never permits it within its horizon."""
    CAPPED = "capped"
    """A cap or a gap holds it back, and its category says to drop it then."""
    COLLAPSED = "collapsed"
    """A newer one of its campaign is waiting for the same person."""
    ABUSE = "abuse"
    """The address got as many of its category as any address may."""


def _priority(value: object) -> object:
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    raise ValueError("must be one of critical, high, normal, bulk")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PushAddress(_Strict):
    """A device that can be notified."""

    token: PushToken
    platform: Literal["android", "ios", "web"]
    provider: Name | None = None
    """The configured provider that issued the token; None where any may use it."""


class Addresses(_Strict):
    """Where a person can be reached."""

    phone: Phone | None = None
    email: EmailAddress | None = None
    push: tuple[PushAddress, ...] = Field(default=(), max_length=20)


class SmsContent(_Strict):
    """Of a text message."""

    text: Annotated[Text, StringConstraints(max_length=LONGEST_TEXT)]


class EmailContent(_Strict):
    """Of a mail."""

    subject: Subject
    text: Text | None = None
    html: Text | None = None

    @model_validator(mode="after")
    def _some_body(self) -> Self:
        if self.text is None and self.html is None:
            raise ValueError("needs a text or an html")
        return self


class PushContent(_Strict):
    """Of a notification."""

    title: Text
    body: Text
    data: Mapping[Name, Value] = Field(default_factory=dict)
    image: URL | None = None


class RobocallContent(_Strict):
    """Of a call."""

    say: Annotated[Text, StringConstraints(max_length=4000)] | None = None
    language: Locale | None = None
    audio_url: URL | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.say is None) == (self.audio_url is None):
            raise ValueError("needs either say or audio_url")
        return self


class RequestContent(_Strict):
    """What to say, per channel."""

    sms: SmsContent | None = None
    email: EmailContent | None = None
    push: PushContent | None = None
    robocall: RobocallContent | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.channels():
            raise ValueError("must have at least one of sms, email, push, robocall")
        return self

    def channels(self) -> frozenset[Channel]:
        """Those there is something to say on."""
        return frozenset(channel for channel in Channel if getattr(self, channel) is not None)


class SendRequest(_Strict):
    """What a service asks: tell this person that. Field names are part of the contract."""

    id: Name
    """Idempotency key within ``source``."""
    source: Source
    user: Name
    category: Name
    channels: Channels | None = None
    to: Addresses | None = None
    content: RequestContent
    timezone: Zone | None = None
    locale: Locale | None = None
    campaign: Name | None = None
    stage: Name | None = None
    variant: Name | None = None
    labels: Mapping[Name, Name] = Field(default_factory=dict, max_length=16)
    priority: Annotated[Priority, BeforeValidator(_priority), PlainSerializer(lambda p: p.word)] | None = None
    not_before: Instant | None = None
    expires_at: Instant | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.not_before and self.expires_at and self.not_before >= self.expires_at:
            raise ValueError("expires_at must be later than not_before")
        return self


class Profile(_Strict):
    """What is known of a person, as services tell it (``PUT /v1/users/{id}``)."""

    phone: Phone | None = None
    email: EmailAddress | None = None
    push: tuple[PushAddress, ...] = Field(default=(), max_length=20)
    timezone: Zone | None = None
    locale: Locale | None = None
    app_installed: bool | None = None
    opted_out: tuple[OptOut, ...] | None = Field(default=None, max_length=100)
    """None leaves what was said before. What the person said by themselves (unsubscribe, STOP) always stays."""


class OptOut(_Strict):
    """A no to what is all that it names at once: a channel, a category, a topic; naming nothing, to everything."""

    channel: Channel | None = None
    category: Name | None = None
    """Or ``UNSUBSCRIBABLE``: whichever can be unsubscribed from when a message is decided."""
    topic: Name | None = None
    """Of messages whose label ``topic`` is this."""

    def covers(self, channel: Channel, message: Message, *, needed: bool) -> bool:
        """Whether a message must not be sent on a channel; ``needed``: its category cannot be unsubscribed from."""
        return (
            self.channel in (None, channel)
            and (self.category in (None, message.category) or (self.category == UNSUBSCRIBABLE and not needed))
            and self.topic in (None, message.labels.get(TOPIC))
        )


Profile.model_rebuild()


def canonical_hash(request: Mapping[str, Any]) -> str:
    """The identity of a request's body, before defaults.

    ``source`` is no part of it: on HTTP it comes from the key.
    """
    body = {key: value for key, value in request.items() if key != "source"}
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Message:
    """A request once accepted. Never changes."""

    id: str
    source: str
    request: str
    """The request's id."""
    person: str
    category: str
    channels: tuple[Channel, ...]
    """In the order in which they are to be tried."""
    priority: Priority
    accepted_at: datetime
    starts_at: datetime
    """Not before this instant."""
    expires_at: datetime
    campaign: str | None
    body: Mapping[str, Any]
    """The request as it was sent."""

    @property
    def timezone(self) -> str | None:
        """The zone that the request names."""
        return self.body.get("timezone")

    @property
    def labels(self) -> Mapping[str, str]:
        """Those of the request."""
        return self.body.get("labels") or NO_LABELS


@dataclass(frozen=True, slots=True)
class Address:
    """Where one channel reaches a person."""

    channel: Channel
    value: str
    """A phone number, a mail address or a push token."""
    platform: str | None = None
    provider: str | None = None
    """The only provider that can use it."""


@dataclass(frozen=True, slots=True)
class Person:
    """What the gateway knows of a person when it decides."""

    id: str
    profile: Profile
    optouts: tuple[OptOut, ...] = ()
    """Every no, whichever way it was said."""
    suppressed: frozenset[tuple[Channel, str]] = frozenset()
    """Addresses that must not be used."""
    refused: Mapping[str, tuple[OptOut, ...]] = field(default_factory=dict)
    """Addresses by which somebody said no, whoever they belong to, each with what to."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one provider."""

    id: str
    message: str
    number: int
    """1, 2, … within the message."""
    channel: Channel
    provider: str
    address: str
    """Tells the message's addresses apart without being one."""
    state: AttemptState
    begun_at: datetime
    deadline: datetime
    """The first byte is never written after it."""
    ended_at: datetime | None = None
    reference: str | None = None
    """The vendor's id."""
    error: str | None = None
    """The error's kind and code."""
    policy: int = 0
    """The number of the policy version that permitted it."""
    generation: int = 1
    """Attempts of one generation at one provider are one message to a vendor that knows repeats by a key."""
    repeats: str | None = None
    """The attempt whose repeat by its key this is, and whose place it shares."""
    tracked: bool = False
    """Whether what is sent has links of ours. A repeat by its key is sent as the first was, whatever has changed."""


def microseconds(at: datetime) -> int:
    """As the store keeps instants."""
    return (at - EPOCH) // timedelta(microseconds=1)


def instant(us: int) -> datetime:
    """The inverse of ``microseconds``."""
    return EPOCH + timedelta(microseconds=us)


def rfc3339(at: datetime) -> str:
    """In UTC, to the millisecond: ``2026-11-22T08:00:00.000Z``."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def content_of(message: Message, channel: Channel) -> Content:
    """What the message says on a channel."""
    fields = message.body["content"][channel]
    match channel:
        case Channel.SMS:
            return Sms(**fields)
        case Channel.EMAIL:
            return Email(**fields)
        case Channel.PUSH:
            return Push(**fields)
        case Channel.ROBOCALL:
            return Robocall(**fields)
        case _:
            assert_never(channel)


def addresses(message: Message, person: Person, channel: Channel) -> tuple[Address, ...]:
    """Where the person can be reached on a channel: as the request says, else as the profile does."""
    to = message.body.get("to") or {}
    match channel:
        case Channel.EMAIL:
            email = to.get("email") or person.profile.email
            return (Address(channel, email),) if email else ()
        case Channel.SMS | Channel.ROBOCALL:
            phone = to.get("phone") or person.profile.phone
            return (Address(channel, phone),) if phone else ()
        case Channel.PUSH:
            if devices := to.get("push"):
                return tuple(Address(channel, d["token"], d["platform"], d.get("provider")) for d in devices)
            return tuple(Address(channel, d.token, d.platform, d.provider) for d in person.profile.push)
        case _:
            assert_never(channel)
