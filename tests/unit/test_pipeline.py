"""Does a due message come to its end, whatever its providers and the store do meanwhile?"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from structlog.testing import capture_logs

from gateway.config import parse
from gateway.decide import Deferred, Judge
from gateway.ids import new_id
from gateway.lines import line_of
from gateway.message import AttemptState, Message, MessageState, Priority, canonical_hash, content_of
from gateway.metrics import Metrics
from gateway.outcome import failed
from gateway.pacing import Pacing
from gateway.pipeline import Batcher, Pipeline
from gateway.render import tracked
from gateway.store import Claimed, NewMessage, Settlement, Store, StoreUnavailable, engine_of
from gateway.unknown import Recourse
from gateway.watch import ProviderHealth
from providers import (
    Channel,
    Dispatch,
    Misconfigured,
    ProviderError,
    Receipt,
    ReceiptStatus,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.store import Lease, MessageView
    from gateway.store.engine import Engine, Operation

SECOND = timedelta(seconds=1)

# ---------------------------------------------------------------------------------------------------------- the batcher


class Steps:
    """A store step that is finished when it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.under_way = self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, items: Sequence[int]) -> list[str]:
        self.asked.append(list(items))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go.wait()
        await asyncio.sleep(0)
        self.under_way -= 1
        if any(item < 0 for item in items):
            raise StoreUnavailable("away")
        return [f"answer {item}" for item in items]


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_call_that_comes_alone_goes_at_once() -> None:
    steps = Steps()
    batched = Batcher(steps)
    for number in range(3):
        waiting = batched(number)
        await turns()
        assert waiting.done()
    assert steps.asked == [[0], [1], [2]]


async def test_concurrent_calls_share_a_batch_and_each_hears_its_own_answer() -> None:
    steps = Steps()
    batched = Batcher(steps)
    answers = await asyncio.gather(*(batched(number) for number in range(50)))
    assert answers == [f"answer {number}" for number in range(50)]
    assert steps.asked == [list(range(50))]


async def test_what_comes_while_a_step_is_under_way_is_gathered_in_its_order() -> None:
    steps = Steps()
    steps.go.clear()
    batched = Batcher(steps, lanes=1)
    first = batched(0)
    await turns()
    rest = [batched(number) for number in range(1, 10)]
    await turns()
    assert steps.asked == [[0]]
    steps.go.set()
    assert await asyncio.gather(first, *rest) == [f"answer {number}" for number in range(10)]
    assert steps.asked == [[0], list(range(1, 10))]


async def test_batches_and_lanes_are_bounded() -> None:
    steps = Steps()
    steps.go.clear()
    batched = Batcher(steps, most=4, lanes=3)
    waiting = [batched(number) for number in range(40)]
    await turns()
    assert steps.under_way == 3
    steps.go.set()
    await asyncio.gather(*waiting)
    assert steps.most == 3
    assert [len(batch) for batch in steps.asked] == [4] * 10
    assert [item for batch in steps.asked for item in batch] == list(range(40))


async def test_an_urgent_call_never_waits_for_a_lane_that_others_fill() -> None:
    steps = Steps()
    steps.go.clear()
    batched = Batcher(steps, most=4, lanes=2, urgent=lambda number: number >= 100)
    waiting = [batched(number) for number in range(40)]
    await turns()
    waiting += [batched(number) for number in (100, 101)]
    await turns()
    assert steps.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [100, 101]]
    steps.go.set()
    assert await asyncio.gather(*waiting) == [f"answer {number}" for number in (*range(40), 100, 101)]


async def test_a_failure_reaches_exactly_the_callers_of_its_batch() -> None:
    steps = Steps()
    batched = Batcher(steps, most=2, lanes=1)
    calls = [batched(number) for number in (1, 2, -3, 4, 5, 6)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, StoreUnavailable) for answer in answers] == [False, False, True, True, False, False]


async def test_a_step_that_answers_too_little_fails_all_rather_than_mix_up_answers() -> None:
    async def short(items: Sequence[int]) -> list[int]:
        return list(items)[:-1]

    batched = Batcher(short)
    answers = await asyncio.gather(batched(1), batched(2), return_exceptions=True)
    assert isinstance(answers[1], ValueError)
    assert await asyncio.gather(batched(7), return_exceptions=True) != [7]


