"""What to do with a message: may it go, when, by which channel and provider, and what an answer or a receipt means.

Pure: every function takes ``now`` and all that it looks at. The worker, ``explain`` and the tests call the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from gateway.abuse import abused, abuses, fingerprint
from gateway.message import (
    Address,
    AttemptState,
    Message,
    MessageState,
    Person,
    Priority,
    Refusal,
    WhenCapped,
    addresses,
)
from gateway.outcome import BUG, Outcome, lost_a_channel
from gateway.retries import RETRY_BUDGET, backoff
from gateway.routing import Health, Wait, choose
from gateway.unknown import NO_RECOURSES, Again, Left, key, only_way, resolution, sharing, unsure
from gateway.whereabouts import Whereabouts, whereabouts
from ratelimit import Subject, closes, earliest, enforced, explain, follow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from gateway.config import Category, Policy, Route
    from gateway.message import Attempt
    from gateway.unknown import Recourse
    from providers import Act, Channel
    from ratelimit import Contact, Rule, Ruling, Verdict


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision looks at, read under the person's lock."""

    message: Message
    person: Person
    contacts: Sequence[Contact]
    """Those that count, this message's own included."""
    attempts: Sequence[Attempt]
    """Of this message, in order."""
    tries: int
    """Of the retry budget, used up so far."""
    now: datetime
    on_addresses: Mapping[str, Sequence[Contact]] = field(default_factory=dict)
    """By the fingerprint of an address: what it got of this category, whomever that was for. Read only where the
    category limits that."""


@dataclass(frozen=True, slots=True)
class Attempting:
    """It may go now, and this is how."""

    address: Address
    provider: str
    deadline: datetime
    zone: str
    """Whose calendar the contact is counted in."""
    valid_until: datetime
    """When the provider should give up: it expires, or the hours end in which it may be sent."""
    shadow: tuple[Ruling, ...] = ()
    """What rules say that would have held it back if they were enforced."""
    passed: tuple[Ruling, ...] = ()
    """What rules say that hold it back on the channels before this one."""
    generation: int = 1
    """Part of the key by which a vendor knows repeats."""
    repeats: str | None = None
    """The attempt that the vendor takes it for, and whose place it uses."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """It may not go now. It waits, and nothing is lost."""

    until: datetime
    rule: str
    why: tuple[Ruling, ...] = ()
    by_rules: bool = False
    """Whether it is the policy that holds it, so that another policy may let it go sooner."""
    place: bool = False
    """Whether a place that another gives back may let it go sooner."""
    burns: bool = False
    """Whether this wait uses up a try: only after a provider failed."""
    will_expire: bool = False
    """It cannot go before it expires, unless a place is given back."""
    repeated: bool = False
    """It waits for the same as when it was asked last."""
    provider: str | None = None
    """At which it lacks its turn, where that is what it waits for."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more will be tried."""

    state: MessageState
    reason: str
    why: tuple[Ruling, ...] = ()


@dataclass(frozen=True, slots=True)
class Behind:
    """It waits in line behind another message of the same person."""

    message: str
    same_line: bool
    """Woken when that one settles; else it asks again in a moment."""


Step = Attempting | Deferred | Ended


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy in force, the routes and their health: everything that decides but the facts."""

    policy: Policy
    number: int
    """The policy's version."""
    routes: Mapping[Channel, Route]
    patience: Mapping[str, timedelta]
    """Per provider: how long after the deadline its answer may still come."""
    span: timedelta
    """How long after a decision the first byte may still be written."""
    events: frozenset[MessageState] = frozenset()
    """The states that others want to hear of, and the acts."""
    acts: frozenset[Act] = frozenset()
    health: Health = field(default_factory=Health)
    recourses: Mapping[str, Recourse] = field(default_factory=dict)
    """Per provider: what it offers where it never answered."""
    public_url: str | None = None
    """Where links of ours lead. None: nowhere, so that none is sent."""

    def next_step(self, facts: Facts, tried: Collection[str] = ()) -> Step:
        """See ``next_step``."""
        return next_step(facts, self.policy, self.routes, self.health, self.span, tried=tried, recourses=self.recourses)

    def after(self, facts: Facts, outcome: Outcome) -> Step | None:
        """See ``after``."""
        return after(facts, outcome, self.policy, self.span, self.recourses)

    def reaches(self, message: Message, person: Person, now: datetime) -> bool:
        """Whether there is a way to the person for a message that has not been begun, whatever the rules say."""
        category = self.policy.categories[message.category]
        facts = Facts(message, person, (), (), 0, now)
        return bool(reachable(facts, category, self.routes, self.span)[0])

    def counts(self, message: Message) -> bool:
        """Whether a contact by this message is held against others."""
        return (category := self.policy.categories.get(message.category)) is not None and category.counts

    def limits_addresses(self, message: Message) -> bool:
        """Whether there is a limit to what one address may get of the message's category."""
        return (category := self.policy.categories.get(message.category)) is not None and category.abuse is not None

    def collapses(self, message: Message) -> bool:
        """Whether only the newest of its line is sent."""
        return (category := self.policy.categories.get(message.category)) is not None and category.collapse


