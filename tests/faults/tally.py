"""What a row has seen, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.checker import Verdict

BROKEN = ("lost", "doubled", "false_sent", "unexpected", "cap_breach", "hour_breach", "after_stop")
"""Promises; each must stay at 0. The names are those of the checker's findings."""


@dataclass
class Tally:
    """Filled by a test, held against the promise when it ends."""

    faults: int = 0
    """Injected."""
    messages: int = 0
    """Acknowledged."""
    lost: int = 0
    doubled: int = 0
    false_sent: int = 0
    unexpected: int = 0
    cap_breach: int = 0
    hour_breach: int = 0
    after_stop: int = 0
    repeated: int = 0
    """Sent once more because nobody knew, as the category says, and recorded as that: allowed."""
    unknown: int = 0
    """Left unknown: allowed, and told."""
    recovery: float = 0.0
    """Worst, in seconds, from the end of a fault until all worked again."""
    findings: list[str] = field(default_factory=list)
    """What was found, for people."""

    def fault(self, number: int = 1, *, recovery: float = 0.0) -> None:
        """So many were injected; it took so long to recover."""
        self.faults += number
        self.recovery = max(self.recovery, recovery)

    def judge(self, verdict: Verdict) -> None:
        """Add what the checker found."""
        self.messages += verdict.acknowledged
        self.repeated += len(verdict.repeated)
        self.unknown += len(verdict.unknown)
        for name in BROKEN:
            found = getattr(verdict, name)
            setattr(self, name, getattr(self, name) + len(found))
            self.findings += [f"{name}: {what}" for what in found[:20]]

    def add(self, other: Mapping[str, Any]) -> None:
        """Another tally, as ``as_dict`` made it."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), other[one.name]
            setattr(self, one.name, max(mine, theirs) if one.name == "recovery" else mine + theirs)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def broken(self) -> dict[str, int]:
        return {name: number for name in BROKEN if (number := getattr(self, name))}
