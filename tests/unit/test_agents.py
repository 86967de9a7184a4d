"""Are machines told from people, by what they say and by what they do?"""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from itertools import permutations
from typing import Any

import crawleruseragents
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.acts import Sighting
from gateway.agents import Sign, in_company
from gateway.visits import Networks, look
from providers import Act
from tests.agents import GMAIL_PREFETCH, GMAIL_PROXY, MACHINES, PEOPLE, YAHOO_PROXY
from tests.contract.world import NOON
from tests.examples import examples

CHROME = PEOPLE[0]
DAY = 86400.0
ACTS = [Act.OPENED, Act.CLICKED]


def sign(
    act: Act = Act.CLICKED, *, after: float = DAY, method: str = "GET", agent: str | None = CHROME, **more: Any
) -> Any:
    headers = {"user-agent": agent} if agent is not None else {}
    headers |= more.pop("headers", {})
    networks = Networks(more.pop("proxies", ()), more.pop("machines", ()))
    return look(act, method, headers, more.pop("peer", "192.0.2.1"), more.pop("forwarded", ()), networks).after(after)


# ------------------------------------------------------------------------------------------------- by what they say


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("agent", PEOPLE)
def test_what_people_use(act: Act, agent: str) -> None:
    assert sign(act, agent=agent) is None


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("agent", "expected"), MACHINES)
def test_what_machines_say_that_they_are(act: Act, agent: str, expected: str) -> None:
    assert sign(act, agent=agent) == expected


@pytest.mark.parametrize("agent", [GMAIL_PROXY, YAHOO_PROXY])
def test_a_proxy_opens_for_the_person_and_clicks_for_nobody(agent: str) -> None:
    assert sign(Act.OPENED, agent=agent) is None
    assert sign(Act.OPENED, agent=agent, after=9.9) == Sign.FAST
    assert sign(Act.CLICKED, agent=agent) == Sign.PROXY


def test_nearly_every_crawler_that_is_known_to_others_is_known_to_us() -> None:
    """The package's own examples, but for those of image proxies."""
    agents = [agent for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA for agent in crawler["instances"]]
    assert len(agents) > 1000
    assert {agent for agent in agents if sign(agent=agent) is None} == set()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("sec-purpose", "prefetch", Sign.PREFETCH),
        ("sec-purpose", "prefetch;prerender", Sign.PREFETCH),
        ("sec-purpose", "prefetch;anonymous-client-ip", Sign.PREFETCH),
        ("purpose", "prefetch", Sign.PREFETCH),
        ("purpose", "Preview", Sign.PREFETCH),
        ("x-purpose", "preview", Sign.PREFETCH),
        ("x-moz", "prefetch", Sign.PREFETCH),
        ("sec-purpose", "", None),
        ("purpose", "navigate", None),
        ("x-moz", "1", None),
        ("sec-fetch-purpose", "prefetch", None),
    ],
)
def test_who_fetches_ahead(act: Act, header: str, value: str, expected: Sign | None) -> None:
    assert sign(act, headers={header: value}) == expected


@pytest.mark.parametrize("act", ACTS)
def test_who_asks_for_no_body_or_has_no_name(act: Act) -> None:
    assert sign(act, method="HEAD") == Sign.HEAD
    assert sign(act, agent=None) == Sign.NAMELESS
    assert sign(act, agent=" ") == Sign.NAMELESS


def test_a_name_of_any_length_is_looked_at_as_far_as_it_matters() -> None:
    assert sign(agent="curl/8 " + "x" * 8000) == Sign.PROGRAM
    assert sign(agent=CHROME + " " * 8000) is None


# ------------------------------------------------------------------------------------------------ by where they are

