"""A database's tables, and how many stories are told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulation.store import template

if TYPE_CHECKING:
    from collections.abc import Iterator


_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long form is left out unless asked for with ``-m full``."""
    if config.option.markexpr:
        return
    long = [item for item in items if _HERE in item.path.parents and item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


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
