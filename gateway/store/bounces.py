"""Transactions about mail that came back: whose it is, and what a complaint about it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.message import OptOut
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import lock
from gateway.store.line import WAKE
from gateway.store.upkeep import opt_out
from gateway.store.writes import SUPPRESS
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.acts import Noted
    from gateway.decide import Judge
    from gateway.message import Attempt

COMPLAINT = "complaint"
"""Why an address is suppressed, and by which way its person said no."""


def mailed(references: Sequence[str]) -> Operation[Attempt | None]:
    """The attempt by mail that is meant by the first of these that means any; what went by another channel is not.

    Args:
        references: ids of attempts, or of a message, whose last attempt by mail is meant.
    """
    wanted = (list(references), Channel.EMAIL)
    by_id = yield Fetch(f"select {rows.ATTEMPT} from attempts where id = any($1) and channel = $2", wanted)
    by_message = yield Fetch(
        f"select {rows.ATTEMPT} from attempts where message = any($1) and channel = $2 order by number", wanted
    )
    meant = {row[1]: row for row in by_message} | {row[0]: row for row in by_id}
    return next((rows.attempt(meant[reference]) for reference in references if reference in meant), None)


def complain(attempt: str, judge: Judge) -> Operation[tuple[str | None, list[Noted]]]:
    """Send no more mail to where a mail went, and no more of its category to its person.

    A category that cannot be unsubscribed from, such as codes, goes on by other channels: nobody is to be locked out
    for taking one for spam.

    Returns:
        Who the person is, None if there is no such attempt by mail; and what was remembered of the no.
    """
    found = yield Fetch(
        "select a.person, a.address, m.category from attempts a join messages m on m.id = a.message"
        " where a.id = $1 and a.channel = $2",
        (attempt, Channel.EMAIL),
    )
    if not found:
        return None, []
    person, address, name = found[0]
    yield from lock([person])
    now: int = yield Now()
    yield Run(SUPPRESS, [(address, Channel.EMAIL, COMPLAINT, now)])
    category = judge.policy.categories.get(name)
    if category and not category.unsubscribe:
        yield Run(WAKE, [(person, now)])
        return person, []
    return person, (yield from opt_out(person, OptOut(category=name), COMPLAINT, judge, attempt)) or []
