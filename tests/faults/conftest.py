"""Fixtures of every row; a tally travels with its test's report, so that it arrives from any process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.rows import CHOSEN, ROWS
from tests.faults.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.faults.rows import Row

_HERE = Path(__file__).parent
_TAIL = 4000
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents and (marker := item.get_closest_marker("row")):
            item.user_properties.append(("row", marker.args[0]))
            item.add_marker(pytest.mark.timeout(ROWS[marker.args[0]].seconds))
    if CHOSEN:
        kept = [item for item in items if dict(item.user_properties).get("row") in CHOSEN]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row that the test is marked with."""
    return ROWS[request.node.get_closest_marker("row").args[0]]


@pytest.fixture
def count(row: Row) -> int:
    """How many faults this test is to inject."""
    return row.count


@pytest.fixture
def tally(request: pytest.FixtureRequest, row: Row) -> Iterator[Tally]:
    """To be filled by the test, and held against the promise afterwards."""
    tally = Tally()
    yield tally
    request.node.user_properties.append(("faults", tally.as_dict()))
    if not request.node.stash.get(_FAILED, False):
        assert not tally.broken, "\n".join([str(tally.broken), *tally.findings])
        assert tally.faults, "no fault was injected"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder:
        for log in sorted(folder.rglob("*.log"))[:8]:
            report.sections.append((str(log), log.read_text(errors="replace")[-_TAIL:]))
    return report
