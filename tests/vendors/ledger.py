"""What the vendors have accepted: the truth that the gateway's own records are held against."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path


class Ledger:
    """Append-only, in memory and, where a file is named, there too: one JSON line per accepted message."""

    def __init__(self, file: Path | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self._keep = file is None
        self._file = None if file is None else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, provider: str, channel: str, address: str, **more: Any) -> None:
        """``more``: ``attempt``, ``message`` (ours, as far as this vendor is told), ``reference`` (the vendor's)."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = {"at": at, "provider": provider, "channel": channel, "address": address, **more}
        if self._keep:
            self.entries.append(entry)
        if self._file is not None:
            os.write(self._file, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
