"""One due message, start to settled: the straight path."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from gateway import decide, killpoints
from gateway.batcher import Batcher
from gateway.ids import new_id
from gateway.intake import utc_now
from gateway.message import AttemptState, Priority, content_of
from gateway.metrics import shadowed
from gateway.outcome import accepted, bug, failed
from gateway.render import tracked
from gateway.store import Claimed, Lost, Settlement, StoreUnavailable
from providers import Dispatch, ProviderError, Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from tenacity import RetryCallState

    from gateway.decide import Judge
    from gateway.health import Way
    from gateway.message import Message
    from gateway.metrics import Metrics
    from gateway.outcome import Outcome
    from gateway.pacing import Pacing
    from gateway.routing import Health
    from gateway.store import Lease, Next, Store
    from gateway.watch import ProviderHealth
    from providers import Provider

log = structlog.get_logger()

_SHORT_PAUSE = timedelta(seconds=1)
"""A vendor that asks for no longer a pause is asked again within the attempt."""


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
        clock: Callable[[], datetime] = utc_now,
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
            clock: what deadlines are held against.
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
        self._now = clock
        self._claim: Batcher[Lease, Next] = Batcher(
            self._claim_all, urgent=_is_urgent, breathe=store.precedence.breathe
        )
        self._settle: Batcher[Settlement, Next] = Batcher(
            self._settle_all,
            urgent=lambda settlement: _is_urgent(settlement.claimed.lease),
            breathe=store.precedence.breathe,
        )
        self._disowned: dict[str, str] = {}
        self._calling: set[asyncio.Task[None]] = set()
        """Those that wait for a provider at this moment."""
        self._cut = False

    async def deliver(self, lease: Lease) -> Next:
        """Take one due message as far as it can go now: an attempt a turn, until it is settled or has to wait."""
        with self._store.precedence.critical() if _is_urgent(lease) else nullcontext():
            step = await self._claim(lease)
        while isinstance(step, Claimed):
            if self._pacing:
                await self._pacing.turn(step.attempt.message, step.step.provider)
            if self._cut:  # nobody is called any more
                self._disowned[step.attempt.id] = lease.message.person
                return Lost()
            outcome = await self._attempt(step)
            step = await self._settle(Settlement(step, outcome))
        return step

    async def _attempt(self, claimed: Claimed) -> Outcome:
        """An attempt at one provider, and what became of it."""
        provider, way = claimed.step.provider, _way(claimed)
        began, started = self._now(), asyncio.get_running_loop().time()
        self._health.began(way, claimed.attempt.message, began)
        try:
            killpoints.reached("provider.before_write")
            once = self._pacing is not None and self._pacing.bounds(provider)  # a turn is for one call
            send = self._call if once else partial(self._send, partial(self._refused, way, began))
            outcome = accepted(await send(self._providers[provider], self._dispatch(claimed)))
            killpoints.reached("provider.answered")
        except ProviderError as error:
            outcome = failed(error)
        except asyncio.CancelledError:
            self._health.ended(way, bug(), began, self._now(), claimed.attempt.message)
            raise
        except Exception:
            log.exception("attempt.bug", message=claimed.attempt.message, provider=provider)
            outcome = bug()
        now = self._now()
        self._health.ended(way, outcome, began, now, claimed.attempt.message)
        self._metrics.attempted(claimed, outcome, asyncio.get_running_loop().time() - started, now)
        return outcome

    def _refused(self, way: Way, began: datetime) -> None:
        self._health.refused(way, began, self._now())

    async def _send(self, refused: Callable[[], None], provider: Provider, dispatch: Dispatch) -> str:
        """Again at once, for seconds, but only what certainly was not sent and before its deadline.

        ``refused`` is called after each call that is not the last: others need not wait for the last to hear of it.
        """
        try:
            return await self._call(provider, dispatch)
        except (Unavailable, Throttled) as error:
            left = (dispatch.deadline - self._now()).total_seconds()
            wait = _pause(error)
            if wait is None or left <= wait:
                raise
            if isinstance(error, Unavailable):
                refused()
        again = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(2) | _Past(min(left, 2), lambda: self._cut),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
            before_sleep=lambda _: refused(),
        )
        await asyncio.sleep(wait)
        return await again(self._call, provider, dispatch)

    async def _call(self, provider: Provider, dispatch: Dispatch) -> str:
        """One call. What is cut off between two of them was certainly not sent."""
        if self._cut:
            raise Unavailable("closed")
        task = asyncio.current_task()
        assert task  # noqa: S101 - a coroutine runs in one
        self._calling.add(task)
        try:
            return await provider.send(dispatch)
        finally:
            self._calling.discard(task)

    def _dispatch(self, claimed: Claimed) -> Dispatch:
        message, step, attempt = claimed.lease.message, claimed.step, claimed.attempt
        known_as = attempt.repeats or attempt.id  # by the vendor, which takes a repeat by its key for the first
        content = content_of(message, step.address.channel)
        if attempt.tracked and self._public_url:
            content = tracked(content, self._public_url, known_as)
        # Where the policy has lost the category since the claim: a link too many harms nobody.
        category = self._judge().policy.categories.get(message.category)
        return Dispatch(
            attempt=known_as,
            message=message.id,
            generation=attempt.generation,
            address=step.address.value,
            content=content,
            deadline=step.deadline,
            valid_until=step.valid_until,
            callback_url=self._callback_url(step.provider, known_as),
            unsubscribe_url=self._unsubscribe_url(known_as)
            if self._unsubscribe_url and (category is None or category.unsubscribe)
            else None,
            locale=message.body.get("locale"),
            platform=step.address.platform,
        )

    def _callback_url(self, provider: str, attempt: str) -> str | None:
        if self._public_url is None:
            return None
        return f"{self._public_url}/callbacks/{provider}?{urlencode({'attempt': attempt})}"

    async def _decided(
        self,
        leases: Sequence[Lease],
        going: Sequence[Message],
        tried: Mapping[str, Collection[str]],
        health: Health,
        decide_all: Callable[[Judge], Awaitable[list[Next]]],
    ) -> list[Next]:
        """Have a batch decided by what is in force and known now, pace included.

        Args:
            leases: of the batch.
            going: those of its messages that may come to go to a provider.
            tried: by message, the providers that it will not go to again.
            health: how the providers fare.
            decide_all: asks the store.
        """
        judge = replace(self._judge(), health=health)
        if not self._pacing:
            return await decide_all(judge)
        booked = await self._pacing.book(going, judge.routes, health, tried)
        answers: list[Next] = []
        try:
            answers = await decide_all(replace(judge, health=replace(health, paced=booked.waits)))
        finally:
            chosen = {answer.attempt.message: answer.step.provider for answer in answers if isinstance(answer, Claimed)}
            given = zip(leases, answers, strict=False)  # none, where the store does not answer
            waiting = {lease.message.id: at for lease, answer in given if (at := _lacking(answer))}
            self._pacing.decided(booked, chosen, waiting)
        return answers

    async def _claim_all(self, leases: Sequence[Lease]) -> list[Next]:
        ids = [new_id() for _ in leases]
        messages = [lease.message for lease in leases]
        health = self._health.snapshot(self._now(), messages)
        answers: list[Next] = []
        try:
            answers = await self._decided(
                leases, messages, {}, health, lambda judge: self._store.claim(leases, judge, ids)
            )
        except StoreUnavailable:
            self._disowned |= {id_: lease.message.person for id_, lease in zip(ids, leases, strict=True)}
            raise
        finally:
            going = {(_way(step), step.attempt.message) for step in answers if isinstance(step, Claimed)}
            self._health.spare(health.probes, going)
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
            stop=stop_after_attempt(_REPEATED) | _Past(_REMEMBERED),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            reraise=True,
        ):
            with turn:
                health = self._health.snapshot(self._now())
                answers = await self._decided(
                    leases, messages, tried, health, lambda judge: self._store.settle(settlements, judge)
                )
        for settlement in settlements:
            _say_attempt(settlement)
        self._say(leases, answers, [shadowed(settlement.claimed) for settlement in settlements])
        return answers

    def cut(self) -> int:
        """Give up the calls under way, whose outcomes stay unknown, and begin no more; how many there were.

        What has an answer is still settled.
        """
        self._cut = True
        given_up = tuple(self._calling)
        for task in given_up:
            task.cancel()
        return len(given_up)

    async def disown(self) -> None:
        """Settle intents for which nobody was called, as where their commit failed towards us."""
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
                case decide.Deferred(repeated=False):
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


def _is_urgent(lease: Lease) -> bool:
    return lease.message.priority is Priority.CRITICAL


def _way(claimed: Claimed) -> Way:
    return claimed.step.address.channel, claimed.step.provider


def _lacking(answer: Next) -> str | None:
    """The provider whose turn a message waits for."""
    return answer.provider if isinstance(answer, decide.Deferred) else None


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
_REPEATED = 1000
"""Times that such a store is asked; as many as fit into those seconds, and a bound should the clock stand."""


class _Past(stop_base):
    """Stops where the next try would come later than that, by the event loop's clock, as all waits are.

    And where tries have been ``cut`` off meanwhile.
    """

    def __init__(self, seconds: float, cut: Callable[[], bool] | None = None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + seconds
        self._cut = cut

    def __call__(self, retry_state: RetryCallState) -> bool:
        return bool(self._cut and self._cut()) or self._clock() + retry_state.upcoming_sleep >= self._until


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
            **({"detail": outcome.detail} if outcome.detail else {}),
        )
