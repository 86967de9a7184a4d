"""A process that accepts requests through the gateway's store as fast as it can, until it is killed.

The id of each goes into a file when, and only when, the store has said that it is kept.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from time import time_ns

from gateway.store import Store, engine_of
from tests.proofs.offers import accept, judge, offer

POLICY = "policy: {timezone: UTC, categories: {news: {}}}"
AT_ONCE = 4
"""Transactions under way, which SQLite commits together where they meet."""


def work(url: str, kept: str) -> None:
    """For ever."""
    asyncio.run(_work(url, kept))


async def _work(url: str, kept: str) -> None:
    file = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    store, one_judge = Store(engine_of(url, lambda: time_ns() // 1000), leases=False), judge(POLICY)
    await store.open()

    async def one() -> None:
        while True:
            new = [offer(one_judge, f"p{n}", "news", datetime.now(UTC)) for n in range(3)]
            await accept(store, new)
            os.write(file, "".join(f"{each.message.request}\n" for each in new).encode())

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
