"""4-bit weights in groups of 32 along the input, as GGUF files hold them, not dequantized.

A weight is `scale * code + minimum`, with a code in [0, 16) and scale and minimum of its group. The
layouts are those of ggml's blocks (ggml-common.h).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

GROUP: Final = 32
_NESTED: Final = 8  # groups under one pair of outer scales


class GroupKind(StrEnum):
    """Where a group has its scale and minimum from."""

    PAIR = "pair"  # an f16 of each
    SINGLE = "single"  # an f16 scale; the minimum is -8 times it
    NESTED = "nested"  # a 6-bit integer of each, times an f16 of each for 8 groups


GROUP_KINDS: Final[Mapping[str, GroupKind]] = {
    "Q4_0": GroupKind.SINGLE,
    "Q4_1": GroupKind.PAIR,
    "Q4_K": GroupKind.NESTED,
}
"""Storage format -> the groups it is made of."""


@dataclass(frozen=True, slots=True, eq=False)
class FourBitGroups:
    """A matrix [rows, columns]; all arrays are C-contiguous and the caller's own.

    `codes` uint8 [rows, columns]; `scales` and `minimums` float16 [rows, columns / 32], or / 256 where
    nested; `inner_scales` and `inner_minimums` uint8 [rows, columns / 32], where nested.
    """

    kind: GroupKind
    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    minimums: NDArray[np.float16] | None = None
    inner_scales: NDArray[np.uint8] | None = None
    inner_minimums: NDArray[np.uint8] | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any] | None]:
        """Every array by its name; those that the kind does not have are None."""
        names = ("codes", "scales", "minimums", "inner_scales", "inner_minimums")
        return {name: getattr(self, name) for name in names}

    def weights(self) -> NDArray[np.float32]:
        """The same matrix in float32 [rows, columns]."""
        scales = self.scales.astype(np.float32)
        minimums = scales * -8 if self.minimums is None else self.minimums.astype(np.float32)
        if self.inner_scales is not None and self.inner_minimums is not None:
            scales = scales.repeat(_NESTED, axis=1) * self.inner_scales
            minimums = minimums.repeat(_NESTED, axis=1) * self.inner_minimums
        weights: NDArray[np.float32] = scales.repeat(GROUP, axis=1) * self.codes
        return weights + minimums.repeat(GROUP, axis=1)


def arranged(
    parts: list[FourBitGroups], arrange: Callable[[list[NDArray[Any]]], NDArray[Any]]
) -> FourBitGroups:
    """Matrices of one kind made one; `arrange` moves whole rows, and so whole groups."""
    listed = {name: [part.arrays[name] for part in parts] for name in parts[0].arrays}
    made = {
        name: arrange([array for array in arrays if array is not None])
        for name, arrays in listed.items()
        if arrays[0] is not None
    }
    return FourBitGroups(parts[0].kind, **made)


def read_groups(raw: NDArray[np.uint8], format_name: str, rows: int) -> FourBitGroups:
    """Take ggml blocks of a format in `GROUP_KINDS`, laid out row after row, apart."""
    block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[format_name]][1]
    blocks = raw.reshape(rows, -1, block_bytes)
    match GROUP_KINDS[format_name]:
        case GroupKind.SINGLE:
            return FourBitGroups(GroupKind.SINGLE, _codes(blocks[..., 2:]), _halves(blocks, 0))
        case GroupKind.PAIR:
            scales, minimums = _halves(blocks, 0), _halves(blocks, 2)
            return FourBitGroups(GroupKind.PAIR, _codes(blocks[..., 4:]), scales, minimums)
        case GroupKind.NESTED:
            inner_scales, inner_minimums = _six_bits(blocks[..., 4:16])
            return FourBitGroups(
                GroupKind.NESTED,
                _codes(blocks[..., 16:]),
                _halves(blocks, 0),
                -_halves(blocks, 2),  # the block holds what is taken off
                inner_scales,
                inner_minimums,
            )


def _halves(blocks: NDArray[np.uint8], at: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0]


def _codes(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, blocks, bytes] to [rows, columns].

    A run of 16 bytes (32 where nested, for two groups) holds its first half in the low four bits.
    """
    run = min(packed.shape[-1], 32)
    runs = packed.reshape(len(packed), -1, 1, run)
    return np.concatenate((runs & 15, runs >> 4), axis=2).reshape(len(packed), -1)


def _six_bits(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """[rows, blocks, 12] to scales and minimums [rows, groups].

    Four bytes hold scales 0..3 and four minimums 0..3, in six bits each; four hold the low four bits
    of scales and minimums 4..7, whose high two are left over in the first eight.
    """
    first, second, low = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate((first & 63, low & 15 | first >> 6 << 4), axis=-1)
    minimums = np.concatenate((second & 63, low >> 4 | second >> 6 << 4), axis=-1)
    return scales.reshape(len(packed), -1), minimums.reshape(len(packed), -1)
