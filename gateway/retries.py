"""How often, and after how long, is a message tried again that its providers have failed? Pure."""

from __future__ import annotations

import hashlib
from datetime import timedelta

RETRY_BUDGET = 24
"""Tries that failed at the provider before a message is given up; about four hours with the waits below."""
_FIRST_WAIT = timedelta(seconds=5)
_LONGEST_WAIT = timedelta(minutes=15)


def backoff(message: str, tries: int) -> timedelta:
    """Twice as long each time, spread by a stable hash so that what failed together does not come back together."""
    wait: timedelta = min(_FIRST_WAIT * 2 ** min(tries, 10), _LONGEST_WAIT)
    spread = 0.5 + hashlib.blake2b(f"{message}/{tries}".encode(), digest_size=1).digest()[0] / 255
    return wait * spread
