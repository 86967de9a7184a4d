"""Is a provider that fails left alone soon, found to be well again soon, and never for a fault that is not its own?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.health import (
    CUT,
    ENOUGH,
    IN_A_ROW,
    INTERVAL,
    LONGEST,
    PROBES,
    PROOF,
    SHORTEST,
    SLOW,
    SLOW_IN_A_ROW,
    WINDOW,
    Report,
    Result,
    State,
    Vitals,
    read,
    result_of,
    written,
)
from gateway.message import AttemptState
from gateway.outcome import Outcome, accepted, bug, failed
from providers import Misconfigured, ProviderError, Rejected, Throttled, Unavailable, Unconfirmed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MOMENT = timedelta(milliseconds=10)


class Way:
    """One way, and a clock that each call moves."""

    def __init__(self, worker: str = "a") -> None:
        self.vitals = Vitals(worker)
        self.now = NOON

    def calls(self, *what: str, every: timedelta = MOMENT) -> Way:
        """``f``: failed, ``s``: slow, anything else: well."""
        for kind in what:
            self.now += every
            self.vitals.record(Result(self.now - every / 2, kind == "f", kind == "s"), self.now)
        return self

    def waits(self, length: timedelta) -> Way:
        self.now += length
        return self

    @property
    def state(self) -> State:
        return self.vitals.state(self.now)

    @property
    def cut(self) -> float:
        return self.vitals.cut(self.now)

    def opened(self) -> Way:
        return self.calls(*"f" * IN_A_ROW)

    def half_open(self) -> Way:
        self.opened()
        until = self.vitals.report(self.now).until
        assert until is not None
        self.now = until
        return self


# ----------------------------------------------------------------------------------------------------- what a call says

ABOUT_OTHERS = [failed(kind("c")) for kind in (Rejected, Unreachable, Throttled)] + [bug()]
ABOUT_OTHERS.append(failed(Unavailable("deadline")))


@pytest.mark.parametrize("outcome", ABOUT_OTHERS)
def test_what_is_about_the_message_the_address_the_pace_or_us_says_nothing(outcome: Outcome) -> None:
    assert result_of(outcome, NOON, NOON + SECOND) is None
    assert result_of(outcome, NOON, NOON + 60 * SECOND) is None


@pytest.mark.parametrize("kind", [Unavailable, Misconfigured, Unconfirmed])
def test_what_the_provider_did_not_do_is_its_failure(kind: type[ProviderError]) -> None:
    assert result_of(failed(kind("c")), NOON, NOON + SECOND) == Result(NOON, failed=True)


def test_what_takes_long_is_slow_even_if_it_goes_well() -> None:
    assert result_of(accepted("r"), NOON, NOON + SLOW) == Result(NOON, failed=False)
    assert result_of(accepted("r"), NOON, NOON + SLOW + MOMENT) == Result(NOON, failed=False, slow=True)
    assert result_of(Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout"), NOON, NOON + 2 * SLOW) == Result(
        NOON, failed=True, slow=True
    )


# ------------------------------------------------------------------------------------------------------------- it opens

spans = st.integers(1, 20_000).map(lambda ms: timedelta(milliseconds=ms))
histories = st.lists(st.tuples(st.sampled_from("fsww"), spans), max_size=120)


def after(history: Sequence[tuple[str, timedelta]]) -> Way:
    way = Way()
    for kind, passes in history:
        way.calls(kind, every=passes)
    return way


@given(histories, st.integers(1, 10_000))
@settings(max_examples=300, deadline=None)
def test_whatever_was_before_what_goes_on_failing_is_left_alone_after_five(
    history: list[tuple[str, timedelta]], every: int
) -> None:
    way = after(history).calls(*"f" * IN_A_ROW, every=timedelta(milliseconds=every))
    assert way.state is not State.CLOSED


@given(st.lists(st.tuples(st.just("w"), spans), max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_goes_well_is_never_left_alone_and_keeps_its_weight(history: list[tuple[str, timedelta]]) -> None:
    way = after(history)
    assert (way.state, way.cut) == (State.CLOSED, 0)


def test_four_failures_in_a_row_are_bad_luck() -> None:
    assert Way().calls(*"ffffwffffwffff").state is State.CLOSED


def test_failures_that_lie_far_apart_are_not_in_a_row() -> None:
    way = Way()
    for _ in range(20):
        way.calls("f").waits(WINDOW + SECOND)
    assert way.state is State.CLOSED


def test_it_opens_when_half_of_the_calls_fail_though_never_many_in_a_row() -> None:
    assert Way().calls(*"wf" * (ENOUGH // 2 - 1)).state is State.CLOSED
    assert Way().calls(*"wf" * (ENOUGH // 2)).state is State.OPEN


def test_it_opens_when_most_calls_are_slow() -> None:
    assert Way().calls(*"sw" * 50).state is State.CLOSED
    assert Way().calls(*"wssss" * 4).state is State.OPEN


def test_what_is_older_than_the_window_is_forgotten() -> None:
    way = Way().calls(*"wf" * (ENOUGH // 2 - 1)).waits(WINDOW + SECOND)
    assert way.calls(*"wf" * (ENOUGH // 2 - 1)).state is State.CLOSED


# ------------------------------------------------------------------------------------------------ half open, and closed


def test_it_is_half_open_after_a_while_and_closes_when_probes_succeed() -> None:
    way = Way().half_open()
    assert (way.state, way.now - NOON - IN_A_ROW * MOMENT) == (State.HALF_OPEN, SHORTEST)
    assert way.calls(*"w" * (PROOF - 1)).state is State.HALF_OPEN
    assert way.calls("w").state is State.CLOSED
    assert way.calls(*"wwww").state is State.CLOSED


@pytest.mark.parametrize("kind", ["f", "s"])
def test_each_probe_that_fails_leaves_it_alone_for_longer_up_to_a_minute(kind: str) -> None:
    way = Way().half_open()
    lengths = []
    for _ in range(5):
        way.calls("w", kind)
        assert way.state is State.OPEN
        until = way.vitals.report(way.now).until
        assert until is not None
        lengths.append(until - way.now)
        way.now = until
    assert lengths == [2 * SHORTEST, 4 * SHORTEST, LONGEST, LONGEST, LONGEST]


def test_who_fails_again_soon_after_it_closed_is_left_alone_for_longer_and_later_no_more() -> None:
    again = Way().half_open().calls(*"w" * PROOF).opened()
    assert again.vitals.report(again.now).until == again.now + 2 * SHORTEST
    later = Way().half_open().calls(*"w" * PROOF).waits(2 * WINDOW).opened()
    assert later.vitals.report(later.now).until == later.now + SHORTEST


def test_a_call_that_began_before_it_opened_changes_nothing() -> None:
    for kind in "fsw":
        way = Way().half_open()
        before = way.vitals.report(way.now)
        for _ in range(2 * PROOF):
            way.vitals.record(Result(NOON, kind == "f", kind == "s"), way.now)
        assert way.vitals.report(way.now) == before


def test_what_was_counted_before_it_opened_is_not_held_against_it_when_it_has_closed() -> None:
    way = Way().calls(*"wf" * (ENOUGH // 2)).waits(SHORTEST).calls(*"w" * PROOF)
    hung = Result(NOON, failed=True, slow=True)
    for _ in range(ENOUGH):
        way.vitals.record(hung, way.now)
    assert way.calls("f").state is State.CLOSED
    assert way.vitals.report(way.now).calls == 1


def test_where_it_is_used_although_it_is_open_its_successes_close_it_and_its_failures_do_not_prolong_it() -> None:
    way = Way().opened()
    until = way.vitals.report(way.now).until
    assert way.calls("f", "w", "f").vitals.report(way.now).until == until
    assert way.calls(*"w" * PROOF).state is State.CLOSED


@given(st.integers(1, 40), st.integers(0, 200))
def test_all_workers_together_let_exactly_so_many_probes_go_in_an_interval(workers: int, seconds: int) -> None:
    way = Way().half_open().waits(seconds * SECOND)
    assert sum(way.vitals.probes(way.now, place, workers) for place in range(workers)) == PROBES


def test_every_worker_has_its_turn_to_probe() -> None:
    way = Way().half_open()
    allowed = set()
    for _ in range(4):
        allowed |= {place for place in range(20) if way.vitals.probes(way.now, place, 20)}
        way.waits(INTERVAL)
    assert allowed == set(range(20))


def test_nobody_probes_what_is_open_or_closed() -> None:
    assert Way().vitals.probes(NOON, 0, 1) == 0
    way = Way().opened()
    assert way.vitals.probes(way.now, 0, 1) == 0


# -------------------------------------------------------------------------------------------------------------- weights


@given(histories)
@settings(max_examples=300, deadline=None)
def test_points_are_within_bounds_and_come_back_when_nothing_is_held_against_it(
    history: list[tuple[str, timedelta]],
) -> None:
    way = after(history)
    assert 0 <= way.cut <= 100
    cuts = [way.vitals.cut(way.now + minutes * WINDOW) for minutes in range(12)]
    assert cuts == sorted(cuts, reverse=True)
    assert cuts[-1] == 0


@pytest.mark.parametrize("kind", ["f", "s"])
def test_ten_points_go_with_every_minute_of_trouble_and_come_back_with_every_minute_of_peace(kind: str) -> None:
    way = Way()
    seen = []
    for _ in range(5):
        way.calls(*[kind, *"wwww"] * 12, every=SECOND)
        seen.append(way.cut)
    assert seen == [CUT, 2 * CUT, 3 * CUT, 4 * CUT, 5 * CUT]
    assert way.state is State.CLOSED
    way.calls(*"w" * 120, every=SECOND)
    left = way.cut
    assert way.calls(*"w" * 60, every=SECOND).cut == pytest.approx(left - CUT)
    assert way.calls(*"w" * 360, every=SECOND).cut == 0


def test_a_few_failures_among_many_calls_cost_nothing() -> None:
    assert Way().calls(*["f", *"w" * 19] * 40, every=SECOND / 4).cut == 0


def test_however_bad_it_goes_no_more_is_off_than_there_is() -> None:
    way = Way()
    for _ in range(30):
        way.calls(*"fwww" * 15, every=SECOND)
    assert way.cut == 100


# --------------------------------------------------------------------------------------------------------------- others


@given(histories, st.integers(-90_000, 90_000))
@settings(max_examples=100, deadline=None)
def test_a_report_means_the_same_by_the_readers_clock(history: list[tuple[str, timedelta]], skew: int) -> None:
    way = after(history)
    report = way.vitals.report(way.now)
    by = timedelta(milliseconds=skew)
    told = json.loads(json.dumps(written(report, way.now)))
    heard = read(told | {"of a later version": 1}, way.now + by)
    for name in Report.__slots__:
        mine, theirs = getattr(report, name), getattr(heard, name)
        assert abs(theirs - mine - by) <= timedelta(milliseconds=1) if isinstance(mine, datetime) else theirs == mine


def hears(way: Way, *others: Way, skew: timedelta = timedelta(0)) -> Way:
    """It is told what the others know, each instant late by ``skew``; its clock is set to theirs."""
    now = max(way.now, *(other.now for other in others))
    reports = [read(written(other.vitals.report(now), now), now + skew) for other in others]
    way.now = now
    way.vitals.hear(reports, way.now)
    return way


def test_what_one_worker_has_found_out_the_others_need_not() -> None:
    one, other = Way("a").opened(), Way("b").calls(*"www")
    hears(other, one)
    assert other.state is State.OPEN
    assert other.vitals.mark == one.vitals.mark
    until = one.vitals.report(one.now).until
    assert until is not None
    other.now = until
    assert hears(other, one).state is State.HALF_OPEN


def test_what_a_worker_sees_itself_goes_before_what_it_hears() -> None:
    """A worker whose own network is broken closes nothing for those whose is not."""
    cut_off, sound = Way("a").opened(), Way("b")
    sound.now = cut_off.now
    sound.calls("w")
    assert hears(sound, cut_off).state is State.CLOSED
    sound.calls("f")
    assert hears(sound, cut_off).state is State.OPEN


def test_failures_of_several_workers_add_up_to_a_row() -> None:
    others = [Way(name).calls("f") for name in "bcde"]
    assert hears(Way("a"), *others).state is State.CLOSED
    assert hears(Way("a").calls("f"), *others).state is State.OPEN
    succeeded = Way("f")
    succeeded.now = NOON + SECOND
    assert hears(Way("a").calls("f"), *others, succeeded.calls("w")).state is State.CLOSED


def test_shares_are_those_of_all_workers() -> None:
    others = [Way(name).calls(*"fw" * 2) for name in "bcde"]
    assert hears(Way("a").calls("w"), *others).state is State.CLOSED
    assert hears(Way("a").calls(*"fwfw"), *others).state is State.OPEN


def test_probes_of_all_workers_close_it_for_all() -> None:
    one = Way("a").half_open()
    other = hears(Way("b"), one)
    one.calls(*"w" * (PROOF - 2))
    other.calls(*"ww")
    assert hears(one, other).state is State.CLOSED
    assert hears(other, one).state is State.CLOSED


def test_what_was_proved_before_a_probe_failed_proves_nothing_after_it() -> None:
    one = Way("a").half_open()
    other = hears(Way("b"), one)
    other.calls(*"w" * (PROOF - 1))
    one.calls("f").waits(2 * SHORTEST)
    one.calls("w")
    assert hears(one, other).state is State.HALF_OPEN


def test_a_probe_that_fails_elsewhere_leaves_it_alone_here() -> None:
    one = Way("a").half_open()
    other = hears(Way("b"), one)
    one.calls("f")
    assert hears(other, one).state is State.OPEN


def test_who_hears_late_that_it_opened_does_not_open_it_again() -> None:
    one = Way("a").opened()
    other = hears(Way("b"), one)
    one.waits(SHORTEST).calls(*"w" * PROOF)
    assert hears(one, other).state is State.CLOSED
    assert hears(other, one).state is State.CLOSED
    assert hears(one, other).state is State.CLOSED


def test_points_are_off_for_all_workers_and_only_once() -> None:
    one = Way("a").calls(*"fwwww" * 5)
    assert one.cut == CUT
    other = hears(Way("b"), one)
    assert other.cut == CUT
    since = one.vitals.report(one.now).cut_at
    hears(one, other, skew=3 * SECOND)
    assert (one.cut, one.vitals.report(one.now).cut_at) == (CUT, since)


def test_news_that_goes_round_late_stays_old_news() -> None:
    one = Way("a").opened()
    other = hears(Way("b"), one, skew=SECOND)
    until = one.vitals.report(one.now).until
    for _ in range(10):
        hears(one, other, skew=SECOND)
        hears(other, one, skew=SECOND)
    assert one.vitals.report(one.now).until == until
    assert (other.vitals.report(other.now).until or NOON) - (until or NOON) <= SECOND


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("fswwh"), spans), max_size=150), spans)
@settings(max_examples=200, deadline=None)
def test_who_has_seen_nothing_itself_believes_who_has_the_latest_news(
    history: list[tuple[int, str, timedelta]], since: timedelta
) -> None:
    ways = [Way(name) for name in "abcd"]
    now = NOON
    for index, kind, passes in history:
        now += passes
        way = ways[index]
        way.now = now
        if kind == "h":
            hears(way, *(other for other in ways if other is not way))
        else:
            way.vitals.record(Result(now, kind == "f", kind == "s"), now)
    for way in ways:
        way.now = now + since
    newcomer = hears(Way("z"), *ways)
    changed = [way for way in ways if way.vitals.report(way.now).changed]
    if not changed:
        return
    latest = max(changed, key=lambda way: way.vitals.report(way.now).changed or NOON)
    if latest.state is not State.CLOSED:
        assert newcomer.vitals.mark in (latest.vitals.mark, "z/1")
        assert newcomer.state is latest.state or newcomer.vitals.mark == "z/1"
    else:
        assert newcomer.state is State.CLOSED or newcomer.vitals.mark == "z/1"  # by what all have seen together


def test_it_opens_when_calls_are_slow_in_a_row_however_well_it_did_before() -> None:
    way = Way().calls(*"." * 1000)
    assert way.calls(*"s" * (SLOW_IN_A_ROW - 1)).state is State.CLOSED
    assert way.calls("s").state is State.OPEN
    again = Way().calls(*"." * 1000, *"s" * (SLOW_IN_A_ROW - 1), ".", *"s" * (SLOW_IN_A_ROW - 1))
    assert again.state is State.CLOSED
