"""The Grafana dashboard: what is drawn, as a table, and the JSON that is made of it (`make chart` writes it).

Another panel is another line of ``ROWS``. The dashboard's variables are added to each metric by themselves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["timeseries", "stat"]

FILE: Final = Path(__file__).parent / "dashboards" / "decorum.json"
UID: Final = "decorum"
"""Stays, so that links to it do."""
SELECTED: Final = 'namespace=~"$namespace", job=~"$job"'

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_OPTIONS: Final[Mapping[Kind, Any]] = {
    "timeseries": {
        "tooltip": {"mode": "multi", "sort": "desc"},
        "legend": {"displayMode": "list", "placement": "bottom"},
    },
    "stat": {"textMode": "value_and_name", "reduceOptions": {"calcs": ["lastNotNull"]}},
}


@dataclass(frozen=True)
class Query:
    """What one line, or one line for each value of some labels, is drawn of."""

    expr: str
    legend: str
    """``{{label}}`` in it stands for a label."""

    def named(self, word: str) -> Query:
        """The same, where a panel has several."""
        return Query(self.expr, f"{self.legend} {word}".strip())


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    """Grafana's name of it."""
    queries: tuple[Query, ...]
    kind: Kind


def panel(title: str, unit: str, *queries: Query, kind: Kind = "timeseries") -> Panel:
    """A line of the table."""
    return Panel(title, unit, queries, kind)


def rate(metric: str, *by: str) -> Query:
    """How many a second, for each value of the labels."""
    return _by("sum", f"rate({metric}[$__rate_interval])", by)


def hourly(metric: str, *by: str) -> Query:
    """How many in the last hour."""
    return _by("sum", f"increase({metric}[1h])", by)


def daily(metric: str, *by: str) -> Query:
    """How many in the last day."""
    return _by("sum", f"increase({metric}[1d])", by)


def quantile(share: float, histogram: str, *by: str) -> Query:
    """What this share of the observations does not exceed."""
    buckets = _by("sum", f"rate({histogram}_bucket[$__rate_interval])", (*by, "le"))
    return Query(f"histogram_quantile({share}, {buckets.expr})", _legend(by)).named(f"p{share * 100:g}")


def ratio(part: str, whole: str, *by: str) -> Query:
    """How much of one counter another is."""
    return Query(f"{rate(part, *by).expr} / {rate(whole, *by).expr}", _legend(by))


def most(gauge: str, *by: str) -> Query:
    """Of what each process tells, the highest: what is known of the whole store, they all tell."""
    return _by("max", gauge, by)


def least(gauge: str, *by: str) -> Query:
    """Of what each process tells, the lowest."""
    return _by("min", gauge, by)


def total(gauge: str, *by: str) -> Query:
    """Of what each process tells, the sum."""
    return _by("sum", gauge, by)


def _by(how: str, what: str, labels: tuple[str, ...]) -> Query:
    return Query(f"{how} by ({', '.join(labels)}) ({what})" if labels else f"{how}({what})", _legend(labels))


