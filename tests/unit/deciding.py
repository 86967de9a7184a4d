"""Persons, messages and histories for tests of decisions: built by hand, and drawn at random."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from gateway.abuse import fingerprint
from gateway.config import parse
from gateway.decide import Attempting, Deferred, Facts, Health, next_step
from gateway.message import (
    Attempt,
    AttemptState,
    Message,
    OptOut,
    Person,
    Priority,
    Profile,
    PushAddress,
    WhenCapped,
)
from gateway.retries import RETRY_BUDGET
from providers import Channel
from ratelimit import Contact, Only, QuietHours, zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from gateway import decide
    from gateway.config import Policy

CONFIG = """
providers: {one: {kind: inbox}, two: {kind: inbox}, three: {kind: inbox}}
routes: {sms: [one, two], email: [three], push: [one, two], robocall: [one]}
policy:
  timezone: UTC
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    receipt: {priority: high, quiet_hours: exempt, on_unknown: repeat}
    news: {priority: bulk}
    never: {}
  caps:
    - {name: daily, limit: 2, per: 24h}
  minimum_gap: 2h
  quiet_hours:
    - {name: night, from: "21:00", to: "08:00"}
"""
WHOLE = parse(CONFIG, {}, base=Path())
NEVER = Only(categories=frozenset({"never"}))
"""Narrows rules that leave no hour open together, which a configuration must not."""
POLICY = replace(
    WHOLE.policy,
    quiet_hours=(
        *WHOLE.policy.quiet_hours,
        QuietHours("morning", time(0), time(12), only=NEVER),
        QuietHours("evening", time(12), time(0), only=NEVER),
    ),
)
ROUTES = WHOLE.routes
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPAN = timedelta(seconds=10)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PHONE, OTHER_PHONE, MAIL = "+14155552671", "+819012345678", "ann@example.com"
LONDON, TOKYO, NEW_YORK = zone("Europe/London"), zone("Asia/Tokyo"), zone("America/New_York")


def ruled(rules: str = "", **news: Any) -> Policy:
    """The categories of ``CONFIG`` under other rules, and ``news`` with other fields."""
    head, _, _ = CONFIG.partition("  caps:")
    policy = parse(head + rules, {}, base=Path()).policy
    return replace(policy, categories={**policy.categories, "news": replace(policy.categories["news"], **news)})


def message(**fields: Any) -> Message:
    category = fields.get("category", "news")
    given = {
        "id": "m" * 26,
        "source": "tests",
        "request": "r",
        "person": "ann",
        "category": category,
        "channels": (Channel.SMS, Channel.EMAIL),
        "priority": POLICY.categories[category].priority if category in POLICY.categories else Priority.NORMAL,
        "accepted_at": NOON - HOUR,
        "starts_at": NOON - HOUR,
        "expires_at": NOON + 10 * DAY,
        "campaign": None,
        "body": {"content": {}},
    }
    return Message(**(given | fields))


def person(optouts: Sequence[OptOut] = (), suppressed: Any = (), **profile: Any) -> Person:
    known = {"phone": PHONE, "email": MAIL, "timezone": "UTC"} | profile
    return Person("ann", Profile(**known), tuple(optouts), frozenset(suppressed))


def attempt(
    state: AttemptState, channel: Channel = Channel.SMS, address: str = PHONE, error: str | None = "unavailable:refused"
) -> Attempt:
    return Attempt("a", "m" * 26, 1, channel, "one", fingerprint(address), state, NOON, NOON + SPAN, error=error)


def contact(ended: datetime, holder: str = "other", where: ZoneInfo = LONDON, **fields: Any) -> Contact:
    given = {"channel": "sms", "category": "news", "campaign": None} | fields
    return Contact(ended - SECOND, ended, zone=where, message=holder, **given)


def facts(**fields: Any) -> Facts:
    given = {"message": message(), "person": person(), "contacts": [], "attempts": [], "tries": 0, "now": NOON}
    return Facts(**(given | fields))


def step(known: Facts, health: Health | None = None, **more: Any) -> decide.Step:
    routes, policy = more.pop("routes", ROUTES), more.pop("policy", POLICY)
    return next_step(known, policy, routes, health or Health(), SPAN, **more)


def went(known: Facts, health: Health | None = None, **more: Any) -> tuple[str, str, str]:
    """Channel, address and provider of an attempt that may be made."""
    taken = step(known, health, **more)
    assert isinstance(taken, Attempting), taken
    return taken.address.channel, taken.address.value, taken.provider


def waits(known: Facts, health: Health | None = None, **more: Any) -> Deferred:
    taken = step(known, health, **more)
    assert isinstance(taken, Deferred), taken
    return taken


instants = st.one_of(
    st.integers(0, 14 * 86400).map(lambda seconds: datetime(2026, 10, 24, tzinfo=UTC) + seconds * SECOND),
    # around the ends of quiet hours and the changes of clocks
    st.builds(
        lambda at, off: datetime.fromisoformat(at).replace(tzinfo=UTC) + off * SECOND,
        st.sampled_from(
            ["2026-10-25T01:00", "2026-11-01T06:00", "2026-11-22T08:00", "2026-11-22T21:00", "2026-11-22T12:00"]
        ),
        st.integers(-30, 30),
    ),
)
attempts = st.builds(
    attempt,
    st.sampled_from([state for state in AttemptState if state is not AttemptState.INTENT]),
    st.sampled_from(Channel),
    st.sampled_from([PHONE, MAIL, "a", "b"]),
    st.sampled_from(["throttled:429", "unavailable:refused", "unconfirmed:timeout", None]),
)
tokens = st.builds(
    lambda token, provider: PushAddress(token=token, platform="web", provider=provider),
    st.sampled_from("ab"),
    st.sampled_from([None, "one", "two", "gone"]),
)
zone_names = st.sampled_from([None, "UTC", "Europe/London", "America/New_York", "Asia/Tokyo", "Pacific/Chatham"])
optouts = st.builds(
    lambda channel, category: OptOut(channel=channel, category=category),
    st.sampled_from([None, *Channel]),
    st.sampled_from(["news", "receipt", "code", "other"]),
)
persons = st.builds(
    lambda said, suppressed, **profile: Person("ann", Profile(**profile), tuple(said), suppressed),
    st.lists(optouts, max_size=1),
    st.frozensets(st.tuples(st.sampled_from(Channel), st.sampled_from([PHONE, MAIL, "a", "b"])), max_size=2),
    phone=st.sampled_from([None, PHONE, OTHER_PHONE, "+18005552671"]),
    email=st.sampled_from([None, MAIL]),
    push=st.lists(tokens, max_size=2),
    timezone=zone_names,
)
names = st.frozensets(st.sampled_from(["one", "two", "three"]))


@st.composite
def situations(draw: Any) -> tuple[Facts, Health, frozenset[str]]:
    now = draw(instants)
    category = draw(st.sampled_from(["code", "receipt", "news", "never", "gone"]))
    about = message(
        category=category,
        channels=tuple(draw(st.lists(st.sampled_from(Channel), min_size=1, unique=True))),
        priority=draw(st.sampled_from(Priority)),
        expires_at=now + draw(st.integers(-5, 40)) * draw(st.sampled_from([SECOND, MINUTE, HOUR, DAY])),
        body={"timezone": draw(zone_names)},
    )
    contacts = [
        contact(now + offset * MINUTE, where=TOKYO)
        for offset in draw(st.lists(st.integers(-30 * 60, 1), max_size=4, unique=True))
    ]
    paused = {name: now + draw(st.integers(-5, 90)) * SECOND for name in draw(names)}
    known = facts(
        message=about,
        person=draw(persons),
        contacts=contacts,
        attempts=draw(st.lists(attempts, max_size=2)),
        tries=draw(st.sampled_from([0, 1, RETRY_BUDGET - 1, RETRY_BUDGET, RETRY_BUDGET + 1])),
        now=now,
    )
    failing = {(channel, name) for name in draw(names) for channel in Channel}
    return known, Health(failing, paused, draw(names)), draw(names)


CODES = POLICY.categories["code"].abuse
assert CODES is not None
RICH = {
    choice: ruled(
        """
  caps:
    - {name: daily, limit: 3, per: 24h, reserve: {high: 1}}
    - {name: text, channel: sms, limit: 1, per: 6h}
    - {name: topical, limit: 1, per: 12h, scope: [user, labels.topic]}
    - {name: monthly, limit: 4, per: week, scope: [user, campaign]}
    - {name: shadow, limit: 1, per: 30d, enforce: 0%}
    - {name: canary, limit: 2, per: 12h, enforce: 50%}
  minimum_gap: 30m
  quiet_hours:
    - {name: night, from: "21:00", to: "08:00", release_over: 30m}
  send_windows:
    - {name: mails, channel: email, category: news, hours: ["09:00-12:00", "14:00-19:00"]}
  holidays: [{name: us, country: US}]
