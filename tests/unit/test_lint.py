"""The lint: each planted fault is found where it was planted, and nothing is found in a good policy."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.config import ConfigError
from gateway.message import Priority
from providers import Channel
from ratelimit import Subject, earliest, zone

if TYPE_CHECKING:
    from gateway.config import Config, Fault

TODAY = date(2026, 11, 22)
HERE = "# <-"
"""Marks the line in which a fault is planted."""

FILE = """
providers: {box: {kind: inbox}}
routes: {sms: [box], push: [box], email: [box]}
policy:
  timezone: UTC
"""
CATEGORIES = """
  categories:
    codes: {priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m}
    receipts: {priority: high, quiet_hours: exempt}
    news: {priority: bulk, channels: [sms, push], expires_after: 7d}
"""


def written(policy: str) -> str:
    return FILE + ("" if "categories:" in policy else CATEGORIES) + policy


def parse(text: str) -> Config:
    return config.parse(text, {}, base=Path(), today=TODAY)


def report(text: str) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    try:
        return (), parse(text).warnings
    except ConfigError as error:
        return error.faults, error.warnings


def told_of_urls(public_url: str, url: str, channel: str = "email") -> list[str]:
    found = parse(
        f"http: {{public: 127.0.0.1:8081, public_url: '{public_url}'}}\n"
        f"providers: {{box: {{kind: http, channels: [{channel}], url: '{url}', body: {{}}}}}}\n"
        f"routes: {{{channel}: [box]}}\npolicy: {{timezone: UTC, categories: {{news: {{}}}}}}\n"
    )
    assert all("write https://" in warning.problem for warning in found.warnings)
    return [warning.path for warning in found.warnings]


@pytest.mark.parametrize("host", ["m.example.com", "8.8.8.8", "[2606:4700::1111]", "10.0.0.7", "box"])
def test_a_public_url_without_tls_costs_mails_their_one_click(host: str) -> None:
    assert told_of_urls(f"http://{host}:8081/a", "https://v.example") == ["http.public_url"]
    assert told_of_urls(f"http://{host}:8081/a", "https://v.example", "sms") == []
    assert told_of_urls(f"https://{host}:8081/a", "https://v.example") == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_whoever_tries_it_out_on_this_machine_is_not_warned(host: str) -> None:
    assert told_of_urls(f"http://{host}:8081", f"http://{host}/send") == []


@pytest.mark.parametrize(
    ("host", "near"),
    [
        *(("v.example.com", False), ("8.8.8.8", False), ("[2606:4700::1111]", False), ("local.example.com", False)),
        *(("10.0.0.7", True), ("192.168.1.1", True), ("[fd00::1]", True), ("vendor", True), ("v.internal", True)),
        *(("v.local.", True), ("v.home.arpa", True)),
    ],
)
def test_a_vendor_without_tls_may_only_be_near(host: str, near: bool) -> None:
    found = told_of_urls("https://m.example.com", f"http://{host}:9000/send")
    assert found == ([] if near else ["providers.box.url"])


ERROR, WARNING = "error", "warning"
NIGHT = """
  quiet_hours:
    - {name: night, from: "21:00", to: "08:00"}
"""

PLANTED = [
    # --------------------------------------------------------------------------------------------------- dead rules
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, category: codes} # <-
""",
        "policy.caps[0].category",
        ERROR,
        "codes, exempt from caps: take the exemption away, or name other categories",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, category: [codes, news]} # <-
""",
        "policy.caps[0].category",
        WARNING,
        "leave out codes",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "21:00", to: "08:00", category: [codes, receipts]} # <-
""",
        "policy.quiet_hours[0].category",
        ERROR,
        "exempt from quiet hours: take the exemption away",
    ),
    (
        """
  presets:
    - preset: cn-marketing
      category: [receipts, news] # <-
""",
        "policy.presets[0].category",
        ERROR,
        "the preset cn-marketing has no say about receipts, exempt from quiet hours: take the exemption away",
    ),
    (
        """
  presets:
    - {preset: us-prerecorded-health, category: [receipts, codes]} # <-
""",
        "policy.presets[0].category",
        ERROR,
        "the preset us-prerecorded-health has no say about codes, exempt from caps: take the exemption away",
    ),
    (
        """
  presets:
    - {preset: us-marketing, category: [news, codes]} # <-
""",
        "policy.presets[0].category",
        ERROR,
        "the preset us-marketing has no say about codes, exempt from caps and quiet hours: take the exemption away",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, channel: robocall} # <-
