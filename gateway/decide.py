"""What to do with a message: may it go, when, by which channel and provider, and what an answer or a receipt means.

Pure: every function takes ``now`` and all that it looks at. The worker, ``explain`` and the tests call the same ones.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from phonenumbers.timezone import UNKNOWN_TIMEZONE, time_zones_for_number

from gateway.message import (
    Address,
    AttemptState,
    Message,
    MessageState,
    OnUnknown,
    Person,
    Priority,
    Refusal,
    addresses,
    instant,
    microseconds,
    number_of,
)
from providers import (
    Channel,
    Misconfigured,
    ProviderError,
    ReceiptStatus,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from ratelimit import Subject, earliest, explain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.config import Category, Policy
    from gateway.message import Attempt, Profile
    from ratelimit import Contact, Ruling

RETRY_BUDGET = 24
"""Tries that failed at the provider before a message is given up; about four hours with the waits below."""
_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=15)
_BUSY_WAIT = timedelta(seconds=1)
_REPEAT_WAIT = timedelta(minutes=1)
"""How long a receipt may take to settle an unknown outcome before a message that may be repeated is."""
_REPEATS = 1
BUG = "bug"


@dataclass(frozen=True, slots=True)
class Health:
    """What this process knows of its providers."""

    failing: Collection[str] = frozenset()
    """Tried last."""
    paused: Mapping[str, datetime] = field(default_factory=dict)
    """Not tried before that instant: the vendor said so."""
    full: Collection[str] = frozenset()
    """As many attempts under way as the provider's ``concurrency`` allows."""


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


@dataclass(frozen=True, slots=True)
class Attempting:
    """It may go now, and this is how."""

    address: Address
    provider: str
    deadline: datetime
    zone: str
    """Whose calendar the contact is counted in."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """It may not go now. It waits, and nothing is lost."""

    until: datetime
    rule: str
    why: tuple[Ruling, ...] = ()
    place: bool = False
    """Whether a place that another gives back may let it go sooner."""
    burns: bool = False
    """Whether this wait uses up a try: only after a provider failed."""
    will_expire: bool = False
    """It cannot go before it expires, unless a place is given back."""


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
class Outcome:
    """What became of an attempt."""

    state: AttemptState
    reference: str | None = None
    error: str | None = None
    """Its kind and code, such as ``unavailable:refused``."""
    retry_after: timedelta | None = None
    burns: bool = True
    failing: bool = False
    """The provider is at fault, not the message or the address."""
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class _Meaning:
    state: AttemptState
    burns: bool = True
    failing: bool = False
    throttled: bool = False


_MEANINGS: Mapping[type[ProviderError], _Meaning] = {
    Unavailable: _Meaning(AttemptState.NOT_SENT, failing=True),
    Throttled: _Meaning(AttemptState.NOT_SENT, burns=False, throttled=True),
    Unconfirmed: _Meaning(AttemptState.UNKNOWN),
    Rejected: _Meaning(AttemptState.REJECTED),
    Unreachable: _Meaning(AttemptState.UNREACHABLE),
    Misconfigured: _Meaning(AttemptState.NOT_SENT, failing=True),
}


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy in force, the routes and their health: everything that decides but the facts."""

    policy: Policy
    number: int
    """The policy's version."""
    routes: Mapping[Channel, Sequence[str]]
    patience: Mapping[str, timedelta]
    """Per provider: how long after the deadline its answer may still come."""
    span: timedelta
    """How long after a decision the first byte may still be written."""
    events: frozenset[MessageState] = frozenset()
    """The states that others want to hear of."""
    health: Health = Health()

    def next_step(self, facts: Facts, tried: Collection[str] = ()) -> Step:
        """See ``next_step``."""
        return next_step(facts, self.policy, self.routes, self.health, self.span, tried=tried)

    def after(self, facts: Facts, outcome: Outcome) -> Step | None:
        """See ``after``."""
        return after(facts, outcome, self.policy)

    def counts(self, message: Message) -> bool:
        """Whether a contact by this message is held against others."""
        return self.policy.categories[message.category].counts


def accepted(reference: str) -> Outcome:
    """The provider took it."""
    return Outcome(AttemptState.ACCEPTED, reference)


