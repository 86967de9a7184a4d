"""Policies as plain data: drawn, written as YAML for the gateway, and read by the model in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from hypothesis import strategies as st

PRIORITIES = {"critical": 0, "high": 1, "normal": 2, "bulk": 3}


@dataclass(frozen=True)
class Category:
    priority: str
    capped: bool
    """Whether caps and gaps bind it."""
    timed: bool
    """Whether quiet hours and windows do."""
    repeats: bool = False
    """Whether what may have been sent is sent once more."""


CATEGORIES = {
    "code": Category("critical", capped=False, timed=False),
    "alert": Category("high", capped=True, timed=False, repeats=True),
    "offer": Category("normal", capped=True, timed=True),
    "news": Category("bulk", capped=True, timed=True),
}


@dataclass(frozen=True)
class Cap:
    name: str
    limit: int
    per: str
    """Hours, or a calendar window."""
    scope: tuple[str, ...] = ()
    channel: str = ""
    category: str = ""
    kept: int = 0
    """Places for high and above."""
    enforced: bool = True

    def written(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "limit": self.limit, "per": self.per, **_narrowed(self)}
        if self.scope:
            found["scope"] = ["user", *self.scope]
        if self.kept:
            found["reserve"] = {"high": self.kept}
        return found


@dataclass(frozen=True)
class Gap:
    name: str
    minutes: int
    scope: tuple[str, ...] = ()
    channel: str = ""
    category: str = ""
    enforced: bool = True

    def written(self) -> dict[str, Any]:
        return {"name": self.name, "gap": f"{self.minutes}m", "scope": ["user", *self.scope], **_narrowed(self)}


@dataclass(frozen=True)
class Hours:
    name: str
    spans: tuple[tuple[str, str], ...]
    quiet: bool
    """Nothing is sent within them; else nothing outside."""
    days: tuple[str, ...] = ()
    """On which they begin; empty: all."""
    release: int = 0
    """Minutes."""
    channel: str = ""
    category: str = ""
    enforced: bool = True

    def written(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, **_narrowed(self)}
        if self.quiet:
            ((found["from"], found["to"]),) = self.spans
        else:
            found["hours"] = ["-".join(span) for span in self.spans]
        if self.days:
            found["days"] = list(self.days)
        if self.release:
            found["release_over"] = f"{self.release}m"
        return found


def _narrowed(rule: Cap | Gap | Hours) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rule.channel:
        found["channel"] = rule.channel
    if rule.category:
        found["category"] = rule.category
    if not rule.enforced:
        found["enforce"] = "0%"
    return found


@dataclass(frozen=True)
class HouseRules:
    """A whole policy."""

    zone: str = "UTC"
    caps: tuple[Cap, ...] = ()
    gaps: tuple[Gap, ...] = ()
    hours: tuple[Hours, ...] = ()
    when_capped: str = "defer"
    """Of offers."""
    collapse: bool = False
    """Of news."""
    codes_count: bool = False

    def written(self) -> str:
        """As the gateway's configuration file."""
        categories: dict[str, Any] = {}
        for name, category in CATEGORIES.items():
            categories[name] = {"priority": category.priority, "expires_after": "72h"}
            if not category.capped:
                categories[name]["caps"] = "exempt"
            if not category.timed:
                categories[name]["quiet_hours"] = "exempt"
            if category.repeats:
                categories[name]["on_unknown"] = "repeat"
        categories["offer"]["when_capped"] = self.when_capped
        categories["code"] |= {"counts": self.codes_count, "abuse": {"limit": ABUSE, "per": "1h"}}
        if self.collapse:
            categories["news"]["collapse"] = "newest"
        policy = {
            "timezone": self.zone,
            "categories": categories,
            "caps": [cap.written() for cap in self.caps],
            "minimum_gap": [gap.written() for gap in self.gaps],
            "quiet_hours": [one.written() for one in self.hours if one.quiet],
            "send_windows": [one.written() for one in self.hours if not one.quiet],
        }
        return yaml.safe_dump(
            {
                "http": {"private": "127.0.0.1:0"},
                "providers": {"one": {"kind": "inbox"}, "two": {"kind": "inbox"}},
                "routes": {"sms": ["one", "two"], "email": ["one"], "push": ["two"]},
                "policy": {key: value for key, value in policy.items() if value},
            }
        )


ABUSE = 5
"""Codes that an address may get in an hour."""

CAPS = (
    Cap("daily", 1, "24h"),
    Cap("daily", 2, "24h"),
    Cap("daily", 3, "24h", kept=1),
    Cap("daily", 2, "24h", enforced=False),
    Cap("hourly", 2, "6h", scope=("channel",)),
    Cap("texts", 1, "day", channel="sms"),
    Cap("texts", 2, "day", channel="sms", kept=1),
    Cap("mails", 1, "12h", channel="email"),
    Cap("campaign", 1, "24h", scope=("campaign",)),
    Cap("topic", 1, "12h", scope=("labels.topic",)),
    Cap("offers", 1, "day", category="offer"),
    Cap("weekly", 4, "week"),
    Cap("monthly", 6, "month", scope=("category",)),
)
GAPS = (Gap("gap", 30), Gap("gap", 120), Gap("gap", 240, scope=("channel",)), Gap("gap", 60, enforced=False))
HOURS = (
    Hours("night", (("21:00", "08:00"),), quiet=True),
    Hours("night", (("21:00", "08:00"),), quiet=True, release=30),
    Hours("night", (("22:30", "06:15"),), quiet=True, channel="sms"),
    Hours("night", (("20:00", "07:00"),), quiet=True, enforced=False),
    Hours("small-hours", (("01:30", "03:30"),), quiet=True),
    Hours("sunday", (("00:00", "24:00"),), quiet=True, days=("sunday",)),
    Hours("friday-night", (("23:00", "10:00"),), quiet=True, days=("friday", "saturday")),
    Hours("shop-hours", (("11:00", "13:00"), ("18:00", "20:00")), quiet=False, category="offer"),
    Hours("texts-by-day", (("09:00", "19:30"),), quiet=False, channel="sms", release=20),
)


def _some(pool: tuple[Any, ...], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(pool), max_size=most, unique_by=lambda rule: rule.name).map(tuple)


house_rules = st.builds(
    HouseRules,
    zone=st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"]),
    caps=_some(CAPS, 3),
    gaps=_some(GAPS, 1),
    hours=_some(HOURS, 3),
    when_capped=st.sampled_from(["defer", "drop", "next_channel"]),
    collapse=st.booleans(),
    codes_count=st.booleans(),
)
