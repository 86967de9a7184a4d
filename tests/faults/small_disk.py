"""A small disk for one gateway, to be filled and freed while it runs."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import Child, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEGABYTES = 96
_MOUNT = f'mount -t tmpfs -o size={MEGABYTES}m tmpfs "$0" && exec "$@"'
_OWN = ("unshare", "--user", "--map-root-user", "--mount")


class SmallDisk:
    """A folder that is a file system of its own, which only the process that was started on it sees.

    Where the machine does not let us mount one, as in most containers, no file of the process may grow instead.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        tried = subprocess.run([*_OWN, "sh", "-c", _MOUNT, folder, "true"], capture_output=True, check=False)
        self._mounts = tried.returncode == 0
        self._child: Child | None = None

    def spawn(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str], cwd: Path) -> Child:
        """Start a program that has it."""
        prefix = [*_OWN, "sh", "-c", _MOUNT, self._folder] if self._mounts else []
        self._child = spawn([*prefix, *command], log, env=env, cwd=cwd)
        return self._child

    @property
    def folder(self) -> Path:
        """As we see it. SQLite does not: it takes the path apart itself."""
        assert self._child
        return Path(f"/proc/{self._child.pid}/root{self._folder}") if self._mounts else self._folder

    def copy(self, name: str, to: Path) -> None:
        """What the files of an SQLite database hold at this instant, as after a power cut."""
        assert self._child
        self._child.pause()
        try:
            for end in ("", "-wal"):
                shutil.copyfile(self.folder / f"{name}{end}", to / f"{name}{end}")
        finally:
            self._child.resume()

    def fill(self) -> None:
        """To the last byte."""
        assert self._child
        if not self._mounts:
            most = max(file.stat().st_size for file in (*self._folder.iterdir(), self._child.log))
            resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (most + 1_000_000, resource.RLIM_INFINITY))
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (1_000_000, 4096):
                try:
                    while filler.write(b"\0" * size) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """There is room again."""
        assert self._child
        if self._mounts:
            (self.folder / "filler").unlink()
        else:
            resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
