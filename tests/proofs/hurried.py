"""How tests are run against mutants: those alone that hold what is mutated, each failing as soon as it can.

A plugin of pytest. No property test looks for the simplest failure, and none remembers one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import Phase, settings

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = ("ratelimit", "decide", "outcome", "whereabouts", "forecast", "routing", "pace.")

settings.register_profile("hurried", phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
settings.load_profile("hurried")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out whole files, so that what is wrong with others is no matter."""
    name = collection_path.name
    if name.startswith("test_") and name.endswith(".py"):
        return not name.removeprefix("test_").startswith(ABOUT) or None
    return None
