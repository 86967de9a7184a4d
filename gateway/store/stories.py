"""Transactions that read what became of many messages, page by page: what reports are made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gateway.ids import oldest_id
from gateway.message import AttemptState, MessageState, instant, microseconds
from gateway.outcome import state_by
from gateway.store.engine import Fetch, Operation
from gateway.store.reading import FINAL
from providers import Act, Agent, Channel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

_APART = timedelta(minutes=1)
"""How far an id may be from the instant at which its message was accepted; the instant is what counts."""
_UNASKED = (Act.CONVERTED, Act.OPTED_OUT, Act.UNINSTALLED)
"""What people do without having been asked by any message."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages are asked about, and what is to be told of them that costs more."""

    since: datetime
    until: datetime
    """Accepted before it."""
    category: str | None = None
    fields: frozenset[str] = frozenset()
    """Of their requests: ``stage``, ``variant``."""
    priced: frozenset[str] = frozenset()
    """Providers of whose text messages the text is wanted."""


@dataclass(frozen=True, slots=True)
class Try:
    """One of a message's attempts."""

    id: str
    number: int
    channel: Channel
    provider: str
    state: AttemptState
    begun_at: datetime
    repeats: str | None
    """The attempt that a vendor takes it for."""
    tracked: bool
    """Links of ours were in it."""


@dataclass(frozen=True, slots=True)
class Done:
    """One act with a message."""

    act: Act
    agent: Agent
    at: datetime
    stage: str | None
    band: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """One message and what became of it."""

    person: str
    category: str
    campaign: str | None
    source: str
    accepted_at: datetime
    stage: str | None
    variant: str | None
    state: MessageState
    reason: str | None
    """Of its last final decision."""
    held: tuple[str, ...]
    """By which rules or causes it was put off, in order."""
    tries: tuple[Try, ...]
    """In order."""
    acts: tuple[Done, ...]
    """In order."""
    text: str | None
    """Of a text message, where that is wanted."""


@dataclass(frozen=True, slots=True)
class Unattributed:
    """Acts that belong to no message, counted."""

    act: Act
    stage: str | None
    band: str | None
    count: int


def page(wanted: Wanted, start: str, limit: int) -> Operation[tuple[list[Story], str | None]]:
    """What became of those of the next ``limit`` messages that are wanted; and where the next page begins.

    Args:
        wanted: which are.
        start: where the page begins; empty for the first.
        limit: of messages looked at, so that what is read at once is bounded whatever is wanted.

    Returns:
        Also None where this was the last page.
    """
    start = start or oldest_id(wanted.since - _APART)
    end = oldest_id(wanted.until + _APART)
    following = yield Fetch(
        "select id from messages where id >= $1 and id < $2 order by id limit 1 offset $3", (start, end, limit)
    )
    next_page: str | None = following[0][0] if following else None
    found = yield from _messages(wanted, start, next_page or end)
    ids = [row[0] for row in found]
    if not ids:
        return [], next_page
    waiting = {message for (message,) in (yield Fetch("select message from due where message = any($1)", (ids,)))}
    tries = yield from _tries(ids)
    held, ended = yield from _decisions(ids)
    acts = yield from _acts(ids)
    texts = yield from _texts(tries, wanted.priced)
    return [_story(row, waiting, tries, held, ended, acts, texts) for row in found], next_page


def unattributed(
    since: datetime, until: datetime, start: int, limit: int
) -> Operation[tuple[list[Unattributed], int | None]]:
    """Of the next ``limit`` acts that were done in a time, those that belong to no message; and where to go on."""
    start, end = max(start, microseconds(since)), microseconds(until)
    following = yield Fetch(
        "select done_at from acts where done_at >= $1 and done_at < $2 order by done_at limit 1 offset $3",
        (start, end, limit),
    )
    next_page: int | None = max(following[0][0], start + 1) if following else None
    found = yield Fetch(
        "select act, stage, band, count(*) from acts where done_at >= $1 and done_at < $2 and message is null"
        " and agent = 'human' and act = any($3) group by act, stage, band",
        (start, end if next_page is None else next_page, list(_UNASKED)),
    )
    return [Unattributed(Act(act), stage, band, count) for act, stage, band, count in found], next_page


