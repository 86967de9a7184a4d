"""The form of each section of the file: what may be written there, and what it means where it is left out."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, StringConstraints

from gateway.config.values import Endpoint
from gateway.config.words import Count, Length, Some, Text, listed
from gateway.message import MessageState, Source
from providers import Act


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
        raise ValueError("must be https://host, with a path at most")
    return url.rstrip("/")


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


def _no_repeats(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) < len(words):
        raise ValueError("names a provider twice: remove the second")
    return words


def _some_weight(weights: dict[str, int]) -> dict[str, int]:
    if weights and not any(weights.values()):
        raise ValueError("must give some provider a weight above 0")
    return weights


_Places = Annotated[Count, Field(le=10_000)]
_Endpoint = Annotated[Endpoint, PlainValidator(_endpoint)]


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


class Key(Part):
    """One of ``keys``."""

    name: Source
    sha256: Annotated[Text, AfterValidator(_sha256)]
    scopes: Some[Literal["send", "read", "admin", "events", "priority"]]


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
