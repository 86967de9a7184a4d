"""What a row runs against: a stub vendor and gateways, each a process of its own, and the means to ask and to judge."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aio_pika
import aiohttp
import psutil

from tests.faults import records
from tests.faults.checker import Promise, Sent, Verdict, examine
from tests.servers import Child, free_port, spawn, wait_until
from tests.vendors.twilio import ACCOUNT_SID, signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
EXCHANGE = "decorum.requests"
ZONE = "UTC"
PAUSE = 0.3
"""Seconds between two looks into a store: of many at once, each with a connection of its own."""
SOON = 300
"""Seconds: what is due by then is waited for."""

CATEGORIES: Mapping[str, dict[str, Any]] = {
    "leave": {"on_unknown": "leave", "caps": "exempt", "quiet_hours": "exempt", "channels": ["sms"]},
    "repeat": {
        "on_unknown": "repeat",
        "repeat_after": "1m",
        "caps": "exempt",
        "quiet_hours": "exempt",
        "channels": ["email"],
    },
    "keyed": {"on_unknown": "leave", "caps": "exempt", "quiet_hours": "exempt", "channels": ["push"]},
    "capped": {"on_unknown": "leave", "quiet_hours": "exempt", "channels": ["sms"]},
    "quiet": {"on_unknown": "leave", "caps": "exempt", "channels": ["sms"]},
}
"""What each promises where nobody knows. ``keyed`` goes to a vendor that knows a message again."""


@dataclass(frozen=True)
class Request:
    """What is asked of the gateway."""

    id: str
    person: str
    category: str
    zone: str = ZONE
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other fields, such as ``not_before``."""

    @property
    def body(self) -> dict[str, Any]:
        text = f"{self.id}|{self.person}|{self.zone}"
        number = sum(ord(letter) * 31**place for place, letter in enumerate(self.person)) % 10**8
        return {
            "id": self.id,
            "source": "local",
            "user": self.person,
            "category": self.category,
            "timezone": self.zone,
            "to": {
                "phone": f"+8190{number:08}",
                "email": f"{self.person}@example.com",
                "push": [{"token": f"token-{self.person}", "platform": "android"}],
            },
            "content": {
                "sms": {"text": text},
                "email": {"subject": "s", "text": text},
                "push": {"title": "t", "body": text},
            },
            **self.more,
        }

    @property
    def sent(self) -> Sent:
        """As the judge sees it."""
        rules = CATEGORIES[self.category]
        return Sent(
            self.id,
            self.person,
            repeats=rules["on_unknown"] == "repeat",
            capped=rules.get("caps") != "exempt",
            quiet=rules.get("quiet_hours") != "exempt",
        )


class Forks:
    """Starts gateways by the hundred: forks of one process that has imported all they need; see ``launch.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=ENVIRONMENT,
            start_new_session=True,
            text=True,
        )
        assert self._answer() == "ready"

    def start(self, point: str, arguments: Sequence[str], log: Path) -> Fork:
        """A new gateway."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"point": point, "arguments": arguments, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return Fork(int(self._answer()), log)

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # with all its forks
        self._process.communicate()


class Fork:
    """A forked gateway, with so much of the face of a ``Child`` as those need that are killed."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._process = psutil.Process(pid)

    @property
    def running(self) -> bool:
        return self._process.is_running()

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        """Until it has ended; how is not known of a fork."""
        self._process.wait(timeout)
        return 0

    def kill(self) -> None:
        """Until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait(10)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)


