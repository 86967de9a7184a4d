"""Is a rule applied to as many persons as it says, always to the same ones, and only recorded for the others?"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, time, timedelta
from pathlib import Path

import pytest

from ratelimit import (
    Contact,
    FrequencyCap,
    Holidays,
    MinimumGap,
    QuietHours,
    Rule,
    SendWindow,
    Subject,
    closes,
    earliest,
    enforced,
    explain,
    zone,
)
from tests.unit.ratelimit_oracle import DAY, MINUTE, share, utc

ROOT = Path(__file__).parents[2]
TOKYO = zone("Asia/Tokyo")
PEOPLE = [f"person-{n}" for n in range(10_000)]
NOON = utc("2026-05-05T03:00")  # a holiday in Japan
HISTORY = [Contact(NOON - MINUTE, NOON - MINUTE, "sms", "news", None, TOKYO, "m")]


def subject(person: str) -> Subject:
    return Subject("sms", "news", None, (TOKYO,), TOKYO, person, 3)


def each(enforce: float, name: str = "rule") -> list[Rule]:
    """One of each kind, which all hold everybody back at noon."""
    return [
        FrequencyCap(name, 1, DAY, enforce=enforce),
        MinimumGap(name, DAY, enforce=enforce),
        QuietHours(name, time(11), time(13), enforce=enforce),
        SendWindow(name, ((time(19), time(21)),), enforce=enforce),
        Holidays(name, "JP", enforce=enforce),
    ]


def held(rule: Rule) -> set[str]:
    return {person for person in PEOPLE if not earliest(NOON, MINUTE, [rule], subject(person), HISTORY).allowed}


def test_at_0_nobody_is_held_and_at_100_everybody() -> None:
    for none, everybody in zip(each(0), each(100), strict=True):
        for person in PEOPLE[:200]:
            assert earliest(NOON, MINUTE, [none], subject(person), HISTORY).allowed
            assert not earliest(NOON, MINUTE, [everybody], subject(person), HISTORY).allowed


@pytest.mark.parametrize("percent", [1, 12.5, 50, 99])
def test_in_between_as_many_are_held_as_are_said(percent: float) -> None:
    found = held(FrequencyCap("canary", 1, DAY, enforce=percent))
    deviation = (len(PEOPLE) * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(len(found) - len(PEOPLE) * percent / 100) < 4 * deviation
    assert found == {person for person in PEOPLE if share(f"canary\x1f{person}") * 100 < percent}


def test_raising_the_percentage_keeps_whom_it_held() -> None:
    fewer, more = (held(FrequencyCap("canary", 1, DAY, enforce=percent)) for percent in (10, 30))
    assert fewer < more


def test_another_rule_s_canary_are_others() -> None:
    one, other = (held(FrequencyCap(name, 1, DAY, enforce=50)) for name in ("one", "other"))
    # independent: half of the half. The standard deviation of 10 000 draws at a quarter is 43.
    assert abs(len(one & other) - 2500) < 4 * 43


def test_every_kind_of_rule_has_the_same_canary_under_one_name() -> None:
    for person in PEOPLE[:200]:
        allowed = {earliest(NOON, MINUTE, [rule], subject(person), HISTORY).allowed for rule in each(50)}
        assert allowed == {share(f"rule\x1f{person}") * 100 >= 50}


def test_shadows_are_told_and_marked() -> None:
    rules = [rule for percent, name in ((100, "real"), (0, "shadow"), (50, "canary")) for rule in each(percent, name)]
    for person in PEOPLE[:20]:
        told = explain(NOON, MINUTE, rules, subject(person), HISTORY)
        assert [ruling.rule for ruling in told] == [rule.name for rule in rules]
        assert not any(ruling.permits for ruling in told)
        in_canary = share(f"canary\x1f{person}") * 100 < 50
        assert {(ruling.rule, ruling.enforced) for ruling in told} == {
            ("real", True),
            ("shadow", False),
            ("canary", in_canary),
        }
        assert enforced(rules[-1], person) == in_canary


def test_a_shadow_closes_nothing() -> None:
    open_at = datetime(2026, 11, 21, 10, 30, tzinfo=TOKYO)
    window = [((time(10), time(11)),), ((time(10), time(12)),)]
    tight, wide = (SendWindow(f"{n}", hours, enforce=100 * n) for n, hours in enumerate(window))
    assert closes(open_at, [tight, wide], subject("hana")) == open_at + 90 * MINUTE
    assert closes(open_at, [tight], subject("hana")) is None
    assert closes(open_at, [wide, FrequencyCap("cap", 1, DAY)], subject("hana")) == open_at + 90 * MINUTE


def test_other_processes_agree() -> None:
    program = """
from datetime import timedelta
from ratelimit import FrequencyCap, enforced
rule = FrequencyCap("canary", 1, timedelta(days=1), enforce=50)
print("".join(str(int(enforced(rule, f"person-{n}"))) for n in range(200)))
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert told == "".join(str(int(share(f"canary\x1fperson-{n}") < 0.5)) for n in range(200))


def test_a_share_of_nothing_is_nobody() -> None:
    assert not enforced(FrequencyCap("x", 1, timedelta(days=1), enforce=0), "")
    assert enforced(FrequencyCap("x", 1, timedelta(days=1)), "")