@pytest.mark.parametrize("when", ["before its batch starts", "while its batch is under way"])
async def test_a_caller_that_goes_away_harms_nobody(when: str) -> None:
    steps = Steps()
    steps.go.clear()
    batched = Batcher(steps, lanes=1)

    async def call(number: int) -> str:
        return await batched(number)

    callers = [asyncio.create_task(call(number)) for number in range(3)]
    await asyncio.sleep(0)
    if when == "while its batch is under way":
        await turns()
        assert steps.under_way == 1
    callers[1].cancel()
    steps.go.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert answers[0] == "answer 0"
    assert isinstance(answers[1], asyncio.CancelledError)
    assert answers[2] == "answer 2"
    assert await batched(9) == "answer 9"


# ---------------------------------------------------------------------------------------------------- the straight path

CONFIG = """
providers: {one: {kind: inbox}, two: {kind: inbox}}
routes: {sms: [one, two], email: [one], push: [one], robocall: [one]}
policy:
  timezone: UTC
  categories:
    news: {}
    receipt: {on_unknown: repeat, unsubscribe: false}
  caps:
    - {name: daily, limit: 1, per: 24h}
"""


MICROSECOND = timedelta(microseconds=1)


class Vendor:
    """A provider that answers as it is told: a reference, or whatever it is to raise; the last answer goes on."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)
    dedupe_window: timedelta | None = None

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers) or ["ref"]
        self.taken: list[Dispatch] = []
        self.called = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, dispatch: Dispatch) -> str:
        self.taken.append(dispatch)
        self.called.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Hanging(Vendor):
    """It never answers."""

    async def send(self, dispatch: Dispatch) -> str:
        await super().send(dispatch)
        await asyncio.Event().wait()
        raise AssertionError


class Shaky:
    """A database that goes away for a number of transactions, before or after it has committed them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.precedence = engine.precedence
        self.away = 0
        self.commits = False
        self.asked = 0

    async def open(self) -> None:
        await self._engine.open()

    async def close(self) -> None:
        await self._engine.close()

    async def write(self, operation: Callable[[], Operation[Any]], *, urgent: bool = False) -> Any:
        self.asked += 1
        if self.away > 0:
            self.away -= 1
            if self.commits:
                await self._engine.write(operation)
            raise StoreUnavailable("away for a moment")
        return await self._engine.write(operation)

    async def read(self, operation: Callable[[], Operation[Any]]) -> Any:
        return await self._engine.read(operation)


