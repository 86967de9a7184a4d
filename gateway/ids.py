"""What our ids look like: unguessable, and in the order in which they were made."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from gateway.message import microseconds

if TYPE_CHECKING:
    from datetime import datetime

ID = re.compile(r"[0-9a-z]{26}")
"""Nothing else is worth asking the database for."""
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BITS = 74
_DRAWN_BITS = 80
_DRAWN: list[int] = []

Source = Callable[[], tuple[int, int]]
"""Answers what an id is made of: microseconds since 1970, and ``_RANDOM_BITS`` by chance."""


def new_id() -> str:
    """An unguessable id of 26 characters, ``[0-9a-z]``, that sorts by time of creation.

    54 bits of microseconds, which last until the year 2540, and 74 random bits.
    """
    made_at, random = SOURCE.get()()
    return _base32(made_at << _RANDOM_BITS | random)


def _system() -> tuple[int, int]:
    return time.time_ns() // 1000, _random() >> _DRAWN_BITS - _RANDOM_BITS


SOURCE: ContextVar[Source] = ContextVar("ids", default=_system)
"""What ids are made of in this context. Ids are made deep inside transactions, and what is decided hangs on them: of
equals the older goes first, and their hash spreads waits. So a run that is to be repeated has a source of its own."""


def _random() -> int:
    """Of ``_DRAWN_BITS``. Drawn in advance, since a system call for each costs as much as all the rest of an id."""
    while True:
        try:
            return _DRAWN.pop()  # whole or not at all, whichever thread asks
        except IndexError:
            drawn = os.urandom(_DRAWN_BITS // 8 * 512)
            _DRAWN.extend(
                int.from_bytes(drawn[at : at + _DRAWN_BITS // 8]) for at in range(0, len(drawn), _DRAWN_BITS // 8)
            )


def oldest_id(at: datetime) -> str:
    """Below every id that was made at that instant or later."""
    return _base32(microseconds(at) << _RANDOM_BITS)


def _base32(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -10, -10)])
