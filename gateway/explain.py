"""Why was this not sent, and when will it be? What is recorded of a message, and what the rules say of it, as JSON.

Pure. ``sentences`` tells the same to people.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

from gateway import sentences
from gateway.abuse import fingerprint
from gateway.causes import REASONS
from gateway.decide import Attempting, Deferred, Ended
from gateway.forecast import explained
from gateway.message import AttemptState, MessageState, addresses, rfc3339
from gateway.rulings import not_before, why_json
from gateway.unknown import Again, resolution, sharing
from gateway.whereabouts import whereabouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from gateway.acts import Record
    from gateway.config import Policy
    from gateway.decide import Facts, Judge, Step
    from gateway.forecast import Eligibility, Explained
    from gateway.message import Attempt, Message, Person
    from gateway.store import MessageView, Standing
    from gateway.whereabouts import Whereabouts

_WAITS = ("retry", "repeat", "look_up", "throttled", "busy", "pace", "bug")
"""Reasons of a wait that ends at its instant, whatever the rules say before it."""
_WELL = (AttemptState.INTENT, AttemptState.ACCEPTED, AttemptState.DELIVERED)
"""An error that is recorded beside one of these is of an earlier time, and was overruled."""


def described(view: MessageView) -> dict[str, Any]:
    """All that is recorded of a message, but neither addresses nor content."""
    message, last = view.message, view.decisions[-1] if view.decisions else None
    numbers = {attempt.id: attempt.number for attempt in view.attempts}
    decided = last if last and last.state is view.state is not MessageState.SENDING else None
    failed = view.attempts and view.attempts[-1].state not in _WELL
    reason = decided.reason if decided else view.attempts[-1].error if failed else None
    return {
        "message": message.id,
        "id": message.request,
        "source": message.source,
        "user": message.person,
        "category": message.category,
        "channels": list(message.channels),
        "priority": message.priority.word,
        "campaign": message.campaign,
        "state": view.state,
        "reason": reason,
        "accepted_at": rfc3339(message.accepted_at),
        "not_before": rfc3339(message.starts_at),
        "expires_at": rfc3339(message.expires_at),
        "due_at": _maybe(view.due_at),
        "suspect": view.suspect,
        "crashes": view.crashes,
        "until": _maybe(decided.until if decided else None),
        "decisions": [
            {
                "at": rfc3339(decision.at),
                "state": decision.state,
                "reason": decision.reason,
                "until": _maybe(decision.until),
                "policy": decision.policy,
                "why": list(decision.why),
            }
            for decision in view.decisions
        ],
        "attempts": [_attempt(attempt, numbers) for attempt in view.attempts],
        "acts": [_act(act) for act in view.acts],
    }


def explanation(view: MessageView, standing: Standing, judge: Judge) -> dict[str, Any]:
    """All of it: what is recorded, whose clock counts, and of a waiting message what the rules say of it at present."""
    waiting = view.state is MessageState.WAITING
    facts = standing.facts
    noes = optouts(facts.message, facts.person, judge.policy) if waiting or view.state is MessageState.REFUSED else ()
    told = described(view) | {
        "asked_at": rfc3339(facts.now),
        **_clocks(_where(standing, judge)),
        "opted_out": [*noes],
        "suppressed": [
            {"channel": one.channel, "reason": one.reason, "at": rfc3339(one.at)} for one in standing.suppressions
        ]
        if waiting or view.state is MessageState.REFUSED
        else [],
        "now": _at_present(view, standing, judge) if waiting else None,
    }
    return told | {"text": sentences.of_message(told)}


def answered(
    asked: Message, person: Person, found: Eligibility, at: datetime, now: datetime, judge: Judge
) -> dict[str, Any]:
    """Whether a person may be contacted at an instant, by which rules, and if not, when."""
    refusal, verdict = found.refusal, found.verdict
    allowed = refusal is None and verdict.allowed
    rules = [{"name": rule.pop("rule"), **rule} for rule in why_json(found.rulings)]
    if refusal:
        no = {"name": refusal, "permits": False, "next": None, "why": REASONS[refusal]}
        rules.insert(0, no)
    told = {
        "user": asked.person,
        "category": asked.category,
        "channel": asked.channels[0],
        "priority": asked.priority.word,
        "at": rfc3339(at),
        "asked_at": rfc3339(now),
        "allowed": allowed,
        "next": None if refusal or verdict.at is None else rfc3339(at) if allowed else not_before(verdict.at),
        "refusal": refusal,
        "opted_out": optouts(asked, person, judge.policy),
        "has_address": found.has_address,
        "rules": rules,
        "policy": judge.number,
        **_clocks(found.where),
    }
    return told | {"text": sentences.of_eligibility(told)}


def optouts(message: Message, person: Person, policy: Policy) -> list[dict[str, str]]:
    """Each no that stands in the way of a message on one of its channels, and who said it."""
    needed = policy.needs(message.category)
    own = [no for no in person.optouts if any(no.covers(c, message, needed=needed) for c in message.channels)]
    others = [
        no
        for channel in message.channels
        for address in addresses(message, person, channel)
        for no in person.refused.get(address.value, ())
        if no.covers(channel, message, needed=needed)
    ]
    return [
        {"by": by, **no.model_dump(mode="json", exclude_none=True)}
        for by, said in (("person", own), ("address", dict.fromkeys(others)))
        for no in said
    ]


def _clocks(where: Whereabouts) -> dict[str, Any]:
    """Whose clock the person's is taken to be, and how that is known."""
    return {"zone": where.zones[0].key, "zone_source": where.source, "zones": [zone.key for zone in where.zones]}


