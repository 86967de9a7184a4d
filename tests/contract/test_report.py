"""Does a report of a campaign say, in every cell, what a spreadsheet of the raw events says?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import ClientSession, web

from gateway import config
from gateway.acts import Deed
from gateway.headroom import Headroom
from gateway.ids import SOURCE, new_id
from gateway.intake import Intake
from gateway.lines import line_of
from gateway.message import AttemptState, Message, OptOut, microseconds, rfc3339
from gateway.metrics import Metrics
from gateway.outcome import Outcome, accepted
from gateway.reports import Reports
from gateway.store import Claimed, NewMessage, Settlement
from gateway.store.engine import Fetch
from gateway.web import private_app, runner
from providers import Act, Agent, Channel, Receipt, ReceiptStatus
from tests.contract.spreadsheet import Spreadsheet, days, write
from tests.contract.world import NIGHT, NOON, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.message import Attempt
    from gateway.store.engine import Operation

CONFIG = """
http: {private: 127.0.0.1:0}
providers:
  one: {kind: inbox, cost: {amount: "0.01", currency: EUR}}
  two:
    kind: twilio_sms
    account_sid: AC1
    auth_token: made-up
    sender: "+15005550006"
    cost: {amount: "0.0075", currency: USD}
  three: {kind: inbox}
routes: {sms: [two, one], email: [three], push: [one], robocall: [one]}
policy:
  timezone: Asia/Tokyo
  categories:
    code: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    campaign: {priority: bulk, expires_after: 14d}
    newsletter: {priority: bulk, expires_after: 6h, channels: [email]}
    nudge: {priority: bulk, expires_after: 14d, when_capped: drop}
    digest: {priority: bulk, expires_after: 14d, collapse: newest}
    receipt: {priority: high, quiet_hours: exempt, on_unknown: repeat}
  caps: [{name: weekly, limit: 2, per: 7d}]
  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]
report:
  targets:
    - {step: clicked, at_least: 20%}
    - {step: converted, stage: logged_in, of: clicked, at_least: 80%, category: campaign}
    - {step: converted, stage: applied, of: converted, of_stage: logged_in, at_least: 50%}
    - {step: delivered, of: sent, at_least: 30%, campaign: spring}
    - {step: clicked, at_least: 5%, channel: push}
    - {step: opened, of: delivered, at_least: 99%, category: newsletter}
