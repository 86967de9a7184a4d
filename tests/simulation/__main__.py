"""Prints the traces of seeds: ``python -m tests.simulation SEED …``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.simulation.store import template
from tests.simulation.story import drawn
from tests.simulation.world import World


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = template(Path(folder))
    for seed in map(int, sys.argv[1:]):
        world = World(seed, drawn(seed), tables)
        world.run()
        print(world.trace)


if __name__ == "__main__":
    main()
