"""The YAML, typed: every fault at once, with its path; secrets by reference.

Pydantic types the parts of the file one by one, so that a fault in one part hides none in another. What comes of
them are the frozen objects at the top, which is all that the rest of the gateway sees.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import time, timedelta
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, TypeVar, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import orjson
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
)
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError

import providers
from gateway.message import Channels, MessageState, OnUnknown, Priority, Source
from providers import Channel
from ratelimit import Calendar, FrequencyCap, MinimumGap, QuietHours, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pydantic_core import ErrorDetails

    from ratelimit import Rule

DAY: Final = timedelta(days=1)

CALENDAR: Mapping[Calendar, timedelta] = {Calendar.DAY: DAY, Calendar.WEEK: 7 * DAY, Calendar.MONTH: 31 * DAY}
"""The longest that each calendar window can be."""

ZONES: Final = 2 * DAY
"""How much earlier a calendar window may have begun by the clocks of another zone: 26 hours lie between Baker
Island and Kiritimati, and either may change its clocks."""

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


# -------------------------------------------------------------------------------------------------------- what is wrong


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the configuration."""

    path: str
    """Where, such as ``policy.caps[1].limit``; empty for the whole file."""
    problem: str
    """What, and how to mend it. Never holds a secret."""

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.path}: {self.problem}" if self.path else self.problem


class ConfigError(Exception):
    """The configuration cannot be used; ``faults`` are all the reasons that could be found, in the file's order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        """At least one fault."""
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


# ----------------------------------------------------------------------------------------------------- what it comes to


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


# -------------------------------------------------------------------------------------------------------- the way to it


def locate(option: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: ``--config``, else ``$DECORUM_CONFIG``, else ``./gateway.yaml``. It need not exist."""
    return option or Path(environ.get("DECORUM_CONFIG") or "gateway.yaml")


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a file.

    Raises:
        ConfigError: with every fault in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault("", f"{path} is not UTF-8 text: byte {error.start} cannot be read")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        how = "name the file with --config or $DECORUM_CONFIG, or run where gateway.yaml is"
        raise ConfigError([Fault("", f"{path} cannot be read: {why}; {how}")]) from None
    return parse(text, environ, base=path.parent)


def parse(text: str, environ: Mapping[str, str], *, base: Path) -> Config:
    """What a configuration says.

    Args:
        text: YAML.
        environ: Where ``{env: NAME}`` is looked up.
        base: Where relative paths of ``{file: path}`` begin. A relative path of SQLite begins where the process runs.

    Raises:
        ConfigError: with every fault in it.
    """
    return _Reading(environ, base).config(text)


# --------------------------------------------------------------------------------------------------- YAML without traps

MAX_SIZE: Final = 1_000_000
MAX_DEPTH: Final = 32
MAX_SECRET: Final = 65_536
MIN_SECRET: Final = 4
"""Shorter ones are not looked for in sentences, which would only tear words apart."""

WHOLE: Final = "write the character itself, not as \\u escapes of its halves"
WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_STRING, _TIMESTAMP, _NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{word}" for word in ("str", "timestamp", "null", "bool", "int", "float")
)
_CONSTRUCT: Mapping[str, Callable[[SafeConstructor, yaml.ScalarNode], object]] = {
    _NULL: SafeConstructor.construct_yaml_null,
    _BOOL: SafeConstructor.construct_yaml_bool,
    _INT: SafeConstructor.construct_yaml_int,
    _FLOAT: SafeConstructor.construct_yaml_float,
}


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases, with which a small file can make a huge document, and deep nesting."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("an alias (*name) is not taken: write the value out")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse("nested too deeply: is there a bracket too many?")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, problem: str) -> NoReturn:
        mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_Place = tuple[str | int, ...]
_LOST: Final = object()
"""Stands where a value had a fault that has been told: no type accepts it, and what is said of it is left out."""

# ---------------------------------------------------------------------------------------- the file's form, part by part


