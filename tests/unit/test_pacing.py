"""Does each message get its turn where it may need one, and is none taken that nobody uses?"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Route, parse
from gateway.intake import utc_now
from gateway.message import Priority, content_of
from gateway.metrics import Metrics
from gateway.outcome import failed
from gateway.pace import AHEAD, Calendar, grant
from gateway.pacing import Pacing
from gateway.render import drafted
from gateway.routing import Health, Wait, choose
from gateway.store import StoreUnavailable
from gateway.watch import ProviderHealth
from providers import Channel, Unavailable
from tests.unit.deciding import message as message_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gateway.message import Message
    from gateway.pace import Ask, Grant
    from gateway.pacing import Booked

CONFIG = """
providers:
  text: {kind: http, channels: [sms, robocall], url: "https://v.example", body: {t: "{text}"}, pace: 10/s,
    pace_in: segments}
  other: {kind: inbox, pace: 1/s}
  free: {kind: inbox}
routes: {sms: [text], push: [free], email: [other]}
policy: {timezone: UTC, categories: {news: {}}}
"""
SETTINGS = parse(CONFIG, {}, base=Path()).providers
SMS = {Channel.SMS: Route(("text",))}
BULK, CODE = Priority.BULK, Priority.CRITICAL


class Calendars:
    """Stands where the store does, with a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.kept: dict[str, Calendar] = {}
        self.own: dict[str, int] = {}
        self.asked: list[Ask] = []
        self.away = False
        self.busy = 0

    async def take_turns(self, worker: str, asks: Sequence[Ask]) -> dict[str, Grant]:
        if self.away:
            raise StoreUnavailable("away")
        if self.busy:
            self.busy -= 1
            return {}
        self.asked += asks
        granted = {}
        for ask in asks:
            kept, own = self.kept.get(ask.provider, Calendar(0, 0)), self.own.get(ask.provider, 0)
            granted[ask.provider], self.kept[ask.provider], share = grant(kept, ask, round(self.now * 1e6), own, [])
            self.own[ask.provider] = share.next_at
        return granted

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Desk:
    """The pacing of one process."""

    def __init__(self) -> None:
        self.store = Calendars()
        self.metrics = Metrics("test")
        self.pacing = Pacing(
            self.store,  # type: ignore[arg-type]
            SETTINGS,
            "w",
            self.metrics,
            clock=lambda: self.store.now,
            sleep=self.store.sleep,
        )
        self.health = ProviderHealth(dict.fromkeys(SETTINGS, 100))
        self._made = 0

    def message(self, priority: Priority = BULK, text: str = "hello", channels: Any = (Channel.SMS,)) -> Message:
        self._made += 1
        content = {"sms": {"text": text}, "email": {"subject": "s", "text": "t"}, "push": {"title": "t", "body": "b"}}
        return message_of(id=f"m{self._made}", priority=priority, channels=channels, body={"content": content})

    async def book(self, *messages: Message, routes: Any = SMS, health: Health | None = None, **tried: Any) -> Booked:
        return await self.pacing.book(messages, routes, health or Health(), tried)

    async def send(self, message: Message, provider: str = "text", **more: Any) -> float:
        """When a message that has its turn is handed over; the seconds since the clock began."""
        booked = await self.book(message, **more)
        assert message.id not in booked.waits.get(provider, {})
        self.pacing.decided(booked, {message.id: provider})
        await self.pacing.turn(message.id, provider)
        return self.store.now - 1000

    async def ahead(self, waiting: int = 100) -> None:
        self.pacing.backlog(Channel.SMS, ("text",), waiting)
        await self.pacing.ahead()

    def room(self, *route: str) -> int | None:
        return self.pacing.room(Channel.SMS, route or ("text",), self.health)

    def used(self, provider: str = "text") -> float | None:
        return self.metrics.registry.get_sample_value("gateway_pace_used_total", {"provider": provider})


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_what_is_counted_is_what_is_sent() -> None:
    """A text whose links are longer than ours has fewer parts when it is sent."""
    desk = Desk()
    desk.pacing = Pacing(
        desk.store,  # type: ignore[arg-type]
        SETTINGS,
        "w",
        desk.metrics,
        content=lambda message, channel: drafted(content_of(message, channel), "https://m.example.com"),
        clock=lambda: desk.store.now,
        sleep=desk.store.sleep,
    )
    await desk.send(desk.message(text="x" * 120 + " https://a.test/" + "y" * 100))
    assert desk.used() == 1