"""
PRICES = {"one": ("0.01", "EUR", False), "two": ("0.0075", "USD", True)}
TEXTS = ("Hello.", "Hello again. " * 20, "こんにちは、" * 8, "三分で終わります。" * 20)
SINCE, UNTIL = days(NOON.isoformat(), 0), days(NOON.isoformat(), 20)
MAY_HAVE_ARRIVED = (AttemptState.ACCEPTED, AttemptState.UNKNOWN)
SIZE = 700
"""Messages in each of three waves."""


class Campaign:
    """Everything that may happen to messages, by the chances of a seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.requests: list[dict[str, Any]] = []
        self.attempts: list[Attempt] = []
        self.messages: list[Message] = []
        parsed = config.parse(CONFIG, {}, base=Path())
        world.judge = replace(
            world.judge,
            policy=parsed.policy,
            routes=parsed.routes,
            patience=dict.fromkeys(parsed.providers, timedelta(seconds=10)),
            acts=frozenset(Act),
        )
        self.config = parsed

    def new(self, number: int) -> NewMessage:
        """One request; whom it is for and what it says is by chance."""
        pick, world = self.random.choice, self.world
        category = pick(("code", "campaign", "campaign", "newsletter", "nudge", "digest", "receipt"))
        settings = world.judge.policy.categories[category]
        person = f"p{self.random.randrange(600)}"
        own = f"{int(person[1:]):03d}"
        channels = pick(
            (
                (Channel.PUSH, Channel.SMS, Channel.EMAIL),
                (Channel.SMS,),
                (Channel.EMAIL,),
                (Channel.ROBOCALL, Channel.SMS),
            )
        )
        to = {
            "phone": f"+447400123{own}",
            "email": f"{person}@example.com",
            "push": [{"token": f"{person}-{number}", "platform": "ios"}],
        }
        told = {"stage": pick((None, "registered", "applied")), "variant": pick((None, "a", "b"))}
        body = {
            "to": {} if self.random.random() < 0.02 else to,
            "content": {
                "sms": {"text": pick(TEXTS)},
                "email": {"subject": "s", "text": "t"},
                "push": {"title": "t", "body": "b"},
                "robocall": {"say": "s"},
            },
            **{field: value for field, value in told.items() if value},
        }
        message = Message(
            id=new_id(),
            source=pick(("loans", "cards")),
            request=str(number),
            person=person,
            category=category,
            channels=settings.channels or channels,
            priority=settings.priority,
            accepted_at=world.now,
            starts_at=world.now,
            expires_at=world.now + settings.expires_after,
            campaign=pick((None, "spring", "=autumn")),
            body=body,
        )
        self.messages.append(message)
        self.requests.append(
            {
                "message": message.id,
                "user": person,
                "category": category,
                "campaign": message.campaign,
                "source": message.source,
                "accepted_at": rfc3339(world.now),
                "text": body["content"]["sms"]["text"],
                **told,
            }
        )
        return NewMessage(message, message.id, line_of(message, settings, frozenset()), 1)

    def outcome(self) -> Outcome:
        draw = self.random.random()
        for chance, state in (
            (0.10, AttemptState.UNREACHABLE),
            (0.14, AttemptState.REJECTED),
            (0.18, AttemptState.NOT_SENT),
            (0.23, AttemptState.UNKNOWN),
        ):
            if draw < chance:
                return Outcome(state, error=f"{state}:by_chance", failing=state is AttemptState.NOT_SENT)
        return accepted("V-1")

    async def work(self) -> None:
        """Take up what is due, to its end."""
        world = self.world
        while leases := await world.lease():
            for place in range(0, len(leases), 100):
                steps = await world.claim(*leases[place : place + 100])
                while claimed := [step for step in steps if isinstance(step, Claimed)]:
                    settled = [Settlement(one, self.outcome()) for one in claimed]
                    self.attempts += [s.claimed.attempt for s in settled if s.outcome.state in MAY_HAVE_ARRIVED]
                    steps = await world.store.settle(settled, world.judge)

    async def wave(self, at: datetime) -> None:
        world = self.world
        world.now = at
        for _ in range(0, SIZE, 100):
            await world.accept(*[self.new(len(self.requests)) for _ in range(100)])
        await self.work()

    async def news(self) -> None:
        """Receipts of a third of what was attempted: some early, some twice, all in disorder."""
        told = []
        for attempt in self.random.sample(self.attempts, len(self.attempts) // 3):
            ways: Sequence[ReceiptStatus] = self.random.choice(
                (
                    (ReceiptStatus.ACCEPTED, ReceiptStatus.DELIVERED),
                    (ReceiptStatus.DELIVERED, ReceiptStatus.DELIVERED),
                    (ReceiptStatus.UNDELIVERED,),
                    (ReceiptStatus.UNREACHABLE, ReceiptStatus.OTHER),
                )
            )
            told += [Receipt(attempt.id, status, "V-1", status) for status in ways]
        self.random.shuffle(told)
        for place in range(0, len(told), 25):
            await self.world.store.receipt(told[place : place + 25], self.world.judge)

    async def acts(self) -> None:
        """What people and machines do, some of it told twice, in disorder."""
        deeds = []
        for attempt in self.attempts:
            for act, stage, likely in (
                (Act.OPENED, None, 0.4),
                (Act.CLICKED, None, 0.2),
                (Act.ANSWERED, None, 0.1),
                (Act.CONVERTED, "logged_in", 0.15),
                (Act.CONVERTED, "applied", 0.05),
                (Act.CONVERTED, None, 0.02),
            ):
                if self.random.random() < likely:
                    agent = Agent.HUMAN if stage or self.random.random() < 0.7 else Agent.MACHINE
                    at = self.world.now - timedelta(seconds=self.random.randrange(-100, 40_000))
                    named = {"message": attempt.message} if self.random.random() < 0.3 else {"attempt": attempt.id}
                    deed = Deed(act, agent, "app", f"{act}{stage}{attempt.id}{agent}", done_at=at, stage=stage, **named)
                    deeds += [deed] * self.random.choice((1, 1, 2))
        people = [
            Deed(Act.CONVERTED, Agent.HUMAN, "app", f"own{n}", person=f"p{n}", stage="applied")
            for n in range(0, 600, 7)
        ]
        deeds += [*people, Deed(Act.OPENED, Agent.HUMAN, "app", "nobody", attempt="0" * 26)]
        self.random.shuffle(deeds)
        for place in range(0, len(deeds), 200):
            await self.world.store.record(deeds[place : place + 200], self.world.judge)

    async def noes(self) -> None:
        """Some say no: by one click, by a text message, to a service."""
        world = self.world
        for attempt in self.random.sample(self.attempts, 60):
            person = next(message.person for message in self.messages if message.id == attempt.message)
            no = OptOut(category=self.random.choice(("campaign", "newsletter")))
            await world.store.opt_out(person, no, "one_click", world.judge, attempt.id)
        for number in range(0, 600, 60):
            await world.store.opt_out_address(f"+447400123{number:03d}", OptOut(), "stop", world.judge)
            await world.store.opt_out(f"p{number + 1}", OptOut(channel=Channel.PUSH), "api", world.judge)

    async def happens(self) -> None:
        await self.wave(NOON + timedelta(hours=1))  # 22:00 in Tokyo, whose policy it is; London's phones are not
        await self.noes()
        await self.wave(NIGHT)
        await self.acts()
        for hours in (9, 14, 22):
            self.world.now = NIGHT + timedelta(hours=hours)
            await self.work()
        await self.news()
        self.world.now = NOON + timedelta(days=2)
        await self.wave(self.world.now)
        for message in self.random.sample(self.messages, 40):
            await self.world.store.cancel(message.id, self.world.judge)
        await self.acts()
        await self.news()
        self.world.now = NOON + timedelta(days=4)
        await self.work()


async def dumped(campaign: Campaign, folder: Path) -> None:
    """What was asked for, what has been published, and two tables as they are."""
    write(folder / "requests.csv", campaign.requests)
    published = [orjson.loads(body) for *_, body in await campaign.world.store.unpublished(1_000_000)]
    columns = ("sequence", "message", "attempt", "state", "reason", "act", "agent", "at", "reached")
    write(folder / "events.csv", [{column: event.get(column, "") for column in columns} for event in published])
    for table, names in (
        ("attempts", ("id", "message", "number", "channel", "provider", "state", "begun_at", "repeats")),
        ("acts", ("id", "message", "act", "done_at", "band")),
    ):

        def all_rows(table: str = table, names: Sequence[str] = names) -> Operation[list[Any]]:
            return (yield Fetch(f"select {', '.join(names)} from {table}"))

        rows = await campaign.world.engine.read(all_rows)
        write(folder / f"{table}.csv", [dict(zip(names, row, strict=True)) for row in rows])


async def happened(world: World) -> Campaign:
    """One with all that may happen."""
    chance = count()
    SOURCE.set(lambda: (microseconds(world.now), next(chance)))  # by its ids a message is found in its time
    campaign = Campaign(world, seed=5)
    await campaign.happens()
    return campaign


async def asked(campaign: Campaign, *queries: dict[str, str]) -> list[Any]:
    """What the private listener answers."""
    world = campaign.world
    app = private_app(
        world.store,
        Intake(world.store, lambda: world.judge, Metrics("test")),
        Reports(
            world.store,
            lambda: world.judge,
            Metrics("test"),
            lambda: campaign.config.retention.contacts,
            Headroom(None),
        ),
        lambda: world.judge,
        campaign.config,
        Metrics("test"),
        dict,
        lambda: None,
    )
    served = runner(app, shutdown_timeout=0.1)
    await served.setup()
    await web.TCPSite(served, "127.0.0.1", 0).start()
    answers = []
    async with ClientSession(f"http://127.0.0.1:{served.addresses[0][1]}") as session:
        for query in queries:
            async with session.get("/v1/report", params=query) as response:
                assert response.status == 200, await response.text()
                answers.append(orjson.loads(await response.read()))
    await served.cleanup()
    return answers


def targets(campaign: Campaign) -> list[dict[str, Any]]:
    return [
        {
            field: getattr(target, field)
            for field in ("step", "stage", "of", "of_stage", "at_least", "category", "campaign", "channel")
        }
        for target in campaign.config.report.targets
    ]


@pytest.mark.parametrize("store_url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.timeout(180)
async def test_every_cell_is_what_a_spreadsheet_of_the_raw_events_says(world: World, tmp_path: Path) -> None:
    campaign = await happened(world)
    await dumped(campaign, tmp_path)
    sheet = Spreadsheet(tmp_path, PRICES, "Asia/Tokyo")
    groupings = ("campaign,channel", "category,stage,variant", "source,day", "channel", "")
    span = {"since": SINCE, "until": UNTIL}
    reports = await asked(campaign, *({"by": by} | span for by in groupings))
    for by, report in zip(groupings, reports, strict=True):
        expected = sheet.report(SINCE, UNTIL, by.split(",") if by else [], targets(campaign))
        same(report["total"], expected["total"])
        if by:
            assert [group["key"] for group in report["groups"]] == [group["key"] for group in expected["groups"]]
            for group, row in zip(report["groups"], expected["groups"], strict=True):
                same(group, row)
    eventful(reports[0])


def same(row: dict[str, Any], expected: dict[str, Any]) -> None:
    """Cell by cell; the interval of a target to the last but one digit."""
    row, expected = dict(row), dict(expected)
    held, should = row.pop("targets"), expected.pop("targets")
    for cell in row:
        assert row[cell] == expected[cell], (cell, row.get("key"))
    assert row.keys() == expected.keys()
    for one, other in zip(held, should, strict=True):
        for bound in ("low", "high"):
            assert one.pop(bound) == pytest.approx(other.pop(bound), abs=2e-6)
        assert one == other


def eventful(report: dict[str, Any]) -> None:
    """The campaign has been through all that a report counts, or it would prove little."""
    total = report["total"]
    assert total["requested"] == 3 * SIZE
    nothing = [cell for cell, number in total.items() if number == 0]
    assert nothing == []
    assert {"waiting", "sent", "delivered", "undelivered", "failed", "expired", "refused", "cancelled", "unknown"} <= {
        state for state, number in total["states"].items() if number
    }
    assert {"capped", "collapsed", "opted_out", "suppressed", "no_address"} <= total["lost"]["refused"].keys()
    assert {"night", "weekly"} <= total["lost"]["expired"].keys()
    assert {"met", "missed"} <= {held["verdict"] for held in total["targets"]}
    assert total["cost"].keys() == {"USD", "EUR"}
    assert sum(total["left"]["uninstalled"].values()) == total["uninstalled"]
    assert report["unattributed"]["converted"] + report["unattributed"]["opted_out"] > 0
    assert {group["key"]["channel"] for group in report["groups"]} == {*map(str, Channel), "none"}
