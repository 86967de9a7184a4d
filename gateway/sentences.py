"""How is a decision told so that a support agent can read it aloud? The JSON of ``explain``, in sentences.

Pure. Times are by the person's clock, to the minute; neither addresses nor content are in the JSON.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from gateway.causes import REASONS, of_error
from gateway.message import UNSUBSCRIBABLE, AttemptState, MessageState, Refusal
from gateway.whereabouts import ZoneSource
from providers import Act, Agent
from ratelimit import zone as zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STATES: Mapping[str, str] = {
    MessageState.WAITING: "is waiting",
    MessageState.SENDING: "is being handed to a provider at this moment",
    MessageState.SENT: "was handed to a provider, which accepted it",
    MessageState.DELIVERED: "was delivered",
    MessageState.UNDELIVERED: "was accepted by a provider, which later reported that it did not arrive",
    MessageState.FAILED: "was given up",
    MessageState.EXPIRED: "was not sent before it expired",
    MessageState.REFUSED: "was refused and will not be sent",
    MessageState.CANCELLED: "was cancelled before it was sent",
    MessageState.UNKNOWN: "may have been sent: nobody knows, and it is not sent again",
    MessageState.PARKED: "was set aside for people to look at",
}

_ATTEMPTS: Mapping[str, str] = {
    AttemptState.INTENT: "it is under way",
    AttemptState.ACCEPTED: "the provider accepted it",
    AttemptState.NOT_SENT: "it was not sent",
    AttemptState.REJECTED: "it was not sent",
    AttemptState.UNREACHABLE: "it was not sent",
    AttemptState.UNKNOWN: "nobody knows whether it was sent",
    AttemptState.DELIVERED: "it was delivered",
    AttemptState.UNDELIVERED: "the provider accepted it, but it did not arrive",
}
_WENT_WELL = (AttemptState.INTENT, AttemptState.ACCEPTED, AttemptState.DELIVERED)
"""An error that is recorded beside one of these is of an earlier time, and was overruled."""

_BECOMES: Mapping[str, str] = {
    MessageState.EXPIRED: "expire",
    MessageState.REFUSED: "be refused",
    MessageState.FAILED: "be given up",
    MessageState.UNKNOWN: "be left alone, for it may have been sent",
    MessageState.PARKED: "be set aside for people to look at",
}

_SOURCES: Mapping[str, str] = {
    ZoneSource.REQUEST: "as the request says",
    ZoneSource.PROFILE: "as the person's profile says",
    ZoneSource.PHONE: "where the person's phone number is from",
    ZoneSource.COUNTRY: "the policy's choice for the person's country",
    ZoneSource.POLICY: "the policy's last resort, for nothing better is known of the person",
}

_ACTS: Mapping[tuple[str, str], str] = {
    (Act.OPENED, Agent.HUMAN): "It was opened at {at} by a person",
    (Act.OPENED, Agent.MACHINE): "A mail program fetched it ahead at {at}, which does not count as opened",
    (Act.CLICKED, Agent.HUMAN): "A person followed {link} in it at {at}",
    (Act.CLICKED, Agent.MACHINE): "A machine followed {link} in it at {at}, which does not count as clicked",
    (Act.ANSWERED, Agent.HUMAN): "A person answered the call at {at}",
    (Act.ANSWERED, Agent.MACHINE): "A machine answered the call at {at}, which does not count as answered",
    (Act.CONVERTED, Agent.HUMAN): "The person {converted} at {at}; this message is held to have led to it",
    (Act.APP_OPENED, Agent.HUMAN): "The person opened the app at {at}; this message is held to have led to it",
    (Act.OPTED_OUT, Agent.HUMAN): "The person said no to {no} at {at}",
    (Act.UNINSTALLED, Agent.HUMAN): "The app was found to be uninstalled at {at}",
}
"""What was done with a message, and by whom; those that are missing are told in their own words."""

_SHOWN = 5
"""Holders of places, turns in a message's history, and what was done with it, that are told one by one."""


