"""Many processes decide at once what a few persons may get: does anybody get more than the cap, or less?"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns

import pytest

from gateway.store import Store, engine_of
from gateway.store.engine import Fetch, Operation
from gateway.store.migrate import migrate
from providers import Channel
from tests.proofs import claimer
from tests.proofs.offers import accept, judge, offer
from tests.servers import Child, spawn, wait_until

ROOT = Path(__file__).parents[2]
LIMIT, WINDOW = 3, 24 * 3600 * 1_000_000
"""As in ``claimer.POLICY``; microseconds."""

SIZES = [
    pytest.param(4, 100, 4_000, id="short", marks=pytest.mark.timeout(120)),
    pytest.param(8, 500, 50_000, id="long", marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
]


@pytest.mark.parametrize(("processes", "persons", "sends"), SIZES)
async def test_nobody_gets_more_than_the_cap_and_nobody_less(
    processes: int, persons: int, sends: int, postgres_url: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrate, postgres_url)
    engine = engine_of(postgres_url, lambda: time_ns() // 1000)
    store = Store(engine, leases=False)
    await store.open()
    one_judge, drawn, now = judge(claimer.POLICY), random.Random(1), datetime.now(UTC)
    offered: defaultdict[str, int] = defaultdict(int)
    """Messages of each person that no vendor refuses."""
    new = []
    for number in range(sends):
        # The first persons are asked for once or twice, the others for the more the later they come.
        person = f"p{int(persons * drawn.random() ** 0.5) if number >= persons else number}"
        refused = drawn.random() < 0.2
        offered[person] += not refused
        body = {
            "to": {"phone": "+447400123456", "email": "ann@example.com"},
            "content": {
                "sms": {"text": claimer.FAILS if refused else "hello"},
                "email": {"subject": "s", "text": "t"},
            },
        }
        fields = {
            "campaign": drawn.choice(["spring", "summer", "autumn", None]),
            "channels": (drawn.choice([Channel.SMS, Channel.EMAIL]),),
            "expires_at": now + timedelta(hours=drawn.randint(30, 300)),
        }
        new.append(offer(one_judge, person, drawn.choice(["news", "offer"]), now, body=body, **fields))
    await accept(store, new)

    go = tmp_path / "go"
    command = [sys.executable, "-m", "tests.proofs.claimer", postgres_url, str(go)]
    workers = [spawn(command, tmp_path / f"{number}.log", cwd=ROOT) for number in range(processes)]
    try:
        await wait_until(lambda: all("ready" in worker.text for worker in workers), 60)
        go.touch()
        for worker in workers:
            assert await asyncio.to_thread(worker.wait, 600) == 0, worker.text
        said = [_said(worker) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()

    def contacts() -> Operation[list[tuple[str, int, int]]]:
        found = yield Fetch(
            "select c.person, c.begun_at, c.ended_at from contacts c join attempts a on a.id = c.attempt"
            " where a.state = 'accepted'"
        )
        return [tuple(row) for row in found]

    got: defaultdict[str, list[int]] = defaultdict(list)
    for person, begun, ended in await engine.read(contacts):
        assert begun <= ended
        got[person].append(begun)
    await store.close()
    print("decided and handed over, by each process:", said)
    assert all(one["decided"] for one in said), "not all processes took part"
    assert sum(one["handed"] for one in said) == sum(map(len, got.values()))
    for person, begun in got.items():
        for first in begun:
            within = sum(first <= other < first + WINDOW for other in begun)
            assert within <= LIMIT, f"{person} got {within} within a day"
    assert {person: len(begun) for person, begun in got.items()} == {
        person: min(LIMIT, number) for person, number in offered.items() if number
    }


def _said(worker: Child) -> dict[str, int]:
    said: dict[str, int] = json.loads(worker.text.splitlines()[-1])
    return said
