"""What is done to gateways, servers and vendors while they work; each undoes itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.benchmarks.steered import BUSY, ERROR, FAIL, HANG, OK, REFUSE, RESET

if TYPE_CHECKING:
    from tests.benchmarks.scene import Scene
    from tests.servers import PostgreSQL, RabbitMQ

_FROZEN = 8.0
"""Seconds."""
_PAUSED = 45.0
"""Longer than a lease."""


@dataclass(frozen=True, slots=True)
class Victims:
    """Whom it may happen to."""

    scenes: list[Scene]
    mortal: Scene
    """Whose last gateway may be killed."""
    broker: RabbitMQ
    database: PostgreSQL
    seconds: float = 20.0
    """That a vendor's fault lasts."""


async def vendor_fails(victims: Victims, random: Random) -> str:
    scene, name = random.choice(victims.scenes), random.choice("ab")
    mode = random.choice((REFUSE, FAIL, BUSY, ERROR, HANG, RESET))
    await scene.vendors.set(name, mode, 30)
    await asyncio.sleep(victims.seconds)
    await scene.vendors.set(name, OK)
    return f"vendor {name}: {mode}"


async def gateway_killed(victims: Victims, random: Random) -> str:
    gateway = victims.mortal.gateways[-1]
    assert gateway.child
    await asyncio.to_thread(gateway.child.kill)
    await asyncio.sleep(random.uniform(0, 5))
    await gateway.start().ready()
    return "gateway: kill -9"


async def gateway_paused(victims: Victims, random: Random) -> str:
    gateway = victims.mortal.gateways[-1]
    assert gateway.child
    gateway.child.pause()
    await asyncio.sleep(_PAUSED)
    gateway.child.resume()
    return f"gateway: SIGSTOP for {_PAUSED:g} s"


async def broker_killed(victims: Victims, random: Random) -> str:
    await asyncio.to_thread(victims.broker.settle)
    await asyncio.to_thread(victims.broker.kill)
    await asyncio.to_thread(victims.broker.start_again)
    return "broker: kill -9"


async def broker_paused(victims: Victims, random: Random) -> str:
    victims.broker.pause()
    await asyncio.sleep(_FROZEN)
    victims.broker.resume()
    return f"broker: SIGSTOP for {_FROZEN:g} s"


async def database_killed(victims: Victims, random: Random) -> str:
    await asyncio.to_thread(victims.database.kill)
    await asyncio.to_thread(victims.database.start_again)
    return "database: kill -9"


async def database_paused(victims: Victims, random: Random) -> str:
    victims.database.pause()
    await asyncio.sleep(_FROZEN)
    victims.database.resume()
    return f"database: SIGSTOP for {_FROZEN:g} s"


Fault = Callable[[Victims, Random], Awaitable[str]]
GENTLE: tuple[Fault, ...] = (gateway_killed, vendor_fails)
"""Those that leave servers alone."""
ALL: tuple[Fault, ...] = (
    vendor_fails,
    vendor_fails,
    gateway_killed,
    gateway_paused,
    broker_killed,
    broker_paused,
    database_killed,
    database_paused,
)
