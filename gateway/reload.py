"""What is in force, how a changed file replaces it while messages are under way, and how those that wait hear of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from watchfiles import awatch

from gateway.config import RELOADED, ConfigError, Fault, load
from gateway.decide import Judge
from gateway.metrics import SHORT
from gateway.store import StoreUnavailable
from gateway.unknown import Recourse
from providers import LooksUp, channels

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from pathlib import Path

    from watchfiles.main import FileChange

    from gateway.config import Config
    from gateway.metrics import Metrics
    from gateway.store import Store
    from providers import Provider, Settings

log = structlog.get_logger()

LIVE: Final = (*RELOADED, "retention", "report")
"""The sections that change while running. Retention does because the policy's rules look back on what it keeps, what
reports are held against because nothing is decided by it."""

_SETTLING = 0.1
"""Seconds between two looks at a file that must find the same: one half written may be good YAML that says less."""
_GATHERED = 200
"""Milliseconds that events may be gathered for; without an end they would be while a database in the folder is busy."""
_LOOK = 60_000
"""Milliseconds after which the file is looked at without an event: shared file systems send none for others' writes."""
_POLL = 3.0
"""Seconds between looks while the folder cannot be watched."""
_RETRY = 2.0
"""Seconds until a store that did not answer is asked again."""


# ---------------------------------------------------------------------------------------------------------- in force


class InForce:
    """What decisions are made by: one object, which those who decide ask at the moment of use."""

    def __init__(
        self, config: Config, store: Store, worker: str, metrics: Metrics, running: Mapping[str, Provider]
    ) -> None:
        """``config`` is what the process starts with, ``worker`` its name, and ``running`` its providers."""
        self.config = config
        """What holds: the live sections of the last good file, the others as at the start."""
        self.judge = Judge(
            policy=config.policy,
            number=0,
            routes=config.routes,
            patience={name: _patience(settings) for name, settings in config.providers.items()},
            span=config.worker.attempt,
            events=config.events.states,
            acts=config.events.acts,
            recourses={name: _recourse(provider, config.providers[name]) for name, provider in running.items()},
            public_url=config.http.public_url,
        )
        self._store = store
        self._worker = worker
        self._metrics = metrics

    async def put(self, config: Config) -> None:
        """Put the live sections of ``config`` in force, for all at once, when the store has a number for its policy.

        Raises:
            StoreUnavailable: nothing has changed.
        """
        number = await self._store.activate(config.policy, self._worker)
        self.config = replace(self.config, **{section: getattr(config, section) for section in LIVE})
        self.judge = replace(self.judge, policy=config.policy, number=number, routes=config.routes)
        self._metrics.applied(config.policy, number)
        log.info(
            "policy.applied",
            number=number,
            hash=config.policy.hash[:SHORT],
            routes={str(channel): route.written() for channel, route in config.routes.items()},
        )
        for warning in config.warnings:
            log.warning("policy.warning", **asdict(warning))


@dataclass(frozen=True, slots=True)
class Difference:
    """What separates a configuration that was read from the one that holds."""

    live: tuple[str, ...]
    """Sections that can be put in force now."""
    restart: tuple[str, ...]
    """Sections that only a restart brings into force."""
    faults: tuple[Fault, ...]
    """Why the live ones cannot be put in force without the others."""


def difference(holds: Config, read: Config) -> Difference:
    """What of a configuration that was read differs from the one that holds, by its meaning."""
    differing = [field.name for field in fields(read) if field.name != "warnings" and _differs(field.name, holds, read)]
    return Difference(
        live=tuple(section for section in differing if section in LIVE),
        restart=tuple(section for section in differing if section not in LIVE),
        faults=tuple(_unroutable(holds, read)),
    )


def _differs(section: str, holds: Config, read: Config) -> bool:
    if section == "policy":
        return holds.policy.hash != read.policy.hash
    if section == "routes":  # the order of channels is that in which a request without any goes through them
        return list(holds.routes.items()) != list(read.routes.items())
    return bool(getattr(holds, section) != getattr(read, section))


