"""Is what is done with messages remembered once, owed to the right one, and told to others?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.acts import Deed
from gateway.message import AttemptState, OptOut, Profile, PushAddress
from gateway.store import Claimed
from providers import Act, Agent, Channel, ReceiptStatus
from tests.contract.world import ACCEPTED, NOON, PHONE, World, outcome, receipt

if TYPE_CHECKING:
    from typing import Any

    from gateway.acts import Noted
    from gateway.store import NewMessage

HOUR = timedelta(hours=1)
HARDLY = "  caps: [{name: hardly, limit: 9, per: 24h}]\n"


@pytest.fixture
def world(world: World) -> World:
    """One that tells others of every act."""
    world.judge = replace(world.judge, acts=frozenset(Act))
    return world


def deed(key: str, act: Act = Act.OPENED, agent: Agent = Agent.HUMAN, **fields: Any) -> Deed:
    return Deed(act, agent, fields.pop("via", "app"), key, **fields)


async def record(world: World, *deeds: Deed) -> list[Noted | None]:
    return await world.store.record(deeds, world.judge)


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Routing keys and bodies of the acts that were announced."""
    found = [(key, orjson.loads(body)) for _, _, key, body in await world.store.unpublished(1000)]
    return [(key, event) for key, event in found if "act" in event]


async def acts(world: World, new: NewMessage) -> list[tuple[Act, Agent, Channel | None]]:
    return [(one.act, one.agent, one.channel) for one in (await world.view(new)).acts]


# ------------------------------------------------------------------------------------------------------- once, in order


async def test_an_act_of_an_attempt_is_its_messages(world: World) -> None:
    new = world.new(labels={"team": "growth"})
    claimed = await world.claimed(new)
    await world.settle(claimed, ACCEPTED)
    (noted,) = await record(world, deed("k", attempt=claimed.attempt.id))
    assert noted
    assert (noted.owed.message, noted.owed.person, noted.owed.channel) == (new.message.id, "ann", Channel.SMS)
    assert await acts(world, new) == [(Act.OPENED, Agent.HUMAN, Channel.SMS)]
    ((key, event),) = await told(world)
    assert key == "message.opened"
    assert (event["message"], event["user"], event["agent"]) == (new.message.id, "ann", "human")
    assert event["labels"] == {"team": "growth"}


async def test_what_is_told_twice_is_one_act(world: World) -> None:
    claimed = await world.claimed(world.new())
    one = deed("k", attempt=claimed.attempt.id)
    first = await record(world, one, one)
    assert [noted is not None for noted in first] == [True, False]
    assert await record(world, one) == [None]
    assert len(await told(world)) == 1


async def test_a_machine_and_a_person_are_told_apart(world: World) -> None:
    new = world.new()
    claimed = await world.claimed(new)
    await record(
        world,
        deed("a", attempt=claimed.attempt.id, agent=Agent.MACHINE, why="prefetch"),
        deed("b", attempt=claimed.attempt.id),
    )
    assert {agent for _, agent, _ in await acts(world, new)} == set(Agent)


async def test_what_belongs_to_nobody_we_know_is_not_remembered(world: World) -> None:
    new = world.new()
    await world.sent(new)
    strangers = (
        deed("a", attempt="0" * 26),
        deed("b", message="0" * 26),
        deed("c", person="nobody"),
        deed("d", message=new.message.id, person="bob"),  # whose message it is not
    )
    assert await record(world, *strangers) == [None] * 4
    assert await told(world) == []


async def test_an_act_of_a_message_is_of_the_attempt_that_reached_the_person(world: World) -> None:
    new = world.new()
    again = await world.settle(await world.claimed(new), outcome(AttemptState.UNREACHABLE))
    assert isinstance(again, Claimed)
    await world.settle(again, ACCEPTED)
    (noted,) = await record(world, deed("k", message=new.message.id))
    assert noted
    assert (noted.owed.attempt, noted.owed.channel) == (again.attempt.id, Channel.EMAIL)


async def test_an_act_of_a_message_that_is_under_way_is_of_what_may_have_reached_the_person(world: World) -> None:
    new = world.new()
    claimed = await world.claimed(new)
    (noted,) = await record(world, deed("a", message=new.message.id))
    assert noted
    assert (noted.owed.attempt, noted.owed.channel) == (claimed.attempt.id, Channel.SMS)
    again = await world.settle(claimed, outcome(AttemptState.NOT_SENT))
    assert isinstance(again, Claimed)
    await world.store.receipt([receipt(claimed, ReceiptStatus.ACCEPTED)], world.judge)  # it was sent after all
    (noted,) = await record(world, deed("b", message=new.message.id))
    assert noted
    assert noted.owed.attempt == claimed.attempt.id


