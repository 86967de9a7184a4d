"""Gateways on one database and one broker, vendors that are steered, and somebody who publishes at a steady pace."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aio_pika
import aiohttp
import orjson

from gateway.broker import Topology
from gateway.message import Priority
from gateway.store.migrate import migrate
from tests.benchmarks.ground import ROOT
from tests.benchmarks.steered import Steering
from tests.servers import Child, PostgreSQL, RabbitMQ, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_TEXT = "Your July offer is ready: the first month is free if you activate your card in the app by Sunday. "
_LONG = 300
"""Characters of a text."""
_POSTGRESQL = {"shared_buffers": "512MB", "max_wal_size": "8GB"}
_CONFIRMED = 20.0
"""Seconds that a broker is given to confirm."""
CATEGORIES = {
    "code": {"priority": "critical", "caps": "exempt", "quiet_hours": "exempt", "expires_after": "5m"},
    "notice": {"priority": "high", "quiet_hours": "exempt", "expires_after": "1d"},
    "offer": {"priority": "bulk", "expires_after": "14d"},
}
"""All ``on_unknown: leave``, which is the default."""
PRIORITIES = {"code": Priority.CRITICAL, "notice": Priority.HIGH, "offer": Priority.BULK}


def request(name: str, category: str, channel: str, person: int) -> bytes:
    """One, whose text says its name and when it was published."""
    said = f"{name} {time.monotonic():.6f} "
    text = (said + _TEXT * (_LONG // len(_TEXT) + 1))[:_LONG]
    content = {"sms": {"text": text}, "push": {"title": "An offer", "body": text}}[channel]
    to = {"sms": {"phone": f"+4915{person:09d}"}, "push": {"push": [{"token": f"token-{person}", "platform": "ios"}]}}
    fields = {"id": name, "source": "shop", "user": f"user-{person:08d}", "category": category, "channels": [channel]}
    return orjson.dumps({**fields, "to": to[channel], "content": {channel: content}, "timezone": "Europe/Berlin"})


def configuration(
    *,
    store: str,
    broker: str | None,
    private: int,
    vendors: Mapping[str, int],
    routes: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    events: bool,
) -> dict[str, Any]:
    """A gateway's: rules that are asked for every message and do not refuse, and one provider a vendor."""
    provider = {
        "kind": "http",
        "channels": list(routes),
        "body": {"to": "{address}", "text": "{text}", "message": "{message}", "attempt": "{attempt}"},
        "reply": {"reference": "id"},
        "statuses": {"503": "unavailable"},
    }
    providers = {
        name: {**provider, "url": f"http://127.0.0.1:{port}/v1/messages", **settings.get(name, {})}
        for name, port in vendors.items()
    }
    return {
        "store": store,
        **({"broker": broker} if broker else {}),
        "http": {"private": f"127.0.0.1:{private}"},
        "providers": providers,
        "routes": dict(routes),
        **({"events": {"states": ["sent"]}} if events else {}),
        "policy": {
            "timezone": "UTC",
            "categories": CATEGORIES,
            "caps": [
                {"name": "daily", "limit": 50, "per": "24h"},
                {"name": "week", "limit": 100, "per": "week"},
            ],
        },
    }


