"""What a configuration comes to: frozen objects, which are all that the rest of the gateway sees of it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal

from ratelimit import Calendar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

    import providers
    from gateway.message import MessageState, OnUnknown, Priority
    from providers import Channel
    from ratelimit import FrequencyCap, MinimumGap, QuietHours, Rule

DAY: Final = timedelta(days=1)

CALENDAR: Mapping[Calendar, timedelta] = {Calendar.DAY: DAY, Calendar.WEEK: 7 * DAY, Calendar.MONTH: 31 * DAY}
"""The longest that each calendar window can be."""

ZONES: Final = 2 * DAY
"""How much earlier a calendar window may have begun by the clocks of another zone: 26 hours lie between Baker
Island and Kiritimati, and either may change its clocks."""


@dataclass(frozen=True, slots=True)
class Category:
    """A purpose that messages can have, and what holds for it."""

    name: str
    priority: Priority
    channels: tuple[Channel, ...] | None
    """In the order in which they are tried. None: all that the message has content for and a route exists for."""
    caps_exempt: bool
    """No frequency cap and no minimum gap holds it back."""
    quiet_hours_exempt: bool
    counts: bool
    """Whether its contacts count for the caps of others."""
    expires_after: timedelta
    on_unknown: OnUnknown
    unsubscribe: bool
    """Whether its mails offer one-click unsubscribe."""


@dataclass(frozen=True)
class Policy:
    """What may be sent when. Reloaded while running."""

    zone: ZoneInfo
    """Of persons of whom nothing better is known."""
    categories: Mapping[str, Category]
    caps: tuple[FrequencyCap, ...]
    gaps: tuple[MinimumGap, ...]
    quiet_hours: tuple[QuietHours, ...]
    hash: str
    """Of its meaning: comments, order of keys and spelt-out defaults do not change it. SHA-256, hex."""

    def rules(self, category: Category) -> tuple[Rule, ...]:
        """Those that a message of the category must obey, caps first. Rules for other categories are left out."""
        known = self._rules.get(category.name)
        return self._of(category) if known is None else known

    @cached_property
    def _rules(self) -> Mapping[str, tuple[Rule, ...]]:
        return {name: self._of(category) for name, category in self.categories.items()}

    def _of(self, category: Category) -> tuple[Rule, ...]:
        limits: tuple[FrequencyCap | MinimumGap, ...] = () if category.caps_exempt else (*self.caps, *self.gaps)
        hours = () if category.quiet_hours_exempt else self.quiet_hours
        return tuple(rule for rule in (*limits, *hours) if not rule.categories or category.name in rule.categories)

    @cached_property
    def longest_window(self) -> timedelta:
        """How far back contacts matter to any rule; zero where none looks back."""
        return max(chain(map(window, self.caps), (gap.gap for gap in self.gaps)), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Key:
    """Who may use the API, and for what."""

    name: str
    """The ``source`` of the requests made with it."""
    sha256: str = field(repr=False)
    """Of the key itself, in lower-case hex."""
    scopes: frozenset[str]
    """Of ``send``, ``read``, ``admin`` and ``priority`` (may raise a priority above its category's)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a listener is bound."""

    host: str
    """A name or an address, IPv6 without its brackets."""
    port: int
    """0: any free one."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """As it is written in the file."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class HttpConfig:
    """The two listeners."""

    private: Endpoint
    """API, console, metrics and health."""
    public: Endpoint | None
    """Opens, clicks, unsubscribe and vendors' callbacks; None: none of these."""
    public_url: str | None
    """How the world reaches ``public``, without a slash at the end. None exactly where ``public`` is."""


@dataclass(frozen=True)
class BrokerConfig:
    """RabbitMQ."""

    url: str = field(repr=False)
    """May hold a password."""
    topology: Literal["declare", "passive"]
    """``declare`` creates what is missing; ``passive`` only looks whether somebody else has."""
    prefetch: int


@dataclass(frozen=True)
class EventsConfig:
    """What we tell others."""

    exchange: str
    states: frozenset[MessageState]
    """Entering one of these puts an event into the outbox. Empty without a broker: nobody would fetch it."""


@dataclass(frozen=True)
class WorkerConfig:
    """How much one worker does at once."""

    in_flight: Mapping[Priority, int]
    """Messages under way, per channel."""
    attempt: timedelta
    """From the intent to the deadline for its first byte."""


@dataclass(frozen=True)
class Retention:
    """How long we remember."""

    messages: timedelta
    contacts: timedelta
    """The ledger. Longer than any rule looks back."""


@dataclass(frozen=True)
class Config:
    """All of it."""

    store: str = field(repr=False)
    """``sqlite:///…`` or ``postgresql://…``; may hold a password."""
    broker: BrokerConfig | None
    http: HttpConfig
    keys: tuple[Key, ...]
    providers: Mapping[str, providers.Settings]
    """By name, as configured. Secrets in them are ``SecretStr``."""
    routes: Mapping[Channel, tuple[str, ...]]
    """Names of providers, in the order in which they are tried; at least one each."""
    events: EventsConfig
    retention: Retention
    worker: WorkerConfig
    policy: Policy


def window(cap: FrequencyCap) -> timedelta:
    """How far back the cap looks."""
    return cap.per if isinstance(cap.per, timedelta) else CALENDAR[cap.per] + ZONES
