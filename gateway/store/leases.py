"""What a worker holds: leases, claimed attempts, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.decide import Behind, Deferred, Ended

if TYPE_CHECKING:
    from gateway.decide import Attempting
    from gateway.message import Attempt, Message
    from gateway.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Lease:
    """A due message that this worker may work on until the lease runs out."""

    message: Message
    fence: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The intent is committed: the provider may be called, until the deadline."""

    lease: Lease
    attempt: Attempt
    step: Attempting
    tried: frozenset[str]
    """Providers that did not take it since it last waited."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a claimed attempt."""

    claimed: Claimed
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out and is another's, or the message was cancelled: nothing may be started."""


Next = Claimed | Deferred | Ended | Behind | Lost
