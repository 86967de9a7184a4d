"""What came of messages: folded into groups, each message once in every column.

Pure. A message belongs to the channel of the attempt that reached the person, as far as is known. A share is one of
messages of its base, never one number over another that counts other messages.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from statistics import median
from typing import TYPE_CHECKING, Final

from gateway.acts import WITNESSED
from gateway.message import AttemptState, MessageState, microseconds
from gateway.render import drafted
from gateway.report.targets import Held, held
from providers import Act, Agent, Channel, Sms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from gateway.config import Step, Target
    from gateway.store import Story, Try, Unattributed
    from providers import Content, Settings

GROUPS: Final = 2000
"""Who names campaigns and variants chooses how many there are; nobody reads more, and memory is bounded."""
STAGES: Final = 50
"""The same of the stages that people reached."""
NEVER_SENT: Final = "none"
"""The channel of what may have reached nobody."""
WAITS: Final = frozenset({"retry", "repeat", "look_up", "throttled", "busy", "pace", "bug"})
"""Causes of a wait that are no rule of the policy."""
LOST: Final = (
    MessageState.REFUSED,
    MessageState.EXPIRED,
    MessageState.FAILED,
    MessageState.CANCELLED,
    MessageState.PARKED,
)
"""How a message ends that never went."""


class By(StrEnum):
    """What messages may be grouped by."""

    CAMPAIGN = "campaign"
    CHANNEL = "channel"
    CATEGORY = "category"
    STAGE = "stage"
    VARIANT = "variant"
    SOURCE = "source"
    DAY = "day"
    """On which they were accepted, by the policy's clock."""


class Column(StrEnum):
    """What is counted. A message is in a column once, or not."""

    REQUESTED = "requested"
    DEFERRED = "deferred"
    """Put off at least once by a rule of the policy."""
    SENT = "sent"
    """A provider accepted it."""
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    """Accepted, and reported not to have arrived."""
    UNKNOWN = "unknown"
    """It may have been sent; no provider has said so."""
    OPENED = "opened"
    """By a human, as in all that follow; machines have columns of their own."""
    ANSWERED = "answered"
    CLICKED = "clicked"
    CONVERTED = "converted"
    OPTED_OUT = "opted_out"
    UNINSTALLED = "uninstalled"
    MACHINE_OPENED = "machine_opened"
    """Whatever people did besides, as in all that follow."""
    MACHINE_ANSWERED = "machine_answered"
    MACHINE_CLICKED = "machine_clicked"


ENGAGED: Final = (Column.OPENED, Column.ANSWERED, Column.CLICKED, Column.CONVERTED)
LEFT: Final = (Column.OPTED_OUT, Column.UNINSTALLED)
SHARES: Final = (
    (Column.DEFERRED, Column.REQUESTED),
    (Column.SENT, Column.REQUESTED),
    (Column.DELIVERED, Column.SENT),
    (Column.UNDELIVERED, Column.SENT),
    *((column, base) for column in (*ENGAGED, *LEFT) for base in (Column.SENT, Column.DELIVERED)),
)
"""Of which base the share of each column is told."""

_SEEN: Final[Mapping[Column, Act]] = {
    Column.OPENED: Act.OPENED,
    Column.ANSWERED: Act.ANSWERED,
    Column.CLICKED: Act.CLICKED,
    Column.MACHINE_OPENED: Act.OPENED,
    Column.MACHINE_ANSWERED: Act.ANSWERED,
    Column.MACHINE_CLICKED: Act.CLICKED,
}
"""Acts of which nobody learns on every channel."""
_REPORTED: Final = frozenset({AttemptState.DELIVERED, AttemptState.UNDELIVERED})
_TOOK: Final = frozenset({AttemptState.ACCEPTED, AttemptState.DELIVERED, AttemptState.UNDELIVERED})
"""Attempts that a vendor took, and bills."""
_REACH: Final[Mapping[AttemptState, int]] = {
    AttemptState.UNKNOWN: 1,
    AttemptState.UNDELIVERED: 2,
    AttemptState.ACCEPTED: 3,
    AttemptState.DELIVERED: 4,
}
"""Attempts that may have reached the person: the higher, the surer."""
_BIT: Final[Mapping[Column, int]] = {column: 1 << place for place, column in enumerate(Column)}
_REQUESTED, _DEFERRED, _SENT = (_BIT[column] for column in (Column.REQUESTED, Column.DEFERRED, Column.SENT))
_BY_REACH: Final[Mapping[AttemptState, int]] = {
    AttemptState.UNKNOWN: _BIT[Column.UNKNOWN],
    AttemptState.ACCEPTED: _SENT,
    AttemptState.UNDELIVERED: _SENT | _BIT[Column.UNDELIVERED],
    AttemptState.DELIVERED: _SENT | _BIT[Column.DELIVERED],
}
_BY_ACT: Final[Mapping[tuple[Act, Agent], int]] = {
    **{(Act(column), Agent.HUMAN): _BIT[column] for column in (*ENGAGED, *LEFT)},
    (Act.OPENED, Agent.MACHINE): _BIT[Column.MACHINE_OPENED],
    (Act.ANSWERED, Agent.MACHINE): _BIT[Column.MACHINE_ANSWERED],
    (Act.CLICKED, Agent.MACHINE): _BIT[Column.MACHINE_CLICKED],
}


