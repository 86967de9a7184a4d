"""What happens in a simulation, drawn by its seed: who is asked for what, and what goes wrong when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.vendors import Fate, Mood

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = """
  caps: [{{name: daily, limit: {daily}, per: 24h}}]
  minimum_gap: 10m
  quiet_hours: [{{name: night, from: "21:00", to: "08:00"}}]
"""
CONFIG = """
store: postgresql://nowhere/unused
worker: {{attempt: 3s}}
providers:
  text: {{kind: inbox, timeout: 1.5}}
  backup: {{kind: inbox, timeout: 1.5{pace}}}
  mail: {{kind: inbox, timeout: 2.5}}
  push: {{kind: inbox, timeout: 1.5, concurrency: 2}}
routes: {{sms: [text, backup], email: [mail], push: [push]}}
policy:
  timezone: UTC
  categories:
    code: {{priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m, abuse: {{limit: 3, per: 1h}}}}
    receipt: {{priority: high, quiet_hours: exempt, on_unknown: repeat, expires_after: 12h}}
    alert: {{priority: normal, on_unknown: repeat, repeat_after: 30s, expires_after: 20h}}
    news: {{priority: bulk, expires_after: 40h}}
"""
DAILY, GAP = 2, timedelta(minutes=10)
ABUSE, ABUSE_PER = 3, timedelta(hours=1)
NIGHT_FROM, NIGHT_TO = 21, 8
UNCOUNTED = frozenset({"code"})
ANY_HOUR = frozenset({"code", "receipt"})
REPEATED = frozenset({"receipt", "alert"})
KEYED = "mail"
"""The vendor that takes a repeat for the same message."""
ASKED = "text"
"""The vendor that can be asked what became of an attempt."""
SKEW = 2.0
"""Seconds that a machine's clock may be wrong."""
LIVES: Mapping[str, timedelta] = {
    "code": timedelta(minutes=5),
    "receipt": timedelta(hours=12),
    "alert": timedelta(hours=20),
    "news": timedelta(hours=40),
}
ZONES = ("UTC", "Asia/Tokyo", "America/New_York")
BURST = 4.0
"""Seconds in which things happen at once."""

AWRY: tuple[Mapping[Fate, float], ...] = (
    {Fate.TAKEN: 1, Fate.SILENT: 1},
    {Fate.TAKEN: 1, Fate.RESET: 1, Fate.LOST_RESET: 1},
    {Fate.TAKEN: 1, Fate.BROKEN: 1, Fate.LOST_SILENT: 1},
    {Fate.REFUSED: 1},
    {Fate.TAKEN: 1, Fate.REFUSED: 1, Fate.UNPROCESSED: 1},
    {Fate.TAKEN: 1, Fate.THROTTLED: 2},
    {Fate.TAKEN: 2, Fate.REJECTED: 1},
    {Fate.TAKEN: 3, Fate.UNREACHABLE: 1},
    {Fate.TAKEN: 1, Fate.MISCONFIGURED: 2},
    dict.fromkeys(Fate, 1.0),
)


@dataclass(frozen=True)
class Person:
    """Whom messages are for, as the test gave out their addresses."""

    name: str
    zone: str

    @property
    def addresses(self) -> Mapping[str, str]:
        number = int(self.name[1:])
        return {"sms": f"+4474001234{number:02}", "email": f"{self.name}@example.com", "push": f"token-{self.name}"}

    @property
    def profile(self) -> bytes:
        to = self.addresses
        push = [{"token": to["push"], "platform": "android"}]
        told = {"user": self.name, "phone": to["sms"], "email": to["email"], "push": push, "timezone": self.zone}
        return json.dumps(told).encode()


@dataclass(frozen=True)
class Request:
    """What a service asks."""

    id: str
    person: Person
    category: str
    channels: tuple[str, ...]
    lives: timedelta | None = None
    """None: as its category does."""
    text: str = ""

    def body(self, now: datetime) -> bytes:
        content = {
            "sms": {"text": self.text},
            "email": {"subject": self.text, "text": "x"},
            "push": {"title": self.text, "body": "x"},
        }
        asked: dict[str, Any] = {
            "id": self.id,
            "source": "shop",
            "user": self.person.name,
            "category": self.category,
            "channels": list(self.channels),
            "content": {channel: content[channel] for channel in self.channels},
        }
        if self.lives:
            asked["expires_at"] = (now + self.lives).isoformat()
        return json.dumps(asked).encode()


@dataclass(frozen=True)
class Act:
    """Something that happens at an instant: a method of the world, and what it is given."""

    at: float
    what: str
    given: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:10.2f} {self.what} {', '.join(map(str, self.given))}"


@dataclass(frozen=True)
class Story:
    """All of it."""

    starts: datetime
    processes: int
    skews: tuple[float, ...]
    reporting: float
    """The share of messages that vendors report on."""
    paced: bool
    """Whether one of the vendors is slow by agreement."""
    people: tuple[Person, ...]
    acts: tuple[Act, ...] = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([repr(self), *map(str, self.acts)])


def drawn(seed: int) -> Story:
    """The story of a seed."""
    return _Drawing(Random(f"{seed} story")).story()


