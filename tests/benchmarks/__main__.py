"""``python -m tests.benchmarks``: how fast is the gateway, beside what one knows?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import orjson
from rich.console import Console

from tests.benchmarks.contests import Failed, contest
from tests.benchmarks.ground import Ground
from tests.benchmarks.measure import TITLES, Run, summary, table
from tests.benchmarks.profile import profile

talk = Console(stderr=True, highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders, one after another")
    parser.add_argument("--messages", type=int, default=10_000, help="a run")
    parser.add_argument("--only", default=",".join(TITLES), help="such as a,b")
    parser.add_argument("--json", action="store_true", help="for programs, on standard output")
    parser.add_argument("--quick", action="store_true", help="one round of a and b, 500 messages: only that it works")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run b once under py-spy; stacks go to FILE")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> int:
    names = [name for name in TITLES if name in options.only.split(",")]
    rounds, messages = options.rounds, options.messages
    if options.quick:
        names, rounds, messages = ["a", "b"], 1, 500

    def told(run: Run) -> None:
        notes = "  ".join(f"{name} {value:,.1f}" for name, value in (*run.servers.items(), *run.notes.items()))
        talk.print(f"{run.contender}  {run.rate:8,.0f}/s  {run.cpu:6,.0f} µs  {run.rss:4,.0f} MB  {notes}")

    if options.profile:
        async with Ground(redis=False, statements=True) as ground:
            told(await profile(ground, messages, options.profile, Console(width=160, highlight=False)))
        return 0
    async with Ground(redis="d" in names) as ground:
        runs = await contest(ground, names, rounds, messages, told)
    if options.json:
        print(orjson.dumps(summary(runs), option=orjson.OPT_INDENT_2).decode())
    else:
        Console(width=160, highlight=False).print(table(runs))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(_options())))
    except Failed as error:
        talk.print(str(error), markup=False)
        sys.exit(1)
