"""The table of values in the chart's README, made of the comments in values.yaml (`make chart` writes it)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE: Final = Path(__file__).parent / "README.md"
VALUES: Final = Path(__file__).parent / "values.yaml"
HEADING: Final = "| value | default | |\n|---|---|---|\n"


@dataclass(frozen=True)
class Value:
    """One that is explained."""

    path: str
    default: Any
    about: str


def values() -> Iterator[Value]:
    """Each, in the order of the file: the key below a comment that begins with ``# --``."""
    lines = VALUES.read_text(encoding="utf-8").splitlines()
    all_values = yaml.safe_load("\n".join(lines))
    above: list[str] = []
    about = ""
    for line in lines:
        if comment := re.fullmatch(r" *# -- (.+)", line):
            about = comment[1]
        elif key := re.match(r"( *)(\w+):", line):
            above = [*above[: len(key[1]) // 2], key[2]]
            if about:
                yield Value(".".join(above), _at(all_values, above), about)
            about = ""


def text() -> str:
    """The README, with its table as it should be."""
    before, _, after = FILE.read_text(encoding="utf-8").partition(HEADING)
    rest = re.sub(r"\A(\|.*\n)*", "", after)
    rows = "".join(f"| `{value.path}` | `{_written(value.default)}` | {value.about} |\n" for value in values())
    return f"{before}{HEADING}{rows}{rest}"


def _at(found: Any, path: list[str]) -> Any:
    for key in path:
        found = found[key]
    return found


def _written(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
