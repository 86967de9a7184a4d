"""Are those whom a window held let go evenly, each at a moment of their own, and nobody too early or too late?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import QuietHours, SendWindow, Subject, earliest, zone
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, HOUR, MINUTE, share, utc

ROOT = Path(__file__).parents[2]
TOKYO = zone("Asia/Tokyo")
OVER = 30 * MINUTE
NIGHT = QuietHours("night", time(21), time(8), release_over=OVER)
DAYTIME = SendWindow("daytime", ((time(8), time(21)),), release_over=OVER)
MIDNIGHT, MORNING = utc("2026-11-21T15:00"), utc("2026-11-21T23:00")
PEOPLE = [f"person-{n}" for n in range(10_000)]
BOTH = pytest.mark.parametrize("rule", [NIGHT, DAYTIME], ids=["quiet hours", "send window"])


def subject(person: str, priority: int = 3, expires_at: datetime | None = None, where: str = "Asia/Tokyo") -> Subject:
    return Subject("sms", "news", None, (zone(where),), zone(where), person, priority, expires_at)


def moments(rule: QuietHours | SendWindow, expires_at: datetime | None = None) -> list[datetime]:
    found = [rule.first(MIDNIGHT, MINUTE, subject(person, expires_at=expires_at), ()) for person in PEOPLE]
    return [moment for moment in found if moment is not None]


def chi_square(counts: list[int]) -> float:
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 / mean for count in counts)


@BOTH
def test_persons_are_spread_evenly_over_the_release(rule: QuietHours | SendWindow) -> None:
    found = moments(rule)
    per_minute = Counter((moment - MORNING) // MINUTE for moment in found)
    assert set(per_minute) == set(range(30))  # none before the end, none after the release
    assert max(per_minute.values()) / (len(PEOPLE) / 30) <= 1.3
    # 58.3 with 29 degrees of freedom: one in a thousand even draws is less even
    assert chi_square(list(per_minute.values())) < 58.3


@BOTH
def test_each_moment_is_the_share_of_the_person_alone(rule: QuietHours | SendWindow) -> None:
    for person, moment in zip(PEOPLE, moments(rule), strict=True):
        assert moment == MORNING + share(person) * OVER


@BOTH
def test_every_check_agrees_on_the_moment(rule: QuietHours | SendWindow) -> None:
    for person in PEOPLE[:300]:
        who, moment = subject(person), MORNING + share(person) * OVER
        for at in (MORNING, MORNING + share(person) / 2 * OVER, moment - timedelta(microseconds=1), moment):
            assert rule.first(at, MINUTE, who, ()) == moment
        assert rule.first(moment + timedelta(microseconds=1), MINUTE, who, ()) == moment + timedelta(microseconds=1)


def test_one_person_has_the_same_share_in_every_rule() -> None:
    other = QuietHours("another name", time(23), time(8), release_over=OVER)
    for person in PEOPLE[:300]:
        who = subject(person)
        assert earliest(MIDNIGHT, MINUTE, [NIGHT, DAYTIME, other], who, ()).at == MORNING + share(person) * OVER


@BOTH
def test_critical_ones_go_at_the_end(rule: QuietHours | SendWindow) -> None:
    for person in PEOPLE[:300]:
        assert rule.first(MIDNIGHT, MINUTE, subject(person, priority=0), ()) == MORNING
        assert rule.first(MORNING + MINUTE, MINUTE, subject(person, priority=0), ()) == MORNING + MINUTE
        later = rule.first(MIDNIGHT, MINUTE, subject(person, priority=1), ())
        assert later is not None
        assert later > MORNING


@BOTH
def test_nobody_is_held_past_the_expiry_and_they_are_spread_over_what_is_left(rule: QuietHours | SendWindow) -> None:
    found = moments(rule, expires_at=MORNING + 11 * MINUTE)
    assert all(moment >= MORNING and moment + MINUTE <= MORNING + 11 * MINUTE for moment in found)
    per_minute = Counter((moment - MORNING) // MINUTE for moment in found)
    assert len(per_minute) == 10
    assert chi_square(list(per_minute.values())) < 27.9  # one in a thousand, 9 degrees of freedom
    for left in (timedelta(0), MINUTE):  # no time to spread over: at once
        assert set(moments(rule, expires_at=MORNING + left)) == {MORNING}
    assert set(moments(rule, expires_at=MORNING - HOUR)) == {MORNING}
    # far off: as if there were none
    assert moments(rule, expires_at=MORNING + OVER + MINUTE) == moments(rule)


def test_nobody_is_held_until_it_is_quiet_again() -> None:
    brief = QuietHours("x", time(8, 10), time(8), release_over=OVER)  # ten minutes a day
    narrow = SendWindow("x", ((time(8), time(8, 31)),), release_over=OVER)
    for person in PEOPLE[:300]:
        assert brief.first(MIDNIGHT, MINUTE, subject(person), ()) == MORNING + share(person) * (
            9 * MINUTE - timedelta(microseconds=1)
        )
        moment = narrow.first(MIDNIGHT, 10 * MINUTE, subject(person), ())
        assert moment == MORNING + share(person) * (21 * MINUTE - timedelta(microseconds=1))
    assert narrow.first(MIDNIGHT, 31 * MINUTE, subject("hana"), ()) is None


def test_a_window_that_opens_days_ahead_is_known_to_its_end() -> None:
    rule = SendWindow("x", ((time(23, 50), time(0, 10)),), days=frozenset({0}), release_over=19 * MINUTE)
    opens = utc("2026-11-23T23:50")  # a Monday; asked on Saturday
    for person in PEOPLE[:100]:
        found = rule.first(utc("2026-11-21T00:10"), 10 * MINUTE, subject(person, where="UTC"), ())
        assert found == opens + share(person) * (10 * MINUTE - timedelta(microseconds=1))


def test_windows_that_touch_release_once() -> None:
    rule = SendWindow("x", ((time(8), time(12)), (time(12), time(13)), (time(19), time(20))), release_over=OVER)
    noon, who = MORNING + 4 * HOUR, subject("person-1")
    assert rule.first(noon, MINUTE, who, ()) == noon
    assert rule.first(noon + 2 * HOUR, MINUTE, who, ()) == MORNING + 11 * HOUR + share("person-1") * OVER


@pytest.mark.parametrize(
    ("where", "at", "end"),
    [
        ("Europe/Berlin", "2026-03-28T22:00", "2026-03-29T06:00"),
        ("Europe/Berlin", "2026-10-24T22:00", "2026-10-25T07:00"),
        ("Pacific/Apia", "2011-12-30T08:00", "2011-12-30T18:00"),
        ("Australia/Lord_Howe", "2026-04-04T12:00", "2026-04-04T21:30"),
    ],
)
def test_it_is_time_that_passes_after_the_end_whatever_clocks_did(where: str, at: str, end: str) -> None:
    for rule in (NIGHT, DAYTIME):
        found = rule.first(utc(at), MINUTE, subject("hana", where=where), ())
        assert found == utc(end) + share("hana") * OVER


def test_where_quiet_comes_back_within_the_release_it_ends_twice() -> None:
    # 02:30 is read at 00:30 and at 01:30 UTC; the first end leaves half an hour until it is 02:00 again
    rule, who = QuietHours("x", time(21), time(2, 30), release_over=HOUR), subject("hana", where="Europe/Berlin")
    room = 30 * MINUTE - MINUTE - timedelta(microseconds=1)
    assert rule.first(utc("2026-10-24T22:00"), MINUTE, who, ()) == utc("2026-10-25T00:30") + share("hana") * room
    assert rule.first(utc("2026-10-25T01:00"), MINUTE, who, ()) == utc("2026-10-25T01:30") + share("hana") * HOUR


def test_with_several_zones_it_begins_where_quiet_ends_last() -> None:
    zones = (zone("America/New_York"), zone("America/Los_Angeles"))
    who = Subject("sms", "news", None, zones, zones[0], "hana", 3)
    assert NIGHT.first(utc("2026-11-21T06:00"), MINUTE, who, ()) == utc("2026-11-21T16:00") + share("hana") * OVER


def test_other_processes_agree() -> None:
    program = """
