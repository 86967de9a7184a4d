"""YAML without its traps: text becomes plain values, or faults where people and YAML would read it differently."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml
from yaml.constructor import SafeConstructor
from yaml.parser import ParserError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from gateway.config.faults import ConfigError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.config.faults import Faults, Place

MAX_SIZE: Final = 1_000_000
"""Characters."""
MAX_DEPTH: Final = 32

WHOLE: Final = "write the character itself, not as \\u escapes of its halves"


class Unresolved(Exception):
    """A secret that need not be known."""


_MAP, _SEQ, _STR, _TIMESTAMP, _NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{word}" for word in ("map", "seq", "str", "timestamp", "null", "bool", "int", "float")
)
_TEXT: Final = (_STR, _TIMESTAMP)
_SCALARS: Final = (*_TEXT, _NULL, _BOOL, _INT, _FLOAT)
_HALF: Final = re.compile(r"[\ud800-\udfff]")


def read(text: str, faults: Faults, fetch: Callable[[Mapping[str, object]], str | None]) -> object:
    """What the text says.

    Args:
        text: YAML.
        faults: Learns where each value is, what is wrong, and what is secret.
        fetch: The secret that a mapping stands for, None if for none; raises ValueError if it cannot be had, and
            Unresolved if that does not matter.

    Raises:
        ConfigError: if nothing of it can be read.
    """
    if len(text) > MAX_SIZE:
        raise ConfigError([Fault("", f"is larger than {MAX_SIZE} characters: is it the right file?")])
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where, line = (f"column {mark.column + 1}: ", mark.line + 1) if mark else ("", None)
        raise ConfigError([Fault("", f"{where}{_wrong(error, text)}", line)]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([Fault("", "a character that YAML does not allow: remove it", line)]) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # of an escape such as "\UFFFFFFFF"
        raise ConfigError([Fault("", "is not YAML: is there a wrong \\ escape in it?")]) from None
    if node is None:
        raise ConfigError([Fault("", "the file is empty: gateway/sample.yaml is one to start from")])
    return _Document(faults, fetch).value(node, ())


def _wrong(error: yaml.MarkedYAMLError, text: str) -> str:
    """What the parser stumbled over, and what people mostly did when it does."""
    problem, context = error.problem or "", error.context or ""
    said = ", ".join(filter(None, (context, problem)))
    if not isinstance(error, ScannerError | ParserError):
        return said
    if error.problem_mark and text[error.problem_mark.index :].startswith("\t"):
        return "a tab is not allowed here: indent with spaces"
    if "flow" in context:
        return f"{said}; is a comma, a bracket or a brace missing?"
    if "quoted" in context:
        return f"{said}; is a quote missing?"
    if "cannot start any token" in problem:
        return f"{said}; put the text in quotes"
    remedy = "indent the keys of one mapping alike, with spaces"
    if "mapping values" in problem:
        remedy += ", and put text that holds a colon and a space in quotes"
    return f"{said}; {remedy}"


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases, with which a small file can make a huge document, and deep nesting."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("an alias (*name) is not taken: write the value out")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse("nested too deeply: is there a bracket too many?")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, problem: str) -> NoReturn:
        mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Document:
    def __init__(self, faults: Faults, fetch: Callable[[Mapping[str, object]], str | None]) -> None:
        self._faults = faults
        self._fetch = fetch

    def value(self, node: yaml.Node, place: Place, key: yaml.Node | None = None) -> object:
        mark = (key or node).start_mark
        self._faults.mark(place, mark.line, mark.column)
        match node:
            case yaml.MappingNode(tag=tag) if tag == _MAP:
                return self._mapping(node, place)
            case yaml.SequenceNode(tag=tag) if tag == _SEQ:
                return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode(tag=tag) if tag in _SCALARS:
                return self._scalar(node, place)
            case _:
                return self._faults.lose(place, "is more than plain YAML: leave out the tag (!…), or put it in quotes")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> object:
        pairs = self._pairs(node, place)
        try:
            secret = self._fetch(pairs)
        except Unresolved:
            return self._faults.skip(place)
        except ValueError as error:
            return self._faults.lose(place, str(error))
        if secret is None:
            return pairs
        self._faults.mask(secret)
        return secret

    def _pairs(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        pairs: dict[str, object] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            number = isinstance(key, yaml.ScalarNode) and key.tag == _INT and key.value.isdecimal()  # an HTTP status
            if not number and (not isinstance(key, yaml.ScalarNode) or key.tag != _STR):
                self._faults.add(place, f"has a key in line {line} that YAML does not read as text: put it in quotes")
            elif _HALF.search(key.value):
                self._faults.add(place, f"has a key in line {line} with half a character in it: {WHOLE}")
            elif key.value in pairs:
                self._faults.add((*place, key.value), f"is written twice, the second time in line {line}: remove one")
            else:
                pairs[key.value] = self.value(value, (*place, key.value), key)
        return pairs

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> object:
        text, plain = node.value, node.style is None
        if node.tag in _TEXT:
            return self._faults.lose(place, f"holds half a character: {WHOLE}") if _HALF.search(text) else text
        if plain and node.tag in (_INT, _FLOAT) and ":" in text:
            return self._faults.lose(place, 'is read by YAML as a number in base 60: put it in quotes, such as "21:00"')
        if plain and node.tag == _INT and not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", text):
            return self._faults.lose(
                place, "is not read by YAML as a decimal number: write it without 0 in front, or in quotes"
            )
        try:
            return SafeConstructor().construct_object(node)
        except (ValueError, LookupError):
            return self._faults.lose(place, "is not what its tag (!!…) says: leave the tag out")
