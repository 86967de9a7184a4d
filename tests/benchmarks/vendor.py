"""A vendor that accepts everything at once and costs next to nothing: ``python -m tests.benchmarks.vendor PORT``.

``GET`` answers how many requests came since the last ``DELETE``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class _Vendor(asyncio.Protocol):
    """HTTP/1.1 as far as well-behaved clients need it: keep-alive, pipelining, ``Content-Length``."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._held = b""

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        replies = []
        while (end := held.find(b"\r\n\r\n")) >= 0:
            head = held[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(held) < end + 4 + length:
                break
            held = held[end + 4 + length :]
            replies.append(_reply(head[:4]))
        self._held = held
        if replies:
            self._transport.write(b"".join(replies))


def _reply(method: bytes) -> bytes:
    if method == b"get ":
        body = b'{"count":%d}' % _Vendor.count
    elif method == b"dele":
        _Vendor.count = 0
        body = b"{}"
    else:
        _Vendor.count += 1
        body = b'{"id":"v-%010d"}' % _Vendor.count
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Vendor, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(_serve(int(sys.argv[1])))
