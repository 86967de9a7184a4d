"""Ops edit the file of a gateway that runs: what is decided next, what becomes of those that wait, and what is said?"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Child, free_port, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
YAML = """
store: sqlite:///FOLDER/conf/decorum.db
http: {private: 127.0.0.1:PORT}
providers: {inbox: {kind: inbox}}
routes: {sms: [inbox], email: [inbox]}
policy:
  timezone: UTC
  categories: {news: {priority: bulk, expires_after: 30d}}
  caps: [{name: daily, limit: 1, per: 24h}]
"""


# ------------------------------------------------------------------------------------------------ ways to write a file


def in_place(file: Path, text: str) -> None:
    """As a shell's redirection does: for a moment it is empty."""
    file.write_text(text)


def replaced(file: Path, text: str) -> None:
    """As editors do, and what deploys files."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    beside.replace(file)


def config_map(file: Path, text: str) -> None:
    """As Kubernetes does: the file's link never changes, nor the folder it leads to; the link in between does."""
    data = file.parent / "..data"
    before = data.resolve() if data.is_symlink() else None
    version = Path(tempfile.mkdtemp(prefix="..2026_11_22_", dir=file.parent))
    (version / file.name).write_text(text)
    beside = file.parent / "..data_tmp"
    beside.symlink_to(version.name)
    beside.replace(data)
    if not file.is_symlink():
        file.symlink_to(f"..data/{file.name}")
    if before:
        shutil.rmtree(before)


# ------------------------------------------------------------------------------------------------ a gateway and its ops


