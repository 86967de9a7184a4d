"""How much has one address had of a category, whomever that was for, and may it have more?

Pure. Nothing is exempt from this limit.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.message import addresses
from gateway.whereabouts import whereabouts
from ratelimit import Subject, zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from zoneinfo import ZoneInfo

    from gateway.config import Category, Policy
    from gateway.decide import Facts
    from gateway.message import Address
    from ratelimit import Contact, FrequencyCap, Ruling


def fingerprint(address: str) -> str:
    """Tells addresses apart without being one.

    However a mail address is capitalized, it is the same: hardly a host tells them apart, and whoever asks for codes in
    another's name, or was said no to, must not get by with another spelling.
    """
    return hashlib.sha256((address.casefold() if "@" in address else address).encode()).hexdigest()[:32]


def abused(facts: Facts, address: Address, limit: FrequencyCap, span: timedelta) -> bool:
    """Whether the address got as many of the category as any may."""
    nobody, history = _on_address(facts, address, zone("UTC"))
    return limit.first(facts.now, span, nobody, history) != facts.now


def abuses(facts: Facts, policy: Policy, category: Category, span: timedelta) -> tuple[Ruling, ...]:
    """What the category's limit says of each address that has reached it."""
    if category.abuse is None:
        return ()
    rulings = (
        abuse(facts, address, category.abuse, policy, span)
        for channel in facts.message.channels
        for address in addresses(facts.message, facts.person, channel)
    )
    return tuple(ruling for ruling in rulings if not ruling.permits)


def abuse(facts: Facts, address: Address, limit: FrequencyCap, policy: Policy, span: timedelta) -> Ruling:
    """What the limit to what one address may get says, by the clock of the person."""
    where = whereabouts(facts.message.body, facts.person.profile, address, policy)
    nobody, history = _on_address(facts, address, where.zones[0])
    return limit.explain(facts.now, span, nobody, history)


def _on_address(facts: Facts, address: Address, clock: ZoneInfo) -> tuple[Subject, Sequence[Contact]]:
    """As whose an address is asked about, and what it got: by one calendar, whomever it belongs to."""
    history = facts.on_addresses.get(fingerprint(address.value), ())
    return Subject(address.channel, facts.message.category, None, (clock,), zone("UTC")), history
