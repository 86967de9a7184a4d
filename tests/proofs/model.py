"""What ought to be, in plain lists and read off wall clocks. Shares no code with what decides.

Where what was promised leaves an instant open, the model keeps both bounds: what must not be is judged by the earlier
end of a contact (``soon``), what must have been done by the later one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import phonenumbers
from phonenumbers.timezone import time_zones_for_number

from tests.proofs.house_rules import ABUSE, CATEGORIES, Cap, HouseRules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proofs.house_rules import Gap, Hours

SPAN = timedelta(seconds=10)
"""From an intent to its deadline, at most."""
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
HIGH = 1
CALENDAR = ("day", "week", "month")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LISTENED = timedelta(hours=72)
"""How long after its expiry a message may still be reported on."""
MAY_HAVE_REACHED = ("intent", "unknown", "accepted", "delivered")
Said = tuple[str, str, str]
"""A no: channel, category, topic, each empty where it is to all."""


@dataclass
class Known:
    """What was told of a person."""

    phone: str | None = None
    email: str | None = None
    push: tuple[str, ...] = ()
    timezone: str | None = None


@dataclass(frozen=True)
class Asked:
    """A message."""

    id: str
    number: int
    """In the order in which they came."""
    person: str
    category: str
    channels: tuple[str, ...]
    priority: int
    starts: datetime
    expires: datetime
    campaign: str | None = None
    topic: str | None = None
    timezone: str | None = None
    phone: str | None = None
    """Where the request names one."""

    @property
    def rank(self) -> tuple[int, datetime, int]:
        return self.priority, self.expires, self.number


@dataclass
class Tried:
    """An attempt."""

    id: str
    message: Asked
    channel: str
    value: str
    begun: datetime
    deadline: datetime
    soon: datetime
    """Its end, at the earliest that may be meant."""
    late: datetime
    """The same, at the latest."""
    calendar: str
    counts: bool
    """Against others."""
    leased_until: datetime
    repeats: str | None = None
    """The attempt for which the vendor takes it, and whose place it uses."""
    state: str = "intent"
    place: bool = True

    def end(self, *, soon: bool) -> datetime:
        return self.soon if soon else self.late


@dataclass
class Model:
    rules: HouseRules
    people: dict[str, Known] = field(default_factory=dict)
    messages: dict[str, Asked] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    attempts: dict[str, Tried] = field(default_factory=dict)
    noes: dict[tuple[str, str], dict[Said, str]] = field(default_factory=dict)
    """By person and address, of which one is empty, with the way it was said."""
    bad: set[tuple[str, str]] = field(default_factory=set)
    """Channels and addresses that must not be used."""
    doubtful: set[tuple[str, str]] = field(default_factory=set)
    """Those that may have to be left alone."""
    keyed: timedelta | None = None
    """For how long provider ``one`` takes a repeat for the same message."""
    only: tuple[str, str] | None = None
    """The channel and address to which alone a message may go."""

    # ------------------------------------------------------------------------------------------------- where and when

    def home(self, person: str, *numbers: str | None) -> list[str]:
        """The zones that a person may live in, the policy's own first; ``numbers``: others to call them at."""
        known = self.people[person]
        if known.timezone:
            return [known.timezone]
        for number in (*numbers, known.phone):
            if zones := zones_of(number):
                return sorted(zones, key=lambda zone: zone != self.rules.zone)
        return [self.rules.zone]

    def clocks(self, asked: Asked, channel: str, value: str) -> list[str]:
        """The zones whose clocks are looked at: as the request says, else the profile, else the number that is used."""
        if asked.timezone:
            return [asked.timezone]
        return self.home(asked.person, value if channel == "sms" else asked.phone)

    def untimely(self, asked: Asked, channel: str, value: str, at: datetime) -> str | None:
        """The hours that forbid an attempt of ``SPAN`` from an instant on."""
        if not CATEGORIES[asked.category].timed:
            return None
        zones = self.clocks(asked, channel, value)
        for hours in self.rules.hours:
            if not _binds(hours, asked, channel):
                continue
            for instant in _looked_at(at):
                if hours.quiet and any(reads(hours, zone, instant) for zone in zones):
                    return hours.name
                if not hours.quiet and not reads(hours, zones[0], instant):
                    return hours.name
        return None

    # --------------------------------------------------------------------------------------------------------- places

    def ledger(self, person: str) -> list[Tried]:
        return [a for a in self.attempts.values() if a.place and a.counts and a.message.person == person]

    def too_much(self, asked: Asked, channel: str, at: datetime, *, soon: bool) -> str | None:
        """The cap or gap that forbids an attempt at an instant."""
        if not CATEGORIES[asked.category].capped:
            return None
        ledger = self.ledger(asked.person)
        for cap in self.rules.caps:
            if _binds(cap, asked, channel):
                holding = [held for held in ledger if _shares(cap, held, asked, channel)]
                if self._held(cap, holding, asked, at, soon=soon) >= cap.limit - (
                    cap.kept if asked.priority > HIGH else 0
                ):
                    return cap.name
        for gap in self.rules.gaps:
            if _binds(gap, asked, channel):
                for held in ledger:
                    if _shares(gap, held, asked, channel) and held.end(soon=soon) + gap.minutes * MINUTE > at:
                        return gap.name
        return None

    def _held(self, cap: Cap, holding: list[Tried], asked: Asked, at: datetime, *, soon: bool) -> int:
        """Places taken, in the fullest of the windows that an attempt from an instant on would touch."""
        if cap.per not in CALENDAR:
            window = timedelta(hours=int(cap.per.removesuffix("h")))
            return sum(held.end(soon=soon) + window > at for held in holding)
        zone = self.home(asked.person)[0]
        windows = {window_of(cap.per, zone, instant) for instant in _looked_at(at)}
        touched = [windows_of(cap.per, held.calendar, held.begun, held.end(soon=soon)) for held in holding]
        return max(sum(window in one for one in touched) for window in windows)

    def abused(self, asked: Asked, value: str, at: datetime, *, soon: bool) -> bool:
        """Whether an address got as many codes as any may."""
        got = [a for a in self.attempts.values() if a.place and a.value == value and a.message.category == "code"]
        return asked.category == "code" and sum(a.end(soon=soon) + HOUR > at for a in got) >= ABUSE

    # ------------------------------------------------------------------------------------------------------ addresses

    def addresses(self, asked: Asked, channel: str) -> list[str]:
        known = self.people[asked.person]
        match channel:
            case "sms":
                number = asked.phone or known.phone
                return [number] if number else []
            case "email":
                return [known.email] if known.email else []
            case _:
                return list(known.push)

    def refused(self, asked: Asked, channel: str, value: str) -> bool:
        """Whether somebody said no to it: the person, or by the address."""
        noes = [*self.noes.get((asked.person, ""), {}), *self.noes.get(("", value), {})]
        return any(
            on in ("", channel) and of in ("", asked.category) and about in ("", asked.topic) for on, of, about in noes
        )

    def usable(self, asked: Asked, at: datetime, *, sure: bool) -> list[tuple[str, str]]:
        """By which addresses it may go, those to be tried first first.

        ``sure``: with the doubtful ones, which hide those that come behind them.
        """
        bad = self.bad if sure else self.bad | self.doubtful
        tried = [a for a in self.attempts.values() if a.message is asked]
        unsure = [(a.channel, a.value) for a in tried if a.state == "unknown"]
        only = self.only or (unsure[-1] if unsure else None)
        found = []
        for channel in asked.channels:
            if any(a.channel == channel and a.state == "rejected" for a in tried):
                continue
            spent = {a.value for a in tried if a.channel == channel and a.state == "unreachable"}
            for value in self.addresses(asked, channel):
                if (
                    only in (None, (channel, value))
                    and (channel, value) not in bad
                    and value not in spent
                    and not self.refused(asked, channel, value)
                    and not self.abused(asked, value, at, soon=sure)
                ):
                    found.append((channel, value))
                    break
        return found

    def falls_through(self, asked: Asked) -> bool:
        return asked.category == "offer" and self.rules.when_capped == "next_channel"

    # ---------------------------------------------------------------------------------------------------------- going

    def wrong(self, asked: Asked, channel: str, value: str, at: datetime) -> str | None:
        """Why an attempt that is made must not be made; None: it may."""
        if at >= asked.expires:
            return "too late"
        if (channel, value) not in [(c, v) for c in asked.channels for v in self.addresses(asked, c)]:
            return "nobody's address"
        if self.refused(asked, channel, value):
            return "the person said no"
        if not any((channel, value) in self.usable(asked, at, sure=sure) for sure in (True, False)):
            return "an address that must not be used"
        if rule := self.untimely(asked, channel, value, at):
            return f"not at this hour: {rule}"
        if rule := self.too_much(asked, channel, at, soon=True):
            return f"too much: {rule}"
        earlier = asked.channels[: asked.channels.index(channel)]
        before = [one for one in self.usable(asked, at, sure=False) if one[0] in earlier]
        for first_channel, first_value in before:
            if not self.falls_through(asked) or not self.capped(asked, first_channel, first_value, at):
                return f"{first_channel} comes first"
        unknown = sum(a.state == "unknown" for a in self.attempts.values() if a.message is asked)
        if unknown > (1 if CATEGORIES[asked.category].repeats else 0):
            return "it may have been sent"
        if any(a.state == "intent" for a in self.attempts.values() if a.message is asked):
            return "two at once"
        return None

    def capped(self, asked: Asked, channel: str, value: str, at: datetime) -> bool:
        """Whether caps hold a channel back now, or will when its hours begin: a day may be full that is still to come,
        of a person who has moved there from where it has come already."""
        later = (edge for edge in sorted(self.edges(asked, at)) if edge > at)
        opens = next((edge for edge in later if not self.untimely(asked, channel, value, edge)), at)
        instants = (at, opens, opens + self.release(asked))
        return any(self.too_much(asked, channel, instant, soon=False) for instant in instants)

    def could_go(self, asked: Asked, at: datetime) -> bool:
        """Whether nothing keeps it from going at an instant, with and without the addresses that are doubtful."""
        return all(self._could_go(asked, at, sure=sure) for sure in (False, True))

    def _could_go(self, asked: Asked, at: datetime, *, sure: bool) -> bool:
        if not asked.starts <= at < asked.expires:
            return False
        for channel, value in self.usable(asked, at, sure=sure):
            if self.untimely(asked, channel, value, at):
                return False
            if not self.too_much(asked, channel, at, soon=False):
                return True
            if not self.falls_through(asked):
                return False
        return False

    def could_go_from(self, asked: Asked, now: datetime) -> datetime | None:
        """The first instant from now on at which it could go, and go on being able to while a release takes."""
        release = self.release(asked)
        for at in sorted({now, *(edge for edge in self.edges(asked, now) if edge > now)}):
            if self.could_go(asked, at) and all(self.could_go(asked, at + part * release / 4) for part in range(1, 5)):
                return at
        return None

    def release(self, asked: Asked) -> timedelta:
        """By how much later each may be let go, at most."""
        if not CATEGORIES[asked.category].timed:
            return timedelta(0)
        return sum((hours.release * MINUTE for hours in self.rules.hours), timedelta(0))

    def edges(self, asked: Asked, now: datetime) -> Iterator[datetime]:
        """Instants at which something may begin or cease to be allowed."""
        yield asked.starts
        for held in self.ledger(asked.person):
            for cap in self.rules.caps:
                if cap.per not in CALENDAR:
                    yield held.late + timedelta(hours=int(cap.per.removesuffix("h")))
            for gap in self.rules.gaps:
                yield held.late + gap.minutes * MINUTE
        readings = {time(), *(_time(wall) for hours in self.rules.hours for span in hours.spans for wall in span)}
        zones = {*self.home(asked.person), *zones_of(asked.phone), *([asked.timezone] if asked.timezone else [])}
        for zone in zones:
            for days in range(-1, 5):
                day = now.astimezone(_zone(zone)).date() + days * DAY
                for reading in readings:
                    for fold in (0, 1):
                        yield datetime.combine(day, reading, _zone(zone)).replace(fold=fold).astimezone(UTC)

    def like(self, one: Asked, other: Asked) -> bool:
        """Whether two messages stand in one line: nothing tells them apart but how urgent they are."""
        if one.person != other.person or one.category != other.category or one.category == "code":
            return False
        if self.collapses(one):
            return one.campaign == other.campaign
        return (one.channels, one.campaign, one.timezone, one.phone, one.topic) == (
            other.channels,
            other.campaign,
            other.timezone,
            other.phone,
            other.topic,
        )

    def apart(self, asked: Asked) -> bool:
        """Whether it may not go a way that others of its line may."""
        apart = ("rejected", "unreachable", "unknown")
        return any(a.message is asked and a.state in apart for a in self.attempts.values())

    def collapses(self, asked: Asked) -> bool:
        return asked.category == "news" and self.rules.collapse

    # ---------------------------------------------------------------------------------------------------- in doubt

    def family(self, attempt: str) -> list[Tried]:
        """All that the vendor takes for the same message, the one that holds the place first."""
        place = self.attempts[attempt].repeats or attempt
        return [self.attempts[place], *(a for a in self.attempts.values() if a.repeats == place)]

    def as_it_may_go(self, asked: Asked, repeats: str | None) -> Model:
        """How things stand for a message that may have been sent: what is repeated by its key needs no place."""
        own = [a for a in self.attempts.values() if a.message is asked and a.state == "unknown"]
        if repeats is None:
            hidden = {a.id for a in own if a.repeats}
            return replace(self, attempts={id_: a for id_, a in self.attempts.items() if id_ not in hidden})
        first = self.attempts[repeats]
        hidden = {a.id for a in own}
        attempts = {id_: a for id_, a in self.attempts.items() if id_ not in hidden}
        return replace(self, attempts=attempts, only=(first.channel, first.value))

    def may_use_key(self, repeats: str, now: datetime) -> bool:
        """Whether the vendor still knows the key."""
        first = self.attempts[repeats]
        return self.keyed is not None and first.state == "unknown" and now + SPAN <= first.begun + self.keyed

    # ---------------------------------------------------------------------------------------------------- what happens

    def begin(
        self,
        attempt: str,
        asked: Asked,
        channel: str,
        value: str,
        now: datetime,
        leased_until: datetime,
        repeats: str | None = None,
    ) -> None:
        self.attempts[attempt] = Tried(
            attempt,
            asked,
            channel,
            value,
            begun=now,
            deadline=deadline_of(asked, now),
            soon=deadline_of(asked, now),
            late=deadline_of(asked, now),
            calendar=self.home(asked.person)[0],
            counts=CATEGORIES[asked.category].capped or self.rules.codes_count,
            leased_until=leased_until,
            repeats=repeats,
            place=repeats is None,
        )
        if repeats:
            held = self.attempts[repeats]
            held.soon, held.late = held.soon, max(held.late, deadline_of(asked, now))

    def settle(self, attempt: str, state: str, now: datetime, *, by_itself: bool = False) -> None:
        """An outcome, or (``by_itself``) what is made of an attempt whose worker died."""
        tried, (held, *others) = self.attempts[attempt], self.family(attempt)
        first = tried.state == "intent"
        if tried.state in ("intent", "unknown"):
            tried.state = state
        if state == "accepted":
            for one in (held, *others):
                one.state = state if one.state == "unknown" else one.state
        if state in MAY_HAVE_REACHED and tried is held:
            held.soon = now if first and not by_itself else min(held.soon, now)
            held.late = now if first and not by_itself else max(held.late, now)
        elif state in MAY_HAVE_REACHED or tried is not held:
            held.soon, held.late = min(held.soon, now), max(held.late, now)
        if state not in MAY_HAVE_REACHED:
            held.place = held.place and any(one.state in MAY_HAVE_REACHED for one in (held, *others))

    def hear(self, attempt: str, news: str, now: datetime) -> bool:
        """A receipt; whether it changes anything."""
        tried, (held, *others) = self.attempts[attempt], self.family(attempt)
        if now >= tried.message.expires + LISTENED:
            return False
        match news:
            case "accepted" if tried.state in ("intent", "unknown"):
                tried.state = "accepted"
            case "delivered" if tried.state != "delivered":
                tried.state = "delivered"
            case "undelivered" | "unreachable" if tried.state in ("intent", "unknown", "accepted"):
                tried.state, held.place = "undelivered", False
            case _:
                return False
        for one in (held, *others):
            if one.state in ("unknown", "accepted", "undelivered"):
                one.state = tried.state
        tried.soon, tried.late = min(tried.soon, now), max(tried.late, now)
        return True


