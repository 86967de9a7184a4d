"""The command line: what ops type."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.config import Config

main = typer.Typer(
    name="decorum",
    help="The multichannel message gateway that knows when not to send.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
talk = Console(stderr=True, highlight=False)
"""For people; what programs read goes to standard output."""

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The YAML file. Default: $DECORUM_CONFIG, else ./gateway.yaml.")
]
UrlOption = Annotated[str, typer.Option("--url", envvar="DECORUM_URL", help="A running gateway's private listener.")]
KeyOption = Annotated[str | None, typer.Option("--key", envvar="DECORUM_KEY", help="API key, where it asks for one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]

T = TypeVar("T")

_URL = "http://127.0.0.1:8080"
_FAULTY = 2


@main.command()
def serve(
    config: ConfigOption = None,
    role: Annotated[
        list[str] | None, typer.Option(help="intake, worker or web; may be given several times. Default: all.")
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring an old PostgreSQL schema up to date first.")
    ] = False,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    from gateway import app as application  # noqa: PLC0415 - the other commands start without it
    from gateway.logs import to_stdout  # noqa: PLC0415

    roles = role or list(application.ROLES)
    if unknown := set(roles) - set(application.ROLES):
        _fail(f"--role {', '.join(sorted(unknown))}: must be intake, worker or web")
    loaded = _load(config)
    to_stdout()
    try:
        run(application.serve(application.App(loaded, roles, may_migrate=migrate)))
    except application.Unusable as error:
        _fail(str(error))


@main.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The YAML file. Default as with --config.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with a configuration; exit status 0 only if nothing is."""
    from gateway.config import ConfigError, load, locate  # noqa: PLC0415

    path = locate(file, os.environ)
    try:
        loaded = load(path, os.environ)
    except ConfigError as error:
        if as_json:
            _print_json({"ok": False, "faults": [{"path": f.path, "problem": f.problem} for f in error.faults]})
        else:
            _say_faults(path, error.faults)
        raise typer.Exit(_FAULTY) from None
    if as_json:
        _print_json({"ok": True, "faults": [], "policy": loaded.policy.hash})
    else:
        talk.print(f"{path}: good. Policy {loaded.policy.hash[:12]}, {len(loaded.policy.categories)} categories.")


@main.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring the database's tables to this version's form."""
    from gateway.store.engine import StoreUnavailable  # noqa: PLC0415
    from gateway.store.migrate import migrate as bring  # noqa: PLC0415

    try:
        talk.print(f"The tables are at {bring(_load(config).store)}.")
    except StoreUnavailable as error:
        _fail(str(error))


@main.command()
def send(
    file: Annotated[Path, typer.Argument(help="Requests, one JSON object a line; - for standard input.")],
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send requests from a file or a pipe to a running gateway."""
    from gateway.client import GatewayError, send_lines  # noqa: PLC0415

    try:
        stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        _fail(f"{file}: {error.strerror}")
    size = None if str(file) == "-" else file.stat().st_size
    with stream:
        try:
            tally = run(send_lines(stream, size, url, key, talk))
        except GatewayError as error:
            _fail(str(error))
    if as_json:
        _print_json(tally.as_dict())
    else:
        talk.print(tally.sentence())
    raise typer.Exit(1 if tally.refused else 0)


@main.command()
def explain(
    message: Annotated[str, typer.Argument(help="The message's id, or with --source the request's.")],
    source: Annotated[str | None, typer.Option(help="The service that sent the request.")] = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what became of a message and why, and when it will be looked at next."""
    from gateway.client import GatewayError, explanation  # noqa: PLC0415

    try:
        found = run(explanation(message, source, url, key))
    except GatewayError as error:
        _fail(str(error))
    if as_json:
        _print_json(found)
    else:
        for sentence in found["text"]:
            print(sentence)  # noqa: T201 - what was asked for


@main.command()
def demo(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Another policy than the sample.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End afterwards.")] = False,
) -> None:
    """Run the gateway with a sample policy and send a small campaign whose requests meet every fate."""
    from gateway import app as application  # noqa: PLC0415
    from gateway import demo as sample  # noqa: PLC0415
    from gateway.logs import to_stdout  # noqa: PLC0415

    to_stdout(logging.WARNING)
    try:
        run(sample.play(config, Console(highlight=False), once=once))
    except application.Unusable as error:
        _fail(str(error))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"decorum {version('decorum')}")  # noqa: T201 - what was asked for
        raise typer.Exit


@main.callback()
def root(
    *,
    show: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and end.")] = False,
) -> None:
    """The multichannel message gateway that knows when not to send."""
    del show


def run(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop where it is installed."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def _load(option: Path | None) -> Config:
    from gateway.config import ConfigError, load, locate  # noqa: PLC0415

    path = locate(option, os.environ)
    try:
        return load(path, os.environ)
    except ConfigError as error:
        _say_faults(path, error.faults)
        raise typer.Exit(_FAULTY) from None


def _say_faults(path: Path, faults: tuple[Any, ...]) -> None:
    talk.print(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}", markup=False)
    for fault in faults:
        talk.print(f"  {fault}", markup=False, soft_wrap=True)


def _print_json(value: object) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())  # noqa: T201 - what was asked for


def _fail(sentence: str) -> NoReturn:
    talk.print(sentence, style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