""",
        "policy.caps[0].channel",
        WARNING,
        "no route for robocall; add one, or remove the rule",
    ),
    (
        """
  minimum_gap:
    - {name: a, gap: 2h, channel: email, category: news} # <-
""",
        "policy.minimum_gap[0].channel",
        WARNING,
        "no category that must obey it goes by email; name others, or remove it",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, channel: [email, robocall], category: news} # <-
""",
        "policy.caps[0].channel",
        WARNING,
        "no category that must obey it goes by email or robocall",
    ),
    (
        """
  categories: {codes: {priority: critical, caps: exempt}}
  caps:
    - {name: a, limit: 1, per: 24h} # <-
""",
        "policy.caps[0]",
        WARNING,
        "exempt from caps: remove the rule, or an exemption",
    ),
    # -------------------------------------------------------------------------------------------- limits never met
    (
        """
  caps:
    - {name: strict, limit: 3, per: 24h}
    - {name: loose, limit: 5, per: 24h} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "'strict' lets no more than 3 through in 24h as it is; lower it below 3, or remove 'loose'",
    ),
    (
        """
  caps:
    - {name: weekly, limit: 14, per: week} # <-
    - {name: daily, limit: 2, per: 24h}
""",
        "policy.caps[0].limit",
        WARNING,
        "'daily' lets no more than 14 through a week as it is; lower it below 14",
    ),
    (
        """
  caps:
    - {name: days, limit: 2, per: day}
    - {name: weekly, limit: 16, per: 7d} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "no more than 16",  # eight calendar days have a part in seven days
    ),
    (
        """
  caps:
    - {name: all, limit: 4, per: month}
    - {name: by-campaign, limit: 4, per: week, scope: campaign, channel: sms} # <-
    - {name: in-a-week, limit: 8, per: week, scope: campaign, channel: push} # <-
""",
        "policy.caps[2].limit",
        WARNING,
        "'all' lets no more than 8 through",  # a week may lie in two months
    ),
    (
        """
  caps:
    - {name: all, limit: 3, per: 24h}
    - {name: one-campaign, limit: 3, per: 24h, scope: campaign} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "'all' lets no more than 3 through in 24h as it is",
    ),
    (
        """
  caps:
    - {name: one, limit: 1, per: 24h, channel: sms}
    - {name: two, limit: 1, per: 1d, channel: [sms]} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "narrow the other, or remove 'two'",
    ),
    (
        """
  caps:
    - {name: all, limit: 3, per: 24h}
    - {name: kept, limit: 5, per: 24h, reserve: {high: 2}} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "lower it below 5",  # the least urgent see three places
    ),
    (
        """
  caps:
    - {name: some, limit: 3, per: 24h, label: {team: [x, y]}, country: [FR, JP]}
    - {name: fewer, limit: 3, per: 24h, label: {team: x, kind: z}, country: FR} # <-
    - {name: as-many, limit: 4, per: 24h, label: {team: [y, x]}, country: [JP, FR]} # <-
""",
        "policy.caps[2].limit",
        WARNING,
        "'some' lets no more than 3 through",
    ),
    (
        """
  caps:
    - {name: real, limit: 2, per: 24h}
    - {name: trial, limit: 2, per: 24h, enforce: 0%, since: 2026-11-20} # <-
""",
        "policy.caps[1].limit",
        WARNING,
        "remove 'trial'",
    ),
    (
        """
  caps:
    - {name: hourly, limit: 12, per: 24h} # <-
  minimum_gap: 2h
""",
        "policy.caps[0].limit",
        WARNING,
        "'minimum_gap' lets no more than 12 through in 24h as it is; lower it below 12",
    ),
    (
        """
  caps: [{name: daily, limit: 1, per: 24h}]
  minimum_gap: 2h # <-
""",
        "policy.minimum_gap.gap",
        WARNING,
        "'daily' lets no more than 1 through in 2h as it is; lengthen it",
    ),
    (
        """
  minimum_gap:
    - {name: long, gap: 4h}
    - {name: short, gap: 1h, channel: sms} # <-
""",
        "policy.minimum_gap[1].gap",
        WARNING,
        "lengthen it, or remove 'short'",
    ),
    (
        """
  caps:
    - {name: a, limit: 9, per: 7d, scope: [channel, labels.team], channel: sms, label: {team: x}} # <-
""",
        "policy.caps[0].scope",
        WARNING,
        "leave channel and labels.team out of the scope",
    ),
    # ------------------------------------------------------------------------------------------------------ reserve
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, reserve: {high: 1}} # <-
""",
        "policy.caps[0].reserve",
        ERROR,
        "keep fewer, or raise the limit",
    ),
    (
        """
  caps:
    - {name: a, limit: 9, per: 24h, reserve: {bulk: 1}} # <-
""",
        "policy.caps[0].reserve",
        WARNING,
        "nothing is less urgent: remove it",
    ),
    (
        """
  caps:
    - {name: a, limit: 9, per: 24h, reserve: {critical: 1}} # <-
""",
        "policy.caps[0].reserve",
        WARNING,
        "no category that the cap is for is so urgent: name a lower priority, or remove it",
    ),
    (
        """
  caps:
    - {name: a, limit: 9, per: 24h, category: receipts, reserve: {high: 1}} # <-
""",
        "policy.caps[0].reserve",
        WARNING,
        "no category that the cap is for is less urgent: remove it",
    ),
    # -------------------------------------------------------------------------------------------------- never open
    (
        """
  quiet_hours:
    - {name: night, from: "21:00", to: "08:00"}
  send_windows:
    - {name: late, channel: sms, hours: ["21:00-24:00", "05:00-07:00"]} # <-
""",
        "policy.send_windows[0].hours",
        ERROR,
        "'night' and 'late' together leave no time open, so sms of news could never be sent: let their hours overlap",
    ),
    (
        """
  send_windows:
    - {name: noon, channel: sms, hours: "11:00-13:00"} # <-
    - {name: evening, category: news, hours: "18:00-21:00"}
""",
        "policy.send_windows[0].hours",
        ERROR,
        "'noon' and 'evening' together have no hours in common, so sms of news could never be sent",
    ),
    (
        """
  send_windows:
    - {name: working, hours: "09:00-18:00", days: weekdays} # <-
  quiet_hours:
    - {name: office, from: "00:00", to: "24:00", days: [monday, tuesday, wednesday, thursday]}
    - {name: friday, from: "06:00", to: "20:00", days: friday}
""",
        "policy.send_windows[0].hours",
        ERROR,
        "'office', 'friday' and 'working' together leave no time open, so sms of news and push of news could never",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "12:00", to: "24:00", label: {team: [x, y]}} # <-
    - {name: b, from: "00:00", to: "12:00"}
