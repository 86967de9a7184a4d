"""Does the gateway of the chart's sample run, do its probes see that, and is what it tells Prometheus well-formed?"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.servers import free_port, spawn, wait_until
from tests.ship.chart import NAME, ROOT, rendered
from tests.ship.expressions import told
from tests.ship.programs import run

if TYPE_CHECKING:
    from pathlib import Path

SENT = {
    "id": "1",
    "user": "hana",
    "category": "transactional",
    "to": {"email": "hana@example.com"},
    "content": {"email": {"subject": "Three minutes left", "text": "Your application is kept."}},
}


async def test_the_sample_runs_its_probes_see_that_and_prometheus_can_read_it(tmp_path: Path) -> None:
    made, port = rendered({}), free_port()
    file = tmp_path / "gateway.yaml"
    file.write_text(made.config().replace("/data/", f"{tmp_path}/").replace("8080", str(port)))
    (container,) = made.kind("Deployment")[NAME]["spec"]["template"]["spec"]["containers"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | {each["name"]: each["value"] for each in container["env"]}
    environ |= {"DECORUM_CONFIG": str(file)}

    async def well(probe: dict[str, Any]) -> bool:
        python, *arguments = probe["exec"]["command"]
        assert python == "python"
        arguments = [argument.replace("8080", str(port)) for argument in arguments]
        asked = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
        return await asked.wait() == 0

    assert not await well(container["livenessProbe"])
    with spawn([sys.executable, "-m", "gateway", *container["args"]], tmp_path / "log", env=environ) as gateway:
        await wait_until(lambda: well(container["readinessProbe"]), 30)
        assert await well(container["livenessProbe"])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.post("/v1/messages", json=SENT) as answer:
                assert answer.status == 202, gateway.text
            async with session.get("/metrics") as answer:
                text = await answer.text()
    assert 'gateway_requests_received_total{answer="accepted",via="http"} 1.0' in text
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in told()} == set(
        re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    )
    assert run("promtool", "check", "metrics", stdin=text) == ""
