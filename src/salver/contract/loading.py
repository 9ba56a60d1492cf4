"""From a file to a `Deployment`, or to every fault that stands in the way.

What a file may hold is a `Form`; a contract is one, and other declarations (a traffic mix) are read
by the same rules.

Faults are found in four stages: the text itself, secrets, each field alone, fields held against
each other. All four run whenever there is something to read, and a fault silences those of later
stages at the same place, so that one mistake is told once. The last stage needs typed values while
some fields are faulty: `_salvage` types whatever is sound and leaves the rest out.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_origin

from pydantic import TypeAdapter, ValidationError

from salver.contract.deployment import Deployment
from salver.contract.document import (
    MAX_BYTES,
    Document,
    Location,
    Unreadable,
    dotted,
    read_document,
)
from salver.contract.faults import Fault
from salver.contract.field_faults import rule_and_fix
from salver.contract.secrets import find_secrets, redact
from salver.contract.section import Section, section_in
from salver.contract.soundness import Finding, findings
from salver.errors import ContractError

Placed = tuple[Location, Fault]
S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Form(Generic[S]):
    """One kind of file: its sections, the rules across them, and the error that tells its faults.

    `findings` is handed an instance that may be partial (see `salver.contract.soundness`).
    """

    noun: str
    section: type[S]
    findings: Callable[[S], Iterator[Finding]]
    error: type[ContractError] = ContractError


CONTRACT = Form("contract", Deployment, findings)


def load_deployment(source: str | Path) -> Deployment:
    """Read a contract from its text (str) or from a file (Path).

    Raises:
        ContractError: with all faults at once, in file order.
    """
    return load(CONTRACT, source)


def load(form: Form[S], source: str | Path) -> S:
    """Read a file of some form from its text (str) or from a file (Path).

    Raises:
        ContractError: the form's own kind of it, with all faults at once, in file order.
    """
    subject = f"the {form.noun} {source}" if isinstance(source, Path) else f"the {form.noun}"
    try:
        document = read_document(_read(source))
    except Unreadable as unreadable:
        raise form.error(f"{subject} cannot be read", [redact(unreadable.fault)]) from None
    loaded, faults = _judge(form, document)
    if loaded is None or faults:
        count = f"{len(faults)} fault{'s' * (len(faults) != 1)}"
        raise form.error(f"{subject} has {count}", faults)
    return loaded


def fault_at(document: Document, location: Location, rule: str, fix: str) -> Fault:
    """A fault with the value and the line that the document has at the location."""
    written = document.written.get(location)
    value = written.text if written else "(absent)"
    line, _ = document.place(location)
    return Fault(dotted(location), value, rule, fix, line)


def _read(source: str | Path) -> bytes:
    if isinstance(source, str):
        return source.encode("utf-8", "surrogatepass")
    try:
        with source.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        fix = f"name a file that can be read ({reason})"
        raise Unreadable(Fault("", str(source), "file.readable", fix)) from None


def _judge(form: Form[S], document: Document) -> tuple[S | None, list[Fault]]:
    """What the file holds if every field is sound, and the faults of all stages in file order."""
    data = document.data
    stages: list[Iterable[Placed]] = [document.faults, find_secrets(document)]
    loaded: S | None = None
    if isinstance(data, dict):
        loaded, field_faults = _validate(form.section, document)
        partial = loaded or cast("S", _salvage(form.section, data))
        stages += [field_faults, _unsound(form, document, partial)]
    else:
        fix = "write the sections as keys, beginning with `apiVersion: salver/v1`"
        stages.append([((), fault_at(document, (), "yaml.document", fix))])
    return loaded, _in_file_order(document, stages)


def _validate(section: type[S], document: Document) -> tuple[S | None, list[Placed]]:
    try:
        # JSON, since strict validation of JSON takes a list for a tuple and a string for an enum.
        return section.model_validate_json(json.dumps(document.data)), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return None, [
            (at, fault_at(document, at, *rule_and_fix(section, at, detail)))
            for detail in details
            for at in [tuple(detail["loc"])]
        ]


def _unsound(form: Form[S], document: Document, partial: S) -> Iterator[Placed]:
    for found in form.findings(partial):
        yield found.at, fault_at(document, found.at, found.rule, found.fix)


def _in_file_order(document: Document, stages: Iterable[Iterable[Placed]]) -> list[Fault]:
    kept: list[Placed] = []
    for stage in stages:
        taken = {location for location, _ in kept}
        kept += [placed for placed in stage if placed[0] not in taken]
    kept.sort(key=lambda placed: document.place(placed[0]))
    return [redact(fault) for _, fault in kept]


def _salvage(section: type[Section], data: dict[str, Any]) -> Section:
    """An instance with the sound fields only: reading another one raises AttributeError."""
    sound: dict[str, Any] = {}
    unsound: list[str] = []
    for name, info in section.model_fields.items():
        key = info.alias or name
        if key in data:
            try:
                sound[key] = _typed(section, name, data[key])
            except ValidationError:
                unsound.append(name)
    partial = section.model_construct(**sound)
    for name in unsound:  # construction gave it its default, which is not what was written
        partial.__dict__.pop(name, None)
    return partial


def _typed(section: type[Section], name: str, raw: Any) -> Any:
    annotation = section.model_fields[name].annotation
    inner, many = section_in(annotation), get_origin(annotation) is tuple
    if inner and isinstance(raw, dict) and not many:
        return _salvage(inner, raw)
    if inner and isinstance(raw, list) and many:
        return tuple(_salvage(inner, item if isinstance(item, dict) else {}) for item in raw)
    return _adapter(section, name).validate_json(json.dumps(raw), strict=True)


@cache
def _adapter(section: type[Section], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(section.model_fields[name].rebuild_annotation())
