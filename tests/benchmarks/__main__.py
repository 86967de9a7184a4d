"""How fast is the gateway, beside what one knows? ``python -m tests.benchmarks --help`` lists what can be asked.

python -m tests.benchmarks                        the table, five rounds of 10 000 messages
python -m tests.benchmarks --profile stacks.txt   where the gateway's time goes
python -m tests.benchmarks ledger                 whether a decision costs the same however long the ledger is
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from tests.benchmarks import ledger
from tests.benchmarks.contests import Failed, contest
from tests.benchmarks.ground import Ground
from tests.benchmarks.measure import TITLES, Run, summary, table
from tests.benchmarks.profile import profile

talk = Console(stderr=True, highlight=False)
"""What goes on; results go to standard output."""
result = Console(width=150, highlight=False)

QUICK = 500


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="How fast is the gateway?")
    parser.add_argument("what", nargs="?", choices=("table", "ledger"), default="table")
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders, one after another (5)")
    parser.add_argument("--messages", type=int, default=10_000, help="a run (10000)")
    parser.add_argument("--only", default=",".join(TITLES), help="such as a,b")
    parser.add_argument("--quick", action="store_true", help=f"one round of a and b, {QUICK} messages: does it work?")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run b once under py-spy; stacks go to FILE")
    parser.add_argument("--rows", type=int, nargs="+", default=ledger.SIZES, help="of the ledger (10000 1000000)")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def _told(run: Run) -> None:
    notes = "  ".join(f"{name} {value:,.1f}" for name, value in (*run.servers.items(), *run.notes.items()))
    talk.print(f"{run.contender}  {run.rate:8,.0f}/s  {run.cpu:6,.0f} µs  {run.rss:4,.0f} MB  {notes}", soft_wrap=True)


async def main(options: argparse.Namespace) -> None:
    """Do what is asked."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that nothing is left behind
    if options.what == "ledger":
        claims = min(2000, *(rows // ledger.EACH for rows in options.rows))
        _print(await ledger.main(options.rows, options.rounds, claims, talk if options.json else result), options)
    elif options.profile:
        async with Ground(redis=False, statements=True) as ground:
            _told(await profile(ground, options.messages, options.profile, result))
    else:
        names = [name for name in TITLES if name in options.only.split(",")]
        rounds, messages = options.rounds, options.messages
        if options.quick:
            names, rounds, messages = ["a", "b"], 1, QUICK
        runs: list[Run] = []
        try:
            async with Ground(redis="d" in names) as ground:
                async for run in contest(ground, names, rounds, messages):
                    _told(run)
                    runs.append(run)
        finally:
            (talk if options.json else result).print(table(runs))
        _print(summary(runs), options)


def _print(found: Any, options: argparse.Namespace) -> None:
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    try:
        asyncio.run(main(_options()))
    except asyncio.CancelledError:
        sys.exit(143)
    except Failed as error:
        talk.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
