"""How the providers fare: what this process sees of them itself, and what its workers tell each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import orjson
import structlog

from gateway.health import SLOW, Report, Result, State, Vitals, read, result_of, written
from gateway.intake import utc_now
from gateway.routing import Health, weight
from gateway.store import StoreUnavailable
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from gateway.config import Route
    from gateway.decide import Judge
    from gateway.health import Way
    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.outcome import Outcome
    from gateway.store import Store, Told

log = structlog.get_logger()

_THROTTLED_FOR: Final = timedelta(seconds=30)
"""How long a vendor that says to slow down, but not for how long, is left alone."""
_UNROUTED_PLACES: Final = 16
"""Messages at once whose first channel has no route any more; they need only a decision."""

_EVERY: Final = 1.0
"""Seconds between two looks at what the other workers say."""
_AT_LEAST: Final = timedelta(seconds=5)
"""A worker that has nothing new to say says so as often as this."""
HEEDED: Final = timedelta(seconds=15)
"""A worker that has not been heard of for so long is gone."""
_ALIKE: Final = timedelta(seconds=1)
"""Pauses that end within so long of each other may be one, late by its way."""
_LONG: Final = timedelta(minutes=1)
"""Pauses that are longer, or grow by more, are told people of."""
_SLEPT: Final = timedelta(seconds=2)
"""Without a look at the calls under way for so long, this process or its machine stood still."""
_AT_MOST: Final = 0.2
"""Seconds until news is told, so that what comes thick is told together."""


class _Pause(NamedTuple):
    """A vendor said to leave it alone until then."""

    until: datetime
    mark: str
    """Of the worker that was told so, the same in all that have heard of it."""


@dataclass(slots=True)
class _Probes:
    """Those of one way that this worker has let go since it is half open."""

    mark: str = ""
    under_way: dict[str, int] = field(default_factory=dict)
    """Messages, each with the interval that it was let go in."""
    ended: int = 0
    """Of the last interval that any was let go in."""
    interval: int = 0


class ProviderHealth:
    """What is known of the providers, by this worker's own calls and by what the others say."""

    def __init__(self, concurrency: Mapping[str, int], worker: str = "") -> None:
        """Take what it needs.

        Args:
            concurrency: of each provider, how many attempts may be under way at once.
            worker: a name that no other has.
        """
        self._concurrency = concurrency
        self._worker = worker
        self._vitals: defaultdict[Way, Vitals] = defaultdict(lambda: Vitals(worker))
        self._calls: defaultdict[Way, dict[str, datetime]] = defaultdict(dict)
        """Messages of the calls under way that do not count yet, each with its beginning, the oldest first."""
        self._looked: datetime | None = None
        self._awake: datetime | None = None
        """Since when this process has looked at them without a break."""
        self._paused: dict[str, _Pause] = {}
        self._pauses = 0
        self._under_way = dict.fromkeys(concurrency, 0)
        self._probes: defaultdict[Way, _Probes] = defaultdict(_Probes)
        self._place, self._workers = 0, 1
        self.news: Callable[[], None] = _nothing
        """Is called when the others should hear of something at once."""

    # -------------------------------------------------------------------------------------------------------- decisions

    def snapshot(self, now: datetime, messages: Sequence[Message] = ()) -> Health:
        """As a decision sees it. Of ``messages`` some may be let go as probes; say then which were, by ``spare``."""
        self._look(now)
        failing = {way for way, vitals in self._vitals.items() if vitals.state(now) is not State.CLOSED}
        return Health(
            failing=failing,
            paused={name: pause.until for name, pause in self._paused.items() if pause.until > now},
            full=[name for name, count in self._under_way.items() if count >= self._concurrency[name]],
            cut={way: cut for way, vitals in self._vitals.items() if (cut := vitals.cut(now))},
            probes={way: chosen for way in failing if messages and (chosen := self._probing(way, messages, now))},
        )

    def spare(self, probes: Mapping[Way, Collection[str]], went: Collection[tuple[Way, str]]) -> None:
        """Of the messages that might have been probes only those that went, each its way, are."""
        for way, messages in probes.items():
            for message in messages:
                if (way, message) not in went:
                    self._probes[way].under_way.pop(message, None)

    def _probing(self, way: Way, messages: Sequence[Message], now: datetime) -> frozenset[str]:
        """Messages of a batch that may find out whether a way still fails.

        First those that begin with its channel, for others may never come to it; urgent ones where there are no others.
        """
        vitals, probes = self._vitals[way], self._probes[way]
        interval = vitals.interval(now)
        if vitals.mark != probes.mark or interval != probes.interval:
            probes.ended, probes.interval, probes.mark = 0, interval, vitals.mark
        left = vitals.probes(now, self._place, self._workers) - len(probes.under_way) - probes.ended
        if left <= 0:
            return frozenset()
        able = [message for message in messages if way[0] in message.channels and message.id not in probes.under_way]
        chosen = sorted(able, key=lambda message: (message.channels[0] is not way[0], -message.priority))[:left]
        probes.under_way.update({message.id: interval for message in chosen})
        return frozenset(message.id for message in chosen)

    # --------------------------------------------------------------------------------------------------------- attempts

    def began(self, way: Way, message: str, now: datetime) -> None:
        """An attempt is under way."""
        self._under_way[way[1]] += 1
        self._calls[way][message] = now

    def _look(self, now: datetime) -> None:
        """Count calls as slow that have taken too long already: a provider that hangs is known before they end.

        Not so while this process itself has slept: then it is not known who did. Where the clock has been set back, all
        that was to last until some instant would last longer by as much: so what is known is found out anew.
        """
        if self._looked and now < self._looked - _SLEPT:
            self._paused.clear()
            self._vitals.clear()
        if self._looked is None or self._awake is None or now - self._looked > _SLEPT:
            self._awake = now
        self._looked = now
        for way, calls in self._calls.items():
            while calls:
                message, began = next(iter(calls.items()))
                if now - max(began, self._awake) <= SLOW:
                    break
                del calls[message]
                self._record(way, Result(began, failed=False, slow=True, open=True), now)

    def ended(self, way: Way, outcome: Outcome, began: datetime, now: datetime, message: str = "") -> None:
        """An attempt came to its end."""
        provider = way[1]
        self._under_way[provider] -= 1
        probes = self._probes.get(way)
        if probes and probes.under_way.pop(message, None) == probes.interval:
            probes.ended += 1
        if outcome.throttled:
            self._throttled(provider, now + (outcome.retry_after or _THROTTLED_FOR))
        known = self._calls[way].pop(message, None) is None
        if result := result_of(outcome, began, now):
            self._record(way, replace(result, counted=known and result.slow), now)

    def _throttled(self, provider: str, until: datetime) -> None:
        known = self._paused.get(provider)
        if known is None or until > known.until:
            self._pauses += 1
            self._paused[provider] = _Pause(until, f"{self._worker}/{self._pauses}")
            self.news()

    def refused(self, way: Way, began: datetime, now: datetime) -> None:
        """A call of an attempt that goes on was not taken: what that says of the provider need not wait for its end."""
        self._record(way, Result(began, failed=True), now)

    def _record(self, way: Way, result: Result, now: datetime) -> None:
        vitals = self._vitals[way]
        before = vitals.mark, vitals.run
        vitals.record(result, now)
        if vitals.mark != before[0] or before[1] == 0 < vitals.run:
            self.news()

    def places(self, channel: Channel, route: Route, now: datetime) -> int:
        """How many attempts may be under way on a channel, so that the provider with the most to do has places.

        What is under way at providers that are left alone, where it may hang, takes no places of the others.
        """
        if not route:
            return _UNROUTED_PLACES
        sound = [name for name in route if self.state((channel, name), now) is State.CLOSED] or list(route)
        elsewhere = sum(min(self._under_way[name], self._concurrency[name]) for name in route if name not in sound)
        shares = {name: share for name in sound if (share := route.resting(name))} if route.weights else {}
        if not shares:
            return self._concurrency[sound[0]] + elsewhere
        places = (int(self._concurrency[name] * sum(shares.values()) / share) for name, share in shares.items())
        return min(places) + elsewhere

    # ------------------------------------------------------------------------------------------------ the other workers

    def told(self, now: datetime) -> dict[str, str]:
        """What to tell the others of each provider, as JSON."""
        ways: dict[str, dict[str, object]] = {name: {} for name in self._concurrency}
        for (channel, name), vitals in self._vitals.items():
            ways[name][str(channel)] = written(vitals.report(now), now)
        return {name: orjson.dumps({"ways": seen, **self._pause(name, now)}).decode() for name, seen in ways.items()}

    def _pause(self, name: str, now: datetime) -> dict[str, object]:
        pause = self._paused.get(name)
        if pause is None or pause.until <= now:
            return {}
        return {"pause": {"left": round((pause.until - now).total_seconds() * 1000), "mark": pause.mark}}

    def knows(self, now: datetime) -> object:
        """Equal as long as there is nothing new to tell."""
        return {way: vitals.report(now) for way, vitals in self._vitals.items()}, self._paused.copy()

    def hear(self, told: Sequence[Told], now: datetime) -> None:
        """What the other workers say, all of them."""
        workers = sorted({self._worker, *(one.worker for one in told)})
        self._place, self._workers = workers.index(self._worker), len(workers)
        reports: defaultdict[Way, list[Report]] = defaultdict(list)
        for one in told:
            if one.provider not in self._concurrency:
                continue
            then, seen = now - timedelta(seconds=one.age), orjson.loads(one.seen)
            if pause := seen.get("pause"):
                self._leave_alone(one.provider, _Pause(then + timedelta(milliseconds=pause["left"]), pause["mark"]))
            for channel in Channel:
                if channel in seen["ways"]:
                    reports[channel, one.provider].append(read(seen["ways"][channel], then))
        for way in {*self._vitals, *reports}:
            self._vitals[way].hear(reports.get(way, ()), now)

    def _leave_alone(self, provider: str, told: _Pause) -> None:
        """Keep what another was told, and tell it on, so that it is known when that worker is gone.

        What goes round is late by every delay on its way: so the same mark is believed once, and what is hardly longer
        not at all.
        """
        known = self._paused.get(provider)
        if known is None or (told.mark != known.mark and told.until - known.until > _ALIKE):
            self._paused[provider] = told

    # ----------------------------------------------------------------------------------------------------------- people

    def state(self, way: Way, now: datetime) -> State:
        """Whether a way is used."""
        vitals = self._vitals.get(way)
        return vitals.state(now) if vitals else State.CLOSED

    def openings(self, way: Way, now: datetime) -> int:
        """How often a way has opened, short of a while in which it did not."""
        vitals = self._vitals.get(way)
        return vitals.report(now).times if vitals else 0

    def vitals(self, way: Way) -> Vitals:
        """All that is known of a way."""
        return self._vitals[way]


