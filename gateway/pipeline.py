"""One due message, start to settled: the straight path."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    wait_random_exponential,
)

from gateway import decide
from gateway.batcher import Batcher
from gateway.ids import new_id
from gateway.intake import utc_now
from gateway.message import AttemptState, content_of
from gateway.metrics import shadowed
from gateway.outcome import accepted, bug, failed
from gateway.store import Claimed, Settlement, StoreUnavailable
from providers import Dispatch, ProviderError, Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from gateway.decide import Judge
    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.outcome import Outcome
    from gateway.pacing import Pacing
    from gateway.store import Lease, Next, Store
    from providers import Provider

log = structlog.get_logger()

_FAILING_FOR = timedelta(seconds=30)
_SHORT_PAUSE = timedelta(seconds=1)
"""A vendor that asks for no longer a pause is asked again within the attempt."""
_UNROUTED_PLACES = 16
"""Messages at once whose first channel has no route any more; they need only a decision."""
_FAILURES = 3
"""In a row, after which a provider is tried last."""
_THROTTLED_FOR = timedelta(seconds=30)
"""How long a vendor that says to slow down, but not for how long, is left alone."""


class ProviderHealth:
    """What this process has seen of its providers lately."""

    def __init__(self, concurrency: Mapping[str, int]) -> None:
        self._concurrency = concurrency
        self._failures = dict.fromkeys(concurrency, 0)
        self._failing: dict[str, datetime] = {}
        self._paused: dict[str, datetime] = {}
        self._under_way = dict.fromkeys(concurrency, 0)

    def snapshot(self, now: datetime) -> decide.Health:
        """As a decision sees it."""
        self._failing = {name: until for name, until in self._failing.items() if until > now}
        self._paused = {name: until for name, until in self._paused.items() if until > now}
        return decide.Health(
            failing=frozenset(self._failing),
            paused=dict(self._paused),
            full=[name for name, count in self._under_way.items() if count >= self._concurrency[name]],
        )

    def began(self, provider: str) -> None:
        """An attempt is under way."""
        self._under_way[provider] += 1

    def ended(self, provider: str, outcome: Outcome, now: datetime) -> None:
        """An attempt came to its end."""
        self._under_way[provider] -= 1
        if outcome.throttled:
            self._paused[provider] = now + (outcome.retry_after or _THROTTLED_FOR)
        if not outcome.failing:
            self._failures[provider] = 0
            return
        self._failures[provider] += 1
        if self._failures[provider] >= _FAILURES:
            self._failing[provider] = now + _FAILING_FOR

    def places(self, route: Sequence[str]) -> int:
        """How many attempts may be under way at the provider of a route that is tried first."""
        if not route:
            return _UNROUTED_PLACES
        return self._concurrency[next((name for name in route if name not in self._failing), route[0])]


class Pipeline:
    """Takes due messages as far as they can go now."""

    def __init__(
        self,
        store: Store,
        judge: Callable[[], Judge],
        providers: Mapping[str, Provider],
        health: ProviderHealth,
        metrics: Metrics,
        public_url: str | None,
        unsubscribe_url: Callable[[str], str] | None,
        recorded: Callable[[], None],
        pacing: Pacing | None = None,
    ) -> None:
        """Take what it needs.

        Args:
            store: every step is committed to it.
            judge: the one in force at the moment.
            providers: by name, all that a route may ever lead to.
            health: hears how they fare.
            metrics: hears of decisions and attempts.
            public_url: how vendors reach the public listener; None where there is none.
            unsubscribe_url: makes a message's one-click link; None where there is no public listener.
            recorded: is called when outcomes, and so perhaps events, have been committed.
            pacing: hands out turns at the providers that have a pace. None: none has.
        """
        self._store = store
        self._judge = judge
        self._providers = providers
        self._health = health
        self._metrics = metrics
        self._public_url = public_url
        self._unsubscribe_url = unsubscribe_url
        self._recorded = recorded
        self._pacing = pacing
        self._claim: Batcher[Lease, Next] = Batcher(self._claim_all)
        self._settle: Batcher[Settlement, Next] = Batcher(self._settle_all)
        self._disowned: dict[str, str] = {}

    async def deliver(self, lease: Lease) -> None:
        """Take one due message as far as it can go now: an attempt a turn, until it is settled or has to wait."""
        step = await self._claim(lease)
        while isinstance(step, Claimed):
            outcome = await self._attempt(step)
            step = await self._settle(Settlement(step, outcome))

    async def _attempt(self, claimed: Claimed) -> Outcome:
        """One call of one provider, and what became of it."""
        provider = claimed.step.provider
        if self._pacing:
            await self._pacing.turn(claimed.attempt.message, provider)
        self._health.began(provider)
        started = monotonic()
        try:
            outcome = accepted(await self._send(self._providers[provider], self._dispatch(claimed)))
        except ProviderError as error:
            outcome = failed(error)
        except asyncio.CancelledError:
            self._health.ended(provider, bug(), utc_now())
            raise
        except Exception:
            log.exception("attempt.bug", message=claimed.attempt.message, provider=provider)
            outcome = bug()
        now = utc_now()
        self._health.ended(provider, outcome, now)
        self._metrics.attempted(claimed, outcome, monotonic() - started, now)
        return outcome

    async def _send(self, provider: Provider, dispatch: Dispatch) -> str:
        """Again at once, for seconds, but only what certainly was not sent and before its deadline."""
        try:
            return await provider.send(dispatch)
        except (Unavailable, Throttled) as error:
            left = (dispatch.deadline - utc_now()).total_seconds()
            wait = _pause(error)
            if wait is None or left <= wait:
                raise
        again = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(2) | stop_before_delay(min(left, 2)),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        await asyncio.sleep(wait)
        return await again(provider.send, dispatch)

    def _dispatch(self, claimed: Claimed) -> Dispatch:
        message, step, attempt = claimed.lease.message, claimed.step, claimed.attempt
        # Where the policy has lost the category since the claim: a link too many harms nobody.
        category = self._judge().policy.categories.get(message.category)
        return Dispatch(
            attempt=attempt.id,
            message=message.id,
            address=step.address.value,
            content=content_of(message, step.address.channel),
            deadline=step.deadline,
            valid_until=step.valid_until,
            callback_url=self._callback_url(step.provider, attempt.id),
            unsubscribe_url=self._unsubscribe_url(attempt.id)
            if self._unsubscribe_url and (category is None or category.unsubscribe)
            else None,
            locale=message.body.get("locale"),
            platform=step.address.platform,
        )

    def _callback_url(self, provider: str, attempt: str) -> str | None:
        if self._public_url is None:
            return None
        return f"{self._public_url}/callbacks/{provider}?{urlencode({'attempt': attempt})}"

    def _judge_at(self, now: datetime) -> Judge:
        return replace(self._judge(), health=self._health.snapshot(now))

    async def _decided(
        self,
        leases: Sequence[Lease],
        going: Sequence[Message],
        tried: Mapping[str, Collection[str]],
        decide_all: Callable[[Judge], Awaitable[list[Next]]],
    ) -> list[Next]:
        """Have a batch decided by what is in force and known now, pace included.

        Args:
            leases: of the batch.
            going: those of its messages that may come to go to a provider.
            tried: by message, the providers that it will not go to again.
            decide_all: asks the store.
        """
        judge = self._judge_at(utc_now())
        if not self._pacing:
            return await decide_all(judge)
        booked = await self._pacing.book(going, judge.routes, judge.health, tried)
        answers: list[Next] = []
        try:
            answers = await decide_all(replace(judge, health=replace(judge.health, paced=booked.waits)))
        finally:
            chosen = {answer.attempt.message: answer.step.provider for answer in answers if isinstance(answer, Claimed)}
            given = zip(leases, answers, strict=False)  # none, where the store does not answer
            waiting = [lease.message.id for lease, answer in given if _awaits_turn(answer)]
            self._pacing.decided(booked, chosen, waiting)
        return answers

    async def _claim_all(self, leases: Sequence[Lease]) -> list[Next]:
        ids = [new_id() for _ in leases]
        try:
            messages = [lease.message for lease in leases]
            answers = await self._decided(leases, messages, {}, lambda judge: self._store.claim(leases, judge, ids))
        except StoreUnavailable:
            self._disowned |= {id_: lease.message.person for id_, lease in zip(ids, leases, strict=True)}
            raise
        self._say(leases, answers, [[]] * len(leases))
        return answers

    async def _settle_all(self, settlements: Sequence[Settlement]) -> list[Next]:
        """Record what became of attempts; again until the store takes it, for only this process knows."""
        leases = [settlement.claimed.lease for settlement in settlements]
        going = {
            settlement.claimed.lease.message.id: settlement
            for settlement in settlements
            if settlement.outcome.state not in (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
        }
        messages = [settlement.claimed.lease.message for settlement in going.values()]
        tried = {id_: {*one.claimed.tried, one.claimed.step.provider} for id_, one in going.items()}
        async for turn in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(_REMEMBERED),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            reraise=True,
        ):
            with turn:
                answers = await self._decided(
                    leases, messages, tried, lambda judge: self._store.settle(settlements, judge)
                )
        for settlement in settlements:
            _say_attempt(settlement)
        self._say(leases, answers, [shadowed(settlement.claimed) for settlement in settlements])
        return answers

    async def disown(self) -> None:
        """Settle intents whose commit failed towards us: nobody was called for them."""
        if not self._disowned:
            return
        disowned, self._disowned = self._disowned, {}
        try:
            await self._store.disown(disowned)
        except StoreUnavailable:
            self._disowned |= disowned
            raise

    def _say(self, leases: Sequence[Lease], answers: Sequence[Next], overruled: Sequence[list[str]]) -> None:
        """``overruled``: for each, the rules in shadow that objected to the attempt before."""
        self._recorded()
        for lease, answer, before in zip(leases, answers, overruled, strict=True):
            self._metrics.decided(lease.message, answer)
            match answer:
                case decide.Deferred():
                    log.info(
                        "message.deferred",
                        message=lease.message.id,
                        category=lease.message.category,
                        rule=answer.rule,
                        until=answer.until.isoformat(),
                        **_shadow(shadowed(answer)),
                    )
                case decide.Ended():
                    log.info(
                        "message.ended",
                        message=lease.message.id,
                        category=lease.message.category,
                        state=answer.state,
                        reason=answer.reason,
                        **_shadow(before),
                    )
                case _:
                    pass


def _awaits_turn(answer: Next) -> bool:
    return isinstance(answer, decide.Deferred) and answer.rule == decide.PACE


def _shadow(rules: list[str]) -> dict[str, list[str]]:
    return {"shadow": rules} if rules else {}


def _pause(error: Unavailable | Throttled) -> float | None:
    """Seconds before the same provider is asked again at once; None: not at once."""
    if isinstance(error, Unavailable):
        return 0
    short = error.retry_after is not None and error.retry_after <= _SHORT_PAUSE
    return error.retry_after.total_seconds() if short and error.retry_after else None


_REMEMBERED = 600.0
"""Seconds that an outcome is kept for a store that does not answer."""


def _say_attempt(settlement: Settlement) -> None:
    attempt, outcome = settlement.claimed.attempt, settlement.outcome
    if outcome.error:
        log.warning(
            "attempt.failed",
            message=attempt.message,
            attempt=attempt.id,
            channel=attempt.channel,
            provider=attempt.provider,
            state=outcome.state,
            error=outcome.error,
        )
