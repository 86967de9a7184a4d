"""What several unit tests start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.store.migrate import migrate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with its tables, to be copied: migrating takes a second."""
    database = tmp_path_factory.mktemp("empty") / "store.db"
    migrate(f"sqlite:///{database}")
    return database
