"""Whatever is asked, answered, said and broken, in whatever order and at whatever hour: is every promise kept?

A state machine drives the real stores with a clock of its own and holds them to a model that shares no code with them.
What it finds is printed as the steps that lead there. ``DECORUM_EXAMPLES`` multiplies the examples.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.config import parse
from gateway.decide import Behind, Deferred, Ended, Judge
from gateway.lines import line_of
from gateway.message import Message, MessageState, OptOut, Priority, Profile, PushAddress, canonical_hash, microseconds
from gateway.outcome import accepted, bug, failed
from gateway.store import Claimed, Lost, NewMessage, Settlement, Store, engine_of
from gateway.store.engine import Fetch
from gateway.store.migrate import migrate
from gateway.store.schema import metadata
from gateway.unknown import Recourse
from providers import Channel, Receipt, ReceiptStatus, Rejected, Throttled, Unavailable, Unconfirmed, Unreachable
from tests.examples import examples
from tests.proofs.house_rules import CATEGORIES, PRIORITIES, HouseRules, house_rules
from tests.proofs.model import LISTENED, SPAN, Asked, Known, Model, changes, deadline_of

if TYPE_CHECKING:
    from collections.abc import Container, Coroutine, Iterator

    from gateway.outcome import Outcome
    from gateway.store import Lease, Next
    from gateway.store.engine import Engine, Operation

TERM = timedelta(seconds=30)
PATIENCE = timedelta(seconds=10)
GRACE = timedelta(seconds=10)
"""How much longer than its attempt a lease lives."""
SECOND = timedelta(seconds=1)
A_MOMENT = timedelta(seconds=2)
"""Within which a message asks again that let another go first."""
LAST = timedelta(minutes=1)
"""Before its expiry, in which a message waits for none that only waits itself."""
LONGEST_RETRY = timedelta(minutes=23)
LONGEST_WAIT = timedelta(hours=1)
"""For news of what may have been sent."""
KEYED = timedelta(minutes=20)
"""How long provider ``one`` knows a key, under every other policy."""
NO_RULES = ("retry", "throttled", "repeat")
"""What a message waits for that no rule holds."""
FINAL = ("delivered", "undelivered", "sent")
"""In the order in which evidence outweighs; all else that is final comes behind."""
OUTCOMES: dict[str, Outcome] = {
    "accepted": accepted("ref"),
    "down": failed(Unavailable("refused")),
    "throttled": failed(Throttled("429")),
    "rejected": failed(Rejected("400")),
    "unreachable": failed(Unreachable("21211")),
    "unknown": failed(Unconfirmed("timeout")),
    "bug": bug(),
}
PHONES = ("+447400123456", "+61412345678", "+12125550123")
"""A British and an Australian mobile (the latter in all zones of Australia), and one of New York."""
PEOPLE = {
    "ann": Known(phone=PHONES[0], email="ann@example.com"),
    "bob": Known(phone=PHONES[1], email="shared@example.com", push=("token-1", "token-2")),
    "cyd": Known(phone=PHONES[2], email="shared@example.com", timezone="Europe/Berlin"),
}
CHANGING = ("Europe/London", "America/New_York", "Australia/Lord_Howe", "America/Santiago")
ZONES = (*CHANGING, "Asia/Kathmandu", "Pacific/Apia")
_2026, _2027 = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
STARTS = (
    *sorted({change - timedelta(hours=30) for zone in CHANGING for change in changes(zone, _2026, _2027)}),
    datetime(2026, 12, 30, 12, tzinfo=UTC),
    datetime(2028, 2, 28, 20, tzinfo=UTC),
)
"""Shortly before clocks are changed somewhere, a year ends, or there is a 29 February."""

pick = st.integers(0, 1_000_000)
"""Which of those that there are."""
outcomes = st.sampled_from(["accepted"] * 6 + [name for name in OUTCOMES if name not in ("accepted", "bug")])
people = st.sampled_from(sorted(PEOPLE))
noes = st.tuples(
    st.sampled_from(["", "", "sms", "email"]),
    st.sampled_from(["", "offer", "news"]),
    st.sampled_from(["", "", "sport"]),
)
spells = st.one_of(
    st.integers(1, 59).map(lambda n: timedelta(seconds=n)),
    st.integers(1, 600).map(lambda n: timedelta(minutes=n)),
    st.integers(1, 80).map(lambda n: timedelta(hours=n)),
    st.integers(1, 40).map(lambda n: timedelta(days=n)),
)


@dataclass(frozen=True)
class Wish:
    """What a service asks for."""

    person: str
    category: str
    channels: tuple[str, ...]
    lower: int
    """Than its category's priority."""
    campaign: str | None
    topic: str | None
    timezone: str | None
    phone: str | None
    delay: int
    """Minutes until it may go."""
    minutes: int
    """To live after that."""
    copies: int
    """That stand in one line; each expires sooner than the one before."""