def _unroutable(holds: Config, read: Config) -> Iterable[Fault]:
    """Routes that lead to providers as they only will be after a restart."""
    for channel, names in read.routes.items():
        for name in names:
            if name in holds.routes.get(channel, ()):
                continue
            running = holds.providers.get(name)
            if running is None:
                yield Fault(f"routes.{channel}", f"{name!r} does not run yet: restart the gateway to start it")
            elif running.kind != read.providers[name].kind or channel not in channels(running):
                yield Fault(f"routes.{channel}", f"{name!r} still runs as a {running.kind}: restart the gateway first")


def _patience(settings: object) -> timedelta:
    """How long after an attempt's deadline its answer may still come."""
    seconds = getattr(settings, "timeout", 0.0) + getattr(settings, "data_timeout", 0.0)
    return timedelta(seconds=seconds)


def _recourse(provider: Provider, settings: Settings) -> Recourse:
    """What a provider offers where it never answered.

    A key is used for less long than the vendor knows it, by as much as a call may take.
    """
    window = provider.dedupe_window
    looked_up = isinstance(provider, LooksUp) and provider.can_look_up
    return Recourse(None if window is None else window - _patience(settings), looked_up)


# ---------------------------------------------------------------------------------------------------------- the file


class Reload:
    """Keeps what is in force as the file says: a good change is applied, a faulty one refused with its reasons."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        in_force: InForce,
        metrics: Metrics,
        applied: Callable[[], None],
        poll: float = _POLL,
    ) -> None:
        """Take what it needs.

        Args:
            path: as it was given: links on the way to the file are followed at each look.
            environ: where ``{env: NAME}`` is looked up.
            in_force: what it changes.
            metrics: hears of every file that is taken or refused.
            applied: is called when another policy has come into force.
            poll: seconds between looks while the folder cannot be watched.
        """
        self._path = path
        self._environ = environ
        self._in_force = in_force
        self._metrics = metrics
        self._applied = applied
        self._poll = poll
        self._known: bytes | None = None
        self._refused = False
        self._at_start = True
        self._changed = asyncio.Event()
        self._changed.set()  # it may have been written to since the start

    def ask(self) -> None:
        """Take the file as it is, though it may look the same: what it refers to may have changed."""
        self._known, self._at_start = None, False
        self._changed.set()

    async def watch(self) -> NoReturn:
        """Notice changes of the file's folder, where links are swapped; look every few seconds where that fails."""
        folder, watched = self._path.parent, True
        while True:
            try:
                here = await asyncio.to_thread(folder.stat)
                self._changed.set()  # the watch stands before this task waits again, and so before the look
                async with aclosing(_events(folder)) as events:
                    async for _ in events:
                        watched = True
                        self._changed.set()
                        there = await asyncio.to_thread(folder.stat)
                        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
                            break
            except (OSError, RuntimeError, ExceptionGroup) as error:
                if watched:
                    log.warning("config.unwatched", folder=str(folder), reason=repr(error), look_every=self._poll)
                watched = False
                await asyncio.sleep(self._poll)

    async def follow(self) -> NoReturn:
        """Take the file up whenever it has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            text = await self._settled()
            if text == self._known:
                continue
            self._known = text
            try:
                await self._take()
                self._at_start = False
            except StoreUnavailable as error:
                log.warning("policy.waiting", reason=str(error), again_in_seconds=_RETRY)
                await asyncio.sleep(_RETRY)
                self.ask()

    async def _settled(self) -> bytes:
        """What the file holds, when nobody is writing it."""
        text = await asyncio.to_thread(_contents, self._path)
        while text != self._known:
            await asyncio.sleep(_SETTLING)
            before, text = text, await asyncio.to_thread(_contents, self._path)
            if text == before:
                break
        return text

    async def _take(self) -> None:
        try:
            read = await asyncio.to_thread(load, self._path, self._environ)
        except ConfigError as error:
            self._refuse(error.faults)
            return
        except Exception:
            log.exception("policy.bug", file=str(self._path))
            self._refuse([Fault("", "cannot be read because of a bug of ours, which the log tells of")])
            return
        differs = difference(self._in_force.config, read)
        if differs.faults:
            self._refuse(differs.faults)
            return
        if differs.live:
            await self._in_force.put(read)
        elif not self._at_start:
            log.info("policy.kept", number=self._in_force.judge.number)
        if differs.restart:
            log.warning("config.needs_restart", sections=differs.restart)
        self._refused = False
        self._metrics.taken(differs.restart)
        if "policy" in differs.live:
            self._applied()

    def _refuse(self, faults: Iterable[Fault]) -> None:
        self._refused = True
        self._metrics.refused()
        log.error(
            "policy.refused",
            file=str(self._path),
            faults=[asdict(fault) for fault in faults],
            kept=self._in_force.judge.number,
        )


def _events(folder: Path) -> AsyncGenerator[set[FileChange], None]:
    return awatch(
        folder, watch_filter=None, recursive=False, debounce=_GATHERED, rust_timeout=_LOOK, yield_on_timeout=True
    )


def _contents(path: Path) -> bytes:
    """What is in a file; nothing, where it cannot be read: reading it as a configuration says why."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --------------------------------------------------------------------------------------------------- waiting messages

