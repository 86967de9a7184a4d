"""Does an answer, an error or a receipt mean what the contract says, whatever the order in which they come?"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import decide
from gateway.decide import Attempting, Deferred, Ended
from gateway.message import AttemptState, MessageState
from gateway.outcome import Outcome, accepted, amended, bug, failed, state_of
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
from tests.unit.deciding import DAY, HOUR, MINUTE, NOON, POLICY, SECOND, SPAN, attempt, facts, message, person, step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
    following = decide.after(after, outcome, POLICY, SPAN) or step(after, tried=tried)
    assert isinstance(following, Attempting) is failover
    if isinstance(following, Attempting):
        assert following.provider == "two"
    last = decide.after(after, outcome, POLICY, SPAN) or step(after, tried=tried | {"two"})
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
    assert decide.after(facts(), outcome, POLICY, SPAN) == Ended(MessageState.SENT, "accepted")


def test_a_bug_may_have_sent_it_so_it_is_parked_and_blames_no_provider() -> None:
    outcome = bug()
    assert (outcome.state, outcome.failing, outcome.throttled) == (AttemptState.UNKNOWN, False, False)
    for category in ("news", "receipt"):
        parked = decide.after(facts(message=message(category=category)), outcome, POLICY, SPAN)
        assert parked == Ended(MessageState.PARKED, "bug")


def test_unknown_is_left_or_repeated_once_as_the_category_says() -> None:
    outcome = failed(Unconfirmed("timeout"))
    unsure = attempt(AttemptState.UNKNOWN, error=outcome.error)

    left = facts(attempts=[unsure])
    silent = replace(outcome, error=None)
    assert decide.after(facts(attempts=[unsure]), silent, POLICY, SPAN) == Ended(MessageState.UNKNOWN, "unconfirmed")
    assert decide.after(left, outcome, POLICY, SPAN) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")

    receipt = message(category="receipt")
    repeated = facts(message=receipt, attempts=[unsure])
    again = decide.after(repeated, outcome, POLICY, SPAN)
    assert isinstance(again, Deferred)
    assert (again.rule, again.until) == ("repeat", NOON + 15 * MINUTE)
    assert step(replace(repeated, now=again.until - SECOND)) == again
    assert isinstance(step(replace(repeated, now=again.until)), Attempting)

    twice = facts(message=receipt, attempts=[unsure, replace(unsure, generation=2)])
    assert decide.after(twice, outcome, POLICY, SPAN) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")
    assert step(twice) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")

    soon = replace(repeated, message=replace(receipt, expires_at=NOON + SECOND))
    capped = decide.after(soon, outcome, POLICY, SPAN)
    assert isinstance(capped, Deferred)
    assert capped.until == NOON + SECOND / 2
    assert decide.after(replace(soon, now=NOON + SECOND), outcome, POLICY, SPAN) == Ended(
        MessageState.UNKNOWN, "unconfirmed:timeout"
    )


@pytest.mark.parametrize(
    "end",
    [
        {"now": NOON + 10 * DAY},
        {"person": person(phone=None, email=None)},
        {"attempts": [attempt(AttemptState.REJECTED, error="rejected:x")], "message": {"channels": (Channel.SMS,)}},
    ],
)
def test_what_may_have_been_sent_ends_as_unknown_whatever_comes_of_its_repeat(end: dict[str, Any]) -> None:
    """As ``state_of`` derives it: what is announced and what is shown are the same."""
    unsure = attempt(AttemptState.UNKNOWN, error="unconfirmed:timeout")
    about = message(category="receipt", **end.get("message", {}))
    known = facts(**({"now": NOON + HOUR} | end | {"message": about, "attempts": [unsure, *end.get("attempts", ())]}))
    assert step(known) == Ended(MessageState.UNKNOWN, "unconfirmed:timeout")
    assert state_of(due=False, attempts=known.attempts, ended=MessageState.UNKNOWN) is MessageState.UNKNOWN


def test_what_certainly_failed_is_decided_anew() -> None:
    for kind in (Unavailable, Throttled, Rejected, Unreachable, Misconfigured):
        assert decide.after(facts(), failed(kind("code")), POLICY, SPAN) is None


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
