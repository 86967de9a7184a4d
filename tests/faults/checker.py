"""Was every promise kept? Answered from what was sent, the vendor's ledger and the store's rows, by nothing else.

Pure, and no code is shared with the gateway. The sets have the names of RabbitMQ's Jepsen test: *attempted* is what a
test sent, *acknowledged* that of it which it was told is kept, the *ledger* is what the vendor took, *recorded* what
the store holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True)
class Sent:
    """A request, as the test made it."""

    id: str
    person: str
    repeats: bool = False
    """Its category says to send it once more where nobody knows what became of it."""
    capped: bool = True
    """Its category is under the caps."""
    quiet: bool = True
    """Its category keeps quiet hours."""


@dataclass(frozen=True)
class Taken:
    """A line of the ledger: the vendor took a message."""

    request: str
    person: str
    attempt: str
    at: datetime
    local: datetime
    """The same instant on the person's clock."""


@dataclass(frozen=True)
class Attempt:
    """A row of the store."""

    id: str
    message: str
    state: str


@dataclass(frozen=True)
class Recorded:
    """What the store holds."""

    requests: Mapping[str, str]
    """Request → message."""
    attempts: Sequence[Attempt]
    open: Collection[str]
    """Messages that are not settled."""
    ended: Mapping[str, str]
    """Message → the last final state that was decided."""


@dataclass(frozen=True)
class Promise:
    """What the policy that the test wrote promises."""

    cap: int | None = None
    """At most so many to a person …"""
    per: timedelta = timedelta(hours=24)
    """… within this."""
    quiet: tuple[time, time] | None = None
    """From, to: on the person's clock."""
    stopped: Mapping[str, datetime] = field(default_factory=dict)
    """Person → when the opt-out was answered."""
    may_wait: bool = False
    """Whether a message may still be waiting, for a cap or for morning."""


@dataclass
class Verdict:
    """What was found. All lists but the last two must be empty."""

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    false_sent: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    cap_breach: list[str] = field(default_factory=list)
    hour_breach: list[str] = field(default_factory=list)
    after_stop: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Once more, as the category says, and the store says that an earlier attempt is unknown."""
    unknown: list[str] = field(default_factory=list)
    """Requests that ended as unknown."""


SENT = ("accepted", "delivered", "undelivered")
FINAL = ("expired", "refused", "failed", "cancelled", "parked")


def examine(
    attempted: Sequence[Sent],
    acknowledged: Collection[str],
    ledger: Sequence[Taken],
    recorded: Recorded,
    promise: Promise = Promise(),
) -> Verdict:
    """All findings."""
    verdict = Verdict(acknowledged=len(acknowledged))
    sent = {request.id: request for request in attempted}
    taken: dict[str, list[Taken]] = defaultdict(list)
    for entry in ledger:
        taken[entry.request].append(entry)
        if entry.request not in sent:
            verdict.unexpected.append(f"{entry}")
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in recorded.attempts:
        attempts[attempt.message].append(attempt)
    for id_ in acknowledged:
        if problem := _lost(id_, id_ in taken, recorded, attempts, may_wait=promise.may_wait):
            verdict.lost.append(problem)
    for id_, message in recorded.requests.items():
        states = {attempt.state for attempt in attempts[message]}
        if recorded.ended.get(message) == "unknown" and not states & set(SENT):
            verdict.unknown.append(id_)
    _count(verdict, sent, taken, recorded, attempts)
    refs = {entry.attempt for entry in ledger}
    messages = {recorded.requests[id_] for id_ in taken if id_ in recorded.requests}
    for attempt in recorded.attempts:
        # A vendor that knows the key again answers for an earlier attempt: its message is in the ledger once.
        if attempt.state in SENT and attempt.id not in refs and attempt.message not in messages:
            verdict.false_sent.append(f"{attempt}")
    _caps(verdict, sent, ledger, promise)
    for entry in ledger:
        request = sent.get(entry.request)
        if promise.quiet and (request is None or request.quiet) and _within(entry.local.time(), *promise.quiet):
            verdict.hour_breach.append(f"{entry}")
        if (stopped := promise.stopped.get(entry.person)) and entry.at > stopped:
            verdict.after_stop.append(f"{entry}, opted out at {stopped}")
    return verdict


def _lost(
    id_: str, in_ledger: bool, recorded: Recorded, attempts: Mapping[str, Sequence[Attempt]], *, may_wait: bool
) -> str:
    message = recorded.requests.get(id_)
    if message is None:
        return f"{id_} was acknowledged, and is not recorded"
    states = {attempt.state for attempt in attempts[message]}
    if message in recorded.open:
        return "" if may_wait and "intent" not in states else f"{id_} ({message}) is still open: {sorted(states)}"
    if "intent" in states:
        return f"{id_} ({message}) has an intent that nobody will settle"
    ended = recorded.ended.get(message)
    if states & set(SENT):
        return ""  # whether truly is asked elsewhere
    if ended is None:
        return f"{id_} ({message}) is in no state: {sorted(states)}"
    if ended == "unknown":
        # A late answer of the same worker may have told since that it was not sent.
        return "" if states & {"unknown", "not_sent"} else f"{id_} ({message}) is unknown without such an attempt"
    if in_ledger and "unknown" not in states:
        return f"{id_} ({message}) is in the ledger, and recorded as {ended}: {sorted(states)}"
    return "" if ended in FINAL else f"{id_} ({message}) is {ended}"


def _count(
    verdict: Verdict,
    sent: Mapping[str, Sent],
    taken: Mapping[str, Sequence[Taken]],
    recorded: Recorded,
    attempts: Mapping[str, Sequence[Attempt]],
) -> None:
    """Who was told twice."""
    for id_, entries in taken.items():
        if len(entries) < 2:
            continue
        request = sent.get(id_)
        states = Counter(attempt.state for attempt in attempts[recorded.requests.get(id_, "")])
        told = f"{id_} is {len(entries)} times in the ledger, its attempts {dict(states)}"
        if request and request.repeats and len(entries) == 2 and states["unknown"]:
            verdict.repeated.append(told)
        else:
            verdict.doubled.append(told)


def _caps(verdict: Verdict, sent: Mapping[str, Sent], ledger: Sequence[Taken], promise: Promise) -> None:
    if promise.cap is None:
        return
    by_person: dict[str, list[datetime]] = defaultdict(list)
    for entry in ledger:
        if (request := sent.get(entry.request)) is None or request.capped:
            by_person[entry.person].append(entry.at)
    for person, times in by_person.items():
        times.sort()
        for first, last in zip(times, times[promise.cap :], strict=False):
            if last - first < promise.per:
                verdict.cap_breach.append(f"{person}: more than {promise.cap} from {first} to {last}")
                break


def _within(at: time, begins: time, ends: time) -> bool:
    """Whether a wall clock shows a time of the span, which may run over midnight."""
    return begins <= at < ends if begins <= ends else at >= begins or at < ends
