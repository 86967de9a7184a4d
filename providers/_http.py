"""One call of a vendor over HTTP: what was certainly not sent, what may have been, and nothing in between."""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from providers._contract import (
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    utc_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from yarl import URL

CONNECT_SECONDS = 3.0
"""For name, socket and TLS handshake together."""

REPLY_BYTES = 1_000_000
"""More is not read."""

IDLE_SECONDS = 15.0
"""An idle connection is not used again after this: one that the vendor closes meanwhile costs an ``Unconfirmed``."""

STATUSES: Mapping[int, type[ProviderError]] = {
    401: Misconfigured,
    402: Misconfigured,
    403: Misconfigured,
    408: Unconfirmed,
    409: Unconfirmed,
    425: Unconfirmed,
    429: Throttled,
}
"""What a status means where the vendor documents nothing else (RFC 9110, RFC 6585). See ``kind_of`` for the rest."""


WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((aiohttp.ConnectionTimeoutError,), "connect_timeout"),
    ((TimeoutError,), "timeout"),
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), "dns"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "tls"),
    ((aiohttp.ClientConnectorCertificateError,), "tls"),
    ((aiohttp.ClientConnectorError, ConnectionRefusedError), "refused"),
    ((aiohttp.ClientPayloadError, aiohttp.ClientResponseError), "broken_reply"),
)
"""What went wrong on the wire, the first that fits; anything else is a ``reset``."""


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


@dataclass(slots=True)
class _Call:
    """How far the call of this task has come."""

    deadline: datetime
    clock: Callable[[], datetime]
    written: bool = False


_call: ContextVar[_Call] = ContextVar("call")


class _Connector(aiohttp.TCPConnector):
    """Stands between having a connection and writing to it: the last instant at which a call can be stopped."""

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109  (aiohttp's)
        call = _call.get()
        if call.written:
            # aiohttp repeats PUT once when a kept connection turns out to be closed. Nothing is repeated here.
            raise aiohttp.ServerDisconnectedError
        connection = await super().connect(req, traces, timeout)
        if call.clock() >= call.deadline:
            connection.release()
            raise Unavailable("deadline")
        call.written = True
        return connection


@dataclass(slots=True)
class Client:
    """Kept connections to one vendor."""

    timeout: float
    concurrency: int
    headers: Mapping[str, str] = field(repr=False)  # credentials are among them
    """Sent with every call."""
    clock: Callable[[], datetime] = utc_now
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self.concurrency, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "decorum", **self.headers},
            timeout=aiohttp.ClientTimeout(total=self.timeout, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Give back connections."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        url: URL,
        body: bytes,
        *,
        deadline: datetime,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Reply:
        """Make one call. The first byte is not written after ``deadline``.

        Raises:
            Unavailable: nothing was written.
            Unconfirmed: it was written, and no whole answer came.
            Misconfigured: the vendor answered with a redirect. It did not act, and the address in the configuration
                is not where it lives.
        """
        assert self._session is not None, "call() before open()"  # noqa: S101
        call = _Call(deadline, self.clock)
        token = _call.set(call)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                reply = await _read(response)
        except ProviderError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            word = _word(error)
            # The library's exception knows the URL and our headers, so it is not chained.
            raise (Unconfirmed(word) if call.written else Unavailable(word)) from None
        finally:
            _call.reset(token)
        if 300 <= reply.status < 400:  # noqa: PLR2004  (a class of statuses)
            raise Misconfigured(f"http_{reply.status}", "the vendor redirects; configure where to")
        return reply


async def _read(response: aiohttp.ClientResponse) -> Reply:
    """The reply as far as it can be believed."""
    failed = response.status >= 400  # noqa: PLR2004  (an error says enough by its status, broken or not)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > REPLY_BYTES:
                response.close()
                if failed:
                    return Reply(response.status, response.headers, b"")
                raise Unconfirmed("huge_reply")
            chunks.append(chunk)
    except (aiohttp.ClientError, TimeoutError, OSError):
        if not failed:
            raise
        return Reply(response.status, response.headers, b"")
    return Reply(response.status, response.headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def _word(error: Exception) -> str:
    """One of a closed set of words for what went wrong on the wire."""
    return next((word for kinds, word in WORDS if isinstance(error, kinds)), "reset")


def document(reply: Reply) -> dict[str, Any]:
    """The JSON object in a reply.

    Raises:
        Unconfirmed: there is none. A vendor that answers a 2xx with anything else may have sent all the same.
    """
    try:
        found = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unconfirmed("bad_reply")
    return found


def text(found: object) -> str:
    """The vendor's reference, out of its reply.

    Raises:
        Unconfirmed: it is none.
    """
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not 0 < len(found) <= 255 or not found.isprintable():  # noqa: PLR2004  (bounds what is stored)
        raise Unconfirmed("bad_reply")
    return found


def kind_of(status: int, table: Mapping[int, type[ProviderError]] = STATUSES) -> type[ProviderError]:
    """What a status that is no success means. ``table`` is the vendor's own, before the common one."""
    if kind := table.get(status) or STATUSES.get(status):
        return kind
    return Rejected if 400 <= status < 500 else Unconfirmed  # noqa: PLR2004  (classes of statuses)


def error(kind: type[ProviderError], code: str, reply: Reply, now: datetime) -> ProviderError:
    """The error that ``reply`` stands for, with the vendor's own wait where it is throttled."""
    if issubclass(kind, Throttled):
        return kind(code, retry_after=retry_after(reply.headers, now))
    return kind(code)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The wait that a vendor asks for, in seconds or as a date (RFC 9110, 10.2.3). None where it names none."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:9]), 86_400))
    try:
        wait = parsedate_to_datetime(value) - now
    except (ValueError, TypeError):  # a date without a zone cannot be compared, and is no HTTP date
        return None
    return min(max(wait, timedelta(0)), timedelta(days=1))
