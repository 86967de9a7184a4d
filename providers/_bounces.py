"""What does a mail that came back say of one of ours: a delivery status, a complaint, or nothing?

Pure, and never an exception, whatever the mail holds. Its parts are told apart here, a few levels deep: the standard
library's parser holds every line against the boundary of every level, and a mail may be made of levels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from providers._contract import Receipt, ReceiptStatus
from providers._mail import ATTEMPT_FIELD, BAD_MAILBOX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FAILED = "failed"

ACTIONS: Mapping[str, ReceiptStatus] = {
    FAILED: ReceiptStatus.UNDELIVERED,  # unless its status condemns the mailbox
    "delayed": ReceiptStatus.OTHER,  # still on its way
    "delivered": ReceiptStatus.DELIVERED,
    "relayed": ReceiptStatus.ACCEPTED,  # to where nobody reports from
    "expanded": ReceiptStatus.ACCEPTED,  # to several, of whom nobody reports
}
"""What was done about a recipient (RFC 3464, 2.3.3)."""

BEST_FIRST = (
    ReceiptStatus.DELIVERED,
    ReceiptStatus.ACCEPTED,
    ReceiptStatus.OTHER,
    ReceiptStatus.UNDELIVERED,
    ReceiptStatus.UNREACHABLE,
)
"""Each of our mails is to one address. Where a report names several recipients, that address leads to all of them, and
the best news of any is the news of it."""

COMPLAINTS = frozenset({"abuse", "fraud"})
"""Feedback types of a person who wants no more of it (RFC 5965, 7.3). ``virus`` is found by machines, ``other`` is not
said what, ``not-spam`` (RFC 6430) is the opposite, and ``auth-failure`` (RFC 6591) is about our domain."""

DELIVERY_STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
"""RFC 3464, 2.1, and RFC 6533, 5."""
FEEDBACK_REPORT = "message/feedback-report"
"""RFC 5965, 2."""

SENT_TO = ("delivered-to", "x-original-to", "envelope-to", "to")
"""The fields in which mail servers keep the address that a bounce was sent to, the surest first."""

OF_EXIM = "x-failed-recipients"
"""The field that marks Exim's bounces, which often are text and nothing else."""
OF_QMAIL = "Hi. This is the"
"""How the text of qmail's begins (The qmail-send Bounce Message Format, 2)."""
GIVEN_UP = "This is a permanent error"
"""What both say, unless they were made to say something else."""

_DEPTH = 3
"""Levels of parts that are looked into: a report is one, and who passes it on may wrap it."""
_PARTS = 8
"""Of one level: a report has three."""
_BLOCKS = 20
"""Of one delivery status: one for the mail, and one for each recipient."""

_ID = "[0-9a-z]{26}"
_ANY_CASE = re.ASCII | re.IGNORECASE
_CODE = r"([245]\.[0-9]{1,3}\.[0-9]{1,3})\b"
_IN_ADDRESS = re.compile(f"(?<![0-9a-z])({_ID})@", _ANY_CASE)
_ALONE = re.compile(f"^({_ID})$", _ANY_CASE | re.MULTILINE)
_IN_COPY = re.compile(rf"^[> \t]{{0,8}}{ATTEMPT_FIELD}:\s*({_ID})\b", _ANY_CASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rf"^[> \t]{{0,8}}Message-ID:\s*(?=<({_ID})@)(<[^<>\s]{{1,300}}>)", _ANY_CASE | re.MULTILINE)
_FIELD = re.compile(r"^([!-9;-~]{1,76})[ \t]*:(.*(?:\n[ \t].*)*)", re.MULTILINE)
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,70})"|([^\s";]{1,70}))', _ANY_CASE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_WORD = re.compile("[a-z-]*")
_STATUS = re.compile(_CODE)
_REPLY = re.compile(rf"(?:\b[45][0-9][0-9][ -]|\(#){_CODE}")
"""A mail server's reply with an enhanced status (RFC 2034, 4), or qmail's own words with one."""
_UNDEFINED = ".0.0"
"""The end of a status that says no more than its class (RFC 3463, 3.1)."""

_Fields = dict[str, str]
"""Of a header, by their names in lower case; each value in one line, those of one name below each other."""


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a mail that came back says."""

    references: tuple[str, ...]
    """Ids by which it may name the attempt that it is about, the surest first. The last may be its message's."""
    receipt: Receipt | None
    """The news of that attempt, where it is about delivery."""
    complaint: bool
    """The person wants no more of it."""