class _Drawing:
    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._acts: list[Act] = []
        self._asked: list[Request] = []
        self._faults = frozenset(fault for fault in _FAULTS if chance.random() < 0.4)
        self._processes = chance.choice((1, 2, 2, 3))
        self._people = tuple(Person(f"p{number}", chance.choice(ZONES)) for number in range(chance.randint(1, 3)))

    def story(self) -> Story:
        chance = self._chance
        begins = 1.0
        for _ in range(chance.choice((1, 1, 2, 3))):
            self._burst(begins)
            begins += BURST + chance.choice((60, 600, 3600, 9 * 3600, 24 * 3600)) * chance.uniform(0.5, 1.2)
        skewed = "skew" in self._faults
        return Story(
            datetime(2026, 11, 22, tzinfo=UTC) + timedelta(minutes=chance.randint(0, 24 * 60)),
            self._processes,
            tuple(chance.uniform(-SKEW, SKEW) if skewed else 0.0 for _ in range(self._processes)),
            chance.choice((0.0, 0.5, 1.0)),
            chance.random() < 0.3,
            self._people,
            tuple(sorted(self._acts, key=lambda act: act.at)),
        )

    def _act(self, begins: float, what: str, *given: Any) -> None:
        self._acts.append(Act(begins + BURST * self._chance.random(), what, given))

    def _burst(self, begins: float) -> None:
        chance = self._chance
        for _ in range(chance.randint(2, 8)):
            self._request(begins)
        for fault in _FAULTS:
            if fault in self._faults:
                for _ in range(chance.randint(1, 3)):
                    getattr(self, f"_{fault}")(begins)

    def _request(self, begins: float) -> None:
        chance = self._chance
        number = len(self._asked)
        lives = timedelta(minutes=chance.choice((1, 10, 100))) if chance.random() < 0.3 else None
        request = Request(
            f"r{number}",
            chance.choice(self._people),
            chance.choice(("code", "receipt", "alert", "alert", "news")),
            chance.choice((("sms",), ("email",), ("push",), ("sms", "email"), ("push", "sms"), ("email", "push"))),
            lives,
            f"text {number}",
        )
        self._asked.append(request)
        self._act(begins, "request", request)

    # ------------------------------------------------------------------------------------------------ what goes wrong

    def _crash(self, begins: float) -> None:
        chance = self._chance
        which, steps, down = chance.randrange(self._processes), chance.randint(1, 300), chance.choice((0.1, 3.0, 40.0))
        self._act(begins, "crash", which, steps, down * chance.random())

    def _stop(self, begins: float) -> None:
        self._act(begins, "stop", self._chance.randrange(self._processes), self._chance.choice((0.1, 3.0, 40.0)))

    def _pause(self, begins: float) -> None:
        chance = self._chance
        self._act(begins, "pause", chance.randrange(self._processes), chance.choice((1.0, 8.0, 20.0, 60.0)))

    def _zombie(self, begins: float) -> None:
        if self._processes > 1:  # or nobody takes its place
            self._act(begins, "zombie", self._chance.randrange(self._processes), self._chance.choice(AWRY), 900.0)

    def _away(self, begins: float) -> None:
        self._act(begins, "weather", "away", True, self._chance.uniform(0.2, 12.0))

    def _frozen(self, begins: float) -> None:
        self._act(begins, "weather", "frozen", True, self._chance.uniform(0.2, 12.0))

    def _lossy(self, begins: float) -> None:
        chance = self._chance
        lost = chance.choice(("asks_lost", "answers_lost", "answers_lost"))
        self._act(begins, "weather", lost, chance.choice((0.05, 0.3)), chance.uniform(1.0, 20.0))

    def _slow(self, begins: float) -> None:
        self._act(begins, "weather", "slowest", self._chance.choice((0.3, 1.5)), self._chance.uniform(1.0, 20.0))

    def _vendor(self, begins: float) -> None:
        chance = self._chance
        name = chance.choice(("text", "text", "backup", "mail", "push"))
        mood = Mood(chance.choice(AWRY), chance.choice((0.3, 0.3, 3.0)))
        self._act(begins, "mood", name, mood, chance.uniform(1.0, 60.0))

    def _repeated(self, begins: float) -> None:
        self._act(begins, "request", self._chance.choice(self._asked))

    def _conflict(self, begins: float) -> None:
        asked = self._chance.choice(self._asked)
        other = Request(asked.id, asked.person, asked.category, asked.channels, asked.lives, f"other {asked.id[1:]}")
        self._act(begins, "request", other)

    def _no(self, begins: float) -> None:
        chance = self._chance
        person = chance.choice(self._people)
        channel, category = chance.choice((None, None, "sms", "email")), chance.choice((None, None, "news", "alert"))
        by = chance.choice((None, None, "sms", "email"))
        self._act(begins, "no", person, by, channel, category)

    def _cancel(self, begins: float) -> None:
        self._act(begins + self._chance.choice((0, 5, 60)), "cancel", self._chance.choice(self._asked))

    def _policy(self, begins: float) -> None:
        self._act(begins, "policy", self._chance.choice((1, DAILY)))

    def _skew(self, begins: float) -> None:
        """Drawn with the processes."""


_FAULTS = (
    "crash",
    "stop",
    "pause",
    "zombie",
    "away",
    "frozen",
    "lossy",
    "slow",
    "vendor",
    "repeated",
    "conflict",
    "no",
    "cancel",
    "policy",
    "skew",
)
