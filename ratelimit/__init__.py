"""May this person be contacted now, and if not, when?"""

from __future__ import annotations

from ratelimit._rules import (
    CRITICAL,
    HORIZON,
    Contact,
    Only,
    Rule,
    Ruling,
    Subject,
    Verdict,
    closes,
    earliest,
    enforced,
    explain,
    follow,
)
from ratelimit._wording import clock
from ratelimit.caps import Calendar, FrequencyCap, MinimumGap, Scope
from ratelimit.clocks import zone, zone_names
from ratelimit.days import Holidays
from ratelimit.hours import QuietHours, SendWindow

__all__ = [
    "CRITICAL",
    "HORIZON",
    "Calendar",
    "Contact",
    "FrequencyCap",
    "Holidays",
    "MinimumGap",
    "Only",
    "QuietHours",
    "Rule",
    "Ruling",
    "Scope",
    "SendWindow",
    "Subject",
    "Verdict",
    "clock",
    "closes",
    "earliest",
    "enforced",
    "explain",
    "follow",
    "zone",
    "zone_names",
]
