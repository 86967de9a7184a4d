"""The configuration: what loads, what does not and how it says so, and that no secret is ever shown."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import string
import sys
from dataclasses import replace
from datetime import time, timedelta
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from subprocess import run

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gateway
from gateway import config
from gateway.config import BrokerConfig, Config, ConfigError, Endpoint, Fault, Route, Step, Target
from gateway.config.policy import SECTIONS as POLICY_SECTIONS
from gateway.config.reading import SECTIONS
from gateway.languages import LANGUAGES
from gateway.message import MessageState, OnUnknown, Priority, WhenCapped
from providers import Channel
from ratelimit import (
    Calendar,
    FrequencyCap,
    Holidays,
    MinimumGap,
    Only,
    QuietHours,
    Scope,
    SendWindow,
    zone,
)

SAMPLE = Path(gateway.__file__).with_name("sample.yaml")
SECRET = "s3cr3t-Sesame-0pen"
SHA256 = hashlib.sha256(b"key").hexdigest()
ENVIRON = {"TWILIO_TOKEN": SECRET, "MAIL_PASSWORD": SECRET + "2", "EMPTY": "", "HALF": "\udc80"}

MINUTE = timedelta(minutes=1)


def whsec(key: bytes) -> str:
    """As https://www.standardwebhooks.com has secrets written."""
    return f"whsec_{base64.b64encode(key).decode()}"


# The sample of DESIGN.md without what later releases bring, and with what it only names.
DESIGN = f"""
store: sqlite:///decorum.db                    # or postgresql://…
broker: amqp://guest:guest@localhost/          # leave out: HTTP only
http:
  private: 127.0.0.1:8080                      # API, console, /metrics, /livez, /readyz
  public: 127.0.0.1:8081                       # opens, clicks, unsubscribe, vendors' callbacks
  public_url: https://m.example.com
keys: [{{name: orders, sha256: "{SHA256}", scopes: [send]}}]   # none: only a loopback address may be bound
providers:
  mail: {{kind: smtp, host: localhost, port: 1025, sender: "Example <hello@example.com>"}}
  text: {{kind: twilio_sms, account_sid: AC123, auth_token: {{env: TWILIO_TOKEN}}, sender: "+15005550006"}}
  text_backup: {{kind: inbox}}
routes: {{email: [mail], sms: [text, text_backup]}}     # in order
policy:
  timezone: Asia/Tokyo                         # last resort, after request, profile and phone number
  categories:
    one_time_code: {{priority: critical, caps: exempt, quiet_hours: exempt, expires_after: 5m, on_unknown: leave, abuse: {{limit: 5, per: 1h}}}}
    transactional: {{priority: high, quiet_hours: exempt, on_unknown: repeat}}
    reactivation:  {{priority: bulk, channels: [push, sms, email], expires_after: 14d}}
  caps:
    - {{name: daily, limit: 2, per: 24h}}                                   # rolling
    - {{name: push-week, limit: 3, per: week, channel: push}}               # calendar, in the person's zone
    - {{name: campaign-month, limit: 6, per: 30d, scope: [user, campaign], reserve: {{high: 1}}}}
    - {{name: tighter-daily, limit: 1, per: 24h, enforce: 0%}}              # shadow
  minimum_gap: 2h
  quiet_hours: [{{name: night, from: "21:00", to: "08:00", release_over: 30m}}]
  send_windows: [{{channel: sms, category: reactivation, hours: ["11:00-12:00", "19:00-21:00"]}}]
"""  # noqa: E501 - as the design has it

HOOK = {"name": "ledger", "url": "https://ledger.example.com/decorum", "secrets": [whsec(b"k" * 24)]} | {
    "events": ["message.*"]
}
FULL_HOOK = {
    "name": "crm",
    "url": "http://10.0.0.7:9000/in?a=b",
    "secrets": [whsec(b"n" * 64), whsec(b"o" * 32)],
    "events": ["message.sent", "#"],
    "timeout": "1m",
    "concurrency": 1,
    "private": True,
}

SMALL = {
    "providers": {"box": {"kind": "inbox"}},
    "routes": {"sms": ["box"]},
    "policy": {"timezone": "UTC", "categories": {"news": {}}},
}


def parse(text: str) -> Config:
    return config.parse(text, ENVIRON, base=Path("/nowhere"))


def faults(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [(fault.path, fault.problem) for fault in caught.value.faults]


def small(**changes: object) -> str:
    """The smallest configuration with other values; ``a__b`` is the key b within a."""
    document = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *way, last = path.split("__")
        node = document
        for step in way:
            node = node.setdefault(step, {})
        node[last] = value
    return json.dumps(document)


# ---------------------------------------------------------------------------------------------------------- what loads


def test_the_sample_of_the_design_loads() -> None:
    found = parse(DESIGN)

    assert found.store == "sqlite:///decorum.db"
    assert found.broker == BrokerConfig("amqp://guest:guest@localhost/", "declare", 500)
    assert found.http.private == Endpoint("127.0.0.1", 8080)
    assert found.http.public == Endpoint("127.0.0.1", 8081)
    assert found.http.public_url == "https://m.example.com"
    assert found.keys == (config.Key("orders", SHA256, frozenset({"send"})),)
    assert found.routes == {Channel.EMAIL: Route(("mail",)), Channel.SMS: Route(("text", "text_backup"))}
    assert set(found.providers) == {"mail", "text", "text_backup"}
    assert found.events.exchange == "decorum.events"
    assert found.events.states == set(MessageState) - {MessageState.WAITING, MessageState.SENDING}
    assert found.retention == config.Retention(timedelta(days=90), timedelta(days=400))
    assert found.worker == config.WorkerConfig(dict.fromkeys(Priority, 256), timedelta(seconds=10))

    policy = found.policy
    assert policy.zone is zone("Asia/Tokyo")
    code, transactional, reactivation = policy.categories.values()
    assert code == config.Category(
        name="one_time_code",
        priority=Priority.CRITICAL,
        channels=None,
        caps_exempt=True,
        quiet_hours_exempt=True,
        counts=False,
        expires_after=timedelta(minutes=5),
        on_unknown=OnUnknown.LEAVE,
        repeat_after=None,
        unsubscribe=False,
        when_capped=WhenCapped.DEFER,
        collapse=False,
        abuse=FrequencyCap("abuse", 5, timedelta(hours=1)),
        tracked=False,
        conversion_window=timedelta(days=7),
        title={},
    )
    assert transactional.on_unknown is OnUnknown.REPEAT
    assert transactional.expires_after == timedelta(hours=72)
    assert transactional.counts
    assert transactional.abuse is None
    assert not transactional.unsubscribe
    assert reactivation.channels == (Channel.PUSH, Channel.SMS, Channel.EMAIL)
    assert reactivation.unsubscribe
    daily, week, month, tighter = policy.caps
    assert (daily.name, daily.limit, daily.per, daily.scope) == ("daily", 2, timedelta(days=1), frozenset())
    assert (week.per, week.only, week.week_start) == (Calendar.WEEK, Only(frozenset({Channel.PUSH})), 0)
    assert (month.scope, month.reserve) == ({Scope.CAMPAIGN}, ((Priority.HIGH, 1),))
    assert (daily.enforce, tighter.enforce) == (100, 0)
    assert [gap.gap for gap in policy.gaps] == [timedelta(hours=2)]
    assert policy.quiet_hours == (QuietHours("night", time(21), time(8), release_over=timedelta(minutes=30)),)
    sms_of_reactivation = Only(frozenset({Channel.SMS}), frozenset({"reactivation"}))
    hours = ((time(11), time(12)), (time(19), time(21)))
    assert policy.send_windows == (SendWindow("send-window-sms-reactivation", hours, only=sms_of_reactivation),)


def test_routes_are_in_order_or_by_weight() -> None:
    found = parse(
        """
providers: {one: {kind: inbox}, two: {kind: inbox}, spare: {kind: inbox}}
routes: {sms: {one: 30, spare: 0, two: 70}, push: [two, one], email: one}
policy: {timezone: UTC, categories: {news: {}}}
"""
    ).routes
    assert found[Channel.SMS] == Route(("two", "one", "spare"), (70, 30, 0))
    assert found[Channel.PUSH] == Route(("two", "one"))
    assert found[Channel.EMAIL] == Route(("one",))
    assert list(found) == [Channel.SMS, Channel.PUSH, Channel.EMAIL]


def test_rules_leave_out_what_a_category_is_exempt_from_and_what_is_for_others() -> None:
    policy = parse(DESIGN.replace("channel: push}", "category: transactional}")).policy

    def names(category: str) -> list[str]:
        return [rule.name for rule in policy.rules(policy.categories[category])]

    assert names("one_time_code") == []
    assert names("transactional") == ["daily", "push-week", "campaign-month", "tighter-daily", "minimum_gap"]
    clocks = ["night", "send-window-sms-reactivation"]
    assert names("reactivation") == ["daily", "campaign-month", "tighter-daily", "minimum_gap", *clocks]
    gone = replace(policy.categories["reactivation"], name="of_an_older_policy")
    assert [rule.name for rule in policy.rules(gone)] == names("reactivation")[:-1]


def test_the_packaged_sample_loads_without_any_environment() -> None:
    found = config.load(SAMPLE, {})
    assert found.store.startswith("sqlite:///")
    assert set(found.routes) == set(Channel)
    assert found.http.private.loopback
    assert not found.events.states  # nobody would fetch them


@pytest.mark.parametrize(
    ("per", "back"),
    [("24h", 1), ("7d", 7), ("day", 3), ("week", 9), ("month", 33)],
)
def test_the_longest_window_is_the_longest_of_all_and_knows_of_zones(per: str, back: int) -> None:
    cap = {"name": "a", "limit": 1, "per": per}
    short = {"name": "b", "limit": 1, "per": "1h"}

    assert parse(small(policy__caps=[cap, short])).policy.longest_window == timedelta(days=back)


def test_without_caps_no_window_is_read_but_that_of_the_gaps() -> None:
    assert parse(small()).policy.longest_window == timedelta(0)
    assert parse(small(policy__minimum_gap="2h")).policy.longest_window == timedelta(hours=2)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("24h", timedelta(days=1)),
        ("14d", timedelta(days=14)),
        ("2w", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
    ],
)
def test_durations(text: str, length: timedelta) -> None:
    found = parse(small(policy__categories={"news": {"expires_after": text}}))

    assert found.policy.categories["news"].expires_after == length


