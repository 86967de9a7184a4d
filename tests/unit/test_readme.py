"""Does the README name everything that can be configured of providers?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import providers
from providers.http import PLACEHOLDERS

SECTION = (Path(__file__).parents[2] / "README.md").read_text().split("\n## Providers\n")[1].split("\n**Routes.**")[0]
ROWS = {row.split("`")[1]: row for row in SECTION.splitlines() if row.startswith("| `")}
COMMON = SECTION.split("\n|")[0]


@pytest.mark.parametrize("kind", providers.kinds())
def test_every_setting_is_named(kind: str) -> None:
    fields = {"kind", *providers.settings_of(kind).model_fields}
    named = set(re.findall(r"`([a-z_]+)\b", COMMON + ROWS[kind]))
    assert fields - named == set()


def test_every_placeholder_is_named() -> None:
    assert set(re.findall(r"`\{([a-z_]+)\}`", SECTION)) == PLACEHOLDERS
