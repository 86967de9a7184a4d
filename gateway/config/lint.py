"""Does a policy say what its author can have meant?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from gateway.config import lint_hours, lint_limits, week
from gateway.config.draft import ALL_PERSONS, Draft, Finding, Origin, listed
from gateway.message import OnUnknown, Priority, WhenCapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from gateway.config.faults import Place
    from gateway.config.values import Category
    from ratelimit import Rule

__all__ = ["Draft", "Finding", "Origin", "findings"]

TRIAL: Final = timedelta(days=30)
"""After so long, whoever tries a rule on some persons knows enough to enforce or remove it."""
_OBEY: Final = "take the exemption away, or name other categories"


def findings(draft: Draft, today: date) -> Iterator[Finding]:
    """All that can hardly have been meant, and what to do about it."""
    yield from _presets(draft)
    for rule in draft.policy.all_rules:
        yield from _reaching(draft, rule)
        yield from _on_trial(draft, rule, today)
    yield from lint_limits.findings(draft)
    yield from lint_hours.findings(draft)
    yield from _holidays(draft)
    for category in draft.policy.categories.values():
        yield from _category(draft, category)


def _presets(draft: Draft) -> Iterator[Finding]:
    """Categories that a preset is for, and that need not obey all of its rules."""
    kinds: dict[tuple[Place, str], dict[str, set[str]]] = {}
    for rule in draft.policy.all_rules:
        origin = draft.origins[rule.name]
        exempt = _exempt(draft, rule)
        if origin.preset and exempt:
            found = kinds.setdefault((origin.place, origin.preset), {})
            found.setdefault(_kind(rule), set()).update(exempt)
    for (place, preset), found in kinds.items():
        exempt = sorted(set().union(*found.values()))
        problem = f"the preset {preset} {_no_say(exempt, listed(found))}: {_OBEY}"
        yield Finding((*place, "category"), problem, is_error=True)


def _kind(rule: Rule) -> str:
    return "caps" if rule.looks_back else "quiet hours"


def _exempt(draft: Draft, rule: Rule) -> list[str]:
    """Categories that a rule names and has no say about."""
    categories = draft.policy.categories
    return sorted(name for name in rule.only.categories if draft.exempt(rule, categories[name]))


def _reaching(draft: Draft, rule: Rule) -> Iterator[Finding]:
    """Whom a rule names, and whom of these it really has a say about."""
    categories, only, kind = draft.policy.categories, rule.only, _kind(rule)
    exempt = _exempt(draft, rule)
    if exempt and draft.origins[rule.name].preset:
        return  # told of the preset as a whole
    if exempt and len(exempt) == len(only.categories):
        yield Finding(draft.place(rule, "category"), f"{_no_say(exempt, kind)}: {_OBEY}", is_error=True)
    elif exempt:
        yield Finding(draft.place(rule, "category"), f"{_no_say(exempt, kind)}: leave out {listed(exempt)}")
    elif not draft.reach(rule):
        unrouted = sorted(only.channels - draft.routes)
        if not only.categories and all(draft.exempt(rule, category) for category in categories.values()):
            yield Finding(draft.place(rule), f"{_no_say(sorted(categories), kind)}: remove the rule, or an exemption")
        elif unrouted and len(unrouted) == len(only.channels):
            problem = f"holds nothing back: there is no route for {listed(unrouted, 'or')}; add one, or remove the rule"
            yield Finding(draft.place(rule, "channel"), problem)
        else:
            channels = listed(sorted(only.channels), "or")
            problem = f"holds nothing back: no category that must obey it goes by {channels}; name others, or remove it"
            yield Finding(draft.place(rule, "channel"), problem)


def _no_say(exempt: list[str], kind: str) -> str:
    return f"has no say about {listed(exempt)}, exempt from {kind}"


def _on_trial(draft: Draft, rule: Rule, today: date) -> Iterator[Finding]:
    origin = draft.origins[rule.name]
    since, place = origin.since, (*origin.place, "since")
    how = "in shadow" if not rule.enforce else f"enforced for {rule.enforce:g}% of the persons"
    if rule.enforce >= ALL_PERSONS:
        if since:
            yield Finding(place, "says since when the rule has been on trial, but it is enforced for all: remove it")
    elif since is None:
        problem = f"is {how}, nobody knows for how long: add since: {today}, to be reminded to decide about it"
        yield Finding((*origin.place, "enforce"), problem)
    elif since > today:
        yield Finding(place, f"lies ahead of {today}: write the day on which the trial began")
    elif today - since > TRIAL:
        problem = f"was {(today - since).days} days ago and the rule is still {how}: enforce it, or remove it"
        yield Finding(place, problem)


def _holidays(draft: Draft) -> Iterator[Finding]:
    rules = draft.policy.holidays
    for index, rule in enumerate(rules):
        if draft.origins[rule.name].preset:
            continue
        if rule.only.countries and rule.country not in rule.only.countries:
            persons = listed(sorted(rule.only.countries), "or")
            problem = f"holds persons of {persons} to the holidays of {rule.country}: is person_country wrong?"
            yield Finding(draft.place(rule, "person_country"), problem)
        for at, other in enumerate(rules):
            same = at != index and other.country == rule.country and other.subdivision in (rule.subdivision, None)
            if same and other.subdivision == rule.subdivision and draft.wider(other, rule):
                if at > index and draft.wider(rule, other):
                    continue  # the same twice: told of the second
                yield Finding(draft.place(rule), f"{other.name!r} has the same holidays for as many: remove one")
                break


# ----------------------------------------------------------------------------------------------------------- categories


def _category(draft: Draft, category: Category) -> Iterator[Finding]:
    place: Place = ("policy", "categories", category.name)
    unrouted = [channel for channel in category.channels or () if channel not in draft.routes]
    if unrouted:
        these = listed(unrouted)
        yield Finding((*place, "channels"), f"no route goes by {these}: add one under routes, or leave {these} out")
    exempt = [
        word
        for word, is_exempt in (("caps", category.caps_exempt), ("quiet_hours", category.quiet_hours_exempt))
        if is_exempt
    ]
    if category.priority is Priority.BULK and exempt:
        problem = "bulk messages that nothing holds back annoy people: remove it, or raise the priority"
        yield from (Finding((*place, word), problem) for word in exempt)
    yield from _when_held(draft, category, place)
    yield from _in_time(draft, category, place)


def _when_held(draft: Draft, category: Category, place: Place) -> Iterator[Finding]:
    rules = draft.policy.rules(category)
    if category.when_capped is not WhenCapped.DEFER and not any(rule.looks_back for rule in rules):
        why = "it is exempt from caps" if category.caps_exempt else "no cap is for it"
        yield Finding((*place, "when_capped"), f"is never asked, {why}: remove it")
    elif category.when_capped is WhenCapped.NEXT_CHANNEL and len(draft.channels(category)) == 1:
        only = draft.channels(category)[0]
        problem = (
            f"has no next channel, messages go by {only} alone: add a channel with a route, or choose defer or drop"
        )
        yield Finding((*place, "when_capped"), problem)
    if category.repeat_after and category.on_unknown is not OnUnknown.REPEAT:
        yield Finding((*place, "repeat_after"), "is never asked, without on_unknown: repeat: add that, or remove it")
    if category.collapse and not rules:
        yield Finding((*place, "collapse"), "is never asked, no rule makes these messages wait: remove it")


def _in_time(draft: Draft, category: Category, place: Place) -> Iterator[Finding]:
    """Whether messages live long enough to be sent."""
    place, life = (*place, "expires_after"), category.expires_after
    if life <= draft.attempt:
        takes = f"an attempt takes {draft.attempt.total_seconds():g}s (worker.attempt)"
        yield Finding(place, f"leaves no time to send, for {takes}: lengthen it")
        return
    rules = [rule for rule in draft.policy.rules(category) if rule.enforce >= ALL_PERSONS and not rule.only.labels]
    for gap in draft.policy.gaps:
        if gap in rules and gap.gap >= life and category.when_capped is not WhenCapped.DROP and draft.reach(gap):
            yield Finding(
                place,
                f"is no longer than {gap.name!r}, {_minutes(gap.gap)}: what comes right after another message expires "
                f"unsent; lengthen it, or exempt the category from caps",
            )
    night = lint_hours.longest_night(draft, category)
    if night >= life:
        yield Finding(
            place,
            f"is no longer than the {_minutes(night)} in which rules let nothing through: what comes at the beginning "
            f"expires unsent; lengthen it, or exempt the category from quiet hours",
        )


def _minutes(length: timedelta) -> str:
    return week.length(-(-length // timedelta(minutes=1)))
