"""Are the links of a document found where browsers find them, and the place where something can be added?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from gateway.markup import meant, read
from tests.examples import examples

TOKENS = (
    *("<a", "<A", "<area", "<p", "<b", "<img", "<table", "<td", "</a", "</p", "</body", "</BODY", "</html", "<body"),
    *("<script", "</script", "<style", "</style", "<title", "</title", "<textarea", "</textarea", "<xmp", "</xmp"),
    *("<iframe", "</iframe", "<plaintext", "<abbr", "<a/", "</", "<", "<!--", "-->", "--!>", "<!-->", "<!--->", "--"),
    *(
        "<!doctype html>",
        "<!x",
        "<?x",
        "</ x",
        "<![CDATA[",
        "]]>",
        ">",
        "/>",
        "/",
        " ",
        "\n",
        "\t",
        "\f",
        "=",
        "'",
        '"',
    ),
    *('"', " href", " HREF", " title", " href=", ' href="', " href='", ' alt="', "x", "-", "!", "&amp;", "&copy=1"),
    *("&#65;", "http://one.test/", "https://two.test/?a=1&amp;b=2", "mailto:a@b.test", "#top", "é", "\r\n"),
)
"""What documents are drawn from. Left out is what the tokens of a document do not say: browsers drop links in lists to
choose from, keep those of templates to themselves, and read pictures within documents by other rules."""
documents = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)


def hrefs(document: str) -> set[str]:
    """Of the links in a document, as a browser's parser (Lexbor) has them; it doubles some that are not closed."""
    found = LexborHTMLParser(document).css("a[href], area[href]")
    return {node.attributes["href"] or "" for node in found}


@settings(max_examples=examples(400), deadline=None)
@given(documents)
def test_the_links_are_those_that_a_browser_finds(document: str) -> None:
    links = read(document).links
    assert {link.href.replace("\r\n", "\n") for link in links} == hrefs(document)


@settings(max_examples=examples(400), deadline=None)
@given(documents)
def test_what_is_added_is_part_of_what_is_shown(document: str) -> None:
    end = read(document).end
    added = LexborHTMLParser(f'{document[:end]}<img src="https://added.test/">{document[end:]}')
    assert len(added.css('img[src="https://added.test/"]')) == 1
    assert {node.attributes["href"] or "" for node in added.css("a[href], area[href]")} == hrefs(document)


@settings(max_examples=examples(200), deadline=None)
@given(documents)
def test_a_link_stands_where_it_is_said_to(document: str) -> None:
    markup = read(document)
    places = [(link.start, link.end) for link in markup.links]
    assert places == sorted(places)
    assert all(meant(document[link.start : link.end]) == link.href for link in markup.links)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ('<a href="https://a.test/">', ["https://a.test/"]),
        ("<A HREF='https://a.test/?x=\"1\"'>", ['https://a.test/?x="1"']),
        ("<a href=https://a.test/>", ["https://a.test/"]),
        ('<a\n\tclass="b>c" href = "https://a.test/">', ["https://a.test/"]),
        ('<a href="https://a.test/" href="https://b.test/">', ["https://a.test/"]),
        ('<a title=\'<a href="https://b.test/">\' href="https://a.test/">', ["https://a.test/"]),
        ('<map><area href="https://a.test/"></map>', ["https://a.test/"]),
        ('<a data-decorum="keep" href="https://a.test/"><a data-decorum=other href="https://b.test/">', ["https://b.test/"]),
        ('<link href="https://a.test/"><base href="https://a.test/"><img src="https://a.test/">', []),
        ('<!-- <a href="https://a.test/"> --><script>"<a href=\'https://a.test/\'>"</script>', []),
        ('<![endif]--><!--[if !mso]><!--><a href="https://a.test/"><!--<![endif]-->', ["https://a.test/"]),
        ('<style></style ><a href="https://a.test/">', ["https://a.test/"]),
        ('<a name="top"><a>', []),
        ('<a href="https://a.test/', []),
    ],
)  # fmt: skip
def test_links(document: str, found: list[str]) -> None:
    assert [link.href for link in read(document).links] == found


@pytest.mark.parametrize(
    ("written", "meaning"),
    [  # https://html.spec.whatwg.org/multipage/parsing.html, 13.2.5.73
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("?a=1&b=2", "?a=1&b=2"),
        ("?a=1&copy=2", "?a=1&copy=2"),
        ("?a=1&copy2=3", "?a=1&copy2=3"),
        ("?a=1&copy", "?a=1©"),
        ("?a=1&copy;=2", "?a=1©=2"),
        ("?a=1&lang=en", "?a=1&lang=en"),
        ("?a=1&notit;", "?a=1&notit;"),
        ("?q=&quot;a&quot;&#38;&#x26;", '?q="a"&&'),
        ("?q=&#38=", "?q=&="),
        ("?q=&amp;amp;", "?q=&amp;"),
        ("?q=&;&#;&nothing;", "?q=&;&#;&nothing;"),
    ],
)
def test_character_references(written: str, meaning: str) -> None:
    assert meant(written) == meaning
    assert hrefs(f'<a href="{written.replace(chr(34), "&quot;")}">x</a>') == {meaning}


@pytest.mark.parametrize(
    ("document", "before"),
    [
        ("<p>x</p></body></html>", "</body></html>"),
        ("<p>x</p></BODY >", "</BODY >"),
        ("x</body>y</body>z", "</body>z"),
        ("<p>x", ""),
        ("<p>x</p></html>", ""),
        ("x<!-- </body>", "<!-- </body>"),
        ("x<script></body>", "<script></body>"),
        ("x</body><p", "</body><p"),
        ("x</", "</"),
        ("x<iframe>y</iframe z", "<iframe>y</iframe z"),
        ('x<a href="y</body>', '<a href="y</body>'),
        ("x<plaintext></body>", "<plaintext></body>"),
    ],
)
def test_where_something_can_be_added(document: str, before: str) -> None:
    assert document[read(document).end :] == before


@pytest.mark.parametrize(
    "piece",
    [
        *("<", "<a ", "<a href=", '<a href="', "<!--", "<!-- --", "<script>", "<script></", "</", "<!", "<a b=' ", " "),
        *("<a>", "<a " + " " * 1000, "<a =", "<a / ", "&", "<title><", "<a href=x>"),
    ],
)
def test_no_document_takes_long(piece: str) -> None:
    """What takes time by the square of its length takes minutes here, and a test that takes one fails."""
    read(piece * (256 * 1024 // len(piece)))


def test_a_reference_takes_no_longer() -> None:
    meant("&a" * 128 * 1024 + "&" * 128 * 1024)