def _duration(value: object) -> timedelta:
    parts = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not value or parts is None:
        raise ValueError("must be a duration with its unit, such as 30s, 5m, 24h, 14d, 2w or 1h30m")
    length = timedelta(**{unit: int(number) for unit, number in parts.groupdict(default="0").items()})
    if not length:
        raise ValueError("must be longer than nothing")
    if length > timedelta(days=3660):
        raise ValueError("must be at most 3660d")
    return length


_DURATION: Final = re.compile(
    r"(?:(?P<weeks>[0-9]{1,6})w)?(?:(?P<days>[0-9]{1,6})d)?(?:(?P<hours>[0-9]{1,6})h)?"
    r"(?:(?P<minutes>[0-9]{1,6})m)?(?:(?P<seconds>[0-9]{1,6})s)?"
)


def _brief(length: timedelta) -> timedelta:
    if length > timedelta(minutes=10):
        raise ValueError("must be at most 10m: nothing is sent whose attempt might run into quiet hours")
    return length


def _period(value: object) -> timedelta | Calendar:
    if isinstance(value, str) and value in tuple(Calendar):
        return Calendar(value)
    try:
        length = _duration(value)
    except ValueError:
        raise ValueError(
            "must be day, week or month (calendar), or a duration with its unit such as 24h or 7d (rolling)"
        ) from None
    if length > timedelta(days=366):
        raise ValueError("must be at most 366d: rules do not look further ahead")
    return length


def _wall_time(value: object) -> time:
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return time.fromisoformat(value)
    raise ValueError('must be a time of day in quotes, from "00:00" to "23:59"')


def _endpoint(value: object) -> Endpoint:
    parts = isinstance(value, str) and re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    if not parts:
        raise ValueError("must be host:port, such as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080")
    host, port = parts[1].strip("[]"), int(parts[2])
    if parts[1].startswith("[") or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("must be host:port, and this host is not an IP address though it looks like one") from None
    if port > 65535:  # noqa: PLR2004 - the largest there is
        raise ValueError("must be host:port with a port of at most 65535")
    return Endpoint(host, port)


def _host_of(url: str) -> str | None:
    """What the URL names as host.

    Raises:
        ValueError: without any part of the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL: is a character of the password not percent-encoded?") from None
    return parts.hostname


def _store(url: str) -> str:
    scheme, _, path = url.partition("://")
    if scheme == "sqlite" and path.startswith("/") and len(path) > 1:
        if ":memory:" in path:
            raise ValueError("cannot be in memory, what was accepted must be kept: name a file, sqlite:///decorum.db")
        if "?" in path:
            raise ValueError("takes no options for SQLite: write sqlite:///decorum.db")
        return url
    if scheme == "postgresql" and path:
        _host_of(url)
        return url
    raise ValueError("must be sqlite:///decorum.db or postgresql://user:password@host/database")


def _broker(url: str) -> str:
    if not url.startswith(("amqp://", "amqps://")) or not _host_of(url):
        raise ValueError("must be amqp://user:password@host/vhost, or amqps://")
    return url


def _public_url(url: str) -> str:
    host = _host_of(url)
    if not url.startswith(("https://", "http://")) or not host or {"?", "#", "@", " "} & set(url):
        raise ValueError("must be https://host, with a path at most")
    return url.rstrip("/")


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # unknown, not a name, a directory
        near = _nearest(text, available_timezones())
        raise ValueError(f"is not a time zone of the IANA database{near or ', such as Asia/Tokyo'}") from None
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise ValueError("must be 64 hex digits in quotes; printf %s KEY | sha256sum prints them")
    if text.lower() == hashlib.sha256().hexdigest():
        raise ValueError("is the hash of an empty key; printf %s KEY | sha256sum prints the right one")
    return text.lower()


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _sorted(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))


def _no_repeats(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise ValueError("names a provider twice: remove the second")
    return words


def _some(limit: int) -> int:
    if limit < 1:
        raise ValueError("must be at least 1, less would never send anything: raise it, or remove the cap")
    return limit


T = TypeVar("T")
_Text = Annotated[str, StringConstraints(min_length=1, strict=True)]
_Word = Annotated[str, StringConstraints(pattern=rf"^{WORD.pattern}$", strict=True)]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Duration = Annotated[timedelta, PlainValidator(_duration)]
_Endpoint = Annotated[Endpoint, PlainValidator(_endpoint)]
_Some = Annotated[tuple[T, ...], BeforeValidator(_listed), AfterValidator(_sorted), Field(min_length=1)]
"""One or a list, where order means nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Broker(_Part):
    url: Annotated[_Text, AfterValidator(_broker)]
    topology: Literal["declare", "passive"] = "declare"
    prefetch: Annotated[_Count, Field(le=65535)] = 500


