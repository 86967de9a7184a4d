"""Do the rules together answer with the first instant that all of them permit?"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import (
    HORIZON,
    Calendar,
    Contact,
    FrequencyCap,
    MinimumGap,
    QuietHours,
    Rule,
    Scope,
    Subject,
    Verdict,
    earliest,
    explain,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TOKYO = ZoneInfo("Asia/Tokyo")
NIGHT = QuietHours("night", time(21), time(8))


def subject(zone: ZoneInfo = TOKYO, channel: str = "sms", campaign: str | None = None) -> Subject:
    return Subject(channel, "news", campaign, (zone,), zone)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def contact(ended: str, message: str = "m", channel: str = "sms") -> Contact:
    return Contact(utc(ended) - MINUTE, utc(ended), channel, "news", None, TOKYO, message)


def test_without_rules_now_is_permitted() -> None:
    verdict = earliest(utc("2026-11-21"), MINUTE, [], subject(), [])
    assert verdict == Verdict(utc("2026-11-21"), None)
    assert verdict.allowed


def test_a_cap_that_frees_in_quiet_hours_means_their_end_and_is_asked_again() -> None:
    daily = FrequencyCap("daily", 1, DAY)
    at, frees = utc("2026-11-21T10:00"), [contact("2026-11-20T12:30")]  # the place frees at 21:30 in Tokyo
    for rules in ([daily, NIGHT], [NIGHT, daily]):
        verdict = earliest(at, MINUTE, rules, subject(), frees)
        assert verdict == Verdict(utc("2026-11-21T23:00"), "daily")
        assert not verdict.allowed

    # At 08:00 the calendar cap, content with the evening, objects: the day has a contact that is yet to end.
    per_day = FrequencyCap("per day", 1, Calendar.DAY)
    ahead = Contact(utc("2026-11-21T15:10"), utc("2026-11-21T15:20"), "sms", "news", None, TOKYO, "m")
    verdict = earliest(utc("2026-11-21T12:30"), MINUTE, [per_day, NIGHT], subject(), [ahead])
    assert verdict == Verdict(utc("2026-11-22T23:00"), "night")


def test_rules_that_do_not_apply_are_passed_over() -> None:
    rules = [FrequencyCap("push", 1, DAY, channels=frozenset({"push"})), NIGHT]
    history = [contact("2026-11-21T01:00", channel="push")]
    assert earliest(utc("2026-11-21T02:00"), MINUTE, rules, subject(), history).allowed
    assert [told.rule for told in explain(utc("2026-11-21T02:00"), MINUTE, rules, subject(), history)] == ["night"]
    assert earliest(utc("2026-11-21T02:00"), MINUTE, rules, subject(channel="push"), history).rule == "push"


def test_never_names_the_rule_and_who_objected_first() -> None:
    always = QuietHours("always", time(0), time(0))
    daily = FrequencyCap("daily", 1, DAY)
    history = [contact("2026-11-21T01:00")]
    verdict = earliest(utc("2026-11-21T02:00"), MINUTE, [daily, always], subject(), history)
    assert verdict == Verdict(None, "daily", "always")
    assert not verdict.allowed
    assert earliest(utc("2026-11-21T02:00"), MINUTE, [always], subject(), []) == Verdict(None, "always", "always")


def test_rules_that_are_never_content_together_are_never() -> None:
    rules = [QuietHours("day", time(8), time(21)), NIGHT]
    verdict = earliest(utc("2026-11-21T02:00"), MINUTE, rules, subject(), [])
    assert (verdict.at, verdict.rule) == (None, "day")


def test_each_rule_is_explained_for_the_instant_asked_about() -> None:
    rules = [FrequencyCap("daily", 1, DAY), MinimumGap("gap", HOUR), NIGHT]
    told = explain(utc("2026-11-21T12:30"), MINUTE, rules, subject(), [contact("2026-11-21T03:00", "held")])
    assert [(ruling.rule, ruling.permits, ruling.next, ruling.held_by) for ruling in told] == [
        ("daily", False, utc("2026-11-22T03:00"), ("held",)),
        ("gap", True, utc("2026-11-21T12:30"), ()),
        ("night", False, utc("2026-11-21T23:00"), ()),
    ]


def test_instants_are_answered_in_utc_and_must_be_aware() -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=timezone(9 * HOUR))
    verdict = earliest(at, MINUTE, [NIGHT], subject(), [])
    assert verdict.at == at
    assert verdict.at.tzinfo is UTC
    with pytest.raises(ValueError, match="zone"):
        earliest(at.replace(tzinfo=None), MINUTE, [NIGHT], subject(), [])
    with pytest.raises(ValueError, match="span"):
        earliest(at, -MINUTE, [NIGHT], subject(), [])
    with pytest.raises(ValueError, match="zone"):
        Subject("sms", "news", None, (), TOKYO)


# --- against brute force -------------------------------------------------------------------------

START = utc("2026-03-28T06:00")  # Berlin changes its clocks on the 29th
MINUTES = 4 * 1440


def minute_is_free(rule: Rule, instant: datetime, zone: ZoneInfo, channel: str, history: list[Contact]) -> bool:
    """What the definition of each rule says of one instant."""
    match rule:
        case QuietHours(start=start, end=end):
            reading = instant.astimezone(zone).strftime("%H:%M")
            hours = (f"{start:%H:%M}", f"{end:%H:%M}")
            return not (
                hours[0] <= reading < hours[1] or hours[1] < hours[0] <= reading or reading < hours[1] < hours[0]
            )
        case MinimumGap(gap=gap):
            return all(instant - c.ended >= gap for c in history)
        case FrequencyCap(limit=limit, per=timedelta() as per, scope=scope):
            mine = [c for c in history if not scope or c.channel == channel]
            return sum(c.begun <= instant < c.ended + per for c in mine) < limit
        case FrequencyCap(limit=limit, per=per):
            form = {"day": "%Y-%m-%d", "week": "%G-%V", "month": "%Y-%m"}[str(per)]
            window = instant.astimezone(zone).strftime(form)
            return (
                sum(window in {d.astimezone(c.zone).strftime(form) for d in (c.begun, c.ended)} for c in history)
                < limit
            )
    raise AssertionError(rule)


ANY_RULE = st.one_of(
    st.builds(
        QuietHours,
        st.just("quiet"),
        st.sampled_from([time(21), time(1, 30), time(22, 15), time(12)]),
        st.sampled_from([time(8), time(2, 30), time(13), time(3)]),
    ),
    st.builds(MinimumGap, st.just("gap"), st.sampled_from([5 * MINUTE, 2 * HOUR, 9 * HOUR])),
    st.builds(
        FrequencyCap,
        st.just("cap"),
        st.integers(1, 3),
        st.sampled_from([HOUR, 7 * HOUR, DAY, Calendar.DAY, Calendar.DAY, Calendar.WEEK]),
    ),
    st.builds(FrequencyCap, st.just("scoped"), st.integers(1, 2), st.just(DAY), st.just(frozenset({Scope.CHANNEL}))),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(ANY_RULE, max_size=4),
    st.lists(st.tuples(st.integers(-2000, 0), st.integers(0, 30), st.sampled_from(["sms", "push"])), max_size=8),
    st.integers(0, 1440),
    st.sampled_from([0, 1, 10]),
    st.sampled_from(["Europe/Berlin", "Asia/Tokyo", "Asia/Beirut", "America/Los_Angeles"]),
)
def test_the_answer_is_the_first_minute_that_every_definition_permits(
    rules: list[Rule], intervals: list[tuple[int, int, str]], after: int, span: int, name: str
) -> None:
    at, zone = START + after * MINUTE, ZoneInfo(name)
    history = [
        Contact(at + b * MINUTE, at + (b + n) * MINUTE, channel, "news", None, zone, str(b))
        for b, n, channel in intervals
    ]
    who = subject(zone)
    verdict = earliest(at, span * MINUTE, rules, who, history)
    run, expected = 0, None
    for n in range(MINUTES):
        instant = at + n * MINUTE
        run = run + 1 if all(minute_is_free(rule, instant, zone, "sms", history) for rule in rules) else 0
        if run > span:
            expected = instant - span * MINUTE
            break
    if expected is None:
        assert verdict.at is None or verdict.at > at + (MINUTES - span - 1) * MINUTE
    else:
        assert verdict.at == expected
    assert verdict.allowed == (verdict.at == at)
    assert (verdict.never is None) == (verdict.at is not None)
    told = explain(at, span * MINUTE, rules, who, history)
    assert next((ruling.rule for ruling in told if not ruling.permits), None) == verdict.rule
    assert all(ruling.permits == (ruling.next == at) for ruling in told)
    if verdict.at is not None:
        assert at <= verdict.at <= at + HORIZON
        assert all(ruling.next is not None and ruling.next <= verdict.at for ruling in told)
        assert earliest(verdict.at, span * MINUTE, rules, who, history) == Verdict(verdict.at, None)
        assert earliest(at, span * MINUTE, rules[::-1], who, history).at == verdict.at
