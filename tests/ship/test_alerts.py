"""Do the alerting rules that ship with the gateway ask for what it says, and fire when they should and only then?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.ship.expressions import amiss, asked
from tests.ship.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RULES = Path(__file__).parents[2] / "helm" / "alerts.yml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]

every = pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])


@every
def test_an_alert_asks_for_metrics_and_labels_that_there_are(alert: dict[str, Any]) -> None:
    assert amiss(alert["expr"]) == []


@every
def test_an_alert_says_what_to_do_and_how_urgent_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]


@every
def test_an_alert_keeps_installations_apart(alert: dict[str, Any]) -> None:
    assert all("namespace, job" in labels for labels in re.findall(r"by \(([^)]*)\)", alert["expr"]))


def test_what_grows_old_is_watched() -> None:
    named = {metric for alert in ALERTS for metric, _ in asked(alert["expr"])}
    assert {"gateway_oldest_unknown_seconds", "gateway_oldest_unclosed_seconds"} <= named


def test_promtool_finds_nothing_to_complain_of() -> None:
    assert f"{len(ALERTS)} rules found" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


# ------------------------------------------------------------------------------------------------- when they fire

WHERE = 'namespace="messaging", job="decorum"'


@dataclass(frozen=True)
class Case:
    """Courses of things, a value a step: one that the alert is meant for, and one that is nearly as bad."""

    ill: Mapping[str, str]
    """Series by their name and labels, as promtool writes them."""
    well: Mapping[str, str]
    at: str
    """By when it fires."""
    not_before: str
    """When it does not fire yet."""
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Besides severity, namespace and job."""
    well_too: Mapping[str, str] = field(default_factory=dict)
    step: str = "1m"


