"""Reports: what is counted where, what a share is of, when a target is met, and what people get to read."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from io import StringIO
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import providers
from gateway.config import Step, Target
from gateway.message import AttemptState, MessageState
from gateway.report import (
    By,
    Column,
    Counting,
    Question,
    TooMany,
    described,
    page,
    remarks,
    rows,
    security,
    sheet,
    words,
)
from gateway.report.counting import GROUPS, STAGES, carried
from gateway.report.page import style
from gateway.report.targets import Verdict, held, wilson
from gateway.store import Done, Story, Try, Unattributed
from providers import Act, Agent, Channel
from ratelimit import zone
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.report import Report
    from providers import Settings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUESTION = Question(NOON - timedelta(days=7), NOON, (By.CAMPAIGN, By.CHANNEL))
CLICKS = Target(Step.CLICKED, None, Step.SENT, None, 0.2, None, None, None)


def attempt(
    state: AttemptState = AttemptState.ACCEPTED, channel: Channel = Channel.SMS, number: int = 1, **fields: Any
) -> Try:
    made = Try(f"a{number}", number, channel, "text", state, NOON, None, tracked=False)
    return replace(made, **fields)


def did(
    act: Act, agent: Agent = Agent.HUMAN, *, after: float = 60, stage: str | None = None, band: str | None = None
) -> Done:
    return Done(act, agent, NOON + timedelta(seconds=after), stage, band)


def story(*acts: Done, **fields: Any) -> Story:
    """One that a provider took, unless told otherwise."""
    told: dict[str, Any] = {
        "person": "ann",
        "category": "news",
        "campaign": "spring",
        "source": "loans",
        "accepted_at": NOON,
        "stage": None,
        "variant": None,
        "state": MessageState.SENT,
        "reason": None,
        "held": (),
        "tries": (attempt(),),
        "acts": acts,
        "text": None,
    }
    return Story(**told | fields)


def counted(
    stories: Iterable[Story],
    question: Question = QUESTION,
    priced: dict[str, Settings] | None = None,
    targets: Sequence[Target] = (),
    where: str = "UTC",
) -> Report:
    counting = Counting(question, zone(where), priced or {}, targets)
    counting.add(stories)
    return counting.report(NOON)


def columns(*stories: Story) -> set[str]:
    """Those that one message is in."""
    total = counted(stories).total
    return {str(column) for column, number in total.counts.items() if number} - {"requested"}


# ----------------------------------------------------------------------------------------------------- what is counted


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (AttemptState.ACCEPTED, {"sent"}),
        (AttemptState.DELIVERED, {"sent", "delivered"}),
        (AttemptState.UNDELIVERED, {"sent", "undelivered"}),
        (AttemptState.UNKNOWN, {"unknown"}),
        (AttemptState.INTENT, set()),
        (AttemptState.NOT_SENT, set()),
        (AttemptState.REJECTED, set()),
        (AttemptState.UNREACHABLE, set()),
    ],
)
def test_a_message_came_as_far_as_its_attempt(state: AttemptState, found: set[str]) -> None:
    assert columns(story(tries=(attempt(state),))) == found


@pytest.mark.parametrize(
    ("states", "number"),
    [
        ("", None),
        ("unreachable rejected", None),
        ("unreachable accepted", 2),
        ("unknown accepted", 2),
        ("delivered accepted", 1),  # late news of an attempt that had been given up
        ("undelivered accepted", 2),
        ("accepted undelivered", 1),
        ("unknown undelivered", 2),
        ("unknown unknown", 2),
        ("accepted accepted", 2),
        ("accepted not_sent", 1),
    ],
)
def test_it_belongs_to_the_attempt_that_reached_the_person_as_far_as_is_known(states: str, number: int | None) -> None:
    made = [attempt(AttemptState(state), number=place) for place, state in enumerate(states.split(), 1)]
    carrier = carried(made)
    assert (carrier.number if carrier else None) == number


def test_what_fell_through_belongs_to_the_channel_that_it_came_by_and_what_never_went_to_none() -> None:
    fell = (attempt(AttemptState.UNREACHABLE, Channel.PUSH), attempt(AttemptState.DELIVERED, Channel.EMAIL, 2))
    report = counted([story(tries=fell), story(tries=(attempt(AttemptState.REJECTED),)), story(tries=())])
    assert [(group.key, group.row.counts[Column.REQUESTED]) for group in report.groups] == [
        (("spring", "email"), 1),
        (("spring", "none"), 2),
    ]


def test_an_act_counts_once_a_message_whoever_often_it_was_done() -> None:
    opened = [did(Act.OPENED, after=after) for after in (1, 2, 3)]
    total = counted([story(*opened, did(Act.CLICKED), did(Act.CLICKED))]).total
    assert (total.counts[Column.OPENED], total.counts[Column.CLICKED]) == (1, 1)


def test_machines_count_apart() -> None:
    machines = [did(act, Agent.MACHINE) for act in (Act.OPENED, Act.ANSWERED, Act.CLICKED)]
    assert columns(story(*machines)) == {"sent", "machine_opened", "machine_answered", "machine_clicked"}
    assert counted([story(*machines)]).total.to_open is None
    assert columns(story(*machines, did(Act.OPENED))) >= {"opened", "machine_opened"}


@pytest.mark.parametrize("act", [Act.APP_OPENED])
def test_what_is_no_answer_to_a_message_is_in_no_column(act: Act) -> None:
    assert columns(story(did(act))) == {"sent"}


def test_a_conversion_counts_for_each_stage_that_was_reached() -> None:
    one = story(did(Act.CONVERTED, stage="logged_in"), did(Act.CONVERTED, stage="applied"), did(Act.CONVERTED))
    total = counted([one, story(did(Act.CONVERTED, stage="logged_in")), story(did(Act.CONVERTED))]).total
    assert total.counts[Column.CONVERTED] == 3
    assert total.reached == {"logged_in": 2, "applied": 1}


def test_who_leaves_twice_upon_a_message_left_under_the_first_pressure() -> None:
    total = counted([story(did(Act.OPTED_OUT, band="1-2"), did(Act.OPTED_OUT, band="6+", after=90))]).total
    assert total.left == {(Column.OPTED_OUT, "1-2"): 1}


@pytest.mark.parametrize(
    ("held", "deferred"),
    [((), False), (("daily",), True), (("retry", "pace", "busy"), False), (("retry", "night", "retry"), True)],
)
def test_deferred_is_what_a_rule_put_off(held: tuple[str, ...], deferred: bool) -> None:
    assert ("deferred" in columns(story(held=held))) is deferred


@pytest.mark.parametrize(
    ("state", "reason", "held", "why"),
    [
        (MessageState.REFUSED, "capped", ("night",), "capped"),
        (MessageState.EXPIRED, "expires_at", (), "expires_at"),
        (MessageState.EXPIRED, "expires_at", ("night", "daily"), "daily"),
        (MessageState.FAILED, "unavailable:refused", ("retry",), "unavailable:refused"),
        (MessageState.CANCELLED, "cancelled", ("night",), "cancelled"),
    ],
)
def test_what_never_went_is_told_with_its_reason(
    state: MessageState, reason: str, held: tuple[str, ...], why: str
) -> None:
    total = counted([story(tries=(), state=state, reason=reason, held=held)]).total
    assert total.lost == {(state, why): 1}


def test_what_arrived_after_all_is_not_lost() -> None:
    late = story(tries=(attempt(AttemptState.DELIVERED),), state=MessageState.DELIVERED, reason="unavailable:timeout")
    assert counted([late]).total.lost == {}


def test_half_of_the_opens_come_within_the_median_and_none_before_the_hand_off() -> None:
    lengths = (-30, 10, 20, 90)
    total = counted([story(did(Act.OPENED, after=length), did(Act.CLICKED, after=100)) for length in lengths]).total
    assert (total.to_open, total.to_click) == (timedelta(seconds=15), timedelta(seconds=100))


def test_days_are_those_of_the_policys_clock() -> None:
    question = replace(QUESTION, by=(By.DAY,))
    late = story(accepted_at=datetime(2026, 11, 22, 15, 30, tzinfo=UTC))
    report = counted([story(), late], question, where="Asia/Tokyo")
    assert [group.key for group in report.groups] == [("2026-11-22",), ("2026-11-23",)]


def test_groups_are_in_the_order_of_their_keys_and_what_does_not_say_comes_last() -> None:
    campaigns = ("b", None, "a", "b")
    report = counted([story(campaign=campaign) for campaign in campaigns], replace(QUESTION, by=(By.CAMPAIGN,)))
    assert [(group.key, group.row.counts[Column.REQUESTED]) for group in report.groups] == [
        (("a",), 1),
        (("b",), 2),
        ((None,), 1),
    ]


def test_grouped_by_nothing_there_is_only_the_whole() -> None:
    report = counted([story(), story(campaign=None)], replace(QUESTION, by=()))
    assert (report.groups, report.total.counts[Column.REQUESTED]) == ((), 2)


def test_a_person_counts_once_in_each_group_and_in_the_whole() -> None:
    stories = [story(), story(), story(person="bob"), story(campaign="autumn")]
    report = counted(stories, replace(QUESTION, by=(By.CAMPAIGN,)))
    assert [group.row.persons for group in report.groups] == [1, 2]
    assert report.total.persons == 2


def test_a_share_is_one_of_its_base_and_of_nothing_else() -> None:
    unknown = story(did(Act.CLICKED), tries=(attempt(AttemptState.UNKNOWN),))  # clicked, and nobody knew that it went
    delivered = story(did(Act.CLICKED), tries=(attempt(AttemptState.DELIVERED),))
    total = counted([unknown, unknown, delivered, story(), story(), story()]).total
    assert total.counts[Column.CLICKED] == 3
    assert total.shares[Column.CLICKED, Column.SENT] == 0.25
    assert total.shares[Column.CLICKED, Column.DELIVERED] == 1.0
    assert total.shares[Column.DELIVERED, Column.SENT] == 0.25
    assert counted([]).total.shares[Column.CLICKED, Column.SENT] is None


def test_what_names_are_made_of_is_bounded() -> None:
    question = replace(QUESTION, by=(By.VARIANT,))
    counted([story(variant=str(number)) for number in range(GROUPS)], question)
    with pytest.raises(TooMany, match="more than 2000 groups: ask about a shorter time, or leave out"):
        counted([story(variant=str(number)) for number in range(GROUPS + 1)], question)
    with pytest.raises(TooMany, match="more than 50 different stages"):
        counted([story(did(Act.CONVERTED, stage=str(number))) for number in range(STAGES + 1)])


# ---------------------------------------------------------------------------------------------------------------- cost


def priced(kind: str = "inbox", amount: object = "0.0075", **more: object) -> Settings:
    return providers.settings_of(kind).model_validate(
        {"kind": kind, "cost": {"amount": amount, "currency": "USD"}} | more
    )


def twilio() -> Settings:
    return priced("twilio_sms", account_sid="AC1", auth_token="made-up", sender="+15005550006")


def test_cost_is_exact_however_much_of_it_there_is() -> None:
    total = counted([story()] * 1_000, priced={"text": priced(amount=0.1)}).total
    assert total.cost == {"USD": Decimal(100)}


@pytest.mark.parametrize(
    ("text", "parts"),
    # 3GPP TS 23.038 and 23.040: 160 septets or 70 characters of 16 bits alone, 153 or 67 in parts
    [("a" * 160, 1), ("a" * 161, 2), ("a" * 307, 3), ("あ" * 70, 1), ("あ" * 71, 2), ("€" * 81, 2)],
)
def test_text_messages_cost_by_their_parts_where_the_vendor_counts_those(text: str, parts: int) -> None:
    assert counted([story(text=text)], priced={"text": twilio()}).total.cost == {"USD": Decimal("0.0075") * parts}
    assert counted([story(text=text)], priced={"text": priced()}).total.cost == {"USD": Decimal("0.0075")}


def test_a_text_costs_as_it_went_out_with_short_links_in_it() -> None:
    text = f"{'a' * 140} https://example.com/{'b' * 30}"
    counting = Counting(QUESTION, zone("UTC"), {"text": twilio()}, (), "https://m.example")
    counting.add([story(text=text), story(text=text, tries=(attempt(tracked=True),))])
    assert counting.report(NOON).total.cost == {"USD": Decimal("0.0075") * (2 + 2)}
    text = f"{'a' * 120} https://example.com/{'b' * 30}"
    counting.add([story(text=text), story(text=text, tries=(attempt(tracked=True),))])
    assert counting.report(NOON).total.cost == {"USD": Decimal("0.0075") * (2 + 2 + 2 + 1)}


@pytest.mark.parametrize(
    ("states", "units"),
    [
        (("accepted",), 1),
        (("delivered",), 1),
        (("undelivered",), 1),
        (("unknown",), 0),
        (("not_sent", "rejected", "unreachable", "intent"), 0),
        (("undelivered", "accepted"), 2),
    ],
)
def test_what_a_vendor_took_costs_whatever_came_of_it(states: tuple[str, ...], units: int) -> None:
    tries = tuple(attempt(AttemptState(state), number=place) for place, state in enumerate(states, 1))
    total = counted([story(tries=tries)], priced={"text": priced(amount=1)}).total
    assert total.cost.get("USD", 0) == units


def test_what_a_vendor_takes_for_one_by_its_key_costs_once() -> None:
    again = attempt(number=2, repeats="a1")
    assert counted([story(tries=(attempt(), again))], priced={"text": priced(amount=1)}).total.cost == {"USD": 1}


def test_a_provider_without_a_price_costs_nothing_that_is_told() -> None:
    mail, text = (story(did(Act.CONVERTED), tries=(attempt(provider=name),)) for name in ("mail", "text"))
    total = counted([mail], priced={"text": priced()}).total
    assert (total.cost, total.unpriced) == ({}, 1)
    report = counted([mail, text, text], priced={"text": priced()})
    assert (report.total.cost, report.total.unpriced) == ({"USD": Decimal("0.015")}, 1)
    assert described(report)["total"]["cost_per_conversion"] == {}  # it would be too cheap


# ------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("hits", "base", "low", "high"),
    # R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998),
    # table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(hits: int, base: int, low: float, high: float) -> None:
    assert wilson(hits, base) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda base: st.tuples(st.integers(0, base), st.just(base))))
@settings(max_examples=examples(100))
def test_an_interval_holds_what_was_seen_and_is_the_same_from_the_other_side(of: tuple[int, int]) -> None:
    hits, base = of
    low, high = wilson(hits, base)
    assert 0 <= low <= hits / base <= high <= 1
    assert wilson(base - hits, base) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("hits", "base", "verdict"),
    [
        (29, 29, Verdict.TOO_FEW),
        (0, 29, Verdict.TOO_FEW),
        (30, 30, Verdict.MET),
        (0, 30, Verdict.MISSED),
        (21, 100, Verdict.TOO_FEW),  # 21 % may be 14 % or 30 %
        (210, 1000, Verdict.TOO_FEW),
        (2300, 10_000, Verdict.MET),
        (1700, 10_000, Verdict.MISSED),
        (0, 0, Verdict.TOO_FEW),
    ],
)
def test_a_target_is_met_or_missed_only_where_chance_does_not_explain_it(
    hits: int, base: int, verdict: Verdict
) -> None:
    assert held(CLICKS, hits, base).verdict is verdict


def test_a_target_is_held_against_its_own_messages() -> None:
    of_news = replace(CLICKS, category="news")
    of_spring = Target(Step.CONVERTED, "applied", Step.CLICKED, None, 0.5, None, "spring", None)
    of_mail = replace(CLICKS, channel=Channel.EMAIL)
    stories = [
        story(did(Act.CLICKED), did(Act.CONVERTED, stage="applied")),
        story(did(Act.CLICKED), category="alert"),
        story(did(Act.CONVERTED, stage="applied"), campaign="autumn"),
        story(category="alert", campaign="autumn", tries=()),
    ]
    report = counted(stories, targets=(of_news, of_spring, of_mail))
    assert [(one.target, one.hits, one.base) for one in report.total.targets] == [(of_news, 1, 2), (of_spring, 1, 2)]
    by_key = {group.key: [(one.target, one.hits, one.base) for one in group.row.targets] for group in report.groups}
    assert by_key == {
        ("autumn", "none"): [],
        ("autumn", "sms"): [(of_news, 0, 1)],
        ("spring", "sms"): [(of_news, 1, 1), (of_spring, 1, 2)],
    }


def test_stages_are_told_in_the_order_of_the_targets_then_by_how_many_came_there() -> None:
    asked = Target(Step.CONVERTED, "granted", Step.CONVERTED, "applied", 0.5, None, None, None)
    stories = [story(did(Act.CONVERTED, stage=stage)) for stage in ("b", "c", "c", "granted")]
    assert list(counted(stories, targets=(asked,)).total.reached) == ["applied", "granted", "c", "b"]


# ---------------------------------------------------------------------------------------------------------- properties

NAMES = st.sampled_from(["a", "b", None])
ACTS = st.builds(
    did,
    st.sampled_from(Act),
    st.sampled_from(Agent),
    after=st.integers(-100, 100_000),
    stage=st.sampled_from([None, "in", "on"]),
    band=st.sampled_from([None, "0", "6+"]),
)
TRIES = st.lists(st.builds(attempt, st.sampled_from(AttemptState), st.sampled_from(Channel)), max_size=3)
STORIES = st.lists(
    st.builds(
        lambda acts, tries, **fields: story(
            *acts,
            tries=tuple(replace(one, number=place, id=f"a{place}") for place, one in enumerate(tries, 1)),
            **fields,
        ),
        st.lists(ACTS, max_size=4),
        TRIES,
        person=st.sampled_from("abcdef"),
        category=st.sampled_from(["news", "alert"]),
        campaign=NAMES,
        stage=NAMES,
        variant=NAMES,
        source=st.sampled_from(["x", "y"]),
        accepted_at=st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 22), timezones=st.just(UTC)),  # noqa: DTZ001
        state=st.sampled_from(MessageState),
        reason=st.sampled_from([None, "capped"]),
        held=st.lists(st.sampled_from(["retry", "night"]), max_size=2).map(tuple),
        text=st.sampled_from([None, "a" * 200]),
    ),
    max_size=30,
)
GROUPINGS = st.lists(st.sampled_from(By), unique=True, max_size=3).map(tuple)
TARGETS = (CLICKS, Target(Step.CONVERTED, "on", Step.CONVERTED, "in", 0.5, "news", "a", None))


@given(STORIES, GROUPINGS.filter(bool))
@settings(max_examples=examples(60), deadline=None)
def test_the_groups_together_are_the_whole(stories: list[Story], by: tuple[By, ...]) -> None:
    report = counted(stories, replace(QUESTION, by=by), {"text": twilio()}, TARGETS)
    found = [group.row for group in report.groups]
    for summed in ("counts", "states", "lost", "reached", "left", "cost"):
        together: Counter[Any] = Counter()
        for row in found:
            together.update(getattr(row, summed))
        whole = getattr(report.total, summed)
        assert {cell: number for cell, number in together.items() if number} == {c: n for c, n in whole.items() if n}
    for index, one in enumerate(report.total.targets):
        theirs = [other for row in found for other in row.targets if other.target == one.target]
        assert (sum(o.hits for o in theirs), sum(o.base for o in theirs)) == (one.hits, one.base), index
    persons = [row.persons for row in found] or [0]
    assert max(persons) <= report.total.persons <= sum(persons)


@given(STORIES)
@settings(max_examples=examples(60), deadline=None)
def test_no_step_is_larger_than_what_it_is_part_of(stories: list[Story]) -> None:
    total = counted(stories, targets=TARGETS).total
    counts = total.counts
    assert counts[Column.REQUESTED] == len(stories) == sum(total.states.values())
    assert counts[Column.SENT] + counts[Column.UNKNOWN] <= counts[Column.REQUESTED]
    assert counts[Column.DELIVERED] + counts[Column.UNDELIVERED] <= counts[Column.SENT]
    assert all(number <= counts[Column.CONVERTED] for number in total.reached.values())
    assert all(number <= counts[Column.REQUESTED] for number in counts.values())
    assert sum(total.lost.values()) <= counts[Column.REQUESTED] - 0
    for column in (Column.OPTED_OUT, Column.UNINSTALLED):
        assert sum(number for (left, _), number in total.left.items() if left is column) <= counts[column]
    assert all(share is None or 0 <= share <= 1 for share in total.shares.values())
    assert all(one.hits <= one.base for one in total.targets)


@given(STORIES, st.randoms(use_true_random=False))
@settings(max_examples=examples(30), deadline=None)
def test_it_does_not_matter_in_what_order_and_in_how_many_pages_they_come(stories: list[Story], chance: Any) -> None:
    counting = Counting(QUESTION, zone("UTC"), {}, TARGETS)
    mixed = chance.sample(stories, len(stories))
    for place in range(0, len(mixed), 7):
        counting.add(mixed[place : place + 7])
    assert described(counting.report(NOON)) == described(counted(stories, targets=TARGETS))


# ------------------------------------------------------------------------------------------------- as it is told to all


def told(**fields: Any) -> dict[str, Any]:
    """A report with something in every part."""
    clicked = (did(Act.OPENED), did(Act.CLICKED, after=7_300), did(Act.CONVERTED, stage="applied"))
    stories = [
        *[story(*clicked, person=str(n), tries=(attempt(AttemptState.DELIVERED),), **fields) for n in range(40)],
        *[story(did(Act.OPTED_OUT, band="6+"), did(Act.UNINSTALLED, band="3-5"), **fields)] * 2,
        *[story(tries=(), state=MessageState.REFUSED, reason="opted_out", **fields)] * 3,
        story(tries=(), state=MessageState.EXPIRED, reason="expires_at", held=("night",), **fields),
        story(tries=(), state=MessageState.WAITING, **fields),
    ]
    counting = Counting(QUESTION, zone("Asia/Tokyo"), {"text": priced(amount="1234.5")}, TARGETS)
    counting.add(stories)
    counting.add_unattributed(
        [Unattributed(Act.OPTED_OUT, None, "0", 1_234), Unattributed(Act.CONVERTED, "applied", None, 5)]
    )
    found: dict[str, Any] = orjson.loads(orjson.dumps(described(counting.report(NOON))))
    return found


def test_the_names_of_the_json_are_kept() -> None:
    report = told()
    assert list(report) == ["since", "until", "asked_at", "zone", "by", "category", "total", "groups", "unattributed"]
    assert (report["since"], report["by"]) == ("2026-11-15T12:00:00.000Z", ["campaign", "channel"])
    group = report["groups"][-1]
    assert group["key"] == {"campaign": "spring", "channel": "sms"}
    assert set(group) - {"key"} == set(report["total"])
    assert set(report["total"]) == {
        *("requested", "persons", "deferred", "sent", "delivered", "undelivered", "unknown", "opened", "answered"),
        *("clicked", "converted", "opted_out", "uninstalled", "machine_opened", "machine_answered", "machine_clicked"),
        *("reached", "states", "lost", "left", "shares", "median_seconds", "cost", "cost_per_conversion", "unpriced"),
        *("targets", "channels"),
    }
    total = report["total"]
    assert total["lost"] == {"refused": {"opted_out": 3}, "expired": {"night": 1}}
    assert total["left"]["opted_out"] == {"0": 0, "1-2": 0, "3-5": 0, "6+": 2}
    assert total["shares"]["clicked"] == {"of_sent": round(40 / 42, 6), "of_delivered": 1.0}
    assert total["shares"]["reached"]["applied"]["of_sent"] == round(40 / 42, 6)
    assert (total["cost"], total["cost_per_conversion"]) == ({"USD": "51849"}, {"USD": "1296.225"})
    assert total["median_seconds"] == {"to_open": 60.0, "to_click": 7300.0}
    assert report["unattributed"]["opted_out"] == 1234
    (clicks,) = total["targets"]
    assert {field: clicks[field] for field in ("step", "of", "at_least", "hits", "base", "verdict")} == {
        "step": "clicked",
        "of": "sent",
        "at_least": 0.2,
        "hits": 40,
        "base": 42,
        "verdict": "met",
    }


def test_where_one_category_is_asked_about_nobody_knows_what_belongs_to_no_message() -> None:
    assert described(counted([story()], replace(QUESTION, category="news")))["unattributed"] is None


def test_a_sheet_is_what_spreadsheets_read() -> None:
    report = told(campaign='a, "b"\nc')
    head, *body = csv.reader(StringIO(sheet(report)))
    assert head[:4] == ["campaign", "channel", "requested", "persons"]
    found = [dict(zip(head, cells, strict=True)) for cells in body]
    assert [(row["campaign"], row["channel"]) for row in found] == [('a, "b"\nc', "none"), ('a, "b"\nc', "sms")]
    assert (found[1]["clicked"], found[1]["cost USD"], found[1]["reached applied"]) == ("40", "51849", "40")
    assert found[0]["refused"] == "3"
    _, only = csv.reader(StringIO(sheet(report | {"by": [], "groups": []})))
    assert only[0] == "47"


MAIL = attempt(channel=Channel.EMAIL)
TEXT = attempt(channel=Channel.SMS)
CALL = attempt(channel=Channel.ROBOCALL)
ARRIVED, BOUNCED = AttemptState.DELIVERED, AttemptState.UNDELIVERED


@pytest.mark.parametrize(
    ("tries", "acts", "unknown"),
    [
        ([MAIL], (), {"delivered", "answered"}),
        ([replace(MAIL, state=BOUNCED)], (), {"delivered", "answered"}),  # vendors say what bounces, and no more
        ([replace(MAIL, state=ARRIVED)], (), {"answered"}),
        ([TEXT], (), {"delivered", "opened", "answered"}),
        ([replace(TEXT, state=BOUNCED)], (), {"opened", "answered"}),
        ([TEXT], (did(Act.OPENED),), {"delivered", "answered"}),  # an app told of it
        ([CALL], (), {"delivered", "opened", "clicked"}),
        ([MAIL, TEXT], (), {"delivered", "answered"}),
        ([TEXT, CALL], (), {"delivered", "opened"}),
        ([attempt(AttemptState.NOT_SENT)], (), {"delivered", "opened", "answered", "clicked"}),
    ],
)
@pytest.mark.parametrize("by", [(), (By.CAMPAIGN, By.STAGE)])
def test_what_nobody_can_know_is_no_zero_anywhere(
    tries: list[Try], acts: Sequence[Done], unknown: set[str], by: tuple[By, ...]
) -> None:
    stories = [story(*acts, tries=(one,)) for one in tries]
    report = described(counted(stories, replace(QUESTION, by=by)))
    for row in (report["total"], *report["groups"]):
        assert {word for word in ("delivered", "opened", "answered", "clicked", "converted") if row[word] is None} == (
            unknown
        )
        assert {word for word in unknown if row["shares"][word]["of_sent"] is not None} == set()
        assert row["machine_opened"] is None or "opened" not in unknown
    (found,) = csv.DictReader(StringIO(sheet(report)))
    assert {word for word in ("delivered", "opened", "answered", "clicked", "converted") if not found[word]} == unknown
    head, *_, last = rows(report)
    assert unknown.isdisjoint(head)
    assert "\N{EN DASH}" not in last[:-1]


def test_a_dash_is_where_a_group_is_of_what_nobody_sees() -> None:
    mixed = [story(tries=(TEXT,), stage="a"), story(did(Act.OPENED), tries=(MAIL,), stage="b")]
    head, *body = rows(described(counted(mixed, replace(QUESTION, by=(By.CAMPAIGN, By.STAGE)))))
    opened = head.index("opened")
    assert [cells[opened].replace("\xa0", " ") for cells in body] == ["\N{EN DASH}", "1 100 %", "1 50.0 %"]


def test_a_total_says_of_how_much_nobody_sees_opens() -> None:
    mixed = [story(tries=(TEXT,)), story(did(Act.OPENED), tries=(MAIL,))]
    said = "of 1 by sms nobody learns whether they were opened; in shares of sent they count as not opened"
    assert said in remarks(described(counted(mixed)))
    assert "Of 1 by sms nobody learns" in page(described(counted(mixed)))
    assert not any("nobody learns" in remark for remark in remarks(described(counted(mixed[1:]))))


@pytest.mark.parametrize("channel", [None, Channel.SMS])
def test_a_target_that_nobody_can_see_is_neither_met_nor_missed(channel: Channel | None) -> None:
    opens = Target(Step.OPENED, None, Step.SENT, None, 0.5, None, None, channel)
    mails = [story(did(Act.OPENED), tries=(MAIL,))] * (40 if channel else 0)
    total = described(counted([*mails, *[story(tries=(TEXT,))] * 40], targets=[opens]))["total"]
    (held,) = total["targets"]
    assert (held["hits"], held["share"], held["base"], held["verdict"]) == (None, None, 40, "too_few")
    assert words.telling(total) == []


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@a", "=HYPERLINK(1)"])
def test_no_name_becomes_a_formula(name: str) -> None:
    _, *body = csv.reader(StringIO(sheet(told(campaign=name))))
    assert {cells[0] for cells in body} == {f"'{name}"}


def test_a_table_leaves_out_what_says_nothing() -> None:
    head, *body = rows(told())
    assert head == [
        *("campaign", "channel", "requested", "sent", "delivered", "opened", "clicked", "converted"),
        *("in", "on", "applied", "opted out", "uninstalled", "cost"),
    ]
    assert body[-1][0] == "total"
    assert body[-1][2:5] == ["47", "42 89.4\xa0%", "40 95.2\xa0%"]
    assert body[0][:2] == ["spring", "never sent"]


def test_remarks_say_what_a_table_does_not_show() -> None:
    said = [remark.replace("\xa0", " ").replace("\u202f", " ") for remark in remarks(told())]
    assert "✓ clicked: at least 20 % of sent: met; 95.2 % of 42, between 84.2 % and 98.7 %" in said
    assert "✓ spring · sms: clicked: at least 20 % of sent: met; 95.2 % of 42, between 84.2 % and 98.7 %" in said
    assert "3 refused: opted out" in said
    assert "1 expired, last held by night" in said
    assert "1 under way" in said
    assert "2 opted out, by contacts in the week before: 0: 0, 1-2: 0, 3-5: 0, 6+: 2" in said
    assert "half of those that were clicked were within 2 h 1 min" in said
    assert "1 296.22 USD for each conversion" in said
    assert "1 234 more opted out in that time, which belongs to no message" in said


def test_what_failed_is_told_by_what_its_code_means_and_by_the_code() -> None:
    failed = story(tries=(attempt(AttemptState.UNREACHABLE),), state=MessageState.FAILED, reason="unreachable:smtp_550")
    said = [*remarks(described(counted([failed])))]
    assert said[0] == "1 failed: the relay knows no such mailbox (smtp_550)"


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50.0 %"),
        (0.00001, "<0.1 %"),
        (0.99999, ">99.9 %"),
        (0.1234, "12.3 %"),
    ],
)
def test_shares_are_never_rounded_to_all_or_nothing(share: float | None, said: str) -> None:
    assert words.percent(share).replace("\xa0", " ") == said


# ---------------------------------------------------------------------------------------------------------------- page


class Read(HTMLParser):
    """What a browser makes of a page: its elements with the names of their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
    st.lists(
        st.sampled_from(
            ["<script>", "</script>", "<!--", "-->", "]]>", '"', "'", "`", ">", "<", "&lt;", "&#0;", "&", "</title>",
             "</style>", " onload=", "<svg/onload=alert(1)>", "javascript:", "{{", "${", "\u202e", "é", "文"]
        ),
        min_size=1,
        max_size=4,
    ).map("".join),
)  # fmt: skip


