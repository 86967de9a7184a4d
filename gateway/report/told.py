"""A report as JSON: what ``GET /v1/report`` answers, and all that the table, the sheet and the page are made of.

Pure. Names are kept: what is added later stands beside them.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final

from gateway.acts import BANDS, MOST, WITNESSED
from gateway.message import rfc3339
from gateway.report.counting import LEFT, Column
from gateway.report.targets import Verdict
from providers import Act

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from gateway.report.counting import Report, Row
    from gateway.report.targets import Held

PRESSURES: Final = (*(name for _, name in BANDS), MOST)
"""The bands, in their order."""
_DIGITS: Final = 6
"""Of a share. Six is more than any sample tells."""
_SMALLEST: Final = Decimal("0.000001")


def described(report: Report) -> dict[str, Any]:
    """All of it."""
    question = report.question
    return {
        "since": rfc3339(question.since),
        "until": rfc3339(question.until),
        "asked_at": rfc3339(report.asked_at),
        "zone": report.zone,
        "by": [str(by) for by in question.by],
        "category": question.category,
        "total": _row(report.total),
        "groups": [
            {"key": dict(zip(map(str, question.by), group.key, strict=True)), **_row(group.row)}
            for group in report.groups
        ],
        "unattributed": None if report.unattributed is None else _unattributed(report.unattributed),
    }


def _row(row: Row) -> dict[str, Any]:
    lost: dict[str, dict[str, int]] = {}
    for (state, reason), number in row.lost.items():
        lost.setdefault(str(state), {})[reason] = number
    return {
        **{str(column): None if column in row.hidden else number for column, number in row.counts.items()},
        "persons": row.persons,
        "reached": dict(row.reached),
        "states": {str(state): number for state, number in row.states.items()},
        "lost": lost,
        "left": {str(column): {band: row.left.get((column, band), 0) for band in PRESSURES} for column in LEFT},
        "shares": _shares(row),
        "median_seconds": {"to_open": _seconds(row.to_open), "to_click": _seconds(row.to_click)},
        "cost": {currency: plain(amount) for currency, amount in row.cost.items()},
        "cost_per_conversion": {
            currency: plain((amount / converted).quantize(_SMALLEST, ROUND_HALF_EVEN))
            for currency, amount in row.cost.items()
            # Of a part of them it would look cheaper than it was.
            if (converted := row.counts[Column.CONVERTED]) and not row.unpriced
        },
        "unpriced": row.unpriced,
        "targets": [_held(one, row) for one in row.targets],
        "channels": {str(channel): number for channel, number in row.channels.items()},
    }


def _shares(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"reached": {stage: {} for stage in row.reached}}
    for (column, base), share in row.shares.items():
        of = told.setdefault(str(column), {}) if isinstance(column, Column) else told["reached"][column]
        of[f"of_{base}"] = None if column in row.hidden else _rounded(share)
    return told


def _held(one: Held, row: Row) -> dict[str, Any]:
    target = one.target
    beyond = target.channel is not None and target.channel not in WITNESSED.get(target.step, {target.channel})
    seen = not beyond and Column(target.step) not in row.hidden
    return {
        "step": target.step,
        "stage": target.stage,
        "of": target.of,
        "of_stage": target.of_stage,
        "at_least": target.at_least,
        "category": target.category,
        "campaign": target.campaign,
        "channel": target.channel,
        "hits": one.hits if seen else None,
        "base": one.base,
        "share": _rounded(one.share) if seen else None,
        "low": _rounded(one.low) if seen else None,
        "high": _rounded(one.high) if seen else None,
        "verdict": one.verdict if seen else Verdict.TOO_FEW,
    }


def _unattributed(counts: Mapping[tuple[Act, str | None, str | None], int]) -> dict[str, Any]:
    """The same form as in a row, though these are acts and not messages."""
    told: dict[str, Any] = {str(act): 0 for act in (Act.CONVERTED, *map(Act, LEFT))}
    reached: dict[str, int] = {}
    left = {str(column): dict.fromkeys(PRESSURES, 0) for column in LEFT}
    for (act, stage, band), number in sorted(counts.items(), key=str):
        told[act] += number
        if act is Act.CONVERTED and stage is not None:
            reached[stage] = reached.get(stage, 0) + number
        elif act in left and band in PRESSURES:
            left[act][band] += number
    return {**told, "reached": reached, "left": left}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, _DIGITS)


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else round(length.total_seconds(), 3)


def plain(amount: Decimal) -> str:
    """Without exponent and needless zeros."""
    return f"{amount.normalize():f}"