# ----------------------------------------------------------------------------------------------------------- one by one


async def test_messages_that_come_one_by_one_go_at_the_pace(desk: Desk) -> None:
    instants = [await desk.send(desk.message()) for _ in range(4)]
    assert instants == pytest.approx([0, 0.1, 0.2, 0.3])
    assert desk.used() == 4


async def test_a_long_text_takes_as_long_as_its_parts(desk: Desk) -> None:
    instants = [await desk.send(desk.message(text="a" * 400)), await desk.send(desk.message())]
    assert instants == pytest.approx([0, 0.3])
    assert desk.used() == 4


async def test_a_batch_gets_what_is_free_and_the_others_are_told_when_to_come(desk: Desk) -> None:
    many = [desk.message() for _ in range(20)]
    booked = await desk.book(*many)
    waits = [wait.total_seconds() for wait in booked.waits["text"].values()]
    assert len(booked.turns) == 6  # now, and as many as half a second gives
    assert waits == sorted(waits)
    assert waits[-1] - waits[0] == pytest.approx(1.3)
    desk.pacing.decided(booked, dict(booked.turns.keys()), dict.fromkeys(booked.waits["text"], "text"))
    more = await desk.book(desk.message())
    assert min(more.waits["text"].values()).total_seconds() >= max(waits)


async def test_codes_have_their_turns_before_all_others(desk: Desk) -> None:
    codes, many = [desk.message(CODE) for _ in range(3)], [desk.message() for _ in range(20)]
    booked = await desk.book(*many, *codes)
    assert [booked.turns[code.id, "text"].at - 1000 for code in codes] == pytest.approx([0, 0, 0])
    assert "text" not in {name for one, name in booked.turns if one.startswith("c")}
    assert await desk.send(desk.message(CODE)) <= 0.2


async def test_a_message_that_is_twice_in_a_batch_has_one_turn(desk: Desk) -> None:
    one = desk.message()
    booked = await desk.book(one, one)
    assert len(booked.turns) == 1
    assert [ask.ordinary for ask in desk.store.asked] == [(1,)]


async def test_without_a_pace_nobody_is_asked(desk: Desk) -> None:
    booked = await desk.book(desk.message(channels=(Channel.PUSH,)), routes={Channel.PUSH: Route(("free",))})
    assert (booked.turns, booked.waits, desk.store.asked) == ({}, {}, [])
    assert desk.room("free") is None
    assert desk.room("text", "free") is None


# ---------------------------------------------------------------------------------------------------------------- ahead


async def test_turns_are_booked_ahead_for_those_that_wait_and_only_so_many_are_leased(desk: Desk) -> None:
    assert desk.room() == 1  # to learn whether any waits
    await desk.ahead()
    assert desk.room() == 5
    for _ in range(2):
        desk.pacing.coming(desk.message())
    assert desk.room() == 3
    desk.pacing.coming(desk.message(CODE))
    assert desk.room() == 3


async def test_what_was_booked_ahead_is_taken_without_asking_again(desk: Desk) -> None:
    await desk.ahead()
    before = len(desk.store.asked)
    instants = [await desk.send(desk.message()) for _ in range(5)]
    assert instants == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert len(desk.store.asked) == before


async def test_no_more_than_what_waits_is_booked_ahead(desk: Desk) -> None:
    await desk.ahead(2)
    assert desk.room() == 2


async def test_a_turn_that_nobody_took_is_not_saved_up(desk: Desk) -> None:
    await desk.ahead()
    desk.store.now += AHEAD / 1e6 + 0.3
    assert desk.room() == 0
    assert await desk.send(desk.message()) == pytest.approx(0.8)


async def test_a_turn_that_a_message_did_not_use_is_anothers(desk: Desk) -> None:
    await desk.ahead(1)
    booked = await desk.book(desk.message())
    assert desk.room() == 0
    desk.pacing.decided(booked, {})
    assert desk.room() == 1
    booked = await desk.book(desk.message(), desk.message())
    assert len(desk.store.asked) == 2
    desk.pacing.decided(booked, {})
    assert desk.room() == 2


async def test_what_a_message_leaves_of_its_turn_makes_the_next_cheaper(desk: Desk) -> None:
    for _ in range(20):
        await desk.send(desk.message(text="a" * 400))
    desk.store.now += 10
    await desk.ahead(2)
    assert [ask.ahead for ask in desk.store.asked[-1:]] == [(3, 3)]
    await desk.send(desk.message())
    await desk.ahead(2)
    assert [ask.ahead for ask in desk.store.asked[-1:]] == [(1,)]


