"""Transactions by which workers tell each other how their providers fare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.store.engine import Fetch, Now, Operation, Run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

_MICROSECOND = 1e-6
_KEPT = 4
"""Rows that have not been written for so many times as long as they are heeded are deleted."""


@dataclass(frozen=True, slots=True)
class Told:
    """What another worker says of a provider."""

    provider: str
    worker: str
    seen: str
    """As it was told."""
    age: float
    """Seconds since then."""


def tell(worker: str, seen: Mapping[str, str], heeded: timedelta) -> Operation[list[Told]]:
    """Replace what a worker says of each of these providers, forget those long silent, and hear the others."""
    now: int = yield Now()
    yield Run(
        "insert into provider_health (provider, worker, seen, written_at) values ($1, $2, $3, $4)"
        " on conflict (provider, worker) do update set seen = excluded.seen, written_at = excluded.written_at",
        [(provider, worker, text, now) for provider, text in sorted(seen.items())],
    )
    kept = _KEPT * _microseconds(heeded)
    yield Run("delete from provider_health where written_at not between $1 and $2", [(now - kept, now + kept)])
    return (yield from hear(worker, heeded))


def hear(worker: str, heeded: timedelta) -> Operation[list[Told]]:
    """What workers other than this one have said not longer ago than that; not ahead, before a clock was set back."""
    now: int = yield Now()
    found = yield Fetch(
        "select provider, worker, seen, written_at from provider_health"
        " where worker <> $1 and written_at between $2 and $3 order by worker, provider",
        (worker, now - _microseconds(heeded), now + _microseconds(heeded)),
    )
    return [Told(provider, other, seen, max(0, now - at) * _MICROSECOND) for provider, other, seen, at in found]


def _microseconds(length: timedelta) -> int:
    return round(length.total_seconds() / _MICROSECOND)
