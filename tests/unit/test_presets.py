"""Presets: each row against the table of the rules of the trade, written here a second time, and what it comes to."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from gateway import config
from gateway.config import presets
from gateway.message import Priority
from providers import Channel
from ratelimit import HORIZON, Subject, earliest, enforced, zone

if TYPE_CHECKING:
    from gateway.config import Config

CALLS = {"sms", "robocall"}
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def days(weekdays: str, saturday: str | None = None, sunday: str | None = None) -> dict[str, str]:
    """Of each day, where what is not said is as on the days before."""
    saturday = weekdays if saturday is None else saturday
    sunday = saturday if sunday is None else sunday
    return dict.fromkeys(EVERY_DAY[:5], weekdays) | {"sat": saturday, "sun": sunday}


AT_ANY_HOUR = days("0-24")

# Country, state, channels, hours by weekday, public holidays too, caps (limit, hours), what the source names, verified.
ROWS = {
    "us-marketing": ("US", None, CALLS, days("9-20", sunday="12-20"), False, [(3, 24)], "us-federal", False),
    "us-federal": ("US", None, CALLS, days("8-21"), False, [], "47 CFR 64.1200(c)(1)", False),
    "us-fl": ("US", "FL", CALLS, days("8-20"), False, [(3, 24)], "dnc.com", False),
    "us-ok": ("US", "OK", CALLS, days("8-20"), False, [(3, 24)], "dnc.com", False),
    "us-wa": ("US", "WA", CALLS, days("8-20"), False, [], "dinsmore.com", False),
    "us-md": ("US", "MD", CALLS, days("8-20"), False, [], "support.referrizer.com", False),
    "us-ms": ("US", "MS", CALLS, days("8-20"), False, [], "support.referrizer.com", False),
    "us-nj": ("US", "NJ", CALLS, days("8-20"), False, [], "support.referrizer.com", False),
    "us-ct": ("US", "CT", CALLS, days("9-20"), False, [], "support.referrizer.com", False),
    "us-tx": ("US", "TX", CALLS, days("9-21", sunday="12-21"), False, [], "support.referrizer.com", False),
    "us-ri": ("US", "RI", CALLS, days("9-18", "10-17"), False, [], "support.referrizer.com", False),
    "us-prerecorded": ("US", None, {"robocall"}, AT_ANY_HOUR, False, [(3, 30 * 24)], "88 FR 3668", True),
    "us-prerecorded-health": ("US", None, {"robocall"}, AT_ANY_HOUR, False, [(1, 24), (3, 7 * 24)], "FCC 22-100", True),
    "in-promotional": ("IN", None, {"sms"}, days("10-21"), False, [], "crm.smsgatewayhub.com", False),
    "cn-marketing": ("CN", None, {"sms"}, days("9-20"), False, [], "support.huaweicloud.com", True),
    "fr-marketing": ("FR", None, {"sms"}, days("8-20", sunday=""), True, [], "support.callr.com", False),
    "fr-marketing-voice": ("FR", None, {"robocall"}, days("10-13 14-20", ""), True, [], "from memory", False),
}
ZONES = {"US": "America/New_York", "IN": "Asia/Kolkata", "CN": "Asia/Shanghai", "FR": "Europe/Paris"}
MONDAY = datetime(2026, 11, 16)  # noqa: DTZ001 - on any wall; no public holiday follows within the week in any of them


def hours(opening: str) -> list[tuple[time, time]]:
    """Of ``10-13 14-20``; midnight at the end of a day is ``time(0)``."""
    pairs = [span.split("-") for span in opening.split()]
    return [(time(int(start)), time(int(end) % 24)) for start, end in pairs]


def parse(*used: dict[str, object], **policy: object) -> Config:
    document = {
        "providers": {"box": {"kind": "inbox"}},
        "routes": dict.fromkeys(["sms", "push", "robocall", "email"], "box"),
        "policy": {"timezone": "UTC", "categories": {"news": {}, "other": {}}, "presets": list(used)} | policy,
    }
    return config.parse(json.dumps(document), {}, base=Path())


def faults(*used: dict[str, object]) -> list[tuple[str, str]]:
    with pytest.raises(config.ConfigError) as caught:
        parse(*used)
    return [(fault.path, fault.problem) for fault in caught.value.faults]


def subject(name: str, **changes: object) -> Subject:
    country, _, channels, *_ = ROWS[name]
    own = zone(ZONES[country])
    told = {"country": country, "category": "news", "channel": min(channels)} | changes
    return Subject(campaign=None, zones=(own,), calendar=own, person="a", priority=int(Priority.BULK), **told)


def permitted(found: Config, at: datetime, of: Subject) -> bool:
    return earliest(at, timedelta(0), found.policy.all_rules, of, []).allowed


# ------------------------------------------------------------------------------------------------------------- the data


def test_there_are_these_presets() -> None:
    assert set(presets.known()) == set(ROWS)


def test_every_row_has_every_field() -> None:
    text = Path(presets.__file__).with_name("presets.yaml").read_text()
    fields = {"country", "state", "channels", "class", "hours", "holidays", "caps", "source", "checked", "verified"}

    assert {name: set(row) for name, row in yaml.safe_load(text).items()} == dict.fromkeys(ROWS, fields)


@pytest.mark.parametrize("name", ROWS)
def test_every_number_is_the_tables(name: str) -> None:
    country, state, channels, opening, on_holidays, caps, source, verified = ROWS[name]
    row = presets.known()[name]

    assert (row.country, row.state, set(row.channels), row.holidays) == (country, state, channels, on_holidays)
    assert [(cap.limit, cap.per) for cap in row.caps] == [(limit, timedelta(hours=per)) for limit, per in caps]
    assert source in row.source
    assert row.verified == verified
    assert row.purpose
    assert row.checked == "not checked" or isinstance(row.checked, date)
    minutes = row.allowed()
    for day, word in enumerate(EVERY_DAY):
        within = [minute for minute in range(1440) if minutes >> (day * 1440 + minute) & 1]
        spans = [range(start.hour * 60, end.hour * 60 or 1440) for start, end in hours(opening[word])]
        assert within == [minute for span in spans for minute in span]


def test_the_state_rows_are_all_stricter_than_federal_law() -> None:
    federal = presets.known()["us-federal"].allowed()

    for name, row in presets.known().items():
        if row.country == "US" and row.hours is not None:
            assert not row.allowed() & ~federal, name


# -------------------------------------------------------------------------------------------------------- what they do


@pytest.mark.parametrize("name", ROWS)
def test_the_rules_permit_the_tables_hours_and_no_others(name: str) -> None:
    opening = ROWS[name][3]
    found = parse({"preset": name, "category": "news"})
    there = zone(ZONES[ROWS[name][0]])

    for step in range(7 * 24 * 4):
        wall = MONDAY + timedelta(minutes=15 * step)
        spans = hours(opening[EVERY_DAY[wall.weekday()]])
        is_open = any(start <= wall.time() and (wall.time() < end or end == time(0)) for start, end in spans)
        assert permitted(found, wall.replace(tzinfo=there).astimezone(UTC), subject(name)) == is_open, wall


def test_a_preset_holds_for_its_categories_channels_and_country_alone() -> None:
    found = parse({"preset": "us-marketing", "category": "news"})
    night = datetime(2026, 11, 18, 3, tzinfo=UTC)  # 22:00 in New York

    assert not permitted(found, night, subject("us-marketing"))
    assert not permitted(found, night, subject("us-marketing", country=None)), "it may be an American"
    assert permitted(found, night, subject("us-marketing", country="CA"))
    assert permitted(found, night, subject("us-marketing", category="other"))
    assert permitted(found, night, subject("us-marketing", channel="email"))


def test_french_holidays_are_quiet() -> None:
    found = parse({"preset": "fr-marketing", "category": "news"})

    for day, is_open in ((10, True), (11, False), (12, True)):  # the armistice of 1918
        noon = datetime(2026, 11, day, 11, tzinfo=UTC)
        assert permitted(found, noon, subject("fr-marketing")) == is_open


def test_presets_hold_together() -> None:
    found = parse({"preset": "us-marketing", "category": "news"}, {"preset": "us-ri", "category": "news"})
    saturday = zone("America/New_York")

    for hour, is_open in ((9, False), (10, True), (16, True), (17, False), (19, False)):
        at = datetime(2026, 11, 21, hour, 30, tzinfo=saturday).astimezone(UTC)
        assert permitted(found, at, subject("us-marketing")) == is_open, hour


def test_a_caps_scope_is_the_campaign() -> None:
    (cap,) = parse({"preset": "us-fl", "category": "news", "label": {"state": "FL"}}).policy.caps

    assert (cap.name, cap.limit, cap.scope) == ("us-fl-24h", 3, {"campaign"})
    assert cap.only.labels == (("state", frozenset({"FL"})),)
    assert cap.only.channels == {Channel.SMS, Channel.ROBOCALL}


def test_rules_are_named_by_their_preset_and_are_enforced_as_asked() -> None:
    used = {"preset": "us-tx", "category": "news", "name": "trial", "enforce": "0%", "override": True}
    found = parse({"preset": "us-tx", "category": "news"}, used, {"preset": "fr-marketing-voice", "category": "news"})

    names = [rule.name for rule in found.policy.all_rules]
    assert names == [
        "us-tx-sunday-to-friday-nights",
        "us-tx-saturday-night",
        "us-tx-trial-sunday-to-friday-nights",
        "us-tx-trial-saturday-night",
        "fr-marketing-voice-monday-to-friday",
        "fr-marketing-voice-sunday-to-thursday-nights",
        "fr-marketing-voice-saturday-to-sunday",
        "fr-marketing-voice-holidays",
    ]
    assert [enforced(rule, "a") for rule in found.policy.all_rules] == [
        True,
        True,
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    assert max(found.policy.longest_window, timedelta(0)) < HORIZON


def test_hours_that_begin_on_the_same_days_are_told_apart_by_their_beginning() -> None:
    breaks = {"daily": ["08:00-12:00", "13:30-17:15", "18:00-20:45"]}
    found = parse({"preset": "us-federal", "category": "news", "hours": breaks})

    assert [(rule.name, rule.start, rule.end) for rule in found.policy.quiet_hours] == [
        ("us-federal-daily", time(12), time(13, 30)),
        ("us-federal-daily-1715", time(17, 15), time(18)),
        ("us-federal-night", time(20, 45), time(8)),
    ]


SHORTER_SUNDAY = {"hours": {"sunday": "13:00-18:00"}}


@pytest.mark.parametrize(
    ("more", "day", "name"),
    [
        (SHORTER_SUNDAY, "2026-11-20T22:00", "us-marketing-monday-to-friday-nights"),  # a Friday
        (SHORTER_SUNDAY, "2026-11-22T12:30", "us-marketing-saturday-night"),  # which lasts until Sunday's 13:00
        (SHORTER_SUNDAY, "2026-11-22T18:30", "us-marketing-sunday-night"),
        ({"hours": {"sunday": []}}, "2026-11-22T12:30", "us-marketing-sunday"),
        ({"hours": {"daily": "00:00-20:00"}, "override": True}, "2026-11-22T22:00", "us-marketing-daily"),
    ],
)
def test_quiet_hours_are_named_by_the_days_that_they_keep_or_by_their_nights(
    more: dict[str, object], day: str, name: str
) -> None:
    found = parse({"preset": "us-marketing", "category": "news"} | more)
    there = zone("America/New_York")
    at = datetime.fromisoformat(day).replace(tzinfo=there).astimezone(UTC)

    quiet = [
        rule.name
        for rule in found.policy.quiet_hours
        if not earliest(at, timedelta(0), [rule], subject("us-marketing"), []).allowed
    ]
    assert quiet == [name]


# ---------------------------------------------------------------------------------------------------- stricter, looser


STRICTER = [
    {"hours": {"daily": "10:00-18:00", "sunday": "13:00-18:00"}},
    {"hours": {"weekdays": ["10:00-12:00", "14:00-16:00"], "sunday": []}},
    {"limit": 2},
    {"limit": 3, "hours": {"saturday": "09:00-20:00"}},
    {"channel": ["sms", "robocall", "push"]},
]


@pytest.mark.parametrize("more", STRICTER, ids=map(str, STRICTER))
def test_a_preset_can_be_made_stricter_and_nothing_is_said_of_it(more: dict[str, object]) -> None:
    found = parse({"preset": "us-marketing", "category": "news"} | more)

    assert [fault.path for fault in found.warnings] == ["policy.presets[0].preset"]  # that it is not verified


def test_stricter_hours_and_limits_hold() -> None:
    stricter = {"hours": {"daily": "10:00-18:00", "sunday": []}, "limit": 1}
    found = parse({"preset": "us-marketing", "category": "news"} | stricter)
    there = zone("America/New_York")

    for day, hour, is_open in ((16, 9, False), (16, 10, True), (16, 18, False), (22, 13, False), (23, 10, True)):
        at = datetime(2026, 11, day, hour, 30, tzinfo=there).astimezone(UTC)
        assert permitted(found, at, subject("us-marketing")) == is_open
    assert [cap.limit for cap in found.policy.caps] == [1]


LOOSER = [
    ("us-marketing", {"hours": "10:00-18:00"}, "hours", "allows sunday 10:00-12:00"),
    ("us-marketing", {"hours": {"monday": "08:59-20:00"}}, "hours", "allows monday 08:59-09:00"),
    ("us-federal", {"hours": "20:00-22:00"}, "hours", "allows monday 21:00-22:00, tuesday 21:00-22:00 and 5 more"),
    ("fr-marketing", {"hours": {"sunday": "10:00-12:00"}}, "hours", "allows sunday 10:00-12:00"),
    ("us-marketing", {"limit": 4}, "limit", "allows 4, where us-marketing allows 3"),
    ("us-marketing", {"enforce": "99.5%", "since": "2026-11-01"}, "enforce", "leaves out 0.5% of the persons"),
    ("us-marketing", {"channel": "sms"}, "channel", "leaves out robocall"),
    ("us-marketing", {"label": {"team": "growth"}}, "label", "leaves out messages without team as named"),
]


@pytest.mark.parametrize(("name", "more", "key", "loss"), LOOSER, ids=[str(more) for _, more, *_ in LOOSER])
def test_loosening_a_preset_must_be_meant_and_is_told(name: str, more: dict[str, object], key: str, loss: str) -> None:
    used = {"preset": name, "category": "news"} | more

    ((path, problem),) = faults(used)
    assert path == f"policy.presets[0].{key}"
    assert loss in problem
    assert "override: true" in problem
    source = presets.known()[name].source
    (warning,) = (w for w in parse(used | {"override": True}).warnings if w.path == f"policy.presets[0].{key}")
    assert warning.problem.startswith(f"loosens {name} by override")
    assert loss in warning.problem
    assert source in warning.problem


def test_an_override_that_loosens_nothing_is_told() -> None:
    found = parse({"preset": "cn-marketing", "category": "news", "hours": "10:00-12:00", "override": True})

    assert [(fault.path, "remove it" in fault.problem) for fault in found.warnings] == [
        ("policy.presets[0].override", True)
    ]


def test_plain_hours_open_no_day_that_the_preset_keeps_shut() -> None:
    found = parse({"preset": "fr-marketing", "category": "news", "hours": "10:00-12:00"})
    sunday = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)

    assert not permitted(found, sunday, subject("fr-marketing"))
    assert permitted(found, sunday + timedelta(days=1), subject("fr-marketing"))


MISFITS = [
    ({"preset": "us-marketting"}, "preset", "did you mean us-marketing?"),
    ({"preset": "us-marketing", "category": "nwes"}, "category", "did you mean news?"),
    ({"preset": "us-marketing", "category": []}, "category", "at least 1"),
    ({"preset": "us-federal", "limit": 3}, "limit", "has no cap; write a stricter one under policy.caps"),
    ({"preset": "us-prerecorded-health", "limit": 1}, "limit", "has several caps"),
    ({"preset": "us-prerecorded", "hours": "09:00-10:00"}, "hours", "write them under policy.quiet_hours"),
    ({"preset": "us-marketing", "hours": {"daily": []}}, "hours", "nothing would ever be sent"),
    ({"preset": "us-marketing", "hours": {"mondy": "09:00-10:00"}}, "hours.mondy", "did you mean monday?"),
    ({"preset": "us-marketing", "hours": "9-10"}, "hours", '"11:00-12:00"'),
    ({"preset": "us-marketing", "override": "yes"}, "override", "true or false"),
]


@pytest.mark.parametrize(("used", "key", "phrase"), MISFITS, ids=[phrase for *_, phrase in MISFITS])
def test_what_does_not_fit_a_preset_is_a_fault(used: dict[str, object], key: str, phrase: str) -> None:
    ((path, problem),) = faults({"category": "news"} | used)

    assert path == f"policy.presets[0].{key}"
    assert phrase in problem


def test_the_same_preset_twice_needs_a_name() -> None:
    used = {"preset": "us-marketing", "category": "news"}

    assert {problem for _, problem in faults(used, used)} == {"is used twice: choose another"}
    assert parse(used, used | {"name": "again"})


def test_what_is_not_verified_says_so_with_its_source_and_what_is_does_not() -> None:
    (warning,) = parse({"preset": "us-ri", "category": "news"}).warnings

    assert (warning.path, warning.line) == ("policy.presets[0].preset", 1)
    assert "us-ri has not been verified" in warning.problem
    assert "support.referrizer.com" in warning.problem
    assert not parse({"preset": "us-prerecorded", "category": "news"}).warnings


@pytest.mark.parametrize(("preset", "country"), [("us-federal", "PR"), ("us-federal", "GU"), ("fr-marketing", "RE")])
def test_a_countrys_rules_hold_where_its_numbers_have_a_code_of_their_own(preset: str, country: str) -> None:
    (hours, *_) = parse({"preset": preset, "category": "news"}).policy.quiet_hours
    assert country in hours.only.countries