class _Clock:
    """The person's, and which day it is by it."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        """``view`` says the zone, and when it was asked."""
        self._zone = zone_of(view["zone"])
        self._now = datetime.fromisoformat(view["asked_at"])
        self._today = self._now.astimezone(self._zone).date()

    def __call__(self, text: str) -> str:
        """An instant of the JSON: ``08:00``, ``08:00 tomorrow``, ``08:00 on Monday 23 November``."""
        there = datetime.fromisoformat(text).astimezone(self._zone)
        # Only what the clocks show twice has two offsets: an instant never falls into the hour that they skip.
        other = there.replace(fold=1 - there.fold).utcoffset()
        twice = "" if other == there.utcoffset() else f" ({_FOLDS[there.fold]} the clocks go back)"
        return f"{there:%H:%M}{twice}{self._day(there.date())}"

    def retold(self, why: str) -> str:
        """What a rule says, with its instants told as all others are."""
        return _DATE.sub(lambda found: self._spelt(date.fromisoformat(found[0])), _WRITTEN.sub(self._told, why))

    def _told(self, found: re.Match[str]) -> str:
        day = date.fromisoformat(found["day"])
        if found["zone"] == self._zone.key:
            return f"{found['time']}{self._day(day)}"
        return f"{found['time']} on {self._spelt(day)} ({found['zone']})"

    @property
    def now(self) -> str:
        """What it shows."""
        there = self._now.astimezone(self._zone)
        return f"{there:%H:%M} on {there:%A} {there.day} {there:%B %Y}"

    def _day(self, day: date) -> str:
        """With a space before it; nothing for today."""
        near = _NEAR.get(day - self._today)
        return f" on {self._spelt(day)}" if near is None else near

    def _spelt(self, day: date) -> str:
        year = "" if day.year == self._today.year else f" {day.year}"
        return f"{day:%A} {day.day} {day:%B}{year}"


_WRITTEN = re.compile(r"(?P<time>\d\d:\d\d)(:\d\d)? on (?P<day>\d{4}-\d\d-\d\d) \((?P<zone>[A-Za-z0-9_+/-]+)\)")
"""An instant as ``ratelimit.clock`` writes it."""
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_FOLDS = ("before", "after")
_NEAR = {timedelta(0): "", timedelta(days=1): " tomorrow", timedelta(days=-1): " yesterday"}


def of_message(view: Mapping[str, Any]) -> list[str]:
    """What became of a message and why, and what will: the JSON of ``explanation`` in sentences."""
    clock, now = _Clock(view), view["now"]
    return [
        f"Message {view['message']} {STATES[view['state']]}.",
        _request(view, clock),
        *_fate(view, clock),
        *_suspected(view),
        *(_present(view, now, clock) if now else ()),
        *_history(view, clock),
        *_done(view["acts"], clock),
        *_whose_clock(view, clock),
    ]


def of_eligibility(answer: Mapping[str, Any]) -> list[str]:
    """Whether a person may be contacted: the JSON of ``answered`` in sentences."""
    clock = _Clock(answer)
    what = f"{answer['category']} by {answer['channel']}"
    if answer["refusal"]:
        head = f"No: {what} must not be sent to {answer['user']}, because {REASONS[answer['refusal']]}."
    elif answer["allowed"]:
        head = f"Yes: {what} may be sent to {answer['user']} at {clock(answer['at'])}."
    else:
        then = ", nor later."
        if answer["next"]:
            then = f". The first moment that all rules permit is {clock(answer['next'])}."
        head = f"No: {what} may not be sent to {answer['user']} at {clock(answer['at'])}{then}"
    unknown = f"No address for {answer['channel']} is known of {answer['user']}: the request must bring one."
    rules = [rule for rule in answer["rules"] if rule["name"] != answer["refusal"]]
    return [
        head,
        *_rules(rules, clock),
        *_holders(rules, clock),
        *_opted_out(answer),
        *(() if answer["has_address"] else (unknown,)),
        f"The rules are those of policy version {answer['policy']}.",
        *_whose_clock(answer, clock),
    ]


def _request(view: Mapping[str, Any], clock: _Clock) -> str:
    campaign = f", campaign {view['campaign']}" if view["campaign"] else ""
    return (
        f"It is request {view['id']} of {view['source']} for {view['user']}: category {view['category']}{campaign},"
        f" priority {view['priority']}, accepted at {clock(view['accepted_at'])}."
    )


def _fate(view: Mapping[str, Any], clock: _Clock) -> Iterator[str]:
    """Why it ended, where a decision ended it."""
    decision = _deciding(view)
    if decision is None or _goes_on(decision):
        return
    reason, newer = decision["reason"], ()
    told = of_error(reason)
    decided = f"That was decided at {clock(decision['at'])} under policy version {decision['policy']}"
    if view["attempts"] and view["attempts"][-1]["error"] == reason:
        yield f"{decided}, after its last attempt."
        return
    if reason == Refusal.COLLAPSED:  # the newer one is told as if a rule had said so
        newer = tuple(rule["why"] for rule in decision["why"])
    yield f"{decided}, because {': '.join((told, *newer))}."
    if not newer:
        yield from _objections(decision["why"], clock)
    yield from _opted_out(view)
    yield from _suppressed(view, clock)


def _suspected(view: Mapping[str, Any]) -> Iterator[str]:
    """That it may be what killed its worker."""
    if view.get("suspect"):
        have = "has" if view["crashes"] == 1 else "have"
        died = f" {view['crashes']} {have} died of it since." if view["crashes"] else ""
        yield f"The process that worked on it vanished, so it is worked on when no other such message is.{died}"


def _deciding(view: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The last decision, if it is what the state comes from."""
    last = view["decisions"][-1] if view["decisions"] else None
    return last if last and last["state"] == view["state"] else None


