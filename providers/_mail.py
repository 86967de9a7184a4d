"""Mail as it goes over the wire: what a content's mails have in common is written once, per person only a header."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import idna

from providers._contract import Dispatch, Email, Rejected, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

MAX_LINE = 998
"""Bytes without CRLF (RFC 5322, 2.1.1)."""

BOUNDARY = "=_decorum"
"""Base64 has no underscore, so it cannot occur in a part."""

ATTEMPT_FIELD = "X-Decorum-Attempt"
"""The field that names the attempt in every mail. A bounce returns it, where it returns anything."""

BAD_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""Enhanced statuses that condemn the mailbox (RFC 3463, 3.2 and 3.3; RFC 7505): the rest is policy, ours or theirs."""

CACHED_CONTENTS = 32
"""How many contents are kept assembled: a campaign's are all alike, and at 256 KB each this bounds the memory."""

_SENDER = re.compile(r"(?:(.*?)\s*<([^<>]*)>|([^<>]*))")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ATOM = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a0-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a0-\U0010ffff-]+)*"
)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*|\[[0-9A-Fa-f:.IPv]+\]")
_PLAIN = re.compile(r"[\x20-\x7e]{0,900}")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address in its two halves."""

    local: str
    domain: str
    """As the network knows it, in ASCII."""

    @classmethod
    def parse(cls, address: str) -> Self:
        """Take an address apart.

        Raises:
            Rejected: it holds a control character, and would end the line that it stands in.
            Unreachable: no mailbox can have it.
        """
        if _CONTROLS.search(address):
            raise Rejected("control_character")
        local, _, domain = address.rpartition("@")
        try:
            domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
            size = len(local.encode())
        except (idna.IDNAError, UnicodeError):
            raise Unreachable("bad_address") from None
        # RFC 5321, 4.5.3.1.1. Quoted local parts are legal and refused: nobody has one, and they hide second addresses.
        if size > 64 or not _ATOM.fullmatch(local) or not _DOMAIN.fullmatch(domain):  # noqa: PLR2004
            raise Unreachable("bad_address")
        return cls(local, domain)

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Mail:
    """One person's mail, ready for the wire."""

    reference: str
    recipient: Mailbox
    data: bytes
    """With CRLF line ends and doubled dots, without the final one."""


class Composer:
    """Writes mails. What depends on the content alone is assembled once."""

    def __init__(self, sender: str, clock: Callable[[], datetime]) -> None:
        name, self.sender = parse_sender(sender)
        self._from = f"From: {_phrase(name)}<{self.sender}>\r\n"
        self._clock = clock
        self._date = (0, "")
        self._rest = lru_cache(CACHED_CONTENTS)(assemble)

    def compose(self, dispatch: Dispatch) -> Mail:
        """The mail for one person. Its Message-ID is the same in every repeat.

        Raises:
            Rejected: something in it would break out of its header.
            Unreachable: the address cannot be one.
        """
        if not isinstance(dispatch.content, Email):
            raise Rejected("wrong_channel")
        recipient = Mailbox.parse(dispatch.address)
        reference = f"<{dispatch.message}@{self.sender.domain}>"
        head = (
            f"Date: {self._now()}\r\n{self._from}To: <{recipient}>\r\nMessage-ID: {reference}\r\n"
            f"{ATTEMPT_FIELD}: {dispatch.attempt}\r\n"
        )
        if dispatch.unsubscribe_url:
            head += _unsubscribe(dispatch.unsubscribe_url)
        try:
            return Mail(reference, recipient, head.encode() + self._rest(dispatch.content))
        except UnicodeEncodeError:
            raise Rejected("bad_text", "holds half a surrogate pair") from None

    def _now(self) -> str:
        """The date, written once a second."""
        now = self._clock()
        second = int(now.timestamp())
        if self._date[0] != second:
            self._date = (second, format_datetime(now))
        return self._date[1]


def parse_sender(sender: str) -> tuple[str, Mailbox]:
    """Display name, maybe empty, and address, out of ``Name <local@domain>`` or the address alone.

    Raises:
        ProviderError: it is neither.
    """
    found = _SENDER.fullmatch(sender)
    if found is None:
        raise Unreachable("bad_address")
    name = found[1] or ""
    if _CONTROLS.search(name):
        raise Rejected("control_character")
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, Mailbox.parse(found[2] if found[3] is None else found[3])


def assemble(content: Email) -> bytes:
    """All that a content's mails have in common: the rest of the header, and the body.

    Raises:
        Rejected: the subject holds a control character.
    """
    if _CONTROLS.search(content.subject):
        raise Rejected("control_character")
    head = f"Subject: {_unstructured(content.subject)}\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
    parts = [
        f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n\r\n'.encode()
        + _lines(body)
        for kind, body in (("plain", content.text), ("html", content.html))
        if body is not None
    ]
    if not parts:
        raise Rejected("empty")
    if len(parts) == 1:
        return head.encode() + parts[0]
    line = f"--{BOUNDARY}"
    head += f'Content-Type: multipart/alternative; boundary="{BOUNDARY}"\r\n\r\n'
    return head.encode() + b"".join(f"{line}\r\n".encode() + part for part in parts) + f"{line}--\r\n".encode()


def _lines(text: str) -> bytes:
    """Base64 in lines of 76 (RFC 2045, 6.8), of the text with CRLF line ends. No line can begin with a dot."""
    canonical = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").encode()
    encoded = base64.b64encode(canonical)
    return b"".join([encoded[at : at + 76] + b"\r\n" for at in range(0, len(encoded), 76)])


def _unstructured(text: str) -> str:
    """A header's free text: as it is where that is plain, else as encoded words (RFC 2047), each whole in itself."""
    if _PLAIN.fullmatch(text) and "=?" not in text:
        return text
    # 45 bytes are 60 in base64, and 72 with what stands around them: an encoded word may have 75.
    words, word = [], b""
    for character in text:
        encoded = character.encode()
        if len(word) + len(encoded) > 45:  # noqa: PLR2004
            words.append(word)
            word = b""
        word += encoded
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word).decode()}?=" for word in [*words, word])


def _phrase(name: str) -> str:
    """A display name, quoted, with the space that follows it."""
    if not name:
        return ""
    if not name.isascii() or "=?" in name or len(name) > 200:  # noqa: PLR2004  (encoded words are folded)
        return _unstructured(name) + " "
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '" '


def _unsubscribe(url: str) -> str:
    """RFC 2369; one click by RFC 8058, 3.1, which wants https."""
    if not re.fullmatch(r"https?://[!#-;=?-\[\]_a-z~%]+", url, re.IGNORECASE) or len(url) > MAX_LINE - 20:
        raise Rejected("bad_unsubscribe_url")
    header = f"List-Unsubscribe: <{url}>\r\n"
    one_click = url[:8].lower() == "https://"
    return f"{header}List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if one_click else header
