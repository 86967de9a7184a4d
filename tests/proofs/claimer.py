"""A worker in a process of its own, of which nothing is left but the claims: ``python -m tests.proofs.claimer``.

Says that it is ready, waits for the file that it is told, then leases, claims and settles until nothing is due any
more. What it writes last is a line of JSON: how many messages it decided, and how many it handed over.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING

from gateway.ids import new_id
from gateway.outcome import accepted, failed
from gateway.store import Claimed, Settlement, Store, engine_of
from gateway.store.engine import Fetch, Now
from providers import Rejected
from tests.proofs.offers import EVERYTHING, TERM, judge
from tests.servers import wait_until

if TYPE_CHECKING:
    from gateway.outcome import Outcome
    from gateway.store.engine import Operation

POLICY = """
policy:
  timezone: UTC
  categories:
    news: {priority: bulk, expires_after: 14d}
    offer: {priority: normal, expires_after: 14d}
  caps:
    - {name: daily, limit: 3, per: 24h}
"""
SMALL = 48
"""Messages leased at a time: few, so that processes meet at one person all the time."""
SOON = 2_000_000
"""Microseconds: within them a message asks again that let another go first."""
FAILS = "this one is refused by the vendor"


async def work(url: str, go: Path) -> None:
    engine = engine_of(url, lambda: time_ns() // 1000)
    store, one_judge = Store(engine), judge(POLICY)
    await store.open()
    print("ready", flush=True)
    await wait_until(go.exists, 60)

    def left() -> Operation[int]:
        now: int = yield Now()
        found = yield Fetch("select count(*) from due where due_at <= $1 or lease_until > $2", (now + SOON, now))
        number: int = found[0][0]
        return number

    decided = handed = 0
    while True:
        leases, _ = await store.lease([(*pair, SMALL) for pair in EVERYTHING], TERM)
        if not leases:
            if not await engine.read(left):
                break
            await asyncio.sleep(0.1)
            continue
        answers = await store.claim(leases, one_judge, [new_id() for _ in leases])
        decided += len(answers)
        claims = [answer for answer in answers if isinstance(answer, Claimed)]
        if claims:
            settled = [Settlement(claim, _outcome(claim)) for claim in claims]
            handed += sum(settlement.outcome.error is None for settlement in settled)
            await store.settle(settled, one_judge)
    await store.close()
    print(json.dumps({"decided": decided, "handed": handed}), flush=True)


def _outcome(claim: Claimed) -> Outcome:
    refused = claim.lease.message.body["content"]["sms"]["text"] == FAILS
    return failed(Rejected("400")) if refused else accepted("ref")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