def _messages(wanted: Wanted, start: str, end: str) -> Operation[list[Any]]:
    stage, variant = (
        f"body::json ->> '{field}'" if field in wanted.fields else "null" for field in ("stage", "variant")
    )
    narrowed = "" if wanted.category is None else " and category = $5"
    found: list[Any] = yield (
        Fetch(
            f"select id, person, category, campaign, source, accepted_at, {stage}, {variant} from messages"
            f" where id >= $1 and id < $2 and accepted_at >= $3 and accepted_at < $4{narrowed} order by id",
            (
                start,
                end,
                microseconds(wanted.since),
                microseconds(wanted.until),
                *(() if wanted.category is None else (wanted.category,)),
            ),
        )
    )
    return found


def _tries(ids: list[str]) -> Operation[dict[str, list[Try]]]:
    tries: dict[str, list[Try]] = defaultdict(list)
    for message, attempt, number, channel, provider, state, begun_at, repeats, tracked in (
        yield Fetch(
            "select message, id, number, channel, provider, state, begun_at, repeats, tracked from attempts"
            " where message = any($1) order by number",
            (ids,),
        )
    ):
        tries[message].append(
            Try(
                attempt,
                number,
                Channel(channel),
                provider,
                AttemptState(state),
                instant(begun_at),
                repeats,
                bool(tracked),
            )
        )
    return tries


def _decisions(ids: list[str]) -> Operation[tuple[dict[str, list[str]], dict[str, tuple[MessageState, str]]]]:
    """By what each was put off, in order; and how it ended, and why."""
    held: dict[str, list[str]] = defaultdict(list)
    ended = {}
    for message, word, reason in (
        yield Fetch("select message, state, reason from decisions where message = any($1) order by id", (ids,))
    ):
        state = MessageState(word)
        if state in FINAL:
            ended[message] = state, reason
        elif state is MessageState.WAITING:
            held[message].append(reason)
    return held, ended


def _acts(ids: list[str]) -> Operation[dict[str, list[Done]]]:
    acts: dict[str, list[Done]] = defaultdict(list)
    for message, act, agent, done_at, stage, band in (
        yield Fetch(
            "select message, act, agent, done_at, stage, band from acts where message = any($1) order by done_at, id",
            (ids,),
        )
    ):
        acts[message].append(Done(Act(act), Agent(agent), instant(done_at), stage, band))
    return acts


def _texts(tries: Mapping[str, Iterable[Try]], priced: Collection[str]) -> Operation[dict[str, str]]:
    """Of messages that went out as text messages by certain providers, the text."""
    ids = [
        message
        for message, made in tries.items()
        if any(one.channel is Channel.SMS and one.provider in priced for one in made)
    ]
    if not ids:
        return {}
    return dict(
        (yield Fetch("select id, body::json -> 'content' -> 'sms' ->> 'text' from messages where id = any($1)", (ids,)))
    )


def _story(
    row: Any,
    waiting: Collection[str],
    tries: Mapping[str, list[Try]],
    held: Mapping[str, list[str]],
    ended: Mapping[str, tuple[MessageState, str]],
    acts: Mapping[str, list[Done]],
    texts: Mapping[str, str],
) -> Story:
    message, person, category, campaign, source, accepted_at, stage, variant = row
    made = tries.get(message, ())
    end, reason = ended.get(message, (None, None))
    return Story(
        person,
        category,
        campaign,
        source,
        instant(accepted_at),
        stage,
        variant,
        state_by({one.state for one in made}, due=message in waiting, ended=end),
        reason,
        tuple(held.get(message, ())),
        tuple(made),
        tuple(acts.get(message, ())),
        texts.get(message),
    )