async def test_turns_are_booked_ahead_only_while_messages_wait(desk: Desk) -> None:
    gained = asyncio.Event()
    running = asyncio.create_task(desk.pacing.run(gained.set))
    for _ in range(5):
        await asyncio.sleep(0)
    assert desk.store.asked == []
    desk.pacing.backlog(Channel.SMS, ("text",), 3)
    async with asyncio.timeout(5):
        await gained.wait()
    desk.pacing.backlog(Channel.SMS, ("text",), 0)
    for _ in range(5):
        await asyncio.sleep(0)
    asked = len(desk.store.asked)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(desk.store.asked) == asked
    running.cancel()


# -------------------------------------------------------------------------------------------------- routes and channels


async def test_where_the_first_has_no_turn_another_without_a_pace_is_free(desk: Desk) -> None:
    booked = await desk.book(*(desk.message() for _ in range(10)), routes={Channel.SMS: Route(("text", "free"))})
    assert len(booked.turns) == 6
    assert (len(booked.waits["text"]), "free" in booked.waits) == (4, False)


async def test_where_a_provider_is_not_to_be_tried_the_next_is_asked_for_a_turn(desk: Desk) -> None:
    routes = {Channel.SMS: Route(("text", "other"))}
    one, two, three = (desk.message() for _ in range(3))
    booked = await desk.book(one, routes=routes, **{one.id: {"text"}})
    assert list(booked.turns) == [(one.id, "other")]
    booked = await desk.book(two, routes=routes, health=Health(failing={(Channel.SMS, "text")}))
    assert two.id in booked.waits["text"]
    desk.store.now += 5
    booked = await desk.book(three, routes=routes, health=Health(full={"text"}))
    assert list(booked.turns) == [(three.id, "other")]


async def test_nothing_is_booked_for_a_channel_that_most_never_come_to(desk: Desk) -> None:
    routes = {Channel.PUSH: Route(("free",)), Channel.SMS: Route(("text",))}
    one = desk.message(channels=(Channel.PUSH, Channel.SMS))
    booked = await desk.book(one, routes=routes)
    assert desk.store.asked == []
    assert one.id in booked.waits["text"]
    desk.pacing.decided(booked, {}, {one.id: "text"})
    booked = await desk.book(one, routes=routes)
    assert list(booked.turns) == [(one.id, "text")]


@pytest.mark.parametrize("first", ["free", "other"])
async def test_who_can_go_to_one_provider_only_is_asked_a_turn_there_whichever_comes_first(
    desk: Desk, first: str
) -> None:
    """As what may have been sent, and is repeated where the vendor knows it again. Booking knows nothing of that."""
    routes = {Channel.SMS: Route((first, "text"))}
    one = desk.message()
    booked = await desk.book(one, routes=routes)
    assert (one.id, "text") not in booked.turns
    desk.pacing.decided(booked, {}, {one.id: "text"})
    booked = await desk.book(one, routes=routes)
    assert (one.id, "text") in booked.turns


async def test_a_token_of_any_provider_gets_its_turn(desk: Desk) -> None:
    one = desk.message(channels=(Channel.PUSH,))
    routes = {Channel.PUSH: Route(("text", "other"))}
    booked = await desk.book(one, routes=routes)
    desk.pacing.decided(booked, {}, {one.id: "text"})
    booked = await desk.book(one, routes=routes)
    assert set(booked.turns) == {(one.id, "text"), (one.id, "other")}


async def test_a_message_that_is_to_find_out_whether_a_provider_still_fails_gets_its_turn_there(desk: Desk) -> None:
    routes, way = {Channel.SMS: Route(("text", "other"))}, (Channel.SMS, "text")
    probe, another = desk.message(), desk.message()
    health = Health(failing={way}, probes={way: {probe.id}})
    booked = await desk.book(probe, another, routes=routes, health=health)
    assert set(booked.turns) == {(probe.id, "text"), (another.id, "other")}