@pytest.mark.parametrize(
    ("written", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("localhost:8080", "localhost", 8080, True),
        ("[::1]:80", "::1", 80, True),
        ("127.8.9.1:80", "127.8.9.1", 80, True),
    ],
)
def test_addresses(written: str, host: str, port: int, loopback: bool) -> None:
    found = parse(small(http__private=written)).http.private

    assert (found.host, found.port, found.loopback) == (host, port, loopback)
    assert str(found) == written


def test_networks_are_one_or_several() -> None:
    found = parse(small(http__proxies="10.0.0.0/8", http__machines=["198.51.100.7", "2001:db8::/32"])).http

    assert found.proxies == (ip_network("10.0.0.0/8"),)
    assert found.machines == (ip_network("198.51.100.7/32"), ip_network("2001:db8::/32"))


def test_with_keys_any_address_may_be_bound() -> None:
    keys = [{"name": "orders", "sha256": SHA256.upper(), "scopes": "priority"}]
    found = parse(small(http__private="0.0.0.0:8080", keys=keys))

    assert found.keys[0].sha256 == SHA256
    assert found.keys[0].scopes == {"priority"}


def test_without_keys_the_public_listener_may_be_public() -> None:
    assert parse(small(http__public="0.0.0.0:443", http__public_url="https://m.example.com/"))


def test_what_the_file_only_mentions_is_as_if_it_were_not_there() -> None:
    names = "store", "broker", "http", "keys", "events", "retention", "worker", "report", "webhooks"
    empty = dict.fromkeys(names)

    assert parse(small(**empty)) == parse(small())


def test_broker_worker_and_retention_can_be_told_in_full() -> None:
    found = parse(
        small(
            broker={"url": "amqps://h/", "topology": "passive", "prefetch": 7},
            events={"exchange": "e", "states": ["sent"]},
            worker={"in_flight": {"bulk": 1}, "attempt": "5s"},
            retention={"messages": "31d", "contacts": "2d"},
        )
    )

    assert found.broker == BrokerConfig("amqps://h/", "passive", 7)
    assert found.events.states == {MessageState.SENT}
    assert found.worker.in_flight[Priority.BULK] == 1
    assert found.worker.in_flight[Priority.CRITICAL] == 256
    assert found.worker.attempt == timedelta(seconds=5)
    assert found.retention.contacts == timedelta(days=2)


def test_what_people_read_is_one_text_or_one_in_each_language() -> None:
    titles = {"news": {"title": "News"}, "codes": {"title": {"ja": "お知らせ", "zh-Hant": "最新消息"}}, "none": {}}
    found = parse(small(policy__categories=titles, pages={"name": {"en": "Example", "ja": "例"}}))

    assert found.policy.categories["news"].title == dict.fromkeys(LANGUAGES, "News")
    assert found.policy.categories["codes"].title == {"ja": "お知らせ", "zh-Hant": "最新消息"}
    assert found.policy.categories["none"].title == {}
    assert found.pages.name == {"en": "Example", "ja": "例"}
    assert parse(small()).pages.name == {}


ONE_LINE = "must be one line of at most 60 characters, as people are to read it"


@pytest.mark.parametrize(
    ("written", "path", "problem"),
    [
        (7, "", "must be text: write it in quotes"),
        (["News"], "", "must be text: write it in quotes"),
        ("", "", ONE_LINE),
        (" ", "", ONE_LINE),
        ("two\nlines", "", ONE_LINE),
        ("long" * 16, "", ONE_LINE),
        ({"ja": "long" * 16}, ".ja", ONE_LINE),
        ({"ja": 7}, ".ja", "must be text: write it in quotes"),
        ({"zh-hant": "最新消息"}, ".zh-hant", "did you mean zh-Hant?"),
        (
            {"tlh": "news"},
            ".tlh",
            "must be one of ar, de, en, es, fr, hi, id, it, ja, ko, pt, th, vi, zh-Hans, zh-Hant",
        ),
        ({}, "", "must name at least 1"),
    ],
)
def test_what_people_cannot_read_is_told_with_its_place(written: object, path: str, problem: str) -> None:
    for found, whole in (
        (faults(small(pages={"name": written})), "pages.name"),
        (faults(small(policy__categories={"news": {"title": written}})), "policy.categories.news.title"),
    ):
        assert [(where, problem in said) for where, said in found] == [(whole + path, True)], found


def test_targets_and_costs_can_be_told_in_full() -> None:
    in_full = {
        "step": "converted",
        "stage": "applied",
        "of": "converted",
        "of_stage": "logged_in",
        "at_least": "12.5%",
        "category": "news",
        "campaign": "spring",
        "channel": "sms",
    }
    costs = [{"amount": amount, "currency": "EUR"} for amount in ("0.0075", 0.0075, 2)]
    found = parse(small(report={"targets": [CLICKED, in_full]}, providers__box__cost=costs[0]))

    assert found.report.targets == (
        Target(Step.CLICKED, None, Step.SENT, None, 0.2, None, None, None),
        Target(Step.CONVERTED, "applied", Step.CONVERTED, "logged_in", 0.125, "news", "spring", Channel.SMS),
    )
    amounts = [parse(small(providers__box__cost=cost)).providers["box"].cost for cost in costs]
    assert [(cost.amount, cost.currency) for cost in amounts if cost] == [
        (Decimal("0.0075"), "EUR"),
        (Decimal("0.0075"), "EUR"),
        (Decimal(2), "EUR"),
    ]


def test_webhooks_can_be_told_in_full_and_are_heard_of_events_without_a_broker() -> None:
    found = parse(small(webhooks=[HOOK, FULL_HOOK]))

    ledger, crm = found.webhooks
    assert ledger == config.Webhook("ledger", HOOK["url"], (b"k" * 24,), ("message.*",), MINUTE / 4, 20, False)
    assert crm.keys == (b"n" * 64, b"o" * 32)
    assert (crm.url, crm.private) == ("http://10.0.0.7:9000/in?a=b", True)
    assert (crm.events, crm.timeout, crm.concurrency) == (("#", "message.sent"), MINUTE, 1)
    assert crm.wants("message.sent")
    assert not ledger.wants("profile.updated")
    assert found.events.states == set(MessageState) - {MessageState.WAITING, MessageState.SENDING}
    assert not parse(small(webhooks=[])).events.states


def test_another_url_is_another_webhook_whatever_else_is_changed() -> None:
    one, same, other = (
        parse(small(webhooks=[HOOK | changes])).webhooks[0]
        for changes in ({}, {"timeout": "20s"}, {"url": HOOK["url"] + "2"})
    )

    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.origin == "https://ledger.example.com"


@pytest.mark.parametrize("host", ["1.1.1.1", "[2606:4700:4700::1111]", "a.example.com:8443", "xn--bcher-kva.example"])
def test_a_webhook_may_be_wherever_the_world_is(host: str) -> None:
    assert parse(small(webhooks=[HOOK | {"url": f"https://{host}/in"}])).webhooks[0].url == f"https://{host}/in"


