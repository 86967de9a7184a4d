"""Transactions beside the path: receipts, opt-outs, cancelling, the outbox, jobs and retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway import killpoints
from gateway.abuse import fingerprint
from gateway.acts import Deed, Owed
from gateway.decide import Ended
from gateway.ids import new_id
from gateway.lines import line_apart, line_of
from gateway.message import LISTENED, AttemptState, MessageState, Person, addresses, instant
from gateway.outcome import amended, state_of
from gateway.store import rows
from gateway.store.acts import note, owners
from gateway.store.devices import dropped
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import is_open, lock
from gateway.store.late import watch
from gateway.store.line import NOW, WAKE, move_up
from gateway.store.reading import states
from gateway.store.schema import BEHIND, PLACE, RULED
from gateway.store.webhooks import QUEUE
from gateway.store.writes import CONTACT, PUBLISH, SUPPRESS, Writes, contact_rows, event_row
from gateway.whereabouts import whereabouts
from providers import Act, Agent, ReceiptStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from gateway.acts import Noted
    from gateway.config import Policy
    from gateway.decide import Judge
    from gateway.message import Attempt, Message, OptOut
    from providers import Receipt

_MICROSECOND = 1e-6


def receipt(receipts: Sequence[Receipt], judge: Judge) -> Operation[tuple[list[bool | None], list[Noted]]]:
    """Amend attempts by what vendors report.

    Returns whether each changed something, None for each of no attempt that we know, and who has left by that.

    Evidence settles what was unknown, gives back the place of what did not arrive, and never moves an attempt back. It
    holds for all that the vendor takes for the same message. Of a message that is closed it changes nothing.
    """
    changed: list[bool | None] = []
    wanted = [news.attempt for news in receipts]
    people = dict((yield Fetch("select id, person from attempts where id = any($1)", (wanted,))))
    profiles = yield from lock(people.values())
    dead = []
    for news in receipts:
        if (person := people.get(news.attempt)) is None:
            changed.append(None)
            continue
        changed.append(False)
        attempt = rows.attempt((yield Fetch(f"select {rows.ATTEMPT} from attempts where id = $1", (news.attempt,)))[0])
        state = amended(attempt.state, news.status)
        if state is None:
            continue
        now: int = yield Now()
        message = rows.message(
            (yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (attempt.message,)))[0]
        )
        if news.status is ReceiptStatus.UNREACHABLE:
            yield from _suppress(message, profiles[person], attempt, f"receipt:{news.code or news.raw_status}", now)
            dead.append((message, attempt))
        if instant(now) >= message.expires_at + LISTENED:
            continue
        changed[-1] = True
        # What the vendor has, or what nobody could tell, is settled by this: it must not be sent again. Where that has
        # been done already, it will tell.
        over = state is not AttemptState.UNDELIVERED or (
            (yield from _in_doubt(attempt)) and not (yield from _sent_again(attempt))
        )
        yield from _amend(attempt, state, news, now)
        if attempt.state in _GAVE_BACK and state is not AttemptState.UNDELIVERED:  # it has reached the person after all
            where = whereabouts(message.body, rows.profile(profiles[person]), None, judge.policy)
            yield Run(f"{CONTACT} on conflict do nothing", contact_rows(attempt, message, where.calendar.key, judge))
        settled: list[tuple[int, int]] = []
        if over:
            settled = yield Fetch("delete from due where message = $1 returning line, lease_until", (message.id,))
            yield Run("delete from unknowns where message = $1", [(message.id,)])
        for _, leased_until in settled:
            yield from watch(message, leased_until)
        known = MessageState(_STATES[state])
        # Of an earlier attempt worse may be told than another has come to.
        if known in judge.events and (
            state is AttemptState.DELIVERED or (yield from states([message.id]))[message.id] is known
        ):
            yield Run(
                PUBLISH,
                [event_row(message, known, f"receipt:{news.raw_status}", attempt, instant(now), {})],
            )
        yield from move_up([(person, line, now) for line, _ in settled if line], {person}, now)
    noted = (yield from dropped(dead, profiles, judge, (yield Now()))) if dead else []
    killpoints.reached("receipt.before_commit")
    return changed, noted


def _in_doubt(attempt: Attempt) -> Operation[bool]:
    """Whether the attempt, or one that the vendor takes for it, may have been sent or is under way."""
    found = yield Fetch(
        "select 1 from attempts where message = $1 and (id = $2 or id = $3 or repeats = $3)"
        " and state in ('intent', 'unknown')",
        (attempt.message, attempt.id, attempt.repeats or attempt.id),
    )
    return bool(found)


def _sent_again(attempt: Attempt) -> Operation[bool]:
    """Whether an attempt that the vendor does not take for this one is under way."""
    found = yield Fetch(
        "select 1 from attempts where message = $1 and id <> $2 and coalesce(repeats, id) <> $2 and state = 'intent'",
        (attempt.message, attempt.repeats or attempt.id),
    )
    return bool(found)


def _amend(attempt: Attempt, state: AttemptState, news: Receipt, now: int) -> Operation[None]:
    """Record the news of an attempt, and of those that the vendor takes for it."""
    place = attempt.repeats or attempt.id
    error = f"receipt:{news.code}" if news.code else None
    yield Run(
        "update attempts set state = $3, reference = $4, error = coalesce($5, error),"
        " ended_at = coalesce(ended_at, $6) where message = $1 and (id = $2"
        " or ((id = $7 or repeats = $7) and state in ('unknown', 'accepted', 'undelivered')))",
        [(attempt.message, attempt.id, state, news.reference, error, now, place)],
    )
    if state is AttemptState.UNDELIVERED:
        yield Run("delete from contacts where attempt = $1", [(place,)])


def _suppress(message: Message, profile: str, attempt: Attempt, reason: str, now: int) -> Operation[None]:
    """Never use the attempt's address again; what else waits to go there may go elsewhere.

    It is looked for where the message found it, for attempts keep none.
    """
    person = Person(message.person, rows.profile(profile))
    yield Run(
        SUPPRESS,
        [
            (fingerprint(address.value), address.channel, reason, now)
            for address in addresses(message, person, attempt.channel)
            if fingerprint(address.value) == attempt.address
        ],
    )
    yield Run(WAKE, [(message.person, now)])


_GAVE_BACK = (AttemptState.NOT_SENT, AttemptState.REJECTED, AttemptState.UNREACHABLE, AttemptState.UNDELIVERED)
_STATES = {
    AttemptState.ACCEPTED: MessageState.SENT,
    AttemptState.DELIVERED: MessageState.DELIVERED,
    AttemptState.UNDELIVERED: MessageState.UNDELIVERED,
}


def opt_out(
    person: str, optout: OptOut, via: str, judge: Judge, attempt: str | None = None
) -> Operation[list[Noted] | None]:
    """Record a person's no; it holds for every intent committed after this. None: nobody knows the person.

    Args:
        via: how it was said.
        judge: the one in force.
        attempt: what it was said to, where that is known.

    Returns:
        What was remembered of it: nothing, where it had been said before.
    """
    if not (yield from lock([person])):
        return None
    now: int = yield Now()
    said_before = yield Fetch(_SAID_BEFORE, (person, "", *_said(optout)))
    yield Run(OPT_OUT, [(person, "", *_said(optout), via, now)])
    yield Run(WAKE, [(person, now)])
    if said_before:
        return []
    owed = Owed(person)
    if attempt:
        owed = (yield from owners([attempt])).get(attempt, owed)
    return (yield from note([(_no(via, "person", optout), owed)], judge, now))


def opt_out_address(
    address: str, optout: OptOut, via: str, judge: Judge, attempt: str | None = None
) -> Operation[list[Noted]]:
    """Record a no that was said by an address, whoever it belongs to; it holds for decisions made after this.

    It is remembered of everybody who was contacted there lately, and holds for what of theirs is committed after this;
    what of theirs waits for that address is decided anew.

    Args:
        attempt: what it was said to, where that is known.
    """
    print_ = fingerprint(address)
    found = yield from _contacted_at(print_)
    owed = yield from owners([*(last for _, last in found), *([attempt] if attempt else [])])
    by_person = {person: owed.get(last, Owed(person)) for person, last in found}
    if attempt and (named := owed.get(attempt)):
        by_person[named.person] = named
    yield from lock(by_person)
    now: int = yield Now()
    said_before = yield Fetch(_SAID_BEFORE, ("", print_, *_said(optout)))
    yield Run(OPT_OUT, [("", print_, *_said(optout), via, now)])
    yield Run(WAKE, [(person, now) for person in sorted(by_person)])
    if said_before:
        return []
    told = [(_no(via, "address", optout), by_person[person]) for person in sorted(by_person)]
    return (yield from note(told, judge, now))


def _no(via: str, by: str, optout: OptOut) -> Deed:
    no = {"by": by, **optout.model_dump(mode="json", exclude_none=True)}
    return Deed(Act.OPTED_OUT, Agent.HUMAN, via, new_id(), no=no)


_SAID_BEFORE = (
    "select 1 from optouts where person = $1 and address = $2 and channel = $3 and category = $4 and topic = $5"
)
_LATELY = 90 * 24 * 3600 * 1_000_000
"""Microseconds within which whoever was contacted at an address may be the one who says no there."""


def _contacted_at(print_: str) -> Operation[list[tuple[str, str]]]:
    """Who was contacted lately at an address, by its fingerprint, in their order; each with the last attempt there."""
    ask = "select person, max(id) from attempts where address = $1 and begun_at > $2 group by person order by person"
    found = yield Fetch(ask, (print_, (yield Now()) - _LATELY))
    return [(person, last) for person, last in found]


def opt_in(person: str, address: str | None, optout: OptOut, via: Collection[str] = ()) -> Operation[bool]:
    """Take back exactly this no, of the person or of the address; False: it was never said.

    What waits for another channel meanwhile is decided anew: the person's, or of whoever was contacted there lately.

    Args:
        via: only where it was said in one of these ways; none: however it was said.
    """
    print_ = fingerprint(address) if address else ""
    people = [person] if person else [known for known, _ in (yield from _contacted_at(print_))]
    yield from lock(people)
    gone = yield Fetch(
        "delete from optouts where person = $1 and address = $2 and channel = $3 and category = $4 and topic = $5"
        f"{' and via = any($6)' if via else ''} returning 1",
        (person, print_, *_said(optout), *([sorted(via)] if via else [])),
    )
    if gone:
        now: int = yield Now()
        yield Run(WAKE, [(known, now) for known in people])
    return bool(gone)


def _said(optout: OptOut) -> tuple[str, str, str]:
    return optout.channel or "", optout.category or "", optout.topic or ""


REPLY = "reply"
"""How a no is said by a text. It can be taken back by a text, so a no that was said in another way stays that."""
OPT_OUT = (
    "insert into optouts (person, address, channel, category, topic, via, opted_out_at)"
    " values ($1, $2, $3, $4, $5, $6, $7) on conflict (person, address, channel, category, topic)"
    f" do update set via = case when excluded.via = '{REPLY}' then optouts.via else excluded.via end"
)


def last_open_deadline(person: str) -> Operation[float]:
    """Seconds until every intent that is open for a person has settled or passed its deadline; 0: none is open."""
    now: int = yield Now()
    found = yield Fetch(
        "select max(deadline) from attempts where person = $1 and state = 'intent' and deadline > $2 and message in"
        " (select message from due where person = $1"
        " union select message from unknowns where since > $2)",  # of a message that is settled: see ``late.watch``
        (person, now),
    )
    return max(0, (found[0][0] or now) - now) * _MICROSECOND


def last_open_deadline_at(address: str) -> Operation[float]:
    """The same of what is under way to an address, whoever it is for."""
    now: int = yield Now()
    found = yield Fetch(
        "select max(deadline) from attempts where address = $1 and state = 'intent' and deadline > $2",
        (fingerprint(address), now),
    )
    return max(0, (found[0][0] or now) - now) * _MICROSECOND


def cancel(message: str, judge: Judge) -> Operation[MessageState | None]:
    """Let a message that is not under way go no further; the state after it. None: there is no such message.

    What may have been sent is unknown, and cannot be called cancelled; but it is not sent again.
    """
    found = yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (message,))
    if not found:
        return None
    cancelled = rows.message(found[0])
    yield from lock([cancelled.person])
    attempts = [
        rows.attempt(row)
        for row in (yield Fetch(f"select {rows.ATTEMPT} from attempts where message = $1 order by number", (message,)))
    ]
    waiting = yield Fetch("select line from due where message = $1", (message,))
    if any(map(is_open, attempts)) or not waiting:
        return (yield from states([message]))[message]
    now: int = yield Now()
    state = state_of(due=False, attempts=attempts, ended=MessageState.CANCELLED)
    writes = Writes(instant(now), judge)
    writes.ended(cancelled, waiting[0][0], Ended(state, "cancelled"), None)
    yield from writes.run()
    return state


def unpublished(limit: int) -> Operation[list[tuple[int, str, str, bytes]]]:
    """The oldest events: sequence number, id, routing key, JSON. The number rises with every event of a message."""
    found = yield Fetch("select id, event, routing_key, body from outbox order by id limit $1", (limit,))
    return [
        (number, event, key, b'{"sequence":%d,"type":"%b",' % (number, key.encode()) + body[1:].encode())
        for number, event, key, body in found
    ]


def published(numbers: Sequence[int], queue: Sequence[tuple[str, int, str, str]]) -> Operation[None]:
    """Forget events that have been published, and queue them for the webhooks that ask for them.

    Args:
        numbers: of the events.
        queue: for each webhook and event its name, and the event's number, id and JSON. What another worker has moved
            on meanwhile is not queued again.
    """
    gone = yield Fetch("delete from outbox where id = any($1) returning id", (list(numbers),))
    if queue:
        now: int = yield Now()
        moved = {number for (number,) in gone}
        yield Run(QUEUE, [(*row, now, now) for row in queue if row[1] in moved])


def backlog() -> Operation[tuple[int, int]]:
    """How many messages are not settled, and how many events are not published."""
    due = yield Fetch("select count(*) from due")
    events = yield Fetch("select count(*) from outbox")
    return due[0][0], events[0][0]


def take_job(name: str, worker: str, term: timedelta) -> Operation[bool]:
    """Become, or stay, the one worker that does a job for all; False where another is."""
    now: int = yield Now()
    until = now + int(term.total_seconds() / _MICROSECOND)
    taken = yield Fetch(
        "insert into jobs (name, worker, lease_until) values ($1, $2, $3)"
        " on conflict (name) do update set worker = excluded.worker, lease_until = excluded.lease_until"
        " where jobs.worker = excluded.worker or jobs.lease_until < $4 returning worker",
        (name, worker, until, now),
    )
    return bool(taken)


def drop_job(name: str, worker: str) -> Operation[None]:
    """Let another worker have the job at once."""
    yield Run("delete from jobs where name = $1 and worker = $2", [(name, worker)])


def prune(messages: str, contacts: str, expired: int, limit: int) -> Operation[int]:
    """Delete a piece of what is older than retention asks for; returns how many rows of its own went.

    Messages that are not settled, or might still be reported on, stay, whatever their age.

    Args:
        messages: the oldest message id that stays; what belongs to older ones goes with them.
        contacts: the oldest attempt id whose contact stays; older acts go too.
        expired: microseconds; messages that expired later stay too.
        limit: rows of each kind.
    """
    gone = yield Fetch(
        "delete from messages where id in (select m.id from messages m where m.id < $1 and m.expires_at < $3"
        " and not exists (select 1 from due d where d.message = m.id) order by m.id limit $2)"
        " returning id, request, source",
        (messages, limit, expired),
    )
    yield Run("delete from requests where id = $1 and source = $2", [(request, source) for _, request, source in gone])
    ids = [(message,) for message, _, _ in gone]
    made = yield Fetch(
        "delete from attempts where message = any($1) returning id", ([message for message, _, _ in gone],)
    )
    yield Run("delete from decisions where message = $1", ids)
    yield Run("delete from links where attempt = $1", [(attempt,) for (attempt,) in made])
    places = yield Fetch(
        "delete from contacts where attempt in"
        " (select attempt from contacts where attempt < $1 order by attempt limit $2) returning 1",
        (contacts, limit),
    )
    yield Fetch(
        "delete from addresses where address in (select a.address from addresses a where not exists"
        " (select 1 from contacts c where c.address = a.address) order by a.used_at limit $1 for update skip locked)"
        " and used_at < $2 returning 1",
        (limit, expired),
    )
    yield Run("delete from doubtful where begun_at < $1", [(expired,)])
    done = yield Fetch(
        "delete from acts where id in (select id from acts where id < $1 order by id limit $2) returning 1",
        (contacts, limit),
    )
    heard = yield Fetch(
        "delete from replies where id in (select id from replies where id < $1 order by id limit $2) returning 1",
        (contacts, limit),
    )
    parked = yield Fetch(
        "delete from parked where id in (select id from parked where id < $1 order by id limit $2) returning 1",
        (messages, limit),
    )
    return len(gone) + len(places) + len(done) + len(heard) + len(parked)


def activate(policy: Policy, worker: str) -> Operation[int]:
    """The number of the policy that comes into force in a process: its own, if it was in force before."""
    now: int = yield Now()
    yield Run(
        "insert into policies (hash, activated_at) values ($1, $2) on conflict (hash) do nothing", [(policy.hash, now)]
    )
    found = yield Fetch("select number from policies where hash = $1", (policy.hash,))
    number: int = found[0][0]
    yield Run("insert into activations (policy, worker, activated_at) values ($1, $2, $3)", [(number, worker, now)])
    return number


def sweep(judge: Judge, after: str, limit: int) -> Operation[tuple[str | None, int]]:
    """Let messages that another policy made to wait be decided by this one.

    They are lined up anew, for the line depends on what rules look at.

    Args:
        judge: knows the policy in force.
        after: the id of the message to go on behind; empty: from the start.
        limit: messages to look at.

    Returns:
        Where it came to, None at the end; and how many will be decided now rather than at their instant.
    """
    page = yield Fetch(
        "select message, person from due where message > $1 and policy <> $2 order by message limit $3",
        (after, judge.number, limit),
    )
    if not page:
        return None, 0
    yield from lock({person for _, person in page})
    found = yield Fetch(  # as they are under the locks: some may have been decided since, or are settled
        f"select d.line, d.held, d.due_at, d.lease_until, {_OF_MESSAGE} from due d join messages m on m.id = d.message"
        " where d.message = any($1) and d.policy <> $2 order by d.message",
        ([message for message, _ in page], judge.number),
    )
    now: int = yield Now()
    labels = judge.policy.labels
    lined, woken, left = [], [], []
    for line, held, due_at, lease_until, *columns in found:
        message = rows.message(columns)
        category = judge.policy.categories.get(message.category)
        lines_up = line_of(message, category, labels) if category and line != line_apart(message) else line
        lined.append((message.id, lines_up, judge.number))
        if lines_up != line:
            left.append((message.person, line, now))
        if due_at > now >= lease_until and (held in (PLACE, RULED) or (held == BEHIND and lines_up != line)):
            woken.append((message.id, now))
    yield Run("update due set line = $2, policy = $3 where message = $1", lined)
    yield Run(f"update due set due_at = {NOW.format('$2')}, held = 0 where message = $1", woken)
    yield from move_up(left, (), now)
    return page[-1][0], len(woken)


_OF_MESSAGE = ", ".join(f"m.{column}" for column in rows.MESSAGE.split(", "))


def ping() -> Operation[None]:
    """Ask the database anything."""
    yield Fetch("select 1")


def parked(limit: int) -> Operation[list[dict[str, object]]]:
    """The newest parked input, with its faults, without its body."""
    found = yield Fetch(
        "select id, parked_at, via, source, request, reason, faults from parked order by id desc limit $1", (limit,)
    )
    return [
        {
            "id": row[0],
            "parked_at": instant(row[1]),
            "via": row[2],
            "source": row[3],
            "request": row[4],
            "reason": row[5],
            "faults": orjson.loads(row[6]),
        }
        for row in found
    ]
