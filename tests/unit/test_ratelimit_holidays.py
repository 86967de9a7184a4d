"""Are public holidays quiet from midnight to midnight, wherever the person may be, on the days that the law names?"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from holidays import list_localized_countries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit import Holidays, QuietHours, Subject, earliest, zone
from tests.examples import examples
from tests.unit.ratelimit_oracle import DAY, HOUR, MINUTE, first, names, utc

ROOT = Path(__file__).parents[2]


def subject(*zones: str) -> Subject:
    there = tuple(map(zone, zones))
    return Subject("sms", "news", None, there, there[0], "hana", 3)


def quiet_days(country: str, subdivision: str | None, where: str, year: int) -> set[date]:
    """The days of a year on which nothing may be sent at noon."""
    rule, who = Holidays("x", country, subdivision), subject(where)
    noons = [datetime(year, 1, 1, 12, tzinfo=zone(where)) + n * DAY for n in range(366)]
    return {
        noon.date() for noon in noons if noon.year == year and rule.first(noon.astimezone(UTC), MINUTE, who, ()) != noon
    }


def test_france() -> None:
    """Code du travail, L3133-1: eleven days. Easter was on 5 April 2026."""
    easter = date(2026, 4, 5)
    fixed = {date(2026, *day) for day in ((1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25))}
    assert quiet_days("FR", None, "Europe/Paris", 2026) == fixed | {easter + n * DAY for n in (1, 39, 50)}


def test_a_subdivision_has_holidays_of_its_own() -> None:
    """Code du travail, L3134-13: Good Friday and 26 December in the Moselle, Bas-Rhin and Haut-Rhin."""
    more = quiet_days("FR", "57", "Europe/Paris", 2026) - quiet_days("FR", None, "Europe/Paris", 2026)
    assert more == {date(2026, 4, 3), date(2026, 12, 26)}


def test_the_united_states_keep_the_days_given_instead() -> None:
    """5 U.S.C. 6103(b): a holiday on a Saturday is kept on the Friday before, on a Sunday on the Monday after."""
    assert {date(2026, 7, 3), date(2026, 7, 4)} <= quiet_days("US", None, "America/New_York", 2026)
    assert {date(2027, 7, 4), date(2027, 7, 5), date(2027, 12, 31)} <= quiet_days("US", None, "America/New_York", 2027)


def test_golden_week_is_one_long_quiet() -> None:
    """Act on National Holidays (1948, no. 178): 3, 4 and 5 May, and the 6th since 3 May 2026 is a Sunday; 29 April."""
    rule, who = Holidays("jp", "JP"), subject("Asia/Tokyo")
    assert rule.first(utc("2026-05-02T15:00"), MINUTE, who, ()) == utc("2026-05-06T15:00")
    assert rule.first(utc("2026-05-02T14:58"), MINUTE, who, ()) == utc("2026-05-02T14:58")
    assert rule.first(utc("2026-05-02T14:59"), MINUTE, who, ()) == utc("2026-05-06T15:00")
    assert rule.first(utc("2026-04-29T12:00"), MINUTE, who, ()) == utc("2026-04-29T15:00")
    # a day between two holidays is one (article 3, paragraph 3)
    assert rule.first(utc("2026-09-22T03:00"), MINUTE, who, ()) == utc("2026-09-23T15:00")


def test_a_holiday_lasts_as_long_as_the_date_is_read() -> None:
    rule, who = Holidays("bb", "DE", "BB"), subject("Europe/Berlin")
    # Easter 2024: clocks went forward on the Sunday, a holiday in Brandenburg; Monday is one everywhere
    assert rule.first(utc("2024-03-30T23:00"), MINUTE, who, ()) == utc("2024-04-01T22:00")
    assert rule.shuts(utc("2024-03-30T12:00"), who) == utc("2024-03-30T23:00")
    # 1 January, from when it begins on Kiritimati until it ends on Baker Island
    everywhere = subject("Pacific/Kiritimati", "Etc/GMT+12")
    new_year = Holidays("fr", "FR")
    assert new_year.first(utc("2025-12-31T09:58"), MINUTE, everywhere, ()) == utc("2025-12-31T09:58")
    # 24 hours there, two hours in which it is over here and has not begun there, 24 hours there
    assert new_year.first(utc("2025-12-31T10:00"), MINUTE, everywhere, ()) == utc("2026-01-01T10:00")
    assert new_year.first(utc("2026-01-01T11:59"), MINUTE, everywhere, ()) == utc("2026-01-02T12:00")


def test_the_next_holiday_is_found_months_ahead() -> None:
    rule, who = Holidays("fr", "FR"), subject("Europe/Paris")
    assert rule.shuts(utc("2026-08-16T12:00"), who) == utc("2026-10-31T23:00")
    assert rule.shuts(utc("2026-12-26T12:00"), who) == utc("2026-12-31T23:00")


def test_a_country_without_holidays_has_none_ahead() -> None:
    rule, who = Holidays("bv", "BV"), subject("Europe/Oslo")  # Bouvet Island, where nobody lives
    assert rule.first(utc("2026-01-01"), MINUTE, who, ()) == utc("2026-01-01")
    assert rule.shuts(utc("2026-01-01"), who) is None


def test_the_morning_after_a_holiday_comes_after_quiet_hours() -> None:
    rules = [Holidays("fr", "FR"), QuietHours("night", time(20), time(8))]
    verdict = earliest(utc("2026-07-13T18:30"), MINUTE, rules, subject("Europe/Paris"), ())
    assert (verdict.at, verdict.rule) == (utc("2026-07-15T06:00"), "night")


@pytest.mark.parametrize(
    ("country", "subdivision", "said"),
    [
        ("ZZ", None, "no public holidays are known for the country 'ZZ'"),
        ("FRA", None, "two capital letters, such as FR"),
        ("fr", None, "two capital letters, such as FR"),
        ("", None, "two capital letters, such as FR"),
        ("UK", None, "write GB"),
        ("US", "ZZ", "the subdivision 'ZZ' of US: one of AK, AL, AR, .*CA, .*WY$"),
        ("JP", "Tokyo", "the subdivision 'Tokyo' of JP: none$"),
    ],
)
def test_a_faulty_country_cannot_be_built(country: str, subdivision: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Holidays("x", country, subdivision)


def test_explanations_name_the_holiday() -> None:
    rule, who = Holidays("fr", "FR"), subject("Europe/Paris")
    told = rule.explain(utc("2026-12-25T10:00"), MINUTE, who, ())
    assert (told.permits, told.next) == (False, utc("2026-12-25T23:00"))
    assert (
        told.why == "2026-12-25 is a public holiday in FR: Christmas Day; free from 00:00 on 2026-12-26 (Europe/Paris)"
    )
    told = rule.explain(utc("2026-12-24T22:59:30"), MINUTE, who, ())
    assert told.why == (
        "an attempt of 60 s could run into it: 2026-12-25 is a public holiday in FR: Christmas Day; "
        "free from 00:00 on 2026-12-26 (Europe/Paris)"
    )
    # An attempt that would end at the very midnight, and one that would always last over one.
    assert rule.explain(utc("2026-12-24T22:59"), MINUTE, who, ()) == told
    told = rule.explain(utc("2026-12-24T23:00"), 400 * DAY, who, ())
    assert told.next is None
    assert told.why.endswith("public holiday in FR: Christmas Day; never free within 400 days")
    told = rule.explain(utc("2026-12-25T22:30"), MINUTE, subject("Asia/Tokyo", "Europe/Paris"), ())
    assert told.why == (
        "in Europe/Paris 2026-12-25 is a public holiday in FR: Christmas Day; "
        "free from 08:00 on 2026-12-26 (Asia/Tokyo)"
    )
    told = rule.explain(utc("2026-12-24T17:00"), MINUTE, subject("UTC", "America/Los_Angeles"), ())
    assert (told.permits, told.why) == (True, "no public holiday in FR on 2026-12-24")
    told = rule.explain(utc("2026-12-23T17:00"), MINUTE, subject("Asia/Tokyo", "America/Los_Angeles"), ())
    assert (told.permits, told.why) == (True, "no public holiday in FR on 2026-12-23 or 2026-12-24")
    told = Holidays("ca", "US", "CA").explain(utc("2026-03-31T18:00"), MINUTE, subject("America/Los_Angeles"), ())
    assert told.why.startswith("2026-03-31 is a public holiday in US-CA: Cesar Chavez Day; ")


def test_whoever_is_known_in_any_language_is_known_in_english() -> None:
    assert all("en_US" in languages for languages in list_localized_countries().values())


def test_the_language_of_the_machine_does_not_matter_and_nothing_is_loaded_unless_asked_for() -> None:
    program = """
