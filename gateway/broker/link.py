"""A connection that is kept up, whatever becomes of the broker; every call on it has a time limit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import SystemRandom
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import unquote

import aio_pika
import structlog
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, InvalidFrameError, ProbableAuthenticationError
from pamqp.exceptions import PAMQPException
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractConnection
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

HEARTBEAT = 10
"""Seconds. A dead peer is noticed after three of them and a bit: 33 s, where the default of 60 takes 183 s."""
UNAVAILABLE = (AMQPError, PAMQPException, ChannelInvalidStateError, OSError, TimeoutError)
"""What a call on the wire raises, beside ``Lost``."""


class Lost(Exception):
    """A connection that must be built anew; the reason is for the log."""


class Link:
    """Keeps a connection up: makes it, lends it to a session until that fails, and again after a pause.

    aio-pika's own reconnection is not used: it has left consumers deaf more than once, and cannot be watched.
    """

    def __init__(
        self,
        url: str,
        name: str,
        session: Callable[[AbstractConnection], Awaitable[NoReturn]],
        pause: tuple[float, float],
        seconds: float,
    ) -> None:
        self._url = URL(url).update_query(heartbeat=HEARTBEAT, name=name)
        self._vhost = unquote(self._url.raw_path[1:]) or "/"
        self._session = session
        self._pause = pause
        self._seconds = seconds
        self._random = SystemRandom()
        self._task: asyncio.Task[None] | None = None
        self.log: FilteringBoundLogger = structlog.get_logger().bind(
            connection=name, host=self._url.host, vhost=self._vhost
        )
        self.up = False
        self.status = "stopped"
        """For people: what it is doing, or what keeps it from doing it."""

    def start(self) -> None:
        """Begin, in the background."""
        self.status = "connecting"
        self._task = asyncio.create_task(self._run(), name="broker")

    def succeed(self) -> None:
        """Said by the session once all is as it should be."""
        self.up, self.status = True, "connected"
        self.log.info("broker.connected")

    async def close(self) -> None:
        """End the connection."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.status = "stopped"

    async def _run(self) -> None:
        while True:
            await self._once()
            await asyncio.sleep(self._random.uniform(*self._pause))

    async def _once(self) -> None:
        """Connect and stay so."""
        connection = None
        try:
            try:
                connection = await within(self._seconds, aio_pika.connect(self._url))
                await self._session(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the connection is built anew
                self._fail(self._reason(error))
            finally:
                self.up = False
        finally:
            if connection:
                with suppress(Exception):  # it is given up, whatever closing it meets
                    await within(self._seconds, connection.close())

    def _fail(self, reason: str) -> None:
        if reason != self.status:  # once, not at each of hundreds of attempts
            self.log.warning("broker.lost", reason=reason)
        self.status = reason

    def _reason(self, error: Exception) -> str:
        match error:
            case ProbableAuthenticationError():
                return "login refused"
            case InvalidFrameError():  # aiormq's word for any refusal to open the virtual host; the broker's is lost
                return f"virtual host {self._vhost} is missing, or not permitted"
            case Lost():
                return str(error)
            case _ if isinstance(error, UNAVAILABLE):
                return f"{type(error).__name__}: {error}" if str(error) else f"no answer within {self._seconds:g} s"
            case _:
                self.log.error("broker.bug", exc_info=error)
                return f"a bug: {type(error).__name__}"


async def within(seconds: float, call: Awaitable[T]) -> T:
    """Wait for a call on the wire, at most so long, however long giving it up takes: aiormq says so on the same wire.

    When a connection closes, aiormq cancels who waits for it. That is told here from a cancellation of our own.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_given_up)
    if not task.done():
        raise TimeoutError
    if task.cancelled():
        raise Lost("connection closed")
    return task.result()


def _given_up(task: asyncio.Future[Any]) -> None:
    """Nobody asks any more how it ended, and asyncio wants somebody to."""
    if not task.cancelled():
        task.exception()


def reason_of(closing: asyncio.Future[Any]) -> str:
    """Why a channel or a connection has closed."""
    error = None if closing.cancelled() or not closing.done() else closing.exception()
    return f"{type(error).__name__}: {error}" if error else "closed"
