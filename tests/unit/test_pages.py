"""Does the page to unsubscribe say the same in every language, and nothing that is not ours?"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from itertools import product
from string import Formatter

import pytest
import yaml

from gateway.languages import LANGUAGES
from gateway.web.pages import Choice, Pages, Shown

TEXTS = yaml.safe_load(files("gateway.web.pages").joinpath("unsubscribe.yaml").read_text(encoding="utf-8"))
PAGES = Pages()
VOID = {"meta", "circle", "path"}
TITLE = "News & <offers>"
NAME = 'Example "Bank" {name}'
"""What an author may write, and what must not be taken for markup, or for a place to fill in."""


class Outline(HTMLParser):
    """What a page consists of; fails where its tags are not closed in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text[tag] = self.text.get(tag, "") + data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text)} - {None}


def test_every_language_of_ours_has_every_text_with_its_places() -> None:
    assert set(TEXTS) == set(LANGUAGES)
    expected = {key: places(text) for key, text in TEXTS["en"].items()}
    for language, texts in TEXTS.items():
        assert {key: places(text) for key, text in texts.items()} == expected, language
        assert all(text == text.strip() and text for text in texts.values()), language


SCRIPTS = {"ar": "[؀-ۿ]", "hi": "[ऀ-ॿ]", "ja": "[ぁ-ヿ一-鿿]", "ko": "[가-힣]", "th": "[ก-๛]"}
SCRIPTS |= dict.fromkeys(("zh-Hans", "zh-Hant"), "[一-鿿]")


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_a_text_is_in_the_script_of_its_language_and_is_not_left_in_english(language: str) -> None:
    for key, text in TEXTS[language].items():
        assert text != TEXTS["en"][key]
        assert re.search(SCRIPTS.get(language, "[A-Za-z]"), text), key


STATES = [
    Shown("en", left=left, again=again, notice=notice, name=name, title=title)
    for left, again, notice, name, title in product(
        (None, *Choice), (False, True), (None, "back", "failed"), (None, NAME), (None, TITLE)
    )
    if left or not again
] + [Shown("en", name, dead=True) for name in (None, NAME)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_whole_in_every_language(language: str) -> None:
    texts = TEXTS[language]
    for state in STATES:
        shown = replace(state, language=language)  # type: ignore[arg-type]
        page = PAGES.unsubscribe(shown)
        found = Outline(page)
        assert found.of("html") == [{"lang": language, "dir": "rtl" if language == "ar" else "ltr"}]
        assert found.text["h1"] == texts["dead" if shown.dead else "done" if shown.left else "heading"]
        assert found.text["title"].startswith(found.text["h1"])
        said = [(b["name"], b["value"]) for b in found.of("button")]
        no = {None: [("no", "kind"), ("no", "all")], Choice.KIND: [("no", "all")], Choice.ALL: []}[shown.left]
        assert said == ([] if shown.dead else no + ([("yes", shown.left)] if shown.again else []))
        assert found.of("form") == ([] if shown.dead else [{"method": "post"}])
        assert (texts["dead_why"] in found.text["main"]) is shown.dead
        ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert {b["aria-describedby"] for b in found.of("button") if "aria-describedby" in b} <= set(ids)
        assert (texts["sender"].format(name=NAME) in found.text["main"]) is (shown.name is not None)
        assert [p.get("role") for p in found.of("p") if p.get("class") == "notice"] == (
            [{"back": "status", "failed": "alert"}[shown.notice]] if shown.notice else []
        )
        if shown.left is Choice.KIND:
            expected = texts["gone_titled"].format(title=TITLE) if shown.title else texts["gone"]
            assert expected in found.text["main"]


@pytest.mark.parametrize("state", STATES)
def test_nothing_on_a_page_runs_or_comes_from_elsewhere(state: Shown) -> None:
    page = PAGES.unsubscribe(state)
    found = Outline(page)
    assert {tag for tag, _ in found.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "p", "bdi", "form", "button"),
        *("svg", "circle", "path"),
    }
    assert not any(name in {"style", "src", "href"} or name.startswith("on") for _, a in found.elements for name in a)
    assert "url(" not in page
    assert "@import" not in page
    (style,) = re.findall("<style>(.*)</style>", page, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert PAGES.security == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def test_a_title_is_text_whatever_it_looks_like() -> None:
    page = PAGES.unsubscribe(Shown("en", NAME, TITLE))
    assert "News &amp; &lt;offers&gt;" in page
    assert "<offers>" not in page
    assert "<bdi>Example &#34;Bank&#34; {name}</bdi>" in page
