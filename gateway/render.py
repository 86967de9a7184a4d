"""What is sent of a message whose opens and clicks are looked for: links of ours in place of its own, and a pixel.

Pure, and the same whenever it is asked: where a link of ours leads is found by extracting the message's links again, so
nothing is stored of a mail, and nobody can make a link of ours that leads elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import idna

from gateway.markup import read
from gateway.message import LONGEST_TEXT
from providers import Email, Sms, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.decide import Judge
    from gateway.message import Message
    from providers import Content

HONEYPOT: Final = 0
"""The number of the link that nobody sees."""
_PIXEL: Final = '<img src="{}" width="1" height="1" alt="" style="border:0">'
_UNSEEN: Final = '<a href="{}" style="display:none" aria-hidden="true" tabindex="-1"></a>'

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CODE_LENGTH: Final = 10
"""Of such digits: 59.5 bits."""
_DRAFT: Final = "0" * 26
"""Stands for an attempt that there is not yet."""

_LONGEST: Final = 2048
"""Characters of an address that we redirect to; proxies in between take little more in a header."""
_CACHED: Final = 32
"""Documents that are kept taken apart: a campaign's are all alike, and at 256 KB each this bounds the memory."""
_OF_URLS: Final = "!#$%&'()*+,/:;=?@[]~"
"""What may stand in an address as it is, beside letters, digits, ``-``, ``.`` and ``_`` (RFC 3986, 2)."""
_UNLIKE: Final = re.compile(r"\\|\{\{|\{%|\$\{|\*\||%%|<%")
"""A slash that only browsers take for one, and what mail services have around what they fill in themselves."""
_WEB: Final = re.compile(r"(https?://)([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PADDING: Final = "".join(map(chr, range(0x21)))
_BREAKS: Final = str.maketrans("", "", "\t\n\r")
_IN_TEXT: Final = re.compile(
    r"(?<![0-9A-Za-z])https?://(?=[0-9A-Za-z\[])[0-9A-Za-z\-._~:/?#\[\]@!$&'()*+,;=%]+", re.IGNORECASE
)
_RUNS_ON: Final = re.compile(r"[\w{}|\\^`]")
"""Characters behind an address which say that phones may take it for longer than it is."""
_TRAILING: Final = ".,:;!?'\""
_BRACKETS: Final = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A content with gaps."""

    pieces: tuple[str, ...]
    """What stays, one more than there are gaps."""
    gaps: tuple[int | None, ...]
    """In each the link of this number; None: what nobody sees."""
    targets: tuple[str, ...]

    def filled(self, link: Callable[[int], str], unseen: str = "") -> str:
        parts = [self.pieces[0]]
        for gap, piece in zip(self.gaps, self.pieces[1:], strict=True):
            parts += (unseen if gap is None else link(gap), piece)
        return "".join(parts)


def tracking_url(judge: Judge, message: Message) -> str | None:
    """Where links of ours in a message are to lead; None: nobody looks for its opens and clicks."""
    category = judge.policy.categories.get(message.category)
    return judge.public_url if category is not None and category.tracked else None


def trackable(content: Content, public: str) -> bool:
    """Whether there is anything to put links of ours into.

    Texts are left as they are where our links would cost a part more, or make them longer than vendors take.
    """
    match content:
        case Email():
            return content.html is not None
        case Sms():
            text = _shortened(content.text, public, _DRAFT)
            return (
                text != content.text
                and segments(text) <= segments(content.text)
                and len(text) <= max(LONGEST_TEXT, len(content.text))
            )
        case _:
            return False


def tracked(content: Content, public: str, attempt: str) -> Content:
    """A trackable content as it is sent.

    Of a mail's HTML every link to the web is replaced, and a pixel and a link that nobody sees are added; all else
    stays to the letter, as does its plain text, whose readers would see the long links. Of a text every address is.

    Args:
        content: what the message says.
        public: where links of ours lead.
        attempt: whose links they are: for a repeat that a vendor takes for the first attempt, the first.
    """
    match content:
        case Email(html=str() as html):
            pattern, base = _of_html(html), escape(public)
            links = f"{base}/c/{attempt}"
            unseen = _PIXEL.format(f"{base}/o/{attempt}")
            if pattern.targets:
                unseen = _UNSEEN.format(f"{links}/{HONEYPOT}") + unseen
            return replace(content, html=pattern.filled(lambda link: f"{links}/{link}", unseen))
        case Sms():
            return replace(content, text=_shortened(content.text, public, attempt))
        case _:
            return content


def drafted(content: Content, public: str) -> Content:
    """The same before there is an attempt, for who counts the parts of a text: as long, with other codes.

    Of mails nobody counts anything.
    """
    return tracked(content, public, _DRAFT) if isinstance(content, Sms) and trackable(content, public) else content


def targets(content: Content) -> tuple[str, ...]:
    """Where the links of a content lead, in their order; the first is link 1."""
    match content:
        case Email(html=str() as html):
            return _of_html(html).targets
        case Sms():
            return _of_text(content.text).targets
        case _:
            return ()


def target(content: Content, link: int) -> str | None:
    """Where one leads; the one that nobody sees, where the first does, for it must look like any other."""
    known = targets(content)
    number = link or 1
    return known[number - 1] if 1 <= number <= len(known) else None


def code(attempt: str, link: int) -> str:
    """The path of a short link: as hard to guess as the attempt's id is, of which 74 bits are drawn by chance.

    A repeat needs no memory to have the same.
    """
    number = int.from_bytes(blake2b(f"{attempt}/{link}".encode(), digest_size=16).digest())
    digits = []
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)


def _shortened(text: str, public: str, attempt: str) -> str:
    return _of_text(text).filled(lambda link: f"{public}/{code(attempt, link)}")


@lru_cache(_CACHED)
def _of_html(html: str) -> _Pattern:
    markup = read(html)
    found = [(link.start, link.end, where) for link in markup.links if (where := _location(link.href))]
    gaps: list[tuple[int, int, int | None]] = [(start, end, n) for n, (start, end, _) in enumerate(found, 1)]
    gaps.append((markup.end, markup.end, None))
    return _pattern(html, sorted(gaps, key=lambda gap: gap[0]), tuple(where for *_, where in found))


def _of_text(text: str) -> _Pattern:
    found = []
    for run in _IN_TEXT.finditer(text):
        url = run[0]
        if not _RUNS_ON.match(text, run.end()) and (where := _location(url := _trimmed(url))):
            found.append((run.start(), run.start() + len(url), where))
    gaps: list[tuple[int, int, int | None]] = [(start, end, n) for n, (start, end, _) in enumerate(found, 1)]
    return _pattern(text, gaps, tuple(where for *_, where in found))


def _pattern(whole: str, gaps: Sequence[tuple[int, int, int | None]], targets: tuple[str, ...]) -> _Pattern:
    starts, ends = [start for start, _, _ in gaps], [end for _, end, _ in gaps]
    pieces = [whole[begin:end] for begin, end in zip([0, *ends], [*starts, len(whole)], strict=True)]
    return _Pattern(tuple(pieces), tuple(link for _, _, link in gaps), targets)


def _trimmed(url: str) -> str:
    """An address in a text without what ends its sentence (after GitHub Flavored Markdown, 6.9)."""
    while url[-1] in _TRAILING or url.count(url[-1]) > url.count(_BRACKETS.get(url[-1], url[-1])):
        url = url[:-1]
    return url


def _location(href: str) -> str | None:
    """An address as it may stand in a header: what is not of the web, or no whole address, is None.

    What it says stays as it was; only characters that no address may have are percent-encoded, as browsers do.
    """
    found = _WEB.fullmatch(href.strip(_PADDING).translate(_BREAKS))
    if not found or _UNLIKE.search(found[0]):
        return None
    scheme, network, rest = found.groups()
    try:
        parts = urlsplit(found[0])
        if not parts.hostname or parts.port == 0:
            return None
        if not network.isascii():
            user, at, place = network.rpartition("@")
            host, colon, port = place.partition(":")
            network = quote(user, _OF_URLS) + at + idna.encode(host, uts46=True).decode() + colon + port
        location = scheme + quote(network + rest, _OF_URLS)
    except ValueError:  # idna's errors are such too
        return None
    return location if len(location) <= _LONGEST else None
