"""That failover, isolation, memory and soak measure what they say. How well the gateway does is not asked."""

from __future__ import annotations

import asyncio
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from gateway.store.migrate import migrate
from tests.benchmarks import failover, isolation, memory
from tests.benchmarks.scene import Servers
from tests.benchmarks.spread import counts, percentile
from tests.soak import faults
from tests.soak.account import Account, settle
from tests.soak.run import Plan, Soak, tell
from tests.soak.watch import CACHES, FLAT, PER_FAULT, Sample, Watched, slope_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.scene import Gateway
    from tests.servers import PostgreSQL, RabbitMQ


pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def servers(rabbitmq: RabbitMQ, postgres: PostgreSQL, tmp_path: Path) -> Servers:
    return Servers(rabbitmq, postgres, tmp_path)


@pytest.mark.full  # of 600 messages some were once not accepted within a minute, on a machine full of other tests
async def test_a_failed_provider_is_paid_for_by_some_and_loses_none(servers: Servers) -> None:
    run = await failover.run(servers, 1, fault=True, seconds=2, before=0.5, after=0.5)
    assert run.messages > failover.RATE
    assert 0 < run.paid < run.messages / 2
    assert (run.lost, run.doubled) == (0, 0)
    assert 0 < run.p50 <= run.p99 <= run.worst


async def test_a_channel_is_measured_before_and_while_another_hangs(servers: Servers) -> None:
    well, ill = await isolation.hanging(servers, 1, 1)
    assert min(len(well), len(ill)) > 10
    assert max(well + ill) < isolation.HANGS * 1000


async def test_codes_are_measured_alone_and_under_a_campaign(servers: Servers) -> None:
    alone, under, handed_over = await isolation.codes(servers, 300, 1, 2)
    assert min(len(alone), len(under)) >= 5
    assert 0 < handed_over <= 300


async def test_memory_is_measured_while_copies_of_one_message_wait(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'decorum.db'}"
    await asyncio.to_thread(migrate, store)
    held = await memory.measure(tmp_path, store, "sqlite", 1000, 1.0)
    assert 0 < held.handed_over <= 100
    assert 10 < held.settled < 1000


async def test_a_short_soak_loses_and_doubles_nothing(rabbitmq: RabbitMQ, postgres: PostgreSQL, tmp_path: Path) -> None:
    plan = Plan(6, seed=1, every=1, look=0.3, lasts=1, settled=5, faults=faults.GENTLE)
    said = Console(file=StringIO(), width=200)
    report = await Soak(tmp_path, plan, rabbitmq, postgres, said).run()
    assert sum(report.happened.values()) >= 2
    for account in report.accounts.values():
        assert account.confirmed > 100
        assert account.faults == []
        assert account.handed_over > account.confirmed / 2
    assert all(len(one.settled()) >= 4 for one in report.watched)
    tell(report, said)


# ------------------------------------------------------------------------------------- what is made of what was seen


def test_a_percentile_is_the_least_value_that_so_many_are_no_greater_than() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) == 0.0


def test_a_histogram_counts_each_value_once() -> None:
    found = counts([4.9, 5, 9.9, 99_999])
    assert found[:2] == [1, 2]
    assert found[-1] == 1
    assert sum(found) == 4


def test_an_account_finds_what_is_lost_doubled_and_recorded_for_nothing() -> None:
    rows = [("sent", 3, False), ("false", 3, False), ("unknown", 2, False), ("waits", 1, True), ("failed", 1, False)]
    found = settle(["sent", "false", "unknown", "waits", "failed", "nowhere"], {"sent": 1, "twice": 2}, rows)
    assert found == Account(6, 1, 1, 1, ["failed", "false", "nowhere"], ["twice"], ["false"])
    assert len(found.faults) == 3


def watched(*samples: Sample) -> Watched:
    gateway: Gateway = None  # type: ignore[assignment]  # nobody asks it
    return Watched("one", gateway, samples=list(samples))


def test_memory_that_grows_after_the_first_part_is_found() -> None:
    def growing(an_hour: float) -> list[Sample]:
        return [Sample(at, 100 + an_hour * at / 3600, 10, 10, 1) for at in range(0, 3600, 10)]

    assert slope_of(growing(2.0)) == pytest.approx(2.0)
    assert len(watched(*growing(2.0)).faults()) == 1
    assert watched(*growing(0.5)).faults() == []


def test_one_leap_of_memory_is_no_growth() -> None:
    samples = [Sample(at, 100 if at < 3000 else 104, 10, 10, 1) for at in range(0, 3600, 10)]
    assert slope_of(samples) == 0
    assert watched(*samples).faults() == []


@pytest.mark.parametrize(("each", "found"), [(PER_FAULT, 0), (1.0, 1)])
def test_what_faults_leave_is_no_slope_but_it_has_its_limit(each: float, found: int) -> None:
    samples = [Sample(at, 100 + each * (at // 200), 10, 10, 1, broken=at // 200) for at in range(0, 3600, 10)]
    assert slope_of(samples) == 0
    assert len(watched(*samples).faults()) == found


@pytest.mark.parametrize("what", ["fds", "tasks"])
def test_descriptors_and_tasks_that_are_not_given_back_are_found(what: str) -> None:
    def leaking(more: int) -> list[Sample]:
        held = {"fds": 10, "tasks": 10}
        return [Sample(at, 100, **(held | {what: 10 + more * (at > 1400)}), wal=1) for at in range(0, 1800, 10)]

    assert watched(*leaking(FLAT)).faults() == []
    assert len(watched(*leaking(FLAT + 1)).faults()) == 1


def test_what_a_burst_leaves_for_a_while_is_no_leak() -> None:
    samples = [Sample(at, 100, 200 if 1400 < at < 1700 else 10, 10, 1) for at in range(0, 1800, 10)]
    assert watched(*samples).faults() == []


def test_a_gateway_that_answers_no_more_is_found() -> None:
    one = watched(*(Sample(at, 100, 10, 10, 1) for at in range(0, 1000, 10)))
    one.until = 1100
    assert one.faults() == []
    one.until = 1200
    assert len(one.faults()) == 1


def test_on_sqlite_memory_may_fill_its_caches_and_no_more(tmp_path: Path) -> None:
    def full(most: float) -> list[str]:
        one = watched(*(Sample(at, min(100 + at / 10, most), 10, 10, 1) for at in range(0, 3600, 10)))
        one.database = tmp_path
        return one.faults()

    assert full(100 + CACHES) == []
    assert len(full(100 + CACHES + 100)) == 1


def test_a_long_log_is_found() -> None:
    samples = [Sample(at, 100, 10, 10, 70.0 if at == 500 else 1.0) for at in range(0, 1000, 10)]
    assert len(watched(*samples).faults()) == 1
