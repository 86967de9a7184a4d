"""Connections as adapters use them: what is an answer, which connection serves the next call, what is left open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from providers import Misconfigured, ProviderError, Unavailable, Unconfirmed, _wire
from providers._http import Client
from tests.contract.wire import reply
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LATER = datetime.now(UTC) + timedelta(days=1)
OK = reply(200, b"{}")


@dataclass
class Peer:
    """A server that answers the n-th request with the n-th of ``answers``, and then with the last."""

    answers: list[Any]
    """Bytes; tuples of bytes, each sent when the one before has gone; None for silence. ``close`` ends it."""
    close: bool = False
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    of: list[int] = field(default_factory=list)
    """The connection that each came over."""
    connections: int = 0
    ended: int = 0
    """Connections that the client has closed."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, self.host, 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.of.append(number)
                self.asked.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for part in answer if isinstance(answer, tuple) else (answer or b"",):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.002)
                if self.close:
                    break
        self.ended += not self.close
        writer.close()

    def url(self, path: str = "/v1/messages") -> URL:
        return URL.build(scheme="https" if self.tls else "http", host=self.host, port=self.port, path=path)


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    peers: list[Peer] = []

    async def start(*answers: Any, **more: Any) -> Peer:
        peers.append(Peer(list(answers), **more))
        await peers[-1].start()
        return peers[-1]

    yield start
    for one in peers:
        await one.stop()


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    clients: list[Client] = []

    async def open_client(timeout: float = 5.0, concurrency: int = 10, **more: Any) -> Client:  # noqa: ASYNC109
        headers = more.pop("headers", {"Authorization": "Basic abc"})
        clients.append(Client(timeout, concurrency, headers, **more))
        await clients[-1].open()
        return clients[-1]

    yield open_client
    for one in clients:
        await one.close()


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  (the peer's state, not ours)
            await asyncio.sleep(0.001)


async def becomes(kind: type[ProviderError], code: str, call: Awaitable[Any]) -> None:
    with pytest.raises(kind) as caught:
        await call
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_a_request_is_these_bytes(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client(headers={"X-A": "b", "accept": "application/json"})
    await one.call(vendor.url(), b"body", deadline=LATER, headers={"X-Key": "k"}, method="PUT")
    assert vendor.requests == [
        b"PUT /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: decorum\r\naccept: application/json\r\n"
        b"Accept-Encoding: identity\r\nX-A: b\r\nX-Key: k\r\nContent-Length: 4\r\n\r\nbody" % vendor.port
    ]


async def test_a_login_in_the_address_is_sent_as_one(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client(headers={})
    await one.call(vendor.url().with_user("ann").with_password("sesame"), b"", deadline=LATER)
    assert b"\r\nAuthorization: Basic YW5uOnNlc2FtZQ==\r\n" in vendor.requests[0]


WHOLE = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", b"body"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nb\r\n3\r\nody\r\n0\r\n\r\n", b"body"),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n",
        b"body",
    ),
    "interim": (
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        b"body",
    ),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "kept 1.0": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody", b"body"),
    "not unpacked": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody", b"body"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_an_answer_is_read_to_its_end_and_the_connection_used_again(
    name: str, bytewise: bool, peer: Any, client: Any
) -> None:
    raw, body = WHOLE[name]
    vendor = await peer(tuple(raw[n : n + 1] for n in range(len(raw))) if bytewise else raw)
    one = await client()
    for _ in range(2):
        got = await one.call(vendor.url(), b"x", deadline=LATER)
        assert (got.status, got.body) == (204 if name == "no content" else 200, body)
    assert vendor.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
    ],
)
async def test_an_answer_without_a_length_ends_with_its_connection(raw: bytes, peer: Any, client: Any) -> None:
    vendor = await peer(raw, close=True)
    one = await client()
    for _ in range(2):
        assert (await one.call(vendor.url(), b"x", deadline=LATER)).body == b"body"
    assert vendor.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        # One answer too many, whole and in part.
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody" * 2,
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
    ],
)
async def test_a_connection_that_is_not_clean_is_not_used_again(raw: bytes, peer: Any, client: Any) -> None:
    vendor = await peer(raw)
    one = await client()
    for _ in range(2):
        await one.call(vendor.url(), b"x", deadline=LATER)
    assert vendor.of == [0, 1]
    await eventually(lambda: vendor.ended == 2)


