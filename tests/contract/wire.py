"""Servers under a test's control: they answer what the test says, byte for byte, or do not."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE = object()
RESET = object()


@dataclass(frozen=True)
class Request:
    """What a provider asked, as an independent parser reads it."""

    target: str
    headers: dict[str, str]
    body: Any


@dataclass(kw_only=True)
class Wire:
    """A server with one scripted answer to whatever hands a message over; the steps before that go well."""

    answer: Any = None
    """Bytes, ``SILENCE`` or ``RESET``; None: accepted."""
    after: Any = None
    """What the answers after the first are; None: the same."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    written: int = 0
    """Bytes of the answer that the client's side has taken, when it left."""
    observe: Callable[[], None] = lambda: None
    """Called when a message has come in."""
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _received: asyncio.Event = field(default_factory=asyncio.Event)

    ACCEPTED: ClassVar[bytes] = b""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def received(self) -> None:
        """Wait until a message has come in."""
        await self._received.wait()
        self._received.clear()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.converse(reader, writer)
        finally:
            writer.transport.abort()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def reply(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        self.observe()
        self._received.set()
        answer = self.ACCEPTED if self.answer is None else self.answer
        if self.after is not None:
            self.answer = self.after
        if answer is SILENCE:
            await reader.read()  # until the client leaves
        if answer in (SILENCE, RESET):
            raise ConnectionResetError
        for at in range(0, len(answer), 65536):
            writer.write(answer[at : at + 65536])
            await writer.drain()
            self.written = at + 65536
        if b"\r\nConnection: close" in answer[:200]:
            writer.close()
            await writer.wait_closed()
            raise ConnectionResetError


class HttpWire(Wire):
    """HTTP/1.1, kept alive. Google's token endpoint is part of it."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            first, *lines = head.split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            body = json.loads(raw or b"null") if "json" in headers["content-type"] else dict(parse_qsl(raw.decode()))
            target = first.removesuffix(" HTTP/1.1")
            if target == "POST /token":
                writer.write(json_reply(200, {"access_token": "ya29.token", "expires_in": 3599}))
                continue
            await self.reply(Request(target, headers, body), reader, writer)


class HostedHttpWire(HttpWire):
    """Accepts as the generic vendor of ``cases`` does."""

    ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"data":{"id":"hv-42"}}'.replace(b" 22", b" 23")


class TwilioWire(HttpWire):
    ACCEPTED = b'HTTP/1.1 201 Created\r\nContent-Length: 15\r\n\r\n{"sid": "SM42"}'


class FcmWire(HttpWire):
    ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{"name": "projects/p/messages/1"}'.replace(b" 32", b" 33")


@dataclass(kw_only=True)
class SmtpWire(Wire):
    """ESMTP without extensions. The message is read by the standard library."""

    stages: dict[str, Any] = field(default_factory=dict)
    """Verb → what it is answered with instead; ``""`` is the greeting."""

    ACCEPTED = b"250 2.0.0 queued\r\n"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.say("", b"220 wire ESMTP\r\n", reader, writer)
        envelope: list[str] = []
        while line := (await reader.readline()).decode("ascii").strip():
            verb, _, rest = line.partition(" ")
            if verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            if verb != "DATA":
                envelope = [*envelope, rest] if verb in {"MAIL", "RCPT"} else []
                await self.say(verb, b"250 wire\r\n", reader, writer)
                continue
            await self.say(verb, b"354 go on\r\n", reader, writer)
            raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
            message = email.message_from_bytes(raw, policy=email.policy.default)
            body = {
                part.get_content_subtype(): part.get_content() for part in message.walk() if not part.is_multipart()
            }
            await self.reply(Request(" ".join(envelope), dict(message.items()), body), reader, writer)

    async def say(self, verb: str, usual: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.stages.get(verb, usual)
        if answer is SILENCE:
            await reader.read()
        if answer in (SILENCE, RESET):
            raise ConnectionResetError
        writer.write(answer)


def reply(status: int, body: bytes, *headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def json_reply(status: int, body: object, *headers: str) -> bytes:
    return reply(status, json.dumps(body).encode(), "Content-Type: application/json", *headers)
