"""What may be done about an attempt whose outcome nobody knows, and when?

Pure. In this order: it is repeated by the vendor's idempotency key, within the time for which the vendor knows that;
the vendor is asked, by our reference; a receipt may come; then the category decides (``on_unknown``). It never goes to
another provider, channel or address, which could not know what the first has done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.message import AttemptState, OnUnknown
from gateway.retries import RETRY_BUDGET
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gateway.config import Policy
    from gateway.decide import Facts
    from gateway.message import Attempt
    from ratelimit import Contact

_REPEATS: Final = 1
"""How often a message is deliberately sent again."""
_HEARD: Final[Mapping[Channel, timedelta]] = {
    Channel.SMS: timedelta(minutes=15),
    Channel.ROBOCALL: timedelta(minutes=15),
    Channel.EMAIL: timedelta(hours=1),
    Channel.PUSH: timedelta(minutes=1),
}
"""How long evidence may take before a message is sent again.

Nearly all receipts of text messages and calls are there within a quarter of an hour. A relay may still be at work on a
mail whose answer we stopped waiting for (RFC 1047), and greylisting makes it come back to it within the hour. Nobody
reports on a notification, and a second one replaces the first on the device by its collapse key: there is nothing to
wait for but the late answer of a worker that was only slow.
"""
_ASKED: Final = timedelta(minutes=1)
"""How long a vendor that can be asked is given to tell, before a message is left as it is."""
FIRST_LOOK: Final = timedelta(seconds=10)
"""After which the vendor may know what it was asked to do. Then after four times as long each time."""


@dataclass(frozen=True, slots=True)
class Recourse:
    """What a provider offers where it never answered."""

    keyed: timedelta | None = None
    """How long after its first use a key may begin to be used again. None: the vendor knows no repeats."""
    looked_up: bool = False
    """The vendor can be asked what became of an attempt."""


@dataclass(frozen=True, slots=True)
class Again:
    """It may be sent again: by the same provider, to the same address."""

    keyed: bool
    """The vendor takes both for one, so they share a place."""
    at: datetime
    """Not before this instant."""
    until: datetime
    """Nor after it."""


@dataclass(frozen=True, slots=True)
class Left:
    """It is left as it is, from this instant on."""

    at: datetime


UNRESOLVED: Final = ("repeat", "look_up")
"""What is waited for by a message some attempt of which may have been sent: it is decided anew then, by all rules."""
NO_RECOURSE: Final = Recourse()
NO_RECOURSES: Final[Mapping[str, Recourse]] = MappingProxyType({})


def unsure(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those that may have been sent."""
    return [attempt for attempt in attempts if attempt.state is AttemptState.UNKNOWN] if attempts else []


def only_way(facts: Facts) -> Attempt | None:
    """The attempt by whose way alone a message may go: nobody else could know what that provider has done."""
    return doubtful[-1] if (doubtful := unsure(facts.attempts)) else None


def resolution(facts: Facts, policy: Policy, recourses: Mapping[str, Recourse], span: timedelta) -> Again | Left | None:
    """What is done about a message some attempt of which may have been sent; None: there is none.

    Args:
        facts: of a message none of whose attempts is under way.
        policy: in force.
        recourses: of the providers, by name.
        span: how long after a decision the first byte may still be written.
    """
    message, attempts, now = facts.message, facts.attempts, facts.now
    doubtful = unsure(attempts)
    if not doubtful:
        return None
    last = doubtful[-1]
    recourse = recourses.get(last.provider, NO_RECOURSE)
    if recourse.keyed is not None and facts.tries < RETRY_BUDGET:
        until = _first_use(attempts, last) + recourse.keyed - span
        if now <= until:
            return Again(keyed=True, at=now, until=until)
    category = policy.categories.get(message.category)
    again = (
        category is not None
        and category.on_unknown is OnUnknown.REPEAT
        and len({attempt.generation for attempt in doubtful}) <= _REPEATS
    )
    since = last.ended_at or last.begun_at
    wait = timedelta(0)
    if again and category is not None:
        wait = category.repeat_after or _HEARD[last.channel]
    elif recourse.looked_up:
        wait = _ASKED
    # What would expire meanwhile is sent again halfway: waiting longer would be to leave it.
    at = since + min(wait, max((message.expires_at - since) / 2, timedelta(0)))
    if not again:
        return Left(at if wait else now)
    return Again(keyed=False, at=at, until=message.expires_at)


def sharing(facts: Facts) -> Facts:
    """The same without the place that a message's own attempts hold: a repeat by their key uses that."""
    own = {(attempt.message, attempt.begun_at) for attempt in facts.attempts}

    def others(contacts: Sequence[Contact]) -> list[Contact]:
        return [contact for contact in contacts if (contact.message, contact.begun) not in own]

    on_addresses = {address: others(got) for address, got in facts.on_addresses.items()}
    return replace(facts, contacts=others(facts.contacts), on_addresses=on_addresses)


def key(
    facts: Facts,
    again: Again | Left | None,
    provider: str,
    way: tuple[Channel, str],
    recourses: Mapping[str, Recourse],
    span: timedelta,
) -> tuple[int, str | None]:
    """The generation of an attempt that is about to be made, and the one that the vendor takes it for.

    What certainly was not sent keeps its key, in case that is wrong, as long as the vendor knows it. What is sent again
    on purpose, or to another address, gets a new one: the vendor would answer for the first.

    Args:
        facts: of its message.
        again: see ``resolution``.
        provider: that is to be called.
        way: channel and fingerprint of the address.
        recourses: of the providers, by name.
        span: how long after now the first byte may still be written.
    """
    attempts = facts.attempts
    if not attempts:
        return 1, None
    doubtful = unsure(attempts)
    if isinstance(again, Again) and again.keyed:
        return doubtful[-1].generation, doubtful[-1].repeats or doubtful[-1].id
    sent = {attempt.generation for attempt in doubtful}
    same = [a for a in attempts if (a.provider, a.channel, a.address) == (provider, *way) and a.generation not in sent]
    keyed = recourses.get(provider, NO_RECOURSE).keyed
    if same and (keyed is None or facts.now + span <= _first_use(attempts, same[-1]) + keyed):
        return same[-1].generation, None
    return 1 + max(attempt.generation for attempt in attempts), None


def next_look(since: datetime, now: datetime) -> datetime:
    """When to look again at what has been unknown since then: soon at first, ever more rarely later."""
    wait = FIRST_LOOK
    while since + wait <= now:
        wait *= 4
    return since + wait


def _first_use(attempts: Sequence[Attempt], attempt: Attempt) -> datetime:
    """When the attempt's key was first used."""
    return min(a.begun_at for a in attempts if (a.provider, a.generation) == (attempt.provider, attempt.generation))
