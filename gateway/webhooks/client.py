"""Calls one webhook, and no other address than one that may be called."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.webhooks.addresses import anywhere, outside
from gateway.webhooks.standard import FORBIDDEN, Answer, Outcome, meaning, signed
from providers import Names, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from aiohappyeyeballs import AddrInfoType

    from gateway.config import Webhook
    from gateway.webhooks.addresses import Address

_HEADERS: Final[Mapping[str, str]] = {
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "decorum",
}
_READ: Final = 4096
"""Bytes of an answer that are read, so that its connection may serve the next call. The status alone says enough."""
_CLOSE: Final = 1.0
"""Seconds."""


class Client:
    """One webhook, and the connections to it.

    A name is looked up once for a connection, and each of its addresses is looked at where the socket to exactly that
    address is made: there is no second look-up that could be answered otherwise. Redirects are not followed.
    """

    def __init__(
        self,
        webhook: Webhook,
        now: Callable[[], datetime],
        *,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        permitted: Callable[[Address], bool] | None = None,
    ) -> None:
        """Take what it needs.

        Args:
            webhook: as it is configured.
            now: the wall clock.
            tls: whom to trust. Default: whom the system trusts.
            resolver: looks names up. Default: as the system does.
            permitted: which addresses may be called. Default: those outside, or any where the webhook is private.
        """
        self.webhook = webhook
        self._url = URL(webhook.url)
        self._now = now
        self._tls = tls
        self._resolver = resolver or _Resolver()
        self._permitted = permitted or (anywhere if webhook.private else outside)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        connector = aiohttp.TCPConnector(
            limit=self.webhook.concurrency, resolver=self._resolver, socket_factory=self._socket, ssl=self._tls
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.webhook.timeout.total_seconds()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Cut the connections."""
        if self._session:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE):
                    await self._session.close()
        await self._resolver.close()

    async def post(self, event: str, body: bytes) -> Answer:
        """Tell an event, and hear what becomes of it; never raises for what is on the other side."""
        if self._session is None:
            return Answer(Outcome.UNREACHABLE, "closed")
        headers = {**_HEADERS, **signed(event, self._now(), body, self.webhook.keys)}
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as reply:
                with suppress(aiohttp.ClientError, TimeoutError):
                    await reply.content.read(_READ)
                wait = retry_after(reply.headers, self._now())
                return Answer(meaning(reply.status), f"http_{reply.status}", wait)
        except TimeoutError:
            return Answer(Outcome.TIMEOUT, "timeout")
        except aiohttp.ClientConnectorDNSError:
            return Answer(Outcome.UNREACHABLE, "dns")
        except aiohttp.ClientSSLError:
            return Answer(Outcome.UNREACHABLE, "tls")
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _Forbidden):
                return Answer(Outcome.FORBIDDEN, FORBIDDEN)
            return Answer(Outcome.UNREACHABLE, "refused")
        except (aiohttp.InvalidURL, UnicodeError):
            return Answer(Outcome.UNREACHABLE, "bad_url")
        except (aiohttp.ClientError, OSError):
            return Answer(Outcome.BROKEN, "broken")

    def _socket(self, info: AddrInfoType) -> socket.socket:
        """For the address that stands in ``info``, which is where it will be connected to."""
        family, kind, protocol, _, address = info
        if not self._permitted(ip_address(address[0])):
            raise _Forbidden
        return socket.socket(family, kind, protocol)


class _Forbidden(OSError):
    """The address must not be called."""


class _Resolver(AbstractResolver):
    """Asks the system, on a thread of its own: a name server that hangs takes none away from those who ask others."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], Names] = {}

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - the connector asks for all
    ) -> list[ResolveResult]:
        names = self._names.setdefault((host, port), Names(host, port))
        found = await names.addresses()
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None: ...
