"""A stub vendor in a process of its own. What it took is in its ledger, and on the disk, before it answers.

    python -m tests.faults.vendor --ledger ledger.jsonl --port 8103

``POST /plain`` takes every request anew; ``POST /keyed`` takes one per ``Idempotency-Key``. The body names the attempt
(``ref``), the message, the address and the text; the text names the request, the person and the zone, so that the
ledger can be judged without any record of the gateway: ``<request>|<person>|<zone>``. Twilio's messages are taken too.

``PUT /mode`` with ``{"mode": …}`` changes what it does from then on, with every request or with the ``request`` named:

========== ==================================================
take       takes it and answers (at first)
delay      the same after ``seconds``
silence    takes it and never answers
deaf       does not take it, and never answers either
reset      takes it and cuts the connection
refuse     503, and the ledger does not have it
========== ==================================================
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from aiohttp import web


class Vendor:
    """Takes messages."""

    def __init__(self, ledger: Path) -> None:
        self._file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # Of an earlier life: a vendor remembers its keys.
        lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
        self._keys = {line["key"]: line["reference"] for line in lines if line["key"]}
        self._taken = len(lines)
        self._mode: dict[str, Any] = {"mode": "take"}
        self._modes: dict[str, dict[str, Any]] = {}
        """By request."""
        self._heard: set[str] = set()

    async def mode(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if "request" in asked:
            self._modes[asked["request"]] = asked
        else:
            self._mode = asked
        return web.json_response({})

    async def heard(self, request: web.Request) -> web.Response:
        """Whether a request came here, taken or not."""
        return web.json_response(request.match_info["request"] in self._heard)

    async def plain(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(await request.json(), request, None)

    async def keyed(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(await request.json(), request, request.headers["Idempotency-Key"])

    async def twilio(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        attempt = parse_qs(urlsplit(str(form["StatusCallback"])).query)["attempt"][0]
        body = {"to": str(form["To"]), "text": str(form["Body"]), "ref": attempt, "message": ""}
        return await self._answer(body, request, None)

    async def _answer(self, body: dict[str, str], request: web.Request, key: str | None) -> web.StreamResponse:
        id_ = body["text"].partition("|")[0]
        self._heard.add(id_)
        asked = self._modes.get(id_, self._mode)
        mode = asked["mode"]
        if mode == "refuse":
            return web.json_response({}, status=503)
        if mode == "deaf":
            await asyncio.Event().wait()
        reference = self._keys.get(key or "") or self._take(body, key)
        if mode == "delay":
            await asyncio.sleep(asked["seconds"])
        if mode == "silence":
            await asyncio.Event().wait()
        if mode == "reset":
            assert request.transport
            request.transport.abort()
        return web.json_response({"id": reference, "sid": reference}, status=201)

    def _take(self, body: dict[str, str], key: str | None) -> str:
        self._taken += 1
        reference = f"v{self._taken}"
        request, person, zone = body["text"].split("|")
        now = datetime.now(UTC)
        entry = {
            "at": now.isoformat(),
            "hour": now.astimezone(ZoneInfo(zone)).isoformat(),
            "ref": body["ref"],
            "message": body["message"],
            "key": key,
            "address": body["to"],
            "request": request,
            "person": person,
            "reference": reference,
        }
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)
        if key:
            self._keys[key] = reference
        return reference


async def serve(options: argparse.Namespace) -> None:
    vendor = Vendor(options.ledger)
    app = web.Application()
    app.add_routes(
        [
            web.post("/plain", vendor.plain),
            web.post("/keyed", vendor.keyed),
            web.post("/2010-04-01/Accounts/{account}/Messages.json", vendor.twilio),
            web.put("/mode", vendor.mode),
            web.get("/heard/{request}", vendor.heard),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=1024).start()
    print("ready", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.vendor", description=__doc__)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
