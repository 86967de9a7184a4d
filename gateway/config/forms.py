"""The form of each section of the file: what may be written there, and what it means where it is left out."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
)
from yarl import URL

from gateway.config import values
from gateway.config.values import Endpoint, Network, Step
from gateway.config.words import Count, Flag, Length, Share, Some, Text, Word, Wording, listed
from gateway.fields import Name, Source
from gateway.message import MessageState
from gateway.webhooks.addresses import outside
from gateway.webhooks.standard import secret
from gateway.webhooks.topics import pattern
from providers import Act, Channel


def _brief(length: timedelta) -> timedelta:
    if length > timedelta(minutes=10):
        raise ValueError("must be at most 10m: nothing is sent whose attempt might run into quiet hours")
    return length


def _a_month(length: timedelta) -> timedelta:
    if length < timedelta(days=30):
        raise ValueError("must be at least 30d: so long a repeated id is known again")
    return length


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
        raise ValueError("must be https://host, with a path at most (http://host only to try it out)")
    return url.rstrip("/")


def _network(value: object) -> Network:
    try:
        if isinstance(value, str):
            return ipaddress.ip_network(value)
    except ValueError:
        pass
    raise ValueError("must be a network such as 10.0.0.0/8 or 2001:db8::/32, its host bits all 0, or an IP address")


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise ValueError("must be 64 hex digits in quotes; printf %s KEY | sha256sum prints them")
    if text.lower() == hashlib.sha256().hexdigest():
        raise ValueError("is the hash of an empty key; printf %s KEY | sha256sum prints the right one")
    return text.lower()


def _exchange(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,127}", name):
        raise ValueError("must be 1 to 127 of A-Z, a-z, 0-9, _, ., : and -")
    return name


def _webhook_url(url: str, info: ValidationInfo) -> str:
    """Where a webhook is. Never quotes it, for whoever knows it may be known by it."""
    private = info.data.get("private", True)  # that it is neither has been told
    try:
        parts = URL(url)
        host, port = parts.host, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http") or not re.fullmatch(r"[!-~]{1,2048}", url):
        raise ValueError("must be https://host/path")
    if parts.user is not None or parts.password is not None:
        raise ValueError("must hold no user and no password: whoever is called knows us by the signature")
    if "#" in url:
        raise ValueError("must hold no #: that part of an address is never sent")
    if private:
        return url
    if parts.scheme != "https":
        raise ValueError("must be https://; inside your own network, say private: true")
    if port not in (443, 8443):
        raise ValueError("must have the port 443 or 8443; inside your own network, say private: true")
    try:
        inside = not outside(ipaddress.ip_address(host))
    except ValueError:  # a name, or what some programs would take for an address
        inside = host.rstrip(".") == "localhost" or bool(re.fullmatch(r"[0-9.]+", host))
    if inside:
        raise ValueError("must not be an address inside a network; inside your own, say private: true")
    return url


def _at_most_a_minute(length: timedelta) -> timedelta:
    if length > timedelta(minutes=1):
        raise ValueError("must be at most 1m: the call is made again all the same")
    return length


def _key(value: object) -> bytes:
    return secret(value if isinstance(value, str) else "")


def _no_key_twice(keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(set(keys)) < len(keys):
        raise ValueError("names a secret twice: remove the second")
    return keys


def _no_repeats(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise ValueError("names a provider twice: remove the second")
    return words


def _some_weight(weights: dict[str, int]) -> dict[str, int]:
    if weights and not any(weights.values()):
        raise ValueError("must give some provider a weight above 0")
    return weights


def _later(step: Step) -> Step:
    if step is Step.REQUESTED:
        raise ValueError("must be a later step, every message is requested: name sent, delivered, opened, …")
    return step


_Places = Annotated[Count, Field(le=10_000)]
_Endpoint = Annotated[Endpoint, PlainValidator(_endpoint)]
_Networks = Annotated[tuple[Annotated[Network, PlainValidator(_network)], ...], BeforeValidator(listed)]


# ---------------------------------------------------------------------------------------------------------------- parts


class Part(BaseModel):
    """A mapping of the file, whose keys are these and no others.

    A field's description is the remedy where it is missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Store(Part):
    """The text under ``store``, by its key."""

    store: Annotated[Text, AfterValidator(_store)] = "sqlite:///decorum.db"


class Broker(Part):
    """``broker``, which may be its URL alone."""

    url: Annotated[Text, AfterValidator(_broker)]
    topology: Literal["declare", "passive"] = "declare"
    prefetch: Annotated[Count, Field(le=65535)] = 500


class Http(Part):
    """``http``."""

    private: _Endpoint = Endpoint("127.0.0.1", 8080)
    public: _Endpoint | None = None
    public_url: Annotated[Text, AfterValidator(_public_url)] | None = None
    proxies: _Networks = ()
    machines: _Networks = ()


class Pages(Part):
    """``pages``."""

    name: Wording = Field(default_factory=dict)


class Key(Part):
    """One of ``keys``."""

    name: Source
    sha256: Annotated[Text, AfterValidator(_sha256)]
    scopes: Some[Literal["send", "read", "admin", "events", "priority", "bounces"]]


class Route(Part):
    """What stands under a channel of ``routes``, by a key of ours."""

    to: Annotated[tuple[Text, ...], BeforeValidator(listed), AfterValidator(_no_repeats), Field(min_length=1)] = ()


class Weights(Part):
    """The same where it is a mapping."""

    to: Annotated[
        dict[Text, Annotated[int, Field(strict=True, ge=0, le=1000)]], AfterValidator(_some_weight), Field(min_length=1)
    ] = {}


class Events(Part):
    """``events``."""

    exchange: Annotated[str, StringConstraints(strict=True), AfterValidator(_exchange)] = "decorum.events"
    states: Some[MessageState] = tuple(
        state for state in MessageState if state not in (MessageState.WAITING, MessageState.SENDING)
    )
    acts: Some[Act] = tuple(Act)


class Webhook(Part):
    """One of ``webhooks``."""

    private: Flag = False  # stands before the URL, on which it bears
    name: Word
    url: Annotated[Text, AfterValidator(_webhook_url)]
    secrets: Annotated[
        tuple[Annotated[bytes, PlainValidator(_key)], ...],
        BeforeValidator(listed),
        AfterValidator(_no_key_twice),
        Field(min_length=1),
    ]
    events: Some[Annotated[Text, AfterValidator(pattern)]]
    timeout: Annotated[Length, AfterValidator(_at_most_a_minute)] = timedelta(seconds=15)
    concurrency: Annotated[Count, Field(le=1000)] = 20


class Retention(Part):
    """``retention``."""

    messages: Annotated[Length, AfterValidator(_a_month)] = timedelta(days=90)
    contacts: Length = timedelta(days=400)


class InFlight(Part):
    """``worker.in_flight``."""

    critical: _Places = 256
    high: _Places = 256
    normal: _Places = 256
    bulk: _Places = 256


class Worker(Part):
    """``worker``."""

    in_flight: InFlight = InFlight()
    attempt: Annotated[Length, AfterValidator(_brief)] = timedelta(seconds=10)


class Target(Part):
    """One of ``report.targets``."""

    step: Annotated[Step, AfterValidator(_later)] = Field(
        description="add how far messages are to come, such as step: clicked"
    )
    stage: Name | None = None
    of: Step = Step.SENT
    of_stage: Name | None = None
    at_least: Share = Field(description="add the share that is to come so far, such as at_least: 20%")
    category: Text | None = None
    campaign: Name | None = None
    channel: Channel | None = None

    def target(self) -> values.Target:
        """Its meaning."""
        return values.Target(**dict(self))
