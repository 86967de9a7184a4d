"""What does an answer, an error or a receipt of a provider mean for an attempt, and for its message?

Pure. What is to be done about it is decided in ``decide``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.message import AttemptState, MessageState
from providers import (
    Misconfigured,
    ProviderError,
    ReceiptStatus,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta

    from gateway.message import Attempt

BUG = "bug"
"""The error of an attempt whose adapter broke."""
POISON = "poison"
"""Why a message is parked that kills whoever works on it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt."""

    state: AttemptState
    reference: str | None = None
    error: str | None = None
    """Its kind and code, such as ``unavailable:refused``."""
    detail: str = ""
    """What the provider says beside it, for people."""
    retry_after: timedelta | None = None
    burns: bool = True
    failing: bool = False
    """The provider is at fault, not the message or the address."""
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class _Meaning:
    state: AttemptState
    burns: bool = True
    failing: bool = False
    throttled: bool = False


_MEANINGS: Mapping[type[ProviderError], _Meaning] = {
    Unavailable: _Meaning(AttemptState.NOT_SENT, failing=True),
    Throttled: _Meaning(AttemptState.NOT_SENT, burns=False, throttled=True),
    Unconfirmed: _Meaning(AttemptState.UNKNOWN),
    Rejected: _Meaning(AttemptState.REJECTED),
    Unreachable: _Meaning(AttemptState.UNREACHABLE),
    Misconfigured: _Meaning(AttemptState.NOT_SENT, failing=True),
}


def accepted(reference: str) -> Outcome:
    """The provider took it."""
    return Outcome(AttemptState.ACCEPTED, reference)


def failed(error: ProviderError) -> Outcome:
    """The provider did not take it, or never answered."""
    meaning = _MEANINGS[type(error)]
    return Outcome(
        meaning.state,
        error=f"{type(error).__name__.lower()}:{error.code}",
        detail=error.detail,
        retry_after=error.retry_after if isinstance(error, Throttled) else None,
        burns=meaning.burns,
        failing=meaning.failing,
        throttled=meaning.throttled,
    )


def bug() -> Outcome:
    """The adapter itself broke, and nobody can say how far it came."""
    return Outcome(AttemptState.UNKNOWN, error=BUG)


# The further along, the more is known. A receipt moves an attempt forward or not at all, so their order is no matter.
_RANK: Mapping[AttemptState, int] = {
    AttemptState.INTENT: 0,
    AttemptState.NOT_SENT: 1,
    AttemptState.UNKNOWN: 1,
    AttemptState.REJECTED: 1,
    AttemptState.UNREACHABLE: 1,
    AttemptState.ACCEPTED: 2,
    AttemptState.UNDELIVERED: 3,
    AttemptState.DELIVERED: 4,
}
_RECEIPTS: Mapping[ReceiptStatus, AttemptState] = {
    ReceiptStatus.ACCEPTED: AttemptState.ACCEPTED,
    ReceiptStatus.DELIVERED: AttemptState.DELIVERED,
    ReceiptStatus.UNDELIVERED: AttemptState.UNDELIVERED,
    ReceiptStatus.UNREACHABLE: AttemptState.UNDELIVERED,
}


def amended(state: AttemptState, status: ReceiptStatus) -> AttemptState | None:
    """The state that a receipt moves an attempt to; None where it changes nothing."""
    news = _RECEIPTS.get(status)
    return news if news and _RANK[news] > _RANK[state] else None


def lost_a_channel(attempts: Sequence[Attempt]) -> bool:
    """Whether an answer has closed a way to the person for their message, which others may still go."""
    return any(attempt.state in (AttemptState.REJECTED, AttemptState.UNREACHABLE) for attempt in attempts)


_SETTLED: Mapping[AttemptState, MessageState] = {
    AttemptState.DELIVERED: MessageState.DELIVERED,
    AttemptState.ACCEPTED: MessageState.SENT,
    AttemptState.UNDELIVERED: MessageState.UNDELIVERED,
    AttemptState.UNKNOWN: MessageState.UNKNOWN,
}


def state_of(*, due: bool, attempts: Sequence[Attempt], ended: MessageState | None) -> MessageState:
    """A message's state, from what is recorded of it.

    Args:
        due: whether it is not settled yet.
        attempts: all of them.
        ended: the state of its last final decision.
    """
    return state_by({attempt.state for attempt in attempts}, due=due, ended=ended)


def state_by(states: Collection[AttemptState], *, due: bool, ended: MessageState | None) -> MessageState:
    """The same, from the states of its attempts."""
    if due:
        return MessageState.SENDING if AttemptState.INTENT in states else MessageState.WAITING
    if ended is MessageState.PARKED:
        return ended
    best = next((_SETTLED[state] for state in _SETTLED if state in states), None)
    return best or ended or MessageState.WAITING
