"""All that the decisions of a batch look at, read under the locks of its persons."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gateway.abuse import fingerprint
from gateway.decide import Facts
from gateway.message import AttemptState, Person, addresses, microseconds
from gateway.outcome import Outcome
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.leases import Claimed
from gateway.store.writes import KEEPS_ITS_PLACE
from providers import Channel
from ratelimit import Contact, zone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.message import Attempt, Message, OptOut
    from gateway.store.leases import Next
    from gateway.store.line import Place

CRASHED = Outcome(AttemptState.UNKNOWN, error="crash")
"""Of an attempt whose worker died: the provider may have been called."""
SETTLEMENT_SLACK = timedelta(days=1)
"""How much later than its intent a contact that is not repeated may end."""


def lock(people: Iterable[str]) -> Operation[dict[str, str]]:
    """Hold the rows of persons until the end of the transaction, in their order; the stored profile of each known."""
    found = yield Fetch(
        "select person, profile from profiles where person = any($1) order by person for update",
        (sorted(set(people)),),
    )
    return dict(found)


def lock_addresses(messages: Iterable[Message], profiles: Mapping[str, str], judge: Judge) -> Operation[None]:
    """Hold the addresses that have a limit of their own, whomever they belong to, in their order.

    Only behind the persons' locks, so that nobody waits in a circle.
    """
    limited = {
        fingerprint(address.value)
        for message in messages
        if judge.limits_addresses(message)
        for channel in message.channels
        for address in addresses(message, Person(message.person, rows.profile(profiles[message.person])), channel)
    }
    if limited:
        now: int = yield Now()
        yield Run(
            "insert into addresses (address, used_at) values ($1, $2)"
            " on conflict (address) do update set used_at = excluded.used_at",
            [(address, now) for address in sorted(limited)],
        )


def is_open(attempt: Attempt) -> bool:
    """Whether it is under way, as far as is recorded."""
    return attempt.state is AttemptState.INTENT


class Known:
    """What was read of the persons and messages of a batch, kept up as the batch decides."""

    def __init__(
        self,
        people: Mapping[str, Person],
        contacts: Mapping[str, list[Contact]],
        attempts: Mapping[str, list[Attempt]],
        on_addresses: Mapping[str, Mapping[str, list[Contact]]],
        judge: Judge,
        now: datetime,
    ) -> None:
        self._people = dict(people)
        self._contacts = contacts
        self._attempts = attempts
        self._on_addresses = on_addresses
        self._judge = judge
        self._now = now

    def facts(self, message: Message, tries: int) -> Facts:
        """Of one message."""
        return Facts(
            message,
            self._people[message.person],
            self._contacts[message.person],
            self._attempts[message.id],
            tries,
            self._now,
            self._on_addresses[message.category],
        )

    def seen(self, answer: Next) -> Next:
        """Let the person's next message of this batch see the place that this one took."""
        if isinstance(answer, Claimed) and not answer.attempt.repeats:
            message, attempt = answer.lease.message, answer.attempt
            contact = Contact(
                begun=attempt.begun_at,
                ended=attempt.deadline,
                channel=attempt.channel,
                category=message.category,
                campaign=message.campaign,
                zone=zone(answer.step.zone),
                message=message.id,
                labels=message.labels,
            )
            if self._judge.counts(message):
                self._contacts[message.person].append(contact)
            if self._judge.limits_addresses(message):
                self._on_addresses[message.category][attempt.address].append(contact)
        return answer

    def open(self, message: Message) -> list[Attempt]:
        """Its attempts that are under way, as far as is recorded."""
        return [attempt for attempt in self._attempts[message.id] if is_open(attempt)]

    def settle(self, message: Message, attempt: Attempt, outcome: Outcome, *, shared: bool = False) -> None:
        """See the outcome, and the place that it gives back, unless one that may have arrived shares that."""
        self._attempts[message.id][:] = [
            replace(a, state=outcome.state, error=outcome.error, ended_at=self._now) if a.id == attempt.id else a
            for a in self._attempts[message.id]
        ]
        if outcome.state not in KEEPS_ITS_PLACE and not shared:
            for held in (self._contacts[message.person], self._on_addresses[message.category][attempt.address]):
                held[:] = [c for c in held if (c.message, c.begun) != (message.id, attempt.begun_at)]

    def suppress(self, channel: Channel, address: str) -> None:
        """See that an address must not be used any more, whoever has it."""
        for name, person in self._people.items():
            self._people[name] = replace(person, suppressed=person.suppressed | {(channel, address)})


