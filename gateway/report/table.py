"""A report for terminals and spreadsheets: rows of cells, and what there is to say below them.

Pure. Made of the JSON alone, as ``sentences`` are.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

from gateway.report import words
from gateway.report.told import PRESSURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COUNTED: Final = (
    "requested",
    "persons",
    "deferred",
    "sent",
    "delivered",
    "undelivered",
    "unknown",
    "opened",
    "answered",
    "clicked",
    "converted",
    "opted_out",
    "uninstalled",
    "machine_opened",
    "machine_answered",
    "machine_clicked",
)
"""Columns of a sheet, by their names in the JSON."""
_STATES: Final = ("waiting", "sending", "refused", "expired", "failed", "cancelled", "parked")
_SHOWN: Final = ("sent", "delivered", "opened", "answered", "clicked", "converted")
_OF: Final = {"sent": "requested"}
"""Of which base a terminal tells the share; of what was sent else."""
_FORMULA: Final = tuple("=+-@\t\r")
"""How a cell begins that a spreadsheet takes for a formula."""


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The head, a row for each group, and the total last; without columns that say nothing."""
    total = report["total"]
    shown = [word for word in _SHOWN if words.can_be_known(word, total)]
    stages = list(total["reached"])
    head = [*report["by"], "requested", *shown, *stages, "opted out", "uninstalled", "cost"]
    keyed = [([words.shared(by, value) for by, value in group["key"].items()], group) for group in report["groups"]]
    all_of_it = (["total", *[""] * (len(report["by"]) - 1)] if report["by"] else [], total)
    return [head, *([*key, *_cells(row, shown, stages)] for key, row in [*keyed, all_of_it])]


def _cells(row: Mapping[str, Any], shown: Sequence[str], stages: Sequence[str]) -> Iterator[str]:
    shares = row["shares"]
    yield words.number(row["requested"])
    for word in shown:
        share = shares[word][f"of_{_OF.get(word, 'sent')}"]
        yield _with_share(row[word], share) if words.can_be_known(word, row) else words.NOTHING
    for stage in stages:
        yield _with_share(row["reached"][stage], shares["reached"][stage]["of_sent"])
    yield words.number(row["opted_out"])
    yield words.number(row["uninstalled"])
    yield words.money(row["cost"]) or words.NOTHING


def _with_share(count: int, share: float | None) -> str:
    return f"{words.number(count)} {words.percent(share)}" if share else words.number(count)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not show: targets, what never went, who left, how long it took."""
    total = report["total"]
    yield from _targets(report)
    for said, count in words.losses(total):
        yield f"{words.number(count)} {said}"
    if under_way := words.under_way(total):
        yield f"{words.number(under_way)} under way"
    if total["deferred"]:
        share = words.percent(total["shares"]["deferred"]["of_requested"])
        yield f"{words.number(total['deferred'])} put off at least once by a rule ({share} of requested)"
    yield from _who_left(total)
    for word, done in (("to_open", "opened"), ("to_click", "clicked")):
        if (seconds := total["median_seconds"][word]) is not None:
            yield f"half of those that were {done} were within {words.length(seconds)}"
    if total["cost_per_conversion"]:
        yield f"{words.money(total['cost_per_conversion'])} for each conversion"
    if total["cost"] and total["unpriced"]:
        yield f"{words.number(total['unpriced'])} went by providers whose cost is not configured"
    if unseen := words.unseen(total):
        yield unseen
    yield from unattributed(report)


def _targets(report: Mapping[str, Any]) -> Iterator[str]:
    """Of all messages, and of groups as far as they are many enough to tell."""
    for held in words.telling(report["total"]):
        yield f"{words.VERDICTS[held['verdict']][0]} {_fared(held)}"
    for group in report["groups"]:
        for held in words.telling(group):
            if held["verdict"] != "too_few":
                yield f"{words.VERDICTS[held['verdict']][0]} {words.name(group['key'])}: {_fared(held)}"


def _who_left(total: Mapping[str, Any]) -> Iterator[str]:
    for word, done in (("opted_out", "opted out"), ("uninstalled", "uninstalled")):
        if total[word]:
            by_band = ", ".join(f"{band}: {words.number(total['left'][word][band])}" for band in PRESSURES)
            yield f"{words.number(total[word])} {done}, by contacts in the week before: {by_band}"


def _fared(held: Mapping[str, Any]) -> str:
    return f"{words.target(held)}: {words.VERDICTS[held['verdict']][1]}; {words.outcome(held)}"


def unattributed(report: Mapping[str, Any]) -> Iterator[str]:
    """What people did by themselves."""
    beside = report["unattributed"]
    for word, done in (("converted", "converted"), ("opted_out", "opted out"), ("uninstalled", "uninstalled")):
        if beside and beside[word]:
            yield f"{words.number(beside[word])} more {done} in that time, which belongs to no message"


def sheet(report: Mapping[str, Any]) -> str:
    """As CSV (RFC 4180): a row for each group, or one for all where nothing is grouped by."""
    by, total = report["by"], report["total"]
    text = _Text()
    write = csv.writer(text).writerow
    write(
        [
            *by,
            *COUNTED,
            *_STATES,
            *(f"reached {stage}" for stage in total["reached"]),
            "median_seconds_to_open",
            "median_seconds_to_click",
            *(f"cost {currency}" for currency in total["cost"]),
        ]
    )
    for row in report["groups"] if by else [total]:
        write(
            [
                *(_harmless(row["key"][word] or "") for word in by),
                *(row[word] for word in COUNTED),
                *(row["states"][state] for state in _STATES),
                *(row["reached"][stage] for stage in total["reached"]),
                row["median_seconds"]["to_open"],
                row["median_seconds"]["to_click"],
                *(row["cost"].get(currency, "0") for currency in total["cost"]),
            ]
        )
    return "".join(text.lines)


class _Text:
    """What csv writes to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def _harmless(name: str) -> str:
    """Somebody else's word, which must not be a formula of whoever opens the file."""
    return f"'{name}" if name.startswith(_FORMULA) else name
