"""Do the checks notice? Each is shown an installation that kept its promises, but for one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.config import parse
from tests.simulation.checks import findings
from tests.simulation.story import CONFIG, Act, Person, Request, Story
from tests.simulation.vendors import Fate, Mood
from tests.simulation.world import No, World

if TYPE_CHECKING:
    from collections.abc import Callable

ANN = Person("p1", "UTC")
NEWS = Request("r0", ANN, "news", ("sms",), None, "text 0")
CODE = Request("r1", ANN, "code", ("sms",), None, "text 1")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LAX = "  quiet_hours: []\n"


def calm(*requests: Request, starts: datetime = NOON, mood: Mood | None = None) -> Story:
    """Each is asked for a minute after the one before."""
    acts = [Act(1.0 + 60 * place, "request", (request,)) for place, request in enumerate(requests)]
    if mood:
        acts.insert(0, Act(0.5, "mood", ("text", mood, 600.0)))
    return Story(starts, 1, (0.0,), 0.0, False, (ANN,), tuple(acts))


def told(story: Story, tables: bytes, rules: str | None = None) -> World:
    world = World(1, story, tables)
    if rules is not None:
        world.config = parse(CONFIG.format(pace="") + rules, {}, base=Path())
    world.run()
    return world


def kinds(world: World) -> set[str]:
    return {finding.partition(":")[0] for finding in findings(world)}


def forget(world: World) -> None:
    world.connection.execute("delete from attempts")
    world.vendors["text"].ledger.clear()


def again(world: World) -> None:
    ledger = world.vendors["text"].ledger
    ledger.append(replace(ledger[0], at=ledger[0].at + 1))


def astray(world: World) -> None:
    ledger = world.vendors["text"].ledger
    ledger[0] = replace(ledger[0], address="+447400999999")


def refuse(world: World) -> None:
    at = world.vendors["text"].ledger[0].at
    world.told.noes.append(No(ANN, None, None, None, at - 10))


def withdraw(world: World) -> None:
    entry = world.vendors["text"].ledger[0]
    world.told.cancelled.append((entry.message, entry.at + 1))


def reopen(world: World) -> None:
    world.connection.execute("update attempts set state = 'intent'")


def deny(world: World) -> None:
    world.connection.execute("update attempts set state = 'not_sent'")


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (forget, "lost"),
        (lambda world: world.vendors["text"].ledger.clear(), "false_sent"),
        (again, "doubled"),
        (astray, "unexpected"),
        (refuse, "after_stop"),
        (withdraw, "cancelled"),
        (reopen, "open"),
        (deny, "denied"),
    ],
)
def test_what_is_not_so_is_found(planted: Callable[[World], object], kind: str, tables: bytes) -> None:
    world = told(calm(NEWS), tables)
    assert not kinds(world)
    planted(world)
    assert kind in kinds(world)


def test_a_policy_that_allows_more_is_found_by_the_ledger_alone(tables: bytes) -> None:
    requests = [replace(NEWS, id=f"r{number}", text=f"text {number}") for number in range(6)]
    by_day, by_night = calm(*requests), calm(*requests, starts=NOON + timedelta(hours=10))
    assert not kinds(told(by_day, tables)) | kinds(told(by_night, tables))
    assert kinds(told(by_day, tables, LAX)) == {"cap_breach", "gap_breach"}
    assert "hour_breach" in kinds(told(by_night, tables, LAX))


def test_a_code_that_is_repeated_is_found(tables: bytes) -> None:
    silent = calm(CODE, mood=Mood({Fate.SILENT: 1.0}))
    world = told(silent, tables)
    assert not kinds(world)
    assert len(world.vendors["text"].ledger) == 1
    repeated = World(1, silent, tables)
    repeating = CONFIG.replace("code: {{", "code: {{on_unknown: repeat, ")
    repeated.config = parse(repeating.format(pace="") + LAX, {}, base=Path())
    repeated.run()
    assert kinds(repeated) == {"doubled"}