def _at_present(view: MessageView, standing: Standing, judge: Judge) -> dict[str, Any]:
    """What every rule says of a waiting message, and what would be decided, now or as soon as it may be decided."""
    facts = standing.facts
    last = view.decisions[-1] if view.decisions else None
    paused = last is not None and last.reason in _WAITS and not last.why
    at = max(facts.now, facts.message.starts_at, (view.due_at if paused else None) or facts.now)
    then = replace(facts, now=at)
    asked, step = _asked(then, judge), judge.next_step(then)
    return {
        "at": rfc3339(at),
        "policy": judge.number,
        "behind": standing.behind,
        "would": _would(step),
        "next": _next(step, asked, at),
        "channel": asked[0].channel if asked else None,
        "rules": why_json(asked[0].rulings) if asked else [],
        "instead": [{"channel": other.channel, "rules": why_json(other.rulings)} for other in asked[1:]],
    }


def _next(step: Step, asked: Sequence[Explained], at: datetime) -> str | None:
    """The first instant at which it may go; where that is not before its expiry, the first on its first channel."""
    match step:
        case Attempting():
            return rfc3339(at)
        case Deferred(will_expire=True, by_rules=True):
            free = asked[0].verdict.at
            return not_before(free) if free else None
        case Deferred():
            return not_before(step.until)
        case Ended():
            return None
        case _:
            assert_never(step)


def _asked(facts: Facts, judge: Judge) -> tuple[Explained, ...]:
    again = resolution(facts, judge.policy, judge.recourses, judge.span)
    facts = sharing(facts) if isinstance(again, Again) and again.keyed else facts
    known = facts.message.category in judge.policy.categories
    return explained(facts, judge.policy, judge.routes, judge.span) if known else ()


def _where(standing: Standing, judge: Judge) -> Whereabouts:
    """Of the address that was or would be used, as far as it can be told."""
    message, person, attempts = standing.facts.message, standing.facts.person, standing.facts.attempts
    needed = judge.policy.needs(message.category)
    used = attempts[-1].address if attempts else None
    known = [address for channel in message.channels for address in addresses(message, person, channel)]
    reach = [
        address
        for address in known
        if not any(no.covers(address.channel, message, needed=needed) for no in person.optouts)
        and (address.channel, address.value) not in person.suppressed
    ]
    first = next((a for a in known if fingerprint(a.value) == used), None) or next(iter(reach or known), None)
    return whereabouts(message.body, person.profile, first, judge.policy)


def _would(step: Step) -> dict[str, Any]:
    match step:
        case Attempting():
            return {"state": "attempting", "channel": step.address.channel, "provider": step.provider}
        case Deferred():
            return {
                "state": MessageState.WAITING,
                "reason": step.rule,
                "until": rfc3339(step.until),
                "will_expire": step.will_expire,
            }
        case Ended():
            return {"state": step.state, "reason": step.reason}
        case _:
            assert_never(step)


def _attempt(attempt: Attempt, numbers: Mapping[str, int]) -> dict[str, Any]:
    """``numbers``: of the message's attempts, by their ids."""
    return {
        "number": attempt.number,
        "repeats": numbers.get(attempt.repeats) if attempt.repeats else None,
        "channel": attempt.channel,
        "provider": attempt.provider,
        "state": attempt.state,
        "begun_at": rfc3339(attempt.begun_at),
        "ended_at": _maybe(attempt.ended_at),
        "reference": attempt.reference,
        "error": attempt.error,
        "policy": attempt.policy,
    }


def _act(act: Record) -> dict[str, Any]:
    more = {"stage": act.stage, "link": act.link, "why": act.why, "opted_out": act.no}
    return {
        "act": act.act,
        "agent": act.agent,
        "at": rfc3339(act.at),
        "via": act.via,
        "channel": act.channel,
        **{field: value for field, value in more.items() if value is not None},
    }


def _maybe(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None