def next_step(
    facts: Facts,
    policy: Policy,
    routes: Mapping[Channel, Route],
    health: Health,
    span: timedelta,
    *,
    tried: Collection[str] = (),
    recourses: Mapping[str, Recourse] = NO_RECOURSES,
) -> Step:
    """Take one message as far as a decision can.

    Args:
        span: how long after now the first byte may still be written.
        tried: providers that failed it since it last waited.
        recourses: what providers offer where they never answered, by name.
    """
    again = resolution(facts, policy, recourses, span)
    facts = at_present(sharing(facts) if isinstance(again, Again) and again.keyed else facts)
    message, now = facts.message, facts.now
    category = policy.categories.get(message.category)
    if category is None:
        return Ended(MessageState.PARKED, "unknown_category")
    if now >= message.expires_at:
        return _ended(facts, MessageState.EXPIRED, "expires_at", _held(facts, policy, category, routes, span))
    if again is not None and now < again.at:
        return _unresolved(facts, again)
    if isinstance(again, Left):
        return _ended(facts, MessageState.UNKNOWN, _last_error(facts))
    usable, refusal = reachable(facts, category, routes, span)
    if not usable:
        if facts.attempts and (lost_a_channel(facts.attempts) or refusal not in (Refusal.OPTED_OUT, Refusal.ABUSE)):
            return _ended(facts, MessageState.FAILED, _last_error(facts))
        return _ended(facts, MessageState.REFUSED, refusal, abuses(facts, policy, category, span))
    asked = _asked(facts, usable, policy, category, span)
    if isinstance(asked, Deferred | Ended):
        return asked
    address, home, subject = asked.address, asked.where.calendar, asked.subject
    provider = _provider(facts, address, routes, health, tried)
    if isinstance(provider, Deferred):
        return provider if provider.until < message.expires_at else _until_expiry(provider, message)
    if provider is None:
        return _later(facts)
    rules = policy.rules(category)
    return Attempting(
        address,
        provider,
        min(now + span, message.expires_at),
        home.key,
        min(closes(now, rules, subject) or message.expires_at, message.expires_at),
        _shadow(facts, rules, subject, span),
        asked.passed,
        *key(facts, again, provider, (address.channel, fingerprint(address.value)), recourses, span),
    )


def _unresolved(facts: Facts, again: Again | Left) -> Deferred:
    """It waits for news of an attempt, and burns no try by that."""
    return Deferred(min(again.at, facts.message.expires_at), "repeat" if isinstance(again, Again) else "look_up")


def at_present(facts: Facts) -> Facts:
    """The same, with nothing ahead of now: where the clock has been set back, what was begun has been, and holds."""
    now = facts.now
    if not any(
        [contact for contact in held if contact.begun > now] for held in (facts.contacts, *facts.on_addresses.values())
    ):
        return facts
    return replace(
        facts,
        contacts=_begun(facts.contacts, facts.now),
        on_addresses={address: _begun(got, facts.now) for address, got in facts.on_addresses.items()},
    )


