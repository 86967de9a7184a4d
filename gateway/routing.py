"""Which provider of a route is tried next?

Pure, and the same answer whenever it is asked again: where chance is to divide messages, a hash of the message does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf, log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.config import Route
    from gateway.health import Way
    from providers import Channel

PACE: Final = "pace"
"""The rule of one that waits for its turn at a provider that has a pace."""
_BUSY_WAIT: Final = timedelta(seconds=1)
_THROTTLED_WAIT: Final = timedelta(minutes=15)
"""For no longer at a time does a message wait for vendors that want to be left alone: a route may get another."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of the providers."""

    failing: Collection[Way] = frozenset()
    """Left alone while any other can be asked."""
    paused: Mapping[str, datetime] = field(default_factory=dict)
    """Not tried before that instant: the vendor said so."""
    full: Collection[str] = frozenset()
    """As many attempts under way as the provider's ``concurrency`` allows."""
    cut: Mapping[Way, float] = field(default_factory=dict)
    """Points that are off a weight."""
    probes: Mapping[Way, Collection[str]] = field(default_factory=dict)
    """Messages that may try a failing one all the same, to find out whether it still is."""
    paced: Mapping[str, Mapping[str, timedelta]] = field(default_factory=dict)
    """By provider, the messages that have no turn in its pace, and for how long they should wait."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No provider can be asked before that instant."""

    until: datetime
    rule: str
    provider: str | None = None
    """At which it lacks its turn, where that is what it waits for."""


def choose(
    channel: Channel,
    route: Route,
    usable: Sequence[str],
    health: Health,
    message: str,
    *,
    critical: bool,
    now: datetime,
) -> str | Wait:
    """The provider to try next: of those that come into question, the first at which the message has its turn.

    Args: as for ``eligible``.
    """
    names = eligible(channel, route, usable, health, message, critical=critical, now=now)
    if isinstance(names, Wait):
        return names
    waits: dict[str, timedelta] = {}
    for name in names:
        if (wait := health.paced.get(name, {}).get(message)) is None:
            return name
        waits[name] = wait
    soonest = min(waits, key=waits.__getitem__)
    return Wait(now + waits[soonest], PACE, soonest)


def eligible(
    channel: Channel,
    route: Route,
    usable: Sequence[str],
    health: Health,
    message: str,
    *,
    critical: bool,
    now: datetime,
) -> Sequence[str] | Wait:
    """The providers that come into question, whatever their pace: first the one to be tried first; some.

    Args:
        channel: whose route it is.
        route: its providers.
        usable: those of them that can use the address and have not failed the message, in the route's order; some.
        health: how they fare.
        message: its id.
        critical: it is, and may use a provider that has no place free.
        now: the instant.
    """
    free = [name for name in usable if health.paused.get(name, now) <= now]
    if not free:
        soonest = min(health.paused[name] for name in usable)
        return Wait(min(soonest, now + _THROTTLED_WAIT), "throttled")
    sound = [name for name in free if _may_be_asked((channel, name), health, message)] if health.failing else free
    ready = [name for name in sound or free if critical or name not in health.full]
    if not ready:
        return Wait(now + _BUSY_WAIT, "busy")
    return _in_turn(channel, route, ready, health, message)


def weight(channel: Channel, route: Route, name: str, health: Health) -> float:
    """The points that a provider has now."""
    return max(0.0, route.resting(name) - health.cut.get((channel, name), 0.0))


def _may_be_asked(way: Way, health: Health, message: str) -> bool:
    return way not in health.failing or message in health.probes.get(way, ())


def _in_turn(channel: Channel, route: Route, ready: Sequence[str], health: Health, message: str) -> Sequence[str]:
    """In order, each passes on as many of a hundred messages as points are off; by weight, each has its share."""
    if len(ready) == 1:
        return ready
    if route.weights is not None:
        return sorted(ready, key=lambda name: _race(message, name, weight(channel, route, name, health)))
    if not health.cut:
        return ready
    # Those that pass it on come last, as they are.
    return sorted(ready, key=lambda name: 100 * _drawn(message, name) >= weight(channel, route, name, health))


def _race(message: str, name: str, points: float) -> float:
    """Weighted rendezvous hashing: the least wins as often as its points say; a change moves few."""
    return -log(_drawn(message, name)) / points if points else inf


def _drawn(message: str, name: str) -> float:
    """Above 0, at most 1, as if drawn by chance."""
    drawn = hashlib.blake2b(f"{message}/{name}".encode(), digest_size=7).digest()
    return (int.from_bytes(drawn) + 1) / 2**56
