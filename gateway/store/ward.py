"""Messages whose worker vanished while it held them: one of them may be what kills workers. They are run alone.

A worker that lives gives back what it does not finish (``give_back``), so a lease that ran out is the sign of one that
died, or that cannot be told from that. ``work.lease`` makes suspects of what such a worker held. Here they are
leased again, one at a time, whichever worker does it; who comes through is a suspect no more. Only what goes wrong
then counts, for nothing else was new.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson

from gateway.decide import Ended
from gateway.ids import new_id
from gateway.message import MessageState, instant
from gateway.outcome import BUG, POISON
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import CRASHED, is_open, lock
from gateway.store.leases import Lease
from gateway.store.line import move_up
from gateway.store.schema import FRESH, SUSPECT
from gateway.store.upkeep import take_job
from gateway.store.writes import Writes
from ratelimit import Ruling

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.decide import Judge
    from gateway.message import Message

CRASHES = 3
"""Workers that one message may kill while it is run alone, or bugs that it may meet, before it is parked."""
_AFTER_A_BUG = 60_000_000
"""Microseconds that it waits then: what broke may be mended, or have been the moment's."""
SUSPECTS = "suspects"
"""Of the worker that runs them, for all."""
_TERM = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Round:
    """What there is to do in the ward at this moment."""

    lease: Lease | None = None
    """The one to run now. None: another is under way, perhaps elsewhere, or none is due."""
    crashes: int = 0
    """How many were just found to have killed their worker while they were run alone."""
    parked: Sequence[tuple[Message, Ended]] = ()
    """Of these, what has done so for the last time."""


def give_back(leases: Sequence[Lease], pause: timedelta) -> Operation[None]:
    """Let others have what a living worker will not finish, after a pause.

    What others took meanwhile, because they could not tell this worker from a dead one, did not kill it.
    """
    now: int = yield Now()
    again = now + pause // timedelta(microseconds=1)
    given = sorted((lease.message.id, lease.fence) for lease in leases)
    yield Run(
        "update due set lease_until = 0, due_at = $3 where message = $1 and fence = $2",
        [(*one, again) for one in given],
    )
    yield Run("update due set suspect = 0, crashes = 0 where message = $1 and fence > $2 and suspect <> 0", given)


def give_back_all_but(held: Collection[str], holder: int) -> Operation[None]:
    """The same for what a worker may have leased without hearing of it: all that is not among those it knows of."""
    yield Fetch(
        "update due set lease_until = 0 where holder = $1 and lease_until <> 0 and not (message = any($2)) returning 1",
        (holder, sorted(held)),
    )


def inherit(worker: str, holder: int) -> Operation[None]:
    """Whatever another process was doing, it is dead: no other can be at this store."""
    yield Fetch("update due set lease_until = 1 where lease_until > 1 and holder <> $1 returning 1", (holder,))
    yield Run("delete from jobs where worker <> $1", [(worker,)])


def broke(lease: Lease, judge: Judge) -> Operation[Sequence[tuple[Message, Ended]]]:
    """Working on a message ended in a bug: it waits, and is set aside when that goes on. Returns what was set aside."""
    yield from lock([lease.message.person])
    now: int = yield Now()
    found = yield Fetch(
        "update due set crashes = crashes + 1, lease_until = 0, due_at = $3 where message = $1 and fence = $2"
        " returning line, crashes",
        (lease.message.id, lease.fence, now + _AFTER_A_BUG),
    )
    over = [(lease.message.id, line, crashes) for line, crashes in found if crashes >= CRASHES]
    return (yield from _park(over, BUG, "working on it ended in a bug of the gateway {} times", now, judge))


def clear(lease: Lease) -> Operation[None]:
    """A suspect was run alone and came through."""
    yield Run("update due set suspect = 0, crashes = 0 where message = $1", [(lease.message.id,)])


def count() -> Operation[int]:
    """How many suspects there are."""
    return (yield Fetch("select count(*) from due where suspect <> 0"))[0][0]  # type: ignore[no-any-return]


