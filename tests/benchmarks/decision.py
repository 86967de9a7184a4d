"""What does one decision cost, beside one question to Redis? ``python -m tests.benchmarks decision``."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gateway.config import parse
from gateway.decide import Attempting, Deferred, Facts, Health, next_step, subject_of
from gateway.ids import new_id
from gateway.message import Address, Message, Person, Priority, Profile
from providers import Channel
from ratelimit import Contact, earliest, zone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from rich.console import Console

    from gateway.config import Config

RULES = """
http: {private: 127.0.0.1:0}
providers: {vendor: {kind: inbox}}
routes: {sms: [vendor]}
policy:
  timezone: UTC
  categories: {reactivation: {priority: normal, channels: [sms], expires_after: 14d}}
  caps:
    - {name: daily, limit: 2, per: 24h}
    - {name: sms-week, limit: 5, per: week, channel: sms}
    - {name: campaign-month, limit: 12, per: 30d, scope: [user, campaign], reserve: {high: 1}}
  minimum_gap: 2h
  quiet_hours: [{name: night, from: "21:00", to: "08:00", release_over: 30m}]
  send_windows: [{name: hours, channel: sms, hours: ["09:00-12:00", "13:00-20:00"]}]
"""
WINDOWS = "5/minute;20/hour;50/day;100/7 day"
"""What a user of ``limits`` would ask instead; as in all measurements of PERFORMANCE.md."""
HISTORY = 20
PERSONS = 200
"""Who take turns, so that no decision is made twice in a row."""
SPAN = timedelta(seconds=30)
_ZONES = ("Europe/Berlin", "Asia/Tokyo", "America/New_York", "Asia/Kolkata")
_WEDNESDAY = datetime(2026, 7, 15, tzinfo=UTC)

TITLES = {
    "earliest": "earliest: 6 rules, 20 contacts, permitted",
    "earliest-night": "the same at night: until when?",
    "next-step": "next_step: the whole decision, permitted",
    "next-step-night": "the same at night, with its explanation",
    "limits": "limits: 1 moving window, Redis",
    "limits-4": "limits: 4 moving windows, Redis",
    "limits-async": "limits, asyncio: 1 moving window, Redis",
    "limits-async-4": "limits, asyncio: 4 moving windows, Redis",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A person with a history, about to be written to."""

    facts: Facts
    night: Facts