wishes = st.builds(
    Wish,
    person=people,
    category=st.sampled_from(["code", "alert", "alert", "offer", "offer", "news", "news", "news"]),
    channels=st.sampled_from(
        [("sms",), ("email",), ("sms", "email"), ("sms", "email"), ("email", "sms"), ("push", "sms")]
    ),
    lower=st.integers(0, 2),
    campaign=st.sampled_from([None, "spring", "summer"]),
    topic=st.sampled_from([None, None, "sport"]),
    timezone=st.sampled_from([None, None, None, *ZONES]),
    phone=st.sampled_from([None, None, *PHONES]),
    delay=st.sampled_from([0, 0, 0, 5, 600, 3000]),
    minutes=st.sampled_from([1, 30, 720, 1440, 4320, 4320]),
    copies=st.sampled_from([1, 1, 1, 2, 6]),
)


class Arena:
    """A real store, its event loop, and a clock that stands until it is moved. Emptied for each example."""

    def __init__(self, url: str) -> None:
        self.now = STARTS[0]
        self.engine: Engine = engine_of(url, lambda: microseconds(self.now), server_clock=False)
        self.store = Store(self.engine)
        self._runner = asyncio.Runner()
        self._tables = [table.name for table in metadata.tables.values()]

    def do(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(doing)

    def open(self) -> None:
        self.do(self.store.open())

    def close(self) -> None:
        self.do(self.store.close())
        self._runner.close()

    def empty(self) -> None:
        def emptied() -> Operation[None]:
            for table in self._tables:
                yield Fetch(f"delete from {table}")

        self.do(self.engine.write(emptied))

    def ask(self, *statements: str) -> list[list[Any]]:
        """What each of these finds, all at one moment."""

        def asked() -> Operation[list[list[Any]]]:
            found: list[list[Any]] = []
            for statement in statements:
                rows = yield Fetch(statement)
                found.append([tuple(row) for row in rows])
            return found

        found: list[list[Any]] = self.do(self.engine.read(asked))
        return found


class Courtesy(RuleBasedStateMachine):
    """What services, workers, vendors, persons and ops may do, in any order."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.arena = arena
        self.arena.empty()
        self.model = Model(HouseRules())
        self.new: dict[str, NewMessage] = {}
        self.leases: list[tuple[Lease, datetime]] = []
        """Taken, and not decided yet."""
        self.open: list[Claimed] = []
        """Claimed, and not settled by the one who claimed it."""
        self.done: list[Claimed] = []
        self.waits: dict[str, datetime] = {}
        """For what is no rule's business."""
        self.unaware: set[str] = set()
        """What waited when an address was not to be used any more, of which nobody knew whose it is as well; it goes on
        waiting for what it waited for."""
        self.over: set[str] = set()
        """Said to have ended."""
        self.states: dict[str, str] = {}
        self.latest = arena.now
        self.ids = 0

    # -------------------------------------------------------------------------------------------------------- the world

    @property
    def now(self) -> datetime:
        return self.arena.now

    @now.setter
    def now(self, now: datetime) -> None:
        self.arena.now = now
        self.latest = max(now, self.latest)

    def id(self) -> str:
        self.ids += 1
        return f"{self.ids:032d}"

    @initialize(start=st.sampled_from(STARTS), rules=house_rules, first=st.lists(wishes, min_size=2, max_size=8))
    def begin(self, start: datetime, rules: HouseRules, first: list[Wish]) -> None:
        self.arena.now = self.latest = start
        self.force(rules)
        for person, known in PEOPLE.items():
            self.tell(person, known)
        self.submit(first)

    def force(self, rules: HouseRules) -> None:
        config = parse(rules.written(), {}, base=Path())
        number = self.arena.do(self.arena.store.activate(config.policy, "proofs"))
        self.judge = Judge(
            policy=config.policy,
            number=number,
            routes=config.routes,
            patience={"one": PATIENCE, "two": PATIENCE},
            span=SPAN,
            events=frozenset(MessageState),
            recourses={"one": Recourse(keyed=KEYED)} if number % 2 else {},
        )
        self.model.rules = rules
        self.model.keyed = KEYED if number % 2 else None

    def tell(self, person: str, known: Known, refused: tuple[OptOut, ...] | None = None) -> None:
        profile = Profile(
            phone=known.phone,
            email=known.email,
            push=tuple(PushAddress(token=token, platform="web") for token in known.push),
            timezone=known.timezone,
            opted_out=refused,
        )
        self.arena.do(self.arena.store.put_profiles([(person, profile)]))
        self.model.people[person] = known

    # --------------------------------------------------------------------------------------------------------- services

    @rule(wishes=st.lists(wishes, min_size=1, max_size=3))
    def submit(self, wishes: list[Wish]) -> None:
        for wish in wishes:
            for copy in range(wish.copies):
                self.accept(wish, timedelta(minutes=wish.minutes) * (wish.copies - copy) / wish.copies)

    def accept(self, wish: Wish, lives: timedelta) -> None:
        starts = self.now + timedelta(minutes=wish.delay)
        priority = PRIORITIES[CATEGORIES[wish.category].priority]
        asked = Asked(
            id=self.id(),
            number=self.ids,
            person=wish.person,
            category=wish.category,
            channels=wish.channels,
            priority=min(3, priority + wish.lower) if priority else 0,
            starts=starts,
            expires=starts + lives,
            campaign=wish.campaign,
            topic=wish.topic,
            timezone=wish.timezone,
            phone=wish.phone,
        )
        new = self.written(asked)
        assert self.arena.do(self.arena.store.accept([new])) == [None]
        self.new[asked.id] = new
        self.model.messages[asked.id] = asked
        self.model.waiting.add(asked.id)

    def written(self, asked: Asked) -> NewMessage:
        """As intake hands it to the store."""
        said: dict[str, Any] = {
            "sms": {"text": "hello"},
            "email": {"subject": "s", "text": "t"},
            "push": {"title": "a", "body": "b"},
        }
        body: dict[str, Any] = {"content": {channel: said[channel] for channel in asked.channels}}
        if asked.phone:
            body["to"] = {"phone": asked.phone}
        if asked.timezone:
            body["timezone"] = asked.timezone
        if asked.topic:
            body["labels"] = {"topic": asked.topic}
        message = Message(
            id=asked.id,
            source="proofs",
            request=f"request-{asked.id}",
            person=asked.person,
            category=asked.category,
            channels=tuple(Channel(channel) for channel in asked.channels),
            priority=Priority(asked.priority),
            accepted_at=self.now,
            starts_at=asked.starts,
            expires_at=asked.expires,
            campaign=asked.campaign,
            body=body,
        )
        policy = self.judge.policy
        line = line_of(message, policy.categories[asked.category], policy.labels)
        return NewMessage(message, canonical_hash(body), line, self.judge.number)

    @precondition(lambda self: self.new)
    @rule(which=pick, same=st.booleans())
    def submit_again(self, which: int, same: bool) -> None:
        first = self.new[sorted(self.new)[which % len(self.new)]]
        body = first.message.body if same else {**first.message.body, "campaign": "another"}
        again = replace(first.message, id=self.id(), body=body, accepted_at=self.now)
        (known,) = self.arena.do(self.arena.store.accept([replace(first, message=again, hash=canonical_hash(body))]))
        assert known is not None
        assert known.message == first.message.id
        assert (known.hash == canonical_hash(body)) is same

    @precondition(lambda self: self.model.messages)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        asked = self.model.messages[sorted(self.model.messages)[which % len(self.model.messages)]]
        under_way = any(a.state == "intent" for a in self.model.attempts.values() if a.message is asked)
        waiting = asked.id in self.model.waiting
        state = self.arena.do(self.arena.store.cancel(asked.id, self.judge))
        if waiting and not under_way:
            doubt = any(a.state == "unknown" for a in self.model.attempts.values() if a.message is asked)
            assert state is (MessageState.UNKNOWN if doubt else MessageState.CANCELLED)
            self.model.waiting.remove(asked.id)
        elif waiting:
            assert state is MessageState.SENDING

    # ---------------------------------------------------------------------------------------------------------- workers

    def lease(self, room: int = 1000) -> list[Lease]:
        wanted = [(priority, channel, room) for priority in Priority for channel in Channel]
        leases, _ = self.arena.do(self.arena.store.lease(wanted, TERM))
        return list(leases)

    @rule(room=st.sampled_from([1, 1000]))
    def take(self, room: int) -> None:
        """Lease, and be slow to decide."""
        self.leases += [(lease, self.now + TERM) for lease in self.lease(room)]

    @precondition(lambda self: self.leases)
    @rule(which=st.lists(pick, min_size=1, max_size=4))
    def decide(self, which: list[int]) -> None:
        """Some of what was taken, whether or not it is still ours."""
        chosen = {number % len(self.leases): None for number in which}
        leases = [self.leases[index][0] for index in chosen]
        self.leases = [lease for index, lease in enumerate(self.leases) if index not in chosen]
        self.claim(leases)

    def claim(self, leases: list[Lease]) -> None:
        if not leases:
            return
        ids = [self.id() for _ in leases]
        answers = self.arena.do(self.arena.store.claim(leases, self.judge, ids))
        known = {new.message.id: new.message for new in self.new.values()}
        by_rank = sorted(range(len(leases)), key=lambda index: self.model.messages[leases[index].message.id].rank)
        for index in by_rank:
            asked = self.model.messages[leases[index].message.id]
            assert leases[index].message == known[asked.id]
            if not isinstance(answers[index], Lost):
                for left in self.under_way(asked):
                    self.model.settle(left, "unknown", self.now, by_itself=True)
            self.answered(asked, answers[index], ids[index])

    def under_way(self, asked: Asked) -> list[str]:
        return [a.id for a in self.model.attempts.values() if a.message is asked and a.state == "intent"]

    def answered(self, asked: Asked, answer: Next, attempt: str | None) -> None:
        """What was decided of a message; ``attempt``: the id that its attempt must have, None where it follows one."""
        model = self.model
        if not isinstance(answer, Behind | Lost):
            self.unaware.discard(asked.id)
        match answer:
            case Claimed():
                assert attempt in (None, answer.attempt.id)
                step = answer.step
                if attempt:
                    self.in_its_turn(asked)
                assert asked.starts <= self.latest, f"{asked.id} was let go too early"
                repeats = answer.attempt.repeats
                assert repeats is None or model.may_use_key(repeats, self.now), f"{asked.id}: the key is not known"
                sight = model.as_it_may_go(asked, repeats)
                wrong = sight.wrong(asked, step.address.channel, step.address.value, self.now)
                assert wrong is None, f"{asked.id} was let go at {self.now}: {wrong}"
                assert step.deadline == answer.attempt.deadline == deadline_of(asked, self.now)
                self.valid(asked, answer)
                lease_until = step.deadline + PATIENCE + GRACE
                way = str(step.address.channel), step.address.value
                model.begin(answer.attempt.id, asked, *way, self.now, lease_until, repeats)
                self.open.append(answer)
                self.waits.pop(asked.id, None)
            case Deferred(until=until, rule=rule):
                assert self.now < until <= asked.expires
                self.waits.pop(asked.id, None)
                if rule in NO_RULES:
                    assert until <= self.now + (LONGEST_WAIT if rule == "repeat" else LONGEST_RETRY)
                    self.waits[asked.id] = until
            case Ended():
                self.over.add(asked.id)
            case Behind() | Lost():
                pass

    def in_its_turn(self, asked: Asked) -> None:
        """A message goes only if no better one of its line waits; in its last minute those that sleep do not count."""
        asleep: set[str] = set()
        if asked.expires <= self.now + LAST:
            now = microseconds(self.now)
            (rows,) = self.arena.ask(f"select message from due where due_at > {now} and lease_until <= {now}")
            asleep = {message for (message,) in rows}
        for other in self.model.waiting - self.over - asleep:
            better = self.model.messages[other]
            alike = self.model.like(better, asked) and not self.model.apart(better) and not self.model.apart(asked)
            if alike and better.starts <= self.now and not self.model.collapses(asked):
                assert better.rank >= asked.rank, f"{asked.id} went before {other}"

    def valid(self, asked: Asked, claimed: Claimed) -> None:
        """The provider is told to give up before the hours end."""
        until = claimed.step.valid_until
        assert self.now < until <= asked.expires
        channel, value = claimed.step.address.channel, claimed.step.address.value
        for part in range(5):
            at = self.now + part * (max(until - SECOND - SPAN, self.now) - self.now) / 4
            assert self.model.untimely(asked, channel, value, at) is None

    @rule(several=st.lists(outcomes, min_size=1, max_size=6), room=st.sampled_from([1, 3, 1000]))
    def work(self, several: list[str], room: int) -> None:
        """Lease, decide and settle once, one outcome each; further ones are left open."""
        before = len(self.open)
        self.claim(self.lease(room))
        self.consistent()  # what was refused now may be free again when the others are finished
        begun = self.open[before:]
        self.finish(list(zip(begun, several, strict=False)))

    @precondition(lambda self: self.open)
    @rule(which=st.lists(st.tuples(pick, outcomes), min_size=1, max_size=3))
    def settle(self, which: list[tuple[int, str]]) -> None:
        """What was left open, however late."""
        chosen = {number % len(self.open): name for number, name in which}
        self.finish([(self.open[index], name) for index, name in chosen.items()])

    @precondition(lambda self: self.open)
    @rule(which=pick, name=outcomes)
    def settle_twice(self, which: int, name: str) -> None:
        """The commit is made, nobody hears of it, and it is made again."""
        claimed = self.open[which % len(self.open)]
        before = len(self.open)
        self.finish([(claimed, name)])
        unheard = self.open[before - 1 :]
        self.open = self.open[: before - 1]
        self.done += unheard
        self.open.append(claimed)
        self.finish([(claimed, name)])

    @precondition(lambda self: self.open)
    @rule(which=pick)
    def disown(self, which: int) -> None:
        """The commit of an intent was not heard of: nobody was called."""
        claimed = self.open.pop(which % len(self.open))
        self.done.append(claimed)
        tried = self.model.attempts[claimed.attempt.id]
        self.arena.do(self.arena.store.disown({tried.id: tried.message.person}))
        if tried.state == "intent":
            self.model.settle(tried.id, "not_sent", self.now)

    def finish(self, settled: list[tuple[Claimed, str]]) -> None:
        if not settled:
            return
        for claimed, _ in settled:
            self.open.remove(claimed)
            self.done.append(claimed)
        answers = self.arena.do(
            self.arena.store.settle([Settlement(claimed, OUTCOMES[name]) for claimed, name in settled], self.judge)
        )
        for (claimed, name), answer in zip(settled, answers, strict=True):
            asked, state = self.model.messages[claimed.attempt.message], OUTCOMES[name].state
            self.model.settle(claimed.attempt.id, state, self.now)
            if not isinstance(answer, Lost) and state != "accepted":
                for unheard in self.under_way(asked):
                    self.model.settle(unheard, "not_sent", self.now)
        for claimed, name in settled:
            if OUTCOMES[name].state == "unreachable":
                self.model.bad.add((str(claimed.step.address.channel), claimed.step.address.value))
                self.overheard(claimed.step.address.value, [self.model.messages[claimed.attempt.message].person])
        for (claimed, _), answer in zip(settled, answers, strict=True):
            self.answered(self.model.messages[claimed.attempt.message], answer, None)

    # ---------------------------------------------------------------------------------------------- vendors and persons

    @precondition(lambda self: self.open or self.done)
    @rule(
        which=pick, news=st.sampled_from(["accepted", "delivered", "delivered", "undelivered", "unreachable", "other"])
    )
    def receipt(self, which: int, news: str) -> None:
        claims = [*self.open, *self.done]
        claimed = claims[which % len(claims)]
        tried = self.model.attempts[claimed.attempt.repeats or claimed.attempt.id]
        if tried.state in ("not_sent", "rejected", "unreachable"):
            return  # a vendor reports on nothing that it did not take
        if tried.state == "undelivered" and news == "delivered":
            return  # a place that was given back is not taken again
        before = tried.state
        heard = Receipt(tried.id, ReceiptStatus(news), "ref", news)
        changed = self.model.hear(tried.id, news, self.now)
        if news == "unreachable":
            self.overheard(tried.value, [tried.message.person])
        assert self.arena.do(self.arena.store.receipt([heard], self.judge)) == [changed]
        if not changed:
            if news == "unreachable":
                self.model.doubtful.add((tried.channel, tried.value))
            return
        if news == "unreachable":
            current = tried.value in self.model.addresses(tried.message, tried.channel)
            (self.model.bad if current else self.model.doubtful).add((tried.channel, tried.value))
        if before in ("intent", "unknown"):
            self.model.waiting.discard(tried.message.id)

    @rule()
    def sweep(self) -> None:
        """Nothing that was begun for a message that has ended stays under way once its lease is over."""
        self.arena.do(self.arena.store.look(self.judge, 1000))
        self.arena.do(self.arena.store.overdue(self.judge, 1000))
        (rows,) = self.arena.ask("select id from attempts where state = 'unknown'")
        for (attempt,) in rows:
            tried = self.model.attempts[attempt]
            if tried.state == "intent":
                assert tried.message.id not in self.model.waiting or self.now >= tried.message.expires + LISTENED
                assert self.now >= tried.leased_until, "its worker may be alive"
                self.model.settle(attempt, "unknown", self.now, by_itself=True)

    @rule(person=people, said=noes, by_address=pick)
    def say_no(self, person: str, said: tuple[str, str, str], by_address: int) -> None:
        channel, category, topic = said
        optout = OptOut(channel=channel or None, category=category or None, topic=topic or None)
        if by_address % 3:
            assert self.arena.do(self.arena.store.opt_out(person, optout, "one_click", self.judge))
            self.model.noes.setdefault((person, ""), {})[said] = "one_click"
            return
        known = self.model.people[person]
        address = (known.phone, known.email)[by_address % 2] or PHONES[0]
        self.arena.do(self.arena.store.opt_out_address(address, optout, "stop", self.judge))
        self.model.noes.setdefault(("", address), {})[said] = "stop"
        self.overheard(address, self.contacted_at(address))

    def contacted_at(self, address: str) -> set[str]:
        lately = [a for a in self.model.attempts.values() if a.begun > self.now - timedelta(days=90)]
        return {a.message.person for a in lately if a.value == address}

    def overheard(self, address: str, known: Container[str]) -> None:
        """An address is not to be used any more, or may be again, and of all who have it only these are known."""
        for id_ in self.model.waiting:
            asked = self.model.messages[id_]
            if asked.person not in known and any(address in self.model.addresses(asked, c) for c in asked.channels):
                self.unaware.add(id_)

    @precondition(lambda self: any(self.model.noes.values()))
    @rule(which=pick)
    def say_yes_in_peace(self, which: int) -> None:
        """Whom a no held goes at once."""
        self.rest(["accepted"], 0)
        self.say_yes(which)
        self.rest(["accepted"], 0)

    @rule(person=people, timezone=st.sampled_from([None, *ZONES]))
    def move_house(self, person: str, timezone: str | None) -> None:
        """Whom the clocks held goes at once, where they read another time."""
        self.rest(["accepted"], 0)
        self.tell(person, replace(self.model.people[person], timezone=timezone))
        self.rest(["accepted"], 0)

    @precondition(lambda self: any(self.model.noes.values()))
    @rule(which=pick)
    def say_yes(self, which: int) -> None:
        said = [(whose, no) for whose, all_ in sorted(self.model.noes.items()) for no in sorted(all_)]
        (person, address), no = said[which % len(said)]
        channel, category, topic = no
        optout = OptOut(channel=channel or None, category=category or None, topic=topic or None)
        assert self.arena.do(self.arena.store.opt_in(person, address or None, optout))
        assert not self.arena.do(self.arena.store.opt_in(person, address or None, optout))
        del self.model.noes[person, address][no]
        if address:
            self.overheard(address, self.contacted_at(address))

    @rule(
        person=people,
        timezone=st.sampled_from([None, *ZONES]),
        phone=st.sampled_from([None, *PHONES]),
        refused=st.sampled_from([None, None, (), (("", "news", ""),), (("sms", "", ""),)]),
    )
    def put_profile(
        self, person: str, timezone: str | None, phone: str | None, refused: tuple[tuple[str, str, str], ...] | None
    ) -> None:
        noes = refused and tuple(OptOut(channel=c or None, category=k or None, topic=t or None) for c, k, t in refused)
        self.tell(person, replace(self.model.people[person], timezone=timezone, phone=phone), noes)
        if refused is not None:
            said = self.model.noes.setdefault((person, ""), {})
            for no in [no for no, via in said.items() if via == "profile"]:
                del said[no]
            for no in refused:
                said.setdefault(no, "profile")

    # ------------------------------------------------------------------------------------------------- ops and the time

    @rule(rules=house_rules, page=st.sampled_from([1, 2, 1000]))
    def change_policy(self, rules: HouseRules, page: int) -> None:
        self.force(rules)
        at: str | None = ""
        while at is not None:
            at, _ = self.arena.do(self.arena.store.sweep(self.judge, at, page))

    @rule(which=pick)
    def loosen_policy(self, which: int) -> None:
        """Take a rule away; whom it held goes at once."""
        self.rest(["accepted"], 0)
        rules = self.model.rules
        parts = [("caps", n) for n in range(len(rules.caps))] + [("gaps", n) for n in range(len(rules.gaps))]
        parts += [("hours", n) for n in range(len(rules.hours))]
        if parts:
            part, number = parts[which % len(parts)]
            kept = getattr(rules, part)
            self.change_policy(replace(rules, **{part: (*kept[:number], *kept[number + 1 :])}), page=1000)
            self.rest(["accepted"], 0)

    @rule(by=spells)
    def pass_time(self, by: timedelta) -> None:
        self.now += by

    @precondition(lambda self: self.model.messages)
    @rule(which=pick, seconds=st.integers(-12, 2), wishes=st.lists(wishes, max_size=2))
    def work_around_an_edge(self, which: int, seconds: int, wishes: list[Wish]) -> None:
        """Shortly before or after clocks or caps begin or cease to allow something."""
        asked = self.model.messages[sorted(self.model.messages)[which % len(self.model.messages)]]
        edges = [edge for edge in sorted(self.model.edges(asked, self.now)) if edge > self.now]
        if edges:
            self.now = max(self.now, edges[which % len(edges)] + seconds * SECOND)
        self.submit(wishes)
        self.work(["accepted", "unknown"], room=1000)

    @rule(several=st.lists(outcomes, min_size=1, max_size=3), rounds=st.integers(1, 4), minutes=st.integers(0, 25))
    def doubt(self, several: list[str], rounds: int, minutes: int) -> None:
        """Vendors stop answering, and what may have been sent is decided anew as soon as it may be, or later."""
        for _ in range(rounds):
            self.work(["unknown"] * 10, room=1000)
            self.pass_time_to_the_next_instant()
        self.now += minutes * timedelta(minutes=1)
        self.work(several, room=1000)

    @rule(back=st.integers(1, 300))
    def set_clock_back(self, back: int) -> None:
        self.now -= timedelta(seconds=back)

    @rule()
    def pass_time_to_the_next_instant(self) -> None:
        self.now = self.next_instant() or self.now

    def next_instant(self) -> datetime | None:
        (rows,) = self.arena.ask("select due_at, lease_until from due")
        instants = [max(row) for row in rows if max(row) > microseconds(self.now)]
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=min(instants)) if instants else None

    @rule(several=st.lists(outcomes, min_size=1, max_size=4), latency=st.integers(0, 3))
    def rest(self, several: list[str], latency: int) -> None:
        """Work until there is nothing to do at this hour; then nobody may be waiting who could go."""
        self.now = self.latest
        self.settle_down(several, latency)
        self.nobody_starves()

    def settle_down(self, several: list[str], latency: int) -> None:
        """Work until nothing is due, neither now nor a moment later."""
        silent = turn = 0
        while True:
            leases = self.lease()
            silent = 0 if leases else silent + 1
            if silent == 2:
                return
            before = len(self.open)
            self.claim(leases)
            self.consistent()
            while begun := self.open[before:]:
                self.now += latency * SECOND
                self.finish(list(zip(begun, self.following(several, turn, len(begun)), strict=True)))
                self.consistent()
                turn += len(begun)
                assert turn < 1000, "it goes round in a circle"
            self.now += timedelta(seconds=1.1)

    @staticmethod
    def following(several: list[str], turn: int, number: int) -> list[str]:
        """Outcomes in turn; vendors that go on failing would be left alone for a while."""
        return [several[n % len(several)] if n < 24 else "accepted" for n in range(turn, turn + number)]

    def nobody_starves(self) -> None:
        model = self.model
        (rows,) = self.arena.ask("select message, due_at, lease_until from due")
        asleep = {message: max(due_at, lease) for message, due_at, lease in rows}
        for id_ in sorted(model.waiting):
            asked = model.messages[id_]
            assert self.now < asked.expires or self.held_up(asked), f"{id_} has expired, and nobody says so"
            if id_ in self.unaware or self.held_up(asked):
                continue
            free = model.could_go_from(asked, self.now)
            if free is None or free >= asked.expires - SECOND:
                continue
            limit = free + model.release(asked) + A_MOMENT
            assert asleep[id_] <= microseconds(limit), (
                f"{id_} could go at {free}, and sleeps until"
                f" {datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asleep[id_])}; it is {self.now}"
            )

    def held_up(self, asked: Asked) -> bool:
        """Whether something but the rules keeps a message: a wait, an attempt, one that goes first."""
        if self.waits.get(asked.id, self.now) > self.now or self.held(asked):
            return True
        for other in self.model.waiting:
            better = self.model.messages[other]
            if better.person != asked.person or better is asked:
                continue
            ahead = better.starts <= self.now and better.rank < asked.rank
            alike = (ahead or self.model.collapses(asked)) and self.model.like(better, asked)
            if alike and (not self.model.apart(better) or self.waits.get(other, self.now) > self.now):
                return True  # it is looked at itself
            if ahead and better.category != "code" and asked.category != "code" and self.held(better):
                return True
        return False

    def held(self, asked: Asked) -> bool:
        """Whether somebody works on it, or died over it, and the lease has not run out."""
        tried = [a for a in self.model.attempts.values() if a.message is asked and a.state == "intent"]
        leased = [until for lease, until in self.leases if lease.message.id == asked.id]
        return any(until > self.now for until in [*leased, *(a.leased_until for a in tried)])

    # ------------------------------------------------------------------------------------------------ what always holds

    @invariant()
    def consistent(self) -> None:
        due, attempts, contacts = self.arena.ask(
            "select message, due_at, expires_at from due",
            "select id, message, state, begun_at, deadline from attempts",
            "select attempt, begun_at, ended_at from contacts",
        )
        self.ended(self.model.waiting - {message for message, *_ in due})
        assert {message for message, *_ in due} == self.model.waiting
        late = microseconds(self.latest + A_MOMENT)
        for message, due_at, expires_at in due:
            assert due_at <= max(expires_at + 1_000_000, late), f"{message} outlasts its expiry"
        tried = self.model.attempts
        assert {row[0]: row[2] for row in attempts} == {id_: a.state for id_, a in tried.items()}
        for id_, _, _, begun_at, deadline in attempts:
            assert (begun_at, deadline) == (microseconds(tried[id_].begun), microseconds(tried[id_].deadline))
        kept = {a.id for a in tried.values() if a.place and (a.counts or a.message.category == "code")}
        assert {row[0] for row in contacts} == kept
        for id_, begun_at, ended_at in contacts:
            assert begun_at == microseconds(tried[id_].begun)
            assert microseconds(tried[id_].soon) <= ended_at <= microseconds(tried[id_].late)
        under_way = [row[1] for row in attempts if row[2] == "intent" and row[1] in self.model.waiting]
        assert len(under_way) == len(set(under_way)), "two attempts of one message at once"
        if self.model.messages:
            self.forward(self.arena.do(self.arena.store.states(list(self.model.messages))))

    def forward(self, states: dict[str, MessageState]) -> None:
        """States move forward only, but that of what one attempt did not bring another may still be heard."""
        assert states.keys() == self.model.messages.keys()
        for id_, state in states.items():
            was, is_ = self.states.get(id_, "waiting"), str(state)
            if id_ in self.model.waiting:
                assert was in ("waiting", "sending")
                assert is_ in ("waiting", "sending")
            else:
                assert is_ not in ("waiting", "sending")
                tried = {a.state for a in self.model.attempts.values() if a.message.id == id_}
                another = (was, is_) == ("undelivered", "sent") and tried >= {"undelivered", "accepted"}
                if was not in ("waiting", "sending", is_) and (was, is_) != ("unknown", "failed") and not another:
                    assert is_ in FINAL, f"{id_}: {was} became {is_}"
                    assert was not in FINAL[: FINAL.index(is_) + 1], f"{id_}: {was} became {is_}"
            self.states[id_] = is_

    def ended(self, gone: set[str]) -> None:
        """What is not waiting any more has ended for a reason that the model knows."""
        self.model.waiting -= gone
        for id_ in sorted(gone):
            view = self.arena.do(self.arena.store.view(id_))
            why = view.decisions[-1].reason if view.decisions else ""
            wrong = self.unjust(self.model.messages[id_], str(view.state), why)
            assert wrong is None, f"{id_} ended as {view.state} ({why}) at {self.now}: {wrong}"

    def unjust(self, asked: Asked, state: str, why: str) -> str | None:
        model = self.model
        tried = [a for a in model.attempts.values() if a.message is asked]
        states = {a.state for a in tried}
        match state, why:
            case (("sent" | "delivered" | "undelivered"), _):
                return None if states & {"accepted", "delivered", "undelivered"} else "nobody took it"
            case "unknown", _:
                return None if "unknown" in states else "it certainly was not sent"
            case "expired", _:
                return None if self.now >= asked.expires else "it was not too late"
            case "failed", _:
                return None if tried and not model.usable(asked, self.now, sure=False) else "it could be tried again"
            case "refused", "collapsed":
                newer = (
                    m
                    for m in model.messages.values()
                    if m.number > asked.number and model.like(m, asked) and m.starts <= self.now
                )
                return None if model.collapses(asked) and any(newer) else "there was no newer one"
            case "refused", "capped":
                droppable = asked.category == "offer" and model.rules.when_capped == "drop"
                return None if droppable and not model.could_go(asked, self.now) else "there was a place"
            case "refused", ("opted_out" | "suppressed" | "no_address" | "abuse"):
                left = model.usable(asked, self.now, sure=False)
                return f"it could go by {left}" if left else None
            case _:
                return "nobody asked for that"

    def teardown(self) -> None:
        """Let time pass until all is settled."""
        if sys.exception() is None:  # else that is what is to be told
            self.to_the_end()

    def to_the_end(self) -> None:
        if not self.model.messages:
            return
        self.now = self.latest
        for _ in range(400):
            self.settle_down(["accepted"], 0)
            self.nobody_starves()
            following = self.next_instant()
            if following is None:
                break
            self.now = max(self.now, following)
        self.now += timedelta(hours=1)
        self.sweep()
        (due, intents) = self.arena.ask(
            "select message, due_at from due", "select message from attempts where state = 'intent'"
        )
        assert not due, "not everything comes to its end"
        assert not self.model.waiting
        assert not intents, "what somebody has begun is never settled"
        for id_ in self.model.messages:
            assert self.states[id_] not in ("waiting", "sending", "parked")


