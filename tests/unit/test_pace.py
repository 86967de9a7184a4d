"""Is a pace never exceeded, whoever books in whatever order, and do critical messages never wait behind others?"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.pace import AHEAD, PATIENCE, RESERVE, Ask, Calendar, grant
from providers import Pace, kinds, settings_of

SECOND = 1_000_000
EMPTY = Calendar(0, 0)
START = 1_700_000_000 * SECOND

paces = st.builds(Pace, st.integers(1, 2000), st.sampled_from([SECOND, 60 * SECOND, 3600 * SECOND]))
bookings = st.lists(
    st.tuples(
        st.integers(0, 2 * SECOND) | st.just(0),  # since the one before
        st.booleans(),
        st.integers(1, 10),
    ),
    max_size=80,
)


def booked(pace: Pace, wishes: list[tuple[int, bool, int]]) -> list[tuple[int, int, bool]]:
    """When each turn that was given is, of how many units, and whether it is critical."""
    calendar, now, turns = EMPTY, START, []
    for later, critical, units in wishes:
        now += later
        at, calendar = (calendar.critical if critical else calendar.ordinary)(pace, units, now)
        if at is not None:
            assert at >= now
            turns.append((at, units, critical))
    return sorted(turns)


@given(paces, bookings)
def test_no_window_holds_more_than_the_pace_and_what_is_lent_gives(pace: Pace, wishes: Any) -> None:
    turns = booked(pace, wishes)
    biggest = max((units for _, units, _ in turns), default=0)
    for first, (begin, _, _) in enumerate(turns):
        units = 0
        for at, more, _ in turns[first:]:
            units += more
            window = at - begin + 1
            allowed = (window + AHEAD + RESERVE) * pace.limit / pace.per + 2 * biggest
            assert units <= allowed + 1e-6


@given(paces, bookings)
def test_without_critical_ones_the_pace_is_kept_to_the_unit(pace: Pace, wishes: Any) -> None:
    turns = booked(pace, [(later, False, units) for later, _, units in wishes])
    for (one, units, _), (following, _, _) in pairwise(turns):
        assert following - one >= pace.span(units)


@given(paces, bookings, st.integers(1, 10))
def test_a_critical_message_never_waits_behind_others(pace: Pace, wishes: Any, units: int) -> None:
    calendar, now = EMPTY, START
    for later, _, more in wishes:
        now += later
        _, calendar = calendar.ordinary(pace, more, now)
    at, _ = calendar.critical(pace, units, now)
    assert at == now


@given(paces, bookings)
def test_what_is_not_critical_changes_nothing_for_what_is(pace: Pace, wishes: Any) -> None:
    alone = [(later, critical, units if critical else 0) for later, critical, units in wishes]
    mixed = [turn for turn in booked(pace, wishes) if turn[2]]
    assert mixed == [turn for turn in booked(pace, alone) if turn[2]]


@given(paces, bookings, st.integers(1, 10))
def test_what_critical_ones_take_is_taken_from_the_others(pace: Pace, wishes: Any, units: int) -> None:
    calendar, now = EMPTY, START
    for later, _, more in wishes:
        now += later
        _, calendar = calendar.ordinary(pace, more, now)
    _, after = calendar.critical(pace, units, now)
    assert after.next_at == max(calendar.next_at, now) + pace.span(units)


@given(paces, bookings)
def test_a_turn_is_never_further_off_than_it_may_be_waited_for(pace: Pace, wishes: Any) -> None:
    calendar, now = EMPTY, START
    for later, critical, units in wishes:
        now += later
        at, calendar = (calendar.critical if critical else calendar.ordinary)(pace, units, now)
        assert at is None or now <= at <= now + (PATIENCE if critical else AHEAD)


@given(paces, st.integers(-2 * SECOND, 2 * SECOND), st.integers(-2 * SECOND, 2 * SECOND), st.integers(1, 10))
@example(Pace(1, SECOND), AHEAD, RESERVE + PATIENCE, 1)
@example(Pace(1, SECOND), AHEAD + 1, RESERVE + PATIENCE + 1, 1)
def test_a_turn_is_given_unless_it_is_further_off_than_it_may_be_waited_for(
    pace: Pace, booked_for: int, critical_for: int, units: int
) -> None:
    calendar = Calendar(START + booked_for, START + critical_for)
    free = max(booked_for, 0)
    assert calendar.ordinary(pace, units, START)[0] == (START + free if free <= AHEAD else None)
    free = max(critical_for - RESERVE, 0)
    assert calendar.critical(pace, units, START)[0] == (START + free if free <= PATIENCE else None)


@given(paces, st.integers(1, 10))
def test_rounding_never_lets_more_go(pace: Pace, units: int) -> None:
    assert pace.span(units) * pace.limit >= units * pace.per > (pace.span(units) - 1) * pace.limit


def test_a_flood_of_codes_goes_at_the_pace_after_the_first_few() -> None:
    turns = booked(Pace(10, SECOND), [(0, True, 1)] * 100)
    instants = [(at - START) / SECOND for at, _, _ in turns]
    assert instants == [0, 0, 0, *(pytest.approx(0.1 * number) for number in range(1, 11))]


def test_a_pace_by_the_minute_is_as_even_as_one_by_the_second() -> None:
    wishes = [(SECOND // 10, False, 1)] * 30
    assert booked(Pace(600, 60 * SECOND), wishes) == booked(Pace(10, SECOND), wishes)
    assert booked(Pace(36_000, 3600 * SECOND), wishes) == booked(Pace(10, SECOND), wishes)


# --------------------------------------------------------------------------------------------------------------- shares


class Fleet:
    """Workers that ask in a fixed order, ten times a second."""

    def __init__(self, pace: Pace, demands: dict[str, int]) -> None:
        self.pace = pace
        self.demands = demands
        self.calendar = EMPTY
        self.own = dict.fromkeys(demands, 0)
        self.turns: dict[str, list[int]] = {name: [] for name in demands}
        self.now = START

    def work(self, seconds: int) -> dict[str, int]:
        """How many turns each got."""
        before = {name: len(turns) for name, turns in self.turns.items()}
        for _ in range(seconds * 10):
            for name, demand in self.demands.items():
                others = [more for other, more in self.demands.items() if other != name and more]
                ask = Ask("text", self.pace, ahead=(1,) * demand, demand=demand)
                got, self.calendar, share = grant(self.calendar, ask, self.now, self.own[name], others)
                self.own[name] = share.next_at
                self.turns[name] += got.ahead
            self.now += SECOND // 10
        return {name: len(turns) - before[name] for name, turns in self.turns.items()}


def test_each_worker_gets_by_its_demand_whoever_asks_first() -> None:
    fleet = Fleet(Pace(100, SECOND), {"a": 10, "b": 20, "c": 70})
    got = fleet.work(20)
    assert {name: number / 20 for name, number in got.items()} == {
        "a": pytest.approx(10, rel=0.1),
        "b": pytest.approx(20, rel=0.1),
        "c": pytest.approx(70, rel=0.1),
    }


@given(paces, st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_all_shares_together_are_the_pace(pace: Pace, demands: list[int]) -> None:
    fleet = Fleet(pace, {str(number): demand for number, demand in enumerate(demands)})
    fleet.work(3)
    instants = sorted(at for turns in fleet.turns.values() for at in turns)
    assert all(following - one >= pace.span(1) for one, following in pairwise(instants))


@given(st.integers(10, 300), st.integers(1, 8))
def test_nothing_of_the_pace_is_lost_by_sharing_it(limit: int, workers: int) -> None:
    fleet = Fleet(Pace(limit, SECOND), dict.fromkeys(map(str, range(workers)), 200))
    got = fleet.work(4)
    assert sum(got.values()) >= 4 * limit * 0.95


HANDS = st.lists(st.integers(1, 10), max_size=5).map(tuple)


@given(paces, HANDS, HANDS, HANDS, st.integers(0, 50), st.lists(st.integers(1, 50), max_size=4), st.integers(-2, 2))
@example(Pace(3, SECOND), (), (), (1, 1), 7, [5], 0)
def test_what_is_in_hand_is_booked_first_critical_ones_before_all_and_ahead_no_more_than_the_part(
    pace: Pace,
    critical: tuple[int, ...],
    ordinary: tuple[int, ...],
    ahead: tuple[int, ...],
    demand: int,
    others: list[int],
    own: int,
) -> None:
    calendar, own_at = EMPTY, START + own * AHEAD // 2
    expected: list[int | None] = []
    for units in critical:
        at, calendar = calendar.critical(pace, units, START)
        expected.append(at)
    for units in ordinary:
        at, calendar = calendar.ordinary(pace, units, START)
        expected.append(at)
    granted, booked_to, share = grant(
        EMPTY, Ask("text", pace, critical, ordinary, ahead, demand), START, START + own * AHEAD // 2, others
    )
    assert [*granted.critical, *granted.ordinary] == expected
    assert (len(granted.critical), len(granted.ordinary)) == (len(critical), len(ordinary))
    assert (granted.now, granted.workers, share.demand) == (START, 1 + len(others), demand)
    # A part of the pace is as many times slower than the whole as all demands are more than the own.
    for units, at in zip(ahead, granted.ahead, strict=False):
        assert demand
        assert own_at <= START + AHEAD
        assert at == max(calendar.next_at, START)
        _, calendar = calendar.ordinary(pace, units, START)
        own_at = max(own_at, START) + int(Fraction(pace.span(units) * (demand + sum(others)), demand))
    assert (booked_to, share.next_at) == (calendar, own_at)
    if demand and len(granted.ahead) < len(ahead):
        assert own_at > START + AHEAD or calendar.next_at > START + AHEAD


def test_who_needs_nothing_leaves_it_to_the_others() -> None:
    fleet = Fleet(Pace(100, SECOND), {"a": 50, "b": 50})
    fleet.work(2)
    fleet.demands["b"] = 0
    assert fleet.work(2)["a"] == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize("kind", kinds())
def test_a_provider_has_one_sender_at_most_so_that_its_pace_is_the_senders(kind: str) -> None:
    sender = settings_of(kind).model_fields.get("sender")
    assert sender is None or sender.annotation is str
