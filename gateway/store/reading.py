"""Transactions that look things up: one message whole, one person whole."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from gateway.abuse import fingerprint
from gateway.decide import Facts
from gateway.message import Attempt, Message, MessageState, Person, addresses, instant
from gateway.outcome import state_of
from gateway.store import rows
from gateway.store.acts import of_message
from gateway.store.engine import Fetch, Now, Operation
from gateway.store.intake import EMPTY_PROFILE
from gateway.store.known import read_addresses, read_people, read_refused
from gateway.store.line import ahead
from gateway.store.schema import BEHIND
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gateway.acts import Record
    from gateway.decide import Judge
    from ratelimit import Contact

FINAL = frozenset(MessageState) - {MessageState.WAITING, MessageState.SENDING}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a message, and why."""

    at: datetime
    state: MessageState
    reason: str
    until: datetime | None
    policy: int
    why: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message and all that is recorded of it."""

    message: Message
    state: MessageState
    due_at: datetime | None
    """When it is decided next; None once settled, and while it waits behind another."""
    tries: int
    attempts: Sequence[Attempt]
    decisions: Sequence[Decision]
    suspect: bool = False
    """Its worker vanished while it held it, so it is run alone."""
    crashes: int = 0
    """How many workers have died of it since, while it was run alone."""
    acts: Sequence[Record] = ()
    """What was done with it, by whom, in order."""


@dataclass(frozen=True, slots=True)
class PersonView:
    """One person, as a decision would see them."""

    person: Person
    contacts: Sequence[Contact]
    now: datetime


@dataclass(frozen=True, slots=True)
class Suppression:
    """That an address must not be used."""

    channel: Channel
    reason: str
    """An error, or why else."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a message stands now."""

    facts: Facts
    """All contacts on the ledger, not only those in some rule's window."""
    behind: str | None
    """The message of the same line that goes first."""
    suppressions: Sequence[Suppression]
    """Of the addresses that it might go to."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom something was sent to that they now speak of."""

    person: str
    category: str
    """Of what was sent."""
    locales: tuple[str, ...]
    """What they may read, the best first, as BCP 47 tags."""
    noes: Mapping[str, str]
    """Categories they have said no to, on any channel and topic; and how they said it."""


def states(messages: Sequence[str]) -> Operation[dict[str, MessageState]]:
    """The present states of messages."""
    wanted = (list(messages),)
    waiting = {row[0] for row in (yield Fetch("select message from due where message = any($1)", wanted))}
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for row in (yield Fetch(f"select {rows.ATTEMPT} from attempts where message = any($1)", wanted)):
        attempts[row[1]].append(rows.attempt(row))
    ended = {
        message: MessageState(state)
        for message, state in (
            yield Fetch("select message, state from decisions where message = any($1) order by id", wanted)
        )
        if MessageState(state) in FINAL
    }
    return {m: state_of(due=m in waiting, attempts=attempts[m], ended=ended.get(m)) for m in messages}


def view(message: str) -> Operation[MessageView | None]:
    """One message by our id."""
    found = yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (message,))
    if not found:
        return None
    due = yield Fetch(
        f"select case when held = {BEHIND} then null else due_at end, tries, suspect, crashes from due"
        " where message = $1",
        (message,),
    )
    attempts = [
        rows.attempt(row)
        for row in (yield Fetch(f"select {rows.ATTEMPT} from attempts where message = $1 order by number", (message,)))
    ]
    decisions = [
        Decision(instant(at), MessageState(state), reason, rows.maybe(until), policy, orjson.loads(why))
        for at, state, reason, until, policy, why in (
            yield Fetch(
                "select decided_at, state, reason, until, policy, why from decisions where message = $1 order by id",
                (message,),
            )
        )
    ]
    ended = next((d.state for d in reversed(decisions) if d.state in FINAL), None)
    return MessageView(
        rows.message(found[0]),
        state_of(due=bool(due), attempts=attempts, ended=ended),
        rows.maybe(due[0][0]) if due else None,
        due[0][1] if due else 0,
        attempts,
        decisions,
        bool(due and due[0][2]),
        due[0][3] if due else 0,
        (yield from of_message(message)),
    )


