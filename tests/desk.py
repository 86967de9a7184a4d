"""A support agent's desk: the gateway's store, decisions and API under a driven clock, and the command line to ask it.

Nothing is sent anywhere: a test says what each provider answers. Texts are read as the command prints them.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from gateway import config
from gateway.cli import main
from gateway.decide import Health, Judge
from gateway.headroom import Headroom
from gateway.ids import new_id
from gateway.intake import Intake
from gateway.lines import line_of
from gateway.message import Message, Priority, microseconds
from gateway.metrics import Metrics
from gateway.outcome import Outcome, accepted
from gateway.reports import Reports
from gateway.store import Claimed, NewMessage, Settlement, Store, engine_of
from gateway.web import private_app, public_app, runner
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.store import Next

PHONE = "+818012345678"
"""Of Japan, which has one zone."""
PUBLIC_URL = "https://m.example.com/gateway"
SPAN = timedelta(seconds=10)
_LEASE = timedelta(seconds=30)
_UNREADABLE = re.compile(r"None|[{}]|[0-9]{4}-[0-9]{2}-[0-9]{2}T|example[.]com|8012345678|8002345678|secret words")
"""What no support agent should have to read aloud."""


@dataclass
class Desk:
    """One gateway on SQLite, whose clock stands still until a test moves it."""

    database: Path
    """Its tables are there, and it is this desk's own."""
    policy: str
    now: datetime
    answers: dict[str, list[Outcome]] = field(default_factory=dict)
    """What a provider's next calls come to; then it accepts."""
    health: Health = field(default_factory=Health)
    span: timedelta = SPAN
    url: str = ""
    """Of the private listener."""
    public: str = ""
    """Of the public one."""

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.store = Store(engine_of(f"sqlite:///{self.database}", lambda: microseconds(self.now)))
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        await self.enact(self.policy)
        self.metrics = Metrics("test")
        app = private_app(
            self.store,
            Intake(self.store, lambda: self.judge, self.metrics),
            Reports(
                self.store,
                lambda: self.judge,
                self.metrics,
                lambda: self.config.retention.contacts,
                Headroom(None),
                lambda: self.now,
            ),
            lambda: self.judge,
            self.config,
            self.metrics,
            dict,
            lambda: None,
        )
        self.url = await self._listen(app)
        public = public_app(self.store, {}, lambda: self.judge, PUBLIC_URL, self.metrics, name=self.config.pages.name)
        self.public = await self._listen(public)
        return self

    async def _listen(self, app: web.Application) -> str:
        served = runner(app, shutdown_timeout=0.1)
        await served.setup()
        self._stack.push_async_callback(served.cleanup)
        site = web.TCPSite(served, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{served.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def enact(self, policy: str) -> None:
        """Let a policy come into force; it gets the next number."""
        head = f"store: sqlite:///{self.database}\nhttp: {{private: 127.0.0.1:0}}\n"
        self.config = config.parse(head + policy, {}, base=self.database.parent)
        self.number = await self.store.activate(self.config.policy, "desk")

    @property
    def judge(self) -> Judge:
        """What decides now."""
        return Judge(
            policy=self.config.policy,
            number=self.number,
            routes=self.config.routes,
            patience=dict.fromkeys(self.config.providers, timedelta()),
            span=self.span,
            health=self.health,
        )

    # ------------------------------------------------------------------------------------------------------- messages

    async def accept(self, name: str, category: str, user: str = "hana", **more: Any) -> str:
        """Take a request, as intake would at this instant; our id of it."""
        found = self.config.policy.categories.get(category)
        starts_at = more.pop("not_before", self.now)
        channels = more.pop("channels", (Channel.SMS,))
        message = Message(
            id=new_id(),
            source=more.pop("source", "loans"),
            request=name,
            person=user,
            category=category,
            channels=channels,
            priority=more.pop("priority", found.priority if found else Priority.NORMAL),
            accepted_at=self.now,
            starts_at=starts_at,
            expires_at=more.pop("expires_at", starts_at + timedelta(days=3)),
            campaign=more.pop("campaign", None),
            body={
                "to": {"phone": PHONE, "email": "hana@example.com"},
                "content": {"sms": {"text": "secret words"}, "email": {"subject": "s", "text": "secret words"}},
            }
            | more,
        )
        line = line_of(message, found, self.config.policy.labels) if found else 0
        await self.store.accept([NewMessage(message, name, line, self.number)])
        return message.id

    async def work(self, *, kill: bool = False) -> list[Next]:
        """Let a worker take up all that is due now, to its end; or let it die in the middle of each attempt."""
        wanted = [(priority, channel, 100) for priority in Priority for channel in Channel]
        answers: list[Next] = []
        while leases := (await self.store.lease(wanted, _LEASE))[0]:
            steps = await self.store.claim(leases, self.judge, [new_id() for _ in leases])
            while not kill and (claimed := [step for step in steps if isinstance(step, Claimed)]):
                settled = [Settlement(one, self._answer(one.step.provider)) for one in claimed]
                answers += [step for step in steps if not isinstance(step, Claimed)]
                steps = await self.store.settle(settled, self.judge)
            answers += steps
        return answers

    async def finish(self, claimed: Claimed) -> None:
        """Let what is under way come to its end."""
        await self.store.settle([Settlement(claimed, self._answer(claimed.step.provider))], self.judge)

    def _answer(self, provider: str) -> Outcome:
        planned = self.answers.get(provider)
        return planned.pop(0) if planned else accepted("V-42")

    async def sent(self, name: str, category: str, **more: Any) -> str:
        """One that is accepted and goes out at this instant."""
        message = await self.accept(name, category, **more)
        await self.work()
        return message

    async def attempt(self, name: str, category: str, **more: Any) -> str:
        """The attempt by which one goes out at this instant: what the links in it are named by."""
        view = await self.store.view(await self.sent(name, category, **more))
        assert view
        return view.attempts[-1].id

    def pass_(self, **time: float) -> None:
        """Move the clock on."""
        self.now += timedelta(**time)

    # ------------------------------------------------------------------------------------------------- as support asks

    async def explain(self, message: str, *more: str) -> str:
        """What ``decorum explain`` prints."""
        return await self.run("explain", message, *more)

    async def run(self, *arguments: str, status: int = 0, stdin: bytes = b"") -> str:
        """What a command prints: on standard output if it goes well, on standard error if not."""
        done = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--url", self.url], stdin)
        assert done.exit_code == status, done.output
        text = done.stdout if status == 0 else done.stderr
        if status == 0 and "--json" not in arguments:
            assert not _UNREADABLE.search(text), text
        return text

    async def api(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        async with aiohttp.ClientSession(self.url) as session, session.request(method, path, **more) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if body else None


@asynccontextmanager
async def others() -> AsyncIterator[str]:
    """The address of a server that is no gateway, and answers whatever it is asked with some JSON."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "v-1"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


def at(text: str) -> datetime:
    """An instant, written with its offset."""
    return datetime.fromisoformat(text).astimezone(UTC)
