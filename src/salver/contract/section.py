"""What every section of a contract has in common, and how to find one's way among them.

A *path* here is dotted and has no list indices: `tenants.weight` is the field that every tenant
has. Names in it are those of the file (`class`, `apiVersion`), not those of the Python attributes.
"""

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen part of a contract: keys it does not know and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The section's fields by the name they have in the file."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def required_of(section: type[Section]) -> list[str]:
    """The keys that the section cannot do without."""
    return [name for name, info in fields_of(section).items() if info.is_required()]


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds, directly, optionally or as a list; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        inner = (section_in(part) for part in get_args(annotation) if part not in (..., NoneType))
        return next((section for section in inner if section), None)
    return None


def walk(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field at every depth with its path, parents before children."""
    for name, info in fields_of(section).items():
        path = f"{prefix}{name}"
        yield path, info
        if inner := section_in(info.annotation):
            yield from walk(inner, f"{path}.")


def section_at(root: type[Section], location: Sequence[str | int]) -> type[Section] | None:
    """The section that a location (names and list indices) leads to, or None."""
    section: type[Section] | None = root
    for part in location:
        if isinstance(part, str) and section is not None:
            info = fields_of(section).get(part)
            section = section_in(info.annotation) if info else None
    return section


def field_at(root: type[Section], location: Sequence[str | int]) -> FieldInfo | None:
    """The field that a location (names and list indices) leads to, or None."""
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return None
    section = section_at(root, names[:-1])
    return fields_of(section).get(names[-1]) if section else None
