"""Why did it come to that? The reasons of decisions and the errors of attempts, in words.

Pure. Vendors' own codes are left as they are, for only their documentation says what they mean.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.message import Refusal
from gateway.outcome import BUG, POISON

if TYPE_CHECKING:
    from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    Refusal.OPTED_OUT: "the person, or the address itself, has opted out",
    Refusal.SUPPRESSED: "the person's address must not be used any more",
    Refusal.NO_ADDRESS: "there is no address, or no provider, to reach the person by",
    Refusal.NEVER: "the policy never permits it",
    Refusal.CAPPED: "a cap or a gap holds it back, and its category says to drop it then",
    Refusal.COLLAPSED: "a newer message of its campaign took its place",
    Refusal.ABUSE: "the address has had as many of its category as any address may",
    "shadow": "only rules in shadow objected, which hold nothing back",
    "next_channel": "it is held back on an earlier channel, and its category says to take the next one then",
    "expires_at": "it was not permitted, or not possible, in time",
    "unknown_category": "its category is not configured any more",
    "cancelled": "somebody asked for that",
    "retry": "its providers have failed, and it is tried again then",
    "repeat": "nobody knows whether it was sent, and it is sent again then",
    "look_up": "nobody knows whether it was sent, and its provider is being asked",
    "closed": "nobody ever learnt whether it was sent, and nobody listens any more",
    "throttled": "its providers have asked to be sent less for now",
    "busy": "its providers have as much under way as they may",
    "pace": "its providers are handed as many as their pace allows",
    "clock": "the database's clock was set back behind the last contact",
    "unknown": "no reason is recorded",
    "complaint": "somebody called a mail that went there spam",
    BUG: "the gateway made a mistake, which is in its log",
    POISON: "the process that worked on it died each time",
}
"""What a decision's reasons mean, where they are no rules."""

ERRORS: Mapping[str, str] = {
    "unavailable": "the provider could not be reached, or turned it away before acting on it",
    "throttled": "the provider asked to be sent less for now",
    "unconfirmed": "the provider never said whether it took it",
    "rejected": "the provider will never take this message",
    "unreachable": "the address is wrong, not in use any more, or wants nothing from us",
    "misconfigured": "the gateway's settings for the provider, or its account there, do not work",
    "receipt": "the provider reported it later",
    "crash": "the gateway stopped in the middle of it",
    "store": "the database was away, so the provider was never called",
    BUG: REASONS[BUG],
}
"""What an attempt's errors mean, by the word before the colon."""

CODES: Mapping[str, str] = {
    # The way there.
    "dns": "its host's name is not known",
    "refused": "its host refused the connection",
    "connect_timeout": "its host did not answer in time",
    "tls": "no encrypted connection came about; is its certificate one to trust, and its port the right one?",
    "reset": "the connection broke",
    "timeout": "no answer came in time",
    "bad_reply": "what it answered cannot be understood",
    "broken_reply": "its answer broke off",
    "huge_reply": "its answer was larger than any may be",
    "deadline": "its turn came too late to be begun",
    "closed": "the gateway was stopping",
    # What is configured.
    "unsupported": "the relay offers no STARTTLS, or no way to log in; set the provider's security, username and"
    " password to what the relay has",
    "bad_url": "the address in its configuration cannot be called",
    "bad_header": "a header in its configuration cannot be sent",
    # The message and the address.
    "wrong_channel": "the provider does not send what it was handed",
    "bad_text": "its text holds characters that cannot be sent",
    "control_character": "the subject or an address holds a control character",
    "empty": "it has neither text nor HTML",
    "bad_unsubscribe_url": "the link to unsubscribe cannot stand in a mail's header",
    "smtputf8": "the relay cannot write to such an address (SMTPUTF8)",
    "bad_audio_url": "what is to be played has no web address",
    "too_long": "it is too long",
    "bad_address": "it is no address that a mail can go to",
    # HTTP (RFC 9110).
    "http_401": "it does not know our key or password",
    "http_402": "it wants to be paid first",
    "http_403": "our account may not do that",
    "http_404": "there is nothing at that address",
    "http_429": "it was sent too much",
    # SMTP (RFC 5321, 4.2.3; RFC 4954, 6), by what was answered so.
    "smtp_421": "the relay closed the connection for now",
    "smtp_450": "the mailbox cannot be written to for now",
    "smtp_451": "the relay has an error of its own for now",
    "smtp_452": "the relay has no room for now",
    "smtp_454": "the relay can let nobody log in for now",
    "smtp_530": "the relay wants us to log in",
    "smtp_534": "the relay wants us to log in in a safer way",
    "smtp_535": "the relay does not take our user name and password",
    "smtp_538": "the relay wants us to log in over an encrypted connection",
    "smtp_552": "there is no room for it",
    "smtp_554": "the relay refused it as a whole",
    "misconfigured:smtp_550": "the relay does not let us send as this sender",
    "misconfigured:smtp_553": "the relay does not let us send as this sender",
    "unreachable:smtp_550": "the relay knows no such mailbox",
    "unreachable:smtp_551": "the mailbox is not at that relay",
    "unreachable:smtp_553": "no mailbox can have that name",
    "rejected:smtp_550": "the relay refused it by its policy",
    # FCM (https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode).
    "UNREGISTERED": "the app is not there any more, or has another token",
    "INVALID_TOKEN": "it is no token of an app",
    "INVALID_ARGUMENT": "FCM cannot read the notification",
    "SENDER_ID_MISMATCH": "the token belongs to another Firebase project",
    "QUOTA_EXCEEDED": "it was sent too much",
    "UNAVAILABLE": "FCM is overloaded",
    "INTERNAL": "FCM has an error of its own",
    "THIRD_PARTY_AUTH_ERROR": "FCM cannot log in at Apple or at the browser's maker with the keys that it was given",
    "token_revoked": "the access token was revoked",
}
"""What a code means; by itself, or with its kind before it where that makes a difference."""

