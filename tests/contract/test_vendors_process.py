"""The vendors as one process, as the end-to-end tests run them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

import providers
from providers import Act, Acted, Agent, Callback, Receipt, ReceiptStatus
from tests.contract.cases import ATTEMPT, MESSAGE, cases, fcm_settings, http_settings, smtp_settings, twilio_settings

ROOT = Path(__file__).parents[2]


async def test_all_vendors_in_one_process(tmp_path: Path, opened: Any) -> None:
    ledger = tmp_path / "ledger.jsonl"
    reports: asyncio.Queue[Callback] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        url = f"https://m.example.com{request.path_qs}"
        reports.put_nowait(Callback(url, dict(request.query), headers, await request.read()))
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/callbacks/text", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.vendors", "--ledger", str(ledger), "--callbacks", "--callback-base", base],
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        ports = ready["ports"]
        settings = {
            "smtp": smtp_settings(ports["smtp"]),
            "twilio_sms": twilio_settings("twilio_sms", ports["twilio"]),
            "twilio_voice": twilio_settings("twilio_voice", ports["twilio"]),
            "fcm": fcm_settings(ports["fcm"], service_account=ready["service_account"]),
            "http": http_settings(ports["http"]),
        }
        now = datetime.now(UTC)
        for kind, given in settings.items():
            provider = await opened(given, lambda: datetime.now(UTC))
            dispatch = replace(cases()[kind].dispatch, deadline=now + timedelta(minutes=1))
            await provider.send(replace(dispatch, valid_until=now + timedelta(hours=1)))
        entries = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert [entry["provider"] for entry in entries] == ["smtp", "twilio", "twilio", "fcm", "http"]
        assert [entry["channel"] for entry in entries] == ["email", "sms", "robocall", "push", "sms"]
        assert [entry["attempt"] for entry in entries] == [ATTEMPT, ATTEMPT, ATTEMPT, None, ATTEMPT]
        assert [entry["message"] for entry in entries] == [MESSAGE, None, None, MESSAGE, MESSAGE]
        assert all(abs(datetime.fromisoformat(entry["at"]) - now) < timedelta(minutes=1) for entry in entries)
        news = []
        for _ in range(4):
            callback = await asyncio.wait_for(reports.get(), 10)
            kind = "twilio_voice" if b"CallSid" in callback.body else "twilio_sms"
            news += providers.build("given", settings[kind]).receipts(callback)
        assert {(receipt.attempt, receipt.status) for receipt in news if isinstance(receipt, Receipt)} == {
            (ATTEMPT, ReceiptStatus.ACCEPTED),
            (ATTEMPT, ReceiptStatus.DELIVERED),
        }
        assert [act for act in news if isinstance(act, Acted)] == [Acted(ATTEMPT, Act.ANSWERED, Agent.HUMAN)]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await runner.cleanup()
