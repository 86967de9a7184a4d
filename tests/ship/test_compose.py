"""Is compose.yaml what Compose takes, and does the gateway in it fit the servers beside it?"""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway import config as configuration

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
GIVEN = {
    "POSTGRES_PASSWORD": "one",
    "RABBITMQ_PASSWORD": "two",
    "DECORUM_KEY_SHA256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


def filled(text: str) -> str:
    """With what the environment gives, as Compose puts it in."""
    return re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda found: GIVEN[found[1]], text)


def test_compose_takes_it() -> None:
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


def test_secrets_come_from_the_environment_and_are_asked_for_by_name() -> None:
    assert set(re.findall(r"\$\{(\w+):\?", TEXT)) == set(GIVEN)
    assert not re.findall(r"\$\{\w+\}", TEXT)  # each says what to do where it is missing
    assert all(name in TEXT.partition("name: decorum")[0] for name in GIVEN)


@pytest.mark.parametrize("service", ["gateway", "migrate"])
def test_the_gateway_takes_its_configuration(service: str, tmp_path: Path) -> None:
    environ = {name: filled(value) for name, value in COMPOSE["services"][service]["environment"].items()}
    file = tmp_path / "gateway.yaml"
    file.write_text(filled(COMPOSE["configs"]["gateway"]["content"]))
    report = configuration.check(file, environ)
    assert (report.errors, report.warnings) == ((), ())
    config = configuration.load(file, environ)
    postgres, rabbitmq = (COMPOSE["services"][name]["environment"] for name in ("postgres", "rabbitmq"))
    user, name = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert config.store == f"postgresql://{user}:{filled(postgres['POSTGRES_PASSWORD'])}@postgres/{name}"
    assert config.broker
    mine = f"{rabbitmq['RABBITMQ_DEFAULT_USER']}:{filled(rabbitmq['RABBITMQ_DEFAULT_PASS'])}"
    assert config.broker.url == f"amqp://{mine}@rabbitmq/"
    published = {port.rpartition(":")[2] for port in COMPOSE["services"]["gateway"]["ports"]}
    assert config.http.public
    assert published == {str(config.http.private.port), str(config.http.public.port)}


def test_the_tables_are_made_before_the_gateway_starts_and_everything_says_how_it_is() -> None:
    services = COMPOSE["services"]
    assert services["gateway"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["command"] == ["migrate"]
    assert services["gateway"]["configs"] == services["migrate"]["configs"]
    assert services["gateway"]["configs"][0]["target"] == "/etc/decorum/gateway.yaml"
    assert "DECORUM_CONFIG=/etc/decorum/gateway.yaml" in (ROOT / "Dockerfile").read_text()
    for name in ("postgres", "rabbitmq"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_the_gateway_can_do_no_more_than_it_needs_and_is_reached_from_this_machine_alone() -> None:
    for name in ("gateway", "migrate"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert COMPOSE["services"]["gateway"]["stop_grace_period"] == "60s"