class TooMany(Exception):
    """There are more groups, or stages, than a report holds; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about."""

    since: datetime
    until: datetime
    """Of messages accepted before it."""
    by: tuple[By, ...]
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of some messages."""

    counts: Mapping[Column, int]
    persons: int
    """For whom they were."""
    states: Mapping[MessageState, int]
    """Each message is in one."""
    lost: Mapping[tuple[MessageState, str], int]
    """How those ended that never went, and why: of what expired, what put it off last."""
    reached: Mapping[str, int]
    """To each stage that anybody reached, how many led."""
    left: Mapping[tuple[Column, str], int]
    """Of those that people left upon, under what pressure that was."""
    shares: Mapping[tuple[Column | str, Column], float | None]
    """As ``SHARES`` says, and of stages; None: the base is empty."""
    to_open: timedelta | None
    """The median from the hand-off to the first human open; None: there was none."""
    to_click: timedelta | None
    cost: Mapping[str, Decimal]
    """By currency."""
    unpriced: int
    """Messages that a vendor took whose price is not known."""
    targets: tuple[Held, ...]
    """Those that some of the messages are held to."""
    channels: Mapping[str, int]
    """How many belong to each."""
    hidden: frozenset[Column]
    """Of which nothing can be known of such messages: none of them is in it, and that is not to say that none was."""


@dataclass(frozen=True, slots=True)
class Group:
    """The messages that have something in common."""

    key: tuple[str | None, ...]
    """In the order asked. None: the request did not say."""
    row: Row


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all messages of a time, and of each group of them."""

    question: Question
    asked_at: datetime
    zone: str
    """By whose clock days are told."""
    total: Row
    groups: tuple[Group, ...]
    """In the order of their keys; none where nothing is grouped by."""
    unattributed: Mapping[tuple[Act, str | None, str | None], int] | None
    """What people did in that time that belongs to no message, by stage and pressure. None where one category alone is
    asked about, since nobody knows of which it is."""


