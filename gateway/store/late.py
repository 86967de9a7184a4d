"""What is made of outcomes that come too late: of attempts whose lease is another's, or whose message has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.decide import Ended
from gateway.message import LISTENED, AttemptState, MessageState, microseconds
from gateway.store.engine import Fetch, Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.message import Message
    from gateway.store.leases import Settlement
    from gateway.store.line import Place
    from gateway.store.writes import Writes


def holds(settlement: Settlement, place: Place | None) -> bool:
    """Whether who settles may go on with the message: it has not ended, and its lease is still theirs."""
    return place is not None and place.fence == settlement.claimed.lease.fence


def amended(settlements: Sequence[Settlement], places: Mapping[str, Place]) -> Operation[dict[str, AttemptState]]:
    """Of those that come too late to go on, what the attempts are taken for by now."""
    late = [s.claimed.attempt.id for s in settlements if not holds(s, places.get(s.claimed.attempt.message))]
    if not late:
        return {}
    found = yield Fetch("select id, state from attempts where id = any($1)", (late,))
    return {attempt: AttemptState(state) for attempt, state in found}


def tell(
    settlements: Sequence[Settlement],
    amended: Mapping[str, AttemptState],
    places: Mapping[str, Place],
    writes: Writes,
) -> Operation[None]:
    """Say of messages that had ended as unknown that they certainly were not sent."""
    failed = {
        s.claimed.attempt.message: s
        for s in settlements
        if amended.get(s.claimed.attempt.id) is AttemptState.UNKNOWN
        and s.claimed.attempt.message not in places
        and s.outcome.state not in (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
    }
    if not failed:
        return
    learnt = [s.claimed.attempt.id for s in settlements if s.outcome.state is not AttemptState.UNKNOWN]
    ended = yield Fetch(  # all but parked ones, and those some other attempt of which may have arrived, or has
        "select distinct message from attempts a where message = any($1) and not exists (select 1 from attempts b"
        " where b.message = a.message and not (b.id = any($2)) and b.state in ('intent', 'unknown', 'accepted',"
        " 'delivered', 'undelivered')) and not exists (select 1 from decisions d where d.message = a.message"
        " and d.state = 'parked')",
        (list(failed), learnt),
    )
    for (message,) in ended:
        claimed, outcome = failed[message].claimed, failed[message].outcome
        end = Ended(MessageState.FAILED, outcome.error or "unknown")
        writes.ended(claimed.lease.message, 0, end, claimed.attempt)


def shared(attempts: Iterable[str]) -> Operation[frozenset[str]]:
    """Of attempts, those whose place another holds too, by the same key, that may have arrived."""
    found = yield Fetch(
        "select a.id from attempts a where a.id = any($1) and exists (select 1 from attempts b"
        " where b.message = a.message and b.id <> a.id and coalesce(b.repeats, b.id) = coalesce(a.repeats, a.id)"
        " and b.state in ('intent', 'unknown', 'accepted', 'delivered'))",
        (list(attempts),),
    )
    return frozenset(id_ for (id_,) in found)


def leave_open(settlements: Iterable[Settlement], places: Mapping[str, Place]) -> Operation[None]:
    """Where one that came too late has ended its message, have the sweeper look at what is still under way for it."""
    for settlement in settlements:
        message = settlement.claimed.lease.message
        if settlement.outcome.state is AttemptState.ACCEPTED and message.id in places:
            yield from watch(message, places[message.id].lease_until)


def watch(message: Message, look_at: int) -> Operation[None]:
    """Have the sweeper look at the attempts of a settled message that are under way, when their lease is over.

    The worker of each may have died, and no due row is left by which another would find it.
    """
    yield Fetch(
        "insert into unknowns (message, attempt, provider, since, look_at, closes_at)"
        " select message, id, provider, deadline, cast($2 as bigint), cast($3 as bigint) from attempts"
        " where message = $1 and state = 'intent' on conflict do nothing returning 1",
        (message.id, look_at, microseconds(message.expires_at + LISTENED)),
    )