def _slack(judge: Judge) -> timedelta:
    """How much later than its intent a contact may end; contacts are read from that much before the longest window."""
    keyed = (recourse.keyed for recourse in judge.recourses.values() if recourse.keyed)
    return SETTLEMENT_SLACK + max(keyed, default=timedelta(0))


def read(
    messages: Sequence[Message],
    profiles: Mapping[str, str],
    places: Mapping[str, Place],
    judge: Judge,
    now: datetime,
) -> Operation[Known]:
    """What is to be known of these messages, of which each has a place."""
    people = yield from read_people(messages, profiles)
    contacts: dict[str, list[Contact]] = defaultdict(list)
    if window := judge.policy.longest_window:
        for row in (
            yield Fetch(
                f"select {rows.CONTACT} from contacts where person = any($1) and begun_at > $2 and counts = 1",
                (list(people), microseconds(now - window - _slack(judge))),
            )
        ):
            contacts[row[0]].append(rows.contact(row))
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    if tried := [message.id for message in messages if places[message.id].attempts]:
        for row in (
            yield Fetch(f"select {rows.ATTEMPT} from attempts where message = any($1) order by number", (tried,))
        ):
            attempts[row[1]].append(rows.attempt(row))
    on_addresses = yield from read_addresses([m for m in messages if judge.limits_addresses(m)], people, judge, now)
    return Known(people, contacts, attempts, on_addresses, judge, now)


def read_addresses(
    messages: Sequence[Message], people: Mapping[str, Person], judge: Judge, now: datetime
) -> Operation[Mapping[str, Mapping[str, list[Contact]]]]:
    """What the addresses of these messages got lately, by category and by their fingerprints."""
    found: dict[str, dict[str, list[Contact]]] = defaultdict(lambda: defaultdict(list))
    if not messages:
        return found
    reach = {
        fingerprint(address.value)
        for message in messages
        for channel in message.channels
        for address in addresses(message, people[message.person], channel)
    }
    limits = [category.abuse for category in judge.policy.categories.values() if category.abuse]
    since = now - max(limit.looks_back for limit in limits) - _slack(judge)
    for address, *row in (
        yield Fetch(
            f"select address, {rows.CONTACT} from contacts where address = any($1) and begun_at > $2",
            (sorted(reach), microseconds(since)),
        )
    ):
        contact = rows.contact(row)
        found[contact.category][address].append(contact)
    return found


def read_people(messages: Sequence[Message], profiles: Mapping[str, str]) -> Operation[dict[str, Person]]:
    """The persons whom messages are for, and what was said by them and of their addresses."""
    names = sorted({message.person for message in messages})
    optouts: dict[str, list[OptOut]] = defaultdict(list)
    for person, *said in (
        yield Fetch("select person, channel, category, topic from optouts where person = any($1)", (names,))
    ):
        optouts[person].append(rows.optout(said))
    people = {name: Person(name, rows.profile(profiles[name]), tuple(optouts[name])) for name in names}
    reach = {
        (message.person, address.value)
        for message in messages
        for channel in message.channels
        for address in addresses(message, people[message.person], channel)
    }
    return (yield from read_refused(people.values(), reach))


def read_refused(people: Iterable[Person], reach: Collection[tuple[str, str]]) -> Operation[dict[str, Person]]:
    """The same persons, knowing which of the addresses by which they may be reached must not be used, or not for all.

    Args:
        people: as they are known so far.
        reach: names of persons, each with an address.
    """
    known = {person.id: person for person in people}
    whose: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, address in reach:
        whose[fingerprint(address)].append((name, address))
    for print_, *said in (yield Fetch(_REFUSED, (list(whose),))):
        for name, address in whose[print_]:
            known[name] = _refused(known[name], address, said)
    return known


_REFUSED = (
    "select address, channel, null as category, null as topic, 1 as suppressed from suppressions"
    " where address = any($1) union all"
    " select address, channel, category, topic, 0 from optouts where address = any($1)"
)


def _refused(person: Person, address: str, said: Sequence[Any]) -> Person:
    """A person, one of whose addresses is so spoken of, in the columns of ``_REFUSED`` behind the first."""
    if said[3]:
        return replace(person, suppressed=person.suppressed | {(Channel(said[0]), address)})
    return replace(
        person, refused={**person.refused, address: (*person.refused.get(address, ()), rows.optout(said[:3]))}
    )
