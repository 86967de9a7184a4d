"""Vendors without a wire: what ours become of when they are asked, and the adapter's part in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from providers import (
    Channel,
    Email,
    Misconfigured,
    ProviderError,
    Push,
    Receipt,
    ReceiptStatus,
    Rejected,
    Robocall,
    Sms,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Context
    from datetime import datetime
    from random import Random

    from providers import Callback, Content, Dispatch


class Fate(StrEnum):
    """What becomes of a call."""

    TAKEN = "taken"
    REFUSED = "refused"
    """No connection."""
    THROTTLED = "throttled"
    UNPROCESSED = "unprocessed"
    """An answer that the vendor documents as not processed."""
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    MISCONFIGURED = "misconfigured"
    SILENT = "silent"
    """Taken, and no answer."""
    RESET = "reset"
    """Taken, and the connection is cut."""
    BROKEN = "broken"
    """Not taken, and an answer that says nothing about it, such as a 500."""
    LOST_SILENT = "lost_silent"
    """Not taken, and no answer."""
    LOST_RESET = "lost_reset"


TAKING = (Fate.TAKEN, Fate.SILENT, Fate.RESET)
SAYS: Mapping[Fate, Callable[[], ProviderError]] = {
    Fate.REFUSED: lambda: Unavailable("refused"),
    Fate.THROTTLED: lambda: Throttled("http_429", retry_after=timedelta(seconds=2)),
    Fate.UNPROCESSED: lambda: Unavailable("http_507"),
    Fate.REJECTED: lambda: Rejected("http_400"),
    Fate.UNREACHABLE: lambda: Unreachable("http_410"),
    Fate.MISCONFIGURED: lambda: Misconfigured("http_401"),
    Fate.RESET: lambda: Unconfirmed("reset"),
    Fate.BROKEN: lambda: Unconfirmed("http_500"),
    Fate.LOST_RESET: lambda: Unconfirmed("reset"),
}


def answer_of(fate: Fate) -> ProviderError:
    """What the adapter makes of it."""
    return SAYS[fate]()


@dataclass(frozen=True)
class Entry:
    """One message that a vendor took."""

    at: float
    """When its first byte was written, in seconds of the world's clock."""
    vendor: str
    channel: Channel
    address: str
    attempt: str
    message: str
    key: str
    text: str
    arrived: bool
    """At the person, whatever is reported."""


@dataclass
class Mood:
    """How a vendor is for a while."""

    fates: Mapping[Fate, float] = field(default_factory=lambda: {Fate.TAKEN: 1.0})
    """With their weights."""
    slowest: float = 0.3
    """Seconds, each way."""


@dataclass
class Vendor:
    """A company: its ledger, and how it is at the moment."""

    name: str
    chance: Random
    outside: Context
    """Where it lives: it does not sleep and die with who calls it."""
    dedupes: timedelta | None = None
    mood: Mood = field(default_factory=Mood)
    ledger: list[Entry] = field(default_factory=list)
    report: Callable[[Receipt, float], None] = lambda receipt, delay: None
    """Is told of the news that it sends, and after how many seconds."""
    reporting: float = 0.0
    """The share of messages that are ever reported on."""
    tells: bool = False
    """Whether it can be asked what became of an attempt."""

    def fate(self) -> Fate:
        return self.chance.choices(list(self.mood.fates), list(self.mood.fates.values()))[0]

    def way(self) -> float:
        """Seconds that something takes there, or back."""
        return self.chance.uniform(0.001, self.mood.slowest)

    def take(self, dispatch: Dispatch, channel: Channel, written: float) -> None:
        """Enter it into the ledger, unless it has been there."""
        now = asyncio.get_running_loop().time()
        if self.dedupes and any(
            entry.key == dispatch.key and now - entry.at < self.dedupes.total_seconds() for entry in self.ledger
        ):
            return
        arrives = self.chance.random() < 0.8
        text = text_of(dispatch.content)
        self.ledger.append(
            Entry(
                written,
                self.name,
                channel,
                dispatch.address,
                dispatch.attempt,
                dispatch.message,
                dispatch.key,
                text,
                arrives,
            )
        )
        if self.chance.random() < self.reporting:
            self._report(dispatch.attempt, arrives=arrives)

    def known(self, attempt: str) -> Receipt | None:
        """What it tells who asks: nothing of what it has not, and sometimes nothing yet of what it has."""
        entry = next((entry for entry in self.ledger if entry.attempt == attempt), None)
        if entry is None or self.chance.random() < 0.2:
            return None
        last = ReceiptStatus.DELIVERED if entry.arrived else ReceiptStatus.UNDELIVERED
        status = self.chance.choice((ReceiptStatus.ACCEPTED, last))
        return Receipt(attempt, status, f"{self.name}-{attempt}", str(status))

    def _report(self, attempt: str, *, arrives: bool) -> None:
        """What becomes of it, sometimes late, twice, or in the wrong order."""
        last = ReceiptStatus.DELIVERED if arrives else ReceiptStatus.UNDELIVERED
        for status in (ReceiptStatus.ACCEPTED, last):
            for _ in range(self.chance.choice((0, 1, 1, 1, 2))):
                delay = self.chance.choice((0.0, 0.5, 5.0, 40.0, 4000.0)) * self.chance.random()
                self.report(Receipt(attempt, status, f"{self.name}-{attempt}", str(status)), delay)


