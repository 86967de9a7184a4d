"""What does an edit of the file change in a running gateway, and does it reach every message that waits?"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Route, parse
from gateway.ids import new_id
from gateway.metrics import Metrics
from gateway.reload import InForce, Reload, Sweep, difference
from gateway.store import StoreUnavailable
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from datetime import timedelta

    from gateway.config import Config, Policy
    from gateway.decide import Judge

PARTS = {
    "store": "sqlite:///x.db",
    "http": "{private: 127.0.0.1:8080}",
    "keys": "[]",
    "providers": "{one: {kind: inbox}, two: {kind: inbox}}",
    "routes": "{sms: [one], email: [one]}",
    "worker": "{attempt: 20s}",
    "retention": "{contacts: 40d}",
    "policy": "{timezone: UTC, categories: {news: {}}, caps: [{name: daily, limit: 1, per: 24h}]}",
}
OTHERWISE = {
    "store": "sqlite:///y.db",
    "http": "{private: 127.0.0.1:8081}",
    "keys": f"[{{name: orders, sha256: {'a' * 64}, scopes: [send]}}]",
    "providers": "{one: {kind: inbox, concurrency: 3}, two: {kind: inbox}}",
    "routes": "{sms: [two, one], email: [one]}",
    "worker": "{attempt: 30s}",
    "retention": "{contacts: 50d}",
    "policy": "{timezone: UTC, categories: {news: {}}, caps: [{name: daily, limit: 2, per: 24h}]}",
}


def text(**changed: str) -> str:
    return "\n".join(f"{key}: {value}" for key, value in (PARTS | changed).items())


def config(**changed: str) -> Config:
    return parse(text(**changed), {}, base=Path())


# --------------------------------------------------------------------------------------------------------- what differs


@given(st.sets(st.sampled_from(sorted(PARTS))))
def test_exactly_the_sections_that_say_something_else_are_named(changed: set[str]) -> None:
    found = difference(config(), config(**{section: OTHERWISE[section] for section in changed}))
    assert set(found.live) == changed & {"policy", "routes", "retention"}
    assert set(found.restart) == changed - {"policy", "routes", "retention"}
    assert found.faults == ()


def test_what_is_only_written_otherwise_differs_in_nothing() -> None:
    spelt_out = text(
        policy="{caps: [{per: 1d, limit: 1, name: daily}], categories: {news: {}}, timezone: UTC}  # the same",
        worker="{attempt: 20s, in_flight: {}}",
    )
    found = difference(config(), parse("# a comment\n" + spelt_out, {}, base=Path()))
    assert (found.live, found.restart, found.faults) == ((), (), ())


def test_the_order_of_routes_is_a_difference() -> None:
    """It is the one in which the channels of a request are tried that names none."""
    assert difference(config(), config(routes="{email: [one], sms: [one]}")).live == ("routes",)


def test_another_weight_is_another_route_and_another_order_of_weights_is_not() -> None:
    shared, other = config(routes="{sms: {one: 70, two: 30}}"), config(routes="{sms: {one: 60, two: 40}}")
    assert difference(shared, other).live == ("routes",)
    assert difference(config(routes="{sms: [one, two]}"), shared).live == ("routes",)
    assert difference(shared, config(routes="{sms: {two: 30, one: 70}}")).live == ()


def test_a_route_to_what_does_not_run_waits_for_a_restart() -> None:
    new = config(providers="{one: {kind: inbox}, three: {kind: inbox}}", routes="{sms: [three], email: [one, three]}")
    faults = difference(config(), new).faults
    assert [fault.path for fault in faults] == ["routes.sms", "routes.email"]
    assert all("'three'" in fault.problem and "restart" in fault.problem for fault in faults)


MAIL = "{kind: smtp, host: localhost, port: 1025, sender: a@example.com}"


def test_a_new_route_to_what_runs_as_something_else_waits_for_a_restart() -> None:
    (fault,) = difference(
        config(), config(providers=f"{{one: {{kind: inbox}}, two: {MAIL}}}", routes="{sms: [one], email: [two]}")
    ).faults
    assert fault.path == "routes.email"
    assert "inbox" in fault.problem
    assert "restart" in fault.problem


def test_a_route_that_is_in_force_already_goes_on_by_what_runs() -> None:
    before = config(routes="{sms: [one], email: [two]}")
    after = config(providers=f"{{one: {{kind: inbox}}, two: {MAIL}}}", routes="{sms: [one], email: [two]}")
    found = difference(before, after)
    assert (found.live, found.restart, found.faults) == ((), ("providers",), ())


# ------------------------------------------------------------------------------------------------------------- in force


class Numbers:
    """Stands where the store does: numbers policies, has messages that wait, and is away while it is told to be."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.policies: list[str] = []
        self.waiting: dict[str, int] = {}
        self.holder: str | None = None
        self.sweeps: list[tuple[float, int, str]] = []
        self.before_page: Callable[[], object] = lambda: None

    async def activate(self, policy: Policy, _: str) -> int:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        if policy.hash not in self.policies:
            self.policies.append(policy.hash)
        return self.policies.index(policy.hash) + 1

    async def take_job(self, _: str, worker: str, __: timedelta) -> bool:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        self.holder = self.holder or worker
        return self.holder == worker

    async def drop_job(self, _: str, worker: str) -> None:
        if self.holder == worker:
            self.holder = None

    async def sweep(self, judge: Judge, after: str, limit: int) -> tuple[str | None, int]:
        if self.away:
            raise StoreUnavailable("away")
        self.before_page()
        self.sweeps.append((asyncio.get_running_loop().time(), judge.number, after))
        page = sorted(message for message in self.waiting if message > after)[:limit]
        woken = [message for message in page if self.waiting[message] != judge.number]
        self.waiting |= dict.fromkeys(woken, judge.number)
        return page[-1] if page else None, len(woken)


