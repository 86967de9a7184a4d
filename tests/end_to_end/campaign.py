"""What is sent in these tests, to whom, and what must become of each request. Knows nothing of the gateway's code."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

CANARY = "canary"
"""Part of every content, mail address and push token: it must not turn up in a log."""
PHONES = "+8190"
"""What every phone number begins with, for the same reason."""
SOURCES = ("shop", "bank")
CHANNELS = ("email", "sms", "push", "robocall")
CAMPAIGNS = ("spring", "autumn")
PRIORITY = {"one_time_code": "critical", "transactional": "high", "news": "normal", "reactivation": "bulk"}
CATEGORIES, _SHARES = tuple(PRIORITY), (8, 20, 37, 35)
REPEATABLE = frozenset({"transactional"})
"""Categories whose ``on_unknown`` is ``repeat``."""
QUIET_FROM, QUIET_TO = 21, 8

_CITIES = (
    *("Pacific/Honolulu", "America/Anchorage", "America/Los_Angeles", "America/Chicago", "America/New_York"),
    *("America/Sao_Paulo", "Atlantic/Azores", "Europe/London", "Europe/Berlin", "Europe/Moscow", "Asia/Karachi"),
    *("Asia/Kolkata", "Asia/Bangkok", "Asia/Tokyo", "Australia/Brisbane", "Pacific/Auckland", "Pacific/Apia"),
)
_TAG = re.compile(r"\bq([0-9]+)\b")

SENT = frozenset({"sent", "delivered"})
WAITS = frozenset({"waiting"})
REFUSED = frozenset({"refused"})


def policy(zone: str) -> dict[str, Any]:
    """As the configuration has it. ``oracle.RULES`` says the same in the oracle's own words."""
    return {
        "timezone": zone,
        "categories": {
            "one_time_code": {"priority": "critical", "caps": "exempt", "quiet_hours": "exempt"},
            "transactional": {
                "priority": "high",
                "quiet_hours": "exempt",
                "on_unknown": "repeat",
                "repeat_after": "1m",  # so that the test need not wait as long as receipts may take
            },
            "news": {"priority": "normal"},
            "reactivation": {"priority": "bulk", "expires_after": "14d"},
        },
        "caps": [
            {"name": "daily", "limit": 4, "per": "24h"},
            {"name": "push-week", "limit": 2, "per": "week", "channel": "push"},
            {
                "name": "campaign-month",
                "limit": 2,
                "per": "30d",
                "scope": ["user", "campaign"],
                "category": "reactivation",
            },
        ],
        "minimum_gap": "1s",
        "quiet_hours": [{"name": "night", "from": f"{QUIET_FROM:02}:00", "to": f"{QUIET_TO:02}:00"}],
    }


@dataclass(frozen=True)
class Person:
    """One who is told things."""

    name: str
    number: int
    zone: str
    """Their own, whose calendar counts."""
    quiet: bool
    """It is night there, and stays so while the test lasts."""
    profile: dict[str, Any] | None
    """As it is published; None: nothing is known of them but what requests say."""
    optouts: tuple[dict[str, str], ...] = ()

    @property
    def phone(self) -> str:
        return f"{PHONES}{self.number:08}"

    @property
    def token(self) -> str:
        return f"{CANARY}-token-{self.number}"

    def refuses(self, channel: str, category: str) -> bool:
        return any(no.get("channel", channel) == channel and no.get("category", category) == category
                   for no in self.optouts)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A valid request, and what may become of it."""

    tag: int
    source: str
    id: str
    person: Person
    category: str
    channel: str
    """By which it must go, if it goes."""
    address: str
    campaign: str | None
    zone: str
    """Whose quiet hours hold."""
    body: dict[str, Any]
    fate: frozenset[str]
    """The states of which it must reach one."""
    vanishes: bool = False
    """The vendor never answers this one, so that it is ``unknown`` without any crash."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.source, self.id)

    @property
    def line(self) -> bytes:
        return json.dumps(self.body, ensure_ascii=False).encode()

    @property
    def priority(self) -> str:
        return PRIORITY[self.category]


@dataclass(frozen=True)
class Malformed:
    """A body that must be parked, with a fault at each of these places."""

    body: bytes
    paths: tuple[str, ...]
    priority: str = "normal"


