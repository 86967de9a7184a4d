"""HTTP/1.1 over kept connections: what was certainly not written, what may have been, and nothing in between.

A connection carries one call at a time and none is ever repeated. A call costs one future, one ``write`` and no task; the
one timer of a connection serves all its calls.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohappyeyeballs import start_connection  # uvloop's create_connection does not know happy eyeballs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser

from providers._contract import ProviderError, Unavailable, Unconfirmed

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
"""An idle connection is given up after this, before the 60 s after which most load balancers close it: a call that meets
their closing is ``Unconfirmed``."""

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
    """The connections to one origin: idle ones, the last used first, and who waits while all are busy."""

    def __init__(
        self,
        origin: tuple[str, int],
        tls: ssl.SSLContext | None,
        timeout: float,
        size: int,
        clock: Callable[[], datetime],
    ) -> None:
        """``timeout`` is for answers, in seconds. Needs a running event loop."""
        self.loop = asyncio.get_running_loop()
        self.timeout = timeout
        # aiohttp's reader asks this to pause and resume. It need not obey: a reply is too long before a reader is full.
        self.pauses = BaseProtocol(self.loop)
        self._host, self._port = origin
        self._tls = tls
        self._size = size
        self._clock = clock
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening = 0
        self._turns: deque[asyncio.Future[_Connection | Unavailable | None]] = deque()
        """Of those who wait. Each gets a connection, or the leave to open one (None), which ``_opening`` counts."""
        self._ended: asyncio.Future[None] | None = None
        """Stands for as long as the pool is being closed."""

    async def call(self, request: bytes, deadline: datetime) -> Reply:
        """Write a request, unless it is ``deadline``, and wait for the answer.

        Raises:
            Unavailable: nothing was written.
            Unconfirmed: it was written, and no whole answer came.
        """
        connection = self._unused() or await self._another(deadline)
        if self._clock() >= deadline:
            self.give_back(connection)
            raise Unavailable("deadline")
        answer = connection.ask(request)
        try:
            outcome = await answer
        finally:
            if connection.answer is answer:  # we are cancelled, and what comes now is nobody's
                connection.end("cancelled")
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """End every connection. Who is written and waits for an answer is ``Unconfirmed``."""
        self._ended = self.loop.create_future()
        while self._turns:
            _give(self._turns.popleft(), Unavailable("closed"))
        for connection in tuple(self._open):
            connection.end("reset")
        if self._open or self._opening:
            await self._ended

    def leave(self, connection: _Connection) -> None:
        """A connection has ended."""
        if connection in self._open:  # else its opening was given up
            self._open.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._opening += 1
            self._may_open()

    def give_back(self, connection: _Connection) -> None:
        """A connection is free for the next call."""
        while self._turns:
            if _give(self._turns.popleft(), connection):
                return
        self._idle.append(connection)

    def _unused(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.end("reset")
        return None

    async def _another(self, deadline: datetime) -> _Connection:
        """A new connection, or one that becomes free before ``deadline``."""
        if self._ended is not None:
            raise Unavailable("closed")
        if len(self._open) + self._opening < self._size:
            self._opening += 1
            return await self._connect()
        turn: asyncio.Future[_Connection | Unavailable | None] = self.loop.create_future()
        self._turns.append(turn)
        seconds = (deadline - self._clock()).total_seconds()
        timer = self.loop.call_later(seconds, _give, turn, Unavailable("deadline"))
        try:
            found = await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same time
                self._decline(turn.result())
            raise
        finally:
            timer.cancel()
        if isinstance(found, Unavailable):
            raise found
        if found is None:
            return await self._connect()
        if found.usable():
            return found
        found.end("reset")
        return await self._another(deadline)

    def _decline(self, found: _Connection | Unavailable | None) -> None:
        if found is None:
            self._may_open()
        elif isinstance(found, _Connection):
            self.give_back(found)

    def _may_open(self) -> None:
        """Hand on the leave to open a connection, which is counted in ``_opening`` already."""
        while self._turns:
            if _give(self._turns.popleft(), None):
                return
        self._opening -= 1
        if self._ended is not None and not self._open and not self._opening and not self._ended.done():
            self._ended.set_result(None)

    async def _connect(self) -> _Connection:
        """A new connection, counted in ``_opening`` until it stands."""
        connection, word = None, "refused"
        name = self._host.rstrip(".") if self._tls else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self.loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                sock = await start_connection(addresses, happy_eyeballs_delay=STAGGER_SECONDS, loop=self.loop)
                try:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self), sock=sock, ssl=self._tls, server_hostname=name
                    )
                except BaseException:
                    sock.close()  # not every loop does
                    raise
        except TimeoutError:
            word = "connect_timeout"
        except (socket.gaierror, UnicodeError):
            word = "dns"
        except ssl.SSLError:
            word = "tls"
        except (OSError, RuntimeError):  # the second is uvloop's, now and then
            pass
        finally:
            if connection is None or not connection.open:
                self._may_open()
            else:
                self._opening -= 1
                self._open.add(connection)
        if connection is None:
            raise Unavailable(word)
        if self._ended is not None:
            connection.end("closed")
        if not connection.open:
            raise Unavailable("closed")
        return connection


class _Connection(asyncio.Protocol):
    """A socket, and the one call that is under way on it."""

    __slots__ = (
        "_body",
        "_due",
        "_head",
        "_parser",
        "_peek",
        "_pool",
        "_received",
        "_surplus",
        "_timer",
        "_transport",
        "answer",
    )

    _transport: asyncio.Transport
    _parser: HttpResponseParser
    _timer: asyncio.TimerHandle
    _body: StreamReader
    _received: int
    _surplus: bool

    def __init__(self, pool: Pool) -> None:
        self.answer: asyncio.Future[Reply | ProviderError] | None = None
        """What the call under way waits for."""
        self._pool = pool
        self._head: RawResponseMessage | None = None
        self._peek = select.poll()
        self._due = pool.loop.time() + IDLE_SECONDS
        """When this is ended if nothing happens, in the loop's time."""

    @property
    def open(self) -> bool:
        """Has neither side closed it, as far as the loop knows?"""
        return not self._transport.is_closing()

    def usable(self) -> bool:
        """Is it open, and is nothing there to be read that the loop does not know yet, such as its end?"""
        return not self._transport.is_closing() and not self._peek.poll(0)

    def ask(self, request: bytes) -> asyncio.Future[Reply | ProviderError]:
        """Write a request."""
        pool = self._pool
        self.answer = pool.loop.create_future()
        # A new one for each call: what a vendor says beyond an answer must not begin the next one.
        self._parser = HttpResponseParser(
            pool.pauses, pool.loop, 16 * REPLY_BYTES, read_until_eof=True, auto_decompress=False
        )
        self._received = 0
        self._surplus = False
        self._due = pool.loop.time() + pool.timeout
        self._transport.write(request)
        return self.answer

    def end(self, word: str) -> None:
        """Close at once. The call under way, if any, is told the reason."""
        if self.answer is None:
            self._transport.abort()
        elif self._head is not None and self._head.code >= 400:  # noqa: PLR2004  (an error says enough by its status)
            self._settle(Reply(self._head.code, self._head.headers, b""), reusable=False)
        else:
            self._settle(Unconfirmed(word), reusable=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch it."""
        self._transport = cast("asyncio.Transport", transport)
        self._peek.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._timer = self._pool.loop.call_later(min(self._pool.timeout, IDLE_SECONDS), self._ring)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. Only an orderly end completes a body that has no length."""
        self._timer.cancel()
        if self.answer is not None and self._head is not None and exc is None:
            with suppress(Exception):  # the parser's, where the body was to be longer
                self._parser.feed_eof()
            self._finish(self._head, reusable=False)
        self.end("reset" if self._head is None else "broken_reply")  # an orderly end must be told to TLS, too
        self._pool.leave(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self.answer is None:
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
        answer, self.answer, self._head = self.answer, None, None
        if reusable and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self._due = self._pool.loop.time() + IDLE_SECONDS
            self._pool.give_back(self)
        else:
            self._transport.abort()
        if answer is not None and not answer.done():
            answer.set_result(outcome)

    def _ring(self) -> None:
        """Look at the time. The next look is at most ``timeout`` away, so that no call ever has to move it."""
        now = self._pool.loop.time()
        if now >= self._due:
            self.end("timeout")
        else:
            self._timer = self._pool.loop.call_at(min(self._due, now + self._pool.timeout), self._ring)


def _give(turn: asyncio.Future[_Connection | Unavailable | None], found: _Connection | Unavailable | None) -> bool:
    """Give it to who still waits."""
    if turn.done():
        return False
    turn.set_result(found)
    return True
