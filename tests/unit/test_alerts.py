"""Do the alerting rules that ship with the gateway ask for what it says?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics

RULES = Path(__file__).parents[2] / "helm" / "alerts.yml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]


def told() -> dict[str, set[str]]:
    """Each metric that the gateway has, as Prometheus names it, with its labels."""
    found = {}
    for metric in Metrics("0").registry._collector_to_names:
        (family,) = metric.describe()
        counted = "_total" if family.type == "counter" else ""
        found[family.name + counted] = set(metric._labelnames)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_asks_for_metrics_and_labels_that_there_are(alert: dict[str, Any]) -> None:
    metrics = told()
    named = re.findall(r"(gateway_\w+)(?:\{([^}]*)\})?", alert["expr"])
    assert named
    for metric, matchers in named:
        assert metric in metrics
        wanted = set(re.findall(r"(\w+)=", matchers))
        assert wanted <= metrics[metric], f"{metric} has no {wanted - metrics[metric]}"
    for labels in re.findall(r"by \(([^)]*)\)", alert["expr"]):
        assert {label.strip() for label in labels.split(",")} <= set.union(*(metrics[name] for name, _ in named))


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_says_what_to_do_and_how_urgent_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]


def test_what_grows_old_is_watched() -> None:
    asked = " ".join(alert["expr"] for alert in ALERTS)
    assert {"gateway_oldest_unknown_seconds", "gateway_oldest_unclosed_seconds"} <= set(
        re.findall(r"gateway_\w+", asked)
    )