class Counting:
    """A report in the making: stories go in, and none is kept."""

    def __init__(
        self,
        question: Question,
        zone: ZoneInfo,
        priced: Mapping[str, Settings],
        targets: Sequence[Target],
        public_url: str | None = None,
    ) -> None:
        """Begin.

        Args:
            question: what is asked.
            zone: by whose clock days are told.
            priced: the providers whose price is known.
            targets: those in force.
            public_url: where links of ours lead, which are of another length than those in whose place they stand.
        """
        self._question = question
        self._zone = zone
        self._priced = priced
        self._public_url = public_url
        self._stages: dict[str, int] = {}
        for target in targets:
            for stage in (target.stage, target.of_stage):
                if stage is not None:
                    self._stage(stage)
        self._targets = [
            (target, self._bit(target.step, target.stage), self._bit(target.of, target.of_stage)) for target in targets
        ]
        self._concerned = lru_cache(maxsize=1024)(self._concerning)
        self._keys = [self._key(by) for by in question.by]
        self._tallies: dict[tuple[str | None, ...], _Tally] = {}
        self._unattributed: Counter[tuple[Act, str | None, str | None]] = Counter()

    def add(self, stories: Iterable[Story]) -> None:
        """Count these.

        Raises:
            TooMany: see there.
        """
        for story in stories:
            carrier = carried(story.tries)
            key = tuple([of(story, carrier) for of in self._keys])
            tally = self._tallies.get(key)
            if tally is None:
                if len(self._tallies) == GROUPS:
                    raise TooMany(
                        f"These messages fall into more than {GROUPS} groups: ask about a shorter time, or leave out"
                        " what differs most, such as variant or campaign"
                    )
                tally = self._tallies[key] = _Tally()
            self._count(story, carrier, tally)

    def add_unattributed(self, acts: Iterable[Unattributed]) -> None:
        """Count what belongs to no message."""
        for act in acts:
            self._unattributed[act.act, act.stage, act.band] += act.count

    def report(self, asked_at: datetime) -> Report:
        """What has been counted."""
        question = self._question
        total = _Tally()
        for tally in self._tallies.values():
            total.take(tally)
        # A funnel's stages: as the targets go through them, then the ones that most people reached.
        reached = {stage: total.count(bit) for stage, bit in self._stages.items()}
        of_targets = [stage for target, *_ in self._targets for stage in (target.of_stage, target.stage) if stage]
        order = list(dict.fromkeys([*of_targets, *sorted(reached, key=lambda stage: (-reached[stage], stage))]))
        stages = {stage: self._stages[stage] for stage in order}
        keys = sorted(self._tallies, key=lambda key: [(part is None, part or "") for part in key])
        return Report(
            question,
            asked_at,
            self._zone.key,
            self._row(total, stages),
            tuple(Group(key, self._row(self._tallies[key], stages)) for key in keys) if question.by else (),
            None if question.category else dict(self._unattributed),
        )

    def _count(self, story: Story, carrier: Try | None, tally: _Tally) -> None:
        marks = _REQUESTED | (_BY_REACH[carrier.state] if carrier else 0)
        if story.held and not WAITS.issuperset(story.held):
            marks |= _DEFERRED
        tally.channels[carrier.channel if carrier else NEVER_SENT] += 1
        if carrier and carrier.state in _REPORTED:
            tally.reported[carrier.channel] += 1
        marks |= self._acted(story, carrier, tally)
        tally.marks[marks] += 1
        tally.states[story.state] += 1
        if story.state in LOST:
            tally.lost[story.state, _why(story)] += 1
        # 64 bits of it: that any two of a million persons are taken for one has odds of one to 37 millions.
        tally.persons.append(hash(story.person))
        for index in self._concerned(story.category, story.campaign, carrier.channel if carrier else None):
            _, step, base = self._targets[index]
            based = marks & base != 0
            tally.based[index] += based
            tally.hits[index] += based and marks & step != 0
        self._bill(story, tally)

    def _acted(self, story: Story, carrier: Try | None, tally: _Tally) -> int:
        """The columns that acts bring it into."""
        marks = 0
        first: dict[Act, datetime] = {}
        for act in story.acts:
            bit = _BY_ACT.get((act.act, act.agent), 0)
            if act.agent is Agent.HUMAN:
                first.setdefault(act.act, act.at)
                if act.band is not None and bit & ~marks:
                    tally.left[Column(act.act), act.band] += 1
                if act.act is Act.CONVERTED and act.stage is not None:
                    marks |= self._stage(act.stage)
            marks |= bit
        if carrier:
            for done, lengths in ((Act.OPENED, tally.opens), (Act.CLICKED, tally.clicks)):
                if done in first:
                    lengths.append(_since(carrier, first[done]))
        return marks

    def _bill(self, story: Story, tally: _Tally) -> None:
        """What vendors took of it; what they take for one, by its key, once."""
        taken = {one.repeats or one.id: one for one in story.tries if one.state in _TOOK}
        for one in taken.values():
            text = story.text if one.channel is Channel.SMS else None
            if price := self._priced.get(one.provider):
                tally.units[one.provider] += 1 if text is None else price.units(self._sent(one, text))
        tally.unpriced += any(one.provider not in self._priced for one in taken.values())

    def _sent(self, carrier: Try, text: str) -> Content:
        """A text message, as long as it went out."""
        return drafted(Sms(text), self._public_url) if carrier.tracked and self._public_url else Sms(text)

    def _row(self, tally: _Tally, stages: Mapping[str, int]) -> Row:
        count = tally.count
        shares: dict[tuple[Column | str, Column], float | None] = {
            (column, base): tally.share(_BIT[column], _BIT[base]) for column, base in SHARES
        }
        for stage, bit in stages.items():
            for base in (Column.SENT, Column.DELIVERED):
                shares[stage, base] = tally.share(bit, _BIT[base])
        cost: dict[str, Decimal] = {}
        for provider, units in sorted(tally.units.items()):
            if price := self._priced[provider].cost:
                cost[price.currency] = cost.get(price.currency, Decimal(0)) + price.amount * units
        return Row(
            counts={column: count(bit) for column, bit in _BIT.items()},
            persons=len(set(tally.persons)),
            states={state: tally.states[state] for state in MessageState},
            lost=dict(sorted(tally.lost.items(), key=lambda item: (LOST.index(item[0][0]), -item[1], item[0][1]))),
            reached={stage: count(bit) for stage, bit in stages.items()},
            left=dict(tally.left),
            shares=shares,
            to_open=_middle(tally.opens),
            to_click=_middle(tally.clicks),
            cost=cost,
            unpriced=tally.unpriced,
            targets=tuple(
                held(target, tally.hits[index], tally.based[index])
                for index, (target, _, _) in enumerate(self._targets)
                if index in tally.based
            ),
            channels=dict(sorted(tally.channels.items())),
            hidden=_hidden(tally),
        )

    def _key(self, by: By) -> Callable[[Story, Try | None], str | None]:
        match by:
            case By.CHANNEL:
                return lambda _, carrier: carrier.channel if carrier else NEVER_SENT
            case By.DAY:
                return lambda story, _: story.accepted_at.astimezone(self._zone).date().isoformat()
            case _:
                said: Callable[[Story], str | None] = attrgetter(by.value)
                return lambda story, _: said(story)

    def _concerning(self, category: str, campaign: str | None, channel: Channel | None) -> tuple[int, ...]:
        """Which targets a message is held to."""
        return tuple(
            index
            for index, (target, _, _) in enumerate(self._targets)
            if target.category in (None, category)
            and target.campaign in (None, campaign)
            and target.channel in (None, channel)
        )

    def _bit(self, step: Step, stage: str | None) -> int:
        return _BIT[Column(step)] if stage is None else self._stage(stage)

    def _stage(self, stage: str) -> int:
        bit = self._stages.get(stage)
        if bit is None:
            if len(self._stages) == STAGES:
                raise TooMany(
                    f"People reached more than {STAGES} different stages: ask about one category, or less time"
                )
            bit = self._stages[stage] = 1 << len(_BIT) + len(self._stages)
        return bit


