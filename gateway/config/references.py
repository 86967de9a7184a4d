"""Secrets by reference: fetches what ``{env: NAME}`` and ``{file: path}`` stand for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_SECRET: Final = 65_536
"""Characters of a file."""


def fetch(value: Mapping[str, object], environ: Mapping[str, str], base: Path) -> str | None:
    """What a mapping stands for; None if it is no reference.

    Raises:
        ValueError: why it cannot be fetched, and how to mend that.
    """
    match value:
        case {"env": str(name), **rest} if not rest:
            return _variable(name, environ)
        case {"file": str(name), **rest} if not rest:
            return _contents(name, base)
        case _:
            return None


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must name an environment variable, such as {env: TWILIO_TOKEN}")
    value = environ.get(name)
    if not value:
        raise ValueError(f"the environment variable {name} is {'not set' if value is None else 'empty'}: set it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the environment variable {name} is not UTF-8 text") from None
    return value


def _contents(name: str, base: Path) -> str:
    """Without the line break at its end, which editors add."""
    try:
        path = base / name
        if not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}: make it, or change the reference")
        with path.open(encoding="utf-8") as file:
            value = file.read(MAX_SECRET + 1).rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the file {name!r} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"the file {name!r} cannot be read: {error.strerror}") from None
    if not value or len(value) > MAX_SECRET:
        raise ValueError(f"the file {name!r} is {f'longer than {MAX_SECRET} characters' if value else 'empty'}")
    return value
