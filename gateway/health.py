"""How does a provider fare on a channel: is it to be left alone, asked now and then, or given less?

Pure: whatever is told or asked comes with its instant. Each worker keeps one ``Vitals`` for each way and hears what the
other workers keep for the same one, so that what one has learnt the others need not pay for again.

A way opens (is left alone) when calls fail in a row, or when too large a share of them fails or is slow; after a
while a few probes may go (half open), and it closes when enough of them succeed. Short of that, points are taken off
its weight, ten at a time, and come back with time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gateway.message import AttemptState
from gateway.outcome import BUG
from providers import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.outcome import Outcome

Way = tuple[Channel, str]
"""A channel and a provider that sends on it."""

WINDOW: Final = timedelta(minutes=1)
"""How far back calls are counted."""
IN_A_ROW: Final = 5
"""Failures without a success between them after which a way opens."""
ENOUGH: Final = 20
"""Calls in the window without which shares of them say nothing."""
FAILING: Final = 0.5
"""Share of failures at which a way opens."""
TOO_SLOW: Final = 0.8
"""Share of slow calls at which a way opens."""
SLOW: Final = timedelta(seconds=5)
"""A call that takes longer is slow, whatever comes of it; it counts as soon as it has taken so long."""
SLOW_IN_A_ROW: Final = 20
"""Slow calls with no quick success between them after which a way opens, however well it did in the minute before."""

CUT: Final = 10.0
"""Points, of a hundred, that are taken off at a time, and come back in a minute; GOV.UK Notify's step too."""
CUT_FAILED: Final = 0.10
"""Share of failures in the window at which points are taken off."""
CUT_SLOW: Final = 0.15
"""Share of slow calls at which they are: GOV.UK Notify's figure."""

SHORTEST: Final = timedelta(seconds=10)
"""How long a way that opens is left alone; twice as long each time that probes fail."""
LONGEST: Final = timedelta(minutes=1)
PROBES: Final = 5
"""Of all workers together in ``INTERVAL`` while a way is half open."""
INTERVAL: Final = timedelta(seconds=5)
PROOF: Final = 5
"""Successes, without a failure between them, that close a way."""

_EARLIER: Final = timedelta(seconds=5)
"""Cuts nearer together than this are the same cut, which workers have told each other of."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class State(StrEnum):
    """Whether a way is used."""

    CLOSED = "closed"
    """As the route says."""
    HALF_OPEN = "half_open"
    """By a few probes, and where nothing else is left."""
    OPEN = "open"
    """Where nothing else is left."""


_ABOUT_US = (BUG, "unavailable:deadline")
"""Errors that say nothing of the provider: our mistake, or that we came too late to write, as after a pause."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a call says of its provider."""

    began: datetime
    failed: bool
    slow: bool = False
    open: bool = False
    """It has not ended: whether it will succeed is not known."""
    counted: bool = False
    """It has ended, and was counted as slow before."""


def result_of(outcome: Outcome, began: datetime, ended: datetime) -> Result | None:
    """What an outcome says of the provider; None: nothing, for it is about the message, the address, the pace or us."""
    if (
        outcome.error in _ABOUT_US
        or outcome.throttled
        or outcome.state in (AttemptState.REJECTED, AttemptState.UNREACHABLE)
    ):
        return None
    return Result(began, outcome.failing or outcome.state is AttemptState.UNKNOWN, ended - began > SLOW)


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker tells the others of a way. Instants are by the clock of whoever holds it."""

    calls: int = 0
    """In the window, since the way last opened or closed."""
    failed: int = 0
    slow: int = 0
    run: int = 0
    """Failures since the last success."""
    run_began: datetime | None = None
    succeeded: datetime | None = None
    """When a call last did."""
    mark: str = ""
    """Of the last time that it opened or closed: the same in all workers that have heard of it."""
    changed: datetime | None = None
    """When that was."""
    until: datetime | None = None
    """When it is half open; None: it is closed."""
    times: int = 0
    """How often it has opened, short of a while in which it did not."""
    proved: int = 0
    """Successes since it opened."""
    cut: float = 0.0
    """Points taken off when that was last done."""
    cut_at: datetime | None = None


_INSTANTS: Final = ("run_began", "succeeded", "changed", "until", "cut_at")


def written(report: Report, now: datetime) -> dict[str, int | float | str]:
    """A report as JSON: what differs from an empty one, instants as milliseconds before ``now``."""
    told: dict[str, int | float | str] = {}
    for field in fields(report):
        value = getattr(report, field.name)
        if isinstance(value, datetime):
            told[field.name] = round((now - value).total_seconds() * 1000)
        elif value:
            told[field.name] = value
    return told


def read(told: Mapping[str, int | float | str], then: datetime) -> Report:
    """The report that was written at an instant, ``then`` by the reader's clock; unknown keys are passed over."""
    known = {field.name for field in fields(Report)}
    values = {
        name: then - timedelta(milliseconds=float(value)) if name in _INSTANTS else value
        for name, value in told.items()
        if name in known
    }
    return Report(**values)  # type: ignore[arg-type]  # written by the function above


