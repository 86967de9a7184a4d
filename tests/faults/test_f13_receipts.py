"""Receipts and events twice, backwards, early, for nobody, forged, replayed: the state is what their order gives."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest

from tests.faults import records
from tests.faults.world import ENVIRONMENT, ROOT, world
from tests.servers import spawn, wait_until
from tests.vendors.twilio import ACCOUNT_SID, AUTH_TOKEN, signature

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import World

DELAY = 1.5
"""Seconds between what the vendor has taken and its answer: what is told meanwhile comes before we know of it."""
EACH = 10
"""Receipts of a message, about."""
MONTH = 30 * 24 * 3600 * 1_000_000
"""Microseconds."""
Fields = tuple[tuple[str, str], ...]


class Story(NamedTuple):
    """What Twilio reports of a message, in order."""

    provider: str
    news: tuple[Fields, ...]
    state: str
    """In which the attempt ends."""
    agents: tuple[str, ...] = ()
    """Who answered."""


def text(*news: tuple[str, str], state: str) -> Story:
    """Of a text: its status each time, and the code of an error."""
    told = ((("MessageStatus", status), ("ErrorCode", code)) for status, code in news)
    return Story("twilio", tuple(tuple(field for field in fields if field[1]) for fields in told), state)


def call(*news: tuple[str, str], state: str, agents: tuple[str, ...] = ()) -> Story:
    """Of a call: one field each time."""
    return Story("voice", tuple((field,) for field in news), state, agents)


HUNG_UP = ("CallStatus", "completed")
TEXTS = (
    text(("sent", ""), ("delivered", ""), state="delivered"),
    text(("queued", ""), ("sending", ""), ("sent", ""), ("delivered", ""), state="delivered"),
    text(("sent", ""), ("undelivered", "30005"), state="undelivered"),
    text(("failed", "30008"), state="undelivered"),
    text(("sent", ""), state="accepted"),
)
CALLS = (
    call(("CallStatus", "in-progress"), ("AnsweredBy", "human"), HUNG_UP, state="delivered", agents=("human",)),
    call(("AnsweredBy", "machine_start"), HUNG_UP, state="delivered", agents=("machine",)),
    call(("AnsweredBy", "unknown"), ("Digits", "1"), HUNG_UP, state="delivered", agents=("machine", "human")),
    call(("CallStatus", "no-answer"), state="accepted"),
    call(("CallStatus", "failed"), state="undelivered"),
)
CALL: dict[str, Any] = {"content": {"robocall": {"say": "Three minutes left."}}}

ACTS = (("opened", None), ("clicked", None), ("app_opened", None), ("converted", "applied"), ("converted", "granted"))
"""What services report of what has arrived, each with its stage."""
TIMES = 5
"""That each receipt and each event is told."""
BATCH = 100
"""Events in one request."""
LATER = (429, 503)
"""What is answered so has not been taken, or nobody knows: it is told again."""

Report = tuple[str, list[tuple[str, str]], str]
"""Path, fields and signature."""


def report(provider: str, attempt: str, sid: str, news: Fields) -> Report:
    path = f"/callbacks/{provider}?attempt={attempt}"
    kind = "MessageSid" if provider == "twilio" else "CallSid"
    fields = [(kind, sid), ("AccountSid", ACCOUNT_SID), ("To", "+819012345678"), *news]
    return path, fields, signature(f"https://m.test{path}", fields)


async def tell(here: World, reports: Iterable[Report]) -> list[int]:
    """All of them, twenty at a time, and again what was not taken for now; what each was answered, in no order."""
    waiting, answers = list(reports), []

    async def vendor(session: aiohttp.ClientSession) -> None:
        while waiting:
            path, fields, signed = waiting.pop()
            url = f"http://127.0.0.1:{here.gateways[0].public}{path}"
            async with session.post(url, data=fields, headers={"X-Twilio-Signature": signed}) as response:
                if response.status in LATER:
                    waiting.insert(0, (path, fields, signed))
                else:
                    answers.append(response.status)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(vendor(session) for _ in range(20)))
    return answers


async def inform(here: World, events: list[dict[str, Any]]) -> list[tuple[int, str | None]]:
    """All events, some at a time; of each its status and what it was said to be."""
    waiting, answers = [events[at : at + BATCH] for at in range(0, len(events), BATCH)], []

    async def service(session: aiohttp.ClientSession) -> None:
        while waiting:
            some = waiting.pop()
            async with session.post(f"{here.gateways[0].url}/v1/events", json=some) as response:
                if response.status in LATER:
                    waiting.insert(0, some)
                    continue
                results = (await response.json())["results"]
                answers.extend((result["status"], result.get("state")) for result in results)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(service(session) for _ in range(4)))
    return answers


@pytest.mark.row("F13")
async def test_the_state_is_what_telling_them_in_order_gives(tmp_path: Path, count: int, tally: Tally) -> None:
    drawn = random.Random(13)
    ledger = tmp_path / "twilio.jsonl"
    ledger.touch()
    command = [sys.executable, "-m", "tests.vendors", "--ledger", str(ledger), "--delay", str(DELAY)]
    with spawn(command, tmp_path / "twilio.log", env=ENVIRONMENT, cwd=ROOT) as child:
        await wait_until(lambda: child.text.endswith("\n"), 30, "the vendor is ready")
        twilio = {
            "base_url": f"http://127.0.0.1:{json.loads(child.text)['ports']['twilio']}",
            "account_sid": ACCOUNT_SID,
            "auth_token": AUTH_TOKEN,
            "sender": "+15005550006",
        }
        cap = {"caps": [{"name": "daily", "limit": 3, "per": "24h"}]}
        change = [
            ("providers.twilio", twilio | {"kind": "twilio_sms"}),
            ("providers.voice", twilio | {"kind": "twilio_voice"}),
            ("routes.sms", ["twilio"]),
            ("routes.robocall", ["voice"]),
            ("policy.categories.call", {"quiet_hours": "exempt", "channels": ["robocall"]}),
        ]
        async with world(tmp_path, policy=cap, change=change) as here:
            early, later = (
                here.requests(count // EACH * 2 // 5, "capped")
                + [replace(one, category="call") for one in here.requests(count // EACH // 10, **CALL)]
                for _ in range(2)
            )
            stories = {"sms": itertools.cycle(TEXTS), "robocall": itertools.cycle(CALLS)}
            told: dict[str, Story] = {}
            answers: list[int] = []
            informed: list[tuple[int, str | None]] = []
            acted: list[Acted] = []
            for requests, at_once in ((early, True), (later, False)):
                assert set(await here.post(requests)) == {202}
                await wait_until(lambda: len(_taken(ledger)) == len(here.acknowledged), 60, "the vendor has them")
                if not at_once:
                    await _settled(here)
                    await _age(here, drawn)
                new = [line for line in _taken(ledger) if line["attempt"] not in told]
                told |= {line["attempt"]: next(stories[line["channel"]]) for line in new}
                reached = await _reached(here, new, told)
                if at_once:
                    assert await _open(here) > 0, "nothing was told early"
                some, others = await asyncio.gather(
                    tell(here, _scrambled(new, told, drawn)), inform(here, _scrambled_acts(reached, drawn))
                )
                answers += some
                informed += others
                acted += reached
            await _settled(here)
            assert set(answers) == {204}
            assert set(informed) == {(202, "recorded"), (200, "recorded")}
            assert len(informed) == len(acted) * len(ACTS) * TIMES
            await _same(here, told)
            await _same_acts(here, told, acted)

            forged = _forged(_taken(ledger), drawn, count // 5)
            assert set(await tell(here, forged)) == {403}
            nobodys = [
                report("twilio", f"0{n:025}", "SM1", (("MessageStatus", "delivered"),)) for n in range(count // 20)
            ]
            nobodys += [report("voice", f"0{n:025}", "CA1", (("AnsweredBy", "human"),)) for n in range(count // 20)]
            assert set(await tell(here, nobodys)) <= {204, 404}
            strangers = [{"id": f"s-{n}", "event": "opened", "request": f"nobody's-{n}"} for n in range(count // 10)]
            assert set(await inform(here, strangers)) == {(202, "unmatched")}
            await _same(here, told)
            await _same_acts(here, told, acted)
            tally.fault(len(answers) + len(informed) + len(forged) + len(nobodys) + len(strangers))
            tally.messages = len(told)


def _taken(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_bytes().splitlines()]


def _scrambled(lines: list[dict[str, Any]], told: dict[str, Story], drawn: random.Random) -> list[Report]:
    """The story of each message backwards and five times over, mixed with the others'."""
    reports = []
    for line in lines:
        story = told[line["attempt"]]
        once = [report(story.provider, line["attempt"], line["reference"], news) for news in story.news]
        times = [*once[::-1] * TIMES]
        reports += drawn.sample(times, len(times))
    return drawn.sample(reports, len(reports))


