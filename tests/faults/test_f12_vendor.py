"""A vendor misbehaves in sixteen ways: a call becomes what it was, and none is made again that may have arrived."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.faults import misbehaving, records
from tests.faults.load import by_http
from tests.faults.rows import FULL
from tests.faults.world import ENVIRONMENT, ROOT, world
from tests.servers import spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.faults.tally import Tally

UNKNOWN, NOT_SENT, ACCEPTED = {"unknown"}, {"not_sent"}, {"accepted"}
BECOMES = {
    "refuse": NOT_SENT,
    "slow": UNKNOWN,
    "reset-before": UNKNOWN,  # the request was written, and how far it got nobody knows
    "reset-mid": UNKNOWN,
    "reset-after": UNKNOWN,
    "200-reset": ACCEPTED | UNKNOWN,  # the whole answer was there; whether it was read is a race
    "429-seconds": NOT_SENT | ACCEPTED,
    "429-date": NOT_SENT | ACCEPTED,
    "500": UNKNOWN,
    "502": UNKNOWN,
    "503": UNKNOWN,
    "bad-json": UNKNOWN,
    "huge": UNKNOWN,
    "gzip-bomb": UNKNOWN,
    "redirect": NOT_SENT,
    "wrong-name": NOT_SENT,
}
"""What attempts may become, by FAULTS §1.5."""
UNREACHED = {"refuse", "wrong-name", "reset-before"}
"""Ways that the vendor notes no call of."""
SPARE = 90_000_000
"""Bytes that the gateway may grow by: less than a single bomb comes to, of which there are twenty at once.

On PostgreSQL, for what SQLite keeps of its file would be as much.
"""
FIRST_CALLS = 50
"""Failed calls until a vendor is left alone, at most."""
PROBES = 5
"""Messages in five seconds that find out whether it is well again, at most."""
AGAIN = 3
"""Calls that an attempt may make where nothing was sent."""


@asynccontextmanager
async def vendor(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The URL of each way."""
    command = [sys.executable, "-m", "tests.faults.misbehaving", str(folder)]
    with spawn(command, folder / "misbehaving.log", env=ENVIRONMENT, cwd=ROOT) as child:
        await wait_until(lambda: child.text.endswith("\n") or not child.running, 30, "the vendor is ready")
        assert child.running, child.text
        urls: dict[str, str] = json.loads(child.text)
        yield urls


def provider(url: str, channel: str) -> dict[str, Any]:
    body = {"to": "{address}", "text": "{text}", "ref": "{attempt}"}
    return {
        "kind": "http",
        "url": url,
        "channels": [channel],
        "body": body,
        "reply": {"reference": "data.id"},
        "concurrency": 20,  # so many replies are held at once, a megabyte of each
        "timeout": 1 if url.endswith("/slow") else 20,
    }


def calls(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_bytes().splitlines()]


