"""Is every retry bounded in number and time, spread, and only of what it names?"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("gateway", "providers", "ratelimit") for path in (ROOT / package).rglob("*.py"))
RETRYING = {"AsyncRetrying", "Retrying", "retry"}
"""What retries, by its name in tenacity."""
TOO_WIDE = {"Exception", "BaseException", "object"}


def faults(source: str) -> list[str]:
    """What is wrong with each use of tenacity in a module.

    Its defaults never stop and never wait; its predicates on everything but a type see ``CancelledError``, and so
    retry being told to stop; without ``reraise`` the error that counts is wrapped in another.
    """
    tree = ast.parse(source)
    names: set[str] = set()
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=imported) if any(name.name.partition(".")[0] == "tenacity" for name in imported):
                found.append("is imported whole: its names must be told apart")
            case ast.ImportFrom(module=module, names=imported) if (module or "").partition(".")[0] == "tenacity":
                names |= {name.name for name in imported}
                found += [f"{name.name} is renamed" for name in imported if name.asname]
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names & RETRYING
    ]
    called = {node.func for node in uses}
    found += [
        f"{node.id} is not called with its bounds"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in names & RETRYING and node not in called
    ]
    for use in uses:
        given = {word.arg: word.value for word in use.keywords}
        found += _of_predicate(given.get("retry")) + _of_stop(given.get("stop")) + _of_wait(given.get("wait"))
        if not (isinstance(again := given.get("reraise"), ast.Constant) and again.value is True):
            found.append("does not raise the error itself")
    return found


def _calls(node: ast.expr | None) -> list[tuple[str, ast.Call]]:
    if node is None:
        return []
    return [(n.func.id, n) for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]


def _of_predicate(node: ast.expr | None) -> list[str]:
    calls = _calls(node)
    if not calls or {name for name, _ in calls} != {"retry_if_exception_type"}:
        return ["retries by something else than the types of errors"]
    types = [ast.unparse(argument) for _, call in calls for argument in call.args]
    wide = not types or any(word in TOO_WIDE for one in types for word in one.strip("()").replace(" ", "").split(","))
    return ["retries errors of any type"] if wide else []


def _of_stop(node: ast.expr | None) -> list[str]:
    names = {name for name, _ in _calls(node)}
    found = []
    if "stop_after_attempt" not in names:
        found.append("does not stop after a number of attempts")
    if not names & {"stop_after_delay", "stop_before_delay", "_Past"}:  # the last is ours, by the event loop's clock
        found.append("does not stop after a time")
    if node is not None and any(isinstance(part, ast.BitAnd) for part in ast.walk(node)):
        found.append("stops only when both bounds are reached")
    return found


def _of_wait(node: ast.expr | None) -> list[str]:
    calls = dict(_calls(node))
    if set(calls) != {"wait_random_exponential"}:
        return ["waits without growing and spreading"]
    return [] if any(word.arg == "max" for word in calls["wait_random_exponential"].keywords) else ["waits ever longer"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_retry_names_its_errors_and_is_bounded(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_retries_are_there_to_be_looked_at_and_in_no_adapter() -> None:
    users = {path.relative_to(ROOT).parts[0] for path in SOURCES if "tenacity" in path.read_text(encoding="utf-8")}
    assert users == {"gateway"}


GOOD = {
    "retry": "retry_if_exception_type(Unavailable)",
    "stop": "stop_after_attempt(2) | stop_before_delay(2)",
    "wait": "wait_random_exponential(multiplier=0.1, max=1)",
    "reraise": "True",
}
IMPORT = "from tenacity import AsyncRetrying, retry"


def use(**changed: str | None) -> str:
    given = {name: value for name, value in (GOOD | changed).items() if value is not None}
    return f"{IMPORT}\nagain = AsyncRetrying({', '.join(f'{name}={value}' for name, value in given.items())})"


@pytest.mark.parametrize(
    "source",
    [
        *(use(**{name: None}) for name in GOOD),
        use(retry="retry_if_not_exception_type(Rejected)"),
        use(retry="retry_if_exception(lambda error: True)"),
        use(retry="retry_if_exception_type()"),
        use(retry="retry_if_exception_type(Exception)"),
        use(retry="retry_if_exception_type((Unavailable, BaseException))"),
        use(stop="stop_never"),
        use(stop="stop_after_attempt(2)"),
        use(stop="stop_after_delay(2)"),
        use(stop="stop_after_attempt(2) & stop_after_delay(2)"),
        use(wait="wait_none()"),
        use(wait="wait_exponential(max=1)"),
        use(wait="wait_random_exponential(multiplier=1)"),
        use(reraise="False"),
        f"{IMPORT}\n@retry\ndef call(): ...",
        "import tenacity",
        "from tenacity import AsyncRetrying as Again",
    ],
)
def test_a_retry_that_lacks_something_is_found(source: str) -> None:
    assert faults(use()) == []
    assert faults(source) != []