""",
        "policy.quiet_hours[0]",
        ERROR,
        "'a' and 'b' together leave no time open",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "11:00", to: "24:00", country: FR} # <-
    - {name: b, from: "00:00", to: "12:00", country: JP}
""",
        "policy.quiet_hours[0]",
        WARNING,
        "could never be sent to persons whose country is not known",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "21:00", to: "21:00"} # <-
""",
        "policy.quiet_hours[0].to",
        ERROR,
        "change one, or add days",
    ),
    (
        """
  send_windows:
    - {name: a, hours: ["10:00-12:00", "15:00-15:04"]} # <-
worker: {attempt: 4m}
""",
        "policy.send_windows[0].hours",
        ERROR,
        "has hours at 15:00 that last 4m, in which nothing can be sent, for an attempt takes 240s",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "21:00", to: "20:56"} # <-
worker: {attempt: 4m}
""",
        "policy.quiet_hours[0].to",
        ERROR,
        "leaves no time to send, for an attempt takes 240s (worker.attempt): shorten these hours",
    ),
    # ------------------------------------------------------------------------------------------------ hardly meant
    (
        """
  send_windows:
    - {name: a, hours: ["11:00-12:00", "19:00-20:00"], release_over: 1h} # <-
""",
        "policy.send_windows[0].release_over",
        ERROR,
        "shorter than each of the hours, and one lasts 1h: lower it, or lengthen them",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "12:00", to: "08:00", release_over: 4h} # <-
