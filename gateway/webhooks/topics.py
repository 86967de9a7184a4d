"""Which events does a webhook ask for? Their routing keys, by patterns as AMQP's topic exchanges have them.

Pure. AMQP 0-9-1, 3.1.3.3: words between dots; ``*`` stands for exactly one word, ``#`` for any number of them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = r"(?:[A-Za-z0-9_-]+|[*#])"
_PATTERN = re.compile(rf"{_WORD}(?:\.{_WORD}){{0,7}}")


def pattern(text: str) -> str:
    """A pattern, as it was given.

    Raises:
        ValueError: it is none.
    """
    if not _PATTERN.fullmatch(text):
        raise ValueError("must be up to 8 words between dots, where * is any word and # any number, such as message.*")
    return text


@cache
def matches(text: str, key: str) -> bool:
    """Whether a routing key is one of those that a pattern stands for."""
    return _match(text.split("."), key.split("."))


def _match(pattern: Sequence[str], key: Sequence[str]) -> bool:
    if not pattern:
        return not key
    first, *rest = pattern
    if first == "#":
        return any(_match(rest, key[words:]) for words in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and _match(rest, key[1:])