CASES: Mapping[str, Case] = {
    "DecorumOutcomeUnknown": Case(
        {"gateway_oldest_unknown_seconds": "5460x30"},
        {"gateway_oldest_unknown_seconds": "5400x30"},
        "11m",
        "9m",
        "Nobody has known for 1h 31m 0s whether a message was sent",
    ),
    "DecorumOutcomesUnknownMany": Case(
        {
            'gateway_attempt_errors_total{provider="text", error="unconfirmed"}': "0+6x60",
            'gateway_attempts_total{provider="text", channel="sms", state="unknown"}': "0+6x60",
            'gateway_attempts_total{provider="text", channel="sms", state="accepted"}': "0+94x60",
        },
        {
            'gateway_attempt_errors_total{provider="text", error="unconfirmed"}': "0+4x60",
            'gateway_attempt_errors_total{provider="text", error="rejected"}': "0+50x60",
            'gateway_attempts_total{provider="text", channel="sms", state="unknown"}': "0+4x60",
            'gateway_attempts_total{provider="text", channel="sms", state="accepted"}': "0+96x60",
        },
        "13m",
        "9m",
        "One in twenty calls of text gets no answer",
        {"provider": "text"},
    ),
    "DecorumMessageUnclosed": Case(
        {"gateway_oldest_unclosed_seconds": "960x30"},
        {"gateway_oldest_unclosed_seconds": "900x30"},
        "11m",
        "9m",
        "A message expired 16m 0s ago and has not come to its end",
    ),
    "DecorumMessagesClosed": Case(
        {'gateway_messages_closed_total{state="unknown"}': "0x10 1x20"},
        {'gateway_messages_closed_total{state="unknown"}': "3x30"},
        "11m",
        "9m",
        "Messages were closed as unknown, and will never be known better",
        {"state": "unknown"},
    ),
    "DecorumLookUpsFail": Case(
        {'gateway_look_ups_total{provider="text", answer="failed"}': "0+0.2x90"},
        {
            'gateway_look_ups_total{provider="text", answer="failed"}': "0+0.16x90",
            'gateway_look_ups_total{provider="text", answer="nothing"}': "0+1x90",
        },
        "60m",
        "30m",
        "text cannot be asked what became of attempts",
        {"provider": "text"},
    ),
    "DecorumWebhookDisabled": Case(
        {'gateway_webhook_enabled{webhook="crm", instance="a"}': "1x5 0x25"},
        {'gateway_webhook_enabled{webhook="crm", instance="a"}': "1x30"},
        "7m",
        "4m",
        "The webhook crm has answered 410 Gone, and hears of nothing any more",
        {"webhook": "crm"},
    ),
    "DecorumWebhookLosesEvents": Case(
        {'gateway_webhook_events_lost_total{webhook="crm", reason="given_up"}': "0x10 1x20"},
        {'gateway_webhook_events_lost_total{webhook="crm", reason="given_up"}': "3x30"},
        "12m",
        "9m",
        "The webhook crm will not hear of some events any more (given_up)",
        {"webhook": "crm", "reason": "given_up"},
    ),
    "DecorumWebhookBehind": Case(
        {'gateway_webhook_oldest_seconds{webhook="crm"}': "3660x30"},
        {'gateway_webhook_oldest_seconds{webhook="crm"}': "3600x30"},
        "11m",
        "9m",
        "An event has waited for the webhook crm for 1h 1m 0s",
        {"webhook": "crm"},
    ),
    "DecorumNotReady": Case(
        {'gateway_ready{part="broker", instance="a"}': "0x30", 'gateway_ready{part="broker", instance="b"}': "0x30"},
        {'gateway_ready{part="broker", instance="a"}': "0x30", 'gateway_ready{part="broker", instance="b"}': "1x30"},
        "6m",
        "4m",
        "In no process of the gateway the broker works",
        {"part": "broker"},
    ),
    "DecorumTurnsAway": Case(
        {'gateway_requests_turned_away_total{via="http"}': "0+1x30"},
        {'gateway_requests_turned_away_total{via="http"}': "7x30"},
        "7m",
        "4m",
        "Requests by http are turned away, since there is no room to keep them",
        {"via": "http"},
    ),
    "DecorumDiskFillsUp": Case(
        {'gateway_disk_free_ratio{instance="a"}': "0.15x30"},
        {'gateway_disk_free_ratio{instance="a"}': "0.2x30"},
        "16m",
        "14m",
        "15% of the disk under SQLite are free",
        {"instance": "a"},
    ),
    "DecorumEventsWait": Case(
        {"gateway_outbox_events": "20000x30"},
        {"gateway_outbox_events": "10000x30"},
        "16m",
        "14m",
        "20k events have not been published",
    ),
    "DecorumPolicyRefused": Case(
        {"gateway_policy_refused": "1x30"},
        {"gateway_policy_refused": "1x3 0x30"},
        "6m",
        "4m",
        "The configuration on disk is faulty, and a process that restarts would not start",
    ),
    "DecorumRestartNeeded": Case(
        {'gateway_config_needs_restart{section="providers"}': "1x90"},
        {'gateway_config_needs_restart{section="providers"}': "1x50 stale"},
        "61m",
        "59m",
        "The section providers of the configuration has changed and is not in force",
        {"section": "providers"},
    ),
    "DecorumPoison": Case(
        {"gateway_suspect_crashes_total": "0x10 1x20"},
        {"gateway_suspect_crashes_total": "2x30"},
        "11m",
        "9m",
        "A message has killed the worker that ran it alone",
    ),
    "DecorumProviderLeftAlone": Case(
        {'gateway_provider_health{channel="sms", provider="text", instance="a"}': "0 0.5 0 0.5 0x30"},
        {
            'gateway_provider_health{channel="sms", provider="text", instance="a"}': "0x30",
            'gateway_provider_health{channel="sms", provider="text", instance="b"}': "1x30",
        },
        "11m",
        "9m",
        "text has not been used for sms for ten minutes",
        {"channel": "sms", "provider": "text"},
    ),
    "DecorumPaceReached": Case(
        {
            'gateway_pace_used_total{provider="text", instance="a"}': "0+300x120",
            'gateway_pace_used_total{provider="text", instance="b"}': "0+300x120",
            'gateway_pace_limit{provider="text", instance="a"}': "10x120",
            'gateway_pace_limit{provider="text", instance="b"}': "10x120",
            'gateway_due_messages{instance="a"}': "1000+60x120",
        },
        {
            'gateway_pace_used_total{provider="text", instance="a"}': "0+540x120",
            'gateway_pace_limit{provider="text", instance="a"}': "10x120",
            'gateway_due_messages{instance="a"}': "1000+60x120",
        },
        "40m",
        "25m",
        "text is handed all that its pace allows, and ever more messages wait",
        {"provider": "text"},
        {
            'gateway_pace_used_total{provider="text", instance="a"}': "0+600x120",
            'gateway_pace_limit{provider="text", instance="a"}': "10x120",
            'gateway_due_messages{instance="a"}': "100000x120",
        },
    ),
    "DecorumCallbacksForged": Case(
        {'gateway_delivery_reports_total{provider="text", status="forged"}': "0x10 16x20"},
        {
            'gateway_delivery_reports_total{provider="text", status="forged"}': "0x10 8x20",
            'gateway_delivery_reports_total{provider="text", status="delivered"}': "0+100x30",
        },
        "12m",
        "9m",
        "Callbacks for text are not signed by its vendor",
        {"provider": "text"},
    ),
    "DecorumCallbacksNotUnderstood": Case(
        {'gateway_delivery_reports_total{provider="text", status="unread"}': "0x10 16x20"},
        {
            'gateway_delivery_reports_total{provider="text", status="unread"}': "0x10 16x20",
            'gateway_delivery_reports_total{provider="text", status="delivered"}': "0+100x30",
        },
        "12m",
        "9m",
        "Nothing is learned from the callbacks for text",
        {"provider": "text"},
    ),
    "DecorumPressureDrivesAway": Case(
        {
            'gateway_departures_total{act="uninstalled", band="0"}': "0+10x160",
            'gateway_departures_total{act="uninstalled", band="1-2"}': "0+0.4x160",
            'gateway_departures_total{act="uninstalled", band="6+"}': "0+0.2x160",
            'gateway_pressure_ratio{band="1-2"}': "0.9x160",
            'gateway_pressure_ratio{band="6+"}': "0.1x160",
        },
        {
            'gateway_departures_total{act="uninstalled", band="0"}': "0+10x160",
            'gateway_departures_total{act="uninstalled", band="1-2"}': "0+0.53x160",
            'gateway_departures_total{act="uninstalled", band="6+"}': "0+0.2x160",
            'gateway_pressure_ratio{band="1-2"}': "0.9x160",
            'gateway_pressure_ratio{band="6+"}': "0.1x160",
        },
        "19h",
        "17h",
        "Who is contacted often leaves three times as often (uninstalled)",
        {"act": "uninstalled"},
        {
            'gateway_departures_total{act="uninstalled", band="6+"}': "0+0.17x160",
            'gateway_pressure_ratio{band="6+"}': "0.1x160",
        },
        "10m",
    ),
    "DecorumRegrets": Case(
        {
            'gateway_regrets_total{category="news", rule="daily"}': "0+130x160",
            'gateway_regrets_total{category="offers", rule="daily"}': "0+120x160",
            'gateway_messages_total{category="news", state="sent", reason="accepted"}': "0+1000x160",
            'gateway_messages_total{category="news", state="expired", reason="expires_at"}': "0+250x160",
        },
        {
            'gateway_regrets_total{category="news", rule="daily"}': "0+150x160",
            'gateway_regrets_total{category="news", rule="night"}': "0+150x160",
            'gateway_messages_total{category="news", state="sent", reason="accepted"}': "0+1000x160",
            'gateway_messages_total{category="news", state="expired", reason="expires_at"}': "0+300x160",
        },
        "2h",
        "50m",
        "For five messages that are sent, one expires that daily held back",
        {"rule": "daily"},
        step="10m",
    ),
    "DecorumActsLost": Case(
        {'gateway_acts_lost_total{act="clicked"}': "0+1x60"},
        {'gateway_acts_lost_total{act="clicked"}': "0x5 1x60"},
        "17m",
        "14m",
        "Opens and clicks are not remembered",
    ),
}
GONE = "DecorumGone"
"""Asks for what is not there, which has no namespace: see below."""


