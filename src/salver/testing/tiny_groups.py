"""A random model some of whose matrices are stored in 4-bit groups, as in a GGUF file."""

from collections.abc import Mapping

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from salver.errors import MalformedModel
from salver.models import FourBitGroups, ModelConfig, expected_tensors
from salver.models.groups import read_groups
from salver.testing.tiny_model import TinyCheckpoint

_SCALES = {"Q4_0": 1 / 4.6, "Q4_1": 1 / 4.6, "Q4_K": 1 / 170}  # give weights of about unit size
_MINIMUMS = {"Q4_1": -7.5, "Q4_K": 7.5}  # in scales


class GroupedCheckpoint:
    """A `Checkpoint` that stores tensors whose name ends as a key of `stored` in that format.

    Formats are those of `salver.models.GROUP_KINDS`; everything else is a `TinyCheckpoint`'s.
    """

    def __init__(self, config: ModelConfig, stored: Mapping[str, str], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._plain = TinyCheckpoint(config, seed)
        self._groups: dict[str, FourBitGroups] = {}
        self._formats = dict(self._plain.formats)
        for name, shape in expected_tensors(config).items():
            for ending, format_name in stored.items():
                if name.endswith(ending):
                    rows, columns = shape
                    blocks = draw_blocks(rng, format_name, rows, columns, 2 * columns**-0.5)
                    self._groups[name] = read_groups(blocks, format_name, rows)
                    self._formats[name] = format_name

    @property
    def config(self) -> ModelConfig:
        return self._plain.config

    @property
    def formats(self) -> Mapping[str, str]:
        return self._formats

    def groups(self, name: str) -> FourBitGroups:
        if name not in self._groups:
            raise MalformedModel(f"{name} has no 4-bit groups")
        return self._groups[name]

    def tensor(self, name: str) -> NDArray[np.float32]:
        groups = self._groups.get(name)
        return self._plain.tensor(name) if groups is None else groups.weights()


def draw_blocks(
    rng: np.random.Generator, format_name: str, rows: int, columns: int, size: float = 1.0
) -> NDArray[np.uint8]:
    """Random ggml blocks of a matrix with weights of about `size`, row after row: uint8 [bytes]."""
    elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[format_name]]
    blocks = rng.integers(0, 256, (rows * columns // elements, block_bytes), np.uint8)
    scales = size * _SCALES[format_name] * rng.uniform(0.5, 1.5, len(blocks))
    blocks[:, :2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    if format_name in _MINIMUMS:
        minimums = scales * _MINIMUMS[format_name] * rng.uniform(0.9, 1.1, len(blocks))
        blocks[:, 2:4] = minimums.astype("<f2").view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)
