"""Transactions of what is done with messages: remembered once, told to others, owed to the right message."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from gateway.acts import LEFT, PRESSURE, Deed, Noted, Owed, Record, Remembered, attributed, band, believed
from gateway.ids import new_id
from gateway.message import instant, microseconds
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run
from gateway.store.known import lock
from gateway.store.writes import PUBLISH, act_event
from providers import Act, Agent, Channel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.message import Message
    from ratelimit import Contact


_INSERT = (
    "insert into acts (id, key, person, act, agent, done_at, message, attempt, channel, category, stage, link, via,"
    " why, band, refused) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    " on conflict do nothing"
)
_COLUMNS = "act, agent, done_at, via, channel, stage, link, why, band, refused"


def record(deeds: Sequence[Deed], judge: Judge) -> Operation[list[Noted | None]]:
    """Remember acts; None for each that was known already, or that belongs to nobody we know.

    One that names no message is owed to the last contact before it, where its category's window says so.
    """
    told: dict[str, Deed] = {}
    for deed in deeds:
        told.setdefault(deed.key, deed)
    owed = yield from _owners(list(told.values()))
    locked = yield from lock(one.person for one in owed.values())
    now: int = yield Now()
    known = {row[0] for row in (yield Fetch("select key from acts where key = any($1)", (list(told),)))}
    fresh = [deed for key, deed in told.items() if key in owed and owed[key].person in locked and key not in known]
    owed |= yield from _attributed([deed for deed in fresh if owed[deed.key].message is None], owed, judge, now)
    noted = yield from note([(deed, owed[deed.key]) for deed in fresh], judge, now)
    new = {one.deed.key: one for one in noted}
    return [new.pop(deed.key, None) for deed in deeds]


def note(deeds: Sequence[tuple[Deed, Owed]], judge: Judge, now: int) -> Operation[list[Noted]]:
    """Remember acts that are new, in a transaction that holds the persons; and tell others of them."""
    if not deeds:
        return []
    bands = yield from _bands({owed.person for deed, owed in deeds if deed.act in LEFT}, now)
    noted = [Noted(deed, owed, bands[owed.person] if deed.act in LEFT else None) for deed, owed in deeds]
    yield Run(_INSERT, [_row(one, now) for one in noted])
    told = [one for one in noted if one.deed.act in judge.acts]
    messages = yield from _messages({one.owed.message for one in told})
    yield Run(
        PUBLISH,
        [
            act_event(one, messages.get(one.owed.message or ""), believed(one.deed.done_at, instant(now)))
            for one in told
        ],
    )
    return noted


def of_message(message: str) -> Operation[list[Record]]:
    """What was done with one message, in order."""
    found = yield Fetch(f"select {_COLUMNS} from acts where message = $1 order by done_at, id", (message,))
    return [_record(row) for row in found]


def by_key(keys: Sequence[str]) -> Operation[dict[str, Remembered]]:
    """The acts that are remembered under keys."""
    columns = ", ".join(f"a.{column}" for column in _COLUMNS.split(", "))
    found = yield Fetch(
        f"select a.key, a.person, a.message, a.attempt, a.category, m.source, m.request, {columns}"
        " from acts a left join messages m on m.id = a.message where a.key = any($1)",
        (list(keys),),
    )
    return {
        key: Remembered(
            record := _record(row),
            Owed(person, message, attempt, record.channel, category),
            (source, request) if source else None,
        )
        for key, person, message, attempt, category, source, request, *row in found
    }


def _record(row: Sequence[Any]) -> Record:
    """Of ``_COLUMNS``."""
    act, agent, at, via, channel, stage, link, why, pressure, refused = row
    return Record(
        Act(act),
        Agent(agent),
        instant(at),
        via,
        Channel(channel) if channel else None,
        stage,
        link,
        why,
        pressure,
        orjson.loads(refused) if refused else None,
    )


def owners(attempts: Sequence[str]) -> Operation[dict[str, Owed]]:
    """By attempt, what is done with it belongs to, as far as it is remembered."""
    return {
        attempt: Owed(person, message, attempt, Channel(channel), category)
        for attempt, person, message, channel, category in (
            yield Fetch(
                "select a.id, a.person, a.message, a.channel, m.category from attempts a"
                " join messages m on m.id = a.message where a.id = any($1)",
                (list(attempts),),
            )
        )
    }


def _owners(deeds: Sequence[Deed]) -> Operation[dict[str, Owed]]:
    """By key, what each names, as far as it is remembered. Who names a message of somebody else's names nothing."""
    attempts = yield from owners([deed.attempt for deed in deeds if deed.attempt])
    made = yield from _made([deed.request for deed in deeds if deed.request])
    naming = {deed.key: deed.message or made.get(deed.request or ("", "")) for deed in deeds}
    messages = {
        message: Owed(person, message, None, None, category)
        for message, person, category in (
            yield Fetch(
                "select id, person, category from messages where id = any($1)",
                ([message for message in naming.values() if message],),
            )
        )
    }
    messages |= yield from _last_attempts(messages)
    found: dict[str, Owed] = {}
    for deed in deeds:
        named = attempts.get(deed.attempt or "") or messages.get(naming[deed.key] or "")
        if named is None and deed.person and not (deed.attempt or deed.message or deed.request):
            named = Owed(deed.person)
        if named and deed.person in (None, named.person):
            found[deed.key] = named
    return found