def _legend(labels: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


_LEFT: Final = 'gateway_departures_total{band!="0"}'
LIKELIER: Final = Query(
    f"{daily(_LEFT, 'act', 'band').expr}"
    f" / on (act) group_left {daily(_LEFT, 'act').expr}"
    f" / on (band) group_left {most('gateway_pressure_ratio', 'band').expr}",
    "{{act}} {{band}}",
)
"""The part of those who leave that a band has, by its part of those who are contacted: 1 is no likelier than others."""

ROWS: Final[Mapping[str, tuple[Panel, ...]]] = {
    "Traffic": (
        panel("Requests", "reqps", rate("gateway_requests_received_total", "via", "answer")),
        panel("Turned away for want of room", "reqps", rate("gateway_requests_turned_away_total", "via")),
        panel("Messages at their end", "cps", rate("gateway_messages_total", "state")),
        panel("Messages at their end, by category", "cps", rate("gateway_messages_total", "category", "state")),
        panel("Why they were not sent", "cps", rate('gateway_messages_total{state!="sent"}', "state", "reason")),
    ),
    "Delivery": (
        panel("Attempts", "cps", rate("gateway_attempts_total", "channel", "state")),
        panel("From acceptance to hand-off, median", "s", quantile(0.5, "gateway_delivery_latency_seconds", "channel")),
        panel("From acceptance to hand-off, p99", "s", quantile(0.99, "gateway_delivery_latency_seconds", "channel")),
        panel("Receipts", "cps", rate("gateway_delivery_reports_total", "provider", "status")),
        panel(
            "Calls that got no answer",
            "percentunit",
            ratio('gateway_attempt_errors_total{error="unconfirmed"}', "gateway_attempts_total", "provider"),
        ),
        panel("Age of the oldest unknown outcome", "s", most("gateway_oldest_unknown_seconds").named("age")),
    ),
    "People": (
        panel("What people did", "cps", rate('gateway_acts_total{agent="human"}', "act", "channel")),
        panel("What machines did", "cps", rate("gateway_machine_acts_total", "act", "sign")),
        panel("Links followed, by what they were answered", "cps", rate("gateway_links_followed_total", "answer")),
        panel(
            "Opens and clicks not remembered, or taken for a machine's later, in an hour",
            "short",
            hourly("gateway_acts_lost_total", "act"),
            hourly("gateway_acts_withdrawn_total").named("withdrawn"),
        ),
        panel(
            "Opt-outs, and links to unsubscribe that are cut short or too old",
            "cps",
            rate("gateway_optouts_total", "via"),
            rate("gateway_unsubscribe_links_dead_total", "via").named("by a dead link"),
        ),
        panel(
            "Who left in an hour, by contacts in the week before",
            "short",
            hourly("gateway_departures_total", "act", "band"),
        ),
        panel("People contacted in the week, by how often", "percentunit", most("gateway_pressure_ratio", "band")),
        panel("How much likelier people leave under pressure", "short", LIKELIER),
        panel("What people answered", "cps", rate("gateway_replies_total", "provider", "wish")),
        panel("Mail that came back", "cps", rate("gateway_bounces_total", "was")),
        panel("Events that services reported", "cps", rate("gateway_reports_total", "event", "answer")),
    ),
    "Providers": (
        panel(
            "Used (1), probed (0.5), left alone (0)", "short", least("gateway_provider_health", "channel", "provider")
        ),
        panel("Weight", "short", least("gateway_provider_weight", "channel", "provider")),
        panel(
            "Transitions in an hour",
            "short",
            hourly("gateway_provider_transitions_total", "channel", "provider", "state"),
        ),
        panel("Errors", "cps", rate("gateway_attempt_errors_total", "provider", "error")),
        panel("Time to answer, p99", "s", quantile(0.99, "gateway_attempt_duration_seconds", "channel", "provider")),
        panel("Vendors asked what became of attempts", "cps", rate("gateway_look_ups_total", "provider", "answer")),
        panel(
            "Pace",
            "cps",
            rate("gateway_pace_used_total", "provider").named("used"),
            most("gateway_pace_limit", "provider").named("limit"),
        ),
    ),
    "Caps and quiet hours": (
        panel("Put off, by rule", "cps", rate("gateway_deferrals_total", "rule")),
        panel("Put off, by category", "cps", rate("gateway_deferrals_total", "category", "rule")),
        panel("What rules in shadow would hold", "cps", rate("gateway_shadow_verdicts_total", "category", "rule")),
        panel("Held until they expired, in an hour", "short", hourly("gateway_regrets_total", "category", "rule")),
        panel(
            "How full caps are, of those contacted lately",
            "percentunit",
            most("gateway_cap_persons_ratio", "rule", "used"),
        ),
        panel("People in the sample", "short", most("gateway_sampled_persons").named("people"), kind="stat"),
        panel("Policy in force", "short", total("gateway_policy_info", "number", "hash"), kind="stat"),
        panel(
            "Configuration not in force",
            "short",
            most("gateway_policy_refused").named("faulty"),
            most("gateway_config_needs_restart", "section").named("needs a restart"),
        ),
        panel("Decided anew after a change", "cps", rate("gateway_policy_swept_total").named("messages")),
    ),
    "Queues and age": (
        panel("Messages not settled", "short", most("gateway_due_messages").named("in the store")),
        panel("Messages under way", "short", total("gateway_in_flight", "priority")),
        panel("Since the oldest not settled expired", "s", most("gateway_oldest_unclosed_seconds").named("age")),
        panel("Age of the oldest put off", "s", most("gateway_oldest_deferred_seconds").named("age")),
        panel("Events that wait for webhooks", "short", most("gateway_webhook_waiting_events", "webhook")),
        panel("Age of the oldest of them", "s", most("gateway_webhook_oldest_seconds", "webhook")),
        panel("Calls of webhooks", "cps", rate("gateway_webhook_calls_total", "webhook", "outcome")),
        panel("Events not published", "short", most("gateway_outbox_events").named("in the store")),
        panel("Events published", "cps", rate("gateway_events_published_total").named("events")),
        panel(
            "Messages that workers may have died of",
            "short",
            most("gateway_suspects").named("run alone"),
            hourly("gateway_suspect_crashes_total").named("deaths in an hour"),
        ),
        panel("Closed without an end, in an hour", "short", hourly("gateway_messages_closed_total", "state")),
    ),
    "Runtime": (
        panel("Processes by version", "short", total("gateway_build_info", "version"), kind="stat"),
        panel("Ready", "short", least("gateway_ready", "part")),
        panel("Configurations read, in an hour", "short", hourly("gateway_policy_loads_total", "result")),
        panel("Tasks of the event loop", "short", most("gateway_tasks", "instance")),
        panel("Free part of the disk under SQLite", "percentunit", least("gateway_disk_free_ratio", "instance")),
        panel("Memory", "bytes", most("process_resident_memory_bytes", "instance")),
        panel("Processor time", "percentunit", rate("process_cpu_seconds_total", "instance")),
    ),
}


def document() -> dict[str, Any]:
    """The dashboard as Grafana takes it."""
    return {
        "uid": UID,
        "title": "Decorum",
        "description": "The multichannel message gateway that knows when not to send",
        "tags": ["decorum"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_sources(), _variable("namespace"), _variable("job")]},
        "panels": list(_panels()),
    }


