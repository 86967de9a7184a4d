"""News of an attempt twice, backwards, before we know of it ourselves: is the end what telling it in order gives?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.acts import Deed, reported
from providers import Act, Acted, Agent, Receipt, ReceiptStatus
from tests.contract.world import ACCEPTED, World
from tests.examples import examples
from tests.simulation.store import create

if TYPE_CHECKING:
    from collections.abc import Sequence

News = ReceiptStatus | tuple[Act, Agent, str | None]
"""A receipt, or an act with who did it and, of what services report, its id."""
STORY: tuple[News, ...] = (
    ReceiptStatus.OTHER,
    ReceiptStatus.ACCEPTED,
    ReceiptStatus.UNDELIVERED,
    ReceiptStatus.UNREACHABLE,
    ReceiptStatus.DELIVERED,
    (Act.ANSWERED, Agent.MACHINE, None),
    (Act.ANSWERED, Agent.HUMAN, None),
    (Act.OPENED, Agent.HUMAN, None),
    (Act.OPENED, Agent.HUMAN, "e-1"),
    (Act.CLICKED, Agent.HUMAN, "e-2"),
    (Act.CONVERTED, Agent.HUMAN, "e-3"),
    (Act.CONVERTED, Agent.HUMAN, "e-4"),
)
"""In the order in which it happens, as far as there is one."""


async def told(tables: bytes, early: Sequence[News], late: Sequence[News]) -> tuple[Any, ...]:
    """How it ends where these are told before the provider's answer is recorded, and those after it."""
    world = World(create(tables))
    await world.store.open()
    new = world.new()
    claimed = await world.claimed(new)

    async def tell(news: News) -> None:
        if isinstance(news, ReceiptStatus):
            await world.store.receipt([Receipt(claimed.attempt.id, news, "SM1", news)], world.judge)
            return
        act, agent, key = news
        vendors = reported(Acted(claimed.attempt.id, act, agent), "one")
        services = Deed(act, agent, "service", key or "", message=new.message.id, stage=key)
        await world.store.record([services if key else vendors], world.judge)

    for news in early:
        await tell(news)
    await world.settle(claimed, ACCEPTED)
    for news in late:
        await tell(news)
    view = await world.view(new)
    places = [(contact.message, contact.channel) for contact in await world.contacts()]
    acts = sorted((act.act, act.agent, act.via, act.stage or "", act.channel or "") for act in view.acts)
    suppressed = (await world.store.prospect(new.message, world.judge)).person.suppressed
    return view.state, [attempt.state for attempt in view.attempts], len(places), acts, len(suppressed)


def consistent(chosen: set[News]) -> bool:
    """No vendor calls an address unreachable and says something else of how it ended."""
    return ReceiptStatus.UNREACHABLE not in chosen or chosen.isdisjoint(
        {ReceiptStatus.DELIVERED, ReceiptStatus.UNDELIVERED}
    )


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_the_order_of_news_is_no_matter_nor_how_often_it_comes(tables: bytes, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(STORY), min_size=1, max_size=5).filter(consistent), "news")
    story = [news for news in STORY if news in chosen]
    often = [news for news in story for _ in range(data.draw(st.integers(1, 3), "times"))]
    scrambled = data.draw(st.permutations(often), "as told")
    early = data.draw(st.integers(0, len(scrambled)), "early")
    in_order = asyncio.run(told(tables, (), story))
    assert asyncio.run(told(tables, scrambled[:early], scrambled[early:])) == in_order
