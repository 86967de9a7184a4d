"""A whole zone wakes at 08:00, and nobody notices: the night of 24 October 2026, under a clock that is driven.

The gateway's own intake, store, decisions, pipeline and inbox are at work; only the clock is ours. What was handed over
is judged by the inbox's ledger, and by offsets from UTC that are written down here: Berlin's clocks go back that night.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.config import parse
from gateway.decide import Judge
from gateway.intake import Accepted, Incoming, Intake
from gateway.message import MessageState, Priority, microseconds
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.store import Store, engine_of
from gateway.store.migrate import migrate
from gateway.watch import ProviderHealth
from providers import Channel, inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from providers.inbox import Kept

CONFIG = """
http: {private: 127.0.0.1:0}
providers: {phones: {kind: inbox, keep: 100000}}
routes: {sms: [phones]}
policy:
  timezone: Asia/Tokyo
  categories:
    news: {priority: bulk, channels: [sms], expires_after: 14d}
    alert: {priority: critical, channels: [sms], expires_after: 14d}
  caps: [{name: daily, limit: 4, per: 24h}]
  quiet_hours: [{name: night, from: "21:00", to: "08:00", release_over: 30m}]
"""
RELEASE = timedelta(minutes=30)
MINUTE = timedelta(minutes=1)
TICK = timedelta(seconds=10)
"""How often the worker looks while a zone wakes."""
TERM = timedelta(seconds=30)
ROOM = 500
"""Messages leased at once."""
BATCH = 500

TOKYO_EIGHT = datetime(2026, 10, 24, 23, tzinfo=UTC)
"""08:00 on the 25th at +9, in all of Japan."""
BERLIN_EIGHT = datetime(2026, 10, 25, 7, tzinfo=UTC)
"""08:00 at +1, which is the offset again since 01:00 UTC; a day earlier it was 06:00 UTC."""
COCOS_EIGHT = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
"""08:00 at +6:30: a number that begins with +61 4 may be anywhere from the Cocos Islands to Lord Howe."""
EIGHT = {"tokyo": TOKYO_EIGHT, "berlin": BERLIN_EIGHT, "australia": COCOS_EIGHT}
EVENING = datetime(2026, 10, 24, 14, tzinfo=UTC)
"""23:00 in Tokyo, 20:30 on the Cocos Islands but 01:00 on Lord Howe: night for both."""
LATER = datetime(2026, 10, 24, 22, tzinfo=UTC)
"""Midnight in Berlin."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A request, and what must become of it."""

    id: str
    person: str
    place: str
    critical: bool
    expires_at: datetime | None
    body: bytes

    @property
    def opens(self) -> datetime:
        """When its person's night is over."""
        return EIGHT[self.place]

    @property
    def too_late(self) -> bool:
        """It expires before the night is over."""
        return self.expires_at is not None and self.expires_at <= self.opens


