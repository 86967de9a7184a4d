"""Is what is decided of a message what the contract says, in every case and at every instant?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import decide
from gateway.config import parse
from gateway.decide import (
    RETRY_BUDGET,
    Attempting,
    Deferred,
    Ended,
    Facts,
    Health,
    Outcome,
    accepted,
    amended,
    backoff,
    bucket_of,
    bug,
    explained,
    failed,
    fingerprint,
    line_of,
    next_step,
    state_of,
    zones_of,
)
from gateway.message import (
    Address,
    Attempt,
    AttemptState,
    Message,
    MessageState,
    OptOut,
    Person,
    Priority,
    Profile,
    PushAddress,
    Refusal,
)
from providers import (
    Channel,
    Misconfigured,
    ProviderError,
    ReceiptStatus,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from ratelimit import Contact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIG = """
providers: {one: {kind: inbox}, two: {kind: inbox}, three: {kind: inbox}}
routes: {sms: [one, two], email: [three], push: [one, two], robocall: [one]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    receipt: {priority: high, quiet_hours: exempt, on_unknown: repeat}
    news: {priority: bulk}
    never: {}
  caps:
    - {name: daily, limit: 2, per: 24h}
  minimum_gap: 2h
  quiet_hours:
    - {name: night, from: "21:00", to: "08:00"}
    - {name: morning, category: never, from: "00:00", to: "12:00"}
    - {name: evening, category: never, from: "12:00", to: "00:00"}
"""
WHOLE = parse(CONFIG, {}, base=Path())
POLICY, ROUTES = WHOLE.policy, WHOLE.routes
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPAN = timedelta(seconds=10)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PHONE, OTHER_PHONE, MAIL = "+14155552671", "+819012345678", "ann@example.com"
LONDON, TOKYO, NEW_YORK = ZoneInfo("Europe/London"), ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")


def message(**fields: Any) -> Message:
    category = fields.get("category", "news")
    given = {
        "id": "m" * 26,
        "source": "tests",
        "request": "r",
        "person": "ann",
        "category": category,
        "channels": (Channel.SMS, Channel.EMAIL),
        "priority": POLICY.categories[category].priority if category in POLICY.categories else Priority.NORMAL,
        "accepted_at": NOON - HOUR,
        "starts_at": NOON - HOUR,
        "expires_at": NOON + 10 * DAY,
        "campaign": None,
        "body": {"content": {}},
    }
    return Message(**(given | fields))


def person(optouts: Sequence[OptOut] = (), suppressed: Any = (), **profile: Any) -> Person:
    known = {"phone": PHONE, "email": MAIL, "timezone": "UTC"} | profile
    return Person("ann", Profile(**known), tuple(optouts), frozenset(suppressed))


def attempt(
    state: AttemptState, channel: Channel = Channel.SMS, address: str = PHONE, error: str | None = "unavailable:refused"
) -> Attempt:
    return Attempt("a", "m" * 26, 1, channel, "one", fingerprint(address), state, NOON, NOON + SPAN, error=error)


def contact(ended: datetime, holder: str = "other", zone: ZoneInfo = LONDON, **fields: Any) -> Contact:
    given = {"channel": "sms", "category": "news", "campaign": None} | fields
    return Contact(ended - SECOND, ended, zone=zone, message=holder, **given)


def facts(**fields: Any) -> Facts:
    given = {"message": message(), "person": person(), "contacts": [], "attempts": [], "tries": 0, "now": NOON}
    return Facts(**(given | fields))


def step(known: Facts, health: Health | None = None, **more: Any) -> decide.Step:
    routes = more.pop("routes", ROUTES)
    return next_step(known, POLICY, routes, health or Health(), SPAN, **more)


def test_a_clock_that_is_set_back_frees_no_place() -> None:
    ahead = NOON + 3600 * SECOND
    held = step(facts(contacts=[contact(ahead + SECOND)]))
    assert isinstance(held, Deferred)
    assert held.until > ahead


def went(known: Facts, health: Health | None = None, **more: Any) -> tuple[str, str, str]:
    """Channel, address and provider of an attempt that may be made."""
    taken = step(known, health, **more)
    assert isinstance(taken, Attempting), taken
    return taken.address.channel, taken.address.value, taken.provider


# -------------------------------------------------------------------------------------------------------- where it goes


def test_it_goes_by_the_first_channel_through_the_first_provider_before_the_deadline() -> None:
    assert step(facts()) == Attempting(Address(Channel.SMS, PHONE), "one", NOON + SPAN, "UTC")


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
    assert went(facts(), routes={Channel.EMAIL: ("three",)}) == ("email", MAIL, "three")
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
    assert {ruling.rule for ruling in taken.why if not ruling.permits} == {"evening"}


# ---------------------------------------------------------------------------------------------------- how long it waits


def waits(known: Facts, health: Health | None = None, **more: Any) -> Deferred:
    taken = step(known, health, **more)
    assert isinstance(taken, Deferred), taken
    return taken


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
        "daily",
        True,
        False,
    )
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
    soon = message(expires_at=NOON + 30 * SECOND)
    short = waits(facts(message=soon), Health(paused=paused), tried={"two"})
    assert (short.until, short.will_expire, short.burns) == (soon.expires_at, True, False)


def test_a_full_provider_is_passed_over_and_waited_for_a_moment_but_by_what_is_critical() -> None:
    assert went(facts(), Health(full={"one"})) == ("sms", PHONE, "two")
    busy = waits(facts(), Health(full={"one", "two"}))
    assert (busy.rule, busy.burns) == ("busy", False)
    assert timedelta(0) < busy.until - NOON <= 5 * SECOND
    code = facts(message=message(category="code"))
    assert went(code, Health(full={"one", "two"})) == ("sms", PHONE, "one")


def test_a_failing_provider_is_tried_last_but_is_tried() -> None:
    assert went(facts(), Health(failing={"one"}))[2] == "two"
    assert went(facts(), Health(failing={"one", "two"}))[2] == "one"
    assert went(facts(), Health(failing={"one"}), tried={"two"})[2] == "one"
    assert went(facts(), Health(failing={"one"}, paused={"two": NOON + MINUTE}))[2] == "one"


def test_when_all_providers_have_failed_it_waits_burning_a_try() -> None:
    tried = facts(attempts=[attempt(AttemptState.NOT_SENT)] * 2)
    later = waits(tried, tried={"one", "two"})
    assert (later.until, later.rule, later.burns) == (NOON + backoff(tried.message.id, 0), "retry", True)


def test_a_throttled_failure_burns_none() -> None:
    throttled = facts(attempts=[attempt(AttemptState.NOT_SENT, error="throttled:429")])
    assert not waits(throttled, tried={"one", "two"}).burns


def test_a_message_is_given_up_when_its_tries_are_used_up() -> None:
    last = facts(attempts=[attempt(AttemptState.NOT_SENT)], tries=RETRY_BUDGET)
    assert step(last, tried={"one", "two"}) == Ended(MessageState.FAILED, "unavailable:refused")
    assert isinstance(step(replace(last, tries=RETRY_BUDGET - 1), tried={"one", "two"}), Deferred)
    assert isinstance(step(last, tried={"one"}), Attempting)


def test_a_retry_after_the_expiry_waits_for_that() -> None:
    soon = message(expires_at=NOON + SECOND)
    later = waits(facts(message=soon, attempts=[attempt(AttemptState.NOT_SENT)], tries=9), tried={"one", "two"})
    assert (later.until, later.will_expire, later.burns) == (soon.expires_at, True, True)


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


# ------------------------------------------------------------------------------- what an answer means: STYLE.md's table

YES, NO = True, False
ERRORS: Mapping[type[ProviderError], tuple[AttemptState, bool, bool, bool, bool]] = {
    # state, next provider, later, provider unhealthy, slowed down
    Unavailable: (AttemptState.NOT_SENT, YES, YES, YES, NO),
    Throttled: (AttemptState.NOT_SENT, YES, YES, NO, YES),
    Unconfirmed: (AttemptState.UNKNOWN, NO, NO, NO, NO),
    Rejected: (AttemptState.REJECTED, NO, NO, NO, NO),
    Unreachable: (AttemptState.UNREACHABLE, NO, NO, NO, NO),
    Misconfigured: (AttemptState.NOT_SENT, YES, YES, YES, NO),
}


@pytest.mark.parametrize("kind", ProviderError.__subclasses__())
def test_an_error_means_what_the_table_says(kind: type[ProviderError]) -> None:
    state, failover, later, unhealthy, slowed = ERRORS[kind]
    outcome = failed(kind("c0de", "for people"))
    assert (outcome.state, outcome.failing, outcome.throttled) == (state, unhealthy, slowed)
    assert outcome.error == f"{kind.__name__.lower()}:c0de"
    assert outcome.burns is (kind is not Throttled)

    only_sms = message(channels=(Channel.SMS,))
    after = facts(message=only_sms, attempts=[attempt(outcome.state, error=outcome.error)])
    tried = {"one"} if outcome.state is AttemptState.NOT_SENT else set()
    following = decide.after(after, outcome, POLICY) or step(after, tried=tried)
    assert isinstance(following, Attempting) is failover
    if isinstance(following, Attempting):
        assert following.provider == "two"
    last = decide.after(after, outcome, POLICY) or step(after, tried=tried | {"two"})
    assert isinstance(last, Deferred) is later
    if isinstance(last, Deferred):
        assert last.burns is (kind is not Throttled)


def test_a_vendors_own_figure_is_kept() -> None:
    assert failed(Throttled("429", retry_after=MINUTE)).retry_after == MINUTE
    assert failed(Throttled("429")).retry_after is None
    assert failed(Unavailable("refused")).retry_after is None


def test_accepted_is_the_end() -> None:
    outcome = accepted("SM1")
    assert outcome == Outcome(AttemptState.ACCEPTED, "SM1")
    assert decide.after(facts(), outcome, POLICY) == Ended(MessageState.SENT, "accepted")


def test_a_bug_may_have_sent_it_so_it_is_parked_and_blames_no_provider() -> None:
    outcome = bug()
    assert (outcome.state, outcome.failing, outcome.throttled) == (AttemptState.UNKNOWN, False, False)
    for category in ("news", "receipt"):
        parked = decide.after(facts(message=message(category=category)), outcome, POLICY)
        assert isinstance(parked, Ended)
        assert parked.state is MessageState.PARKED


def test_unknown_is_left_or_repeated_once_as_the_category_says() -> None:
    outcome = failed(Unconfirmed("timeout"))
    unsure = attempt(AttemptState.UNKNOWN, error=outcome.error)

    left = facts(attempts=[unsure])
    assert decide.after(left, outcome, POLICY) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")

    receipt = message(category="receipt")
    repeated = facts(message=receipt, attempts=[unsure])
    again = decide.after(repeated, outcome, POLICY)
    assert isinstance(again, Deferred)
    assert again.until > NOON
    assert isinstance(step(replace(repeated, now=again.until)), Attempting)

    twice = facts(message=receipt, attempts=[unsure, unsure])
    assert decide.after(twice, outcome, POLICY) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")
    assert step(twice) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")

    soon = replace(repeated, message=replace(receipt, expires_at=NOON + SECOND))
    capped = decide.after(soon, outcome, POLICY)
    assert isinstance(capped, Deferred)
    assert capped.until == NOON + SECOND
    assert decide.after(replace(soon, now=NOON + SECOND), outcome, POLICY) == Ended(
        MessageState.UNKNOWN, "unconfirmed:timeout"
    )


@pytest.mark.parametrize(
    "end",
    [
        {"now": NOON + 10 * DAY},
        {"person": NOBODY},
        {"attempts": [attempt(AttemptState.REJECTED, error="rejected:x")], "message": {"channels": (Channel.SMS,)}},
    ],
)
def test_what_may_have_been_sent_ends_as_unknown_whatever_comes_of_its_repeat(end: dict[str, Any]) -> None:
    """As ``state_of`` derives it: what is announced and what is shown are the same."""
    unsure = attempt(AttemptState.UNKNOWN, error="unconfirmed:timeout")
    about = message(category="receipt", **end.get("message", {}))
    known = facts(**(end | {"message": about, "attempts": [unsure, *end.get("attempts", ())]}))
    assert step(known) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")
    assert state_of(due=False, attempts=known.attempts, ended=MessageState.UNKNOWN) is MessageState.UNKNOWN


def test_what_certainly_failed_is_decided_anew() -> None:
    for kind in (Unavailable, Throttled, Rejected, Unreachable, Misconfigured):
        assert decide.after(facts(), failed(kind("code")), POLICY) is None


# ------------------------------------------------------------------------------------------------------------- receipts


def afterwards(state: AttemptState, news: Sequence[ReceiptStatus]) -> AttemptState:
    for status in news:
        state = amended(state, status) or state
    return state


@given(st.sampled_from(AttemptState), st.lists(st.sampled_from(ReceiptStatus), max_size=4))
def test_the_order_in_which_receipts_come_is_no_matter(state: AttemptState, news: list[ReceiptStatus]) -> None:
    assert len({afterwards(state, order) for order in permutations(news)}) == 1


@given(st.sampled_from(AttemptState), st.sampled_from(ReceiptStatus))
def test_a_receipt_twice_is_a_receipt_once(state: AttemptState, status: ReceiptStatus) -> None:
    assert afterwards(state, [status, status]) is afterwards(state, [status])
    assert amended(afterwards(state, [status]), status) is None


@pytest.mark.parametrize(
    ("state", "status", "becomes"),
    [
        (AttemptState.INTENT, ReceiptStatus.ACCEPTED, AttemptState.ACCEPTED),
        (AttemptState.UNKNOWN, ReceiptStatus.ACCEPTED, AttemptState.ACCEPTED),
        (AttemptState.UNKNOWN, ReceiptStatus.DELIVERED, AttemptState.DELIVERED),
        (AttemptState.UNKNOWN, ReceiptStatus.UNDELIVERED, AttemptState.UNDELIVERED),
        (AttemptState.ACCEPTED, ReceiptStatus.DELIVERED, AttemptState.DELIVERED),
        (AttemptState.ACCEPTED, ReceiptStatus.UNDELIVERED, AttemptState.UNDELIVERED),
        (AttemptState.ACCEPTED, ReceiptStatus.UNREACHABLE, AttemptState.UNDELIVERED),
        (AttemptState.NOT_SENT, ReceiptStatus.DELIVERED, AttemptState.DELIVERED),
        (AttemptState.ACCEPTED, ReceiptStatus.ACCEPTED, None),
        (AttemptState.DELIVERED, ReceiptStatus.ACCEPTED, None),
        (AttemptState.DELIVERED, ReceiptStatus.UNDELIVERED, None),
        (AttemptState.UNDELIVERED, ReceiptStatus.ACCEPTED, None),
        (AttemptState.INTENT, ReceiptStatus.OTHER, None),
        (AttemptState.UNKNOWN, ReceiptStatus.OTHER, None),
    ],
)
def test_a_receipt_moves_an_attempt_forward_or_not_at_all(
    state: AttemptState, status: ReceiptStatus, becomes: AttemptState | None
) -> None:
    assert amended(state, status) is becomes


# ---------------------------------------------------------------------------------------------------- a message's state

A, M = AttemptState, MessageState


@pytest.mark.parametrize(
    ("due", "attempts", "ended", "state"),
    [
        (True, [], None, M.WAITING),
        (True, [A.INTENT], None, M.SENDING),
        (True, [A.NOT_SENT], None, M.WAITING),
        (True, [A.NOT_SENT, A.INTENT], None, M.SENDING),
        (True, [A.UNKNOWN], None, M.WAITING),
        (False, [A.ACCEPTED], None, M.SENT),
        (False, [A.NOT_SENT, A.ACCEPTED], None, M.SENT),
        (False, [A.DELIVERED], None, M.DELIVERED),
        (False, [A.UNDELIVERED], None, M.UNDELIVERED),
        (False, [A.UNKNOWN, A.DELIVERED], M.UNKNOWN, M.DELIVERED),
        (False, [A.UNKNOWN], M.UNKNOWN, M.UNKNOWN),
        (False, [A.ACCEPTED], M.UNKNOWN, M.SENT),
        (False, [A.NOT_SENT], M.FAILED, M.FAILED),
        (False, [A.REJECTED, A.UNREACHABLE], M.FAILED, M.FAILED),
        (False, [A.NOT_SENT], M.EXPIRED, M.EXPIRED),
        (False, [], M.REFUSED, M.REFUSED),
        (False, [], M.CANCELLED, M.CANCELLED),
        (False, [], M.EXPIRED, M.EXPIRED),
        (False, [A.UNKNOWN], M.PARKED, M.PARKED),
    ],
)
def test_a_messages_state_is_derived(
    due: bool, attempts: list[AttemptState], ended: MessageState | None, state: MessageState
) -> None:
    assert state_of(due=due, attempts=[attempt(state) for state in attempts], ended=ended) is state


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
    assert zones_of(message(body={"timezone": asked}), profile, address, EVERYWHERE) == (zones, calendar)


def test_a_number_that_may_be_anywhere_is_quiet_if_it_is_quiet_anywhere() -> None:
    nowhere = person(phone="+18005552671", timezone=None)  # toll-free: all of North America
    zones, _ = zones_of(message(), nowhere.profile, Address(Channel.SMS, "+18005552671"), POLICY)
    assert len(zones) > 5
    noon_in_new_york = datetime(2026, 11, 22, 17, tzinfo=UTC)
    assert noon_in_new_york.astimezone(NEW_YORK).hour == 12
    assert waits(facts(person=nowhere, now=noon_in_new_york)).rule == "night"  # it is 07:00 in Hawaii


# ---------------------------------------------------------------------------------------------------- lines and buckets


def test_a_line_is_one_of_a_category_channels_and_campaign() -> None:
    news = POLICY.categories["news"]
    line = line_of(message(), news)
    assert line == line_of(message(id="x", person="bob", priority=Priority.HIGH), news)
    others = [message(campaign="c"), message(channels=(Channel.EMAIL, Channel.SMS)), message(channels=(Channel.SMS,))]
    assert len({line, *(line_of(other, news) for other in others), line_of(message(category="never"), news)}) == 5
    assert line_of(message(), POLICY.categories["code"]) == 0


@given(st.text(), st.lists(st.sampled_from(Channel), min_size=1, unique=True))
def test_a_line_fits_the_database_and_is_none_for_no_bound_message(campaign: str, channels: list[Channel]) -> None:
    line = line_of(message(campaign=campaign, channels=tuple(channels)), POLICY.categories["news"])
    assert -(2**63) <= line < 2**63
    assert line != 0


def test_lines_and_buckets_stay_what_they_are_from_release_to_release() -> None:
    """They are stored: another value would part what belongs together."""
    assert [bucket_of(name) for name in ("", "ann", "bob", "ジャン")] == [510, 56, 391, 935]
    assert line_of(message(campaign="wake"), POLICY.categories["news"]) == 1448239593345151753


@given(st.text())
def test_a_bucket_is_one_of_1024(name: str) -> None:
    assert 0 <= bucket_of(name) < 1024


def test_persons_are_spread_over_the_buckets() -> None:
    assert len({bucket_of(f"user-{number}") for number in range(20_000)}) == 1024


# ---------------------------------------------------------------------------------- at every instant, whatever is known

instants = st.one_of(
    st.integers(0, 14 * 86400).map(lambda seconds: datetime(2026, 10, 24, tzinfo=UTC) + seconds * SECOND),
    # around the ends of quiet hours and the changes of clocks
    st.builds(
        lambda at, off: datetime.fromisoformat(at).replace(tzinfo=UTC) + off * SECOND,
        st.sampled_from(
            ["2026-10-25T01:00", "2026-11-01T06:00", "2026-11-22T08:00", "2026-11-22T21:00", "2026-11-22T12:00"]
        ),
        st.integers(-30, 30),
    ),
)
attempts = st.builds(
    attempt,
    st.sampled_from([state for state in AttemptState if state is not AttemptState.INTENT]),
    st.sampled_from(Channel),
    st.sampled_from([PHONE, MAIL, "a", "b"]),
    st.sampled_from(["throttled:429", "unavailable:refused", "unconfirmed:timeout", None]),
)
tokens = st.builds(
    lambda token, provider: PushAddress(token=token, platform="web", provider=provider),
    st.sampled_from("ab"),
    st.sampled_from([None, "one", "two", "gone"]),
)
zone_names = st.sampled_from([None, "UTC", "Europe/London", "America/New_York", "Asia/Tokyo", "Pacific/Chatham"])
optouts = st.builds(
    lambda channel, category: OptOut(channel=channel, category=category),
    st.sampled_from([None, *Channel]),
    st.sampled_from(["news", "receipt", "code", "other"]),
)
persons = st.builds(
    lambda said, suppressed, **profile: Person("ann", Profile(**profile), tuple(said), suppressed),
    st.lists(optouts, max_size=1),
    st.frozensets(st.tuples(st.sampled_from(Channel), st.sampled_from([PHONE, MAIL, "a", "b"])), max_size=2),
    phone=st.sampled_from([None, PHONE, OTHER_PHONE, "+18005552671"]),
    email=st.sampled_from([None, MAIL]),
    push=st.lists(tokens, max_size=2),
    timezone=zone_names,
)
names = st.frozensets(st.sampled_from(["one", "two", "three"]))


@st.composite
def situations(draw: Any) -> tuple[Facts, Health, frozenset[str]]:
    now = draw(instants)
    category = draw(st.sampled_from(["code", "receipt", "news", "never", "gone"]))
    about = message(
        category=category,
        channels=tuple(draw(st.lists(st.sampled_from(Channel), min_size=1, unique=True))),
        priority=draw(st.sampled_from(Priority)),
        expires_at=now + draw(st.integers(-5, 40)) * draw(st.sampled_from([SECOND, MINUTE, HOUR, DAY])),
        body={"timezone": draw(zone_names)},
    )
    contacts = [
        contact(now + offset * MINUTE, zone=TOKYO)
        for offset in draw(st.lists(st.integers(-30 * 60, 1), max_size=4, unique=True))
    ]
    paused = {name: now + draw(st.integers(-5, 90)) * SECOND for name in draw(names)}
    known = facts(
        message=about,
        person=draw(persons),
        contacts=contacts,
        attempts=draw(st.lists(attempts, max_size=2)),
        tries=draw(st.sampled_from([0, 1, RETRY_BUDGET - 1, RETRY_BUDGET, RETRY_BUDGET + 1])),
        now=now,
    )
    return known, Health(draw(names), paused, draw(names)), draw(names)


@given(situations())
@settings(max_examples=800, deadline=None)
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
            assert not (taken.burns and not known.attempts)
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
    assert taken.deadline == now + SPAN
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
    zones, home = zones_of(about, who.profile, to, POLICY)
    assert taken.zone == home.key
    if not category.quiet_hours_exempt:
        for zone in zones:
            for at in (now, now + SPAN / 2, now + SPAN):
                assert 8 <= at.astimezone(zone).hour < 21
    # Caps hold.
    if not category.caps_exempt:
        assert sum(c.ended + DAY > now for c in known.contacts) < 2
        assert all(c.ended + 2 * HOUR <= now for c in known.contacts)


@given(situations())
@settings(max_examples=300, deadline=None)
def test_waiting_as_long_as_was_said_is_long_enough(situation: tuple[Facts, Health, frozenset[str]]) -> None:
    known, _, _ = situation
    taken = step(known)
    if isinstance(taken, Deferred) and not taken.will_expire:
        later = step(replace(known, now=taken.until))
        assert not isinstance(later, Deferred)


@given(situations())
@settings(max_examples=300, deadline=None)
def test_what_every_rule_says_agrees_with_what_is_decided(situation: tuple[Facts, Health, frozenset[str]]) -> None:
    known, _, _ = situation
    if known.message.category not in POLICY.categories:
        return
    said = explained(known, POLICY, ROUTES, SPAN)
    if isinstance(step(known), Attempting):
        assert all(ruling.permits for ruling in said)
    for ruling in said:
        assert ruling.permits is (ruling.next == known.now)