def test_gaps_and_weeks_can_be_told_in_full() -> None:
    gaps = [{"name": "a", "gap": "1h", "channel": "sms"}, {"name": "b", "gap": "2h", "category": ["news"]}]
    caps = [{"name": "c", "limit": 1, "per": "week", "channel": ["sms", "push"]}]
    policy = parse(small(policy__minimum_gap=gaps, policy__caps=caps, policy__week_start="sunday")).policy

    assert [(gap.name, gap.only) for gap in policy.gaps] == [
        ("a", Only(frozenset({"sms"}))),
        ("b", Only(categories=frozenset({"news"}))),
    ]
    assert policy.caps[0].week_start == 6


def test_a_policys_hash_is_of_its_meaning() -> None:
    text = small(policy__caps=[{"name": "c", "limit": 1, "per": "24h", "channel": ["sms", "push"]}])
    same = small(
        policy__caps=[{"per": "1d", "name": "c", "limit": 1, "scope": ["user"], "channel": ["push", "sms"]}],
        policy__categories={"news": {"priority": "normal"}},
        store="sqlite:///other.db",
    )
    other = small(policy__caps=[{"name": "c", "limit": 2, "per": "24h", "channel": ["sms", "push"]}])

    assert parse(text).policy.hash == parse(same).policy.hash
    assert parse(text).policy.hash != parse(other).policy.hash


MEANT = {
    "policy__countries": {"JP": "Asia/Tokyo", "FR": "Europe/Paris"},
    "policy__categories": {"news": {"when_capped": "drop", "abuse": {"limit": 9, "per": "60m"}}, "codes": {}},
    "policy__caps": [
        {"name": "c", "limit": 4, "per": "7d", "scope": ["labels.b", "labels.a"], "reserve": {"high": 1, "critical": 1}}
    ],
    "policy__minimum_gap": [{"name": "g", "gap": "2h", "label": {"b": ["2", "1"], "a": "1"}, "country": ["JP", "FR"]}],
    "policy__quiet_hours": [{"name": "q", "from": "21:00", "to": "24:00", "days": "weekdays", "enforce": "100%"}],
    "policy__send_windows": [{"channel": "sms", "hours": ["15:00-18:00", "09:00-12:00"]}],
    "policy__holidays": [{"name": "h", "country": "JP"}],
    "policy__presets": [{"preset": "cn-marketing", "category": ["news", "codes"]}],
}
ALIKE = {
    "policy__countries": {"FR": "Europe/Paris", "JP": "Asia/Tokyo"},
    "policy__categories": {
        "codes": {"when_capped": "defer", "counts": True},
        "news": {"abuse": {"per": "1h", "limit": 9}, "when_capped": "drop"},
    },
    "policy__caps": [
        {"name": "c", "limit": 4, "per": "1w", "scope": ["user", "labels.a", "labels.b"], "enforce": "100.0%"}
        | {"reserve": {"critical": 1, "high": 1}}
    ],
    "policy__minimum_gap": [
        {"gap": "120m", "name": "g", "label": {"a": ["1"], "b": ["1", "2"]}, "country": ["FR", "JP", "FR"]}
    ],
    "policy__quiet_hours": [
        {"name": "q", "to": "00:00", "from": "21:00"}
        | {"days": ["friday", "monday", "tuesday", "wednesday", "thursday"]}
    ],
    "policy__send_windows": [
        {"name": "send-window-sms", "channel": ["sms"], "hours": ["09:00 - 12:00", "15:00-18:00"], "days": "daily"}
        | {"days": ["weekdays", "weekend"]}
    ],
    "policy__holidays": [{"name": "h", "country": "JP", "subdivision": None}],
    "policy__presets": [
        {"preset": "cn-marketing", "category": ["codes", "news"], "hours": "09:00-20:00", "limit": None}
    ],
}
DIFFERENT = {
    "policy__countries": {"JP": "Asia/Tokyo", "FR": "Europe/Berlin"},
    "policy__categories": {"news": {"when_capped": "drop", "abuse": {"limit": 8, "per": "60m"}}, "codes": {}},
    "policy__caps": [MEANT["policy__caps"][0] | {"reserve": {"high": 2}}],
    "policy__minimum_gap": [MEANT["policy__minimum_gap"][0] | {"country": "JP"}],
    "policy__quiet_hours": [MEANT["policy__quiet_hours"][0] | {"enforce": "99%"}],
    "policy__send_windows": [{"channel": "sms", "hours": ["15:00-18:00", "09:00-12:30"]}],
    "policy__holidays": [{"name": "h", "country": "FR"}],
    "policy__presets": [{"preset": "cn-marketing", "category": "news"}],
}


def test_a_policys_hash_is_the_same_however_it_is_spelt() -> None:
    assert parse(small(**MEANT)).policy.hash == parse(small(**ALIKE)).policy.hash
    assert parse(small(**MEANT)) == parse(small(**MEANT))


@pytest.mark.parametrize("key", DIFFERENT)
def test_a_policys_hash_covers_every_part_of_it(key: str) -> None:
    meant, different = parse(small(**MEANT)), parse(small(**(MEANT | {key: DIFFERENT[key]})))

    assert meant.policy.hash != different.policy.hash
    assert meant != different


