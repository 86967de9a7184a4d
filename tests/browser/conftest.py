"""A real browser, and what it sees."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from playwright.async_api import Browser, Page

PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
QUIETLY = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, of the machine: nothing is downloaded."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("a browser is needed: apt-get install chromium", pytrace=False)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=[*QUIETLY])
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def keep() -> Callable[..., Awaitable[None]]:
    """Keeps a picture of a page in the folder ``$DECORUM_SCREENSHOTS``, for people; none without it."""
    folder = os.environ.get("DECORUM_SCREENSHOTS")

    async def keep(page: Page, name: str, *, full_page: bool = False) -> None:
        if folder:
            await page.screenshot(path=Path(folder) / f"{name}.png", full_page=full_page)

    return keep