def course(series: Mapping[str, str]) -> list[dict[str, str]]:
    """As promtool takes it: ``3x30`` are 31 threes, ``0+3x30`` grows by three 30 times."""
    whole = []
    for name, values in series.items():
        metric, brace, labels = name.partition("{")
        where = f"{WHERE}, {labels}" if brace else f"{WHERE}}}"
        whole.append({"series": f"{metric}{{{where}", "values": values})
    return whole


def expectation(name: str, at: str, *alerts: dict[str, Any]) -> dict[str, Any]:
    return {"eval_time": at, "alertname": name, "exp_alerts": list(alerts)}


def fired(name: str, summary: str, labels: Mapping[str, str]) -> dict[str, Any]:
    (rule,) = (alert for alert in ALERTS if alert["alert"] == name)
    about = rule["annotations"] | {"summary": summary}
    return {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": about}


def test_every_alert_has_a_case() -> None:
    assert {*CASES, GONE} == {alert["alert"] for alert in ALERTS}
    assert len({*CASES, GONE}) == len(ALERTS)


def played(step: str) -> Iterator[dict[str, Any]]:
    """What promtool is to play in such steps, and what must have fired by when."""
    for name, case in CASES.items():
        if case.step != step:
            continue
        labels = {"namespace": "messaging", "job": "decorum", **case.labels}
        told = [expectation(name, case.not_before), expectation(name, case.at, fired(name, case.summary, labels))]
        yield {"name": f"{name}, ill", "input_series": course(case.ill), "alert_rule_test": told}
        for series in filter(None, (case.well, case.well_too)):
            silent = [expectation(name, case.at)]
            yield {"name": f"{name}, well", "input_series": course(series), "alert_rule_test": silent}
    if step == "1m":
        there = course({'gateway_build_info{version="1"}': "1x5 stale"})
        gone = fired(GONE, "No gateway tells Prometheus anything", {})
        told = [expectation(GONE, "5m"), expectation(GONE, "14m"), expectation(GONE, "17m", gone)]
        yield {"name": GONE, "input_series": there, "alert_rule_test": told}


@pytest.mark.parametrize("step", sorted({case.step for case in CASES.values()}))
def test_alerts_fire_when_they_should_and_only_then(step: str, tmp_path: Path) -> None:
    tests = [{"interval": step, **test} for test in played(step)]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": step, "tests": tests}))
    run("promtool", "test", "rules", file)
