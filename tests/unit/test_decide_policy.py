"""Does the policy do what its author reads in it: drop, next channel, reserve, abuse, shadow, scopes and opt-outs?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from gateway import decide
from gateway.abuse import fingerprint
from gateway.decide import Attempting, Deferred, Ended, Facts
from gateway.lines import line_of
from gateway.message import AttemptState, MessageState, OnUnknown, OptOut, Priority, PushAddress, Refusal, WhenCapped
from providers import Channel
from ratelimit import Contact, explain
from tests.examples import examples
from tests.unit.deciding import (
    CODES,
    DAY,
    HOUR,
    MAIL,
    MINUTE,
    NOON,
    OTHER_PHONE,
    PHONE,
    POLICY,
    SECOND,
    SPAN,
    attempt,
    contact,
    facts,
    message,
    person,
    rich,
    ruled,
    step,
    waits,
    went,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Policy

CAPPED_SMS = "  caps: [{name: text, channel: sms, limit: 1, per: 24h}]\n"
CAPPED = "  caps: [{name: one, limit: 1, per: 24h}]\n"
NIGHTS = '  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]\n'
LATE = NOON.replace(hour=22)
MORNING = NOON.replace(hour=8) + DAY
DROP, DEFER, NEXT = WhenCapped.DROP, WhenCapped.DEFER, WhenCapped.NEXT_CHANNEL
ALL = tuple(Channel)
TOKENS = (PushAddress(token="t", platform="ios"),)

# ---------------------------------------------------------------------------------------------------------- when capped


def test_a_capped_message_is_dropped_where_its_category_says_so_and_the_rules_are_kept_with_it() -> None:
    full = facts(contacts=[contact(NOON - HOUR)])
    dropped = step(full, policy=ruled(CAPPED, when_capped=DROP))
    assert isinstance(dropped, Ended)
    assert (dropped.state, dropped.reason) == (MessageState.REFUSED, Refusal.CAPPED)
    assert [(ruling.rule, ruling.permits) for ruling in dropped.why] == [("one", False)]
    assert waits(full, policy=ruled(CAPPED, when_capped=DEFER)).until == NOON + 23 * HOUR


@pytest.mark.parametrize("rules", [CAPPED, "  minimum_gap: 2h\n"])
def test_caps_and_gaps_drop_alike(rules: str) -> None:
    full = facts(contacts=[contact(NOON - HOUR)])
    assert isinstance(step(full, policy=ruled(rules, when_capped=DROP)), Ended)


@pytest.mark.parametrize("choice", [DROP, DEFER, NEXT])
def test_what_the_clocks_alone_hold_waits_for_them_whatever_is_done_when_capped(choice: WhenCapped) -> None:
    night = facts(now=LATE, person=person(push=TOKENS))
    held = waits(night, policy=ruled(CAPPED + NIGHTS, when_capped=choice))
    assert (held.until, held.rule, held.place) == (MORNING, "night", False)


@pytest.mark.parametrize(
    ("hours_ago", "dropped"),
    [
        (14, False),  # the place frees at 08:00, when the night is over too
        (14.5, False),  # sooner
        (13.5, True),  # half an hour later
    ],
)
def test_at_night_capped_means_held_for_longer_than_the_night(hours_ago: float, dropped: bool) -> None:
    full = facts(now=LATE, contacts=[contact(LATE - hours_ago * HOUR)])
    taken = step(full, policy=ruled(CAPPED + NIGHTS, when_capped=DROP))
    assert isinstance(taken, Ended) is dropped
    if isinstance(taken, Deferred):
        assert taken.until == MORNING


def test_a_cap_in_shadow_drops_nothing() -> None:
    policy = ruled("  caps: [{name: one, limit: 1, per: 24h, enforce: 0%}]", when_capped=DROP)
    assert isinstance(step(facts(contacts=[contact(NOON - HOUR)]), policy=policy), Attempting)


def test_a_repeat_that_is_capped_by_what_may_have_been_sent_is_dropped_as_unknown() -> None:
    policy = ruled(CAPPED, when_capped=DROP, on_unknown=OnUnknown.REPEAT)
    unsure = attempt(AttemptState.UNKNOWN, error="unconfirmed:timeout")
    held = [contact(NOON - MINUTE, holder="m" * 26)]
    repeated = step(facts(attempts=[unsure], contacts=held, now=NOON + 20 * MINUTE), policy=policy)
    assert isinstance(repeated, Ended)
    assert repeated.state is MessageState.UNKNOWN
    assert [(ruling.rule, ruling.permits) for ruling in repeated.why] == [("one", False)]


def test_the_next_channel_that_permits_is_taken_and_what_held_the_others_is_kept() -> None:
    full = facts(contacts=[contact(NOON - HOUR)])
    taken = step(full, policy=ruled(CAPPED_SMS, when_capped=NEXT))
    assert isinstance(taken, Attempting)
    assert taken.address.channel is Channel.EMAIL
    assert [ruling.rule for ruling in taken.passed] == ["text"]
    assert waits(full, policy=ruled(CAPPED_SMS)).rule == "text"
    free = step(facts(), policy=ruled(CAPPED_SMS, when_capped=NEXT))
    assert isinstance(free, Attempting)
    assert (free.address.channel, free.passed) == (Channel.SMS, ())


def test_a_channel_between_that_is_quiet_is_passed_over_too() -> None:
    policy = ruled(
        CAPPED_SMS + '  send_windows: [{name: mails, channel: email, hours: ["18:00-19:00"]}]', when_capped=NEXT
    )
    known = facts(
        message=message(channels=(Channel.SMS, Channel.EMAIL, Channel.PUSH)),
        person=person(push=TOKENS),
        contacts=[contact(NOON - HOUR)],
    )
    assert went(known, policy=policy)[0] == Channel.PUSH


@pytest.mark.parametrize(
    ("text_ago", "until", "rule"), [(1, NOON.replace(hour=18), "mails"), (20, NOON + 4 * HOUR, "text")]
)
def test_where_no_channel_permits_it_waits_for_whichever_is_free_first(
    text_ago: int, until: datetime, rule: str
) -> None:
    policy = ruled(
        CAPPED_SMS + '  send_windows: [{name: mails, channel: email, hours: ["18:00-19:00"]}]', when_capped=NEXT
    )
    held = waits(facts(contacts=[contact(NOON - text_ago * HOUR)]), policy=policy)
    assert (held.until, held.rule, held.place) == (until, rule, True)


@pytest.mark.parametrize(
    "barred",
    [
        {"optouts": [OptOut(channel=Channel.EMAIL)]},
        {"suppressed": [(Channel.EMAIL, MAIL)]},
        {"email": None},
    ],
)
def test_the_next_channel_is_never_one_that_must_not_be_used(barred: dict[str, Any]) -> None:
    full = [contact(NOON - HOUR)]
    held = waits(facts(person=person(**barred), contacts=full), policy=ruled(CAPPED_SMS, when_capped=NEXT))
    assert held.rule == "text"
    three = message(channels=(Channel.SMS, Channel.EMAIL, Channel.PUSH))
    known = facts(message=three, person=person(push=TOKENS, **barred), contacts=full)
    assert went(known, policy=ruled(CAPPED_SMS, when_capped=NEXT))[0] == Channel.PUSH


# --------------------------------------------------------------------------------------------- what a cap looks at


@pytest.mark.parametrize(("taken", "priority", "goes"), [(1, 3, True), (2, 3, False), (2, 1, True), (3, 1, False)])
def test_a_kept_place_is_seen_by_who_is_urgent_enough(taken: int, priority: int, goes: bool) -> None:
    policy = ruled("  caps: [{name: daily, limit: 3, per: 24h, reserve: {high: 1}}]")
    known = facts(
        message=message(priority=Priority(priority)), contacts=[contact(NOON - n * HOUR) for n in range(1, taken + 1)]
    )
    assert isinstance(step(known, policy=policy), Attempting) is goes


@pytest.mark.parametrize(
    ("scope", "same", "other"),
    [
        ("campaign", {"campaign": "c"}, {"campaign": "d"}),
        ("campaign", {"campaign": "c"}, {"campaign": None}),
        ("category", {"category": "news"}, {"category": "receipt"}),
        ("channel", {"channel": "sms"}, {"channel": "email"}),
        ("labels.topic", {"labels": {"topic": "t"}}, {"labels": {"topic": "u"}}),
        ("labels.topic", {"labels": {"topic": "t"}}, {}),
    ],
)
def test_a_cap_counts_what_shares_its_scope_with_the_message(
    scope: str, same: dict[str, Any], other: dict[str, Any]
) -> None:
    policy = ruled(f"  caps: [{{name: scoped, limit: 1, per: 24h, scope: [user, {scope}]}}]")
    about = message(campaign="c", body={"content": {}, "labels": {"topic": "t"}})
    assert waits(facts(message=about, contacts=[contact(NOON - HOUR, **same)]), policy=policy).rule == "scoped"
    assert isinstance(step(facts(message=about, contacts=[contact(NOON - HOUR, **other)]), policy=policy), Attempting)


def test_a_rule_narrowed_to_a_label_holds_no_message_without_it() -> None:
    policy = ruled('  quiet_hours: [{name: ads, label: {kind: [ad]}, from: "11:00", to: "13:00"}]')
    ad = message(body={"content": {}, "labels": {"kind": "ad"}})
    assert waits(facts(message=ad), policy=policy).rule == "ads"
    assert isinstance(step(facts(), policy=policy), Attempting)


# ------------------------------------------------------------------------------------------------------------- abuse


def got(address: str, *minutes_ago: float) -> dict[str, Sequence[Contact]]:
    return {fingerprint(address): [contact(NOON - ago * MINUTE, category="code") for ago in minutes_ago]}


def code(**fields: Any) -> Facts:
    return facts(message=message(category="code", expires_at=NOON + HOUR), **fields)


def test_codes_are_limited_to_five_an_hour_and_address_without_being_told() -> None:
    assert (CODES.limit, CODES.per) == (5, HOUR)


def test_what_is_exempt_from_all_is_not_exempt_from_abuse() -> None:
    full = got(PHONE, 1, 2, 3, 4, 59)
    assert went(code(on_addresses=full)) == ("email", MAIL, "three")
    assert went(code(on_addresses=got(PHONE, 1, 2, 3, 4))) == ("sms", PHONE, "one")
    assert went(code(on_addresses=got(PHONE, 1, 2, 3, 4, 60))) == ("sms", PHONE, "one")  # a place frees at the hour
    refused = step(code(on_addresses=full | got(MAIL, 1, 2, 3, 4, 5)))
    assert isinstance(refused, Ended)
    assert (refused.state, refused.reason) == (MessageState.REFUSED, Refusal.ABUSE)
    assert [(ruling.rule, ruling.permits) for ruling in refused.why] == [("abuse", False)] * 2
    by_phone = message(category="code", channels=(Channel.SMS,), expires_at=NOON + HOUR)
    refused = step(
        facts(
            message=by_phone, person=person(timezone=None, phone=OTHER_PHONE), on_addresses=got(OTHER_PHONE, *range(5))
        )
    )
    assert isinstance(refused, Ended)
    (told,) = refused.why
    assert told.why.endswith("frees at 21:56 on 2026-11-22 (Asia/Tokyo)")  # by the clock of the number: 12:56 UTC


def test_who_it_was_for_is_no_matter_to_an_address_and_caps_see_none_of_it() -> None:
    for_others = {fingerprint(PHONE): [contact(NOON - n * MINUTE, holder=f"p{n}", category="code") for n in range(5)]}
    assert went(code(on_addresses=for_others))[0] == "email"
    assert went(facts(on_addresses=for_others))[0] == "sms"  # another category, whose addresses are not limited
    assert step(facts(on_addresses=for_others, person=person([OptOut()]))) == Ended(
        MessageState.REFUSED, Refusal.OPTED_OUT
    )


def test_a_clock_that_is_set_back_frees_no_place_at_an_address() -> None:
    ahead = {fingerprint(PHONE): [contact(NOON + HOUR + n * SECOND, category="code") for n in range(5)]}
    assert went(code(on_addresses=ahead))[0] == "email"
    fewer = {fingerprint(PHONE): ahead[fingerprint(PHONE)][1:]}
    assert went(code(on_addresses=fewer))[0] == "sms"  # nor does it take one


def test_of_several_devices_the_first_that_is_not_over_its_limit_is_used() -> None:
    devices = (PushAddress(token="a", platform="ios"), PushAddress(token="b", platform="ios"))
    to = message(category="code", channels=(Channel.PUSH,), expires_at=NOON + HOUR)
    known = facts(message=to, person=person(push=devices), on_addresses=got("a", 1, 2, 3, 4, 5))
    assert went(known)[1] == "b"


# ------------------------------------------------------------------------------------------------------------- shadow


def test_a_rule_in_shadow_holds_nothing_and_is_recorded_beside_what_was_done() -> None:
    shadow = "  caps: [{name: tight, limit: 1, per: 24h, enforce: 0%}]\n"
    went_over = step(facts(contacts=[contact(NOON - HOUR)]), policy=ruled(shadow))
    assert isinstance(went_over, Attempting)
    assert [(r.rule, r.permits, r.enforced) for r in went_over.shadow] == [("tight", False, False)]
    within = step(facts(), policy=ruled(shadow))
    assert isinstance(within, Attempting)
    assert within.shadow == ()
    held = waits(facts(now=LATE, contacts=[contact(LATE - HOUR)]), policy=ruled(shadow + NIGHTS))
    assert {(r.rule, r.permits, r.enforced) for r in held.why} == {("tight", False, False), ("night", False, True)}
    assert not held.place


@pytest.mark.parametrize("name", ["half", "part"])  # each has other persons
def test_a_canary_is_applied_to_some_persons_and_shadowed_for_the_others(name: str) -> None:
    policy = ruled(f"  caps: [{{name: {name}, limit: 1, per: 24h, enforce: 50%}}]")
    taken = []
    for n in range(400):
        who = f"p{n}"
        known = facts(message=message(person=who), person=replace(person(), id=who), contacts=[contact(NOON - HOUR)])
        taken.append(step(known, policy=policy))
        assert taken[-1] == step(known, policy=policy)
    held = sum(isinstance(one, Deferred) for one in taken)
    assert 150 < held < 250  # of 400, 10 standard deviations
    assert all(one.shadow for one in taken if isinstance(one, Attempting))


# ---------------------------------------------------------------------------------------------------------- valid until


@pytest.mark.parametrize(
    ("rules", "expires", "until"),
    [
        (NIGHTS, NOON + 10 * DAY, NOON.replace(hour=21)),
        (NIGHTS, NOON + HOUR, NOON + HOUR),
        ('  send_windows: [{name: w, hours: ["11:00-13:00", "19:00-21:00"]}]', NOON + 10 * DAY, NOON + HOUR),
        (NIGHTS + '  send_windows: [{name: w, hours: ["11:00-23:00"]}]', NOON + 10 * DAY, NOON.replace(hour=21)),
        ('  quiet_hours: [{name: night, from: "21:00", to: "08:00", enforce: 0%}]', NOON + DAY, NOON + DAY),
        ('  quiet_hours: [{name: night, from: "21:00", to: "08:00", channel: email}]', NOON + DAY, NOON + DAY),
        (CAPPED, NOON + 10 * DAY, NOON + 10 * DAY),
        ("  holidays: [{name: us, country: US}]", NOON + 10 * DAY, datetime(2026, 11, 26, tzinfo=UTC)),  # Thanksgiving
    ],
)
def test_the_provider_is_told_to_give_up_when_it_gets_quiet_or_expires(
    rules: str, expires: datetime, until: datetime
) -> None:
    taken = step(facts(message=message(expires_at=expires)), policy=ruled(rules))
    assert isinstance(taken, Attempting)
    assert taken.valid_until == until


def test_what_is_exempt_from_quiet_hours_may_be_delivered_in_them() -> None:
    receipt = message(category="receipt")
    taken = step(facts(message=receipt), policy=ruled(NIGHTS))
    assert isinstance(taken, Attempting)
    assert taken.valid_until == receipt.expires_at


# ------------------------------------------------------------------------------------------------------------- opt-outs

CHANNELS, CATEGORIES, TOPICS = (None, Channel.SMS, Channel.PUSH), (None, "news", "receipt", "*"), (None, "t", "u")
COMBINATIONS = [
    OptOut(channel=channel, category=category, topic=topic)
    for channel in CHANNELS
    for category in CATEGORIES
    for topic in TOPICS
]
ABOUT_T = message(channels=(Channel.SMS,), body={"content": {}, "labels": {"topic": "t"}})


@pytest.mark.parametrize("no", COMBINATIONS, ids=repr)
def test_a_no_holds_for_what_is_all_that_it_names_said_by_the_person_or_the_address(no: OptOut) -> None:
    covered = (
        no.channel in (None, Channel.SMS) and no.category in (None, "news", "*") and no.topic in (None, "t")
    )  # by hand: each part is absent, or the message's
    for who in (person([no]), replace(person(), refused={PHONE: (no,)})):
        taken = step(facts(message=ABOUT_T, person=who))
        assert (taken == Ended(MessageState.REFUSED, Refusal.OPTED_OUT)) is covered
        assert isinstance(taken, Attempting) is not covered


def test_a_no_to_all_that_can_be_unsubscribed_from_goes_by_the_policy_of_the_moment() -> None:
    no = OptOut(category="*")
    for who in (person([no]), replace(person(), refused={PHONE: (no,), MAIL: (no,)})):
        refused = step(facts(person=who), policy=ruled(unsubscribe=True))
        assert refused == Ended(MessageState.REFUSED, Refusal.OPTED_OUT)
        assert isinstance(step(facts(person=who), policy=ruled(unsubscribe=False)), Attempting)


def test_a_no_to_a_topic_is_none_to_a_message_without_one() -> None:
    assert went(facts(person=person([OptOut(topic="t")])))[0] == "sms"


def test_a_no_of_an_address_bars_that_address_alone() -> None:
    barred = replace(person(), refused={PHONE: (OptOut(),)})
    assert went(facts(person=barred)) == ("email", MAIL, "three")
    other = message(body={"to": {"phone": OTHER_PHONE}})
    assert went(facts(message=other, person=barred)) == ("sms", OTHER_PHONE, "one")
    both = replace(barred, suppressed=frozenset({(Channel.EMAIL, MAIL)}))
    assert step(facts(person=both)) == Ended(MessageState.REFUSED, Refusal.OPTED_OUT)


def test_a_no_between_two_tries_ends_it_as_refused_but_not_what_a_vendor_has_refused() -> None:
    tried = facts(attempts=[attempt(AttemptState.NOT_SENT)], person=person([OptOut()]))
    assert step(tried) == Ended(MessageState.REFUSED, Refusal.OPTED_OUT)
    refused = replace(tried, attempts=[attempt(AttemptState.REJECTED, error="rejected:30007")])
    assert step(refused) == Ended(MessageState.FAILED, "rejected:30007")


# --------------------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    "unlike",
    [
        {"timezone": "Asia/Tokyo"},
        {"to": {"phone": OTHER_PHONE}},
        {"to": {"email": MAIL}},
        {"to": {"push": [{"token": "t", "platform": "ios"}]}},
        {"labels": {"topic": "t"}},
        {"labels": {"looked-at": "x"}},
    ],
)
def test_a_line_is_of_all_that_rules_and_opt_outs_look_at(unlike: dict[str, Any]) -> None:
    news = POLICY.categories["news"]
    labels = {"looked-at"}
    assert line_of(message(body=unlike), news, labels) != line_of(message(), news, labels)
    assert line_of(message(body=unlike), news, labels) == line_of(message(body=dict(unlike)), news, labels)


def test_what_goes_to_other_devices_or_collapses_in_another_category_is_another_line() -> None:
    news, digest = POLICY.categories["news"], replace(POLICY.categories["news"], collapse=True)
    pushed = [message(body={"to": {"push": [{"token": token, "platform": "ios"}]}}) for token in "tu"]
    assert len({line_of(one, news, ()) for one in pushed}) == 2
    assert len({line_of(message(category=name), digest, ()) for name in ("news", "never")}) == 2


@pytest.mark.parametrize("like", [{"labels": {"tone": "warm"}}, {"stage": "s"}, {"locale": "fr"}, {"to": {}}])
def test_a_line_is_not_of_what_they_do_not_look_at(like: dict[str, Any]) -> None:
    news = POLICY.categories["news"]
    assert line_of(message(body=like), news, {"looked-at"}) == line_of(message(), news, {"looked-at"})


def test_what_is_to_collapse_is_one_line_a_campaign() -> None:
    digest = replace(POLICY.categories["news"], collapse=True)
    bodies = [{"labels": {"topic": "t"}}, {"timezone": "Asia/Tokyo"}, {"to": {"phone": OTHER_PHONE}}]
    alike = [message(body=body) for body in bodies] + [message(channels=(Channel.PUSH,))]
    assert {line_of(one, digest, {"topic"}) for one in alike} == {line_of(message(), digest, ())}
    assert line_of(message(campaign="c"), digest, ()) != line_of(message(), digest, ())
    assert line_of(message(), digest, ()) != line_of(message(), POLICY.categories["news"], ())


# ---------------------------------------------------------------------------------- at every instant, whatever is known


@given(rich())
@settings(max_examples=examples(400), deadline=None)
def test_nothing_goes_against_an_enforced_rule_an_opt_out_or_the_limit_of_its_address(
    situation: tuple[Facts, Policy],
) -> None:
    known, policy = situation
    taken, about = step(known, policy=policy), known.message
    if not isinstance(taken, Attempting):
        return
    category = policy.categories[about.category]
    _, subject = decide.subject_of(known, taken.address, policy)
    begun = [contact._replace(begun=min(contact.begun, known.now)) for contact in known.contacts]
    rulings = explain(known.now, SPAN, policy.rules(category), subject, begun)
    assert all(ruling.permits for ruling in rulings if ruling.enforced)
    assert taken.shadow == tuple(ruling for ruling in rulings if not ruling.permits)
    said = (*known.person.optouts, *known.person.refused.get(taken.address.value, ()))
    topic = about.labels.get("topic")
    assert not any(
        no.channel in (None, taken.address.channel)
        and no.category in (None, about.category)
        and no.topic in (None, topic)
        for no in said
    )
    if category.abuse:
        recent = known.on_addresses.get(fingerprint(taken.address.value), ())
        assert sum(c.ended + HOUR > known.now for c in recent) < 5
    # Until the provider is told to give up, the clocks go on permitting it.
    assert known.now < taken.valid_until <= about.expires_at
    if not category.quiet_hours_exempt:
        for zone_of in subject.zones:
            last = (taken.valid_until - SECOND).astimezone(zone_of)
            assert taken.valid_until - known.now < DAY
            assert 8 <= last.hour < 21


@given(rich())
@settings(max_examples=examples(400), deadline=None)
def test_a_wait_is_long_enough_none_of_its_channels_was_free_sooner_and_quiet_hours_drop_nothing(
    situation: tuple[Facts, Policy],
) -> None:
    known, policy = situation
    taken = step(known, policy=policy)
    if isinstance(taken, Deferred) and not taken.will_expire:
        assert not isinstance(step(replace(known, now=taken.until), policy=policy), Deferred)
        sooner = known.now + (taken.until - known.now) / 2
        assert not isinstance(step(replace(known, now=sooner), policy=policy), Attempting)
    if isinstance(taken, Ended) and taken.reason == Refusal.CAPPED:
        assert policy.categories[known.message.category].when_capped is DROP
        assert isinstance(step(replace(known, contacts=[]), policy=policy), Attempting | Deferred)
        assert any(ruling.held_by for ruling in taken.why)
