"""Mail, handed to one relay over kept SMTP connections."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

import aiosmtplib
from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from providers import _contract
from providers._contract import (
    Channel,
    Dispatch,
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
)
from providers._mail import BAD_MAILBOX, Composer, Mail, Mailbox, parse_sender
from providers._names import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from aiosmtplib.response import SMTPResponse

SLOW_DOWN = frozenset({421, 450, 451, 452, 454})
"""Replies that mean later: shutting down, mailbox busy, local error, no storage, authentication failed for now."""

OUR_FAULT: Mapping[int, type[ProviderError]] = {
    530: Misconfigured,  # authentication required
    534: Misconfigured,  # authentication mechanism is too weak
    535: Misconfigured,  # authentication credentials invalid
    538: Misconfigured,  # encryption required for the mechanism
}
"""RFC 4954, 6: may answer any command."""

OF_SENDER: Mapping[int, type[ProviderError]] = {**OUR_FAULT, 550: Misconfigured, 553: Misconfigured}
"""To MAIL: the relay does not let us send as this sender."""

OF_RECIPIENT: Mapping[int, type[ProviderError]] = {
    **OUR_FAULT,
    550: Unreachable,  # mailbox unavailable
    551: Unreachable,  # user not local
    553: Unreachable,  # mailbox name not allowed
}
"""To RCPT (RFC 5321, 4.2.3), unless an enhanced status says that it is not about the mailbox."""

COMPLETED = range(200, 300)
START_INPUT = range(354, 355)

WORDS: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
    (aiosmtplib.SMTPConnectTimeoutError, "connect_timeout"),
    (TimeoutError, "timeout"),
)
"""What went wrong on the wire, the first that fits."""

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
_HELO = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,255}")
_LONGEST_BOUNCES = 37
"""Bytes before the @ of ``bounces``: with ``+`` and an attempt's id of 26 they are 64 (RFC 5321, 4.5.3.1.1)."""


