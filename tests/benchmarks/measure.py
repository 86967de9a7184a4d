"""What a run has shown, and how runs are told in a table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TITLES = {
    "a": "bare aio-pika, consume + ack",
    "b": "the gateway: RabbitMQ, PostgreSQL",
    "c": "the gateway: HTTP, SQLite",
    "d": "written by hand: limits, aiohttp",
    "e": "FastStream, empty handler",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One contender, once."""

    contender: str
    messages: int
    seconds: float
    """From the first delivery (or POST) to the last acknowledgement (or event)."""
    cpu: float
    """µs a message, of the contender's processes."""
    rss: float
    """MB, of the contender's processes."""
    servers: Mapping[str, float] = field(default_factory=dict)
    """µs a message, of each server."""
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def table(runs: Iterable[Run]) -> Table:
    """Medians, and how far they are to be trusted."""
    grouped = group(runs)
    shown = Table(title="Messages per second, medians (min..max); CPU in µs a message", title_justify="left")
    for heading in ("", "contender", "msg/s", "÷ a", "÷ d", "CPU", "RSS MB", "broker", "database", "vendor"):
        shown.add_column(heading, justify="left" if heading in ("", "contender") else "right", no_wrap=True)
    for name, some in grouped.items():
        rates = [run.rate for run in some]
        servers = [
            f"{statistics.median([run.servers.get(server, 0) for run in some]):.0f}"
            for server in ("broker", "database", "vendor")
        ]
        shown.add_row(
            name,
            TITLES[name],
            f"{statistics.median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f})",
            _ratio(some, grouped.get("a")),
            _ratio(some, grouped.get("d")),
            f"{statistics.median([run.cpu for run in some]):.0f}",
            f"{statistics.median([run.rss for run in some]):.0f}",
            *servers,
        )
    return shown


def summary(runs: Iterable[Run]) -> dict[str, Any]:
    """The same for programs, with every run."""
    grouped = group(runs)
    return {
        name: {
            "rate": statistics.median([run.rate for run in some]),
            "cpu_us": statistics.median([run.cpu for run in some]),
            "rss_mb": statistics.median([run.rss for run in some]),
            "ratio_to_a": ratio(some, grouped.get("a")),
            "ratio_to_d": ratio(some, grouped.get("d")),
            "runs": [asdict(run) | {"rate": run.rate} for run in some],
        }
        for name, some in grouped.items()
    }


def group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """By contender."""
    grouped: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.contender].append(run)
    return dict(sorted(grouped.items()))


def ratio(some: Sequence[Run], others: Sequence[Run] | None) -> float | None:
    """The median of the rounds' ratios: what drifts between rounds is the same within one."""
    if not others:
        return None
    return statistics.median([run.rate / other.rate for run, other in zip(some, others, strict=False)])


def _ratio(some: Sequence[Run], others: Sequence[Run] | None) -> str:
    found = ratio(some, others)
    return "" if found is None else f"{found:.2f}"
