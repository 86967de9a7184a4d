"""A report as a page for people: one file, without script, that says the same on paper, in the dark and on a phone.

Pure, but that its style sheet lies beside it. Made of the JSON alone. Names are whatever services sent: all text is
escaped where it is written.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from gateway.report import words
from gateway.report.drawing import bar, slope, width
from gateway.report.table import rows, unattributed
from gateway.report.told import PRESSURES
from ratelimit import zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DRAWN: Final = 12
"""Groups that are drawn, the largest; the table has all."""
_LOSSES: Final = 8
"""The same of reasons, in a group."""
_STEPS: Final = ("delivered", "opened", "answered", "clicked", "converted")
_NOTHING: Final = ("0", words.NOTHING)
_LABELS: Final = {"delivered": "Reported delivered"}
_LEFT: Final = {"opted_out": "opted out", "uninstalled": "uninstalled"}


@cache
def style() -> str:
    """The style sheet."""
    return files(__package__).joinpath("page.css").read_text(encoding="utf-8")


@cache
def security() -> str:
    """What a browser may load for the page: nothing but its own style."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def page(report: Mapping[str, Any]) -> str:
    """All of it."""
    return "".join(_page(report))


def _page(report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        '<!doctype html><html lang="en" dir="ltr"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(security())}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex"><title>What came of it</title>'
        f"<style>{style()}</style></head><body><header><h1>What came of it</h1>"
    )
    yield f"<p>{_about(report)}</p></header><main>"
    total = report["total"]
    if not total["requested"]:
        yield "<p>No message was accepted in that time.</p></main></body></html>"
        return
    yield _tiles(total)
    yield '<section><h2>All together</h2><div class="card"><div class="two"><div>'
    yield from _drawn(total)
    yield "</div><div>"
    yield from _losses(total, None)
    yield from _pressure(report)
    yield "</div></div></div></section>"
    yield from _groups(report)
    yield from _everything(report)
    yield "</main></body></html>"


def _about(report: Mapping[str, Any]) -> str:
    since, until, asked = (_moment(report[word], report["zone"]) for word in ("since", "until", "asked_at"))
    about = (
        f"Messages accepted from {since} to {until}, and what has become of them by {asked} ({escape(report['zone'])})."
    )
    if report["category"] is not None:
        about += f" Only the category {_name(report['category'])}."
    return about + ' <span class="soft">Opens and clicks are those of people; machines are counted apart.</span>'


def _moment(at: str, where: str) -> str:
    local = datetime.fromisoformat(at).astimezone(zone(where))
    return f'<span class="at">{local.day} {local:%B %Y, %H:%M}</span>'


def _tiles(total: Mapping[str, Any]) -> str:
    shares = total["shares"]
    tiles = [
        ("Requested", words.number(total["requested"]), f"for {words.persons(total['persons'])}"),
        ("Sent", words.number(total["sent"]), f"{words.percent(shares['sent']['of_requested'])} of requested"),
        *(
            (
                word.capitalize(),
                words.number(total[word]),
                f"{words.percent(shares[word]['of_sent'])} of sent" if words.can_be_known(word, total) else "",
            )
            for word in ("opened", "clicked", "converted")
        ),
        ("Opted out", words.number(total["opted_out"]), f"{words.percent(shares['opted_out']['of_sent'])} of sent"),
        ("Uninstalled", words.number(total["uninstalled"]), ""),
    ]
    if total["cost"]:
        each = words.money(total["cost_per_conversion"])
        unpriced = f"without {words.number(total['unpriced'])} of unknown cost" if total["unpriced"] else ""
        note = f"{each} a conversion" if each else unpriced
        tiles.append(("Cost", words.money(total["cost"]).replace("\N{NO-BREAK SPACE}", " "), note))
    return f'<dl class="tiles">{"".join(_tile(*tile) for tile in tiles)}</dl>'


def _tile(term: str, value: str, note: str) -> str:
    more = f"<small>{escape(note)}</small>" if note else ""
    return f"<div><dt>{term}</dt><dd>{escape(value)}{more}</dd></div>"


# ----------------------------------------------------------------------------------------------------------- one group


