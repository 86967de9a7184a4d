"""Transactions of what people answer: heard once, however often a vendor tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.abuse import fingerprint
from gateway.ids import new_id
from gateway.message import OptOut
from gateway.store.engine import Fetch, Operation, Run
from gateway.store.upkeep import REPLY, opt_in, opt_out_address
from providers import Channel

if TYPE_CHECKING:
    from gateway.acts import Noted
    from gateway.decide import Judge


def stop(key: str, address: str, via: str, judge: Judge, attempt: str | None = None) -> Operation[list[Noted] | None]:
    """Record that an address wants no more of anything, on any channel. None: this answer was heard before.

    Args:
        key: what is told twice under one key is one answer.
        via: how it was said.
        judge: the one in force.
        attempt: what it was said to, where that is known.
    """
    if not (yield from _is_new(key)):
        return None
    return (yield from opt_out_address(address, OptOut(), via, judge, attempt))


def start(key: str, address: str) -> Operation[bool]:
    """Take back the no that was answered from an address, and no other; False: this answer was heard before.

    Who writes from a number can be written to, so what vendors said against that no longer stands: most often that the
    person had opted out with them, which is the same no once more.
    """
    if not (yield from _is_new(key)):
        return False
    yield from opt_in("", address, OptOut(), [REPLY])
    yield Run("delete from suppressions where address = $1 and channel = $2", [(fingerprint(address), Channel.SMS)])
    return True


def _is_new(key: str) -> Operation[bool]:
    """Whether it has not been heard; from now on it has been."""
    found = yield Fetch(
        "insert into replies (id, key) values ($1, $2) on conflict do nothing returning 1", (new_id(), key)
    )
    return bool(found)
