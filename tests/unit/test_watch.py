"""Does a process know how its providers fare, does it tell the others, and do people hear of it?"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.config import Route
from gateway.health import IN_A_ROW, INTERVAL, PROBES, PROOF, SHORTEST, SLOW, SLOW_IN_A_ROW, State
from gateway.message import Priority
from gateway.metrics import Metrics
from gateway.outcome import accepted, bug, failed
from gateway.routing import Health, choose
from gateway.store import Store, StoreUnavailable, Told, engine_of
from gateway.watch import HEEDED, ProviderHealth, Sharing
from providers import Channel, Misconfigured, Rejected, Throttled, Unavailable, Unconfirmed, Unreachable
from tests.servers import wait_until
from tests.unit.deciding import message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from gateway.outcome import Outcome
    from gateway.store.engine import Engine, Operation

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ONE, TWO = (Channel.SMS, "one"), (Channel.SMS, "two")
DOWN, FINE = failed(Unavailable("refused")), accepted("ref")
MANY = [message(id=f"message-{number}", priority=Priority.NORMAL) for number in range(100)]


def health(**concurrency: int) -> ProviderHealth:
    return ProviderHealth(concurrency or {"one": 2, "two": 1}, "a")


def ended(known: ProviderHealth, *outcomes: Outcome, at: datetime = NOON, takes: timedelta = SECOND / 100) -> None:
    for outcome in outcomes:
        known.began(ONE, "", at - takes)
        known.ended(ONE, outcome, at - takes, at)


# ---------------------------------------------------------------------------------------------- what it sees itself


def test_a_provider_that_fails_in_a_row_is_failing_for_a_while() -> None:
    known = health()
    ended(known, *[DOWN] * (IN_A_ROW - 1))
    assert known.snapshot(NOON).failing == set()
    ended(known, DOWN)
    assert known.snapshot(NOON).failing == {ONE}
    later = NOON + timedelta(minutes=2)
    ended(known, *[FINE] * PROOF, at=later)
    assert known.snapshot(later).failing == set()


def test_a_success_between_failures_forgives_them() -> None:
    known = health()
    ended(known, DOWN, DOWN, DOWN, DOWN, FINE, DOWN, DOWN)
    assert known.snapshot(NOON).failing == set()


def test_health_is_kept_apart_for_each_channel() -> None:
    known = health()
    ended(known, *[DOWN] * 10)
    assert known.state((Channel.EMAIL, "one"), NOON) is State.CLOSED


kinds = st.sampled_from([Unavailable, Misconfigured, Unconfirmed, None])
others = st.sampled_from([failed(Rejected("c")), failed(Unreachable("c")), bug()])


@given(st.lists(st.one_of(kinds.map(lambda kind: failed(kind("c")) if kind else FINE), others), max_size=80))
def test_a_bad_message_or_address_changes_nothing_that_is_known_of_a_provider(outcomes: list[Outcome]) -> None:
    known, without = health(), health()
    for number, outcome in enumerate(outcomes):
        at = NOON + number * SECOND / 2
        ended(known, outcome, at=at, takes=number % 3 * SLOW)
        if outcome.error == "bug" or (outcome.error or "").startswith(("rejected", "unreachable")):
            continue
        ended(without, outcome, at=at, takes=number % 3 * SLOW)
    end = NOON + 40 * SECOND
    assert known.snapshot(end) == without.snapshot(end)
    assert known.told(end) == without.told(end)


@pytest.mark.parametrize("kind", [Rejected, Unreachable])
def test_it_never_opens_for_bad_messages_or_addresses(kind: Any) -> None:
    known = health()
    ended(known, *[failed(kind("code"))] * 100, takes=2 * SLOW)
    assert known.snapshot(NOON) == Health(failing=set(), full=[])


def test_a_throttled_provider_is_left_alone_as_long_as_its_vendor_says() -> None:
    known = health()
    ended(known, failed(Throttled("429", retry_after=90 * SECOND)))
    assert known.snapshot(NOON).paused == {"one": NOON + 90 * SECOND}
    assert known.snapshot(NOON).failing == set()
    assert known.snapshot(NOON + 90 * SECOND).paused == {}


def test_a_vendor_that_gives_no_figure_is_left_alone_for_a_while() -> None:
    known = health()
    ended(known, failed(Throttled("429")))
    assert SECOND <= known.snapshot(NOON).paused["one"] - NOON <= timedelta(minutes=5)


def test_the_longest_that_a_vendor_asks_for_holds() -> None:
    known = health()
    for asked in (60 * SECOND, 5 * SECOND, None):  # of calls under way at once
        ended(known, failed(Throttled("429", retry_after=asked)))
    assert known.snapshot(NOON).paused == {"one": NOON + 60 * SECOND}


def test_a_clock_that_is_set_back_leaves_nobody_alone_for_longer() -> None:
    known = health()
    ended(known, *[DOWN] * IN_A_ROW, failed(Throttled("429", retry_after=5 * SECOND)))
    assert known.snapshot(NOON).paused
    assert known.snapshot(NOON).failing
    for back in (NOON - timedelta(hours=1), NOON - timedelta(minutes=30)):
        assert known.snapshot(back) == Health(failing=set(), full=[])


def test_a_provider_is_full_while_as_much_is_under_way_as_it_may() -> None:
    known = health()
    known.began(ONE, "", NOON)
    known.began(TWO, "", NOON)
    assert list(known.snapshot(NOON).full) == ["two"]
    known.began(ONE, "", NOON)
    assert set(known.snapshot(NOON).full) == {"one", "two"}
    known.ended(ONE, FINE, NOON, NOON)
    assert list(known.snapshot(NOON).full) == ["two"]


def hangs(known: ProviderHealth, calls: int, *, looks: timedelta) -> datetime:
    """So many calls of which none ends, and a look at them now and then, until shortly after they are slow."""
    for number in range(calls):
        known.began(ONE, f"message-{number}", NOON)
    now = NOON
    while now <= NOON + SLOW:
        known.snapshot(now)
        now += looks
    return now


def test_a_provider_that_hangs_is_left_alone_before_any_call_ends() -> None:
    known = health()
    ended(known, *[FINE] * 100)
    now = hangs(known, SLOW_IN_A_ROW, looks=SECOND)
    assert known.snapshot(now).failing == {ONE}
    few = health()
    now = hangs(few, SLOW_IN_A_ROW - 1, looks=SECOND)
    assert few.snapshot(now).failing == set()


def test_after_it_stood_still_itself_a_worker_holds_nothing_against_a_provider() -> None:
    known = health()
    now = hangs(known, SLOW_IN_A_ROW, looks=3 * SECOND)
    assert known.snapshot(now + timedelta(minutes=1)).failing == set()


@pytest.mark.parametrize("outcome", [FINE, DOWN])
def test_a_call_that_was_slow_before_it_ended_counts_once(outcome: Outcome) -> None:
    known = health()
    now = hangs(known, 3, looks=SECOND)
    known.snapshot(now)
    for number in range(3):
        known.ended(ONE, outcome, NOON, now, f"message-{number}")
    report = known.vitals(ONE).report(now)
    assert (report.calls, report.slow, report.failed) == (3, 3, 3 if outcome is DOWN else 0)


def test_points_are_off_a_provider_that_is_slow_now_and_then() -> None:
    known = health()
    for _ in range(10):
        ended(known, FINE, FINE, FINE)
        ended(known, FINE, takes=2 * SLOW)
    assert known.snapshot(NOON).cut == {ONE: 10}


def test_the_places_of_a_channel_are_those_of_the_providers_that_are_asked() -> None:
    known = health(one=50, two=70)
    route, shared = Route(("one", "two")), Route(("one", "two"), (1, 1))
    assert known.places(Channel.SMS, route, NOON) == 50
    assert known.places(Channel.SMS, shared, NOON) == 100
    assert known.places(Channel.SMS, Route(("one", "two"), (9, 1)), NOON) == 55
    assert known.places(Channel.SMS, Route(("one", "two"), (1, 0)), NOON) == 50
    ended(known, *[DOWN] * IN_A_ROW)
    assert known.places(Channel.SMS, route, NOON) == 70
    assert known.places(Channel.SMS, shared, NOON) == 70
    assert known.places(Channel.SMS, Route(("one", "two"), (1, 0)), NOON) == 70
    assert known.places(Channel.SMS, Route(("one",)), NOON) == 50
    assert known.places(Channel.SMS, Route(), NOON) > 0


# ------------------------------------------------------------------------------------------------------------- probes


@pytest.fixture
def half_open() -> tuple[ProviderHealth, datetime]:
    known = health()
    ended(known, *[DOWN] * IN_A_ROW)
    return known, NOON + SHORTEST


def test_of_a_batch_no_more_messages_may_probe_than_all_together_may(
    half_open: tuple[ProviderHealth, datetime],
) -> None:
    known, now = half_open
    assert known.snapshot(NOON, MANY).probes == {}
    first = known.snapshot(now, MANY)
    assert first.failing == {ONE}
    assert len(first.probes[ONE]) == PROBES
    assert known.snapshot(now, MANY).probes == {}
    assert known.snapshot(now + 60 * SECOND, MANY).probes == {}  # they are under way still


def test_whoever_did_not_go_that_way_leaves_the_probe_to_another(half_open: tuple[ProviderHealth, datetime]) -> None:
    known, now = half_open
    first = known.snapshot(now, MANY)
    went, *_ = sorted(first.probes[ONE])
    known.spare(first.probes, {(ONE, went), (TWO, "message-99")})
    assert len(known.snapshot(now, MANY).probes[ONE]) == PROBES - 1


def test_a_probe_that_has_ended_counts_until_the_next_interval(half_open: tuple[ProviderHealth, datetime]) -> None:
    known, now = half_open
    for probe in known.snapshot(now, MANY).probes[ONE]:
        known.began(ONE, probe, now)
        known.ended(ONE, failed(Rejected("c")), now, now, probe)  # which proves nothing
    assert known.snapshot(now + SECOND, MANY).probes == {}
    assert len(known.snapshot(now + 5 * SECOND, MANY).probes[ONE]) == PROBES


def test_what_is_urgent_and_what_goes_by_other_channels_does_not_probe(
    half_open: tuple[ProviderHealth, datetime],
) -> None:
    known, now = half_open
    codes = [message(id=f"code-{number}", priority=Priority.CRITICAL) for number in range(9)]
    letters = [message(id=f"letter-{number}", channels=(Channel.EMAIL,)) for number in range(9)]
    assert known.snapshot(now, [*codes, *letters, *MANY[:5]]).probes[ONE] == {one.id for one in MANY[:5]}


def test_probes_that_succeed_close_it(half_open: tuple[ProviderHealth, datetime]) -> None:
    known, now = half_open
    for probe in known.snapshot(now, MANY).probes[ONE]:
        known.began(ONE, probe, now)
        known.ended(ONE, FINE, now, now, probe)
    assert known.snapshot(now).failing == set()


# ------------------------------------------------------------------------------------------------ the other workers


def told(known: ProviderHealth, now: datetime, worker: str = "b") -> list[Told]:
    return [Told(provider, worker, seen, 0) for provider, seen in known.told(now).items()]


def test_what_another_version_or_configuration_says_besides_is_passed_over() -> None:
    known, other = health(), ProviderHealth({"one": 1, "unknown": 1}, "b")
    ended(other, *[DOWN] * IN_A_ROW)
    more = told(other, NOON)
    more[0] = Told("one", "b", more[0].seen.replace('"ways":{', '"later":1,"ways":{"telepathy":{"calls":1},'), 0)
    known.hear(more, NOON)
    assert known.snapshot(NOON).failing == {ONE}


def test_news_is_told_at_once_and_what_is_usual_is_not() -> None:
    known, news = health(), []
    known.news = lambda: news.append(1)
    ended(known, FINE, FINE)
    assert len(news) == 0
    ended(known, DOWN)  # the first of a row
    assert len(news) == 1
    ended(known, *[DOWN] * (IN_A_ROW - 2))
    assert len(news) == 1
    ended(known, DOWN)
    assert len(news) == 2
    ended(known, failed(Throttled("429")))
    assert len(news) == 3


def test_a_pause_is_told_on_and_a_longer_one_takes_its_place() -> None:
    first, second, third = (ProviderHealth({"one": 1, "two": 1}, name) for name in "abc")
    ended(first, failed(Throttled("429", retry_after=10 * SECOND)))
    second.hear(told(first, NOON, "a"), NOON)
    third.hear(told(second, NOON, "b"), NOON)
    assert third.snapshot(NOON).paused == {"one": NOON + 10 * SECOND}
    ended(first, failed(Throttled("429", retry_after=60 * SECOND)))
    third.hear([*told(second, NOON, "b"), *told(first, NOON, "a")], NOON)
    assert third.snapshot(NOON).paused == {"one": NOON + 60 * SECOND}
    ended(third, failed(Throttled("429", retry_after=20 * SECOND)))
    assert third.snapshot(NOON).paused == {"one": NOON + 60 * SECOND}


def test_a_pause_that_goes_round_does_not_grow() -> None:
    one, other = health(), ProviderHealth({"one": 1, "two": 1}, "b")
    ended(one, failed(Throttled("429", retry_after=10 * SECOND)))
    for second in range(10):
        now = NOON + second * SECOND
        other.hear(told(one, now - SECOND, "a"), now)  # it was a second on its way
        one.hear(told(other, now - SECOND, "b"), now)
        assert other.snapshot(now).paused.get("one", now) <= NOON + 11 * SECOND
        assert one.snapshot(now).paused == {"one": NOON + 10 * SECOND}
    assert one.snapshot(NOON + 10 * SECOND).paused == {}


class Away:
    """A database that is away while it is told to be, and counts what is written."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.precedence = engine.precedence
        self.away = False
        self.written = 0

    async def open(self) -> None:
        await self._engine.open()

    async def close(self) -> None:
        await self._engine.close()

    async def write(self, operation: Callable[[], Operation[Any]], *, urgent: bool = False) -> Any:
        self.written += 1
        if self.away:
            raise StoreUnavailable("away")
        return await self._engine.write(operation)

    async def read(self, operation: Callable[[], Operation[Any]]) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        return await self._engine.read(operation)