def deadline_of(asked: Asked, begun: datetime) -> datetime:
    """Until when the first byte of an attempt may be written."""
    return min(begun + SPAN, asked.expires)


def _binds(rule: Cap | Gap | Hours, asked: Asked, channel: str) -> bool:
    return rule.enforced and rule.channel in ("", channel) and rule.category in ("", asked.category)


def _shares(rule: Cap | Gap, held: Tried, asked: Asked, channel: str) -> bool:
    """Whether what was sent counts under a rule for what is to be sent."""
    return (
        rule.channel in ("", held.channel)
        and rule.category in ("", held.message.category)
        and ("channel" not in rule.scope or held.channel == channel)
        and ("category" not in rule.scope or held.message.category == asked.category)
        and ("campaign" not in rule.scope or held.message.campaign == asked.campaign)
        and ("labels.topic" not in rule.scope or held.message.topic == asked.topic)
    )


def _looked_at(at: datetime) -> list[datetime]:
    """Both ends of an attempt, and the full minute within it, where clocks and rules may change."""
    minute = at.replace(second=0, microsecond=0) + MINUTE
    return [at, *([minute] if minute < at + SPAN else []), at + SPAN]


def reads(hours: Hours, zone: str, instant: datetime) -> bool:
    """Whether the clock on a wall there reads a time within."""
    wall = instant.astimezone(_zone(zone))
    for start, end in hours.spans:
        since, until, reading = _time(start), _time(end), wall.time()
        evening, morning = since <= reading, reading < until
        if end == "24:00":
            within = evening and _on(hours, wall.date())
        elif since < until:
            within = evening and morning and _on(hours, wall.date())
        else:
            within = (evening and _on(hours, wall.date())) or (morning and _on(hours, wall.date() - DAY))
        if within:
            return True
    return False


