"""Does what is sent to an address of the configuration travel in the clear?"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from yarl import URL

from gateway.config.draft import Finding
from gateway.config.values import Endpoint
from gateway.webhooks.addresses import outside
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from providers import Settings

_INSIDE: Final = frozenset({"localhost", "local", "internal", "test"})
"""Ends of names that no name server of the world answers for (RFC 6761, RFC 6762; internal: ICANN, 2024)."""
_HOME: Final = ".home.arpa"
"""RFC 8375."""


def findings(
    public_url: str | None, configured: Mapping[str, Settings], routes: Collection[Channel]
) -> Iterator[Finding]:
    """All that are http:// and lead further than is known to be safe."""
    if public_url and Channel.EMAIL in routes and (host := _plain(public_url)) and not Endpoint(host, 0).loopback:
        problem = (
            "is http://, so that mails offer no unsubscribing by one click (RFC 8058 wants https), which large mailbox "
            "providers ask for: write https://"
        )
        yield Finding(("http", "public_url"), problem)
    for name, settings in configured.items():
        for key in ("url", "base_url"):
            if (host := _plain(getattr(settings, key, ""))) and not _near(host):
                problem = "is http://: addresses and texts can be read, and changed, on their way; write https://"
                yield Finding(("providers", name, key), problem)


def _plain(url: str) -> str:
    """Its host, if it is HTTP without TLS."""
    parts = URL(url)
    return (parts.host or "").rstrip(".") if parts.scheme == "http" else ""


def _near(host: str) -> bool:
    """Whether it is known to be on this machine or in one's own network."""
    try:
        return not outside(ipaddress.ip_address(host))
    except ValueError:
        return "." not in host or host.rpartition(".")[2] in _INSIDE or host.endswith(_HOME)
