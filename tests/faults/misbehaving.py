"""A vendor that misbehaves, each way at an address of its own: ``python -m tests.faults.misbehaving FOLDER``.

It takes what ``tests.vendors.http`` takes, and writes ``calls.jsonl`` into the folder: which way, whose message, when.
``ca.pem`` there is whom to trust, and while ``sick`` is there the address ``sick`` answers that it is not available.
One JSON line is printed once it is ready: the URL of each way.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import trustme

SLOW = 30.0
"""Seconds that the slow way takes to answer."""
PAUSE = 2
"""Seconds that the throttling ways ask for, once for each message."""
TAKEN = b'{"data":{"id":"mv-1"}}'
BOMB = gzip.compress(TAKEN[:-1] + b',"more":"' + b"0" * 100_000_000 + b'"}')
"""A good answer of 100 MB in 100 KB, for a client that unpacks it."""
HUGE = TAKEN[:-1] + b',"more":"' + b"0" * 10_000_000 + b'"}'
WAYS = (
    *("refuse", "slow", "reset-before", "reset-mid", "reset-after", "200-reset", "429-seconds", "429-date"),
    *("500", "502", "503", "bad-json", "huge", "gzip-bomb", "redirect", "wrong-name"),
)


class Vendor:
    """All its ways."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = os.open(folder / "calls.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._seen: Counter[tuple[str, str]] = Counter()

    async def start(self) -> dict[str, str]:
        """The URL of each way."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self._folder / "ca.pem"))
        another = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("vendor.example").configure_cert(another)
        plain = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        secure = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=another)
        self._deaf = socket.socket()
        self._deaf.bind(("127.0.0.1", 0))  # and does not listen, so that nobody else gets the port
        port = plain.sockets[0].getsockname()[1]
        urls = {way: f"http://127.0.0.1:{port}/{way}" for way in (*WAYS, "sick", "ok")}
        urls["refuse"] = f"http://127.0.0.1:{self._deaf.getsockname()[1]}/refuse"
        urls["wrong-name"] = f"https://127.0.0.1:{secure.sockets[0].getsockname()[1]}/wrong-name"
        return urls

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while await self._one(reader, writer):
                pass
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        way = head.split(" ")[1].removeprefix("/")
        if way == "reset-before":
            return _reset(writer)
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        self._note(way, body)
        match way:
            case "slow":
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOW):
                        await reader.read()  # until the client leaves
            case "reset-after":
                return _reset(writer)
            case "reset-mid":
                writer.write(_answer(200, TAKEN)[:-5])
                await writer.drain()
                return _reset(writer)
            case "200-reset":
                writer.write(_answer(200, TAKEN))
                await writer.drain()
                return _reset(writer)
        writer.write(self._said(way, body))
        await writer.drain()
        return True

    def _said(self, way: str, body: dict[str, Any]) -> bytes:
        match way:
            case "429-seconds" | "429-date" if self._seen[way, body["to"]] == 1:
                date = formatdate(time.time() + PAUSE, usegmt=True)
                return _answer(429, b"{}", f"Retry-After: {PAUSE if way == '429-seconds' else date}")
            case "500" | "502" | "503":
                return _answer(int(way), b"{}")
            case "sick" if (self._folder / "sick").exists():
                return _answer(503, b"{}")
            case "bad-json":
                return _answer(200, TAKEN[:-2])
            case "huge":
                return _answer(200, HUGE)
            case "gzip-bomb":
                return _answer(200, BOMB, "Content-Encoding: gzip")
            case "redirect":
                return _answer(307, b"", "Location: /ok")
        return _answer(200, TAKEN)

    def _note(self, way: str, body: dict[str, Any]) -> None:
        self._seen[way, body["to"]] += 1
        line = {"way": way, "to": body["to"], "text": body["text"], "attempt": body["ref"], "at": time.time()}
        os.write(self._calls, json.dumps(line).encode() + b"\n")


def _answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """With RST, and not with an orderly end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def main(folder: Path) -> None:
    vendor = Vendor(folder)
    print(json.dumps(await vendor.start()), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