@dataclass
class InForce:
    """As much of a judge as people are told by."""

    routes: Mapping[Channel, Route] = field(default_factory=lambda: {Channel.SMS: Route(("one", "two"), (70, 30))})


class House:
    """Two workers at a real store."""

    def __init__(self, database: Path) -> None:
        self.engine = Away(engine_of(f"sqlite:///{database}", lambda: time_ns() // 1000))
        self.store = Store(self.engine)
        self.metrics = Metrics("test")
        self.judge: Any = InForce()
        self.one, self.other = health(), ProviderHealth({"one": 2, "two": 1}, "b")
        self.sharing = Sharing(self.store, self.one, "a", lambda: self.judge, self.metrics)
        self.others = Sharing(self.store, self.other, "b", lambda: self.judge, Metrics("test"))

    def gauge(self, name: str, provider: str = "one", **more: str) -> float | None:
        labels = {"channel": "sms", "provider": provider, **more}
        return self.metrics.registry.get_sample_value(f"gateway_provider_{name}", labels)


@pytest.fixture
async def house(empty: Path, tmp_path: Path) -> AsyncIterator[House]:
    house = House(shutil.copy(empty, tmp_path / "store.db"))
    await house.store.open()
    yield house
    await house.store.close()


async def test_nothing_is_written_while_there_is_nothing_new_to_tell(house: House) -> None:
    await house.sharing.once(NOON)
    assert house.engine.written == 1
    await house.sharing.once(NOON + SECOND)
    assert house.engine.written == 1
    ended(house.one, FINE, at=NOON + SECOND)
    await house.sharing.once(NOON + 2 * SECOND)
    assert house.engine.written == 2
    await house.sharing.once(NOON + HEEDED)
    assert house.engine.written == 3  # or the others would think that it is gone


async def test_people_hear_when_a_provider_is_left_alone_and_when_it_is_used_again(house: House) -> None:
    ended(house.one, *[DOWN] * IN_A_ROW)
    with capture_logs() as lines:
        await house.sharing.once(NOON)
        await house.sharing.once(NOON + SECOND)
        assert (house.gauge("health"), house.gauge("health", "two")) == (0, 1)
        await house.sharing.once(NOON + SHORTEST)
        assert house.gauge("health") == 0.5
        ended(house.one, *[FINE] * PROOF, at=NOON + SHORTEST + SECOND)
        await house.sharing.once(NOON + SHORTEST + SECOND)
        assert house.gauge("health") == 1
    opened, half_open, closed = lines
    about = {"channel": "sms", "provider": "one", "by": "a"}
    numbers = {"in_a_row": 5, "calls": 5, "failed": 5, "slow": 0, "times": 1, "for_seconds": 10.0}
    assert opened == {"event": "provider.opened", "log_level": "warning"} | about | numbers
    assert half_open == {"event": "provider.half_open", "log_level": "info", "times": 1} | about
    assert closed == {"event": "provider.closed", "log_level": "info"} | about
    for state in State:
        assert house.gauge("transitions_total", state=state) == 1


async def test_people_hear_that_a_vendor_asks_to_be_left_alone_for_long(house: House) -> None:
    with capture_logs() as lines:
        ended(house.one, failed(Throttled("429", retry_after=5 * SECOND)))
        await house.sharing.once(NOON)
        assert (house.gauge("health"), house.gauge("health", "two")) == (0, 1)
        await house.sharing.once(NOON + 5 * SECOND)
        assert house.gauge("health") == 1
        for second in (10, 15):
            ended(house.one, failed(Throttled("429", retry_after=3600 * SECOND)), at=NOON + second * SECOND)
            await house.sharing.once(NOON + second * SECOND)
            assert house.gauge("health") == 0
    assert lines == [{"event": "provider.paused", "log_level": "warning", "provider": "one", "for_seconds": 3600.0}]


async def test_a_probe_that_fails_between_two_looks_is_heard_of(house: House) -> None:
    ended(house.one, *[DOWN] * IN_A_ROW)
    await house.sharing.once(NOON)
    ended(house.one, DOWN, at=NOON + SHORTEST)  # half open for no longer than that took
    with capture_logs() as lines:
        await house.sharing.once(NOON + SHORTEST + SECOND)
        await house.sharing.once(NOON + SHORTEST + 2 * SECOND)
    assert [(line["event"], line["times"]) for line in lines] == [("provider.half_open", 2), ("provider.opened", 2)]
    assert house.gauge("transitions_total", state=State.OPEN) == 2


async def test_weights_are_shown_as_they_are_now(house: House) -> None:
    await house.sharing.once(NOON)
    assert (house.gauge("weight"), house.gauge("weight", "two")) == (pytest.approx(70), pytest.approx(30))
    for _ in range(10):
        ended(house.one, FINE, FINE, FINE)
        ended(house.one, FINE, takes=2 * SLOW)
    await house.sharing.once(NOON)
    assert house.gauge("weight") == pytest.approx(60)
    house.judge = InForce({Channel.SMS: Route(("two",))})
    await house.sharing.once(NOON)
    assert (house.gauge("weight"), house.gauge("weight", "two")) == (None, 100)


async def test_without_the_store_a_worker_goes_by_what_it_sees_and_says_so_once(house: House) -> None:
    house.engine.away = True
    ended(house.one, *[DOWN] * IN_A_ROW)
    with capture_logs() as lines:
        await house.sharing.once(NOON)
        await house.sharing.once(NOON + SECOND)
        assert house.gauge("health") == 0
        house.engine.away = False
        await house.sharing.once(NOON + 2 * SECOND)
        house.engine.away = True
        await house.sharing.once(NOON + 3 * SECOND)
    assert [line["event"] for line in lines] == ["providers.unshared", "provider.opened", "providers.unshared"]
    house.engine.away = False
    await house.others.once(NOON + 2 * SECOND)
    assert house.other.snapshot(NOON + 2 * SECOND).failing == {ONE}


async def test_it_goes_on_by_itself_and_at_once_when_there_is_news(house: House) -> None:
    tasks = [asyncio.create_task(sharing.run()) for sharing in (house.sharing, house.others)]
    try:
        await wait_until(lambda: house.engine.written)
        ended(house.one, *[DOWN] * IN_A_ROW, at=datetime.now(UTC))
        await wait_until(lambda: house.other.snapshot(datetime.now(UTC)).failing)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_campaign_by_another_channel_does_not_keep_a_provider_from_being_found_well() -> None:
    """All of it goes by push; a text message now and then could find out."""
    known = ProviderHealth({"one": 99, "two": 99, "push": 99}, "a")
    ended(known, *[DOWN] * IN_A_ROW)
    now, route, number = NOON + SHORTEST, Route(("one", "two")), 0
    while known.state(ONE, now) is not State.CLOSED:
        assert now < NOON + SHORTEST + PROOF * INTERVAL
        both = (Channel.PUSH, Channel.SMS)
        campaign = [message(id=f"c{number}-{n}", priority=Priority.BULK, channels=both) for n in range(20)]
        texts = [message(id=f"t{number}-{n}", priority=Priority.HIGH, channels=(Channel.SMS,)) for n in range(3)]
        seen = known.snapshot(now, [*campaign, *texts])
        went = set()
        for text in texts:
            name = choose(Channel.SMS, route, ["one", "two"], seen, text.id, critical=False, now=now)
            assert isinstance(name, str)
            went.add(((Channel.SMS, name), text.id))
        known.spare(seen.probes, went)
        for way, id_ in went:
            known.began(way, id_, now)
            known.ended(way, FINE, now, now, id_)
        now, number = now + SECOND, number + 1
