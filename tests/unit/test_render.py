"""Is what is sent what was said, but for the links of ours, and is it known where each of them leads?"""

from __future__ import annotations

import re
from html import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.ids import new_id
from gateway.markup import read
from gateway.render import code, drafted, target, targets, trackable, tracked
from providers import Email, Push, Robocall, Sms, segments
from tests.examples import examples
from tests.unit.test_markup import documents

PUBLIC = "https://m.example.com"
ATTEMPT = "0sgdpj5016zyc4xdtqys7wkyxb"
UNSEEN = (
    f'<a href="{PUBLIC}/c/{ATTEMPT}/0" style="display:none" aria-hidden="true" tabindex="-1"></a>',
    f'<img src="{PUBLIC}/o/{ATTEMPT}" width="1" height="1" alt="" style="border:0">',
)


def mail(html: str) -> Email:
    return Email("subject", "text: https://a.test/", html)


def sent(html: str) -> str:
    content = tracked(mail(html), PUBLIC, ATTEMPT)
    assert isinstance(content, Email)
    assert (content.subject, content.text) == ("subject", "text: https://a.test/")
    return content.html or ""


def texted(text: str, public: str = PUBLIC) -> str:
    content = tracked(Sms(text), public, ATTEMPT)
    assert isinstance(content, Sms)
    return content.text


# -------------------------------------------------------------------------------------------------------------- mails


@settings(max_examples=examples(300), deadline=None)
@given(documents)
def test_with_links_mapped_back_and_what_is_unseen_removed_a_mail_is_what_it_was(html: str) -> None:
    found = sent(html)
    for part in UNSEEN:
        found = found.replace(part, "", 1)
    of_web = [link for link in read(html).links if targets(mail(f'<a href="{escape(link.href)}">'))]
    numbers = re.findall(rf"{PUBLIC}/c/{ATTEMPT}/([0-9]+)", found)
    assert numbers == [str(number) for number in range(1, len(of_web) + 1)]
    written = iter(html[link.start : link.end] for link in of_web)
    assert re.sub(rf"{PUBLIC}/c/{ATTEMPT}/[0-9]+", lambda _: next(written), found) == html


def test_a_mail_as_people_write_them() -> None:
    html = (
        '<!DOCTYPE html><html><head><title>"a"</title><link rel="x" href="https://a.test/x.css"></head>\r\n<body>'
        "<p>Dear  Hana &amp; co,</P><A class=b\nHREF='https://a.test/?a=1&amp;b=2'>here</A> or <a href=https://a.test/>"
        'there</a>, <a href="https://a.test/">again</a>, <a href="mailto:x@a.test">us</a>, <a href="tel:+81">call</a>,'
        '<a href="#top">up</a>, <a href="{{unsubscribe}}">out</a>, <a data-decorum=keep href="https://a.test/keep">kept'
        '</a><img src="https://a.test/x.png"></body></html>\n'
    )
    link = f"{PUBLIC}/c/{ATTEMPT}/"
    wanted = (
        html.replace("https://a.test/?a=1&amp;b=2", f"{link}1")
        .replace("https://a.test/>there", f"{link}2>there")
        .replace('https://a.test/">again', f'{link}3">again')
        .replace("</body>", "".join(UNSEEN) + "</body>")
    )
    assert sent(html) == wanted
    assert targets(mail(html)) == ("https://a.test/?a=1&b=2", "https://a.test/", "https://a.test/")
    assert [target(mail(html), number) for number in (0, 1, 2, 3, 4, -1)] == [
        *("https://a.test/?a=1&b=2", "https://a.test/?a=1&b=2", "https://a.test/", "https://a.test/"),
        *(None, None),
    ]


def test_a_mail_without_links_has_a_pixel_and_no_trap() -> None:
    assert sent("<p>hello") == "<p>hello" + UNSEEN[1]
    assert target(mail("<p>hello"), 0) is None


def test_a_public_address_is_written_as_markup_wants_it() -> None:
    content = tracked(mail('<a href="https://a.test/">x</a>'), "https://m.example.com/a&b", ATTEMPT)
    assert isinstance(content, Email)
    assert 'href="https://m.example.com/a&amp;b/c/' in (content.html or "")


