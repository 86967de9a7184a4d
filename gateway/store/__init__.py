"""The truth: every transaction the gateway makes, on SQLite or PostgreSQL."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import killpoints
from gateway.ids import new_id
from gateway.store import acts, closing, health, intake, pace, reading, sample, upkeep, ward, work
from gateway.store.closing import Ages, Swept
from gateway.store.engine import StoreFull, StoreUnavailable
from gateway.store.health import Told
from gateway.store.intake import Known, NewMessage, ParkedInput
from gateway.store.leases import Claimed, Lease, Lost, Next, Settlement
from gateway.store.reading import Decision, MessageView, PersonView, Standing
from gateway.store.ward import SUSPECTS, Round

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from gateway.acts import Deed, Noted, Remembered
    from gateway.config import Policy
    from gateway.decide import Facts, Judge
    from gateway.message import Message, MessageState, OptOut, Priority, Profile
    from gateway.pace import Ask, Grant
    from gateway.pressure import Contacted
    from gateway.store.engine import Engine
    from providers import Channel, Receipt

__all__ = [
    "SUSPECTS",
    "Ages",
    "Claimed",
    "Decision",
    "Known",
    "Lease",
    "Lost",
    "MessageView",
    "NewMessage",
    "Next",
    "ParkedInput",
    "PersonView",
    "Round",
    "Settlement",
    "Standing",
    "Store",
    "StoreFull",
    "StoreUnavailable",
    "Swept",
    "Told",
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

    async def open(self) -> None:
        """Connect."""
        await self._engine.open()

    async def close(self) -> None:
        """Disconnect, when what is under way has been committed."""
        await self._engine.close()

    async def accept(self, new: Sequence[NewMessage]) -> list[Known | None]:
        """Commit requests; for each whose id is taken, what it stands for."""
        answers = await self._engine.write(lambda: intake.accept(new))
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
        leased = await self._engine.write(
            lambda: work.lease(wanted, until, free or {}, self._recent, self._holder, others=others)
        )
        for lease in leased[0]:
            self._recent.pop(lease.message.id, None)
        return leased

    async def claim(self, leases: Sequence[Lease], judge: Judge, ids: Sequence[str]) -> list[Next]:
        """Decide leased messages and commit the intents; ``ids`` are for the attempts, one a lease."""
        answers = await self._engine.write(lambda: work.claim(leases, judge, ids))
        killpoints.reached("claim.after_commit")
        return answers

    async def settle(self, settlements: Sequence[Settlement], judge: Judge) -> list[Next]:
        """Record outcomes and decide what comes next."""
        answers, noted = await self._engine.write(lambda: work.settle(settlements, judge))
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

    async def clear(self, lease: Lease) -> None:
        """A suspect was run alone and came through."""
        await self._engine.write(lambda: ward.clear(lease))

    async def take_turns(self, worker: str, asks: Sequence[Ask]) -> dict[str, Grant]:
        """Book turns in the paces of providers; one is missing where another worker is booking at this moment."""
        return await self._engine.write(lambda: pace.take(worker, asks))

    async def receipt(self, receipts: Sequence[Receipt], judge: Judge) -> int:
        """Amend attempts by vendors' news; how many changed."""
        changed, noted = await self._engine.write(lambda: upkeep.receipt(receipts, judge))
        self._hear(noted)
        killpoints.reached("receipt.after_commit")
        return changed

    async def record(self, deeds: Sequence[Deed], judge: Judge) -> list[Noted | None]:
        """Remember what was done with messages; None for each that was known already, or is nobody's we know."""
        noted = await self._engine.write(lambda: acts.record(deeds, judge))
        self._hear([one for one in noted if one])
        return noted

    async def known_acts(self, keys: Sequence[str]) -> dict[str, Remembered]:
        """The acts that are remembered under keys."""
        return await self._engine.read(lambda: acts.by_key(keys))

    async def opt_out(self, person: str, optout: OptOut, via: str, judge: Judge, attempt: str | None = None) -> bool:
        """Record a person's no, said to an attempt where that is known. False: nobody knows the person."""
        noted = await self._engine.write(lambda: upkeep.opt_out(person, optout, via, judge, attempt))
        self._hear(noted or ())
        return noted is not None

    async def opt_out_address(self, address: str, optout: OptOut, via: str, judge: Judge) -> None:
        """Record a no that was said by an address, whoever it belongs to."""
        self._hear(await self._engine.write(lambda: upkeep.opt_out_address(address, optout, via, judge)))

    async def opt_in(self, person: str, address: str | None, optout: OptOut) -> bool:
        """Take back exactly this no, of a person or (with ``person`` empty) of an address. False: it was never said."""
        return await self._engine.write(lambda: upkeep.opt_in(person, address, optout))

    async def open_intents(self, person: str) -> float:
        """Seconds until every intent open for a person is settled or past its deadline, at the latest; 0: none is."""
        return await self._engine.read(lambda: upkeep.last_open_deadline(person))

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

    async def by_request(self, source: str, request: str) -> str | None:
        """The message that a request's id stands for."""
        return await self._engine.read(lambda: reading.by_request(source, request))

    async def person(self, person: str) -> PersonView | None:
        """One person, with their contacts."""
        return await self._engine.read(lambda: reading.person(person))

    async def addressee(self, reference: str) -> tuple[str, str] | None:
        """Whom an attempt, or a message, was for, and its category."""
        return await self._engine.read(lambda: reading.addressee(reference))

    async def unpublished(self, limit: int) -> list[tuple[int, str, str, bytes]]:
        """The oldest events: sequence number, id, routing key, JSON."""
        return await self._engine.read(lambda: upkeep.unpublished(limit))

    async def published(self, numbers: Sequence[int]) -> None:
        """Forget events that the broker has confirmed."""
        await self._engine.write(lambda: upkeep.published(numbers))

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
