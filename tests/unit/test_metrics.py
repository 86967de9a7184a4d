"""Can what users send make a new series, and would Prometheus take every name?"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.acts import LEFT, Deed, Noted, Owed, band
from gateway.agents import Sign
from gateway.config import parse
from gateway.decide import Attempting, Behind, Deferred, Ended, Judge
from gateway.ids import new_id
from gateway.intake import Accepted, Conflict, Incoming, Intake, Malformed
from gateway.message import Address, Attempt, AttemptState, Message, MessageState, Priority, Refusal
from gateway.metrics import LOST, Metrics
from gateway.outcome import Outcome, accepted, bug, failed
from gateway.pressure import PRESSED, USED, Measured
from gateway.reports import UNREAD, Recorded, Report, Reused, Unmatched
from gateway.store import Claimed, Lease, Lost, WebhookView
from gateway.store.precedence import Precedence
from gateway.webhooks import standard as webhooks
from providers import Act, Agent, Channel, ProviderError, ReceiptStatus
from ratelimit import Ruling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config import Policy
    from gateway.store import Known, NewMessage, ParkedInput

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MOST = 2000
"""Series that one process may have."""


def series(metrics: Metrics) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def message(category: str = "news", **fields: Any) -> Message:
    given = {
        "id": new_id(),
        "source": "tests",
        "request": new_id(),
        "person": new_id(),
        "category": category,
        "channels": (Channel.SMS,),
        "priority": Priority.BULK,
        "accepted_at": NOW,
        "starts_at": NOW,
        "expires_at": NOW + timedelta(days=1),
        "campaign": None,
        "body": {},
    }
    return Message(**(given | fields))


def claimed(about: Message, provider: str = "one", channel: Channel = Channel.SMS) -> Claimed:
    to = Address(channel, new_id())
    attempt = Attempt(new_id(), about.id, 1, channel, provider, new_id(), AttemptState.INTENT, NOW, NOW + SECOND)
    return Claimed(Lease(about, 1), attempt, Attempting(to, provider, NOW + SECOND, "UTC", NOW + SECOND), frozenset())


HELD = Ruling("daily", permits=False, next=NOW + SECOND, why="2 of 2")
IN_SHADOW = Ruling("tighter", permits=False, next=NOW + SECOND, why="1 of 1", enforced=False)


def outcomes() -> list[Outcome]:
    errors = [failed(kind("code")) for kind in ProviderError.__subclasses__()]
    return [accepted("ref"), bug(), *errors]


class Forgetful:
    """A store to which everything is new."""

    def __init__(self) -> None:
        self.precedence = Precedence()

    async def accept(self, new: Sequence[NewMessage]) -> list[Known | None]:
        return [None] * len(new)

    async def park(self, inputs: Sequence[ParkedInput]) -> None: ...


async def test_nothing_that_a_request_says_makes_a_series() -> None:
    config = parse(
        "{providers: {one: {kind: inbox}}, routes: {sms: [one]}, policy: {timezone: UTC, categories: {news: {}}}}",
        {},
        base=Path(),
    )
    metrics = Metrics("test")
    judge = Judge(config.policy, 1, config.routes, {}, timedelta(seconds=10))
    intake = Intake(Forgetful(), lambda: judge, metrics)  # type: ignore[arg-type]

    def asked(category: str, number: int) -> Incoming:
        word = f"x{number}"
        body = {
            "id": word,
            "source": word,
            "user": word,
            "category": category,
            "campaign": word,
            "labels": {word: word},
            "content": {"sms": {"text": word}},
            "stage": word,
            "variant": word,
        }
        return Incoming(orjson.dumps(body), ("amqp", "http", "file")[number % 3], None)

    await intake.accept([asked("news", 0), asked("news", 1), asked("news", 2)])
    await intake.accept([asked("gone", 0), asked("gone", 1), asked("gone", 2)])
    before = series(metrics)
    for start in range(0, 3000, 500):
        await intake.accept([asked(f"category-{n}", n) for n in range(start, start + 500)])
        await intake.accept([asked("news", n) for n in range(start, start + 500)])
    assert series(metrics) == before


def test_nothing_that_a_message_or_an_answer_says_makes_a_series() -> None:
    metrics = Metrics("test")

    def everything() -> None:
        about = message(campaign=new_id(), body={"labels": {new_id(): new_id()}})
        metrics.decided(about, Deferred(NOW, "daily", (IN_SHADOW, replace(IN_SHADOW, why=new_id()))))
        metrics.decided(about, Behind(new_id(), same_line=True))
        metrics.decided(about, Ended(MessageState.FAILED, f"rejected:{new_id()}"))
        metrics.decided(about, claimed(about))
        metrics.decided(about, Lost())
        for kind in ProviderError.__subclasses__():
            metrics.attempted(claimed(about), failed(kind(new_id(), new_id())), 0.1, NOW)
        metrics.attempted(claimed(about), accepted(new_id()), 0.1, NOW)
        metrics.received("http", Accepted(new_id(), new_id(), MessageState.WAITING, repeated=False))
        metrics.received("http", Conflict(new_id(), new_id()))
        metrics.received("http", Malformed((), new_id()))

    everything()
    before = series(metrics)
    for _ in range(1000):
        everything()
    assert series(metrics) == before


@given(st.text(), st.text())
@settings(max_examples=50, deadline=None)
def test_a_vendors_codes_are_no_labels(code: str, detail: str) -> None:
    metrics = Metrics("test")
    for kind in ProviderError.__subclasses__():
        metrics.attempted(claimed(message()), failed(kind(code, detail)), 0.1, NOW)
    errors = {dict(labels)["error"] for name, labels in series(metrics) if name == "gateway_attempt_errors_total"}
    assert errors == {"unavailable", "throttled", "unconfirmed", "rejected", "unreachable", "misconfigured"}


def fill(metrics: Metrics, categories: int, rules: int, providers: int) -> None:
    """All that can happen, and more than can happen together, under a configuration of that size."""
    channel_of = {f"provider-{n}": list(Channel)[n % len(Channel)] for n in range(providers)}
    kinds = [kind.__name__.lower() for kind in ProviderError.__subclasses__()]
    why = {
        MessageState.SENT: ["accepted"],
        MessageState.FAILED: kinds,
        MessageState.EXPIRED: ["expires_at"],
        MessageState.REFUSED: list(Refusal),
        MessageState.UNKNOWN: ["unconfirmed", "crash"],
        MessageState.PARKED: ["bug", "unknown_category"],
        MessageState.CANCELLED: ["cancelled"],
    }
    for about in [message(f"category-{n}") for n in range(categories)]:
        for state, reasons in why.items():
            for reason in reasons:
                metrics.decided(about, Ended(state, reason))
        for rule in (f"rule-{n}" for n in range(rules)):
            metrics.decided(about, Ended(MessageState.EXPIRED, "expires_at", (replace(HELD, rule=rule),)))
            metrics.decided(about, Deferred(NOW, rule, (replace(IN_SHADOW, rule=rule),)))
        for rule in ("throttled", "busy", "retry", "repeat", "look_up", "pace", "bug"):
            metrics.decided(about, Deferred(NOW, rule))
        metrics.decided(about, Behind(new_id(), same_line=True))
        for (provider, channel), outcome in product(channel_of.items(), outcomes()):
            metrics.attempted(claimed(about, provider, channel), outcome, 0.1, NOW)
    for provider, status in product(channel_of, [*ReceiptStatus, "forged"]):
        metrics.reported(provider, status)
    for priority in Priority:
        metrics.in_flight(priority.word, 1)
    for via in ("http", "amqp", "file"):
        metrics.received(via, Accepted("", "", MessageState.WAITING, repeated=False))
        metrics.received(via, Accepted("", "", MessageState.WAITING, repeated=True))
        metrics.received(via, Conflict("", ""))
        metrics.received(via, Malformed(()))
    answers = (
        *(Recorded("", None, repeated=repeated) for repeated in (False, True)),
        Unmatched(""),
        Reused(""),
        Malformed(()),
    )
    for event, answer in product(get_args(Report.model_fields["event"].annotation), answers):
        metrics.informed(event, answer)
    metrics.informed(UNREAD, Malformed(()))
    for act, agent, channel in product(Act, Agent, [*Channel, None]):
        deed = Deed(act, agent, "service", "")
        metrics.noted([Noted(deed, Owed("", channel=channel), band(9) if act in LEFT else None)])
    full = dict.fromkeys(USED, 0.25)
    metrics.sampled(Measured(1, {f"rule-{n}": full for n in range(rules)}, dict.fromkeys(PRESSED, 0.5)))
    for via in ("one_click", "profile", "callback", "api", "stop"):
        metrics.optouts.labels(via).inc()
    for act, sign in product((Act.OPENED, Act.CLICKED), Sign):
        metrics.noted([Noted(Deed(act, Agent.MACHINE, "link", "", why=sign), Owed("", channel=Channel.EMAIL), None)])
        metrics.lost(act)
    for answer in ("redirected", "unknown", "unavailable"):
        metrics.followed(answer)
    metrics.withdrawn.inc()
    for part in ("store", "broker", "worker", "gateway"):
        metrics.ready.labels(part).set(1)
    for name in ("one", "two", "three"):
        for outcome in webhooks.Outcome:
            metrics.webhook_calls.labels(name, outcome).inc()
        for reason in LOST:
            metrics.webhook_lost.labels(name, reason).inc()
        metrics.webhook(name, WebhookView(1, NOW, 0, (), None, None, None, None, None), NOW)
    metrics.refused()
    metrics.taken(["store", "broker", "http", "keys", "providers", "events", "worker"])
    metrics.swept.inc()


def test_a_big_configuration_has_a_bounded_number_of_series() -> None:
    metrics = Metrics("test")
    fill(metrics, categories=20, rules=15, providers=12)
    assert len(series(metrics)) <= MOST


def test_names_are_as_prometheus_wants_them() -> None:
    metrics = Metrics("1.2.3")
    fill(metrics, categories=2, rules=2, providers=2)
    for family in metrics.registry.collect():
        assert re.fullmatch(r"(gateway|process)_[a-z][a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            end = sample.name.removeprefix(family.name)
            match family.type:
                case "counter":
                    assert end in ("_total", "_created")
                case "histogram":
                    assert family.name.endswith("_seconds")  # base units
                    assert end in ("_bucket", "_sum", "_count", "_created")
                case kind:
                    assert (kind, end) == ("gauge", "")
                    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_what_is_scraped_can_be_parsed() -> None:
    metrics = Metrics("1.2.3")
    fill(metrics, categories=1, rules=1, providers=1)
    text = generate_latest(metrics.registry).decode()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"gateway_requests_received", "gateway_attempts", "gateway_attempt_duration_seconds"} <= families
    assert 'gateway_build_info{version="1.2.3"} 1.0' in text


def test_two_processes_in_one_keep_their_numbers_apart() -> None:
    one, other = Metrics("1"), Metrics("2")
    one.published.inc()
    assert other.registry.get_sample_value("gateway_events_published_total") == 0


def test_an_answer_is_counted_under_what_it_was() -> None:
    metrics = Metrics("test")
    metrics.received("amqp", Accepted("", "", MessageState.WAITING, repeated=True))
    metrics.received("amqp", Malformed(()))
    counted = [
        metrics.registry.get_sample_value("gateway_requests_received_total", {"via": "amqp", "answer": answer})
        for answer in ("accepted", "repeated", "malformed", "conflict")
    ]
    assert counted == [None, 1, 1, None]


def test_the_time_to_delivery_is_measured_from_acceptance_and_only_of_what_was_accepted() -> None:
    metrics = Metrics("test")
    about = message(accepted_at=NOW - timedelta(hours=9))
    metrics.attempted(claimed(about), accepted("ref"), 0.2, NOW)
    metrics.attempted(claimed(about), bug(), 0.2, NOW)
    labels = {"channel": "sms"}
    assert metrics.registry.get_sample_value("gateway_delivery_latency_seconds_count", labels) == 1
    assert metrics.registry.get_sample_value("gateway_delivery_latency_seconds_sum", labels) == 9 * 3600
    both = {"channel": "sms", "provider": "one"}
    assert metrics.registry.get_sample_value("gateway_attempt_duration_seconds_count", both) == 2


def policy(limit: int) -> Policy:
    rules = f"{{timezone: UTC, categories: {{news: {{}}}}, caps: [{{name: daily, limit: {limit}, per: 24h}}]}}"
    return parse(
        f"{{providers: {{one: {{kind: inbox}}}}, routes: {{sms: [one]}}, policy: {rules}}}", {}, base=Path()
    ).policy


def of(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of one series each, by their labels' values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_only_the_policy_in_force_is_shown() -> None:
    metrics, one, other = Metrics("test"), policy(1), policy(2)
    for number, each in enumerate((one, other, one), 1):
        metrics.applied(each, number)
        assert of(metrics, "gateway_policy_info") == {(each.hash[:12], str(number)): 1}
    assert of(metrics, "gateway_policy_loads_total") == {("applied",): 3, ("refused",): 0}


def test_a_refused_file_is_shown_until_a_good_one_is_read() -> None:
    metrics = Metrics("test")
    assert of(metrics, "gateway_policy_refused") == {(): 0}
    metrics.refused()
    metrics.refused()
    assert of(metrics, "gateway_policy_refused") == {(): 1}
    metrics.taken(["http"])
    assert of(metrics, "gateway_policy_refused") == {(): 0}
    assert of(metrics, "gateway_config_needs_restart") == {("http",): 1}
    metrics.taken([])
    assert of(metrics, "gateway_config_needs_restart") == {}
    assert of(metrics, "gateway_policy_loads_total") == {("applied",): 0, ("refused",): 2}


def test_how_it_stands_with_a_webhook_is_shown() -> None:
    metrics = Metrics("test")
    metrics.webhook("ledger", WebhookView(3, NOW - timedelta(minutes=2), 1, (), None, None, None, None, None), NOW)
    metrics.webhook("crm", WebhookView(0, None, 0, (), NOW, "http_410", None, None, None), NOW)
    assert of(metrics, "gateway_webhook_enabled") == {("ledger",): 1, ("crm",): 0}
    assert of(metrics, "gateway_webhook_waiting_events") == {("ledger",): 3, ("crm",): 0}
    assert of(metrics, "gateway_webhook_oldest_seconds") == {("ledger",): 120, ("crm",): 0}


def test_what_a_rule_in_shadow_would_have_held_back_is_counted_whether_it_went_or_not() -> None:
    metrics, about = Metrics("test"), message()
    enforced = replace(IN_SHADOW, rule="daily", enforced=True)
    permitting = replace(IN_SHADOW, rule="weekly", permits=True)
    gone = claimed(about)
    metrics.decided(about, replace(gone, step=replace(gone.step, shadow=(IN_SHADOW,))))
    metrics.decided(about, Deferred(NOW, "daily", (enforced, IN_SHADOW, permitting)))
    metrics.decided(about, Deferred(NOW, "daily", (enforced, permitting)))
    assert of(metrics, "gateway_shadow_verdicts_total") == {("news", "tighter"): 2}


def test_a_regret_is_counted_once_by_the_first_rule_that_held_the_message_to_the_last() -> None:
    metrics, about = Metrics("test"), message()
    metrics.decided(about, Ended(MessageState.EXPIRED, "expires_at", (HELD, replace(HELD, rule="night"))))
    metrics.decided(about, Ended(MessageState.EXPIRED, "expires_at"))
    metrics.decided(about, Ended(MessageState.REFUSED, Refusal.CAPPED, (HELD,)))
    assert of(metrics, "gateway_regrets_total") == {("news", "daily"): 1}


def test_regrets_of_a_large_configuration_are_told_by_rule_alone() -> None:
    metrics = Metrics("test")
    for category, rule in product(range(50), range(20)):
        held = (replace(HELD, rule=f"rule-{rule}"),)
        for _ in range(2):
            metrics.decided(message(f"category-{category}"), Ended(MessageState.EXPIRED, "expires_at", held))
    counted = of(metrics, "gateway_regrets_total")
    assert len(counted) == 60 + 20
    assert {value for (category, _), value in counted.items() if category != "other"} == {2}
    assert {value for (category, _), value in counted.items() if category == "other"} == {94}


def test_what_is_sampled_replaces_what_was() -> None:
    metrics = Metrics("test")
    metrics.sampled(Measured(3, {"daily": {"none": 0.5, "full": 0.5}, "gone": {"none": 1}}, {"1-2": 1}))
    metrics.sampled(Measured(2, {"daily": {"none": 0.25, "full": 0.75}}, {"3-5": 1}))
    assert of(metrics, "gateway_cap_persons_ratio") == {("daily", "none"): 0.25, ("daily", "full"): 0.75}
    assert of(metrics, "gateway_pressure_ratio") == {("3-5",): 1}
    assert of(metrics, "gateway_sampled_persons") == {(): 2}