@dataclass
class Campaign:
    """All of it."""

    zone: str
    people: list[Person] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    conflicts: list[Request] = field(default_factory=list)
    """Of a request that is there, with another body."""
    repeats: list[Request] = field(default_factory=list)

    def queues(self, seed: int) -> dict[str, list[bytes]]:
        """The lines to publish, per priority: mixed, but what repeats or contradicts a request comes after it."""
        choose = random.Random(seed)
        rank: dict[int, float] = {}
        placed: list[tuple[float, str, bytes]] = []
        for request in self.requests:
            rank[request.tag] = choose.random()
            placed.append((rank[request.tag], request.priority, request.line))
        later = (*self.repeats, *self.conflicts)
        placed += [(choose.uniform(rank[again.tag], 1), again.priority, again.line) for again in later]
        placed += [(choose.random(), bad.priority, bad.body) for bad in self.malformed]
        queues: dict[str, list[bytes]] = {priority: [] for priority in PRIORITY.values()}
        for _, priority, line in sorted(placed, key=lambda item: item[0]):
            queues[priority].append(line)
        return queues

    @property
    def profiles(self) -> list[bytes]:
        return [json.dumps({"user": p.name, **p.profile}).encode() for p in self.people if p.profile is not None]


def tag_of(text: str) -> int | None:
    """Which request a content or a mail address belongs to."""
    found = _TAG.search(text)
    return int(found[1]) if found else None


def zones(now: datetime) -> tuple[list[str], list[str]]:
    """Zones where it is well inside the day, and where it is well inside the night."""
    day, night = [], []
    for city in _CITIES:
        local = now.astimezone(ZoneInfo(city))
        hour = local.hour + local.minute / 60
        if QUIET_TO + 1.5 <= hour <= QUIET_FROM - 2.5:
            day.append(city)
        elif hour >= QUIET_FROM + 1.5 or hour <= QUIET_TO - 2.5:
            night.append(city)
    return day, night


def plan(size: int, *, seed: int, steered: bool, sources: tuple[str, ...] = SOURCES) -> Campaign:
    """``size`` distinct requests, and what comes with them.

    ``steered``: some go to addresses that vendors refuse, or do not answer for.
    """
    return _Planner(size, seed, steered=steered, sources=sources).campaign


