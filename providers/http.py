"""Any vendor that takes one HTTP request per message, described in YAML instead of code.

The body is a template: ``{address}``, ``{text}`` and the other ``PLACEHOLDERS`` are replaced inside its strings, ``{{``
and ``}}`` stand for braces, nothing else is special. A JSON string that is only ``{valid_seconds}`` becomes a number.
"""

from __future__ import annotations

import re
from datetime import timedelta
from http import HTTPStatus
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self
from urllib.parse import quote_plus

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    field_validator,
    model_validator,
)
from yarl import URL

from providers import _contract
from providers._contract import (
    Callback,
    Channel,
    Content,
    Dispatch,
    Email,
    Misconfigured,
    News,
    ProviderError,
    Push,
    Receipt,
    ReceiptStatus,
    Rejected,
    Robocall,
    Sms,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from providers._document import Place, at, path_of, word
from providers._duration import duration
from providers._http import Client, check_header, document, error, kind_of, text
from providers._reporting import Callbacks, Reporting, words
from providers._segments import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

ACCEPTED: Literal["accepted"] = "accepted"

KINDS: Mapping[str, type[ProviderError]] = {
    "unavailable": Unavailable,
    "throttled": Throttled,
    "unconfirmed": Unconfirmed,
    "rejected": Rejected,
    "unreachable": Unreachable,
    "misconfigured": Misconfigured,
}
"""What a status may be said to mean, besides ``accepted``."""

_OF_DISPATCH: Mapping[str, Callable[[Dispatch], str | None]] = {
    name: attrgetter(name)
    for name in ("address", "attempt", "message", "callback_url", "unsubscribe_url", "locale", "platform")
}

_OF_CONTENT: Mapping[str, Mapping[type[object], str]] = {
    "text": {Sms: "text", Email: "text", Push: "body", Robocall: "say"},
    "title": {Push: "title", Email: "subject"},
    "subject": {Email: "subject"},
    "html": {Email: "html"},
    "image": {Push: "image"},
    "language": {Robocall: "language"},
    "audio_url": {Robocall: "audio_url"},
}
"""Placeholder → the field that it stands for in each content. Empty where the content has none."""

VALID_SECONDS = "valid_seconds"

PLACEHOLDERS = frozenset({*_OF_DISPATCH, *_OF_CONTENT, VALID_SECONDS})

_REFERENCE = "{attempt}"

_CALLBACK_URL = "callback_url"

_TOKEN = re.compile(r"\{\{|\}\}|\{([a-z_]*)\}|[{}]")

_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")


def _web(value: str) -> str:
    url = URL(value)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must be an http or https address")
    return value


class LookUp(BaseModel):
    """Where the vendor tells what became of a message, by our reference, and what its answer means."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    """``{attempt}`` in it is our reference. It is asked for by GET, with the headers of every request."""
    reply: dict[Literal["status", "reference", "code"], Place]
    """Where in its JSON answer, as ``a.0.c``: the vendor's word for what became of it; its id; its error code."""
    statuses: dict[str, Literal["accepted", "delivered", "undelivered", "unreachable"]] = Field(min_length=1)
    """The vendor's words. Others change nothing."""

    @field_validator("url")
    @classmethod
    def _names_it(cls, value: str) -> str:
        if value.count(_REFERENCE) != 1 or {"{", "}"} & set(value.replace(_REFERENCE, "")):
            raise ValueError("must have {attempt} where our reference belongs, and no other brace")
        return _web(value.replace(_REFERENCE, "0")) and value

    @field_validator("reply")
    @classmethod
    def _tells(cls, value: dict[str, str]) -> dict[str, str]:
        if "status" not in value:
            raise ValueError("must say where the status is: {status: data.state}")
        return value

    @field_validator("statuses", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)


class Settings(_contract.Settings):
    """A vendor's request and what its answers mean."""

    kind: Literal["http"] = "http"
    channels: frozenset[Channel] = Field(min_length=1)
    url: str
    method: Literal["POST", "PUT"] = "POST"
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Sent with every request. Any of them may be a secret, so all are kept as one."""
    body: dict[str, JsonValue] = Field(repr=False)
    """The template. Not printed: some vendors want their key in it."""
    encoding: Literal["json", "form"] = "json"
    reply: dict[Literal["reference"], Place] = Field(default_factory=dict)
    """``reference``: where the vendor's id is in its JSON reply, as ``a.b.c``. Without it the status alone decides."""
    statuses: Annotated[
        dict[
            str,
            Literal["accepted", "unavailable", "throttled", "unconfirmed", "rejected", "unreachable", "misconfigured"],
        ],
        BeforeValidator(words),
    ] = Field(default_factory=dict)
    """``"404"`` or ``"4xx"`` → what it means. The common meaning holds for what is not listed."""
    pace_in: Literal["messages", "segments"] = "messages"
    """What the vendor counts of a text message: ``pace`` is in the same."""
    idempotency_header: str | None = None
    """The header in which the vendor takes the message's id and never acts on one twice …"""
    idempotency_window: Annotated[timedelta, BeforeValidator(duration)] | None = None
    """… for this long."""
    look_up: LookUp | None = None
    """How the vendor is asked what became of a message. None: it cannot be."""
    callbacks: Callbacks | None = None
    """How the vendor reports by itself. None: it does not."""

    def units(self, content: Content) -> int:
        """As the vendor counts."""
        return segments(content.text) if self.pace_in == "segments" and isinstance(content, Sms) else 1

    @field_validator("url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return _web(value)

    @field_validator("headers")
    @classmethod
    def _printable(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            check_header(name)
            if not secret.get_secret_value().isprintable():
                raise ValueError(f"the value of {name} holds a control character")
        return value

    @field_validator("idempotency_header")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None:
            check_header(value)
        return value

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for status in value:
            if not _STATUS.fullmatch(status):
                raise ValueError(f"{status!r} is neither a status like 404 nor a class like 4xx")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = _compile(self.body, self.encoding)
        if (self.idempotency_header is None) != (self.idempotency_window is None):
            raise ValueError("idempotency_header and idempotency_window go together")
        told = {name for _, name in parts}
        if self.look_up and not {"attempt", _CALLBACK_URL} & told:
            raise ValueError(
                "look_up finds nothing: put {attempt} into body, where the vendor keeps a reference of ours"
            )
        if self.callbacks and "attempt" not in self.callbacks.fields and _CALLBACK_URL not in told:
            raise ValueError(
                "callbacks name no attempt: put {callback_url} into body, or {attempt}, and say under callbacks.fields "
                "where the vendor returns it"
            )
        return self


class Provider:
    """A vendor as its ``Settings`` describe it."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset(Channel)

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self.dedupe_window: timedelta | None = settings.idempotency_window
        self._clock = clock
        self._url = URL(settings.url)
        self._method = settings.method
        self._key_header = settings.idempotency_header
        self._path = path_of(settings.reply["reference"]) if settings.reply else ()
        self._look_up = settings.look_up
        self._reporting = Reporting(settings.callbacks, clock) if settings.callbacks else None
        self._meaning = _meanings(settings.statuses)
        self._parts = _compile(settings.body, settings.encoding)
        self._escape = _json if settings.encoding == "json" else _form
        content_type = "application/json" if settings.encoding == "json" else "application/x-www-form-urlencoded"
        per_call = (settings.idempotency_header or "").lower()
        headers = {
            name: secret.get_secret_value() for name, secret in settings.headers.items() if name.lower() != per_call
        }
        self._client = Client(settings.timeout, settings.concurrency, {"Content-Type": content_type, **headers}, clock)

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        await self._client.open()

    async def close(self) -> None:
        """Give back connections."""
        await self._client.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Fill the template and send it."""
        reply = await self._client.call(
            self._url,
            self._fill(dispatch),
            deadline=dispatch.deadline,
            headers={self._key_header: dispatch.key} if self._key_header else None,
            method=self._method,
        )
        kind = self._meaning.get(reply.status, Unconfirmed)
        if kind is not None:
            raise error(kind, f"http_{reply.status}", reply, self._clock())
        if not self._path:
            return dispatch.attempt
        return text(at(document(reply), self._path))

    @property
    def can_look_up(self) -> bool:
        """Whether it is configured so."""
        return self._look_up is not None

    async def look_up(self, attempt: str) -> Receipt | None:
        """Ask for the attempt, and read the answer as it is described. 404: the vendor knows nothing of it."""
        look_up = self._look_up
        if look_up is None:
            return None
        now = self._clock()
        deadline = now + timedelta(seconds=self._client.timeout)
        reply = await self._client.get(URL(look_up.url.replace(_REFERENCE, attempt)), deadline=deadline)
        if reply.status == HTTPStatus.NOT_FOUND:
            return None
        if not reply.ok:
            raise error(kind_of(reply.status), f"http_{reply.status}", reply, now)
        found = document(reply)
        said = {name: word(at(found, path_of(path))) for name, path in look_up.reply.items()}
        if (raw := said["status"]) is None:
            return None
        status = ReceiptStatus(look_up.statuses.get(raw, ReceiptStatus.OTHER))
        return Receipt(attempt, status, said.get("reference") or attempt, raw, said.get("code"))

    @property
    def calls_back(self) -> bool:
        """Whether its callbacks are described."""
        return self._reporting is not None

    def receipts(self, callback: Callback) -> tuple[News, ...]:
        """The news in a callback, as it is described."""
        return self._reporting.read(callback) if self._reporting else ()

    def _fill(self, dispatch: Dispatch) -> bytes:
        """The request's body."""
        escape = self._escape
        content = dispatch.content
        kind = type(content)
        out = []
        for literal, name in self._parts:
            out.append(literal)
            if name is None:
                continue
            if name == VALID_SECONDS:
                out.append(b"%d" % dispatch.seconds_valid(self._clock()))
            elif read := _OF_DISPATCH.get(name):
                value = read(dispatch) or ""
                out.append(
                    escape(self._reporting.address(value) if self._reporting and name == _CALLBACK_URL else value)
                )
            elif attribute := _OF_CONTENT[name].get(kind):
                out.append(escape(getattr(content, attribute) or ""))
        return b"".join(out)


_Parts = tuple[tuple[bytes, str | None], ...]
"""Bytes as they are, each followed by the placeholder that comes next; None at the end."""


def _json(value: str) -> bytes:
    try:
        return orjson.dumps(value)[1:-1]
    except orjson.JSONEncodeError:
        raise Rejected("bad_text", "holds half a surrogate pair") from None


def _form(value: str) -> bytes:
    try:
        return quote_plus(value).encode()
    except UnicodeEncodeError:
        raise Rejected("bad_text", "holds half a surrogate pair") from None


def _compile(template: dict[str, JsonValue], encoding: str) -> _Parts:
    """The template as bytes and placeholders.

    Raises:
        ValueError: a placeholder is unknown, a brace stands alone, or a form is nested.
    """
    # The template is written out once, with marks that cannot occur in it, and then cut at the marks.
    if encoding == "json":
        marked = orjson.dumps(_mark(template)).replace(b'"\\u0000%b\\u0000"' % VALID_SECONDS.encode(), _MARKED_NUMBER)
    else:
        pairs = []
        for key, value in template.items():
            _plain(key)
            if isinstance(value, dict | list) or value is None:
                raise ValueError(f"body.{key} must be one value: a form is flat")
            word = str(value).lower() if isinstance(value, bool) else str(value)
            pairs.append(f"{quote_plus(key)}={quote_plus(_mark_text(word)).replace('%00', chr(0))}")
        marked = "&".join(pairs).encode().replace(b"\0", b"\\u0000")
    pieces = marked.split(b"\\u0000")
    names = [piece.decode() for piece in pieces[1::2]]
    return tuple(zip(pieces[::2], [*names, None], strict=True))


_MARKED_NUMBER = b"\\u0000%b\\u0000" % VALID_SECONDS.encode()


def _mark(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return _mark_text(value)
        case list():
            return [_mark(item) for item in value]
        case dict():
            return {_plain(key): _mark(item) for key, item in value.items()}
        case _:
            return value


def _plain(key: str) -> str:
    if _TOKEN.search(key) or _mark_text(key) != key:
        raise ValueError(f"body.{key}: placeholders are for values")
    return key


def _mark_text(value: str) -> str:
    if "\0" in value or "\\u0000" in value:
        raise ValueError("body holds a NUL")  # the mark

    def mark(found: re.Match[str]) -> str:
        if found[0] in {"{{", "}}"}:
            return found[0][0]
        if found[1] is None:
            raise ValueError("a brace in body stands alone; write {{ or }} for one")
        if found[1] not in PLACEHOLDERS:
            raise ValueError(f"{found[0]} in body is unknown; there are: {', '.join(sorted(PLACEHOLDERS))}")
        return f"\0{found[1]}\0"

    return _TOKEN.sub(mark, value)


def _meanings(statuses: Mapping[str, str]) -> Mapping[int, type[ProviderError] | None]:
    """Every status → its error, or None where it means accepted."""
    found: dict[int, type[ProviderError] | None] = {}
    for status in range(HTTPStatus.OK, 600):
        word = statuses.get(str(status)) or statuses.get(f"{status // 100}xx")
        if word is None:
            found[status] = None if status < HTTPStatus.MULTIPLE_CHOICES else kind_of(status)
        else:
            found[status] = None if word == ACCEPTED else KINDS[word]
    return found
