"""Causal attention over a paged KV cache, in tiles of fixed shape (law 3).

The idea of `linear.py`, carried to two dimensions: queries go in tiles of `QUERY_ROWS` rows, keys in
tiles that start at fixed absolute positions, and every product is one query tile with one key tile.
What is padding, not yet written, or outside a query's view gets weight exactly zero, and tiles are
added in order of position, so that a further tile changes no bit: x + 0 = x. Hence a query's result
depends on its sequence alone: not on the chunk it came in, its neighbours or where its blocks lie.

That padding is free of error also makes the batching simple. A step is cut into *spans*, short runs
of one sequence's queries. Spans with the same number of query and key tiles are stacked and go
through the same few array operations, so 64 decoding sequences cost a handful of calls, not 64.

The softmax looks at the scores twice (maximum, then sum). One pass that rescales as it goes would
save memory that bounded batches do not need, and read worse.
"""

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salver.engine.plan import ScheduledSequence
from salver.engine.runners.linear import Floats
from salver.engine.runners.threads import TaskThreads
from salver.models.config import ModelConfig

QUERY_ROWS = 8
MIN_KEY_TILE = 64  # tokens
MAX_SPAN_TILES = 16  # query tiles
MAX_TILE_PAIRS = 1024  # query tiles x key tiles of one batch: bounds its scores
MAX_KEY_TILES = 128  # of one batch: bounds its copies of keys and values

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a model's attention looks like. A head's group is the query heads that share its KV."""

    num_kv_heads: int
    group: int
    head_dim: int
    block_size: int
    sliding_window: int | None

    @classmethod
    def of(cls, config: ModelConfig, block_size: int) -> "AttentionShape":
        return cls(
            config.num_kv_heads,
            config.num_heads // config.num_kv_heads,
            config.head_dim,
            block_size,
            config.sliding_window,
        )

    @property
    def tile_rows(self) -> int:
        """Rows of a query tile: (token, query head of one group) pairs, padded to QUERY_ROWS."""
        return -(-self.group // QUERY_ROWS) * QUERY_ROWS

    @property
    def tile_tokens(self) -> int:
        """Tokens whose queries share a tile."""
        return self.tile_rows // self.group

    @property
    def key_tile(self) -> int:
        """Keys in a tile: the fewest whole blocks that hold MIN_KEY_TILE tokens."""
        return -(-MIN_KEY_TILE // self.block_size) * self.block_size

    def first_key_tile(self, position: int) -> int:
        """The earliest tile holding a key that the query at `position` sees."""
        window = position + 1 if self.sliding_window is None else self.sliding_window
        return max(0, position + 1 - window) // self.key_tile


@dataclass(frozen=True, slots=True)
class Span:
    """Queries of flat rows [row, row + tokens) at positions [position, position + tokens)."""

    row: int
    position: int
    tokens: int
    block_table: Sequence[int]

    def key_tiles(self, shape: AttentionShape) -> range:
        """The tiles that hold every key its queries see."""
        last = self.position + self.tokens - 1
        return range(shape.first_key_tile(self.position), last // shape.key_tile + 1)

    def query_tiles(self, shape: AttentionShape) -> int:
        return -(-self.tokens // shape.tile_tokens)


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """Stacked spans (s) of equally many query tiles (t) and key tiles (k).

    A tile's row r holds one query: that of flat row `rows[s, t, r]`, query head `member[r]` of each
    group. Rows that pad a tile repeat another row of it, and compute the same result again.
    """

    rows: Indices  # [s, t, r]
    member: Indices  # [r]
    blocks: Indices  # [s, blocks] pool blocks of the key tiles; block 0 stands in beyond the table
    unwritten: NDArray[np.bool_]  # [s, keys] no token of the sequence lives there
    visible: NDArray[np.bool_]  # [s, t, k, r, key_tile]


def plan_attention(
    sequences: Sequence[ScheduledSequence], shape: AttentionShape
) -> list[AttentionBatch]:
    """Cut a step into spans and stack those of equal size. Done once; every layer uses it."""
    alike: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for sequence in sequences:
        for span in _spans(sequence, shape):
            alike[span.query_tiles(shape), len(span.key_tiles(shape))].append(span)
    batches = []
    for (queries, keys), spans in alike.items():
        most = max(1, min(MAX_TILE_PAIRS // (queries * keys), MAX_KEY_TILES // keys))
        stacks = (spans[i : i + most] for i in range(0, len(spans), most))
        batches += [_stack(stack, queries, keys, shape) for stack in stacks]
    return batches


def _spans(sequence: ScheduledSequence, shape: AttentionShape) -> Iterator[Span]:
    """The longer the context, the shorter the span, so that one span's scores stay bounded."""
    pairs_per_tile = sequence.context_length // shape.key_tile + 1
    tiles = min(MAX_SPAN_TILES, max(1, MAX_TILE_PAIRS // pairs_per_tile))
    step = tiles * shape.tile_tokens
    for row in range(sequence.start, sequence.end, step):
        position = sequence.first_position + row - sequence.start
        yield Span(row, position, min(step, sequence.end - row), sequence.block_table)


def _stack(
    spans: Sequence[Span], query_tiles: int, key_tiles: int, shape: AttentionShape
) -> AttentionBatch:
    tile_row = np.arange(shape.tile_rows)
    token_of_row = np.minimum(tile_row // shape.group, shape.tile_tokens - 1)
    token = np.arange(query_tiles)[:, None] * shape.tile_tokens + token_of_row  # [t, r]
    last_token = np.array([span.tokens - 1 for span in spans])
    token = np.minimum(token, last_token[:, None, None])  # [s, t, r]
    query = np.array([span.position for span in spans])[:, None, None] + token
    first_key = np.array([span.key_tiles(shape).start for span in spans]) * shape.key_tile
    key = first_key[:, None] + np.arange(key_tiles * shape.key_tile)  # [s, keys]
    end = np.array([span.position + span.tokens for span in spans])
    return AttentionBatch(
        rows=np.array([span.row for span in spans])[:, None, None] + token,
        member=tile_row % shape.group,
        blocks=np.stack([_key_blocks(span, shape, key_tiles) for span in spans]),
        unwritten=key >= end[:, None],
        visible=_visible(query, key.reshape(len(spans), key_tiles, -1), shape.sliding_window),
    )


def _key_blocks(span: Span, shape: AttentionShape, key_tiles: int) -> Indices:
    per_tile = shape.key_tile // shape.block_size
    first = span.key_tiles(shape).start * per_tile
    known = span.block_table[first : first + key_tiles * per_tile]
    blocks = np.zeros(key_tiles * per_tile, np.intp)
    blocks[: len(known)] = known
    return blocks


def _visible(query: Indices, key: Indices, window: int | None) -> NDArray[np.bool_]:
    """Which keys at positions `key` [s, k, j] the queries at `query` [s, t, r] see: [s, t, k, r, j]."""
    query, key = query[:, :, None, :, None], key[:, None, :, None, :]
    visible = key <= query
    return visible if window is None else visible & (key > query - window)


def attend(
    queries: Floats,
    keys: Floats,
    values: Floats,
    batches: Sequence[AttentionBatch],
    shape: AttentionShape,
    threads: TaskThreads,
) -> Floats:
    """Attention of one layer.

    Args:
        queries: [tokens, num_heads, head_dim], rotated.
        keys, values: that layer's pool, [num_blocks, block_size, num_kv_heads, head_dim].
        batches: from `plan_attention` of this step; every query is in one of them.

    Returns:
        [tokens, num_heads * head_dim].
    """
    grouped = queries.reshape(-1, shape.num_kv_heads, shape.group, shape.head_dim)
    out = np.empty_like(grouped)
    threads.run(
        [
            functools.partial(_attend_batch, grouped, keys, values, batch, shape, out)
            for batch in batches
        ]
    )
    return out.reshape(len(queries), -1)


def _attend_batch(
    queries: Floats,
    keys: Floats,
    values: Floats,
    batch: AttentionBatch,
    shape: AttentionShape,
    out: Floats,
) -> None:
    """Fill the batch's rows of `out`, which like `queries` is [tokens, head, member, head_dim]."""
    head = np.arange(shape.num_kv_heads)[:, None]
    where = (batch.rows[:, :, None, :], head, batch.member)  # [s, t, head, r]
    tile_keys = _gather(keys, batch, shape)
    tile_values = _gather(values, batch, shape, zero=batch.unwritten)
    out[where] = _softmax_attention(queries[where], tile_keys, tile_values, batch.visible)


def _gather(
    pool: Floats,
    batch: AttentionBatch,
    shape: AttentionShape,
    zero: NDArray[np.bool_] | None = None,
) -> Floats:
    """Copy key tiles out of the pool: [s, 1, head, k, key_tile, head_dim].

    Slots in `zero` may hold another sequence's leavings, even a NaN, which weight zero would not
    silence.
    """
    copy = pool[batch.blocks].reshape(len(batch.blocks), -1, shape.num_kv_heads, shape.head_dim)
    if zero is not None:
        copy[zero] = 0.0
    tiles = copy.reshape(len(copy), -1, shape.key_tile, shape.num_kv_heads, shape.head_dim)
    return tiles.transpose(0, 3, 1, 2, 4)[:, None]


def _softmax_attention(
    queries: Floats, keys: Floats, values: Floats, visible: NDArray[np.bool_]
) -> Floats:
    """`queries` [s, t, head, r, d] against tiles [s, 1, head, k, j, d]: [s, t, head, r, d]."""
    scale = np.float32(queries.shape[-1] ** -0.5)
    scores = (queries * scale)[:, :, :, None] @ keys.swapaxes(-1, -2)  # [s, t, head, k, r, j]
    scores = np.where(visible[:, :, None], scores, np.float32(-np.inf))
    scores -= scores.max(axis=(3, 5), keepdims=True)
    weights = np.exp(scores, out=scores)
    total = _sum_tiles(weights.sum(axis=-1, keepdims=True))
    return _sum_tiles(weights @ values) / total


def _sum_tiles(parts: Floats) -> Floats:
    """Add [s, t, head, k, ...] over k, strictly in order of position."""
    return functools.reduce(np.add, np.moveaxis(parts, 3, 0))
