"""Do the rules together answer with the first instant that all of them permit?"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import (
    HORIZON,
    Calendar,
    Contact,
    FrequencyCap,
    Holidays,
    MinimumGap,
    Only,
    QuietHours,
    Rule,
    Scope,
    SendWindow,
    Subject,
    Verdict,
    closes,
    earliest,
    enforced,
    explain,
    zone,
)
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, HOUR, MINUTE, changes, covers, first, names, shut, utc

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

TOKYO = zone("Asia/Tokyo")
NIGHT = QuietHours("night", time(21), time(8))


def subject(zone: ZoneInfo = TOKYO, channel: str = "sms", campaign: str | None = None) -> Subject:
    return Subject(channel, "news", campaign, (zone,), zone)


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
        assert verdict == Verdict(utc("2026-11-21T23:00"), "daily", last="night")
        assert not verdict.allowed

    # At 08:00 the calendar cap, content with the evening, objects: the day has a contact that is yet to end.
    per_day = FrequencyCap("per day", 1, Calendar.DAY)
    ahead = Contact(utc("2026-11-21T15:10"), utc("2026-11-21T15:20"), "sms", "news", None, TOKYO, "m")
    verdict = earliest(utc("2026-11-21T12:30"), MINUTE, [per_day, NIGHT], subject(), [ahead])
    assert verdict == Verdict(utc("2026-11-22T23:00"), "night", last="night")


def test_rules_that_do_not_apply_are_passed_over() -> None:
    rules = [FrequencyCap("push", 1, DAY, only=Only(channels=frozenset({"push"}))), NIGHT]
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
    held = contact("2026-11-21T03:00", "held")
    told = explain(utc("2026-11-21T12:30"), MINUTE, rules, subject(), [held])
    assert [(ruling.rule, ruling.permits, ruling.next, ruling.held_by) for ruling in told] == [
        ("daily", False, utc("2026-11-22T03:00"), (held,)),
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


# --- against reading the clocks at every minute -----------------------------------------------------

MINUTES = 3 * 1440
PEOPLE = ("hana", "0", "jean", "Zoë", "a-very-long-identifier-of-a-person")
ANY_MINUTE = st.integers(0, 1439).map(lambda minute: time(minute // 60, minute % 60))
DAYS = st.one_of(st.just(frozenset[int]()), st.frozensets(st.integers(0, 6), min_size=1))
RELEASES = st.sampled_from([timedelta(0), timedelta(0), 30 * MINUTE, 3 * HOUR])
ENFORCED = st.sampled_from([100, 100, 100, 50, 0])
SCOPES = st.frozensets(st.sampled_from(Scope), max_size=2)
SCOPE_LABELS = st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"topic"})])
ONLY = st.one_of(
    st.just(Only()),
    st.just(Only()),
    st.builds(
        Only,
        channels=st.sampled_from([frozenset[str](), frozenset({"sms"}), frozenset({"sms", "push"})]),
        categories=st.sampled_from([frozenset[str](), frozenset({"news"}), frozenset({"codes"})]),
        labels=st.sampled_from([(), (("topic", frozenset({"loans", "cards"})),)]),
        countries=st.sampled_from([frozenset[str](), frozenset({"FR"}), frozenset({"JP", "US"})]),
    ),
)
CAPS = st.builds(
    FrequencyCap,
    st.sampled_from(["cap", "another cap"]),
    st.integers(2, 4),
    st.sampled_from([HOUR, 7 * HOUR, DAY, 2 * DAY, Calendar.DAY, Calendar.DAY, Calendar.WEEK, Calendar.MONTH]),
    scope=SCOPES,
    scope_labels=SCOPE_LABELS,
    only=ONLY,
    reserve=st.sampled_from([(), (), ((0, 1),), ((2, 1),)]),
    week_start=st.integers(0, 6),
    enforce=ENFORCED,
)
GAPS = st.builds(
    MinimumGap,
    st.just("gap"),
    st.sampled_from([5 * MINUTE, 2 * HOUR, 9 * HOUR]),
    scope=SCOPES,
    scope_labels=SCOPE_LABELS,
    only=ONLY,
    enforce=ENFORCED,
)
HOLIDAYS = st.builds(
    Holidays, st.just("holidays"), st.sampled_from(["FR", "JP", "US", "WS"]), only=ONLY, enforce=ENFORCED
)
SPECIAL = (
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kiritimati",  # +14
    "Etc/GMT+12",
    "Asia/Kathmandu",  # +05:45
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # changes by half an hour
    "America/St_Johns",  # changed at 00:01 until 2011
    "Asia/Beirut",  # changes at midnight
    "Antarctica/Troll",  # changes by two hours
)
DATES = ("2011-12-30", "2024-02-29", "2024-03-01", "2025-12-31", "2026-01-01", "2026-05-03", "2026-12-25")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[datetime, Subject, list[Rule], list[Contact]]:
    """An instant near a change of clocks or a special date, a person there, rules with edges near it, and contacts."""
    name, instant = draw(st.sampled_from(changes()))
    if draw(st.integers(0, 3)) == 0:
        name, instant = draw(st.sampled_from(SPECIAL)), utc(draw(st.sampled_from(DATES)))
    home = zone(name)
    others = draw(st.lists(st.sampled_from([*SPECIAL, *names()]), max_size=2))
    at = instant + draw(st.integers(-1800, 600)) * MINUTE
    near = [(instant + n * MINUTE).astimezone(home).time() for n in (-120, -90, -60, -30, -1, 0, 1, 30, 60, 90, 600)]
    wall = st.one_of(st.sampled_from(near), ANY_MINUTE)
    quiet = st.builds(
        QuietHours, st.just("quiet"), wall, wall, days=DAYS, release_over=RELEASES, only=ONLY, enforce=ENFORCED
    )
    windows = st.builds(
        SendWindow,
        st.just("window"),
        st.lists(st.tuples(wall, wall), min_size=1, max_size=3).map(tuple),
        days=DAYS,
        release_over=st.sampled_from([timedelta(0), timedelta(0), 30 * timedelta(seconds=1)]),
        only=ONLY,
        enforce=ENFORCED,
    ).filter(lambda window: bool(window.hours))
    rules = draw(st.lists(st.one_of(quiet, windows, quiet, HOLIDAYS, CAPS, GAPS), min_size=1, max_size=4))
    channels, categories = st.sampled_from(["sms", "push"]), st.sampled_from(["news", "codes"])
    campaigns, topics = st.sampled_from(["a", None]), st.sampled_from([{}, {"topic": "loans"}, {"topic": "fees"}])
    subject = Subject(
        channel=draw(channels),
        category=draw(categories),
        campaign=draw(campaigns),
        zones=(home, *map(zone, others)),
        calendar=draw(st.sampled_from([home, zone("Asia/Tokyo")])),
        person=draw(st.sampled_from(PEOPLE)),
        priority=draw(st.integers(0, 3)),
        expires_at=draw(st.one_of(st.none(), st.integers(1, 4000).map(lambda n: at + n * MINUTE))),
        labels=draw(topics),
        country=draw(st.sampled_from([None, "FR", "JP"])),
    )
    history = []
    for begun, lasting in draw(
        st.lists(st.tuples(st.integers(-3000, 120), st.sampled_from([0, 1, 20, 70])), max_size=9)
    ):
        start = at + begun * MINUTE
        where = draw(st.sampled_from([home, home, home, zone("Pacific/Kiritimati")]))
        history.append(
            Contact(
                start,
                start + lasting * MINUTE,
                draw(channels),
                draw(categories),
                draw(campaigns),
                where,
                "m",
                draw(topics),
            )
        )
    return at, subject, rules, history


@settings(max_examples=examples(250), deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds(), st.sampled_from([0, 1, 10, 45]))
def test_the_answer_is_the_first_instant_that_every_definition_permits(
    world: tuple[datetime, Subject, list[Rule], list[Contact]], span: int
) -> None:
    at, subject, rules, history = world
    verdict = earliest(at, span * MINUTE, rules, subject, history)
    expected = first(at, span, rules, subject, history, MINUTES)
    if expected is None:
        assert verdict.at is None or verdict.at > at + (MINUTES - span) * MINUTE
    else:
        assert verdict.at == expected
    assert verdict.allowed == (verdict.at == at)
    assert (verdict.never is None) == (verdict.at is not None)

    told = explain(at, span * MINUTE, rules, subject, history)
    assert [ruling.rule for ruling in told] == [rule.name for rule in rules if covers(rule.only, subject)]
    assert all(ruling.permits == (ruling.next == at) for ruling in told)
    applied = [ruling for ruling in told if ruling.enforced]
    assert next((ruling.rule for ruling in applied if not ruling.permits), None) == verdict.rule
    if verdict.at is not None:
        assert at <= verdict.at <= at + HORIZON
        assert all(ruling.next is not None and ruling.next <= verdict.at for ruling in applied)
        assert earliest(verdict.at, span * MINUTE, rules, subject, history) == Verdict(verdict.at, None)
        assert earliest(at, span * MINUTE, rules[::-1], subject, history).at == verdict.at


@settings(max_examples=examples(120), deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds(), st.integers(1, 59_999_999), st.sampled_from([0, 1, 10]))
def test_later_by_part_of_a_minute_is_never_answered_with_sooner(
    world: tuple[datetime, Subject, list[Rule], list[Contact]], within: int, span: int
) -> None:
    at, subject, rules, history = world
    begun = earliest(at, span * MINUTE, rules, subject, history).at
    later = earliest(at + timedelta(microseconds=within), span * MINUTE, rules, subject, history).at
    if begun is not None and begun > at + timedelta(microseconds=within):
        assert later == begun  # nothing was permitted in between
    elif begun is None:
        assert later is None or later > at + MINUTES * MINUTE
    else:
        assert later is None or later >= at + timedelta(microseconds=within)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_a_rule_of_clocks_shuts_at_the_first_minute_that_its_definition_does_not_permit(
    world: tuple[datetime, Subject, list[Rule], list[Contact]],
) -> None:
    at, subject, rules, _ = world
    ends = []
    for rule in rules:
        if isinstance(rule, (FrequencyCap, MinimumGap)):
            assert rule.shuts(at, subject) is None
        elif rule.first(at, timedelta(0), subject, ()) == at:
            minutes = shut(rule, subject.zones, at, MINUTES)
            found = rule.shuts(at, subject)
            expected = next((at + n * MINUTE for n, is_shut in enumerate(minutes) if is_shut), None)
            assert found == expected if expected else found is None or found >= at + MINUTES * MINUTE
            if found is not None:
                assert rule.first(found, timedelta(0), subject, ()) != found
                if rule.only.covers(subject) and enforced(rule, subject.person):
                    ends.append(found)
    clocks = [rule for rule in rules if not rule.looks_back]
    if earliest(at, timedelta(0), clocks, subject, ()).allowed:
        assert closes(at, rules, subject) == min(ends, default=None)


def test_around_the_latest_change_of_every_zone() -> None:
    rules: list[Rule] = [
        QuietHours("night", time(22), time(2, 30), days=frozenset({5, 6})),
        QuietHours("lunch", time(12), time(13), release_over=30 * MINUTE),
        SendWindow("window", ((time(20), time(1, 45)), (time(3), time(11)), (time(11), time(14)))),
        FrequencyCap("daily", 1, Calendar.DAY),
    ]
    latest = {name: instant for name, instant in changes() if instant.year < 2028}
    for name in names():
        change, there = latest.get(name, utc("2026-03-29T01:00")), zone(name)
        subject = Subject("sms", "news", None, (there,), there, person=name, priority=2)
        at = change - 40 * MINUTE
        history = [Contact(at - 2 * DAY, at - DAY + 45 * MINUTE, "sms", "news", None, there, "m")]
        found = earliest(at, 10 * MINUTE, rules, subject, history).at
        assert found == first(at, 10, rules, subject, history, 700), (name, at)
