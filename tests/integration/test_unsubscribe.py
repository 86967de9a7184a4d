"""What the links to unsubscribe do, with one click and on the page; and what they do not."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from html import unescape
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from gateway.ids import new_id
from gateway.message import MessageState, OptOut, Profile
from gateway.store import Claimed
from gateway.store.migrate import migrate
from gateway.web import unsubscribe_url
from tests.desk import PUBLIC_URL, Desk, at
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POLICY = """
pages: {name: {en: Example, de: Beispiel}}
providers: {text: {kind: inbox}}
routes: {sms: [text]}
policy:
  timezone: UTC
  categories:
    news: {title: {en: News & offers, de: Neues, ja: お知らせ}}
    tips: {}
    code: {priority: critical, caps: exempt, quiet_hours: exempt}
    bill: {quiet_hours: exempt}
"""
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DONE = "You have been unsubscribed.\n"
UNKNOWN = ("z" * 26, "x", "%00", "a" * 2000, "..%2f..%2fetc", "%F0%9F%92%A9")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unsubscribe") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def start(empty: Path, tmp_path: Path) -> AsyncIterator[Any]:
    shutil.copyfile(empty, tmp_path / "desk.db")
    async with AsyncExitStack() as stack:

        async def begin(span: float = 10) -> Desk:
            desk = Desk(tmp_path / "desk.db", POLICY, at("2026-11-25T12:00Z"), span=timedelta(seconds=span))
            return await stack.enter_async_context(desk)

        yield begin


@pytest.fixture
async def desk(start: Any) -> Desk:
    return await start()  # type: ignore[no-any-return]


async def noes(desk: Desk, user: str = "hana") -> set[str | None]:
    view = await desk.store.person(user)
    assert view
    return {no.category for no in view.person.optouts}


def counted(desk: Desk, via: str) -> float:
    return desk.metrics.registry.get_sample_value("gateway_optouts_total", {"via": via}) or 0


def dead_links(desk: Desk, via: str) -> float:
    return desk.metrics.registry.get_sample_value("gateway_unsubscribe_links_dead_total", {"via": via}) or 0


class Visitor:
    """Somebody with a link, as their browser or mail program sees it."""

    def __init__(self, desk: Desk, link: str, accept: str = "en") -> None:
        self._url = URL(f"{desk.public}{unsubscribe_url('', link)}", encoded=True)
        self._headers = {"Accept-Language": accept}
        self.status = 0
        self.headers: dict[str, str] = {}
        self.page = ""

    async def _ask(self, method: str, url: URL, **more: Any) -> str:
        headers = {**self._headers, **more.pop("headers", {})}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(15)) as session,
            session.request(method, url, allow_redirects=False, headers=headers, **more) as response,
        ):
            self.status, self.page = response.status, unescape(await response.text())
            self.headers = {key: value for key, value in response.headers.items() if key != "Date"}
        return self.page

    async def look(self, said: str = "", **headers: str) -> str:
        return await self._ask("GET", self._url.with_query(said) if said else self._url, headers=headers)

    async def head(self) -> None:
        assert await self._ask("HEAD", self._url) == ""

    async def click(self, body: bytes = ONE_CLICK, **headers: str) -> str:
        return await self._ask("POST", self._url, data=body, headers=headers or FORM)

    async def press(self, form: str) -> str:
        """Press a button of the page, and go where that leads."""
        await self._ask("POST", self._url, data=form.encode(), headers=FORM)
        if self.status != 303:
            return self.page
        return await self._ask("GET", self._url.join(URL(self.headers["Location"])))


# ------------------------------------------------------------------------------------------------------------ one click


async def test_one_click_opts_out_of_the_category_once_and_for_all(desk: Desk) -> None:
    attempt = await desk.attempt("r1", "news")
    assert unsubscribe_url(PUBLIC_URL, attempt) == f"{PUBLIC_URL}/u/{attempt}"
    multipart = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for link in (attempt, attempt):
        for body, headers in ((ONE_CLICK, FORM), (multipart, kind)):
            person = Visitor(desk, link)
            assert await person.click(body, **headers) == DONE
            assert (person.status, "Set-Cookie" in person.headers) == (200, False)
    assert await noes(desk) == {"news"}
    assert (counted(desk, "one_click"), counted(desk, "page")) == (4, 0)
    view = await desk.store.view(await desk.sent("r2", "news"))
    assert view
    assert view.state is MessageState.REFUSED


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", FORM),
        (b"List-Unsubscribe=One-click", FORM),
        (b"list-unsubscribe=One-Click", FORM),
        (b"\xff\xfe", FORM),
        (b"&" * 1000, FORM),
        (b"a=1&" * 100 + ONE_CLICK, FORM),
        (b"no=none", FORM),
        (b"no=", FORM),
        (b"no=Kind", FORM),
        (b"yes=news", FORM),
        (b"said=kind", FORM),
        (ONE_CLICK, {"Content-Type": "application/json"}),
        (ONE_CLICK, {"Content-Type": "text/plain"}),
        (ONE_CLICK, {"Content-Type": "multipart/form-data"}),
        (b"--b\r\n\r\nOne-Click\r\n--b--", {"Content-Type": "multipart/form-data; boundary=b"}),
    ],
)
async def test_what_is_no_form_of_ours_does_nothing(desk: Desk, body: bytes, headers: dict[str, str]) -> None:
    for link in (await desk.attempt("r1", "news"), new_id()):
        person = Visitor(desk, link)
        await person.click(body, **headers)
        assert (person.status, person.headers["Content-Type"]) == (400, "application/problem+json")
    assert await noes(desk) == set()


async def test_a_large_form_is_refused(desk: Desk) -> None:
    person = Visitor(desk, "x")
    await person.click(ONE_CLICK + b"&" * 5000, **FORM)
    assert person.status == 413


@pytest.mark.parametrize("said", [ONE_CLICK, b"no=kind", b"no=all"])
async def test_it_is_answered_when_what_was_under_way_has_settled(desk: Desk, said: bytes) -> None:
    attempt = await desk.attempt("r0", "news")
    waiting, under_way = await desk.accept("r1", "news"), await desk.accept("r2", "news", user="hana")
    wanted = [(priority, channel, 1) for priority, channel in [await _pair(desk, waiting)]]
    leases, _ = await desk.store.lease(wanted, timedelta(seconds=30))
    (claimed,) = await desk.store.claim(leases, desk.judge, [new_id()])
    assert isinstance(claimed, Claimed)
    clicking = asyncio.create_task(Visitor(desk, attempt).click(said))

    async def recorded() -> bool:
        return bool(await noes(desk))

    await wait_until(recorded)
    assert not clicking.done()
    await desk.finish(claimed)
    await clicking
    await desk.work()
    states = await desk.store.states([waiting, under_way])
    assert sorted(states.values()) == [MessageState.REFUSED, MessageState.SENT]


async def _pair(desk: Desk, message: str) -> Any:
    view = await desk.store.view(message)
    assert view
    return view.message.priority, view.message.channels[0]


async def test_it_waits_no_longer_than_the_deadline(start: Any) -> None:
    desk = await start(span=0.3)
    attempt = await desk.attempt("r0", "news")
    await desk.accept("r1", "news")
    await desk.work(kill=True)
    began = time.monotonic()
    assert await Visitor(desk, attempt).click() == DONE
    assert time.monotonic() - began >= 0.3


# ------------------------------------------------------------------------------------------------------------- the page


async def test_a_scanner_that_looks_at_everything_changes_nothing(desk: Desk) -> None:
    attempt = await desk.attempt("r1", "news")
    scanner = Visitor(desk, attempt)
    await scanner.head()
    assert scanner.status == 200
    for headers in (
        {"User-Agent": "Mozilla/5.0 (compatible; SafeLinks/1.0)"},
        {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"},
        {"User-Agent": "GoogleImageProxy", "Accept": "image/*"},
        {"Range": "bytes=0-0"},
    ):
        for query in ("", "said=kind", "said=all", "said=back", "no=kind", "no=all", "yes=all", ONE_CLICK.decode()):
            await scanner.look(query, **headers)
            assert scanner.status == 200
    assert await noes(desk) == set()
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{desk.public}/u/{attempt}", data=ONE_CLICK, headers=FORM) as response,
        ):
            assert response.status == 405
    assert await noes(desk) == set()
    assert counted(desk, "page") == counted(desk, "one_click") == 0


async def test_the_page_says_whom_and_what_it_is_from_and_offers_both(desk: Desk) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    page = await person.look()
    assert "Messages from <bdi>Example</bdi>" in page
    assert '<button name="no" value="kind">Unsubscribe from “<bdi>News & offers</bdi>”</button>' in page
    assert '<button name="no" value="all"' in page
    assert 'name="yes"' not in page
    policy = person.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (person.headers["Content-Type"], person.headers["Content-Language"]) == ("text/html; charset=utf-8", "en")
    assert person.headers["Cache-Control"] == "no-store"


async def test_no_more_of_this_kind_and_back(desk: Desk) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    page = await person.press("no=kind")
    assert await noes(desk) == {"news"}
    assert (person.status, counted(desk, "page")) == (200, 1)
    assert "You will get no more messages of “<bdi>News & offers</bdi>”." in page
    assert await person.look() == page  # it tells how things stand, whoever did it and when
    assert await person.press("no=kind") == page
    assert await noes(desk) == {"news"}
    page = await person.press("yes=kind")
    assert await noes(desk) == set()
    assert "You are subscribed again." in page
    assert 'value="kind">Unsubscribe from' in page
    view = await desk.store.view(await desk.sent("r2", "news"))
    assert view
    assert view.state is MessageState.SENT


async def test_no_more_of_anything_but_what_people_need(desk: Desk) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    page = await person.press("no=all")
    assert await noes(desk) == {"*"}
    assert "Only messages that you need will still reach you" in page
    assert 'name="no"' not in page
    sent = [await desk.sent(name, name) for name in ("news", "tips", "code", "bill")]
    states = await desk.store.states(sent)
    assert [states[message] for message in sent] == [MessageState.REFUSED] * 2 + [MessageState.SENT] * 2
    await desk.enact(POLICY + "    born_later: {}\n")
    born = await desk.sent("r2", "born_later")
    assert await desk.store.states([born]) == {born: MessageState.REFUSED}
    assert "You are subscribed again." in await person.press("yes=all")
    assert await noes(desk) == set()


async def test_taking_all_back_leaves_what_was_said_of_this_kind_before(desk: Desk) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    await person.press("no=kind")
    await person.press("no=all")
    assert await noes(desk) == {"news", "*"}
    page = await person.press("yes=all")
    assert await noes(desk) == {"news"}
    assert "You will get no more messages of" in page
    assert "You are subscribed again." not in page


async def test_all_is_at_the_least_what_the_message_was_of(desk: Desk) -> None:
    """A link to something that can be unsubscribed from no longer, by a later policy."""
    person = Visitor(desk, await desk.attempt("r1", "bill"))
    await person.press("no=all")
    assert await noes(desk) == {"bill", "*"}
    refused = await desk.sent("r2", "bill")
    assert await desk.store.states([refused]) == {refused: MessageState.REFUSED}
    await person.press("yes=all")
    assert await noes(desk) == set()


@pytest.mark.parametrize("choice", ["kind", "all"])
async def test_what_was_said_elsewhere_is_not_taken_back_by_whoever_has_the_link(desk: Desk, choice: str) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    no = OptOut(category="news" if choice == "kind" else "*")
    await desk.store.opt_out("hana", no, "api", desk.judge)
    page = await person.look()
    assert "You are unsubscribed" in page
    assert 'name="yes"' not in page
    await person.press(f"yes={choice}")
    assert await noes(desk) == {no.category}


async def test_who_has_a_link_that_is_not_known_is_told_that_it_does_not_work(desk: Desk) -> None:
    attempt = await desk.attempt("r1", "news")
    for link in (*UNKNOWN, attempt[:-1]):
        person = Visitor(desk, link, "de")
        for act in (person.look(), person.look("said=kind"), *map(person.press, ("no=kind", "no=all", "yes=all"))):
            page = await act
            assert (person.status, person.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
            assert "<h1>Dieser Link funktioniert nicht mehr</h1>" in page
            assert "Link in einer neueren Nachricht" in page
            assert "Nachrichten von <bdi>Beispiel</bdi>" in page
            assert "<form" not in page
        text = await person.click()
        assert (person.status, person.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
        assert text.startswith("Dieser Link funktioniert nicht mehr\n")
        await person.head()
        assert person.status == 404
    assert await noes(desk) == set()
    assert counted(desk, "one_click") == counted(desk, "page") == 0
    links = len(UNKNOWN) + 1
    dead = [dead_links(desk, via) for via in ("look", "one_click", "page")]
    assert dead == [3 * links, links, 3 * links]


async def test_the_redirect_stays_where_the_world_reaches_us(desk: Desk) -> None:
    link = await desk.attempt("r1", "news")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{desk.public}/u/{link}", data=b"no=kind", headers=FORM, allow_redirects=False) as response,
    ):
        assert (response.status, await response.read()) == (303, b"")
        assert URL(f"{PUBLIC_URL}/u/{link}").join(URL(response.headers["Location"])).path == f"/gateway/u/{link}"


@pytest.mark.parametrize(
    ("accept", "locale", "profile", "language"),
    [
        ("de-AT,en;q=0.5", "ja", "ko", "de"),
        ("sw", "ja-JP", "ko", "ja"),
        ("", None, "ko-KR", "ko"),
        ("*", None, None, "en"),
    ],
)
async def test_it_is_in_the_language_of_the_browser_else_the_messages_else_the_persons(
    desk: Desk, accept: str, locale: str | None, profile: str | None, language: str
) -> None:
    attempt = await desk.attempt("r1", "news", **({"locale": locale} if locale else {}))
    await desk.store.put_profiles([("hana", Profile(locale=profile))])
    person = Visitor(desk, attempt, accept)
    page = await person.look()
    assert f'<html lang="{language}" dir="ltr">' in page
    assert person.headers["Content-Language"] == language
    title = {"de": "Neues", "ja": "お知らせ", "en": "News & offers"}.get(language)
    assert (f"<bdi>{title}</bdi>" in page) is (title is not None)
    assert {"de": "Beispiel", "en": "Example"}.get(language, "</main>") in page


async def test_the_page_is_shown_while_the_store_is_away_and_says_what_did_not_work(desk: Desk) -> None:
    person = Visitor(desk, await desk.attempt("r1", "news"))
    await desk.store.close()
    assert 'value="kind">Unsubscribe from this kind' in await person.look()
    assert person.status == 200
    page = await person.press("no=all")
    assert (person.status, person.headers["Retry-After"]) == (503, "5")
    assert '<p class="notice" role="alert">That did not work.' in page
    assert 'name="no" value="all"' in page
    assert 'name="yes" value="kind"' in await person.press("yes=kind")
    await person.click()
    assert (person.status, person.headers["Content-Type"]) == (503, "application/problem+json")
