"""The YAML, typed: every fault at once, with its path; secrets by reference."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
    Policy,
    Retention,
    WorkerConfig,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BrokerConfig",
    "Category",
    "Config",
    "ConfigError",
    "Endpoint",
    "EventsConfig",
    "Fault",
    "HttpConfig",
    "Key",
    "Policy",
    "Retention",
    "WorkerConfig",
    "load",
    "locate",
    "parse",
]


def locate(option: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: ``--config``, else ``$DECORUM_CONFIG``, else ``./gateway.yaml``. It need not exist."""
    return option or Path(environ.get("DECORUM_CONFIG") or "gateway.yaml")


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a file.

    Raises:
        ConfigError: with every fault in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Fault("", f"{path} is not UTF-8 text: byte {error.start} cannot be read")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        how = "name the file with --config or $DECORUM_CONFIG, or run where gateway.yaml is"
        raise ConfigError([Fault("", f"{path} cannot be read: {why}; {how}")]) from None
    return parse(text, environ, base=path.parent)


def parse(text: str, environ: Mapping[str, str], *, base: Path) -> Config:
    """What a configuration says.

    Args:
        text: YAML.
        environ: Where ``{env: NAME}`` is looked up.
        base: Where relative paths of ``{file: path}`` begin. A relative path of SQLite begins where the process runs.

    Raises:
        ConfigError: with every fault in it.
    """
    faults = Faults()
    root = document.read(text, faults, partial(references.fetch, environ=environ, base=base))
    config = Reading(faults).config(root)
    faults.check()
    return config
