"""A checkpoint as a runner with bf16 weights sees it, for references that round nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salver.errors import MalformedModel
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig
from salver.models.groups import FourBitGroups

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bf16Weights:
    """`checkpoint` with its matrices rounded to bf16; norms and biases as they are."""

    checkpoint: Checkpoint

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    @property
    def formats(self) -> Mapping[str, str]:
        return dict.fromkeys(self.checkpoint.formats, "BF16")

    def groups(self, name: str) -> FourBitGroups:
        raise MalformedModel(f"{name} has no 4-bit groups")

    def tensor(self, name: str) -> Floats:
        """Raises like the checkpoint's own `tensor`."""
        values = self.checkpoint.tensor(name)
        return round_to_bf16(values) if values.ndim == 2 else values


def round_to_bf16(values: Floats) -> Floats:
    """The nearest bf16 of each finite number, halves to even, as float32."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
