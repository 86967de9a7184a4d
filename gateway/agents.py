"""Who opened or clicked: the person, or a machine that looks at mail before or beside them?

Pure. Most scanners of mail say that they are a browser, so what they do counts as much as what they say, which
``visits`` looks at.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gateway.render import HONEYPOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.acts import Sighting


class Sign(StrEnum):
    """How a machine is known."""

    HEAD = "head"
    """It asked for the head alone, which no mail program and no browser does by itself."""
    PREFETCH = "prefetch"
    """It says that it fetches ahead, or is known to."""
    NAMELESS = "nameless"
    """It does not say which program it is; all that people use do."""
    APPLE = "apple_privacy"
    """Apple's Mail Privacy Protection, which loads the images of all mails, opened or not."""
    PROXY = "proxy"
    """A mail service's image proxy, where no image was asked for."""
    SCANNER = "scanner"
    """Mail security that says so."""
    PREVIEW = "preview"
    """It shows people what is behind a link before they follow it."""
    PROGRAM = "program"
    """A programming library or tool."""
    CRAWLER = "crawler"
    """Any other that ``crawler-user-agents`` knows."""
    NETWORK = "network"
    """It came from one of ``http.machines``."""
    FAST = "fast"
    """Sooner after the hand-off than a person could."""
    BURST = "burst"
    """Two links of one message within a second."""
    HONEYPOT = "honeypot"
    """The link that nobody sees, or another of the same message within a minute of it."""


_BURST: Final = timedelta(seconds=1)
_NEAR: Final = timedelta(minutes=1)
"""Of a click on the link that nobody sees."""


def in_company(clicks: Sequence[Sighting]) -> list[Sign | None]:
    """What clicks on one message say of one another: how each is known for a machine's, None where they say nothing.

    A person clicks one link, and waits for what it shows; scanners follow all of them, and those that nobody sees.
    """
    traps = sorted(click.at for click in clicks if click.link == HONEYPOT)
    signs: list[Sign | None] = [None] * len(clicks)
    ordered = sorted(enumerate(clicks), key=lambda numbered: numbered[1].at)
    for way in (ordered, ordered[::-1]):
        other: Sighting | None = None
        for (_, before), (index, click) in pairwise(way):
            if before.link != click.link:
                other = before
            if other and abs(click.at - other.at) <= _BURST:
                signs[index] = Sign.BURST
    for index, click in enumerate(clicks):
        if bisect_right(traps, click.at + _NEAR) > bisect_left(traps, click.at - _NEAR):
            signs[index] = Sign.HONEYPOT
    return signs
