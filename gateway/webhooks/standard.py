"""How is a webhook's call signed, what does its answer mean, and when is it made again?

Pure. Standard Webhooks 1.0.0: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

PREFIX: Final = "whsec_"
_LEAST, _MOST = 24, 64
"""Bytes of a secret."""

WAITS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""After the first call that failed, the second, and so on; then an event is given up."""
_SPREAD: Final = 0.1
"""How much longer a wait may be, so that what failed together does not come back together."""

_ENOUGH: Final = 5
"""Calls that fail in a row before a webhook is spared …"""
_SPARED: Final = (timedelta(seconds=1), timedelta(minutes=1))
"""… between two calls, at least and at most."""


class Outcome(StrEnum):
    """What became of a call."""

    TAKEN = "taken"
    """A status from 200 to 299: it has the event."""
    GONE = "gone"
    """410: it wants no more of them, ever."""
    STATUS = "status"
    """Any other status."""
    TIMEOUT = "timeout"
    """No answer in time."""
    UNREACHABLE = "unreachable"
    """No connection: its name, its address or its certificate is not as it should be."""
    FORBIDDEN = "forbidden"
    """Its name leads to an address inside of our networks, which nobody was called at."""
    BROKEN = "broken"
    """The connection ended without an answer, or with none that is HTTP."""
    BUG = "bug"
    """A mistake of ours."""


_MOVED: Final = "it redirects, which is not followed; set its url to where it lives"
FORBIDDEN: Final = "forbidden_address"
_MENDED: Final[Mapping[str, str]] = {
    FORBIDDEN: "its name leads into a private network; where that is meant, set private: true",
    "http_301": _MOVED,
    "http_302": _MOVED,
    "http_307": _MOVED,
    "http_308": _MOVED,
    "http_401": "it does not know who is calling; are its secrets the same on both sides?",
    "http_403": "it does not let us in; are its secrets the same on both sides?",
    "http_404": "nothing is there; is the path of its url right?",
    "http_405": "it takes no POST there; is the path of its url right?",
    "dns": "the name in its url is not known",
    "tls": "its certificate is not one to trust",
    "refused": "nothing answers at its url's host and port",
    "timeout": "it did not answer within its timeout",
}


def mended(detail: str | None) -> str | None:
    """How what a call came to is mended, as far as it can be told."""
    return _MENDED.get(detail or "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    outcome: Outcome
    detail: str
    """For people, such as ``http_503`` or ``dns``. Holds nothing of what was sent or answered."""
    retry_after: timedelta | None = None
    """How long it asks to be left alone."""


def secret(text: str) -> bytes:
    """The key that a secret stands for.

    Raises:
        ValueError: it stands for none. The sentence holds nothing of it.
    """
    try:
        key = b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(PREFIX) or not _LEAST <= len(key) <= _MOST:
        how = 'echo "whsec_$(openssl rand -base64 32)" makes one'
        raise ValueError(f"must be {PREFIX} and the base64 of {_LEAST} to {_MOST} bytes; {how}")
    return key


def signed(event: str, at: datetime, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers by which a receiver knows an event, the time of the call, and that both are from us.

    Args:
        event: its id, the same each time that it is sent. Holds no dot.
        at: of the call.
        body: as it is sent.
        keys: with each of them it is signed, so that a receiver may change from one to the other.
    """
    seconds = int(at.timestamp())
    content = b"%b.%d.%b" % (event.encode(), seconds, body)
    signatures = [b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys]
    return {
        "webhook-id": event,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def meaning(status: int) -> Outcome:
    """What a status says of the event."""
    if 200 <= status < 300:  # noqa: PLR2004 - a class of statuses
        return Outcome.TAKEN
    return Outcome.GONE if status == 410 else Outcome.STATUS  # noqa: PLR2004 - Gone


def next_call(event: str, calls: int, answer: Answer) -> timedelta | None:
    """How long after the last of so many calls, which failed, the next one is made. None: the event is given up."""
    if calls > len(WAITS):
        return None
    drawn = blake2b(f"{event}/{calls}".encode(), digest_size=2).digest()
    wait = WAITS[calls - 1] * (1 + _SPREAD * int.from_bytes(drawn) / 0xFFFF)
    return max(wait, answer.retry_after or wait)


def spared(failed: int, lasting: timedelta, answer: Answer) -> timedelta:
    """How long a webhook is left alone after calls that failed: as long as that has lasted, so ever longer.

    Args:
        failed: how many in a row.
        lasting: since the first of them.
        answer: to the last of them.
    """
    least, most = _SPARED
    pause = min(max(lasting, least), most) if failed >= _ENOUGH else timedelta(0)
    return max(pause, answer.retry_after or pause)


def abreast(failed: int, most: int) -> int:
    """How many calls of a webhook may be under way at once after so many in a row that failed."""
    return 1 if failed >= _ENOUGH else most
