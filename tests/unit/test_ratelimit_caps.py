"""Do caps and gaps hold, on rolling windows and on every zone's calendar, and refuse nothing that has a place?"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import (
    HORIZON,
    Calendar,
    Contact,
    FrequencyCap,
    MinimumGap,
    Only,
    Scope,
    Subject,
    earliest,
    zone,
)
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, HOUR, MINUTE, changes, first, utc


def subject(
    where: str = "Europe/Berlin",
    channel: str = "sms",
    category: str = "news",
    campaign: str | None = None,
    priority: int = 3,
    labels: dict[str, str] | None = None,
    country: str | None = None,
) -> Subject:
    return Subject(
        channel, category, campaign, (zone(where),), zone(where), "hana", priority, labels=labels or {}, country=country
    )


def contact(
    begun: str | datetime,
    ended: str | datetime | None = None,
    where: str = "Europe/Berlin",
    channel: str = "sms",
    category: str = "news",
    campaign: str | None = None,
    message: str = "m",
    labels: dict[str, str] | None = None,
) -> Contact:
    start = utc(begun) if isinstance(begun, str) else begun
    end = start if ended is None else utc(ended) if isinstance(ended, str) else ended
    return Contact(start, end, channel, category, campaign, zone(where), message, labels or {})


# --- rolling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "history", "at", "free"),
    [
        (1, [], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        # the place frees exactly a window after the end
        (1, [("2026-11-20T08:59:00", "2026-11-20T09:00:00")], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        (1, [("2026-11-20T08:59:00", "2026-11-20T09:00:00")], "2026-11-21T08:59:59", "2026-11-21T09:00:00"),
        # under way: its end lies ahead
        (1, [("2026-11-21T08:59:50", "2026-11-21T09:00:20")], "2026-11-21T09:00:00", "2026-11-22T09:00:20"),
        # the earliest of two frees first, and it is the end that counts
        (
            2,
            [("2026-11-21T01:00:00", "2026-11-21T03:00:00"), ("2026-11-21T02:00:00", "2026-11-21T02:00:01")],
            "2026-11-21T09:00:00",
            "2026-11-22T02:00:01",
        ),
        # over the limit, as after a limit was lowered: two must free
        (
            2,
            [("2026-11-21T01:00:00", None), ("2026-11-21T02:00:00", None), ("2026-11-21T03:00:00", None)],
            "2026-11-21T09:00:00",
            "2026-11-22T02:00:00",
        ),
        # a contact counts from its beginning: an earlier attempt that is over by then fits in before
        (1, [("2026-11-21T09:02:00", "2026-11-21T09:03:00")], "2026-11-21T09:00:00", "2026-11-21T09:00:00"),
        (1, [("2026-11-21T09:01:00", "2026-11-21T09:03:00")], "2026-11-21T09:00:00", "2026-11-22T09:03:00"),
    ],
)
def test_a_rolling_cap(limit: int, history: list[tuple[str, str | None]], at: str, free: str) -> None:
    cap = FrequencyCap("daily", limit, DAY)
    contacts = [contact(begun, ended) for begun, ended in history]
    assert cap.first(utc(at), MINUTE, subject(), contacts) == utc(free)
    assert cap.first(utc(at), MINUTE, subject(), contacts[::-1]) == utc(free)


def test_a_window_longer_than_the_horizon_may_be_never() -> None:
    cap = FrequencyCap("once", 1, HORIZON + DAY)
    assert cap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-21")]) is None
    assert cap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-20")]) == utc("2026-11-21") + HORIZON
    gap = MinimumGap("once", HORIZON + DAY)
    assert gap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-21")]) is None
    assert gap.first(utc("2026-11-21"), MINUTE, subject(), [contact("2026-11-20")]) == utc("2026-11-21") + HORIZON


OTHERS = [
    contact("2026-11-21T08:00:00", channel="push", campaign="a"),
    contact("2026-11-21T08:01:00", category="codes", campaign="a"),
    contact("2026-11-21T08:02:00", campaign="b"),
    contact("2026-11-21T08:03:00", campaign=None),
]


@pytest.mark.parametrize(
    ("scope", "narrowed", "campaign", "counted"),
    [
        (set(), {}, "a", {0, 1, 2, 3}),
        ({Scope.CHANNEL}, {}, "a", {1, 2, 3}),
        ({Scope.CATEGORY}, {}, "a", {0, 2, 3}),
        ({Scope.CAMPAIGN}, {}, "a", {0, 1}),
        ({Scope.CAMPAIGN}, {}, "c", set()),
        ({Scope.CAMPAIGN}, {}, None, {3}),
        ({Scope.CAMPAIGN, Scope.CHANNEL}, {}, "a", {1}),
        (set(), {"channels": frozenset({"sms"})}, "a", {1, 2, 3}),
        (set(), {"channels": frozenset({"sms", "push"})}, "a", {0, 1, 2, 3}),
        (set(), {"channels": frozenset({"sms"}), "categories": frozenset({"news"})}, "a", {2, 3}),
        ({Scope.CHANNEL}, {"channels": frozenset({"sms", "push"})}, "a", {1, 2, 3}),
        ({Scope.CATEGORY}, {"categories": frozenset({"news", "codes"})}, "a", {0, 2, 3}),
    ],
)
def test_what_counts(
    scope: set[Scope], narrowed: dict[str, frozenset[str]], campaign: str | None, counted: set[int]
) -> None:
    asked, at = subject(campaign=campaign), utc("2026-11-21T09:00:00")
    for n, other in enumerate(OTHERS):
        for rule in (
            FrequencyCap("x", 1, DAY, frozenset(scope), only=Only(**narrowed)),
            FrequencyCap("x", 1, Calendar.DAY, frozenset(scope), only=Only(**narrowed)),
            MinimumGap("x", DAY, frozenset(scope), only=Only(**narrowed)),
        ):
            assert rule.only.covers(asked)
            assert (rule.first(at, MINUTE, asked, [other]) != at) == (n in counted)


def test_caps_and_gaps_apply_to_the_channels_and_categories_named() -> None:
    named = Only(channels=frozenset({"sms"}), categories=frozenset({"news"}))
    at, history = utc("2026-11-21T09:00"), [contact("2026-11-21T08:00")]
    for rule in (FrequencyCap("x", 1, DAY, only=named), MinimumGap("x", DAY, only=named)):
        assert not earliest(at, MINUTE, [rule], subject(), history).allowed
        assert earliest(at, MINUTE, [rule], subject(channel="push"), history).allowed
        assert earliest(at, MINUTE, [rule], subject(category="codes"), history).allowed


def test_a_label_in_the_scope_must_have_the_same_value_and_none_is_a_value() -> None:
    at, per_topic = utc("2026-11-21T09:00"), frozenset({"topic"})
    loans, cards, none = {"topic": "loans", "other": "x"}, {"topic": "cards"}, {"other": "x"}
    for rule in (
        FrequencyCap("x", 1, DAY, scope_labels=per_topic),
        FrequencyCap("x", 1, Calendar.DAY, scope_labels=per_topic),
        MinimumGap("x", DAY, scope_labels=per_topic),
    ):
        for asked in (loans, cards, none):
            for made in (loans, cards, none):
                history = [contact("2026-11-21T08:00", labels=made)]
                assert (rule.first(at, MINUTE, subject(labels=asked), history) == at) == (asked is not made)
    both = FrequencyCap("x", 1, DAY, frozenset({Scope.CHANNEL}), frozenset({"topic", "other"}))
    history = [contact("2026-11-21T08:00", labels=loans)]
    assert both.first(at, MINUTE, subject(labels=loans), history) != at
    assert both.first(at, MINUTE, subject(labels=loans, channel="push"), history) == at
    assert both.first(at, MINUTE, subject(labels={"topic": "loans"}), history) == at


def test_a_cap_for_some_labels_counts_contacts_with_them_alone() -> None:
    at, only = utc("2026-11-21T09:00"), Only(labels=(("topic", frozenset({"loans", "cards"})),))
    cap, asked = FrequencyCap("x", 1, DAY, only=only), subject(labels={"topic": "loans"})
    assert not earliest(at, MINUTE, [cap], asked, [contact("2026-11-21T08:00", labels={"topic": "cards"})]).allowed
    assert earliest(at, MINUTE, [cap], asked, [contact("2026-11-21T08:00", labels={"topic": "fees"})]).allowed
    assert earliest(at, MINUTE, [cap], asked, [contact("2026-11-21T08:00")]).allowed
    history = [contact("2026-11-21T08:00", labels={"topic": "loans"})]
    assert earliest(at, MINUTE, [cap], subject(labels={"topic": "fees"}), history).allowed
    assert earliest(at, MINUTE, [cap], subject(), history).allowed


def test_a_cap_for_a_country_counts_all_contacts_and_holds_for_whoever_may_be_there() -> None:
    at, history = utc("2026-11-21T09:00"), [contact("2026-11-21T08:00")]
    cap = FrequencyCap("x", 1, DAY, only=Only(countries=frozenset({"FR"})))
    assert not earliest(at, MINUTE, [cap], subject(country="FR"), history).allowed
    assert not earliest(at, MINUTE, [cap], subject(country=None), history).allowed
    assert earliest(at, MINUTE, [cap], subject(country="JP"), history).allowed


# --- places kept for the more urgent ---------------------------------------------------------------


@pytest.mark.parametrize("per", [30 * DAY, Calendar.MONTH])
@pytest.mark.parametrize(
    ("reserve", "places"),
    [
        ((), {0: 6, 1: 6, 2: 6, 3: 6}),
        (((1, 1),), {0: 6, 1: 6, 2: 5, 3: 5}),
        (((0, 2),), {0: 6, 1: 4, 2: 4, 3: 4}),
        (((2, 1), (0, 2), (1, 1)), {0: 6, 1: 4, 2: 3, 3: 2}),
        (((3, 5),), {0: 6, 1: 6, 2: 6, 3: 6}),
    ],
)
def test_kept_places_are_seen_by_the_priority_they_are_kept_for_and_the_more_urgent(
    per: timedelta | Calendar, reserve: tuple[tuple[int, int], ...], places: dict[int, int]
) -> None:
    cap, at = FrequencyCap("x", 6, per, reserve=reserve), utc("2026-11-21T09:00")
    for priority, number in places.items():
        for made in range(8):
            history = [contact(at - (n + 1) * HOUR) for n in range(made)]
            assert (cap.first(at, MINUTE, subject(priority=priority), history) == at) == (made < number)


def test_a_kept_place_frees_no_sooner_than_the_others() -> None:
    cap = FrequencyCap("x", 3, DAY, reserve=((0, 1),))
    history = [contact(f"2026-11-21T0{hour}:00") for hour in (1, 2, 3)]
    at = utc("2026-11-21T09:00")
    assert cap.first(at, MINUTE, subject(priority=0), history) == utc("2026-11-22T01:00")
    assert cap.first(at, MINUTE, subject(priority=1), history) == utc("2026-11-22T02:00")


def test_faulty_rules_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="limit"):
        FrequencyCap("x", 0, DAY)
    with pytest.raises(ValueError, match="length"):
        FrequencyCap("x", 1, timedelta(0))
    with pytest.raises(ValueError, match="week"):
        FrequencyCap("x", 1, Calendar.WEEK, week_start=7)
    with pytest.raises(ValueError, match="length"):
        MinimumGap("x", timedelta(0))
    with pytest.raises(ValueError, match="than the limit"):
        FrequencyCap("x", 3, DAY, reserve=((0, 1), (1, 2)))
    with pytest.raises(ValueError, match="at least 1"):
        FrequencyCap("x", 3, DAY, reserve=((0, 0),))
    with pytest.raises(ValueError, match="once"):
        FrequencyCap("x", 3, DAY, reserve=((0, 1), (0, 1)))
    FrequencyCap("x", 3, DAY, reserve=((0, 1), (1, 1)))


# --- gap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "free"),
    [
        ("2026-11-21T10:59:59", "2026-11-21T11:00:00"),
        ("2026-11-21T11:00:00", "2026-11-21T11:00:00"),
        ("2026-11-21T08:59:30", "2026-11-21T11:00:00"),  # the last one is still under way
    ],
)
def test_a_gap_runs_from_the_end_of_the_last_contact(at: str, free: str) -> None:
    history = [contact("2026-11-21T08:59:00", "2026-11-21T09:00:00"), contact("2026-11-21T08:00:00")]
    assert MinimumGap("gap", 2 * HOUR).first(utc(at), MINUTE, subject(), history) == utc(free)


# --- calendar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "per", "contacts", "at", "free"),
    [
        ("Asia/Tokyo", "day", ["2026-11-20T16:00"], "2026-11-21T14:00", "2026-11-21T15:00"),
        ("Asia/Tokyo", "day", ["2026-11-20T14:59"], "2026-11-20T15:00", "2026-11-20T15:00"),
        # the span would reach into a day that is taken: after that one
        ("Asia/Tokyo", "day", ["2026-11-20T16:00"], "2026-11-20T14:59:30", "2026-11-21T15:00"),
        # weeks and months, over a year's end and in a leap year
        ("UTC", "week", ["2026-12-28T10:00"], "2027-01-03T10:00", "2027-01-04T00:00"),
        ("UTC", "week", ["2026-12-27T10:00"], "2027-01-03T10:00", "2027-01-03T10:00"),
        ("UTC", "month", ["2026-12-31T23:59"], "2026-12-31T23:59", "2027-01-01T00:00"),
        ("UTC", "month", ["2024-02-01T00:00"], "2024-02-29T12:00", "2024-03-01T00:00"),
        ("UTC", "day", ["2024-02-29T12:00"], "2024-02-29T12:00", "2024-03-01T00:00"),
        # taken for days ahead, as by contacts that were made while the clock was ahead
        ("UTC", "day", [f"2026-11-{day}T10:00" for day in range(20, 27)], "2026-11-20T12:00", "2026-11-27T00:00"),
        # midnight does not exist: the day begins at 01:00
        ("Asia/Beirut", "day", ["2026-03-28T12:00"], "2026-03-28T13:00", "2026-03-28T22:00"),
        ("America/Sao_Paulo", "day", ["2017-10-14T12:00"], "2017-10-14T13:00", "2017-10-15T03:00"),
        # 30 December 2011 did not exist
        ("Pacific/Apia", "day", ["2011-12-29T12:00"], "2011-12-29T13:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "day", ["2011-12-29T12:00", "2011-12-30T11:00"], "2011-12-29T13:00", "2011-12-31T10:00"),
        # clocks went back over midnight at 00:01: a minute of the 7th, an hour of the 6th again
        ("America/St_Johns", "day", ["2010-11-06T12:00"], "2010-11-06T20:00", "2010-11-07T03:30"),
        ("America/St_Johns", "day", ["2010-11-07T12:00"], "2010-11-07T02:30:30", "2010-11-07T02:31"),
    ],
)
def test_a_calendar_cap(where: str, per: str, contacts: list[str], at: str, free: str) -> None:
    cap = FrequencyCap("x", 1, Calendar(per))
    history = [contact(begun, where=where) for begun in contacts]
    assert cap.first(utc(at), MINUTE, subject(where), history) == utc(free)


def test_the_first_minute_of_a_day_that_is_then_taken_back_has_a_place_for_what_fits() -> None:
    cap, history = FrequencyCap("x", 1, Calendar.DAY), [contact("2010-11-06T12:00", where="America/St_Johns")]
    found = cap.first(utc("2010-11-06T20:00"), timedelta(seconds=59), subject("America/St_Johns"), history)
    assert found == utc("2010-11-07T02:30")


def test_a_contact_counts_on_every_day_that_it_touches_in_its_own_zone() -> None:
    over_midnight = contact("2026-11-20T14:59:30", "2026-11-20T15:00:00", where="Asia/Tokyo")
    cap = FrequencyCap("x", 1, Calendar.DAY)
    assert cap.first(utc("2026-11-20T01:00"), MINUTE, subject("Asia/Tokyo"), [over_midnight]) == utc("2026-11-21T15:00")
    # made on the 21st in Tokyo, it holds the place of the 21st in New York
    assert cap.first(
        utc("2026-11-20T20:00"), MINUTE, subject("America/New_York"), [contact("2026-11-20T16:00", where="Asia/Tokyo")]
    ) == utc("2026-11-20T20:00")
    assert cap.first(
        utc("2026-11-21T20:00"), MINUTE, subject("America/New_York"), [contact("2026-11-20T16:00", where="Asia/Tokyo")]
    ) == utc("2026-11-22T05:00")


def test_a_day_that_begins_and_is_taken_back_in_between_is_touched() -> None:
    where = "America/St_Johns"  # from 23:59 on the 6th over a minute of the 7th back to the 6th, 23:15
    both = contact("2010-11-07T02:29", "2010-11-07T02:45", where=where)
    cap = FrequencyCap("x", 1, Calendar.DAY)
    assert cap.first(utc("2010-11-07T12:00"), MINUTE, subject(where), [both]) == utc("2010-11-08T03:30")
    seventh = contact("2010-11-07T12:00", where=where)
    assert cap.first(utc("2010-11-07T02:29"), 16 * MINUTE, subject(where), [seventh]) == utc("2010-11-07T02:31")


def test_a_week_starts_when_it_is_set_to() -> None:
    history = [contact("2026-11-21T12:00", where="UTC")]  # a Saturday
    for start, free in ((0, "2026-11-23"), (6, "2026-11-22"), (5, "2026-11-28")):
        cap = FrequencyCap("x", 1, Calendar.WEEK, week_start=start)
        assert cap.first(utc("2026-11-21T13:00"), MINUTE, subject("UTC"), history) == utc(free)


# --- explanations --------------------------------------------------------------------------------


def test_explanations_give_the_numbers() -> None:
    b, a = history = [contact("2026-11-21T10:00", message="b"), contact("2026-11-21T09:00", message="a")]
    at = utc("2026-11-21T11:00")
    told = FrequencyCap("daily", 2, DAY).explain(at, MINUTE, subject(), history)
    assert (told.rule, told.permits, told.next, told.held_by) == ("daily", False, utc("2026-11-22T09:00"), (a, b))
    assert told.why == (
        "2 of 2 contacts in 24 h; the place of 10:00 on 2026-11-21 (Europe/Berlin) "
        "frees at 10:00 on 2026-11-22 (Europe/Berlin)"
    )
    told = FrequencyCap("daily", 3, 7 * DAY).explain(at, MINUTE, subject(), history)
    assert (told.permits, told.next, told.why) == (True, at, "2 of 3 contacts in 7 d")
    told = FrequencyCap("week", 2, Calendar.WEEK).explain(at, MINUTE, subject(), history)
    assert told.why == (
        "2 of 2 contacts in the week of 2026-11-16 (Europe/Berlin); "
        "the next week with a place starts at 00:00 on 2026-11-23 (Europe/Berlin)"
    )
    assert told.held_by == (a, b)
    told = MinimumGap("gap", 90 * MINUTE).explain(at, MINUTE, subject(), history)
    assert told.held_by == (b,)
    assert told.why == (
        "90 min must pass after the end of the last contact, 11:00 on 2026-11-21 (Europe/Berlin); "
        "over at 12:30 on 2026-11-21 (Europe/Berlin)"
    )
    over = MinimumGap("gap", HOUR).explain(at, MINUTE, subject(), history)
    assert (over.permits, over.next, over.held_by) == (True, at, ())
    assert over.why == "1 h must pass after the end of the last contact, 11:00 on 2026-11-21 (Europe/Berlin)"
    # The last is the one that ended last: it may have begun before another.
    long = contact("2026-11-21T08:00", "2026-11-21T10:30")
    told = MinimumGap("gap", 90 * MINUTE).explain(at, MINUTE, subject(), [*history, long])
    assert (told.next, told.held_by) == (utc("2026-11-21T12:00"), (long,))
    assert "the last contact, 11:30 on 2026-11-21" in told.why
    assert MinimumGap("gap", HOUR).explain(at, MINUTE, subject(), []).why == "no contact so far"
    never = FrequencyCap("once", 1, HORIZON + DAY).explain(at, MINUTE, subject(), history)
    assert never.why.endswith("no place within 400 days")


def test_what_begins_within_the_attempt_holds_a_place_too() -> None:
    at = utc("2026-11-21T11:00")
    under_way, ahead = contact(at - MINUTE, at + MINUTE), contact(at + MINUTE, at + 2 * MINUTE)
    told = FrequencyCap("daily", 1, DAY).explain(at, MINUTE, subject(), [ahead, under_way])
    assert told.held_by == (under_way, ahead)
    assert told.why.startswith(
        "2 of 1 contact in 24 h; the place of 12:02 on 2026-11-21 (Europe/Berlin) frees at 12:02"
    )
    told = FrequencyCap("daily", 1, DAY).explain(at, MINUTE / 2, subject(), [ahead])
    assert (told.permits, told.held_by) == (True, ())


def test_explanations_name_the_places_that_are_kept() -> None:
    at = utc("2026-11-21T11:00")
    history = [contact(at - (n + 1) * HOUR) for n in range(5)]
    cap = FrequencyCap("month", 6, 30 * DAY, reserve=((1, 1),))
    told = cap.explain(at, MINUTE, subject(priority=2), history)
    assert not told.permits
    assert told.why == (
        "5 of 6 contacts in 30 d; 1 place is kept for priority high and above; "
        "the place of 07:00 on 2026-11-21 (Europe/Berlin) frees at 07:00 on 2026-12-21 (Europe/Berlin)"
    )
    assert cap.explain(at, MINUTE, subject(priority=1), history).why == "5 of 6 contacts in 30 d"
    both = FrequencyCap("month", 9, Calendar.MONTH, reserve=((1, 1), (0, 2)))
    assert both.explain(at, MINUTE, subject(priority=3), history).why == (
        "5 of 9 contacts in the month of 2026-11-01 (Europe/Berlin); "
        "2 places are kept for priority critical, 1 place for priority high and above"
    )


def test_instants_are_told_by_the_clock_of_the_likeliest_zone() -> None:
    who = Subject("sms", "news", None, (zone("Asia/Tokyo"), zone("UTC")), zone("UTC"))
    told = FrequencyCap("x", 1, Calendar.DAY).explain(
        utc("2026-11-21T11:00"), MINUTE, who, [contact("2026-11-21T10:00", where="UTC")]
    )
    assert told.why == (
        "1 of 1 contact in the day of 2026-11-21 (UTC); "
        "the next day with a place starts at 09:00 on 2026-11-22 (Asia/Tokyo)"
    )


# --- against brute force -------------------------------------------------------------------------


CHANNELS, CATEGORIES, CAMPAIGNS = (st.sampled_from(of) for of in (["sms", "push"], ["news", "codes"], ["a", None]))
TOPICS = st.sampled_from([{}, {}, {"topic": "loans"}, {"topic": "fees"}])
ONLY = st.sampled_from(
    [
        Only(),
        Only(),
        Only(channels=frozenset({"sms"})),
        Only(categories=frozenset({"news"})),
        Only(labels=(("topic", frozenset({"loans"})),)),
        Only(countries=frozenset({"FR"})),
    ]
)
RESERVES = st.sampled_from([(), (), ((0, 1),), ((2, 1),), ((1, 1), (2, 1))])


@st.composite
def caps(draw: st.DrawFn, per: timedelta | Calendar) -> FrequencyCap:
    reserve = draw(RESERVES)
    limit = draw(st.integers(1 + sum(places for _, places in reserve), 5))
    scope = draw(st.frozensets(st.sampled_from(Scope), max_size=2))
    labels = draw(st.sampled_from([frozenset[str](), frozenset({"topic"})]))
    return FrequencyCap("x", limit, per, scope, labels, draw(ONLY), reserve, week_start=draw(st.integers(0, 6)))


@st.composite
def subjects(draw: st.DrawFn, where: str) -> Subject:
    only = draw(CHANNELS), draw(CATEGORIES), draw(CAMPAIGNS)
    return subject(
        where, *only, priority=draw(st.integers(0, 3)), labels=draw(TOPICS), country=draw(st.sampled_from([None, "FR"]))
    )


@st.composite
def histories(draw: st.DrawFn, at: datetime, since: int, until: int, wheres: list[str]) -> list[Contact]:
    """Contacts around an instant, from minute ``since`` to minute ``until``."""
    intervals = st.tuples(st.integers(since, until), st.sampled_from([0, 1, 7, 40, 70]))
    return [
        contact(
            at + begun * MINUTE,
            at + (begun + lasting) * MINUTE,
            draw(st.sampled_from(wheres)),
            draw(CHANNELS),
            draw(CATEGORIES),
            draw(CAMPAIGNS),
            labels=draw(TOPICS),
        )
        for begun, lasting in draw(st.lists(intervals, max_size=12))
    ]


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([10, 45, 180]), st.sampled_from([0, 3, 10]))
def test_a_rolling_cap_against_counting_every_minute(data: st.DataObject, per: int, span: int) -> None:
    now = utc("2026-11-21T09:00")
    cap = data.draw(caps(per * MINUTE))
    asked = data.draw(subjects("Europe/Berlin"))
    history = data.draw(histories(now, -200, 60, ["Europe/Berlin"]))
    expected = first(now, span, [cap], asked, history, 500)
    assert expected is not None
    assert earliest(now, span * MINUTE, [cap], asked, history).at == expected


@settings(max_examples=examples(60), deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([30, 60, 24 * 60]),
    st.lists(st.integers(1, 90), min_size=60, max_size=60),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=60, max_size=60),
)
def test_greedy_sending_never_fills_a_window_beyond_the_limit_and_wastes_no_place(
    limit: int, per: int, pauses: list[int], settled_after: list[tuple[int, bool]]
) -> None:
    window, span = per * MINUTE, 3 * MINUTE
    cap = FrequencyCap("x", limit, window)
    now, sent = utc("2026-03-28T09:00"), list[tuple[datetime, datetime]]()
    promised = None
    for pause, (minutes, known) in zip(pauses, settled_after, strict=True):
        now += pause * MINUTE
        ledger = [contact(b, e) for b, e in sent]
        answer = cap.first(now, span, subject(), ledger)
        assert answer is not None
        if promised is not None and now >= promised:
            assert answer == now  # what was promised is kept while nothing else is sent
        if answer == now:
            sent.append((now, now + (minutes * MINUTE if known else span)))
            promised = None
        else:
            # refused: the last `limit` contacts all ended less than a window ago
            assert all(now - ended < window for _, ended in sorted(sent, key=lambda s: s[1])[-limit:])
            assert len(sent) >= limit
            promised = answer
    # A window that holds too many holds limit + 1 neighbours: compare each with the one so many places on.
    for n in range(len(sent) - limit):
        first_end = sorted(ended for _, ended in sent[: n + limit])[n]
        assert sent[n + limit][0] - first_end >= window
    for minute in range(0, 60 * 90, 7):
        inside = utc("2026-03-28T09:00") + minute * MINUTE
        assert sum(1 for b, e in sent if e > inside and b < inside + window) <= limit


@st.composite
def around_a_date(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone, and an instant near a change of its clocks, a leap day or a year's end."""
    where, change = draw(st.sampled_from(changes()))
    dates = [change, *map(utc, ("2024-02-29", "2024-03-01", "2026-01-01", "2011-12-30"))]
    where = draw(st.sampled_from([where, where, where, "Pacific/Apia", "America/St_Johns", "Asia/Beirut"]))
    return where, draw(st.sampled_from(dates)) + draw(st.integers(-2880, 2880)) * MINUTE


@settings(max_examples=examples(250), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.data(),
    around_a_date(),
    st.sampled_from([Calendar.DAY, Calendar.DAY, Calendar.WEEK, Calendar.MONTH]),
    st.sampled_from([0, 1, 30, 90]),
)
def test_a_calendar_cap_against_reading_the_clock_every_minute(
    data: st.DataObject, drawn: tuple[str, datetime], unit: Calendar, span: int
) -> None:
    where, at = drawn
    cap = data.draw(caps(unit))
    asked = data.draw(subjects(where))
    history = data.draw(histories(at, -3000, 1600, [where, where, "Pacific/Kiritimati"]))
    found = earliest(at, span * MINUTE, [cap], asked, history).at
    assert found is not None
    expected = first(at, span, [cap], asked, history, 3 * 1440)
    if expected is None:
        assert found >= at + (3 * 1440 - span) * MINUTE
        assert first(found, span, [cap], asked, history, 1) == found
        assert first(found - MINUTE, span, [cap], asked, history, 1) != found - MINUTE
    else:
        assert found == expected
    assert earliest(found, span * MINUTE, [cap], asked, history).allowed
