"""Does a webhook's call reach who is configured, over TLS, signed, and nobody else, however names are answered?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.webhooks.client import Client
from gateway.webhooks.standard import Answer, Outcome
from tests.contract.receiver import HANG, KEY, NAME, Names, Receiver, Trust, webhook
from tests.servers import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.config import Webhook

BODY = orjson.dumps({"sequence": 1, "type": "message.sent", "user": "hána"})
TAKEN = Answer(Outcome.TAKEN, "http_204")
FORBIDDEN = Answer(Outcome.FORBIDDEN, "forbidden_address")
PLAIN = f"http://{NAME}:%d/in"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def trust() -> Trust:
    return Trust()


@pytest.fixture
async def receiving() -> AsyncIterator[Callable[..., Awaitable[Receiver]]]:
    async with AsyncExitStack() as stack:

        async def start(*answers: Any, tls: ssl.SSLContext | None = None) -> Receiver:
            receiver = Receiver(*answers)
            await receiver.start(tls)
            stack.push_async_callback(receiver.stop)
            return receiver

        yield start


@pytest.fixture
async def calling() -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    async with AsyncExitStack() as stack:

        async def start(to: Webhook, **options: Any) -> Client:
            client = Client(to, now, **{"resolver": Names(["127.0.0.1"]), **options})
            await client.open()
            stack.push_async_callback(client.close)
            return client

        yield start


async def test_an_event_arrives_as_it_is_signed_and_over_tls_by_the_webhooks_name(
    receiving: Any, calling: Any, trust: Trust
) -> None:
    receiver = await receiving(tls=trust.server)
    client = await calling(webhook(receiver.port), tls=trust.client)
    assert await client.post("0sgdpj5016zyc4xdtqys7wkyxb", BODY) == TAKEN
    (heard,) = receiver.heard
    assert heard.body == BODY
    assert heard.verified() == orjson.loads(BODY)
    assert heard.id == "0sgdpj5016zyc4xdtqys7wkyxb"
    assert (heard.headers["user-agent"], heard.headers["content-type"]) == ("decorum", "application/json")
    assert heard.headers["host"] == f"{NAME}:{receiver.port}"
    assert receiver.names == [NAME]


async def test_a_receiver_that_knows_the_old_secret_or_the_new_one_is_sure_whom_it_is_from(
    receiving: Any, calling: Any, trust: Trust
) -> None:
    old, new = KEY, b"n" * 24
    receiver = await receiving(tls=trust.server)
    for keys in ((old,), (old, new), (new,)):
        client = await calling(webhook(receiver.port, keys=keys), tls=trust.client)
        assert await client.post("e1", BODY) == TAKEN
        for key in keys:
            assert receiver.heard[-1].verified(key) == orjson.loads(BODY)


@pytest.mark.parametrize("wrong", ["another name", "another authority"])
async def test_a_certificate_that_is_not_the_webhooks_is_not_taken(
    receiving: Any, calling: Any, trust: Trust, wrong: str
) -> None:
    theirs = Trust("other.example.com")
    receiver = await receiving(tls=theirs.server if wrong == "another name" else Trust().server)
    client = await calling(webhook(receiver.port), tls=theirs.client if wrong == "another name" else trust.client)
    assert await client.post("e1", BODY) == Answer(Outcome.UNREACHABLE, "tls")
    assert receiver.heard == []


async def test_whom_the_system_trusts_is_trusted_where_nothing_else_is_said(receiving: Any, calling: Any) -> None:
    receiver = await receiving(tls=Trust().server)
    client = await calling(webhook(receiver.port))
    assert await client.post("e1", BODY) == Answer(Outcome.UNREACHABLE, "tls")


async def test_a_connection_serves_more_than_one_call(receiving: Any, calling: Any, trust: Trust) -> None:
    names = Names(["127.0.0.1"])
    receiver = await receiving(tls=trust.server)
    client = await calling(webhook(receiver.port), tls=trust.client, resolver=names)
    for number in range(3):
        assert await client.post(f"e{number}", BODY) == TAKEN
    assert (len(receiver.connections), names.asked) == (1, 1)


# ------------------------------------------------------------------------------------------------ whom it must not call


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["0.0.0.0"],
        ["::ffff:127.0.0.1"],
        ["::ffff:0.0.0.0"],
        ["10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
    ],
)
async def test_a_name_that_leads_inside_is_not_followed(receiving: Any, calling: Any, addresses: list[str]) -> None:
    receiver = await receiving()
    client = await calling(webhook(receiver.port, url=PLAIN, private=False), resolver=Names(addresses))
    assert await client.post("e1", BODY) == FORBIDDEN
    assert receiver.heard == []
    allowed = await calling(webhook(receiver.port, url=PLAIN), resolver=Names(["127.0.0.1"]))
    assert await allowed.post("e1", BODY) == TAKEN, "the same, where it is configured as private"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost", "127.1", "2130706433"])
async def test_neither_is_an_address_in_whatever_form(receiving: Any, calling: Any, host: str) -> None:
    receiver = await receiving()
    to = webhook(receiver.port, url=f"http://{host}:{receiver.port}/in", private=False)
    client = await calling(to, resolver=None)
    assert (await client.post("e1", BODY)).outcome in (Outcome.FORBIDDEN, Outcome.UNREACHABLE)
    assert receiver.heard == []


async def test_a_name_that_changes_its_answer_is_not_followed_inside(receiving: Any, calling: Any) -> None:
    """DNS rebinding: a permitted address for whoever checks, and then, for whoever connects, one inside."""
    receiver = await receiving()
    names = Names(["127.0.0.2"], ["127.0.0.1"])  # nobody listens at the first, which passes for one outside

    def permitted(address: object) -> bool:
        return str(address) == "127.0.0.2"

    to = webhook(receiver.port, url=PLAIN, timeout=timedelta(seconds=1))
    first = await calling(to, resolver=names, permitted=permitted)
    assert await first.post("e1", BODY) in (
        Answer(Outcome.UNREACHABLE, "refused"),
        Answer(Outcome.TIMEOUT, "timeout"),  # where the system knows no such address
    )
    assert names.asked == 1, "it was connected to what had been looked at"
    later = await calling(to, resolver=names, permitted=permitted)
    assert await later.post("e1", BODY) == FORBIDDEN
    assert names.asked == 2
    assert receiver.heard == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiving: Any, calling: Any, status: int) -> None:
    other = await receiving()
    receiver = await receiving((status, {"Location": f"http://127.0.0.1:{other.port}/"}))
    client = await calling(webhook(receiver.port, url=PLAIN))
    assert await client.post("e1", BODY) == Answer(Outcome.STATUS, f"http_{status}")
    assert (len(receiver.heard), other.heard) == (1, [])


async def test_no_proxy_and_no_cookie_comes_between(
    receiving: Any, calling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    receiver = await receiving((200, {"Set-Cookie": "a=b"}))
    client = await calling(webhook(receiver.port, url=PLAIN))
    for number in range(2):
        assert (await client.post(f"e{number}", BODY)).outcome is Outcome.TAKEN
    assert "cookie" not in receiver.heard[1].headers


# --------------------------------------------------------------------------------------------------- what it may answer


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (200, Answer(Outcome.TAKEN, "http_200")),
        (299, Answer(Outcome.TAKEN, "http_299")),
        (400, Answer(Outcome.STATUS, "http_400")),
        (410, Answer(Outcome.GONE, "http_410")),
        (500, Answer(Outcome.STATUS, "http_500")),
        ((503, {"Retry-After": "120"}), Answer(Outcome.STATUS, "http_503", timedelta(minutes=2))),
        ((429, {"Retry-After": "soon"}), Answer(Outcome.STATUS, "http_429")),
    ],
)
async def test_an_answer_means_what_its_status_says(receiving: Any, calling: Any, answer: Any, found: Answer) -> None:
    receiver = await receiving(answer)
    client = await calling(webhook(receiver.port, url=PLAIN))
    assert await client.post("e1", BODY) == found


async def test_a_date_may_be_given_until_when_to_wait(receiving: Any, calling: Any) -> None:
    at = (now() + timedelta(minutes=10)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver = await receiving((503, {"Retry-After": at}))
    wait = (await (await calling(webhook(receiver.port, url=PLAIN))).post("e1", BODY)).retry_after
    assert timedelta(minutes=9, seconds=50) < wait <= timedelta(minutes=10)


@contextlib.asynccontextmanager
async def raw(*parts: bytes, endless: bytes = b"", written: list[int] | None = None) -> AsyncIterator[int]:
    """A server that says these bytes to whoever calls, one after another, and then nothing, or the same for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
                if written is not None:
                    written.append(len(endless))
            if not parts or parts[-1]:
                await reader.read()  # until the caller leaves
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ((), Answer(Outcome.TIMEOUT, "timeout")),
        ((b"HTTP/1.1 2",), Answer(Outcome.TIMEOUT, "timeout")),
        ((b"",), Answer(Outcome.BROKEN, "broken")),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), Answer(Outcome.BROKEN, "broken")),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b""), Answer(Outcome.TAKEN, "http_200")),
        ((b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n",), Answer(Outcome.STATUS, "http_500")),
        ((b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"x" * 100_000),), Answer(Outcome.BROKEN, "broken")),
    ],
    ids=["silence", "half a line", "nothing", "no HTTP", "half a body", "no body", "huge header"],
)
async def test_whatever_comes_instead_of_an_answer_is_one_in_time(
    calling: Any, parts: tuple[bytes, ...], found: Answer
) -> None:
    async with raw(*parts) as port:
        client = await calling(webhook(port, url=PLAIN, timeout=timedelta(seconds=0.5)))
        began = time.monotonic()
        assert await client.post("e1", BODY) == found
        assert time.monotonic() - began < 2