""",
        "policy.quiet_hours[0].release_over",
        WARNING,
        "is more than half of the 4h until it is quiet again, so the last would hear late",
    ),
    (
        """
  quiet_hours:
    - {name: a, from: "21:00", to: "08:00", release_over: 12h} # <-
""",
        "policy.quiet_hours[0].release_over",
        WARNING,
        "would hear late and have little time left: lower it to 6h30m at most",
    ),
    (
        """
  quiet_hours:
    - {name: swapped, from: "08:00", to: "21:00"} # <-
""",
        "policy.quiet_hours[0].from",
        WARNING,
        "exchange from and to",
    ),
    (
        """
  quiet_hours:
    - {name: swapped, from: "08:00", to: "21:00", days: weekdays} # <-
""",
        "policy.quiet_hours[0].from",
        WARNING,
        "is quiet all day and loud at night: exchange from and to",
    ),
    (
        """
  send_windows:
    - {name: a, hours: ["07:00-09:00", "13:00-11:00"]} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "has 13:00-11:00, which ends before it begins and so runs over midnight, for 22h: exchange them, 11:00-13:00",
    ),
    (
        """
  send_windows:
    - {name: a, hours: ["20:00-10:00"]} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "runs over midnight, for 14h: exchange them, 10:00-20:00",
    ),
    (
        """
  send_windows:
    - {name: a, hours: ["06:00-09:00", "20:00-07:00"]} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "runs over midnight, for 11h: exchange them, 07:00-20:00",
    ),
    (
        """
  send_windows:
    - {name: a, hours: ["08:00-14:00", "13:00-09:00"]} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "runs over midnight, for 20h: exchange them, 09:00-13:00",  # and not that it is open at any time
    ),
    (
        f"""{NIGHT}
    - {{name: late, from: "22:00", to: "23:00", channel: sms, enforce: 0%, since: 2026-11-20}} {HERE}
""",
        "policy.quiet_hours[1]",
        WARNING,
        "'night' already holds everything that it would; remove it",
    ),
    (
        f"""{NIGHT}
    - {{name: again, from: "21:00", to: "08:00", category: news}} {HERE}
""",
        "policy.quiet_hours[1]",
        WARNING,
        "'night' already holds everything that it would; remove it",
    ),
    (
        f"""{NIGHT}
  send_windows:
    - {{name: a, channel: sms, hours: ["10:00-12:00", "21:00-23:00"]}} {HERE}
""",
        "policy.send_windows[0].hours",
        WARNING,
        "has 21:00-23:00, closed by 'night': move or remove these hours",
    ),
    (
        """
  send_windows:
    - {name: a, channel: sms, hours: ["10:00-12:00", "11:30-14:00"]} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "overlap: write them as one",
    ),
    (
        """
  send_windows:
    - {name: a, channel: sms, hours: "00:00-24:00"} # <-
""",
        "policy.send_windows[0].hours",
        WARNING,
        "open at any time, it holds nothing back: shorten or remove it",
    ),
    (
        """
  holidays:
    - {name: a, country: FR}
    - {name: b, country: FR, channel: sms} # <-
""",
        "policy.holidays[1]",
        WARNING,
        "'a' has the same holidays for as many: remove one",
    ),
    (
        """
  holidays:
    - {name: a, country: FR, person_country: JP} # <-
""",
        "policy.holidays[0].person_country",
        WARNING,
        "persons of JP to the holidays of FR: is person_country wrong?",
    ),
    # ---------------------------------------------------------------------------------------------------- on trial
    (
        """
  caps:
    - name: a
      limit: 1
      per: 24h
      enforce: 10% # <-
""",
        "policy.caps[0].enforce",
        WARNING,
        "nobody knows for how long: add since: 2026-11-22",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, enforce: 0%, since: 2026-10-22} # <-
