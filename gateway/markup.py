"""Where the links of an HTML document stand, to the character, so that they can be replaced and nothing else touched.

Pure. The document is read as browsers read it, faults and all (https://html.spec.whatwg.org/multipage/parsing.html,
13.2.5), and never written anew: whoever serialises a mail again breaks what its author did for one mail program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from html.entities import html5
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP: Final = ("data-decorum", "keep")
"""The attribute by which an author has a link left as it is."""

_LINKS: Final = frozenset({"a", "area"})
_RAW: Final = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
"""Elements in which nothing but their own end tag is markup."""
_NO_END: Final = "plaintext"

_SPACE: Final = r"\t\n\f\r "
_MARKUP: Final = re.compile(
    rf"<(?:(?P<comment>!--)|(?P<bogus>[!?]|/(?![A-Za-z]))|(?P<end>/?)(?P<name>[A-Za-z][^{_SPACE}/>]*))"
)
_COMMENT: Final = re.compile(r"<!--(?:-?>|.*?--!?>)", re.DOTALL)
_ATTRIBUTE: Final = re.compile(
    rf"[{_SPACE}/]*(?P<name>[^{_SPACE}/>][^{_SPACE}/>=]*)"
    rf"(?:[{_SPACE}]*=[{_SPACE}]*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'"
    rf"|(?P<bare>[^{_SPACE}>\"'][^{_SPACE}>]*)|(?=>)|(?P<open>[\"'])))?"
)
_TAG_END: Final = re.compile(rf"[{_SPACE}/]*>")
_RAW_END: Final = {name: re.compile(rf"</{name}(?=[{_SPACE}/>])", re.IGNORECASE) for name in _RAW}
_REFERENCE: Final = re.compile(
    r"&(?:(?P<number>#(?:[0-9]+|[xX][0-9A-Fa-f]+);?)|(?P<name>[A-Za-z][A-Za-z0-9]*(?:;|(?![=A-Za-z0-9]))))"
)


@dataclass(frozen=True, slots=True)
class Link:
    """Where somebody gets by a click."""

    start: int
    """Of the address as it is written, without quotes."""
    end: int
    href: str
    """The address as it is meant."""


@dataclass(frozen=True, slots=True)
class Markup:
    """What is found in a document."""

    links: tuple[Link, ...]
    """In their order, without those that are to be left as they are."""
    end: int
    """Where something may be added that is part of what is shown."""


@dataclass(frozen=True, slots=True)
class _Tag:
    end: int
    attributes: Mapping[str, tuple[int, int, str]]
    """By name, the first of each: where its value stands, and what it means."""

    @property
    def kept(self) -> bool:
        name, value = KEEP
        return name in self.attributes and self.attributes[name][2] == value


def read(document: str) -> Markup:
    """Find a document's links. Takes time in proportion to its length, whatever it holds."""
    links = []
    at, body_end = 0, None
    while found := _MARKUP.search(document, at):
        name = (found["name"] or "").lower()
        tag = _tag(document, found.end(), wanted=name in _LINKS) if name else None
        if found["comment"]:
            comment = _COMMENT.match(document, found.start())
            after = comment.end() if comment else None
        elif found["bogus"]:
            after = document.find(">", found.start() + 2) + 1 or None
        elif found["end"] or tag is None:
            after = tag.end if tag else None
            if tag and name == "body":
                body_end = found.start()
        else:
            after = _past(document, name, tag.end)
            if (href := tag.attributes.get("href")) and not tag.kept:
                links.append(Link(*href))
        if after is None:  # it never ends, and browsers show nothing of it
            return Markup(tuple(links), found.start() if body_end is None else body_end)
        at = after
    return Markup(tuple(links), len(document) if body_end is None else body_end)


def _tag(document: str, at: int, *, wanted: bool) -> _Tag | None:
    """The tag whose name ends there; None where it has no end. ``wanted``: with its attributes."""
    attributes: dict[str, tuple[int, int, str]] = {}
    while found := _ATTRIBUTE.match(document, at):
        if found["open"]:
            return None
        at = found.end()
        if wanted:
            group = next((group for group in ("double", "single", "bare") if found[group] is not None), None)
            value = (*found.span(group), meant(found[group])) if group else (at, at, "")
            attributes.setdefault(found["name"].lower(), value)
    end = _TAG_END.match(document, at)
    return _Tag(end.end(), attributes) if end else None


def _past(document: str, name: str, at: int) -> int | None:
    """Where markup goes on behind a start tag that ends there; None: nowhere."""
    if name == _NO_END:
        return None
    if name not in _RAW_END:
        return at
    end = _RAW_END[name].search(document, at)
    return end.start() if end and _tag(document, end.end(), wanted=False) else None


def meant(value: str) -> str:
    """An attribute's value, its character references resolved.

    In attributes a name without its semicolon is none where ``=``, a letter or a digit follows: ``?a=1&copy=2`` is what
    people write.
    """

    def character(reference: re.Match[str]) -> str:
        return unescape(reference[0]) if reference["number"] else html5.get(reference["name"], reference[0])

    return _REFERENCE.sub(character, value)
