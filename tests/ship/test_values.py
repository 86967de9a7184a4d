"""Is every value of the chart explained, in its README too, and does the schema know it?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

from helm import readme
from tests.ship.chart import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((FOLDER / "values.schema.json").read_text())
OF_HELM = {"global"}
"""What Helm puts among the values of a chart that is part of another."""


def leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Each value that is no mapping of others."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def known(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Each value that the schema names."""
    for key, part in schema.get("properties", {}).items():
        found = SCHEMA["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        yield f"{above}{key}"
        yield from known(found, f"{above}{key}.")


def test_the_table_in_the_readme_is_that_of_the_values() -> None:
    """If not: make chart."""
    assert readme.FILE.read_text() == readme.text()


def test_every_value_is_explained_once_and_in_a_sentence() -> None:
    explained = {value.path: value for value in readme.values()}
    for leaf in leaves(VALUES):
        over = [path for path in explained if leaf == path or leaf.startswith(f"{path}.")]
        assert len(over) == 1, f"{leaf} is explained by {over or 'nothing'}"
    for path, value in explained.items():
        found: Any = VALUES
        for key in path.split("."):
            found = found[key]
        assert found == value.default
        assert value.about[0].isupper() or value.about[0] == "`"
        assert not value.about.endswith(".")


def test_the_schema_knows_the_values_and_no_others() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    names = {name for name in known(SCHEMA) if name not in OF_HELM}
    explained = {value.path for value in readme.values()}
    above = {path[:dot] for path in explained for dot, letter in enumerate(path) if letter == "."}
    assert {name for name in names if not any(name.startswith(f"{path}.") for path in explained)} == explained | above
