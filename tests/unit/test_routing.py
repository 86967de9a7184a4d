"""Is the provider that is tried the one that route and health ask for, whoever asks and however often?"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Route
from gateway.routing import Health, Wait, choose, eligible, weight
from providers import Channel

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SMS = Channel.SMS
ORDERED = Route(("one", "two", "three"))
SHARED = Route(("one", "two", "three"), (60, 30, 10))
MANY = [f"message-{number}" for number in range(4000)]


def chosen(route: Route, health: Health | None = None, message: str = "m", **more: Any) -> str | Wait:
    given = {"usable": route.names, "critical": False, "now": NOON} | more
    return choose(SMS, route, health=health or Health(), message=message, **given)


def shares(route: Route, health: Health | None = None, **more: Any) -> dict[str, float]:
    """How many of a hundred messages each provider gets."""
    counts = Counter(chosen(route, health, message, **more) for message in MANY)
    return {str(name): 100 * count / len(MANY) for name, count in counts.items()}


def test_in_order_the_first_has_all_that_it_can_take() -> None:
    assert shares(ORDERED) == {"one": 100}
    assert shares(ORDERED, Health(failing={(SMS, "one")})) == {"two": 100}
    assert shares(ORDERED, usable=("two", "three")) == {"two": 100}


def test_by_weight_each_has_its_share() -> None:
    assert shares(SHARED) == pytest.approx({"one": 60, "two": 30, "three": 10}, abs=2.5)
    assert shares(SHARED, Health(failing={(SMS, "one")})) == pytest.approx({"two": 75, "three": 25}, abs=2.5)


def test_points_that_are_off_go_to_the_others() -> None:
    in_order = shares(ORDERED, Health(cut={(SMS, "one"): 10}))
    assert in_order == pytest.approx({"one": 90, "two": 10}, abs=2)
    by_weight = shares(SHARED, Health(cut={(SMS, "one"): 50}))
    assert by_weight == pytest.approx({"one": 20, "two": 60, "three": 20}, abs=2.5)
    assert shares(SHARED, Health(cut={(SMS, "one"): 60})) == pytest.approx({"two": 75, "three": 25}, abs=2.5)
    assert shares(ORDERED, Health(cut={(SMS, "two"): 50})) == {"one": 100}
    assert shares(ORDERED, Health(cut={(Channel.EMAIL, "one"): 50})) == {"one": 100}


def test_whoever_had_another_keeps_it_when_points_are_taken_off_one() -> None:
    for route in (ORDERED, SHARED):
        before, after = Health(cut={(SMS, "one"): 5}), Health(cut={(SMS, "one"): 25})
        for message in MANY:
            was = chosen(route, before, message)
            assert was == "one" or chosen(route, after, message) == was


def test_weight_0_is_for_when_nothing_else_is_left() -> None:
    route = Route(("one", "spare"), (10, 0))
    assert shares(route) == {"one": 100}
    assert shares(route, Health(failing={(SMS, "one")})) == {"spare": 100}
    assert shares(route, usable=("spare",)) == {"spare": 100}


def test_points_left_are_never_fewer_than_none_nor_more_than_at_rest() -> None:
    for cut in (0, 5, 10, 60, 100):
        health = Health(cut={(SMS, name): float(cut) for name in SHARED})
        points = [weight(SMS, SHARED, name, health) for name in SHARED]
        assert points == [max(0, 60 - cut), max(0, 30 - cut), max(0, 10 - cut)]
        assert weight(SMS, ORDERED, "two", health) == 100 - cut


def test_weights_are_shares_whatever_their_sum() -> None:
    assert [Route(("a", "b"), (7, 3)).resting(name) for name in "ab"] == [70, 30]
    assert Route(("a", "b"), (7, 3)).written() == {"a": 7, "b": 3}
    assert Route(("a", "b")).written() == ["a", "b"]


def test_where_others_are_only_busy_one_that_fails_is_not_asked() -> None:
    health = Health(failing={(SMS, "one")}, full=("two", "three"))
    assert chosen(ORDERED, health) == Wait(NOON + SECOND, "busy")
    assert chosen(ORDERED, health, critical=True) == "two"


def test_where_others_only_have_no_turn_one_that_fails_is_not_asked() -> None:
    paced = {"two": {"m": 4 * SECOND}, "three": {"m": 3 * SECOND}}
    failing = {(SMS, "one")}
    assert chosen(ORDERED, Health(failing=failing, paced=paced)) == Wait(NOON + 3 * SECOND, "pace", "three")
    assert chosen(ORDERED, Health(failing=failing, paced=paced, probes={(SMS, "one"): {"m"}})) == "one"
    assert chosen(ORDERED, Health(failing=failing, paced=paced), "n") == "two"


def test_those_that_have_no_turn_at_one_are_divided_among_the_others() -> None:
    paced = {"one": dict.fromkeys(MANY, SECOND)}
    assert shares(SHARED, Health(paced=paced)) == pytest.approx({"two": 75, "three": 25}, abs=2.5)
    assert shares(ORDERED, Health(paced=paced)) == {"two": 100}
    cut = {(SMS, "one"): 40.0, (SMS, "two"): 40.0}
    assert shares(ORDERED, Health(paced=paced, cut=cut)) == pytest.approx({"two": 60, "three": 40}, abs=2.5)


names = st.sampled_from(ORDERED.names)
ways = st.tuples(st.sampled_from([SMS, Channel.EMAIL]), names)
points = st.floats(0, 100)


@given(
    st.sampled_from([ORDERED, SHARED, Route(("one", "two", "three"), (1, 0, 0))]),
    st.lists(names, min_size=1, unique=True),
    st.builds(
        Health,
        st.frozensets(ways),
        st.dictionaries(names, st.integers(-60, 60).map(lambda seconds: NOON + seconds * SECOND)),
        st.frozensets(names),
        st.dictionaries(ways, points),
        st.dictionaries(ways, st.frozensets(st.sampled_from(["m", "n"]))),
        st.dictionaries(names, st.dictionaries(st.sampled_from(["m", "n"]), st.integers(1, 9).map(SECOND.__mul__))),
    ),
    st.sampled_from(["m", "n", "o"]),
    st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_the_same_is_always_chosen_and_never_what_must_not_be(
    route: Route, usable: list[str], health: Health, message: str, critical: bool
) -> None:
    usable.sort(key=route.index)
    taken = chosen(route, health, message, usable=usable, critical=critical)
    assert taken == chosen(route, health, message, usable=list(usable), critical=critical)
    free = [name for name in usable if health.paused.get(name, NOON) <= NOON]
    sound = [
        name for name in free if (SMS, name) not in health.failing or message in health.probes.get((SMS, name), ())
    ]
    if isinstance(taken, Wait):
        assert taken.until > NOON
        assert not critical or taken.rule != "busy"
        assert (taken.rule == "throttled") is (not free)
        if taken.rule == "pace":
            asked = [name for name in sound or free if critical or name not in health.full]
            assert taken.until == NOON + min(health.paced[name][message] for name in asked)
        return
    assert taken in free
    assert taken in sound or not sound
    assert critical or taken not in health.full
    assert message not in health.paced.get(taken, {})
    ranked = eligible(SMS, route, usable, health, message, critical=critical, now=NOON)
    assert not isinstance(ranked, Wait)
    assert taken == next(name for name in ranked if message not in health.paced.get(name, {}))
