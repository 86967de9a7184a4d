"""All of RabbitMQ: requests and profiles come in here, events and what was parked go out.

Nothing is acknowledged before it is committed, and nothing is published without a confirmation. What was neither
acknowledged nor confirmed may come, or go, twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar, assert_never, cast
from urllib.parse import unquote

import aio_pika
import orjson
import structlog
from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.body import ContentBody
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader
from yarl import URL

from gateway.intake import Accepted, Answer, Conflict, Fault, Incoming, Malformed, Overloaded
from gateway.message import Priority, new_id

if TYPE_CHECKING:
    import aiormq
    import aiormq.abc
    from aio_pika.abc import AbstractChannel, AbstractConnection
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")
Accept = Callable[[Sequence[Incoming]], Awaitable[Sequence[Answer]]]
"""Commits requests; one answer for each. Raises if it committed nothing."""
AcceptProfiles = Callable[[Sequence[bytes]], Awaitable[Sequence[tuple[Fault, ...]]]]
"""Commits profiles; for each what is wrong with it, nothing if it was taken. Raises if it committed nothing."""
Ownership = Literal["declare", "passive"]
"""Whether exchanges and queues are ours to declare, or the operators', so that we only look whether they are there."""

HEARTBEAT = 10
"""Seconds. A dead peer is noticed after three of them and a bit: 33 s, where the default of 60 takes 183 s."""
BATCH = 256
FRAMES = 300
"""Of a queue's channel, read ahead of us; three make a message. aiormq's default of 10 makes for tiny batches."""
DELIVERY_LIMIT = 20
"""Redeliveries of a message that kills its consumer. The default is 20 from RabbitMQ 4.0 on, and none before."""
NO_LIMIT = 1_000_000
"""Of the parked queue, where looking at a message with requeue counts as a redelivery; 3.10 refuses to take -1."""
FAULTS_BYTES = 60_000
"""Most of a header of faults: all headers of a message share one frame of 128 KiB."""
WITNESSES = 5
"""Times that a message fails alone while others of its batch are accepted, before it is parked."""
_UNAVAILABLE = (AMQPError, PAMQPException, ChannelInvalidStateError, OSError, TimeoutError)


class BrokerUnavailable(Exception):
    """Not confirmed by the broker: it may have been published all the same. Publish it again."""


class TopologyError(Exception):
    """Exchanges or queues are missing, or are not as they must be. The sentence names each."""


class _Lost(Exception):
    """A connection that must be built anew; the reason is for the log."""


