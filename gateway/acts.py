"""What is done with messages once they are there: by whom, which message it belongs to, and under what pressure?

Pure. A machine's doing counts apart and stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from providers import Act, Agent, Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from providers import Acted
    from ratelimit import Contact

PRESSURE: Final = timedelta(days=7)
"""How far back contacts count towards the pressure under which somebody leaves."""
BANDS: Final[tuple[tuple[int, str], ...]] = ((0, "0"), (2, "1-2"), (5, "3-5"))
"""The most contacts of a band, and its name; what is above is ``MOST``."""
MOST: Final = "6+"
LEFT: Final = frozenset({Act.OPTED_OUT, Act.UNINSTALLED})
"""What a person does who has had enough: it is counted by the pressure before it."""
WITNESSED: Final[Mapping[str, frozenset[Channel]]] = {
    Act.OPENED: frozenset({Channel.EMAIL, Channel.PUSH}),
    Act.ANSWERED: frozenset({Channel.ROBOCALL}),
    Act.CLICKED: frozenset({Channel.EMAIL, Channel.PUSH, Channel.SMS}),
}
"""On which channels somebody may learn that it was done; the other acts, on any."""
_AHEAD: Final = timedelta(minutes=5)
"""How far a reporter's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Deed:
    """An act as it is reported. Names an attempt, a message or the request it was made of, or at least a person."""

    act: Act
    agent: Agent
    via: str
    """How we heard of it: a closed word."""
    key: str
    """What is told twice under one key is one act."""
    attempt: str | None = None
    message: str | None = None
    request: tuple[str, str] | None = None
    """Source and id."""
    person: str | None = None
    done_at: datetime | None = None
    """None: now."""
    stage: str | None = None
    link: int | None = None
    why: str | None = None
    """Of a machine: how it is known to be one."""
    no: Mapping[str, str] | None = None
    """Of an opt-out: ``by``, ``person`` or ``address``, and to which ``channel``, ``category`` and ``topic``; without
    any, to everything."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An open or a click that we saw ourselves."""

    act: Act
    attempt: str
    at: datetime
    sign: str | None
    """How it is known that a machine did it; None: the person did."""
    link: int | None = None
    """Of a click."""

    @property
    def deed(self) -> Deed:
        """The same as it is reported: once for each attempt, act, link and agent."""
        agent = Agent.MACHINE if self.sign else Agent.HUMAN
        via = "pixel" if self.link is None else "link"
        key = f"{via}:{self.attempt}:{self.act}:{self.link}:{agent}"
        return Deed(self.act, agent, via, key, self.attempt, done_at=self.at, link=self.link, why=self.sign)


@dataclass(frozen=True, slots=True)
class Owed:
    """What an act belongs to, as far as is known."""

    person: str
    message: str | None = None
    attempt: str | None = None
    channel: Channel | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """An act that has just been remembered."""

    deed: Deed
    owed: Owed
    band: str | None
    """Of who leaves: under what pressure."""


@dataclass(frozen=True, slots=True)
class Record:
    """An act as it is remembered."""

    act: Act
    agent: Agent
    at: datetime
    via: str
    channel: Channel | None
    stage: str | None
    link: int | None
    why: str | None
    band: str | None
    no: Mapping[str, str] | None
    """Of an opt-out, unless it is of a time when that was not kept."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """An act that is found again by its key."""

    record: Record
    owed: Owed
    request: tuple[str, str] | None
    """Source and id of the request that its message was made of. None: it belongs to none, or to one forgotten."""


def band(contacts: int) -> str:
    """Of so many contacts in the week before."""
    return next((name for most, name in BANDS if contacts <= most), MOST)


def reported(acted: Acted, provider: str) -> Deed:
    """What a vendor says was done, once for each attempt, act and agent."""
    key = f"{provider}:{acted.attempt}:{acted.act}:{acted.agent}"
    return Deed(acted.act, acted.agent, "callback", key, attempt=acted.attempt, why=acted.why)


def attributed(contacts: Sequence[Contact], windows: Mapping[str, timedelta], at: datetime) -> Contact | None:
    """The last contact before an instant that what was done then may be owed to; None: it came by itself.

    Args:
        contacts: of the person.
        windows: by category, how long after a contact something may be owed to it; others are owed nothing.
        at: when it was done.
    """
    due = [c for c in contacts if c.begun <= at < c.begun + windows.get(c.category, timedelta(0))]
    return max(due, key=lambda contact: contact.begun, default=None)


def believed(done_at: datetime | None, now: datetime) -> datetime:
    """When it was done: nothing is done later than now, and what is said to be so by a clock ahead was done now."""
    return now if done_at is None else min(done_at, now)


def too_far_ahead(done_at: datetime, now: datetime) -> bool:
    """Whether no clock would be so wrong."""
    return done_at > now + _AHEAD
