"""The world that a gateway lives in, as processes of its own: vendors, clients that are not ours, and the gateway."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aio_pika
import aiohttp
import asyncpg
import yaml

from tests.end_to_end import campaign as campaigns
from tests.end_to_end import oracle
from tests.servers import Child, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from tests.end_to_end.campaign import Campaign

ROOT = Path(__file__).parents[2]
KEY = "e2e-key-of-the-shop"
EXCHANGE, EVENTS, PARKED = "decorum.requests", "decorum.events", "decorum.parked"
QUEUES = (
    *(f"{EXCHANGE}.{priority}" for priority in campaigns.PRIORITY.values()),
    "decorum.profiles",
    "decorum.reports",
)
PUBLIC_URL = "https://m.example.test"
LONGEST_LINE = 32_000
"""amqp-publish reads lines into 32 KiB."""
SOON = 600
"""Seconds: what is due by then is waited for. Quiet hours, and caps that are full, last longer."""


class Vendors:
    """All vendors in one process, with one ledger."""

    def __init__(self, folder: Path, *, delay: float, public_port: int) -> None:
        self.file = folder / "ledger.jsonl"
        self.file.touch()
        command = [sys.executable, "-m", "tests.vendors", "--ledger", self.file, "--delay", str(delay)]
        command += ["--callbacks", "--callback-base", f"http://127.0.0.1:{public_port}"]
        self.child = spawn(list(map(str, command)), folder / "vendors.log", cwd=ROOT)
        self.said: dict[str, Any] = {}
        self._counted = (0, 0)

    async def ready(self) -> None:
        await wait_until(lambda: self._listen() or not self.child.running, 30, "the vendors are ready")
        assert self.said, self.child.text

    def _listen(self) -> bool:
        with suppress(ValueError, IndexError):
            self.said = json.loads(self.child.text.splitlines()[0])
        return bool(self.said)

    def taken(self) -> int:
        """How many messages they took so far."""
        lines, offset = self._counted
        with self.file.open("rb") as file:
            file.seek(offset)
            read = file.read()
        self._counted = (lines + read.count(b"\n"), offset + len(read))
        return self._counted[0]


@dataclass
class Gateway:
    """One gateway process, which may be killed and started again."""

    config: Path
    log: Path
    private: int
    child: Child | None = None
    started: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.private}"

    def start(self) -> Self:
        self.started += 1
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.config), "--migrate"]
        self.child = spawn(command, self.log, cwd=ROOT)
        return self

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                assert self.child
                assert self.child.running, self.tail()
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as response:
                        return response.status == 200
                return False

            await wait_until(answers, 30, f"{self.log} is ready")

    def kill(self) -> None:
        """As a power cut would."""
        assert self.child
        self.child.kill()

    def drain(self) -> int:
        """Its exit status after SIGTERM."""
        assert self.child
        self.child.signal(signal.SIGTERM)
        return self.child.wait(60)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


@dataclass
class World:
    """Everything that one test runs against."""

    folder: Path
    store: str
    broker: str | None
    vendors: Vendors
    gateways: list[Gateway]
    events: list[dict[str, Any]] = field(default_factory=list)
    """As they arrived, from the topic exchange."""
    clients: list[asyncio.subprocess.Process] = field(default_factory=list)
    told: dict[tuple[str, str], str] = field(default_factory=dict)
    """States that the API told of, by source and id."""

    # ---------------------------------------------------------------------------------------------------------- sending

    async def publish(self, queues: Mapping[str, Sequence[bytes]]) -> None:
        """Each line as a persistent message of its own, by a client in C that stays connected until ``hang_up``.

        It waits for no confirmations. RabbitMQ 3.10 drops what a client has published to a quorum queue last when that
        client leaves at once (seen without a gateway in the room: 4 of 100 times, up to 200 messages), which is nothing
        that these tests are about.
        """
        assert self.broker
        for key, lines in queues.items():
            assert all(len(line) < LONGEST_LINE and b"\0" not in line for line in lines)
            process = await asyncio.create_subprocess_exec(
                *("amqp-publish", f"--url={self.broker}", f"--exchange={EXCHANGE}", f"--routing-key={key}"),
                *("--persistent", "--content-type=application/json", "--line-buffered"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.clients.append(process)
            assert process.stdin
            process.stdin.write(b"".join(line + b"\n" for line in lines))

    async def hang_up(self) -> None:
        """Let the clients leave."""
        while self.clients:
            process = self.clients.pop()
            assert process.stdin
            process.stdin.close()
            output, _ = await process.communicate()
            assert process.returncode == 0, output

    async def introduce(self, campaign: Campaign) -> None:
        """Publish the profiles, opt-outs included, and wait until all are known."""
        profiles = campaign.profiles
        await self.publish({"profiles": profiles})

        async def known() -> bool:
            return await self.count("select count(*) from profiles") == len(profiles)

        await wait_until(known, 60, "all profiles are known")
        await self.hang_up()

    async def send(self, body: bytes, **query: str) -> tuple[int, Any]:
        """By HTTP, as the shop. An empty body: ask for the message instead."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"{self.gateways[0].url}/v1/messages"
            async with session.post(url, data=body) if body else session.get(url, params=query) as response:
                return response.status, await response.json()

    # --------------------------------------------------------------------------------------------------------- settling

    async def count(self, sql: str, *values: Any) -> int:
        connection = await asyncpg.connect(self.store, server_settings={"application_name": "oracle"})
        try:
            return int(await connection.fetchval(sql, *values))
        finally:
            await connection.close()

    async def settled(self, campaign: Campaign, seconds: float, *, repeats: bool) -> None:
        """Everything published has arrived, and nothing but what rules hold for long is left to do.

        ``repeats``: wait as well for what may be repeated because nobody knows what became of it.
        """
        connection = await asyncpg.connect(self.store, server_settings={"application_name": "oracle"})
        arrived = (len(campaign.requests), len(campaign.malformed) + len(campaign.conflicts))
        asks = [
            f"select (select count(*) from requests) < {arrived[0]} or (select count(*) from parked) < {arrived[1]}",
            "select exists (select from attempts where state = 'intent')",
            f"select exists (select from due d where due_at < extract(epoch from now() + interval '{SOON} s') * 1000000"
            + ("" if repeats else f" and not ({_REPEAT})")
            + ")",
            "select exists (select from outbox)",
        ]
        left: list[str] = []

        async def nothing() -> bool:
            left.clear()
            for ask in asks:
                if await connection.fetchval(ask):
                    left.append(ask)
                    return False
            return True

        try:
            await wait_until(nothing, seconds)
        except AssertionError:
            rows = await connection.fetch(
                "select to_timestamp(due_at / 1e6) at, to_timestamp(lease_until / 1e6) lease, held, tries, attempts,"
                " channel, priority, now(), (select reason from decisions where message = d.message"
                " order by id desc limit 1) from due d where due_at is not null order by due_at limit 5"
            )
            # What a gateway's death explains is not told from the rest here.
            findings = {finding.kind: finding for finding in (await self.examine(campaign)).run()}
            told = [f"not settled within {seconds} s: {left}", *map(str, rows), "one finding of each kind so far:"]
            told += map(str, findings.values())
            raise AssertionError("\n".join(told)) from None
        finally:
            await connection.close()

    async def queued(self) -> dict[str, int]:
        """Messages in each queue of requests and profiles, once no gateway consumes any more."""
        assert self.broker
        connection = await aio_pika.connect(self.broker)
        async with connection, connection.channel() as channel:
            queues = [await channel.declare_queue(name, passive=True) for name in QUEUES]
            return {queue.name: queue.declaration_result.message_count or 0 for queue in queues}

    async def parked(self) -> list[tuple[bytes, dict[str, Any]]]:
        """What lies in the queue for people: bodies and headers."""
        assert self.broker
        found = []
        connection = await aio_pika.connect(self.broker)
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(PARKED, passive=True)
            while message := await queue.get(no_ack=True, fail=False):
                found.append((message.body, dict(message.headers)))
        return found

    async def intents(self) -> set[str]:
        """The attempts that the dead gateway left open, once nothing of its own goes on in the database."""
        ours = (
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'decorum'"
        )

        async def silent() -> bool:
            return await self.count(ours) == 0

        await wait_until(silent, 30, "the database has noticed that the gateway is gone")
        connection = await asyncpg.connect(self.store, server_settings={"application_name": "oracle"})
        try:
            return {row[0] for row in await connection.fetch("select id from attempts where state = 'intent'")}
        finally:
            await connection.close()

    # ---------------------------------------------------------------------------------------------------------- judging

    async def examine(self, campaign: Campaign, **more: Any) -> oracle.Examination:
        """To be done when all gateways have stopped, so that nothing moves any more."""
        store = await oracle.recorded(self.store)
        return oracle.Examination(campaign, oracle.ledger(self.vendors.file), store, **more)

    def leaks(self) -> list[str]:
        """Lines of the gateways' output that hold an address, a token, a content or a secret."""
        secrets = [KEY, *(str(self.vendors.said[name]) for name in ("auth_token", "key"))]
        words = [campaigns.CANARY, campaigns.PHONES, *secrets, "ya29.", "PRIVATE KEY", "steer-", "+1500555"]
        wanted = re.compile("|".join(map(re.escape, words)))
        return [line for g in self.gateways for line in g.log.read_text().splitlines() if wanted.search(line)]

    def complaints(self) -> list[str]:
        """Lines that say that the gateway has a bug."""
        bad = re.compile(r'\.bug"|Traceback|"level": ?"(error|critical)"|library\.log')
        return [line for g in self.gateways for line in g.log.read_text().splitlines() if bad.search(line)]


