"""What the sections of the file mean together: each one typed, then held against the others."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

import orjson
from pydantic import BaseModel, ValidationError

import providers
from gateway.config import forms
from gateway.config.faults import nearest, unknown
from gateway.config.values import (
    DAY,
    BrokerConfig,
    Category,
    Config,
    EventsConfig,
    HttpConfig,
    Key,
    Policy,
    Retention,
    WorkerConfig,
    window,
)
from gateway.message import Priority
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.faults import Faults, Place

SECTIONS: Final = (
    "store",
    "broker",
    "http",
    "keys",
    "providers",
    "routes",
    "events",
    "retention",
    "worker",
    "policy",
)
POLICY_SECTIONS: Final = ("timezone", "week_start", "categories", "caps", "minimum_gap", "quiet_hours")


M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=forms.Rule)


class Reading:
    """One pass over one file, collecting what is wrong.

    Each method returns the best that could be read, which counts only if no fault was found anywhere.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def config(self, root: object) -> Config:
        """The whole."""
        at = self._mapping(root, (), SECTIONS)
        self._required(root, (), ("providers", "routes", "policy"))
        configured = self._providers(at.get("providers"))
        worker = self._section(forms.Worker, at.get("worker"), ("worker",))
        policy = self._policy(at.get("policy"), at.get("routes"), worker.attempt)
        return Config(
            store=self._section(forms.Store, _among(at, forms.Store), ()).store,
            broker=self._broker(at.get("broker")),
            http=self._http(at.get("http"), at.get("keys")),
            keys=self._keys(at.get("keys")),
            providers=configured,
            routes=self._routes(at.get("routes"), at.get("providers"), configured),
            events=self._events(at.get("events"), at.get("broker")),
            retention=self._retention(at.get("retention"), policy),
            worker=WorkerConfig({p: getattr(worker.in_flight, p.word) for p in Priority}, worker.attempt),
            policy=policy,
        )

    # --------------------------------------------------------------------------------------------------------- sections

    def _broker(self, value: object) -> BrokerConfig | None:
        if value is None:
            return None
        part = self._typed(forms.Broker, {"url": value} if isinstance(value, str) else value, ("broker",))
        return BrokerConfig(part.url, part.topology, part.prefetch) if part else None

    def _http(self, value: object, keys: object) -> HttpConfig:
        part = self._section(forms.Http, value, ("http",))
        if not keys and not part.private.loopback:
            self._faults.add(
                ("http", "private"),
                "must be a loopback address, such as 127.0.0.1:8080, while there are no keys: whoever reaches it could "
                "send; add keys to bind another",
            )
        if part.public and not part.public_url:
            self._faults.add(("http", "public_url"), "is missing: add how the world reaches http.public")
        if part.public_url and not part.public:
            self._faults.add(("http", "public"), "is missing: add where the listener behind http.public_url is bound")
        if part.public == part.private and part.private.port:
            self._faults.add(("http", "public"), "must differ from http.private, which the world must not reach")
        return HttpConfig(part.private, part.public, part.public_url)

    def _keys(self, value: object) -> tuple[Key, ...]:
        keys: list[Key] = []
        for place, item in self._items(value, ("keys",)):
            if part := self._typed(forms.Key, item, place):
                self._distinct(part.name, [key.name for key in keys], (*place, "name"))
                self._distinct(part.sha256, [key.sha256 for key in keys], (*place, "sha256"))
                keys.append(Key(part.name, part.sha256, frozenset(part.scopes)))
        return tuple(keys)

    def _providers(self, value: object) -> dict[str, providers.Settings]:
        configured, kinds = {}, providers.kinds()
        for name, settings in self._mapping(value, ("providers",)).items():
            place = ("providers", name)
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
                self._faults.add(place, "must be named with 1 to 32 of a-z, 0-9, _ and -, a letter first")
            given = self._mapping(settings, place)
            kind = given.get("kind")
            if not given and settings:
                continue  # it is no mapping, which has been told
            if kind not in kinds:
                self._faults.add((*place, "kind"), f"must be one of {', '.join(kinds)}{nearest(kind, kinds)}")
            elif part := self._typed(providers.settings_of(str(kind)), given, place):
                configured[name] = part
        return configured

    def _routes(
        self, value: object, named: object, configured: Mapping[str, providers.Settings]
    ) -> dict[Channel, tuple[str, ...]]:
        routes = {}
        known = tuple(named) if isinstance(named, dict) else ()
        for word, listed in self._mapping(value, ("routes",)).items():
            place = ("routes", word)
            if word not in tuple(Channel):
                near = nearest(word, Channel)
                self._faults.add(place, f"is not a channel; there are {', '.join(Channel)}{near}")
                continue
            names = self._section(forms.Route, {"to": listed}, place).to
            routes[Channel(word)] = names
            for name in names:
                if known and name not in known:
                    self._faults.add(place, f"{name!r} is not under providers{nearest(name, known)}")
                elif name in configured and word not in providers.channels(configured[name]):
                    kind = configured[name].kind
                    able = [name for name in configured if word in providers.channels(configured[name])]
                    these = f"; these can: {', '.join(able)}" if able else ""
                    self._faults.add(place, f"{name!r} is a {kind} and cannot send on this channel{these}")
        return routes

    def _events(self, value: object, broker: object) -> EventsConfig:
        part = self._section(forms.Events, value, ("events",))
        if value is not None and broker is None:
            self._faults.add(("events",), "needs a broker to go to: add broker, or remove events")
        return EventsConfig(part.exchange, frozenset(part.states if broker else ()))

    def _retention(self, value: object, policy: Policy) -> Retention:
        part = self._section(forms.Retention, value, ("retention",))
        lengths = chain(((window(cap), cap.name) for cap in policy.caps), ((gap.gap, gap.name) for gap in policy.gaps))
        for length, name in lengths:
            days = -(-length // DAY)
            if length == policy.longest_window and part.contacts < length + DAY:
                self._faults.add(
                    ("retention", "contacts"),
                    f"must be at least {days + 1}d: {name!r} in the policy looks back {days}d",
                )
        return Retention(part.messages, part.contacts)

    # ----------------------------------------------------------------------------------------------------------- policy

    def _policy(self, value: object, routes: object, attempt: timedelta) -> Policy:
        place = ("policy",)
        at = self._mapping(value, place, POLICY_SECTIONS)
        self._required(value, place, ("timezone", "categories"))
        clock = self._section(forms.Clock, _among(at, forms.Clock), place)
        given = self._mapping(at.get("categories"), (*place, "categories"))
        known = tuple(given)
        caps = self._rules(forms.Cap, at.get("caps"), (*place, "caps"), known)
        gap = at.get("minimum_gap")
        gap = gap if gap is None or isinstance(gap, list) else [{"gap": gap}]
        gaps = self._rules(forms.Gap, gap, (*place, "minimum_gap"), known)
        hours = self._rules(forms.QuietHours, at.get("quiet_hours"), (*place, "quiet_hours"), known)
        names: list[str] = []
        for where, rule in (*caps, *gaps, *hours):
            self._distinct(rule.name, names, (*where, "name"))
            names.append(rule.name)
        for where, part in hours:
            self._openings(where, part, attempt)
        rules = (
            tuple(cap.rule(forms.WEEKDAYS.index(clock.week_start)) for _, cap in caps),
            tuple(gap.rule() for _, gap in gaps),
            tuple(night.rule() for _, night in hours),
        )
        last_resort, categories = ZoneInfo(clock.timezone), self._categories(given, routes)
        return Policy(last_resort, categories, *rules, hash=_hash(last_resort, categories, *rules))

    def _categories(self, given: Mapping[str, object], routes: object) -> dict[str, Category]:
        categories = {}
        for name, value in given.items():
            place = ("policy", "categories", name)
            if not forms.WORD.fullmatch(name):
                self._faults.add(place, "must be named with 1 to 64 of A-Z, a-z, 0-9, _ and -, a letter first")
            part = self._typed(forms.Category, value, place)
            if not part:
                continue
            categories[name] = part.named(name)
            if part.channels and isinstance(routes, dict) and routes and not any(c in routes for c in part.channels):
                these = ", ".join(part.channels)
                self._faults.add(
                    (*place, "channels"), f"has no route to go by ({these}): add one under routes, or a channel"
                )
        return categories

    def _rules(self, model: type[R], value: object, place: Place, known: tuple[str, ...]) -> list[tuple[Place, R]]:
        rules = []
        for where, item in self._items(value, place):
            if part := self._typed(model, item, where):
                for name in sorted(set(part.category).difference(known)):
                    problem = f"{name!r} is not under policy.categories{nearest(name, known)}"
                    self._faults.add((*where, "category"), problem)
                rules.append((where, part))
        return rules

    def _openings(self, place: Place, part: forms.QuietHours, attempt: timedelta) -> None:
        hours, minutes = part.start.hour - part.end.hour, part.start.minute - part.end.minute
        opening = timedelta(hours=hours, minutes=minutes) % DAY
        if not opening:
            self._faults.add((*place, "to"), "must differ from its from: nothing would ever be sent")
        elif opening <= attempt:
            self._faults.add(
                (*place, "to"), "leaves no time to send: an attempt takes longer (worker.attempt) than it is not quiet"
            )

    # ------------------------------------------------------------------------------------------------------------ parts

    def _mapping(self, value: object, place: Place, known: tuple[str, ...] = ()) -> dict[str, object]:
        """What is written there; nothing is an empty mapping. ``known``: the only keys, if any."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._faults.add(place, f"must be a mapping{', key: value' if place else ' of sections, policy: …'}")
            return {}
        if known:
            for key in value:
                if key not in known:
                    self._faults.add((*place, key), unknown(key, known))
        return value

    def _required(self, at: object, place: Place, keys: Iterable[str]) -> None:
        if isinstance(at, dict):
            for key in keys:
                if at.get(key) in (None, {}):
                    self._faults.add((*place, key), "is missing: add it")

    def _items(self, value: object, place: Place) -> list[tuple[Place, object]]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._faults.add(place, "must be a list, [one, another]")
            return []
        return [((*place, index), item) for index, item in enumerate(value)]

    def _distinct(self, word: str, others: Iterable[str], place: Place) -> None:
        if word in others:
            self._faults.add(place, "is used twice: choose another")

    def _typed(self, model: type[M], value: object, place: Place) -> M | None:
        """The part, or None and a fault for each thing wrong with it."""
        try:
            return model.model_validate({} if value is None else value)
        except ValidationError as error:
            self._faults.add_typed(place, model, error)
            return None

    def _section(self, model: type[M], value: object, place: Place) -> M:
        """The same, as if nothing were written there where something is wrong with it."""
        return self._typed(model, value, place) or model()


def _among(at: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """The part of a mapping that is written as keys of its own among others."""
    return {key: at[key] for key in model.model_fields if at.get(key) is not None}


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