def _on(hours: Hours, day: date) -> bool:
    return not hours.days or WEEKDAYS[day.weekday()] in hours.days


def _time(text: str) -> time:
    return time() if text == "24:00" else time.fromisoformat(text)


def window_of(per: str, zone: str, instant: datetime) -> tuple[int, ...]:
    """The day, week or month that a calendar there shows."""
    wall = instant.astimezone(_zone(zone))
    match per:
        case "day":
            return wall.year, wall.month, wall.day
        case "week":
            return tuple(wall.isocalendar())[:2]
        case _:
            return wall.year, wall.month


def windows_of(per: str, zone: str, begun: datetime, ended: datetime) -> set[tuple[int, ...]]:
    """All those that a contact touches."""
    instants = [begun]
    while instants[-1] < ended:
        instants.append(min(instants[-1] + 6 * HOUR, ended))
    return {window_of(per, zone, instant) for instant in instants}


@functools.cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@functools.cache
def zones_of(phone: str | None) -> list[str]:
    """Where a number may ring."""
    if phone is None:
        return []
    found = time_zones_for_number(phonenumbers.parse(phone))
    return [zone for zone in found if zone != "Etc/Unknown"]


def changes(zone: str, since: datetime, until: datetime) -> list[datetime]:
    """The hours within which a zone changes its clocks."""
    hours = [since + number * HOUR for number in range((until - since) // HOUR + 1)]
    return [
        late
        for early, late in pairwise(hours)
        if early.astimezone(_zone(zone)).utcoffset() != late.astimezone(_zone(zone)).utcoffset()
    ]
