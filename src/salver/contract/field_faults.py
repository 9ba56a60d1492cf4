"""What pydantic finds wrong with one field, said as a rule and a fix.

Validators of our own already name their rule (`quantity.size`) and word the fix. The rest are
pydantic's error types, which this module turns into six rules named `schema.*`.
"""

from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from salver.contract.document import Location
from salver.contract.section import Section, field_at, fields_of, required_of, section_at

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "string": "a string",
    "tuple": "a list",
    "model": "a mapping",
    "bool": "true or false",
}
_BOUNDS = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
_BOUNDS |= {"less_than_equal": "at most"}


def rule_and_fix(root: type[Section], location: Location, detail: ErrorDetails) -> tuple[str, str]:
    """The rule that the field at `location` breaks, and what to write instead."""
    kind, context = detail["type"], detail.get("ctx", {})
    if "." in kind:  # raised by a validator of ours
        return kind, detail["msg"]
    if kind == "missing":
        return "schema.required", _addition(root, location)
    if kind == "extra_forbidden":
        return "schema.unknown_key", _known_keys(root, location)
    if kind in ("enum", "literal_error"):
        return "schema.choice", f"write {context['expected']}".replace("'", "")
    if kind == "string_pattern_mismatch":
        return "schema.form", f"follow {context['pattern']}{_contents(root, location)}"
    return _type_or_range(root, location, kind, context)


def _type_or_range(
    root: type[Section], location: Location, kind: str, context: dict[str, Any]
) -> tuple[str, str]:
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        return "schema.range", f"write a number {_BOUNDS[kind]} {bound}"
    if kind in ("too_long", "string_too_long"):
        return "schema.range", f"write at most {context['max_length']} of them"
    if kind in ("too_short", "string_too_short"):
        return "schema.range", f"write at least {context['min_length']} of them"
    wanted = _KINDS.get(kind.partition("_")[0], "another kind of value")
    return "schema.type", f"write {wanted}{_contents(root, location)}"


def _addition(root: type[Section], location: Location) -> str:
    example = _example(root, location)
    if example is None:
        return f"add `{location[-1]}`{_contents(root, location)}"
    return f"add `{location[-1]}: {example}`"


def _contents(root: type[Section], location: Location) -> str:
    """What belongs at a location, as the end of a sentence."""
    if example := _example(root, location):
        return f", such as `{example}`"
    section = section_at(root, location)
    return f" with {', '.join(required_of(section))}" if section else ""


def _example(root: type[Section], location: Location) -> str | None:
    info = field_at(root, location)
    if info is None or not info.examples:
        return None
    example = info.examples[0]
    return f"[{', '.join(example)}]" if isinstance(example, list) else str(example)


def _known_keys(root: type[Section], location: Location) -> str:
    section = section_at(root, location[:-1])
    known = list(fields_of(section)) if section else []
    written = str(location[-1])
    near = get_close_matches(written, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"remove it; the keys here are {', '.join(known)}"
