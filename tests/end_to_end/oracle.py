"""Was every promise kept? Answered from the vendors' ledgers and the database, by code that shares nothing with ours.

The sets have the names of RabbitMQ's Jepsen test: what was attempted (the campaign), what the vendors' *ledger* holds,
and what is *recorded* in the store. A finding is a broken promise; there must be none.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import asyncpg

from tests.end_to_end.campaign import PHONES, QUIET_FROM, QUIET_TO, REPEATABLE, tag_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.end_to_end.campaign import Campaign, Request

EXEMPT_FROM_CAPS = frozenset({"one_time_code"})
"""They count for nobody either."""
EXEMPT_FROM_QUIET = frozenset({"one_time_code", "transactional"})
DAILY, PER_DAY = 4, timedelta(hours=24)
PUSH_A_WEEK = 2
PER_CAMPAIGN, CAMPAIGN_MONTH = 2, timedelta(days=30)
GAP = timedelta(seconds=1)
ROUNDING = timedelta(milliseconds=2)
"""The vendors write milliseconds, cut off."""
PROVIDERS = {"mail": "smtp", "text": "twilio", "voice": "twilio", "fcm": "fcm", "pushco": "http"}
"""Our names for providers → the vendors' names for themselves."""
DONE = frozenset({"accepted", "delivered", "undelivered"})
NOT_SENT = frozenset({"not_sent", "rejected", "unreachable"})
_ENDED = ("expired", "refused", "failed", "cancelled", "unknown", "parked")


@dataclass(frozen=True)
class Entry:
    """One message that a vendor took."""

    at: datetime
    vendor: str
    channel: str
    address: str
    attempt: str | None
    message: str | None
    """Ours, where this vendor is told."""
    reference: str
    tag: int | None
    """Which request it is, by its content or address."""

    @property
    def us(self) -> int:
        return int(self.at.timestamp() * 1_000_000)


@dataclass(frozen=True)
class Attempt:
    """A row of the store."""

    id: str
    message: str
    channel: str
    provider: str
    state: str
    begun_at: int
    reference: str | None
    repeats: str | None = None
    """The attempt that the vendor takes it for, by its key, and by whose id it knows it."""


@dataclass(frozen=True)
class Due:
    """A row of the store."""

    message: str
    person: str
    line: int
    due_at: int | None


@dataclass
class Recorded:
    """What the store holds, as it holds it."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Source, id, message."""
    messages: set[str] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    """Message → the last final state decided."""
    parked: list[tuple[str, bytes, tuple[str, ...]]] = field(default_factory=list)
    """Reason, body, the places of its faults."""
    outbox: int = 0
    now: int = 0
    """Microseconds since 1970."""


@dataclass(frozen=True)
class Finding:
    """A broken promise."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


# -------------------------------------------------------------------------------------------------------- what there is


def ledger(file: Path) -> list[Entry]:
    """The vendors' own."""
    entries = []
    for line in file.read_bytes().splitlines():
        row = json.loads(line)
        text = row.get("text")
        entries.append(
            Entry(
                at=datetime.fromisoformat(row["at"]),
                vendor=row["provider"],
                channel=row["channel"],
                address=row["address"],
                attempt=row.get("attempt") or None,
                message=row.get("message") or None,
                reference=row["reference"],
                tag=tag_of(row["address"]) if text is None else tag_of(text),
            )
        )
    return entries


_SQL = {
    "requests": "select source, id, message from requests",
    "messages": "select id from messages",
    "attempts": "select id, message, channel, provider, state, begun_at, reference, repeats from attempts",
    "due": "select message, person, line, due_at from due",
    "ended": f"select message, state from decisions where state in ({', '.join(map(repr, _ENDED))}) order by id",
    "parked": "select reason, body, faults from parked",
    "outbox": "select count(*) from outbox",
}


