"""Formats of weights and rows, imitated in NumPy on the float32 runner.

`rounded` values are float32 again, but hold no more than the format keeps: `int8_channels`,
`row_levels` and `group_levels` are what `native/pack.cpp` and the core's encodings of rows do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from salver.engine.runners.linear import linear
from salver.engine.runners.numpy_runner import NumpyRunner
from salver.engine.runners.weights import Projection
from salver.models.checkpoint import Checkpoint

Floats = NDArray[np.float32]

KINDS = ("qkv", "output", "gate_up", "down", "head")
GROUP = 32
_KIND_OF = {"q": "qkv", "k": "qkv", "v": "qkv", "o": "output", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True)
class Format:
    """How a matrix's weights [out, in], and the rows that it is multiplied with, are rounded."""

    name: str
    weights: Callable[[Floats], Floats]
    rows: Callable[[Floats], Floats]


def int8_channels(weights: Floats) -> Floats:
    """127 levels either side of zero, one scale per output channel."""
    most = np.maximum(np.abs(weights).max(axis=1, keepdims=True), np.float32(1e-30))
    rounded: Floats = np.rint(weights * (np.float32(127) / most)) * (most / np.float32(127))
    return rounded


def row_levels(levels: int) -> Callable[[Floats], Floats]:
    """That many levels either side of zero, one scale per row."""

    def rounded(rows: Floats) -> Floats:
        most = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-30))
        kept: Floats = np.rint(rows * (np.float32(levels) / most)) * (most / np.float32(levels))
        return kept

    return rounded


def group_levels(rows: Floats) -> Floats:
    """127 levels either side of zero, one scale per group of 32; a row's length is a multiple of it."""
    groups = row_levels(127)(rows.reshape(-1, GROUP))
    return groups.reshape(rows.shape)


def as_stored(weights: Floats) -> Floats:
    """4-bit groups of the file stay what they are."""
    return weights


W8A16 = Format("w8a16", int8_channels, row_levels(32767))
W8A8 = Format("w8a8", int8_channels, row_levels(127))
Q4 = Format("q4", as_stored, group_levels)


class FormatRunner(NumpyRunner):
    """The float32 runner, with the matrices of `formats` (by kind) rounded as they say.

    The embedding stays as it is, tied or not. Weights are rounded when formats are taken, rows at
    each use.
    """

    def __init__(self, checkpoint: Checkpoint, *, num_blocks: int, threads: int) -> None:
        super().__init__(checkpoint, num_blocks=num_blocks, threads=threads)
        self._formats: dict[str, Format] = {}
        self._rounded: dict[int, tuple[Format, Floats]] = {}

    def take(self, formats: dict[str, Format]) -> None:
        """Compute with these formats from now on; does nothing if they are the present ones."""
        if formats == self._formats:
            return
        self._formats, self._rounded = formats, {}
        for kind, projection in self._projections():
            if kind in formats:
                chosen = formats[kind]
                self._rounded[id(projection)] = chosen, chosen.weights(projection.weight)

    def _projections(self) -> Iterator[tuple[str, Projection]]:
        yield "head", self._weights.head
        for layer in self._weights.layers:
            for field in fields(layer):
                projection = getattr(layer, field.name)
                if isinstance(projection, Projection):
                    yield _KIND_OF.get(field.name, field.name), projection

    def _linear(self, projection: Projection, x: Floats) -> Floats:
        if id(projection) not in self._rounded:
            return super()._linear(projection, x)
        chosen, weight = self._rounded[id(projection)]
        return linear(chosen.rows(x), weight, projection.bias, self._threads)
