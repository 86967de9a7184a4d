"""Is what a person does owed to the last contact before it, in its time, and is who leaves counted by the pressure?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.acts import Deed, attributed, band, believed, reported, too_far_ahead
from providers import Act, Acted, Agent
from tests.unit.deciding import DAY, HOUR, MINUTE, NOON, contact

if TYPE_CHECKING:
    from datetime import datetime

    from ratelimit import Contact

MOMENT = timedelta(microseconds=1)
WINDOWS = {"news": 7 * DAY, "receipt": HOUR, "none": timedelta(0)}


def begun(at: datetime, category: str = "news", **fields: Any) -> Contact:
    """A contact that began at an instant, and took its time."""
    return contact(at + MINUTE, category=category, **fields)._replace(begun=at)


# ---------------------------------------------------------------------------------------------------------- attribution

histories = st.lists(
    st.builds(
        lambda ago, category: begun(NOON - ago * 10 * MINUTE, category),
        st.integers(-6, 1100),
        st.sampled_from(["news", "receipt", "none", "gone"]),
    ),
    max_size=8,
)


@given(histories)
@settings(deadline=None)
def test_it_is_owed_to_the_last_contact_whose_window_it_falls_in(history: list[Contact]) -> None:
    best = None
    for one in history:
        # Minute by minute from the contact on: is this the minute?
        passed = int((NOON - one.begun) / MINUTE)
        length = int(WINDOWS.get(one.category, timedelta(0)) / MINUTE)
        if passed in range(length) and (best is None or best.begun < one.begun):
            best = one
    assert attributed(history, WINDOWS, NOON) == best


@pytest.mark.parametrize(
    ("at", "owed"),
    [
        (NOON - MOMENT, False),
        (NOON, True),
        (NOON + HOUR - MOMENT, True),
        (NOON + HOUR, False),
    ],
)
def test_a_window_begins_with_the_contact_and_ends_before_its_end(at: datetime, owed: bool) -> None:
    one = begun(NOON, "receipt")
    assert attributed([one], WINDOWS, at) == (one if owed else None)


def test_of_two_that_began_at_once_the_first_is_taken() -> None:
    one, other = begun(NOON, holder="a"), begun(NOON, holder="b")
    assert attributed([one, other._replace(ended=NOON + HOUR)], WINDOWS, NOON + HOUR) is one


def test_a_category_that_is_gone_is_owed_nothing() -> None:
    assert attributed([begun(NOON, "gone")], WINDOWS, NOON) is None


# ------------------------------------------------------------------------------------------------------------- pressure


@pytest.mark.parametrize(
    ("contacts", "name"),
    [(0, "0"), (1, "1-2"), (2, "1-2"), (3, "3-5"), (4, "3-5"), (5, "3-5"), (6, "6+"), (7, "6+"), (1000, "6+")],
)
def test_the_bands_are_those_that_reports_speak_of(contacts: int, name: str) -> None:
    assert band(contacts) == name


# --------------------------------------------------------------------------------------------------------------- clocks


@given(st.integers(-(10**12), 10**12).map(lambda us: us * MOMENT))
@example(timedelta(0))
@example(MOMENT)
@settings(deadline=None)
def test_nothing_is_done_later_than_now(off: timedelta) -> None:
    assert believed(NOON + off, NOON) == (NOON + off if off <= timedelta(0) else NOON)


def test_what_says_no_time_is_done_now() -> None:
    assert believed(None, NOON) == NOON


@pytest.mark.parametrize(("ahead", "too_far"), [(5 * MINUTE, False), (5 * MINUTE + MOMENT, True), (-DAY, False)])
def test_a_clock_may_be_five_minutes_ahead(ahead: timedelta, too_far: bool) -> None:
    assert too_far_ahead(NOON + ahead, NOON) is too_far


# -------------------------------------------------------------------------------------------------------------- vendors

NEWS = Acted("a" * 26, Act.ANSWERED, Agent.MACHINE, "voicemail")


def test_what_a_vendor_says_is_told_as_it_says_it() -> None:
    deed = reported(NEWS, "voice")
    assert replace(deed, key="") == Deed(Act.ANSWERED, Agent.MACHINE, "callback", "", attempt="a" * 26, why="voicemail")


@pytest.mark.parametrize(
    ("other", "provider"),
    [
        (NEWS, "voice2"),
        (replace(NEWS, attempt="b" * 26), "voice"),
        (replace(NEWS, act=Act.OPENED), "voice"),
        (replace(NEWS, agent=Agent.HUMAN), "voice"),
    ],
)
def test_only_what_is_the_same_act_of_the_same_attempt_is_told_twice(other: Acted, provider: str) -> None:
    assert reported(other, provider).key != reported(NEWS, "voice").key
    assert reported(replace(NEWS, why=None), "voice").key == reported(NEWS, "voice").key
