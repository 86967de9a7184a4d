"""That the benchmark works, and measures what it says. How fast anything is, is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.profile import by_function, by_module, by_stage, read
from tests.benchmarks.workload import SIZE, requests

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_the_quick_form_of_whole_messages_counts_every_one() -> None:
    found = quick("gateway")
    assert list(found) == ["a", "b"]
    for contender in found.values():
        assert [one["messages"] for one in contender["runs"]] == [500]
        assert contender["rate"] > 0
        assert contender["cpu_us"] > 0
        assert contender["rss_mb"] > 1
    assert found["b"]["ratio_to_a"] == pytest.approx(found["b"]["rate"] / found["a"]["rate"])


def test_the_quick_form_of_one_decision_tells_each_beside_redis() -> None:
    found = quick("decision")
    assert {"earliest", "next-step", "limits", "limits-async"} <= set(found)
    for one in found.values():
        assert one["us"] > 0
        assert one["ratios"]["limits"] == pytest.approx(one["us"] / found["limits"]["us"])


def test_the_quick_form_of_claims_tells_each_number_of_persons() -> None:
    found = quick("claims")
    stores = {"postgres-500", "postgres-1000", "bare-500", "bare-1000", "sqlite-500", "sqlite-1000"}
    assert set(found) == {"limits", *stores}
    for name in stores:
        one = found[name]
        assert one["persons"] == int(name.split("-")[1])
        assert one["client_us"] > 0
        assert one["ratio_to_limits"] == pytest.approx(one["rate"] / found["limits"]["rate"])
    assert found["postgres-1000"]["cost_ratio"] == pytest.approx(
        found["postgres-500"]["rate"] / found["postgres-1000"]["rate"]
    )


def quick(table: str) -> Any:
    command = [sys.executable, "-m", "tests.benchmarks", table, "--quick", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)[table]


def test_requests_are_of_one_size_and_two_to_a_person() -> None:
    some = [json.loads(body) for body in requests(1000, "run")]
    assert {len(body) for body in requests(1000, "run")} == {SIZE}
    assert {len(body) for body in requests(1000, "run", source=None)} == {SIZE}
    assert len({request["id"] for request in some}) == 1000
    persons = [request["user"] for request in some]
    assert len(set(persons)) == 500
    assert persons[:500] == persons[500:]


def test_a_profile_is_told_by_library_by_part_and_by_function(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks"
    stacks.write_text(
        f"run (/usr/lib/python3.11/asyncio/runners.py:118);_claim_all ({ROOT}/gateway/pipeline.py:240);"
        f"_drive ({ROOT}/gateway/store/postgres.py:120);fetch (/x/site-packages/asyncpg/connection.py:7) 3\n"
        "run (/usr/lib/python3.11/asyncio/runners.py:118) 2\n"
        f"run (/usr/lib/python3.11/asyncio/runners.py:118);_claim_all ({ROOT}/gateway/pipeline.py:241) 4\n"
        "_worker (/usr/lib/python3.11/concurrent/futures/thread.py:81) 100\n"
    )
    found = read(stacks)
    loop = "asyncio: loop, C code under it, system calls"
    assert by_module(found) == {"asyncpg": 3, loop: 2, "gateway/pipeline": 4}
    assert by_stage(found) == {"worker: claim": 7, "the rest": 2}
    assert by_function(found)["_claim_all (gateway/pipeline.py)"] == 4
