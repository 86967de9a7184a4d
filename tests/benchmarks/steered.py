"""Vendors whose behaviour is set while they run: ``python -m tests.benchmarks.steered CONTROL a=PORT b=PORT [LEDGER]``.

A line of JSON to the control port is answered by one: ``{"vendor": "a", "mode": "refuse"}`` sets how ``a`` behaves,
``{}`` asks how much was accepted, ``{"notes": true}`` what was, since that was last asked. What is accepted goes to the
ledger instead, where there is one, before anybody is told.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import uvloop

OK = "ok"
REFUSE = "refuse"
"""Nobody listens, and who was connected is cut off."""
FAIL = "fail"
"""503, which the gateway's configuration documents as not processed."""
BUSY = "busy"
"""429."""
ERROR = "error"
"""500 without having accepted: nobody can tell."""
HANG = "hang"
"""Accepts, and answers after ``seconds``."""
RESET = "reset"
"""Accepts, and cuts the connection."""
MODES = (OK, REFUSE, FAIL, BUSY, ERROR, HANG, RESET)

_KEPT = 80
"""Characters of a text."""
_STATUS = {FAIL: b"503 Service Unavailable", BUSY: b"429 Too Many Requests", ERROR: b"500 Internal Server Error"}


@dataclass
class _Book:
    """What was accepted: vendor, message, text, when."""

    ledger: int | None
    notes: list[tuple[str, str, str, float]] = field(default_factory=list)
    count: int = 0

    def note(self, vendor: str, message: str, text: str) -> int:
        entry = (vendor, message, text[:_KEPT], time.monotonic())
        if self.ledger is None:
            self.notes.append(entry)
        else:
            os.write(self.ledger, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        self.count += 1
        return self.count


@dataclass
class _Vendor:
    name: str
    port: int
    book: _Book
    mode: str = OK
    seconds: float = 0.0
    calls: int = 0
    server: asyncio.Server | None = None
    callers: set[asyncio.Transport] = field(default_factory=set)

    async def set(self, mode: str, seconds: float) -> None:
        self.mode, self.seconds = mode, seconds
        if mode == REFUSE and self.server:
            self.server.close()
            self.server = None
            for caller in list(self.callers):
                caller.abort()
        elif mode != REFUSE and self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(lambda: _Caller(self), "127.0.0.1", self.port, backlog=1024)


class _Caller(asyncio.Protocol):
    """HTTP/1.1 as far as well-behaved clients need it."""

    def __init__(self, vendor: _Vendor) -> None:
        self._vendor = vendor
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._vendor.callers.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._vendor.callers.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._held) < end + 4 + length:
                return
            body, self._held = self._held[end + 4 : end + 4 + length], self._held[end + 4 + length :]
            self._answer(orjson.loads(body))

    def _answer(self, asked: dict[str, Any]) -> None:
        vendor = self._vendor
        vendor.calls += 1
        if status := _STATUS.get(vendor.mode):
            self._reply(status, b"{}")
            return
        reply = b'{"id":"v-%010d"}' % vendor.book.note(vendor.name, asked["message"], asked["text"])
        if vendor.mode == RESET:
            self._transport.abort()
        elif vendor.mode == HANG:
            asyncio.get_running_loop().call_later(vendor.seconds, self._reply, b"200 OK", reply)
        else:
            self._reply(b"200 OK", reply)

    def _reply(self, status: bytes, body: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self._transport.write(head % (status, len(body)) + body)


async def _serve(control: int, ports: dict[str, int], ledger: str | None) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if ledger else None
    book = _Book(file)
    vendors = {name: _Vendor(name, port, book) for name, port in ports.items()}
    for vendor in vendors.values():
        await vendor.set(OK, 0)

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = orjson.loads(line)
            if "vendor" in order:
                await vendors[order["vendor"]].set(order["mode"], order.get("seconds", 0))
            notes, book.notes = (book.notes, []) if "notes" in order else ([], book.notes)
            calls = {name: vendor.calls for name, vendor in vendors.items()}
            answer = {"count": book.count, "calls": calls, "notes": notes}
            writer.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
            await writer.drain()

    server = await asyncio.start_server(told, "127.0.0.1", control)
    await server.serve_forever()


class Steering:
    """How a benchmark speaks to them."""

    def __init__(self, control: int) -> None:
        self._control = control

    async def set(self, vendor: str, mode: str, seconds: float = 0.0) -> None:
        """From now on ``vendor`` behaves like this."""
        await self._ask({"vendor": vendor, "mode": mode, "seconds": seconds})

    async def count(self) -> int:
        """How many messages they have accepted."""
        count: int = (await self._ask({}))["count"]
        return count

    async def notes(self) -> list[list[Any]]:
        """Vendor, message, text and instant of what they have accepted since this was last asked."""
        notes: list[list[Any]] = (await self._ask({"notes": True}))["notes"]
        return notes

    def answers(self) -> bool:
        """Whether they are ready."""
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self._control)) == 0

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._control, limit=1 << 30)
        writer.write(orjson.dumps(order, option=orjson.OPT_APPEND_NEWLINE))
        answer: dict[str, Any] = orjson.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return answer


if __name__ == "__main__":
    _ports = dict(word.split("=") for word in sys.argv[2:] if "=" in word)
    _ledgers = [word for word in sys.argv[2:] if "=" not in word]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(
            _serve(int(sys.argv[1]), {name: int(port) for name, port in _ports.items()}, next(iter(_ledgers), None))
        )
