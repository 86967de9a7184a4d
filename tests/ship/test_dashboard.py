"""Is the dashboard what its table says, and does it ask for what the gateway tells, all of it?"""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from helm import dashboard
from tests.ship.expressions import amiss, asked, told
from tests.ship.programs import run
from tests.ship.test_alerts import ALERTS

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT: dict[str, Any] = json.loads(dashboard.FILE.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DOCUMENT["panels"] if panel["type"] != "row"]
QUERIES: list[dict[str, Any]] = [target for panel in PANELS for target in panel["targets"]]


def test_the_file_is_what_the_table_makes() -> None:
    """If not: make chart."""
    assert dashboard.FILE.read_text() == dashboard.text()


@pytest.mark.parametrize("query", QUERIES, ids=[query["expr"][:60] for query in QUERIES])
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: dict[str, Any]) -> None:
    assert amiss(query["expr"], query["legendFormat"]) == []


def test_a_misspelt_metric_label_or_legend_would_be_found() -> None:
    assert amiss("sum(gateway_requests_recieved_total)") == ["gateway_requests_recieved_total"]
    assert amiss('sum(gateway_ready{parts="store"})') == ["gateway_ready{parts}"]
    assert amiss("sum by (port) (gateway_ready)") == ["by port"]
    assert amiss("sum by (part) (gateway_ready)", "{{port}}") == ["legend port"]
    assert amiss("sum by (le) (gateway_attempt_duration_seconds)") == ["gateway_attempt_duration_seconds", "by le"]
    assert amiss("up") == ["no metric of ours"]


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query["expr"].replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in run("promtool", "check", "rules", file)


def test_every_metric_of_ours_is_drawn_or_alerted_of() -> None:
    shown = {metric for query in QUERIES for metric, _ in asked(query["expr"])}
    shown |= {metric for alert in ALERTS for metric, _ in asked(alert["expr"])}
    shown |= {name.removesuffix("_bucket") + end for name in shown for end in ("_sum", "_count") if "_bucket" in name}
    assert {name for name in told() if name.startswith("gateway_")} - shown == set()


def test_every_query_is_of_what_is_chosen_above() -> None:
    chosen = [variable["name"] for variable in DOCUMENT["templating"]["list"]]
    assert chosen == ["datasource", "namespace", "job"]
    for query in QUERIES:
        assert query["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all({"namespace", "job"} <= labels for _, labels in asked(query["expr"]))


def test_links_to_it_stay_good() -> None:
    assert DOCUMENT["uid"] == "decorum"
    assert "id" not in DOCUMENT  # Grafana gives it


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in DOCUMENT["panels"]}) == len(DOCUMENT["panels"])
    places = [panel["gridPos"] for panel in DOCUMENT["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    titles = [panel["title"] for panel in DOCUMENT["panels"]]
    assert len(set(titles)) == len(titles)


def test_its_rows_are_what_ops_ask_for() -> None:
    rows = [panel["title"] for panel in DOCUMENT["panels"] if panel["type"] == "row"]
    assert rows == [
        "Traffic",
        "Delivery",
        "People",
        "Providers",
        "Caps and quiet hours",
        "Queues and age",
        "Runtime",
    ]