def test_a_policys_hash_is_the_same_in_every_process() -> None:
    text = small(**MEANT, routes__sms="box")
    script = "import sys, pathlib; from gateway import config; base = pathlib.Path(); "
    script += "print(config.parse(sys.stdin.read(), {}, base=base).policy.hash)"
    hashes = {
        run(
            [sys.executable, "-c", script],
            input=text,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert hashes == {parse(text).policy.hash + "\n"}


def test_sections_can_be_compared() -> None:
    one, other = parse(DESIGN), parse(DESIGN.replace("limit: 2, per: 24h", "limit: 3, per: 24h"))

    assert one.policy != other.policy
    assert replace(one, policy=other.policy, warnings=other.warnings) == other
    assert (one.providers, one.routes, one.worker) == (other.providers, other.routes, other.worker)
    changed = parse(DESIGN.replace("AC123", "AC124"))
    assert one.providers != changed.providers


# ----------------------------------------------------------------------------------------------------------- the policy


def test_every_key_of_a_rule_means_what_it_says() -> None:
    narrowed = {"channel": "sms", "category": "news", "label": {"team": ["b", "a"]}, "country": ["FR", "JP"]}
    shared = narrowed | {"enforce": "12.5%", "since": "2026-11-01"}
    policy = parse(
        small(
            policy__week_start="sunday",
            policy__caps=[shared | {"name": "c", "limit": 9, "per": "month", "scope": ["labels.team", "channel"]}],
            policy__minimum_gap=[shared | {"name": "g", "gap": "2h", "scope": "labels.team"}],
            policy__quiet_hours=[
                shared | {"name": "q", "from": "20:00", "to": "24:00", "days": "weekend", "release_over": "10m"}
            ],
            policy__send_windows=[shared | {"name": "s", "hours": "09:00-24:00", "days": ["monday", "friday"]}],
        )
    ).policy

    only = Only(
        frozenset({Channel.SMS}),
        frozenset({"news"}),
        (("team", frozenset({"a", "b"})),),
        frozenset({"FR", "JP"}),
    )
    labels, ten = frozenset({"team"}), timedelta(minutes=10)
    assert policy.caps == (
        FrequencyCap("c", 9, Calendar.MONTH, frozenset({Scope.CHANNEL}), labels, only, week_start=6, enforce=12.5),
    )
    assert policy.gaps == (MinimumGap("g", timedelta(hours=2), frozenset(), labels, only, 12.5),)
    assert policy.quiet_hours == (QuietHours("q", time(20), time(0), frozenset({5, 6}), ten, only, 12.5),)
    hours = ((time(9), time(0)),)
    assert policy.send_windows == (SendWindow("s", hours, frozenset({0, 4}), only=only, enforce=12.5),)


def test_holidays_are_a_countrys_and_may_be_for_persons_of_others() -> None:
    alsace = {"name": "a", "country": "FR", "subdivision": "6AE", "person_country": ["FR", "MC"]}
    policy = parse(small(policy__holidays=[alsace, {"name": "j", "country": "JP"}])).policy

    assert policy.holidays == (
        Holidays("a", "FR", "6AE", Only(countries=frozenset({"FR", "MC"}))),
        Holidays("j", "JP"),
    )


def test_a_country_has_the_zone_that_is_written() -> None:
    policy = parse(small(policy__countries={"JP": "Asia/Tokyo", "FR": "Europe/Paris"})).policy

    assert policy.countries == {"JP": zone("Asia/Tokyo"), "FR": zone("Europe/Paris")}


@pytest.mark.parametrize(
    ("written", "abuse"),
    [
        ({"priority": "critical", "caps": "exempt"}, (5, 1)),
        ({"priority": "critical"}, None),
        ({"caps": "exempt"}, None),
        ({"priority": "critical", "caps": "exempt", "abuse": {"limit": 2, "per": "3h"}}, (2, 3)),
        ({"abuse": {"limit": 9, "per": "24h"}}, (9, 24)),
    ],
)
def test_what_no_cap_holds_and_is_critical_is_limited_per_address(
    written: dict[str, object], abuse: tuple[int, int] | None
) -> None:
    category = parse(small(policy__categories={"news": written})).policy.categories["news"]

    assert category.abuse == (FrequencyCap("abuse", abuse[0], timedelta(hours=abuse[1])) if abuse else None)


def test_what_becomes_of_what_is_capped_or_waits_is_the_categorys() -> None:
    news = parse(small(policy__categories={"news": {"when_capped": "next_channel", "collapse": "newest"}}))

    assert news.policy.categories["news"].when_capped is WhenCapped.NEXT_CHANNEL
    assert news.policy.categories["news"].collapse


def test_a_gateway_warns_of_nothing_in_the_packaged_sample_and_of_what_the_design_leaves_open() -> None:
    assert config.load(SAMPLE, {}).warnings == ()
    assert [fault.path for fault in parse(DESIGN).warnings] == [
        "policy.categories.reactivation.channels",  # push has no route there
        "policy.caps[1].channel",
        "policy.caps[3].enforce",  # since when?
    ]


@pytest.mark.parametrize(
    ("target", "warned"),
    [
        ("step: opened, channel: sms", True),
        ("step: converted, of: opened, channel: robocall", True),
        ("step: answered, channel: email", True),
        ("step: clicked, channel: robocall", True),
        ("step: clicked, channel: sms", False),
        ("step: answered, channel: robocall", False),
        ("step: opened", False),
    ],
)
def test_a_target_that_nobody_can_ever_tell_is_warned_of(target: str, warned: bool) -> None:
    warnings = parse(f"{DESIGN}report: {{targets: [{{{target}, at_least: 20%}}]}}\n").warnings
    found = [fault.problem for fault in warnings if fault.path == "report.targets[0].channel"]
    assert len(found) == warned
    assert all("nobody learns" in problem for problem in found)


# ---------------------------------------------------------------------------------------------------- which file it is


def test_the_file_is_the_options_else_the_environments_else_the_directorys() -> None:
    there = {"DECORUM_CONFIG": "/etc/decorum.yaml"}

    assert config.locate(Path("a.yaml"), there) == Path("a.yaml")
    assert config.locate(None, there) == Path("/etc/decorum.yaml")
    assert config.locate(None, {"DECORUM_CONFIG": ""}) == Path("gateway.yaml")
    assert config.locate(None, {}) == Path("gateway.yaml")


def test_a_file_that_cannot_be_read_says_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"store: \xe9")
    for name, phrase in [("none.yaml", "--config"), (".", "--config"), ("latin.yaml", "UTF-8"), ("a\0b", "--config")]:
        with pytest.raises(ConfigError, match=phrase):
            config.load(tmp_path / name, {})


# --------------------------------------------------------------------------------------------------- what does not load

BROKEN = [
    ("", "", "empty"),
    ("[1]", "", "must be a mapping"),
    ("a: b: c", "", "column 5: mapping values are not allowed here; indent the keys of one mapping alike, with spaces"),
    ("a: b: c", "", "put text that holds a colon and a space in quotes"),
    ("a:\n  b: 1\n c: 2", "", "column 2: while parsing a block mapping"),
    ("a:\n  b: 1\n c: 2", "", "; indent the keys of one mapping alike, with spaces"),
    ("a:\n\tb: 1", "", "column 1: a tab is not allowed here: indent with spaces"),
    ("a: @b", "", "put the text in quotes"),
    ('a: "b', "", "is a quote missing?"),
    ("a: {b: 1\nc: 2", "", "is a comma, a bracket or a brace missing?"),
    ("a: 1\nb: [", "", "column 5"),
    ("a: &x 1\nb: *x", "", "column 4: an alias"),
    ("[" * 10_000, "", "nested too deeply"),
    ("a: \x00", "", "a character"),
    ('a: "\\UFFFFFFFF"', "", "escape"),
    ("--- 1\n--- 2", "", "single document"),
    ("a" * 1_000_001, "", "larger than"),
    ("1.5: a", "", "key in line 1"),
    ("on: a", "", "key in line 1"),
    ("<<: {a: 1}", "", "key in line 1"),
    ("? [a]\n: 1", "", "key in line 1"),
    ("store: a\nstore: b", "store", "written twice, the second time in line 2"),
    ("store: !!python/object:os.system a", "store", "leave out the tag"),
    ("store: !!float a", "store", "tag"),
    ("store: =", "store", "quotes"),
    ('store: "\\ud800"', "store", "half a character"),
    (
        "policy: {quiet_hours: [{from: 21:00}]}",
        "policy.quiet_hours[0].from",
        'base 60: put it in quotes, such as "21:00"',
    ),
    ("policy: {caps: [{limit: 010}]}", "policy.caps[0].limit", "decimal"),
    ("policy: {caps: [{limit: 0x10}]}", "policy.caps[0].limit", "decimal"),
    (f"policy: {{caps: [{{limit: {'9' * 5000}}}]}}", "policy.caps[0].limit", "leave the tag out"),
    ('"\\ud83d\\ude00": 1', "", "half a character"),
    ('"a b": 1', "['a b']", "not a known key"),
]


@pytest.mark.parametrize(("text", "path", "phrase"), BROKEN, ids=[text[:30] for text, _, _ in BROKEN])
def test_yaml_with_a_trap_in_it(text: str, path: str, phrase: str) -> None:
    assert any(where == path and phrase in problem for where, problem in faults(text))


MAIL = {"kind": "smtp", "host": "localhost", "sender": "a@example.com"}
TEXT = {"kind": "twilio_sms", "account_sid": "AC1", "auth_token": SECRET, "sender": "+15005550006"}
CAP = {"name": "a", "limit": 1, "per": "24h"}
CLICKED = {"step": "clicked", "at_least": "20%"}
COST = {"amount": "0.0075", "currency": "USD"}
VENDOR = {"kind": "http", "channels": ["sms"], "url": "https://x/", "body": {"ref": "{attempt}"}}
LOOK_UP = {"url": "https://x/{attempt}", "reply": {"status": "a"}, "statuses": {"done": "delivered"}}
NIGHT = {"name": "night", "from": "21:00", "to": "08:00"}
WINDOW = {"channel": "sms", "hours": ["11:00-12:00", "19:00-21:00"]}
KEY = {"name": "orders", "sha256": SHA256, "scopes": ["send"]}

WRONG = [
    ({"stroe": "x"}, "stroe", "did you mean store?"),
    ({"plans": {}}, "plans", "there are store, broker"),
    ({"store": "mysql://root@h/x"}, "store", "must be sqlite:///"),
    ({"store": "sqlite:///"}, "store", "must be sqlite:///"),
    ({"store": "sqlite:///:memory:"}, "store", "name a file"),
    ({"store": "postgresql+asyncpg://h/x"}, "store", "postgresql://user"),
    ({"store": f"postgresql://u:{SECRET}/x@h:5432/d"}, "store", "percent-encoded"),
    ({"store": 5}, "store", "must be text"),
    ({"broker": f"http://u:{SECRET}@h/"}, "broker", "must be amqp://"),
    ({"broker": f"amqp://u:{SECRET}/1@h:x/"}, "broker", "percent-encoded"),
    ({"broker": {}}, "broker.url", "is missing"),
    ({"broker": {"url": "amqp://h", "topology": "declared"}}, "broker.topology", "did you mean declare?"),
    ({"broker": {"url": "amqp://h", "prefetch": 0}}, "broker.prefetch", "must be at least 1"),
    ({"http__private": "127.0.0.1"}, "http.private", "must be host:port"),
    ({"http__private": 8080}, "http.private", "must be host:port"),
    ({"http__private": "::1:8080"}, "http.private", "must be host:port"),
    ({"http__private": "127.0.0.1:65536"}, "http.private", "at most 65535"),
    ({"http__private": "127.0.0.256:80"}, "http.private", "not an IP address"),
    ({"http__private": "0.0.0.0:80"}, "http.private", "add keys"),
    ({"http__private": "gateway:80"}, "http.private", "add keys"),
    ({"http__private": "0.0.0.0:80", "keys": []}, "http.private", "add keys"),
    ({"http__public": "0.0.0.0:80"}, "http.public_url", "is missing"),
    ({"http__public_url": "https://a"}, "http.public", "is missing"),
    ({"http__public": "127.0.0.1:8080", "http__public_url": "https://a"}, "http.public", "must differ"),
    ({"http__public": "h:1", "http__public_url": "m.example.com"}, "http.public_url", "must be https://host"),
    ({"http__public": "h:1", "http__public_url": "https://a/?b"}, "http.public_url", "must be https://host"),
    ({"http__proxies": "10.0.0.1/8"}, "http.proxies", "must be a network such as 10.0.0.0/8 or 2001:db8::/32"),
    ({"http__machines": ["198.51.100.0/24", 7]}, "http.machines[1]", "must be a network"),
    ({"http__machines": ["m.example.com"]}, "http.machines[0]", "or an IP address"),
    ({"keys": {"a": 1}}, "keys", "must be a list"),
    ({"keys": [KEY | {"name": "a" * 65}]}, "keys[0].name", "at most 64"),
    ({"keys": [KEY | {"sha256": "abc"}]}, "keys[0].sha256", "64 hex digits"),
    ({"keys": [KEY | {"sha256": hashlib.sha256().hexdigest()}]}, "keys[0].sha256", "empty key"),
    ({"keys": [KEY | {"scopes": []}]}, "keys[0].scopes", "at least 1"),
    ({"keys": [KEY | {"scopes": ["raed"]}]}, "keys[0].scopes[0]", "did you mean read?"),
    ({"keys": [KEY, KEY]}, "keys[1].name", "twice"),
    ({"keys": [KEY, KEY | {"name": "b"}]}, "keys[1].sha256", "twice"),
    ({"webhooks": HOOK}, "webhooks", "must be a list"),
    ({"webhooks": ["https://a"]}, "webhooks[0]", "must be a mapping"),
    ({"webhooks": [{key: HOOK[key] for key in HOOK if key != "url"}]}, "webhooks[0].url", "is missing"),
    ({"webhooks": [HOOK | {"secret": "a"}]}, "webhooks[0].secret", "did you mean secrets?"),
    ({"webhooks": [HOOK, HOOK | {"secrets": [whsec(b"o" * 24)]}]}, "webhooks[1].name", "twice"),
    ({"webhooks": [HOOK | {"name": "a b"}]}, "webhooks[0].name", "must be 1 to 64"),
    ({"webhooks": [HOOK | {"secrets": []}]}, "webhooks[0].secrets", "at least 1"),
    ({"webhooks": [HOOK | {"secrets": [SECRET]}]}, "webhooks[0].secrets[0]", "must be whsec_ and the base64 of 24"),
    ({"webhooks": [HOOK | {"secrets": whsec(b"k" * 23)}]}, "webhooks[0].secrets", "of 24 to 64 bytes; echo"),
    ({"webhooks": [HOOK | {"secrets": [whsec(b"k" * 65)]}]}, "webhooks[0].secrets[0]", "of 24 to 64 bytes"),
    ({"webhooks": [HOOK | {"secrets": [7]}]}, "webhooks[0].secrets[0]", "must be whsec_"),
    ({"webhooks": [HOOK | {"secrets": [*HOOK["secrets"]] * 2}]}, "webhooks[0].secrets", "remove the second"),
    ({"webhooks": [HOOK, HOOK | {"name": "b"}]}, "webhooks[1].secrets", "known to 'ledger' too"),
    ({"webhooks": [HOOK | {"events": []}]}, "webhooks[0].events", "at least 1"),
    ({"webhooks": [HOOK | {"events": ["message."]}]}, "webhooks[0].events[0]", "words between dots"),
    ({"webhooks": [HOOK | {"events": "messages.*"}]}, "webhooks[0].events", "'messages.*' is no event that is told"),
    ({"webhooks": [HOOK | {"events": "message.sending"}]}, "webhooks[0].events", "did you mean message."),
    (
        {
            "webhooks": [HOOK | {"events": ["message.sent", "call.*"]}],
            "events": {"states": ["sent"], "acts": ["opened"]},
        },
        "webhooks[0].events",
        "'call.*' is no event that is told: events.states and events.acts say what is told",
    ),
    (
        {"webhooks": [HOOK | {"events": ["message.opened", "person.opened", "person.uninstalled"]}]}
        | {"events": {"states": ["sent"], "acts": ["opened"]}},
        "webhooks[0].events",
        "'person.uninstalled' is no event that is told",
    ),
    ({"webhooks": [HOOK | {"timeout": "2m"}]}, "webhooks[0].timeout", "at most 1m"),
    ({"webhooks": [HOOK | {"concurrency": 0}]}, "webhooks[0].concurrency", "at least 1"),
    ({"webhooks": [HOOK | {"private": "no"}]}, "webhooks[0].private", "true or false"),
    *(
        ({"webhooks": [HOOK | {"url": url}]}, "webhooks[0].url", phrase)
        for url, phrase in [
            ("ledger.example.com", "must be https://host/path"),
            ("ftp://ledger.example.com", "must be https://host/path"),
            ("https://", "must be https://host/path"),
            ("https://a b.example.com", "must be https://host/path"),
            (f"https://h:{SECRET}/", "must be https://host/path"),
            ("https://[1::/", "must be https://host/path"),
            ("http://ledger.example.com", "must be https://; inside your own network, say private: true"),
            ("https://ledger.example.com:444", "the port 443 or 8443; inside your own network, say private: true"),
            (f"https://u:{SECRET}@ledger.example.com", "no user and no password"),
            ("https://ledger.example.com/#a", "must hold no #"),
            *(
                (f"https://{host}/", "must not be an address inside a network; inside your own, say private: true")
                for host in ("127.0.0.1", "10.0.0.7", "169.254.169.254", "[::1]", "[::ffff:10.0.0.7]", "[fe80::1%251]")
            ),
            *((f"https://{host}/", "private: true") for host in ("localhost", "LOCALHOST.", "2130706433", "127.1")),
        ]
    ),
    (
        {"webhooks": [HOOK | {"private": True, "url": f"http://u:{SECRET}@10.0.0.7"}]},
        "webhooks[0].url",
        "no user and no password",
    ),
    ({"providers": {}}, "providers", "is missing"),
    ({"providers": ["box"]}, "providers", "must be a mapping"),
    ({"providers__Box": {"kind": "inbox"}}, "providers.Box", "must be named with"),
    ({"providers__b": None}, "providers.b.kind", "must be one of fcm, http, inbox, smtp"),
    ({"providers__b": "inbox"}, "providers.b", "must be a mapping"),
    ({"providers__b": {"kind": "twilio"}}, "providers.b.kind", "did you mean twilio_"),
    ({"providers__b": {"kind": ["inbox"]}}, "providers.b.kind", "must be one of"),
    ({"providers__b": {"kind": "inbox", "keeps": 1}}, "providers.b.keeps", "did you mean keep?"),
    ({"providers__b": {"kind": "inbox", "keep": 0}}, "providers.b.keep", "at least 1"),
    ({"providers__b": MAIL | {"paces": "10/s"}}, "providers.b.paces", "did you mean pace?"),
    *(
        ({"providers__b": MAIL | {"pace": rate}}, "providers.b.pace", "must be a rate such as 10/s, 600/m or 36000/h")
        for rate in ("10", "0/s", "10/d", "-1/s", "1.5/s", "10/s ", "", 10, ["10/s"], {"limit": 10})
    ),
    (
        {"providers__b": TEXT | {"account_sid": "SK1"}},
        "providers.b.account_sid",
        "must be AC and the digits and letters",
    ),
    ({"providers__b": MAIL | {"helo": "a b"}}, "providers.b.helo", "such as mail.example.com"),
    ({"providers__b": TEXT | {"auth_token": {"env": "NONE"}}}, "providers.b.auth_token", "NONE is not set"),
    ({"providers__b": TEXT | {"auth_token": {"env": "EMPTY"}}}, "providers.b.auth_token", "EMPTY is empty"),
    ({"providers__b": TEXT | {"auth_token": {"env": "HALF"}}}, "providers.b.auth_token", "HALF is not UTF-8"),
    ({"providers__b": TEXT | {"auth_token": {"env": "A B"}}}, "providers.b.auth_token", "must name an environment"),
    ({"providers__b": TEXT | {"auth_token": {"file": "none"}}}, "providers.b.auth_token", "no file '/nowhere/none'"),
    ({"providers__b": TEXT | {"auth_token": {"file": "/dev/zero"}}}, "providers.b.auth_token", "no file"),
    ({"providers__b": TEXT | {"auth_token": {"file": "a\0b"}}}, "providers.b.auth_token", "no file"),
    ({"routes": {}}, "routes", "is missing"),
    ({"routes__emial": ["box"]}, "routes.emial", "did you mean email?"),
    ({"routes__sms": ["bax"]}, "routes.sms", "did you mean box?"),
    ({"routes__sms": []}, "routes.sms", "at least 1"),
    ({"routes__sms": "box:70"}, "routes.sms", "did you mean box?"),
    ({"routes__sms": 5}, "routes.sms", "must be text"),
    ({"routes__sms": {"bax": 70}}, "routes.sms", "did you mean box?"),
    ({"routes__sms": {}}, "routes.sms", "at least 1"),
    ({"routes__sms": {"box": "70"}}, "routes.sms.box", "must be a whole number"),
    ({"routes__sms": {"box": -1}}, "routes.sms.box", "at least 0"),
    ({"routes__sms": {"box": 0}}, "routes.sms", "a weight above 0"),
    ({"routes__sms": ["box", 5]}, "routes.sms[1]", "must be text"),
    ({"routes__sms": ["box", "box"]}, "routes.sms", "twice"),
    ({"providers__mail": MAIL, "routes__sms": ["mail"]}, "routes.sms", "cannot send on this channel; these can: box"),
    ({"events": {}}, "events", "needs somebody to hear them: add broker or webhooks"),
    ({"broker": "amqp://h", "events__states": ["faild"]}, "events.states[0]", "did you mean failed?"),
    ({"broker": "amqp://h", "events__exchange": "a b"}, "events.exchange", "must be 1 to 127 of A-Z, a-z, 0-9"),
    ({"retention__messages": "0d"}, "retention.messages", "longer than nothing"),
    ({"retention__contacts": "10000d"}, "retention.contacts", "at most 3660d"),
    (
        {
            "retention__contacts": "2d",
            "policy__categories": {"code": {"abuse": {"limit": 5, "per": "30d"}}},
            "policy__caps": [],
        },
        "retention.contacts",
        "'abuse' in the policy looks back 30d",
    ),
    (
        {"retention__contacts": "7d", "policy__caps": [CAP, {"name": "long", "limit": 1, "per": "7d"}]},
        "retention.contacts",
        "at least 8d: 'long' in the policy looks back 7d",
    ),
    ({"retention__contacts": "2d", "policy__minimum_gap": "36h"}, "retention.contacts", "at least 3d: 'minimum_gap'"),
    ({"worker__in_flight": {"critcal": 1}}, "worker.in_flight.critcal", "did you mean critical?"),
    ({"worker__in_flight": {"bulk": True}}, "worker.in_flight.bulk", "whole number"),
    ({"report": "20%"}, "report", "must be a mapping, such as report: {targets: [{step: clicked, at_least: 20%}]}"),
    ({"report": {"target": []}}, "report.target", "did you mean targets?"),
    ({"report__targets": {}}, "report.targets", "must be a list"),
    (
        {"report__targets": [{"at_least": "20%"}]},
        "report.targets[0].step",
        "is missing: add how far messages are to come",
    ),
    ({"report__targets": [{"step": "clicked"}]}, "report.targets[0].at_least", "is missing: add the share"),
    ({"report__targets": [CLICKED | {"step": "cliked"}]}, "report.targets[0].step", "did you mean clicked?"),
    ({"report__targets": [CLICKED | {"step": "requested"}]}, "report.targets[0].step", "must be a later step"),
    ({"report__targets": [CLICKED | {"at_least": 0.2}]}, "report.targets[0].at_least", "less than 100%, such as 20%"),
    (
        {"report__targets": [CLICKED | {"at_least": "100%"}]},
        "report.targets[0].at_least",
        "less than 100%, such as 20%",
    ),
    ({"report__targets": [CLICKED | {"at_least": "0%"}]}, "report.targets[0].at_least", "less than 100%, such as 20%"),
    ({"report__targets": [CLICKED | {"of": "clicked"}]}, "report.targets[0].of", "must differ from its step"),
    ({"report__targets": [CLICKED | {"stage": "in"}]}, "report.targets[0].stage", "belongs to step: converted"),
    ({"report__targets": [CLICKED | {"of_stage": "in"}]}, "report.targets[0].of_stage", "belongs to of: converted"),
    ({"report__targets": [CLICKED | {"category": "nws"}]}, "report.targets[0].category", "did you mean news?"),
    ({"report__targets": [CLICKED | {"channel": "emial"}]}, "report.targets[0].channel", "did you mean email?"),
    ({"report__targets": [CLICKED, CLICKED]}, "report.targets[1]", "is written twice"),
    ({"providers__box__cost": "0.01"}, "providers.box.cost", 'such as cost: {amount: "0.0075", currency: USD}'),
    ({"providers__box__cost": {"amount": "1"}}, "providers.box.cost.currency", "is missing: add its currency"),
    ({"providers__box__cost": COST | {"amount": "-1"}}, "providers.box.cost.amount", "must be an amount"),
    ({"providers__box__cost": COST | {"amount": True}}, "providers.box.cost.amount", "must be an amount"),
    ({"providers__box__cost": COST | {"currency": "usd"}}, "providers.box.cost.currency", "three capital letters"),
    ({"providers__box__cost": COST | {"unit": "sms"}}, "providers.box.cost.unit", "is not a known key"),
    ({"worker__attempt": 10}, "worker.attempt", "duration with its unit"),
    ({"worker__attempt": "10"}, "worker.attempt", "duration with its unit"),
    ({"worker__attempt": "11m"}, "worker.attempt", "at most 10m"),
    ({"worker__attempt": ""}, "worker.attempt", "duration with its unit"),
    ({"policy": None}, "policy", "is missing"),
    ({"policy": []}, "policy", "must be a mapping"),
    ({"policy__countries": "JP"}, "policy.countries", "must be a mapping, such as countries: {JP: Asia/Tokyo}"),
    ({"policy__categories": {"a": False}}, "policy.categories.a", "must be a mapping, key: value"),
    (
        {"policy__categories": {"a": {"abuse": False}}},
        "policy.categories.a.abuse",
        "such as abuse: {limit: 5, per: 1h}",
    ),
    ({"policy__presets": [{"preset": "us-tx"}]}, "policy.presets[0].category", "is missing: say which categories"),
    ({"worker": "10s"}, "worker", "must be a mapping, such as worker: {attempt: 10s}"),
    ({"policy__send_window": []}, "policy.send_window", "did you mean send_windows?"),
    ({"policy__categories": {"a": {"label": "x"}}}, "policy.categories.a.label", "is not a known key; there are"),
    ({"policy__countries": {"JPN": "Asia/Tokyo"}}, "policy.countries.JPN", "did you mean JP?"),
    ({"policy__countries": {"UK": "Europe/London"}}, "policy.countries.UK", "did you mean GB?"),
    ({"policy__countries": {"jp": "Asia/Tokyo"}}, "policy.countries.jp", "did you mean JP?"),
    ({"policy__countries": {"JP": "Asia/Tokio"}}, "policy.countries.JP", "did you mean Asia/Tokyo?"),
    ({"policy__timezone": None}, "policy.timezone", "is missing"),
    ({"policy__timezone": "Asia/Tokio"}, "policy.timezone", "did you mean Asia/Tokyo?"),
    ({"policy__timezone": "../etc/passwd"}, "policy.timezone", "IANA"),
    ({"policy__week_start": "mondy"}, "policy.week_start", "did you mean monday?"),
    ({"policy__categories": {}}, "policy.categories", "is missing"),
    ({"policy__categories": {"a.b": {}}}, "policy.categories['a.b']", "must be named with"),
    ({"policy__categories": {"a": {"priority": "critcal"}}}, "policy.categories.a.priority", "did you mean critical?"),
    ({"policy__categories": {"a": {"caps": "none"}}}, "policy.categories.a.caps", "must be exempt, or be left out"),
    ({"policy__categories": {"a": {"counts": "yes"}}}, "policy.categories.a.counts", "true or false"),
    ({"policy__categories": {"a": {"abuse": {"per": "1h"}}}}, "policy.categories.a.abuse.limit", "is missing"),
    (
        {"policy__categories": {"a": {"abuse": {"limit": 0, "per": "1h"}}}},
        "policy.categories.a.abuse.limit",
        "at least 1",
    ),
    ({"policy__categories": {"a": {"abuse": {"limit": 1, "per": "day"}}}}, "policy.categories.a.abuse.per", "duration"),
    ({"policy__categories": {"a": {"abuse": {"limit": 1, "per": "31d"}}}}, "policy.categories.a.abuse.per", "most 30d"),
    (
        {"policy__categories": {"a": {"when_capped": "next_chanel"}}},
        "policy.categories.a.when_capped",
        "mean next_channel?",
    ),
    ({"policy__categories": {"a": {"collapse": True}}}, "policy.categories.a.collapse", "must be newest, or be left"),
    ({"policy__categories": {"a": {"channels": []}}}, "policy.categories.a.channels", "at least 1"),
    ({"policy__categories": {"a": {"channels": "smss"}}}, "policy.categories.a.channels", "did you mean sms?"),
    ({"policy__categories": {"a": {"channels": ["sms", "sms"]}}}, "policy.categories.a.channels", "twice"),
    ({"policy__categories": {"a": {"channels": "push"}}}, "policy.categories.a.channels", "no route to go by (push)"),
    ({"policy__categories": {"a": {"on_unknown": "retry"}}}, "policy.categories.a.on_unknown", "leave, repeat"),
    ({"policy__categories": {"a": {"repeat_after": "soon"}}}, "policy.categories.a.repeat_after", "such as"),
    ({"policy__categories": {"a": {"repeat_aftr": "5m"}}}, "policy.categories.a.repeat_aftr", "mean repeat_after?"),
    ({"providers__text": VENDOR | {"lookup": LOOK_UP}}, "providers.text.lookup", "did you mean look_up?"),
    ({"providers__text": VENDOR | {"look_up": "https://x"}}, "providers.text.look_up", "reply: {status: state}"),
    (
        {"providers__text": VENDOR | {"look_up": LOOK_UP | {"url": "https://x/{atempt}"}}},
        "providers.text.look_up.url",
        "{attempt} where our reference belongs",
    ),
    (
        {"providers__text": VENDOR | {"look_up": LOOK_UP | {"reply": {"staus": "a"}}}},
        "providers.text.look_up.reply.staus",
        "did you mean status?",
    ),
    (
        {"providers__text": VENDOR | {"look_up": LOOK_UP | {"statuses": {"done": "deliverd"}}}},
        "providers.text.look_up.statuses.done",
        "did you mean delivered?",
    ),
    ({"policy__caps": CAP}, "policy.caps", "must be a list"),
    ({"policy__caps": [CAP | {"limit": 0}]}, "policy.caps[0].limit", "at least 1, less would never send"),
    ({"policy__caps": [CAP, CAP | {"name": "b", "limit": 1.5}]}, "policy.caps[1].limit", "whole number"),
    ({"policy__caps": [CAP | {"limit": True}]}, "policy.caps[0].limit", "whole number"),
    ({"policy__caps": [CAP | {"per": "fortnight"}]}, "policy.caps[0].per", "day, week or month"),
    ({"policy__caps": [CAP | {"per": "400d"}]}, "policy.caps[0].per", "at most 366d"),
    ({"policy__caps": [CAP | {"per": 24}]}, "policy.caps[0].per", "day, week or month"),
    ({"policy__caps": [CAP | {"scope": ["person"]}]}, "policy.caps[0].scope[0]", "user, channel, category, campaign"),
    ({"policy__caps": [CAP | {"scope": ["labels."]}]}, "policy.caps[0].scope[0]", "labels.NAME"),
    ({"policy__caps": [CAP | {"enforce": 0}]}, "policy.caps[0].enforce", "such as 25%"),
    ({"policy__caps": [CAP | {"enforce": "101%"}]}, "policy.caps[0].enforce", "0% (shadow: only recorded) to 100%"),
    ({"policy__caps": [CAP | {"since": "yesterday"}]}, "policy.caps[0].since", "such as 2026-11-01"),
    ({"policy__caps": [CAP | {"since": "2026-02-30"}]}, "policy.caps[0].since", "such as 2026-11-01"),
    ({"policy__caps": [CAP | {"label": {"team": []}}]}, "policy.caps[0].label.team", "at least 1"),
    ({"policy__caps": [CAP | {"label": {"team": 7}}]}, "policy.caps[0].label.team", "in quotes"),
    ({"policy__caps": [CAP | {"label": "growth"}]}, "policy.caps[0].label", "mapping, such as label: {team: growth}"),
    ({"policy__caps": [CAP | {"reserve": 1}]}, "policy.caps[0].reserve", "a mapping, such as reserve: {high: 1}"),
    ({"policy__caps": [CAP | {"country": "UK"}]}, "policy.caps[0].country", "did you mean GB?"),
    ({"policy__caps": [CAP | {"country": False}]}, "policy.caps[0].country", "in quotes"),
    ({"policy__caps": [CAP | {"reserve": {"hihg": 1}}]}, "policy.caps[0].reserve.hihg", "did you mean high?"),
    ({"policy__caps": [CAP | {"reserve": {"high": 0}}]}, "policy.caps[0].reserve.high", "at least 1"),
    (
        {"policy__caps": [CAP | {"limit": 3, "reserve": {"high": 1, "critical": 2}}]},
        "policy.caps[0].reserve",
        "keeps 3 of 3 places, the least urgent could never be sent: keep fewer, or raise the limit",
    ),
    ({"policy__caps": [CAP | {"channel": "smss"}]}, "policy.caps[0].channel", "did you mean sms?"),
    ({"policy__caps": [CAP | {"category": "new"}]}, "policy.caps[0].category", "'new' is not under policy.categories"),
    ({"policy__caps": [CAP | {"name": "a b"}]}, "policy.caps[0].name", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -"),
    ({"policy__caps": [CAP | {"label": {"team": ""}}]}, "policy.caps[0].label.team", "must not be empty"),
    ({"policy__caps": [CAP, CAP]}, "policy.caps[1].name", "twice"),
    ({"policy__caps": [CAP | {"name": "abuse"}]}, "policy.caps[0].name", "limit per address is called: choose another"),
    ({"policy__caps": [CAP], "policy__quiet_hours": [NIGHT | {"name": "a"}]}, "policy.quiet_hours[0].name", "twice"),
    ({"policy__minimum_gap": 2}, "policy.minimum_gap", "duration with its unit"),
    ({"policy__minimum_gap": [{"name": "a"}]}, "policy.minimum_gap[0].gap", "is missing"),
    ({"policy__quiet_hours": [NIGHT | {"from": "9 pm"}]}, "policy.quiet_hours[0].from", "in quotes"),
    ({"policy__quiet_hours": [NIGHT | {"from": "24:00"}]}, "policy.quiet_hours[0].from", '"23:59"'),
    ({"policy__quiet_hours": [NIGHT | {"to": "24:01"}]}, "policy.quiet_hours[0].to", '"24:00"'),
    ({"policy__quiet_hours": [NIGHT | {"days": "mondays"}]}, "policy.quiet_hours[0].days", "did you mean monday?"),
    ({"policy__quiet_hours": [NIGHT | {"release_over": "24h"}]}, "policy.quiet_hours[0].release_over", "less than 24h"),
    ({"policy__send_windows": [{"hours": []}]}, "policy.send_windows[0].hours", "at least 1"),
    ({"policy__send_windows": [{"hours": "11-12"}]}, "policy.send_windows[0].hours", '"11:00-12:00"'),
    ({"policy__send_windows": [{"hours": "11:00-11:00"}]}, "policy.send_windows[0].hours", '"00:00-24:00"'),
    ({"policy__send_windows": [WINDOW, WINDOW]}, "policy.send_windows[1].name", "twice"),
    (
        {"policy__send_windows": [WINDOW | {"release_over": "1h"}]},
        "policy.send_windows[0].release_over",
        "shorter than each of the hours, and one lasts 1h",
    ),
    ({"policy__holidays": [{"name": "a"}]}, "policy.holidays[0].country", "is missing"),
    ({"policy__holidays": [{"name": "a", "country": "JPN"}]}, "policy.holidays[0].country", "did you mean JP?"),
    ({"policy__holidays": [{"name": "a", "country": "uk"}]}, "policy.holidays[0].country", "did you mean GB?"),
    ({"policy__holidays": [{"name": "a", "country": "ZZ"}]}, "policy.holidays[0].country", "are known, such as JP"),
    (
        {"policy__holidays": [{"name": "a", "country": "US", "subdivision": "NYC"}]},
        "policy.holidays[0].subdivision",
        "did you mean NY?",
    ),
    (
        {"policy__holidays": [{"name": "a", "country": "JP", "subdivision": "13"}]},
        "policy.holidays[0].subdivision",
        "leave it out",
    ),
    ({"policy__quiet_hours": [NIGHT | {"to": "21:00"}]}, "policy.quiet_hours[0].to", "nothing would ever be sent"),
    (
        {"policy__quiet_hours": [NIGHT | {"to": "20:59"}], "worker__attempt": "2m"},
        "policy.quiet_hours[0].to",
        "leaves no time to send, for an attempt takes 120s (worker.attempt): shorten these hours",
    ),
    ({"policy__quiet_hours": [{"name": "a", "to": "08:00"}]}, "policy.quiet_hours[0].from", "is missing"),
    ({"policy__quiet_hours": [NIGHT | {"start": "1"}]}, "policy.quiet_hours[0].start", "there are name"),
]


@pytest.mark.parametrize(("changes", "path", "phrase"), WRONG, ids=[f"{p}: {w}" for _, p, w in WRONG])
def test_what_is_wrong_is_told_with_its_path_once_and_alone(changes: dict[str, object], path: str, phrase: str) -> None:
    ((where, problem),) = (fault for fault in faults(small(**changes)) if not _follows(fault[0], path))

    assert where == path
    assert phrase in problem
    assert SECRET not in problem


def _follows(where: str, path: str) -> bool:
    """Whether a fault is only another view of the one at ``path``."""
    return (path in ("providers", "routes") and where != path) or (where == "keys[1].sha256" and path == "keys[1].name")


def test_faults_of_all_kinds_and_parts_are_told_at_once_in_the_files_order() -> None:
    found = faults("""
store: mysql://h
brokr: amqp://h
http: {private: 0.0.0.0:80}
providers:
  text: {kind: twilio_sms, account_sid: AC1, auth_token: {env: NONE}, sender: "+15005550006"}
  box: {kind: inbox, keep: 0}
routes: {email: [txet], sms: [text]}
retention: {contacts: 5d}
policy:
  timezone: Asia/Tokio
  categories:
    news: {priority: urgent, expires_after: 5}
    codes: {channels: push}
  caps:
    - {name: a, limit: 0, per: 24h}
    - {name: b, limit: 1, per: month, category: nwes}
  quiet_hours: [{name: b, from: 21:00, to: 08:00}, {name: b, from: "21:00", to: "08:00"}]
""")

    assert [path for path, _ in found] == [
        "store",
        "brokr",
        "http.private",
        "providers.text.auth_token",
        "providers.box.keep",
        "routes.email",
        "retention.contacts",
        "policy.timezone",
        "policy.categories.news.priority",
        "policy.categories.news.expires_after",
        "policy.categories.codes.channels",
        "policy.caps[0].limit",
        "policy.caps[1].category",
        "policy.quiet_hours[0].from",
        "policy.quiet_hours[1].name",
    ]


def test_a_firebase_project_is_named_as_its_console_shows_it() -> None:
    found = faults(small(providers__b={"kind": "fcm", "service_account": "none", "project_id": "My Shop"}))

    (problem,) = (problem for path, problem in found if path == "providers.b.project_id")
    assert "as the Firebase console shows it, such as shop-1a2b3" in problem


def test_an_error_reads_as_one_line_for_each_fault() -> None:
    error = ConfigError([Fault("a.b", "is wrong"), Fault("", "is broken", 3), Fault("a.c", "is wrong", 4)])

    assert str(error) == "a.b: is wrong\nline 3: is broken\nline 4: a.c: is wrong"


# -------------------------------------------------------------------------------------------------------------- secrets


def test_a_secret_in_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "gateway.yaml").write_text(DESIGN.replace("{env: TWILIO_TOKEN}", "{file: token}"))

    found = config.load(tmp_path / "gateway.yaml", {})

    assert found.providers["text"].auth_token.get_secret_value() == SECRET
    assert SECRET not in f"{found} {found!r}"


@pytest.mark.parametrize(
    ("content", "phrase"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "UTF-8"), (b"a" * 70_000, "longer than")]
)
def test_a_secret_in_an_unusable_file_is_a_fault(tmp_path: Path, content: bytes, phrase: str) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(ConfigError, match=phrase) as caught:
        config.parse(small(store={"file": "token"}), {}, base=tmp_path)
    assert [fault.path for fault in caught.value.faults] == ["store"]


