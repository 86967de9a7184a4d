"""Does what is critical go first in one process, without holding up the rest for good?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.batcher import Batcher
from gateway.store.engine import TURN
from gateway.store.precedence import BREATH, MOMENT, Precedence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def test_what_is_not_critical_waits_until_what_is_has_been_committed() -> None:
    precedence = Precedence()
    await precedence.give_way()  # to nobody
    with precedence.critical(), precedence.critical():
        waiting = asyncio.create_task(precedence.give_way())
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(MOMENT / 2):
        await waiting


@pytest.mark.parametrize(("gives_way", "seconds"), [(Precedence.give_way, MOMENT), (Precedence.breathe, BREATH)])
async def test_a_stream_of_codes_holds_up_nobody_for_longer_than_a_moment(
    gives_way: Callable[[Precedence], Awaitable[None]], seconds: float
) -> None:
    precedence, loop = Precedence(), asyncio.get_running_loop()
    with precedence.critical():
        begun = loop.time()
        await gives_way(precedence)
        assert loop.time() - begun >= seconds * 0.9


async def test_what_has_begun_lets_others_have_one_turn_and_what_is_critical_as_many_as_it_needs() -> None:
    precedence, loop = Precedence(), asyncio.get_running_loop()
    alone = asyncio.create_task(precedence.breathe())
    await _turns(3)
    assert alone.done()
    with precedence.critical():
        begun = loop.time()
        beside = asyncio.create_task(precedence.breathe())
        await _turns(3)
        assert not beside.done() or loop.time() - begun >= BREATH
    await _turns(3)
    assert beside.done()


async def test_what_is_critical_gives_way_to_nothing_in_its_midst() -> None:
    precedence = Precedence()
    with precedence.critical():
        code = asyncio.create_task(precedence.breathe(critical=True))
        await _turns(3)
        assert code.done()


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_critical_commit_that_breaks_is_over_too() -> None:
    precedence = Precedence()
    with pytest.raises(LookupError), precedence.critical():
        raise LookupError
    async with asyncio.timeout(MOMENT / 2):
        await precedence.give_way()


async def test_no_more_of_a_batch_go_on_in_one_turn_of_the_loop_than_others_can_wait_for() -> None:
    went: list[int] = []
    turn = 0

    async def at_once(items: Sequence[int]) -> Sequence[int]:
        return items

    async def go_on(call: asyncio.Future[int]) -> None:
        await call
        went.append(turn)

    batched = Batcher(at_once, most=5 * TURN, lanes=1)
    calls = [asyncio.create_task(go_on(batched(number))) for number in range(5 * TURN)]
    while not all(call.done() for call in calls):
        await asyncio.sleep(0)
        turn += 1
    assert len(went) == 5 * TURN
    assert max(went.count(number) for number in set(went)) <= TURN
