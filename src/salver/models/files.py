"""Model files as bytes: mapped or read whole, but never more than was asked for.

A mapped file must not change while it is open: shortening it would kill the process. Files in the
artifact store never change.
"""

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from salver.errors import MalformedModel


def map_file(path: Path) -> mmap.mmap:
    """Map a whole regular file for reading.

    Raises:
        MalformedModel: it is missing, empty, unreadable or not a regular file.
    """
    _require_file(path)
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file is a ValueError
        raise _unreadable(path, str(error)) from error


def read_json(path: Path, limit: int) -> Mapping[str, object]:
    """Read a JSON object of at most `limit` bytes; see `parse_json`."""
    _require_file(path)
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if len(raw) > limit:
        raise _unreadable(path, f"it holds more than {limit} bytes")
    return parse_json(raw, path)


def parse_json(raw: bytes, path: Path) -> Mapping[str, object]:
    """Decode a JSON object strictly: UTF-8, no duplicate keys, no NaN or Infinity.

    Raises:
        MalformedModel: it is anything else.
    """
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"its JSON cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise _unreadable(path, "its JSON is not an object")
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _require_file(path: Path) -> None:
    """A pipe or device in place of the file would block or never end."""
    if not path.is_file():
        raise _unreadable(path, "there is no such regular file")


def _unreadable(path: Path, why: str) -> MalformedModel:
    return MalformedModel(
        f"{path.name} cannot be read: {why}",
        rule="model.file",
        value=str(path),
        fix="give the path of a GGUF file or of a directory with config.json and safetensors",
    )
