"""Clocks that step, change and leap: no night is disturbed in any zone, and nobody is told twice or too often."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from gateway.decide import Deferred, Ended
from gateway.store.migrate import migrate
from ratelimit import QuietHours, Subject
from tests.desk import Desk, at
from tests.unit.ratelimit_oracle import HOUR, MINUTE, changes, names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

LEAP_DAYS = [datetime(year, 2, 29, tzinfo=UTC) for year in (2008, 2012, 2016, 2020, 2024, 2028)]
SINCE, YEARS = datetime(2005, 1, 1, tzinfo=UTC), 25
POLICY = """
providers: {one: {kind: inbox}}
routes: {sms: [one]}
policy:
  timezone: UTC
  categories: {news: {}}
  caps: [{name: daily, limit: 1, per: 24h}]
"""


@pytest.mark.row("F16")
def test_no_night_is_disturbed(count: int, tally: Tally) -> None:
    drawn = random.Random(16)
    zones, turns = names(), changes()
    assert len(zones) > 400
    for number in range(count):
        name, instant = _drawn(drawn, number, zones, turns)
        there = ZoneInfo(name)
        wall = (instant + drawn.randint(-180, 180) * MINUTE).astimezone(there).time().replace(second=0)
        begins, ends = drawn.sample([wall, time(21), time(8), time(drawn.randrange(24), drawn.randrange(60))], 2)
        span = drawn.choice((0, 1, 10, 45)) * MINUTE
        rule = QuietHours("night", begins, ends)
        found = rule.first(instant, span, Subject("sms", "news", None, (there,), there), ())
        if begins == ends:
            continue
        if found is None:
            assert _free(begins, ends) <= span, f"{name}: {begins} to {ends} from {instant}, {span}: never"
            continue
        assert found >= instant
        read = [(found + minutes * MINUTE).astimezone(there).time() for minutes in range(int(span / MINUTE) + 1)]
        tally.hour_breach += any(_within(reading, begins, ends) for reading in read)
        assert not tally.hour_breach, f"{name}: {begins} to {ends} from {instant}, {span}: {found}"
    tally.fault(count)


def _drawn(
    drawn: random.Random, number: int, zones: tuple[str, ...], turns: tuple[tuple[str, datetime], ...]
) -> tuple[str, datetime]:
    """A zone, and an instant near a change of its clocks, near a leap day, or any; every zone comes up."""
    near = drawn.randint(-1800, 360) * MINUTE
    match number % 3:
        case 0:
            name, change = drawn.choice(turns)
            return name, change + near
        case 1:
            return zones[number // 3 % len(zones)], drawn.choice(LEAP_DAYS) + near
    return zones[number // 3 % len(zones)], SINCE + drawn.random() * YEARS * timedelta(days=365)


def _free(begins: time, ends: time) -> timedelta:
    """How long it is not quiet, on most days."""
    minutes = (begins.hour - ends.hour) * 60 + begins.minute - ends.minute
    return minutes % 1440 * MINUTE


def _within(reading: time, begins: time, ends: time) -> bool:
    return begins <= reading < ends if begins <= ends else reading >= begins or reading < ends


@pytest.mark.row("F16")
@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_step_of_the_clock_lets_nobody_be_told_twice_or_too_often(
    step: timedelta, tmp_path: Path, tally: Tally
) -> None:
    file = tmp_path / "store.db"
    await asyncio.to_thread(migrate, f"sqlite:///{file}")
    async with Desk(file, POLICY, at("2026-11-21T12:00:00Z")) as desk:
        await desk.sent("told", "news", user="ann")
        await desk.accept("under way", "news", user="ben")
        await desk.work(kill=True)  # handed over, and its worker is gone
        desk.now += step
        await desk.accept("one too many", "news", user="ann")
        await desk.accept("behind it", "news", user="ben")
        after = await desk.work()
        desk.now -= step
        desk.pass_(minutes=5)
        after += await desk.work()
        sent = [answer for answer in after if isinstance(answer, Ended) and answer.state == "sent"]
        assert not sent, "a place was given twice"
        assert any(isinstance(answer, Deferred) and answer.rule == "daily" for answer in after)
        ends = [answer.state for answer in after if isinstance(answer, Ended)]
        assert ends == ["unknown"], "what nobody knows of is not sent again"
        tally.fault()
