"""What people see who follow a link to unsubscribe, in their language: no script, and nothing from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from gateway.languages import RIGHT_TO_LEFT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.languages import Language


Notice = Literal["back", "failed"]


class Choice(StrEnum):
    """What can be left by the page."""

    KIND = "kind"
    """What the message was of."""
    ALL = "all"
    """All that can be unsubscribed from."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page says."""

    language: Language
    name: str | None = None
    """Whom the messages are from."""
    title: str | None = None
    """What the message was of; None: it has no name in that language."""
    left: Choice | None = None
    """What the person has said no to."""
    again: bool = False
    """Whether the page offers to take that back."""
    notice: Notice | None = None
    """It has just been taken back; it could not be done."""
    dead: bool = False
    """The link does not work: nothing is offered."""


class Pages:
    """The page, ready to be filled in."""

    def __init__(self) -> None:
        here = files("gateway.web.pages")
        style = here.joinpath("unsubscribe.css").read_text(encoding="utf-8")
        self._texts: Mapping[str, Mapping[str, str]] = yaml.safe_load(
            here.joinpath("unsubscribe.yaml").read_text(encoding="utf-8")
        )
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self._template = environment.from_string(here.joinpath("unsubscribe.html").read_text(encoding="utf-8"))
        self._style = Markup(style)  # noqa: S704 - it is ours
        self.security = (
            f"default-src 'none'; style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}';"
            " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        """What the page may do, as a Content-Security-Policy: look as it does, and send its form back."""

    def unsubscribe(self, shown: Shown) -> str:
        """The page as HTML."""
        told = _teller(self._texts[shown.language])

        def of_kind(key: str) -> Markup:
            return told(f"{key}_titled", title=shown.title) if shown.title else told(key)

        return self._template.render(
            language=shown.language,
            direction="rtl" if shown.language in RIGHT_TO_LEFT else "ltr",
            style=self._style,
            heading=self._texts[shown.language]["dead" if shown.dead else "done" if shown.left else "heading"],
            name=shown.name,
            left=shown.left,
            again=shown.again,
            notice=shown.notice,
            dead=shown.dead,
            told=told,
            of_kind=of_kind,
        )

    def dead(self, language: Language) -> str:
        """What the page of a link that does not work says, as plain text."""
        texts = self._texts[language]
        return f"{texts['dead']}\n\n{texts['dead_why']}\n"


def _teller(texts: Mapping[str, str]) -> Callable[..., Markup]:
    """Says a text with names in it, each set apart: it may be written in the other direction."""

    def told(key: str, **names: str) -> Markup:
        apart = {name: Markup("<bdi>{}</bdi>").format(text) for name, text in names.items()}
        return escape(texts[key]).format(**apart)

    return told
