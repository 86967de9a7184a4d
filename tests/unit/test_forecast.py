"""Is what is said of a person ahead what is decided in the end?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from gateway.decide import Attempting, Deferred, Ended, Facts, Health, fingerprint
from gateway.forecast import eligibility, explained
from gateway.message import OptOut, Person, Profile, Refusal, WhenCapped
from gateway.whereabouts import ZoneSource
from providers import Channel
from ratelimit import zone
from tests.examples import examples
from tests.unit.deciding import (
    DAY,
    HOUR,
    MAIL,
    MINUTE,
    NOON,
    PHONE,
    POLICY,
    ROUTES,
    SPAN,
    contact,
    facts,
    message,
    person,
    ruled,
    situations,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Policy
    from gateway.forecast import Eligibility
    from ratelimit import Contact

NIGHTS = '  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]\n'


def asked(policy: Policy, who: Person, contacts: Sequence[Contact] = (), **fields: Any) -> Eligibility:
    about = message(**({"channels": (Channel.SMS,)} | fields))
    return eligibility(about, who, contacts, about.accepted_at, policy, SPAN)


def test_a_person_of_whom_nothing_is_known_may_be_told_what_the_rules_permit() -> None:
    nobody = Person("new", Profile())
    found = asked(ruled(NIGHTS), nobody, accepted_at=NOON)
    assert (found.refusal, found.verdict.at, found.has_address) == (None, NOON, False)
    found = asked(ruled(NIGHTS), nobody, accepted_at=NOON.replace(hour=23))
    assert (found.verdict.at, found.verdict.rule) == (NOON.replace(hour=8) + DAY, "night")
    assert [(ruling.rule, ruling.permits) for ruling in found.rulings] == [("night", False)]


def test_the_zone_that_is_asked_about_is_the_one_that_answers() -> None:
    found = asked(ruled(NIGHTS), person(), accepted_at=NOON, body={"timezone": "Asia/Tokyo"})
    assert found.verdict.at == datetime(2026, 11, 22, 23, tzinfo=UTC)  # 08:00 in Tokyo
    assert found.where.source is ZoneSource.REQUEST


def test_what_the_rules_say_is_told_of_each_channel_that_comes_into_question() -> None:
    rules = NIGHTS + "  caps: [{name: texts, limit: 1, per: 24h, channel: sms}]"
    full = facts(contacts=[contact(NOON - 15 * HOUR)])
    by_sms, by_mail = explained(full, ruled(rules, when_capped=WhenCapped.NEXT_CHANNEL), ROUTES, SPAN)
    assert (by_sms.channel, by_mail.channel) == (Channel.SMS, Channel.EMAIL)
    assert by_sms.where.zones == by_mail.where.zones == (zone("UTC"),)
    # The place frees at 21:00, when the night begins.
    assert (by_sms.verdict.at, by_mail.verdict.at) == (NOON.replace(hour=8) + DAY, NOON)
    assert [(r.rule, r.permits, r.at) for r in by_sms.rulings] == [
        ("texts", False, None),
        ("night", True, None),
        ("night", False, NOON.replace(hour=21)),
    ]
    assert [(r.rule, r.permits) for r in by_mail.rulings] == [("night", True)]


@pytest.mark.parametrize(("got", "free"), [(4, NOON), (5, NOON + HOUR - 5 * MINUTE)])
def test_the_limit_of_an_address_is_one_of_the_rules_whatever_the_category_is_exempt_from(
    got: int, free: datetime
) -> None:
    history = [contact(NOON - number * MINUTE, category="code") for number in range(1, got + 1)]
    code = message(category="code", channels=(Channel.SMS,), accepted_at=NOON)
    found = eligibility(code, person(), (), NOON, ruled(), SPAN, {fingerprint(PHONE): history})
    assert (found.refusal, found.verdict.at, found.verdict.allowed) == (None, free, free == NOON)
    assert [(ruling.rule, ruling.permits) for ruling in found.rulings] == [("abuse", free == NOON)]


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        (person(), None),
        (person([OptOut(channel=Channel.EMAIL)]), None),
        (person([OptOut(category="news")]), Refusal.OPTED_OUT),
        (replace(person(), refused={PHONE: (OptOut(),)}), Refusal.OPTED_OUT),
        (replace(person(), refused={MAIL: (OptOut(),)}), None),
        (person(suppressed=[(Channel.SMS, PHONE)]), Refusal.SUPPRESSED),
        (person([OptOut()], [(Channel.SMS, PHONE)]), Refusal.OPTED_OUT),
    ],
)
def test_who_must_not_be_told_is_said_whatever_the_rules_say(who: Person, refusal: Refusal | None) -> None:
    assert asked(POLICY, who, accepted_at=NOON).refusal is refusal


def test_an_instant_in_the_past_is_answered_for_as_it_was() -> None:
    since = [contact(NOON - HOUR)]
    policy = ruled("  caps: [{name: one, limit: 1, per: 24h}]")
    assert asked(policy, person(), since, accepted_at=NOON).verdict.at == NOON + 23 * HOUR
    assert asked(policy, person(), since, accepted_at=NOON - 2 * HOUR).verdict.at == NOON - 2 * HOUR


@given(situations())
@settings(max_examples=examples(500), deadline=None)
def test_eligibility_says_what_would_be_decided_of_such_a_message(
    situation: tuple[Facts, Health, frozenset[str]],
) -> None:
    known, _, _ = situation
    about = replace(known.message, channels=known.message.channels[:1], expires_at=known.now + 500 * DAY)
    if about.category not in POLICY.categories:
        return
    if any(device.provider == "gone" for device in known.person.profile.push):
        return  # routes are not asked about: who owns a device of a provider that is gone has an address
    # Its contacts are past: of a clock that has been set back no forecast knows.
    contacts = [c for c in known.contacts if c.begun <= known.now]
    known = replace(known, message=about, contacts=contacts, attempts=[], tries=0)
    found = eligibility(about, known.person, contacts, known.now, POLICY, SPAN)
    match step(known):
        case Attempting():
            assert (found.refusal, found.verdict.at) == (None, known.now)
        case Deferred() as waits_:
            assert (found.refusal, found.verdict.at, found.verdict.last) == (None, waits_.until, waits_.rule)
        case Ended(reason=Refusal.NEVER) as never:
            assert (found.verdict.at, found.rulings) == (None, never.why)
        case Ended(reason=Refusal.NO_ADDRESS):
            assert found.refusal is None
        case Ended() as ended:
            assert found.refusal == ended.reason