class Provider:
    """The adapter of such a vendor, in one process."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)

    def __init__(
        self,
        vendor: Vendor,
        clock: Callable[[], datetime],
        timeout: float,
        dead: Callable[[], bool] = lambda: False,
        begins: Callable[[str], None] = lambda message: None,
    ) -> None:
        """``clock`` is the process's; ``dead`` tells whether the process is; ``begins`` hears of each call."""
        self.dedupe_window = vendor.dedupes
        self._vendor = vendor
        self._clock = clock
        self._timeout = timeout
        self._dead = dead
        self._begins = begins
        self.calls = 0
        """Under way."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, dispatch: Dispatch) -> str:
        if self._dead():
            raise asyncio.CancelledError
        self._begins(dispatch.message)
        self.calls += 1
        try:
            return await self._send(dispatch)
        finally:
            self.calls -= 1

    async def _send(self, dispatch: Dispatch) -> str:
        vendor, loop = self._vendor, asyncio.get_running_loop()
        await asyncio.sleep(vendor.way())  # until the connection stands
        if self._dead():
            raise asyncio.CancelledError
        fate = vendor.fate()
        if fate is Fate.REFUSED:
            raise answer_of(fate)
        if self._clock() >= dispatch.deadline:
            raise Unavailable("deadline")
        answer: asyncio.Future[str] = loop.create_future()
        channel, written = CHANNEL_OF[type(dispatch.content)], loop.time()

        def arrive() -> None:
            if fate in TAKING:
                vendor.take(dispatch, channel, written)
            if fate not in (Fate.SILENT, Fate.LOST_SILENT):
                loop.call_later(vendor.way(), answered, context=vendor.outside)

        def answered() -> None:
            if answer.done():
                return
            if fate is Fate.TAKEN:
                answer.set_result(f"{vendor.name}-{dispatch.attempt}")
            else:
                answer.set_exception(answer_of(fate))

        loop.call_later(vendor.way(), arrive, context=vendor.outside)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise Unconfirmed("timeout") from None

    @property
    def can_look_up(self) -> bool:
        return self._vendor.tells

    async def look_up(self, attempt: str) -> Receipt | None:
        await asyncio.sleep(self._vendor.way())
        if self._dead():
            raise asyncio.CancelledError
        if self._vendor.fate() is not Fate.TAKEN:
            raise Unavailable("refused")
        return self._vendor.known(attempt)

    def receipts(self, callback: Callback) -> Sequence[Receipt]:
        return ()


CHANNEL_OF: Mapping[type[Content], Channel] = {
    Email: Channel.EMAIL,
    Sms: Channel.SMS,
    Push: Channel.PUSH,
    Robocall: Channel.ROBOCALL,
}


def text_of(content: Content) -> str:
    """What a person reads first."""
    match content:
        case Sms(text):
            return text
        case Email(subject):
            return subject
        case Push(title):
            return title
        case Robocall(say):
            return say or ""
