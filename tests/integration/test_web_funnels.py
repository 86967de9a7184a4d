"""What came of it, asked over HTTP and by the command line."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import shutil
from base64 import b64encode
from io import StringIO
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from typer.testing import CliRunner

from gateway.acts import Deed
from gateway.cli import main
from gateway.ids import SOURCE
from gateway.message import microseconds
from gateway.store.migrate import migrate
from gateway.web.funnels import Funnels
from gateway.web.problems import told
from providers import Act, Agent
from tests.desk import Desk, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POLICY = """
providers: {text: {kind: inbox, cost: {amount: "0.05", currency: EUR}}}
routes: {sms: [text]}
policy:
  timezone: Asia/Tokyo
  categories: {news: {priority: bulk}, alert: {priority: high}}
report:
  targets: [{step: clicked, at_least: 20%}]
"""
NOON = "2026-11-25T12:00+09:00"
SPAN = {"since": "2026-11-20T00:00:00Z", "until": "2026-11-26T00:00:00Z"}


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at(NOON)) as desk:
        yield desk


async def busy(desk: Desk) -> None:
    """Forty messages of a campaign, eight of them clicked, and one of none."""
    chance = count()
    SOURCE.set(lambda: (microseconds(desk.now), next(chance)))
    for number in range(40):
        await desk.accept(f"r{number}", "news", f"u{number}", campaign="spring")
    await desk.accept("alert", "alert", "u99")
    await desk.work()
    clicked = [
        Deed(Act.CLICKED, Agent.HUMAN, "link", f"k{n}", message=await desk.store.by_request("loans", f"r{n}"))
        for n in range(8)
    ]
    await desk.store.record(clicked, desk.judge)


async def asked(desk: Desk, **query: str) -> dict[str, Any]:
    status, found = await desk.api("GET", "/v1/report", params=SPAN | query)
    assert status == 200, found
    return dict(found)


async def test_it_is_told_by_campaign_and_channel_unless_asked_otherwise(desk: Desk) -> None:
    await busy(desk)
    report = await asked(desk)
    assert report["by"] == ["campaign", "channel"]
    assert [(group["key"], group["requested"], group["clicked"]) for group in report["groups"]] == [
        ({"campaign": "spring", "channel": "sms"}, 40, 8),
        ({"campaign": None, "channel": "sms"}, 1, 0),
    ]
    assert (report["total"]["sent"], report["total"]["cost"]) == (41, {"EUR": "2.05"})
    assert [held["verdict"] for held in report["total"]["targets"]] == ["too_few"]
    assert (await asked(desk, by="category,day", category="alert"))["groups"][0]["key"] == {
        "category": "alert",
        "day": "2026-11-25",
    }
    assert (await asked(desk, by=""))["groups"] == []


async def test_without_a_time_it_is_about_the_last_seven_days(desk: Desk) -> None:
    status, report = await desk.api("GET", "/v1/report")
    assert status == 200
    assert (at(report["until"]) - at(report["since"])).days == 7
    assert at(report["until"]) == at(report["asked_at"])
    status, report = await desk.api("GET", "/v1/report?since=2d&until=1d12h")
    assert (at(report["until"]) - at(report["since"])).total_seconds() == 12 * 3600


@pytest.mark.parametrize(
    ("query", "path", "problem"),
    [
        ({"by": "campaing"}, "by[0]", "did you mean campaign?"),
        ({"by": "day,day"}, "by", "names one twice"),
        ({"sinse": "7d"}, "sinse", "did you mean since?"),
        ({"since": "7"}, "since", "must be a duration with its unit"),
        ({"since": "yesterday"}, "since", "or write how long ago, such as 7d"),
        ({"since": "2026-11-20"}, "since", "must be a date and time in RFC 3339 form"),
        ({"since": "2026-11-20T00:00:00"}, "since", "needs an offset"),
        ({"since": "2026-11-20T00:00:00 09:00"}, "since", "write %2B for +"),
        ({"since": "2026-11-26T00:00:00Z"}, "since", "must be before until"),
        ({"category": ""}, "category", "must not be empty"),
        ({"category": "newz"}, "category", "no message of that time has it: did you mean news?"),
    ],
)
async def test_a_question_that_cannot_be_understood_is_told_how_to_mend_it(
    desk: Desk, query: dict[str, str], path: str, problem: str
) -> None:
    status, found = await desk.api("GET", "/v1/report", params=SPAN | query)
    assert status == 400
    assert [error["path"] for error in found["errors"]] == [path]
    assert problem in found["errors"][0]["problem"]


async def test_all_that_is_wrong_with_a_question_is_told_at_once(desk: Desk) -> None:
    status, found = await desk.api("GET", "/v1/report?by=x&since=y&zone=UTC&until=1d&until=2d")
    assert status == 400
    assert {error["path"] for error in found["errors"]} == {"by[0]", "since", "zone", "until"}


async def test_people_see_a_page_that_may_load_nothing(desk: Desk) -> None:
    await busy(desk)
    async with aiohttp.ClientSession(desk.url) as session, session.get("/report", params=SPAN) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert "<bdi>spring</bdi>" in text


async def test_the_command_prints_a_table_and_what_it_does_not_show(desk: Desk) -> None:
    await busy(desk)
    printed = (await desk.run("report", *options())).replace("\xa0", " ")
    lines = [line.split() for line in printed.splitlines()]
    head = next(line for line in lines if line[:1] == ["campaign"])
    assert " ".join(head) == "campaign channel requested sent clicked converted opted out uninstalled cost"
    assert next(line for line in lines if line[:1] == ["spring"])[1:6] == ["sms", "40", "40", "100", "%"]
    assert next(line for line in lines if line[:1] == ["total"])[1] == "41"
    assert "? clicked: at least 20 % of sent: too few to tell; 19.5 % of 41" in printed


async def test_the_command_writes_json_a_sheet_and_a_page(desk: Desk, tmp_path: Path) -> None:
    await busy(desk)
    assert orjson.loads(await desk.run("report", *options(), "--json")) | {"asked_at": 0} == await asked(desk) | {
        "asked_at": 0
    }
    head, *body = csv.reader(StringIO(await desk.run("report", *options(), "--csv", "--by", "channel")))
    assert (head[:2], [cells[:2] for cells in body]) == (["channel", "requested"], [["sms", "41"]])
    file = tmp_path / "report.html"
    assert await desk.run("report", *options(), "--html", str(file)) == ""
    assert "<bdi>spring</bdi>" in file.read_text(encoding="utf-8")
    piped = ["report", *options(), "--html", "-", "--url", desk.url]
    written = await asyncio.to_thread(CliRunner().invoke, main, piped)
    assert (written.stdout[:15], written.stdout[-7:]) == ("<!doctype html>", "</html>")
    assert "No such file" in await desk.run("report", "--html", str(tmp_path / "none" / "x.html"), status=1)


async def test_the_command_says_what_it_did_not_understand(desk: Desk) -> None:
    assert "did you mean campaign?" in await desk.run("report", "--by", "campain", status=1)
    assert "write how long ago" in await desk.run("report", "--since", "last week", status=1)
    assert "give one of them" in await desk.run("report", "--csv", "--json", status=1)
    assert "leave --csv and --json out" in await desk.run("report", "--html", "-", "--json", status=1)


def options() -> tuple[str, ...]:
    return tuple(word for name, value in SPAN.items() for word in (f"--{name}", value))


# ------------------------------------------------------------------------------------------------------------- its time


class Slow:
    """A store whose pages come when they are let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def stories(self, *_: object) -> tuple[list[Any], None]:
        self.asked.set()
        await self.let.wait()
        return [], None

    async def unattributed(self, *_: object) -> tuple[list[Any], None]:
        return [], None