class Outgoing(NamedTuple):
    """An event to publish."""

    routing_key: str
    body: bytes
    message_id: str
    """What a subscriber tells repeats by."""
    headers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of our exchanges and queues, and what they must be like."""

    prefix: str = "decorum"
    events: str = "decorum.events"
    """The topic exchange of events."""
    ownership: Ownership = "declare"

    @property
    def requests(self) -> str:
        """The direct exchange of requests, whose routing keys are priorities, and of profiles (key ``profiles``)."""
        return f"{self.prefix}.requests"

    @property
    def profiles(self) -> str:
        """The queue of profiles."""
        return f"{self.prefix}.profiles"

    @property
    def parked(self) -> str:
        """The queue of what people must look at."""
        return f"{self.prefix}.parked"

    def queue(self, priority: Priority) -> str:
        """The queue of requests of a priority."""
        return f"{self.requests}.{priority.word}"

    async def ensure_intake(self, connection: AbstractConnection, seconds: float) -> None:
        """Declare what requests and profiles come through, or look whether it is there."""
        parked = {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}
        ours = {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.parked,
            "x-dead-letter-strategy": "at-least-once",  # the default loses what it moves
            "x-overflow": "reject-publish",  # which that strategy asks for
        }
        bindings = {self.queue(priority): priority.word for priority in Priority} | {self.profiles: "profiles"}
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
        channel = await _within(seconds, connection.channel(publisher_confirms=False))
        for step in steps:
            try:
                await _within(seconds, step.take(channel))
            except ChannelNotFoundEntity:
                faults.append(f"{step.name} is missing")
            except ChannelPreconditionFailed as error:
                faults.append(f"{step.name} exists, but is not as it must be ({error})")
            except ChannelAccessRefused as error:
                faults.append(f"{step.name} is not permitted ({error})")
            else:
                continue
            channel = await _within(seconds, connection.channel(publisher_confirms=False))  # a refusal closes it
        await _within(seconds, channel.close())
        if faults:
            raise TopologyError("; ".join(faults))


class _Step(NamedTuple):
    name: str
    take: Callable[[AbstractChannel], Awaitable[None]]


class _Link:
    """Keeps a connection up: makes it, lends it to a session until that fails, and again after a pause.

    aio-pika's own reconnection is not used: it has left consumers deaf more than once, and cannot be watched.
    """

    def __init__(
        self,
        url: str,
        name: str,
        session: Callable[[AbstractConnection], Awaitable[NoReturn]],
        pause: tuple[float, float],
        seconds: float,
    ) -> None:
        self._url = URL(url).update_query(heartbeat=HEARTBEAT, name=name)
        self._vhost = unquote(self._url.raw_path[1:]) or "/"
        self._session = session
        self._pause = pause
        self._seconds = seconds
        self._random = SystemRandom()
        self._task: asyncio.Task[None] | None = None
        self.log: FilteringBoundLogger = structlog.get_logger().bind(
            connection=name, host=self._url.host, vhost=self._vhost
        )
        self.up = False
        self.status = "stopped"
        """For people: what it is doing, or what keeps it from doing it."""

    def start(self) -> None:
        """Begin, in the background."""
        self.status = "connecting"
        self._task = asyncio.create_task(self._run(), name="broker")

    def succeed(self) -> None:
        """Said by the session once all is as it should be."""
        self.up, self.status = True, "connected"
        self.log.info("broker.connected")

    async def close(self) -> None:
        """End the connection."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.status = "stopped"

    async def _run(self) -> None:
        while True:
            reason = await self._once()
            if reason != self.status:  # once, not at each of hundreds of attempts
                self.log.warning("broker.lost", reason=reason)
            self.status = reason
            await asyncio.sleep(self._random.uniform(*self._pause))

    async def _once(self) -> str:
        """Connect and stay so. Returns the reason why it has ended."""
        connection = None
        try:
            connection = await _within(self._seconds, aio_pika.connect(self._url))
            await self._session(connection)
        except ProbableAuthenticationError:
            return "login refused"
        except InvalidFrameError:  # aiormq's word for any refusal to open the virtual host; the broker's is lost
            return f"virtual host {self._vhost} is missing, or not permitted"
        except (TopologyError, _Lost) as error:
            return str(error)
        except _UNAVAILABLE as error:
            return f"{type(error).__name__}: {error}" if str(error) else f"no answer within {self._seconds:g} s"
        except Exception as error:
            self.log.exception("broker.bug")
            return f"a bug: {type(error).__name__}"
        finally:
            self.up = False
            if connection:
                with suppress(Exception):  # it is given up, whatever closing it meets
                    await _within(self._seconds, connection.close())


async def _within(seconds: float, call: Awaitable[T]) -> T:
    """Wait for a call on the wire, at most so long.

    When a connection closes, aiormq cancels who waits for it. That is told here from a cancellation of our own.
    """
    try:
        async with asyncio.timeout(seconds):
            return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise _Lost("connection closed") from None