async def recorded(url: str) -> Recorded:
    """All that matters, in one snapshot, by plain SQL."""
    rows: dict[str, Sequence[Any]]
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            rows = {name: database.execute(sql).fetchall() for name, sql in _SQL.items()}
    else:
        connection = await asyncpg.connect(url, server_settings={"application_name": "oracle"})
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = {name: await connection.fetch(sql) for name, sql in _SQL.items()}
        finally:
            await connection.close()
    return Recorded(
        requests=[(row[0], row[1], row[2]) for row in rows["requests"]],
        messages={row[0] for row in rows["messages"]},
        attempts=[Attempt(*row) for row in rows["attempts"]],
        due=[Due(*row) for row in rows["due"]],
        ended={row[0]: row[1] for row in rows["ended"]},
        parked=[
            (row[0], base64.b64decode(row[1]), tuple(fault["path"] for fault in json.loads(row[2])))
            for row in rows["parked"]
        ],
        outbox=rows["outbox"][0][0],
        now=int(datetime.now(UTC).timestamp() * 1_000_000),
    )


# ----------------------------------------------------------------------------------------------------- what is examined


@dataclass
class Examination:
    """A campaign that came to rest, held against its ledgers and its store.

    Args:
        in_flight: the attempts that were under way when a gateway was killed; only these may be ``unknown``, beside
            those that the campaign says the vendor never answers.
        repeats_wait: whether a message that may be repeated may still be waiting for that.
    """

    campaign: Campaign
    entries: Sequence[Entry]
    store: Recorded
    in_flight: Collection[str] = ()
    repeats_wait: bool = False
    conflicts_parked: bool = True
    malformed_parked: bool = True
    """What comes by HTTP is answered, and not parked."""

    def __post_init__(self) -> None:
        self.findings: list[Finding] = []
        self._request = {request.key: request for request in self.campaign.requests}
        self._tagged = {request.tag: request for request in self.campaign.requests}
        self._message = {(source, id_): message for source, id_, message in self.store.requests}
        self._of = {message: self._request.get((source, id_)) for source, id_, message in self.store.requests}
        self._attempts: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.store.attempts:
            self._attempts[attempt.message].append(attempt)
        self._due = {row.message for row in self.store.due}
        self.states: dict[tuple[str, str], str] = {}
        """By source and id."""

    def run(self) -> list[Finding]:
        self._accepted()
        self._states()
        self._ledger_is_the_store()
        self._ledger_alone()
        self._waiting()
        self._parked()
        if self.store.outbox:
            self._find("unpublished", f"{self.store.outbox} events")
        return self.findings

    def summary(self) -> str:
        """What was seen, in numbers."""
        states = Counter(self.states.values())
        attempts = Counter(attempt.state for attempt in self.store.attempts)
        taken = Counter(f"{entry.vendor}/{entry.channel}" for entry in self.entries)
        parked = Counter(reason for reason, _, _ in self.store.parked)
        return f"states {dict(states)}; attempts {dict(attempts)}; ledger {dict(taken)}; parked {dict(parked)}"

    def _find(self, kind: str, detail: object) -> None:
        self.findings.append(Finding(kind, str(detail)))

    # ---------------------------------------------------------------------------------------------- the store by itself

    def _accepted(self) -> None:
        for key in self._request.keys() - self._message.keys():
            self._find("lost", f"{key} was never recorded")
        for key in self._message.keys() - self._request.keys():
            self._find("invented", key)
        if len(self._message) != len(self.store.requests) or set(self._of) != self.store.messages:
            self._find("torn", "requests and messages are not one to one")

    def _states(self) -> None:
        """Each accepted request is in exactly one state, and in one that it may be in."""
        for key, message in self._message.items():
            claims = self._claims(message)
            request = self._request.get(key)
            if len(claims) != 1:
                self._find("lost" if not claims else "torn", f"{key} is {sorted(claims) or 'in no state'}")
                continue
            self.states[key] = (state := claims.pop())
            crashed = state == "unknown" and any(a.id in self.in_flight for a in self._attempts[message])
            if request and state not in request.fate and not crashed:
                self._find("wrong_fate", f"{_say(request)} is {state}, and may be {sorted(request.fate)}")

    def _claims(self, message: str) -> set[str]:
        """Every state that some row claims. A receipt may come after the decision, and outweighs it."""
        states = {attempt.state for attempt in self._attempts[message]}
        claims = set()
        if message in self._due:
            claims.add("sending" if "intent" in states else "waiting")
        elif "intent" in states:
            claims.add("sending, by nobody")
        ended = self.store.ended.get(message)
        final = next((s for s in ("delivered", "accepted", "undelivered") if s in states), None)
        if final:
            claims.add("sent" if final == "accepted" else final)
            if ended and ended != "unknown":
                claims.add(ended)
        elif ended:
            claims.add(ended)
            if ended == "unknown" and "unknown" not in states:
                claims.add("unknown, of no attempt")
        return claims

    # ----------------------------------------------------------------------------------------- the ledger and the store

    def _ledger_is_the_store(self) -> None:
        by_id = {attempt.id: attempt for attempt in self.store.attempts}
        by_reference = {
            (PROVIDERS[a.provider], a.reference): a for a in self.store.attempts if a.reference and a.channel != "email"
        }
        matched: Counter[str] = Counter()
        for entry in sorted(self.entries, key=lambda e: e.at):
            request = self._tagged.get(entry.tag or 0)
            if request is None:
                self._find("unexpected", f"the ledger has {entry}")
                continue
            attempt = by_id.get(entry.attempt or "") or by_reference.get((entry.vendor, entry.reference))
            attempt = attempt or self._unanswered(entry, request, matched)
            if attempt is None:
                self._find("unrecorded", f"{_say(request)}: no attempt is recorded for {entry}")
                continue
            matched[attempt.id] += 1
            if self._of.get(attempt.message) is not request or (entry.message or attempt.message) != attempt.message:
                self._find("misattributed", f"{_say(request)}: {entry} is recorded for another message")
            if entry.channel != request.channel or entry.address != request.address:
                self._find("misaddressed", f"{_say(request)}: {entry}, and not {request.channel} to {request.address}")
            if attempt.channel != entry.channel or PROVIDERS[attempt.provider] != entry.vendor:
                self._find("misattributed", f"{_say(request)}: {entry} is recorded as {attempt}")
            if attempt.state in NOT_SENT:
                self._find("unrecorded", f"{_say(request)}: {attempt} is in the ledger")
        for attempt in self.store.attempts:
            if attempt.state in DONE and not matched[attempt.repeats or attempt.id]:
                self._find("false_sent", f"{attempt} is in no ledger")
            if matched[attempt.id] > 1:
                self._find("doubled", f"{attempt} is {matched[attempt.id]} times in the ledger")
            request = self._of.get(attempt.message)
            if attempt.state == "unknown" and attempt.id not in self.in_flight and not (request and request.vanishes):
                self._find("baseless_unknown", f"{attempt}: nobody was killed, and the vendor answers")
        self._once()

    def _unanswered(self, entry: Entry, request: Request, matched: Mapping[str, int]) -> Attempt | None:
        """Of a vendor that is not told the attempt: one without an answer, begun before the entry."""
        attempts = sorted(self._attempts[self._message.get(request.key, "")], key=lambda a: a.begun_at)
        return next(
            (
                attempt
                for attempt in attempts
                if attempt.state in ("unknown", "intent", *NOT_SENT)
                and PROVIDERS[attempt.provider] == entry.vendor
                and attempt.begun_at <= entry.us + 1000
                and not matched[attempt.id]
            ),
            None,
        )

    def _once(self) -> None:
        """No request is twice in the ledger, unless its category says so and the store knows why."""
        for tag, count in Counter(entry.tag for entry in self.entries).items():
            request = self._tagged.get(tag or 0)
            if request is None or count == 1:
                continue
            attempts = self._attempts[self._message.get(request.key, "")]
            unknown = sum(attempt.state == "unknown" or attempt.id in self.in_flight for attempt in attempts)
            if request.category not in REPEATABLE or count > min(1, unknown) + 1:
                self._find("doubled", f"{_say(request)} is {count} times in the ledger, with {attempts}")

    # --------------------------------------------------------------------------------------------- the ledger by itself

    def _ledger_alone(self) -> None:
        """No cap, gap, quiet hour or opt-out is broken, by the vendors' clock and the addresses they were given."""
        by_person: dict[str, list[tuple[Entry, Request]]] = defaultdict(list)
        owners = owners_of(self.campaign)
        for entry in self.entries:
            request = self._tagged.get(entry.tag or 0)
            person = owners.get(entry.address) or (request.person.name if request else "")
            if request is None or person != request.person.name:
                self._find("unexpected", f"{entry} went to {person or 'a stranger'}")
                continue
            by_person[person].append((entry, request))
            local = entry.at.astimezone(ZoneInfo(request.zone))
            if request.category not in EXEMPT_FROM_QUIET and not QUIET_TO <= local.hour < QUIET_FROM:
                self._find("hour_breach", f"{_say(request)} was contacted at {local:%H:%M:%S} in {request.zone}")
            if request.person.refuses(entry.channel, request.category):
                self._find("after_stop", f"{_say(request)} had opted out by {request.person.optouts}")
        for person, contacts in by_person.items():
            self._caps(person, [(e, r) for e, r in contacts if r.category not in EXEMPT_FROM_CAPS])

    def _caps(self, person: str, contacts: list[tuple[Entry, Request]]) -> None:
        contacts.sort(key=lambda pair: pair[0].at)
        times = [entry.at for entry, _ in contacts]
        if worst := crowded(times, DAILY, PER_DAY):
            self._find("cap_breach", f"{person}: daily, more than {DAILY} from {worst}")
        weeks = Counter(
            week_of(entry.at, calendar_of(request, self.campaign.zone))
            for entry, request in contacts
            if entry.channel == "push"
        )
        for week, count in weeks.items():
            if count > PUSH_A_WEEK:
                self._find("cap_breach", f"{person}: push-week, {count} in the week of {week}")
        campaigns = defaultdict(list)
        for entry, request in contacts:
            if request.category == "reactivation":
                campaigns[request.campaign].append(entry.at)
        for campaign, at in campaigns.items():
            if worst := crowded(at, PER_CAMPAIGN, CAMPAIGN_MONTH):
                self._find(
                    "cap_breach", f"{person}: campaign-month of {campaign}, more than {PER_CAMPAIGN} from {worst}"
                )
        for first, second in pairwise(times):
            if second - first + ROUNDING < GAP:
                self._find("gap_breach", f"{person}: {first} and {second} are only {second - first} apart")

    # -------------------------------------------------------------------------------------------------- who still waits

    def _waiting(self) -> None:
        """Who waits has a reason, and something that will wake it."""
        awake = {(row.person, row.line) for row in self.store.due if row.due_at is not None}
        repeating = {(row.person, row.line) for row in self.store.due if self.repeats_wait and self._repeats(row)}
        taken: dict[str, list[tuple[datetime, str, Request]]] = defaultdict(list)
        for at, channel, request in self._places():
            if request.category not in EXEMPT_FROM_CAPS:
                taken[request.person.name].append((at, channel, request))
        now = datetime.fromtimestamp(self.store.now / 1_000_000, UTC)
        for row in self.store.due:
            if row.due_at is None and (row.person, row.line) not in awake:
                self._find("stuck", f"{row} is behind nobody, and nothing wakes it")
            if (row.person, row.line) in repeating:
                continue  # or it waits behind one that may be repeated, as it would behind one that a rule holds
            request = self._of.get(row.message)
            if request and not self._held(request, taken[request.person.name], now):
                self._find("starved", f"{_say(request)} waits, and no rule holds it: {row}")

    def _repeats(self, row: Due) -> bool:
        request = self._of.get(row.message)
        unknown = any(attempt.state == "unknown" for attempt in self._attempts[row.message])
        return bool(request and request.category in REPEATABLE and unknown)

    def _places(self) -> Iterable[tuple[datetime, str, Request]]:
        """Everything that may hold a place: the ledger, and what is unknown without being in it."""
        held = Counter(entry.tag for entry in self.entries)
        for entry in self.entries:
            if request := self._tagged.get(entry.tag or 0):
                yield entry.at, entry.channel, request
        for attempt in self.store.attempts:
            request = self._of.get(attempt.message)
            if request and attempt.state == "unknown":
                if held[request.tag]:
                    held[request.tag] -= 1
                else:
                    yield datetime.fromtimestamp(attempt.begun_at / 1_000_000, UTC), attempt.channel, request

    def _held(self, request: Request, taken: Sequence[tuple[datetime, str, Request]], now: datetime) -> bool:
        local = now.astimezone(ZoneInfo(request.zone))
        if request.category not in EXEMPT_FROM_QUIET and not QUIET_TO <= local.hour < QUIET_FROM:
            return True
        if request.category in EXEMPT_FROM_CAPS:
            return False
        if sum(at > now - PER_DAY for at, _, _ in taken) >= DAILY:
            return True
        if request.channel == "push":
            zone = calendar_of(request, self.campaign.zone)
            this = week_of(now, zone)
            if sum(channel == "push" and week_of(at, zone) == this for at, channel, _ in taken) >= PUSH_A_WEEK:
                return True
        if request.category != "reactivation":
            return False
        same = [at for at, _, other in taken if (other.category, other.campaign) == ("reactivation", request.campaign)]
        return sum(at > now - CAMPAIGN_MONTH for at in same) >= PER_CAMPAIGN

    # ------------------------------------------------------------------------------------------------- what was refused

    def _parked(self) -> None:
        there = {body.rstrip(b"\n"): (reason, paths) for reason, body, paths in self.store.parked}
        wanted = {bad.body: bad for bad in self.campaign.malformed} if self.malformed_parked else {}
        for body, bad in wanted.items():
            reason, paths = there.pop(body, ("", ()))
            if reason != "malformed":
                self._find("unparked", f"{body[:200]!r}")
            elif not set(bad.paths) <= set(paths):
                self._find("wrong_faults", f"{body[:200]!r} has faults at {paths}, and should at {bad.paths}")
        conflicts = {request.key: request for request in self.campaign.conflicts} if self.conflicts_parked else {}
        for body, (reason, paths) in there.items():
            try:
                fields = json.loads(body)
                key = (fields["source"], fields["id"])
            except (ValueError, TypeError, KeyError):
                key = ("", "")
            if reason != "conflict" or paths != ("id",) or not conflicts.pop(key, None):
                self._find("wrongly_parked", f"{reason} {paths} {body[:200]!r}")
        for request in conflicts.values():
            self._find("unparked", f"the conflict of {_say(request)}")


def owners_of(campaign: Campaign) -> dict[str, str]:
    """Address → person, as the test gave them out."""
    owners = {}
    for person in campaign.people:
        if person.number:
            owners[person.phone] = owners[person.token] = person.name
    for request in campaign.requests:
        if not request.address.startswith((PHONES, "+1500555")):
            owners[request.address] = request.person.name
    return owners


def crowded(times: Sequence[datetime], limit: int, per: timedelta) -> datetime | None:
    """The first instant from which on more than ``limit`` fall into a window of that length."""
    ordered = sorted(times)
    for first, last in zip(ordered, ordered[limit:], strict=False):
        if last - first + ROUNDING < per:
            return first
    return None


def week_of(at: datetime, zone: str) -> str:
    """ISO weeks begin on Mondays."""
    year, week, _ = at.astimezone(ZoneInfo(zone)).isocalendar()
    return f"{year}-W{week}"


def calendar_of(request: Request, last_resort: str) -> str:
    """Whose days count for a push: the person's own, never the request's."""
    return last_resort if request.person.profile is None else request.person.zone


def _say(request: Request) -> str:
    return f"q{request.tag} {request.key} of {request.person.name} ({request.category}, {request.channel})"
