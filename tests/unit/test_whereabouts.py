"""Whose clocks are the person's, and how is that known?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from gateway.decide import Attempting
from gateway.message import Address, Profile
from gateway.whereabouts import ZoneSource, whereabouts
from providers import Channel
from ratelimit import zone
from tests.unit.deciding import LONDON, MAIL, NEW_YORK, POLICY, TOKYO, facts, person, ruled, step, waits

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from gateway.config import Policy


# ---------------------------------------------------------------------------------------------------------------- zones

SMS_TO = Address(Channel.SMS, "+819012345678")
"""Japan has one zone."""
EVERYWHERE = replace(POLICY, zone=LONDON)


@pytest.mark.parametrize(
    ("asked", "profile", "address", "zones", "calendar"),
    [
        ("America/New_York", Profile(timezone="Asia/Tokyo"), SMS_TO, (NEW_YORK,), TOKYO),
        ("America/New_York", Profile(), SMS_TO, (NEW_YORK,), LONDON),
        ("America/New_York", Profile(), Address(Channel.EMAIL, MAIL), (NEW_YORK,), LONDON),
        (None, Profile(timezone="America/New_York", phone="+819012345678"), SMS_TO, (NEW_YORK,), NEW_YORK),
        (None, Profile(), SMS_TO, (TOKYO,), LONDON),  # the number is the request's
        (None, Profile(phone="+819012345678"), Address(Channel.EMAIL, MAIL), (TOKYO,), TOKYO),
        (None, Profile(phone="+819012345678"), Address(Channel.PUSH, "t"), (TOKYO,), TOKYO),
        (None, Profile(), Address(Channel.EMAIL, MAIL), (LONDON,), LONDON),
        (None, Profile(), Address(Channel.SMS, "+80012345678"), (LONDON,), LONDON),  # toll-free, of no country
    ],
)
def test_the_zones_are_the_requests_the_profiles_the_phones_or_the_policys_and_the_calendar_never_the_requests(
    asked: str | None, profile: Profile, address: Address, zones: tuple[ZoneInfo, ...], calendar: ZoneInfo
) -> None:
    found = whereabouts({"timezone": asked}, profile, address, EVERYWHERE)
    assert (found.zones, found.calendar) == (zones, calendar)


def test_a_number_that_may_be_anywhere_is_quiet_if_it_is_quiet_anywhere() -> None:
    nowhere = person(phone="+18005552671", timezone=None)  # toll-free: all of North America
    where = whereabouts({}, nowhere.profile, Address(Channel.SMS, "+18005552671"), POLICY)
    assert len(where.zones) > 5
    noon_in_new_york = datetime(2026, 11, 22, 17, tzinfo=UTC)
    assert noon_in_new_york.astimezone(NEW_YORK).hour == 12
    assert waits(facts(person=nowhere, now=noon_in_new_york)).rule == "night"  # it is 07:00 in Hawaii


COUNTRIES = replace(POLICY, zone=LONDON, countries={"JP": TOKYO, "US": NEW_YORK, "CA": zone("America/Toronto")})
MAIL_TO, PUSH_TO = Address(Channel.EMAIL, MAIL), Address(Channel.PUSH, "t")
TOLL_FREE_OF_NONE = "+80012345678"


@pytest.mark.parametrize(
    ("asked", "profile", "address", "zone_of", "source"),
    [
        ("Asia/Tokyo", Profile(timezone="America/New_York"), SMS_TO, TOKYO, ZoneSource.REQUEST),
        (None, Profile(timezone="America/New_York", phone="+819012345678"), SMS_TO, NEW_YORK, ZoneSource.PROFILE),
        (None, Profile(phone="+819012345678"), MAIL_TO, TOKYO, ZoneSource.PHONE),
        (None, Profile(locale="en-US"), SMS_TO, TOKYO, ZoneSource.PHONE),
        (None, Profile(locale="ja-JP"), MAIL_TO, TOKYO, ZoneSource.COUNTRY),
        (None, Profile(locale="ja-jp"), MAIL_TO, TOKYO, ZoneSource.COUNTRY),
        (None, Profile(locale="zh-Hant-JP"), PUSH_TO, TOKYO, ZoneSource.COUNTRY),
        (None, Profile(phone=TOLL_FREE_OF_NONE, locale="ja-JP"), MAIL_TO, TOKYO, ZoneSource.COUNTRY),
        (None, Profile(locale="ja"), MAIL_TO, LONDON, ZoneSource.POLICY),
        (None, Profile(locale="fr-FR"), MAIL_TO, LONDON, ZoneSource.POLICY),
        (None, Profile(), Address(Channel.SMS, TOLL_FREE_OF_NONE), LONDON, ZoneSource.POLICY),
        (None, Profile(), None, LONDON, ZoneSource.POLICY),
    ],
)
def test_the_first_that_can_tell_the_zone_does_and_is_named(
    asked: str | None, profile: Profile, address: Address | None, zone_of: ZoneInfo, source: ZoneSource
) -> None:
    found = whereabouts({"timezone": asked}, profile, address, COUNTRIES)
    assert (found.zones, found.source) == ((zone_of,), source)


@pytest.mark.parametrize(
    ("phone", "country"),
    [
        ("+819012345678", "JP"),
        ("+14155552671", "US"),
        ("+14165551234", "CA"),  # the same calling code
        ("+77011234567", "KZ"),  # the same calling code as Russia
        (TOLL_FREE_OF_NONE, None),
    ],
)
def test_the_country_is_the_numbers(phone: str, country: str | None) -> None:
    assert whereabouts({}, Profile(), Address(Channel.SMS, phone), COUNTRIES).country == country
    assert whereabouts({"timezone": "Asia/Tokyo"}, Profile(phone=phone), MAIL_TO, COUNTRIES).country == country


def test_a_request_tells_the_clock_by_its_number_and_locale_whatever_the_channel_but_not_the_calendar() -> None:
    with_number = whereabouts({"to": {"phone": "+819012345678"}}, Profile(), MAIL_TO, COUNTRIES)
    assert (with_number.zones, with_number.source, with_number.country) == ((TOKYO,), ZoneSource.PHONE, "JP")
    with_locale = whereabouts({"locale": "en-US"}, Profile(), PUSH_TO, COUNTRIES)
    assert (with_locale.zones, with_locale.source, with_locale.country) == ((NEW_YORK,), ZoneSource.COUNTRY, "US")
    assert with_number.calendar is with_locale.calendar is LONDON
    better_known = whereabouts({"locale": "en-US"}, Profile(locale="ja-JP"), PUSH_TO, COUNTRIES)
    assert (better_known.zones, better_known.calendar) == ((TOKYO,), TOKYO)


def test_a_locale_that_the_policy_does_not_go_by_says_nothing_of_the_country() -> None:
    assert whereabouts({"locale": "fr-FR"}, Profile(), MAIL_TO, COUNTRIES).country is None


def test_the_number_that_is_called_tells_more_than_that_of_the_profile() -> None:
    found = whereabouts({}, Profile(phone="+14155552671"), SMS_TO, COUNTRIES)
    assert (found.zones, found.country) == ((TOKYO,), "JP")
    assert found.calendar.key == "America/Los_Angeles"


def test_all_zones_that_a_number_may_lie_in_are_candidates() -> None:
    spanish = whereabouts({}, Profile(phone="+34612345678"), MAIL_TO, POLICY)
    assert {there.key for there in spanish.zones} == {"Europe/Madrid", "Atlantic/Canary"}
    assert spanish.source is ZoneSource.PHONE


@pytest.mark.parametrize(
    ("policy", "likeliest"),
    [
        (replace(POLICY, countries={"ES": zone("Europe/Madrid")}), "Europe/Madrid"),
        (replace(POLICY, countries={"ES": zone("Atlantic/Canary")}, zone=zone("Europe/Madrid")), "Atlantic/Canary"),
        (replace(POLICY, zone=zone("Europe/Madrid")), "Europe/Madrid"),
    ],
)
def test_the_likeliest_of_them_is_the_countrys_default_or_else_the_policys(policy: Policy, likeliest: str) -> None:
    """The alphabet has the Canaries first, where a thirtieth of the country lives."""
    for profile, address in (
        (Profile(phone="+34612345678"), MAIL_TO),
        (Profile(), Address(Channel.SMS, "+34612345678")),
    ):
        found = whereabouts({}, profile, address, policy)
        assert found.zones[0].key == likeliest
        assert len(found.zones) == 2
    assert whereabouts({}, Profile(phone="+34612345678"), None, policy).calendar.key == likeliest


def test_a_send_window_is_read_by_the_likeliest_zone_and_the_night_by_all() -> None:
    rules = '  send_windows: [{name: noons, hours: ["12:00-13:00"]}]'
    nine_in_new_york = datetime(2026, 11, 23, 17, tzinfo=UTC)
    toll_free = person(phone="+18005552671", timezone=None)
    policy = replace(ruled(rules), countries={"US": NEW_YORK})
    assert isinstance(step(facts(person=toll_free, now=nine_in_new_york), policy=policy), Attempting)
    assert waits(facts(person=toll_free, now=nine_in_new_york), policy=ruled(rules)).rule == "noons"
