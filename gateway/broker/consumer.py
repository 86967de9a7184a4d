"""Brings requests, profiles and reports in, one lane per queue, and sees to it that the broker still knows us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, assert_never

from gateway import reports
from gateway.broker.lane import Lane, Refused, Witness
from gateway.broker.link import Link, Lost, within
from gateway.broker.topology import Topology
from gateway.intake import Accepted, Answer, Conflict, Fault, Incoming, Malformed
from gateway.message import Priority

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection

    from gateway.broker.publisher import Publisher

Accept = Callable[[Sequence[Incoming]], Awaitable[Sequence[Answer]]]
"""Commits requests; one answer for each. Raises if it committed nothing."""
AcceptProfiles = Callable[[Sequence[bytes]], Awaitable[Sequence[tuple[Fault, ...]]]]
"""Commits profiles; for each what is wrong with it, nothing if it was taken. Raises if it committed nothing."""
AcceptReports = Callable[[Sequence[Incoming]], Awaitable[Sequence[reports.Answer]]]
"""Commits what is reported; one answer for each. Raises if it committed nothing."""

LOOK = 5.0
"""Seconds between two looks whether the broker still knows our consumers, and for which one look may take: one that
answers no more is noticed within 10 s, and one that has forgotten us within 15."""
FRAMES = 300
"""Of a queue's channel, read ahead of us; three make a message. aiormq's default of 10 makes for tiny batches."""


class Consumer:
    """Brings all in that services publish: a queue per priority, so that a one-time code never waits behind a campaign.

    Consume, commit, acknowledge, in this order. What is not accepted because the store is away or overloaded stays
    unacknowledged and is tried again; meanwhile ``prefetch`` bounds what we hold.

    Args:
        url: ``amqp://`` or ``amqps://``.
        accept: The one door.
        accept_profiles: The same for profiles: ``{"user": …, …}``.
        accept_reports: The same for reports: ``{"event": …, …}``.
        publisher: Parks what was refused. Its connection is another one, and started by its owner.
        topology: The names.
        witness: Remembers what killed a process that handled it. None: nobody does.
        prefetch: Deliveries held at most, per queue.
        pause: Seconds between two attempts, to connect or to accept, at least and at most.
        seconds: Limit of every call.
        watch: Seconds between two looks whether the broker still knows our consumers.
        shut: What keeps everything from being accepted, empty if nothing does. While there is something for more than
            a look, nothing is consumed: what we hold is given back, or the broker would cut us off after half an hour
            of holding it, and would park it after some such times.
    """

    def __init__(
        self,
        url: str,
        accept: Accept,
        accept_profiles: AcceptProfiles,
        accept_reports: AcceptReports,
        publisher: Publisher,
        topology: Topology | None = None,
        *,
        witness: Witness | None = None,
        prefetch: int = 500,
        pause: tuple[float, float] = (1.0, 5.0),
        seconds: float = 10.0,
        watch: float = LOOK,
        shut: Callable[[], str] = str,
    ) -> None:
        async def requests(bodies: Sequence[bytes]) -> Sequence[Refused | None]:
            answers = await accept([Incoming(body, "amqp") for body in bodies])
            return [_verdict(answer) for answer in answers]

        async def profiles(bodies: Sequence[bytes]) -> Sequence[Refused | None]:
            return [Refused("malformed", faults) if faults else None for faults in await accept_profiles(bodies)]

        async def events(bodies: Sequence[bytes]) -> Sequence[Refused | None]:
            refusals = map(reports.refusal, await accept_reports([Incoming(body, "amqp") for body in bodies]))
            return [Refused(*refusal) if refusal else None for refusal in refusals]

        self._topology = topology or Topology()
        self._prefetch = prefetch
        self._seconds = seconds
        self._every = watch
        self._shut = shut
        self._lanes = [
            Lane(self._topology.queue(priority), requests, publisher, pause, witness) for priority in Priority
        ]
        self._lanes.append(Lane(self._topology.profiles, profiles, publisher, pause, witness))
        self._lanes.append(Lane(self._topology.reports, events, publisher, pause, witness))
        self._link = Link(url, "decorum consumer", self._session, pause, seconds)
        self._work: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def ready(self) -> bool:
        """Whether it consumes, as of the last look."""
        return self._link.up and not self._stopping

    @property
    def status(self) -> str:
        """``connected``, or what it lacks, such as ``login refused``."""
        return self._link.status

    async def start(self) -> None:
        """Begin, in the background: connects for as long as it takes."""
        self._work = [asyncio.create_task(lane.run(), name=lane.queue) for lane in self._lanes]
        self._link.start()

    async def stop_consuming(self) -> None:
        """Take no more. Returns when the batches under way are acknowledged; the rest is given back."""
        self._stopping = True
        await asyncio.gather(*(lane.stop(self._seconds) for lane in self._lanes))

    async def close(self) -> None:
        """Stop consuming, and end the connection."""
        await self.stop_consuming()
        await self._link.close()
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)

    async def _session(self, connection: AbstractConnection) -> NoReturn:
        await self._topology.ensure_intake(connection, self._seconds)
        # A channel of its own, since a call that fails or is cut off closes the one that it was made on.
        watch = await within(self._seconds, connection.channel(publisher_confirms=False))
        await self._until_open(watch)
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lose(reason: str) -> None:
            if not lost.done():
                lost.set_result(reason)

        transport = connection.transport
        if transport is None:
            raise Lost("closed")
        try:
            for lane in self._lanes:
                if self._stopping:
                    lose("stopping")
                    break
                channel = transport.connection.channel(publisher_confirms=False, frame_buffer_size=FRAMES)
                await lane.attach(await within(self._seconds, channel), self._prefetch, self._seconds, lose)
            self._link.succeed()
            await self._watch(watch, lost)
            raise Lost(lost.result())
        finally:
            for lane in self._lanes:
                lane.detach()

    async def _until_open(self, channel: AbstractChannel) -> None:
        """Wait, connected, until something can be accepted."""
        while (reason := self._shut()) and not self._stopping:
            self._link.status = f"not consuming: {reason}"
            await asyncio.sleep(self._every / 5)
            await within(self._seconds, channel.declare_queue(self._topology.profiles, passive=True))

    async def _watch(self, channel: AbstractChannel, lost: asyncio.Future[str]) -> None:
        """Look after the consumers until they are lost."""
        looks: dict[str, int] = {}
        was_shut = False
        while not lost.done():
            await asyncio.wait([lost], timeout=self._every)
            if lost.done() or self._stopping:
                continue
            looks = await within(min(self._seconds, LOOK), self._look(channel, looks))
            if (reason := self._shut()) and was_shut:
                await asyncio.gather(*(lane.stop(self._seconds) for lane in self._lanes))
                raise Lost(f"not consuming: {reason}")
            was_shut = bool(reason)

    async def _look(self, channel: AbstractChannel, before: Mapping[str, int]) -> dict[str, int]:
        """Whether the broker still knows our consumers: it has been seen to forget them without a word.

        Args:
            channel: to ask on.
            before: of each lane that seemed to be starving at the last look, what had been delivered by then.

        Returns:
            The same, as of now.
        """
        starving: dict[str, int] = {}
        for lane in self._lanes:
            queue = (await channel.declare_queue(lane.queue, passive=True)).declaration_result
            if not lane.consuming or not queue.consumer_count:
                raise Lost(f"{lane.queue} is not consumed")
            if queue.message_count and lane.hungry:  # others may be its consumers, and we forgotten
                starving[lane.queue] = lane.delivered
        if forgotten := [name for name, count in starving.items() if before.get(name) == count]:
            raise Lost(f"nothing comes from {', '.join(forgotten)}, where something waits")
        return starving


def _verdict(answer: Answer) -> Refused | None:
    match answer:
        case Accepted():
            return None
        case Malformed(faults):
            return Refused("malformed", faults)
        case Conflict(message=message):
            return Refused("conflict", (Fault("id", f"was used before with another body, for message {message}"),))
        case _:
            assert_never(answer)