def _groups(report: Mapping[str, Any]) -> Iterator[str]:
    groups: Sequence[Mapping[str, Any]] = report["groups"]
    if not groups:
        return
    by = " and ".join(filter(None, (", ".join(report["by"][:-1]), report["by"][-1])))
    largest = sorted(groups, key=lambda group: -group["requested"])[:DRAWN]
    yield f"<section><h2>By {by}</h2>"
    if len(groups) > DRAWN:
        yield f'<p class="soft">The {DRAWN} largest of {words.number(len(groups))}; the table below has all.</p>'
    yield '<div class="cards">'
    for group in largest:
        yield f'<article class="card"><h3>{_key(group["key"])}</h3>'
        yield from _drawn(group)
        yield from _losses(group, _LOSSES)
        yield "</article>"
    yield "</div></section>"


def _drawn(row: Mapping[str, Any]) -> Iterator[str]:
    """A funnel, the table behind it, and its targets."""
    if summary := " · ".join([*(_whose(row) if "key" in row else ()), *_when(row)]):
        yield f'<p class="soft small">{escape(summary)}</p>'
    if row["sent"] + row["unknown"]:
        steps = [*_steps(row)]
        yield f"<figure>{_funnel(row, steps)}{_behind(row, steps)}</figure>"
    if unseen := words.unseen(row):
        yield f'<p class="soft small">{escape(unseen.capitalize())}.</p>'
    if targets := words.telling(row):
        yield '<h4>Targets</h4><ul class="targets">'
        for held in targets:
            yield (
                f"<li>{_verdict(held, words.VERDICTS[held['verdict']][1])} {_name(words.target(held))}"
                f' <span class="soft">{escape(words.outcome(held))}</span></li>'
            )
        yield "</ul>"


def _verdict(held: Mapping[str, Any], text: str) -> str:
    return f'<span class="verdict {held["verdict"]}">{words.VERDICTS[held["verdict"]][0]} {escape(text)}</span>'