async def _all(confirmations: Sequence[asyncio.Future[Any]], closing: asyncio.Future[Any]) -> object:
    """Wait for confirmations, which come in order, or the end of their channel; the first that is none, if any is."""
    for confirmation in confirmations:
        if not confirmation.done():
            await asyncio.wait({confirmation, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not confirmation.done():
                return ConnectionResetError(_reason(closing))
    answers = [confirmation.exception() or confirmation.result() for confirmation in confirmations]
    return next((answer for answer in answers if not isinstance(answer, spec.Basic.Ack)), answers[0])


def _properties(message: Outgoing) -> spec.Basic.Properties:
    return spec.Basic.Properties(
        content_type="application/json",
        delivery_mode=2,  # persistent
        message_id=message.message_id,
        headers=dict(message.headers),
    )


class Publisher:
    """Publishes events, and parks. Has its own connection, since RabbitMQ blocks those that publish when it is full.

    Args:
        url: ``amqp://`` or ``amqps://``.
        topology: The names.
        pause: Seconds between two attempts to connect, at least and at most.
        seconds: Limit of every call.
    """

    def __init__(
        self,
        url: str,
        topology: Topology | None = None,
        *,
        pause: tuple[float, float] = (1.0, 5.0),
        seconds: float = 10.0,
    ) -> None:
        self._topology = topology or Topology()
        self._seconds = seconds
        self._link = _Link(url, "decorum publisher", self._session, pause, seconds)
        self._channel: aiormq.Channel | None = None
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
        channel = self._open()
        try:
            confirmations = await self._write(channel, events)
        except (*_UNAVAILABLE, ValueError) as error:
            raise BrokerUnavailable(f"not written: {error}") from error
        await self._confirmed([_all(confirmations, channel.closing)])

    async def park(self, bodies: Sequence[tuple[bytes, Mapping[str, Any]]]) -> None:
        """Put bodies with headers into the queue of what people must look at.

        Raises:
            BrokerUnavailable: Some of them, or all, were not confirmed.
        """
        parked = [Outgoing(self._topology.parked, body, new_id(), headers) for body, headers in bodies]
        channel = self._open()
        await self._confirmed(
            [
                channel.basic_publish(
                    message.body, routing_key=message.routing_key, properties=_properties(message), mandatory=True
                )
                for message in parked
            ]
        )

    def _open(self) -> aiormq.Channel:
        if self._channel is None:
            raise BrokerUnavailable(self.status)
        return self._channel

    async def _confirmed(self, calls: Sequence[Awaitable[object]]) -> None:
        try:
            answers = await _within(self._seconds, asyncio.gather(*calls, return_exceptions=True))
        except (TimeoutError, _Lost) as error:
            self._broken.set()
            raise BrokerUnavailable(f"no confirmation within {self._seconds} s") from error
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
            async with asyncio.timeout(self._seconds), channel.lock:
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
        channel = await _within(self._seconds, connection.channel(on_return_raises=True))
        self._broken.clear()
        under = cast("aiormq.Channel", await channel.get_underlay_channel())  # its face lacks ``wait``
        closing = under.closing
        closing.add_done_callback(lambda _: self._broken.set())
        try:
            self._channel = under
            self._link.succeed()
            await self._broken.wait()
        finally:
            self._channel = None
        raise _Lost(_reason(closing))


@dataclass(frozen=True, slots=True)
class _Refused:
    """A body that was not taken, and why."""

    reason: Literal["malformed", "conflict", "poison"]
    faults: tuple[Fault, ...]


_Handle = Callable[[Sequence[bytes]], Awaitable[Sequence[_Refused | None]]]


class _Lane:
    """One queue: collects what is delivered, hands it over in batches in order, acknowledges what is settled.

    It outlives connections, so that a commit under way is never cut off by the loss of one. What it holds of a lost
    connection is forgotten, since the broker delivers it anew.
    """

    def __init__(self, queue: str, handle: _Handle, publisher: Publisher, pause: tuple[float, float]) -> None:
        self.queue = queue
        self._handle = handle
        self._publisher = publisher
        self._pause = pause
        self._random = SystemRandom()
        self._log: FilteringBoundLogger = structlog.get_logger().bind(queue=queue)
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._tag = ""
        self._lose: Callable[[str], None] = lambda _: None
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._arrived = asyncio.Event()
        self._unsettled = 0
        """The highest delivery tag of a batch that was given up."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()

    @property
    def consuming(self) -> bool:
        """As far as we know; the broker may know better."""
        return self._channel is not None and not self._channel.is_closed and bool(self._tag)

    async def attach(
        self, channel: aiormq.abc.AbstractChannel, prefetch: int, seconds: float, lose: Callable[[str], None]
    ) -> None:
        """Consume through a channel, which is this lane's own, until it is lost."""
        self._waiting.clear()
        self._unsettled = 0
        self._channel, self._lose = channel, lose

        async def deliver(message: aiormq.abc.DeliveredMessage) -> None:
            # aiormq makes a task of this for each message: a plain callback would be wrapped in another layer.
            if channel is self._channel:
                self._waiting.append((message.delivery_tag or 0, message.body))
                self._arrived.set()

        def cancelled(_: object) -> None:
            self._tag = ""
            lose(f"the broker cancelled the consumer of {self.queue}")

        channel.on_consumer_cancel_callbacks.add(cancelled)
        closing = channel.closing
        closing.add_done_callback(lambda _: lose(_reason(closing)))
        await _within(seconds, channel.basic_qos(prefetch_count=prefetch))
        try:
            answer = await _within(seconds, channel.basic_consume(self.queue, deliver))
        except TimeoutError:  # as of a quorum queue without a leader
            raise _Lost(f"queue {self.queue} cannot be consumed: no answer within {seconds:g} s") from None
        self._tag = answer.consumer_tag or ""

    def detach(self) -> None:
        """The connection is lost."""
        self._channel = None
        self._waiting.clear()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._arrived.wait()
            await self._collect()
            channel = self._channel
            if not self._waiting or channel is None or self._stopping.is_set():
                self._arrived.clear()
                continue
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._idle.clear()
            reason = await self._work(channel, batch)
            self._idle.set()
            # The loss of a connection during the batch has been dealt with, and must not cost the next one.
            if channel is self._channel:
                self._unsettled = batch[-1][0] if reason else 0
                if reason and not self._stopping.is_set():
                    self._lose(reason)

    async def _work(self, channel: aiormq.abc.AbstractChannel, batch: Sequence[tuple[int, bytes]]) -> str:
        """Settle a batch and acknowledge it. Returns why it was not acknowledged: it is delivered anew then."""
        try:
            await self._settle([body for _, body in batch], channel)
            await _within(self._pause[1], channel.basic_ack(batch[-1][0], multiple=True, wait=False))
        except (*_UNAVAILABLE, _Lost) as error:
            return f"not acknowledged: {error}"
        except Exception as error:  # noqa: BLE001 - a lane that ended would be a queue that nobody reads
            self._log.exception("broker.bug")
            return f"a bug: {type(error).__name__}"
        return ""

    async def _collect(self) -> None:
        """As long as more is arriving: at once when idle, and in large batches under load."""
        held = 0
        while held < len(self._waiting) < BATCH:
            held = len(self._waiting)
            await asyncio.sleep(0)

    async def stop(self, seconds: float) -> None:
        """Take no more. Finishes the batch under way, and gives back the rest."""
        self._stopping.set()
        channel = self._channel
        if channel is None or not self.consuming:
            return
        with suppress(*_UNAVAILABLE, _Lost):
            await _within(seconds, channel.basic_cancel(self._tag))
            await self._idle.wait()
            if last := self._waiting[-1][0] if self._waiting else self._unsettled:
                await _within(seconds, channel.basic_nack(last, multiple=True, requeue=True))
        self._waiting.clear()

    async def _settle(self, bodies: Sequence[bytes], channel: aiormq.abc.AbstractChannel) -> None:
        """Until all bodies are committed or parked. Raises ``_Lost`` where that is no longer ours to do."""
        verdicts = await self._take(bodies, channel)
        parked = [(body, self._headers(verdict)) for body, verdict in zip(bodies, verdicts, strict=True) if verdict]
        while parked:
            try:
                await self._publisher.park(parked)
            except BrokerUnavailable as error:
                self._log.warning("broker.not_parked", count=len(parked), reason=str(error))
                await self._rest(channel)
            else:
                self._log.warning("broker.parked", count=len(parked))
                return

    async def _take(self, bodies: Sequence[bytes], channel: aiormq.abc.AbstractChannel) -> list[_Refused | None]:
        """Hand bodies over, and again with fewer at a time if that fails, so that the one to blame stands alone."""
        verdicts: list[_Refused | None] = []
        size, alone = len(bodies), 0
        while rest := bodies[len(verdicts) :]:
            part = rest[:size]
            try:
                taken = await self._handle(part)
            except Overloaded as error:
                self._log.warning("broker.overloaded", reason=str(error))
                await self._rest(channel, error.retry_after)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the bodies are not committed
                self._log.exception("broker.not_accepted", count=len(part))
                alone = alone + 1 if len(part) == 1 else 0
                if alone >= WITNESSES and await self._takes_another(rest):
                    verdicts.append(_Refused("poison", (Fault("", f"cannot be handled: {type(error).__name__}"),)))
                    alone = 0
                    continue
                size = max(1, size // 2)
                await self._rest(channel)
                continue
            verdicts += taken
            size, alone = size * 2, 0
        return verdicts

    async def _takes_another(self, bodies: Sequence[bytes]) -> bool:
        """Whether the next body is taken where the first is not: the fault is the first one's then, not the store's.

        The next is handed over once more in its turn, and is known by its id then.
        """
        others = [*bodies[1:2], *(body for _, body in list(self._waiting)[:1])]
        for other in others:
            with suppress(Exception):
                await self._handle([other])
                return True
        return False

    async def _rest(self, channel: aiormq.abc.AbstractChannel, at_least: float = 0) -> None:
        seconds = max(self._random.uniform(*self._pause), min(at_least, self._pause[1]))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set() or channel is not self._channel:
            raise _Lost("the broker delivers it anew")

    def _headers(self, refused: _Refused) -> dict[str, Any]:
        shown = refused.faults
        while (
            len(faults := orjson.dumps([{"path": fault.path, "problem": fault.problem} for fault in shown]))
            > FAULTS_BYTES
        ):
            shown = shown[: len(shown) // 2]
        return {
            "x-decorum-reason": refused.reason,
            "x-decorum-faults": faults.decode(),
            "x-decorum-queue": self.queue,
        }


class Consumer:
    """Brings requests and profiles in: one queue per priority, so that a one-time code never waits behind a campaign.

    Consume, commit, acknowledge, in this order. What is not accepted because the store is away or overloaded stays
    unacknowledged and is tried again; meanwhile ``prefetch`` bounds what we hold.

    Args:
        url: ``amqp://`` or ``amqps://``.
        accept: The one door.
        accept_profiles: The same for profiles: ``{"user": …, …}``.
        publisher: Parks what was refused. Its connection is another one, and started by its owner.
        topology: The names.
        prefetch: Deliveries held at most, per queue.
        pause: Seconds between two attempts, to connect or to accept, at least and at most.
        seconds: Limit of every call.
        watch: Seconds between two looks whether the broker still knows our consumers.
    """

    def __init__(
        self,
        url: str,
        accept: Accept,
        accept_profiles: AcceptProfiles,
        publisher: Publisher,
        topology: Topology | None = None,
        *,
        prefetch: int = 500,
        pause: tuple[float, float] = (1.0, 5.0),
        seconds: float = 10.0,
        watch: float = 10.0,
    ) -> None:
        async def requests(bodies: Sequence[bytes]) -> Sequence[_Refused | None]:
            answers = await accept([Incoming(body, "amqp") for body in bodies])
            return [_verdict(answer) for answer in answers]

        async def profiles(bodies: Sequence[bytes]) -> Sequence[_Refused | None]:
            return [_Refused("malformed", faults) if faults else None for faults in await accept_profiles(bodies)]

        self._topology = topology or Topology()
        self._prefetch = prefetch
        self._seconds = seconds
        self._every = watch
        self._lanes = [_Lane(self._topology.queue(priority), requests, publisher, pause) for priority in Priority]
        self._lanes.append(_Lane(self._topology.profiles, profiles, publisher, pause))
        self._link = _Link(url, "decorum consumer", self._session, pause, seconds)
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
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lose(reason: str) -> None:
            if not lost.done():
                lost.set_result(reason)

        transport = connection.transport
        if transport is None:
            raise _Lost("closed")
        try:
            for lane in self._lanes:
                if self._stopping:
                    lose("stopping")
                    break
                channel = transport.connection.channel(publisher_confirms=False, frame_buffer_size=FRAMES)
                await lane.attach(await _within(self._seconds, channel), self._prefetch, self._seconds, lose)
            # One more channel, since a call that fails or is cut off closes the one that it was made on.
            watch = await _within(self._seconds, connection.channel(publisher_confirms=False))
            self._link.succeed()
            while not lost.done():
                await asyncio.wait([lost], timeout=self._every)
                if not lost.done() and not self._stopping:
                    await _within(self._seconds, self._look(watch))
            raise _Lost(lost.result())
        finally:
            for lane in self._lanes:
                lane.detach()

    async def _look(self, channel: AbstractChannel) -> None:
        """Whether the broker still knows our consumers: it has been seen to forget them without a word."""
        for lane in self._lanes:
            queue = await channel.declare_queue(lane.queue, passive=True)
            if not lane.consuming or not queue.declaration_result.consumer_count:
                raise _Lost(f"{lane.queue} is not consumed")


def _verdict(answer: Answer) -> _Refused | None:
    match answer:
        case Accepted():
            return None
        case Malformed(faults):
            return _Refused("malformed", faults)
        case Conflict(message=message):
            return _Refused("conflict", (Fault("id", f"was used before with another body, for message {message}"),))
        case _:
            assert_never(answer)


def _reason(closing: asyncio.Future[Any]) -> str:
    """Why a channel or a connection has closed."""
    error = None if closing.cancelled() or not closing.done() else closing.exception()
    return f"{type(error).__name__}: {error}" if error else "closed"
