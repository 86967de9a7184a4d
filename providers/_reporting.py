"""What a vendor's callback says, as YAML describes it: how it is signed, and where in it which news stands."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from providers._contract import (
    Act,
    Acted,
    Agent,
    Doubt,
    Forged,
    News,
    Receipt,
    ReceiptStatus,
    Unread,
    Unreadable,
)
from providers._document import Place, at, path_of, word
from providers._duration import duration
from providers._http import check_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from providers._contract import Callback

ACTS: Mapping[str, tuple[Act, Agent]] = {
    "opened": (Act.OPENED, Agent.HUMAN),
    "clicked": (Act.CLICKED, Agent.HUMAN),
    "answered": (Act.ANSWERED, Agent.HUMAN),
    "opened_by_machine": (Act.OPENED, Agent.MACHINE),
    "clicked_by_machine": (Act.CLICKED, Agent.MACHINE),
    "answered_by_machine": (Act.ANSWERED, Agent.MACHINE),
}
"""What a vendor's word may be said to mean, where it is no status."""

MOST = 1000
"""Events in one callback."""

_ATTEMPT = re.compile(r"[0-9a-z]{26}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PART = re.compile(r"\{(body|timestamp|url)\}|[{}]")
_MILLISECONDS = 10**11
"""So many seconds are the year 5138: a larger number counts milliseconds."""


def words(value: object) -> object:
    """YAML reads an unquoted 404 as a number."""
    return {str(key): meaning for key, meaning in value.items()} if isinstance(value, dict) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Signature(_Part):
    """How the vendor signs: an HMAC over what is sent, in a header."""

    header: str
    secret: SecretStr = Field(min_length=1)
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    """Before it in the header, such as ``sha256=``."""
    payload: str = "{body}"
    """What is signed: ``{body}`` as it came, ``{timestamp}`` as its header has it, ``{url}``."""
    timestamp_header: str | None = None
    """Seconds or milliseconds since 1970."""
    tolerance: Annotated[timedelta, BeforeValidator(duration)] = timedelta(minutes=5)
    """How old it may be, or ahead of our clock."""

    @field_validator("header", "timestamp_header")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None:
            check_header(value)
        return value

    @field_validator("payload")
    @classmethod
    def _signs(cls, value: str) -> str:
        parts = [found[1] for found in _PART.finditer(value)]
        if None in parts:
            raise ValueError("may have {body}, {timestamp} and {url}, and no other brace")
        if parts.count("body") != 1:
            raise ValueError("must have {body} once: what is not signed anybody may have written")
        return value

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if ("{timestamp}" in self.payload) != (self.timestamp_header is not None):
            raise ValueError(
                "timestamp_header and {timestamp} in payload go together: a time that is not signed is none"
            )
        return self

    def verify(self, callback: Callback, now: datetime) -> None:
        """Hold a callback against it.

        Raises:
            Forged: it does not hold, or its time is not now.
        """
        named = (self.header, self.timestamp_header or self.header)
        if not all(callback.headers.get(name.lower()) for name in named):
            raise Forged(Doubt.MISSING_HEADER)
        timestamp = callback.headers.get((self.timestamp_header or "").lower(), "")
        parts = {"body": callback.body, "timestamp": _raw(timestamp), "url": _raw(callback.url)}
        pieces = _PART.split(self.payload)
        signed = b"".join(parts[piece] if at % 2 else piece.encode() for at, piece in enumerate(pieces))
        digest = hmac.digest(self.secret.get_secret_value().encode(), signed, getattr(hashlib, self.algorithm))
        expected = digest.hex().encode() if self.encoding == "hex" else b64encode(digest)
        given = _raw(callback.headers.get(self.header.lower(), ""))
        # As hexadecimal digits may be written either way.
        code = given[len(self.prefix) :].lower() if self.encoding == "hex" else given[len(self.prefix) :]
        if not hmac.compare_digest(code, expected) or not given.startswith(self.prefix.encode()):
            raise Forged(Doubt.SIGNATURE)
        if self.timestamp_header and (doubt := _untimely(timestamp, now, self.tolerance)):
            raise Forged(doubt)


class Callbacks(_Part):
    """What a vendor reports to ``{callback_url}``, and how it is known to be the vendor."""

    signature: Signature | None = None
    unsigned: bool = False
    """Written by whoever knows that this vendor signs nothing, and that whoever learns the address can lie …"""
    token: SecretStr | None = None
    """… and gives it an end that nobody guesses: ``{callback_url}`` has it, ``/callbacks/NAME/TOKEN``."""
    each: Place | None = None
    """Where the list of events is, as ``a.b``. None: the body is one event, or a list of them."""
    fields: dict[Literal["status", "attempt", "reference", "code"], Place]
    """Where in an event, as ``a.0.c``: the vendor's word for what happened; our reference, unless the callback's
    address names it; the vendor's id; its error code. A form is flat: there it is a field's name."""
    statuses: Annotated[
        dict[str, Literal["accepted", "delivered", "undelivered", "unreachable"]], BeforeValidator(words)
    ] = Field(default_factory=dict)
    """The vendor's words. Others are kept, and change nothing."""
    acts: Annotated[
        dict[
            str,
            Literal["opened", "clicked", "answered", "opened_by_machine", "clicked_by_machine", "answered_by_machine"],
        ],
        BeforeValidator(words),
    ] = Field(default_factory=dict)
    """Of its words those that tell what was done with a message."""

    @field_validator("fields")
    @classmethod
    def _tells(cls, value: dict[str, str]) -> dict[str, str]:
        if "status" not in value:
            raise ValueError("must say where the status is: {status: event.type}")
        return value

    @field_validator("token")
    @classmethod
    def _unguessable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("must be 16 to 128 of A-Z, a-z, 0-9, _ and -: make one with openssl rand -hex 24")
        return value

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not self.statuses and not self.acts:
            raise ValueError("says nothing: name the vendor's words under statuses or acts")
        if self.signature is None and not (self.unsigned and self.token):
            raise ValueError(
                "anybody could report: say how the vendor signs (signature); if it does not, write unsigned: true, and "
                "give the address an end that nobody guesses (token)"
            )
        if self.signature and self.unsigned:
            raise ValueError("is either signed or unsigned: remove one of the two")
        return self


class Reporting:
    """A vendor's callbacks, as ``Callbacks`` describe them."""

    def __init__(self, described: Callbacks, clock: Callable[[], datetime]) -> None:
        self._signature = described.signature
        self._token = described.token.get_secret_value() if described.token else ""
        self._each = path_of(described.each) if described.each else ()
        self._fields = dict(described.fields)
        self._statuses = described.statuses
        self._acts = described.acts
        self._clock = clock

    def address(self, url: str) -> str:
        """A callback's address, where there is one, with the end that nobody guesses."""
        if not self._token or not url:
            return url
        path, mark, query = url.partition("?")
        return f"{path}/{self._token}{mark}{query}"

    def read(self, callback: Callback) -> tuple[News, ...]:
        """Verify a callback, then parse it.

        Raises:
            Forged: it is not the vendor's.
            Unreadable: it is not in the form that it says.
            Unread: what is described is not in it.
        """
        end = urlsplit(callback.url).path.rpartition("/")[2]
        if self._token and not hmac.compare_digest(_raw(end), self._token.encode()):
            raise Forged(Doubt.WRONG_URL)
        if self._signature:
            self._signature.verify(callback, self._clock())
        flat = callback.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded")
        document = _form(callback.body) if flat else _json(callback.body)
        found = at(document, self._each)
        if found is None:
            raise Unread(Doubt.NO_EVENTS)
        events = found if isinstance(found, list) else [found]
        if len(events) > MOST:
            raise Unreadable(Doubt.TOO_MANY)
        told = [self._told(event, flat=flat) for event in events]
        news = tuple(one for said in told for one in self._news(said, callback))
        if events and not news:  # a mistake in the description would not be seen otherwise
            raise Unread(Doubt.NO_ATTEMPT if any(said["status"] for said in told) else Doubt.NO_STATUS)
        return news

    def _told(self, event: Any, *, flat: bool) -> dict[str, str | None]:
        """What an event has in each of the fields."""
        return {name: word(at(event, (place,) if flat else path_of(place))) for name, place in self._fields.items()}

    def _news(self, said: Mapping[str, str | None], callback: Callback) -> Iterator[News]:
        """One event's. Of a message that is not ours, or without a status, it is none."""
        attempt = said["attempt"] if "attempt" in said else callback.query.get("attempt")
        raw = said["status"]
        if raw is None or attempt is None or not _ATTEMPT.fullmatch(attempt):
            return
        if raw in self._acts:
            act, agent = ACTS[self._acts[raw]]
            yield Acted(attempt, act, agent, "vendor" if agent is Agent.MACHINE else None)
        if raw in self._statuses or raw not in self._acts:
            status = ReceiptStatus(self._statuses.get(raw, ReceiptStatus.OTHER))
            yield Receipt(attempt, status, said.get("reference") or attempt, raw, said.get("code"))


def _untimely(timestamp: str, now: datetime, tolerance: timedelta) -> Doubt | None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13):  # noqa: PLR2004  (milliseconds)
        return Doubt.NOT_A_TIME
    seconds = int(timestamp) / 1000 if int(timestamp) > _MILLISECONDS else int(timestamp)
    age, most = now.timestamp() - seconds, tolerance.total_seconds()
    return Doubt.TOO_OLD if age > most else Doubt.AHEAD if age < -most else None


def _raw(text: str) -> bytes:
    """As it came over the wire."""
    return text.encode(errors="surrogateescape")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unreadable(Doubt.NOT_JSON) from None


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=200))
    except ValueError:
        raise Unreadable(Doubt.NOT_A_FORM) from None
