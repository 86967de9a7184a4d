"""What kills the process that works on it, or that reads it: is it set aside, and does nobody else notice for long?"""

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

import aio_pika
import pytest

from gateway.intake import LARGEST
from tests.integration.poisoned import DEADLY_INPUT, POISON
from tests.integration.test_broker import NORMAL, left, parked
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


def told(port: int, number: int | str, source: str = "local") -> dict[str, Any]:
    found: dict[str, Any] = get(port, f"/v1/messages?source={source}&id={number}")[1]
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

            await wait_until(lambda over=over: over() or get(port, "/readyz")[0] == 200, 60)
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


@pytest.mark.timeout(300)
async def test_input_that_kills_each_process_that_reads_it_is_parked_and_no_other(
    tmp_path: Path, amqp_url: str
) -> None:
    file, port = written(tmp_path, broker=amqp_url)
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: get(port, "/readyz")[0] == 200, 60)  # the queues are there
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    good = [{**request(number), "source": "tests"} for number in range(2 * GOOD)]
    deadly = {**request(2 * GOOD, DEADLY_INPUT), "source": "tests"}
    await publish(amqp_url, [*good[:GOOD], deadly, *good[GOOD:]])
    crashes = 0
    while True:
        with served(tmp_path, file) as gateway:

            def over(gateway: Child = gateway) -> bool:
                return not gateway.running or "broker.parked" in gateway.text

            await wait_until(over, 90)
            if gateway.running:
                # Unknown, if a crash met it on its way.
                await wait_until(lambda: told(port, 2 * GOOD - 1, "tests").get("state") in ("sent", "unknown"), 60)
                gateway.signal(signal.SIGTERM)
                assert gateway.wait(30) == 0
                break
        crashes += 1
        assert crashes <= MOST_CRASHES, gateway.text[-3000:]
    assert crashes == 4, "once in company, and three times alone"
    assert await left(amqp_url, NORMAL) == 0
    (found,) = await parked(amqp_url, 1)
    assert json.loads(found.body) == deadly
    assert found.headers["x-decorum-reason"] == "poison"
    with closing(sqlite3.connect(tmp_path / "decorum.db")) as database:
        accepted = database.execute("select request from messages").fetchall()
        assert {number for (number,) in accepted} == {one["id"] for one in good}
        assert database.execute("select count(*) from doubtful").fetchone() == (0,)


async def publish(url: str, requests: list[dict[str, Any]]) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for one in requests:
            await channel.default_exchange.publish(aio_pika.Message(json.dumps(one).encode()), NORMAL)


DEEP = '{"a":' * 5000 + "1" + "}" * 5000
BAD: dict[str, bytes] = {
    "no JSON": b"{",
    "empty": b"",
    "NUL": b"\x00\x00\x00",
    "NUL inside": json.dumps({**request(1), "user": "a\x00b"}).encode(),
    "half a character": json.dumps({**request(2), "user": "a\ud800b"}).encode(),
    "not UTF-8": b'{"id": "\xff\xfe"}',
    "deep": DEEP.encode(),
    "deep lists": b"[" * 100_000,
    "2 MB": json.dumps({**request(3), "source": "tests", "padding": "x" * 2_000_000}).encode(),
    "another version": json.dumps({**request(4), "source": "tests", "version": 99}).encode(),
    "wrong types": json.dumps({**request(5), "source": "tests", "user": ["a"], "content": 7}).encode(),
    "a huge number": b'{"id": 1' + b"0" * 5000 + b"}",
    "a list": b"[]",
    "null": b"null",
}


async def test_bad_input_among_good_is_parked_at_its_first_delivery_and_the_good_arrives(
    tmp_path: Path, amqp_url: str
) -> None:
    file, port = written(tmp_path, broker=amqp_url)
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: get(port, "/readyz")[0] == 200, 60)
        good = [{**request(number), "source": "tests"} for number in range(100, 100 + GOOD)]
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            for number, one in enumerate(good):
                await channel.default_exchange.publish(aio_pika.Message(json.dumps(one).encode()), NORMAL)
                for bad in list(BAD.values())[number::GOOD]:
                    await channel.default_exchange.publish(aio_pika.Message(bad), NORMAL)
        for one in good:
            await wait_until(lambda one=one: told(port, one["id"], "tests").get("state") == "sent", 30)
        found = await parked(amqp_url, len(BAD))
        # Of what is too long, its beginning.
        assert {message.body for message in found} == {bad[: LARGEST + 1] for bad in BAD.values()}
        assert {message.headers["x-decorum-reason"] for message in found} == {"malformed"}
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    assert "bug" not in gateway.text
