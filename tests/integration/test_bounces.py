"""What mail servers pipe to us: taken once and for all, whatever it is, and never lost for being inconvenient."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ids import new_id
from gateway.message import OptOut
from gateway.store import Claimed
from gateway.store.migrate import migrate
from providers import Channel
from tests import returned
from tests.desk import Desk, at, others
from tests.returned import Sent
from tests.servers import free_port, spawn, wait_until
from tests.vendors.ledger import Ledger
from tests.vendors.smtp import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAIL = {"Content-Type": "message/rfc822"}
POLICY = """
providers: {mail: {kind: inbox}, text: {kind: inbox}}
routes: {email: [mail], sms: [text]}
policy:
  timezone: UTC
  categories: {news: {priority: bulk}}
"""


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bounces") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copy(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at("2026-11-25T12:00Z")) as desk:
        yield desk


async def sent(desk: Desk, channel: Channel = Channel.EMAIL) -> Sent:
    """A mail that went out, as mail servers know it."""
    message = await desk.sent(new_id(), "news", channels=(channel,))
    view = await desk.store.view(message)
    assert view is not None
    (attempt,) = view.attempts
    return Sent(attempt.id, message, f"bounces+{attempt.id}@m.example.com")


async def post(desk: Desk, mail: str | bytes | BytesIO, query: str = "", **headers: str) -> tuple[int, Any]:
    return await desk.api("POST", f"/v1/bounces{query}", data=mail, headers=MAIL | headers)


async def state(desk: Desk, mail: Sent) -> tuple[str, str | None, int]:
    """Of the message; the attempt's error; how many contacts count."""
    view, person = await desk.store.view(mail.message), await desk.store.person("hana")
    assert view is not None
    assert person is not None
    return view.state, view.attempts[0].error, len(person.contacts)


def counted(desk: Desk, name: str, **labels: str) -> float:
    return desk.metrics.registry.get_sample_value(name, labels) or 0


# --------------------------------------------------------------------------------------------------------------- HTTP


async def test_a_bounce_is_news_of_its_mail_however_often_it_comes(desk: Desk) -> None:
    mail = await sent(desk)
    for _ in range(2):
        assert await post(desk, returned.postfix(mail)) == (200, {"receipts": 1, "complaints": 0})
        assert await state(desk, mail) == ("undelivered", "receipt:5.1.1", 0)
    status, person = await desk.api("GET", "/v1/users/hana")
    assert (status, person["suppressed"], person["opted_out"]) == (200, [], [])  # the profile has no address
    assert "arrive" in await desk.explain(mail.message)
    assert counted(desk, "gateway_delivery_reports_total", provider="mail", status="unreachable") == 2
    assert counted(desk, "gateway_bounces_total", was="receipt") == 2


async def test_a_condemned_address_gets_no_more(desk: Desk) -> None:
    await post(desk, returned.postfix(await sent(desk)))
    view = await desk.store.view(await desk.sent("again", "news", channels=(Channel.EMAIL,)))
    assert view is not None
    assert (view.state, view.decisions[-1].reason) == ("refused", "suppressed")


@pytest.mark.parametrize("turned", [False, True])
async def test_reports_come_to_the_same_in_any_order(desk: Desk, turned: bool) -> None:
    mail = await sent(desk)
    reports = [
        returned.rfc3464_delayed(mail),
        returned.rfc3464_simple(mail, "failed", "4.4.7"),
        returned.rfc3464_simple(mail, "delivered", "2.0.0"),
    ]
    for report in reversed(reports) if turned else reports:
        assert await post(desk, report) == (200, {"receipts": 1, "complaints": 0})
    found, _, contacts = await state(desk, mail)
    assert (found, contacts) == ("delivered", 1)


async def test_the_recipient_may_be_told_beside_the_mail(desk: Desk) -> None:
    mail, other = await sent(desk), await sent(desk)
    report = returned.postfix(Sent("-", "nobody"))
    assert (await post(desk, report))[1] == {"receipts": 0, "complaints": 0}
    for query in (
        f"?recipient=bounces%2B{mail.attempt}@m.example.com",
        f"?recipient=bounces+{other.attempt}@m.example.com",
    ):
        assert (await post(desk, report, query))[1] == {"receipts": 1, "complaints": 0}
    assert (await state(desk, mail))[0] == (await state(desk, other))[0] == "undelivered"