def failed(error: ProviderError) -> Outcome:
    """The provider did not take it, or never answered."""
    meaning = _MEANINGS[type(error)]
    return Outcome(
        meaning.state,
        error=f"{type(error).__name__.lower()}:{error.code}",
        retry_after=error.retry_after if isinstance(error, Throttled) else None,
        burns=meaning.burns,
        failing=meaning.failing,
        throttled=meaning.throttled,
    )


def bug() -> Outcome:
    """The adapter itself broke, and nobody can say how far it came."""
    return Outcome(AttemptState.UNKNOWN, error=BUG)


def next_step(
    facts: Facts,
    policy: Policy,
    routes: Mapping[Channel, Sequence[str]],
    health: Health,
    span: timedelta,
    *,
    tried: Collection[str] = (),
) -> Step:
    """Take one message as far as a decision can.

    Args:
        span: how long after now the first byte may still be written.
        tried: providers that failed it since it last waited.
    """
    message, now = facts.message, facts.now
    category = policy.categories.get(message.category)
    if category is None:
        return Ended(MessageState.PARKED, "unknown_category")
    if now >= message.expires_at:
        return _ended(facts, MessageState.EXPIRED, "expires_at")
    if not _may_repeat(facts, policy):
        return Ended(MessageState.UNKNOWN, _last_error(facts))
    address = _reachable(facts, routes)
    if isinstance(address, Refusal):
        if facts.attempts:
            return _ended(facts, MessageState.FAILED, _last_error(facts))
        return Ended(MessageState.REFUSED, address)
    zones, home = zones_of(message, facts.person.profile, address, policy)
    rules, subject = policy.rules(category), _subject(message, address, zones, home)
    # Later than now only where the clock has been set back: no place is free before what was done is past.
    asked = max(now, *(contact.begun for contact in facts.contacts)) if rules and facts.contacts else now
    verdict = earliest(asked, span, rules, subject, facts.contacts)
    if verdict.at != now:
        why = explain(asked, span, rules, subject, facts.contacts)
        if verdict.at is None:
            return _ended(facts, MessageState.REFUSED, Refusal.NEVER, why)
        return Deferred(
            min(verdict.at, message.expires_at),
            verdict.rule or "clock",
            why,
            place=any(ruling.held_by and not ruling.permits for ruling in why),
            will_expire=verdict.at >= message.expires_at,
        )
    provider = _provider(address, routes, health, tried, message.priority, now)
    if isinstance(provider, Deferred):
        return provider if provider.until < message.expires_at else _until_expiry(provider, message)
    if provider is None:
        return _later(facts)
    return Attempting(address, provider, now + span, home.key)


def after(facts: Facts, outcome: Outcome, policy: Policy) -> Step | None:
    """What an outcome alone decides; None: ask ``next_step``, with the outcome among the attempts."""
    if outcome.state is AttemptState.ACCEPTED:
        return Ended(MessageState.SENT, "accepted")
    if outcome.error == BUG:
        return Ended(MessageState.PARKED, BUG)
    if outcome.state is AttemptState.UNKNOWN:
        if _may_repeat(facts, policy) and facts.now < facts.message.expires_at:
            return Deferred(min(facts.now + _REPEAT_WAIT, facts.message.expires_at), "repeat")
        return Ended(MessageState.UNKNOWN, outcome.error or "unconfirmed")
    return None


def _ended(facts: Facts, state: MessageState, reason: str, why: tuple[Ruling, ...] = ()) -> Ended:
    """An end; what may have been sent stays that, whatever comes of its repeat."""
    unknown = next((a for a in facts.attempts if a.state is AttemptState.UNKNOWN), None)
    return Ended(MessageState.UNKNOWN, unknown.error or "unconfirmed", why) if unknown else Ended(state, reason, why)


def _may_repeat(facts: Facts, policy: Policy) -> bool:
    unknown = sum(attempt.state is AttemptState.UNKNOWN for attempt in facts.attempts)
    category = policy.categories.get(facts.message.category)
    return unknown <= (_REPEATS if category and category.on_unknown is OnUnknown.REPEAT else 0)


def _until_expiry(deferred: Deferred, message: Message) -> Deferred:
    return Deferred(message.expires_at, deferred.rule, burns=deferred.burns, will_expire=True)


