"""Exchanges and queues: their names, what they must be like, and whose they are to declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from gateway.broker.link import Lost, within
from gateway.message import Priority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection

Ownership = Literal["declare", "passive"]
"""Whether exchanges and queues are ours to declare, or the operators', so that we only look whether they are there."""

DELIVERY_LIMIT = 20
"""Redeliveries of a message that kills its consumer. The default is 20 from RabbitMQ 4.0 on, and none before."""
NO_LIMIT = 1_000_000
"""Of the parked queue, where looking at a message with requeue counts as a redelivery; 3.10 refuses to take -1."""


class TopologyError(Lost):
    """Exchanges or queues are missing, or are not as they must be. The sentence names each."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of our exchanges and queues, and what they must be like."""

    prefix: str = "decorum"
    events: str = "decorum.events"
    """The topic exchange of events."""
    ownership: Ownership = "declare"

    @property
    def requests(self) -> str:
        """The direct exchange of requests, whose routing keys are priorities, of ``profiles`` and of ``events``."""
        return f"{self.prefix}.requests"

    @property
    def profiles(self) -> str:
        """The queue of profiles."""
        return f"{self.prefix}.profiles"

    @property
    def reports(self) -> str:
        """The queue of what services report."""
        return f"{self.prefix}.reports"

    @property
    def parked(self) -> str:
        """The queue of what people must look at."""
        return f"{self.prefix}.parked"

    def queue(self, priority: Priority) -> str:
        """The queue of requests of a priority."""
        return f"{self.requests}.{priority.word}"

    async def ensure_intake(self, connection: AbstractConnection, seconds: float) -> None:
        """Declare what requests, profiles and reports come through, or look whether it is there."""
        parked = {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}
        ours = {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.parked,
            "x-dead-letter-strategy": "at-least-once",  # the default loses what it moves
            "x-overflow": "reject-publish",  # which that strategy asks for
        }
        bindings = {self.queue(priority): priority.word for priority in Priority}
        bindings |= {self.profiles: "profiles", self.reports: "events"}
        steps = [self._exchange(self.requests, "direct"), self._queue(self.parked, parked, None)]
        steps += [self._queue(name, ours, key) for name, key in bindings.items()]
        await self._ensure(connection, steps, seconds)

    async def ensure_events(self, connection: AbstractConnection, seconds: float) -> None:
        """Declare the exchange of events, or look whether it is there."""
        await self._ensure(connection, [self._exchange(self.events, "topic")], seconds)

    def _exchange(self, name: str, kind: str) -> _Step:
        async def step(channel: AbstractChannel) -> None:
            await channel.declare_exchange(name, kind, durable=True, passive=self.ownership == "passive")

        return _Step(f"exchange {name}", step)

    def _queue(self, name: str, arguments: dict[str, Any], key: str | None) -> _Step:
        async def step(channel: AbstractChannel) -> None:
            if self.ownership == "passive":
                await channel.declare_queue(name, passive=True)
                return
            queue = await channel.declare_queue(name, durable=True, arguments=arguments)
            if key:
                await queue.bind(self.requests, key)

        return _Step(f"queue {name}", step)

    async def _ensure(self, connection: AbstractConnection, steps: Sequence[_Step], seconds: float) -> None:
        faults = []
        channel = await within(seconds, connection.channel(publisher_confirms=False))
        for step in steps:
            try:
                await within(seconds, step.take(channel))
            except ChannelNotFoundEntity:
                faults.append(f"{step.name} is missing")
            except ChannelPreconditionFailed as error:
                faults.append(f"{step.name} exists, but is not as it must be ({error})")
            except ChannelAccessRefused as error:
                faults.append(f"{step.name} is not permitted ({error})")
            else:
                continue
            channel = await within(seconds, connection.channel(publisher_confirms=False))  # a refusal closes it
        await within(seconds, channel.close())
        if faults:
            raise TopologyError("; ".join(faults))


class _Step(NamedTuple):
    name: str
    take: Callable[[AbstractChannel], Awaitable[None]]