_FAMILIES: Mapping[str, str] = {
    "token_": "no access token was to be had",
    "http_3": "it redirects; configure the address that it redirects to",
    "http_4": "it does not take such a request",
    "http_5": "its server has an error of its own",
    "smtp_4": "the relay says no for now",
    "smtp_5": "the relay says no for good",
}
"""The same of codes that begin so."""

_STATUSES: Mapping[str, str] = {
    "1.1": "there is no such mailbox",
    "1.2": "there is no such mail domain",
    "1.3": "it is not written as an address is",
    "1.6": "the mailbox has moved, and nobody knows where to",
    "1.10": "its domain takes no mail at all",
    "2.1": "the mailbox is disabled",
    "2.2": "the mailbox is full",
    "2.3": "it is larger than what the mailbox takes",
    "3.4": "it is larger than what the mail server takes",
    "4.1": "the mail server did not answer",
    "4.7": "it could not be delivered in all the time that mail servers try",
    "7.1": "the mail server's policy does not let it in",
    **dict.fromkeys(
        ("7.20", "7.21", "7.22", "7.23", "7.24", "7.26"),
        "the mail server does not believe that it is from its sender (SPF, DKIM)",
    ),
    "7.25": "the mail server does not believe in the relay's name (reverse DNS)",
}
"""Enhanced statuses of mail without their class: RFC 3463, 3; RFC 7505, 4.2; RFC 7372, 3."""
_SUBJECTS: Mapping[str, str] = {
    "1": "something is wrong with the address",
    "2": "something is wrong with the mailbox",
    "3": "the mail server cannot take it",
    "4": "the way to the mail server is broken",
    "5": "the mail servers did not understand each other",
    "6": "the mail server cannot take what is in it",
    "7": "the mail server's policy or security does not let it in",
}
"""The same of the others, by what they are about (RFC 3463, 2)."""
_STATUS = re.compile(r"[45]\.((\d{1,3})\.\d{1,3})")


def of_error(error: str) -> str:
    """A reason or an error in words, and an error as it is recorded too: vendors are asked by their codes."""
    if error in REASONS:
        return REASONS[error]
    kind, _, code = error.partition(":")
    if kind not in ERRORS:
        return f"of the error {error}"
    known = _of_code(kind, code)
    return f"{ERRORS[kind]}: {known} ({error})" if known else f"{ERRORS[kind]} ({error})"


def briefly(error: str) -> str:
    """A reason, or an error with its code, in as few words as will do."""
    kind, _, code = error.partition(":")
    if not code or kind not in ERRORS:
        return error.replace("_", " ")
    return f"{_of_code(kind, code) or ERRORS[kind]} ({code})"


def _of_code(kind: str, code: str) -> str | None:
    if status := _STATUS.fullmatch(code):
        return _STATUSES.get(status[1]) or _SUBJECTS.get(status[2])
    if kind == "receipt":  # its code is the vendor's
        return None
    found = CODES.get(f"{kind}:{code}") or CODES.get(code)
    return found or next((told for begin, told in _FAMILIES.items() if code.startswith(begin)), None)
