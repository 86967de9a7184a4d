"""What people answer, from Twilio's callback to what goes out: a stop holds from our answer on, however it was said."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp import web
from structlog.testing import capture_logs

import providers
from gateway.ids import new_id
from gateway.message import Message, MessageState, Priority, Profile
from gateway.outcome import accepted
from gateway.store import Claimed, Settlement
from gateway.store.migrate import migrate
from gateway.web import public_app, runner
from gateway.web.replies import Replies
from providers import Channel, Dispatch, Reply, Robocall, Wish
from tests.contract.cases import twilio_settings
from tests.desk import PHONE, Desk, at
from tests.servers import wait_until
from tests.vendors.ledger import Ledger
from tests.vendors.twilio import Twilio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PUBLIC = "https://m.example.com"
INBOUND = f"{PUBLIC}/callbacks/text"
POLICY = """
providers: {text: {kind: inbox}, call: {kind: inbox}}
routes: {sms: [text], robocall: [call]}
policy:
  timezone: Asia/Tokyo
  categories:
    news: {priority: bulk}
    code: {priority: critical, caps: exempt, quiet_hours: exempt, abuse: {limit: 500, per: 1h}}
"""
HELP_TEXT = "Example: +81 3 0000 0000 & help@example.com"
SECRET_WORDS = "the money is under the mattress"


class Line:
    """A desk with a public listener, to which Twilio tells what people write and press."""

    def __init__(self, database: Path) -> None:
        self.desk = Desk(database, POLICY, at("2026-11-25T12:00+09:00"), span=timedelta(milliseconds=200))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.desk)
        vendor = Twilio(Ledger())
        port = await vendor.start()
        self._stack.push_async_callback(vendor.stop)
        self.text = providers.build("text", twilio_settings("twilio_sms", port, help_reply=HELP_TEXT))
        self.call = providers.build("call", twilio_settings("twilio_voice", port))
        for provider in (self.text, self.call):
            await provider.open()
            self._stack.push_async_callback(provider.close)
        app = public_app(
            self.desk.store,
            {"text": self.text, "call": self.call},
            lambda: self.desk.judge,
            PUBLIC,
            self.desk.metrics,
        )
        served = runner(app, shutdown_timeout=0.1)
        await served.setup()
        self._stack.push_async_callback(served.cleanup)
        await web.TCPSite(served, "127.0.0.1", 0).start()
        vendor._callbacks = True
        vendor._callback_base = f"http://127.0.0.1:{served.addresses[0][1]}"
        self.vendor = vendor
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def writes(self, text: str, sender: str = PHONE, **more: Any) -> list[str] | None:
        """Somebody does; what they are answered."""
        told = await self.vendor.receive(INBOUND, sender, text, **more)
        assert self.vendor.errors == [] or told is None
        return None if told is None else [text for _, text in told]

    async def goes(self, user: str = "hana", category: str = "news", channel: Channel = Channel.SMS) -> bool:
        """Whether a message for somebody with the number may go."""
        content = {"sms": {"text": "t"}, "robocall": {"say": "s"}}
        message = await self.desk.sent(new_id(), category, user=user, channels=(channel,), content=content)
        (state,) = (await self.desk.store.states([message])).values()
        assert state in {MessageState.SENT, MessageState.REFUSED}
        return state is MessageState.SENT

    def counted(self, name: str, **labels: str) -> float:
        return self.desk.metrics.registry.get_sample_value(name, labels) or 0


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replies") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def line(empty: Path, tmp_path: Path) -> AsyncIterator[Line]:
    shutil.copy(empty, tmp_path / "line.db")
    async with Line(tmp_path / "line.db") as line:
        yield line


# --------------------------------------------------------------------------------------------------------------- texts


async def test_a_stop_holds_for_everybody_with_the_number_and_for_every_channel_and_category(line: Line) -> None:
    later = line.desk.now + timedelta(hours=1)
    waiting = await line.desk.accept("r1", "news", user="kenji", not_before=later)
    assert await line.goes()
    assert await line.writes("stop please") == []
    line.desk.now = later
    await line.desk.work()
    assert await line.desk.store.states([waiting]) == {waiting: MessageState.REFUSED}
    for user in ("hana", "kenji"):
        for category in ("news", "code"):
            for channel in (Channel.SMS, Channel.ROBOCALL):
                assert not await line.goes(user, category, channel)
    assert line.counted("gateway_replies_total", provider="text", wish="stop") == 1
    assert line.counted("gateway_optouts_total", via="reply") == 1


async def test_the_vendor_is_answered_when_nothing_decided_before_can_go_any_more(line: Line) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await line.writes("STOP")
    assert loop.time() - begun >= line.desk.span.total_seconds()


async def test_a_start_takes_the_stop_back_and_an_old_stop_that_is_told_again_changes_nothing(line: Line) -> None:
    for _ in range(2):
        await line.writes("やめて", sid="SM1")
    await line.writes("START", sid="SM2")
    assert await line.goes()
    await line.writes("やめて", sid="SM1")
    assert await line.goes()
    assert line.counted("gateway_replies_total", provider="text", wish="stop") == 1
    await line.writes("退订", sid="SM3")
    await line.writes("START", sid="SM2")
    assert not await line.goes()


async def test_a_start_takes_back_nothing_that_was_said_to_a_service(line: Line) -> None:
    assert (await line.desk.api("POST", "/v1/optouts", json={"phone": PHONE}))[0] == 204
    await line.writes("STOP")
    await line.writes("START")
    assert not await line.goes()
    assert (await line.desk.api("DELETE", "/v1/optouts", json={"phone": PHONE}))[0] == 204
    assert await line.goes()


async def test_support_sees_who_said_it_and_can_take_it_back(line: Line) -> None:
    await line.desk.store.put_profiles([("hana", Profile(phone=PHONE))])
    await line.writes("unsubscribe")
    assert (await line.desk.api("GET", "/v1/users/hana"))[1]["opted_out"] == [{"by": "phone"}]
    assert (await line.desk.api("DELETE", "/v1/optouts", json={"phone": PHONE}))[0] == 204
    assert await line.goes()


async def test_a_call_for_help_is_answered_unless_twilio_has(line: Line) -> None:
    assert await line.writes("help") == [HELP_TEXT]
    assert await line.writes("help", opt_out_type="HELP") == []
    assert await line.goes()


async def test_what_cannot_be_told_changes_nothing_is_counted_and_is_kept_nowhere(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logs, caplog.at_level("DEBUG"):
        assert await line.writes(SECRET_WORDS) == []
        assert await line.writes(f"{SECRET_WORDS}, so stop texting me") == []
        assert await line.writes(f"{SECRET_WORDS}?", sender="62226") == []
    assert line.counted("gateway_replies_total", provider="text", wish="unclear") == 1
    with closing(sqlite3.connect(line.desk.database)) as database:
        written = "\n".join(database.iterdump())
    assert "SM" in written  # of the stop, so that it is heard once
    for secret in (SECRET_WORDS, "mattress", PHONE):
        assert secret not in written + str(logs) + caplog.text


async def test_a_forged_stop_stops_nothing(line: Line) -> None:
    assert await line.vendor.receive(f"{INBOUND}?a=b", PHONE, "STOP") == []  # signed for that address, and it is ours
    await line.writes("START")
    line.vendor._callback_base = f"{line.vendor._callback_base}/callbacks/text?x="
    assert await line.vendor.receive("https://elsewhere.example.com/", PHONE, "STOP") is None
    assert await line.goes()
    assert line.counted("gateway_delivery_reports_total", provider="text", status="forged") == 1


async def test_a_stop_that_cannot_be_committed_is_not_acknowledged(line: Line) -> None:
    await line.desk.store.close()
    assert await line.writes("STOP") is None
    assert line.vendor.errors == ["11200: 503"]


# --------------------------------------------------------------------------------------------------------------- calls


async def claims(line: Line, room: int = 100) -> list[Claimed]:
    """What a worker that takes so many at once is to hand over now."""
    wanted = [(priority, channel, room) for priority in Priority for channel in Channel]
    leases, _ = await line.desk.store.lease(wanted, timedelta(seconds=30))
    steps = await line.desk.store.claim(leases, line.desk.judge, [new_id() for _ in leases])
    return [step for step in steps if isinstance(step, Claimed)]


async def rung(line: Line, digits: str) -> str:
    """A call that Twilio accepts, up to its end; its message. See ``tests.vendors.steering``."""
    number = f"+1500555{digits}"
    message = await line.desk.accept(
        new_id(), "news", channels=(Channel.ROBOCALL,), to={"phone": number}, content={"robocall": {"say": "s"}}
    )
    (claimed,) = await claims(line)
    reference = await line.call.send(
        Dispatch(
            attempt=claimed.attempt.id,
            message=message,
            address=number,
            content=Robocall(say="Hello", language="ja-JP"),
            deadline=datetime.now(UTC) + timedelta(seconds=30),
            valid_until=datetime.now(UTC) + timedelta(hours=1),
            callback_url=f"{PUBLIC}/callbacks/call?attempt={claimed.attempt.id}",
        )
    )
    await line.desk.store.settle([Settlement(claimed, accepted(reference))], line.desk.judge)
    while line.vendor._tasks:
        await asyncio.gather(*line.vendor._tasks)
    assert line.vendor.errors == []
    return message


@pytest.mark.parametrize(
    ("digits", "state", "acts"),
    [
        ("1234", MessageState.DELIVERED, {("answered", "human", None)}),
        ("8005", MessageState.DELIVERED, {("answered", "human", None), ("opted_out", "human", None)}),
        ("8006", MessageState.DELIVERED, {("answered", "machine", "voicemail")}),
        ("8007", MessageState.DELIVERED, {("answered", "human", None)}),
        ("8008", MessageState.SENT, set()),
        ("8009", MessageState.SENT, set()),
    ],
)
async def test_a_call_is_known_by_who_picked_it_up(
    line: Line, digits: str, state: MessageState, acts: set[tuple[str, str, str | None]]
) -> None:
    message = await rung(line, digits)
    assert await line.desk.store.states([message]) == {message: state}
    view = await line.desk.store.view(message)
    assert view
    assert {(act.act, act.agent, act.why) for act in view.acts} == acts


async def test_who_presses_the_key_hears_at_once_that_it_is_done_and_is_left_in_peace(line: Line) -> None:
    line.desk.span = timedelta(seconds=30)  # nobody listens to silence for so long
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await rung(line, "8005")
    assert loop.time() - begun < 3
    assert line.vendor.spoken == [("ja-JP", "今後、お電話はいたしません。")]
    for channel in (Channel.SMS, Channel.ROBOCALL):
        again = await line.desk.sent(
            new_id(), "code", user="kenji", channels=(channel,), to={"phone": "+15005558005"},
            content={"sms": {"text": "t"}, "robocall": {"say": "s"}},
        )  # fmt: skip
        assert await line.desk.store.states([again]) == {again: MessageState.REFUSED}
    assert line.counted("gateway_optouts_total", via="keypress") == 1
    assert line.counted("gateway_replies_total", provider="call", wish="stop") == 1


def pressed() -> Reply:
    return Reply(PHONE, Wish.STOP, "CA1", "0" * 26, on_the_line=True)


async def test_who_presses_the_key_hears_it_when_what_was_under_way_to_them_is_over(line: Line) -> None:
    replies = Replies(line.desk.store, lambda: line.desk.judge, line.desk.metrics)
    await line.desk.accept("r1", "news", user="kenji")
    (under_way,) = await claims(line)
    await replies.hear(pressed(), "call")
    answer = asyncio.create_task(replies.settle(pressed(), "call", asyncio.get_running_loop().time()))
    line.desk.pass_(microseconds=1)  # the store's clock stands still: what is open stays open
    for _ in range(3):
        await line.desk.store.ping()
    assert not answer.done()
    await line.desk.store.settle([Settlement(under_way, accepted("V-1"))], line.desk.judge)
    with capture_logs() as logs:
        await answer
    assert logs == []


@pytest.mark.parametrize("on_the_line", [True, False])
async def test_an_answer_that_comes_too_early_is_told_in_the_log(line: Line, on_the_line: bool) -> None:
    line.desk.span = timedelta(seconds=30)
    replies = Replies(line.desk.store, lambda: line.desk.judge, line.desk.metrics, 0.05, 0.05)
    await line.desk.accept("r1", "news")
    await claims(line)
    reply = replace(pressed(), on_the_line=on_the_line)
    await replies.hear(reply, "call")
    with capture_logs() as logs:
        await replies.settle(reply, "call", asyncio.get_running_loop().time())
    (told,) = logs
    assert (told["event"], told["provider"], told["attempt_seconds"]) == ("reply.answered_early", "call", 30)
    assert PHONE not in str(logs)


async def test_who_listens_is_answered_even_if_the_store_goes_away_meanwhile(line: Line) -> None:
    replies = Replies(line.desk.store, lambda: line.desk.judge, line.desk.metrics)
    await replies.hear(pressed(), "call")
    await line.desk.store.close()
    with capture_logs() as logs:
        await replies.settle(pressed(), "call", asyncio.get_running_loop().time())
    assert [one["event"] for one in logs] == ["reply.answered_early"]


# --------------------------------------------------------------------------------------------------------------- races


@pytest.mark.parametrize("how", ["text", "key"])
async def test_nothing_is_handed_over_once_a_stop_is_answered(line: Line, how: str) -> None:
    """A worker goes on while the person says no: whatever it began before is over, and nothing else begins."""
    for number in range(200):
        await line.desk.accept(f"r{number}", "code", user=f"user-{number % 3}")
    handed: list[Message] = []
    stop = asyncio.Event()

    async def worker() -> None:
        while not stop.is_set():
            for one in await claims(line, 1):
                await asyncio.sleep(0)
                handed.append(one.lease.message)
                await line.desk.store.settle([Settlement(one, accepted("V-1"))], line.desk.judge)

    working = asyncio.create_task(worker())
    await wait_until(lambda: len(handed) > 5)
    if how == "text":
        await line.writes("don't text me again")
    else:
        replies = Replies(line.desk.store, lambda: line.desk.judge, line.desk.metrics)
        await replies.hear(pressed(), "call")
        await replies.settle(pressed(), "call", asyncio.get_running_loop().time())
    before = len(handed)

    async def none_left() -> bool:
        return (await line.desk.store.backlog())[0] == 0

    await wait_until(none_left)
    stop.set()
    await working
    assert before < 200
    assert len(handed) == before
