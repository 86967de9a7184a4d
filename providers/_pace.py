"""How fast we allow ourselves to hand messages to a provider, and in what that is counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MICROSECONDS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}

_RATE = re.compile(r"([1-9][0-9]{0,6})/([smh])")


@dataclass(frozen=True, slots=True)
class Pace:
    """So many units in so long, evenly: ``600/m`` is ten a second and never 600 at once."""

    limit: int
    """Units, at least 1."""
    per: int
    """Microseconds."""

    @property
    def per_second(self) -> float:
        """Units a second."""
        return self.limit * 1_000_000 / self.per

    def span(self, units: int) -> int:
        """Microseconds that so many units take, rounded up, so that never more go than the pace allows."""
        return -(-units * self.per // self.limit)


def paced(value: object) -> Pace:
    """As the configuration writes it.

    Raises:
        ValueError: it is no rate.
    """
    if isinstance(value, Pace):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a rate such as 10/s, 600/m or 36000/h")
    return Pace(int(found[1]), _MICROSECONDS[found[2]])