def plan(size: int) -> list[Planned]:
    """So many of Tokyo, and a twentieth each of Berlin and Australia."""
    places = ["tokyo"] * size + ["berlin"] * (size // 20) + ["australia"] * (size // 20)
    return [_planned(number, place) for number, place in enumerate(places)]


def _planned(number: int, place: str, day: int = 0) -> Planned:
    request, person = f"r{day}-{number:06d}", f"person-{number:06d}"
    part = number % 100
    campaign = "autumn"
    if part == 0 and number:  # a second message of the person before, in the same line or in another
        person = f"person-{number - 1:06d}"
        campaign = "autumn" if number % 200 else "winter"
    expires = _EXPIRES.get(number % 1000, _EXPIRES.get(part)) if not day else None
    expires_at = None if expires is None else EIGHT[place] + expires
    critical = part in _CRITICAL
    fields: dict[str, Any] = {
        "id": request,
        "source": "campaigns",
        "user": person,
        "category": "alert" if critical else "news",
        "campaign": campaign,
        "content": {"sms": {"text": request}},
        "to": {"phone": f"{_NUMBERS[place]}{number:06d}"},
    }
    if place == "tokyo" and number % 3:  # the others by their number
        fields["timezone"] = "Asia/Tokyo"
    if expires_at:
        fields["expires_at"] = expires_at.isoformat()
    return Planned(request, person, place, critical, expires_at, orjson.dumps(fields))


_NUMBERS = {"tokyo": "+819012", "berlin": "+4915112", "australia": "+61412"}
_EXPIRES = {
    10: timedelta(hours=-2),
    11: timedelta(seconds=-1),
    12: timedelta(0),
    14: timedelta(minutes=10),
    15: timedelta(minutes=10),
    21: timedelta(hours=-1),
    22: timedelta(seconds=5),
    213: timedelta(seconds=5),
    513: timedelta(seconds=70),
}
"""By the last two or three digits of the number, from 08:00 on."""
_CRITICAL = (20, 21, 22)


@dataclass
class Night:
    """A gateway whose clock stands until it is moved."""

    url: str
    now: datetime = EVENING
    handed_over: list[Kept] = field(default_factory=list)
    decided: list[datetime] = field(default_factory=list)
    """When messages were leased, each for one decision."""
    requests: dict[str, str] = field(default_factory=dict)
    """Message → request."""

    def __post_init__(self) -> None:
        config = parse(CONFIG, {}, base=Path())
        self.judge = Judge(
            policy=config.policy,
            number=1,
            routes=config.routes,
            patience={"phones": timedelta(seconds=10)},
            span=config.worker.attempt,
        )
        self.store = Store(engine_of(self.url, lambda: microseconds(self.now), server_clock=False))
        metrics = Metrics("tests")
        self.intake = Intake(self.store, lambda: self.judge, metrics, clock=lambda: self.now)
        self.phones = inbox.Provider("phones", inbox.Settings(keep=2 * ROOM), lambda: self.now)
        health = ProviderHealth({"phones": 2 * ROOM})
        self.pipeline = Pipeline(
            self.store, lambda: self.judge, {"phones": self.phones}, health, metrics, None, None, lambda: None
        )

    async def accept(self, planned: Sequence[Planned]) -> None:
        for at in range(0, len(planned), BATCH):
            answers = await self.intake.accept([Incoming(one.body, "amqp") for one in planned[at : at + BATCH]])
            for answer in answers:
                assert isinstance(answer, Accepted), answer
                assert answer.state is MessageState.WAITING
                self.requests[answer.message] = answer.id
            await self.work()

    async def work(self) -> None:
        """As a worker does: lease what is due, critical first, take it as far as it can go, until nothing is due."""
        wanted = [(priority, Channel.SMS, ROOM) for priority in Priority]
        while True:
            leases, _ = await self.store.lease(wanted, TERM, {Channel.SMS: ROOM})
            if not leases:
                return
            self.decided += [self.now] * len(leases)
            with capture_logs():
                await asyncio.gather(*(self.pipeline.deliver(lease) for lease in leases))
            self.handed_over += self.phones.messages
            self.phones.messages.clear()

    async def until(self, instant: datetime, tick: timedelta) -> None:
        """Let time pass, with a worker that looks every tick."""
        while self.now < instant:
            self.now = min(self.now + tick, instant)
            await self.work()

    async def states(self) -> dict[str, MessageState]:
        """By request."""
        states = await self.store.states(list(self.requests))
        return {self.requests[message]: state for message, state in states.items()}


@pytest.fixture
async def begun(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[str], Night]]:
    """Engine → a night on a fresh database."""
    nights: list[Night] = []

    async def begin(engine: str) -> Night:
        url = f"sqlite:///{tmp_path}/store.db" if engine == "sqlite" else request.getfixturevalue("postgres_url")
        await asyncio.to_thread(migrate, url)
        nights.append(Night(url))
        await nights[0].store.open()
        return nights[0]

    yield begin  # type: ignore[misc]
    for night in nights:
        await night.store.close()


