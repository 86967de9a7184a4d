"""Providers, vendors and stores that are closed again."""

from __future__ import annotations

import asyncio
import importlib
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.store.migrate import migrate
from gateway.store.schema import metadata
from tests.contract.cases import NOW, Case
from tests.contract.world import World
from tests.simulation.store import create, template
from tests.vendors.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from providers import Provider, Settings
    from tests.contract.wire import Wire
    from tests.servers import PostgreSQL


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What every provider and every webhook must do, it must do on both loops."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in {"test_providers.py", "test_connections.py", "test_webhook_client.py"}:
        with suppress(ImportError):  # an extra
            import uvloop

            loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Awaitable[Provider]]]:
    """Settings (and a clock) → an open provider."""
    providers: list[Provider] = []

    async def open_provider(settings: Settings, clock: Any = lambda: NOW) -> Provider:
        provider: Provider = importlib.import_module(f"providers.{settings.kind}").Provider("given", settings, clock)
        providers.append(provider)
        await provider.open()
        return provider

    yield open_provider
    for provider in providers:
        await provider.close()


@pytest.fixture
async def wired() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """Case → its scripted server, running."""
    wires: list[Wire] = []

    async def start(case: Case, **script: Any) -> Wire:
        assert case.wire is not None
        wire = case.wire(**script)
        wires.append(wire)
        await wire.start()
        return wire

    yield start
    for wire in wires:
        await wire.stop()


@pytest.fixture
async def serving() -> AsyncIterator[Callable[..., Awaitable[tuple[Any, int]]]]:
    """Strict vendor's class → the vendor, running, and its port."""
    vendors: list[Any] = []

    async def start(vendor: Callable[..., Any], ledger: Ledger | None = None, **options: Any) -> tuple[Any, int]:
        found = vendor(ledger or Ledger(), **options)
        vendors.append(found)
        return found, await found.start()

    yield start
    for vendor in vendors:
        await vendor.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with its tables, to be copied."""
    database = tmp_path_factory.mktemp("template") / "store.db"
    migrate(f"sqlite:///{database}")
    return database


@pytest.fixture(scope="session")
def postgres_store(postgres: PostgreSQL) -> str:
    """A PostgreSQL database with its tables, which a test leaves empty."""
    url = postgres.create_database()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with its tables, for the store of the simulation."""
    return template(tmp_path_factory.mktemp("tables"))


@pytest.fixture(params=["sqlite", "postgres", "simulated"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with its tables: what a transaction promises, it promises on both, and in a simulation."""
    if request.param == "simulated":
        return create(request.getfixturevalue("tables"))
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_store")
        return url
    path = tmp_path / "store.db"
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
async def world(store_url: str) -> AsyncIterator[World]:
    """An empty store, open."""
    world = World(store_url)
    await world.store.open()
    yield world
    await world.store.close()
    if store_url.startswith("postgresql"):
        connection = await asyncpg.connect(store_url)
        await connection.execute(
            f"truncate {', '.join(table.name for table in metadata.sorted_tables)} restart identity"
        )
        await connection.close()
