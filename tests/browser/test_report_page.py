"""The page of a report in a real browser: on a phone and on a desk, in the dark, on paper and read aloud.

``DECORUM_SCREENSHOTS=folder`` keeps pictures of it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest

from gateway.config import Step, Target
from gateway.message import AttemptState, MessageState
from gateway.report import By, Counting, described, page
from gateway.store import Unattributed
from providers import Act, Agent, Channel
from ratelimit import zone
from tests.browser.looking import faults
from tests.unit.test_report import CLICKS, NOON, QUESTION, attempt, did, priced, story

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from gateway.store import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
NARROW: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}  # WCAG 2.2, 1.4.10
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
CAMPAIGNS = ("wake-dormant", LONG, "تذكير", "<b>spring</b> & autumn", "winter", None)
DAYS = 86_400


def campaign(name: str | None, size: int) -> Iterator[Story]:
    """What came of one: more of it the larger it is, and every kind of loss."""
    for number in range(size):
        acts = [
            did(Act.OPENED, after=30 + number),
            did(Act.CLICKED, after=200 + number),
            did(Act.CONVERTED, after=DAYS, stage="logged_in"),
            did(Act.CONVERTED, after=2 * DAYS, stage="applied"),
        ]
        state = AttemptState.DELIVERED if number % 5 else AttemptState.UNDELIVERED
        channel = Channel.SMS if number % 3 else Channel.PUSH
        fields: dict[str, Any] = {"campaign": name, "person": f"{name} {number}"}
        yield story(*acts[: number % 5], tries=(attempt(state, channel),), **fields)
    leaves = story(did(Act.OPTED_OUT, band="6+"), did(Act.UNINSTALLED, band="3-5"), campaign=name)
    held = ("night",)
    yield from [leaves, story(did(Act.OPENED, Agent.MACHINE), campaign=name)]
    yield story(tries=(), state=MessageState.EXPIRED, reason="expires_at", held=held, campaign=name)
    yield story(tries=(), state=MessageState.REFUSED, reason="opted_out", campaign=name)
    yield story(tries=(), state=MessageState.WAITING, campaign=name)


def report(*, groups: bool = True) -> dict[str, Any]:
    """One with something in every part; as its JSON is."""
    targets = [CLICKS, Target(Step.CONVERTED, "applied", Step.CONVERTED, "logged_in", 0.5, None, None, None)]
    question = QUESTION if groups else replace(QUESTION, by=())
    counting = Counting(question, zone("Europe/Vienna"), {"text": priced(amount="0.0079")}, targets)
    for place, name in enumerate(CAMPAIGNS):
        counting.add(campaign(name, 300 // (place + 1)))
    assert By.CAMPAIGN in QUESTION.by
    counting.add_unattributed([Unattributed(Act.OPTED_OUT, None, "0", 1_234)])
    found: dict[str, Any] = orjson.loads(orjson.dumps(described(counting.report(NOON))))
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``decorum report`` leaves it."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(report()), encoding="utf-8")
    return path


@asynccontextmanager
async def window(browser: Browser, path: Path, **options: Any) -> AsyncIterator[Page]:
    """The page, which asks for nothing but itself and has nothing to complain of."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(path.as_uri())
    yield page
    await context.close()
    assert told == []
    assert asked == [path.as_uri()]


async def opened(page: Page) -> int:
    """Opens all tables behind drawings, as a hand does."""
    summaries = page.get_by_text("The same as a table")
    for place in range(await summaries.count()):
        await summaries.nth(place).click()
    return await page.locator("details[open]").count()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(PHONE, "light"), (DESK, "light"), (NARROW, "light"), (PHONE, "dark")],
    ids=["phone", "desk", "narrow", "dark"],
)
async def test_everybody_can_read_it(
    browser: Browser,
    written: Path,
    size: dict[str, Any],
    scheme: Literal["light", "dark"],
    keep: Callable[..., Awaitable[None]],
) -> None:
    async with window(browser, written, color_scheme=scheme, **size) as page:
        await keep(page, f"report-{size['viewport']['width']}-{scheme}", full_page=True)
        assert await opened(page) == 13  # the whole, and the twelve largest groups
        assert await faults(page) == []


async def test_on_paper_nothing_is_cut_off(browser: Browser, written: Path) -> None:
    async with window(browser, written, viewport={"width": 718, "height": 1000}) as page:  # A4 less its margins
        await page.emulate_media(media="print")
        wide = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length"
        assert await page.locator(".card").evaluate_all(wide) == 0
        assert not await page.get_by_text("The same as a table").first.is_visible()


async def test_what_is_drawn_is_as_wide_as_what_is_counted(browser: Browser, written: Path) -> None:
    """From the pixels that are there, held against the numbers beside them."""
    async with window(browser, written, **DESK) as page:
        drawn = await page.locator(".funnel").first.evaluate(
            "list => [...list.children].map(step => [step.querySelector('b').innerText,"
            " step.querySelector('.bar rect').getBoundingClientRect().width, list.getBoundingClientRect().width])"
        )
    counts = [int("".join(filter(str.isdigit, count))) for count, _, _ in drawn]
    assert counts == [report()["total"][step] for step in ("requested", "sent", "delivered", "opened", "clicked")] + [
        report()["total"]["converted"],
        *report()["total"]["reached"].values(),
    ]
    for count, wide, room in ((count, wide, room) for count, (_, wide, room) in zip(counts, drawn, strict=True)):
        assert wide / room == pytest.approx(count / counts[0], abs=0.005)


async def test_read_aloud(browser: Browser, written: Path) -> None:
    """Assistive technology is given the numbers of each step, and no drawing."""
    async with window(browser, written, **DESK) as page:
        spoken = await page.locator(".funnel").first.aria_snapshot()
        total = report()["total"]
        for said in ("Requested", "Sent", "Reported delivered", "Opened", "Clicked", "to logged_in", "to applied"):
            assert said in spoken
        assert str(total["clicked"]) in spoken.replace("\u202f", "").replace("\N{NO-BREAK SPACE}", "")
        assert "img" not in spoken
        assert await page.locator("th:not([scope])").count() == 0


async def test_a_table_wider_than_its_room_is_moved_by_keyboard(browser: Browser, written: Path) -> None:
    async with window(browser, written, viewport={"width": 900, "height": 600}) as page:
        table = page.locator(".all")
        assert await table.evaluate("one => one.scrollWidth > one.clientWidth")
        for _ in range(20):
            await page.keyboard.press("Tab")
            if await table.evaluate("one => one === document.activeElement"):
                break
        await page.keyboard.press("ArrowRight")
        await page.wait_for_function("() => document.querySelector('.all').scrollLeft > 0")


async def test_a_report_without_groups_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(report(groups=False)), encoding="utf-8")
    async with window(browser, path, **PHONE) as seen:
        assert await faults(seen) == []
        assert await seen.get_by_role("heading", level=2).all_inner_texts() == ["All together", "As a table"]
