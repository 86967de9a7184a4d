"""Which addresses may be called that somebody else has chosen? None inside of this machine's networks.

Pure. What is not known to lead outside does not: of IPv6 only global unicast does, and of both families nothing that
IANA lists for another purpose. https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry, as of November 2026. Python's own ``is_global`` has
changed its mind between versions, and knows nothing of addresses that hold another one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

INSIDE: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network (RFC 1122); connecting to 0.0.0.0 reaches this machine
            "10.0.0.0/8",  # private (RFC 1918)
            "100.64.0.0/10",  # behind a carrier's translation (RFC 6598)
            "127.0.0.0/8",  # this machine (RFC 1122)
            "169.254.0.0/16",  # link-local (RFC 3927): where clouds keep their metadata
            "172.16.0.0/12",  # private (RFC 1918)
            "192.0.0.0/24",  # protocol assignments (RFC 6890)
            "192.0.2.0/24",  # documentation (RFC 5737)
            "192.88.99.0/24",  # once the way into 6to4 (RFC 7526)
            "192.168.0.0/16",  # private (RFC 1918)
            "198.18.0.0/15",  # benchmarks (RFC 2544)
            "198.51.100.0/24",  # documentation (RFC 5737)
            "203.0.113.0/24",  # documentation (RFC 5737)
            "224.0.0.0/4",  # multicast (RFC 5771)
            "240.0.0.0/4",  # reserved (RFC 1112), and broadcast
        ),
    )
)
GLOBAL: Final = IPv6Network("2000::/3")
"""All that IANA has given out for unicast so far (RFC 4291)."""
INSIDE_GLOBAL: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments (RFC 2928), Teredo among them, which holds an IPv4 address
            "2001:db8::/32",  # documentation (RFC 3849)
            "2002::/16",  # 6to4, which holds one too (RFC 3056)
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (NAT64, RFC 6052): what they lead to depends on the one they hold."""


def outside(address: Address) -> bool:
    """Whether it leads to the public internet, by whatever way it is written."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return outside(address.ipv4_mapped)
        if address in TRANSLATED:
            return outside(IPv4Address(int(address) & 0xFFFF_FFFF))
        return address in GLOBAL and not any(address in network for network in INSIDE_GLOBAL)
    return not any(address in network for network in INSIDE)


def anywhere(_: Address) -> bool:
    """For receivers inside one's own network: whoever configures one answers for where it is."""
    return True