_REPEAT = (
    "d.due_at > extract(epoch from now()) * 1000000 and exists (select from attempts a join messages m"
    " on m.id = a.message where a.message = d.message and a.state = 'unknown'"
    f" and m.category in ({', '.join(map(repr, sorted(campaigns.REPEATABLE)))}))"
)


@asynccontextmanager
async def world(
    folder: Path,
    *,
    store: str,
    broker: str | None,
    gateways: int = 1,
    delay: float = 0.005,
    zone: str = "UTC",
    providers: Mapping[str, Any] | None = None,
) -> AsyncIterator[World]:
    """Vendors and gateways, running; and a subscriber of events, before anything is published.

    Args:
        delay: seconds that a vendor takes for every answer.
        zone: of the policy.
        providers: settings that all providers get.
    """
    publics = [free_port() for _ in range(gateways)]
    vendors = Vendors(folder, delay=delay, public_port=publics[0])
    async with AsyncExitStack() as stack:
        stack.enter_context(vendors.child)
        await vendors.ready()
        here = World(folder, store, broker, vendors, [])
        for number, public in enumerate(publics, 1):
            private = free_port()
            config = folder / f"gateway-{number}.yaml"
            config.write_text(yaml.safe_dump(_config(here, private, public, zone, providers or {})))
            gateway = Gateway(config, folder / f"gateway-{number}.log", private)
            here.gateways.append(gateway)
            stack.callback(_stop, gateway)
            await gateway.start().ready()
        if broker:
            await stack.enter_async_context(_subscribed(broker, here.events))
            stack.push_async_callback(here.hang_up)
        yield here