@pytest.mark.parametrize(
    ("engine", "size"),
    [
        pytest.param("sqlite", 5_000),
        pytest.param("sqlite", 100_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
        pytest.param("postgres", 100_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
async def test_a_whole_zone_wakes_without_a_crowd(begun: Any, engine: str, size: int) -> None:
    night: Night = await begun(engine)
    planned = plan(size)
    await night.accept([one for one in planned if one.place != "berlin"])
    await night.until(LATER, timedelta(minutes=10))
    await night.accept([one for one in planned if one.place == "berlin"])
    assert not night.handed_over, "all of them sleep"
    for eight in sorted(EIGHT.values()):
        await night.until(eight - MINUTE, timedelta(minutes=10))
        await night.until(eight + RELEASE + MINUTE, TICK)
    await night.until(BERLIN_EIGHT + timedelta(hours=1), timedelta(minutes=10))

    by_id = {one.id: one for one in planned}
    ledger = [(kept.at, by_id[night.requests[kept.message]]) for kept in night.handed_over]
    await everybody_is_answered(night, planned, ledger)
    for place, eight in EIGHT.items():
        woken = [(at, one) for at, one in ledger if one.place == place]
        nobody_is_woken_or_written_to_late(woken)
        minutes = Counter((at - eight) // MINUTE for at, one in woken if not one.critical)
        told(night, place, woken, minutes)
        assert set(minutes) <= set(range(31))
        mean = sum(minutes.values()) / 30
        if mean > 100:  # fewer are uneven by chance
            assert max(minutes.values()) / mean <= 1.3, minutes
            assert min(minutes[minute] for minute in range(30)) / mean >= 0.7, minutes
    assert len(night.decided) <= 2.05 * len(planned), "one that defers and one that lets go; a few wait for another"


async def everybody_is_answered(
    night: Night, planned: Sequence[Planned], ledger: Sequence[tuple[datetime, Planned]]
) -> None:
    """Whoever could be written to was, once; whoever expired in the night was not."""
    assert Counter(one.id for _, one in ledger) == Counter(one.id for one in planned if not one.too_late)
    states = await night.states()
    wrong = {
        one.id: states[one.id]
        for one in planned
        if states[one.id] is not (MessageState.EXPIRED if one.too_late else MessageState.SENT)
    }
    assert not wrong


def nobody_is_woken_or_written_to_late(woken: Sequence[tuple[datetime, Planned]]) -> None:
    urgent = [number for number, (_, one) in enumerate(woken) if one.critical]
    assert urgent[-1] < len(urgent) + ROOM, "before the last urgent one, no others but those leased with it"
    for at, one in woken:
        assert at >= one.opens, f"{one} in the night, at {at}"
        assert one.expires_at is None or at < one.expires_at, f"{one} too late, at {at}"
        assert at <= one.opens + RELEASE + TICK, f"{one} held for too long, until {at}"
        if one.critical:
            assert at == one.opens, f"{one} is urgent, and waited until {at}"


def told(night: Night, place: str, woken: Sequence[tuple[datetime, Planned]], minutes: Counter[int]) -> None:
    """Print what the issue asks for."""
    eight = EIGHT[place]
    mean = sum(minutes.values()) / 30
    decided = Counter((at - eight) // MINUTE for at in night.decided if eight <= at < eight + RELEASE)
    print(
        f"{place}: {len(woken)} handed over, {sum(one.critical for _, one in woken)} of them critical at 08:00;"
        f" the others a minute: mean {mean:.0f}, max/mean {max(minutes.values()) / mean:.3f},"
        f" min/mean {min(minutes[n] for n in range(30)) / mean:.3f}; last at {max(at for at, _ in woken):%H:%M:%S} UTC;"
        f" decisions a minute: max {max(decided.values())}, mean {sum(decided.values()) / 30:.0f}"
    )


async def test_a_person_has_the_same_turn_every_morning(begun: Any) -> None:
    night: Night = await begun("sqlite")
    turns: list[dict[str, timedelta]] = []
    for day in (1, 2):
        planned = {one.id: one for one in (_planned(number, "tokyo", day) for number in range(300))}
        eight = TOKYO_EIGHT + timedelta(days=day - 1)
        await night.until(eight - timedelta(hours=8), timedelta(hours=1))
        night.handed_over.clear()
        await night.accept(list(planned.values()))
        await night.until(eight - MINUTE, timedelta(hours=1))
        await night.until(eight + RELEASE + MINUTE, TICK)
        woken = [(kept.at, planned[night.requests[kept.message]]) for kept in night.handed_over]
        assert len(woken) == len(planned)
        turns.append({one.person: at - eight for at, one in woken if not one.critical})
    assert turns[0] == turns[1]
    assert len(set(turns[0].values())) > 100, "each has a turn of their own"