class Settings(_contract.Settings):
    """A relay, how to speak to it, and who we are."""

    kind: Literal["smtp"] = "smtp"
    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` only for a relay on this machine, unless ``insecure`` is set."""
    insecure: bool = False
    """Let mail and password cross a network in the clear."""
    ca_file: FilePath | None = None
    """Authorities to trust instead of the system's."""
    username: str | None = None
    password: SecretStr | None = None
    sender: str
    """``Name <local@domain>`` or only the address."""
    bounces: str | None = None
    """``local@domain``, where bounces are taken in: each attempt's go to ``local+ATTEMPT@domain``. Default: to the
    sender."""
    helo: str | None = None
    """How we greet. Default: the sender's domain."""
    concurrency: int = Field(default=20, ge=1, le=1000)
    """How many connections at most, hence how many attempts at once in one process."""
    data_timeout: float = Field(default=300.0, gt=0, le=3600)
    """Seconds to wait after the final dot: RFC 5321, 4.5.3.2.6 asks for 600. What giving up early costs: RFC 1047."""
    max_uses: int = Field(default=100, ge=1)
    """Mails per connection."""
    max_age: float = Field(default=300.0, gt=0)
    """Seconds that a connection is used for."""
    idle_check: float = Field(default=10.0, ge=0)
    """A connection that was idle for longer, in seconds, is tested before it is used."""

    @field_validator("helo")
    @classmethod
    def _greets(cls, value: str | None) -> str | None:
        if value is not None and not _HELO.fullmatch(value):
            raise ValueError("must be this machine's name as mail servers see it, such as mail.example.com")
        return value

    @field_validator("sender")
    @classmethod
    def _mailbox(cls, value: str) -> str:
        try:
            _, mailbox = parse_sender(value)
        except ProviderError:
            raise ValueError("must be an address, or Name <address>") from None
        if not mailbox.local.isascii():
            raise ValueError("must be in ASCII before the @, for not every relay takes more")
        return value

    @field_validator("bounces")
    @classmethod
    def _extensible(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                mailbox = Mailbox.parse(value)
            except ProviderError:
                raise ValueError("must be an address and nothing else, such as bounces@m.example.com") from None
            if not mailbox.local.isascii() or len(mailbox.local) > _LONGEST_BOUNCES:
                raise ValueError(f"must be in ASCII and at most {_LONGEST_BOUNCES} long before the @")
        return value

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.security == "none" and not self.insecure and not _loopback(self.host):
            raise ValueError("security: none needs insecure: true, for the relay is not on this machine")
        return self


@dataclass(slots=True, eq=False)
class _Connection:
    """A logged-in connection to the relay."""

    client: aiosmtplib.SMTP
    born: float
    rested: float
    """Since when it has been idle; both by the loop's clock, in seconds."""
    uses: int = 0
    midway: bool = False
    """Was the last mail refused? RSET ends it before the next."""

    async def ask(self, *words: bytes) -> SMTPResponse:
        """One command and its reply."""
        return await self.client.execute_command(*words)

    def drop(self) -> None:
        """Cut it, at once."""
        transport = cast("asyncio.Transport | None", self.client.transport)
        if transport is not None:
            transport.abort()  # close() would wait for the peer's farewell under TLS
        self.client.close()


class _Pool:
    """Connections to the relay: kept while they are young, cut after any error, never reconnected."""

    def __init__(self, settings: Settings, helo: str) -> None:
        self._settings = settings
        self._helo = settings.helo or helo
        self._places = asyncio.Semaphore(settings.concurrency)
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._names = Names(settings.host, settings.port)

    async def take(self) -> _Connection:
        """A connection on which a mail may begin.

        Raises:
            ProviderError: there is none to be had.
        """
        await self._places.acquire()
        try:
            return await self._kept() or await self._connect()
        except BaseException:
            self._places.release()
            raise

    def give(self, connection: _Connection, *, clean: bool) -> None:
        """Hand it back after a mail. ``clean``: the relay answered everything that it was asked."""
        now = asyncio.get_running_loop().time()
        connection.uses += 1
        worn = connection.uses >= self._settings.max_uses or now - connection.born >= self._settings.max_age
        if clean and not worn and not self._closed and connection.client.is_connected:
            connection.rested = now
            self._idle.append(connection)
        else:
            self._drop(connection)
        self._places.release()

    async def close(self) -> None:
        """Say goodbye on idle connections, cut the others."""
        self._closed = True

        async def quit_politely(connection: _Connection) -> None:
            with suppress(aiosmtplib.SMTPException, OSError):
                await connection.client.quit(timeout=1)

        await asyncio.gather(*[quit_politely(connection) for connection in self._idle])
        self._idle.clear()
        for connection in [*self._all]:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.drop()
        self._all.discard(connection)

    async def _kept(self) -> _Connection | None:
        """The connection that was used last, if it still lives."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.client.is_connected and now - connection.born < self._settings.max_age:
                if not connection.midway and now - connection.rested < self._settings.idle_check:
                    return connection
                try:
                    if (await connection.ask(b"RSET")).code in COMPLETED:
                        connection.midway = False
                        return connection
                except (aiosmtplib.SMTPException, OSError):
                    pass  # the relay has forgotten it, which costs nothing
                except BaseException:
                    self._drop(connection)
                    raise
            self._drop(connection)
        return None

    async def _connect(self) -> _Connection:
        settings = self._settings
        if self._context is None and settings.security != "none":
            self._context = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ca_file)
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=self._helo,
            timeout=settings.timeout,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=self._context,
        )
        now = asyncio.get_running_loop().time()
        connection = _Connection(client, now, now)
        try:
            await self._names.addresses()  # the library asks again, on the loop's threads; a name that hangs stays here
            await client.connect()
            if settings.username is not None and settings.password is not None:
                await client.login(settings.username, settings.password.get_secret_value())
            elif client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except BaseException as failure:
            connection.drop()
            if isinstance(failure, Exception):
                # The library's exceptions quote the relay, and the relay may quote us.
                raise _before_text(failure) from None
            raise
        self._all.add(connection)
        return connection


class Provider:
    """An account at a relay."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset({Channel.EMAIL})
    dedupe_window: timedelta | None = None

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._clock = clock
        self._timeout = settings.timeout
        self._data_timeout = settings.data_timeout
        self._composer = Composer(settings.sender, clock)
        self._bounces = Mailbox.parse(settings.bounces) if settings.bounces else None
        self._pool = _Pool(settings, self._composer.sender.domain)

    async def open(self) -> None:
        """Nothing yet: connections are made when there is mail."""

    async def close(self) -> None:
        """Give back connections."""
        await self._pool.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Hand one mail to the relay and return its Message-ID."""
        if self._clock() >= dispatch.deadline:
            raise Unavailable("deadline")  # saves a connection
        mail = self._composer.compose(dispatch)
        connection: _Connection | None = None
        clean = False
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._pool.take()
                await self._begin(connection, mail, dispatch)
            if self._clock() >= dispatch.deadline:
                raise Unavailable("deadline")  # another worker may have it by now; the relay has no text yet
            await self._deliver(connection, mail)
            clean = True
        except (Throttled, Rejected, Unreachable, Misconfigured):
            if connection is not None:
                clean = connection.midway = True
            raise
        except ProviderError:
            raise
        except (aiosmtplib.SMTPException, OSError) as failure:
            raise _before_text(failure) from None
        finally:
            if connection is not None:
                self._pool.give(connection, clean=clean)
        return mail.reference

    async def _begin(self, connection: _Connection, mail: Mail, dispatch: Dispatch) -> None:
        """Everything up to the relay's leave to send the text."""
        sender = [f"FROM:<{self._sender(dispatch.attempt)}>"]
        recipient = [f"TO:<{mail.recipient}>"]
        if not mail.recipient.local.isascii():
            if not connection.client.supports_extension("smtputf8"):
                # Another relay may know how, so the address is not condemned.
                raise Rejected("smtputf8", "the relay cannot write to this address")
            sender += ["SMTPUTF8", "BODY=8BITMIME"]
        if connection.client.supports_extension("dsn"):
            sender += ["RET=HDRS", f"ENVID={dispatch.attempt}"]
            recipient += ["NOTIFY=FAILURE,DELAY"]
        if self._clock() >= dispatch.deadline:
            raise Unavailable("deadline")
        _demand(await connection.ask(b"MAIL", " ".join(sender).encode()), OF_SENDER)
        _demand(await connection.ask(b"RCPT", " ".join(recipient).encode()), OF_RECIPIENT)
        _demand(await connection.ask(b"DATA"), OUR_FAULT, START_INPUT)

    def _sender(self, attempt: str) -> Mailbox:
        """Where a bounce of this attempt goes: the address tells whose it is, however little else the bounce says."""
        if self._bounces is None:
            return self._composer.sender
        return replace(self._bounces, local=f"{self._bounces.local}+{attempt}")

    async def _deliver(self, connection: _Connection, mail: Mail) -> None:
        """The text and its final dot. From here on, no answer means that it may have been delivered."""
        protocol = connection.client.protocol
        if protocol is None:
            raise Unavailable("reset")
        protocol.write(mail.data + b".\r\n")
        try:
            response = await protocol.read_response(timeout=self._data_timeout)
        except TimeoutError:
            raise Unconfirmed("timeout") from None
        except (aiosmtplib.SMTPException, OSError):
            raise Unconfirmed("reset") from None
        if not 400 <= response.code < 600 and response.code not in COMPLETED:  # noqa: PLR2004  (no reply to data)
            raise Unconfirmed("bad_reply")
        _demand(response, OUR_FAULT)


def _demand(response: SMTPResponse, table: Mapping[int, type[ProviderError]], wanted: range = COMPLETED) -> None:
    """Go on if the relay answered as wanted. What it says beside the code may quote an address and goes no further."""
    code = response.code
    if code in wanted:
        return
    enhanced = found[0] if (found := _ENHANCED.match(response.message)) else ""
    kind: type[ProviderError] = Unavailable
    if code in SLOW_DOWN:
        kind = Throttled
    elif 500 <= code < 600:  # noqa: PLR2004  (the permanent ones)
        kind = table.get(code, Rejected)
        if kind is Unreachable and enhanced and enhanced not in BAD_MAILBOX:
            kind = Rejected
    raise kind(f"smtp_{code}", enhanced)


def _before_text(failure: Exception) -> ProviderError:
    """What a failure before the text means. Nothing was sent."""
    if isinstance(failure, aiosmtplib.SMTPResponseException):
        code = failure.code
        if code in SLOW_DOWN:
            return Throttled(f"smtp_{code}")
        refused = isinstance(failure, aiosmtplib.SMTPAuthenticationError) and code >= 500  # noqa: PLR2004
        return (Misconfigured if refused else Unavailable)(f"smtp_{code}" if code > 0 else "bad_reply")
    for cause in (failure, failure.__cause__):
        for kind, word in WORDS:
            if isinstance(cause, kind):
                return Unavailable(word)
    if isinstance(failure, OSError):
        return Unavailable("refused" if isinstance(failure, aiosmtplib.SMTPConnectError) else "reset")
    return Misconfigured("unsupported", "the relay offers no STARTTLS, or no way to log in")


def _loopback(host: str) -> bool:
    """Is it certainly this machine?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
