"""Matrix products whose bits do not depend on the batch (law 3).

A BLAS picks its kernel and its blocking from the *shape* of a product, so the same row can come out
with other last bits when it shares a batch with more rows. It does not look at the values. So every
product here has a fixed shape: rows are cut into tiles of `TILE_ROWS`, the last one padded with
zeros, the weight into panels of `PANEL_ROWS` output features, and each tile meets each panel in a
call of its own. A tile is made of whole vector registers, so that all its rows go through the same
instructions. What a row yields is then a function of that row and the weight alone, and everything
above (chunk size, batch composition, cache hits, preemption) inherits it.

A tile of 16 was measured against 8, 24 and 32 with OpenBLAS on AVX-512. A step over one sequence
costs little more than with fewer rows, since every weight is repacked for the kernel either way; 32
would be 1.5 times as fast in prefill and 1.3 times as slow for a sequence alone. Calling the
matrix-vector kernel for single rows would be more than twice as fast there, but its bits differ.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from salver.engine.runners.threads import TaskThreads

Floats = NDArray[np.float32]

TILE_ROWS = 16
PANEL_ROWS = 256  # a panel, about 0.5 MB, stays in a core's cache while the tiles go by


def linear(x: Floats, weight: Floats, bias: Floats | None, threads: TaskThreads) -> Floats:
    """`x` [n, in] times `weight` [out, in] transposed, plus `bias` [out]: [n, out]."""
    tiles = _tiles(x)
    out = np.empty((len(tiles), TILE_ROWS, len(weight)), np.float32)
    threads.run(
        [
            functools.partial(_panel, tiles, weight[first : first + PANEL_ROWS], out, first)
            for first in range(0, len(weight), PANEL_ROWS)
        ]
    )
    rows = out.reshape(-1, len(weight))[: len(x)]
    return rows if bias is None else rows + bias


def _tiles(x: Floats) -> Floats:
    """`x` [n, k] as tiles [ceil(n / TILE_ROWS), TILE_ROWS, k], the last one filled with zeros."""
    count, width = x.shape
    padded = np.zeros((-(-count // TILE_ROWS), TILE_ROWS, width), np.float32)
    padded.reshape(-1, width)[:count] = x
    return padded


def _panel(tiles: Floats, panel: Floats, out: Floats, first: int) -> None:
    """Fill columns [first, first + len(panel)) of `out`."""
    for tile, result in zip(tiles, out, strict=True):
        result[:, first : first + len(panel)] = (panel @ tile.T).T
