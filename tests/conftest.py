"""Fixtures that several suites share. Servers start when a test first asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings

from tests.servers import PostgreSQL, RabbitMQ, ServerFailed, ServerMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

_S = TypeVar("_S", RabbitMQ, PostgreSQL)

if settings.get_current_profile_name() == "default":  # else somebody has chosen another
    settings.register_profile("patient", settings.get_profile("default"), deadline=None)
    settings.load_profile("patient")  # how long an example takes says what else the machine does


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long forms are left out unless asked for with ``-m full``."""
    if config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def _started(server: type[_S]) -> _S:
    try:
        return server.start()
    except (ServerMissing, ServerFailed) as error:
        return pytest.fail(str(error), pytrace=False)  # one clear line instead of our own frames


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The broker that tests share. They leave it running."""
    with _started(RabbitMQ) as broker:
        yield broker


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQ) -> str:
    """A virtual host of this test's own."""
    return rabbitmq.create_vhost()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQ]:
    """A broker to be killed and frozen. Takes 4 to 8 s."""
    with _started(RabbitMQ) as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """The database server that tests share. They leave it running."""
    with _started(PostgreSQL) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgreSQL) -> str:
    """An empty database of this test's own."""
    return postgres.create_database()


@pytest.fixture
def own_postgres() -> Iterator[PostgreSQL]:
    """A database server to be killed and frozen."""
    with _started(PostgreSQL) as server:
        yield server