""",
        "policy.caps[0].since",
        WARNING,
        "was 31 days ago and the rule is still in shadow: enforce it, or remove it",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, enforce: 25%, since: 2026-11-23} # <-
""",
        "policy.caps[0].since",
        WARNING,
        "lies ahead of 2026-11-22: write the day on which the trial began",
    ),
    (
        """
  caps:
    - {name: a, limit: 1, per: 24h, since: 2026-11-01} # <-
""",
        "policy.caps[0].since",
        WARNING,
        "it is enforced for all: remove it",
    ),
    # -------------------------------------------------------------------------------------------------- categories
    (
        """
  categories:
    news: {channels: robocall} # <-
""",
        "policy.categories.news.channels",
        ERROR,
        "has no route to go by (robocall): add one under routes, or a channel",
    ),
    (
        """
  categories:
    news: {channels: [sms, robocall]} # <-
""",
        "policy.categories.news.channels",
        WARNING,
        "no route goes by robocall: add one under routes, or leave robocall out",
    ),
    (
        """
  caps: [{name: a, limit: 1, per: 24h}]
  categories:
    news: {channels: [sms], when_capped: next_channel} # <-
""",
        "policy.categories.news.when_capped",
        WARNING,
        "messages go by sms alone: add a channel with a route",
    ),
    (
        """
  categories:
    news: {channels: [sms], repeat_after: 5m} # <-
""",
        "policy.categories.news.repeat_after",
        WARNING,
        "without on_unknown: repeat: add that, or remove it",
    ),
    (
        """
  categories:
    codes: {priority: critical, caps: exempt, when_capped: drop} # <-
""",
        "policy.categories.codes.when_capped",
        WARNING,
        "it is exempt from caps: remove it",
    ),
    (
        """
  categories:
    news: {collapse: newest} # <-
""",
        "policy.categories.news.collapse",
        WARNING,
        "no rule makes these messages wait: remove it",
    ),
    (
        """
  categories:
    news:
      priority: bulk
      quiet_hours: exempt # <-
""",
        "policy.categories.news.quiet_hours",
        WARNING,
        "bulk messages that nothing holds back annoy people",
    ),
    (
        f"""
  categories:
    news: {{expires_after: 11h}} {HERE}
{NIGHT}""",
        "policy.categories.news.expires_after",
        WARNING,
        "is no longer than the 11h in which rules let nothing through",
    ),
    (
        """
  categories:
    news: {channels: sms, expires_after: 12h} # <-
  send_windows: [{hours: ["11:00-12:00", "19:00-21:00"], days: weekdays}]
""",
        "policy.categories.news.expires_after",
        WARNING,
        "is no longer than the 62h",  # from Friday 21:00 to Monday 11:00
    ),
    (
        """
  categories:
    news: {channels: [sms, email], expires_after: 10h} # <-
  quiet_hours: [{name: night, channel: sms, from: "20:00", to: "08:00"}]
""",
        "policy.categories.news.expires_after",
        WARNING,
        "is no longer than the 12h in which rules let nothing through",
    ),
    (
        """
  categories:
    news: {expires_after: 2h} # <-
  minimum_gap: 2h
""",
        "policy.categories.news.expires_after",
        WARNING,
        "is no longer than 'minimum_gap', 2h",
    ),
    (
        """
  categories:
    codes: {expires_after: 10s} # <-
""",
        "policy.categories.codes.expires_after",
        WARNING,
        "leaves no time to send, for an attempt takes 10s (worker.attempt): lengthen it",
    ),
    # ----------------------------------------------------------------------------------------------------- presets
    (
        """
  presets:
    - {preset: us-marketing, category: news} # <-
""",
        "policy.presets[0].preset",
        WARNING,
        "has not been verified: compare its hours and numbers with the law",
    ),
    (
        """
  presets:
    - preset: cn-marketing
      category: news
      hours: "08:00-20:00" # <-
""",
        "policy.presets[0].hours",
        ERROR,
        "tighten it, or add override: true to loosen the preset knowingly",
    ),
    (
        """
  presets:
    - {preset: cn-marketing, category: news, hours: "08:00-20:00", override: true} # <-
""",
        "policy.presets[0].hours",
        WARNING,
        "loosens cn-marketing by override: it allows monday 08:00-09:00",
    ),
]


