"""Is what is decided of a message what the contract says, in every case and at every instant?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.causes import ERRORS, REASONS
from gateway.config import Route
from gateway.decide import (
    Attempting,
    Deferred,
    Ended,
    Facts,
    Health,
    fingerprint,
    subject_of,
)
from gateway.forecast import explained
from gateway.lines import bucket_of, line_of
from gateway.message import Address, AttemptState, MessageState, OptOut, Person, Priority, Profile, PushAddress, Refusal
from gateway.retries import RETRY_BUDGET, backoff
from gateway.unknown import UNRESOLVED
from gateway.whereabouts import whereabouts
from providers import Channel
from tests.examples import examples
from tests.unit.deciding import (
    DAY,
    HOUR,
    MAIL,
    MINUTE,
    NOON,
    OTHER_PHONE,
    PHONE,
    POLICY,
    ROUTES,
    SECOND,
    SPAN,
    attempt,
    contact,
    facts,
    message,
    person,
    situations,
    step,
    waits,
    went,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


# -------------------------------------------------------------------------------------------------------- where it goes


def test_it_goes_by_the_first_channel_through_the_first_provider_before_the_deadline() -> None:
    until_night = datetime(2026, 11, 22, 21, tzinfo=UTC)
    assert step(facts()) == Attempting(Address(Channel.SMS, PHONE), "one", NOON + SPAN, "UTC", until_night)


def test_a_mail_address_is_the_same_however_it_is_capitalized_and_a_token_is_not() -> None:
    assert fingerprint("Ann@Example.com") == fingerprint("ann@example.com")
    assert fingerprint("Token") != fingerprint("token")
    assert len({fingerprint(address) for address in (PHONE, OTHER_PHONE, MAIL, "token")}) == 4


def test_waits_double_and_are_spread_by_half_to_both_sides() -> None:
    for tries in (0, 1, 2, 3):
        waits_ = [backoff(f"message {number}", tries) for number in range(2_000)]
        usual = 5 * SECOND * 2**tries
        assert (min(waits_) - usual / 2) / usual < 0.01
        assert (3 * usual / 2 - max(waits_)) / usual < 0.01
        assert usual / 2 <= min(waits_) <= max(waits_) <= 3 * usual / 2


def test_the_first_byte_is_never_written_after_the_message_has_expired() -> None:
    soon = step(facts(message=message(expires_at=NOON + SECOND)))
    assert isinstance(soon, Attempting)
    assert soon.deadline == soon.valid_until == NOON + SECOND


def test_what_the_request_says_goes_before_what_the_profile_says() -> None:
    asked = message(body={"to": {"phone": OTHER_PHONE}})
    assert went(facts(message=asked)) == ("sms", OTHER_PHONE, "one")
    assert went(facts(message=replace(asked, channels=(Channel.EMAIL,)))) == ("email", MAIL, "three")


@pytest.mark.parametrize(
    ("known", "goes"),
    [
        (facts(person=person(phone=None)), ("email", MAIL, "three")),
        (facts(person=person([OptOut(channel=Channel.SMS)])), ("email", MAIL, "three")),
        (facts(person=person(suppressed=[(Channel.SMS, PHONE)])), ("email", MAIL, "three")),
        (facts(person=person(suppressed=[(Channel.ROBOCALL, PHONE)])), ("sms", PHONE, "one")),
        (facts(attempts=[attempt(AttemptState.REJECTED)]), ("email", MAIL, "three")),
        (facts(attempts=[attempt(AttemptState.UNREACHABLE)]), ("email", MAIL, "three")),
        (facts(attempts=[attempt(AttemptState.UNREACHABLE, address=OTHER_PHONE)]), ("sms", PHONE, "one")),
        (facts(attempts=[attempt(AttemptState.UNREACHABLE, Channel.ROBOCALL)]), ("sms", PHONE, "one")),
        (facts(attempts=[attempt(AttemptState.NOT_SENT)]), ("sms", PHONE, "one")),
    ],
)
def test_a_channel_that_cannot_reach_the_person_is_passed_over(known: Facts, goes: tuple[str, str, str]) -> None:
    assert went(known) == goes


def test_a_channel_without_a_route_is_passed_over() -> None:
    assert went(facts(), routes={Channel.EMAIL: Route(("three",))}) == ("email", MAIL, "three")
    assert step(facts(), routes={}) == Ended(MessageState.REFUSED, Refusal.NO_ADDRESS)


def devices(*tokens: tuple[str, str | None]) -> Profile:
    push = tuple(PushAddress(token=token, platform="ios", provider=provider) for token, provider in tokens)
    return Profile(push=push, timezone="UTC")


def pushed(profile: Profile, *spent: str, suppressed: Sequence[str] = ()) -> Facts:
    return facts(
        message=message(channels=(Channel.PUSH,)),
        person=Person("ann", profile, (), frozenset((Channel.PUSH, token) for token in suppressed)),
        attempts=[attempt(AttemptState.UNREACHABLE, Channel.PUSH, token) for token in spent],
    )


def test_each_device_is_tried_until_one_can_be_reached() -> None:
    profile = devices(("a", None), ("b", None), ("c", None))
    assert went(pushed(profile))[1] == "a"
    assert went(pushed(profile, "a"))[1] == "b"
    assert went(pushed(profile, "a", suppressed=["b"]))[1] == "c"
    assert step(pushed(profile, "a", "b", "c")) == Ended(MessageState.FAILED, "unavailable:refused")


def test_a_token_is_used_by_the_provider_that_issued_it_alone() -> None:
    assert went(pushed(devices(("a", "two")))) == ("push", "a", "two")
    assert step(pushed(devices(("a", "two"))), tried={"two"}) != went(pushed(devices(("a", "two"))))
    assert went(pushed(devices(("a", "gone"), ("b", None)))) == ("push", "b", "one")
    assert step(pushed(devices(("a", "gone")))) == Ended(MessageState.REFUSED, Refusal.NO_ADDRESS)


# -------------------------------------------------------------------------------------------------------- where it ends

NOBODY = person(phone=None, email=None)


@pytest.mark.parametrize(
    ("known", "ends"),
    [
        (facts(message=message(category="gone")), Ended(MessageState.PARKED, "unknown_category")),
        (facts(now=message().expires_at), Ended(MessageState.EXPIRED, "expires_at")),
        (facts(person=NOBODY), Ended(MessageState.REFUSED, Refusal.NO_ADDRESS)),
        (facts(person=person([OptOut()])), Ended(MessageState.REFUSED, Refusal.OPTED_OUT)),
        (facts(person=person([OptOut(category="news")])), Ended(MessageState.REFUSED, Refusal.OPTED_OUT)),
        (
            facts(person=person([OptOut(channel=Channel.SMS), OptOut(channel=Channel.EMAIL, category="news")])),
            Ended(MessageState.REFUSED, Refusal.OPTED_OUT),
        ),
        (
            facts(person=person(suppressed=[(Channel.SMS, PHONE), (Channel.EMAIL, MAIL)])),
            Ended(MessageState.REFUSED, Refusal.SUPPRESSED),
        ),
        (
            facts(person=person([OptOut(channel=Channel.SMS)], [(Channel.EMAIL, MAIL)])),
            Ended(MessageState.REFUSED, Refusal.OPTED_OUT),
        ),
        (
            facts(attempts=[attempt(AttemptState.REJECTED), attempt(AttemptState.REJECTED, Channel.EMAIL)]),
            Ended(MessageState.FAILED, "unavailable:refused"),
        ),
        (
            facts(attempts=[attempt(AttemptState.UNKNOWN, error="unconfirmed:timeout")]),
            Ended(MessageState.UNKNOWN, "unconfirmed:timeout"),
        ),
    ],
)
def test_it_ends(known: Facts, ends: Ended) -> None:
    assert step(known) == ends


@pytest.mark.parametrize("other", [OptOut(channel=Channel.PUSH), OptOut(category="receipt")])
def test_a_no_to_something_else_is_none_to_this(other: OptOut) -> None:
    assert went(facts(person=person([other]))) == ("sms", PHONE, "one")


def test_what_no_rule_ever_permits_is_refused_with_the_reasons() -> None:
    taken = step(facts(message=message(category="never")))
    assert isinstance(taken, Ended)
    assert (taken.state, taken.reason) == (MessageState.REFUSED, Refusal.NEVER)
    assert {ruling.rule for ruling in taken.why if not ruling.permits and ruling.at is None} == {"evening"}
    assert {ruling.rule for ruling in taken.why if ruling.at} == {"morning", "evening", "night"}


TEXT, UNSURE = message(channels=(Channel.SMS,)), attempt(AttemptState.UNKNOWN, error=None)


@pytest.mark.parametrize(
    ("known", "ends"),
    [
        (
            facts(message=TEXT, attempts=[attempt(AttemptState.REJECTED, error=None)]),
            Ended(MessageState.FAILED, "unknown"),
        ),
        (facts(message=TEXT, attempts=[UNSURE]), Ended(MessageState.UNKNOWN, "unconfirmed")),
        (
            facts(message=message(category="receipt"), attempts=[UNSURE], person=person([OptOut()]), now=NOON + HOUR),
            Ended(MessageState.UNKNOWN, "unconfirmed"),
        ),
    ],
)
def test_an_end_whose_error_nobody_recorded_has_a_reason_that_there_are_words_for(known: Facts, ends: Ended) -> None:
    assert step(known) == ends
    assert ends.reason in {**REASONS, **ERRORS}


# ---------------------------------------------------------------------------------------------------- how long it waits


def test_it_waits_for_the_end_of_quiet_hours() -> None:
    night = waits(facts(now=NOON + 10 * HOUR))
    assert (night.until, night.rule, night.place, night.burns, night.will_expire) == (
        datetime(2026, 11, 23, 8, tzinfo=UTC),
        "night",
        False,
        False,
        False,
    )
    assert [(ruling.rule, ruling.permits) for ruling in night.why if ruling.rule == "night"] == [("night", False)]


def test_an_attempt_that_could_run_into_quiet_hours_waits() -> None:
    evening = datetime(2026, 11, 22, 21, tzinfo=UTC)
    assert isinstance(step(facts(now=evening - SPAN - SECOND)), Attempting)
    assert waits(facts(now=evening - SPAN)).rule == "night"


def test_it_waits_for_a_place_which_another_may_give_back() -> None:
    full = [contact(NOON - 5 * HOUR), contact(NOON - 3 * HOUR)]
    capped = waits(facts(contacts=full))
    assert (capped.until, capped.rule, capped.place, capped.burns) == (
        datetime(2026, 11, 23, 8, tzinfo=UTC),  # the place frees at 07:00, in quiet hours
        "night",
        True,
        False,
    )
    assert [(r.rule, r.at) for r in capped.why if not r.permits] == [
        ("daily", None),
        ("night", datetime(2026, 11, 23, 7, tzinfo=UTC)),
    ]
    assert waits(facts(contacts=[contact(NOON - HOUR)])).until == NOON + HOUR


def test_what_is_exempt_waits_for_nothing() -> None:
    full = [contact(NOON - 5 * HOUR), contact(NOON - 3 * HOUR), contact(NOON - SECOND)]
    code = message(category="code", expires_at=NOON + DAY)
    assert went(facts(message=code, contacts=full, now=NOON + 10 * HOUR)) == ("sms", PHONE, "one")
    receipt = message(category="receipt")
    assert waits(facts(message=receipt, contacts=full, now=NOON + 10 * HOUR)).rule == "daily"
    assert went(facts(message=receipt, now=NOON + 10 * HOUR)) == ("sms", PHONE, "one")


def test_a_wait_past_the_expiry_lasts_until_it_and_says_so() -> None:
    short = message(expires_at=NOON + 11 * HOUR)
    night = waits(facts(message=short, now=NOON + 10 * HOUR))
    assert (night.until, night.rule, night.will_expire) == (short.expires_at, "night", True)
    to_the_second = message(expires_at=datetime(2026, 11, 23, 8, tzinfo=UTC))
    assert waits(facts(message=to_the_second, now=NOON + 10 * HOUR)).will_expire


def test_a_paused_provider_is_passed_over_and_waited_for_where_all_are() -> None:
    paused = {"one": NOON + MINUTE}
    assert went(facts(), Health(paused=paused)) == ("sms", PHONE, "two")
    both = waits(facts(), Health(paused=paused | {"two": NOON + 2 * MINUTE}))
    assert (both.until, both.rule, both.burns) == (NOON + MINUTE, "throttled", False)
    assert went(facts(now=NOON + MINUTE), Health(paused=paused)) == ("sms", PHONE, "one")
    for_long = waits(facts(), Health(paused=dict.fromkeys(("one", "two"), NOON + DAY)))
    assert for_long.until - NOON <= HOUR, "by then the route may have another"
    soon = message(expires_at=NOON + 30 * SECOND)
    short = waits(facts(message=soon), Health(paused=paused), tried={"two"})
    assert (short.until, short.rule, short.will_expire, short.burns) == (soon.expires_at, "throttled", True, False)


def test_a_full_provider_is_passed_over_and_waited_for_a_moment_but_by_what_is_critical() -> None:
    assert went(facts(), Health(full={"one"})) == ("sms", PHONE, "two")
    busy = waits(facts(), Health(full={"one", "two"}))
    assert (busy.rule, busy.burns) == ("busy", False)
    assert timedelta(0) < busy.until - NOON <= 5 * SECOND
    code = facts(message=message(category="code"))
    assert went(code, Health(full={"one", "two"})) == ("sms", PHONE, "one")


def test_a_provider_without_a_turn_for_a_message_is_passed_over_and_waited_for_and_burns_no_try() -> None:
    own = message().id
    paced = {"one": {own: 3 * SECOND, "another": SECOND}}
    assert went(facts(), Health(paced=paced)) == ("sms", PHONE, "two")
    assert went(facts(), Health(paced={"one": {"another": SECOND}})) == ("sms", PHONE, "one")
    both = waits(facts(), Health(paced=paced | {"two": {own: 2 * SECOND}}))
    assert (both.until, both.rule, both.burns, both.by_rules) == (NOON + 2 * SECOND, "pace", False, False)
    code = facts(message=message(category="code"))
    assert waits(code, Health(paced={name: {own: SECOND} for name in ("one", "two")})).rule == "pace"
    soon = message(expires_at=NOON + SECOND)
    short = waits(facts(message=soon), Health(paced=paced), tried={"two"})
    assert (short.until, short.rule, short.will_expire, short.burns) == (soon.expires_at, "pace", True, False)


def test_a_failing_provider_is_left_alone_while_another_can_be_asked() -> None:
    one, two = (Channel.SMS, "one"), (Channel.SMS, "two")
    assert went(facts(), Health(failing={one}))[2] == "two"
    assert went(facts(), Health(failing={one, two}))[2] == "one"
    assert went(facts(), Health(failing={one}), tried={"two"})[2] == "one"
    assert went(facts(), Health(failing={one}, paused={"two": NOON + MINUTE}))[2] == "one"
    assert waits(facts(), Health(failing={one}, full={"two"})).rule == "busy"
    assert went(facts(), Health(failing={(Channel.EMAIL, "one")}))[2] == "one"


def test_a_message_that_may_find_out_whether_a_provider_still_fails_tries_it() -> None:
    one = (Channel.SMS, "one")
    assert went(facts(), Health(failing={one}, probes={one: {facts().message.id}}))[2] == "one"
    assert went(facts(), Health(failing={one}, probes={one: {"another"}}))[2] == "two"


def test_when_all_providers_have_failed_it_waits_burning_a_try() -> None:
    tried = facts(attempts=[attempt(AttemptState.NOT_SENT)] * 2)
    later = waits(tried, tried={"one", "two"})
    assert (later.until, later.rule, later.burns) == (NOON + backoff(tried.message.id, 0), "retry", True)


def test_a_throttled_failure_burns_none() -> None:
    throttled = facts(attempts=[attempt(AttemptState.NOT_SENT, error="throttled:429")])
    assert not waits(throttled, tried={"one", "two"}).burns
    assert waits(replace(throttled, tries=RETRY_BUDGET), tried={"one", "two"}).rule == "throttled", "it ends no message"


def test_a_message_is_given_up_when_its_tries_are_used_up() -> None:
    last = facts(attempts=[attempt(AttemptState.NOT_SENT)], tries=RETRY_BUDGET)
    assert step(last, tried={"one", "two"}) == Ended(MessageState.FAILED, "unavailable:refused")
    assert isinstance(step(replace(last, tries=RETRY_BUDGET - 1), tried={"one", "two"}), Deferred)
    assert isinstance(step(last, tried={"one"}), Attempting)


def test_a_retry_after_the_expiry_waits_for_that() -> None:
    soon = message(expires_at=NOON + SECOND)
    failed = facts(message=soon, attempts=[attempt(AttemptState.NOT_SENT)], tries=9)
    later = waits(failed, tried={"one", "two"})
    assert (later.until, later.rule, later.will_expire, later.burns) == (soon.expires_at, "retry", True, True)
    # At the expiry it is too late.
    last = NOON + backoff(soon.id, 9)
    for expires_at in (last, last + timedelta(microseconds=1)):
        later = waits(replace(failed, message=message(expires_at=expires_at)), tried={"one", "two"})
        assert (later.until, later.will_expire) == (last, expires_at == last)


@given(st.text(min_size=1), st.integers(0, 100))
def test_a_wait_grows_and_is_bounded(identity: str, tries: int) -> None:
    wait, twice = backoff(identity, tries), backoff(identity, tries + 4)
    assert SECOND <= wait <= HOUR
    assert twice > wait or tries >= 4
    assert backoff(identity, tries) == wait


def test_what_failed_together_does_not_come_back_together() -> None:
    spread = {backoff(f"m{number}", 3) for number in range(1000)}
    assert len(spread) > 100
    assert max(spread) / min(spread) > 2


def test_the_budget_lasts_for_hours_not_for_minutes_or_days() -> None:
    assert 2 * HOUR < sum((backoff("m", tries) for tries in range(RETRY_BUDGET)), timedelta(0)) < DAY


def test_a_clock_that_is_set_back_frees_no_place() -> None:
    ahead = NOON + 3600 * SECOND
    held = step(facts(contacts=[contact(ahead + SECOND)]))
    assert isinstance(held, Deferred)
    assert held.until > ahead


def test_what_rules_hold_is_freed_by_other_rules_and_what_a_vendor_holds_is_not() -> None:
    assert waits(facts(contacts=[contact(NOON)])).by_rules is True
    failed = facts(attempts=[attempt(AttemptState.NOT_SENT)])
    assert waits(failed, tried={"one", "two"}).by_rules is False


def test_rules_are_asked_about_the_message_as_it_is() -> None:
    known = facts(message=message(campaign="spring", priority=Priority.HIGH, body={"labels": {"team": "growth"}}))
    where, subject = subject_of(known, Address(Channel.SMS, PHONE), POLICY)
    about = known.message
    assert (subject.channel, subject.category, subject.campaign) == ("sms", "news", "spring")
    assert (subject.person, subject.priority, subject.expires_at) == ("ann", Priority.HIGH, about.expires_at)
    assert (subject.country, dict(subject.labels)) == (where.country, {"team": "growth"})
    assert where.country == "US"


# ---------------------------------------------------------------------------------------------------- lines and buckets


def test_a_line_is_one_of_a_category_channels_and_campaign() -> None:
    news = POLICY.categories["news"]
    line = line_of(message(), news, ())
    assert line == line_of(message(id="x", person="bob", priority=Priority.HIGH), news, ())
    others = [message(campaign="c"), message(channels=(Channel.EMAIL, Channel.SMS)), message(channels=(Channel.SMS,))]
    assert (
        len({line, *(line_of(other, news, ()) for other in others), line_of(message(category="never"), news, ())}) == 5
    )
    assert line_of(message(), POLICY.categories["code"], ()) == 0
    receipt = message(category="receipt")  # at any hour, but not more than caps say
    assert line_of(receipt, POLICY.categories["receipt"], ()) not in (0, line)


@given(st.text(), st.lists(st.sampled_from(Channel), min_size=1, unique=True))
def test_a_line_fits_the_database_and_is_none_for_no_bound_message(campaign: str, channels: list[Channel]) -> None:
    line = line_of(message(campaign=campaign, channels=tuple(channels)), POLICY.categories["news"], ())
    assert -(2**63) <= line < 2**63
    assert line != 0


def test_lines_and_buckets_stay_what_they_are_from_release_to_release() -> None:
    """They are stored: another value would part what belongs together."""
    assert [bucket_of(name) for name in ("", "ann", "bob", "ジャン")] == [510, 56, 391, 935]
    news = POLICY.categories["news"]
    assert line_of(message(campaign="wake"), news, ()) == 1448239593345151753
    assert line_of(message(), news, ()) == 5772545308908511163
    assert line_of(message(), replace(news, collapse=True), ()) == -4721642352152649714
    looked_at = {
        "timezone": "Asia/Tokyo",
        "to": {"phone": OTHER_PHONE, "push": [{"token": "t", "platform": "ios"}]},
        "labels": {"topic": "t"},
    }
    assert line_of(message(body=looked_at), news, ()) == 2424612049926829754


@given(st.text())
def test_a_bucket_is_one_of_1024(name: str) -> None:
    assert 0 <= bucket_of(name) < 1024


def test_persons_are_spread_over_the_buckets() -> None:
    assert len({bucket_of(f"user-{number}") for number in range(20_000)}) == 1024


# ---------------------------------------------------------------------------------- at every instant, whatever is known


@given(situations())
@settings(max_examples=examples(800), deadline=None)
def test_nothing_that_a_rule_forbids_is_ever_attempted_and_no_wait_is_lost(
    situation: tuple[Facts, Health, frozenset[str]],
) -> None:
    known, health, tried = situation
    taken = step(known, health, tried=tried)
    assert taken == step(known, health, tried=set(tried))
    about, now = known.message, known.now
    match taken:
        case Deferred():
            assert now < taken.until <= about.expires_at
            assert not (taken.burns and not tried)
        case Ended():
            assert taken.state not in (MessageState.WAITING, MessageState.SENDING, MessageState.SENT)
            assert (taken.state is MessageState.EXPIRED) <= (now >= about.expires_at)
        case Attempting():
            permitted(known, health, tried, taken)


def permitted(known: Facts, health: Health, tried: frozenset[str], taken: Attempting) -> None:
    """Whether it may go, asked without the code that decided it."""
    about, now, to, who = known.message, known.now, taken.address, known.person
    category = POLICY.categories[about.category]
    assert now < about.expires_at
    assert taken.deadline == min(now + SPAN, about.expires_at)
    assert to.channel in about.channels
    # No means no.
    assert (to.channel, to.value) not in who.suppressed
    assert not any(
        said.channel in (None, to.channel) and said.category in (None, about.category) for said in who.optouts
    )
    # Neither what was refused for good, nor what may have been sent.
    assert not any(
        a.channel is to.channel
        and (
            a.state is AttemptState.REJECTED
            or (a.state is AttemptState.UNREACHABLE and a.address == fingerprint(to.value))
        )
        for a in known.attempts
    )
    unknown = [a for a in known.attempts if a.state is AttemptState.UNKNOWN]
    assert len(unknown) <= (about.category == "receipt")
    # A provider that can, may and has not just failed it.
    assert taken.provider in ROUTES[to.channel]
    assert taken.provider not in tried
    assert to.provider in (None, taken.provider)
    assert health.paused.get(taken.provider, now) <= now
    assert taken.provider not in health.full or about.priority is Priority.CRITICAL
    # Quiet is quiet, in every zone the person may be in, for the whole span.
    where = whereabouts(about.body, who.profile, to, POLICY)
    assert taken.zone == where.calendar.key
    if not category.quiet_hours_exempt:
        for there in where.zones:
            for at in (now, now + SPAN / 2, now + SPAN):
                assert 8 <= at.astimezone(there).hour < 21
    # Caps hold.
    if not category.caps_exempt:
        assert sum(c.ended + DAY > now for c in known.contacts) < 2
        assert all(c.ended + 2 * HOUR <= now for c in known.contacts)


@given(situations())
@settings(max_examples=examples(300), deadline=None)
def test_waiting_as_long_as_was_said_is_long_enough(situation: tuple[Facts, Health, frozenset[str]]) -> None:
    known, _, _ = situation
    taken = step(known)
    if isinstance(taken, Deferred) and not taken.will_expire:
        later = step(replace(known, now=taken.until))
        assert not isinstance(later, Deferred) or (taken.rule in UNRESOLVED and later.by_rules)


@given(situations())
@settings(max_examples=examples(300), deadline=None)
def test_what_every_rule_says_agrees_with_what_is_decided(situation: tuple[Facts, Health, frozenset[str]]) -> None:
    known, _, _ = situation
    if known.message.category not in POLICY.categories:
        return
    asked = explained(known, POLICY, ROUTES, SPAN)
    said = asked[0].rulings if asked else ()
    if isinstance(step(known), Attempting):
        assert all(ruling.permits for ruling in said)
    for ruling in said:
        assert ruling.permits is (ruling.next == known.now)
