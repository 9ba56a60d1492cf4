"""How many bytes a runner's largest step needs, besides weights and KV pool."""

from salver.engine.runners.attention import MAX_KEY_TILES, MAX_TILE_PAIRS, AttentionShape
from salver.engine.runners.linear import TILE_ROWS
from salver.models.config import ModelConfig

FLOAT32 = 4
FLOAT64 = 8
DRAWN_ROWS = 32  # whole rows of logits that the native core holds at once


def step_bytes(
    config: ModelConfig,
    *,
    block_size: int,
    threads: int,
    max_batch_tokens: int,
    max_context_tokens: int,
) -> int:
    """An upper bound on what is alive at a step's widest point: a layer's rows, or the logits."""
    tokens = -(-max_batch_tokens // TILE_ROWS) * TILE_ROWS
    shape = AttentionShape.of(config, block_size)
    layer = tokens * _row_bytes(config) + threads * _attention_bytes(shape, max_context_tokens)
    return max(layer, tokens * config.hidden_size * FLOAT32 + _logits_bytes(config))


def native_step_bytes(
    config: ModelConfig, *, threads: int, max_batch_tokens: int, max_context_tokens: int
) -> int:
    """An upper bound on the native core's buffers, and on the logits that leave it.

    Per token: the residual, the projections, what attention mixes, the gated layer, up to four bytes
    for each number of the widest row that a product reads, and the queries; rows padded to tiles of 32.
    Then what threads that share long contexts leave to be merged: of up to four tiles of 16 rows each,
    a head and a vector for every 128 keys.
    """
    tokens = -(-max_batch_tokens // 32) * 32
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    row = 2 * config.hidden_size + 2 * heads + 2 * config.intermediate_size
    scratch = 4 * 2**20  # logits of a few tiles per thread
    angles = 2 * config.max_positions * config.head_dim  # the tables, and the core's copy
    drawn = DRAWN_ROWS * config.vocab_size
    draw = threads * config.vocab_size * (FLOAT64 + 2 * FLOAT32)
    shared = 4 * threads * -(-max_context_tokens // 128) * 16 * (config.head_dim + 64 + 16)
    return (
        (tokens * row + angles + drawn + shared) * FLOAT32 + scratch + draw + _logits_bytes(config)
    )


def _row_bytes(config: ModelConfig) -> int:
    """One token in one layer: residual, norm, then the feed-forward's or the attention's parts."""
    heads = (config.num_heads + config.num_kv_heads) * config.head_dim
    widest = max(6 * config.intermediate_size, 5 * heads)
    return (4 * config.hidden_size + widest) * FLOAT32


def _attention_bytes(shape: AttentionShape, max_context_tokens: int) -> int:
    """One batch: its copies of keys and values, its scores and their mask, and what they mix to."""
    context_tiles = -(-max_context_tokens // shape.key_tile)
    keys = max(MAX_KEY_TILES, context_tiles) * shape.key_tile
    copies = 2 * keys * shape.num_kv_heads * shape.head_dim
    rows = max(MAX_TILE_PAIRS, context_tiles) * shape.num_kv_heads * shape.tile_rows
    scores = 2 * shape.key_tile + shape.head_dim
    return (copies + rows * scores) * FLOAT32 + rows * shape.key_tile


def _logits_bytes(config: ModelConfig) -> int:
    return config.vocab_size * (TILE_ROWS * FLOAT32 + 6 * FLOAT64)