@dataclass
class Gateway:
    """One gateway process, which may be killed and started again."""

    config: Path
    log: Path
    document: dict[str, Any]
    """Its configuration."""
    forks: Forks | None = None
    child: Child | Fork | None = None
    private: int = 0
    public: int = 0
    _written: int = 0
    """Bytes of its log that are of earlier lives."""

    def __post_init__(self) -> None:
        if not self.forks:  # which are too many to have ports of their own: each says which it was given
            self.private, self.public = free_port(), free_port()
        self.document["http"] |= {"private": f"127.0.0.1:{self.private}", "public": f"127.0.0.1:{self.public}"}
        self.config.write_text(json.dumps(self.document))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.private}"

    @property
    def outside(self) -> str:
        """Of its public listener."""
        return f"http://127.0.0.1:{self.public}"

    def start(self, point: str = "") -> Self:
        """``point``: where it is to die, by its own hand and without a chance to tidy up."""
        arguments = ["serve", "--config", str(self.config), "--migrate"]
        if self.forks:
            self.private = self.public = 0
            self.log.touch()
            self._written = self.log.stat().st_size
            self.child = self.forks.start(point, arguments, self.log)
        else:
            command = [sys.executable, "-m", "tests.faults.launch", point, *arguments]
            self.child = spawn(command, self.log, env=ENVIRONMENT, cwd=ROOT)
        return self

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    async def ready(self, seconds: float = 30) -> None:
        """Until it says that it can work. Fails at once where it has ended."""

        async def answers() -> bool:
            await asyncio.sleep(0.1)  # each look is a connection
            assert self.running, self.log.read_text(errors="replace")[-6000:]
            return self._listens() and (await self.readyz())[0] == 200

        await wait_until(answers, seconds, f"{self.log} is ready")

    def _listens(self) -> bool:
        """Whether its ports are known; a fork is asked for them."""
        if not self.forks:
            return True
        said = self.log.read_bytes()[self._written :].decode(errors="replace")
        ports = dict(re.findall(r'"listener":"(private|public)".*"port":(\d+)', said))
        self.private, self.public = (int(ports.get(name, 0)) for name in ("private", "public"))
        return bool(self.private and self.public)

    async def readyz(self) -> tuple[int, dict[str, Any]]:
        """Status and body; 0 where nothing answers within 2 s."""
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session,
                session.get(f"{self.url}/readyz") as response,
            ):
                return response.status, await response.json()
        return 0, {}

    @property
    def frozen(self) -> bool:
        """Whether it is stopped."""
        assert self.child
        return bool(psutil.Process(self.child.pid).status() == psutil.STATUS_STOPPED)

    def pause(self) -> None:
        """SIGSTOP."""
        assert self.child
        self.child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        assert self.child
        self.child.resume()

    def kill(self) -> None:
        """As a power cut would."""
        assert self.child
        self.child.kill()

    def drain(self, seconds: float = 60) -> int:
        """Its exit status after SIGTERM."""
        assert self.child
        self.child.signal(signal.SIGTERM)
        return self.child.wait(seconds)


