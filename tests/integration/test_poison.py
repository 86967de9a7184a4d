"""A message that kills the process that works on it: is it set aside, and does nobody else notice for long?"""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.poisoned import POISON
from tests.integration.test_processes import get, written
from tests.servers import Child, spawn, wait_until

ROOT = Path(__file__).parents[2]
GOOD = 40
MOST_CRASHES = 5


def served(folder: Path, file: Path) -> Child:
    return spawn(
        [sys.executable, "-m", "tests.integration.poisoned", "serve", "--config", file], folder / "log", cwd=ROOT
    )


def post(port: int, requests: list[dict[str, Any]]) -> bool:
    """Whether it was answered; where not, the process has died of what it had before."""
    body = "\n".join(json.dumps(request) for request in requests).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/messages", body, {"Content-Type": "application/x-ndjson"}, method="POST"
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return bool(answer.status == 202)
    except (OSError, http.client.HTTPException):
        return False


def request(number: int, text: str = "hello") -> dict[str, Any]:
    return {
        "id": str(number),
        "user": f"user-{number}",
        "category": "news",
        "to": {"email": f"{number}@example.com"},
        "content": {"email": {"subject": "hello", "text": text}},
    }


def told(port: int, number: int) -> dict[str, Any]:
    found: dict[str, Any] = get(port, f"/v1/messages?source=local&id={number}")[1]
    return found


@pytest.mark.timeout(300)
async def test_a_message_that_kills_each_process_that_decides_it_is_parked_and_all_others_arrive(
    tmp_path: Path,
) -> None:
    file, port = written(tmp_path)
    good, poison, later = range(GOOD), GOOD, range(GOOD + 1, 2 * GOOD)

    crashes, answered = 0, False
    while True:
        with served(tmp_path, file) as gateway:

            def over(gateway: Child = gateway) -> bool:
                return not gateway.running or told(port, poison).get("state") == "parked"

            await wait_until(lambda: over() or get(port, "/readyz")[0] == 200, 60)
            if crashes == 0:
                assert post(port, [*map(request, good), request(poison, POISON)]) or not gateway.running
            elif not answered:
                answered = post(port, [*map(request, later)])  # it takes a moment until a suspect is looked at
            await wait_until(over, 60)
            if gateway.running:
                await settled(tmp_path, port, poison, [*good, *later])
                gateway.signal(signal.SIGTERM)
                assert gateway.wait(30) == 0
                break
        crashes += 1
        assert crashes <= MOST_CRASHES, gateway.text[-3000:]
    assert answered
    assert crashes == 4, "once in company, and three times alone"


async def settled(folder: Path, port: int, poison: int, others: list[int]) -> None:
    def state(number: int) -> str | None:
        return told(port, number).get("state")

    for number in others:
        await wait_until(lambda number=number: state(number) in ("sent", "unknown"), 30)
    fates = [state(number) for number in others]
    assert fates.count("sent") > GOOD
    with closing(sqlite3.connect(folder / "decorum.db")) as database:
        # What was being handed over when the process died may have been sent; all else was.
        left = database.execute("select count(*) from attempts where state = 'unknown' and error = 'crash'").fetchone()
        assert fates.count("unknown") == left[0]
        assert database.execute("select count(*) from due").fetchone() == (0,)
    parked = get(port, "/v1/parked")[1]["parked"]
    assert [(one["request"], one["reason"], one["via"]) for one in parked] == [(str(poison), "poison", "worker")]
    why = told(port, poison)
    assert (why["state"], why["reason"]) == ("parked", "poison")
    assert "died 3 times" in why["decisions"][-1]["why"][0]["why"]
