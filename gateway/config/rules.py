"""The form of each part of ``policy``, and what it means as a rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

import ratelimit
from gateway.config import values
from gateway.config.forms import Part
from gateway.config.words import (
    WEEKDAYS,
    Count,
    Country,
    Date,
    Days,
    Flag,
    Hours,
    Length,
    Limit,
    Percent,
    Period,
    Some,
    Text,
    WallEnd,
    WallTime,
    Week,
    Weekday,
    Word,
    Wording,
    Zone,
    by_language,
    code_near,
    days_of,
    listed,
)
from gateway.fields import Channels
from gateway.message import OnUnknown, Priority, WhenCapped
from providers import Channel
from ratelimit import Scope

ABUSE: Final = "abuse"
"""The name of every category's limit per address."""
_OF_CODES: Final = ratelimit.FrequencyCap(ABUSE, 5, timedelta(hours=1))
_LABEL: Final = "labels."

PriorityWord = Literal["critical", "high", "normal", "bulk"]


def _scope(word: str) -> str:
    label = word.removeprefix(_LABEL)
    if word not in ("user", *Scope) and (label == word or not label):
        raise ValueError(f"must be one of user, {', '.join(Scope)} or labels.NAME")
    return word


def _short(length: timedelta) -> timedelta:
    if length > timedelta(days=30):
        raise ValueError("must be at most 30d: attempts are not remembered for longer")
    return length


def _under_a_day(length: timedelta) -> timedelta:
    if length >= timedelta(days=1):
        raise ValueError("must be less than 24h: after that the next hours would have begun")
    return length


def _observed(code: str) -> str:
    known = observed()
    if code not in known:
        raise ValueError(f"is not a country whose holidays are known{code_near(code, known) or ', such as JP'}")
    return code


def observed() -> dict[str, list[str]]:
    """The countries whose holidays are known, each with its subdivisions."""
    import holidays  # noqa: PLC0415 - looks into 250 modules, for the few who ask

    return holidays.list_supported_countries(include_aliases=False)


_Release = Annotated[Length, AfterValidator(_under_a_day)]
_Scope = Annotated[Text, AfterValidator(_scope)]


class Clock(Part):
    """What ``policy`` says of time."""

    timezone: Zone = "UTC"
    """The default only stands in where it has been told that there must be one."""
    week_start: Weekday = "monday"


class Countries(Part):
    """``policy.countries``, by a key of ours."""

    of: dict[Country, Zone] = Field(default_factory=dict)


class Abuse(Part):
    """``abuse`` of a category."""

    limit: Limit
    per: Annotated[Length, AfterValidator(_short)]

    def rule(self) -> ratelimit.FrequencyCap:
        """Its meaning."""
        return ratelimit.FrequencyCap(ABUSE, self.limit, self.per)


class Category(Part):
    """What stands under a name of ``policy.categories``."""

    priority: PriorityWord = "normal"
    channels: Annotated[Channels, BeforeValidator(listed)] | None = None
    caps: Literal["exempt"] | None = None
    quiet_hours: Literal["exempt"] | None = None
    counts: Flag | None = None
    expires_after: Length = timedelta(hours=72)
    on_unknown: OnUnknown = OnUnknown.LEAVE
    repeat_after: Length | None = None
    unsubscribe: Flag | None = None
    when_capped: WhenCapped = WhenCapped.DEFER
    collapse: Literal["newest"] | None = None
    abuse: Abuse | None = None
    tracked: Flag | None = None
    conversion_window: Length = timedelta(days=7)
    title: Wording = Field(default_factory=dict)

    def named(self, name: str) -> values.Category:
        """Its meaning.

        Unless the file says otherwise, what is exempt from caps does not count for them, and every mail can be
        unsubscribed from but those that people wait for: critical ones, and those sent at any hour. Critical ones that
        no cap holds, such as one-time codes, are limited per address: an attacker may ask for them in anybody's name.
        Opens and clicks are looked for in what people did not wait for.
        """
        critical, uncapped, exempt = self.priority == "critical", self.caps is not None, self.quiet_hours is not None
        return values.Category(
            name=name,
            priority=Priority[self.priority.upper()],
            channels=self.channels,
            caps_exempt=uncapped,
            quiet_hours_exempt=exempt,
            counts=not uncapped if self.counts is None else self.counts,
            expires_after=self.expires_after,
            on_unknown=self.on_unknown,
            repeat_after=self.repeat_after,
            unsubscribe=not (exempt or critical) if self.unsubscribe is None else self.unsubscribe,
            when_capped=self.when_capped,
            collapse=self.collapse is not None,
            tracked=not critical if self.tracked is None else self.tracked,
            conversion_window=self.conversion_window,
            title=by_language(self.title),
            abuse=self.abuse.rule() if self.abuse else _OF_CODES if critical and uncapped else None,
        )


