"""A directory of config.json and safetensors files as a `Checkpoint`.

The format is a JSON table in front of raw bytes (https://github.com/huggingface/safetensors,
"Format"): short enough to check and map here, while the `safetensors` package hands out no
bfloat16 to NumPy. As in that package, the tensors must cover the data exactly, without overlaps or
holes, so that a file cut short anywhere is noticed when it is opened.
"""

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from salver.errors import MalformedModel
from salver.models.config import ModelConfig
from salver.models.fields import Fields
from salver.models.files import map_file, parse_json, read_json
from salver.models.groups import FourBitGroups
from salver.models.hf_config import config_from_json
from salver.models.names import (
    OUTPUT_HEAD,
    absent_groups,
    absent_tensor,
    check_tensors,
    expected_tensors,
)
from salver.models.weights import SAFETENSORS_TYPES, decode_floats, finite, unsupported_type

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_TABLE_BYTES: Final = 8 << 20  # of one file's header, or of the index; some 80,000 tensors
MAX_SHARDS: Final = 1024

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class _Stored:
    """One tensor: bytes [start, end) of a mapped file."""

    file: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def open_safetensors(path: Path) -> "SafetensorsCheckpoint":
    """Open and validate a model directory, or one .safetensors file beside its config.json.

    Raises:
        MalformedModel: a file is damaged, or the tensors are not those of the architecture.
        UnsupportedModel: the model needs something that this build does not compute.
    """
    directory = path if path.is_dir() else path.parent
    config = config_from_json(
        read_json(directory / "config.json", MAX_CONFIG_BYTES), f"{directory.name}/config.json"
    )
    stored = _read_tables(_shards(directory) if path.is_dir() else (path,))
    needed = {name: tensor for name, tensor in stored.items() if not _never_read(name, config)}
    shapes = {name: tensor.shape for name, tensor in needed.items()}
    check_tensors(expected_tensors(config), shapes, path.name)
    for name, tensor in needed.items():
        if tensor.dtype not in SAFETENSORS_TYPES:
            raise unsupported_type(name, tensor.dtype, SAFETENSORS_TYPES, path.name)
    return SafetensorsCheckpoint(config, path.name, needed)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SafetensorsCheckpoint:
    """Opened safetensors files with their config."""

    config: ModelConfig
    _name: str
    _stored: Mapping[str, _Stored]

    def tensor(self, name: str) -> NDArray[np.float32]:
        """See `Checkpoint.tensor`. The array is the caller's own."""
        stored = self._stored.get(name)
        if stored is None:
            raise absent_tensor(name, self._name)
        raw = np.frombuffer(stored.file, np.uint8, stored.end - stored.start, stored.start)
        return finite(decode_floats(raw, stored.dtype, stored.shape), name, self._name)

    @property
    def formats(self) -> Mapping[str, str]:
        """See `Checkpoint.formats`."""
        return {name: stored.dtype for name, stored in self._stored.items()}

    def groups(self, name: str) -> FourBitGroups:
        """See `Checkpoint.groups`: these files have none."""
        raise absent_groups(name, self._name)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<SafetensorsCheckpoint {self._name}: {config.architecture},"
            f" {config.num_parameters / 1e6:.0f}M parameters>"
        )


def _shards(directory: Path) -> tuple[Path, ...]:
    """The files that hold the weights, by the names `transformers` gives them."""
    if (directory / _SINGLE).is_file():
        return (directory / _SINGLE,)
    if not (directory / _INDEX).is_file():
        pickled = any(directory.glob("*.bin")) or any(directory.glob("*.pt*"))
        kind = "pickled weights, which can run code when read" if pickled else "no weights"
        raise _fault(directory.name, f"holds {kind}; {_SINGLE} or {_INDEX} is needed", "shards")
    weight_map = read_json(directory / _INDEX, MAX_TABLE_BYTES).get("weight_map")
    if not isinstance(weight_map, Mapping):
        raise _fault(_INDEX, "has no weight_map", "shards")
    names = {name if isinstance(name, str) else "" for name in weight_map.values()}
    if not 0 < len(names) <= MAX_SHARDS:
        raise _fault(_INDEX, f"names {len(names)} files", "shards", MAX_SHARDS)
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise _fault(_INDEX, f"names {name!r}, which is not a file beside it", "shards")
    return tuple(directory / name for name in sorted(names))


def _read_tables(paths: Iterable[Path]) -> dict[str, _Stored]:
    stored: dict[str, _Stored] = {}
    for path in paths:
        table = _read_table(path)
        twice = stored.keys() & table.keys()
        if twice:
            raise _fault(path.name, f"repeats tensor {min(twice)!r} of another file", "duplicate")
        stored |= table
    return stored


def _read_table(path: Path) -> dict[str, _Stored]:
    """Read one file's header and see that its tensors tile the bytes behind it."""
    file = map_file(path)
    size = int.from_bytes(file[:8], "little")
    if len(file) < 8 or size > min(MAX_TABLE_BYTES, len(file) - 8):
        raise _fault(path.name, f"header of {size} bytes does not fit", "header", MAX_TABLE_BYTES)
    header = dict(parse_json(file[8 : 8 + size], path))
    header.pop("__metadata__", None)  # free text
    table = {name: _entry(header, name, file, 8 + size, path.name) for name in header}
    position = 8 + size
    for name, tensor in sorted(table.items(), key=lambda item: item[1].start):
        if tensor.start != position:
            raise _fault(path.name, f"tensor {name!r} overlaps or leaves a hole", "offsets")
        position = tensor.end
    if position != len(file):
        problem = f"has {len(file)} bytes; its tensors end at {position}"
        raise _fault(path.name, problem, "size", position)
    return table


def _entry(
    header: Mapping[str, object], name: str, file: mmap.mmap, data_start: int, where: str
) -> _Stored:
    fields = Fields(header, where).section(name)
    dtype = fields.text("dtype")
    shape = _integers(fields, "shape", low=1)
    offsets = _integers(fields, "data_offsets", low=0)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fields.malformed("data_offsets", "two ascending integers")
    size = offsets[1] - offsets[0]
    if dtype in SAFETENSORS_TYPES and size != prod(shape) * SAFETENSORS_TYPES[dtype].itemsize:
        raise fields.malformed("data_offsets", f"as far apart as {dtype} of shape {shape} needs")
    return _Stored(file, dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _integers(fields: Fields, key: str, *, low: int) -> tuple[int, ...]:
    values = fields.get(key)
    if not isinstance(values, list) or len(values) > 8:
        raise fields.malformed(key, "a short list of integers")
    if not all(type(value) is int and low <= value < 1 << 60 for value in values):
        raise fields.malformed(key, f"integers from {low}")
    return tuple(values)


def _never_read(name: str, config: ModelConfig) -> bool:
    """Derived values that some files carry along, and the copy of a tied output head."""
    tied_copy = config.tie_embeddings and name == OUTPUT_HEAD
    return tied_copy or name.endswith(".rotary_emb.inv_freq")


def _fault(where: str, problem: str, rule: str, limit: object = None) -> MalformedModel:
    return MalformedModel(
        f"{where}: {problem}",
        rule=f"safetensors.{rule}",
        limit=limit,
        fix="the file is damaged or incomplete: fetch it again and check its digest",
    )
