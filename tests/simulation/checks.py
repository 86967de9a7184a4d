"""Was every promise kept? Answered from the vendors' ledgers, from what those outside were told, and from the tables.

It shares nothing with the gateway: the story's own numbers, and SQL that reads rows as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tests.simulation.story import (
    ABUSE,
    ABUSE_PER,
    ANY_HOUR,
    DAILY,
    GAP,
    KEYED,
    LIVES,
    NIGHT_FROM,
    NIGHT_TO,
    REPEATED,
    SKEW,
    UNCOUNTED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.story import Request
    from tests.simulation.vendors import Entry
    from tests.simulation.world import No, World

DAY = timedelta(hours=24).total_seconds()
REPORTED = timedelta(hours=72).total_seconds()
"""After its expiry a message is closed."""
LOOKS = timedelta(minutes=2).total_seconds()
"""Between two looks for such, where the one who looked has died."""
SAID_SENT = ("accepted", "delivered", "undelivered")
SAID_NOT_SENT = ("not_sent", "rejected", "unreachable")
ENDED_UNSENT = ("refused", "expired", "failed", "cancelled", "parked", "unknown")


def findings(world: World) -> list[str]:
    """Every broken promise, its kind first; none is what there should be."""
    return list(_Checks(world).all())


class _Checks:
    def __init__(self, world: World) -> None:
        self._told = world.told
        self._starts = world.story.starts
        self._connection = world.connection
        self._world = world
        self._ledger = sorted((e for vendor in world.vendors.values() for e in vendor.ledger), key=lambda e: e.at)
        self._message: dict[str, str] = {}
        """Request → message, as services were told."""
        self._first: dict[str, Request] = {}
        """Message → the request that it is."""
        self._attempts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows("attempts"):
            self._attempts[row["message"]].append(row)

    def all(self) -> Iterator[str]:
        yield from (f"bug: {bug}" for bug in self._told.bugs)
        yield from self._identity()
        yield from self._ended()
        yield from self._recorded()
        yield from self._unexpected()
        yield from self._once()
        yield from self._hours()
        yield from self._caps()
        yield from self._noes()

    def _rows(self, table: str) -> list[dict[str, Any]]:
        found = self._connection.execute(f"select * from {table}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def _at(self, seconds: float) -> datetime:
        return self._starts + timedelta(seconds=seconds)

    # ------------------------------------------------------------------------------------------------------- promises

    def _identity(self) -> Iterator[str]:
        """Same id, one message; another body, a conflict."""
        accepted: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for told in self._told.answered:
            kind = type(told.answer).__name__
            if kind == "Accepted":
                accepted[told.request.id].append((told.answer.message, told.request.text))
        for request, answers in accepted.items():
            if len(set(answers)) > 1:
                yield f"identity: {request} was accepted as {sorted(set(answers))}"
            self._message[request] = answers[0][0]
        asked = {(request.id, request.text): request for request in self._told.asked}
        for request, answers in accepted.items():
            self._first[answers[0][0]] = asked[request, answers[0][1]]
        stored = {row["id"]: row["message"] for row in self._rows("requests")}
        for request, message in self._message.items():
            if stored.get(request) != message:
                yield f"lost: {request} was accepted as {message}, and is not in the store"

    def _ended(self) -> Iterator[str]:
        """What was accepted came to an end, in time; nothing is left behind."""
        for row in self._rows("due") + self._rows("unknowns"):
            yield f"stuck: {row}"
        ends = {row["message"]: row for row in self._rows("decisions") if row["state"] in ENDED_UNSENT}
        taken = {entry.message for entry in self._ledger}
        for message, request in self._first.items():
            states = {attempt["state"] for attempt in self._attempts[message]}
            if message not in taken and message not in ends and not states & {"unknown", *SAID_SENT}:
                yield f"lost: {request} is in no ledger, and nothing says why: {states}"
        expiries = {row["id"]: row["expires_at"] for row in self._rows("messages")}
        for message, attempts in self._attempts.items():
            for attempt in attempts:
                if attempt["state"] == "intent":
                    yield f"open: {attempt}"
                elif attempt["ended_at"] is not None and attempt["begun_at"] > expiries[message]:
                    yield f"late: {attempt} was begun after {expiries[message]}"
        for message, row in ends.items():
            if (late := row["decided_at"] / 1e6 - expiries[message] / 1e6 - REPORTED) > LOOKS:
                yield f"late: {row} of {self._first.get(message)} by {late} s"

    def _recorded(self) -> Iterator[str]:
        """What is recorded as sent was, and what is recorded as not sent was not."""
        taken = {entry.attempt for entry in self._ledger}
        called = defaultdict(list)
        for attempts in self._attempts.values():
            for attempt in attempts:
                called[attempt["repeats"] or attempt["id"]].append(attempt)
        for first, attempts in called.items():  # by a key: the vendor's ledger names the first
            for attempt in attempts:
                if attempt["state"] in SAID_SENT and first not in taken:
                    yield f"false_sent: {attempt}"
            if first in taken and all(attempt["state"] in SAID_NOT_SENT for attempt in attempts):
                yield f"denied: {attempts}"

    def _unexpected(self) -> Iterator[str]:
        """Nothing went out that nobody asked for, or to anybody else."""
        ids = {attempt["id"] for attempts in self._attempts.values() for attempt in attempts}
        asked = {(request.id, request.text): request for request in self._told.asked}
        stored = {row["message"]: row["id"] for row in self._rows("requests")}
        for entry in self._ledger:
            request = asked.get((stored.get(entry.message, ""), entry.text))
            if request is None or entry.attempt not in ids:
                yield f"unexpected: {entry} was never asked for"
            elif request.person.addresses[entry.channel] != entry.address or entry.channel not in request.channels:
                yield f"unexpected: {entry} is not for {request}"
            elif (first := self._first.get(entry.message)) and first.text != entry.text:
                yield f"unexpected: {entry} is of another body than {first}"

    def _once(self) -> Iterator[str]:
        by_message: dict[str, list[Entry]] = defaultdict(list)
        for entry in self._ledger:
            by_message[entry.message].append(entry)
        for message, entries in by_message.items():
            category = self._category(entries[0])
            most = 2 if category in REPEATED else 1
            if len(entries) > most or sum(entry.vendor == KEYED for entry in entries) > 1:
                yield f"doubled: {category} {entries}, {self._attempts[message]}"

    def _hours(self) -> Iterator[str]:
        for entry in self._ledger:
            request = self._of(entry)
            if request is None:
                continue
            life = request.lives or LIVES[request.category]
            asked = [told.at for told in self._told.answered if told.request.id == request.id]
            if asked and entry.at > max(asked) + life.total_seconds() + SKEW:
                yield f"late: {entry} of {request}"
            if request.category in ANY_HOUR:
                continue
            local = self._at(entry.at - SKEW).astimezone(ZoneInfo(request.person.zone))
            also = self._at(entry.at).astimezone(ZoneInfo(request.person.zone))
            if not also.hour >= NIGHT_TO or not local.hour < NIGHT_FROM:
                yield f"hour_breach: {entry} at {also} of {request}"

    def _caps(self) -> Iterator[str]:
        counted: dict[str, list[float]] = defaultdict(list)
        codes: dict[str, list[float]] = defaultdict(list)
        for entry in self._ledger:
            request = self._of(entry)
            if request is None or not entry.arrived:
                continue  # what never arrived may have given its place back
            if request.category in UNCOUNTED:
                codes[entry.address].append(entry.at)
            else:
                counted[request.person.name].append(entry.at)
        for person, times in counted.items():
            if worst := _crowded(times, DAILY, DAY):
                yield f"cap_breach: {person} got {worst} within 24 h"
            for first, second in pairwise(times):
                if second - first < GAP.total_seconds():
                    yield f"gap_breach: {person} at {first} and {second}"
        for address, times in codes.items():
            if worst := _crowded(times, ABUSE, ABUSE_PER.total_seconds()):
                yield f"cap_breach: {address} got {worst} codes within an hour"

    def _noes(self) -> Iterator[str]:
        for no in self._told.noes:
            for entry in self._ledger[bisect_left(self._ledger, no.at + SKEW, key=lambda e: e.at) :]:
                if self._covers(no, entry):
                    yield f"after_stop: {entry} after {no}"
        for message, at in self._told.cancelled:
            for entry in self._ledger:
                if entry.message == message:
                    yield f"cancelled: {entry}, and yet we were told so at {at}"

    # ---------------------------------------------------------------------------------------------------------- words

    def _of(self, entry: Entry) -> Request | None:
        return self._first.get(entry.message)

    def _category(self, entry: Entry) -> str:
        request = self._of(entry)
        return request.category if request else ""

    def _covers(self, no: No, entry: Entry) -> bool:
        request = self._of(entry)
        return (
            request is not None
            and (entry.address == no.person.addresses[no.by] if no.by else request.person == no.person)
            and no.channel in (None, entry.channel)
            and no.category in (None, request.category)
        )


def _crowded(times: Sequence[float], limit: int, per: float) -> list[float]:
    """More than ``limit`` within less than that many seconds."""
    for first, last in zip(range(len(times)), range(limit, len(times)), strict=False):
        if times[last] - times[first] < per:
            return list(times[first : last + 1])
    return []
