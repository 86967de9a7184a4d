"""How full are the caps of those who are contacted, and how hard are they pressed?

Pure. Of some of them: who has been contacted in a week is too many to ask each minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.acts import BANDS, MOST, PRESSURE, band
from gateway.whereabouts import whereabouts
from ratelimit import FrequencyCap, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from gateway.config import Policy
    from gateway.message import Profile
    from ratelimit import Contact

FULL: Final = "full"
USED: Final = ("none", "below_half", "below_full", FULL)
"""How much of a cap is used up, in words: of metrics, which must be few."""
PRESSED: Final = (*(name for most, name in BANDS if most), MOST)
"""The bands of those who have been contacted."""


@dataclass(frozen=True, slots=True)
class Contacted:
    """Somebody who was contacted lately."""

    person: str
    profile: Profile
    contacts: Sequence[Contact]
    """Those that count, as far back as any cap looks, and a week at least."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some of those who were contacted in the last week."""

    people: tuple[str, ...]
    covered: float
    """The part of the week within which these, and no others, were contacted: above 0; 1 where these are all."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of them."""

    persons: int
    caps: Mapping[str, Mapping[str, float]]
    """By cap, and by how much of it is used up: the share of those whose last contact it counts."""
    bands: Mapping[str, float]
    """By how many contacts they had in the last week: the share of all who had one."""


def chosen(last: Sequence[tuple[str, datetime]], scanned: int, most: int, now: datetime) -> Chosen:
    """Those who were contacted last.

    Args:
        last: contacts of the last week, the newest first: of whom, and when.
        scanned: as many contacts as were asked for at most; if there are so many, there may be more.
        most: persons to choose.
        now: when that was.
    """
    people: dict[str, datetime] = {}
    for person, begun in last:
        if person not in people and len(people) == most:
            break
        people[person] = begun
    else:
        if len(last) < scanned:
            return Chosen(tuple(people), 1.0)
    return Chosen(tuple(people), max((now - min(people.values())) / PRESSURE, _LEAST))


_LEAST = 1e-9
"""Of a week, so that everybody in a sample had some chance to be."""


def used(one: Contacted, policy: Policy, now: datetime, span: timedelta) -> dict[str, str]:
    """By cap, how much of it is used up for a message like the last one that the person got."""
    last = max(one.contacts, key=lambda contact: contact.begun)
    category = policy.categories.get(last.category)
    if category is None:
        return {}
    where = whereabouts({}, one.profile, None, policy)
    subject = Subject(
        last.channel,
        last.category,
        last.campaign,
        where.zones,
        where.calendar,
        labels=last.labels,
        country=where.country,
    )
    return {
        cap.name: _word(cap.held(now, span, subject, one.contacts), cap.limit)
        for cap in policy.rules(category)
        if isinstance(cap, FrequencyCap) and cap.only.covers(subject)
    }


def _word(held: int, limit: int) -> str:
    if held >= limit:
        return FULL
    return USED[0] if not held else USED[1] if 2 * held < limit else USED[2]


def pressed(one: Contacted, now: datetime) -> int:
    """How many contacts the person had in the week before."""
    return sum(contact.begun > now - PRESSURE for contact in one.contacts)


def measured(caps: Sequence[Mapping[str, str]], contacts: Sequence[int], covered: float) -> Measured:
    """What is found of a sample.

    Who is contacted often is likelier to be in it, and weighs that much less where all who were contacted are meant.

    Args:
        caps: of each person, see ``used``.
        contacts: of each person, see ``pressed``; at least one.
        covered: see ``Chosen``.
    """
    rules = sorted({cap for found in caps for cap in found})
    weights = [(band(number), weight(number, covered)) for number in contacts]
    return Measured(
        len(contacts),
        {cap: _shares(USED, [(found[cap], 1) for found in caps if cap in found]) for cap in rules},
        _shares(PRESSED, weights) if weights else {},
    )


def weight(contacts: int, covered: float) -> float:
    """How many with so many contacts in a week each of them stands for who had one within that part of it."""
    return 1 / (1 - (1 - covered) ** contacts)


def _shares(words: Iterable[str], weights: Sequence[tuple[str, float]]) -> dict[str, float]:
    whole = sum(number for _, number in weights)
    return {word: sum(number for of, number in weights if of == word) / whole for word in words}