async def test_the_rest_of_a_surplus_answer_is_not_the_next_answer(peer: Any, client: Any) -> None:
    surplus = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"surplus"'
    vendor = await peer(OK + surplus[:20], (surplus[20:], OK))
    one = await client()
    assert (await one.call(vendor.url(), b"x", deadline=LATER)).body == b"{}"
    await becomes(Unconfirmed, "broken_reply", one.call(vendor.url(), b"x", deadline=LATER))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "reset"),
        (b"HTT", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody!\r\n0\r\n\r\n", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nbody", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 4\r\n\r\nbody", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000 + b"\r\n\r\n", "broken_reply"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "broken_reply"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "broken_reply"),
        (b"220 mail.example.com ESMTP\r\n", "broken_reply"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "broken_reply"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000, "huge_reply"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000, "huge_reply"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_001, "huge_reply"),
    ],
)
async def test_what_is_no_whole_answer_leaves_it_unconfirmed(raw: bytes, code: str, peer: Any, client: Any) -> None:
    vendor = await peer(raw, close=True)
    one = await client()
    await becomes(Unconfirmed, code, one.call(vendor.url(), b"x", deadline=LATER))
    assert len(vendor.requests) == 1


async def test_a_call_that_fails_keeps_nothing_of_what_was_read(
    peer: Callable[..., Awaitable[Peer]], client: Callable[..., Awaitable[Client]]
) -> None:
    """The gateway seldom looks for cycles, and twenty calls that fail at once may hold a megabyte each."""
    here, one = await peer(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_001), await client()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with contextlib.suppress(Unconfirmed):
                await one.call(here.url(), b"", deadline=LATER)
        await wait_until(lambda: here.ended == 3)
        held = [found for found in gc.get_objects() if type(found) is _wire._Connection]
    finally:
        gc.enable()
    assert held == []


async def test_a_connection_that_breaks_does_not_end_a_body(peer: Any, client: Any) -> None:
    vendor = await peer(b"HTTP/1.1 200 OK\r\n\r\nbod")
    one = await client()
    call = asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER))
    await vendor.asked.wait()
    await asyncio.sleep(0.02)
    on = vendor.writers[0].get_extra_info("socket")
    on.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    vendor.writers[0].transport.abort()
    await becomes(Unconfirmed, "broken_reply", call)


async def test_the_status_of_an_error_is_believed_without_its_body(peer: Any, client: Any) -> None:
    vendor = await peer((b"HTTP/1.1 503 Oh\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\n", b"b"), close=True)
    one = await client()
    got = await one.call(vendor.url(), b"x", deadline=LATER)
    assert (got.status, got.body, got.headers["retry-after"]) == (503, b"", "7")