def by_request(source: str, request: str) -> Operation[str | None]:
    """The message that a request's id stands for."""
    found = yield Fetch("select message from requests where id = $1 and source = $2", (request, source))
    return found[0][0] if found else None


def person(name: str) -> Operation[PersonView | None]:
    """One person, with every counted contact on the ledger."""
    found = yield Fetch("select profile from profiles where person = $1", (name,))
    if not found:
        return None
    optouts = tuple(
        rows.optout(said)
        for said in (
            yield Fetch("select channel, category, topic from optouts where person = $1 order by 1, 2, 3", (name,))
        )
    )
    profile = rows.profile(found[0][0])
    reach = [address for address in (profile.phone, profile.email, *(d.token for d in profile.push)) if address]
    known = yield from read_refused([Person(name, profile, optouts)], {(name, address) for address in reach})
    contacts = yield from _contacts(name)
    now: int = yield Now()
    return PersonView(known[name], contacts, instant(now))


def addressee(reference: str) -> Operation[Addressee | None]:
    """Whom an attempt, or a message, was for; as long as either, or the contact, is remembered."""
    for sql in (
        "select m.person, m.category, m.body from attempts a join messages m on m.id = a.message where a.id = $1",
        "select person, category, '{}' from contacts where attempt = $1",
        "select person, category, body from messages where id = $1",
    ):
        if found := (yield Fetch(sql, (reference,))):
            break
    else:
        return None
    who, category, body = found[0]
    profiles = yield Fetch("select profile from profiles where person = $1", (who,))
    locales = [orjson.loads(body).get("locale"), *(rows.profile(profile).locale for (profile,) in profiles)]
    said = yield Fetch(
        "select category, via from optouts where person = $1 and address = '' and channel = '' and topic = ''"
        " and category <> ''",
        (who,),
    )
    return Addressee(who, category, tuple(locale for locale in locales if locale), dict(said))


def standing(message: str, judge: Judge) -> Operation[Standing | None]:
    """What a decision on a message that is not settled would look at now. None: there is no such message."""
    found = yield from view(message)
    if not found:
        return None
    facts = yield from prospect(found.message, judge)
    facts = replace(facts, attempts=found.attempts, tries=found.tries)
    behind = yield from ahead(message, facts.now)
    return Standing(facts, behind, (yield from _suppressions(facts)))


def _suppressions(facts: Facts) -> Operation[list[Suppression]]:
    message, suppressed = facts.message, facts.person.suppressed
    reach = {(channel, a.value) for channel in message.channels for a in addresses(message, facts.person, channel)}
    found = yield Fetch(
        "select channel, reason, suppressed_at, address from suppressions where address = any($1)"
        " order by suppressed_at, channel",
        (sorted({fingerprint(address) for _, address in reach & suppressed}),),
    )
    barred = {(channel, fingerprint(address)) for channel, address in reach}
    return [Suppression(Channel(c), reason, instant(at)) for c, reason, at, address in found if (c, address) in barred]


def prospect(message: Message, judge: Judge) -> Operation[Facts]:
    """What a decision on a message would look at that has not been begun; neither it nor the person need be known.

    All contacts on the ledger are among it, not only those in some rule's window.
    """
    profiles = yield Fetch("select person, profile from profiles where person = $1", (message.person,))
    people = yield from read_people([message], {message.person: EMPTY_PROFILE} | dict(profiles))
    contacts = yield from _contacts(message.person)
    now = instant((yield Now()))
    limited = [message] if judge.limits_addresses(message) else []
    on_addresses = yield from read_addresses(limited, people, judge, min(now, message.starts_at))
    return Facts(message, people[message.person], contacts, (), 0, now, on_addresses[message.category])


def _contacts(name: str) -> Operation[list[Contact]]:
    found = yield Fetch(
        f"select {rows.CONTACT} from contacts where person = $1 and counts = 1 order by begun_at", (name,)
    )
    return [rows.contact(row) for row in found]
