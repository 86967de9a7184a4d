"""A store, a clock that stands until it is moved, and the shortest way to do things: what the store's suite shares."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.config import parse
from gateway.decide import Ended, Judge
from gateway.ids import new_id
from gateway.lines import line_of
from gateway.message import Message, MessageState, Priority, canonical_hash, microseconds
from gateway.outcome import Outcome, accepted
from gateway.store import Claimed, NewMessage, Settlement, Store, engine_of
from providers import Channel, Receipt, ReceiptStatus
from tests.simulation.store import MEMORY, simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.message import AttemptState
    from gateway.store import Lease, MessageView, Next, PersonView
    from gateway.store.engine import Engine
    from ratelimit import Contact

CONFIG = """
http: {private: 127.0.0.1:0}
providers: {one: {kind: inbox}, two: {kind: inbox}}
routes: {sms: [one, two], email: [one], push: [one], robocall: [one]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    receipt: {priority: high, quiet_hours: exempt, on_unknown: repeat}
    campaign: {priority: bulk, expires_after: 14d}
    newsletter: {priority: bulk, expires_after: 14d}
    digest: {priority: bulk, expires_after: 14d, collapse: newest}
    nudge: {priority: bulk, expires_after: 14d, when_capped: drop}
    either: {priority: bulk, expires_after: 14d, when_capped: next_channel}
  caps:
    - {name: daily, limit: 2, per: 24h}
  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]