@given(st.binary(max_size=60), st.integers(0, 60), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_answer_becomes_a_reply_or_an_error(noise: bytes, at: int, cuts: list[int]) -> None:
    """And the next call is served all the same."""
    raw = WHOLE["chunks"][0]
    raw = raw[:at] + noise + raw[at + len(noise) // 2 :]
    edges = [0, *sorted(cuts), len(raw)]

    async def tried() -> None:
        vendor = Peer([tuple(raw[a:b] for a, b in pairwise(edges)), (OK,)])
        await vendor.start()
        one = Client(0.1, 1, {})
        await one.open()
        with contextlib.suppress(ProviderError):
            await one.call(vendor.url(), b"x", deadline=LATER)
        with contextlib.suppress(Unconfirmed):  # where what was left of the noise came late
            assert (await one.call(vendor.url(), b"x", deadline=LATER)).body in {b"{}", b"body"}
        await one.close()
        await vendor.stop()

    asyncio.run(tried())


async def test_a_kept_connection_that_the_peer_has_closed_is_not_written_to(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client()
    for turn in range(20):
        await one.call(vendor.url(), b"x", deadline=LATER)
        with socket.socket(fileno=os.dup(vendor.writers[-1].get_extra_info("socket").fileno())) as theirs:
            theirs.shutdown(socket.SHUT_RDWR)
        for _ in range(turn % 4):  # the loop has heard of it, or not yet
            await asyncio.sleep(0)
    assert len(set(vendor.of)) == 20


async def test_what_nobody_asked_for_is_nobodys_answer(peer: Any, client: Any) -> None:
    """Some servers say 408 before they close an idle connection."""
    vendor = await peer(OK)
    one = await client()
    await one.call(vendor.url(), b"x", deadline=LATER)
    vendor.writers[0].write(reply(408, b""))
    assert (await one.call(vendor.url(), b"x", deadline=LATER)).status == 200
    await eventually(lambda: vendor.ended == 1)
    assert vendor.of == [0, 1]


async def test_an_idle_connection_is_given_up(peer: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "IDLE_SECONDS", 0.05)
    vendor = await peer(OK)
    one = await client()
    await one.call(vendor.url(), b"x", deadline=LATER)
    await eventually(lambda: vendor.ended == 1)
    await one.call(vendor.url(), b"x", deadline=LATER)
    assert vendor.of == [0, 1]


async def test_an_idle_connection_is_given_up_after_a_slow_call_too(
    peer: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its calls may take."""
    monkeypatch.setattr(_wire, "IDLE_SECONDS", 0.1)
    vendor = await peer((b"", *[b""] * 100, OK))  # about 200 ms
    one = await client(60)
    await one.call(vendor.url(), b"x", deadline=LATER)
    await eventually(lambda: vendor.ended == 1)


async def test_each_call_has_its_whole_time(peer: Any, client: Any) -> None:
    """One timer serves them all, and it was set for the first."""
    slow = (b"", *[b""] * 30, OK)  # about 60 ms
    vendor = await peer(slow, slow, slow, None)
    one = await client(0.15)
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await one.call(vendor.url(), b"x", deadline=LATER)
    await asyncio.sleep(0.2)  # the timer rings while nobody calls
    start = loop.time()
    await becomes(Unconfirmed, "timeout", one.call(vendor.url(), b"x", deadline=LATER))
    assert 0.14 < loop.time() - start < 1
    assert vendor.connections == 1
    await eventually(lambda: vendor.ended == 1)


async def test_connections_are_bounded_and_all_are_served(peer: Any, client: Any) -> None:
    vendor = await peer((b"", OK))
    one = await client(concurrency=3)
    replies = await asyncio.gather(*[one.call(vendor.url(), b"%d" % n, deadline=LATER) for n in range(30)])
    assert [got.status for got in replies] == [200] * 30
    assert vendor.connections == 3


async def test_who_waits_for_a_connection_until_the_deadline_has_sent_nothing(peer: Any, client: Any) -> None:
    vendor = await peer(None, OK)
    one = await client(concurrency=1)
    first = asyncio.create_task(one.call(vendor.url(), b"1", deadline=LATER))
    await vendor.asked.wait()
    soon = datetime.now(UTC) + timedelta(seconds=0.05)
    await becomes(Unavailable, "deadline", one.call(vendor.url(), b"2", deadline=soon))
    leaves = asyncio.create_task(one.call(vendor.url(), b"3", deadline=LATER))
    stays = asyncio.create_task(one.call(vendor.url(), b"4", deadline=LATER))
    await asyncio.sleep(0.01)
    leaves.cancel()
    first.cancel()
    assert (await stays).status == 200
    assert [request[-1:] for request in vendor.requests] == [b"1", b"4"]
    await asyncio.wait([first, leaves])


async def test_a_cancelled_call_closes_its_connection(peer: Any, client: Any) -> None:
    vendor = await peer(None, OK)
    one = await client()
    call = asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER))
    await vendor.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: vendor.ended == 1)
    await one.call(vendor.url(), b"x", deadline=LATER)
    assert vendor.of == [0, 1]


async def test_a_call_may_be_cancelled_at_any_moment(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client(concurrency=2)
    for turns in range(60):
        calls = [asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER)) for _ in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        calls[turns % 4].cancel()
        calls[3 - turns % 4].cancel()
        await asyncio.wait(calls)
        assert [call.result().status for call in calls if not call.cancelled()] in ([200] * n for n in (2, 3, 4))
    assert (await asyncio.gather(*[one.call(vendor.url(), b"x", deadline=LATER) for _ in range(4)]))[3].body == b"{}"


def sockets_to(vendor: Peer) -> int:
    found = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.raddr.port == vendor.port for each in found)


async def test_an_idle_connection_is_not_left_open(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client()
    await one.call(vendor.url(), b"x", deadline=LATER)
    assert sockets_to(vendor) == 1
    await one.close()
    assert sockets_to(vendor) == 0


async def test_nothing_is_left_open(peer: Any, client: Any) -> None:
    vendor = await peer(OK, OK, None)
    one = await client(concurrency=3)
    await asyncio.gather(*[one.call(vendor.url(), b"x", deadline=LATER) for _ in range(2)])
    calls = [asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER)) for _ in range(4)]
    await eventually(lambda: len(vendor.requests) == 5)
    late = asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER))
    await asyncio.sleep(0)
    await one.close()
    assert sockets_to(vendor) == 0
    for call in calls[:3]:
        await becomes(Unconfirmed, "reset", call)
    await becomes(Unavailable, "closed", calls[3])
    await becomes(Unavailable, "closed", late)
    await becomes(Unavailable, "closed", one.call(vendor.url(), b"x", deadline=LATER))
    await eventually(lambda: vendor.ended == vendor.connections == 3)


async def test_who_connects_while_it_is_closed_has_sent_nothing(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    for turns in range(8):
        one = await client()
        call = asyncio.create_task(one.call(vendor.url(), b"x", deadline=LATER))
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.close()
        with contextlib.suppress(Unavailable, Unconfirmed):
            await call
    await eventually(lambda: vendor.ended == vendor.connections)


async def test_who_does_not_take_a_connection_in_time_has_got_nothing(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wire, "CONNECT_SECONDS", 0.1)
    one = await client(tls=trust(trustme.CA()))
    with socket.create_server(("127.0.0.1", 0)) as mute:  # and no handshake ever
        url = URL(f"https://127.0.0.1:{mute.getsockname()[1]}/")
        await becomes(Unavailable, "connect_timeout", one.call(url, b"x", deadline=LATER))


def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def shown(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_call_goes_over_tls(peer: Any, client: Any) -> None:
    authority = trustme.CA()
    asked: list[str | None] = []
    context = shown(authority, "localhost")
    context.sni_callback = lambda _, name, __: asked.append(name)
    vendor = await peer(OK, (b"", OK), None, host="localhost", tls=context)
    one = await client(tls=trust(authority))
    for _ in range(5):
        call = asyncio.create_task(one.call(vendor.url(), b"x" * 100_000, deadline=LATER))
        if _ == 4:
            await asyncio.sleep(0.05)
            call.cancel()
            continue
        vendor.answers[:] = [OK]
        assert (await call).body == b"{}"
    await asyncio.wait([call])
    assert (vendor.connections, asked) == (1, ["localhost"])


@pytest.mark.parametrize(("known", "name"), [(False, "127.0.0.1"), (True, "vendor.example")])
async def test_a_vendor_that_cannot_show_who_it_is_gets_nothing(known: bool, name: str, peer: Any, client: Any) -> None:
    authority = trustme.CA()
    vendor = await peer(OK, tls=shown(authority, name))
    one = await client(tls=trust(authority) if known else None)
    await becomes(Unavailable, "tls", one.call(vendor.url(), b"x", deadline=LATER))
    assert vendor.requests == []


async def test_a_vendor_without_tls_gets_nothing(peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    vendor.close = True
    one = await client()
    url = vendor.url().with_scheme("https").with_port(vendor.port)
    call = asyncio.create_task(one.call(url, b"x", deadline=LATER))
    await eventually(lambda: bool(vendor.writers))
    vendor.writers[0].write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await becomes(Unavailable, "tls", call)


async def test_an_address_of_ipv6_and_a_name_with_two_addresses(peer: Any, client: Any) -> None:
    one = await client()
    try:
        vendor = await peer(OK, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    await one.call(vendor.url(), b"x", deadline=LATER)
    assert b"\r\nHost: [::1]:%d\r\n" % vendor.port in vendor.requests[0]
    vendor = await peer(OK)
    await one.call(vendor.url().with_host("localhost"), b"x", deadline=LATER)
    assert b"\r\nHost: localhost:%d\r\n" % vendor.port in vendor.requests[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-C: d"},
        {"X-A": "b\nX-C: d"},
        {"X-A": "b\rX-C: d"},
        {"X-A": "b\0"},
        {"X-A": "\ud800"},
        {"X-A\r\nX-C": "d"},
        {"X A": "b"},
        {"": "b"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"Connection": "close"},
    ],
)
async def test_a_header_cannot_become_two_or_end_the_request(headers: dict[str, str], peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client()
    await becomes(Misconfigured, "bad_header", one.call(vendor.url(), b"x", deadline=LATER, headers=headers))
    always = await client(headers=headers)
    await becomes(Misconfigured, "bad_header", always.call(vendor.url(), b"x", deadline=LATER))
    assert vendor.connections == 0


@pytest.mark.parametrize("path", ["/a\r\nX: y", "/a b", "/a\0", "/\x7f", "/ü"])
async def test_an_address_cannot_become_two_lines(path: str, peer: Any, client: Any) -> None:
    vendor = await peer(OK)
    one = await client()
    raw = URL.build(scheme="http", host=vendor.host, port=vendor.port, path=path, encoded=True)
    await becomes(Misconfigured, "bad_url", one.call(raw, b"x", deadline=LATER))
    assert vendor.connections == 0
    await one.call(vendor.url(path), b"x", deadline=LATER)  # where it is quoted
    assert vendor.requests[0].count(b"\r\n") == 8


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "/v1", "file:///etc/passwd"])
async def test_what_is_no_web_address_is_our_fault(url: str, client: Any) -> None:
    one = await client()
    await becomes(Misconfigured, "bad_url", one.call(URL(url), b"x", deadline=LATER))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "vendor.invalid"])
async def test_a_name_that_cannot_be_one(host: str, client: Any) -> None:
    one = await client()
    await becomes(Unavailable, "dns", one.call(URL.build(scheme="http", host=host, path="/"), b"x", deadline=LATER))
