"""How many examples a property is tried on: ``DECORUM_EXAMPLES`` multiplies them, for a long search or a short one."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """So many, times ``DECORUM_EXAMPLES`` where that is set; at least one."""
    return max(1, round(number * float(os.environ.get("DECORUM_EXAMPLES", "1"))))