def test_urls_by_reference_work_and_are_not_printed() -> None:
    environ = {"STORE": f"postgresql://u:{SECRET}@h/d", "BROKER": f"amqp://u:{SECRET}@h/"}
    for broker in ({"env": "BROKER"}, {"url": {"env": "BROKER"}}):
        found = config.parse(small(store={"env": "STORE"}, broker=broker), environ, base=Path())

        assert found.store == environ["STORE"]
        assert found.broker is not None
        assert found.broker.url == environ["BROKER"]
        assert SECRET not in f"{found} {found!r} {found.broker}"


def test_a_provider_or_category_may_be_called_env_or_file() -> None:
    found = parse(small(providers={"file": {"kind": "inbox"}}, routes__sms=["file"], policy__categories={"env": {}}))

    assert set(found.policy.categories) == {"env"}


def test_a_secret_where_no_secret_belongs_is_not_told() -> None:
    reference = {"env": "TWILIO_TOKEN"}
    text = small(
        routes__sms=[reference],
        policy__timezone=reference,
        policy__caps=[CAP | {"category": reference}, CAP | {"name": "b", "channel": reference}],
    )

    found = faults(text)

    assert {path for path, _ in found} >= {"routes.sms", "policy.timezone", "policy.caps[0].category"}
    assert SECRET not in str(found)


