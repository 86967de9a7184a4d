"""One queue on its way in: batches, in order, each acknowledged once all in it is committed or parked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import orjson
import structlog

from gateway import killpoints
from gateway.broker.link import UNAVAILABLE, Lost, reason_of, within
from gateway.broker.publisher import BrokerUnavailable, Publisher
from gateway.intake import LARGEST, Fault, Overloaded

if TYPE_CHECKING:
    import aiormq.abc
    from structlog.typing import FilteringBoundLogger

BATCH = 96
FAULTS_BYTES = 60_000
"""Most of a header of faults: all headers of a message share one frame of 128 KiB."""
WITNESSES = 5
"""Times that a message fails alone while others of its batch are accepted, before it is parked."""
DEATHS = 3
"""Processes that a message may kill while it is handled alone, before it is parked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A body that was not taken, and why."""

    reason: Literal["malformed", "conflict", "poison"]
    faults: tuple[Fault, ...]


Handle = Callable[[Sequence[bytes]], Awaitable[Sequence[Refused | None]]]
"""Commits bodies; for each why it was not taken, None if it was. Raises if it committed nothing."""


class Witness(Protocol):
    """Remembers, beyond the death of this process, what was being handled."""

    async def begin(self, body: bytes) -> int:
        """How often this body was begun with and not finished, this time included. Committed when it returns."""

    async def end(self, body: bytes) -> None:
        """It was finished, well or badly, and killed nobody."""


class _Delivery(NamedTuple):
    tag: int
    body: bytes
    again: bool
    """It was delivered before, perhaps to a process that died of it."""


class Lane:
    """One queue: collects what is delivered, hands it over in batches in order, acknowledges what is settled.

    It outlives connections, so that a commit under way is never cut off by the loss of one. What it holds of a lost
    connection is forgotten, since the broker delivers it anew.

    What was delivered before may be what a process died of. It is handled alone, under the eyes of a witness, and as
    long as such messages come no other is held beside them: the broker counts the deliveries of all that are held.
    """

    def __init__(
        self,
        queue: str,
        handle: Handle,
        publisher: Publisher,
        pause: tuple[float, float],
        witness: Witness | None = None,
    ) -> None:
        self.queue = queue
        self._witness = witness
        self._handle = handle
        self._publisher = publisher
        self._pause = pause
        self._random = SystemRandom()
        self._log: FilteringBoundLogger = structlog.get_logger().bind(queue=queue)
        self._channel: aiormq.abc.AbstractChannel | None = None
        self._tag = ""
        self._lose: Callable[[str], None] = lambda _: None
        self._waiting: deque[_Delivery] = deque()
        self.delivered = 0
        """Messages, ever."""
        self._batch: Sequence[_Delivery] = ()
        """What is being handled."""
        self._ours: set[bytes] = set()
        """Of what was held when a connection was lost: this process has not died of it."""
        self._open_up: Callable[[], Awaitable[None]] | None = None
        """Has the broker deliver as many as may be held. None: it does."""
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

    @property
    def hungry(self) -> bool:
        """Whether it holds nothing, so that whatever its queue has is for it at once."""
        return not self._waiting and self._idle.is_set()

    async def attach(
        self, channel: aiormq.abc.AbstractChannel, prefetch: int, seconds: float, lose: Callable[[str], None]
    ) -> None:
        """Consume through a channel, which is this lane's own, until it is lost."""
        self._waiting.clear()
        self._unsettled = 0
        self._stopping.clear()
        self._channel, self._lose = channel, lose
        self._open_up = None

        async def deliver(message: aiormq.abc.DeliveredMessage) -> None:
            # aiormq makes a task of this for each message: a plain callback would be wrapped in another layer.
            if channel is self._channel:
                # Of one that is too long so much is kept as shows it, or what is held would be bounded by its senders.
                body = message.body[: LARGEST + 1]
                again = bool(message.redelivered) and self._doubtful(body)
                self._waiting.append(_Delivery(message.delivery_tag or 0, body, again))
                self.delivered += 1
                self._arrived.set()

        def cancelled(_: object) -> None:
            self._tag = ""
            lose(f"the broker cancelled the consumer of {self.queue}")

        channel.on_consumer_cancel_callbacks.add(cancelled)
        closing = channel.closing
        closing.add_done_callback(lambda _: lose(reason_of(closing)))

        async def consume(number: int) -> None:
            await within(seconds, channel.basic_qos(prefetch_count=number))
            try:
                answer = await within(seconds, channel.basic_consume(self.queue, deliver))
            except TimeoutError:  # as of a quorum queue without a leader
                raise Lost(f"queue {self.queue} cannot be consumed: no answer within {seconds:g} s") from None
            self._tag = answer.consumer_tag or ""

        async def open_up() -> None:
            one_at_a_time = self._tag
            await consume(prefetch)  # before the other ends, for the broker is asked now and then whether there is one
            await within(seconds, channel.basic_cancel(one_at_a_time))

        await consume(1 if self._witness else prefetch)
        if self._witness:
            self._open_up = open_up

    def detach(self) -> None:
        """The connection is lost."""
        if self._channel and self._witness:
            self._ours = {_mark(delivery.body) for delivery in (*self._batch, *self._waiting)}
        self._channel = None
        self._waiting.clear()

    def _doubtful(self, body: bytes) -> bool:
        """Whether a body that was delivered before may have killed whoever held it."""
        if self._witness is None:
            return False
        if self._ours and (mark := _mark(body)) in self._ours:
            self._ours.discard(mark)
            return False
        return True

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._arrived.wait()
            await self._collect()
            channel = self._channel
            if not self._waiting or channel is None or self._stopping.is_set():
                self._arrived.clear()
                continue
            self._batch = batch = self._next()
            self._idle.clear()
            reason = await self._work(channel, batch)
            self._idle.set()
            # The loss of a connection during the batch has been dealt with, and must not cost the next one.
            self._batch = ()
            if channel is self._channel:
                self._unsettled = batch[-1].tag if reason else 0
                if reason and not self._stopping.is_set():
                    self._lose(reason)

    def _next(self) -> list[_Delivery]:
        """As many as are handled together: those that are new, or one that is not."""
        batch = [self._waiting.popleft()]
        while not batch[0].again and self._waiting and not self._waiting[0].again and len(batch) < BATCH:
            batch.append(self._waiting.popleft())
        return batch

    async def _work(self, channel: aiormq.abc.AbstractChannel, batch: Sequence[_Delivery]) -> str:
        """Settle a batch and acknowledge it. Returns why it was not acknowledged: it is delivered anew then."""
        try:
            if self._open_up and not batch[0].again:
                open_up, self._open_up = self._open_up, None
                await open_up()
            if batch[0].again and self._witness:
                await self._watched(batch[0].body, channel, self._witness)
            else:
                await self._settle([delivery.body for delivery in batch], channel)
            killpoints.reached("broker.before_ack")
            await within(self._pause[1], channel.basic_ack(batch[-1].tag, multiple=True, wait=False))
            killpoints.reached("broker.after_ack")
        except (*UNAVAILABLE, Lost) as error:
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
        """Take no more, until attached again. Finishes the batch under way, and gives back the rest."""
        self._stopping.set()
        channel = self._channel
        if channel is None or not self.consuming:
            return
        with suppress(*UNAVAILABLE, Lost):
            await within(seconds, channel.basic_cancel(self._tag))
            await within(seconds, self._idle.wait())
            if last := self._waiting[-1].tag if self._waiting else self._unsettled:
                await within(seconds, channel.basic_nack(last, multiple=True, requeue=True))
        self._waiting.clear()

    async def _watched(self, body: bytes, channel: aiormq.abc.AbstractChannel, witness: Witness) -> None:
        """Settle one that may kill the process. If it does, whoever is delivered it next hears how often it has."""
        while True:
            try:
                begun = await witness.begin(body)
            except Exception as error:  # noqa: BLE001 - nothing has been begun, so it can wait
                self._log.warning("broker.not_witnessed", reason=type(error).__name__)
                await self._rest(channel)
            else:
                break
        try:
            if begun > DEATHS:
                died = Fault("", f"the process that handled it died, {DEATHS} times")
                await self._park([(body, self._headers(Refused("poison", (died,))))], channel)
            else:
                await self._settle([body], channel)
        finally:
            with suppress(Exception):  # a false witness more, of those that it takes to condemn it
                await witness.end(body)

    async def _settle(self, bodies: Sequence[bytes], channel: aiormq.abc.AbstractChannel) -> None:
        """Until all bodies are committed or parked. Raises ``Lost`` where that is no longer ours to do."""
        verdicts = await self._take(bodies, channel)
        parked = [(body, self._headers(verdict)) for body, verdict in zip(bodies, verdicts, strict=True) if verdict]
        if parked:
            await self._park(parked, channel)

    async def _park(self, parked: Sequence[tuple[bytes, dict[str, Any]]], channel: aiormq.abc.AbstractChannel) -> None:
        """Set aside for people. Raises ``Lost`` where that is no longer ours to do."""
        while True:
            try:
                await self._publisher.park(parked)
            except BrokerUnavailable as error:
                self._log.warning("broker.not_parked", count=len(parked), reason=str(error))
                await self._rest(channel)
            else:
                self._log.warning("broker.parked", count=len(parked))
                return

    async def _take(self, bodies: Sequence[bytes], channel: aiormq.abc.AbstractChannel) -> list[Refused | None]:
        """Hand bodies over, and again with fewer at a time if that fails, so that the one to blame stands alone."""
        verdicts: list[Refused | None] = []
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
                    verdicts.append(Refused("poison", (Fault("", f"cannot be handled: {type(error).__name__}"),)))
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
        others = [*bodies[1:2], *(delivery.body for delivery in list(self._waiting)[:1] if not delivery.again)]
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
            raise Lost("the broker delivers it anew")

    def _headers(self, refused: Refused) -> dict[str, Any]:
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


def _mark(body: bytes) -> bytes:
    """Tells bodies apart."""
    return blake2b(body, digest_size=16).digest()
