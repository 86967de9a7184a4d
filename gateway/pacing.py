"""What this process holds of the providers' paces: turns booked in the store, and which message takes which."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil, inf
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from gateway.config import Route
from gateway.intake import utc_now
from gateway.message import Priority, content_of
from gateway.pace import AHEAD, Ask
from gateway.routing import Wait, eligible
from gateway.store import StoreUnavailable
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.pace import Grant
    from gateway.routing import Health
    from gateway.store import Store
    from gateway.watch import ProviderHealth
    from providers import Content, Pace, Settings

_TICK = 0.1
"""Seconds between two looks at whether turns are wanted ahead."""
_STALE = 0.25
"""Seconds past its instant after which a turn is nobody's any more, so that what was not used is not saved up."""
_ANSWER = 1.0
"""Seconds that the store is given to book a turn; without an answer there is none."""
_BUSY = 0.01
"""Seconds after which turns are asked for again where another worker was booking."""
_TRIES = 4
_UNHEARD = 10
"""Without an answer a critical message goes all the same, one in so many turns of the pace: the reserve."""
_SOON = 0.2
"""Seconds after which a message that found no turn is looked at again, at the earliest."""
_SMOOTHING = 4
_REMEMBERED = 10_000
"""Messages that found no turn, kept in mind: when they come back the store is asked for the one they waited for.

Where there are more, those that were there first stay: one that is forgotten before it comes back waits for nothing."""
_OVERDUE = 30.0
"""Seconds after its time at which a message that has not come back has ended, or is with another worker."""
_MICRO = 1e-6


