"""When do all rules permit a contact with a person, and what does each of them say?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from zoneinfo import ZoneInfo

HORIZON = timedelta(days=400)
"""How far rules look ahead. What none of them permits by then is never permitted."""


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

    def __post_init__(self) -> None:
        if not self.zones:  # nothing would ever be quiet
            raise ValueError("a subject needs at least one zone")


@dataclass(frozen=True, slots=True)
class Contact:
    """One counted contact with this person, as the ledger keeps it."""

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


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule, asked alone, says about one instant."""

    rule: str
    permits: bool
    next: datetime | None
    """The first instant that this rule permits: the one asked about if it permits, None if never."""
    why: str
    """A sentence for people, with the numbers."""
    held_by: tuple[str, ...] = ()
    """The messages that hold places under this rule, earliest first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """When all rules together permit a contact."""

    at: datetime | None
    """The first instant, not before the one asked about, that every rule permits; None: never."""
    rule: str | None
    """The first rule that objects at the instant asked about; None if all permit it."""
    never: str | None = None
    """With ``at`` None: the rule that would permit nothing any more before the horizon."""

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

    def applies(self, subject: Subject) -> bool:
        """Whether the rule has a say about this subject at all."""

    def first(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> datetime | None:
        """The first instant from ``at`` on that is permitted; None: none before the horizon."""

    def explain(self, at: datetime, span: timedelta, subject: Subject, history: Sequence[Contact]) -> Ruling:
        """The same answer for people."""


def earliest(
    at: datetime, span: timedelta, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact]
) -> Verdict:
    """The first instant from ``at`` on that every rule permits for the whole ``[at, at + span]``.

    Args:
        at: Aware.
        span: From the intent to the attempt's deadline, not negative.
        rules: Those that do not apply to the subject are passed over.
        subject: What is about to be sent.
        history: The person's counted contacts in any order, reaching back at least as far as the longest window.
    """
    at = _checked(at, span)
    applicable = [rule for rule in rules if rule.applies(subject)]
    instant, objector, agreed = at, None, False
    while not agreed:
        agreed = True
        for rule in applicable:
            permitted = rule.first(instant, span, subject, history)
            if permitted is None or permitted - at > HORIZON:
                return Verdict(None, objector or rule.name, rule.name)
            if permitted != instant:
                # Whoever agreed before agreed to another instant, and is asked again.
                instant, objector, agreed = permitted, objector or rule.name, False
    return Verdict(instant, objector)


def explain(
    at: datetime, span: timedelta, rules: Sequence[Rule], subject: Subject, history: Sequence[Contact]
) -> tuple[Ruling, ...]:
    """What each applicable rule, asked alone, says about ``at``. Takes what ``earliest`` takes.

    Apart from ``earliest`` because most verdicts are permissions that nobody reads.
    """
    at = _checked(at, span)
    return tuple(rule.explain(at, span, subject, history) for rule in rules if rule.applies(subject))


def named(subject: Subject, channels: Collection[str], categories: Collection[str]) -> bool:
    """Whether a rule that is narrowed to these applies; where none is named, all are."""
    return (not channels or subject.channel in channels) and (not categories or subject.category in categories)


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
