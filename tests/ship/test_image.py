"""Is the image built of all that it needs, and does its health check tell the truth? It is never built."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import free_port
from tests.ship.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


def instructions(*names: str) -> list[str]:
    """What follows these words, in order; continued lines are one."""
    lines = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.partition(" ")[0] in names]


def copied() -> list[str]:
    """What the first stage takes from here."""
    return [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]


def left_out(path: str) -> bool:
    """Whether .dockerignore keeps it from the builder: its last pattern that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        names = [path, *map(str, Path(path).parents)]
        if (
            line
            and not line.startswith("#")
            and any(fnmatch(f"/{name}", f"*/{pattern}".replace("*/**/", "*/")) for name in names)
        ):
            verdict = not line.startswith("!")
    return verdict


def test_hadolint_finds_nothing_to_complain_of() -> None:
    assert run("hadolint", "--no-color", "--failure-threshold", "style", DOCKERFILE) == ""


def test_the_image_runs_as_nobody_in_particular_and_starts_the_gateway() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ENTRYPOINT", "CMD") == ['["decorum"]', '["serve"]']
    stages = instructions("FROM")
    assert [stage.split(" AS ")[0] for stage in stages] == [
        stages[-1]
    ] * 2  # or what was installed there could not run here
    assert f"python:{sys.version_info[0]}.{sys.version_info[1]}-" in stages[-1]  # that of the tests


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_builder() -> None:
    for name in copied():
        assert (ROOT / name).exists()
        assert not left_out(name)
    for name in ("tests", ".venv", ".git", ".env", "helm", "gateway/__pycache__", "decorum.egg-info", "decorum.db"):
        assert left_out(name), name


def test_the_wheel_of_what_is_copied_has_every_file_of_the_packages(tmp_path: Path) -> None:
    source = tmp_path / "src"
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source)
    packages = [name for name in copied() if (ROOT / name).is_dir()]
    wanted = {
        str(file.relative_to(source)) for name in packages for file in (source / name).rglob("*") if file.is_file()
    }
    command = [
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        tmp_path,
        source,
    ]
    subprocess.run([sys.executable, "-m", *command], check=True, timeout=50)
    (wheel,) = tmp_path.glob("decorum-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == wanted
    assert {"gateway/sample.yaml", "gateway/store/migrations/env.py"} <= found


# -------------------------------------------------------------------------------------------------------------- health


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", free_port()), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def healthy(port: int) -> bool:
    """What the image's health check says of a gateway at this port, whatever proxy the environment names."""
    (line,) = instructions("HEALTHCHECK")
    python, *arguments = json.loads(line.partition(" CMD ")[2])
    assert python == "python"
    arguments = [argument.replace("8080", str(port)) for argument in arguments]
    nowhere = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
    return (
        subprocess.run(
            [sys.executable, *arguments], env=nowhere, capture_output=True, timeout=20, check=False
        ).returncode
        == 0
    )


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_the_health_check_tells_a_gateway_that_lives_from_one_that_does_not(status: int, *, well: bool) -> None:
    with answering(status) as port:
        assert healthy(port) is well


def test_the_health_check_tells_that_nothing_listens() -> None:
    assert not healthy(free_port())
