"""In which of our languages is a person spoken to?

Pure. By RFC 4647, 3.4 (lookup): each wish in turn, ever more of its end left out, until it is a language of ours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Language = Literal["ar", "de", "en", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "th", "vi", "zh-Hans", "zh-Hant"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
RIGHT_TO_LEFT: Final = frozenset({"ar"})
LAST_RESORT: Final[Language] = "en"

_OURS: Final[Mapping[str, Language]] = {
    **{language.lower(): language for language in LANGUAGES},
    # The script that is read there, by the likely subtags of CLDR; in the region's stead where it is not named.
    "zh": "zh-Hans",
    "zh-hk": "zh-Hant",
    "zh-mo": "zh-Hant",
    "zh-tw": "zh-Hant",
    "yue": "zh-Hant",
    "in": "id",  # what it was called until 1989, and Java until version 17
}
_WISH: Final = re.compile(
    r"[ \t]*([a-z]{1,8}(?:-[a-z0-9]{1,8})*)[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?", re.IGNORECASE
)
"""One of a header's (RFC 9110, 12.5.4), and its weight. Whatever else is written there is no wish: ``*`` too, for who
takes any language is best served in that of the message."""


def spoken_to(accepted: str, locales: Iterable[str] = ()) -> Language:
    """The first language of ours that somebody asks for, or is known to read.

    Args:
        accepted: what their browser says, as an Accept-Language header.
        locales: what is known beside that, as BCP 47 tags, the best first.
    """
    wishes = (*_wishes(accepted), *locales)
    return next((language for wish in wishes if (language := _lookup(wish))), LAST_RESORT)


def _wishes(accepted: str) -> Iterator[str]:
    """Those of a header, the most wanted first; of equals the one that is written first."""
    written = [wish for part in accepted.split(",") if (wish := _WISH.fullmatch(part))]
    weighed = [(float(wish[2] or 1), wish[1]) for wish in written]
    yield from (tag for weight, tag in sorted(weighed, key=lambda one: -one[0]) if weight)


def _lookup(tag: str) -> Language | None:
    subtags = tag.lower().split("-")
    tags = ("-".join(subtags[:end]) for end in range(len(subtags), 0, -1))
    return next((_OURS[tag] for tag in tags if tag in _OURS), None)
