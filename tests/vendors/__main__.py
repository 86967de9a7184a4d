"""Serve all vendors until SIGTERM or SIGINT.

    python -m tests.vendors --ledger ledger.jsonl --ports smtp=1025,twilio=8101 --delay 0.005 --callbacks

One JSON line is printed once all are ready: the ports, the logins and FCM's service account.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
from pathlib import Path

from tests.vendors import fcm, http, twilio
from tests.vendors.ledger import Ledger
from tests.vendors.smtp import Relay


def _ports(value: str) -> dict[str, int]:
    return {name: int(port) for name, port in (part.split("=") for part in value.split(",") if part)}


async def serve(options: argparse.Namespace) -> None:
    ledger = Ledger(options.ledger)
    vendors: list[Relay | twilio.Twilio | fcm.Fcm | http.Http] = [
        Relay(ledger, delay=options.delay, utf8=True, keep=options.ledger is None),
        twilio.Twilio(ledger, delay=options.delay, callbacks=options.callbacks, callback_base=options.callback_base),
        fcm.Fcm(ledger, delay=options.delay),
        http.Http(ledger, delay=options.delay),
    ]
    ports = {vendor.name: await vendor.start(options.ports.get(vendor.name, 0)) for vendor in vendors}
    ready = {
        "ports": ports,
        "account_sid": twilio.ACCOUNT_SID,
        "auth_token": twilio.AUTH_TOKEN,
        "key": http.KEY,
        "service_account": fcm.service_account(f"http://127.0.0.1:{ports['fcm']}/token"),
    }
    gc.freeze()
    print(json.dumps(ready), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for vendor in vendors:
        await vendor.stop()
    ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.vendors", description=__doc__)
    parser.add_argument("--ports", type=_ports, default={}, help="e.g. smtp=1025,twilio=8101,fcm=8102,http=8103")
    parser.add_argument("--ledger", type=Path, help="file to append one JSON line per accepted message to")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every answer takes")
    parser.add_argument("--callbacks", action="store_true", help="Twilio reports to the StatusCallback, signed")
    parser.add_argument("--callback-base", help="where callbacks really go, e.g. http://127.0.0.1:8081")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