async def test_an_answer_without_end_is_not_read(calling: Any) -> None:
    written: list[int] = []
    head, chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    async with raw(head, endless=chunk, written=written) as port:
        client = await calling(webhook(port, url=PLAIN))
        assert await client.post("e1", BODY) == Answer(Outcome.TAKEN, "http_200")
    assert sum(written) < 10_000_000, "as much as the buffers between us hold"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (Names(socket.gaierror(-2, "not known")), Answer(Outcome.UNREACHABLE, "dns")),
        (Names(HANG), Answer(Outcome.TIMEOUT, "timeout")),
    ],
    ids=["unknown", "hangs"],
)
async def test_a_name_that_leads_nowhere_is_told(calling: Any, names: Names, found: Answer) -> None:
    client = await calling(webhook(free_port(), url=PLAIN, timeout=timedelta(seconds=0.3)), resolver=names)
    assert await client.post("e1", BODY) == found


async def test_a_port_where_nobody_listens_is_told(calling: Any) -> None:
    client = await calling(webhook(free_port(), url=PLAIN))
    assert await client.post("e1", BODY) == Answer(Outcome.UNREACHABLE, "refused")


async def test_the_systems_own_names_are_looked_up(receiving: Any, calling: Any) -> None:
    receiver = await receiving()
    client = await calling(webhook(receiver.port, url="http://localhost:%d/"), resolver=None)
    assert await client.post("e1", BODY) == TAKEN
    unknown = await calling(webhook(receiver.port, url="http://nobody.invalid:%d/"), resolver=None)
    assert await unknown.post("e1", BODY) == Answer(Outcome.UNREACHABLE, "dns")


def test_a_webhook_shows_neither_its_secrets_nor_what_its_url_may_hold() -> None:
    shown = repr(webhook(443))
    assert "t0ken" not in shown
    assert "kkkk" not in shown
    assert webhook(8443).origin == f"https://{NAME}:8443"
