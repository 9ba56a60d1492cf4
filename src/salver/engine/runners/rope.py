"""Rotary position embedding (arXiv 2104.09864) in the rotate-half layout.

Dimension i of a head's first half is paired with dimension i of its second half, and the pair is
turned by `position * frequency[i]`. Angles are computed in float64 and their sines and cosines
rounded once, into a table that every step reads, so that a position has one set of bits.
"""

import math

import numpy as np
from numpy.typing import NDArray

from salver.engine.runners.linear import Floats
from salver.models.config import RopeConfig, RopeScaling


def frequencies(rope: RopeConfig, head_dim: int) -> NDArray[np.float64]:
    """Radians per position for each of head_dim / 2 pairs, with the configured scaling applied."""
    plain = rope.theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.frequency_factors is not None:
        plain = plain / np.asarray(rope.frequency_factors, np.float64)
    elif rope.scaling is RopeScaling.LLAMA3:
        return _llama3(plain, rope)
    return plain / rope.factor if rope.scaling is RopeScaling.LINEAR else plain


def _llama3(plain: NDArray[np.float64], rope: RopeConfig) -> NDArray[np.float64]:
    """Llama 3.1's scaling: long waves slowed by `factor`, short ones kept, a ramp between.

    Where a wave makes fewer than `low_freq_factor` turns in the trained context it is long; more
    than `high_freq_factor`, short.
    """
    turns = rope.original_max_positions * plain / (2 * math.pi)
    ramp = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = np.clip(ramp, 0.0, 1.0)
    return kept * plain + (1.0 - kept) * plain / rope.factor


class RotaryTable:
    """Cosines and sines of positions [0, max_positions): each [max_positions, head_dim / 2]."""

    def __init__(self, rope: RopeConfig, *, head_dim: int, max_positions: int) -> None:
        angles = np.outer(np.arange(max_positions), frequencies(rope, head_dim))
        self.cosines = np.cos(angles).astype(np.float32)
        self.sines = np.sin(angles).astype(np.float32)

    def rotate(self, x: Floats, positions: NDArray[np.intp]) -> Floats:
        """Turn every head of `x` [n, heads, head_dim] by its row's position [n]."""
        cos, sin = self.cosines[positions, None], self.sines[positions, None]
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate(
            (first * cos - second * sin, second * cos + first * sin), axis=-1, dtype=np.float32
        )
