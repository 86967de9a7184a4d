"""A report by other code: CSV files of what was asked for, published and attempted, and one formula a cell.

It imports nothing of the gateway, and knows of it only what the README says under "What came of it".
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

BANDS = ("0", "1-2", "3-5", "6+")
STATES = (
    *("waiting", "sending", "sent", "delivered", "undelivered", "failed", "expired", "refused", "cancelled"),
    *("unknown", "parked"),
)
LOST = ("refused", "expired", "failed", "cancelled", "parked")
NO_RULE = ("retry", "repeat", "look_up", "throttled", "busy", "pace", "bug")
WENT = ("unknown", "undelivered", "sent", "delivered")
"""The same of messages."""
REACHED = ("unknown", "undelivered", "accepted", "delivered")
"""States of attempts that may have reached the person, the least sure first."""
ROWS = dict[str, str]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of one table; the first row says which columns there are."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        sheet.writeheader()
        sheet.writerows(rows)


def read(path: Path) -> list[ROWS]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Spreadsheet:
    """The files of a folder: ``requests``, ``events``, ``attempts`` and ``acts``."""

    def __init__(self, folder: Path, prices: dict[str, tuple[str, str, bool]], zone: str) -> None:
        """``prices``: by provider, the amount, the currency, and whether text messages are billed by their parts."""
        self.prices = prices
        self.zone = ZoneInfo(zone)
        self.requests = read(folder / "requests.csv")
        self.events: dict[str, list[ROWS]] = defaultdict(list)
        for event in sorted(read(folder / "events.csv"), key=lambda event: int(event["sequence"])):
            self.events[event["message"]].append(event)
        self.attempts: dict[str, list[ROWS]] = defaultdict(list)
        for attempt in sorted(read(folder / "attempts.csv"), key=lambda attempt: int(attempt["number"])):
            self.attempts[attempt["message"]].append(attempt)
        self.columns: dict[str, set[str]] = {}
        self.bands: dict[tuple[str, str], str] = {}
        for act in sorted(read(folder / "acts.csv"), key=lambda act: (int(act["done_at"]), act["id"]), reverse=True):
            self.bands[act["message"], act["act"]] = act["band"]

    # ---------------------------------------------------------------------------------------------------- one message

    def carrier(self, message: str) -> ROWS | None:
        made = [attempt for attempt in self.attempts[message] if attempt["state"] in REACHED]
        return max(made, key=lambda a: (REACHED.index(a["state"]), int(a["number"])), default=None)

    def state(self, message: str) -> str:
        """The last that was announced; of attempts that went, the best of what was announced last of each."""
        told = [event for event in self.events[message] if event["state"]]
        if not told or told[-1]["state"] not in WENT:
            return told[-1]["state"] if told else "waiting"
        last = {event["attempt"]: event["state"] for event in told if event["state"] in WENT}
        return max(last.values(), key=WENT.index)

    def why(self, message: str) -> str:
        reasons = [(event["state"], event["reason"]) for event in self.events[message] if event["state"]]
        if reasons[-1][0] == "expired":
            held = [reason for state, reason in reasons if state == "waiting"]
            return held[-1] if held else reasons[-1][1]
        return reasons[-1][1]

    def did(self, message: str, act: str, agent: str = "human") -> list[ROWS]:
        return [event for event in self.events[message] if (event["act"], event["agent"]) == (act, agent)]

    def key(self, request: ROWS, by: Sequence[str]) -> tuple[str | None, ...]:
        carrier = self.carrier(request["message"])
        cells = {
            **{column: value or None for column, value in request.items()},
            "channel": carrier["channel"] if carrier else "none",
            "day": datetime.fromisoformat(request["accepted_at"]).astimezone(self.zone).strftime("%Y-%m-%d"),
        }
        return tuple(cells[word] for word in by)

    def column(self, word: str) -> set[str]:
        """The messages that are in a column."""
        if word not in self.columns:
            self.columns[word] = {
                request["message"] for request in self.requests if self.formula(word)(request["message"])
            }
        return self.columns[word]

    def formula(self, word: str) -> Callable[[str], bool]:
        """Whether a message is in a column."""
        if word.startswith("machine_"):
            return lambda message: bool(self.did(message, word.removeprefix("machine_"), "machine"))
        if word.startswith("reached "):
            stage = word.removeprefix("reached ")
            return lambda message: any(event["reached"] == stage for event in self.did(message, "converted"))
        states = {
            "sent": ("accepted", "delivered", "undelivered"),
            "delivered": ("delivered",),
            "undelivered": ("undelivered",),
            "unknown": ("unknown",),
        }
        if word in states:
            return lambda message: (c := self.carrier(message)) is not None and c["state"] in states[word]
        if word == "requested":
            return lambda _: True
        if word == "deferred":
            return lambda message: any(
                event["state"] == "waiting" and event["reason"] not in NO_RULE for event in self.events[message]
            )
        return lambda message: bool(self.did(message, word))

    # -------------------------------------------------------------------------------------------------------- the rows

    def report(self, since: str, until: str, by: Sequence[str], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
        asked = [
            request
            for request in self.requests
            if datetime.fromisoformat(since)
            <= datetime.fromisoformat(request["accepted_at"])
            < datetime.fromisoformat(until)
        ]
        groups: dict[tuple[str | None, ...], list[ROWS]] = defaultdict(list)
        for request in asked:
            groups[self.key(request, by)].append(request)
        stages = sorted(
            {event["reached"] for request in asked for event in self.did(request["message"], "converted")}
            | {target[word] for target in targets for word in ("stage", "of_stage") if target[word]} - {""}
        )
        stages = [stage for stage in stages if stage]
        order = sorted(groups, key=lambda key: [(part is None, part or "") for part in key])
        return {
            "total": self.row(asked, stages, targets),
            "groups": [
                {"key": dict(zip(by, key, strict=True)), **self.row(groups[key], stages, targets)} for key in order
            ],
        }

    def row(self, requests: list[ROWS], stages: list[str], targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
        messages = [request["message"] for request in requests]

        def those(word: str, among: Iterable[str] = messages) -> list[str]:
            return [message for message in among if message in self.column(word)]

        def share(word: str, base: str) -> float | None:
            whole = those(base)
            return round(len(those(word, whole)) / len(whole), 6) if whole else None

        channels = Counter(str(self.key(request, ["channel"])[0]) for request in requests)
        hidden = self.hidden(messages, set(channels))

        def shown(word: str, value: Any) -> Any:
            return None if word in hidden else value

        words = (
            *("requested", "deferred", "sent", "delivered", "undelivered", "unknown", "opened", "answered", "clicked"),
            *("converted", "opted_out", "uninstalled", "machine_opened", "machine_answered", "machine_clicked"),
        )
        lost: dict[str, Counter[str]] = defaultdict(Counter)
        for message in messages:
            if self.state(message) in LOST:
                lost[self.state(message)][self.why(message)] += 1
        cost = self.cost(requests)
        converted = len(those("converted"))
        taken = [{a["provider"] for a in self.attempts[m] if a["state"] in REACHED[1:]} for m in messages]
        unpriced = sum(bool(providers - self.prices.keys()) for providers in taken)
        after = ("opened", "answered", "clicked", "converted", "opted_out", "uninstalled")
        return {
            **{word: shown(word, len(those(word))) for word in words},
            "persons": len({request["user"] for request in requests}),
            "reached": {stage: len(those(f"reached {stage}")) for stage in stages},
            "states": {state: sum(self.state(message) == state for message in messages) for state in STATES},
            "lost": {state: dict(reasons) for state, reasons in lost.items()},
            "left": {
                act: {band: sum(self.bands[message, act] == band for message in those(act)) for band in BANDS}
                for act in ("opted_out", "uninstalled")
            },
            "shares": {
                "deferred": {"of_requested": share("deferred", "requested")},
                "sent": {"of_requested": share("sent", "requested")},
                "delivered": {"of_sent": shown("delivered", share("delivered", "sent"))},
                "undelivered": {"of_sent": share("undelivered", "sent")},
                **{
                    word: {f"of_{base}": shown(word, share(word, base)) for base in ("sent", "delivered")}
                    for word in after
                },
                "reached": {
                    stage: {f"of_{base}": share(f"reached {stage}", base) for base in ("sent", "delivered")}
                    for stage in stages
                },
            },
            "median_seconds": {
                "to_open": self.middle(messages, "opened"),
                "to_click": self.middle(messages, "clicked"),
            },
            "cost": {currency: f"{amount.normalize():f}" for currency, amount in cost.items()},
            "cost_per_conversion": {
                currency: f"{(amount / converted).quantize(Decimal('0.000001')).normalize():f}"
                for currency, amount in cost.items()
                if converted and not unpriced
            },
            "unpriced": unpriced,
            "targets": [held for target in targets if (held := self.held(requests, target, hidden))],
            "channels": dict(channels),
        }

    def hidden(self, messages: list[str], channels: set[str]) -> set[str]:
        """The columns that are empty because nobody can see what would fill them."""
        seen = {"opened": {"email", "push"}, "answered": {"robocall"}, "clicked": {"email", "push", "sms"}}
        dark = {word for word, where in seen.items() if not channels & where}
        said = {c["channel"] for c in map(self.carrier, messages) if c and c["state"] in ("delivered", "undelivered")}
        dark |= {f"machine_{word}" for word in dark} | ({"delivered"} if said <= {"email"} else set())
        return {word for word in dark if not self.column(word).intersection(messages)}

    def middle(self, messages: Iterable[str], act: str) -> float | None:
        lengths = []
        for message in messages:
            carrier, done = self.carrier(message), self.did(message, act)
            if carrier and done:
                begun = int(carrier["begun_at"]) / 1_000_000
                first = min(datetime.fromisoformat(event["at"]).timestamp() for event in done)
                lengths.append(max(0.0, first - begun))
        return round(median(lengths), 3) if lengths else None

    def cost(self, requests: Iterable[ROWS]) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for request in requests:
            billed = set()
            for attempt in self.attempts[request["message"]]:
                same = attempt["repeats"] or attempt["id"]
                if attempt["state"] not in ("accepted", "delivered", "undelivered") or same in billed:
                    continue
                if attempt["provider"] not in self.prices:
                    continue
                billed.add(same)
                amount, currency, by_parts = self.prices[attempt["provider"]]
                parts = segments(request["text"]) if by_parts and attempt["channel"] == "sms" else 1
                found[currency] = found.get(currency, Decimal(0)) + Decimal(amount) * parts
        return found

    def held(self, requests: list[ROWS], target: dict[str, Any], hidden: set[str]) -> dict[str, Any] | None:
        concerned = [
            request["message"]
            for request in requests
            if target["category"] in (None, request["category"])
            and target["campaign"] in (None, request["campaign"] or None)
            and target["channel"] in (None, self.key(request, ["channel"])[0])
        ]
        if not concerned:
            return None
        step = f"reached {target['stage']}" if target["stage"] else target["step"]
        base = f"reached {target['of_stage']}" if target["of_stage"] else target["of"]
        whole = self.column(base).intersection(concerned)
        hits = self.column(step).intersection(whole)
        low, high = interval(len(hits), len(whole))
        least = target["at_least"]
        told = "met" if low >= least else "missed" if high < least else "too_few"
        if target["step"] in hidden:
            nothing = dict.fromkeys(("hits", "share", "low", "high"))
            return {**target, "base": len(whole), "verdict": "too_few", **nothing}
        return {
            **target,
            "hits": len(hits),
            "base": len(whole),
            "share": round(len(hits) / len(whole), 6) if whole else None,
            "low": low,
            "high": high,
            "verdict": told if len(whole) >= 30 else "too_few",
        }


def segments(text: str) -> int:
    """Of texts without the characters that take two places, in how many parts they are sent."""
    alone, part = (160, 153) if text.isascii() else (70, 67)
    return 1 if len(text) <= alone else math.ceil(len(text) / part)


def interval(hits: int, base: int) -> tuple[float, float]:
    """The shares that would not be surprising: the roots of ``(share - p)² = z² p (1 - p) / base``."""
    if not base:
        return 0.0, 1.0
    share, z = hits / base, 1.959963984540054
    a, b, c = 1 + z * z / base, -(2 * share + z * z / base), share * share
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return round(max(0.0, (-b - root) / (2 * a)), 6), round(min(1.0, (-b + root) / (2 * a)), 6)


def days(start: str, number: int) -> str:
    """So many days later."""
    return (datetime.fromisoformat(start) + timedelta(days=number)).isoformat()
