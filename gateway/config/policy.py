"""What ``policy`` means: its rules, those of its presets, and its categories, held against one another."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

import orjson

from gateway.config import presets, rules, week
from gateway.config.draft import Origin
from gateway.config.faults import nearest
from gateway.config.parts import Parts, among
from gateway.config.values import Category, Policy
from gateway.config.words import NAMED, WEEKDAYS, WORD, code_near
from ratelimit import zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.config.faults import Place
    from ratelimit import FrequencyCap, Holidays, QuietHours

SECTIONS: Final = (
    "timezone",
    "week_start",
    "countries",
    "categories",
    "caps",
    "minimum_gap",
    "quiet_hours",
    "send_windows",
    "holidays",
    "presets",
)
_PLACE: Final = ("policy",)

R = TypeVar("R", bound=rules.Rule)


class Reading:
    """One pass over one policy, collecting what is wrong."""

    def __init__(self, parts: Parts, routes: object) -> None:
        self._parts = parts
        self._faults = parts.faults
        self._routes = routes
        self._known: tuple[str, ...] = ()
        self._origins: dict[str, Origin] = {}

    def policy(self, value: object) -> Policy:
        """The whole; the best that could be read, which counts only if no fault was found."""
        at = self._parts.mapping(value, _PLACE, SECTIONS)
        self._parts.required(value, _PLACE, ("timezone", "categories"))
        clock = self._parts.section(rules.Clock, among(at, rules.Clock), _PLACE)
        countries = self._parts.section(rules.Countries, {"of": at.get("countries") or {}}, (*_PLACE, "countries")).of
        categories = self._categories(at.get("categories"))
        caps = self._rules(rules.Cap, at.get("caps"), "caps")
        gaps = self._gaps(at.get("minimum_gap"))
        nights = self._rules(rules.QuietHours, at.get("quiet_hours"), "quiet_hours")
        windows = self._rules(rules.SendWindow, at.get("send_windows"), "send_windows")
        days = self._rules(rules.Holidays, at.get("holidays"), "holidays")
        self._openings(nights)
        week_start = WEEKDAYS.index(clock.week_start)
        more_caps, more_nights, more_days = self._presets(at.get("presets"))
        meaning = (
            zone(clock.timezone),
            categories,
            (*(cap.rule(week_start) for cap in self._reserves(caps)), *more_caps),
            tuple(gap.rule() for _, gap in gaps),
            (*(night.rule() for _, night in nights), *more_nights),
            tuple(window.rule() for window in self._releases(windows)),
            (*(day.rule() for day in self._subdivisions(days)), *more_days),
            {country: zone(countries[country]) for country in sorted(countries)},
        )
        return Policy(*meaning, hash=_hash(*meaning))

    def origins(self) -> Mapping[str, Origin]:
        """Where each rule of the policy comes from, by its name."""
        return self._origins

    def _categories(self, value: object) -> dict[str, Category]:
        categories = {}
        given = self._parts.mapping(value, (*_PLACE, "categories"))
        self._known = tuple(given)
        for name, described in given.items():
            place = (*_PLACE, "categories", name)
            if not WORD.fullmatch(name):
                self._faults.add(place, f"must be named with {NAMED}")
            part = self._parts.typed(rules.Category, described, place)
            if not part:
                continue
            categories[name] = part.named(name)
            routes = self._routes
            if part.channels and isinstance(routes, dict) and routes and not any(c in routes for c in part.channels):
                these = ", ".join(part.channels)
                self._faults.add(
                    (*place, "channels"), f"has no route to go by ({these}): add one under routes, or a channel"
                )
        return categories

    def _rules(self, model: type[R], value: object, section: str) -> list[tuple[Place, R]]:
        found = []
        for where, item in self._parts.items(value, (*_PLACE, section)):
            found += self._rule(model, item, where)
        return found

    def _rule(self, model: type[R], item: object, where: Place) -> list[tuple[Place, R]]:
        part = self._parts.typed(model, item, where)
        if not part:
            return []
        self._known_categories(part.category, where)
        self._originate(part.called(), Origin(where, part.since))
        return [(where, part)]

    def _gaps(self, value: object) -> list[tuple[Place, rules.Gap]]:
        if value is None or isinstance(value, list):
            return self._rules(rules.Gap, value, "minimum_gap")
        return self._rule(rules.Gap, {"gap": value}, (*_PLACE, "minimum_gap"))

    def _originate(self, name: str, origin: Origin) -> None:
        if name == rules.ABUSE:
            self._faults.add(
                (*origin.place, "name"), "is what the categories' limit per address is called: choose another"
            )
        self._parts.distinct(name, self._origins, (*origin.place, "name"))
        self._origins.setdefault(name, origin)

    def _known_categories(self, named: Iterable[str], where: Place) -> None:
        for name in sorted(set(named).difference(self._known)):
            problem = f"{name!r} is not under policy.categories{nearest(name, self._known)}"
            self._faults.add((*where, "category"), problem)

    def _openings(self, found: Iterable[tuple[Place, rules.QuietHours]]) -> None:
        for where, part in found:
            if part.start == part.end and not rules.weekdays(part.days):
                problem = "must differ from its from, nothing would ever be sent: change one, or add days"
                self._faults.add((*where, "to"), problem)

    def _subdivisions(self, found: Iterable[tuple[Place, rules.Holidays]]) -> Iterator[rules.Holidays]:
        for where, part in found:
            known = rules.observed()[part.of]
            if part.subdivision is None or part.subdivision in known:
                yield part
                continue
            near = code_near(part.subdivision, known)
            near = near or (f"; there are {', '.join(known)}" if known else ": leave it out")
            problem = f"is not a subdivision of {part.of} whose holidays are known{near}"
            self._faults.add((*where, "subdivision"), problem)

    def _reserves(self, found: Iterable[tuple[Place, rules.Cap]]) -> Iterator[rules.Cap]:
        for where, part in found:
            kept = sum(part.reserve.values())
            if kept >= part.limit:
                self._faults.add(
                    (*where, "reserve"),
                    f"keeps {kept} of {part.limit} places, the least urgent could never be sent: keep fewer, or raise "
                    f"the limit",
                )
            else:
                yield part

    def _releases(self, found: Iterable[tuple[Place, rules.SendWindow]]) -> Iterator[rules.SendWindow]:
        for where, part in found:
            shortest = min((week.length_of(*hours) for hours in part.hours), default=week.DAY)
            if part.release_over and part.release_over >= timedelta(minutes=shortest):
                least = week.length(shortest)
                self._faults.add(
                    (*where, "release_over"),
                    f"must be shorter than each of the hours, and one lasts {least}: lower it, or lengthen them",
                )
            else:
                yield part

    def _presets(self, value: object) -> tuple[list[FrequencyCap], list[QuietHours], list[Holidays]]:
        caps: list[FrequencyCap] = []
        nights: list[QuietHours] = []
        days: list[Holidays] = []
        for where, item in self._parts.items(value, (*_PLACE, "presets")):
            use = self._parts.typed(rules.PresetUse, item, where)
            if not use:
                continue
            self._known_categories(use.category, where)
            preset = presets.known().get(use.preset)
            if preset is None:
                near = nearest(use.preset, presets.known()) or f"; there are {', '.join(presets.known())}"
                self._faults.add((*where, "preset"), f"is not a preset{near}")
            elif self._fits(use, preset, where):
                made = presets.rules(use, preset)
                caps += made.caps
                nights += made.quiet_hours
                days += made.holidays
                for name in made.names:
                    self._originate(name, Origin(where, use.since, use.preset))
        return caps, nights, days

    def _fits(self, use: rules.PresetUse, preset: presets.Preset, where: Place) -> bool:
        """Whether there is something to make of it; tells what does not fit, what is loosened and what is unproven."""
        misfits = dict(presets.misfits(use, preset))
        for key, problem in misfits.items():
            self._faults.add((*where, key), problem)
        source = f"source: {preset.source}"
        losses = list(presets.loosened(use, preset))
        if use.override and not losses:
            self._faults.warn((*where, "override"), "loosens nothing: remove it, lest it hide what does one day")
        for key, loss in losses:
            if use.override:
                self._faults.warn((*where, key), f"loosens {use.preset} by override: it {loss} ({source})")
            elif key not in misfits:
                problem = f"{loss}: tighten it, or add override: true to loosen the preset knowingly ({source})"
                self._faults.add((*where, key), problem)
        if not preset.verified:
            self._faults.warn(
                (*where, "preset"),
                f"{use.preset} has not been verified: compare its hours and numbers with the law before you rely on "
                f"it ({source}; checked: {preset.checked})",
            )
        return not misfits


def _hash(*meaning: object) -> str:
    """Of the rules themselves, so that a release in which a default changes shows as another policy."""

    def plain(value: object) -> object:
        match value:
            case frozenset():
                return sorted(value)
            case timedelta():
                return value.total_seconds()
            case ZoneInfo():
                return value.key
            case _:
                raise TypeError(f"{type(value)} has no canonical form")

    return hashlib.sha256(orjson.dumps(meaning, default=plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
