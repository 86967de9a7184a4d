"""What is done about an attempt that may have been sent: by key, by asking, by waiting, then as the category says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway import decide
from gateway.decide import Attempting, Deferred, Ended
from gateway.message import AttemptState, MessageState, OnUnknown, OptOut
from gateway.outcome import failed
from gateway.retries import RETRY_BUDGET
from gateway.routing import Health
from gateway.unknown import Recourse, next_look
from providers import Channel, Unconfirmed
from tests.unit.deciding import (
    DAY,
    HOUR,
    MAIL,
    MINUTE,
    NOON,
    PHONE,
    POLICY,
    SECOND,
    SPAN,
    attempt,
    contact,
    facts,
    message,
    person,
    ruled,
    step,
    went,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from gateway.message import Attempt

KEYED = {"one": Recourse(keyed=15 * MINUTE)}
LOST = failed(Unconfirmed("timeout"))
UNKNOWN = Ended(MessageState.UNKNOWN, "unconfirmed:timeout")


def unsure(number: int = 1, **fields: Any) -> Attempt:
    made = attempt(AttemptState.UNKNOWN, error=LOST.error)
    return replace(made, **({"id": f"a{number}", "number": number, "ended_at": NOON} | fields))


def made(*attempts: Attempt, category: str = "news", **fields: Any) -> decide.Facts:
    return facts(message=message(category=category), attempts=list(attempts), **fields)


def after(known: decide.Facts, recourses: Any = KEYED) -> decide.Step | None:
    return decide.after(known, LOST, POLICY, SPAN, recourses)


# -------------------------------------------------------------------------------------------------------------- by key


@pytest.mark.parametrize("category", ["news", "receipt"])
def test_whatever_the_category_says_it_is_repeated_by_its_key_within_the_vendors_window(category: str) -> None:
    waits = after(made(unsure(), category=category))
    assert isinstance(waits, Deferred)
    assert (waits.rule, waits.burns) == ("repeat", True)
    assert NOON < waits.until < NOON + MINUTE
    again = step(made(unsure(), category=category, now=waits.until), recourses=KEYED)
    assert isinstance(again, Attempting)
    assert (again.provider, again.generation, again.repeats) == ("one", 1, "a1")


def test_the_last_repeat_begins_before_the_window_ends_and_then_the_category_decides() -> None:
    last = NOON + 15 * MINUTE - SPAN
    assert isinstance(step(made(unsure(), now=last), recourses=KEYED), Attempting)
    assert step(made(unsure(), now=last + SECOND), recourses=KEYED) == UNKNOWN
    deliberate = step(made(unsure(), category="receipt", now=NOON + 15 * MINUTE), recourses=KEYED)
    assert isinstance(deliberate, Attempting)
    assert (deliberate.generation, deliberate.repeats) == (2, None)
    nearly = after(made(unsure(), now=last - SECOND))
    assert isinstance(nearly, Deferred)
    assert nearly.until == last


def test_a_repeat_waits_no_longer_than_until_the_message_expires() -> None:
    soon = replace(made(unsure()), message=message(category="news", expires_at=NOON + SECOND))
    waits = after(soon)
    assert isinstance(waits, Deferred)
    assert waits.until == NOON + SECOND


def test_the_window_runs_from_the_first_use_of_the_key() -> None:
    late = unsure(2, begun_at=NOON + 10 * MINUTE, ended_at=NOON + 11 * MINUTE, repeats="a1")
    known = made(unsure(), late, now=NOON + 14 * MINUTE)
    again = step(known, recourses=KEYED)
    assert isinstance(again, Attempting)
    assert (again.generation, again.repeats) == (1, "a1")
    assert step(replace(known, now=NOON + 15 * MINUTE), recourses=KEYED) == UNKNOWN


def test_repeats_by_a_key_use_up_tries_so_that_a_vendor_that_never_answers_is_left_alone() -> None:
    recourses = {"one": Recourse(keyed=DAY)}
    assert step(made(unsure(), tries=RETRY_BUDGET), recourses=recourses) == UNKNOWN
    assert isinstance(step(made(unsure(), tries=RETRY_BUDGET - 1), recourses=recourses), Attempting)


def test_a_repeat_by_a_key_needs_no_second_place_but_one_without_does() -> None:
    policy = ruled("  caps: [{name: one, limit: 1, per: 24h}]", on_unknown=OnUnknown.REPEAT)
    own = contact(NOON + SECOND, holder="m" * 26)
    known = made(unsure(), contacts=[own], now=NOON + HOUR)
    assert own.begun == NOON
    recourses = {"one": Recourse(keyed=DAY)}
    assert isinstance(step(known, policy=policy, recourses=recourses), Attempting)
    without = step(known, policy=policy)
    assert isinstance(without, Deferred)
    assert without.rule == "one"
    others = replace(known, contacts=[own, contact(NOON)])
    held = step(others, policy=policy, recourses=recourses)
    assert isinstance(held, Deferred)
    assert held.rule == "one"


def test_a_repeat_obeys_hours_and_opt_outs_as_any_hand_over_does() -> None:
    night = step(made(unsure(), now=NOON + 10 * HOUR), recourses={"one": Recourse(keyed=DAY)})
    assert isinstance(night, Deferred)
    assert night.rule == "night"
    assert step(made(unsure(), person=person([OptOut()])), recourses=KEYED) == UNKNOWN


# ---------------------------------------------------------------------------------------------------------- never over


@pytest.mark.parametrize("recourses", [{}, KEYED])
def test_it_never_goes_to_another_provider_channel_or_address(recourses: Any) -> None:
    now = NOON + (15 * MINUTE if not recourses else MINUTE)
    known = made(unsure(), category="receipt", now=now)
    assert went(known, recourses=recourses) == ("sms", PHONE, "one")
    ill = Health(failing={(Channel.SMS, "one")}, cut={(Channel.SMS, "one"): 100})
    assert went(known, ill, recourses=recourses)[2] == "one"
    paused = step(known, Health(paused={"one": now + MINUTE}), recourses=recourses)
    assert isinstance(paused, Deferred)
    assert paused.rule == "throttled"
    failed_again = step(known, tried={"one"}, recourses=recourses)
    assert isinstance(failed_again, Deferred)
    assert failed_again.rule == "retry"
    moved = replace(known, person=person(phone="+819012345678"))
    assert step(moved, recourses=recourses) == UNKNOWN
    by_mail = unsure(channel=Channel.EMAIL, address=decide.fingerprint(MAIL), provider="three")
    mailed = replace(known, attempts=[by_mail], now=NOON + HOUR)
    assert step(mailed, Health(), recourses=recourses, routes={Channel.SMS: ("one",)}) == UNKNOWN


def test_what_certainly_failed_after_it_leaves_it_unknown() -> None:
    refused = replace(attempt(AttemptState.REJECTED, error="rejected:x"), number=2)
    assert step(made(unsure(), refused), recourses=KEYED) == UNKNOWN


# ----------------------------------------------------------------------------------------------------- asking, waiting


def test_a_vendor_that_can_be_asked_is_given_a_minute_before_the_message_is_left() -> None:
    asked = {"one": Recourse(looked_up=True)}
    waits = after(made(unsure()), asked)
    assert isinstance(waits, Deferred)
    assert (waits.rule, waits.until, waits.burns) == ("look_up", NOON + MINUTE, False)
    assert step(made(unsure(), now=NOON + MINUTE - SECOND), recourses=asked) == waits
    assert step(made(unsure(), now=NOON + MINUTE), recourses=asked) == UNKNOWN
    assert after(made(unsure()), {}) == UNKNOWN


@pytest.mark.parametrize(
    ("channel", "wait"),
    [
        (Channel.SMS, 15 * MINUTE),
        (Channel.ROBOCALL, 15 * MINUTE),
        (Channel.EMAIL, HOUR),
        (Channel.PUSH, MINUTE),
    ],
)
def test_a_receipt_has_as_long_as_it_mostly_takes_on_its_channel(channel: Channel, wait: timedelta) -> None:
    waits = after(made(unsure(channel=channel), category="receipt"), {})
    assert isinstance(waits, Deferred)
    assert (waits.rule, waits.until) == ("repeat", NOON + wait)


def test_who_is_woken_before_goes_on_waiting_and_the_category_may_say_how_long() -> None:
    early = step(made(unsure(), category="receipt", now=NOON + MINUTE))
    assert isinstance(early, Deferred)
    assert early.until == NOON + 15 * MINUTE
    receipt = replace(POLICY.categories["receipt"], repeat_after=2 * MINUTE)
    policy = replace(POLICY, categories={**POLICY.categories, "receipt": receipt})
    assert isinstance(step(made(unsure(), category="receipt", now=NOON + 2 * MINUTE), policy=policy), Attempting)


def test_what_would_expire_while_it_waits_is_repeated_halfway() -> None:
    soon = facts(message=message(category="receipt", expires_at=NOON + 10 * MINUTE), attempts=[unsure()])
    waits = after(soon, {})
    assert isinstance(waits, Deferred)
    assert waits.until == NOON + 5 * MINUTE
    assert isinstance(step(replace(soon, now=waits.until)), Attempting)


# ----------------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize(
    ("before", "now", "generation"),
    [
        ([], NOON, 1),
        ([attempt(AttemptState.NOT_SENT)], NOON + MINUTE, 1),
        ([attempt(AttemptState.NOT_SENT)], NOON + 15 * MINUTE, 2),
        ([attempt(AttemptState.UNREACHABLE, address="+14155552672")], NOON, 2),
        ([attempt(AttemptState.REJECTED, Channel.EMAIL, MAIL)], NOON, 2),
        ([replace(attempt(AttemptState.NOT_SENT), provider="two")], NOON, 2),
    ],
    ids=["first", "not sent", "window over", "another address", "another channel", "another provider"],
)
def test_a_key_means_one_message_to_one_address(before: list[Attempt], now: Any, generation: int) -> None:
    known = facts(message=message(channels=(Channel.SMS,)), attempts=before, now=now)
    going = step(known, recourses=KEYED)
    assert isinstance(going, Attempting)
    assert (going.generation, going.repeats) == (generation, None)


def test_a_deliberate_repeat_that_was_not_sent_keeps_its_key() -> None:
    not_sent = replace(attempt(AttemptState.NOT_SENT), number=2, generation=2, begun_at=NOON + HOUR)
    again = step(made(unsure(), not_sent, category="receipt", now=NOON + HOUR + MINUTE), recourses=KEYED)
    assert isinstance(again, Attempting)
    assert (again.generation, again.repeats) == (2, None)


def test_a_vendor_is_asked_soon_and_ever_more_rarely() -> None:
    at, looks = NOON, []
    while at < NOON + 3 * DAY:
        at = next_look(NOON, at)
        looks.append((at - NOON).total_seconds())
    assert looks == [10 * 4**n for n in range(9)]
