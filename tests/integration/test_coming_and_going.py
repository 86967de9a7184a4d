"""The program among servers that come, go, freeze and fill up: what it says of itself, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from tests.integration.test_processes import CONTENT, DECORUM, REQUEST, ROOT, decorum, get, served, written
from tests.servers import free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import PostgreSQL, RabbitMQ

pytestmark = pytest.mark.timeout(240)
START = 100
"""Seconds that a process may take to start on a busy machine."""
HANGING = """
store: {store}
http: {{private: 127.0.0.1:{port}}}
providers:
  vendor: {{kind: http, channels: [email], url: "http://127.0.0.1:{vendor}/", timeout: 60, body: {{to: "{{address}}"}}}}
routes: {{email: [vendor]}}
policy: {{timezone: UTC, categories: {{news: {{priority: bulk}}}}}}
"""


def request(number: int | str, **more: Any) -> dict[str, Any]:
    return {"id": str(number), **REQUEST, **CONTENT, "user": f"user {number}"} | more


def post(port: int, document: object, path: str = "/v1/messages") -> tuple[int, float]:
    """The status (0: none came), and the seconds that it took."""
    began = time.monotonic()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(document).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, time.monotonic() - began
    except urllib.error.HTTPError as error:
        return error.code, time.monotonic() - began
    except OSError:
        return 0, time.monotonic() - began


async def posted(port: int, document: object, path: str = "/v1/messages") -> tuple[int, float]:
    return await asyncio.to_thread(post, port, document, path)


async def published(url: str, *documents: object) -> None:
    async with await aio_pika.connect(url) as connection:
        exchange = await (await connection.channel()).get_exchange("decorum.requests")
        for document in documents:
            await exchange.publish(aio_pika.Message(json.dumps(document).encode(), delivery_mode=2), "bulk")


def parts(port: int) -> dict[str, str]:
    return dict(get(port, "/readyz")[1].get("parts", {}))


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def ready(port: int) -> bool:
    return get(port, "/readyz")[0] == 200


async def back(port: int) -> None:
    """Ready again: the fault matrix allows 20 s (F3), and a machine that is busy with other tests as many again."""
    try:
        await wait_until(lambda: ready(port), 40)
    except AssertionError:
        pytest.fail(f"not ready again: {parts(port)}")


def sent(port: int, *numbers: int | str, source: str = "local") -> bool:
    return all(get(port, f"/v1/messages?source={source}&id={number}")[1].get("state") == "sent" for number in numbers)


# --------------------------------------------------------------------------------------------------------- any order


async def test_gateway_first_then_broker_then_database_and_each_goes_and_comes_again(
    tmp_path: Path, own_postgres: PostgreSQL, own_rabbitmq: RabbitMQ
) -> None:
    file, port = written(tmp_path, store=own_postgres.create_database(), broker=f'"{own_rabbitmq.url}"')
    assert decorum("migrate", "--config", str(file)).returncode == 0
    own_postgres.kill()
    own_rabbitmq.kill()
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: get(port, "/livez")[0] == 200, START)
        assert get(port, "/readyz")[0] == 503
        assert (await posted(port, request(0)))[0] == 503
        await asyncio.to_thread(own_rabbitmq.start_again)
        assert get(port, "/readyz")[0] == 503
        await asyncio.to_thread(own_postgres.start_again)
        await back(port)
        assert (await posted(port, request(1)))[0] == 202
        await published(own_rabbitmq.url, request(2, source="amqp"))
        await wait_until(lambda: sent(port, 1) and sent(port, 2, source="amqp"), 20)
        own_rabbitmq.settle()

        own_rabbitmq.kill()
        await wait_until(lambda: parts(port).get("broker") not in ("ok", None), 15)
        assert {name: state for name, state in parts(port).items() if name != "broker"} == {
            "store": "ok",
            "worker": "ok",
            "intake": "ok",
        }
        assert (await posted(port, request(3)))[0] == 202
        await asyncio.to_thread(own_rabbitmq.start_again)
        await back(port)

        own_postgres.kill()
        await wait_until(lambda: parts(port).get("store") not in ("ok", None), 15)
        assert (await posted(port, request(4)))[0] == 503
        await published(own_rabbitmq.url, request(5, source="amqp"))
        await asyncio.to_thread(own_postgres.start_again)
        await back(port)
        assert (await posted(port, request(4)))[0] == 202
        await wait_until(lambda: sent(port, 3, 4) and sent(port, 5, source="amqp"), 20)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


async def test_a_frozen_database_is_said_and_nobody_hangs_and_all_goes_on_when_it_thaws(
    tmp_path: Path, own_postgres: PostgreSQL, own_rabbitmq: RabbitMQ
) -> None:
    file, port = written(tmp_path, store=own_postgres.create_database(), broker=f'"{own_rabbitmq.url}"')
    with served(tmp_path, file, "--migrate") as gateway:
        await wait_until(lambda: ready(port), START)
        own_postgres.pause()
        await wait_until(lambda: parts(port).get("store") not in ("ok", None), 15)
        await published(own_rabbitmq.url, *(request(number, source="amqp") for number in range(100, 120)))
        answers = await asyncio.gather(*(posted(port, request(number)) for number in range(20)))
        assert {status for status, _ in answers} == {503}
        assert max(seconds for _, seconds in answers) < 6.5
        assert get(port, "/livez")[0] == 200
        await wait_until(lambda: "not consuming" in parts(port)["broker"], 30, "what it holds is given back")
        own_postgres.resume()
        thawed = time.monotonic()
        await wait_until(lambda: post(port, request(1))[0] in (200, 202), 10)
        assert time.monotonic() - thawed < 5
        await back(port)
        await wait_until(lambda: sent(port, *range(100, 120), source="amqp"), 20)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    assert "broker.parked" not in gateway.text


# ------------------------------------------------------------------------------------------------------------ stopping


@pytest.fixture
async def silent() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A vendor that takes every call and answers none: its port, and what it was sent."""
    calls: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], calls
    server.close()