class Gateway:
    """One that runs, and the folder with its file."""

    def __init__(self, folder: Path, write: Callable[[Path, str], None], yaml: str = YAML) -> None:
        self.file = folder / "conf" / "gateway.yaml"
        self.file.parent.mkdir()
        self._write = write
        self.port = free_port()
        self.yaml = yaml.replace("FOLDER", str(folder)).replace("PORT", str(self.port))
        self.edit()
        self._sent = 0
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "gateway", "serve", "--config", self.file]
        self.process: Child = spawn(command, folder / "log", env=environ)

    def edit(self, *changes: tuple[str, str]) -> None:
        """Write the file as it was at the start, but for these changes."""
        text = self.yaml
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self._write(self.file, text)

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        try:
            return bool(self.ask("/readyz")["status"] == "ok")
        except OSError:
            return False

    def send(self, user: str = "ann", **more: object) -> str:
        self._sent += 1
        body = {
            "id": str(self._sent),
            "user": user,
            "category": "news",
            "to": {"email": "ann@example.com"},
            "content": {"email": {"subject": "hello", "text": "there"}},
        } | more
        return str(self.ask("/v1/messages", body)["message"])

    def view(self, message: str) -> Any:
        return self.ask(f"/v1/messages/{message}")

    def sent(self, message: str) -> bool:
        return bool(self.view(message)["state"] == "sent")

    def held(self, message: str) -> bool:
        view = self.view(message)
        return bool(view["state"] == "waiting" and view["decisions"])

    def decided_by(self, message: str) -> list[int]:
        """The policy's number in each decision that a message waits, and then in each that it goes."""
        view = self.view(message)
        return [decision["policy"] for decision in (*view["decisions"], *view["attempts"])]

    def samples(self, name: str) -> dict[str, float]:
        """By their labels, as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return {
            labels: float(value) for labels, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        }

    def number(self) -> int:
        """Of the policy in force, of which there is one."""
        (labels,) = self.samples("gateway_policy_info")
        return int(re.findall(r'number="(\d+)"', labels)[0])

    def refused(self) -> bool:
        return self.samples("gateway_policy_refused") == {"": 1}

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.process.text.splitlines() if line.endswith("}")]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def one(write: Callable[[Path, str], None] = in_place, yaml: str = YAML) -> Gateway:
        started.append(Gateway(tmp_path, write, yaml))
        return started[-1]

    yield one
    for gateway in started:
        gateway.process.kill()


every_way = pytest.mark.parametrize("write", [in_place, replaced, config_map])


@every_way
async def test_an_edit_changes_the_very_next_decision_and_lets_go_who_waits(
    start: Callable[..., Gateway], write: Callable[[Path, str], None]
) -> None:
    gateway = start(write)
    await wait_until(gateway.ready, 30)
    first, second = gateway.send(), gateway.send()
    await wait_until(lambda: gateway.sent(first) and gateway.held(second))
    assert gateway.number() == 1

    gateway.edit(("limit: 1", "limit: 3"))
    await wait_until(lambda: gateway.sent(second), message="the looser cap frees it, though nobody asks")
    assert gateway.decided_by(second)[0] == 1
    assert gateway.decided_by(second)[-1] == 2
    third, fourth = gateway.send(), gateway.send()
    await wait_until(lambda: gateway.sent(third) and gateway.held(fourth))
    assert gateway.number() == 2
    assert set(gateway.decided_by(third)) == {2}

    gateway.edit(("limit: 1", "limit: 2"))
    await wait_until(lambda: gateway.number() == 3)
    await wait_until(lambda: gateway.decided_by(fourth)[-1] == 3)
    fifth = gateway.send("ben")
    sixth, seventh = gateway.send("ben"), gateway.send("ben")
    await wait_until(lambda: gateway.sent(fifth) and gateway.sent(sixth) and gateway.held(seventh))
    assert gateway.held(fourth)
    assert "2 of 2" in str(gateway.view(seventh)["decisions"])

    gateway.edit()
    await wait_until(lambda: gateway.number() == 1, message="a policy that comes back has its number again")
    eighth, ninth = gateway.send("cat"), gateway.send("cat")
    await wait_until(lambda: gateway.sent(eighth) and gateway.held(ninth))
    assert set(gateway.decided_by(ninth)) == {1}
    assert len(gateway.said("policy.applied")) == 4
    assert gateway.samples("gateway_policy_loads_total") == {'result="applied"': 4, 'result="refused"': 0}
    assert gateway.samples("gateway_policy_swept_total")[""] >= 2


FAULTY = [
    ("limit: 1", "limit: 0"),
    ("policy:", "policy: ["),
    ("timezone: UTC", "timezone: UCT/Nowhere"),
]


@every_way
async def test_a_faulty_edit_changes_nothing_says_why_and_is_mended_by_the_next(
    start: Callable[..., Gateway], write: Callable[[Path, str], None]
) -> None:
    gateway = start(write)
    await wait_until(gateway.ready, 30)
    first, second = gateway.send(), gateway.send()
    await wait_until(lambda: gateway.sent(first) and gateway.held(second))
    for change in FAULTY:
        before = len(gateway.said("policy.refused"))
        gateway.edit(change, ("name: daily", "name: other"))
        await wait_until(lambda before=before: len(gateway.said("policy.refused")) > before)
        assert gateway.refused()
    assert gateway.number() == 1
    third, fourth = gateway.send("ben"), gateway.send("ben")
    await wait_until(lambda: gateway.sent(third) and gateway.held(fourth))
    assert set(gateway.decided_by(fourth)) == {1}
    assert "daily" in str(gateway.view(fourth)["decisions"])
    told = [fault for line in gateway.said("policy.refused") for fault in line["faults"]]
    assert {"policy.caps[0].limit", "policy.timezone"} <= {fault["path"] for fault in told}
    assert all(fault["problem"] and fault["line"] for fault in told)
    assert all(line["kept"] == 1 and line["level"] == "error" for line in gateway.said("policy.refused"))

    gateway.edit(("limit: 1", "limit: 2"))
    await wait_until(lambda: gateway.sent(second) and gateway.sent(fourth))
    assert not gateway.refused()
    gateway.edit(FAULTY[0])
    await wait_until(gateway.refused)
    gateway.edit(("limit: 1", "limit: 2"))
    await wait_until(lambda: not gateway.refused(), message="what is in force already mends it too")
    assert gateway.number() == 2


async def test_sighup_has_the_file_read_where_nothing_told_of_a_change(
    start: Callable[..., Gateway], tmp_path: Path
) -> None:
    zone = tmp_path / "zone"
    zone.write_text("UTC")
    gateway = start(yaml=YAML.replace("timezone: UTC", "timezone: {file: FOLDER/zone}"))
    await wait_until(gateway.ready, 30)
    zone.write_text("Asia/Tokyo")
    assert gateway.number() == 1
    gateway.process.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.number() == 2)
    zone.write_text("Nowhere")
    gateway.process.signal(signal.SIGHUP)
    await wait_until(gateway.refused)
    gateway.process.signal(signal.SIGTERM)
    assert gateway.process.wait() == 0


async def test_what_needs_a_restart_is_named_and_the_rest_is_applied(start: Callable[..., Gateway]) -> None:
    gateway = start()
    await wait_until(gateway.ready, 30)
    more = ("{kind: inbox}}", "{kind: inbox, concurrency: 7}, other: {kind: inbox}}")
    gateway.edit(more, ("limit: 1", "limit: 2"), ("providers:", "worker: {attempt: 20s}\nproviders:"))
    await wait_until(lambda: gateway.said("config.needs_restart"))
    assert gateway.number() == 2
    assert set(gateway.said("config.needs_restart")[0]["sections"]) == {"providers", "worker"}
    assert gateway.samples("gateway_config_needs_restart") == {'section="providers"': 1, 'section="worker"': 1}

    gateway.edit(more, ("limit: 1", "limit: 3"), ("sms: [inbox]", "sms: [other]"))
    await wait_until(gateway.refused)
    (fault,) = gateway.said("policy.refused")[0]["faults"]
    assert fault["path"] == "routes.sms"
    assert "restart" in fault["problem"]
    assert gateway.number() == 2

    gateway.edit()
    await wait_until(lambda: not gateway.refused() and gateway.number() == 1)
    assert gateway.samples("gateway_config_needs_restart") == {}


async def test_a_category_is_taken_and_given_up_without_a_restart(start: Callable[..., Gateway]) -> None:
    gateway = start()
    await wait_until(gateway.ready, 30)
    with pytest.raises(urllib.error.HTTPError):
        gateway.send(category="receipt")
    gateway.edit(("categories: {", "categories: {receipt: {caps: exempt}, "))
    await wait_until(lambda: gateway.number() == 2)
    receipt = gateway.send(category="receipt")
    await wait_until(lambda: gateway.sent(receipt))
    first, second = gateway.send(), gateway.send()
    await wait_until(lambda: gateway.sent(first) and gateway.held(second))
    gateway.edit(("categories: {news:", "categories: {letter:"))
    await wait_until(
        lambda: gateway.view(second)["state"] == "parked", message="nothing says any more what holds for it"
    )
