"""What stands where in a vendor's JSON, whose form only the configuration knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import AfterValidator

if TYPE_CHECKING:
    from collections.abc import Sequence

Path = tuple[str, ...]
"""``items.0.id``, taken apart."""


def _whole(written: str) -> str:
    if not all(written.split(".")):
        raise ValueError("has an empty step: write the keys that lead there, such as items.0.id, and no dot more")
    return written


Place = Annotated[str, AfterValidator(_whole)]
"""A path as the configuration has it."""


def path_of(written: str) -> Path:
    """As it is written in the configuration."""
    return tuple(written.split("."))


def at(found: Any, path: Sequence[str]) -> Any:
    """What a JSON document has there; None: nothing."""
    for key in path:
        if isinstance(found, list) and key.isdigit():
            found = found[int(key)] if int(key) < len(found) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def word(found: Any) -> str | None:
    """A vendor's word, id or code, as far as it can be kept."""
    if found is None or isinstance(found, dict | list):
        return None
    text = orjson.dumps(found).decode() if isinstance(found, bool | float) else str(found)
    return text if 0 < len(text) <= 255 and text.isprintable() else None  # noqa: PLR2004  (bounds what is stored)
