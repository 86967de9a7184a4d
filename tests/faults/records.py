"""Reads the two sources of truth: the vendor's ledger, and the store by plain SQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from tests.faults.checker import Attempt, Recorded, Taken

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SQLITE = "sqlite:///"
_FINAL = "('expired', 'refused', 'failed', 'cancelled', 'unknown', 'parked', 'sent', 'delivered', 'undelivered')"


def taken(file: Path) -> list[Taken]:
    """All that the vendor took. A last line that is cut off was not answered for."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    lines = [json.loads(line) for line in whole.splitlines()]
    return [
        Taken(
            request=line["request"],
            person=line["person"],
            attempt=line["ref"],
            at=datetime.fromisoformat(line["at"]),
            local=datetime.fromisoformat(line["hour"]),
        )
        for line in lines
    ]


async def fetch(url: str, *statements: str) -> list[Sequence[Sequence[Any]]]:
    """The rows of each statement, all of one snapshot."""
    if url.startswith(SQLITE):
        with closing(sqlite3.connect(url.removeprefix(SQLITE), timeout=10)) as database:
            database.execute("begin")
            return [database.execute(statement).fetchall() for statement in statements]
    connection = await asyncpg.connect(url, timeout=10, server_settings={"application_name": "judge"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return [await connection.fetch(statement) for statement in statements]
    finally:
        await connection.close()


async def recorded(url: str) -> Recorded:
    """All that the judge asks of the store."""
    requests, attempts, due, ended = await fetch(
        url,
        "select id, message from requests",
        "select id, message, state from attempts",
        "select message from due",
        f"select message, state from decisions where state in {_FINAL} order by id",
    )
    return Recorded(
        requests=dict(requests),
        attempts=[Attempt(*row) for row in attempts],
        open={message for (message,) in due},
        ended=dict(ended),
    )
