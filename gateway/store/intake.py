"""Transactions of intake: a request becomes a message, once."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from gateway import killpoints
from gateway.ids import new_id
from gateway.lines import bucket_of
from gateway.message import microseconds
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import lock
from gateway.store.line import WAKE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.intake import Fault
    from gateway.message import Message, Profile

EMPTY_PROFILE = "{}"
_FORGOTTEN = 24 * 3600 * 1_000_000
"""Microseconds after which it says nothing any more that a process died of some input."""
_INTRODUCE = "insert into profiles (person, profile, updated_at) values ($1, $2, $3) on conflict do nothing"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A validated request, about to be committed."""

    message: Message
    hash: str
    line: int
    policy: int
    """The number of the policy that it was lined up by."""


@dataclass(frozen=True, slots=True)
class Known:
    """The id is taken."""

    message: str
    hash: str


@dataclass(frozen=True, slots=True)
class ParkedInput:
    """Input that nobody can deliver."""

    via: str
    source: str | None
    request: str | None
    reason: str
    faults: Sequence[Fault]
    body: bytes


def accept(new: Sequence[NewMessage]) -> Operation[list[Known | None]]:
    """Insert what is new; of what is not, say which message its id stands for.

    A request that another transaction is inserting at the same instant is waited for by the unique key, and seen by the
    select behind it. Rows are written in the order of their keys, so that two batches never wait for each other.
    """
    ordered = sorted(new, key=lambda item: (item.message.request, item.message.source))
    yield Run(
        "insert into requests (id, source, hash, message, accepted_at) values ($1, $2, $3, $4, $5)"
        " on conflict do nothing",
        [
            (i.message.request, i.message.source, i.hash, i.message.id, microseconds(i.message.accepted_at))
            for i in ordered
        ],
    )
    taken = yield Fetch(
        "select id, source, message, hash from requests where id = any($1)",
        ([item.message.request for item in ordered],),
    )
    known = {(request, source): Known(message, hash_) for request, source, message, hash_ in taken}
    answers = [known[item.message.request, item.message.source] for item in new]
    fresh = [item for item, holder in zip(new, answers, strict=True) if holder.message == item.message.id]
    if fresh:
        yield Run(
            _INTRODUCE,
            [
                (person, EMPTY_PROFILE, microseconds(fresh[0].message.accepted_at))
                for person in sorted({item.message.person for item in fresh})
            ],
        )
        yield Run(
            f"insert into messages ({rows.MESSAGE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            [rows.message_row(item.message) for item in fresh],
        )
        yield Run(
            "insert into due (message, person, bucket, line, priority, channel, starts_at, expires_at, due_at, policy)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            [_due(item) for item in fresh],
        )
    killpoints.reached("intake.before_commit")
    return [None if holder.message == item.message.id else holder for item, holder in zip(new, answers, strict=True)]


def _due(item: NewMessage) -> tuple[object, ...]:
    message = item.message
    starts_at = microseconds(message.starts_at)
    return (
        message.id,
        message.person,
        bucket_of(message.person),
        item.line,
        int(message.priority),
        message.channels[0],
        starts_at,
        microseconds(message.expires_at),
        starts_at,
        item.policy,
    )


def introduce(person: str) -> Operation[None]:
    """Let a person be known of whom nothing is known."""
    now = yield Now()
    yield Run(_INTRODUCE, [(person, EMPTY_PROFILE, now)])


def park(inputs: Sequence[ParkedInput]) -> Operation[None]:
    """Keep input that nobody can deliver, for people to look at."""
    now = yield Now()
    yield Run(
        "insert into parked (id, parked_at, via, source, request, reason, faults, body)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (
                new_id(),
                now,
                item.via,
                item.source,
                item.request,
                item.reason,
                orjson.dumps([{"path": fault.path, "problem": fault.problem} for fault in item.faults]).decode(),
                base64.b64encode(item.body).decode(),
            )
            for item in inputs
        ],
    )


def put_profiles(profiles: Sequence[tuple[str, Profile]]) -> Operation[None]:
    """Replace what services tell of persons; their held messages are decided anew.

    Opt-outs are replaced only where the profile names them, and only those that came with a profile: what the person
    said by themselves stays.
    """
    latest = dict(profiles)
    people = sorted(latest)
    yield from lock(people)  # in the database's order, which need not be Python's
    now = yield Now()
    yield Run(
        "insert into profiles (person, profile, updated_at) values ($1, $2, $3)"
        " on conflict (person) do update set profile = excluded.profile, updated_at = excluded.updated_at",
        [
            (person, latest[person].model_dump_json(exclude={"opted_out"}, exclude_defaults=True), now)
            for person in people
        ],
    )
    told = [person for person in people if latest[person].opted_out is not None]
    yield Run("delete from optouts where person = $1 and via = 'profile'", [(person,) for person in told])
    yield Run(
        "insert into optouts (person, address, channel, category, topic, via, opted_out_at)"
        " values ($1, '', $2, $3, $4, 'profile', $5) on conflict do nothing",
        [
            (person, optout.channel or "", optout.category or "", optout.topic or "", now)
            for person in told
            for optout in latest[person].opted_out or ()
        ],
    )
    # What waits to be tried again waits on: each try counts.
    yield Run(f"{WAKE} and (held <> 0 or tries = 0)", [(person, now) for person in people])


def begin_doubtful(body: str) -> Operation[int]:
    """Note that input is begun with which was delivered before; how often it was, and not finished.

    Args:
        body: its hash.
    """
    now: int = yield Now()
    found = yield Fetch(
        "insert into doubtful (hash, begun, begun_at) values ($1, 1, $2)"
        " on conflict (hash) do update set begun_at = excluded.begun_at,"
        " begun = case when doubtful.begun_at < $3 then 1 else doubtful.begun + 1 end returning begun",
        (body, now, now - _FORGOTTEN),
    )
    return found[0][0]  # type: ignore[no-any-return]


def end_doubtful(body: str) -> Operation[None]:
    """It is finished."""
    yield Run("delete from doubtful where hash = $1", [(body,)])
