"""Text messages through Twilio."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from providers import _contract, _twilio
from providers._contract import Callback, Channel, Content, Dispatch, Receipt, ReceiptStatus, Rejected, Sms
from providers._segments import segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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

_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|MG[0-9a-zA-Z]{1,64}|(?=.*[A-Za-z])[0-9A-Za-z &_+-]{1,11}")


class Settings(_twilio.Settings):
    """An account and who it sends as."""

    kind: Literal["twilio_sms"] = "twilio_sms"

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

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._account = _twilio.Account(settings, "Messages", clock)
        self._sender = {"MessagingServiceSid" if settings.sender.startswith("MG") else "From": settings.sender}

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

    def receipts(self, callback: Callback) -> tuple[Receipt, ...]:
        """The news in a status callback."""
        fields = self._account.verified(callback)
        attempt, reference, raw = _twilio.reported(callback, fields, "MessageSid", "MessageStatus")
        code = fields.get("ErrorCode") or None
        status = STATUSES.get(raw, ReceiptStatus.OTHER)
        if status is ReceiptStatus.UNDELIVERED and code in UNREACHABLE:
            status = ReceiptStatus.UNREACHABLE
        return (Receipt(attempt, status, reference, raw, code),)