OURS = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
THEIRS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:2::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "machine"),
    [
        ("198.51.100.7", [], True),
        ("198.51.101.7", [], False),
        ("2001:db8:2::1", [], True),
        ("::ffff:198.51.100.7", [], True),
        ("192.0.2.1", ["198.51.100.7"], False),  # anybody can say so
        ("10.0.0.1", ["198.51.100.7"], True),
        ("10.0.0.1", [" 198.51.100.7 "], True),
        ("10.0.0.1", ["198.51.100.7", "192.0.2.1"], False),
        ("10.0.0.1", ["192.0.2.1", "198.51.100.7", "2001:db8:1::9"], True),
        ("10.0.0.1", ["198.51.100.7", "unknown"], False),
        ("10.0.0.1", [""], False),
        ("10.0.0.1", [], False),
        (None, ["198.51.100.7"], False),
    ],
)
def test_machines_by_their_network(peer: str | None, forwarded: list[str], machine: bool) -> None:
    found = sign(peer=peer, forwarded=forwarded, proxies=OURS, machines=THEIRS)
    assert found == (Sign.NETWORK if machine else None)


def test_a_network_condemns_proxies_too() -> None:
    assert sign(Act.OPENED, agent=GMAIL_PROXY, peer="198.51.100.7", machines=THEIRS) == Sign.NETWORK


# ------------------------------------------------------------------------------------------------- by what they do


@pytest.mark.parametrize(
    ("act", "after", "expected"),
    [
        (Act.CLICKED, 1.9, Sign.FAST),
        (Act.CLICKED, 2.0, None),
        (Act.OPENED, 0.9, Sign.FAST),
        (Act.OPENED, 1.0, None),
        (Act.OPENED, -3.0, Sign.FAST),  # before the vendor's answer was recorded
    ],
)
def test_who_is_faster_than_people(act: Act, after: float, expected: Sign | None) -> None:
    assert sign(act, after=after) == expected
    assert sign(act, after=after, agent=GMAIL_PREFETCH) == Sign.PREFETCH


def clicks(*links: tuple[int, float]) -> list[Sighting]:
    return [Sighting(Act.CLICKED, "a", NOON + timedelta(seconds=at), None, link) for link, at in links]


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([(1, 0)], [None]),
        ([(1, 0), (1, 0.1), (1, 0.2)], [None] * 3),
        ([(1, 0), (2, 1.0)], [Sign.BURST] * 2),
        ([(1, 0), (2, 1.1)], [None] * 2),
        ([(1, 0), (2, 1.0), (3, 2.0), (4, 4.0)], [Sign.BURST] * 3 + [None]),
        ([(1, 0), (1, 0.9), (2, 1.0), (2, 1.9), (2, 2.0)], [Sign.BURST] * 4 + [None]),
        ([(1, 0), (2, 1.2), (1, 2.3)], [None] * 3),
        ([(1, 0), (0, 60)], [Sign.HONEYPOT] * 2),
        ([(0, 0), (1, 60), (2, 61)], [Sign.HONEYPOT] * 2 + [Sign.BURST]),
        ([(0, 0), (1, 61)], [Sign.HONEYPOT, None]),
        ([(0, 0)], [Sign.HONEYPOT]),
        ([], []),
    ],
)
def test_clicks_that_nobody_makes(links: list[tuple[int, float]], expected: list[Sign | None]) -> None:
    assert in_company(clicks(*links)) == expected


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10).map(lambda quarters: quarters / 4)), max_size=6))
def test_the_order_in_which_clicks_are_told_is_nothing(links: list[tuple[int, float]]) -> None:
    expected = sorted(zip(links, map(str, in_company(clicks(*links))), strict=True))
    for other in list(permutations(links))[:24]:
        assert sorted(zip(other, map(str, in_company(clicks(*other))), strict=True)) == expected


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20).map(lambda quarters: quarters / 4)), max_size=8))
def test_a_burst_is_two_links_within_a_second(links: list[tuple[int, float]]) -> None:
    expected = [any(link != other and abs(at - beside) <= 1 for other, beside in links) for link, at in links]
    assert [found is Sign.BURST for found in in_company(clicks(*links))] == expected
