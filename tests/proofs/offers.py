"""Messages by the thousand, and a judge to decide them: what the proofs about large numbers start from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config import parse
from gateway.decide import Judge
from gateway.ids import new_id
from gateway.lines import line_of
from gateway.message import Message, MessageState, Priority, canonical_hash
from gateway.store import NewMessage
from providers import Channel

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.store import Store

TERM = timedelta(seconds=30)
EVERYTHING = [(priority, channel) for priority in Priority for channel in Channel]
PAGE = 256
"""Messages decided in one transaction, at most."""
_PATIENCE = timedelta(seconds=10)


def judge(policy: str) -> Judge:
    """That decides by what stands under ``policy`` in a configuration, which provider ``one`` carries out."""
    config = parse(
        "http: {private: 127.0.0.1:0}\nproviders: {one: {kind: inbox}}\nroutes: {sms: [one], email: [one]}\n" + policy,
        {},
        base=Path(),
    )
    return Judge(config.policy, 1, config.routes, {"one": _PATIENCE}, _PATIENCE, frozenset[MessageState]())


def offer(judge: Judge, person: str, category: str, now: datetime, **fields: Any) -> NewMessage:
    """A request, as intake hands it to the store; ``fields`` of the message."""
    settings = judge.policy.categories[category]
    given = {
        "id": new_id(),
        "source": "proofs",
        "request": new_id(),
        "person": person,
        "category": category,
        "channels": (Channel.SMS,),
        "priority": settings.priority,
        "accepted_at": now,
        "starts_at": now,
        "expires_at": now + settings.expires_after,
        "campaign": None,
        "body": {
            "to": {"phone": "+447400123456", "email": "ann@example.com"},
            "content": {"sms": {"text": "hello"}, "email": {"subject": "s", "text": "t"}},
        },
    }
    message = Message(**(given | fields))
    line = line_of(message, settings, judge.policy.labels)
    return NewMessage(message, canonical_hash(message.body), line, judge.number)


async def accept(store: Store, new: list[NewMessage]) -> None:
    """Commit requests, some at a time."""
    for first in range(0, len(new), 1000):
        assert set(await store.accept(new[first : first + 1000])) == {None}
