"""Hours under load and faults: ``python -m tests.soak --minutes 60``.

Two gateways share PostgreSQL, a third has SQLite; all three take in over RabbitMQ, and hand over to two vendors each.
Every few minutes something fails: a vendor, the broker, the database, or one of the two gateways. The other gateways
are never killed; it is they that are watched. The exit status is 0 if nothing grows, nothing is lost and nothing is
doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from rich.console import Console

from tests.servers import PostgreSQL, RabbitMQ
from tests.soak.run import Plan, Soak, tell

result = Console(width=150, highlight=False)
talk = Console(stderr=True, highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="messages a second (50)")
    parser.add_argument("--every", type=float, default=180, help="seconds from one fault to the next, on average (180)")
    parser.add_argument("--seed", type=int, help="of what fails when; another each time")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> int:
    """The exit status."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that nothing is left behind
    for client in ("aio_pika", "aiormq"):
        logging.getLogger(client).setLevel(logging.CRITICAL)  # the broker is killed on purpose
    seed = SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    plan = Plan(options.minutes * 60, seed, options.rate, options.every)
    folder = Path(tempfile.mkdtemp(prefix="decorum-soak-"))
    talk.print(f"seed {seed}; logs and ledgers are in {folder} until all has held", soft_wrap=True)
    with await asyncio.to_thread(RabbitMQ.start) as broker, await asyncio.to_thread(PostgreSQL.start) as database:
        report = await Soak(folder, plan, broker, database, talk).run()
    tell(report, result)
    if report.faults:
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_options())))
