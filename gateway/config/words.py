"""How single values are written in the file: lengths of time, hours, days, countries, shares."""

from __future__ import annotations

import re
from datetime import date, time, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar, get_args

from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, StringConstraints, Tag

from gateway.config.faults import nearest
from gateway.languages import LANGUAGES, Language
from providers import duration
from ratelimit import Calendar, zone_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""A name that people give."""
NAMED: Final = "1 to 64 of A-Z, a-z, 0-9, _ and -, a letter first"
"""The same for people."""
LINE: Final = 60
"""Characters of what stands on a button."""

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: Final = get_args(Weekday)
Days = Literal[Weekday, "weekdays", "weekend"]
_GROUPS: Final = {"daily": range(7), "weekdays": range(5), "weekend": range(5, 7)}

COUNTRIES: Final = frozenset(SUPPORTED_REGIONS)
"""ISO 3166-1 alpha-2, as far as the country has telephone numbers: by these a person's country is known."""
_MISTAKEN: Final = {"UK": "GB", "EL": "GR"}
"""What is written for a country although ISO 3166-1 has another code for it."""

T = TypeVar("T")
W = TypeVar("W", bound=str)
Span = tuple[time, time]
"""``[from, to)`` on one day's clock; midnight at its end is ``time(0)``."""

# -------------------------------------------------------------------------------------------------------------- lengths


def _period(value: object) -> timedelta | Calendar:
    if isinstance(value, str) and value in tuple(Calendar):
        return Calendar(value)
    try:
        length = duration(value)
    except ValueError:
        raise ValueError(
            "must be day, week or month (calendar), or a duration with its unit such as 24h or 7d (rolling)"
        ) from None
    if length > timedelta(days=366):
        raise ValueError("must be at most 366d: rules do not look further ahead")
    return length


# ------------------------------------------------------------------------------------------------------ clocks and days

_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"


def _wall_time(value: object) -> time:
    if isinstance(value, str) and re.fullmatch(_CLOCK, value):
        return time.fromisoformat(value)
    raise ValueError('must be a time of day in quotes, from "00:00" to "23:59"')


def _wall_end(value: object) -> time:
    if value == "24:00":
        return time(0)
    if isinstance(value, str) and re.fullmatch(_CLOCK, value):
        return time.fromisoformat(value)
    raise ValueError('must be a time of day in quotes, from "00:00" to "24:00"')


def _span(value: object) -> Span:
    written = re.fullmatch(rf"({_CLOCK}) ?- ?({_CLOCK}|24:00)", value) if isinstance(value, str) else None
    if not written:
        raise ValueError('must be hours in quotes, such as "11:00-12:00" or "19:00-24:00"')
    if written[1] == written[2]:
        raise ValueError('must end at another time than it begins; a whole day is "00:00-24:00"')
    return _wall_time(written[1]), _wall_end(written[2])


def days_of(words: tuple[str, ...]) -> frozenset[int]:
    """Weekdays that are named singly or by their group, 0 Monday … 6 Sunday."""
    return frozenset(day for word in words for day in _named(word))


def _named(word: str) -> range:
    return _GROUPS.get(word) or range(WEEKDAYS.index(word), WEEKDAYS.index(word) + 1)


def _date(value: object) -> date:
    try:
        if isinstance(value, str) and len(value) == len("2026-11-01"):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("must be a date, such as 2026-11-01")


# ----------------------------------------------------------------------------------------------------------- the others


def _percent(value: object) -> float:
    written = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%", value) if isinstance(value, str) else None
    if not written or float(written[1]) > 100:  # noqa: PLR2004 - all of them
        raise ValueError("must be a share of the persons from 0% (shadow: only recorded) to 100%, such as 25%")
    return float(written[1])


def _share(value: object) -> float:
    written = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,4})?)%", value) if isinstance(value, str) else None
    if not written or not float(written[1]):
        raise ValueError("must be a share of more than 0% and less than 100%, such as 20%")
    return float(written[1]) / 100