_TERM = timedelta(seconds=15)
"""Until another worker may go on with it; many times as long as a page takes."""
_PAGE = 1000
"""Messages looked at in one transaction."""
_WOKEN = 1000
"""Messages woken in a second, at most: fewer than one worker decides, so that what is due for itself goes on."""
_LATE = 5.0
"""Seconds after which another pass looks for what was being decided by the policy before while it went by."""
_AGAIN = 2.0
"""Seconds until a pass that another worker stands in the way of, or that lost the store, is tried again."""


class Sweep:
    """Has waiting messages decided anew that another policy than the one in force put to wait."""

    def __init__(
        self, store: Store, in_force: InForce, worker: str, metrics: Metrics, notice: Callable[[], None]
    ) -> None:
        """Take what it needs.

        Args:
            store: holds the waiting messages.
            in_force: the policy by which they are to be decided.
            worker: the name by which this process takes jobs.
            metrics: counts what is woken.
            notice: is called when messages have become due.
        """
        self._store = store
        self._in_force = in_force
        self._worker = worker
        self._metrics = metrics
        self._notice = notice
        self._asked = asyncio.Event()
        self._asked.set()  # they may have been put to wait before this process was started

    def ask(self) -> None:
        """Another policy is in force: begin anew, wherever a pass may be."""
        self._asked.set()

    async def run(self) -> NoReturn:
        """Make two passes whenever it is asked to, one worker at a time."""
        while True:
            await self._asked.wait()
            try:
                if await self._store.take_job("sweep", self._worker, _TERM):
                    self._asked.clear()
                    await self._pass()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LATE):
                            await self._asked.wait()
                    await self._pass()
                    await self._store.drop_job("sweep", self._worker)
                    continue
            except StoreUnavailable as error:
                log.warning("sweep.waiting", reason=str(error))
                self._asked.set()
            await asyncio.sleep(_AGAIN)

    async def _pass(self) -> None:
        """Look at every waiting message once; ends early if another pass is asked for, or the job is lost."""
        at: str | None = ""
        judge, woken = self._in_force.judge, 0
        while at is not None and not self._asked.is_set():
            if not await self._store.take_job("sweep", self._worker, _TERM):
                self._asked.set()
                return
            at, some = await self._store.sweep(judge, at, _PAGE)
            woken += some
            if some:
                self._metrics.swept.inc(some)
                self._notice()
                await asyncio.sleep(some / _WOKEN)
        if woken:
            log.info("policy.swept", number=judge.number, messages=woken)
