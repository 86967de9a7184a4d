"""Programs that check what ships. One that is missing fails the test that asks for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES: Mapping[str, str] = {"promtool": "apt-get install prometheus", "hadolint": "pip install '.[test]'"}


def run(name: str, *arguments: str | Path, stdin: str | None = None) -> str:
    """What it says to its output and then to its errors; a failed test if it finds fault."""
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        pytest.fail(f"{name} is not installed: {PACKAGES[name]}", pytrace=False)
    run = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, timeout=50, check=False)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    return said
