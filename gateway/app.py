"""The composition root: builds every object from the configuration, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import socket
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, NoReturn

import structlog
from aiohttp import web

from gateway import relay, sampler, sweeper
from gateway.broker import Consumer, Publisher, Topology
from gateway.headroom import Headroom, space_at
from gateway.ids import new_id, oldest_id
from gateway.intake import Intake, utc_now
from gateway.message import LISTENED, microseconds
from gateway.metrics import Metrics
from gateway.relay import FULL, Relay
from gateway.reload import InForce, Reload, Sweep
from gateway.reports import Reports
from gateway.sampler import Sampler
from gateway.store import SQLITE, SUSPECTS, Store, StoreUnavailable, engine_of
from gateway.store.migrate import migrate, outdated
from gateway.visits import Networks
from gateway.web import private_app, public_app, runner
from gateway.webhooks import sender
from gateway.webhooks.client import Client
from gateway.webhooks.sender import Sender
from gateway.working import Working
from providers import build

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from gateway.config import Config, Endpoint
    from gateway.decide import Judge
    from gateway.headroom import Space
    from gateway.message import Priority
    from gateway.worker import Worker
    from providers import Channel, Provider

log = structlog.get_logger()

ROLES = ("intake", "worker", "web")

_DRAIN = 25.0
"""Seconds that attempts under way are given to finish."""
_UNROUTED = 5.0
"""Seconds until those who balance requests have heard that this process is not ready. On loopback nobody does."""
_LISTENERS = 5.0
"""Seconds that HTTP requests under way are given to finish; none waits longer for the store."""
_RECONNECT = 2.0
_LOOK = 3.0
"""Seconds between two looks whether the store answers."""
_JOB_TERM = timedelta(seconds=15)
_PRUNE_EVERY = 3600.0
_PRUNE_BATCH = 1000
_KEPT = timedelta(days=30)
"""How long an event is kept for a webhook that does not take it."""
_JOBS = (relay.JOB, "retention", "sweep", SUSPECTS, sweeper.JOB, sender.JOB, sampler.JOB)
"""What one worker does for all."""
_GAUGES_EVERY = 15.0


class Unusable(Exception):
    """The gateway cannot start, and waiting would not help; the sentence says why."""


class App:
    """One gateway process."""

    def __init__(
        self,
        config: Config,
        roles: Collection[str] = ROLES,
        *,
        file: Path | None = None,
        may_migrate: bool = False,
        space: Callable[[], Space] | None = None,
    ) -> None:
        """Build what the roles need.

        Args:
            config: what to start with.
            roles: some of ``ROLES``.
            file: where ``config`` was read, and is read again when it changes. None: it never does.
            may_migrate: bring an old PostgreSQL schema to this version's form instead of refusing it.
            space: of the disk that SQLite is on. Default: what the system says.
        """
        self.config = config
        self.roles = frozenset(roles)
        self._may_migrate = may_migrate
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{new_id()[-6:]}"
        self.metrics = Metrics(version("decorum"))
        self.store = Store(
            engine_of(config.store, _clock),
            leases="worker" in self.roles,
            worker=self.worker_id,
            hear=self.metrics.noted,
        )
        self.providers: Mapping[str, Provider] = {name: build(name, s) for name, s in config.providers.items()}
        self.in_force = InForce(config, self.store, self.worker_id, self.metrics, self.providers)
        self._headroom = Headroom(space or _space_of(config.store))
        self.intake = Intake(self.store, lambda: self.judge, self.metrics, self._notice, headroom=self._headroom)
        self._reports = Reports(
            self.store,
            lambda: self.judge,
            self.metrics,
            lambda: self.in_force.config.retention.contacts,
            self._headroom,
        )
        self._sweep = Sweep(self.store, self.in_force, self.worker_id, self.metrics, self._notice)
        self._reload = Reload(file, os.environ, self.in_force, self.metrics, self._sweep.ask) if file else None
        self._store_is = "starting"
        self._draining = False
        self._hurry = asyncio.Event()
        self._worker: Worker | None = None
        self._consumer: Consumer | None = None
        self._publisher: Publisher | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._sender: Sender | None = None
        self._relay: Relay | None = None
        self._stack = AsyncExitStack()
        self.private_port = 0

    @property
    def judge(self) -> Judge:
        """What decisions are made by at this moment."""
        return self.in_force.judge

    @property
    def reread(self) -> Callable[[], None] | None:
        """Has the configuration's file read again; None where there is none."""
        return self._reload.ask if self._reload else None

    async def start(self) -> None:
        """Bring up what the roles ask for. Listeners come first, so that readiness can be asked while the rest waits.

        Raises:
            Unusable: it cannot work, however long one waits.
        """
        config = self.config
        if os.environ.get("AIOHTTP_NO_EXTENSIONS"):
            raise Unusable("AIOHTTP_NO_EXTENSIONS is set: HTTP would be parsed by code known to be smuggled past")
        self.private_port = await self._listen(
            private_app(
                store=self.store,
                intake=self.intake,
                reports=self._reports,
                judge=lambda: self.judge,
                config=config,
                metrics=self.metrics,
                readiness=self.readiness,
                notice=self._notice,
                targets=lambda: self.in_force.config.report.targets,
            ),
            config.http.private,
            "private",
        )
        if "web" in self.roles and config.http.public and config.http.public_url:
            await self._listen(
                public_app(
                    store=self.store,
                    providers=self.providers,
                    judge=lambda: self.judge,
                    public_url=config.http.public_url,
                    metrics=self.metrics,
                    name=config.pages.name,
                    networks=Networks(config.http.proxies, config.http.machines),
                ),
                config.http.public,
                "public",
            )
        await self._open_store()
        if self._reload:
            self._run(self._reload.watch())
            self._run(self._reload.follow())
        for provider in self.providers.values():
            await provider.open()
            self._stack.push_async_callback(provider.close)
        if config.broker and self.roles & {"intake", "worker"}:
            topology = Topology(events=config.events.exchange, ownership=config.broker.topology)
            self._publisher = Publisher(config.broker.url, topology)
            await self._publisher.start()
            self._stack.push_async_callback(self._publisher.close)
        if "worker" in self.roles:
            await self._start_worker()
        if config.broker and self._publisher and "intake" in self.roles:
            self._consumer = Consumer(
                config.broker.url,
                self.intake.accept,
                self.intake.accept_profiles,
                self._reports.take,
                self._publisher,
                topology,
                witness=self.intake,
                prefetch=config.broker.prefetch,
                shut=self._shut,
            )
            await self._consumer.start()
        self._run(self._gauges())
        self._run(self._watch_store())
        # What is there by now stays; of the rest nearly all dies young and without cycles. Looking through all of it
        # after every 700 new objects, as Python does unless told otherwise, costs a tenth of the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        log.info("gateway.started", roles=sorted(self.roles), policy=self.judge.number, private=self.private_port)

    def readiness(self) -> Mapping[str, str]:
        """Each part this process is responsible for, and ``ok`` or what it lacks."""
        parts = {"store": self._store_is}
        if self._draining:
            parts["gateway"] = "draining"
        if self._worker:
            parts["worker"] = "ok" if self._worker.ready else "the store does not answer"
        if "intake" in self.roles:
            parts["intake"] = self._headroom.lack or "ok"
        if self.config.broker and "intake" in self.roles:
            ready = self._consumer is not None and self._consumer.ready
            parts["broker"] = "ok" if ready else self._consumer.status if self._consumer else "starting"
        return parts

    async def stop(self) -> None:
        """Finish what was begun, and give back what was not: intake and worker first, then the rest; 45 s at most."""
        self._draining = True
        log.info("gateway.draining")
        if not self.config.http.private.loopback:
            await _either(self._hurry, _UNROUTED)
        async with asyncio.TaskGroup() as group:
            if self._consumer:
                group.create_task(self._consumer.close())
            if self._worker:
                group.create_task(self._worker.stop(_DRAIN, self._hurry))
            if self._sender:
                group.create_task(self._sender.stop(_DRAIN, self._hurry))
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._worker:
            with suppress(StoreUnavailable):
                for job in _JOBS:
                    await self.store.drop_job(job, self.worker_id)
        await self._stack.aclose()
        await self.store.close()
        log.info("gateway.stopped")

    @property
    def hurrying(self) -> bool:
        """Whether a drain waits for nothing any more."""
        return self._hurry.is_set()

    def hurry(self) -> None:
        """Let the drain wait for no provider: calls under way are left unknown, and what is known is committed."""
        log.warning("gateway.hurrying")
        self._hurry.set()

    def _shut(self) -> str:
        """What keeps everything from being accepted; empty if nothing does."""
        return self._headroom.lack or ("" if self._store_is == "ok" else self._store_is)

    async def _watch_store(self) -> NoReturn:
        while True:
            try:
                await self.store.ping()
                told = "ok"
            except StoreUnavailable as error:
                told = str(error)
            if (told == "ok") != (self._store_is == "ok"):
                log.warning("store.back" if told == "ok" else "store.unavailable", reason=told)
            self._store_is = told
            await asyncio.sleep(_LOOK)

    async def _open_store(self) -> None:
        """Wait for the database, however long that takes, and see that its tables are of this version."""
        url = self.config.store
        embedded = url.startswith(SQLITE)
        while True:
            try:
                if embedded or self._may_migrate:
                    await asyncio.to_thread(migrate, url)
                elif problem := await asyncio.to_thread(outdated, url):
                    raise Unusable(problem)
                await self.store.open()
                if embedded:
                    await self.store.inherit()
                await self.in_force.put(self.config)
            except StoreUnavailable as error:
                if embedded:
                    raise Unusable(str(error)) from error
                self._store_is = str(error)
                log.warning("store.unavailable", reason=str(error), again_in_seconds=_RECONNECT)
                await asyncio.sleep(_RECONNECT)
            else:
                self._store_is = "ok"
                return

    async def _start_worker(self) -> None:
        config = self.config
        if config.webhooks:
            clients = [Client(webhook, utc_now) for webhook in config.webhooks]
            for client in clients:
                await client.open()
                self._stack.push_async_callback(client.close)
            self._sender = Sender(self.store, clients, self.worker_id, self.metrics)
            self._run(self._sender.run())
        queued = self._sender.notice if self._sender else lambda: None
        relay = Relay(self.store, self._publisher, config.webhooks, self.worker_id, self.metrics, queued)
        working = Working(
            self.store, self.in_force, self._sweep, self.providers, self.worker_id, self.metrics, relay.notice
        )
        self._worker = working.worker
        for loop in working.loops():
            self._run(loop)
        self._run(self._retain())
        self._run(Sampler(self.store, lambda: self.judge, self.worker_id, self.metrics).run())
        if config.events.states:
            self._relay = relay
            self._run(relay.run())

    def _notice(self, pairs: Collection[tuple[Priority, Channel]] | None = None) -> None:
        """Something was accepted, or let go: it may be due now."""
        if self._worker:
            self._worker.notice(pairs)

    def _run(self, work: Coroutine[object, object, None]) -> None:
        """Own a task: if it breaks, that is a bug, and the process ends rather than limp on."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.critical("gateway.bug", exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def _listen(self, app: web.Application, endpoint: Endpoint, name: str) -> int:
        listener = runner(app, shutdown_timeout=_LISTENERS)
        await listener.setup()
        self._stack.push_async_callback(self._unlisten, listener)
        try:
            site = web.TCPSite(listener, endpoint.host, endpoint.port)
            await site.start()
        except OSError as error:
            raise Unusable(f"http.{name}: {endpoint} cannot be bound: {error.strerror or error}") from error
        port: int = listener.addresses[0][1]
        log.info("http.listening", listener=name, host=endpoint.host, port=port)
        return port

    async def _unlisten(self, listener: web.AppRunner) -> None:
        """Let the requests under way finish, unless there is a hurry."""
        closing = asyncio.create_task(listener.cleanup())
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in (closing, hurried):
            task.cancel()
        await asyncio.gather(closing, hurried, return_exceptions=True)

    async def _retain(self) -> NoReturn:
        """Forget what is older than retention asks for, a piece at a time."""
        while True:
            try:
                while await self.store.take_job("retention", self.worker_id, _JOB_TERM):
                    now, retention = utc_now(), self.in_force.config.retention
                    messages = oldest_id(now - retention.messages)
                    contacts = oldest_id(now - retention.contacts)
                    expired = microseconds(now - LISTENED)
                    if await self.store.prune(messages, contacts, expired, _PRUNE_BATCH) < _PRUNE_BATCH:
                        break
                await self._forget_events()
            except StoreUnavailable as error:
                log.warning("retention.waiting", reason=str(error))
            await asyncio.sleep(_PRUNE_EVERY)

    async def _forget_events(self) -> None:
        """The same of what is kept for webhooks: what they never took, and what waits for one that is gone."""
        known = {webhook.name for webhook in self.config.webhooks}
        while await self.store.take_job("retention", self.worker_id, _JOB_TERM):
            gone, waited = await self.store.forget_events(microseconds(utc_now() - _KEPT), _PRUNE_BATCH)
            for webhook, count in Counter(waited).items():
                log.error("webhook.forgotten", webhook=webhook, events=count)
                if webhook in known:
                    self.metrics.webhook_lost.labels(webhook, "forgotten").inc(count)
            if gone < _PRUNE_BATCH:
                break

    async def _gauges(self) -> NoReturn:
        while True:
            try:
                due, outbox = await self.store.backlog()
                self.metrics.due.set(due)
                self.metrics.outbox.set(outbox)
                ages = await self.store.ages()
                self.metrics.oldest_unknown.set(ages.unknown)
                self.metrics.oldest_unclosed.set(ages.unclosed)
                await self._observe_webhooks()
            except StoreUnavailable as error:
                log.warning("gauges.waiting", reason=str(error))
            if (share := self._headroom.share) is not None:
                self.metrics.disk.set(share)
            for part, state in self.readiness().items():
                self.metrics.ready.labels(part).set(state == "ok")
            if self._worker:
                self._worker.observe()
            await asyncio.sleep(_GAUGES_EVERY)

    async def _observe_webhooks(self) -> None:
        if not self.config.webhooks:
            return
        views = await self.store.webhooks({webhook.name: webhook.fingerprint for webhook in self.config.webhooks})
        for name, view in views.items():
            self.metrics.webhook(name, view, utc_now())
        if self._relay:
            self._relay.full = {name for name, view in views.items() if view.waiting + view.given_up >= FULL}


async def serve(app: App, started: Callable[[], object] = lambda: None, until: asyncio.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until ``until`` is set; then drain. ``started`` is called when all is up.

    The same signal again cuts the drain short, and a third time ends the process where it stands. SIGHUP has the
    configuration's file read again.
    """
    ending = until or asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        if not ending.is_set():
            ending.set()
        elif not app.hurrying:
            app.hurry()
        else:
            log.critical("gateway.ended_at_once")
            sys.stderr.flush()
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    if app.reread:
        loop.add_signal_handler(signal.SIGHUP, app.reread)
    starting = loop.create_task(app.start())
    told = loop.create_task(ending.wait())
    try:
        await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            started()
            await told
    finally:
        for task in (starting, told):
            task.cancel()
        await asyncio.gather(starting, told, return_exceptions=True)
        await app.stop()


async def _either(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _space_of(url: str) -> Callable[[], Space] | None:
    """What is known of the disk that a store is on: nothing, if it is a server's."""
    if not url.startswith(SQLITE):
        return None
    return functools.partial(space_at, Path(url.removeprefix(SQLITE)).absolute().parent)


def _clock() -> int:
    return time_ns() // 1000
