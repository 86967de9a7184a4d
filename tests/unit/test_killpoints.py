"""Can a process be made to die at a kill point by anything but a test's own launcher?"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import gateway
from gateway import killpoints

SOURCES = {path: ast.parse(path.read_text()) for path in Path(gateway.__file__).parent.rglob("*.py")}


def is_reached(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "reached" and ast.unparse(node.value) == "killpoints"


def test_every_point_is_in_one_place() -> None:
    calls = [
        node.args[0].value
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and is_reached(node.func) and isinstance(node.args[0], ast.Constant)
    ]
    assert Counter(calls) == dict.fromkeys(killpoints.POINTS, 1)
    assert len(killpoints.POINTS) >= 12


def test_nothing_of_ours_can_change_what_happens_there() -> None:
    uses = Counter(type(node.ctx).__name__ for tree in SOURCES.values() for node in ast.walk(tree) if is_reached(node))
    assert uses == {"Load": len(killpoints.POINTS)}  # each is a call: nobody stores, deletes or passes it on
    tree = SOURCES[Path(killpoints.__file__)]
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "typing"}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


def test_nothing_happens_there() -> None:
    for point in killpoints.POINTS:
        assert killpoints.reached(point) is None
