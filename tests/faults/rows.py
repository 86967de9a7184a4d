"""The rows of the matrix: what is broken, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass

FULL = os.environ.get("DECORUM_FAULTS") == "full"
"""Whether the full counts are wanted."""

CHOSEN = frozenset(os.environ.get("DECORUM_FAULTS_ROWS", "").split())
"""Rows that alone are run; none: all tests of the suite."""


@dataclass(frozen=True)
class Row:
    """One kind of fault."""

    id: str
    what: str
    short: int
    """Faults that each test of the row injects in ``make test`` …"""
    full: int
    """… and in ``make faults``."""
    short_seconds: int = 120
    """Limit of each test."""
    full_seconds: int = 1800
    alone: bool = False
    """Whether its full count fills a machine, so that nothing else is run beside it."""

    @property
    def count(self) -> int:
        return self.full if FULL else self.short

    @property
    def seconds(self) -> int:
        return self.full_seconds if FULL else self.short_seconds


ROWS = {
    row.id: row
    for row in (
        Row("F1", "kill -9 of the gateway at each named point", 31, 1_060, 600, 3000, alone=True),
        Row("F2", "kill -9 of the gateway at random moments", 2, 200),
        Row("F3", "kill -9 of RabbitMQ", 1, 20),
        Row("F4", "RabbitMQ frozen", 1, 5),
        Row("F5", "RabbitMQ out of memory, out of disk", 1, 5),
        Row("F6", "queue deleted, channel closed, connection cut", 1, 10),
        Row("F7", "kill -9 of PostgreSQL", 1, 20),
        Row("F8", "PostgreSQL frozen", 1, 5),
        Row("F11", "SQLite: kill -9 in a commit, disk full, locked", 1, 100),
        Row("F12", "a vendor that misbehaves in 16 ways", 25, 500),
        Row("F13", "receipts and events twice, reversed, early, forged", 500, 10_000),
        Row("F14", "SIGTERM under load", 3, 50),
        Row("F15", "a worker frozen past its lease wakes up", 4, 50),
        Row("F16", "clocks that step, change and leap", 10_000, 100_000),
        Row("F17", "poison among good messages", 100, 1_000),
        Row("F18", "two gateways, the same persons, one cap", 1_000, 50_000),
        Row("F19", "opt-outs that race with hand-offs", 50, 1_000),
        Row("F20", "abuse of the HTTP listener", 7, 7),
        Row("F21", "drawn histories against a model", 15, 1_000),
        Row("F22", "drawn faults in virtual time", 3, 250, 600),
    )
}
"""F9 and F10 of the matrix break Redis, which is not used."""
