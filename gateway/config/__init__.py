"""The YAML, typed: every fault at once, with its path; secrets by reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config import document, references
from gateway.config.faults import ConfigError, Fault, Faults
from gateway.config.reading import Reading
from gateway.config.values import (
    BrokerConfig,
    Category,
    Config,
    Endpoint,
    EventsConfig,
    HttpConfig,
    Key,
    Network,
    PagesConfig,
    Policy,
    ReportConfig,
    Retention,
    Route,
    Step,
    Target,
    Webhook,
    WorkerConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date

    Fetch = Callable[[Mapping[str, object]], str | None]

RELOADED: Final = ("policy", "routes")
"""The sections that may change while running."""

__all__ = [
    "RELOADED",
    "BrokerConfig",
    "Category",
    "Config",
    "ConfigError",
    "Endpoint",
    "EventsConfig",
    "Fault",
    "HttpConfig",
    "Key",
    "Network",
    "PagesConfig",
    "Policy",
    "Report",
    "ReportConfig",
    "Retention",
    "Route",
    "Step",
    "Target",
    "Webhook",
    "WorkerConfig",
    "check",
    "load",
    "locate",
    "parse",
]


def locate(option: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: ``--config``, else ``$DECORUM_CONFIG``, else ``./gateway.yaml``. It need not exist."""
    return option or Path(environ.get("DECORUM_CONFIG") or "gateway.yaml")


def load(path: Path, environ: Mapping[str, str], *, today: date | None = None) -> Config:
    """Read a file.

    Args:
        path: The file.
        environ: Where ``{env: NAME}`` is looked up.
        today: By which the age of rules is told; the day it is, unless given.

    Raises:
        ConfigError: with every fault in it.
    """
    return parse(_text(path), environ, base=path.parent, today=today)


def parse(text: str, environ: Mapping[str, str], *, base: Path, today: date | None = None) -> Config:
    """What a configuration says.

    Args:
        text: YAML.
        environ: Where ``{env: NAME}`` is looked up.
        base: Where relative paths of ``{file: path}`` begin. A relative path of SQLite begins where the process runs.
        today: As in ``load``.

    Raises:
        ConfigError: with every fault in it.
    """
    return _read(text, Faults(), partial(references.fetch, environ=environ, base=base), today)


@dataclass(frozen=True)
class Report:
    """What there is to say about a file."""

    errors: tuple[Fault, ...]
    """With any of them it cannot be used."""
    warnings: tuple[Fault, ...]
    policy: Policy | None
    """None with errors."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "ok": not self.errors,
            "errors": [asdict(fault) for fault in self.errors],
            "warnings": [asdict(fault) for fault in self.warnings],
            "policy": self.policy.hash if self.policy else None,
        }


def check(path: Path, environ: Mapping[str, str], *, policy_alone: bool = False, today: date | None = None) -> Report:
    """Everything that there is to say about a file.

    Args:
        path: The file.
        environ: Where ``{env: NAME}`` is looked up.
        policy_alone: Look at ``policy`` and ``routes``, and at no secret: it need not be known here.
        today: As in ``load``.
    """
    faults = Faults(RELOADED if policy_alone else ())
    fetch = partial(references.fetch, environ=environ, base=path.parent)
    try:
        found = _read(_text(path), faults, partial(_if_known, fetch) if policy_alone else fetch, today)
    except ConfigError as error:
        return Report(error.faults, error.warnings, None)
    return Report((), found.warnings, found.policy)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault("", f"{path} is not UTF-8 text: byte {error.start} cannot be read")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        how = "name the file with --config or $DECORUM_CONFIG, or run where gateway.yaml is"
        raise ConfigError([Fault("", f"{path} cannot be read: {why}; {how}")]) from None


def _read(text: str, faults: Faults, fetch: Fetch, today: date | None) -> Config:
    root = document.read(text, faults, fetch)
    config = Reading(faults, today or datetime.now(UTC).date()).config(root)
    faults.check()
    return config


def _if_known(fetch: Fetch, value: Mapping[str, object]) -> str | None:
    try:
        return fetch(value)
    except ValueError:
        raise document.Unresolved from None
