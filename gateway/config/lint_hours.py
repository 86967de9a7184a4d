"""Do quiet hours and send windows leave time to send, and does each of them matter?"""

from __future__ import annotations

import functools
from datetime import time, timedelta
from typing import TYPE_CHECKING, Final

from gateway.config import week
from gateway.config.draft import ALL_PERSONS, Draft, Finding, listed
from ratelimit import QuietHours, SendWindow

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from gateway.config.draft import Pair
    from gateway.config.values import Category

    Hours = QuietHours | SendWindow
    Context = tuple[str | None, Mapping[str, str]]
    """A person's country, None where it is not known, and a message's labels."""

_NO_COUNTRY: Final = ""
"""One that no rule names."""
_MORNING, _EVENING = time(10), time(18)
_SLEEP: Final = (time(22), time(6))
"""Hours that a rule leaves open for messages only by mistake, unless another shuts them."""
_HALF_A_DAY: Final = week.DAY // 2


def findings(draft: Draft) -> Iterator[Finding]:
    """All about the clock."""
    rules = _of(draft)
    broken: set[str] = set()
    for rule in rules:
        for finding in (*_by_itself(draft, rule), *_exchanged(draft, rule, rules)):
            broken |= {rule.name} if finding.is_error else set()
            yield finding
    sound = [rule for rule in rules if rule.name not in broken]
    closed = yield from _never_open(draft, sound)
    for rule in sound:
        if not draft.origins[rule.name].preset and draft.reach(rule):
            yield from _pointless(draft, rule, sound)
    for window in draft.policy.send_windows:
        if window.name not in broken | closed:
            yield from _shut_hours(draft, window, sound)


def _of(draft: Draft) -> tuple[Hours, ...]:
    return (*draft.policy.quiet_hours, *draft.policy.send_windows)


def _shut(rule: Hours) -> int:
    """The minutes of a week in which the rule alone permits nothing."""
    if isinstance(rule, QuietHours):
        return week.span(rule.start, rule.end, rule.days)
    return week.ALL & ~_hours(rule)


def longest_night(draft: Draft, category: Category) -> timedelta:
    """How long it lasts at most until something of the category can be sent by its channel, to ordinary persons.

    A message waits for the first channel that reaches its person: clocks never move it on to the next. What can never
    be sent is another matter.
    """
    context: Context = (_NO_COUNTRY, {})
    rules = [rule for rule in _of(draft) if rule.enforce >= ALL_PERSONS]
    longest = timedelta(0)
    for channel in draft.channels(category):
        applying = [rule for rule in rules if _applies(draft, rule, (channel, category.name), context)]
        night = week.union(map(_shut, applying))
        longest = max(longest, timedelta(0) if night == week.ALL else _longest(night))
    return longest


def _longest(minutes: int) -> timedelta:
    return timedelta(minutes=max((length for _, length in week.runs(minutes)), default=0))


@functools.lru_cache(maxsize=256)
def _hours(window: SendWindow) -> int:
    return week.union(week.span(*hours, window.days) for hours in window.hours)


def _opens(minutes: int, attempt: timedelta) -> bool:
    """Whether an attempt fits in: its last instant must be free too."""
    return minutes == week.ALL or _longest(minutes) > attempt


# ------------------------------------------------------------------------------------------------------- one rule alone


