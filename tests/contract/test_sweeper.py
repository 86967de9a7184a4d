"""Does the sweeper ask vendors that can tell, and apply what they say, on both stores?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.message import AttemptState, MessageState
from gateway.metrics import Metrics
from gateway.outcome import Outcome
from gateway.sweeper import Sweeper
from gateway.unknown import Recourse
from providers import Channel
from tests.contract.cases import cases, http_settings
from tests.contract.test_http import looking
from tests.contract.wire import RESET, json_reply

if TYPE_CHECKING:
    from gateway.store import NewMessage
    from tests.contract.world import World

LOST = Outcome(AttemptState.UNKNOWN, error="unconfirmed:timeout")
CASE = cases()["http"]


class House:
    """A world whose provider ``one`` can be asked, and its sweeper."""

    def __init__(self, world: World, provider: Any) -> None:
        world.judge = replace(world.judge, recourses={"one": Recourse(looked_up=True)})
        self.world = world
        self.metrics = Metrics("test")
        self.told = 0
        self.sweeper = Sweeper(world.store, lambda: world.judge, {"one": provider}, "me", self.metrics, self.tell)

    def tell(self) -> None:
        self.told += 1

    async def lost(self, person: str = "ann") -> NewMessage:
        new = self.world.new(person, channels=(Channel.SMS,))
        await self.world.settle(await self.world.claimed(new), LOST)
        return new

    def asked(self, answer: str) -> float | None:
        labels = {"provider": "one", "answer": answer}
        return self.metrics.registry.get_sample_value("gateway_look_ups_total", labels)


@pytest.fixture
async def house(world: World, opened: Any, wired: Any, request: pytest.FixtureRequest) -> House:
    wire = await wired(CASE, answer=request.param)
    return House(world, await opened(http_settings(wire.port, look_up=looking(wire.port), timeout=2)))


DONE = json_reply(200, {"items": [{"state": "done", "id": "v-1"}]})


@pytest.mark.parametrize("house", [DONE], indirect=True)
async def test_what_the_vendor_says_is_evidence(house: House) -> None:
    new = await house.lost()
    assert not await house.sweeper.page()
    assert await house.world.state(new) is MessageState.WAITING  # ten seconds have not passed
    house.world.pass_time(seconds=10)
    await house.sweeper.page()
    assert await house.world.state(new) is MessageState.DELIVERED
    assert (await house.world.view(new)).attempts[0].reference == "v-1"
    assert [state for _, state, _ in await house.world.events()][-1] == "delivered"
    assert (house.asked("delivered"), house.told) == (1, 1)


@pytest.mark.parametrize("house", [json_reply(200, {"items": []})], indirect=True)
async def test_a_vendor_that_knows_nothing_is_asked_again_and_then_the_category_decides(house: House) -> None:
    new = await house.lost()
    for _ in range(12):
        house.world.pass_time(seconds=5)
        await house.sweeper.page()
    assert house.asked("nothing") == 2  # after 10 and 40 seconds
    await house.world.due()
    assert await house.world.state(new) is MessageState.UNKNOWN


@pytest.mark.parametrize("house", [RESET], indirect=True)
async def test_a_vendor_that_cannot_be_asked_is_left_alone_until_the_next_page(house: House) -> None:
    for number in range(30):
        await house.lost(f"p{number}")
    house.world.pass_time(seconds=10)
    with capture_logs() as logs:
        await house.sweeper.page()
    failed = house.asked("failed")
    assert failed is not None
    assert 5 <= failed <= 15  # those under way when the fifth failed are not stopped
    assert {log["error"] for log in logs if log["event"] == "look_up.failed"} == {"reset"}


@pytest.mark.parametrize("house", [DONE], indirect=True)
async def test_what_nobody_will_ever_know_is_counted(house: House) -> None:
    house.world.judge = replace(house.world.judge, recourses={})
    new = await house.lost()
    house.world.now = new.message.expires_at
    house.world.pass_time(hours=72)
    await house.sweeper.page()
    waiting = house.world.new()
    await house.world.accept(waiting)
    house.world.now = waiting.message.expires_at
    house.world.pass_time(hours=72)
    await house.sweeper.overdue()
    for state in ("unknown", "expired"):
        value = house.metrics.registry.get_sample_value("gateway_messages_closed_total", {"state": state})
        assert value == 1, state
