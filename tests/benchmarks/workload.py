"""The work that every contender is given: requests as a real service sends them, and the gateway's configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1017
"""Bytes of a request, as in all measurements of PERFORMANCE.md."""
PER_PERSON = 2
"""So that the second message of each meets a ledger that is not empty, and a cap that still permits it."""
PREFETCH = 200
"""Of everything that is compared with the gateway."""

_SENTENCE = "Your July offer is ready: the first month is free if you activate your card in the app by Sunday. "
_ZONES = ("Asia/Tokyo", "Asia/Kolkata", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Pacific/Auckland")


def zone() -> str:
    """One where it is the middle of the day, so that quiet hours are asked and permit."""
    now = datetime.now(UTC)
    return min(_ZONES, key=lambda name: abs(now.astimezone(ZoneInfo(name)).hour - 14))


def requests(count: int, run: str, source: str | None = "campaigns") -> Iterator[bytes]:
    """So many, of half as many persons; a person's two are as far apart as can be.

    Args:
        count: how many.
        run: part of each id.
        source: None over HTTP, where the key says it.
    """
    persons = -(-count // PER_PERSON)
    here = zone()
    for number in range(count):
        person = number % persons
        yield request(f"{run}-{number:08d}", person, here, source)


def request(name: str, person: int, timezone: str, source: str | None) -> bytes:
    """One, of exactly ``SIZE`` bytes."""
    fields: dict[str, Any] = {
        "id": name,
        **({"source": source} if source else {}),
        "user": f"user-{person:08d}",
        "category": "reactivation",
        "channels": ["sms"],
        "to": {"phone": f"+4915{person % 1_000_000_000:09d}", "email": f"user{person:08d}@example.com"},
        "content": {"sms": {"text": ""}},
        "timezone": timezone,
        "locale": "de-DE",
        "campaign": "summer-2026",
        "stage": "granted",
        "variant": "b",
        "labels": {"cohort": "2026-06", "product": "card", "team": "growth", "region": "emea", "experiment": "x-1138"},
    }
    room = SIZE - len(orjson.dumps(fields))
    fields["content"]["sms"]["text"] = (_SENTENCE * 10)[:room]
    return orjson.dumps(fields)


def configuration(
    *, store: str, broker: str, vendor: str, port: int, in_flight: int = 1000, concurrency: int = 2000
) -> dict[str, Any]:
    """The gateway's: four rules that are asked for every message, and do not refuse."""
    return {
        "store": store,
        "broker": {"url": broker},
        "http": {"private": f"127.0.0.1:{port}"},
        "providers": {
            "vendor": {
                "kind": "http",
                "channels": ["sms"],
                "url": vendor,
                "headers": {"Authorization": "Bearer 7f3c2a9e51d84b06"},
                "body": {"to": "{address}", "text": "{text}", "client_reference": "{attempt}"},
                "reply": {"reference": "id"},
                "concurrency": concurrency,
            }
        },
        "routes": {"sms": ["vendor"]},
        "events": {"states": ["sent"]},
        "worker": {"in_flight": {"normal": in_flight}},
        "policy": {
            "timezone": "UTC",
            "categories": {"reactivation": {"priority": "normal", "channels": ["sms"], "expires_after": "14d"}},
            "caps": [
                {"name": "daily", "limit": 5, "per": "24h"},
                {"name": "sms-week", "limit": 10, "per": "week", "channel": "sms"},
                {"name": "campaign-month", "limit": 6, "per": "30d", "scope": ["user", "campaign"]},
            ],
            "quiet_hours": [{"name": "night", "from": "21:00", "to": "08:00"}],
        },
    }
