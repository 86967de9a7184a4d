"""What is wrong with a file: every fault at once, in its order, with how to mend it, and without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]
"""The keys and indexes that lead to a value; empty for the whole file."""

LOST: Final = object()
"""Stands where a value had a fault that has been told: no type accepts it, and what is said of it is left out."""

_NEAR: Final = 0.61
"""Of ``difflib``'s ratio; at its own 0.6, ``abuse`` would be near ``label``."""

MIN_SECRET: Final = 4
"""Shorter ones are not looked for in sentences, which would only tear words apart."""

SAYS: Mapping[str, str] = {
    "string_type": "must be text: write it in quotes",
    "string_unicode": "must be text: it holds half a character",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list, [one, another]",
    "tuple_type": "must be a list, [one, another]",
    "frozen_set_type": "must be a list, [one, another]",
    "too_short": "must name at least {min_length}",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
"""Pydantic's types of error, in our words. https://docs.pydantic.dev/latest/errors/validation_errors/"""

_MAPPINGS: Final = ("model_type", "dict_type", "mapping_type")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the configuration."""

    path: str
    """Where, such as ``policy.caps[1].limit``; empty for the whole file."""
    problem: str
    """What, and how to mend it. Never holds a secret."""
    line: int | None = None
    """Of the file, from 1; None where it is no line's."""

    @property
    def sentence(self) -> str:
        """For people who know the line."""
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def __str__(self) -> str:
        """For people."""
        return self.sentence if self.line is None else f"line {self.line}: {self.sentence}"


class ConfigError(Exception):
    """The configuration cannot be used.

    ``faults`` are all the reasons that could be found, and ``warnings`` what else its author hardly meant, each in the
    file's order.
    """

    def __init__(self, faults: Iterable[Fault], warnings: Iterable[Fault] = ()) -> None:
        """At least one fault."""
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(map(str, self.faults)))


class Faults:
    """Those of one file, collected in any order.

    Args:
        within: The sections that matter; what is wrong with the others is not told. Empty: all matter.
    """

    def __init__(self, within: Collection[str] = ()) -> None:
        self._within = within
        self._found: dict[Fault, tuple[int, int]] = {}
        self._warned: dict[Fault, tuple[int, int]] = {}
        self._marks: dict[Place, tuple[int, int]] = {(): (0, 0)}
        self._lost: set[Place] = set()
        self._secrets: set[str] = set()

    def mark(self, place: Place, line: int, column: int) -> None:
        """Where in the file the value of that place begins."""
        self._marks[place] = (line, column)

    def mask(self, secret: str) -> None:
        """Show this in no sentence."""
        if len(secret) >= MIN_SECRET:
            self._secrets |= {secret, repr(secret)[1:-1]}

    def add(self, place: Place, problem: str) -> None:
        """What is wrong there; the sentence may hold a secret. Left out where something is wrong around it already."""
        self._tell(self._found, place, problem)

    def warn(self, place: Place, problem: str) -> None:
        """The same of what can be used, though it was hardly meant."""
        self._tell(self._warned, place, problem)

    def _tell(self, told: dict[Fault, tuple[int, int]], place: Place, problem: str) -> None:
        ways = [place[:end] for end in range(len(place), -1, -1)]
        if self._lost.intersection(ways) or (self._within and place and place[0] not in self._within):
            return
        for secret in sorted(self._secrets, key=len, reverse=True):
            problem = problem.replace(secret, "***")
        mark = next(self._marks[way] for way in ways if way in self._marks)
        told.setdefault(Fault(_path(place), " ".join(problem.split()), mark[0] + 1), mark)

    def lose(self, place: Place, problem: str) -> object:
        """The same of a value that cannot be read at all; returns what to put in its stead."""
        self.add(place, problem)
        self._lost.add(place)
        return LOST

    def add_typed(self, place: Place, model: type[BaseModel], error: ValidationError) -> None:
        """What pydantic found wrong with the value there, which should have been a model."""
        details = error.errors(include_url=False)
        for detail in details:
            kind, way = detail["type"], detail["loc"]
            if kind == "too_short" and any(len(other["loc"]) > len(way) for other in details):
                continue  # what could not be read was not counted
            key = way[-1:] if kind in ("missing", "extra_forbidden") else ()
            written = self._written((*place, *way[: len(way) - len(key)]))
            self.add((*written, *key), _problem(detail, model, written))

    def skip(self, place: Place) -> object:
        """Of a value that is not known here and need not be; returns what to put in its stead."""
        self._lost.add(place)
        return LOST

    def any(self, *sections: str, but: Collection[str] = ()) -> bool:
        """Whether something is wrong with one of the sections, other than at these paths."""
        return any(re.split(r"[.[]", fault.path)[0] in sections and fault.path not in but for fault in self._found)

    def warnings(self) -> tuple[Fault, ...]:
        """Those of what can be used, in the file's order."""
        return tuple(sorted(self._warned, key=self._warned.__getitem__))

    def check(self) -> None:
        """Raises ConfigError if there is any."""
        if self._found:
            raise ConfigError(sorted(self._found, key=self._found.__getitem__), self.warnings())

    def _written(self, place: Place) -> Place:
        """As the file has it: without the steps that are pydantic's or ours only."""
        there: Place = ()
        for step in place:
            if (*there, step) in self._marks:
                there = (*there, step)
        return there