class _Http(_Part):
    private: _Endpoint = Endpoint("127.0.0.1", 8080)
    public: _Endpoint | None = None
    public_url: Annotated[_Text, AfterValidator(_public_url)] | None = None


class _Key(_Part):
    name: Source
    sha256: Annotated[_Text, AfterValidator(_sha256)]
    scopes: _Some[Literal["send", "read", "admin", "priority"]]


class _Events(_Part):
    exchange: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,127}$", strict=True)] = "decorum.events"
    states: _Some[MessageState] = tuple(
        state for state in MessageState if state not in (MessageState.WAITING, MessageState.SENDING)
    )


class _Retention(_Part):
    messages: _Duration = timedelta(days=30)
    contacts: _Duration = timedelta(days=400)


class _InFlight(_Part):
    critical: Annotated[_Count, Field(le=10_000)] = 256
    high: Annotated[_Count, Field(le=10_000)] = 256
    normal: Annotated[_Count, Field(le=10_000)] = 256
    bulk: Annotated[_Count, Field(le=10_000)] = 256


class _Worker(_Part):
    in_flight: _InFlight = _InFlight()
    attempt: Annotated[_Duration, AfterValidator(_brief)] = timedelta(seconds=10)


class _Category(_Part):
    priority: Literal["critical", "high", "normal", "bulk"] = "normal"
    channels: Annotated[Channels, BeforeValidator(_listed)] | None = None
    caps: Literal["exempt"] | None = None
    quiet_hours: Literal["exempt"] | None = None
    counts: Annotated[bool, Field(strict=True)] | None = None
    expires_after: _Duration = timedelta(hours=72)
    on_unknown: OnUnknown = OnUnknown.LEAVE
    unsubscribe: Annotated[bool, Field(strict=True)] | None = None

    def named(self, name: str) -> Category:
        """Its meaning.

        Unless the file says otherwise, what is exempt from caps does not count for them, and every mail can be
        unsubscribed from but those that people wait for: critical ones, and those sent at any hour.
        """
        exempt = self.quiet_hours is not None
        return Category(
            name=name,
            priority=Priority[self.priority.upper()],
            channels=self.channels,
            caps_exempt=self.caps is not None,
            quiet_hours_exempt=exempt,
            counts=self.caps is None if self.counts is None else self.counts,
            expires_after=self.expires_after,
            on_unknown=self.on_unknown,
            unsubscribe=not (exempt or self.priority == "critical") if self.unsubscribe is None else self.unsubscribe,
        )


class _Store(_Part):
    store: Annotated[_Text, AfterValidator(_store)] = "sqlite:///decorum.db"


class _Route(_Part):
    to: Annotated[tuple[_Text, ...], BeforeValidator(_listed), AfterValidator(_no_repeats), Field(min_length=1)] = ()


class _Clock(_Part):
    timezone: Annotated[_Text, AfterValidator(_zone)]
    week_start: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"


class _Rule(_Part):
    name: _Word
    channel: _Some[Channel] = ()
    category: _Some[str] = ()


class _Cap(_Rule):
    limit: Annotated[int, Field(strict=True, le=1_000_000), AfterValidator(_some)]
    per: Annotated[timedelta | Calendar, PlainValidator(_period)]
    scope: _Some[Literal["user", "channel", "category", "campaign"]] = ()

    def rule(self, week_start: int) -> FrequencyCap:
        """Its meaning: the person is part of every scope, written or not."""
        return FrequencyCap(
            name=self.name,
            limit=self.limit,
            per=self.per,
            scope=frozenset(Scope(word) for word in self.scope if word != "user"),
            channels=frozenset(self.channel),
            categories=frozenset(self.category),
            week_start=week_start,
        )


