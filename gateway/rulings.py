"""What did the rules say? Rulings as JSON, as they are stored with a decision and shown.

Pure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gateway.message import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ratelimit import Contact, Ruling


def why_json(rulings: Sequence[Ruling]) -> list[dict[str, Any]]:
    """Rulings as they are stored and shown."""
    return [
        {
            "rule": ruling.rule,
            "permits": ruling.permits,
            "next": None if ruling.next is None else (rfc3339 if ruling.permits else not_before)(ruling.next),
            "why": ruling.why,
            **({} if ruling.enforced else {"enforced": False}),
            **({"held_by": [_holder(contact) for contact in ruling.held_by]} if ruling.held_by else {}),
        }
        for ruling in rulings
    ]


def _holder(contact: Contact) -> dict[str, Any]:
    return {
        "message": contact.message,
        "channel": contact.channel,
        "category": contact.category,
        "campaign": contact.campaign,
        "at": rfc3339(contact.begun),
    }


def not_before(at: datetime) -> str:
    """An instant, rounded up where it has more digits: whoever asks about what is told is not too early."""
    return rfc3339(at + timedelta(microseconds=999))
