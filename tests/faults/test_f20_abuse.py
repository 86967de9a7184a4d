"""Clients that abuse the HTTP listener are refused or cut off, cost little memory, and do not slow the others down."""

from __future__ import annotations

import asyncio
import gzip
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from tests.faults.rows import FULL
from tests.faults.world import world
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.faults.tally import Tally
    from tests.faults.world import World

CLIENTS = 1000
"""That are slow, at once."""
BODIES = 200
"""Of them, in the middle of a body; the others are in the middle of a head. 256 bodies are read at once, and keys are
asked for first, so that only our own services can be so many."""
SPARE = 50_000_000
"""Bytes that the gateway may grow by."""
CALLS = 400 if FULL else 150
"""Good ones that are timed, with and without abuse."""
SLOWER, NOISE = 2.0, 0.1
"""Times that the slowest hundredth may take under abuse; and seconds that a busy machine adds by itself."""
CUT_OFF = 90.0
"""Seconds until a client that never finishes is let go: 30 for a body, 75 for a head, and some."""
AT_ONCE = 10.0
"""Seconds until any other is answered."""

HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BOMB = gzip.compress(b"0" * 50_000_000)


def _endless() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


def _headers() -> Iterator[bytes]:
    yield HEAD
    for number in range(10_000):
        yield b"X-%d: y\r\n" % number
    yield b"Content-Length: 2\r\n\r\n{}"


ABUSE = {
    "a body of a megabyte and one": lambda: [HEAD + b"Content-Length: 1048577\r\n\r\n", b"x" * 1_048_577],
    "chunks without end": _endless,
    "two lengths": lambda: [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    ],
    "two hosts": lambda: [HEAD + b"Host: b\r\nContent-Length: 2\r\n\r\n{}"],
    "ten thousand headers": _headers,
    "a gzip bomb": lambda: [HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB],
}
"""What a client sends; all of these are answered with a 4xx, or cut off."""


async def talk(port: int, pieces: Iterable[bytes], seconds: float) -> bytes:
    """Send until refused; what came back first, empty where the connection was cut. An error if neither comes."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.read(4096))
        try:
            with suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    if answer.done():
                        break
            with suppress(ConnectionError):
                return await answer
            return b""
        finally:
            answer.cancel()
            writer.transport.abort()


async def timed(here: World) -> float:
    """Seconds of the slowest hundredth of good calls, made one after another."""
    times = []
    async with aiohttp.ClientSession() as session:
        for request in here.requests(CALLS):
            here.attempted[request.id] = request
            body = {name: value for name, value in request.body.items() if name != "source"}
            began = time.perf_counter()
            async with session.post(f"{here.gateways[0].url}/v1/messages", json=body) as response:
                assert response.status == 202
            times.append(time.perf_counter() - began)
            here.acknowledged.add(request.id)
    return sorted(times)[-len(times) // 100]


async def slow(here: World, number: int) -> None:
    """A byte a second of a head, or of a body, until it is cut off."""
    gateway = here.gateways[0]
    body = number < BODIES
    port = gateway.private if body or number % 2 else gateway.public
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.read(4096))
    try:
        with suppress(ConnectionError):
            writer.write(HEAD + b"Content-Length: 100000\r\n\r\n{" if body else b"POST /v1/messages HTTP/1.1\r\nX: ")
            while not answer.done():
                await asyncio.wait([answer], timeout=1)
                writer.write(b" ")
                await writer.drain()
    finally:
        answer.cancel()
        writer.transport.abort()


@pytest.mark.row("F20")
async def test_abuse_is_refused_and_harms_nobody(tmp_path: Path, count: int, tally: Tally) -> None:
    assert count == len(ABUSE) + 1
    async with world(tmp_path) as here:
        gateway = here.gateways[0]
        assert gateway.child
        process = psutil.Process(gateway.child.pid)
        alone = max(await timed(here), await timed(here))
        before, largest = process.memory_info().rss, 0
        for pieces in ABUSE.values():
            answers = await asyncio.gather(*(talk(gateway.private, pieces(), AT_ONCE) for _ in range(20)))
            assert all(answer == b"" or answer[9:10] == b"4" for answer in answers), answers
            largest = max(largest, process.memory_info().rss)
            tally.fault()
        clients = [asyncio.create_task(slow(here, number)) for number in range(CLIENTS)]
        try:
            await wait_until(lambda: len(process.net_connections()) > CLIENTS, 30, "all slow clients are there")
            beside = await timed(here)
            largest = max(largest, process.memory_info().rss)
            if FULL:
                await asyncio.wait_for(asyncio.gather(*clients), CUT_OFF)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        tally.fault()
        grown = largest - before
        print(f"slowest hundredth {alone * 1000:.0f} ms, {beside * 1000:.0f} ms; grown by {grown / 1e6:.0f} MB")
        assert beside <= alone * SLOWER + NOISE
        assert grown <= SPARE
        await here.settled(60)
        tally.judge(await here.verdict())
