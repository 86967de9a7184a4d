"""Every metric, its labels and their closed sets. No series can be made by what a user sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from gateway.acts import BANDS, LEFT, MOST
from gateway.decide import Attempting, Behind, Deferred, Ended
from gateway.health import State
from gateway.intake import Accepted, Answer, Conflict, Malformed
from gateway.message import MessageState
from gateway.reports import Recorded, Reused, Unmatched
from gateway.store import Claimed
from providers import Act, Agent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from gateway import reports
    from gateway.acts import Noted
    from gateway.config import Policy
    from gateway.message import Message
    from gateway.outcome import Outcome
    from gateway.pressure import Measured
    from gateway.store import Next, WebhookView
    from providers import Channel, Wish

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SHORT = 12
"""Digits of a policy's hash that people and dashboards are shown."""
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600, 3600, 86_400)
_PAIRS = 60
"""Of category and rule, by which regrets are told apart; those of a larger configuration are told by rule alone."""

LOST = ("given_up", "full", "forgotten")
"""Why a webhook will not be called with an event any more: it did not take it for three days; too many waited for it
already; it waited for a month."""

_USED: Mapping[State, float] = {State.CLOSED: 1, State.HALF_OPEN: 0.5, State.OPEN: 0}


class Metrics:
    """What Prometheus is told. One instance a process, with a registry of its own."""

    def __init__(self, version: str) -> None:  # noqa: PLR0915 - one statement a metric
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each of ours, which nobody asks for
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("gateway_build_info", "Constant 1, with the version.", ["version"], registry=registry).labels(
            version
        ).set(1)
        self._received = Counter(
            "gateway_requests_received", "Requests by what they were answered.", ["via", "answer"], registry=registry
        )
        self._turned_away = Counter(
            "gateway_requests_turned_away",
            "Requests told to come again, before acceptance, since there is no room to keep them.",
            ["via"],
            registry=registry,
        )
        self._messages = Counter(
            "gateway_messages",
            "Messages that reached a final state, by why.",
            ["category", "state", "reason"],
            registry=registry,
        )
        self._deferred = Counter(
            "gateway_deferrals",
            "Decisions to wait, by the rule that asked for it.",
            ["category", "rule"],
            registry=registry,
        )
        self._regrets = Counter(
            "gateway_regrets",
            "Messages that expired and were never sent, by the first rule that held them back to the last.",
            ["category", "rule"],
            registry=registry,
        )
        self._pairs: set[tuple[str, str]] = set()
        self._shadows = Counter(
            "gateway_shadow_verdicts",
            "Messages that went although a rule in shadow objected, and decisions to wait that one agreed with.",
            ["category", "rule"],
            registry=registry,
        )
        self._attempts = Counter(
            "gateway_attempts",
            "Calls of providers, by what became of them.",
            ["channel", "provider", "state"],
            registry=registry,
        )
        self._errors = Counter(
            "gateway_attempt_errors",
            "Calls of providers that failed, by the kind of error.",
            ["provider", "error"],
            registry=registry,
        )
        self._duration = Histogram(
            "gateway_attempt_duration_seconds",
            "Time a provider took to answer.",
            ["channel", "provider"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._latency = Histogram(
            "gateway_delivery_latency_seconds",
            "From our acceptance of a message to the provider's, waiting included.",
            ["channel"],
            buckets=_LATENCY,
            registry=registry,
        )
        self._fares = Gauge(
            "gateway_provider_health",
            "1 while a provider is used, 0.5 while a few messages find out whether it may be, 0 while left alone.",
            ["channel", "provider"],
            registry=registry,
        )
        self._weight = Gauge(
            "gateway_provider_weight",
            "Points of a hundred that a provider has on a channel, those that are off for now left out.",
            ["channel", "provider"],
            registry=registry,
        )
        self._turns = Counter(
            "gateway_provider_transitions",
            "How often a provider came to be used, probed or left alone.",
            ["channel", "provider", "state"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "gateway_in_flight", "Messages being worked on by this process.", ["priority"], registry=registry
        )
        self.tasks = Gauge("gateway_tasks", "What goes on at once in this process's event loop.", registry=registry)
        self._receipts = Counter(
            "gateway_delivery_reports",
            "Vendors' callbacks, by what they said.",
            ["provider", "status"],
            registry=registry,
        )
        self._bounces = Counter(
            "gateway_bounces", "Mails that mail servers handed over, by what they were.", ["was"], registry=registry
        )
        self._pace = Gauge(
            "gateway_pace_limit",
            "Units a second that all processes together hand to a provider at most.",
            ["provider"],
            registry=registry,
        )
        self.pace_used = Counter(
            "gateway_pace_used", "Units of its pace that were handed to a provider.", ["provider"], registry=registry
        )
        self.optouts = Counter(
            "gateway_optouts", "People who said no, by the way they said it.", ["via"], registry=registry
        )
        self.dead_links = Counter(
            "gateway_unsubscribe_links_dead",
            "Uses of links to unsubscribe that are cut short or too old: only looked at, or to say something by them.",
            ["via"],
            registry=registry,
        )
        self._replies = Counter(
            "gateway_replies",
            "Texts and keys that people answered with, by what they want; unclear where that cannot be told.",
            ["provider", "wish"],
            registry=registry,
        )
        self._informed = Counter(
            "gateway_reports",
            "Events that services reported, by what they were answered; event is unread of what could not be read.",
            ["event", "answer"],
            registry=registry,
        )
        self._acts = Counter(
            "gateway_acts",
            "What was done with messages, and by whom; channel is none where it belongs to no message.",
            ["act", "agent", "channel"],
            registry=registry,
        )
        self._signs = Counter(
            "gateway_machine_acts",
            "What machines did with messages, by how they are known.",
            ["act", "sign"],
            registry=registry,
        )
        self._followed = Counter(
            "gateway_links_followed", "Links of ours that were followed, by the answer.", ["answer"], registry=registry
        )
        self._lost = Counter(
            "gateway_acts_lost",
            "Opens and clicks that are not remembered, since the store was slow or away.",
            ["act"],
            registry=registry,
        )
        for act in (Act.OPENED, Act.CLICKED):
            self._lost.labels(act)
        self.withdrawn = Counter(
            "gateway_acts_withdrawn",
            "Clicks that were counted as a person's until others showed that they are a machine's.",
            registry=registry,
        )
        self._departures = Counter(
            "gateway_departures",
            "People who opted out or uninstalled, by their contacts in the seven days before.",
            ["act", "band"],
            registry=registry,
        )
        for act in LEFT:
            for name in (*(name for _, name in BANDS), MOST):
                self._departures.labels(act, name)
        self.published = Counter("gateway_events_published", "Events that the broker confirmed.", registry=registry)
        self.webhook_calls = Counter(
            "gateway_webhook_calls",
            "Calls of webhooks, by what became of them.",
            ["webhook", "outcome"],
            registry=registry,
        )
        self.webhook_lost = Counter(
            "gateway_webhook_events_lost",
            "Events that a webhook will not be called with any more, by why.",
            ["webhook", "reason"],
            registry=registry,
        )
        self._webhook_enabled = Gauge(
            "gateway_webhook_enabled", "0 where a webhook has said that it is gone.", ["webhook"], registry=registry
        )
        self._webhook_waiting = Gauge(
            "gateway_webhook_waiting_events", "Events that wait for a webhook.", ["webhook"], registry=registry
        )
        self._webhook_oldest = Gauge(
            "gateway_webhook_oldest_seconds",
            "For how long the first of the events that wait for a webhook has; 0: there is none.",
            ["webhook"],
            registry=registry,
        )
        self.due = Gauge(
            "gateway_due_messages", "Messages that are not settled, in the whole store.", registry=registry
        )
        self.outbox = Gauge("gateway_outbox_events", "Events that are not published yet.", registry=registry)
        self.disk = Gauge(
            "gateway_disk_free_ratio",
            "Free part of the disk that SQLite is on; nothing is accepted below 0.1.",
            registry=registry,
        )
        self.suspects = Gauge(
            "gateway_suspects",
            "Messages whose worker vanished while it held them, in the whole store: they are run one at a time.",
            registry=registry,
        )
        self.suspect_crashes = Counter(
            "gateway_suspect_crashes", "Workers that died while a suspect was run alone.", registry=registry
        )
        self.oldest_unknown = Gauge(
            "gateway_oldest_unknown_seconds",
            "For how long nobody has known the outcome of the oldest attempt in doubt; 0: there is none.",
            registry=registry,
        )
        self.oldest_unclosed = Gauge(
            "gateway_oldest_unclosed_seconds",
            "How long ago the oldest message that is not settled expired; 0: none has.",
            registry=registry,
        )
        self.oldest_deferred = Gauge(
            "gateway_oldest_deferred_seconds",
            "How long ago the oldest message was accepted that rules, or others in its line, hold back; 0: none is.",
            registry=registry,
        )
        self._caps = Gauge(
            "gateway_cap_persons_ratio",
            "Of a sample of those who were contacted last, by how much of a cap they have used up.",
            ["rule", "used"],
            registry=registry,
        )
        self._pressure = Gauge(
            "gateway_pressure_ratio",
            "Of those who were contacted in the last seven days, by how many contacts they had, by the same sample.",
            ["band"],
            registry=registry,
        )
        self._persons = Gauge("gateway_sampled_persons", "How many were in the last sample.", registry=registry)
        self._look_ups = Counter(
            "gateway_look_ups", "Vendors asked what became of attempts.", ["provider", "answer"], registry=registry
        )
        self.closed = Counter(
            "gateway_messages_closed",
            "Messages that nobody listens for any more though their end is not known, or that nobody worked on.",
            ["state"],
            registry=registry,
        )
        for state in (MessageState.UNKNOWN, MessageState.EXPIRED):
            self.closed.labels(state)  # from the start, or an alert would miss the first
        self.ready = Gauge("gateway_ready", "1 while the part works.", ["part"], registry=registry)
        self._policy = Gauge(
            "gateway_policy_info", "Constant 1, with the policy in force.", ["hash", "number"], registry=registry
        )
        self._refused = Gauge(
            "gateway_policy_refused",
            "1 while the file on disk is faulty and what was in force stays.",
            registry=registry,
        )
        self._stale = Gauge(
            "gateway_config_needs_restart",
            "1 while the file on disk differs in a section that only a restart brings into force.",
            ["section"],
            registry=registry,
        )
        self._loads = Counter(
            "gateway_policy_loads", "Configurations read, by what became of them.", ["result"], registry=registry
        )
        for result in ("applied", "refused"):
            self._loads.labels(result)
        self.swept = Counter(
            "gateway_policy_swept", "Waiting messages decided anew because the policy changed.", registry=registry
        )

    def noted(self, acts: Iterable[Noted]) -> None:
        """Acts were remembered."""
        for one in acts:
            deed, owed = one.deed, one.owed
            self._acts.labels(deed.act, deed.agent, owed.channel or "none").inc()
            if deed.agent is Agent.MACHINE and deed.why:
                self._signs.labels(deed.act, deed.why).inc()
            if one.band:
                self._departures.labels(deed.act, one.band).inc()

    def followed(self, answer: str) -> None:
        """A link of ours was followed; ``answer`` is ``redirected``, ``unknown`` or ``unavailable``."""
        self._followed.labels(answer).inc()

    def lost(self, act: Act) -> None:
        """An open or a click is not remembered."""
        self._lost.labels(act).inc()

    def received(self, via: str, answer: Answer) -> None:
        """A request was answered."""
        word = (
            ("repeated" if answer.repeated else "accepted")
            if isinstance(answer, Accepted)
            else "conflict"
            if isinstance(answer, Conflict)
            else "malformed"
        )
        self._received.labels(via, word).inc()

    def informed(self, event: str, answer: reports.Answer) -> None:
        """A report was answered; ``event`` is one of those of ``Report``, or ``UNREAD``."""
        match answer:
            case Recorded(repeated=repeated):
                word = "repeated" if repeated else "recorded"
            case Unmatched():
                word = "unmatched"
            case Reused():
                word = "conflict"
            case Malformed():
                word = "malformed"
            case _:
                assert_never(answer)
        self._informed.labels(event, word).inc()

    def turned_away(self, via: str, count: int) -> None:
        """Requests were not taken in, for want of room."""
        self._turned_away.labels(via).inc(count)

    def decided(self, message: Message, step: Next) -> None:
        """A decision was committed; one that says the same as the one before it is not counted again."""
        if isinstance(step, Deferred) and step.repeated:
            return
        for rule in shadowed(step):
            self._shadows.labels(message.category, rule).inc()
        match step:
            case Deferred():
                self._deferred.labels(message.category, step.rule).inc()
            case Behind():
                self._deferred.labels(message.category, "line").inc()
            case Ended():
                self._messages.labels(message.category, step.state, step.reason.partition(":")[0]).inc()
                if step.state is MessageState.EXPIRED and step.why:
                    self._regretted(message.category, step.why[0].rule)
            case _:
                pass

    def _regretted(self, category: str, rule: str) -> None:
        if len(self._pairs) < _PAIRS:
            self._pairs.add((category, rule))
        self._regrets.labels(category if (category, rule) in self._pairs else "other", rule).inc()

    def attempted(self, claimed: Claimed, outcome: Outcome, seconds: float, now: datetime) -> None:
        """An attempt came to its end."""
        step: Attempting = claimed.step
        channel = step.address.channel
        self._attempts.labels(channel, step.provider, outcome.state).inc()
        self._duration.labels(channel, step.provider).observe(seconds)
        if outcome.error:
            self._errors.labels(step.provider, outcome.error.partition(":")[0]).inc()
        else:
            self._latency.labels(channel).observe((now - claimed.lease.message.accepted_at).total_seconds())

    def sampled(self, found: Measured) -> None:
        """What a sample came to; what an earlier one came to is not told any more."""
        self._caps.clear()
        self._pressure.clear()
        self._persons.set(found.persons)
        for rule, shares in found.caps.items():
            for word, share in shares.items():
                self._caps.labels(rule, word).set(share)
        for name, share in found.bands.items():
            self._pressure.labels(name).set(share)

    def fared(self, ways: Iterable[tuple[Channel, str, State, float]]) -> None:
        """How the providers of the routes fare: all of them, each with its points."""
        self._fares.clear()
        self._weight.clear()
        for channel, provider, state, points in ways:
            self._fares.labels(channel, provider).set(_USED[state])
            self._weight.labels(channel, provider).set(points)

    def turned(self, channel: Channel, provider: str, state: State) -> None:
        """A provider has come to be used, probed or left alone."""
        self._turns.labels(channel, provider, state).inc()

    def applied(self, policy: Policy, number: int) -> None:
        """A policy came into force."""
        self._loads.labels("applied").inc()
        self._policy.clear()
        self._policy.labels(policy.hash[:SHORT], number).set(1)

    def refused(self) -> None:
        """A configuration was found faulty."""
        self._loads.labels("refused").inc()
        self._refused.set(1)

    def taken(self, needing_restart: Collection[str]) -> None:
        """The file on disk is good, but for sections that wait for a restart."""
        self._refused.set(0)
        self._stale.clear()
        for section in needing_restart:
            self._stale.labels(section).set(1)

    def paced(self, provider: str, per_second: float) -> None:
        """A provider has a pace."""
        self._pace.labels(provider).set(per_second)
        self.pace_used.labels(provider)

    def webhook(self, name: str, view: WebhookView, now: datetime) -> None:
        """How it stands with a webhook."""
        for reason in LOST:
            self.webhook_lost.labels(name, reason)  # or the first would be no increase of anything
        self._webhook_enabled.labels(name).set(view.disabled_at is None)
        self._webhook_waiting.labels(name).set(view.waiting)
        self._webhook_oldest.labels(name).set(max(0.0, (now - view.oldest).total_seconds()) if view.oldest else 0)

    def in_flight(self, priority: str, count: int) -> None:
        """How much is being worked on."""
        self._in_flight.labels(priority).set(count)

    def looked_up(self, provider: str, answer: str) -> None:
        """A vendor was asked; ``answer`` is one of ``ReceiptStatus``, ``nothing`` or ``failed``."""
        self._look_ups.labels(provider, answer).inc()

    def replied(self, provider: str, wish: Wish | None) -> None:
        """A person answered."""
        self._replies.labels(provider, wish or "unclear").inc()

    def reported(self, provider: str, status: str) -> None:
        """A vendor called back; ``status`` is one of ``ReceiptStatus``, or why it is none: see ``Callbacks``."""
        self._receipts.labels(provider, status).inc()

    def came_back(self, was: str) -> None:
        """A mail came back: a ``receipt`` or ``complaint`` of one of ours, one ``unmatched``, or ``nothing`` such."""
        self._bounces.labels(was).inc()


def shadowed(step: Next) -> list[str]:
    """The rules in shadow that objected to a decision to send, or would have held back too what others hold back."""
    match step:
        case Claimed():
            return [ruling.rule for ruling in step.step.shadow]
        case Deferred():
            return [ruling.rule for ruling in step.why if not ruling.enforced and not ruling.permits]
        case _:
            return []
