"""What does a request say of who sent it: a program that people use, or a machine?

Pure. Neither the address nor the program's name goes further than this: what is kept is a ``Sign``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from crawleruseragents import is_crawler

from gateway.agents import Sign
from providers import Act

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.config import Network

_AHEAD: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("sec-purpose", ("prefetch",)),  # https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Purpose
    ("purpose", ("prefetch", "preview")),  # Chromium before that; Safari's top sites
    ("x-purpose", ("prefetch", "preview")),  # WebKit; Facebook's applications
    ("x-moz", ("prefetch",)),  # Firefox before that
)
"""Headers by which browsers say that nobody looks yet, and how their values begin."""

_EXACTLY: Final[Mapping[str, Sign]] = {
    "Mozilla/5.0": Sign.APPLE,
    # https://bird.com/blog/gmail-prefetching-images (SparkPost, 2022): before the mail is shown, 1 to 6 % of opens
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135"
    " Safari/537.36 Edge/12.246 Mozilla/5.0": Sign.PREFETCH,
}
"""Whole names of programs. Apple's is that of every mail it fetches, and of no browser."""

_PROXIES: Final = re.compile(r"GoogleImageProxy|YahooMailProxy")
"""Image proxies of mail services, which fetch when the person opens (see the source above, and mautic/mautic #16069:
whoever takes them for machines has no human open from Gmail any more)."""

_NAMED: Final[tuple[tuple[re.Pattern[str], Sign], ...]] = (
    (
        # "Barracuda Sentinel (EE)": Braze's documentation on bot clicks. The others where they say who they are.
        re.compile(
            r"Barracuda|Mimecast|Proofpoint|SafeLinks|Symantec|IronPort|FireEye|Trellix|Forcepoint|Sophos|TrendMicro"
            r"|FortiMail|Check ?Point|Microsoft Office Existence Discovery",
            re.IGNORECASE,
        ),
        Sign.SCANNER,
    ),
    (
        # iMessage has facebookexternalhit and Twitterbot in its name; GoogleMessages: Braze, as above
        re.compile(
            r"facebookexternalhit|Facebot|Twitterbot|Slackbot|WhatsApp/|TelegramBot|LinkedInBot|Discordbot"
            r"|SkypeUriPreview|GoogleMessages/",
            re.IGNORECASE,
        ),
        Sign.PREVIEW,
    ),
    (
        re.compile(
            r"^(?:curl|Wget|libwww-perl|python-requests|python-httpx|Python-urllib|Python|aiohttp|Go-http-client|Java"
            r"|Apache-HttpClient|AHC|okhttp|axios|node-fetch|node|undici|Ruby|GuzzleHttp|lua-resty-http|Dart)\b",
            re.IGNORECASE,
        ),
        Sign.PROGRAM,
    ),
)
"""What the names of programs hold, and whose they are."""

_LEAST: Final[Mapping[Act, float]] = {Act.OPENED: 1.0, Act.CLICKED: 2.0}
"""Seconds after the hand-off. Ours: a mail has to arrive, be seen and read; scanners click before it is shown."""
_LEAST_PROXIED: Final = 10.0
"""The same of what came through a proxy, which may also fetch as a mail arrives (gophish/gophish #1390). Ours."""
_LONGEST: Final = 512
"""Characters of a program's name that are looked at."""
_REMEMBERED: Final = 2048
"""Names whose sign is kept, for looking takes 0.2 ms: 1 MB at most."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a request says of who sent it."""

    sign: Sign | None
    """None: nothing speaks against a person."""
    least: float
    """Seconds after the hand-off before which no person can have sent it."""

    def after(self, seconds: float) -> Sign | None:
        """How a machine is known, that long after the hand-off; None: it was a person."""
        return self.sign or (Sign.FAST if seconds < self.least else None)


@dataclass(frozen=True, slots=True)
class Networks:
    """Those that a request's way tells something about."""

    proxies: Sequence[Network] = ()
    """Ours, in front of the listener."""
    machines: Sequence[Network] = ()


def look(
    act: Act, method: str, headers: Mapping[str, str], peer: str | None, forwarded: Sequence[str], networks: Networks
) -> Seen:
    """What can be told at once.

    Args:
        act: an open or a click.
        method: of the request.
        headers: of the request, whatever the case of their names.
        peer: who is connected.
        forwarded: what proxies say of those before them, the nearest last (``X-Forwarded-For``).
        networks: configured.
    """
    name = headers.get("user-agent", "").strip()[:_LONGEST]
    proxied = _PROXIES.search(name) is not None
    if method == "HEAD":
        sign: Sign | None = Sign.HEAD
    elif any(headers.get(header, "").lower().startswith(words) for header, words in _AHEAD):
        sign = Sign.PREFETCH
    elif proxied:
        sign = None if act is Act.OPENED else Sign.PROXY
    else:
        sign = _named(name)
    if sign is None and networks.machines and _within(_origin(peer, forwarded, networks.proxies), networks.machines):
        sign = Sign.NETWORK
    return Seen(sign, _LEAST_PROXIED if proxied else _LEAST[act])


@lru_cache(_REMEMBERED)
def _named(name: str) -> Sign | None:
    if not name:
        return Sign.NAMELESS
    if name in _EXACTLY:
        return _EXACTLY[name]
    known = (sign for pattern, sign in _NAMED if pattern.search(name))
    return next(known, None) or (Sign.CRAWLER if is_crawler(name) else None)


def _origin(peer: str | None, forwarded: Sequence[str], proxies: Sequence[Network]) -> IPv4Address | IPv6Address | None:
    """Where a request came from: the nearest that is no proxy of ours. What is behind that one anybody can claim."""
    origin = None
    for hop in (peer or "", *reversed(forwarded)):
        try:
            origin = ip_address(hop.strip())
        except ValueError:
            return None
        if not _within(origin, proxies):
            break
    return origin


def _within(address: IPv4Address | IPv6Address | None, networks: Iterable[Network]) -> bool:
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address is not None and any(address in network for network in networks)