""",
        when_capped=choice,
        abuse=CODES,
    )
    for choice in WhenCapped
}
noes = st.builds(
    OptOut,
    channel=st.sampled_from([None, *Channel]),
    category=st.sampled_from([None, "news", "receipt"]),
    topic=st.sampled_from(["t", "u", None]),
)


@st.composite
def rich(draw: Any) -> tuple[Facts, Policy]:
    known, _, _ = draw(situations())
    now, values = known.now, st.sampled_from(["t", "u", None])

    def past(category: str) -> Contact:
        ended = now - draw(st.integers(-1, 26 * 60)) * MINUTE
        labels = {"topic": topic} if (topic := draw(values)) else {}
        channel = draw(st.sampled_from(["sms", "email"]))
        return contact(ended, campaign=draw(values), labels=labels, channel=channel, category=category)

    labels = {"topic": topic} if (topic := draw(values)) else {}
    who = draw(st.sampled_from(["ann", "bob", "cleo", "dan"]))
    about = replace(
        known.message,
        person=who,
        category=draw(st.sampled_from(["news", "news", "receipt", "code"])),
        campaign=draw(values),
        body={**known.message.body, "labels": labels},
        expires_at=now + draw(st.integers(1, 60)) * HOUR,
    )
    refused = {
        address: tuple(draw(st.lists(noes, max_size=1))) for address in draw(st.sets(st.sampled_from([PHONE, MAIL])))
    }
    addresses = {
        fingerprint(address): [past(about.category) for _ in range(draw(st.integers(0, 6)))]
        for address in draw(st.sets(st.sampled_from([PHONE, MAIL, "a"])))
    }
    return (
        replace(
            known,
            message=about,
            person=replace(known.person, id=who, refused=refused),
            contacts=[past("news") for _ in range(draw(st.integers(0, 5)))],
            attempts=[],
            tries=0,
            on_addresses=addresses,
        ),
        RICH[draw(st.sampled_from(WhenCapped))],
    )
