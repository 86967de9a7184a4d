"""Does what Helm makes of the chart hold together, is it what Kubernetes takes, and does it run the gateway well?"""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from gateway import config as configuration
from gateway.cli import main
from gateway.config.reading import SECTIONS
from gateway.message import Channel
from gateway.reload import LIVE
from tests.ship.chart import ENVIRON, FOLDER, NAME, POLICY, POSTGRESQL, RELEASE, ROLES, SETS, SQLITE, Rendered, rendered

CRDS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text())
"""The part of the Prometheus operator's schemas that the chart uses."""
INFO = 1
"""Of Helm's lint: advice, such as to give the chart an icon."""
OLDEST, NEWEST = "1.27", "1.37"
"""Of Kubernetes: the one that Chart.yaml asks for, and the last whose schemas we have."""

every = pytest.mark.parametrize("values", SETS.values(), ids=SETS)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def labels_of_pods(made: Rendered) -> dict[str, dict[str, str]]:
    return {name: pod["metadata"]["labels"] for name, pod in made.pods()}


# ------------------------------------------------------------------------------------------------------ what is made


@every
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any]) -> None:
    report = helm_python.lint(str(FOLDER), values=values, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > INFO] == []


@every
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_everything_that_is_made_is_what_kubernetes_takes(values: dict[str, Any], version: str) -> None:
    documents = rendered(values).documents
    assert documents
    for document in documents:
        taken(json.dumps(document), version)


@cache
def taken(text: str, version: str) -> None:
    """Most sets of values make much that others make too."""
    document = json.loads(text)
    if document["kind"] in CRDS:
        jsonschema.validate(document, CRDS[document["kind"]])
    else:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    (deployment,) = rendered({}).kind("Deployment").values()
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment | {"spec": deployment["spec"] | {"replica": 1}}, NEWEST, strict=True)


