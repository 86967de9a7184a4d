"""What a batch has decided, written together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, assert_never

import orjson

from gateway.abuse import fingerprint
from gateway.decide import Attempting, Behind, Deferred, Ended
from gateway.ids import new_id
from gateway.lines import line_apart
from gateway.message import LISTENED, Attempt, AttemptState, MessageState, content_of, microseconds, rfc3339
from gateway.outcome import lost_a_channel
from gateway.render import code, targets, trackable, tracking_url
from gateway.rulings import why_json
from gateway.store.engine import Operation, Run
from gateway.store.leases import Claimed
from gateway.store.line import LAST, WAKE, YIELD, move_up
from gateway.store.schema import BEHIND, PLACE, RULED
from gateway.unknown import FIRST_LOOK, unsure
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gateway.acts import Noted
    from gateway.decide import Facts, Judge, Step
    from gateway.message import Message
    from gateway.outcome import Outcome
    from gateway.store.leases import Lease, Next
    from gateway.store.line import Place

_ANSWER_GRACE = timedelta(seconds=10)
"""How much longer than the attempt its lease lives, so that a late outcome is still its own."""
SUPPRESS = (
    "insert into suppressions (address, channel, reason, suppressed_at) values ($1, $2, $3, $4) on conflict do nothing"
)
PUBLISH = "insert into outbox (event, routing_key, body) values ($1, $2, $3)"
"""Takes what ``event_row`` makes."""
CONTACT = (
    "insert into contacts (attempt, person, message, channel, category, campaign, zone, begun_at, ended_at,"
    " labels, address, counts) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
)
"""Takes what ``contact_rows`` makes."""
KEEPS_ITS_PLACE = (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
"""Attempts that may have reached the person."""
_NO_TIME = ("busy", "pace")
"""What a message waits for from one moment to the next: that it still does is not told again."""
UNKNOWN = (
    "insert into unknowns (message, attempt, provider, since, look_at, closes_at) values ($1, $2, $3, $4, $5, $6)"
    " on conflict do nothing"
)
GIVE_BACK = (
    "delete from contacts where attempt = $1 and not exists (select 1 from attempts a"
    " where a.message = contacts.message and (a.id = $1 or a.repeats = $1)"
    " and a.state in ('intent', 'unknown', 'accepted', 'delivered'))"
)
"""Of an attempt that did not reach the person, unless it did, or one that shares its place may."""


class Writes:
    """What a batch has decided, written together at its end."""

    def __init__(self, now: datetime, judge: Judge) -> None:
        self.now = now
        self.us = microseconds(now)
        self._judge = judge
        self._attempts: list[tuple[Any, ...]] = []
        self._links: list[tuple[Any, ...]] = []
        self._contacts: list[tuple[Any, ...]] = []
        self._outcomes: list[tuple[Any, ...]] = []
        self._kept: list[tuple[Any, ...]] = []
        self._given_back: list[tuple[Any, ...]] = []
        self._extended: list[tuple[Any, ...]] = []
        self._unknown: list[tuple[Any, ...]] = []
        self._learnt: list[tuple[Any, ...]] = []
        self._solved: list[tuple[Any, ...]] = []
        self._cleared: list[tuple[Any, ...]] = []
        self._woken: list[tuple[Any, ...]] = []
        self._suppressions: list[tuple[Any, ...]] = []
        self._unreached: set[str] = set()
        self._repeated: list[tuple[Any, ...]] = []
        self._started: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[Any, ...]] = []
        self._set_apart: list[tuple[Any, ...]] = []
        self._settled: list[tuple[Any, ...]] = []
        self._decisions: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._moved: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._freed: set[str] = set()

    def outcome(self, message: Message, attempt: Attempt, outcome: Outcome) -> None:
        """What became of an attempt of a message, and of its place."""
        self._outcomes.append((attempt.id, outcome.state, self.us, outcome.reference, outcome.error))
        # Or its contact ends sooner than at the deadline, which others were told to wait for.
        self._freed.add(message.person)
        place = attempt.repeats or attempt.id
        if outcome.state in KEEPS_ITS_PLACE or attempt.repeats:
            self._kept.append((place, self.us))
        if outcome.state not in KEEPS_ITS_PLACE:
            self._given_back.append((place,))
        if outcome.state is AttemptState.ACCEPTED and attempt.repeats:
            self._repeated.append((attempt.id,))
        if outcome.state is AttemptState.UNKNOWN:
            look_at = microseconds(self.now + FIRST_LOOK)
            closes_at = microseconds(message.expires_at + LISTENED)
            self._unknown.append((message.id, attempt.id, attempt.provider, self.us, look_at, closes_at))
        elif outcome.state is AttemptState.ACCEPTED and attempt.number > 1:
            self.accepted(attempt, outcome)

    def accepted(self, attempt: Attempt, outcome: Outcome) -> None:
        """The vendor has a message some attempt of which was in doubt; those that it takes for this one it has too."""
        self._learnt.append((attempt.message, attempt.repeats or attempt.id, self.us, outcome.reference))
        self._solved.append((attempt.message,))

    def late(self, attempt: Attempt) -> None:
        """What became of an attempt is known, though it had been given up."""
        self._cleared.append((attempt.message, attempt.id))
        self._woken.append((attempt.message, self.us))

    def suppress(self, message: Message, channel: Channel, address: str, reason: str) -> None:
        """An address must not be used any more; what else waits to go there may go elsewhere."""
        self._suppressions.append((fingerprint(address), channel, reason, self.us))
        self._unreached.add(message.person)

    def behind(self, message: Message, behind: Behind) -> Behind:
        """A message lets another go first."""
        until = self.us + YIELD
        if behind.same_line:  # woken when that one settles; by itself before it expires, each time after half the rest
            end = microseconds(message.expires_at)
            until = end - LAST if self.us < end - LAST else min(end, self.us + max((end - self.us) // 2, YIELD))
        self._waiting.append((message.id, until, BEHIND if behind.same_line else 0, 0, 0, self._judge.number))
        return behind

    def step(self, lease: Lease, place: Place, facts: Facts, step: Step, attempt: str, tried: frozenset[str]) -> Next:
        """What was decided of a message; ``attempt`` is the id of the one that may come of it."""
        match step:
            case Attempting():
                return self._attempting(lease, facts, step, attempt, tried)
            case Deferred():
                return self._deferred(lease.message, place, facts, step)
            case Ended():
                return self.ended(lease.message, place.line, step, facts.attempts[-1] if facts.attempts else None)
            case _:
                assert_never(step)

    def _attempting(
        self, lease: Lease, facts: Facts, step: Attempting, attempt_id: str, tried: frozenset[str]
    ) -> Claimed:
        message, judge = lease.message, self._judge
        attempt = Attempt(
            id=attempt_id,
            message=message.id,
            number=len(facts.attempts) + 1,
            channel=step.address.channel,
            provider=step.provider,
            address=fingerprint(step.address.value),
            state=AttemptState.INTENT,
            begun_at=self.now,
            deadline=step.deadline,
            policy=judge.number,
            generation=step.generation,
            repeats=step.repeats,
            tracked=self._tracked(message, facts, step, attempt_id),
        )
        deadline = microseconds(step.deadline)
        self._attempts.append(
            (
                attempt.id,
                attempt.message,
                attempt.number,
                message.person,
                attempt.channel,
                attempt.provider,
                attempt.address,
                attempt.state,
                self.us,
                deadline,
                attempt.policy,
                attempt.generation,
                attempt.repeats,
                int(attempt.tracked),
            )
        )
        if attempt.repeats:
            self._extended.append((attempt.repeats, deadline))
        else:
            self._contacts += contact_rows(attempt, message, step.zone, judge)
        if step.passed:
            self._record(message, MessageState.SENDING, "next_channel", None, step.passed)
        if step.shadow:
            self._record(message, MessageState.SENDING, "shadow", None, step.shadow)
        until = step.deadline + judge.patience[step.provider] + _ANSWER_GRACE
        self._started.append((message.id, microseconds(until), attempt.number))
        return Claimed(lease, attempt, step, tried)

    def _tracked(self, message: Message, facts: Facts, step: Attempting, attempt: str) -> bool:
        """Whether an attempt is sent with links of ours; the short ones, which say nothing of it, are written down."""
        if step.repeats:
            return any(first.tracked for first in facts.attempts if first.id == step.repeats)
        if (public := tracking_url(self._judge, message)) is None:
            return False
        content = content_of(message, step.address.channel)
        if not trackable(content, public):
            return False
        if step.address.channel is Channel.SMS:
            links = range(1, len(targets(content)) + 1)
            self._links += [(code(attempt, link), attempt, link) for link in links]
        return True

    def _deferred(self, message: Message, place: Place, facts: Facts, step: Deferred) -> Deferred:
        until = microseconds(step.until)
        when = "" if step.rule in _NO_TIME else until
        said = int.from_bytes(blake2b(f"{step.rule} {when}".encode(), digest_size=8).digest(), signed=True)
        held = PLACE if step.place else RULED if step.by_rules else 0
        self._waiting.append((message.id, until, held, int(step.burns), said, self._judge.number))
        if (lost_a_channel(facts.attempts) or unsure(facts.attempts)) and place.line not in (0, line_apart(message)):
            self._set_apart.append((message.id, line_apart(message)))
            self._moved[message.person, place.line] = (message.person, place.line, self.us)
        if said == place.said:
            return replace(step, repeated=True)
        self._record(message, MessageState.WAITING, step.rule, until, step.why)
        self._event(
            message,
            MessageState.WAITING,
            step.rule,
            None,
            {"until": rfc3339(step.until)} | ({"will_expire": True} if step.will_expire else {}),
        )
        return step

    def ended(self, message: Message, line: int, step: Ended, attempt: Attempt | None) -> Ended:
        """A message settles, and whoever waits behind it moves up."""
        self._settled.append((message.id,))
        if line:
            self._moved[message.person, line] = (message.person, line, self.us)
        if step.state is not MessageState.SENT:
            self._record(message, step.state, step.reason, None, step.why)
        self._event(message, step.state, step.reason, attempt, {})
        return step

    def _record(
        self, message: Message, state: MessageState, reason: str, until: int | None, why: Sequence[Any]
    ) -> None:
        self._decisions.append(
            (message.id, self.us, state, reason, until, self._judge.number, orjson.dumps(why_json(why)).decode())
        )

    def _event(
        self, message: Message, state: MessageState, reason: str, attempt: Attempt | None, more: dict[str, Any]
    ) -> None:
        if state in self._judge.events:
            self._events.append(event_row(message, state, reason, attempt, self.now, more))

    def run(self) -> Operation[None]:
        """Write it all. Due rows go last: they are what wakes others."""
        yield Run(
            "insert into attempts (id, message, number, person, channel, provider, address, state, begun_at, deadline,"
            " policy, generation, repeats, tracked)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            self._attempts,
        )
        yield Run("insert into links (code, attempt, link) values ($1, $2, $3)", self._links)
        yield Run(CONTACT, self._contacts)
        yield Run("update contacts set ended_at = $2 where attempt = $1 and ended_at < $2", self._extended)
        yield Run(
            "update attempts set state = $2, ended_at = $3, reference = $4, error = $5"
            " where id = $1 and state in ('intent', 'unknown')",
            self._outcomes,
        )
        yield Run("update contacts set ended_at = $2 where attempt = $1", self._kept)
        yield Run(
            "update attempts set state = 'accepted', ended_at = $3, reference = $4, error = null"
            " where message = $1 and (id = $2 or repeats = $2) and state = 'unknown'",
            self._learnt,
        )
        yield Run(
            "update attempts set state = 'undelivered' where id = $1 and state = 'accepted'"
            " and exists (select 1 from attempts f where f.id = attempts.repeats and f.state = 'undelivered')",
            self._repeated,
        )
        yield Run(GIVE_BACK, self._given_back)
        yield Run(UNKNOWN, self._unknown)
        yield Run("delete from unknowns where message = $1", self._solved)
        yield Run("delete from unknowns where message = $1 and attempt = $2", self._cleared)
        yield Run(SUPPRESS, sorted(self._suppressions))  # two persons may share two addresses
        yield Run(
            "insert into decisions (message, decided_at, state, reason, until, policy, why)"
            " values ($1, $2, $3, $4, $5, $6, $7)",
            self._decisions,
        )
        yield Run(PUBLISH, self._events)
        yield Run("update due set lease_until = $2, attempts = $3 where message = $1", self._started)
        yield Run(WAKE, [(person, self.us) for person in sorted(self._unreached)])
        yield Run(
            "update due set due_at = $2, held = $3, tries = tries + $4, said = $5, policy = $6, lease_until = 0"
            " where message = $1",
            self._waiting,
        )
        yield Run("update due set line = $2 where message = $1", self._set_apart)
        yield Run(
            f"update due set due_at = $2 where message = $1 and due_at > $2 and lease_until <= $2 and held <> {BEHIND}",
            self._woken,
        )
        yield Run("delete from due where message = $1", self._settled)
        yield from move_up(self._moved.values(), self._freed, self.us)


def contact_rows(attempt: Attempt, message: Message, zone: str, judge: Judge) -> list[tuple[Any, ...]]:
    """What the ledger keeps of an attempt, which is nothing where no cap and no address counts it."""
    counts, limited = judge.counts(message), judge.limits_addresses(message)
    if not counts and not limited:
        return []
    return [
        (
            attempt.id,
            message.person,
            message.id,
            attempt.channel,
            message.category,
            message.campaign,
            zone,
            microseconds(attempt.begun_at),
            microseconds(attempt.ended_at or attempt.deadline),
            orjson.dumps(dict(message.labels)).decode() if message.labels else None,
            attempt.address if limited else None,
            int(counts),
        )
    ]


def event_row(
    message: Message,
    state: MessageState,
    reason: str,
    attempt: Attempt | None,
    at: datetime,
    more: dict[str, Any],
) -> tuple[str, str, str]:
    """An event as the outbox keeps it: its id, its routing key, and JSON without its sequence number."""
    event = {"event": new_id(), "state": state, "reason": reason, "at": rfc3339(at), **_about(message)}
    if attempt:
        event |= {"attempt": attempt.id, "channel": attempt.channel, "provider": attempt.provider}
    return event["event"], f"message.{state}", orjson.dumps(event | more).decode()


def act_event(noted: Noted, message: Message | None, at: datetime) -> tuple[str, str, str]:
    """The same of an act: ``message.<act>`` where it belongs to a message that is remembered, else ``person.<act>``."""
    deed, owed = noted.deed, noted.owed
    event: dict[str, Any] = {
        "event": new_id(),
        "act": deed.act,
        "agent": deed.agent,
        "via": deed.via,
        "at": rfc3339(at),
    }
    event |= _about(message) if message else {"user": owed.person}
    more = {
        "attempt": owed.attempt,
        "channel": owed.channel,
        "reached": deed.stage,
        "link": deed.link,
        "opted_out": deed.no,
    }
    event |= {field: value for field, value in more.items() if value is not None}
    return event["event"], f"{'message' if message else 'person'}.{deed.act}", orjson.dumps(event).decode()


def _about(message: Message) -> dict[str, Any]:
    """Which message an event is about, without addresses and content."""
    about = {
        "message": message.id,
        "id": message.request,
        "source": message.source,
        "user": message.person,
        "category": message.category,
    }
    return about | {
        field: value for field in ("campaign", "stage", "variant", "labels") if (value := message.body.get(field))
    }
