"""A database's tables, for all stories."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.simulation.store import template

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with its tables, as bytes."""
    return template(tmp_path_factory.mktemp("tables"))


@pytest.fixture(autouse=True)
def _chance() -> Iterator[None]:
    """Leave the shared source of chance to other tests as it was."""
    before = random.getstate()
    yield
    random.setstate(before)
