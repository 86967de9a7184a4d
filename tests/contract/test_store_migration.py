"""Does a database of an earlier version keep what it knows, and work, once it is migrated?"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import orjson
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import gateway.store.migrations
from gateway.message import MessageState, OptOut, Profile, microseconds
from gateway.store import Claimed
from gateway.store.migrate import migrate, outdated
from gateway.store.schema import metadata
from providers import Channel
from tests.contract.world import ACCEPTED, NOON, PHONE, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import PostgreSQL

FIRST = "0001"
US = microseconds(NOON)
MINUTE = 60_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: PostgreSQL = request.getfixturevalue("postgres")
    return server.create_database()


def connected(url: str, work: Callable[[Connection], object]) -> None:
    if url.startswith("sqlite"):
        with create_engine(url, poolclass=NullPool).begin() as connection:
            work(connection)
        return

    async def on_postgres() -> None:
        engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1), poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    asyncio.run(on_postgres())


def upgraded_to(revision: str) -> Callable[[Connection], None]:
    config = Config()
    config.set_main_option("script_location", gateway.store.migrations.__path__[0])

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return upgrade


Row = tuple[str, dict[str, object]]
"""A table and what stands in a row of it."""


def waiting(message: str, person: str, **more: object) -> list[Row]:
    body = {"to": {"phone": PHONE}, "content": {"sms": {"text": "hello"}}}
    shared = {"person": person, "priority": 3, "starts_at": US, "expires_at": US + 1000 * MINUTE}
    of_message = {"id": message, "source": "tests", "request": message, "category": "campaign", "channels": "sms"}
    of_due = {"message": message, "bucket": 1, "line": 7, "channel": "sms", "due_at": US}
    return [
        ("messages", shared | of_message | {"accepted_at": US, "body": orjson.dumps(body).decode()}),
        ("due", shared | of_due | more),
    ]


def contact(attempt: str, person: str, minutes_ago: int) -> Row:
    at = US - minutes_ago * MINUTE
    what = {"message": attempt, "channel": "sms", "category": "campaign", "zone": "UTC"}
    return "contacts", what | {"attempt": attempt, "person": person, "begun_at": at, "ended_at": at}


def optout(person: str, channel: str, category: str, via: str) -> Row:
    return (
        "optouts",
        {"person": person, "channel": channel, "category": category, "via": via, "opted_out_at": US},
    )


EARLIER: list[Row] = [
    *[("profiles", {"person": person, "profile": "{}", "updated_at": US}) for person in ("ann", "bob", "cleo", "dan")],
    *waiting("a-head", "ann"),
    *waiting("a-next", "ann", due_at=US + 1000 * MINUTE, held=2),
    *waiting("barred", "bob"),
    *waiting("capped", "cleo"),
    *waiting("waits", "dan", due_at=US + 500 * MINUTE, held=1),
    optout("ann", "email", "", "profile"),
    optout("bob", "", "campaign", "one_click"),
    contact("x", "cleo", 60),
    contact("y", "cleo", 30),
    ("policies", {"hash": "of-then", "activated_at": US}),
]


@pytest.fixture
def earlier_url(empty_url: str) -> str:
    """A database of the first version, in use."""

    def fill(connection: Connection) -> None:
        upgraded_to(FIRST)(connection)
        for table, columns in EARLIER:
            names = ", ".join(columns)
            sql = f"insert into {table} ({names}) values ({', '.join(f':{name}' for name in columns)})"
            connection.execute(text(sql), columns)

    connected(empty_url, fill)
    return empty_url


def test_an_earlier_database_is_refused_until_it_is_migrated(earlier_url: str) -> None:
    wanted = outdated(earlier_url)
    assert wanted is not None
    assert FIRST in wanted
    assert "decorum migrate" in wanted
    assert migrate(earlier_url) > FIRST
    assert outdated(earlier_url) is None
    assert migrate(earlier_url) > FIRST  # again, and nothing is lost
    assert outdated(earlier_url) is None


def test_a_migrated_database_has_exactly_the_tables_that_statements_expect(earlier_url: str) -> None:
    migrate(earlier_url)
    found: list[object] = []

    def compare(connection: Connection) -> None:
        found.extend(compare_metadata(MigrationContext.configure(connection), metadata))

    connected(earlier_url, compare)
    assert found == []


async def test_a_migrated_database_keeps_opt_outs_contacts_and_who_waits(earlier_url: str) -> None:
    await asyncio.to_thread(migrate, earlier_url)
    world = World(earlier_url)
    await world.store.open()
    try:
        steps = {step.lease.message.id: step for step in await world.due() if isinstance(step, Claimed)}
        assert set(steps) == {"a-head"}
        states = await world.store.states([row["id"] for table, row in EARLIER if table == "messages"])  # type: ignore[misc]
        assert states == {
            "a-head": MessageState.SENDING,
            "a-next": MessageState.WAITING,
            "barred": MessageState.REFUSED,
            "capped": MessageState.WAITING,
            "waits": MessageState.WAITING,
        }
        assert (await world.person("ann")).person.optouts == (OptOut(channel=Channel.EMAIL),)
        assert len(await world.contacts("cleo")) == 2
        # What came with a profile goes with the next one, what the person said stays: who said it is kept.
        for person in ("ann", "bob"):
            await world.store.put_profiles([(person, Profile(opted_out=()))])
        assert (await world.person("ann")).person.optouts == ()
        assert (await world.person("bob")).person.optouts == (OptOut(category="campaign"),)
        # The policy in force decides those anew that waited by one of then, and the line moves up as it is now.
        assert await world.store.activate(world.judge.policy, "worker") == 2
        await world.swept(2)
        await world.settle(steps["a-head"], ACCEPTED)
        sent = await world.day(NOON + timedelta(minutes=2))
        assert set(sent) == {"a-next", "waits"}
    finally:
        await world.store.close()
