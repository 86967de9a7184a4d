"""Takes a file's values apart: each part typed, or a fault told and the best made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.faults import mapping as no_mapping
from gateway.config.faults import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.faults import Faults, Place

M = TypeVar("M", bound=BaseModel)


class Parts:
    """Those of one file, telling what is wrong with them."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def mapping(self, value: object, place: Place, known: tuple[str, ...] = ()) -> dict[str, object]:
        """What is written there; nothing is an empty mapping. ``known``: the only keys, if any."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.faults.add(place, no_mapping(place))
            return {}
        if known:
            for key in value:
                if key not in known:
                    self.faults.add((*place, key), unknown(key, known))
        return value

    def required(self, at: object, place: Place, keys: Iterable[str]) -> None:
        """Tell which of the keys are missing."""
        if isinstance(at, dict):
            for key in keys:
                if at.get(key) in (None, {}):
                    self.faults.add((*place, key), "is missing: add it")

    def items(self, value: object, place: Place) -> list[tuple[Place, object]]:
        """What is listed there, each with its place."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.faults.add(place, "must be a list, [one, another]")
            return []
        return [((*place, index), item) for index, item in enumerate(value)]

    def distinct(self, word: str, others: Iterable[str], place: Place) -> None:
        """Tell if another has the same."""
        if word in others:
            self.faults.add(place, "is used twice: choose another")

    def typed(self, model: type[M], value: object, place: Place) -> M | None:
        """The part, or None and a fault for each thing wrong with it."""
        try:
            return model.model_validate({} if value is None else value)
        except ValidationError as error:
            self.faults.add_typed(place, model, error)
            return None

    def section(self, model: type[M], value: object, place: Place) -> M:
        """The same, as if nothing were written there where something is wrong with it."""
        return self.typed(model, value, place) or model()


def among(at: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """The part of a mapping that is written as keys of its own among others."""
    return {key: at[key] for key in model.model_fields if at.get(key) is not None}