@dataclass
class Servers:
    """What runs are given their databases and virtual hosts by."""

    broker: RabbitMQ
    postgres: PostgreSQL
    folder: Path
    _template: str = ""

    async def database(self) -> str:
        """The URL of a new one with the gateway's tables."""
        if not self._template:
            self._template = self.postgres.create_database()
            await asyncio.to_thread(migrate, self._template)
        return self.postgres.create_database(self._template.rsplit("/", 1)[1])

    async def vhost(self) -> str:
        """The URL of a new one."""
        return await asyncio.to_thread(self.broker.create_vhost)

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """Servers of our own."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="decorum-bench-"))
            broker = stack.enter_context(await asyncio.to_thread(RabbitMQ.start))
            postgres = stack.enter_context(await asyncio.to_thread(PostgreSQL.start, None, _POSTGRESQL))
            yield cls(broker, postgres, Path(folder))


@dataclass
class Gateway:
    """One process."""

    config: Path
    private: int
    log: Path
    child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.private}"

    def start(self) -> Self:
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.config)]
        self.child = spawn(command, self.log, cwd=ROOT)
        return self

    async def ready(self, seconds: float = 60) -> None:
        await wait_until(self.answers, seconds, f"{self.log} is ready")

    async def answers(self) -> bool:
        assert self.child
        if not self.child.running:
            raise AssertionError(f"the gateway has ended:\n{self.child.text[-4000:]}")
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
                session.get(f"{self.url}/readyz") as response,
            ):
                return response.status == 200
        return False

    async def drain(self) -> int:
        """Its exit status after SIGTERM."""
        assert self.child
        self.child.signal(signal.SIGTERM)
        return await asyncio.to_thread(self.child.wait, 60)


class Scene:
    """Everything that one measured run needs, gone when it ends."""

    def __init__(
        self,
        folder: Path,
        store: str,
        broker: str | None,
        routes: Mapping[str, Any],
        *,
        gateways: int = 1,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        ledger: Path | None = None,
        events: bool = False,
    ) -> None:
        """Take what it is made of.

        Args:
            folder: for configurations and logs; made.
            store: its URL; the tables exist.
            broker: its URL; None: none.
            routes: of each channel. Each provider that they name gets a vendor.
            gateways: processes.
            settings: of providers, beside those that all have.
            ledger: where vendors write what they accept, instead of noting it.
            events: whether the gateways publish them.
        """
        self._stack = AsyncExitStack()
        self.folder = folder
        self.store = store
        self.broker = broker
        names = {name for route in routes.values() for name in route}
        self._ports = {name: free_port() for name in sorted(names)}
        self._control = free_port()
        self._ledger = ledger
        self.vendors = Steering(self._control)
        folder.mkdir(parents=True, exist_ok=True)
        self.gateways = []
        for number in range(gateways):
            private, config = free_port(), folder / f"gateway-{number}.yaml"
            said = configuration(
                store=store,
                broker=broker,
                private=private,
                vendors=self._ports,
                routes=routes,
                settings=settings or {},
                events=events,
            )
            config.write_bytes(orjson.dumps(said))  # which is YAML too
            self.gateways.append(Gateway(config, private, folder / f"gateway-{number}.log"))
        self._topology = Topology()
        self._flying: set[asyncio.Task[None]] = set()
        self.confirmed: set[str] = set()
        """Names of the requests that the broker or the gateway has taken."""

    async def __aenter__(self) -> Self:
        try:
            ports = [f"{name}={port}" for name, port in self._ports.items()]
            command = [sys.executable, "-m", "tests.benchmarks.steered", str(self._control), *ports]
            if self._ledger:
                self._ledger.touch()
                command.append(str(self._ledger))
            child = self._stack.enter_context(spawn(command, self.folder / "vendors.log", cwd=ROOT))
            await wait_until(lambda: self.vendors.answers() or not child.running, 30, "the vendors start")
            for gateway in self.gateways:
                self._stack.callback(_end, gateway)
                gateway.start()
            for gateway in self.gateways:
                await gateway.ready()
            if self.broker:
                connection = await aio_pika.connect_robust(self.broker)
                await self._stack.enter_async_context(connection)
                self._channel = await connection.channel()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # --------------------------------------------------------------------------------------------------------- sending

    def publish(self, name: str, category: str, channel: str, person: int) -> None:
        """Hand a request to the broker; its text says when that was."""
        body = request(name, category, channel, person)
        task = asyncio.get_running_loop().create_task(self._publish(name, body, PRIORITIES[category]))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _publish(self, name: str, body: bytes, priority: Priority) -> None:
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        while True:
            try:
                await self._channel.default_exchange.publish(
                    message, self._topology.queue(priority), timeout=_CONFIRMED
                )
            except (aio_pika.exceptions.AMQPError, OSError, TimeoutError, RuntimeError):
                await asyncio.sleep(1)  # nobody knows whether the broker has it: the id tells repeats
            else:
                self.confirmed.add(name)
                return

    async def load(
        self, label: str, category: str, channel: str, *, rate: float, seconds: float, first: int = 0
    ) -> int:
        """Publish one after another, ``rate`` a second, each from a person of its own; how many.

        Who falls behind catches up, as those who publish do.
        """
        begun, number = time.monotonic(), 0
        while (now := time.monotonic()) - begun < seconds:
            while number < (now - begun) * rate:
                self.publish(f"{label}-{number}", category, channel, first + number)
                number += 1
            await asyncio.sleep(1 / rate if rate < 200 else 0.005)
        await asyncio.gather(*self._flying)
        return number

    async def handed_over(self, label: str, count: int, seconds: float = 60) -> list[list[Any]]:
        """The vendors' notes, once so many messages of that label are among them."""
        notes: list[list[Any]] = []

        async def all_there() -> bool:
            notes.extend(note for note in await self.vendors.notes() if note[2].startswith(label))
            return len({note[1] for note in notes}) >= count

        await wait_until(all_there, seconds, f"{count} messages {label} are accepted")
        return notes


def times(notes: list[list[Any]]) -> dict[str, tuple[str, float, float]]:
    """By name: the vendor that first accepted it, when it was published, and milliseconds from then to there."""
    found: dict[str, tuple[str, float, float]] = {}
    for vendor, _, text, at in notes:
        name, published = text.split(" ", 2)[:2]
        found.setdefault(name, (vendor, float(published), (at - float(published)) * 1000))
    return found


def _end(gateway: Gateway) -> None:
    if gateway.child:
        gateway.child.kill()