def _made(requests: Collection[tuple[str, str]]) -> Operation[dict[tuple[str, str], str]]:
    """By source and id of requests, the messages that were made of them."""
    if not requests:
        return {}
    found = yield Fetch(
        "select source, id, message from requests where id = any($1) and source = any($2)",
        ([request for _, request in requests], sorted({source for source, _ in requests})),
    )
    return {(source, request): message for source, request, message in found}


def _last_attempts(messages: Mapping[str, Owed]) -> Operation[dict[str, Owed]]:
    """Of messages, each by the attempt that reached the person, as far as is known: the last that may have.

    One that is under way may have too: vendors take their time to answer, and people do not wait for them.
    """
    found: dict[str, Owed] = {}
    for message, attempt, channel in (
        yield Fetch(
            "select message, id, channel from attempts where message = any($1)"
            " and state in ('accepted', 'delivered', 'undelivered', 'unknown', 'intent')"
            " order by case when state = 'intent' then 0 else 1 end, number",
            (list(messages),),
        )
    ):
        found[message] = replace(messages[message], attempt=attempt, channel=Channel(channel))
    return found


def _attributed(
    orphans: Sequence[Deed], owed: Mapping[str, Owed], judge: Judge, now: int
) -> Operation[dict[str, Owed]]:
    """Those that name no message, each by the contact that it is owed to."""
    windows = judge.policy.conversion_windows
    if not orphans or not windows:
        return {}
    done = {deed.key: believed(deed.done_at, instant(now)) for deed in orphans}
    since = min(done.values()) - max(windows.values())
    contacts = yield from _contacts({owed[deed.key].person for deed in orphans}, since)
    found = {}
    for deed in orphans:
        person = owed[deed.key].person
        if contact := attributed(contacts[person], windows, done[deed.key]):
            found[deed.key] = Owed(person, contact.message, None, Channel(contact.channel), contact.category)
    attempts = yield from _last_attempts({one.message: one for one in found.values() if one.message})
    return {key: attempts.get(one.message or "", one) for key, one in found.items()}


def _contacts(people: Collection[str], since: datetime) -> Operation[Mapping[str, list[Contact]]]:
    """Those of persons after an instant, as far as they count."""
    found: dict[str, list[Contact]] = defaultdict(list)
    for row in (
        yield Fetch(
            f"select {rows.CONTACT} from contacts where person = any($1) and begun_at > $2 and counts = 1",
            (sorted(people), microseconds(since)),
        )
    ):
        found[row[0]].append(rows.contact(row))
    return found


def _bands(people: Collection[str], now: int) -> Operation[dict[str, str]]:
    """Under what pressure each of the persons is now."""
    if not people:
        return {}
    contacts = yield from _contacts(people, instant(now) - PRESSURE)
    return {person: band(len(contacts.get(person, ()))) for person in people}


def _messages(wanted: Iterable[str | None]) -> Operation[dict[str, Message]]:
    ids = sorted(message for message in wanted if message)
    if not ids:
        return {}
    found = yield Fetch(f"select {rows.MESSAGE} from messages where id = any($1)", (ids,))
    return {row[0]: rows.message(row) for row in found}


def _row(noted: Noted, now: int) -> tuple[Any, ...]:
    deed, owed = noted.deed, noted.owed
    return (
        new_id(),
        deed.key,
        owed.person,
        deed.act,
        deed.agent,
        microseconds(believed(deed.done_at, instant(now))),
        owed.message,
        owed.attempt,
        owed.channel,
        owed.category,
        deed.stage,
        deed.link,
        deed.via,
        deed.why,
        noted.band,
        None if deed.no is None else orjson.dumps(deed.no).decode(),
    )
