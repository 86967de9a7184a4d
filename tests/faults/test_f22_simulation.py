"""F22: drawn faults in virtual time. Other seeds than those of ``tests/simulation``, which has its own short form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

PIECES = 8
FIRST = 1_000_000
"""Their seeds begin at 0."""


@pytest.mark.row("F22")
@pytest.mark.parametrize("piece", range(PIECES))
def test_every_promise_is_kept_in_every_story(piece: int, tmp_path: Path, tally: Tally, count: int) -> None:
    from tests.simulation.checks import findings
    from tests.simulation.store import template
    from tests.simulation.story import drawn
    from tests.simulation.world import World

    tables = template(tmp_path)
    for seed in range(FIRST + piece * count, FIRST + (piece + 1) * count):
        world = World(seed, drawn(seed), tables)
        world.run()
        tally.fault()
        found = findings(world)
        assert not found, "\n".join([f"seed {seed}:", *found, f"DECORUM_SEED={seed} pytest tests/simulation"])