def _stop(gateway: Gateway) -> None:
    if gateway.child:
        gateway.child.kill()


def _config(here: World, private: int, public: int, zone: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    said, ports = here.vendors.said, here.vendors.said["ports"]
    (here.folder / "service-account.json").write_text(said["service_account"])
    twilio = {
        "base_url": f"http://127.0.0.1:{ports['twilio']}",
        "account_sid": said["account_sid"],
        "auth_token": said["auth_token"],
        "sender": "+15005550006",
    }
    push = {
        "kind": "http",
        "channels": ["push"],
        "url": f"http://127.0.0.1:{ports['http']}/v1/messages",
        "headers": {"Authorization": f"Bearer {said['key']}"},
        "body": {"to": "{address}", "text": "{text}", "title": "{title}", "ref": "{attempt}", "channel": "push"},
        "reply": {"reference": "data.id"},
        "idempotency_header": "Idempotency-Key",
        "idempotency_window": "24h",
    }
    mail = {"kind": "smtp", "host": "127.0.0.1", "port": ports["smtp"], "security": "none", "data_timeout": 5}
    kinds: dict[str, dict[str, Any]] = {
        "mail": {**mail, "sender": "Example <hello@example.com>"},
        "text": {"kind": "twilio_sms", **twilio},
        "voice": {"kind": "twilio_voice", **twilio},
        "fcm": {
            "kind": "fcm",
            "service_account": {"file": "service-account.json"},
            "base_url": f"http://127.0.0.1:{ports['fcm']}",
        },
        "pushco": push,
    }
    return {
        "store": here.store,
        **({"broker": here.broker} if here.broker else {}),
        "http": {"private": f"127.0.0.1:{private}", "public": f"127.0.0.1:{public}", "public_url": PUBLIC_URL},
        "keys": [
            {
                "name": "shop",
                "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
                "scopes": ["send", "read", "admin", "events"],
            }
        ],
        "providers": {name: {"timeout": 5, **kind, **settings} for name, kind in kinds.items()},
        "routes": {"email": ["mail"], "sms": ["text"], "push": ["fcm", "pushco"], "robocall": ["voice"]},
        "worker": {"attempt": "5s"},
        "policy": campaigns.policy(zone),
    }


@asynccontextmanager
async def _subscribed(broker: str, events: list[dict[str, Any]]) -> AsyncIterator[None]:
    connection = await aio_pika.connect(broker)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange(EVENTS)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "message.#")

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            events.append(json.loads(message.body))

        await queue.consume(take, no_ack=True)
        yield


def unheard(states: Mapping[tuple[str, str], str], events: Iterable[dict[str, Any]]) -> list[str]:
    """Which messages' events are missing, wrong or out of order."""
    heard: dict[tuple[str, str], list[tuple[int, str]]] = {}
    seen: dict[str, int] = {}
    wrong = []
    for event in events:
        if event["event"] in seen:
            continue  # at least once
        seen[event["event"]] = event["sequence"]
        told = heard.setdefault((event["source"], event["id"]), [])
        if told and told[-1][0] >= event["sequence"]:
            wrong.append(f"{event['source']} {event['id']}: {event['sequence']} after {told[-1][0]}")
        told.append((event["sequence"], event.get("state", "")))  # what was done with it has none
    for key, state in states.items():
        told_states = {told for _, told in heard.get(key, ())}
        if state != "waiting" and state not in told_states:
            wrong.append(f"{key} is {state}, and the events say {sorted(told_states)}")
    wrong += [f"{key} is unknown to the test" for key in heard.keys() - states.keys()]
    return wrong


def run_decorum(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The command line, as people type it."""
    command = [str(Path(sys.executable).parent / "decorum"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=300, check=False, cwd=ROOT)