@pytest.mark.parametrize(
    ("href", "location"),
    [
        ("https://a.test", "https://a.test"),
        ("HTTPS://A.test/B?", "HTTPS://A.test/B?"),
        (" \thttps://a.test/x\n y ", "https://a.test/x%20y"),
        ("https://a.test/%2F?q=%2B+%41&r=a%", "https://a.test/%2F?q=%2B+%41&r=a%"),
        ("https://a.test/?x=a|b&y={1}#f#", "https://a.test/?x=a%7Cb&y=%7B1%7D#f#"),
        ("https://例え.jp/パス?q=値", "https://xn--r8jz45g.jp/%E3%83%91%E3%82%B9?q=%E5%80%A4"),
        ("https://u:p@例え.jp:8443/", "https://u:p@xn--r8jz45g.jp:8443/"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/"),
        ("https://a.test/?back=https%3A%2F%2Fb.test", "https://a.test/?back=https%3A%2F%2Fb.test"),
        *[
            (href, None)
            for href in (
                *("", "#", "/path", "//a.test/", "www.a.test", "mailto:a@a.test", "tel:+81", "javascript:alert(1)"),
                *("data:text/html,x", "ftp://a.test", "https:", "https://", "https:///a.test", "https:a.test"),
                *("https:\\\\a.test", "https://a.test\\@b.test", "https://[a.test/", "https://a.test:x/"),
                *("https://a.test:0/", "https://a.test:99999/", "https://a..例/", "https://a.test/{{token}}"),
                *("https://a.test/*|ID|*", "https://a.test/%%id%%", "https://a.test/${id}", "{{url}}"),
                "https://a.test/" + "x" * 2048,
            )
        ],
    ],
)
def test_where_a_link_leads(href: str, location: str | None) -> None:
    quoted = href.replace("&", "&amp;")
    assert targets(mail(f'<a href="{quoted}">x</a>')) == ((location,) if location else ())
    if location:
        assert location.isascii()
        assert location.isprintable()
        assert " " not in location
        assert str(URL(location).host) == URL(href.strip(" \t\n")).host


# -------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Look: https://a.test/x", ["https://a.test/x"]),
        ("See https://a.test/x. Or (http://b.test/y)!", ["https://a.test/x", "http://b.test/y"]),
        ("https://a.test/x, https://a.test/x", ["https://a.test/x", "https://a.test/x"]),
        ("https://en.wikipedia.test/wiki/A_(b)", ["https://en.wikipedia.test/wiki/A_(b)"]),
        ("(https://en.wikipedia.test/wiki/A_(b)).", ["https://en.wikipedia.test/wiki/A_(b)"]),
        ("'https://a.test/?q=a&b=%20#x'", ["https://a.test/?q=a&b=%20#x"]),
        ("<https://a.test/a_>", ["https://a.test/a_"]),
        ("「https://a.test/x」をご覧ください。", ["https://a.test/x"]),
        ("こちらhttps://a.test/x。", ["https://a.test/x"]),
        ("https://a.test/xをご覧ください", []),
        ("https://例え.jp/x https://a.test/パス", []),
        ("https://a.test/{{id}} mailto:a@a.test ftp://a.test a.test/x xhttps://a.test/y", []),
        ("http:// https://? https://[ http://[a", []),
    ],
)
def test_addresses_in_a_text(text: str, found: list[str]) -> None:
    assert list(targets(Sms(text))) == found
    pieces = re.split(rf"{PUBLIC}/[0-9A-Za-z]{{10}}", texted(text))
    assert len(pieces) == len(found) + 1
    rest = text
    for piece, url in zip(pieces, [*found, ""], strict=True):
        assert rest.startswith(piece + url)
        rest = rest.removeprefix(piece + url)
    assert rest == ""


def test_a_short_link_is_what_its_attempt_makes_it() -> None:
    text = texted("a https://a.test/1 b https://a.test/2")
    assert text == f"a {PUBLIC}/{code(ATTEMPT, 1)} b {PUBLIC}/{code(ATTEMPT, 2)}"
    assert target(Sms("a https://a.test/1 b https://a.test/2"), 2) == "https://a.test/2"


def test_codes_have_all_digits_alike_and_meet_nowhere() -> None:
    codes = [code(new_id(), link) for _ in range(10_000) for link in (1, 2)]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[0-9A-Za-z]{10}", one) for one in codes)
    counted = [sum(one[place] == digit for one in codes) for place in range(10) for digit in "0Az"]
    assert all(220 < count < 430 for count in counted), counted  # 323 on average, 18 the standard deviation


texts = st.lists(
    st.sampled_from(["https://a.test/", "http://b.test/" + "y" * 60, "x" * 50, "é", "漢", "{", " ", ". ", "😀", "\n"]),
    max_size=12,
).map("".join)


@settings(max_examples=examples(300), deadline=None)
@given(texts)
def test_no_text_costs_a_part_more(text: str) -> None:
    if trackable(Sms(text), PUBLIC):
        assert segments(texted(text)) <= segments(text)
        draft = drafted(Sms(text), PUBLIC)
        assert isinstance(draft, Sms)
        assert segments(draft.text) == segments(texted(text))
    else:
        assert drafted(Sms(text), PUBLIC) == Sms(text)


def test_a_text_is_left_as_it_is_where_our_links_would_not_fit() -> None:
    short = "https://a.test/1"
    assert trackable(Sms("x" * (160 - 33) + " " + PUBLIC + "/" + "y" * 10), PUBLIC)
    assert not trackable(Sms("x" * (160 - len(short) - 1) + " " + short), PUBLIC)
    assert trackable(Sms("x" * (160 - len(short) - 20) + " " + short), PUBLIC)
    longest = Sms("x" * (1600 - len(short) - 1) + " " + short)
    assert segments(longest.text) == segments(texted(longest.text))
    assert not trackable(longest, PUBLIC)


@pytest.mark.parametrize(
    "content",
    [
        Email("s", "https://a.test/"),
        Push("https://a.test/", "b"),
        Robocall("https://a.test/"),
        Sms("hello"),
    ],
)
def test_what_has_no_room_for_links_is_left_as_it_is(content: Email | Push | Robocall | Sms) -> None:
    assert not trackable(content, PUBLIC)
    assert tracked(content, PUBLIC, ATTEMPT) == content
    assert drafted(content, PUBLIC) == content
    assert targets(content) == ()
