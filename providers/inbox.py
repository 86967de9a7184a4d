"""For development: keeps every message in memory, where the console shows it as a phone would."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from providers import _contract
from providers._contract import Channel, Content, Dispatch, Email, Push, Robocall, Sms, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

CHANNEL_OF: Mapping[type[Content], Channel] = {
    Email: Channel.EMAIL,
    Sms: Channel.SMS,
    Push: Channel.PUSH,
    Robocall: Channel.ROBOCALL,
}


class Settings(_contract.Settings):
    """How much is kept."""

    kind: Literal["inbox"] = "inbox"
    keep: int = Field(default=1000, ge=1, le=100_000)
    """How many messages; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as it would have gone out."""

    attempt: str
    message: str
    channel: Channel
    address: str
    content: Content
    at: datetime


class Provider:
    """Accepts everything, sends nothing."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)
    dedupe_window: timedelta | None = None

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self.messages: deque[Kept] = deque(maxlen=settings.keep)
        """The latest is the last."""
        self._clock = clock

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do; what is kept stays readable."""

    async def send(self, dispatch: Dispatch) -> str:
        """Keep it."""
        now = self._clock()
        if now >= dispatch.deadline:
            raise Unavailable("deadline")
        channel = CHANNEL_OF[type(dispatch.content)]
        self.messages.append(Kept(dispatch.attempt, dispatch.message, channel, dispatch.address, dispatch.content, now))
        return f"inbox-{dispatch.attempt}"
