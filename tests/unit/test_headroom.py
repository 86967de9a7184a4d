"""Nothing is accepted that there might be no room to finish, and intake goes on by itself."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from gateway.headroom import FLOOR, Headroom, NoRoom, Space, shortage, space_at

if TYPE_CHECKING:
    from pathlib import Path

GB = 1024**3


class Disk:
    """Has as much room as it is told, or cannot be asked."""

    def __init__(self, share: float, total: int = 100 * GB) -> None:
        self.share = share
        self.total = total
        self.gone = False
        self.now = 0.0
        self.looks = 0

    def __call__(self) -> Space:
        self.looks += 1
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return Space(int(self.share * self.total), self.total)


@pytest.mark.parametrize(
    ("free", "total", "refusing", "accepts"),
    [
        (10 * GB, 100 * GB, False, True),
        (10 * GB - 1, 100 * GB, False, False),
        (10 * GB, 100 * GB, True, False),
        (11 * GB, 100 * GB, True, True),
        (32 * 1024**2, 64 * 1024**2, False, True),
        (32 * 1024**2 - 1, 64 * 1024**2, False, False),
        (0, 0, False, False),
    ],
)
def test_a_tenth_of_the_disk_must_be_free_and_32_mb_of_a_small_one(
    free: int, total: int, refusing: bool, accepts: bool
) -> None:
    assert FLOOR == 33_554_432
    assert (shortage(Space(free, total), refusing=refusing) == "") is accepts


def test_intake_stops_below_the_line_and_goes_on_above_it_by_itself() -> None:
    disk = Disk(0.5)
    headroom = Headroom(disk, lambda: disk.now)
    headroom.check()
    disk.share = 0.099
    headroom.check()  # a look holds good for a second
    disk.now = 1.0
    with pytest.raises(NoRoom, match=r"9\.9% of the disk") as told:
        headroom.check()
    assert told.value.retry_after == 30
    assert headroom.share == pytest.approx(0.099)
    disk.share, disk.now = 0.105, 2.0
    assert "at least 11%" in headroom.lack, "no flapping"
    disk.share, disk.now = 0.111, 3.0
    headroom.check()
    assert disk.looks == 4


def test_a_disk_that_cannot_be_looked_at_is_no_disk_to_write_to() -> None:
    disk = Disk(0.5)
    headroom = Headroom(disk, lambda: disk.now)
    disk.gone = True
    with pytest.raises(NoRoom, match="Input/output error"):
        headroom.check()
    assert headroom.share is None
    disk.gone, disk.now = False, 1.0
    headroom.check()


def test_a_database_that_said_it_was_full_is_asked_again_after_a_pause() -> None:
    disk = Disk(0.5)
    headroom = Headroom(None, lambda: disk.now)
    headroom.check()
    assert headroom.full().retry_after == 5
    disk.now = 4.9
    with pytest.raises(NoRoom, match="full"):
        headroom.check()
    disk.now = 5.0
    headroom.check()
    assert headroom.share is None


def test_the_system_is_asked_as_df_asks_it(tmp_path: Path) -> None:
    found = space_at(tmp_path)
    assert 0 < found.free <= found.total
    with pytest.raises(OSError, match="nowhere"):
        space_at(tmp_path / "nowhere")
