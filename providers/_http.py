"""One call of a vendor over HTTP, and what its answer means."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

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
from providers._wire import Pool, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from yarl import URL

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

FRAMING = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers that say where a request ends and what becomes of its connection. They are ours."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(r"/[!-~]*")


class Client:
    """What every call of a vendor has in common, and the connections to where it lives."""

    def __init__(
        self,
        timeout: float,
        concurrency: int,
        headers: Mapping[str, str],
        clock: Callable[[], datetime] = utc_now,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """A vendor's.

        Args:
            timeout: seconds from the first byte until an answer is no longer waited for.
            concurrency: how many connections there may be to one origin.
            headers: sent with every call.
            clock: what deadlines are held against.
            tls: whom to trust. Default: whom the system trusts.
        """
        self.timeout = timeout
        self._concurrency = concurrency
        self._headers = headers
        self._clock = clock
        self._tls = tls
        self._closed = True
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._routes: dict[tuple[str, URL], tuple[Pool, bytes]] = {}
        """Method and URL → where to, and the head of such a request. A vendor has one or two."""

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        self._tls = self._tls or await asyncio.to_thread(_system)
        self._closed = False

    async def close(self) -> None:
        """Give back connections."""
        self._closed = True
        self._routes.clear()
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.close()

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
            Misconfigured: this cannot be sent. Or the vendor answered with a redirect: it did not act, and the address
                in the configuration is not where it lives.
        """
        if (found := self._routes.get((method, url))) is None:
            found = self._routes[method, url] = self._route(method, url)
        pool, head = found
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        reply = await pool.call(
            b"".join((head, _lines(headers), length, body) if headers else (head, length, body)), deadline
        )
        return _here(reply)

    async def get(self, url: URL, *, deadline: datetime) -> Reply:
        """Ask for what is at a URL that is asked for once, so that nothing is kept of it.

        Raises:
            ProviderError: as of ``call``.
        """
        pool, head = self._route("GET", url)
        return _here(await pool.call(head + b"\r\n", deadline))

    def _route(self, method: str, url: URL) -> tuple[Pool, bytes]:
        if self._closed:
            raise Unavailable("closed")
        host, port, target = url.raw_host, url.port, url.raw_path_qs
        if url.scheme not in {"http", "https"} or not host or not port or not _TARGET.fullmatch(target):
            raise Misconfigured("bad_url")
        headers = {
            "Host": url.host_port_subcomponent or "",
            "User-Agent": "decorum",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if url.user is not None:
            headers["Authorization"] = "Basic " + b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        headers.update(self._headers)
        last = {name.lower(): name for name in headers}  # of two spellings of a name
        head = f"{method} {target} HTTP/1.1\r\n".encode() + _lines({name: headers[name] for name in last.values()})
        origin = (url.scheme, host, port)
        if origin not in self._pools:
            tls = self._tls if url.scheme == "https" else None
            self._pools[origin] = Pool((host, port), tls, self.timeout, self._concurrency, self._clock)
        return self._pools[origin], head


def _here(reply: Reply) -> Reply:
    if 300 <= reply.status < 400:  # noqa: PLR2004  (a class of statuses)
        raise Misconfigured(f"http_{reply.status}", "the vendor redirects; configure where to")
    return reply


@cache
def _system() -> ssl.SSLContext:
    """Whom the system trusts. It takes 20 ms to read, so once is enough."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_header(name: str, value: str = "") -> None:
    """Let nothing through that is more than one header, or the wrong one.

    Raises:
        ValueError: this is. The value is not quoted, for it may be a secret.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header's name")
    if name.lower() in FRAMING:
        raise ValueError(f"the header {name} is not yours to set")
    if _CONTROL.search(value):
        raise ValueError(f"the value of {name} holds a control character")


def _lines(headers: Mapping[str, str]) -> bytes:
    try:
        for name, value in headers.items():
            check_header(name, value)
        return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode()
    except ValueError:  # half a surrogate pair, too
        raise Misconfigured("bad_header") from None


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
    """The wait that a vendor asks for, in seconds or as a date (RFC 9110, 10.2.3 and 5.6.7). None where it names none.

    Never less than nothing nor more than a day.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:9]), 86_400))
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    wait = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now  # the oldest of its three forms names no zone
    return min(max(wait, timedelta(0)), timedelta(days=1))
