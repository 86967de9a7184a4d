"""A campaign over four channels, published by a client that is not ours: every promise, from the ledgers' side."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.end_to_end.campaign import Campaign, plan
from tests.end_to_end.harness import World, unheard, world
from tests.end_to_end.oracle import Examination
from tests.servers import wait_until

SIZES = [
    pytest.param(1_500, marks=pytest.mark.timeout(180)),
    pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
]


@pytest.mark.parametrize("size", SIZES)
async def test_a_campaign(size: int, tmp_path: Path, amqp_url: str, postgres_url: str) -> None:
    campaign = plan(size, seed=size, steered=True)
    async with world(tmp_path, store=postgres_url, broker=amqp_url, zone=campaign.zone) as here:
        await here.introduce(campaign)
        await here.publish(campaign.queues(seed=size))
        await here.settled(campaign, timeout=60 + size / 20, repeats=True)
        await known_by_http(here, campaign)
        await at_rest(here, campaign)


async def known_by_http(here: World, campaign: Campaign) -> None:
    """A sample: repeated by HTTP, a request gets the answer that it got by AMQP; and its state is that of the rows."""
    sample = Random(1).sample([r for r in campaign.requests if r.source == "shop"], 30)
    contested = {request.key for request in campaign.conflicts}
    for request in sample:
        status, found = await here.send(b"", source=request.source, id=request.id)
        assert status == 200
        assert (found["id"], found["source"]) == (request.id, request.source)
        assert found["state"] in request.fate
        if request.key not in contested:
            status, answer = await here.send(request.line)
            assert status == 200, answer
            assert answer == {"message": found["message"], "id": request.id, "state": found["state"]}
        status, answer = await here.send(request.line.replace(b'"content"', b'"variant": "other", "content"', 1))
        assert status == 409, answer


async def at_rest(here: World, campaign: Campaign, *, killed: bool = False, **more: Any) -> Examination:
    """All checks that hold of every campaign, once it has settled."""
    await here.hang_up()
    assert all(gateway.drain() == 0 for gateway in here.gateways)
    exam = await here.examine(campaign, **more)
    findings = exam.run()
    assert not findings, "\n".join([f"{len(findings)} findings", *map(str, findings[:40])])
    assert exam.states.keys() == {request.key for request in campaign.requests}
    print(exam.summary())

    assert not any((await here.queued()).values())
    parked = await here.parked()
    stored = [body for _, body, _ in exam.store.parked]
    assert {body for body, _ in parked} == set(stored)
    assert killed or len(parked) == len(stored) == len(campaign.malformed) + len(campaign.conflicts)
    assert all(headers["x-decorum-faults"] not in ("", "[]") for _, headers in parked)

    await wait_until(lambda: not unheard(exam.states, here.events), 10, str(unheard(exam.states, here.events)[:20]))
    assert not here.leaks()[:10]
    assert not here.complaints()[:10]
    return exam