def test_no_fault_leaves_a_secret_in_its_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(small(broker={"env": "TWILIO_TOKEN"}))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in repr(caught.value)


# ------------------------------------------------------------------------------------------------------------- mangling

_words = st.sampled_from([*SECTIONS, *POLICY_SECTIONS, *Channel, "kind", "env", "file"]) | st.sampled_from(
    [
        "exempt",
        "day",
        "24h",
        "21:00",
        "0s",
        "[::1]:80",
        "amqp://h",
        "inbox",
        "http",
        "UTC",
        "11:00-12:00",
        "24:00",
        "0%",
        "JP",
        "labels.team",
        "us-marketing",
        "2026-11-01",
        "a b",
        "\x00",
        "\ud800",
        "../..",
    ]
)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(string.printable, max_size=20), st.text(), _words
)
_references = st.sampled_from(
    [("env", "TWILIO_TOKEN"), ("env", "MAIL_PASSWORD"), ("env", "NONE"), ("file", "/dev/null")]
).map(lambda reference: dict([reference]))
_json = st.recursive(
    _scalars | _references,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)

BASES = [
    yaml.safe_load(SAMPLE.read_text()),
    yaml.safe_load(DESIGN),
    json.loads(small(**MEANT)),
    yaml.safe_load(DESIGN)
    | {
        "providers": {
            "mail": MAIL | {"username": "u", "password": {"env": "MAIL_PASSWORD"}},
            "text": TEXT | {"auth_token": {"env": "TWILIO_TOKEN"}},
            "call": TEXT | {"kind": "twilio_voice", "auth_token": {"env": "TWILIO_TOKEN"}},
            "text_backup": {
                "kind": "http",
                "channels": ["sms"],
                "url": "https://vendor.example/send",
                "headers": {"Authorization": {"env": "TWILIO_TOKEN"}},
                "body": {"text": "{text}"},
            },
            "app": {"kind": "fcm", "service_account": {"env": "TWILIO_TOKEN"}},
        }
    },
]