@dataclass(slots=True)
class _Book:
    """One provider's pace, as this process knows it. Instants are seconds of ``Pacing``'s clock."""

    pace: Pace
    units: Callable[[Content], int]
    turns: list[float] = field(default_factory=list)
    """Booked ahead and not taken, in order; each is worth ``size`` units."""
    size: int = 1
    mean: float = 1.0
    """Units of a message, lately."""
    credit: int = 0
    """Units that were booked and not used: the next turns cost less by them."""
    waiting: dict[Channel, int] = field(default_factory=dict)
    """By channel, messages that wait and could be taken up at once, where any is known to."""
    later: float = 0.0
    """Up to when instants have been given to messages that found no turn."""
    reserve_at: float = 0.0
    """When a critical message may go again without an answer of the store."""
    workers: int = 1

    @property
    def demand(self) -> int:
        """Messages that are known to wait and could be taken up at once."""
        return sum(self.waiting.values())

    def fresh(self, now: float) -> list[float]:
        """The turns that can still be taken."""
        while self.turns and self.turns[0] < now - _STALE:
            del self.turns[0]
        return self.turns

    def take(self, units: int, now: float) -> list[float]:
        """As many of the turns as a message needs; none, where there are too few."""
        self._heard(units)
        needed = ceil(units / self.size)
        if len(self.fresh(now)) < needed:
            return []
        taken, self.turns = self.turns[:needed], self.turns[needed:]
        return taken

    def used(self, turn: _Turn) -> None:
        """What a message has left of its turns makes the next ones cheaper."""
        self.credit = min(self.credit + len(turn.ahead) * turn.size - turn.units, turn.size)

    def give_back(self, turn: _Turn) -> None:
        """Keep for others what a message does not use."""
        if turn.size == self.size:
            for at in turn.ahead or [turn.at] * (turn.units // self.size):
                insort(self.turns, at)

    def wanted(self, now: float) -> tuple[int, ...]:
        """The turns to be booked ahead, in units."""
        if not self.turns:
            self.size = ceil(self.mean)
        most = ceil(AHEAD / self.pace.span(self.size)) - len(self.fresh(now))
        units = [self.size] * min(max(most, 0), self.demand)
        for place, full in enumerate(units):
            units[place] = max(full - self.credit, 1)
            self.credit -= full - units[place]
        return tuple(units)

    def _heard(self, units: int) -> None:
        self.mean += (units - self.mean) / _SMOOTHING


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a message holds for one provider."""

    at: float
    units: int
    ahead: tuple[float, ...] = ()
    """The turns that it is made of; empty for one that was booked for this message."""
    size: int = 1
    """What each of them was worth."""


@dataclass(slots=True)
class Booked:
    """Which messages of a batch have a turn, and when the others should be looked at again."""

    turns: dict[tuple[str, str], _Turn] = field(default_factory=dict)
    """By message and provider."""
    lacking: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """By provider and message: when to come back."""

    waits: dict[str, dict[str, timedelta]] = field(default_factory=dict)
    """The same as a decision sees it: how long from now, so that clocks need not agree."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """A message for which the store has to be asked."""

    message: Message
    provider: str
    units: int


class _Waited(NamedTuple):
    """A message that found no turn."""

    provider: str
    """At which it waits for one."""
    until: float
    """When it asks again."""


class Pacing:
    """Turns for messages, and how many more may be leased."""

    def __init__(
        self,
        store: Store,
        settings: Mapping[str, Settings],
        worker: str,
        metrics: Metrics,
        *,
        content: Callable[[Message, Channel], Content] = content_of,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Take what it needs.

        Args:
            store: keeps the calendars that all workers book in.
            settings: of every provider; those without a pace are none of our business.
            worker: who we are among the workers.
            metrics: hears of every unit.
            content: what is sent of a message on a channel, as far as it can be counted.
            now: by which providers are judged.
            clock: seconds, from anywhere.
            sleep: waits for seconds of that clock.
        """
        self._store = store
        self._worker = worker
        self._metrics = metrics
        self._content = content
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._books = {name: _Book(s.pace, s.units) for name, s in settings.items() if s.pace}
        self._held: dict[str, tuple[str, _Turn]] = {}
        self._coming: dict[str, Channel] = {}
        self._waited: dict[str, _Waited] = {}
        self._forgot = -inf
        self._asked = asyncio.Event()
        for name, book in self._books.items():
            metrics.paced(name, book.pace.per_second)

    # ------------------------------------------------------------------------------------------- what the worker asks

    def room(self, channel: Channel, route: Sequence[str], health: ProviderHealth) -> int | None:
        """How many more that are not critical may be leased for a channel now; None: the pace does not say.

        Where none is known to wait, one may be leased without a turn: so it is learnt that some do.
        """
        if self._books.keys().isdisjoint(route):
            return None
        known = health.snapshot(self._now())
        free = [name for name in route if name not in known.paused]
        ready = [name for name in free if (channel, name) not in known.failing] or free
        if not ready or any(name not in self._books for name in ready):
            return None
        now = self._clock()
        books = [self._books[name] for name in ready]
        turns = sum(len(book.fresh(now)) for book in books)
        probes = int(not any(book.demand for book in books))
        return max((turns or probes) - sum(of is channel for of in self._coming.values()), 0)

    def bounds(self, provider: str) -> bool:
        """Whether the provider has a pace."""
        return provider in self._books

    def coming(self, message: Message) -> None:
        """A message has been leased, and will ask for its turn."""
        if self._books and message.priority is not Priority.CRITICAL:
            self._coming[message.id] = message.channels[0]

    def gone(self, message: Message) -> None:
        """A leased message has come to its end, whether or not it ever asked for its turn."""
        self._coming.pop(message.id, None)

    def backlog(self, channel: Channel, route: Sequence[str], waiting: int) -> None:
        """So many messages could be leased for a channel if its route had turns."""
        for name, book in self._books.items():
            book.waiting[channel] = waiting if name in route else 0
        if waiting:
            self._asked.set()

    async def run(self, gained: Callable[[], None]) -> NoReturn:
        """Book turns ahead while messages wait; ``gained`` is called when there are some."""
        while True:
            self._asked.clear()
            if not any(book.demand for book in self._books.values()):
                await self._asked.wait()
            if await self.ahead():
                gained()
            await self._sleep(_TICK)

    async def ahead(self) -> bool:
        """Book the turns that are wanted ahead; whether there are more now than before."""
        now = self._clock()
        wanted = {name: book.wanted(now) for name, book in self._books.items() if book.demand}
        asks = [
            Ask(name, self._books[name].pace, ahead=units, demand=self._books[name].demand)
            for name, units in wanted.items()
            if units
        ]
        granted = await self._ask(asks)
        for name, given in granted.items():
            book = self._books[name]
            book.turns.extend(self._here(at, given) for at in given.ahead)
            book.turns.sort()
        return any(given.ahead for given in granted.values())

    # ------------------------------------------------------------------------------------------- what a batch asks

    async def book(
        self,
        messages: Sequence[Message],
        routes: Mapping[Channel, Route],
        health: Health,
        tried: Mapping[str, Collection[str]],
    ) -> Booked:
        """Find a turn for each message at each provider that may take it, before it is decided which does.

        Args:
            messages: about to be decided.
            routes: in force.
            health: what the decision will know of the providers.
            tried: by message, the providers that it will not go to again.
        """
        booked = Booked()
        if not self._books:
            return booked
        for message in messages:
            self._coming.pop(message.id, None)
        wishes: list[_Wish] = []
        wished: set[tuple[str, str]] = set()
        instant = self._now()
        for message in sorted({one.id: one for one in messages}.values(), key=lambda one: one.priority):
            waited = self._waited.get(message.id)
            for place, channel in enumerate(message.channels):
                route = routes.get(channel, Route())
                usable = [name for name in route if name not in tried.get(message.id, ())]
                if self._books.keys().isdisjoint(usable):
                    continue
                content = self._content(message, channel)
                first = _in_turn(channel, route, usable, health, message, instant)[:1]
                # A device's token may belong to any of them.
                for names in [[name] for name in usable] if channel is Channel.PUSH else [usable]:
                    way = _in_turn(channel, route, names, health, message, instant)
                    # Most never come to their later channels: what is booked there would mostly be for nothing.
                    likely = (place == 0 and way[:1] == first) or waited is not None
                    asked = self._lacking(message, way, names, content, booked)
                    # What may have been sent can go to one provider only, whichever would be the first for others.
                    if waited and waited.provider in names and message.id in booked.lacking.get(waited.provider, ()):
                        wish = waited.provider
                    elif asked and likely:
                        wish = way[0]
                    else:
                        continue
                    if (message.id, wish) not in wished:
                        wished.add((message.id, wish))
                        wishes.append(_Wish(message, wish, self._books[wish].units(content)))
        await self._fulfil(wishes, booked)
        now = self._clock()
        for name, waits in booked.lacking.items():
            booked.waits[name] = {message: timedelta(seconds=max(at - now, _SOON)) for message, at in waits.items()}
        return booked

    def _lacking(
        self, message: Message, way: Sequence[str], usable: Sequence[str], content: Content, booked: Booked
    ) -> bool:
        """Take a turn that is here, for the first provider of a way that has any; whether the store must be asked.

        Those usable that it has no turn at are noted, for one that is paused now may be free when it is decided; a
        provider without a pace needs none.
        """
        asked = False
        for place, name in enumerate(way):
            if (book := self._books.get(name)) is None:
                break
            if (message.id, name) in booked.turns:
                asked = False
                break
            needed = book.units(content)
            if message.priority is not Priority.CRITICAL and (taken := book.take(needed, self._clock())):
                booked.turns[message.id, name] = _Turn(taken[0], needed, tuple(taken), book.size)
                asked = False
                break
            asked = asked or not place
        for name in usable:
            self._lacks(message, name, booked)
        return asked

    async def _fulfil(self, wishes: Sequence[_Wish], booked: Booked) -> None:
        """Ask the store for what is wished for, once for all of them."""
        of: dict[str, tuple[list[_Wish], list[_Wish]]] = defaultdict(lambda: ([], []))
        for wish in wishes:
            of[wish.provider][wish.message.priority is not Priority.CRITICAL].append(wish)
        granted = await self._ask(
            [
                Ask(
                    name,
                    self._books[name].pace,
                    critical=tuple(wish.units for wish in critical),
                    ordinary=tuple(wish.units for wish in ordinary),
                )
                for name, (critical, ordinary) in of.items()
            ]
        )
        for name, (critical, ordinary) in of.items():
            if given := granted.get(name):
                instants = (*given.critical, *given.ordinary)
                answers = [None if at is None else self._here(at, given) for at in instants]
            else:
                answers = [*(self._reserved(wish) for wish in critical), *(None for _ in ordinary)]
            for wish, at in zip((*critical, *ordinary), answers, strict=True):
                if at is not None:
                    booked.turns[wish.message.id, name] = _Turn(at, wish.units, size=self._books[name].size)
                    booked.lacking[name].pop(wish.message.id)

    def _reserved(self, wish: _Wish) -> float | None:
        """The turn of a critical message for which the store did not answer."""
        book, now = self._books[wish.provider], self._clock()
        if book.reserve_at > now:
            return None
        book.reserve_at = now + _UNHEARD * book.pace.span(wish.units) * _MICRO
        return now

    def _lacks(self, message: Message, name: str, booked: Booked) -> None:
        """A message has no turn at a provider: say when one may be free, behind those that were told so before."""
        if (book := self._books.get(name)) is None or (message.id, name) in booked.turns:
            return
        waits = booked.lacking[name]
        first = max(book.later, self._clock() + _SOON)
        waits[message.id] = first + len(waits) * book.workers * book.pace.span(1) * _MICRO

    async def _ask(self, asks: Sequence[Ask]) -> Mapping[str, Grant]:
        """Book at the store; nothing is booked where it does not answer."""
        left = {ask.provider: ask for ask in asks}
        granted: dict[str, Grant] = {}
        try:
            async with asyncio.timeout(_ANSWER):
                for turn in range(_TRIES):
                    if not left:
                        break
                    if turn:
                        await self._sleep(_BUSY)
                    granted |= await self._store.take_turns(self._worker, list(left.values()))
                    left = {name: ask for name, ask in left.items() if name not in granted}
        except (StoreUnavailable, TimeoutError):
            pass
        for name, given in granted.items():
            self._books[name].workers = max(given.workers, 1)
        return granted

    def _here(self, at: int, given: Grant) -> float:
        """An instant of the store, by our clock."""
        return self._clock() + (at - given.now) * _MICRO

    # ------------------------------------------------------------------------------------------- what became of it

    def decided(self, booked: Booked, chosen: Mapping[str, str], waiting: Mapping[str, str] | None = None) -> None:
        """Keep the turns that messages will use, and give back the others.

        Args:
            booked: for the batch.
            chosen: by message, the provider that it goes to.
            waiting: by message, the provider whose turn it waits for.
        """
        waiting = waiting or {}
        for (message, name), turn in booked.turns.items():
            if chosen.get(message) == name:
                self._held[message] = (name, turn)
            else:
                self._books[name].give_back(turn)
        for name, waits in booked.lacking.items():
            told = [waits[message] for message in waiting if message in waits]
            self._books[name].later = max([self._books[name].later, *told])
        for message in chosen:
            self._waited.pop(message, None)
        now = self._clock()
        for message, name in waiting.items():
            if message in self._waited or self._has_room(now):
                self._waited[message] = _Waited(name, booked.lacking[name].get(message, now))

    def _has_room(self, now: float) -> bool:
        """Whether another message can be kept in mind; looks once a second at most for some that need not."""
        if len(self._waited) >= _REMEMBERED and now >= self._forgot + 1:
            self._forgot = now
            self._waited = {id_: waited for id_, waited in self._waited.items() if waited.until >= now - _OVERDUE}
        return len(self._waited) < _REMEMBERED

    async def turn(self, message: str, provider: str) -> None:
        """Wait for the turn of a message at the provider that was chosen for it."""
        name, turn = self._held.pop(message, (provider, None))
        if turn is None or name != provider:
            return
        if (wait := turn.at - self._clock()) > 0:
            await self._sleep(wait)
        if turn.ahead:
            self._books[provider].used(turn)
        self._metrics.pace_used.labels(provider).inc(turn.units)


def _in_turn(
    channel: Channel, route: Route, usable: Sequence[str], health: Health, message: Message, now: datetime
) -> Sequence[str]:
    """The providers that the decision will ask whether they have a turn, in the same order."""
    critical = message.priority is Priority.CRITICAL
    names = eligible(channel, route, usable, health, message.id, critical=critical, now=now)
    return () if isinstance(names, Wait) else names
