"""Run rows, print what they have seen: ``python -m tests.faults [--short] [F1 F14 …]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from tests.faults.rows import ROWS
from tests.faults.tally import Tally

HERE = Path(__file__).parent


class Table:
    """A plugin of pytest: gathers the tallies of rows, and tells them at the end."""

    def __init__(self, wanted: list[str]) -> None:
        self._tallies = {row: Tally() for row in wanted}
        self._run: set[str] = set()
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        if report.failed:
            self._failed.add(str(told.get("row")))
        if report.when == "teardown" and "faults" in told:
            self._run.add(str(told["row"]))
            self._tallies[str(told["row"])].add(told["faults"])  # type: ignore[arg-type]

    def lines(self) -> list[str]:
        """The table, then the sum."""
        heads = ("count", 7), ("messages", 9), ("lost", 5), ("doubled", 8), ("repeated", 9), ("unknown", 8)
        lines = [f"{'':4} {'fault':48} " + " ".join(f"{head:>{width}}" for head, width in (*heads, ("recovery", 9)))]
        for id_, tally in self._tallies.items():
            told = f"{id_:4} {ROWS[id_].what:48}"
            if id_ in self._run:
                told += f" {tally.faults:7} {tally.messages:9} {tally.lost:5} {tally.doubled:8} {tally.repeated:9}"
                told += f" {tally.unknown:8}" + (f" {tally.recovery:7.1f} s" if tally.recovery else "")
            else:
                told += " not run"
            if tally.broken:
                told += f"  {tally.broken}"
            lines.append(told + ("  FAILED" if id_ in self._failed else ""))
        run = [self._tallies[id_] for id_ in self._run]
        faults, lost, doubled = (sum(getattr(tally, name) for tally in run) for name in ("faults", "lost", "doubled"))
        return [*lines, "", f"faults: {len(run)} rows, {faults} faults injected, lost {lost}, doubled {doubled}"]

    @property
    def whole(self) -> bool:
        """Whether every row that was asked for was run and kept its promises."""
        return self._run == set(self._tallies) and not self._failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", help="such as F1; default: all")
    parser.add_argument("--short", action="store_true", help="the counts of make test")
    parser.add_argument("--processes", type=int, default=2, help="how many tests run at once")
    options = parser.parse_args()
    if unknown := set(options.rows) - ROWS.keys():
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    wanted = options.rows or list(ROWS)
    os.environ["DECORUM_FAULTS"] = "short" if options.short else "full"
    table = Table(wanted)
    alone = [row for row in wanted if ROWS[row].alone and not options.short]
    rest = [row for row in wanted if row not in alone]
    failed = [_run(rows, processes, table) for rows, processes in ((alone, 1), (rest, options.processes)) if rows]
    print(*table.lines(), sep="\n", flush=True)
    return int(any(failed) or not table.whole)


def _run(rows: list[str], processes: int, table: Table) -> bool:
    """Whether anything failed. Always in other processes, which read the environment anew."""
    os.environ["DECORUM_FAULTS_ROWS"] = " ".join(rows)
    command = [str(HERE), "-v", "-p", "no:cacheprovider", "--numprocesses", str(processes), "--dist", "load"]
    return bool(pytest.main(command, plugins=[table]))


if __name__ == "__main__":
    sys.exit(main())
