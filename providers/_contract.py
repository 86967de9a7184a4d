"""What a provider is: how it is handed a message, what may go wrong, what news it brings back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from providers._cost import Cost
from providers._pace import Pace, paced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def utc_now() -> datetime:
    """The clock of a provider that is handed no other."""
    return datetime.now(UTC)


class Channel(StrEnum):
    """A way to reach a person."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    ROBOCALL = "robocall"


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message."""

    text: str


@dataclass(frozen=True, slots=True)
class Email:
    """A mail: plain text, HTML, or both; at least one is set."""

    subject: str
    text: str | None = None
    html: str | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """A notification on a phone or in a browser."""

    title: str
    body: str
    data: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Robocall:
    """A call that speaks a text, or plays a recording; exactly one of ``say`` and ``audio_url`` is set."""

    say: str | None = None
    language: str | None = None
    """BCP 47."""
    audio_url: str | None = None


Content = Sms | Email | Push | Robocall


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One attempt, as a provider is handed it."""

    attempt: str
    """Our reference for this attempt, ``[0-9a-z]{26}``. Sent in a field that the vendor's callback returns. In a repeat
    by the idempotency key it is that of the first attempt: the same request, to the letter."""
    message: str
    """The message's id, ``[0-9a-z]{26}``. The same in every repeat: the Message-ID or collapse key."""
    address: str
    """A phone number (E.164), a mail address or a push token."""
    content: Content
    deadline: datetime
    """The first byte must not be written after this instant."""
    valid_until: datetime
    """The vendor must give up at this instant, where it can be told."""
    callback_url: str | None = None
    """Where the vendor reports on this attempt; names the attempt. None where no public listener is configured."""
    unsubscribe_url: str | None = None
    """One-click unsubscribe (RFC 8058) for this message. None for categories that cannot be unsubscribed from."""
    locale: str | None = None
    """BCP 47."""
    platform: str | None = None
    """Of a push token: ``android``, ``ios`` or ``web``."""
    generation: int = 1
    """Raised by a deliberate re-send, such as to another address: what the vendor must not take for a repeat."""

    @property
    def key(self) -> str:
        """The idempotency key, for vendors that know one: never the attempt, for its repeat is the same message."""
        return self.message if self.generation == 1 else f"{self.message}-{self.generation}"

    def seconds_valid(self, now: datetime) -> int:
        """Whole seconds that the vendor may still take, at least 1."""
        return max(1, int((self.valid_until - now).total_seconds()))


class ProviderError(Exception):
    """Why an attempt was not accepted.

    ``code`` is the vendor's own code or a short word of ours (``timeout``, ``refused``, ``http_503``): a closed,
    low-cardinality word that is safe in logs and metrics. No address, secret or content may be in it or in ``detail``.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        """``detail`` is for people: one line, without address, secret or content."""
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Unavailable(ProviderError):
    """It did not reach the vendor, or the vendor refused before acting. Certainly not sent."""


class Throttled(ProviderError):
    """The vendor says to slow down. Certainly not sent."""

    def __init__(self, code: str, detail: str = "", *, retry_after: timedelta | None = None) -> None:
        """``retry_after`` is the vendor's own figure, None where it gave none."""
        super().__init__(code, detail)
        self.retry_after = retry_after


class Unconfirmed(ProviderError):
    """Written, but no answer that can be believed. It may have been delivered."""


class Rejected(ProviderError):
    """The vendor will never take this message."""


class Unreachable(ProviderError):
    """This address is bad, unregistered or has opted out at the vendor."""


class Misconfigured(ProviderError):
    """Our key, balance or account is at fault; the message is fine. Certainly not sent."""


class ReceiptStatus(StrEnum):
    """What a vendor reports of an attempt, normalised."""

    ACCEPTED = "accepted"
    """The vendor has it (queued, sending, sent): settles an unknown outcome."""
    DELIVERED = "delivered"
    """It arrived at the person's device, mailbox provider or ear."""
    UNDELIVERED = "undelivered"
    """It certainly did not arrive."""
    UNREACHABLE = "unreachable"
    """It did not arrive, and never will at this address."""
    OTHER = "other"
    """A status that this version does not know. Kept, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The news in a callback."""

    attempt: str
    """Our reference, as the vendor returned it."""
    status: ReceiptStatus
    reference: str
    """The vendor's id for the attempt."""
    raw_status: str
    """The vendor's own word."""
    code: str | None = None
    """The vendor's error code."""


class Act(StrEnum):
    """What was done with a message once it was there, or with what it is about."""

    OPENED = "opened"
    CLICKED = "clicked"
    ANSWERED = "answered"
    """A call was picked up."""
    CONVERTED = "converted"
    """The person did what the message was for; a stage says how far they came."""
    APP_OPENED = "app_opened"
    OPTED_OUT = "opted_out"
    UNINSTALLED = "uninstalled"
    """The last device of the person that could be notified is gone."""


class Agent(StrEnum):
    """Who did it."""

    HUMAN = "human"
    MACHINE = "machine"
    """A mail program that fetches ahead, a scanner, an answering machine. Stops nothing, and counts apart."""


