"""A policy as the lint looks at it: where each rule comes from, and whom it reaches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, timedelta

    from gateway.config.faults import Place
    from gateway.config.values import Category, Policy
    from providers import Channel
    from ratelimit import Only, Rule

    Pair = tuple[Channel, str]
    """A channel, and the name of a category whose messages may go by it."""

ALL_PERSONS = 100
"""As rules have it who are enforced for all."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rule comes from."""

    place: Place
    since: date | None = None
    """From when on it has been tried on some only, as far as that is told."""
    preset: str | None = None
    """That it is part of."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the author of a policy can hardly have meant."""

    place: Place
    problem: str
    """What, and how to mend it."""
    is_error: bool = False
    """It cannot have been meant at all."""


@dataclass(frozen=True)
class Draft:
    """A policy that has been read, and what it is to work with."""

    policy: Policy
    origins: Mapping[str, Origin]
    """Of each rule, by its name."""
    routes: frozenset[Channel]
    """The channels that have one."""
    attempt: timedelta
    """How long an attempt takes at most."""

    def place(self, rule: Rule, *keys: str) -> Place:
        """Of a rule, or of a key of it."""
        origin = self.origins[rule.name]
        return origin.place if origin.preset else (*origin.place, *keys)

    def channels(self, category: Category) -> tuple[Channel, ...]:
        """Those that messages of the category can really go by."""
        return tuple(channel for channel in category.channels or sorted(self.routes) if channel in self.routes)

    def exempt(self, rule: Rule, category: Category) -> bool:
        """Whether the category need not obey rules of this sort."""
        return category.caps_exempt if rule.looks_back else category.quiet_hours_exempt

    def reach(self, rule: Rule) -> frozenset[Pair]:
        """What the rule has a say about, whatever labels and countries it is narrowed to."""
        return self._reaches[rule.name]

    @cached_property
    def _reaches(self) -> Mapping[str, frozenset[Pair]]:
        return {rule.name: self._reach(rule) for rule in self.policy.all_rules}

    def _reach(self, rule: Rule) -> frozenset[Pair]:
        return frozenset(
            (channel, category.name)
            for category in self.policy.categories.values()
            if not self.exempt(rule, category) and category.name in (rule.only.categories or {category.name})
            for channel in self.channels(category)
            if channel in (rule.only.channels or {channel})
        )

    def wider(self, wide: Rule, narrow: Rule) -> bool:
        """Whether one has a say wherever the other has, for all persons."""
        return (
            wide.enforce >= ALL_PERSONS
            and self.reach(wide) >= self.reach(narrow)
            and _covers(wide.only.countries, narrow.only.countries)
            and _labels_cover(wide.only, narrow.only)
        )


def listed(words: Iterable[str], end: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} {end} {last}" if most else last


def _covers(wide: frozenset[str], narrow: frozenset[str]) -> bool:
    """Of narrowings, where nothing means everything."""
    return not wide or (bool(narrow) and wide >= narrow)


def _labels_cover(wide: Only, narrow: Only) -> bool:
    asked = dict(narrow.labels)
    return all(label in asked and asked[label] <= values for label, values in wide.labels)
