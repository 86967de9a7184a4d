"""Vendors, each behind the same face: a public module here is a provider, and its name is its ``kind``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

from providers._bounces import Bounce, read_bounce
from providers._contract import (
    Act,
    Acted,
    Agent,
    Answer,
    Answers,
    Callback,
    CallsBack,
    Channel,
    Content,
    Dispatch,
    Doubt,
    Email,
    Forged,
    LooksUp,
    Misconfigured,
    News,
    NoNews,
    Provider,
    ProviderError,
    Push,
    Receipt,
    ReceiptStatus,
    Rejected,
    Reply,
    Robocall,
    Settings,
    Sms,
    Throttled,
    Unavailable,
    Unconfirmed,
    Unreachable,
    Unread,
    Unreadable,
    Wish,
)
from providers._cost import Cost
from providers._duration import duration
from providers._http import retry_after
from providers._names import Names
from providers._pace import Pace
from providers._segments import segments

__all__ = [
    "Act",
    "Acted",
    "Agent",
    "Answer",
    "Answers",
    "Bounce",
    "Callback",
    "CallsBack",
    "Channel",
    "Content",
    "Cost",
    "Dispatch",
    "Doubt",
    "Email",
    "Forged",
    "LooksUp",
    "Misconfigured",
    "Names",
    "News",
    "NoNews",
    "Pace",
    "Provider",
    "ProviderError",
    "Push",
    "Receipt",
    "ReceiptStatus",
    "Rejected",
    "Reply",
    "Robocall",
    "Settings",
    "Sms",
    "Throttled",
    "Unavailable",
    "Unconfirmed",
    "Unreachable",
    "Unread",
    "Unreadable",
    "Wish",
    "build",
    "channels",
    "duration",
    "kinds",
    "read_bounce",
    "retry_after",
    "segments",
    "settings_of",
]


def kinds() -> tuple[str, ...]:
    """All kinds of provider that can be configured."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def settings_of(kind: str) -> type[Settings]:
    """The configuration of a kind. ``kind`` is one of ``kinds()``."""
    return cast("type[Settings]", importlib.import_module(f"{__name__}.{kind}").Settings)


def channels(settings: Settings) -> frozenset[Channel]:
    """What a provider so configured can send."""
    if chosen := getattr(settings, "channels", None):
        return frozenset(chosen)
    return _class(settings.kind).CHANNELS


def build(name: str, settings: Settings) -> Provider:
    """The provider that ``settings`` describe; ``name`` is its key in the configuration."""
    return _class(settings.kind)(name, settings)


class _Constructor(Protocol):
    CHANNELS: frozenset[Channel]

    def __call__(self, name: str, settings: Settings) -> Provider: ...


def _class(kind: str) -> _Constructor:
    return cast("_Constructor", importlib.import_module(f"{__name__}.{kind}").Provider)
