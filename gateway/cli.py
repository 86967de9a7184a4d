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
    from collections.abc import Coroutine, Sequence

    from rich.table import Table

    from gateway.config import Config, Fault

main = typer.Typer(
    name="decorum",
    help="The multichannel message gateway that knows when not to send.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
webhooks = typer.Typer(help="Those who are told of events over HTTP.", no_args_is_help=True)
main.add_typer(webhooks, name="webhooks")
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
_DOUBTFUL = 1
_LATER = 75
"""EX_TEMPFAIL of sysexits.h: a mail server keeps the mail and tries again, for days."""


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
    """Run the gateway until SIGTERM or Ctrl-C. It takes up changes of policy and routes; SIGHUP has it look at once."""
    from gateway import app as application
    from gateway.config import locate
    from gateway.logs import to_stdout

    roles = role or list(application.ROLES)
    if unknown := set(roles) - set(application.ROLES):
        _fail(f"--role {', '.join(sorted(unknown))}: must be intake, worker or web")
    file = locate(config, os.environ)
    loaded = _load(file)
    to_stdout()
    try:
        run(application.serve(application.App(loaded, roles, file=file, may_migrate=migrate)))
    except application.Unusable as error:
        _fail(str(error))


@main.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The YAML file. Default as with --config.")] = None,
    policy: Annotated[
        bool, typer.Option("--policy", help="Look at policy and routes alone; no secret need be known here.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 if there are warnings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong or doubtful in a configuration; exit status 2 if it cannot be used, else 0."""
    from gateway.config import check as examine
    from gateway.config import locate

    path = locate(file, os.environ)
    report = examine(path, os.environ, policy_alone=policy)
    if as_json:
        _print_json(report.as_dict())
    else:
        _say_faults(path, "error", report.errors)
        _say_faults(path, "warning", report.warnings)
        if report.policy:
            good = "can be used" if report.warnings else "good"
            categories = len(report.policy.categories)
            sentence = f"{path}: {good}. Policy {report.policy.hash[:12]}, {categories} categories."
            talk.print(sentence, markup=False, soft_wrap=True)
    if report.errors or (strict and report.warnings):
        raise typer.Exit(_FAULTY if report.errors else _DOUBTFUL)


@main.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring the database's tables to this version's form."""
    from gateway.store.engine import StoreUnavailable
    from gateway.store.migrate import migrate as bring

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
    from gateway.client import GatewayError, send_lines

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
    message: Annotated[str, typer.Argument(help="The message's id; with --source the id of its request.")],
    source: Annotated[str | None, typer.Option(help="The service that sent the request.")] = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what became of a message and why; of one that waits, when it can go."""
    from gateway.client import explanation

    _tell(explanation(message, source, url, key), as_json=as_json)


@main.command()
def eligible(
    user: Annotated[str, typer.Argument(help="The person, known or not.")],
    category: Annotated[str, typer.Argument(help="Of the message that might be sent.")],
    channel: Annotated[str | None, typer.Option(help="Default: the category's first.")] = None,
    at: Annotated[str | None, typer.Option(help="RFC 3339, in the past or ahead. Default: now.")] = None,
    timezone: Annotated[str | None, typer.Option(help="IANA zone that the request would name.")] = None,
    campaign: Annotated[str | None, typer.Option(help="That the message would belong to.")] = None,
    priority: Annotated[str | None, typer.Option(help="Default: the category's.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given several times.")] = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a person may be contacted, by every rule, and if not, when; nothing is sent."""
    from gateway.client import eligibility

    options = {"channel": channel, "at": at, "timezone": timezone, "campaign": campaign, "priority": priority}
    asked = {"category": category} | {name: value for name, value in options.items() if value is not None}
    for pair in label or ():
        name, equals, value = pair.partition("=")
        if not equals:
            _fail(f"--label {pair}: must be NAME=VALUE")
        asked[f"label.{name}"] = value
    _tell(eligibility(user, asked, url, key), as_json=as_json)


@webhooks.command("list")
def list_webhooks(url: UrlOption = _URL, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Say how it stands with each: whether it is enabled, what waits for it, and what it never took."""
    from gateway import client

    _tell(client.webhooks(url, key), as_json=as_json)


@webhooks.command()
def enable(
    name: Annotated[str, typer.Argument(help="As it is configured.")],
    given_up: Annotated[
        bool, typer.Option("--given-up", help="Send the events that it never took once more, too.")
    ] = False,
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send events again to a webhook that had said that it is gone."""
    from gateway.client import enable_webhook

    _tell(enable_webhook(name, url, key, given_up=given_up), as_json=as_json)


@main.command()
def bounce(
    recipient: Annotated[
        str | None,
        typer.Option(
            envvar=["ORIGINAL_RECIPIENT", "RECIPIENT"],
            help="The address that the mail was sent to. Mail servers set the variables.",
        ),
    ] = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
) -> None:
    """Take a bounce or a complaint from standard input: for mail servers, which pipe to this.

    Exit status 0 if it was taken, whatever it was, and nothing is printed. Else 75, for a wrong key or address too: the
    mail server keeps the mail and tries again. On any other status it would give up, and send bounces of bounces.
    """
    from gateway.client import LOOKED_AT, GatewayError, hand_over

    mail = sys.stdin.buffer.read(LOOKED_AT)
    while sys.stdin.buffer.read(LOOKED_AT):
        pass  # to its end, for mail servers take a pipe that breaks for a failure
    try:
        run(hand_over(mail, recipient, url, key))
    except GatewayError as error:
        _fail(str(error), _LATER)


@main.command()
def report(
    by: Annotated[
        str, typer.Option(help="Any of campaign, channel, category, stage, variant, source and day; empty: all in one.")
    ] = "campaign,channel",
    since: Annotated[str, typer.Option(help="Of messages accepted since: so long ago (7d), or RFC 3339.")] = "7d",
    until: Annotated[str | None, typer.Option(help="And before: the same. Default: now.")] = None,
    category: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the funnels drawn; -: to standard output.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    url: UrlOption = _URL,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what came of messages: how far they came, who left upon them, what they cost, and if targets are met."""
    from gateway.client import GatewayError
    from gateway.client import report as asked
    from gateway.report import page, sheet

    if as_csv and as_json:
        _fail("--csv and --json are two forms of the same: give one of them")
    to_stdout = html == Path("-")
    if to_stdout and (as_csv or as_json):
        _fail("--html - writes the page to standard output, where nothing else goes: leave --csv and --json out")
    query = {"by": by, "since": since, "until": until, "category": category}
    try:
        with talk.status("counting …"):
            found = run(asked({name: value for name, value in query.items() if value is not None}, url, key))
    except GatewayError as error:
        _fail(str(error))
    if to_stdout:
        sys.stdout.write(page(found))
        return
    if html:
        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            _fail(f"{html}: {error.strerror}")
        talk.print(f"Wrote {html}.", markup=False, soft_wrap=True)
    if as_json:
        _print_json(found)
    elif as_csv:
        sys.stdout.write(sheet(found))
    elif not html:
        _tabulate(found)


@main.command()
def demo(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Another policy than the sample.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End afterwards.")] = False,
) -> None:
    """Run the gateway with a sample policy and send a small campaign whose requests meet every fate."""
    from gateway import app as application
    from gateway import demo as sample
    from gateway.logs import to_stdout

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
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def _tell(answer: Coroutine[Any, Any, dict[str, Any]], *, as_json: bool) -> None:
    """Print what a running gateway answers: its sentences, or all of it."""
    from gateway.client import GatewayError

    try:
        found = run(answer)
    except GatewayError as error:
        _fail(str(error))
    if as_json:
        _print_json(found)
    else:
        for sentence in found["text"]:
            print(sentence)  # noqa: T201 - what was asked for


def _tabulate(found: dict[str, Any]) -> None:
    """A report. Where the terminal is too narrow, shares stand below their numbers; a pipe is as wide as it must be."""
    from gateway.report import remarks

    console = Console(highlight=False, markup=False, emoji=False)  # names are others'
    table = _table(found, " ")
    wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    if wide > console.width and console.is_terminal:
        table = _table(found, "\n")
    elif wide > console.width:
        console.width = wide
    console.print(table)
    for remark in remarks(found):
        console.print(remark, soft_wrap=True)


def _table(found: dict[str, Any], before_shares: str) -> Table:
    from rich import box
    from rich.table import Table

    from gateway.report import rows

    head, *body = rows(found)
    keys = len(found["by"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place < keys else "right", overflow="fold")
    for cells in body:
        if cells is body[-1]:
            table.add_section()
        numbers = [cell.replace(" ", before_shares) for cell in cells[keys:]]
        table.add_row(*cells[:keys], *numbers, style="bold" if cells is body[-1] else None)
    return table


def _load(option: Path | None) -> Config:
    from gateway.config import ConfigError, load, locate

    path = locate(option, os.environ)
    try:
        return load(path, os.environ)
    except ConfigError as error:
        _say_faults(path, "error", error.faults)
        raise typer.Exit(_FAULTY) from None


def _say_faults(path: Path, what: str, faults: Sequence[Fault]) -> None:
    """Under a heading, each as ``FILE:LINE: path: problem``, which editors jump to; nothing where there are none."""
    if faults:
        talk.print(f"{len(faults)} {what}{'s' if len(faults) > 1 else ''}", markup=False, style="bold")
    for fault in faults:
        where = path if fault.line is None else f"{path}:{fault.line}"
        talk.print(f"{where}: {fault.sentence}", markup=False, soft_wrap=True)


def _print_json(value: object) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())  # noqa: T201 - what was asked for


def _fail(sentence: str, status: int = 1) -> NoReturn:
    talk.print(sentence, style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(status)
