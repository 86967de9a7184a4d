"""The program as ops start it: what it prints when something is wrong, and that it comes and goes as it should."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Child, free_port, spawn, wait_until

if TYPE_CHECKING:
    from tests.servers import PostgreSQL, RabbitMQ

DECORUM = [sys.executable, "-m", "gateway"]
ROOT = Path(__file__).parents[2]
POLICY = """
providers: {inbox: {kind: inbox}}
routes: {sms: [inbox], email: [inbox]}
policy:
  timezone: UTC
  categories: {news: {priority: bulk}}
  caps: [{name: daily, limit: 1, per: 24h}]
"""
REQUEST = {"user": "ann", "category": "news", "to": {"email": "ann@example.com"}}
CONTENT = {"content": {"email": {"subject": "hello", "text": "there"}}}


def decorum(
    *arguments: str, stdin: str | None = None, cwd: Path | None = None, columns: int = 200
) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": str(columns)}
    return subprocess.run(
        [*DECORUM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=40,
        cwd=cwd,
        env=environ,
        check=False,
    )


def written(folder: Path, **parts: str) -> tuple[Path, int]:
    port = free_port()
    parts = {"store": f"sqlite:///{folder}/decorum.db", "http": f"{{private: 127.0.0.1:{port}}}"} | parts
    file = folder / "gateway.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in parts.items()) + POLICY)
    return file, port


def served(folder: Path, file: Path, *more: str) -> Child:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return spawn([*DECORUM, "serve", "--config", file, *more], folder / "log", env=environ)


def get(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("policy: [", r"gateway\.yaml:1: column \d+"),
        ("store: sqlite:///x.db\nstore: sqlite:///y.db", "store"),
        (POLICY.replace("limit: 1", "limit: 0"), r"policy\.caps\[0\]\.limit"),
        (POLICY.replace("limit:", "limmit:"), r"policy\.caps\[0\]\.limmit.*did you mean.*limit"),
        (POLICY + "colour: red", "colour"),
        (POLICY + "broker: {env: NOBODY_SET_THIS}", r"broker.*NOBODY_SET_THIS"),
        (POLICY.replace("[inbox], email", "[outbox], email"), r"routes\.sms.*outbox"),
        ("", "empty"),
    ],
    ids=["broken", "twice", "zero", "misspelt", "unknown", "secret", "route", "empty"],
)
def test_check_names_what_is_wrong_and_where(tmp_path: Path, change: str, said: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(change)
    answer = decorum("check", str(file))
    assert answer.returncode == 2
    assert re.search(said, answer.stderr, re.DOTALL), answer.stderr
    assert "Traceback" not in answer.stderr


def test_check_says_that_a_good_file_is_good_and_answers_programs(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    assert decorum("check", str(file)).returncode == 0
    assert json.loads(decorum("check", str(file), "--json").stdout)["ok"] is True
    file.write_text("policy: 3")
    report = json.loads(decorum("check", str(file), "--json").stdout)
    assert report["ok"] is False
    assert report["errors"]


def test_a_missing_file_and_a_missing_gateway_are_said_in_one_line(tmp_path: Path) -> None:
    answer = decorum("serve", "--config", str(tmp_path / "none.yaml"))
    assert answer.returncode == 2
    assert "none.yaml" in answer.stderr
    lines = tmp_path / "requests.jsonl"
    lines.write_text("{}")
    answer = decorum("send", str(lines), "--url", f"http://127.0.0.1:{free_port()}")
    assert answer.returncode == 1
    assert "nothing answers at 127.0.0.1:" in answer.stderr
    assert "is the gateway running" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert decorum("send", str(tmp_path / "none.jsonl")).returncode == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:18090", "write http:// in front, http://localhost:18090"),
        ("http://nobody.invalid", "nobody.invalid is not known here"),
    ],
)
@pytest.mark.parametrize("asked", [["explain", "X"], ["eligible", "ann", "news"], ["send", "-"]])
def test_an_address_that_cannot_be_asked_is_told_with_what_is_wrong_with_it(
    asked: list[str], url: str, said: str
) -> None:
    answer = decorum(*asked, "--url", url, stdin="{}")
    assert answer.returncode == 1
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_an_unknown_role_is_refused(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    answer = decorum("serve", "--config", str(file), "--role", "cook")
    assert answer.returncode == 1
    assert "cook" in answer.stderr


# ---------------------------------------------------------------------------------------------------- coming and going


async def test_one_gateway_on_sqlite_from_start_to_end(tmp_path: Path) -> None:
    file, port = written(tmp_path)
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: get(port, "/readyz")[0] == 200, 30)
        second = decorum("serve", "--config", str(written(tmp_path)[0]))
        assert second.returncode == 1
        assert "in use by another process" in second.stderr
        lines = [json.dumps({"id": str(n), **REQUEST, **CONTENT}) for n in range(3)] + ["not json", '{"id": "x"}']
        url = f"http://127.0.0.1:{port}"
        file_of_requests = tmp_path / "requests.jsonl"
        file_of_requests.write_text("\n".join(lines))
        sent = decorum("send", str(file_of_requests), "--url", url, "--json")
        assert sent.returncode == 1
        tally = json.loads(sent.stdout)
        assert (tally["accepted"], tally["refused"]) == (3, 2)
        assert [fault["line"] for fault in tally["faults"]] == [4, 5]
        assert re.search(r"is not JSON: .*: line 4, column [0-9]+$", tally["faults"][0]["errors"][0]["problem"])
        narrow = decorum("send", str(file_of_requests), "--url", f"{url}/", columns=40)
        told = [line for line in narrow.stderr.splitlines() if line.startswith("line ")]
        assert [line.split(": ")[0] for line in told] == ["line 4", *["line 5"] * (len(told) - 1)]
        assert told[0].endswith(tally["faults"][0]["errors"][0]["problem"]), "in one line, however narrow the window"
        piped = decorum("send", "-", "--url", url, stdin="\n".join(lines[:3]))
        assert piped.returncode == 0
        assert "3 known already" in piped.stderr
        await wait_until(lambda: get(port, "/v1/messages?source=local&id=0")[1]["state"] == "sent", 10)
        told = decorum("explain", "1", "--source", "local", "--url", url)
        assert "daily" in told.stdout
        assert "1 of 1" in told.stdout
        assert "ann@example.com" not in told.stdout
        assert decorum("explain", "nobody", "--url", url).returncode == 1
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    with closing(sqlite3.connect(tmp_path / "decorum.db")) as database:
        assert database.execute("select count(*) from messages").fetchone() == (3,)
        assert database.execute("select name from jobs").fetchall() == [], "another worker may take them up at once"
    assert "gateway.stopped" in gateway.text
    assert "ann@example.com" not in gateway.text
    assert "there" not in gateway.text


async def test_a_database_that_is_away_at_start_is_waited_for(tmp_path: Path, own_postgres: PostgreSQL) -> None:
    url = own_postgres.create_database()
    file, port = written(tmp_path, store=url)
    refused = decorum("serve", "--config", str(file))
    assert refused.returncode == 1
    assert "decorum migrate" in refused.stderr
    assert decorum("migrate", "--config", str(file)).returncode == 0
    own_postgres.kill()
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: "store.unavailable" in gateway.text, 30)
        status, body = get(port, "/readyz")
        assert status == 503
        assert body["parts"]["store"] != "ok"
        own_postgres.start_again()
        await wait_until(lambda: get(port, "/readyz")[0] == 200, 30)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


async def test_a_broker_that_refuses_the_login_is_named_and_the_password_is_not(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    url = re.sub(r"//[^@]*@", "//nobody:hunter2@", rabbitmq.url)
    file, port = written(tmp_path, broker=f'"{url}"')
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: "refused" in get(port, "/readyz")[1].get("parts", {}).get("broker", ""), 30)
        assert get(port, "/livez")[0] == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    assert "hunter2" not in gateway.text


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    file, port = written(tmp_path)
    with served(tmp_path, file) as gateway:
        await wait_until(lambda: get(port, "/livez")[0] == 200, 30)
        other = tmp_path / "other"
        other.mkdir()
        second, _ = written(other, http=f"{{private: 127.0.0.1:{port}}}")
        answer = decorum("serve", "--config", str(second))
        assert answer.returncode == 1
        assert str(port) in answer.stderr
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


def test_the_sample_campaign_meets_every_fate(tmp_path: Path) -> None:
    sample = (ROOT / "gateway" / "sample.yaml").read_text()
    file = tmp_path / "gateway.yaml"
    file.write_text(sample.replace("127.0.0.1:8080", f"127.0.0.1:{free_port()}"))
    shown = decorum("demo", "--once", "--config", str(file), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for fate in (
        "sent",
        "2 of 2 contacts in 24 h",
        "quiet hours",
        "opted out",
        "no address",
        "422",
        "known",
        "409",
    ):
        assert fate in shown.stdout, shown.stdout
    assert "curl http://127.0.0.1:" in shown.stdout
    text = " ".join(re.sub(r"[│┃]", " ", shown.stdout).split())
    (day,) = re.findall(r"of 2 contacts in 24 h; .* frees at [0-9:]+ on [0-9-]+ \(([A-Za-z_/]+)\)", text)
    (night,) = re.findall(r"[0-9:]+ in ([A-Za-z_/]+) is within quiet hours", text)
    assert re.findall(r"next look at [0-9:]+ on [0-9-]+ \(([A-Za-z_/]+)\)", text) == [day, night], "their own clocks"
