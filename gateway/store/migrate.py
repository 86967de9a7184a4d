"""Brings a database's tables to this version's form: expand first, contract a release later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.store.engine import StoreUnavailable, place_of
from gateway.store.sqlite import lock

if TYPE_CHECKING:
    from collections.abc import Callable

_SQLITE = "sqlite:///"
_LOCK = 0x6465636F72756D  # "decorum", the key of the lock that keeps two migrations apart


_LOOK = 10.0
"""Seconds that a look at a database's version may take; a migration itself may take long."""


def migrate(url: str) -> str:
    """Bring the tables to this version's form; returns its name.

    Raises:
        StoreUnavailable: the database cannot be reached or written.
    """
    config = _config()

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    _with(url, upgrade)
    return _head(config)


def outdated(url: str) -> str | None:
    """Why the database cannot be used by this version; None if it can.

    Raises:
        StoreUnavailable: the database cannot be reached.
    """
    found = _of_sqlite(url) if url.startswith(_SQLITE) else asyncio.run(_of_postgres(url))
    wanted = _head(_config())
    if found == wanted:
        return None
    return f"the database's tables are {found or 'missing'}, this version needs {wanted}: run decorum migrate"


def _of_sqlite(url: str) -> str | None:
    found: list[str | None] = []
    _with(url, lambda connection: found.append(MigrationContext.configure(connection).get_current_revision()))
    return found[0]


async def _of_postgres(url: str) -> str | None:
    """Once no migration is under way; asked by itself, for what asks in a thread could not be stopped from waiting."""
    try:
        async with asyncio.timeout(_LOOK):
            connection = await asyncpg.connect(url)
            try:
                await connection.execute(f"begin; select pg_advisory_xact_lock_shared({_LOCK})")
                revision: str | None = await connection.fetchval("select version_num from alembic_version")
            except asyncpg.UndefinedTableError:
                return None
            else:
                return revision
            finally:
                connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _unusable(url, error) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _head(config: Config) -> str:
    return ScriptDirectory.from_config(config).get_current_head() or ""


def _with(url: str, work: Callable[[Connection], object]) -> None:
    try:
        if url.startswith(_SQLITE):
            held = lock(Path(url.removeprefix(_SQLITE)))
            try:
                engine = create_engine(url, poolclass=NullPool)
                with engine.begin() as connection:
                    work(connection)
            finally:
                held.close()
        else:
            asyncio.run(_with_postgres(url, work))
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise _unusable(url, error) from error


def _unusable(url: str, error: Exception) -> StoreUnavailable:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StoreUnavailable(f"{place_of(url)} cannot be used: {reason}")


async def _with_postgres(url: str, work: Callable[[Connection], object]) -> None:
    address = "postgresql+asyncpg://" + url.partition("://")[2]
    engine = create_async_engine(address, poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"select pg_advisory_xact_lock({_LOCK})"))
            await connection.run_sync(work)
    finally:
        await engine.dispose()