def _country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError(f"is not a country's code (ISO 3166-1 alpha-2){code_near(code, COUNTRIES) or ', such as JP'}")
    return code


def code_near(code: str, codes: Collection[str]) -> str:
    """Which code may have been meant, as the end of a sentence; empty if none is near."""
    upper = code.upper()
    for meant in (_MISTAKEN.get(upper), upper, upper[:2]):
        if meant in codes:
            return f": did you mean {meant}?"
    return nearest(upper, sorted(codes))


def _zone(text: str) -> str:
    if text not in zone_names():
        near = nearest(text, zone_names())
        raise ValueError(f"is not a time zone of the IANA database{near or ', such as Asia/Tokyo'}")
    return text


def listed(value: object) -> object:
    """A value where a list may stand too."""
    return (value,) if isinstance(value, str | int | float) else value


def _sorted(words: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(sorted(set(words)))  # type: ignore[type-var] # words, times and pairs of them have an order


def _word(text: str) -> str:
    if not WORD.fullmatch(text):
        raise ValueError(f"must be {NAMED}")
    return text


def _line(text: str) -> str:
    if not text.isprintable() or not text.strip() or len(text) > LINE:
        raise ValueError(f"must be one line of at most {LINE} characters, as people are to read it")
    return text


def by_language(texts: str | Mapping[Language, str]) -> Mapping[Language, str]:
    """What people read, in each language in which it is written."""
    return dict.fromkeys(LANGUAGES, texts) if isinstance(texts, str) else texts


def _some(limit: int) -> int:
    if limit < 1:
        raise ValueError("must be at least 1, less would never send anything: raise it, or remove the cap")
    return limit


Text = Annotated[str, StringConstraints(min_length=1, strict=True)]
Word = Annotated[str, StringConstraints(strict=True), AfterValidator(_word)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Limit = Annotated[int, Field(strict=True, le=1_000_000), AfterValidator(_some)]
Length = Annotated[timedelta, PlainValidator(duration)]
Period = Annotated[timedelta | Calendar, PlainValidator(_period)]
WallTime = Annotated[time, PlainValidator(_wall_time)]
WallEnd = Annotated[time, PlainValidator(_wall_end)]
Hours = Annotated[Span, PlainValidator(_span)]
Date = Annotated[date, PlainValidator(_date)]
Percent = Annotated[float, PlainValidator(_percent)]
Share = Annotated[float, PlainValidator(_share)]
Country = Annotated[Text, AfterValidator(_country)]
Zone = Annotated[Text, AfterValidator(_zone)]
Some = Annotated[tuple[T, ...], BeforeValidator(listed), AfterValidator(_sorted), Field(min_length=1)]
"""One or a list, where order means nothing."""
_Line = Annotated[str, StringConstraints(strict=True), AfterValidator(_line)]
Wording = Annotated[
    Annotated[_Line, Tag("line")] | Annotated[dict[Language, _Line], Field(min_length=1), Tag("lines")],
    Discriminator(lambda value: "lines" if isinstance(value, dict) else "line"),
]
"""What people read: one text whatever their language, or one in each; see ``by_language``."""


def weekly(hours: Mapping[W, tuple[Span, ...]]) -> dict[int, tuple[Span, ...]]:
    """The hours of each weekday that is named; a day's own word goes before its group's, and that before ``daily``."""
    found: dict[int, tuple[Span, ...]] = {}
    for word in sorted(hours, key=lambda word: -len(_named(word))):
        found |= dict.fromkeys(_named(word), hours[word])
    return found


def _daily(value: object) -> object:
    return value if isinstance(value, dict) else {"daily": value}


Week = Annotated[
    dict[Literal["daily", "weekdays", "weekend", Weekday], Annotated[tuple[Hours, ...], BeforeValidator(listed)]],
    BeforeValidator(_daily),
]
"""Hours of every day, or by weekday; none on a day: ``[]``."""
