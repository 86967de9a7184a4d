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
            reason = await self._once()
            if reason != self.status:  # once, not at each of hundreds of attempts
                self.log.warning("broker.lost", reason=reason)
            self.status = reason
            await asyncio.sleep(self._random.uniform(*self._pause))

    async def _once(self) -> str:
        """Connect and stay so. Returns the reason why it has ended."""
        connection = None
        try:
            connection = await within(self._seconds, aio_pika.connect(self._url))
            await self._session(connection)
        except ProbableAuthenticationError:
            return "login refused"
        except InvalidFrameError:  # aiormq's word for any refusal to open the virtual host; the broker's is lost
            return f"virtual host {self._vhost} is missing, or not permitted"
        except Lost as error:
            return str(error)
        except UNAVAILABLE as error:
            return f"{type(error).__name__}: {error}" if str(error) else f"no answer within {self._seconds:g} s"
        except Exception as error:
            self.log.exception("broker.bug")
            return f"a bug: {type(error).__name__}"
        finally:
            self.up = False
            if connection:
                with suppress(Exception):  # it is given up, whatever closing it meets
                    await within(self._seconds, connection.close())


async def within(seconds: float, call: Awaitable[T]) -> T:
    """Wait for a call on the wire, at most so long.

    When a connection closes, aiormq cancels who waits for it. That is told here from a cancellation of our own.
    """
    try:
        async with asyncio.timeout(seconds):
            return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise Lost("connection closed") from None


def reason_of(closing: asyncio.Future[Any]) -> str:
    """Why a channel or a connection has closed."""
    error = None if closing.cancelled() or not closing.done() else closing.exception()
    return f"{type(error).__name__}: {error}" if error else "closed"
