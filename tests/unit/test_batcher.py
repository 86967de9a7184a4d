"""What is gathered for a store that is slow is bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.batcher import Batcher
from gateway.intake import Overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_no_more_calls_wait_for_a_slow_store_than_there_is_room_for() -> None:
    go = asyncio.Event()

    async def slow(items: Sequence[int]) -> Sequence[int]:
        await go.wait()
        return items

    batched = Batcher(slow, most=4, lanes=1, room=8)
    calls = [batched(number) for number in range(4)]  # under way
    calls += [batched(number) for number in range(4, 12)]
    for _ in range(3):
        with pytest.raises(Overloaded) as told:
            batched(99)
        assert told.value.retry_after == 1
    go.set()
    assert await asyncio.gather(*calls) == list(range(12))
    assert await batched(12) == 12, "it goes on by itself"
