"""Types of single fields of what comes from outside: which values they take, and what is said of others."""

from __future__ import annotations

import functools
import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated

from email_validator import EmailNotValidError, validate_email
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, format_number, is_possible_number, parse
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints

from providers import Channel
from ratelimit import zone_names

_PLAIN_LOCAL = re.compile(r"(?=.{1,64}$)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")
"""The part before the @ as nearly every address has it; RFC 5321 allows 64 octets."""
_LONGEST_EMAIL = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets."""
_NO_ZONE = "Factory"
"""The tz database's name for a machine whose zone nobody has set."""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_FAR = datetime(3000, 1, 1, tzinfo=UTC)
"""Far from the end of what an instant can be, so that a length can be added to it in any zone."""


def _clean(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which no channel can carry: remove it")
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise ValueError("holds half a character: write the whole one")
    return text


def _plain(text: str) -> str:
    if not text.isprintable() or text.isspace():
        raise ValueError("holds control or invisible characters: use printable ones")
    return text


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("holds a control character or a line break: write it in one line")
    return text


def _phone(text: str) -> str:
    number = number_of(text)
    if not re.fullmatch(r"\+[0-9]+", text) or number is None or not is_possible_number(number):
        raise ValueError("is not a phone number in E.164 form, such as +14155552671")
    return format_number(number, PhoneNumberFormat.E164)  # +4407… and +447… are one phone


@functools.lru_cache(maxsize=8192)
def number_of(phone: str) -> PhoneNumber | None:
    """A phone number taken apart; None if it is none. Kept, for it is asked when a request comes and when it is due."""
    try:
        return parse(phone)
    except NumberParseException:
        return None


def _email(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if _PLAIN_LOCAL.fullmatch(local) and len(text) <= _LONGEST_EMAIL and (normalized := _domain(domain)):
        return f"{local}@{normalized}"
    return _email_whole(text)


@functools.lru_cache(maxsize=4096)
def _domain(domain: str) -> str | None:
    """A mail domain in its normal form; None where only a look at the whole address can say what is wrong."""
    try:
        return validate_email(f"a@{domain}", check_deliverability=False, test_environment=True).domain
    except EmailNotValidError:
        return None


def _email_whole(text: str) -> str:
    try:
        return validate_email(
            text, check_deliverability=False, allow_quoted_local=True, test_environment=True
        ).normalized
    except EmailNotValidError as error:
        why = re.split(r" ?[:(]", str(error))[0].rstrip(".")  # what follows quotes the address
        raise ValueError(f"is not a mail address: {why}") from None


def _zone(text: str) -> str:
    if text not in zone_names() or text == _NO_ZONE:
        raise ValueError("is not a time zone of the IANA database, such as Asia/Tokyo")
    return text


def _written(value: object) -> object:
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}", value):
        return value
    raise ValueError("must be a date and time in RFC 3339 form, such as 2026-11-22T08:00:00Z")


def _near(at: datetime) -> datetime:
    if not _FIRST <= at < _FAR:
        raise ValueError("must lie between the years 1970 and 2999")
    return at


def _distinct(channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
    if len(set(channels)) < len(channels):
        raise ValueError("names a channel twice")
    return channels


Text = Annotated[str, StringConstraints(min_length=1, strict=True), AfterValidator(_clean)]
Subject = Annotated[Text, StringConstraints(max_length=998), AfterValidator(_one_line)]
"""RFC 5322 2.1.1: no line is longer."""
Value = Annotated[str, StringConstraints(strict=True), AfterValidator(_clean)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, strict=True), AfterValidator(_plain)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=64, strict=True), AfterValidator(_plain)]
Phone = Annotated[str, StringConstraints(max_length=20, strict=True), AfterValidator(_phone)]
EmailAddress = Annotated[str, StringConstraints(max_length=320, strict=True), AfterValidator(_email)]
PushToken = Annotated[str, StringConstraints(min_length=1, max_length=4096, strict=True), AfterValidator(_plain)]
Zone = Annotated[str, StringConstraints(max_length=64, strict=True), AfterValidator(_zone)]
Locale = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35, strict=True)]
"""BCP 47."""
Channels = Annotated[tuple[Channel, ...], Field(min_length=1), AfterValidator(_distinct)]
Instant = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_near)]
URL = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048, strict=True)]
