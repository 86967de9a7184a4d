"""Robot calls through Twilio, who picked them up, and the keys that were pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator

from providers import _contract, _twilio
from providers._contract import (
    Act,
    Acted,
    Agent,
    Answer,
    Callback,
    Channel,
    Dispatch,
    Doubt,
    News,
    Receipt,
    ReceiptStatus,
    Rejected,
    Reply,
    Robocall,
    Unreadable,
    Wish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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

ANSWERED_BY: Mapping[str, tuple[Agent, str | None]] = {
    "human": (Agent.HUMAN, None),
    "machine_start": (Agent.MACHINE, "voicemail"),
    "machine_end_beep": (Agent.MACHINE, "voicemail"),
    "machine_end_silence": (Agent.MACHINE, "voicemail"),
    "machine_end_other": (Agent.MACHINE, "voicemail"),
    "fax": (Agent.MACHINE, "fax"),
}
"""https://www.twilio.com/docs/voice/answering-machine-detection"""

UNTOLD = (Agent.MACHINE, "untold")
"""Of ``unknown`` and whatever comes later: it is not known to have been a person, so it must not count as one."""

LONGEST = 4000
"""Characters that Twilio takes for ``Twiml`` (https://www.twilio.com/docs/voice/api/call-resource#create-a-call)."""

KEYPRESS_SECONDS = 5
"""How long the call waits for a digit after it has spoken."""

ELSEWHERE = ("en", "en-US")
"""What is spoken to those whose language is not in the tables, and how Twilio calls it."""

STOPPED: Mapping[str, str] = {
    "en": "You will not be called again.",
    "ja": "今後、お電話はいたしません。",
    "zh": "我们不会再给您打电话。",
    "ko": "다시 전화드리지 않겠습니다.",
    "de": "Sie werden nicht mehr angerufen.",
    "fr": "Nous ne vous appellerons plus.",
    "es": "No volveremos a llamarle.",
    "pt": "Não voltaremos a ligar para você.",
    "it": "Non la chiameremo più.",
    "nl": "U wordt niet meer gebeld.",
}
"""What who opts out by a key is told, by the language (BCP 47, without its region)."""

NAMED: Mapping[str, str] = {
    "en": "To get no more calls, press {key}.",
    "ja": "今後お電話が不要な方は、{key}を押してください。",
    "zh": "如果不想再接到来电请按{key}。",
    "ko": "전화를 더 이상 원하지 않으시면 {key}번을 누르세요.",
    "de": "Wenn Sie keine Anrufe mehr möchten, drücken Sie die {key}.",
    "fr": "Pour ne plus recevoir d'appels, appuyez sur le {key}.",
    "es": "Para no recibir más llamadas, pulse {key}.",
    "pt": "Para não receber mais chamadas, pressione {key}.",
    "it": "Per non ricevere altre chiamate, prema {key}.",
    "nl": "Wilt u niet meer gebeld worden, druk dan op {key}.",
}
"""How the key is named that opts out."""

_SAYS = "say"
"""Of the address that a pressed key is told to: the call's language, empty where it has none."""

_Sentence = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_twilio.sayable)]
_Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
_Meaning = Literal["confirm", "opt_out"]
_Digit = Annotated[str, BeforeValidator(str), StringConstraints(pattern=r"^[0-9]$")]

KEYS: Mapping[str, _Meaning] = {"1": "confirm", "9": "opt_out"}
"""Unless the configuration says otherwise."""


class Settings(_twilio.Settings):
    """An account, who it calls as, for how long it lets ring, and what it listens for."""

    kind: Literal["twilio_voice"] = "twilio_voice"
    ring: int = Field(default=30, ge=5, le=600)
    """Seconds."""
    machine_detection: bool = True
    """Whether Twilio finds out who picks up, which it bills. It does so while the call speaks already: nobody waits."""
    keys: dict[_Digit, _Meaning] = Field(default_factory=lambda: dict(KEYS))
    """What a pressed key means. One that is not named ends the call, and means nothing."""
    names_key: bool = False
    """Whether calls that can be opted out of end with a sentence that names the key."""
    stop_reply: dict[_Language, _Sentence] = Field(default_factory=dict)
    """What who opts out is told, by language, in place of ``STOPPED``."""

    @field_validator("sender")
    @classmethod
    def _calls(cls, value: str) -> str:
        if not _twilio.NUMBER.fullmatch(value):
            raise ValueError("must be a number in E.164")
        return value


