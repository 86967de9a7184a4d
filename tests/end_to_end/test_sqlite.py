"""The embedded form: SQLite, no broker, requests from a file and from a pipe."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp

from tests.end_to_end.campaign import Campaign, plan
from tests.end_to_end.checks import at_rest
from tests.end_to_end.harness import KEY, World, run_decorum, world
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path


async def test_requests_from_a_file_and_a_pipe(tmp_path: Path) -> None:
    campaign = plan(400, seed=4, steered=True, sources=("shop",))
    lines = [line for queue in campaign.queues(seed=4).values() for line in queue]
    store = f"sqlite:///{tmp_path}/gateway.db"
    async with world(tmp_path, store=store, broker=None, zone=campaign.zone) as here:
        await introduce(here, campaign)
        file = tmp_path / "requests.jsonl"
        half = len(lines) // 2
        file.write_bytes(b"\n".join(lines[:half]))
        url = here.gateways[0].url
        tallies = [
            await asyncio.to_thread(run_decorum, "send", str(file), "--url", url, "--key", KEY, "--json"),
            await asyncio.to_thread(
                run_decorum, "send", "-", "--url", url, "--key", KEY, "--json", stdin=b"\n".join(lines[half:])
            ),
        ]
        said = [json.loads(run.stdout) for run in tallies]
        assert [run.returncode for run in tallies] == [1, 1], "both had malformed lines"
        assert sum(tally["accepted"] for tally in said) == len(campaign.requests)
        assert sum(tally["repeated"] for tally in said) == len(campaign.repeats)
        assert sum(tally["refused"] for tally in said) == len(campaign.malformed) + len(campaign.conflicts)
        assert all(fault["errors"] for tally in said for fault in tally["faults"])

        async def settled() -> bool:
            exam = await here.examine(campaign, malformed_parked=False, conflicts_parked=False)
            return not exam.run()

        await wait_until(settled, 60)
        await at_rest(here, campaign, malformed_parked=False, conflicts_parked=False)


async def introduce(here: World, campaign: Campaign) -> None:
    """By HTTP, one after another."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        for person in campaign.people:
            if person.profile is not None:
                url = f"{here.gateways[0].url}/v1/users/{person.name}"
                async with session.put(url, json=person.profile) as response:
                    assert response.status == 204, await response.text()