@dataclass
class World:
    """Everything that one test runs against."""

    folder: Path
    store: str
    broker: str | None
    vendor: Vendor
    name: str = ""
    """What the ids of its requests begin with: worlds that share a vendor are told apart by it."""
    gateways: list[Gateway] = field(default_factory=list)
    attempted: dict[str, Request] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    promise: Promise = field(default_factory=Promise)
    _numbers: int = 0

    # ---------------------------------------------------------------------------------------------------------- sending

    def requests(
        self, number: int, category: str = "leave", *, persons: int | None = None, zone: str = ZONE, **more: Any
    ) -> list[Request]:
        """New ones, each of a person of its own or of one of ``persons``."""
        first, self._numbers = self._numbers, self._numbers + number
        return [
            Request(f"{self.name}r{n}", f"{self.name}p{n % persons if persons else n}", category, zone, more)
            for n in range(first, first + number)
        ]

    async def post(
        self, requests: Sequence[Request], *, to: int = 0, at_once: int = 20, seconds: float = 15
    ) -> list[int]:
        """By HTTP, to a gateway; the status of each, 0 where there was no answer. A 200 or 202 acknowledges."""
        statuses = [0] * len(requests)
        waiting = list(enumerate(requests))[::-1]
        timeout = aiohttp.ClientTimeout(seconds)

        async def client(session: aiohttp.ClientSession) -> None:
            while waiting:
                index, request = waiting.pop()
                self.attempted[request.id] = request
                body = {name: value for name, value in request.body.items() if name != "source"}
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(f"{self.gateways[to].url}/v1/messages", json=body) as response:
                        await response.read()
                        statuses[index] = response.status
                        if response.status in (200, 202):
                            self.acknowledged.add(request.id)

        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(client(session) for _ in range(min(at_once, len(requests)))))
        return statuses

    async def publish(self, requests: Sequence[Request], seconds: float = 30) -> None:
        """To the broker, each confirmed by it, which acknowledges."""
        assert self.broker
        connection = await aio_pika.connect(self.broker)
        async with asyncio.timeout(seconds), connection, connection.channel(on_return_raises=True) as channel:
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)

            async def one(request: Request) -> None:
                self.attempted[request.id] = request
                body = json.dumps(request.body).encode()
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, routing_key="normal")
                self.acknowledged.add(request.id)

            await asyncio.gather(*map(one, requests))

    async def opt_out(self, person: str, *, to: int = 0) -> None:
        """The promise holds from the instant of the answer on."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.gateways[to].url}/v1/optouts", json={"user": person}) as response,
        ):
            assert response.status < 300, await response.text()
        self._stopped(person)

    async def unsubscribe(self, person: str, link: str, form: Mapping[str, str], *, to: int = 0) -> None:
        """The same by a link in what they got, with a form as a mail program or the page sends it, until it works."""
        url, status = f"{self.gateways[to].outside}/u/{link}", 503
        async with aiohttp.ClientSession() as session:
            while status == 503:
                async with session.post(url, data=form, allow_redirects=False) as response:
                    status = response.status
        assert status in (200, 303)
        self._stopped(person)

    async def say_stop(self, person: str, path: str, *, to: int = 0) -> None:
        """By a text from the person's phone, of which Twilio tells us there; the same promise."""
        sender = Request("", person, "").body["to"]["phone"]
        fields = [("MessageSid", f"SM-{person}"), ("AccountSid", ACCOUNT_SID), ("From", sender), ("Body", "Stop it!")]
        headers = {"X-Twilio-Signature": signature(f"https://m.test{path}", fields)}
        url = f"http://127.0.0.1:{self.gateways[to].public}{path}"
        async with aiohttp.ClientSession() as session, session.post(url, data=fields, headers=headers) as response:
            assert response.status == 200, await response.text()
        self._stopped(person)

    def _stopped(self, person: str) -> None:
        self.promise = replace(self.promise, stopped={**self.promise.stopped, person: datetime.now(UTC)})

    # ------------------------------------------------------------------------------------------------------- the vendor

    async def mode(self, mode: str, **more: Any) -> None:
        """What the vendor does from now on; see ``vendor.py``."""
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{self.vendor.url}/mode", json={"mode": mode, **more}) as response,
        ):
            assert response.status == 200

    async def heard(self, request: str) -> bool:
        """Whether the vendor has been sent a request, taken or not."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.vendor.url}/heard/{request}") as response:
            return bool(await response.json())

    def taken(self) -> int:
        """How many messages it took so far."""
        return self.vendor.ledger.read_bytes().count(b"\n")

    # --------------------------------------------------------------------------------------------------------- settling

    async def settled(self, seconds: float, *, waiting: bool = False, arrived: bool = True) -> float:
        """Until all that was acknowledged is recorded and nothing is left to be done; how long that took.

        Args:
            waiting: rules may hold messages for longer than ``SOON``.
            arrived: wait for what was published to be consumed.
        """
        began = time.monotonic()
        soon = f"due_at < {int((time.time() + seconds + SOON) * 1e6)}" if waiting else "true"
        left: list[Any] = []

        async def nothing() -> bool:
            await asyncio.sleep(PAUSE)
            asks = ["select count(*) from requests", f"select count(*) from due where {soon}"]
            asks += ["select count(*) from attempts where state = 'intent'", "select count(*) from outbox"]
            try:
                rows = await records.fetch(self.store, *asks)
            except Exception as error:  # noqa: BLE001 - the database may be away, or not made yet
                left[:] = [error]
                return False
            left[:] = [row[0][0] for row in rows]
            requests, due, intents, outbox = left
            there = requests >= len(self.acknowledged) or not arrived
            return there and not (due or intents or (outbox and self.broker))

        try:
            await wait_until(nothing, seconds)
        except AssertionError:
            raise AssertionError(
                f"not settled within {seconds} s: requests (of {len(self.acknowledged)}), due, intents, outbox: {left}"
            ) from None
        return time.monotonic() - began

    async def verdict(self) -> Verdict:
        """What the judge says, once nothing moves any more."""
        return examine(
            [request.sent for request in self.attempted.values()],
            self.acknowledged,
            [entry for entry in records.taken(self.vendor.ledger) if entry.request.startswith(self.name)],
            await records.recorded(self.store),
            self.promise,
        )


def settings(store: str, broker: str | None, vendor: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """A gateway's configuration, whose waits are short."""
    body = {"to": "{address}", "text": "{text}", "ref": "{attempt}", "message": "{message}"}
    common = {"kind": "http", "body": body, "reply": {"reference": "id"}, "timeout": 2}
    key = {"idempotency_header": "Idempotency-Key", "idempotency_window": "24h"}
    return {
        "store": store,
        **({"broker": broker} if broker else {}),
        "http": {"public_url": "https://m.test"},
        "providers": {
            "text": {**common, "channels": ["sms"], "url": f"{vendor}/plain"},
            "mail": {**common, "channels": ["email"], "url": f"{vendor}/plain"},
            "pushco": {**common, **key, "channels": ["push"], "url": f"{vendor}/keyed"},
        },
        "routes": {"sms": ["text"], "email": ["mail"], "push": ["pushco"]},
        "worker": {"attempt": "2s"},
        "policy": {"timezone": ZONE, "categories": {name: dict(one) for name, one in CATEGORIES.items()}, **policy},
    }