"""
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NIGHT = datetime(2026, 11, 22, 23, tzinfo=UTC)
MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)
"""When the night of ``CONFIG`` is over."""
TERM = timedelta(seconds=30)
PHONE = "+447400123456"
ACCEPTED = accepted("ref")


class World:
    """One worker's view; several of one database are several workers, whose clocks are moved together."""

    def __init__(self, url: str, rules: str | None = None) -> None:
        """``rules``: see ``ruled``."""
        self.now = NOON
        self.url = url
        self.engine = _engine(url, lambda: microseconds(self.now))
        self.store = Store(self.engine)
        config = parse(CONFIG, {}, base=Path())
        self.judge = Judge(
            policy=config.policy,
            number=1,
            routes=config.routes,
            patience={"one": timedelta(seconds=10), "two": timedelta(seconds=10)},
            span=timedelta(seconds=10),
            events=frozenset(MessageState),
        )
        if rules:
            self.ruled(rules)

    def another(self) -> World:
        """Another worker at the same database, by this one's clock."""
        other = copy(self)
        other.store = Store(self.engine)
        return other

    def pass_time(self, **by: float) -> None:
        self.now += timedelta(**by)

    def ruled(self, rules: str) -> None:
        """Put another policy in force: what is given stands in for the caps and quiet hours of ``CONFIG``."""
        head, _, _ = CONFIG.partition("  caps:")
        self.judge = replace(self.judge, policy=parse(head + rules, {}, base=Path()).policy)

    async def swept(self, number: int) -> int:
        """Give the policy a number, and let those that wait by another be decided anew; how many were woken."""
        self.judge = replace(self.judge, number=number)
        at: str | None = ""
        woken = 0
        while at is not None:
            at, some = await self.store.sweep(self.judge, at, 3)
            woken += some
        return woken

    def without(self, category: str) -> None:
        """Put a policy in force that has lost a category."""
        categories = {name: c for name, c in self.judge.policy.categories.items() if name != category}
        self.judge = replace(self.judge, policy=replace(self.judge.policy, categories=categories))

    def changed(self, category: str, **fields: Any) -> None:
        """Put a policy in force in which a category differs."""
        categories = dict(self.judge.policy.categories)
        categories[category] = replace(categories[category], **fields)
        self.judge = replace(self.judge, policy=replace(self.judge.policy, categories=categories))

    def new(self, person: str = "ann", category: str = "campaign", **fields: object) -> NewMessage:
        settings = self.judge.policy.categories[category]
        to = fields.pop("to", {"phone": PHONE, "email": "ann@example.com"})
        body = {
            "to": to,
            "content": {"sms": {"text": "hello"}, "email": {"subject": "s", "text": "t"}},
            "labels": fields.pop("labels", {}),
            "timezone": fields.pop("timezone", None),
        }
        message = Message(
            id=new_id(),
            source="tests",
            request=new_id(),
            person=person,
            category=category,
            channels=(Channel.SMS, Channel.EMAIL),
            priority=settings.priority,
            accepted_at=self.now,
            starts_at=self.now,
            expires_at=self.now + settings.expires_after,
            campaign=None,
            body=body,
        )
        message = replace(message, **fields)  # type: ignore[arg-type]
        line = line_of(message, settings, self.judge.policy.labels)
        return NewMessage(message, canonical_hash(message.body), line, self.judge.number)

    async def accept(self, *new: NewMessage) -> None:
        assert await self.store.accept(new) == [None] * len(new)

    async def lease(self, room: int = 100) -> list[Lease]:
        pairs = [(priority, channel, room) for priority in Priority for channel in Channel]
        leases, _ = await self.store.lease(pairs, TERM)
        return leases

    async def claim(self, *leases: Lease) -> list[Next]:
        return await self.store.claim(leases, self.judge, [new_id() for _ in leases])

    async def due(self) -> list[Next]:
        """Lease and claim everything that is due."""
        return await self.claim(*await self.lease())

    async def settle(self, claimed: Next, outcome: Outcome) -> Next:
        assert isinstance(claimed, Claimed)
        (answer,) = await self.store.settle([Settlement(claimed, outcome)], self.judge)
        return answer

    async def claimed(self, *new: NewMessage) -> Claimed:
        """Accept these; the one of them that may go now is claimed."""
        await self.accept(*new)
        (only,) = [step for step in await self.due() if isinstance(step, Claimed)]
        return only

    async def sent(self, *new: NewMessage) -> None:
        """Accept these and send the one that may go now."""
        await self.settle(await self.claimed(*new), ACCEPTED)

    async def state(self, new: NewMessage) -> MessageState:
        return (await self.store.states([new.message.id]))[new.message.id]

    async def states(self, *new: NewMessage) -> list[MessageState]:
        found = await self.store.states([one.message.id for one in new])
        return [found[one.message.id] for one in new]

    async def view(self, new: NewMessage) -> MessageView:
        view = await self.store.view(new.message.id)
        assert view is not None
        return view

    async def person(self, name: str = "ann") -> PersonView:
        view = await self.store.person(name)
        assert view is not None
        return view

    async def contacts(self, name: str = "ann") -> Sequence[Contact]:
        """Those of a person that count."""
        return (await self.person(name)).contacts

    async def events(self) -> list[tuple[str, str, str]]:
        """Message, state and reason of what has been announced, oldest first."""
        told = [orjson.loads(body) for *_, body in await self.store.unpublished(1000)]
        return [(event["message"], event["state"], event["reason"]) for event in told]

    async def day(self, until: datetime) -> list[str]:
        """Decide what is due, second by second where something waits a moment; every attempt is accepted.

        Returns the messages that were sent, in order.
        """
        sent = []
        while self.now < until:
            steps = await self.due()
            for step in steps:
                if isinstance(step, Claimed):
                    assert isinstance(await self.settle(step, ACCEPTED), Ended)
                    sent.append(step.lease.message.id)
            self.pass_time(seconds=1) if steps else self.pass_time(minutes=10)
        return sent


def _engine(url: str, clock: Callable[[], int]) -> Engine:
    return simulated(url, clock) if url.startswith(MEMORY) else engine_of(url, clock, server_clock=False)


def outcome(state: AttemptState) -> Outcome:
    """Of an attempt that failed like that."""
    return Outcome(state, error="unavailable:refused")


def receipt(claimed: Next, status: ReceiptStatus) -> Receipt:
    """A vendor's news of an attempt."""
    assert isinstance(claimed, Claimed)
    return Receipt(claimed.attempt.id, status, "SM1", status)
