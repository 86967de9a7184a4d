"""What a configuration comes to: frozen objects, which are all that the rest of the gateway sees of it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, overload

from yarl import URL

from gateway.webhooks.topics import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

    import providers
    from gateway.config.faults import Fault
    from gateway.languages import Language
    from gateway.message import MessageState, OnUnknown, Priority, WhenCapped
    from providers import Act, Channel
    from ratelimit import FrequencyCap, Holidays, MinimumGap, QuietHours, Rule, SendWindow

DAY: Final = timedelta(days=1)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
    """No quiet hours, send window or holiday holds it back."""
    counts: bool
    """Whether its contacts count for the caps of others."""
    expires_after: timedelta
    on_unknown: OnUnknown
    repeat_after: timedelta | None
    """How long evidence may take before ``on_unknown: repeat`` sends again. None: as long as it mostly takes there."""
    unsubscribe: bool
    """Whether people can unsubscribe from it, by a link in its mails."""
    when_capped: WhenCapped
    """What becomes of a message that a cap or a gap holds back."""
    collapse: bool
    """Of one person's waiting messages of one campaign only the newest is sent."""
    abuse: FrequencyCap | None
    """How many of it one address may get, whomever they are for. Nothing is exempt from it."""
    tracked: bool
    """Whether opens and clicks of its messages are looked for, by a pixel and by links of ours."""
    conversion_window: timedelta
    """How long after a contact what the person does may be owed to it."""
    title: Mapping[Language, str]
    """What people know it by, as far as it has a name for them in their language."""