def _begun(contacts: Sequence[Contact], now: datetime) -> list[Contact]:
    return [contact._replace(begun=min(contact.begun, now)) for contact in contacts]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the rules say of a message on one of its channels."""

    address: Address
    where: Whereabouts
    subject: Subject
    verdict: Verdict
    passed: tuple[Ruling, ...] = ()
    """See ``Attempting``."""


def _asked(
    facts: Facts, usable: Sequence[Address], policy: Policy, category: Category, span: timedelta
) -> _Asked | Deferred | Ended:
    """The address to use now; or how long the message waits, for whichever of its channels is free first."""
    rules, at = policy.rules(category), facts.now
    asked, capped = _each(facts, usable, policy, category, span, at)
    best = min(asked, key=lambda one: (one.verdict.at is None, one.verdict.at or at))
    if best.verdict.at == at:
        held = [explain(at, span, rules, one.subject, facts.contacts) for one in asked if one is not best]
        return replace(best, passed=tuple(r for rulings in held for r in rulings if r.enforced and not r.permits))
    verdict = best.verdict
    why = explain(at, span, rules, best.subject, facts.contacts)
    why += follow(at, span, rules, best.subject, facts.contacts)
    if verdict.at is None:
        return _ended(facts, MessageState.REFUSED, Refusal.NEVER, why)
    if capped and category.when_capped is WhenCapped.DROP:
        return _ended(facts, MessageState.REFUSED, Refusal.CAPPED, why)
    until = verdict.at
    for _ in asked[1:]:
        # By then no cap may hold the channels before it any more, but their hours: so it waits for those.
        then, _ = _each(facts, usable, policy, category, span, until)
        until = min((one.verdict.at for one in then if one.verdict.at), default=until)
    return Deferred(
        min(until, facts.message.expires_at),
        verdict.last or "clock",
        why,
        by_rules=True,
        place=capped or any(ruling.held_by and ruling.enforced and not ruling.permits for ruling in why),
        will_expire=until >= facts.message.expires_at,
    )


def _each(
    facts: Facts, usable: Sequence[Address], policy: Policy, category: Category, span: timedelta, at: datetime
) -> tuple[list[_Asked], bool]:
    """What the rules say at an instant of each channel that comes into question, and whether caps hold one back.

    The last may be one that permits it; the next comes into question only where caps hold back one before it.
    """
    rules = policy.rules(category)
    asked: list[_Asked] = []
    capped = False
    for address in usable:
        where, subject = subject_of(facts, address, policy)
        one = _Asked(address, where, subject, earliest(at, span, rules, subject, facts.contacts))
        asked.append(one)
        if one.verdict.at == at or category.when_capped is WhenCapped.DEFER:
            break
        capped = capped or _capped(one, rules, span, at)
        if not capped or category.when_capped is WhenCapped.DROP:
            break
    return asked, capped


def _held(
    facts: Facts, policy: Policy, category: Category, routes: Mapping[Channel, Route], span: timedelta
) -> tuple[Ruling, ...]:
    """What those rules say that held back what was never sent, at the last instant at which it might have gone.

    Of several channels that came into question then, on the last: those before it were held back too.
    """
    last = facts.message.expires_at - timedelta.resolution
    then = replace(facts, now=last, contacts=[contact for contact in facts.contacts if contact.begun <= last])
    usable, _ = reachable(then, category, routes, span)
    if not usable or unsure(facts.attempts):
        return ()
    asked, _ = _each(then, usable, policy, category, span, last)
    rulings = explain(last, span, policy.rules(category), asked[-1].subject, then.contacts)
    return tuple(ruling for ruling in rulings if ruling.enforced and not ruling.permits)


def _capped(asked: _Asked, rules: Sequence[Rule], span: timedelta, at: datetime) -> bool:
    """Whether caps and gaps hold it back for longer than the clocks alone would."""
    clocks = [rule for rule in rules if not rule.looks_back]
    return earliest(at, span, clocks, asked.subject, ()).at != asked.verdict.at


def _shadow(facts: Facts, rules: Sequence[Rule], subject: Subject, span: timedelta) -> tuple[Ruling, ...]:
    """What those rules say that object but are not enforced for the person."""
    shadows = [rule for rule in rules if not enforced(rule, subject.person)]
    if not shadows:
        return ()
    rulings = explain(facts.now, span, shadows, subject, facts.contacts)
    return tuple(ruling for ruling in rulings if not ruling.permits)


def after(
    facts: Facts,
    outcome: Outcome,
    policy: Policy,
    span: timedelta,
    recourses: Mapping[str, Recourse] = NO_RECOURSES,
) -> Step | None:
    """What an outcome alone decides; None: ask ``next_step``, with the outcome among the attempts."""
    if outcome.state is AttemptState.ACCEPTED:
        return Ended(MessageState.SENT, "accepted")
    if outcome.error == BUG:
        return Ended(MessageState.PARKED, BUG)
    if outcome.state is AttemptState.UNKNOWN:
        again = resolution(facts, policy, recourses, span)
        left = Ended(MessageState.UNKNOWN, outcome.error or "unconfirmed")
        if again is None or facts.now >= facts.message.expires_at:
            return left
        if isinstance(again, Again) and again.keyed:
            until = min(facts.now + backoff(facts.message.id, facts.tries), again.until, facts.message.expires_at)
            return Deferred(until, "repeat", burns=True) if facts.now < until else None
        if facts.now < again.at:
            return _unresolved(facts, again)
        return left if isinstance(again, Left) else None
    return None


def _ended(facts: Facts, state: MessageState, reason: str, why: tuple[Ruling, ...] = ()) -> Ended:
    """An end; what may have been sent stays that, whatever comes of its repeat."""
    unknown = next((a for a in facts.attempts if a.state is AttemptState.UNKNOWN), None)
    return Ended(MessageState.UNKNOWN, unknown.error or "unconfirmed", why) if unknown else Ended(state, reason, why)


def _until_expiry(deferred: Deferred, message: Message) -> Deferred:
    return Deferred(message.expires_at, deferred.rule, burns=deferred.burns, will_expire=True)


def reachable(
    facts: Facts, category: Category, routes: Mapping[Channel, Sequence[str]], span: timedelta
) -> tuple[list[Address], Refusal]:
    """On each channel, in the request's order, the first address that can be used; where there is none, why.

    Of a message that may have been sent only the way by which it may have been.
    """
    message, person = facts.message, facts.person
    only = only_way(facts)
    usable: list[Address] = []
    refusal = Refusal.NO_ADDRESS
    needed = not category.unsubscribe
    for channel in message.channels:
        if only and channel is not only.channel:
            continue
        if any(a.channel is channel and a.state is AttemptState.REJECTED for a in facts.attempts):
            continue
        if any(no.covers(channel, message, needed=needed) for no in person.optouts):
            refusal = Refusal.OPTED_OUT
            continue
        for address in addresses(message, person, channel):
            if (channel, address.value) in person.suppressed:
                refusal = Refusal.SUPPRESSED if refusal is Refusal.NO_ADDRESS else refusal
            elif any(no.covers(channel, message, needed=needed) for no in person.refused.get(address.value, ())):
                refusal = Refusal.OPTED_OUT
            elif not _route(address, routes, only) or _spent(facts, address):
                pass
            elif category.abuse and abused(facts, address, category.abuse, span):
                refusal = Refusal.ABUSE
            else:
                usable.append(address)
                break
        if usable and category.when_capped is not WhenCapped.NEXT_CHANNEL:
            break
    return usable, refusal


def _spent(facts: Facts, address: Address) -> bool:
    return bool(facts.attempts) and any(
        attempt.channel is address.channel
        and attempt.state is AttemptState.UNREACHABLE
        and attempt.address == fingerprint(address.value)
        for attempt in facts.attempts
    )


def subject_of(facts: Facts, address: Address, policy: Policy) -> tuple[Whereabouts, Subject]:
    """A message to an address, as rules see it."""
    message = facts.message
    where = whereabouts(message.body, facts.person.profile, address, policy)
    subject = Subject(
        channel=address.channel,
        category=message.category,
        campaign=message.campaign,
        zones=where.zones,
        calendar=where.calendar,
        person=message.person,
        priority=int(message.priority),
        expires_at=message.expires_at,
        labels=message.labels,
        country=where.country,
    )
    return where, subject


def _route(address: Address, routes: Mapping[Channel, Sequence[str]], only: Attempt | None) -> list[str]:
    """The providers that can use an address."""
    if only and only.address != fingerprint(address.value):
        return []
    names = (only.provider,) if only else routes.get(address.channel, ())
    return [name for name in names if address.provider in (None, name) and name in routes.get(address.channel, ())]


def _provider(
    facts: Facts, address: Address, routes: Mapping[Channel, Route], health: Health, tried: Collection[str]
) -> str | Deferred | None:
    """The provider to try next; a wait, where the vendors or their pace ask for one; None, where all have failed it."""
    usable = [name for name in _route(address, routes, only_way(facts)) if name not in tried]
    if not usable:
        return None
    message, channel = facts.message, address.channel
    critical = message.priority is Priority.CRITICAL
    chosen = choose(channel, routes[channel], usable, health, message.id, critical=critical, now=facts.now)
    return Deferred(chosen.until, chosen.rule, provider=chosen.provider) if isinstance(chosen, Wait) else chosen


def _later(facts: Facts) -> Step:
    """Every provider of the route has failed it for now."""
    error = _last_error(facts)
    throttled = error.startswith("throttled")
    if facts.tries >= RETRY_BUDGET and not throttled:
        return _ended(facts, MessageState.FAILED, error)
    until = facts.now + backoff(facts.message.id, facts.tries)
    deferred = Deferred(until, "throttled" if throttled else "retry", burns=not throttled)
    return deferred if until < facts.message.expires_at else _until_expiry(deferred, facts.message)


def _last_error(facts: Facts) -> str:
    return next((a.error for a in reversed(facts.attempts) if a.error), "unknown")
