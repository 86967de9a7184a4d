"""One process of the gateway: what ``gateway.app`` puts together, with the world's clock, store and vendors."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gateway.intake import Incoming, Intake
from gateway.reload import InForce, Sweep
from gateway.store import Store, StoreUnavailable
from gateway.web.people import settled
from gateway.working import Working
from tests.simulation.loop import Crashed, Process
from tests.simulation.store import Line
from tests.simulation.vendors import Provider

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from datetime import datetime

    from gateway.config import Config
    from gateway.intake import Answer
    from gateway.message import MessageState, OptOut
    from providers import Receipt
    from tests.simulation.loop import T
    from tests.simulation.world import World

AGAIN = 0.5
PATIENCE = 1.0
"""Seconds after which who asked a process hangs up."""
_LONG = 5.0
"""The same, of what takes as long as an attempt."""

_DRAIN = 25.0


class Gateway:
    """Intake, worker and web, in a process of its own."""

    def __init__(self, world: World, name: str, skew: float) -> None:
        """``name``: that none had before; ``skew``: seconds that this machine's clock is fast."""
        self.process = Process(world.loop, name)
        self.ready = False
        self._world = world
        self._skew = timedelta(seconds=skew)
        config = world.config
        line = Line(world.engine, world.sky, world.network.random, world.outside, self._dead, world.saw)
        self.store = Store(line, worker=name)
        providers = {
            vendor: Provider(world.vendors[vendor], self.clock, settings.timeout, self._dead, self._begins)
            for vendor, settings in config.providers.items()
        }
        self._providers = tuple(providers.values())
        self.in_force = InForce(config, self.store, name, world.metrics, providers)
        self.intake = Intake(self.store, lambda: self.in_force.judge, world.metrics, self._notice, self.clock)
        self._sweep = Sweep(self.store, self.in_force, name, world.metrics, self._notice)
        self._working = Working(
            self.store,
            self.in_force,
            self._sweep,
            providers,
            name,
            world.metrics,
            lambda: None,
            now=self.clock,
            clock=world.loop.time,
        )
        self.tasks = [self.process.start(self._run())]

    def clock(self) -> datetime:
        return self._world.now() + self._skew

    def _dead(self) -> bool:
        return not self.process.alive

    def _begins(self, message: str) -> None:
        self._world.begins(self.process, message)

    def _notice(self, pairs: Any = None) -> None:
        self._working.worker.notice(pairs)

    async def _run(self) -> None:
        await self._put(self._world.config)
        self.ready = True
        self.tasks += [asyncio.get_running_loop().create_task(loop) for loop in self._working.loops()]

    async def _put(self, config: Config) -> None:
        while True:
            try:
                await self.in_force.put(config)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN)
            else:
                return

    @property
    def calling(self) -> bool:
        """Whether it has a vendor on the line, and is awake."""
        awake = self.process.alive and not self.process.paused
        return awake and any(provider.calls for provider in self._providers)

    def broken(self) -> list[str]:
        """Why those of its tasks ended that should never have."""
        ended = [task for task in self.tasks if task.done() and not task.cancelled()]
        return [repr(error) for task in ended if (error := task.exception())]

    # ------------------------------------------------------------------------------------- what is asked from outside

    async def _call(self, work: Coroutine[Any, Any, T], patience: float = PATIENCE) -> T:
        """Ask this process.

        Raises:
            Crashed: it died before it answered, or did not answer for long: it may have done it, or still do it.
        """
        task = self.process.start(work)
        await asyncio.wait({task}, timeout=patience)
        if not task.done() or task.cancelled():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody hears it any more
            raise Crashed
        return task.result()

    async def accept(self, body: bytes) -> Answer:
        async def accept() -> Answer:
            (answer,) = await self.intake.accept([Incoming(body, "amqp")])
            return answer

        return await self._call(accept())

    async def accept_profile(self, body: bytes) -> None:
        await self._call(self.intake.accept_profiles([body]))

    async def opt_out(self, person: str, optout: OptOut) -> None:
        """As ``POST /v1/optouts`` does."""

        async def say_no() -> None:
            await self.store.introduce(person)
            await self.store.opt_out(person, optout, "api", self.in_force.judge)
            await settled(self.store, person)
            self._notice()

        await self._call(say_no(), _LONG)

    async def opt_out_address(self, address: str, optout: OptOut) -> None:
        """The same of an address."""

        async def say_no() -> None:
            await self.store.opt_out_address(address, optout, "api", self.in_force.judge)
            await asyncio.sleep(self.in_force.judge.span.total_seconds())
            self._notice()

        await self._call(say_no(), _LONG)

    async def cancel(self, message: str) -> MessageState | None:
        return await self._call(self.store.cancel(message, self.in_force.judge))

    async def receipt(self, receipt: Receipt) -> None:
        await self._call(self.store.receipt([receipt], self.in_force.judge))

    async def stop(self) -> None:
        """As on SIGTERM: begin nothing more, finish what was begun, and give back the rest."""
        self.ready = False
        await self._call(self._working.worker.stop(_DRAIN), 2 * _DRAIN)

    async def apply(self, config: Config) -> None:
        """Put another policy in force, as a changed file does."""

        async def apply() -> None:
            await self._put(config)
            self._sweep.ask()

        await self._call(apply(), _LONG)