async def test_by_weight_each_asks_for_its_turn_where_its_share_has_it_go(desk: Desk) -> None:
    route = Route(("text", "other"), (1, 1))
    many = [desk.message() for _ in range(20)]
    booked = await desk.book(*many, routes={Channel.SMS: route})
    wished = {ask.provider: len(ask.ordinary) for ask in desk.store.asked}
    first = Counter(str(to(route, Health(), message)) for message in many)
    assert wished == first
    assert len(first) == 2
    assert booked.turns


async def test_of_those_that_fail_no_turns_are_waited_for_while_another_can_be_asked(desk: Desk) -> None:
    await desk.ahead()
    assert desk.room("text", "other") == 5
    for _ in range(5):
        way, at = (Channel.SMS, "text"), utc_now()
        desk.health.began(way, "", at)
        desk.health.ended(way, failed(Unavailable("refused")), at, at)
    assert desk.room("text", "other") == 1
    assert desk.room("text", "free") is None
    assert desk.room("text") == 5
    assert desk.pacing.room(Channel.ROBOCALL, ("text", "other"), desk.health) == 5


def to(route: Route, health: Health, message: Message, now: datetime | None = None) -> str | Wait:
    """Where a decision has a message go."""
    critical = message.priority is CODE
    return choose(Channel.SMS, route, route.names, health, message.id, critical=critical, now=now or utc_now())


names = st.sampled_from(["text", "other", "free"])
ways = names.map(lambda name: (Channel.SMS, name))


@given(
    st.lists(names, min_size=1, unique=True),
    st.none() | st.just((2, 1, 0)),
    st.frozensets(ways),
    st.frozensets(names),
    st.frozensets(names),
    st.dictionaries(ways, st.floats(0, 100)),
    st.dictionaries(ways, st.frozensets(st.sampled_from(["m1", "m2", "m3"]))),
    st.lists(st.sampled_from([BULK, CODE]), min_size=1, max_size=12),
    st.sampled_from([0, 5]),
)
@settings(max_examples=300, deadline=None)
def test_nothing_goes_to_a_provider_that_has_a_pace_without_its_turn(
    route: list[str],
    weights: tuple[int, ...] | None,
    failing: frozenset[Any],
    paused: frozenset[str],
    full: frozenset[str],
    cut: dict[Any, float],
    probes: dict[Any, Any],
    priorities: list[Priority],
    later: int,
) -> None:
    desk, now = Desk(), utc_now()
    providers = Route(tuple(route), weights and weights[: len(route)])
    # One that is paused while turns are booked may be free when it is decided.
    health = Health(failing, {name: now + timedelta(seconds=5) for name in paused}, full, cut, probes)
    many = [desk.message(priority) for priority in priorities]
    booked = asyncio.run(desk.book(*many, routes={Channel.SMS: providers}, health=health))
    known = replace(health, paced=booked.waits)
    for message in many:
        provider = to(providers, known, message, now + timedelta(seconds=later))
        assert isinstance(provider, Wait) or provider == "free" or (message.id, provider) in booked.turns


# ------------------------------------------------------------------------------------------------------ without a store


async def test_without_an_answer_only_codes_go_and_few_of_them(desk: Desk) -> None:
    desk.store.away = True
    booked = await desk.book(*(desk.message() for _ in range(3)), *(desk.message(CODE) for _ in range(3)))
    assert len(booked.turns) == 1
    assert len(booked.waits["text"]) == 5
    assert all(wait >= timedelta(seconds=0.2) for wait in booked.waits["text"].values())
    desk.store.now += 0.9
    assert not (await desk.book(desk.message(CODE))).turns
    desk.store.now += 0.2
    assert (await desk.book(desk.message(CODE))).turns


async def test_without_an_answer_what_was_booked_is_used_up_and_no_more(desk: Desk) -> None:
    await desk.ahead(3)
    desk.store.away = True
    booked = await desk.book(*(desk.message() for _ in range(5)))
    assert len(booked.turns) == 3
    await desk.ahead(3)
    assert desk.room() == 0


async def test_while_another_books_it_is_asked_again(desk: Desk) -> None:
    desk.store.busy = 3
    assert (await desk.book(desk.message())).turns
    desk.store.busy = 4
    assert not (await desk.book(desk.message())).turns


async def test_no_turns_are_booked_at_a_provider_that_its_route_has_lost(desk: Desk) -> None:
    await desk.ahead(5)
    desk.pacing.backlog(Channel.SMS, ("free",), 0)  # after a reload
    desk.store.now += 60
    before = len(desk.store.asked)
    await desk.pacing.ahead()
    assert len(desk.store.asked) == before
