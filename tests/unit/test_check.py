"""``decorum check``: what it prints, what it answers, and with which status it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import gateway
from gateway import config
from gateway.cli import main

SAMPLE = Path(gateway.__file__).with_name("sample.yaml")
GOOD = """
providers: {text: {kind: inbox}}
routes: {sms: [text]}
policy:
  timezone: UTC
  categories: {news: {}}
  caps:
    - {name: daily, limit: 3, per: 24h}
"""
DOUBTFUL = GOOD + "    - {name: loose, limit: 5, per: 24h}\n"
BAD = """
brokr: amqp://h
providers: {text: {kind: inbox}}
routes: {sms: [text]}
policy:
  timezone: UTC
  categories: {news: {}}
  caps:
    - {name: daily, limit: 3, per: 24h, reserve: {high: 3}}
  presets:
    - {preset: cn-marketing, category: news, limit: 1}
    - {preset: us-ri, category: news}
"""
ELSEWHERE = """
store: {env: STORE_URL}
broker: {url: {file: /nowhere/amqp}}
providers:
  text: {kind: twilio_sms, account_sid: AC1, auth_token: {env: TWILIO_TOKEN}, sender: "+15005550006"}
routes: {sms: [text]}
retention: {contacts: 1h}
policy:
  timezone: {env: ZONE}
  categories: {news: {}}
"""


def check(tmp_path: Path, text: str, *options: str, **environ: str) -> Result:
    (tmp_path / "gateway.yaml").write_text(text)
    return CliRunner().invoke(main, ["check", str(tmp_path / "gateway.yaml"), *options], env=environ)


def test_a_good_file_is_called_so(tmp_path: Path) -> None:
    ended = check(tmp_path, GOOD)

    policy = config.load(tmp_path / "gateway.yaml", {}).policy
    assert ended.exit_code == 0
    assert ended.stderr == f"{tmp_path}/gateway.yaml: good. Policy {policy.hash[:12]}, 1 categories.\n"
    assert ended.stdout == ""


def test_errors_and_warnings_are_told_apart_each_in_its_line(tmp_path: Path) -> None:
    ended = check(tmp_path, BAD)

    file = f"{tmp_path}/gateway.yaml"
    lines = ended.stderr.splitlines()
    assert ended.exit_code == 2
    assert lines[0] == "3 errors"
    assert [line.split(": ")[:2] for line in lines[1:4]] == [
        [f"{file}:2", "brokr"],
        [f"{file}:9", "policy.caps[0].reserve"],
        [f"{file}:11", "policy.presets[0].limit"],
    ]
    assert lines[1].endswith("is not a known key: did you mean broker?")
    assert lines[4] == "1 warning"
    assert lines[5].startswith(f"{file}:12: policy.presets[1].preset: us-ri has not been verified")
    assert len(lines) == 6


def test_warnings_alone_are_a_failure_only_if_that_is_asked(tmp_path: Path) -> None:
    ended = check(tmp_path, DOUBTFUL)

    assert ended.exit_code == 0
    assert ended.stderr.startswith(f"1 warning\n{tmp_path}/gateway.yaml:9: policy.caps[1].limit: ")
    assert ": can be used. Policy" in ended.stderr
    assert check(tmp_path, DOUBTFUL, "--strict").exit_code == 1
    assert check(tmp_path, BAD, "--strict").exit_code == 2
    assert check(tmp_path, GOOD, "--strict").exit_code == 0


@pytest.mark.parametrize("text", [GOOD, DOUBTFUL, BAD])
def test_programs_get_the_same_as_json(tmp_path: Path, text: str) -> None:
    ended, said = check(tmp_path, text, "--json"), check(tmp_path, text)

    answer = json.loads(ended.stdout)
    assert set(answer) == {"ok", "errors", "warnings", "policy"}
    assert answer["ok"] == (said.exit_code == 0) == (answer["policy"] is not None)
    assert ended.exit_code == said.exit_code
    assert ended.stderr == ""
    for found in (*answer["errors"], *answer["warnings"]):
        assert set(found) == {"line", "path", "problem"}
        assert f"gateway.yaml:{found['line']}: {found['path']}: {found['problem']}\n" in said.stderr


def test_the_policy_alone_needs_no_secret_and_minds_no_other_section(tmp_path: Path) -> None:
    assert check(tmp_path, ELSEWHERE, STORE_URL="").exit_code == 2
    ended = check(tmp_path, ELSEWHERE, "--policy")

    assert (ended.exit_code, ended.stderr.count("\n")) == (0, 1)


@pytest.mark.parametrize(
    ("wrong", "line", "path"),
    [
        ("routes: {sms: [txet]}", 6, "routes.sms"),
        ("  categories: {news: {priority: urgent}}", 10, "policy.categories.news.priority"),
        ("  categories: {news: {priority: bulk, caps: exempt}}", 10, "policy.categories.news.caps"),
    ],
)
def test_the_policy_alone_is_checked_as_thoroughly(tmp_path: Path, wrong: str, line: int, path: str) -> None:
    lines = ELSEWHERE.splitlines()
    lines[line - 1] = wrong

    ended = check(tmp_path, "\n".join(lines), "--policy", "--strict")

    assert ended.exit_code in (1, 2)
    assert f"gateway.yaml:{line}: {path}: " in ended.stderr


def test_the_policys_hash_is_the_same_without_the_secrets(tmp_path: Path) -> None:
    text = ELSEWHERE.replace("{env: ZONE}", "Asia/Tokyo").replace("{url: {file: /nowhere/amqp}}", "amqp://h/")
    text = text.replace("{contacts: 1h}", "{contacts: 9d}")
    whole = check(tmp_path, text, "--json", STORE_URL="sqlite:///a.db", TWILIO_TOKEN="t")

    assert json.loads(whole.stdout)["ok"]
    assert json.loads(check(tmp_path, text, "--json", "--policy").stdout) == json.loads(whole.stdout)


@pytest.mark.parametrize(
    ("text", "line", "phrase"), [("a: [", 1, "column 5: "), ("\n\x00", 2, "a character"), ("", None, "empty")]
)
def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, phrase: str) -> None:
    ended = check(tmp_path, text, "--json", "--policy")
    (found,) = json.loads(ended.stdout)["errors"]

    assert ended.exit_code == 2
    assert (found["path"], found["line"]) == ("", line)
    assert phrase in found["problem"]


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["check", str(tmp_path / "none.yaml")])

    assert ended.exit_code == 2
    assert f"{tmp_path}/none.yaml cannot be read" in ended.stderr


def test_the_packaged_sample_is_good_in_every_respect() -> None:
    ended = CliRunner().invoke(main, ["check", str(SAMPLE), "--strict"])

    assert ended.exit_code == 0