def test_the_oldest_kubernetes_that_is_tested_is_the_one_that_the_chart_asks_for() -> None:
    chart = yaml.safe_load((FOLDER / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_chart_and_gateway_are_of_one_version() -> None:
    version = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((FOLDER / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


@every
def test_names_are_taken_once_and_labels_say_whose_it_is(values: dict[str, Any]) -> None:
    documents = rendered(values).documents
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(set(names)) == len(names)
    for each in documents:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "decorum"
        assert labels["app.kubernetes.io/instance"] == RELEASE
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"]
        assert labels["helm.sh/chart"].startswith("decorum-")


SWITCHES = {
    "without-migration": ("Job", False),
    "without-disruption-budget": ("PodDisruptionBudget", False),
    "without-network-policy": ("NetworkPolicy", False),
    "service-monitor": ("ServiceMonitor", True),
    "prometheus-rule": ("PrometheusRule", True),
}


@pytest.mark.parametrize(("name", "kind", "made"), [(name, *what) for name, what in SWITCHES.items()], ids=SWITCHES)
def test_a_switch_switches_what_it_says(name: str, kind: str, *, made: bool) -> None:
    assert bool(rendered(SETS[name]).kind(kind)) is made
    assert bool(rendered(ROLES).kind(kind)) is not made


# -------------------------------------------------------------------------------------------- what refers to what


@every
def test_every_selector_finds_what_it_is_meant_for(values: dict[str, Any]) -> None:
    made = rendered(values)
    pods = labels_of_pods(made)
    for name, deployment in made.kind("Deployment").items():
        found = [
            other for other, labels in pods.items() if selects(deployment["spec"]["selector"]["matchLabels"], labels)
        ]
        assert found == [name]
    budgeted = [
        [name for name, labels in pods.items() if selects(budget["spec"]["selector"]["matchLabels"], labels)]
        for budget in made.kind("PodDisruptionBudget").values()
    ]
    assert all(len(found) == 1 for found in budgeted)
    for policy in made.kind("NetworkPolicy").values():
        assert all(selects(policy["spec"]["podSelector"]["matchLabels"], labels) for labels in pods.values())
    for monitor in made.kind("ServiceMonitor").values():
        watched = [
            service
            for service in made.kind("Service").values()
            if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
        ]
        assert [service["metadata"]["name"] for service in watched] == [f"{NAME}-metrics"]
        (port,) = watched[0]["spec"]["ports"]
        assert [each["port"] for each in monitor["spec"]["endpoints"]] == [port["name"]]


@every
def test_every_service_leads_to_a_port_of_the_pods_that_it_selects(values: dict[str, Any]) -> None:
    made = rendered(values)
    pods = {name: pod for name, pod in made.pods() if name in made.kind("Deployment")}
    for service in made.kind("Service").values():
        selected = [pod for pod in pods.values() if selects(service["spec"]["selector"], pod["metadata"]["labels"])]
        assert selected
        (port,) = service["spec"]["ports"]
        for pod in selected:
            assert port["targetPort"] in [each["name"] for each in pod["spec"]["containers"][0]["ports"]]
    if metrics := made.kind("Service").get(f"{NAME}-metrics"):
        assert all(selects(metrics["spec"]["selector"], pod["metadata"]["labels"]) for pod in pods.values())


@every
def test_what_a_pod_refers_to_is_made_before_it_or_is_yours(values: dict[str, Any]) -> None:
    made = rendered(values)
    yours = {*values.get("existingSecrets", []), *values.get("existingSecretFiles", [])}
    for name, pod in made.pods():
        (container,) = pod["spec"]["containers"]
        secrets = {each["secretRef"]["name"] for each in container.get("envFrom", [])}
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted == {each["name"] for each in pod["spec"]["volumes"]}
        assert not any("subPath" in mount for mount in container["volumeMounts"])
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                secrets.add(volume["secret"]["secretName"])
            elif "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in made.kind("PersistentVolumeClaim") or claim == values["persistence"]["existingClaim"]
            elif "configMap" in volume:
                config = made.kind("ConfigMap")[volume["configMap"]["name"]]
                assert weight(config) < weight((made.kind("Deployment") | made.kind("Job"))[name])
        assert secrets <= yours
        assert pod["spec"].get("serviceAccountName") == values.get("serviceAccountName")


def weight(document: dict[str, Any]) -> float:
    """When it is made, relative to others. A hook is made before all that is none; Helm makes ConfigMaps first."""
    annotations = document["metadata"].get("annotations", {})
    if "helm.sh/hook" not in annotations:
        return 1000.5 if document["kind"] == "Deployment" else 1000
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    return float(annotations["helm.sh/hook-weight"])


# ------------------------------------------------------------------------------------------------ how it is secured


@every
def test_every_pod_can_do_no_more_than_it_needs(values: dict[str, Any]) -> None:
    pods = dict(rendered(values).pods())
    assert pods
    for pod in pods.values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
        assert writable in ({"/tmp"}, {"/tmp", "/data"})
        assert not any(port.get("hostPort") for port in container.get("ports", []))


def test_pods_run_as_the_user_of_the_image() -> None:
    (user,) = (line.split()[1] for line in (FOLDER.parent / "Dockerfile").read_text().splitlines() if "USER" in line)
    for _, pod in rendered(ROLES).pods():
        context = pod["spec"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
        assert context["fsGroup"] == context["runAsGroup"]


def test_a_platform_that_gives_uids_can() -> None:
    for _, pod in rendered(SETS["everything"]).pods():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["spec"]["securityContext"])


@every
def test_no_secret_is_made_and_none_is_written_down(values: dict[str, Any]) -> None:
    made = rendered(values)
    assert not made.kind("Secret")
    assert "secret@" not in yaml.safe_dump_all(each for each in made.documents if each["kind"] == "ConfigMap")


# --------------------------------------------------------------------------------------- the gateway's configuration


@every
def test_the_gateway_takes_the_configuration_that_it_is_given(values: dict[str, Any], tmp_path: Path) -> None:
    made = rendered(values)
    file = tmp_path / "gateway.yaml"
    for name in (NAME, f"{NAME}-migrate") if made.kind("Job") else (NAME,):
        file.write_text(made.kind("ConfigMap")[name]["data"]["gateway.yaml"])
        report = configuration.check(file, ENVIRON)
        assert (report.errors, report.warnings) == ((), ())


@every
def test_ports_and_probes_are_those_of_the_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    made = rendered(values)
    http = configuration.parse(made.config(), ENVIRON, base=tmp_path).http
    public = http.public.port if http.public else None
    for name, deployment in made.kind("Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        front = not name.endswith(("-intake", "-worker"))
        assert ports == {"private": http.private.port} | ({"public": public} if front and public else {})
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            if http.private.loopback:
                assert {path, str(http.private.port)} <= words(container[probe]["exec"]["command"][-1])
            else:
                assert container[probe]["httpGet"] == {"path": path, "port": "private"}
            assert container[probe]["timeoutSeconds"] > 4  # what the question itself gives up after
    services = {name.removeprefix(f"{NAME}-") for name in made.kind("Service")} - {"metrics"}
    assert services == ({"private"} - ({"private"} if http.private.loopback else set())) | (
        {"public"} if public else set()
    )


def words(text: str) -> set[str]:
    return set(text.replace('"', " ").replace(",", " ").replace(")", " ").split())


def test_a_configuration_arrives_word_for_word() -> None:
    """Helm sorts a mapping, but which channel comes first is tried first."""
    assert rendered(ROLES).config() == POSTGRESQL
    config = configuration.parse(rendered(ROLES).config(), ENVIRON, base=Path())
    assert list(config.routes) == [Channel.PUSH, Channel.SMS, Channel.EMAIL]


@pytest.mark.parametrize("text", ["  store: sqlite:////data/a.db\n", "\n\n# a\n\n\nstore: sqlite:////data/a.db\n"])
def test_so_does_one_that_is_indented_or_begins_with_nothing(text: str) -> None:
    assert rendered({"config": text}).config() == text


CHANGES = {
    "store": "store: postgresql://elsewhere/decorum",
    "broker": "broker: {url: {env: DECORUM_BROKER}, prefetch: 7}",
    "http": 'http: {private: "0.0.0.0:9090", public: "0.0.0.0:9091", public_url: https://other.example.com}',
    "keys": "keys: [{name: other, sha256: {env: ORDERS_SHA256}, scopes: [send]}]",
    "providers": "providers: {push: {kind: inbox}, text: {kind: inbox}, mail: {kind: inbox}}",
    "routes": "routes: {push: [mail]}",
    "events": "events: {states: [sent]}",
    "retention": "retention: {messages: 40d}",
    "worker": "worker: {attempt: 20s}",
    "pages": "pages: {name: Example}",
    "webhooks": 'webhooks: [{name: crm, url: "https://crm.example.com", secrets: [{env: CRM_SECRET}], events: ["#"]}]',
    "report": "report: {targets: [{step: clicked, at_least: 20%}]}",
    "policy": "policy: {timezone: UTC, categories: {news: {}}}",
}


@pytest.mark.parametrize("section", SECTIONS)
def test_pods_are_replaced_exactly_for_what_only_a_restart_brings_into_force(section: str) -> None:
    whole = yaml.safe_load(POSTGRESQL)
    changed = yaml.safe_dump(whole | yaml.safe_load(CHANGES[section]))
    before, after = (rendered(ROLES | {"config": text}) for text in (yaml.safe_dump(whole), changed))
    assert before.config() != after.config()
    assert (before.kind("Deployment") == after.kind("Deployment")) is (section in LIVE)
    assert before.kind("Deployment") == rendered(ROLES).kind("Deployment")  # comments and order are no change


# ------------------------------------------------------------------------------------------------------------ roles


def test_postgresql_has_a_deployment_for_each_role_and_migrates_first() -> None:
    made = rendered(ROLES)
    assert {name: args(pod) for name, pod in made.pods()} == {
        f"{NAME}-intake": ["serve", "--role", "intake"],
        f"{NAME}-worker": ["serve", "--role", "worker"],
        f"{NAME}-web": ["serve", "--role", "web"],
        f"{NAME}-migrate": ["migrate"],
    }
    assert not made.kind("PersistentVolumeClaim")
    assert not any(service["spec"].get("publishNotReadyAddresses") for service in made.kind("Service").values())


def test_without_a_broker_there_is_nothing_for_the_intake_to_take_from() -> None:
    assert set(rendered(SETS["roles-without-broker"]).kind("Deployment")) == {f"{NAME}-worker", f"{NAME}-web"}


def test_sqlite_is_one_process_on_a_volume_that_outlives_it() -> None:
    made = rendered(SETS["sqlite"])
    ((name, pod),) = made.pods()
    assert (name, args(pod)) == (NAME, ["serve"])
    spec = made.kind("Deployment")[NAME]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = made.kind("PersistentVolumeClaim")[NAME]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert not rendered(SETS["sqlite-claimed"]).kind("PersistentVolumeClaim")


def test_opt_outs_reach_a_process_of_all_roles_while_it_takes_in_nothing() -> None:
    services = rendered(SETS["sqlite"]).kind("Service")
    assert set(services) == {f"{NAME}-private", f"{NAME}-public"}
    assert all(service["spec"]["publishNotReadyAddresses"] for service in services.values())


def test_a_drain_has_the_time_that_it_may_take() -> None:
    """25 s for what is under way, and all else that stopping waits for: 45 s at most, as ``App.stop`` says."""
    assert all(pod["spec"]["terminationGracePeriodSeconds"] == 60 for _, pod in rendered(ROLES).pods())


def args(pod: dict[str, Any]) -> list[str]:
    return list(pod["spec"]["containers"][0]["args"])


@pytest.mark.parametrize("arguments", [["serve", "--role", "intake"], ["serve"], ["migrate"]])
def test_the_program_takes_the_arguments_that_pods_give_it(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, [*arguments, "--help"]).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, "--helm"]).exit_code != 0


# ----------------------------------------------------------------------------------------------------- who reaches it


def test_only_the_namespace_reaches_the_private_port_unless_more_are_let_in() -> None:
    (policy,) = rendered(ROLES).kind("NetworkPolicy").values()
    private, public = policy["spec"]["ingress"]
    assert private == {"from": [{"podSelector": {}}], "ports": [{"port": 9090}]}
    assert public == {"ports": [{"port": 9091}]}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (wider,) = rendered(SETS["everything"]).kind("NetworkPolicy").values()
    assert wider["spec"]["ingress"][0]["from"] == [
        {"podSelector": {}},
        *SETS["everything"]["networkPolicy"]["privateFrom"],
    ]
    assert wider["spec"]["egress"] == SETS["everything"]["networkPolicy"]["egress"]
    assert wider["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_sample_lets_nobody_in_and_notes_say_how_it_is_reached() -> None:
    made = rendered({})
    assert not made.kind("Service")
    assert f"port-forward deployment/{NAME} 8080:8080" in made.notes
    assert "nothing leaves it" in made.notes


def test_notes_say_where_services_send_to() -> None:
    assert f"http://{NAME}-private.messaging:8080" in rendered(ROLES).notes
    assert f"{NAME}-public, port 80" in rendered(ROLES).notes


# ---------------------------------------------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"replicas": 3}, "replicas"),
    "misspelt within": ({"worker": {"replica": 3}}, "replica"),
    "text for a number": ({"worker": {"replicas": "three"}}, "/worker/replicas"),
    "less than none": ({"web": {"replicas": -1}}, "/web/replicas"),
    "text for a switch": ({"serviceMonitor": {"enabled": "yes"}}, "/serviceMonitor/enabled"),
    "no such pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    "no digest": ({"image": {"digest": "0000"}}, "/image/digest"),
    "no quantity": ({"persistence": {"size": "big"}}, "/persistence/size"),
    "no duration": ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
    "no port": ({"service": {"public": {"port": 99999}}}, "/service/public/port"),
    "too short a drain": ({"terminationGracePeriodSeconds": 30}, "/terminationGracePeriodSeconds"),
    "one secret for a list": ({"existingSecrets": "decorum"}, "/existingSecrets"),
    "a mapping": ({"config": yaml.safe_load(SQLITE)}, "config must be a text: write `config: |`"),
    "no YAML": ({"config": "store: ["}, "config is not YAML"),
    "no mapping": ({"config": "- store"}, "config is not YAML that holds a mapping"),
    "a file that is lost": ({"config": SQLITE.replace("/data/", "/var/")}, "store must be in /data"),
    "no keys": ({"config": SQLITE.replace("keys:", "#")}, "http.private must be a loopback address while there are no"),
    "a secret port": ({"config": SQLITE.replace("0.0.0.0:8080", "{env: PRIVATE}")}, "http.private must be written out"),
    "nobody's callbacks": (
        {"config": SQLITE.replace("0.0.0.0:8081", "127.0.0.1:8081")},
        "http.public must be 0.0.0.0:8081",
    ),
    "nobody's metrics": ({"serviceMonitor": {"enabled": True}}, "serviceMonitor.enabled needs keys"),
}


@pytest.mark.parametrize(("values", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_and_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(helm_python.HelmError) as error:
        rendered(values)
    assert told in str(error.value).replace("'", "")


def test_the_policy_of_these_tests_is_one() -> None:
    assert POLICY in SQLITE
    assert POLICY in POSTGRESQL