@pytest.mark.parametrize(("policy", "path", "severity", "phrase"), PLANTED, ids=[f"{p}: {w}" for _, p, _, w in PLANTED])
def test_a_planted_fault_is_found_in_its_line_with_its_remedy(
    policy: str, path: str, severity: str, phrase: str
) -> None:
    text = written(policy)
    errors, warnings = report(text)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if HERE in line]

    found = [fault for fault in (errors if severity == ERROR else warnings) if fault.path == path]
    assert [fault.line for fault in found] == marked[-1:]
    assert phrase in found[0].problem
    if severity == WARNING:
        assert not errors
    elsewhere = {fault.line for fault in (*errors, *warnings)} - set(marked)
    assert not elsewhere


def test_there_are_many_planted_faults_of_both_kinds() -> None:
    assert len(PLANTED) >= 25
    assert {severity for _, _, severity, _ in PLANTED} == {ERROR, WARNING}


def test_a_fault_of_the_forms_keeps_the_lint_from_guessing_further() -> None:
    text = written("""
  caps:
    - {name: a, limit: 5, per: 24h}
    - {name: b, limit: 0, per: 24h}
    - {name: c, limit: 3, per: 24h}
""")

    errors, warnings = report(text)

    assert [fault.path for fault in errors] == ["policy.caps[1].limit"]
    assert warnings == ()


@pytest.mark.parametrize("clock", ["", "timezone: Asia/Tokio", "timezone: UTC\n  week_start: mondy"])
def test_a_missing_or_mistaken_clock_does_not_hide_what_the_lint_finds(clock: str) -> None:
    text = written("""
  caps:
    - {name: a, limit: 3, per: 24h}
    - {name: b, limit: 5, per: 24h}
""").replace("timezone: UTC", clock)

    errors, warnings = report(text)

    assert [fault.path for fault in errors] == ["policy.week_start" if "mondy" in clock else "policy.timezone"]
    assert [fault.path for fault in warnings] == ["policy.caps[1].limit"]


def test_a_missing_secret_does_not_hide_what_the_lint_finds() -> None:
    text = written(NIGHT + "  send_windows: [{name: a, hours: '22:00-23:00'}]\nstore: {env: NOWHERE}\n")

    assert [fault.path for fault in report(text)[0]] == ["policy.send_windows[0].hours", "store"]


def test_rules_that_only_nearly_overlap_are_left_alone() -> None:
    """Each has a neighbour above that is told; these hold somebody back that the other lets through."""
    for policy in (
        "caps: [{name: a, limit: 2, per: 24h}, {name: b, limit: 13, per: week}]",
        "caps: [{name: a, limit: 2, per: day}, {name: b, limit: 15, per: 7d}]",
        "caps: [{name: a, limit: 3, per: 24h, channel: sms}, {name: b, limit: 5, per: 24h}]",
        "caps: [{name: a, limit: 3, per: 24h, country: FR}, {name: b, limit: 5, per: 24h}]",
        "caps: [{name: a, limit: 3, per: 24h, label: {team: x}}, {name: b, limit: 5, per: 24h}]",
        "caps: [{name: a, limit: 3, per: 24h, scope: campaign}, {name: b, limit: 5, per: 24h}]",
        "caps: [{name: a, limit: 3, per: 24h, enforce: 50%, since: 2026-11-20}, {name: b, limit: 5, per: 24h}]",
        "caps: [{name: a, limit: 5, per: 24h}, {name: b, limit: 6, per: 24h, reserve: {high: 2}}]",
        "caps: [{name: a, limit: 3, per: day}, {name: b, limit: 5, per: 24h}]",
        "quiet_hours: [{name: a, from: '21:00', to: '08:00'}, {name: b, from: '20:00', to: '07:00'}]",
        "quiet_hours: [{name: a, from: '21:00', to: '08:00', channel: sms}, {name: b, from: '22:00', to: '07:00'}]",
        "send_windows: [{name: a, hours: '09:00-18:00', channel: sms}, {name: b, hours: '10:00-17:00', channel: push}]",
        "holidays: [{name: a, country: FR}, {name: b, country: FR, subdivision: 6AE}]",
        "send_windows: [{name: a, hours: ['22:00-04:00', '18:00-20:00']}, {name: b, hours: '18:00-02:00'}]",
        "quiet_hours: [{name: a, from: '21:00', to: '08:00'}, {name: b, from: '08:00', to: '21:00', days: sunday}]",
        "quiet_hours: [{name: a, from: '00:00', to: '24:00', days: sunday}]",
        "quiet_hours: [{name: a, from: '21:00', to: '08:00', release_over: 390m}]",
        "categories: {news: {expires_after: 121m}}\n  minimum_gap: 2h",
        (
            "categories: {a: {}, b: {caps: exempt, counts: true}}\n"
            "  caps: [{name: a, limit: 1, per: 24h}, {name: b, limit: 7, per: 7d}]"
        ),
    ):
        assert report(written(f"  {policy}\n")) == ((), ()), policy


