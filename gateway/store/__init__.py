"""The truth: every transaction the gateway makes, on SQLite or PostgreSQL."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import killpoints
from gateway.ids import new_id
from gateway.message import Priority
from gateway.store import (
    acts,
    bounces,
    closing,
    health,
    intake,
    pace,
    reading,
    replies,
    sample,
    stories,
    trails,
    upkeep,
    ward,
    webhooks,
    work,
)
from gateway.store.bounces import COMPLAINT
from gateway.store.closing import Ages, Swept
from gateway.store.engine import StoreFull, StoreNotOpen, StoreUnavailable
from gateway.store.health import Told
from gateway.store.intake import Known, NewMessage, ParkedInput
from gateway.store.leases import Claimed, Lease, Lost, Next, Settlement
from gateway.store.reading import Addressee, Decision, MessageView, PersonView, Standing
from gateway.store.stories import Done, Story, Try, Unattributed, Wanted
from gateway.store.trails import Trail
from gateway.store.ward import SUSPECTS, Round
from gateway.store.webhooks import Called, GivenUp, Queued, WebhookView

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from gateway.acts import Deed, Noted, Remembered, Sighting
    from gateway.config import Policy
    from gateway.decide import Ended, Facts, Judge
    from gateway.message import Attempt, Message, MessageState, OptOut, Profile
    from gateway.pace import Ask, Grant
    from gateway.pressure import Contacted
    from gateway.store.engine import Engine, Operation, T
    from providers import Channel, Receipt

__all__ = [
    "COMPLAINT",
    "SUSPECTS",
    "Addressee",
    "Ages",
    "Called",
    "Claimed",
    "Decision",
    "Done",
    "GivenUp",
    "Known",
    "Lease",
    "Lost",
    "MessageView",
    "NewMessage",
    "Next",
    "ParkedInput",
    "PersonView",
    "Queued",
    "Round",
    "Settlement",
    "Standing",
    "Store",
    "StoreFull",
    "StoreNotOpen",
    "StoreUnavailable",
    "Story",
    "Swept",
    "Told",
    "Trail",
    "Try",
    "Unattributed",
    "Wanted",
    "WebhookView",
    "engine_of",
]

SQLITE = "sqlite:///"
_RECENT = 2048
"""Messages accepted by this process that are kept for the moment until they are leased, which is mostly at once."""


def engine_of(url: str, clock: Callable[[], int], *, server_clock: bool = True) -> Engine:
    """The database that a URL names, not yet opened.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://…``.
        clock: microseconds since 1970, for SQLite.
        server_clock: whether PostgreSQL is asked for its own clock instead.
    """
    if url.startswith(SQLITE):
        from gateway.store.sqlite import SQLite  # noqa: PLC0415 - each engine loads its driver only where it is used

        return SQLite(Path(url.removeprefix(SQLITE)), clock)
    from gateway.store.postgres import Postgres  # noqa: PLC0415 - the same

    return Postgres(url, clock=None if server_clock else clock)


class Store:
    """What the gateway remembers. Each method is one transaction, durable when it returns.

    All of them raise ``StoreUnavailable`` within 6 s where the database cannot be asked; ``StoreFull``: it has no room.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        leases: bool = True,
        worker: str | None = None,
        hear: Callable[[Sequence[Noted]], None] = lambda _: None,
    ) -> None:
        """Ask a database.

        Args:
            engine: the database.
            leases: whether this process works on what it accepts.
            worker: whom its leases belong to, by a name that no process had before.
            hear: is told of acts that have been remembered.
        """
        self._engine = engine
        self._hear = hear
        self._leases = leases
        self._worker = worker or new_id()
        self._holder = int.from_bytes(blake2b(self._worker.encode(), digest_size=8).digest()) >> 1
        self._recent: dict[str, Message] = {}
        self.precedence = engine.precedence

    async def _write(self, operation: Callable[[], Operation[T]], priorities: Iterable[Priority]) -> T:
        """What is critical goes at once, by a way of its own; the rest gives way to it."""
        if all(priority is Priority.CRITICAL for priority in priorities):
            with self.precedence.critical():
                return await self._engine.write(operation, urgent=True)
        await self.precedence.give_way()
        return await self._engine.write(operation)

    async def open(self) -> None:
        """Connect."""
        await self._engine.open()

    async def close(self) -> None:
        """Disconnect, when what is under way has been committed."""
        await self._engine.close()

    async def accept(self, new: Sequence[NewMessage]) -> list[Known | None]:
        """Commit requests; for each whose id is taken, what it stands for."""
        answers = await self._write(lambda: intake.accept(new), (one.message.priority for one in new))
        killpoints.reached("intake.after_commit")
        if self._leases:
            self._recent.update({i.message.id: i.message for i, k in zip(new, answers, strict=True) if k is None})
        while len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        return answers

    async def park(self, inputs: Sequence[ParkedInput]) -> None:
        """Keep input that nobody can deliver."""
        await self._engine.write(lambda: intake.park(inputs))

    async def begin_doubtful(self, body: str) -> int:
        """How often input, named by its hash, was begun with and not finished, this time included."""
        return await self._engine.write(lambda: intake.begin_doubtful(body))

    async def end_doubtful(self, body: str) -> None:
        """Input is finished."""
        await self._engine.write(lambda: intake.end_doubtful(body))

    async def introduce(self, person: str) -> None:
        """Let a person be known of whom nothing is known."""
        await self._engine.write(lambda: intake.introduce(person))

    async def put_profiles(self, profiles: Sequence[tuple[str, Profile]]) -> None:
        """Replace what services tell of persons."""
        await self._engine.write(lambda: intake.put_profiles(profiles))

    async def lease(
        self,
        wanted: Sequence[tuple[Priority, Channel, int]],
        until: timedelta,
        free: Mapping[Channel, int] | None = None,
        *,
        others: bool = True,
    ) -> tuple[list[Lease], list[tuple[Priority, Channel]]]:
        """Take due messages: per priority and channel as many as asked for, per channel no more than are free.

        Also says of which there may be more. ``others``: what other workers have let run out becomes suspect.
        """
        leased = await self._write(
            lambda: work.lease(wanted, until, free or {}, self._recent, self._holder, others=others),
            (priority for priority, *_ in wanted),
        )
        for lease in leased[0]:
            self._recent.pop(lease.message.id, None)
        return leased

    async def claim(self, leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> list[Next]:
        """Decide leased messages and commit the intents; ``ids`` are for the attempts, one a lease."""
        priorities = (lease.message.priority for lease in leases)
        answers = await self._write(lambda: work.claim(leases, judge, ids), priorities)
        killpoints.reached("claim.after_commit")
        return answers

    async def settle(self, settlements: Sequence[Settlement], judge: Judge) -> list[Next]:
        """Record outcomes and decide what comes next."""
        priorities = (settlement.claimed.lease.message.priority for settlement in settlements)
        answers, noted = await self._write(lambda: work.settle(settlements, judge), priorities)
        self._hear(noted)
        killpoints.reached("settle.after_commit")
        return answers

    async def disown(self, attempts: Mapping[str, str]) -> None:
        """Settle intents, each with its person, of which only the commit is uncertain: nobody was called."""
        await self._engine.write(lambda: work.disown(attempts))

    async def give_back(self, leases: Sequence[Lease], pause: timedelta) -> None:
        """Let others have what this worker, which lives, will not finish, after a pause."""
        await self._engine.write(lambda: ward.give_back(leases, pause))

    async def give_back_all_but(self, held: Collection[str]) -> None:
        """The same for what this worker may have leased without hearing of it."""
        await self._engine.write(lambda: ward.give_back_all_but(held, self._holder))

    async def inherit(self) -> None:
        """Take over at once what earlier processes held; only for one that has the database to itself."""
        await self._engine.write(lambda: ward.inherit(self._worker, self._holder))

    async def suspects(self) -> int:
        """How many messages there are whose worker vanished while it held them."""
        return await self._engine.read(ward.count)

    async def take_suspect(self, until: timedelta, judge: Judge, *, others: bool = True) -> Round:
        """Lease the next of them, unless one is under way in any worker; and park what has killed too many."""
        return await self._engine.write(lambda: ward.take(self._worker, self._holder, until, judge, others=others))

    async def broke(self, lease: Lease, judge: Judge) -> Sequence[tuple[Message, Ended]]:
        """Working on a message ended in a bug; returns what was set aside, because that goes on."""
        return await self._engine.write(lambda: ward.broke(lease, judge))

    async def clear(self, lease: Lease) -> None:
        """A suspect was run alone and came through."""
        await self._engine.write(lambda: ward.clear(lease))

    async def take_turns(self, worker: str, asks: Sequence[Ask]) -> dict[str, Grant]:
        """Book turns in the paces of providers; one is missing where another worker is booking at this moment."""
        return await self._engine.write(lambda: pace.take(worker, asks))

    async def receipt(self, receipts: Sequence[Receipt], judge: Judge) -> list[bool | None]:
        """Amend attempts by vendors' news; whether each changed something, None for each of no attempt that we know."""
        changed, noted = await self._engine.write(lambda: upkeep.receipt(receipts, judge))
        self._hear(noted)
        killpoints.reached("receipt.after_commit")
        return changed

    async def record(self, deeds: Sequence[Deed], judge: Judge) -> list[Noted | None]:
        """Remember what was done with messages; None for each that was known already, or is nobody's we know."""
        noted = await self._engine.write(lambda: acts.record(deeds, judge))
        self._hear([one for one in noted if one])
        return noted

    async def mailed(self, references: Sequence[str]) -> Attempt | None:
        """The attempt by mail that the first of these ids means, of those that mean any: its own, or its message's."""
        return await self._engine.read(lambda: bounces.mailed(references))

    async def complain(self, attempt: str, judge: Judge) -> str | None:
        """Take a complaint about a mail for a no, of its address to all mail and of its person to its category.

        Says who the person is. None: there is no such attempt by mail.
        """
        person, noted = await self._engine.write(lambda: bounces.complain(attempt, judge))
        self._hear(noted)
        return person

    async def known_acts(self, keys: Sequence[str]) -> dict[str, Remembered]:
        """The acts that are remembered under keys."""
        return await self._engine.read(lambda: acts.by_key(keys))

    async def since_hand_off(self, attempts: Sequence[str]) -> dict[str, float]:
        """How many seconds ago attempts were handed over, as far as they were sent with links of ours."""
        return await self._engine.read(lambda: trails.since_hand_off(attempts))

    async def trail(self, attempt: str, link: int) -> Trail | None:
        """What a link of an attempt belongs to."""
        return await self._engine.read(lambda: trails.trail(attempt, link))

    async def short_trail(self, code: str) -> Trail | None:
        """What a short link belongs to."""
        return await self._engine.read(lambda: trails.short_trail(code))

    async def engage(self, sightings: Sequence[Sighting], judge: Judge) -> int:
        """Remember opens and clicks that we saw; how many of a person's turned out to be a machine's."""
        noted, withdrawn = await self._engine.write(lambda: trails.engage(sightings, judge))
        self._hear(noted)
        return withdrawn

    async def opt_out(self, person: str, optout: OptOut, via: str, judge: Judge, attempt: str | None = None) -> bool:
        """Record a person's no, said to an attempt where that is known. False: nobody knows the person."""
        noted = await self._engine.write(lambda: upkeep.opt_out(person, optout, via, judge, attempt))
        self._hear(noted or ())
        return noted is not None

    async def opt_out_address(self, address: str, optout: OptOut, via: str, judge: Judge) -> None:
        """Record a no that was said by an address, whoever it belongs to."""
        self._hear(await self._engine.write(lambda: upkeep.opt_out_address(address, optout, via, judge)))

    async def opt_in(self, person: str, address: str | None, optout: OptOut, via: Collection[str] = ()) -> bool:
        """Take back exactly this no, of a person or (with ``person`` empty) of an address. False: it was never said.

        ``via``: only where it was said in one of these ways.
        """
        return await self._engine.write(lambda: upkeep.opt_in(person, address, optout, via))

    async def hear_stop(self, key: str, address: str, via: str, judge: Judge, attempt: str | None = None) -> bool:
        """Record that who has an address wants no more. False: the answer of this key was heard before."""
        noted = await self._engine.write(lambda: replies.stop(key, address, via, judge, attempt))
        self._hear(noted or ())
        return noted is not None

    async def hear_start(self, key: str, address: str) -> bool:
        """Take back the no that was answered from an address. False: the answer of this key was heard before."""
        return await self._engine.write(lambda: replies.start(key, address))

    async def open_intents(self, person: str) -> float:
        """Seconds until every intent open for a person is settled or past its deadline, at the latest; 0: none is."""
        return await self._engine.read(lambda: upkeep.last_open_deadline(person))

    async def open_intents_at(self, address: str) -> float:
        """The same of every intent that is open for an address."""
        return await self._engine.read(lambda: upkeep.last_open_deadline_at(address))

    async def cancel(self, message: str, judge: Judge) -> MessageState | None:
        """Let a message that is not under way go no further; the state after it. None: there is no such message."""
        return await self._engine.write(lambda: upkeep.cancel(message, judge))

    async def states(self, messages: Sequence[str]) -> dict[str, MessageState]:
        """The present states of messages."""
        return await self._engine.read(lambda: reading.states(messages))

    async def view(self, message: str) -> MessageView | None:
        """One message and all that is recorded of it."""
        return await self._engine.read(lambda: reading.view(message))

    async def standing(self, message: str, judge: Judge) -> Standing | None:
        """What a decision on a message would look at now."""
        return await self._engine.read(lambda: reading.standing(message, judge))

    async def prospect(self, message: Message, judge: Judge) -> Facts:
        """What a decision on a message made up for a question would look at now."""
        return await self._engine.read(lambda: reading.prospect(message, judge))

    async def stories(self, wanted: Wanted, start: str, limit: int) -> tuple[list[Story], str | None]:
        """What became of the next messages that are wanted, and where to go on; see ``stories.page``."""
        return await self._engine.read(lambda: stories.page(wanted, start, limit))

    async def unattributed(
        self, since: datetime, until: datetime, start: int, limit: int
    ) -> tuple[list[Unattributed], int | None]:
        """What people did that belongs to no message, and where to go on; see ``stories.unattributed``."""
        return await self._engine.read(lambda: stories.unattributed(since, until, start, limit))

    async def by_request(self, source: str, request: str) -> str | None:
        """The message that a request's id stands for."""
        return await self._engine.read(lambda: reading.by_request(source, request))

    async def person(self, person: str) -> PersonView | None:
        """One person, with their contacts."""
        return await self._engine.read(lambda: reading.person(person))

    async def addressee(self, reference: str) -> Addressee | None:
        """Whom an attempt, or a message, was for."""
        return await self._engine.read(lambda: reading.addressee(reference))

    async def unpublished(self, limit: int) -> list[tuple[int, str, str, bytes]]:
        """The oldest events: sequence number, id, routing key, JSON."""
        return await self._engine.read(lambda: upkeep.unpublished(limit))

    async def published(self, numbers: Sequence[int], queue: Sequence[tuple[str, int, str, str]] = ()) -> None:
        """Forget events that have been published, and queue them for webhooks: name, sequence number, id, JSON."""
        await self._engine.write(lambda: upkeep.published(numbers, queue))

    async def due_events(self, urls: Mapping[str, str], wanted: Mapping[str, int]) -> list[Queued]:
        """The events that webhooks are to be called with now, of each as many as asked for; of disabled ones none.

        ``urls``: a hash of the URL of every webhook, by its name.
        """
        return await self._engine.read(lambda: webhooks.due(urls, wanted))

    async def record_calls(self, calls: Sequence[Called]) -> None:
        """Forget what webhooks have taken, and say of the rest when to call again, if ever."""
        await self._engine.write(lambda: webhooks.record(calls))

    async def disabled_webhooks(self, urls: Mapping[str, str]) -> frozenset[str]:
        """Those that want no more events."""
        return await self._engine.read(lambda: webhooks.disabled(urls))

    async def disable_webhook(self, webhook: str, url: str, reason: str) -> bool:
        """Send nothing more to a webhook, as long as its URL has this hash. False: so it was already."""
        return await self._engine.write(lambda: webhooks.disable(webhook, url, reason))

    async def enable_webhook(self, webhook: str) -> bool:
        """Send to a webhook again. False: it was not disabled."""
        return await self._engine.write(lambda: webhooks.enable(webhook))

    async def revive_events(self, webhook: str, limit: int) -> int:
        """Let some of the events that were given up be due now, as if they were new; how many."""
        return await self._engine.write(lambda: webhooks.revive(webhook, limit))

    async def forget_events(self, before: int, limit: int) -> tuple[int, list[str]]:
        """Delete a piece of what was queued before an instant; how many, and whose they were that still waited."""
        return await self._engine.write(lambda: webhooks.forget(before, limit))

    async def webhooks(self, urls: Mapping[str, str]) -> dict[str, WebhookView]:
        """How it stands with webhooks."""
        return await self._engine.read(lambda: webhooks.views(urls))

    async def backlog(self) -> tuple[int, int]:
        """How many messages are not settled, and how many events are not published."""
        return await self._engine.read(upkeep.backlog)

    async def take_job(self, name: str, worker: str, term: timedelta) -> bool:
        """Become, or stay, the one worker that does a job for all."""
        return await self._engine.write(lambda: upkeep.take_job(name, worker, term))

    async def drop_job(self, name: str, worker: str) -> None:
        """Let another worker have the job."""
        await self._engine.write(lambda: upkeep.drop_job(name, worker))

    async def share_health(self, worker: str, seen: Mapping[str, str], heeded: timedelta) -> list[Told]:
        """Tell the other workers how providers fare, if there is anything to tell, and hear what they said lately."""
        if seen:
            return await self._engine.write(lambda: health.tell(worker, seen, heeded))
        return await self._engine.read(lambda: health.hear(worker, heeded))

    async def prune(self, messages: str, contacts: str, expired: int, limit: int) -> int:
        """Delete a piece of what is older than these ids and expired before that instant; how many rows went."""
        return await self._engine.write(lambda: upkeep.prune(messages, contacts, expired, limit))

    async def activate(self, policy: Policy, worker: str) -> int:
        """The number of a policy that comes into force in a process."""
        return await self._engine.write(lambda: upkeep.activate(policy, worker))

    async def sweep(self, judge: Judge, after: str, limit: int) -> tuple[str | None, int]:
        """Let messages that another policy made to wait be decided by this one.

        Says where it came to (None: the end), and how many it woke.
        """
        return await self._engine.write(lambda: upkeep.sweep(judge, after, limit))

    async def look(self, judge: Judge, limit: int) -> Swept:
        """Look at attempts in doubt whose time has come, so that none stays open for ever."""
        return await self._engine.write(lambda: closing.look(judge, limit))

    async def overdue(self, judge: Judge, limit: int) -> int:
        """End messages that have expired so long ago that they are to be closed, and that nobody works on; how many."""
        return await self._engine.write(lambda: closing.overdue(judge, limit))

    async def ages(self) -> Ages:
        """Of the oldest attempt in doubt, and of the oldest message that has expired and is not settled."""
        return await self._engine.read(closing.ages)

    async def contacted(self, limit: int, within: timedelta) -> tuple[datetime, list[tuple[str, datetime]]]:
        """What time it is, and the newest contacts that count and are not older than that: of whom, and when."""
        return await self._engine.read(lambda: sample.contacted(limit, within))

    async def ledgers(self, people: Sequence[str], since: datetime) -> list[Contacted]:
        """Of persons, what is known of them and their contacts that count and ended since; of those who have any."""
        return await self._engine.read(lambda: sample.ledgers(people, since))

    async def deferred(self, after: str, limit: int) -> tuple[float | None, str]:
        """For how long the oldest message has been held back, among so many that wait behind an id.

        None: there is none among them; then also the id to look on behind, empty at the end.
        """
        return await self._engine.read(lambda: sample.deferred(after, limit))

    async def parked(self, limit: int) -> list[dict[str, object]]:
        """The newest parked input, with its faults."""
        return await self._engine.read(lambda: upkeep.parked(limit))

    async def ping(self) -> None:
        """Find out whether the database would take something."""
        await self._engine.write(upkeep.ping)
