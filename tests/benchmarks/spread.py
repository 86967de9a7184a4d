"""How times lie: percentiles, and a histogram of two runs side by side that fits a terminal."""

from __future__ import annotations

from bisect import bisect_right
from math import ceil
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EDGES = (5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1000, 2500, 5000, 10_000)
"""Milliseconds."""
_WIDTH = 40


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least that share of all are no greater than; 0 of none."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def counts(milliseconds: Sequence[float]) -> list[int]:
    """How many lie below each edge and not below the one before; the last: no less than any."""
    found = [0] * (len(_EDGES) + 1)
    for value in milliseconds:
        found[bisect_right(_EDGES, value)] += 1
    return found


def histogram(title: str, runs: Mapping[str, Sequence[float]]) -> Table:
    """A row for each span of milliseconds, a column for each run."""
    shown = Table("ms", title=title, title_justify="left")
    columns = {name: counts(values) for name, values in runs.items()}
    for name, values in runs.items():
        shown.add_column(f"{name} ({len(values)})", no_wrap=True)
    used = [row for row in range(len(_EDGES) + 1) if any(column[row] for column in columns.values())]
    for row in range(used[0], used[-1] + 1) if used else ():
        cells = []
        for column in columns.values():
            bar = "█" * ceil(_WIDTH * column[row] / max(sum(column), 1)) if column[row] else ""
            cells.append(f"{bar} {column[row]}" if bar else "")
        shown.add_row(f"< {_EDGES[row]}" if row < len(_EDGES) else f"≥ {_EDGES[-1]}", *cells)
    return shown
