"""Can each cap and gap of a policy ever hold anybody back, and do the places that are kept serve anybody?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from gateway.config.draft import Draft, Finding, listed
from gateway.config.week import length
from gateway.message import Priority
from ratelimit import Calendar, FrequencyCap, MinimumGap, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimit import Rule

_DAY: Final = timedelta(days=1)
_NOMINAL: Final = {Calendar.DAY: _DAY, Calendar.WEEK: 7 * _DAY, Calendar.MONTH: 31 * _DAY}
"""How long calendar windows are at most, changes of clocks aside."""
_SHORTEST: Final = {Calendar.DAY: _DAY, Calendar.WEEK: 7 * _DAY, Calendar.MONTH: 28 * _DAY}
_TOUCHED: Final = {
    (Calendar.WEEK, Calendar.DAY): 7,
    (Calendar.MONTH, Calendar.DAY): 31,
    (Calendar.MONTH, Calendar.WEEK): 6,
    (Calendar.WEEK, Calendar.MONTH): 2,
}
"""In how many of the second one of the first can have a part. One lies within one where nothing else is said."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A cap; a gap is one too, of one contact in its length."""

    rule: Rule
    most: int
    """That any message may see taken before it is held back."""
    least: int
    """That the least urgent may: without the places that are kept."""
    per: timedelta | Calendar
    scope: frozenset[str]


def findings(draft: Draft) -> Iterator[Finding]:
    """All about caps and gaps."""
    limits = [*map(_of_cap, draft.policy.caps), *map(_of_gap, draft.policy.gaps)]
    for index, limit in enumerate(limits):
        reach = draft.reach(limit.rule)
        if reach and not draft.origins[limit.rule.name].preset:
            yield from _never_met(draft, limit, index, limits)
            yield from _empty_scope(draft, limit)
    for cap in draft.policy.caps:
        yield from _kept(draft, cap)


def _of_cap(cap: FrequencyCap) -> _Limit:
    kept = sum(places for _, places in cap.reserve)
    return _Limit(cap, cap.limit, cap.limit - kept, cap.per, _scope(cap))


def _of_gap(gap: MinimumGap) -> _Limit:
    return _Limit(gap, 1, 1, gap.gap, _scope(gap))


def _scope(rule: FrequencyCap | MinimumGap) -> frozenset[str]:
    return frozenset({*rule.scope, *(f"labels.{label}" for label in rule.scope_labels)})


def _never_met(draft: Draft, limit: _Limit, index: int, limits: list[_Limit]) -> Iterator[Finding]:
    for at, other in enumerate(limits):
        if at == index or not _settles(draft, other, limit):
            continue
        if at > index and _settles(draft, limit, other):
            continue  # the same twice: told of the second
        at_most = _windows(limit.per, other.per) * other.most
        what, key = ("a gap", "gap") if isinstance(limit.rule, MinimumGap) else ("a cap", "limit")
        yield Finding(
            draft.place(limit.rule, key),
            f"is {what} that can never hold anybody back: {other.rule.name!r} lets no more than {at_most} through "
            f"{_in_words(limit.per)} as it is; {_remedy(limit, at_most)}, or remove {limit.rule.name!r}",
        )
        return


def _settles(draft: Draft, strict: _Limit, loose: _Limit) -> bool:
    """Whether one always holds back before the other would."""
    fixed = _fixed(draft, loose)
    return (
        not _counts_unheld(draft, loose.rule)
        and strict.scope - fixed <= loose.scope
        and draft.wider(strict.rule, loose.rule)
        and loose.least >= _windows(loose.per, strict.per) * strict.most
    )


def _counts_unheld(draft: Draft, rule: Rule) -> bool:
    """Whether contacts take its places that no cap holds back: of categories that are exempt, but count."""
    return any(
        category.caps_exempt and category.counts and category.name in (rule.only.categories or {category.name})
        for category in draft.policy.categories.values()
    )


def _fixed(draft: Draft, limit: _Limit) -> frozenset[str]:
    """What all contacts that count for it have in common, whatever its scope."""
    reach = draft.reach(limit.rule)
    alone = {f"labels.{label}" for label, values in limit.rule.only.labels if len(values) == 1}
    if len({channel for channel, _ in reach}) == 1 and limit.rule.only.channels:
        alone.add(Scope.CHANNEL)
    if len({category for _, category in reach}) == 1 and limit.rule.only.categories:
        alone.add(Scope.CATEGORY)
    return frozenset(alone)


def _windows(of: timedelta | Calendar, inner: timedelta | Calendar) -> int:
    """How many windows of the one kind, full each, one of the other can hold at most."""
    if isinstance(inner, timedelta):
        return -(-(_NOMINAL[of] if isinstance(of, Calendar) else of) // inner)
    if isinstance(of, Calendar):
        return _TOUCHED.get((of, inner), 1)
    return -(-of // _SHORTEST[inner]) + 1


def _empty_scope(draft: Draft, limit: _Limit) -> Iterator[Finding]:
    alone = _fixed(draft, limit) & limit.scope
    if alone:
        these = listed(sorted(alone))
        problem = f"names {these}, in which all that it is narrowed to agree anyway: leave {these} out of the scope"
        yield Finding(draft.place(limit.rule, "scope"), problem)


def _kept(draft: Draft, cap: FrequencyCap) -> Iterator[Finding]:
    place = draft.place(cap, "reserve")
    priorities = {draft.policy.categories[name].priority for _, name in draft.reach(cap)}
    for number, _ in cap.reserve:
        priority = Priority(number)
        keeps = f"keeps places for {priority.word}"
        if priority is max(Priority):
            yield Finding(place, f"{keeps}, but nothing is less urgent: remove it, or name a higher priority")
        elif priorities and min(priorities) > priority:
            yield Finding(
                place,
                f"{keeps} and above, but no category that the cap is for is so urgent: name a lower priority, or "
                f"remove it, else these places stay empty",
            )
        elif priorities and max(priorities) <= priority:
            yield Finding(place, f"{keeps} and above, but no category that the cap is for is less urgent: remove it")


def _remedy(limit: _Limit, at_most: int) -> str:
    if isinstance(limit.rule, MinimumGap):
        return "lengthen it"
    kept = limit.most - limit.least
    return f"lower it below {at_most + kept}" if at_most + kept > 1 else "narrow the other"


def _in_words(per: timedelta | Calendar) -> str:
    return f"a {per}" if isinstance(per, Calendar) else f"in {length(per // timedelta(minutes=1))}"