async def test_nothing_is_done_later_than_now(world: World) -> None:
    new = world.new()
    await world.sent(new)
    await record(world, deed("a", message=new.message.id, done_at=NOON + HOUR))
    await record(world, deed("b", message=new.message.id, done_at=NOON - HOUR))
    assert [act.at for act in (await world.view(new)).acts] == [NOON - HOUR, NOON]


async def test_a_request_names_the_message_that_was_made_of_it(world: World) -> None:
    new, other = world.new(request="r-1"), world.new("bob", request="r-1", source="crm")
    await world.sent(new)
    await world.sent(other)
    one = deed("a", request=("tests", "r-1"))
    (noted, *strangers) = await record(
        world,
        one,
        deed("b", request=("tests", "r-2")),
        deed("c", request=("crm", "r-2")),
        deed("d", request=("crm", "r-1"), person="ann"),
    )
    assert noted
    assert (noted.owed.message, noted.owed.person, noted.owed.channel) == (new.message.id, "ann", Channel.SMS)
    assert strangers == [None] * 3


async def test_of_what_is_told_twice_at_once_the_first_counts(world: World) -> None:
    new, other = world.new(), world.new("bob")
    await world.sent(new)
    await world.sent(other)
    first = await record(world, deed("k", message=new.message.id), deed("k", message=other.message.id))
    assert [noted and noted.owed.message for noted in first] == [new.message.id, None]
    assert await acts(world, other) == []


async def test_an_act_is_found_again_by_its_key(world: World) -> None:
    new = world.new(request="r-1")
    await world.sent(new)
    await record(world, deed("a", Act.CONVERTED, message=new.message.id, stage="applied", done_at=NOON - HOUR))
    await record(world, deed("b", person="ann", done_at=NOON - HOUR))  # before anything could have led to it
    found = await world.store.known_acts(["a", "b", "c"])
    assert set(found) == {"a", "b"}
    record_, owed = found["a"].record, found["a"].owed
    assert (record_.act, record_.stage, record_.at) == (Act.CONVERTED, "applied", NOON - HOUR)
    assert (owed.person, owed.message, owed.category) == ("ann", new.message.id, "campaign")
    assert owed.attempt == (await world.view(new)).attempts[0].id
    assert found["a"].request == ("tests", "r-1")
    assert (found["b"].owed.message, found["b"].request) == (None, None)


# ---------------------------------------------------------------------------------------------------------- conversions


async def test_a_conversion_that_names_no_message_is_owed_to_the_last_contact_within_its_window(world: World) -> None:
    world.ruled(HARDLY)
    world.changed("campaign", conversion_window=2 * HOUR)
    world.changed("receipt", conversion_window=timedelta(minutes=1))
    first, last, short = world.new(), world.new("ann"), world.new("ann", "receipt")
    await world.sent(first)
    world.pass_time(hours=1)
    await world.sent(last)
    world.pass_time(minutes=10)
    await world.sent(short)
    world.pass_time(minutes=30)
    (noted,) = await record(world, deed("k", Act.CONVERTED, person="ann", stage="applied"))
    assert noted
    assert (noted.owed.message, noted.owed.category, noted.owed.channel) == (last.message.id, "campaign", Channel.SMS)
    ((_, event),) = await told(world)
    assert (event["reached"], event["message"]) == ("applied", last.message.id)


async def test_a_conversion_that_is_told_late_is_owed_to_what_was_before_it(world: World) -> None:
    world.changed("campaign", conversion_window=2 * HOUR)
    new = world.new()
    await world.sent(new)
    world.pass_time(days=30)
    done_at = NOON + timedelta(minutes=119)
    told_late = deed("a", Act.CONVERTED, person="ann", done_at=done_at)
    too_late = deed("b", Act.CONVERTED, person="ann", done_at=NOON + 2 * HOUR)
    noted = await record(world, told_late, too_late)
    assert [one and one.owed.message for one in noted] == [new.message.id, None]


async def test_a_conversion_that_nothing_led_to_is_the_persons_own(world: World) -> None:
    new = world.new()
    await world.sent(new)
    world.pass_time(days=8)
    (noted,) = await record(world, deed("k", Act.CONVERTED, person="ann", stage="applied"))
    assert noted
    assert noted.owed.message is None
    assert [key for key, _ in await told(world)] == ["person.converted"]
    assert await acts(world, new) == []


