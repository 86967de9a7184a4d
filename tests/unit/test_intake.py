"""Is every request answered with what became of it, and is what was answered what the store holds?"""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.config import parse
from gateway.decide import Judge
from gateway.intake import Accepted, Conflict, Incoming, Intake, Malformed
from gateway.message import MessageState, OptOut, Priority, PushAddress
from gateway.metrics import Metrics
from gateway.store import Store, StoreUnavailable, engine_of
from gateway.store.engine import TURN, Fetch
from gateway.store.precedence import Precedence
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.intake import Answer
    from gateway.message import Message
    from gateway.store.engine import Operation

CONFIG = """
providers: {one: {kind: inbox}}
routes: {push: [one], sms: [one], email: [one]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, expires_after: 5m}
    receipt: {priority: high, channels: [email, sms]}
    news: {priority: bulk}
    call: {channels: [robocall, sms]}
"""
CONTENT = {
    "sms": {"text": "hello"},
    "email": {"subject": "s", "text": "t"},
    "push": {"title": "t", "body": "b"},
    "robocall": {"say": "hello"},
}
SMS = {"sms": CONTENT["sms"]}
LARGEST = 256 * 1024


def body(**fields: Any) -> dict[str, Any]:
    given = {"id": "r-1", "source": "orders", "user": "ann", "category": "news", "content": SMS} | fields
    return {key: value for key, value in given.items() if value is not ...}