def _reachable(facts: Facts, routes: Mapping[Channel, Sequence[str]]) -> Address | Refusal:
    """The first channel, in the request's order, on which the person can be reached and has not said no."""
    message, person = facts.message, facts.person
    refusal = Refusal.NO_ADDRESS
    for channel in message.channels:
        if any(a.channel is channel and a.state is AttemptState.REJECTED for a in facts.attempts):
            continue
        if any(optout.covers(channel, message.category) for optout in person.optouts):
            refusal = Refusal.OPTED_OUT
            continue
        for address in addresses(message, person, channel):
            if (channel, address.value) in person.suppressed:
                refusal = Refusal.SUPPRESSED if refusal is Refusal.NO_ADDRESS else refusal
            elif _route(address, routes) and not _spent(facts, address):
                return address
    return refusal


def _spent(facts: Facts, address: Address) -> bool:
    return bool(facts.attempts) and any(
        attempt.channel is address.channel
        and attempt.state is AttemptState.UNREACHABLE
        and attempt.address == fingerprint(address.value)
        for attempt in facts.attempts
    )


def fingerprint(address: str) -> str:
    """Tells addresses apart without being one."""
    return hashlib.sha256(address.encode()).hexdigest()[:32]


def zones_of(
    message: Message | None, profile: Profile, address: Address, policy: Policy
) -> tuple[tuple[ZoneInfo, ...], ZoneInfo]:
    """The zones the person may be in, likeliest first, and the one whose calendar counts (never a request's).

    The request's zone, else the profile's, else those of the phone number, else the policy's.
    """
    own = (ZoneInfo(profile.timezone),) if profile.timezone else ()
    known = own or _zones_of_number(profile.phone) or (policy.zone,)
    if message and message.timezone:
        return (ZoneInfo(message.timezone),), known[0]
    called = address.value if address.channel in (Channel.SMS, Channel.ROBOCALL) else None
    return own or _zones_of_number(called) or known, known[0]


@functools.lru_cache(maxsize=65_536)
def _zones_of_number(number: str | None) -> tuple[ZoneInfo, ...]:
    parsed = number_of(number) if number else None
    names = time_zones_for_number(parsed) if parsed else ()
    return tuple(ZoneInfo(name) for name in names if name != UNKNOWN_TIMEZONE)


def _subject(message: Message, address: Address, zones: tuple[ZoneInfo, ...], home: ZoneInfo) -> Subject:
    return Subject(
        channel=address.channel,
        category=message.category,
        campaign=message.campaign,
        zones=zones,
        calendar=home,
    )


def _route(address: Address, routes: Mapping[Channel, Sequence[str]]) -> list[str]:
    """The providers that can use an address."""
    return [name for name in routes.get(address.channel, ()) if address.provider in (None, name)]


def _provider(
    address: Address,
    routes: Mapping[Channel, Sequence[str]],
    health: Health,
    tried: Collection[str],
    priority: Priority,
    now: datetime,
) -> str | Deferred | None:
    """The provider to try next; a wait, where the vendors asked for one; None, where all have failed it."""
    usable = [name for name in _route(address, routes) if name not in tried]
    if not usable:
        return None
    free = [name for name in usable if health.paused.get(name, now) <= now]
    if not free:
        return Deferred(min(health.paused[name] for name in usable), "throttled")
    ready = [name for name in free if name not in health.full or priority is Priority.CRITICAL]
    if not ready:
        return Deferred(now + _BUSY_WAIT, "busy")
    return next((name for name in ready if name not in health.failing), ready[0])


def _later(facts: Facts) -> Step:
    """Every provider of the route has failed it for now."""
    if facts.tries >= RETRY_BUDGET:
        return _ended(facts, MessageState.FAILED, _last_error(facts))
    if not facts.attempts:
        return Ended(MessageState.REFUSED, Refusal.NO_ADDRESS)
    until = facts.now + backoff(facts.message.id, facts.tries)
    burns = not (facts.attempts[-1].error or "").startswith("throttled")
    deferred = Deferred(until, "retry", burns=burns)
    return deferred if until < facts.message.expires_at else _until_expiry(deferred, facts.message)


