"""Addresses of a host, asked for without holding anybody else up."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohappyeyeballs import AddrInfoType

    LookUp = Callable[..., Sequence[AddrInfoType]]


class Names:
    """Asks the system for one host's addresses, on a thread of its own.

    The loop has four or a few more for everybody: while a name server hangs, calls to one vendor would take them all,
    and the database's connection could not be built anew. Here one thread hangs, whoever asks meanwhile waits for its
    answer as well, and the process may end without it.
    """

    def __init__(self, host: str, port: int, look_up: LookUp = socket.getaddrinfo) -> None:
        """``look_up`` is called as ``socket.getaddrinfo`` is."""
        self._host = host
        self._port = port
        self._look_up = look_up
        self._asked: asyncio.Future[Sequence[AddrInfoType]] | None = None

    async def addresses(self) -> Sequence[AddrInfoType]:
        """Those there are now.

        Raises:
            OSError: there is no such name, or nobody knows.
            UnicodeError: it cannot be a name.
        """
        if self._asked is None or self._asked.done():
            loop = asyncio.get_running_loop()
            self._asked = loop.create_future()
            thread = threading.Thread(target=self._ask, args=(loop, self._asked), name="names", daemon=True)
            thread.start()
        return await asyncio.shield(self._asked)

    def _ask(self, loop: asyncio.AbstractEventLoop, asked: asyncio.Future[Sequence[AddrInfoType]]) -> None:
        try:
            found = self._look_up(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            tell = partial(asked.set_exception, failure)
        else:
            tell = partial(asked.set_result, found)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)
