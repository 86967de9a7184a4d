"""Why was this not sent, and when will it be? What is recorded of a message, as JSON and in sentences.

Pure: whoever has the JSON, over HTTP or from the store, gets the same sentences.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_never
from zoneinfo import ZoneInfo

from gateway.decide import Attempting, Deferred, Ended, explained, why_json, zones_of
from gateway.message import MessageState, Refusal, addresses, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.decide import Judge, Step
    from gateway.message import Address, Attempt
    from gateway.store import MessageView, Standing

REASONS: Mapping[str, str] = {
    Refusal.OPTED_OUT: "the person has opted out",
    Refusal.SUPPRESSED: "the person's address must not be used any more",
    Refusal.NO_ADDRESS: "there is no address, or no provider, to reach the person by",
    Refusal.NEVER: "the policy never permits it",
    "expires_at": "it was not permitted or not possible before it expired",
    "unknown_category": "its category is not configured any more",
    "cancelled": "it was cancelled on request",
    "retry": "the providers failed, and it is tried again",
    "repeat": "nobody knows whether it was sent, and its category says to send it again",
    "throttled": "the provider asked to slow down",
    "clock": "the database's clock has been set back behind the last contact",
    "busy": "the provider has as much under way as it may",
    "bug": "the gateway made a mistake",
}
"""What the reasons that are not names of rules mean."""

STATES: Mapping[str, str] = {
    MessageState.WAITING: "is waiting",
    MessageState.SENDING: "is being handed to a provider at this moment",
    MessageState.SENT: "was handed to a provider, which accepted it",
    MessageState.DELIVERED: "was delivered",
    MessageState.UNDELIVERED: "was accepted by a provider, which later reported that it did not arrive",
    MessageState.FAILED: "was given up after trying",
    MessageState.EXPIRED: "was not sent before it expired",
    MessageState.REFUSED: "must not be sent",
    MessageState.CANCELLED: "was cancelled before it was sent",
    MessageState.UNKNOWN: "was handed to a provider that never answered: it may have been sent, and is not sent again",
    MessageState.PARKED: "was set aside for people to look at",
}


def described(view: MessageView) -> dict[str, Any]:
    """All that is recorded of a message, but neither addresses nor content."""
    message, last = view.message, view.decisions[-1] if view.decisions else None
    decided = last if last and last.state is view.state else None
    reason = decided.reason if decided else view.attempts[-1].error if view.attempts else None
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
        "attempts": [_attempt(attempt) for attempt in view.attempts],
    }


def at_present(standing: Standing, judge: Judge) -> dict[str, Any]:
    """What every rule says of a waiting message at this instant, and what would be decided."""
    facts = standing.facts
    known = facts.message.category in judge.policy.categories
    address = next(iter(_reach(standing)), None)
    return {
        "at": rfc3339(facts.now),
        "policy": judge.number,
        "zone": zones_of(facts.message, facts.person.profile, address, judge.policy)[0][0].key if address else None,
        "behind": standing.behind,
        "would": _would(judge.next_step(facts)),
        "rules": why_json(explained(facts, judge.policy, judge.routes, judge.span)) if known else [],
    }


def sentences(view: Mapping[str, Any]) -> list[str]:
    """The JSON, with or without ``now``, in sentences that can be read aloud."""
    now = view.get("now")
    zone = (now or {}).get("zone") or "UTC"
    return [
        f"Message {view['message']} {STATES[view['state']]}.",
        f"It is request {view['id']} of {view['source']}, category {view['category']}, for {view['user']}.",
        *_because(view, zone),
        *(_now(view, now, zone) if now else ()),
        *(_tried(attempt, zone) for attempt in view["attempts"]),
    ]


def _because(view: Mapping[str, Any], zone: str) -> Iterable[str]:
    state, reason = view["state"], view["reason"]
    if state == MessageState.WAITING:
        yield f"It has been waiting since {_clock(view['accepted_at'], zone)}."
        if view["not_before"] > view["accepted_at"]:
            yield f"The request asked for not before {_clock(view['not_before'], zone)}."
    decision = next((d for d in reversed(view["decisions"]) if d["state"] == state), None)
    if decision:
        until = f" until {_clock(decision['until'], zone)}" if decision["until"] else ""
        yield (
            f"Decided at {_clock(decision['at'], zone)} under policy version {decision['policy']}{until}:"
            f" {_meaning(reason)}."
        )
        if state != MessageState.WAITING:
            yield from (_ruling(ruling, zone) for ruling in decision["why"] if not ruling["permits"])
    if state == MessageState.WAITING:
        if view["due_at"]:
            yield f"Next look at {_clock(view['due_at'], zone)}."
        yield f"It expires at {_clock(view['expires_at'], zone)}."


def _now(view: Mapping[str, Any], now: Mapping[str, Any], zone: str) -> Iterable[str]:
    yield f"Asked at {_clock(now['at'], zone)}, by policy version {now['policy']}:"
    if now["behind"]:
        yield f"It stands in line behind message {now['behind']} of the same person, which goes first."
    yield from (_ruling(ruling, zone) for ruling in now["rules"])
    would = now["would"]
    match would["state"]:
        case "attempting":
            when = "when it is its turn" if now["behind"] or view["not_before"] > now["at"] else "at its next look"
            yield f"No rule holds it: it can go by {would['channel']} through {would['provider']} {when}."
        case MessageState.WAITING:
            if now["behind"]:
                earliest = f"{_clock(would['until'], zone)}: {_meaning(would['reason'])}"
                yield f"Its own turn comes later, and not before {earliest}."
                return
            yield f"So it waits until {_clock(would['until'], zone)}: {_meaning(would['reason'])}."
            if would["will_expire"]:
                yield "It expires before that, unless a place is given back."
        case _:
            yield f"At the next look it becomes {would['state']}: {_meaning(would['reason'])}."
    yield (
        f"The person's clock is taken to be that of {now['zone']}."
        if now["zone"]
        else "There is no address that it could be sent to."
    )


def _ruling(ruling: Mapping[str, Any], zone: str) -> str:
    if ruling["permits"]:
        return f"Rule {ruling['rule']} permits it: {ruling['why']}."
    then = f"permits it from {_clock(ruling['next'], zone)} on" if ruling["next"] else "never permits it"
    held = ruling.get("held_by")
    holders = f" The places are held by {', '.join(held)}." if held else ""
    return f"Rule {ruling['rule']} {then}: {ruling['why']}.{holders}"


def _tried(attempt: Mapping[str, Any], zone: str) -> str:
    ended = f", ended at {_clock(attempt['ended_at'], zone)}" if attempt["ended_at"] else ""
    error = f" ({attempt['error']})" if attempt["error"] else ""
    return (
        f"Attempt {attempt['number']}, by {attempt['channel']} through {attempt['provider']}, "
        f"begun at {_clock(attempt['begun_at'], zone)}{ended}: {attempt['state'].replace('_', ' ')}{error}."
    )


def _meaning(reason: str | None) -> str:
    if reason is None:
        return "nothing is recorded"
    return REASONS.get(reason) or (f"error {reason}" if ":" in reason else f"rule {reason}")


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


def _reach(standing: Standing) -> list[Address]:
    """Where it could go, as far as nobody said no."""
    message, person = standing.facts.message, standing.facts.person
    return [
        address
        for channel in message.channels
        if not any(no.covers(channel, message.category) for no in person.optouts)
        for address in addresses(message, person, channel)
        if (channel, address.value) not in person.suppressed
    ]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "channel": attempt.channel,
        "provider": attempt.provider,
        "state": attempt.state,
        "begun_at": rfc3339(attempt.begun_at),
        "ended_at": _maybe(attempt.ended_at),
        "reference": attempt.reference,
        "error": attempt.error,
    }


def _maybe(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None


def _clock(text: str, zone: str) -> str:
    """As the person's clock shows it: ``08:00 on 2026-11-22 (Asia/Tokyo)``."""
    return f"{datetime.fromisoformat(text).astimezone(ZoneInfo(zone)):%H:%M on %Y-%m-%d} ({zone})"