class _Tally:
    """What has been counted of a group.

    How often each combination of columns came up answers all that counts and shares ask, and there are few of them.
    """

    __slots__ = (
        *("based", "channels", "clicks", "hits", "left", "lost", "marks", "opens", "persons", "reported", "states"),
        *("units", "unpriced"),
    )

    def __init__(self) -> None:
        self.marks: Counter[int] = Counter()
        self.states: Counter[MessageState] = Counter()
        self.lost: Counter[tuple[MessageState, str]] = Counter()
        self.left: Counter[tuple[Column, str]] = Counter()
        self.units: Counter[str] = Counter()
        self.based: Counter[int] = Counter()
        self.hits: Counter[int] = Counter()
        self.channels: Counter[str] = Counter()
        self.reported: Counter[Channel] = Counter()
        """Of a channel, those of which a vendor said whether they arrived."""
        self.persons = array("q")
        self.opens = array("q")
        self.clicks = array("q")
        self.unpriced = 0

    def count(self, bits: int) -> int:
        """Messages that are in all of these columns."""
        return sum(number for marks, number in self.marks.items() if marks & bits == bits)

    def share(self, bit: int, base: int) -> float | None:
        """Of those of the base, how many are in the column too."""
        whole = self.count(base)
        return self.count(bit | base) / whole if whole else None

    def take(self, other: _Tally) -> None:
        """Count all of another's too."""
        for name in self.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            match mine:
                case Counter():
                    mine.update(more)
                case array():
                    mine.extend(more)
                case _:
                    setattr(self, name, mine + more)


def carried(tries: Iterable[Try]) -> Try | None:
    """The attempt that reached the person, as far as is known; of equals the last. None: none may have."""
    best, reach = None, 1
    for one in tries:
        if (certainty := _REACH.get(one.state, 0)) >= reach:
            best, reach = one, certainty
    return best


def _hidden(tally: _Tally) -> frozenset[Column]:
    """What is counted is known; what is not may be a true zero, or beyond anybody's sight."""
    went = tally.channels.keys() - {NEVER_SENT}
    hidden = {column for column, act in _SEEN.items() if tally.channels and not went & WITNESSED[act]}
    # Of mail, vendors report what bounces, and of what arrived nothing.
    if tally.channels and not tally.reported.keys() - {Channel.EMAIL}:
        hidden.add(Column.DELIVERED)
    return frozenset(column for column in hidden if not tally.count(_BIT[column]))


def _why(story: Story) -> str:
    """Why a message never went."""
    if story.state is MessageState.EXPIRED and story.held:
        return story.held[-1]
    return story.reason or "unknown"


def _since(carrier: Try, at: datetime) -> int:
    """Microseconds from the hand-off; what a reporter's clock says was done before was done at once."""
    return max(0, microseconds(at) - microseconds(carrier.begun_at))


def _middle(lengths: Sequence[int]) -> timedelta | None:
    return timedelta(microseconds=median(lengths)) if lengths else None
