"""Is there room for more, or is it refused before it is accepted, so that what was accepted can still be finished?"""

from __future__ import annotations

import os
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import structlog

from gateway.intake import Overloaded
from gateway.store import StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = structlog.get_logger()

SHARE = 0.10
"""Of the disk that must be free for anything to be accepted; KumoMTA, a mail server, draws the same line."""
RESUMED = 0.11
"""Of the disk that must be free again after that, so that intake does not flap at the line."""
FLOOR = 32 * 1024 * 1024
"""Bytes that must be free on a small disk: eight times what SQLite's log holds between two checkpoints (1000 pages of
4 KiB), so that outcomes, receipts and opt-outs of what was accepted find room."""

_FRESH = 1.0
"""Seconds that a look at the disk holds good."""
_SOON, _LATER = 5.0, 30.0
"""Seconds after which senders are asked to come again: a database that was full is tried then; a disk takes longer."""


class NoRoom(Overloaded):
    """There is no room to keep it in."""


class Space(NamedTuple):
    """Of a disk, in bytes."""

    free: int
    """What we may use of it."""
    total: int

    @property
    def share(self) -> float:
        """Free, of what we may use at all."""
        return self.free / self.total if self.total else 0.0


def space_at(folder: Path) -> Space:
    """On the disk that holds a folder; what is kept back for root does not count."""
    found = os.statvfs(folder)
    used = found.f_blocks - found.f_bfree
    return Space(found.f_bavail * found.f_frsize, (used + found.f_bavail) * found.f_frsize)


def shortage(space: Space, *, refusing: bool) -> str:
    """Why nothing may be accepted with so much space; empty if it may. ``refusing``: nothing was until now."""
    line = RESUMED if refusing else SHARE
    if space.share < line:
        return f"{space.share:.1%} of the disk is free, and at least {line:.0%} must be"
    if space.free < FLOOR:
        return f"{space.free >> 20} MB of the disk are free, and at least {FLOOR >> 20} must be"
    return ""


class Headroom:
    """Says no before anything is accepted that could not be kept, and yes again by itself."""

    def __init__(self, space: Callable[[], Space] | None, clock: Callable[[], float] = monotonic) -> None:
        """Take what it needs.

        Args:
            space: of the disk that the store is on. None: that is the database server's, which says so itself.
            clock: seconds.
        """
        self._space = space
        self._clock = clock
        self._looked = -_FRESH
        self._found: Space | None = None
        self._short = ""
        self._full_until = 0.0

    @property
    def lack(self) -> str:
        """What keeps more from being accepted at this moment; empty if nothing does."""
        if self._clock() < self._full_until:
            return "the database says that it is full"
        self._look()
        return self._short

    @property
    def share(self) -> float | None:
        """Of the disk that is free; None where it is not ours to look at."""
        self._look()
        return self._found.share if self._found else None

    def check(self) -> None:
        """Before anything is accepted.

        Raises:
            NoRoom: it must not be.
        """
        if lack := self.lack:
            raise NoRoom(lack, _LATER if self._short else _SOON)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Something is accepted in the block: not without room for it, nor where the store then finds none.

        Raises:
            NoRoom: it must not be, or was not.
        """
        self.check()
        try:
            yield
        except StoreFull as error:
            raise self.full() from error

    def full(self) -> NoRoom:
        """The database has refused something for lack of room; what its sender is told."""
        self._full_until = self._clock() + _SOON
        log.warning("intake.full", again_in_seconds=_SOON)
        return NoRoom("the database says that it is full", _SOON)

    def _look(self) -> None:
        now = self._clock()
        if self._space is None or now - self._looked < _FRESH:
            return
        self._looked = now
        try:
            self._found = self._space()
        except OSError as error:
            self._found, short = None, f"the disk cannot be looked at: {error.strerror}"
        else:
            short = shortage(self._found, refusing=bool(self._short))
        if bool(short) != bool(self._short):
            log.warning("intake.refusing" if short else "intake.resumed", reason=short)
        self._short = short
