"""When do all rules permit a contact with a person, and what does each of them say?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from zoneinfo import ZoneInfo

HORIZON = timedelta(days=400)
"""How far rules look ahead. What none of them permits by then is never permitted."""


CRITICAL = 0
"""The priority that no release is spread for."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is about to be sent, as rules see it."""

    channel: str
    category: str
    campaign: str | None
    zones: tuple[ZoneInfo, ...]
    """Where the person may be, likeliest first, at least one. It is quiet if it is quiet in any of them."""
    calendar: ZoneInfo
    """The person's own zone, whose calendar days count; never a request's."""
    person: str = ""
    """Whose stable hash picks canaries and spreads releases."""
    priority: int = CRITICAL
    """The lower, the more urgent."""
    expires_at: datetime | None = None
    """No release is spread past it."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    country: str | None = None
    """ISO 3166-1 alpha-2, in upper case, of the person's number; None: not known, so it may be any."""

    def __post_init__(self) -> None:
        if not self.zones:  # nothing would ever be quiet
            raise ValueError("a subject needs at least one zone")


_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Contact(NamedTuple):
    """One counted contact with this person, as the ledger keeps it.

    A tuple, since a decision reads every contact of a month: it is made in a quarter of the time of a dataclass.
    """

    begun: datetime
    """The intent, UTC."""
    ended: datetime
    """The settlement, UTC; the attempt's deadline while it is under way or unknown, so it may lie ahead."""
    channel: str
    category: str
    campaign: str | None
    zone: ZoneInfo
    """The person's zone when it was made."""
    message: str
    labels: Mapping[str, str] = _NO_LABELS


@dataclass(frozen=True, slots=True)
class Only:
    """What a rule is narrowed to. What is empty narrows nothing."""

    channels: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    """Each label that must be there, with the values that it may have."""
    countries: frozenset[str] = frozenset()
    """A person whose country is not known may be in any of them. Contacts have none: they are the same person's."""

    def covers(self, subject: Subject) -> bool:
        """Whether the rule has a say about the subject."""
        return self.counts(subject) and (
            not self.countries or subject.country is None or subject.country in self.countries
        )

    def counts(self, of: Subject | Contact) -> bool:
        """Whether channel, category and labels are among those named."""
        return (
            (not self.channels or of.channel in self.channels)
            and (not self.categories or of.category in self.categories)
            and (not self.labels or self._labelled(of))
        )

    def among(self, contacts: Sequence[Contact]) -> Sequence[Contact]:
        """Those of the contacts that count; faster than asking one by one."""
        if channels := self.channels:
            contacts = [contact for contact in contacts if contact.channel in channels]
        if categories := self.categories:
            contacts = [contact for contact in contacts if contact.category in categories]
        return [contact for contact in contacts if self._labelled(contact)] if self.labels else contacts

    def _labelled(self, of: Subject | Contact) -> bool:
        return all(of.labels.get(label) in values for label, values in self.labels)