async def test_a_forged_one_changes_nothing(desk: Desk) -> None:
    mail, text = await sent(desk), await sent(desk, Channel.SMS)
    before = await state(desk, mail), await state(desk, text)
    nobody = Sent(new_id(), new_id(), f"bounces+{new_id()}@m.example.com")
    for forged in (
        returned.postfix(nobody),
        returned.rfc5965_simple(nobody),
        returned.postfix(text),  # a text message does not bounce
        returned.rfc5965_simple(text),
        returned.rfc5965_full(text),
    ):
        assert await post(desk, forged) == (200, {"receipts": 0, "complaints": 0})
    assert (await state(desk, mail), await state(desk, text)) == before
    person = await desk.store.person("hana")
    assert person is not None
    assert person.person.optouts == ()
    assert counted(desk, "gateway_bounces_total", was="unmatched") == 5


@pytest.mark.parametrize("body", [b"", b"\n", b"\xff\x00", b"Subject: hello\n\nIs anybody there?\n"])
async def test_what_is_no_bounce_is_taken_too(desk: Desk, body: bytes) -> None:
    assert await post(desk, body) == (200, {"receipts": 0, "complaints": 0})
    assert await post(desk, returned.vacation(await sent(desk))) == (200, {"receipts": 0, "complaints": 0})
    assert counted(desk, "gateway_bounces_total", was="nothing") == 2


async def test_of_a_large_one_the_beginning_is_read(desk: Desk) -> None:
    mail = await sent(desk)
    for rest in (500_000, 5_000_000):
        large = BytesIO(returned.postfix(mail).encode() + b"x" * rest)
        assert await post(desk, large) == (200, {"receipts": 1, "complaints": 0})
    assert (await state(desk, mail))[0] == "undelivered"


async def test_a_complaint_is_a_no(desk: Desk) -> None:
    mail = await sent(desk)
    for _ in range(2):
        assert await post(desk, returned.rfc5965_full(mail)) == (200, {"receipts": 0, "complaints": 1})
    person = await desk.store.person("hana")
    assert person is not None
    assert person.person.optouts == (OptOut(category="news"),)
    for channel in (Channel.EMAIL, Channel.SMS):
        view = await desk.store.view(await desk.sent(f"by {channel}", "news", channels=(channel,)))
        assert view is not None
        assert view.state == "refused"
    assert (await state(desk, mail))[0] == "sent"
    assert counted(desk, "gateway_optouts_total", via="complaint") == 2
    assert counted(desk, "gateway_bounces_total", was="complaint") == 2


async def test_who_says_that_it_is_no_spam_changes_nothing(desk: Desk) -> None:
    mail = await sent(desk)
    assert await post(desk, returned.rfc5965_simple(mail, "not-spam")) == (200, {"receipts": 0, "complaints": 0})
    person = await desk.store.person("hana")
    assert person is not None
    assert person.person.optouts == ()


async def test_a_complaint_is_answered_when_nothing_begun_before_it_can_go_out(desk: Desk) -> None:
    mail = await sent(desk)
    under_way = await desk.accept("under way", "news", channels=(Channel.SMS,))
    (claimed,) = await desk.work(kill=True)
    assert isinstance(claimed, Claimed)
    complaint = asyncio.create_task(post(desk, returned.rfc5965_simple(mail)))

    async def heard() -> bool:
        person = await desk.store.person("hana")
        return bool(person and person.person.optouts)

    await wait_until(heard)
    assert not complaint.done()
    desk.pass_(seconds=11)  # the deadline of what is under way
    assert await complaint == (200, {"receipts": 0, "complaints": 1})
    assert (await desk.store.states([under_way]))[under_way] == "sending"


async def test_it_must_be_sent_as_a_mail(desk: Desk) -> None:
    status, problem = await post(desk, returned.postfix(await sent(desk)), **{"Content-Type": "text/plain"})
    assert (status, problem["type"]) == (415, "urn:decorum:problem:wrong_content")
    assert (await desk.api("GET", "/v1/bounces"))[0] == 405


async def test_without_a_database_it_is_to_be_sent_again(desk: Desk) -> None:
    report = returned.postfix(await sent(desk))
    await desk.store.close()
    status, problem = await post(desk, report)
    assert (status, problem["type"]) == (503, "urn:decorum:problem:unavailable")


# -------------------------------------------------------------------------------------------------------- command line


async def test_the_command_is_silent_when_it_was_taken(desk: Desk) -> None:
    mail = await sent(desk)
    for body, told in (
        (returned.postfix(Sent("-", "nobody")), ("--recipient", mail.mail_from)),
        (returned.vacation(mail), ()),
        ("", ()),
        (returned.postfix(mail) + "x" * 3_000_000, ()),
    ):
        assert await desk.run("bounce", *told, stdin=body.encode()) == ""
    assert (await state(desk, mail))[0] == "undelivered"
    assert counted(desk, "gateway_bounces_total", was="receipt") == 2