@dataclass
class Vendor:
    """The stub vendor's process."""

    child: Child
    url: str
    ledger: Path


@asynccontextmanager
async def vendor(folder: Path) -> AsyncIterator[Vendor]:
    """A stub vendor with its ledger in a folder."""
    ledger, port = folder / "ledger.jsonl", free_port()
    ledger.touch()
    command = [sys.executable, "-m", "tests.faults.vendor", "--ledger", str(ledger), "--port", str(port)]
    with spawn(command, folder / "vendor.log", env=ENVIRONMENT, cwd=ROOT) as child:
        await wait_until(lambda: "ready" in child.text or not child.running, 30)
        assert child.running, child.text
        yield Vendor(child, f"http://127.0.0.1:{port}", ledger)


@asynccontextmanager
async def world(
    folder: Path,
    *,
    store: str | None = None,
    broker: str | None = None,
    gateways: int = 1,
    policy: Mapping[str, Any] | None = None,
    promise: Promise | None = None,
    change: Iterable[tuple[str, Any]] = (),
    start: bool = True,
    shared: Vendor | None = None,
    name: str = "",
    forks: Forks | None = None,
) -> AsyncIterator[World]:
    """A vendor and gateways, running.

    Args:
        folder: for ledgers, logs and, where no store is named, an SQLite file.
        store: URL; a new SQLite file where None.
        broker: URL of a virtual host; HTTP only where None.
        gateways: how many, all on that store.
        policy: keys of ``policy`` beside its categories.
        promise: what the judge holds the ledger against, in its own words.
        change: other settings by their dotted path, such as ``("providers.text.pace", "10/s")``.
        start: start the gateways and wait until they are ready.
        shared: a vendor of several worlds …
        name: … and what tells this one's requests from the others'.
        forks: starts the gateways; None: each is a program of its own.
    """
    store = store or f"{records.SQLITE}{folder}/store.db"
    async with AsyncExitStack() as stack:
        taker = shared or await stack.enter_async_context(vendor(folder))
        here = World(folder, store, broker, taker, name, promise=promise or Promise())
        for number in range(1, gateways + 1):
            place = folder / f"gateway-{number}"
            document = settings(store, broker, taker.url, policy or {})
            for path, value in change:
                *parents, last = path.split(".")
                part = document
                for name in parents:
                    part = part.setdefault(name, {})
                part[last] = value
            gateway = Gateway(place.with_suffix(".yaml"), place.with_suffix(".log"), document, forks)
            here.gateways.append(gateway)
            stack.callback(_end, gateway)
            if start:
                await gateway.start().ready()
        yield here


def _end(gateway: Gateway) -> None:
    if gateway.child:
        gateway.child.resume()
        gateway.child.kill()
