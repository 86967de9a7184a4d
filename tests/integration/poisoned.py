"""A gateway that a certain text kills while it is decided, as a fault of a library in C would."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from gateway.__main__ import main
from gateway.decide import Judge

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.decide import Facts, Step

POISON = "kills whoever decides it"
_sound = Judge.next_step


def _next_step(self: Judge, facts: Facts, tried: Collection[str] = ()) -> Step:
    if facts.message.body["content"]["email"]["text"] == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return _sound(self, facts, tried)


if __name__ == "__main__":
    Judge.next_step = _next_step  # type: ignore[method-assign]
    main()