async def test_what_was_not_taken_is_to_be_tried_again(desk: Desk) -> None:
    """EX_TEMPFAIL of sysexits.h: at any other status mail servers give up, and what the mail says would be lost."""
    mail = returned.postfix(await sent(desk)).encode()
    url = desk.url
    for wrong, said in (
        (f"http://127.0.0.1:{free_port()}", "is the gateway running"),
        (url.replace("http://", ""), "write http:// in front"),
        (f"{url}/elsewhere", "takes no mails that came back"),
        ("http://nobody.invalid", "is not known here"),
    ):
        desk.url = wrong
        assert said in await desk.run("bounce", stdin=mail, status=75)
    async with others() as desk.url:
        assert "not as a gateway does" in await desk.run("bounce", stdin=mail, status=75)
    desk.url = url
    await desk.store.close()
    assert "database cannot be asked" in await desk.run("bounce", stdin=mail, status=75)


# -------------------------------------------------------------------------------------------------------- end to end


ROOT = Path(__file__).parents[2]
DECORUM = [sys.executable, "-m", "gateway"]


async def decorum(*arguments: str, stdin: str = "", **environ: str) -> tuple[int, str, str]:
    """Exit status and output; of its input nothing may be left, for mail servers take that for a failure."""
    with TemporaryFile() as file:
        file.write(stdin.encode())
        file.seek(0)
        done = await asyncio.to_thread(
            subprocess.run,
            [*DECORUM, *arguments],
            stdin=file,
            capture_output=True,
            timeout=40,
            env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"} | environ,
            check=False,
        )
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == len(stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
async def relay() -> AsyncIterator[tuple[Relay, int]]:
    """Any mail server, and its port."""
    relay = Relay(Ledger())
    yield relay, await relay.start()
    await relay.stop()


@pytest.mark.timeout(120)
async def test_a_mail_goes_out_comes_back_and_the_story_can_be_told(tmp_path: Path, relay: tuple[Relay, int]) -> None:
    port, requests = free_port(), tmp_path / "requests.jsonl"
    keys = [
        {"name": name, "sha256": hashlib.sha256(f"key of {name}".encode()).hexdigest(), "scopes": scopes}
        for name, scopes in (("mta", ["bounces"]), ("shop", ["send", "read"]))
    ]
    (tmp_path / "gateway.yaml").write_text(f"""
store: sqlite:///{tmp_path}/decorum.db
http: {{private: "127.0.0.1:{port}"}}
keys: {json.dumps(keys)}
providers:
  mail:
    {{kind: smtp, host: 127.0.0.1, port: {relay[1]}, security: none,
      sender: hello@example.com, bounces: b@m.example.com}}
routes: {{email: [mail]}}
policy: {{timezone: UTC, categories: {{news: {{priority: bulk}}}}}}
""")
    content = {"email": {"subject": "hello", "text": "there"}}
    requests.write_text(
        "\n".join(
            json.dumps({"id": user, "user": user, "category": "news", "to": {"email": to}, "content": content})
            for user, to in (("ann", "ann@example.net"), ("bob", "bob@example.net"))
        )
    )
    mta, shop = ({"DECORUM_URL": f"http://127.0.0.1:{port}", "DECORUM_KEY": f"key of {who}"} for who in ("mta", "shop"))
    serving = [*DECORUM, "serve", "--config", str(tmp_path / "gateway.yaml")]
    with spawn(serving, tmp_path / "log", env=os.environ | {"PYTHONPATH": str(ROOT)}) as gateway:
        await wait_until(lambda: "gateway.started" in gateway.text, 60)
        assert (await decorum("send", str(requests), **shop))[0] == 0
        await wait_until(lambda: len(relay[0].mails) == 2, 20)
        senders = {mail.recipients[0]: mail.sender for mail in relay[0].mails}
        bounced = returned.postfix(Sent("-", "nobody")) + "x" * 1_000_000  # the address alone tells whose it is
        refused = await decorum("bounce", stdin=bounced, RECIPIENT=senders["bob@example.net"], **shop)
        assert (refused[0], "needs the scope bounces" in refused[2]) == (75, True)
        for recipient in (senders["ann@example.net"], f"b+{new_id()}@m.example.com"):
            assert await decorum("bounce", stdin=bounced, ORIGINAL_RECIPIENT=recipient, **mta) == (0, "", "")
        for user, told in (("ann", "did not arrive"), ("bob", "which accepted it")):
            assert told in (await decorum("explain", user, "--source", "shop", **shop))[1]
    assert "example.net" not in gateway.text
    assert "m.example.com" not in gateway.text
