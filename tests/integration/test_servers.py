"""The private servers of the tests keep what they promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import asyncpg
import psutil
import pytest

from tests.servers import PostgreSQL, RabbitMQ, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


async def test_each_test_gets_a_virtual_host_of_its_own(rabbitmq: RabbitMQ) -> None:
    first, second = rabbitmq.create_vhost(), rabbitmq.create_vhost()
    async with await aio_pika.connect(first) as connection:
        await (await connection.channel()).declare_queue("mine")
    async with await aio_pika.connect(second) as connection:
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await (await connection.channel()).declare_queue("mine", passive=True)


async def test_each_test_gets_a_database_of_its_own(postgres: PostgreSQL) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    connection = await asyncpg.connect(first)
    await connection.execute("create table mine ()")
    assert await connection.fetchval("show fsync") == "on"
    await connection.close()
    connection = await asyncpg.connect(second)
    assert await connection.fetchval("select to_regclass('mine')") is None
    await connection.close()


async def test_a_killed_database_keeps_what_it_committed(own_postgres: PostgreSQL) -> None:
    own_postgres.sql("create table kept as select 42 as answer")
    own_postgres.kill()
    assert not own_postgres.answers()
    own_postgres.start_again()
    assert own_postgres.sql("select answer from kept") == "42\n"


async def test_a_paused_database_does_not_answer_until_resumed(own_postgres: PostgreSQL) -> None:
    connection = await asyncpg.connect(own_postgres.url)
    own_postgres.pause()
    with pytest.raises(TimeoutError):
        await connection.fetchval("select 1", timeout=0.2)
    own_postgres.resume()
    await wait_until(own_postgres.answers)
    connection.terminate()


def test_a_missing_server_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(RuntimeError, match="apt-get install rabbitmq-server"):
        RabbitMQ.start()
    with pytest.raises(RuntimeError, match="apt-get install postgresql"):
        PostgreSQL.start()


def test_ports_are_not_given_twice() -> None:
    assert len({free_port() for _ in range(20)}) == 20


_SCRIPT = """
import sys
from pathlib import Path
from tests.servers import spawn
child = spawn(["sleep", "600"], Path(sys.argv[1]) / "child")
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


async def test_children_die_with_a_killed_parent(starter: subprocess.Popen[str]) -> None:
    assert starter.stdout
    child = psutil.Process(int(starter.stdout.readline()))
    starter.send_signal(signal.SIGKILL)
    await wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5, "the child is gone")


def test_a_child_is_killed_with_its_own_children(tmp_path: Path) -> None:
    with spawn(["sh", "-c", "sleep 600 & echo $!; wait"], tmp_path / "log") as child:
        while not child.text.endswith("\n"):
            time.sleep(0.01)
        grandchild = int(child.text)
        os.kill(grandchild, 0)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
