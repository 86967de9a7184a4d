"""What our dependencies must not be used for, held by reading the code: each of these has cost somebody messages."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("gateway", "providers", "ratelimit") for path in (ROOT / folder).rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call, with the last word of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(name) | ast.Attribute(attr=name):
                    yield name, node


def found(text: str) -> list[str]:
    """What a file does that it must not."""
    faults = []
    for name, call in calls(ast.parse(text)):
        named = {keyword.arg for keyword in call.keywords}
        match name:
            case "process" | "connect_robust" | "iterator":
                faults.append(f"{name}: rejects what is cancelled, restores what nobody holds, or ends without a word")
            case "Retrying" | "AsyncRetrying" if not {"retry", "stop", "wait", "reraise"} <= named:
                faults.append(f"{name}: without limits tenacity tries for ever, and at once")
            case "retry_if_exception" | "retry_if_not_exception_type" | "retry_unless_exception_type":
                faults.append(f"{name}: sees cancellations too, and tries again")
            case "gather" if _starts(call):
                faults.append(f"{name}: leaves siblings running when one fails")
    return faults


def _starts(call: ast.Call) -> bool:
    return any(name == "create_task" for argument in call.args for name, _ in calls(argument))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_walks_into_a_known_trap(path: Path) -> None:
    assert found(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "async with message.process(): pass",
        "aio_pika.connect_robust(url)",
        "AsyncRetrying(retry=x, stop=y, reraise=True)",
        "retry_if_exception(lambda e: True)",
        "gather(create_task(x()))",
    ],
)
def test_the_reader_sees_each_trap(text: str) -> None:
    assert len(found(f"async def f():\n    {text}")) == 1
