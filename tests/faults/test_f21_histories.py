"""Drawn histories against a model: requests, repeats, crashes, recoveries, receipts, opt-outs and passing time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.rows import FULL
from tests.proofs import test_states as states

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.tally import Tally

STEPS = 100 if FULL else 30


@pytest.mark.row("F21")
def test_the_store_does_what_the_model_does(tmp_path: Path, count: int, tally: Tally) -> None:
    with states.arena_at(f"sqlite:///{tmp_path}/store.db") as arena:
        states.prove(arena, number=count, steps=STEPS, same=not FULL)
    tally.fault(count)