class Rule(Part):
    """What rules have in common."""

    name: Word
    channel: Some[Channel] = ()
    category: Some[str] = ()
    label: dict[Text, Some[Text]] = Field(default_factory=dict)
    country: Some[Country] = ()
    """Of the person. One whose country is not known may be in any."""
    enforce: Percent = 100.0
    since: Date | None = None
    """From when on it has been tried on some only; the lint asks for a decision a month later."""

    def called(self) -> str:
        """Its name."""
        return self.name

    def only(self) -> ratelimit.Only:
        """What it is narrowed to."""
        return ratelimit.Only(
            frozenset(self.channel),
            frozenset(self.category),
            tuple((label, frozenset(self.label[label])) for label in sorted(self.label)),
            frozenset(self.country),
        )


class Scoped(Rule):
    """What rules that look back have in common."""

    scope: Some[_Scope] = ()

    def shared(self) -> tuple[frozenset[Scope], frozenset[str]]:
        """What contacts must share with a message to count, beside the person, who is part of it, written or not."""
        labels = frozenset(word.removeprefix(_LABEL) for word in self.scope if word.startswith(_LABEL))
        return frozenset(Scope(word) for word in self.scope if word in tuple(Scope)), labels


class Cap(Scoped):
    """One of ``policy.caps``."""

    limit: Limit
    per: Period
    reserve: dict[PriorityWord, Count] = Field(default_factory=dict)

    def rule(self, week_start: int) -> ratelimit.FrequencyCap:
        """Its meaning."""
        scope, labels = self.shared()
        return ratelimit.FrequencyCap(
            name=self.name,
            limit=self.limit,
            per=self.per,
            scope=scope,
            scope_labels=labels,
            only=self.only(),
            reserve=tuple(sorted((int(Priority[word.upper()]), places) for word, places in self.reserve.items())),
            week_start=week_start,
            enforce=self.enforce,
        )


class Gap(Scoped):
    """One of ``policy.minimum_gap``, which may be its length alone."""

    name: Word = "minimum_gap"
    gap: Length

    def rule(self) -> ratelimit.MinimumGap:
        """Its meaning."""
        scope, labels = self.shared()
        return ratelimit.MinimumGap(self.name, self.gap, scope, labels, self.only(), self.enforce)


class QuietHours(Rule):
    """One of ``policy.quiet_hours``."""

    start: WallTime = Field(alias="from")
    end: WallEnd = Field(alias="to")
    days: Some[Days] = ()
    release_over: _Release | None = None

    def rule(self) -> ratelimit.QuietHours:
        """Its meaning."""
        return ratelimit.QuietHours(
            name=self.name,
            start=self.start,
            end=self.end,
            days=weekdays(self.days),
            release_over=self.release_over or timedelta(0),
            only=self.only(),
            enforce=self.enforce,
        )


class SendWindow(Rule):
    """One of ``policy.send_windows``, which may do without a name."""

    name: Word = ""
    hours: Some[Hours]
    days: Some[Days] = ()
    release_over: _Release | None = None

    def rule(self) -> ratelimit.SendWindow:
        """Its meaning."""
        return ratelimit.SendWindow(
            name=self.called(),
            hours=self.hours,
            days=weekdays(self.days),
            release_over=self.release_over or timedelta(0),
            only=self.only(),
            enforce=self.enforce,
        )

    def called(self) -> str:
        """Its name, else one made of what it is for, which stays when others come and go."""
        return self.name or "-".join(("send-window", *self.channel, *self.category))


class Holidays(Rule):
    """One of ``policy.holidays``: ``country`` is whose holidays they are, ``person_country`` whom they are for."""

    of: Annotated[Text, AfterValidator(_observed)] = Field(alias="country")
    subdivision: Text | None = None
    country: Some[Country] = Field((), alias="person_country")

    def rule(self) -> ratelimit.Holidays:
        """Its meaning."""
        return ratelimit.Holidays(self.name, self.of, self.subdivision, self.only(), self.enforce)


class PresetUse(Part):
    """One of ``policy.presets``."""

    preset: Text
    category: Some[str] = Field(description="say which categories it is for")
    name: Word | None = None
    channel: Some[Channel] = ()
    label: dict[Text, Some[Text]] = Field(default_factory=dict)
    hours: Week | None = None
    limit: Limit | None = None
    enforce: Percent = 100.0
    since: Date | None = None
    override: Flag = False


def weekdays(words: tuple[str, ...]) -> frozenset[int]:
    """Those named; empty where all are meant."""
    days = days_of(words)
    return frozenset() if len(days) == len(WEEKDAYS) else days
