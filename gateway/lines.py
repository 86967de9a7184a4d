"""Which of a person's lines does a message wait in, and which part of all persons is the person's?

Pure. Who of a line goes first is for the store to say.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.message import TOPIC

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config import Category
    from gateway.message import Message


def line_of(message: Message, category: Category, labels: Collection[str]) -> int:
    """Which of a person's lines a message waits in; 0 where no rule binds it, so that it waits behind nothing.

    Rules and opt-outs say the same of all that wait in one line, except by their priority: whoever may not go holds up
    nobody who may. Of those that are to collapse only one is left to wait. ``labels``: those that some rule looks at.
    """
    if category.caps_exempt and category.quiet_hours_exempt:
        return 0
    if category.collapse:
        return _line("collapse", message.category, message.campaign or "")
    to = message.body.get("to") or {}
    looked_at = (
        ("timezone", message.timezone),
        *((kind, to[kind] if isinstance(to[kind], str) else repr(to[kind])) for kind in sorted(to) if to[kind]),
        *((f"labels.{label}", message.labels.get(label)) for label in sorted({TOPIC, *labels})),
    )
    return _line(
        message.category,
        " ".join(message.channels),
        message.campaign or "",
        *(f"{part}\x1e{value}" for part, value in looked_at if value),
    )


def line_apart(message: Message) -> int:
    """The line of a message that may not go the ways that others of its line may."""
    return _line("apart", message.id)


def _line(*key: str) -> int:
    return int.from_bytes(hashlib.blake2b("\x1f".join(key).encode(), digest_size=8).digest(), signed=True) or 1


def bucket_of(person: str) -> int:
    """The part of 1024 that a person belongs to."""
    return int.from_bytes(hashlib.blake2b(person.encode(), digest_size=2).digest()) % 1024