def _by_itself(draft: Draft, rule: Hours) -> Iterator[Finding]:
    takes = f"an attempt takes {draft.attempt.total_seconds():g}s (worker.attempt)"
    open_minutes = week.ALL & ~_shut(rule)
    if isinstance(rule, SendWindow):
        for start, length in week.runs(open_minutes):
            if length < week.WEEK and timedelta(minutes=length) <= draft.attempt:
                yield Finding(
                    draft.place(rule, "hours"),
                    f"has hours at {week.clock(start)} that last {week.length(length)}, in which nothing can be sent, "
                    f"for {takes}: lengthen them",
                    is_error=True,
                )
                return
    elif not _opens(open_minutes, draft.attempt):
        yield Finding(
            draft.place(rule, "to"), f"leaves no time to send, for {takes}: shorten these hours", is_error=True
        )
        return
    elif rule.release_over:
        shortest = min(length for _, length in week.runs(open_minutes))
        if rule.release_over > timedelta(minutes=shortest) / 2:
            half = week.length(shortest // 2)
            yield Finding(
                draft.place(rule, "release_over"),
                f"is more than half of the {week.length(shortest)} until it is quiet again, so the last would hear "
                f"late and have little time left: lower it to {half} at most",
            )


def _exchanged(draft: Draft, rule: Hours, rules: Iterable[Hours]) -> Iterator[Finding]:
    """Beginnings and ends that were hardly meant in this order."""
    if isinstance(rule, SendWindow):
        for start, end in _backwards(rule):
            ends = f"{end:%H:%M}"
            yield Finding(
                draft.place(rule, "hours"),
                f"has {start:%H:%M}-{ends}, which ends before it begins and so runs over midnight, for "
                f"{week.length(week.length_of(start, end))}: exchange them, {ends}-{start:%H:%M}, or shorten them",
            )
    elif not draft.origins[rule.name].preset and rule.start <= _MORNING and rule.end >= _EVENING:
        others = [other for other in rules if other is not rule and draft.wider(other, rule)]
        if not rule.days or week.span(*_SLEEP, rule.days) & ~week.union(map(_shut, others)):
            yield Finding(
                draft.place(rule, "from"),
                "is quiet all day and loud at night: exchange from and to, if it was meant so",
            )


def _backwards(window: SendWindow) -> list[tuple[time, time]]:
    """Hours over midnight that last longer than the rest of the day would, or run into others of the same window."""
    found = []
    for start, end in window.hours:
        if time() < end < start:
            own = week.span(start, end, window.days)
            others = week.union(week.span(*hours, window.days) for hours in window.hours if hours != (start, end))
            if week.length_of(start, end) > _HALF_A_DAY or own & others:
                found.append((start, end))
    return found


# ---------------------------------------------------------------------------------------------------- all rules at once


def _never_open(draft: Draft, rules: Sequence[Hours]) -> Generator[Finding, None, set[str]]:
    """Rules that together leave nothing; returns the names of all such."""
    told: dict[frozenset[str], tuple[list[Pair], list[Hours], Context]] = {}
    for context in _contexts(rules):
        for pair in _pairs(draft):
            guilty = _guilty(draft, [rule for rule in rules if _applies(draft, rule, pair, context)])
            names = frozenset(rule.name for rule in guilty)
            if guilty:
                told.setdefault(names, ([], guilty, context))[0].append(pair)
    for pairs, guilty, (country, _) in told.values():
        windows = [rule for rule in guilty if isinstance(rule, SendWindow)]
        which = listed(dict.fromkeys(f"{channel} of {category}" for channel, category in pairs))
        unknown = country is None and len({rule.only.countries for rule in guilty if rule.only.countries}) > 1
        whose = " to persons whose country is not known, who may be in any" if unknown else ""
        hours = "have no hours in common" if len(windows) == len(guilty) else "leave no time open"
        yield Finding(
            draft.place((windows or guilty)[0], *(("hours",) if windows else ())),
            f"{listed(repr(rule.name) for rule in guilty)} together {hours}, so {which} could never be sent{whose}: "
            "let their hours overlap, or narrow one of them",
            is_error=not unknown,
        )
    return {name for names in told for name in names}


def _contexts(rules: Iterable[Hours]) -> list[Context]:
    """Persons and messages for which different rules may apply, ordinary ones first."""
    countries = sorted({country for rule in rules for country in rule.only.countries})
    labels: list[Mapping[str, str]] = [{}]
    for rule in rules:
        chosen = {label: min(values) for label, values in rule.only.labels}
        if chosen not in labels:
            labels.append(chosen)
    return [(country, message) for message in labels for country in (_NO_COUNTRY, *countries, None)]


def _pairs(draft: Draft) -> list[Pair]:
    return [(channel, each.name) for each in draft.policy.categories.values() for channel in draft.channels(each)]


def _applies(draft: Draft, rule: Hours, pair: Pair, context: Context) -> bool:
    country, labels = context
    return (
        rule.enforce > 0
        and pair in draft.reach(rule)
        and (not rule.only.countries or country is None or country in rule.only.countries)
        and all(labels.get(label) in values for label, values in rule.only.labels)
    )


def _guilty(draft: Draft, rules: list[Hours]) -> list[Hours]:
    """Those that leave no time together, none of which could be spared; empty if there is time."""
    if _opens(_open(rules), draft.attempt):
        return []
    for rule in rules:
        others = [other for other in rules if other is not rule]
        if not _opens(_open(others), draft.attempt):
            return _guilty(draft, others)
    return rules


def _open(rules: Iterable[Hours]) -> int:
    return week.ALL & ~week.union(map(_shut, rules))


# ----------------------------------------------------------------------------------------------------- one among others


def _pointless(draft: Draft, rule: Hours, rules: Sequence[Hours]) -> Iterator[Finding]:
    if not _shut(rule):
        if not (isinstance(rule, SendWindow) and _backwards(rule)):  # which has been told
            problem = "is open at any time, it holds nothing back: shorten or remove it"
            yield Finding(draft.place(rule, "hours"), problem)
        return
    if rule.release_over:
        return
    for other in rules:
        if other is rule or _shut(rule) & ~_shut(other) or not draft.wider(other, rule):
            continue
        if isinstance(rule, QuietHours) and isinstance(other, SendWindow):
            continue  # it looks at the likeliest zone alone
        twins = _shut(rule) == _shut(other) and draft.wider(rule, other) and type(rule) is type(other)
        if not twins or rules.index(other) < rules.index(rule):
            yield Finding(
                draft.place(rule),
                f"can never hold anybody back: {other.name!r} already holds everything that it would; remove it",
            )
            return


def _shut_hours(draft: Draft, window: SendWindow, rules: Sequence[Hours]) -> Iterator[Finding]:
    """Hours that other rules never let be used."""
    others = [rule for rule in rules if rule is not window and draft.wider(rule, window)]
    for start, end in window.hours:
        hours = week.span(start, end, window.days)
        closing = [rule.name for rule in others if hours & _shut(rule)]
        if closing and not _opens(hours & _open(others), draft.attempt):
            yield Finding(
                draft.place(window, "hours"),
                f"has {start:%H:%M}-{week.clock(week.minute(end) or week.DAY)}, closed by "
                f"{listed(map(repr, closing))}: move or remove these hours",
            )
    ordered = sum(week.length_of(*hours) for hours in window.hours) * len(window.days or range(7))
    if ordered > _hours(window).bit_count() and not _backwards(window):
        yield Finding(draft.place(window, "hours"), "has hours that overlap: write them as one")
