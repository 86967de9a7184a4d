"""What holds of every campaign once it has come to rest."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.harness import unheard
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.end_to_end.campaign import Campaign
    from tests.end_to_end.harness import World
    from tests.end_to_end.oracle import Examination

SIZES = [
    pytest.param(1_500, marks=pytest.mark.timeout(300)),
    pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
]


def patience(size: int) -> float:
    """Seconds until a campaign must have settled."""
    return 60 + size / 40


async def known_by_http(here: World, campaign: Campaign) -> None:
    """A sample: repeated by HTTP, a request gets the answer that it got by AMQP; and its state is that of the rows."""
    sample = Random(1).sample([r for r in campaign.requests if r.source == "shop"], 30)
    contested = {request.key for request in campaign.conflicts}
    for request in sample:
        status, found = await here.send(b"", source=request.source, id=request.id)
        assert status == 200
        assert (found["id"], found["source"]) == (request.id, request.source)
        here.told[request.key] = found["state"]
        if request.key not in contested:
            status, answer = await here.send(request.line)
            assert status == 200, answer
            assert answer == {"message": found["message"], "id": request.id, "state": found["state"]}
        status, answer = await here.send(request.line.replace(b'"content"', b'"variant": "other", "content"', 1))
        assert status == 409, answer


async def at_rest(here: World, campaign: Campaign, *, killed: bool = False, **more: Any) -> Examination:
    """Stop everything, and look at all that is left.

    ``killed``: a gateway was, so that what is parked may be parked twice.
    """
    await here.hang_up()
    assert [gateway.drain() for gateway in here.gateways] == [0] * len(here.gateways)
    exam = await here.examine(campaign, **more)
    findings = exam.run()
    print(exam.summary())
    assert not findings, "\n".join([f"{len(findings)} findings", *map(str, findings[:40])])
    assert len(exam.states) == len(campaign.requests)
    assert here.told.items() <= exam.states.items()

    if here.broker:
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