def read_bounce(mail: bytes, recipient: str = "") -> Bounce:
    """What a mail says that was sent to where bounces and complaints go. It may be neither.

    Args:
        mail: as a mail server hands it over. Its end may be missing.
        recipient: the address that it was sent to, where the mail server tells.
    """
    text = mail.replace(b"\r\n", b"\n").decode("latin-1")
    head, body = _split(text)
    fields = _fields(head)
    statuses: list[_Fields] = []
    feedback: _Fields = {}
    for media, part in _parts(text, _DEPTH):
        if media in DELIVERY_STATUS:
            statuses += [_fields(block) for block in _BLANK_LINE.split(part, _BLOCKS)[:_BLOCKS]]
        elif media == FEEDBACK_REPORT:
            feedback = _fields(part)
    places = (
        (_IN_ADDRESS, recipient),
        *((_IN_ADDRESS, fields.get(name, "")) for name in SENT_TO),
        *((_ALONE, report.get("original-envelope-id", "")) for report in (*statuses, feedback)),
        (_IN_ADDRESS, feedback.get("original-mail-from", "")),
        (_IN_COPY, body),
        (_MESSAGE_ID, body),
    )
    references = tuple(dict.fromkeys(found[1].lower() for pattern, place in places if (found := pattern.search(place))))
    copied = _MESSAGE_ID.search(body)
    said = [(_action(status), _code(status)) for status in statuses if "action" in status] or _in_words(fields, body)
    receipts = [
        Receipt(
            attempt=references[0] if references else "",
            status=_status(action, code),
            reference=copied[2] if copied else "",
            raw_status=action,
            code=code,
        )
        for action, code in said
    ]
    return Bounce(
        references,
        min(receipts, key=lambda receipt: BEST_FIRST.index(receipt.status), default=None),
        _word(feedback.get("feedback-type", "")) in COMPLAINTS,
    )


def _parts(text: str, depth: int) -> Iterator[tuple[str, str]]:
    """Media type and body of each part that is not made of others. A message in a message stays closed."""
    head, body = _split(text)
    kind = _fields(head).get("content-type", "")
    media = kind.partition(";")[0].strip().lower()
    boundary = _BOUNDARY.search(kind) if media.startswith("multipart/") and depth else None
    if boundary is None:
        yield media, body
        return
    delimiter = re.compile(rf"^--{re.escape(boundary[1] or boundary[2])}(?:--)?[ \t]*(?:\n|\Z)", re.MULTILINE)
    for part in delimiter.split(body, _PARTS)[1:]:
        yield from _parts(part, depth - 1)


def _split(text: str) -> tuple[str, str]:
    """Header and body."""
    head, _, body = ("", "", text[1:]) if text.startswith("\n") else text.partition("\n\n")
    return head, body


def _fields(head: str) -> _Fields:
    found: dict[str, list[str]] = {}
    for name, value in _FIELD.findall(head):
        found.setdefault(name.lower(), []).append(" ".join(value.split()))
    return {name: "\n".join(values) for name, values in found.items()}


def _action(status: _Fields) -> str:
    """A word of ``ACTIONS``, or ``other``."""
    action = _word(status["action"])
    return action if action in ACTIONS else "other"


def _code(status: _Fields) -> str | None:
    """The enhanced status (RFC 3463): the reply's where the report itself does not commit itself."""
    own = _STATUS.match(status.get("status", ""))
    if own and not own[1].endswith(_UNDEFINED):
        return own[1]
    found = _REPLY.search(status.get("diagnostic-code", "")) or own
    return found[1] if found else None


def _status(action: str, code: str | None) -> ReceiptStatus:
    if action == FAILED and code in BAD_MAILBOX:
        return ReceiptStatus.UNREACHABLE
    return ACTIONS.get(action, ReceiptStatus.OTHER)


def _in_words(fields: _Fields, body: str) -> Sequence[tuple[str, str | None]]:
    """Action and code of a bounce that is written for people, where it certainly is one."""
    told = body.partition("\n---")[0]  # what is below is a copy of ours
    if GIVEN_UP not in told or not (OF_EXIM in fields or told.lstrip().startswith(OF_QMAIL)):
        return ()
    reply = _REPLY.search(told)
    return ((FAILED, reply[1] if reply else None),)


def _word(value: str) -> str:
    """The first of it, in lower case."""
    found = _WORD.match(value.lower())
    return found[0] if found else ""
