"""Transactions of the sweeper, which sees to it that nothing stays open: what is unknown, and what nobody works on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gateway.decide import Ended
from gateway.message import LISTENED, AttemptState, MessageState, instant, microseconds
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import CRASHED, is_open, lock
from gateway.store.reading import states
from gateway.store.writes import PUBLISH, Writes, event_row
from gateway.unknown import NO_RECOURSE, next_look

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway.decide import Judge
    from gateway.message import Attempt, Message

CLOSED = "closed"
"""The reason of what stays unknown for ever, because nobody listens any more."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A piece of what has been looked at."""

    seen: int
    """As many as asked for: there may be more."""
    ask: tuple[tuple[str, str], ...] = ()
    """Attempts whose vendor can be asked what became of them, each with its provider."""
    closed: int = 0
    """Messages that will stay unknown."""


@dataclass(frozen=True, slots=True)
class Ages:
    """Of what should not grow old."""

    unknown: float
    """Seconds since the first of the attempts that are unknown became that; 0: none is."""
    unclosed: float
    """Seconds since the first of the messages that are not settled expired; 0: none has."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A row of ``unknowns``."""

    message: str
    attempt: str
    since: int
    closes_at: int


def look(judge: Judge, limit: int) -> Operation[Swept]:
    """Look at the attempts in doubt whose time has come.

    What is known by now is looked at no more; what nobody works on is in doubt too; of what is closed others are told.
    """
    now: int = yield Now()
    page = [
        _Watched(*row)
        for row in (
            yield Fetch(
                "select message, attempt, since, closes_at from unknowns where look_at <= $1 order by look_at limit $2",
                (now, limit),
            )
        )
    ]
    if not page:
        return Swept(0)
    read = yield from _read({watched.message for watched in page})
    over, closed, again, ask, vanished = [], set(), [], [], []
    for watched in page:
        attempt = read.attempts.get(watched.attempt)
        if attempt is None or attempt.state is not AttemptState.UNKNOWN or now >= watched.closes_at:
            over.append(watched)
            if attempt and attempt.state is AttemptState.UNKNOWN:
                closed.add(watched.message)
            if attempt and is_open(attempt) and watched.message not in read.due:
                vanished.append(attempt)  # its message has ended without it
            continue
        if judge.recourses.get(attempt.provider, NO_RECOURSE).looked_up:
            ask.append((attempt.repeats or attempt.id, attempt.provider))
        soon = microseconds(next_look(instant(watched.since), instant(now)))
        again.append((watched.message, watched.attempt, min(soon, watched.closes_at)))
    yield Run(
        "update attempts set state = 'unknown', error = 'crash', ended_at = $2 where id = $1 and state = 'intent'",
        [(attempt.id, now) for attempt in vanished],
    )
    yield Run("update unknowns set look_at = $3 where message = $1 and attempt = $2", again)
    yield Run("delete from unknowns where message = $1 and attempt = $2", [(one.message, one.attempt) for one in over])
    told = yield from _tell(closed - read.due, read.messages, judge, now)
    return Swept(len(page), tuple(dict.fromkeys(ask)), told)


@dataclass(frozen=True, slots=True)
class _Read:
    messages: Mapping[str, Message]
    attempts: Mapping[str, Attempt]
    due: frozenset[str]


def _read(ids: Collection[str]) -> Operation[_Read]:
    """Messages and their attempts, under the locks of their persons; and those of them that are not settled."""
    wanted = (sorted(ids),)
    found = yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", wanted)
    messages = {row[0]: rows.message(row) for row in found}
    yield from lock(message.person for message in messages.values())
    tried = yield Fetch(f"select {rows.ATTEMPT} from attempts where message = any($1) order by number", wanted)
    due = yield Fetch("select message from due where message = any($1)", wanted)
    return _Read(messages, {row[0]: rows.attempt(row) for row in tried}, frozenset(message for (message,) in due))


def _tell(closed: Collection[str], messages: Mapping[str, Message], judge: Judge, now: int) -> Operation[int]:
    """Say of messages that nobody will ever know; how many those are."""
    if not closed:
        return 0
    of = yield from states(sorted(closed))
    unknown = [message for message in sorted(closed) if of[message] is MessageState.UNKNOWN]
    yield Run(
        "insert into decisions (message, decided_at, state, reason, policy, why) values ($1, $2, $3, $4, $5, $6)",
        [(message, now, MessageState.UNKNOWN, CLOSED, judge.number, "[]") for message in unknown],
    )
    if MessageState.UNKNOWN in judge.events:
        told = [event_row(messages[m], MessageState.UNKNOWN, CLOSED, None, instant(now), {}) for m in unknown]
        yield Run(PUBLISH, told)
    return len(unknown)


def overdue(judge: Judge, limit: int) -> Operation[int]:
    """End messages that have expired so long ago that they are to be closed, and that nobody works on; how many."""
    now: int = yield Now()
    long_ago = now - LISTENED // timedelta(microseconds=1)
    page = yield Fetch(
        "select message, person from due where due_at <= $1 and expires_at <= $1 and lease_until < $2 limit $3",
        (long_ago, now, limit),
    )
    if not page:
        return 0
    yield from lock(person for _, person in page)
    ids = ([message for message, _ in page],)
    found = yield Fetch("select message, line from due where message = any($1) and lease_until < $2", (*ids, now))
    read = yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", ids)
    messages = {row[0]: rows.message(row) for row in read}
    tried = yield Fetch(f"select {rows.ATTEMPT} from attempts where message = any($1)", ids)
    attempts = [rows.attempt(row) for row in tried]
    writes = Writes(instant(now), judge)
    for message, line in found:
        own = [attempt for attempt in attempts if attempt.message == message]
        doubtful = [attempt for attempt in own if attempt.state in (AttemptState.INTENT, AttemptState.UNKNOWN)]
        for attempt in filter(is_open, own):
            writes.outcome(messages[message], attempt, CRASHED)
        end = Ended(MessageState.UNKNOWN, CLOSED) if doubtful else Ended(MessageState.EXPIRED, CLOSED)
        writes.ended(messages[message], line, end, None)
    yield from writes.run()
    return len(found)


def ages() -> Operation[Ages]:
    """How old the oldest are."""
    now: int = yield Now()
    unknown = yield Fetch("select min(since) from unknowns")
    expired = yield Fetch("select min(expires_at) from due")
    return Ages(_seconds(unknown[0][0], now), _seconds(expired[0][0], now))


def _seconds(since: int | None, now: int) -> float:
    return 0.0 if since is None else max(0, now - since) / 1e6
