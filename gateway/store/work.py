"""Transactions of the worker: lease what is due, commit the intent, record the outcome.

Each locks the rows of the persons it is about, in their order, before it reads what it decides by; so one person's
decisions are made one after another, whoever makes them, and two batches never wait for each other in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, assert_never

import orjson

from gateway.decide import (
    BUG,
    Attempting,
    Behind,
    Deferred,
    Ended,
    Facts,
    Judge,
    Outcome,
    Step,
    fingerprint,
    why_json,
)
from gateway.ids import new_id
from gateway.message import (
    Attempt,
    AttemptState,
    Message,
    MessageState,
    OptOut,
    Person,
    addresses,
    instant,
    microseconds,
    rfc3339,
)
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.schema import BEHIND
from providers import Channel
from ratelimit import Contact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from gateway.message import Priority

_ANSWER_GRACE = timedelta(seconds=10)
"""How much longer than the attempt its lease lives, so that a late outcome is still its own."""
_YIELD = 1_000_000
"""Microseconds until a message asks again that let a more urgent one of another line go first."""
_SETTLEMENT_SLACK = timedelta(days=1)
"""How much later than its intent a contact may end; contacts are read from that much before the longest window."""
SUPPRESS = (
    "insert into suppressions (address, channel, reason, suppressed_at) values ($1, $2, $3, $4) on conflict do nothing"
)
PUBLISH = "insert into outbox (event, routing_key, body) values ($1, $2, $3)"
"""Takes what ``event_row`` makes."""
_BUGS = 5
"""Decisions of one message that may break before it is parked."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A due message that this worker may work on until the lease runs out."""

    message: Message
    fence: int
    line: int
    """See ``decide.line_of``."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The intent is committed: the provider may be called, until the deadline."""

    lease: Lease
    attempt: Attempt
    step: Attempting
    tried: frozenset[str]
    """Providers that did not take it since it last waited."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a claimed attempt."""

    claimed: Claimed
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out and is another's, or the message was cancelled: nothing may be started."""