def _places(node: object, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place, *(inner for key, item in items for inner in _places(item, (*place, key)))]


@st.composite
def _mangled(draw: st.DrawFn) -> object:
    document = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(_places(document)[1:]))
        node = document
        for step in way:
            node = node[step]
        match draw(st.sampled_from(["replace", "add", "remove"])):
            case "replace":
                node[last] = draw(_json)
            case "remove":
                del node[last]
            case "add" if isinstance(node, dict):
                node[draw(_words | st.text(max_size=8))] = draw(_json)
            case _:
                node.append(draw(_json))
        if not document:
            break
    return document


def faults_if_any(text: str) -> tuple[Config | None, ConfigError | None]:
    try:
        return parse(text), None
    except ConfigError as error:
        return None, error


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_mangled())
def test_whatever_is_mangled_gives_a_configuration_or_its_faults_and_no_secret(document: dict[str, object]) -> None:
    found, error = faults_if_any(json.dumps(document, ensure_ascii=True))

    if error:
        shown = f"{error} {error!r}"
        shown.encode()  # a terminal can show it
        assert error.faults
        assert all(fault.problem and "\n" not in str(fault) for fault in error.faults)
        assert SECRET not in shown
    if found:
        for category in found.policy.categories.values():
            found.policy.rules(category)
        assert found.retention.contacts > found.policy.longest_window
        assert SECRET not in repr([found.broker, found.http, found.worker, found.retention])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_cut_out_of_the_text_gives_a_configuration_or_its_faults(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([SAMPLE.read_text(), DESIGN]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    patch = data.draw(st.text("[]{}:,&*!|>'\"%@`#- \n\t\\uUx0", max_size=6))

    _, error = faults_if_any(text[:start] + patch + text[end:])

    assert SECRET not in str(error)
