"""The chart as Helm's own engine renders it, and the sets of values that it is rendered with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helm_python
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "helm"
RELEASE, NAMESPACE = "wake", "messaging"
NAME = f"{RELEASE}-decorum"

KEYS = "keys: [{name: orders, sha256: {env: ORDERS_SHA256}, scopes: [send, read]}]"
POLICY = """\
providers:
  text: {kind: twilio_sms, account_sid: AC1, auth_token: {env: TWILIO_TOKEN}, sender: "+15005550006"}
  push: {kind: inbox}
  mail: {kind: inbox}
routes: {push: [push], sms: [text], email: [mail]} # in this order, which is not that of the alphabet
policy:
  timezone: Asia/Tokyo
  categories: {news: {priority: bulk}}
  quiet_hours: [{name: night, from: "21:00", to: "08:00"}]
"""
SQLITE = f"""\
store: sqlite:////data/decorum.db
http: {{private: 0.0.0.0:8080, public: 0.0.0.0:8081, public_url: https://m.example.com}}
{KEYS}
{POLICY}"""
POSTGRESQL = f"""\
store: {{env: DECORUM_STORE}}
broker: {{url: {{env: DECORUM_BROKER}}}}
http: {{private: "0.0.0.0:9090", public: "0.0.0.0:9091", public_url: https://m.example.com}}
{KEYS}
{POLICY}"""
ENVIRON = {
    "DECORUM_STORE": "postgresql://decorum:secret@db/decorum",
    "DECORUM_BROKER": "amqp://decorum:secret@broker/",
    "ORDERS_SHA256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "TWILIO_TOKEN": "secret",
}
"""What the Secret of those who use these configurations holds."""

ROLES: dict[str, Any] = {"config": POSTGRESQL, "existingSecrets": ["decorum"]}
SETS: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "sqlite": {"config": SQLITE, "existingSecrets": ["decorum"]},
    "sqlite-claimed": {"config": SQLITE, "persistence": {"existingClaim": "mine"}},
    "roles": ROLES,
    "roles-without-broker": {**ROLES, "config": POSTGRESQL.replace("broker:", "#")},
    "roles-without-keys": {
        **ROLES,
        "config": POSTGRESQL.replace("keys:", "#").replace("0.0.0.0:9090", "127.0.0.1:9090"),
    },
    "roles-on-ipv6": {**ROLES, "config": POSTGRESQL.replace("0.0.0.0", "[::]")},
    "without-migration": {**ROLES, "migration": {"enabled": False}},
    "without-disruption-budget": {**ROLES, "podDisruptionBudget": {"enabled": False}},
    "without-network-policy": {**ROLES, "networkPolicy": {"enabled": False}},
    "service-monitor": {**ROLES, "serviceMonitor": {"enabled": True}},
    "prometheus-rule": {**ROLES, "prometheusRule": {"enabled": True}},
    "dashboard": {**ROLES, "dashboard": {"enabled": True}},
    "everything": {
        **ROLES,
        "existingSecrets": ["decorum", "vendors"],
        "existingSecretFiles": ["fcm.account"],
        "env": [{"name": "DECORUM_STORE", "value": ENVIRON["DECORUM_STORE"]}],
        "image": {"repository": "somewhere/decorum", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "intake": {"replicas": 3, "resources": {"requests": {"cpu": "1"}}},
        "worker": {"replicas": 20},
        "web": {"replicas": 1},
        "service": {
            "private": {"port": 80, "annotations": {"a": "b"}},
            "public": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
        },
        "networkPolicy": {
            "privateFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 443}]}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "10s"},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Messages"}},
        "serviceAccountName": "decorum",
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "growth"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "terminationGracePeriodSeconds": 90,
        "fullnameOverride": NAME,
    },
}


@dataclass(frozen=True)
class Rendered:
    """What one set of values makes."""

    documents: tuple[dict[str, Any], ...]
    notes: str

    def kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """All of a kind, by name."""
        return {found["metadata"]["name"]: found for found in self.documents if found["kind"] == kind}

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The template of every Pod, by the name of what makes it."""
        for found in self.documents:
            if found["kind"] in ("Deployment", "Job"):
                yield found["metadata"]["name"], found["spec"]["template"]

    def config(self) -> str:
        """The gateway's."""
        text: str = self.kind("ConfigMap")[NAME]["data"]["gateway.yaml"]
        return text


def rendered(values: Mapping[str, Any]) -> Rendered:
    """What the values make.

    Raises:
        helm_python.HelmError: the schema or the chart refuses them; says why.
    """
    return _rendered(json.dumps(values))


@cache
def _rendered(values: str) -> Rendered:
    with helm_python.Chart.load(str(FOLDER)) as chart:
        files = chart.render(json.loads(values), name=RELEASE, namespace=NAMESPACE)
    documents: list[dict[str, Any]] = []
    notes = ""
    for file, text in sorted(files.items()):
        if file.endswith("NOTES.txt"):
            notes = text
        elif file.endswith(".yaml"):
            documents += filter(None, yaml.safe_load_all(text))
    return Rendered(tuple(documents), notes)