PERIODS = ("24h", "7d", "30d", "day", "week", "month")
YEARS = [date(2024, 1, 1) + timedelta(days=number) for number in range(3 * 365)]


def _stretches(per: str) -> list[list[date]]:
    """The days that each window of a kind has a part in, over three years."""
    if per[0].isdigit():
        length = {"24h": 1, "7d": 7, "30d": 30}[per]
        return [YEARS[number : number + length + 1] for number in range(len(YEARS) - length)]
    named: dict[object, list[date]] = {}
    for day in YEARS:
        named.setdefault(_named(day, per), []).append(day)
    return [*named.values()]


def _named(day: date, per: str) -> object:
    return {"day": day, "week": day.isocalendar()[:2], "month": (day.year, day.month)}[per]


def _at_most(loose: str, strict: str) -> int:
    """How many contacts fit into one window of a kind if each window of the other holds one, by trying."""
    if strict in ("day", "week", "month"):
        return max(len({_named(day, strict) for day in days}) for days in _stretches(loose))
    hours = {"24h": 24, "7d": 7 * 24, "30d": 30 * 24, "day": 24, "week": 7 * 24, "month": 31 * 24}
    return len(range(0, hours[loose], hours[strict]))


@pytest.mark.parametrize("strict", PERIODS)
@pytest.mark.parametrize("loose", PERIODS)
def test_a_cap_is_called_idle_exactly_from_what_the_other_lets_through(loose: str, strict: str) -> None:
    most = _at_most(loose, strict)

    def told(limit: int) -> bool:
        caps = [{"name": "strict", "limit": 2, "per": strict}, {"name": "loose", "limit": limit, "per": loose}]
        _, warnings = report(written(f"  caps: {json.dumps(caps)}\n"))
        return any(fault.path == "policy.caps[1].limit" for fault in warnings)

    assert told(2 * most)
    assert not told(2 * most - 1)


# ------------------------------------------------------------------------------------------------------- what is good


_windows = st.sampled_from([["09:00-12:00", "14:00-18:00"], ["11:00-12:00", "19:00-21:00"], ["10:00-20:00"]])
_days = st.sampled_from([{}, {"days": "weekdays"}, {"days": ["monday", "saturday"]}])
_narrowed = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["sms", ["sms", "push"]]),
        "category": st.just("news"),
        "label": st.sampled_from([{"team": "x"}, {"team": ["x", "y"], "kind": "z"}]),
        "country": st.sampled_from(["FR", ["JP", "FR"]]),
    },
)


@st.composite
def _good(draw: st.DrawFn) -> str:
    """Caps that bite ever less over ever longer, a night, and windows in the day."""
    limit = draw(st.integers(2, 5))
    caps = [
        {"name": "day", "limit": limit, "per": draw(st.sampled_from(["24h", "day"]))},
        {"name": "week", "limit": limit + 2, "per": draw(st.sampled_from(["7d", "week"]))},
        {"name": "campaign", "limit": limit + 1, "per": "30d", "scope": ["campaign"], "reserve": {"high": 1}},
    ]
    night = {"name": "night", "from": draw(st.sampled_from(["21:00", "22:30"])), "to": "08:00", "release_over": "45m"}
    policy = {
        "timezone": "UTC",
        "categories": {
            "codes": {"priority": "critical", "caps": "exempt", "quiet_hours": "exempt", "expires_after": "5m"},
            "receipts": {"priority": "high", "quiet_hours": "exempt"},
            "news": {"priority": "bulk", "channels": ["sms", "push"], "expires_after": "14d", "collapse": "newest"}
            | {"when_capped": "next_channel"},
        },
        "caps": caps,
        "minimum_gap": [{"name": "gap", "gap": draw(st.sampled_from(["30m", "2h"]))} | draw(_narrowed)],
        "quiet_hours": [night, {"name": "nap", "from": "13:00", "to": "13:45"} | draw(_narrowed)],
        "send_windows": [{"name": "w", "hours": draw(_windows)} | draw(_days) | draw(_narrowed)],
        "holidays": draw(st.sampled_from([[], [{"name": "fr", "country": "FR", "person_country": ["FR"]}]])),
    }
    routes = {"sms": ["box"], "push": ["box"]}
    return json.dumps({"providers": {"box": {"kind": "inbox"}}, "routes": routes, "policy": policy})


