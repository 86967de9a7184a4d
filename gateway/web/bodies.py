"""How much of what clients send is held in memory, and for how long they are waited for."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson
from aiohttp import hdrs

from gateway.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from aiohttp import web

ITEM = 256 * 1024
"""Bytes of one request."""
BATCH = 16 * 1024 * 1024
"""Bytes of many."""


class Room:
    """So much at once; who comes when there is no more is asked to come again."""

    def __init__(self, size: int) -> None:
        self._free = size

    def take(self, amount: int) -> None:
        """Until it is given back.

        Raises:
            Problem: there is not so much.
        """
        if amount > self._free:
            detail = "The gateway is working on as much as it can hold. Nothing was accepted: try again in a moment"
            raise Problem("overloaded", detail, headers={"Retry-After": "1"})
        self._free -= amount

    def give(self, amount: int) -> None:
        """What was taken."""
        self._free += amount

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of it, for as long as the block takes."""
        self.take(1)
        try:
            yield
        finally:
            self.give(1)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a listener takes at once."""

    requests: int = 256
    """Bodies being read or committed; the next is told to come again."""
    memory: int = 64 * 1024 * 1024
    """Bytes of all of them together, as they came."""
    body_seconds: float = 30.0
    """How long a body may take to come."""


class Body:
    """What a client sends, read as far as it may go. Holds its room until the block ends."""

    def __init__(self, request: web.Request, room: Room, seconds: float) -> None:
        """``seconds`` from now it must have come.

        Raises:
            Problem: it is compressed, so that nobody knows how large it is.
        """
        if hdrs.CONTENT_ENCODING in request.headers:
            detail = "Compressed bodies are not taken: leave Content-Encoding out"
            raise Problem("wrong_content", detail, headers={"Accept-Encoding": "identity"})
        self.bytes = bytearray()
        self._request = request
        self._room = room
        self._deadline = asyncio.get_running_loop().time() + seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.give(len(self.bytes))
        self.bytes = bytearray()

    async def fits(self, most: int) -> bool:
        """Read on until it ends, or is longer than that many bytes.

        Raises:
            Problem: it did not come in time, or there is no room for it.
        """
        content = self._request.content
        try:
            async with asyncio.timeout_at(self._deadline):
                while len(self.bytes) <= most:
                    piece = await content.readany()
                    if not piece:
                        return True
                    self._room.take(len(piece))
                    self.bytes += piece
        except TimeoutError:
            raise Problem("slow_body", "Send it faster, or in smaller pieces") from None
        return False

    async def read(self, most: int = ITEM) -> bytes:
        """All of it.

        Raises:
            Problem: as above, or it is longer.
        """
        if (self._request.content_length or 0) > most or not await self.fits(most):
            raise too_large(most)
        return bytes(self.bytes)


def too_large(most: int, hint: str = "") -> Problem:
    """A body of more than that many bytes; ``hint`` ends the sentence."""
    return Problem("too_large", f"At most {most} bytes are taken{hint}")


def decoded(body: bytes | bytearray) -> Any:
    """What the JSON says.

    Raises:
        Problem: it is not JSON; says where.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"{error.msg[:1].upper()}{error.msg[1:]}: line {error.lineno}, column {error.colno}"
        raise Problem("not_json", detail, line=error.lineno, column=error.colno, position=error.pos) from None
