"""What the worker role is made of: all that leases, paces, attempts and sweeps, put together for one process."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gateway.intake import utc_now
from gateway.message import content_of
from gateway.pacing import Pacing
from gateway.pipeline import Pipeline
from gateway.render import drafted, tracking_url
from gateway.store import SQLITE
from gateway.sweeper import Sweeper
from gateway.watch import ProviderHealth, Sharing
from gateway.web import unsubscribe_url
from gateway.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.reload import InForce, Sweep
    from gateway.store import Store
    from providers import Channel, Content, Provider


class Working:
    """The parts of a process that works, not yet started."""

    def __init__(
        self,
        store: Store,
        in_force: InForce,
        sweep: Sweep,
        providers: Mapping[str, Provider],
        name: str,
        metrics: Metrics,
        recorded: Callable[[], None],
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Put them together.

        Args:
            store: what they share with other processes.
            in_force: what they decide by, and what the process was started with.
            sweep: has messages decided anew after a change.
            providers: by name.
            name: the process's, which none had before.
            metrics: hear of all.
            recorded: is called when there may be events.
            now: by which deadlines and providers are judged.
            clock: seconds, from anywhere.
        """
        config = in_force.config
        public = config.http.public_url
        concurrency = {provider: settings.concurrency for provider, settings in config.providers.items()}

        def judge() -> Judge:
            return in_force.judge

        def content(message: Message, channel: Channel) -> Content:
            said, leads = content_of(message, channel), tracking_url(judge(), message)
            return drafted(said, leads) if leads else said

        health = ProviderHealth(concurrency, name)
        self._pacing = Pacing(store, config.providers, name, metrics, content=content, now=now, clock=clock)
        pipeline = Pipeline(
            store,
            judge,
            providers,
            health,
            metrics,
            public,
            (lambda message: unsubscribe_url(public, message)) if public else None,
            recorded,
            self._pacing,
            now,
        )
        only = config.store.startswith(SQLITE)
        self.worker = Worker(
            store, pipeline, health, judge, config.worker.in_flight, metrics, self._pacing, now, only=only
        )
        self._sharing = Sharing(store, health, name, judge, metrics, now)
        self._sweep = sweep
        self._sweeper = Sweeper(store, judge, providers, name, metrics, recorded)

    def loops(self) -> Iterator[Coroutine[object, object, None]]:
        """All that runs for as long as the process does."""
        yield self.worker.run()
        yield self.worker.isolate()
        yield self._pacing.run(lambda: self.worker.notice(()))
        yield self._sharing.run()
        yield self._sweep.run()
        yield self._sweeper.run()
