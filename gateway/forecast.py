"""What do the rules say of a message, now or at another instant, where nothing is decided?

Pure, and by the same functions that decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.abuse import abuse
from gateway.decide import Facts, at_present, reachable, subject_of
from gateway.message import Address, Refusal, addresses
from ratelimit import Verdict, earliest, explain, follow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from gateway.config import Policy
    from gateway.message import Message, Person
    from gateway.whereabouts import Whereabouts
    from providers import Channel
    from ratelimit import Contact, Ruling

_NOTHING: Mapping[str, Sequence[Contact]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Explained:
    """What each rule says of a message on one channel."""

    channel: Channel
    where: Whereabouts
    rulings: tuple[Ruling, ...]
    verdict: Verdict
    """Of all of them together."""


def explained(
    facts: Facts, policy: Policy, routes: Mapping[Channel, Sequence[str]], span: timedelta
) -> tuple[Explained, ...]:
    """What each rule says of a message now: on the channel it would go by, and on those it would go by instead."""
    facts = at_present(facts)
    category = policy.categories[facts.message.category]
    rules = policy.rules(category)
    found = []
    for address in reachable(facts, category, routes, span)[0]:
        where, subject = subject_of(facts, address, policy)
        rulings = explain(facts.now, span, rules, subject, facts.contacts)
        rulings += follow(facts.now, span, rules, subject, facts.contacts)
        verdict = earliest(facts.now, span, rules, subject, facts.contacts)
        found.append(Explained(address.channel, where, rulings, verdict))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Whether a person may be contacted at an instant."""

    refusal: Refusal | None
    """Why it must not be, whatever the rules say."""
    verdict: Verdict
    rulings: tuple[Ruling, ...]
    where: Whereabouts
    has_address: bool = True
    """Whether an address is known; else the request must bring it."""


def eligibility(
    message: Message,
    person: Person,
    contacts: Sequence[Contact],
    at: datetime,
    policy: Policy,
    span: timedelta,
    on_addresses: Mapping[str, Sequence[Contact]] = _NOTHING,
) -> Eligibility:
    """What would be said of a message if it were to be decided at an instant; it need not have an address.

    Args:
        message: made up for the question, on one channel, of a configured category.
        person: as known; a person of whom nothing is known may get a message that brings its address.
        contacts: the person's counted ones.
        at: in the past, now or ahead.
        policy: in force.
        span: of an attempt.
        on_addresses: what addresses got, see ``Facts``.
    """
    (channel,) = message.channels
    category = policy.categories[message.category]
    found = addresses(message, person, channel)
    needed = not category.unsubscribe
    no = any(optout.covers(channel, message, needed=needed) for optout in person.optouts)
    bad = [address for address in found if (channel, address.value) in person.suppressed]
    said = [a for a in found if any(o.covers(channel, message, needed=needed) for o in person.refused.get(a.value, ()))]
    refusal = Refusal.SUPPRESSED if found and len(bad) == len(found) else None
    if no or (found and not refusal and len({*bad, *said}) == len(found)):
        refusal = Refusal.OPTED_OUT
    facts = Facts(message, person, contacts, (), 0, at, on_addresses)
    usable = [address for address in found if address not in bad and address not in said]
    address, limit = (usable or [Address(channel, "")])[0], None
    if category.abuse and usable:
        limits = [(abuse(facts, one, category.abuse, policy, span), one) for one in usable]
        limit, address = min(limits, key=lambda one: (one[0].next is None, one[0].next or at))
    where, subject = subject_of(facts, address, policy)
    rules, history = policy.rules(category), facts.contacts
    verdict = earliest(at, span, rules, subject, history)
    rulings = explain(at, span, rules, subject, history) + follow(at, span, rules, subject, history)
    if limit:
        rulings = (limit, *rulings)
        if limit.next is None:
            verdict = Verdict(None, limit.rule, limit.rule)
        elif not limit.permits:
            # A place that has freed stays free: the rules alone decide from then on.
            then = earliest(limit.next, span, rules, subject, history)
            verdict = Verdict(then.at, limit.rule, then.never)
    return Eligibility(refusal, verdict, rulings, where, bool(found))