def _present(view: Mapping[str, Any], now: Mapping[str, Any], clock: _Clock) -> Iterator[str]:
    """What holds a waiting message at this moment, and what comes next."""
    if now["behind"]:
        yield f"It stands in line behind message {now['behind']} of the same person, which goes first."
    if view["not_before"] > view["asked_at"]:
        yield f"The request asks that it is not sent before {clock(view['not_before'])}."
    yield _next(view, now, clock)
    several = bool(now["instead"])
    yield from _rules(now["rules"], clock, f"By {now['channel']}, rule" if several else "Rule")
    for other in now["instead"]:
        yield from _rules(other["rules"], clock, f"By {other['channel']}, rule")
    if several:
        yield "A later channel is taken only where a cap or a gap, not the clock, holds it back on the one before."
    yield from _holders(_asked(now), clock, view["message"])
    yield from _opted_out(view)
    yield from _suppressed(view, clock)
    if not now["rules"] and now["channel"] and not several:
        yield "No rule of the policy applies to it."
    yield f"It expires at {clock(view['expires_at'])}. The policy in force is version {now['policy']}."


def _next(view: Mapping[str, Any], now: Mapping[str, Any], clock: _Clock) -> str:
    would, turn = now["would"], ", when it is its turn" if now["behind"] else ""
    match would["state"]:
        case "attempting":
            how = f"by {would['channel']} through provider {would['provider']}"
            if now["behind"]:
                return f"Nothing else holds it back: it goes {how} when it is its turn."
            if now["at"] > view["asked_at"]:
                return f"As things stand, it goes {how} {_soon(view['asked_at'], now['at'], clock)}."
            if view["due_at"] and view["due_at"] > view["asked_at"]:
                return f"Nothing holds it back any more: it goes {how} at {clock(view['due_at'])} at the latest."
            return f"Nothing holds it back: it goes {how} in a moment."
        case MessageState.WAITING if any(rule["rule"] == would["reason"] for rule in _asked(now)):
            if not would["will_expire"]:
                return (
                    f"It can go at {clock(now['next'])} at the earliest, the first moment that all rules permit{turn}."
                )
            places = any(rule.get("held_by") for rule in _asked(now) if _objects(rule))
            unless = ", unless a place under the caps is given back" if places else ""
            after = f"; they would permit it from {clock(now['next'])} on" if now["next"] else ""
            return f"It cannot go before it expires: the rules do not permit it in time{unless}{after}."
        case MessageState.WAITING:
            return f"It is put off until {clock(would['until'])}{turn}, because {REASONS[would['reason']]}."
        case state:
            told = of_error(would["reason"])
            return f"When it is looked at next, it will {_BECOMES[state]}, because {told}."


def _soon(since: str, at: str, clock: _Clock) -> str:
    near = datetime.fromisoformat(at) - datetime.fromisoformat(since) < timedelta(minutes=1)
    return "within a minute" if near else f"at {clock(at)}"


