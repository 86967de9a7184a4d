"""Robot calls through Twilio."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal
from xml.etree import ElementTree as ET

from pydantic import Field, field_validator

from providers import _contract, _twilio
from providers._contract import Callback, Channel, Dispatch, Receipt, ReceiptStatus, Rejected, Robocall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

STATUSES: Mapping[str, ReceiptStatus] = {
    "queued": ReceiptStatus.ACCEPTED,
    "initiated": ReceiptStatus.ACCEPTED,
    "ringing": ReceiptStatus.ACCEPTED,
    "in-progress": ReceiptStatus.ACCEPTED,
    "completed": ReceiptStatus.DELIVERED,
    # It rang, and a call that rang is a contact, answered or not.
    "busy": ReceiptStatus.ACCEPTED,
    "no-answer": ReceiptStatus.ACCEPTED,
    "failed": ReceiptStatus.UNDELIVERED,
    "canceled": ReceiptStatus.UNDELIVERED,
}
"""https://www.twilio.com/docs/voice/api/call-resource#call-status-values"""

LONGEST = 4000
"""Characters that Twilio takes for ``Twiml`` (https://www.twilio.com/docs/voice/api/call-resource#create-a-call)."""

KEYPRESS_SECONDS = 5
"""How long the call waits for a digit after it has spoken."""

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may hold, escaped or not."""


class Settings(_twilio.Settings):
    """An account, who it calls as, and for how long it lets ring."""

    kind: Literal["twilio_voice"] = "twilio_voice"
    ring: int = Field(default=30, ge=5, le=600)
    """Seconds."""

    @field_validator("sender")
    @classmethod
    def _calls(cls, value: str) -> str:
        if not re.fullmatch(r"\+[1-9][0-9]{6,14}", value):
            raise ValueError("must be a number in E.164")
        return value


class Provider:
    """An account at Twilio."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset({Channel.ROBOCALL})
    dedupe_window: timedelta | None = None

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._account = _twilio.Account(settings, "Calls", clock)
        self._sender = settings.sender
        self._ring = str(settings.ring)

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        await self._account.client.open()

    async def close(self) -> None:
        """Give back connections."""
        await self._account.client.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Create one Call and return its sid."""
        form = {"To": dispatch.address, "From": self._sender, "Twiml": _twiml(dispatch), "Timeout": self._ring}
        if dispatch.callback_url:
            form["StatusCallback"] = dispatch.callback_url
            form["StatusCallbackEvent"] = "completed"
        return await self._account.create(form, dispatch)

    def receipts(self, callback: Callback) -> tuple[Receipt, ...]:
        """The news in a status callback, or in the answer to the keypress, which names the call's status too."""
        fields = self._account.verified(callback)
        attempt, reference, raw = _twilio.reported(callback, fields, "CallSid", "CallStatus")
        code = fields.get("ErrorCode") or fields.get("SipResponseCode") or None
        return (Receipt(attempt, STATUSES.get(raw, ReceiptStatus.OTHER), reference, raw, code),)


def _twiml(dispatch: Dispatch) -> str:
    """What the call does: speak or play, while it listens for one digit."""
    content = dispatch.content
    if not isinstance(content, Robocall):
        raise Rejected("wrong_channel")
    response = ET.Element("Response")
    parent = response
    if dispatch.callback_url:
        gather = {"numDigits": "1", "timeout": str(KEYPRESS_SECONDS), "action": dispatch.callback_url, "method": "POST"}
        parent = ET.SubElement(response, "Gather", gather)
    if content.audio_url:
        if not content.audio_url.startswith(("https://", "http://")):
            raise Rejected("bad_audio_url", "must be https or http")
        ET.SubElement(parent, "Play").text = content.audio_url
    else:
        language = content.language or dispatch.locale
        ET.SubElement(parent, "Say", {"language": language} if language else {}).text = content.say
    if any(_NOT_XML.search(part) for part in (content.say, content.audio_url, content.language) if part):
        raise Rejected("bad_text", "holds a character that no XML may hold")
    twiml = ET.tostring(response, encoding="unicode")
    if len(twiml) > LONGEST:
        raise Rejected("too_long")
    return twiml
