"""A gateway that certain texts kill, where they are read or decided, as a fault of a library in C would."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from gateway.__main__ import main
from gateway.decide import Judge
from gateway.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.decide import Facts, Step
    from gateway.intake import Answer, Incoming

POISON = "kills whoever decides it"
DEADLY_INPUT = "kills whoever reads it"
_sound, _accept = Judge.next_step, Intake.accept


def _next_step(self: Judge, facts: Facts, tried: Collection[str] = ()) -> Step:
    if facts.message.body["content"]["email"]["text"] == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return _sound(self, facts, tried)


async def _read(self: Intake, items: Sequence[Incoming]) -> list[Answer]:
    if any(isinstance(item.body, bytes) and DEADLY_INPUT.encode() in item.body for item in items):
        os.kill(os.getpid(), signal.SIGKILL)
    return await _accept(self, items)


if __name__ == "__main__":
    Judge.next_step = _next_step  # type: ignore[method-assign]
    Intake.accept = _read  # type: ignore[method-assign]
    main()
