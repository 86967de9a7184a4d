"""The queue of each webhook, and which webhooks want no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.message import instant
from gateway.store import rows
from gateway.store.engine import Fetch, Now, Operation, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

QUEUE = "insert into webhook_queue (webhook, sequence, event, body, queued_at, due_at) values ($1, $2, $3, $4, $5, $6)"
_SHOWN = 10
"""Events that were given up, the newest, which are shown one by one."""


@dataclass(frozen=True, slots=True)
class Queued:
    """An event that a webhook is to be called with."""

    webhook: str
    sequence: int
    event: str
    """Its id."""
    body: bytes
    tries: int
    """Calls that failed."""


@dataclass(frozen=True, slots=True)
class Called:
    """What became of a call."""

    queued: Queued
    error: str | None = None
    """None: it was taken."""
    again: timedelta | None = None
    """When to call again, where it was not. None: it is given up."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An event that a webhook never took."""

    event: str
    sequence: int
    queued_at: datetime
    calls: int
    error: str | None


@dataclass(frozen=True, slots=True)
class WebhookView:
    """How it stands with a webhook."""

    waiting: int
    oldest: datetime | None
    """When the first of those that wait was queued."""
    given_up: int
    newest: tuple[GivenUp, ...]
    """The last of those that were given up, at most ten."""
    disabled_at: datetime | None
    """None: it is enabled."""
    reason: str | None
    """Why it is disabled."""
    failed_at: datetime | None
    """When it was last called with one of those that wait, and did not take it. None: it was not."""
    error: str | None
    """What that call came to."""
    next_call: datetime | None
    """When the first of those that wait is due; where that is past, as soon as it is the webhook's turn. None: none
    is."""


def disabled(urls: Mapping[str, str]) -> Operation[frozenset[str]]:
    """Those of the webhooks, by name with a hash of their URLs, that want no more."""
    found = yield Fetch("select webhook, url from disabled_webhooks")
    return frozenset(name for name, url in found if urls.get(name) == url)


def due(urls: Mapping[str, str], wanted: Mapping[str, int]) -> Operation[list[Queued]]:
    """The events that webhooks are to be called with now, of each as many as asked for, those due longest first.

    Args:
        urls: a hash of the URL of every webhook, by its name.
        wanted: how many, by the webhook's name.
    """
    off = yield from disabled(urls)
    now: int = yield Now()
    found: list[Queued] = []
    for webhook, limit in wanted.items():
        if webhook in off:
            continue
        page = yield Fetch(
            "select sequence, event, body, tries from webhook_queue where webhook = $1 and due_at <= $2"
            " order by due_at, sequence limit $3",
            (webhook, now, limit),
        )
        found += [Queued(webhook, sequence, event, body.encode(), tries) for sequence, event, body, tries in page]
    return found


def record(calls: Sequence[Called]) -> Operation[None]:
    """Forget what was taken, and say of the rest when it is due again, if ever."""
    now: int = yield Now()
    taken, failed = [], []
    for call in calls:
        row = (call.queued.webhook, call.queued.sequence)
        if call.error is None:
            taken.append(row)
        else:
            due_at = None if call.again is None else now + round(call.again.total_seconds() * 1e6)
            failed.append((*row, call.queued.tries, due_at, call.error, now))
    yield Run("delete from webhook_queue where webhook = $1 and sequence = $2", taken)
    yield Run(
        "update webhook_queue set tries = tries + 1, due_at = $4, error = $5, called_at = $6"
        " where webhook = $1 and sequence = $2 and tries = $3",  # or another worker has called it, too
        failed,
    )


def disable(webhook: str, url: str, reason: str) -> Operation[bool]:
    """Send nothing more to a webhook, as long as its URL has this hash. False: so it was already."""
    now: int = yield Now()
    changed = yield Fetch(
        "insert into disabled_webhooks (webhook, url, reason, disabled_at) values ($1, $2, $3, $4)"
        " on conflict (webhook) do update set url = excluded.url, reason = excluded.reason,"
        " disabled_at = excluded.disabled_at where disabled_webhooks.url <> excluded.url returning 1",
        (webhook, url, reason, now),
    )
    return bool(changed)


def enable(webhook: str) -> Operation[bool]:
    """Send to a webhook again. False: it was not disabled."""
    return bool((yield Fetch("delete from disabled_webhooks where webhook = $1 returning 1", (webhook,))))


def revive(webhook: str, limit: int) -> Operation[int]:
    """Let some of the events that were given up be due now, as if they were new; how many."""
    now: int = yield Now()
    revived = yield Fetch(
        "update webhook_queue set due_at = $2, tries = 0, called_at = null where webhook = $1 and sequence in (select"
        " sequence from webhook_queue where webhook = $1 and due_at is null order by sequence limit $3) returning 1",
        (webhook, now, limit),
    )
    return len(revived)


def views(urls: Mapping[str, str]) -> Operation[dict[str, WebhookView]]:
    """How it stands with webhooks, by name with a hash of their URLs."""
    off = {row[0]: row for row in (yield Fetch("select webhook, url, reason, disabled_at from disabled_webhooks"))}
    found = {}
    for webhook, url in urls.items():
        counted = yield Fetch("select count(*), count(due_at) from webhook_queue where webhook = $1", (webhook,))
        oldest = yield Fetch(
            "select queued_at from webhook_queue where webhook = $1 and due_at is not null order by sequence limit 1",
            (webhook,),
        )
        newest = yield Fetch(
            "select event, sequence, queued_at, tries, error from webhook_queue where webhook = $1 and due_at is null"
            " order by sequence desc limit $2",
            (webhook, _SHOWN),
        )
        failed = yield Fetch(
            "select called_at, error from webhook_queue where webhook = $1 and called_at is not null"
            " and due_at is not null order by called_at desc limit 1",
            (webhook,),
        )
        soonest = yield Fetch(
            "select due_at from webhook_queue where webhook = $1 and due_at is not null order by due_at limit 1",
            (webhook,),
        )
        (kept, waiting), (_, at, reason, disabled_at) = counted[0], off.get(webhook, (None, None, None, None))
        is_off = at == url
        found[webhook] = WebhookView(
            waiting,
            rows.maybe(oldest[0][0]) if oldest else None,
            kept - waiting,
            tuple(GivenUp(event, number, instant(us), tries, error) for event, number, us, tries, error in newest),
            rows.maybe(disabled_at) if is_off else None,
            reason if is_off else None,
            rows.maybe(failed[0][0]) if failed else None,
            failed[0][1] if failed else None,
            rows.maybe(soonest[0][0]) if soonest and not is_off else None,
        )
    return found


def forget(before: int, limit: int) -> Operation[tuple[int, list[str]]]:
    """Delete a piece of what was queued before an instant; how many rows, and whose they were that still waited."""
    gone = yield Fetch(
        "delete from webhook_queue where (webhook, sequence) in"
        " (select webhook, sequence from webhook_queue where queued_at < $1 limit $2) returning webhook, due_at",
        (before, limit),
    )
    return len(gone), [webhook for webhook, due_at in gone if due_at is not None]
