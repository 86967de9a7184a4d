"""Does what expired say which rules held it back to the last, and none where none did?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.decide import Attempting, Deferred, Ended, Facts
from gateway.message import AttemptState, MessageState, Refusal, WhenCapped
from providers import Channel
from tests.examples import examples
from tests.unit.deciding import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    attempt,
    contact,
    facts,
    message,
    person,
    rich,
    ruled,
    step,
)

if TYPE_CHECKING:
    from gateway.config import Policy

MOMENT = timedelta(microseconds=1)
NIGHTS = '  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]\n'
DAILY = "  caps: [{name: daily, limit: 1, per: 24h}]\n"
EACH = (("text", "sms"), ("mail", "email"))
MORNING = NOON.replace(hour=8) + DAY


def regretted(known: Facts, policy: Policy) -> list[str]:
    """The rules that are named when the message is looked at after its expiry."""
    taken = step(known, policy=policy)
    assert isinstance(taken, Ended)
    assert (taken.state, taken.reason) == (MessageState.EXPIRED, "expires_at")
    assert all(ruling.enforced and not ruling.permits for ruling in taken.why)
    return [ruling.rule for ruling in taken.why]


def expired(expiry: Any = NOON, late: timedelta = timedelta(0), **fields: Any) -> Facts:
    about = message(accepted_at=expiry - HOUR, starts_at=expiry - HOUR, expires_at=expiry, **fields.pop("about", {}))
    return facts(message=about, now=expiry + late, **fields)


def test_a_cap_that_was_full_to_the_last_is_named() -> None:
    policy = ruled(DAILY + NIGHTS)
    assert regretted(expired(contacts=[contact(NOON - 2 * HOUR)]), policy) == ["daily"]
    assert regretted(expired(contacts=[contact(NOON - 25 * HOUR)]), policy) == []
    assert regretted(expired(), policy) == []


def test_the_first_that_is_named_is_the_first_of_the_policy() -> None:
    late = NOON.replace(hour=23)
    assert regretted(expired(late, contacts=[contact(late - HOUR)]), ruled(NIGHTS + DAILY)) == ["daily", "night"]


@pytest.mark.parametrize(
    ("expiry", "held"), [(MORNING, True), (MORNING + MOMENT, False), (NOON.replace(hour=21), True)]
)
def test_the_last_instant_is_the_one_before_the_expiry(expiry: Any, held: bool) -> None:
    """At eight the night is over, but nothing may go at the instant at which it expires; nor just before nine."""
    assert regretted(expired(expiry), ruled(NIGHTS)) == (["night"] if held else [])


def test_it_is_no_matter_how_late_it_is_looked_at_nor_what_came_meanwhile() -> None:
    policy = ruled(DAILY + NIGHTS)
    since = contact(NOON + HOUR)
    assert regretted(expired(late=2 * HOUR, contacts=[since]), policy) == []
    assert regretted(expired(late=11 * HOUR), policy) == []
    before = contact(NOON - HOUR)
    assert regretted(expired(late=30 * HOUR, contacts=[before, since]), policy) == ["daily"]


def test_a_contact_of_the_last_instant_itself_counts() -> None:
    last = contact(NOON)._replace(begun=NOON - MOMENT, ended=NOON + SECOND)
    assert regretted(expired(contacts=[last]), ruled(DAILY)) == ["daily"]
    assert regretted(expired(contacts=[last._replace(begun=NOON)]), ruled("  minimum_gap: 2h\n")) == []


def test_a_rule_in_shadow_is_not_named() -> None:
    shadow = "  caps: [{name: daily, limit: 1, per: 24h, enforce: 0%}]\n"
    assert regretted(expired(contacts=[contact(NOON - HOUR)]), ruled(shadow)) == []


def test_what_had_no_way_to_the_person_was_not_held_by_rules() -> None:
    nobody = person(phone=None, email=None)
    assert regretted(expired(contacts=[contact(NOON - HOUR)], person=nobody), ruled(DAILY)) == []


def test_what_may_have_been_sent_is_not_called_held_back() -> None:
    known = expired(contacts=[contact(NOON - HOUR)], attempts=[attempt(AttemptState.UNKNOWN, error="unconfirmed:x")])
    assert step(known, policy=ruled(DAILY)) == Ended(MessageState.UNKNOWN, "unconfirmed:x")
    failed = expired(contacts=[contact(NOON - HOUR)], attempts=[attempt(AttemptState.NOT_SENT)])
    assert regretted(failed, ruled(DAILY)) == ["daily"]


def test_of_several_channels_none_was_free() -> None:
    each = (
        "  caps: [{name: text, channel: sms, limit: 1, per: 24h}, {name: mail, channel: email, limit: 1, per: 24h}]\n"
    )
    policy = ruled(each, when_capped=WhenCapped.NEXT_CHANNEL)
    text, mail = contact(NOON - HOUR), contact(NOON - HOUR, channel="email")
    both = {"channels": (Channel.SMS, Channel.EMAIL)}
    assert regretted(expired(contacts=[text], about=both), policy) == []
    assert regretted(expired(contacts=[text, mail], about=both), policy) == ["mail"]


@given(rich(), st.integers(0, 90).map(lambda minutes: minutes * MINUTE))
@settings(max_examples=examples(400), deadline=None)
def test_it_is_held_exactly_where_a_decision_at_its_last_instant_would_have_held_it(
    situation: tuple[Facts, Policy], late: timedelta
) -> None:
    known, policy = situation
    now = known.now
    known = replace(
        known,
        message=replace(known.message, expires_at=now + MOMENT),
        contacts=[one for one in known.contacts if one.begun <= now],
        on_addresses={address: [one for one in got if one.begun <= now] for address, got in known.on_addresses.items()},
    )
    before = step(known, policy=policy)
    held = regretted(replace(known, now=now + MOMENT + late), policy)
    match before:
        case Deferred(by_rules=True):
            assert held
        case Ended(reason=Refusal.CAPPED | Refusal.NEVER, why=why):
            assert held == [ruling.rule for ruling in why if ruling.enforced and not ruling.permits and not ruling.at]
        case Attempting() | Deferred() | Ended():
            assert held == []
