"""Is every event that a service reports answered with what became of it, and remembered once?"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.acts import Deed
from gateway.config import parse
from gateway.decide import Judge
from gateway.headroom import Headroom, NoRoom, Space
from gateway.ids import new_id
from gateway.intake import Incoming, Malformed
from gateway.lines import line_of
from gateway.message import Message, Priority, Profile, microseconds, rfc3339
from gateway.metrics import Metrics
from gateway.reports import Answer, Recorded, Reports, Reused, Unmatched
from gateway.store import NewMessage, Store, engine_of
from providers import Act, Agent, Channel
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

NOW = datetime(2026, 11, 24, 12, 3, tzinfo=UTC)
KEPT = timedelta(days=60)
CONFIG = "{providers: {one: {kind: inbox}}, routes: {sms: [one]}, policy: {timezone: UTC, categories: {news: {}}}}"


def body(**fields: Any) -> dict[str, Any]:
    given = {"id": "e-1", "source": "loans", "event": "opened", "user": "ann"} | fields
    return {key: value for key, value in given.items() if value is not ...}


class Door:
    """Where events come in, before a real store."""

    def __init__(self, database: Path) -> None:
        self.store = Store(engine_of(f"sqlite:///{database}", lambda: microseconds(NOW)))
        config = parse(CONFIG, {}, base=Path())
        judge = Judge(config.policy, 1, config.routes, {}, timedelta(seconds=10), acts=frozenset(Act))
        self.judge = judge
        self.metrics = Metrics("test")
        self.space = Space(50 << 30, 100 << 30)
        headroom = Headroom(lambda: self.space)
        self.reports = Reports(self.store, lambda: judge, self.metrics, lambda: KEPT, headroom, lambda: NOW)

    async def know(self, *people: str) -> None:
        await self.store.put_profiles([(name, Profile()) for name in people])

    async def message(self, user: str = "ann", request: str = "r-1", source: str = "loans") -> str:
        """One that was accepted."""
        category = self.judge.policy.categories["news"]
        message = Message(
            id=new_id(),
            source=source,
            request=request,
            person=user,
            category="news",
            channels=(Channel.SMS,),
            priority=Priority.NORMAL,
            accepted_at=NOW,
            starts_at=NOW,
            expires_at=NOW + timedelta(days=1),
            campaign=None,
            body={"content": {"sms": {"text": "secret words"}}},
        )
        line = line_of(message, category, self.judge.policy.labels)
        await self.store.accept([NewMessage(message, request, line, 1)])
        return message.id

    async def ask(self, *told: Mapping[str, Any] | bytes, via: Any = "amqp", source: str | None = None) -> list[Answer]:
        bodies = [one if isinstance(one, bytes) else orjson.dumps(one) for one in told]
        return await self.reports.take([Incoming(one, via, source) for one in bodies])

    async def one(self, told: Mapping[str, Any] | bytes, **more: Any) -> Answer:
        (answer,) = await self.ask(told, **more)
        return answer

    async def faults(self, told: Mapping[str, Any] | bytes, **more: Any) -> dict[str, str]:
        answer = await self.one(told, **more)
        assert isinstance(answer, Malformed), answer
        return {fault.path: fault.problem for fault in answer.faults}

    async def acts(self, message: str) -> list[tuple[Act, Agent, str, str | None, datetime]]:
        view = await self.store.view(message)
        assert view
        return [(act.act, act.agent, act.via, act.stage, act.at) for act in view.acts]

    async def parked(self) -> list[tuple[Any, ...]]:
        found = await self.store.parked(10)
        return [(row["via"], row["source"], row["request"], row["reason"]) for row in found]

    def counted(self, event: str, answer: str) -> float:
        labels = {"event": event, "answer": answer}
        return self.metrics.registry.get_sample_value("gateway_reports_total", labels) or 0


@pytest.fixture
async def door(empty: Path, tmp_path: Path) -> AsyncIterator[Door]:
    door = Door(shutil.copy(empty, tmp_path / "store.db"))
    await door.store.open()
    yield door
    await door.store.close()


# -------------------------------------------------------------------------------------------------------------- matched


async def test_what_names_a_message_by_our_id_or_by_theirs_is_owed_to_it(door: Door) -> None:
    message = await door.message()
    by_ours = body(message=message, user=..., at="2026-11-24T12:01:00Z")
    by_theirs = body(id="e-2", event="converted", request="r-1", user=..., stage="applied")
    assert await door.ask(by_ours, by_theirs) == [
        Recorded("e-1", message, repeated=False),
        Recorded("e-2", message, repeated=False),
    ]
    assert await door.acts(message) == [
        (Act.OPENED, Agent.HUMAN, "service", None, NOW - timedelta(minutes=2)),
        (Act.CONVERTED, Agent.HUMAN, "service", "applied", NOW),
    ]


async def test_what_names_a_person_alone_and_is_owed_to_nothing_is_the_persons_own(door: Door) -> None:
    await door.know("ann")
    assert await door.one(body(event="app_opened")) == Recorded("e-1", None, repeated=False)
    ((_, _, key, event),) = await door.store.unpublished(10)
    told = orjson.loads(event)
    assert (key, told["act"], told["user"], told["via"]) == ("person.app_opened", "app_opened", "ann", "service")


async def test_over_http_the_source_is_the_keys_name_and_so_are_the_requests(door: Door) -> None:
    message = await door.message(source="loans")
    await door.message(source="crm")
    sent = body(source=..., request="r-1", user=...)
    assert await door.one(sent, via="http", source="loans") == Recorded("e-1", message, repeated=False)
    assert "source" in await door.faults(sent)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "nobody"},
        {"user": ..., "message": "0" * 26},
        {"message": "0" * 26},
        {"user": ..., "request": "r-9"},
        {"user": "bob", "request": "r-1"},
        {"user": ..., "request": "r-1", "source": "crm"},
    ],
)
async def test_what_names_nobody_and_nothing_that_we_know_is_no_fault_and_not_remembered(
    door: Door, fields: dict[str, Any]
) -> None:
    message = await door.message()
    await door.know("bob")
    assert await door.one(body(**fields)) == Unmatched("e-1")
    assert await door.acts(message) == []
    assert await door.parked() == []
    assert await door.store.unpublished(10) == []
    assert door.counted("opened", "unmatched") == 1


async def test_what_was_unmatched_may_be_reported_again(door: Door) -> None:
    assert await door.one(body()) == Unmatched("e-1")
    await door.know("ann")
    assert await door.one(body()) == Recorded("e-1", None, repeated=False)


# ------------------------------------------------------------------------------------------------------------- repeated


async def test_the_same_again_is_the_same_answer_and_one_act(door: Door) -> None:
    message = await door.message()
    sent = body(request="r-1")
    first = await door.ask(sent, sent)
    assert first == [Recorded("e-1", message, repeated=False), Recorded("e-1", message, repeated=True)]
    assert await door.one(sent) == Recorded("e-1", message, repeated=True)
    assert len(await door.acts(message)) == 1
    assert [door.counted("opened", answer) for answer in ("recorded", "repeated")] == [1, 2]


async def test_an_id_is_its_sources_own(door: Door) -> None:
    await door.know("ann")
    answers = await door.ask(body(source="a", id="b:c"), body(source="a:b", id="c"), body(source="b", id="b:c"))
    assert [answer for answer in answers if isinstance(answer, Recorded) and not answer.repeated] == answers


@pytest.mark.parametrize(
    "other",
    [
        {"request": "r-1", "event": "clicked"},
        {"user": "ann", "event": "converted"},
        {"user": "bob"},
        {"request": "r-2"},
        {"message": "another"},
    ],
)
async def test_an_id_that_was_used_for_something_else_is_told_to_be(door: Door, other: dict[str, str]) -> None:
    message, another = await door.message(), await door.message("bob", "r-2")
    assert isinstance(await door.one(body(message=message, user=...)), Recorded)
    changed = {"user": ...} | other | ({"message": another} if "message" in other else {})
    assert await door.one(body(**changed)) == Reused("e-1")
    assert await door.acts(another) == []
    assert await door.parked() == [("amqp", None, "e-1", "conflict")]
    assert sum(door.counted(event, "conflict") for event in ("opened", "clicked", "converted")) == 1


async def test_one_that_says_less_the_second_time_is_the_same(door: Door) -> None:
    message = await door.message()
    assert await door.one(body(message=message)) == Recorded("e-1", message, repeated=False)
    assert await door.one(body()) == Recorded("e-1", message, repeated=True)
    assert await door.one(body(user=..., request="r-1")) == Recorded("e-1", message, repeated=True)


async def test_a_stage_is_part_of_what_is_said(door: Door) -> None:
    await door.know("ann")
    assert isinstance(await door.one(body(event="converted", stage="applied")), Recorded)
    assert await door.one(body(event="converted", stage="granted")) == Reused("e-1")


async def test_what_a_vendor_reports_is_never_taken_for_it(door: Door) -> None:
    await door.know("ann")
    key = "voice:a:opened:human"
    await door.store.record([Deed(Act.OPENED, Agent.HUMAN, "callback", key, person="ann")], door.judge)
    assert await door.one(body(id="a:opened:human", source="voice")) == Recorded("a:opened:human", None, repeated=False)


# ------------------------------------------------------------------------------------------------------------ malformed


async def test_all_faults_are_told_at_once_each_with_what_to_do(door: Door) -> None:
    told = body(id="", event="open", usr="ann", user=..., message="17", at="tomorrow", stage="x" * 129)
    assert await door.faults(told) == {
        "id": "must not be empty",
        "event": "must be one of opened, clicked, app_opened, converted: did you mean opened?",
        "usr": "is not a known field: did you mean user?",
        "message": "is not a message of ours: take what POST /v1/messages answered, or name your request instead",
        "at": "must be a date and time in RFC 3339 form, such as 2026-11-22T08:00:00Z",
        "stage": "must have at most 128 characters",
    }


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"user": ...}, "", "must name a person: by user, message (our id) or request (yours)"),
        ({"message": "0" * 26, "request": "r-1"}, "", "must name its message once"),
        ({"stage": "applied"}, "stage", "is only of converted: leave it out"),
        ({"event": "answered"}, "event", "must be one of opened, clicked, app_opened, converted"),
        ({"event": "delivered"}, "event", "must be one of"),
        ({"event": ["opened"]}, "event", "must be one of"),
        ({"source": ...}, "source", "is required"),
        ({"source": "x" * 65}, "source", "at most 64"),
        ({"id": 7}, "id", "must be text"),
        ({"message": 7}, "message", "must be text"),
        ({"link": 1}, "link", "is not a known field"),
        ({"at": "2026-11-24T12:08:01Z"}, "at", "more than five minutes ahead"),
        ({"at": "2026-09-25T12:02:59Z"}, "at", "longer ago than contacts are kept here, 60 days"),
    ],
)
async def test_a_fault_is_named_by_its_path(door: Door, fields: dict[str, Any], path: str, problem: str) -> None:
    found = await door.faults(body(**fields))
    assert list(found) == [path]
    assert problem in found[path]


@pytest.mark.parametrize("at", ["2026-11-24T12:08:00Z", "2026-09-25T12:03:00Z", "2026-11-24T21:03:00+09:00"])
async def test_a_time_may_be_five_minutes_ahead_and_as_old_as_contacts_are(door: Door, at: str) -> None:
    message = await door.message()
    assert isinstance(await door.one(body(message=message, at=at)), Recorded)
    ((*_, done),) = await door.acts(message)
    assert rfc3339(done) == rfc3339(min(datetime.fromisoformat(at), NOW))


async def test_what_is_malformed_is_parked_but_over_http_where_who_asks_is_told(door: Door) -> None:
    assert isinstance(await door.one(b"nonsense"), Malformed)
    assert isinstance(await door.one(body(event="open")), Malformed)
    assert isinstance(await door.one(body(event="open"), via="http", source="loans"), Malformed)
    assert await door.parked() == [("amqp", None, "e-1", "malformed"), ("amqp", None, None, "malformed")]
    assert door.counted("unread", "malformed") == 3


async def test_one_that_is_malformed_harms_no_other(door: Door) -> None:
    await door.know("ann")
    answers = await door.ask(b"{}", body(), b"[]", body(id="e-2", user="nobody"), body(id="e-3"))
    assert [type(answer) for answer in answers] == [Malformed, Recorded, Malformed, Unmatched, Recorded]
    assert [answer.id for answer in answers] == [None, "e-1", None, "e-2", "e-3"]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*body(), "message", "request", "stage", "at", "more"]), _anything))
@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_sent_is_answered(door: Door, fields: dict[str, Any]) -> None:
    answer = await door.one(orjson.dumps({"user": "nobody"} | fields), via="http", source="loans")
    assert isinstance(answer, Malformed | Unmatched)


# ----------------------------------------------------------------------------------------------------------------- room


async def test_nothing_is_taken_without_room_to_keep_it(door: Door) -> None:
    await door.know("ann")
    door.space = Space(1 << 30, 100 << 30)
    with pytest.raises(NoRoom):
        await door.one(body())
    turned = door.metrics.registry.get_sample_value("gateway_requests_turned_away_total", {"via": "amqp"})
    assert turned == 1
    assert await door.store.unpublished(10) == []
