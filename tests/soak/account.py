"""What became of every request that was confirmed: by the vendors' ledger and the store alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

ASK = (
    "select m.request, coalesce((select max(case state when 'accepted' then 3 when 'unknown' then 2 else 1 end)"
    " from attempts a where a.message = m.id), 0),"
    " exists (select 1 from due d where d.message = m.id) from messages m"
)
"""Of every message: the best that is known of its attempts, and whether there is something left to do."""
_ACCEPTED, _UNKNOWN = 3, 2


@dataclass(frozen=True, slots=True)
class Account:
    """Names of requests."""

    confirmed: int
    handed_over: int
    """That a vendor has accepted."""
    unknown: int
    """That no vendor has accepted, and of which the store says that nobody knows."""
    waiting: int
    """That are still to be sent."""
    lost: list[str] = field(default_factory=list)
    """Confirmed, in no ledger, and neither waiting nor unknown."""
    doubled: list[str] = field(default_factory=list)
    """Accepted by vendors more than once, though none of these may be repeated."""
    false: list[str] = field(default_factory=list)
    """Recorded as accepted, and in no ledger."""

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        kinds = (("lost", self.lost), ("doubled", self.doubled), ("recorded as accepted by nobody", self.false))
        return [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds if names]


def ledger(file: Path) -> Counter[str]:
    """How often vendors have accepted each request."""
    return Counter(orjson.loads(line)[2].split(" ", 1)[0] for line in file.read_bytes().splitlines())


def settle(confirmed: Collection[str], accepted: Mapping[str, int], rows: Iterable[tuple[str, int, bool]]) -> Account:
    """Hold what was confirmed against both.

    Args:
        confirmed: names of the requests that the broker has taken.
        accepted: how often vendors have accepted each.
        rows: of the store, as ``ASK`` puts it.
    """
    known = {name: (best, bool(due)) for name, best, due in rows}
    missing = [name for name in confirmed if not accepted.get(name)]
    unknown = [name for name in missing if known.get(name, (0, False))[0] == _UNKNOWN]
    waiting = [name for name in missing if known.get(name, (0, False))[1] and name not in set(unknown)]
    return Account(
        len(confirmed),
        len(confirmed) - len(missing),
        len(unknown),
        len(waiting),
        sorted({*missing} - {*unknown} - {*waiting}),
        sorted(name for name, times in accepted.items() if times > 1),
        sorted(name for name, (best, _) in known.items() if best == _ACCEPTED and not accepted.get(name)),
    )
