"""The page to unsubscribe in a real browser: on a phone and on a desk, by touch, by keyboard and read aloud.

``DECORUM_SCREENSHOTS=folder`` keeps pictures of it.
"""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from gateway.languages import LANGUAGES
from gateway.message import OptOut
from gateway.store.migrate import migrate
from gateway.web import unsubscribe_url
from tests.browser.looking import faults, tabbed
from tests.desk import Desk, at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
TITLES = {
    "ar": "عروض القروض",
    "de": "Kreditangebote",
    "en": "Loan offers",
    "es": "Ofertas de préstamos",
    "fr": "Offres de prêt",
    "hi": "ऋण ऑफ़र",
    "id": "Penawaran pinjaman",
    "it": "Offerte di prestito",
    "ja": "ローンのご案内",
    "ko": "대출 안내",
    "pt": "Ofertas de empréstimo",
    "th": "ข้อเสนอสินเชื่อ",
    "vi": "Ưu đãi vay",
    "zh-Hans": "贷款优惠",
    "zh-Hant": "貸款優惠",
}
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunte"
POLICY = f"""
pages: {{name: Example Bank}}
providers: {{mail: {{kind: inbox}}}}
routes: {{sms: [mail]}}
policy:
  timezone: UTC
  categories:
    offers: {{title: {TITLES!r}}}
    endless: {{title: {LONG}}}
    plain: {{}}
    code: {{priority: critical, caps: exempt, quiet_hours: exempt}}
"""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def desk(empty: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    shutil.copyfile(empty, tmp_path / "desk.db")
    async with Desk(tmp_path / "desk.db", POLICY, at("2026-11-25T12:00Z")) as desk:
        yield desk


async def link(desk: Desk, category: str = "offers") -> str:
    return desk.public + unsubscribe_url("", await desk.attempt(f"of {category}", category))


async def leave(desk: Desk, category: str) -> None:
    await desk.store.opt_out("hana", OptOut(category=category), "page", desk.judge)


async def noes(desk: Desk) -> set[str | None]:
    view = await desk.store.person("hana")
    assert view
    return {no.category for no in view.person.optouts}


@asynccontextmanager
async def window(browser: Browser, *, but: str = "nothing", **options: Any) -> AsyncIterator[Page]:
    """A page that must ask for nothing but itself, and have nothing to complain of ``but`` that."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    told: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.add(request.resource_type))
    yield page
    await context.close()
    assert [text for text in told if but not in text] == []
    assert asked == {"document"}


@pytest.mark.parametrize("said", [None, "plain", "*"])
async def test_everybody_can_read_and_use_it_on_a_phone(
    browser: Browser, desk: Desk, said: str | None, keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    url = await link(desk, "plain" if said else "offers")
    if said:
        await leave(desk, said)
    found: list[str] = []
    async with window(browser, **PHONE) as page:
        for language in LANGUAGES:
            await page.set_extra_http_headers({"Accept-Language": language})
            await page.goto(url)
            assert said or TITLES[language] in await page.locator("main").inner_text()
            assert await page.locator(".mark").count() == (said is not None)
            found += await faults(page)
            await keep(page, f"phone-{said}-{language}")
    assert found == []


async def test_everybody_can_read_that_a_link_does_not_work(
    browser: Browser, desk: Desk, keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    url = (await link(desk))[:-1]
    found: list[str] = []
    async with window(browser, but="a status of 404", **PHONE) as page:
        for language in LANGUAGES:
            await page.set_extra_http_headers({"Accept-Language": language})
            await page.goto(url)
            assert await page.get_by_role("button").count() == 0
            found += await faults(page)
            await keep(page, f"phone-dead-{language}")
    assert found == []


async def test_everybody_can_read_and_use_it_on_a_desk(
    browser: Browser, desk: Desk, keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    url = await link(desk)
    found: list[str] = []
    async with window(browser, **DESK) as page:
        for language in LANGUAGES:
            await page.set_extra_http_headers({"Accept-Language": language})
            await page.goto(url)
            found += await faults(page)
            await keep(page, f"desk-{language}")
    assert found == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 256)])  # the smaller one by WCAG 2.2, 1.4.10
async def test_a_long_word_finds_room(
    browser: Browser, desk: Desk, width: int, height: int, keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    async with window(browser, locale="de-DE", viewport={"width": width, "height": height}) as page:
        await page.goto(await link(desk, "endless"))
        assert await faults(page) == []
        await keep(page, f"endless-{width}")


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
async def test_it_can_be_read_in_the_dark(
    browser: Browser, desk: Desk, size: dict[str, Any], keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    found: list[str] = []
    async with window(browser, color_scheme="dark", locale="ja-JP", **size) as page:
        url = await link(desk)
        for number, path in enumerate((url, f"{url}?said=back", await link(desk, "plain"))):
            if number == 2:
                await leave(desk, "plain")
            await page.goto(path)
            ground = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            assert max(map(int, ground[4:-1].split(", "))) < 64
            found += await faults(page)
            await keep(page, f"{'phone' if size is PHONE else 'desk'}-dark-{number + 1}")
    assert found == []


async def test_by_touch_without_any_script(
    browser: Browser, desk: Desk, keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    url = await link(desk)
    async with window(browser, java_script_enabled=False, locale="en-GB", **PHONE) as page:
        await page.goto(url)
        assert await noes(desk) == set()
        await page.get_by_role("button", name="Unsubscribe from “Loan offers”").tap()
        await page.get_by_role("heading", name="You are unsubscribed").wait_for()
        assert await noes(desk) == {"offers"}
        await keep(page, "phone-done-kind")
        await page.reload()
        await page.get_by_role("button", name="Unsubscribe from everything").tap()
        await page.get_by_text("Only messages that you need will still reach you").wait_for()
        assert await noes(desk) == {"offers", "*"}
        await keep(page, "phone-done-all")
        await page.get_by_role("button", name="Subscribe again").tap()
        await page.get_by_text("You will get no more messages of “Loan offers”.").wait_for()
        assert await noes(desk) == {"offers"}
        await page.get_by_role("button", name="Subscribe again").tap()
        await page.get_by_text("You are subscribed again.").wait_for()
        assert await noes(desk) == set()
        await keep(page, "phone-back")
        await page.go_back()
        assert await noes(desk) == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_did_not_work_is_said_where_it_can_be_tried_again(
    browser: Browser, desk: Desk, scheme: Literal["light", "dark"], keep: Callable[[Page, str], Awaitable[None]]
) -> None:
    url = await link(desk)
    async with window(browser, but="a status of 503", locale="en-GB", color_scheme=scheme, **PHONE) as page:
        await page.goto(url)
        await desk.store.close()
        await page.get_by_role("button", name="Unsubscribe from everything").tap()
        await page.get_by_role("alert").filter(has_text="Please try again").wait_for()
        assert await page.get_by_role("button", name="Unsubscribe from everything").is_visible()
        assert await faults(page) == []
        await keep(page, f"phone-failed-{scheme}")


async def test_by_keyboard(browser: Browser, desk: Desk, keep: Callable[[Page, str], Awaitable[None]]) -> None:
    url = await link(desk)
    async with window(browser, locale="en-US", **DESK) as page:
        await page.goto(url)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await keep(page, "desk-focus")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="You are unsubscribed").wait_for()
        assert await noes(desk) == {"*"}
        await keep(page, "desk-done-all")
        assert await tabbed(page) == [("Subscribe again", True)]
        await page.keyboard.press("Tab")  # round again
        await page.keyboard.press("Space")
        await page.get_by_text("You are subscribed again.").wait_for()
        assert await noes(desk) == set()
        assert await tabbed(page) == [
            ("Unsubscribe from “Loan offers”", True),
            ("Unsubscribe from everything", True),
        ]


async def test_read_aloud(browser: Browser, desk: Desk) -> None:
    """As assistive technology is given it."""
    url = await link(desk)
    async with window(browser, locale="en-US", **DESK) as page:
        await page.goto(url)
        assert await page.locator("body").aria_snapshot() == SPOKEN
        everything = page.get_by_role("button", name="Unsubscribe from everything")
        described = await everything.get_attribute("aria-describedby")
        assert "security codes" in await page.locator(f"#{described}").inner_text()


SPOKEN = """\
- main:
  - paragraph: Messages from Example Bank
  - heading "Unsubscribe" [level=1]
  - paragraph: What would you like to stop getting?
  - button "Unsubscribe from “Loan offers”"
  - button "Unsubscribe from everything"
  - paragraph: Only messages that you need will still reach you, such as security codes and confirmations."""


async def test_from_right_to_left_and_from_above(browser: Browser, desk: Desk) -> None:
    url = await link(desk)
    async with window(browser, locale="ar-EG", **PHONE) as page:
        await page.goto(url)
        assert await page.evaluate("() => getComputedStyle(document.documentElement).direction") == "rtl"
        left, right = await _margins(page)
        assert right < left / 4  # the words begin at the right
        found = await page.evaluate("() => document.querySelector('.sender bdi').innerText")
        assert found == "Example Bank"
    async with window(browser, locale="ja-JP", **PHONE) as page:
        await page.goto(url)
        assert await page.get_attribute("html", "lang") == "ja"
        assert await page.get_by_role("button").all_inner_texts() == ["「ローンのご案内」を停止する", "すべて停止する"]
        left, right = await _margins(page)
        assert left < right / 4


async def _margins(page: Page) -> tuple[float, float]:
    """How far the words of the heading are from the edges of the card."""
    left, right = await page.evaluate(
        "() => { const range = document.createRange(); range.selectNodeContents(document.querySelector('h1'));"
        " const words = range.getBoundingClientRect();"
        " const card = document.querySelector('main').getBoundingClientRect();"
        " return [words.left - card.left, card.right - words.right]; }"
    )
    return left, right