class Acted(NamedTuple):
    """A message that has arrived, so that something can be done with it."""

    request: str
    person: str
    message: str
    attempt: str
    channel: str


async def _reached(here: World, lines: list[dict[str, Any]], told: dict[str, Story]) -> list[Acted]:
    """Those of them whose story does not end in failure."""
    (rows,) = await records.fetch(
        here.store,
        "select m.request, m.person, m.id, a.id, a.channel from attempts a join messages m on m.id = a.message",
    )
    well = {line["attempt"] for line in lines if told[line["attempt"]].state != "undelivered"}
    return [Acted(*row) for row in rows if row[3] in well]


def _scrambled_acts(reached: list[Acted], drawn: random.Random) -> list[dict[str, Any]]:
    """What is done with each, backwards and five times over, mixed with the others'; a tenth of it a month ago."""
    month_ago = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    events = []
    for number, one in enumerate(reached):
        story = [
            {
                "id": f"{one.request}-{place}",
                "event": event,
                **({"user": one.person} if event == "app_opened" else {"request": one.request}),
                **({"stage": stage} if stage else {}),
                **({"at": month_ago} if number % 10 == 0 and event != "app_opened" else {}),
            }
            for place, (event, stage) in enumerate(ACTS)
        ]
        events += story[::-1] * TIMES
    return drawn.sample(events, len(events))


