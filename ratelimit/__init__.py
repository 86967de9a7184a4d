"""May this person be contacted now, and if not, when?"""

from __future__ import annotations

from ratelimit._rules import HORIZON, Contact, Rule, Ruling, Subject, Verdict, earliest, explain
from ratelimit.caps import Calendar, FrequencyCap, MinimumGap, Scope
from ratelimit.hours import QuietHours

__all__ = [
    "HORIZON",
    "Calendar",
    "Contact",
    "FrequencyCap",
    "MinimumGap",
    "QuietHours",
    "Rule",
    "Ruling",
    "Scope",
    "Subject",
    "Verdict",
    "earliest",
    "explain",
]
