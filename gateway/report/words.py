"""Numbers and names of a report, as people read them: the same in a terminal and on a page.

Pure.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gateway.acts import WITNESSED
from gateway.causes import briefly
from providers import Act, Channel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOTHING: Final = "\N{EN DASH}"
"""Where a request does not say, or there is nothing to tell."""
VERDICTS: Final[Mapping[str, tuple[str, str]]] = {
    "met": ("✓", "met"),
    "missed": ("✗", "missed"),
    "too_few": ("?", "too few to tell"),
}
"""By the verdict: a sign, and what it means."""
_ENDS: Final[Mapping[tuple[str, str], str]] = {
    ("expired", "expires_at"): "expired before its turn",
    ("expired", "closed"): "expired, and nobody worked on it",
    ("refused", "collapsed"): "refused: a newer one took its place",
    ("refused", "abuse"): "refused: the address had enough of them",
    ("refused", "never"): "refused: never permitted",
    ("cancelled", "cancelled"): "cancelled",
    ("parked", "poison"): "parked: it kills who works on it",
}
_PERCENT: Final = "\N{NO-BREAK SPACE}%"
_TENTH: Final = Decimal("0.1")
_UNOPENED: Final = frozenset(Channel) - WITNESSED[Act.OPENED]
"""Channels of which nobody learns whether a message was opened."""
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(count: int | None) -> str:
    """In groups of three; a dash where nobody knows."""
    return NOTHING if count is None else f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def persons(count: int) -> str:
    """So many."""
    return f"{number(count)} person{'' if count == 1 else 's'}"


def percent(share: float | None) -> str:
    """To a tenth; what is not all is never called 100 %."""
    if share is None:
        return NOTHING
    hundredths = Decimal(str(share)) * 100
    if hundredths in (0, 100):
        return f"{hundredths:.0f}{_PERCENT}"
    if hundredths < _TENTH:
        return f"<{_TENTH}{_PERCENT}"
    if hundredths > 100 - _TENTH:
        return f">{100 - _TENTH}{_PERCENT}"
    return f"{hundredths:.1f}{_PERCENT}"


def length(seconds: float | None) -> str:
    """The two largest units of it."""
    if seconds is None:
        return NOTHING
    rest, parts = round(seconds), []
    for size, unit in _UNITS:
        if rest >= size:
            parts.append(f"{rest // size}\N{NO-BREAK SPACE}{unit}")
            rest %= size
    return " ".join(parts[:2]) or "0\N{NO-BREAK SPACE}s"


def money(amounts: Mapping[str, str]) -> str:
    """Of each currency, to a hundredth; to a hundredth of that, where there is hardly any."""
    return ", ".join(f"{_amount(Decimal(amount))}\N{NO-BREAK SPACE}{currency}" for currency, amount in amounts.items())


def _amount(amount: Decimal) -> str:
    return f"{amount:,.{2 if amount >= _TENTH or not amount else 4}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def losses(row: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """What became of those requested that did not go, or did not arrive: in words, and how many."""
    for state, reasons in row["lost"].items():
        for reason, count in reasons.items():
            yield _end(state, reason), count
    for word, said in (("undelivered", "reported undelivered"), ("unknown", "sent or not, nobody knows")):
        if row[word]:
            yield said, row[word]


def _end(state: str, reason: str) -> str:
    if (state, reason) in _ENDS:
        return _ENDS[state, reason]
    if state == "expired":
        return f"expired, last held by {reason}"
    return f"{state}: {briefly(reason)}"


def can_be_known(word: str, row: Mapping[str, Any]) -> bool:
    """Whether a column says anything of such messages: that nobody can see an open is not that there was none."""
    return row[word] is not None


def unseen(row: Mapping[str, Any]) -> str | None:
    """What the share of opens is too low by, where some of what went is such that nobody can see it opened."""
    if not row["opened"]:
        return None
    blind = {channel: count for channel, count in row["channels"].items() if channel in _UNOPENED}
    if not blind or WITNESSED[Act.OPENED].isdisjoint(row["channels"]):
        return None
    which = f"{number(sum(blind.values()))} by {' and '.join(blind)}"
    return f"of {which} nobody learns whether they were opened; in shares of sent they count as not opened"


def under_way(row: Mapping[str, Any]) -> int:
    """Messages of which nothing is decided yet."""
    return int(row["states"]["waiting"]) + int(row["states"]["sending"])


def telling(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The targets that say something of its messages."""
    return [held for held in row["targets"] if held["base"] and held["hits"] is not None]


def goal(held: Mapping[str, Any]) -> str:
    """The share that a target asks for."""
    return f"{held['at_least'] * 100:g}{_PERCENT}"


def target(held: Mapping[str, Any]) -> str:
    """What a target asks."""
    whose = [f"{word} {held[word]}" for word in ("category", "campaign", "channel") if held[word] is not None]
    asked = f"{_step(held['step'], held['stage'])}: at least {goal(held)} of {of(held)}"
    return f"{asked} ({', '.join(whose)})" if whose else asked


def of(held: Mapping[str, Any]) -> str:
    """What the share that a target asks for is of."""
    return _step(held["of"], held["of_stage"])


def _step(step: str, stage: str | None) -> str:
    return step if stage is None else f"{step} to {stage}"


def outcome(held: Mapping[str, Any]) -> str:
    """How a target fared: what there is, and between what the truth lies."""
    return (
        f"{percent(held['share'])} of {number(held['base'])}, "
        f"between {percent(held['low'])} and {percent(held['high'])}"
    )


def name(key: Mapping[str, str | None]) -> str:
    """Of a group."""
    return " · ".join(shared(by, value) for by, value in key.items()) or "everything"


def shared(by: str, value: str | None) -> str:
    """One of the things that the messages of a group have in common."""
    if value is None:
        return f"no {by}"
    return "never sent" if (by, value) == ("channel", "none") else value
