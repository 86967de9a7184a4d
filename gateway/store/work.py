"""Transactions of the worker: lease what is due, commit the intent, record the outcome.

Each locks the rows of the persons it is about, in their order, before it reads what it decides by; so one person's
decisions are made one after another, whoever makes them, and two batches never wait for each other in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from gateway import killpoints
from gateway.decide import Attempting, Behind, Deferred, Ended
from gateway.ids import new_id
from gateway.message import AttemptState, MessageState, Refusal, instant, microseconds
from gateway.outcome import BUG, Outcome
from gateway.store import devices, known, late, line, rows
from gateway.store.engine import TURN, Breath, Fetch, Now, Operation, Run
from gateway.store.leases import Lease, Lost, Next, Settlement
from gateway.store.line import Place
from gateway.store.schema import FRESH
from gateway.store.writes import Writes
from ratelimit import Ruling

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.acts import Noted
    from gateway.decide import Facts, Judge, Step
    from gateway.message import Message, Priority
    from providers import Channel

_BUGS = 5
"""Decisions of one message that may break before it is parked."""
_UNSETTLED = (AttemptState.INTENT, AttemptState.UNKNOWN)
_UNHEARD = Outcome(AttemptState.NOT_SENT, error="store")
"""Of an attempt that was opened by a commit nobody heard of: so nobody was called for it."""
_GIVEN_BACK = "(lease_until = 0 or holder = $7)"
"""Of a due row: nobody who may have died holds it."""


def lease(
    wanted: Sequence[tuple[Priority, Channel, int]],
    until: timedelta,
    free: Mapping[Channel, int],
    recent: Mapping[str, Message],
    holder: int,
    *,
    others: bool = True,
) -> Operation[tuple[list[Lease], list[tuple[Priority, Channel]]]]:
    """Take due messages, per priority and channel as many as there is room for, those named first first.

    A message whose lease ran out in the hands of another worker is not taken but made a suspect (see ``ward``):
    whoever lives gives back what it leaves.

    Args:
        free: places of each channel, shared by its priorities; none named: as many as are asked for.
        recent: messages that need not be read again.
        holder: the worker that takes them.
        others: whether what others let run out is looked at. Not before they have had the time to give it back.

    Returns:
        The leases, and the pairs of which there may be more due now.
    """
    now: int = yield Now()
    fences: dict[str, int] = {}
    more = []
    left = dict(free)
    ran_out = now if others else 0
    for priority, channel, asked in wanted:
        room = min(asked, left.get(channel, asked))
        if room <= 0:
            more.append((priority, channel))
            continue
        taken = yield Fetch(
            "with ready as ("
            " select message from due"
            " where priority = $1 and channel = $2 and due_at <= $3 and lease_until <= $6 and suspect = 0"
            " order by due_at limit $4"
            " for update skip locked)"
            f" update due set lease_until = case when {_GIVEN_BACK} then cast($5 as bigint) else 0 end,"
            f" suspect = case when {_GIVEN_BACK} then 0 else {FRESH} end, fence = fence + 1, holder = $7"
            " where message in (select message from ready) returning message, fence, suspect",
            (int(priority), channel, now, room, now + until // timedelta(microseconds=1), ran_out, holder),
        )
        before = len(fences)
        fences.update((message, fence) for message, fence, suspect in taken if not suspect)
        if channel in left:
            left[channel] -= len(fences) - before
        if len(taken) == room:
            more.append((priority, channel))
    read = {message: recent[message] for message in fences if message in recent}
    if unread := [message for message in fences if message not in read]:
        found = yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", (unread,))
        read |= {row[0]: rows.message(row) for row in found}
    # In the order in which they were taken: what is urgent is begun first.
    return [Lease(read[message], fence) for message, fence in fences.items() if message in read], more


def claim(leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> Operation[list[Next]]:
    """Decide each leased message under its person's lock; where it may go, commit the intent and its place.

    Args:
        ids: of the attempts that may come of it, one a lease. Whoever cannot learn whether this was committed knows by
            them what to ``disown``.
    """
    messages = [lease.message for lease in leases]
    profiles = yield from known.lock(message.person for message in messages)
    yield from known.lock_addresses(messages, profiles, judge)
    now = instant((yield Now()))
    writes = Writes(now, judge)
    collapsed = yield from _collapse(leases, profiles, judge, writes)
    places = yield from line.places([message.id for message in messages], now)
    read = yield from known.read(
        [message for message in messages if message.id in places], profiles, places, judge, now
    )
    answers: list[Next] = [Lost()] * len(leases)  # by place: two leases of one message may meet in a batch
    rivals: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for number, index in enumerate(sorted(range(len(leases)), key=lambda index: line.rank(messages[index])), 1):
        if number % TURN == 0:
            yield Breath()
        lease, message = leases[index], messages[index]
        if message.id in collapsed:
            answers[index] = collapsed[message.id]
            continue
        place = places.get(message.id)
        if place is None:
            continue
        if place.fence != lease.fence or place.lease_until < microseconds(now):
            rivals[message.person].append((message.id, place.line))
            continue
        facts = read.facts(message, place.tries)
        step = None
        if any(map(known.is_open, facts.attempts)):
            facts = _recovered(facts, writes)
            step = judge.after(facts, known.CRASHED)
        behind = place.behind or _behind(rivals[message.person], place.line)
        if step is None and behind and now < message.expires_at:
            answers[index] = writes.behind(message, Behind(*behind))
            continue
        if step is None:
            step = _decided(facts, judge)
        answers[index] = read.seen(writes.step(lease, place, facts, step, ids[index], frozenset()))
        if isinstance(step, Attempting):
            rivals[message.person].append((message.id, place.line))
    yield from writes.run()
    killpoints.reached("claim.before_commit")
    return answers


def _behind(rivals: Sequence[tuple[str, int]], line: int) -> tuple[str, bool] | None:
    """The first of those of a batch that go before, or may, and that wait in another line."""
    return next(((rival, False) for rival, of in rivals if line and of not in (0, line)), None)


def _collapse(
    leases: Sequence[Lease], profiles: Mapping[str, str], judge: Judge, writes: Writes
) -> Operation[dict[str, Ended]]:
    """Of each line of these that is to collapse, end what is older than the newest, unless it may have been sent.

    What cannot reach the person, who may have said no to its topic alone, takes nobody's place.
    """
    collapsing = [lease.message.id for lease in leases if judge.collapses(lease.message)]
    if not collapsing:
        return {}
    found = yield Fetch(
        "select d.message, d.person, d.line, d.attempts > 0 and exists (select 1 from attempts a"
        " where a.message = d.message and a.state in ('intent', 'unknown', 'accepted', 'delivered'))"
        " from due d join (select distinct person, line from due where message = any($1) and line <> 0) l"
        " on d.person = l.person and d.line = l.line where d.starts_at <= $2 and d.expires_at > $2",
        (collapsing, writes.us),
    )
    if len(found) == len({(person, number) for _, person, number, _ in found}):
        return {}
    messages = {lease.message.id: lease.message for lease in leases}
    if unread := sorted({message for message, *_ in found}.difference(messages)):
        for row in (yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", (unread,))):
            messages[row[0]] = rows.message(row)
    people = yield from known.read_people([messages[message] for message, *_ in found], profiles)
    newest: dict[tuple[str, int], str] = {}
    for message, person, number, sent in sorted(found):
        if sent or judge.reaches(messages[message], people[person], writes.now):
            newest[person, number] = message
    old = {
        message: number
        for message, person, number, sent in found
        if message < newest.get((person, number), "") and not sent
    }
    yield Run("delete from due where message = $1", [(message,) for message in sorted(old)])
    return {
        message: writes.ended(messages[message], number, _collapsed(newest[messages[message].person, number]), None)
        for message, number in old.items()
    }


def _collapsed(newest: str) -> Ended:
    why = Ruling(Refusal.COLLAPSED, permits=False, next=None, why=f"message {newest} is newer")
    return Ended(MessageState.REFUSED, Refusal.COLLAPSED, (why,))


def settle(settlements: Sequence[Settlement], judge: Judge) -> Operation[tuple[list[Next], list[Noted]]]:
    """Record what became of attempts, and what comes next for their messages; also who has left by that.

    What was learnt of an attempt is evidence and is recorded even if the lease was lost; what to do next is decided
    only by who holds the lease.
    """
    messages = [s.claimed.lease.message for s in settlements]
    profiles = yield from known.lock(message.person for message in messages)
    # What was accepted is not decided anew, so no address need be held for it.
    again = (s.claimed.lease.message for s in settlements if s.outcome.state is not AttemptState.ACCEPTED)
    yield from known.lock_addresses(again, profiles, judge)
    now = instant((yield Now()))
    found = yield Fetch(
        "select message, fence, lease_until, tries, attempts, said, line from due where message = any($1)",
        ([message.id for message in messages],),
    )
    places = {row[0]: Place(*row[1:]) for row in found}
    writes = Writes(now, judge)
    amended = yield from late.amended(settlements, places)
    answers: list[Next] = [Lost()] * len(settlements)
    undecided = []
    # An earlier attempt of a message may come in the same batch, late, and have been accepted.
    sent = {s.claimed.attempt.message for s in settlements if s.outcome.state is AttemptState.ACCEPTED}
    for index, settlement in enumerate(settlements):
        if index % TURN == TURN - 1:
            yield Breath()
        place = places.get(settlement.claimed.attempt.message)
        answers[index] = _recorded(settlement, place, amended.get(settlement.claimed.attempt.id), writes)
        if settlement.claimed.attempt.message not in sent and late.holds(settlement, place):
            undecided.append((index, settlement))
    if undecided:
        read = yield from known.read([s.claimed.lease.message for _, s in undecided], profiles, places, judge, now)
        shared = (yield from late.shared(amended)) if amended else frozenset()
        for settlement in settlements:
            attempt = settlement.claimed.attempt
            if amended.get(attempt.id, AttemptState.INTENT) in _UNSETTLED:
                read.settle(settlement.claimed.lease.message, attempt, settlement.outcome, shared=attempt.id in shared)
            if settlement.outcome.state is AttemptState.UNREACHABLE:
                address = settlement.claimed.step.address
                read.suppress(address.channel, address.value)
        for _, settlement in undecided:
            message = settlement.claimed.lease.message
            for attempt in read.open(message):
                writes.outcome(message, attempt, _UNHEARD)
                read.settle(message, attempt, _UNHEARD)
        for number, (index, settlement) in enumerate(undecided, 1):
            if number % TURN == 0:
                yield Breath()
            claimed, outcome = settlement.claimed, settlement.outcome
            message = claimed.lease.message
            place = places[message.id]
            facts = read.facts(message, place.tries)
            tried = claimed.tried | ({claimed.step.provider} if outcome.state is AttemptState.NOT_SENT else set())
            step = judge.after(facts, outcome) or _decided(facts, judge, tried)
            answers[index] = read.seen(writes.step(claimed.lease, place, facts, step, new_id(), tried))
    yield from late.tell(settlements, amended, places, writes)
    yield from writes.run()
    yield from late.leave_open([s for s in settlements if s.claimed.attempt.id in amended], places)
    dead = (s.claimed for s in settlements if s.outcome.state is AttemptState.UNREACHABLE)
    noted = yield from devices.dropped(((one.lease.message, one.attempt) for one in dead), profiles, judge, writes.us)
    killpoints.reached("settle.before_commit")
    return answers, noted


def _recorded(settlement: Settlement, place: Place | None, taken_for: AttemptState | None, writes: Writes) -> Next:
    """Record what became of an attempt; what comes next is only clear where it was accepted.

    Args:
        settlement: says so.
        place: of its message; None: that has ended.
        taken_for: of one that comes too late, what it is taken for by now.
        writes: where to.
    """
    claimed, outcome = settlement.claimed, settlement.outcome
    message, attempt, address = claimed.lease.message, claimed.attempt, claimed.step.address
    writes.outcome(message, attempt, outcome)
    if outcome.state is AttemptState.UNREACHABLE:
        writes.suppress(message, address.channel, address.value, outcome.error or "")
    if taken_for and outcome.state is not AttemptState.UNKNOWN:
        writes.late(attempt)
    if outcome.state is not AttemptState.ACCEPTED or not (place or taken_for is AttemptState.UNKNOWN):
        return Lost()
    if taken_for:
        writes.accepted(attempt, outcome)
    # Given up as unknown meanwhile: others have been told so, and are told better.
    sent = writes.ended(message, place.line if place else 0, Ended(MessageState.SENT, "accepted"), attempt)
    return sent if place else Lost()


def disown(attempts: Mapping[str, str]) -> Operation[None]:
    """Settle intents whose commit failed towards us, and whose provider was therefore never called.

    Args:
        attempts: their ids, each with its person, whose row is locked first: a commit that is still under way is so
            waited for.
    """
    yield from known.lock(attempts.values())
    found = yield Fetch("select id, message from attempts where id = any($1) and state = 'intent'", (list(attempts),))
    now: int = yield Now()
    yield Run(
        "update attempts set state = 'not_sent', ended_at = $2, error = 'store' where id = $1",
        [(attempt, now) for attempt, _ in found],
    )
    yield Run("delete from contacts where attempt = $1", [(attempt,) for attempt, _ in found])
    yield Run(
        "update due set lease_until = 0, due_at = $2 where message = $1", [(message, now) for _, message in found]
    )
    yield from line.move_up((), {attempts[attempt] for attempt, _ in found}, now)


def _decided(facts: Facts, judge: Judge, tried: Collection[str] = ()) -> Step:
    """A decision that breaks is this message's trouble alone: it waits, and is parked if it goes on."""
    try:
        return judge.next_step(facts, tried)
    except Exception:  # noqa: BLE001 - whatever the bug is, the rest of the batch goes on
        if facts.tries + 1 >= _BUGS:
            return Ended(MessageState.PARKED, BUG)
        return Deferred(facts.now + timedelta(minutes=1), BUG, burns=True)


def _recovered(facts: Facts, writes: Writes) -> Facts:
    """An intent without an outcome, whose lease ran out: its worker died, and the provider may have been called."""
    attempts = []
    for attempt in facts.attempts:
        if known.is_open(attempt):
            writes.outcome(facts.message, attempt, known.CRASHED)
            attempts.append(replace(attempt, state=known.CRASHED.state, error=known.CRASHED.error, ended_at=facts.now))
        else:
            attempts.append(attempt)
    return replace(facts, attempts=attempts)