from datetime import UTC, datetime, time, timedelta
from ratelimit import QuietHours, Subject, zone
rule = QuietHours("night", time(21), time(8), release_over=timedelta(minutes=30))
there = zone("Asia/Tokyo")
for n in range(50):
    who = Subject("sms", "news", None, (there,), there, f"person-{n}", 3)
    print(rule.first(datetime(2026, 11, 21, 15, tzinfo=UTC), timedelta(minutes=1), who, ()).isoformat())
"""
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert told == [(MORNING + share(f"person-{n}") * OVER).isoformat() for n in range(50)]


def test_explanations_tell_the_person_s_own_moment() -> None:
    who = subject("hana")
    turn = f"{(MORNING + share('hana') * OVER).astimezone(TOKYO):%H:%M:%S on %Y-%m-%d} (Asia/Tokyo)"
    assert NIGHT.explain(MIDNIGHT, MINUTE, who, ()).why == (
        "00:00 in Asia/Tokyo is within quiet hours 21:00 to 08:00; free from 08:00 on 2026-11-22 (Asia/Tokyo); "
        f"this person's turn within 30 min after it: {turn}"
    )
    assert NIGHT.explain(MORNING, MINUTE, who, ()).why == (
        f"quiet hours 21:00 to 08:00 are over; this person's turn within 30 min after it: {turn}"
    )
    assert DAYTIME.explain(MIDNIGHT, MINUTE, who, ()).why == (
        "00:00 in Asia/Tokyo is outside the send window 08:00 to 21:00; it opens at 08:00 on 2026-11-22 (Asia/Tokyo); "
        f"this person's turn within 30 min after it: {turn}"
    )
    assert DAYTIME.explain(MORNING, MINUTE, who, ()).why == (
        f"the send window 08:00 to 21:00 is open; this person's turn within 30 min after it: {turn}"
    )
    assert "turn" not in NIGHT.explain(MIDNIGHT, MINUTE, subject("hana", priority=0), ()).why


@settings(max_examples=examples(100), deadline=None)
@given(
    st.text(max_size=8),
    st.integers(0, 12 * 60),
    st.integers(-60, 120),
    st.sampled_from([0, 1, 10]),
    st.sampled_from([NIGHT, DAYTIME]),
)
def test_what_can_be_sent_before_it_expires_never_expires_for_the_release(
    person: str, after: int, expires: int, span: int, rule: QuietHours | SendWindow
) -> None:
    at, expires_at = MIDNIGHT + after * MINUTE, MORNING + expires * MINUTE
    who = subject(person, expires_at=expires_at)
    at_once = rule.first(at, span * MINUTE, subject(person, priority=0), ())
    found = rule.first(at, span * MINUTE, who, ())
    assert at_once is not None
    assert found is not None
    assert at_once <= found <= at_once + OVER
    if at <= MORNING and at_once + span * MINUTE <= expires_at:
        assert found + span * MINUTE <= expires_at


def test_days_in_a_row_release_every_morning() -> None:
    who = subject("hana")
    mornings = [NIGHT.first(MIDNIGHT + n * DAY, MINUTE, who, ()) for n in range(5)]
    assert mornings[0] == MORNING + share("hana") * OVER
    assert all(later - earlier == DAY for earlier, later in pairwise(m for m in mornings if m))
