"""Is what is said of a person ahead what is decided in the end?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from gateway.abuse import fingerprint
from gateway.decide import Attempting, Deferred, Ended, Facts, Health
from gateway.forecast import eligibility, explained
from gateway.message import OptOut, Person, Profile, PushAddress, Refusal, WhenCapped
from gateway.whereabouts import ZoneSource
from providers import Channel
from ratelimit import HORIZON, Verdict, zone
from tests.examples import examples
from tests.unit.deciding import (
    CODES,
    DAY,
    HOUR,
    MAIL,
    MINUTE,
    NOON,
    PHONE,
    POLICY,
    RICH,
    ROUTES,
    SPAN,
    contact,
    facts,
    message,
    person,
    rich,
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
    mails = '  quiet_hours: [{name: noon, from: "11:00", to: "13:00", channel: email}]\n'
    assert asked(ruled(mails), nobody, accepted_at=NOON).rulings == ()
    assert asked(ruled(mails), nobody, accepted_at=NOON, channels=(Channel.EMAIL,)).verdict.rule == "noon"


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


def devices(*tokens: str) -> Person:
    return person(push=tuple(PushAddress(token=token, platform="ios") for token in tokens))


def full(*minutes_ago: float) -> list[Contact]:
    return [contact(NOON - ago * MINUTE, category="code") for ago in minutes_ago]


@pytest.mark.parametrize(
    ("suppressed", "got", "free"),
    [
        ((), {"a": full(1, 2, 3, 4, 5)}, NOON),  # the other device has had none
        ((), {"a": full(1, 2, 3, 4, 5), "b": full(1, 2, 3, 4, 5)}, NOON + 55 * MINUTE),
        ((), {"a": full(1, 2, 3, 4, 5), "b": full(1, 2, 3, 4, 50)}, NOON + 10 * MINUTE),  # whichever is free first
        (("b",), {"a": full(1, 2, 3, 4, 5), "b": full(1, 2, 3, 4, 50)}, NOON + 55 * MINUTE),
        (("a",), {"b": full(1, 2, 3, 4, 50)}, NOON + 10 * MINUTE),
    ],
)
def test_of_several_devices_the_one_that_may_get_it_first_is_answered_for(
    suppressed: Sequence[str], got: dict[str, list[Contact]], free: datetime
) -> None:
    who = replace(devices("a", "b"), suppressed=frozenset((Channel.PUSH, token) for token in suppressed))
    about = message(category="code", channels=(Channel.PUSH,), expires_at=NOON + HOUR)
    on_addresses = {fingerprint(token): history for token, history in got.items()}
    found = eligibility(about, who, (), NOON, ruled(), SPAN, on_addresses)
    assert (found.verdict.at, found.rulings[0].next, found.rulings[0].permits) == (free, free, free == NOON)
    taken = step(facts(message=about, person=who, on_addresses=on_addresses), policy=ruled())
    assert isinstance(taken, Attempting) is (free == NOON)


def test_when_the_limit_of_an_address_and_the_rules_both_object_both_are_waited_for() -> None:
    late = NOON.replace(hour=20, minute=30)
    on_address = {fingerprint(PHONE): [contact(late - MINUTE, category="news")] * 5}
    who, text = person(timezone=None, phone=PHONE), message(channels=(Channel.SMS,))
    policy = ruled(NIGHTS + "  caps: [{name: one, limit: 1, per: 24h}]", abuse=CODES)
    utc = replace(text, body={"timezone": "UTC"})
    # The limit frees at 21:29, in the night, which the cap outlasts.
    for history, free in (((), NOON.replace(hour=8) + DAY), ([contact(late - HOUR)], late + 23 * HOUR)):
        found = eligibility(utc, who, history, late, policy, SPAN, on_address)
        assert (found.verdict.at, found.verdict.rule) == (free, "abuse")
    never = eligibility(
        replace(utc, category="never"),
        who,
        (),
        NOON,
        replace(POLICY, categories={"never": replace(POLICY.categories["never"], abuse=CODES)}),
        SPAN,
        {fingerprint(PHONE): full(*range(5))},
    )
    assert (never.verdict.at, never.verdict.rule) == (None, "abuse")
    assert never.verdict.never in {"morning", "evening", "night"}
    assert CODES is not None
    once = replace(CODES, limit=1, per=HORIZON + DAY)
    found = eligibility(utc, who, (), NOON, ruled(abuse=once), SPAN, {fingerprint(PHONE): full(1)})
    assert found.verdict == Verdict(None, "abuse", "abuse")


def test_an_address_that_got_too_much_is_not_one_of_the_channels_that_are_told_of() -> None:
    about = message(category="code", expires_at=NOON + HOUR)
    told = explained(
        facts(message=about, on_addresses={fingerprint(PHONE): full(*range(5))}), ruled(NIGHTS), ROUTES, SPAN
    )
    assert [one.channel for one in told] == [Channel.EMAIL]


@pytest.mark.parametrize(
    ("who", "refusal"),
    [
        (person(), None),
        (person([OptOut(channel=Channel.EMAIL)]), None),
        (person([OptOut(category="news")]), Refusal.OPTED_OUT),
        (replace(person(), refused={PHONE: (OptOut(),)}), Refusal.OPTED_OUT),
        (replace(person(), refused={PHONE: (OptOut(channel=Channel.SMS),)}), Refusal.OPTED_OUT),
        (replace(person(), refused={PHONE: (OptOut(channel=Channel.EMAIL),)}), None),
        (replace(person(), refused={MAIL: (OptOut(),)}), None),
        (person(suppressed=[(Channel.SMS, PHONE)]), Refusal.SUPPRESSED),
        (person([OptOut()], [(Channel.SMS, PHONE)]), Refusal.OPTED_OUT),
    ],
)
def test_who_must_not_be_told_is_said_whatever_the_rules_say(who: Person, refusal: Refusal | None) -> None:
    found = asked(POLICY, who, accepted_at=NOON)
    assert (found.refusal, found.has_address) == (refusal, True)


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


@given(rich())
@settings(max_examples=examples(300), deadline=None)
def test_what_is_said_ahead_of_an_address_that_is_limited_is_what_will_be_decided(
    situation: tuple[Facts, Policy],
) -> None:
    known, _ = situation
    policy = RICH[WhenCapped.DEFER]
    about = replace(known.message, channels=known.message.channels[:1], expires_at=known.now + 500 * DAY)
    if any(device.provider == "gone" for device in known.person.profile.push):
        return  # as above
    contacts = [c for c in known.contacts if c.begun <= known.now]
    on_addresses = {to: [c for c in got if c.begun <= known.now] for to, got in known.on_addresses.items()}
    known = replace(known, message=about, contacts=contacts, on_addresses=on_addresses)
    found = eligibility(about, known.person, contacts, known.now, policy, SPAN, on_addresses)
    taken = step(known, policy=policy)
    match taken:
        case Attempting():
            assert (found.refusal, found.verdict.at) == (None, known.now)
        case Deferred():
            assert (found.refusal, found.verdict.at) == (None, taken.until)
        case Ended(reason=Refusal.ABUSE):
            assert found.verdict.at is not None
            assert (found.refusal, found.verdict.rule) == (None, "abuse")
            assert isinstance(step(replace(known, now=found.verdict.at), policy=policy), Attempting)
            sooner = found.verdict.at - timedelta(microseconds=1)
            assert not isinstance(step(replace(known, now=sooner), policy=policy), Attempting)
