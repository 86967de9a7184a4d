"""The form of each part of the file: what may be written there, and what it means where it is left out."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import time, timedelta
from typing import Annotated, Final, Literal, TypeVar, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints

import ratelimit
from gateway.config import values
from gateway.config.faults import nearest
from gateway.config.values import Endpoint
from gateway.message import Channels, MessageState, OnUnknown, Priority, Source
from providers import Channel
from ratelimit import Calendar, Scope

WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""A name that people give."""

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: Final = get_args(Weekday)

# ---------------------------------------------------------------------------------------------------------------- words


_DURATION: Final = re.compile(
    r"(?:(?P<weeks>[0-9]{1,6})w)?(?:(?P<days>[0-9]{1,6})d)?(?:(?P<hours>[0-9]{1,6})h)?"
    r"(?:(?P<minutes>[0-9]{1,6})m)?(?:(?P<seconds>[0-9]{1,6})s)?"
)


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


def _brief(length: timedelta) -> timedelta:
    if length > timedelta(minutes=10):
        raise ValueError("must be at most 10m: nothing is sent whose attempt might run into quiet hours")
    return length


def _a_month(length: timedelta) -> timedelta:
    if length < timedelta(days=30):
        raise ValueError("must be at least 30d: so long a repeated id is known again")
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
        near = nearest(text, available_timezones())
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
_Places = Annotated[_Count, Field(le=10_000)]
_Duration = Annotated[timedelta, PlainValidator(_duration)]
_Endpoint = Annotated[Endpoint, PlainValidator(_endpoint)]
_WallTime = Annotated[time, PlainValidator(_wall_time)]
_Some = Annotated[tuple[T, ...], BeforeValidator(_listed), AfterValidator(_sorted), Field(min_length=1)]
"""One or a list, where order means nothing."""


# ---------------------------------------------------------------------------------------------------------------- parts


class Part(BaseModel):
    """A mapping of the file, whose keys are these and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Store(Part):
    """The text under ``store``, by its key."""

    store: Annotated[_Text, AfterValidator(_store)] = "sqlite:///decorum.db"


class Broker(Part):
    """``broker``, which may be its URL alone."""

    url: Annotated[_Text, AfterValidator(_broker)]
    topology: Literal["declare", "passive"] = "declare"
    prefetch: Annotated[_Count, Field(le=65535)] = 500


class Http(Part):
    """``http``."""

    private: _Endpoint = Endpoint("127.0.0.1", 8080)
    public: _Endpoint | None = None
    public_url: Annotated[_Text, AfterValidator(_public_url)] | None = None


class Key(Part):
    """One of ``keys``."""

    name: Source
    sha256: Annotated[_Text, AfterValidator(_sha256)]
    scopes: _Some[Literal["send", "read", "admin", "priority"]]


class Route(Part):
    """What stands under a channel of ``routes``, by a key of ours."""

    to: Annotated[tuple[_Text, ...], BeforeValidator(_listed), AfterValidator(_no_repeats), Field(min_length=1)] = ()


class Events(Part):
    """``events``."""

    exchange: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,127}$", strict=True)] = "decorum.events"
    states: _Some[MessageState] = tuple(
        state for state in MessageState if state not in (MessageState.WAITING, MessageState.SENDING)
    )


class Retention(Part):
    """``retention``."""

    messages: Annotated[_Duration, AfterValidator(_a_month)] = timedelta(days=90)
    contacts: _Duration = timedelta(days=400)


class InFlight(Part):
    """``worker.in_flight``."""

    critical: _Places = 256
    high: _Places = 256
    normal: _Places = 256
    bulk: _Places = 256


class Worker(Part):
    """``worker``."""

    in_flight: InFlight = InFlight()
    attempt: Annotated[_Duration, AfterValidator(_brief)] = timedelta(seconds=10)


class Clock(Part):
    """What ``policy`` says of time."""

    timezone: Annotated[_Text, AfterValidator(_zone)] = "UTC"
    """The default only stands in where it has been told that there must be one."""
    week_start: Weekday = "monday"


class Category(Part):
    """What stands under a name of ``policy.categories``."""

    priority: Literal["critical", "high", "normal", "bulk"] = "normal"
    channels: Annotated[Channels, BeforeValidator(_listed)] | None = None
    caps: Literal["exempt"] | None = None
    quiet_hours: Literal["exempt"] | None = None
    counts: Annotated[bool, Field(strict=True)] | None = None
    expires_after: _Duration = timedelta(hours=72)
    on_unknown: OnUnknown = OnUnknown.LEAVE
    unsubscribe: Annotated[bool, Field(strict=True)] | None = None

    def named(self, name: str) -> values.Category:
        """Its meaning.

        Unless the file says otherwise, what is exempt from caps does not count for them, and every mail can be
        unsubscribed from but those that people wait for: critical ones, and those sent at any hour.
        """
        exempt = self.quiet_hours is not None
        return values.Category(
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


class Rule(Part):
    """What rules have in common."""

    name: _Word
    channel: _Some[Channel] = ()
    category: _Some[str] = ()


class Cap(Rule):
    """One of ``policy.caps``."""

    limit: Annotated[int, Field(strict=True, le=1_000_000), AfterValidator(_some)]
    per: Annotated[timedelta | Calendar, PlainValidator(_period)]
    scope: _Some[Literal["user", "channel", "category", "campaign"]] = ()

    def rule(self, week_start: int) -> ratelimit.FrequencyCap:
        """Its meaning: the person is part of every scope, written or not."""
        return ratelimit.FrequencyCap(
            name=self.name,
            limit=self.limit,
            per=self.per,
            scope=frozenset(Scope(word) for word in self.scope if word != "user"),
            channels=frozenset(self.channel),
            categories=frozenset(self.category),
            week_start=week_start,
        )


class Gap(Rule):
    """One of ``policy.minimum_gap``, which may be its length alone."""

    name: _Word = "minimum_gap"
    gap: _Duration

    def rule(self) -> ratelimit.MinimumGap:
        """Its meaning."""
        return ratelimit.MinimumGap(
            self.name, self.gap, channels=frozenset(self.channel), categories=frozenset(self.category)
        )


class QuietHours(Rule):
    """One of ``policy.quiet_hours``."""

    start: _WallTime = Field(alias="from")
    end: _WallTime = Field(alias="to")

    def rule(self) -> ratelimit.QuietHours:
        """Its meaning."""
        return ratelimit.QuietHours(self.name, self.start, self.end, frozenset(self.channel), frozenset(self.category))
