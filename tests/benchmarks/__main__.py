"""How fast is the gateway, beside what one knows? ``python -m tests.benchmarks --help`` lists what can be asked.

python -m tests.benchmarks                        the first three tables
python -m tests.benchmarks gateway                whole messages: five rounds of 10 000
python -m tests.benchmarks decision               one decision, beside one question to Redis
python -m tests.benchmarks claims                 decisions committed, and whether a million persons make them dearer
python -m tests.benchmarks failover               what it costs that a provider fails, with 1 and 4 workers
python -m tests.benchmarks isolation              a channel beside one that hangs, one-time codes under a campaign
python -m tests.benchmarks memory                 what a gateway holds while a million messages wait
python -m tests.benchmarks --profile stacks.txt   where the gateway's time goes
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console

from tests.benchmarks import claims, decision, failover, isolation, memory
from tests.benchmarks.contests import Failed, contest
from tests.benchmarks.ground import Ground, redis_server
from tests.benchmarks.measure import TITLES, Run, summary, table
from tests.benchmarks.profile import profile
from tests.benchmarks.scene import Servers

talk = Console(stderr=True, highlight=False)
"""What goes on; results go to standard output."""
result = Console(width=150, highlight=False)

QUICK = 500
TABLES = ("gateway", "decision", "claims")
SHOWS = ("failover", "isolation", "memory")
"""Asked for by name: they take minutes each."""
_ROUNDS = {"failover": 1, "isolation": 3}
_QUICK_PERSONS = (500, 1000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="How fast is the gateway?")
    parser.add_argument("what", nargs="?", choices=("all", *TABLES, *SHOWS), default="all")
    parser.add_argument("--rounds", type=int, help="of all contenders, one after another (5; failover 1, isolation 3)")
    parser.add_argument("--messages", type=int, default=10_000, help="a run of whole messages (10000)")
    parser.add_argument("--only", default=",".join(TITLES), help="of whole messages, such as a,b")
    parser.add_argument("--persons", type=int, nargs="+", default=claims.PERSONS, help="(10000 1000000)")
    parser.add_argument("--claims", type=int, default=20 * claims.BATCH, help="of each contender a round (5120)")
    parser.add_argument("--decisions", type=int, default=20_000, help="a round, each way (20000)")
    parser.add_argument("--seconds", type=float, help="of a fault (60), or that memory is watched (180)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="of failover (1 4)")
    parser.add_argument("--waiting", type=int, default=memory.MESSAGES, help="messages, of memory (1000000)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, of whole messages a and b: does it work?"
    )
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run b once under py-spy; stacks go to FILE")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def _told(run: Run) -> None:
    notes = "  ".join(f"{name} {value:,.1f}" for name, value in (*run.servers.items(), *run.notes.items()))
    talk.print(f"{run.contender}  {run.rate:8,.0f}/s  {run.cpu:6,.0f} µs  {run.rss:4,.0f} MB  {notes}", soft_wrap=True)


async def main(options: argparse.Namespace) -> None:
    """Do what is asked."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that nothing is left behind
    if options.profile:
        async with Ground(redis=False, statements=True) as ground:
            _told(await profile(ground, options.messages, options.profile, result))
        return
    rounds = 1 if options.quick else options.rounds or _ROUNDS.get(options.what, 5)
    tables = TABLES if options.what == "all" else (options.what,)
    found = {name: await _table(name, rounds, options) for name in tables}
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


async def _table(name: str, rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    console = talk if options.json else result
    if name == "gateway":
        return await _gateway(rounds, options, console)
    if name in SHOWS:
        return await _show(name, rounds, options, console)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the gateway sets it; all that is compared here runs in this process
    with tempfile.TemporaryDirectory(prefix="decorum-bench-") as folder:
        async with redis_server(Path(folder)) as (redis, child):
            if name == "decision":
                return await decision.main(redis, rounds, QUICK if options.quick else options.decisions, console)
            if options.quick:
                asked = claims.Asked(_QUICK_PERSONS, rounds, claims.BATCH)
            else:
                asked = claims.Asked(options.persons, rounds, min(options.claims, *options.persons))
            return await claims.main((redis, child.pid), asked, console)


async def _show(name: str, rounds: int, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    if name == "memory":
        with tempfile.TemporaryDirectory(prefix="decorum-bench-") as folder:
            counts = (memory.FEW, options.waiting)
            return await memory.main(Path(folder), counts, options.seconds or 180, console, talk)
    async with Servers.started() as servers:
        if name == "failover":
            return await failover.main(servers, rounds, options.seconds or 60, options.workers, console, talk)
        return await isolation.main(servers, isolation.Asked(rounds=rounds), console, talk)


async def _gateway(rounds: int, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    names = ["a", "b"] if options.quick else [name for name in TITLES if name in options.only.split(",")]
    runs: list[Run] = []
    try:
        async with Ground(redis="d" in names) as ground:
            async for run in contest(ground, names, rounds, QUICK if options.quick else options.messages):
                _told(run)
                runs.append(run)
    finally:
        console.print(table(runs))
    return summary(runs)


if __name__ == "__main__":
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(_options()))
    except asyncio.CancelledError:
        sys.exit(143)
    except Failed as error:
        talk.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
