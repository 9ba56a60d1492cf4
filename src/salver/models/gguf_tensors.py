"""The table of tensors in a GGUF header: names, types and shapes, and where their bytes lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from salver.models.gguf_cursor import Cursor

MAX_NAME_BYTES: Final = 64
MAX_DIMENSIONS: Final = 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies: bytes [start, start + size) of the file.

    `shape` is row-major, outermost first, the reverse of how the file writes it.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    size: int


def read_tensors(cursor: Cursor, count: int, alignment: int) -> Mapping[str, GgufTensor]:
    """Read `count` rows of the table; the data starts at the next multiple of `alignment`.

    Raises:
        MalformedModel: a row is out of range, or its tensor is misplaced or overlaps another.
    """
    entries = [_read_entry(cursor) for _ in range(count)]
    data_start = -(-cursor.position // alignment) * alignment
    return _place(entries, data_start, alignment, cursor)


def _read_entry(cursor: Cursor) -> GgufTensor:
    """One row of the tensor table; `start` is still relative to the data section."""
    name = cursor.string("a tensor's name", MAX_NAME_BYTES)
    num_dimensions = cursor.u32(f"dimensions of {name!r}")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(
            f"{name!r} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible",
            "dimensions",
            num_dimensions,
            MAX_DIMENSIONS,
        )
    shape = tuple(cursor.u64(f"shape of {name!r}") for _ in range(num_dimensions))[::-1]
    kind = _tensor_type(cursor, name)
    size = _size_in_bytes(cursor, name, kind, shape)
    return GgufTensor(name, kind, shape, cursor.u64(f"offset of {name!r}"), size)


def _tensor_type(cursor: Cursor, name: str) -> GGMLQuantizationType:
    number = cursor.u32(f"type of {name!r}")
    try:
        return GGMLQuantizationType(number)
    except ValueError:
        raise cursor.fail(f"{name!r} has unknown type {number}", "tensor_type", number) from None


def _size_in_bytes(
    cursor: Cursor, name: str, kind: GGMLQuantizationType, shape: tuple[int, ...]
) -> int:
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block_elements:
        raise cursor.fail(
            f"{name!r} has shape {shape}; rows of {kind.name} hold a positive multiple of"
            f" {block_elements} elements",
            "shape",
            shape,
            block_elements,
        )
    return prod(shape) // block_elements * block_bytes


def _place(
    entries: Sequence[GgufTensor], data_start: int, alignment: int, cursor: Cursor
) -> Mapping[str, GgufTensor]:
    """Turn relative offsets into file positions; refuse misplaced or overlapping tensors."""
    placed: dict[str, GgufTensor] = {}
    occupied = data_start
    for entry in sorted(entries, key=lambda entry: entry.start):
        start = data_start + entry.start
        end = start + entry.size
        faults: list[tuple[bool, str, str]] = [
            (entry.name in placed, "appears twice", "duplicate"),
            (start % alignment != 0, f"is not aligned to {alignment}", "alignment"),
            (start < occupied, "overlaps another tensor", "overlap"),
            (end > len(cursor.file), f"ends past the file's {len(cursor.file)} bytes", "bounds"),
        ]
        for wrong, what, rule in faults:
            if wrong:
                problem = f"tensor {entry.name!r} at [{start}, {end}) {what}"
                raise cursor.fail(problem, rule, (start, end))
        placed[entry.name] = GgufTensor(entry.name, entry.type, entry.shape, start, entry.size)
        occupied = end
    return placed