class Vitals:
    """One way, as one worker knows it."""

    def __init__(self, worker: str) -> None:
        """``worker``: a name that no other has."""
        self._worker = worker
        self._seconds: deque[list[int]] = deque()
        self._run = 0
        self._run_began: datetime | None = None
        self._slow_run = 0
        self._succeeded: datetime | None = None
        self._failed: datetime | None = None
        self._mark = ""
        self._marks = 0
        self._changed: datetime | None = None
        self._until: datetime | None = None
        self._times = 0
        self._proved = 0
        self._cut = 0.0
        self._cut_at: datetime | None = None
        self._peers: Sequence[Report] = ()
        self.evidence = Report()
        """Why this worker last opened it: what all knew together."""

    # ------------------------------------------------------------------------------------------------------------ asked

    def state(self, now: datetime) -> State:
        """Whether it is used."""
        if self._until is None:
            return State.CLOSED
        return State.OPEN if now < self._until else State.HALF_OPEN

    @property
    def mark(self) -> str:
        """Of the last time that it opened or closed, here or elsewhere."""
        return self._mark

    @property
    def run(self) -> int:
        """Failures since the last success."""
        return self._run

    def cut(self, now: datetime) -> float:
        """Points that are off its weight: all for a minute, then ten less with every minute."""
        if self._cut_at is None:
            return 0.0
        return max(0.0, self._cut - CUT * max(0.0, (now - self._cut_at) / WINDOW - 1))

    def probes(self, now: datetime, place: int, workers: int) -> int:
        """How many probes a worker may begin in this interval: its share of those of all.

        Args:
            now: the instant.
            place: the worker's among all, from 0.
            workers: how many there are.
        """
        if self.state(now) is not State.HALF_OPEN:
            return 0
        each, left = divmod(PROBES, workers)
        return each + ((place + self.interval(now) * left) % workers < left)

    def interval(self, now: datetime) -> int:
        """The number of the interval, from 0, since it is half open."""
        return 0 if self._until is None else max(0, (now - self._until) // INTERVAL)

    def report(self, now: datetime) -> Report:
        """What the others are told."""
        calls, failed, slow = self._counts(now)
        return Report(
            calls,
            failed,
            slow,
            self._run,
            self._run_began,
            self._succeeded,
            self._mark,
            self._changed,
            self._until,
            self._times,
            self._proved,
            self._cut,
            self._cut_at,
        )

    # ------------------------------------------------------------------------------------------------------------- told

    def record(self, result: Result, now: datetime) -> None:
        """A call has ended; one that began before it opened or closed says nothing that was not known by then."""
        if self._changed and result.began < self._changed:
            return
        if self._until is not None:
            self._record_open(result, now)
            return
        self._count(result, now)
        self._note(result, now)
        if result.failed or result.slow:
            self._judge(now)

    def hear(self, peers: Sequence[Report], now: datetime) -> None:
        """What the other workers know, all of them, each time anew."""
        self._peers = peers
        latest = max((peer for peer in peers if peer.changed), key=_changed, default=None)
        if latest and latest.mark != self._mark and _changed(latest) > _or_long_ago(self._changed):
            self._adopt(latest)
        cut = max(peers, key=_cut_at, default=None)
        if cut and cut.cut_at and (self._cut_at is None or cut.cut_at - self._cut_at > _EARLIER):
            self._cut, self._cut_at = cut.cut, cut.cut_at
        self._judge(now)

    # --------------------------------------------------------------------------------------------------------- counting

    def _note(self, result: Result, now: datetime) -> None:
        if result.slow:
            self._slow_run += not result.counted
        elif not result.failed:
            self._slow_run = 0
        if result.open:
            return
        if not result.failed:
            self._run, self._run_began, self._succeeded = 0, None, now
            return
        if self._failed is None or now - self._failed > WINDOW or self._run_began is None:
            self._run, self._run_began = 0, now
        self._run, self._failed = self._run + 1, now

    def _count(self, result: Result, now: datetime) -> None:
        second = int(now.timestamp())
        if not self._seconds or self._seconds[-1][0] != second:
            self._forget(now)
            self._seconds.append([second, 0, 0, 0])
        last = self._seconds[-1]
        last[1] += not result.counted
        last[2] += result.failed
        last[3] += result.slow and not result.counted

    def _forget(self, now: datetime) -> None:
        first = int((now - WINDOW).timestamp())
        while self._seconds and self._seconds[0][0] <= first:
            self._seconds.popleft()

    def _counts(self, now: datetime) -> tuple[int, int, int]:
        self._forget(now)
        calls = failed = slow = 0
        for second in self._seconds:
            calls, failed, slow = calls + second[1], failed + second[2], slow + second[3]
        return calls, failed, slow

    # ---------------------------------------------------------------------------------------------------------- judging

    def _judge(self, now: datetime) -> None:
        """Open, close or take points off, by what all workers know together."""
        if self._until is not None:
            proved = sum(peer.proved for peer in self._peers if peer.until and peer.mark == self._mark)
            if self._proved + proved >= PROOF:
                self._turn(now, None)
            return
        views = [self.report(now), *(peer for peer in self._peers if peer.until is None)]
        calls = sum(view.calls for view in views)
        failed = sum(view.failed for view in views)
        slow = sum(view.slow for view in views)
        run = max(self._run, _in_a_row(views, now))
        many = calls >= ENOUGH
        in_a_row = run >= IN_A_ROW or self._slow_run >= SLOW_IN_A_ROW
        if in_a_row or (many and (failed >= FAILING * calls or slow >= TOO_SLOW * calls)):
            self.evidence = Report(calls, failed, slow, run)
            self._open(now)
        elif many and (failed >= CUT_FAILED * calls or slow >= CUT_SLOW * calls) and self._may_cut(now):
            self._cut, self._cut_at = min(self.cut(now) + CUT, 100.0), now

    def _may_cut(self, now: datetime) -> bool:
        """Once a window, so that the same calls are held against it once."""
        return self._cut_at is None or now - self._cut_at >= WINDOW

    def _record_open(self, result: Result, now: datetime) -> None:
        """By successes it may close; a failure leaves it alone anew if that was to be found out."""
        if not (result.failed or result.slow):
            self._succeeded = now
            self._proved += 1
            self._judge(now)
            return
        self._proved = 0
        if result.failed:
            self._failed = now
        if self.state(now) is State.HALF_OPEN:
            self.evidence = Report(1, int(result.failed), int(result.slow), int(result.failed))
            self._open(now)

    def _open(self, now: datetime) -> None:
        again = self._until is not None or (self._changed is not None and now - self._changed < WINDOW)
        self._times = self._times + 1 if again else 1
        self._turn(now, now + min(SHORTEST * 2 ** min(self._times - 1, 10), LONGEST))

    def _turn(self, now: datetime, until: datetime | None) -> None:
        self._marks += 1
        self._mark = f"{self._worker}/{self._marks}"
        self._changed, self._until = now, until
        self._begin_anew()

    def _adopt(self, peer: Report) -> None:
        """Believe what another says has happened, unless what this worker has seen since says otherwise."""
        then = _changed(peer)
        failed, succeeded = _or_long_ago(self._failed) > then, _or_long_ago(self._succeeded) > then
        if failed if peer.until is None else succeeded and not failed:
            return
        self._mark, self._changed, self._until, self._times = peer.mark, peer.changed, peer.until, peer.times
        self._begin_anew()

    def _begin_anew(self) -> None:
        """What was counted before it opened or closed says nothing of it now."""
        self._seconds.clear()
        self._run, self._run_began, self._slow_run, self._proved = 0, None, 0, 0


def _in_a_row(views: Sequence[Report], now: datetime) -> int:
    """Failures of all since anybody's last success."""
    succeeded = max(_or_long_ago(view.succeeded) for view in views)
    since = max(succeeded, now - WINDOW)
    return sum(view.run for view in views if view.run and _or_long_ago(view.run_began) >= since)


def _changed(report: Report) -> datetime:
    return _or_long_ago(report.changed)


def _cut_at(report: Report) -> datetime:
    return _or_long_ago(report.cut_at)


def _or_long_ago(instant: datetime | None) -> datetime:
    return instant or _LONG_AGO
