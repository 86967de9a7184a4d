"""Addresses of hosts: whoever hangs holds nobody else up."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from providers._names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server:
    """A name server that hangs until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()

    def look_up(self, host: str, port: int, **more: Any) -> Any:
        self.asked += 1
        self.answers.wait(30)
        return socket.getaddrinfo("127.0.0.1", port, **more)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.answers.set()


async def test_addresses_are_the_systems() -> None:
    assert await Names("localhost", 25).addresses() == socket.getaddrinfo("localhost", 25, type=socket.SOCK_STREAM)


async def test_a_host_that_hangs_takes_no_thread_from_the_loop_and_one_for_all_who_ask(server: Server) -> None:
    """The loop has at most 32 threads."""
    hanging = [Names(f"{number}.test", 443, server.look_up) for number in range(50)]
    asking = [asyncio.ensure_future(one.addresses()) for one in hanging for _ in range(3)]
    async with asyncio.timeout(10):
        assert await Names("127.0.0.1", 25).addresses()
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 25)
        assert await asyncio.to_thread(lambda: "answered") == "answered"
    asking[0].cancel()  # by its time-out; the others go on waiting
    server.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    found = await asyncio.gather(*asking[1:])
    assert {address[0][4] for address in found} == {("127.0.0.1", 443)}
    assert server.asked == len(hanging)


async def test_it_is_asked_anew_each_time(server: Server) -> None:
    server.answers.set()
    names = Names("vendor.test", 443, server.look_up)
    for _ in range(3):
        await names.addresses()
    assert server.asked == 3


async def test_what_is_no_name_is_told_to_all_who_asked() -> None:
    names = Names("a" * 64 + ".test", 25)  # RFC 1035, 2.3.4: at most 63 octets
    for answer in await asyncio.gather(names.addresses(), names.addresses(), return_exceptions=True):
        assert isinstance(answer, UnicodeError)


async def test_that_nobody_knows_is_told() -> None:
    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")

    with pytest.raises(socket.gaierror):
        await Names("vendor.test", 25, fail).addresses()
