"""Which metrics the gateway has, and whether an expression asks for one or for a label that there is not."""

from __future__ import annotations

import re

from prometheus_client import ProcessCollector

from gateway.metrics import Metrics

OF_PROMETHEUS = {"job", "namespace", "instance"}
"""Labels that a scrape adds to whatever it finds."""
OF_KIND = {"counter": {"_total": set()}, "histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()}}
"""What Prometheus adds to a metric's name, and to its labels, by its type; to others nothing."""


def told() -> dict[str, set[str]]:
    """Each metric that the gateway has, as Prometheus names it, with its labels."""
    found = {}
    for metric in Metrics("0").registry._collector_to_names:
        if isinstance(metric, ProcessCollector):
            found |= {family.name + {"counter": "_total"}.get(family.type, ""): set() for family in metric.collect()}
            continue
        (family,) = metric.describe()
        for ending, labels in OF_KIND.get(family.type, {"": set()}).items():
            found[family.name + ending] = {*metric._labelnames, *labels}  # type: ignore[attr-defined]
    return found


def asked(expression: str) -> list[tuple[str, set[str]]]:
    """Each metric of ours that an expression names, with the labels that it is selected by."""
    found = re.findall(r"\b((?:gateway|process)_\w+)(?:\{([^}]*)\})?", expression)
    return [(metric, set(re.findall(r"(\w+)\s*(?:=|!=)", matchers))) for metric, matchers in found]


def amiss(expression: str, legend: str = "") -> list[str]:
    """What an expression asks for that there is not; ``legend`` is that of the lines it draws."""
    metrics, wrong = told(), []
    named = asked(expression)
    if not named:
        wrong.append("no metric of ours")
    for metric, labels in named:
        if metric not in metrics:
            wrong.append(metric)
        else:
            wrong += [f"{metric}{{{label}}}" for label in labels - metrics[metric] - OF_PROMETHEUS]
    there = set.union(OF_PROMETHEUS, *(metrics.get(metric, set()) for metric, _ in named))
    kept: set[str] = set()
    for how, labels in re.findall(r"\b(by|on) \(([^)]*)\)", expression):
        words = {label.strip() for label in labels.split(",")}
        wrong += [f"{how} {label}" for label in words - there]
        kept |= words if how == "by" else set()
    return wrong + [f"legend {label}" for label in set(re.findall(r"\{\{(\w+)\}\}", legend)) - kept]
