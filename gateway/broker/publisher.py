"""Publishes in large batches, each message confirmed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.exceptions import DeliveryError
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from gateway.broker.link import UNAVAILABLE, Link, Lost, reason_of, within
from gateway.broker.topology import Topology
from gateway.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    import aiormq
    from aio_pika.abc import AbstractConnection


class BrokerUnavailable(Exception):
    """Not confirmed by the broker: it may have been published all the same. Publish it again."""


class Outgoing(NamedTuple):
    """An event to publish."""

    routing_key: str
    body: bytes
    message_id: str
    """What a subscriber tells repeats by."""
    headers: Mapping[str, Any]


class Publisher:
    """Publishes events, and parks. Has its own connection, since RabbitMQ blocks those that publish when it is full.

    Args:
        url: ``amqp://`` or ``amqps://``.
        topology: The names.
        pause: Seconds between two attempts to connect, at least and at most.
        seconds: Limit of every call.
        confirmed: Seconds that a confirmation may take: as long as one does not come, nothing is published.
    """

    def __init__(
        self,
        url: str,
        topology: Topology | None = None,
        *,
        pause: tuple[float, float] = (1.0, 5.0),
        seconds: float = 10.0,
        confirmed: float = 4.5,
    ) -> None:
        self._topology = topology or Topology()
        self._seconds = seconds
        self._patience = confirmed
        self._link = Link(url, "decorum publisher", self._session, pause, seconds)
        self._channel: tuple[aiormq.Channel, asyncio.Future[Any]] | None = None
        """And its end. aiormq makes another future of that each time that it is asked, and keeps them all."""
        self._broken = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether it could publish."""
        return self._link.up

    @property
    def status(self) -> str:
        """``connected``, or what it lacks."""
        return self._link.status

    async def start(self) -> None:
        """Connect in the background, for as long as it takes."""
        self._link.start()

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()

    async def publish(self, events: Sequence[Outgoing]) -> None:
        """Publish to the exchange of events. An event that nobody listens to is dropped by the broker.

        Raises:
            BrokerUnavailable: Some of them, or all, were not confirmed.
        """
        channel, closing = self._open()
        try:
            confirmations = await self._write(channel, events)
        except (*UNAVAILABLE, ValueError) as error:
            raise BrokerUnavailable(f"not written: {error}") from error
        await self._confirmed([_all(confirmations, closing)])

    async def park(self, bodies: Sequence[tuple[bytes, Mapping[str, Any]]]) -> None:
        """Put bodies with headers into the queue of what people must look at.

        Raises:
            BrokerUnavailable: Some of them, or all, were not confirmed.
        """
        parked = [Outgoing(self._topology.parked, body, new_id(), headers) for body, headers in bodies]
        channel, _ = self._open()
        await self._confirmed(
            [
                channel.basic_publish(
                    message.body, routing_key=message.routing_key, properties=_properties(message), mandatory=True
                )
                for message in parked
            ]
        )

    def _open(self) -> tuple[aiormq.Channel, asyncio.Future[Any]]:
        if self._channel is None:
            raise BrokerUnavailable(self.status)
        return self._channel

    async def _confirmed(self, calls: Sequence[Awaitable[object]]) -> None:
        try:
            answers = await within(self._patience, asyncio.gather(*calls, return_exceptions=True))
        except (TimeoutError, Lost) as error:
            self._broken.set()
            raise BrokerUnavailable(f"no confirmation within {self._patience} s") from error
        for answer in answers:
            if not isinstance(answer, spec.Basic.Ack):
                if not isinstance(answer, DeliveryError):  # which concerns the message, not the connection
                    self._broken.set()
                raise BrokerUnavailable(f"not confirmed: {answer}")

    async def _write(self, channel: aiormq.Channel, events: Sequence[Outgoing]) -> list[asyncio.Future[Any]]:
        """Write events in one go, and return what their confirmations will be.

        This is aiormq's ``basic_publish`` for many at once: without a task, a lock and a turn of the loop for each,
        it takes a quarter of the time.
        """
        confirmations = []
        frames: list[Any] = []
        loop = asyncio.get_running_loop()
        size = channel.max_content_size
        try:
            async with asyncio.timeout(self._patience), channel.lock:
                for event in events:
                    channel.delivery_tag += 1
                    # Not the channel's own kind of future, which costs several times as much: ``_all`` watches closing.
                    channel.confirmations[channel.delivery_tag] = confirmation = loop.create_future()
                    confirmations.append(confirmation)
                    header = ContentHeader(body_size=len(event.body), properties=_properties(event))
                    frames += [
                        spec.Basic.Publish(exchange=self._topology.events, routing_key=event.routing_key),
                        header,
                    ]
                    frames += [ContentBody(event.body[at : at + size]) for at in range(0, len(event.body), size)]
                await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        except BaseException:
            self._broken.set()  # counted and perhaps not written: later confirmations would be taken for others
            raise
        return confirmations

    async def _session(self, connection: AbstractConnection) -> NoReturn:
        await self._topology.ensure_events(connection, self._seconds)
        channel = await within(self._seconds, connection.channel(on_return_raises=True))
        self._broken.clear()
        under = cast("aiormq.Channel", await channel.get_underlay_channel())  # its face lacks ``wait``
        closing = under.closing
        closing.add_done_callback(lambda _: self._broken.set())
        try:
            self._channel = under, closing
            self._link.succeed()
            await self._broken.wait()
        finally:
            self._channel = None
        raise Lost(reason_of(closing))


async def _all(confirmations: Sequence[asyncio.Future[Any]], closing: asyncio.Future[Any]) -> object:
    """Wait for confirmations, which come in order, or the end of their channel; the first that is none, if any is."""
    for confirmation in confirmations:
        if not confirmation.done():
            await asyncio.wait({confirmation, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not confirmation.done():
                return ConnectionResetError(reason_of(closing))
    answers = [confirmation.exception() or confirmation.result() for confirmation in confirmations]
    return next((answer for answer in answers if not isinstance(answer, spec.Basic.Ack)), answers[0])


def _properties(message: Outgoing) -> spec.Basic.Properties:
    return spec.Basic.Properties(
        content_type="application/json",
        delivery_mode=2,  # persistent
        message_id=message.message_id,
        headers=dict(message.headers),
    )