class Provider:
    """An account at Twilio."""

    CHANNELS: ClassVar[frozenset[Channel]] = frozenset({Channel.ROBOCALL})
    dedupe_window: timedelta | None = None
    calls_back = True

    def __init__(self, name: str, settings: Settings, clock: Callable[[], datetime] = _contract.utc_now) -> None:
        self.name = name
        self._account = _twilio.Account(settings, "Calls", clock)
        self._sender = settings.sender
        self._ring = str(settings.ring)
        self._detects = settings.machine_detection
        self._keys = settings.keys
        self._stopped = {**STOPPED, **settings.stop_reply}
        opting_out = [key for key, meaning in settings.keys.items() if meaning == "opt_out" and settings.names_key]
        self._named = {language: text.format(key=opting_out[0]) for language, text in NAMED.items() if opting_out}

    async def open(self) -> None:
        """Get ready, inside a running event loop."""
        await self._account.client.open()

    async def close(self) -> None:
        """Give back connections."""
        await self._account.client.close()

    async def send(self, dispatch: Dispatch) -> str:
        """Create one Call and return its sid."""
        twiml = self._twiml(dispatch)
        form = {"To": dispatch.address, "From": self._sender, "Twiml": twiml, "Timeout": self._ring}
        if dispatch.callback_url:
            form["StatusCallback"] = dispatch.callback_url
            form["StatusCallbackEvent"] = "completed"
        if dispatch.callback_url and self._detects:
            # Without AsyncAmd whoever picks up hears nothing until Twilio has made up its mind.
            form |= {"MachineDetection": "Enable", "AsyncAmd": "true", "AsyncAmdStatusCallback": dispatch.callback_url}
        return await self._account.create(form, dispatch)

    def receipts(self, callback: Callback) -> tuple[News, ...]:
        """The news in a callback: on the call's status, on who picked up, on a key, which names the status too."""
        fields = self._account.verified(callback)
        attempt, reference = _twilio.reported(callback, fields, "CallSid")
        news = (
            *_status(attempt, reference, fields),
            *_picked_up(attempt, fields),
            *self._pressed(attempt, reference, fields),
        )
        if not news:
            raise Unreadable(Doubt.INCOMPLETE)
        return news

    def answer(self, callback: Callback, news: Sequence[News]) -> Answer | None:
        """What the call does after a key: it ends, and says so to who opts out."""
        language = callback.query.get(_SAYS)
        if language is None:
            return None
        if any(isinstance(one, Reply) and one.wish is Wish.STOP for one in news):
            return _twilio.twiml(_say(self._stopped, language))
        return _twilio.twiml()

    def _pressed(self, attempt: str, reference: str, fields: Mapping[str, str]) -> Iterator[News]:
        match self._keys.get(fields.get("Digits", "")):
            case "confirm":
                yield Acted(attempt, Act.ANSWERED, Agent.HUMAN)
            case "opt_out":
                if not _twilio.NUMBER.fullmatch(address := fields.get("To", "")):
                    raise Unreadable(Doubt.INCOMPLETE)
                yield Reply(address, Wish.STOP, reference, attempt, on_the_line=True)

    def _twiml(self, dispatch: Dispatch) -> str:
        """What the call does: speak or play, while it listens for one digit."""
        content = dispatch.content
        if not isinstance(content, Robocall):
            raise Rejected("wrong_channel")
        language = content.language or dispatch.locale or ""
        if any(_twilio.NOT_XML.search(part) for part in (content.say, content.audio_url, language) if part):
            raise Rejected("bad_text", "holds a character that no XML may hold")
        response = ET.Element("Response")
        parent = response
        if url := dispatch.callback_url:
            url += ("&" if "?" in url else "?") + urlencode({_SAYS: language})
            gather = {"numDigits": "1", "timeout": str(KEYPRESS_SECONDS), "action": url, "method": "POST"}
            parent = ET.SubElement(response, "Gather", gather)
        if content.audio_url:
            if not content.audio_url.startswith(("https://", "http://")):
                raise Rejected("bad_audio_url", "must be https or http")
            parent.append(_twilio.said("Play", content.audio_url))
        else:
            parent.append(_twilio.said("Say", content.say or "", **({"language": language} if language else {})))
        if self._named and dispatch.callback_url and dispatch.unsubscribe_url:
            parent.append(_say(self._named, language))
        twiml = ET.tostring(response, encoding="unicode")
        if len(twiml) > LONGEST:
            raise Rejected("too_long")
        return twiml


def _status(attempt: str, reference: str, fields: Mapping[str, str]) -> Iterator[News]:
    if raw := fields.get("CallStatus"):
        code = fields.get("ErrorCode") or fields.get("SipResponseCode") or None
        yield Receipt(attempt, STATUSES.get(raw, ReceiptStatus.OTHER), reference, raw, code)


def _picked_up(attempt: str, fields: Mapping[str, str]) -> Iterator[News]:
    if raw := fields.get("AnsweredBy"):
        agent, why = ANSWERED_BY.get(raw, UNTOLD)
        yield Acted(attempt, Act.ANSWERED, agent, why)


def _say(sentences: Mapping[str, str], language: str) -> ET.Element:
    """The sentence in a language, spoken in it; where there is none, in another that many understand."""
    spoken = language.partition("-")[0].lower()
    if spoken not in sentences:
        spoken, language = ELSEWHERE
    return _twilio.said("Say", sentences[spoken], language=language)