# ------------------------------------------------------------------------------------------------------------- in words


def unknown(key: str, known: Iterable[str]) -> str:
    """Of a key that is not one of those known."""
    known = tuple(known)
    return f"is not a known key{nearest(key, known) or '; there are ' + ', '.join(known)}"


def mapping(place: Place) -> str:
    """Of what stands there and is none."""
    if not place:
        return "must be a mapping of sections, policy: …"
    example = _EXAMPLES.get(place[-1])
    return f"must be a mapping, {f'such as {place[-1]}: {example}' if example else 'key: value'}"


_EXAMPLES: Final[Mapping[str | int, str]] = {
    "abuse": "{limit: 5, per: 1h}",
    "cost": '{amount: "0.0075", currency: USD}',
    "countries": "{JP: Asia/Tokyo}",
    "http": "{private: 127.0.0.1:8080}",
    "in_flight": "{bulk: 64}",
    "label": "{team: growth}",
    "look_up": "{url: …, reply: {status: state}, statuses: {done: delivered}}",
    "pages": "{name: Example}",
    "report": "{targets: [{step: clicked, at_least: 20%}]}",
    "reserve": "{high: 1}",
    "retention": "{contacts: 400d}",
    "routes": "{sms: [text]}",
    "worker": "{attempt: 10s}",
}


def nearest(word: object, words: Iterable[str]) -> str:
    """Which of the words may have been meant, as the end of a sentence; empty if none is near."""
    near = get_close_matches(word, words, 1, _NEAR) if isinstance(word, str) else []
    return f": did you mean {near[0]}?" if near else ""


def _problem(detail: ErrorDetails, model: type[BaseModel], place: Place) -> str:
    """What pydantic found, and how to mend it."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        *way, key = detail["loc"]
        return unknown(str(key), keys_at(model, way))
    if kind == "missing":
        *way, key = detail["loc"]
        fields = _inner(model, way).model_fields.items()
        said = (info.description for name, info in fields if (info.alias or name) == key)
        return f"is missing: {next(said, None) or 'add it'}"
    if kind in _MAPPINGS:
        return mapping(place)
    if kind == "string_too_short":
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} characters"
    if kind in ("enum", "literal_error"):
        words = tuple(re.findall(r"'([^']*)'", context["expected"]))
        if len(words) == 1:
            return f"must be {words[0]}, or be left out"
        return f"must be one of {', '.join(words)}{nearest(detail['input'], words)}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in SAYS:
        return SAYS[kind].format(**context)
    return detail["msg"].replace("Input should", "must")


def keys_at(model: type[BaseModel], way: Iterable[str | int]) -> dict[str, object]:
    """The keys that are known where the way leads to from a model, and the type of each."""
    return _keys(_inner(model, way))


def _keys(model: type[BaseModel]) -> dict[str, object]:
    """As the file has them, and the type of each."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _inner(model: type[BaseModel], way: Iterable[str | int]) -> type[BaseModel]:
    """The model that the way leads to from another."""
    for step in way:
        model = next(_models(_keys(model).get(str(step))), model)
    return model


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _path(place: Place) -> str:
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step!a}]"
    return text