def text() -> str:
    """The file's content."""
    return json.dumps(document(), indent=1) + "\n"


def selected(query: str) -> str:
    """The query, of what the dashboard's variables select alone."""

    def narrowed(found: re.Match[str]) -> str:
        matchers = ", ".join(filter(None, (SELECTED, found["matchers"])))
        return f"{found['metric']}{{{matchers}}}"

    return re.sub(r"\b(?P<metric>(?:gateway|process)_\w+)(?:\{(?P<matchers>[^}]*)\})?", narrowed, query)


def _panels() -> Iterator[dict[str, Any]]:
    number = top = 0
    for title, panels in ROWS.items():
        number += 1
        place = {"h": 1, "w": _WIDTH * _COLUMNS, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        for index, each in enumerate(panels):
            number += 1
            down, across = divmod(index, _COLUMNS)
            place = {"h": _HEIGHT, "w": _WIDTH, "x": across * _WIDTH, "y": top + down * _HEIGHT}
            yield {"id": number, "gridPos": place, **_drawn(each)}
        top += -(-len(panels) // _COLUMNS) * _HEIGHT


def _drawn(of: Panel) -> dict[str, Any]:
    return {
        "type": of.kind,
        "title": of.title,
        "datasource": _source(),
        "fieldConfig": {"defaults": {"unit": of.unit, "min": 0}, "overrides": []},
        "options": _OPTIONS[of.kind],
        "targets": [
            {"refId": ref, "datasource": _source(), "legendFormat": query.legend, "expr": selected(query.expr)}
            for ref, query in zip(ascii_uppercase, of.queries, strict=False)
        ],
    }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def _sources() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    """One to choose values of a label with; all of them unless chosen, and those that have no such label too."""
    query = f"label_values(gateway_build_info, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": _source(),
        "definition": query,
        "query": {"query": query, "refId": label},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
