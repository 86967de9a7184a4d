"""Do the shares that a sample comes to say what is the case of all of whom it was taken?"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.acts import PRESSURE, band
from gateway.message import Profile
from gateway.pressure import FULL, PRESSED, USED, Contacted, chosen, measured, pressed, used, weight
from tests.unit.deciding import DAY, HOUR, MINUTE, NEW_YORK, NOON, PHONE, SPAN, TOKYO, contact, ruled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gateway.config import Policy
    from ratelimit import Contact

CAPS = """
  caps:
    - {name: daily, limit: 3, per: 24h, reserve: {high: 1}}
    - {name: today, limit: 2, per: day}
    - {name: texts, limit: 4, per: 7d, channel: sms}
    - {name: mails, limit: 4, per: 7d, channel: email}
    - {name: spring, limit: 1, per: 30d, scope: [user, campaign]}
    - {name: american, limit: 9, per: 7d, country: US}
    - {name: shadow, limit: 9, per: 24h, enforce: 0%}
    - {name: receipts, limit: 9, per: 24h, category: receipt}
    - {name: alike, limit: 2, per: 24h, scope: [user, category]}
    - {name: teasers, limit: 9, per: 24h, label: {kind: teaser}}
  minimum_gap: 2h
"""
POLICY = ruled(CAPS)


def person(*contacts: Contact, name: str = "ann", **profile: Any) -> Contacted:
    return Contacted(name, Profile(**{"phone": PHONE, "timezone": "UTC"} | profile), contacts)


def told(one: Contacted, policy: Policy = POLICY, now: datetime = NOON) -> dict[str, str]:
    return used(one, policy, now, SPAN)


# ----------------------------------------------------------------------------------------------------------------- caps


@pytest.mark.parametrize(
    ("ago", "word"),
    [
        ((1,), "below_half"),
        ((1, 2), "below_full"),
        ((1, 2, 3), "full"),
        ((1, 2, 3, 4), "full"),
        ((30,), "none"),
        ((1, 30), "below_half"),
    ],
)
def test_a_cap_is_as_full_as_its_places_are_taken(ago: Sequence[int], word: str) -> None:
    assert told(person(*(contact(NOON - hours * HOUR) for hours in ago)))["daily"] == word


def test_half_of_a_cap_is_not_below_half() -> None:
    contacts = [contact(NOON - hours * HOUR) for hours in (1, 2)]
    assert told(person(*contacts))["texts"] == "below_full"


def test_a_calendar_goes_by_the_persons_clock() -> None:
    late = [contact(NOON - hours * HOUR, where=TOKYO) for hours in (4, 5)]  # 17:00 and 16:00 in Tokyo, the same day
    assert told(person(*late, timezone="Asia/Tokyo"))["today"] == FULL
    assert told(person(*late, timezone="Asia/Tokyo"), now=NOON + 4 * HOUR)["today"] == "none"
    there = [contact(NOON - hours * HOUR, where=NEW_YORK) for hours in (8, 9)]  # still yesterday
    assert told(person(*there, timezone="America/New_York"))["today"] == "none"


def test_caps_are_asked_about_a_message_like_the_last() -> None:
    mail = contact(NOON - HOUR, channel="email", campaign="spring")
    text = contact(NOON - 2 * HOUR, campaign="autumn")
    found = told(person(mail, text))
    assert {"mails", "spring", "daily"} <= found.keys()
    assert (found["spring"], found["mails"]) == (FULL, "below_half")
    assert "texts" not in found
    assert "texts" in told(person(text))
    assert "receipts" not in found


def test_what_a_cap_is_narrowed_to_is_looked_for_in_the_last_contact() -> None:
    labelled = contact(NOON - HOUR, labels={"kind": "teaser"})
    assert told(person(labelled))["teasers"] == "below_half"
    assert "teasers" not in told(person(contact(NOON - HOUR)))
    others = [contact(NOON - hours * HOUR, category="receipt") for hours in (2, 3)]
    assert told(person(contact(NOON - HOUR), *others))["alike"] == "below_full"


def test_of_two_contacts_that_began_at_once_the_first_is_the_last() -> None:
    text, mail = contact(NOON - HOUR), contact(NOON - HOUR + MINUTE, channel="email")
    found = told(person(text, mail._replace(begun=text.begun)))
    assert "texts" in found
    assert "mails" not in found


def test_of_whom_nothing_is_known_lives_where_the_policy_says() -> None:
    late = [contact(NOON - hours * HOUR, where=TOKYO) for hours in (4, 5)]
    somewhere = replace(POLICY, zone=TOKYO)
    assert told(person(*late, phone=None, timezone=None), somewhere)["today"] == FULL
    assert told(person(*late, phone=None, timezone=None), somewhere, NOON + 4 * HOUR)["today"] == "none"


def test_a_cap_of_a_country_counts_those_who_may_live_there() -> None:
    one = contact(NOON - HOUR)
    assert "american" in told(person(one, phone="+14155552671"))
    assert "american" not in told(person(one, phone="+819012345678"))
    assert "american" in told(person(one, phone=None))


def test_a_cap_in_shadow_is_measured_before_it_is_applied_and_a_gap_has_no_places() -> None:
    found = told(person(contact(NOON - HOUR)))
    assert found["shadow"] == "below_half"
    assert "gap" not in found
    assert set(found.values()) <= set(USED)


def test_nothing_is_said_of_a_category_that_is_gone_or_exempt() -> None:
    assert told(person(contact(NOON - HOUR, category="gone"))) == {}
    assert told(person(contact(NOON - HOUR, category="code"))) == {}


# --------------------------------------------------------------------------------------------------------------- sample


def at(minutes: float) -> datetime:
    return NOON - minutes * MINUTE


def test_a_sample_of_all_covers_all() -> None:
    last = [("a", at(1)), ("b", at(2)), ("a", at(3))]
    found = chosen(last, 4, 2, NOON)
    assert (found.people, found.covered) == (("a", "b"), 1.0)


def test_one_that_may_have_been_cut_off_covers_the_time_that_it_reaches_back() -> None:
    last = [("a", at(1)), ("b", at(2)), ("a", NOON - PRESSURE / 4)]
    found = chosen(last, 3, 2, NOON)
    assert (found.people, found.covered) == (("a", "b"), 0.25)


def test_no_more_persons_are_chosen_than_are_wanted_the_last_ones_first() -> None:
    last = [("a", at(1)), ("b", NOON - PRESSURE / 8), ("a", NOON - PRESSURE / 4), ("c", NOON - PRESSURE / 2)]
    found = chosen(last, 100, 2, NOON)
    assert (found.people, found.covered) == (("a", "b"), 0.25)


def test_nobody_is_in_a_sample_of_nobody() -> None:
    assert chosen([], 4, 2, NOON).people == ()
    assert measured([], [], 1.0).bands == {}


def test_contacts_of_this_very_moment_have_some_chance_to_be_seen() -> None:
    assert 0 < chosen([("a", NOON)], 1, 1, NOON).covered < 1e-6


# --------------------------------------------------------------------------------------------------------------- shares


def test_pressure_is_how_many_contacts_began_in_the_last_seven_days() -> None:
    moment = timedelta(microseconds=1)
    ages = [timedelta(0), DAY, 7 * DAY - moment, 7 * DAY, 8 * DAY]
    contacts = [contact(NOON)._replace(begun=NOON - age) for age in ages]
    assert pressed(person(*contacts), NOON) == 3


def test_shares_are_of_those_whom_a_cap_counts() -> None:
    found = measured([{"a": FULL, "b": "none"}, {"a": "none"}, {"a": FULL}, {}], [1, 1, 2, 7], 1.0)
    assert found.persons == 4
    assert found.caps == {
        "a": {"none": pytest.approx(1 / 3), "below_half": 0, "below_full": 0, "full": pytest.approx(2 / 3)},
        "b": {"none": 1, "below_half": 0, "below_full": 0, "full": 0},
    }
    assert found.bands == {"1-2": 0.75, "3-5": 0, "6+": 0.25}


@given(st.integers(1, 50), st.floats(0.001, 1))
@settings(deadline=None)
def test_who_is_likelier_to_be_seen_weighs_that_much_less(contacts: int, covered: float) -> None:
    """The chance to be seen is one, less that of being missed each time."""
    missed = 1.0
    for _ in range(contacts):
        missed *= 1 - covered
    assert weight(contacts, covered) * (1 - missed) == pytest.approx(1)


def test_a_sample_of_the_last_contacts_says_what_is_the_case_of_all() -> None:
    """A town of 6000, each contacted so often a week at times of their own; the last 500 who were tell of all."""
    drawn = random.Random(5)
    town = {f"p{n}": drawn.choice((1, 1, 1, 2, 4, 5, 9)) for n in range(6000)}
    last = [(name, NOON - drawn.random() * PRESSURE) for name, number in town.items() for _ in range(number)]
    last.sort(key=lambda one: one[1], reverse=True)
    sample = chosen(last[:5000], 5000, 500, NOON)
    assert len(sample.people) == 500
    assert sample.covered < 0.1
    found = measured([], [town[name] for name in sample.people], sample.covered).bands
    real = Counter(band(number) for number in town.values())
    for name in PRESSED:
        assert found[name] == pytest.approx(real[name] / len(town), abs=0.07)
    by_head = Counter(band(town[name]) for name in sample.people)
    assert by_head["6+"] / 500 > 2 * real["6+"] / len(town)  # who is contacted often is in it more often