class Wish(StrEnum):
    """What a person answers to a message that can be answered."""

    STOP = "stop"
    START = "start"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class Acted:
    """A vendor reports what was done with an attempt's message."""

    attempt: str
    """Our reference, as the vendor returned it."""
    act: Act
    agent: Agent
    why: str | None = None
    """How it is known to be a machine: a closed word."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A person answered: by a text to our number, or by a key pressed on a call."""

    address: str
    """Theirs: a phone number (E.164)."""
    wish: Wish | None
    """None: it cannot be told. The words themselves go no further."""
    reference: str
    """The vendor's id of the answer."""
    attempt: str | None = None
    """Our reference of what it answers, where the vendor says so."""
    on_the_line: bool = False
    """The person pressed a key on a call, and hears our answer: it cannot be waited with."""


News = Receipt | Acted | Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor is answered, where it waits for more than a status."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Callback:
    """A vendor's HTTP request, unparsed."""

    url: str
    """The full public URL the vendor was given, built from the configuration, query included. Never from ``Host``."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Doubt(StrEnum):
    """Why a callback brings no news. Closed, and safe in logs and metrics."""

    MISSING_HEADER = "missing_header"
    """It has no signature, or not the time that is signed."""
    SIGNATURE = "signature"
    NOT_A_TIME = "not_a_time"
    """What is signed as its time is no number of seconds or milliseconds."""
    TOO_OLD = "too_old"
    AHEAD = "ahead"
    """Of our clock."""
    WRONG_URL = "wrong_url"
    """It came elsewhere than the vendor was told."""
    ACCOUNT = "account"
    """It is of another account."""
    NOT_JSON = "not_json"
    NOT_A_FORM = "not_a_form"
    TOO_MANY = "too_many"
    """It holds more events than can be."""
    INCOMPLETE = "incomplete"
    """It lacks what every report of this vendor has."""
    NO_EVENTS = "no_events"
    """Where they are said to be there is none."""
    NO_STATUS = "no_status"
    """No event has one where it is said to be."""
    NO_ATTEMPT = "no_attempt"
    """No event with a status has a reference of ours where it is said to be."""


class NoNews(Exception):
    """A callback of which nothing can be learned."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(doubt)
        self.doubt = doubt


class Forged(NoNews):
    """It is not known to be the vendor's."""


class Unreadable(NoNews):
    """It is the vendor's, but not in the vendor's form."""


class Unread(NoNews):
    """It is the vendor's, and can be read, but nothing that is looked for is in it."""


class Settings(BaseModel):
    """The part of a provider's configuration that all kinds share. Every kind subclasses it as its own ``Settings``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: str
    """The module's name in this package."""
    timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds from the first byte until an answer is no longer waited for."""
    concurrency: int = Field(default=200, ge=1, le=10_000)
    """How many attempts may be under way at once in one process."""
    pace: Annotated[Pace, PlainValidator(paced)] | None = None
    """How many units all processes together hand over in a second, minute or hour at most. None: as fast as it goes."""
    cost: Cost | None = None
    """What the vendor takes for a unit, for reports. None: nothing is said of it."""

    def units(self, content: Content) -> int:  # noqa: ARG002 - those that count otherwise look at it
        """What a message counts for in pace and cost: one, unless the vendor counts something smaller."""
        return 1


class Provider(Protocol):
    """A configured account at a vendor. Each public module of this package has one, named ``Provider``.

    It is built as ``Provider(name, settings)`` without I/O.
    """

    CHANNELS: ClassVar[frozenset[Channel]]
    """What it can send."""

    @property
    def dedupe_window(self) -> timedelta | None:
        """How long the vendor takes a repeat with the same ``Dispatch.key`` for the same message. None: it does not."""

    async def open(self) -> None:
        """Get ready, inside a running event loop. Must not need the vendor to be up."""

    async def close(self) -> None:
        """Give back connections."""

    async def send(self, dispatch: Dispatch) -> str:
        """Make one call of the vendor and return the vendor's reference. No retries.

        Raises:
            ProviderError: in one of its six kinds; nothing else may escape but ``CancelledError``.
        """


@runtime_checkable
class CallsBack(Protocol):
    """A provider whose vendor reports by callbacks."""

    @property
    def calls_back(self) -> bool:
        """Whether it is configured so."""

    def receipts(self, callback: Callback) -> Sequence[News]:
        """Verify a callback, then parse it. Pure.

        Raises:
            Forged: the signature does not hold.
            Unreadable: it holds, and yet this is none of the vendor's reports.
            Unread: it says nothing that is looked for.
        """


@runtime_checkable
class Answers(Protocol):
    """A provider whose vendor does what our answer to a callback says."""

    def answer(self, callback: Callback, news: Sequence[News]) -> Answer | None:
        """What to answer, once the news of a verified callback is committed. None: nothing but success. Pure."""


@runtime_checkable
class LooksUp(Protocol):
    """A provider whose vendor can be asked what became of an attempt, by our reference."""

    @property
    def can_look_up(self) -> bool:
        """Whether it is configured so."""

    async def look_up(self, attempt: str) -> Receipt | None:
        """Ask the vendor, within a few seconds. None: it knows nothing of it, or nothing yet, or does not say.

        Args:
            attempt: what ``Dispatch.attempt`` was.

        Raises:
            ProviderError: it could not be asked, or its answer cannot be believed.
        """