def _asked(now: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules of all channels."""
    return [rule for rules in (now["rules"], *(other["rules"] for other in now["instead"])) for rule in rules]


def _objects(rule: Mapping[str, Any]) -> bool:
    return not rule["permits"] and bool(rule.get("enforced", True))


def _rules(rules: Sequence[Mapping[str, Any]], clock: _Clock, subject: str = "Rule") -> Iterator[str]:
    """What each says: those that object first, then those in shadow."""
    for rule in sorted(rules, key=lambda rule: (rule["permits"], not rule.get("enforced", True))):
        yield _ruling(rule, clock, subject)


def _objections(rules: Iterable[Mapping[str, Any]], clock: _Clock) -> Iterator[str]:
    """What was said of a message that was decided then."""
    objecting = [rule for rule in rules if _objects(rule)]
    for rule in objecting:
        yield _ruling(rule, clock, "Rule", _SAID)
    yield from _holders(objecting, clock)


_LATER = ("would permit it", "would hold it back")
"""What is said of a later instant."""
_SAYS = ("permits it", "holds it back", "would permit it too", "would hold it back, but is in shadow and holds nothing")
_SAID = ("permitted it", "held it back", "would have permitted it", "would have held it back, if it were not in shadow")
"""A rule that permits and one that objects, and the same of those in shadow."""


def _ruling(rule: Mapping[str, Any], clock: _Clock, subject: str, verbs: Sequence[str] = _SAYS) -> str:
    says = verbs[(not rule["permits"]) + 2 * (not rule.get("enforced", True))]
    if rule.get("at"):
        subject, says = f"At {clock(rule['at'])}, {subject[0].lower()}{subject[1:]}", _LATER[not rule["permits"]]
    held = [_contact(one, clock) for one in rule.get("held_by") or ()] if _objects(rule) else []
    places = "The places are" if len(held) > 1 else "The place is"
    if len(held) > _SHOWN:
        others = len(held) - _SHOWN
        held = [f"{others} other{'s' if others > 1 else ''}", *held[-_SHOWN:]]
    taken = f" {places} taken by {' and '.join(filter(None, (', '.join(held[:-1]), *held[-1:])))}." if held else ""
    return f"{subject} {rule.get('rule') or rule['name']} {says}: {clock.retold(rule['why'])}.{taken}"


def _contact(one: Mapping[str, Any] | str, clock: _Clock) -> str:
    if isinstance(one, str):  # as the first version of the tables has it
        return f"message {one}"
    return f"the {one['channel']} at {clock(one['at'])}"


def _holders(rules: Iterable[Mapping[str, Any]], clock: _Clock, own: str = "") -> Iterator[str]:
    """Which messages take the places that those rules have none left of that object: each once."""
    held = [one for rule in rules if _objects(rule) for one in (rule.get("held_by") or ())[-_SHOWN:]]
    for one in {(one["message"], one["at"]): one for one in held if not isinstance(one, str)}.values():
        campaign = f", campaign {one['campaign']}" if one["campaign"] else ""
        which = "this very message" if one["message"] == own else f"message {one['message']}"
        yield f"T{_contact(one, clock)[1:]} is {which}, category {one['category']}{campaign}."


def _opted_out(view: Mapping[str, Any]) -> Iterator[str]:
    """What the person, or somebody by an address, has said no to that stands in the way at present."""
    for no in view["opted_out"]:
        yield f"On record: {_WHO[no['by']]} has opted out of {_what(no)}."


def _what(no: Mapping[str, str]) -> str:
    """What was said no to."""
    what = " and ".join(_refused(no)) or "everything"
    return f"{what} by {no['channel']}" if "channel" in no else what


def _suppressed(view: Mapping[str, Any], clock: _Clock) -> Iterator[str]:
    """Which of the addresses that it would go to must not be used, since when, and because of what."""
    for one in view["suppressed"]:
        since = f"not used any more since {clock(one['at'])}"
        yield f"On record: the address by {one['channel']} is {since}, because {of_error(one['reason'])}."


def _refused(no: Mapping[str, str]) -> Iterator[str]:
    if no.get("category") == UNSUBSCRIBABLE:
        yield "all that can be unsubscribed from"
    elif "category" in no:
        yield f"category {no['category']}"
    if "topic" in no:
        yield f"topic {no['topic']}"


_WHO = {"person": "the person", "address": "somebody by the address that it would go to"}


def _history(view: Mapping[str, Any], clock: _Clock) -> Iterator[str]:
    """What was decided before, and what was tried, in its order."""
    deciding = _deciding(view)
    past: list[Mapping[str, Any]] = [
        decision for decision in view["decisions"] if _goes_on(decision) or decision is not deciding
    ]
    turns = sorted((*past, *view["attempts"]), key=_when)
    if len(turns) > _SHOWN:
        yield f"Of the {len(turns)} steps so far these were the last."
    for turn in turns[-_SHOWN:]:
        if "number" in turn:
            yield _attempt(turn, clock)
            continue
        yield _decision(turn, view, clock)
        if turn["reason"] in ("shadow", "next_channel"):
            yield from (_ruling(rule, clock, "Rule", _SAID) for rule in turn["why"])
        elif view["state"] == MessageState.EXPIRED and turn is past[-1] and not (deciding and deciding["why"]):
            yield from _objections(turn["why"], clock)


def _done(acts: Sequence[Mapping[str, Any]], clock: _Clock) -> Iterator[str]:
    """What was done with it once it was there."""
    if len(acts) > _SHOWN:
        yield f"Of the {len(acts)} things that were done with it these were the last."
    for act in acts[-_SHOWN:]:
        told = _ACTS.get((act["act"], act["agent"]), f"A {act['agent']} did this with it at {{at}}: {act['act']}")
        converted = f"came as far as stage {act['stage']}" if "stage" in act else "did what it was for"
        link = f"link {act['link']}" if "link" in act else "a link"
        known = f" ({act['why']})" if "why" in act else ""
        no = _what(act["opted_out"]) if "opted_out" in act else "more of this"
        if act.get("opted_out", {}).get("by") == "address":
            known = ", as whoever has the address that it went to"
        yield f"{told.format(at=clock(act['at']), converted=converted, link=link, no=no)}{known}."


def _when(turn: Mapping[str, Any]) -> tuple[str, int]:
    """An attempt begins at the instant of the decision that let it go; what it led to is decided after it."""
    if "number" in turn:
        return turn["begun_at"], 1
    return turn["at"], 0 if turn["state"] == MessageState.SENDING else 2


def _goes_on(decision: Mapping[str, Any]) -> bool:
    return decision["state"] in (MessageState.WAITING, MessageState.SENDING)


def _decision(decision: Mapping[str, Any], view: Mapping[str, Any], clock: _Clock) -> str:
    reason, policy = decision["reason"], f"(policy version {decision['policy']})"
    at = f"At {clock(decision['at'])}"
    if decision["state"] == MessageState.SENDING:
        let = "it was let go" if reason == "shadow" else "the next channel was taken"
        return f"{at} {let} {policy}, because {REASONS[reason]}."
    if decision["state"] != MessageState.WAITING:
        return f"{at} it was taken for {decision['state']} {policy}, because {of_error(reason)}."
    until = f"until {clock(decision['until'])}" if decision["until"] != view["expires_at"] else "until it expires"
    if "within" in _soon(decision["at"], decision["until"], clock):
        until = "for less than a minute"
    if reason in REASONS and all(rule["rule"] != reason for rule in decision["why"]):
        return f"{at} it was put off {until} {policy}, because {REASONS[reason]}."
    return f"{at} it was put off {until} by rule {reason} {policy}."


def _attempt(attempt: Mapping[str, Any], clock: _Clock) -> str:
    state, error = attempt["state"], attempt["error"]
    because = f", because {of_error(error)}" if error and state not in _WENT_WELL else ""
    reference = f" Its reference there is {attempt['reference']}." if attempt["reference"] else ""
    if attempt["repeats"]:
        reference += (
            f" It repeats attempt {attempt['repeats']} under the same key, so that the provider takes both for one."
        )
    return (
        f"Attempt {attempt['number']}, at {clock(attempt['begun_at'])}, by {attempt['channel']} through provider"
        f" {attempt['provider']} (policy version {attempt['policy']}): {_ATTEMPTS[state]}{because}.{reference}"
    )


def _whose_clock(view: Mapping[str, Any], clock: _Clock) -> Iterator[str]:
    several = len(view["zones"])
    source = view["zone_source"]
    known = f"the likeliest of {several} zones that the person's phone number may be from" if several > 1 else ""
    yield (
        f"All times are by the person's clock, which shows {clock.now}: it is taken to be that of {view['zone']},"
        f" {known or _SOURCES[source]}."
    )
    if several > 1:
        yield "As the person may be in any of them, quiet hours and holidays in one of them hold for the person."