def backoff(message: str, tries: int) -> timedelta:
    """Twice as long each time, spread by a stable hash so that what failed together does not come back together."""
    wait: timedelta = min(_FIRST_WAIT * 2 ** min(tries, 10), _LONGEST_WAIT)
    spread = 0.5 + hashlib.blake2b(f"{message}/{tries}".encode(), digest_size=1).digest()[0] / 255
    return wait * spread


def _last_error(facts: Facts) -> str:
    return next((a.error for a in reversed(facts.attempts) if a.error), "unknown")


# The further along, the more is known. A receipt moves an attempt forward or not at all, so their order is no matter.
_RANK: Mapping[AttemptState, int] = {
    AttemptState.INTENT: 0,
    AttemptState.NOT_SENT: 1,
    AttemptState.UNKNOWN: 1,
    AttemptState.REJECTED: 1,
    AttemptState.UNREACHABLE: 1,
    AttemptState.ACCEPTED: 2,
    AttemptState.UNDELIVERED: 3,
    AttemptState.DELIVERED: 4,
}
_RECEIPTS: Mapping[ReceiptStatus, AttemptState] = {
    ReceiptStatus.ACCEPTED: AttemptState.ACCEPTED,
    ReceiptStatus.DELIVERED: AttemptState.DELIVERED,
    ReceiptStatus.UNDELIVERED: AttemptState.UNDELIVERED,
    ReceiptStatus.UNREACHABLE: AttemptState.UNDELIVERED,
}


def amended(state: AttemptState, status: ReceiptStatus) -> AttemptState | None:
    """The state that a receipt moves an attempt to; None where it changes nothing."""
    news = _RECEIPTS.get(status)
    return news if news and _RANK[news] > _RANK[state] else None


_SETTLED: Mapping[AttemptState, MessageState] = {
    AttemptState.DELIVERED: MessageState.DELIVERED,
    AttemptState.ACCEPTED: MessageState.SENT,
    AttemptState.UNDELIVERED: MessageState.UNDELIVERED,
    AttemptState.UNKNOWN: MessageState.UNKNOWN,
}


def state_of(*, due: bool, attempts: Sequence[Attempt], ended: MessageState | None) -> MessageState:
    """A message's state, from what is recorded of it.

    Args:
        due: whether it is not settled yet.
        attempts: all of them.
        ended: the state of its last final decision.
    """
    states = {attempt.state for attempt in attempts}
    if due:
        return MessageState.SENDING if AttemptState.INTENT in states else MessageState.WAITING
    if ended is MessageState.PARKED:
        return ended
    best = next((_SETTLED[state] for state in _SETTLED if state in states), None)
    return best or ended or MessageState.WAITING


def explained(
    facts: Facts, policy: Policy, routes: Mapping[Channel, Sequence[str]], span: timedelta
) -> tuple[Ruling, ...]:
    """What each rule says of a message now."""
    address = _reachable(facts, routes)
    if isinstance(address, Refusal):
        return ()
    zones, home = zones_of(facts.message, facts.person.profile, address, policy)
    rules = policy.rules(policy.categories[facts.message.category])
    return explain(facts.now, span, rules, _subject(facts.message, address, zones, home), facts.contacts)


def line_of(message: Message, category: Category) -> int:
    """Which of a person's lines a message waits in; 0 where no rule binds it, so that it waits behind nothing."""
    if category.caps_exempt and category.quiet_hours_exempt:
        return 0
    key = "\x1f".join((message.category, " ".join(message.channels), message.campaign or ""))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), signed=True) or 1


def bucket_of(person: str) -> int:
    """The part of 1024 that a person belongs to."""
    return int.from_bytes(hashlib.blake2b(person.encode(), digest_size=2).digest()) % 1024


def why_json(rulings: Sequence[Ruling]) -> list[dict[str, Any]]:
    """Rulings as they are stored and shown."""
    return [
        {
            "rule": ruling.rule,
            "permits": ruling.permits,
            "next": instant(microseconds(ruling.next)).isoformat() if ruling.next else None,
            "why": ruling.why,
            **({"held_by": list(ruling.held_by)} if ruling.held_by else {}),
        }
        for ruling in rulings
    ]