async def _same_acts(here: World, told: dict[str, Story], acted: list[Acted]) -> None:
    """Each was remembered once, of the attempt that reached the person."""
    (rows,) = await records.fetch(
        here.store, "select act, stage, agent, via, person, message, attempt, channel from acts"
    )
    expected = [(act, stage, "human", "service", *one[1:]) for one in acted for act, stage in ACTS]
    expected += [("answered", None, agent, "callback", *one[1:]) for one in acted for agent in told[one.attempt].agents]
    assert sorted(map(tuple, rows), key=repr) == sorted(expected, key=repr)


async def _open(here: World) -> int:
    """Attempts whose outcome we do not know yet."""
    ((found,),) = await records.fetch(here.store, "select count(*) from attempts where state = 'intent'")
    return int(found[0])


FALSE: dict[str, tuple[str, Fields, Fields]] = {
    "sms": (
        "twilio",
        (("MessageStatus", "undelivered"), ("ErrorCode", "30003")),
        (("MessageStatus", "delivered"), ("ErrorCode", "30003")),
    ),
    "robocall": ("voice", (("CallStatus", "failed"),), (("AnsweredBy", "human"),)),
}
"""By channel: whose, what is signed, and what that is changed to."""


def _forged(lines: list[dict[str, Any]], drawn: random.Random, number: int) -> list[Report]:
    """Good receipts, each changed after it was signed, or signed for another attempt or by another."""
    fakes = []
    for n in range(number):
        one, other = drawn.sample(lines, 2)
        provider, false, true = FALSE[one["channel"]]
        path, fields, signed = report(provider, one["attempt"], one["reference"], false)
        elsewhere = report(provider, other["attempt"], one["reference"], false)[0]
        changed = [*fields[:3], *true]
        another = signature(f"https://m.test{path}", fields, "another token")
        fakes.append(
            ((elsewhere, fields, signed), (path, changed, signed), (path, fields, another), (path, fields, ""))[n % 4]
        )
    return fakes


async def _settled(here: World) -> None:
    async def nothing_open() -> bool:
        return not await _open(here)

    await wait_until(nothing_open, 30, "all attempts have an outcome")


async def _age(here: World, drawn: random.Random) -> None:
    """Let every tenth have been sent a month ago."""
    (rows,) = await records.fetch(here.store, "select id from attempts where state = 'accepted'")
    old = drawn.sample([id_ for (id_,) in rows], len(rows) // 10)
    marks = ", ".join(f"'{id_}'" for id_ in old)
    with closing(sqlite3.connect(here.store.removeprefix(records.SQLITE), timeout=10)) as database, database:
        database.execute(f"update attempts set begun_at = begun_at - {MONTH} where id in ({marks})")


async def _same(here: World, told: dict[str, Story]) -> None:
    """Each attempt is where its story ends, and holds a place unless it certainly did not arrive."""
    attempts, contacts = await records.fetch(
        here.store, "select id, state from attempts", "select attempt from contacts"
    )
    assert dict(attempts) == {attempt: story.state for attempt, story in told.items()}
    reached = [attempt for attempt, state in attempts if state != "undelivered"]
    assert sorted(attempt for (attempt,) in contacts) == sorted(reached)
