"""What ``make run`` shows: a small campaign whose requests meet every fate, on a gateway of its own."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from rich.markup import escape
from rich.table import Table

from gateway.app import App, Unusable, serve
from gateway.config import ConfigError, load, parse
from gateway.ids import new_id
from ratelimit import zone

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.console import Console

    from gateway.config import Config

_SETTLING = 30.0
"""Seconds within which every request of the campaign has met its fate."""
_OPEN = ("accepted", "sending")
_ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata")


async def play(file: Path | None, console: Console, *, once: bool) -> None:
    """Start a gateway, send the campaign, print what became of each request, and go on until told to end.

    Raises:
        Unusable: the gateway cannot start.
    """
    config = _config(file)
    app = App(config)
    played = asyncio.Event()

    async def campaign() -> None:
        await _campaign(f"http://127.0.0.1:{app.private_port}", console)
        if not once:
            console.print("Ctrl-C ends it.")
        played.set()

    tasks: set[asyncio.Task[None]] = set()
    await serve(app, started=lambda: tasks.add(asyncio.create_task(campaign())), until=played if once else None)
    for task in tasks:
        task.cancel()


def _config(file: Path | None) -> Config:
    try:
        if file:
            return load(file, os.environ)
        text = files("gateway").joinpath("sample.yaml").read_text(encoding="utf-8")
        return parse(text, os.environ, base=Path())
    except ConfigError as error:
        raise Unusable(str(error)) from error


def _requests(run: str, now: datetime) -> list[tuple[str, Any]]:
    """What is asked, and what it is to show."""
    day, night = _zone_where(now, quiet=False), _zone_where(now, quiet=True)

    def request(name: str, user: str, category: str = "reactivation", **more: Any) -> dict[str, Any]:
        return {
            "id": f"{run}-{name}",
            "user": f"{user}-{run}",
            "category": category,
            "campaign": "wake-up",
            "timezone": day,
            "to": {"email": f"{user}@example.com", "phone": "+81312345678"},
            "content": {
                "email": {"subject": "We kept your application", "text": "Three minutes are left to finish it."},
                "sms": {"text": "Three minutes are left to finish your application."},
            },
        } | more

    code = {"content": {"sms": {"text": "Your code is 123456"}}}
    malformed = request(
        "malformed", "hana", to={"phone": "call me", "email": "nowhere"}, priority="urgent", colour="red"
    )
    return [
        ("sent by SMS, the first channel that reaches her", request("first", "hana")),
        ("a receipt goes at any hour, and counts", request("receipt", "hana", "transactional", timezone=night)),
        ("two in 24 hours are enough for one person", request("second", "hana", campaign="win-back")),
        ("a one-time code is held back by no cap", request("code", "hana", "one_time_code", **code)),
        ("it is night where he is", request("night", "kenji", timezone=night)),
        ("she has opted out of this category", request("opted-out", "mio")),
        ("nobody knows where to reach him", request("no-address", "sora", to={})),
        ("every fault is named at once", malformed),
        ("the same request again is the same message", request("first", "hana")),
        ("the same id with another body is a conflict", request("first", "hana", campaign="other")),
    ]


def _zone_where(now: datetime, *, quiet: bool) -> str:
    """A zone where the sample's night (21:00 to 08:00) is now, or is not for a while."""
    for name in _ZONES:
        hour = now.astimezone(zone(name)).hour
        if (hour >= 21 or hour < 7) if quiet else 9 <= hour < 20:  # noqa: PLR2004 - the sample's night
            return name
    return "UTC"


async def _campaign(url: str, console: Console) -> None:
    run = new_id()[-6:]
    wanted = _requests(run, datetime.now(UTC))
    async with aiohttp.ClientSession(url) as session:
        await session.put(f"/v1/users/mio-{run}", json={"opted_out": [{"category": "reactivation"}]})
        answers = []
        for _, request in wanted:
            async with session.post("/v1/messages", json=request) as response:
                answers.append((response.status, await response.json()))
            await _settled(session, answers[-1])
        table = Table(title="What became of the sample campaign", title_justify="left", show_lines=True)
        for heading, width in (("request", 28), ("state", 8), ("why", None)):
            table.add_column(heading, overflow="fold", max_width=width)
        for (purpose, request), answer in zip(wanted, answers, strict=True):
            state, why = await _fate(session, answer, zone(request["timezone"]))
            table.add_row(f"{request['id']}\n[dim]{purpose}[/dim]", state, escape(why))
    console.print(table)
    shown = answers[2][1]["message"]
    console.print(f"The gateway listens on {url}. While it does, look closer:", soft_wrap=True)
    console.print(f"  curl {url}/v1/messages/{shown}", soft_wrap=True)
    console.print(f"  .venv/bin/decorum explain {shown} --url {url}", soft_wrap=True)
    console.print(f"  curl {url}/metrics", soft_wrap=True)


async def _settled(session: aiohttp.ClientSession, answer: tuple[int, Any]) -> None:
    """Wait until a request's fate is decided, so that the next one meets it."""
    deadline = asyncio.get_running_loop().time() + _SETTLING
    while answer[0] in (200, 202) and asyncio.get_running_loop().time() < deadline:
        async with session.get(f"/v1/messages/{answer[1]['message']}") as response:
            view = await response.json()
        if view["state"] != "sending" and (view["decisions"] or view["attempts"]):
            return
        await asyncio.sleep(0.02)


async def _fate(session: aiohttp.ClientSession, answer: tuple[int, Any], theirs: ZoneInfo) -> tuple[str, str]:
    """The state, and why, by the person's clock."""
    status, body = answer
    if status not in (200, 202):
        problems = [f"{error['path']}: {error['problem']}" for error in body.get("errors", [])]
        return f"{status}", "\n".join(problems) or body.get("detail", "")
    async with session.get(f"/v1/messages/{body['message']}") as response:
        view = await response.json()
    state = view["state"] if status == 202 else f"{view['state']}, known already"  # noqa: PLR2004 - HTTP's
    if view["attempts"]:
        attempt = view["attempts"][-1]
        return state, f"by {attempt['channel']} through {attempt['provider']}"
    decision = view["decisions"][-1]
    objections = [f"{rule['rule']}: {rule['why']}" for rule in decision["why"] if not rule["permits"]]
    until = []
    if view.get("until"):
        at = datetime.fromisoformat(view["until"]).astimezone(theirs)
        until = [f"next look at {at:%H:%M:%S on %Y-%m-%d} ({theirs.key})"]
    return state, "\n".join([*(objections or [decision["reason"].replace("_", " ")]), *until])
