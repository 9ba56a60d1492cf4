"""A GGUF file as a `Checkpoint`.

The file stays mapped; a tensor is decoded when it is asked for, and nothing decoded is kept.
Conversion to GGUF reorders the rows of q and k for architecture `llama` alone, from rotate-half
order to interleaved pairs; reading undoes it.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from salver.errors import MalformedModel
from salver.models.config import ModelConfig
from salver.models.files import map_file
from salver.models.gguf_config import config_from_gguf
from salver.models.gguf_header import GgufHeader, Metadata, read_header
from salver.models.gguf_tensors import GgufTensor
from salver.models.groups import GROUP_KINDS, FourBitGroups, arranged, read_groups
from salver.models.names import (
    absent_groups,
    absent_tensor,
    check_tensors,
    expected_tensors,
    gguf_name,
)
from salver.models.weights import GGUF_TYPES, decode_blocks, finite, unsupported_type

_ROPE_FREQUENCIES: Final = "rope_freqs.weight"
_MAX_ROPE_FREQUENCIES: Final = 4096
Number = TypeVar("Number", bound=np.generic)

_PERMUTED: Final = (".q_proj.weight", ".q_proj.bias", ".k_proj.weight", ".k_proj.bias")


def open_gguf(path: Path) -> "GgufCheckpoint":
    """Open and validate a GGUF file; no weight is read but the handful of RoPE factors.

    Raises:
        MalformedModel: the file is damaged, or its tensors are not those of its architecture.
        UnsupportedModel: the model needs something that this build does not compute.
    """
    file = map_file(path)
    header = read_header(file, path.name)
    config = config_from_gguf(header, _frequency_factors(file, header, path.name), path.name)
    tensors = _check(header, config, path.name)
    return GgufCheckpoint(config, header.metadata, path.name, file, tensors)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GgufCheckpoint:
    """An opened GGUF file. `metadata` holds every key as plain Python values."""

    config: ModelConfig
    metadata: Metadata
    _name: str
    _file: mmap.mmap
    _tensors: Mapping[str, GgufTensor]  # by Hugging Face name

    def tensor(self, name: str) -> NDArray[np.float32]:
        """See `Checkpoint.tensor`. The array is the caller's own."""
        stored = self._tensors.get(name)
        if stored is None:
            raise absent_tensor(name, self._name)
        weights = _decode(self._file, stored, self._name)
        if self._is_permuted(name):
            return undo_permutation(weights, self.config.head_dim)
        return weights

    @property
    def formats(self) -> Mapping[str, str]:
        """See `Checkpoint.formats`."""
        return {name: tensor.type.name for name, tensor in self._tensors.items()}

    def groups(self, name: str) -> FourBitGroups:
        """See `Checkpoint.groups`."""
        stored = self._tensors.get(name)
        if stored is None or stored.type.name not in GROUP_KINDS:
            raise absent_groups(name, self._name)
        raw = np.frombuffer(self._file, np.uint8, stored.size, stored.start)
        groups = read_groups(raw, stored.type.name, stored.shape[0])
        for scales in (groups.scales, groups.minimums):
            if scales is not None:
                finite(scales.astype(np.float32), name, self._name)
        if self._is_permuted(name):
            return arranged(
                [groups], lambda parts: undo_permutation(parts[0], self.config.head_dim)
            )
        return groups

    def _is_permuted(self, name: str) -> bool:
        return self.config.architecture == "llama" and name.endswith(_PERMUTED)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<GgufCheckpoint {self._name}: {config.architecture},"
            f" {config.num_parameters / 1e6:.0f}M parameters, {len(self._file)} bytes>"
        )


def undo_permutation(rows: NDArray[Number], head_dim: int) -> NDArray[Number]:
    """Bring interleaved q or k rows back to rotate-half order.

    Within each head, the file holds row i of the first half, then row i of the second half, for
    each i; rotate-half order is the whole first half, then the whole second. Shape is kept.
    """
    halves = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _decode(file: mmap.mmap, tensor: GgufTensor, where: str) -> NDArray[np.float32]:
    raw = np.frombuffer(file, np.uint8, tensor.size, tensor.start)
    return finite(decode_blocks(raw, tensor.type, tensor.shape), tensor.name, where)


def _frequency_factors(file: mmap.mmap, header: GgufHeader, where: str) -> tuple[float, ...] | None:
    """Llama-3 RoPE scaling as converters write it: one divisor for each frequency."""
    tensor = header.tensors.get(_ROPE_FREQUENCIES)
    if tensor is None:
        return None
    if (
        tensor.type is GGMLQuantizationType.F32
        and len(tensor.shape) == 1
        and tensor.shape[0] <= _MAX_ROPE_FREQUENCIES
    ):
        factors = _decode(file, tensor, where)
        if factors.min() > 0:
            return tuple(float(factor) for factor in factors)
    raise MalformedModel(
        f"{where}: {_ROPE_FREQUENCIES} is {tensor.type.name} of shape {tensor.shape}; it must be a"
        f" vector of at most {_MAX_ROPE_FREQUENCIES} positive float32",
        rule="tensor.rope_freqs",
        value=tensor.shape,
        limit=_MAX_ROPE_FREQUENCIES,
        fix="the file is damaged: fetch it again and check its digest",
    )


def _check(header: GgufHeader, config: ModelConfig, where: str) -> Mapping[str, GgufTensor]:
    """The tensors by Hugging Face name, once they are exactly the expected ones."""
    expected = expected_tensors(config)
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    shapes.pop(_ROPE_FREQUENCIES, None)  # already in the config
    check_tensors({gguf_name(name): shape for name, shape in expected.items()}, shapes, where)
    tensors = {name: header.tensors[gguf_name(name)] for name in expected}
    for tensor in tensors.values():
        if tensor.type not in GGUF_TYPES:
            raise unsupported_type(
                tensor.name, tensor.type.name, [kind.name for kind in GGUF_TYPES], where
            )
    return tensors