_KEEPS_ITS_PLACE = (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
_UNHEARD = Outcome(AttemptState.NOT_SENT, error="store")
"""Of an attempt that was opened by a commit nobody heard of: so nobody was called for it."""

Next = Claimed | Deferred | Ended | Behind | Lost


def lease(
    wanted: Sequence[tuple[Priority, Channel, int]],
    until: timedelta,
    free: Mapping[Channel, int],
    recent: Mapping[str, Message],
) -> Operation[tuple[list[Lease], list[tuple[Priority, Channel]]]]:
    """Take due messages, per priority and channel as many as there is room for, those named first first.

    Args:
        free: places of each channel, shared by its priorities; none named: as many as are asked for.
        recent: messages that need not be read again.

    Returns:
        The leases, and the pairs of which there may be more due now.
    """
    now: int = yield Now()
    fences: dict[str, tuple[int, int]] = {}
    more = []
    left = dict(free)
    for priority, channel, asked in wanted:
        room = min(asked, left.get(channel, asked))
        if room <= 0:
            more.append((priority, channel))
            continue
        taken = yield Fetch(
            "with ready as ("
            " select message from due"
            " where priority = $1 and channel = $2 and due_at <= $3 and lease_until <= $3"
            " order by due_at limit $4"
            " for update skip locked)"
            " update due set lease_until = $5, fence = fence + 1 where message in (select message from ready)"
            " returning message, fence, line",
            (int(priority), channel, now, room, now + until // timedelta(microseconds=1)),
        )
        fences.update({message: (fence, line) for message, fence, line in taken})
        if channel in left:
            left[channel] -= len(taken)
        if len(taken) == room:
            more.append((priority, channel))
    known = [recent.get(message) for message in fences]
    if unread := [message for message, read in zip(fences, known, strict=True) if read is None]:
        found = yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", (unread,))
        known += map(rows.message, found)
    return [Lease(message, *fences[message.id]) for message in known if message], more


def claim(leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> Operation[list[Next]]:
    """Decide each leased message under its person's lock; where it may go, commit the intent and its place.

    Args:
        ids: of the attempts that may come of it, one a lease. Whoever cannot learn whether this was committed knows by
            them what to ``disown``.
    """
    profiles = yield from lock(lease.message.person for lease in leases)
    now = instant((yield Now()))
    places = yield from _places([lease.message.id for lease in leases], now)
    known = yield from _read(
        [lease.message for lease in leases if lease.message.id in places], profiles, places, judge, now
    )
    answers: list[Next] = [Lost()] * len(leases)  # by place: two leases of one message may meet in a batch
    writes = _Writes(now, judge)
    for index in sorted(range(len(leases)), key=lambda index: _rank(leases[index])):
        lease = leases[index]
        message = lease.message
        place = places.get(message.id)
        if place is None or place.fence != lease.fence or place.lease_until < microseconds(now):
            continue
        facts = known.facts(message, place.tries)
        step = _recovered(facts, judge, writes) if any(_open(a) for a in facts.attempts) else None
        if step is None and place.behind and now < message.expires_at:
            answers[index] = writes.behind(message, Behind(*place.behind))
            continue
        if step is None:
            step = _decided(facts, judge)
        answers[index] = known.seen(writes.step(lease, place, facts, step, ids[index], frozenset()))
    yield from writes.run()
    return answers


def settle(settlements: Sequence[Settlement], judge: Judge) -> Operation[list[Next]]:
    """Record what became of attempts, and what comes next for their messages.

    What was learnt of an attempt is evidence and is recorded even if the lease was lost; what to do next is decided
    only by who holds the lease.
    """
    messages = [s.claimed.lease.message for s in settlements]
    profiles = yield from lock(message.person for message in messages)
    now = instant((yield Now()))
    found = yield Fetch(
        "select message, fence, lease_until, tries, attempts, said from due where message = any($1)",
        ([message.id for message in messages],),
    )
    places = {row[0]: _place(row, None) for row in found}
    writes = _Writes(now, judge)
    late = [s.claimed.attempt.id for s in settlements if s.claimed.attempt.message not in places]
    given_up: set[str] = set()
    if late:
        unknown = yield Fetch("select id from attempts where id = any($1) and state = 'unknown'", (late,))
        given_up = {attempt for (attempt,) in unknown}
    answers: list[Next] = [Lost()] * len(settlements)
    undecided = []
    for index, settlement in enumerate(settlements):
        claimed, outcome = settlement.claimed, settlement.outcome
        writes.outcome(claimed.lease.message.person, claimed.attempt, outcome)
        place = places.get(claimed.attempt.message)
        if outcome.state is AttemptState.ACCEPTED and (place or claimed.attempt.id in given_up):
            # Given up as unknown meanwhile: others have been told so, and are told better.
            sent = writes.ended(claimed.lease, Ended(MessageState.SENT, "accepted"), claimed.attempt)
            answers[index] = sent if place else Lost()
        elif place and place.fence == claimed.lease.fence:
            undecided.append((index, settlement))
    if undecided:
        known = yield from _read([s.claimed.lease.message for _, s in undecided], profiles, places, judge, now)
        for _, settlement in undecided:
            message = settlement.claimed.lease.message
            known.settle(message, settlement.claimed.attempt, settlement.outcome)
            for attempt in known.open(message):
                writes.outcome(message.person, attempt, _UNHEARD)
                known.settle(message, attempt, _UNHEARD)
        for index, settlement in undecided:
            claimed, outcome = settlement.claimed, settlement.outcome
            message = claimed.lease.message
            if outcome.state is AttemptState.UNREACHABLE:
                known.suppress(message.person, claimed.step.address.channel, claimed.step.address.value)
                writes.suppress(claimed.step.address.channel, claimed.step.address.value, outcome.error or "")
            place = places[message.id]
            facts = known.facts(message, place.tries)
            tried = claimed.tried | ({claimed.step.provider} if outcome.state is AttemptState.NOT_SENT else set())
            step = judge.after(facts, outcome) or _decided(facts, judge, tried)
            answers[index] = known.seen(writes.step(claimed.lease, place, facts, step, new_id(), tried))
    yield from writes.run()
    return answers


def disown(attempts: Mapping[str, str]) -> Operation[None]:
    """Settle intents whose commit failed towards us, and whose provider was therefore never called.

    Args:
        attempts: their ids, each with its person, whose row is locked first: a commit that is still under way is so
            waited for.
    """
    yield from lock(attempts.values())
    found = yield Fetch("select id, message from attempts where id = any($1) and state = 'intent'", (list(attempts),))
    now: int = yield Now()
    yield Run(
        "update attempts set state = 'not_sent', ended_at = $2, error = 'store' where id = $1",
        [(attempt, now) for attempt, _ in found],
    )
    yield Run("delete from contacts where attempt = $1", [(attempt,) for attempt, _ in found])
    yield Run(
        "update due set lease_until = 0, due_at = $2 where message = $1", [(message, now) for _, message in found]
    )


def _rank(lease: Lease) -> tuple[int, datetime, str]:
    message = lease.message
    return (message.priority, message.expires_at, message.id)


def _open(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.INTENT


def _decided(facts: Facts, judge: Judge, tried: Collection[str] = ()) -> Step:
    """A decision that breaks is this message's trouble alone: it waits, and is parked if it goes on."""
    try:
        return judge.next_step(facts, tried)
    except Exception:  # noqa: BLE001 - whatever the bug is, the rest of the batch goes on
        if facts.tries + 1 >= _BUGS:
            return Ended(MessageState.PARKED, BUG)
        return Deferred(facts.now + timedelta(minutes=1), BUG, burns=True)


def _recovered(facts: Facts, judge: Judge, writes: _Writes) -> Step | None:
    """An intent without an outcome, whose lease ran out: its worker died, and the provider may have been called."""
    unknown = Outcome(AttemptState.UNKNOWN, error="crash")
    for number, attempt in enumerate(facts.attempts):
        if _open(attempt):
            writes.outcome(facts.person.id, attempt, unknown)
            facts.attempts[number] = replace(attempt, state=AttemptState.UNKNOWN, error="crash")  # type: ignore[index]
    return judge.after(facts, unknown)


@dataclass(frozen=True, slots=True)
class _Place:
    """The due row of a message, and who goes before it."""

    fence: int
    lease_until: int
    tries: int
    attempts: int
    said: int
    """Which deferral was recorded last."""
    behind: tuple[str, bool] | None


def _place(row: Sequence[Any], behind: tuple[str, bool] | None) -> _Place:
    return _Place(row[1], row[2], row[3], row[4], row[5], behind)


def lock(people: Iterable[str]) -> Operation[dict[str, str]]:
    """Hold the rows of persons until the end of the transaction, in their order; the stored profile of each known."""
    found = yield Fetch(
        "select person, profile from profiles where person = any($1) order by person for update",
        (sorted(set(people)),),
    )
    return dict(found)


_BEFORE = "(b.priority, b.expires_at, b.message) < (l.priority, l.expires_at, l.message)"
_BY_RANK = "order by b.priority, b.expires_at, b.message limit 1"


def _places(messages: Sequence[str], now: datetime) -> Operation[dict[str, _Place]]:
    """Who goes before: the better one of the same line, else one of another line that could go at this very moment.

    One that is due on another channel, but that nobody has taken up, may wait for that channel: it holds up nobody.
    """
    found = yield Fetch(
        "select l.message, l.fence, l.lease_until, l.tries, l.attempts, l.said,"
        " case when l.line <> 0 then"
        " (select b.message from due b where b.person = l.person and b.line = l.line"
        f" and b.starts_at <= $2 and {_BEFORE} {_BY_RANK}) end,"
        " case when l.line <> 0 then"
        " (select b.message from due b where b.person = l.person and b.line <> 0 and b.line <> l.line"
        f" and b.due_at <= $2 and (b.channel = l.channel or b.lease_until > $2) and {_BEFORE} {_BY_RANK}) end"
        " from due l where l.message = any($1)",
        (list(messages), microseconds(now)),
    )
    return {row[0]: _place(row, (row[6], True) if row[6] else (row[7], False) if row[7] else None) for row in found}


class _Known:
    """What was read of the persons and messages of a batch, kept up as the batch decides."""

    def __init__(
        self,
        people: Mapping[str, Person],
        contacts: Mapping[str, list[Contact]],
        attempts: Mapping[str, list[Attempt]],
        judge: Judge,
        now: datetime,
    ) -> None:
        self._people = dict(people)
        self._contacts = contacts
        self._attempts = attempts
        self._judge = judge
        self._now = now

    def facts(self, message: Message, tries: int) -> Facts:
        return Facts(
            message,
            self._people[message.person],
            self._contacts[message.person],
            self._attempts[message.id],
            tries,
            self._now,
        )

    def seen(self, answer: Next) -> Next:
        """Let the person's next message of this batch see the place that this one took."""
        if isinstance(answer, Claimed) and self._judge.counts(answer.lease.message):
            message, attempt = answer.lease.message, answer.attempt
            self._contacts[message.person].append(
                Contact(
                    begun=attempt.begun_at,
                    ended=attempt.deadline,
                    channel=attempt.channel,
                    category=message.category,
                    campaign=message.campaign,
                    zone=rows.zone(answer.step.zone),
                    message=message.id,
                )
            )
        return answer

    def open(self, message: Message) -> list[Attempt]:
        return [attempt for attempt in self._attempts[message.id] if _open(attempt)]

    def settle(self, message: Message, attempt: Attempt, outcome: Outcome) -> None:
        """See the outcome, and the place that it gives back."""
        self._attempts[message.id][:] = [
            replace(a, state=outcome.state, error=outcome.error, ended_at=self._now) if a.id == attempt.id else a
            for a in self._attempts[message.id]
        ]
        if outcome.state not in _KEEPS_ITS_PLACE:
            self._contacts[message.person][:] = [
                contact
                for contact in self._contacts[message.person]
                if (contact.message, contact.begun) != (message.id, attempt.begun_at)
            ]

    def suppress(self, person: str, channel: Channel, address: str) -> None:
        known = self._people[person]
        self._people[person] = replace(known, suppressed=known.suppressed | {(channel, address)})


def _read(
    messages: Sequence[Message],
    profiles: Mapping[str, str],
    places: Mapping[str, _Place],
    judge: Judge,
    now: datetime,
) -> Operation[_Known]:
    people = yield from _people(messages, profiles)
    contacts: dict[str, list[Contact]] = defaultdict(list)
    if window := judge.policy.longest_window:
        since = microseconds(now - window - _SETTLEMENT_SLACK)
        for row in (
            yield Fetch(
                f"select {rows.CONTACT} from contacts where person = any($1) and begun_at > $2", (list(people), since)
            )
        ):
            contacts[row[0]].append(rows.contact(row))
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    if tried := [message.id for message in messages if places[message.id].attempts]:
        for row in (
            yield Fetch(f"select {rows.ATTEMPT} from attempts where message = any($1) order by number", (tried,))
        ):
            attempts[row[1]].append(rows.attempt(row))
    return _Known(people, contacts, attempts, judge, now)


def _people(messages: Sequence[Message], profiles: Mapping[str, str]) -> Operation[dict[str, Person]]:
    names = sorted({message.person for message in messages})
    optouts: dict[str, list[OptOut]] = defaultdict(list)
    for person, channel, category in (
        yield Fetch("select person, channel, category from optouts where person = any($1)", (names,))
    ):
        optouts[person].append(OptOut(channel=Channel(channel) if channel else None, category=category or None))
    people = {name: Person(name, rows.profile(profiles[name]), tuple(optouts[name])) for name in names}
    reach = defaultdict(set)
    for message in messages:
        for channel in message.channels:
            for address in addresses(message, people[message.person], channel):
                reach[fingerprint(address.value)].add((message.person, address.value))
    suppressed = yield Fetch("select channel, address from suppressions where address = any($1)", (list(reach),))
    for channel, print_ in suppressed:
        for name, value in reach[print_]:
            people[name] = replace(people[name], suppressed=people[name].suppressed | {(Channel(channel), value)})
    return people


class _Writes:
    """What a batch has decided, written together at its end."""

    def __init__(self, now: datetime, judge: Judge) -> None:
        self._now = now
        self._us = microseconds(now)
        self._judge = judge
        self._attempts: list[tuple[Any, ...]] = []
        self._contacts: list[tuple[Any, ...]] = []
        self._outcomes: list[tuple[Any, ...]] = []
        self._kept: list[tuple[Any, ...]] = []
        self._given_back: list[tuple[Any, ...]] = []
        self._suppressions: list[tuple[Any, ...]] = []
        self._started: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[Any, ...]] = []
        self._settled: list[tuple[Any, ...]] = []
        self._decisions: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._moved: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._freed: set[str] = set()

    def outcome(self, person: str, attempt: Attempt, outcome: Outcome) -> None:
        self._outcomes.append((attempt.id, outcome.state, self._us, outcome.reference, outcome.error))
        if outcome.state in _KEEPS_ITS_PLACE:
            self._kept.append((attempt.id, self._us))
        else:
            self._given_back.append((attempt.id,))
            self._freed.add(person)

    def suppress(self, channel: Channel, address: str, reason: str) -> None:
        self._suppressions.append((fingerprint(address), channel, reason, self._us))

    def behind(self, message: Message, behind: Behind) -> Behind:
        until = microseconds(message.expires_at) if behind.same_line else self._us + _YIELD
        self._waiting.append((message.id, until, BEHIND if behind.same_line else 0, 0, 0))
        return behind

    def step(self, lease: Lease, place: _Place, facts: Facts, step: Step, attempt: str, tried: frozenset[str]) -> Next:
        match step:
            case Attempting():
                return self._attempting(lease, facts, step, attempt, tried)
            case Deferred():
                return self._deferred(lease.message, place, step)
            case Ended():
                return self.ended(lease, step, facts.attempts[-1] if facts.attempts else None)
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
            begun_at=self._now,
            deadline=step.deadline,
            policy=judge.number,
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
                self._us,
                deadline,
                attempt.policy,
            )
        )
        if judge.counts(message):
            self._contacts.append(
                (
                    attempt.id,
                    message.person,
                    message.id,
                    attempt.channel,
                    message.category,
                    message.campaign,
                    step.zone,
                    self._us,
                    deadline,
                )
            )
        until = step.deadline + judge.patience[step.provider] + _ANSWER_GRACE
        self._started.append((message.id, microseconds(until), attempt.number))
        return Claimed(lease, attempt, step, tried)

    def _deferred(self, message: Message, place: _Place, step: Deferred) -> Deferred:
        until = microseconds(step.until)
        said = int.from_bytes(blake2b(f"{step.rule} {until}".encode(), digest_size=8).digest(), signed=True)
        self._waiting.append((message.id, until, int(step.place), int(step.burns), said))
        if said == place.said:
            return step  # asked again, and nothing has changed
        self._record(message, MessageState.WAITING, step.rule, until, step.why)
        self._event(
            message,
            MessageState.WAITING,
            step.rule,
            None,
            {"until": rfc3339(step.until)} | ({"will_expire": True} if step.will_expire else {}),
        )
        return step

    def ended(self, lease: Lease, step: Ended, attempt: Attempt | None) -> Ended:
        message = lease.message
        self._settled.append((message.id,))
        self._freed.add(message.person)
        if lease.line:
            self._moved[message.person, lease.line] = (message.person, lease.line, self._us)
        if step.state is not MessageState.SENT:
            self._record(message, step.state, step.reason, None, step.why)
        self._event(message, step.state, step.reason, attempt, {})
        return step

    def _record(
        self, message: Message, state: MessageState, reason: str, until: int | None, why: Sequence[Any]
    ) -> None:
        self._decisions.append(
            (message.id, self._us, state, reason, until, self._judge.number, orjson.dumps(why_json(why)).decode())
        )

    def _event(
        self, message: Message, state: MessageState, reason: str, attempt: Attempt | None, more: dict[str, Any]
    ) -> None:
        if state in self._judge.events:
            self._events.append(event_row(message, state, reason, attempt, self._now, more))

    def run(self) -> Operation[None]:
        """Write it all. Due rows go last: they are what wakes others."""
        yield Run(
            "insert into attempts (id, message, number, person, channel, provider, address, state, begun_at, deadline,"
            " policy) values ($1, $2, $3, $4, $5, $6, $7, 'intent', $8, $9, $10)",
            self._attempts,
        )
        yield Run(
            "insert into contacts (attempt, person, message, channel, category, campaign, zone, begun_at, ended_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            self._contacts,
        )
        yield Run(
            "update attempts set state = $2, ended_at = $3, reference = $4, error = $5"
            " where id = $1 and state in ('intent', 'unknown')",
            self._outcomes,
        )
        yield Run("update contacts set ended_at = $2 where attempt = $1", self._kept)
        yield Run(
            "delete from contacts where attempt = $1"
            " and not exists (select 1 from attempts where id = $1 and state in ('accepted', 'delivered'))",
            self._given_back,
        )
        yield Run(SUPPRESS, self._suppressions)
        yield Run(
            "insert into decisions (message, decided_at, state, reason, until, policy, why)"
            " values ($1, $2, $3, $4, $5, $6, $7)",
            self._decisions,
        )
        yield Run(PUBLISH, self._events)
        yield Run("update due set lease_until = $2, attempts = $3 where message = $1", self._started)
        yield Run(
            "update due set due_at = $2, held = $3, tries = tries + $4, said = $5, lease_until = 0 where message = $1",
            self._waiting,
        )
        yield Run("delete from due where message = $1", self._settled)
        yield from move_up(self._moved.values(), self._freed, self._us)


def move_up(lines: Collection[tuple[Any, ...]], people: Collection[str], now: int) -> Operation[None]:
    """Let the next of each line be decided, and those of these persons that wait for a place."""
    if not people:
        return
    waiting = {
        person
        for (person,) in (yield Fetch("select distinct person from due where person = any($1)", (sorted(people),)))
    }
    yield Run(
        f"update due set due_at = $3, held = 0 where held = {BEHIND} and message = ("
        " select b.message from due b where b.person = $1 and b.line = $2 and b.starts_at <= $3"
        f" {_BY_RANK})",
        [line for line in lines if line[0] in waiting],
    )
    yield Run(
        "update due set due_at = $2 where person = $1 and held = 1 and due_at > $2",
        [(person, now) for person in sorted(waiting)],
    )


def event_row(
    message: Message,
    state: MessageState,
    reason: str,
    attempt: Attempt | None,
    at: datetime,
    more: dict[str, Any],
) -> tuple[str, str, str]:
    """An event as the outbox keeps it: its id, its routing key, and JSON without its sequence number."""
    body = message.body
    event: dict[str, Any] = {
        "event": new_id(),
        "state": state,
        "reason": reason,
        "at": rfc3339(at),
        "message": message.id,
        "id": message.request,
        "source": message.source,
        "user": message.person,
        "category": message.category,
    }
    for field in ("campaign", "stage", "variant", "labels"):
        if value := body.get(field):
            event[field] = value
    if attempt:
        event |= {"attempt": attempt.id, "channel": attempt.channel, "provider": attempt.provider}
    return event["event"], f"message.{state}", orjson.dumps(event | more).decode()