async def test_a_conversion_is_not_owed_to_what_did_not_arrive(world: World) -> None:
    new = world.new()
    claimed = await world.claimed(new)
    await world.settle(claimed, ACCEPTED)
    await world.store.receipt([receipt(claimed, ReceiptStatus.UNDELIVERED)], world.judge)
    (noted,) = await record(world, deed("k", Act.CONVERTED, person="ann"))
    assert noted
    assert noted.owed.message is None


# --------------------------------------------------------------------------------------------------------- who has left


@pytest.fixture
def heard(world: World) -> list[Noted]:
    """What the store says that it has remembered."""
    noted: list[Noted] = []
    world.store._hear = noted.extend
    return noted


async def test_a_no_is_remembered_with_the_pressure_before_it(world: World, heard: list[Noted]) -> None:
    world.ruled(HARDLY)
    new = world.new()
    claimed = await world.claimed(new)
    await world.settle(claimed, ACCEPTED)
    await world.sent(world.new())
    no = OptOut(category="campaign")
    assert await world.store.opt_out("ann", no, "one_click", world.judge, claimed.attempt.id)
    assert await world.store.opt_out("ann", no, "one_click", world.judge, claimed.attempt.id)
    assert [(one.deed.act, one.deed.via, one.owed.message, one.band) for one in heard] == [
        (Act.OPTED_OUT, "one_click", new.message.id, "1-2")
    ]
    ((key, event),) = await told(world)
    assert (key, event["opted_out"]) == ("message.opted_out", {"by": "person", "category": "campaign"})
    assert [act.no for act in (await world.view(new)).acts] == [{"by": "person", "category": "campaign"}]


async def test_a_no_of_an_address_is_remembered_of_everybody_who_was_contacted_there(
    world: World, heard: list[Noted]
) -> None:
    await world.sent(world.new("ann"))
    await world.sent(world.new("bob"))
    await world.sent(world.new("cleo", to={"phone": "+447400999999"}))
    await world.store.opt_out_address(PHONE, OptOut(), "stop", world.judge)
    await world.store.opt_out_address(PHONE, OptOut(), "stop", world.judge)
    assert sorted((one.owed.person, one.band) for one in heard) == [("ann", "1-2"), ("bob", "1-2")]


async def uninstall(world: World, *tokens: str, profile: Profile | None = None) -> NewMessage:
    """A push to whichever device is tried first, whose token is dead."""
    await world.store.put_profiles([("ann", profile or Profile())])
    devices = [{"token": token, "platform": "ios"} for token in tokens]
    new = world.new(channels=(Channel.PUSH,), to={"push": devices} if devices else {})
    new = replace(
        new, message=replace(new.message, body={**new.message.body, "content": {"push": {"title": "t", "body": "b"}}})
    )
    step = await world.claimed(new)
    await world.settle(step, outcome(AttemptState.UNREACHABLE))
    return new


async def test_a_dead_token_goes_from_the_profile_and_the_last_one_is_an_uninstall(
    world: World, heard: list[Noted]
) -> None:
    devices = tuple(PushAddress(token=token, platform="ios") for token in ("one", "two"))
    new = await uninstall(world, profile=Profile(push=devices, phone=PHONE))
    kept = (await world.person()).person.profile
    assert [device.token for device in kept.push] == ["two"]
    assert kept.phone == PHONE
    assert heard == []
    (second,) = [step for step in await world.due() if isinstance(step, Claimed)] or [None]
    assert second is None  # the second token was tried in the settlement
    claimed = (await world.view(new)).attempts[-1]
    assert claimed.state is AttemptState.INTENT


async def test_the_only_token_of_a_request_may_be_the_last_one(world: World, heard: list[Noted]) -> None:
    await uninstall(world, "one")
    assert [(one.deed.act, one.owed.person, one.band) for one in heard] == [(Act.UNINSTALLED, "ann", "0")]
    assert (await world.person()).person.profile.app_installed is False
    assert [key for key, _ in await told(world)] == ["message.uninstalled"]


async def test_a_device_that_a_request_does_not_name_is_no_uninstall(world: World, heard: list[Noted]) -> None:
    device = PushAddress(token="kept", platform="ios")
    await uninstall(world, "one", profile=Profile(push=(device,)))
    assert heard == []
    assert (await world.person()).person.profile.push == (device,)


async def test_who_has_left_does_not_leave_again(world: World, heard: list[Noted]) -> None:
    await uninstall(world, "one")
    await uninstall(world, "two", profile=Profile(app_installed=False))
    assert len(heard) == 1
