"""The judge finds each broken promise, where one is planted, and nothing where none is broken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.faults.checker import Attempt, Promise, Recorded, Sent, Taken, Verdict, examine
from tests.faults.tally import BROKEN, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def taken(request: str, attempt: str, person: str = "p1", at: datetime = NOON) -> Taken:
    return Taken(request, person, attempt, at, at)


class Case:
    """Three requests: one was sent, of one nobody knows, one was refused. Each test plants one fault in it."""

    def __init__(self) -> None:
        self.attempted = [Sent("r1", "p1"), Sent("r2", "p2"), Sent("r3", "p3")]
        self.acknowledged = {"r1", "r2", "r3"}
        self.ledger = [taken("r1", "a1"), taken("r2", "a2", "p2")]
        self.requests = {"r1": "m1", "r2": "m2", "r3": "m3"}
        self.attempts = [Attempt("a1", "m1", "accepted"), Attempt("a2", "m2", "unknown")]
        self.open: set[str] = set()
        self.ended = {"m1": "sent", "m2": "unknown", "m3": "refused"}
        self.promise = Promise(cap=2, quiet=(time(21), time(8)))

    def verdict(self) -> Verdict:
        recorded = Recorded(self.requests, self.attempts, self.open, self.ended)
        return examine(self.attempted, self.acknowledged, self.ledger, recorded, self.promise)

    def state(self, attempt: str, state: str) -> None:
        self.attempts = [replace(a, state=state) if a.id == attempt else a for a in self.attempts]


def broken(verdict: Verdict) -> dict[str, int]:
    return {name: len(getattr(verdict, name)) for name in BROKEN if getattr(verdict, name)}


def test_nothing_is_found_where_all_is_well() -> None:
    verdict = Case().verdict()
    assert not broken(verdict)
    assert verdict.unknown == ["r2"]
    assert verdict.acknowledged == 3


def never_recorded(case: Case) -> None:
    del case.requests["r3"], case.ended["m3"]


def never_settled(case: Case) -> None:
    case.open = {"m3"}
    del case.ended["m3"]


def in_no_state(case: Case) -> None:
    del case.ended["m3"]


def an_intent_left(case: Case) -> None:
    case.state("a2", "intent")


def failed_though_taken(case: Case) -> None:
    case.state("a1", "not_sent")
    case.ended["m1"] = "failed"


def unknown_without_an_attempt(case: Case) -> None:
    case.ended["m3"] = "unknown"


def twice_with_one_attempt(case: Case) -> None:
    case.ledger.append(taken("r1", "a1"))


def twice_with_two(case: Case) -> None:
    case.attempts.append(Attempt("a3", "m1", "accepted"))
    case.ledger.append(taken("r1", "a3"))


def repeated_against_its_category(case: Case) -> None:
    case.attempts.append(Attempt("a3", "m2", "accepted"))
    case.ledger.append(taken("r2", "a3", "p2"))


def repeated_and_not_told(case: Case) -> None:
    case.attempted[0] = replace(case.attempted[0], repeats=True)
    twice_with_two(case)


def repeated_twice(case: Case) -> None:
    case.promise = Promise()
    case.attempted[1] = replace(case.attempted[1], repeats=True)
    for attempt in ("a3", "a4"):
        case.attempts.append(Attempt(attempt, "m2", "accepted"))
        case.ledger.append(taken("r2", attempt, "p2"))


def said_to_be_sent(case: Case) -> None:
    case.ledger.pop(0)


def from_nowhere(case: Case) -> None:
    case.ledger.append(taken("r9", "a9", "p9"))


def too_many(case: Case) -> None:
    for number in (4, 5):
        case.attempted.append(Sent(f"r{number}", "p1"))
        case.acknowledged.add(f"r{number}")
        case.requests[f"r{number}"] = f"m{number}"
        case.attempts.append(Attempt(f"a{number}", f"m{number}", "accepted"))
        case.ended[f"m{number}"] = "sent"
        case.ledger.append(taken(f"r{number}", f"a{number}", at=NOON + timedelta(hours=number)))


def at_night(case: Case) -> None:
    case.ledger[0] = replace(case.ledger[0], local=NOON.replace(hour=7, minute=59))


def after_no(case: Case) -> None:
    case.promise = replace(case.promise, stopped={"p1": NOON - timedelta(milliseconds=1)})


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (never_recorded, "lost"),
        (never_settled, "lost"),
        (in_no_state, "lost"),
        (an_intent_left, "lost"),
        (failed_though_taken, "lost"),
        (unknown_without_an_attempt, "lost"),
        (twice_with_one_attempt, "doubled"),
        (twice_with_two, "doubled"),
        (repeated_against_its_category, "doubled"),
        (repeated_and_not_told, "doubled"),
        (repeated_twice, "doubled"),
        (said_to_be_sent, "false_sent"),
        (from_nowhere, "unexpected"),
        (too_many, "cap_breach"),
        (at_night, "hour_breach"),
        (after_no, "after_stop"),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Case], None], found: str) -> None:
    case = Case()
    plant(case)
    assert broken(case.verdict()) == {found: 1}


def well(case: Case) -> Sequence[str]:
    return [*broken(case.verdict())]


def test_what_the_category_says_to_repeat_is_no_double() -> None:
    case = Case()
    case.attempted[1] = replace(case.attempted[1], repeats=True)
    repeated_against_its_category(case)
    verdict = case.verdict()
    assert not broken(verdict)
    assert len(verdict.repeated) == 1


def test_a_vendor_that_knew_it_again_has_it_once() -> None:
    case = Case()
    case.attempts.append(Attempt("a3", "m2", "accepted"))  # with the key of a2, by which the ledger has it
    case.ended["m2"] = "sent"
    assert not well(case)


@pytest.mark.parametrize(("hours", "found"), [(23.9, ["cap_breach"]), (24, [])])
def test_a_cap_is_asked_of_its_window(hours: float, found: list[str]) -> None:
    case = Case()
    too_many(case)
    case.ledger[-1] = replace(case.ledger[-1], at=NOON + timedelta(hours=hours))
    assert well(case) == found


@pytest.mark.parametrize(("hour", "found"), [(20, []), (21, ["hour_breach"]), (0, ["hour_breach"]), (8, [])])
def test_quiet_hours_run_over_midnight(hour: int, found: list[str]) -> None:
    case = Case()
    case.ledger[0] = replace(case.ledger[0], local=NOON.replace(hour=hour))
    assert well(case) == found


def test_exempt_messages_break_neither_cap_nor_night() -> None:
    case = Case()
    too_many(case)
    at_night(case)
    case.attempted = [replace(sent, capped=False, quiet=False) for sent in case.attempted]
    assert not well(case)


def test_what_was_sent_before_the_opt_out_was_answered_is_no_breach() -> None:
    case = Case()
    case.promise = replace(case.promise, stopped={"p1": NOON})
    assert not well(case)


def test_what_may_wait_is_not_lost_but_an_open_intent_is() -> None:
    case = Case()
    never_settled(case)
    case.promise = replace(case.promise, may_wait=True)
    assert not well(case)
    case.attempts.append(Attempt("a3", "m3", "intent"))
    assert well(case) == ["lost"]


def test_what_nobody_acknowledged_may_be_missing_but_not_doubled() -> None:
    case = Case()
    never_recorded(case)
    case.acknowledged.remove("r3")
    assert not well(case)
    case.acknowledged.remove("r1")
    twice_with_one_attempt(case)
    assert well(case) == ["doubled"]


def test_a_tally_holds_what_was_found() -> None:
    case = Case()
    twice_with_one_attempt(case)
    at_night(case)
    tally = Tally()
    tally.judge(case.verdict())
    tally.fault(2, recovery=3.5)
    sum_ = Tally()
    for _ in range(2):
        sum_.add(tally.as_dict())
    assert sum_.broken == {"doubled": 2, "hour_breach": 2}
    assert (sum_.faults, sum_.recovery, sum_.unknown, sum_.messages) == (4, 3.5, 2, 6)
    assert "r1" in sum_.findings[0]
