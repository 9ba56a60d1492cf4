"""The front of a GGUF file: metadata and the table of tensors, read as if it were hostile.

A GGUF header is a chain of lengths, each of which says where the next one is. Every length is
therefore held against what is left of the header, and against a limit far above any real model's,
before a byte is read or a list is made. Memory stays within a small multiple of
`gguf_cursor.MAX_HEADER_BYTES`, whatever the file claims. The `gguf` package's own reader trusts those
lengths, so it is given no file; its tables of block sizes and its decoders are what we use.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from salver.models.gguf_cursor import Cursor
from salver.models.gguf_tensors import GgufTensor, read_tensors

Scalar = bool | int | float | str
Metadata = Mapping[str, Scalar | list[Scalar]]
"""Metadata by key, in file order, as plain Python values. Arrays are flat lists of one type."""

MAX_KEYS: Final = 1 << 12
MAX_TENSORS: Final = 1 << 16
MAX_KEY_BYTES: Final = 1 << 10
MAX_ALIGNMENT: Final = 1 << 16

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_SMALLEST_KEY = 8 + 4 + 1  # an empty key, its type, one byte of value
_SMALLEST_TENSOR = 8 + 4 + 4 + 8  # an empty name, no dimensions, type, offset


class _ValueType(IntEnum):
    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_NUMBERS: Final[Mapping[_ValueType, np.dtype[np.generic]]] = {
    _ValueType.UINT8: np.dtype("u1"),
    _ValueType.INT8: np.dtype("i1"),
    _ValueType.UINT16: np.dtype("<u2"),
    _ValueType.INT16: np.dtype("<i2"),
    _ValueType.UINT32: np.dtype("<u4"),
    _ValueType.INT32: np.dtype("<i4"),
    _ValueType.FLOAT32: np.dtype("<f4"),
    _ValueType.BOOL: np.dtype("u1"),
    _ValueType.UINT64: np.dtype("<u8"),
    _ValueType.INT64: np.dtype("<i8"),
    _ValueType.FLOAT64: np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the front of the file says, all of it inside the file and free of overlaps."""

    metadata: Metadata
    tensors: Mapping[str, GgufTensor]


def read_header(file: mmap.mmap, where: str) -> GgufHeader:
    """Parse and check a whole header. `where` names the file in errors.

    Raises:
        MalformedModel: the header contradicts itself, the file's size or a limit.
    """
    cursor = Cursor(file, where)
    num_tensors, num_keys = _read_counts(cursor)
    metadata = _read_metadata(cursor, num_keys)
    tensors = read_tensors(cursor, num_tensors, _alignment(metadata, cursor))
    return GgufHeader(metadata, tensors)


def _read_counts(cursor: Cursor) -> tuple[int, int]:
    magic = cursor.take(4, "magic")
    if magic != _MAGIC:
        raise cursor.fail(f"starts with {magic!r}, not {_MAGIC!r}", "magic", magic)
    version = cursor.u32("version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS
        kind = "big-endian" if swapped else f"of version {version}"
        raise cursor.fail(f"is {kind}; little-endian 2 and 3 are read", "version", version)
    num_tensors = cursor.count("number of tensors", MAX_TENSORS, _SMALLEST_TENSOR)
    return num_tensors, cursor.count("number of keys", MAX_KEYS, _SMALLEST_KEY)


def _read_metadata(cursor: Cursor, num_keys: int) -> Metadata:
    metadata: dict[str, Scalar | list[Scalar]] = {}
    for _ in range(num_keys):
        key = cursor.string("a key", MAX_KEY_BYTES)
        if key in metadata:
            raise cursor.fail(f"key {key!r} appears twice", "duplicate", key)
        kind = _read_type(cursor, key)
        metadata[key] = (
            _read_array(cursor, key) if kind is _ValueType.ARRAY else _read_one(cursor, kind, key)
        )
    return metadata


def _read_type(cursor: Cursor, key: str) -> _ValueType:
    number = cursor.u32(f"type of {key!r}")
    try:
        return _ValueType(number)
    except ValueError:
        raise cursor.fail(f"{key!r} has unknown type {number}", "type", number) from None


def _read_one(cursor: Cursor, kind: _ValueType, key: str) -> Scalar:
    if kind is _ValueType.STRING:
        return cursor.string(f"value of {key!r}")
    return _read_numbers(cursor, kind, 1, key)[0]


def _read_array(cursor: Cursor, key: str) -> list[Scalar]:
    kind = _read_type(cursor, key)
    if kind is _ValueType.ARRAY:
        raise cursor.fail(f"{key!r} is an array of arrays", "type")
    smallest = 8 if kind is _ValueType.STRING else _NUMBERS[kind].itemsize
    count = cursor.count(f"length of array {key!r}", cursor.items_left, smallest)
    cursor.items_left -= count
    read = _read_strings if kind is _ValueType.STRING else _read_numbers
    return read(cursor, kind, count, key)


def _read_numbers(cursor: Cursor, kind: _ValueType, count: int, key: str) -> list[Scalar]:
    dtype = _NUMBERS[kind]
    raw = cursor.take(count * dtype.itemsize, f"value of {key!r}")
    numbers: list[Scalar] = np.frombuffer(raw, dtype).tolist()
    if kind is not _ValueType.BOOL:
        return numbers
    if not set(numbers) <= {0, 1}:
        raise cursor.fail(f"{key!r} holds a bool that is neither 0 nor 1", "bool")
    return [bool(number) for number in numbers]


def _read_strings(cursor: Cursor, _: _ValueType, count: int, key: str) -> list[Scalar]:
    # A vocabulary has 10^5 strings, so this loop alone unpacks lengths without `cursor.count`.
    unpack = struct.Struct("<Q").unpack_from
    file, end, position = cursor.file, cursor.end, cursor.position
    strings: list[Scalar] = []
    try:
        for _item in range(count):
            start = position + 8
            position = start + unpack(file, position)[0] if start <= end else end + 1
            if position > end:
                raise cursor.fail(f"array {key!r} runs past the header", "header", None, end)
            strings.append(file[start:position].decode())
    except UnicodeDecodeError as error:
        raise cursor.fail(f"array {key!r} is not UTF-8: {error.reason}", "utf8") from None
    cursor.position = position
    return strings


def _alignment(metadata: Metadata, cursor: Cursor) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if (
        not isinstance(alignment, int)
        or not 0 < alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        raise cursor.fail(
            f"general.alignment is {alignment!r}; it is a power of two up to {MAX_ALIGNMENT}",
            "alignment",
            alignment,
            MAX_ALIGNMENT,
        )
    return int(alignment)
