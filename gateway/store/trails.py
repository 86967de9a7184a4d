"""Transactions of what we see of opens and clicks: where a link leads, and who followed it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.acts import Sighting, believed
from gateway.agents import in_company
from gateway.message import content_of, instant
from gateway.store import rows
from gateway.store.acts import record
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import lock
from providers import Act, Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.acts import Noted
    from gateway.decide import Judge
    from providers import Content

_HANDED_OVER = (
    "case when state in ('accepted', 'delivered', 'undelivered') then coalesce(ended_at, begun_at) else begun_at end"
)
"""Of an attempt: when the vendor had it at the latest, else when it was called."""
_MICROSECOND = 1e-6


@dataclass(frozen=True, slots=True)
class Trail:
    """What a link belongs to that was sent."""

    attempt: str
    link: int
    content: Content
    """What the message says: where the link leads stands in it."""
    age: float
    """Seconds since the hand-off."""


def since_hand_off(attempts: Sequence[str]) -> Operation[dict[str, float]]:
    """How many seconds ago attempts were handed over; those that were sent without links of ours are missing."""
    found = yield Fetch(
        f"select id, {_HANDED_OVER} from attempts where id = any($1) and tracked = 1", (list(attempts),)
    )
    now: int = yield Now()
    return {attempt: (now - at) * _MICROSECOND for attempt, at in found}


def trail(attempt: str, link: int) -> Operation[Trail | None]:
    """What a link of an attempt belongs to; None: no such attempt was sent with links of ours, as far as is known."""
    found = yield Fetch(
        f"select message, channel, {_HANDED_OVER} from attempts where id = $1 and tracked = 1", (attempt,)
    )
    for message, channel, at in found:
        now: int = yield Now()
        for row in (yield Fetch(f"select {rows.MESSAGE} from messages where id = $1", (message,))):
            content = content_of(rows.message(row), Channel(channel))
            return Trail(attempt, link, content, (now - at) * _MICROSECOND)
    return None


def short_trail(code: str) -> Operation[Trail | None]:
    """The same of a short link."""
    for attempt, link in (yield Fetch("select attempt, link from links where code = $1", (code,))):
        return (yield from trail(attempt, link))
    return None


def engage(sightings: Sequence[Sighting], judge: Judge) -> Operation[tuple[list[Noted], int]]:
    """Remember opens and clicks that we saw; returns what is new of it.

    Clicks on one message are judged together. What was taken for the person's until the others came becomes a
    machine's, and is told as such; returns of how many that is true, too.
    """
    now = instant((yield Now()))
    sightings = [replace(seen, at=believed(seen.at, now)) for seen in sightings]
    clicks = [seen for seen in sightings if seen.act is Act.CLICKED]
    judged = [seen for seen in sightings if seen.act is not Act.CLICKED]
    withdrawn: list[str] = []
    if clicks:
        attempts = sorted({seen.attempt for seen in clicks})
        found = yield Fetch("select id, person, message from attempts where id = any($1)", (attempts,))
        yield from lock(person for _, person, _ in found)  # what others see of the same message waits for this
        earlier = yield from _earlier([message for _, _, message in found])
        clicks, withdrawn = _judged(earlier, clicks)
        yield Run("delete from acts where id = $1", [(one,) for one in withdrawn])
    noted = yield from record([seen.deed for seen in (*judged, *clicks)], judge)
    return [one for one in noted if one], len(withdrawn)


def _earlier(messages: Sequence[str]) -> Operation[list[tuple[str, Sighting]]]:
    """The clicks on messages that we saw and remember, each with its id."""
    found = yield Fetch(
        "select id, attempt, link, done_at, why from acts where message = any($1) and act = 'clicked' and via = 'link'",
        (list(messages),),
    )
    return [(one, Sighting(Act.CLICKED, attempt, instant(at), why, link)) for one, attempt, link, at, why in found]


def _judged(earlier: Sequence[tuple[str, Sighting]], fresh: Sequence[Sighting]) -> tuple[list[Sighting], list[str]]:
    """Clicks as they are to be remembered, and which of those that are remembered they stand in for."""
    of_attempt: dict[str, list[tuple[str | None, Sighting]]] = defaultdict(list)
    for one, seen in (*earlier, *((None, seen) for seen in fresh)):
        of_attempt[seen.attempt].append((one, seen))
    judged: list[Sighting] = []
    withdrawn: list[str] = []
    for known in of_attempt.values():
        for (one, seen), sign in zip(known, in_company([seen for _, seen in known]), strict=True):
            if one is None:
                judged.append(replace(seen, sign=seen.sign or sign))
            elif sign and not seen.sign:
                judged.append(replace(seen, sign=sign))
                withdrawn.append(one)
    return judged, withdrawn
