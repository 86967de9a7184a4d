"""Starts gateways that die at a named point.

    python -m tests.faults.launch POINT serve --config gateway.yaml     # one; an empty point: it never does
    python -m tests.faults.launch                                       # many, each forked as a line asks for it

The gateway itself knows no such setting: in production ``killpoints.reached`` does nothing, and nothing can change
that. Importing the gateway takes longer than all the rest of its start, so those that are killed by the hundred are
forked from a process that has it already. A fork is a process like any other, with its own memory and death.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys

from gateway import killpoints
from gateway.cli import main

WANTED = (
    *("gateway.app", "gateway.config", "gateway.logs", "gateway.store.postgres", "gateway.store.sqlite"),
    *("providers.http", "providers.twilio_sms", "anyio._backends._asyncio", "uvloop"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.ext.asyncio"),
)
"""What a gateway imports when it comes to need it, and a fork has by then."""
DIED = "died at "
FREEZE = "freeze:"


def arm(point: str) -> None:
    """Have this process killed, or after ``freeze:`` stopped, when it first comes there; an empty point: never."""
    freeze, point = point.startswith(FREEZE), point.removeprefix(FREEZE)

    def reached(here: str) -> None:
        if here != point:
            return
        if not freeze:
            os.write(1, f"{DIED}{point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        killpoints.reached = nothing
        os.kill(os.getpid(), signal.SIGSTOP)

    nothing = killpoints.reached
    if point:
        if point not in killpoints.POINTS:
            raise SystemExit(f"there is no kill point {point}")
        killpoints.reached = reached  # type: ignore[assignment]


def serve(point: str, arguments: list[str]) -> None:
    """Be a gateway."""
    sys.argv[1:] = arguments
    arm(point)
    main()


def fork_all() -> None:
    """A gateway for each line: ``{"point", "arguments", "log"}``; the process is told in answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has died is gone, and leaves no zombie
    for name in WANTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, file in ((0, nothing), (1, log), (2, log)):
                os.dup2(file, number)
            try:
                serve(asked["point"], asked["arguments"])
            finally:
                sys.stdout.flush()
                os._exit(0)
        print(child, flush=True)
    os.killpg(0, signal.SIGKILL)  # nobody asks any more: none of ours stays behind


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], sys.argv[2:])
    else:
        fork_all()
