"""Does every module import only what its place in the design lets it?"""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import providers

if TYPE_CHECKING:
    from collections.abc import Collection

ROOT = Path(__file__).parents[2]
OURS = ("gateway", "providers", "ratelimit")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in OURS
    for path in sorted((ROOT / package).rglob("*.py"))
}
LONGEST = 500
THROUGH = {
    "pydantic_core": "pydantic",
    "jwt": "pyjwt",
    "cryptography": "pyjwt",
    "aiormq": "aio_pika",
    "pamqp": "aio_pika",
    "yarl": "aiohttp",
    "multidict": "aiohttp",
    "aiohappyeyeballs": "aiohttp",
    "idna": "email_validator",
    "markupsafe": "jinja2",
    "crawleruseragents": "crawler_user_agents",
}
"""What is imported though not asked for by its name, because it is part of the face of something that is."""

OUTSIDE = {
    # I/O
    *("asyncio", "socket", "ssl", "select", "selectors", "subprocess", "threading", "multiprocessing", "concurrent"),
    *("os", "io", "pathlib", "shutil", "tempfile", "fcntl", "signal", "urllib.request", "http", "sqlite3", "logging"),
    *("aiohttp", "aio_pika", "aiormq", "aiosmtplib", "asyncpg", "sqlalchemy", "structlog", "alembic"),
    # the clock
    *("time", "sched"),
    # randomness
    *("random", "secrets", "uuid"),
}
DECIDING = {
    "gateway.abuse",
    "gateway.acts",
    "gateway.agents",
    "gateway.decide",
    "gateway.fields",
    "gateway.forecast",
    "gateway.health",
    "gateway.lines",
    "gateway.markup",
    "gateway.message",
    "gateway.outcome",
    "gateway.render",
    "gateway.retries",
    "gateway.routing",
    "gateway.rulings",
    "gateway.unknown",
    "gateway.whereabouts",
}
PURE = {
    *DECIDING,
    *(f"gateway.config.{module}" for module in ("draft", "lint", "lint_hours", "lint_limits", "week")),
    "gateway.causes",
    "gateway.explain",
    "gateway.languages",
    "gateway.pace",
    "gateway.pressure",
    "gateway.report",
    *(f"gateway.report.{module}" for module in ("counting", "drawing", "page", "table", "targets", "told", "words")),
    "gateway.sentences",
    "providers._bounces",
    *(f"gateway.webhooks.{module}" for module in ("addresses", "standard", "topics")),
    "gateway.visits",
    *(module for module in MODULES if module.partition(".")[0] == "ratelimit"),
}
"""``new_id`` alone: an id holds the instant at which it was made, and 80 random bits."""


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imported(module: str, *, typing_too: bool = True) -> frozenset[str]:
    """Each module that is imported; ``from a import b`` is ``a``, and ``a.b`` too where that is a module of ours."""
    tree = parsed(module)
    passed_over: set[ast.AST] = set()
    if not typing_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                passed_over.update(ast.walk(node))
    found = set()
    for node in ast.walk(tree):
        if node in passed_over:
            continue
        match node:
            case ast.Import(names):
                found.update(name.name for name in names)
            case ast.ImportFrom(source, names, level):
                assert source, f"{module}: say from where"
                assert not level, f"{module}: imports are absolute"
                found.add(source)
                found.update(f"{source}.{name.name}" for name in names if f"{source}.{name.name}" in MODULES)
    return frozenset(found)


def of(found: Collection[str], *packages: str) -> set[str]:
    return {name for name in found if any(name == package or name.startswith(f"{package}.") for package in packages)}


def package(module: str) -> str:
    return module.partition(".")[0]


every = pytest.mark.parametrize("module", MODULES)


def test_there_is_something_to_look_at() -> None:
    assert {"gateway.decide", "gateway.store.sqlite", "providers.smtp", "ratelimit.caps"} <= set(MODULES)
    assert of(imported("gateway.store.sqlite"), "sqlite3") == {"sqlite3"}


@every
def test_providers_and_ratelimit_import_nothing_of_ours_and_do_not_know_each_other(module: str) -> None:
    if package(module) != "gateway":
        assert of(imported(module), *OURS) == of(imported(module), package(module))


@every
def test_the_gateway_knows_the_others_by_their_face_alone(module: str) -> None:
    if package(module) == "gateway":
        assert of(imported(module), "providers", "ratelimit") <= {"providers", "ratelimit"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_is_pure_imports_no_io_no_clock_and_no_randomness(module: str) -> None:
    assert not of(imported(module, typing_too=False), *OUTSIDE)


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_is_pure_never_asks_what_time_it_is(module: str) -> None:
    nodes = ast.walk(parsed(module))
    called = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    assert not called & {"now", "utcnow", "today"}


def test_deciding_rests_on_the_vocabulary_the_policy_and_the_rules_alone() -> None:
    pure = ("abuse", "config", "message", "outcome", "retries", "routing", "unknown", "whereabouts")
    allowed = {*(f"gateway.{module}" for module in pure), "providers", "ratelimit"}
    assert of(imported("gateway.decide", typing_too=False), *OURS) <= allowed


@every
def test_only_the_store_speaks_sql(module: str) -> None:
    if not module.startswith("gateway.store"):
        assert of(imported(module), "sqlite3", "asyncpg", "psycopg", "sqlalchemy", "alembic") == set()


@every
def test_only_the_broker_speaks_amqp(module: str) -> None:
    if not module.startswith("gateway.broker"):
        assert of(imported(module), "aio_pika", "aiormq", "pamqp") == set()


@every
def test_the_store_knows_nothing_of_the_web_the_broker_or_the_worker(module: str) -> None:
    if module.startswith("gateway.store"):
        above = of(imported(module, typing_too=False), "gateway") - of(imported(module), "gateway.store")
        above -= {"gateway", "gateway.killpoints"}  # which does nothing
        assert above <= {"gateway.ids", "gateway.pace", "gateway.pressure", *DECIDING} - {"gateway.forecast"}


@every
def test_no_module_imports_in_a_circle(module: str) -> None:
    seen: set[str] = set()
    ahead = of(imported(module, typing_too=False), *OURS) - {module}
    while ahead:
        following = ahead.pop()
        if following in seen or following not in MODULES or module.startswith(f"{following}."):
            continue  # a package's face stands before its parts
        seen.add(following)
        ahead |= of(imported(following, typing_too=False), *OURS)
    assert module not in seen or MODULES[module].name == "__init__.py"


@every
def test_no_module_is_too_long_to_be_read(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST


@every
def test_a_module_opens_with_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(parsed(module))


def test_every_provider_has_a_case_of_the_shared_suite() -> None:
    from tests.contract.cases import cases

    assert set(cases()) == set(providers.kinds())


def test_nothing_is_imported_that_the_project_does_not_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["fast"]]
    names = {re.split(r"[\[>=<~! ]", line)[0].replace("-", "_").lower() for line in asked}
    assert names.issuperset({"pyyaml", *THROUGH.values()})
    third = {name.partition(".")[0] for module in MODULES for name in imported(module)} - set(OURS)
    assert {name for name in third if name not in sys.stdlib_module_names} <= names | {"yaml"} | THROUGH.keys()
