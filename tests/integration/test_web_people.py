"""What services ask and tell of persons over HTTP: may they be contacted, and what have they said no to?"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from gateway.ids import new_id
from gateway.message import Message, MessageState, OptOut, Priority, Profile
from gateway.outcome import accepted, failed
from gateway.store import Claimed, Settlement
from gateway.store.migrate import migrate
from providers import Channel, Unreachable
from tests.desk import PHONE, Desk, at
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POLICY = """
providers: {text: {kind: inbox}, mail: {kind: inbox}}
routes: {sms: [text], email: [mail]}
policy:
  timezone: Asia/Tokyo
  categories:
    news: {priority: bulk}
    alert: {priority: high}
    mail: {priority: bulk, channels: [push, email]}
    tip: {priority: bulk}
    code: {priority: critical, caps: exempt, quiet_hours: exempt, abuse: {limit: 1, per: 1h}}
  caps:
    - {name: daily, limit: 2, per: 24h, reserve: {high: 1}, category: [news, alert]}
    - {name: of-campaign, limit: 1, per: 7d, scope: [user, campaign], label: {kind: teaser}}
    - {name: of-team, limit: 1, per: 24h, scope: [user, labels.team], category: mail}
    - {name: tighter, limit: 1, per: 30d, enforce: 0%}
  minimum_gap: [{name: breather, gap: 2h, category: tip}]
  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]