async def main(redis: str, rounds: int, decisions: int, console: Console) -> dict[str, Any]:
    """Print what each takes, in turn so that what drifts meets all.

    Args:
        redis: its URL.
        rounds: of all, one after another.
        decisions: a round; questions to Redis are a twentieth of that.
        console: where the table goes.
    """
    config = parse(RULES, {}, base=Path())
    cases = _cases()
    local = {
        "earliest": _asking(config, [case.facts for case in cases], permitted=True),
        "earliest-night": _asking(config, [case.night for case in cases], permitted=False),
        "next-step": _deciding(config, [case.facts for case in cases], Attempting),
        "next-step-night": _deciding(config, [case.night for case in cases], Deferred),
    }
    spent: dict[str, list[float]] = defaultdict(list)
    remote = {**_sync(redis), **_asynchronous(redis)}
    for number in range(rounds + 1):
        found = {name: _timed(run, decisions) for name, run in local.items()}
        for name, ask in remote.items():
            found[name] = await ask(max(decisions // 20, 1))
        if number:  # the first fills caches
            for name, seconds in found.items():
                spent[name].append(seconds)
    return _told(spent, console)


def _cases() -> list[Case]:
    """All of them may be written to by day, though no cap and no gap can tell without looking at the history."""
    cases = []
    for number in range(PERSONS):
        home = zone(_ZONES[number % len(_ZONES)])
        noon = datetime.combine(_WEDNESDAY, datetime.min.time(), home).replace(hour=14, minute=number % 60)
        facts = _facts(number, home.key, noon.astimezone(UTC))
        cases.append(Case(facts, _facts(number, home.key, noon.replace(hour=22).astimezone(UTC))))
    return cases


def _facts(number: int, home: str, now: datetime) -> Facts:
    contacts = []
    for back in range(HISTORY):
        ended = now - timedelta(hours=20 + 34 * back, minutes=number % 53)
        campaign = "summer-2026" if back % 2 else "spring-2026"
        contact = Contact(ended - timedelta(seconds=1), ended, "sms", "reactivation", campaign, zone(home), new_id())
        contacts.append(contact)
    phone = f"+4915{number:09d}"
    message = Message(
        id=new_id(),
        source="bench",
        request=f"r-{number}",
        person=f"user-{number:08d}",
        category="reactivation",
        channels=(Channel.SMS,),
        priority=Priority.NORMAL,
        accepted_at=now,
        starts_at=now,
        expires_at=now + timedelta(days=14),
        campaign="summer-2026",
        body={"to": {"phone": phone}, "timezone": home, "content": {"sms": {"text": "hello"}}},
    )
    return Facts(message, Person(message.person, Profile()), contacts, (), 0, now)


def _asking(config: Config, facts: Sequence[Facts], *, permitted: bool) -> Callable[[int], None]:
    policy = config.policy
    rules = policy.rules(policy.categories["reactivation"])
    assert len(rules) == 6
    asked = [
        (one.now, subject_of(one, Address(Channel.SMS, one.message.body["to"]["phone"]), policy)[1], one.contacts)
        for one in facts
    ]
    for at, subject, contacts in asked:
        assert earliest(at, SPAN, rules, subject, contacts).allowed is permitted

    def run(times: int) -> None:
        for at, subject, contacts in itertools.islice(itertools.cycle(asked), times):
            earliest(at, SPAN, rules, subject, contacts)

    return run


def _deciding(config: Config, facts: Sequence[Facts], wanted: type) -> Callable[[int], None]:
    policy, routes, health = config.policy, config.routes, Health()
    for one in facts:
        step = next_step(one, policy, routes, health, SPAN)
        assert isinstance(step, wanted), step

    def run(times: int) -> None:
        for one in itertools.islice(itertools.cycle(facts), times):
            next_step(one, policy, routes, health, SPAN)

    return run


def _timed(run: Callable[[int], None], times: int) -> float:
    """Seconds of one."""
    began = time.perf_counter()
    run(times)
    return (time.perf_counter() - began) / times


def _sync(redis: str) -> dict[str, Callable[[int], Awaitable[float]]]:
    from limits import parse_many
    from limits.storage import RedisStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(redis))

    def asks(windows: str) -> Callable[[int], Awaitable[float]]:
        limits, persons = parse_many(windows), _somebody_else()

        def run(times: int) -> None:
            for person in itertools.islice(persons, times):
                for limit in limits:
                    limiter.hit(limit, person)

        async def ask(times: int) -> float:
            return await asyncio.to_thread(_timed, run, times)

        return ask

    return {"limits": asks("50/day"), "limits-4": asks(WINDOWS)}


def _asynchronous(redis: str) -> dict[str, Callable[[int], Awaitable[float]]]:
    from limits import parse_many
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(f"async+{redis}", implementation="redispy"))

    def asks(windows: str) -> Callable[[int], Awaitable[float]]:
        limits, persons = parse_many(windows), _somebody_else()

        async def ask(times: int) -> float:
            began = time.perf_counter()
            for person in itertools.islice(persons, times):
                for limit in limits:
                    await limiter.hit(limit, person)
            return (time.perf_counter() - began) / times

        return ask

    return {"limits-async": asks("50/day"), "limits-async-4": asks(WINDOWS)}


def _somebody_else() -> Iterator[str]:
    """Nobody twice, so that nobody is refused. Keys without a history are quick to ask."""
    return (f"user-{number:08d}" for number in itertools.count())


def _told(spent: dict[str, list[float]], console: Console) -> dict[str, Any]:
    shown = Table(title="One decision, µs: medians (min..max) and medians of the rounds' ratios", title_justify="left")
    yardsticks = [name for name in TITLES if name.startswith("limits")]
    for heading in ("", "µs", *(f"÷ {name}" for name in yardsticks)):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    found = {}
    for name, title in TITLES.items():
        some = spent[name]
        ratios = {
            other: statistics.median([a / b for a, b in zip(some, spent[other], strict=True)]) for other in yardsticks
        }
        spread = f"{statistics.median(some) * 1e6:,.1f} ({min(some) * 1e6:,.1f}..{max(some) * 1e6:,.1f})"
        times = ["" if name in yardsticks else f"1/{1 / r:,.1f}" if r < 1 else f"{r:.1f}" for r in ratios.values()]
        shown.add_row(title, spread, *times)
        found[name] = {"us": statistics.median(some) * 1e6, "ratios": ratios}
    console.print(shown)
    return found
