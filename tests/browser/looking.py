"""What keeps people from reading a page or using it, as far as it can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Page

TARGET = 44
"""CSS pixels (WCAG 2.2, 2.5.5)."""
CONTRAST = 4.5
"""Of text (WCAG 2.2, 1.4.3)."""
EDGE = 3
"""Contrast of what shows where a button is (WCAG 2.2, 1.4.11)."""
SMALLEST = 14
"""CSS pixels of text."""

LOOK = Path(__file__).with_name("looking.js").read_text(encoding="utf-8")


async def faults(page: Page) -> list[str]:
    """All that is wrong with it."""
    found = await page.evaluate(LOOK, [TARGET, CONTRAST, EDGE, SMALLEST])
    return [f"{page.url}: {fault}" for fault in found]


async def tabbed(page: Page) -> list[tuple[str, bool]]:
    """What is come to by the tab key, from the top: each by its label, and whether it shows that it is there."""
    seen = []
    while True:
        await page.keyboard.press("Tab")
        label = await page.evaluate(
            "() => document.activeElement === document.body ? '' : document.activeElement.innerText"
        )
        if not label or len(seen) > 20 or label in [one for one, _ in seen]:
            return seen
        outlined = await page.evaluate(
            "() => { const style = getComputedStyle(document.activeElement);"
            " return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2; }"
        )
        seen.append((label, outlined))