import sys
from datetime import UTC, datetime, timedelta
from ratelimit import Holidays, Subject, zone
assert "holidays" not in sys.modules
there = zone("Asia/Tokyo")
who = Subject("sms", "news", None, (there,), there)
print(Holidays("x", "JP").explain(datetime(2026, 5, 5, 1, tzinfo=UTC), timedelta(0), who, ()).why)
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "LANGUAGE": language, "LANG": f"{language}.UTF-8"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for language in ("th", "ja")
    ]
    assert told[0] == told[1]
    assert "Children's Day" in told[0]


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([("FR", None), ("US", "CA"), ("JP", None), ("WS", None), ("KI", None)]),
    st.lists(st.sampled_from(["Pacific/Apia", "Europe/Paris", *names()]), min_size=1, max_size=3),
    st.sampled_from(["2011-12-30", "2026-01-01", "2026-04-05", "2026-05-03", "2026-12-25", "2027-12-31"]),
    st.integers(-2880, 1440),
    st.sampled_from([0, 1, 60]),
)
def test_the_answer_is_what_reading_the_clock_every_minute_finds(
    place: tuple[str, str | None], zones: list[str], day: str, after: int, span: int
) -> None:
    rule, who, at = Holidays("x", *place), subject(*zones), utc(day) + after * MINUTE
    found = rule.first(at, span * MINUTE, who, ())
    expected = first(at, span, [rule], who, (), 5 * 1440)
    if expected is None:
        assert found is None or found > at + (5 * 1440 - span - 1) * MINUTE
    else:
        assert found == expected
    if found is not None:
        closing = rule.shuts(found, who)
        assert closing is not None
        assert closing > found + span * MINUTE
        assert rule.first(closing, timedelta(0), who, ()) >= closing + HOUR