def take(worker: str, holder: int, until: timedelta, judge: Judge, *, others: bool) -> Operation[Round]:
    """Find out how the last suspect fared, and lease the next, if no other is under way.

    Args:
        worker: who asks; another may be doing this for all.
        holder: the same, as leases name it.
        until: how long the lease holds.
        judge: decides nothing here, but knows who wants to hear of what is parked.
        others: see ``work.lease``.
    """
    if not (yield from take_job(SUSPECTS, worker, _TERM)):
        return Round()
    concerned = yield Fetch(f"select person from due where suspect <> 0 and (suspect = {FRESH} or lease_until <> 0)")
    yield from lock(person for (person,) in concerned)
    now: int = yield Now()
    yield from _let_others_pass(now)
    held = yield Fetch(
        "select message, person, line, crashes, holder, lease_until from due"
        " where suspect <> 0 and lease_until <> 0 order by message"
    )
    dead, stalled, under_way = [], [], False
    for message, person, line, crashes, owner, ends in held:
        if ends > now or (owner != holder and not others):
            under_way = True
        elif owner == holder:
            stalled.append((message,))
        else:
            dead.append((message, person, line, crashes + 1))
    yield Run("update due set crashes = $2, lease_until = 0 where message = $1", [(one[0], one[3]) for one in dead])
    yield Run("update due set lease_until = 0 where message = $1", stalled)
    over = [(message, line, crashes) for message, _, line, crashes in dead if crashes >= CRASHES]
    parked = yield from _park(over, POISON, "its worker died {} times while it was run alone", now, judge)
    lease = None if under_way else (yield from _lease(now, until, holder))
    return Round(lease, len(dead), parked)


def _let_others_pass(now: int) -> Operation[None]:
    """Those who wait in line behind a suspect need not wait for what becomes of it."""
    fresh = yield Fetch(f"select message, person, line from due where suspect <> 0 and suspect = {FRESH}")
    yield Run(f"update due set suspect = {SUSPECT} where message = $1", [(message,) for message, *_ in fresh])
    yield from move_up(sorted({(person, line, now) for _, person, line in fresh if line}), (), now)


def _lease(now: int, until: timedelta, holder: int) -> Operation[Lease | None]:
    """The most urgent one that is due."""
    taken = yield Fetch(
        "with ready as ("
        " select message from due where suspect <> 0 and due_at <= $1 and lease_until = 0"
        " order by priority, due_at limit 1"
        " for update skip locked)"
        " update due set lease_until = $2, fence = fence + 1, holder = $3"
        " where message in (select message from ready) returning message, fence",
        (now, now + until // timedelta(microseconds=1), holder),
    )
    for message, fence in taken:
        found = yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (message,))
        return Lease(rows.message(found[0]), fence)
    return None


def _park(
    over: Sequence[tuple[str, int, int]], reason: str, sentence: str, now: int, judge: Judge
) -> Operation[tuple[tuple[Message, Ended], ...]]:
    """Set messages aside for people, under the locks of their persons.

    Args:
        over: each with its line, and how often it went wrong.
        reason: why, in a word.
        sentence: the same, with a place for the number.
        now: in microseconds.
        judge: knows who wants to hear of it.
    """
    writes = Writes(instant(now), judge)
    parked: list[tuple[Message, Ended]] = []
    for id_, line, crashes in over:
        message = rows.message((yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (id_,)))[0])
        for row in (yield Fetch(f"select {rows.ATTEMPT} from attempts where message = $1", (id_,))):
            if is_open(attempt := rows.attempt(row)):
                writes.outcome(message, attempt, CRASHED)
        why = sentence.format(crashes)
        end = Ended(MessageState.PARKED, reason, (Ruling(reason, permits=False, next=None, why=why),))
        parked.append((message, writes.ended(message, line, end, None)))
        yield Run(
            "insert into parked (id, parked_at, via, source, request, reason, faults, body)"
            " values ($1, $2, 'worker', $3, $4, $5, $6, $7)",
            [
                (
                    new_id(),
                    now,
                    message.source,
                    message.request,
                    reason,
                    orjson.dumps([{"path": "", "problem": f"{why}, as message {id_}"}]).decode(),
                    base64.b64encode(orjson.dumps(message.body)).decode(),
                )
            ],
        )
    yield from writes.run()
    return tuple(parked)
