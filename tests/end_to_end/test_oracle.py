"""The oracle is asked about a campaign that was kept, and about the same with one promise broken."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.campaign import Campaign, Malformed, Person, Request, zones
from tests.end_to_end.harness import unheard
from tests.end_to_end.oracle import Attempt, Due, Entry, Examination, Recorded

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime.now(UTC)
DAY, NIGHT = (names[0] for names in zones(NOW))
PROVIDERS = {"sms": ("text", "twilio"), "email": ("mail", "smtp"), "push": ("fcm", "fcm")}


class Kept:
    """A small campaign, and all that a gateway without faults would leave behind."""

    def __init__(self) -> None:
        self.campaign = Campaign(DAY)
        self.entries: list[Entry] = []
        self.store = Recorded(now=_us(NOW))
        ann, bob, eve = self.person("ann"), self.person("bob", NIGHT), self.person("eve", optouts=({},))
        for number in range(4):
            self.sent(self.request(ann, "news", "sms"), NOW - timedelta(seconds=2 * number))
        self.due(self.request(ann, "news", "sms", fate="waiting"))
        self.due(self.request(bob, "news", "email", fate="waiting"))
        self.sent(self.request(bob, "one_time_code", "sms"), NOW)
        self.ended(self.request(eve, "news", "push", fate="refused"), "refused")
        self.sent(self.request(self.person("kim"), "reactivation", "push", campaign="spring"), NOW)
        self.campaign.malformed = [Malformed(b'{"id": "x"}', ("user",))]
        self.store.parked = [("malformed", b'{"id": "x"}\n', ("user", "source"))]
        other = replace(self.campaign.requests[0], body={"id": "r-1", "source": "shop", "other": 1})
        self.campaign.conflicts = [other]
        self.store.parked.append(("conflict", other.line, ("id",)))

    def person(self, name: str, zone: str = DAY, optouts: tuple[dict[str, str], ...] = ()) -> Person:
        person = Person(name, len(self.campaign.people) + 1, zone, zone == NIGHT, {"timezone": zone}, optouts)
        self.campaign.people.append(person)
        return person

    def request(
        self,
        person: Person,
        category: str,
        channel: str,
        *,
        fate: str = "sent",
        campaign: str | None = None,
        **more: Any,
    ) -> Request:
        tag = len(self.campaign.requests) + 1
        address = {"sms": person.phone, "push": person.token, "email": f"p+q{tag}@canary.example"}[channel]
        body = {"id": f"r-{tag}", "source": "shop"}
        fates = frozenset({fate})
        request = Request(
            tag, "shop", f"r-{tag}", person, category, channel, address, campaign, person.zone, body, fates, **more
        )
        self.campaign.requests.append(request)
        self.store.requests.append(("shop", request.id, f"m-{tag}"))
        self.store.messages.add(f"m-{tag}")
        return request

    def sent(self, request: Request, at: datetime, state: str = "accepted", number: int = 1) -> Attempt:
        provider, vendor = PROVIDERS[request.channel]
        ids = f"a-{request.tag}-{number}"
        attempt = Attempt(ids, f"m-{request.tag}", request.channel, provider, state, _us(at), f"ref-{ids}")
        self.store.attempts.append(attempt)
        told = None if vendor == "fcm" else ids
        message = None if vendor == "twilio" else attempt.message
        entry = Entry(at, vendor, request.channel, request.address, told, message, f"ref-{ids}", request.tag)
        self.entries.append(entry)
        return attempt

    def due(self, request: Request, *, due_at: int | None = 2**60) -> None:
        self.store.due.append(Due(f"m-{request.tag}", request.person.name, request.tag, due_at))

    def ended(self, request: Request, state: str) -> None:
        self.store.ended[f"m-{request.tag}"] = state

    def of(self, tag: int) -> Request:
        return self.campaign.requests[tag - 1]

    def amend(self, number: int, **fields: Any) -> None:
        self.store.attempts[number] = replace(self.store.attempts[number], **fields)

    def amend_entry(self, number: int, **fields: Any) -> None:
        self.entries[number] = replace(self.entries[number], **fields)

    def kinds(self, **more: Any) -> set[str]:
        return {finding.kind for finding in Examination(self.campaign, self.entries, self.store, **more).run()}


def _us(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def test_it_finds_nothing_where_every_promise_was_kept() -> None:
    assert Kept().kinds() == set()


def never_recorded(kept: Kept) -> None:
    kept.request(kept.person("new"), "news", "sms")
    kept.store.requests.pop()
    kept.store.messages.discard("m-10")


def forgotten(kept: Kept) -> None:
    kept.store.due.pop()


def cap_of_a_day(kept: Kept) -> None:
    kept.sent(kept.request(kept.campaign.people[0], "transactional", "sms"), NOW - timedelta(hours=23, minutes=59))


def cap_of_a_week(kept: Kept) -> None:
    for minutes in (10, 20, 30):
        kept.sent(kept.request(kept.campaign.people[3], "news", "push"), NOW - timedelta(minutes=minutes))


def cap_of_a_campaign(kept: Kept) -> None:
    for days in (29, 15):
        kept.sent(
            kept.request(kept.campaign.people[3], "reactivation", "sms", campaign="spring"), NOW - timedelta(days=days)
        )


def too_soon(kept: Kept) -> None:
    kept.amend_entry(0, at=NOW - timedelta(milliseconds=1003))


def at_night(kept: Kept) -> None:
    kept.sent(kept.request(kept.campaign.people[1], "news", "sms"), NOW)


def after_an_opt_out(kept: Kept) -> None:
    kept.sent(kept.request(kept.campaign.people[2], "transactional", "sms"), NOW)


def twice(kept: Kept) -> None:
    kept.entries.append(replace(kept.entries[4], at=NOW + timedelta(seconds=1)))


def twice_by_two_attempts(kept: Kept) -> None:
    kept.sent(kept.of(7), NOW + timedelta(seconds=5), number=2)


def of_another_address(kept: Kept) -> None:
    kept.amend_entry(4, address=kept.campaign.people[0].phone)


def resolved(kept: Kept) -> None:
    kept.amend(0, state="not_sent")


def without_an_attempt(kept: Kept) -> None:
    kept.store.attempts.pop()


def only_in_the_store(kept: Kept) -> None:
    kept.entries.pop()


def nobodys(kept: Kept) -> None:
    kept.amend_entry(0, tag=None)


def unknown_for_no_reason(kept: Kept) -> None:
    kept.sent(kept.request(kept.person("new"), "news", "sms", fate="unknown"), NOW, state="unknown")
    kept.ended(kept.of(10), "unknown")


def waits_for_nothing(kept: Kept) -> None:
    kept.due(kept.request(kept.person("new"), "news", "sms", fate="waiting"))


def asleep_for_ever(kept: Kept) -> None:
    kept.store.due[0] = replace(kept.store.due[0], due_at=None)


def in_two_states(kept: Kept) -> None:
    kept.due(kept.of(1))


def of_nobody(kept: Kept) -> None:
    kept.store.requests.append(("shop", "r-77", "m-77"))
    kept.store.messages.add("m-77")
    kept.store.ended["m-77"] = "refused"


def refused_instead(kept: Kept) -> None:
    kept.store.due.pop()
    kept.ended(kept.of(6), "refused")


def not_parked(kept: Kept) -> None:
    del kept.store.parked[0]


def parked_without_its_faults(kept: Kept) -> None:
    kept.store.parked[0] = ("malformed", b'{"id": "x"}', ("source",))


def conflict_taken(kept: Kept) -> None:
    del kept.store.parked[1]


def good_one_parked(kept: Kept) -> None:
    kept.store.parked.append(("malformed", json.dumps({"id": "r-1", "source": "shop"}).encode(), ("id",)))


def events_kept_back(kept: Kept) -> None:
    kept.store.outbox = 1


PLANTED: list[tuple[Callable[[Kept], None], set[str]]] = [
    (never_recorded, {"lost"}),
    (forgotten, {"lost"}),
    (cap_of_a_day, {"cap_breach"}),
    (cap_of_a_week, {"cap_breach"}),
    (cap_of_a_campaign, {"cap_breach"}),
    (too_soon, {"gap_breach"}),
    (at_night, {"hour_breach"}),
    (after_an_opt_out, {"after_stop"}),
    (twice, {"doubled"}),
    (twice_by_two_attempts, {"doubled"}),
    (of_another_address, {"misaddressed", "unexpected"}),
    (resolved, {"unrecorded", "lost"}),
    (without_an_attempt, {"unrecorded", "lost"}),
    (only_in_the_store, {"false_sent"}),
    (nobodys, {"unexpected", "false_sent", "starved"}),
    (unknown_for_no_reason, {"baseless_unknown"}),
    (waits_for_nothing, {"starved"}),
    (asleep_for_ever, {"stuck"}),
    (in_two_states, {"torn"}),
    (of_nobody, {"invented"}),
    (refused_instead, {"wrong_fate"}),
    (not_parked, {"unparked"}),
    (parked_without_its_faults, {"wrong_faults"}),
    (conflict_taken, {"unparked"}),
    (good_one_parked, {"wrongly_parked"}),
    (events_kept_back, {"unpublished"}),
]


@pytest.mark.parametrize(("plant", "kinds"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_it_finds_what_was_planted(plant: Callable[[Kept], None], kinds: set[str]) -> None:
    kept = Kept()
    plant(kept)
    assert kept.kinds() == kinds


def test_a_killed_attempt_may_be_unknown_whatever_became_of_it() -> None:
    kept = Kept()
    arrived = kept.sent(kept.request(kept.person("new"), "news", "push"), NOW, state="unknown")
    kept.ended(kept.of(10), "unknown")
    vanished = kept.sent(kept.request(kept.person("newer"), "news", "sms"), NOW, state="unknown")
    kept.ended(kept.of(11), "unknown")
    kept.entries.pop()
    assert kept.kinds(in_flight={arrived.id, vanished.id}) == set()


def test_only_what_may_be_repeated_may_be_there_twice_and_only_once_more() -> None:
    kept = Kept()
    killed = kept.sent(kept.request(kept.person("new"), "transactional", "sms"), NOW, state="unknown")
    kept.sent(kept.of(10), NOW + timedelta(minutes=1), number=2)
    assert kept.kinds(in_flight={killed.id}) == set()
    kept.sent(kept.of(10), NOW + timedelta(minutes=2), number=3)
    assert kept.kinds(in_flight={killed.id}) == {"doubled"}


def test_who_may_be_repeated_waits_and_holds_up_the_line() -> None:
    kept = Kept()
    killed = kept.sent(kept.request(kept.person("new"), "transactional", "sms", fate="waiting"), NOW, state="unknown")
    kept.due(kept.of(10))
    behind = kept.request(kept.of(10).person, "transactional", "sms", fate="waiting")
    kept.due(behind, due_at=None)
    kept.store.due[-1] = replace(kept.store.due[-1], line=10)
    assert kept.kinds(in_flight={killed.id}, repeats_wait=True) == set()
    assert kept.kinds(in_flight={killed.id}) == {"starved"}


EVENT = {"event": "e-1", "sequence": 1, "state": "sent", "source": "shop", "id": "r-1"}


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        ([EVENT], 0),
        ([EVENT, EVENT], 0),
        ([], 1),
        ([{**EVENT, "state": "failed"}], 1),
        ([{**EVENT, "sequence": 2, "event": "e-2", "state": "delivered"}, EVENT], 1),
        ([EVENT, {**EVENT, "event": "e-3", "id": "r-2", "sequence": 3}], 1),
    ],
)
def test_events_that_are_missing_or_out_of_order_are_found(events: list[dict[str, Any]], faults: int) -> None:
    assert len(unheard({("shop", "r-1"): "sent"}, events)) == faults