@dataclass(frozen=True)
class Policy:
    """What may be sent when. Reloaded while running."""

    zone: ZoneInfo
    """Of persons of whom nothing better is known."""
    categories: Mapping[str, Category]
    caps: tuple[FrequencyCap, ...]
    gaps: tuple[MinimumGap, ...]
    quiet_hours: tuple[QuietHours, ...]
    send_windows: tuple[SendWindow, ...]
    holidays: tuple[Holidays, ...]
    countries: Mapping[str, ZoneInfo]
    """The zone of persons of whom only the country is known (ISO 3166-1 alpha-2)."""
    hash: str
    """Of its meaning: comments, order of keys and spelt-out defaults do not change it. SHA-256, hex."""

    def rules(self, category: Category) -> tuple[Rule, ...]:
        """Those that a message of the category must obey, caps first. Rules for other categories are left out."""
        known = self._rules.get(category.name)
        return self._of(category) if known is None else known

    def needs(self, category: str) -> bool:
        """Whether people cannot unsubscribe from a category. They can from one that is not configured any more."""
        return category in self.categories and not self.categories[category].unsubscribe

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """In the order in which they are asked."""
        return (*self.caps, *self.gaps, *self.quiet_hours, *self.send_windows, *self.holidays)

    @cached_property
    def _rules(self) -> Mapping[str, tuple[Rule, ...]]:
        return {name: self._of(category) for name, category in self.categories.items()}

    def _of(self, category: Category) -> tuple[Rule, ...]:
        return tuple(
            rule
            for rule in self.all_rules
            if not (category.caps_exempt if rule.looks_back else category.quiet_hours_exempt)
            and (not rule.only.categories or category.name in rule.only.categories)
        )

    @cached_property
    def labels(self) -> frozenset[str]:
        """Those that some rule looks at."""
        scopes = [cap.scope_labels for cap in self.caps] + [gap.scope_labels for gap in self.gaps]
        return frozenset({label for rule in self.all_rules for label, _ in rule.only.labels}.union(*scopes))

    @cached_property
    def conversion_windows(self) -> Mapping[str, timedelta]:
        """By category, how long after a contact what a person does may be owed to it."""
        return {name: category.conversion_window for name, category in self.categories.items()}

    @cached_property
    def longest_window(self) -> timedelta:
        """How far back contacts with a person matter to any rule; zero where none looks back."""
        return max((rule.looks_back for rule in self.all_rules), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Key:
    """Who may use the API, and for what."""

    name: str
    """The ``source`` of the requests made with it."""
    sha256: str = field(repr=False)
    """Of the key itself, in lower-case hex."""
    scopes: frozenset[str]
    """Of ``send``, ``read``, ``admin``, ``events`` and ``priority`` (may raise a priority above its category's)."""


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
    proxies: tuple[Network, ...] = ()
    """Of those in front of ``public``: what they say of where a request came from is believed."""
    machines: tuple[Network, ...] = ()
    """From which nobody but machines opens and clicks."""


@dataclass(frozen=True)
class PagesConfig:
    """What people read who follow a link."""

    name: Mapping[Language, str]
    """Whom the messages are from, as far as that is said in their language."""


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
    """Entering one of these puts an event into the outbox. Empty without broker and webhooks: nobody would hear it."""
    acts: frozenset[Act]
    """The same of what is done with messages."""

    @property
    def routing_keys(self) -> frozenset[str]:
        """The routing keys of all events that there can be."""
        acts = {f"{of}.{act}" for act in self.acts for of in ("message", "person")}
        return frozenset({f"message.{state}" for state in self.states} | acts)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of events over HTTP."""

    name: str
    url: str = field(repr=False)
    """Whoever knows it may be known by it, so it is shown to nobody."""
    keys: tuple[bytes, ...] = field(repr=False)
    """Each of them signs."""
    events: tuple[str, ...]
    """Patterns of routing keys."""
    timeout: timedelta
    """Of one call."""
    concurrency: int
    """Calls under way at once."""
    private: bool
    """It may be at any address, and without TLS."""

    def wants(self, key: str) -> bool:
        """Whether it asks for events with this routing key."""
        return any(matches(pattern, key) for pattern in self.events)

    @property
    def fingerprint(self) -> str:
        """Of its URL."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def origin(self) -> str:
        """As much of its URL as anybody may see."""
        return str(URL(self.url).origin())


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


class Step(StrEnum):
    """How far a message may come, as targets count it."""

    REQUESTED = "requested"
    SENT = "sent"
    DELIVERED = "delivered"
    OPENED = "opened"
    """By a human, as in all that follow."""
    ANSWERED = "answered"
    CLICKED = "clicked"
    CONVERTED = "converted"


@dataclass(frozen=True, slots=True)
class Target:
    """What share of some messages is to come how far."""

    step: Step
    stage: str | None
    """Of those that convert, only to this stage; None: to any."""
    of: Step
    of_stage: str | None
    """The same of what the share is of."""
    at_least: float
    """The share, between 0 and 1."""
    category: str | None
    """Of which messages; None: of all."""
    campaign: str | None
    channel: Channel | None


@dataclass(frozen=True)
class ReportConfig:
    """What reports are held against."""

    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Route(Sequence[str]):
    """The providers of a channel, by name: in the order in which they are tried, or each with its share."""

    names: tuple[str, ...] = ()
    """Those with the largest shares first, where there are shares."""
    weights: tuple[int, ...] | None = None
    """One for each name; not all of them 0. None: the first is to have all, and the others what it cannot take."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.names[index]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)  # every decision goes over it, and by index that takes five times as long

    def resting(self, name: str) -> float:
        """The points that a provider has while all is well: of a hundred, together where there are shares."""
        if self.weights is None:
            return 100.0
        return 100 * self.weights[self.names.index(name)] / sum(self.weights)

    def written(self) -> list[str] | dict[str, int]:
        """As it may stand in the file."""
        return list(self.names) if self.weights is None else dict(zip(self.names, self.weights, strict=True))


@dataclass(frozen=True)
class Config:
    """All of it."""

    store: str = field(repr=False)
    """``sqlite:///…`` or ``postgresql://…``; may hold a password."""
    broker: BrokerConfig | None
    http: HttpConfig
    pages: PagesConfig
    keys: tuple[Key, ...]
    providers: Mapping[str, providers.Settings]
    """By name, as configured. Secrets in them are ``SecretStr``."""
    routes: Mapping[Channel, Route]
    """At least one provider each."""
    events: EventsConfig
    webhooks: tuple[Webhook, ...]
    retention: Retention
    worker: WorkerConfig
    policy: Policy
    report: ReportConfig
    warnings: tuple[Fault, ...] = ()
    """What the policy says that its author hardly meant; it can be used all the same."""