class Door:
    """The intake before a real store."""

    def __init__(self, database: Path) -> None:
        self.engine = engine_of(f"sqlite:///{database}", lambda: time_ns() // 1000)
        self.store = Store(self.engine)
        self.config = parse(CONFIG, {}, base=Path())
        self.metrics = Metrics("test")
        self.judge = Judge(self.config.policy, 1, self.config.routes, {}, timedelta(seconds=10))
        self.intake = Intake(self.store, lambda: self.judge, self.metrics)

    async def ask(self, asked: Mapping[str, Any] | bytes, via: Any = "http", **more: Any) -> Answer:
        """As it comes: bytes over AMQP and from files, with the key's name over HTTP."""
        sent = asked if isinstance(asked, bytes) else orjson.dumps(asked)
        source = {"source": "orders"} if via == "http" else {}
        (answer,) = await self.intake.accept([Incoming(sent, via, **(source | more))])
        return answer

    async def taken(self, asked: Mapping[str, Any], **more: Any) -> Message:
        answer = await self.ask(asked, **more)
        assert isinstance(answer, Accepted), answer
        view = await self.store.view(answer.message)
        assert view is not None
        return view.message

    async def faults(self, asked: Mapping[str, Any] | bytes, **more: Any) -> dict[str, str]:
        answer = await self.ask(asked, **more)
        assert isinstance(answer, Malformed), answer
        return {fault.path: fault.problem for fault in answer.faults}

    async def messages(self) -> int:
        return (await self.store.backlog())[0]

    async def parked_bodies(self) -> list[bytes]:
        def bodies() -> Operation[list[bytes]]:
            return [base64.b64decode(row[0]) for row in (yield Fetch("select body from parked order by id"))]

        return await self.engine.read(bodies)

    def received(self, via: str, answer: str) -> float:
        labels = {"via": via, "answer": answer}
        return self.metrics.registry.get_sample_value("gateway_requests_received_total", labels) or 0


@pytest.fixture
async def door(empty: Path, tmp_path: Path) -> AsyncIterator[Door]:
    door = Door(shutil.copy(empty, tmp_path / "store.db"))
    await door.store.open()
    yield door
    await door.store.close()


EVERY_WAY = pytest.mark.parametrize("via", ["http", "amqp", "file"])

# ------------------------------------------------------------------------------------------------------------- accepted


class Watched(Precedence):
    """Remembers who had a breath as what."""

    def __init__(self) -> None:
        super().__init__()
        self.breaths: list[bool] = []

    async def breathe(self, *, critical: bool = False) -> None:
        self.breaths.append(critical)
        await super().breathe(critical=critical)


@pytest.mark.parametrize(("categories", "critical"), [(["code"], True), (["code", "news"], False), (["news"], False)])
async def test_a_batch_that_is_being_read_rests_for_codes_unless_it_is_of_codes_alone(
    door: Door, categories: list[str], critical: bool
) -> None:
    door.store.precedence = watched = Watched()
    asked = [body(id=f"r-{number}", category=categories[number % len(categories)]) for number in range(3 * TURN)]
    await door.intake.accept([Incoming(orjson.dumps(one), "amqp") for one in asked])
    assert watched.breaths == [critical] * 3


@EVERY_WAY
async def test_what_is_accepted_is_committed_with_all_that_a_worker_needs(door: Door, via: str) -> None:
    before = datetime.now(UTC)
    answer = await door.ask(body(campaign="wake"), via)
    assert isinstance(answer, Accepted)
    assert (answer.id, answer.state, answer.repeated) == ("r-1", MessageState.WAITING, False)
    view = await door.store.view(answer.message)
    assert view is not None
    message = view.message
    assert (message.source, message.request, message.person, message.category) == ("orders", "r-1", "ann", "news")
    assert (message.priority, message.channels, message.campaign) == (Priority.BULK, (Channel.SMS,), "wake")
    assert before <= message.accepted_at <= datetime.now(UTC)
    assert message.starts_at == message.accepted_at
    assert message.expires_at - message.accepted_at == timedelta(hours=72)  # DESIGN §8: no expires_at
    assert message.body["content"] == SMS
    assert await door.store.person("ann") is not None  # a person's row is made at intake
    assert door.received(via, "accepted") == 1


async def test_what_is_in_force_at_the_moment_says_what_is_accepted(door: Door) -> None:
    assert "category" in await door.faults(body(category="letter"))
    assert "channels[0]" in await door.faults(body(channels=["robocall"], content={"robocall": CONTENT["robocall"]}))
    changed = parse(
        CONFIG.replace("news: {", "letter: {").replace("email: [one]", "email: [one], robocall: [one]"), {}, base=Path()
    )
    door.judge = replace(door.judge, policy=changed.policy, number=2, routes=changed.routes)
    assert (await door.taken(body(id="r-2", category="letter"))).category == "letter"
    call = body(id="r-3", category="letter", channels=["robocall"], content={"robocall": CONTENT["robocall"]})
    assert (await door.taken(call)).channels == (Channel.ROBOCALL,)
    assert "category" in await door.faults(body(id="r-4", category="news"))


@EVERY_WAY
async def test_the_same_request_again_gets_the_same_message_and_its_present_state(door: Door, via: str) -> None:
    first = await door.ask(body(), "amqp")
    assert isinstance(first, Accepted)
    await door.store.cancel(first.message, door.judge)
    again = await door.ask(dict(reversed(body().items())), via)
    assert again == replace(first, state=MessageState.CANCELLED, repeated=True)
    assert door.received(via, "repeated") == 1


@EVERY_WAY
async def test_the_same_id_with_another_body_is_a_conflict(door: Door, via: str) -> None:
    first = await door.ask(body(), "http")
    assert isinstance(first, Accepted)
    assert await door.ask(body(user="bob"), via) == Conflict("r-1", first.message)
    assert await door.messages() == 1
    assert door.received(via, "conflict") == 1


async def test_the_same_id_of_another_source_is_another_request(door: Door) -> None:
    assert isinstance(await door.ask(body(), "amqp"), Accepted)
    assert isinstance(await door.ask(body(source="crm"), "amqp"), Accepted)
    assert await door.messages() == 2


async def test_over_http_the_source_is_the_keys_name_and_over_amqp_it_is_required(door: Door) -> None:
    assert (await door.taken(body(source="anybody"), source="orders")).source == "orders"
    assert (await door.taken(body(id="r-2", source=...), source="orders")).source == "orders"
    assert await door.faults(body(source=...), via="amqp") == {"source": "is required"}


async def test_a_batch_is_answered_in_its_order_and_one_bad_request_harms_no_other(door: Door) -> None:
    asked = [body(), body(id=""), body(id="r-2"), body(), body(user="bob"), b"[]", body(id="r-3")]
    sent = [item if isinstance(item, bytes) else orjson.dumps(item) for item in asked]
    answers = await door.intake.accept([Incoming(item, "amqp") for item in sent])
    assert [type(answer) for answer in answers] == [
        Accepted,
        Malformed,
        Accepted,
        Accepted,
        Conflict,
        Malformed,
        Accepted,
    ]
    assert [answer.repeated for answer in answers if isinstance(answer, Accepted)] == [False, False, True, False]
    assert await door.messages() == 3
    assert await door.intake.accept([]) == []


async def test_nothing_is_answered_while_the_store_is_away(door: Door) -> None:
    await door.store.close()
    with pytest.raises(StoreUnavailable):
        await door.ask(body())
    assert door.received("http", "accepted") == 0


# -------------------------------------------------------------------------------------------------------------- parking


@pytest.mark.parametrize("via", ["amqp", "file"])
async def test_what_nobody_can_answer_to_is_parked_as_it_came_with_its_reason(door: Door, via: str) -> None:
    bad = orjson.dumps(body(user=""))
    assert isinstance(await door.ask(bad, via), Malformed)
    assert isinstance(await door.ask(b"\xff\x00 not JSON", via), Malformed)
    await door.ask(body(), via)
    conflicting = orjson.dumps(body(user="bob"))
    assert isinstance(await door.ask(conflicting, via), Conflict)

    kept = list(reversed(await door.store.parked(10)))
    assert [(row["via"], row["request"], row["reason"]) for row in kept] == [
        (via, "r-1", "malformed"),
        (via, None, "malformed"),
        (via, "r-1", "conflict"),
    ]
    assert [[fault["path"] for fault in row["faults"]] for row in kept] == [["user"], [""], ["id"]]
    assert await door.parked_bodies() == [bad, b"\xff\x00 not JSON", conflicting]


async def test_over_http_nothing_is_parked_for_the_caller_is_told(door: Door) -> None:
    await door.ask(body(user=""))
    await door.ask(b"nonsense")
    await door.ask(body())
    await door.ask(body(user="bob"))
    assert await door.store.parked(10) == []


async def test_a_parked_id_is_not_used_up(door: Door) -> None:
    assert isinstance(await door.ask(body(user=""), "amqp"), Malformed)
    assert isinstance(await door.ask(body(), "amqp"), Accepted)


@pytest.mark.parametrize("bad", ["a\x00b", "", "x" * 129, 7, None])
async def test_what_is_parked_can_always_be_kept(door: Door, bad: object) -> None:
    assert isinstance(await door.ask(body(id=bad), "amqp"), Malformed)
    (kept,) = await door.store.parked(10)
    assert kept["request"] is None


# ----------------------------------------------------------------------------------------------- what the policy allows


async def test_a_category_must_be_configured(door: Door) -> None:
    found = await door.faults(body(category="secret-project"))
    assert list(found) == ["category"]
    assert "call, code, news, receipt" in found["category"]
    assert "secret-project" not in found["category"]


async def test_raising_a_priority_needs_the_keys_scope(door: Door) -> None:
    for priority in ("critical", "high", "normal"):
        found = await door.faults(body(priority=priority))
        assert list(found) == ["priority"]
        assert "bulk" in found["priority"]
    raised = await door.taken(body(priority="critical"), may_raise_priority=True)
    assert raised.priority is Priority.CRITICAL
    assert "priority" in await door.faults(body(id="r-2", priority="high"), via="amqp")


@pytest.mark.parametrize("priority", ["critical", "high", "normal", "bulk"])
async def test_lowering_a_priority_needs_none(door: Door, priority: str) -> None:
    assert (await door.taken(body(category="code", priority=priority))).priority.word == priority


async def test_channels_are_the_requests_or_the_categorys_or_those_there_is_content_for(door: Door) -> None:
    asked = await door.taken(body(id="1", channels=["email", "push"], content=CONTENT))
    assert asked.channels == (Channel.EMAIL, Channel.PUSH)
    usual = await door.taken(body(id="2", category="receipt", content=CONTENT))
    assert usual.channels == (Channel.EMAIL, Channel.SMS)
    partly = await door.taken(body(id="3", category="receipt"))
    assert partly.channels == (Channel.SMS,)
    routed = await door.taken(body(id="4", content=CONTENT))
    assert routed.channels == (Channel.PUSH, Channel.SMS, Channel.EMAIL)
    unrouted = await door.taken(body(id="5", category="call", content=CONTENT))
    assert unrouted.channels == (Channel.SMS,)


async def test_a_channel_without_content_or_route_is_named(door: Door) -> None:
    found = await door.faults(body(channels=["sms", "email", "robocall"], content=CONTENT | {"email": None}))
    assert set(found) == {"content.email", "channels[2]"}
    assert "is missing" in found["content.email"]
    assert "no route" in found["channels[2]"]
    nothing = await door.faults(body(category="receipt", content={"push": CONTENT["push"]}))
    assert nothing == {"content": "needs something for one of: email, sms"}


async def test_an_expiry_in_the_past_is_refused(door: Door) -> None:
    now = datetime.now(UTC)
    for past in (now - timedelta(days=400), now - timedelta(seconds=1)):
        assert await door.faults(body(expires_at=past.isoformat())) == {"expires_at": "has passed already"}
    soon = await door.taken(body(expires_at=(now + timedelta(minutes=1)).isoformat()))
    assert soon.expires_at == now + timedelta(minutes=1)


async def test_without_an_expiry_it_is_the_categorys_from_when_it_may_start(door: Door) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    message = await door.taken(body(category="code", not_before=later.isoformat()))
    assert (message.starts_at, message.expires_at) == (later, later + timedelta(minutes=5))
    past = await door.taken(body(id="r-2", not_before="2020-01-01T00:00:00Z"))
    assert past.starts_at == past.accepted_at


async def test_every_fault_of_a_request_is_told_at_once(door: Door) -> None:
    found = await door.faults(body(priority="high", expires_at="2020-01-01T00:00:00Z", channels=["email"]))
    assert set(found) == {"priority", "expires_at", "content.email"}


# ------------------------------------------------------------------------------------------------------- size and depth


def sized(size: int) -> bytes:
    """A good request of so many bytes."""
    asked = body(content={"email": {"subject": "s", "text": ""}})
    asked["content"]["email"]["text"] = "x" * (size - len(orjson.dumps(asked)))
    sent = orjson.dumps(asked)
    assert len(sent) == size
    return sent


async def test_256_kb_are_taken_and_a_byte_more_is_not(door: Door) -> None:
    assert isinstance(await door.ask(sized(LARGEST), "amqp"), Accepted)
    found = await door.faults(sized(LARGEST + 1), via="amqp")
    assert list(found) == [""]
    assert str(LARGEST) in found[""]


async def test_32_levels_are_read_and_33_are_not(door: Door) -> None:
    def nested(deep: int) -> bytes:
        lists = deep - 1  # the request itself is the first level
        return orjson.dumps(body(extra=...))[:-1] + b',"extra":' + b"[" * lists + b"]" * lists + b"}"

    assert await door.faults(nested(32)) == {"extra": "is not a known field: remove it, or mend its spelling"}
    found = await door.faults(nested(33))
    assert list(found) == [""]
    assert "32 deep" in found[""]
    assert "" in await door.faults(nested(100_000))
    wide = {"a": [{}] * 1000}
    assert list(await door.faults(body(extra=wide))) == ["extra"]


@pytest.mark.parametrize(
    "bad", [b"", b"null", b"[]", b'"text"', b"7", b"{", b"{}{}", b"\xef\xbb\xbf{}", b"{'id': 1}", b'{"id": NaN}']
)
async def test_what_is_no_json_object_is_said_to_be_none(door: Door, bad: bytes) -> None:
    assert list(await door.faults(bad)) == [""]


# ------------------------------------------------------------------------------------------------------------- profiles


async def profiles(door: Door, *told: Any) -> list[dict[str, str]]:
    sent = [item if isinstance(item, bytes) else orjson.dumps(item) for item in told]
    answers = await door.intake.accept_profiles(sent)
    return [{fault.path: fault.problem for fault in faults} for faults in answers]


async def test_a_profile_replaces_what_was_known(door: Door) -> None:
    full = {
        "user": "ann",
        "phone": "+14155552671",
        "email": "ann@example.com",
        "push": [{"token": "t", "platform": "ios"}],
        "timezone": "Asia/Tokyo",
        "locale": "ja",
        "app_installed": True,
        "opted_out": [{"channel": "sms"}, {"category": "news"}, {}],
    }
    assert await profiles(door, full) == [{}]
    person = await door.store.person("ann")
    assert person is not None
    known = person.person.profile
    assert (known.phone, known.email, known.timezone) == ("+14155552671", "ann@example.com", "Asia/Tokyo")
    assert known.push == (PushAddress(token="t", platform="ios"),)
    assert (known.locale, known.app_installed) == ("ja", True)
    assert set(person.person.optouts) == {OptOut(), OptOut(channel=Channel.SMS), OptOut(category="news")}

    assert await profiles(door, {"user": "ann"}) == [{}]
    person = await door.store.person("ann")
    assert person is not None
    assert person.person.profile.phone is None
    assert len(person.person.optouts) == 3  # left out: what was said before stays


async def test_a_bad_profile_is_parked_with_every_fault_and_the_others_are_taken(door: Door) -> None:
    answers = await profiles(
        door, {"user": "ann", "locale": "en"}, {"phone": "1", "nonsense": 1}, b"nonsense", {"user": "bob"}
    )
    assert [set(faults) for faults in answers] == [set(), {"user", "phone", "nonsense"}, {""}, set()]
    assert await door.store.person("bob") is not None
    kept = await door.store.parked(10)
    assert [(row["via"], row["reason"]) for row in kept] == [("amqp", "malformed")] * 2


@pytest.mark.parametrize("bad", [None, "", "a\x00", "x" * 129, 7])
async def test_a_profile_says_whose_it_is(door: Door, bad: object) -> None:
    assert [list(faults) for faults in await profiles(door, {"user": bad})] == [["user"]]


async def test_the_last_of_two_profiles_of_a_person_counts(door: Door) -> None:
    await profiles(door, {"user": "ann", "locale": "en"}, {"user": "ann", "locale": "ja"})
    person = await door.store.person("ann")
    assert person is not None
    assert person.person.profile.locale == "ja"


async def test_a_phone_is_kept_in_the_form_in_which_it_is_compared(door: Door) -> None:
    asked = await door.taken(body(to={"phone": "+4407911123456"}))
    assert asked.body["to"] == {"phone": "+447911123456"}