class House:
    """A file, what is in force, and what keeps them together."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "conf" / "gateway.yaml"
        self.store = Numbers()
        self.metrics = Metrics("test")
        self.in_force = InForce(config(), self.store, "me", self.metrics, {})  # type: ignore[arg-type]
        self.applied = self.notices = 0
        self.reload = Reload(self.file, {}, self.in_force, self.metrics, self._applied, poll=0.02)
        self._tasks: list[asyncio.Task[Any]] = []

    def _applied(self) -> None:
        self.applied += 1

    def sweep(self, worker: str = "me") -> Sweep:
        def notice() -> None:
            self.notices += 1

        return Sweep(self.store, self.in_force, worker, self.metrics, notice)  # type: ignore[arg-type]

    def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        self._tasks.extend(asyncio.create_task(one) for one in work)

    def write(self, **changed: str) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text(**changed))

    def limit(self) -> int:
        return self.in_force.judge.policy.caps[0].limit

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


def capped(limit: int) -> str:
    return PARTS["policy"].replace("limit: 1", f"limit: {limit}")


async def test_all_that_is_live_changes_at_once_or_not_at_all(house: House) -> None:
    before = house.in_force.judge
    house.store.away = True
    with pytest.raises(StoreUnavailable):
        await house.in_force.put(config(**OTHERWISE))
    assert house.in_force.judge is before
    house.store.away = False
    await house.in_force.put(config(**OTHERWISE))
    after = house.in_force.judge
    assert (after.number, house.limit()) == (1, 2)
    assert after.routes == {"sms": Route(("two", "one")), "email": Route(("one",))}
    assert house.in_force.config.retention == config(**OTHERWISE).retention
    assert house.in_force.config.worker == config().worker
    assert (after.span, after.patience) == (before.span, before.patience)


async def test_a_file_that_is_written_to_before_anybody_watches_is_taken(house: House) -> None:
    house.write(policy=capped(7))
    house.run(house.reload.watch(), house.reload.follow())
    await wait_until(lambda: house.limit() == 7)
    assert house.applied == 1


async def test_a_file_is_not_taken_while_somebody_writes_it(house: House) -> None:
    """What is half written may be good YAML with fewer caps. Each look here meets another text, until two are alike."""
    texts = [text(policy=capped(limit)) for limit in (5, 6, 7, 8, 8, 8)]

    def pipe() -> None:
        beside = house.file.with_name("pipe")
        os.mkfifo(beside)
        beside.replace(house.file)

    def write() -> None:
        for following, each in enumerate(texts, 1):
            with house.file.open("w") as file:  # waits until somebody reads
                file.write(each)
                if following < len(texts):
                    pipe()  # in its place before this one ends, so that the next look meets it

    house.file.parent.mkdir()
    pipe()
    threading.Thread(target=write, daemon=True).start()
    house.run(house.reload.follow())
    await wait_until(lambda: house.limit() != 1)
    assert house.limit() == 8
    assert house.applied == 1


async def test_a_folder_that_is_missing_is_looked_for_until_it_is_there(house: House) -> None:
    house.run(house.reload.watch(), house.reload.follow())
    await wait_until(lambda: house.sample("gateway_policy_refused") == 1)
    assert house.limit() == 1
    house.write(policy=capped(7))
    await wait_until(lambda: house.limit() == 7)
    assert house.sample("gateway_policy_refused") == 0


async def test_a_folder_that_is_put_in_the_place_of_another_is_watched_from_then_on(house: House) -> None:
    house.write(policy=capped(2))
    house.run(house.reload.watch(), house.reload.follow())
    await wait_until(lambda: house.limit() == 2)
    house.file.parent.rename(house.file.parent.with_name("old"))
    house.write(policy=capped(3))
    await wait_until(lambda: house.limit() == 3)
    house.write(policy=capped(4))
    await wait_until(lambda: house.limit() == 4)


async def test_a_policy_without_a_number_decides_nothing_and_is_taken_when_the_store_is_back(house: House) -> None:
    house.store.away = True
    house.write(policy=capped(7))
    house.run(house.reload.watch(), house.reload.follow())
    await wait_until(lambda: house.store.asked == 1)
    assert house.limit() == 1
    house.store.away = False
    await wait_until(lambda: house.limit() == 7)
    assert house.in_force.judge.number == 1


async def test_what_is_asked_for_is_taken_though_the_file_looks_the_same(house: House, tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text("Europe/Berlin")
    house.write(policy=PARTS["policy"].replace("UTC", f"{{file: {zone}}}"))
    house.run(house.reload.follow())
    await wait_until(lambda: house.in_force.judge.policy.zone.key == "Europe/Berlin")
    zone.write_text("Asia/Tokyo")
    house.reload.ask()
    await wait_until(lambda: house.in_force.judge.policy.zone.key == "Asia/Tokyo")


async def test_a_change_of_routes_alone_keeps_the_number_and_wakes_nobody(house: House) -> None:
    await house.in_force.put(config())
    house.write(routes=OTHERWISE["routes"])
    house.run(house.reload.follow())
    await wait_until(lambda: house.in_force.judge.routes["sms"].names == ("two", "one"))  # type: ignore[index]
    assert (house.in_force.judge.number, house.applied) == (1, 0)


# ------------------------------------------------------------------------------------------------------ those that wait


async def test_every_message_that_another_policy_put_to_wait_is_woken_once(house: House) -> None:
    await house.in_force.put(config())
    house.store.waiting = {new_id(): number % 2 for number in range(2500)}
    house.run(house.sweep().run())
    await wait_until(lambda: set(house.store.waiting.values()) == {1})
    await wait_until(lambda: house.sample("gateway_policy_swept_total") == 1250)
    assert house.notices == 3


async def test_no_more_than_a_thousand_are_woken_in_a_second(house: House) -> None:
    await house.in_force.put(config())
    house.store.waiting = {new_id(): 0 for _ in range(2001)}
    house.run(house.sweep().run())
    await wait_until(lambda: set(house.store.waiting.values()) == {1})
    first, second, third = [at for at, *_ in house.store.sweeps[:3]]
    assert min(second - first, third - second) >= 0.99


async def test_looking_costs_no_pause_where_nobody_is_woken(house: House) -> None:
    await house.in_force.put(config())
    house.store.waiting = {new_id(): 1 for _ in range(50_000)}
    house.run(house.sweep().run())
    await wait_until(lambda: len(house.store.sweeps) > 50, 5)
    assert house.store.sweeps[50][0] - house.store.sweeps[0][0] < 5


async def test_a_change_during_a_pass_begins_anew(house: House) -> None:
    await house.in_force.put(config())
    house.store.waiting = {new_id(): 0 for _ in range(1500)}
    sweep = house.sweep()

    def changes() -> None:
        if not house.store.sweeps:
            house.in_force.judge = judge
            sweep.ask()

    await house.in_force.put(config(policy=capped(7)))
    judge = house.in_force.judge
    await house.in_force.put(config())
    house.store.before_page = changes
    house.run(sweep.run())
    await wait_until(lambda: set(house.store.waiting.values()) == {2})
    assert [(number, after) for _, number, after in house.store.sweeps[:2]] == [(1, ""), (2, "")]


async def test_what_the_old_policy_puts_to_wait_during_a_pass_is_found_by_the_next_and_then_the_job_is_given_back(
    house: House,
) -> None:
    await house.in_force.put(config())
    house.run(house.sweep().run())
    await wait_until(lambda: house.store.sweeps)
    house.store.waiting[new_id()] = 0
    await wait_until(lambda: set(house.store.waiting.values()) == {1})
    await wait_until(lambda: house.store.holder is None)


async def test_one_worker_sweeps_at_a_time_and_another_takes_over(house: House) -> None:
    await house.in_force.put(config())
    house.store.holder = "another, that has died since"
    house.store.waiting = {new_id(): 0}
    house.run(house.sweep().run())
    await wait_until(lambda: house.store.asked > 1)
    assert house.store.sweeps == []
    house.store.holder = None  # its lease has run out
    await wait_until(lambda: set(house.store.waiting.values()) == {1})


async def test_a_pass_that_loses_the_store_is_made_again(house: House) -> None:
    await house.in_force.put(config())
    house.store.waiting = {new_id(): 0 for _ in range(1500)}

    def goes() -> None:
        house.store.before_page = lambda: None
        house.store.away = True
        raise StoreUnavailable("away")

    house.store.before_page = goes
    house.run(house.sweep().run())
    await wait_until(lambda: house.store.away)
    house.store.away = False
    await wait_until(lambda: set(house.store.waiting.values()) == {1})