@pytest.mark.row("F12")
async def test_each_call_becomes_what_it_was(
    tmp_path: Path, count: int, tally: Tally, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # so that only the name is wrong
    async with vendor(tmp_path) as urls:
        ways = {f"v-{way}": provider(urls[way], "push") for way in BECOMES}
        change = [*((f"providers.{name}", part) for name, part in ways.items()), ("routes.push", list(ways))]
        async with world(tmp_path, store=postgres_url, change=change) as here:
            sent = {}
            for way in BECOMES:
                for request in here.requests(count, "keyed"):
                    token = {"token": f"{way}-{request.id}", "platform": "android", "provider": f"v-{way}"}
                    sent[request.id] = way
                    here.attempted[request.id] = replace(request, more={"to": {"push": [token]}})
            gateway = here.gateways[0]
            assert gateway.child
            process = psutil.Process(gateway.child.pid)
            before = process.memory_info().rss
            assert set(await here.post(list(here.attempted.values()))) == {202}

            async def through() -> bool:
                """Each message has an attempt whose outcome is known, and each that was throttled was accepted."""
                ((open_,), (late,)) = [rows[0] for rows in await records.fetch(here.store, _OPEN, _THROTTLED)]
                return not open_ and not late

            began = time.monotonic()
            await wait_until(through, 60 + 2 * count, "all calls have been made")
            grown = process.memory_info().rss - before
            (rows,) = await records.fetch(here.store, _ATTEMPTS)
            found: dict[str, Counter[str]] = defaultdict(Counter)
            for request, state, _ in rows:
                found[sent[request]][state] += 1
            print({way: dict(states) for way, states in found.items()}, f"{time.monotonic() - began:.1f} s")
            tally.fault(len(sent))
            tally.messages, tally.unknown = len(sent), sum(states["unknown"] for states in found.values())
            for way, states in found.items():
                assert set(states) <= BECOMES[way], way
                assert sum(states.values()) >= count
            assert grown <= SPARE, f"it has grown by {grown / 1e6:.0f} MB"
            _never_again([(sent[request], request, error) for request, _, error in rows], calls(tmp_path))
            assert gateway.running


_OPEN = (
    "select count(*) from messages m where not exists"
    " (select 1 from attempts a where a.message = m.id and a.state <> 'intent')"
)
_THROTTLED = (
    "select count(*) from messages m where exists (select 1 from attempts a where a.message = m.id"
    " and a.provider like 'v-429%') and not exists"
    " (select 1 from attempts a where a.message = m.id and a.state = 'accepted')"
)
_ATTEMPTS = (
    "select r.id, a.state, a.error from attempts a join requests r on r.message = a.message where a.state <> 'intent'"
)


def _never_again(attempts: list[tuple[str, str, str | None]], called: list[dict[str, Any]]) -> None:
    """What may have arrived was called once; what was throttled again when it was time, and a redirect nowhere."""
    at: dict[tuple[str, str], list[float]] = defaultdict(list)
    for call in called:
        at[call["way"], call["to"]].append(call["at"])
    ways = {way for way, _ in at}
    assert ways == BECOMES.keys() - UNREACHED, "a redirect was followed, or a way was not taken"
    for (way, to), times in at.items():
        if BECOMES[way] <= UNKNOWN | ACCEPTED and not way.startswith("429"):
            assert len(times) == 1, f"{to} was sent {len(times)} times"
        if way.startswith("429"):
            assert len(times) == 2, f"{to} was sent {len(times)} times"
            assert times[1] - times[0] >= misbehaving.PAUSE - 1, f"{to} was sent again too soon"
    once = Counter(request for way, request, _ in attempts if BECOMES[way] <= UNKNOWN)
    assert max(once.values()) == 1


@pytest.mark.row("F12")
async def test_a_vendor_that_fails_is_left_alone_and_used_again(tmp_path: Path, tally: Tally) -> None:
    async with vendor(tmp_path) as urls:
        sick = {**provider(urls["sick"], "sms"), "statuses": {"503": "unavailable"}}
        change = [("providers.sick", sick), ("routes.sms", ["sick", "text"])]
        async with world(tmp_path, change=change) as here:
            (tmp_path / "sick").touch()
            log = here.gateways[0].log

            def failed() -> int:
                return sum(call["way"] == "sick" for call in calls(tmp_path))

            async with by_http(here, 20) as load:
                await wait_until(lambda: '"provider.opened"' in log.read_text(), 30, "it is left alone")
                opened = next(line for line in log.read_text().splitlines() if '"provider.opened"' in line)
                assert json.loads(opened)["failed"] <= FIRST_CALLS
                if FULL:  # so long that it is tried, and found no better
                    await wait_until(lambda: '"provider.half_open"' in log.read_text(), 30, "it is tried")
                    tried = failed()
                    await wait_until(lambda: log.read_text().count('"provider.opened"') > 1, 15, "and left alone again")
                    assert failed() - tried <= PROBES * AGAIN
                (tmp_path / "sick").unlink()
                began = time.monotonic()
                await wait_until(lambda: '"provider.closed"' in log.read_text(), 60, "it is used again")
                tally.fault(recovery=time.monotonic() - began)
                await load.passed(20)
            await here.settled(60)
            verdict = await here.verdict()
            # The well vendor's ledger has those that it took; the sick one's are its calls since it was well.
            assert not verdict.doubled
            assert here.acknowledged
            tally.messages += len(here.acknowledged)
