"""What the sections of the file mean together: each one typed, then held against the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import providers
from gateway.acts import WITNESSED
from gateway.config import forms, lint, lint_urls, policy
from gateway.config.faults import nearest
from gateway.config.parts import Parts, among
from gateway.config.values import (
    DAY,
    BrokerConfig,
    Config,
    EventsConfig,
    HttpConfig,
    Key,
    PagesConfig,
    Policy,
    ReportConfig,
    Retention,
    Route,
    Step,
    Target,
    Webhook,
    WorkerConfig,
)
from gateway.config.words import by_language
from gateway.message import Priority
from gateway.webhooks.topics import matches
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from gateway.config.faults import Faults, Place

SECTIONS: Final = (
    "store",
    "broker",
    "http",
    "pages",
    "keys",
    "providers",
    "routes",
    "events",
    "webhooks",
    "retention",
    "worker",
    "policy",
    "report",
)

_UNSEEN: Final = ("policy.timezone", "policy.week_start")
"""What the lint never looks at, so that a fault of it hides none of its findings."""


class Reading:
    """One pass over one file, collecting what is wrong.

    Each method returns the best that could be read, which counts only if no fault was found anywhere.
    """

    def __init__(self, faults: Faults, today: date) -> None:
        self._faults = faults
        self._parts = Parts(faults)
        self._today = today

    def config(self, root: object) -> Config:
        """The whole."""
        at = self._parts.mapping(root, (), SECTIONS)
        self._parts.required(root, (), ("providers", "routes", "policy"))
        configured = self._providers(at.get("providers"))
        routes = self._routes(at.get("routes"), at.get("providers"), configured)
        worker = self._parts.section(forms.Worker, at.get("worker"), ("worker",))
        reading = policy.Reading(self._parts, at.get("routes"))
        rules = reading.policy(at.get("policy"))
        if not self._faults.any("policy", "routes", "worker", but=_UNSEEN):
            draft = lint.Draft(rules, reading.origins(), frozenset(routes), worker.attempt)
            self._tell(lint.findings(draft, self._today))
        http = self._http(at.get("http"), at.get("keys"))
        self._tell(lint_urls.findings(http.public_url, configured, routes))
        events = self._events(at.get("events"), at.get("broker") or at.get("webhooks"))
        return Config(
            store=self._parts.section(forms.Store, among(at, forms.Store), ()).store,
            broker=self._broker(at.get("broker")),
            http=http,
            pages=PagesConfig(by_language(self._parts.section(forms.Pages, at.get("pages"), ("pages",)).name)),
            keys=self._keys(at.get("keys")),
            providers=configured,
            routes=routes,
            events=events,
            webhooks=self._webhooks(at.get("webhooks"), events),
            retention=self._retention(at.get("retention"), rules),
            worker=WorkerConfig({p: getattr(worker.in_flight, p.word) for p in Priority}, worker.attempt),
            policy=rules,
            report=self._report(at.get("report"), at.get("policy")),
            warnings=self._faults.warnings(),
        )

    def _tell(self, findings: Iterable[lint.Finding]) -> None:
        for finding in findings:
            (self._faults.add if finding.is_error else self._faults.warn)(finding.place, finding.problem)

    # --------------------------------------------------------------------------------------------------------- sections

    def _broker(self, value: object) -> BrokerConfig | None:
        if value is None:
            return None
        part = self._parts.typed(forms.Broker, {"url": value} if isinstance(value, str) else value, ("broker",))
        return BrokerConfig(part.url, part.topology, part.prefetch) if part else None

    def _http(self, value: object, keys: object) -> HttpConfig:
        part = self._parts.section(forms.Http, value, ("http",))
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
        return HttpConfig(part.private, part.public, part.public_url, part.proxies, part.machines)

    def _keys(self, value: object) -> tuple[Key, ...]:
        keys: list[Key] = []
        for place, item in self._parts.items(value, ("keys",)):
            if part := self._parts.typed(forms.Key, item, place):
                self._parts.distinct(part.name, [key.name for key in keys], (*place, "name"))
                self._parts.distinct(part.sha256, [key.sha256 for key in keys], (*place, "sha256"))
                keys.append(Key(part.name, part.sha256, frozenset(part.scopes)))
        return tuple(keys)

    def _providers(self, value: object) -> dict[str, providers.Settings]:
        configured, kinds = {}, providers.kinds()
        for name, settings in self._parts.mapping(value, ("providers",)).items():
            place = ("providers", name)
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
                self._faults.add(place, "must be named with 1 to 32 of a-z, 0-9, _ and -, a letter first")
            given = self._parts.mapping(settings, place)
            kind = given.get("kind")
            if not given and settings:
                continue  # it is no mapping, which has been told
            if kind not in kinds:
                self._faults.add((*place, "kind"), f"must be one of {', '.join(kinds)}{nearest(kind, kinds)}")
            elif part := self._parts.typed(providers.settings_of(str(kind)), given, place):
                configured[name] = part
        return configured

    def _routes(
        self, value: object, named: object, configured: Mapping[str, providers.Settings]
    ) -> dict[Channel, Route]:
        routes = {}
        known = tuple(named) if isinstance(named, dict) else ()
        for word, listed in self._parts.mapping(value, ("routes",)).items():
            place = ("routes", word)
            if word not in tuple(Channel):
                near = nearest(word, Channel)
                self._faults.add(place, f"is not a channel; there are {', '.join(Channel)}{near}")
                continue
            route = routes[Channel(word)] = self._route(listed, place)
            for name in route:
                if known and name not in known:
                    self._faults.add(place, f"{name!r} is not under providers{nearest(name, known)}")
                elif name in configured and word not in providers.channels(configured[name]):
                    kind = configured[name].kind
                    able = [name for name in configured if word in providers.channels(configured[name])]
                    these = f"; these can: {', '.join(able)}" if able else ""
                    self._faults.add(place, f"{name!r} is a {kind} and cannot send on this channel{these}")
        return routes

    def _route(self, value: object, place: Place) -> Route:
        if not isinstance(value, dict):
            return Route(self._parts.section(forms.Route, {"to": value}, place).to)
        weights = self._parts.section(forms.Weights, {"to": value}, place).to
        names = tuple(sorted(weights, key=lambda name: (-weights[name], name)))
        return Route(names, tuple(weights[name] for name in names))

    def _events(self, value: object, hears: object) -> EventsConfig:
        part = self._parts.section(forms.Events, value, ("events",))
        if value is not None and not hears:
            self._faults.add(("events",), "needs somebody to hear them: add broker or webhooks, or remove events")
        return EventsConfig(
            part.exchange, frozenset(part.states if hears else ()), frozenset(part.acts if hears else ())
        )

    def _webhooks(self, value: object, events: EventsConfig) -> tuple[Webhook, ...]:
        found: list[Webhook] = []
        told = events.routing_keys
        for place, item in self._parts.items(value, ("webhooks",)):
            if (part := self._parts.typed(forms.Webhook, item, place)) is None:
                continue
            self._parts.distinct(part.name, [other.name for other in found], (*place, "name"))
            for other in found:
                if set(part.secrets) & set(other.keys):
                    problem = f"are known to {other.name!r} too, which could forge what is for this one: make others"
                    self._faults.add((*place, "secrets"), problem)
            for pattern in part.events:
                if not any(matches(pattern, key) for key in told):
                    near = nearest(pattern, sorted(told)) or ": events.states and events.acts say what is told"
                    self._faults.add((*place, "events"), f"{pattern!r} is no event that is told{near}")
            keys, timeout = part.secrets, part.timeout
            found.append(Webhook(part.name, part.url, keys, part.events, timeout, part.concurrency, part.private))
        return tuple(found)

    def _retention(self, value: object, policy: Policy) -> Retention:
        part = self._parts.section(forms.Retention, value, ("retention",))
        abuse = (category.abuse for category in policy.categories.values() if category.abuse)
        longest = max((*policy.all_rules, *abuse), key=lambda rule: rule.looks_back, default=None)
        if longest and part.contacts < longest.looks_back + DAY:
            days = -(-longest.looks_back // DAY)
            self._faults.add(
                ("retention", "contacts"),
                f"must be at least {days + 1}d: {longest.name!r} in the policy looks back {days}d",
            )
        return Retention(part.messages, part.contacts)

    def _report(self, value: object, policy: object) -> ReportConfig:
        at = self._parts.mapping(value, ("report",), ("targets",))
        given = policy.get("categories") if isinstance(policy, dict) else None
        categories = tuple(given) if isinstance(given, dict) else ()
        targets: list[Target] = []
        for place, item in self._parts.items(at.get("targets"), ("report", "targets")):
            if (part := self._parts.typed(forms.Target, item, place)) is None:
                continue
            target = part.target()
            for step, key, stage in ((target.step, "step", "stage"), (target.of, "of", "of_stage")):
                if getattr(target, stage) is not None and step is not Step.CONVERTED:
                    self._faults.add((*place, stage), f"belongs to {key}: converted: change {key}, or remove {stage}")
            if (target.step, target.stage) == (target.of, target.of_stage):
                self._faults.add((*place, "of"), "must differ from its step: all of it has come so far")
            if categories and target.category is not None and target.category not in categories:
                problem = f"{target.category!r} is not under policy.categories{nearest(target.category, categories)}"
                self._faults.add((*place, "category"), problem)
            for step in (target.step, target.of):
                if target.channel and target.channel not in WITNESSED.get(step, {target.channel}):
                    problem = f"nobody learns whether it was {step}, so this is never told: change step, or channel"
                    self._faults.warn((*place, "channel"), f"{target.channel} is a channel of which {problem}")
            if target in targets:
                self._faults.add(place, "is written twice: remove one")
            targets.append(target)
        return ReportConfig(tuple(targets))