@contextmanager
def arena_at(url: str) -> Iterator[Arena]:
    migrate(url)
    arena = Arena(url)
    arena.open()
    try:
        yield arena
    finally:
        arena.close()


def prove(arena: Arena, number: int, steps: int, *, same: bool = False) -> None:
    """``same``: from one seed, and what fails is told as it was drawn: to shorten it takes longer than a build may.

    The long form draws others, and shortens.
    """
    run_state_machine_as_test(
        lambda: Courtesy(arena),
        settings=settings(
            max_examples=examples(number),
            stateful_step_count=steps,
            deadline=None,
            derandomize=same,
            phases=[Phase.generate] if same else [Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            database=None,
            print_blob=not same,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_the_promises_hold_on_sqlite(tmp_path: Path) -> None:
    with arena_at(f"sqlite:///{tmp_path}/store.db") as arena:
        prove(arena, number=30, steps=30, same=True)


@pytest.mark.timeout(300)
def test_the_promises_hold_on_postgresql(postgres_url: str) -> None:
    with arena_at(postgres_url) as arena:
        prove(arena, number=15, steps=30, same=True)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_promises_hold_on_sqlite_for_long(tmp_path: Path) -> None:
    with arena_at(f"sqlite:///{tmp_path}/store.db") as arena:
        prove(arena, number=600, steps=60)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_promises_hold_on_postgresql_for_long(postgres_url: str) -> None:
    with arena_at(postgres_url) as arena:
        prove(arena, number=300, steps=50)