"""
NOON = "2026-11-25T12:00+09:00"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at(NOON)) as desk:
        yield desk


async def eligible(desk: Desk, user: str = "hana", category: str = "news", **query: str) -> dict[str, Any]:
    status, found = await desk.api(
        "GET", f"/v1/users/{quote(user, safe='')}/eligibility", params={"category": category} | query
    )
    assert status == 200, found
    assert found["allowed"] == (found["next"] == found["at"])
    assert all({"name", "permits", "next", "why"} <= rule.keys() for rule in found["rules"])
    enforced = [rule for rule in found["rules"] if rule.get("enforced", True)]
    assert found["allowed"] == all(rule["permits"] for rule in enforced)
    return dict(found)


def utc(text: str) -> str:
    """As the API writes an instant."""
    return f"{at(text):%Y-%m-%dT%H:%M:%S}.000Z"


# -------------------------------------------------------------------------------------------------------- eligibility


async def test_a_person_whom_nobody_knows_may_be_asked_about(desk: Desk) -> None:
    found = await eligible(desk, "nobody / of? #this")
    assert (found["user"], found["allowed"], found["at"]) == ("nobody / of? #this", True, utc(NOON))
    assert (found["channel"], found["priority"], found["policy"]) == ("sms", "bulk", 1)
    assert (found["zone"], found["zone_source"], found["has_address"]) == ("Asia/Tokyo", "policy", False)
    assert [rule["name"] for rule in found["rules"]] == ["daily", "tighter", "night"]


@pytest.mark.parametrize(
    ("asked", "zone", "following"),
    [
        ("2026-11-25T20:59:49+09:00", None, "2026-11-25T20:59:49+09:00"),
        ("2026-11-25T20:59:51+09:00", None, "2026-11-26T08:00:00+09:00"),
        ("2026-11-26T07:59:59+09:00", None, "2026-11-26T08:00:00+09:00"),
        ("2026-11-26T08:00:00+09:00", None, "2026-11-26T08:00:00+09:00"),
        ("2020-02-29T03:00:00Z", None, "2020-02-29T03:00:00Z"),
        ("2026-11-25T12:00:00+09:00", "America/New_York", "2026-11-25T08:00:00-05:00"),
        ("2026-10-31T22:00:00-04:00", "America/New_York", "2026-11-01T08:00:00-05:00"),
    ],
)
async def test_an_instant_may_be_asked_about_and_what_is_next_is_true(
    desk: Desk, asked: str, zone: str | None, following: str
) -> None:
    query = {"timezone": zone} if zone else {}
    found = await eligible(desk, at=asked, **query)
    assert (found["at"], found["next"]) == (utc(asked), utc(following))
    assert (await eligible(desk, at=found["next"], **query))["allowed"]


async def test_what_is_next_is_no_moment_too_soon(desk: Desk) -> None:
    """Instants are told to the millisecond; whoever asks again at the one that is told must get a yes."""
    desk.now += timedelta(microseconds=123_456)
    for name in ("r1", "r2"):
        await desk.sent(name, "alert")
    found = await eligible(desk, category="alert")
    assert not found["allowed"]
    again = await eligible(desk, category="alert", at=found["next"])
    assert again["allowed"]
    assert datetime.fromisoformat(found["next"]) - (desk.now + timedelta(days=1)) < timedelta(milliseconds=1)


async def test_an_instant_of_the_past_knows_nothing_of_what_came_later(desk: Desk) -> None:
    for name in ("r1", "r2"):
        await desk.sent(name, "alert")
    assert not (await eligible(desk, category="alert"))["allowed"]
    before = await eligible(desk, category="alert", at="2026-11-25T11:00:00+09:00")
    assert before["allowed"]
    assert "0 of 2 contacts" in before["rules"][0]["why"]
    await desk.sent("r3", "tip")
    found = await eligible(desk, category="tip", at="2026-11-25T11:30:00+09:00")
    assert found["allowed"]
    assert not (await eligible(desk, category="tip"))["allowed"]


async def test_places_that_are_kept_depend_on_the_priority_that_is_asked_for(desk: Desk) -> None:
    await desk.sent("r1", "news")
    assert not (await eligible(desk))["allowed"]
    assert (await eligible(desk, priority="high"))["allowed"]
    assert (await eligible(desk, category="alert"))["allowed"]


async def test_rules_that_look_at_labels_and_campaigns_are_asked_with_them(desk: Desk) -> None:
    await desk.sent("r1", "mail", channels=(Channel.EMAIL,), campaign="spring", labels={"kind": "teaser", "team": "a"})
    assert not (await eligible(desk, category="mail", **{"label.team": "a"}))["allowed"]
    assert (await eligible(desk, category="mail", **{"label.team": "b"}))["allowed"]
    teaser = {"category": "mail", "label.kind": "teaser", "label.team": "b"}
    assert not (await eligible(desk, **teaser, campaign="spring"))["allowed"]
    assert (await eligible(desk, **teaser, campaign="autumn"))["allowed"]


async def test_rules_in_shadow_are_shown_and_do_not_count(desk: Desk) -> None:
    await desk.sent("r1", "alert")
    found = await eligible(desk, category="alert")
    assert found["allowed"]
    (shadow,) = [rule for rule in found["rules"] if rule["name"] == "tighter"]
    assert (shadow["permits"], shadow["enforced"]) == (False, False)
    assert "would hold it back, but is in shadow" in " ".join(found["text"])


async def test_the_channel_is_the_first_of_the_category_that_has_a_route(desk: Desk) -> None:
    assert (await eligible(desk, category="mail"))["channel"] == "email"
    assert (await eligible(desk, category="mail", channel="sms"))["channel"] == "sms"


async def test_an_opt_out_is_a_no_without_an_end(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(phone=PHONE, opted_out=(OptOut(category="news"),)))])
    found = await eligible(desk)
    assert (found["allowed"], found["next"], found["refusal"]) == (False, None, "opted_out")
    assert found["rules"][0] == {
        "name": "opted_out",
        "permits": False,
        "next": None,
        "why": "the person, or the address itself, has opted out",
    }
    assert found["opted_out"] == [{"by": "person", "category": "news"}]
    assert (await eligible(desk, category="alert"))["allowed"]


async def test_a_no_to_all_that_can_be_unsubscribed_from_leaves_what_people_need(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(phone=PHONE))])
    no = {"user": "hana", "category": "*"}
    assert await desk.api("POST", "/v1/optouts", json=no) == (204, None)
    assert (await desk.api("GET", "/v1/users/hana"))[1]["opted_out"] == [{"category": "*"}]
    found = await eligible(desk, category="news")
    assert (found["refusal"], found["opted_out"]) == ("opted_out", [{"by": "person", "category": "*"}])
    found = await eligible(desk, category="code")
    assert (found["allowed"], found["opted_out"]) == (True, [])
    code, news = await desk.sent("r1", "code"), await desk.sent("r2", "news")
    assert await desk.store.states([code, news]) == {code: MessageState.SENT, news: MessageState.REFUSED}
    assert (await desk.api("DELETE", "/v1/optouts", json=no))[0] == 204
    assert (await eligible(desk, category="news"))["allowed"]


async def test_an_address_that_must_not_be_used_is_a_no_without_an_end(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(phone=PHONE, email="hana@example.com"))])
    desk.answers = {"text": [failed(Unreachable("21610"))]}
    await desk.sent("r1", "alert")
    found = await eligible(desk, category="alert")
    assert (found["allowed"], found["next"], found["refusal"]) == (False, None, "suppressed")
    assert (await eligible(desk, category="alert", channel="email"))["allowed"]


async def test_what_one_address_may_get_counts_whomever_it_is_for(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(phone=PHONE)), ("kenji", Profile(phone=PHONE))])
    await desk.sent("r1", "code", user="kenji", to={})
    found = await eligible(desk, category="code")
    assert (found["allowed"], found["next"]) == (False, utc("2026-11-25T13:00+09:00"))
    assert [rule["name"] for rule in found["rules"]] == ["abuse"]
    assert (await eligible(desk, category="code", at=found["next"]))["allowed"]
    assert (await eligible(desk, category="code", at="2026-11-25T11:59:00+09:00"))["allowed"]
    desk.now += timedelta(days=7)
    assert not (await eligible(desk, category="code", at="2026-11-25T12:30:00+09:00"))["allowed"]


@pytest.mark.parametrize(
    ("query", "path", "said"),
    [
        ("", "category", "is required"),
        ("category=nws", "category", "did you mean news?"),
        ("category=zzz", "category", "there are: alert, code, mail, news, tip"),
        ("category=news&channel=smss", "channel", "did you mean sms?"),
        ("category=news&channel=push", "channel", "has no route here; there are: email, sms"),
        ("category=news&at=2026-11-25T12:00:00+09:00", "at", "write %2B for +"),
        ("category=news&at=2026-11-25T12:00:00", "at", "needs an offset"),
        ("category=news&at=2026-11-25%2012:00", "at", "needs an offset"),
        ("category=news&at=tomorrow", "at", "RFC 3339"),
        ("category=news&at=3026-11-25T12:00:00Z", "at", "1970 and 2999"),
        ("category=news&timezone=Mars", "timezone", "is not a time zone of the IANA database"),
        ("category=news&priority=urgent", "priority", "must be one of critical, high, normal, bulk"),
        ("category=news&priority=hgih", "priority", "did you mean high?"),
        ("category=news&campaign=", "campaign", "must not be empty"),
        ("category=news&label.team=", "label.team", "must not be empty"),
        ("category=news&labels=x", "labels", "did you mean label.NAME?"),
        ("category=news&chanel=sms", "chanel", "did you mean channel?"),
        ("category=news&colour=red", "colour", "is not known here; there are: at, "),
        ("category=news&category=alert", "category", "is given twice"),
        ("category=news&user=kenji", "user", "is not known here"),
    ],
)
async def test_a_question_that_cannot_be_understood_is_answered_with_what_is_wrong(
    desk: Desk, query: str, path: str, said: str
) -> None:
    status, problem = await desk.api("GET", f"/v1/users/hana/eligibility?{query}")
    assert status == 400, problem
    assert [said in error["problem"] for error in problem["errors"] if error["path"] == path] == [True], problem


# ------------------------------------------------------------------------------------------------------------ opt-outs


def counted(desk: Desk) -> float | None:
    return desk.metrics.registry.get_sample_value("gateway_optouts_total", {"via": "api"})


async def test_an_opt_out_holds_from_its_answer_on_and_can_be_taken_back(desk: Desk) -> None:
    waiting = await desk.accept("r1", "news")
    no = {"user": "hana", "category": "news"}
    assert await desk.api("POST", "/v1/optouts", json=no) == (204, None)
    assert counted(desk) == 1
    await desk.work()
    assert await desk.store.states([waiting]) == {waiting: MessageState.REFUSED}
    other = await desk.sent("r2", "alert")
    assert await desk.store.states([other]) == {other: MessageState.SENT}
    for expected in (204, 404):
        assert (await desk.api("DELETE", "/v1/optouts", json=no))[0] == expected
    again = await desk.sent("r3", "news", priority=Priority.HIGH)
    assert await desk.store.states([again]) == {again: MessageState.SENT}


async def test_a_no_may_come_before_the_first_message(desk: Desk) -> None:
    assert (await desk.api("POST", "/v1/optouts", json={"user": "hana"}))[0] == 204
    assert (await desk.api("GET", "/v1/users/hana"))[1]["opted_out"] == [{}]
    message = await desk.sent("r1", "alert")
    assert await desk.store.states([message]) == {message: MessageState.REFUSED}


async def test_a_no_does_not_touch_a_profile_that_is_there(desk: Desk) -> None:
    await desk.store.put_profiles([("hana", Profile(phone=PHONE))])
    assert (await desk.api("POST", "/v1/optouts", json={"user": "hana", "channel": "sms"}))[0] == 204
    status, found = await desk.api("GET", "/v1/users/hana")
    assert (status, found["profile"], found["opted_out"]) == (200, {"phone": PHONE}, [{"channel": "sms"}])


@pytest.mark.parametrize(
    ("who", "kind"),
    [({"phone": PHONE}, "phone"), ({"email": "Hana@EXAMPLE.com"}, "email"), ({"token": "t-1"}, "push")],
)
async def test_an_address_may_say_no_and_whoever_has_it_is_shown_with_it(
    desk: Desk, who: dict[str, str], kind: str
) -> None:
    desk.span = timedelta(milliseconds=50)
    device = {"token": "t-1", "platform": "ios"}
    profile = Profile.model_validate({"phone": PHONE, "email": "Hana@EXAMPLE.com", "push": [device]})
    await desk.store.put_profiles([("hana", profile)])
    no = who | {"topic": "rates"}
    assert (await desk.api("POST", "/v1/optouts", json=no))[0] == 204
    found = (await desk.api("GET", "/v1/users/hana"))[1]
    assert found["opted_out"] == [{"by": kind, "topic": "rates"}]
    assert (await desk.api("DELETE", "/v1/optouts", json=no))[0] == 204
    assert (await desk.api("GET", "/v1/users/hana"))[1]["opted_out"] == []


async def test_the_no_of_an_address_is_answered_when_nothing_decided_before_it_can_go_any_more(desk: Desk) -> None:
    desk.span = timedelta(milliseconds=300)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert (await desk.api("POST", "/v1/optouts", json={"phone": PHONE}))[0] == 204
    assert loop.time() - begun >= desk.span.total_seconds()
    message = await desk.sent("r1", "alert", user="kenji")
    assert await desk.store.states([message]) == {message: MessageState.REFUSED}


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        ({}, "", "exactly one of user, phone, email and token"),
        ({"user": "hana", "phone": PHONE}, "", "exactly one of user, phone, email and token"),
        ({"user": ""}, "user", "must not be empty"),
        ({"user": 3}, "user", "must be text"),
        ({"phone": "0312345678"}, "phone", "E.164"),
        ({"email": "nobody"}, "email", "is not a mail address"),
        ({"user": "hana", "channel": "pigeon"}, "channel", "must be one of email, sms, push, robocall"),
        ({"user": "hana", "colour": "red"}, "colour", "is not a known field"),
        ({"user": "hana", "topik": "wake"}, "topik", "is not a known field: did you mean topic?"),
    ],
)
async def test_a_faulty_no_changes_nothing_and_says_what_is_wrong(
    desk: Desk, method: str, body: dict[str, Any], path: str, said: str
) -> None:
    status, problem = await desk.api(method, "/v1/optouts", json=body)
    assert status == 422, problem
    assert [said in error["problem"] for error in problem["errors"] if error["path"] == path] == [True], problem
    assert counted(desk) is None
    assert (await desk.api("GET", "/v1/users/hana"))[0] == 404


async def test_a_misspelt_category_is_refused_but_what_a_profile_or_an_older_policy_knew_can_be_taken_back(
    desk: Desk,
) -> None:
    status, problem = await desk.api("POST", "/v1/optouts", json={"user": "hana", "category": "nws"})
    assert status == 422
    assert problem["errors"] == [{"path": "category", "problem": "is not configured here: did you mean news?"}]
    assert (await desk.api("PUT", "/v1/users/hana", json={"opted_out": [{"category": "later"}]}))[0] == 204
    assert (await desk.api("DELETE", "/v1/optouts", json={"user": "hana", "category": "later"}))[0] == 204


async def test_other_content_is_no_opt_out(desk: Desk) -> None:
    for method in ("POST", "DELETE"):
        assert (await desk.api(method, "/v1/optouts", data=b"user=hana"))[0] == 415
        assert (await desk.api(method, "/v1/optouts", data=b"{", headers={"Content-Type": "application/json"}))[
            0
        ] == 400


async def claimed(desk: Desk) -> list[Claimed]:
    leases, _ = await desk.store.lease([(Priority.HIGH, Channel.SMS, 100)], timedelta(seconds=30))
    return [
        step
        for step in await desk.store.claim(leases, desk.judge, [new_id() for _ in leases])
        if isinstance(step, Claimed)
    ]


@pytest.mark.parametrize(
    ("method", "path", "no"),
    [("POST", "/v1/optouts", {"user": "hana"}), ("PUT", "/v1/users/hana", {"phone": PHONE, "opted_out": [{}]})],
)
async def test_an_opt_out_is_answered_only_when_what_was_under_way_has_settled(
    desk: Desk, method: str, path: str, no: dict[str, Any]
) -> None:
    await desk.accept("r1", "alert")
    (under_way,) = await claimed(desk)
    answer = asyncio.create_task(desk.api(method, path, json=no))

    async def recorded() -> bool:
        person = await desk.store.person("hana")
        return bool(person and person.person.optouts)

    await wait_until(recorded)
    assert not answer.done()
    await desk.store.settle([Settlement(under_way, accepted("V-1"))], desk.judge)
    assert (await answer)[0] == 204


async def test_nothing_is_handed_over_after_the_answer(desk: Desk) -> None:
    """A worker goes on while the person says no: whatever it began before is over, and nothing else begins."""
    await desk.enact(POLICY.replace("limit: 2, per: 24h, reserve: {high: 1}", "limit: 500, per: 24h"))
    for number in range(200):
        await desk.accept(f"r{number}", "alert", campaign=f"c{number}")
    handed: list[Message] = []
    stop = asyncio.Event()

    async def worker() -> None:
        while not stop.is_set():
            for one in await claimed(desk):
                await asyncio.sleep(0)
                handed.append(one.lease.message)
                await desk.store.settle([Settlement(one, accepted("V-1"))], desk.judge)
            desk.now += timedelta(seconds=2)  # who let another go first asks again

    working = asyncio.create_task(worker())
    await wait_until(lambda: len(handed) > 5)
    assert (await desk.api("POST", "/v1/optouts", json={"user": "hana"}))[0] == 204
    before = len(handed)
    await wait_until(lambda: none_left(desk))
    stop.set()
    await working
    assert before < 200
    assert len(handed) == before


async def none_left(desk: Desk) -> bool:
    return (await desk.store.backlog())[0] == 0


def test_the_times_of_these_tests_are_what_they_say() -> None:
    assert at(NOON) == datetime(2026, 11, 25, 3, tzinfo=UTC)
