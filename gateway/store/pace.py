"""The transaction that books turns in the providers' paces. It touches no person's row, and waits for no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.pace import LAPSE, Ask, Calendar, Grant, grant
from gateway.store.engine import Fetch, Now, Operation, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

_FREE = "select next_at, critical_at from paces where provider = $1 for update skip locked"


def take(worker: str, asks: Sequence[Ask]) -> Operation[dict[str, Grant]]:
    """Book turns, by provider; one is missing where another worker is booking there at this moment.

    Args:
        worker: who asks.
        asks: at most one for each provider.
    """
    granted: dict[str, Grant] = {}
    for ask in sorted(asks, key=lambda ask: ask.provider):
        found = yield Fetch(_FREE, (ask.provider,))
        if not found:
            yield Run(
                "insert into paces (provider, next_at, critical_at) values ($1, $2, $3) on conflict do nothing",
                [(ask.provider, 0, 0)],
            )
            found = yield Fetch(_FREE, (ask.provider,))
        if not found:
            continue
        now: int = yield Now()
        own_at, others = (yield from _sharing(worker, ask.provider, now)) if ask.demand else (0, [])
        granted[ask.provider], calendar, share = grant(Calendar(*found[0]), ask, now, own_at, others)
        yield Run(
            "update paces set next_at = $2, critical_at = $3 where provider = $1",
            [(ask.provider, calendar.next_at, calendar.critical_at)],
        )
        if ask.demand:
            yield Run(
                "insert into pace_shares (provider, worker, demand, next_at, lapses_at) values ($1, $2, $3, $4, $5)"
                " on conflict (provider, worker) do update set demand = excluded.demand, next_at = excluded.next_at,"
                " lapses_at = excluded.lapses_at",
                [(ask.provider, worker, share.demand, share.next_at, now + LAPSE)],
            )
    return granted


def _sharing(worker: str, provider: str, now: int) -> Operation[tuple[int, list[int]]]:
    """Until when a worker's part is spoken for, and the demands of the others."""
    # One that lapses later than any can has been written before the clock was set back.
    yield Run(
        "delete from pace_shares where provider = $1 and (lapses_at <= $2 or lapses_at > $3)",
        [(provider, now, now + LAPSE)],
    )
    found = yield Fetch("select worker, demand, next_at from pace_shares where provider = $1", (provider,))
    own = next((next_at for name, _, next_at in found if name == worker), 0)
    return own, [demand for name, demand, _ in found if name != worker]