@given(HOSTILE, HOSTILE)
@settings(max_examples=examples(60), deadline=None)
def test_whatever_names_say_the_page_is_the_same_page(campaign: str, stage: str) -> None:
    def shown(campaign: str, stage: str) -> Read:
        report = told(campaign=campaign)
        report["category"] = campaign
        for row in (report["total"], *report["groups"]):
            row["lost"]["failed"] = {stage: 1}
            row["reached"] = {stage: row["reached"]["applied"]}
            row["shares"]["reached"] = {stage: row["shares"]["reached"]["applied"]}
            row["targets"][:] = [held | {"campaign": campaign, "stage": stage} for held in row["targets"]]
        return Read(page(report))

    hostile = shown(campaign, stage)
    assert hostile.elements == shown("spring", "applied").elements
    assert campaign in hostile.text
    assert stage.replace("_", " ") in hostile.text


def test_a_page_needs_nothing_but_itself() -> None:
    text = page(told())
    read = Read(text)
    assert not {tag for tag, _ in read.elements} & {"script", "img", "link", "iframe", "object", "form", "a", "base"}
    assert not {
        name
        for _, names in read.elements
        for name in names
        if name.startswith("on") or name in ("style", "href", "src")
    }
    assert f"<style>{style()}</style>" in text
    assert "'unsafe" not in security()
    assert "url(" not in style().replace("url(#hatch)", "")