def hanging(folder: Path, vendor: int, store: str | None = None) -> tuple[Path, int]:
    port, file = free_port(), folder / "gateway.yaml"
    file.write_text(HANGING.format(store=store or f"sqlite:///{folder}/decorum.db", port=port, vendor=vendor))
    return file, port


async def test_a_second_sigterm_waits_for_no_vendor_and_says_what_it_left(
    tmp_path: Path, silent: tuple[int, list[bytes]]
) -> None:
    vendor, calls = silent
    file, port = hanging(tmp_path, vendor)
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: ready(port), START)
        for number in range(3):
            assert (await posted(port, request(number)))[0] == 202
        await wait_until(lambda: len(calls) == 3)
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: get(port, "/readyz")[0] == 503)
        assert parts(port)["gateway"] == "draining"
        assert (await posted(port, request(9)))[0] == 503
        await asyncio.sleep(1)
        assert gateway.running, "the first one waits for the vendor"
        second = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(10) == 0
        assert time.monotonic() - second < 5
    assert any("worker.left_unknown" in line and re.search(r"attempts\W+3", line) for line in gateway.text.splitlines())
    assert "gateway.stopped" in gateway.text
    with closing(sqlite3.connect(tmp_path / "decorum.db")) as database:
        assert database.execute("select state, count(*) from attempts group by state").fetchall() == [("intent", 3)]
        assert database.execute("select count(*) from messages").fetchone() == (3,)


async def test_a_third_sigterm_ends_it_where_it_stands(
    tmp_path: Path, own_postgres: PostgreSQL, silent: tuple[int, list[bytes]]
) -> None:
    vendor, calls = silent
    file, port = hanging(tmp_path, vendor, own_postgres.create_database())
    with served(tmp_path, file, "--migrate") as gateway:
        await wait_until(lambda: ready(port), START)
        assert (await posted(port, request(1)))[0] == 202
        await wait_until(lambda: len(calls) == 1)
        own_postgres.pause()
        for said in ("gateway.draining", "gateway.hurrying"):
            gateway.signal(signal.SIGTERM)
            await wait_until(lambda said=said: said in gateway.text)
        assert gateway.running, "it tells the store what it knows"
        third = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(5) == 128 + signal.SIGTERM
        assert time.monotonic() - third < 1
    own_postgres.resume()


async def test_a_frozen_database_does_not_keep_it_from_stopping(tmp_path: Path, own_postgres: PostgreSQL) -> None:
    file, port = written(tmp_path, store=own_postgres.create_database())
    with served(tmp_path, file, "--migrate") as gateway:
        await wait_until(lambda: ready(port), START)
        own_postgres.pause()
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(45) == 0
        assert time.monotonic() - began < 45
    own_postgres.resume()


# ---------------------------------------------------------------------------------------------------------- no room


def _may_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_mount(), reason="a disk of 64 MB takes the right to mount one")
async def test_on_a_full_disk_nothing_is_accepted_nothing_is_lost_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    file, port = written(tmp_path, store=f"sqlite:///{disk}/decorum.db")
    command = f'mount -t tmpfs -o size=64m tmpfs {disk} && exec "$@"'
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with spawn(
        ["unshare", "--mount", "sh", "-c", command, "sh", *DECORUM, "serve", "--config", file],
        tmp_path / "log",
        env=environ,
    ) as gateway:
        await wait_until(lambda: ready(port), START)
        inside = Path(f"/proc/{gateway.pid}/root{disk}")
        assert (await posted(port, request(0)))[0] == 202
        await wait_until(lambda: sent(port, 0))
        ballast = inside / "ballast"
        for rounds in range(1, 4):
            _leave(20_000_000, inside, ballast)
            await wait_until(lambda: "of the disk" in parts(port).get("intake", ""), 10)
            assert get(port, "/readyz")[0] == 503
            status, seconds = await posted(port, request(f"refused {rounds}"))
            assert (status, seconds < 1) == (503, True)
            assert (await posted(port, {"phone": f"+1415555267{rounds}"}, "/v1/optouts"))[0] == 204
            _leave(0, inside, ballast)
            assert (await posted(port, request(f"refused {rounds}")))[0] == 503
            assert get(port, "/livez")[0] == 200
            ballast.unlink()
            await wait_until(lambda: ready(port), 10)
            assert (await posted(port, request(rounds)))[0] == 202
        await wait_until(lambda: sent(port, 0, 1, 2, 3), 10)
        for name in ("decorum.db", "decorum.db-wal"):
            shutil.copyfile(inside / name, tmp_path / name)
        with closing(sqlite3.connect(tmp_path / "decorum.db")) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
            assert database.execute("select count(*) from messages").fetchone() == (4,)
        assert 'gateway_requests_turned_away_total{via="http"} 6.0' in scraped(port)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


def _leave(room: int, folder: Path, ballast: Path) -> None:
    """Fill a disk until no more than so many bytes are free."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while (found := os.statvfs(folder)).f_bavail * found.f_frsize > room:
            file.write(bytes(65_536))


def test_it_does_not_start_on_the_parser_that_can_be_smuggled_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOHTTP_NO_EXTENSIONS", "1")
    answer = decorum("serve", "--config", str(written(tmp_path)[0]))
    assert answer.returncode == 1
    assert "AIOHTTP_NO_EXTENSIONS" in answer.stderr
