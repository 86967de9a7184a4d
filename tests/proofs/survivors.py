"""What came of the mutants: the score of each module, and the faults that no test has found.

``python -m tests.proofs.survivors [PATTERN …]``, after a run of mutmut, whose working folder is read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

FOLDER = Path("mutants")
FOUND = {1: "killed", 3: "killed", 36: "timeout", 24: "timeout", -24: "timeout", 152: "timeout", 255: "timeout"}
"""Exit codes of mutants that were found out; one that goes on for ever is."""
MISSED = {0: "survived", 5: "untested", 33: "untested"}
UNTRIED = "not tried"


def verdicts(patterns: list[str]) -> dict[str, str]:
    """Mutants by their names, each with what came of it."""
    told: dict[str, str] = {}
    for meta in sorted(FOLDER.rglob("*.meta")):
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns):
                told[name] = UNTRIED if code is None else (FOUND | MISSED).get(code, f"exit code {code}")
    return told


def main(patterns: list[str]) -> None:
    told = verdicts(patterns)
    modules: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in told.items():
        modules[name.rpartition(".")[0]][verdict] += 1
    print(f"\n{'module':24}{'mutants':>9}{'found':>8}{'score':>9}")
    whole: Counter[str] = Counter()
    for module, counts in [*sorted(modules.items()), ("all", whole)]:
        if module != "all":
            whole += counts
        tried = counts.total() - counts[UNTRIED]
        found = sum(counts[verdict] for verdict in set(FOUND.values()))
        if tried:
            print(f"{module:24}{tried:9}{found:8}{found / tried:9.1%}")
    left = [name for name, verdict in told.items() if verdict not in {*FOUND.values(), UNTRIED}]
    print(f"\n{len(left)} not found, {whole[UNTRIED]} not tried\n")
    for name in left:
        print(f"{name}: {told[name]}")
        shown = subprocess.run(
            [sys.executable, "-m", "mutmut", "show", name], capture_output=True, text=True, check=False
        )
        changed = [line for line in shown.stdout.splitlines() if line.startswith(("+", "-"))]
        print(*(line for line in changed if not line.startswith(("+++", "---"))), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
