"""What may stand in the query of a URL, and what is most often wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from gateway.config.faults import nearest
from gateway.fields import Instant
from gateway.intake import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from multidict import MultiMapping


def _offset(value: object) -> object:
    """Say what is most often wrong with an instant in a query."""
    if isinstance(value, str) and re.fullmatch(r".*:.* [0-9]{2}:[0-9]{2}", value):
        raise ValueError("has a space where its offset's + was: in a query, write %2B for +")
    if isinstance(value, str) and re.fullmatch(r"[0-9-]{10}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?", value):
        raise ValueError("needs an offset such as Z or +09:00; in a query, write %2B for +")
    return value


Moment = Annotated[Instant, BeforeValidator(_offset)]
"""An instant in a query."""


def repeated(query: MultiMapping[str]) -> Iterator[Fault]:
    """Keys that are there more than once."""
    for key in sorted({key for key in query if len(query.getall(key)) > 1}):
        yield Fault(key, "is given twice: give it once")


def unknown(key: str, known: Collection[str]) -> Fault:
    """Of a key that is not one of those known."""
    return Fault(key, f"is not known here{meant(key, known)}")


def meant(word: str, words: Collection[str]) -> str:
    """Which of the words may have been meant, or what there are, as the end of a sentence."""
    return nearest(word, words) or f"; there are: {', '.join(sorted(words))}"