@settings(max_examples=60, deadline=None)
@given(_good())
def test_nothing_is_found_in_a_good_policy(text: str) -> None:
    assert report(text) == ((), ())


_hour = st.sampled_from([f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "30")])
_weekdays = st.lists(st.sampled_from(["monday", "tuesday", "wednesday", "weekend", "weekdays"]), min_size=1)


@st.composite
def _clocks(draw: st.DrawFn) -> str:
    """Hours at random, for one category on one channel."""
    quiet = [
        {"name": f"q{number}", "from": draw(_hour), "to": draw(_hour)} | ({"days": draw(_weekdays)} if days else {})
        for number, days in enumerate(draw(st.lists(st.booleans(), max_size=3)))
    ]
    spans = st.builds(lambda start, end: f"{start}-{end}", _hour, _hour).filter(lambda span: span[:5] != span[6:])
    windows = [
        {"name": f"w{number}", "hours": draw(st.lists(spans, min_size=1, max_size=2))}
        for number in range(draw(st.integers(0, 2)))
    ]
    policy = {"timezone": "UTC", "categories": {"news": {}}, "quiet_hours": quiet, "send_windows": windows}
    document = {"providers": {"box": {"kind": "inbox"}}, "routes": {"sms": ["box"]}, "policy": policy}
    return json.dumps(document)


@settings(max_examples=50, deadline=None)
@given(_clocks())
def test_hours_are_refused_exactly_if_the_rules_themselves_never_permit_anything(text: str) -> None:
    document = yaml.safe_load(text)["policy"]
    errors, _ = report(text)
    if any(fault.path.endswith(".to") and "add days" in fault.problem for fault in errors):
        return  # quiet at all times by itself, which the rule need not be asked about
    rules = parse_rules(document)
    subject = Subject("sms", "news", None, (zone("UTC"),), zone("UTC"), "a", int(Priority.BULK))
    monday = datetime(2026, 11, 16, tzinfo=UTC)

    verdict = earliest(monday, timedelta(seconds=10), rules, subject, [])

    assert bool(errors) == (verdict.at is None)


def parse_rules(document: dict[str, list[dict[str, object]]]) -> list[object]:
    """Each rule read alone, in a policy in which no other could contradict it, so that none is refused."""
    rules: list[object] = []
    for section in ("quiet_hours", "send_windows"):
        for rule in document[section]:
            alone = {"timezone": "UTC", "categories": {"news": {}}, section: [rule]}
            text = json.dumps({"providers": {"box": {"kind": "inbox"}}, "routes": {"sms": ["box"]}, "policy": alone})
            rules += parse(text).policy.all_rules
    return rules


LEDGER = "whsec_" + "aaaa" * 8


def test_the_readmes_example_gives_no_errors_and_no_warnings() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    example = next(block for block in readme.split("```yaml\n")[1:] if "policy:" in block).split("```")[0]
    environ = {
        "SMTP_PASSWORD": "p",
        "TWILIO_TOKEN": "t",
        "BACKUP_TOKEN": "t",
        "AMQP_URL": "amqp://h/",
        "LEDGER_SECRET": LEDGER,
    }
    example = example.replace('sha256: "…"', f'sha256: "{"a" * 64}"').replace("AC…", "AC1")

    found = config.parse(example, environ, base=Path(), today=TODAY)

    assert found.warnings == ()
    assert set(found.routes) <= set(Channel)