class Gateway:
    """A pipeline between a real store and vendors made up for a test."""

    def __init__(self, database: Path) -> None:
        self.later = timedelta(0)
        """By how much the database's clock is ahead."""
        self.engine = Shaky(engine_of(f"sqlite:///{database}", lambda: time_ns() // 1000 + self.later // MICROSECOND))
        self.store = Store(self.engine)
        self.config = parse(CONFIG, {}, base=Path())
        self.span = timedelta(seconds=10)
        self.recorded = 0
        self.metrics = Metrics("test")
        self.health = ProviderHealth({"one": 100, "two": 100})
        self.pacing: Pacing | None = None

    def between(
        self,
        one: Vendor,
        two: Vendor | None = None,
        public: str | None = None,
        judge: Callable[[], Judge] | None = None,
    ) -> Pipeline:
        def recorded() -> None:
            self.recorded += 1

        return Pipeline(
            self.store,
            judge or self.judge,
            {"one": one, "two": two or Vendor()},
            self.health,
            self.metrics,
            public,
            (lambda message: f"{public}/u/{message}") if public else None,
            recorded,
            self.pacing,
        )

    def judge(self) -> Judge:
        patience = {"one": SECOND, "two": SECOND}
        return Judge(self.config.policy, 1, self.config.routes, patience, self.span, frozenset(MessageState))

    async def leased(self, category: str = "news", **fields: Any) -> Lease:
        (lease,) = await self.leases(category, 1, **fields)
        return lease

    async def leases(self, category: str, number: int, **fields: Any) -> list[Lease]:
        settings = self.config.policy.categories[category]
        now = datetime.now(UTC)
        new = []
        for index in range(number):
            given = {
                "id": new_id(),
                "source": "tests",
                "request": new_id(),
                "person": f"ann-{index}",
                "category": category,
                "channels": (Channel.SMS,),
                "priority": Priority.NORMAL,
                "accepted_at": now,
                "starts_at": now,
                "expires_at": now + timedelta(days=3),
                "campaign": None,
                "body": {
                    "to": {"phone": "+447400123456", "email": "ann@example.com"},
                    "content": {"sms": {"text": "hello"}, "email": {"subject": "s", "text": "t"}},
                    "locale": "en-GB",
                },
            }
            message = Message(**(given | fields))
            new.append(NewMessage(message, canonical_hash(message.body), line_of(message, settings, ()), 1))
        assert await self.store.accept(new) == [None] * number
        channel = new[0].message.channels[0]
        leases, _ = await self.store.lease([(Priority.NORMAL, channel, number)], timedelta(seconds=30))
        assert len(leases) == number
        return leases

    async def view(self, lease: Lease) -> MessageView:
        found = await self.store.view(lease.message.id)
        assert found is not None
        return found

    async def became(self, lease: Lease) -> tuple[MessageState, list[tuple[str, AttemptState, str | None]]]:
        found = await self.view(lease)
        return found.state, [(a.provider, a.state, a.error) for a in found.attempts]

    async def contacts(self, lease: Lease) -> int:
        person = await self.store.person(lease.message.person)
        assert person is not None
        return len(person.contacts)


@pytest.fixture
async def gateway(empty: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(shutil.copy(empty, tmp_path / "store.db"))
    await gateway.store.open()
    yield gateway
    await gateway.store.close()


async def test_a_repeat_by_its_key_is_the_same_request_and_a_deliberate_one_another(gateway: Gateway) -> None:
    vendor = Vendor(Unconfirmed("timeout"), Unconfirmed("timeout"), "SM1")
    keyed = {"one": Recourse(keyed=timedelta(minutes=5))}
    pipeline = gateway.between(
        vendor, public="https://m.example.com", judge=lambda: replace(gateway.judge(), recourses=keyed)
    )
    lease = await gateway.leased("receipt")
    await pipeline.deliver(lease)
    for later in (timedelta(minutes=1), timedelta(hours=25)):
        gateway.later = later
        (again,), _ = await gateway.store.lease([(Priority.NORMAL, Channel.SMS, 1)], timedelta(seconds=30))
        await pipeline.deliver(again)
    first, second, third = vendor.taken
    same = ("attempt", "message", "key", "address", "content", "callback_url", "unsubscribe_url", "locale")
    assert [getattr(second, name) for name in same] == [getattr(first, name) for name in same]
    assert (first.key, third.key) == (lease.message.id, f"{lease.message.id}-2")
    assert third.attempt != first.attempt
    assert third.attempt in (third.callback_url or "")
    assert (await gateway.became(lease))[0] is MessageState.SENT
    assert await gateway.contacts(lease) == 2


async def test_what_is_sent_leads_to_us_where_it_is_tracked(gateway: Gateway) -> None:
    public = "https://m.example.com"
    content = {
        "sms": {"text": "Look: https://a.test/a-long-way-to-go"},
        "email": {"subject": "s", "text": "t", "html": '<a href="https://a.test/">x</a>'},
    }
    body = {"to": {"phone": "+447400123456", "email": "ann@example.com"}, "content": content}
    for channel in (Channel.SMS, Channel.EMAIL):
        vendor = Vendor()
        judge = partial(replace, gateway.judge(), public_url=public)
        lease = await gateway.leased(channels=(channel,), body=body, person=channel)
        await gateway.between(vendor, public=public, judge=judge).deliver(lease)
        (dispatch,) = vendor.taken
        assert dispatch.content == tracked(content_of(lease.message, channel), public, dispatch.attempt)
        assert dispatch.content != content_of(lease.message, channel)


async def test_a_repeat_by_its_key_has_the_links_of_the_first_though_nothing_is_tracked_any_more(
    gateway: Gateway,
) -> None:
    vendor, public = Vendor(Unconfirmed("timeout"), "SM1"), "https://m.example.com"
    keyed = {"one": Recourse(keyed=timedelta(minutes=5))}
    body = {"to": {"phone": "+447400123456"}, "content": {"sms": {"text": "Look: https://a.test/a-long-way-to-go"}}}
    lease = await gateway.leased("receipt", body=body)
    for later, tracks in ((timedelta(0), public), (timedelta(minutes=1), None)):
        gateway.later = later
        if later:
            (lease,), _ = await gateway.store.lease([(Priority.NORMAL, Channel.SMS, 1)], timedelta(seconds=30))
        judge = partial(replace, gateway.judge(), recourses=keyed, public_url=tracks)
        await gateway.between(vendor, public=public, judge=judge).deliver(lease)
    first, second = vendor.taken
    assert first.attempt == second.attempt
    assert first.content == second.content
    assert "https://a.test" not in str(first.content)


async def test_what_is_accepted_is_sent_once_with_all_that_the_vendor_needs(gateway: Gateway) -> None:
    vendor = Vendor("SM1")
    lease = await gateway.leased(channels=(Channel.EMAIL,))
    await gateway.between(vendor, public="https://m.example.com").deliver(lease)
    assert await gateway.became(lease) == (MessageState.SENT, [("one", AttemptState.ACCEPTED, None)])
    (dispatch,) = vendor.taken
    (attempt,) = (await gateway.view(lease)).attempts
    assert attempt.reference == "SM1"
    assert (dispatch.attempt, dispatch.message, dispatch.address) == (attempt.id, lease.message.id, "ann@example.com")
    assert (dispatch.deadline, dispatch.valid_until) == (attempt.deadline, lease.message.expires_at)
    assert dispatch.callback_url == f"https://m.example.com/callbacks/one?attempt={attempt.id}"
    assert dispatch.unsubscribe_url == f"https://m.example.com/u/{dispatch.attempt}"
    assert dispatch.locale == "en-GB"
    assert gateway.recorded >= 2  # the intent, the outcome


async def test_what_cannot_be_unsubscribed_from_offers_no_link(gateway: Gateway) -> None:
    vendor = Vendor()
    await gateway.between(vendor, public="https://m.example.com").deliver(await gateway.leased("receipt"))
    assert vendor.taken[0].unsubscribe_url is None


async def test_the_next_decision_is_made_by_the_policy_that_is_in_force_by_then(gateway: Gateway) -> None:
    vendor = Vendor()
    pipeline = gateway.between(vendor)
    first, held, freed = [await gateway.leased(person="ann", campaign=name) for name in ("a", "b", "c")]
    await pipeline.deliver(first)
    await pipeline.deliver(held)
    assert (await gateway.view(held)).decisions[-1].reason == "daily"
    gateway.config = parse(CONFIG.replace("limit: 1", "limit: 2"), {}, base=Path())
    await pipeline.deliver(freed)
    assert len(vendor.taken) == 2


async def test_why_an_attempt_failed_is_in_the_log_as_the_provider_says_it(gateway: Gateway) -> None:
    pipeline = gateway.between(Vendor(Misconfigured("unsupported", "the relay offers no STARTTLS")), Vendor())
    with capture_logs() as lines:
        await pipeline.deliver(await gateway.leased())
    (failed,) = [line for line in lines if line["event"] == "attempt.failed"]
    assert (failed["error"], failed["detail"]) == ("misconfigured:unsupported", "the relay offers no STARTTLS")


async def test_a_rule_in_shadow_holds_nothing_back_and_is_named_where_it_would_have(gateway: Gateway) -> None:
    shadow = "limit: 1, per: 24h, enforce: 0%"
    text = CONFIG.replace("limit: 1, per: 24h", f"limit: 2, per: 24h}}\n    - {{name: tighter, {shadow}")
    gateway.config = parse(text, {}, base=Path())
    vendor = Vendor()
    leases = [await gateway.leased(person="ann", campaign=name) for name in ("a", "b", "c")]
    pipeline = gateway.between(vendor)
    with capture_logs() as lines:
        for lease in leases:
            await pipeline.deliver(lease)
    assert len(vendor.taken) == 2
    assert [(line["event"], line.get("shadow")) for line in lines] == [
        ("message.ended", None),
        ("message.ended", ["tighter"]),
        ("message.deferred", ["tighter"]),
    ]
    labels = {"category": "news", "rule": "tighter"}
    assert gateway.metrics.registry.get_sample_value("gateway_shadow_verdicts_total", labels) == 2


async def test_a_category_that_is_given_up_while_its_message_is_under_way_ends_well(gateway: Gateway) -> None:
    class Editing(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            gateway.config = parse(CONFIG.replace("receipt:", "letter:"), {}, base=Path())
            return await super().send(dispatch)

    one, two = Editing(Unavailable("refused")), Vendor()
    sent, moved_on = [await gateway.leased("receipt", person=person) for person in ("ann", "ben")]
    settings = gateway.config
    await gateway.between(Editing()).deliver(sent)
    assert (await gateway.became(sent))[0] is MessageState.SENT
    gateway.config = settings
    await gateway.between(one, two).deliver(moved_on)
    assert (await gateway.became(moved_on))[0] is MessageState.PARKED
    assert two.taken == []


async def test_what_was_decided_before_its_category_is_given_up_is_sent_with_a_link(gateway: Gateway) -> None:
    class Editing:
        """The judge that is asked for the claim knows the category, and the one that is asked later does not."""

        def __init__(self) -> None:
            self.asked = 0

        def __call__(self) -> Judge:
            self.asked += 1
            if self.asked > 1:
                gateway.config = parse(CONFIG.replace("receipt:", "letter:"), {}, base=Path())
            return gateway.judge()

    vendor = Vendor()
    lease = await gateway.leased("receipt")
    await gateway.between(vendor, public="https://m.example.com", judge=Editing()).deliver(lease)
    assert (await gateway.became(lease))[0] is MessageState.SENT
    assert vendor.taken[0].unsubscribe_url


async def test_without_a_public_listener_nobody_is_told_to_call_back(gateway: Gateway) -> None:
    vendor = Vendor()
    await gateway.between(vendor).deliver(await gateway.leased())
    assert (vendor.taken[0].callback_url, vendor.taken[0].unsubscribe_url) == (None, None)


@pytest.mark.parametrize(
    ("kind", "state", "becomes", "second_called", "places"),
    [
        (Unavailable, AttemptState.NOT_SENT, MessageState.SENT, True, 1),
        (Throttled, AttemptState.NOT_SENT, MessageState.SENT, True, 1),
        (Misconfigured, AttemptState.NOT_SENT, MessageState.SENT, True, 1),
        (Unconfirmed, AttemptState.UNKNOWN, MessageState.UNKNOWN, False, 1),
        (Rejected, AttemptState.REJECTED, MessageState.FAILED, False, 0),
        (Unreachable, AttemptState.UNREACHABLE, MessageState.FAILED, False, 0),
    ],
)
async def test_each_error_takes_the_message_where_the_table_says(
    gateway: Gateway,
    kind: type[ProviderError],
    state: AttemptState,
    becomes: MessageState,
    second_called: bool,
    places: int,
) -> None:
    """With a cap of one: what certainly was not sent gives its place to the next provider at once."""
    one, two = Vendor(kind("code")), Vendor()
    lease = await gateway.leased()
    await gateway.between(one, two).deliver(lease)
    found, attempts = await gateway.became(lease)
    assert found is becomes
    assert attempts[0] == ("one", state, f"{kind.__name__.lower()}:code")
    assert attempts[1:] == ([("two", AttemptState.ACCEPTED, None)] if second_called else [])
    assert len(two.taken) == second_called
    assert await gateway.contacts(lease) == places


async def test_a_bug_in_a_provider_is_unknown_and_parks_the_message(gateway: Gateway) -> None:
    two = Vendor()
    lease = await gateway.leased("receipt")
    await gateway.between(Vendor(ZeroDivisionError()), two).deliver(lease)
    assert await gateway.became(lease) == (MessageState.PARKED, [("one", AttemptState.UNKNOWN, "bug")])
    assert two.taken == []


async def test_what_did_not_reach_the_vendor_is_tried_again_at_once(gateway: Gateway) -> None:
    one, two = Vendor(Unavailable("refused"), "SM1"), Vendor()
    lease = await gateway.leased()
    await gateway.between(one, two).deliver(lease)
    assert await gateway.became(lease) == (MessageState.SENT, [("one", AttemptState.ACCEPTED, None)])
    assert [dispatch.attempt for dispatch in one.taken] == [one.taken[0].attempt] * 2
    assert two.taken == []


async def test_a_provider_is_left_alone_after_five_calls_in_a_row_that_were_refused(gateway: Gateway) -> None:
    one, two = Vendor(Unavailable("refused")), Vendor()
    pipeline = gateway.between(one, two)
    for _ in range(3):
        await pipeline.deliver(await gateway.leased(person=new_id()))
    # Three calls are an attempt; the second one's second is the fifth, and that attempt goes on to its end.
    assert (len(one.taken), len(two.taken)) == (6, 3)


@pytest.mark.parametrize("kind", [Throttled, Misconfigured, Unconfirmed, Rejected, Unreachable])
async def test_nothing_else_is_tried_again_at_once(gateway: Gateway, kind: type[ProviderError]) -> None:
    one = Vendor(kind("code"))
    await gateway.between(one).deliver(await gateway.leased())
    assert len(one.taken) == 1


async def test_nothing_is_tried_again_after_its_deadline(gateway: Gateway) -> None:
    class Slow(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            await asyncio.sleep((dispatch.deadline - datetime.now(UTC)).total_seconds() + 0.001)
            return await super().send(dispatch)

    gateway.span = timedelta(milliseconds=20)
    one = Slow(Unavailable("refused"))
    lease = await gateway.leased()
    await gateway.between(one, Vendor("SM2")).deliver(lease)
    assert len(one.taken) == 1


async def test_when_every_provider_fails_it_waits_and_has_burnt_a_try(gateway: Gateway) -> None:
    lease = await gateway.leased()
    await gateway.between(Vendor(Misconfigured("balance")), Vendor(Misconfigured("key"))).deliver(lease)
    view = await gateway.view(lease)
    assert (view.state, view.tries, len(view.attempts)) == (MessageState.WAITING, 1, 2)
    assert view.due_at is not None
    assert view.due_at > datetime.now(UTC)
    assert await gateway.contacts(lease) == 0


async def test_a_message_that_may_not_go_calls_nobody(gateway: Gateway) -> None:
    one = Vendor()
    lease = await gateway.leased(body={"content": {"sms": {"text": "hello"}}})
    await gateway.between(one).deliver(lease)
    assert await gateway.became(lease) == (MessageState.REFUSED, [])
    assert one.taken == []


async def test_many_at_once_are_each_delivered_once(gateway: Gateway) -> None:
    one = Vendor()
    leases = await gateway.leases("news", 100)
    pipeline = gateway.between(one)
    before = gateway.engine.asked
    await asyncio.gather(*(pipeline.deliver(lease) for lease in leases))
    assert sorted(dispatch.message for dispatch in one.taken) == sorted(lease.message.id for lease in leases)
    assert {(await gateway.became(lease))[0] for lease in leases} == {MessageState.SENT}
    assert gateway.engine.asked - before < 20


# ------------------------------------------------------------------------------------------------ a provider that fails

SMS_ONE = (Channel.SMS, "one")


def opened(gateway: Gateway, ago: timedelta) -> None:
    at = datetime.now(UTC) - ago
    for _ in range(5):
        gateway.health.began(SMS_ONE, "", at)
        gateway.health.ended(SMS_ONE, failed(Unavailable("refused")), at, at)


async def test_calls_that_fail_leave_their_provider_alone_and_the_rest_goes_by_the_next_at_once(
    gateway: Gateway,
) -> None:
    one, two = Vendor(Misconfigured("key")), Vendor()
    pipeline = gateway.between(one, two)
    for person in range(8):
        await pipeline.deliver(await gateway.leased(person=f"ben-{person}"))
    assert (len(one.taken), len(two.taken)) == (5, 8)


@pytest.mark.parametrize("well", [False, True])
async def test_of_many_at_once_a_few_find_out_whether_a_provider_is_well_again(gateway: Gateway, well: bool) -> None:
    opened(gateway, timedelta(seconds=11))
    one, two = Vendor("SM1" if well else Misconfigured("key")), Vendor()
    pipeline = gateway.between(one, two)
    leases = await gateway.leases("news", 50)
    await asyncio.gather(*(pipeline.deliver(lease) for lease in leases))
    assert (len(one.taken), len(two.taken)) == (5, 45 if well else 50)
    assert {(await gateway.became(lease))[0] for lease in leases} == {MessageState.SENT}
    assert bool(gateway.health.snapshot(datetime.now(UTC)).failing) is not well


async def test_a_provider_that_is_left_alone_is_used_where_there_is_no_other(gateway: Gateway) -> None:
    opened(gateway, timedelta(seconds=1))
    one, two = Vendor(), Vendor(Misconfigured("key"))
    lease = await gateway.leased()
    await gateway.between(one, two).deliver(lease)
    assert (await gateway.became(lease))[0] is MessageState.SENT
    assert (len(one.taken), len(two.taken)) == (1, 1)


async def test_a_decision_that_sends_nothing_or_fails_takes_no_probe(gateway: Gateway) -> None:
    opened(gateway, timedelta(seconds=11))
    one, two = Vendor(), Vendor()
    pipeline = gateway.between(one, two)
    for number in range(6):
        await pipeline.deliver(await gateway.leased(body={}, person=f"nobody-{number}"))
    gateway.engine.away = 1
    with pytest.raises(StoreUnavailable):
        await pipeline.deliver(await gateway.leased(person="cleo"))
    leases = await gateway.leases("news", 10)
    await asyncio.gather(*(pipeline.deliver(lease) for lease in leases))
    assert len(one.taken) == 5


async def test_those_that_might_find_out_but_have_no_turn_there_take_no_probe(gateway: Gateway) -> None:
    opened(gateway, timedelta(seconds=11))
    paced = parse(CONFIG.replace("one: {kind: inbox}", "one: {kind: inbox, pace: 1/h}"), {}, base=Path()).providers
    gateway.pacing = Pacing(gateway.store, paced, "w", gateway.metrics)
    one, two = Vendor(), Vendor()
    pipeline = gateway.between(one, two)
    leases = await gateway.leases("news", 10)
    await asyncio.gather(*(pipeline.deliver(lease) for lease in leases))
    assert (len(one.taken), len(two.taken)) == (1, 9)

    gateway.pacing = None
    pipeline = gateway.between(one, two)
    leases = [await gateway.leased(person=f"ben-{number}") for number in range(10)]
    await asyncio.gather(*(pipeline.deliver(lease) for lease in leases))
    assert (len(one.taken), len(two.taken)) == (5, 15)


# -------------------------------------------------------------------------------------------------- the store goes away


async def test_an_outcome_survives_a_store_that_is_away_for_a_moment(gateway: Gateway) -> None:
    class Cutting(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            gateway.engine.away = 2
            return await super().send(dispatch)

    one = Cutting("SM1")
    lease = await gateway.leased()
    await gateway.between(one).deliver(lease)
    assert await gateway.became(lease) == (MessageState.SENT, [("one", AttemptState.ACCEPTED, None)])
    assert len(one.taken) == 1


async def test_an_outcome_whose_commit_was_not_heard_of_is_not_recorded_twice(gateway: Gateway) -> None:
    class Cutting(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            gateway.engine.away, gateway.engine.commits = 1, True
            return await super().send(dispatch)

    one = Cutting("SM1")
    lease = await gateway.leased()
    await gateway.between(one).deliver(lease)
    assert await gateway.became(lease) == (MessageState.SENT, [("one", AttemptState.ACCEPTED, None)])
    assert len([key for _, _, key, _ in await gateway.store.unpublished(10) if key == "message.sent"]) == 1


async def test_a_failover_whose_commit_was_not_heard_of_calls_nobody_twice_and_takes_one_place(
    gateway: Gateway,
) -> None:
    class Cutting(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            gateway.engine.away, gateway.engine.commits = 1, True
            return await super().send(dispatch)

    one, two = Cutting(Misconfigured("key")), Vendor("SM2")
    lease = await gateway.leased()
    await gateway.between(one, two).deliver(lease)
    state, attempts = await gateway.became(lease)
    assert state is MessageState.SENT
    assert attempts[0][1:] == (AttemptState.NOT_SENT, "misconfigured:key")
    assert attempts[-1] == ("two", AttemptState.ACCEPTED, None)
    assert AttemptState.INTENT not in [attempt[1] for attempt in attempts]
    assert len(two.taken) == 1
    assert await gateway.contacts(lease) == 1


@pytest.mark.parametrize("commits", [False, True])
async def test_an_intent_that_nobody_heard_of_is_disowned_and_the_message_goes_out(
    gateway: Gateway, commits: bool
) -> None:
    one = Vendor()
    pipeline = gateway.between(one)
    lease = await gateway.leased()
    gateway.engine.away, gateway.engine.commits = 1, commits
    with pytest.raises(StoreUnavailable):
        await pipeline.deliver(lease)
    assert one.taken == []
    assert await gateway.contacts(lease) == commits

    gateway.engine.away = 1
    with pytest.raises(StoreUnavailable):
        await pipeline.disown()
    await pipeline.disown()
    assert await gateway.contacts(lease) == 0
    if not commits:
        return  # it is tried again when its lease has run out
    (again,), _ = await gateway.store.lease([(Priority.NORMAL, Channel.SMS, 1)], timedelta(seconds=30))
    await pipeline.deliver(again)
    state, attempts = await gateway.became(lease)
    assert state is MessageState.SENT
    assert [attempt[1] for attempt in attempts] == [AttemptState.NOT_SENT, AttemptState.ACCEPTED]
    assert len(one.taken) == 1


async def test_nothing_to_disown_asks_the_store_nothing(gateway: Gateway) -> None:
    before = gateway.engine.asked
    await gateway.between(Vendor()).disown()
    assert gateway.engine.asked == before


async def test_a_receipt_that_overtakes_the_outcome_keeps_its_place(gateway: Gateway) -> None:
    """Evidence that it arrived is not undone by an error that says it was not sent."""

    class Contradicting(Vendor):
        async def send(self, dispatch: Dispatch) -> str:
            news = Receipt(dispatch.attempt, ReceiptStatus.DELIVERED, "SM1", "delivered")
            await gateway.store.receipt([news], gateway.judge())
            return await super().send(dispatch)

    two = Vendor()
    lease = await gateway.leased()
    await gateway.between(Contradicting(Misconfigured("key")), two).deliver(lease)
    assert await gateway.became(lease) == (MessageState.DELIVERED, [("one", AttemptState.DELIVERED, None)])
    assert two.taken == []
    assert await gateway.contacts(lease) == 1


async def test_a_call_that_is_cut_off_stays_an_open_intent_and_frees_the_provider(gateway: Gateway) -> None:
    hanging = Hanging()
    gateway.health = ProviderHealth({"one": 1, "two": 1})
    lease = await gateway.leased()
    delivering = asyncio.create_task(gateway.between(hanging).deliver(lease))
    await hanging.called.wait()
    assert list(gateway.health.snapshot(datetime.now(UTC)).full) == ["one"]
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
    assert (await gateway.became(lease))[1] == [("one", AttemptState.INTENT, None)]
    assert list(gateway.health.snapshot(datetime.now(UTC)).full) == []


@pytest.mark.parametrize("error", [Unavailable("refused"), Throttled("429", retry_after=SECOND)])
async def test_what_is_cut_off_between_two_calls_was_not_sent(gateway: Gateway, error: ProviderError) -> None:
    vendor = Vendor(error)
    pipeline = gateway.between(vendor)
    lease = await gateway.leased()
    delivering = asyncio.create_task(pipeline.deliver(lease))
    await vendor.called.wait()
    assert pipeline.cut() == 0
    await delivering
    await pipeline.disown()
    assert {state for _, state, _ in (await gateway.became(lease))[1]} == {AttemptState.NOT_SENT}


async def test_a_provider_with_a_pace_gets_one_call_for_a_turn(gateway: Gateway) -> None:
    paced = parse(CONFIG.replace("one: {kind: inbox}", "one: {kind: inbox, pace: 1/h}"), {}, base=Path()).providers
    gateway.pacing = Pacing(gateway.store, paced, "w", gateway.metrics)
    one, two = Vendor(Unavailable("http_503")), Vendor()
    await gateway.between(one, two).deliver(await gateway.leased())
    assert (len(one.taken), len(two.taken)) == (1, 1)


async def test_a_place_that_a_retry_gives_back_wakes_who_waits_for_it(gateway: Gateway) -> None:
    """The cap is one a day: the more urgent message waits for the place of one that turns out not to be sent."""
    known = gateway.judge()
    first = await gateway.leased(campaign="a")
    (claimed,) = await gateway.store.claim([first], known, [new_id()])
    urgent = await gateway.leased(campaign="b", expires_at=first.message.expires_at - SECOND)
    (held,) = await gateway.store.claim([urgent], known, [new_id()])
    assert isinstance(held, Deferred)
    assert (held.rule, held.place) == ("daily", True)

    not_sent = failed(Misconfigured("key"))
    while isinstance(claimed, Claimed):
        (claimed,) = await gateway.store.settle([Settlement(claimed, not_sent)], known)
    assert isinstance(claimed, Deferred)
    leases, _ = await gateway.store.lease([(Priority.NORMAL, Channel.SMS, 2)], timedelta(seconds=30))
    assert [lease.message.id for lease in leases] == [urgent.message.id]
