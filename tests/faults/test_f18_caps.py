"""Two gateways send to the same persons at once: nobody gets more than the cap, and nobody less."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults import records
from tests.faults.checker import Promise
from tests.faults.world import world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

CAP = 3
EACH = 10
"""Messages asked for each person in the short form; in the long one there are at most ``PERSONS`` persons."""
PERSONS = 500


@pytest.mark.row("F18")
async def test_two_gateways_keep_one_cap(tmp_path: Path, postgres_url: str, count: int, tally: Tally) -> None:
    caps = {"caps": [{"name": "daily", "limit": CAP, "per": "24h"}]}
    promise = Promise(cap=CAP, may_wait=True)
    persons = min(PERSONS, count // EACH)
    async with world(tmp_path, store=postgres_url, gateways=2, policy=caps, promise=promise) as here:
        requests = here.requests(count, "capped", persons=persons)
        halves = [here.post(requests[number::2], to=number) for number in range(2)]
        assert {status for statuses in await asyncio.gather(*halves) for status in statuses} == {202}
        await here.settled(60 + count / 50, waiting=True)
        assert [gateway.drain() for gateway in here.gateways] == [0, 0]
        verdict = await here.verdict()
        tally.fault(count)
        tally.judge(verdict)
        got = Counter(entry.person for entry in records.taken(here.vendor.ledger))
        assert got == dict.fromkeys({request.person for request in requests}, CAP)
        shares = [gateway.log.read_text().count('"message.ended"') for gateway in here.gateways]
        assert min(shares) > sum(shares) // 20, f"one of them did nearly all: {shares}"