class Sharing:
    """Tells the other workers, hears them, and says what has changed."""

    def __init__(
        self,
        store: Store,
        health: ProviderHealth,
        worker: str,
        judge: Callable[[], Judge],
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Take what it needs.

        Args:
            store: where workers tell each other.
            health: what is told, and hears.
            worker: this one's name.
            judge: the one in force at the moment, for its routes.
            metrics: hears how providers fare.
            clock: that by which this worker's attempts are timed.
        """
        self._store = store
        self._health = health
        self._worker = worker
        self._judge = judge
        self._metrics = metrics
        self._now = clock
        self._wake = asyncio.Event()
        self._said: object = None
        self._said_at: datetime | None = None
        self._states: dict[Way, tuple[State, int]] = {}
        """What was last said of each way, and how often it had opened by then."""
        self._pauses: dict[str, datetime] = {}
        """Until when providers are left alone at their vendors' wish, as was last said."""
        self._alone = False
        health.news = self._wake.set

    async def run(self) -> NoReturn:
        """Once a second, and at once when there is news; without a store each worker goes by what it sees itself."""
        while True:
            await self.once(self._now())
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
                    await asyncio.sleep(_AT_MOST)
            self._wake.clear()

    async def once(self, now: datetime) -> None:
        """Tell, hear and say."""
        knows = self._health.knows(now)
        new = knows != self._said or self._said_at is None or now - self._said_at >= _AT_LEAST
        try:
            told = await self._store.share_health(self._worker, self._health.told(now) if new else {}, HEEDED)
        except StoreUnavailable as error:
            if not self._alone:
                log.warning("providers.unshared", reason=str(error))
            self._alone = True
        else:
            self._alone = False
            if new:
                self._said, self._said_at = knows, now
            self._health.hear(told, now)
        self.observe(now)

    def observe(self, now: datetime) -> None:
        """Tell people what has become of each way of the routes."""
        health = self._health.snapshot(now)
        for name, until in health.paused.items():
            if until - max(now, self._pauses.get(name, now)) > _LONG:
                self._pauses[name] = until
                log.warning("provider.paused", provider=name, for_seconds=round((until - now).total_seconds(), 1))
        fares = []
        for channel, route in self._judge().routes.items():
            for name in route:
                way = channel, name
                state, times = self._health.state(way, now), self._health.openings(way, now)
                used = State.OPEN if name in health.paused else state
                fares.append((channel, name, used, weight(channel, route, name, health)))
                was, before = self._states.get(way, (State.CLOSED, 0))
                probed = state is was is State.OPEN and times > before  # and it has failed since the last look
                if probed:
                    self._turned(way, State.HALF_OPEN, now)
                if probed or state is not was:
                    self._turned(way, state, now)
                self._states[way] = state, times
        self._metrics.fared(fares)

    def _turned(self, way: Way, state: State, now: datetime) -> None:
        channel, provider = way
        self._metrics.turned(channel, provider, state)
        vitals = self._health.vitals(way)
        report, evidence = vitals.report(now), vitals.evidence
        by = report.mark.rpartition("/")[0]
        told = {"channel": channel, "provider": provider, "by": by}
        if state is State.CLOSED or report.until is None:
            log.info("provider.closed", **told)
        elif state is State.HALF_OPEN:
            log.info("provider.half_open", **told, times=report.times)
        else:
            seen = {"in_a_row": evidence.run, "calls": evidence.calls, "failed": evidence.failed, "slow": evidence.slow}
            mine = seen if by == self._worker else {}
            left = round((report.until - now).total_seconds(), 1)
            log.warning("provider.opened", **told, **mine, times=report.times, for_seconds=left)


def _nothing() -> None:
    pass