class _Planner:
    def __init__(self, size: int, seed: int, *, steered: bool, sources: tuple[str, ...]) -> None:
        self._random = random.Random(seed)
        self._day, self._night = zones(datetime.now(UTC))
        self._sources = sources
        self.campaign = Campaign(self._day[0])
        self._opted_out(size // 10)
        self._quiet(size * 12 // 100)
        self._greedy(size * 30 // 100)
        self._bare(size // 10)
        self._unreachable(max(2, size // 200))
        if steered:
            self._steered(max(7, size // 100))
        self._light(size - len(self.campaign.requests))
        self._same_id_of_two(size // 100)
        requests = self.campaign.requests
        self.campaign.repeats = self._random.sample(requests, size // 20)
        self.campaign.conflicts = [_otherwise(r) for r in self._random.sample(requests, max(3, size // 200))]
        self.campaign.malformed = self._malformed(size // 50)

    def _person(self, zone: str, *, bare: bool = False, push: bool = True, **more: Any) -> Person:
        number = len(self.campaign.people) + 1
        profile = None
        person = Person(f"person-{number}", number, zone, zone in self._night, None, **more)
        if not bare:
            profile = {"timezone": zone, "phone": person.phone, "email": f"p{number}@{CANARY}.example"}
            if push:
                provider = {"provider": "pushco"} if number % 5 == 0 else {}
                profile["push"] = [{"token": person.token, "platform": "android", **provider}]
            if person.optouts:
                profile["opted_out"] = list(person.optouts)
        person = Person(person.name, number, zone, person.quiet, profile, person.optouts)
        self.campaign.people.append(person)
        return person

    def _awake(self, **more: Any) -> Person:
        return self._person(self._random.choice(self._day), **more)

    def _request(
        self,
        person: Person,
        *,
        channel: str | None = None,
        category: str | None = None,
        address: str | None = None,
        fallback: str | None = None,
        fate: frozenset[str] | None = None,
        **more: Any,
    ) -> None:
        """``address`` overrides the person's, on ``channel``. ``fallback``: the channel that comes second."""
        choose = self._random
        channel = channel or choose.choice(CHANNELS)
        category = category or choose.choices(CATEGORIES, _SHARES)[0]
        campaign = choose.choice(CAMPAIGNS) if category == "reactivation" else None
        tag = len(self.campaign.requests) + 1
        body: dict[str, Any] = {
            "id": f"r-{tag}",
            "source": choose.choice(self._sources),
            "user": person.name,
            "category": category,
            "content": {channel: _content(channel, tag)},
        }
        if fallback:
            body["content"][fallback] = _content(fallback, tag)
            body["channels"] = [channel, fallback]
        elif choose.random() < 0.5:
            body["channels"] = [channel]
        if campaign:
            body["campaign"] = campaign
        to: dict[str, Any] = {}
        goes_by = fallback or channel
        if address is not None:
            to = _to(channel, address)
        elif goes_by == "email":
            to = {"email": f"p{person.number}+q{tag}@{CANARY}.example"}
        elif person.profile is None or (choose.random() < 0.2 and not fallback):
            to = _to(goes_by, person.token if goes_by == "push" else person.phone)
        if to:
            body["to"] = to
        if person.profile is None:
            body["timezone"] = person.zone
        if choose.random() < 0.2:
            body["labels"] = {"team": "growth"}
        self.campaign.requests.append(
            Request(
                tag=tag,
                source=body["source"],
                id=body["id"],
                person=person,
                category=category,
                channel=goes_by,
                address=_reached(person, goes_by, {} if address is not None and fallback else to),
                campaign=campaign,
                zone=person.zone,
                body=body,
                fate=fate or self._fate(person, goes_by, category),
                **more,
            )
        )

    @staticmethod
    def _fate(person: Person, channel: str, category: str) -> frozenset[str]:
        if person.refuses(channel, category):
            return REFUSED
        if category == "one_time_code" or (category == "transactional" and person.quiet):
            return SENT | (WAITS if category == "transactional" else frozenset())
        return WAITS if person.quiet else SENT | WAITS

    def _opted_out(self, share: int) -> None:
        while share > 0:
            channel, category = self._random.choice(CHANNELS), self._random.choice(CATEGORIES)
            no = self._random.choice([{}, {}, {"channel": channel}, {"channel": channel, "category": category}])
            person = self._awake(optouts=(no,))
            for _ in range(self._random.randint(1, 3)):
                self._request(person, channel=no.get("channel"), category=no.get("category"))
                share -= 1

    def _quiet(self, share: int) -> None:
        while share > 0:
            person = self._person(self._random.choice(self._night), bare=self._random.random() < 0.2)
            for _ in range(self._random.randint(1, 4)):
                self._request(person)
                share -= 1

    def _greedy(self, share: int) -> None:
        while share > 0:
            person = self._awake()
            category = self._random.choice([None, None, "news", "reactivation"])
            channel = self._random.choice([None, None, "push", "sms"])
            for _ in range(self._random.randint(6, 9)):
                self._request(person, category=category, channel=channel)
                share -= 1

    def _bare(self, share: int) -> None:
        while share > 0:
            person = self._awake(bare=True)
            for _ in range(self._random.randint(1, 2)):
                self._request(person)
                share -= 1

    def _unreachable(self, share: int) -> None:
        for _ in range(share):
            person = self._awake(push=False)
            self._request(person, channel="push", fallback="sms", category="news")
            self.campaign.people.append(stranger := Person(f"stranger-{person.number}", 0, person.zone, False, None))
            channel = self._random.choice(CHANNELS)
            self._request(stranger, channel=channel, address="", fate=REFUSED)

    def _steered(self, share: int) -> None:
        """See ``tests.vendors.steering``."""
        unknown, failed = frozenset({"unknown"}), frozenset({"failed"})
        kinds: tuple[dict[str, Any], ...] = (
            {"channel": "sms", "address": "+15005550004", "fate": failed | REFUSED},  # the first condemns the number
            {"channel": "email", "address": "steer-rcpt-550-5.1.1+q{tag}@example.com", "fate": failed},
            {"channel": "push", "address": "steer-unregistered--{tag}", "fate": failed},
            {"channel": "push", "address": "steer-silence--{tag}", "fate": unknown, "vanishes": True},
            {"channel": "push", "address": "steer-lost-reset--{tag}", "fate": unknown, "vanishes": True},
            {"channel": "email", "address": "steer-reset+q{tag}@example.com", "fate": unknown, "vanishes": True},
            {"channel": "push", "address": "steer-unregistered--{tag}", "fallback": "sms", "fate": SENT},
        )
        for number in range(share):
            kind = dict(kinds[number % len(kinds)])
            kind["address"] = kind["address"].format(tag=len(self.campaign.requests) + 1)
            self._request(self._awake(), category="news", **kind)

    def _light(self, share: int) -> None:
        while share > 0:
            person = self._awake()
            for _ in range(min(share, self._random.randint(1, 3))):
                self._request(person)
                share -= 1

    def _same_id_of_two(self, share: int) -> None:
        """An id belongs to its source: the same one of another source is another request."""
        if len(self._sources) < 2:
            return
        requests = self.campaign.requests
        for number in self._random.sample(range(len(requests)), share):
            request = requests[number]
            other = next(source for source in self._sources if source != request.source)
            twin = requests[number - 1]
            if (other, twin.id) == (twin.source, twin.id):
                continue
            body = {**request.body, "id": twin.id, "source": other}
            if any(r.key == (other, twin.id) for r in requests):
                continue
            requests[number] = Request(**{**request.__dict__, "id": twin.id, "source": other, "body": body})

    def _malformed(self, share: int) -> list[Malformed]:
        good = self.campaign.requests
        made = []
        for number in range(max(share, len(_FAULTY))):
            model = self._random.choice(good)
            # A parked id is not used up, so that a few are those of good requests.
            ids = model.id if number % 7 == 0 else f"bad-{number}"
            body = {**json.loads(json.dumps(model.body)), "id": ids, "labels": {"number": str(number)}}
            text, paths = _FAULTY[number % len(_FAULTY)]
            faulty = text(body)
            raw = faulty if isinstance(faulty, bytes) else json.dumps(faulty).encode()
            made.append(Malformed(raw, paths, model.priority))
        assert not [body for body, count in Counter(bad.body for bad in made).items() if count > 1]
        return made


def _content(channel: str, tag: int) -> dict[str, str]:
    text = f"{CANARY} words q{tag}, für dich"
    match channel:
        case "email":
            return {"subject": f"{CANARY} subject", "text": text, "html": f"<p>{text}</p>"}
        case "push":
            return {"title": f"{CANARY} title", "body": text}
        case "robocall":
            return {"say": text, "language": "en-GB"}
    return {"text": text}


def _to(channel: str, address: str) -> dict[str, Any]:
    if not address:
        return {}
    match channel:
        case "email":
            return {"email": address}
        case "push":
            return {"push": [{"token": address, "platform": "android"}]}
    return {"phone": address}


def _reached(person: Person, channel: str, to: dict[str, Any]) -> str:
    match channel:
        case "email":
            return str(to.get("email", ""))
        case "push":
            return str(to["push"][0]["token"]) if "push" in to else person.token
    return str(to.get("phone") or person.phone)


def _otherwise(request: Request) -> Request:
    """The same id with another body, which still shows whose it is."""
    body = {**request.body, "labels": {"team": "another"}}
    return Request(**{**request.__dict__, "body": body})


def _without(key: str) -> Any:
    return lambda body: {name: value for name, value in body.items() if name != key}


def _with(**fields: Any) -> Any:
    return lambda body: {**body, **fields}


_FAULTY: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (_without("user"), ("user",)),
    (lambda body: json.dumps(body).encode()[:-2], ("",)),
    (_with(user=7), ("user",)),
    (_with(to={"phone": "+1234"}), ("to.phone",)),
    (_with(content={"sms": {"text": f"{CANARY} \0"}}), ("content.sms.text",)),
    (_with(category="lottery"), ("category",)),
    (lambda body: {**body, "id": "x" * 10_000 + body["labels"]["number"]}, ("id",)),
    (_with(to={"email": f"no mail address {CANARY}"}), ("to.email",)),
    (lambda body: [body], ("",)),
    (lambda body: b'"' + body["labels"]["number"].encode() + b'"', ("",)),
    (_with(contents={}), ("contents",)),
    (_with(content={}), ("content",)),
    (_with(channels=["pigeon"]), ("channels[0]",)),
    (_with(timezone="Mars/Olympus"), ("timezone",)),
    (_with(expires_at="2020-01-01T00:00:00Z"), ("expires_at",)),
    (lambda body: json.dumps(body).encode().replace(b'"user": "', b'"user": "\xff\xfe'), ("",)),
    (lambda body: json.dumps(body).encode().replace(b'"user": "', b'"user": "\\ud800'), ("",)),
    (_with(user="", to={"phone": "12", "fax": "1"}, stage=""), ("user", "to.phone", "to.fax", "stage")),
    (_with(category="news", priority="critical"), ("priority",)),
    (lambda body: {**body, "labels": {"number": body["labels"]["number"], "deep": _nested(40)}}, ("",)),
    (_with(channels=["sms"], content={"email": {"subject": "s", "text": CANARY}}), ("content.sms",)),
)  # fmt: skip


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []
