"""A mail relay (RFC 5321) that takes only well-formed mail (RFC 5322), on aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.vendors.steering import action

if TYPE_CHECKING:
    import ssl

    from tests.vendors.ledger import Ledger

ONCE = (b"from", b"date", b"to", b"message-id", b"subject", b"mime-version", b"content-type")
"""RFC 5322, 3.6: not more than once each; and our mails have all of them."""


@dataclass(frozen=True)
class Accepted:
    """One mail, envelope and all."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Relay:
    """Serves mail; also aiosmtpd's handler."""

    name = "smtp"

    def __init__(
        self,
        ledger: Ledger,
        *,
        delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        login: tuple[str, str] | None = None,
        utf8: bool = False,
        keep: bool = True,
    ) -> None:
        self.ledger = ledger
        self.mails: list[Accepted] = []
        self.commands: list[str] = []
        """What the handler saw, in order: EHLO, RSET, MAIL, RCPT, DATA, QUIT."""
        self.connections = 0
        self._delay = delay
        self._tls = tls
        self._implicit = implicit
        self._login = login
        self._utf8 = utf8
        self._keep = keep
        self._sessions: set[SMTP] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._session, "127.0.0.1", port, ssl=self._tls if self._implicit else None, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0)
        for session in [*self._sessions]:
            if session.transport is not None:
                session.transport.abort()
            task = session._handler_coroutine
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def _session(self) -> SMTP:
        options: dict[str, Any] = {}
        if self._tls is not None and not self._implicit:
            options |= {"tls_context": self._tls, "require_starttls": True}
        if self._login is not None:
            # aiosmtpd does not notice TLS from the first byte on; handle_MAIL asks for the login there.
            explicit = not self._implicit
            options |= {"authenticator": self._authenticate, "auth_required": explicit, "auth_require_tls": explicit}
        session = SMTP(self, hostname="relay.test", enable_SMTPUTF8=self._utf8, ident="relay", **options)
        self._sessions = {known for known in self._sessions if known.transport is not None or known is session}
        self._sessions.add(session)
        self.connections += 1
        return session

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = self._login == (data.login.decode(), data.password.decode())
        return AuthResult(success=good, handled=False)

    def _note(self, command: str) -> None:
        if self._keep:
            self.commands.append(command)

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self._note("EHLO")
        session.host_name = hostname
        return responses

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self._note("RSET")
        return "250 2.0.0 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self._note("QUIT")
        return "221 2.0.0 Bye"

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._note("MAIL")
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._note("RCPT")
        word = action(address)
        if word in {"lost-silence", "lost-reset"}:
            await self._vanish(server, word)
        if word.startswith("rcpt-"):
            _, code, *enhanced = word.split("-")
            return " ".join([code, *enhanced, f"no mail for {address}"])
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self._note("DATA")
        content = envelope.original_content or b""
        if fault := flaw(content, utf8=envelope.smtp_utf8):
            return f"554 5.6.0 {fault}"
        if self._delay:
            await asyncio.sleep(self._delay)
        recipient = envelope.rcpt_tos[0]
        word = action(recipient)
        if word.startswith("data-"):
            _, code, *enhanced = word.split("-")
            return " ".join([code, *enhanced, f"not for {recipient}"])
        headers = content.partition(b"\r\n\r\n")[0]
        self.ledger.add(
            "smtp",
            "email",
            recipient,
            attempt=_header(headers, b"X-Decorum-Attempt"),
            message=_header(headers, b"Message-ID").strip("<>").partition("@")[0],
            reference=_header(headers, b"Message-ID"),
            text=None,
        )
        if self._keep:
            self.mails.append(Accepted(envelope.mail_from or "", tuple(envelope.rcpt_tos), content))
        if word in {"silence", "reset"}:
            await self._vanish(server, word)
        return f"250 2.0.0 queued as {time.monotonic_ns():x}"

    async def _vanish(self, server: SMTP, word: str) -> None:
        if word.endswith("reset"):
            server.transport.abort()
        await asyncio.Event().wait()  # aiosmtpd cancels this when the client leaves


def flaw(content: bytes, *, utf8: bool) -> str | None:
    """The first thing wrong with a mail."""
    if re.search(rb"\r(?!\n)|(?<!\r)\n", content):
        return "bare CR or LF"
    lines = content.split(b"\r\n")
    if max(map(len, lines)) > 998:
        return "line too long"
    head, _, _ = content.partition(b"\r\n\r\n")
    if not utf8 and not head.isascii():
        return "header not ASCII"
    names = [name.lower() for name in re.findall(rb"(?m)^([!-9;-~]+):[ \t]", head)]
    if len(names) != len([line for line in head.split(b"\r\n") if line[:1] not in b" \t"]):
        return "not a header"
    if missing := [name for name in ONCE if names.count(name) != 1]:
        return f"{missing[0].decode()} not exactly once"
    return None


def _header(headers: bytes, name: bytes) -> str:
    found = re.search(rb"(?mi)^" + name + rb":[ \t]*(.*?)\r?$", headers)
    return found[1].decode() if found else ""
