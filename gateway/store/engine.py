"""How a transaction is written once and run on either database.

An operation is a generator: it yields statements and is sent their rows. It does no I/O itself, so SQLite runs it on
its writer thread and PostgreSQL drives it from the event loop, the same code and the same decisions in both.

Statements are PostgreSQL's, in the dialect that both understand: parameters are ``$1``, lists are ``= any($1)``,
``for update …`` stands at a line's end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from gateway.store.precedence import Precedence


@dataclass(frozen=True, slots=True)
class Fetch:
    """One statement whose rows are wanted."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One statement, once for each row of parameters; nothing is sent back."""

    sql: str
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Breath:
    """Lets others have a turn of the event loop, where the operation is driven from it."""


@dataclass(frozen=True, slots=True)
class Now:
    """Asks for the database's clock, in microseconds since 1970."""


TURN = 8
"""Requests that are read, or decisions made or gone on from, in one turn of the loop: a code may wait for as many."""

T = TypeVar("T")
Operation = Generator[Fetch | Run | Now | Breath, Any, T]


class StoreUnavailable(Exception):
    """The database could not be asked, or did not answer in time. What was written may or may not be there."""


class StoreNotOpen(StoreUnavailable):
    """It has not been opened yet: the gateway is starting, and nothing was written."""


class StoreFull(StoreUnavailable):
    """There is no room for what was to be written, and nothing of it was."""


def place_of(url: str) -> str:
    """A database's kind and where it is, without user and password."""
    kind, _, rest = url.partition("://")
    return f"{kind}://{rest.rpartition('@')[2].partition('?')[0]}"


class Engine(Protocol):
    """A database that runs operations, each in one transaction."""

    precedence: Precedence
    """Who goes first on the loop that asks it."""

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: it is not there.
        """

    async def close(self) -> None:
        """Let what is under way finish, then disconnect."""

    async def write(self, operation: Callable[[], Operation[T]], *, urgent: bool = False) -> T:
        """Run in a transaction that is durable when this returns. What is urgent waits for nothing that is not.

        Raises:
            StoreUnavailable: see there.
        """

    async def read(self, operation: Callable[[], Operation[T]]) -> T:
        """Run a transaction that writes nothing.

        Raises:
            StoreUnavailable: see there.
        """
