"""Text messages through Twilio, and those that people send back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal
from urllib.parse import parse_qsl

from pydantic import AfterValidator, StringConstraints, field_validator

from providers import _contract, _twilio
from providers._contract import (
    Answer,
    Callback,
    Channel,
    Content,
    Dispatch,
    Doubt,
    News,
    Receipt,
    ReceiptStatus,
    Rejected,
    Reply,
    Sms,
    Unreadable,
    Wish,
)
from providers._replies import wish_of
from providers._segments import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta

STATUSES: Mapping[str, ReceiptStatus] = {
    "accepted": ReceiptStatus.ACCEPTED,
    "scheduled": ReceiptStatus.ACCEPTED,
    "queued": ReceiptStatus.ACCEPTED,
    "sending": ReceiptStatus.ACCEPTED,
    "sent": ReceiptStatus.ACCEPTED,
    "delivered": ReceiptStatus.DELIVERED,
    "read": ReceiptStatus.DELIVERED,
    "undelivered": ReceiptStatus.UNDELIVERED,
    "failed": ReceiptStatus.UNDELIVERED,
}
"""https://www.twilio.com/docs/messaging/api/message-resource#message-status-values

``canceled`` is missing: only a scheduled message can become that, and none is scheduled here.
"""

UNREACHABLE = frozenset({"21211", "21610", "21614", "21635", "30005", "30006"})
"""Codes that condemn the number: unknown, opted out, a landline. https://www.twilio.com/docs/api/errors

30003 (handset switched off) is not among them, for Twilio says to try again.
"""

LONGEST = 36_000
"""Seconds that Twilio takes for ``ValidityPeriod`` at most (https://www.twilio.com/docs/api/errors/90007)."""

OPT_OUT_TYPES: Mapping[str, Wish] = {"STOP": Wish.STOP, "START": Wish.START, "HELP": Wish.HELP}
"""https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out: what Twilio has understood, and answered itself."""

_FROM = re.compile(rf"(?:[a-z]+:)?({_twilio.NUMBER.pattern})")
"""A phone number, on whatsapp: and the like too: who says no there says it for the number."""

_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|MG[0-9a-zA-Z]{1,64}|(?=.*[A-Za-z])[0-9A-Za-z &_+-]{1,11}")


_Text = Annotated[str, StringConstraints(min_length=1, max_length=1600), AfterValidator(_twilio.sayable)]


class Settings(_twilio.Settings):
    """An account, who it sends as, and what it answers to those who write back."""

    kind: Literal["twilio_sms"] = "twilio_sms"
    stop_reply: _Text | None = None
    """Sent to who says STOP. None: Twilio answers by itself, unless it was told not to."""
    start_reply: _Text | None = None
    """Sent to who says START; the same."""
    help_reply: _Text | None = None
    """Sent to who says HELP; the same."""

    def units(self, content: Content) -> int:
        """Twilio paces and bills segments.

        https://www.twilio.com/docs/glossary/what-sms-character-limit
        """
        return segments(content.text) if isinstance(content, Sms) else 1

    @field_validator("sender")
    @classmethod
    def _sends(cls, value: str) -> str:
        if not _SENDER.fullmatch(value):
            raise ValueError("must be a number in E.164, a short code, a name of up to 11 characters, or MG…")
        return value


class Provider:
    """An account at Twilio."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset({Channel.SMS})
    dedupe_window: timedelta | None = None
    calls_back = True

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._account = _twilio.Account(settings, "Messages", clock)
        self._sender = {"MessagingServiceSid" if settings.sender.startswith("MG") else "From": settings.sender}
        self._replies: Mapping[Wish | None, str | None] = {
            Wish.STOP: settings.stop_reply,
            Wish.START: settings.start_reply,
            Wish.HELP: settings.help_reply,
        }

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        await self._account.client.open()

    async def close(self) -> None:
        """Give back connections."""
        await self._account.client.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Create one Message and return its sid."""
        if not isinstance(dispatch.content, Sms):
            raise Rejected("wrong_channel")
        form = {
            "To": dispatch.address,
            **self._sender,
            "Body": dispatch.content.text,
            "ValidityPeriod": str(min(dispatch.seconds_valid(self._account.clock()), LONGEST)),
        }
        if dispatch.callback_url:
            form["StatusCallback"] = dispatch.callback_url
        return await self._account.create(form, dispatch)

    def receipts(self, callback: Callback) -> tuple[News, ...]:
        """The news in a status callback, or in a message that somebody has sent to our number."""
        fields = self._account.verified(callback)
        if _inbound(fields):
            return _heard(fields)
        attempt, reference, raw = _twilio.reported(callback, fields, "MessageSid", "MessageStatus")
        code = fields.get("ErrorCode") or None
        status = STATUSES.get(raw, ReceiptStatus.OTHER)
        if status is ReceiptStatus.UNDELIVERED and code in UNREACHABLE:
            status = ReceiptStatus.UNREACHABLE
        return (Receipt(attempt, status, reference, raw, code),)

    def answer(self, callback: Callback, news: Sequence[News]) -> Answer | None:
        """To who wrote to us, where there is something to say and Twilio has not said it."""
        fields = dict(parse_qsl(callback.body.decode(), keep_blank_values=True))
        if not _inbound(fields):
            return None
        told = [self._replies.get(one.wish) for one in news if isinstance(one, Reply) and "OptOutType" not in fields]
        return _twilio.twiml(*[_twilio.said("Message", text) for text in told if text])


def _inbound(fields: Mapping[str, str]) -> bool:
    """Whether a callback is a message that came in: one on what became of ours has a status and no text.

    https://www.twilio.com/docs/messaging/guides/webhook-request
    """
    return "Body" in fields and "MessageStatus" not in fields


def _heard(fields: Mapping[str, str]) -> tuple[Reply, ...]:
    """A short code or a name is nobody whom we could have written to."""
    if not (reference := fields.get("MessageSid")):
        raise Unreadable(Doubt.INCOMPLETE)
    if not (sender := _FROM.fullmatch(fields.get("From", ""))):
        return ()
    wish = OPT_OUT_TYPES.get(fields.get("OptOutType", "")) or wish_of(fields["Body"])
    return (Reply(sender[1], wish, reference),)