async def status(session: aiohttp.ClientSession) -> tuple[int, str]:
    async with session.get("/") as response:
        return response.status, (await response.json(content_type=None)).get("type", "")


@pytest.fixture
async def slow(desk: Desk) -> AsyncIterator[tuple[Slow, aiohttp.ClientSession, Funnels]]:
    store = Slow()
    reports = Funnels(store, lambda: desk.judge, tuple, {}, patience=30)  # type: ignore[arg-type]

    async def handler(request: web.Request) -> web.Response:
        return await reports.told(request, None)  # type: ignore[arg-type]

    app = web.Application(middlewares=[told])
    app.router.add_get("/", handler)
    served = web.AppRunner(app, shutdown_timeout=0.1)
    await served.setup()
    await web.TCPSite(served, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.addresses[0][1]}") as session:
        yield store, session, reports
    await served.cleanup()


async def test_one_report_is_counted_at_a_time(slow: tuple[Slow, aiohttp.ClientSession, Funnels]) -> None:
    store, session, _ = slow
    first = asyncio.create_task(status(session))
    await store.asked.wait()
    assert await status(session) == (429, "urn:decorum:problem:overloaded")
    store.let.set()
    assert await first == (200, "")
    assert await status(session) == (200, "")


async def test_one_that_takes_too_long_ends_with_what_to_do(slow: tuple[Slow, aiohttp.ClientSession, Funnels]) -> None:
    store, session, reports = slow
    reports.patience = 0.05
    assert await status(session) == (504, "urn:decorum:problem:too_long")
    store.let.set()
    assert await status(session) == (200, "")
