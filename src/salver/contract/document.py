"""A contract file as plain data, together with where and how each value was written.

The file is a subset of YAML 1.2: one document, the core schema (`off` is a string), no anchors,
aliases or tags, no empty values. The reader works on the parser's events rather than on a loaded
tree: nothing is ever expanded, so a small file cannot become a large one, and what can be mended
(a key given twice, an alias) becomes a fault beside all the others instead of ending the reading.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from salver.contract.faults import Fault

MAX_BYTES = 256 * 2**10
MAX_DEPTH = 16
MAX_SHOWN = 80  # characters of a value repeated in a fault

Location = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")
_CONSTANTS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_CONSTANTS |= {"FALSE": False}
_EMPTY = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True)
class Written:
    """One value as it stands in the file; `line` and `column` count from 1."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """`data` is built of dict, list, str, int, float, bool; what `faults` complain of is None."""

    data: object
    written: Mapping[Location, Written]
    faults: tuple[tuple[Location, Fault], ...]

    def place(self, location: Location) -> tuple[int, int]:
        """Line and column of the value, or of the nearest thing around it that is written."""
        while location and location not in self.written:
            location = location[:-1]
        found = self.written.get(location)
        return (found.line, found.column) if found else (1, 1)


class Unreadable(Exception):
    """The text is no document at all; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.fix)
        self.fault = fault


def read_document(source: bytes) -> Document:
    """Read one document.

    Raises:
        Unreadable: it is too large, too deep, not UTF-8, not YAML, or not one document.
    """
    if len(source) > MAX_BYTES:
        raise _unreadable("yaml.size", f"{len(source)} bytes", f"keep it under {MAX_BYTES} bytes")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable("yaml.encoding", f"byte {error.start}", "save it as UTF-8") from None
    reader = _Reader(YAML(typ="safe", pure=True).parse(text))
    try:
        data = reader.document()
    except YAMLError as error:
        raise _syntax(error) from None
    except (ValueError, IndexError, OverflowError) as error:  # ruamel on `%YAML 1.x`, "\UFFFFFFFF"
        raise _unreadable("yaml.syntax", "", f"mend the YAML: {error}") from None
    return Document(data, reader.written, tuple(reader.faults))


class _Reader:
    """Recursive descent over parser events. `written` and `faults` fill up on the way."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self.written: dict[Location, Written] = {}
        self.faults: list[tuple[Location, Fault]] = []

    def document(self) -> object:
        event = next(event for event in self._events if not _opens_document(event))
        if isinstance(event, StreamEndEvent):
            raise _unreadable("yaml.document", "an empty file", "write one document in it")
        data = self._node(event, ())
        next(self._events)  # the document's end
        if not isinstance(trailing := next(self._events), StreamEndEvent):
            fix = "keep one document per file"
            raise _unreadable("yaml.document", "---", fix, trailing.start_mark.line + 1)
        return data

    def _node(self, event: Any, at: Location) -> object:
        if isinstance(event, AliasEvent):
            self._note(event, at, f"*{event.anchor}")
            self._fault(at, "yaml.alias", "write the value out; aliases are not allowed")
            return None
        if event.anchor is not None or event.tag is not None:
            self._note(event, at, f"&{event.anchor}" if event.anchor else str(event.tag))
            self._fault(at, "yaml.alias", "remove the anchor or tag; neither is allowed")
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, at)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, at)
        return self._scalar(event, at)

    def _mapping(self, event: Any, at: Location) -> dict[str, object]:
        self._open(event, at, "a mapping")
        data: dict[str, object] = {}
        while not isinstance(key := next(self._events), MappingEndEvent):
            name = _key_name(key)
            if name in data:
                self._duplicate(key, (*at, name))
            else:
                self._note(key, (*at, name), name)
                data[name] = self._node(next(self._events), (*at, name))
        return data

    def _duplicate(self, key: Any, at: Location) -> None:
        """Read the second value for its own faults, and keep the first."""
        first, self.written = self.written, {}
        self._node(next(self._events), at)
        self.written = {}
        self._note(key, at, "a second time")
        self._fault(at, "yaml.duplicate_key", "keep one of the two")
        self.written = first

    def _sequence(self, event: Any, at: Location) -> list[object]:
        self._open(event, at, "a list")
        data: list[object] = []
        while not isinstance(item := next(self._events), SequenceEndEvent):
            data.append(self._node(item, (*at, len(data))))
        return data

    def _scalar(self, event: Any, at: Location) -> object:
        text = str(event.value)
        self._note(event, at, text)
        if not _encodes(text):
            self._fault(at, "yaml.encoding", "write whole characters, not half surrogates")
            return None
        if not event.implicit[0]:  # quoted, or a block: always a string
            return text
        if text in _EMPTY:
            self._fault(at, "yaml.empty", "give it a value, or remove the key")
            return None
        return _plain_value(text)

    def _open(self, event: Any, at: Location, kind: str) -> None:
        self._note(event, at, kind)
        if len(at) >= MAX_DEPTH:
            fix = f"nest at most {MAX_DEPTH} levels"
            raise _unreadable("yaml.depth", kind, fix, event.start_mark.line + 1)

    def _note(self, event: Any, at: Location, text: str) -> None:
        """Remember what stands at a location; a value in a mapping is placed where its key is."""
        mark, key = event.start_mark, self.written.get(at)
        line, column = (key.line, key.column) if key else (mark.line + 1, mark.column + 1)
        self.written[at] = Written(shown(text), line, column)

    def _fault(self, at: Location, rule: str, fix: str) -> None:
        written = self.written[at]
        self.faults.append((at, Fault(dotted(at), written.text, rule, fix, written.line)))


def dotted(location: Location) -> str:
    """The location as a fault's path: `tenants.0.weight`."""
    return ".".join(shown(str(part)) for part in location)


def shown(text: str) -> str:
    """The text cut to a length, with what a terminal could act on escaped."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _key_name(event: Any) -> str:
    if not isinstance(event, ScalarEvent) or not _encodes(event.value):
        fix = "use plain words as keys"
        raise _unreadable("yaml.key", "?", fix, event.start_mark.line + 1)
    return str(event.value)


def _opens_document(event: Any) -> bool:
    return type(event).__name__ == "StreamStartEvent" or isinstance(event, DocumentStartEvent)


def _plain_value(text: str) -> str | int | float | bool:
    """An unquoted scalar under the YAML 1.2 core schema (1.2.2, section 10.3.2), without octal,
    hexadecimal, infinities and NaN, which no field of a contract takes."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _syntax(error: YAMLError) -> Unreadable:
    if not isinstance(error, MarkedYAMLError):
        return _unreadable("yaml.syntax", "", f"mend the YAML: {str(error).splitlines()[0]}")
    # Only what the parser expected: its excerpt of the file could hold a secret.
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    return _unreadable("yaml.syntax", "", f"mend the YAML: {error.problem or error.context}", line)


def _unreadable(rule: str, value: str, fix: str, line: int | None = None) -> Unreadable:
    return Unreadable(Fault("", value, rule, fix, line))