def _whose(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"for {words.persons(row['persons'])}"
    if row["cost"]:
        yield words.money(row["cost"])
    if row["cost_per_conversion"]:
        yield f"{words.money(row['cost_per_conversion'])} a conversion"


def _when(row: Mapping[str, Any]) -> Iterator[str]:
    if row["deferred"]:
        yield f"{words.percent(row['shares']['deferred']['of_requested'])} put off by a rule"
    for word, done in (("to_open", "opens"), ("to_click", "clicks")):
        if (seconds := row["median_seconds"][word]) is not None:
            yield f"half of the {done} within {words.length(seconds)}"


_Step = tuple[str, str, str | None, int, str]
"""Label, step, stage, messages, and what share they are of what."""


def _steps(row: Mapping[str, Any]) -> Iterator[_Step]:
    """Those that can be known of such messages."""
    shares = row["shares"]
    yield "Requested", "requested", None, row["requested"], ""
    yield "Sent", "sent", None, row["sent"], f"{words.percent(shares['sent']['of_requested'])} of requested"
    for word in filter(lambda word: words.can_be_known(word, row), _STEPS):
        yield (
            _LABELS.get(word, word.capitalize()),
            word,
            None,
            row[word],
            f"{words.percent(shares[word]['of_sent'])} of sent",
        )
    for stage, count in row["reached"].items():
        yield f"to {stage}", "converted", stage, count, f"{words.percent(shares['reached'][stage]['of_sent'])} of sent"


def _funnel(row: Mapping[str, Any], steps: Sequence[_Step]) -> str:
    """Steps below one another, as wide as they are large."""
    largest, above, drawn = max(step[3] for step in steps), 0.0, []
    for label, step, stage, count, note in steps:
        wide = width(count, largest)
        held = [one for one in words.telling(row) if (one["step"], one["stage"]) == (step, stage)]
        marks = [(width(one["at_least"] * one["base"], largest), one["verdict"]) for one in held]
        goals = "".join(map(_goal, held))
        drawn.append(
            f"<li>{slope(above, wide) if above else ''}<p>{_name(label)}"
            f'<span class="of"><b>{words.number(count)}</b> <span class="soft">{escape(note)}</span>{goals}</span></p>'
            f"{bar(wide, marks)}</li>"
        )
        above = wide
    return f'<ol class="funnel">{"".join(drawn)}</ol>'


def _goal(held: Mapping[str, Any]) -> str:
    """A target; where it is of something else than the share beside it, with the share of that."""
    if held["of"] == "sent":
        return f" {_verdict(held, f'target {words.goal(held)}')}"
    fared = _verdict(held, f"{words.percent(held['share'])}, target {words.goal(held)}")
    return f' {fared} <span class="soft">of {_name(words.of(held))}</span>'


def _behind(row: Mapping[str, Any], steps: Iterable[_Step]) -> str:
    body = []
    for label, step, stage, count, _ in steps:
        share = row["shares"].get(step, {}) if stage is None else row["shares"]["reached"][stage]
        of = [words.percent(share.get(f"of_{base}")) for base in ("requested", "sent", "delivered")]
        body.append(_row([label, words.number(count), *of]))
    head = _head(["Step", "Messages", "of requested", "of sent", "of delivered"])
    return _table(head, body)


def _losses(row: Mapping[str, Any], most: int | None) -> Iterator[str]:
    found = sorted(words.losses(row), key=lambda loss: -loss[1])
    if under_way := words.under_way(row):
        found.insert(0, ("still under way", under_way))
    if not found:
        return
    shown, rest = found[:most], found[most:] if most else []
    if rest:
        shown.append(("for other reasons", sum(count for _, count in rest)))
    yield "<h4>Not sent, or not arrived</h4><table><tbody>"
    for said, count in shown:
        yield _row([said, words.number(count), words.percent(count / row["requested"])])
    yield "</tbody></table>"


def _pressure(report: Mapping[str, Any]) -> Iterator[str]:
    """Who left, by how many contacts there were in the week before."""
    left = {said: report["total"]["left"][word] for word, said in _LEFT.items()}
    yield "<h4>Who left, by contacts in the week before</h4>"
    if not any(sum(bands.values()) for bands in left.values()):
        yield '<p class="small">Nobody, upon these messages.</p>'
    else:
        largest = max(count for bands in left.values() for count in bands.values())
        yield f'<table class="pressure"><thead>{_head(["Contacts", *map(str.capitalize, left)])}</thead><tbody>'
        for band in PRESSURES:
            cells = "".join(
                f"<td>{words.number(left[said][band])}{bar(width(left[said][band], largest))}</td>" for said in left
            )
            yield f'<tr><th scope="row">{band}</th>{cells}</tr>'
        yield "</tbody></table>"
    for sentence in unattributed(report):
        yield f'<p class="soft small">{escape(sentence)}.</p>'


# ------------------------------------------------------------------------------------------------------------ all of it


def _everything(report: Mapping[str, Any]) -> Iterator[str]:
    head, *body = rows(report)
    keys = len(report["by"])
    titles = "".join(
        f'<th scope="col" class="key">{text}</th>' if place < keys else f'<th scope="col">{_name(text)}</th>'
        for place, text in enumerate(head)
    )
    yield f'<section><h2>As a table</h2><div class="card all"><table><thead><tr>{titles}</tr></thead><tbody>'
    for cells in body[:-1]:
        yield f"<tr>{_cells(head, cells, keys)}</tr>"
    yield f'<tr class="total">{_cells(head, body[-1], keys)}</tr></tbody></table></div></section>'


def _cells(head: Sequence[str], cells: Sequence[str], keys: int) -> str:
    """Each with the name of its column, which stands beside it where a row has no room to lie."""
    kinds = ["key" if place < keys else "nothing" if cell in _NOTHING else "number" for place, cell in enumerate(cells)]
    return "".join(
        f'<td class="{kind}" data-name="{escape(name)}">{_cell(text)}</td>'
        for kind, name, text in zip(kinds, head, cells, strict=True)
    )


def _cell(text: str) -> str:
    count, share, percent = text.rpartition(" ")
    if not share or not percent.endswith("%"):
        return _name(text) if text else ""
    return f"<span>{escape(count)} <small>{escape(percent)}</small></span>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{_name(text)}</td>' for text in cells)}</tr>"


def _head(cells: Sequence[str]) -> str:
    titles = "".join(f'<th scope="col">{_name(text)}</th>' for text in cells)
    return f"<tr>{titles}</tr>"


def _table(head: str, body: Iterable[str]) -> str:
    """What stands behind a drawing."""
    return (
        f"<details><summary>The same as a table</summary><table><thead>{head}</thead>"
        f"<tbody>{''.join(body)}</tbody></table></details>"
    )


def _key(key: Mapping[str, str | None]) -> str:
    return " · ".join(_name(words.shared(by, value)) for by, value in key.items())


def _name(text: str) -> str:
    """Somebody else's word, in whatever direction it is written."""
    return f"<bdi>{escape(text)}</bdi>"