ALL = Only()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule, asked alone, says about one instant."""

    rule: str
    permits: bool
    next: datetime | None
    """The first instant that this rule permits: the one asked about if it permits, None if never."""
    why: str
    """A sentence for people, with the numbers, its instants by the clock of ``subject.zones[0]``."""
    held_by: tuple[Contact, ...] = ()
    """The contacts that hold places under this rule, earliest first."""
    enforced: bool = True
    """False: only in shadow. It holds nothing back."""
    at: datetime | None = None
    """The instant that it is about, where others hold the contact back until then; None: the one asked about."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """When all rules together permit a contact."""

    at: datetime | None
    """The first instant, not before the one asked about, that every rule permits; None: never."""
    rule: str | None
    """The first rule that objects at the instant asked about; None if all permit it."""
    never: str | None = None
    """With ``at`` None: the rule that would permit nothing any more before the horizon."""
    last: str | None = None
    """The rule that frees at ``at``; it is ``rule`` unless others hold the contact back after that one."""

    @property
    def allowed(self) -> bool:
        """The contact may be made at the instant asked about."""
        return self.rule is None


class Rule(Protocol):
    """A reason to hold a contact back.

    An attempt is the closed interval ``[at, at + span]``: a rule permits it only if it permits each of its instants.
    """

    @property
    def name(self) -> str:
        """As in the configuration."""

    @property
    def only(self) -> Only:
        """What it is narrowed to."""

    @property
    def enforce(self) -> float:
        """For how many persons in a hundred it is applied; for the others it is only recorded (shadow)."""

    @property
    def looks_back(self) -> timedelta:
        """How long after their end contacts matter to it at most; zero: it looks at clocks alone."""

    def first(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> datetime | None:
        """The first instant from ``at`` on that is permitted; None: none before the horizon."""

    def shuts(self, at: datetime, subject: Subject) -> datetime | None:
        """Until when, with no further contact, it goes on permitting what it permits at ``at``; None: for good."""

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """The same as ``first`` for people, as if it were enforced."""


def earliest(
    at: datetime, span: timedelta, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact]
) -> Verdict:
    """The first instant from ``at`` on that every rule permits for the whole ``[at, at + span]``.

    Args:
        at: Aware.
        span: From the intent to the attempt's deadline, not negative.
        rules: Those that do not apply to the subject, or are not enforced for the person, are passed over.
        subject: What is about to be sent.
        history: The person's counted contacts in any order, reaching back at least as far as the longest window.
    """
    at = _checked(at, span)
    applicable = _applied(rules, subject)
    instant, objector, last, agreed = at, None, None, False
    while not agreed:
        agreed = True
        for rule in applicable:
            permitted = rule.first(instant, span, subject, history)
            if permitted == instant:
                continue
            if permitted is None or permitted - at > HORIZON:
                return Verdict(None, objector or rule.name, rule.name)
            # Whoever agreed before agreed to another instant, and is asked again.
            instant, objector, last, agreed = permitted, objector or rule.name, rule.name, False
    return Verdict(instant, objector, last=last)


def explain(
    at: datetime, span: timedelta, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact]
) -> tuple[Ruling, ...]:
    """What each applicable rule, asked alone, says about ``at``, shadows included. Takes what ``earliest`` takes.

    Apart from ``earliest`` because most verdicts are permissions that nobody reads.
    """
    at = _checked(at, span)
    rulings = []
    for rule in rules:
        if rule.only.covers(subject):
            ruling = rule.explain(at, span, subject, history)
            rulings.append(ruling if enforced(rule, subject.person) else replace(ruling, enforced=False))
    return tuple(rulings)


def follow(
    at: datetime, span: timedelta, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact]
) -> tuple[Ruling, ...]:
    """What rules say that object later than ``at``, when those that object at ``at`` would let go: each rule once.

    Takes what ``earliest`` takes, and goes its way.
    """
    at = _checked(at, span)
    applicable = _applied(rules, subject)
    told: dict[str, Ruling] = {}
    instant, agreed = at, False
    while not agreed:
        agreed = True
        for rule in applicable:
            permitted = rule.first(instant, span, subject, history)
            if permitted == instant:
                continue
            if instant != at and rule.name not in told:
                told[rule.name] = replace(rule.explain(instant, span, subject, history), at=instant)
            if permitted is None or permitted - at > HORIZON:
                return tuple(told.values())
            instant, agreed = permitted, False
    return tuple(told.values())


def closes(at: datetime, rules: Sequence[Rule], subject: Subject) -> datetime | None:
    """Until when the rules that permit ``at`` go on doing so if there is no further contact; None: for good."""
    ends = (rule.shuts(at, subject) for rule in _applied(rules, subject))
    return min((end for end in ends if end is not None), default=None)


def _applied(rules: Sequence[Rule], subject: Subject) -> list[Rule]:
    """Those that hold a subject back: the others have no say about it, or are in shadow for its person.

    Looks for the plain case first, for every decision asks.
    """
    return [
        rule
        for rule in rules
        if (rule.only is ALL or rule.only.covers(subject))
        and (rule.enforce >= _ALL_PERSONS or enforced(rule, subject.person))
    ]


def enforced(rule: Rule, person: str) -> bool:
    """Whether a rule is applied to a person, or only recorded: the same every time, and drawn anew for each rule."""
    return rule.enforce >= _ALL_PERSONS or share(f"{rule.name}\x1f{person}") * _ALL_PERSONS < rule.enforce


_ALL_PERSONS = 100


def share(of: str) -> float:
    """Where in ``[0, 1)`` a text falls by its hash: evenly spread, and the same in every process for ever."""
    return int.from_bytes(blake2b(of.encode(), digest_size=6).digest()) / (1 << 48)


def first_clear(at: datetime, span: timedelta, shut: Iterable[tuple[datetime, datetime]]) -> datetime | None:
    """The first instant from ``at`` on whose ``[instant, instant + span]`` meets no shut interval.

    Args:
        at: UTC.
        span: Not negative.
        shut: ``[begins, ends)`` in the order of ``begins``; they may touch or overlap. Read no further than needed.

    Returns:
        None if that is beyond the horizon.
    """
    clear = at
    for begins, ends in shut:
        if begins > clear + span:
            break
        clear = max(clear, ends)
    return clear if clear - at <= HORIZON else None


def _checked(at: datetime, span: timedelta) -> datetime:
    if at.tzinfo is None:
        raise ValueError("an instant needs a zone")
    if span < timedelta(0):
        raise ValueError("a span cannot be negative")
    return at if at.tzinfo is UTC else at.astimezone(UTC)
