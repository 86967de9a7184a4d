"""Which of a person's waiting messages goes before which: highest priority, then nearest expiry, then first come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gateway.health import SLOW
from gateway.message import microseconds
from gateway.store.engine import Fetch, Operation, Run
from gateway.store.schema import BEHIND, PLACE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from gateway.message import Message

_BEFORE = "(b.priority, b.expires_at, b.message) < (l.priority, l.expires_at, l.message)"
_BY_RANK = "order by b.priority, b.expires_at, b.message limit 1"
_AHEAD = (
    "select b.message from due b where b.person = l.person and b.line = l.line"
    f" and b.starts_at <= $2 and {_BEFORE} and b.suspect = 0"
    " and (l.expires_at > $3 or b.due_at <= $2 or b.lease_until > $2)"
    f" {_BY_RANK}"
)
"""The best of those that go before ``l`` in its own line, at ``$2``: of those that only wait, such as for a turn of
their own or to be tried again, none before what expires by ``$3``; of suspects, which may come to nothing, none."""
LAST = 60_000_000
"""Microseconds before its expiry in which nobody who only waits goes before a message any more."""

YIELD = 1_000_000
"""Microseconds until a message asks again that let a more urgent one of another line go first. So whoever asks within
them may only be waiting for the same one."""
NOW = "case when starts_at > {0} then starts_at else {0} end"
"""When to decide what is woken: at once, but where the clock has been set back not before it may be sent at all."""
_SLOW = SLOW // timedelta(microseconds=1)
"""An attempt that takes longer hangs."""
WAKE = f"update due set due_at = {NOW.format('$2')} where person = $1 and held <> {BEHIND} and due_at > $2 + {YIELD}"
"""Let a person's messages be decided anew, since what is known of them has changed; the first of each line will do.

Not those that ask again in a moment anyway: where each of many lines loses an address, that would cost their square."""


def rank(message: Message) -> tuple[int, datetime, str]:
    """The same order, of messages."""
    return (message.priority, message.expires_at, message.id)


@dataclass(frozen=True, slots=True)
class Place:
    """The due row of a message, and who goes before it."""

    fence: int
    lease_until: int
    tries: int
    attempts: int
    said: int
    """Which deferral was recorded last."""
    line: int
    """As it is: a policy that came into force since the lease may have lined it up anew."""
    behind: tuple[str, bool] | None = None
    """See ``decide.Behind``."""


def places(messages: Sequence[str], now: datetime) -> Operation[dict[str, Place]]:
    """Who goes before: the better one of the same line, else one of another line that could go now or in a moment.

    One that is due on another channel, but that nobody has taken up, may wait for that channel: it holds up nobody. Nor
    does one whose attempt hangs: its place is taken, and known to whoever is decided next. Of
    these messages themselves, other lines are left out: whoever decides them in their order knows more.
    """
    found = yield Fetch(
        "select l.message, l.fence, l.lease_until, l.tries, l.attempts, l.said, l.line,"
        f" case when l.line <> 0 then ({_AHEAD}) end,"
        " case when l.line <> 0 then"
        " (select b.message from due b where b.person = l.person and b.line <> 0 and b.line <> l.line"
        " and b.suspect = 0"
        f" and not (b.message = any($1)) and b.due_at <= $2 + {YIELD} and (b.channel = l.channel or b.lease_until > $2)"
        " and not (b.attempts > 0 and b.lease_until > $2 and exists (select 1 from attempts a"
        f" where a.message = b.message and a.state = 'intent' and a.begun_at < $2 - {_SLOW}))"
        f" and {_BEFORE} {_BY_RANK}) end"
        " from due l where l.message = any($1)",
        (list(messages), microseconds(now), microseconds(now) + LAST),
    )
    return {row[0]: Place(row[1], row[2], row[3], row[4], row[5], row[6], _behind(row[7], row[8])) for row in found}


def _behind(same: str | None, other: str | None) -> tuple[str, bool] | None:
    return (same, True) if same else (other, False) if other else None


def ahead(message: str, now: datetime) -> Operation[str | None]:
    """The message of the same line that goes first."""
    found = yield Fetch(
        f"select ({_AHEAD}) from due l where l.message = $1 and l.line <> 0",
        (message, microseconds(now), microseconds(now) + LAST),
    )
    return found[0][0] if found else None


def move_up(lines: Collection[tuple[Any, ...]], people: Collection[str], now: int) -> Operation[None]:
    """Let the next of each line be decided, and all of these persons that wait for a place.

    Args:
        lines: person, line and ``now`` of each that has lost its head.
        people: of whom contacts are over, or do not count any more.
        now: microseconds.
    """
    concerned = sorted({*people, *(line[0] for line in lines)})
    if not concerned:
        return
    waiting = {
        person for (person,) in (yield Fetch("select distinct person from due where person = any($1)", (concerned,)))
    }
    yield Run(
        f"update due set due_at = {NOW.format('$3')}, held = 0 where held = {BEHIND} and message = ("
        f" select b.message from due b where b.person = $1 and b.line = $2 and (b.starts_at <= $3 or b.held = {BEHIND})"
        f" and (b.suspect = 0 or b.held = {BEHIND})"
        f" {_BY_RANK})",
        [line for line in lines if line[0] in waiting],
    )
    yield Run(
        f"update due set due_at = $2 where person = $1 and held = {PLACE} and due_at > $2",
        [(person, now) for person in sorted(waiting.intersection(people))],
    )
