"""HTTP/1.1 over kept connections: what was certainly not written, what may have been, and nothing in between.

A connection carries one call at a time, and none is ever repeated. A call costs one future and one ``write``, no task
and no timer: each connection has one timer for all its calls.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohappyeyeballs import start_connection  # uvloop's create_connection knows no happy eyeballs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser

from providers._contract import ProviderError, Unavailable, Unconfirmed
from providers._names import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from aiohttp import StreamReader
    from aiohttp.http import RawResponseMessage

CONNECT_SECONDS = 3.0
"""For name, socket and TLS handshake together."""

STAGGER_SECONDS = 0.25
"""Head start of an address before the next one is tried as well (RFC 8305, 5)."""

IDLE_SECONDS = 50.0
"""An idle connection is given up after this. Load balancers mostly close it after 60 s, and a call that crosses with
that is ``Unconfirmed``."""

REPLY_BYTES = 1_000_000
"""More of a reply, its head included, is not read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a vendor answered."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    """Empty where the reply is an error whose body could not be read: the status says enough."""

    @property
    def ok(self) -> bool:
        """Is it a 2xx?"""
        return 200 <= self.status < 300  # noqa: PLR2004  (a class of statuses)


class Pool:
    """The connections to one origin."""

    def __init__(
        self,
        origin: tuple[str, int],
        tls: ssl.SSLContext | None,
        timeout: float,
        size: int,
        clock: Callable[[], datetime],
    ) -> None:
        """Needs a running event loop.

        Args:
            origin: host and port.
            tls: None for plain HTTP.
            timeout: seconds from the first byte until an answer is no longer waited for.
            size: how many connections there may be.
            clock: what deadlines are held against.
        """
        self.loop = asyncio.get_running_loop()
        self.timeout = timeout
        self._host, _ = origin
        self._names = Names(*origin)
        self._tls = tls
        self._size = size
        self._clock = clock
        self._free = asyncio.Semaphore(size)
        """Who has it may have one connection. None is opened while one is idle, so ``size`` bounds both together."""
        self._idle: list[_Connection] = []
        """The last used is the first to be used again."""
        self._open: set[_Connection] = set()
        self._closed = False

    async def call(self, request: bytes, deadline: datetime) -> Reply:
        """Write a request, unless it is past ``deadline``, and wait for the answer.

        Raises:
            Unavailable: nothing was written.
            Unconfirmed: it was written, and no whole answer came.
        """
        await self._turn(deadline)
        try:
            connection = self._unused() or await self._connect()
            if self._clock() >= deadline:
                self.give_back(connection)
                raise Unavailable("deadline")
            return await connection.ask(request)
        finally:
            self._free.release()

    async def close(self) -> None:
        """End every connection, whether or not somebody waits for an answer."""
        self._closed = True
        for connection in tuple(self._open):
            connection.end("reset")
        for _ in range(self._size):  # until every call is over, also those that were about to connect
            await self._free.acquire()
        if self._open:
            await asyncio.wait([connection.lost for connection in self._open])

    def give_back(self, connection: _Connection) -> None:
        """It is free for the next call."""
        self._idle.append(connection)

    def leave(self, connection: _Connection) -> None:
        """It has ended."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _turn(self, deadline: datetime) -> None:
        """Get hold of ``_free``."""
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout((deadline - self._clock()).total_seconds()):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("deadline") from None

    def _unused(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.end("reset")
        return None

    async def _connect(self) -> _Connection:
        word = "closed"
        if self._closed:
            raise Unavailable(word)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._opened()
        except TimeoutError:
            word = "connect_timeout"
        except (socket.gaierror, UnicodeError):
            word = "dns"
        except ssl.SSLError:
            word = "tls"
        except (OSError, RuntimeError):  # the second is uvloop's, now and then
            word = "refused"
        else:
            if connection.open and not self._closed:
                return connection
            connection.end(word)
        raise Unavailable(word)

    async def _opened(self) -> _Connection:
        addresses = await self._names.addresses()
        sock = await start_connection(addresses, happy_eyeballs_delay=STAGGER_SECONDS, loop=self.loop)
        name = self._host.rstrip(".") if self._tls else None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await self.loop.create_connection(
                lambda: _Connection(self), sock=sock, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            sock.close()  # not every loop does
            raise
        if connection.open:
            self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """A socket, and the one call that is under way on it."""

    _parser: HttpResponseParser
    _body: StreamReader

    def __init__(self, pool: Pool) -> None:
        self.lost = pool.loop.create_future()
        """Done when the socket is closed."""
        self._pool = pool
        self._peek = select.poll()
        self._answer: asyncio.Future[Reply | ProviderError] | None = None
        """What the call under way waits for."""
        self._head: RawResponseMessage | None = None
        self._received = 0
        self._surplus = False
        # aiohttp's reader wants something that it can pause. A reply is too long before the reader is full.
        self._pauses = BaseProtocol(pool.loop)
        self._due = pool.loop.time() + IDLE_SECONDS
        """When this ends if nothing else happens, in the loop's time."""
        self._look = min(pool.timeout, IDLE_SECONDS)
        """Seconds between two looks at whether it is over."""

    @property
    def open(self) -> bool:
        """Has neither side closed it, as far as the loop knows?"""
        return not self._transport.is_closing()

    def usable(self) -> bool:
        """Is it open, and nothing there to be read that the loop does not know of yet, such as the end?"""
        return not self._transport.is_closing() and not self._peek.poll(0)

    async def ask(self, request: bytes) -> Reply:
        """Write a request, and wait for the answer. Not to be called before the last call is over."""
        loop = self._pool.loop
        answer: asyncio.Future[Reply | ProviderError] = loop.create_future()
        self._answer = answer
        # A new one for each call: what a vendor says beyond one answer must not begin the next.
        self._parser = HttpResponseParser(
            self._pauses, loop, 16 * REPLY_BYTES, read_until_eof=True, auto_decompress=False
        )
        self._received = 0
        self._surplus = False
        self._due = loop.time() + self._pool.timeout
        self._transport.write(request)
        try:
            outcome = await answer
        finally:
            if self._answer is answer:  # we are cancelled, and what comes now is nobody's
                self.end("cancelled")
        if isinstance(outcome, ProviderError):
            try:
                raise outcome
            finally:
                del answer, outcome  # which have this frame, which has them, and with it a megabyte that was read
        return outcome

    def end(self, word: str) -> None:
        """Close at once. Who waits for an answer is told the reason."""
        if self._answer is None:
            self._transport.abort()
        elif self._head is not None and self._head.code >= 400:  # noqa: PLR2004  (an error says enough by its status)
            self._settle(Reply(self._head.code, self._head.headers, b""), reusable=False)
        else:
            self._settle(Unconfirmed(word), reusable=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch it."""
        self._transport = cast("asyncio.Transport", transport)
        self._peek.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._timer = self._pool.loop.call_later(self._look, self._ring)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. Only an orderly end completes a body that has no length."""
        self._timer.cancel()
        if self._answer is not None and self._head is not None and exc is None:
            with suppress(Exception):  # the parser's, where the body was to be longer
                self._parser.feed_eof()
            self._finish(self._head, reusable=False)
        self.end("reset" if self._head is None else "broken_reply")  # TLS must be told in any case
        self._pool.leave(self)
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._answer is None:
            self.end("unasked")
            return
        self._received += len(data)
        try:
            heads, upgraded, _ = self._parser.feed_data(data)
        except Exception:  # noqa: BLE001  (the parser's are of many types, and each means that this is no HTTP)
            self.end("broken_reply")
            return
        for head, body in heads:
            if self._head is not None:
                self._surplus = True
            elif upgraded or not 100 <= head.code < 200:  # noqa: PLR2004  (those are interim)
                self._head, self._body = head, body
        if self._received > REPLY_BYTES:
            self.end("huge_reply")
        elif self._head is not None:
            self._finish(self._head, reusable=not (self._head.should_close or self._surplus or upgraded))

    def _finish(self, head: RawResponseMessage, *, reusable: bool) -> None:
        """Settle, if the body has come to its end."""
        if self._body.exception() is not None:
            self.end("broken_reply")
        elif self._body.is_eof():
            self._settle(Reply(head.code, head.headers, self._body.read_nowait()), reusable=reusable)

    def _settle(self, outcome: Reply | ProviderError, *, reusable: bool) -> None:
        """The call is over."""
        answer, self._answer, self._head = self._answer, None, None
        if answer is not None and not answer.done():
            answer.set_result(outcome)
        if reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self._due = self._pool.loop.time() + IDLE_SECONDS
            self._pool.give_back(self)
        else:
            self._transport.abort()

    def _ring(self) -> None:
        """Look at the time. The next look is never later than a call or a rest may last, so neither has to move it."""
        now = self._pool.loop.time()
        if now >= self._due:
            self.end("timeout")
        else:
            self._timer = self._pool.loop.call_at(min(self._due, now + self._look), self._ring)
