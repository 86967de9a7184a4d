"""Has a target been met, or missed, or are there too few messages to tell?

Pure. What the messages show is a sample: a target is met or missed only where the whole interval of what may be true
lies on one side of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.config import Target

FEWEST: Final = 30
"""Messages below which nothing is said, whatever the interval is."""
CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Verdict(StrEnum):
    """How a target fared."""

    MET = "met"
    MISSED = "missed"
    TOO_FEW = "too_few"
    """To tell."""


@dataclass(frozen=True, slots=True)
class Held:
    """A target, held against messages."""

    target: Target
    hits: int
    base: int
    """Messages that came as far as the target's ``of``; ``hits`` of them came as far as its ``step``."""
    low: float
    high: float
    """The share lies between these, with 95 % confidence."""
    verdict: Verdict

    @property
    def share(self) -> float | None:
        """What the messages show; None: there are none."""
        return self.hits / self.base if self.base else None


def held(target: Target, hits: int, base: int) -> Held:
    """A target, held against so many messages of its base, of which so many came as far as it asks."""
    low, high = wilson(hits, base)
    if base < FEWEST:
        verdict = Verdict.TOO_FEW
    elif low >= target.at_least:
        verdict = Verdict.MET
    elif high < target.at_least:
        verdict = Verdict.MISSED
    else:
        verdict = Verdict.TOO_FEW
    return Held(target, hits, base, low, high, verdict)


def wilson(hits: int, base: int) -> tuple[float, float]:
    """The score interval of Wilson (1927), which holds for small numbers and shares near 0 and 1 too."""
    if not base:
        return 0.0, 1.0
    share, z2 = hits / base, _Z * _Z
    middle = share + z2 / (2 * base)
    reach = _Z * sqrt(share * (1 - share) / base + z2 / (4 * base * base))
    scale = 1 + z2 / base
    low = 0.0 if hits == 0 else (middle - reach) / scale
    high = 1.0 if hits == base else (middle + reach) / scale
    return max(0.0, low), min(1.0, high)
