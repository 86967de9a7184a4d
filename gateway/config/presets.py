"""Rules of the trade as data: what a preset says, which rules it comes to, and where somebody asks for less of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, time, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal

import yaml
from pydantic import Field

import ratelimit
from gateway.config import week
from gateway.config.forms import Part
from gateway.config.words import WEEKDAYS, Count, Country, Flag, Length, Text, Week, weekly
from providers import Channel
from ratelimit import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.config.rules import PresetUse

_ALL_PERSONS: Final = 100
_ALSO: Final = {"US": ("AS", "GU", "MP", "PR", "VI"), "FR": ("BL", "GF", "GP", "MF", "MQ", "PM", "RE", "YT")}
"""Parts of a country that have a code of their own, in ISO 3166-1 and in telephone numbers; its laws hold there too."""


class PresetCap(Part):
    """How often."""

    limit: Count
    per: Length
    scope: tuple[Scope, ...]


class Preset(Part):
    """One row of ``presets.yaml``, which says what each field means. None may be left out."""

    country: Country
    state: Text | None
    channels: tuple[Channel, ...] = Field(min_length=1)
    purpose: Text = Field(alias="class")
    hours: Week | None
    holidays: Flag
    caps: tuple[PresetCap, ...]
    source: Text
    checked: date | Literal["not checked"]
    verified: Flag

    def allowed(self) -> int:
        """The minutes of a week in which people may be contacted."""
        return week.ALL if self.hours is None else week.allowed(weekly(self.hours))


@functools.cache
def known() -> Mapping[str, Preset]:
    """All that there are, by name."""
    rows = yaml.safe_load((files("gateway.config") / "presets.yaml").read_text(encoding="utf-8"))
    return {name: Preset.model_validate(row) for name, row in rows.items()}


def misfits(use: PresetUse, preset: Preset) -> Iterator[tuple[str, str]]:
    """What is asked of a preset that it cannot give: the key, and why."""
    if use.hours is not None and preset.hours is None:
        yield "hours", f"does not fit: {use.preset} has none of its own; write them under policy.quiet_hours"
    elif not allowed(use, preset):
        yield "hours", "leaves no hour of the week, nothing would ever be sent: allow some"
    if use.limit is not None and len(preset.caps) != 1:
        has = "several caps" if preset.caps else "no cap"
        yield "limit", f"does not fit: {use.preset} has {has}; write a stricter one under policy.caps"


def loosened(use: PresetUse, preset: Preset) -> Iterator[tuple[str, str]]:
    """Where less is asked for than the preset demands: the key, and a sentence of what is lost."""
    if more := allowed(use, preset) & ~preset.allowed():
        yield "hours", f"allows {week.sentence(more)}, where {use.preset} does not"
    for cap in preset.caps:
        if use.limit is not None and use.limit > cap.limit:
            yield "limit", f"allows {use.limit}, where {use.preset} allows {cap.limit}"
    if use.enforce < _ALL_PERSONS:
        yield "enforce", f"leaves out {_ALL_PERSONS - use.enforce:g}% of the persons, where {use.preset} holds for all"
    if use.label and preset.state is None:
        labels = " and ".join(sorted(use.label))
        yield "label", f"leaves out messages without {labels} as named, where {use.preset} holds for all of them"
    if use.channel and (left_out := sorted(set(preset.channels).difference(use.channel))):
        yield "channel", f"leaves out {', '.join(left_out)}, which {use.preset} holds for"


def allowed(use: PresetUse, preset: Preset) -> int:
    """The minutes of a week that are left: the preset's, on the days for which no other hours are asked."""
    if use.hours is None or preset.hours is None:
        return preset.allowed()
    own, wanted = weekly(preset.hours), weekly(use.hours)
    daily = "daily" in use.hours
    named = weekly({word: spans for word, spans in use.hours.items() if word != "daily"})
    days = {day: wanted[day] for day in wanted if day in named or (daily and own.get(day))}
    return week.allowed(own | days)


@dataclass(frozen=True, slots=True)
class Made:
    """The rules that a preset comes to."""

    caps: tuple[ratelimit.FrequencyCap, ...]
    quiet_hours: tuple[ratelimit.QuietHours, ...]
    holidays: tuple[ratelimit.Holidays, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all of them."""
        caps, quiet, days = self.caps, self.quiet_hours, self.holidays
        return (*(cap.name for cap in caps), *(hours.name for hours in quiet), *(day.name for day in days))


def rules(use: PresetUse, preset: Preset) -> Made:
    """What it comes to. Names begin with the preset's and are the same as long as the data are."""
    prefix = f"{use.preset}-{use.name}" if use.name else use.preset
    only = ratelimit.Only(
        frozenset(use.channel or preset.channels),
        frozenset(use.category),
        tuple((label, frozenset(use.label[label])) for label in sorted(use.label)),
        frozenset({preset.country, *_ALSO.get(preset.country, ())}),
    )
    caps = tuple(
        ratelimit.FrequencyCap(
            f"{prefix}-{week.length(cap.per // timedelta(minutes=1))}",
            use.limit or cap.limit,
            cap.per,
            frozenset(cap.scope),
            only=only,
            enforce=use.enforce,
        )
        for cap in preset.caps
    )
    quiet = tuple(
        ratelimit.QuietHours(f"{prefix}-{name}", start, end, days, only=only, enforce=use.enforce)
        for name, start, end, days in _closed(allowed(use, preset))
    )
    days = ratelimit.Holidays(f"{prefix}-holidays", preset.country, None, only, use.enforce)
    return Made(caps, quiet, (days,) if preset.holidays else ())


def _closed(open_minutes: int) -> list[tuple[str, time, time, frozenset[int]]]:
    """The other hours of the week, each with a name and the weekdays on which they begin.

    Named by the days that they are quiet on, or by the nights; what is quiet for a whole day, from noon or later on, is
    named by the next.
    """
    days: dict[tuple[int, int], set[int]] = {}
    for start, length in week.runs(week.ALL & ~open_minutes):
        for begins in range(start, start + length, week.DAY):
            ends = min(begins + week.DAY, start + length)
            days.setdefault((begins % week.DAY, ends % week.DAY), set()).add(begins // week.DAY % len(WEEKDAYS))
    found: dict[str, tuple[str, time, time, frozenset[int]]] = {}
    for (begins, ends), named in sorted(days.items()):
        whole = begins == ends and begins * 2 >= week.DAY
        name = _spelt({(day + whole) % len(WEEKDAYS) for day in named})
        if ends < begins and ends:
            name = _nights(named)
        name = f"{name}-{begins // 60:02}{begins % 60:02}" if name in found else name
        every = frozenset() if len(named) == len(WEEKDAYS) else frozenset(named)
        found[name] = name, time(*divmod(begins, 60)), time(*divmod(ends, 60)), every
    return list(found.values())


def _nights(days: set[int]) -> str:
    """``night``, ``saturday-night`` or ``sunday-to-friday-nights``, by the evenings on which they begin."""
    if len(days) == len(WEEKDAYS):
        return "night"
    return f"{_spelt(days)}-night{'s' if len(days) > 1 else ''}"


def _spelt(days: set[int]) -> str:
    """``daily``, ``saturday``, ``sunday-to-friday`` or ``monday-wednesday``."""
    if len(days) == len(WEEKDAYS):
        return "daily"
    for first in days:
        row = [(first + step) % len(WEEKDAYS) for step in range(len(days))]
        if len(days) > 1 and set(row) == days:
            return f"{WEEKDAYS[first]}-to-{WEEKDAYS[row[-1]]}"
    return "-".join(WEEKDAYS[day] for day in sorted(days))
