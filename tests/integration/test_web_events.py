"""What services report over HTTP is committed before it is answered, and shown where people look."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from gateway.acts import Deed
from gateway.message import OptOut, Profile
from gateway.store.migrate import migrate
from providers import Act, Agent
from tests.desk import PHONE, Desk, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POLICY = """
providers: {text: {kind: inbox}, mail: {kind: inbox}}
routes: {sms: [text], email: [mail]}
policy:
  timezone: UTC
  countries: {JP: Asia/Tokyo}
  categories: {alert: {conversion_window: 2h}}
  caps: [{name: daily, limit: 9, per: 24h}]
"""
NOON = "2026-11-24T12:00+09:00"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at(NOON)) as desk:
        yield desk


def event(**fields: Any) -> dict[str, Any]:
    given = {"id": "e-1", "event": "opened", "request": "r-1"} | fields
    return {name: value for name, value in given.items() if value is not ...}


async def report(desk: Desk, body: Any) -> tuple[int, Any]:
    """Status and answer; text is sent as NDJSON."""
    kind = "application/x-ndjson" if isinstance(body, str) else "application/json"
    data = body if isinstance(body, str) else orjson.dumps(body)
    return await desk.api("POST", "/v1/events", data=data, headers={"Content-Type": kind})


async def sent(desk: Desk, name: str = "r-1", **more: Any) -> str:
    """A message of the service whose key asks, which is ``local`` where there are no keys."""
    return await desk.sent(name, "alert", source="local", **more)


# -------------------------------------------------------------------------------------------------------------- answers


async def test_one_is_recorded_and_its_repeat_gets_the_same_answer(desk: Desk) -> None:
    message = await sent(desk)
    answer = {"id": "e-1", "state": "recorded", "message": message}
    assert await report(desk, event()) == (202, answer)
    assert await report(desk, event()) == (200, answer)
    status, found = await report(desk, event(event="clicked"))
    assert (status, found["type"], found["id"]) == (409, "urn:decorum:problem:conflict", "e-1")


async def test_one_that_names_nobody_we_know_breaks_nobody(desk: Desk) -> None:
    assert await report(desk, event()) == (202, {"id": "e-1", "state": "unmatched"})


async def test_all_faults_of_one_are_told(desk: Desk) -> None:
    status, found = await report(desk, event(event="open", usr="hana", source="crm", at="soon"))
    assert (status, found["type"]) == (422, "urn:decorum:problem:malformed")
    told = {error["path"]: error["problem"] for error in found["errors"]}
    assert set(told) == {"event", "usr", "source", "at"}
    assert "did you mean user?" in told["usr"]
    assert "must be left out, or be the name of the key, local" in told["source"]


@pytest.mark.parametrize("form", ["list", "lines"])
async def test_many_are_answered_one_by_one(desk: Desk, form: str) -> None:
    message = await sent(desk)
    many = [
        event(),
        event(id="e-2", event="converted", stage="applied", request=..., user="hana"),
        event(id="e-3", request="gone"),
        event(id="e-4", event="answered"),
        event(),
        event(event="clicked"),
    ]
    status, found = await report(
        desk, many if form == "list" else "\n".join(orjson.dumps(one).decode() for one in many)
    )
    assert status == 202
    results = found["results"]
    assert [(one["index"], one["status"], one.get("state"), one.get("id")) for one in results] == [
        (0, 202, "recorded", "e-1"),
        (1, 202, "recorded", "e-2"),
        (2, 202, "unmatched", "e-3"),
        (3, 422, None, "e-4"),
        (4, 200, "recorded", "e-1"),
        (5, 409, None, "e-1"),
    ]
    assert [one["message"] for one in results if one.get("state") == "recorded"] == [message] * 3
    assert [error["path"] for error in results[3]["errors"]] == ["event"]


async def test_many_of_which_none_is_good_are_refused(desk: Desk) -> None:
    status, found = await report(desk, [event(event="open"), "text"])
    assert status == 422
    assert [result["status"] for result in found["results"]] == [422, 422]
    status, found = await report(desk, [])
    assert (status, found["errors"][0]["problem"]) == (422, "is empty: send at least one event")


async def test_it_is_counted_by_what_it_was_answered(desk: Desk) -> None:
    await sent(desk)
    await report(desk, [event(), event(), event(id="e-2", request="gone"), event(event="open"), event(event="clicked")])
    async with aiohttp.ClientSession(desk.url) as session, session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    counted = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines if "gateway_reports_total{" in line}
    assert counted == {
        'gateway_reports_total{answer="recorded",event="opened"}': "1.0",
        'gateway_reports_total{answer="repeated",event="opened"}': "1.0",
        'gateway_reports_total{answer="unmatched",event="opened"}': "1.0",
        'gateway_reports_total{answer="malformed",event="unread"}': "1.0",
        'gateway_reports_total{answer="conflict",event="clicked"}': "1.0",
    }


# ---------------------------------------------------------------------------------------------------------------- shown


async def test_what_was_done_is_shown_as_data(desk: Desk) -> None:
    message = await sent(desk)
    desk.pass_(minutes=3)
    await report(desk, event(event="converted", stage="applied", request=..., user="hana"))
    found = (await desk.api("GET", f"/v1/messages/{message}"))[1]
    act = {"act": "converted", "agent": "human", "at": "2026-11-24T03:03:00.000Z", "via": "service", "channel": "sms"}
    assert found["acts"] == [act | {"stage": "applied"}]
    explained = orjson.loads(await desk.explain(message, "--json"))
    assert explained["acts"] == found["acts"]


async def test_what_was_done_is_told_in_sentences(desk: Desk) -> None:
    message = await sent(desk)
    desk.pass_(minutes=2)
    for number, fields in enumerate(
        (
            {"event": "opened"},
            {"event": "clicked"},
            {"event": "app_opened", "request": ..., "user": "hana"},
            {"event": "converted"},
            {"event": "converted", "stage": "applied"},
        )
    ):
        desk.pass_(minutes=1)
        assert (await report(desk, event(id=f"e-{number}", **fields)))[0] == 202
    desk.pass_(days=1)
    text = (await desk.explain(message)).splitlines()
    first = next(number for number, line in enumerate(text) if line.startswith("It was opened"))
    assert text[first : first + 5] == [
        "It was opened at 12:03 yesterday by a person.",
        "A person followed a link in it at 12:04 yesterday.",
        "The person opened the app at 12:05 yesterday; this message is held to have led to it.",
        "The person did what it was for at 12:06 yesterday; this message is held to have led to it.",
        "The person came as far as stage applied at 12:07 yesterday; this message is held to have led to it.",
    ]


async def test_a_machine_is_told_from_a_person(desk: Desk) -> None:
    message = await sent(desk)
    deeds = [
        Deed(act, Agent.MACHINE, "callback", act, message=message, why="voicemail", link=2)
        for act in (Act.OPENED, Act.CLICKED, Act.ANSWERED)
    ]
    await desk.store.record(deeds, desk.judge)
    text = await desk.explain(message)
    for told in (
        "A mail program fetched it ahead at 12:00, which does not count as opened (voicemail).",
        "A machine followed link 2 in it at 12:00, which does not count as clicked (voicemail).",
        "A machine answered the call at 12:00, which does not count as answered (voicemail).",
    ):
        assert told in text


async def test_of_much_that_was_done_the_last_is_told(desk: Desk) -> None:
    message = await sent(desk)
    await report(desk, [event(id=f"e-{n}") for n in range(7)])
    text = await desk.explain(message)
    assert "Of the 7 things that were done with it these were the last." in text
    assert text.count("It was opened") == 5


async def test_who_left_by_a_message_is_told(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(timezone="Asia/Tokyo"))])
    message = await sent(desk)
    view = await desk.store.view(message)
    assert view
    await desk.store.opt_out("hana", OptOut(category="*"), "one_click", desk.judge, view.attempts[0].id)
    await desk.store.opt_out_address(PHONE, OptOut(), "reply", desk.judge)
    text = await desk.explain(message)
    assert "The person said no to all that can be unsubscribed from at 12:00." in text
    assert "The person said no to everything at 12:00, as whoever has the address that it went to." in text