class _Gap(_Rule):
    name: _Word = "minimum_gap"
    gap: _Duration

    def rule(self) -> MinimumGap:
        """Its meaning."""
        return MinimumGap(self.name, self.gap, channels=frozenset(self.channel), categories=frozenset(self.category))


class _QuietHours(_Rule):
    start: Annotated[time, PlainValidator(_wall_time)] = Field(alias="from")
    end: Annotated[time, PlainValidator(_wall_time)] = Field(alias="to")

    def rule(self) -> QuietHours:
        """Its meaning."""
        return QuietHours(self.name, self.start, self.end, frozenset(self.channel), frozenset(self.category))


# ----------------------------------------------------------------------------------------------------- reading the file

SECTIONS: Final = (
    "store",
    "broker",
    "http",
    "keys",
    "providers",
    "routes",
    "events",
    "retention",
    "worker",
    "policy",
)
POLICY_SECTIONS: Final = ("timezone", "week_start", "categories", "caps", "minimum_gap", "quiet_hours")

SAYS: Mapping[str, str] = {
    "missing": "is missing: add it",
    "string_type": "must be text: write it in quotes",
    "string_unicode": "must be text: it holds half a character",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be a mapping, key: value",
    "dict_type": "must be a mapping, key: value",
    "list_type": "must be a list, [one, another]",
    "tuple_type": "must be a list, [one, another]",
    "frozen_set_type": "must be a list, [one, another]",
    "too_short": "must name at least {min_length}",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must have the form {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
"""Pydantic's types of error, in our words. https://docs.pydantic.dev/latest/errors/validation_errors/"""

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=_Rule)


class _Reading:
    """One pass over one file, collecting what is wrong.

    Each method returns the best that could be read, which counts only if no fault was found anywhere.
    """

    def __init__(self, environ: Mapping[str, str], base: Path) -> None:
        self._environ = environ
        self._base = base
        self._faults: dict[Fault, tuple[int, int]] = {}
        self._marks: dict[_Place, tuple[int, int]] = {}
        """Where in the file a place is: line and column, from 0."""
        self._lost: set[_Place] = set()
        """Places whose fault has been told."""
        self._secrets: set[str] = set()
        self._root: object = None

    def config(self, text: str) -> Config:
        """The whole."""
        self._root = self._document(text)
        at = self._mapping(self._root, (), SECTIONS)
        self._required(self._root, (), ("providers", "routes", "policy"))
        configured = self._providers(at.get("providers"))
        worker = self._typed(_Worker, at.get("worker"), ("worker",)) or _Worker()
        policy = self._policy(at.get("policy"), at.get("routes"), worker.attempt)
        config = Config(
            store=self._store(at),
            broker=self._broker(at.get("broker")),
            http=self._http(at.get("http"), at.get("keys")),
            keys=self._keys(at.get("keys")),
            providers=configured,
            routes=self._routes(at.get("routes"), at.get("providers"), configured),
            events=self._events(at.get("events"), at.get("broker")),
            retention=self._retention(at.get("retention"), policy),
            worker=WorkerConfig({p: getattr(worker.in_flight, p.word) for p in Priority}, worker.attempt),
            policy=policy,
        )
        if self._faults:
            raise ConfigError(sorted(self._faults, key=self._faults.__getitem__))
        return config

    # --------------------------------------------------------------------------------------------------------- sections

    def _store(self, at: Mapping[str, object]) -> str:
        given = {key: value for key, value in at.items() if key == "store" and value is not None}
        return (self._typed(_Store, given, ()) or _Store()).store

    def _broker(self, value: object) -> BrokerConfig | None:
        if value is None:
            return None
        part = self._typed(_Broker, {"url": value} if isinstance(value, str) else value, ("broker",))
        return BrokerConfig(part.url, part.topology, part.prefetch) if part else None

    def _http(self, value: object, keys: object) -> HttpConfig:
        part = self._typed(_Http, value, ("http",)) or _Http()
        if not keys and not part.private.loopback:
            self._fault(
                ("http", "private"),
                "must be a loopback address, such as 127.0.0.1:8080, while there are no keys: whoever reaches it could "
                "send; add keys to bind another",
            )
        if part.public and not part.public_url:
            self._fault(("http", "public_url"), "is missing: add how the world reaches http.public")
        if part.public_url and not part.public:
            self._fault(("http", "public"), "is missing: add where the listener behind http.public_url is bound")
        if part.public == part.private and part.private.port:
            self._fault(("http", "public"), "must differ from http.private, which the world must not reach")
        return HttpConfig(part.private, part.public, part.public_url)

    def _keys(self, value: object) -> tuple[Key, ...]:
        keys: list[Key] = []
        for place, item in self._items(value, ("keys",)):
            if part := self._typed(_Key, item, place):
                self._distinct(part.name, [key.name for key in keys], (*place, "name"))
                self._distinct(part.sha256, [key.sha256 for key in keys], (*place, "sha256"))
                keys.append(Key(part.name, part.sha256, frozenset(part.scopes)))
        return tuple(keys)

    def _providers(self, value: object) -> dict[str, providers.Settings]:
        configured, kinds = {}, providers.kinds()
        for name, settings in self._mapping(value, ("providers",)).items():
            place = ("providers", name)
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
                self._fault(place, "must be named with 1 to 32 of a-z, 0-9, _ and -, a letter first")
            given = self._mapping(settings, place)
            kind = given.get("kind")
            if not given and settings:
                continue  # it is no mapping, which has been told
            if kind not in kinds:
                self._fault((*place, "kind"), f"must be one of {', '.join(kinds)}{_nearest(kind, kinds)}")
            elif part := self._typed(providers.settings_of(str(kind)), given, place):
                configured[name] = part
        return configured

    def _routes(
        self, value: object, named: object, configured: Mapping[str, providers.Settings]
    ) -> dict[Channel, tuple[str, ...]]:
        routes = {}
        known = tuple(named) if isinstance(named, dict) else ()
        for word, names in self._mapping(value, ("routes",)).items():
            place = ("routes", word)
            if word not in tuple(Channel):
                self._fault(place, f"is not a channel; there are {', '.join(Channel)}{_nearest(word, tuple(Channel))}")
                continue
            routes[Channel(word)] = (self._typed(_Route, {"to": names}, place) or _Route()).to
            for name in routes[Channel(word)]:
                if known and name not in known:
                    self._fault(place, f"{name!r} is not under providers{_nearest(name, known)}")
                elif name in configured and word not in providers.channels(configured[name]):
                    able = [name for name in configured if word in providers.channels(configured[name])]
                    these = f"; these can: {', '.join(able)}" if able else ""
                    self._fault(place, f"{name!r} is a {configured[name].kind} and cannot send on this channel{these}")
        return routes

    def _events(self, value: object, broker: object) -> EventsConfig:
        part = self._typed(_Events, value, ("events",)) or _Events()
        if value is not None and broker is None:
            self._fault(("events",), "needs a broker to go to: add broker, or remove events")
        return EventsConfig(part.exchange, frozenset(part.states if broker else ()))

    def _retention(self, value: object, policy: Policy) -> Retention:
        part = self._typed(_Retention, value, ("retention",)) or _Retention()
        lengths = chain(((window(cap), cap.name) for cap in policy.caps), ((gap.gap, gap.name) for gap in policy.gaps))
        for length, name in lengths:
            days = -(-length // DAY)
            if length == policy.longest_window and part.contacts < length + DAY:
                self._fault(
                    ("retention", "contacts"),
                    f"must be at least {days + 1}d: {name!r} in the policy looks back {days}d",
                )
        return Retention(part.messages, part.contacts)

    # ----------------------------------------------------------------------------------------------------------- policy

    def _policy(self, value: object, routes: object, attempt: timedelta) -> Policy:
        place = ("policy",)
        at = self._mapping(value, place, POLICY_SECTIONS)
        self._required(value, place, ("timezone", "categories"))
        clock = self._typed(
            _Clock,
            # That it is missing has been told.
            {"timezone": "UTC"} | {key: at[key] for key in _Clock.model_fields if at.get(key) is not None},
            place,
        )
        zone, first_day = (clock.timezone, clock.week_start) if clock else ("UTC", "monday")
        given = self._mapping(at.get("categories"), (*place, "categories"))
        known = tuple(given)
        caps = self._rules(_Cap, at.get("caps"), (*place, "caps"), known)
        length = at.get("minimum_gap")
        gaps = self._rules(
            _Gap,
            length if length is None or isinstance(length, list) else [{"gap": length}],
            (*place, "minimum_gap"),
            known,
        )
        hours = self._rules(_QuietHours, at.get("quiet_hours"), (*place, "quiet_hours"), known)
        names: list[str] = []
        for where, rule in (*caps, *gaps, *hours):
            self._distinct(rule.name, names, (*where, "name"))
            names.append(rule.name)
        for where, part in hours:
            self._openings(where, part, attempt)
        rules = (
            tuple(cap.rule(WEEKDAYS.index(first_day)) for _, cap in caps),
            tuple(gap.rule() for _, gap in gaps),
            tuple(night.rule() for _, night in hours),
        )
        last_resort, categories = ZoneInfo(zone), self._categories(given, routes)
        return Policy(last_resort, categories, *rules, hash=_hash(last_resort, categories, *rules))

    def _categories(self, given: Mapping[str, object], routes: object) -> dict[str, Category]:
        categories = {}
        for name, value in given.items():
            place = ("policy", "categories", name)
            if not WORD.fullmatch(name):
                self._fault(place, "must be named with 1 to 64 of A-Z, a-z, 0-9, _ and -, a letter first")
            part = self._typed(_Category, value, place)
            if not part:
                continue
            categories[name] = part.named(name)
            if part.channels and isinstance(routes, dict) and routes and not any(c in routes for c in part.channels):
                these = ", ".join(part.channels)
                self._fault(
                    (*place, "channels"), f"has no route to go by ({these}): add one under routes, or a channel"
                )
        return categories

    def _rules(self, model: type[R], value: object, place: _Place, known: tuple[str, ...]) -> list[tuple[_Place, R]]:
        rules = []
        for where, item in self._items(value, place):
            if part := self._typed(model, item, where):
                for name in sorted(set(part.category).difference(known)):
                    problem = f"{name!r} is not under policy.categories{_nearest(name, known)}"
                    self._fault((*where, "category"), problem)
                rules.append((where, part))
        return rules

    def _openings(self, place: _Place, part: _QuietHours, attempt: timedelta) -> None:
        hours, minutes = part.start.hour - part.end.hour, part.start.minute - part.end.minute
        opening = timedelta(hours=hours, minutes=minutes) % DAY
        if not opening:
            self._fault((*place, "to"), "must differ from its from: nothing would ever be sent")
        elif opening <= attempt:
            self._fault(
                (*place, "to"), "leaves no time to send: an attempt takes longer (worker.attempt) than it is not quiet"
            )

    # ------------------------------------------------------------------------------------------------------------ parts

    def _mapping(self, value: object, place: _Place, known: tuple[str, ...] = ()) -> dict[str, object]:
        """What is written there; nothing is an empty mapping. ``known``: the only keys, if any."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._fault(place, "must be a mapping, key: value" if place else "must be a mapping of sections, policy: …")
            return {}
        if known:
            for key in value:
                if key not in known:
                    self._fault((*place, key), _unknown(key, known))
        return value

    def _required(self, at: object, place: _Place, keys: Iterable[str]) -> None:
        if isinstance(at, dict):
            for key in keys:
                if at.get(key) in (None, {}):
                    self._fault((*place, key), "is missing: add it")

    def _items(self, value: object, place: _Place) -> list[tuple[_Place, object]]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._fault(place, "must be a list, [one, another]")
            return []
        return [((*place, index), item) for index, item in enumerate(value)]

    def _distinct(self, word: str, others: Iterable[str], place: _Place) -> None:
        if word in others:
            self._fault(place, "is used twice: choose another")

    def _typed(self, model: type[M], value: object, place: _Place) -> M | None:
        """The part, or None and a fault for each thing wrong with it."""
        try:
            return model.model_validate({} if value is None else value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            for detail in details:
                if detail["type"] == "too_short" and any(len(other["loc"]) > len(detail["loc"]) for other in details):
                    continue  # what could not be read was not counted
                keep = detail["type"] in ("missing", "extra_forbidden")
                self._fault(self._place((*place, *detail["loc"]), keep_last=keep), _problem(detail, model))
            return None

    def _place(self, place: _Place, *, keep_last: bool) -> _Place:
        """As the file has it: without the steps that are pydantic's or ours only."""
        node: Any = self._root
        there: list[str | int] = []
        for number, step in enumerate(place, 1):
            if (isinstance(node, dict) and step in node) or (isinstance(node, list) and step in range(len(node))):
                node = node[step]  # type: ignore[index]  # the line above looked
                there.append(step)
            elif keep_last and number == len(place):
                there.append(step)
        return tuple(there)

    def _fault(self, place: _Place, problem: str) -> None:
        if any(place[: len(lost)] == lost for lost in self._lost):
            return
        for secret in sorted(self._secrets, key=len, reverse=True):
            problem = problem.replace(secret, "***")
        mark = next(self._marks[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self._marks)
        self._faults.setdefault(Fault(_path(place), " ".join(problem.split())), mark)

    def _lose(self, place: _Place, problem: str) -> object:
        self._fault(place, problem)
        self._lost.add(place)
        return _LOST

    # ------------------------------------------------------------------------------------------------------------- YAML

    def _document(self, text: str) -> object:
        self._marks[()] = (0, 0)
        if len(text) > MAX_SIZE:
            raise ConfigError([Fault("", f"is larger than {MAX_SIZE} characters: is it the right file?")])
        try:
            node = _Loader(text).get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            raise ConfigError(
                [Fault("", f"{where}{', '.join(filter(None, (error.context, error.problem)))}")]
            ) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError([Fault("", f"line {line}: a character that YAML does not allow: remove it")]) from None
        except (yaml.YAMLError, ValueError, OverflowError):  # of an escape such as "\UFFFFFFFF"
            raise ConfigError([Fault("", "is not YAML: is there a wrong \\ escape in it?")]) from None
        if node is None:
            raise ConfigError([Fault("", "the file is empty: gateway/sample.yaml is one to start from")])
        return self._value(node, ())

    def _value(self, node: yaml.Node, place: _Place) -> object:
        self._marks[place] = (node.start_mark.line, node.start_mark.column)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._reference(self._pairs(node, place), place)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode() if node.tag in (_STRING, _TIMESTAMP, *_CONSTRUCT):
                return self._scalar(node, place)
            case _:
                return self._lose(place, "is more than plain YAML: leave out the tag (!…), or put it in quotes")

    def _pairs(self, node: yaml.MappingNode, place: _Place) -> dict[str, object]:
        pairs: dict[str, object] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            number = isinstance(key, yaml.ScalarNode) and key.tag == _INT and key.value.isdecimal()  # an HTTP status
            if not number and (not isinstance(key, yaml.ScalarNode) or key.tag != _STRING):
                self._fault(place, f"has a key in line {line} that YAML does not read as text: put it in quotes")
            elif not _encodable(key.value):
                self._fault(place, f"has a key in line {line} with half a character in it: {WHOLE}")
            elif key.value in pairs:
                self._fault((*place, key.value), f"is written twice, the second time in line {line}: remove one")
            else:
                pairs[key.value] = self._value(value, (*place, key.value))
        return pairs

    def _scalar(self, node: yaml.ScalarNode, place: _Place) -> object:
        text = node.value
        if node.tag in (_STRING, _TIMESTAMP):
            if not _encodable(text):
                return self._lose(place, f"holds half a character: {WHOLE}")
            return text
        if node.style is None and node.tag in (_INT, _FLOAT) and ":" in text:
            return self._lose(place, 'is read by YAML as a number in base 60: put it in quotes, such as "21:00"')
        if node.style is None and node.tag == _INT and not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", text):
            return self._lose(
                place, "is not read by YAML as a decimal number: write it without 0 in front, or in quotes"
            )
        try:
            return _CONSTRUCT[node.tag](SafeConstructor(), node)
        except (ValueError, LookupError):
            return self._lose(place, "is not what its tag (!!…) says: leave the tag out")

    # ------------------------------------------------------------------------------------------------------- references

    def _reference(self, value: dict[str, object], place: _Place) -> object:
        """What ``{env: NAME}`` or ``{file: path}`` stand for; another mapping stands for itself."""
        try:
            match value:
                case {"env": str(name), **rest} if not rest:
                    found = _variable(name, self._environ)
                case {"file": str(name), **rest} if not rest:
                    found = _contents(name, self._base)
                case _:
                    return value
        except ValueError as error:
            return self._lose(place, str(error))
        if len(found) >= MIN_SECRET:
            self._secrets |= {found, repr(found)[1:-1]}
        return found


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must name an environment variable, such as {env: TWILIO_TOKEN}")
    value = environ.get(name)
    if not value:
        raise ValueError(f"the environment variable {name} is {'not set' if value is None else 'empty'}: set it")
    if not _encodable(value):
        raise ValueError(f"the environment variable {name} is not UTF-8 text")
    return value


def _contents(name: str, base: Path) -> str:
    """Without the line break at its end, which editors add."""
    try:
        path = base / name
        if not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}: make it, or change the reference")
        with path.open(encoding="utf-8") as file:
            value = file.read(MAX_SECRET + 1).rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the file {name!r} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"the file {name!r} cannot be read: {error.strerror}") from None
    if not value or len(value) > MAX_SECRET:
        raise ValueError(f"the file {name!r} is {f'longer than {MAX_SECRET} characters' if value else 'empty'}")
    return value


# ------------------------------------------------------------------------------------------------------------- in words


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What pydantic found, and how to mend it."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(str(detail["loc"][-1]), _fields(model, detail["loc"][:-1]))
    if kind in ("enum", "literal_error"):
        words = tuple(re.findall(r"'([^']*)'", context["expected"]))
        if len(words) == 1:
            return f"must be {words[0]}, or be left out"
        return f"must be one of {', '.join(words)}{_nearest(detail['input'], words)}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in SAYS:
        return SAYS[kind].format(**context)
    return detail["msg"].replace("Input should", "must")


def _unknown(key: str, known: Iterable[str]) -> str:
    known = tuple(known)
    return f"is not a known key{_nearest(key, known) or '; there are ' + ', '.join(known)}"


def _nearest(word: object, words: Iterable[str]) -> str:
    near = get_close_matches(word, words, 1) if isinstance(word, str) else []
    return f": did you mean {near[0]}?" if near else ""


def _fields(model: type[BaseModel], place: _Place) -> tuple[str, ...]:
    """The keys that the model, or the one inside it that the place leads to, has."""
    for step in place:
        inner = {info.alias or name: info.annotation for name, info in model.model_fields.items()}.get(str(step))
        model = next(_models(inner), model)
    return tuple(info.alias or name for name, info in model.model_fields.items())


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _path(place: _Place) -> str:
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step!a}]"
    return text


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _hash(*meaning: object) -> str:
    """Of the rules themselves, so that a release in which a default changes shows as another policy."""

    def plain(value: object) -> object:
        match value:
            case frozenset():
                return sorted(value)
            case timedelta():
                return value.total_seconds()
            case ZoneInfo():
                return value.key
            case _:
                raise TypeError(f"{type(value)} has no canonical form")

    return hashlib.sha256(orjson.dumps(meaning, default=plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