def test_a_page_says_what_the_report_says() -> None:
    report = told()
    text = Read(page(report)).text.replace("\xa0", " ").replace("\u202f", " ")
    for said in (
        "47",
        "for 41 persons",
        "89.4 % of requested",
        "to applied",
        "95.2 % of sent",
        "✓ met",
        "51 849.00 USD",
    ):
        assert said in text, said
    assert "15 November 2026, 21:00 to 22 November 2026, 21:00" in text
    assert "expired, last held by night" in text
    assert "1 234 more opted out in that time, which belongs to no message" in text


def test_a_target_says_of_what_it_is_where_the_share_beside_it_is_of_something_else() -> None:
    logged_in = Target(Step.CONVERTED, "in", Step.CLICKED, None, 0.8, None, None, None)
    stories = [*[story(did(Act.CLICKED), did(Act.CONVERTED, stage="in"))] * 30, *[story(did(Act.CLICKED))] * 30]
    text = Read(page(described(counted([*stories, *[story()] * 60], targets=[CLICKS, logged_in])))).text
    text = text.replace("\xa0", " ")
    assert "30 25.0 % of sent ✗ 50.0 %, target 80 % of clicked" in text
    assert "60 50.0 % of sent ✓ target 20 %" in text


def test_one_person_is_one_person() -> None:
    assert "for 1 person<" in page(described(counted([story()])))
    assert "for 2 persons<" in page(described(counted([story(), story(person="ben")])))


def test_a_page_about_nothing_says_so() -> None:
    assert "No message was accepted in that time" in page(described(counted([])))
