"""How rows become the vocabulary, and back."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from gateway.message import (
    EPOCH,
    NO_LABELS,
    Attempt,
    AttemptState,
    Message,
    OptOut,
    Priority,
    Profile,
    instant,
    microseconds,
)
from providers import Channel
from ratelimit import Contact, zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MESSAGE = (
    "id, source, request, person, category, channels, priority, campaign, accepted_at, starts_at, expires_at, body"
)
ATTEMPT = (
    "id, message, number, channel, provider, address, state, begun_at, deadline, ended_at, reference, error, policy,"
    " generation, repeats, tracked"
)
CONTACT = "person, message, channel, category, campaign, zone, begun_at, ended_at, labels"


@functools.cache
def _channels(text: str) -> tuple[Channel, ...]:
    return tuple(Channel(word) for word in text.split())


def message(row: Sequence[Any]) -> Message:
    """Of the columns ``MESSAGE``."""
    return Message(
        id=row[0],
        source=row[1],
        request=row[2],
        person=row[3],
        category=row[4],
        channels=_channels(row[5]),
        priority=Priority(row[6]),
        campaign=row[7],
        accepted_at=instant(row[8]),
        starts_at=instant(row[9]),
        expires_at=instant(row[10]),
        body=orjson.loads(row[11]),
    )


def message_row(message: Message) -> tuple[Any, ...]:
    """In the order of ``MESSAGE``."""
    return (
        message.id,
        message.source,
        message.request,
        message.person,
        message.category,
        " ".join(message.channels),
        int(message.priority),
        message.campaign,
        microseconds(message.accepted_at),
        microseconds(message.starts_at),
        microseconds(message.expires_at),
        orjson.dumps(message.body).decode(),
    )


def attempt(row: Sequence[Any]) -> Attempt:
    """Of the columns ``ATTEMPT``."""
    return Attempt(
        id=row[0],
        message=row[1],
        number=row[2],
        channel=Channel(row[3]),
        provider=row[4],
        address=row[5],
        state=AttemptState(row[6]),
        begun_at=instant(row[7]),
        deadline=instant(row[8]),
        ended_at=maybe(row[9]),
        reference=row[10],
        error=row[11],
        policy=row[12],
        generation=row[13],
        repeats=row[14],
        tracked=bool(row[15]),
    )


def contact(row: Sequence[Any]) -> Contact:
    """Of the columns ``CONTACT``."""
    _, message, channel, category, campaign, zone_name, begun_at, ended_at, labels = row
    return Contact(
        EPOCH + timedelta(0, 0, begun_at),
        EPOCH + timedelta(0, 0, ended_at),
        channel,
        category,
        campaign,
        zone(zone_name),
        message,
        orjson.loads(labels) if labels else NO_LABELS,
    )


def optout(said: Sequence[str | None]) -> OptOut:
    """Of channel, category and topic; empty is all."""
    channel, category, topic = said
    return OptOut(channel=Channel(channel) if channel else None, category=category or None, topic=topic or None)


@functools.lru_cache(maxsize=4096)
def profile(text: str) -> Profile:
    """As it was stored. What this version would no longer take, such as a zone that is no more, counts as not told."""
    try:
        return Profile.model_validate_json(text)
    except ValidationError as error:
        wrong = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        told = orjson.loads(text)
        return Profile.model_validate({field: value for field, value in told.items() if field not in wrong})


def maybe(us: int | None) -> datetime | None:
    """An instant that may be missing."""
    return None if us is None else instant(us)
