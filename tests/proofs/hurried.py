"""How tests are run against mutants: those alone that hold what is mutated, each failing as soon as it can.

A plugin of pytest. No property test looks for the simplest failure, and none remembers one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hypothesis import Phase, settings

from ratelimit import zone

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = ("acts", "ratelimit", "decide", "outcome", "whereabouts", "forecast", "routing", "pace.", "pressure", "unknown")

settings.register_profile("hurried", phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
settings.load_profile("hurried")


def pytest_sessionstart() -> None:
    """Forget what was remembered before the mutant, in whose place it would answer; zones are told apart by which."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("gateway", "ratelimit"):
            for forget in (getattr(known, "cache_clear", None) for known in vars(module).values() if known is not zone):
                if forget is not None:
                    forget()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out whole files, so that what is wrong with others is no matter."""
    name = collection_path.name
    if name.startswith("test_") and name.endswith(".py"):
        return not name.removeprefix("test_").startswith(ABOUT) or None
    return None
