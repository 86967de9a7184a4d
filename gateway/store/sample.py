"""Transactions of the sampler: whom we contacted last, what their ledgers say, and which message waits longest."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from gateway.ids import oldest_id
from gateway.message import instant, microseconds
from gateway.pressure import Contacted
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation
from gateway.store.known import SETTLEMENT_SLACK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from ratelimit import Contact


def contacted(limit: int, within: timedelta) -> Operation[tuple[datetime, list[tuple[str, datetime]]]]:
    """What time it is, and the newest contacts that count and are not older than that: of whom, and when."""
    now = instant((yield Now()))
    found = yield Fetch(
        "select person, begun_at from contacts where attempt > $1 and counts = 1 order by attempt desc limit $2",
        (oldest_id(now - within), limit),
    )
    return now, [(person, instant(begun)) for person, begun in found]


def ledgers(people: Sequence[str], since: datetime) -> Operation[list[Contacted]]:
    """Of persons, what is known of them and their contacts that count and ended since; of those who have any."""
    names = (list(people),)
    profiles = dict((yield Fetch("select person, profile from profiles where person = any($1)", names)))
    contacts: dict[str, list[Contact]] = defaultdict(list)
    for row in (
        yield Fetch(
            f"select {rows.CONTACT} from contacts where person = any($1) and begun_at > $2 and counts = 1",
            (*names, microseconds(since - SETTLEMENT_SLACK)),
        )
    ):
        contacts[row[0]].append(rows.contact(row))
    return [Contacted(name, rows.profile(profiles[name]), contacts[name]) for name in people if name in contacts]


def deferred(after: str, limit: int) -> Operation[tuple[float | None, str]]:
    """The oldest message that a rule, or its place in line, holds back, among so many that wait behind an id.

    Returns:
        Seconds since it was accepted, None where there is none; and then the id to look on behind, empty at the end.
    """
    last = yield Fetch(
        "select message from due where message > $1 order by message limit 1 offset $2", (after, limit - 1)
    )
    end: str = last[0][0] if last else ""
    held = yield Fetch(
        "select message from due where message > $1 and message <= $2 and held <> 0 order by message limit 1",
        (after, end or _BEHIND_ALL),
    )
    if not held:
        return None, end
    now: int = yield Now()
    accepted = yield Fetch("select accepted_at from messages where id = $1", (held[0][0],))
    return (now - accepted[0][0]) / 1_000_000, ""


_BEHIND_ALL = "z" * 27
"""Behind every id, by whatever a database sorts."""
